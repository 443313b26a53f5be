"""The network that is trained from scratch on a user's images: small, quick on two cores, and steady on few labels.

In: images (B, 3, S, S) float in [0, 1]. Out: features (B, d) and logits (B, k). A stem of fixed filters, the whitened
principal patches of the images it was fitted on and their negatives (Coates and Ng 2011), then stages of two 3x3
convolutions with batch normalisation, halving between them, the second one residual (He et al. 2016). Random numbers
come from the generator that is given. Knows nothing of how it is trained.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: Larger images are taken in by a stem of stride 2, which leaves the stages the work of an image half as wide.
_STRIDE_FROM: Final = 48
#: Directions of the patches that the stem keeps; each is there with both signs.
_DIRECTIONS: Final = 16
#: Added to the variances of whitened patches, as a share of their mean: directions of noise are not amplified.
_SMOOTHING: Final = 1e-2
#: Images that are taken apart at once.
_UNFOLDED: Final = 16


def blank(layer: Callable[..., nn.Module], *sizes: Any, **options: Any) -> Any:
    """A layer without initial values: making them would draw on the random numbers that the whole process shares."""
    return nn.utils.skip_init(layer, *sizes, **options)  # type: ignore[no-untyped-call]


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """The form of a network. image_size: S, in pixels. widths: channels of each stage. outputs: k."""

    image_size: int
    widths: tuple[int, ...]
    outputs: int

    @property
    def stride(self) -> int:
        return 2 if self.image_size >= _STRIDE_FROM else 1

    @property
    def patch(self) -> int:
        """Side of the stem's patches: what a 3x3 filter sees, or at stride 2 a 4x4 one."""
        return 3 if self.stride == 1 else 4

    @property
    def dim(self) -> int:
        """Length of a feature vector."""
        return self.widths[-1]


class Network(nn.Module):
    """A network of that form. Its weights are undefined until `initialised` or loaded."""

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.spec = spec
        self.stem = blank(nn.Conv2d, 3, 2 * _DIRECTIONS, spec.patch, stride=spec.stride, padding=1).requires_grad_(
            False
        )
        channels = (2 * _DIRECTIONS, *spec.widths)
        halvings = max(0, int(math.log2(spec.image_size // spec.stride)) - 1)  # 2x2 pixels are left at least
        self.stages = nn.ModuleList(
            _Stage(before, width, halve=at < halvings) for at, (before, width) in enumerate(pairwise(channels))
        )
        self.head = blank(nn.Linear, spec.dim, spec.outputs)

    def features(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, d) float32."""
        x = F.relu(self.stem(images))
        for stage in self.stages:
            x = stage(x)
        return x.mean(dim=(2, 3)).float()

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) -> logits (B, k)."""
        logits: Tensor = self.head(self.features(images))
        return logits


class _Stage(nn.Module):
    def __init__(self, before: int, width: int, *, halve: bool) -> None:
        super().__init__()
        self.halve = halve
        self.widen = blank(nn.Conv2d, before, width, 3, padding=1, bias=False)
        self.widen_norm = blank(nn.BatchNorm2d, width)
        self.deepen = blank(nn.Conv2d, width, width, 3, padding=1, bias=False)
        self.deepen_norm = blank(nn.BatchNorm2d, width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.widen(x)
        x = F.relu(self.widen_norm(F.max_pool2d(x, 2) if self.halve else x))
        return x + F.relu(self.deepen_norm(self.deepen(x)))


def initialised(spec: NetworkSpec, stem: tuple[Tensor, Tensor], generator: torch.Generator) -> Network:
    """A new network with the stem of `fit_stem`, on the CPU."""
    net = Network(spec)
    with torch.no_grad():
        net.stem.weight.copy_(stem[0])
        net.stem.bias.copy_(stem[1])
        fill_filters(net, generator)
        reset_head(net, generator)
    return net.to(memory_format=torch.channels_last)


def fill_filters(net: nn.Module, generator: torch.Generator) -> None:
    """First values of norms and of trained convolutions (He et al. 2015), in place."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
        elif isinstance(module, nn.Conv2d) and module.weight.requires_grad:
            fan_in = module.in_channels * module.kernel_size[0] * module.kernel_size[1]
            module.weight.normal_(0, math.sqrt(2 / fan_in), generator=generator)


def copied(net: Network) -> Network:
    """A copy that can be trained, whatever the network was for; all but its stem."""
    twin = copy.deepcopy(net).requires_grad_(True)
    twin.stem.requires_grad_(False)
    return twin


def reset_head(net: Network, generator: torch.Generator) -> None:
    """Begin the last layer anew: small, so that the first predictions are even."""
    first = torch.empty(net.head.weight.shape).normal_(0, 0.1 / math.sqrt(net.spec.dim), generator=generator)
    with torch.no_grad():
        net.head.weight.copy_(first)  # from the CPU, where chance is drawn, to wherever the network lies
        net.head.bias.zero_()


def fit_stem(images: Tensor, spec: NetworkSpec) -> tuple[Tensor, Tensor]:
    """Filters (32, 3, p, p) and biases (32,): the main directions of the patches of images (n, 3, S, S) uint8, scaled
    to unit variance, with both signs.

    A few thousand images are enough; more only take longer.
    """
    p, stride = spec.patch, max(1, spec.image_size // 12)
    some = torch.split(images, _UNFOLDED)  # large images take room as numbers
    patches = torch.cat([F.unfold(each.float().div_(255), p, stride=stride) for each in some])  # (n, 3 p p, places)
    rows = patches.permute(0, 2, 1).reshape(-1, 3 * p * p).double()
    mean = rows.mean(dim=0)
    rows -= mean
    variances, directions = torch.linalg.eigh(rows.T @ rows / max(1, len(rows)))
    variances, directions = variances.flip(0)[:_DIRECTIONS], directions.flip(1)[:, :_DIRECTIONS]
    largest = directions.gather(0, directions.abs().argmax(dim=0, keepdim=True))
    directions = directions * largest.sign()  # an eigenvector has no sign of its own
    floor = _SMOOTHING * float(variances.clamp(min=0).mean()) + 1e-6
    filters = (directions / (variances.clamp(min=0) + floor).sqrt()).T  # (16, 3 p p)
    filters = torch.cat([filters, -filters])
    return filters.float().reshape(-1, 3, p, p), (-filters @ mean).float()
