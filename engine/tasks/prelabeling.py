"""Pre-labeling as a task: an existing model labels what nobody has labeled; OUT is as that of auto labeling.

The model is one of ours or one from elsewhere, of the label type that the data set has. Hard examples are looked for
afterwards, and do not change the labels. Knows nothing of the command line, or of how a model was named.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from engine.dataset import Dataset
from engine.detect.detector import BoxDetector
from engine.detect.results import annotated as annotated_boxes
from engine.detect.sketches import human_drawings
from engine.errors import UsageError
from engine.hard.asking import NOBODY, Said, Search
from engine.hard.box_look import Detecting
from engine.hard.config import HardConfig
from engine.hard.detected import LOOKING, MEASURING, hard_detections
from engine.hard.marks import marked, marked_boxes
from engine.hard.search import search
from engine.images import converted_in_words
from engine.label.classifier import Classifier, ImageClassifier
from engine.label.results import annotated
from engine.label.targets import human_labels
from engine.models import (
    DETECTOR_TYPE,
    AnyModel,
    ForeignClassifier,
    ForeignDetector,
    ModelInfo,
    Shelved,
    called,
    load_any,
    read_model_info,
)
from engine.prelabel import ANNOTATED_BY, LABELING, READING, pre_detect, pre_label
from engine.tasks.detecting import delivered_boxes
from engine.tasks.further import check_outputs, made_at
from engine.tasks.grouping import device_of, encoder_of, on_threads
from engine.tasks.key_samples import COPYING, key_folder
from engine.tasks.labeling import delivered
from engine.tasks.parameters import Parameters, hard_config, read_parameters
from engine.tasks.request import asked_for, notices
from engine.tasks.runner import Outcome, Run, Task
from engine.tasks.schema import SmartTaskConfig, TaskRequest
from engine.threads import processors

#: Where the time goes, in percent.
_STAGES: Final = {
    READING: 20.0,
    LABELING: 30.0,
    MEASURING: 5.0,
    LOOKING: 35.0,
    "writing the result": 4.0,
    COPYING: 2.0,
    "drawing the page": 4.0,
}


@dataclass(frozen=True, slots=True)
class Chosen:
    """The model that shall label. path: its folder. shelved: what it is known as, where it was imported."""

    path: Path
    shelved: Shelved | None = None

    @property
    def name(self) -> str:
        return f"{self.shelved.model_name}:{self.shelved.model_version}" if self.shelved else called(self.path)

    def answer(self, info: ModelInfo) -> dict[str, Any]:
        """The model in the `result` of a task answer."""
        known = self.shelved
        return {
            "model_id": known.model_id if known else None,
            "model_name": known.model_name if known else called(self.path),
            "model_version": known.model_version if known else None,
            "model_digest": info.id,
        }


def prelabeling_task(request: TaskRequest, dataset: Dataset, chosen: Chosen) -> Task:
    """The task that a request for pre-label asks for. Raises UsageError or InputError for options that fail, a model
    that cannot be read, and one of the wrong type."""
    config = request.config
    options = read_parameters(config.parameters, request.task_type)
    check_outputs(config)
    hard = hard_config(options)
    info = read_model_info(chosen.path)
    _check_type(info, dataset, options.label_type)
    encoder_of(options)  # so that wrong weights are said before anything is read
    model = load_any(chosen.path, device=device_of(options.device))
    copies = key_folder(config.key_sample_output) if request.collect_key_sample else None
    return Task(
        job=on_threads(
            options.threads, lambda this: _prelabel(this, dataset, model, chosen, info, config, options, hard, copies)
        ),
        kind=request.task_type,
        config={**asked_for(request), "model_id": chosen.answer(info)["model_id"] or info.id},
        dataset=dataset.name,
        stages=_STAGES,
        files=lambda: (*dataset.files(), *(each for each in chosen.path.iterdir() if each.is_file())),
        digest=dataset.digest,
        notices=(*dataset.notes, *notices(request)),
    )


def _check_type(info: ModelInfo, dataset: Dataset, label_type: int | None) -> None:
    """Raise UsageError for a model that does not label what the data set has labels of."""
    boxes = info.type == DETECTOR_TYPE
    if label_type is not None and bool(label_type) != boxes:
        raise UsageError(f"model: must be one for label_type {label_type}, got one of {info.type}")
    drawn = sum(bool(human_drawings(sample)) for sample in dataset)
    named = sum(bool(human_labels(sample)) for sample in dataset)
    if label_type is None and (drawn if not boxes else named) and not (named if not boxes else drawn):
        has = "boxes" if drawn else "labels of whole images"
        raise UsageError(
            f"model: must label what people labeled, {has}, got one of {info.type} (label_type says otherwise)"
        )


def _prelabel(
    this: Run,
    dataset: Dataset,
    model: AnyModel,
    chosen: Chosen,
    info: ModelInfo,
    config: SmartTaskConfig,
    options: Parameters,
    hard: HardConfig,
    copies: str | None,
) -> Outcome:
    told = (config, options, copies)
    source = f"by the model {chosen.name}"
    if isinstance(model, BoxDetector | ForeignDetector):
        outcome = _prelabel_boxes(this, dataset, model, hard, *told, source=source)
    else:
        outcome = _prelabel_images(this, dataset, model, hard, *told, source=source)
    return replace(outcome, result=outcome.result | chosen.answer(info))


def _prelabel_images(
    this: Run,
    dataset: Dataset,
    model: Classifier | ForeignClassifier,
    hard: HardConfig,
    config: SmartTaskConfig,
    options: Parameters,
    copies: str | None,
    *,
    source: str,
) -> Outcome:
    labeling = pre_label(
        dataset,
        model,
        unseen=options.unseen,
        threads=options.threads,
        device=device_of(options.device),
        max_pixels=options.max_pixels,
        folder=this.cache,
        stage=this.stage,
        stopped=this.stopped,
    )
    for line in (*labeling.notes, *converted_in_words(labeling.survey.notes)):
        this.note(line)
    samples = annotated(dataset.samples, labeling, time=made_at(config), annotated_by=ANNOTATED_BY)
    judges = np.where(labeling.judges == -1, -1, NOBODY)
    said = Said([sample.source for sample in samples], labeling.labels, labeling.probabilities, judges)
    done = _searched(this, dataset.with_samples(samples), options, hard, model=model, said=said, boxes=False)
    samples = marked(samples, done.found, done.rows.tolist(), done.found.names)
    return delivered(this, dataset, labeling, samples, done.found, done.vectors, config, options, copies, source=source)


def _prelabel_boxes(
    this: Run,
    dataset: Dataset,
    model: BoxDetector | ForeignDetector,
    hard: HardConfig,
    config: SmartTaskConfig,
    options: Parameters,
    copies: str | None,
    *,
    source: str,
) -> Outcome:
    detection = pre_detect(
        dataset,
        model,
        score_threshold=options.score_threshold,
        unseen=options.unseen,
        threads=options.threads,
        device=device_of(options.device),
        max_pixels=options.max_pixels,
        stage=this.stage,
        stopped=this.stopped,
    )
    for line in detection.notes:
        this.note(line)
    samples = annotated_boxes(dataset.samples, detection, time=made_at(config), annotated_by=ANNOTATED_BY)
    if detection.detector is not None and set(detection.labels) == set(model.labels):
        found, vectors = hard_detections(
            samples,
            detection,
            hard,
            sources=dataset.sources,
            folder=this.cache,
            threads=options.threads or processors(),
            max_pixels=options.max_pixels,
            seed=options.seed,
            stage=this.stage,
            stopped=this.stopped,
        )
    else:
        done = _searched(this, dataset.with_samples(samples), options, hard, detector=model, boxes=True)
        found, vectors = done.found, done.vectors
    samples = marked_boxes(samples, found, np.flatnonzero(detection.automatic).tolist())
    assert isinstance(vectors, torch.Tensor)
    return delivered_boxes(this, dataset, detection, samples, found, vectors, config, options, copies, source=source)


def _searched(
    this: Run,
    dataset: Dataset,
    options: Parameters,
    hard: HardConfig,
    *,
    boxes: bool,
    model: ImageClassifier | None = None,
    said: Said | None = None,
    detector: Detecting | None = None,
) -> Search:
    """The hard examples among the labels that the model gave. said: what it says of each image."""
    done = search(
        dataset,
        model=model,
        said=said,
        detector=detector,
        boxes=boxes,
        config=hard,
        encoder=encoder_of(options),
        seed=options.seed,
        threads=options.threads,
        device=device_of(options.device),
        max_pixels=options.max_pixels,
        folder=this.cache,
        stage=this.stage,
        note=this.note,
        stopped=this.stopped,
    )
    for line in done.notes:
        this.note(line)
    return done
