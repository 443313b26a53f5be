"""A detector from elsewhere: what its graph says, made boxes of its labels.

In: images (B, 3, H, W) RGB of any size, or what the graph sees of them, with their places on it. Out: boxes xyxy in
pixels of the images, surest first, or an `InputError` that says what the graph gave instead. Knows nothing of files, or
of what runs the graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engine.detect.overlaps import batched_nms
from engine.errors import InputError
from engine.images import Pixels
from engine.models.foreign.asking import asked, check_unit, output
from engine.models.foreign.forms import ForeignDetectorForm
from engine.models.foreign.graphs import Graph
from engine.models.foreign.placing import Placed, fitted, placed
from engine.predictions import Boxes, Predictions


@dataclass(frozen=True, slots=True)
class ForeignDetector:
    """A detector from elsewhere: a `Predictor` of boxes."""

    form: ForeignDetectorForm
    graph: Graph

    @property
    def labels(self) -> tuple[str, ...]:
        return self.form.labels

    @property
    def thresholds(self) -> tuple[float, ...]:
        return (self.form.score_threshold,) * len(self.labels)

    @property
    def side(self) -> int:
        """The longer side of what it sees of an image, in pixels."""
        return max(self.form.input.height, self.form.input.width)

    def predict(self, images: Tensor) -> Predictions:
        """(B, 3, H, W) float RGB in [0, 1], of any size -> boxes in pixels of the images, surest first. Raises
        InputError."""
        if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
            raise InputError(f"images: must be (B, 3, H, W) float, got {tuple(images.shape)} {images.dtype}")
        height, width = images.shape[2:]
        pixels = (images.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        place = placed(self.form.input, width, height)
        seen = np.stack([fitted(self.form.input, each, place, width, height) for each in pixels])
        found = self.boxes(seen, [place] * len(seen), [(width, height)] * len(seen))
        return Predictions(self.labels, boxes=tuple(found))

    def boxes(self, seen: Pixels, places: list[Placed], sizes: list[tuple[int, int]]) -> list[Boxes]:
        """seen: (B, height, width, 3) uint8, as `fitted` makes it. -> boxes in pixels of images of these sizes."""
        x = torch.from_numpy(seen).permute(0, 3, 1, 2).float().div(255)
        found: list[Boxes] = []
        for said, count in asked(self.graph, self.form, x):
            xyxy, scores, classes = self._boxes(said, count)
            for at in range(count):
                place, size = places[len(found)], sizes[len(found)]
                found.append(self._one(xyxy[at], scores[at], classes[at], place, size))
        return found

    def _boxes(self, said: Mapping[str, npt.NDArray[Any]], count: int) -> tuple[Tensor, Tensor, Tensor]:
        """(B, m, 4) in pixels of what the graph sees, (B, m) confidences, (B, m) classes; -1: none of the labels."""
        names, place, k = self.form.outputs, self.graph.place, len(self.labels)
        boxes = output(self.graph, said, names.detection_boxes)
        scores = output(self.graph, said, names.detection_scores)
        boxes = boxes[None] if boxes.ndim == 2 else boxes
        if boxes.ndim != 3 or boxes.shape[2] != 4 or boxes.shape[0] < count:
            raise InputError(f"{place}: {names.detection_boxes} must be (B, m, 4), got {tuple(boxes.shape)}")
        b, m = boxes.shape[:2]
        scores = scores.sigmoid() if self.form.activation == "sigmoid" else scores
        if names.detection_classes is None:
            by_box = _by_box(scores, b, m, k)
            if by_box is None:
                wanted = f"(B, m, {k}) or (B, {k}, m), m = {m}"
                raise InputError(f"{place}: {names.detection_scores} must be {wanted}, got {tuple(scores.shape)}")
            scores, classes = by_box.max(dim=2)
        else:
            classes = output(self.graph, said, names.detection_classes)
            if scores.numel() != b * m or classes.numel() != b * m:
                got = f"{tuple(scores.shape)} and {tuple(classes.shape)}"
                raise InputError(f"{place}: scores and classes must be a number a box, ({b}, {m}), got {got}")
            scores, classes = scores.reshape(b, m), classes.reshape(b, m).round().long() - self.form.first_class
            classes = torch.where((classes >= 0) & (classes < k), classes, -1)
        check_unit(place, names.detection_scores, scores[scores > 0])
        width, height = self.form.input.width, self.form.input.height
        if self.form.unit == "share":
            along_x = boxes.new_tensor([width, height, width, height])
            along_y = boxes.new_tensor([height, width, height, width])
            boxes = boxes * (along_y if self.form.boxes == "yxyx" else along_x)
        if self.form.boxes == "yxyx":
            boxes = boxes[..., [1, 0, 3, 2]]
        elif self.form.boxes == "cxcywh":
            boxes = torch.cat([boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2], dim=-1)
        return boxes, scores, classes

    def _one(self, xyxy: Tensor, scores: Tensor, classes: Tensor, place: Placed, size: tuple[int, int]) -> Boxes:
        """What is a box of a label inside the image, surest first."""
        width, height = size
        shift = xyxy.new_tensor([place.left, place.top] * 2)
        xyxy = (xyxy - shift) / xyxy.new_tensor([place.scale_x, place.scale_y] * 2)
        xyxy = torch.minimum(xyxy.clamp(min=0), xyxy.new_tensor([width, height] * 2))
        real = (scores > 0) & (classes >= 0) & (xyxy[:, 2] > xyxy[:, 0]) & (xyxy[:, 3] > xyxy[:, 1])
        xyxy, scores, classes = xyxy[real], scores[real].clamp(max=1), classes[real]
        if self.form.iou is not None:
            kept = batched_nms(xyxy, scores, classes, self.form.iou)
        else:
            kept = scores.argsort(descending=True, stable=True)
        return Boxes(xyxy[kept].float(), scores[kept].float(), classes[kept])


def _by_box(scores: Tensor, b: int, m: int, k: int) -> Tensor | None:
    """Scores (B, m, k) or (B, k, m), as graphs give them that were made for ONNX NonMaxSuppression -> (B, m, k); None
    for another shape. Where m = k they are read as (B, m, k). A side of 1 may be left out."""

    def sides(shape: Sequence[int]) -> list[int]:
        return [side for side in shape if side != 1]

    if sides(scores.shape) == sides((b, m, k)):
        return scores.reshape(b, m, k)
    if sides(scores.shape) == sides((b, k, m)):
        return scores.reshape(b, k, m).transpose(1, 2)
    return None
