"""What training sees of a data set: m images that can be read, and what people said about some of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from engine.label.classifier import resized
from engine.label.losses import Pixels
from engine.label.recorded import sent
from engine.survey import Thumbnails

#: Of the free memory of a GPU, the part that images may take; more are sent there batch by batch.
_ON_DEVICE: Final = 1 / 3
#: Bytes that are sent there at once.
_BLOCK: Final = 2**28
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
        return thumbnails.rows(rows.numpy())

    return kept_near(read, (len(thumbnails), 3, thumbnails.side, thumbnails.side), device)


def kept_near(read: Pixels, shape: tuple[int, int, int, int], device: torch.device) -> Pixels:
    """Images uint8 of that shape (m, 3, H, W) on a device: read when asked for, or kept on a GPU that has the room.
    read: gives those at some positions, on the CPU."""
    if device.type == "cpu" or math.prod(shape) > _ON_DEVICE * torch.cuda.mem_get_info(device)[0]:
        return lambda rows: sent(read(rows), device)
    kept = torch.empty(shape, dtype=torch.uint8, device=device, memory_format=torch.channels_last)
    for part in torch.split(torch.arange(len(kept)), max(1, _BLOCK // math.prod(shape[1:]))):
        kept[part.to(device)] = read(part).to(device)
    return lambda rows: kept[sent(rows, device)]
