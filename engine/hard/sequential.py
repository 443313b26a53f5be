"""sequential_mining: similar images in a row got different predictions (reason 4).

Vectors, predictions and the order of the samples in, one number in [0, 1] a sample out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import PurePosixPath
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.hard.divergence import divergence
from engine.samples import Sample

#: The last number in a file name.
_NUMBER: Final = re.compile(r"^(.*?)(\d+)(\D*)$")
#: Frames of one sequence are at most so many numbers apart.
_GAP: Final = 5
#: Pairs of samples drawn to learn how alike samples are that have nothing to do with one another; of these pairs
#: one in a hundred counts as alike.
_PAIRS: Final = 4_000
_UNRELATED: Final = 0.99
#: Where so many pairs in a row count as alike, five times as many as by chance, the samples are in an order.
_ORDERED: Final = 0.05


def sequences_in(samples: Sequence[Sample]) -> list[list[int]]:
    """`sequences_of` samples: frames of a video say of which one and when (@modelarts:parent_source, time_in_video)."""
    videos = {}
    for at, sample in enumerate(samples):
        video, time = (sample.property.get(f"@modelarts:{name}") for name in ("parent_source", "time_in_video"))
        if isinstance(video, str) and (seconds := _number(time)) is not None:
            videos[at] = (video, seconds)
    return sequences_of([sample.source for sample in samples], videos)


def _number(value: object) -> float | None:
    try:
        number = float(value) if isinstance(value, str | int | float) else math.nan
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def sequences_of(sources: Sequence[str], videos: Mapping[int, tuple[str, float]] | None = None) -> list[list[int]]:
    """Positions of the samples in order, a list a sequence; each sample is in one of them at most.

    videos: what is known of frames, position -> (video, time). Others follow the last number in their file name, as
    frame_0007.jpg, with the same folder and the same rest of the name. Where not two names go on like that, the order
    of the samples is the only one there is: all are one sequence.
    """
    known = videos or {}
    keyed: dict[tuple[str, ...], list[tuple[float, int]]] = {}
    for at, (video, time) in known.items():
        keyed.setdefault(("video", video), []).append((time, at))
    for at, source in enumerate(sources):
        path = PurePosixPath(source)
        if at not in known and (match := _NUMBER.match(path.name)):
            keyed.setdefault((str(path.parent), match[1], match[3]), []).append((float(match[2]), at))
    found = [run for key, frames in keyed.items() for run in _runs(sorted(frames), gaps=key[0] == "video")]
    return found or [list(range(len(sources)))]


def _runs(frames: list[tuple[float, int]], *, gaps: bool) -> list[list[int]]:
    """Cut frames where numbers jump; runs of two at least."""
    runs = [[frames[0][1]]]
    for (before, _), (number, at) in pairwise(frames):
        if gaps or number - before <= _GAP:
            runs[-1].append(at)
        else:
            runs.append([at])
    return [run for run in runs if len(run) > 1]


def inconsistency(
    vectors: Tensor,
    probabilities: Tensor,
    sequences: Sequence[Sequence[int]],
    *,
    own: Tensor | None = None,
    multi_label: bool = False,
    generator: torch.Generator,
) -> Tensor:
    """Reason 4. vectors: (n, d). probabilities: (n, k), rows of NaN where nobody knows. sequences: positions in order.
    own: (n, k), what of a sample itself is held against the probabilities of those beside it; None: the same.
    -> (n,) float32 in [0, 1]. A sample without a vector (NaN) is like no other.

    Of the image before and the one after: how alike they are, from 0 for a pair like unrelated ones to 1 for copies,
    times how far their predictions lie apart; of both numbers their mean and the smaller one, on the mean. The odd one
    out is worst: each image beside it differs from it alone, and is a quarter as doubtful. 0 for an image without
    neighbours. NaN for all where images in a row are hardly more alike than any: then the order tells nothing.
    """
    x = F.normalize(vectors.float().nan_to_num(0.0), dim=1)
    unrelated = torch.randint(0, len(x), (2, _PAIRS), generator=generator)
    apart = unrelated[:, unrelated[0] != unrelated[1]]
    alike = float((x[apart[0]] * x[apart[1]]).sum(dim=1).quantile(_UNRELATED)) if apart.shape[1] else 1.0
    total, count, least = torch.zeros(len(x)), torch.zeros(len(x)), torch.ones(len(x))
    ties = torch.tensor([pair for run in sequences for pair in pairwise(run)], dtype=torch.int64).reshape(-1, 2)
    before, after = ties.unbind(1)
    cosines = (x[before] * x[after]).sum(dim=1)
    likeness = ((cosines - alike) / max(1e-6, 1 - alike)).clamp(0, 1)
    if float((likeness > 0).float().mean() if len(ties) else 0.0) < _ORDERED:
        return torch.full((len(x),), torch.nan)
    own = probabilities if own is None else own
    for ends, beside in ((before, after), (after, before)):
        apart_by = divergence(own[ends], probabilities[beside], multi_label=multi_label)
        doubt = likeness * apart_by.nan_to_num(0.0)
        total.index_add_(0, ends, doubt)
        count.index_add_(0, ends, torch.ones_like(doubt))
        least.scatter_reduce_(0, ends, doubt, "amin")
    return torch.where(count > 0, (total / count.clamp(min=1) + least) / 2, 0.0)
