"""Hard examples as a task: a data set with labels in question in; the same with marks out.

    result.manifest     every sample; marks on those in question, and on each of their labels
    annotations/        where labels are boxes: their PASCAL VOC files, with marks on each box
    hard.csv            the samples in question, the hardest first: rank, source, labels, coefficient, hard, reasons
    hard_scores.npz     the score of every reason of every sample
    report.html         the images to look at
    key_samples/        with collect_key_sample: the hard examples within confidence_scope, and key_samples.manifest

Labels and their confidences stay as they are. Where the data set is OUT of auto labeling, its model and probabilities
are used; what a person has confirmed or corrected since then tells how far they can be trusted. A model from elsewhere,
which may run anything, is only loaded where a person names it. Knows nothing of the command line.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from engine.dataset import RESULT_NAME, Dataset, settled
from engine.detect.detector import BoxDetector
from engine.detect.results import NOBODY as NO_NETWORK
from engine.detect.results import Detection
from engine.detect.sketches import fitted, sketches_of, with_columns
from engine.errors import Failure, ImageError, UsageError
from engine.exports import Tally
from engine.files import write_bytes, write_text
from engine.folders.sizes import image_size
from engine.hard.asking import LOOKING, NOBODY, READING, READING_TRAINING, Said, Search
from engine.hard.box_look import Detecting
from engine.hard.examples import HardExamples
from engine.hard.marks import marked, marked_boxes
from engine.hard.questions import automatic_boxes, has_automatic_boxes
from engine.hard.search import NO_TRAIN, search
from engine.images import converted_in_words
from engine.label.classifier import ImageClassifier
from engine.label.fast import FOLDS
from engine.label.plan import NETWORK_STAGE
from engine.manifest import write_manifest
from engine.models import ForeignClassifier, ForeignDetector, load_any, load_detector, load_model, read_model_info
from engine.predictions import Boxes
from engine.prelabel import pre_label
from engine.report import render
from engine.samples import IMAGE_CLASSIFICATION, LABEL_TYPES, OBJECT_DETECTION, Label, Sample, Shape
from engine.survey import box_array
from engine.tasks.candidates import earlier_candidates
from engine.tasks.conditions import drawn_more
from engine.tasks.grouping import device_of, encoder_of, on_threads
from engine.tasks.hard_page import hard_page
from engine.tasks.key_samples import COPYING, DEFAULT_SCOPE, KEY_SAMPLES, copy_key_samples, key_folder, within
from engine.tasks.parameters import Parameters, hard_config
from engine.tasks.probabilities import earlier_probabilities
from engine.tasks.runner import Outcome, Run, Task
from engine.tasks.schema import HARD
from engine.threads import processors

TABLE_NAME: Final = "hard.csv"
SCORES_NAME: Final = "hard_scores.npz"
REPORT_NAME: Final = "report.html"
#: The model of auto labeling, beside its result.
_MODEL_FOLDER: Final = "model"
#: Boxes are written with two digits of a pixel.
_WRITTEN: Final = 0.02
_CHANGED: Final = (
    "{} images have other automatic boxes than the model drew, and are left as they are; confirm them first"
)

_COLUMNS: Final = ("rank", "source", "labels", "hard_coefficient", "hard", "hard_reasons", "why")
_STAGES: Final = {
    READING: 30.0,
    READING_TRAINING: 10.0,
    LOOKING: 50.0,
    "writing the result": 3.0,
    COPYING: 2.0,
    "drawing the page": 5.0,
}
_TRAINING: Final = {
    READING: 3.0,
    "looking at labeled images": 1.0,
    **{NETWORK_STAGE.format(number, FOLDS): 85.0 / FOLDS for number in range(1, FOLDS + 1)},
    "labeling": 2.0,
    LOOKING: 4.0,
    "writing the result": 1.0,
    COPYING: 1.0,
    "drawing the page": 3.0,
}


@dataclass(frozen=True, slots=True)
class _Asked:
    """What to look for, and with what."""

    train: Dataset | None
    model: ImageClassifier | None
    detector: Detecting | None
    said: Said | None
    boxes: Detection | None
    labeled: bool
    scope: tuple[float, float]
    copies: str | None


def hard_task(
    dataset: Dataset,
    options: Parameters,
    *,
    train: Dataset | None = None,
    model: Path | None = None,
    labeled: bool = False,
    collect_key_sample: bool = False,
    confidence_scope: tuple[float, float] | None = None,
    key_sample_output: str | None = None,
) -> Task:
    """The task that finds hard examples among automatic labels, or with `labeled` wrong ones among people's.

    train: the training set, by default what people labeled in the data set. model: the folder of the one that
    predicted. Raises UsageError or InputError for options that fail.
    """
    if labeled and (train is not None or model is not None):
        raise UsageError("labeled: models are trained out of fold, so neither train nor model can be given")
    notes = [*dataset.notes, *(f"training set: {line}" for line in (train.notes if train is not None else ()))]
    own = dataset.sources.root / _MODEL_FOLDER
    named = model is not None
    earlier = None if labeled else earlier_probabilities(dataset)
    said = None
    if earlier is not None and (model is None or model.resolve() == own.resolve()):
        said = Said(earlier.sources, earlier.labels, earlier.values, np.where(earlier.labeled, earlier.judges, NOBODY))
        model = model or (own if own.is_dir() else None)
        notes.append(
            "this is a result of auto labeling: its probabilities are used" + (", its model too" if model else "")
        )
    boxes = None if labeled else _earlier_boxes(dataset, model, device_of(options.device))
    if boxes is not None:
        if train is not None:
            raise UsageError(NO_TRAIN)
        notes += ["this is a result of auto labeling of boxes: its candidates and its model are used", *boxes.notes]
        model = None
    folder = key_folder(key_sample_output) if collect_key_sample else None
    scope = confidence_scope or DEFAULT_SCOPE
    if labeled and folder is not None and scope != DEFAULT_SCOPE:
        notes.append("confidence_scope does not count: labels of people have no confidence")
    load = load_any if named else load_model  # a model that nobody named may have been downloaded with the data
    loaded = load(model, device=device_of(options.device)) if model is not None else None
    detector = loaded if isinstance(loaded, BoxDetector | ForeignDetector) else None
    classifier = None if isinstance(loaded, BoxDetector | ForeignDetector) else loaded
    encoder_of(options)  # so that wrong weights are said before anything is read
    asked = _Asked(train, classifier, detector, said, boxes, labeled, DEFAULT_SCOPE if labeled else scope, folder)
    config = {
        "labeled": labeled,
        "train": None if train is None else train.name,
        "model": None if model is None else read_model_info(model).id,
        "confidence_scope": f"{scope[0]:.2f}-{scope[1]:.2f}",
        "collect_key_sample": collect_key_sample,
        **({} if folder in (None, KEY_SAMPLES) else {"key_sample_output": folder}),
        "parameters": options.model_dump(exclude_defaults=True),
    }
    return Task(
        job=on_threads(options.threads, lambda this: _find(this, dataset, options, asked)),
        kind=HARD,
        config=config,
        dataset=dataset.name,
        stages=_TRAINING if labeled else _STAGES,
        files=lambda: (*dataset.files(), *(train.files() if train is not None else ())),
        digest=lambda: dataset.digest(automatic=True) + (train.digest() if train is not None else ""),
        notices=tuple(notes),
    )


def _earlier_boxes(dataset: Dataset, model: Path | None, device: torch.device) -> Detection | None:
    """What auto labeling of boxes said of its result, as people have labeled it by now; None where the data set is no
    such result, or another model is asked for. Samples whose boxes are no longer those that were given are left out,
    as a note says."""
    own = dataset.sources.root / _MODEL_FOLDER
    said = earlier_candidates(dataset)
    if said is None or not own.is_dir() or (model is not None and model.resolve() != own.resolve()):
        return None
    sizes = np.zeros((len(dataset), 2), np.int64)
    for row, sample in enumerate(dataset):
        with suppress(ImageError, OSError):
            sizes[row] = image_size(dataset.path(sample))[:2]
    sketches = fitted(sketches_of(dataset.samples), dataset.samples, sizes).sketches
    place, parts = {source: at for at, source in enumerate(said.sources)}, said.slices()
    candidates: list[Boxes | None] = [None] * len(dataset)
    judges = np.full(len(dataset), -1, np.int64)
    if not set(sketches.labels) <= set(said.labels):
        return None  # people have drawn what the model does not know
    changed = 0
    for row, sample in enumerate(dataset):
        at = place.get(sample.source)
        if at is None or not said.known[at] or not sizes[row, 0]:
            continue
        part = parts[at]
        boxes = Boxes(*(torch.from_numpy(values[part]) for values in (said.xyxy, said.scores, said.classes)))
        if sketches.labeled[row]:
            judges[row] = said.judges[at] if said.labeled[at] else NO_NETWORK
            candidates[row] = boxes
        elif has_automatic_boxes(sample):
            given = said.scores[part] >= said.thresholds[said.classes[part]]
            names = [said.labels[of] for of in said.classes[part][given].tolist()]
            if _are(automatic_boxes(sample), names, said.xyxy[part][given]):
                candidates[row] = boxes
            else:
                changed += 1
    notes = (_CHANGED.format(f"{changed:,}"),) if changed else ()
    sketches = with_columns(sketches, said.labels)
    detector = load_detector(own, device=device)
    thresholds = tuple(said.thresholds.tolist())
    return Detection("fast", sketches, tuple(candidates), judges, thresholds, sizes, detector, {}, (), notes)


def _are(drawn: Sequence[Shape], names: Sequence[str], xyxy: npt.NDArray[np.float32]) -> bool:
    """Whether these are the boxes, as they were written."""
    if [shape.name for shape in drawn] != list(names):
        return False
    return bool(np.allclose(box_array(drawn), xyxy, rtol=0, atol=_WRITTEN))


def _find(this: Run, dataset: Dataset, options: Parameters, asked: _Asked) -> Outcome:
    said = asked.said
    foreign = isinstance(asked.model, ForeignClassifier) and asked.model.form.input.fit != "stretch"
    if said is None and foreign and not drawn_more(dataset):
        assert isinstance(asked.model, ForeignClassifier)
        said = _of_files(this, dataset, asked.model, options)
    done = search(
        dataset,
        train=asked.train,
        model=asked.model,
        said=said,
        detection=asked.boxes,
        detector=asked.detector,
        labeled=asked.labeled,
        config=hard_config(options),
        encoder=encoder_of(options),
        minutes=options.minutes,
        steps=options.steps or (),
        min_per_class=options.min_per_class,
        seed=options.seed,
        threads=options.threads,
        device=device_of(options.device),
        max_pixels=options.max_pixels,
        folder=this.cache,
        stage=this.stage,
        note=this.note,
        stopped=this.stopped,
    )
    for line in (*done.notes, *converted_in_words(done.survey.notes)):
        this.note(line)
    found = done.found
    rows = done.rows
    if done.of_boxes:
        samples = marked_boxes(dataset.samples, found, rows.tolist(), of_people=asked.labeled)
    else:
        samples = marked(dataset.samples, found, rows.tolist(), found.names, of_people=asked.labeled)
    failures = [*dataset.failures, *done.train.failures, *done.failures]
    order = rows[np.argsort(-found.coefficients[rows], kind="stable")]
    written = _write_result(this, dataset.with_samples(samples), found, order, failures)
    key = order[found.hard[order] & within(_confidences(samples)[order], asked.scope)]
    copied = None
    if asked.copies is not None:
        copied = copy_key_samples(this, dataset.with_samples(samples), key, asked.copies, failures)
    page = hard_page(
        dataset.with_samples(samples),
        done,
        order,
        labeled=asked.labeled,
        written=written,
        notes=this.notices,
        threads=options.threads or processors(),
        begin=partial(this.stage, "drawing the page"),
    )
    write_text(this.out.target(REPORT_NAME), render(page))
    return Outcome(_result(dataset, done, copied), tuple(failures))


def _of_files(this: Run, dataset: Dataset, model: ForeignClassifier, options: Parameters) -> Said:
    """What a model says of images as it wants to see them: a square thumbnail has lost their shape."""
    labeling = pre_label(
        dataset,
        model,
        threads=options.threads,
        device=device_of(options.device),
        max_pixels=options.max_pixels,
        folder=this.cache,
        stage=lambda name, total: this.stage(f"{name}, as the model sees them", total),
        stopped=this.stopped,
    )
    sources = tuple(sample.source for sample in dataset)
    return Said(sources, labeling.labels, labeling.probabilities)


def _confidences(samples: tuple[Sample, ...]) -> npt.NDArray[np.float32]:
    """(n,) of the least certain automatic label or box; NaN where none has one."""
    told = [
        [label.confidence for label in sample.labels if label.confidence is not None and not label.by_human]
        + [shape.confidence for shape in sample.boxes if shape.confidence is not None]
        for sample in samples
    ]
    return np.array([min(each, default=np.nan) for each in told], np.float32)


def _write_result(
    this: Run, dataset: Dataset, found: HardExamples, order: npt.NDArray[np.int64], failures: list[Failure]
) -> tuple[Sample, ...]:
    """The manifest, the table, the scores; gives the samples as the manifest has them."""
    advance = this.stage("writing the result", len(dataset))
    tally = Tally()
    written = tuple(settled(dataset, this.out, tally))
    write_manifest(this.out.target(RESULT_NAME), written)
    write_bytes(this.out.target(TABLE_NAME), _table(written, found, order))
    write_bytes(this.out.target(SCORES_NAME), _scores(written, found))
    for line in tally.notes:
        this.note(line)
    failures += tally.failures
    advance(len(dataset))
    return written


def _table(samples: tuple[Sample, ...], found: HardExamples, order: npt.NDArray[np.int64]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)  # a lone \r is not quoted otherwise
    writer.writerow(_COLUMNS)
    for rank, row in enumerate(order.tolist(), start=1):
        reasons = found.reasons[row]
        writer.writerow(
            (
                rank,
                samples[row].source,
                "; ".join(_names(samples[row])),
                round(float(found.coefficients[row]), 6),
                int(found.hard[row]),
                "-".join(map(str, reasons)),
                "; ".join(found.meaning(number) for number in reasons),
            )
        )
    return text.getvalue().encode("utf-8", "surrogatepass")


def _names(sample: Sample) -> list[str]:
    def of(label: Label) -> list[str]:
        return [label.name] if label.name else [shape.name for shape in label.drawing.shapes] if label.drawing else []

    return list(dict.fromkeys(name for label in sample.labels for name in of(label)))


def _scores(samples: tuple[Sample, ...], found: HardExamples) -> bytes:
    content = io.BytesIO()
    np.savez_compressed(
        content,
        sources=np.array([sample.source for sample in samples], dtype=np.str_),
        coefficients=found.coefficients,
        reasons=np.array(list(found.scores), np.int64),
        scores=np.stack(list(found.scores.values()), axis=1)
        if found.scores
        else np.zeros((len(samples), 0), np.float32),
    )
    return content.getvalue()


def _result(dataset: Dataset, done: Search, key: int | None) -> dict[str, Any]:
    found, rows = done.found, done.rows
    reasons = Counter(number for row in rows.tolist() for number in found.reasons[row])
    return {
        "total_sample_count": len(dataset),
        "judged_sample_count": len(rows),
        "hard_sample_count": int(found.hard[rows].sum()),
        "key_sample_count": key,
        "dataset_name": dataset.name,
        "dataset_type": LABEL_TYPES[OBJECT_DETECTION if done.of_boxes else IMAGE_CLASSIFICATION],
        "manifest_path": RESULT_NAME,
        "table_path": TABLE_NAME,
        "reasons": [
            {"reason": number, "words": found.meaning(number), "sample_count": count}
            for number, count in reasons.most_common()
        ],
        "hard_examples": dict(found.choices),
    }
