"""Hard examples among automatic labels of images, whoever made them.

In: samples, the training samples from elsewhere, and the model that predicted, or what it said, where these are there.
Out: a `Search`, with a label each automatic one on samples that no person labeled. How images look is shown by the
networks of the model where it has a committee of ours, else by what their pixels show. Knows nothing of boxes, or of
how models are trained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from engine.dataset import Dataset
from engine.errors import InputError, Stopped
from engine.hard.asking import (
    BATCH,
    LOOKING,
    NOBODY,
    READING,
    READING_TRAINING,
    Said,
    Search,
    Setting,
    contents,
    first_of,
)
from engine.hard.config import HardConfig
from engine.hard.consistency import inconsistencies
from engine.hard.examples import hard_examples
from engine.hard.labeled import Look, Seen, views_of
from engine.hard.measured import image_features
from engine.hard.mining import Evidence, View
from engine.hard.operators import OPERATORS as ALTERATIONS
from engine.hard.questions import Questions, questions_of
from engine.hard.reasons import OPERATORS
from engine.hard.sequential import sequences_in
from engine.label.classifier import ImageClassifier
from engine.samples import Sample
from engine.survey import Survey


def among_images(
    samples: Dataset | Sequence[Sample],
    train: Dataset,
    model: ImageClassifier | None,
    said: Said | None,
    setting: Setting,
    config: HardConfig,
) -> Search:
    """Every automatic label is held against what people labeled, and against what the model says of altered images."""
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
    by_pixels = partial(contents, [found, of_train], setting.encoder, setting.device, stopped=setting.stopped)
    labeled = questions.told.any(dim=1)
    shown: Tensor | None = None
    if model is not None and model.committee is not None:
        look = Look(model.committee, model.multi_label, config.altering)
        seen = _by_networks(look, [found, of_train], judges, setting)
        beliefs = torch.stack([_in_columns(each, model.labels, questions.names) for each in seen.beliefs])
        views = views_of(replace(seen, beliefs=beliefs), questions.told, judges, questions.multi_label)
        altered, shown = seen.altered, by_pixels()
    else:
        advance = setting.stage(LOOKING, len(readable) + (len(found.thumbnails) if model is not None else 0))
        views = (View(by_pixels(progress=advance), (labeled & (judges != 0)).nonzero()[:, 0]),)
        altered = {} if model is None else _altered(model, found, of_train, config.altering, setting, advance)
    probabilities = _probabilities(samples, questions, model, said, found, setting.device)
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
        sequences_in(samples),
        chosen=judges == NOBODY,
        contents=shown,
    )
    answer = replace(first_of(hard_examples(evidence, config, seed=setting.seed), len(samples)), names=questions.names)
    failures = (*found.failures, *of_train.failures)
    notes = tuple(_missing(config, questions, model is not None))
    rows = np.flatnonzero(questions.given.any(dim=1)[: len(samples)].numpy())
    return Search(answer, rows, False, several, train, found, views[0].vectors, questions.told, failures, notes)


def _by_networks(look: Look, surveys: Sequence[Survey], judges: Tensor, setting: Setting) -> Seen:
    """Of the samples, and of training ones from elsewhere, which are not altered."""
    found, of_train = surveys
    assert found.thumbnails is not None and of_train.thumbnails is not None
    n, t = len(found.sizes), len(of_train.sizes)
    advance = setting.stage(LOOKING, n + t)
    first = look.at(found.thumbnails, judges[:n], progress=advance, stopped=setting.stopped)
    second = replace(look, operators=()).at(
        of_train.thumbnails, judges[n:], progress=lambda done: advance(n + done), stopped=setting.stopped
    )
    unreadable = ~torch.from_numpy(np.concatenate([found.readable, of_train.readable]))
    vectors = torch.cat([first.vectors, second.vectors], dim=1)
    beliefs = torch.cat([first.beliefs, second.beliefs], dim=1)
    vectors[:, unreadable] = torch.nan
    beliefs[:, unreadable] = torch.nan
    nothing = torch.full((t,), torch.nan)
    return Seen(vectors, beliefs, {reason: torch.cat([change, nothing]) for reason, change in first.altered.items()})


def _altered(
    model: ImageClassifier,
    found: Survey,
    of_train: Survey,
    operators: Sequence[str],
    setting: Setting,
    advance: Callable[[int], None],
) -> dict[int, Tensor]:
    """By reason (n + t,) how much the predictions of a model without networks of ours change; NaN where there is no
    image, and training ones from elsewhere are not altered."""
    total, done = len(found.sizes) + len(of_train.sizes), int(found.readable.sum() + of_train.readable.sum())
    changes = {OPERATORS[name]: torch.full((total,), torch.nan) for name in operators}
    assert found.thumbnails is not None
    device = setting.device

    def predict(images: Tensor) -> Tensor:
        return _said_of(model, (images.clamp(0, 1) * 255).round().byte())

    for start in range(0, len(found.thumbnails) if operators else 0, BATCH):
        if setting.stopped():
            raise Stopped(f"stopped after {start:,} of {len(found.thumbnails):,} altered images")
        places = np.arange(start, min(start + BATCH, len(found.thumbnails)))
        images = found.thumbnails.rows(places).to(device).float().div_(255)
        variants = {name: ALTERATIONS[name](images) for name in operators}
        rows = torch.from_numpy(found.thumbnails.index[places])
        changed = inconsistencies(predict(images), variants, predict, multi_label=model.multi_label)
        for name, change in changed.items():
            changes[OPERATORS[name]][rows] = change
        advance(done + int(places[-1]) + 1)
    return changes


def _said_of(model: ImageClassifier, images: Tensor) -> Tensor:
    """(B, k) probabilities; a row of NaN for an image that a model from elsewhere fails on. Raises InputError where it
    fails on all of several: it is not the images."""
    try:
        return model.probabilities(images).cpu()
    except InputError:
        if len(images) == 1:
            return torch.full((1, len(model.labels)), torch.nan)
        said = torch.cat([_said_of(model, image) for image in torch.split(images, 1)])
        if bool(said.isnan().all()):
            raise
        return said


def _probabilities(
    samples: Sequence[Sample],
    questions: Questions,
    model: ImageClassifier | None,
    said: Said | None,
    found: Survey,
    device: torch.device,
) -> Tensor:
    """(n + t, k) float32: what was said of the samples, else what the model says now, else what the labels came with.
    A label in question that the model does not know has the probability 0."""
    p = questions.probabilities
    if said is not None:
        values = _for_samples(samples, said.sources, torch.from_numpy(said.values), torch.nan)
        known = ~values.isnan().any(dim=1)
        p[: len(samples)][known] = _in_columns(values[known], said.labels, questions.names)
    elif model is not None and found.thumbnails is not None:
        for start in range(0, len(found.thumbnails), BATCH):
            places = np.arange(start, min(start + BATCH, len(found.thumbnails)))
            images = found.thumbnails.rows(places).to(device)
            values = _said_of(model, images).clamp(0, 1)
            rows = torch.from_numpy(found.thumbnails.index[places])
            p[rows] = _in_columns(values, model.labels, questions.names)
    return p


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


def _missing(config: HardConfig, questions: Questions, asked_again: bool) -> Iterator[str]:
    """Which miners had nothing to go by."""
    if config.altering and not asked_again:
        yield "aug_consistent_mining did not run: it asks the model that predicted, and there is none"
    if not bool(questions.told.any()):
        yield "there is no training set: nothing tells what images of a label look like, and nothing was learned"
    elif bool((questions.given & questions.confidences.isnan()).any()):
        yield "some automatic labels came without a confidence: they are judged by the other miners"
