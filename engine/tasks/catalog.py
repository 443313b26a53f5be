"""Which tasks there are, by the task type of a request."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any, Final

from engine.dataset import RESULT_NAME, Dataset, inside_note, read_samples
from engine.errors import InputError
from engine.models import DETECTOR_TYPE, Shelf, read_model_info
from engine.tasks.conditions import drawn_more, known_id
from engine.tasks.deploying import deploying_task
from engine.tasks.detecting import detecting_task
from engine.tasks.exporting import SELECTING, WRITING, Wanted, export, format_for, work_folder
from engine.tasks.grouping import grouping_task
from engine.tasks.labeling import labeling_task
from engine.tasks.parameters import read_parameters
from engine.tasks.prelabeling import Chosen, prelabeling_task
from engine.tasks.preparing import Allowed, Reading, labels_boxes, named_model, prepared, read_mapped, with_places
from engine.tasks.runner import Outcome, Reporter, Run, Task, run
from engine.tasks.schema import AUTO_DEPLOY, AUTO_GROUPING, AUTO_LABEL, PRE_LABEL, ExportParams, TaskRequest

#: Below OUT, where a request asks for an export of its result.
EXPORTS: Final = "export"
#: Fields of a request that ask for one.
_ASKING_EXPORT: Final = ("export_params", "export_format", "version_format")


def auto_label_task(request: TaskRequest, dataset: Dataset) -> Task:
    """Auto labeling of what people labeled: images or boxes, by the parameter label_type, else by what more of them
    have. Raises UsageError or InputError for options that fail."""
    asked = read_parameters(request.config.parameters, request.task_type).label_type
    task = detecting_task if labels_boxes(dataset, asked) else labeling_task
    return task(request, dataset)


TASKS: Final[dict[str, Callable[[TaskRequest, Dataset, Shelf], Task]]] = {
    AUTO_GROUPING: lambda request, dataset, shelf: grouping_task(request, dataset),
    AUTO_LABEL: lambda request, dataset, shelf: auto_label_task(request, dataset),
    PRE_LABEL: lambda request, dataset, shelf: prelabeling_task(request, dataset, chosen(request, shelf)),
    AUTO_DEPLOY: deploying_task,
}


def chosen(request: TaskRequest, shelf: Shelf) -> Chosen:
    """The imported model that a request names (see `named_model`)."""
    found = named_model(request, shelf)
    return Chosen(found.path, found)


def run_request(
    request: TaskRequest,
    dataset: Dataset,
    out: Path,
    *,
    overwrite: bool = False,
    resume: bool = False,
    same_task: bool = False,
    reporter: Reporter | None = None,
    stop: Event | None = None,
    shelf: Shelf | None = None,
    model: Path | None = None,
    allowed: Allowed = lambda path: path,
    base: Path | None = None,
    read: Reading = read_mapped,
) -> dict[str, Any]:
    """Do what a request asks for; see `runner.run`. shelf: where models are found that it names; those of this machine
    by default. model: the folder of the one that is meant instead. allowed: refuses paths of the request that may not
    be read. base: where its relative paths begin, by default at the data set. read: reads other data
    sets that it names."""
    shelf = shelf or Shelf()
    request = with_places(request, dataset, allowed=allowed, base=base)
    dataset = prepared(request, dataset, allowed=allowed, base=base, read=read)
    if model is not None:
        task = prelabeling_task(request, dataset, Chosen(model, shelf.at(model)))
    else:
        task = TASKS[request.task_type](request, dataset, shelf)
    if any(getattr(request.config, name) for name in _ASKING_EXPORT):
        task = _exporting(task, request, dataset, boxes=_gives_boxes(request, dataset, shelf, model))
    task = replace(task, notices=(*task.notices, *inside_note(dataset, out)))
    return run(task, out, overwrite=overwrite, resume=resume, same_task=same_task, reporter=reporter, stop=stop)


def _as_asked(dataset: Dataset, result: Dataset) -> Dataset:
    """What a task has written about the samples of a data set, under the ids and sources that the request knows."""
    samples = []
    for old, new in zip(dataset.samples[: dataset.own], result.samples, strict=True):
        # The files of the result lie elsewhere than those of the data set: what is drawn is written anew.
        labels = (replace(each, annotation_loc=None) if each.drawing is not None else each for each in new.labels)
        answer = None if new.inference_loc is None else os.path.abspath(result.sources.root / new.inference_loc)
        samples.append(replace(new, source=old.source, id=known_id(old), labels=tuple(labels), inference_loc=answer))
    return replace(result, samples=tuple(samples), sources=dataset.sources)


def _gives_boxes(request: TaskRequest, dataset: Dataset, shelf: Shelf, model: Path | None) -> bool:
    """Whether what a task gives are boxes, and not labels of images; of a task that gives neither, whether more samples
    carry them. model: as in `run_request`."""
    if request.task_type == PRE_LABEL:
        return read_model_info(model or chosen(request, shelf).path).type == DETECTOR_TYPE
    asked = read_parameters(request.config.parameters, request.task_type).label_type
    if request.task_type == AUTO_LABEL or asked is not None:
        return labels_boxes(dataset, asked)
    return drawn_more(dataset.samples[: dataset.own])


def _exporting(task: Task, request: TaskRequest, dataset: Dataset, *, boxes: bool) -> Task:
    """The task, and after it the export of its result that the request asks for, to OUT/export. boxes: whether the
    result is one of boxes. What cannot be exported is said, and takes nothing away from the result."""
    config = request.config
    params = config.export_params or ExportParams()
    options = read_parameters(config.parameters, request.task_type)
    work_folder(params)
    to = format_for(config.export_format, config.version_format, params, boxes=boxes)
    job = task.job

    def both(this: Run) -> Outcome:
        outcome = job(this)
        wanted = Wanted(to, params, copy=True, seed=options.seed)
        try:
            written = this.out.folder / RESULT_NAME
            result = replace(dataset, samples=dataset.samples[: dataset.own], guests=0)
            if written.is_file():
                result = _as_asked(dataset, read_samples(written, map=dataset.sources.map))
            done = export(result, wanted, this.out, folder=EXPORTS, stage=this.stage)
        except InputError as error:
            this.note(f"the export was not written: {error}")
            return replace(outcome, result={**outcome.result, "export": None})
        for line in done.notes:
            this.note(line)
        return Outcome({**outcome.result, "export": done.result}, (*outcome.failures, *done.failures))

    return replace(task, job=both, stages={**task.stages, SELECTING: 1.0, WRITING: 3.0})
