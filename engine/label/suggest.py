"""What to label next: the images whose labels would teach the most, none of them twice.

In: vectors (n, d) that lie near when images are alike, which rows a person labeled, which may be suggested, and what a
model believes of them, if there is one. Out: positions in the order in which they help, and why.

    few labels or none   the most typical image of each of the largest clusters without a label (TypiClust)
    more                 images that stand for the uncertain ones: each takes the squared distance off its uncertain
                         neighbours, the next one is chosen by what is left (a greedy facility location, weighted by
                         uncertainty, as k-means++ and BADGE do by chance)

Chosen by benchmarks/suggest.py. Knows nothing of images, or of how vectors and beliefs were made.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engine.errors import InputError, UsageError
from engine.kmeans import kmeans

#: Why an image is suggested: it is like many others; the model wavers; nothing like it was labeled.
REASONS: Final = ("typical", "uncertain", "new")

#: Labels a class, on average, below which typical images come first: with few labels doubt is a bad guide (Hacohen et
#: al. 2022). From two a class on it is the better one (signs, 40 labels: 66.4 % against 63.5 % by typical images).
TYPICAL_BELOW: Final = 2

#: Clusters of TypiClust are at most so many, and one of fewer images than _SMALL comes after the others (its authors').
_MOST_CLUSTERS: Final = 500
_SMALL: Final = 5
_NEIGHBOURS: Final = 20  # that say how typical an image is (its authors')

#: Images nearer than this part of the usual distance to the nearest one are the same picture again.
_NEAR: Final = 0.3
#: Squared distances are that exact, as a part of the mean square of a vector.
_ROUNDING: Final = 1e-5

#: Of the candidates the most uncertain _POOL an image wanted are looked at, and at least _LEAST_POOL.
_POOL: Final = 40
_LEAST_POOL: Final = 800
_MOST_POOL: Final = 4_000
#: An image that the model is sure of counts as much, so that sure regions are not left out for ever.
_SURE: Final = 0.01

#: Rows that stand for all where each is compared with each.
_CROWD: Final = 20_000
_BLOCK: Final = 2**23  # distances at once: 32 MB
_TRIES: Final = 16


@dataclass(frozen=True, slots=True)
class Suggestions:
    """What to label next. order: (m,) int64, positions, most useful first; m may be less than was asked for.

    scores: (m,) float32 in [0, 1]: of a typical image the part of all images that is in its cluster; of others the part
    of all uncertainty, by squared distance from what is labeled, that the image takes away after those before it.
    why: one of REASONS each. same: candidates that were passed over, being the same picture as one that is labeled or
    suggested (to the distance of near-duplicates).
    """

    order: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]
    why: tuple[str, ...]
    same: int

    def __len__(self) -> int:
        return len(self.order)


def suggest(
    vectors: Tensor,
    count: int,
    *,
    candidates: Tensor,
    labeled: Tensor,
    probabilities: Tensor | None = None,
    multi_label: bool = False,
    generator: torch.Generator,
) -> Suggestions:
    """At most `count` rows to label next, all different pictures.

    vectors: (n, d) finite, floating, n at least 1. candidates, labeled: (n,) bool, none both. probabilities: (n, k),
    what a model believes, calibrated; NaN in rows of which it says nothing. None, or fewer than TYPICAL_BELOW labeled
    rows a class: typical images. multi_label: each column speaks for itself. Same arguments, same result.

    Memory: a few numbers a row, and blocks of distances; never (n, n).
    Raises UsageError when count is not at least 1, InputError when shapes, types or values do not fit.
    Source: Hacohen, Dekel and Weinshall 2022 (TypiClust); Ash et al. 2020 (BADGE) and Citovsky et al. 2021
    (Cluster-Margin) for uncertainty with diversity.
    """
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise UsageError(f"count: must be at least 1, got {count!r}")
    _check(vectors, candidates, labeled, probabilities)
    rows = vectors.detach().float().cpu()
    cover = _Cover(rows - rows.mean(dim=0), candidates.cpu(), labeled.cpu())
    if probabilities is None or int(labeled.sum()) < TYPICAL_BELOW * probabilities.shape[1]:
        found = _typical(cover, count, generator)
    else:
        found = _uncertain(cover, count, uncertainty(probabilities.cpu(), multi_label=multi_label), generator)
    order = np.array([position for position, _, _ in found], np.int64)
    scores = np.array([min(1.0, max(0.0, score)) for _, score, _ in found], np.float32)
    same = int((candidates.cpu() & ~cover.open).sum()) - len(found)
    return Suggestions(order, scores, tuple(why for _, _, why in found), same)


def uncertainty(probabilities: Tensor, *, multi_label: bool = False) -> Tensor:
    """(n, k) -> (n,) float32 in [0, 1], 1 = the model cannot decide; 1 where a row is not finite.

    One label a row: 1 - (the largest probability - the second largest). multi_label: of the least certain column,
    1 - |2 p - 1|.
    """
    known = probabilities.isfinite().all(dim=1)
    values = torch.where(known[:, None], probabilities.float(), 0.0)
    if multi_label:
        doubt = 1.0 - (2.0 * values - 1.0).abs().amin(dim=1)
    elif values.shape[1] == 1:
        doubt = 1.0 - values[:, 0]
    else:
        best = values.topk(2, dim=1).values
        doubt = 1.0 - (best[:, 0] - best[:, 1])
    return torch.where(known, doubt.clamp(0.0, 1.0), 1.0)


def _check(vectors: Tensor, candidates: Tensor, labeled: Tensor, probabilities: Tensor | None) -> None:
    if vectors.ndim != 2 or not vectors.shape[0] or not vectors.shape[1] or not vectors.is_floating_point():
        got = f"{tuple(vectors.shape)} {vectors.dtype}"
        raise InputError(f"vectors: must be (n, d) of a floating type, n and d at least 1, got {got}")
    if not bool(vectors.isfinite().all()):
        raise InputError("vectors: must be finite, got NaN or infinity")
    n = len(vectors)
    for what, mask in (("candidates", candidates), ("labeled", labeled)):
        if mask.shape != (n,) or mask.dtype != torch.bool:
            raise InputError(f"{what}: must be ({n},) torch.bool, got {tuple(mask.shape)} {mask.dtype}")
    if bool((candidates & labeled).any()):
        raise InputError(f"candidates: must not be labeled, got {int((candidates & labeled).sum())} that are")
    if probabilities is not None and (probabilities.ndim != 2 or len(probabilities) != n or not probabilities.shape[1]):
        raise InputError(f"probabilities: must be ({n}, k), got {tuple(probabilities.shape)}")


# ---- What is covered already: near-duplicates. ----


class _Cover:
    """The rows, and how far each is from the nearest row that is labeled or chosen.

    rows: (n, d) float32 of mean 0. open: (n,) bool, what may still be chosen. closest: (n,) squared distances, infinite
    while nothing is covered. radius: squared, within which two rows are the same picture. first: (m,) int64, one row of
    each set of equal ones, the labeled or open one if there is any.
    """

    def __init__(self, rows: Tensor, candidates: Tensor, labeled: Tensor) -> None:
        self.rows = rows
        self.open = candidates.clone()
        self.labeled = labeled
        self.first = _first_of_equals(rows, candidates, labeled)
        copies = torch.ones(len(rows), dtype=torch.bool)
        copies[self.first] = False
        self.open &= ~copies
        self.radius = self._near()
        self.closest = torch.full((len(rows),), math.inf)
        known = rows[labeled]
        for start in range(0, len(known), max(1, _BLOCK // len(rows))):
            part = known[start : start + max(1, _BLOCK // len(rows))]
            self.closest = torch.minimum(self.closest, _squared(rows, part).amin(dim=1))
        self.open &= self.closest > self.radius

    def take(self, position: int) -> None:
        """Cover a row: it and its near-duplicates are open no more."""
        away = (self.rows - self.rows[position]).square_().sum(dim=1)
        self.closest = torch.minimum(self.closest, away)
        self.open &= self.closest > self.radius
        self.open[position] = False

    def _near(self) -> float:
        """(_NEAR times the median distance to the nearest other picture) squared, over at most 2,000 of them."""
        size = float(self.rows.square().sum(dim=1).mean())
        among = self.rows[_evenly(self.first, _CROWD)]
        nearest = _to_nearest(self.rows[_evenly(self.first, 2_000)], among, 1)
        usual = float(nearest.median()) if nearest.numel() else 0.0
        return max((_NEAR * usual) ** 2, _ROUNDING * size)


def _first_of_equals(rows: Tensor, candidates: Tensor, labeled: Tensor) -> Tensor:
    """(m,) int64, ascending: one row of each set of rows that are equal to five digits."""
    step = 1e-5 * max(float(rows.abs().max()), 1e-30)
    digits = np.ascontiguousarray((rows / step).round().numpy().astype(np.int32))
    rank = np.where(labeled.numpy(), 0, np.where(candidates.numpy(), 1, 2))
    by_rank = np.argsort(rank, kind="stable")
    keys = digits[by_rank].view([("", digits.dtype)] * digits.shape[1]).ravel()
    _, places = np.unique(keys, return_index=True)
    return torch.from_numpy(np.sort(by_rank[places]))


def _squared(a: Tensor, b: Tensor) -> Tensor:
    """(m, d), (l, d) -> (m, l) squared distances, at least 0."""
    sizes = a.square().sum(dim=1)[:, None] + b.square().sum(dim=1)
    return torch.addmm(sizes, a, b.T, alpha=-2.0).clamp_(min=0.0)


def _to_nearest(rows: Tensor, among: Tensor, count: int) -> Tensor:
    """(m, at most count) distances to the nearest rows of `among`, the row itself, a distance of about 0, left out."""
    count = min(count, len(among) - 1)
    floor = math.sqrt(_ROUNDING * float(among.square().sum(dim=1).mean()))
    found = [torch.empty(0, count)]
    for part in torch.split(rows, max(1, _BLOCK // len(among))):
        near = _squared(part, among).topk(count + 1, largest=False).values.sqrt_()
        own = near[:, :1] <= floor
        found.append(torch.where(own, near[:, 1:], near[:, :-1]))
    return torch.cat(found)


def _evenly(positions: Tensor, most: int) -> Tensor:
    """At most so many of the positions, from the first to the last."""
    if len(positions) <= most:
        return positions
    return positions[torch.linspace(0, len(positions) - 1, most, dtype=torch.float64).round().long()]


# ---- Few labels: typical images. ----


def _typical(cover: _Cover, count: int, generator: torch.Generator) -> list[tuple[int, float, str]]:
    """(position, score, why) of the most typical image of the largest cluster with the fewest labels, and again."""
    first = cover.first
    rows = cover.rows[first]
    k = min(int(cover.labeled.sum()) + count, _MOST_CLUSTERS, len(rows))
    cluster = kmeans(rows, k, generator=generator, restarts=1, max_iterations=20).assignment
    sizes = torch.bincount(cluster, minlength=k).tolist()
    has = torch.bincount(cluster[cover.labeled[first]], minlength=k).tolist()
    away = _to_nearest(rows, rows[_evenly(torch.arange(len(rows)), _CROWD)], _NEIGHBOURS)
    most_typical = (away.mean(dim=1) if away.shape[1] else torch.zeros(len(rows))).argsort(stable=True)
    waiting: list[list[int]] = [[] for _ in range(k)]
    for at, of in zip(first[most_typical].tolist(), cluster[most_typical].tolist(), strict=True):
        waiting[of].append(at)
    queues = [iter(members) for members in waiting]

    found: list[tuple[int, float, str]] = []
    heap = [(has[c], sizes[c] < _SMALL, -sizes[c], c) for c in range(k)]
    heapq.heapify(heap)
    while heap and len(found) < count:
        labels, small, _, c = heapq.heappop(heap)
        position = next((each for each in queues[c] if cover.open[each]), None)
        if position is not None:
            found.append((position, sizes[c] / len(first), "typical"))
            cover.take(position)
            heapq.heappush(heap, (labels + 1, small, -sizes[c], c))
    return found


# ---- More labels: what stands for the uncertain ones. ----


def _uncertain(cover: _Cover, count: int, doubt: Tensor, generator: torch.Generator) -> list[tuple[int, float, str]]:
    """(position, score, why), greedily by how much uncertain distance each takes away.

    The gain of an image only shrinks as others are chosen: old gains are bounds, and the few best are renewed.
    """
    open_rows = cover.open.nonzero().ravel()
    if not len(open_rows):
        return []
    drawn = torch.randperm(len(open_rows), generator=generator)[:_CROWD].sort().values
    crowd = open_rows[drawn]
    weights = doubt[crowd].clamp(min=_SURE)
    size = min(len(open_rows), max(_LEAST_POOL, min(_POOL * count, _MOST_POOL), 4 * count))
    pool = open_rows[doubt[open_rows].sort(descending=True, stable=True).indices[:size]].sort().values
    whole = float((weights * cover.closest[crowd]).sum())

    def gains(some: Tensor) -> Tensor:
        parts = torch.split(some, max(1, _BLOCK // len(crowd)))
        closest = cover.closest[crowd]
        return torch.cat(
            [(closest - _squared(cover.rows[part], cover.rows[crowd])).clamp_(min=0.0) @ weights for part in parts]
        )

    bounds = gains(pool)
    found: list[tuple[int, float, str]] = []
    while len(found) < count:
        bounds[~cover.open[pool]] = -1.0
        best = bounds.topk(min(_TRIES, len(bounds))).indices
        if float(bounds[best[0]]) < 0.0:
            break
        bounds[best] = torch.minimum(bounds[best], gains(pool[best]))
        at = int(best[bounds[best].argmax()])
        if float(bounds[at]) < float(bounds.max()):
            continue  # an old bound lies above all that were renewed
        position = int(pool[at])
        found.append((position, float(bounds[at]) / whole if whole > 0.0 else 0.0, _why(cover, position, doubt, crowd)))
        cover.take(position)
    return found


def _why(cover: _Cover, position: int, doubt: Tensor, crowd: Tensor) -> str:
    """Which of the two the image has more of, by rank among the candidates: doubt, or distance from what is covered."""
    wavering = float((doubt[crowd] < doubt[position]).float().mean())
    strange = float((cover.closest[crowd] < cover.closest[position]).float().mean())
    return "new" if strange > wavering else "uncertain"
