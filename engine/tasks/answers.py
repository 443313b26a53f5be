"""A sample as the service answers it (task API): ids, states, labels with their scores and properties."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from engine.dataset import Dataset
from engine.errors import ImageError
from engine.samples import LABEL_TYPES, Label, Sample
from engine.tasks.conditions import known_id, label_property, metadata_of, shape_property

#: How answers spell the states that are derived from labels; those that a team sets are spelled as they are.
_SPELLED = {"NONE": "UN_ANNOTATION", "ALL": "MANUAL_ANNOTATION"}


def sample_answer(dataset: Dataset, row: int) -> dict[str, Any]:
    """One sample: numbers and booleans in `metadata`, strings in the `property` of a label, as documented."""
    sample = dataset[row]
    return {
        "sample_id": known_id(sample),
        "sample_type": sample.sample_type,
        "source": sample.source,
        "sample_time": sample_time(dataset, sample),
        "sample_status": _SPELLED.get(sample.state, sample.state),
        "sample_usage": sample.usage,
        "metadata": metadata_of(sample),
        "labels": [each for label in sample.labels for each in _labels(label)],
    }


def sample_time(dataset: Dataset, sample: Sample) -> int | None:
    """When the file was last changed, in milliseconds since 1970; None where there is none."""
    with suppress(ImageError, OSError, ValueError):
        return round(dataset.path(sample).stat().st_mtime * 1000)
    return None


def _labels(label: Label) -> Iterator[dict[str, Any]]:
    number = LABEL_TYPES.get(label.type)
    if label.drawing is None:
        yield _label(label, label.name, number, label.confidence, label_property(label))
        return
    for shape in label.drawing.shapes:
        yield _label(label, shape.name, number, shape.confidence, shape_property(shape))


def _label(
    label: Label, name: str | None, number: int | None, score: float | None, properties: Mapping[str, Any]
) -> dict[str, Any]:
    told = {
        "name": name,
        "type": number,
        "id": label.id,
        "score": score,
        "annotated_by": "human" if label.by_human else "auto",
        "property": dict(properties),
    }
    return {key: value for key, value in told.items() if value is not None}
