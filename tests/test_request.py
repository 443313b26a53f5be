"""Requests: every field of tables 2 to 15, old spellings, which task is meant, and a line for everything wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from engine.errors import UsageError
from engine.samples import STATES
from engine.tasks import schema
from engine.tasks.parameters import PARAMETER_TASKS, Parameters, parameters_of, read_parameters
from engine.tasks.request import (
    FIELD_TASKS,
    MOST_PROBLEMS,
    NO_LOCAL_MEANING,
    asked_for,
    notices,
    parse_request,
    read_request,
    request_body,
)
from engine.tasks.schema import (
    ExportParams,
    InfConfig,
    RequestBody,
    SearchCondition,
    SmartTaskConfig,
    TaskRequest,
    TrainingParameter,
)
from engine.tasks.values import plain, scope

CONFIGS = Path(__file__).parent.parent / "configs"

# The specification's tables, by hand.
TABLES = {
    "SmartTaskConfig": "algorithm_type ambiguity annotation_output collect_rule collect_sample confidence_scope "
    "description engine_name export_format export_params flavor image_brightness image_colorfulness inf_cluster_id "
    "inf_config_list inf_output infer_result_output_dir key_sample_output log_url manifest_path model_id model_name "
    "model_parameter model_version n_clusters name output_dir parameters pool_id property req_uri result_type samples "
    "stop_time time train_data_path train_url version_format worker_server_num",
    "ExportParams": "clear_hard_property export_dataset_version_format export_dataset_version_name export_dest "
    "export_new_dataset_name export_new_dataset_work_path ratio_sample_usage sample_state samples search_conditions "
    "train_sample_ratio",
    "SearchCondition": "coefficient frame_in_video hard import_origin kvp label_list labeler metadata parent_sample_id "
    "sample_dir sample_name sample_time score slice_thickness study_date time_in_video",
    "SearchLabels": "labels op",
    "SearchLabel": "name op property type",
    "SearchProp": "op props",
    "Flavor": "code",
    "InfConfig": "envs instance_count model_id specification weight",
    "TrainingParameter": "label value",
    "SampleLabels": "labels metadata sample_id sample_type sample_usage source worker_id",
    "SampleLabel": "annotated_by id name property score type",
    "SampleLabelProperty": "content end_index end_time feature from hard hard_coefficient hard_reasons shape source "
    "start_index start_time to",
    "SampleMetadata": "hard hard_coefficient hard_reasons size",
}

# A body with every field of every table, spelled as the tables say.
SAMPLE: dict[str, Any] = {
    "sample_id": "s1",
    "sample_type": 0,
    "sample_usage": "TRAIN",
    "source": "s3://bucket/1.jpg",
    "worker_id": "w",
    "metadata": {
        "@modelarts:hard": 1.0,
        "@modelarts:hard_coefficient": 0.75,
        "@modelarts:hard_reasons": [8, 6, 5, 3],
        "@modelarts:size": [100, 200, 3],
        "@modelarts:import_origin": 0,
        "hard": "an attribute of the user's, no default one",
    },
    "labels": [
        {
            "annotated_by": "human",
            "id": "l1",
            "name": "cat",
            "score": 0.5,
            "type": 1,
            "property": {
                "@modelarts:content": "hello",
                "@modelarts:start_index": 0,
                "@modelarts:end_index": 23,
                "@modelarts:start_time": "00:00:01.000",
                "@modelarts:end_time": "00:00:02.500",
                "@modelarts:source": "narrator",
                "@modelarts:from": "a",
                "@modelarts:to": "b",
                "@modelarts:shape": "bndbox",
                "@modelarts:feature": [[0.0, 10.0], [50.0, 95.0]],
                "@modelarts:hard": "true",
                "@modelarts:hard_coefficient": "0.8",
                "@modelarts:hard_reasons": "3-20-21-19",
                "color": None,
            },
        }
    ],
}
CONDITION: dict[str, Any] = {
    "coefficient": "0.5",
    "frame_in_video": 3,
    "hard": "1",
    "import_origin": "0",
    "kvp": "120",
    "label_list": {
        "labels": [
            {"name": "cat", "op": "AND", "type": 0, "property": {"color": ["red"], "size": None}},
            {"name": "b"},
        ],
        "op": "OR",
    },
    "labeler": "ann",
    "metadata": {"op": "AND", "props": {"camera": ["a", "b"]}},
    "parent_sample_id": "p",
    "sample_dir": "s3://bucket/dir/",
    "sample_name": "1.jpg",
    "sample_time": "20190901-2019091501",
    "score": "0.9",
    "slice_thickness": "2.5",
    "study_date": "20200101",
    "time_in_video": "12",
}
WHOLE: dict[str, Any] = {
    "task_type": "auto-label",
    "collect_key_sample": True,
    "model_id": "m1",
    "config": {
        "algorithm_type": "accurate",
        "ambiguity": True,
        "annotation_output": "out/",
        "collect_rule": "all",
        "collect_sample": False,
        "confidence_scope": "0.1-0.9",
        "description": "d",
        "engine_name": "e",
        "export_format": 2,
        "export_params": {
            "clear_hard_property": False,
            "export_dataset_version_format": "Default",
            "export_dataset_version_name": "V001",
            "export_dest": "NEW_DATASET",
            "export_new_dataset_name": "n",
            "export_new_dataset_work_path": "w/",
            "ratio_sample_usage": True,
            "sample_state": "AUTO_ANNOTATION",
            "samples": ["s1", "s2"],
            "search_conditions": [CONDITION],
            "train_sample_ratio": "0.8",
        },
        "flavor": {"code": "c"},
        "image_brightness": True,
        "image_colorfulness": True,
        "inf_cluster_id": "i",
        "inf_config_list": [
            {"envs": {"A": "1"}, "instance_count": 1, "model_id": "a", "specification": "s", "weight": 30},
            {"weight": 70},
        ],
        "inf_output": "o",
        "infer_result_output_dir": "r",
        "key_sample_output": "k",
        "log_url": "l",
        "manifest_path": "m.manifest",
        "model_name": "mn",
        "model_parameter": "mp",
        "model_version": "mv",
        "n_clusters": 2,
        "name": "n",
        "output_dir": "/test/",
        "parameters": [{"label": "seed", "value": "7"}],
        "pool_id": "p",
        "property": "size",
        "req_uri": "/",
        "result_type": 1,
        "samples": [SAMPLE],
        "stop_time": 20,
        "time": "1600000000",
        "train_data_path": "t",
        "train_url": "u",
        "version_format": "CSV",
        "worker_server_num": 1,
    },
}


def refusal(body: bytes | str | dict[str, Any], place: str = "") -> str:
    with pytest.raises(UsageError) as error:
        parse_request(body, place)
    return str(error.value)


def config_refusal(**config: Any) -> str:
    return refusal({"task_type": "auto-grouping", "config": config})


def grouping(**config: Any) -> TaskRequest:
    return parse_request({"task_type": "auto-grouping", "config": config})


# The tables


@pytest.mark.parametrize("table", TABLES)
def test_a_table_has_its_fields_and_each_is_described(table: str) -> None:
    model: type[BaseModel] = getattr(schema, table)
    extra = {"export_type"} if model is SmartTaskConfig else set()  # the old spelling
    assert {name.rstrip("_") for name in model.model_fields} == set(TABLES[table].split()) | extra
    for name, field in model.model_fields.items():
        assert field.description, name
        if table in ("SampleLabelProperty", "SampleMetadata"):
            assert field.alias == f"@modelarts:{name.rstrip('_')}"


def test_a_body_with_every_field_comes_back_as_it_was() -> None:
    request = parse_request(json.dumps(WHOLE))
    assert request.body() == WHOLE
    assert parse_request(request.body()) == request
    assert set(WHOLE["config"]) == set(TABLES["SmartTaskConfig"].split()) - {"model_id"}  # that one moves to the top
    assert set(CONDITION) == set(TABLES["SearchCondition"].split())
    assert set(WHOLE["config"]["export_params"]) == set(TABLES["ExportParams"].split())


def test_values_are_typed_inside() -> None:
    config = parse_request(WHOLE).config
    assert config.confidence_scope == (0.1, 0.9)
    assert config.export_params is not None and config.export_params.train_sample_ratio == 0.8
    (sample,) = config.samples or ()
    assert sample.metadata is not None and sample.metadata.hard is True
    assert sample.metadata.hard_reasons == (8, 6, 5, 3)
    assert sample.metadata.model_extra == {
        "@modelarts:import_origin": 0,
        "hard": "an attribute of the user's, no default one",
    }
    (label,) = sample.labels or ()
    assert label.property is not None
    assert label.property.hard is True and label.property.hard_coefficient == 0.8
    assert label.property.hard_reasons == (3, 20, 21, 19)
    assert label.property.feature == ((0, 10), (50, 95))
    assert label.property.from_ == "a"
    assert label.property.model_extra == {"color": None}


def test_defaults_are_those_of_the_tables() -> None:
    request = grouping()
    assert request.collect_key_sample is False
    assert (request.config.collect_rule, request.config.collect_sample, request.config.stop_time) == ("all", True, 15)
    assert request.config.n_clusters is None
    export = schema.ExportParams()
    assert (export.clear_hard_property, export.export_dest) == (True, "DIR")
    assert (export.ratio_sample_usage, export.train_sample_ratio) == (False, 1.0)


def test_requests_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        grouping().config.n_clusters = 3  # type: ignore[misc]


# Lenient in spelling


@pytest.mark.parametrize("n", [2, "2", 2.0, " 2 "])
def test_integers_may_be_strings(n: object) -> None:
    found = grouping(n_clusters=n).config.n_clusters
    assert found == 2 and type(found) is int


@pytest.mark.parametrize(("given", "read"), [("true", True), ("False", False), (True, True)])
def test_booleans_may_be_strings(given: object, read: bool) -> None:
    assert grouping(ambiguity=given).config.ambiguity is read


@pytest.mark.parametrize(("given", "read"), [(1, True), (0.0, False), ("1", True), ("false", False), (True, True)])
def test_hard_is_read_in_every_spelling_of_the_service(given: object, read: bool) -> None:
    config = grouping(
        samples=[{"metadata": {"@modelarts:hard": given}, "labels": [{"property": {"@modelarts:hard": given}}]}],
        export_params={"search_conditions": [{"hard": given}]},
    ).config
    dumped = config.model_dump(mode="json", by_alias=True, exclude_unset=True)
    assert dumped["samples"][0]["metadata"]["@modelarts:hard"] == float(read)
    assert dumped["samples"][0]["labels"][0]["property"]["@modelarts:hard"] == ("true" if read else "false")
    assert dumped["export_params"]["search_conditions"][0]["hard"] == str(int(read))


def test_all_thirteen_states_are_read_in_both_spellings() -> None:
    assert len(STATES) == 13
    for state in STATES:
        for spelling in (state, f"__{state}__"):
            params = grouping(export_params={"sample_state": spelling}).config.export_params
            assert params is not None and params.sample_state == state


def test_null_is_not_given() -> None:
    assert grouping(n_clusters=None, collect_sample=None, property=None) == grouping()


@given(st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted))
def test_a_scope_survives_writing(ends: list[float]) -> None:
    low, high = ends
    assert scope(f"{plain(low)}-{plain(high)}") == (low, high)


# Old spellings, and which task is meant


@pytest.mark.parametrize(
    ("body", "task"),
    [
        ({"type": 0}, "auto-label"),
        ({"type": "1"}, "pre-label"),
        ({"type": 2}, "auto-grouping"),
        ({"type": 2, "task_type": "auto-grouping"}, "auto-grouping"),
        ({"config": {"n_clusters": 3}}, "auto-grouping"),
        ({"config": {"ambiguity": False}}, "auto-grouping"),
        ({"config": {"property": "p", "collect_sample": True}}, "auto-grouping"),  # a default says nothing
        ({"export_type": 0}, "auto-grouping"),
        ({"config": {"algorithm_type": "fast"}, "collect_key_sample": True}, "auto-label"),
        ({"model_id": "m"}, "pre-label"),
        ({"config": {"model_id": "m", "n_clusters": None}}, "pre-label"),
        ({"config": {"inf_config_list": [{"instance_count": 1}]}}, "pre-label"),
        ({"model_id": "m", "config": {"output_dir": "o/"}}, "auto-deploy"),
        ({"config": {"inf_config_list": [{"weight": 100}], "collect_sample": False}}, "auto-deploy"),
        ({"config": {"infer_result_output_dir": "o/", "confidence_scope": "0.1-0.9"}}, "auto-deploy"),
    ],
)
def test_the_task_is_the_one_that_is_named_or_that_the_fields_belong_to(body: dict[str, Any], task: str) -> None:
    assert parse_request(body).task_type == task


def test_no_task_or_several_are_refused() -> None:
    every = "auto-label, pre-label, auto-grouping and auto-deploy"
    assert refusal({}) == f"task_type: must be given, since no field tells which of {every} is meant"
    assert refusal({"config": {"confidence_scope": "0-1", "name": "n"}}) == (
        "task_type: must be given, since config.confidence_scope may mean auto-label, pre-label or auto-deploy"
    )
    assert refusal({"config": {"algorithm_type": "fast", "n_clusters": 3}}) == (
        "task_type: must be given, since the fields belong to different tasks: "
        "config.algorithm_type (auto-label), config.n_clusters (auto-grouping)"
    )


@pytest.mark.parametrize("body", [{"export_type": 1}, {"config": {"export_type": "1"}}, {"config": {"result_type": 1}}])
def test_export_type_is_the_old_name_of_result_type(body: dict[str, Any]) -> None:
    request = parse_request({"type": 2, **body})
    assert request.config.result_type == 1
    assert request.body() == {"task_type": "auto-grouping", "config": {"result_type": 1}}


def test_model_id_stands_at_the_top() -> None:
    for body in ({"model_id": "m"}, {"config": {"model_id": "m"}}, {"model_id": "m", "config": {"model_id": "m"}}):
        request = parse_request({"task_type": "pre-label", **body})
        assert (request.model_id, request.config.model_id) == ("m", None)
    assert parse_request({"model_id": "m", "config": {"model_id": ""}}).model_id == "m"


def test_spellings_that_differ_are_refused_all_at_once() -> None:
    body = {
        "type": 2,
        "task_type": "pre-label",
        "export_type": 0,
        "model_id": "a",
        "config": {"result_type": 1, "model_id": "b"},
    }
    assert refusal(body).splitlines() == [
        "model_id and config.model_id: must agree, got 'a' and 'b'",
        "export_type and config.result_type: must agree, got 0 and 1",
        "task_type and type: must agree, got 'pre-label' and 'auto-grouping'",
    ]


# Strict in range: one line each, with the path


@pytest.mark.parametrize(
    ("config", "line"),
    [
        ({"n_clusters": 500}, "config.n_clusters: must be 2..200, got 500"),
        ({"n_clusters": 1}, "config.n_clusters: must be 2..200, got 1"),
        ({"n_clusters": "x"}, "config.n_clusters: must be an integer 2..200, got 'x'"),
        ({"n_clusters": True}, "config.n_clusters: must be an integer 2..200, got true"),
        ({"n_clusters": 2.5}, "config.n_clusters: must be an integer 2..200, got 2.5"),
        ({"n_clusters": [2]}, "config.n_clusters: must be an integer 2..200, got an array"),
        ({"n_cluster": 5}, "config.n_cluster: unknown field (did you mean n_clusters?)"),
        ({"zebra": None}, "config.zebra: unknown field"),
        ({"seed": 5}, "config.seed: unknown field (did you mean an entry of config.parameters?)"),
        ({"ambiguity": 1}, "config.ambiguity: must be true or false, got 1"),
        ({"algorithm_type": "slow"}, "config.algorithm_type: must be 'fast' or 'accurate', got 'slow'"),
        ({"collect_rule": "some"}, "config.collect_rule: must be 'all', got 'some'"),
        ({"result_type": 2}, "config.result_type: must be 0 or 1, got 2"),
        ({"export_format": 0}, "config.export_format: must be 1 or 2, got 0"),
        ({"stop_time": 0}, "config.stop_time: must be >= 1, got 0"),
        ({"property": " "}, "config.property: must not be blank, got ' '"),
        ({"name": 5}, "config.name: must be a string, got 5"),
        ({"flavor": "f"}, "config.flavor: must be an object, got 'f'"),
        ({"samples": {}}, "config.samples: must be an array, got an object"),
        (
            {"confidence_scope": "0.9-0.1"},
            "config.confidence_scope: must be MIN-MAX with 0 <= MIN <= MAX <= 1, as 0.10-0.90, got '0.9-0.1'",
        ),
        (
            {"inf_config_list": [{"weight": 30}, {"weight": 60}]},
            "config.inf_config_list: weights must sum to 100, got 30 + 60",
        ),
        (
            {"inf_config_list": [{}, {"weigth": 1}]},
            "config.inf_config_list[1].weigth: unknown field (did you mean weight?)",
        ),
        (
            {"export_params": {"train_sample_ratio": "1.2"}},
            "config.export_params.train_sample_ratio: must be in [0, 1], got '1.2'",
        ),
        (
            {"export_params": {"search_conditions": [{"label_list": {"labels": [{}, {}]}}]}},
            "config.export_params.search_conditions[0].label_list.op: must be OR or AND for 2 labels, got none",
        ),
        (
            {"export_params": {"search_conditions": [{"sample_dir": "a"}]}},
            "config.export_params.search_conditions[0].sample_dir: must end with /, got 'a'",
        ),
        (
            {"export_params": {"search_conditions": [{"sample_time": "20190901-20191002"}]}},
            "config.export_params.search_conditions[0].sample_time: must run forward over at most 30 days, "
            "got '20190901-20191002'",
        ),
        (
            {"export_params": {"search_conditions": [{"sample_time": "20190230-20190301"}]}},
            "config.export_params.search_conditions[0].sample_time: must be month, day or yyyyMMdd-yyyyMMdd, "
            "got '20190230-20190301'",
        ),
    ],
)
def test_what_is_wrong_is_said_with_its_path(config: dict[str, Any], line: str) -> None:
    assert config_refusal(**config) == line


@pytest.mark.parametrize(
    ("attributes", "line"),
    [
        ({"hard": "2"}, "hard: must be 0, 1, true or false, got '2'"),
        ({"hard_coefficient": "1.3"}, "hard_coefficient: must be in [0, 1], got '1.3'"),
        ({"hard_coefficient": "nan"}, "hard_coefficient: must be a number, got 'nan'"),
        ({"hard_reasons": "3-31"}, "hard_reasons: must be hard reasons 0..30, as 3-20 or [3, 20], got '3-31'"),
        ({"start_index": -1}, "start_index: must be >= 0, got -1"),
        ({"start_time": "1:2"}, "start_time: must be hh:mm:ss.SSS, got '1:2'"),
        ({"feature": [[1, -1]]}, "feature: must be [[x, y], ...] with x, y >= 0, got [[1, -1]]"),
        ({"feature": [[1, 1]], "shape": "bndbox"}, "shape: a bndbox needs 2 points, got 1"),
        (
            {"feature": [[5, 1], [2, 3]], "shape": "bndbox"},
            "shape: a bndbox needs its left corner first, got x = 5 and 2",
        ),
        ({"feature": [[5, 1], [2, 3]], "shape": "circle"}, "shape: a circle needs [[x, y], [radius]]"),
        ({"feature": [[5, 1], [2]], "shape": "line"}, "shape: a line needs [x, y] everywhere"),
    ],
)
def test_attributes_of_a_label(attributes: dict[str, Any], line: str) -> None:
    spelled = {f"@modelarts:{name}": value for name, value in attributes.items()}
    found = config_refusal(samples=[{"labels": [{"property": spelled}]}])
    assert found == f"config.samples[0].labels[0].property.@modelarts:{line}"


def test_the_documented_shapes_are_read() -> None:
    shapes = {
        "bndbox": [[0, 10], [50, 95]],
        "polygon": [[0, 100], [50, 95], [10, 60], [500, 400]],
        "circle": [[100, 100], [50]],
        "line": [[0, 100], [50, 95]],
        "dashed": [[0, 100], [50, 95]],
        "point": [[0, 100]],
        "polyline": [[0, 100], [50, 95], [10, 60], [500, 400]],
    }
    for shape, feature in shapes.items():
        grouping(samples=[{"labels": [{"property": {"@modelarts:shape": shape, "@modelarts:feature": feature}}]}])


def test_several_problems_are_several_lines_with_the_place() -> None:
    body = {"n_clusters": 3, "task_type": "grouping", "config": {"n_clusters": 0, "reslut_type": 1}}
    assert set(refusal(body, "my.json").splitlines()) == {
        "my.json: n_clusters: unknown field (did you mean config.n_clusters?)",
        "my.json: task_type: must be 'auto-label', 'pre-label', 'auto-grouping' or 'auto-deploy', got 'grouping'",
        "my.json: config.n_clusters: must be 2..200, got 0",
        "my.json: config.reslut_type: unknown field (did you mean result_type?)",
    }


def test_a_million_problems_are_not_all_said() -> None:
    lines = config_refusal(**{f"field{i}": 1 for i in range(10_000)}).splitlines()
    assert len(lines) == MOST_PROBLEMS + 1 and lines[-1] == "and more problems"


def test_an_error_stays_on_one_line_whatever_the_name() -> None:
    assert config_refusal(**{"a\nb": 1}) == r"config.a\nb: unknown field"
    assert len(config_refusal(algorithm_type="x" * 10_000)) < 150
    assert len(config_refusal(**{"x" * 10_000: 1})) < 150


@pytest.mark.parametrize(
    ("body", "line"),
    [
        (b'{"type": 2,\n "config": {,}}', "b.json:2:13: not JSON: Expecting property name enclosed in double quotes"),
        (b"", "b.json:1:1: not JSON: Expecting value"),
        (b'{"name": "\xff"}', "b.json: must be UTF-8, got byte 0xff at offset 10"),
        (b'{"type": 2, "type": 1}', "b.json: type: must be given once, got it twice in one object"),
        (b'{"type": NaN}', "b.json: not JSON: NaN is no number there"),
        (b'{"type": 1' + b"0" * 5000 + b"}", "b.json: no integer can be meant that has 5001 digits"),
        (b'{"name": "a\\ud800"}', r"b.json: must be valid Unicode, got 'a\ud800'"),
        (b'{"a\\ud800": 1}', r"b.json: must be valid Unicode, got 'a\ud800'"),
        (b'{"config": {"samples": [{"metadata": {"x": 1e400}}]}}', "b.json: must be a finite number, got inf"),
        (b"[]", "b.json: the request: must be an object, got an array"),
        (b"[" * 100_000, "b.json: must not be nested deeper than 64"),
        (b'{"type": 2, "config": ' + b"[" * 63 + b"]" * 63 + b"}", "b.json: config: must be an object, got an array"),
        (b'{"type": 2, "config": ' + b"[" * 64 + b"]" * 64 + b"}", "b.json: must not be nested deeper than 64"),
    ],
)
def test_broken_bodies(body: bytes, line: str) -> None:
    assert refusal(body, "b.json") == line


def test_broken_json_without_a_place_has_line_and_column() -> None:
    assert refusal("{") == "line 1, column 2: not JSON: Expecting property name enclosed in double quotes"


def test_a_byte_order_mark_is_no_harm() -> None:
    assert parse_request(b'\xef\xbb\xbf{"type": 2}').task_type == "auto-grouping"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(sorted(FIELD_TASKS)) | st.text(), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(st.dictionaries(st.sampled_from(["type", "task_type", "config", "model_id", "export_type"]) | st.text(), JSON))
def test_any_body_is_understood_or_refused(body: dict[str, Any]) -> None:
    try:
        request = parse_request(body)
    except UsageError as error:
        assert str(error)
    else:
        assert parse_request(request.body()) == request


# Parameters


def entries(*pairs: tuple[str | None, str | None]) -> list[TrainingParameter]:
    return [TrainingParameter(label=label, value=value) for label, value in pairs]


def test_parameters_are_typed_and_have_defaults() -> None:
    assert read_parameters(None, "auto-grouping") == Parameters()
    assert (Parameters().seed, Parameters().device, Parameters().threads) == (0, "auto", None)
    assert (Parameters().max_pixels, Parameters().restarts, Parameters().all) == (300_000_000, 10, False)
    given = entries(("seed", "7"), ("all", "true"), ("device", "cuda:1"), ("weights", "a b.pt"))
    assert read_parameters(given, "auto-grouping") == Parameters(seed=7, all=True, device="cuda:1", weights="a b.pt")
    training = read_parameters(entries(("minutes", "0.5"), ("learning_rate", "1e-3")), "auto-label")
    assert (training.minutes, training.learning_rate) == (0.5, 0.001)


@pytest.mark.parametrize(
    ("entry", "line"),
    [
        (("seeed", "1"), "seeed: unknown parameter (did you mean seed?)"),
        (("seed", "-1"), "seed: must be 0..4294967295, got -1"),
        (("seed", None), "seed: value: must be given"),
        ((None, "1"), "label: must be the name of a parameter, got none"),
        (("device", "gpu"), "device: must be auto, cpu, cuda or cuda:N, got 'gpu'"),
        (("restarts", "101"), "restarts: must be 1..100, got 101"),
        (("all", "yes"), "all: must be true or false, got 'yes'"),
        (("epochs", "3"), "epochs: belongs to auto-deploy and auto-label, not to auto-grouping"),
        (("threads", "4"), "threads: given twice"),
    ],
)
def test_wrong_parameters(entry: tuple[str | None, str | None], line: str) -> None:
    given = entries(("threads", "2"), entry)
    with pytest.raises(UsageError) as error:
        read_parameters(given, "auto-grouping")
    assert str(error.value) == f"config.parameters[1]: {line}"
    body = {"type": 2, "config": {"parameters": [entry.model_dump() for entry in given]}}
    assert refusal(body) == f"config.parameters[1]: {line}"  # a request says it at once


def test_every_parameter_has_tasks_and_a_description() -> None:
    assert set(PARAMETER_TASKS) == set(Parameters.model_fields)
    assert all(field.description for field in Parameters.model_fields.values())
    assert not set(Parameters.model_fields) & set(SmartTaskConfig.model_fields)  # a flag has one meaning
    assert parameters_of("pre-label") == [
        *("algo_hard_threshold", "aug_op_config", "comprehensive_algo_config", "device", "encoder", "label_type"),
        *("max_pixels", "score_threshold", "seed", "threads", "unseen", "weights"),
    ]


def test_flags_make_the_request_of_the_same_names() -> None:
    body = request_body("auto-grouping", {"n_clusters": 3, "seed": 5, "all": True, "model_id": None, "property": "p"})
    request = parse_request(body)
    assert request == parse_request(
        {
            "type": 2,
            "config": {
                "n_clusters": 3,
                "property": "p",
                "parameters": [{"label": "all", "value": "true"}, {"label": "seed", "value": 5}],
            },
        }
    )
    assert request_body("pre-label", {"model_id": "m", "minutes": 1e-05}) == {
        "task_type": "pre-label",
        "model_id": "m",
        "config": {"parameters": [{"label": "minutes", "value": 1e-05}]},
    }


# What has an effect


def test_every_field_has_its_tasks() -> None:
    fields = set(SmartTaskConfig.model_fields) | set(RequestBody.model_fields)
    assert set(FIELD_TASKS) == fields - {"config", "task_type", "type"}
    assert set(FIELD_TASKS) > NO_LOCAL_MEANING


def test_notices_name_what_will_have_no_effect() -> None:
    request = parse_request(
        {
            "type": 2,
            "collect_key_sample": True,
            "config": {
                "n_clusters": 3,
                "flavor": {"code": "x"},
                "pool_id": "",
                "collect_sample": True,
                "algorithm_type": "fast",
                "export_params": {"export_dest": "DIR"},
                "inf_config_list": [{"specification": "big"}],
            },
        }
    )
    assert notices(request) == [
        "collect_key_sample: belongs to auto-label, pre-label and auto-deploy, not to auto-grouping; ignored",
        "config.algorithm_type: belongs to auto-label, not to auto-grouping; ignored",
        "config.flavor: has no meaning on one's own machine; ignored",
        "config.inf_config_list: belongs to pre-label and auto-deploy, not to auto-grouping; ignored",
        "config.inf_config_list: specification has no meaning on one's own machine; ignored",
    ]
    later = parse_request({"task_type": "auto-label", "config": {"n_clusters": 3, "stop_time": 20}})
    assert notices(later) == [
        "config.n_clusters: belongs to auto-grouping, not to auto-label; ignored",
        "config.stop_time: limits the labeling of videos, and videos are not labeled here; ignored",
    ]


def test_what_auto_label_does_not_look_at_is_named() -> None:
    named = {"model_name": "m", "model_version": "1"}
    about_keys = {"confidence_scope": "0.10-0.90", "key_sample_output": "doubtful"}
    for_nothing = "is about key samples, and collect_key_sample does not ask for them; ignored"
    asked = parse_request({"task_type": "auto-label", "config": {**named, **about_keys}})
    assert notices(asked) == [
        "config.confidence_scope: " + for_nothing,
        "config.key_sample_output: " + for_nothing,
        "config.model_name: names a model of pre-label or auto-deploy, and auto-label trains its own; ignored",
        "config.model_version: names a model of pre-label or auto-deploy, and auto-label trains its own; ignored",
    ]
    collecting = {"collect_key_sample": True, "config": about_keys}
    assert not notices(parse_request({"task_type": "auto-label", **collecting}))
    of_a_model = {"task_type": "pre-label", "config": named}
    assert not notices(parse_request({**of_a_model, "collect_key_sample": True, "config": {**named, **about_keys}}))
    assert len(notices(parse_request({**of_a_model, "config": {**named, **about_keys}}))) == 2
    assert not notices(parse_request({"task_type": "auto-deploy", "config": {**named, "confidence_scope": "0.1-0.9"}}))


def test_that_key_samples_are_collected_is_asked_for_only_where_it_is() -> None:
    for task_type in ("auto-label", "pre-label"):
        body = {"task_type": task_type, "config": {"name": "n"}}
        assert asked_for(parse_request(body)) == {"name": "n"}
        assert asked_for(parse_request({**body, "collect_key_sample": False})) == {"name": "n"}
        collecting = asked_for(parse_request({**body, "collect_key_sample": True}))
        assert collecting == {"name": "n", "collect_key_sample": True}


def test_a_batch_of_one_image_is_refused() -> None:
    """Its mean and spread, by which networks norm, are nothing."""
    entries = [{"label": "batch_size", "value": "1"}]
    with pytest.raises(UsageError, match=r"^config\.parameters\[0\]: batch_size: must be >= 2, got 1$"):
        parse_request({"task_type": "auto-label", "config": {"parameters": entries}})


def test_the_readme_says_what_every_field_does() -> None:
    readme = (CONFIGS.parent / "README.md").read_text()
    table = readme[readme.index("### Every field of the request") : readme.index("## The command line")]
    models = (RequestBody, SmartTaskConfig, ExportParams, SearchCondition, InfConfig)
    for name in {name for model in models for name in model.model_fields} - {"config", "op", "props"}:
        assert f"`{name}`" in table, name


# Files


def test_the_bodies_of_the_specification_are_read_as_they_stand() -> None:
    requests = {path.stem: read_request(path) for path in (CONFIGS / "requests").glob("*.json")}
    assert set(requests) == {"active_learning", "pre_labeling", "auto_grouping"}
    assert requests["active_learning"].body() == {
        "task_type": "auto-label",
        "collect_key_sample": True,
        "config": {"algorithm_type": "fast"},
    }
    assert requests["pre_labeling"].model_id == "c4989033-7584-44ee-a180-1c476b810e46"
    assert requests["auto_grouping"].body() == {
        "task_type": "auto-grouping",
        "config": {
            "n_clusters": 2,
            "ambiguity": False,
            "image_brightness": False,
            "image_colorfulness": False,
            "property": "size",
            "result_type": 1,
        },
    }
    assert not notices(requests["auto_grouping"])


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.jsonc")), ids=lambda path: path.name)
def test_our_configs_are_read_and_name_their_command(path: Path) -> None:
    assert f"labelengine run configs/{path.name} " in path.read_text()
    assert not notices(read_request(path))


def test_comments_are_lines_of_jsonc_files_only(tmp_path: Path) -> None:
    text = '// a comment\n{"type": 2,\n  // another\r\n "config": {"property": "http://x"}, }\n'
    (tmp_path / "a.jsonc").write_text(text.replace(", }", "}"), newline="")
    assert read_request(tmp_path / "a.jsonc").config.property == "http://x"
    (tmp_path / "b.jsonc").write_text(text, newline="")  # comments leave the line numbers as they are
    with pytest.raises(UsageError, match=r"b\.jsonc:4:\d+: not JSON"):
        read_request(tmp_path / "b.jsonc")
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(UsageError, match=r"c\.json:1:1: not JSON"):
        read_request(tmp_path / "c.json")


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing.json"):
        with pytest.raises(UsageError, match=r"cannot be read: "):
            read_request(path)
