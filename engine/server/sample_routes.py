"""The routes of samples: what is to be confirmed, confirm it, all samples, change them."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

import orjson
from fastapi import FastAPI, Query, Request
from fastapi.responses import Response
from pydantic import Field

from engine.dataset import Dataset
from engine.samples import Sample
from engine.server import problems
from engine.server.datasets import CURRENT, alone, change, dataset_folder
from engine.server.forms import Changed, Confirmed, SampleForm, SampleList
from engine.server.problems import Problem
from engine.server.wire import (
    Allowed,
    Body,
    Conditions,
    DatasetId,
    Limit,
    Offset,
    ProjectId,
    SampleId,
    Service,
    Unit,
    answered,
    body_schema,
    with_body,
)
from engine.tasks.answers import sample_answer
from engine.tasks.conditions import known_id, marks_of, matching
from engine.tasks.confirming import confirm
from engine.tasks.preparing import given_sample
from engine.tasks.request import checked_conditions
from engine.tasks.schema import SampleLabels


class Confirmation(Body):
    """Which automatic labels become a person's: all; those less difficult than `below`; those of samples by id. labels:
    by sample id, what is right instead; no label takes them away. by: who says so. label_type: 0, of images, or 1,
    boxes; left out: what more samples have."""

    all: bool = False
    below: float | None = Field(default=None, ge=0, le=1, allow_inf_nan=False)
    samples: list[str] = Field(default_factory=list, max_length=1_000_000)
    labels: dict[str, list[str]] = Field(default_factory=dict)
    by: str | None = Field(default=None, max_length=100)
    label_type: int | None = Field(default=None, ge=0, le=1)


class ChangedSamples(Body):
    """Samples with their labels and attributes (CreateTask, table 12)."""

    samples: list[SampleLabels] = Field(min_length=1, max_length=100_000)


def sample_routes(app: FastAPI) -> None:
    automatic = "/v2/{project_id}/datasets/{dataset_id}/auto-annotations/samples"
    everything = "/v2/{project_id}/datasets/{dataset_id}/data-annotations/samples"

    @app.get(automatic, summary="Samples with automatic labels that are to be confirmed", response_model=SampleList)
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
    ) -> Response:
        """Samples one of whose automatic labels has a score in low_score..high_score, by score."""
        data = service.data(service.dataset(project_id, dataset_id))
        rows = matching(data, _conditions(search_conditions), every=True, state="AUTO_ANNOTATION").tolist()
        found = []
        for row in rows:
            marks = [
                mark
                for mark in marks_of(replace(data[row], labels=data[row].waiting))
                if label_name in (None, mark.name) and label_type in (None, mark.type)
            ]
            scores = [mark.score for mark in marks if mark.score is not None and low_score <= mark.score <= high_score]
            free = low_score <= 0 and not any(mark.score is not None for mark in marks)
            if scores or (free and (marks or (label_name is None and label_type is None))):
                found.append((min(scores, default=0.0), row))
        found.sort(key=lambda each: (each[0] if order == "asc" else -each[0], each[1]))
        return answered(_page(data, [row for _, row in found], limit, offset))

    @app.post(
        automatic,
        summary="Confirm or correct automatic labels",
        openapi_extra=body_schema(Confirmation),
        response_model=Confirmed,
    )
    async def confirmed(project_id: ProjectId, dataset_id: DatasetId, service: Allowed, request: Request) -> Response:
        work = lambda body: _confirmed(service, project_id, dataset_id, body)  # noqa: E731
        return answered(await with_body(request, Confirmation, work))

    @app.get(everything, summary="The samples of a data set", response_model=SampleList)
    def samples(
        project_id: ProjectId,
        dataset_id: DatasetId,
        service: Allowed,
        limit: Limit = 10,
        offset: Offset = 0,
        sample_state: Annotated[str | None, Query(max_length=64, description="ALL, NONE, ACCEPTED, ...")] = None,
        search_conditions: Conditions = None,
    ) -> Response:
        data = service.data(service.dataset(project_id, dataset_id))
        state = None if sample_state is None else checked_conditions([], sample_state)[1]
        rows = matching(data, _conditions(search_conditions), every=True, state=state).tolist()
        return answered(_page(data, rows, limit, offset))

    @app.get(f"{everything}/{{sample_id}}", summary="One sample", response_model=SampleForm)
    def sample(
        project_id: ProjectId,
        dataset_id: DatasetId,
        sample_id: SampleId,
        service: Allowed,
    ) -> Response:
        data = service.data(service.dataset(project_id, dataset_id))
        for row, each in enumerate(data.samples):
            if known_id(each) == sample_id:
                return answered(sample_answer(data, row))
        raise Problem(404, problems.NO_SAMPLE, f"sample {sample_id!r}: there is none in this data set")

    @app.put(
        everything,
        summary="Set labels and attributes of samples",
        openapi_extra=body_schema(ChangedSamples),
        response_model=Changed,
    )
    async def changed(project_id: ProjectId, dataset_id: DatasetId, service: Allowed, request: Request) -> Response:
        """Labels as a person gives them, a sample that is given none loses those it has; attributes, and the state that
        a team sets, in `metadata` (`@labelengine:sample_state`)."""
        work = lambda body: _changed(service, project_id, dataset_id, body)  # noqa: E731
        return answered(await with_body(request, ChangedSamples, work))


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
    return given_sample(sample, given, f"sample {known_id(sample)}", keep=True)


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
            label_type=body.label_type,
            map=row.map,
        )
    return {
        "confirmed_count": done.confirmed,
        "corrected_count": done.corrected,
        "rejected_count": done.rejected,
        "kept_count": done.kept,
        "unconfirmed_count": done.waiting,
    }
