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


def _reach(distances: Tensor, count: int) -> Tensor:
    return distances.topk(count, dim=1, largest=False).values.mean(dim=1)
