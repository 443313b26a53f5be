"""What a detector shall say of images whose boxes are known, and how far it is from that.

In: boxes (B, M, 4) xyxy in pixels of the input, rows of zeros where there are fewer, and the class of each. Out: a
`Wanted` of each cell, and the loss of `Maps`. A box is learned by the cells around its middle, each by how near it is
(weighted centers: Liu et al. 2020, TTFNet): a small object counts as much as a large one. Knows nothing of images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.detect.network import CELL, Maps
from engine.sums import grouped_sums

#: Part of a box, in each direction, whose cells learn it; the bell over it falls to 1 % at its border.
_PART: Final = 0.54
_STEEPNESS: Final = 4.5
#: Boxes that are laid out at once: memory is B x _AT_ONCE x cells.
_AT_ONCE: Final = 64
#: The powers of the focal loss for centers: of the error, and of how far from a center (Zhou et al. 2019).
_ALPHA: Final = 2
_BETA: Final = 4
#: What counts how much.
_OF_BOXES: Final = 3.0
_OF_FITS: Final = 0.5


@dataclass(frozen=True, slots=True)
class Drawn:
    """Boxes on B images, padded to M. xyxy: (B, M, 4) pixels. classes: (B, M) int64, -1 where there is no box. weights:
    (B, M), in [0, 1], how sure it is; 0: neither an object nor none, its place is left out."""

    xyxy: Tensor
    classes: Tensor
    weights: Tensor

    def to(self, device: torch.device) -> Drawn:
        return Drawn(self.xyxy.to(device), self.classes.to(device), self.weights.to(device))


@dataclass(frozen=True, slots=True)
class Wanted:
    """Of each cell of B images. centers: (B, k, h, w) in [0, 1], at the middle of an object how sure it is. middles:
    (B, k, h, w) bool, where these are. care: (B, 1, h, w), 0
    where nobody knows whether there is an object. boxes: (B, 4, h, w) xyxy, of the object that is densest there: one
    inside another has its middle. weights: (B, h, w), how much the box of a cell counts: those of one object add up to
    its weight."""

    centers: Tensor
    middles: Tensor
    care: Tensor
    boxes: Tensor
    weights: Tensor


def wanted(drawn: Drawn, outputs: int, height: int, width: int) -> Wanted:
    """height, width: of the input in pixels, multiples of CELL."""
    b, m = drawn.classes.shape
    h, w, device = height // CELL, width // CELL, drawn.xyxy.device
    xs, ys = middles(h, w, device)
    x1, y1, x2, y2 = drawn.xyxy.unbind(-1)
    there = (drawn.classes >= 0) & (drawn.weights > 0)
    # The cell that the middle lies in has the full bell, however small the box.
    bell_x = _bell(xs, _snapped((x1 + x2) / 2, w), x2 - x1) * there[..., None]  # (B, M, w)
    bell_y = _bell(ys, _snapped((y1 + y2) / 2, h), y2 - y1)  # (B, M, h)
    density = 1 / ((x2 - x1) * (y2 - y1)).clamp(min=1.0)
    centers = torch.zeros(b, outputs, h, w, device=device)
    densest, nearest = torch.zeros(b, h, w, device=device), torch.zeros(b, h, w, device=device)
    owner = torch.zeros(b, h, w, dtype=torch.int64, device=device)
    rows = torch.arange(b, device=device)
    for first in range(0, m, _AT_ONCE):
        part = slice(first, min(first + _AT_ONCE, m))
        bells = bell_y[:, part, :, None] * bell_x[:, part, None, :]  # (B, M', h, w)
        best, at = (bells * density[:, part, None, None]).max(dim=1)
        closer = best > densest
        owner = torch.where(closer, at + first, owner)
        nearest = torch.where(closer, bells.gather(1, at[:, None])[:, 0], nearest)
        densest = torch.where(closer, best, densest)
        sure = bells * drawn.weights[:, part, None, None]
        for c in range(outputs):
            of_class = sure * (drawn.classes[:, part] == c)[..., None, None]
            centers[:, c] = torch.maximum(centers[:, c], of_class.amax(dim=1))
    boxes = drawn.xyxy[rows[:, None, None], owner].permute(0, 3, 1, 2)
    total = grouped_sums(nearest.flatten(1), owner.flatten(1), m)
    share = drawn.weights / total.clamp(min=1e-6)
    weights = nearest * share.gather(1, owner.flatten(1)).view_as(nearest)
    return Wanted(centers, _middles(drawn, there, outputs, h, w), _care(drawn, xs, ys), boxes, weights)


def middles(h: int, w: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Pixels of the middles of cells: (w,) and (h,)."""
    return (torch.arange(w, device=device) + 0.5) * CELL, (torch.arange(h, device=device) + 0.5) * CELL


def _snapped(middle: Tensor, cells: int) -> Tensor:
    """The middle of the cell that a point lies in."""
    return ((middle / CELL).floor().clamp(0, cells - 1) + 0.5) * CELL


def _bell(places: Tensor, middle: Tensor, size: Tensor) -> Tensor:
    """(B, M, places): 1 at the middle, 0 beyond the part of the box that learns."""
    away = (places - middle[..., None]).abs() / (size[..., None] * _PART / 2).clamp(min=CELL / 2)
    return torch.where(away <= 1, (-_STEEPNESS * away.square()).exp(), 0.0)


def _middles(drawn: Drawn, there: Tensor, outputs: int, h: int, w: int) -> Tensor:
    """(B, k, h, w) bool: the cells that middles of objects lie in."""
    middle = (drawn.xyxy[..., :2] + drawn.xyxy[..., 2:]) / 2 / CELL
    x, y = middle[..., 0].long().clamp(0, w - 1), middle[..., 1].long().clamp(0, h - 1)
    found = torch.zeros(len(there), outputs, h, w, dtype=torch.bool, device=there.device)
    rows = torch.arange(len(there), device=there.device)[:, None].expand_as(there)
    found[rows[there], drawn.classes[there], y[there], x[there]] = True
    return found


def _care(drawn: Drawn, xs: Tensor, ys: Tensor) -> Tensor:
    """(B, 1, h, w): 0 inside boxes of weight 0."""
    unknown = (drawn.classes >= 0) & (drawn.weights == 0)
    if not bool(unknown.any()):
        return torch.ones(len(unknown), 1, len(ys), len(xs), device=xs.device)
    x1, y1, x2, y2 = (edge[..., None] for edge in drawn.xyxy.unbind(-1))
    inside_x = ((xs >= x1) & (xs <= x2) & unknown[..., None]).float()
    inside_y = ((ys >= y1) & (ys <= y2)).float()
    covered = torch.einsum("bmh,bmw->bhw", inside_y, inside_x)
    return (covered == 0).float()[:, None]


def boxes_of(edges: Tensor) -> Tensor:
    """Distances (B, 4, h, w) -> boxes (B, 4, h, w) xyxy in pixels of the input."""
    xs, ys = middles(edges.shape[2], edges.shape[3], edges.device)
    left, top, right, bottom = edges.unbind(1)
    return torch.stack([xs - left, ys[:, None] - top, xs + right, ys[:, None] + bottom], dim=1)


def detection_loss(maps: Maps, target: Wanted) -> Tensor:
    """Of centers (focal), of boxes (generalised IoU: Rezatofighi et al. 2019) and of their fit, an object each."""
    objects = target.weights.sum().clamp(min=1.0)
    of_centers = _focal(maps.centers, target) / objects
    chosen = target.weights > 0
    if not bool(chosen.any()):
        return of_centers + 0.0 * (maps.edges.sum() + maps.fits.sum())
    weights = target.weights[chosen]
    predicted = boxes_of(maps.edges).permute(0, 2, 3, 1)[chosen]
    overlap, general = overlaps(predicted, target.boxes.permute(0, 2, 3, 1)[chosen])
    of_boxes = (weights * (1 - general)).sum() / objects
    fit = F.binary_cross_entropy_with_logits(maps.fits[chosen], overlap.detach().clamp(0, 1), reduction="none")
    return of_centers + _OF_BOXES * of_boxes + _OF_FITS * (weights * fit).sum() / objects


def _focal(logits: Tensor, target: Wanted) -> Tensor:
    """The sum over cells and classes. The middle of an object that is not sure is one and none, each in part."""
    p = logits.sigmoid().clamp(1e-4, 1 - 1e-4)
    one = (1 - p) ** _ALPHA * F.softplus(-logits)
    none = p**_ALPHA * F.softplus(logits)
    sure = target.centers
    there = sure * one + (1 - sure) * none
    around = (1 - sure) ** _BETA * none
    return (torch.where(target.middles, there, around) * target.care).sum()


def overlaps(boxes: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Pair by pair (n, 4) xyxy -> IoU (n,) in [0, 1], and generalised IoU (n,) in [-1, 1]."""
    low, high = torch.maximum(boxes[:, :2], others[:, :2]), torch.minimum(boxes[:, 2:], others[:, 2:])
    both = (high - low).clamp(min=0).prod(dim=1)
    each = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(dim=1)
    other = (others[:, 2:] - others[:, :2]).clamp(min=0).prod(dim=1)
    union = (each + other - both).clamp(min=1e-6)
    low, high = torch.minimum(boxes[:, :2], others[:, :2]), torch.maximum(boxes[:, 2:], others[:, 2:])
    hull = (high - low).clamp(min=0).prod(dim=1).clamp(min=1e-6)
    overlap = both / union
    return overlap, overlap - (hull - union) / hull
