"""Closed-form heads: vectors (n, d) and what is known of them in, scores for other vectors out, in a second.

A ridge regression onto the classes, whose penalty is chosen by the exact leave-one-out error; the scores of the
training rows by heads that have not seen their fold. A temperature makes probabilities of scores. Everything is
computed in float64, without chance, and knows nothing of images or of where the vectors come from.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from engine.errors import InputError

#: Penalties that are tried by default, in mean eigenvalues of the scatter of x: 1 weighs the penalty like the data.
FACTORS: Final = tuple(10.0 ** (exponent / 2) for exponent in range(-8, 7))

#: The choice needs eigenvalues, at 9 m^3 operations for the m = min(n, d): with more than this of both, it is made on
#: so many rows, drawn evenly. The best penalty hardly depends on their number: it is noise over signal.
CHOICE_ROWS: Final = 1_000

#: A product of a matrix with itself is made in blocks of so many rows, each pair of them once.
_BLOCK: Final = 1_000

#: A row on which the fit rests alone: what the others would say of it is not known.
_ALONE: Final = 1e-12

#: Temperatures that `fit_temperature` may find, and the standard deviation of its prior, normal in log T around T = 1:
#: a factor of 7 off costs as much log loss, in all, as half a sample that is guessed with probability 1 / e.
_LEAST_TEMPERATURE: Final = 0.01
_MOST_TEMPERATURE: Final = 100.0
_PRIOR_DEVIATION: Final = 2.0
#: Errors that are supposed beside n samples: their rate alone keeps temperatures above 0 where all are right. Of
#: 0, 1/4, 1/2 and 1 it left the least log loss on samples that nobody labeled (mean of digits 50, signs 100 and cifar10
#: 250 labels, seven runs: 0.565, 0.522, 0.526, 0.537; calibration error 0.034, 0.026, 0.032, 0.042).
UNSEEN_ERRORS: Final = 0.25
_GRID: Final = 33  # temperatures compared first: neighbours are a factor of 4/3 apart
_GOLDEN: Final = (math.sqrt(5.0) - 1.0) / 2.0


@dataclass(frozen=True, slots=True)
class RidgeHead:
    """scores = (x - mean) weights + intercept.

    mean: (d,), weights: (d, k), intercept: (k,), float32. penalty: the one that was chosen. errors: the mean squared
    leave-one-out error of each penalty tried, of all classes together, rows weighted as in the fit.
    """

    mean: Tensor
    weights: Tensor
    intercept: Tensor
    penalty: float
    errors: dict[float, float]

    def scores(self, x: Tensor) -> Tensor:
        """(m, d) -> (m, k) float32, around 1 for the class of a row and 0 for others. Raises InputError."""
        if x.ndim != 2 or x.shape[1] != len(self.mean):
            raise InputError(f"x: must be (m, {len(self.mean)}), got shape {tuple(x.shape)}")
        return (x.float() - self.mean) @ self.weights + self.intercept


def fit_ridge(
    x: Tensor, targets: Tensor, *, penalties: Sequence[float] | None = None, balanced: bool = False
) -> RidgeHead:
    """The head that minimises sum_i w_i |target_i - intercept - (x_i - mean) weights|^2 + penalty |weights|^2.

    x: (n, d) finite, floating. targets: (n, k) finite: one-hot, several ones, or shares of belief. penalties: those to
    choose from, above 0; FACTORS times the mean eigenvalue of the scatter of x by default. balanced: each class weighs
    the same in total (w_i of mean 1) instead of each row; rows without any class weigh 1.

    Solved with d or n unknowns, whichever are fewer. n = 5,000, d = 4,000, k = 300 takes 2.6 s on 2 cores.
    Raises InputError when a shape, type or value is out of its range.
    Source: Hoerl and Kennard 1970; Allen 1974 (PRESS), Golub, Heath and Wahba 1979 for the hat matrix.
    """
    _check_rows("x", x)
    _check_rows("targets", targets)
    if len(targets) != len(x):
        raise InputError(f"targets: must be (n, k) with n = {len(x)} as x, got shape {tuple(targets.shape)}")
    if penalties is not None and not (penalties and all(0.0 < penalty < math.inf for penalty in penalties)):
        raise InputError(f"penalties: must be numbers above 0, at least one, got {list(penalties)!r}")
    data = _Centred.of(x, targets, balanced=balanced)
    errors = _errors(data if min(data.x.shape) <= CHOICE_ROWS else data.evenly(CHOICE_ROWS), penalties)
    penalty = min(sorted(errors, reverse=True), key=lambda each: errors[each])  # the strongest of equals
    return _solved(data, penalty, errors)


def left_out_scores(x: Tensor, targets: Tensor, fold: Tensor, *, penalty: float, balanced: bool = False) -> Tensor:
    """(n, k) float32: the scores of each row by a head with this penalty that was fitted without its fold; zeros where
    there are no others. x, targets, balanced: as for `fit_ridge`. fold: (n,) int64.

    Folds, with classes spread over them, and not one row at a time: without it the others of its class weigh less than
    any other class, and a head says least of just the class that it should. (cifar10, four images of each of ten
    classes: 8 % guessed rightly so, 26 % in five folds, 31 % of other images; log loss of these, with the temperature
    that each gives, 2.19, 1.99, and 1.95 at best.)
    """
    scores = torch.zeros(targets.shape, dtype=torch.float32, device=targets.device)
    for part in sorted(set(fold.tolist())):
        held = fold == part
        if not bool(held.all()):
            others = _Centred.of(x[~held], targets[~held], balanced=balanced)
            scores[held] = _solved(others, penalty, {}).scores(x[held])
    return scores


def probabilities(scores: Tensor, temperature: float = 1.0) -> Tensor:
    """Scores (n, k) -> softmax of scores / temperature, (n, k) float32, rows that sum to 1. temperature: above 0."""
    if scores.ndim != 2 or not temperature > 0.0:
        got = f"{tuple(scores.shape)} and {temperature!r}"
        raise InputError(f"scores and temperature: must be (n, k) and above 0, got {got}")
    return (scores.double() / temperature).softmax(dim=1).float()


def unseen_share(samples: int) -> float:
    """The part of each sample that is supposed to be of another class than it is."""
    return UNSEEN_ERRORS / (samples + 1)


def fit_temperature(scores: Tensor, truth: Tensor) -> float:
    """The temperature in [0.01, 100] under which softmax(scores / temperature) has the least log loss on the truth.

    scores: (n, k) finite, of rows that the scorer has not seen (`left_out_scores`). truth: (n,) int64 in [0, k). The
    logarithm of the temperature has a normal prior of mean 0 and standard deviation 2: with no samples the result is 1,
    with few that are all right it does not run to 0, nor because a quarter of an error more is supposed (as by the
    targets of Platt 1999). The search: the best of a grid, then golden section around it.
    Raises InputError for other shapes or values.
    """
    if scores.ndim != 2 or truth.shape != scores.shape[:1] or truth.dtype != torch.int64:
        got = f"{tuple(scores.shape)} and {tuple(truth.shape)} {truth.dtype}"
        raise InputError(f"scores and truth: must be (n, k) and (n,) torch.int64, got {got}")
    if not bool(scores.isfinite().all()):
        raise InputError("scores: must be finite, got NaN or infinity")
    if len(truth) and not 0 <= int(truth.min()) <= int(truth.max()) < scores.shape[1]:
        raise InputError(f"truth: must be in [0, {scores.shape[1]}), got {int(truth.min())}..{int(truth.max())}")
    relative = scores.double() - scores.double().gather(1, truth[:, None]) if len(truth) else scores.double()

    elsewhere = unseen_share(len(truth)) / max(1, scores.shape[1] - 1) * float(relative.sum())

    def loss(log_temperature: float) -> float:
        temperature = math.exp(log_temperature)
        fits = float((relative / temperature).logsumexp(dim=1).sum()) - elsewhere / temperature
        return fits + (log_temperature / _PRIOR_DEVIATION) ** 2 / 2.0

    least, most = math.log(_LEAST_TEMPERATURE), math.log(_MOST_TEMPERATURE)
    step = (most - least) / (_GRID - 1)
    best = min((least + i * step for i in range(_GRID)), key=loss)
    low, high = max(least, best - step), min(most, best + step)
    while high - low > 1e-4:
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        low, high = (low, right) if loss(left) <= loss(right) else (left, high)
    return math.exp((low + high) / 2.0)


# ---- The mathematics; everything float64 and checked from here on. ----


@dataclass(frozen=True, slots=True)
class _Centred:
    """The problem without its intercept: rows less their weighted mean, times the root of their weight.

    x: (n, d), y: (n, k), root: (n,) of the weights. x_mean, y_mean: what was taken off.
    """

    x: Tensor
    y: Tensor
    root: Tensor
    x_mean: Tensor
    y_mean: Tensor

    @classmethod
    def of(cls, x: Tensor, targets: Tensor, *, balanced: bool) -> _Centred:
        y = targets.detach().double()
        weights = _class_weights(y) if balanced else torch.ones(len(y), dtype=torch.float64, device=y.device)
        return cls.weighted(x.detach().double(), y, weights)

    @classmethod
    def weighted(cls, x: Tensor, y: Tensor, weights: Tensor) -> _Centred:
        shares, root = weights / weights.sum(), weights.sqrt()
        x_mean, y_mean = shares @ x, shares @ y
        return cls((x - x_mean) * root[:, None], (y - y_mean) * root[:, None], root, x_mean, y_mean)

    def evenly(self, rows: int) -> _Centred:
        """The problem of so many rows, drawn evenly."""
        chosen = torch.linspace(0, len(self.x) - 1, rows, dtype=torch.float64, device=self.x.device).round().long()
        root = self.root[chosen]
        x, y = self.x[chosen] / root[:, None] + self.x_mean, self.y[chosen] / root[:, None] + self.y_mean
        return _Centred.weighted(x, y, root.square())

    @property
    def intercept_leverage(self) -> Tensor:
        """(n,) what each row has of its own fit through the intercept alone."""
        weights = self.root.square()
        return weights / weights.sum()

    def residuals(self, fitted: Tensor, leverage: Tensor) -> Tensor:
        """(n, k) leave-one-out residuals, times the root of the weights. leverage: (n,), without the intercept's."""
        own = 1.0 - self.intercept_leverage - leverage
        left = (self.y - fitted) / own.clamp(min=_ALONE)[:, None]
        nothing = -(self.y_mean * self.root[:, None]) - self.y  # a score of 0
        return torch.where(own[:, None] > _ALONE, left, -nothing)


def _errors(data: _Centred, penalties: Sequence[float] | None) -> dict[float, float]:
    """The mean squared leave-one-out error of each penalty, from one decomposition."""
    n, d = data.x.shape
    primal = d <= n
    scatter = _products(data.x.T if primal else data.x)
    scale = float(scatter.diagonal().mean())
    values, vectors = torch.linalg.eigh(scatter)
    values = values.clamp(min=0.0)
    # Rows of the basis: x V, whose squares over s + penalty are leverages; in the dual form that is U sqrt(s).
    basis = data.x @ vectors if primal else vectors * values.sqrt()
    of_y, squares = basis.T @ data.y, basis.square()
    total = float(data.root.square().sum()) * data.y.shape[1]
    found = {}
    for penalty in penalties or [factor * (scale if scale > 0.0 else 1.0) for factor in FACTORS]:
        shrunk = 1.0 / (values + penalty)
        residuals = data.residuals(basis @ (shrunk[:, None] * of_y), squares @ shrunk)
        found[float(penalty)] = float(residuals.square().sum()) / total
    return found


def _solved(data: _Centred, penalty: float, errors: dict[float, float]) -> RidgeHead:
    """The head of one penalty, by Cholesky."""
    n, d = data.x.shape
    primal = d <= n
    scatter = _products(data.x.T if primal else data.x)
    scatter.diagonal().add_(penalty)
    factor = torch.linalg.cholesky(scatter)
    if primal:
        weights = torch.cholesky_solve(data.x.T @ data.y, factor)
    else:
        weights = data.x.T @ torch.cholesky_solve(data.y, factor)
    return RidgeHead(data.x_mean.float(), weights.float(), data.y_mean.float(), float(penalty), errors)


def _products(rows: Tensor) -> Tensor:
    """(m, l) -> (m, m): rows @ rows.T, at little more than half the work where m is large."""
    m = len(rows)
    if m <= _BLOCK:
        return rows @ rows.T
    result = rows.new_empty(m, m)
    for start in range(0, m, _BLOCK):
        some = slice(start, start + _BLOCK)
        result[some, start:] = rows[some] @ rows[start:].T
        result[start:, some] = result[some, start:].T
    return result


def _class_weights(y: Tensor) -> Tensor:
    """(n,) of mean 1, under which every class that has rows weighs the same in total."""
    mass = y.clamp(min=0.0)
    totals = mass.sum(dim=0)
    present = totals > 0.0
    weights = mass @ torch.where(present, 1.0 / totals.clamp(min=1e-300), 0.0)
    known = weights > 0.0
    if not bool(known.any()):
        return torch.ones_like(weights)
    return torch.where(known, weights / weights[known].mean(), 1.0)


def _check_rows(what: str, rows: Tensor) -> None:
    if rows.ndim != 2 or not rows.shape[0] or not rows.shape[1]:
        raise InputError(f"{what}: must have two dimensions, both at least 1, got shape {tuple(rows.shape)}")
    if what == "x" and not rows.is_floating_point():
        raise InputError(f"{what}: must be of a floating type, got {rows.dtype}")
    if not bool(rows.isfinite().all()):
        raise InputError(f"{what}: must be finite, got NaN or infinity")
