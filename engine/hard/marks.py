"""Marks of hard examples on samples, as the specification writes them (CreateTask, tables 13 to 15).

On the sample: hard, hard coefficient, and the reasons as a list of integers, by contribution. On each automatic label:
the same, the reasons as one string, `3-20`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from engine.hard.examples import HardExamples
from engine.samples import HARD_REASONS_KEY, Label, Sample

#: Digits of a coefficient that is written.
_DIGITS: Final = 6


def marked(samples: Sequence[Sample], found: HardExamples, rows: Sequence[int]) -> tuple[Sample, ...]:
    """The samples with marks on those at these rows; marks that an earlier run left there are replaced."""
    assert len(samples) == len(found)
    chosen = set(rows)
    return tuple(_marked(sample, found, row) if row in chosen else sample for row, sample in enumerate(samples))


def _marked(sample: Sample, found: HardExamples, row: int) -> Sample:
    hard, coefficient = bool(found.hard[row]), round(float(found.coefficients[row]), _DIGITS)
    reasons = found.reasons[row]

    def with_marks(label: Label) -> Label:
        if label.by_human:
            return label
        property = _with_reasons(label.property, "-".join(map(str, reasons)))
        return replace(label, hard=hard, hard_coefficient=coefficient, property=property)

    return replace(
        sample,
        labels=tuple(with_marks(label) for label in sample.labels),
        hard=hard,
        hard_coefficient=coefficient,
        property=_with_reasons(sample.property, list(reasons)),
    )


def _with_reasons(property: Mapping[str, Any], reasons: str | list[int]) -> dict[str, Any]:
    """The attributes with these reasons, or without any."""
    kept = {name: value for name, value in property.items() if name != HARD_REASONS_KEY}
    return {**kept, HARD_REASONS_KEY: reasons} if reasons else kept
