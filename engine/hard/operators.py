"""The eleven alterations under which a prediction should not change: batches of images in, batches out, no chance.

In and out: images (B, 3, H, W) float RGB in [0, 1]; on any device. Each image is altered by itself, so a batch gives
what its images give one by one. Sizes stay; what comes from beyond the border is its reflection. Strengths are such
that a person names the image as before. Knows nothing of models.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from types import MappingProxyType
from typing import Final, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.sums import grouped_sums

Operator: TypeAlias = Callable[[Tensor], Tensor]

#: Standard deviation of the blur, as a share of the shorter side, and at least in pixels.
_BLUR: Final = 0.02
_LEAST_BLUR: Final = 0.7
#: What a crop keeps, of each side; how much smaller `scale` makes an image.
_KEPT: Final = 0.8
_SCALED: Final = 0.8
#: Of each side; tangent of the angle; grey levels of 1.
_MOVED: Final = 0.1
_SHEARED: Final = 0.2
_ADDED: Final = 0.12
#: How much of what a blur takes away is added by sharpening.
_SHARPENED: Final = 1.0
#: Superpixels: cells of a side at first, rounds of k-means, and how much place counts beside color.
_CELLS: Final = 12
_ROUNDS: Final = 4
_COMPACTNESS: Final = 0.25


Affine: TypeAlias = tuple[tuple[float, float, float], tuple[float, float, float]]

#: Where each place of an altered image comes from, in shares of half a side around the middle: (x, y) of the altered
#: image times the left 2x2 numbers plus the right ones; of the others places stay.
PLACES: Final[MappingProxyType[str, Affine]] = MappingProxyType(
    {
        "fliplr": ((-1.0, 0.0, 0.0), (0.0, 1.0, 0.0)),
        "flipud": ((1.0, 0.0, 0.0), (0.0, -1.0, 0.0)),
        "crop": ((_KEPT, 0.0, 0.0), (0.0, _KEPT, 0.0)),
        "scale": ((1 / _SCALED, 0.0, 0.0), (0.0, 1 / _SCALED, 0.0)),
        "translate": ((1.0, 0.0, -2 * _MOVED), (0.0, 1.0, -2 * _MOVED)),
        "shear": ((1.0, _SHEARED, 0.0), (0.0, 1.0, 0.0)),
    }
)


def gaussian_blur(images: Tensor) -> Tensor:
    """Out of focus: a Gaussian of 2 % of the shorter side."""
    return _blurred(images, max(_LEAST_BLUR, _BLUR * min(images.shape[2:])))


def flip_left_right(images: Tensor) -> Tensor:
    """Mirrored."""
    return images.flip(3)


def flip_up_down(images: Tensor) -> Tensor:
    """Upside down."""
    return images.flip(2)


def crop(images: Tensor) -> Tensor:
    """The middle, 80 % of each side, enlarged."""
    return _seen_through(images, PLACES["crop"])


def scale(images: Tensor) -> Tensor:
    """A fifth smaller."""
    return _seen_through(images, PLACES["scale"])


def translate(images: Tensor) -> Tensor:
    """Moved right and down by a tenth."""
    return _seen_through(images, PLACES["translate"])


def shear(images: Tensor) -> Tensor:
    """Slanted by 11 degrees."""
    return _seen_through(images, PLACES["shear"])


def sharpen(images: Tensor) -> Tensor:
    """Edges stand out: as much is added as a blur would take away."""
    return (images + _SHARPENED * (images - gaussian_blur(images))).clamp(0, 1)


def add(images: Tensor) -> Tensor:
    """Lighter by 12 % of the range."""
    return (images + _ADDED).clamp(0, 1)


def invert(images: Tensor) -> Tensor:
    """The negative."""
    return 1 - images


def superpixels(images: Tensor) -> Tensor:
    """Patches of one color each: pixels gathered by color and place around the cells of a grid (SLIC: Achanta et al.
    2012; each pixel may join the nine cells around it)."""
    height, width = images.shape[2:]
    rows, columns = min(_CELLS, height), min(_CELLS, width)
    points = _points(images, rows, columns)  # (B, 5, H W): color, and place in cells
    home_row = (torch.arange(height, device=images.device) * rows // height)[:, None].expand(height, width).flatten()
    home_column = (torch.arange(width, device=images.device) * columns // width)[None].expand(height, width).flatten()
    around = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    candidates = torch.stack(
        [(home_row + i).clamp(0, rows - 1) * columns + (home_column + j).clamp(0, columns - 1) for i, j in around]
    )  # (9, H W), cells
    cell = (home_row * columns + home_column).expand(len(images), -1)
    for _ in range(_ROUNDS):
        centers = _means(points, cell, rows * columns)
        distances = torch.stack([(points - centers[:, :, each]).square().sum(dim=1) for each in candidates], dim=1)
        nearest = distances.argmin(dim=1)  # (B, H W)
        cell = candidates.T.expand(len(images), -1, -1).gather(2, nearest[:, :, None])[:, :, 0]
    colors = _means(points[:, :3], cell, rows * columns)
    return colors.gather(2, cell[:, None].expand(-1, 3, -1)).reshape(images.shape).to(images.dtype)


#: By the names that a request uses, in the order of their reasons, 19..29.
OPERATORS: Final = MappingProxyType(
    {
        "gaussianblur": gaussian_blur,
        "fliplr": flip_left_right,
        "crop": crop,
        "flipud": flip_up_down,
        "scale": scale,
        "translate": translate,
        "shear": shear,
        "superpixels": superpixels,
        "sharpen": sharpen,
        "add": add,
        "invert": invert,
    }
)


def _blurred(images: Tensor, sigma: float) -> Tensor:
    radius = min(math.ceil(3 * sigma), *(side - 1 for side in images.shape[2:]))
    if radius < 1:
        return images
    places = torch.arange(-radius, radius + 1, dtype=torch.float32, device=images.device)
    kernel = torch.exp(-places.square() / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).to(images.dtype).expand(3, 1, -1)
    padded = F.pad(images, (radius,) * 4, mode="reflect")
    return F.conv2d(F.conv2d(padded, kernel[:, :, None, :], groups=3), kernel[:, :, :, None], groups=3)


def _seen_through(images: Tensor, map_back: Affine) -> Tensor:
    """Each place of the result shows the place of the image that the affine map says, in shares of half a side."""
    theta = torch.tensor(map_back, dtype=images.dtype, device=images.device).expand(len(images), 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def _points(images: Tensor, rows: int, columns: int) -> Tensor:
    """(B, 5, H W) float32: color, and row and column in cells times the weight of place."""
    b, _, height, width = images.shape
    y = (torch.arange(height, device=images.device) + 0.5) / height * rows * _COMPACTNESS
    x = (torch.arange(width, device=images.device) + 0.5) / width * columns * _COMPACTNESS
    places = torch.stack(torch.meshgrid(y, x, indexing="ij")).flatten(1).expand(b, -1, -1)
    return torch.cat([images.flatten(2).float(), places], dim=1)


def _means(points: Tensor, cell: Tensor, cells: int) -> Tensor:
    """(B, c, H W) and (B, H W) cell numbers -> (B, c, cells); an empty cell is out of everyone's reach."""
    b, c, _ = points.shape
    of_each = cell[:, None].expand(-1, c, -1).flatten(0, 1)
    sums = grouped_sums(points.flatten(0, 1), of_each, cells).view(b, c, cells)
    counts = grouped_sums(torch.ones_like(points[:, 0]), cell, cells)[:, None]
    return torch.where(counts > 0, sums / counts.clamp(min=1), 1e6)
