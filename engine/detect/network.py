"""The detector that is trained from scratch on a user's images: anchor-free, one stage, one map of answers.

In: images (B, 3, H, W) float in [0, 1], H and W multiples of CELL. Out: `Maps`, an answer for each cell of 4x4
pixels: how much the middle of an object of each class lies here, how far the edges of its box are, and how well that
box will fit (centers: Zhou et al. 2019; distances to edges and their quality: Tian et al. 2019; one map with weighted
centers that learns quickly: Liu et al. 2020). The trunk is that of the classifier, a stem of whitened patches and
residual stages, or one that somebody has trained; a path from coarse to fine brings what is seen of large objects to
the fine map (Lin et al. 2017). Knows nothing of how it is trained.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.detect.trunk import Trunk, TrunkBody
from engine.label.networks import blank, fill_filters

#: Pixels of the input that a cell of the answer is wide.
CELL: Final = 4

_DIRECTIONS: Final = 16  # of the stem's patches, each with both signs
#: A center is rare: at first each cell is this sure of one (Lin et al. 2017, focal loss).
_FIRST_DOUBT: Final = 0.01
#: Logarithms of distances end here, in units of the usual box: e^4.5 = 90 times.
_FARTHEST: Final = 4.5


@dataclass(frozen=True, slots=True)
class DetectorSpec:
    """The form of a detector. widths: channels of the stages of stride 4, 8, 16, 32. neck: channels of the fine map.
    outputs: k. reach: half of the side of a usual box, in pixels of the input: distances are told in it. trunk: name of
    one that somebody has trained (see `trunk`), with its widths; None: stages of our own, from scratch."""

    widths: tuple[int, int, int, int]
    neck: int
    outputs: int
    reach: float
    trunk: str | None = None


@dataclass(frozen=True, slots=True)
class Maps:
    """What a detector says of B images in h x w cells. centers: (B, k, h, w), logits. edges: (B, 4, h, w) distances
    from the middle of the cell to the left, top, right and bottom edge, in pixels, above 0. fits: (B, h, w), logits of
    the overlap (IoU) that the box will have with the true one."""

    centers: Tensor
    edges: Tensor
    fits: Tensor


class Detector(nn.Module):
    """A detector of that form. Its weights are undefined until `initialised_detector` or loaded."""

    def __init__(self, spec: DetectorSpec) -> None:
        super().__init__()
        self.spec = spec
        if spec.trunk is None:
            self.stem = blank(nn.Conv2d, 3, 2 * _DIRECTIONS, 4, stride=2, padding=1).requires_grad_(False)
            channels = (2 * _DIRECTIONS, *spec.widths)
            self.stages = nn.ModuleList(_Stage(channels[at], channels[at + 1]) for at in range(4))
        else:
            self.trunk = TrunkBody(spec.trunk)
        self.laterals = nn.ModuleList(_Normed(width, spec.neck, 1) for width in spec.widths)
        self.smooth = nn.ModuleList(_Normed(spec.neck, spec.neck, 3) for _ in range(3))
        self.of_centers = _Normed(spec.neck, spec.neck, 3)
        self.of_boxes = _Normed(spec.neck, spec.neck, 3)
        self.center = blank(nn.Linear, spec.neck, spec.outputs)
        self.box = blank(nn.Linear, spec.neck, 5)

    def pyramid(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> the fine map (B, neck, H/4, W/4)."""
        stages = self._stages(images)
        fine: Tensor = self.laterals[3](stages[3])
        for at in (2, 1, 0):
            lateral = self.laterals[at](stages[at])
            fine = lateral + F.interpolate(fine, size=lateral.shape[2:], mode="nearest")
            fine = F.relu(self.smooth[at](F.relu(fine)))
        return fine

    def _stages(self, images: Tensor) -> Sequence[Tensor]:
        if self.spec.trunk is not None:
            of_trunk: tuple[Tensor, ...] = self.trunk(images)
            return of_trunk
        x = F.relu(self.stem(images))
        stages = []
        for stage in self.stages:
            x = stage(x)
            stages.append(x)
        return stages

    def forward(self, images: Tensor) -> Maps:
        """(B, 3, H, W) -> Maps in float32."""
        return self.answers(*self.seen(images))

    def seen(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) -> the fine map, and what of it tells classes; (B, neck, H/4, W/4) each."""
        fine = self.pyramid(images)
        return fine, F.relu(self.of_centers(fine))

    def answers(self, fine: Tensor, of_centers: Tensor) -> Maps:
        """What is said of what was `seen`, in float32."""
        centers = self.center(_last(of_centers)).float()
        boxes = self.box(_last(F.relu(self.of_boxes(fine)))).float()
        edges = self.spec.reach * boxes[..., :4].clamp(-_FARTHEST, _FARTHEST).exp()
        return Maps(centers.permute(0, 3, 1, 2), edges.permute(0, 3, 1, 2), boxes[..., 4])


def _last(x: Tensor) -> Tensor:
    """(B, c, h, w) -> (B, h, w, c)."""
    return x.permute(0, 2, 3, 1)


class _Normed(nn.Module):
    def __init__(self, before: int, width: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.filters = blank(nn.Conv2d, before, width, kernel, stride=stride, padding=kernel // 2, bias=False)
        self.norm = blank(nn.BatchNorm2d, width)

    def forward(self, x: Tensor) -> Tensor:
        normed: Tensor = self.norm(self.filters(x))
        return normed


class _Stage(nn.Module):
    """Half as wide: a convolution of stride 2, then a residual one."""

    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        self.widen = _Normed(before, width, 3, stride=2)
        self.deepen = _Normed(width, width, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.widen(x))
        return x + F.relu(self.deepen(x))


def initialised_detector(
    spec: DetectorSpec, start: tuple[Tensor, Tensor] | Trunk, generator: torch.Generator
) -> Detector:
    """A new detector with the stem of `label.networks.fit_stem`, or with a trunk that was trained, on the CPU."""
    net = Detector(spec)
    with torch.no_grad():
        fill_filters(net, generator)
        if isinstance(start, Trunk):
            net.trunk.net.load_state_dict(start.state)
        else:
            net.stem.weight.copy_(start[0])
            net.stem.bias.copy_(start[1])
        for head in (net.center, net.box):
            head.weight.normal_(0, 0.1 / math.sqrt(spec.neck), generator=generator)
            head.bias.zero_()
        net.center.bias.fill_(-math.log(1 / _FIRST_DOUBT - 1))
    return net.to(memory_format=torch.channels_last)


def trainable(net: Detector) -> Detector:
    """A copy that can be trained, whatever the network was for; all but where it begins."""
    twin = copy.deepcopy(net).requires_grad_(True)
    for part in [twin.stem] if twin.spec.trunk is None else twin.trunk.first:
        part.requires_grad_(False)
    return twin
