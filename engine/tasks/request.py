"""From the bytes of a request to the one task that it asks for, or to one line for everything wrong with it.

    request = parse_request(b'{"type": 2, "config": {"n_clusters": "2"}}', "body")
    request.task_type             "auto-grouping"
    request.config.n_clusters     2

What comes out is in normal form: `task_type` is set, the old spellings `type` and `export_type` are gone, and
`model_id` stands at the top. `schema.py` has the records, `parameters.py` the options beyond the tables. Which
task a field belongs to, and what it does on one's own machine, is said here, once.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final, get_args

from pydantic import BaseModel, ValidationError

from engine.errors import UsageError
from engine.tasks.parameters import Parameters, parameter_problems
from engine.tasks.schema import (
    AUTO_DEPLOY,
    AUTO_GROUPING,
    AUTO_LABEL,
    PRE_LABEL,
    RequestBody,
    SearchCondition,
    SmartTaskConfig,
    TaskRequest,
    TaskType,
)
from engine.tasks.values import did_you_mean, message, shown

TASK_TYPES: Final[tuple[str, ...]] = get_args(TaskType)
#: The integers that the service's answers, and old requests, use for a task.
TYPE_NUMBERS: Final[dict[int, str]] = {0: AUTO_LABEL, 1: PRE_LABEL, 2: AUTO_GROUPING}

_EVERY: Final = frozenset(TASK_TYPES)
_MODELS: Final = _EVERY - {AUTO_GROUPING}

#: Which tasks use which field of `config` (and of the body, below). A request that names no task is the one
#: task that all its fields belong to.
_USES: Final[tuple[tuple[frozenset[str], str], ...]] = (
    (frozenset({AUTO_GROUPING}), "ambiguity image_brightness image_colorfulness n_clusters property result_type"),
    (frozenset({AUTO_GROUPING}), "export_type"),
    (frozenset({AUTO_LABEL}), "algorithm_type stop_time"),
    (frozenset({AUTO_LABEL, PRE_LABEL}), "annotation_output inf_output key_sample_output samples time"),
    (frozenset({PRE_LABEL}), "req_uri"),
    (frozenset({PRE_LABEL, AUTO_DEPLOY}), "inf_cluster_id inf_config_list model_id"),
    (frozenset({AUTO_DEPLOY}), "collect_rule collect_sample infer_result_output_dir output_dir"),
    (frozenset({AUTO_LABEL, AUTO_DEPLOY}), "flavor log_url pool_id train_url worker_server_num"),
    (_MODELS, "confidence_scope engine_name manifest_path model_name model_parameter model_version train_data_path"),
    (_MODELS, "collect_key_sample"),
    (_EVERY, "description export_format export_params name parameters version_format"),
)
FIELD_TASKS: Final[dict[str, frozenset[str]]] = {name: tasks for tasks, names in _USES for name in names.split()}

#: Accepted and echoed, but about somebody else's computers.
NO_LOCAL_MEANING: Final = frozenset(
    [
        *("engine_name", "flavor", "inf_cluster_id", "log_url", "model_parameter", "pool_id", "req_uri"),
        *("train_url", "worker_server_num"),
    ]
)
#: Of auto-label: its model is trained, and lies in OUT.
_NAMES_OF_MODELS: Final = frozenset({"model_name", "model_version"})
#: Of a task that labels: for key samples, where they are collected.
_KEY_SAMPLES: Final = frozenset({"confidence_scope", "key_sample_output"})
#: About data that no task here has.
_OTHER_DATA: Final = {"stop_time": "limits the labeling of videos, and videos are not labeled here"}

MOST_DEPTH: Final = 64  # the tables need 10; only free attributes can nest on
MOST_PROBLEMS: Final = 20  # in one error; a body can hold a million
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_COMMENT_LINE: Final = re.compile(rb"(?m)^[ \t]*//[^\r\n]*")


def read_request(path: Path) -> TaskRequest:
    """The request in a file; in a `.jsonc` file, lines that begin with `//` are comments. Raises UsageError."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror or error}") from error
    if path.suffix == ".jsonc":
        content = _COMMENT_LINE.sub(b"", content)
    return parse_request(content, str(path))


def parse_request(body: bytes | str | Mapping[str, Any], place: str = "") -> TaskRequest:
    """The one task that a request body asks for, in normal form.

    place: what the errors call the body, a file for instance. Raises UsageError with one line for each problem:
    `place: config.n_clusters: must be 2..200, got 500`; of broken JSON, line and column.
    """
    problems: Iterable[str]
    try:
        given = body if isinstance(body, Mapping) else _load(body, place)
        _check_fit(given, place)
        normal, problems = _normal_form(RequestBody.model_validate(given))
        if not problems:
            request = TaskRequest.model_validate(normal)
            problems = parameter_problems(request.config.parameters, request.task_type)
    except ValidationError as error:
        problems = map(_problem, error.errors(include_url=False))
    lines = list(islice(problems, MOST_PROBLEMS + 1))
    if len(lines) > MOST_PROBLEMS:
        lines[-1] = "and more problems"
    if lines:
        raise UsageError("\n".join(f"{place}: {line}" if place else line for line in lines))
    return request


def loaded(body: bytes, place: str = "") -> Any:
    """The JSON value of a body, fit to be written down again. Raises UsageError."""
    value = _load(body, place)
    _check_fit(value, place)
    return value


def checked_conditions(
    conditions: Sequence[Mapping[str, Any]], state: str | None = None
) -> tuple[tuple[SearchCondition, ...], str | None]:
    """Search conditions (table 5) and a sample state as a request has them, typed. Raises UsageError."""
    asked = {"search_conditions": list(conditions), "sample_state": state}
    params = parse_request({"task_type": AUTO_GROUPING, "config": {"export_params": asked}}).config.export_params
    assert params is not None
    return params.search_conditions or (), params.sample_state


def request_body(task_type: str, options: Mapping[str, object]) -> dict[str, Any]:
    """The request body that flags of the same names make: each option where a request has it, None left out."""
    given = {name: value for name, value in options.items() if value is not None}
    body: dict[str, Any] = {"task_type": task_type, "config": given}
    body.update({name: given.pop(name) for name in ("collect_key_sample", "model_id") if name in given})
    entries = [{"label": name, "value": given.pop(name)} for name in Parameters.model_fields if name in given]
    if entries:
        given["parameters"] = entries
    return body


def asked_for(request: TaskRequest) -> dict[str, Any]:
    """What makes a task that labels the task that it is, as JSON values: its config, and that key samples are collected
    where they are."""
    config: dict[str, Any] = request.body()["config"]
    return {**config, "collect_key_sample": True} if request.collect_key_sample else config


def notices(request: TaskRequest) -> list[str]:
    """One line for each field that was given and will have no effect, and why."""
    fields = [*_changed(request), *(f"config.{name}" for name in _changed(request.config))]
    lines = [f"{path}: {why}; ignored" for path in fields if (why := _why_ignored(path, request))]
    if any(model.specification for model in request.config.inf_config_list or ()):
        lines.append("config.inf_config_list: specification has no meaning on one's own machine; ignored")
    if request.task_type == PRE_LABEL:
        given = {name for each in request.config.inf_config_list or () for name in _given(each)}
        for name in sorted(given & {"envs", "instance_count", "weight"}):
            lines.append(f"config.inf_config_list: {name} belongs to auto-deploy, not to pre-label; ignored")
    return lines


def _why_ignored(path: str, request: TaskRequest) -> str | None:
    name, task_type = path.removeprefix("config."), request.task_type
    tasks = FIELD_TASKS.get(name, _EVERY)
    if name in NO_LOCAL_MEANING:
        return "has no meaning on one's own machine"
    if name in _OTHER_DATA:
        return _OTHER_DATA[name]
    if name in _NAMES_OF_MODELS and task_type == AUTO_LABEL:
        return "names a model of pre-label or auto-deploy, and auto-label trains its own"
    if name in _KEY_SAMPLES and task_type in (AUTO_LABEL, PRE_LABEL) and not request.collect_key_sample:
        return "is about key samples, and collect_key_sample does not ask for them"
    if task_type in tasks:
        return None
    return f"belongs to {_listed(tasks)}, not to {task_type}"


def _normal_form(body: RequestBody) -> tuple[dict[str, Any], list[str]]:
    """The body with one task and no old spelling, and what stands in the way of that."""
    config = body.config
    model_id, models = _agreed({"model_id": body.model_id, "config.model_id": config.model_id})
    result_type, results = _agreed(
        {
            "export_type": body.export_type,
            "config.export_type": config.export_type,
            "config.result_type": config.result_type,
        }
    )
    old_task = None if body.type is None else TYPE_NUMBERS[body.type]
    task_type, tasks = _agreed({"task_type": body.task_type, "type": old_task})
    if not task_type and not tasks:
        task_type, tasks = _task_of_fields(body)

    normal = body.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude={"type", "export_type"})
    normal |= {"model_id": model_id, "task_type": task_type}
    kept = {name: value for name, value in normal.get("config", {}).items() if name not in ("model_id", "export_type")}
    normal["config"] = kept if result_type is None else {**kept, "result_type": result_type}
    return normal, [*models, *results, *tasks]


def _agreed(spellings: Mapping[str, Any]) -> tuple[Any, list[str]]:
    """The one value of a field that has several spellings, None when none is given, and a problem when they differ."""
    given = {path: value for path, value in spellings.items() if value not in (None, "")}
    first = next(iter(given.values()), None)
    if all(value == first for value in given.values()):
        return first, []
    return None, [f"{' and '.join(given)}: must agree, got {' and '.join(map(shown, given.values()))}"]


def _task_of_fields(body: RequestBody) -> tuple[str | None, list[str]]:
    """The one task that all given fields belong to. Fields at their default say nothing, unless nothing else does."""
    places: tuple[tuple[BaseModel, str], ...] = ((body, ""), (body.config, "config."))
    paths = [prefix + name for model, prefix in places for name in _changed(model)]
    paths = paths or [prefix + name for model, prefix in places for name in _given(model)]
    tasks = {path: FIELD_TASKS[path.removeprefix("config.")] for path in paths}
    telling = {path: fits for path, fits in tasks.items() if fits != _EVERY}
    candidates = _EVERY.intersection(*telling.values())
    if candidates == {PRE_LABEL, AUTO_DEPLOY}:  # a model alone labels; a deployment names a place of its own
        candidates = frozenset({PRE_LABEL})
    if len(candidates) == 1:
        return next(iter(candidates)), []
    if not telling:
        why = f"no field tells which of {_listed(TASK_TYPES)} is meant"
    elif candidates:
        why = f"{', '.join(telling)} may mean {_listed(candidates, 'or')}"
    else:
        why = "the fields belong to different tasks: " + ", ".join(
            f"{path} ({_listed(fits)})" for path, fits in telling.items()
        )
    return None, [f"task_type: must be given, since {why}"]


def _given(model: BaseModel) -> list[str]:
    """The fields that were given, blank ones apart; `config` is spoken for by its own fields."""
    names = (name for name in type(model).model_fields if name in model.model_fields_set and name != "config")
    return [name for name in names if getattr(model, name) not in (None, "", ())]


def _changed(model: BaseModel) -> list[str]:
    """The fields that were given and say something else than their default."""
    return [name for name in _given(model) if getattr(model, name) != type(model).model_fields[name].default]


def _load(body: bytes | str, place: str) -> Any:
    try:
        text = body if isinstance(body, str) else body.decode("utf-8-sig")
        return json.loads(text, object_pairs_hook=_object, parse_constant=_no_constant, parse_int=_integer)
    except UnicodeDecodeError as error:
        problem = f"must be UTF-8, got byte 0x{error.object[error.start]:02x} at offset {error.start}"
    except json.JSONDecodeError as error:
        where = f"{place}:{error.lineno}:{error.colno}" if place else f"line {error.lineno}, column {error.colno}"
        raise UsageError(f"{where}: not JSON: {error.msg}") from None
    except RecursionError:
        problem = f"must not be nested deeper than {MOST_DEPTH}"
    except ValueError as error:  # of the three functions below
        problem = str(error)
    raise UsageError(f"{place}: {problem}" if place else problem)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"{_printable(twice)}: must be given once, got it twice in one object")
    return fields


def _no_constant(name: str) -> float:
    raise ValueError(f"not JSON: {name} is no number there")


def _integer(digits: str) -> int:
    if len(digits) > 400:  # no float is larger, and Python refuses at 4300
        raise ValueError(f"no integer can be meant that has {len(digits)} digits")
    return int(digits)


def _check_fit(value: Any, place: str) -> None:
    if unfit := _unfit(value):
        raise UsageError(f"{place or 'the request'}: {unfit}")


def _unfit(body: Any) -> str | None:
    """What no later step could write down again, wherever it stands, free attributes included."""
    level = [body]
    for _ in range(MOST_DEPTH):
        below: list[Any] = []
        for node in level:
            if isinstance(node, Mapping):
                below += [*node.keys(), *node.values()]
            elif isinstance(node, list):
                below += node
            elif isinstance(node, str) and _SURROGATE.search(node):
                return f"must be valid Unicode, got {shown(node)}"
            elif isinstance(node, float) and not math.isfinite(node):
                return f"must be a finite number, got {node}"
        if not below:
            return None
        level = below
    return f"must not be nested deeper than {MOST_DEPTH}"


def _problem(error: Mapping[str, Any]) -> str:
    location = error["loc"]
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{_printable(part)}" for part in location)[1:]
    if error["type"] == "extra_forbidden":
        return f"{path}: unknown field{_near(location)}"
    return f"{path or 'the request'}: {message(error)}"


def _near(location: tuple[str | int, ...]) -> str:
    """Where the unknown field at `location` may have been meant to be."""
    *parents, name = location
    if len(parents) == 0 and name in SmartTaskConfig.model_fields:
        return f" (did you mean config.{name}?)"
    if name in Parameters.model_fields:
        return " (did you mean an entry of config.parameters?)"
    model: type[BaseModel] | None = RequestBody
    for part in parents:
        if model is not None and isinstance(part, str):
            annotation = next((f.annotation for n, f in model.model_fields.items() if part in (n, f.alias)), None)
            model = _model_in(annotation)
    known = [field.alias or n for n, field in model.model_fields.items()] if model is not None else []
    return did_you_mean(str(name), known)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The one model inside an annotation as `tuple[Model, ...] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for part in get_args(annotation) if (model := _model_in(part)) is not None), None)


def _printable(name: object) -> str:
    text = str(name)[:60]
    return text if text.isprintable() else ascii(text)[1:-1]


def _listed(names: Iterable[str], last: str = "and") -> str:
    ordered = [name for name in TASK_TYPES if name in set(names)]
    return f" {last} ".join(filter(None, [", ".join(ordered[:-1]), ordered[-1]]))
