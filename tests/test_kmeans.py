"""engine.kmeans against a naive Lloyd, scikit-learn, and cases with known answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from torch import Tensor

from engine.errors import InputError
from engine.kmeans import _nearest, _sums, kmeans, kmeans_plusplus, minibatch_kmeans


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def blobs(n: int = 600, d: int = 5, k: int = 6, seed: int = 0, spread: float = 4.0) -> Tensor:
    generator = rng(seed)
    centers = torch.randn(k, d, generator=generator) * spread
    return centers[torch.arange(n) % k] + torch.randn(n, d, generator=generator)


def naive_lloyd(x: np.ndarray, centers: np.ndarray, iterations: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Lloyd's algorithm in float64 until nothing changes, one point against all centres."""
    labels = np.full(len(x), -1)
    for _ in range(iterations):
        squared = ((x[:, None] - centers) ** 2).sum(-1)
        if (squared.argmin(1) == labels).all():
            break
        labels = squared.argmin(1)
        centers = np.stack([x[labels == j].mean(0) for j in range(len(centers))])
    return labels, centers, float(((x - centers[labels]) ** 2).sum())


@pytest.mark.parametrize("d", [1, 3, 40])
def test_the_same_as_naive_lloyd_from_the_same_start(d: int) -> None:
    x = blobs(d=d, spread=1.5)
    start = x[kmeans_plusplus(x, 6, generator=rng(1))]
    found = kmeans(x, 6, generator=rng(), start=start, tolerance=0.0, max_iterations=300)
    labels, centers, inertia = naive_lloyd(x.double().numpy(), start.double().numpy(), 300)
    assert found.converged
    assert (found.assignment.numpy() == labels).all()
    assert np.allclose(found.centers.numpy(), centers, atol=1e-4)
    assert found.inertia == pytest.approx(inertia, rel=1e-5)
    assert found.sizes.tolist() == np.bincount(labels, minlength=6).tolist()
    assert float(found.distances.sum()) == pytest.approx(inertia, rel=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("d", "k"), [(1, 2), (2, 8), (2, 40), (15, 8), (16, 8)])
def test_many_rounds_over_doubled_points_keep_to_naive_lloyd(d: int, k: int, dtype: torch.dtype) -> None:
    x = blobs(n=1500, d=d, k=7, spread=0.7).to(dtype).repeat(2, 1) + 50.0
    start = x[kmeans_plusplus(x, k, generator=rng(1))]
    found = kmeans(x, k, generator=rng(), start=start, tolerance=0.0, max_iterations=300)
    labels, centers, inertia = naive_lloyd(x.double().numpy(), start.double().numpy(), 300)
    assert found.converged
    assert found.inertia == pytest.approx(inertia, rel=1e-3 if dtype == torch.float32 else 1e-9)
    assert torch.equal(found.assignment[:1500], found.assignment[1500:])
    if dtype == torch.float64:  # in float32 the means are rounded, so that a point between two may go either way
        assert (found.assignment.numpy() == labels).all()
        assert np.allclose(found.centers.numpy(), centers)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("d", "k"), [(1, 4), (2, 8), (3, 32), (3, 33), (20, 100)])
def test_the_nearest_of_whole_numbers_with_many_ties(d: int, k: int, dtype: torch.dtype) -> None:
    generator = rng(d * k)
    rows, centers = (torch.randint(-2, 3, (m, d), generator=generator) for m in (3000, k))
    squared = (rows[:, None] - centers).square().sum(dim=2)  # exact
    labels, lead = _nearest(rows.to(dtype), centers.to(dtype))
    least, second = squared.sort(dim=1).values[:, :2].double().sqrt().unbind(1)
    assert (least == second).any()
    assert (labels.numpy() == squared.numpy().argmin(1)).all(), "of equals the first"
    assert (lead <= second - least).all()
    assert (lead >= (second - least) * 0.98 - 1e-3).all(), "and not much too small"


@pytest.mark.parametrize("d", [1, 3, 15, 16, 40])
def test_sums_of_labels(d: int) -> None:
    rows, labels = torch.randint(-9, 10, (5000, d), generator=rng()), torch.randint(7, (5000,), generator=rng(1))
    expected = torch.stack([rows[labels == label].sum(dim=0) for label in range(8)])
    assert torch.equal(_sums(rows.float(), labels, 8), expected.double())


def test_four_corners_by_hand() -> None:
    x = torch.tensor([[0.0, 0], [0, 2], [10, 0], [10, 2]])
    found = kmeans(x, 2, generator=rng())
    assert found.inertia == pytest.approx(4.0)
    assert sorted(found.centers.tolist()) == [[0.0, 1.0], [10.0, 1.0]]
    assert found.distances.tolist() == [1.0] * 4


def test_no_worse_than_scikit_learn() -> None:
    x = blobs(n=2000, d=8, k=12, spread=2.0)
    ours = kmeans(x, 12, generator=rng(), restarts=10, tolerance=0.0, max_iterations=300)
    theirs = KMeans(12, n_init=10, tol=0.0, random_state=0).fit(x.numpy())
    assert ours.inertia <= theirs.inertia_ * 1.001


def test_the_result_does_not_depend_on_the_chunk_or_on_chance() -> None:
    x = blobs(n=1000)
    first, *others = (kmeans(x, 7, generator=rng(3), chunk=chunk) for chunk in (None, None, 1000, 37))
    for other in others:
        assert torch.equal(first.assignment, other.assignment)
    assert torch.equal(first.centers, others[0].centers)
    assert first.inertia == others[0].inertia


def test_a_large_offset_costs_no_digits() -> None:
    x = blobs()
    start = kmeans_plusplus(x, 6, generator=rng(1))
    near, far = (kmeans(y, 6, generator=rng(), start=y[start]) for y in (x.double(), x.double() + 1e7))
    assert torch.equal(near.assignment, far.assignment)
    assert kmeans(x + 1000.0, 6, generator=rng(), start=(x + 1000.0)[start]).inertia == pytest.approx(
        near.inertia, 1e-3
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_types(dtype: torch.dtype) -> None:
    found = kmeans(blobs(k=3).to(dtype), 3, generator=rng())
    assert found.centers.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert sorted(found.sizes.tolist()) == [200, 200, 200]


def test_an_empty_cluster_gets_the_farthest_point() -> None:
    x = torch.tensor([[0.0], [1.0], [2.0], [50.0]])
    found = kmeans(x, 3, generator=rng(), start=torch.tensor([[1.0], [-900.0], [-901.0]]))
    assert 0 not in found.sizes.tolist()
    assert found.inertia == pytest.approx(0.5)


def test_fewer_distinct_points_than_clusters() -> None:
    x = torch.tensor([[1.0, 1.0]] * 5 + [[2.0, 2.0]] * 5)
    found = kmeans(x, 4, generator=rng())
    assert found.inertia == 0.0
    assert sorted(found.sizes.tolist()) == [0, 0, 5, 5]
    assert kmeans(torch.ones(6, 3), 2, generator=rng()).inertia == 0.0


def test_a_tie_goes_to_the_lower_number() -> None:
    x = torch.tensor([[-1.0], [0.0], [1.0]])
    found = kmeans(x, 2, generator=rng(), start=torch.tensor([[-1.0], [1.0]]), max_iterations=1)
    assert found.assignment[1] == 0


@pytest.mark.parametrize(("n", "k"), [(1, 1), (5, 1), (5, 5)])
def test_the_ends_of_the_range(n: int, k: int) -> None:
    x = torch.arange(n, dtype=torch.float32)[:, None] * 3
    found = kmeans(x, k, generator=rng())
    assert sorted(found.sizes.tolist()) == sorted([n] if k == 1 else [1] * k)
    assert found.inertia == pytest.approx(float(x.var(correction=0)) * n if k == 1 else 0.0)


def test_running_out_of_iterations_is_said() -> None:
    x = blobs(n=2000, spread=0.2, k=20)
    assert not kmeans(x, 20, generator=rng(), max_iterations=1, restarts=1, tolerance=0.0).converged


def test_seeds_are_distinct_and_spread() -> None:
    x = blobs(n=600, k=6, spread=30.0)
    for seed in range(5):
        seeds = kmeans_plusplus(x, 6, generator=rng(seed))
        assert len(set((seeds % 6).tolist())) == 6, "one seed a blob: blobs are far apart"
    assert sorted(kmeans_plusplus(torch.arange(7.0)[:, None], 7, generator=rng()).tolist()) == list(range(7))


@pytest.mark.parametrize("kind", ["tensor", "memory map", "blocks"])
def test_mini_batches_find_what_lloyd_finds(kind: str, tmp_path: Path) -> None:
    x = blobs(n=6000, k=6, spread=5.0)
    source: object = x
    if kind == "memory map":
        np.save(tmp_path / "x.npy", x.numpy())
        source = np.load(tmp_path / "x.npy", mmap_mode="r")
    if kind == "blocks":
        source = lambda: iter(torch.split(x, 700))  # noqa: E731
    whole, before = kmeans(x, 6, generator=rng()), x.clone()
    first, second = (minibatch_kmeans(source, 6, generator=rng(1), batch=500) for _ in range(2))  # type: ignore[arg-type]
    assert torch.equal(x, before), "the caller's points are not touched"
    assert first.inertia <= whole.inertia * 1.01
    assert first.sizes.tolist() == torch.bincount(first.assignment, minlength=6).tolist()
    assert torch.equal(first.assignment, second.assignment)
    assert torch.equal(first.centers, second.centers)


@pytest.mark.parametrize(
    ("x", "k", "options", "message"),
    [
        (torch.ones(3, 2), 4, {}, r"k: must be 1\.\.3 \(the number of points\), got 4"),
        (torch.ones(3, 2), 0, {}, r"k: must be 1\.\.3"),
        (torch.ones(3), 1, {}, r"x: must be \(n, d\) .* got shape \(3,\)"),
        (torch.ones(0, 2), 1, {}, "x: must be"),
        (torch.ones(3, 2, dtype=torch.int64), 1, {}, "x: must be of a floating type, got torch.int64"),
        (torch.tensor([[1.0], [float("nan")]]), 1, {}, "x: must be finite, got NaN or infinity"),
        (torch.tensor([[1e30], [-1e30]]), 1, {}, "x: squared distances must stay below"),
        (torch.ones(3, 2), 2, {"restarts": 0}, "restarts: must be a whole number of at least 1, got 0"),
        (torch.ones(3, 2), 2, {"tolerance": -1.0}, r"tolerance: must be in \[0, inf\), got -1.0"),
        (torch.ones(3, 2), 2, {"chunk": 0}, "chunk: must be"),
        (torch.ones(3, 2), 2, {"start": torch.ones(3, 2)}, r"start: must be \(k, d\) = \(2, 2\), got shape \(3, 2\)"),
    ],
)
def test_arguments_out_of_range(x: Tensor, k: int, options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        kmeans(x, k, generator=rng(), **options)  # type: ignore[arg-type]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_same_on_a_gpu() -> None:
    x = blobs(n=5000)
    start = x[kmeans_plusplus(x, 6, generator=rng())]
    here, there = (kmeans(x.to(d), 6, generator=rng(), start=start.to(d)) for d in ("cpu", "cuda"))
    assert torch.equal(here.assignment, there.assignment.cpu())
