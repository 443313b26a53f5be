"""What a network has learned to see without labels, beside what an encoder sees: an `Encoder` of both.

In: images. Out: vectors whose distances follow content; the graph of neighbours and the closed-form head of `accurate`
rest on them. Knows nothing of labels, or of how the network was trained.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from engine.embeddings import Embedding, Encoder, Gradients, Part, embedding_of
from engine.label.augment import plain
from engine.label.classifier import resized
from engine.label.networks import Network
from engine.label.pool import Pool

#: Directions that are kept of what the network sees, at most.
_WHITENED: Final = 128
#: How histograms of gradients weigh beside them; where mirror images were asked too, as much. (cifar10, 40 and 250
#: labels, labels spread over the graph, mean of eight and four draws: 48.0 and 61.0 % without mirror images, 48.0 and
#: 61.3 with them, 48.6 and 61.6 where these weigh as much.)
_GRADIENTS_WEIGHT: Final = 0.7
_BATCH: Final = 512


@dataclass(frozen=True, slots=True)
class Sight:
    """A network, asked about the image and, with `flip`, its mirror image, beside an encoder.

    bfloat16: whether the network computes in it.
    """

    network: Network
    flip: bool
    bfloat16: bool
    encoder: Encoder

    @property
    def name(self) -> str:
        return f"network and {self.encoder.name}"

    @property
    def size(self) -> int:
        return max(self.encoder.size, self.network.spec.image_size)

    @property
    def parts(self) -> tuple[Part, ...]:
        own, theirs = self.network.spec.dim, self.encoder.parts
        weight = _GRADIENTS_WEIGHT if isinstance(self.encoder, Gradients) else 1.0
        weight /= math.hypot(*(part.weight for part in theirs))
        beside = (Part(part.columns, part.keep, weight * part.weight) for part in theirs)
        return Part(own, min(_WHITENED, own)), *beside

    @property
    def dim(self) -> int:
        return self.network.spec.dim + self.encoder.dim

    def encode(self, images: Tensor) -> Tensor:
        """(B, 3, size, size) uint8 on the device of the network -> (B, dim) float32 there."""
        return torch.cat([self.seen(images), self.beside(images)], dim=1)

    def seen(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) uint8 of any side -> (B, d) float32: what the network sees, on the mean of both images."""
        self.network.eval()
        with torch.no_grad(), torch.autocast(images.device.type, torch.bfloat16, enabled=self.bfloat16):
            x = plain(resized(images, self.network.spec.image_size))
            views = [x, x.flip(3)] if self.flip else [x]
            return torch.stack([self.network.features(view) for view in views]).mean(dim=0)

    def beside(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) uint8 of any side -> (B, d') float32: what the encoder sees."""
        return self.encoder.encode(resized(images, self.encoder.size))


def content_of(pool: Pool, sight: Sight) -> tuple[Embedding, Tensor]:
    """What a sight shows, whitened on all m images of a pool, and the vectors of these, (m, dim) on the CPU. Images are
    of the side `size` first, as `encode` gets them."""
    seen = pool.mapped(lambda images: sight.seen(resized(images, sight.size)))

    def raw() -> Iterator[Tensor]:
        for rows in torch.split(torch.arange(len(pool)), _BATCH):
            beside = sight.beside(resized(pool.pixels(rows), sight.size))
            yield torch.cat([seen[rows], beside.cpu()], dim=1)

    embedding = embedding_of(sight, raw())
    return embedding, torch.cat([embedding.apply(rows) for rows in raw()])
