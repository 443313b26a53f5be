"""Search conditions: every field of tables 5 to 8 finds what it says, and nothing else."""

from __future__ import annotations

import io
import os
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest
from conftest import draw

from engine.cli import main
from engine.dataset import Dataset, read_samples
from engine.errors import InputError, UsageError
from engine.manifest import write_manifest
from engine.samples import (
    IMAGE_CLASSIFICATION,
    OBJECT_DETECTION,
    STATE_KEY,
    STATES,
    Drawing,
    Label,
    Sample,
    Shape,
)
from engine.sources import Sources
from engine.tasks.answers import sample_answer
from engine.tasks.conditions import in_state, known_id, matching
from engine.tasks.request import checked_conditions

TODAY = date(2024, 5, 20)


def named(name: str, by: str | None = None, **fields: Any) -> Label:
    return Label(type=IMAGE_CLASSIFICATION, name=name, annotated_by=by, **fields)


def box(name: str, confidence: float | None = None, **properties: Any) -> Shape:
    return Shape(name, "bndbox", ((0, 0), (5, 5)), confidence=confidence, property=properties)


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    """Six samples: a cat, a dog that a machine saw, a cat and a dog, boxes, a video frame, nothing."""
    machine = "modelarts/active-learning"
    samples = (
        Sample("pets/cat.png", (named("cat", "human/anna/anna", property={"color": "black", "age": 3}),), id="first"),
        Sample("pets/dog.png", (named("dog", machine, confidence=0.4),), hard=True, hard_coefficient=0.7),
        Sample("pets/old/both.png", (named("cat"), named("dog"))),
        Sample(
            "cars/boxes.png",
            (
                Label(
                    type=OBJECT_DETECTION,
                    annotated_by=machine,
                    drawing=Drawing((box("car", 0.9, color="red"), box("cat", 0.25))),
                ),
            ),
            hard=False,
            hard_coefficient=0.1,
        ),
        Sample(
            "frames/frame.png",
            (named("dog", "human/bob"),),
            property={
                "@modelarts:time_in_video": 4.5,
                "@modelarts:frame_in_video": 90,
                "@modelarts:parent_sample_id": "film",
                "@modelarts:import_origin": 0,
                "kvp": "120",
                "weather": "sun",
                "place": ["lake", "hill"],
                "night": False,
                STATE_KEY: "ACCEPTED",
            },
        ),
        Sample("none.png"),
    )
    for number, sample in enumerate(samples):
        path = draw(tmp_path / sample.source)
        changed = datetime(2024, 5, 20 - 5 * number if number < 3 else 1, 12).timestamp()
        os.utime(path, (changed, changed))
    return Dataset(samples, Sources(tmp_path), name="pets")


def found(data: Dataset, *conditions: dict[str, Any], **how: Any) -> list[int]:
    return matching(data, checked_conditions(conditions)[0], today=TODAY, **how).tolist()


def of_label(op: str | None = None, *labels: dict[str, Any]) -> dict[str, Any]:
    return {"label_list": {"labels": list(labels), **({"op": op} if op else {})}}


@pytest.mark.parametrize(
    ("condition", "rows"),
    [
        ({}, [0, 1, 2, 3, 4, 5]),
        ({"coefficient": "0.1-0.7"}, [1, 3]),
        ({"coefficient": ">0.1"}, [1]),
        ({"coefficient": "<= 0.1"}, [3]),
        ({"coefficient": "0.7"}, [1]),
        ({"score": "0.3-0.5"}, [1]),
        ({"score": "<0.4"}, [3]),
        ({"score": ">=0.4"}, [1, 3]),
        ({"hard": "1"}, [1]),
        ({"hard": 0}, [0, 2, 3, 4, 5]),
        (of_label(None, {"name": "cat"}), [0, 2, 3]),
        (of_label("OR", {"name": "cat"}, {"name": "car"}), [0, 2, 3]),
        (of_label("AND", {"name": "cat"}, {"name": "dog"}), [2]),
        (of_label("AND", {"name": "cat"}, {"name": "car"}), [3]),
        (of_label(None, {"type": 1}), [3]),
        (of_label(None, {"name": "cat", "type": 0}), [0, 2]),
        (of_label(None, {"property": {"color": None}}), [0, 3]),
        (of_label(None, {"property": {"color": ["red", "green"]}}), [3]),
        (of_label(None, {"name": "cat", "property": {"color": ["red"]}}), []),
        (of_label(None, {"property": {"color": ["black"], "age": ["4"]}, "op": "AND"}), []),
        (of_label(None, {"property": {"color": ["black"], "age": ["4"]}, "op": "OR"}), [0]),
        (of_label(None, {"property": {"color": ["black"], "age": ["3.0"]}}), [0]),
        ({"labeler": "anna"}, [0]),
        ({"labeler": "human/bob"}, [4]),
        ({"labeler": "human"}, [2]),
        ({"labeler": "modelarts/active-learning"}, [1, 3]),
        ({"metadata": {"props": {"weather": ["rain", "sun"]}}}, [4]),
        ({"metadata": {"props": {"weather": ["sun"], "night": ["true"]}, "op": "AND"}}, []),
        ({"metadata": {"props": {"weather": ["sun"], "night": ["true"]}, "op": "OR"}}, [4]),
        ({"metadata": {"props": {"weather": None, "night": ["false"], "place": ["hill"]}}}, [4]),
        ({"metadata": {"op": "AND"}}, [0, 1, 2, 3, 4, 5]),
        ({"parent_sample_id": "film"}, [4]),
        ({"import_origin": 0}, [0, 1, 2, 3, 4, 5]),
        ({"import_origin": "1"}, []),
        ({"label_list": {}}, [0, 1, 2, 3, 4, 5]),
        ({"metadata": {"props": {"kvp": ["0120", "120.0"]}}}, []),  # text that looks like a number is text
        ({"kvp": "120"}, [4]),
        ({"slice_thickness": "1"}, []),
        ({"study_date": "20240501"}, []),
        ({"frame_in_video": "90"}, [4]),
        ({"time_in_video": "4.50"}, [4]),
        ({"sample_dir": "pets/"}, [0, 1]),
        ({"sample_dir": "./pets/old/"}, [2]),
        ({"sample_dir": "et/"}, []),
        ({"sample_name": "cat.png"}, [0]),
        ({"sample_name": "cat"}, []),
        ({"sample_name": "*o*.png"}, [1, 2, 3, 5]),
        ({"sample_time": "day"}, [0]),
        ({"sample_time": "month"}, [0, 1, 2, 3, 4, 5]),
        ({"sample_time": "20240510-20240515"}, [1, 2]),
        ({"sample_time": "20240510-2024051501"}, [1, 2]),
        ({"score": ">=0.4", "hard": "1"}, [1]),
    ],
)
def test_every_field(data: Dataset, condition: dict[str, Any], rows: list[int]) -> None:
    assert found(data, condition) == rows


def test_conditions_are_joined_by_or_in_an_export_and_by_and_in_a_listing(data: Dataset) -> None:
    two = ({"score": ">=0.4"}, of_label(None, {"name": "dog"}))
    assert found(data, *two) == [1, 2, 3, 4]
    assert found(data, *two, every=True) == [1]


def test_a_folder_by_its_path(data: Dataset, tmp_path: Path) -> None:
    assert found(data, {"sample_dir": f"{tmp_path.resolve()}/pets/"}) == [0, 1]


def test_a_file_that_is_gone_has_no_time(data: Dataset, tmp_path: Path) -> None:
    (tmp_path / "pets/cat.png").unlink()
    assert found(data, {"sample_time": "day"}) == []


def test_states(data: Dataset) -> None:
    states = {state: [row for row, sample in enumerate(data) if in_state(sample, state)] for state in STATES}
    assert {state: rows for state, rows in states.items() if rows} == {
        "ALL": [0, 2, 4],  # what a person labeled is labeled, whatever a team has said of it since
        "NONE": [5],
        "ACCEPTED": [4],
        "AUTO_ANNOTATION": [1, 3],
    }
    assert found(data, state="ALL") == [0, 2, 4]


def test_labels_of_each_type_wait_by_themselves(data: Dataset) -> None:
    """Boxes of a machine on an image that people gave a label: it is labeled, and its boxes are to be confirmed."""
    mixed = data.with_samples([replace(data[3], labels=(named("cat"), *data[3].labels))])
    assert found(mixed, state="AUTO_ANNOTATION") == [0] and found(mixed, state="ALL") == [0]
    assert replace(data[1], labels=(*data[1].labels, named("cat"))).state == "ALL"  # a machine's count no more


def test_ids(data: Dataset) -> None:
    assert known_id(data[0]) == "first"
    assert len(known_id(data[5])) == 32 and known_id(data[5]) == known_id(Sample("none.png"))
    assert found(data, ids=[known_id(data[5]), "first"]) == [0, 5]
    with pytest.raises(InputError, match="must be ids of samples of pets, got nobody"):
        found(data, ids=["nobody"])


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ({"score": "a lot"}, "score: must be MIN-MAX or a number"),
        ({"score": "0.8-0.2"}, "score: must be MIN-MAX"),
        ({"coefficient": ">1.5"}, "coefficient: must be"),
        ({"sample_dir": "pets"}, "sample_dir: must end with /"),
        ({"sample_time": "yesterday"}, "sample_time: must be month, day or"),
        (of_label(None, {"name": "a"}, {"name": "b"}), "label_list.op: must be OR or AND for 2 labels"),
        ({"colour": "red"}, "colour: unknown field"),
    ],
)
def test_what_cannot_be_meant(condition: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as error:
        checked_conditions([condition])
    assert message in str(error.value)


def test_a_sample_as_the_service_answers_it(data: Dataset) -> None:
    told = sample_answer(data, 1)
    assert told["sample_id"] == known_id(data[1]) and told["sample_status"] == "AUTO_ANNOTATION"
    assert told["metadata"] == {
        "@modelarts:import_origin": 0,
        "@modelarts:hard": True,
        "@modelarts:hard_coefficient": 0.7,
    }
    assert told["labels"] == [{"name": "dog", "type": 0, "score": 0.4, "annotated_by": "auto", "property": {}}]
    assert told["sample_time"] == round(datetime(2024, 5, 15, 12).timestamp() * 1000)
    car = sample_answer(data, 3)["labels"][0]
    assert car["name"] == "car" and car["type"] == 1 and car["score"] == 0.9
    assert car["property"] == {
        "color": "red",
        "@modelarts:shape": "bndbox",
        "@modelarts:feature": [[0, 0], [5, 5]],
    }
    assert sample_answer(data, 5)["sample_status"] == "UN_ANNOTATION"


def test_the_command(data: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_manifest(tmp_path / "pets.manifest", [sample for sample in data if sample.source != "cars/boxes.png"])
    path = str(tmp_path / "pets.manifest")
    assert main(["search", path, "--label", "cat", "--label", "dog", "--hard", "0"]) == 0
    assert capsys.readouterr().out == "pets/cat.png\npets/old/both.png\nframes/frame.png\n"
    assert main(["search", path, "--metadata", "weather=sun", "--metadata", "night", "--count"]) == 0
    assert capsys.readouterr().out == "1\n"
    conditions = '[{"score": "0.4"}, {"sample_name": "none.png"}]'
    assert main(["search", path, "--search-conditions", conditions]) == 0
    assert capsys.readouterr().out == "pets/dog.png\nnone.png\n"
    assert main(["search", path, "--search-conditions", conditions, "--sample-state", "__none__", "--json"]) == 0
    assert '"sample_count": 1' in capsys.readouterr().out
    (tmp_path / "asked.json").write_text(conditions)
    assert main(["search", path, "--search-conditions", str(tmp_path / "asked.json"), "--hard", "1"]) == 0
    assert capsys.readouterr().out == "pets/dog.png\n"
    for wrong, message in [
        (["--score", "high"], "--score: must be MIN-MAX"),
        (["--metadata", "=x"], "--metadata: must be KEY=VALUE"),
        (["--search-conditions", "[{]"], "--search-conditions: must be JSON"),
        (["--search-conditions", conditions, "--score", "1"], "score is given by a flag, too"),
    ]:
        assert main(["search", path, *wrong]) == 2
        assert message in capsys.readouterr().err
    assert main(["search", path, "--search-conditions", "nothing.json"]) == 1
    assert "nothing.json: must be JSON, or a file with it" in capsys.readouterr().err
    assert read_samples(path).samples[0].source == "pets/cat.png"


def test_the_command_shows_sources_that_are_no_unicode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "odd.manifest").write_text('{"source": "caf\\udce9.png", "annotation": []}\n')
    with (tmp_path / "printed").open("w", encoding="utf-8", errors="strict") as printed:
        monkeypatch.setattr("sys.stdout", printed)
        assert main(["search", str(tmp_path / "odd.manifest")]) == 0
    assert (tmp_path / "printed").read_text() == "caf\\udce9.png\n"
    monkeypatch.setattr("sys.stdout", bare := io.StringIO())  # whoever runs us may have another one
    assert main(["search", str(tmp_path / "odd.manifest"), "--count"]) == 0
    assert bare.getvalue() == "1\n"


def test_attributes_are_those_that_answers_show(data: Dataset) -> None:
    """What a sample is told to have is what it is found by."""
    for row in range(len(data)):
        told = sample_answer(data, row)
        for name, value in told["metadata"].items():
            one = value[0] if isinstance(value, list) else value
            wanted = {"metadata": {"props": {name: [str(one).lower() if isinstance(one, bool) else str(one)]}}}
            assert row in matching(data, checked_conditions([wanted])[0]), (row, name)
        for label in told["labels"]:
            for name, value in label["property"].items():
                if isinstance(value, str):
                    wanted = {"label_list": {"labels": [{"name": label["name"], "property": {name: [value]}}]}}
                    assert row in matching(data, checked_conditions([wanted])[0]), (row, name)
    hard = checked_conditions([{"metadata": {"props": {"@modelarts:hard": ["true"]}}}])[0]
    assert matching(data, hard).tolist() == [1]


def test_whom_a_sample_was_given_to(data: Dataset) -> None:
    given = data.with_samples([replace(data[0], property={"@modelarts:worker_id": "w-17"}), *data.samples[1:]])
    assert matching(given, checked_conditions([{"labeler": "w-17"}])[0]).tolist() == [0]
