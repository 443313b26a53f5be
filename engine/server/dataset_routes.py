"""The routes of data sets, and of models that were imported."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.responses import Response
from pydantic import Field

from engine.dataset import Dataset
from engine.errors import Failure
from engine.models import Shelf
from engine.server import problems
from engine.server.answers import dataset_answer
from engine.server.database import OPEN
from engine.server.datasets import add_dataset
from engine.server.forms import DatasetForm, DatasetList, ModelList, NewDatasetId
from engine.server.problems import Problem
from engine.server.wire import (
    Allowed,
    Body,
    DatasetId,
    Limit,
    Offset,
    ProjectId,
    Service,
    answered,
    body_schema,
    with_body,
)

#: Failures of a registration that are told.
_MOST_TOLD: Final = 100


class NewDataset(Body):
    """A data set to register. data_path: a manifest or a folder on the machine of the server. map: where the sources
    that begin with a prefix lie, as `s3://bucket/=folder/`."""

    dataset_name: str = Field(min_length=1, max_length=100, pattern=r"^[\w][\w .+-]*$")
    data_path: str = Field(min_length=1, max_length=4096)
    format: str | None = None
    map: list[str] = Field(default_factory=list, max_length=64)


def dataset_routes(app: FastAPI) -> None:
    @app.post(
        "/v2/{project_id}/datasets",
        status_code=201,
        summary="Register a data set",
        openapi_extra=body_schema(NewDataset),
        response_model=NewDatasetId,
    )
    async def add(project_id: ProjectId, service: Allowed, request: Request) -> Response:
        work = lambda body: added(service, project_id, body)  # noqa: E731
        return answered(await with_body(request, NewDataset, work), 201)

    def added(service: Service, project_id: str, body: NewDataset) -> dict[str, Any]:
        path = service.roots.allowed(Path(body.data_path))
        for entry in body.map:
            service.roots.allowed(Path(entry.partition("=")[2] or "/"))
        if any(each.name == body.dataset_name for each in service.database.datasets(project_id)):
            raise Problem(400, problems.NAME_TAKEN, f"dataset_name: {body.dataset_name!r} is taken")
        failures: list[Failure] = []

        def inside(dataset: Dataset) -> Dataset:
            kept = service.roots.only(dataset)
            failures.extend(kept.failures)
            return kept

        told = (project_id, body.dataset_name, path, body.format, body.map)
        dataset_id = add_dataset(service.database, *told, only=inside)
        shown = [{"source": each.source, "kind": each.kind, "reason": each.reason} for each in failures[:_MOST_TOLD]]
        return {"dataset_id": dataset_id, "failure_count": len(failures), "failures": shown}

    @app.get("/v2/{project_id}/datasets", summary="The data sets of a project", response_model=DatasetList)
    def listed(project_id: ProjectId, service: Allowed, limit: Limit = 10, offset: Offset = 0) -> Response:
        rows = service.database.datasets(project_id)
        found = [dataset_answer(row, None) for row in rows[offset : offset + limit]]
        return answered({"total_number": len(rows), "datasets": found})

    @app.get("/v2/{project_id}/datasets/{dataset_id}", summary="One data set", response_model=DatasetForm)
    def one(project_id: ProjectId, dataset_id: DatasetId, service: Allowed) -> Response:
        row = service.dataset(project_id, dataset_id)
        return answered(dataset_answer(row, service.data(row)))

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

    @app.get(
        "/v2/{project_id}/models", summary="The models that were imported on this machine", response_model=ModelList
    )
    def models(project_id: ProjectId, service: Allowed) -> Response:
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
        return answered({"total_count": len(found), "models": found})
