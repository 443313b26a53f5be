"""What was deployed: services by id, opened when they are first asked, and the images that requests carry."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import Any, Final

import orjson
from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from engine.errors import InputError
from engine.server import problems
from engine.server.database import Database, ServiceRow
from engine.server.inferring import MOST_IMAGE, Service, closed
from engine.server.problems import Problem
from engine.tasks.deploying import read_service

INFERS: Final = "/v1/infers"


class Services:
    """The services of a home."""

    def __init__(self, home: Path, database: Database) -> None:
        self._home = home
        self._database = database
        self._lock = Lock()
        self._open: dict[str, Service] = {}

    def row(self, service_id: str, project_id: str | None = None) -> ServiceRow:
        """Raises Problem when there is none (of this project)."""
        for row in self._database.services():
            if row.service_id == service_id and project_id in (None, row.project_id):
                return row
        raise Problem(404, problems.NO_SERVICE, f"service {service_id!r}: there is none")

    def told(self, row: ServiceRow) -> dict[str, Any]:
        """A service as it is answered."""
        plan = read_service(Path(row.config["folder"]))
        return {
            "service_id": row.service_id,
            "dataset_id": row.dataset_id,
            "task_id": row.task_id,
            "create_time": round(1000 * row.created),
            "infer_url": f"{INFERS}/{row.service_id}",
            "collect_sample": plan.collect_sample,
            "confidence_scope": "{:.2f}-{:.2f}".format(*plan.confidence_scope),
            "config": [
                {
                    "model_id": model.model_id,
                    "model_name": model.model_name,
                    "model_version": model.model_version,
                    "weight": model.weight,
                    "instance_count": model.instance_count,
                }
                for model in plan.models
            ],
        }

    def answer(self, row: ServiceRow, content: bytes) -> dict[str, Any]:
        """What the service says of an image. Raises ImageError, InputError, Problem when the service is gone."""
        return self._opened(row).answer(content)

    def remove(self, row: ServiceRow) -> None:
        with self._lock:  # so that no request in between opens it again
            self._database.remove_service(row.service_id)
            service = self._open.pop(row.service_id, None)
        if service is not None:
            service.close()

    def close(self) -> None:
        with self._lock:
            services, self._open = self._open, {}
        closed(services)

    def _opened(self, row: ServiceRow) -> Service:
        """Raises Problem when it has been removed, while an image was sent to it, say."""
        with self._lock:
            self.row(row.service_id)
            if row.service_id not in self._open:
                plan = read_service(Path(row.config["folder"]))
                keeps = self._home / "services" / row.service_id
                self._open[row.service_id] = Service(row.service_id, plan, keeps)
            return self._open[row.service_id]


async def image_of(request: Request) -> bytes:
    """The bytes of the image that a request carries. Raises Problem when there is none."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        content = await _of_form(request)
    elif kind in ("application/json", ""):
        content = _of_json(await request.body())
    else:
        content = await request.body()
    if not content:
        raise Problem(400, problems.BAD_REQUEST, "the request must carry an image, got nothing")
    if len(content) > MOST_IMAGE:
        raise Problem(413, problems.TOO_LARGE, f"an image must have at most {MOST_IMAGE:,} bytes")
    return content


async def _of_form(request: Request) -> bytes:
    try:
        async with request.form(max_files=1, max_fields=10) as form:
            for value in form.values():
                if isinstance(value, UploadFile):
                    return await value.read()
    except HTTPException as error:
        raise Problem(400, problems.BAD_REQUEST, f"the form cannot be read: {error.detail}") from None
    raise Problem(400, problems.BAD_REQUEST, "the form must carry one file, an image; got none")


def _of_json(body: bytes) -> bytes:
    try:
        told = orjson.loads(body)
        text = told["image"] if isinstance(told, Mapping) else None
        if not isinstance(text, str):
            raise InputError
        return base64.b64decode(text.rpartition("base64,")[2], validate=True)
    except (orjson.JSONDecodeError, KeyError, InputError):
        expected = '{"image": "..."} with the bytes of an image in base64'
        raise Problem(400, problems.BAD_REQUEST, f"the body must be {expected}") from None
    except (binascii.Error, ValueError) as error:
        raise Problem(400, problems.BAD_REQUEST, f"image: must be base64, is not: {error}") from None


def infer_schema() -> dict[str, Any]:
    """What the body of a request may be, for the OpenAPI document."""
    file = {"type": "object", "properties": {"images": {"type": "string", "format": "binary"}}, "required": ["images"]}
    text = {"type": "object", "properties": {"image": {"type": "string", "format": "byte"}}, "required": ["image"]}
    return {
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {"schema": file},
                "application/json": {"schema": text},
                "image/*": {"schema": {"type": "string", "format": "binary"}},
            },
        }
    }
