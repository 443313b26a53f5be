"""What a model says of one image, in the documented form: `predicted_label` and `scores`, or `detection_classes`,
`detection_boxes` (y_min, x_min, y_max, x_max in pixels) and `detection_scores`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import orjson
import torch
from torch import Tensor

from engine.detect.detector import BoxDetector
from engine.detect.results import Detection
from engine.files import atomic_writer
from engine.images import MAX_PIXELS
from engine.label.classifier import Classifier
from engine.label.results import GIVEN_FROM, Labeling
from engine.models import AnyModel, ForeignClassifier, ForeignDetector
from engine.models.foreign.placing import seen_by
from engine.predictions import Boxes
from engine.samples import Sample
from engine.survey import squared

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


def image_answer(
    model: AnyModel, content: bytes, *, max_pixels: int = MAX_PIXELS
) -> tuple[dict[str, Any], tuple[int, int], int, float | None]:
    """The bytes of an image file -> the answer, width and height of the image, how many labels (the first of `scores`)
    or boxes are given, and the confidence of the least certain of these (None: nothing was found). Raises ImageError,
    InputError."""
    if isinstance(model, BoxDetector):
        pixels, picture = model.canvas.of(content, max_pixels)
        (raw,) = model.raw(torch.from_numpy(pixels).permute(2, 0, 1)[None])
        scale = model.canvas.scale(picture.width, picture.height)
        xyxy, classes, sure = model.boxes(raw.cpu(), scale, picture.width, picture.height)
        given = sure >= torch.tensor(model.thresholds)[classes]
        boxes = Boxes(xyxy[given], sure[given], classes[given])
    elif isinstance(model, ForeignDetector):
        seen, place, picture = seen_by(model.form.input, content, max_pixels)
        (found,) = model.boxes(seen[None], [place], [(picture.width, picture.height)])
        likely = found.scores >= model.form.score_threshold
        boxes = Boxes(found.xyxy[likely], found.scores[likely], found.classes[likely])
    else:
        return _of_classes(model, content, max_pixels)
    size = (picture.width, picture.height)
    lowest = float(boxes.scores.min()) if len(boxes.scores) else None
    return detection_answer(model.labels, boxes), size, len(boxes.scores), lowest


def _of_classes(
    model: Classifier | ForeignClassifier, content: bytes, max_pixels: int
) -> tuple[dict[str, Any], tuple[int, int], int, float]:
    if isinstance(model, ForeignClassifier):
        seen, _, picture = seen_by(model.form.input, content, max_pixels)
    else:
        seen, picture = squared(content, model.image_size, max_pixels)
    said = model.probabilities(torch.from_numpy(seen).permute(2, 0, 1)[None])[0].cpu().numpy()
    given = max(1, int((said >= GIVEN_FROM).sum())) if model.multi_label else 1
    lowest = float(np.sort(said)[-given])
    return classification_answer(model.labels, said), (picture.width, picture.height), given, lowest


def write_inference(path: Path, samples: Sequence[Sample], result: Labeling | Detection) -> None:
    """A line for each image that was labeled automatically: its source, and the documented answer. Raises
    OutputError."""
    with atomic_writer(path) as file:
        for row, answer in _answers(result):
            record = {"source": samples[row].source, **answer}
            try:
                file.write(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))
            except orjson.JSONEncodeError:  # half a surrogate pair: a file name that is not UTF-8
                file.write(json.dumps(record).encode() + b"\n")


def _answers(result: Labeling | Detection) -> Iterator[tuple[int, dict[str, Any]]]:
    for row in np.flatnonzero(result.automatic).tolist():
        if isinstance(result, Labeling):
            yield row, classification_answer(result.labels, result.probabilities[row])
        elif (boxes := result.candidates[row]) is not None:
            yield row, detection_answer(result.labels, boxes, result.given(row))
