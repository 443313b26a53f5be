"""What to label next: planted groups, copies, near-duplicates, and who is asked about first."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.errors import InputError, UsageError
from engine.label import suggest as room
from engine.label.suggest import Suggestions, suggest, uncertainty


def blobs(sizes: list[int], *, spread: float = 0.05, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Groups of points far from each other: (n, 8), and the group of each."""
    by = torch.Generator().manual_seed(seed)
    group = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    centers = 4.0 * torch.eye(8)[: len(sizes)]
    return centers[group] + spread * torch.randn(len(group), 8, generator=by), group


def ask(vectors: Tensor, count: int, labeled: list[int] | None = None, **options: object) -> Suggestions:
    known = torch.zeros(len(vectors), dtype=torch.bool)
    known[labeled or []] = True
    chosen = {"candidates": ~known, "labeled": known, "generator": torch.Generator().manual_seed(3), **options}
    return suggest(vectors, count, **chosen)  # type: ignore[arg-type]


# ---- a cold start


def test_a_cold_start_asks_about_every_group_the_largest_first() -> None:
    vectors, group = blobs([10, 40, 20, 80])
    found = ask(vectors, 4)
    assert group[found.order].tolist() == [3, 1, 2, 0]
    assert found.why == ("typical",) * 4
    assert found.scores.tolist() == pytest.approx([80 / 150, 40 / 150, 20 / 150, 10 / 150])
    assert found.same == 0


def test_the_most_typical_is_in_the_middle() -> None:
    vectors, group = blobs([60, 60])
    found = ask(vectors, 2)
    for position in found.order.tolist():
        mine = vectors[group == group[position]]
        away = (mine - mine.mean(dim=0)).norm(dim=1)
        own = (vectors[position] - mine.mean(dim=0)).norm()
        assert float((away < own).float().mean()) < 0.25


def test_groups_with_a_label_come_after_those_without() -> None:
    vectors, group = blobs([80, 40, 20])
    first = int((group == 0).nonzero()[0])
    second = int((group == 1).nonzero()[0])
    found = ask(vectors, 1, labeled=[first, second])
    assert group[found.order].tolist() == [2]


# ---- uncertainty


def wavering(doubt: Tensor) -> Tensor:
    """(n, 2) probabilities of this uncertainty."""
    return torch.stack([1 - doubt / 2, doubt / 2], dim=1)


def test_the_uncertain_group_is_asked_about() -> None:
    vectors, group = blobs([40, 40, 40])
    doubt = torch.where(group == 1, 0.9, 0.0)
    found = ask(vectors, 1, labeled=[0, 1, 2, 3, 40, 41, 80, 81], probabilities=wavering(doubt))
    assert group[found.order].tolist() == [1]
    assert found.why == ("uncertain",)


def test_what_is_far_from_all_labels_is_new() -> None:
    vectors, group = blobs([40, 40, 40])
    doubt = torch.where(group == 2, 0.5, 0.6)  # a little more certain there, but nothing like it is labeled
    found = ask(vectors, 1, labeled=[0, 1, 2, 3, 40, 41], probabilities=wavering(doubt))
    assert group[found.order].tolist() == [2]
    assert found.why == ("new",)


def test_a_batch_is_spread_over_what_is_uncertain() -> None:
    vectors, group = blobs([60, 60, 60, 60])
    doubt = torch.where(group == 0, 0.01, 0.8)
    found = ask(vectors, 3, labeled=[0, 1, 2, 3], probabilities=wavering(doubt))
    assert sorted(group[found.order].tolist()) == [1, 2, 3]
    assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)
    assert 0.9 < float(found.scores.sum()) <= 1.0


def test_the_choice_is_the_greedy_one(monkeypatch: pytest.MonkeyPatch) -> None:
    by = torch.Generator().manual_seed(5)
    vectors, doubt = torch.randn(300, 4, generator=by), torch.rand(300, generator=by)
    known = torch.arange(300) < 6
    found = ask(vectors, 12, labeled=list(range(6)), probabilities=wavering(doubt))
    away = torch.cdist(vectors.double(), vectors.double()).square()
    closest = away[:, known].amin(dim=1)
    whole = float((doubt.clamp(min=0.01) * closest)[~known].sum())
    for position, score in zip(found.order.tolist(), found.scores.tolist(), strict=True):
        gains = (doubt.clamp(min=0.01) * (closest - away).clamp(min=0.0))[:, ~known].sum(dim=1)
        assert score == pytest.approx(float(gains[position]) / whole, rel=1e-3)
        assert float(gains[position]) >= float(gains[~known].max()) * (1 - 1e-4)
        closest = torch.minimum(closest, away[position])
    monkeypatch.setattr(room, "_BLOCK", 1_000)
    assert (
        ask(vectors, 12, labeled=list(range(6)), probabilities=wavering(doubt)).order.tolist() == found.order.tolist()
    )


def test_with_less_than_two_labels_a_class_typical_images_come_first() -> None:
    vectors, group = blobs([40, 40, 40])
    beliefs = torch.full((120, 4), 0.25)
    few = ask(vectors, 2, labeled=[0, 1, 2, 3, 4, 5, 6], probabilities=beliefs)
    more = ask(vectors, 2, labeled=[0, 1, 2, 3, 4, 5, 6, 7], probabilities=beliefs)
    assert set(few.why) == {"typical"}
    assert "typical" not in more.why
    assert sorted(group[more.order].tolist()) == [1, 2]


def test_uncertainty_by_hand() -> None:
    rows = torch.tensor([[0.7, 0.2, 0.1], [0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [float("nan")] * 3])
    assert uncertainty(rows).tolist() == pytest.approx([0.5, 1.0, 0.0, 1.0])
    # Several labels a row: the label nearest to one half tells.
    assert uncertainty(rows, multi_label=True).tolist() == pytest.approx([0.6, 1.0, 0.0, 1.0])
    assert uncertainty(torch.tensor([[0.8]])).tolist() == pytest.approx([0.2])


# ---- no picture twice


@pytest.mark.parametrize("beliefs", [None, torch.full((90, 2), 0.5)])
def test_copies_are_never_suggested_twice(beliefs: Tensor | None) -> None:
    vectors = blobs([10, 10, 10])[0].repeat(3, 1)
    found = ask(vectors, 90, labeled=[0, 1, 2, 3, 10, 20], probabilities=beliefs)
    chosen = {position % 30 for position in found.order.tolist()}
    assert len(chosen) == len(found.order)
    assert not chosen & {0, 1, 2, 3, 10, 20}
    assert found.same == 84 - len(found)


@pytest.mark.parametrize("beliefs", [None, torch.full((200, 2), 0.5)])
def test_near_duplicates_are_not_in_one_batch(beliefs: Tensor | None) -> None:
    by = torch.Generator().manual_seed(0)
    scenes = torch.randn(100, 8, generator=by)
    vectors = torch.cat([scenes, scenes + 0.01 * torch.randn(100, 8, generator=by)])
    order = torch.arange(200)
    # The usual distance must be between scenes: a tenth of them has a near-duplicate here.
    keep = (order < 100) | (order % 10 == 0)
    beliefs = beliefs[keep] if beliefs is not None else None
    found = ask(vectors[keep], 110, labeled=[5, 15, 25, 40, 50], probabilities=beliefs)
    scene = order[keep][found.order] % 100
    assert len(set(scene.tolist())) == len(scene)
    assert not set(scene.tolist()) & {5, 15, 25, 40, 50}
    assert found.same == 105 - len(found)
    assert len(found) > 80


def test_all_the_same_image() -> None:
    vectors = torch.full((9, 4), 0.3)
    found = ask(vectors, 5)
    assert (len(found), found.same) == (1, 8)
    assert len(ask(vectors, 5, labeled=[4])) == 0


def test_copies_of_what_is_neither_labeled_nor_a_candidate_may_be_chosen() -> None:
    vectors = torch.tensor([[0.0, 0.0], [0.0, 0.0], [5.0, 1.0]])
    candidates = torch.tensor([False, True, False])
    found = suggest(
        vectors,
        3,
        candidates=candidates,
        labeled=torch.tensor([False, False, True]),
        generator=torch.Generator().manual_seed(0),
    )
    assert found.order.tolist() == [1]


# ---- the same again, and what does not fit


def test_the_same_question_has_the_same_answer() -> None:
    vectors, _ = blobs([50, 30, 40], spread=0.5)
    for beliefs in (None, wavering(torch.linspace(0, 1, 120))):
        one, two = (ask(vectors, 15, labeled=[1, 60, 90, 100], probabilities=beliefs) for _ in range(2))
        assert one.order.tolist() == two.order.tolist()
        assert np.array_equal(one.scores, two.scores) and one.why == two.why


@pytest.mark.parametrize("n", [1, 2])
def test_hardly_anything_to_choose_from(n: int) -> None:
    assert sorted(ask(torch.eye(n), 5).order.tolist()) == list(range(n))


def test_only_candidates_are_suggested() -> None:
    vectors, group = blobs([30, 30])
    found = ask(vectors, 40, candidates=group == 1)
    assert set(group[found.order].tolist()) == {1}
    assert len(found) <= 30


def test_many_points_are_looked_at_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_CROWD", 50)
    vectors, group = blobs([100, 60, 80])
    assert group[ask(vectors, 3).order].tolist() == [0, 2, 1]
    doubt = torch.where(group == 1, 0.9, 0.0)
    found = ask(vectors, 1, labeled=[0, 1, 100, 160], probabilities=wavering(doubt))
    assert group[found.order].tolist() == [1]


def test_bad_input() -> None:
    vectors = torch.ones(3, 2)
    with pytest.raises(UsageError, match="count: must be at least 1, got 0"):
        ask(vectors, 0)
    with pytest.raises(InputError, match=r"vectors: must be \(n, d\)"):
        ask(torch.ones(3, 2, dtype=torch.int64), 1)
    with pytest.raises(InputError, match="vectors: must be finite"):
        ask(torch.full((3, 2), torch.inf), 1)
    with pytest.raises(InputError, match=r"candidates: must be \(3,\) torch.bool, got \(2,\)"):
        ask(vectors, 1, candidates=torch.ones(2, dtype=torch.bool))
    with pytest.raises(InputError, match="candidates: must not be labeled, got 1 that are"):
        ask(vectors, 1, labeled=[0], candidates=torch.ones(3, dtype=torch.bool))
    with pytest.raises(InputError, match=r"probabilities: must be \(3, k\), got \(2, 2\)"):
        ask(vectors, 1, probabilities=torch.ones(2, 2))
