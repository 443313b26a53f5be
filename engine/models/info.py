"""What a model is, without its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What a model is, without its tensors.

    id: 64 hexadecimal digits of its content, `model_digest`. type: `image_classification` or `object_detection`.
    input_size: width and height of what it sees, in pixels. encoder: of the closed-form head; None without one.
    networks: how many. calibration: of a classifier temperature_of_networks, temperature_of_head, share_of_networks in
    [0, 1]; of a detector the threshold of each label. metrics: how good it was and what was chosen, JSON values.
    training_digest: of what it learned from. code_version: of the program that made it. path: the folder. bytes: of
    all files. origin: `labelengine`, `ONNX` or `torch.export`; of the latter two little is known.
    """

    id: str
    type: str
    labels: tuple[str, ...]
    multi_label: bool
    input_size: tuple[int, int]
    encoder: str | None
    networks: int
    calibration: Mapping[str, float]
    metrics: Mapping[str, Any]
    training_digest: str
    created: datetime
    code_version: str
    path: Path
    bytes: int
    origin: str = "labelengine"


@dataclass(frozen=True, slots=True)
class Models:
    """The models below a folder, by path, and a line for each model.json that is none."""

    found: tuple[ModelInfo, ...]
    broken: tuple[str, ...]
