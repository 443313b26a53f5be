"""How far two predictions lie apart: 0 when they are the same, 1 when they have nothing in common."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def divergence(first: Tensor, second: Tensor, *, multi_label: bool = False) -> Tensor:
    """Probabilities (n, k) and (n, k) -> (n,) float32 in [0, 1]: Jensen-Shannon, in bits (Lin 1991).

    With several labels a sample each label is a question of its own, yes or no; the one that changes most counts. NaN
    where a prediction is missing.

    >>> divergence(torch.tensor([[1.0, 0.0], [0.5, 0.5]]), torch.tensor([[0.0, 1.0], [0.5, 0.5]]))
    tensor([1., 0.])
    """
    if multi_label:
        yes_no = [torch.stack([1 - p, p], dim=-1) for p in (first, second)]
        return _bits(*yes_no).amax(dim=1)
    return _bits(first, second)


def _bits(p: Tensor, q: Tensor) -> Tensor:
    """Along the last dimension."""
    p, q = p.double(), q.double()
    middle = (p + q) / 2

    def entropy(x: Tensor) -> Tensor:
        nats: Tensor = -torch.special.xlogy(x, x).sum(dim=-1)
        return nats / math.log(2)

    bits: Tensor = (entropy(middle) - (entropy(p) + entropy(q)) / 2).clamp(0, 1).float()
    return bits
