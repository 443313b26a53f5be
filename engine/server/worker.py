"""One task in a process of its own: `python -m engine.server.worker HOME TASK_ID`.

It is given the lock of its folder, and has it for as long as it lives, so that a server that was started again knows
whether it does, and no task is run twice at once. HOME/tasks/ID then holds out/, with task.json; error.json, where a
task could not even begin; and landed, once the result is in the data set. SIGTERM stops it, as Ctrl-C does on the
command line.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from threading import Event
from typing import IO, Any, Final

import orjson

from engine.dataset import Dataset, read_samples
from engine.errors import EngineError, InputError, Stopped, UsageError
from engine.files import write_bytes
from engine.models import Shelf
from engine.server.checks import Roots
from engine.server.database import Database, ServiceRow, TaskRow, new_id
from engine.server.datasets import add_dataset, begin, begun_with, data_folder, forget_base, land
from engine.server.problems import Problem
from engine.tasks.catalog import run_request
from engine.tasks.conditions import drawn_more
from engine.tasks.exporting import KIND as EXPORT
from engine.tasks.exporting import NEW, Wanted, export_task, format_for, suggested_format
from engine.tasks.preparing import prepared
from engine.tasks.request import parse_request
from engine.tasks.runner import Task, read_answer, run
from engine.tasks.schema import AUTO_DEPLOY, ExportParams

TASKS: Final = "tasks"
OUT: Final = "out"
ERROR: Final = "error.json"
LANDED: Final = "landed"
LOCK: Final = "lock"

DONE: Final = 0
FAILED: Final = 1
STOPPED: Final = 2


def task_folder(home: Path, task_id: str) -> Path:
    return home / TASKS / task_id


def locked(folder: Path) -> IO[bytes] | None:
    """The lock of a task's folder, taken, to be handed on to the worker: it is held until every process that has it
    open has ended. None where somebody else holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    file = (folder / LOCK).open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    file.truncate(0)
    return file


def is_held(folder: Path) -> int | None:
    """The process that works on a task: its id, 0 where that is not written yet; None where nobody does."""
    try:
        with (folder / LOCK).open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return int(file.read() or b"0")
    except (OSError, ValueError):
        return None
    return None


def work(home: Path, task_id: str, roots: Roots, stop: Event) -> int:
    """Do a task to its end, or until `stop` is set; the exit code."""
    folder = task_folder(home, task_id)
    database = Database(home)
    row = database.task(task_id)
    dataset = None if row is None else database.dataset(row.dataset_id)
    database.close()
    try:
        if row is None or dataset is None:
            raise InputError("the data set of this task is gone")
        (folder / ERROR).unlink(missing_ok=True)
        begin(home, row.dataset_id, task_id)
        data = begun_with(home, row.dataset_id, task_id, dataset.name, dataset.map)
        if row.kind == EXPORT:
            run(export_of(row, data), folder / OUT, resume=True, same_task=True, stop=stop)
            _register_export(home, row, read_answer(folder / OUT).get("result"), folder / OUT)
        else:
            beside = data_folder(dataset)
            inside = roots.with_folder(beside)
            request = parse_request(row.body)
            read = lambda path, map: inside.only(read_samples(path, map=map))  # noqa: E731
            run_request(
                request,
                data,
                folder / OUT,
                resume=True,
                same_task=True,
                stop=stop,
                shelf=Shelf(home),
                allowed=inside.allowed,
                base=beside,
                read=read,
            )
            _register_export(home, row, (read_answer(folder / OUT).get("result") or {}).get("export"), folder / OUT)
            if row.kind == AUTO_DEPLOY:
                _serve(home, row, folder / OUT)
            else:
                named = request.config.manifest_path
                other = prepared(request, data, allowed=inside.allowed, base=beside, read=read) if named else None
                land(home, row.dataset_id, task_id, folder / OUT, other, dataset.map)
        write_bytes(folder / LANDED, b"")
        forget_base(home, row.dataset_id, task_id)
    except (Stopped, KeyboardInterrupt):
        return STOPPED
    except (EngineError, Problem) as error:
        told = error.body() if isinstance(error, Problem) else _told(error)
        write_bytes(folder / ERROR, orjson.dumps(told))
        return FAILED
    return DONE


def _serve(home: Path, row: TaskRow, out: Path) -> None:
    """Remember the service that a task has written, once."""
    database = Database(home)
    if all(each.task_id != row.task_id for each in database.services()):
        service = ServiceRow(
            new_id(), row.project_id, row.dataset_id, row.task_id, {"folder": os.fspath(out.resolve())}, time.time()
        )
        database.add_service(service)
    database.close()


def export_of(row: TaskRow, data: Dataset) -> Task:
    """The task that writes an export, from the body of its request. Raises UsageError."""
    body = row.body
    params = ExportParams.model_validate(body.get("export_params") or {})
    to, seed = export_format(body, params, data), int(body.get("seed", 0))
    return export_task(data, Wanted(to, params, copy=True, seed=seed))


def export_format(body: Mapping[str, Any], params: ExportParams, data: Dataset) -> str:
    """The format that a request for an export means. Raises UsageError for one that cannot be written."""
    if body.get("to"):
        if params.export_dest == "NEW_DATASET" and body["to"] != NEW:
            raise UsageError(f"to: must be {NEW!r} where a new data set is asked for, got {body['to']!r}")
        return str(body["to"])
    boxes = drawn_more(data.samples)
    said = body.get("export_format"), body.get("version_format")
    if said == (None, None) and params.export_dest == "DIR" and not params.export_dataset_version_format:
        return suggested_format(data)
    return format_for(*said, params, boxes=boxes)


def _register_export(home: Path, row: TaskRow, result: Mapping[str, Any] | None, out: Path) -> None:
    """A new data set that an export has made is one that the service knows, under its name, once. result: of the
    export; None: there was none."""
    if result is None or result.get("export_dest") != "NEW_DATASET":
        return
    name = str(result["dataset_name"])
    database = Database(home)
    path = (out / str(result["path"])).resolve()
    known = database.datasets(row.project_id)
    if all(Path(each.data) != path for each in known):
        taken = any(each.name == name for each in known)
        add_dataset(database, row.project_id, f"{name}-{row.task_id[:8]}" if taken else name, path)
    database.close()


def _told(error: EngineError) -> dict[str, str]:
    return {"error_code": type(error).__name__, "error_msg": str(error)}


def main(arguments: list[str]) -> int:
    home, task_id, *roots = arguments
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return work(Path(home), task_id, Roots([Path(root) for root in roots]), stop)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
