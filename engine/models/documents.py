"""What model.json says, and how it is read: one record for each type of model, unknown keys refused.

In: the folder of a model. Out: a record whose numbers lie in their ranges and whose parts fit together. A model may
come from anywhere: nothing is believed before it is checked, no path in it is followed. Knows nothing of tensors.
"""

from __future__ import annotations

import hashlib
import json
import os
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from stat import S_ISREG
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    ValidationError,
    model_serializer,
    model_validator,
)

from engine.detect.network import CELL
from engine.embeddings import Gradients
from engine.errors import InputError

WEIGHTS_NAME: Final = "weights.safetensors"
MODEL_NAME: Final = "model.json"

FORMAT: Final = "labelengine-model"
#: Raise it when a model.json of before would be misread.
VERSION: Final = 1
#: A larger model.json is no description: 10,000 labels of 200 characters are 2 MB.
_MOST_JSON: Final = 16 * 2**20

Side: TypeAlias = Annotated[StrictInt, Field(ge=1, le=4096)]
_Count: TypeAlias = Annotated[StrictInt, Field(ge=1)]
_Temperature: TypeAlias = Annotated[StrictFloat, Field(gt=0, allow_inf_nan=False)]


class Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class GradientsForm(Record):
    kind: Literal["gradients"] = "gradients"
    size: Annotated[StrictInt, Field(ge=16, le=1024, multiple_of=8)]

    @property
    def shown(self) -> str:
        return Gradients().name


class BackboneForm(Record):
    kind: Literal["backbone"] = "backbone"
    name: StrictStr
    size: Side

    @property
    def shown(self) -> str:
        return self.name


class MirroredForm(Record):
    """An encoder that is asked about mirror images too, (horizontal, vertical)."""

    kind: Literal["mirrored"] = "mirrored"
    flips: tuple[StrictBool, StrictBool]
    encoder: Annotated[GradientsForm | BackboneForm, Field(discriminator="kind")]

    @property
    def shown(self) -> str:
        return f"mirrored {self.encoder.shown}"


class SightForm(Record):
    """A network of our own form, with so many outputs that are not asked, beside an encoder."""

    kind: Literal["sight"] = "sight"
    image_size: Side
    widths: Annotated[tuple[_Count, ...], Field(min_length=1)]
    outputs: _Count
    flip: StrictBool
    bfloat16: StrictBool
    encoder: Annotated[GradientsForm | BackboneForm | MirroredForm, Field(discriminator="kind")]

    @property
    def shown(self) -> str:
        return f"network and {self.encoder.shown}"


class EmbeddingForm(Record):
    """Whitened; images: how many it was fitted on."""

    kind: Literal["embedding"] = "embedding"
    encoder: Annotated[GradientsForm | BackboneForm | MirroredForm | SightForm, Field(discriminator="kind")]
    images: _Count

    @property
    def shown(self) -> str:
        return self.encoder.shown


EncoderForm: TypeAlias = GradientsForm | BackboneForm | MirroredForm | SightForm | EmbeddingForm


class NetworksForm(Record):
    count: _Count
    image_size: Side
    widths: Annotated[tuple[_Count, ...], Field(min_length=1)]
    flips: tuple[StrictBool, StrictBool]
    bfloat16: StrictBool


class CalibrationForm(Record):
    temperature_of_networks: _Temperature | None
    temperature_of_head: _Temperature | None
    share_of_networks: Annotated[StrictFloat, Field(ge=0, le=1)]


class Form(Record):
    """A classifier without its tensors; its fields are the first ones of model.json."""

    type: Literal["image_classification"] = "image_classification"
    labels: Annotated[tuple[StrictStr, ...], Field(min_length=1)]
    multi_label: StrictBool
    image_size: Side
    encoder: Annotated[EncoderForm, Field(discriminator="kind")] | None
    networks: NetworksForm | None
    calibration: CalibrationForm

    @property
    def input_size(self) -> tuple[int, int]:
        return self.image_size, self.image_size

    @property
    def trust(self) -> dict[str, float]:
        return self.calibration.model_dump(exclude_none=True)

    @model_validator(mode="after")
    def _fits(self) -> Form:
        check_labels(self.labels)
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


def check_labels(labels: tuple[str, ...]) -> None:
    if len(set(labels)) < len(labels) or "" in labels:
        raise ValueError("labels: must be different from each other, and none empty")


_Numbers: TypeAlias = Annotated[tuple[Annotated[StrictFloat, Field(allow_inf_nan=False)], ...], Field(min_length=1)]
_CanvasSide: TypeAlias = Annotated[StrictInt, Field(ge=CELL, le=8192, multiple_of=CELL)]


class DetectorsForm(Record):
    count: _Count
    widths: tuple[_Count, _Count, _Count, _Count]
    neck: _Count
    reach: Annotated[StrictFloat, Field(gt=0, allow_inf_nan=False)]
    flips: tuple[StrictBool, StrictBool]
    bfloat16: StrictBool
    trunk: StrictStr | None = None

    @model_serializer(mode="wrap")
    def _told(self, told: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without a trunk nothing is said of one, as before there were any: ids of models stay."""
        return {name: value for name, value in told(self).items() if name != "trunk" or value is not None}


class BoxForm(Record):
    """A detector without its tensors. offset, of_center, of_fit, thresholds: a number for each label."""

    type: Literal["object_detection"] = "object_detection"
    labels: Annotated[tuple[StrictStr, ...], Field(min_length=1)]
    width: _CanvasSide
    height: _CanvasSide
    networks: DetectorsForm
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
    def _fits(self) -> BoxForm:
        check_labels(self.labels)
        for name in ("offset", "of_center", "of_fit", "thresholds"):
            if len(getattr(self, name)) != len(self.labels):
                raise ValueError(f"{name}: must have {len(self.labels)} numbers, got {len(getattr(self, name))}")
        return self


class WeightsRecord(Record):
    sha256: Annotated[StrictStr, Field(pattern="^[0-9a-f]{64}$")]
    bytes: _Count


class _About(Record):
    """What model.json says beside the form."""

    format: Literal["labelengine-model"]
    version: Literal[1]
    weights: WeightsRecord
    metrics: dict[str, Any]
    training_digest: StrictStr
    created: datetime
    code_version: StrictStr


class BoxDocument(_About, BoxForm):
    @property
    def form(self) -> BoxForm:
        return BoxForm(**{name: getattr(self, name) for name in BoxForm.model_fields})


class Document(_About, Form):
    @property
    def form(self) -> Form:
        return Form(**{name: getattr(self, name) for name in Form.model_fields})


def read_json(folder: Path) -> dict[str, Any]:
    """The object that model.json holds. Raises InputError."""
    place, content = folder / MODEL_NAME, read_file(folder, MODEL_NAME, most=_MOST_JSON)
    try:
        # Not orjson: a label may hold half a surrogate pair, how Python spells what is not UTF-8. NaN is no number.
        record = json.loads(content, parse_constant=lambda _: None)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{place}: must be JSON, got what is not: {error}") from None
    if not isinstance(record, dict):
        raise InputError(f"{place}: must be a JSON object whose format is {FORMAT!r}; this is another program's file")
    return record


def read_document(folder: Path) -> Document | BoxDocument:
    """What model.json says of a model of our own. Raises InputError."""
    place, record = folder / MODEL_NAME, read_json(folder)
    if record.get("format") != FORMAT:
        raise InputError(f"{place}: must be a JSON object whose format is {FORMAT!r}; this is another program's file")
    if record.get("version") != VERSION or isinstance(record["version"], bool):
        got = clipped(record.get("version"))
        raise InputError(f"{place}: version must be {VERSION}, all that this program knows, got {got}")
    try:
        boxes = record.get("type") == BoxForm.model_fields["type"].default
        return BoxDocument.model_validate(record) if boxes else Document.model_validate(record)
    except ValidationError as error:
        raise InputError(f"{place}: {first_problem(error)}") from None


def first_problem(error: ValidationError) -> str:
    """The first problem, in one line."""
    problem = error.errors(include_url=False)[0]
    told = problem["msg"].removeprefix("Value error, ").replace("Input should", "must").replace("tuple", "list")
    where = ".".join(map(str, problem["loc"]))
    return f"{where}: {told}, got {clipped(problem['input'])}" if where else told


def clipped(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


def id_of(form: Form | BoxForm, weights_sha256: str) -> str:
    settings = json.dumps([form.model_dump(), weights_sha256], sort_keys=True)
    return hashlib.sha256(settings.encode()).hexdigest()


def version_of_code() -> str:
    try:
        return version("labelengine")
    except PackageNotFoundError:
        return "(not installed)"


# ---- Files. ----


def read_file(folder: Path, name: str, *, most: int | None = None) -> bytes:
    place, size = file_of(folder, name)
    if most is not None and size > most:
        raise InputError(f"{place}: must have at most {most:,} bytes, got {size:,}")
    try:
        return place.read_bytes()
    except OSError as error:
        raise InputError(f"{place}: cannot be read: {error.strerror or error}") from error


def file_of(folder: Path, name: str) -> tuple[Path, int]:
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
