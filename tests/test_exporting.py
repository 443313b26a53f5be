"""Exports: the samples that were asked for, in every format, without what shall stay; the source is left alone."""

from __future__ import annotations

import csv
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from conftest import draw

from engine.cli import main
from engine.dataset import Dataset, read_samples
from engine.errors import InputError, UsageError
from engine.manifest import read_manifest, write_manifest
from engine.samples import (
    IMAGE_CLASSIFICATION,
    OBJECT_DETECTION,
    Drawing,
    Label,
    Sample,
    Shape,
)
from engine.sources import Sources
from engine.tasks.exporting import Wanted, divided, export_task, format_for, without_marks
from engine.tasks.runner import run
from engine.tasks.schema import ExportParams

MACHINE = "modelarts/active-learning"
REASONS = {"@modelarts:hard_reasons": [1, 20]}


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    """Twenty images: sixteen of cats, of which a machine labeled four and calls them hard, three of dogs, one of
    nothing."""
    samples = []
    for number in range(20):
        source = f"{number:02}.png"
        draw(tmp_path / "data" / source, seed=number)
        name = "cat" if number < 16 else "dog"
        label = Label(type=IMAGE_CLASSIFICATION, name=name)
        sample = Sample(source, (label,) if number < 19 else ())
        if 12 <= number < 16:
            told = replace(label, annotated_by=MACHINE, confidence=0.5, hard=True, hard_coefficient=0.75)
            told = replace(told, property={"@modelarts:hard_reasons": "1-20", "color": "red"})
            sample = replace(sample, labels=(told,), hard=True, hard_coefficient=0.75, property={**REASONS, "a": 1})
        samples.append(sample)
    return Dataset(tuple(samples), Sources(tmp_path / "data"), name="pets")


@pytest.fixture
def drawn(tmp_path: Path) -> Dataset:
    """Three images: a box and a polygon that a machine drew, a drawing of nothing, and no drawing."""
    for number in range(3):
        draw(tmp_path / "data" / f"{number}.png", size=(60, 40))
    shapes = (
        Shape("car", "bndbox", ((10, 5), (30, 25)), confidence=0.8, hard_coefficient=0.4, hard_reasons=(3,)),
        Shape("road", "polygon", ((0, 20), (40, 20), (40, 40), (0, 40))),
        Shape("gap", "circle", ((5, 5), (2,))),
    )
    made = Label(type=OBJECT_DETECTION, annotated_by=MACHINE, drawing=Drawing(shapes, (60, 40, 3)))
    nothing = Label(type=OBJECT_DETECTION, drawing=Drawing((), (60, 40, 3)))
    samples = (Sample("0.png", (made,)), Sample("1.png", (nothing,)), Sample("2.png"))
    return Dataset(samples, Sources(tmp_path / "data"), name="street")


def exported(dataset: Dataset, out: Path, to: str, **params: Any) -> dict[str, Any]:
    seed = params.pop("seed", 0)
    wanted = Wanted(to, ExportParams.model_validate(params), seed=seed)
    answer = run(export_task(dataset, wanted), out)
    assert answer["failures"] == []
    result: dict[str, Any] = answer["result"]
    return result


def test_all_states_and_the_marks_that_stay_behind(data: Dataset, tmp_path: Path) -> None:
    result = exported(data, tmp_path / "out", "manifest", sample_state="__AUTO_ANNOTATION__")
    assert (result["exported_sample_count"], result["total_sample_count"]) == (4, 20)
    written = list(read_manifest(tmp_path / "out" / "pets-V001.manifest"))
    assert [sample.source for sample in written] == [f"../data/{number}.png" for number in range(12, 16)]
    for sample in written:
        assert sample.hard is None and sample.hard_coefficient is None and dict(sample.property) == {"a": 1}
        assert sample.labels[0].hard is None and dict(sample.labels[0].property) == {"color": "red"}
        assert sample.labels[0].confidence == 0.5 and sample.labels[0].annotated_by == MACHINE
    kept = exported(data, tmp_path / "kept", "manifest", sample_state="AUTO_ANNOTATION", clear_hard_property="false")
    assert kept["path"] == "pets-V001.manifest"
    assert [each.hard_coefficient for each in read_manifest(tmp_path / "kept" / kept["path"])] == [0.75] * 4


@pytest.mark.parametrize(("state", "count"), [("ALL", 15), ("NONE", 1), (None, 20)])
def test_a_state(data: Dataset, tmp_path: Path, state: str | None, count: int) -> None:
    assert exported(data, tmp_path / "out", "csv", sample_state=state)["exported_sample_count"] == count


def test_ids_and_conditions(data: Dataset, tmp_path: Path) -> None:
    from engine.tasks.conditions import known_id

    ids = [known_id(data[0]), known_id(data[17])]
    assert exported(data, tmp_path / "a", "csv", samples=ids)["exported_sample_count"] == 2
    conditions = [{"sample_name": "00.png"}, {"label_list": {"labels": [{"name": "dog"}]}}]
    assert exported(data, tmp_path / "b", "csv", search_conditions=conditions)["exported_sample_count"] == 4
    both = exported(data, tmp_path / "c", "csv", search_conditions=conditions, samples=ids)
    assert both["exported_sample_count"] == 2
    with pytest.raises(InputError, match="nothing to export: none of 20 samples of pets"):
        exported(data, tmp_path / "d", "csv", sample_state="REVIEWED")


def test_a_division_keeps_the_labels_in_their_shares(data: Dataset) -> None:
    parts = divided(data.samples, 0.75, seed=1)
    assert [replace(sample, usage="") for sample in parts] == list(data.samples)
    usages = Counter((sample.labels[0].name if sample.labels else "", sample.usage) for sample in parts)
    assert sum(count for (_, usage), count in usages.items() if usage == "TRAIN") == 15
    assert usages["cat", "TRAIN"] == 12 and usages["dog", "TRAIN"] in (2, 3)
    assert divided(data.samples, 0.75, seed=1) == parts != divided(data.samples, 0.75, seed=2)
    assert {sample.usage for sample in divided(data.samples, 1.0, seed=0)} == {"TRAIN"}
    assert {sample.usage for sample in divided(data.samples, 0.0, seed=0)} == {"EVAL"}


def test_a_tree_in_two_parts(data: Dataset, tmp_path: Path) -> None:
    result = exported(data, tmp_path / "out", "tree", ratio_sample_usage=True, train_sample_ratio="0.8")
    assert (result["train_sample_count"], result["eval_sample_count"]) == (16, 4)
    parts = {name: read_samples(tmp_path / "out" / name, format="tree") for name in ("train", "eval")}
    assert {name: len(part) for name, part in parts.items()} == {"train": 16, "eval": 4}
    again = run(
        export_task(data, Wanted("tree", ExportParams(ratio_sample_usage=False))), tmp_path / "out", overwrite=True
    )
    assert again["result"]["counts"]["images"] == 20
    assert not (tmp_path / "out" / "train").exists() and (tmp_path / "out" / "cat" / "00.png").is_file()


def test_yolo_lists_its_parts(drawn: Dataset, tmp_path: Path) -> None:
    exported(drawn, tmp_path / "out", "yolo", ratio_sample_usage=True, train_sample_ratio=0.34)
    lists = [(tmp_path / "out" / name).read_text().split() for name in ("train.txt", "valid.txt")]
    assert sorted(map(len, lists)) == [1, 2]


def test_a_table_has_a_line_a_label(data: Dataset, tmp_path: Path) -> None:
    exported(data, tmp_path / "csv", "csv", clear_hard_property=False, export_dataset_version_name="V7")
    with (tmp_path / "csv" / "pets-V7.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 20
    assert (lines[0]["source"], lines[0]["label"], lines[0]["type"], lines[0]["hard"]) == ("00.png", "cat", "0", "")
    assert (lines[13]["confidence"], lines[13]["hard"], lines[13]["hard_reasons"]) == ("0.5", "true", "1-20")
    assert (lines[19]["label"], lines[19]["state"]) == ("", "NONE")
    exported(data, tmp_path / "pq", "parquet", clear_hard_property=False)
    table = pq.read_table(tmp_path / "pq" / "pets-V001.parquet").to_pylist()
    assert [row["label"] for row in table] == [line["label"] or None for line in lines]
    assert table[13]["hard"] is True and table[13]["hard_coefficient"] == 0.75 and table[0]["confidence"] is None


def test_a_table_of_labels_that_are_not_utf8(data: Dataset, tmp_path: Path) -> None:
    odd = data.with_samples([Sample("00.png", (Label(type=IMAGE_CLASSIFICATION, name="caf\udce9"),))])
    exported(odd, tmp_path / "out", "parquet")
    (row,) = pq.read_table(tmp_path / "out" / "pets-V001.parquet").to_pylist()
    assert row["label"] == "caf\\udce9"


def test_a_table_of_shapes(drawn: Dataset, tmp_path: Path) -> None:
    exported(drawn, tmp_path / "out", "parquet")
    rows = pq.read_table(tmp_path / "out" / "street-V001.parquet").to_pylist()
    assert [(row["label"], row["shape"], row["points"]) for row in rows[:2]] == [
        ("car", "bndbox", "10,5 30,25"),
        ("road", "polygon", "0,20 40,20 40,40 0,40"),
    ]
    assert rows[0]["hard_coefficient"] is None and rows[0]["confidence"] == 0.8


def test_a_new_data_set_needs_nothing_of_the_old_one(drawn: Dataset, tmp_path: Path) -> None:
    params = {"export_new_dataset_name": "roads", "export_new_dataset_work_path": "work/here"}
    result = exported(drawn, tmp_path / "out", "new", export_dest="NEW_DATASET", **params)
    assert result["path"] == "work/here/roads-V001.manifest" and result["dataset_name"] == "roads"
    (tmp_path / "data").rename(tmp_path / "gone")
    fresh = read_samples(tmp_path / "out" / result["path"])
    assert not fresh.failures and [sample.source for sample in fresh] == [f"images/{at}.png" for at in range(3)]
    assert all(fresh.path(sample).is_file() for sample in fresh)
    assert [shape.name for label in fresh[0].labels if label.drawing for shape in label.drawing.shapes] == [
        "car",
        "road",
        "gap",
    ]
    assert fresh[0].boxes[0].hard_coefficient is None and fresh[0].boxes[0].confidence == 0.8
    assert fresh[1].labels[0].drawing is not None and not fresh[1].labels[0].drawing.shapes


def test_coco(drawn: Dataset, tmp_path: Path) -> None:
    from pycocotools.coco import COCO

    answer = run(export_task(drawn, Wanted("coco", ExportParams())), tmp_path / "out")
    document = json.loads((tmp_path / "out" / "annotations.json").read_text())
    assert [image["file_name"] for image in document["images"]] == ["0.png", "1.png"]  # nobody labeled the third
    car, road = document["annotations"]
    assert car == {
        "id": 1,
        "image_id": 1,
        "category_id": 1,
        "bbox": [10, 5, 20, 20],
        "area": 400,
        "segmentation": [],
        "iscrowd": 0,
        "score": 0.8,
    }
    assert road["area"] == 800 and road["segmentation"] == [[0, 20, 40, 20, 40, 40, 0, 40]]
    assert document["categories"] == [{"id": 1, "name": "car"}, {"id": 2, "name": "road"}]
    assert any("1 shapes of kind circle were left out" in line for line in answer["notices"])
    theirs = COCO(str(tmp_path / "out" / "annotations.json"))
    assert len(theirs.getAnnIds(imgIds=[1])) == 2 and not theirs.getAnnIds(imgIds=[2])
    back = read_samples(tmp_path / "out")
    assert [[(box.name, box.xyxy) for box in each.boxes] for each in back] == [
        [("car", (10, 5, 30, 25)), ("road", (0, 20, 40, 40))],
        [],
        [],
    ]
    assert [each.state for each in back] == ["ALL", "ALL", "NONE"]  # on the second somebody drew nothing
    run(
        export_task(drawn, Wanted("coco", ExportParams(ratio_sample_usage=True, train_sample_ratio=0.5))),
        tmp_path / "b",
    )
    parts = sorted(path.name for path in (tmp_path / "b").glob("annotations*"))
    assert set(parts) <= {"annotations-eval.json", "annotations-train.json"} and parts


def test_marks_go_and_nothing_else(data: Dataset, drawn: Dataset) -> None:
    assert without_marks(data[0]) is data[0] and without_marks(drawn[1]) is drawn[1]
    label = without_marks(drawn[0]).labels[0]
    assert label.drawing is not None and label.annotation_loc is None
    assert [shape.hard_reasons for shape in label.drawing.shapes] == [(), (), ()]
    assert label.drawing.shapes[0].confidence == 0.8


@pytest.mark.parametrize(
    ("export_format", "version_format", "params", "boxes", "expected"),
    [
        (1, None, {}, False, "tree"),
        (2, None, {}, False, "tile"),
        (2, None, {}, True, "voc"),
        (None, None, {}, False, "manifest"),
        (None, "Default", {}, True, "manifest"),
        (None, "CSV", {}, False, "csv"),
        (None, "Default", {"export_dataset_version_format": "CSV"}, False, "csv"),
        (None, None, {"export_dest": "NEW_DATASET"}, False, "new"),
    ],
)
def test_which_format_a_request_means(
    export_format: int | None, version_format: str | None, params: dict[str, Any], boxes: bool, expected: str
) -> None:
    assert format_for(export_format, version_format, ExportParams.model_validate(params), boxes) == expected


def test_what_cannot_be_written() -> None:
    with pytest.raises(UsageError, match=r"CarbonData .* CSV says the same here, and .* writes Parquet"):
        format_for(None, "CarbonData", ExportParams(), False)
    with pytest.raises(UsageError, match=r"a tree .* has no place for boxes"):
        format_for(1, None, ExportParams(), True)
    with pytest.raises(UsageError, match="a new data set has a manifest"):
        format_for(1, None, ExportParams(export_dest="NEW_DATASET"), False)
    nothing = Dataset((), Sources(Path()))
    for place in ("../up", "/etc", "s3://bucket/x"):
        with pytest.raises(UsageError, match="must be a folder below OUT"):
            export_task(nothing, Wanted("new", ExportParams(export_new_dataset_work_path=place)))
    with pytest.raises(UsageError, match="format to write must be one of"):
        export_task(nothing, Wanted("xml", ExportParams()))


def test_an_image_that_is_gone_is_a_failure_and_the_rest_goes_on(data: Dataset, tmp_path: Path) -> None:
    (tmp_path / "data" / "03.png").unlink()
    answer = run(export_task(data, Wanted("new", ExportParams())), tmp_path / "out")
    assert [each["source"] for each in answer["failures"]] == ["03.png"]
    assert answer["result"]["counts"] == {"images": 19, "samples": 19}


def test_the_command(data: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_manifest(tmp_path / "data" / "pets.manifest", data.samples)
    path, out = str(tmp_path / "data" / "pets.manifest"), tmp_path / "out"
    assert main(["export", path, "--out", str(out), "--label", "dog", "--sample-state", "all"]) == 0
    assert "3 of 20 samples as tree: 3 images, 3 labels" in capsys.readouterr().out
    assert sorted(each.name for each in (out / "dog").iterdir()) == ["16.png", "17.png", "18.png"]
    more = ["--to", "manifest", "--coefficient", ">0.5", "--keep-hard-property", "--overwrite"]
    assert main(["export", path, "--out", str(out), *more]) == 0
    assert [each.hard for each in read_manifest(out / "pets-V001.manifest")] == [True] * 4
    assert not (out / "dog").exists()
    assert main(["export", path, "--out", str(tmp_path / "no"), "--to", "pdf"]) == 2
    assert "must be one of tree, tile, voc, yolo, coco, manifest, new, csv, parquet" in capsys.readouterr().err
    (tmp_path / "ids.txt").write_text("nobody\n")
    assert main(["export", path, "--out", str(tmp_path / "no"), "--samples", str(tmp_path / "ids.txt")]) == 1
    assert "must be ids of samples of pets, got nobody" in capsys.readouterr().err
    assert main(["export", path, "--out", str(tmp_path / "no"), "--train-sample-ratio", "1.2"]) == 2
    assert "--train-sample-ratio: must be in [0, 1], got '1.2'" in capsys.readouterr().err
