"""One door to write any result onto its samples: a grouping's numbers, a labeling's labels, a detection's boxes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from engine import grouping
from engine.detect import results as boxes
from engine.detect.results import Detection
from engine.grouping import Grouping
from engine.label.results import Labeling, annotated
from engine.samples import Sample


def annotate(
    samples: Sequence[Sample], result: Grouping | Labeling | Detection, *, property: str = grouping.PROPERTY
) -> tuple[Sample, ...]:
    """New samples that carry the result; the given ones are not changed.

    Of a `Grouping`: the number of the group in the sample attribute `property` (see `grouping.annotate`). Of a
    `Labeling`: automatic labels with confidences where people gave none, made now (see `label.results.annotated`). Of a
    `Detection`: automatic boxes likewise (see `detect.results.annotated`).
    Raises UsageError for an attribute that the service itself uses.
    """
    if isinstance(result, Grouping):
        return grouping.annotate(samples, result, property=property)
    if isinstance(result, Detection):
        return boxes.annotated(samples, result, time=datetime.now())
    return annotated(samples, result, time=datetime.now())
