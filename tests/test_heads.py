"""Ridge heads: by hand, against n real refits, and input with nothing to learn from."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from engine.errors import InputError
from engine.label import heads
from engine.label.heads import fit_ridge, fit_temperature, left_out_scores, probabilities


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def one_hot(classes: Tensor, k: int) -> Tensor:
    return torch.eye(k)[classes]


def refitted(x: Tensor, y: Tensor, weights: Tensor, penalty: float, row: int) -> Tensor:
    """The scores of a row by the normal equations of all others, plainly."""
    others = torch.arange(len(x)) != row
    x, own, y, weights = x.double()[others], x[row].double(), y.double()[others], weights.double()[others, None]
    x_mean, y_mean = (weights * x).sum(0) / weights.sum(), (weights * y).sum(0) / weights.sum()
    scatter = (x - x_mean).T @ (weights * (x - x_mean)) + penalty * torch.eye(x.shape[1], dtype=torch.float64)
    return (own - x_mean) @ torch.linalg.solve(scatter, (x - x_mean).T @ (weights * (y - y_mean))) + y_mean


def test_by_hand() -> None:
    # x = -1, 1 and y = 0, 2: means 0 and 1, scatter 2, products 2; with penalty 2 the slope is 2 / 4.
    head = fit_ridge(torch.tensor([[-1.0], [1.0]]), torch.tensor([[0.0], [2.0]]), penalties=[2.0])
    assert head.weights.item() == pytest.approx(0.5)
    assert head.scores(torch.tensor([[3.0]])).item() == pytest.approx(2.5)
    # Each row alone makes a constant of the other one's target: 2 for 0 and 0 for 2.
    assert head.errors == {2.0: pytest.approx(4.0)}


@pytest.mark.parametrize("shape", [(12, 5), (9, 30), (6, 6)])
@pytest.mark.parametrize("balanced", [False, True])
def test_the_leave_one_out_error_is_that_of_n_refits(shape: tuple[int, int], balanced: bool) -> None:
    x = random(*shape) + 5.0
    classes = torch.tensor([0, 0, 0, 1, 1, 2] * 2)[: len(x)]
    y = one_hot(classes, 3)
    counts = torch.bincount(classes).double()[classes]
    weights = 1 / counts if balanced else torch.ones_like(counts)
    weights = weights / weights.mean()
    for penalty in (0.01, 3.0):
        head = fit_ridge(x, y, penalties=[penalty], balanced=balanced)
        expected = torch.stack([refitted(x, y, weights, penalty, row) for row in range(len(x))])
        error = float((weights[:, None] * (expected - y).square()).mean())
        assert head.errors[penalty] == pytest.approx(error, rel=1e-6)


def test_the_penalty_has_the_least_leave_one_out_error() -> None:
    x = random(40, 6)
    y = x[:, :2] @ torch.tensor([[1.0, 0.0], [2.0, -1.0]]) + 0.5 * random(40, 2, seed=1)
    head = fit_ridge(x, y)
    assert len(head.errors) == len(heads.FACTORS)
    alone = {penalty: fit_ridge(x, y, penalties=[penalty]).errors[penalty] for penalty in head.errors}
    assert alone == pytest.approx(head.errors, rel=1e-9)
    assert head.penalty == min(alone, key=lambda each: alone[each])
    assert head.penalty not in (min(alone), max(alone))


def test_balanced_classes_weigh_the_same() -> None:
    # Nine rows of one class and one of the other say nothing in x: the intercept alone is fitted.
    y = one_hot(torch.tensor([0] * 9 + [1]), 2)
    x = torch.zeros(10, 1)
    assert fit_ridge(x, y).scores(x[:1]).ravel().tolist() == pytest.approx([0.9, 0.1])
    assert fit_ridge(x, y, balanced=True).scores(x[:1]).ravel().tolist() == pytest.approx([0.5, 0.5])


def test_many_rows_and_columns_choose_on_some_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    x = random(60, 50)
    y = one_hot((x[:, 0] > 0).long(), 2)
    monkeypatch.setattr(heads, "CHOICE_ROWS", 20)
    monkeypatch.setattr(heads, "_BLOCK", 16)
    head = fit_ridge(x, y)
    some = torch.linspace(0, 59, 20).round().long()
    expected = torch.stack([refitted(x[some], y[some], torch.ones(20), head.penalty, row) for row in range(20)])
    assert head.errors[head.penalty] == pytest.approx(float((expected - y[some]).square().mean()), rel=1e-3)
    x, y = torch.cat([x, x[:1]]), torch.cat([y, y[:1]])
    expected = refitted(x, y, torch.ones(61), head.penalty, 60)
    alone = fit_ridge(x[:60], y[:60], penalties=[head.penalty]).scores(x[60:])[0]
    torch.testing.assert_close(alone.double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shape", [(12, 5), (12, 30)])
@pytest.mark.parametrize("balanced", [False, True])
def test_left_out_scores_are_those_of_heads_without_the_fold(shape: tuple[int, int], balanced: bool) -> None:
    x, y = random(*shape) + 5.0, one_hot(torch.tensor([0, 0, 0, 1, 1, 2] * 2), 3)
    fold = torch.tensor([0, 1, 2] * 4)
    scores = left_out_scores(x, y, fold, penalty=0.5, balanced=balanced)
    for part in range(3):
        held = fold == part
        alone = fit_ridge(x[~held], y[~held], penalties=[0.5], balanced=balanced)
        torch.testing.assert_close(scores[held], alone.scores(x[held]))


def test_left_out_scores_do_not_speak_against_the_own_class() -> None:
    """Vectors that say nothing: classes are guessed by chance, not always wrongly as when one row alone is left out."""
    y = one_hot(torch.arange(10).repeat(4), 10)
    x = 0.01 * random(40, 8)
    rows = torch.arange(40)
    one_by_one = torch.stack([refitted(x, y, torch.ones(40), 10.0, row) for row in range(40)])
    assert int((one_by_one.argmax(dim=1) == rows % 10).sum()) == 0
    scores = left_out_scores(x, y, rows // 10, penalty=10.0, balanced=True)
    assert int((scores.argmax(dim=1) == rows % 10).sum()) > 0


def test_nothing_is_left_out_of_one_fold() -> None:
    y = one_hot(torch.tensor([0, 1]), 2)
    assert not left_out_scores(random(2, 3), y, torch.zeros(2, dtype=torch.int64), penalty=1.0).any()


@pytest.mark.parametrize("n", [1, 2, 7])
def test_nothing_to_learn_from_gives_finite_numbers(n: int) -> None:
    for x in (torch.ones(n, 3), random(n, 3)):
        for balanced in (False, True):
            head = fit_ridge(x, one_hot(torch.zeros(n, dtype=torch.int64), 2), balanced=balanced)
            scores = head.scores(x)
            assert bool(scores.isfinite().all())
            torch.testing.assert_close(scores, torch.tensor([[1.0, 0.0]]).expand(n, 2))
            y = one_hot(torch.zeros(n, dtype=torch.int64), 2)
            unseen = left_out_scores(x, y, torch.arange(n), penalty=head.penalty, balanced=balanced)
            torch.testing.assert_close(unseen, torch.tensor([[0.0 if n == 1 else 1.0, 0.0]]).expand(n, 2))
            assert math.isfinite(fit_temperature(unseen, torch.zeros(n, dtype=torch.int64)))


def test_rows_without_any_class_are_fitted_too() -> None:
    x, y = random(8, 3), torch.zeros(8, 2)
    assert float(fit_ridge(x, y, balanced=True).scores(x).abs().max()) == 0.0
    y[:4, 0] = 1.0
    assert bool(fit_ridge(x, y, balanced=True).scores(x).isfinite().all())
    assert bool(left_out_scores(x, y, torch.arange(8) % 2, penalty=1.0, balanced=True).isfinite().all())


@pytest.mark.parametrize(
    ("x", "targets", "penalties", "said"),
    [
        (torch.ones(3), torch.ones(3, 1), None, r"x: must have two dimensions"),
        (torch.ones(3, 2), torch.ones(2, 1), None, r"targets: must be \(n, k\) with n = 3"),
        (torch.full((3, 2), math.nan), torch.ones(3, 1), None, "x: must be finite"),
        (torch.ones(3, 2, dtype=torch.int64), torch.ones(3, 1), None, "x: must be of a floating type"),
        (torch.ones(3, 2), torch.ones(3, 1), [0.0], r"penalties: must be numbers above 0, at least one, got \[0.0\]"),
        (torch.ones(3, 2), torch.ones(3, 1), [], "penalties: must be numbers above 0"),
    ],
)
def test_bad_input(x: Tensor, targets: Tensor, penalties: list[float] | None, said: str) -> None:
    with pytest.raises(InputError, match=said):
        fit_ridge(x, targets, penalties=penalties)


def test_scores_of_other_vectors() -> None:
    with pytest.raises(InputError, match=r"x: must be \(m, 2\), got shape \(1, 3\)"):
        fit_ridge(random(4, 2), torch.ones(4, 1)).scores(torch.ones(1, 3))


# ---- temperature


def test_probabilities_by_hand() -> None:
    found = probabilities(torch.tensor([[math.log(4.0), 0.0]]), temperature=0.5)
    assert found.ravel().tolist() == pytest.approx([16 / 17, 1 / 17])
    with pytest.raises(InputError, match="above 0"):
        probabilities(torch.ones(1, 2), 0.0)


@pytest.mark.parametrize("temperature", [0.2, 1.0, 4.0])
def test_the_temperature_that_made_the_truth_is_found(temperature: float) -> None:
    scores = random(5_000, 3)
    drawn = torch.multinomial(
        (scores / temperature).softmax(dim=1), 1, generator=torch.Generator().manual_seed(1)
    ).ravel()
    assert fit_temperature(scores, drawn) == pytest.approx(temperature, rel=0.1)


def test_the_temperature_has_the_least_loss() -> None:
    scores, truth = random(30, 4), torch.arange(30) % 4

    def loss(temperature: float) -> float:
        fits = torch.nn.functional.cross_entropy(scores.double() / temperature, truth, reduction="sum")
        return float(fits) + math.log(temperature) ** 2 / 8

    found = fit_temperature(scores, truth)
    assert loss(found) <= min(loss(0.01 * 1.01**i) for i in range(0, 926, 9)) + 1e-9


def test_few_samples_stay_near_one() -> None:
    nothing = fit_temperature(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64))
    assert nothing == pytest.approx(1.0, rel=1e-3)
    right = fit_temperature(torch.eye(3), torch.arange(3))  # without a prior: the least that there is
    assert 0.1 < right < 0.5
    many = fit_temperature(torch.eye(3).repeat(100, 1), torch.arange(3).repeat(100))
    assert many < right


def test_bad_scores() -> None:
    with pytest.raises(InputError, match=r"truth: must be in \[0, 2\), got 0..2"):
        fit_temperature(torch.ones(2, 2), torch.tensor([0, 2]))
    with pytest.raises(InputError, match="scores: must be finite"):
        fit_temperature(torch.full((1, 2), math.nan), torch.tensor([0]))
    with pytest.raises(InputError, match=r"scores and truth: must be \(n, k\) and \(n,\) torch.int64"):
        fit_temperature(torch.ones(2, 2), torch.ones(2))
