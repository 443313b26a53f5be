"""Which tasks there are, by the task type of a request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any, Final

from engine.dataset import RESULT_NAME, Dataset, inside_note, read_samples
from engine.detect.sketches import human_drawings
from engine.errors import UsageError
from engine.label.targets import human_labels
from engine.models import Shelf
from engine.samples import IMAGE_CLASSIFICATION, LABEL_TYPES, OBJECT_DETECTION
from engine.tasks.conditions import drawn_more
from engine.tasks.detecting import detecting_task
from engine.tasks.exporting import SELECTING, WRITING, Wanted, export, format_for, work_folder
from engine.tasks.grouping import grouping_task
from engine.tasks.labeling import labeling_task
from engine.tasks.parameters import read_parameters
from engine.tasks.prelabeling import Chosen, prelabeling_task
from engine.tasks.preparing import Allowed, prepared
from engine.tasks.request import require_available
from engine.tasks.runner import Outcome, Reporter, Run, Task, run
from engine.tasks.schema import AUTO_GROUPING, AUTO_LABEL, PRE_LABEL, ExportParams, TaskRequest

#: Below OUT, where a request asks for an export of its result.
EXPORTS: Final = "export"


def auto_label_task(request: TaskRequest, dataset: Dataset) -> Task:
    """Auto labeling of what people labeled: images or boxes, by the parameter label_type, else by what more of them
    have. Raises UsageError or InputError for options that fail."""
    asked = read_parameters(request.config.parameters, request.task_type).label_type
    if asked is None:
        drawn = sum(bool(human_drawings(sample)) for sample in dataset)
        named = sum(bool(human_labels(sample)) for sample in dataset)
        asked = LABEL_TYPES[OBJECT_DETECTION if drawn > named else IMAGE_CLASSIFICATION]
    task = detecting_task if asked == LABEL_TYPES[OBJECT_DETECTION] else labeling_task
    return task(request, dataset)


TASKS: Final[dict[str, Callable[[TaskRequest, Dataset, Shelf], Task]]] = {
    AUTO_GROUPING: lambda request, dataset, shelf: grouping_task(request, dataset),
    AUTO_LABEL: lambda request, dataset, shelf: auto_label_task(request, dataset),
    PRE_LABEL: lambda request, dataset, shelf: prelabeling_task(request, dataset, chosen_model(request, shelf)),
}


def chosen_model(request: TaskRequest, shelf: Shelf) -> Chosen:
    """The imported model that a request names: by model_id, or by model_name and model_version, else by the only entry
    of inf_config_list. Raises UsageError where none is named, InputError where it is not there."""
    config = request.config
    listed = [each.model_id for each in config.inf_config_list or () if each.model_id]
    model_id = request.model_id or (listed[0] if len(listed) == 1 else None)
    if model_id is None and config.model_name is None:
        raise UsageError("model_id: must name the model that labels (or config.model_name does), got none")
    found = shelf.get(model_id) if model_id is not None else shelf.find(str(config.model_name), config.model_version)
    for name, wanted, got in (
        ("model_name", config.model_name, found.model_name),
        ("model_version", config.model_version, found.model_version),
    ):
        if wanted not in (None, got):
            raise UsageError(f"config.{name}: must be that of the model {found.model_id}, {got!r}, got {wanted!r}")
    return Chosen(found.path, found)


def run_request(
    request: TaskRequest,
    dataset: Dataset,
    out: Path,
    *,
    overwrite: bool = False,
    resume: bool = False,
    reporter: Reporter | None = None,
    stop: Event | None = None,
    shelf: Shelf | None = None,
    model: Path | None = None,
    allowed: Allowed = lambda path: path,
    base: Path | None = None,
) -> dict[str, Any]:
    """Do what a request asks for; see `runner.run`. shelf: where models are found that it names; those of this machine
    by default. model: the folder of the one that is meant instead. allowed: refuses paths of the request that may not
    be read. base: where its relative paths begin, by default at the data set. Raises UsageError for a task that is not
    in this version."""
    require_available(request.task_type)
    shelf = shelf or Shelf()
    dataset = prepared(request, dataset, allowed=allowed, base=base)
    if model is not None:
        task = prelabeling_task(request, dataset, Chosen(model, shelf.at(model)))
    else:
        task = TASKS[request.task_type](request, dataset, shelf)
    task = replace(_exporting(task, request), notices=(*task.notices, *inside_note(dataset, out)))
    return run(task, out, overwrite=overwrite, resume=resume, reporter=reporter, stop=stop)


def _exporting(task: Task, request: TaskRequest) -> Task:
    """The task, and after it the export of its result that the request asks for, to OUT/export."""
    config = request.config
    if not any(getattr(config, name) for name in ("export_params", "export_format", "version_format")):
        return task
    params = config.export_params or ExportParams()
    work_folder(params)
    format_for(config.export_format, config.version_format, params, boxes=False)  # what cannot be is said at once
    seed = read_parameters(config.parameters, request.task_type).seed
    job = task.job

    def both(this: Run) -> Outcome:
        outcome = job(this)
        result = read_samples(this.out.folder / RESULT_NAME)
        to = format_for(config.export_format, config.version_format, params, boxes=drawn_more(result.samples))
        done = export(result, Wanted(to, params, copy=True, seed=seed), this.out, folder=EXPORTS, stage=this.stage)
        for line in done.notes:
            this.note(line)
        return Outcome({**outcome.result, "export": done.result}, (*outcome.failures, *done.failures))

    return replace(task, job=both, stages={**task.stages, SELECTING: 1.0, WRITING: 3.0})
