"""The routes of what was deployed."""

from __future__ import annotations

from typing import Annotated

from fastapi import FastAPI, Header, Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from engine.server.forms import ImageForm, ServiceForm, ServiceList
from engine.server.services import INFERS, image_of, infer_schema
from engine.server.wire import (
    Allowed,
    ProjectId,
    ServiceId,
    answered,
    check_known,
    check_token,
    service_of,
)


def service_routes(app: FastAPI) -> None:
    @app.get("/v1/{project_id}/services", summary="The services of a project", response_model=ServiceList)
    def listed(project_id: ProjectId, service: Allowed) -> Response:
        found = [service.services.told(row) for row in service.database.services() if row.project_id == project_id]
        return answered({"total_count": len(found), "services": found})

    @app.get("/v1/{project_id}/services/{service_id}", summary="One service", response_model=ServiceForm)
    def one(project_id: ProjectId, service_id: ServiceId, service: Allowed) -> Response:
        return answered(service.services.told(service.services.row(service_id, project_id)))

    @app.delete("/v1/{project_id}/services/{service_id}", status_code=204, summary="Stop and forget a service")
    def remove(project_id: ProjectId, service_id: ServiceId, service: Allowed) -> Response:
        service.services.remove(service.services.row(service_id, project_id))
        return Response(status_code=204)

    @app.post(
        f"{INFERS}/{{service_id}}",
        summary="What is on an image, by a service",
        openapi_extra=infer_schema(),
        response_model=ImageForm,
    )
    async def infer(
        service_id: ServiceId,
        request: Request,
        x_auth_token: Annotated[str | None, Header(max_length=200, description="the token of the project")] = None,
    ) -> Response:
        """A file in a form (multipart), `{"image": "..."}` with base64, or the bytes of an image alone."""
        service = service_of(request)
        check_known(service, x_auth_token)  # who has no token is not told which services there are
        row = await run_in_threadpool(service.services.row, service_id)
        await run_in_threadpool(check_token, service, row.project_id, x_auth_token)
        content = await image_of(request)
        return answered(await run_in_threadpool(service.services.answer, row, content))
