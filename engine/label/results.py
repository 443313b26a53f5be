"""`Labeling`: what auto labeling hands on, parallel to the samples, and samples annotated with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from engine.label.classifier import ImageClassifier
from engine.label.targets import Targets
from engine.samples import IMAGE_CLASSIFICATION, Label, Sample, unmarked
from engine.survey import Survey

#: Who made an automatic label (manifest specification).
ANNOTATED_BY: Final = "modelarts/active-learning"

#: In a multi-label set a label is given from this (calibrated) probability on, and the most probable one always.
GIVEN_FROM: Final = 0.5


@dataclass(frozen=True, slots=True)
class Labeling:
    """Labels for n samples.

    targets: what people said (readable images only). probabilities: (n, k) float32, columns as targets.labels,
    calibrated; rows sum to 1 unless the set is multi-label; a row of NaN where there is no readable image. Rows of
    samples that people labeled are out of fold: by models that did not see their label. judges: (n,) int64, for a
    labeled sample the number of the network of the classifier that has not seen its label; -1 where each has, and where
    there is no label. classifier: the model. choices: what was chosen and why, JSON values. survey: the pass over the
    images, its failures too. notes: what a person should know, a line each.
    """

    algorithm_type: str
    targets: Targets
    probabilities: npt.NDArray[np.float32]
    judges: npt.NDArray[np.int64]
    classifier: ImageClassifier
    choices: Mapping[str, Any]
    survey: Survey
    notes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.probabilities)

    @property
    def labels(self) -> tuple[str, ...]:
        return self.targets.labels

    @property
    def predicted(self) -> npt.NDArray[np.bool_]:
        """(n, k) True for each label that the model gives: the most probable one, and in a multi-label set all from
        GIVEN_FROM on. No label where there is no prediction."""
        given = np.zeros(self.probabilities.shape, bool)
        rows = np.flatnonzero(self.predictable)
        given[rows, self.probabilities[rows].argmax(axis=1)] = True
        if self.targets.multi_label:
            given[rows] |= self.probabilities[rows] >= GIVEN_FROM
        return given

    @property
    def confidences(self) -> npt.NDArray[np.float32]:
        """(n,) of the least certain label that is given; NaN where there is no prediction."""
        lowest: npt.NDArray[np.float32] = np.where(self.predicted, self.probabilities, np.inf).min(axis=1)
        return np.where(self.predictable, lowest, np.nan).astype(np.float32)

    @property
    def predictable(self) -> npt.NDArray[np.bool_]:
        """(n,) True where there is a prediction."""
        return ~np.isnan(self.probabilities[:, 0])

    @property
    def automatic(self) -> npt.NDArray[np.bool_]:
        """(n,) True where `annotated` gives automatic labels: predicted, and not labeled by a person."""
        return self.predictable & ~self.targets.labeled


def annotated(
    samples: Sequence[Sample], labeling: Labeling, *, time: datetime, annotated_by: str = ANNOTATED_BY
) -> tuple[Sample, ...]:
    """The samples with automatic labels where people gave none; those of an earlier run are replaced.

    A sample that a person labeled stays as it is; so does one without a readable image, but for old automatic labels.
    time: written as the labels' creation time.
    """
    assert len(samples) == len(labeling)
    created = time.strftime("%Y-%m-%d %H:%M:%S")
    predicted, automatic = labeling.predicted, labeling.automatic

    def with_labels(row: int, sample: Sample) -> Sample:
        if labeling.targets.labeled[row]:
            return sample
        kept = tuple(each for each in sample.labels if each.type != IMAGE_CLASSIFICATION or each.by_human)
        columns = np.flatnonzero(predicted[row] & automatic[row])
        made = tuple(
            Label(
                type=IMAGE_CLASSIFICATION,
                name=labeling.labels[column],
                annotated_by=annotated_by,
                creation_time=created,
                confidence=round(float(labeling.probabilities[row, column]), 6),
            )
            for column in columns
        )
        if not made and len(kept) == len(sample.labels):
            return sample
        sample = sample if made or kept else unmarked(sample)  # nothing is left that could be hard
        return replace(sample, labels=(*kept, *made))

    return tuple(with_labels(row, sample) for row, sample in enumerate(samples))
