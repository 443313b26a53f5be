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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engine.dataset import Dataset
from engine.detect.detecting import auto_detect
from engine.detect.fast import FOLDS as BOX_FOLDS
from engine.detect.results import Detection
from engine.detect.sketches import human_drawings
from engine.embeddings import Encoder, Gradients, content_vectors
from engine.errors import Failure, ImageError, InputError, Stopped, UsageError
from engine.hard.box_errors import box_label_errors
from engine.hard.box_look import Detecting, Looked, box_changes
from engine.hard.boxes import Sights, boxes_of, hard_boxes
from engine.hard.config import HardConfig
from engine.hard.consistency import inconsistencies
from engine.hard.crops import crops
from engine.hard.detected import hard_detections
from engine.hard.examples import HardExamples, HardLabels, hard_examples
from engine.hard.labeled import Look, evidence_of
from engine.hard.measured import image_features
from engine.hard.mining import Evidence, View
from engine.hard.operators import OPERATORS as ALTERATIONS
from engine.hard.planted import label_errors
from engine.hard.questions import Questions, box_labels, has_automatic_boxes, image_labels, questions_of
from engine.hard.reasons import OPERATORS
from engine.hard.sequential import sequences_of
from engine.images import MAX_PIXELS
from engine.label.classifier import ImageClassifier, resized
from engine.label.fast import FOLDS
from engine.label.labeling import auto_label
from engine.label.plan import Stage
from engine.label.results import Labeling
from engine.label.targets import human_labels
from engine.samples import Sample
from engine.sources import Sources
from engine.survey import Survey, survey

#: Images a batch where contents are looked at.
_BATCH: Final = 256

#: No network has seen the label: all have judged it together.
NOBODY: Final = -2

READING: Final = "reading images"
READING_TRAINING: Final = "reading training images"
LOOKING: Final = "finding hard examples"


@dataclass(frozen=True, slots=True)
class Said:
    """What a model has said of samples. sources: n, as the data set names them. labels: k names. values: (n, k) float
    in [0, 1], rows of NaN for nothing. judges: (n,) int64, the number of the network of the model that has not seen the
    label of a sample and has judged it; NOBODY where none has seen it, as where a person confirmed or corrected it
    later; -1 where all have. None: nobody knows, and nothing is learned from rows of labeled samples."""

    sources: Sequence[str]
    labels: Sequence[str]
    values: npt.NDArray[np.float32]
    judges: npt.NDArray[np.int64] | None = None

    @property
    def multi_label(self) -> bool:
        """Whether a sample may have several labels: then rows need not sum to 1."""
        sums = self.values[~np.isnan(self.values).any(axis=1)].sum(axis=1)
        return bool((np.abs(sums - 1) > 1e-3).any())


@dataclass(frozen=True, slots=True)
class Search:
    """What was found among n samples, and what it rests on.

    found: of the n samples. rows: (r,) int64, those in question. of_boxes: whether their labels are boxes. multi_label:
    whether one may have several. train: the t training samples from elsewhere. survey: of the samples. vectors: (n + t,
    d), how the samples and the t training ones from elsewhere look; rows of NaN where there is nothing to see. told: (n
    + t, k) bool, what people said, columns found.names. failures: of training images, too. notes: what a person should
    know, a line each.
    """

    found: HardExamples
    rows: npt.NDArray[np.int64]
    of_boxes: bool
    multi_label: bool
    train: Dataset
    survey: Survey
    vectors: Tensor
    told: Tensor
    failures: tuple[Failure, ...]
    notes: tuple[str, ...]


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


@dataclass(frozen=True, slots=True)
class _Setting:
    """How images are read and looked at."""

    encoder: Encoder
    seed: int
    threads: int | None
    device: torch.device
    max_pixels: int
    folder: Path
    stage: Stage
    stopped: Callable[[], bool]

    def surveyed(self, samples: Dataset | Sequence[Sample], side: int, name: str) -> Survey:
        return survey(
            samples,
            _sources(samples),
            folder=self.folder,
            thumbnail_side=side,
            threads=self.threads,
            max_pixels=self.max_pixels,
            progress=self.stage(name, sum(sample.is_image for sample in samples)),
            stopped=self.stopped,
        )


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

    detection: what a detector said of the samples, whose automatic boxes are those that it gives; it is asked again.
    detector: one that is asked about altered images, where boxes are in question that it, or something else, gave.
    boxes: whether boxes are in question, not labels of images; None: what more samples have.
    minutes, steps, min_per_class: of the training with `labeled`, as for `auto_label`. folder: keeps what a stopped
    call has done; None: a temporary one. Raises Stopped, too.
    """
    config = config or HardConfig()
    if labeled and (train is not None or model is not None or said is not None):
        raise UsageError("labeled: models are trained out of fold, so neither train nor model can be given")
    with tempfile.TemporaryDirectory() as temporary:
        setting = _Setting(
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
            return _among_detections(samples, detection, setting, config)
        if labeled and _drawn_more(samples):
            return _among_peoples_boxes(samples, setting, config, minutes, steps, min_per_class, note)
        if labeled:
            training = partial(auto_label, minutes=minutes, steps=steps, min_per_class=min_per_class, note=note)
            return _among_labels(samples, setting, config, training)
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
        if boxes:
            return _among_boxes(samples, rest, detector, setting, config)
        return _among_images(samples, rest, model, said, setting, config)


def _is_asked(sample: Sample) -> bool:
    labels = list(image_labels(sample))
    return bool(labels) and not any(label.by_human for label in labels)


def _sources(samples: Dataset | Sequence[Sample]) -> Sources:
    return samples.sources if isinstance(samples, Dataset) else Sources(Path())


def _usable(train: Dataset | Sequence[Sample] | None, samples: Dataset | Sequence[Sample]) -> Dataset:
    """What people labeled in the training set, without images that are among the samples."""
    if train is None:
        return Dataset((), Sources(Path()))
    here = {_path(sample, _sources(samples)) for sample in samples}
    kept = tuple(
        sample
        for sample in train
        if sample.is_image
        and any(label.by_human for label in (*image_labels(sample), *box_labels(sample)))
        and _path(sample, _sources(train)) not in here
    )
    if not kept:
        raise InputError(
            f"train: must have labels that people gave on other images, got none in {len(train):,} samples"
        )
    return Dataset(kept, _sources(train))


def _path(sample: Sample, sources: Sources) -> str:
    try:
        return os.path.realpath(sources.path(sample.source))
    except ImageError:  # a URI that is not mapped
        return sample.source


# ---- Labels of images. ----


def _among_images(
    samples: Dataset | Sequence[Sample],
    train: Dataset,
    model: ImageClassifier | None,
    said: Said | None,
    setting: _Setting,
    config: HardConfig,
) -> Search:
    committee = model.committee if model is not None else None
    side = model.image_size if model is not None else setting.encoder.size
    found = setting.surveyed(samples, side, READING)
    of_train = setting.surveyed(train, side, READING_TRAINING)
    assert found.thumbnails is not None and of_train.thumbnails is not None
    everything = [*samples, *train]
    known = (*(model.labels if model is not None else ()), *(said.labels if said is not None else ()))
    questions = questions_of(everything, further_names=known)
    several = questions.multi_label or bool(model and model.multi_label) or bool(said and said.multi_label)
    questions = replace(questions, multi_label=several)
    readable = torch.from_numpy(np.concatenate([found.readable, of_train.readable]))
    questions = replace(questions, told=questions.told & readable[:, None])
    judges = torch.full((len(everything),), -1)
    if said is not None and said.judges is not None:
        judges[: len(samples)] = _for_samples(samples, said.sources, torch.from_numpy(said.judges), -1)
    if committee is not None:
        look = Look(committee, questions.multi_label, config.altering)
        vectors, altered = _by_networks(look, [found, of_train], judges, setting)
    else:
        advance = setting.stage(LOOKING, len(readable) + (len(found.thumbnails) if model is not None else 0))
        vectors = _contents([found, of_train], setting, advance)[None]
        altered = {} if model is None else _altered(model, found, of_train, config.altering, setting, advance)
    labeled = questions.told.any(dim=1)
    views = tuple(
        View(each, (labeled & (judges != number)).nonzero()[:, 0]) for number, each in enumerate(vectors.unbind(0))
    )
    probabilities = _probabilities(samples, questions, model, said, found)
    judged = labeled & (judges != -1) & ~probabilities.isnan().any(dim=1)
    given = questions.given.clone()
    given[judged] = _most_probable(probabilities[judged], questions.multi_label)
    features = image_features(found)
    if len(train):
        features = {reason: torch.cat([each, image_features(of_train)[reason]]) for reason, each in features.items()}
    evidence = Evidence(
        probabilities,
        given,
        questions.told,
        judged,
        questions.multi_label,
        views,
        features,
        altered,
        sequences_of([sample.source for sample in samples]),
    )
    answer = replace(_first(hard_examples(evidence, config, seed=setting.seed), len(samples)), names=questions.names)
    failures = (*found.failures, *of_train.failures)
    notes = tuple(_missing(config, questions, model is not None))
    rows = np.flatnonzero(questions.given.any(dim=1)[: len(samples)].numpy())
    return Search(answer, rows, False, several, train, found, vectors[0], questions.told, failures, notes)


def _by_networks(
    look: Look, surveys: Sequence[Survey], judges: Tensor, setting: _Setting
) -> tuple[Tensor, dict[int, Tensor]]:
    """Vectors (v, n + t, d) of the samples and of training ones from elsewhere, and by reason (n + t,) how much
    predictions change; rows of NaN where there is no image, and training ones are not altered."""
    found, of_train = surveys
    assert found.thumbnails is not None and of_train.thumbnails is not None
    n, t = len(found.sizes), len(of_train.sizes)
    advance = setting.stage(LOOKING, n + t)
    of_samples, altered = look.at(found.thumbnails, judges[:n], progress=advance, stopped=setting.stopped)
    of_training, _ = replace(look, operators=()).at(
        of_train.thumbnails, judges[n:], progress=lambda done: advance(n + done), stopped=setting.stopped
    )
    vectors = torch.cat([of_samples, of_training], dim=1)
    vectors[:, ~torch.from_numpy(np.concatenate([found.readable, of_train.readable]))] = torch.nan
    nothing = torch.full((t,), torch.nan)
    return vectors, {reason: torch.cat([change, nothing]) for reason, change in altered.items()}


def _altered(
    model: ImageClassifier,
    found: Survey,
    of_train: Survey,
    operators: Sequence[str],
    setting: _Setting,
    advance: Callable[[int], None],
) -> dict[int, Tensor]:
    """By reason (n + t,) how much the predictions of a model without networks of ours change; NaN where there is no
    image, and training ones from elsewhere are not altered."""
    total, done = len(found.sizes) + len(of_train.sizes), int(found.readable.sum() + of_train.readable.sum())
    changes = {OPERATORS[name]: torch.full((total,), torch.nan) for name in operators}
    assert found.thumbnails is not None
    device = _device_of(model)

    def predict(images: Tensor) -> Tensor:
        return model.probabilities((images.clamp(0, 1) * 255).round().byte()).cpu()

    for start in range(0, len(found.thumbnails) if operators else 0, _BATCH):
        if setting.stopped():
            raise Stopped(f"stopped after {start:,} of {len(found.thumbnails):,} altered images")
        places = np.arange(start, min(start + _BATCH, len(found.thumbnails)))
        images = found.thumbnails.rows(places).to(device).float().div_(255)
        variants = {name: ALTERATIONS[name](images) for name in operators}
        rows = torch.from_numpy(found.thumbnails.index[places])
        changed = inconsistencies(predict(images), variants, predict, multi_label=model.multi_label)
        for name, change in changed.items():
            changes[OPERATORS[name]][rows] = change
        advance(done + int(places[-1]) + 1)
    return changes


def _probabilities(
    samples: Sequence[Sample], questions: Questions, model: ImageClassifier | None, said: Said | None, found: Survey
) -> Tensor:
    """(n + t, k) float32: what was said of the samples, else what the model says now, else what the labels came with.
    A label in question that the model does not know has the probability 0."""
    p = questions.probabilities
    if said is not None:
        values = _for_samples(samples, said.sources, torch.from_numpy(said.values), torch.nan)
        known = ~values.isnan().any(dim=1)
        p[: len(samples)][known] = _in_columns(values[known], said.labels, questions.names)
    elif model is not None and found.thumbnails is not None:
        device = _device_of(model)
        for start in range(0, len(found.thumbnails), _BATCH):
            places = np.arange(start, min(start + _BATCH, len(found.thumbnails)))
            images = found.thumbnails.rows(places).to(device)
            values = model.probabilities(images).cpu().clamp(0, 1)
            rows = torch.from_numpy(found.thumbnails.index[places])
            p[rows] = _in_columns(values, model.labels, questions.names)
    return p


def _device_of(model: ImageClassifier) -> torch.device:
    return next(model.committee.networks[0].parameters()).device if model.committee else torch.device("cpu")


def _in_columns(values: Tensor, labels: Sequence[str], names: Sequence[str]) -> Tensor:
    """(r, k') of some labels -> (r, k) of all names, 0 for those that are not among them."""
    column = {name: at for at, name in enumerate(names)}
    result = torch.zeros(len(values), len(names))
    for at, label in enumerate(labels):
        if label in column:
            result[:, column[label]] = values[:, at].float()
    return result


def _for_samples(samples: Sequence[Sample], sources: Sequence[str], values: Tensor, missing: float) -> Tensor:
    """The rows of values, one a source, in the order of the samples."""
    place = {source: at for at, source in enumerate(sources)}
    at = torch.tensor([place.get(sample.source, -1) for sample in samples], dtype=torch.int64)
    result = values[at.clamp(min=0)].clone()
    result[at < 0] = missing
    return result


def _most_probable(probabilities: Tensor, multi_label: bool) -> Tensor:
    given = torch.nn.functional.one_hot(probabilities.argmax(dim=1), probabilities.shape[1]).bool()
    return given | (probabilities >= 0.5) if multi_label else given


def _contents(surveys: Sequence[Survey], setting: _Setting, advance: Callable[[int], None]) -> Tensor:
    """(n + t, d): how images look, by what their pixels show; rows of NaN where there is none."""
    thumbnails = [each.thumbnails for each in surveys if each.thumbnails is not None and len(each.thumbnails)]
    total = sum(len(each.sizes) for each in surveys)
    if not thumbnails:
        return torch.full((total, 1), torch.nan)

    def batches() -> Iterator[Tensor]:
        for batch in chain.from_iterable(each.batches(_BATCH) for each in thumbnails):
            if setting.stopped():
                raise Stopped("stopped while looking at contents")
            yield resized(batch, setting.encoder.size)

    found = content_vectors(batches, encoder=setting.encoder, device=setting.device, progress=advance)
    result = torch.full((total, found.shape[1]), torch.nan)
    result[torch.from_numpy(np.concatenate([each.readable for each in surveys]))] = found
    return result


def _missing(config: HardConfig, questions: Questions, asked_again: bool) -> Iterator[str]:
    """Which miners had nothing to go by."""
    if config.altering and not asked_again:
        yield "aug_consistent_mining did not run: it asks the model that predicted, and there is none"
    if not bool(questions.told.any()):
        yield "there is no training set: nothing tells what images of a label look like, and nothing was learned"
    elif bool((questions.given & questions.confidences.isnan()).any()):
        yield "some automatic labels came without a confidence: they are judged by the other miners"


# ---- Boxes. ----


def _among_boxes(
    samples: Dataset | Sequence[Sample],
    train: Dataset,
    detector: Detecting | None,
    setting: _Setting,
    config: HardConfig,
) -> Search:
    side = setting.encoder.size
    found = setting.surveyed(samples, side, READING)
    of_train = setting.surveyed(train, side, READING_TRAINING)
    together = _joined(found, of_train)
    everything = [*samples, *train]
    altering = len(samples) if detector is not None and config.altering else 0
    advance = setting.stage(LOOKING, 2 * len(everything) + altering)
    of_images = _contents([found, of_train], setting, advance)
    paths, boxes, rows = [], [], []
    for row, sample in enumerate(everything):
        shapes = sample.boxes
        if shapes and together.readable[row]:
            origin = _sources(samples) if row < len(samples) else train.sources
            paths.append(origin.path(sample.source))
            boxes.append(np.array([shape.xyxy for shape in shapes], np.float32))
        rows += [bool(together.readable[row])] * len(shapes)
    of_boxes = torch.full((len(rows), 1), torch.nan)
    if paths:
        threads = setting.threads or os.cpu_count() or 1
        inside = partial(
            crops, paths, boxes, side=side, threads=threads, max_pixels=setting.max_pixels, stopped=setting.stopped
        )
        share = len(everything) / max(1, sum(map(len, boxes)))
        vectors = content_vectors(
            inside,
            encoder=setting.encoder,
            device=setting.device,
            progress=lambda done: advance(len(everything) + int(share * done)),
        )
        of_boxes = torch.full((len(rows), vectors.shape[1]), torch.nan)
        of_boxes[torch.tensor(rows)] = vectors
    advance(2 * len(everything))
    altered = {}
    if detector is not None and config.altering:
        altered = _box_changes(
            everything,
            np.flatnonzero(found.readable).tolist(),
            _sources(samples),
            detector,
            setting,
            config,
            lambda done: advance(2 * len(everything) + done),
        )
    order = sequences_of([sample.source for sample in samples])
    sights = Sights(of_images, of_boxes)
    answer = hard_boxes(everything, together, sights, order, config, altered=altered, seed=setting.seed)
    told = torch.tensor([[any(label.by_human for label in box_labels(sample))] for sample in everything])
    notes = []
    if config.altering and detector is None:
        notes.append("aug_consistent_mining did not run: it asks the detector that predicted, and there is none")
    if not bool(told.any()):
        notes.append("there is no training set: nothing tells what boxes of a label look like")
    failures = (*found.failures, *of_train.failures)
    rows_asked = np.flatnonzero([has_automatic_boxes(sample) for sample in samples])
    return Search(
        _first(answer, len(samples)), rows_asked, True, False, train, found, of_images, told, failures, tuple(notes)
    )


def _box_changes(
    everything: Sequence[Sample],
    rows: Sequence[int],
    sources: Sources,
    detector: Detecting,
    setting: _Setting,
    config: HardConfig,
    advance: Callable[[int], None],
) -> dict[int, Tensor]:
    """By reason (m,) how much each of all boxes changes on altered images; NaN for those that are not in question.
    rows: of the samples that can be read."""
    every = boxes_of(everything)
    first, last = (
        torch.searchsorted(every.rows, torch.tensor(rows, dtype=torch.int64), right=right).tolist()
        for right in (False, True)
    )
    places, looked = [torch.zeros(0, dtype=torch.int64)], []
    for row, start, end in zip(rows, first, last, strict=True):
        mine = every.asked[start:end].nonzero()[:, 0]
        if len(mine):
            at = mine + start
            xyxy = torch.tensor([shape.xyxy for shape in everything[row].boxes])[mine]
            path = sources.path(everything[row].source)
            looked.append(Looked(path, xyxy, every.columns[at], every.confidences[at], -1))
            places.append(at)
    found = box_changes(
        looked,
        detector,
        config.altering,
        names=every.names,
        threads=setting.threads or os.cpu_count() or 1,
        max_pixels=setting.max_pixels,
        progress=advance,
        stopped=setting.stopped,
    )
    changes = {reason: torch.full((len(every),), torch.nan) for reason in found}
    for reason, change in found.items():
        changes[reason][torch.cat(places)] = change
    return changes


def _joined(first: Survey, second: Survey) -> Survey:
    """Two surveys as one, without their thumbnails."""
    return replace(
        first,
        features=np.concatenate([first.features, second.features]),
        sizes=np.concatenate([first.sizes, second.sizes]),
        boxes=(*first.boxes, *second.boxes),
        box_area_std=np.concatenate([first.box_area_std, second.box_area_std]),
        thumbnails=None,
        failures=(*first.failures, *second.failures),
    )


# ---- Labels that people gave. ----


def _among_labels(
    samples: Dataset | Sequence[Sample], setting: _Setting, config: HardConfig, training: Callable[..., Labeling]
) -> Search:
    """Every label is judged by the network that has not seen it."""
    labeling = training(
        samples,
        "fast",
        least_unlabeled=0,
        networks=FOLDS,
        encoder=setting.encoder,
        seed=setting.seed,
        threads=setting.threads,
        device=setting.device,
        max_pixels=setting.max_pixels,
        folder=setting.folder,
        looks=FOLDS + len(config.altering),
        stage=setting.stage,
        stopped=setting.stopped,
    )
    assert labeling.survey.thumbnails is not None
    advance = setting.stage(LOOKING, len(labeling.survey.thumbnails))
    evidence = evidence_of(
        list(samples),
        labeling,
        labeling.survey.thumbnails,
        operators=config.altering,
        progress=advance,
        stopped=setting.stopped,
    )
    answer = label_errors(replace(evidence, given=evidence.told), config, seed=setting.seed)
    answer = replace(answer, names=labeling.labels, choices={**answer.choices, "training": dict(labeling.choices)})
    vectors = evidence.views[0].vectors if evidence.views else torch.full((len(samples), 1), torch.nan)
    rows = np.unique(answer.labels.rows)
    nobody = Dataset((), Sources(Path()))
    failures = labeling.survey.failures
    several = labeling.targets.multi_label
    return Search(
        answer, rows, False, several, nobody, labeling.survey, vectors, evidence.told, failures, labeling.notes
    )


def _among_detections(
    samples: Dataset | Sequence[Sample], detection: Detection, setting: _Setting, config: HardConfig
) -> Search:
    found = setting.surveyed(samples, setting.encoder.size, READING)
    answer, vectors = hard_detections(
        samples,
        detection,
        config,
        sources=_sources(samples),
        folder=setting.folder,
        threads=setting.threads or os.cpu_count() or 1,
        max_pixels=setting.max_pixels,
        seed=setting.seed,
        stage=setting.stage,
        stopped=setting.stopped,
    )
    rows = np.flatnonzero(detection.automatic)
    if not len(rows):
        raise InputError("hard examples are looked for among automatic boxes, got none that a person has not confirmed")
    told = torch.from_numpy(detection.sketches.labeled)[:, None]
    nobody = Dataset((), Sources(Path()))
    return Search(answer, rows, True, False, nobody, found, vectors, told, found.failures, ())


def _drawn_more(samples: Sequence[Sample]) -> bool:
    """Whether people drew boxes on more samples than they gave labels of images."""
    return sum(bool(human_drawings(each)) for each in samples) > sum(bool(human_labels(each)) for each in samples)


def _among_peoples_boxes(
    samples: Dataset | Sequence[Sample],
    setting: _Setting,
    config: HardConfig,
    minutes: float | None,
    steps: Sequence[int],
    min_per_class: int,
    note: Callable[[str], None],
) -> Search:
    """Every box is held against what a detector says that has not seen it."""
    detection = auto_detect(
        samples,
        "fast",
        minutes=minutes,
        steps=steps,
        min_per_class=min_per_class,
        least_unlabeled=0,
        networks=BOX_FOLDS,
        seed=setting.seed,
        threads=setting.threads,
        device=setting.device,
        max_pixels=setting.max_pixels,
        folder=setting.folder,
        stage=setting.stage,
        note=note,
        stopped=setting.stopped,
    )
    answer = box_label_errors(detection, seed=setting.seed, threshold=config.threshold)
    answer = replace(answer, choices={**answer.choices, "training": dict(detection.choices)})
    found = setting.surveyed(samples, setting.encoder.size, READING)
    rows = np.flatnonzero(detection.judges >= 0)
    nothing = torch.full((len(samples), 1), torch.nan)
    told = torch.from_numpy(detection.sketches.labeled)[:, None]
    nobody = Dataset((), Sources(Path()))
    return Search(answer, rows, True, False, nobody, found, nothing, told, detection.failures, detection.notes)


def _first(found: HardExamples, n: int) -> HardExamples:
    """What was found of the first n samples; training samples from elsewhere come after them, and have no labels in
    question."""
    labels = found.labels
    mine = labels.rows < n
    kept = HardLabels(
        labels.rows[mine],
        labels.columns[mine],
        labels.coefficients[mine],
        labels.hard[mine],
        tuple(reasons for reasons, is_mine in zip(labels.reasons, mine.tolist(), strict=True) if is_mine),
    )
    return replace(
        found,
        coefficients=found.coefficients[:n],
        hard=found.hard[:n],
        reasons=found.reasons[:n],
        labels=kept,
        scores={reason: score[:n] for reason, score in found.scores.items()},
        shares={reason: share[:n] for reason, share in found.shares.items()},
    )
