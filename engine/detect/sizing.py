"""How large images are made for a detector: the usual shape of labeled images, as large as their smallest objects need.

In: samples and what people drew on them. Out: a `Canvas`, and what a person should know. Reads the headers of some
labeled images, and no pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import numpy as np
import torch

from engine.detect.canvases import Canvas
from engine.detect.sketches import Sketches
from engine.errors import ImageError, InputError
from engine.folders.sizes import image_size as header_size
from engine.samples import Sample
from engine.sources import Sources

#: Sides of the canvas are such that boxes of the smallest class are so wide, in pixels, as far as the area allows.
_SMALL: Final = 20.0
_LEAST_AREA: Final = 128 * 128
_MOST_AREA: Final = 320 * 256
_MOST_AREA_ON_GPU: Final = 640 * 640
_MOST_ENLARGED: Final = 2.0
_SIDE_STEP: Final = 16
#: Smaller objects than so many pixels of the canvas are hard to find: a person is told.
_TINY: Final = 8.0
#: Labeled images whose size is looked at.
_PEEKED: Final = 200


def canvas_for(
    samples: Sequence[Sample], sources: Sources, drawn: Sketches, device: torch.device, longer: int | None
) -> tuple[Canvas, tuple[str, ...]]:
    """longer: pixels of the longer side that a person asked for; None: by the boxes of the class with the smallest
    ones. Raises InputError when no labeled image can be read."""
    rows = np.flatnonzero(drawn.presence.any(axis=1))
    rows = rows[:: max(1, len(rows) // _PEEKED)]
    sizes: list[tuple[int, int]] = []
    smalls: dict[int, list[float]] = {}
    for row in rows.tolist():
        with suppress(ImageError, OSError):
            width, height, _ = header_size(sources.path(samples[row].source))
            factor = width / drawn.stated[row, 0] if drawn.stated[row, 0] else 1.0
            sizes.append((width, height))
            boxes = drawn.boxes[row]
            sides = np.sqrt(np.prod((boxes[:, 2:] - boxes[:, :2]).clip(min=0), axis=1)) * factor
            for of, side in zip(drawn.classes[row].tolist(), sides.tolist(), strict=True):
                smalls.setdefault(of, []).append(side)
    if not sizes:
        raise InputError("auto labeling needs labeled images that can be read, got none")
    wide, high = (float(each) for each in np.median(np.array(sizes), axis=0))
    everything = [side for sides in smalls.values() for side in sides]
    small = min([float(np.median(sides)) for sides in smalls.values()] + [float(np.quantile(everything, 0.1))])
    scale = _SMALL / max(small, 1e-3)
    most = _MOST_AREA if device.type == "cpu" else _MOST_AREA_ON_GPU
    scale = min(scale, _MOST_ENLARGED, math.sqrt(most / (wide * high)))
    scale = max(scale, math.sqrt(_LEAST_AREA / (wide * high)))
    if longer is not None:
        scale = longer / max(wide, high)
    canvas = Canvas(*(max(2 * _SIDE_STEP, _SIDE_STEP * round(side * scale / _SIDE_STEP)) for side in (high, wide)))
    seen = small * canvas.scale(round(wide), round(high))
    notes = (
        (f"small objects are {seen:.1f} pixels wide where networks see them; a larger image_size may find more",)
        if seen < _TINY
        else ()
    )
    return canvas, notes
