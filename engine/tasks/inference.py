"""What a model says of one image, in the documented form: `predicted_label` and `scores`, or `detection_classes`,
`detection_boxes` (y_min, x_min, y_max, x_max in pixels) and `detection_scores`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import orjson
from torch import Tensor

from engine.detect.results import Detection
from engine.files import atomic_writer
from engine.label.results import Labeling
from engine.predictions import Boxes
from engine.samples import Sample

INFERENCE_NAME: Final = "inference.jsonl"
_DIGITS: Final = 6
_PIXEL_DIGITS: Final = 2


def classification_answer(labels: Sequence[str], probabilities: npt.NDArray[np.float32]) -> dict[str, Any]:
    """probabilities: (k,). Scores are strings, the most probable label first."""
    order = np.argsort(-probabilities, kind="stable").tolist()
    scores = [[labels[at], f"{min(max(float(probabilities[at]), 0.0), 1.0):.{_DIGITS}f}"] for at in order]
    return {"predicted_label": scores[0][0], "scores": scores}


def detection_answer(labels: Sequence[str], boxes: Boxes, given: Tensor | None = None) -> dict[str, Any]:
    """given: (m,) bool, which of the boxes are; all by default."""
    xyxy, scores, classes = boxes.xyxy, boxes.scores, boxes.classes
    if given is not None:
        xyxy, scores, classes = xyxy[given], scores[given], classes[given]
    return {
        "detection_classes": [labels[at] for at in classes.tolist()],
        "detection_boxes": [
            [round(value, _PIXEL_DIGITS) for value in (y1, x1, y2, x2)] for x1, y1, x2, y2 in xyxy.double().tolist()
        ],
        "detection_scores": [round(min(max(score, 0.0), 1.0), _DIGITS) for score in scores.double().tolist()],
    }


def write_inference(path: Path, samples: Sequence[Sample], result: Labeling | Detection) -> None:
    """A line for each image that was labeled automatically: its source, and the documented answer. Raises
    OutputError."""
    with atomic_writer(path) as file:
        for row, answer in _answers(result):
            file.write(orjson.dumps({"source": samples[row].source, **answer}, option=orjson.OPT_APPEND_NEWLINE))


def _answers(result: Labeling | Detection) -> Iterator[tuple[int, dict[str, Any]]]:
    for row in np.flatnonzero(result.automatic).tolist():
        if isinstance(result, Labeling):
            yield row, classification_answer(result.labels, result.probabilities[row])
        elif (boxes := result.candidates[row]) is not None:
            yield row, detection_answer(result.labels, boxes, result.given(row))
