"""What is refused before a task is queued: rules that the labels of a data set can break without an image being read,
and paths that lead where this server may not read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from engine.dataset import Dataset
from engine.detect.sketches import check_rules as check_drawn
from engine.detect.sketches import sketches_of
from engine.errors import EngineError, Failure, ImageError, InputError, OutputError, UsageError
from engine.label.targets import LEAST_LABELS, check_rules, targets_of
from engine.models import DETECTOR_TYPE, Shelf
from engine.samples import IMAGE_CLASSIFICATION, OBJECT_DETECTION
from engine.server.problems import (
    BAD_REQUEST,
    FEW_IMAGES,
    N_CLUSTERS,
    NO_LABELS,
    NO_ROOM,
    NOTHING_UNLABELED,
    OUTSIDE_ROOTS,
    Problem,
)
from engine.sources import is_uri
from engine.tasks.deploying import entries_of, is_trained
from engine.tasks.exporting import work_folder
from engine.tasks.further import check_outputs
from engine.tasks.key_samples import key_folder
from engine.tasks.parameters import read_parameters
from engine.tasks.preparing import labels_boxes, named_model, used_fields
from engine.tasks.schema import AUTO_DEPLOY, AUTO_GROUPING, AUTO_LABEL, PRE_LABEL, TaskRequest


def check_request(request: TaskRequest, dataset: Dataset, shelf: Shelf) -> None:
    """Raise Problem for a task that this data set cannot have, InputError for a model that is not there."""
    if request.task_type == AUTO_LABEL:
        _check_labels(request, dataset)
    elif request.task_type == PRE_LABEL:
        chosen = named_model(request, shelf)
        kind = OBJECT_DETECTION if chosen.info.type == DETECTOR_TYPE else IMAGE_CLASSIFICATION
        if not _unlabeled(dataset, kind):
            raise Problem(400, NOTHING_UNLABELED, "pre-labeling needs at least 1 unlabeled image, got none")
    elif request.task_type == AUTO_GROUPING:
        options = read_parameters(request.config.parameters, request.task_type)
        there = sum(sample.is_image for sample in dataset) if options.all else _unlabeled(dataset)
        if not there:
            raise Problem(400, NOTHING_UNLABELED, "auto grouping needs unlabeled images, got none")
        if (wanted := request.config.n_clusters or 2) > there:
            message = f"config.n_clusters: must be at most the number of unlabeled images, got {wanted} for {there}"
            raise Problem(400, N_CLUSTERS, message)
    elif request.task_type == AUTO_DEPLOY and is_trained(entries_of(request, shelf)):
        _check_labels(request, dataset, unlabeled=False)


def check_paths(request: TaskRequest, roots: Roots, base: Path) -> None:
    """Raise Problem for a path that leads where this server may not read or write; one in a field that the task has no
    use for leads nowhere. base: where relative ones begin."""
    config, used = request.config, used_fields(request)
    read_parameters(config.parameters, request.task_type)
    entries = {entry.label: entry.value for entry in config.parameters or ()}
    inside = [getattr(config, name) for name in ("manifest_path", "train_data_path") if name in used]
    if (weights := entries.get("weights")) and not os.path.isabs(weights):
        message = f"weights: must be an absolute path in a folder of this server, got {weights[:200]!r}"
        raise Problem(400, OUTSIDE_ROOTS, message)
    for given in (*inside, weights):
        if given and not is_uri(given):  # a URI is read where the data set says, or not at all
            roots.allowed(base / given)
    if "annotation_output" in used:  # and with it the other folders below OUT
        check_outputs(config)
        key_folder(config.key_sample_output)
    if config.export_params is not None:
        work_folder(config.export_params)


def _unlabeled(dataset: Dataset, kind: str | None = None) -> int:
    """How many images nobody has labeled. kind: the type of the labels that count; None: all."""
    return sum(
        sample.is_image and not any(label.by_human and kind in (None, label.type) for label in sample.labels)
        for sample in dataset
    )


def _check_labels(request: TaskRequest, dataset: Dataset, *, unlabeled: bool = True) -> None:
    """unlabeled: whether an image must be left to label."""
    options = read_parameters(request.config.parameters, request.task_type)
    boxes = labels_boxes(dataset, options.label_type)
    least = options.min_per_class
    if boxes:
        sketches = sketches_of(dataset.samples)
        free = sum(sample.is_image for sample in dataset) - int(sketches.by_people.sum())
        counts = dict(zip(sketches.labels, sketches.presence.sum(axis=0).tolist(), strict=True))
        enough = 1
    else:
        targets = targets_of(dataset.samples)
        free = int(np.sum([sample.is_image for sample in dataset]) - targets.labeled.sum())
        counts = dict(zip(targets.labels, targets.matrix.sum(axis=0).tolist(), strict=True))
        enough = LEAST_LABELS
    try:
        if boxes:
            check_drawn(sketches, free, min_per_class=least, least_unlabeled=int(unlabeled))
        else:
            check_rules(targets, free, min_per_class=least, least_unlabeled=int(unlabeled))
    except InputError as error:
        few = any(count < least for count in counts.values())
        code = NO_LABELS if len(counts) < enough else FEW_IMAGES if few else NOTHING_UNLABELED
        raise Problem(400, code, str(error)) from None
    except UsageError as error:
        raise Problem(400, BAD_REQUEST, str(error)) from None


class Roots:
    """The folders that requests may name paths in."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = [os.path.realpath(folder) for folder in folders]

    def allowed(self, path: Path) -> Path:
        """The path, links followed. Raises Problem when it lies outside, or cannot be one."""
        try:
            real = os.path.realpath(path)
        except (OSError, ValueError) as error:
            raise Problem(400, BAD_REQUEST, f"{str(path)[:200]!r}: cannot be a path: {error}") from None
        if not self._holds(Path(real)):
            told = ", ".join(self._folders) or "none"
            raise Problem(400, OUTSIDE_ROOTS, f"{str(path)[:200]!r}: must lie in a folder of this server ({told})")
        return Path(real)

    def with_folder(self, folder: Path) -> Roots:
        """These folders and one more."""
        return Roots([*map(Path, self._folders), folder])

    def only(self, dataset: Dataset) -> Dataset:
        """The data set without samples, and without drawings, whose files lie outside; each is a failure."""
        kept, failures = [], []
        for sample in dataset:
            try:
                # Whatever its type says, for that can be changed.
                inside = self._holds(dataset.path(sample))
            except (ImageError, OSError, ValueError):  # content, or a URI that is not mapped: there is no file to keep
                inside = True
            if not inside:
                failures.append(Failure(sample.source, "unreadable", "it lies outside the folders of this server"))
                continue
            labels = tuple(label for label in sample.labels if self._may_be_read(label.annotation_loc, dataset))
            if len(labels) < len(sample.labels):
                failures.append(Failure(sample.source, "annotation", "lies outside the folders of this server"))
                sample = replace(sample, labels=labels)
            kept.append(sample)
        if not failures:
            return dataset
        return replace(dataset, samples=tuple(kept), failures=(*dataset.failures, *failures))

    def _may_be_read(self, location: str | None, dataset: Dataset) -> bool:
        try:
            return location is None or self._holds(dataset.sources.path(location))
        except (ImageError, OSError, ValueError):
            return True

    def _holds(self, path: Path) -> bool:
        real = os.path.realpath(path)
        return any(real == folder or real.startswith(folder.rstrip(os.sep) + os.sep) for folder in self._folders)

    @property
    def folders(self) -> list[str]:
        return list(self._folders)


def as_problem(error: EngineError) -> Problem:
    """What is said of an error on purpose."""
    if isinstance(error, OutputError):  # not of the request: a full disk, a folder that takes nothing
        return Problem(507, NO_ROOM, str(error))
    return Problem(400, N_CLUSTERS if str(error).startswith("config.n_clusters") else BAD_REQUEST, str(error))
