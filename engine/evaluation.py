"""How good predictions are: arrays in, numbers out.

In: probabilities (n, k), or the chosen class of each of n samples and the confidence in it, and the truth. Out:
`Scores` for sets with one label a sample, `MultiLabelScores` for sets with several. A row of NaN is a sample without a
prediction: it counts as `missing`, and as wrong in accuracy, recall, F1 and average precision; what is said about
probabilities (calibration, Brier, log loss) leaves it out. What cannot be said is NaN: the precision of a class that
was never predicted, anything about no sample. Knows nothing of images, files or labels by people.

Public functions check what they are given and raise InputError.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from engine.errors import InputError

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Booleans = npt.NDArray[np.bool_]

#: No prediction, where a prediction is the number of a class.
NOTHING: Final = -1

#: Bins of the calibration error. 15 as in Guo et al. 2017; of equal mass, not of equal width: most confidences lie near
#: 1, where bins of equal width put nearly all samples into one (adaptive calibration error, Nixon et al. 2019).
BINS: Final = 15

#: Probabilities below this count as this much in the logarithm: what float32 can still tell from nothing beside 1.
LEAST_PROBABILITY: Final = 1e-7


# ---- Calibration: whether 0.9 is right nine times of ten. ----


@dataclass(frozen=True, slots=True)
class Bin:
    """Samples of similar confidence. low, high: the least and the largest confidence among them. count: how many.
    confidence: the mean. accuracy: the part of them that is right."""

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


def reliability(confidences: npt.ArrayLike, correct: npt.ArrayLike, *, bins: int = BINS) -> tuple[Bin, ...]:
    """The samples in bins of equal mass, by confidence from low to high: what a reliability diagram shows.

    confidences: (n,) in [0, 1], NaN is left out. correct: (n,) bool. bins: at most so many; samples of the same
    confidence are never parted, so that the order of the samples does not matter and there may be fewer.

    >>> [(bin.count, bin.confidence, bin.accuracy) for bin in reliability([0.5, 1, 0.5, 1], [1, 1, 0, 1], bins=2)]
    [(2, 0.5, 0.5), (2, 1.0, 1.0)]
    """
    if bins < 1:
        raise InputError(f"bins: must be at least 1, got {bins}")
    return _reliability(*_confidences(confidences, correct), bins)


def expected_calibration_error(confidences: npt.ArrayLike, correct: npt.ArrayLike) -> float:
    """The expected calibration error in [0, 1], 0 = calibrated: over BINS bins of equal mass (see `reliability`), the
    mean distance of confidence and accuracy, weighted by the samples of each (Guo et al. 2017, with the bins of
    Nixon et al. 2019). With few samples it is too large: every bin adds its noise.

    confidences: (n,) of the most probable label, in [0, 1], NaN is left out. correct: (n,) bool.

    Three of four are right where 0.75 was said, all where 0.9 was: 4/5 * 0 + 1/5 * 0.1.

    >>> round(expected_calibration_error([0.75, 0.75, 0.75, 0.75, 0.9], [1, 1, 1, 0, 1]), 9)
    0.02
    """
    return _calibration_error(_reliability(*_confidences(confidences, correct), BINS))


def _reliability(confidences: Floats, correct: Booleans, bins: int) -> tuple[Bin, ...]:
    n = len(confidences)
    if n == 0:
        return ()
    # The largest confidence of each bin, if all were of exactly equal mass; whatever equals it belongs there too.
    last = np.ceil(np.arange(1, bins + 1) * (n / bins) - 1e-9).astype(np.int64) - 1
    upper = np.unique(np.sort(confidences)[np.maximum(last, 0)])
    places = np.searchsorted(upper, confidences, side="left")
    found = []
    for place in range(len(upper)):
        inside = places == place
        here, right = confidences[inside], correct[inside]
        found.append(Bin(float(here.min()), float(here.max()), len(here), float(here.mean()), float(right.mean())))
    return tuple(found)


def _calibration_error(bins: Sequence[Bin]) -> float:
    n = sum(each.count for each in bins)
    return sum(each.count * abs(each.accuracy - each.confidence) for each in bins) / n if n else float("nan")


# ---- Probabilities as a whole. ----


def brier_score(probabilities: npt.ArrayLike, truth: npt.ArrayLike) -> float:
    """The mean squared distance of a row from the truth, in [0, 2], 0 = perfect: over classes the sum, over samples the
    mean of (p - [is it])^2 (Brier 1950, multi-class).

    probabilities: (n, k), rows of NaN are left out. truth: (n,) class numbers 0..k-1.

    >>> round(brier_score([[0.8, 0.2], [0.5, 0.5]], [0, 1]), 9)  # (0.04 + 0.04 + 0.25 + 0.25) / 2
    0.29
    """
    return _brier(*_predicted_rows(*_rows(probabilities, truth)))


def brier_skill(probabilities: npt.ArrayLike, truth: npt.ArrayLike) -> float:
    """How much of the Brier score of a constant guess is saved, at most 1 = perfect; 0 = no better than to give every
    sample the class frequencies of these samples, below 0 = worse. NaN where all are of one class: there the
    constant guess is perfect.

    probabilities, truth: as for `brier_score`.

    >>> round(brier_skill([[0.8, 0.2], [0.5, 0.5]], [0, 1]), 9)  # the constant guess has 0.5
    0.42
    """
    return _brier_skill(*_predicted_rows(*_rows(probabilities, truth)))


def log_loss(probabilities: npt.ArrayLike, truth: npt.ArrayLike) -> float:
    """The mean of -ln(probability of the truth), >= 0, 0 = perfect. A probability below LEAST_PROBABILITY counts as
    that, so that one sample cannot make it infinite.

    probabilities, truth: as for `brier_score`.

    >>> round(log_loss([[0.5, 0.5], [1, 0]], [0, 0]), 6)  # ln 2 / 2
    0.346574
    """
    return _log_loss(*_predicted_rows(*_rows(probabilities, truth)))


def _brier(probabilities: Floats, truth: Integers) -> float:
    if not len(truth):
        return float("nan")
    distance = probabilities - (truth[:, None] == np.arange(probabilities.shape[1]))
    return float((distance**2).sum(axis=1).mean())


def _brier_skill(probabilities: Floats, truth: Integers) -> float:
    if not len(truth):
        return float("nan")
    frequencies = np.bincount(truth, minlength=probabilities.shape[1]) / len(truth)
    constant = 1.0 - float((frequencies**2).sum())  # the Brier score of the frequencies, on the same samples
    return 1.0 - _brier(probabilities, truth) / constant if constant > 1e-12 else float("nan")


def _log_loss(probabilities: Floats, truth: Integers) -> float:
    if not len(truth):
        return float("nan")
    of_truth = probabilities[np.arange(len(truth)), truth]
    return float(-np.log(np.maximum(of_truth, LEAST_PROBABILITY)).mean())


# ---- Choices. ----


def accuracy(predicted: npt.ArrayLike, truth: npt.ArrayLike) -> float:
    """The part of the samples whose class is right; no prediction (NOTHING) is wrong.

    predicted, truth: (n,) class numbers.

    >>> accuracy([0, 1, -1, 1], [0, 1, 1, 0])
    0.5
    """
    chosen, true = _choices(predicted, truth)
    return float((chosen == true).mean()) if len(true) else float("nan")


def confusion_matrix(predicted: npt.ArrayLike, truth: npt.ArrayLike, k: int) -> Integers:
    """(k, k) how many samples of class i (row) were taken for class j (column); no prediction (NOTHING) is in none.

    >>> confusion_matrix([0, 1, -1, 1], [0, 1, 1, 0], 2).tolist()
    [[1, 1], [0, 1]]
    """
    chosen, true = _choices(predicted, truth)
    if k < 1 or max(chosen.max(initial=NOTHING), true.max(initial=NOTHING)) >= k:
        raise InputError(f"k: must be above every class number, got {k}")
    there = chosen != NOTHING
    counts = np.bincount(true[there] * k + chosen[there], minlength=k * k)
    return counts.reshape(k, k).astype(np.int64)


@dataclass(frozen=True, slots=True)
class ClassScore:
    """How one class fares. support: samples of it. predicted: samples taken for it. precision: of the predicted, the
    part that is right. recall: of the support, the part that was found. f1: their harmonic mean,
    2 * right / (predicted + support). average_precision: only in a multi-label set, else NaN."""

    label: str
    support: int
    predicted: int
    precision: float
    recall: float
    f1: float
    average_precision: float = float("nan")


def class_scores(
    labels: Sequence[str], right: npt.ArrayLike, predicted: npt.ArrayLike, support: npt.ArrayLike
) -> tuple[ClassScore, ...]:
    """One `ClassScore` a label from counts (k,): samples that are right, predicted, and there.

    >>> class_scores(["cat"], [3], [4], [6])[0]
    ClassScore(label='cat', support=6, predicted=4, precision=0.75, recall=0.5, f1=0.6, average_precision=nan)
    """
    counts = zip(*(np.asarray(each).tolist() for each in (right, predicted, support)), strict=True)
    return tuple(
        ClassScore(name, there, taken, _part(hit, taken), _part(hit, there), _part(2 * hit, taken + there))
        for name, (hit, taken, there) in zip(labels, counts, strict=True)
    )


def largest_confusions(
    confusion: npt.ArrayLike, labels: Sequence[str], *, most: int = 10
) -> tuple[tuple[str, str, int], ...]:
    """What is taken for what, the most frequent first: (truth, predicted, samples); equals in the order of the labels.

    >>> largest_confusions([[9, 1], [3, 5]], ["cat", "dog"])
    (('dog', 'cat', 3), ('cat', 'dog', 1))
    """
    counts = np.array(confusion)
    np.fill_diagonal(counts, 0)
    order = np.argsort(-counts, axis=None, kind="stable")[:most]
    places = (np.unravel_index(place, counts.shape) for place in order)
    return tuple(
        (labels[row], labels[column], int(counts[row, column])) for row, column in places if counts[row, column]
    )


# ---- One label a sample, all together. ----


@dataclass(frozen=True, slots=True)
class Scores:
    """How good predictions of one class a sample are, over n samples.

    samples: n. missing: how many have no prediction; they are wrong in accuracy. macro_accuracy: the mean recall of the
    classes that occur, so that each counts the same. confusion: (k, k), rows the truth. ece, bins: see
    `expected_calibration_error`, of the most probable class. brier, brier_skill, log_loss: NaN without probabilities.
    """

    labels: tuple[str, ...]
    samples: int
    missing: int
    accuracy: float
    macro_accuracy: float
    classes: tuple[ClassScore, ...]
    confusion: Integers
    ece: float
    bins: tuple[Bin, ...]
    brier: float
    brier_skill: float
    log_loss: float


def score_probabilities(probabilities: npt.ArrayLike, truth: npt.ArrayLike, *, labels: Sequence[str]) -> Scores:
    """The scores of probabilities (n, k), rows of NaN where there is no prediction, each taken for its most probable
    class. truth: (n,) class numbers. labels: the k names.

    >>> scores = score_probabilities([[0.8, 0.2], [0.4, 0.6], [float("nan")] * 2], [0, 0, 1], labels=["cat", "dog"])
    >>> scores.samples, scores.missing, round(scores.accuracy, 3), scores.macro_accuracy
    (3, 1, 0.333, 0.25)
    """
    rows, true = _rows(probabilities, truth)
    _check_names(labels, rows.shape[1])
    there = _predicted(rows)
    chosen = np.full(len(rows), NOTHING, np.int64)
    chosen[there] = rows[there].argmax(axis=1)
    confidences = np.full(len(rows), np.nan)
    confidences[there] = rows[there].max(axis=1)
    kept, true_kept = rows[there], true[there]
    return _scores(
        chosen,
        confidences,
        true,
        labels,
        (_brier(kept, true_kept), _brier_skill(kept, true_kept), _log_loss(kept, true_kept)),
    )


def score_choices(
    predicted: npt.ArrayLike, confidences: npt.ArrayLike, truth: npt.ArrayLike, *, labels: Sequence[str]
) -> Scores:
    """The scores of chosen classes alone, where nobody knows the other probabilities.

    predicted: (n,) class numbers, NOTHING where there is no prediction. confidences: (n,) in [0, 1], NaN where none was
    said (such a sample is left out of calibration alone). truth: (n,) class numbers.
    """
    chosen, true = _choices(predicted, truth)
    _check_names(labels, int(max(chosen.max(initial=NOTHING), true.max(initial=NOTHING))) + 1, exactly=False)
    said = np.asarray(confidences, np.float64)
    if said.shape != chosen.shape:
        raise InputError(f"confidences: must be ({len(chosen)},), got {said.shape}")
    _check_unit("confidences", said)
    return _scores(chosen, np.where(chosen == NOTHING, np.nan, said), true, labels, (float("nan"),) * 3)


def _scores(
    chosen: Integers, confidences: Floats, truth: Integers, labels: Sequence[str], whole: tuple[float, float, float]
) -> Scores:
    k = len(labels)
    confusion = confusion_matrix(chosen, truth, k)
    support = np.bincount(truth, minlength=k)
    classes = class_scores(labels, confusion.diagonal(), confusion.sum(axis=0), support)
    said = ~np.isnan(confidences)
    bins = _reliability(confidences[said], (chosen == truth)[said], BINS)
    brier, skill, loss = whole
    return Scores(
        labels=tuple(labels),
        samples=len(truth),
        missing=int((chosen == NOTHING).sum()),
        accuracy=accuracy(chosen, truth),
        macro_accuracy=_mean(each.recall for each in classes if each.support),
        classes=classes,
        confusion=confusion,
        ece=_calibration_error(bins),
        bins=bins,
        brier=brier,
        brier_skill=skill,
        log_loss=loss,
    )


# ---- Several labels a sample. ----


def average_precision(scores: npt.ArrayLike, truth: npt.ArrayLike) -> float:
    """The area under precision over recall, in [0, 1]: going down the scores, the precision at each step, weighted by
    the recall that the step gains; samples of one score are one step. NaN where no sample has the label.

    scores: (n,), larger = likelier; a sample of NaN is never found. truth: (n,) bool.

    Found at ranks 1 and 3: 1/2 * 1 + 1/2 * 2/3.

    >>> round(average_precision([0.9, 0.8, 0.7, 0.1], [1, 0, 1, 0]), 6)
    0.833333
    """
    values, true = np.asarray(scores, np.float64), np.asarray(truth, bool)
    if values.ndim != 1 or values.shape != true.shape:
        raise InputError(f"scores and truth: must be (n,) both, got {values.shape} and {true.shape}")
    positives = int(true.sum())
    there = ~np.isnan(values)
    values, true = values[there], true[there]
    if not positives:
        return float("nan")
    if not len(values):
        return 0.0
    order = np.argsort(-values, kind="stable")
    found = np.cumsum(true[order])
    ends = np.flatnonzero(np.append(np.diff(values[order]) != 0, True))  # the last of each score
    precision = found[ends] / (ends + 1)
    gained = np.diff(found[ends], prepend=0) / positives
    return float((precision * gained).sum())


@dataclass(frozen=True, slots=True)
class MultiLabelScores:
    """How good predictions of several labels a sample are, over n samples and k labels.

    samples: n. missing: how many have no prediction; none of their labels was found. mean_average_precision: over the
    labels that occur. exact: the part of the samples with all labels right and no other. micro_f1: over all (sample,
    label) pairs; macro_f1: the mean over the labels that occur or were given. ece, bins, brier: over all (sample,
    label) pairs, a probability against whether the label is there; brier_skill: above each label's frequency.
    """

    labels: tuple[str, ...]
    samples: int
    missing: int
    mean_average_precision: float
    exact: float
    micro_f1: float
    macro_f1: float
    classes: tuple[ClassScore, ...]
    ece: float
    bins: tuple[Bin, ...]
    brier: float
    brier_skill: float


def score_multi_label(
    probabilities: npt.ArrayLike, given: npt.ArrayLike, truth: npt.ArrayLike, *, labels: Sequence[str]
) -> MultiLabelScores:
    """The scores of probabilities (n, k), rows of NaN where there is no prediction, and of the labels given for them.

    given: (n, k) bool, the labels that the model gives; nothing is given where there is no prediction.
    truth: (n, k) bool. labels: the k names.

    >>> scores = score_multi_label([[0.9, 0.6]], [[True, True]], [[True, False]], labels=["cat", "dog"])
    >>> scores.mean_average_precision, scores.exact, round(scores.micro_f1, 3), scores.macro_f1
    (1.0, 0.0, 0.667, 0.5)
    """
    rows = np.asarray(probabilities, np.float64)
    chosen, true = np.asarray(given, bool), np.asarray(truth, bool)
    if rows.ndim != 2 or not rows.shape == chosen.shape == true.shape:
        raise InputError(
            f"probabilities, given and truth: must be (n, k) all, got {rows.shape}, {chosen.shape} and {true.shape}"
        )
    _check_unit("probabilities", rows)
    _check_names(labels, rows.shape[1])
    there = _predicted(rows)
    rows = np.where(there[:, None], rows, np.nan)
    chosen = chosen & there[:, None]
    right, taken, support = (chosen & true).sum(axis=0), chosen.sum(axis=0), true.sum(axis=0)
    classes = tuple(
        ClassScore(
            each.label,
            each.support,
            each.predicted,
            each.precision,
            each.recall,
            each.f1,
            average_precision(rows[:, column], true[:, column]),
        )
        for column, each in enumerate(class_scores(labels, right, taken, support))
    )
    pairs, are = rows[there], true[there]
    bins = _reliability(pairs.ravel(), are.ravel(), BINS)
    brier, constant = _mean_square(pairs - are), _mean_square(are - are.mean(axis=0)) if len(are) else float("nan")
    return MultiLabelScores(
        labels=tuple(labels),
        samples=len(rows),
        missing=int((~there).sum()),
        mean_average_precision=_mean(each.average_precision for each in classes if each.support),
        exact=float((there & (chosen == true).all(axis=1)).mean()) if len(rows) else float("nan"),
        micro_f1=_part(2 * int(right.sum()), int(taken.sum() + support.sum())),
        macro_f1=_mean(each.f1 for each in classes if each.support or each.predicted),
        classes=classes,
        ece=_calibration_error(bins),
        bins=bins,
        brier=brier,
        brier_skill=1.0 - brier / constant if constant > 1e-12 else float("nan"),
    )


# ---- What is given, checked. ----


def _rows(probabilities: npt.ArrayLike, truth: npt.ArrayLike) -> tuple[Floats, Integers]:
    rows, true = np.asarray(probabilities, np.float64), np.asarray(truth)
    if rows.ndim != 2 or not rows.shape[1]:
        raise InputError(f"probabilities: must be (n, k) with k >= 1, got {rows.shape}")
    if true.shape != rows.shape[:1]:
        raise InputError(f"truth: must be ({len(rows)},) as the probabilities, got {true.shape}")
    _check_unit("probabilities", rows)
    return rows, _class_numbers("truth", true, 0, rows.shape[1] - 1)


def _predicted_rows(rows: Floats, truth: Integers) -> tuple[Floats, Integers]:
    there = _predicted(rows)
    return rows[there], truth[there]


def _predicted(rows: Floats) -> Booleans:
    return ~np.asarray(np.isnan(rows).any(axis=1), bool)


def _choices(predicted: npt.ArrayLike, truth: npt.ArrayLike) -> tuple[Integers, Integers]:
    chosen, true = np.asarray(predicted), np.asarray(truth)
    if chosen.ndim != 1 or chosen.shape != true.shape:
        raise InputError(f"predicted and truth: must be (n,) both, got {chosen.shape} and {true.shape}")
    return _class_numbers("predicted", chosen, NOTHING, None), _class_numbers("truth", true, 0, None)


def _confidences(confidences: npt.ArrayLike, correct: npt.ArrayLike) -> tuple[Floats, Booleans]:
    said, right = np.asarray(confidences, np.float64), np.asarray(correct, bool)
    if said.ndim != 1 or said.shape != right.shape:
        raise InputError(f"confidences and correct: must be (n,) both, got {said.shape} and {right.shape}")
    _check_unit("confidences", said)
    there = ~np.isnan(said)
    return said[there], right[there]


def _class_numbers(what: str, values: npt.NDArray[Any], low: int, high: int | None) -> Integers:
    if values.size == 0:
        return values.astype(np.int64)
    if values.dtype.kind not in "iu":
        raise InputError(f"{what}: must be integers, got {values.dtype}")
    outside = values[(values < low) | (values > (high if high is not None else np.iinfo(np.int64).max))]
    if outside.size:
        limits = f">= {low}" if high is None else f"{low}..{high}"
        raise InputError(f"{what}: must be {limits}, got {outside[0]}")
    return values.astype(np.int64)


def _check_unit(what: str, values: Floats) -> None:
    outside = values[(values < 0) | (values > 1 + 1e-6)]  # a sum in float32 may be off by its last digit
    if outside.size:
        raise InputError(f"{what}: must be in [0, 1], got {outside.flat[0]}")


def _check_names(labels: Sequence[str], k: int, *, exactly: bool = True) -> None:
    if len(labels) != k and (exactly or len(labels) < k):
        raise InputError(f"labels: must be {'' if exactly else 'at least '}{k} names, got {len(labels)}")


def _part(some: int, all_of_them: int) -> float:
    return some / all_of_them if all_of_them else float("nan")


def _mean(values: Any) -> float:
    listed = list(values)
    return sum(listed) / len(listed) if listed else float("nan")


def _mean_square(values: Floats) -> float:
    return float((values**2).mean()) if values.size else float("nan")
