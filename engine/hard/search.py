"""The door to hard examples: samples with labels in question in; `HardExamples` out, parallel to the samples.

    found = find_hard_examples(engine.read_samples("predictions.manifest"), train=engine.read_samples("train.manifest"))

Labels in question are automatic ones, of images or of boxes, whoever made them; with `labeled` those that people gave.
One pass over the images of the data set and of its training set; then they are looked at, by the model that predicted
where it is there, else by what pixels show. For arrays instead of images: `hard_examples(Evidence.of_arrays(...))`.
Knows nothing of requests, or of where results are written.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

import torch

from engine.dataset import Dataset
from engine.detect.results import Detection
from engine.detect.sketches import human_drawings
from engine.embeddings import Encoder, Gradients
from engine.errors import ImageError, InputError, UsageError
from engine.hard.among_boxes import among_boxes, among_detections
from engine.hard.among_images import among_images
from engine.hard.among_labels import among_labels, among_peoples_boxes
from engine.hard.asking import Said, Search, Setting, sources_of
from engine.hard.box_look import Detecting
from engine.hard.config import HardConfig
from engine.hard.examples import HardExamples
from engine.hard.questions import has_automatic_boxes, has_peoples_boxes, image_labels
from engine.images import MAX_PIXELS
from engine.label.classifier import ImageClassifier
from engine.label.labeling import auto_label
from engine.label.plan import Stage
from engine.label.targets import human_labels
from engine.samples import Sample
from engine.sources import Sources

#: Where a detector is asked again that has drawn the boxes.
NO_TRAIN: Final = (
    "train: boxes that auto labeling drew are held against those that it has learned from, so no other training set "
    "can be given; leave train out, or name another model"
)


def find_hard_examples(
    samples: Dataset | Sequence[Sample],
    *,
    train: Dataset | Sequence[Sample] | None = None,
    model: ImageClassifier | None = None,
    said: Said | None = None,
    labeled: bool = False,
    config: HardConfig | None = None,
    encoder: Encoder | None = None,
    seed: int = 0,
    threads: int | None = None,
    device: torch.device | None = None,
) -> HardExamples:
    """Which labels are likely wrong, why, and how likely (CreateTask, tables 9, 10 and 13); parallel to the samples.

    samples: automatic labels are in question where no person labeled; with `labeled` people's labels, by models that
    are trained here and have not seen them. train: the training set, what people labeled in it; by default what they
    labeled among the samples. model: the one that predicted; it is asked about altered images. said: what it said of
    every sample; by default what it says now, and without a model the confidences of the labels. config: by default all
    miners. encoder: what is seen of images where there is no model; histograms of gradients by default.

    Raises InputError where no label is in question, UsageError for options that exclude each other.
    """
    return search(
        samples,
        train=train,
        model=model,
        said=said,
        labeled=labeled,
        config=config,
        encoder=encoder,
        seed=seed,
        threads=threads,
        device=device,
    ).found


def search(
    samples: Dataset | Sequence[Sample],
    *,
    train: Dataset | Sequence[Sample] | None = None,
    model: ImageClassifier | None = None,
    said: Said | None = None,
    detection: Detection | None = None,
    detector: Detecting | None = None,
    boxes: bool | None = None,
    labeled: bool = False,
    config: HardConfig | None = None,
    encoder: Encoder | None = None,
    minutes: float | None = None,
    steps: Sequence[int] = (),
    min_per_class: int = 2,
    seed: int = 0,
    threads: int | None = None,
    device: torch.device | None = None,
    max_pixels: int = MAX_PIXELS,
    folder: Path | None = None,
    stage: Stage = lambda name, total: lambda done: None,
    note: Callable[[str], None] = lambda line: None,
    stopped: Callable[[], bool] = lambda: False,
) -> Search:
    """`find_hard_examples`, and what it rests on.

    detection: what a detector said of the samples, whose automatic boxes are those that it gives; it is asked again,
    and held against the boxes that it has learned from: there is no other training set.
    detector: one that is asked about altered images, where boxes are in question that it, or something else, gave.
    boxes: whether boxes are in question, not labels of images; None: what more samples have.
    minutes, steps, min_per_class: of the training with `labeled`, as for `auto_label`. folder: keeps what a stopped
    call has done; None: a temporary one. Raises Stopped, too.
    """
    config = config or HardConfig()
    if labeled and (train is not None or model is not None or said is not None):
        raise UsageError("labeled: models are trained out of fold, so neither train nor model can be given")
    if detection is not None and train is not None:
        raise UsageError(NO_TRAIN)
    with tempfile.TemporaryDirectory() as temporary:
        setting = Setting(
            encoder or Gradients(),
            seed,
            threads,
            device or torch.device("cpu"),
            max_pixels,
            folder or Path(temporary),
            stage,
            stopped,
        )
        if detection is not None:
            return among_detections(samples, detection, setting, config)
        if labeled and _drawn_more(samples):
            return among_peoples_boxes(samples, setting, config, minutes, steps, min_per_class, note)
        if labeled:
            training = partial(auto_label, minutes=minutes, steps=steps, min_per_class=min_per_class, note=note)
            return among_labels(samples, setting, config, training)
        drawn = sum(map(has_automatic_boxes, samples))
        images = sum(_is_asked(sample) for sample in samples)
        if not drawn and not images:
            raise InputError(
                "hard examples are looked for among automatic labels, on images that no person labeled; got none among "
                f"{len(samples):,} samples (labeled looks at what people labeled)"
            )
        rest = _usable(train, samples)
        if boxes is None:
            boxes = drawn > images or (detector is not None and drawn > 0)
        if boxes and (model is not None or said is not None):
            raise UsageError("model: must be a detector where boxes are in question, got one of image_classification")
        if not boxes and detector is not None:
            raise UsageError("model: must be one of image_classification where labels of images are in question")
        others = sum(has_automatic_boxes(sample) + 2 * _is_asked(sample) == (2 if boxes else 1) for sample in samples)
        if others:
            here, there = ("boxes", "labels of images") if boxes else ("labels of images", "boxes")
            note(f"{here} were looked at: {others:,} samples have only automatic {there}, which were not")
        if boxes:
            return among_boxes(samples, rest, detector, setting, config)
        return among_images(samples, rest, model, said, setting, config)


def _is_asked(sample: Sample) -> bool:
    labels = list(image_labels(sample))
    return bool(labels) and not any(label.by_human for label in labels)


def _drawn_more(samples: Sequence[Sample]) -> bool:
    """Whether people drew boxes on more samples than they gave labels of images."""
    return sum(bool(human_drawings(each)) for each in samples) > sum(bool(human_labels(each)) for each in samples)


def _usable(train: Dataset | Sequence[Sample] | None, samples: Dataset | Sequence[Sample]) -> Dataset:
    """What people labeled in the training set, without images that are among the samples; with its failures."""
    if train is None:
        return Dataset((), Sources(Path()))
    here = {_path(sample, sources_of(samples)) for sample in samples}
    kept = tuple(
        sample
        for sample in train
        if sample.is_image
        and (any(label.by_human for label in image_labels(sample)) or has_peoples_boxes(sample))
        and _path(sample, sources_of(train)) not in here
    )
    if not kept:
        failures = train.failures if isinstance(train, Dataset) else ()
        unread = f"; {len(failures):,} failures, the first: {failures[0].reason}" if failures else ""
        raise InputError(
            f"train: must have labels that people gave on other images, got none in {len(train):,} samples{unread}"
        )
    return replace(train, samples=kept, guests=0) if isinstance(train, Dataset) else Dataset(kept, sources_of(train))


def _path(sample: Sample, sources: Sources) -> str:
    try:
        return os.path.realpath(sources.path(sample.source))
    except ImageError:  # a URI that is not mapped
        return sample.source
