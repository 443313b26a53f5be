"""What auto labeling of boxes shows a person: a `Detection` as a `report.Page`, boxes drawn on the images.

First the images that most need a look, hard boxes in red; then, for each label, images that have it; then how good the
boxes are expected to be, by boxes that networks had not seen. Only the images that are shown are read again. Knows
nothing of where the page is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from engine.dataset import Dataset
from engine.detect.results import Detection
from engine.errors import Failure
from engine.hard.examples import HardExamples
from engine.manifest import format_sample
from engine.report import Card, Gallery, Histogram, Page, Reliability, Table, Tile
from engine.samples import Sample
from engine.tasks.hard_page import (
    boxes_caption,
    curve_of,
    examples_of,
    meaning_of,
    neighbours_of,
    reason_table,
    reviews,
    why_of,
    with_boxes,
    words_of,
)
from engine.tasks.labeling_page import in_words
from engine.tasks.pages import failure_tables, tiles_of

#: Images in "Review first", and of each label: the least and the most certain.
_REVIEW: Final = 120
_LEAST: Final = 12
_MOST: Final = 6
#: Labels that have a card: the most frequent.
_CARDS: Final = 40
#: Width of a bin of confidences, in percent.
_BIN: Final = 5

_REVIEW_NOTE: Final = "Automatic boxes, the images likeliest wrong first. {} To make what is right a person's:"
_ADVICE: Final = "labelengine confirm OUT --below 0.1 --by NAME"
_FAIR_SAMPLE: Final = (
    "What is expected of automatic boxes was measured on labeled images that a network had not seen; it holds where "
    "labeled images were drawn at random among all"
)


def detecting_page(
    dataset: Dataset,
    detection: Detection,
    hard: HardExamples,
    vectors: Tensor,
    *,
    failures: Sequence[Failure],
    written: Sequence[Sample],
    notes: Sequence[str],
    threads: int,
    begin: Callable[[int], Callable[[int], None]],
    source: str | None = None,
) -> Page:
    """dataset: its samples carry the boxes. vectors: (n, d), how images look, by which training images are chosen to be
    shown beside hard ones. written: the samples as OUT/result.manifest has them. begin: told how many images will be
    read again, gives what to call with the number read. source: what the boxes come from, where they were not learned
    here."""
    rows = np.flatnonzero(detection.automatic)
    order = rows[np.argsort(-hard.coefficients[rows], kind="stable")]
    review = order[:_REVIEW].tolist()
    of_labels = {column: _shown_of(detection, column) for column in _largest(detection)}
    positions = list(dict.fromkeys([*review, *(row for both in of_labels.values() for part in both for row in part)]))
    pictures = tiles_of(
        dataset, positions, [""] * len(positions), threads, begin(len(positions)), draw=with_boxes(dataset)
    )
    tiles = dict(zip(positions, pictures, strict=True))
    hard_rows = [row for row in review if hard.hard[row]]
    labeled = torch.from_numpy(detection.sketches.labeled)
    neighbours = neighbours_of(hard_rows, vectors, labeled[:, None], {})
    examples, places = examples_of(neighbours, dataset, None, threads, boxes=True)

    def reviewed(row: int) -> Tile:
        near = [places[at] for at in neighbours.near.get(row, ()) if at in places]
        line = format_sample(written[row]).decode("utf-8", "surrogatepass").strip()
        names = list(dict.fromkeys(shape.name for shape in dataset[row].boxes))
        why = why_of(hard, row, names, near, line)
        tile: Tile = replace(tiles[row], caption=boxes_caption(dataset[row], hard, row), why=why)
        return tile

    choices = detection.choices
    note = _REVIEW_NOTE.format(meaning_of(hard, of_boxes=True))
    return Page(
        title=f"{dataset.name}: boxes on {len(rows):,} image{'s' * (len(rows) != 1)}",
        subtitle="Automatic boxes, "
        + (source or f"learned from the {int(detection.sketches.labeled.sum()):,} images that people labeled"),
        facts=tuple(_facts(detection, hard, len(rows), len(failures))),
        notes=(*notes, *([_FAIR_SAMPLE] if choices.get("cv_images") else [])),
        galleries=(Gallery("Review first", tuple(map(reviewed, review)), note, _ADVICE),) if review else (),
        cards=tuple(_cards(detection, of_labels, tiles)),
        cards_heading="Labels",
        typical_heading="Least certain",
        unusual_heading="Most certain",
        numbered=False,
        histograms=tuple(_histograms(detection)),
        histograms_heading="Confidence",
        reliability=_reliability(choices),
        curve=curve_of(hard.left),
        tables=(
            *reason_table(hard, rows.tolist()),
            *_expected(detection),
            *_choices(choices),
            *failure_tables([(dataset.name, failures)]),
        ),
        reasons=words_of(hard),
        examples=examples,
    )


def _largest(detection: Detection) -> list[int]:
    """The columns of the most frequent labels among automatic boxes, and of all where they are few."""
    counts = detection.automatic_counts.sum(axis=0).tolist()
    return sorted(range(len(detection.labels)), key=lambda column: -counts[column])[:_CARDS]


def _shown_of(detection: Detection, column: int) -> tuple[list[int], list[int]]:
    """Images with boxes of a label: by the least certain of these, least certain first; and the most certain."""
    least = {}
    for row in np.flatnonzero(detection.automatic).tolist():
        boxes = detection.candidates[row]
        assert boxes is not None
        mine = boxes.scores[detection.given(row) & (boxes.classes == column)]
        if len(mine):
            least[row] = float(mine.min())
    order = sorted(least, key=lambda row: (least[row], row))
    return order[:_LEAST], order[_LEAST:][::-1][:_MOST]


def _cards(
    detection: Detection, of_labels: Mapping[int, tuple[list[int], list[int]]], tiles: Mapping[int, Tile]
) -> Iterator[Card]:
    of_images = detection.automatic_counts
    counts, images = of_images.sum(axis=0).tolist(), (of_images > 0).sum(axis=0).tolist()
    total = max(1, int(detection.automatic.sum()))
    drawn = detection.drawn_counts.tolist()
    for column, (least, most) in of_labels.items():
        if not least:
            continue
        yield Card(
            number=column + 1,
            name=detection.labels[column],
            size=images[column],
            share=images[column] / total,
            facts=(
                ("boxes", f"{counts[column]:,}"),
                ("drawn by people", f"{drawn[column]:,}"),
                ("given from a confidence of", f"{detection.thresholds[column]:.2f}"),
            ),
            typical=tuple(replace(tiles[row], caption=_label_caption(detection, row, column)) for row in least),
            unusual=tuple(replace(tiles[row], caption=_label_caption(detection, row, column)) for row in most),
        )


def _label_caption(detection: Detection, row: int, column: int) -> str:
    """`3 boxes from 57 %`."""
    boxes = detection.candidates[row]
    assert boxes is not None
    mine = boxes.scores[detection.given(row) & (boxes.classes == column)]
    return f"{len(mine)} box{'es' * (len(mine) != 1)} from {100 * float(mine.min()):.0f} %"


def _facts(detection: Detection, hard: HardExamples, automatic: int, unreadable: int) -> Iterator[tuple[str, str]]:
    choices = detection.choices
    yield "images with automatic boxes", f"{automatic:,}"
    yield "boxes", f"{detection.automatic_counts.sum():,}"
    yield "images labeled by people", f"{int(detection.sketches.labeled.sum()):,}"
    if choices.get("cv_map50") is not None:
        yield "mAP50 expected", f"{choices['cv_map50']:.3f}"
        yield "mAP50:95 expected", f"{choices['cv_map50_95']:.3f}"
    if choices.get("cv_precision") is not None:
        yield "boxes right, expected", f"{100 * choices['cv_precision']:.1f} %"
    if choices.get("cv_ece") is not None:
        yield "calibration error (ECE)", f"{choices['cv_ece']:.3f}"
    yield "hard boxes", f"{int(hard.labels.hard.sum()):,}"
    yield "hard images", f"{int((hard.hard & detection.automatic).sum()):,}"
    yield from reviews(hard.left, automatic)
    yield "algorithm", detection.algorithm_type
    yield "not used", f"{unreadable:,}"


def _histograms(detection: Detection) -> Iterator[Histogram]:
    values = [
        100 * boxes.scores[detection.given(row)].numpy()
        for row in np.flatnonzero(detection.automatic).tolist()
        for boxes in [detection.candidates[row]]
        if boxes is not None
    ]
    together = np.concatenate([*values, np.zeros(0)])
    if len(together):
        edges = np.arange(0, 100 + _BIN, _BIN, dtype=np.float64)
        meaning = "How sure the model is of the boxes that it gives: the probability that each is right"
        counts = tuple(np.histogram(together, edges)[0].tolist())
        yield Histogram(
            "Confidences", meaning, "%", tuple(edges.tolist()), (("automatic boxes", counts),), things="boxes"
        )


def _reliability(choices: Mapping[str, Any]) -> Reliability | None:
    points = [
        (float(each["confidence"]), float(each["accuracy"]), int(each["count"]))
        for each in choices.get("reliability") or ()
        if each["count"]
    ]
    if not points:
        return None
    meaning = (
        "How often a box of that confidence is right, on labeled images that the network had not seen; on the dashed "
        "line confidences say exactly that. Larger dots hold more boxes"
    )
    return Reliability("Confidence and accuracy, %", meaning, tuple(sorted(points)))


def _expected(detection: Detection) -> Iterator[Table]:
    """How good boxes of each label are expected to be."""
    counts = detection.automatic_counts.sum(axis=0).tolist()
    drawn = detection.drawn_counts.tolist()
    expected = {each["label"]: each for each in detection.choices.get("cv_classes") or ()}
    rows = []
    for column, label in enumerate(detection.labels):
        each = expected.get(label, {})
        figures = ("–" if each.get(name) is None else f"{each[name]:.3f}" for name in ("ap50", "ap50_95"))
        least = detection.thresholds[column]
        threshold = f"{least:.2f}" if least <= 1 else "–"  # no box of a label that the model does not know is given
        rows.append((label, f"{drawn[column]:,}", f"{counts[column]:,}", *figures, threshold))
    yield Table(
        "Expected",
        ("label", "by people", "automatic", "AP at IoU 0.5", "AP at 0.5..0.95", "given from"),
        tuple(rows),
        note="Boxes; average precision (COCO) on labeled images that the network had not seen, "
        f"{detection.choices.get('cv_images', 0):,} of them; the confidence from which on boxes are given",
        see="boxes.csv",
        words=1,
    )


def _choices(choices: Mapping[str, Any]) -> Iterator[Table]:
    rows = tuple(
        row
        for name, value in choices.items()
        if name not in ("reliability", "cv_classes")
        for row in in_words(name.replace("_", " "), value)
    )
    if rows:
        yield Table("Choices", ("what", "choice"), rows, note="What was chosen for these images", words=2)
