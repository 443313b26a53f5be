"""anomaly_detection_mining: does a sample lie where training images lie? (reason 30)

Vectors in, one number in [0, 1] a sample out; labels play no part. A sample is never its own neighbour.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from engine.hard.similarity import distances_between

#: Nearest training images that are asked.
NEIGHBOURS: Final = 5
_BLOCK: Final = 2**24


def abnormality(vectors: Tensor, seen: Tensor, *, neighbours: int = NEIGHBOURS) -> Tensor:
    """Reason 30. vectors: (n, d). seen: (t,) int64, positions of the training images. -> (n,) float32 in [0, 1).

    r / (r + typical), r the mean distance to the nearest training images (Ramaswamy et al. 2000), typical its median
    among training images. 0.5: as far as a typical one. NaN with fewer than two training images.
    """
    if len(seen) < 2:
        return torch.full((len(vectors),), torch.nan)
    count = min(neighbours, len(seen) - 1)
    parts = torch.split(torch.arange(len(vectors)), max(1, _BLOCK // len(seen)))
    reach = torch.cat([_reach(distances_between(vectors, rows, seen), count) for rows in parts])
    typical = reach[seen].median()
    return torch.where(reach + typical > 0, reach / (reach + typical).clamp(min=1e-12), 0.5).float()


def joined(first: Tensor, second: Tensor, reference: Tensor) -> Tensor:
    """(n,): of two scores of abnormality the larger one, the second one moved and stretched to the scale of the first,
    so that their medians and what one in a hundred reaches, among reference samples (n,) bool, are the same."""
    told = reference & ~first.isnan() & ~second.isnan()
    if not bool(told.any()):
        return first
    marks = torch.tensor([0.5, 0.99])
    (typical, far), (its_typical, its_far) = (each[told].quantile(marks) for each in (first, second))
    stretched = typical + (second - its_typical) * (far - typical) / (its_far - its_typical).clamp(min=1e-6)
    return torch.fmax(first, stretched.clamp(0, 1))


def _reach(distances: Tensor, count: int) -> Tensor:
    return distances.topk(count, dim=1, largest=False).values.mean(dim=1)
