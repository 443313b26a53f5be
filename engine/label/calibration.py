"""From out-of-fold opinions to calibrated probabilities: temperatures, and how much each opinion weighs.

In: logits (n, k) of samples that the scorer has not seen, and what people said about them (n, k). Out: a temperature,
or the share of one opinion in a mixture of two. Knows nothing of images or networks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from engine.label.classifier import probabilities_of
from engine.label.heads import fit_temperature, unseen_share

#: Shares that are tried for a mixture, and their prior: with 50 labeled digits, all of them guessed rightly unseen,
#: the least log loss chose 1.0 where 0.6 labels 1.5 % more of the others rightly (by the runs of heads.UNSEEN_ERRORS).
SHARES: Final = tuple(step / 10 for step in range(11))
_SHARE: Final = 0.6
_SHARE_DEVIATION: Final = 0.25


def temperature_of(logits: Tensor, truth: Tensor, *, multi_label: bool) -> float:
    """The temperature with the least log loss. logits: (n, k); truth: (n, k) bool.

    With several labels a sample each pair of sample and label is a question of its own, yes or no.
    Source: Guo et al. 2017 (temperature scaling).
    """
    if not multi_label:
        return fit_temperature(logits, truth.float().argmax(dim=1))
    flat = logits.reshape(-1, 1)
    return fit_temperature(torch.cat([torch.zeros_like(flat), flat], dim=1), truth.reshape(-1).long())


def mean_log_loss(probabilities: Tensor, truth: Tensor, *, multi_label: bool) -> float:
    """Per sample: -log p(truth), or with several labels the sum of the log losses of all yes-or-no questions."""
    return float(log_losses(probabilities, truth, multi_label=multi_label).mean()) if len(truth) else 0.0


def log_losses(probabilities: Tensor, truth: Tensor, *, multi_label: bool) -> Tensor:
    """(n,) float64, finite: probabilities are kept 1e-6 away from 0 and 1."""
    p = probabilities.double().clamp(1e-6, 1 - 1e-6)
    said = truth.double()
    per_label = said * p.log()
    if multi_label:
        per_label = per_label + (1 - said) * (1 - p).log()
    return -per_label.sum(dim=1)


#: One mean of losses is clearly lower when it is so by so many standard errors of their difference (one-sided 95 %).
CLEARLY: Final = 1.645


def above(losses: Tensor, others: Tensor) -> tuple[float, float]:
    """How far losses (n,) lie above others of the same samples on the mean, and the standard error of that; infinity
    where fewer than two samples tell."""
    if not len(losses):
        return 0.0, math.inf
    differences = losses - others
    error = float(differences.std() / len(differences) ** 0.5) if len(differences) > 1 else math.inf
    return float(differences.mean()), error


@dataclass(frozen=True, slots=True)
class Mixture:
    """share: of the first opinion. temperature: of the mixture. losses: of each share tried, the log loss of samples
    and of the prior."""

    share: float
    temperature: float
    losses: dict[float, float]


def mix(
    first: Tensor, second: Tensor, truth: Tensor, *, multi_label: bool, shares: Sequence[float] = SHARES
) -> Mixture:
    """How much the first of two opinions, logits (n, k), weighs in the mixture with the least log loss, and the
    temperature of that mixture: two witnesses that agree are surer than each alone.

    The share has a normal prior: where few samples tell, both count. Of shares that do as well the largest counts.
    """
    losses, temperatures = {}, {}
    for share in shares:
        logits = share * first + (1 - share) * second
        temperatures[share] = temperature_of(logits, truth, multi_label=multi_label)
        said = probabilities_of(logits, temperatures[share], multi_label)
        losses[share] = _softened_loss(said, truth, multi_label) + ((share - _SHARE) / _SHARE_DEVIATION) ** 2 / 2
    best = min(sorted(losses, reverse=True), key=lambda share: round(losses[share], 6))
    return Mixture(best, temperatures[best], losses)


def _softened_loss(probabilities: Tensor, truth: Tensor, multi_label: bool) -> float:
    """The log loss of all samples, where the errors that are supposed beside them count (`heads.UNSEEN_ERRORS`)."""
    p, said = probabilities.double().clamp(1e-9, 1 - 1e-9), truth.double()
    if multi_label:
        share = unseen_share(said.numel())
        said = said * (1 - share) + (1 - said) * share
        return float(-(said * p.log() + (1 - said) * (1 - p).log()).sum())
    share = unseen_share(len(said))
    said = said * (1 - share) + (1 - said) * share / max(1, said.shape[1] - 1)
    return float(-(said * p.log()).sum())


def folds_of(matrix: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """(n, k) bool -> (n,) int64 in [0, count): every class spread evenly over the folds, rows of no class -1.

    A sample of several labels is dealt with its rarest one.
    """
    totals = matrix.sum(dim=0)
    rarity = torch.where(matrix, totals, totals.max() + 1 if len(totals) else 1)
    deal = rarity.argmin(dim=1)
    order = torch.randperm(len(matrix), generator=generator)
    order = order[deal[order].argsort(stable=True)]  # class after class, so that folds differ by one sample at most
    known = matrix.any(dim=1)
    order = order[known[order]]
    result = torch.full((len(matrix),), -1, dtype=torch.int64)
    result[order] = torch.arange(len(order)) % count
    return result
