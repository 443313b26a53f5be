"""Which tasks there are, by the task type of a request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any, Final

from engine.dataset import Dataset, inside_note
from engine.detect.sketches import human_drawings
from engine.label.targets import human_labels
from engine.samples import IMAGE_CLASSIFICATION, LABEL_TYPES, OBJECT_DETECTION
from engine.tasks.detecting import detecting_task
from engine.tasks.grouping import grouping_task
from engine.tasks.labeling import labeling_task
from engine.tasks.parameters import read_parameters
from engine.tasks.request import require_available
from engine.tasks.runner import Reporter, Task, run
from engine.tasks.schema import AUTO_GROUPING, AUTO_LABEL, TaskRequest


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


TASKS: Final[dict[str, Callable[[TaskRequest, Dataset], Task]]] = {
    AUTO_GROUPING: grouping_task,
    AUTO_LABEL: auto_label_task,
}


def run_request(
    request: TaskRequest,
    dataset: Dataset,
    out: Path,
    *,
    overwrite: bool = False,
    resume: bool = False,
    reporter: Reporter | None = None,
    stop: Event | None = None,
) -> dict[str, Any]:
    """Do what a request asks for; see `runner.run`. Raises UsageError for a task that is not in this version."""
    require_available(request.task_type)
    task = TASKS[request.task_type](request, dataset)
    task = replace(task, notices=(*task.notices, *inside_note(dataset, out)))
    return run(task, out, overwrite=overwrite, resume=resume, reporter=reporter, stop=stop)
