"""What auto labeling shows a person: a `Labeling` as a `report.Page` on which labels are confirmed and corrected.

First what most needs a look, then a card a label, then how far the confidences can be trusted. Only the images that are
shown are read again. Knows nothing of where the page is written.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, product
from typing import Any, Final, TypeGuard

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engine.dataset import Dataset
from engine.hard.examples import HardExamples
from engine.label.results import Labeling
from engine.manifest import format_sample
from engine.report import (
    MOST_TILES,
    Card,
    Decisions,
    Example,
    Gallery,
    Histogram,
    Page,
    Proposal,
    Reliability,
    Table,
    Tile,
    Why,
    tiles_per_card,
)
from engine.samples import Sample
from engine.tasks.hard_page import curve_of, examples_of, neighbours_of, reason_table, reviews, why_of, words_of
from engine.tasks.pages import failure_tables, tiles_of

#: Images in "Review first": what a person looks through in five minutes, at 2.5 s an image.
REVIEW_FIRST: Final = 120

#: Labels that are offered for an image with their probabilities: as many as the keys 1-9, or all of a few.
_OFFERED: Final = 9
_FEW: Final = 10

#: Width of a bin of confidences, in percent.
_BIN: Final = 5

#: Rows of a table that are handed to the page; it writes fewer, and says how many there are.
_ROWS: Final = 1_000

_FAIR_SAMPLE: Final = (
    "The accuracy expected, like every confidence, holds where the labeled images were drawn at random among all; "
    "where they come from a few people, places or days it is too high: see what is least certain"
)
_REVIEW_HARD: Final = (
    "The labels most likely wrong, likeliest first, by the hard coefficient in result.manifest: where it was learned "
    "from the labeled images, the probability that the label is wrong. Hard examples have the numbers of their reasons "
    "beside the label, those that count most first; Reasons below says what they mean."
)
_ADVICE: Final = "labelengine confirm OUT --labels decisions.jsonl --by NAME"

#: Choices in words; another one is called by its name. Those of _TOLD_ELSEWHERE stand in the head or in a chart.
_WORDS: Final = {
    "algorithm_type": "algorithm",
    "precision": "numbers that networks compute in",
    "cv_accuracy": "accuracy expected (cross-validation)",
    "cv_accuracy_interval": "its interval",
    "cv_ece": "calibration error (ECE)",
    "minutes": "minutes asked for",
}
_TOLD_ELSEWHERE: Final = ("reliability",)


def labeling_page(
    dataset: Dataset,
    labeling: Labeling,
    hard: HardExamples | None = None,
    *,
    notes: Sequence[str],
    threads: int,
    begin: Callable[[int], Callable[[int], None]] = lambda total: lambda done: None,
    written: Sequence[Sample] | None = None,
    vectors: Tensor | None = None,
    source: str | None = None,
) -> Page:
    """The images that got labels, the hardest first (the least certain, where hard examples were not looked for), and
    what is known about the labels.

    begin: told how many images will be read again, gives what to call with the number read. written: the samples as
    OUT/result.manifest has them; None: as the data set does. vectors: (n, d), how images look, by which training images
    are chosen to be shown beside hard ones. source: what the labels come from, where they were not learned here.
    """
    found = _Found(labeling, hard)
    review = found.hardest(REVIEW_FIRST)
    typical, unusual = _tiles_per_label(len(labeling.labels), len(review))
    shown = [_chosen(found.of_label(column), typical, unusual) for column in range(len(labeling.labels))]
    explained = _Explained.of(found, review, vectors, written, dataset, threads)
    positions = list(dict.fromkeys(chain(review, *(chain(*pair) for pair in shown))))
    pictures = tiles_of(dataset, positions, [""] * len(positions), threads, begin(len(positions)))
    tiles = {
        position: replace(tile, proposal=found.proposal(position, (written or dataset)[position].source))
        for position, tile in zip(positions, pictures, strict=True)
    }
    failures = (*dataset.failures, *labeling.survey.failures)
    automatic = len(found.automatic)
    return Page(
        title=f"{dataset.name}: {automatic:,} image{'s' * (automatic != 1)} labeled",
        subtitle="Automatic labels, " + (source or f"learned from the {found.by_people:,} images that people labeled"),
        facts=(*_facts(labeling, found, len(failures)), *_hard_facts(found)),
        notes=(*notes, *_caveats(labeling.choices)),
        galleries=(
            Gallery(
                "Review first",
                tuple(
                    replace(tiles[at], caption=found.review_caption(at), why=explained.whys.get(at)) for at in review
                ),
                note=_REVIEW_HARD if hard else "The least certain of all automatic labels, least certain first.",
            ),
        )
        if review
        else (),
        cards=tuple(_cards(found, shown, tiles)),
        cards_heading="Labels",
        typical_heading="Least certain",
        unusual_heading="Most certain",
        numbered=False,
        histograms=_histograms(found),
        reliability=_reliability(labeling.choices),
        histograms_heading="Confidence",
        curve=curve_of(hard.left) if hard else None,
        tables=(
            *(reason_table(hard, found.automatic.tolist()) if hard else ()),
            *_tables(labeling, found),
            *failure_tables([(dataset.name, failures)]),
        ),
        decisions=Decisions(labeling.labels, several=labeling.targets.multi_label, advice=_ADVICE),
        reasons=words_of(hard) if hard else {},
        examples=explained.examples,
    )


class _Found:
    """A labeling with what the page asks of it again and again, computed once."""

    def __init__(self, labeling: Labeling, hard: HardExamples | None) -> None:
        self.hard = hard
        self.labels = labeling.labels
        self.probabilities = labeling.probabilities
        self.predicted = labeling.predicted
        self.confidences = labeling.confidences
        self.automatic = np.flatnonzero(labeling.automatic)  # (m,) rows that get labels
        self.by_people = int(labeling.targets.labeled.sum())
        self.tested = np.flatnonzero(labeling.targets.labeled & labeling.predictable)  # (t,) rows with both
        self.truth = labeling.targets.matrix

    def hardest(self, most: int) -> list[int]:
        ease = self.confidences if self.hard is None else -self.hard.coefficients
        order = np.argsort(ease[self.automatic], kind="stable")
        return [int(row) for row in self.automatic[order[:most]]]

    def of_label(self, column: int) -> list[int]:
        """The rows that get this label, the least certain about it first."""
        rows = self.automatic[self.predicted[self.automatic, column]]
        return [int(row) for row in rows[np.argsort(self.probabilities[rows, column], kind="stable")]]

    def proposal(self, row: int, source: str) -> Proposal:
        shares = self.probabilities[row].clip(0, 1)
        offered = len(self.labels) if len(self.labels) <= _FEW else _OFFERED
        likely = np.argsort(-shares, kind="stable")[:offered]
        return Proposal(
            source,
            tuple(self.labels[column] for column in np.flatnonzero(self.predicted[row])),
            tuple((self.labels[column], float(shares[column])) for column in likely),
        )

    def label_caption(self, row: int) -> str:
        """`57 % · cat`, or `57 % · cat, 52 % · dog`."""
        given = np.flatnonzero(self.predicted[row])
        return ", ".join(f"{_percent(self.probabilities[row, column])} · {self.labels[column]}" for column in given)

    def review_caption(self, row: int) -> str:
        """`57 % · cat`, and of a hard example the numbers of its reasons: `57 % · cat · 1-21`."""
        reasons = () if self.hard is None else self.hard.reasons[row]
        return " · ".join([self.label_caption(row), *(["-".join(map(str, reasons))] if reasons else [])])

    def caption(self, row: int, column: int) -> str:
        """`57 %`, or `57 % + dog` when the image gets another label too."""
        others = [self.labels[other] for other in np.flatnonzero(self.predicted[row]) if other != column]
        return _percent(self.probabilities[row, column]) + (f" + {', '.join(others)}" if others else "")


def _tiles_per_label(labels: int, spent: int) -> tuple[int, int]:
    """(least certain, most certain) tiles of a card, so that all tiles of the page are at most MOST_TILES."""
    least, most = tiles_per_card(labels)
    each = (MOST_TILES - spent) // max(1, labels)
    if least + most <= each:
        return least, most
    rows = each // 9  # whole ones, as long as there is one
    return (6 * rows, 3 * rows) if rows else (each - each // 3, each // 3)


def _chosen(members: list[int], least: int, most: int) -> tuple[list[int], list[int]]:
    """Of the rows of a label, the least certain first: these, and the most certain of the others, surest first."""
    return members[:least], members[least:][::-1][:most]


def _cards(found: _Found, shown: Sequence[tuple[list[int], list[int]]], tiles: Mapping[int, Tile]) -> Iterator[Card]:
    """A card a label, the largest first."""
    kept = found.predicted[found.automatic]
    sizes = kept.sum(axis=0)
    for column in np.argsort(-sizes, kind="stable").tolist():
        size = int(sizes[column])
        least, most = shown[column]
        surest = most[0] if most else least[-1] if least else None
        yield Card(
            number=column + 1,
            name=found.labels[column],
            size=size,
            share=size / max(1, len(found.automatic)),
            facts=_label_facts(found, column),
            typical=tuple(replace(tiles[row], caption=found.caption(row, column)) for row in least),
            unusual=tuple(replace(tiles[row], caption=found.caption(row, column)) for row in most),
            face=None if surest is None else tiles[surest].image,
        )


def _label_facts(found: _Found, column: int) -> tuple[tuple[str, str], ...]:
    counts = _label_counts(found, column)
    return (
        ("labeled by people", f"{counts.human:,}"),
        ("mean confidence", _percent_or_dash(counts.confidence)),
        ("found again", _percent_or_dash(counts.found_again)),
    )


@dataclass(frozen=True, slots=True)
class _Counts:
    """One label. found_again: of the images that people gave it, the part that models gave it too, out of fold."""

    human: int
    automatic: int
    confidence: float
    found_again: float


def _label_counts(found: _Found, column: int) -> _Counts:
    rows = found.automatic[found.predicted[found.automatic, column]]
    tested = found.tested[found.truth[found.tested, column]]
    return _Counts(
        human=int(found.truth[:, column].sum()),
        automatic=len(rows),
        confidence=float(found.probabilities[rows, column].mean()) if len(rows) else math.nan,
        found_again=float(found.predicted[tested, column].mean()) if len(tested) else math.nan,
    )


def _caveats(choices: Mapping[str, Any]) -> tuple[str, ...]:
    """What the accuracy expected rests on: on photos of hands it said 97 % where 65 % were right, with the first ten
    files of each class labeled, and 98 % where 95 % were, with ten drawn at random."""
    return (_FAIR_SAMPLE,) if choices.get("cv_accuracy") is not None else ()


def _facts(labeling: Labeling, found: _Found, unreadable: int) -> tuple[tuple[str, str], ...]:
    choices = labeling.choices
    facts = [
        ("labeled automatically", f"{len(found.automatic):,}"),
        ("labeled by people", f"{found.by_people:,}"),
        ("labels", f"{len(labeling.labels):,}"),
    ]
    accuracy, interval = choices.get("cv_accuracy"), choices.get("cv_accuracy_interval")
    if _is_number(accuracy):
        between = ""
        if isinstance(interval, Sequence) and len(interval) == 2 and all(map(_is_number, interval)):
            between = f" ({100 * interval[0]:.1f}–{100 * interval[1]:.1f})"
        facts.append(("accuracy expected", f"{100 * accuracy:.1f} %{between}"))
    ece, minutes = choices.get("cv_ece"), choices.get("minutes")
    if _is_number(ece):
        facts.append(("calibration error (ECE)", f"{ece:.3f}"))
    if _is_number(minutes):
        facts.append(("minutes asked for", f"{minutes:g}"))
    return (*facts, ("algorithm", labeling.algorithm_type), ("unreadable", f"{unreadable:,}"))


def _histograms(found: _Found) -> tuple[Histogram, ...]:
    """The confidences of the automatic labels, in bins of _BIN percent up to 100."""
    values = 100 * found.confidences[found.automatic].clip(0, 1)
    if not len(values):
        return ()
    first = min(_BIN * math.floor(values.min() / _BIN), 100 - 2 * _BIN)
    edges = np.arange(first, 100 + _BIN, _BIN, dtype=np.float64)
    return (
        Histogram(
            "Confidences",
            "How sure the model is of the labels it gives; of several on one image, the least sure counts",
            "%",
            tuple(edges.tolist()),
            (("automatic labels", tuple(np.histogram(values, edges)[0].tolist())),),
        ),
    )


def _reliability(choices: Mapping[str, Any]) -> Reliability | None:
    """The out-of-fold predictions: choices["reliability"], a list of {confidence, accuracy, count}."""
    points = [
        (float(each["confidence"]), float(each["accuracy"]), int(each["count"]))
        for each in choices.get("reliability") or ()
        if each["count"]
    ]
    if not points:
        return None
    meaning = (
        "How often a label of that confidence is right, on images that people labeled and the model had not seen; "
        "on the dashed line confidences say exactly that. Larger dots hold more images"
    )
    return Reliability("Confidence and accuracy, %", meaning, tuple(sorted(points)))


def _hard_facts(found: _Found) -> Iterator[tuple[str, str]]:
    """How many hard examples there are, and how many images are to be reviewed until labels are as right as that."""
    if found.hard is not None:
        yield "hard examples", f"{int(found.hard.hard[found.automatic].sum()):,}"
        yield from reviews(found.hard.left, len(found.automatic))


@dataclass(frozen=True, slots=True)
class _Explained:
    """Why images are hard, by row, and the pictures beside them."""

    whys: Mapping[int, Why]
    examples: tuple[Example, ...]

    @classmethod
    def of(
        cls,
        found: _Found,
        rows: Sequence[int],
        vectors: Tensor | None,
        written: Sequence[Sample] | None,
        dataset: Dataset,
        threads: int,
    ) -> _Explained:
        hard = found.hard
        if hard is None:
            return cls({}, ())
        rows = [row for row in rows if hard.hard[row]]
        columns = {row: np.flatnonzero(found.predicted[row]).tolist() for row in rows}
        examples: tuple[Example, ...] = ()
        near: dict[int, list[int]] = {}
        if vectors is not None:
            neighbours = neighbours_of(rows, vectors, torch.from_numpy(found.truth), columns)
            examples, places = examples_of(neighbours, dataset, None, threads)
            near = {row: [places[at] for at in each if at in places] for row, each in neighbours.near.items()}
        whys = {}
        for row in rows:
            line = format_sample(written[row]).decode("utf-8", "surrogatepass").strip() if written else ""
            names = [found.labels[column] for column in columns[row]]
            why = why_of(hard, row, names, near.get(row, ()), line)
            if why is not None:
                whys[row] = why
        return cls(whys, examples)


def _tables(labeling: Labeling, found: _Found) -> Iterator[Table]:
    confusions = _confusions(found)
    if len(found.tested):
        yield Table(
            "Confusions",
            ("people say", "the model says", "images", "of that label"),
            tuple(confusions[:_ROWS]),
            note="Where models that had not seen an image (out of fold) differ from what people said of it; "
            f"{len(found.tested):,} images",
            total=len(confusions),
            words=2,
            see="probabilities.npz",
        )
    rows = []
    for column, label in enumerate(labeling.labels):
        each = _label_counts(found, column)
        shares = (_percent_or_dash(each.confidence), _percent_or_dash(each.found_again))
        rows.append((label, f"{each.human:,}", f"{each.automatic:,}", *shares))
    yield Table(
        "Counts",
        ("label", "by people", "automatic", "mean confidence", "found again"),
        tuple(rows),
        note="Found again: of the images that people gave this label, the part that models gave it which had not seen "
        "them",
        see="labels.csv",
        words=1,
    )
    choices = tuple(
        (words, value)
        for name, choice in labeling.choices.items()
        if name not in _TOLD_ELSEWHERE
        for words, value in in_words(_WORDS.get(name, name.replace("_", " ")), choice)
    )
    if choices:
        yield Table("Choices", ("what", "choice"), choices, note="What was chosen for these images, and why", words=2)


def _confusions(found: _Found) -> list[tuple[str, str, str, str]]:
    """(label by people, label by the model, images, share of the label's images), the most frequent first.

    A label that was missed is paired with each that was given in its place, with a dash when there is none.
    """
    truth, predicted = found.truth[found.tested], found.predicted[found.tested]
    pairs: Counter[tuple[int, int]] = Counter()
    for row in np.flatnonzero((truth != predicted).any(axis=1)):
        missed, instead = np.flatnonzero(truth[row] & ~predicted[row]), np.flatnonzero(predicted[row] & ~truth[row])
        pairs.update(product(missed.tolist() or [-1], instead.tolist() or [-1]))
    sizes = truth.sum(axis=0)

    def told(people: int, model: int, images: int) -> tuple[str, str, str, str]:
        share = "–" if people < 0 else _percent(images / int(sizes[people]))
        return _name(found, people), _name(found, model), f"{images:,}", share

    ordered = sorted(pairs.items(), key=lambda item: (-item[1], item[0]))
    return [told(people, model, images) for (people, model), images in ordered]


def _name(found: _Found, column: int) -> str:
    return "–" if column < 0 else found.labels[column]


def in_words(name: str, value: Any) -> list[tuple[str, str]]:
    """A choice as (name, value) rows: a mapping has a row for each of its entries."""
    if isinstance(value, Mapping) and value:
        return [row for part, each in value.items() for row in in_words(f"{name}: {str(part).replace('_', ' ')}", each)]
    return [(name, _word(value))]


def _word(value: Any) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, float | np.floating):
        return f"{value:.4g}"
    if isinstance(value, int | np.integer):
        return f"{int(value):,}" if abs(int(value)) >= 10_000 else str(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{str(name).replace('_', ' ')} {_word(each)}" for name, each in value.items()) or "none"
    if isinstance(value, Sequence) and not isinstance(value, str):
        separator = "; " if any(isinstance(each, Mapping) for each in value) else ", "
        return separator.join(map(_word, value)) or "none"
    return str(value)


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _percent(share: float | npt.NDArray[np.float32]) -> str:
    """`57 %`; what is not quite sure never reads 100 %, nor what happens 0 %."""
    value = 100 * float(share)
    if 99 <= value < 100:
        return f"{min(99.9, math.floor(10 * value) / 10):.1f} %"
    return "<1 %" if 0 < value < 0.5 else f"{value:.0f} %"


def _percent_or_dash(share: float) -> str:
    return "–" if math.isnan(share) else _percent(share)
