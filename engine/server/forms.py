"""The forms of what is answered (task API), for the OpenAPI document. Answers are not checked against them as they go
out, so that none is lost for it; tests do that."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field

from engine.server.wire import Body

Percent = Annotated[float, Field(ge=0, le=100)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Milliseconds = Annotated[int, Field(description="since 1970")]


class FailureForm(Body):
    source: str
    kind: str
    reason: str


class NewDatasetId(Body):
    """failures: the first of what was left out, for it cannot be read, or may not be."""

    dataset_id: str
    failure_count: Count
    failures: list[FailureForm]


class NewTaskId(Body):
    task_id: str


# ---- Data sets and models. ----


class DatasetForm(Body):
    """A data set. The counts are told where it is asked for by itself; annotated: by people."""

    dataset_id: str
    dataset_name: str
    project_id: str
    data_path: str
    create_time: Milliseconds
    total_sample_count: Count | None = None
    annotated_sample_count: Count | None = None
    unconfirmed_sample_count: Count | None = None


class DatasetList(Body):
    total_number: Count
    datasets: list[DatasetForm]


class ModelForm(Body):
    model_id: str
    model_name: str
    model_version: str
    model_type: str
    labels: list[str]
    create_at: Milliseconds


class ModelList(Body):
    total_count: Count
    models: list[ModelForm]


# ---- Tasks. ----


class TaskForm(Body):
    """A task. type: 0 active learning, 1 pre-labeling, 2 auto grouping, 3 auto-deploy. status: -1 queuing, 0
    initializing, 1 running, 2 failed, 3 succeeded, 4 stopping, 5 stopped. elapsed_time: seconds. resource_id: of the
    service that auto-deploy made. result: once it has ended."""

    task_id: str
    task_name: str
    task_type: str
    type: Annotated[int, Field(ge=0, le=3)] | None
    status: Annotated[int, Field(ge=-1, le=5)]
    progress: Percent
    code: str
    message: str
    error_code: str
    error_msg: str
    error_detail: str
    config: dict[str, Any]
    create_time: Milliseconds
    elapsed_time: Annotated[float, Field(ge=0)]
    export_type: int | None
    resource_id: str | None
    result: dict[str, Any]
    failures: list[Any]
    timings: list[Any]
    notices: list[str]


class TaskList(Body):
    total_count: Count
    exist_running_deploy_task: bool
    tasks: list[TaskForm]


# ---- Samples. ----


class LabelForm(Body):
    """A label, or a box of one. Numbers in its attributes are strings, as documented, but for corner points."""

    name: str | None = None
    type: int | None = None
    id: str | None = None
    score: Share | None = None
    annotated_by: Literal["human", "auto"]
    property: dict[str, Any]


class SampleForm(Body):
    sample_id: str
    sample_type: int
    source: str
    sample_time: Milliseconds | None
    sample_status: str
    sample_usage: str | None
    metadata: dict[str, Any]
    labels: list[LabelForm]


class SampleList(Body):
    sample_count: Count
    samples: list[SampleForm]


class Confirmed(Body):
    """How many samples: confirmed as they were, corrected, without a label now, labeled by people before, waiting."""

    confirmed_count: Count
    corrected_count: Count
    rejected_count: Count
    kept_count: Count
    unconfirmed_count: Count


class ChangedSample(Body):
    sample_id: str
    success: bool


class Changed(Body):
    success: bool
    results: list[ChangedSample]


# ---- Services. ----


class ServedForm(Body):
    model_id: str
    model_name: str
    model_version: str
    weight: Annotated[int, Field(ge=0, le=100)]
    instance_count: Annotated[int, Field(ge=1)]


class ServiceForm(Body):
    service_id: str
    dataset_id: str | None
    task_id: str | None
    create_time: Milliseconds
    infer_url: str
    collect_sample: bool
    confidence_scope: str
    config: list[ServedForm]


class ServiceList(Body):
    total_count: Count
    services: list[ServiceForm]


class ClassificationForm(Body):
    """scores: label and confidence, as strings, the most probable first."""

    predicted_label: str
    scores: list[tuple[str, str]]


class DetectionForm(Body):
    """detection_boxes: y_min, x_min, y_max, x_max in pixels."""

    detection_classes: list[str]
    detection_boxes: list[tuple[float, float, float, float]]
    detection_scores: list[Share]


ImageForm: TypeAlias = ClassificationForm | DetectionForm
