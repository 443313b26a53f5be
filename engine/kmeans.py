"""K-means: points (n, d) in, `Clusters` out. Knows nothing of images, files or what the points mean.

`kmeans` is Lloyd's algorithm with greedy k-means++ seeding, restarts and repair of empty clusters; the result is
that of the plain algorithm, reached with less work: a point whose lead, the distance to its second nearest centre
less that to its nearest, exceeds what any two centres have moved since it was measured cannot change sides and is
not looked at again (the bounds of Hamerly 2010, folded into one number a point and one for all), and the sums of the
clusters follow the points that change sides. `minibatch_kmeans` reads points that do not fit in memory.

Exactness. Points are computed with less their mean, so that an offset costs no digits, in float32 (float64 for
float64 points). Centres are compared by |c|^2 / 2 - x.c; a point whose two best centres differ by less than that
may err by rounding is compared again in float64, and what is a tie even then goes to the centre with the lower
number. The bound on the error holds for PyTorch's default matmul precision, "highest".

Determinism. The same call gives the same bytes on one machine: nothing is summed by atomics, cluster sums are
float64 and made by index_add (CPU: each number of the result has one thread, in the order of the points) or by a
one-hot matrix product (elsewhere).

Memory. Points are visited `chunk` rows at a time, so neither (n, k) nor a copy of the points ever exists; beside
them a run holds 12 bytes a point, its seeding 4 (2 + ln k) more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias

import torch
from torch import Tensor

from engine.errors import InputError

#: Elements of the largest temporary block. On a CPU a few MB, to stay in its caches; a GPU wants work by the launch.
_BLOCK: Final = {"cpu": 2**20}
_BLOCK_ELSEWHERE: Final = 2**24

#: Leads, and the limits made of them, are kept this much too small: it covers the rounding of 80 steps in float32.
_GUARD: Final = 1.0 - 1e-5

#: Up to so many centres are compared one after the other over all rows: the two least of 8 in 9 ns a row, not 22. With
#: 100 centres it is the slower way (246 ns, not 178).
_FEW: Final = 32

#: Rows shorter than this are summed column by column on a CPU: of 3 columns, in 5 ns a row, not 45 (16: in 26, not 18).
_NARROW: Final = 16

#: Squared distances are taken directly where the fast form could be off by more than 1 / _CANCELLED of them.
_CANCELLED: Final = 100.0

#: Rows whose weights are summed together when one is drawn: the square root of a million, about.
_DRAW_BLOCK: Final = 1024


class Array(Protocol):
    """What a NumPy array or memory map offers: a shape, and rows by slice or by an array of row numbers."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, rows: Any, /) -> Any: ...


#: Points that need not fit in memory: rows by number, or a function that begins a new pass over blocks (m, d).
Source: TypeAlias = Tensor | Array | Callable[[], Iterable[Tensor]]


@dataclass(frozen=True, slots=True)
class Clusters:
    """A partition of n points, parallel to them.

    assignment: (n,) int64 in [0, k), the nearest of centers. centers: (k, d), float32 or float64. distances: (n,)
    squared, to the own centre. sizes: (k,) int64; a zero means that there were fewer distinct points than k (or
    that the iterations ran out on the way). inertia: the sum of distances. iterations: rounds of Lloyd, or passes of
    the mini-batch mode, of the run that was kept. converged: False when they ran out.
    """

    assignment: Tensor
    centers: Tensor
    distances: Tensor
    sizes: Tensor
    inertia: float
    iterations: int
    converged: bool


# ---- The public doors: they validate. ----


def kmeans(
    x: Tensor,
    k: int,
    *,
    generator: torch.Generator,
    restarts: int = 4,
    max_iterations: int = 100,
    tolerance: float = 1e-4,
    start: Tensor | None = None,
    chunk: int | None = None,
) -> Clusters:
    """The best of `restarts` runs of Lloyd's algorithm, each from its own k-means++ seeds.

    x: (n, d) finite, of a floating type, on any device; float16 and bfloat16 are computed in float32. k: 1..n.
    generator: of the CPU or of x's device. start: (k, d) centres to begin with; there is then one run. tolerance:
    a run ends when the squared moves of its centres sum to no more than tolerance times the mean variance of the
    columns (as in scikit-learn; 0 waits for standstill), and always when no point changes sides. chunk: rows at a
    time, chosen to fit the caches by default; it does not change the result.

    An empty cluster is given the point that lies farthest from its own centre (the first of several).

    Raises InputError when an argument is out of its range.
    Source: Lloyd 1982; Arthur and Vassilvitskii 2007; Hamerly 2010.
    """
    points = _points(x, chunk, at_least=k)
    _check_at_least("restarts", restarts, 1)
    _check_options(max_iterations, tolerance)
    starts: Iterator[Tensor]
    if start is None:
        starts = (points.rows(_plusplus(points, k, generator)) for _ in range(restarts))
    else:
        starts = iter([points.inward(_checked_start(start, k, x.shape[1]).to(x.device))])
    runs = (_lloyd(points, centers, max_iterations, tolerance * points.variance) for centers in starts)
    return min(runs, key=lambda run: run.inertia)  # the first of equals


def kmeans_plusplus(x: Tensor, k: int, *, generator: torch.Generator, chunk: int | None = None) -> Tensor:
    """The rows of x (n, d) to seed k-means with: (k,) int64, distinct while there are distinct points left.

    The first is drawn uniformly; each next one in proportion to the squared distance from those before, the best of
    2 + ln k draws (greedy k-means++). Raises InputError as `kmeans` does. Source: Arthur and Vassilvitskii 2007.
    """
    return _plusplus(_points(x, chunk, at_least=k), k, generator)


def minibatch_kmeans(
    source: Source,
    k: int,
    *,
    generator: torch.Generator,
    batch: int = 4096,
    restarts: int = 4,
    max_iterations: int = 10,
    tolerance: float = 1e-4,
    start: Tensor | None = None,
    device: torch.device | str = "cpu",
) -> Clusters:
    """K-means of points that need not fit in memory: a sample clustered in full, then refined by mini-batches.

    source: a tensor, a NumPy array or memory map (n, d), read `batch` random rows at a time; or a function that
    begins a new pass over blocks (m, d) and gives the same rows each time, whose order should then be mixed. The
    passes: one to measure and to sample max(4 batch, 100 k) rows uniformly, at most max_iterations that learn, one
    that assigns every point. Each centre is the running mean of what it was given (learning rate 1 / count);
    a centre that a pass gave nothing is put on the farthest points of its last batch.
    start: (k, d) centres instead of the sample's. tolerance: as for `kmeans`, over a pass. device: where to compute
    and where the result lies.

    Raises InputError as `kmeans` does. Source: Sculley 2010, "Web-scale k-means clustering".
    """
    _check_at_least("batch", batch, 1)
    _check_at_least("restarts", restarts, 1)
    _check_options(max_iterations, tolerance)
    stream = _measured(source, batch, torch.device(device), generator, sample=max(4 * batch, 100 * k))
    _check_k(k, stream.n)
    sample = _Points(stream.sample, stream.shift, stream.variance, _chunk_rows(stream.sample, None, k))
    if start is None:
        runs = (
            _lloyd(sample, sample.rows(_plusplus(sample, k, generator)), 100, tolerance * stream.variance)
            for _ in range(restarts)
        )
        first = min(runs, key=lambda run: run.inertia)
        centers, seen = sample.inward(first.centers), first.sizes
    else:
        centers = sample.inward(_checked_start(start, k, stream.sample.shape[1]).to(device))
        seen = torch.zeros(k, dtype=torch.int64, device=device)
    return _learned(stream, centers, seen, generator, max_iterations, tolerance * stream.variance)


def _points(x: Tensor, chunk: int | None, *, at_least: int) -> _Points:
    if x.ndim != 2 or not x.shape[0] or not x.shape[1]:
        raise InputError(f"x: must be (n, d) with n and d at least 1, got shape {tuple(x.shape)}")
    if not x.is_floating_point():
        raise InputError(f"x: must be of a floating type, got {x.dtype}")
    _check_k(at_least, x.shape[0])
    if chunk is not None:
        _check_at_least("chunk", chunk, 1)
    x = x.detach()
    rows = _chunk_rows(x, chunk, at_least)
    moments = _Moments.of(x[part] for part in _slices(len(x), rows))
    moments.check("x")
    return _Points(x, moments.mean.to(_computing(x.dtype)), moments.variance, rows)


def _checked_start(start: Tensor, k: int, d: int) -> Tensor:
    if start.shape != (k, d):
        raise InputError(f"start: must be (k, d) = {(k, d)}, got shape {tuple(start.shape)}")
    if not start.is_floating_point() or not bool(start.isfinite().all()):
        raise InputError(f"start: must be finite and of a floating type, got {start.dtype} with NaN or infinity")
    return start.detach()


def _check_k(k: int, n: int) -> None:
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= n:
        raise InputError(f"k: must be 1..{n} (the number of points), got {k!r}")


def _check_at_least(what: str, value: int, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(f"{what}: must be a whole number of at least {least}, got {value!r}")


def _check_options(max_iterations: int, tolerance: float) -> None:
    _check_at_least("max_iterations", max_iterations, 1)
    if not 0.0 <= tolerance < math.inf:
        raise InputError(f"tolerance: must be in [0, inf), got {tolerance!r}")


# ---- The points as the mathematics sees them: centred, in the computing type, some rows at a time. ----


@dataclass(frozen=True, slots=True)
class _Points:
    """x: (n, d) as given. shift: (d,) their mean in the computing type. variance: mean over the columns."""

    x: Tensor
    shift: Tensor
    variance: float
    chunk: int

    def __len__(self) -> int:
        return self.x.shape[0]

    def rows(self, where: slice | Tensor) -> Tensor:
        """(m, d), centred."""
        chosen = self.x[where] if isinstance(where, slice) else self.x.index_select(0, where)
        return chosen.to(self.shift.dtype).sub(self.shift)

    def chunks(self, numbers: Tensor | None = None) -> Iterator[slice | Tensor]:
        """All rows, or those with the given numbers, a chunk at a time."""
        if numbers is None:
            yield from _slices(len(self), self.chunk)
        else:
            yield from torch.split(numbers, self.chunk)

    def inward(self, centers: Tensor) -> Tensor:
        """Centres in the frame of x -> centred, computing type."""
        return (centers.double() - self.shift.double()).to(self.shift.dtype)

    def outward(self, centers: Tensor) -> Tensor:
        """Centred -> the frame of x."""
        return (centers.double() + self.shift.double()).to(self.shift.dtype)


@dataclass(slots=True)
class _Moments:
    """Count, mean and squared deviations of a stream of rows, float64 (Chan, Golub and LeVeque 1979)."""

    n: int
    mean: Tensor
    deviations: Tensor
    limit: float

    @classmethod
    def of(cls, blocks: Iterable[Tensor]) -> _Moments:
        moments: _Moments | None = None
        for block in blocks:
            if moments is None:
                zeros = torch.zeros(block.shape[1], dtype=torch.float64, device=block.device)
                moments = cls(0, zeros, zeros, torch.finfo(_computing(block.dtype)).max)
            moments.add(block)
        assert moments is not None
        return moments

    def add(self, block: Tensor) -> None:
        m = block.shape[0]
        mean = block.sum(dim=0, dtype=torch.float64) / m
        spread = block.to(_computing(block.dtype)) - mean.to(_computing(block.dtype))
        gap = mean - self.mean
        # The block's own mean is rounded in `spread`: what that adds, m times its square, is of no account here.
        self.deviations = self.deviations + spread.square_().sum(dim=0, dtype=torch.float64)
        self.deviations += gap.square() * (self.n * m / (self.n + m))
        self.mean = self.mean + gap * (m / (self.n + m))
        self.n += m

    @property
    def variance(self) -> float:
        return float(self.deviations.mean()) / self.n

    def check(self, what: str) -> None:
        """Raise InputError when a value was not finite, or squared distances would not be."""
        if not bool(self.mean.isfinite().all()):
            raise InputError(f"{what}: must be finite, got NaN or infinity")
        if not float(self.deviations.sum()) < self.limit / 16:
            total = float(self.deviations.sum())
            raise InputError(f"{what}: squared distances must stay below {self.limit / 16:.1g}, got {total:.1g}")


def _computing(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _chunk_rows(x: Tensor, chunk: int | None, k: int) -> int:
    block = _BLOCK.get(x.device.type, _BLOCK_ELSEWHERE)
    return chunk or max(1, block // max(k, x.shape[1]))


def _slices(n: int, size: int) -> Iterator[slice]:
    return (slice(begin, min(begin + size, n)) for begin in range(0, n, size))


# ---- Seeding. ----


def _plusplus(points: _Points, k: int, generator: torch.Generator) -> Tensor:
    """Greedy k-means++: (k,) row numbers on the device of the points."""
    n, device = len(points), points.x.device
    trials = 2 + int(math.log(k))
    chosen = torch.empty(k, dtype=torch.int64, device=device)
    chosen[0] = torch.randint(n, (), generator=generator, device=generator.device).to(device)
    closest = torch.full((n,), math.inf, dtype=points.shift.dtype, device=device)
    closest = _reduced(points, chosen[:1], closest)[0]
    for i in range(1, k):
        candidates = _draw(closest, trials, generator)
        reduced = _reduced(points, candidates, closest)  # (trials, n)
        best = reduced.sum(dim=1, dtype=torch.float64).argmin()
        chosen[i] = candidates[best]
        closest = reduced[best]
    return chosen


def _reduced(points: _Points, candidates: Tensor, closest: Tensor) -> Tensor:
    """(t, n): the squared distance of each point to the nearest seed, were each of t candidates one."""
    centers = points.rows(candidates)
    reduced = closest.new_empty(len(candidates), len(points))
    for part in _slices(len(points), points.chunk):
        torch.minimum(_squared_distances(centers, points.rows(part)), closest[part], out=reduced[:, part])
    return reduced


def _squared_distances(centers: Tensor, rows: Tensor) -> Tensor:
    """(k, d), (m, d) -> (k, m), good to 1 / _CANCELLED at worst, and exactly 0 between equals."""
    far = centers.square().sum(dim=1)[:, None] + rows.square().sum(dim=1)
    squared = torch.addmm(far, centers, rows.T, alpha=-2)
    c, r = (squared <= far * (2 * _CANCELLED * _rounding(rows))).nonzero(as_tuple=True)
    for part in _slices(len(c), max(1, _BLOCK["cpu"] // rows.shape[1])):
        squared[c[part], r[part]] = (centers[c[part]] - rows[r[part]]).square_().sum(dim=1)
    return squared


def _draw(weights: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """(count,) row numbers in proportion to weights (n,); uniform when these are all zero.

    In two levels, blocks and then rows, since a parallel cumulative sum over n need not repeat itself bit by bit.
    """
    n = len(weights)
    blocks = torch.nn.functional.pad(weights, (0, -n % _DRAW_BLOCK)).view(-1, _DRAW_BLOCK)
    upto = blocks.sum(dim=1, dtype=torch.float64).cpu().cumsum(0)
    shots = torch.rand(count, dtype=torch.float64, generator=generator, device=generator.device).cpu()
    if not float(upto[-1]) > 0.0:
        return (shots * n).long().to(weights.device)
    shots *= upto[-1]
    block = torch.searchsorted(upto, shots, right=True).clamp_(max=len(upto) - 1)
    within = blocks[block.to(weights.device)].cpu().double().cumsum(1)  # (count, _DRAW_BLOCK)
    left = shots - torch.where(block > 0, upto[block - 1], 0.0)
    row = torch.searchsorted(within, left[:, None], right=True)[:, 0].clamp_(max=_DRAW_BLOCK - 1)
    return (block * _DRAW_BLOCK + row).clamp_(max=n - 1).to(weights.device)


# ---- Lloyd's algorithm. ----


@dataclass(slots=True)
class _Sides:
    """Which side each point is on, how safely, and what the sides add up to.

    assignment: (n,) int64. drift: the most that any point's lead can have shrunk since the start. limit: (n,) the
    drift that a point's lead outlasts; once it is reached the point must be looked at. sums: (k, d) float64.
    sizes: (k,) int64.
    """

    assignment: Tensor
    limit: Tensor
    sums: Tensor
    sizes: Tensor
    drift: float = 0.0


def _lloyd(points: _Points, centers: Tensor, max_iterations: int, stillness: float) -> Clusters:
    """centers: (k, d) centred. stillness: the sum of squared moves at which the centres are said to stand still."""
    k, d = centers.shape
    device = centers.device
    sides = _Sides(
        torch.full((len(points),), -1, device=device),
        torch.full((len(points),), -math.inf, dtype=centers.dtype, device=device),
        torch.zeros(k, d, dtype=torch.float64, device=device),
        torch.zeros(k, dtype=torch.int64, device=device),
    )
    iterations, converged = 0, False
    while not converged and iterations < max_iterations:
        iterations += 1
        changed = _reassign(points, centers, sides)
        repaired = _repair(points, centers, sides)
        if not changed and not repaired:
            converged = True
            break
        centers, moves = _moved(centers, sides)
        sides.drift += float(moves.topk(min(2, k)).values.sum())  # by the own centre's move and by another's
        if not repaired and float(moves.square().sum()) <= stillness:
            _reassign(points, centers, sides)
            converged = bool(sides.sizes.all())  # else there is something to repair
    if not converged:
        _reassign(points, centers, sides)
    distances = _own_distances(points, centers, sides.assignment)
    inertia = float(distances.sum(dtype=torch.float64))
    return Clusters(sides.assignment, points.outward(centers), distances, sides.sizes, inertia, iterations, converged)


def _reassign(points: _Points, centers: Tensor, sides: _Sides) -> int:
    """Put every point on the side of its nearest centre; how many changed. Points with a lead are passed over."""
    fresh = not bool(sides.sizes.any())
    total = 0
    for where in points.chunks(_doubtful(sides)):
        rows = points.rows(where)
        labels, lead = _nearest(rows, centers)
        before = sides.assignment[where]
        changed = (labels != before).nonzero()[:, 0]
        if fresh:
            _add(sides, rows, labels, 1)
        elif len(changed):
            movers = rows.index_select(0, changed)
            _add(sides, movers, before[changed], -1)
            _add(sides, movers, labels[changed], 1)
        sides.assignment[where], sides.limit[where] = labels, lead.add_(sides.drift).mul_(_GUARD)
        total += len(changed)
    return total


def _doubtful(sides: _Sides) -> Tensor | None:
    """The numbers of the points to look at; None for all, when gathering them costs more than reading everything."""
    numbers = (sides.limit <= sides.drift).nonzero()[:, 0]
    return numbers if 2 * len(numbers) <= len(sides.limit) else None


def _nearest(rows: Tensor, centers: Tensor) -> tuple[Tensor, Tensor]:
    """(m, d), (k, d) -> labels (m,) of the nearest centres, and leads (m,), never too large."""
    if len(centers) == 1:
        return torch.zeros_like(rows[:, 0], dtype=torch.int64), torch.full_like(rows[:, 0], math.inf)
    halves = centers.square().sum(dim=1).div_(2)
    two_least = _two_least_of_few if len(centers) <= _FEW else _two_least_of_many
    best, second, labels = two_least(rows, centers, halves)
    norms, error = _norms_and_error(rows, halves)
    lead = _lead(best, second, norms, error)
    unclear = (lead <= 0).nonzero()[:, 0]
    if len(unclear):
        labels[unclear], lead[unclear] = _nearest_by_float64(rows[unclear], centers)
    return labels, lead


def _two_least_of_few(rows: Tensor, centers: Tensor, halves: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The least score |c|^2 / 2 - x.c of each row (m,), the second least, and whose the least is (of a tie, any)."""
    score = torch.addmm(halves[:, None], centers, rows.T, alpha=-1)  # (k, m)
    best, second, worse = score[0].clone(), torch.full_like(score[0], math.inf), torch.empty_like(score[0])
    for other in score[1:]:
        torch.maximum(best, other, out=worse)
        torch.minimum(second, worse, out=second)
        torch.minimum(best, other, out=best)
    numbers = torch.arange(len(centers), dtype=score.dtype, device=score.device)
    return best, second, score.eq_(best).mul_(numbers[:, None]).amax(dim=0).long()


def _two_least_of_many(rows: Tensor, centers: Tensor, halves: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same, a row at a time."""
    score = torch.addmm(halves, rows, centers.T, alpha=-1)  # (m, k)
    best, labels = score.min(dim=1)
    return best, score.scatter_(1, labels[:, None], math.inf).amin(dim=1), labels


def _nearest_by_float64(rows: Tensor, centers: Tensor) -> tuple[Tensor, Tensor]:
    """The same for points that float32 cannot decide; of centres as near as float64 can tell, the first."""
    dtype, rows, centers = rows.dtype, rows.double(), centers.double()
    halves = centers.square().sum(dim=1).div_(2)
    score = torch.addmm(halves, rows, centers.T, alpha=-1)
    norms, error = _norms_and_error(rows, halves)
    best = score.amin(dim=1)
    labels = (score <= (best + 2 * error)[:, None]).to(torch.uint8).argmax(dim=1)
    second = score.scatter_(1, labels[:, None], math.inf).amin(dim=1)
    return labels, _lead(best, second, norms, error).to(dtype)


def _norms_and_error(rows: Tensor, halves: Tensor) -> tuple[Tensor, Tensor]:
    """|x|^2 (m,), and how far |c|^2 / 2 - x.c may be off (m,): gamma_d (|x| + max |c|)^2 in any order of summing."""
    norms = rows.square() @ rows.new_ones(rows.shape[1])
    radius = (2 * halves.max()).sqrt()
    return norms, norms.sqrt().add_(radius).square_().mul_(_rounding(rows))


def _lead(best: Tensor, second: Tensor, norms: Tensor, error: Tensor) -> Tensor:
    """Scores -> distances d2 - d1 = (d2^2 - d1^2) / (d2 + d1), at least: it errs only towards zero."""
    gap = (second - best).sub_(error, alpha=2).mul_(2 * _GUARD)
    slack = norms.add_(error, alpha=2)
    reach = best.mul(2).add_(slack).clamp_(min=0).sqrt_().add_(second.mul_(2).add_(slack).clamp_(min=0).sqrt_())
    return gap.div_(reach.clamp_(min=torch.finfo(reach.dtype).tiny))


def _rounding(rows: Tensor) -> float:
    """The relative error of a sum of d products, in the worst case and with a little to spare."""
    return (rows.shape[1] + 4) * torch.finfo(rows.dtype).eps / 2


def _moved(centers: Tensor, sides: _Sides) -> tuple[Tensor, Tensor]:
    """The means of the sides (an empty one keeps its centre), and how far each centre moved: (k,) float64."""
    means = sides.sums / sides.sizes.clamp(min=1)[:, None]
    updated = torch.where(sides.sizes[:, None] > 0, means, centers.double()).to(centers.dtype)
    return updated, (updated.double() - centers.double()).norm(dim=1)


def _repair(points: _Points, centers: Tensor, sides: _Sides) -> int:
    """Give each empty side the point farthest from its own mean, while there is one off its mean; how many."""
    empty = (sides.sizes == 0).nonzero()[:, 0].tolist()
    if not empty:
        return 0
    distances = _own_distances(points, _moved(centers, sides)[0], sides.assignment)
    rounding = points.variance * torch.finfo(distances.dtype).eps ** 2 * points.x.shape[1]
    for done, side in enumerate(empty):
        farthest = distances.argmax()[None]
        if not float(distances[farthest]) > rounding:
            return done
        row, donor = points.rows(farthest), sides.assignment[farthest]
        _add(sides, row, donor, -1)
        sides.assignment[farthest] = side
        _add(sides, row, sides.assignment[farthest], 1)
        sides.limit[farthest] = -math.inf
        distances[farthest] = 0
        if int(sides.sizes[donor]) == 1:  # who is left alone is the mean
            distances[sides.assignment == donor] = 0
    return len(empty)


def _own_distances(points: _Points, centers: Tensor, assignment: Tensor) -> Tensor:
    """(n,) squared, from the differences themselves."""
    distances = torch.empty(len(points), dtype=centers.dtype, device=centers.device)
    for part in _slices(len(points), points.chunk):
        distances[part] = points.rows(part).sub_(centers.index_select(0, assignment[part])).square_().sum(dim=1)
    return distances


def _add(sides: _Sides, rows: Tensor, labels: Tensor, sign: int) -> None:
    sides.sums += sign * _sums(rows, labels, len(sides.sums))
    sides.sizes += sign * torch.bincount(labels, minlength=len(sides.sizes))


def _sums(rows: Tensor, labels: Tensor, k: int) -> Tensor:
    """(m, d), (m,) -> (k, d) float64: the sum of each label's rows, the same bits every time."""
    if rows.device.type == "cpu":
        d = rows.shape[1]
        if d < _NARROW:
            return torch.zeros(d, k, dtype=torch.float64).index_add_(1, labels, rows.T.double()).T
        return torch.zeros(k, d, dtype=torch.float64).index_add_(0, labels, rows.double())
    return torch.nn.functional.one_hot(labels, k).T.double() @ rows.double()


# ---- Mini-batches. ----


@dataclass(frozen=True, slots=True)
class _Stream:
    """A source and what its first pass found. sample: (s, d) uniform, in the frame of x, computing type."""

    source: Source
    batch: int
    n: int
    shift: Tensor
    variance: float
    sample: Tensor

    def passes(self, order: torch.Generator | None = None) -> Iterator[Tensor]:
        """Batches (m, d), centred; in a random order when the source can be read so."""
        for block in _blocks(self.source, self.batch, order):
            yield block.to(self.shift).sub(self.shift)  # not in place: it may be the caller's own memory


def _measured(source: Source, batch: int, device: torch.device, generator: torch.Generator, sample: int) -> _Stream:
    keys = torch.empty(0, dtype=torch.float64)
    kept: Tensor | None = None

    def sampled() -> Iterator[Tensor]:
        """Let the blocks through, and keep the rows with the `sample` smallest of random keys."""
        nonlocal keys, kept
        for block in _blocks(source, batch):
            _check_block(block, kept)
            fresh = torch.rand(len(block), dtype=torch.float64, generator=generator, device=generator.device).cpu()
            joined = block.cpu() if kept is None else torch.cat([kept, block.cpu()])
            keys = torch.cat([keys, fresh])
            order = keys.argsort(stable=True)[:sample].sort().values  # the rows stay in the order of the source
            keys, kept = keys[order], joined[order]
            yield block

    blocks = sampled()
    first = next(blocks, None)
    if first is None:
        raise InputError("source: must give at least 1 row, got 0")
    moments = _Moments.of([first])
    for block in blocks:
        moments.add(block)
    moments.check("source")
    assert kept is not None
    dtype = _computing(first.dtype)
    shift = moments.mean.to(device, dtype)
    return _Stream(source, batch, moments.n, shift, moments.variance, kept.to(device, dtype))


def _check_block(block: Tensor, before: Tensor | None) -> None:
    width = "d" if before is None else before.shape[1]
    if block.ndim != 2 or not block.shape[1] or (before is not None and block.shape[1] != before.shape[1]):
        raise InputError(f"source: blocks must be (m, {width}), got shape {tuple(block.shape)}")
    if not block.is_floating_point():
        raise InputError(f"source: must be of a floating type, got {block.dtype}")


def _blocks(source: Source, batch: int, order: torch.Generator | None = None) -> Iterator[Tensor]:
    """One pass over the source in blocks of at most `batch` rows; shuffled when `order` is given and it can be."""
    if callable(source):
        for block in source():
            yield from (part for part in torch.split(torch.as_tensor(block), batch) if len(part))
    elif order is None:
        yield from (_tensor(source[part]) for part in _slices(source.shape[0], batch))
    else:
        shuffled = torch.randperm(source.shape[0], generator=order, device=order.device).cpu()
        for numbers in torch.split(shuffled, batch):
            rows = numbers.sort().values  # a memory map is read forwards
            yield _tensor(source[rows.to(source.device) if isinstance(source, Tensor) else rows.numpy()])


def _tensor(rows: Any) -> Tensor:
    return rows.detach() if isinstance(rows, Tensor) else torch.tensor(rows)  # a copy: memory maps may be read-only


def _learned(
    stream: _Stream,
    centers: Tensor,
    seen: Tensor,
    generator: torch.Generator,
    max_iterations: int,
    stillness: float,
) -> Clusters:
    """Sculley's passes from centers (k, d) centred, which stand for `seen` (k,) points each; then assign everything."""
    k = len(centers)
    means, seen = centers.double(), seen.double()
    iterations, converged = 0, False
    while not converged and iterations < max_iterations:
        iterations += 1
        before, given = means.clone(), torch.zeros_like(seen)
        for rows in stream.passes(generator):
            labels, _ = _nearest(rows, means.to(rows.dtype))
            counts = torch.bincount(labels, minlength=k).double()
            seen, given = seen + counts, given + counts
            # One step for all of a centre's rows: the same as one at a time with rate 1 / count.
            means += (_sums(rows, labels, k) - counts[:, None] * means) / seen.clamp(min=1)[:, None]
        starved = (given == 0).nonzero()[:, 0]
        if len(starved):
            means, seen = _fed(means, seen, starved, rows)
        converged = not len(starved) and float((means - before).square().sum()) <= stillness
    return _assigned(stream, means.to(stream.shift.dtype), iterations, converged)


def _fed(means: Tensor, seen: Tensor, starved: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Put centres that were given nothing on the farthest rows, while these are off their own centres."""
    current = means.to(rows.dtype)
    distances = (rows - current[_nearest(rows, current)[0]]).square_().sum(dim=1)
    farthest = distances.argsort(descending=True, stable=True)[: len(starved)]
    farthest = farthest[distances[farthest] > 0]
    starved = starved[: len(farthest)]
    means[starved], seen[starved] = rows[farthest].double(), 0.0
    return means, seen


def _assigned(stream: _Stream, centers: Tensor, iterations: int, converged: bool) -> Clusters:
    assignment, distances = [], []
    for rows in stream.passes():
        labels, _ = _nearest(rows, centers)
        assignment.append(labels)
        distances.append((rows - centers[labels]).square_().sum(dim=1))
    labels, squared = torch.cat(assignment), torch.cat(distances)
    return Clusters(
        labels,
        (centers.double() + stream.shift.double()).to(centers.dtype),
        squared,
        torch.bincount(labels, minlength=len(centers)),
        float(squared.sum(dtype=torch.float64)),
        iterations,
        converged,
    )
