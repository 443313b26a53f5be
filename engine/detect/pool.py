"""What the training of a detector sees of a data set: canvases, and what people drew on some of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engine.detect.canvases import Canvases
from engine.detect.losses import Drawn
from engine.detect.sketches import Sketches
from engine.label.pool import kept_near


@dataclass(frozen=True, slots=True)
class BoxPool:
    """m images. pixels: of positions in [0, m), (B, 3, H, W) uint8. size: (H, W). labeled: (n,) int64, positions of the
    images that people labeled. boxes, classes: of each of these, (t, 4) xyxy in pixels of the canvas and (t,). extents:
    (n, 2) width and height of each image on its canvas. same: (n,) int64, the number of the first labeled image that is
    the same file. unlabeled: (u,) positions. device: where pixels come to lie."""

    pixels: Callable[[Tensor], Tensor]
    size: tuple[int, int]
    labeled: Tensor
    boxes: tuple[Tensor, ...]
    classes: tuple[Tensor, ...]
    extents: Tensor
    same: Tensor
    unlabeled: Tensor
    labels: tuple[str, ...]
    device: torch.device

    def drawn(self, which: Tensor) -> Drawn:
        """What people drew on the labeled images of these numbers, 0..n-1: on the device, as wide as the fullest."""
        return padded([self.boxes[at] for at in which.tolist()], [self.classes[at] for at in which.tolist()]).to(
            self.device
        )

    @property
    def presence(self) -> Tensor:
        """(n, k + 1) bool, whether a labeled image has a box of a class; the last: whether it has none."""
        found = torch.zeros(len(self.labeled), len(self.labels) + 1, dtype=torch.bool)
        for row, classes in enumerate(self.classes):
            found[row, classes if len(classes) else torch.tensor([len(self.labels)])] = True
        return found


def pool_of(canvases: Canvases, sketches: Sketches, device: torch.device) -> BoxPool:
    """sketches: in pixels of the images. An image that is there and not labeled is unlabeled."""
    is_labeled = sketches.labeled[canvases.index]
    labeled = np.flatnonzero(is_labeled)
    scales = canvases.scales
    boxes = [torch.from_numpy(sketches.boxes[canvases.index[at]] * np.float32(scales[at])) for at in labeled]
    classes = [torch.from_numpy(sketches.classes[canvases.index[at]]) for at in labeled]
    return BoxPool(
        kept_near(canvases.rows, (len(canvases), 3, canvases.canvas.height, canvases.canvas.width), device),
        (canvases.canvas.height, canvases.canvas.width),
        torch.from_numpy(labeled),
        tuple(boxes),
        tuple(classes),
        torch.from_numpy((canvases.sizes * scales[:, None])[labeled]).float(),
        torch.from_numpy(_firsts(canvases.places[labeled])),
        torch.from_numpy(np.flatnonzero(~is_labeled)),
        sketches.labels,
        device,
    )


def _firsts(places: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """(n,) for each place the number of the first that is equal to it."""
    _, first, inverse = np.unique(places, return_index=True, return_inverse=True)
    return np.asarray(first[inverse], np.int64)


def padded(boxes: list[Tensor], classes: list[Tensor], weights: list[Tensor] | None = None) -> Drawn:
    """Boxes of B images side by side. weights: 1 by default."""
    most = max(1, *(len(each) for each in boxes)) if boxes else 1
    xyxy = torch.zeros(len(boxes), most, 4)
    numbers = torch.full((len(boxes), most), -1)
    sure = torch.zeros(len(boxes), most)
    for row, (each, of) in enumerate(zip(boxes, classes, strict=True)):
        xyxy[row, : len(each)], numbers[row, : len(each)] = each, of
        sure[row, : len(each)] = 1.0 if weights is None else weights[row]
    return Drawn(xyxy, numbers, sure)
