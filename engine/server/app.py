"""The routes of the task API, and those that data sets, samples and tokens need around it.

    POST   /v2/{project_id}/datasets                                    register a data set
    GET    /v2/{project_id}/datasets[/{dataset_id}]
    DELETE /v2/{project_id}/datasets/{dataset_id}
    POST   .../{dataset_id}/tasks                                       start a task (CreateTask)
    GET    .../{dataset_id}/tasks[/{task_id}]
    POST   .../{dataset_id}/tasks/{task_id}/stop
    POST   .../{dataset_id}/tasks/{task_id}/resume                      let it go on
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
    GET    /docs                                                        all of these, as a page

Whatever is wrong with a request is answered as {"error_code", "error_msg"}. Reading and checking is done in threads, so
that who polls need not wait for it; what polling asks for takes a fraction of a millisecond, less than a thread costs.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from engine.errors import UsageError
from engine.models import read_model_info
from engine.server import problems
from engine.server.checks import Roots
from engine.server.database import Database
from engine.server.dataset_routes import NewDataset, dataset_routes
from engine.server.datasets import Standing
from engine.server.forms import ImageForm
from engine.server.inferring import Service as Inference
from engine.server.manual import serve_manual
from engine.server.problems import Problem
from engine.server.queue import Queue
from engine.server.sample_routes import ChangedSamples, Confirmation, sample_routes
from engine.server.service_routes import service_routes
from engine.server.services import INFERS, Services, image_of, infer_schema
from engine.server.task_routes import NewExport, task_routes
from engine.server.wire import (
    REFUSALS,
    Bounded,
    ErrorAnswer,
    Service,
    ServiceId,
    answer_problems,
    answered,
)
from engine.tasks.deploying import read_service
from engine.tasks.schema import RequestBody


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
        responses={status: {"model": ErrorAnswer, "description": words} for status, words in REFUSALS.items()},
        docs_url=None,  # FastAPI's own pages load scripts from elsewhere
        redoc_url=None,
    )
    app.add_middleware(Bounded)
    answer_problems(app)
    dataset_routes(app)
    task_routes(app)
    sample_routes(app)
    service_routes(app)
    serve_manual(app)
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

    app = FastAPI(title=f"labelengine: {name}", version="2", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.add_middleware(Bounded)
    answer_problems(app)
    serve_manual(app)

    @app.post(
        f"{INFERS}/{{service_id}}",
        summary="What is on an image",
        openapi_extra=infer_schema(),
        response_model=ImageForm,
    )
    async def infer(service_id: ServiceId, request: Request) -> Response:
        if service_id != name:
            raise Problem(404, problems.NO_SERVICE, f"service {service_id!r}: there is none, this is {name!r}")
        content = await image_of(request)
        return answered(await run_in_threadpool(request.app.state.service.answer, content))

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
