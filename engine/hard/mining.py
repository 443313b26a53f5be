"""All miners at once: what is known about samples in, the score of each reason out.

In: an `Evidence`, parallel to n samples. Out: reason -> (n,) scores in [0, 1], 1 = hardest, NaN where a miner has
nothing to say. A label is never held against what a model says that has seen it: each `View` knows its training
images, and a sample that it has learned from is judged by the other views where there are any.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import torch
from torch import Tensor

from engine.features import IMAGE_FEATURES
from engine.hard.anomaly import abnormality
from engine.hard.clustering import disagreement
from engine.hard.distribution import offset
from engine.hard.predict_score import low_confidence
from engine.hard.reasons import WEIGHTS
from engine.hard.sequential import inconsistency
from engine.hard.similarity import unlikeness
from engine.label.training import generator_of

#: Scores of one reason for all samples, or NaN.
Scores = dict[int, Tensor]

_PREDICT_SCORE: Final = "predict_score_mining"
_CLUSTERING: Final = "clustering_mining"
_SIMILARITY: Final = "image_similarity_mining"
_SEQUENTIAL: Final = "sequential_mining"
_DISTRIBUTION: Final = "feature_distribution_mining"
_ANOMALY: Final = "anomaly_detection_mining"
_CONSISTENCY: Final = "aug_consistent_mining"


@dataclass(frozen=True, slots=True)
class View:
    """How one model sees all samples. vectors: (n, d) float, compared by Euclidean distance. seen: (t,) int64,
    positions of the samples whose labels it has learned from."""

    vectors: Tensor
    seen: Tensor


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known about n samples.

    probabilities: (n, k) float, calibrated; rows of NaN where nothing is predicted. given: (n, k) bool, the labels in
    question: predicted ones, or people's. told: (n, k) bool, what people said; no label elsewhere. judged: (n,) bool,
    labeled samples whose prediction is out of fold: on them is learned what scores mean. views: may be none.
    features: columns IMAGE_FEATURES, (n, 7) float; None: not measured. altered: by reason, 19..29, (n,): how much
    predictions change. sequences: positions in order.
    """

    probabilities: Tensor
    given: Tensor
    told: Tensor
    judged: Tensor
    multi_label: bool = False
    views: tuple[View, ...] = ()
    features: Tensor | None = None
    altered: Mapping[int, Tensor] = field(default_factory=dict)
    sequences: Sequence[Sequence[int]] = ()

    def __len__(self) -> int:
        return len(self.probabilities)

    @property
    def predicted(self) -> Tensor:
        """(n,) bool, where there is a prediction."""
        return ~self.probabilities.isnan().any(dim=1)


def mined(evidence: Evidence, *, miners: Collection[str] = tuple(WEIGHTS), seed: int = 0) -> Scores:
    """The scores of every reason that these miners can find."""
    found: Scores = {}
    if _PREDICT_SCORE in miners:
        found[1] = low_confidence(evidence.probabilities, evidence.given)
    if _CLUSTERING in miners and evidence.views:
        found[2] = _over_views(
            evidence,
            lambda view, at: disagreement(
                view.vectors, view.seen, evidence.told[view.seen], evidence.given, generator=generator_of(seed, at)
            ),
        )
    if _SIMILARITY in miners and evidence.views:
        found[3] = _over_views(
            evidence, lambda view, at: unlikeness(view.vectors, view.seen, evidence.told[view.seen], evidence.given)
        )
    if _SEQUENTIAL in miners and evidence.views and evidence.sequences:
        vectors, chance = evidence.views[0].vectors, generator_of(seed, "pairs")
        found[4] = inconsistency(vectors, evidence.probabilities, evidence.sequences, generator=chance)
    if _DISTRIBUTION in miners and evidence.features is not None:
        found |= _offsets(evidence.features, evidence.told.any(dim=1))
    if _CONSISTENCY in miners:
        found |= evidence.altered
    if _ANOMALY in miners and evidence.views:
        found[30] = _over_views(evidence, lambda view, at: abnormality(view.vectors, view.seen))
    there = evidence.predicted
    return {number: torch.where(there, score, torch.nan) for number, score in sorted(found.items())}


def _over_views(evidence: Evidence, work: Callable[[View, int], Tensor]) -> Tensor:
    """(n,): the mean over the views that have not seen a sample's label; over all where every one has."""
    scores = torch.stack([work(view, at) for at, view in enumerate(evidence.views)])  # (v, n)
    fair = torch.ones(scores.shape, dtype=torch.bool)
    for at, view in enumerate(evidence.views):
        fair[at, view.seen] = False
    fair |= ~fair.any(dim=0)
    fair &= ~scores.isnan()
    mean = scores.nan_to_num(0.0).mul(fair).sum(dim=0) / fair.sum(dim=0).clamp(min=1)
    return torch.where(fair.any(dim=0), mean, torch.nan)


def _offsets(features: Tensor, reference: Tensor) -> Scores:
    """Reasons 5-10. features: (n, 7). reference: (n,) bool; where no sample is in it, all are."""
    among = reference if bool(reference.any()) else torch.ones_like(reference)
    return {
        feature.reason: torch.from_numpy(
            offset(column.numpy().astype(np.float64), column[among].numpy().astype(np.float64), log=feature.log)
        )
        for feature, column in zip(IMAGE_FEATURES.values(), features.unbind(1), strict=True)
        if feature.reason is not None
    }
