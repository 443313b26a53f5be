"""The one door to models in folders, our own and those from elsewhere: what one is, load it, list them.

In: a folder with a model.json. Out: `ModelInfo`, or the model on a device. Knows nothing of where folders are kept.
"""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import Final, TypeAlias

import torch

from engine.detect.detector import BoxDetector
from engine.errors import InputError
from engine.label.classifier import Classifier
from engine.models.documents import MODEL_NAME, WEIGHTS_NAME, file_of
from engine.models.foreign.classifier import ForeignClassifier
from engine.models.foreign.detector import ForeignDetector
from engine.models.foreign.forms import (
    EXPORTED,
    ForeignClassifierForm,
    foreign_digest,
    foreign_files,
    is_foreign,
    read_foreign_form,
)
from engine.models.foreign.loading import load_foreign
from engine.models.info import ModelInfo, Models
from engine.models.kept import kept_info, load_detector, load_model

DETECTOR_TYPE: Final = "object_detection"

AnyModel: TypeAlias = Classifier | BoxDetector | ForeignClassifier | ForeignDetector


def read_model_info(folder: Path, *, digest: str | None = None) -> ModelInfo:
    """What a folder's model is. Its weights are there and of the right size; those of our own are not read.

    digest: the id of a foreign model, where it is known: its file is not read then. Raises InputError when the folder
    holds no model.
    """
    return _foreign_info(folder, digest) if is_foreign(folder) else kept_info(folder)


def load_any(folder: Path, *, device: torch.device | None = None) -> AnyModel:
    """The model of a folder, whatever made it, on a device (the CPU by default). Raises InputError,
    MissingExtraError."""
    if is_foreign(folder):
        return load_foreign(folder, device=device)
    load = load_detector if kept_info(folder).type == DETECTOR_TYPE else load_model
    return load(folder, device=device)


def files_of(folder: Path) -> tuple[str, ...]:
    """The names of all files that make the model of a folder. Raises InputError."""
    if is_foreign(folder):
        return (*foreign_files(folder, read_foreign_form(folder)), MODEL_NAME)
    return WEIGHTS_NAME, MODEL_NAME


def list_models(folder: Path) -> Models:
    """Every model.json in a folder and below it, links to folders not followed. Raises InputError without a folder."""
    if not folder.is_dir():
        raise InputError(f"{folder}: must be a folder, got {'a file' if folder.exists() else 'nothing there'}")
    found, broken = [], []
    unread: list[OSError] = []
    places = (Path(place) for place, _, files in os.walk(folder, onerror=unread.append) if MODEL_NAME in files)
    for place in sorted(places):
        try:
            found.append(read_model_info(place))
        except InputError as error:
            broken.append(str(error))
    broken += [f"{error.filename}: cannot be read: {error.strerror}" for error in unread]
    return Models(tuple(found), tuple(broken))


def _foreign_info(folder: Path, digest: str | None) -> ModelInfo:
    form = read_foreign_form(folder)
    described, size = file_of(folder, MODEL_NAME)
    return ModelInfo(
        id=digest or foreign_digest(folder, form),
        type=form.type,
        labels=form.labels,
        multi_label=form.multi_label if isinstance(form, ForeignClassifierForm) else True,
        input_size=(form.input.width, form.input.height),
        encoder=None,
        networks=0,
        calibration={} if isinstance(form, ForeignClassifierForm) else {"score_threshold": form.score_threshold},
        metrics={},
        training_digest="",
        created=datetime.fromtimestamp(described.stat().st_mtime),
        code_version="",
        path=folder,
        bytes=size + sum(file_of(folder, name)[1] for name in foreign_files(folder, form)),
        origin="torch.export" if form.file.endswith(EXPORTED) else "ONNX",
    )
