"""What a request says of the data: another manifest, labels of samples, training data, and where results go besides."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import painted
from foreign_models import bright_detector, onnx_colors
from test_prelabeling import colored

from engine.dataset import Dataset, read_samples
from engine.errors import InputError, UsageError
from engine.manifest import write_manifest
from engine.models import Shelf
from engine.samples import (
    HARD_REASONS_KEY,
    IMAGE_CLASSIFICATION,
    OBJECT_DETECTION,
    Drawing,
    Label,
    Sample,
    Shape,
)
from engine.sources import Sources
from engine.tasks.catalog import run_request
from engine.tasks.conditions import known_id
from engine.tasks.preparing import given_sample, prepared, with_guests, with_places
from engine.tasks.probabilities import read_probabilities
from engine.tasks.request import parse_request
from engine.tasks.schema import SampleLabels, TaskRequest
from engine.voc import write_voc

USUAL = {"steps": "4", "networks": 2, "precision": "float32", "image_size": 16}


def learning(**config: Any) -> TaskRequest:
    entries = [{"label": name, "value": value} for name, value in USUAL.items()]
    body = {"task_type": "auto-label", "config": {"algorithm_type": "fast", "parameters": entries, **config}}
    return parse_request(body)


def asking(**config: Any) -> TaskRequest:
    return parse_request({"task_type": "pre-label", "config": config})


def test_new_labels_are_not_doubtful(tmp_path: Path) -> None:
    guess = Label(IMAGE_CLASSIFICATION, name="cat", annotated_by="modelarts/auto", hard=True, hard_coefficient=0.8)
    doubtful = Sample("a.png", (guess,), hard=True, hard_coefficient=0.8, property={HARD_REASONS_KEY: [1], "x": 1})
    told = SampleLabels.model_validate({"sample_id": "a", "labels": [{"name": "dog", "type": 0}]})
    new = given_sample(doubtful, told, "sample a", keep=True)
    assert (new.hard, new.hard_coefficient, dict(new.property)) == (None, None, {"x": 1})
    box = {"name": "dog", "type": 1, "property": {"@modelarts:feature": [[1, 2], [3, 4]]}}
    sized = {"sample_id": "a", "labels": [box], "metadata": {"@modelarts:size": [200, 120, 3]}}
    (drawn,) = given_sample(doubtful, SampleLabels.model_validate(sized), "sample a").labels
    assert drawn.drawing is not None and drawn.drawing.size == (200, 120, 3)  # in whose pixels the box is
    marked = SampleLabels.model_validate({"sample_id": "a", "metadata": {"y": 2}})
    kept = given_sample(doubtful, marked, "sample a", keep=True)
    assert kept.labels == (guess,) and kept.hard and kept.property[HARD_REASONS_KEY] == [1] and kept.property["y"] == 2


def test_an_export_of_the_result_knows_samples_by_the_ids_and_places_of_the_data(tmp_path: Path) -> None:
    dataset = painted(tmp_path / "few")
    ids = [known_id(dataset[0]), known_id(dataset[20])]
    for name, params, expected in (
        ("ids", {"samples": ids}, 2),
        ("place", {"search_conditions": [{"sample_dir": "/"}]}, len(dataset)),
    ):
        config = {"n_clusters": 2, "property": "group", "export_params": params}
        body = {"task_type": "auto-grouping", "config": config}
        answer = run_request(parse_request(body), dataset, tmp_path / "elsewhere" / name)
        assert answer["result"]["export"]["exported_sample_count"] == expected, name


def test_folders_of_a_service_are_placed_and_of_no_interest_to_other_tasks(tmp_path: Path) -> None:
    """A bucket that nobody maps is accepted where the field has no effect, as everything that has none is."""
    dataset = painted(tmp_path / "few")
    bucket = learning(output_dir="obs://bucket/out")
    assert with_places(bucket, dataset, allowed=lambda path: path) == bucket
    deploy = parse_request({"task_type": "auto-deploy", "config": {"output_dir": "kept"}})
    placed = with_places(deploy, dataset, allowed=lambda path: path, base=tmp_path)
    assert placed.config.output_dir == str(tmp_path / "kept")
    unmapped = parse_request({"task_type": "auto-deploy", "config": {"output_dir": "obs://bucket/out"}})
    with pytest.raises(UsageError, match=r"config\.output_dir: obs://bucket/out: not on this machine"):
        with_places(unmapped, dataset, allowed=lambda path: path)


def test_auto_deploy_exports_what_it_learned_from(tmp_path: Path) -> None:
    dataset = painted(tmp_path / "few")
    shelf = Shelf(tmp_path / "home")
    found = shelf.add(onnx_colors(tmp_path / "rgb"))
    body = {
        "task_type": "auto-deploy",
        "model_id": found.model_id,
        "config": {"export_params": {"sample_state": "ALL"}},
    }
    answer = run_request(parse_request(body), dataset, tmp_path / "out", shelf=shelf)
    assert answer["result"]["export"]["exported_sample_count"] == 18


def test_another_manifest(tmp_path: Path) -> None:
    dataset = painted(tmp_path / "few")
    write_manifest(tmp_path / "few" / "part.manifest", dataset.samples[:20])
    assert len(prepared(learning(manifest_path="part.manifest"), dataset)) == 20
    mapped = Dataset(dataset.samples, Sources(tmp_path, (("s3://bucket/", tmp_path / "few"),)))
    found = prepared(learning(manifest_path="s3://bucket/part.manifest"), mapped)
    assert len(found) == 20 and found.sources.prefixes == mapped.sources.prefixes
    with pytest.raises(UsageError, match=r"config\.manifest_path: obs://x/y: not on this machine"):
        prepared(learning(manifest_path="obs://x/y"), mapped)

    def refused(path: Path) -> Path:
        raise UsageError(f"{path.name} is not yours")

    with pytest.raises(UsageError, match=r"part\.manifest is not yours"):
        prepared(learning(manifest_path="part.manifest"), dataset, allowed=refused)


def test_training_data_from_elsewhere_are_learned_from_and_not_written(tmp_path: Path) -> None:
    here, there = painted(tmp_path / "here"), painted(tmp_path / "there")
    unlabeled = here.with_samples(Sample(sample.source) for sample in here)
    write_manifest(tmp_path / "there" / "all.manifest", there.samples)
    with pytest.raises(InputError, match="got no labeled image"):
        run_request(learning(), unlabeled, tmp_path / "no")
    answer = run_request(
        learning(train_data_path=str(tmp_path / "there" / "all.manifest")), unlabeled, tmp_path / "out"
    )
    assert answer["result"]["annotated_sample_count"] == answer["result"]["total_sample_count"] == 27
    assert "18 labeled images of all to learn from" in answer["notices"]
    written = read_samples(tmp_path / "out")
    assert [sample.source for sample in written] == [f"../here/{at:02}.png" for at in range(27)]
    assert len(read_probabilities(tmp_path / "out" / "probabilities.npz").sources) == 27
    assert all(sample.labels and not sample.labels[0].by_human for sample in written)
    with pytest.raises(InputError, match=r"config\.train_data_path: must hold labels that people gave on other images"):
        prepared(learning(train_data_path="all.manifest"), there)  # the very same files


def test_samples_in_the_request(tmp_path: Path) -> None:
    dataset = painted(tmp_path / "few")
    given = [
        {"sample_id": known_id(dataset[0]), "labels": [{"name": "ring", "type": 0, "property": {"color": "red"}}]},
        {"source": "01.png"},
        {
            "source": "02.png",
            "labels": [{"name": "lying", "score": 0.3, "annotated_by": "auto", "property": {"@modelarts:hard": "1"}}],
            "metadata": {"@modelarts:hard": 1, "@modelarts:hard_reasons": [3, 1], "weather": "sun"},
            "sample_usage": "EVAL",
            "worker_id": "w7",
        },
        {
            "source": "03.png",
            "labels": [
                {
                    "name": "bar",
                    "type": 1,
                    "score": 0.5,
                    "property": {"@modelarts:shape": "bndbox", "@modelarts:feature": [[1, 2], [8, 9]], "tall": "no"},
                },
                {"name": "spot", "property": {"@modelarts:shape": "point", "@modelarts:feature": [[4, 4]]}},
            ],
        },
    ]
    found = prepared(learning(samples=given), dataset)
    assert found[0].labels[0].name == "ring" and dict(found[0].labels[0].property) == {"color": "red"}
    assert found[0].labels[0].by_human and found[1].labels == ()
    two = found[2]
    assert (two.labels[0].confidence, two.labels[0].hard, two.labels[0].by_human) == (0.3, True, False)
    assert (two.usage, two.hard, two.property["@modelarts:hard_reasons"]) == ("EVAL", True, [3, 1])
    assert two.property["weather"] == "sun" and two.property["@modelarts:worker_id"] == "w7"
    (label,) = found[3].labels
    assert label.type == OBJECT_DETECTION and label.drawing is not None
    bar, spot = label.drawing.shapes
    assert (bar.xyxy, bar.confidence, dict(bar.property)) == ((1, 2, 8, 9), 0.5, {"tall": "no"})
    assert spot.kind == "point" and found.samples[4:] == dataset.samples[4:]
    for wrong, message in [
        ([{"sample_id": "nobody"}], r"config\.samples\[0\]: must be a sample of dataset, got 'nobody'"),
        ([{"source": "01.png", "labels": [{"type": 0}]}], r"labels\[0\]\.name: must be given"),
        ([{"source": "01.png", "labels": [{"type": 600, "name": "x"}]}], "must be one that a manifest knows"),
        ([{"source": "01.png", "labels": [{"type": 1, "name": "x"}]}], "an object needs a name and"),
    ]:
        with pytest.raises((InputError, UsageError), match=message):
            prepared(learning(samples=wrong), dataset)


def test_outputs_elsewhere_and_the_time_of_labels(tmp_path: Path) -> None:
    dataset = colored(tmp_path / "data")
    asked = asking(annotation_output="labels/new", inf_output="said", time="2024-05-06 07:08:09", name="my task")
    answer = run_request(asked, dataset, tmp_path / "out", model=onnx_colors(tmp_path / "rgb"))
    assert answer["task_name"] == "my task"
    copies = read_samples(tmp_path / "out" / "labels" / "new")
    usual = read_samples(tmp_path / "out")
    assert [each.labels for each in copies] == [each.labels for each in usual]
    assert copies.path(copies[0]).is_file() and usual[20].labels[0].creation_time == "2024-05-06 07:08:09"
    lines = [json.loads(line) for line in (tmp_path / "out" / "said" / "inference.jsonl").read_text().splitlines()]
    assert len(lines) == 18 and lines[0]["source"] == usual[12].source
    assert lines[0]["predicted_label"] == lines[0]["scores"][0][0] == "red"
    assert sum(float(score) for _, score in lines[0]["scores"]) == pytest.approx(1, abs=1e-5)
    for name in ("annotation_output", "inf_output", "key_sample_output"):
        with pytest.raises(UsageError, match=f"config.{name}: must be a folder below OUT"):
            asked = parse_request({"task_type": "pre-label", "collect_key_sample": True, "config": {name: "../up"}})
            run_request(asked, dataset, tmp_path / "no", model=tmp_path / "rgb")
    assert not (tmp_path / "no").exists()


def test_a_request_may_want_its_result_exported(tmp_path: Path) -> None:
    dataset = colored(tmp_path / "data")
    params = {"sample_state": "AUTO_ANNOTATION", "ratio_sample_usage": True, "train_sample_ratio": "0.5"}
    asked = asking(export_format=1, export_params=params)
    answer = run_request(asked, dataset, tmp_path / "out", model=onnx_colors(tmp_path / "rgb"))
    assert answer["result"]["export"]["exported_sample_count"] == 18
    parts = [read_samples(tmp_path / "out" / "export" / part, format="tree") for part in ("train", "eval")]
    assert [len(part) for part in parts] == [9, 9]
    assert {label.name for part in parts for sample in part for label in sample.labels} == {"red", "green", "blue"}
    grouping = {"n_clusters": 2, "export_params": {"export_dest": "NEW_DATASET", "export_new_dataset_name": "two"}}
    answer = run_request(
        parse_request({"task_type": "auto-grouping", "config": grouping}), dataset, tmp_path / "groups"
    )
    fresh = read_samples(tmp_path / "groups" / "export" / "two-V001.manifest")
    assert len(fresh) == 30 and all(fresh.path(sample).is_file() for sample in fresh)
    with pytest.raises(UsageError, match="CarbonData"):
        run_request(asking(version_format="CarbonData"), dataset, tmp_path / "no", model=tmp_path / "rgb")


def test_an_export_is_of_what_the_task_has_made(tmp_path: Path) -> None:
    """Boxes of images that nobody labeled; labels of images of which more carry unconfirmed boxes."""
    dataset = painted(tmp_path / "few")
    bare = dataset.with_samples(replace(each, labels=()) for each in dataset)
    lamps = bright_detector(tmp_path / "lamps")
    answer = run_request(asking(export_format=2), bare, tmp_path / "boxes", model=lamps)
    assert answer["result"]["export"]["format"] == "voc" and answer["result"]["export"]["counts"]["shapes"] > 0
    with pytest.raises(UsageError, match="has no place for boxes"):
        run_request(asking(export_format=1), bare, tmp_path / "no", model=lamps)
    shelf = Shelf(tmp_path / "home")
    body = {"task_type": "pre-label", "model_id": shelf.add(lamps).model_id, "config": {"export_format": 1}}
    with pytest.raises(UsageError, match="has no place for boxes"):
        run_request(parse_request(body), bare, tmp_path / "no", shelf=shelf)
    drawing = Drawing((Shape("x", "bndbox", ((1, 1), (9, 9)), confidence=0.5),), (24, 24, 3))
    guess = Label(OBJECT_DETECTION, drawing=drawing, annotated_by="modelarts/auto")
    both = dataset.with_samples(replace(each, labels=(*each.labels, guess)) for each in dataset)
    answer = run_request(learning(export_format=2), both, tmp_path / "labels")
    exported = read_samples(tmp_path / "labels" / "export", format="tile")
    assert answer["result"]["export"]["format"] == "tile"
    assert len(exported) == 27 and all(sample.labels for sample in exported)


def test_an_export_after_auto_deploy_has_no_guests(tmp_path: Path) -> None:
    here, there = painted(tmp_path / "here"), painted(tmp_path / "there")
    write_manifest(tmp_path / "there" / "all.manifest", there.samples)
    shelf = Shelf(tmp_path / "home")
    config = {"train_data_path": str(tmp_path / "there" / "all.manifest"), "export_params": {"sample_state": "ALL"}}
    body = {"task_type": "auto-deploy", "model_id": shelf.add(onnx_colors(tmp_path / "rgb")).model_id, "config": config}
    result = run_request(parse_request(body), here, tmp_path / "out", shelf=shelf)["result"]["export"]
    assert result["exported_sample_count"] == 18 and result["counts"]["samples"] == 18
    written = read_samples(tmp_path / "out" / result["path"])
    assert {written.path(sample).resolve().parent for sample in written} == {tmp_path / "here"}


def test_an_export_has_the_boxes_that_a_map_leads_to(tmp_path: Path) -> None:
    dataset = painted(tmp_path / "few")
    write_voc(tmp_path / "few" / "00.xml", Drawing((Shape("x", "bndbox", ((1, 1), (9, 9))),), (24, 24, 3)))
    drawn = Label(OBJECT_DETECTION, annotation_loc="s3://b/00.xml", annotation_format="PASCAL VOC")
    samples = [Sample(f"s3://b/{each.source}", (drawn,) if each is dataset[0] else ()) for each in dataset]
    write_manifest(tmp_path / "there.manifest", samples)
    mapped = read_samples(tmp_path / "there.manifest", map=[f"s3://b/={tmp_path / 'few'}"])
    asked = parse_request({"task_type": "auto-grouping", "config": {"n_clusters": 2, "export_format": 2}})
    answer = run_request(asked, mapped, tmp_path / "out")
    assert answer["result"]["export"]["counts"] == {"images": 27, "labels": 1, "shapes": 1}
    assert answer["failures"] == []


def test_an_export_that_finds_nothing_takes_nothing_away(tmp_path: Path) -> None:
    dataset = colored(tmp_path / "data")
    asked = asking(export_params={"sample_state": "ACCEPTED"})
    answer = run_request(asked, dataset, tmp_path / "out", model=onnx_colors(tmp_path / "rgb"))
    assert answer["status"] == 3 and answer["result"]["export"] is None
    assert any("the export was not written: nothing to export" in line for line in answer["notices"])
    asked = asking(export_params={"export_dataset_version_name": "V2"})
    run_request(asked, dataset, tmp_path / "again", model=tmp_path / "rgb")
    written = read_samples(tmp_path / "again" / "export" / "result-V2.manifest")
    assert all(written.path(sample).is_file() for sample in written) and not written.failures


def test_fields_of_other_tasks_do_nothing(tmp_path: Path) -> None:
    dataset = painted(tmp_path / "few")
    write_manifest(tmp_path / "few" / "part.manifest", dataset.samples[20:])
    config = {"n_clusters": 2, "manifest_path": "part.manifest", "samples": [{"source": "00.png"}]}
    asked = parse_request({"task_type": "auto-grouping", "config": config})
    assert prepared(asked, dataset) is dataset


def test_guests_are_of_the_kind_that_is_learned(tmp_path: Path) -> None:
    here, there = painted(tmp_path / "here"), painted(tmp_path / "there")
    drawn = Label(OBJECT_DETECTION, drawing=Drawing((Shape("x", "bndbox", ((1, 1), (9, 9))),), (24, 24, 3)))
    mixed = [replace(each, labels=(drawn,)) if number < 6 else each for number, each in enumerate(there)]
    found = with_guests(here, there.with_samples(mixed))
    assert found.guests == 12 and found.own == 27 and "12 labeled images of dataset to learn from" in found.notes
