"""What the model.json of a model from elsewhere says, and how it is read.

    {"format": "labelengine-foreign-model", "version": 1, "type": "image_classification", "file": "model.onnx",
     "labels": ["cat", "dog"], "input": {"width": 224, "height": 224, "mean": [0.485, 0.456, 0.406],
     "std": [0.229, 0.224, 0.225]}, "outputs": {"scores": "logits"}, "activation": "softmax"}

Outputs have the names of the documented answers: `scores` (B, k), or (B,) beside `predicted_label` (B,); of a detector
`detection_boxes` (B, m, 4), `detection_scores` (B, m) and `detection_classes` (B, m), or scores (B, m, k) or (B, k, m)
alone. Beside each stands the name that the graph has for it; of a .pt2 program its key, or its place: "0", "1".

In: the folder of a model. Out: a record whose parts fit together, unknown keys refused; the files beside it, and a
digest of all. Knows nothing of tensors, or of what is in the graph.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Final, Literal, TypeAlias

from pydantic import Field, StrictBool, StrictFloat, StrictInt, StrictStr, ValidationError, model_validator

from engine.errors import InputError
from engine.models.documents import (
    MODEL_NAME,
    Record,
    Side,
    check_labels,
    clipped,
    file_of,
    first_problem,
    read_json,
)

FOREIGN_FORMAT: Final = "labelengine-foreign-model"
ONNX: Final = ".onnx"
EXPORTED: Final = ".pt2"

_Number: TypeAlias = Annotated[float, Field(allow_inf_nan=False)]
_Triple: TypeAlias = tuple[_Number, _Number, _Number]
_Name: TypeAlias = Annotated[StrictStr, Field(min_length=1)]
_Unit: TypeAlias = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class ForeignInput(Record):
    """What the graph is given: (x * scale - mean) / std, x in [0, 1].

    name: of the input; the only one by default. width, height: pixels. layout, colors: their order. scale: what white
    is. fit: how an image gets that size: `stretch`, `pad` (centered, grey around) or `crop` (its center).
    """

    name: StrictStr | None = None
    width: Side
    height: Side
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    colors: Literal["RGB", "BGR"] = "RGB"
    scale: Annotated[_Number, Field(gt=0)] = 1.0
    mean: _Triple = (0.0, 0.0, 0.0)
    std: tuple[Annotated[_Number, Field(gt=0)], Annotated[_Number, Field(gt=0)], Annotated[_Number, Field(gt=0)]] = (
        1.0,
        1.0,
        1.0,
    )
    number: Literal["float32", "uint8"] = "float32"
    fit: Literal["stretch", "pad", "crop"] = "stretch"


class _ForeignForm(Record):
    format: Literal["labelengine-foreign-model"]
    version: Literal[1]
    file: Annotated[StrictStr, Field(pattern=r"^[^/\\\x00]+\.(onnx|pt2)$")]
    labels: Annotated[tuple[StrictStr, ...], Field(min_length=1)]
    input: ForeignInput
    batch: Annotated[StrictInt, Field(ge=1, le=4096)] | None = None

    @model_validator(mode="after")
    def _named(self) -> _ForeignForm:
        check_labels(self.labels)
        return self


class _Scores(Record):
    scores: _Name
    predicted_label: _Name | None = None


class ForeignClassifierForm(_ForeignForm):
    """model.json of a classifier. activation: what makes its scores probabilities; `none`: they are."""

    type: Literal["image_classification"]
    multi_label: StrictBool = False
    outputs: _Scores
    activation: Literal["softmax", "sigmoid", "none"] = "none"

    @model_validator(mode="after")
    def _fits(self) -> ForeignClassifierForm:
        if self.multi_label and self.activation == "softmax":
            raise ValueError("activation: must be sigmoid or none where images may have several labels, got softmax")
        if self.outputs.predicted_label and (self.activation != "none" or self.multi_label):
            raise ValueError("outputs.predicted_label: its scores must be the confidences of one label an image")
        return self


class _BoxOutputs(Record):
    detection_boxes: _Name
    detection_scores: _Name
    detection_classes: _Name | None = None


class ForeignDetectorForm(_ForeignForm):
    """model.json of a detector.

    boxes: order of their numbers, as documented y_min, x_min, y_max, x_max. unit: `pixels` of the input, or `share` of
    its sides. first_class: number of the first label. activation: what makes scores confidences. iou: overlap from
    which on the less sure of two boxes of a class is dropped; left out: the graph has done so. score_threshold:
    confidence from which on a box is given.
    """

    type: Literal["object_detection"]
    outputs: _BoxOutputs
    boxes: Literal["yxyx", "xyxy", "cxcywh"] = "yxyx"
    unit: Literal["pixels", "share"] = "pixels"
    first_class: Annotated[StrictInt, Field(ge=0)] = 0
    activation: Literal["sigmoid", "none"] = "none"
    iou: Annotated[StrictFloat, Field(gt=0, lt=1)] | None = None
    score_threshold: _Unit = 0.5

    @model_validator(mode="after")
    def _fits(self) -> ForeignDetectorForm:
        if self.input.fit == "crop":
            raise ValueError("input.fit: must be stretch or pad, for objects lie outside a crop, too")
        return self


ForeignForm: TypeAlias = ForeignClassifierForm | ForeignDetectorForm


# ---- Reading. ----


def is_foreign(folder: Path) -> bool:
    """Whether the model.json of a folder tells of a model from elsewhere. Raises InputError when there is none."""
    return read_json(folder).get("format") == FOREIGN_FORMAT


def read_foreign_form(folder: Path) -> ForeignForm:
    """What the model.json of a model from elsewhere says. Raises InputError."""
    place, record = folder / MODEL_NAME, read_json(folder)
    if record.get("format") != FOREIGN_FORMAT:
        raise InputError(f"{place}: format must be {FOREIGN_FORMAT!r}, got {clipped(record.get('format'))}")
    forms: dict[object, type[ForeignForm]] = {
        "image_classification": ForeignClassifierForm,
        "object_detection": ForeignDetectorForm,
    }
    kind = record.get("type")
    form = forms.get(kind) if isinstance(kind, str) else None
    if form is None:
        raise InputError(f"{place}: type must be {' or '.join(map(str, forms))}, got {clipped(kind)}")
    try:
        read = form.model_validate(record)
    except ValidationError as error:
        raise InputError(f"{place}: {first_problem(error)}") from None
    file_of(folder, read.file)
    return read


def foreign_digest(folder: Path, form: ForeignForm) -> str:
    """64 hexadecimal digits of what a foreign model says, and of its file."""
    digest = hashlib.sha256(form.model_dump_json().encode("utf-8", "surrogatepass"))
    for name in foreign_files(folder, form):
        with (folder / name).open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


def foreign_files(folder: Path, form: ForeignForm) -> tuple[str, ...]:
    """The names of the files beside model.json: the graph, and the weights that an ONNX graph keeps outside."""
    beside = form.file + ".data"
    return (form.file, beside) if (folder / beside).is_file() else (form.file,)
