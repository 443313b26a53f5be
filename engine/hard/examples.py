"""Hard examples of what is known about samples: `Evidence` in, `HardExamples` out, parallel to the n samples.

    found = hard_examples(Evidence.of_arrays(probabilities, labels, embeddings=embeddings))
    found.coefficients, found.reasons, found.labels

Works on plain tensors; knows nothing of images, models or files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engine.errors import InputError
from engine.hard.combine import (
    USUAL,
    Calibrated,
    Residual,
    Scale,
    by_miner,
    calibrate,
    left_in_words,
    levelled,
    reasons_of,
    residuals,
    scale_of,
    shares_of,
    usual_mean,
    weighted,
)
from engine.hard.config import THRESHOLDS, HardConfig
from engine.hard.mining import Evidence, Mined, Scores, mined
from engine.hard.reasons import REASONS

#: Marks at which it is said how many wrong labels a review leaves, besides the beginning.
_MARKS: Final = 200


@dataclass(frozen=True, slots=True)
class HardLabels:
    """The labels in question, one by one, sample after sample.

    rows, columns: (m,) int64, the sample and the label. coefficients: (m,) float32 in [0, 1]; by the combiner
    `calibrated` the probability that this label is wrong. hard: (m,) bool. reasons: of the hard ones.
    """

    rows: npt.NDArray[np.int64]
    columns: npt.NDArray[np.int64]
    coefficients: npt.NDArray[np.float32]
    hard: npt.NDArray[np.bool_]
    reasons: tuple[tuple[int, ...], ...]

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, slots=True)
class HardExamples:
    """n samples.

    coefficients: (n,) float32 in [0, 1], 1 = hardest; by the combiner `calibrated` the probability that a label in
    question is wrong (with several labels a sample: any of them, or a missing one); 0 where none is. hard: (n,) bool,
    coefficient >= threshold. reasons: of the hard ones, numbers by contribution, largest first. labels: the same of
    each label by itself. scores: reason -> (n,) float32 in [0, 1], NaN where there is none. shares: reason -> (n,)
    float32 in [0, 1], how far beyond what is usual it is, of all reasons together 1, or 0 where nothing is. far:
    reason -> the score from which on it is given. left: what a review by descending coefficient leaves, only by
    `calibrated`: of the samples that nobody labeled. choices: what was chosen and learned, JSON values. names: of the
    columns of labels, where they are known. words: of reasons that say something else here than they usually do.
    """

    coefficients: npt.NDArray[np.float32]
    hard: npt.NDArray[np.bool_]
    reasons: tuple[tuple[int, ...], ...]
    labels: HardLabels
    scores: Mapping[int, npt.NDArray[np.float32]]
    shares: Mapping[int, npt.NDArray[np.float32]]
    far: Mapping[int, float]
    combiner: str
    threshold: float
    left: tuple[Residual, ...]
    choices: Mapping[str, Any]
    names: tuple[str, ...] = ()
    words: Mapping[int, str] = field(default_factory=dict)

    def meaning(self, number: int) -> str:
        """What a reason says here, in words."""
        return self.words.get(number, REASONS[number].words)

    def __len__(self) -> int:
        return len(self.coefficients)

    @property
    def order(self) -> npt.NDArray[np.int64]:
        """(n,) positions, the hardest first."""
        return np.argsort(-self.coefficients, kind="stable")


def hard_examples(evidence: Evidence, config: HardConfig | None = None, *, seed: int = 0) -> HardExamples:
    """Which labels are likely wrong, why, and how likely. Raises InputError when shapes or values do not fit."""
    config = config or HardConfig()
    check(evidence)
    found = mined(evidence, miners=[name for name, weight in config.weights.items() if weight > 0], seed=seed)
    return judged(evidence, found, judge_of(evidence, found, config), seed=seed)


@dataclass(frozen=True, slots=True)
class Judge:
    """How scores become coefficients. scale: of the scores. weights: of miners, as documented or asked for. model: of
    `calibrated`, None: `weights`. of_labels: the model of labels by themselves, where a sample has several. threshold:
    of the coefficient, from which on a label is hard. usual: by `weights`, the weighted mean that is a coefficient of
    USUAL."""

    combiner: str
    scale: Scale
    operators: Mapping[str, float]
    weights: Mapping[str, float]
    model: Calibrated | None
    threshold: float
    of_labels: Calibrated | None = None
    usual: float = USUAL

    def miners(self, scores: Scores) -> dict[str, Tensor]:
        return by_miner(scores, self.scale, operator_weights=self.operators)

    def coefficients(
        self, doubts: Tensor, scores: Scores, *, of_labels: bool = False, least: Tensor | None = None
    ) -> Tensor:
        """(m,) in [0, 1]. doubts: (m, 3), 1 - confidence and those of samples around and alike, NaN for unknown.
        scores: (m,) each. of_labels: whether they are of labels by themselves. least: (m,) in [0, 1], by `weights`,
        what coefficients are at least."""
        model = (self.of_labels if of_labels else None) or self.model
        if model is not None:
            assert least is None, "what a review leaves follows the probabilities alone"
            return model.probabilities(doubts, self.miners(scores)).clamp(0, 1)
        found = levelled(self.means(scores, len(doubts)), self.usual)
        return found if least is None else torch.maximum(found, least)

    def means(self, scores: Scores, m: int) -> Tensor:
        """(m,) in [0, 3], by `weights`: the weighted mean of what the miners say; 0 where none could."""
        miners = self.miners(scores)
        return weighted(miners, self.weights) if miners else torch.zeros(m)


def judge_of(evidence: Evidence, found: Mined, config: HardConfig) -> Judge:
    """The combiner that fits, learned from labeled samples that were judged out of fold where there are any."""
    known = evidence.judged & evidence.predicted & ~evidence.doubt.isnan()
    scale, combiner = scale_of(found.scores, evidence.reference), config.combiner_for(int(known.sum()))
    model = of_labels = None
    miners = by_miner(found.scores, scale, operator_weights=config.operators)
    if combiner == "calibrated":
        wrong = (evidence.given != evidence.told).any(dim=1)[known]
        doubts = found.doubts(evidence)
        model = calibrate(doubts[known], {name: score[known] for name, score in miners.items()}, wrong)
        open_ = evidence.predicted & ~evidence.told.any(dim=1)
        model = model.at_level(doubts[open_], {name: score[open_] for name, score in miners.items()})
        if evidence.multi_label:
            of_labels = _model_of_labels(evidence, found, scale, config, known, open_)
    threshold = THRESHOLDS[combiner] if config.threshold is None else config.threshold
    # What a miner does not say of people's labels, as that they are unsure, is nothing that it finds strange.
    silent = {name: score.nan_to_num(0.0) for name, score in miners.items()}
    means = weighted(silent, config.weights) if silent else torch.zeros(len(evidence))
    usual = usual_mean(means[evidence.reference])
    return Judge(combiner, scale, config.operators, config.weights, model, threshold, of_labels, usual)


def _model_of_labels(
    evidence: Evidence, found: Mined, scale: Scale, config: HardConfig, known: Tensor, open_: Tensor
) -> Calibrated:
    """Of labels by themselves: one is wrong where people did not give it. known, open_: (n,) bool, samples to learn
    from, and those that nobody labeled."""

    def of(samples: Tensor) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        rows, columns = (evidence.given & samples[:, None]).nonzero().unbind(1)
        miners = by_miner(found.of(rows, columns), scale, operator_weights=config.operators)
        return found.doubts_of(evidence, rows, columns), miners, ~evidence.told[rows, columns]

    doubts, miners, wrong = of(known)
    return calibrate(doubts, miners, wrong).at_level(*of(open_)[:2])


def judged(
    evidence: Evidence,
    found: Mined,
    judge: Judge,
    *,
    least: Tensor | None = None,
    marks: Scale | None = None,
    seed: int,
) -> HardExamples:
    """What a judge makes of what was mined. least: (n,), by `weights`, coefficients of what is on each image: it is no
    surer than that. marks: what is usual and what is far where reasons are given; by default the judge's scale."""
    marks = marks or judge.scale
    there = evidence.predicted
    coefficients = torch.where(there, judge.coefficients(found.doubts(evidence), found.scores, least=least), 0.0)
    hard = there & (coefficients >= judge.threshold)
    choices: dict[str, Any] = {
        "combiner": judge.combiner,
        "algo_hard_threshold": judge.threshold,
        "miners": list(judge.miners(found.scores)),
    }
    left = _left(evidence, found, judge, seed)
    return HardExamples(
        coefficients.numpy(),
        hard.numpy(),
        reasons_of(found.scores, marks, judge.weights, hard),
        _labels(evidence, found, judge),
        {number: score.numpy() for number, score in found.scores.items()},
        {number: share.numpy() for number, share in shares_of(found.scores, marks, judge.weights).items()},
        dict(marks.far),
        judge.combiner,
        judge.threshold,
        left,
        {**choices, **(_in_words(judge.model, found.doubts(evidence)) if judge.model else {}), **left_in_words(left)},
    )


def _labels(evidence: Evidence, found: Mined, judge: Judge) -> HardLabels:
    rows, columns = evidence.given.nonzero().unbind(1)
    scores = found.of(rows, columns)
    coefficients = judge.coefficients(found.doubts_of(evidence, rows, columns), scores, of_labels=True)
    hard = coefficients >= judge.threshold
    reasons = reasons_of(scores, judge.scale, judge.weights, hard)
    return HardLabels(rows.numpy(), columns.numpy(), coefficients.numpy(), hard.numpy(), reasons)


def _left(evidence: Evidence, found: Mined, judge: Judge, seed: int) -> tuple[Residual, ...]:
    open_ = evidence.predicted & ~evidence.told.any(dim=1)
    if judge.model is None or not bool(open_.any()):
        return ()
    doubts = found.doubts(evidence)[open_]
    miners = {name: score[open_] for name, score in judge.miners(found.scores).items()}
    return tuple(residuals(judge.model, doubts, miners, steps=_MARKS, generator=np.random.default_rng(seed)))


def _in_words(model: Calibrated, doubts: Tensor) -> dict[str, Any]:
    """doubts: (n, 3); those of which none is known have no weight of their own."""
    weights = model.weights_of(~doubts.isnan().all(dim=0))
    return {
        "errors_out_of_fold": model.errors,
        "judged_out_of_fold": model.samples,
        "intercept": round(model.intercept, 4),
        "weight_of_confidence": round(weights[0], 4),
        "weight_of_those_around": round(weights[1], 4),
        "weight_of_those_alike": round(weights[2], 4),
        "prior_width": model.width,
        "weights": {name: round(weight, 4) for name, weight in model.weights.items()},
    }


def check(evidence: Evidence) -> None:
    """Raise InputError when shapes or values do not fit."""
    n, k = evidence.probabilities.shape
    for what, value, shape in (
        ("given", evidence.given, (n, k)),
        ("told", evidence.told, (n, k)),
        ("judged", evidence.judged, (n,)),
    ):
        if tuple(value.shape) != shape or value.dtype != torch.bool:
            raise InputError(f"{what}: must be {shape} bool, got {tuple(value.shape)} {value.dtype}")
    known = evidence.probabilities[~evidence.probabilities.isnan().any(dim=1)]
    if bool(((known < 0) | (known > 1)).any()):
        raise InputError(f"probabilities: must be in [0, 1] or NaN, got {float(known.min())}..{float(known.max())}")
    if bool((evidence.judged & ~evidence.told.any(dim=1)).any()):
        raise InputError("judged: must be labeled samples, got one that nobody labeled")
    for view in evidence.views:
        if view.vectors.ndim != 2 or len(view.vectors) != n:
            raise InputError(f"views: vectors must be ({n}, d), got {tuple(view.vectors.shape)}")
        there = ~view.vectors.isnan().all(dim=1)
        if not bool(view.vectors[there].isfinite().all()) or not bool(there[view.seen].all()):
            raise InputError("views: vectors must be finite (rows of NaN for none), got NaN or infinity")
        if view.beliefs is not None and tuple(view.beliefs.shape) != (n, k):
            raise InputError(f"views: beliefs must be ({n}, {k}), got {tuple(view.beliefs.shape)}")
        if view.beliefs is not None and bool(((view.beliefs < 0) | (view.beliefs > 1)).any()):
            raise InputError("views: beliefs must be in [0, 1] or NaN, got others")
    if evidence.contents is not None and (evidence.contents.ndim != 2 or len(evidence.contents) != n):
        raise InputError(f"contents: must be ({n}, d), got {tuple(evidence.contents.shape)}")
    if evidence.contents is not None and bool(evidence.contents.isinf().any()):
        raise InputError("contents: must be finite (rows of NaN for none), got infinity")
    for what, by_reason in (("features", evidence.features), ("altered", evidence.altered)):
        for reason, values in by_reason.items():
            if tuple(values.shape) != (n,):
                raise InputError(f"{what}[{reason}]: must be ({n},), got {tuple(values.shape)}")
