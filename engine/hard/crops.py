"""What boxes show: files and boxes in, square thumbnails of their insides out, streamed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engine.errors import ImageError, Stopped
from engine.images import MAX_PIXELS, Pixels, decode_at, stream
from engine.survey import resized


def crops(
    paths: Sequence[Path],
    boxes: Sequence[npt.NDArray[np.float32]],
    *,
    side: int,
    threads: int,
    max_pixels: int = MAX_PIXELS,
    stopped: Callable[[], bool] = lambda: False,
) -> Iterator[Tensor]:
    """Of each file the insides of its boxes, (m, 4) xyxy pixels: batches (B, 3, side, side) uint8, file after file.

    boxes: in pixels of the whole images. One is cut at the border of its image, and is one pixel at least. Of a file
    that cannot be read any more the insides are black. Raises Stopped once `stopped()` says so.
    """

    def work(at: int, content: bytes) -> npt.NDArray[np.uint8]:
        smallest = (boxes[at][:, 2:] - boxes[at][:, :2]).min(initial=np.inf)
        picture = decode_at(content, lambda width, height: side / max(1.0, smallest), max_pixels=max_pixels)
        return _inside(picture.rgb, boxes[at] * np.float32(picture.rgb.shape[1] / picture.width), side)

    done = 0
    for batch in stream(paths, work, threads=threads):
        if stopped():
            raise Stopped("stopped while looking at boxes")
        found = []
        for each in batch:
            black = np.zeros((len(boxes[done]), side, side, 3), np.uint8)
            found.append(black if isinstance(each, ImageError) else each)
            done += 1
        yield torch.from_numpy(np.concatenate(found)).permute(0, 3, 1, 2)


def _inside(rgb: Pixels, boxes: npt.NDArray[np.float32], side: int) -> npt.NDArray[np.uint8]:
    height, width = rgb.shape[:2]
    cuts = np.empty((len(boxes), side, side, 3), np.uint8)
    inside = boxes.clip(-1, width + height)
    for at, (x1, y1, x2, y2) in enumerate(inside.tolist()):
        left, top = min(max(int(x1), 0), width - 1), min(max(int(y1), 0), height - 1)
        right, bottom = min(max(round(x2), left + 1), width), min(max(round(y2), top + 1), height)
        cuts[at] = resized(rgb[top:bottom, left:right], side)
    return cuts
