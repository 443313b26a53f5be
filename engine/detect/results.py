"""`Detection`: what auto labeling of boxes hands on, parallel to the samples, and samples annotated with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engine.detect.detector import BoxDetector
from engine.detect.sketches import Sketches
from engine.errors import Failure
from engine.label.results import ANNOTATED_BY
from engine.predictions import Boxes
from engine.samples import OBJECT_DETECTION, SIZE_KEY, Drawing, Label, Sample, Shape, shapes_at

#: Digits of a pixel, and of a confidence, that are written.
_PIXEL_DIGITS: Final = 2
_DIGITS: Final = 6


@dataclass(frozen=True, slots=True)
class Detection:
    """Boxes for n samples.

    sketches: what people drew, in pixels of the images (readable ones only). candidates: of each sample the boxes that
    may be there, by calibrated confidence from high to low, more than are given; None where there is no readable image.
    Those of samples that people labeled are out of fold: by the network that did not see their boxes; where there is
    none, they are None, or there to be looked at only. judges: (n,) int64, the number of this network; NOBODY where
    none has seen them, as where a person confirmed or corrected later what all had said; -1 elsewhere. thresholds:
    (k,), the confidence from which on a box of a class is given. sizes: (n, 2) int64, width and height, 0 for none.
    detector: the model; None for one from elsewhere. choices: what was chosen and why, JSON values. failures: what
    could not be used. notes: what a person should know.
    """

    algorithm_type: str
    sketches: Sketches
    candidates: tuple[Boxes | None, ...]
    judges: npt.NDArray[np.int64]
    thresholds: tuple[float, ...]
    sizes: npt.NDArray[np.int64]
    detector: BoxDetector | None
    choices: Mapping[str, Any]
    failures: tuple[Failure, ...]
    notes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.candidates)

    @property
    def labels(self) -> tuple[str, ...]:
        return self.sketches.labels

    @property
    def automatic(self) -> npt.NDArray[np.bool_]:
        """(n,) True where `annotated` gives boxes, perhaps none: an image that can be read and nobody labeled."""
        there = np.array([each is not None for each in self.candidates], bool)
        found: npt.NDArray[np.bool_] = there & ~self.sketches.labeled
        return found

    @property
    def drawn_counts(self) -> npt.NDArray[np.int64]:
        """(k,) boxes of each label that people drew."""
        drawn = np.concatenate([np.zeros(0, np.int64), *self.sketches.classes])
        return np.bincount(drawn, minlength=len(self.labels)).astype(np.int64)

    @property
    def automatic_counts(self) -> npt.NDArray[np.int64]:
        """(n, k) automatic boxes of each label on each sample."""
        counts = np.zeros((len(self), len(self.labels)), np.int64)
        for row in np.flatnonzero(self.automatic).tolist():
            boxes = self.candidates[row]
            assert boxes is not None
            counts[row] = np.bincount(boxes.classes[self.given(row)].numpy(), minlength=len(self.labels))
        return counts

    def given(self, row: int) -> Tensor:
        """(m,) bool, the candidates of a sample that are given as boxes."""
        boxes = self.candidates[row]
        assert boxes is not None
        return boxes.scores >= torch.tensor(self.thresholds)[boxes.classes]


#: No network has seen the boxes of a labeled sample.
NOBODY: Final = -2


def annotated(
    samples: Sequence[Sample], detection: Detection, *, time: datetime, annotated_by: str = ANNOTATED_BY
) -> tuple[Sample, ...]:
    """The samples with automatic boxes where people drew none; those of an earlier run are replaced.

    An image in which nothing was found gets a drawing without boxes. A sample on which a person drew anything stays as
    it is, and so does every label of another type, and what other shapes than boxes a machine drew, where its file
    states a size of the same shape as the image. time: written as the labels' creation time.
    """
    assert len(samples) == len(detection)
    created = time.strftime("%Y-%m-%d %H:%M:%S")
    automatic = detection.automatic

    def with_boxes(row: int, sample: Sample) -> Sample:
        if not automatic[row]:
            return sample
        kept = tuple(each for each in sample.labels if each.type != OBJECT_DETECTION or each.by_human)
        earlier = [each.drawing for each in sample.labels if each not in kept and each.drawing is not None]
        width, height = detection.sizes[row].tolist()
        made = Label(
            type=OBJECT_DETECTION,
            annotated_by=annotated_by,
            creation_time=created,
            drawing=_drawing(detection, row, earlier),
        )
        sample = replace(sample, labels=(*kept, made))
        told = sample.property.get(SIZE_KEY)
        if isinstance(told, list) and told[:2] == [width, height]:
            return sample
        return replace(sample, property={**sample.property, SIZE_KEY: [width, height, 3]})

    return tuple(with_boxes(row, sample) for row, sample in enumerate(samples))


def _drawing(detection: Detection, row: int, earlier: Sequence[Drawing]) -> Drawing:
    """The boxes that are given, and the other shapes of what was drawn before."""
    boxes, given = detection.candidates[row], detection.given(row)
    assert boxes is not None
    shapes = [
        Shape(
            detection.labels[of],
            "bndbox",
            (
                (round(x1, _PIXEL_DIGITS), round(y1, _PIXEL_DIGITS)),
                (round(x2, _PIXEL_DIGITS), round(y2, _PIXEL_DIGITS)),
            ),
            confidence=round(min(max(sure, 0.0), 1.0), _DIGITS),
        )
        for (x1, y1, x2, y2), of, sure in zip(
            boxes.xyxy[given].double().tolist(),
            boxes.classes[given].tolist(),
            boxes.scores[given].double().tolist(),
            strict=True,
        )
    ]
    width, height = detection.sizes[row].tolist()
    size = width, height, 3
    others = [shape for drawing in earlier for shape in shapes_at(drawing, size) or () if shape.kind != "bndbox"]
    return Drawing((*shapes, *others), size)
