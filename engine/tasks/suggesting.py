"""What to label next, as a task: a data set with some labels, or none, in; the images worth labeling out.

    suggested.manifest   the chosen samples, the most useful first; rank, score and reason in the attribute PROPERTY
    suggested.csv        the same, a line each: rank, source, why, score
    report.html          the images to look at, by reason

What a person labeled is never suggested; automatic labels of an earlier run count as none. What a model believes comes
from OUT of auto labeling where that is the data set, else from a ridge head on the labels there are. Knows nothing of
the command line.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engine.dataset import Dataset, settled
from engine.detect.sketches import human_drawings
from engine.embeddings import DEFAULT_ENCODER, Encoder, content_vectors, load_encoder
from engine.errors import UsageError
from engine.exports import Tally
from engine.files import write_bytes, write_text
from engine.hard.questions import has_automatic_boxes
from engine.images import MAX_PIXELS
from engine.label.calibration import folds_of
from engine.label.heads import fit_ridge, fit_temperature, left_out_scores, probabilities
from engine.label.suggest import REASONS, TYPICAL_BELOW, Suggestions, suggest
from engine.label.targets import Targets, targets_of
from engine.label.training import generator_of
from engine.manifest import write_manifest
from engine.report import Gallery, Page, render
from engine.samples import Sample
from engine.survey import Survey, survey
from engine.tasks.grouping import device_of, on_threads
from engine.tasks.pages import failure_tables, tiles_of
from engine.tasks.probabilities import PROBABILITIES_NAME, earlier_probabilities
from engine.tasks.runner import Outcome, Run, Task
from engine.threads import processors

KIND: Final = "suggest"
SUGGESTED_NAME: Final = "suggested.manifest"
TABLE_NAME: Final = "suggested.csv"
REPORT_NAME: Final = "report.html"

#: The sample attribute of a suggested sample: {"rank": from 1, "score": in [0, 1], "why": one of suggest.REASONS}.
PROPERTY: Final = "@labelengine:suggested"

_COLUMNS: Final = ("rank", "source", "why", "score")
_STAGES: Final = {
    "reading images": 75.0,
    "looking at contents": 15.0,
    "choosing": 5.0,
    "writing the result": 1.0,
    "drawing the page": 4.0,
}
_MOST_TILES: Final = 600  # of the page, which stays below 3 MB
#: Parts of the labels, of which a temperature is learned.
_FOLDS: Final = 5

_HEADINGS: Final = {
    "typical": ("Typical", "each stands for many images that nobody has labeled"),
    "uncertain": ("Uncertain", "the model cannot decide on these, nor on those like them"),
    "new": ("New", "nothing like these has been labeled"),
}


def suggest_task(
    dataset: Dataset,
    *,
    count: int,
    seed: int = 0,
    threads: int | None = None,
    max_pixels: int = MAX_PIXELS,
    device: str = "auto",
    encoder: str | None = None,
    weights: Path | None = None,
) -> Task:
    """The task that chooses `count` images of the data set to label next.

    encoder, weights: as for `load_encoder`; our own by default. device: auto, cpu, cuda or cuda:N. Raises UsageError or
    InputError for options that fail.
    """
    if count < 1:
        raise UsageError(f"count: must be at least 1, got {count}")
    if weights is not None and encoder is None:
        raise UsageError(f"weights: belong to an encoder, got {weights} and no encoder")
    eyes = load_encoder(encoder or DEFAULT_ENCODER, weights=weights, device=device_of(device))
    options = _Options(count, seed, threads, max_pixels, device, eyes)
    return Task(
        job=on_threads(options.threads, lambda this: _suggest(this, dataset, options)),
        kind=KIND,
        config={"count": count, "seed": seed, "max_pixels": max_pixels, "encoder": eyes.name},
        dataset=dataset.name,
        stages=_STAGES,
        files=dataset.files,
        digest=dataset.digest,
        notices=dataset.notes,
    )


@dataclass(frozen=True, slots=True)
class _Options:
    count: int
    seed: int
    threads: int | None
    max_pixels: int
    device: str
    encoder: Encoder


@dataclass(frozen=True, slots=True)
class _Belief:
    """What a model says of the m images that can be read: (m, k), None where there is no model. told: a line on it."""

    values: Tensor | None
    multi_label: bool
    told: str


def _suggest(this: Run, dataset: Dataset, options: _Options) -> Outcome:
    advance = this.stage("reading images", sum(sample.is_image for sample in dataset))
    found = survey(
        dataset,
        dataset.sources,
        folder=this.cache,
        thumbnail_side=options.encoder.size,
        threads=options.threads,
        max_pixels=options.max_pixels,
        progress=advance,
        stopped=this.stopped,
    )
    this.tell_reused(found.reused)
    by_people = np.array([any(label.by_human for label in sample.labels) for sample in dataset], bool)
    _check_something_left(dataset, found, by_people)
    assert found.thumbnails is not None
    thumbnails, rows = found.thumbnails, found.thumbnails.index

    advance = this.stage("looking at contents", len(rows))
    vectors = content_vectors(
        thumbnails.batches, encoder=options.encoder, device=device_of(options.device), progress=advance
    )
    advance = this.stage("choosing", len(rows))
    belief = _belief(dataset, rows, by_people[rows], vectors)
    labeled = torch.from_numpy(by_people[rows])
    chosen = suggest(
        vectors,
        options.count,
        candidates=~labeled,
        labeled=labeled,
        probabilities=belief.values,
        multi_label=belief.multi_label,
        generator=torch.Generator().manual_seed(options.seed),
    )
    advance(len(rows))
    this.note(belief.told)
    for line in _notes(chosen, options.count, int((~labeled).sum())):
        this.note(line)

    positions = rows[chosen.order]
    advance = this.stage("writing the result", len(positions))
    tally = Tally()
    samples = _marked([dataset[position] for position in positions.tolist()], chosen)
    placed = tuple(settled(dataset.with_samples(samples), this.out, tally))
    write_manifest(this.out.target(SUGGESTED_NAME), placed)
    write_bytes(this.out.target(TABLE_NAME), _table(placed, chosen))
    advance(len(positions))

    failures = (*dataset.failures, *found.failures, *tally.failures)
    page = _page(this, dataset, found, positions, chosen, options.threads or processors())
    write_text(this.out.target(REPORT_NAME), render(page))
    return Outcome(_result(dataset, int(by_people.sum()), belief, chosen), failures)


def _check_something_left(dataset: Dataset, found: Survey, by_people: npt.NDArray[np.bool_]) -> None:
    if bool((found.readable & ~by_people).any()):
        return
    raise UsageError(
        "suggest needs at least 1 image that can be read and that no person labeled, got none "
        f"among {len(dataset):,} samples ({int(by_people.sum()):,} labeled, {len(found.failures):,} cannot be read)"
    )


# ---- What a model believes. ----


def _belief(
    dataset: Dataset, rows: npt.NDArray[np.int64], by_people: npt.NDArray[np.bool_], vectors: Tensor
) -> _Belief:
    """Of the images at these rows: by an earlier run of auto labeling, else by a head on the labels, else nothing."""
    earlier = _earlier_belief(dataset, rows, by_people)
    if earlier is not None:
        return earlier
    boxes = _box_belief(dataset, rows, by_people)
    if boxes is not None:
        return boxes
    targets = targets_of(dataset).only(np.isin(np.arange(len(dataset)), rows))
    counts = targets.matrix.sum(axis=0)
    if int((counts > 0).sum()) < 2:
        drawn = sum(bool(human_drawings(sample)) for sample in dataset)
        got = "no label by people" if not counts.sum() else "one label only by people"
        got = f"boxes by people on {drawn:,} images and no model yet" if drawn else got
        return _Belief(None, False, f"a cold start, {got}: typical images are suggested")
    return _head_belief(targets, rows, vectors)


def _earlier_belief(dataset: Dataset, rows: npt.NDArray[np.int64], by_people: npt.NDArray[np.bool_]) -> _Belief | None:
    """What auto labeling left beside result.manifest; None where there is nothing about the images to choose from."""
    said = earlier_probabilities(dataset)
    if said is None:
        return None
    place = {source: at for at, source in enumerate(said.sources)}
    found = np.array([place.get(dataset[row].source, -1) for row in rows.tolist()], np.int64)
    known = np.where((found >= 0)[:, None], said.values[found], np.nan)
    told = np.isfinite(known).all(axis=1)
    if not bool((told & ~by_people).any()):
        return None
    sums = known[told].sum(axis=1)
    multi_label = bool((np.abs(sums - 1.0) > 1e-3).any())
    line = (
        f"uncertainty: {PROBABILITIES_NAME} of the earlier run, for {int((told & ~by_people).sum()):,} unlabeled images"
    )
    return _Belief(torch.from_numpy(known), multi_label, line)


def _box_belief(dataset: Dataset, rows: npt.NDArray[np.int64], by_people: npt.NDArray[np.bool_]) -> _Belief | None:
    """What auto labeling of boxes left in the manifest: how likely something is wrong on each image. None where it left
    nothing on the images to choose from.

    An image on which something surely is wrong is as uncertain as can be: one half; one that surely is right is
    certain.
    """
    wrong = np.full(len(rows), np.nan, np.float32)
    for at, row in enumerate(rows.tolist()):
        sample = dataset[row]
        if by_people[at]:
            wrong[at] = 0.0
        elif has_automatic_boxes(sample) and sample.hard_coefficient is not None:
            wrong[at] = sample.hard_coefficient
    told = np.isfinite(wrong) & ~by_people
    if not bool(told.any()):
        return None
    line = f"uncertainty: hard coefficients of the earlier run, for {int(told.sum()):,} images with automatic boxes"
    return _Belief(torch.from_numpy(1 - wrong / 2)[:, None], True, line)


def _head_belief(targets: Targets, rows: npt.NDArray[np.int64], vectors: Tensor) -> _Belief:
    """A ridge head on the labeled images, its temperature from heads without a part of them."""
    matrix = torch.from_numpy(targets.matrix[rows])
    known = matrix.any(dim=1)
    told, balanced = matrix[known].float(), not targets.multi_label
    head = fit_ridge(vectors[known], told, balanced=balanced)
    scores = head.scores(vectors)
    line = f"uncertainty: a ridge head on {int(known.sum()):,} labeled images, {len(targets.labels)} labels"
    if targets.multi_label:
        return _Belief(scores.clamp(0.0, 1.0), True, line)
    fold = folds_of(matrix[known], _FOLDS, generator_of("suggest", "folds"))
    unseen = left_out_scores(vectors[known], told, fold, penalty=head.penalty, balanced=balanced)
    temperature = fit_temperature(unseen, told.argmax(dim=1))
    few = int(known.sum()) < TYPICAL_BELOW * len(targets.labels)
    line += f"; with fewer than {TYPICAL_BELOW} a label, typical images are suggested" if few else ""
    return _Belief(probabilities(scores, temperature), False, line)


# ---- What is written. ----


def _notes(chosen: Suggestions, count: int, candidates: int) -> list[str]:
    notes = []
    if len(chosen) < count:
        left = f"of {candidates:,} unlabeled images the others are the same pictures"
        notes.append(f"{len(chosen):,} images instead of {count:,}: {left if chosen.same else 'there are no more'}")
    elif chosen.same:
        notes.append(f"{chosen.same:,} images were passed over: nearly the same as a labeled or suggested one")
    return notes


def _marked(samples: Sequence[Sample], chosen: Suggestions) -> list[Sample]:
    marks = zip(samples, chosen.scores.tolist(), chosen.why, strict=True)
    return [
        replace(sample, property={**sample.property, PROPERTY: {"rank": rank, "score": round(score, 6), "why": why}})
        for rank, (sample, score, why) in enumerate(marks, start=1)
    ]


def _table(samples: Sequence[Sample], chosen: Suggestions) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)  # a lone \r is not quoted otherwise
    writer.writerow(_COLUMNS)
    for rank, (sample, why, score) in enumerate(zip(samples, chosen.why, chosen.scores.tolist(), strict=True), start=1):
        writer.writerow((rank, sample.source, why, round(score, 6)))
    return text.getvalue().encode("utf-8", "surrogatepass")  # as labels.csv is written


def _page(
    this: Run,
    dataset: Dataset,
    found: Survey,
    positions: npt.NDArray[np.int64],
    chosen: Suggestions,
    threads: int,
) -> Page:
    """The first images of the list, in order, a gallery a reason."""
    shown = positions[:_MOST_TILES].tolist()
    captions = [f"{rank}" for rank in range(1, len(shown) + 1)]
    tiles = tiles_of(dataset, shown, captions, threads, this.stage("drawing the page", len(shown)))
    galleries = []
    for why in REASONS:
        mine = tuple(tile for tile, reason in zip(tiles, chosen.why, strict=False) if reason == why)
        if mine:
            heading, note = _HEADINGS[why]
            galleries.append(Gallery(f"{heading}: {chosen.why.count(why):,}", mine, note))
    failures = (*dataset.failures, *found.failures)
    labeled = sum(any(label.by_human for label in sample.labels) for sample in dataset)
    return Page(
        title=f"{dataset.name}: {len(positions):,} images to label next",
        subtitle="The number below an image is its place in the list: the most useful come first.",
        facts=(
            ("suggested", f"{len(positions):,}"),
            ("labeled so far", f"{labeled:,}"),
            ("images", f"{int(found.readable.sum()):,}"),
            ("unreadable", f"{len(failures):,}"),
        ),
        notes=tuple(this.notices),
        galleries=tuple(galleries),
        tables=failure_tables([(dataset.name, failures)]),
    )


def _result(dataset: Dataset, labeled: int, belief: _Belief, chosen: Suggestions) -> dict[str, Any]:
    counts = Counter(chosen.why)
    return {
        "total_sample_count": len(dataset),
        "labeled_sample_count": labeled,
        "suggested_sample_count": len(chosen),
        "dataset_name": dataset.name,
        "manifest_path": SUGGESTED_NAME,
        "table_path": TABLE_NAME,
        "reasons": {why: counts[why] for why in REASONS if counts[why]},
        "same_picture_count": chosen.same,
        "cold_start": belief.values is None,
    }
