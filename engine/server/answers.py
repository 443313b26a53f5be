"""Data sets and tasks as the service answers them (task API)."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Final

from engine.dataset import Dataset
from engine.server.database import DatasetRow, TaskRow
from engine.server.queue import read_json
from engine.server.worker import OUT, task_folder
from engine.tasks.runner import MESSAGES, TASK_NAME, Status
from engine.tasks.schema import AUTO_DEPLOY, AUTO_GROUPING, AUTO_LABEL, PRE_LABEL

#: The integers that the service has for tasks.
TYPE_NUMBERS: Final = {AUTO_LABEL: 0, PRE_LABEL: 1, AUTO_GROUPING: 2, AUTO_DEPLOY: 3}


def task_answer(home: Path, row: TaskRow, service_id: str | None = None) -> dict[str, Any]:
    """One task. service_id: of the service that it has deployed. What the queue knows (status, times, how it ended)
    goes before what the task wrote itself."""
    written = read_json(task_folder(home, row.task_id) / OUT / TASK_NAME)
    ended = row.status in (Status.SUCCEEDED, Status.FAILED, Status.STOPPED)
    seconds = 0.0 if row.started is None else max(0.0, (row.ended or time.time()) - row.started)
    progress = float(written.get("progress") or 0.0)
    return {
        "task_id": row.task_id,
        "task_name": row.name,
        "task_type": row.kind,
        "type": TYPE_NUMBERS.get(row.kind),
        "status": int(row.status),
        "progress": 100.0 if row.status == Status.SUCCEEDED else min(progress, 99.9),
        "code": row.error_code,
        "message": MESSAGES[row.status],
        "error_code": row.error_code,
        "error_msg": row.error_msg.partition("\n")[0],
        "error_detail": row.error_msg,
        "config": row.body.get("config") or {},
        "create_time": round(1000 * row.created),
        "elapsed_time": round(seconds, 3),
        "export_type": written.get("export_type"),
        "resource_id": service_id,
        "result": (written.get("result") or {}) if ended else {},
        "failures": written.get("failures") or [],
        "timings": written.get("timings") or [],
        "notices": written.get("notices") or [],
    }


def dataset_answer(row: DatasetRow, dataset: Dataset | None) -> dict[str, Any]:
    """One data set; with its counts where it could be read."""
    answer: dict[str, Any] = {
        "dataset_id": row.dataset_id,
        "dataset_name": row.name,
        "project_id": row.project_id,
        "data_path": row.data,
        "create_time": round(1000 * row.created),
    }
    if dataset is not None:
        states = [sample.state for sample in dataset]
        human = sum(any(label.by_human for label in sample.labels) for sample in dataset)
        answer |= {
            "total_sample_count": len(dataset),
            "annotated_sample_count": human,
            "unconfirmed_sample_count": states.count("AUTO_ANNOTATION"),
        }
    return answer
