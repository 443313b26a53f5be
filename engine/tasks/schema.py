"""The request of an intelligent task as typed, frozen records: CreateTask, tables 2 to 15, one model a table.

A field has the specification's name; a field that was not given has the default that its table states, or
None. `null` means not given. Unknown fields are refused, except among the attributes of a label or a
sample (tables 14 and 15), which are free. Descriptions feed the help of the command line.

Values are typed here (`hard_reasons` is a tuple of integers) and dumped in the specification's spelling:
`model_dump(mode="json", by_alias=True, exclude_unset=True)` of a request reads back as the same request.
Which task uses which field, and in which order spellings win, is the business of `request.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from engine.errors import InputError
from engine.samples import LABEL_TYPES, SAMPLE_TYPES, Shape
from engine.tasks.values import (
    Bounded,
    Clock,
    Count,
    Folder,
    HardDigit,
    HardNumber,
    HardWord,
    Index,
    Name,
    Period,
    Points,
    Reasons,
    ReasonsText,
    Scalar,
    Scope,
    Size,
    State,
    Text,
    Timed,
    Truth,
    Unit,
    UnitText,
    one_of,
    whole,
)

TaskType = Literal["auto-label", "pre-label", "auto-grouping", "auto-deploy"]
AUTO_LABEL: Final = "auto-label"
PRE_LABEL: Final = "pre-label"
AUTO_GROUPING: Final = "auto-grouping"
#: A task of ours, beside those of the specification.
HARD: Final = "hard"
AUTO_DEPLOY: Final = "auto-deploy"

AndOr = Literal["OR", "AND"]
#: Those of a manifest; besides 103, text triplet entity, and 600, video classification.
LabelType = Annotated[int, one_of(*sorted({*LABEL_TYPES.values(), 103, 600}))]
ResultType = Annotated[int, one_of(0, 1)]


def _field(description: str, default: object = None) -> Any:
    return Field(default, description=description)


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _null_is_not_given(cls, body: Any) -> Any:
        if not isinstance(body, Mapping):
            return body
        known = {field.alias or name for name, field in cls.model_fields.items()}
        return {key: value for key, value in body.items() if value is not None or key not in known}


class _Attributes(_Table):
    """Default attributes are spelled `@modelarts:NAME`; any other attribute is kept as it is (`model_extra`)."""

    model_config = ConfigDict(extra="allow", alias_generator=lambda name: f"@modelarts:{name.rstrip('_')}")


class SampleMetadata(_Attributes):
    """Attributes of a sample (table 15)."""

    hard: HardNumber | None = _field("whether the sample is hard: 0 or 1")
    hard_coefficient: Unit | None = _field("difficulty of the sample in [0, 1], 1 = hardest")
    hard_reasons: Reasons | None = _field("why the sample is hard: reasons 0..30, strongest first")
    size: Size | None = _field("image size [width, height, depth] in pixels")


class SampleLabelProperty(_Attributes):
    """Attributes of a label (table 14)."""

    content: Text | None = _field("what is said (speech labels)")
    end_index: Index | None = _field("end of the text, exclusive (named entities)")
    end_time: Clock | None = _field("end of the speech, hh:mm:ss.SSS")
    feature: Points | None = _field("points of the shape, [[x, y], ...] in pixels from the top left corner")
    from_: str | None = _field("id of the head entity (triplets)")
    hard: HardWord | None = _field("whether the label is hard: 0/false or 1/true")
    hard_coefficient: UnitText | None = _field("difficulty of the label in [0, 1], 1 = hardest")
    hard_reasons: ReasonsText | None = _field("why the label is hard: reasons 0..30 joined by -, strongest first")
    shape: Literal["bndbox", "polygon", "circle", "line", "dashed", "point", "polyline"] | None = _field(
        "kind of the shape (object detection)"
    )
    source: str | None = _field("who speaks (speech paragraphs)")
    start_index: Index | None = _field("begin of the text, inclusive (named entities)")
    start_time: Clock | None = _field("begin of the speech, hh:mm:ss.SSS")
    to: str | None = _field("id of the tail entity (triplets)")

    @field_validator("shape")
    @classmethod
    def _points_make_the_shape(cls, kind: str | None, given: ValidationInfo) -> str | None:
        points = given.data.get("feature")
        if kind is None or points is None:
            return kind
        try:
            Shape(name="", kind=kind, points=points)
        except InputError as error:
            raise ValueError(str(error)) from None
        lengths = [len(point) for point in points]
        if lengths != ([2, 1] if kind == "circle" else [2] * len(points)):
            raise ValueError(f"a {kind} needs {'[[x, y], [radius]]' if kind == 'circle' else '[x, y] everywhere'}")
        if kind == "bndbox" and not points[0][0] < points[1][0]:
            raise ValueError(f"a bndbox needs its left corner first, got x = {points[0][0]:g} and {points[1][0]:g}")
        return kind


class SampleLabel(_Table):
    """One label of a sample (table 13)."""

    annotated_by: Literal["human", "auto"] | None = _field("who labeled a video: human or auto")
    id: str | None = _field("label id")
    name: str | None = _field("label name")
    property: SampleLabelProperty | None = _field("attributes of the label")
    score: Unit | None = _field("confidence in [0, 1]")
    type: LabelType | None = _field("label type: 0 image classification, 1 object detection, ...")


class SampleLabels(_Table):
    """A sample with its labels (table 12)."""

    labels: tuple[SampleLabel, ...] | None = _field("labels of the sample; none deletes those it has")
    metadata: SampleMetadata | None = _field("attributes of the sample")
    sample_id: str | None = _field("sample id")
    sample_type: Annotated[int, one_of(*SAMPLE_TYPES)] | None = _field(
        "0 image, 1 text, 2 speech, 4 table, 6 video, 9 custom"
    )
    sample_usage: Literal["TRAIN", "EVAL", "TEST", "INFERENCE"] | None = _field("what the sample is for")
    source: str | None = _field("where the sample lies")
    worker_id: str | None = _field("id of the team member who labels it")


class TrainingParameter(_Table):
    """A named option beyond the tables (table 11); `parameters.py` knows the names."""

    label: str | None = _field("name of the parameter")
    value: Scalar | None = _field("value of the parameter")


class InfConfig(_Table):
    """One model that answers (table 10)."""

    envs: dict[str, Text] | None = _field("environment variables of the model")
    instance_count: Count | None = _field("number of worker processes")
    model_id: str | None = _field("model id")
    specification: str | None = _field("resource specification")
    weight: Annotated[int, whole(0, 100)] | None = _field("share of the traffic in percent; all weights sum to 100")


class Flavor(_Table):
    """Training resources (table 9)."""

    code: str | None = _field("code of the resource specification")


class SearchProp(_Table):
    """Search by attributes of the sample (table 8)."""

    op: AndOr | None = _field("how several attributes combine")
    props: dict[str, tuple[Text, ...] | None] | None = _field("values wanted, an attribute each")


class SearchLabel(_Table):
    """Search by one label (table 7)."""

    name: str | None = _field("label name")
    op: AndOr | None = _field("how several attributes combine")
    property: dict[str, tuple[Text, ...] | None] | None = _field("values wanted, an attribute each; null = any value")
    type: LabelType | None = _field("label type: 0 image classification, 1 object detection, ...")


class SearchLabels(_Table):
    """Search by labels (table 6)."""

    labels: tuple[SearchLabel, ...] | None = _field("labels wanted")
    op: AndOr | None = Field(
        None, description="how several labels combine; needed when there are several", validate_default=True
    )

    @field_validator("op")
    @classmethod
    def _several_labels_need_it(cls, op: AndOr | None, given: ValidationInfo) -> AndOr | None:
        labels = given.data.get("labels") or ()
        if op is None and len(labels) > 1:
            raise ValueError(f"must be OR or AND for {len(labels)} labels, got none")
        return op


class SearchCondition(_Table):
    """What a sample must have to be found (table 5)."""

    coefficient: Bounded | None = _field("difficulty: MIN-MAX, or a number, also after >, >=, <, <=")
    frame_in_video: Index | None = _field("number of a frame in the video")
    hard: HardDigit | None = _field("whether the sample is hard: 0 or 1")
    import_origin: Text | None = _field("where the data came from")
    kvp: Text | None = _field("CT dosage")
    label_list: SearchLabels | None = _field("labels wanted")
    labeler: str | None = _field("who labeled it")
    metadata: SearchProp | None = _field("attributes wanted")
    parent_sample_id: str | None = _field("id of the parent sample")
    sample_dir: Folder | None = _field("folder of the sample, ends with /; not recursive")
    sample_name: str | None = _field("file name with extension")
    sample_time: Period | None = _field("when it was added: month, day or yyyyMMdd-yyyyMMdd (at most 30 days)")
    score: Bounded | None = _field("confidence of a label: MIN-MAX, or a number, also after >, >=, <, <=")
    slice_thickness: Text | None = _field("DICOM layer thickness")
    study_date: Text | None = _field("DICOM scanning time")
    time_in_video: Text | None = _field("time in the video")


class ExportParams(_Table):
    """What an export contains and where it goes (table 4)."""

    clear_hard_property: Truth = _field("leave the hard example attributes out", True)
    export_dataset_version_format: str | None = _field("format of the version exported to")
    export_dataset_version_name: Text | None = _field("name of the version exported to")
    export_dest: Literal["DIR", "NEW_DATASET"] = _field("DIR: a folder; NEW_DATASET: a new data set", "DIR")
    export_new_dataset_name: str | None = _field("name of the new data set")
    export_new_dataset_work_path: str | None = _field("working folder of the new data set")
    ratio_sample_usage: Truth = _field("divide samples into training and validation at random", False)
    sample_state: State | None = _field("state of the samples: ALL (labeled), NONE (unlabeled), AUTO_ANNOTATION, ...")
    samples: tuple[str, ...] | None = _field("ids of the samples")
    search_conditions: tuple[SearchCondition, ...] | None = _field("conditions, joined by OR")
    train_sample_ratio: UnitText = _field("share of the training samples in [0, 1]", 1.0)


class SmartTaskConfig(_Table):
    """What the task shall do (table 3); `export_type` is an old name of `result_type`."""

    algorithm_type: Literal["fast", "accurate"] | None = _field(
        "fast: learn from labeled samples only; accurate: from unlabeled ones too"
    )
    ambiguity: Truth = _field("group by how blurred the images are", False)
    annotation_output: str | None = _field("where the labels of active learning go")
    collect_rule: Literal["all"] = _field("which samples a service collects", "all")
    collect_sample: Truth = _field("whether a service collects the samples it is asked about", True)
    confidence_scope: Scope | None = _field("confidence range of key samples, as 0.10-0.90")
    description: str | None = _field("what the task is for")
    engine_name: str | None = _field("name of the engine")
    export_format: Annotated[int, one_of(1, 2)] | None = _field("1: tree (cat/1.jpg); 2: tile (1.jpg, 1.txt)")
    export_params: ExportParams | None = _field("what is exported")
    export_type: ResultType | None = _field("old name of result_type")
    flavor: Flavor | None = _field("training resources")
    image_brightness: Truth = _field("group by how bright the images are", False)
    image_colorfulness: Truth = _field("group by how colorful the images are", False)
    inf_cluster_id: str | None = _field("cluster that services run on")
    inf_config_list: tuple[InfConfig, ...] | None = _field("models that answer, with their shares")
    inf_output: str | None = _field("where the predictions of active learning go")
    infer_result_output_dir: str | None = _field("where a service keeps its predictions")
    key_sample_output: str | None = _field("where hard examples are copied to")
    log_url: str | None = _field("where training logs go")
    manifest_path: str | None = _field("manifest to train and predict on")
    model_id: str | None = _field("model id")
    model_name: str | None = _field("model name")
    model_parameter: str | None = _field("parameters of the model")
    model_version: str | None = _field("model version")
    n_clusters: Annotated[int, whole(2, 200)] | None = _field("number of groups, 2..200; chosen for you when left out")
    name: str | None = _field("name of the task")
    output_dir: str | None = _field("where a service keeps its samples")
    parameters: tuple[TrainingParameter, ...] | None = _field("options beyond these, as label and value")
    pool_id: str | None = _field("resource pool")
    property: Name | None = _field("sample attribute that gets the group")
    req_uri: str | None = _field("path of batch inference")
    result_type: ResultType | None = _field("groups go to: 0 folders, 1 the samples' attribute")
    samples: tuple[SampleLabels, ...] | None = _field("samples to label, with the labels they have")
    stop_time: Count = _field("limit of video labeling in minutes", 15)
    time: Timed | None = _field("creation time of the labels, yyyy-MM-dd HH:mm:ss or milliseconds since 1970")
    train_data_path: str | None = _field("training data that exist already")
    train_url: str | None = _field("where training files go")
    version_format: Literal["Default", "CarbonData", "CSV"] | None = _field("format of a data set version")
    worker_server_num: Count | None = _field("number of training workers")

    @field_validator("inf_config_list")
    @classmethod
    def _weights_sum_to_100(cls, models: tuple[InfConfig, ...] | None) -> tuple[InfConfig, ...] | None:
        weights = [model.weight for model in models or () if model.weight is not None]
        if weights and sum(weights) != 100:
            raise ValueError(f"weights must sum to 100, got {' + '.join(map(str, weights))}")
        return models


class _Request(_Table):
    collect_key_sample: Truth = _field("copy the key samples (the hard examples)", False)
    config: SmartTaskConfig = Field(default_factory=SmartTaskConfig, description="what the task shall do")
    model_id: str | None = _field("model id")


class RequestBody(_Request):
    """The body as it is sent (table 2), with the old spellings `type` and `export_type`."""

    task_type: TaskType | None = _field("auto-label, pre-label, auto-grouping or auto-deploy")
    type: Annotated[int, one_of(0, 1, 2)] | None = _field("old: 0 auto-label, 1 pre-label, 2 auto-grouping")
    export_type: ResultType | None = _field("old name of config.result_type")


class TaskRequest(_Request):
    """A request in its normal form: one task, no old spellings, `model_id` only at the top."""

    task_type: TaskType = Field(description="auto-label, pre-label, auto-grouping or auto-deploy")

    def body(self) -> dict[str, Any]:
        """What was given, as JSON values in the specification's spelling."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)
