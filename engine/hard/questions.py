"""Which labels of samples are in question, and what is said about them: manifests in, matrices out.

Automatic labels are in question on samples that no person labeled; what people said is what one learns from. Knows
nothing of images.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from engine.samples import BROKEN_KEY, IMAGE_CLASSIFICATION, OBJECT_DETECTION, UNREAD_KEY, Label, Sample, Shape


@dataclass(frozen=True, slots=True)
class Questions:
    """Of n samples and k names. given: (n, k) bool, automatic labels. told: (n, k) bool, people's. confidences: (n, k)
    float32, of automatic labels, NaN where there is none or it came without. multi_label: whether a sample may have
    several labels."""

    names: tuple[str, ...]
    given: Tensor
    told: Tensor
    confidences: Tensor
    multi_label: bool

    @property
    def probabilities(self) -> Tensor:
        """(n, k) float32: the confidences, and of one label a sample the rest spread evenly over the other names; rows
        of NaN where a label came without, or nothing is in question."""
        known = ~(self.given & self.confidences.isnan()).any(dim=1) & self.given.any(dim=1)
        p = self.confidences.nan_to_num(0.0)
        if not self.multi_label and p.shape[1] > 1:
            rest = (1 - p.sum(dim=1, keepdim=True)).clamp(min=0) / (p.shape[1] - 1)
            p = torch.where(self.given, p, rest)
        return torch.where(known[:, None], p, torch.nan)


def questions_of(samples: Sequence[Sample], *, further_names: Collection[str] = ()) -> Questions:
    """The image labels of samples. further_names: that a label may have, though no sample does."""
    told = [[label for label in image_labels(sample) if label.by_human] for sample in samples]
    given = [
        [] if people else [label for label in image_labels(sample) if not label.by_human]
        for sample, people in zip(samples, told, strict=True)
    ]
    everything = {str(label.name) for labels in (*told, *given) for label in labels}
    names = tuple(sorted(everything.union(further_names)))
    column = {name: at for at, name in enumerate(names)}
    shape = (len(samples), len(names))
    is_told, is_given, confidences = np.zeros(shape, bool), np.zeros(shape, bool), np.full(shape, np.nan, np.float32)
    for row, labels in enumerate(told):
        is_told[row, [column[str(label.name)] for label in labels]] = True
    for row, labels in enumerate(given):
        for label in labels:
            at = column[str(label.name)]
            is_given[row, at] = True
            if label.confidence is not None:
                confidences[row, at] = label.confidence
    several = bool((is_told.sum(axis=1) > 1).any() or (is_given.sum(axis=1) > 1).any())
    given_told, sure = (torch.from_numpy(is_given), torch.from_numpy(is_told)), torch.from_numpy(confidences)
    return Questions(names, *given_told, sure, several)


def image_labels(sample: Sample) -> Iterator[Label]:
    """The named image labels of an image sample."""
    return (label for label in sample.labels if sample.is_image and label.type == IMAGE_CLASSIFICATION and label.name)


def box_labels(sample: Sample) -> Iterator[Label]:
    """The labels of an image sample whose boxes were read."""
    labels = sample.labels if sample.is_image else ()
    return (label for label in labels if label.type == OBJECT_DETECTION and label.drawing is not None)


def automatic_boxes(sample: Sample) -> tuple[Shape, ...]:
    """The boxes that a machine drew on a sample, in the order of `Sample.boxes`."""
    return _boxes(label for label in box_labels(sample) if not label.by_human)


def object_boxes(sample: Sample) -> tuple[Shape, ...]:
    """The boxes of objects on a sample, whoever drew them; those of a segmentation are none."""
    return _boxes(box_labels(sample))


def _boxes(labels: Iterable[Label]) -> tuple[Shape, ...]:
    drawings = [label.drawing for label in labels if label.drawing is not None]
    return tuple(shape for drawing in drawings for shape in drawing.shapes if shape.kind == "bndbox")


def has_automatic_boxes(sample: Sample) -> bool:
    """Whether the boxes of a sample are in question: a machine drew some of them, or found none, and no person did.
    Objects none of which could be understood are neither."""
    labels = list(box_labels(sample))
    return any(_says_something(label) for label in labels) and not any(label.by_human for label in labels)


def has_peoples_boxes(sample: Sample) -> bool:
    """Whether people drew on a sample what could be understood, or said that nothing is there."""
    return any(_says_something(label) for label in box_labels(sample) if label.by_human)


def _says_something(label: Label) -> bool:
    return label.drawing is not None and (bool(label.drawing.shapes) or label.drawing.is_empty)


def is_understood(sample: Sample) -> bool:
    """Whether every object that was drawn on a sample could be understood."""
    drawings = [label.drawing for label in box_labels(sample) if label.drawing is not None]
    return all(BROKEN_KEY not in drawing.extra and UNREAD_KEY not in drawing.extra for drawing in drawings)
