"""What every route shares: what it works with, ids and numbers of an address, tokens, bodies, how problems are told."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Annotated, Any, Final, TypeVar

import orjson
from fastapi import Depends, FastAPI, Header, Query, Request
from fastapi import Path as InPath
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from engine.dataset import Dataset
from engine.errors import EngineError
from engine.server import problems
from engine.server.answers import task_answer
from engine.server.checks import Roots, as_problem
from engine.server.database import Database, DatasetRow, TaskRow
from engine.server.datasets import Standing
from engine.server.inferring import MOST_IMAGE
from engine.server.problems import Problem
from engine.server.queue import Queue
from engine.server.services import INFERS, Services
from engine.tasks.request import loaded
from engine.tasks.runner import Status
from engine.tasks.schema import AUTO_DEPLOY

#: Bytes of a JSON body at most: 100,000 samples with a label each are 10 MB.
MOST_BODY: Final = 32 * 2**20

#: What may be answered instead of what was asked for, by status.
REFUSALS: Final[dict[int | str, str]] = {
    400: "the request cannot be meant, or not now",
    401: "X-Auth-Token is missing or unknown",
    403: "the token belongs to another project",
    404: "there is no such thing",
    413: "the body is too large",
    507: "there is no room to keep what was asked for",
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


class Body(BaseModel):
    """A body that is read in a thread, after the token: see `with_body`."""

    model_config = ConfigDict(extra="forbid")


class ErrorAnswer(Body):
    error_code: str
    error_msg: str


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


def service_of(request: Request) -> Service:
    found: Service = request.app.state.service
    return found


async def _authorized(
    request: Request,
    project_id: ProjectId,
    x_auth_token: Annotated[str | None, Header(max_length=200, description="the token of the project")] = None,
) -> Service:
    """The service, for who may use this project."""
    service = service_of(request)
    check_token(service, project_id, x_auth_token)
    return service


def check_known(service: Service, token: str | None) -> str | None:
    """The project of a token; None where none is asked for. Raises Problem for an unknown one."""
    if service.open:
        return None
    project = service.database.project_of(token) if token else None
    if project is None:
        raise Problem(401, problems.NO_TOKEN, problems.MEANINGS[problems.NO_TOKEN])
    return project


def check_token(service: Service, project_id: str, token: str | None) -> None:
    """Raise Problem unless the token is one of this project."""
    if check_known(service, token) not in (None, project_id):
        raise Problem(403, problems.OTHER_PROJECT, problems.MEANINGS[problems.OTHER_PROJECT])


Allowed = Annotated[Service, Depends(_authorized)]


_Model = TypeVar("_Model", bound=BaseModel)
_Answer = TypeVar("_Answer")


async def with_body(request: Request, model: type[_Model], answer: Callable[[_Model], _Answer]) -> _Answer:
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


def body_schema(model: type[BaseModel]) -> dict[str, Any]:
    """The body of a route in the OpenAPI document."""
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}}}
    return {"requestBody": {"required": True, "content": content}}


def answered(content: Any, status: int = 200) -> Response:
    """What is told as it goes out. Names of files that are no Unicode are escaped, as they are in a manifest."""
    try:
        body = orjson.dumps(content)
    except orjson.JSONEncodeError:
        body = json.dumps(content).encode()
    return Response(body, status, media_type="application/json")


class Bounded:
    """Refuses what is too large before it is read: a body must say its length. (Not FastAPI's own kind of middleware,
    which costs as much as an answer to who polls.)"""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (problem := self._problem(scope)) is not None:
            await as_answer(problem)(scope, receive, send)
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


def as_answer(problem: Problem) -> JSONResponse:
    return JSONResponse(problem.body(), problem.status)


def answer_problems(app: FastAPI) -> None:
    @app.exception_handler(Problem)
    async def of_problem(request: Request, error: Problem) -> JSONResponse:
        return as_answer(error)

    @app.exception_handler(EngineError)
    async def of_engine(request: Request, error: EngineError) -> JSONResponse:
        return as_answer(as_problem(error))

    @app.exception_handler(RequestValidationError)
    async def of_validation(request: Request, error: RequestValidationError) -> JSONResponse:
        return as_answer(Problem(400, problems.BAD_REQUEST, _first(error.errors())))

    @app.exception_handler(HTTPException)
    async def of_http(request: Request, error: HTTPException) -> JSONResponse:
        code = problems.NO_PLACE if error.status_code == 404 else problems.BAD_REQUEST
        return JSONResponse(
            {"error_code": code, "error_msg": str(error.detail)}, error.status_code, headers=error.headers
        )

    @app.exception_handler(Exception)
    async def of_anything(request: Request, error: Exception) -> JSONResponse:
        _log.exception("%s %s", request.method, request.url.path, exc_info=error)
        return as_answer(Problem(500, problems.INTERNAL, problems.MEANINGS[problems.INTERNAL]))
