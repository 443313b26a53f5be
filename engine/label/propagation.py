"""Labels spread over a graph of neighbours: what few labels say about all images, under a known balance of classes.

In: vectors (n, d) of all images, labels of some. Out: probabilities (n, k) of all. Each image is tied to its nearest
neighbours; beliefs flow along the ties until they stand still (Zhou et al. 2004), and are then scaled so that the
classes get their shares (Sinkhorn 1967), without which the largest class takes all. Knows nothing of images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import scipy.sparse
import torch
import torch.nn.functional as F
from torch import Tensor

from engine.embeddings import nearest

NEIGHBOURS: Final = 15
#: Share of a belief that comes from the neighbours at each step; the rest is what the sample itself was told.
_FLOW: Final = 0.99
_STEPS: Final = 60
#: Images among which ties are exact; more are each given the belief of their nearest among that many.
LANDMARKS: Final = 30_000
_ROUNDS: Final = 50  # of Sinkhorn's scaling


@dataclass(frozen=True, slots=True)
class Graph:
    """Ties among m landmarks of n points. ties: (m, m) sparse, symmetric, scaled to a largest eigenvalue of 1.
    landmarks: (m,) int64, positions. home: (n,) int64, the landmark (its number) that speaks for each point."""

    ties: scipy.sparse.csr_matrix
    landmarks: Tensor
    home: Tensor


def graph_of(vectors: Tensor, *, always: Tensor, generator: torch.Generator, neighbours: int = NEIGHBOURS) -> Graph:
    """Tie points (n, d), compared by the angle between them, to their nearest.

    always: (n,) bool, points that must be landmarks: those with labels. Time: n times min(n, LANDMARKS).
    """
    x = F.normalize(vectors.float(), dim=1)
    n = len(x)
    order = torch.randperm(n, generator=generator)
    order = order[(~always[order]).long().argsort(stable=True)]
    landmarks = order[: max(LANDMARKS, int(always.sum()))].sort().values
    base = x[landmarks]
    ties = _ties(base, min(neighbours, len(base) - 1))
    home = torch.arange(n)
    if n > len(base):
        home = nearest(x, base, 1)[:, 0]
        home[landmarks] = torch.arange(len(base))
    return Graph(ties, landmarks, home)


def _ties(x: Tensor, count: int) -> scipy.sparse.csr_matrix:
    """(m, d) rows of length 1 -> (m, m): cosines cubed of the nearest, symmetric, over the roots of the degrees."""
    m = len(x)
    near = nearest(x, None, count)
    cosines = torch.stack([(x * x[near[:, at].to(x.device)]).sum(dim=1).cpu() for at in range(count)], dim=1)
    weights = cosines.clamp(min=1e-3).pow(3).numpy().ravel()
    ties = scipy.sparse.csr_matrix((weights, near.numpy().ravel(), np.arange(0, m * count + 1, count)), shape=(m, m))
    ties = ties + ties.T
    root = scipy.sparse.diags(np.asarray(ties.sum(axis=1)).ravel() ** -0.5)
    return (root @ ties @ root).tocsr().astype(np.float32)


def propagated(graph: Graph, told: Tensor, shares: Tensor) -> Tensor:
    """told: (n, k) float, rows of 0 where nothing is known. shares: (k,) of the classes, sum 1. -> (n, k) float32.

    Rows sum to 1, columns have means near `shares`. Each class begins with the same weight, however often it was told.
    """
    y = told[graph.landmarks].double()
    y = y / y.sum(dim=0).clamp(min=1e-12)
    start = y.numpy().astype(np.float32)
    belief = start.copy()
    for _ in range(_STEPS):
        belief = _FLOW * (graph.ties @ belief) + (1 - _FLOW) * start
    return balanced(torch.from_numpy(belief), shares)[graph.home]


def balanced(beliefs: Tensor, shares: Tensor) -> Tensor:
    """Scale beliefs (n, k) >= 0 so that rows sum to 1 and columns to n times shares (k,); rows of 0 get the shares."""
    p = beliefs.double().clamp(min=0)
    p = p / p.sum(dim=0).clamp(min=1e-30)  # columns first, so that the scale of a class owes nothing to its labels
    p = p + 1e-9 * shares
    for _ in range(_ROUNDS):
        p = p / p.sum(dim=1, keepdim=True)
        p = p * (len(p) * shares / p.sum(dim=0))
    return (p / p.sum(dim=1, keepdim=True)).float()
