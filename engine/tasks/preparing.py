"""What a request itself says of the data: another manifest, labels of samples, training data from elsewhere.

In: a request (CreateTask, tables 3 and 12) and the data set that it is about. Out: the data set that the task shall
see. Paths are those of the request: relative to the data set, or URIs that it maps.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from engine.dataset import Dataset, read_samples
from engine.detect.sketches import human_drawings
from engine.errors import ImageError, InputError, UsageError
from engine.label.results import ANNOTATED_BY
from engine.label.targets import human_labels
from engine.models import Shelf, Shelved
from engine.samples import (
    HARD_KEYS,
    HARD_REASONS_KEY,
    IMAGE_CLASSIFICATION,
    IMAGE_SEGMENTATION,
    LABEL_TYPES,
    OBJECT_DETECTION,
    SIZE_KEY,
    STATE_KEY,
    Drawing,
    Label,
    Sample,
    Shape,
    normal_state,
    without,
)
from engine.sources import is_uri
from engine.tasks.conditions import OWN, known_id
from engine.tasks.parameters import read_parameters
from engine.tasks.request import FIELD_TASKS
from engine.tasks.schema import SampleLabel, SampleLabels, SampleMetadata, TaskRequest

#: Where a path of a request may lie: gives it back, or raises UsageError.
Allowed = Callable[[Path], Path]
#: Reads a data set, with prefixes of sources as `--map` takes them.
Reading = Callable[[Path, Sequence[str]], Dataset]

_TYPES: Final = {number: name for name, number in LABEL_TYPES.items()}
#: Attributes of a label that say what is drawn, and are no attributes of the shape.
_DRAWN_KEYS: Final = (f"{OWN}shape", f"{OWN}feature", f"{OWN}hard_coefficient", HARD_REASONS_KEY)


def read_mapped(path: Path, map: Sequence[str]) -> Dataset:
    """A data set, with the prefixes of sources that another one maps."""
    return read_samples(path, map=map)


def prepared(
    request: TaskRequest,
    dataset: Dataset,
    *,
    allowed: Allowed = lambda path: path,
    base: Path | None = None,
    read: Reading = read_mapped,
) -> Dataset:
    """The data set that a request means. allowed: refuses paths that may not be read. base: where relative ones begin,
    by default at the data set. read: reads another data set, with the prefixes that this one maps. Raises UsageError,
    InputError."""
    config, used = request.config, used_fields(request)
    mapped = dataset.sources.map
    if config.manifest_path and "manifest_path" in used:
        path = allowed(_path_of("manifest_path", config.manifest_path, dataset, base))
        dataset = read(path, mapped)
    if config.samples and "samples" in used:
        dataset = with_given(dataset, config.samples)
    if config.train_data_path and "train_data_path" in used:
        path = allowed(_path_of("train_data_path", config.train_data_path, dataset, base))
        label_type = read_parameters(config.parameters, request.task_type).label_type
        dataset = with_guests(dataset, read(path, mapped), label_type)
    return dataset


def used_fields(request: TaskRequest) -> frozenset[str]:
    """The names of the fields that its task has a use for; the others do nothing."""
    return frozenset(name for name, tasks in FIELD_TASKS.items() if request.task_type in tasks)


def with_places(request: TaskRequest, dataset: Dataset, *, allowed: Allowed, base: Path | None = None) -> TaskRequest:
    """The request with the folders that a service shall write to as they lie on this machine; where the task has no use
    for them they stay as they came. Raises UsageError."""
    names = [name for name in ("output_dir", "infer_result_output_dir") if request.task_type in FIELD_TASKS[name]]
    given = {name: value for name in names if (value := getattr(request.config, name))}
    placed = {
        name: os.fspath(allowed(_path_of(name, value, dataset, base).absolute())) for name, value in given.items()
    }
    return request.model_copy(update={"config": request.config.model_copy(update=placed)}) if placed else request


def named_model(request: TaskRequest, shelf: Shelf) -> Shelved:
    """The imported model that a request names: by model_id, or by model_name and model_version, else by the only entry
    of inf_config_list. Raises UsageError where none is named, InputError where it is not there."""
    config = request.config
    listed = [each.model_id for each in config.inf_config_list or () if each.model_id]
    model_id = request.model_id or (listed[0] if len(listed) == 1 else None)
    if request.model_id and listed and request.model_id not in listed:
        raise UsageError(f"config.inf_config_list: must list the model {request.model_id!r}, got {', '.join(listed)}")
    if model_id is None and config.model_name is None:
        raise UsageError("model_id: must name the model that labels (or config.model_name does), got none")
    found = shelf.get(model_id) if model_id is not None else shelf.find(str(config.model_name), config.model_version)
    for name, wanted, got in (
        ("model_name", config.model_name, found.model_name),
        ("model_version", config.model_version, found.model_version),
    ):
        if wanted not in (None, got):
            raise UsageError(f"config.{name}: must be that of the model {found.model_id}, {got!r}, got {wanted!r}")
    return found


def labels_boxes(dataset: Dataset, label_type: int | None = None) -> bool:
    """Whether boxes are to be learned, and not labels of images: what label_type says, else what more samples have."""
    if label_type is not None:
        return label_type == LABEL_TYPES[OBJECT_DETECTION]
    drawn = sum(bool(human_drawings(sample)) for sample in dataset)
    return drawn > sum(bool(human_labels(sample)) for sample in dataset)


def _path_of(field: str, given: str, dataset: Dataset, base: Path | None) -> Path:
    try:
        return dataset.sources.path(given) if is_uri(given) else (base or dataset.sources.root) / given
    except ImageError as error:
        raise UsageError(f"config.{field}: {error}") from None


# ---- Training data from elsewhere. ----


def with_guests(dataset: Dataset, other: Dataset, label_type: int | None = None) -> Dataset:
    """The data set with what people labeled in another one, to learn from: guests come last, and leave again before
    anything is written. Files that are there already do not come twice. label_type: of what is to be learned."""
    boxes = labels_boxes(dataset.with_samples((*dataset, *other)), label_type)
    labels_of = human_drawings if boxes else human_labels
    here = {real for sample in dataset if (real := _real(dataset, sample)) is not None}
    guests = []
    for sample in other:
        real = _real(other, sample)
        if sample.is_image and real is not None and real not in here and labels_of(sample):
            guests.append(replace(sample, source=real))
    if not guests:
        raise InputError(f"config.train_data_path: must hold labels that people gave on other images, got {other.name}")
    note = f"{len(guests):,} labeled images of {other.name} to learn from"
    return replace(
        dataset,
        samples=(*dataset.samples, *guests),
        guests=len(guests),
        failures=(*dataset.failures, *other.failures),
        notes=(*dataset.notes, note),
    )


def _real(dataset: Dataset, sample: Sample) -> str | None:
    try:
        return os.path.realpath(dataset.path(sample))
    except (ImageError, OSError, ValueError):
        return None


# ---- Samples in the request. ----


def with_given(dataset: Dataset, given: Sequence[SampleLabels]) -> Dataset:
    """The data set with labels, attributes and usages as a request has them; of a sample without labels there, those
    that it has are gone (table 12). Raises InputError for a sample that is not there."""
    by_id = {known_id(sample): row for row, sample in enumerate(dataset.samples)}
    by_source = {sample.source: row for row, sample in enumerate(dataset.samples)}
    samples = list(dataset.samples)
    for position, each in enumerate(given):
        row = by_id.get(each.sample_id or "", by_source.get(each.source or ""))
        if row is None:
            told = each.sample_id or each.source
            raise InputError(f"config.samples[{position}]: must be a sample of {dataset.name}, got {told!r}")
        samples[row] = given_sample(samples[row], each, f"config.samples[{position}]")
    return dataset.with_samples(samples)


def given_sample(sample: Sample, given: SampleLabels, place: str, *, keep: bool = False) -> Sample:
    """The sample as table 12 gives it. place: for errors. keep: where no labels are given, those that it has stay; else
    what was doubtful about them goes with them."""
    changes: dict[str, Any] = {}
    if given.labels is not None or not keep:
        size = given.metadata.size if given.metadata is not None else None
        labels = given_labels(given.labels or (), place, size=size)
        changes = {"labels": tuple(labels), "hard": None, "hard_coefficient": None}
        sample = replace(sample, property=without(sample.property, HARD_KEYS))
    if given.metadata is not None:
        changes |= _metadata(sample, given.metadata)
    if given.sample_usage is not None:
        changes["usage"] = given.sample_usage
    if given.sample_type is not None:
        changes["sample_type"] = given.sample_type
    if given.worker_id:
        changes["property"] = {**changes.get("property", sample.property), f"{OWN}worker_id": given.worker_id}
    return replace(sample, **changes)


def _metadata(sample: Sample, given: SampleMetadata) -> dict[str, Any]:
    properties = {**sample.property, **(given.model_extra or {})}
    if (state := properties.get(STATE_KEY)) is not None:
        properties[STATE_KEY] = normal_state(str(state))
    if given.hard_reasons is not None:
        properties[HARD_REASONS_KEY] = list(given.hard_reasons)
    if given.size is not None:
        properties[SIZE_KEY] = list(given.size)
    changes: dict[str, Any] = {"property": properties}
    if given.hard is not None:
        changes["hard"] = given.hard
    if given.hard_coefficient is not None:
        changes["hard_coefficient"] = given.hard_coefficient
    return changes


def given_labels(given: Sequence[SampleLabel], place: str, *, size: Sequence[int] | None = None) -> Iterator[Label]:
    """Labels of the manifest from those of table 13: everything drawn becomes one drawing of each author. size: width,
    height and depth of the image in whose pixels it is; None: nobody says."""
    width, height, depth = size or (0, 0, 0)
    stated = (width, height, depth) if width and height else None
    drawn: dict[str, list[Shape]] = {}
    for position, each in enumerate(given):
        kind = _TYPES.get(each.type if each.type is not None else _type_of(each))
        if kind is None:
            raise UsageError(f"{place}.labels[{position}].type: must be one that a manifest knows, got {each.type}")
        if kind == IMAGE_SEGMENTATION:
            raise UsageError(f"{place}.labels[{position}].type: 3 (segmentation) needs a mask, and no request has one")
        if kind == OBJECT_DETECTION:
            drawn.setdefault(_author(each), []).append(_shape(each, f"{place}.labels[{position}]"))
            continue
        if not each.name:
            raise UsageError(f"{place}.labels[{position}].name: must be given")
        told = each.property
        yield Label(
            type=kind,
            name=each.name,
            id=each.id,
            property=_attributes(told),
            annotated_by=_author(each),
            confidence=each.score,
            hard=None if told is None else told.hard,
            hard_coefficient=None if told is None else told.hard_coefficient,
        )
    for author, shapes in drawn.items():
        yield Label(type=OBJECT_DETECTION, annotated_by=author, drawing=Drawing(tuple(shapes), stated))


def _type_of(label: SampleLabel) -> int:
    return LABEL_TYPES[OBJECT_DETECTION if label.property and label.property.feature else IMAGE_CLASSIFICATION]


def _author(label: SampleLabel) -> str:
    return ANNOTATED_BY if label.annotated_by == "auto" else "human"


def _shape(label: SampleLabel, place: str) -> Shape:
    told = label.property
    if told is None or told.feature is None or not label.name:
        raise UsageError(f"{place}: an object needs a name and property @modelarts:feature")
    kind, points = told.shape or "bndbox", told.feature
    if kind == "bndbox":
        if len(points) != 2 or any(len(point) != 2 for point in points):
            raise UsageError(f"{place}: a bndbox needs [[x, y], [x, y]]")
        (x1, y1), (x2, y2) = points
        points = ((min(x1, x2), min(y1, y2)), (max(x1, x2), max(y1, y2)))  # whichever corner came first
    return Shape(
        label.name,
        kind,
        points,
        confidence=label.score,
        hard_coefficient=told.hard_coefficient,
        hard_reasons=told.hard_reasons or (),
        property={name: value for name, value in _attributes(told).items() if name not in _DRAWN_KEYS},
    )


def _attributes(told: Any) -> Mapping[str, Any]:
    """Attributes in the specification's spelling, without those that are fields of a label here."""
    if told is None:
        return {}
    found: dict[str, Any] = told.model_dump(mode="json", by_alias=True, exclude_none=True)
    return {name: value for name, value in found.items() if name not in (f"{OWN}hard", f"{OWN}hard_coefficient")}
