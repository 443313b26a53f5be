"""image_similarity_mining: is a sample like the training images of its label? (reason 3)

Vectors and labels in, one number in [0, 1] a label in question out. A sample is never held against itself.
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor

#: Training images on each side that are asked.
NEIGHBOURS: Final = 5
#: Numbers of a table of distances that is in memory at once.
_BLOCK: Final = 2**24


def unlikeness(vectors: Tensor, seen: Tensor, told: Tensor, given: Tensor, *, neighbours: int = NEIGHBOURS) -> Tensor:
    """Reason 3. vectors: (n, d). seen: (t,) int64, positions of the training images. told: (t, k) bool, their labels.
    given: (n, k) bool, the labels in question. -> (n, k) float32 in [0, 1], NaN where no label is in question.

    same / (same + other): the mean distances to the nearest training images that have the label and that have none of
    the labels given (the nonconformity of nearest-neighbour conformal prediction: Vovk et al. 2005). 0.5: as near to
    others as to its own. 1: no training image has the label. 0: all have. NaN without training images.
    """
    result = torch.full(given.shape, math.nan)
    if not len(seen):
        return result
    for column in range(given.shape[1]):
        asked = given[:, column].nonzero()[:, 0]
        for rows in torch.split(asked, max(1, _BLOCK // max(1, len(seen)))):
            distances = distances_between(vectors, rows, seen)
            same = _nearest(distances.masked_fill(~told[:, column], math.inf), neighbours)
            shared = (given[rows].float() @ told.float().T) > 0
            other = _nearest(distances.masked_fill(shared, math.inf), neighbours)
            result[rows, column] = _share(same, other)
    return result


def distances_between(vectors: Tensor, rows: Tensor, seen: Tensor) -> Tensor:
    """(r, t) Euclidean distances of the samples at these positions to the training images, infinite to itself."""
    distances = torch.cdist(vectors[rows].float(), vectors[seen].float())
    return distances.masked_fill(rows[:, None] == seen, math.inf)


def _nearest(distances: Tensor, count: int) -> Tensor:
    """(r, t) -> (r,): the mean of the least `count` finite ones; infinite where there is none."""
    least = distances.topk(min(count, distances.shape[1]), dim=1, largest=False).values
    there = least.isfinite()
    mean = least.masked_fill(~there, 0).sum(dim=1) / there.sum(dim=1).clamp(min=1)
    return torch.where(there.any(dim=1), mean, math.inf)


def _share(same: Tensor, other: Tensor) -> Tensor:
    share = same / (same + other).clamp(min=1e-12)
    share = torch.where(same + other == 0, 0.5, share)  # copies of both
    share = torch.where(other.isinf(), 0.0, share)
    return torch.where(same.isinf(), 1.0, share).float()
