"""Automatic boxes held against the truth: average precision as COCO counts it, and how far confidences can be trusted.

In: OUT of auto labeling of boxes, and a data set whose boxes by people are the truth. Out: an answer of JSON values,
and OUT/evaluation.json. Scored is what the model said: every candidate counts for average precision, those that are
given for precision, recall and calibration. Samples that people had labeled before the run are left out, for the model
has seen them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from engine.dataset import Dataset
from engine.decisions import Names, real_path
from engine.detect.average_precision import Found, box_scores
from engine.detect.judging import matched
from engine.detect.sketches import Sketches, fitted, sketches_of
from engine.errors import ImageError, InputError
from engine.evaluation import expected_calibration_error, reliability
from engine.files import as_json, write_bytes
from engine.folders.sizes import image_size
from engine.outfolder import JOURNAL, own
from engine.sources import Sources, parse_prefixes
from engine.tasks.candidates import CANDIDATES_NAME, Candidates, read_candidates
from engine.tasks.confirming import labeled_manifest
from engine.tasks.evaluating import EVALUATION_NAME


def evaluate_boxes(out: Path, truth: Dataset, *, map: Sequence[str] = ()) -> dict[str, Any]:
    """Compare what a model said about the samples of `out` with the truth, and write OUT/evaluation.json; gives what it
    holds.

    truth: boxes that people drew count, on images that are labeled there. A sample is found by the real path of its
    image, else by a file name that is unique in both; the image there may be larger or smaller, but of the same shape.
    map: as for `read_samples`, for the sources of `out`. Raises InputError when no sample is left to score.
    """
    said = read_candidates(out / CANDIDATES_NAME)
    where = Sources(labeled_manifest(out).parent, parse_prefixes(map))
    sketches = sketches_of(truth.samples)
    places = {
        row: place
        for row, place in _places(said.sources, where, truth, sketches.labeled).items()
        if said.known[row] and not said.labeled[row]
    }
    drawn = _in_pixels(sketches, truth, {place: said.sources[row] for row, place in places.items()}, where)
    rows = [row for row, place in places.items() if drawn.labeled[place]]
    if not rows:
        raise InputError(
            f"{truth.name}: must have boxes that people drew on images that {out} labeled, got none of its "
            f"{int((said.known & ~said.labeled).sum()):,}"
        )
    answer = {
        "truth": truth.name,
        "total_sample_count": len(said.sources),
        "evaluated_sample_count": len(rows),
        "labeled_before_count": int(said.labeled.sum()),
        **_scores(said, rows, drawn, [places[row] for row in rows]),
        "notices": list(_misfits(len(places) - len(rows), truth)),
    }
    target = out / EVALUATION_NAME
    if (out / JOURNAL).is_file() and not target.exists():
        own(out, EVALUATION_NAME)
    write_bytes(target, as_json(answer))
    return answer


def _places(sources: Sequence[str], where: Sources, truth: Dataset, labeled: npt.NDArray[np.bool_]) -> dict[int, int]:
    """By row of the sources its position in the truth: the first that is labeled there."""
    there = Names([sample.source for sample in truth], truth.sources)
    here = Names(sources, where)
    found = {}
    for row, source in enumerate(sources):
        places = there.by_path(real_path(source, where)) or (there.by_name(source) if here.by_name(source) else [])
        if told := [place for place in places if labeled[place]]:
            found[row] = told[0]
    return found


def _in_pixels(drawn: Sketches, truth: Dataset, images: Mapping[int, str], where: Sources) -> Sketches:
    """What people drew in the truth, in pixels of the images that were labeled; those whose shape differs do not count.

    images: by position in the truth the source of the labeled image. One that is gone is taken to have the size that
    the truth's has.
    """
    there, here = np.zeros((2, len(truth), 2), np.int64)
    for place, source in images.items():
        there[place], here[place] = _size(truth[place].source, truth.sources), _size(source, where)
    drawn = fitted(drawn, truth.samples, there).sketches
    return fitted(drawn, truth.samples, np.where(here > 0, here, there)).sketches


def _size(source: str, where: Sources) -> tuple[int, int]:
    """Width and height of an image, 0 where it cannot be read."""
    try:
        return image_size(where.path(source))[:2]
    except (ImageError, OSError):
        return 0, 0


def _misfits(count: int, truth: Dataset) -> Iterator[str]:
    if count:
        why = "they cannot be read, have another shape, or no box that lies inside"
        yield f"{count:,} images are not scored: in {truth.name} {why}"


def _scores(said: Candidates, rows: Sequence[int], drawn: Sketches, places: Sequence[int]) -> dict[str, Any]:
    labels = tuple(dict.fromkeys((*said.labels, *drawn.labels)))
    column = {name: at for at, name in enumerate(labels)}
    renamed = np.array([column[name] for name in drawn.labels], np.int64)
    found, true, parts = [], [], said.slices()
    for row, place in zip(rows, places, strict=True):
        part = parts[row]
        found.append(Found(said.xyxy[part], said.classes[part], said.scores[part]))
        true.append(Found(drawn.boxes[place], renamed[drawn.classes[place]], np.ones(len(drawn.classes[place]))))
    scores = box_scores(found, true, len(labels))
    sure, right, of, missed = _given(said, found, true)
    classes = []
    for at, name in enumerate(labels):
        support = sum(int((each.classes == at).sum()) for each in true)
        mine = of == at
        classes.append(
            {
                "label": name,
                "support": support,
                "given": int(mine.sum()),
                "precision": _number(right[mine].mean() if mine.any() else np.nan),
                "recall": _number(right[mine].sum() / support if support else np.nan),
                "ap50": _number(scores.class_ap50[at]),
                "ap50_95": _number(scores.class_ap50_95[at]),
            }
        )
    bins = reliability(sure, right) if len(sure) else ()
    return {
        "map50": _number(scores.map50),
        "map75": _number(scores.map75),
        "map50_95": _number(scores.map50_95),
        "given_count": len(sure),
        "right_count": int(right.sum()),
        "missed_count": missed,
        "ece": _number(expected_calibration_error(sure, right) if len(sure) else np.nan),
        "classes": classes,
        "reliability": [
            {"confidence": _number(each.confidence), "accuracy": _number(each.accuracy), "count": each.count}
            for each in bins
        ],
    }


def _given(
    said: Candidates, found: Sequence[Found], true: Sequence[Found]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Of the boxes that are given: confidences, whether each is right, classes; and how many objects have none."""
    sure, right, of, missed = [np.zeros(0)], [np.zeros(0, bool)], [np.zeros(0, np.int64)], 0
    for each, truth in zip(found, true, strict=True):
        kept = each.scores >= said.thresholds[each.classes]
        match = matched(
            torch.from_numpy(each.xyxy[kept]),
            torch.from_numpy(each.classes[kept]),
            torch.from_numpy(truth.xyxy),
            torch.from_numpy(truth.classes),
        )
        sure.append(each.scores[kept].astype(np.float64))
        right.append(match.right.numpy())
        of.append(each.classes[kept])
        missed += int(match.missed.sum())
    return np.concatenate(sure), np.concatenate(right), np.concatenate(of), missed


def _number(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 6)
