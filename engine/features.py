"""What can be measured on an image and on its boxes, from pixels alone.

In: pixels, RGB uint8 (B, 3, H, W) or grey uint8 (B, H, W); boxes (m, 4) float, xyxy pixels. Out: one float32 number
an image or a box. Every row of a batch is computed by itself: a batch gives the same numbers as its images one by
one, on CPU and GPU. `IMAGE_FEATURES` and `BOX_FEATURES` say what each number means; the reason numbers are those of
the hard examples (feature_distribution_mining). Knows nothing of files.

The functions of tensors define the numbers. `light_of` and `sharpness_of` give the same ones for a single image on the
CPU, uint8 arrays, several times faster; where many threads measure images, they also hold Python's lock much less.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Feature:
    """What a number means. log: its distribution is skewed, compare its logarithms; reason: hard-example reason."""

    meaning: str
    unit: str
    reason: int | None
    log: bool = False


IMAGE_FEATURES: Final[dict[str, Feature]] = {
    "resolution": Feature("width x height", "pixels", 5, log=True),
    "aspect_ratio": Feature("width / height", "ratio", 6, log=True),
    "brightness": Feature("perceived luminance, 0 black .. 1 white", "[0, 1]", 7),
    "saturation": Feature("HSV saturation, 0 grey .. 1 pure colors", "[0, 1]", 8),
    "colorfulness": Feature(
        "Hasler and Suesstrunk, 0 grey .. about 109 extremely colorful", "8-bit levels", 9, log=True
    ),
    "clarity": Feature(
        "variance of the Laplacian / mean squared gradient, larger = clearer", "1/pixel^2", 10, log=True
    ),
    "ambiguity": Feature("blur degree: sigma of the blur that would make edges this soft", "pixels", None, log=True),
}

BOX_FEATURES: Final[dict[str, Feature]] = {
    "box_count": Feature("number of boxes in the image", "boxes", 11),
    "box_area_std": Feature("standard deviation of the box areas, 0 with one box", "pixels^2", 12, log=True),
    "box_aspect_ratio": Feature("box width / box height", "ratio", 13, log=True),
    "box_area_share": Feature("box area / image area", "[0, 1]", 14, log=True),
    "box_edge": Feature("0 at the image centre .. 1 at the border, along the ray through the box centre", "[0, 1]", 15),
    "box_brightness": Feature("brightness inside the box", "[0, 1]", 16),
    "box_clarity": Feature("clarity inside the box", "1/pixel^2", 17, log=True),
    "box_overlap": Feature("the part of the box that other boxes cover", "[0, 1]", 18),
}

#: What is measured for a reason of hard examples.
FEATURES_OF_REASONS: Final[dict[int, Feature]] = {
    feature.reason: feature
    for feature in (*IMAGE_FEATURES.values(), *BOX_FEATURES.values())
    if feature.reason is not None
}

#: Rounding to 8 bits adds noise of variance 1/12 a pixel, which the Laplacian (weights 1, 1, 1, 1, -4) sees as
#: 20/12; without taking it out, every strong blur looks the same.
_ROUNDING: Final = 20.0 / 12.0
#: Squared grey levels below which there is no edge to judge: an empty picture counts as blurred, not as sharp.
_NO_EDGE: Final = 1.0
_LEAST_CLARITY: Final = 1e-4
#: Clarity is a mean over pixels: on images above this size every second to fourth row says the same at less cost.
_SAMPLED_PIXELS: Final = 19_200
_LARGEST_STEP: Final = 4
#: The weights of red, green and blue in ITU-R BT.601.
_LUMA: Final = np.array([0.299, 0.587, 0.114], np.float32)


def brightness(images: Tensor) -> Tensor:
    """Mean perceived luminance of images (B, 3, H, W) uint8: sqrt(0.299 R^2 + 0.587 G^2 + 0.114 B^2), in [0, 1].

    The weights are ITU-R BT.601's, applied to squared values as in the HSP color model (Finley 2006), which
    follows perception better than the linear sum on saturated colors. Returns (B,).
    """
    return _luminance(images.float()).flatten(1).mean(1) / 255.0


def saturation(images: Tensor) -> Tensor:
    """Mean HSV saturation of images (B, 3, H, W) uint8: (max - min) / max of the channels, 0 for black.

    Returns (B,) in [0, 1].
    """
    values = images.float()
    highest, lowest = values.amax(1), values.amin(1)
    return ((highest - lowest) / highest.clamp_min(1.0)).flatten(1).mean(1)


def colorfulness(images: Tensor) -> Tensor:
    """Colorfulness of images (B, 3, H, W) uint8 (Hasler and Suesstrunk 2003, metric M3). Returns (B,) >= 0.

    With rg = R - G and yb = (R + G) / 2 - B in 8-bit levels: the length of the standard deviations (s_rg, s_yb)
    plus 0.3 times the length of the means. 0 not, 15 slightly, 33 moderately, 59 quite, 82 highly colorful.
    """
    red, green, blue = images.float().unbind(1)
    opponents = torch.stack(((red - green), (red + green) * 0.5 - blue), 1).flatten(2)  # (B, 2, H*W)
    mean = opponents.mean(2)
    variance = (opponents - mean[:, :, None]).square().mean(2)
    return variance.sum(1).sqrt() + 0.3 * mean.square().sum(1).sqrt()


def clarity(grey: Tensor) -> Tensor:
    """How sharp the edges of grey images (B, H, W) uint8 are: variance of the Laplacian / mean squared gradient.

    The variance of the Laplacian (Pech-Pacheco et al. 2000) grows with contrast and exposure as well as with
    sharpness; over the energy of the gradient it depends on the softness of the edges alone. An ideal edge blurred by a
    Gaussian of sigma s (pixels) gives 1 / (2 s^2) at whatever contrast, and sharp photos give 2..5 at every size from
    94 to 3,024 pixels, so values are comparable across resolutions. Images below 3x3 have no Laplacian: they get
    the least value. Returns (B,), in [1e-4, 32], unit 1/pixel^2.
    """
    if grey.shape[1] < 3 or grey.shape[2] < 3:
        return torch.full((grey.shape[0],), _LEAST_CLARITY, device=grey.device)
    step = _row_step(grey[0].numel())
    middle = grey[:, 1:-1:step].to(torch.int16)
    above, below = (grey[:, first:last:step, 1:-1].to(torch.int16) for first, last in ((0, -2), (2, None)))
    left, right = middle[:, :, :-2], middle[:, :, 2:]
    laplacian = (left + right).add_(above).add_(below).sub_(middle[:, :, 1:-1], alpha=4)
    sharpness = (_mean_square(laplacian) - _ROUNDING).clamp_min(0.0)
    gradient = (_mean_square(right - left) + _mean_square(above.sub_(below))) / 4.0
    return (sharpness / (gradient + _NO_EDGE)).clamp_min(_LEAST_CLARITY)


def ambiguity(clarity_: Tensor) -> Tensor:
    """The blur degree that belongs to a clarity: sqrt(1 / (2 clarity)), the sigma in pixels of an equally soft edge."""
    return (2.0 * clarity_).rsqrt()


def light_of(planes: Pixels) -> dict[str, float]:
    """brightness, saturation and colorfulness of one image, (3, n) uint8: its red, green and blue pixels."""
    red, green = planes[:2]
    luminance = np.sqrt(_LUMA @ np.square(planes.astype(np.float32)))
    highest, lowest = planes.max(0), planes.min(0)
    purity = (highest - lowest) / np.maximum(highest, 1).astype(np.float32)
    mean_red, mean_green, mean_blue = (cv2.mean(plane)[0] for plane in planes)
    means = mean_red - mean_green, (mean_red + mean_green) / 2.0 - mean_blue
    squares = (
        _sum_of_squares((1, -1), (red, green)) / red.size,
        _sum_of_squares((1, 1, -2), planes) / (4.0 * red.size),
    )
    variance = sum(max(square - mean**2, 0.0) for square, mean in zip(squares, means, strict=True))
    return {
        "brightness": cv2.mean(luminance)[0] / 255.0,
        "saturation": cv2.mean(purity)[0],
        "colorfulness": variance**0.5 + 0.3 * math.hypot(*means),
    }


def sharpness_of(rgb: Pixels) -> dict[str, float]:
    """clarity and ambiguity of the grey of one image, (h, w, 3) uint8. Only the rows that are sampled become grey."""
    clarity_ = _clarity_of(rgb) if min(rgb.shape[:2]) >= 3 else _LEAST_CLARITY
    return {"clarity": clarity_, "ambiguity": (2.0 * clarity_) ** -0.5}


def _clarity_of(rgb: Pixels) -> float:
    step = _row_step(rgb.shape[0] * rgb.shape[1])
    rows = rgb[:-2:step], rgb[1:-1:step], rgb[2::step]
    above, middle, below = (np.asarray(cv2.cvtColor(row, cv2.COLOR_RGB2GRAY), np.uint8) for row in rows)
    left, centre, right = middle[:, :-2], middle[:, 1:-1], middle[:, 2:]
    above, below = above[:, 1:-1], below[:, 1:-1]
    laplacian = _sum_of_squares((1, 1, 1, 1, -4), (left, right, above, below, centre))
    gradient = _sum_of_squares((1, -1), (left, right)) + _sum_of_squares((1, -1), (above, below))
    sharpness = max(laplacian / centre.size - _ROUNDING, 0.0)
    return max(sharpness / (gradient / (4.0 * centre.size) + _NO_EDGE), _LEAST_CLARITY)


def _sum_of_squares(weights: Sequence[int], planes: Iterable[Pixels]) -> float:
    """The sum over all pixels of (w1 x1 + w2 x2 + ...)^2, for weights that add up to 0: a whole number, exact.

    It is then minus the sum over all pairs of wi wj |xi - xj|^2, and OpenCV finds the squared distance of two
    uint8 planes in one call, without a copy of either.
    """
    return -sum(
        w1 * w2 * cv2.norm(x1, x2, cv2.NORM_L2SQR)
        for (w1, x1), (w2, x2) in combinations(zip(weights, planes, strict=True), 2)
    )


def _row_step(pixels: int) -> int:
    return min(max(pixels // _SAMPLED_PIXELS, 1), _LARGEST_STEP)


@dataclass(frozen=True, slots=True)
class BoxFeatures:
    """The eight box features of one image with m boxes; see BOX_FEATURES. Each (m,) but count and area_std."""

    count: int
    area_std: float
    aspect_ratio: Tensor
    area_share: Tensor
    edge: Tensor
    brightness: Tensor
    clarity: Tensor
    overlap: Tensor


def box_features(boxes: Tensor, width: int, height: int, image: Tensor | None = None) -> BoxFeatures:
    """Features of the boxes (m, 4) xyxy, in pixels of an image of width x height.

    image: the same image as uint8 (3, h, w) RGB, at any reduction; without it brightness and clarity are NaN.
    Boxes are cut at the image border; a box without area has aspect ratio and shares 0. Reasons 11-18.
    """
    limits = torch.tensor([width, height, width, height], dtype=torch.float32)
    boxes = torch.minimum(boxes.float().clamp_min(0.0), limits)
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp_min(0.0)
    areas = sides.prod(1)
    aspect_ratio = torch.where(sides[:, 1] > 0, sides[:, 0] / sides[:, 1].clamp_min(1e-6), 0.0)
    inside = _pixels_inside(boxes / limits, image) if image is not None else []
    nothing = torch.full((len(boxes),), torch.nan)
    return BoxFeatures(
        count=len(boxes),
        area_std=float(areas.std(correction=0)) if len(boxes) else 0.0,
        aspect_ratio=aspect_ratio,
        area_share=areas / float(width * height),
        edge=_edge(boxes, width, height),
        brightness=torch.cat([brightness(cut) for cut in inside]) if inside else nothing,
        clarity=torch.cat([clarity(to_grey(cut)) for cut in inside]) if inside else nothing,
        overlap=_overlap(boxes, areas),
    )


def to_grey(images: Tensor) -> Tensor:
    """Luma of images (B, 3, H, W) uint8 -> (B, H, W) uint8 (ITU-R BT.601, rounded)."""
    red, green, blue = images.float().unbind(1)
    return (0.299 * red + 0.587 * green + 0.114 * blue).round().to(torch.uint8)


def _luminance(values: Tensor) -> Tensor:
    weights = values.new_tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    return (values.square() * weights).sum(1).sqrt()


def _mean_square(differences: Tensor) -> Tensor:
    return differences.flatten(1).float().square().mean(1)


def _edge(boxes: Tensor, width: int, height: int) -> Tensor:
    """Distance image centre -> box centre over image centre -> border along the same ray: the larger of the two
    offsets, each over half a side. (m,) in [0, 1]."""
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2.0
    half = torch.tensor([width / 2.0, height / 2.0])
    return ((centres - half).abs() / half).amax(1) if len(boxes) else boxes.new_zeros(0)


def _overlap(boxes: Tensor, areas: Tensor) -> Tensor:
    """The part of each box that the union of the others covers: exact, on the grid of all edges. (m,) in [0, 1]."""
    covered = []
    for i, box in enumerate(boxes):
        others = torch.cat((boxes[:i], boxes[i + 1 :]))
        cut_low, cut_high = torch.maximum(others[:, :2], box[:2]), torch.minimum(others[:, 2:], box[2:])
        meets = (cut_high > cut_low).all(1)
        covered.append(_union_area(cut_low[meets], cut_high[meets]))
    union = torch.stack(covered) if covered else areas
    return torch.where(areas > 0, union / areas.clamp_min(1e-6), 0.0).clamp(0.0, 1.0)


def _union_area(low: Tensor, high: Tensor) -> Tensor:
    """Area covered by rectangles with corners low (m, 2), high (m, 2): one strip between x edges at a time."""
    area = torch.zeros(())
    edges = torch.cat((low[:, 0], high[:, 0])).sort().values
    for left, right in pairwise(edges):
        here = (low[:, 0] <= left) & (high[:, 0] >= right)
        area = area + (right - left) * _union_length(low[here, 1], high[here, 1])
    return area


def _union_length(low: Tensor, high: Tensor) -> Tensor:
    """Length covered by intervals [low, high], each (m,)."""
    if not len(low):
        return torch.zeros(())
    order = low.argsort()
    low, high = low[order], high[order]
    reached = torch.cat((low[:1], high.cummax(0).values[:-1]))  # how far the earlier ones reach
    return (high - torch.maximum(low, reached)).clamp_min(0.0).sum()


def _pixels_inside(shares: Tensor, image: Tensor) -> list[Tensor]:
    """The image (3, h, w) cut at each box, given in shares of its sides; at least one pixel each. (1, 3, ., .)"""
    height, width = image.shape[1:]
    cuts = []
    for x1, y1, x2, y2 in shares.tolist():
        left, top = min(int(x1 * width), width - 1), min(int(y1 * height), height - 1)
        right, bottom = max(round(x2 * width), left + 1), max(round(y2 * height), top + 1)
        cuts.append(image[None, :, top:bottom, left:right])
    return cuts
