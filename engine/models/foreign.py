"""Models from elsewhere: an ONNX graph or a torch.export program, and a model.json that says what goes in and out.

    {"format": "labelengine-foreign-model", "version": 1, "type": "image_classification", "file": "model.onnx",
     "labels": ["cat", "dog"], "input": {"width": 224, "height": 224, "mean": [0.485, 0.456, 0.406],
     "std": [0.229, 0.224, 0.225]}, "outputs": {"scores": "logits"}, "activation": "softmax"}

Outputs have the names of the documented answers: `scores` (B, k), or (B,) beside `predicted_label` (B,); of a detector
`detection_boxes` (B, m, 4), `detection_scores` (B, m) and `detection_classes` (B, m), or scores (B, m, k) alone. Beside
each stands the name that the graph has for it; of a .pt2 program its key, or its place: "0", "1".

An ONNX graph is data. A .pt2 file is read by torch.export, which may run what a file tells it to: load only those
that you trust.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Protocol, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from pydantic import Field, StrictBool, StrictFloat, StrictInt, StrictStr, ValidationError, model_validator
from torch import Tensor

from engine.detect.overlaps import batched_nms
from engine.errors import InputError, MissingExtraError
from engine.images import Pixels
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
from engine.predictions import Boxes, Predictions

FOREIGN_FORMAT: Final = "labelengine-foreign-model"
ONNX: Final = ".onnx"
EXPORTED: Final = ".pt2"

#: Images that a graph with an open batch is asked about at once.
_BATCH: Final = 16
#: What is left free around an image that is padded.
_GREY: Final = 114
#: How far probabilities of a graph may be off.
_SLACK: Final = 1e-2

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


class _Graph(Protocol):
    """A graph on a device. place: its file."""

    @property
    def place(self) -> Path: ...

    def run(self, batch: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]: ...


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


def load_foreign(folder: Path, *, device: torch.device | None = None) -> ForeignClassifier | ForeignDetector:
    """The model, asked once about grey images. Raises InputError when it is not what its model.json says,
    MissingExtraError for an ONNX graph without onnxruntime."""
    form = read_foreign_form(folder)
    path = folder / form.file
    graph = _onnx_graph(path, form, device) if path.suffix == ONNX else _exported_graph(path, device)
    asked = 1 if form.batch else 2  # a graph of one image at a time must say so
    if isinstance(form, ForeignClassifierForm):
        classifier = ForeignClassifier(form, graph)
        classifier.probabilities(torch.full((asked, 3, form.input.height, form.input.width), 128, dtype=torch.uint8))
        return classifier
    detector = ForeignDetector(form, graph)
    detector.predict(torch.full((asked, 3, form.input.height, form.input.width), 0.5))
    return detector


@dataclass(frozen=True, slots=True)
class _OnnxGraph:
    place: Path
    session: Any
    input: str
    outputs: tuple[str, ...]

    def run(self, batch: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
        try:
            found = self.session.run(None, {self.input: batch})
        except Exception as error:  # onnxruntime has a dozen of them, none of them public
            raise _refused(self.place, batch, error) from None
        return {name: np.asarray(value) for name, value in zip(self.outputs, found, strict=True)}


def _onnx_graph(path: Path, form: ForeignForm, device: torch.device | None) -> _OnnxGraph:
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtraError(f"{path}: needs onnxruntime: pip install labelengine[onnx]") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors only: it writes to stderr by itself
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # threads that wait leave the cores alone
    there = onnxruntime.get_available_providers()
    wanted = ["CUDAExecutionProvider"] if device is not None and device.type == "cuda" else []
    providers = [*(name for name in wanted if name in there), "CPUExecutionProvider"]
    try:
        session = onnxruntime.InferenceSession(os.fspath(path), options, providers=providers)
    except Exception as error:
        raise InputError(f"{path}: must be an ONNX graph, cannot be read: {_first_line(error)}") from None
    inputs = [each.name for each in session.get_inputs()]
    name = form.input.name or (inputs[0] if len(inputs) == 1 else "")
    if name not in inputs:
        raise InputError(f"{path}: input.name must be one of {', '.join(inputs)}, got {name!r}")
    return _OnnxGraph(path, session, name, tuple(each.name for each in session.get_outputs()))


@dataclass(frozen=True, slots=True)
class _ExportedGraph:
    place: Path
    module: Any
    device: torch.device

    def run(self, batch: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
        try:
            with torch.no_grad():
                found = self.module(torch.from_numpy(batch).to(self.device))
        except Exception as error:
            raise _refused(self.place, batch, error) from None
        if isinstance(found, Tensor):
            found = (found,)
        named = found if isinstance(found, Mapping) else {str(at): each for at, each in enumerate(found)}
        return {str(name): each.detach().cpu().numpy() for name, each in named.items() if isinstance(each, Tensor)}


def _exported_graph(path: Path, device: torch.device | None) -> _ExportedGraph:
    on = device or torch.device("cpu")
    try:
        program = torch.export.load(os.fspath(path))
        if on.type != "cpu":
            from torch.export.passes import move_to_device_pass

            program = move_to_device_pass(program, str(on))
        module = program.module()
    except Exception as error:
        raise InputError(f"{path}: must be a torch.export program, cannot be read: {_first_line(error)}") from None
    return _ExportedGraph(path, module, on)


def _first_line(error: BaseException) -> str:
    return clipped((str(error).splitlines() or [type(error).__name__])[0])


def _refused(place: Path, batch: npt.NDArray[Any], error: BaseException) -> InputError:
    fixed = "; a graph that takes a fixed number of images needs `batch` in model.json" if len(batch) > 1 else ""
    return InputError(f"{place}: does not run on {batch.shape} {batch.dtype}: {_first_line(error)}{fixed}")


# ---- What goes in. ----


@dataclass(frozen=True, slots=True)
class Placed:
    """Where an image lies on what the graph sees: x' = x * scale_x + left, y' = y * scale_y + top."""

    scale_x: float
    scale_y: float
    left: float
    top: float


def placed(given: ForeignInput, width: int, height: int) -> Placed:
    """The place of an image of width x height pixels."""
    x, y = given.width / width, given.height / height
    if given.fit == "stretch":
        return Placed(x, y, 0.0, 0.0)
    if given.fit == "crop":
        scale = max(x, y)
        return Placed(scale, scale, (given.width - scale * width) / 2, (given.height - scale * height) / 2)
    wide, tall = (max(1, round(min(x, y) * side)) for side in (width, height))
    return Placed(wide / width, tall / height, (given.width - wide) // 2, (given.height - tall) // 2)


def fitted(given: ForeignInput, rgb: Pixels, place: Placed, width: int, height: int) -> Pixels:
    """(h, w, 3) uint8, perhaps decoded smaller than width x height -> what the graph sees, (height, width, 3)."""
    if given.fit == "crop":
        return _resized(_middle(given, rgb, place, width, height), given.width, given.height)
    wide, tall = round(place.scale_x * width), round(place.scale_y * height)
    image = _resized(rgb, wide, tall)
    if (tall, wide) == (given.height, given.width):
        return image
    canvas = np.full((given.height, given.width, 3), _GREY, np.uint8)
    left, top = round(place.left), round(place.top)
    canvas[top : top + tall, left : left + wide] = image
    return canvas


def _middle(given: ForeignInput, rgb: Pixels, place: Placed, width: int, height: int) -> Pixels:
    """The part of an image that a crop sees, before it is resized: an image of any shape needs no more room."""
    sides = ((rgb.shape[1], width, given.width / place.scale_x), (rgb.shape[0], height, given.height / place.scale_y))
    (left, right), (top, bottom) = (
        (round((whole - part) / 2 / whole * there), round((whole + part) / 2 / whole * there))
        for there, whole, part in sides
    )
    return rgb[top : max(bottom, top + 1), left : max(right, left + 1)]


def _resized(rgb: Pixels, width: int, height: int) -> Pixels:
    shrinks = width * height < rgb.shape[0] * rgb.shape[1]
    return np.asarray(
        cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR), np.uint8
    )


def _batch_of(given: ForeignInput, images: Tensor) -> npt.NDArray[Any]:
    """(B, 3, height, width) float RGB in [0, 1] -> what the graph takes."""
    x = images.flip(1) if given.colors == "BGR" else images
    shape = (1, 3, 1, 1)
    x = (x * given.scale - torch.tensor(given.mean).view(shape)) / torch.tensor(given.std).view(shape)
    x = x if given.layout == "NCHW" else x.permute(0, 2, 3, 1)
    array: npt.NDArray[np.float32] = x.contiguous().numpy()
    return np.clip(np.rint(array), 0, 255).astype(np.uint8) if given.number == "uint8" else array


def _asked(graph: _Graph, form: ForeignForm, images: Tensor) -> list[tuple[dict[str, npt.NDArray[Any]], int]]:
    """What the graph says, batch by batch, with the number of images of each: a fixed batch is filled up with the last
    one."""
    size = form.batch or _BATCH
    found = []
    for batch in torch.split(images, size) if len(images) else ():
        count = len(batch)
        if form.batch and count < form.batch:
            batch = torch.cat([batch, batch[-1:].expand(form.batch - count, -1, -1, -1)])
        found.append((graph.run(_batch_of(form.input, batch.cpu().float())), count))
    return found


def _output(graph: _Graph, said: Mapping[str, npt.NDArray[Any]], name: str) -> Tensor:
    if name not in said:
        raise InputError(f"{graph.place}: must have an output {name!r}, got {', '.join(map(repr, said))}")
    array = np.ascontiguousarray(said[name])
    if array.dtype.kind not in "fiub":
        raise InputError(f"{graph.place}: {name} must be numbers, got {array.dtype}")
    values = torch.from_numpy(array.astype(np.float64))
    if not bool(values.isfinite().all()):
        raise InputError(f"{graph.place}: {name} must be finite, got NaN or infinity")
    return values


# ---- What comes out. ----


@dataclass(frozen=True, slots=True)
class ForeignClassifier:
    """A classifier from elsewhere: a `Predictor`, asked as our own `Classifier` is. It has no networks of ours."""

    form: ForeignClassifierForm
    graph: _Graph

    @property
    def labels(self) -> tuple[str, ...]:
        return self.form.labels

    @property
    def multi_label(self) -> bool:
        return self.form.multi_label

    @property
    def image_size(self) -> int:
        return max(self.form.input.width, self.form.input.height)

    @property
    def committee(self) -> None:
        return None

    def probabilities(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 of any size, stretched to what the graph takes -> (B, k) float32."""
        given = self.form.input
        x = images.float()
        if x.shape[2:] != (given.height, given.width):
            x = F.interpolate(x, (given.height, given.width), mode="bilinear", antialias=True, align_corners=False)
        x = x.div(255).clamp(0, 1)
        parts = [self._probabilities(said, count) for said, count in _asked(self.graph, self.form, x)]
        return torch.cat([torch.zeros(0, len(self.labels)), *parts])

    def predict(self, images: Tensor) -> Predictions:
        """(B, 3, H, W) float RGB in [0, 1], of any size -> probabilities (B, k). Raises InputError."""
        if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
            raise InputError(f"images: must be (B, 3, H, W) float, got {tuple(images.shape)} {images.dtype}")
        return Predictions(self.labels, probabilities=self.probabilities((images.clamp(0, 1) * 255).round().byte()))

    def _probabilities(self, said: Mapping[str, npt.NDArray[Any]], count: int) -> Tensor:
        k, names, place = len(self.labels), self.form.outputs, self.graph.place
        scores = _output(self.graph, said, names.scores)
        if names.predicted_label is not None:
            best = _output(self.graph, said, names.predicted_label).reshape(-1)[:count].long()
            sure = scores.reshape(-1)[:count]
            if len(best) < count or len(sure) < count or int(best.min()) < 0 or int(best.max()) >= k:
                raise InputError(f"{place}: {names.predicted_label} must be numbers of {k} labels, one an image")
            _check_unit(place, names.scores, sure)
            sure = sure.clamp(0, 1)
            rest = torch.minimum((1 - sure) / max(1, k - 1), sure)  # no other label is likelier than the one it names
            return rest[:, None].expand(-1, k).scatter(1, best[:, None], sure[:, None]).float()
        if scores.ndim < 2 or scores.shape[0] < count or scores[0].numel() != k:
            raise InputError(f"{place}: {names.scores} must be (B, {k}), a number a label, got {tuple(scores.shape)}")
        scores = scores.reshape(len(scores), k)[:count]
        if self.form.activation == "softmax":
            return scores.softmax(dim=1).float()
        if self.form.activation == "sigmoid":
            scores = scores.sigmoid()
        _check_unit(place, names.scores, scores)
        if not self.multi_label:
            sums = scores.sum(dim=1, keepdim=True)
            if self.form.activation == "none" and bool(((sums - 1).abs() > _SLACK).any()):
                got = float(sums[(sums - 1).abs().argmax()])
                raise InputError(
                    f"{place}: {names.scores} must sum to 1 for each image, got {got:.4g}; does model.json lack an "
                    "activation?"
                )
            scores = scores / sums.clamp(min=1e-12)
        return scores.clamp(0, 1).float()


@dataclass(frozen=True, slots=True)
class ForeignDetector:
    """A detector from elsewhere: a `Predictor` of boxes."""

    form: ForeignDetectorForm
    graph: _Graph

    @property
    def labels(self) -> tuple[str, ...]:
        return self.form.labels

    @property
    def thresholds(self) -> tuple[float, ...]:
        return (self.form.score_threshold,) * len(self.labels)

    @property
    def side(self) -> int:
        """The longer side of what it sees of an image, in pixels."""
        return max(self.form.input.height, self.form.input.width)

    def predict(self, images: Tensor) -> Predictions:
        """(B, 3, H, W) float RGB in [0, 1], of any size -> boxes in pixels of the images, surest first. Raises
        InputError."""
        if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
            raise InputError(f"images: must be (B, 3, H, W) float, got {tuple(images.shape)} {images.dtype}")
        height, width = images.shape[2:]
        pixels = (images.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        place = placed(self.form.input, width, height)
        seen = np.stack([fitted(self.form.input, each, place, width, height) for each in pixels])
        found = self.boxes(seen, [place] * len(seen), [(width, height)] * len(seen))
        return Predictions(self.labels, boxes=tuple(found))

    def boxes(self, seen: Pixels, places: list[Placed], sizes: list[tuple[int, int]]) -> list[Boxes]:
        """seen: (B, height, width, 3) uint8, as `fitted` makes it. -> boxes in pixels of images of these sizes."""
        x = torch.from_numpy(seen).permute(0, 3, 1, 2).float().div(255)
        found: list[Boxes] = []
        for said, count in _asked(self.graph, self.form, x):
            xyxy, scores, classes = self._boxes(said, count)
            for at in range(count):
                place, size = places[len(found)], sizes[len(found)]
                found.append(self._one(xyxy[at], scores[at], classes[at], place, size))
        return found

    def _boxes(self, said: Mapping[str, npt.NDArray[Any]], count: int) -> tuple[Tensor, Tensor, Tensor]:
        """(B, m, 4) in pixels of what the graph sees, (B, m) confidences, (B, m) classes; -1: none of the labels."""
        names, place, k = self.form.outputs, self.graph.place, len(self.labels)
        boxes = _output(self.graph, said, names.detection_boxes)
        scores = _output(self.graph, said, names.detection_scores)
        boxes = boxes[None] if boxes.ndim == 2 else boxes
        if boxes.ndim != 3 or boxes.shape[2] != 4 or boxes.shape[0] < count:
            raise InputError(f"{place}: {names.detection_boxes} must be (B, m, 4), got {tuple(boxes.shape)}")
        b, m = boxes.shape[:2]
        scores = scores.sigmoid() if self.form.activation == "sigmoid" else scores
        if names.detection_classes is None:
            if scores.numel() != b * m * k:
                raise InputError(f"{place}: {names.detection_scores} must be (B, m, {k}), got {tuple(scores.shape)}")
            scores, classes = scores.reshape(b, m, k).max(dim=2)
        else:
            classes = _output(self.graph, said, names.detection_classes)
            if scores.numel() != b * m or classes.numel() != b * m:
                got = f"{tuple(scores.shape)} and {tuple(classes.shape)}"
                raise InputError(f"{place}: scores and classes must be a number a box, ({b}, {m}), got {got}")
            scores, classes = scores.reshape(b, m), classes.reshape(b, m).round().long() - self.form.first_class
            classes = torch.where((classes >= 0) & (classes < k), classes, -1)
        _check_unit(place, names.detection_scores, scores[scores > 0])
        width, height = self.form.input.width, self.form.input.height
        if self.form.unit == "share":
            along_x = boxes.new_tensor([width, height, width, height])
            along_y = boxes.new_tensor([height, width, height, width])
            boxes = boxes * (along_y if self.form.boxes == "yxyx" else along_x)
        if self.form.boxes == "yxyx":
            boxes = boxes[..., [1, 0, 3, 2]]
        elif self.form.boxes == "cxcywh":
            boxes = torch.cat([boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2], dim=-1)
        return boxes, scores, classes

    def _one(self, xyxy: Tensor, scores: Tensor, classes: Tensor, place: Placed, size: tuple[int, int]) -> Boxes:
        """What is a box of a label inside the image, surest first."""
        width, height = size
        shift = xyxy.new_tensor([place.left, place.top] * 2)
        xyxy = (xyxy - shift) / xyxy.new_tensor([place.scale_x, place.scale_y] * 2)
        xyxy = torch.minimum(xyxy.clamp(min=0), xyxy.new_tensor([width, height] * 2))
        real = (scores > 0) & (classes >= 0) & (xyxy[:, 2] > xyxy[:, 0]) & (xyxy[:, 3] > xyxy[:, 1])
        xyxy, scores, classes = xyxy[real], scores[real].clamp(max=1), classes[real]
        if self.form.iou is not None:
            kept = batched_nms(xyxy, scores, classes, self.form.iou)
        else:
            kept = scores.argsort(descending=True, stable=True)
        return Boxes(xyxy[kept].float(), scores[kept].float(), classes[kept])


def _check_unit(place: Path, name: str, values: Tensor) -> None:
    low, high = (float(values.min()), float(values.max())) if values.numel() else (0.0, 0.0)
    if not (math.isfinite(low) and low >= -_SLACK and high <= 1 + _SLACK):
        raise InputError(
            f"{place}: {name} must be in [0, 1], got {low:.4g} to {high:.4g}; does model.json lack an activation?"
        )
