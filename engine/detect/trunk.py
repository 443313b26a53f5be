"""Trunks that somebody has trained already: ResNets of torchvision, their weights in a local file.

In: a name that torchvision has, and a file as torchvision publishes it, of a classification network or of a detector on
top of one (`backbone.body.layer1...`). Out: a `Trunk`, for `Detector`. Nothing is downloaded.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.embeddings import IMAGENET_MEAN, IMAGENET_STD, check_state, read_state
from engine.errors import UsageError

#: Networks of torchvision with four stages of stride 4, 8, 16 and 32, each twice as wide as the one before.
TRUNKS: Final = (
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
    *("resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d", "wide_resnet50_2", "wide_resnet101_2"),
)
#: What the files of detectors put before the names of their trunk.
_OF_DETECTORS: Final = "backbone.body."


@dataclass(frozen=True, slots=True)
class Trunk:
    """name: one of TRUNKS. state: its tensors, without the last layer. digest: 64 hexadecimal digits of them."""

    name: str
    state: dict[str, Tensor]
    digest: str


def read_trunk(name: str, weights: Path | None) -> Trunk:
    """The trunk of that name with the weights of a file. Raises UsageError for an unknown name or no file, InputError
    for a file that cannot be read or does not fit."""
    if name not in TRUNKS:
        raise UsageError(f"encoder: of boxes it must be one of {', '.join(TRUNKS)}, got {name!r}")
    if weights is None:
        raise UsageError(f"encoder: {name} needs weights from a local file, got none (nothing is downloaded)")
    found = read_state(weights)
    if any(key.startswith(_OF_DETECTORS) for key in found):
        found = {key.removeprefix(_OF_DETECTORS): each for key, each in found.items() if key.startswith(_OF_DETECTORS)}
    # Weights of half precision, too; what counts batches stays a whole number.
    state = {
        key: each.float() if each.is_floating_point() else each
        for key, each in found.items()
        if key not in ("fc.weight", "fc.bias")
    }
    with torch.device("meta"):
        check_state(weights, name, TrunkBody(name).net, state)
    digest = hashlib.sha256()
    for key in sorted(state):
        digest.update(key.encode() + state[key].contiguous().numpy().tobytes())
    return Trunk(name, state, digest.hexdigest())


@cache
def widths_of(name: str) -> tuple[int, int, int, int]:
    """Channels of the four stages."""
    with torch.device("meta"):
        body = TrunkBody(name)
        stages = body(torch.empty(1, 3, 64, 64))
    first, second, third, fourth = (stage.shape[1] for stage in stages)
    return first, second, third, fourth


class TrunkBody(nn.Module):
    """Images (B, 3, H, W) float in [0, 1] -> the four stages, (B, widths[i], H / s, W / s) with s = 4, 8, 16, 32. Its
    weights are undefined until they are loaded. The first of them stay as they are, as with torchvision's detectors:
    what is seen in edges and colors is the same everywhere."""

    def __init__(self, name: str) -> None:
        super().__init__()
        from torchvision import models

        with torch.device("meta"):  # no time or random numbers go into initial values
            net = models.get_model(name, weights=None)
        net.fc = nn.Identity()
        self.net = net if torch.empty(0).device.type == "meta" else net.to_empty(device="cpu")
        for part in self.first:
            part.requires_grad_(False)

    @property
    def first(self) -> list[nn.Module]:
        """The parts that stay as they are."""
        return [self.net.conv1, self.net.bn1, self.net.layer1]

    def train(self, mode: bool = True) -> TrunkBody:
        """What stays as it is keeps its own statistics, too."""
        super().train(mode)
        for part in self.first:
            part.eval()
        return self

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        net = self.net
        mean, std = (images.new_tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
        x = net.maxpool(F.relu(net.bn1(net.conv1((images - mean) / std))))
        first = net.layer1(x)
        second = net.layer2(first)
        third = net.layer3(second)
        return first, second, third, net.layer4(third)
