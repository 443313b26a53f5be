"""Metrics: by hand, against scikit-learn, and of what is not there."""

from __future__ import annotations

import doctest
import math

import numpy as np
import pytest
from sklearn import metrics

from engine import evaluation
from engine.errors import InputError
from engine.evaluation import (
    NOTHING,
    accuracy,
    average_precision,
    brier_score,
    brier_skill,
    confusion_matrix,
    expected_calibration_error,
    largest_confusions,
    log_loss,
    reliability,
    score_choices,
    score_multi_label,
    score_probabilities,
)

NAN = float("nan")


def drawn(n: int = 400, k: int = 5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities that are somewhat right, and the truth."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, k, n)
    logits = rng.normal(size=(n, k)) + 1.5 * np.eye(k)[truth]
    exponentials = np.exp(logits)
    return exponentials / exponentials.sum(axis=1, keepdims=True), truth


def test_the_examples_in_the_docstrings_are_true() -> None:
    done = doctest.testmod(evaluation)
    assert done.attempted >= 12
    assert done.failed == 0


# ---- calibration


def test_bins_are_of_equal_mass_and_never_part_equals() -> None:
    bins = reliability(np.arange(30) / 30, np.ones(30))
    assert [each.count for each in bins] == [2] * 15
    assert (bins[0].low, bins[0].high) == (0, pytest.approx(1 / 30))
    assert bins[0].accuracy == 1
    tied = reliability([0.7] * 100, [1] * 70 + [0] * 30)
    assert [(each.count, each.low, each.high) for each in tied] == [(100, 0.7, 0.7)]
    assert tied[0].accuracy == pytest.approx(0.7)
    assert [each.count for each in reliability([0.1, 0.2, 0.3], [0, 0, 1])] == [1, 1, 1]


def test_the_order_of_the_samples_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    said = rng.choice([0.5, 0.6, 0.7, 0.8, 0.9, 1.0], 500)
    right = rng.random(500) < said
    shuffled = rng.permutation(500)
    assert expected_calibration_error(said, right) == expected_calibration_error(said[shuffled], right[shuffled])


def test_calibration_error_by_hand() -> None:
    # Each of two confidences is a bin of its own: 4/8 * |0.5 - 1| + 4/8 * |0.75 - 0.75|.
    said = [0.5] * 4 + [0.75] * 4
    assert expected_calibration_error(said, [1, 1, 1, 1, 1, 1, 1, 0]) == pytest.approx(0.25)
    assert expected_calibration_error([1.0] * 10, [0] * 10) == 1
    assert expected_calibration_error([1.0] * 10, [1] * 10) == 0
    assert math.isnan(expected_calibration_error([], []))
    assert expected_calibration_error([NAN, 1.0], [0, 1]) == 0, "what was not predicted is left out"


def test_calibrated_confidences_have_a_small_error_and_sharpened_ones_a_large_one() -> None:
    rng = np.random.default_rng(1)
    said = rng.uniform(0.3, 0.9, 20_000)
    right = rng.random(20_000) < said
    assert expected_calibration_error(said, right) < 0.015
    assert expected_calibration_error(said + 0.1, right) == pytest.approx(0.1, abs=0.01)


# ---- probabilities


def test_brier_and_log_loss_as_scikit_learn_has_them() -> None:
    rows, truth = drawn()
    assert log_loss(rows, truth) == pytest.approx(metrics.log_loss(truth, rows))
    both = np.stack([1 - rows[:, 0], rows[:, 0]], axis=1)
    is_first = (truth == 0).astype(int)
    # Of two classes the multi-class score is twice the one that scikit-learn gives.
    assert brier_score(both, is_first) == pytest.approx(2 * metrics.brier_score_loss(is_first, rows[:, 0]))


def test_skill_is_above_the_constant_guess() -> None:
    rows, truth = drawn()
    frequencies = np.bincount(truth, minlength=5) / len(truth)
    assert brier_skill(np.tile(frequencies, (len(truth), 1)), truth) == pytest.approx(0, abs=1e-12)
    assert brier_skill(np.eye(5)[truth], truth) == 1
    assert brier_skill(np.eye(5)[(truth + 1) % 5], truth) < -1
    assert 0 < brier_skill(rows, truth) < 1
    assert math.isnan(brier_skill([[0.5, 0.5]], [0])), "of one class only, the constant guess is perfect"


def test_rows_without_a_prediction_are_left_out_of_what_is_said_about_probabilities() -> None:
    rows, truth = drawn(50)
    more, true = np.vstack([rows, np.full((3, 5), NAN)]), np.append(truth, [0, 1, 2])
    for function in (brier_score, brier_skill, log_loss):
        assert function(more, true) == function(rows, truth)
        assert math.isnan(function(np.full((2, 5), NAN), [0, 1]))


def test_a_probability_of_nothing_is_not_infinite() -> None:
    assert log_loss([[1.0, 0.0]], [1]) == pytest.approx(-math.log(1e-7))


# ---- classes


def test_scores_by_hand() -> None:
    #            cat        cat        cat        dog        dog        no prediction, a dog
    rows = [[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.3, 0.7], [0.6, 0.4], [NAN, NAN]]
    scores = score_probabilities(rows, [0, 0, 0, 1, 1, 1], labels=["cat", "dog"])
    assert (scores.samples, scores.missing) == (6, 1)
    assert scores.accuracy == 3 / 6
    assert scores.macro_accuracy == pytest.approx((2 / 3 + 1 / 3) / 2)
    assert scores.confusion.tolist() == [[2, 1], [1, 1]]
    cat, dog = scores.classes
    assert (cat.support, cat.predicted, cat.precision, cat.recall) == (3, 3, 2 / 3, 2 / 3)
    assert cat.f1 == pytest.approx(2 / 3)
    assert (dog.support, dog.predicted, dog.precision, dog.recall) == (3, 2, 1 / 2, 1 / 3)
    assert dog.f1 == pytest.approx(0.4)
    # (0.01 + 0.04 + 0.36 + 0.09 + 0.36) * 2 / 5; the frequencies of the five are 3/5 and 2/5.
    assert scores.brier == pytest.approx(0.344)
    assert scores.brier_skill == pytest.approx(1 - 0.344 / 0.48)
    assert sum(each.count for each in scores.bins) == 5


def test_scores_as_scikit_learn_has_them() -> None:
    rows, truth = drawn(seed=3)
    chosen = rows.argmax(axis=1)
    scores = score_probabilities(rows, truth, labels=list("abcde"))
    assert scores.accuracy == pytest.approx(metrics.accuracy_score(truth, chosen))
    assert scores.macro_accuracy == pytest.approx(metrics.balanced_accuracy_score(truth, chosen))
    assert scores.confusion.tolist() == metrics.confusion_matrix(truth, chosen).tolist()
    precision, recall, f1, support = metrics.precision_recall_fscore_support(truth, chosen)
    for at, each in enumerate(scores.classes):
        assert (each.precision, each.recall, each.f1) == pytest.approx((precision[at], recall[at], f1[at]))
        assert each.support == support[at]


def test_choices_alone_have_no_brier_score_but_the_same_accuracy() -> None:
    rows, truth = drawn(60)
    rows[:4] = NAN
    whole = score_probabilities(rows, truth, labels=list("abcde"))
    chosen = np.where(np.isnan(rows[:, 0]), NOTHING, rows.argmax(axis=1))
    alone = score_choices(chosen, rows.max(axis=1), truth, labels=list("abcde"))
    assert (alone.accuracy, alone.missing, alone.ece) == (whole.accuracy, 4, whole.ece)
    assert alone.confusion.tolist() == whole.confusion.tolist()
    assert math.isnan(alone.brier)
    assert math.isnan(alone.brier_skill)
    unsaid = score_choices([0, 1], [NAN, NAN], [0, 1], labels=["a", "b"])
    assert unsaid.accuracy == 1
    assert math.isnan(unsaid.ece)
    assert unsaid.bins == ()


def test_a_class_that_never_occurs_does_not_count_in_the_mean() -> None:
    scores = score_probabilities([[0.2, 0.7, 0.1], [0.9, 0.1, 0.0]], [1, 0], labels=["a", "b", "never"])
    assert scores.macro_accuracy == 1
    never = scores.classes[2]
    assert (never.support, never.predicted) == (0, 0)
    assert math.isnan(never.precision)
    assert math.isnan(never.f1)


def test_no_sample_at_all_is_no_number() -> None:
    scores = score_probabilities(np.empty((0, 2)), np.empty(0, int), labels=["a", "b"])
    assert scores.samples == 0
    for value in (scores.accuracy, scores.macro_accuracy, scores.ece, scores.brier, scores.log_loss):
        assert math.isnan(value)


def test_the_largest_confusions_come_first() -> None:
    counts = [[50, 2, 0], [7, 40, 2], [0, 0, 9]]
    assert largest_confusions(counts, ["a", "b", "c"]) == (("b", "a", 7), ("a", "b", 2), ("b", "c", 2))
    assert largest_confusions(counts, ["a", "b", "c"], most=1) == (("b", "a", 7),)


# ---- several labels a sample


def test_average_precision_by_hand_and_as_scikit_learn_has_it() -> None:
    # Positives at ranks 1 and 3: (1 + 2/3) / 2.
    assert average_precision([0.9, 0.8, 0.7], [1, 0, 1]) == pytest.approx(5 / 6)
    # All of one score are one step: precision 2/3 at once, in whatever order they come.
    assert average_precision([0.5, 0.5, 0.5], [1, 0, 1]) == pytest.approx(2 / 3)
    assert average_precision([0.5, NAN], [1, 1]) == 0.5, "the one without a prediction is never found"
    assert average_precision([NAN, NAN], [1, 0]) == 0
    assert math.isnan(average_precision([0.5, 0.6], [0, 0]))
    rng = np.random.default_rng(0)
    scores, truth = rng.integers(0, 12, 300) / 12, rng.random(300) < 0.3
    assert average_precision(scores, truth) == pytest.approx(metrics.average_precision_score(truth, scores))


def test_multi_label_scores_by_hand() -> None:
    rows = np.array([[0.9, 0.2], [0.6, 0.7], [0.1, 0.8], [NAN, NAN]])
    truth = np.array([[1, 0], [1, 1], [1, 1], [0, 1]], bool)
    scores = score_multi_label(rows, rows >= 0.5, truth, labels=["a", "b"])
    assert (scores.samples, scores.missing) == (4, 1)
    assert scores.exact == 2 / 4
    a, b = scores.classes
    assert (a.support, a.predicted, a.recall) == (3, 2, 2 / 3)
    assert (b.support, b.predicted, b.recall) == (3, 2, 2 / 3)
    assert a.average_precision == 1
    assert b.average_precision == pytest.approx(2 / 3)
    assert scores.mean_average_precision == pytest.approx(5 / 6)
    # 4 right of 4 given and 6 there: 2 * 4 / (4 + 6).
    assert scores.micro_f1 == pytest.approx(0.8)
    assert scores.macro_f1 == pytest.approx(0.8)
    # Squares: 0.01 0.04 0.16 0.09 0.81 0.04.
    assert scores.brier == pytest.approx(1.15 / 6)
    # The constant guess: a is on all three, b on two of three.
    assert scores.brier_skill == pytest.approx(1 - (1.15 / 6) / ((2 / 9) / 2))
    assert sum(each.count for each in scores.bins) == 6


def test_multi_label_scores_as_scikit_learn_has_them() -> None:
    rng = np.random.default_rng(5)
    truth = rng.random((200, 4)) < 0.4
    rows = np.clip(0.5 * truth + rng.random((200, 4)) * 0.7, 0, 1)
    scores = score_multi_label(rows, rows >= 0.5, truth, labels=list("abcd"))
    assert scores.micro_f1 == pytest.approx(metrics.f1_score(truth, rows >= 0.5, average="micro"))
    assert scores.macro_f1 == pytest.approx(metrics.f1_score(truth, rows >= 0.5, average="macro"))
    assert scores.mean_average_precision == pytest.approx(metrics.average_precision_score(truth, rows, average="macro"))
    assert scores.exact == pytest.approx(metrics.accuracy_score(truth, rows >= 0.5))
    assert scores.ece == pytest.approx(expected_calibration_error(rows.ravel(), truth.ravel()))


# ---- what is refused


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match=r"truth: must be \(2,\) as the probabilities, got \(3,\)"):
        brier_score([[0.5, 0.5], [1, 0]], [0, 1, 1])
    with pytest.raises(InputError, match=r"truth: must be 0\.\.1, got 2"):
        log_loss([[0.5, 0.5]], [2])
    with pytest.raises(InputError, match=r"truth: must be 0\.\.1, got -1"):
        log_loss([[0.5, 0.5]], [-1])
    with pytest.raises(InputError, match=r"truth: must be integers, got float64"):
        brier_score([[0.5, 0.5]], [0.0])
    with pytest.raises(InputError, match=r"probabilities: must be in \[0, 1\], got 1\.5"):
        brier_score([[1.5, -0.5]], [0])
    with pytest.raises(InputError, match=r"confidences: must be in \[0, 1\], got -0\.1"):
        expected_calibration_error([-0.1], [1])
    with pytest.raises(InputError, match=r"confidences and correct: must be \(n,\) both, got \(1,\) and \(2,\)"):
        expected_calibration_error([0.1], [1, 0])
    with pytest.raises(InputError, match="labels: must be 2 names, got 1"):
        score_probabilities([[0.5, 0.5]], [0], labels=["a"])
    with pytest.raises(InputError, match="predicted: must be >= -1, got -2"):
        accuracy([-2], [0])
    with pytest.raises(InputError, match="k: must be above every class number, got 1"):
        confusion_matrix([1], [0], 1)
    with pytest.raises(InputError, match=r"must be \(n, k\) all"):
        score_multi_label([[0.5]], [[True, False]], [[True, False]], labels=["a", "b"])
