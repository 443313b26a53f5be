"""Pre-labeling: an existing model says what is on the images that nobody has labeled (CreateTask: pre-labeling).

In: samples, and a model, one of ours or one from elsewhere. Out: a `Labeling` or a `Detection`, as auto labeling gives
one, so that everything that follows is the same. Nothing is trained, and what people labeled stays. Whether the model
has seen their labels nobody knows: only where the caller says that it has not do they tell how far it can be trusted.
An image that the model fails on, as where its graph gives NaN, is a failure, and the others are labeled.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engine.dataset import Dataset
from engine.detect.canvases import asked_files
from engine.detect.detecting import OnImage, found_boxes
from engine.detect.detector import BoxDetector
from engine.detect.held_out import held_out_scores as held_out_box_scores
from engine.detect.results import NOBODY, Detection
from engine.detect.sketches import fitted as fitted_sketches
from engine.detect.sketches import sketches_of, with_columns
from engine.errors import Failure, ImageError, InputError, Stopped, UsageError
from engine.images import MAX_PIXELS, Pixels, converted_in_words
from engine.label.classifier import Classifier
from engine.label.opinions import held_out_scores
from engine.label.plan import Stage
from engine.label.results import Labeling
from engine.label.targets import Targets, targets_of
from engine.models.foreign.classifier import ForeignClassifier
from engine.models.foreign.detector import ForeignDetector
from engine.models.foreign.forms import ForeignInput
from engine.models.foreign.placing import Placed, seen_by
from engine.predictions import Boxes
from engine.samples import Sample
from engine.sources import Sources
from engine.survey import survey
from engine.threads import processors

ALGORITHM_TYPE: Final = "pre-label"
#: Who made such a label.
ANNOTATED_BY: Final = "modelarts/pre-label"

READING: Final = "reading images"
LABELING: Final = "labeling"

_BATCH: Final = 64
#: A candidate below that is none.
_LEAST_CONFIDENCE: Final = 0.02
#: No confidence is so high: no box of a label that the model does not know is given.
_NEVER: Final = 2.0

_Seen = tuple[Pixels, Placed, tuple[int, int], str]
_Asked = TypeVar("_Asked")
_Found = TypeVar("_Found")


def pre_label(
    samples: Dataset | Sequence[Sample],
    model: Classifier | ForeignClassifier,
    *,
    unseen: bool = False,
    threads: int | None = None,
    device: torch.device | None = None,
    max_pixels: int = MAX_PIXELS,
    folder: Path | None = None,
    stage: Stage = lambda name, total: lambda done: None,
    stopped: Callable[[], bool] = lambda: False,
) -> Labeling:
    """What a classifier says of every image that nobody labeled.

    unseen: the model was not trained on what people labeled here; then it is asked about these images too, and how
    often it is right is said. folder: keeps what a stopped call has read; None: a temporary one. device: that of the
    model. Raises InputError where there is nothing to label, Stopped once `stopped()` says so.
    """
    sources = samples.sources if isinstance(samples, Dataset) else Sources(Path())
    with tempfile.TemporaryDirectory() as temporary:
        found = survey(
            samples,
            sources,
            folder=folder or Path(temporary),
            thumbnail_side=model.image_size,
            threads=threads,
            max_pixels=max_pixels,
            progress=stage(READING, sum(sample.is_image for sample in samples)),
            stopped=stopped,
        )
        told = targets_of(samples).only(found.readable)
        labels = tuple(sorted({*model.labels, *told.labels}))
        targets = _in_columns(told, labels, model.multi_label)
        asked = found.readable & (unseen | ~targets.labeled)
        _check_unlabeled(int((found.readable & ~targets.labeled).sum()))
        rows = np.flatnonzero(asked)
        values = np.zeros((len(samples), len(labels)), np.float32)
        values[~asked] = np.nan
        advance = stage(LABELING, len(rows))
        assert found.thumbnails is not None
        said: Iterator[tuple[int, Tensor | Failure]]
        if isinstance(model, ForeignClassifier) and model.form.input.fit != "stretch":
            said = _of_files(samples, sources, rows, model, threads, max_pixels, advance, stopped)
        else:
            places = np.flatnonzero(asked[found.thumbnails.index])
            images = (found.thumbnails.rows(places[at : at + _BATCH]) for at in range(0, len(places), _BATCH))
            answers = _said(model, images, device or torch.device("cpu"), advance, stopped)
            said = _with_failures(samples, zip(rows.tolist(), answers, strict=True))
        columns = [labels.index(name) for name in model.labels]
        failures: list[Failure] = []
        for row, each in said:
            if isinstance(each, Failure):
                values[row] = np.nan
                failures.append(each)
            else:
                values[row, columns] = each.numpy()
    judged = unseen & targets.labeled & ~np.isnan(values[:, 0])
    choices: dict[str, Any] = {"unseen": unseen}
    if judged.any():
        truth = torch.from_numpy(targets.matrix[judged])
        choices |= held_out_scores(torch.from_numpy(values[judged]), truth, multi_label=targets.multi_label)
    judges = np.where(judged, NOBODY, -1).astype(np.int64)
    found = replace(found, failures=(*found.failures, *failures))
    notes = tuple(_strangers(told.labels, model.labels))
    return Labeling(ALGORITHM_TYPE, targets, values, judges, model, choices, found, notes)


def _in_columns(told: Targets, labels: Sequence[str], multi_label: bool) -> Targets:
    matrix = np.zeros((len(told), len(labels)), bool)
    matrix[:, [labels.index(name) for name in told.labels]] = told.matrix
    return Targets(tuple(labels), matrix, told.multi_label or multi_label)


def _check_unlabeled(count: int) -> None:
    if not count:
        raise InputError("pre-labeling needs at least 1 unlabeled image that can be read, got none: nothing to label")


def _strangers(told: Sequence[str], known: Sequence[str]) -> Iterator[str]:
    strangers = [name for name in told if name not in known]
    if strangers:
        more = f" and {len(strangers) - 5:,} more" if len(strangers) > 5 else ""
        yield f"the model does not know labels that people gave, and never gives them: {', '.join(strangers[:5])}{more}"


def _said(
    model: Classifier | ForeignClassifier,
    batches: Iterator[Tensor],
    device: torch.device,
    advance: Callable[[int], None],
    stopped: Callable[[], bool],
) -> Iterator[Tensor | ImageError]:
    """Probabilities (k,) of each image, or why there are none."""

    def ask(images: list[Tensor]) -> list[Tensor]:
        return list(model.probabilities(torch.stack(images).to(device)).cpu())

    answers_of = _forgiving(ask)
    done = 0
    for images in batches:
        if stopped():
            raise Stopped(f"stopped after {done:,} images")
        yield from answers_of(list(images))
        done += len(images)
        advance(done)


def _of_files(
    samples: Sequence[Sample],
    sources: Sources,
    rows: npt.NDArray[np.int64],
    model: ForeignClassifier,
    threads: int | None,
    max_pixels: int,
    advance: Callable[[int], None],
    stopped: Callable[[], bool],
) -> Iterator[tuple[int, Tensor | Failure]]:
    """What the model says of the file itself: a square thumbnail has lost its shape."""

    def ask(seen: list[_Seen]) -> list[Tensor]:
        images = torch.from_numpy(np.stack([pixels for pixels, *_ in seen])).permute(0, 3, 1, 2)
        return list(model.probabilities(images))

    return _through(samples, sources, rows.tolist(), model.form.input, ask, threads, max_pixels, advance, stopped)


def pre_detect(
    samples: Dataset | Sequence[Sample],
    model: BoxDetector | ForeignDetector,
    *,
    score_threshold: float | None = None,
    unseen: bool = False,
    threads: int | None = None,
    device: torch.device | None = None,
    max_pixels: int = MAX_PIXELS,
    stage: Stage = lambda name, total: lambda done: None,
    stopped: Callable[[], bool] = lambda: False,
) -> Detection:
    """What a detector finds on every image on which nobody drew; see `pre_label`.

    score_threshold: confidence from which on boxes are given, instead of the model's own.
    """
    if score_threshold is not None and not 0 <= score_threshold <= 1:
        raise UsageError(f"score_threshold: must be in [0, 1], got {score_threshold!r}")
    sources = samples.sources if isinstance(samples, Dataset) else Sources(Path())
    drawn = sketches_of(samples)
    labels = (*model.labels, *(name for name in drawn.labels if name not in model.labels))
    known = model.thresholds if score_threshold is None else (score_threshold,) * len(model.labels)
    thresholds = (*known, *([_NEVER] * (len(labels) - len(known))))
    free = [row for row, sample in enumerate(samples) if sample.is_image and not drawn.by_people[row]]
    rows = sorted([*free, *np.flatnonzero(drawn.labeled).tolist()])
    candidates: list[Boxes | None] = [None] * len(samples)
    sizes = np.zeros((len(samples), 2), np.int64)
    failures: list[Failure] = []
    converted: Counter[str] = Counter()
    advance = stage(LABELING, len(rows))
    if isinstance(model, BoxDetector):
        found = found_boxes(
            samples,
            sources,
            rows,
            replace(model, thresholds=tuple(known)),
            threads=threads or processors(),
            device=device or torch.device("cpu"),
            max_pixels=max_pixels,
            progress=advance,
            stopped=stopped,
        )
    else:
        found = _foreign_boxes(samples, sources, rows, model, thresholds, threads, max_pixels, advance, stopped)
    for row, each in found:
        if isinstance(each, Failure):
            failures.append(each)
        else:
            candidates[row], sizes[row] = each.boxes, each.size
            if each.note:
                converted[each.note] += 1
    _check_unlabeled(sum(candidates[row] is not None for row in free))
    fit = fitted_sketches(drawn, samples, sizes)
    sketches = with_columns(fit.sketches, labels)
    for row in np.flatnonzero(drawn.by_people & ~sketches.labeled).tolist():
        candidates[row] = None  # what a person drew stays, though nobody knows what it means
    choices: dict[str, Any] = {"unseen": unseen, "thresholds": list(known)}
    judges = np.full(len(samples), -1, np.int64)
    if unseen:
        tested = [row for row in np.flatnonzero(sketches.labeled).tolist() if candidates[row] is not None]
        judges[tested] = NOBODY
        truth = [(torch.from_numpy(sketches.boxes[at]), torch.from_numpy(sketches.classes[at])) for at in tested]
        said = [boxes for at in tested if (boxes := candidates[at]) is not None]
        choices |= held_out_box_scores(labels, thresholds, said, truth)[1]
    return Detection(
        ALGORITHM_TYPE,
        sketches,
        tuple(candidates),
        judges,
        thresholds,
        sizes,
        model if isinstance(model, BoxDetector) else None,
        choices,
        tuple(dict.fromkeys([*failures, *fit.failures])),
        (*_strangers(drawn.labels, model.labels), *converted_in_words(converted)),
    )


def _foreign_boxes(
    samples: Sequence[Sample],
    sources: Sources,
    rows: Sequence[int],
    model: ForeignDetector,
    thresholds: Sequence[float],
    threads: int | None,
    max_pixels: int,
    advance: Callable[[int], None],
    stopped: Callable[[], bool],
) -> Iterator[tuple[int, OnImage | Failure]]:
    """What a detector from elsewhere finds, as `found_boxes` tells it."""
    least = min(_LEAST_CONFIDENCE, *thresholds)

    def ask(seen: list[_Seen]) -> list[OnImage]:
        pixels, places, sizes, notes = (list(each) for each in zip(*seen, strict=True))
        found = model.boxes(np.stack(pixels), places, sizes)
        likely = [boxes.scores >= least for boxes in found]
        return [
            OnImage(Boxes(boxes.xyxy[of], boxes.scores[of], boxes.classes[of]), size, note)
            for boxes, of, size, note in zip(found, likely, sizes, notes, strict=True)
        ]

    return _through(samples, sources, rows, model.form.input, ask, threads, max_pixels, advance, stopped)


def _through(
    samples: Sequence[Sample],
    sources: Sources,
    rows: Sequence[int],
    given: ForeignInput,
    ask: Callable[[list[_Seen]], list[_Found]],
    threads: int | None,
    max_pixels: int,
    advance: Callable[[int], None],
    stopped: Callable[[], bool],
) -> Iterator[tuple[int, _Found | Failure]]:
    """What a graph from elsewhere says of the files of the samples at these rows, seen as it wants to see them."""

    def work(at: int, content: bytes) -> _Seen:
        seen, place, picture = seen_by(given, content, max_pixels)
        return seen, place, (picture.width, picture.height), picture.note

    threads = threads or processors()
    answers_of = _forgiving(ask)
    said = asked_files(
        samples, sources, rows, work, answers_of, batch=_BATCH, threads=threads, progress=advance, stopped=stopped
    )
    return _with_failures(samples, said)


def _forgiving(ask: Callable[[list[_Asked]], list[_Found]]) -> Callable[[list[_Asked]], list[_Found | ImageError]]:
    """The same question, but an image that a model fails on has the reason for its answer, and costs no other one its
    own. Raises InputError where the model fails on all images that it is asked about first: it is not the images."""
    works = False

    def one(image: _Asked) -> _Found | ImageError:
        try:
            return ask([image])[0]
        except InputError as error:
            return ImageError("broken", str(error))

    def asked(images: list[_Asked]) -> list[_Found | ImageError]:
        nonlocal works
        found: list[_Found | ImageError]
        try:
            found = [*ask(images)]
        except InputError:
            found = [one(image) for image in images]
            if not works and all(isinstance(each, ImageError) for each in found):
                raise
        works = True
        return found

    return asked


def _with_failures(
    samples: Sequence[Sample], said: Iterable[tuple[int, _Found | ImageError | Failure]]
) -> Iterator[tuple[int, _Found | Failure]]:
    """What was said of the samples at some rows; a failure of each that a model failed on."""
    for row, each in said:
        if isinstance(each, ImageError):
            yield row, Failure(samples[row].source, each.kind, str(each))
        else:
            yield row, each
