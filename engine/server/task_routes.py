"""The routes of tasks: start, look, stop, take what they wrote; and of exports."""

from __future__ import annotations

import os
from typing import Annotated, Any

import orjson
from fastapi import FastAPI, Query, Request
from fastapi.responses import FileResponse, Response
from pydantic import Field
from starlette.concurrency import run_in_threadpool

from engine.dataset import read_samples
from engine.models import Shelf
from engine.server import problems
from engine.server.answers import TYPE_NUMBERS
from engine.server.checks import check_paths, check_request
from engine.server.database import OPEN, DatasetRow
from engine.server.datasets import data_folder
from engine.server.forms import NewTaskId, TaskForm, TaskList
from engine.server.problems import Problem
from engine.server.wire import (
    Allowed,
    Body,
    DatasetId,
    Limit,
    Offset,
    ProjectId,
    Service,
    TaskId,
    answered,
    body_schema,
    with_body,
)
from engine.server.worker import OUT, export_format, task_folder
from engine.tasks.exporting import FORMATS, work_folder
from engine.tasks.exporting import KIND as EXPORT
from engine.tasks.preparing import prepared, with_places
from engine.tasks.request import parse_request
from engine.tasks.runner import Status
from engine.tasks.schema import AUTO_DEPLOY, ExportParams, RequestBody


class NewExport(Body):
    """What is exported, and how: `to` is one of the formats of `labelengine export`."""

    export_params: ExportParams = Field(default_factory=ExportParams)
    to: str | None = None
    seed: int = Field(default=0, ge=0, le=2**32 - 1)
    name: str | None = Field(default=None, max_length=200)


def task_routes(app: FastAPI) -> None:
    tasks = "/v2/{project_id}/datasets/{dataset_id}/tasks"

    @app.post(
        tasks,
        summary="Start an intelligent task (CreateTask)",
        openapi_extra=body_schema(RequestBody),
        response_model=NewTaskId,
    )
    async def start(project_id: ProjectId, dataset_id: DatasetId, request: Request, service: Allowed) -> Response:
        body = await request.body()
        return answered(await run_in_threadpool(_queued, service, project_id, dataset_id, body))

    @app.get(tasks, summary="The tasks of a data set", response_model=TaskList)
    def listed(
        project_id: ProjectId,
        dataset_id: DatasetId,
        service: Allowed,
        limit: Limit = 10,
        offset: Offset = 0,
        task_name: Annotated[str | None, Query(max_length=200, description="part of the name")] = None,
        type: Annotated[int | None, Query(ge=0, le=3, description="0 auto-label, 1 pre-label, 2 auto-grouping")] = None,
        task_type: Annotated[str | None, Query(max_length=100, description="auto-label, ..., export")] = None,
    ) -> Response:
        """The newest first. Without `type` and `task_type`: those of auto labeling and pre-labeling."""
        service.dataset(project_id, dataset_id)
        numbers = {0, 1} if type is None else {type}
        wanted = {task_type} if task_type else {name for name, number in TYPE_NUMBERS.items() if number in numbers}
        rows = [
            row
            for row in reversed(service.database.tasks(dataset_id))
            if row.kind in wanted and (not task_name or task_name in row.name)
        ]
        deploying = any(row.kind == AUTO_DEPLOY for row in service.database.tasks(dataset_id, OPEN, bodies=False))
        found = [service.told(row) for row in rows[offset : offset + limit]]
        return answered({"total_count": len(rows), "exist_running_deploy_task": deploying, "tasks": found})

    @app.get(f"{tasks}/{{task_id}}", summary="One task: its status, progress, result", response_model=TaskForm)
    async def one(project_id: ProjectId, dataset_id: DatasetId, task_id: TaskId, service: Allowed) -> Response:
        return answered(service.told(service.task(project_id, dataset_id, task_id)))

    @app.post(f"{tasks}/{{task_id}}/stop", status_code=204, summary="Stop a task")
    def stop(project_id: ProjectId, dataset_id: DatasetId, task_id: TaskId, service: Allowed) -> Response:
        row = service.task(project_id, dataset_id, task_id)
        if not service.queue.stop(row.task_id):
            raise Problem(400, problems.NOT_RUNNING, f"task {task_id!r}: has ended, it cannot be stopped")
        return Response(status_code=204)

    @app.post(f"{tasks}/{{task_id}}/resume", status_code=204, summary="Let a task go on that has stopped or failed")
    def resume(project_id: ProjectId, dataset_id: DatasetId, task_id: TaskId, service: Allowed) -> Response:
        """From where it stopped, as far as what it had done was kept."""
        row = service.task(project_id, dataset_id, task_id)
        if not service.queue.resume(row.task_id):
            raise Problem(400, problems.NOT_STOPPED, f"task {task_id!r}: has neither stopped nor failed")
        return Response(status_code=204)

    @app.get(
        f"{tasks}/{{task_id}}/files/{{path:path}}",
        summary="A file that a task wrote",
        response_class=FileResponse,
    )
    def file(
        project_id: ProjectId, dataset_id: DatasetId, task_id: TaskId, path: str, service: Allowed
    ) -> FileResponse:
        row = service.task(project_id, dataset_id, task_id)
        folder = os.path.realpath(task_folder(service.home, row.task_id) / OUT)
        try:
            real = os.path.realpath(os.path.join(folder, path))
            inside = real.startswith(folder + os.sep) and os.path.isfile(real)
        except ValueError:  # a zero byte
            inside = False
        if not inside:
            raise Problem(404, problems.NO_PLACE, f"{path[:200]!r}: no such file was written by this task")
        return FileResponse(real)

    @app.post(
        "/v2/{project_id}/datasets/{dataset_id}/export-tasks",
        summary="Write some samples of a data set as an export",
        openapi_extra=body_schema(NewExport),
        response_model=NewTaskId,
    )
    async def export(project_id: ProjectId, dataset_id: DatasetId, service: Allowed, request: Request) -> Response:
        work = lambda body: exported(service, project_id, dataset_id, body)  # noqa: E731
        return answered(await with_body(request, NewExport, work))

    def exported(service: Service, project_id: str, dataset_id: str, body: NewExport) -> dict[str, str]:
        row = service.dataset(project_id, dataset_id)
        if body.to is not None and body.to not in FORMATS:
            raise Problem(400, problems.BAD_REQUEST, f"to: must be one of {', '.join(FORMATS)}, got {body.to!r}")
        told = body.model_dump(mode="json", by_alias=True, exclude_unset=True)
        work_folder(body.export_params)
        export_format(told, body.export_params, service.data(row))  # what cannot be written is said at once
        return {"task_id": _add(service, row, EXPORT, body.name or f"{EXPORT} {row.name}", told)}


def _queued(service: Service, project_id: str, dataset_id: str, body: bytes) -> dict[str, str]:
    row = service.dataset(project_id, dataset_id)
    request = parse_request(body)
    base = data_folder(row)
    inside = service.roots.with_folder(base)
    check_paths(request, inside, base)
    with_places(request, service.data(row), allowed=inside.allowed, base=base)
    reading = lambda path, map: inside.only(read_samples(path, map=map))  # noqa: E731
    data = prepared(request, service.data(row), allowed=inside.allowed, base=base, read=reading)
    check_request(request, data, Shelf(service.home))
    told = request.body()
    name = request.config.name or f"{request.task_type} {row.name}"
    return {"task_id": _add(service, row, request.task_type, name, told)}


def _add(service: Service, row: DatasetRow, kind: str, name: str, body: dict[str, Any]) -> str:
    """Queue a task. The very same one, while it is queued or runs, is refused."""
    same = orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
    with service.adding:
        for other in service.database.tasks(row.dataset_id, OPEN):
            if other.kind == kind and orjson.dumps(other.body, option=orjson.OPT_SORT_KEYS) == same:
                message = f"this task is {Status(other.status).name.lower()} already: {other.task_id}"
                raise Problem(400, problems.ALREADY_RUNNING, message)
        if service.database.dataset(row.dataset_id) is None:
            raise Problem(404, problems.NO_DATASET, f"data set {row.dataset_id!r}: there is none in this project")
        task_id = service.database.add_task(row.project_id, row.dataset_id, kind, name, body)
    service.queue.wake()
    return task_id
