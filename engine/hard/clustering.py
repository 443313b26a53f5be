"""clustering_mining: clusters of the training set, and the samples around, vote against the label (reason 2).

Vectors and labels in, one number in [0, 1] a label in question out.
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor

from engine.embeddings import nearest
from engine.kmeans import kmeans

#: Clusters for each label, if each keeps so many training images on the mean.
_PER_LABEL: Final = 3
_LEAST_EACH: Final = 4
#: A cluster that lies so many times further away than the nearest one has e times less to say.
_SHARPNESS: Final = 8.0
#: Samples around one that are asked, among at most so many.
NEIGHBOURS: Final = 10
_AMONG: Final = 20_000


def disagreement(vectors: Tensor, seen: Tensor, told: Tensor, given: Tensor, *, generator: torch.Generator) -> Tensor:
    """Reason 2. vectors: (n, d). seen: (t,) int64, positions of the training images. told: (t, k) bool, their labels.
    given: (n, k) bool, the labels in question. -> (n, k) float32 in [0, 1], NaN where no label is in question, and
    everywhere with fewer than two training images.

    1 - the share of the label among the training images of the clusters (k-means) around the sample, near clusters
    counting more; one training image more of each label is supposed to be everywhere. What a training sample says of
    itself is left out.
    """
    t, k = told.shape
    if t < 2:
        return torch.full(given.shape, math.nan)
    clusters = kmeans(vectors[seen].float(), max(2, min(_PER_LABEL * k, t // _LEAST_EACH)), generator=generator)
    votes = torch.zeros(len(clusters.centers), k).index_add_(0, clusters.assignment.cpu(), told.float())
    distances = torch.cdist(vectors.float(), clusters.centers.float())
    near = (-_SHARPNESS * distances / distances.amin(dim=1, keepdim=True).clamp(min=1e-6)).softmax(dim=1)  # (n, c)
    counts = near @ votes
    own = near[seen, clusters.assignment.cpu()]
    counts[seen] -= own[:, None] * told.float()
    prior = told.float().mean(dim=0).clamp(min=1e-6)
    shares = (counts + prior) / (counts.sum(dim=1, keepdim=True) + prior.sum())
    return torch.where(given, (1 - shares).clamp(0, 1), math.nan).float()


def around(
    vectors: Tensor, beliefs: Tensor, given: Tensor, *, generator: torch.Generator, among: int = _AMONG
) -> Tensor:
    """vectors: (n, d), rows of NaN for none. beliefs: (n, k) in [0, 1], what people said of each sample, else what is
    believed; rows of NaN for nothing. given: (n, k) bool, the labels in question. -> (n, k) float32 in [0, 1], NaN
    where no label is in question.

    1 - what is believed of the label on the mean among the NEIGHBOURS nearest samples, of all of which something is, or
    of `among` drawn ones; never of the sample itself (the nearest-neighbour rule of Wilson 1972, with the unlabeled
    samples too).
    """
    there = ~vectors.isnan().any(dim=1)
    rows = (there & given.any(dim=1)).nonzero()[:, 0]
    base = (there & ~beliefs.isnan().any(dim=1)).nonzero()[:, 0]
    result = torch.full(given.shape, math.nan)
    if len(base) < 2 or not len(rows):
        return result
    if len(base) > among:
        base = base[torch.randperm(len(base), generator=generator)[:among].sort().values]
    count = min(NEIGHBOURS, len(base) - 1)
    asked = _without(nearest(vectors[rows].float(), vectors[base].float(), count + 1), rows, base)
    for column in range(given.shape[1]):
        share = beliefs[base, column].float()[asked].mean(dim=1)
        result[rows, column] = torch.where(given[rows, column], (1 - share).clamp(0, 1), math.nan)
    return result


def _without(asked: Tensor, rows: Tensor, base: Tensor) -> Tensor:
    """(r, c + 1) positions in base, nearest first -> (r, c): without the row itself, or else without the farthest."""
    own = base[asked] == rows[:, None]
    own[:, -1] |= ~own.any(dim=1)
    return asked[~own].reshape(len(asked), -1)
