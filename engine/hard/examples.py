"""Hard examples of what is known about samples: `Evidence` in, `HardExamples` out, parallel to the n samples.

    evidence = Evidence(probabilities, given, told, judged, views=(View(embeddings, labeled),), features=features)
    found = hard_examples(evidence)
    found.coefficients, found.reasons

Works on plain tensors; knows nothing of images, models or files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engine.errors import InputError
from engine.hard.combine import Calibrated, Residual, by_miner, calibrate, reasons_of, residuals, scale_of, weighted
from engine.hard.config import THRESHOLDS, HardConfig
from engine.hard.mining import Evidence, mined
from engine.hard.predict_score import low_confidence

#: Marks at which it is said how many wrong labels a review leaves, besides the beginning.
_MARKS: Final = 200


@dataclass(frozen=True, slots=True)
class HardExamples:
    """n samples.

    coefficients: (n,) float32 in [0, 1], 1 = hardest; by the combiner `calibrated` the probability that a label in
    question is wrong; 0 where nothing is predicted. hard: (n,) bool, coefficient >= threshold. reasons: of the hard
    ones, numbers by contribution, largest first. scores: reason -> (n,) float32 in [0, 1], NaN where there is none.
    left: what a review by descending coefficient leaves, only by `calibrated`: of the samples that nobody labeled.
    choices: what was chosen and learned, JSON values.
    """

    coefficients: npt.NDArray[np.float32]
    hard: npt.NDArray[np.bool_]
    reasons: tuple[tuple[int, ...], ...]
    scores: Mapping[int, npt.NDArray[np.float32]]
    combiner: str
    threshold: float
    left: tuple[Residual, ...]
    choices: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.coefficients)

    @property
    def order(self) -> npt.NDArray[np.int64]:
        """(n,) positions, the hardest first."""
        return np.argsort(-self.coefficients, kind="stable")


def hard_examples(evidence: Evidence, config: HardConfig | None = None, *, seed: int = 0) -> HardExamples:
    """Which labels are likely wrong, why, and how likely. Raises InputError when shapes or values do not fit."""
    config = config or HardConfig()
    _check(evidence)
    scores = mined(evidence, miners=[name for name, weight in config.weights.items() if weight > 0], seed=seed)
    judged = evidence.judged & evidence.predicted
    combiner = config.combiner_for(int(judged.sum()))
    threshold = THRESHOLDS[combiner] if config.threshold is None else config.threshold
    scale = scale_of(scores, judged)
    miners = by_miner(scores, scale, operator_weights=config.operators)
    choices: dict[str, Any] = {"combiner": combiner, "algo_hard_threshold": threshold, "miners": list(miners)}
    left: tuple[Residual, ...] = ()
    weights = config.weights
    if combiner == "calibrated":
        doubt = low_confidence(evidence.probabilities, evidence.given)
        model = _learned(evidence, doubt, miners, judged)
        coefficients = model.probabilities(doubt, miners)
        weights = {**dict.fromkeys(miners, 0.0), "predict_score_mining": model.confidence, **model.weights}
        open_ = evidence.predicted & ~evidence.told.any(dim=1)
        left = _left(model, doubt[open_], {name: score[open_] for name, score in miners.items()}, seed)
        choices |= _in_words(model)
    else:
        coefficients = weighted(miners, weights)
    coefficients = torch.where(evidence.predicted, coefficients, 0.0).clamp(0, 1)
    hard = evidence.predicted & (coefficients >= threshold)
    return HardExamples(
        coefficients.numpy(),
        hard.numpy(),
        reasons_of(scores, scale, weights, hard),
        {number: score.numpy() for number, score in scores.items()},
        combiner,
        threshold,
        left,
        choices,
    )


def _learned(evidence: Evidence, doubt: Tensor, miners: Mapping[str, Tensor], judged: Tensor) -> Calibrated:
    wrong = (evidence.given != evidence.told).any(dim=1)[judged]
    return calibrate(doubt[judged], {name: score[judged] for name, score in miners.items()}, wrong)


def _left(model: Calibrated, doubt: Tensor, miners: Mapping[str, Tensor], seed: int) -> tuple[Residual, ...]:
    if not len(doubt):
        return ()
    return tuple(residuals(model, doubt, miners, steps=_MARKS, generator=np.random.default_rng(seed)))


def _in_words(model: Calibrated) -> dict[str, Any]:
    return {
        "errors_out_of_fold": model.errors,
        "judged_out_of_fold": model.samples,
        "intercept": round(model.intercept, 4),
        "weight_of_confidence": round(model.confidence, 4),
        "prior_width": model.width,
        "weights": {name: round(weight, 4) for name, weight in model.weights.items()},
    }


def _check(evidence: Evidence) -> None:
    n, k = evidence.probabilities.shape
    for what, value, shape in (
        ("given", evidence.given, (n, k)),
        ("told", evidence.told, (n, k)),
        ("judged", evidence.judged, (n,)),
    ):
        if tuple(value.shape) != shape or value.dtype != torch.bool:
            raise InputError(f"{what}: must be {shape} bool, got {tuple(value.shape)} {value.dtype}")
    known = evidence.probabilities[evidence.predicted]
    if bool(((known < 0) | (known > 1)).any()):
        raise InputError(f"probabilities: must be in [0, 1] or NaN, got {float(known.min())}..{float(known.max())}")
    if bool((evidence.judged & ~evidence.told.any(dim=1)).any()):
        raise InputError("judged: must be labeled samples, got one that nobody labeled")
    for view in evidence.views:
        if view.vectors.ndim != 2 or len(view.vectors) != n:
            raise InputError(f"views: vectors must be ({n}, d), got {tuple(view.vectors.shape)}")
        if not bool(view.vectors.isfinite().all()):
            raise InputError("views: vectors must be finite, got NaN or infinity")
    if evidence.features is not None and len(evidence.features) != n:
        raise InputError(f"features: must have {n} rows, got {len(evidence.features)}")
