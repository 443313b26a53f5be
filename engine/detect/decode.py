"""From maps of answers to boxes: peaks, each with the boxes around it averaged, and none twice.

In: `Maps` of B images, of one network or the mean of several. Out: for each image boxes with what was said of them, by
score from high to low.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.detect.losses import boxes_of
from engine.detect.network import Maps
from engine.detect.overlaps import batched_nms

#: Boxes of an image at most: at first, and after those that are there twice went.
_PEAKS: Final = 1_000
MOST: Final = 500
#: A peak below that is none.
_LEAST: Final = 0.01
#: Of two boxes of a class that overlap more, the less sure goes.
_SAME: Final = 0.6
#: Boxes that overlap the surest so much say together where the object is, each by its score.
_VOTING: Final = 0.75
#: How much the fit counts in a score: center^(1 - FIT) x fit^FIT.
_FIT: Final = 0.4


@dataclass(frozen=True, slots=True)
class Raw:
    """Boxes of one image. xyxy: (m, 4) pixels of the input. classes: (m,) int64. scores: (m,) in [0, 1], by which they
    are ordered. centers, fits: (m,) in [0, 1], what the scores are made of."""

    xyxy: Tensor
    classes: Tensor
    scores: Tensor
    centers: Tensor
    fits: Tensor

    def __len__(self) -> int:
        return len(self.scores)

    def cpu(self) -> Raw:
        return Raw(self.xyxy.cpu(), self.classes.cpu(), self.scores.cpu(), self.centers.cpu(), self.fits.cpu())


def probable(maps: Maps) -> Maps:
    """The same with probabilities in place of logits: what may be averaged over views and networks."""
    return Maps(maps.centers.sigmoid(), maps.edges, maps.fits.sigmoid())


def unflipped(maps: Maps, axis: int) -> Maps:
    """The maps of mirrored images (axis 3: left and right, 2: top and bottom), mirrored back."""
    edges = maps.edges.flip(axis)
    edges = edges[:, [2, 1, 0, 3]] if axis == 3 else edges[:, [0, 3, 2, 1]]
    return Maps(maps.centers.flip(axis), edges, maps.fits.flip(axis - 1))


def mean_maps(several: list[Maps]) -> Maps:
    """The mean of what several say."""
    if len(several) == 1:
        return several[0]
    return Maps(
        torch.stack([each.centers for each in several]).mean(dim=0),
        torch.stack([each.edges for each in several]).mean(dim=0),
        torch.stack([each.fits for each in several]).mean(dim=0),
    )


def decoded(maps: Maps) -> list[Raw]:
    """maps: with probabilities. A `Raw` an image."""
    scores = maps.centers ** (1 - _FIT) * maps.fits[:, None] ** _FIT
    peaks = (F.max_pool2d(scores, 3, stride=1, padding=1) == scores) & (maps.centers > _LEAST)
    boxes = boxes_of(maps.edges)
    return [_image(scores[at], peaks[at], boxes[at], maps.centers[at], maps.fits[at]) for at in range(len(scores))]


def _image(scores: Tensor, peaks: Tensor, boxes: Tensor, centers: Tensor, fits: Tensor) -> Raw:
    classes, ys, xs = peaks.nonzero().unbind(1)
    found = scores[classes, ys, xs]
    found, order = found.sort(descending=True, stable=True)
    order = order[:_PEAKS]
    classes, ys, xs, found = classes[order], ys[order], xs[order], found[: len(order)]
    xyxy = boxes[:, ys, xs].T
    # It keeps classes apart by moving boxes, and takes them to lie above 0.
    keep = batched_nms(xyxy - xyxy.min() if len(xyxy) else xyxy, found, classes, _SAME)[:MOST]
    kept = _voted(xyxy[keep], classes[keep], boxes, scores, ys[keep], xs[keep])
    return Raw(kept, classes[keep], found[keep], centers[classes, ys, xs][keep], fits[ys, xs][keep])


def _voted(xyxy: Tensor, classes: Tensor, boxes: Tensor, scores: Tensor, ys: Tensor, xs: Tensor) -> Tensor:
    """The mean of the boxes of the 5x5 cells around each peak, (m, 4), by their scores, where they overlap it."""
    if not len(xyxy):
        return xyxy
    h, w = scores.shape[1:]
    steps = torch.arange(-2, 3, device=xyxy.device)
    dy, dx = (each.flatten() for each in torch.meshgrid(steps, steps, indexing="ij"))
    y, x = (ys[:, None] + dy).clamp(0, h - 1), (xs[:, None] + dx).clamp(0, w - 1)  # (m, 25)
    around = boxes[:, y, x].permute(1, 2, 0)  # (m, 25, 4)
    weight = scores[classes[:, None], y, x]
    low = torch.maximum(around[..., :2], xyxy[:, None, :2])
    high = torch.minimum(around[..., 2:], xyxy[:, None, 2:])
    both = (high - low).clamp(min=0).prod(dim=-1)
    area = (around[..., 2:] - around[..., :2]).clamp(min=0).prod(dim=-1)
    own = (xyxy[:, 2:] - xyxy[:, :2]).clamp(min=0).prod(dim=-1)[:, None]
    near = both / (area + own - both).clamp(min=1e-6) >= _VOTING
    weight = torch.where(near, weight, 0.0)[..., None]
    mean: Tensor = (around * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1e-12)
    return torch.where(weight.sum(dim=1) > 0, mean, xyxy)
