"""What training sees of a data set: m images that can be read, and what people said about some of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from engine.label.classifier import resized
from engine.label.losses import Pixels
from engine.survey import Thumbnails

#: Bytes of images that are kept on a GPU at most; more are sent there batch by batch.
_ON_DEVICE: Final = 8 * 2**30
_BATCH: Final = 512


@dataclass(frozen=True, slots=True)
class Pool:
    """m images.

    pixels: of positions in [0, m). told: (m, k) float, one or several ones where a person labeled, else zeros. side: of
    the images, in pixels. device: where pixels come to lie.
    """

    pixels: Pixels
    told: Tensor
    labels: tuple[str, ...]
    multi_label: bool
    side: int
    device: torch.device

    def __len__(self) -> int:
        return len(self.told)

    @property
    def labeled(self) -> Tensor:
        """(n,) int64, positions of the images that people labeled."""
        return self.told.any(dim=1).nonzero()[:, 0]

    @property
    def unlabeled(self) -> Tensor:
        return (~self.told.any(dim=1)).nonzero()[:, 0]

    def sized(self, side: int) -> Pixels:
        """The pixels of images of another side."""
        return self.pixels if side == self.side else lambda rows: resized(self.pixels(rows), side)

    def mapped(self, work: Callable[[Tensor], Tensor], rows: Tensor | None = None) -> Tensor:
        """`work` on the images at these positions (all by default), batch by batch: (r, ...) on the CPU."""
        rows = torch.arange(len(self)) if rows is None else rows
        parts = [work(self.pixels(batch)).cpu() for batch in torch.split(rows, _BATCH)]
        return torch.cat(parts)


def pixels_of(thumbnails: Thumbnails, device: torch.device) -> Pixels:
    """The pixels of positions in `thumbnails.index`: read when asked for, or kept on a GPU that has the room."""

    def read(rows: Tensor) -> Tensor:
        return thumbnails.rows(rows.numpy()).to(device)

    if device.type == "cpu" or 3 * thumbnails.side**2 * len(thumbnails) > _ON_DEVICE:
        return read
    kept = torch.cat(
        [
            read(torch.from_numpy(np.arange(at, min(at + 4096, len(thumbnails)))))
            for at in range(0, len(thumbnails), 4096)
        ]
    )
    return lambda rows: kept[rows.to(device)]
