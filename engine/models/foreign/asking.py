"""What a graph from elsewhere says of images: asked batch by batch, its numbers checked.

In: a `Graph`, and images of its size. Out: its outputs by name, and each as a float64 tensor of finite numbers. Knows
nothing of labels or boxes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engine.errors import InputError
from engine.models.foreign.forms import ForeignForm
from engine.models.foreign.graphs import Graph
from engine.models.foreign.placing import batch_of

#: Images that a graph with an open batch is asked about at once.
_BATCH: Final = 16
#: How far probabilities of a graph may be off.
SLACK: Final = 1e-2


def asked(graph: Graph, form: ForeignForm, images: Tensor) -> list[tuple[dict[str, npt.NDArray[Any]], int]]:
    """What the graph says, batch by batch, with the number of images of each: a fixed batch is filled up with the last
    one."""
    size = form.batch or _BATCH
    found = []
    for batch in torch.split(images, size) if len(images) else ():
        count = len(batch)
        if form.batch and count < form.batch:
            batch = torch.cat([batch, batch[-1:].expand(form.batch - count, -1, -1, -1)])
        found.append((graph.run(batch_of(form.input, batch.cpu().float())), count))
    return found


def output(graph: Graph, said: Mapping[str, npt.NDArray[Any]], name: str) -> Tensor:
    """The output of that name, float64 of its shape. Raises InputError when it is missing or not finite numbers."""
    if name not in said:
        raise InputError(f"{graph.place}: must have an output {name!r}, got {', '.join(map(repr, said))}")
    array = np.ascontiguousarray(said[name])
    if array.dtype.kind not in "fiub":
        raise InputError(f"{graph.place}: {name} must be numbers, got {array.dtype}")
    values = torch.from_numpy(array.astype(np.float64))
    if not bool(values.isfinite().all()):
        raise InputError(f"{graph.place}: {name} must be finite, got NaN or infinity")
    return values


def check_unit(place: Path, name: str, values: Tensor) -> None:
    """Raises InputError when values, the output of that name, lie outside [0, 1] by more than SLACK."""
    low, high = (float(values.min()), float(values.max())) if values.numel() else (0.0, 0.0)
    if not (math.isfinite(low) and low >= -SLACK and high <= 1 + SLACK):
        raise InputError(
            f"{place}: {name} must be in [0, 1], got {low:.4g} to {high:.4g}; does model.json lack an activation?"
        )
