"""What a page says of hard examples, and the page of the task `hard`.

Only the images that are shown are read again. Knows nothing of where the page is written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engine.dataset import Dataset
from engine.hard.asking import Search
from engine.hard.combine import GOALS, Residual, reviews_to_reach
from engine.hard.examples import HardExamples
from engine.hard.questions import object_boxes
from engine.images import Pixels
from engine.manifest import format_sample
from engine.report import (
    Curve,
    Decisions,
    Example,
    Gallery,
    Page,
    Proposal,
    Table,
    Tile,
    Why,
)
from engine.samples import Sample
from engine.survey import boxes_on
from engine.tasks.pages import failure_tables, tiles_of

#: Hard examples that the page shows: a manifest has all.
SHOWN: Final = 240
#: Training images beside one: of its label, and of another.
_NEAR_SAME: Final = 3
_NEAR_OTHER: Final = 1
_ADVICE: Final = "labelengine confirm OUT --labels decisions.jsonl --by NAME"
_ADVICE_LABELED: Final = f"{_ADVICE} --replace"
#: Colors of boxes: hard ones, others.
_HARD: Final = (224, 64, 48)
_EASY: Final = (40, 160, 120)


# ---- Parts that other pages have, too.


def told_coefficient(found: HardExamples, row: int) -> str:
    """`43 % likely wrong`, or where it is no probability `difficulty 0.43`."""
    told = _short(found, row)
    return f"{told} likely wrong" if found.combiner == "calibrated" else f"difficulty {told}"


def _short(found: HardExamples, row: int) -> str:
    """`43 %`, or `0.43`."""
    coefficient = float(found.coefficients[row])
    if found.combiner != "calibrated":
        return f"{coefficient:.2f}"
    percent = "<1" if coefficient < 0.005 else ">99" if coefficient > 0.995 else f"{100 * coefficient:.0f}"
    return f"{percent} %"


def boxes_caption(sample: Sample, found: HardExamples, row: int) -> str:
    """`43 % · 2/12 · 0-18`: hard boxes of all."""
    boxes = object_boxes(sample)
    red = sum(bool(shape.hard_reasons) for shape in boxes)
    count = f"{red}/{len(boxes)}" if boxes else "no box"
    reasons = "-".join(map(str, found.reasons[row]))
    return " · ".join([_short(found, row), count, *([reasons] if reasons else [])])


def words_of(found: HardExamples) -> dict[int, str]:
    """What the numbers of reasons mean: of all that were looked for."""
    return {number: found.meaning(number) for number in found.scores}


def reviews(left: Sequence[Residual], total: int) -> Iterator[tuple[str, str]]:
    """How many images are to be reviewed until labels are as right as that."""
    for goal in GOALS:
        reviewed = reviews_to_reach(left, goal)
        if reviewed is not None:
            yield f"to review until {100 * goal:g} % are right", f"{reviewed:,} of {total:,}"


def curve_of(left: Sequence[Residual]) -> Curve | None:
    """What a review leaves, as a drawing; None where nothing is known."""
    if len(left) < 2:
        return None
    total = left[-1].reviewed
    points = tuple((each.reviewed, each.expected / total, each.low / total, each.high / total) for each in left)
    meaning = (
        "Of all automatic labels, how many are still wrong when so many were reviewed, the hardest first; the band is "
        "a 90 % interval"
    )
    return Curve("Wrong labels left after a review", meaning, points)


def reason_table(found: HardExamples, rows: Iterable[int]) -> Iterator[Table]:
    """How often each reason is given: a table, or none."""
    counts = Counter(chain.from_iterable(found.reasons[row] for row in rows))
    lines = [(str(number), found.meaning(number), f"{count:,}") for number, count in counts.most_common()]
    if lines:
        note = "Why images are hard examples; one image may have several reasons"
        yield Table("Reasons", ("number", "reason", "images"), tuple(lines), note=note, words=2)


@dataclass(frozen=True, slots=True)
class Neighbours:
    """For some rows the training images that look most like them. rows: (e,) positions of the images needed, none
    twice. near: by row, positions among these."""

    rows: tuple[int, ...]
    near: Mapping[int, tuple[int, ...]]


def neighbours_of(rows: Sequence[int], vectors: Tensor, told: Tensor, given: Mapping[int, Sequence[int]]) -> Neighbours:
    """vectors: (N, d), rows of NaN for none. told: (N, k) bool, what people said. given: by row, columns of its
    labels: first the most alike that people gave one of them, then of others."""
    there = ~vectors.isnan().any(dim=1)
    training = (told.any(dim=1) & there).nonzero()[:, 0]
    places: dict[int, int] = {}
    near: dict[int, tuple[int, ...]] = {}
    for row in rows:
        if not bool(there[row]) or not len(training):
            continue
        distances = torch.cdist(vectors[row : row + 1].float(), vectors[training].float())[0]
        distances[training == row] = torch.inf
        order = training[distances.argsort()]
        order = order[: len(order) - int((training == row).any())]
        same = (
            told[order][:, list(given.get(row, ()))].any(dim=1) if told.shape[1] > 1 else torch.ones(len(order)).bool()
        )
        chosen = [*order[same][:_NEAR_SAME].tolist(), *order[~same][:_NEAR_OTHER].tolist()]
        near[row] = tuple(places.setdefault(at, len(places)) for at in chosen)
    return Neighbours(tuple(places), near)


def examples_of(
    neighbours: Neighbours, dataset: Dataset, train: Dataset | None, threads: int, *, boxes: bool = False
) -> tuple[tuple[Example, ...], dict[int, int]]:
    """The pictures of neighbours, and for each position among them the place of its picture; unreadable ones are left
    out. Positions from len(dataset) on are those of the training set, in its order. boxes: draw them."""
    here = [row for row in neighbours.rows if row < len(dataset)]
    tiles: dict[int, tuple[Tile, Sample]] = {}
    for each, rows, first in (
        (dataset, here, 0),
        (train, [r for r in neighbours.rows if r not in set(here)], len(dataset)),
    ):
        if each is not None and rows:
            at = [row - first for row in rows]
            draw = with_boxes(each) if boxes else None
            found = tiles_of(each, at, [""] * len(at), threads, lambda done: None, draw=draw)
            tiles.update({row: (tile, each[place]) for row, tile, place in zip(rows, found, at, strict=True)})
    examples: list[Example] = []
    places: dict[int, int] = {}
    for position, row in enumerate(neighbours.rows):
        tile, sample = tiles[row]
        if tile.image is not None:
            places[position] = len(examples)
            names = [label.name for label in sample.labels if label.by_human and label.name]
            names += [shape.name for shape in sample.boxes]
            examples.append(Example(tile.image, ", ".join(dict.fromkeys(names)) or tile.title))
    return tuple(examples), places


def why_of(
    found: HardExamples, row: int, labels: Sequence[str], near: Iterable[int] = (), line: str = ""
) -> Why | None:
    """None where a sample is not hard."""
    reasons = found.reasons[row]
    if not reasons:
        return None
    shares = tuple((number, float(found.shares[number][row])) for number in reasons)
    return Why(told_coefficient(found, row), shares, tuple(labels), tuple(near), line)


# ---- The page of the task.


def hard_page(
    dataset: Dataset,
    done: Search,
    order: npt.NDArray[np.int64],
    *,
    labeled: bool,
    written: Sequence[Sample],
    notes: Sequence[str],
    threads: int,
    begin: Callable[[int], Callable[[int], None]],
) -> Page:
    """The samples in question, the hardest first.

    order: their positions, the hardest first. labeled: whether people's labels are in question. written: the samples as
    OUT/result.manifest has them.
    """
    found = done.found
    shown = [row for row in order[:SHOWN].tolist() if found.hard[row]]
    advance = begin(len(shown))
    columns = _columns(found)
    neighbours = neighbours_of(shown, done.vectors, done.told, columns)
    examples, places = examples_of(neighbours, dataset, done.train, threads, boxes=done.of_boxes)
    draw = with_boxes(dataset) if done.of_boxes else None
    pictures = tiles_of(dataset, shown, [""] * len(shown), threads, advance, draw=draw)
    tiles = []
    for row, tile in zip(shown, pictures, strict=True):
        names = list(dict.fromkeys(found.names[column] for column in columns.get(row, ())))
        near = [places[at] for at in neighbours.near.get(row, ()) if at in places]
        line = format_sample(written[row]).decode("utf-8", "surrogatepass").strip()
        why = why_of(found, row, names, near, line)
        proposal = None if done.of_boxes else Proposal(written[row].source, tuple(names))
        reasons = "-".join(map(str, found.reasons[row]))
        of_image = f"{_short(found, row)} · {', '.join(names)} · {reasons}"
        caption = boxes_caption(dataset[row], found, row) if done.of_boxes else of_image
        tiles.append(replace(tile, caption=caption, proposal=proposal, why=why))
    hard = int(found.hard[order].sum())
    meaning = meaning_of(found, done.of_boxes)
    what = "people's labels" if labeled else "boxes" if done.of_boxes else "automatic labels"
    more = f" The first {len(shown):,} of {hard:,}; hard.csv has all." if hard > len(shown) else ""
    decisions = None
    if not done.of_boxes:
        decisions = Decisions(found.names, several=done.multi_label, advice=_ADVICE_LABELED if labeled else _ADVICE)
    failures = (*dataset.failures, *done.train.failures, *done.failures)
    return Page(
        title=f"{dataset.name}: {hard:,} hard example{'s' * (hard != 1)}",
        subtitle=f"Among {len(order):,} images whose {what} are in question, the most difficult first",
        facts=(
            ("in question", f"{len(order):,}"),
            ("hard", f"{hard:,}"),
            ("from a coefficient of", f"{found.threshold:g}"),
            *reviews(found.left, len(order)),
            ("unreadable", f"{len(failures):,}"),
        ),
        notes=tuple(notes),
        galleries=(Gallery("Hard examples", tuple(tiles), note=meaning + more),) if tiles else (),
        histograms_heading="Review",
        curve=curve_of(found.left),
        tables=(*reason_table(found, order.tolist()), *failure_tables([(dataset.name, failures)])),
        decisions=decisions,
        reasons=words_of(found),
        examples=examples,
    )


def meaning_of(found: HardExamples, of_boxes: bool) -> str:
    """What captions say."""
    wrong = "a box on the image is wrong or missing" if of_boxes else "the label is wrong"
    number = {
        "calibrated": f"The percentage is the probability that {wrong}",
        "weights": "The first number is the difficulty, from 0 to 1, by a weighted mean of what the miners say",
    }
    boxes = ", then how many boxes are hard, in red, and of how many (9/17)" if of_boxes else ""
    reasons = "the last numbers are the reasons, those that count most first: Reasons below says what they mean."
    return f"{number[found.combiner]}{boxes}; {reasons}"


def _columns(found: HardExamples) -> dict[int, list[int]]:
    columns: dict[int, list[int]] = {}
    for row, column in zip(found.labels.rows.tolist(), found.labels.columns.tolist(), strict=True):
        columns.setdefault(row, []).append(column)
    return columns


def with_boxes(dataset: Dataset) -> Callable[[int, Pixels, float], Pixels]:
    """Draws the boxes of a sample where its image has them, hard ones in red, wide enough to be seen on a thumbnail."""

    def draw(position: int, rgb: Pixels, scale: float) -> Pixels:
        picture = np.ascontiguousarray(rgb).copy()
        wide = max(1, round(max(picture.shape[:2]) / 110))
        height, width = picture.shape[:2]
        boxes = scale * boxes_on(dataset[position], width / scale, height / scale).clip(-1e6, 1e6)
        hard = [bool(shape.hard_reasons) for shape in dataset[position].boxes]
        drawn = zip(boxes.round().astype(int).tolist(), hard, strict=True)
        for (x1, y1, x2, y2), is_hard in sorted(drawn, key=lambda each: each[1]):
            cv2.rectangle(picture, (x1, y1), (x2, y2), _HARD if is_hard else _EASY, wide)
        return picture

    return draw
