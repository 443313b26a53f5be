"""Marks of hard examples on samples, as the specification writes them (CreateTask, tables 13 to 15).

On the sample: hard, hard coefficient, and the reasons as a list of integers, by contribution. On each label in
question: the same, the reasons as one string, `3-20`. On each box in question: coefficient and reasons, as its PASCAL
VOC object carries them; its drawing then has no file yet.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from engine.hard.examples import HardExamples
from engine.hard.questions import has_automatic_boxes
from engine.samples import HARD_KEYS, HARD_REASONS_KEY, IMAGE_CLASSIFICATION, OBJECT_DETECTION, Label, Sample, without

#: Digits of a coefficient that is written.
_DIGITS: Final = 6


def marked(
    samples: Sequence[Sample],
    found: HardExamples,
    rows: Sequence[int],
    names: Sequence[str],
    *,
    of_people: bool = False,
) -> tuple[Sample, ...]:
    """The samples with marks on those at these rows, and on their labels in question; marks that an earlier run left
    there are replaced.

    names: of the columns of labels. of_people: whether labels that people gave are in question, instead of automatic
    ones.
    """
    assert len(samples) == len(found)
    of_labels: dict[tuple[int, str], int] = {
        (row, names[column]): at
        for at, (row, column) in enumerate(zip(found.labels.rows.tolist(), found.labels.columns.tolist(), strict=True))
    }
    marked_ = list(samples)
    for row in rows:
        sample = samples[row]
        labels = tuple(
            _label(label, found, of_labels.get((row, label.name or "")))
            if label.by_human == of_people and label.type == IMAGE_CLASSIFICATION
            else label
            for label in sample.labels
        )
        marked_[row] = _sample(replace(sample, labels=labels), found, row)
    return tuple(marked_)


def _sample(sample: Sample, found: HardExamples, row: int) -> Sample:
    """A sample with its marks; its labels have theirs."""
    return replace(
        sample,
        hard=bool(found.hard[row]),
        hard_coefficient=_told(found.coefficients[row]),
        property=_with_reasons(sample.property, list(found.reasons[row])),
    )


def _label(label: Label, found: HardExamples, at: int | None) -> Label:
    """A label with its marks; at: its position in `found.labels`."""
    return label if at is None else _as_hard(label, *_marks(found, at))


def _marks(found: HardExamples, at: int) -> tuple[float, bool, tuple[int, ...]]:
    """Of a label or box: its coefficient, whether it is hard, and why."""
    return _told(found.labels.coefficients[at]), bool(found.labels.hard[at]), found.labels.reasons[at]


def _as_hard(label: Label, coefficient: float, hard: bool, reasons: tuple[int, ...]) -> Label:
    told = _with_reasons(label.property, "-".join(map(str, reasons)))
    return replace(label, hard=hard, hard_coefficient=coefficient, property=told)


def _told(coefficient: float) -> float:
    return round(float(coefficient), _DIGITS)


def marked_boxes(
    samples: Sequence[Sample], found: HardExamples, rows: Sequence[int] | None = None, *, of_people: bool = False
) -> tuple[Sample, ...]:
    """The samples with marks on those at these rows, on their labels in question, and on each box of these.

    rows: all with automatic boxes by default. of_people: whether boxes that people drew are in question, instead of
    automatic ones.
    """
    marked_ = list(samples)
    rows = [row for row, sample in enumerate(samples) if has_automatic_boxes(sample)] if rows is None else rows
    for row in rows:
        sample = samples[row]
        first, last = np.searchsorted(found.labels.rows, (row, row + 1))
        boxes = iter(range(int(first), int(last)))
        labels = tuple(
            _drawn(label, found, boxes)
            if label.drawing is not None and label.type == OBJECT_DETECTION and label.by_human == of_people
            else label
            for label in sample.labels
        )
        marked_[row] = _sample(replace(sample, labels=labels), found, row)
    return tuple(marked_)


def _drawn(label: Label, found: HardExamples, boxes: Iterator[int]) -> Label:
    """A label with marks on its boxes, and itself as hard as the hardest of them. boxes: positions in found.labels."""
    assert label.drawing is not None
    shapes, marks = [], []
    for shape in label.drawing.shapes:
        if shape.kind == "bndbox":
            coefficient, hard, reasons = _marks(found, next(boxes))
            marks.append((coefficient, hard, reasons))
            shape = replace(shape, hard_coefficient=coefficient, hard_reasons=reasons)
        shapes.append(shape)
    label = replace(label, drawing=replace(label.drawing, shapes=tuple(shapes)), annotation_loc=None)
    return _as_hard(label, *max(marks)) if marks else label


def _with_reasons(property: Mapping[str, Any], reasons: str | list[int]) -> dict[str, Any]:
    """The attributes with these reasons, or without any, and without other marks of a hard example."""
    kept = without(property, HARD_KEYS)
    return {**kept, HARD_REASONS_KEY: reasons} if reasons else dict(kept)
