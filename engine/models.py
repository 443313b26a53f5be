"""A trained model on disk: a folder that holds everything and is loaded without running anything from it.

    weights.safetensors   every tensor; its bytes depend on the tensors alone
    model.json            what they are: type, labels, sizes, encoder, networks, calibration; how good it was, when and
                          from what it was trained; the SHA-256 of weights.safetensors

There are two types: `image_classification`, a `Classifier`, and `object_detection`, a `BoxDetector`. model.json is
written last: a folder without it is no model. A model may come from anywhere: names in it choose among forms that are
known here, sizes must be those of the tensors, and no path in it is followed. Knows nothing of training or of tasks.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from stat import S_ISREG
from typing import Annotated, Any, Final, Literal, TypeAlias

import orjson
import safetensors.torch
import torch
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    ValidationError,
    model_validator,
)
from safetensors import SafetensorError
from torch import Tensor

from engine.detect.canvases import Canvas
from engine.detect.detector import BoxDetector, Calibration
from engine.detect.network import CELL, Detector, DetectorSpec
from engine.embeddings import Backbone, Embedding, Encoder, Gradients, Whitening, backbone
from engine.errors import InputError, UsageError
from engine.files import write_bytes
from engine.label.classifier import Classifier, Committee, LinearHead
from engine.label.networks import Network, NetworkSpec
from engine.outfolder import OutFolder

WEIGHTS_NAME: Final = "weights.safetensors"
MODEL_NAME: Final = "model.json"

_FORMAT: Final = "labelengine-model"
#: Raise it when a model.json of before would be misread.
_VERSION: Final = 1
#: A larger model.json is no description: 10,000 labels of 200 characters are 2 MB.
_MOST_JSON: Final = 16 * 2**20
#: CPUs of these kinds compute in bfloat16; on others it is there, at a third of the speed of float32.
_BFLOAT16_CPUS: Final = ("AVX512", "SVE")
_BFLOAT16_CUDA: Final = 8  # compute capability: Ampere
#: Types of the tensors of a model: numbers, and counts and positions.
_TYPES: Final = (torch.float32, torch.int64)
#: Ends the name of a matrix that lies in memory column by column, and is kept so: a product rounds by that order.
_COLUMNS: Final = ".T"


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What a model is, without its tensors.

    id: 64 hexadecimal digits of its content, `model_digest`. type: `image_classification` or `object_detection`.
    input_size: width and height of what it sees, in pixels. encoder: of the closed-form head; None without one.
    networks: how many. calibration: of a classifier temperature_of_networks, temperature_of_head, share_of_networks in
    [0, 1]; of a detector the threshold of each label. metrics: how good it was and what was chosen, JSON values.
    training_digest: of what it learned from. path: the folder. bytes: of both files.
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


@dataclass(frozen=True, slots=True)
class Models:
    """The models below a folder, by path, and a line for each model.json that is none."""

    found: tuple[ModelInfo, ...]
    broken: tuple[str, ...]


def save_model(
    out: OutFolder,
    model: Classifier | BoxDetector,
    *,
    folder: str = "model",
    metrics: Mapping[str, Any],
    training_digest: str,
    created: datetime,
) -> None:
    """Write a model into `folder` of `out`, whole or not at all. The same model gives the same weights and id.

    metrics: JSON values. Raises InputError for a model that could not be loaded again (NaN, an encoder of another
    kind), OutputError when it cannot be written.
    """
    form, tensors = _apart(model)
    weights = safetensors.torch.save(tensors)
    document = {
        "format": _FORMAT,
        "version": _VERSION,
        **form.model_dump(),
        "weights": {"sha256": hashlib.sha256(weights).hexdigest(), "bytes": len(weights)},
        "metrics": dict(metrics),
        "training_digest": training_digest,
        "created": created.isoformat(timespec="seconds"),
        "code_version": _code_version(),
    }
    write_bytes(out.target(f"{folder}/{WEIGHTS_NAME}"), weights)
    write_bytes(out.target(f"{folder}/{MODEL_NAME}"), _as_json(document))


def load_model(folder: Path, *, device: torch.device | None = None) -> Classifier:
    """The classifier that `save_model` wrote, a `Predictor`, on a device (the CPU by default).

    Its probabilities are the same to the bit on the same machine. A model that computes in bfloat16 does so in float32
    where the device is not made for it. Raises InputError when anything is missing, altered or does not fit.
    """
    document = _read_document(folder)
    if not isinstance(document, _Document):
        raise InputError(f"{folder}: must be a model of image_classification, got one of {document.type}")
    return _put_together(document, _tensors_of(folder, document.weights), device or torch.device("cpu"))


def load_detector(folder: Path, *, device: torch.device | None = None) -> BoxDetector:
    """The detector that `save_model` wrote, as `load_model` does for a classifier."""
    document = _read_document(folder)
    if not isinstance(document, _BoxDocument):
        raise InputError(f"{folder}: must be a model of object_detection, got one of {document.type}")
    return _detector_together(document, _tensors_of(folder, document.weights), device or torch.device("cpu"))


def _tensors_of(folder: Path, weights: _WeightsRecord) -> _Tensors:
    """The tensors of a folder. Raises InputError unless they are those that model.json tells of."""
    place, content = folder / WEIGHTS_NAME, _read(folder, WEIGHTS_NAME)
    digest = hashlib.sha256(content).hexdigest()
    if digest != weights.sha256:
        raise InputError(f"{place}: must have the SHA-256 {weights.sha256} of {MODEL_NAME}, got {digest}")
    return _Tensors.read(place, content)


def read_model_info(folder: Path) -> ModelInfo:
    """What a folder's model is. Weights are there and of the right size, but not read.

    Raises InputError when the folder holds no model.
    """
    document = _read_document(folder)
    form, weights = document.form, document.weights
    place, size = _file(folder, WEIGHTS_NAME)
    if size != weights.bytes:
        raise InputError(f"{place}: must have {weights.bytes:,} bytes, got {size:,}")
    return ModelInfo(
        id=_id_of(form, weights.sha256),
        type=form.type,
        labels=form.labels,
        multi_label=isinstance(form, _BoxForm) or form.multi_label,
        input_size=form.input_size,
        encoder=form.encoder.shown if isinstance(form, _Form) and form.encoder else None,
        networks=form.networks.count if form.networks else 0,
        calibration=form.trust,
        metrics=document.metrics,
        training_digest=document.training_digest,
        created=document.created,
        code_version=document.code_version,
        path=folder,
        bytes=weights.bytes + _file(folder, MODEL_NAME)[1],
    )


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


def model_digest(model: Classifier | BoxDetector) -> str:
    """64 hexadecimal digits of every tensor and setting of a model: what it says depends on nothing else.

    The precision of networks is a setting: where timing chose it, two trainings may differ in that alone.
    """
    form, tensors = _apart(model)
    return _id_of(form, hashlib.sha256(safetensors.torch.save(tensors)).hexdigest())


# ---- model.json ----

_Side: TypeAlias = Annotated[StrictInt, Field(ge=1, le=4096)]
_Count: TypeAlias = Annotated[StrictInt, Field(ge=1)]
_Temperature: TypeAlias = Annotated[StrictFloat, Field(gt=0, allow_inf_nan=False)]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _GradientsForm(_Record):
    kind: Literal["gradients"] = "gradients"
    size: Annotated[StrictInt, Field(ge=16, le=1024, multiple_of=8)]

    @property
    def shown(self) -> str:
        return Gradients().name


class _BackboneForm(_Record):
    kind: Literal["backbone"] = "backbone"
    name: StrictStr
    size: _Side

    @property
    def shown(self) -> str:
        return self.name


class _EmbeddingForm(_Record):
    """Whitened; images: how many it was fitted on."""

    kind: Literal["embedding"] = "embedding"
    encoder: Annotated[_GradientsForm | _BackboneForm, Field(discriminator="kind")]
    images: _Count

    @property
    def shown(self) -> str:
        return self.encoder.shown


_EncoderForm: TypeAlias = _GradientsForm | _BackboneForm | _EmbeddingForm


class _NetworksForm(_Record):
    count: _Count
    image_size: _Side
    widths: Annotated[tuple[_Count, ...], Field(min_length=1)]
    flips: tuple[StrictBool, StrictBool]
    bfloat16: StrictBool


class _Calibration(_Record):
    temperature_of_networks: _Temperature | None
    temperature_of_head: _Temperature | None
    share_of_networks: Annotated[StrictFloat, Field(ge=0, le=1)]


class _Form(_Record):
    """A classifier without its tensors; its fields are the first ones of model.json."""

    type: Literal["image_classification"] = "image_classification"
    labels: Annotated[tuple[StrictStr, ...], Field(min_length=1)]
    multi_label: StrictBool
    image_size: _Side
    encoder: Annotated[_EncoderForm, Field(discriminator="kind")] | None
    networks: _NetworksForm | None
    calibration: _Calibration

    @property
    def input_size(self) -> tuple[int, int]:
        return self.image_size, self.image_size

    @property
    def trust(self) -> dict[str, float]:
        return self.calibration.model_dump(exclude_none=True)

    @model_validator(mode="after")
    def _fits(self) -> _Form:
        _check_labels(self.labels)
        if self.networks is None and self.encoder is None:
            raise ValueError("networks, encoder: must not both be null")
        asked, calibration = self.networks, self.calibration
        if (asked is None) != (calibration.temperature_of_networks is None):
            raise ValueError("calibration.temperature_of_networks: must be there exactly when there are networks")
        if (self.encoder is None) != (calibration.temperature_of_head is None):
            raise ValueError("calibration.temperature_of_head: must be there exactly when there is an encoder")
        share, only = calibration.share_of_networks, 0.0 if asked is None else 1.0
        if (asked is None or self.encoder is None) and share != only:
            raise ValueError(f"calibration.share_of_networks: must be {only:g}, there is nothing to mix, got {share}")
        return self


def _check_labels(labels: tuple[str, ...]) -> None:
    if len(set(labels)) < len(labels) or "" in labels:
        raise ValueError("labels: must be different from each other, and none empty")


_Numbers: TypeAlias = Annotated[tuple[Annotated[StrictFloat, Field(allow_inf_nan=False)], ...], Field(min_length=1)]
_CanvasSide: TypeAlias = Annotated[StrictInt, Field(ge=CELL, le=8192, multiple_of=CELL)]


class _DetectorsForm(_Record):
    count: _Count
    widths: tuple[_Count, _Count, _Count, _Count]
    neck: _Count
    reach: Annotated[StrictFloat, Field(gt=0, allow_inf_nan=False)]
    flips: tuple[StrictBool, StrictBool]
    bfloat16: StrictBool


class _BoxForm(_Record):
    """A detector without its tensors. offset, of_center, of_fit, thresholds: a number for each label."""

    type: Literal["object_detection"] = "object_detection"
    labels: Annotated[tuple[StrictStr, ...], Field(min_length=1)]
    width: _CanvasSide
    height: _CanvasSide
    networks: _DetectorsForm
    offset: _Numbers
    of_center: _Numbers
    of_fit: _Numbers
    thresholds: _Numbers

    @property
    def input_size(self) -> tuple[int, int]:
        return self.width, self.height

    @property
    def trust(self) -> dict[str, float]:
        return dict(zip(self.labels, self.thresholds, strict=True))

    @model_validator(mode="after")
    def _fits(self) -> _BoxForm:
        _check_labels(self.labels)
        for name in ("offset", "of_center", "of_fit", "thresholds"):
            if len(getattr(self, name)) != len(self.labels):
                raise ValueError(f"{name}: must have {len(self.labels)} numbers, got {len(getattr(self, name))}")
        return self


class _WeightsRecord(_Record):
    sha256: Annotated[StrictStr, Field(pattern="^[0-9a-f]{64}$")]
    bytes: _Count


class _About(_Record):
    """What model.json says beside the form."""

    format: Literal["labelengine-model"]
    version: Literal[1]
    weights: _WeightsRecord
    metrics: dict[str, Any]
    training_digest: StrictStr
    created: datetime
    code_version: StrictStr


class _BoxDocument(_About, _BoxForm):
    @property
    def form(self) -> _BoxForm:
        return _BoxForm(**{name: getattr(self, name) for name in _BoxForm.model_fields})


class _Document(_About, _Form):
    @property
    def form(self) -> _Form:
        return _Form(**{name: getattr(self, name) for name in _Form.model_fields})


def _read_document(folder: Path) -> _Document | _BoxDocument:
    place, content = folder / MODEL_NAME, _read(folder, MODEL_NAME, most=_MOST_JSON)
    try:
        # Not orjson: a label may hold half a surrogate pair, how Python spells what is not UTF-8. NaN is no number.
        record = json.loads(content, parse_constant=lambda _: None)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{place}: must be JSON, got what is not: {error}") from None
    if not isinstance(record, dict) or record.get("format") != _FORMAT:
        raise InputError(f"{place}: must be a JSON object whose format is {_FORMAT!r}; this is another program's file")
    if record.get("version") != _VERSION or isinstance(record["version"], bool):
        got = _clip(record.get("version"))
        raise InputError(f"{place}: version must be {_VERSION}, all that this program knows, got {got}")
    try:
        boxes = record.get("type") == _BoxForm.model_fields["type"].default
        return _BoxDocument.model_validate(record) if boxes else _Document.model_validate(record)
    except ValidationError as error:
        raise InputError(f"{place}: {_problem(error)}") from None


def _problem(error: ValidationError) -> str:
    """The first problem, in one line."""
    problem = error.errors(include_url=False)[0]
    told = problem["msg"].removeprefix("Value error, ").replace("Input should", "must").replace("tuple", "list")
    where = ".".join(map(str, problem["loc"]))
    return f"{where}: {told}, got {_clip(problem['input'])}" if where else told


def _clip(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


def _as_json(document: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    except orjson.JSONEncodeError:  # half a surrogate pair
        return json.dumps(document, indent=2).encode() + b"\n"


def _id_of(form: _Form | _BoxForm, weights_sha256: str) -> str:
    settings = json.dumps([form.model_dump(), weights_sha256], sort_keys=True)
    return hashlib.sha256(settings.encode()).hexdigest()


def _code_version() -> str:
    try:
        return version("labelengine")
    except PackageNotFoundError:
        return "(not installed)"


# ---- Files. ----


def _read(folder: Path, name: str, *, most: int | None = None) -> bytes:
    place, size = _file(folder, name)
    if most is not None and size > most:
        raise InputError(f"{place}: must have at most {most:,} bytes, got {size:,}")
    try:
        return place.read_bytes()
    except OSError as error:
        raise InputError(f"{place}: cannot be read: {error.strerror or error}") from error


def _file(folder: Path, name: str) -> tuple[Path, int]:
    """The path and the bytes of a regular file of that name that lies in the folder. Raises InputError."""
    place = folder / name
    try:
        status = os.stat(place)
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{place}: must be a file of a model, got nothing there") from None
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        raise InputError(f"{place}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not S_ISREG(status.st_mode):
        raise InputError(f"{place}: must be a file of a model, got something that is not a regular file")
    if os.path.dirname(os.path.realpath(place)) != os.path.realpath(folder):
        raise InputError(f"{place}: must lie in the folder itself, got a link that leads out of it")
    return place, status.st_size


# ---- A detector and its parts. ----


def _apart(model: Classifier | BoxDetector) -> tuple[_Form | _BoxForm, dict[str, Tensor]]:
    """The settings, and the tensors by name, on the CPU. Raises InputError for what could not be loaded again."""
    return _detector_apart(model) if isinstance(model, BoxDetector) else _taken_apart(model)


def _detector_apart(detector: BoxDetector) -> tuple[_BoxForm, dict[str, Tensor]]:
    spec = detector.networks[0].spec
    tensors: dict[str, Tensor] = {}
    for at, net in enumerate(detector.networks):
        assert net.spec == spec
        tensors.update({f"networks.{at}.{name}": tensor for name, tensor in net.state_dict().items()})
    trust = detector.calibration
    try:
        form = _BoxForm(
            labels=detector.labels,
            width=detector.canvas.width,
            height=detector.canvas.height,
            networks=_DetectorsForm(
                count=len(detector.networks),
                widths=spec.widths,
                neck=spec.neck,
                reach=spec.reach,
                flips=detector.flips,
                bfloat16=detector.bfloat16,
            ),
            offset=tuple(trust.offset.tolist()),
            of_center=tuple(trust.of_center.tolist()),
            of_fit=tuple(trust.of_fit.tolist()),
            thresholds=detector.thresholds,
        )
    except ValidationError as error:
        raise InputError(f"detector: {_problem(error)}") from None
    _check_tensors("detector", tensors)
    return form, dict(_stored(name, tensor) for name, tensor in tensors.items())


def _detector_together(document: _BoxDocument, tensors: _Tensors, device: torch.device) -> BoxDetector:
    form = document.networks
    widths = (*form.widths, form.neck)
    _check_room(tensors, form.count, sum(9 * width * width for width in widths), f"networks of widths {widths}")
    spec = DetectorSpec(form.widths, form.neck, len(document.labels), form.reach)
    networks = []
    for at in range(form.count):
        net = Detector(spec)
        net.load_state_dict(tensors.take(f"networks.{at}.", net.state_dict()))
        net.requires_grad_(False)
        networks.append(net.eval().to(device).to(memory_format=torch.channels_last))
    tensors.end()
    numbers = (
        torch.tensor(each, dtype=torch.float64) for each in (document.offset, document.of_center, document.of_fit)
    )
    return BoxDetector(
        document.labels,
        Canvas(document.height, document.width),
        tuple(networks),
        form.flips,
        form.bfloat16 and _computes_bfloat16(device),
        Calibration(*numbers),
        document.thresholds,
    )


def _check_room(tensors: _Tensors, count: int, numbers: int, what: str) -> None:
    """So that no form claims memory, or time, for tensors that the file does not have."""
    least = 4 * count * numbers
    if least > tensors.bytes:
        asked = f"{count:,} {what}"
        raise InputError(f"{tensors.place}: must hold {asked}, {least:,} bytes at least, got {tensors.bytes:,}")


# ---- A classifier and its parts. ----


def _taken_apart(classifier: Classifier) -> tuple[_Form, dict[str, Tensor]]:
    """The settings, and the tensors by name, on the CPU. Raises InputError for what could not be loaded again."""
    committee, head = classifier.committee, classifier.head
    tensors: dict[str, Tensor] = {}
    try:
        networks = encoder = None
        if committee is not None:
            networks, tensors = _committee_apart(committee)
            assert committee.spec.outputs == len(classifier.labels)
        if head is not None:
            encoder, of_encoder = _encoder_apart(head.encoder)
            tensors |= of_encoder
            tensors |= {"head.mean": head.mean, "head.weights": head.weights, "head.intercept": head.intercept}
        form = _Form(
            labels=classifier.labels,
            multi_label=classifier.multi_label,
            image_size=classifier.image_size,
            encoder=encoder,
            networks=networks,
            calibration=_Calibration(
                temperature_of_networks=committee.temperature if committee else None,
                temperature_of_head=head.temperature if head else None,
                share_of_networks=classifier.share,
            ),
        )
    except ValidationError as error:
        raise InputError(f"classifier: {_problem(error)}") from None
    _check_tensors("classifier", tensors)
    return form, dict(_stored(name, tensor) for name, tensor in tensors.items())


def _committee_apart(committee: Committee) -> tuple[_NetworksForm, dict[str, Tensor]]:
    spec, tensors = committee.spec, {}
    for at, net in enumerate(committee.networks):
        assert net.spec == spec
        tensors.update({f"networks.{at}.{name}": tensor for name, tensor in net.state_dict().items()})
    form = _NetworksForm(
        count=len(committee.networks),
        image_size=spec.image_size,
        widths=spec.widths,
        flips=committee.flips,
        bfloat16=committee.bfloat16,
    )
    return form, tensors


def _encoder_apart(encoder: Encoder) -> tuple[_EncoderForm, dict[str, Tensor]]:
    if isinstance(encoder, Gradients):
        return _GradientsForm(size=encoder.size), {}
    if isinstance(encoder, Backbone):
        state = {f"encoder.{name}": tensor for name, tensor in encoder.net.state_dict().items()}
        return _BackboneForm(name=encoder.name, size=encoder.size), state
    if isinstance(encoder, Embedding) and not isinstance(encoder.encoder, Embedding):
        inner, tensors = _encoder_apart(encoder.encoder)
        assert not isinstance(inner, _EmbeddingForm)
        for at, whitening in enumerate(encoder.whitenings):
            tensors |= {f"whitening.{at}.mean": whitening.mean, f"whitening.{at}.matrix": whitening.matrix}
        return _EmbeddingForm(encoder=inner, images=encoder.images), tensors
    kinds = "Gradients, a Backbone or an Embedding of one of them"
    raise InputError(f"classifier: the encoder of a model that is kept must be {kinds}, got {type(encoder).__name__}")


def _put_together(document: _Document, tensors: _Tensors, device: torch.device) -> Classifier:
    committee, head = None, None
    k, calibration = len(document.labels), document.calibration
    if document.encoder is not None:
        assert calibration.temperature_of_head is not None
        encoder = _encoder_of(document.encoder, tensors, device)
        shapes = {"mean": _like(encoder.dim), "weights": _like(encoder.dim, k), "intercept": _like(k)}
        mean, weights, intercept = (tensor.to(device) for tensor in tensors.take("head.", shapes).values())
        head = LinearHead(encoder, mean, weights, intercept, calibration.temperature_of_head)
    if document.networks is not None:
        assert calibration.temperature_of_networks is not None
        networks = _networks_of(document.networks, k, tensors, device)
        bfloat16 = document.networks.bfloat16 and _computes_bfloat16(device)
        committee = Committee(networks, calibration.temperature_of_networks, document.networks.flips, bfloat16)
    tensors.end()
    return Classifier(
        document.labels, document.multi_label, document.image_size, committee, head, calibration.share_of_networks
    )


def _networks_of(form: _NetworksForm, outputs: int, tensors: _Tensors, device: torch.device) -> tuple[Network, ...]:
    numbers = sum(9 * width * width for width in form.widths)
    _check_room(tensors, form.count, numbers, f"networks of widths {_clip(form.widths)}")
    spec = NetworkSpec(form.image_size, form.widths, outputs)
    networks = []
    for at in range(form.count):
        net = Network(spec)
        net.load_state_dict(tensors.take(f"networks.{at}.", net.state_dict()))
        net.requires_grad_(False)
        networks.append(net.eval().to(device).to(memory_format=torch.channels_last))
    return tuple(networks)


def _encoder_of(form: _EncoderForm, tensors: _Tensors, device: torch.device) -> Encoder:
    if isinstance(form, _GradientsForm):
        return Gradients(size=form.size)
    if isinstance(form, _BackboneForm):
        try:
            net = backbone(form.name, tensors.take_all("encoder."), place=tensors.place, device=device)
        except UsageError as error:
            raise InputError(f"{tensors.place.parent / MODEL_NAME}: {error}") from None
        return replace(net, size=form.size)
    encoder = _encoder_of(form.encoder, tensors, device)
    whitenings = []
    for at, part in enumerate(encoder.parts):
        wanted = {"mean": _like(part.columns), "matrix": _like(part.columns, part.keep)}
        taken = tensors.take(f"whitening.{at}.", wanted)
        whitenings.append(Whitening(taken["mean"].to(device), taken["matrix"].to(device)))
    return Embedding(encoder, tuple(whitenings), form.images)


def _computes_bfloat16(device: torch.device) -> bool:
    """Whether the device is made for it, by what it says of itself."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= _BFLOAT16_CUDA
    return device.type == "cpu" and torch.backends.cpu.get_cpu_capability().startswith(_BFLOAT16_CPUS)


# ---- Tensors. ----


class _Tensors:
    """The tensors of a file, taken from it group by group until none is left. place: for errors."""

    def __init__(self, place: Path, tensors: dict[str, Tensor]) -> None:
        self.place = place
        self.bytes = sum(tensor.nbytes for tensor in tensors.values())
        self._left = tensors

    @classmethod
    def read(cls, place: Path, content: bytes) -> _Tensors:
        try:
            tensors = safetensors.torch.load(content)
        except (SafetensorError, ValueError, KeyError) as error:  # KeyError: a type that torch does not have
            why = (str(error).splitlines() or [type(error).__name__])[0]
            raise InputError(f"{place}: must be tensors as safetensors, cannot be read: {why}") from None
        _check_tensors(place, tensors)
        return cls(place, dict(_restored(name, tensor) for name, tensor in tensors.items()))

    def take(self, prefix: str, wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Those wanted, by the rest of their names, in that order. Raises InputError for another shape or type."""
        taken = {}
        for name, like in wanted.items():
            got = self._left.pop(prefix + name, None)
            if got is None or got.shape != like.shape or got.dtype != like.dtype:
                told = "nothing there" if got is None else _shown(got)
                raise InputError(f"{self.place}: {prefix}{name} must be {_shown(like)}, got {told}")
            taken[name] = got
        return taken

    def take_all(self, prefix: str) -> dict[str, Tensor]:
        """Whatever there is whose names begin so, by the rest of the names."""
        names = [name for name in self._left if name.startswith(prefix)]
        return {name.removeprefix(prefix): self._left.pop(name) for name in names}

    def end(self) -> None:
        """Raise InputError when there is more than was taken."""
        if self._left:
            first, more = min(self._left), ", ..." if len(self._left) > 1 else ""
            raise InputError(
                f"{self.place}: must hold the tensors that {MODEL_NAME} tells of, got {len(self._left):,} more "
                f"({_clip(first)}{more})"
            )


def _like(*shape: int) -> Tensor:
    return torch.empty(shape, device="meta")


def _shown(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def _stored(name: str, tensor: Tensor) -> tuple[str, Tensor]:
    """As it is kept: row by row, on the CPU, in memory that it shares with no other tensor."""
    if tensor.ndim == 2 and tensor.T.is_contiguous() and not tensor.is_contiguous():
        name, tensor = name + _COLUMNS, tensor.T
    return name, tensor.detach().cpu().clone(memory_format=torch.contiguous_format)


def _restored(name: str, tensor: Tensor) -> tuple[str, Tensor]:
    """What `_stored` was given."""
    return (name.removesuffix(_COLUMNS), tensor.mT) if name.endswith(_COLUMNS) and tensor.ndim == 2 else (name, tensor)


def _check_tensors(place: object, tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if tensor.dtype not in _TYPES:
            raise InputError(f"{place}: {_clip(name)} must be float32 or int64, got {_shown(tensor)}")
        if not bool(tensor.isfinite().all()):
            raise InputError(f"{place}: {_clip(name)} must be finite, got NaN or infinity")
