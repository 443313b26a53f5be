"""The model that auto labeling of boxes makes: networks, and how what they say becomes calibrated boxes.

In: images. Out: boxes with the probability that each is right, an object of its class that it overlaps by half (IoU
0.5) at least. `BoxDetector` is a `Predictor`; it holds nothing but numbers, so that `models.py` can keep it on disk.
Knows nothing of training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.detect.canvases import GREY, Canvas
from engine.detect.decode import Raw, decoded, mean_maps, probable, unflipped
from engine.detect.network import Detector, Maps
from engine.errors import InputError
from engine.predictions import Boxes, Predictions

#: Log odds keep within that.
_MOST: Final = 12.0


@dataclass(frozen=True, slots=True)
class Calibration:
    """Of each class: log odds of being right = offset + of_center x log odds of the center + of_fit x log odds of the
    fit; (k,) float64 each."""

    offset: Tensor
    of_center: Tensor
    of_fit: Tensor

    def probabilities(self, raw: Raw) -> Tensor:
        """(m,) float32 in (0, 1)."""
        at = raw.classes.cpu()
        center, fit = logits_of(raw.centers.cpu()), logits_of(raw.fits.cpu())
        return (self.offset[at] + self.of_center[at] * center + self.of_fit[at] * fit).sigmoid().float()


def logits_of(p: Tensor) -> Tensor:
    """Log odds, float64."""
    return torch.logit(p.double().clamp(1e-6, 1 - 1e-6)).clamp(-_MOST, _MOST)


@dataclass(frozen=True, slots=True)
class BoxDetector:
    """A trained model of object detection.

    labels: the k class names. canvas: what networks see. flips: whether mirrored images (horizontally, vertically) are
    asked about too. calibration: of what each network says of labels that it has not seen. thresholds: (k,), the
    confidence from which on a box of a class is given: where F1 was best on these labels.
    """

    labels: tuple[str, ...]
    canvas: Canvas
    networks: tuple[Detector, ...]
    flips: tuple[bool, bool]
    bfloat16: bool
    calibration: Calibration
    thresholds: tuple[float, ...]

    @property
    def side(self) -> int:
        """The longer side of what it sees of an image, in pixels."""
        return max(self.canvas.height, self.canvas.width)

    def predict(self, images: Tensor) -> Predictions:
        """(B, 3, H, W) float RGB in [0, 1], of any size -> the boxes that it gives, in pixels of these images, by
        confidence from high to low. Raises InputError for another shape."""
        if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
            raise InputError(f"images: must be (B, 3, H, W) float, got {tuple(images.shape)} {images.dtype}")
        height, width = images.shape[2:]
        scale = self.canvas.scale(width, height)
        found = []
        for batch in torch.split(images, self.canvas.batch):
            for raw in self.raw(self._on_canvas(batch, scale)):
                xyxy, classes, sure = self.boxes(raw, scale, width, height)
                given = sure >= torch.tensor(self.thresholds)[classes]
                found.append(Boxes(xyxy[given], sure[given], classes[given]))
        return Predictions(self.labels, boxes=tuple(found))

    def _on_canvas(self, images: Tensor, scale: float) -> Tensor:
        height, width = (max(1, round(side * scale)) for side in images.shape[2:])
        shrinks = scale < 1
        mode = {"mode": "area"} if shrinks else {"mode": "bilinear", "align_corners": False}
        small = F.interpolate(images.float().clamp(0, 1), size=(height, width), **mode)
        canvas = torch.full((len(images), 3, self.canvas.height, self.canvas.width), float(GREY), device=images.device)
        canvas[:, :, :height, :width] = (small * 255).round()
        return canvas.to(torch.uint8)

    def raw(self, canvases: Tensor) -> list[Raw]:
        """(B, 3, H, W) uint8 canvases, on any device -> what all networks together say, in pixels of the canvas."""
        canvases = canvases.to(next(self.networks[0].parameters()).device)
        return decoded(maps_of(self.networks, canvases, flips=self.flips, bfloat16=self.bfloat16))

    def boxes(self, raw: Raw, scale: float, width: int, height: int) -> tuple[Tensor, Tensor, Tensor]:
        """What was said of the canvas of an image of this size -> boxes xyxy (m, 4) in its pixels, cut at its border,
        classes (m,) and calibrated confidences (m,), by confidence from high to low; boxes of no area left out."""
        sure = self.calibration.probabilities(raw)
        xyxy = (raw.xyxy.cpu().float() / scale).clamp(min=0)
        xyxy = torch.minimum(xyxy, torch.tensor([width, height, width, height], dtype=torch.float32))
        kept = ((xyxy[:, 2:] - xyxy[:, :2]) >= 1).all(dim=1)
        order = sure[kept].argsort(descending=True, stable=True)
        return xyxy[kept][order], raw.classes.cpu()[kept][order], sure[kept][order]


def maps_of(networks: Sequence[Detector], canvases: Tensor, *, flips: tuple[bool, bool], bfloat16: bool) -> Maps:
    """(B, 3, H, W) uint8, or float in [0, 1] -> the mean of what networks say of images and their mirror images, as
    probabilities."""
    x = canvases if canvases.is_floating_point() else canvases.float() / 255
    x = x.contiguous(memory_format=torch.channels_last)
    axes = [None, *([3] if flips[0] else []), *([2] if flips[1] else [])]
    said = []
    with torch.no_grad(), torch.autocast(canvases.device.type, torch.bfloat16, enabled=bfloat16):
        for network in networks:
            network.eval()
            for axis in axes:
                maps = probable(network(x if axis is None else x.flip(axis)))
                said.append(maps if axis is None else unflipped(maps, axis))
    return mean_maps(said)
