"""The manifest: hand-written lines for every quirk, identity by force, and errors that name the line."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import InputError, ManifestError, OutputError
from engine.manifest import UNREAD_PROPERTY_KEY, format_sample, parse_sample, read_manifest, write_manifest
from engine.samples import LABEL_TYPES, SAMPLE_TYPES, Drawing, Label, Sample, unchecked

CAT = {"type": "modelarts/image_classification", "name": "cat"}


def parse(record: dict[str, Any]) -> Sample:
    return parse_sample(json.dumps(record).encode(), "m:1")


def same_json(one: Any, other: Any) -> bool:
    """Equal down to the types: 1, 1.0 and true are three things."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def is_like(one: Any, other: Any) -> bool:
    return isinstance(one, Mapping if isinstance(other, Mapping) else type(other))


# --- by eye


def test_a_documented_line() -> None:
    line = """{"source":"s3://path/to/image1.jpg","usage":"TRAIN","hard":"true","hard-coefficient":0.8,
      "id":"0162005993f8065ef47eefb59d1e4970","sample-type":6,"inference-loc":"s3://path/out.json",
      "property":{"@modelarts:parent_source":"s3://v.mp4","@modelarts:time_in_video":1},
      "annotation":[{"type":"modelarts/image_classification","name":"cat","id":"7","property":{"color":"white"},
        "hard":"false","hard-coefficient":0.25,"annotated-by":"human/a/b","creation-time":"2019-01-23 11:30:30",
        "confidence":0.5,"annotation-loc":"a.xml","annotation-format":"PASCAL VOC"}]}""".replace("\n", "")
    label = Label(
        type="modelarts/image_classification",
        name="cat",
        id="7",
        property={"color": "white"},
        annotated_by="human/a/b",
        creation_time="2019-01-23 11:30:30",
        confidence=0.5,
        hard=False,
        hard_coefficient=0.25,
        annotation_loc="a.xml",
        annotation_format="PASCAL VOC",
    )
    sample = Sample(
        source="s3://path/to/image1.jpg",
        labels=(label,),
        usage="TRAIN",
        id="0162005993f8065ef47eefb59d1e4970",
        sample_type=6,
        hard=True,
        hard_coefficient=0.8,
        property={"@modelarts:parent_source": "s3://v.mp4", "@modelarts:time_in_video": 1},
        inference_loc="s3://path/out.json",
    )
    assert parse_sample(line.encode(), "m:1") == sample
    assert same_json(orjson.loads(format_sample(sample)), json.loads(line))


@pytest.mark.parametrize("kind", LABEL_TYPES)
@pytest.mark.parametrize("sample_type", SAMPLE_TYPES)
def test_every_sample_type_and_label_type(kind: str, sample_type: int) -> None:
    record = {
        "source": "content://Barack Hussein Obama II",
        "sample-type": sample_type,
        "annotation": [
            {"type": kind, "name": "n", "annotation-loc": "a.xml", "property": {"@modelarts:start_index": 0}},
            {"type": kind, "name": "n", "annotation-loc": "a.xml", "property": {"@modelarts:from": "E1"}, "id": "R1"},
        ],
    }
    sample = parse(record)
    assert sample.sample_type == sample_type
    assert [label.type for label in sample.labels] == [kind, kind]
    assert [label.property for label in sample.labels] == [{"@modelarts:start_index": 0}, {"@modelarts:from": "E1"}]
    assert same_json(orjson.loads(format_sample(sample)), record)


def test_the_shortest_line() -> None:
    assert parse({"source": "a.jpg"}) == Sample("a.jpg")
    assert format_sample(Sample("a.jpg")) == b'{"source":"a.jpg"}\n'


def test_unchecked_records_are_the_checked_ones() -> None:
    for record in (Sample("a", id="b"), Label("a", "b", confidence=0.5)):
        values = [getattr(record, field.name) for field in fields(record)]
        twin = unchecked(type(record))(*values)
        assert type(twin) is type(record) and twin == record and repr(twin) == repr(record)
        with pytest.raises(AttributeError):
            twin.id = "c"


# --- quirks: (key, spelled, attribute, meaning); each must be understood, and come back as it was

SAMPLE_QUIRKS = [
    ("usage", "train", "usage", "TRAIN"),
    ("usage", "Inference", "usage", "INFERENCE"),
    ("usage", "", "usage", ""),
    ("usage", None, "usage", ""),
    ("usage", "holdout", "usage", ""),
    ("id", None, "id", None),
    ("id", "", "id", ""),
    ("sample-type", 0, "sample_type", 0),
    ("sample-type", "1", "sample_type", 1),
    ("sample-type", 77, "sample_type", 77),
    ("sample-type", None, "sample_type", 0),
    ("annotation", [], "labels", ()),
    ("annotation", None, "labels", ()),
    ("inference-loc", None, "inference_loc", None),
    ("source-type", "CarbonData", "extra", {"source-type": "CarbonData"}),
    ("schema", [{"name": "x", "n": [None, 1.5, {}]}], "extra", {"schema": [{"name": "x", "n": [None, 1.5, {}]}]}),
    ("ключ", "值", "extra", {"ключ": "值"}),
    ("sample_state", None, "extra", {"sample_state": None}),
]
BOTH_QUIRKS = [
    ("hard", True, "hard", True),
    ("hard", "True", "hard", True),
    ("hard", 1, "hard", True),
    ("hard", 1.0, "hard", True),
    ("hard", "1", "hard", True),
    ("hard", 0, "hard", False),
    ("hard", "0", "hard", False),
    ("hard", False, "hard", False),
    ("hard", None, "hard", None),
    ("hard-coefficient", "0.25", "hard_coefficient", 0.25),
    ("hard-coefficient", 1, "hard_coefficient", 1.0),
    ("hard-coefficient", "1.0E-1", "hard_coefficient", 0.1),
    ("hard-coefficient", None, "hard_coefficient", None),
    ("property", '{"color": "red"}', "property", {"color": "red"}),
    ("property", '[{"type":0}]', "property", {UNREAD_PROPERTY_KEY: '[{"type":0}]'}),
    ("property", [{"type": 0}], "property", {UNREAD_PROPERTY_KEY: [{"type": 0}]}),
    ("property", "red", "property", {UNREAD_PROPERTY_KEY: "red"}),
    ("property", 0, "property", {UNREAD_PROPERTY_KEY: 0}),
    ("property", False, "property", {UNREAD_PROPERTY_KEY: False}),
    ("property", {}, "property", {}),
    ("property", "{}", "property", {}),
    ("property", "", "property", {}),
    ("property", None, "property", {}),
]
LABEL_QUIRKS = [
    ("confidence", "0.9", "confidence", 0.9),
    ("confidence", 0, "confidence", 0.0),
    ("confidence", None, "confidence", None),
    ("id", None, "id", None),
    ("annotated-by", None, "annotated_by", None),
    ("annotated-by", "human/username/username", "annotated_by", "human/username/username"),
    ("creation-time", None, "creation_time", None),
    ("annotation-loc", None, "annotation_loc", None),
    ("annotation-format", None, "annotation_format", None),
    ("score", 0.5, "extra", {"score": 0.5}),
]
#: A value that none of the quirks means, for each attribute.
OTHERS: dict[str, Any] = {
    "usage": "TEST",
    "sample_type": 9,
    "labels": (Label(**CAT),),
    "hard_coefficient": 0.75,
    "confidence": 0.75,
    "property": {"added": 1},
}


@pytest.mark.parametrize(("key", "spelled", "attribute", "meaning"), SAMPLE_QUIRKS + BOTH_QUIRKS)
def test_quirks_of_a_sample(key: str, spelled: Any, attribute: str, meaning: Any) -> None:
    record = {"source": "a.jpg", key: spelled}
    sample = parse(record)
    found = getattr(sample, attribute)
    assert found == meaning and is_like(found, meaning)
    assert same_json(orjson.loads(format_sample(sample)), record)
    if attribute != "extra":
        other = not meaning if attribute == "hard" else OTHERS.get(attribute, "other")
        changed = replace(sample, **{attribute: other})
        assert getattr(parse_sample(format_sample(changed), "m:1"), attribute) == other


@pytest.mark.parametrize(("key", "spelled", "attribute", "meaning"), LABEL_QUIRKS + BOTH_QUIRKS)
def test_quirks_of_a_label(key: str, spelled: Any, attribute: str, meaning: Any) -> None:
    record = {"source": "a.jpg", "annotation": [CAT, {**CAT, key: spelled}]}
    sample = parse(record)
    found = getattr(sample.labels[1], attribute)
    assert found == meaning and is_like(found, meaning)
    assert sample.labels[0] == Label(**CAT)
    assert same_json(orjson.loads(format_sample(sample)), record)
    if attribute != "extra":
        other = not meaning if attribute == "hard" else OTHERS.get(attribute, "other")
        changed = replace(sample, labels=(sample.labels[0], replace(sample.labels[1], **{attribute: other})))
        assert getattr(parse_sample(format_sample(changed), "m:1").labels[1], attribute) == other


def test_an_unread_property_survives_an_addition() -> None:
    sample = parse({"source": "a.jpg", "property": '[{"type":0}]'})
    changed = replace(sample, property={**sample.property, "color": "red"})
    written = format_sample(changed)
    assert orjson.loads(written)["property"] == {UNREAD_PROPERTY_KEY: '[{"type":0}]', "color": "red"}
    assert parse_sample(written, "m:1").property == changed.property


def test_a_value_that_changes_only_its_type_is_changed() -> None:
    sample = parse({"source": "a.jpg", "property": '{"front":true}'})
    assert orjson.loads(format_sample(replace(sample, property={"front": 1})))["property"] == {"front": 1}


def test_integers_in_memory_are_read_back_equal() -> None:
    sample = Sample("a", (Label(**CAT, confidence=1, hard_coefficient=0),), hard_coefficient=1)
    assert parse_sample(format_sample(sample), "m:1") == sample


def test_repeated_labels_and_non_ascii_names() -> None:
    names = ["猫", "猫", "naïve 😀", 'q"uote\nline']
    sample = parse({"source": "bücher/ä b.jpg", "annotation": [{**CAT, "name": name} for name in names]})
    assert [label.name for label in sample.labels] == names
    assert parse_sample(format_sample(sample), "m:1") == sample
    assert "猫".encode() in format_sample(sample)


def test_a_file_name_that_is_not_utf8() -> None:
    sample = Sample("bad\udcff.jpg")  # os.fsdecode(b"bad\xff.jpg")
    assert parse_sample(format_sample(sample), "m:1") == sample


def test_deep_nesting_comes_back() -> None:
    line = b'{"source":"a","deep":' + b"[" * 400 + b"]" * 400 + b"}"
    sample = parse_sample(line, "m:1")
    assert parse_sample(format_sample(sample), "m:1") == sample


# --- by force

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
flags = st.sampled_from(["true", "false", "True", "1", "0", 0, 1, True, False, None])
units = st.floats(0, 1) | st.sampled_from([0, 1, "0.5", "1", None]) | st.floats(0, 1).map(str)
properties = st.dictionaries(st.text(), json_values, max_size=3)
any_property = properties | properties.map(json.dumps) | json_values
texts = st.none() | st.text()
shared: dict[str, Any] = {"hard": flags, "hard-coefficient": units, "property": any_property, "id": texts}
annotations = st.fixed_dictionaries(
    {
        "type": st.sampled_from(list(LABEL_TYPES)) | st.just("other"),
        "name": st.text(min_size=1),
        "annotation-loc": st.just("x"),
    },
    optional={
        **shared,
        "annotated-by": texts,
        "creation-time": texts,
        "confidence": units,
        "annotation-format": texts,
        "unknown": json_values,
        "": json_values,
    },
)
records = st.fixed_dictionaries(
    {"source": st.text(min_size=1)},
    optional={
        **shared,
        "usage": st.sampled_from(["TRAIN", "eval", "Test", "", "?", None]),
        "sample-type": st.sampled_from([0, 1, 9, "6", None]),
        "annotation": st.none() | st.lists(annotations, max_size=3),
        "inference-loc": texts,
        "source-type": json_values,
    },
)


@given(records)
def test_read_write_read_is_the_identity(record: dict[str, Any]) -> None:
    line = json.dumps(record).encode()
    sample = parse_sample(line, "m:1")
    written = format_sample(sample)
    assert same_json(json.loads(written), json.loads(line))
    assert parse_sample(written, "m:1") == sample


@given(records, records)
def test_fields_move_between_samples_whatever_their_spelling(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Every field of `one`, put on `other` and its leftovers, is what a reader then finds."""
    moved = parse(one)
    owner = replace(moved, extra=parse(other).extra)
    found = parse_sample(format_sample(owner), "m:1")
    for field in fields(Sample):
        if field.name not in ("extra", "labels"):
            assert getattr(found, field.name) == getattr(moved, field.name), field.name


# --- files


def test_blank_lines_crlf_bom_and_a_missing_last_newline(tmp_path: Path) -> None:
    path = tmp_path / "a.manifest"
    path.write_bytes(b'\xef\xbb\xbf{"source":"a"}\r\n\r\n  \t\n{"source":"b"}\n\n{"source":"b"}')
    assert [sample.source for sample in read_manifest(path)] == ["a", "b", "b"]


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xef\xbb\xbf"])
def test_a_manifest_without_samples(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.manifest").write_bytes(content)
    assert list(read_manifest(tmp_path / "a.manifest")) == []


def test_a_manifest_written_over_itself(tmp_path: Path) -> None:
    path = tmp_path / "a.manifest"
    samples = [Sample(f"{i}.jpg", id="same") for i in range(1000)]
    assert write_manifest(path, samples) == 1000
    assert write_manifest(path, (replace(sample, usage="TRAIN") for sample in read_manifest(path))) == 1000
    assert list(read_manifest(path)) == [replace(sample, usage="TRAIN") for sample in samples]


def test_reading_is_streaming(tmp_path: Path) -> None:
    path = tmp_path / "a.manifest"
    path.write_bytes(b'{"source":"a"}\nnot json\n')
    samples = read_manifest(path)
    assert next(samples) == Sample("a")
    with pytest.raises(ManifestError, match=r"a\.manifest:2: "):
        next(samples)


def test_a_line_of_ten_megabytes(tmp_path: Path) -> None:
    path = tmp_path / "a.manifest"
    sample = Sample("content://" + "x" * 10_000_000, (Label("modelarts/text_classification", "long"),))
    write_manifest(path, [sample, sample])
    assert list(read_manifest(path)) == [sample, sample]


def test_nothing_is_left_when_writing_fails(tmp_path: Path) -> None:
    path = tmp_path / "a.manifest"
    write_manifest(path, [Sample("old")])
    with pytest.raises(OutputError, match=r"'new'.*object"):
        write_manifest(path, [Sample("fine"), Sample("new", property={"x": object()})])
    assert list(read_manifest(path)) == [Sample("old")]
    assert [file.name for file in tmp_path.iterdir()] == ["a.manifest"]


def test_what_a_reader_would_refuse_is_not_written() -> None:
    with pytest.raises(OutputError, match=r"'a': .*name must be the label"):
        format_sample(Sample("a", (Label("modelarts/image_classification"),)))
    with pytest.raises(OutputError, match="annotation-loc"):
        format_sample(Sample("a", (Label("modelarts/object_detection", drawing=Drawing(())),)))


# --- errors

BAD: list[tuple[bytes, str]] = [
    (b"[1]", r"a line must be one JSON object, got \[1\]"),
    (b"{'source': 'a'}", "a line must be one JSON object, got at character 2"),
    (b'{"source":"a"', "a line must be one JSON object, got at character"),
    (b'{"source":"a"} {}', "a line must be one JSON object"),
    (b'{"source":"a","x":NaN}', "a line must be one JSON object, got at character 19"),
    (b'{"source":"a","x":1e999}', "a line must be one JSON object"),
    (b'{"source":"a\xff"}', "a line must be UTF-8, got byte 0xff at byte 13"),
    ("{}".encode("utf-16"), "a line must be UTF-8, got byte 0xff at byte 1"),
    (b"{}", "source must be a path or URI, got nothing"),
    (b'{"source":""}', "source must be a path or URI, got ''"),
    (b'{"source":5}', "source must be a path or URI, got 5"),
    (b'{"source":"a","usage":1}', "usage must be a string, got 1"),
    (b'{"source":"a","id":17}', "id must be a string, got 17"),
    (b'{"source":"a","sample-type":true}', "sample-type must be a number like 0"),
    (b'{"source":"a","sample-type":"image"}', "sample-type must be a number like 0"),
    (b'{"source":"a","hard":"maybe"}', "hard must be true or false, got 'maybe'"),
    (b'{"source":"a","hard":[]}', r"hard must be true or false, got \[\]"),
    (b'{"source":"a","hard-coefficient":-0.1}', r"hard-coefficient must be in \[0, 1\], got -0.1"),
    (b'{"source":"a","hard-coefficient":"nan"}', r"hard-coefficient must be a number in \[0, 1\], got 'nan'"),
    (b'{"source":"a","hard-coefficient":true}', r"hard-coefficient must be a number in \[0, 1\], got True"),
    (b'{"source":"a","annotation":{}}', r"annotation must be a list, got \{\}"),
    (b'{"source":"a","annotation":[null]}', r"an annotation must be an object, got nothing \(annotation 1\)"),
    (b'{"source":"a","annotation":[{}]}', r"type must be a string like .*, got nothing \(annotation 1\)"),
    (b'{"source":"a","annotation":[{"type":"x"},{"type":1}]}', r"type must be .*, got 1 \(annotation 2\)"),
    (b'{"source":"a","annotation":[{"type":"x","confidence":1.3}]}', r"confidence must be in \[0, 1\], got 1.3"),
    (b'{"source":"a","annotation":[{"type":"x","confidence":"1.3"}]}', r"confidence must be in \[0, 1\], got 1.3"),
    (b'{"source":"a","annotation":[{"type":"x","name":7}]}', "name must be a string, got 7"),
    (b'{"source":"a","annotation":[{"type":"modelarts/image_classification"}]}', "name must be the label of a"),
    (b'{"source":"a","annotation":[{"type":"modelarts/object_detection"}]}', "annotation-loc must be the annotation"),
]


@pytest.mark.parametrize(("line", "message"), BAD)
def test_bad_lines(line: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=rf"^m:17: {message}") as caught:
        parse_sample(line, "m:17")
    assert "\n" not in str(caught.value)
    path = tmp_path / "train.manifest"
    path.write_bytes(b'{"source":"a"}\n' * 16 + line + b"\n")
    with pytest.raises(ManifestError, match=rf"train\.manifest:17: {message}"):
        list(read_manifest(path))


def test_a_long_bad_value_is_clipped() -> None:
    with pytest.raises(ManifestError) as caught:
        parse({"source": "a", "id": ["x" * 1000]})
    assert len(str(caught.value)) < 150


def test_one_error_names_the_first_bad_line_and_counts_the_others(tmp_path: Path) -> None:
    path = tmp_path / "a.manifest"
    good, bad = b'{"source":"a"}\n', b"{}\n"
    path.write_bytes(good + bad + good + b"\n" + bad + bad)
    with pytest.raises(ManifestError, match=r"a\.manifest:2: source .* \(and 2 more bad lines: 5, 6\)$"):
        list(read_manifest(path))
    path.write_bytes(bad + good + bad)
    with pytest.raises(ManifestError, match=r"a\.manifest:1: source .* \(and 1 more bad line: 3\)$"):
        list(read_manifest(path))
    path.write_bytes(bad * 9)
    with pytest.raises(ManifestError, match=r"\(and 8 more bad lines: 2, 3, 4, 5, 6, \.\.\.\)$"):
        list(read_manifest(path))


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing.manifest"):
        with pytest.raises(InputError, match=rf"{path}: cannot be read: "):
            list(read_manifest(path))


def test_nan_in_a_property_becomes_null() -> None:
    assert orjson.loads(format_sample(Sample("a", property={"x": math.nan})))["property"] == {"x": None}
