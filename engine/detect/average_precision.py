"""How good boxes are, as COCO counts it: average precision by pycocotools, the reference implementation.

In: boxes that were found and true ones, n images, parallel. Out: `BoxScores`. Of an image the surest 1,000 boxes
of each class count. What cannot be said (a class without true boxes) is NaN.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

#: Boxes of a class on an image that count at most, by score.
_MOST: Final = 1_000


@dataclass(frozen=True, slots=True)
class Found:
    """Boxes on one image. xyxy: (m, 4) float pixels. classes: (m,) int64. scores: (m,) in [0, 1]; of true boxes
    unused."""

    xyxy: npt.NDArray[np.floating[Any]]
    classes: npt.NDArray[np.int64]
    scores: npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class BoxScores:
    """map50_95: mean average precision over classes and overlaps 0.5, 0.55, .. 0.95; map50, map75: at one overlap. by
    class: (k,) average precision at 0.5 and over all overlaps, NaN for a class without true boxes. images: how many."""

    map50_95: float
    map50: float
    map75: float
    class_ap50: Floats
    class_ap50_95: Floats
    images: int


def box_scores(found: Sequence[Found], truth: Sequence[Found], outputs: int) -> BoxScores:
    """outputs: k classes. Source: the COCO evaluation, all areas, _MOST boxes an image."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    assert len(found) == len(truth)
    with contextlib.redirect_stdout(io.StringIO()):  # it prints as it goes
        theirs = COCO()
        theirs.dataset = {
            "info": {},  # which some of its versions ask for
            "images": [{"id": at + 1} for at in range(len(truth))],
            "categories": [{"id": c + 1} for c in range(outputs)],
            "annotations": _annotations(truth, scored=False),
        }
        theirs.createIndex()
        ours = _annotations(found, scored=True)
        if not ours:
            zeros = np.where([any((each.classes == c).any() for each in truth) for c in range(outputs)], 0.0, np.nan)
            return BoxScores(0.0, 0.0, 0.0, zeros, zeros, len(truth))
        evaluation = COCOeval(theirs, theirs.loadRes(ours), "bbox")
        evaluation.params.maxDets = [_MOST]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, :, 0, 0]  # (overlaps, recalls, k)
    by_class = np.where(precision.min(axis=1) < 0, np.nan, precision.mean(axis=1))  # (overlaps, k)
    known = ~np.isnan(by_class[0])
    means = by_class[:, known].mean(axis=1) if known.any() else np.full(len(by_class), np.nan)
    return BoxScores(
        float(means.mean()), float(means[0]), float(means[5]), by_class[0], by_class.mean(axis=0), len(truth)
    )


def _annotations(images: Sequence[Found], *, scored: bool) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []
    for at, image in enumerate(images):
        sizes = image.xyxy[:, 2:] - image.xyxy[:, :2]
        for each in range(len(image.classes)):
            (x, y), (width, height) = image.xyxy[each, :2].tolist(), sizes[each].tolist()
            one: dict[str, Any] = {
                "id": len(made) + 1,
                "image_id": at + 1,
                "category_id": int(image.classes[each]) + 1,
                "bbox": [x, y, width, height],
            }
            one |= {"score": float(image.scores[each])} if scored else {"area": width * height, "iscrowd": 0}
            made.append(one)
    return made
