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
from engine.label.calibration import Mixture, folds_of, mean_log_loss, mix, temperature_of
from engine.label.classifier import Classifier, Committee, LinearHead, probabilities_of, resized
from engine.label.crossfit import CrossFit, Member, gathered
from engine.label.heads import RidgeHead, fit_ridge, left_out_scores
from engine.label.plan import Plan
from engine.label.pool import Pool
from engine.label.training import generator_of

#: 90 % of a normal distribution lie within so many standard deviations.
_NINETY: Final = 1.645


@dataclass(frozen=True, slots=True)
class HeadFit:
    """A head, and its scores, less one half, of each labeled image (n, k) without the images of its part: out of fold.
    log_loss: of these, with its temperature. name: of what it sees, and of what it was taught by if not by labels."""

    head: LinearHead
    logits: Tensor
    log_loss: float
    name: str


def fit_head(pool: Pool, encoder: Encoder, fold: Tensor) -> HeadFit:
    """Ridge regression on the encoder's vectors of the labeled images, each class weighing the same. fold: (n,) int64,
    the part of each."""
    vectors = pool.mapped(lambda images: encoder.encode(resized(images, encoder.size)), pool.labeled)
    truth = pool.told[pool.labeled]
    balanced = not pool.multi_label
    ridge = fit_ridge(vectors, truth, balanced=balanced)
    unseen = left_out_scores(vectors, truth, fold, penalty=ridge.penalty, balanced=balanced)
    return _head_fit(pool, encoder, ridge, unseen, encoder.name)


#: Images that teach a head what is believed of them, at most; drawn evenly.
_TAUGHT: Final = 20_000


def taught_head(
    pool: Pool, encoder: Encoder, vectors: Tensor, beliefs: Tensor, without: Sequence[Tensor], fold: Tensor
) -> HeadFit:
    """Ridge regression of what is believed of all m images, (m, k), on their vectors (m, d), which the encoder gives.
    without: for each part of the labels, the same made without it.

    What labels say of images by way of their neighbours, in a form that can be asked about any image. (cifar10, mean of
    four draws: with 40 and 250 labels 37.7 and 56.6 % by a head of the labels, 46.4 and 59.3 by one that the graph has
    taught, log loss 1.89 and 1.31, 1.53 and 1.25; with 1,000 labels the first has less.)
    """
    rows = torch.linspace(0, len(vectors) - 1, min(len(vectors), _TAUGHT), dtype=torch.float64).round().long()
    some, unseen = vectors[rows], torch.zeros(len(fold), len(pool.labels))
    for part, believed in enumerate(without):
        held = fold == part
        unseen[held] = fit_ridge(some, believed[rows]).scores(vectors[pool.labeled[held]])
    ridge = fit_ridge(some, beliefs[rows])
    return _head_fit(pool, encoder, ridge, unseen, f"{encoder.name}, taught by the graph")


def _head_fit(pool: Pool, encoder: Encoder, ridge: RidgeHead, unseen: Tensor, name: str) -> HeadFit:
    """unseen: (n, k), scores of the labeled images by heads that have not seen their part."""
    logits, truth = unseen - 0.5, pool.told[pool.labeled] > 0
    temperature = temperature_of(logits, truth, multi_label=pool.multi_label)
    said = probabilities_of(logits, temperature, pool.multi_label)
    loss = mean_log_loss(said, truth, multi_label=pool.multi_label)
    return HeadFit(LinearHead(encoder, ridge.mean, ridge.weights, ridge.intercept, temperature), logits, loss, name)


def best_head(*heads: HeadFit) -> HeadFit:
    """The one with the least log loss out of fold."""
    return min(heads, key=lambda fit: fit.log_loss)


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


#: Parts of the labels for what is reported.
_REPORTED_FOLDS: Final = 5
#: A network that was stopped counts from this share of its steps on.
USABLE_FROM: Final = 0.3


def verdict_of(pool: Pool, plan: Plan, head: HeadFit, members: Sequence[Member]) -> Verdict:
    """The verdict of all members together. Raises Unfinished, with that of the usable ones, when some are missing."""
    usable = [member for member in members if member.trained >= USABLE_FROM]
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
    of_head = head.logits / head.head.temperature
    weighing = _weighed(crew.logits[seen], of_head[seen], truth[seen], multi_label)
    temperature, mixture = weighing.temperature, weighing.mixture
    by_head = probabilities_of(of_head, 1.0, multi_label)
    together = weighing.together(crew.logits, of_head)
    reported, by_crew = _unseen(crew.logits[seen], of_head[seen], truth[seen], multi_label, plan.seed)
    committee = Committee(crew.networks, temperature * mixture.temperature, plan.flips, plan.bfloat16)
    linear = replace(head.head, temperature=head.head.temperature * mixture.temperature)
    classifier = Classifier(pool.labels, multi_label, pool.side, committee, linear, mixture.share)
    found = {
        **plan.found,
        "share_of_networks": mixture.share,
        "temperature_of_networks": round(committee.temperature, 4),
        "temperature_of_head": round(linear.temperature, 4),
        "cv_log_loss": {
            "networks": round(mean_log_loss(by_crew, truth[seen], multi_label=multi_label), 4),
            "head": round(mean_log_loss(by_head[seen], truth[seen], multi_label=multi_label), 4),
            "together": round(mean_log_loss(reported, truth[seen], multi_label=multi_label), 4),
        },
        **held_out_scores(reported, truth[seen], multi_label=multi_label),
    }
    return Verdict(classifier, torch.where(seen[:, None], together, torch.nan), crew.judge, found)


@dataclass(frozen=True, slots=True)
class _Weighing:
    """How the committee and the head are mixed. temperature: of the committee's logits, before."""

    temperature: float
    mixture: Mixture
    multi_label: bool

    def together(self, of_crew: Tensor, of_head: Tensor) -> Tensor:
        """Logits of the committee and of the head, with its temperature, (r, k) each -> probabilities (r, k)."""
        share = self.mixture.share
        mixed = share * of_crew / self.temperature + (1 - share) * of_head
        return probabilities_of(mixed, self.mixture.temperature, self.multi_label)


def _weighed(of_crew: Tensor, of_head: Tensor, truth: Tensor, multi_label: bool) -> _Weighing:
    temperature = temperature_of(of_crew, truth, multi_label=multi_label)
    return _Weighing(temperature, mix(of_crew / temperature, of_head, truth, multi_label=multi_label), multi_label)


def _unseen(of_crew: Tensor, of_head: Tensor, truth: Tensor, multi_label: bool, seed: int) -> tuple[Tensor, Tensor]:
    """(h, k) each: as `_Weighing.together`, and the committee by itself, but what weighs opinions on a label has not
    seen it: what is reported of the probabilities is not made of the numbers that were chosen for them."""
    folds = folds_of(truth, min(_REPORTED_FOLDS, len(truth)), generator_of(seed, "reported"))
    together, alone = torch.zeros(truth.shape), torch.zeros(truth.shape)
    for fold in range(_REPORTED_FOLDS):
        others, mine = folds != fold, folds == fold
        if bool(others.any()):
            weighing = _weighed(of_crew[others], of_head[others], truth[others], multi_label)
            together[mine] = weighing.together(of_crew[mine], of_head[mine]).float()
            alone[mine] = probabilities_of(of_crew[mine] / weighing.temperature, 1.0, multi_label).float()
    return together, alone


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
