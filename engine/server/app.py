"""The routes of the task API, and those that data sets, samples and tokens need around it.

    POST   /v2/{project_id}/datasets                                    register a data set
    GET    /v2/{project_id}/datasets[/{dataset_id}]
    DELETE /v2/{project_id}/datasets/{dataset_id}
    POST   .../{dataset_id}/tasks                                       start a task (CreateTask)
    GET    .../{dataset_id}/tasks[/{task_id}]
    POST   .../{dataset_id}/tasks/{task_id}/stop
    GET    .../{dataset_id}/tasks/{task_id}/files/{path}                what it wrote
    POST   .../{dataset_id}/export-tasks                                write an export
    GET    .../{dataset_id}/auto-annotations/samples                    automatic labels to be confirmed
    POST   .../{dataset_id}/auto-annotations/samples                    confirm them
    GET    .../{dataset_id}/data-annotations/samples                    all samples
    PUT    .../{dataset_id}/data-annotations/samples                    set labels and attributes
    GET    /v2/{project_id}/models                                      imported models
    GET    /v1/{project_id}/services[/{service_id}]                     what was deployed
    DELETE /v1/{project_id}/services/{service_id}
    POST   /v1/infers/{service_id}                                      what is on an image

Whatever is wrong with a request is answered as {"error_code", "error_msg"}. Reading and checking is done in threads, so
that who polls need not wait for it; what polling asks for takes a fraction of a millisecond, less than a thread costs.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import Annotated, Any, Final, TypeVar

import orjson
from fastapi import Depends, FastAPI, Header, Query, Request
from fastapi import Path as InPath
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from engine.dataset import Dataset, read_samples
from engine.errors import EngineError, UsageError
from engine.models import Shelf, read_model_info
from engine.samples import Sample
from engine.server import problems
from engine.server.answers import TYPE_NUMBERS, dataset_answer, task_answer
from engine.server.checks import Roots, as_problem, check_paths, check_request
from engine.server.database import OPEN, Database, DatasetRow, TaskRow
from engine.server.datasets import CURRENT, Standing, add_dataset, alone, change, data_folder, dataset_folder
from engine.server.inferring import MOST_IMAGE
from engine.server.inferring import Service as Inference
from engine.server.problems import Problem
from engine.server.queue import Queue
from engine.server.services import INFERS, Services, image_of, infer_schema
from engine.server.worker import OUT, export_format, task_folder
from engine.tasks.answers import sample_answer
from engine.tasks.conditions import known_id, marks_of, matching
from engine.tasks.confirming import confirm
from engine.tasks.deploying import read_service
from engine.tasks.exporting import FORMATS, work_folder
from engine.tasks.exporting import KIND as EXPORT
from engine.tasks.preparing import given_sample, prepared
from engine.tasks.request import checked_conditions, loaded, parse_request
from engine.tasks.runner import Status
from engine.tasks.schema import AUTO_DEPLOY, ExportParams, RequestBody, SampleLabels

#: Bytes of a JSON body at most: 100,000 samples with a label each are 10 MB.
MOST_BODY: Final = 32 * 2**20

#: What may be answered instead of what was asked for, by status.
_REFUSALS: Final[dict[int | str, str]] = {
    400: "the request cannot be meant, or not now",
    401: "X-Auth-Token is missing or unknown",
    403: "the token belongs to another project",
    404: "there is no such thing",
    413: "the body is too large",
}

_log = logging.getLogger("labelengine.server")

ProjectId = Annotated[str, InPath(min_length=1, max_length=64, pattern=r"^[\w-]+$", description="project")]
DatasetId = Annotated[str, InPath(min_length=1, max_length=64, description="data set")]
TaskId = Annotated[str, InPath(min_length=1, max_length=64, description="task")]
Limit = Annotated[int, Query(ge=1, le=100, description="how many are answered at most")]
Offset = Annotated[int, Query(ge=0, le=2**31, description="how many are passed over")]
Conditions = Annotated[str | None, Query(max_length=100_000, description="JSON: search conditions, joined by AND")]
ServiceId = Annotated[str, InPath(min_length=1, max_length=64, description="service")]
SampleId = Annotated[str, InPath(min_length=1, max_length=200, description="sample")]
Unit = Annotated[float, Query(ge=0, le=1, allow_inf_nan=False)]


class _Body(BaseModel):
    """A body that is read in a thread, after the token: see `_body`."""

    model_config = ConfigDict(extra="forbid")


class ErrorAnswer(_Body):
    error_code: str
    error_msg: str


class NewDataset(_Body):
    """A data set to register. data_path: a manifest or a folder on the machine of the server. map: where the sources
    that begin with a prefix lie, as `s3://bucket/=folder/`."""

    dataset_name: str = Field(min_length=1, max_length=100, pattern=r"^[\w][\w .+-]*$")
    data_path: str = Field(min_length=1, max_length=4096)
    format: str | None = None
    map: list[str] = Field(default_factory=list, max_length=64)


class NewExport(_Body):
    """What is exported, and how: `to` is one of the formats of `labelengine export`."""

    export_params: ExportParams = Field(default_factory=ExportParams)
    to: str | None = None
    seed: int = Field(default=0, ge=0, le=2**32 - 1)
    name: str | None = Field(default=None, max_length=200)


class Confirmation(_Body):
    """Which automatic labels become a person's: all; those less difficult than `below`; those of samples by id. labels:
    by sample id, what is right instead; no label takes them away. by: who says so."""

    all: bool = False
    below: float | None = Field(default=None, ge=0, le=1, allow_inf_nan=False)
    samples: list[str] = Field(default_factory=list, max_length=1_000_000)
    labels: dict[str, list[str]] = Field(default_factory=dict)
    by: str | None = Field(default=None, max_length=100)


class ChangedSamples(_Body):
    """Samples with their labels and attributes (CreateTask, table 12)."""

    samples: list[SampleLabels] = Field(min_length=1, max_length=100_000)


@dataclass(frozen=True, slots=True)
class Service:
    """What the routes work with."""

    home: Path
    database: Database
    queue: Queue
    standing: Standing
    roots: Roots
    open: bool
    services: Services
    adding: Lock = field(default_factory=Lock)

    def dataset(self, project_id: str, dataset_id: str) -> DatasetRow:
        row = self.database.dataset(dataset_id)
        if row is None or row.project_id != project_id:
            raise Problem(404, problems.NO_DATASET, f"data set {dataset_id!r}: there is none in this project")
        return row

    def data(self, row: DatasetRow) -> Dataset:
        return self.standing.dataset(row.dataset_id, row.name, row.map)

    def told(self, row: TaskRow) -> dict[str, Any]:
        """A task as it is answered."""
        service_id = None
        if row.kind == AUTO_DEPLOY and row.status == Status.SUCCEEDED:
            made = (each.service_id for each in self.database.services() if each.task_id == row.task_id)
            service_id = next(made, None)
        return task_answer(self.home, row, service_id)

    def task(self, project_id: str, dataset_id: str, task_id: str) -> TaskRow:
        self.dataset(project_id, dataset_id)
        row = self.database.task(task_id)
        if row is None or row.dataset_id != dataset_id:
            raise Problem(404, problems.NO_TASK, f"task {task_id!r}: there is none of this data set")
        return row


def create_app(home: Path, *, roots: Sequence[Path] = (), workers: int = 1, tokens: bool = True) -> FastAPI:
    """The service over a home folder. roots: folders that requests may name paths in. workers: tasks that run at once.
    tokens: whether X-Auth-Token is asked for; False: who can reach the port may do everything."""
    allowed = Roots(roots)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        database = Database(home)
        with Queue(database, allowed, workers=workers) as queue:
            services = Services(home, database)
            app.state.service = Service(home, database, queue, Standing(home), allowed, not tokens, services)
            yield
        services.close()
        database.close()

    app = FastAPI(
        title="labelengine",
        version="2",
        description="Intelligent tasks of a data-labeling service on one's own machine.\n\n"
        + "\n".join(f"- `{code}`: {meaning}" for code, meaning in problems.MEANINGS.items()),
        lifespan=lifespan,
        responses={status: {"model": ErrorAnswer, "description": words} for status, words in _REFUSALS.items()},
    )
    app.add_middleware(_Bounded)
    _answer_problems(app)
    _dataset_routes(app)
    _task_routes(app)
    _sample_routes(app)
    _service_routes(app)
    _describe(app, (RequestBody, NewDataset, NewExport, Confirmation, ChangedSamples))
    return app


def create_service_app(
    folder: Path, name: str, *, instances: int | None = None, collect: Path | None = None
) -> FastAPI:
    """One service alone, without tokens: the folder that auto-deploy wrote, or that of a model. instances: processes of
    each model instead of what it says. collect: a folder where requests are kept. Raises InputError."""
    plan = read_service(folder)
    if instances is not None:
        if instances < 1:
            raise UsageError(f"instances: must be at least 1, got {instances}")
        plan = replace(plan, models=tuple(replace(each, instance_count=instances) for each in plan.models))
    if collect is not None:
        plan = replace(plan, collect_sample=True, output_dir=os.fspath(collect))
    for model in plan.models:
        read_model_info(model.path)  # what is no model is said before the first request

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.service = Inference(name, plan, folder)
        yield
        app.state.service.close()

    app = FastAPI(title=f"labelengine: {name}", version="2", lifespan=lifespan)
    app.add_middleware(_Bounded)
    _answer_problems(app)

    @app.post(f"{INFERS}/{{service_id}}", summary="What is on an image", openapi_extra=infer_schema())
    async def infer(service_id: ServiceId, request: Request) -> dict[str, Any]:
        if service_id != name:
            raise Problem(404, problems.NO_SERVICE, f"service {service_id!r}: there is none, this is {name!r}")
        content = await image_of(request)
        answer: dict[str, Any] = await run_in_threadpool(request.app.state.service.answer, content)
        return answer

    return app


def _describe(app: FastAPI, models: Sequence[type[BaseModel]]) -> None:
    """Put the bodies of requests, which routes read themselves, into the OpenAPI document."""
    usual = app.openapi

    def with_bodies() -> dict[str, Any]:
        document: dict[str, Any] = usual()
        schemas = document["components"]["schemas"]
        for model in models:
            told = model.model_json_schema(ref_template="#/components/schemas/{model}")
            for name, definition in {**told.pop("$defs", {}), model.__name__: told}.items():
                schemas.setdefault(name, definition)
        return document

    app.openapi = with_bodies  # type: ignore[method-assign]


# ---- What every route shares. ----


def _service(request: Request) -> Service:
    found: Service = request.app.state.service
    return found


async def _authorized(
    request: Request,
    project_id: ProjectId,
    x_auth_token: Annotated[str | None, Header(max_length=200, description="the token of the project")] = None,
) -> Service:
    """The service, for who may use this project."""
    service = _service(request)
    check_token(service, project_id, x_auth_token)
    return service


def check_token(service: Service, project_id: str, token: str | None) -> None:
    """Raise Problem unless the token is one of this project."""
    if service.open:
        return
    project = service.database.project_of(token) if token else None
    if project is None:
        raise Problem(401, problems.NO_TOKEN, problems.MEANINGS[problems.NO_TOKEN])
    if project != project_id:
        raise Problem(403, problems.OTHER_PROJECT, problems.MEANINGS[problems.OTHER_PROJECT])


Allowed = Annotated[Service, Depends(_authorized)]


_Model = TypeVar("_Model", bound=BaseModel)
_Answer = TypeVar("_Answer")


async def _with_body(request: Request, model: type[_Model], answer: Callable[[_Model], _Answer]) -> _Answer:
    """What is answered to the body of a request; both are worked out in a thread. Raises Problem, EngineError."""
    content = await request.body()

    def work() -> _Answer:
        try:
            body = model.model_validate(loaded(content))
        except ValidationError as error:
            raise Problem(400, problems.BAD_REQUEST, _first(error.errors(include_url=False))) from None
        return answer(body)

    return await run_in_threadpool(work)


def _first(errors: Sequence[Any]) -> str:
    """The first of several errors of pydantic, with the place where it is."""
    first = errors[0]
    where = ".".join(str(part) for part in first["loc"] if part != "body")
    told = first["msg"].replace("Input should", "must").replace("Value error, ", "")
    return f"{where or 'the request'}: {told}"


def _schema(model: type[BaseModel]) -> dict[str, Any]:
    """The body of a route in the OpenAPI document."""
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}}}
    return {"requestBody": {"required": True, "content": content}}


class _Bounded:
    """Refuses what is too large before it is read: a body must say its length. (Not FastAPI's own kind of middleware,
    which costs as much as an answer to who polls.)"""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (problem := self._problem(scope)) is not None:
            await _as_answer(problem)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _problem(self, scope: Scope) -> Problem | None:
        headers = dict(scope["headers"])
        most = 2 * MOST_IMAGE if scope["path"].startswith(INFERS) else MOST_BODY  # base64 takes a third more
        told = headers.get(b"content-length", b"0")
        if not told.isdigit() or int(told) > most:
            return Problem(413, problems.TOO_LARGE, f"the body must have at most {most:,} bytes")
        if b"chunked" in headers.get(b"transfer-encoding", b"").lower():
            return Problem(413, problems.TOO_LARGE, "the body must say its length (Content-Length)")
        return None


def _as_answer(problem: Problem) -> JSONResponse:
    return JSONResponse(problem.body(), problem.status)


def _answer_problems(app: FastAPI) -> None:
    @app.exception_handler(Problem)
    async def of_problem(request: Request, error: Problem) -> JSONResponse:
        return _as_answer(error)

    @app.exception_handler(EngineError)
    async def of_engine(request: Request, error: EngineError) -> JSONResponse:
        return _as_answer(as_problem(error))

    @app.exception_handler(RequestValidationError)
    async def of_validation(request: Request, error: RequestValidationError) -> JSONResponse:
        return _as_answer(Problem(400, problems.BAD_REQUEST, _first(error.errors())))

    @app.exception_handler(HTTPException)
    async def of_http(request: Request, error: HTTPException) -> JSONResponse:
        code = problems.NO_PLACE if error.status_code == 404 else problems.BAD_REQUEST
        return JSONResponse(
            {"error_code": code, "error_msg": str(error.detail)}, error.status_code, headers=error.headers
        )

    @app.exception_handler(Exception)
    async def of_anything(request: Request, error: Exception) -> JSONResponse:
        _log.exception("%s %s", request.method, request.url.path, exc_info=error)
        return _as_answer(Problem(500, problems.INTERNAL, problems.MEANINGS[problems.INTERNAL]))


# ---- Data sets. ----


def _dataset_routes(app: FastAPI) -> None:
    @app.post(
        "/v2/{project_id}/datasets", status_code=201, summary="Register a data set", openapi_extra=_schema(NewDataset)
    )
    async def add(project_id: ProjectId, service: Allowed, request: Request) -> dict[str, str]:
        return await _with_body(request, NewDataset, lambda body: added(service, project_id, body))

    def added(service: Service, project_id: str, body: NewDataset) -> dict[str, str]:
        path = service.roots.allowed(Path(body.data_path))
        for entry in body.map:
            service.roots.allowed(Path(entry.partition("=")[2] or "/"))
        if any(each.name == body.dataset_name for each in service.database.datasets(project_id)):
            raise Problem(400, problems.NAME_TAKEN, f"dataset_name: {body.dataset_name!r} is taken")
        inside = service.roots.only
        told = (project_id, body.dataset_name, path, body.format, body.map)
        return {"dataset_id": add_dataset(service.database, *told, only=inside)}

    @app.get("/v2/{project_id}/datasets", summary="The data sets of a project")
    def listed(project_id: ProjectId, service: Allowed, limit: Limit = 10, offset: Offset = 0) -> dict[str, Any]:
        rows = service.database.datasets(project_id)
        return {"total_number": len(rows), "datasets": [dataset_answer(r, None) for r in rows[offset : offset + limit]]}

    @app.get("/v2/{project_id}/datasets/{dataset_id}", summary="One data set")
    def one(project_id: ProjectId, dataset_id: DatasetId, service: Allowed) -> dict[str, Any]:
        row = service.dataset(project_id, dataset_id)
        return dataset_answer(row, service.data(row))

    @app.delete("/v2/{project_id}/datasets/{dataset_id}", status_code=204, summary="Forget a data set")
    def remove(project_id: ProjectId, dataset_id: DatasetId, service: Allowed) -> Response:
        """Its tasks are stopped; the data that were registered stay as they are."""
        service.dataset(project_id, dataset_id)
        with service.adding:
            service.database.remove_dataset(dataset_id)
        for task in service.database.tasks(dataset_id, OPEN, bodies=False):
            service.queue.stop(task.task_id)
        service.standing.forget(dataset_id)
        return Response(status_code=204)

    @app.get("/v2/{project_id}/models", summary="The models that were imported on this machine")
    def models(project_id: ProjectId, service: Allowed) -> dict[str, Any]:
        known, _ = Shelf(service.home).all()
        found = [
            {
                "model_id": each.model_id,
                "model_name": each.model_name,
                "model_version": each.model_version,
                "model_type": each.info.type,
                "labels": list(each.info.labels),
                "create_at": round(1000 * each.created.timestamp()),
            }
            for each in known
        ]
        return {"total_count": len(found), "models": found}


# ---- Tasks. ----


def _task_routes(app: FastAPI) -> None:
    tasks = "/v2/{project_id}/datasets/{dataset_id}/tasks"

    @app.post(
        tasks,
        summary="Start an intelligent task (CreateTask)",
        openapi_extra=_schema(RequestBody),
    )
    async def start(project_id: ProjectId, dataset_id: DatasetId, request: Request, service: Allowed) -> dict[str, str]:
        body = await request.body()
        return await run_in_threadpool(_queued, service, project_id, dataset_id, body)

    @app.get(tasks, summary="The tasks of a data set")
    def listed(
        project_id: ProjectId,
        dataset_id: DatasetId,
        service: Allowed,
        limit: Limit = 10,
        offset: Offset = 0,
        task_name: Annotated[str | None, Query(max_length=200, description="part of the name")] = None,
        type: Annotated[int | None, Query(ge=0, le=3, description="0 auto-label, 1 pre-label, 2 auto-grouping")] = None,
    ) -> dict[str, Any]:
        """The newest first. Without `type`: those of auto labeling and pre-labeling."""
        service.dataset(project_id, dataset_id)
        wanted = {0, 1} if type is None else {type}
        rows = [
            row
            for row in reversed(service.database.tasks(dataset_id))
            if TYPE_NUMBERS.get(row.kind) in wanted and (not task_name or task_name in row.name)
        ]
        deploying = any(row.kind == AUTO_DEPLOY for row in service.database.tasks(dataset_id, OPEN))
        return {
            "total_count": len(rows),
            "exist_running_deploy_task": deploying,
            "tasks": [service.told(row) for row in rows[offset : offset + limit]],
        }

    @app.get(f"{tasks}/{{task_id}}", summary="One task: its status, progress, result")
    async def one(project_id: ProjectId, dataset_id: DatasetId, task_id: TaskId, service: Allowed) -> dict[str, Any]:
        return service.told(service.task(project_id, dataset_id, task_id))

    @app.post(f"{tasks}/{{task_id}}/stop", status_code=204, summary="Stop a task")
    def stop(project_id: ProjectId, dataset_id: DatasetId, task_id: TaskId, service: Allowed) -> Response:
        row = service.task(project_id, dataset_id, task_id)
        if not service.queue.stop(row.task_id):
            raise Problem(400, problems.NOT_RUNNING, f"task {task_id!r}: has ended, it cannot be stopped")
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
        openapi_extra=_schema(NewExport),
    )
    async def export(
        project_id: ProjectId, dataset_id: DatasetId, service: Allowed, request: Request
    ) -> dict[str, str]:
        return await _with_body(request, NewExport, lambda body: exported(service, project_id, dataset_id, body))

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


# ---- Services. ----


def _service_routes(app: FastAPI) -> None:
    @app.get("/v1/{project_id}/services", summary="The services of a project")
    def listed(project_id: ProjectId, service: Allowed) -> dict[str, Any]:
        found = [service.services.told(row) for row in service.database.services() if row.project_id == project_id]
        return {"total_count": len(found), "services": found}

    @app.get("/v1/{project_id}/services/{service_id}", summary="One service")
    def one(project_id: ProjectId, service_id: ServiceId, service: Allowed) -> dict[str, Any]:
        return service.services.told(service.services.row(service_id, project_id))

    @app.delete("/v1/{project_id}/services/{service_id}", status_code=204, summary="Stop and forget a service")
    def remove(project_id: ProjectId, service_id: ServiceId, service: Allowed) -> Response:
        service.services.remove(service.services.row(service_id, project_id))
        return Response(status_code=204)

    @app.post(f"{INFERS}/{{service_id}}", summary="What is on an image, by a service", openapi_extra=infer_schema())
    async def infer(
        service_id: ServiceId,
        request: Request,
        x_auth_token: Annotated[str | None, Header(max_length=200, description="the token of the project")] = None,
    ) -> dict[str, Any]:
        """A file in a form (multipart), `{"image": "..."}` with base64, or the bytes of an image alone."""
        service = _service(request)
        row = await run_in_threadpool(service.services.row, service_id)
        await run_in_threadpool(check_token, service, row.project_id, x_auth_token)
        content = await image_of(request)
        return await run_in_threadpool(service.services.answer, row, content)


# ---- Samples. ----


def _sample_routes(app: FastAPI) -> None:
    automatic = "/v2/{project_id}/datasets/{dataset_id}/auto-annotations/samples"
    everything = "/v2/{project_id}/datasets/{dataset_id}/data-annotations/samples"

    @app.get(automatic, summary="Samples with automatic labels that are to be confirmed")
    def to_confirm(
        project_id: ProjectId,
        dataset_id: DatasetId,
        service: Allowed,
        limit: Limit = 10,
        offset: Offset = 0,
        low_score: Unit = 0.0,
        high_score: Unit = 1.0,
        label_name: Annotated[str | None, Query(max_length=1024)] = None,
        label_type: Annotated[int | None, Query(ge=0, le=900)] = None,
        order: Annotated[str, Query(pattern="^(asc|desc)$", description="by the lowest score of a sample")] = "desc",
        search_conditions: Conditions = None,
    ) -> dict[str, Any]:
        """Samples one of whose labels has a score in low_score..high_score, by score."""
        data = service.data(service.dataset(project_id, dataset_id))
        rows = matching(data, _conditions(search_conditions), every=True, state="AUTO_ANNOTATION").tolist()
        found = []
        for row in rows:
            marks = [
                mark
                for mark in marks_of(data[row])
                if label_name in (None, mark.name) and label_type in (None, mark.type)
            ]
            scores = [mark.score for mark in marks if mark.score is not None and low_score <= mark.score <= high_score]
            free = low_score <= 0 and not any(mark.score is not None for mark in marks)
            if scores or (free and (marks or (label_name is None and label_type is None))):
                found.append((min(scores, default=0.0), row))
        found.sort(key=lambda each: (each[0] if order == "asc" else -each[0], each[1]))
        return _page(data, [row for _, row in found], limit, offset)

    @app.post(automatic, summary="Confirm or correct automatic labels", openapi_extra=_schema(Confirmation))
    async def confirmed(
        project_id: ProjectId, dataset_id: DatasetId, service: Allowed, request: Request
    ) -> dict[str, int]:
        return await _with_body(request, Confirmation, lambda body: _confirmed(service, project_id, dataset_id, body))

    @app.get(everything, summary="The samples of a data set")
    def samples(
        project_id: ProjectId,
        dataset_id: DatasetId,
        service: Allowed,
        limit: Limit = 10,
        offset: Offset = 0,
        sample_state: Annotated[str | None, Query(max_length=64, description="ALL, NONE, ACCEPTED, ...")] = None,
        search_conditions: Conditions = None,
    ) -> dict[str, Any]:
        data = service.data(service.dataset(project_id, dataset_id))
        state = None if sample_state is None else checked_conditions([], sample_state)[1]
        rows = matching(data, _conditions(search_conditions), every=True, state=state).tolist()
        return _page(data, rows, limit, offset)

    @app.get(f"{everything}/{{sample_id}}", summary="One sample")
    def sample(
        project_id: ProjectId,
        dataset_id: DatasetId,
        sample_id: SampleId,
        service: Allowed,
    ) -> dict[str, Any]:
        data = service.data(service.dataset(project_id, dataset_id))
        for row, each in enumerate(data.samples):
            if known_id(each) == sample_id:
                return sample_answer(data, row)
        raise Problem(404, problems.NO_SAMPLE, f"sample {sample_id!r}: there is none in this data set")

    @app.put(everything, summary="Set labels and attributes of samples", openapi_extra=_schema(ChangedSamples))
    async def changed(
        project_id: ProjectId, dataset_id: DatasetId, service: Allowed, request: Request
    ) -> dict[str, Any]:
        """Labels as a person gives them, a sample that is given none loses those it has; attributes, and the state that
        a team sets, in `metadata` (`@labelengine:sample_state`)."""
        return await _with_body(request, ChangedSamples, lambda body: _changed(service, project_id, dataset_id, body))


def _changed(service: Service, project_id: str, dataset_id: str, body: ChangedSamples) -> dict[str, Any]:
    row = service.dataset(project_id, dataset_id)
    there = {known_id(sample) for sample in service.data(row).samples}
    wanted = {each.sample_id or "": each for each in body.samples}
    for sample_id in wanted:
        if sample_id not in there:
            raise Problem(404, problems.NO_SAMPLE, f"sample {sample_id!r}: there is none in this data set")

    def with_labels(before: Dataset) -> list[Sample]:
        return [
            sample if (given := wanted.get(known_id(sample))) is None else _given(sample, given)
            for sample in before.samples
        ]

    change(service.home, row.dataset_id, with_labels)
    return {"success": True, "results": [{"sample_id": each, "success": True} for each in wanted]}


def _given(sample: Sample, given: SampleLabels) -> Sample:
    new = given_sample(sample, given, f"sample {known_id(sample)}")
    return new if given.labels is not None else replace(new, labels=sample.labels)


def _conditions(text: str | None) -> Any:
    if text is None:
        return ()
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise Problem(400, problems.BAD_REQUEST, f"search_conditions: must be JSON, is not: {error}") from None
    return checked_conditions(found if isinstance(found, list) else [found])[0]


def _page(data: Dataset, rows: list[int], limit: int, offset: int) -> dict[str, Any]:
    shown = rows[offset : offset + limit]
    return {"sample_count": len(rows), "samples": [sample_answer(data, row) for row in shown]}


def _confirmed(service: Service, project_id: str, dataset_id: str, body: Confirmation) -> dict[str, int]:
    """The rules of `labelengine confirm`, on the data set as it stands."""
    row = service.dataset(project_id, dataset_id)
    data = service.data(row)
    by_id = {known_id(sample): sample.source for sample in data.samples}
    unknown = [each for each in (*body.samples, *body.labels) if each not in by_id]
    if unknown:
        raise Problem(404, problems.NO_SAMPLE, f"sample {unknown[0]!r}: there is none in this data set")
    labels: dict[str, list[str]] = {by_id[each]: names for each, names in body.labels.items()}
    if not (body.all or body.below is not None or body.samples or labels):
        raise Problem(400, problems.BAD_REQUEST, "must say which labels: all, below, samples or labels")
    folder = dataset_folder(service.home, row.dataset_id)
    with alone(folder):
        done = confirm(
            folder / CURRENT,
            all=body.all,
            below=body.below,
            samples=[by_id[each] for each in body.samples] or None,
            labels=labels or None,
            by=body.by,
            map=row.map,
        )
    return {
        "confirmed_count": done.confirmed,
        "corrected_count": done.corrected,
        "rejected_count": done.rejected,
        "kept_count": done.kept,
        "unconfirmed_count": done.waiting,
    }
