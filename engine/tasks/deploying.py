"""One-click deployment as a task: train on what people labeled, keep the model, and write a folder that can be served.

    models/NUMBER/      every model that shall answer, complete
    service.json        which share of the traffic each has, how many processes, and what is kept of the requests

Where the request names models (model_id, model_name, inf_config_list), nothing is trained. A model that is trained here
is imported too, under model_name and model_version, or the name of the data set. Where an earlier try of the task has
imported that version before it failed, its model is taken. (CreateTask, tables 3 and 10.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import orjson

from engine.dataset import Dataset
from engine.detect.detecting import MEMBERS as BOX_MEMBERS
from engine.detect.detecting import auto_detect
from engine.detect.detector import BoxDetector
from engine.errors import InputError, UsageError
from engine.files import write_bytes
from engine.label.classifier import Classifier
from engine.label.labeling import MEMBERS, auto_label
from engine.label.plan import NETWORK_STAGE
from engine.models import MODEL_NAME, Shelf, Shelved, files_of, save_model
from engine.outfolder import OutFolder
from engine.tasks.detecting import trunk_of
from engine.tasks.grouping import device_of, encoder_of, on_threads
from engine.tasks.key_samples import DEFAULT_SCOPE
from engine.tasks.parameters import Parameters, read_parameters
from engine.tasks.preparing import labels_boxes, named_model
from engine.tasks.request import notices
from engine.tasks.runner import Outcome, Run, Task
from engine.tasks.schema import InfConfig, SmartTaskConfig, TaskRequest

SERVICE_NAME: Final = "service.json"
_FORMAT: Final = "labelengine-service"
_ALGORITHM: Final = "fast"
_MODELS: Final = "models"
_TRAINED: Final = "model"
#: Metric of a model that says which task trained it: the same task on the same data, tried again, knows it.
_TASK: Final = "task_id"
#: Coefficient from which on a collected sample is a hard one, as for the documented weights.
HARD_FROM: Final = 0.1


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model that answers. path: its folder. weight: its share of the traffic in percent. envs: of its processes."""

    path: Path
    model_id: str
    model_name: str
    model_version: str
    weight: int
    instance_count: int
    envs: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ServicePlan:
    """What a service does. collect_sample: whether it keeps what it is asked, in output_dir; infer_result_output_dir:
    and where its answers; None: where the service itself keeps things. confidence_scope: of key samples. hard_from:
    coefficient from which on a sample is hard."""

    models: tuple[ServedModel, ...]
    collect_sample: bool
    output_dir: str | None
    infer_result_output_dir: str | None
    confidence_scope: tuple[float, float]
    hard_from: float


def deploying_task(request: TaskRequest, dataset: Dataset, shelf: Shelf) -> Task:
    """The task that a request for auto-deploy asks for. Raises UsageError or InputError for options that fail."""
    config = request.config
    options = read_parameters(config.parameters, request.task_type)
    entries = entries_of(request, shelf)
    encoder_of(options)
    trains = is_trained(entries)
    training = {NETWORK_STAGE.format(number, 2): 40.0 for number in (1, 2)} if trains else {}
    return Task(
        job=on_threads(options.threads, lambda this: _deploy(this, dataset, config, options, entries, shelf)),
        kind=request.task_type,
        config=request.body()["config"],
        dataset=dataset.name,
        stages={"reading images": 5.0, **training, "writing the service": 5.0},
        files=dataset.files,
        digest=dataset.digest,
        notices=(*dataset.notes, *notices(request)),
    )


Entry = tuple[InfConfig, Shelved | None]


def is_trained(entries: Sequence[Entry]) -> bool:
    """Whether one of the models that answer is trained for it."""
    return any(shelved is None for _, shelved in entries)


def entries_of(request: TaskRequest, shelf: Shelf) -> tuple[Entry, ...]:
    """The models that answer, with None for the one that is trained here, under a name that is free. Raises UsageError,
    InputError."""
    config = request.config
    listed = config.inf_config_list or (InfConfig(),)
    if len(listed) > 1 and any(each.weight is None for each in listed):
        raise UsageError("config.inf_config_list: weight must be given for each of several models, and sum to 100")
    asked = request.model_id or config.model_name
    found: list[Entry] = []
    for each in listed:
        if each.model_id:
            found.append((each, shelf.get(each.model_id)))
        elif request.model_id or (asked and _is_there(shelf, config)):
            found.append((each, named_model(request, shelf)))
        else:
            found.append((each, None))
    if sum(shelved is None for _, shelved in found) > 1:
        raise UsageError("config.inf_config_list: model_id must be given for all models but the one that is trained")
    if is_trained(found):
        shelf.check_free(config.model_name, config.model_version)
    return tuple(found)


def _is_there(shelf: Shelf, config: SmartTaskConfig) -> bool:
    """Whether a model of that name and version was imported; else the name is that of the model to be trained."""
    try:
        shelf.find(str(config.model_name), config.model_version)
    except InputError:
        return False
    return True


def _deploy(
    this: Run,
    dataset: Dataset,
    config: SmartTaskConfig,
    options: Parameters,
    entries: Sequence[Entry],
    shelf: Shelf,
) -> Outcome:
    models: list[tuple[InfConfig, Shelved]] = []
    trained: Shelved | None = None
    for entry, shelved in entries:
        model = shelved or _of_earlier_try(this, dataset, config, shelf)
        model = model or _trained(this, dataset, config, options, shelf)
        if shelved is None:
            trained = model
        models.append((entry, model))
    advance = this.stage("writing the service", len(models))
    written = []
    for number, (entry, shelved) in enumerate(models, start=1):
        folder = f"{_MODELS}/{number}"
        for name in files_of(shelved.path):
            this.out.place(shelved.path / name, f"{folder}/{name}", copy=True)
        written.append(
            {
                "path": folder,
                "model_id": shelved.model_id,
                "model_name": shelved.model_name,
                "model_version": shelved.model_version,
                "weight": 100 if entry.weight is None else entry.weight,
                "instance_count": entry.instance_count or 1,
                "envs": dict(entry.envs or {}),
            }
        )
        advance(number)
    scope = config.confidence_scope or DEFAULT_SCOPE
    write_service(
        this.out,
        written,
        collect_sample=config.collect_sample,
        output_dir=config.output_dir,
        infer_result_output_dir=config.infer_result_output_dir,
        confidence_scope=scope,
        hard_from=HARD_FROM if options.algo_hard_threshold is None else options.algo_hard_threshold,
    )
    first = models[0][1] if trained is None else trained
    result = {
        "total_sample_count": dataset.own,
        "dataset_name": dataset.name,
        "confidence_scope": f"{scope[0]:.2f}-{scope[1]:.2f}",
        "model_id": first.model_id,
        "model_name": first.model_name,
        "model_version": first.model_version,
        "service_path": SERVICE_NAME,
        "trained": trained is not None,
        "models": [{name: each[name] for name in ("model_id", "weight", "instance_count")} for each in written],
    }
    return Outcome(result, dataset.failures)


def _of_earlier_try(this: Run, dataset: Dataset, config: SmartTaskConfig, shelf: Shelf) -> Shelved | None:
    """The model of the version asked for, where this task has imported it before: another could not be called so."""
    wanted = (_name_of(config, dataset), config.model_version)
    for each in shelf.all()[0]:
        if (each.model_name, each.model_version) == wanted and each.info.metrics.get(_TASK) == this.id:
            this.note(f"{each.model_name} {each.model_version} was trained by an earlier try of this task")
            return each
    return None


def _trained(this: Run, dataset: Dataset, config: SmartTaskConfig, options: Parameters, shelf: Shelf) -> Shelved:
    """A model of what people labeled, of images or boxes, imported. Raises InputError where another is called so."""
    shelf.check_free(_name_of(config, dataset), config.model_version)  # before the time is spent
    boxes = labels_boxes(dataset, options.label_type)
    shared: dict[str, Any] = {
        "minutes": options.minutes,
        "steps": options.steps or (),
        "min_per_class": options.min_per_class,
        "least_unlabeled": 0,
        "image_size": options.image_size,
        "batch_size": options.batch_size,
        "epochs": options.epochs,
        "learning_rate": options.learning_rate,
        "networks": options.networks,
        "precision": options.precision,
        "compiled": options.compile,
        "seed": options.seed,
        "threads": options.threads,
        "device": device_of(options.device),
        "max_pixels": options.max_pixels,
        "folder": this.cache,
        "looks": options.networks or (BOX_MEMBERS if boxes else MEMBERS)[_ALGORITHM],
        "stage": this.stage,
        "note": this.note,
        "stopped": this.stopped,
    }
    labeled = dataset.with_samples(sample for sample in dataset if any(each.by_human for each in sample.labels))
    model: Classifier | BoxDetector | None
    if boxes:
        detection = auto_detect(
            labeled, _ALGORITHM, score_threshold=options.score_threshold, trunk=trunk_of(options), **shared
        )
        model, choices = detection.detector, detection.choices
    else:
        labeling = auto_label(labeled, _ALGORITHM, encoder=encoder_of(options), **shared)
        assert isinstance(labeling.classifier, Classifier)
        model, choices = labeling.classifier, labeling.choices
    assert model is not None
    metrics = {name: value for name, value in choices.items() if name != "training_digest"} | {_TASK: this.id}
    digest = str(choices.get("training_digest", ""))
    save_model(this.out, model, folder=_TRAINED, metrics=metrics, training_digest=digest, created=datetime.now())
    return shelf.add(this.out.folder / _TRAINED, name=_name_of(config, dataset), version=config.model_version)


def _name_of(config: SmartTaskConfig, dataset: Dataset) -> str:
    """What the model that is trained is called: by default as its data set, as far as a model can be."""
    plain = "".join(char if char.isalnum() or char in "_.-" else "-" for char in dataset.name).strip("-.")
    return config.model_name or plain[:100] or "model"


# ---- The folder of a service. ----


def write_service(out: OutFolder, models: Sequence[Mapping[str, Any]], **told: Any) -> None:
    """Write service.json. models: with paths below the folder. told: the other fields of `ServicePlan`."""
    document = {"format": _FORMAT, "version": 1, "models": list(models), **told}
    write_bytes(out.target(SERVICE_NAME), orjson.dumps(document, option=orjson.OPT_INDENT_2))


def read_service(folder: Path) -> ServicePlan:
    """What a folder's service.json says; the folder of a single model is a service of it. Raises InputError."""
    place = folder / SERVICE_NAME
    if not place.is_file() and (folder / MODEL_NAME).is_file():
        alone = ServedModel(folder, "", folder.name, "", 100, 1, {})
        return ServicePlan((alone,), False, None, None, DEFAULT_SCOPE, HARD_FROM)
    try:
        told = orjson.loads(place.read_bytes())
        if told["format"] != _FORMAT or told["version"] != 1:
            raise InputError(f"{place}: must be of format {_FORMAT!r}, version 1")
        models = tuple(_served(folder, each) for each in told["models"])
        low, high = told["confidence_scope"]
        plan = ServicePlan(
            models,
            bool(told["collect_sample"]),
            told["output_dir"],
            told["infer_result_output_dir"],
            (float(low), float(high)),
            float(told["hard_from"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{place}: must be what auto-deploy wrote, cannot be read: {error!r}") from None
    if not models or sum(each.weight for each in models) != 100:
        raise InputError(f"{place}: must have models whose weights sum to 100")
    return plan


def _served(folder: Path, told: Mapping[str, Any]) -> ServedModel:
    path = (folder / str(told["path"])).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise InputError(f"{folder / SERVICE_NAME}: path must lie below the folder, got {told['path']!r}")
    model_id, name, version = (str(told[key]) for key in ("model_id", "model_name", "model_version"))
    envs = {str(name): str(value) for name, value in told["envs"].items()}
    return ServedModel(path, model_id, name, version, int(told["weight"]), int(told["instance_count"]), envs)
