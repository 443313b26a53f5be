"""From the scores of many reasons to one coefficient of difficulty, and what it means.

In: scores of n samples, and for some of them whether the label was wrong (labeled samples, predicted out of fold).
Out: coefficients in [0, 1], 1 = hardest, and what each reason has contributed.

Scores are first held against those of the labeled samples: 0 is typical, 1 is what one in a hundred of them reaches
(`Scale`). Then `weights`, the documented weights, a weighted mean over the miners that could run; or `calibrated`, a
logistic regression whose coefficient is the probability that the label is wrong. It begins at three doubts: that of the
confidence, which is calibrated itself, that of the samples around as networks see them, and that of those alike as
pixels show them, which nobody has taught what to see. It rises with every miner and falls with none, and is drawn
towards the documented weights, so that with few errors to learn from it trusts them, and with many the errors. How many
are wrong is said by the errors out of fold, and where they are few by the confidences too: miners say which ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from scipy.optimize import minimize
from torch import Tensor

from engine.hard.distribution import deviations
from engine.hard.mining import LEAST_REFERENCE, Scores
from engine.hard.reasons import OPERATOR_WEIGHTS, OPERATORS, REASONS, WEIGHTS
from engine.label.heads import UNSEEN_ERRORS

_Floats = npt.NDArray[np.float64]

#: What one labeled sample in a hundred reaches is far; their median is typical.
_TYPICAL: Final = 0.5
_FAR: Final = 0.99
#: What is far where fewer than LEAST_REFERENCE samples tell: by the meaning of the scores. As likely wrong as right;
#: nearer to other labels than to its own; a third of the bit that tells two answers apart; one in a hundred of a
#: distribution; twice as far from training images as those from each other.
_FAR_BY_MEANING: Final = {
    "predict_score_mining": 0.5,
    "clustering_mining": 0.7,
    "image_similarity_mining": 0.5,
    "sequential_mining": 0.3,
    "aug_consistent_mining": 0.3,
    "feature_distribution_mining": 0.99,
    "anomaly_detection_mining": 0.67,
}
#: The least that is far, whatever the training samples say. What people labeled agrees with what people labeled beside
#: it to the last digit, as no predictions do; and features that are all the same make the smallest difference the
#: largest.
_LEAST_FAR: Final = {"sequential_mining": 0.3, "feature_distribution_mining": 0.3}
#: Where few samples tell, no confidence below that is typical: all of them may be bad.
_MOST_TYPICAL: Final = {"predict_score_mining": 0.25}
#: Scaled scores end here: farther is not more wrong.
_MOST: Final = 3.0
#: Beyond that no reason is stronger than another.
_FARTHEST: Final = 100.0
#: The prior of `calibrated`: the weight of a sample's own doubt, that of both others together, and how much sooner the
#: one of these counts that told right from wrong better (by a log loss lower by 1 / _SOONER it counts e times as much);
#: the deviations of the intercept around the mean doubt, of the weights of doubts, and of a miner's weight around its
#: documented one; of the last, the log loss of parts left out decides which. Doubts are asked of the same labels: not
#: their sum, but little more than their mean is as good as a probability. (By benchmarks/hard_examples.py, whose header
#: has what this comes to; with the sum of the first two, the calibration error was 0.04 instead of 0.03.)
_OWN: Final = 0.4
_OTHERS: Final = 0.7
_SOONER: Final = 5.0
_INTERCEPT: Final = 1.0
_DOUBT: Final = 0.2
_WIDTHS: Final = (0.3, 1.0, 3.0)
_PARTS: Final = 5
#: Of the shift between own doubts and errors: its prior deviation, so many of its deviations that are chance, and
#: where it ends.
_SHIFT: Final = 3.0
_CHANCE: Final = 2.0
_FARTHEST_SHIFT: Final = 20.0
#: Errors that are needed to try each wider one: from none at all one would learn that no miner is worth anything.
_ERRORS_A_WIDTH: Final = 5
#: Doubts keep so far from 0 and 1: one below 1 in 200 says no more than that, for a hundred labels cannot tell.
_LEAST: Final = 5e-3
#: Where own doubts are added up they count as they are, but for what a model says that is never in doubt.
_LEAST_COUNTED: Final = 1e-4


@dataclass(frozen=True, slots=True)
class Scale:
    """For each reason: its typical score, and the one that is far."""

    typical: Mapping[int, float]
    far: Mapping[int, float]

    def of(self, number: int, score: Tensor, most: float = _MOST) -> Tensor:
        """0 up to the typical one, 1 at the far one, and so on up to `most`. NaN stays."""
        typical, far, score = (_unbent(number, each) for each in (self.typical[number], self.far[number], score))
        return ((score - typical) / (far - typical).clamp(min=1e-6)).clamp(0, most)

    def with_others(self, other: Scale) -> Scale:
        """The same, but for the reasons of the other one that one."""
        return Scale({**self.typical, **other.typical}, {**self.far, **other.far})


def _unbent(number: int, score: Tensor | float) -> Tensor:
    """Scores that are shares of a distribution crowd below 1; how far out they lie does not."""
    values = torch.as_tensor(score)
    return deviations(values) if REASONS[number].miner == "feature_distribution_mining" else values


def scale_of(scores: Scores, reference: Tensor, *, far: float = _FAR) -> Scale:
    """reference: (n,) bool, samples that tell what is usual. far: the share of them below the far mark, which of few
    lies between their largest two scores. Where fewer than 10 of them have one, the median of all is typical, and its
    meaning says what is far; where most are beyond that, what one in a hundred of all reaches is."""
    typical, marks = {}, {}
    for number, score in scores.items():
        known = score[reference & ~score.isnan()]
        enough = len(known) >= LEAST_REFERENCE
        known = (known if enough else score[~score.isnan()]).double()
        known = known if len(known) else torch.zeros(1, dtype=torch.float64)
        typical[number], marks[number] = (float(known.quantile(part)) for part in (_TYPICAL, far))
        miner = REASONS[number].miner
        if not enough:
            typical[number] = min(typical[number], _MOST_TYPICAL.get(miner, math.inf))
        if not enough and typical[number] < _FAR_BY_MEANING[miner]:
            marks[number] = _FAR_BY_MEANING[miner]
        else:
            marks[number] = max(marks[number], _LEAST_FAR.get(miner, 0.0))
    return Scale(typical, marks)


def by_miner(
    scores: Scores, scale: Scale, *, operator_weights: Mapping[str, float] = OPERATOR_WEIGHTS
) -> dict[str, Tensor]:
    """Scaled scores of each miner, (n,) in [0, 3]: that of its strongest reason; of alterations, the mean weighted by
    operator. NaN where none of its reasons has a score."""
    found: dict[str, Tensor] = {}
    for miner in WEIGHTS:
        numbers = [number for number in scores if REASONS[number].miner == miner]
        if not numbers:
            continue
        stacked = torch.stack([scale.of(number, scores[number]) for number in numbers])
        if miner == "aug_consistent_mining":
            names = {number: name for name, number in OPERATORS.items()}
            weights = torch.tensor([operator_weights.get(names[number], 0.0) for number in numbers])[:, None]
            there = (~stacked.isnan()).float() * weights
            mean = (stacked.nan_to_num(0.0) * there).sum(dim=0) / there.sum(dim=0).clamp(min=1e-12)
            found[miner] = torch.where(there.sum(dim=0) > 0, mean, torch.nan)
        else:
            strongest = stacked.nan_to_num(-1.0).amax(dim=0)
            found[miner] = torch.where(strongest >= 0, strongest, torch.nan)
    return found


def weighted(miners: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """The documented way: the mean of what the miners say, each from 0 to 3, over those that could run, (n,).

    0 where none could.
    """
    names = [name for name in miners if weights.get(name, 0.0) > 0]
    if not names:
        return torch.zeros(len(next(iter(miners.values()))) if miners else 0)
    stacked = torch.stack([miners[name] for name in names])
    shares = (~stacked.isnan()).float() * torch.tensor([weights[name] for name in names])[:, None]
    total: Tensor = (stacked.nan_to_num(0.0) * shares).sum(dim=0) / shares.sum(dim=0).clamp(min=1e-12)
    return total


#: The documented threshold of `weights`, and what so many training samples stay below.
USUAL: Final = 0.1
_USUAL_SHARE: Final = 0.9


def usual_mean(reference: Tensor) -> float:
    """(r,) weighted means of samples that tell what is usual -> the mean that is a coefficient of USUAL: what one in
    ten of them reaches; USUAL itself at least, and where fewer than 10 tell."""
    if len(reference) < LEAST_REFERENCE:
        return USUAL
    return min(_MOST - USUAL, max(USUAL, float(reference.double().quantile(_USUAL_SHARE))))


def usual_means(first: Tensor, second: Tensor) -> tuple[float, float]:
    """The same of two means of the same r samples, of whose coefficients the larger one counts: one in ten of the
    samples reaches either."""
    usual = usual_mean(first), usual_mean(second)
    if len(first) < LEAST_REFERENCE:
        return usual
    larger = torch.maximum(first / usual[0], second / usual[1]).double()
    beyond = max(1.0, float(larger.quantile(_USUAL_SHARE)))
    return min(_MOST - USUAL, beyond * usual[0]), min(_MOST - USUAL, beyond * usual[1])


def levelled(means: Tensor, usual: float) -> Tensor:
    """(n,) weighted means in [0, 3] -> coefficients in [0, 1] in the same order: USUAL where the mean is `usual`, 1 -
    USUAL where it is 1, as all miners find a sample far; evenly between."""
    marks = [(0.0, 0.0), (usual, USUAL), (1.0, 1 - USUAL), (_MOST, 1.0)]
    means_at, coefficients = zip(*[mark for mark in marks if mark[0] != 1.0 or usual < 1], strict=True)
    return torch.from_numpy(np.interp(means.numpy(), means_at, coefficients)).float()


# ---- The probability that a label is wrong. ----


@dataclass(frozen=True, slots=True)
class Calibrated:
    """logit P(wrong) = intercept + confidence logit(doubt) + around logit(doubt of those around) + alike logit(doubt of
    those alike) + sum of weights of miners times their scaled scores, all of these counted from their means.

    means: of the logits of the doubts, and of the scaled scores of each miner, among the samples that it was learned
    from; they stand for what is not known, of doubts where none of them is. width: of the prior that was chosen.
    covariance: of all numbers together, in the order intercept, confidence, around, alike, miners (Laplace). errors: of
    how many samples that it was learned from. understated: by how much, in log odds, own doubts say too few of these
    errors, beyond what may be chance.
    """

    intercept: float
    confidence: float
    around: float
    alike: float
    weights: Mapping[str, float]
    means: Mapping[str, float]
    width: float
    covariance: _Floats
    errors: int
    samples: int
    understated: float = 0.0

    @property
    def parameters(self) -> _Floats:
        return np.array([self.intercept, self.confidence, self.around, self.alike, *self.weights.values()])

    def weights_of(self, known: Tensor) -> list[float]:
        """Of the three doubts, each with the weight of those for which it stands. known: (3,) bool."""
        found = [0.0, 0.0, 0.0]
        for weight, order in zip((self.confidence, self.around, self.alike), _INSTEAD, strict=True):
            found[next((place for place in order if bool(known[place])), order[0])] += weight
        return found

    def probabilities(self, doubts: Tensor, miners: Mapping[str, Tensor]) -> Tensor:
        """doubts: (n, 3), 1 - confidence, and those of samples around and alike; NaN for unknown. -> (n,) float32 in
        (0, 1)."""
        return torch.from_numpy(_expit(self.design(doubts, miners) @ self.parameters)).float()

    def design(self, doubts: Tensor, miners: Mapping[str, Tensor]) -> _Floats:
        """(n, 4 + m): what the numbers are multiplied with."""
        return _design(doubts, miners, list(self.weights), self.means)

    def at_level(self, doubts: Tensor, miners: Mapping[str, Tensor]) -> Calibrated:
        """The same, for samples that nobody labeled, whose own doubts say how many are wrong: between the intercept
        that the judged samples tell and the one with which as many are, each as far as it is sure; and less what both
        overstate."""
        own = doubts[:, 0]
        known = ~own.isnan()
        if not bool(known.any()):
            return self
        known_miners = {name: score[known] for name, score in miners.items()}
        corrected = (_logit(own[known], _LEAST_COUNTED) + self.understated).sigmoid()
        expected = self.adding_up(doubts[known], known_miners, float(corrected.mean()))
        mine, theirs = 1 / float(self.covariance[0, 0]), 1 / _level_deviation(self.samples) ** 2
        intercept = (mine * self.intercept + theirs * expected.intercept) / (mine + theirs)
        overstated = _OVERSTATED * _level_deviation(self.samples) * _OWN_ERRORS / (_OWN_ERRORS + self.errors)
        return replace(self, intercept=intercept - overstated)

    def adding_up(self, doubts: Tensor, miners: Mapping[str, Tensor], mean: float) -> Calibrated:
        """The same with the intercept with which its probabilities of these samples have this mean."""
        x = self.design(doubts, miners)
        rest = x[:, 1:] @ self.parameters[1:]
        low, high = -60.0, 60.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if _expit(middle + rest).mean() < mean else (low, middle)
        return replace(self, intercept=(low + high) / 2)


def calibrate(
    doubts: Tensor, miners: Mapping[str, Tensor], wrong: Tensor, *, weight: Tensor | None = None
) -> Calibrated:
    """Learn from samples whose label is known to be right or wrong.

    doubts: (r, 3) of calibrated confidences, of the samples around, and of those alike; NaN for unknown. miners: scaled
    scores, each (r,). wrong: (r,) bool. weight: (r,), how much each counts. With r = 0 it is the prior: the doubts,
    corrected by miners in proportion to their documented weights.
    """
    names = [name for name in miners if name != "predict_score_mining"]
    means = {name: float(miners[name].nanmean().nan_to_num(0.0)) for name in names}
    odds = _log_odds(doubts)
    means |= {name: float(each.nanmean().nan_to_num(0.0)) for name, each in odds.items()}
    x, y = _design(doubts, miners, names, means), wrong.numpy().astype(np.float64)
    counts = np.ones(len(y)) if weight is None else weight.numpy().astype(np.float64)
    weights_of_doubts = _expected_weights(odds[_AROUND], odds[_ALIKE], wrong, torch.from_numpy(counts))
    prior = np.array([means[_OWN_DOUBT], *weights_of_doubts, *(WEIGHTS[name] for name in names)])
    widths = _WIDTHS[: 1 + int(y.sum()) // _ERRORS_A_WIDTH]
    width = min(widths, key=lambda each: _left_out_loss(x, y, counts, prior, each))
    best, covariance = _fitted(x, y, counts, prior, width)
    weights = dict(zip(names, best[4:].tolist(), strict=True))
    intercept, confidence, around, alike = (float(each) for each in best[:4])
    understated = _understated(doubts[:, 0], wrong, counts)
    errors = int(wrong.sum())
    return Calibrated(
        intercept, confidence, around, alike, weights, means, width, covariance, errors, len(wrong), understated
    )


def _expected_weights(around: Tensor, alike: Tensor, wrong: Tensor, counts: Tensor) -> tuple[float, ...]:
    """Of the three doubts. around, alike: (r,) log odds. wrong: (r,) bool, what is known; one number of all of it, so
    that parts left out may have told it too. counts: (r,)."""

    def log_loss(odds: Tensor) -> float:
        losses = F.softplus(torch.where(wrong, -odds, odds)).nan_to_num(0.0)
        return float((losses * counts).sum() / counts.sum().clamp(min=1e-12))

    share = 1 / (1 + math.exp(_SOONER * (log_loss(alike) - log_loss(around))))
    return _OWN, _OTHERS * (1 - share), _OTHERS * share


def _understated(own: Tensor, wrong: Tensor, counts: _Floats) -> float:
    """By how much log odds of own doubts lie below those of the errors: what is left of it beyond the chance of so few
    samples. A model from elsewhere may say 1 of whatever it says."""
    known = (~own.isnan()).numpy()
    x, y, weight = _logit(own, _LEAST_COUNTED).numpy()[known], wrong.numpy()[known].astype(np.float64), counts[known]
    low, high = -_FARTHEST_SHIFT, _FARTHEST_SHIFT
    for _ in range(60):
        shift = (low + high) / 2
        rises = weight @ (y - _expit(x + shift)) - shift / _SHIFT**2 > 0
        low, high = (shift, high) if rises else (low, shift)
    p = _expit(x + shift)
    deviation = 1 / math.sqrt(float(weight @ (p * (1 - p))) + 1 / _SHIFT**2)
    return math.copysign(max(0.0, abs(shift) - _CHANCE * deviation), shift)


def _left_out_loss(x: _Floats, y: _Floats, counts: _Floats, prior: _Floats, width: float) -> float:
    """The log loss of parts that a fit has not seen, wrong and right ones spread evenly over them."""
    part = np.empty(len(y), np.int64)
    part[np.argsort(y, kind="stable")] = np.arange(len(y)) % _PARTS
    total = 0.0
    for each in range(_PARTS):
        held = part == each
        parameters, _ = _fitted(x[~held], y[~held], counts[~held], prior, width)
        total += _log_loss(x[held] @ parameters, y[held], counts[held])
    return total


def _log_loss(logits: _Floats, y: _Floats, counts: _Floats) -> float:
    return float(counts @ (np.logaddexp(0, logits) - y * logits))


def _fitted(x: _Floats, y: _Floats, counts: _Floats, prior: _Floats, width: float) -> tuple[_Floats, _Floats]:
    """The most probable numbers, those of doubts and miners at 0 or above, and their covariance."""
    deviation = np.array([_INTERCEPT, *[_DOUBT] * 3, *[width] * (len(prior) - 4)])

    def loss(parameters: _Floats) -> tuple[float, _Floats]:
        away = (parameters - prior) / deviation
        gradient = x.T @ (counts * (_expit(x @ parameters) - y)) + away / deviation
        return _log_loss(x @ parameters, y, counts) + float(0.5 * away @ away), gradient

    bounds = [(None, None)] + [(0.0, None)] * (len(prior) - 1)
    best = np.asarray(minimize(loss, prior, jac=True, method="L-BFGS-B", bounds=bounds).x)
    p = _expit(x @ best)
    precision = (x * (counts * p * (1 - p))[:, None]).T @ x + np.diag(deviation**-2)
    return best, np.asarray(np.linalg.inv(precision), np.float64)


def _design(doubts: Tensor, miners: Mapping[str, Tensor], names: Sequence[str], means: Mapping[str, float]) -> _Floats:
    """(n, 4 + m): ones, the log odds of the doubts and what each miner says, all beyond their means."""
    columns = [torch.ones(len(doubts), dtype=torch.float64)]
    columns += [(odds - means[name]).nan_to_num(0.0) for name, odds in _log_odds(doubts).items()]
    columns += [(miners[name].double() - means[name]).nan_to_num(0.0) for name in names]
    found: _Floats = torch.stack(columns, dim=1).numpy()
    return found


_OWN_DOUBT: Final = "own doubt"
_AROUND: Final = "doubt around"
_ALIKE: Final = "doubt of those alike"
#: Which doubts stand for each of the three.
_INSTEAD: Final = ((0, 1, 2), (1, 0, 2), (2, 1, 0))


def _log_odds(doubts: Tensor) -> dict[str, Tensor]:
    """Of each doubt, (n,); for one that is unknown stands the first one that is known in the order of _INSTEAD."""
    odds = _logit(doubts, _LEAST)
    found = {}
    for name, order in zip((_OWN_DOUBT, _AROUND, _ALIKE), _INSTEAD, strict=True):
        found[name] = odds[:, order[0]]
        for other in order[1:]:
            found[name] = torch.where(found[name].isnan(), odds[:, other], found[name])
    return found


def _logit(p: Tensor, least: float) -> Tensor:
    p = p.double().clamp(least, 1 - least)
    return (p / (1 - p)).log()


def _expit(x: _Floats) -> _Floats:
    return np.asarray(0.5 * (1 + np.tanh(x / 2)))


# ---- What is left after a review. ----


@dataclass(frozen=True, slots=True)
class Residual:
    """After the hardest `reviewed` of n samples were reviewed and set right: the expected number of wrong labels among
    the others, and a 90 % interval."""

    reviewed: int
    expected: float
    low: float
    high: float


_DRAWS: Final = 400
#: Beside what the judged samples tell of the numbers: the deviation of the intercept, for one network was judged and
#: all together label, more with few samples; the share that may be wrong anywhere, as `UNSEEN_ERRORS` supposes; and how
#: much sharper all log odds are (as a factor: half a log-normal; never flatter, or every sure label would count as a
#: doubtful one). With all of these, and what is overstated taken off, 90 % intervals held the truth in 97 % of 240
#: looks at 60 runs of logistic regressions (90 % in the worst of six cells), and in as good as all at networks.
_LEVEL: Final = 0.45
_SHARPNESS: Final = 0.5
#: How far the intercept overstates the errors of unlabeled samples, in its deviations, while few errors are known: what
#: judged them had seen fewer labels than what labels, and is made to doubt. So many errors halve it.
_OVERSTATED: Final = 0.7
_OWN_ERRORS: Final = 5
_LEVEL_SAMPLES: Final = 30


def _level_deviation(samples: int) -> float:
    return _LEVEL * math.sqrt(1 + _LEVEL_SAMPLES / max(1, samples))


def residuals(
    model: Calibrated, doubts: Tensor, miners: Mapping[str, Tensor], *, steps: int, generator: np.random.Generator
) -> list[Residual]:
    """What is left at `steps` + 1 even marks from no review to a review of all n samples.

    Unknown are the numbers of the model, drawn from their Laplace approximation, how sharp they are, the share that is
    wrong anywhere, and which labels are wrong, drawn from the probabilities.
    """
    x, parameters = model.design(doubts, miners), model.parameters
    order = np.argsort(-(x @ parameters), kind="stable")
    x, n = x[order], len(x)
    marks = sorted({round(n * step / steps) for step in range(steps + 1)})
    drawn = generator.multivariate_normal(parameters, model.covariance, _DRAWS, method="cholesky")
    drawn[:, 1:] = drawn[:, 1:].clip(min=0)
    drawn[:, 0] += generator.standard_normal(_DRAWS) * _level_deviation(model.samples)
    anywhere = generator.gamma(UNSEEN_ERRORS, 1 / (model.samples + 1), _DRAWS).clip(max=1)
    sharper = np.exp(_SHARPNESS * np.abs(generator.standard_normal(_DRAWS)))
    left = np.zeros((_DRAWS, len(marks)))
    for at, each in enumerate(drawn):
        p = _expit(sharper[at] * (x @ each))
        p += anywhere[at] * (1 - p)
        mean, variance = _from_end(p, marks), _from_end(p * (1 - p), marks)
        left[at] = (mean + np.sqrt(variance) * generator.standard_normal()).clip(0, n)
    expected = _from_end(_expit(x @ parameters), marks)
    low, high = np.quantile(left, (0.05, 0.95), axis=0)
    return [
        Residual(mark, float(mean), float(min(a, mean)), float(max(b, mean)))
        for mark, mean, a, b in zip(marks, expected, low, high, strict=True)
    ]


#: Shares of right labels for which it is said how much is to be reviewed.
GOALS: Final = (0.98, 0.995)
#: Shares that were reviewed for which it is said how much is left.
_TOLD: Final = (0.0, 0.05, 0.1, 0.2, 0.5)


def left_in_words(left: Sequence[Residual]) -> dict[str, Any]:
    """What a review leaves, JSON values: shares of all samples that are still wrong, and how many to review until so
    much is right; {} where nothing is known."""
    if not left or not left[-1].reviewed:
        return {}
    n = left[-1].reviewed
    marks = [min(left, key=lambda each: abs(each.reviewed - share * n)) for share in _TOLD]
    return {
        "wrong_after_review": [
            {
                "reviewed": each.reviewed,
                "expected": round(each.expected / n, 6),
                "interval": [round(each.low / n, 6), round(each.high / n, 6)],
            }
            for each in dict.fromkeys(marks)
        ],
        "reviews_until_right": {f"{goal:g}": reviews_to_reach(left, goal) for goal in GOALS},
    }


def reviews_to_reach(left: Sequence[Residual], goal: float) -> int | None:
    """How many to review, hardest first, until this share of all is right as good as surely (19 times in 20, by the
    upper end of the interval); None where nothing is known.

    Between two marks a review is taken to find errors at an even pace.
    """
    if not left:
        return None
    most = (1 - goal) * left[-1].reviewed + 1e-4
    if left[0].high <= most:
        return 0
    before, after = next(pair for pair in pairwise(left) if pair[1].high <= most)
    share = (before.high - most) / (before.high - after.high)
    return math.ceil(before.reviewed + share * (after.reviewed - before.reviewed))


def _from_end(values: _Floats, marks: Sequence[int]) -> _Floats:
    """For each mark the sum of the values from there on."""
    sums = np.concatenate([[0.0], values.cumsum()])
    return np.asarray(sums[-1] - sums[list(marks)])


# ---- Why. ----


def reasons_of(scores: Scores, scale: Scale, weights: Mapping[str, float], hard: Tensor) -> tuple[tuple[int, ...], ...]:
    """For each sample the numbers of its reasons, by contribution, largest first; none where it is not hard.

    A reason is given where its score passes the far mark; a hard sample that has none such gets the one that
    contributed most. Contribution: how far a score lies beyond what is usual, where 1 is one in a hundred; not
    weighted, for a strange darkness says more of one image than that darkness matters little for most.
    """
    contributed = _contributions(scores, scale, weights)
    if not contributed:
        return tuple(() for _ in range(len(hard)))
    numbers = list(contributed)
    passed = torch.stack([scores[number] > scale.far[number] for number in numbers], dim=1)
    order = torch.stack(list(contributed.values()), dim=1).argsort(dim=1, descending=True, stable=True)
    found = []
    for row, is_hard in enumerate(hard.tolist()):
        given = [numbers[at] for at in order[row].tolist() if passed[row, at]] if is_hard else []
        found.append(tuple(given) or ((numbers[int(order[row, 0])],) if is_hard else ()))
    return tuple(found)


def shares_of(scores: Scores, scale: Scale, weights: Mapping[str, float]) -> Scores:
    """What each reason contributes, (n,) in [0, 1]: all together 1, or 0 where nothing is beyond the typical."""
    contributed = _contributions(scores, scale, weights)
    total = torch.stack(list(contributed.values())).sum(dim=0) if contributed else torch.zeros(0)
    return {number: torch.where(total > 0, each / total.clamp(min=1e-12), 0.0) for number, each in contributed.items()}


def _contributions(scores: Scores, scale: Scale, weights: Mapping[str, float]) -> Scores:
    """Of each reason whose miner counts the scaled score, 0 where there is none."""
    return {
        number: scale.of(number, score, _FARTHEST).nan_to_num(0.0)
        for number, score in scores.items()
        if weights.get(REASONS[number].miner, 0.0) > 0
    }
