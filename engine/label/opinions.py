"""From out-of-fold opinions of networks and of a closed-form head to one calibrated classifier, and to what is known of
it.

What counts for how much is decided by the log loss on labels that were not seen. Knows nothing of budgets.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from torch import Tensor

from engine.embeddings import Encoder
from engine.errors import Stopped
from engine.evaluation import expected_calibration_error, reliability
from engine.label.calibration import mean_log_loss, mix, temperature_of
from engine.label.classifier import Classifier, Committee, LinearHead, probabilities_of, resized
from engine.label.crossfit import CrossFit, Member, gathered
from engine.label.heads import fit_ridge
from engine.label.plan import Plan
from engine.label.pool import Pool

#: 90 % of a normal distribution lie within so many standard deviations.
_NINETY: Final = 1.645


@dataclass(frozen=True, slots=True)
class HeadFit:
    """A head, and its scores, less one half, of each labeled image (n, k) without that image: out of fold."""

    head: LinearHead
    logits: Tensor


def fit_head(pool: Pool, encoder: Encoder) -> HeadFit:
    """Ridge regression on the encoder's vectors of the labeled images, each class weighing the same."""
    vectors = pool.mapped(lambda images: encoder.encode(resized(images, encoder.size)), pool.labeled)
    truth = pool.told[pool.labeled]
    ridge = fit_ridge(vectors, truth, balanced=not pool.multi_label)
    logits = ridge.leave_one_out - 0.5
    temperature = temperature_of(logits, truth > 0, multi_label=pool.multi_label)
    return HeadFit(LinearHead(encoder, ridge.mean, ridge.weights, ridge.intercept, temperature), logits)


#: Images on which it is timed.
_TIMED: Final = 256


def head_seconds(pool: Pool, fit: HeadFit) -> float:
    """What the head takes an image, measured on labeled ones."""
    rows = pool.labeled.repeat(-(-_TIMED // len(pool.labeled)))[:_TIMED]
    began = time.perf_counter()
    pool.mapped(fit.head.logits, rows)
    return (time.perf_counter() - began) / _TIMED


@dataclass(frozen=True, slots=True)
class Verdict:
    """A classifier, what it says of the labeled images out of fold (n, k; rows of NaN where every network has seen the
    label), and what was found out on the way, JSON values. judge: (n,) int64, for each labeled image the number of the
    network that has not seen its label, -1 where there is none."""

    classifier: Classifier
    out_of_fold: Tensor
    judge: Tensor
    found: dict[str, Any]


class Unfinished(Stopped):
    """Training was stopped. verdict: the best that there is so far."""

    def __init__(self, message: str, verdict: Verdict) -> None:
        super().__init__(message)
        self.verdict = verdict


#: A network that was stopped counts from this share of its steps on.
_USABLE_FROM: Final = 0.3


def verdict_of(pool: Pool, plan: Plan, head: HeadFit, members: Sequence[Member]) -> Verdict:
    """The verdict of all members together. Raises Unfinished, with that of the usable ones, when some are missing."""
    usable = [member for member in members if member.trained >= _USABLE_FROM]
    crew = gathered(pool, plan, usable)
    verdict = judged_together(pool, crew, head, plan) if usable else _head_alone(pool, head, plan)
    if len(members) == plan.members and all(member.trained == 1 for member in members):
        return verdict
    raise Unfinished(f"stopped with {len(usable)} of {plan.members} networks", verdict)


def _head_alone(pool: Pool, head: HeadFit, plan: Plan) -> Verdict:
    said = probabilities_of(head.logits, head.head.temperature, pool.multi_label)
    classifier = Classifier(pool.labels, pool.multi_label, pool.side, None, head.head, 0.0)
    truth = pool.told[pool.labeled] > 0
    found = {**plan.found, "share_of_networks": 0.0, **held_out_scores(said, truth, multi_label=pool.multi_label)}
    return Verdict(classifier, said, torch.full((len(truth),), -1), found)


def judged_together(pool: Pool, crew: CrossFit, head: HeadFit, plan: Plan) -> Verdict:
    """Temperatures, the share of the committee in the mixture with the head, and how good the result is."""
    multi_label = pool.multi_label
    seen = crew.judge >= 0
    truth = pool.told[pool.labeled] > 0
    temperature = temperature_of(crew.logits[seen], truth[seen], multi_label=multi_label)
    of_crew, of_head = crew.logits / temperature, head.logits / head.head.temperature
    mixture = mix(of_crew[seen], of_head[seen], truth[seen], multi_label=multi_label)
    by_crew, by_head = (probabilities_of(logits, 1.0, multi_label) for logits in (of_crew, of_head))
    mixed = mixture.share * of_crew + (1 - mixture.share) * of_head
    together = probabilities_of(mixed, mixture.temperature, multi_label)
    committee = Committee(crew.networks, temperature * mixture.temperature, plan.flips, plan.bfloat16)
    linear = replace(head.head, temperature=head.head.temperature * mixture.temperature)
    classifier = Classifier(pool.labels, multi_label, pool.side, committee, linear, mixture.share)
    found = {
        **plan.found,
        "share_of_networks": mixture.share,
        "temperature_of_networks": round(committee.temperature, 4),
        "temperature_of_head": round(linear.temperature, 4),
        "cv_log_loss": {
            "networks": round(mean_log_loss(by_crew[seen], truth[seen], multi_label=multi_label), 4),
            "head": round(mean_log_loss(by_head[seen], truth[seen], multi_label=multi_label), 4),
            "together": round(mean_log_loss(together[seen], truth[seen], multi_label=multi_label), 4),
        },
        **held_out_scores(together[seen], truth[seen], multi_label=multi_label),
    }
    return Verdict(classifier, torch.where(seen[:, None], together, torch.nan), crew.judge, found)


def held_out_scores(probabilities: Tensor, truth: Tensor, *, multi_label: bool) -> dict[str, Any]:
    """Accuracy (all labels right, in a multi-label set) with a 90 % interval (Wilson), calibration error,
    reliability."""
    if multi_label:
        right = ((probabilities >= 0.5) == truth).all(dim=1)
        confidences, correct = (
            torch.maximum(probabilities, 1 - probabilities).flatten(),
            ((probabilities >= 0.5) == truth).flatten(),
        )
    else:
        right = probabilities.argmax(dim=1) == truth.float().argmax(dim=1)
        confidences, correct = probabilities.amax(dim=1), right
    n, share = len(right), float(right.double().mean()) if len(right) else 0.0
    bins = reliability(confidences.double().numpy().clip(0, 1), correct.numpy()) if n else ()
    return {
        "cv_images": n,
        "cv_accuracy": round(share, 4),
        "cv_accuracy_interval": [round(bound, 4) for bound in _wilson(share, n)],
        "cv_ece": round(expected_calibration_error(confidences.double().numpy().clip(0, 1), correct.numpy()), 4)
        if n
        else None,
        "reliability": [
            {"confidence": round(each.confidence, 4), "accuracy": round(each.accuracy, 4), "count": each.count}
            for each in bins
        ],
    }


def _wilson(share: float, n: int) -> tuple[float, float]:
    """The 90 % interval of a share of n (Wilson 1927)."""
    if not n:
        return 0.0, 1.0
    z2 = _NINETY**2 / n
    middle, reach = (share + z2 / 2) / (1 + z2), _NINETY * (share * (1 - share) / n + z2 / (4 * n)) ** 0.5 / (1 + z2)
    return max(0.0, middle - reach), min(1.0, middle + reach)
