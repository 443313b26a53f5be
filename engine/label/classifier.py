"""The model that auto labeling makes: networks and a closed-form head, and how their opinions become probabilities.

In: images. Out: calibrated probabilities. `Classifier` is a `Predictor`; its parts hold nothing but numbers, so that
`models.py` can keep them on disk. Knows nothing of training.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.embeddings import Encoder
from engine.errors import InputError
from engine.label.augment import plain
from engine.label.mirrored import mirror_axes
from engine.label.networks import Network, NetworkSpec
from engine.predictions import Predictions

#: Images that a network is asked about at once.
_BATCH: Final = 256


@dataclass(frozen=True, slots=True)
class Committee:
    """Networks of one form that are asked together.

    temperature: of their logits. flips: whether a mirrored image is (horizontally, vertically) still one of its class;
    then both are asked. bfloat16: whether the networks compute in it.
    """

    networks: tuple[Network, ...]
    temperature: float
    flips: tuple[bool, bool]
    bfloat16: bool

    @property
    def spec(self) -> NetworkSpec:
        return self.networks[0].spec

    @property
    def device(self) -> torch.device:
        return next(self.networks[0].parameters()).device

    def logits(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) uint8 of any side -> (B, k) float32: the mean of what each network says, over the temperature.

        Of logits, not of probabilities: those of calibrated networks have a mean that is too unsure of itself.
        """
        images = resized(images, self.spec.image_size)
        said = [viewed_logits(net, images, flips=self.flips, bfloat16=self.bfloat16) for net in self.networks]
        return torch.stack(said).mean(dim=0) / self.temperature

    def features(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) uint8 of any side -> (B, d) float32 of length 1: how the first network sees the images."""
        net, images = self.networks[0].eval(), resized(images, self.spec.image_size)
        with torch.no_grad(), torch.autocast(images.device.type, torch.bfloat16, enabled=self.bfloat16):
            return F.normalize(net.features(plain(images)), dim=1)


@dataclass(frozen=True, slots=True)
class LinearHead:
    """Scores of an encoder's vectors: (vectors - mean) weights + intercept, over the temperature.

    mean: (d,). weights: (d, k). intercept: (k,).
    """

    encoder: Encoder
    mean: Tensor
    weights: Tensor
    intercept: Tensor
    temperature: float

    def logits(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) uint8 of any side -> (B, k) float32, 0 where scores are one half."""
        vectors = self.encoder.encode(resized(images, self.encoder.size))
        device = vectors.device
        scores = (vectors - self.mean.to(device)) @ self.weights.to(device) + self.intercept.to(device)
        return (scores - 0.5).float() / self.temperature


class ImageClassifier(Protocol):
    """A model of image classification, ours or another's: what it says of square thumbnails."""

    @property
    def labels(self) -> tuple[str, ...]: ...

    @property
    def multi_label(self) -> bool: ...

    @property
    def image_size(self) -> int:
        """Side of the thumbnails that it wants, in pixels; it takes others, too."""

    @property
    def committee(self) -> Committee | None:
        """Its networks, where they are of our form: they show how it sees images."""

    def probabilities(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) uint8 -> (B, k) float32; rows sum to 1 unless multi-label."""


@dataclass(frozen=True, slots=True)
class Classifier:
    """A trained model of image classification.

    labels: the k class names. image_size: side S of the square images that it sees, in pixels. committee, head: at
    least one of them. share: in [0, 1]; what is made probabilities is the share of the committee's logits, and of the
    head's the rest.
    """

    labels: tuple[str, ...]
    multi_label: bool
    image_size: int
    committee: Committee | None
    head: LinearHead | None
    share: float

    def __post_init__(self) -> None:
        assert self.committee is not None or self.head is not None
        assert 0.0 <= self.share <= 1.0

    def predict(self, images: Tensor) -> Predictions:
        """(B, 3, H, W) float RGB in [0, 1], of any size -> probabilities (B, k), and embeddings from a committee.

        Images are made square as those of training were. Raises InputError for another shape.
        """
        if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
            raise InputError(f"images: must be (B, 3, H, W) float, got {tuple(images.shape)} {images.dtype}")
        pixels = resized((images.float().clamp(0, 1) * 255).round().to(torch.uint8), self.image_size)
        embeddings = self.committee.features(self._near(pixels)) if self.committee else None
        return Predictions(self.labels, probabilities=self.probabilities(pixels), embeddings=embeddings)

    def probabilities(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) uint8 -> (B, k) float32, on the device of the networks; rows sum to 1 unless multi-label."""
        images = self._near(images)
        mixture = torch.zeros(len(images), len(self.labels), device=images.device)
        if self.committee is not None and self.share > 0:
            mixture += self.share * self.committee.logits(images)
        if self.head is not None and self.share < 1:
            mixture += (1 - self.share) * self.head.logits(images)
        return probabilities_of(mixture, 1.0, self.multi_label)

    def _near(self, images: Tensor) -> Tensor:
        """The images on the device of the networks."""
        return images if self.committee is None else images.to(self.committee.device)


def viewed_logits(net: Network, images: Tensor, *, flips: tuple[bool, bool], bfloat16: bool) -> Tensor:
    """(B, 3, S, S) uint8 -> logits (B, k) float32: the mean over the image and its allowed mirror images."""
    net.eval()
    said = []
    with torch.no_grad(), torch.autocast(images.device.type, torch.bfloat16, enabled=bfloat16):
        for batch in torch.split(images, _BATCH):
            x = plain(batch)
            views = [x.flip(axes) if axes else x for axes in mirror_axes(flips)]
            said.append(torch.stack([net(view).float() for view in views]).mean(dim=0))
    return torch.cat(said) if said else torch.zeros(0, net.spec.outputs, device=images.device)


def probabilities_of(logits: Tensor, temperature: float, multi_label: bool) -> Tensor:
    """Logits (n, k) -> (n, k) float32: softmax, or with several labels a sample a sigmoid each, of logits /
    temperature."""
    scaled = logits.float() / temperature
    return scaled.sigmoid() if multi_label else scaled.softmax(dim=1)


def resized(images: Tensor, side: int) -> Tensor:
    """(B, 3, H, W) uint8 -> (B, 3, side, side) uint8: averages when it gets smaller, bilinear when it gets larger."""
    height, width = images.shape[2:]
    if (height, width) == (side, side):
        return images
    if min(height, width) >= side:
        pixels = F.interpolate(images.float(), size=(side, side), mode="area")
    else:
        pixels = F.interpolate(images.float(), size=(side, side), mode="bilinear", align_corners=False)
    return pixels.round_().clamp_(0, 255).to(torch.uint8)
