"""Grouping and features as tasks: requests in, OUT out, and what a person does with the groups afterwards."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from conftest import draw
from foreign_models import onnx_colors

from engine.dataset import Dataset, read_samples
from engine.errors import InputError, OutputError, UsageError
from engine.exports import write_voc_folder
from engine.features import BOX_FEATURES, IMAGE_FEATURES
from engine.manifest import read_manifest, write_manifest
from engine.models import Shelf
from engine.outfolder import OutFolder
from engine.samples import (
    HARD_REASONS_KEY,
    IMAGE_CLASSIFICATION,
    OBJECT_DETECTION,
    STATE_KEY,
    Drawing,
    Label,
    Sample,
    Shape,
)
from engine.sources import Sources
from engine.survey import survey
from engine.tasks import review
from engine.tasks.catalog import TASKS, run_request
from engine.tasks.features import features_task, version_names
from engine.tasks.hard import hard_task
from engine.tasks.parameters import Parameters
from engine.tasks.prelabeling import Chosen, prelabeling_task
from engine.tasks.request import TASK_TYPES, parse_request, read_request, request_body
from engine.tasks.review import DROPPED_NAME, MOVES_NAME, drop_group, label_group
from engine.tasks.runner import Outcome, Task, run
from engine.tasks.suggesting import suggest_task

REQUESTS = Path(__file__).parents[1] / "configs"


def grouped(data: Path, out: Path, **options: Any) -> dict[str, Any]:
    """Run a grouping request made of options, by brightness into 3 groups unless they say otherwise."""
    chosen = {"n_clusters": 3, "image_brightness": True, **options}
    body = request_body("auto-grouping", {name: value for name, value in chosen.items() if value is not None})
    return run_request(parse_request(body), read_samples(data, plain=True), out)


def test_every_available_task_can_run() -> None:
    assert set(TASKS) == set(TASK_TYPES)


def asked(task_type: str, dataset: Dataset, threads: int, **options: object) -> Task:
    parameters = [{"label": name, "value": value} for name, value in {"threads": threads, **options}.items()]
    request = parse_request({"task_type": task_type, "config": {"parameters": parameters}})
    return TASKS[task_type](request, dataset, Shelf(dataset.sources.root / "home"))


def prelabeling_of_colors(dataset: Dataset, threads: int) -> Task:
    body = {"task_type": "pre-label", "config": {"parameters": [{"label": "threads", "value": threads}]}}
    return prelabeling_task(parse_request(body), dataset, Chosen(onnx_colors(dataset.sources.root / "rgb")))


@pytest.mark.parametrize(
    ("job", "made"),
    [
        ("grouping._group", lambda data, threads: asked("auto-grouping", data, threads)),
        ("labeling._label", lambda data, threads: asked("auto-label", data, threads)),
        ("detecting._detect", lambda data, threads: asked("auto-label", data, threads, label_type=1)),
        ("deploying._deploy", lambda data, threads: asked("auto-deploy", data, threads)),
        ("prelabeling._prelabel", prelabeling_of_colors),
        ("hard._find", lambda data, threads: hard_task(data, Parameters(threads=threads))),
        ("suggesting._suggest", lambda data, threads: suggest_task(data, count=1, threads=threads)),
    ],
)
def test_threads_are_those_of_torch_while_a_task_runs(
    job: str,
    made: Callable[[Dataset, int], Task],
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before, seen = torch.get_num_threads(), []

    def look(*told: object) -> Outcome:
        seen.append(torch.get_num_threads())
        return Outcome({})

    monkeypatch.setattr(f"engine.tasks.{job}", look)
    run(made(read_samples(photos, plain=True), before + 1), tmp_path / "out")
    assert seen == [before + 1] and torch.get_num_threads() == before


# ---- grouping


def test_what_a_grouping_leaves_in_out(photos: Path, tmp_path: Path) -> None:
    (photos / "broken.png").write_bytes(b"no image")
    out = tmp_path / "out"
    answer = grouped(photos, out)
    assert sorted(path.name for path in out.iterdir()) == [
        ".labelengine-wrote",
        "features.parquet",
        "report.html",
        "result.manifest",
        "task.json",
    ]
    assert (answer["task_type"], answer["export_type"]) == ("auto-grouping", 1)
    assert answer["config"] == {"n_clusters": 3, "image_brightness": True}
    result = answer["result"]
    assert (result["annotated_sample_count"], result["total_sample_count"]) == (24, 25)
    assert (result["manifest_path"], result["property"], result["dimensions"]) == (
        "result.manifest",
        "group",
        ["brightness"],
    )
    assert [(each["group"], each["sample_count"]) for each in result["groups"]] == [(1, 8), (2, 8), (3, 8)]
    assert [failure["source"] for failure in answer["failures"]] == ["broken.png"]
    assert [stage["stage"] for stage in answer["timings"]] == [
        "reading images",
        "grouping",
        "writing the result",
        "drawing the page",
    ]
    written = read_samples(out)
    assert len(written) == 25
    for sample in written:
        assert written.path(sample).is_file()
        expected = None if "broken" in sample.source else str(int(Path(sample.source).name.split("-")[1]) + 1)
        assert sample.property.get("group") == expected
    page = (out / "report.html").read_text()
    assert page.count("<article") == 3
    assert "broken.png" in page
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org", "")


def test_the_features_table(photos: Path, tmp_path: Path) -> None:
    (photos / "broken.png").write_bytes(b"no image")
    grouped(photos, tmp_path / "out")
    table = pq.read_table(tmp_path / "out" / "features.parquet")
    assert table.column_names == [
        "group",
        "source",
        "failure",
        "width",
        "height",
        *IMAGE_FEATURES,
        *BOX_FEATURES,
    ]
    rows = {row["source"]: row for row in table.to_pylist()}
    assert len(rows) == 25
    broken = rows["broken.png"]
    assert (broken["group"], broken["failure"], broken["brightness"], broken["box_count"]) == (
        0,
        "not_an_image",
        None,
        None,
    )
    row = rows["light-2-0.png"]
    assert (row["group"], row["failure"], row["width"], row["height"], row["resolution"]) == (3, None, 48, 36, 1728.0)
    assert row["box_count"] == 0
    assert row["box_aspect_ratio"] == []
    found = survey(read_samples(photos), Sources(photos), folder=tmp_path)
    assert row["brightness"] == pytest.approx(float(found.column("brightness")[sorted(rows).index("light-2-0.png")]))
    field = table.schema.field("brightness")
    assert field.metadata[b"unit"] == b"[0, 1]"


def test_groups_as_folders(photos: Path, tmp_path: Path) -> None:
    draw(photos / "more" / "light-0-0.png", light=0.2, seed=77)  # the name of another one
    out = tmp_path / "out"
    answer = grouped(photos, out, result_type=0)
    assert answer["export_type"] == 0
    assert sorted(path.name for path in (out / "groups").iterdir()) == ["1", "2", "3"]
    of_dark = read_samples(out / "groups" / "1" / "group.manifest")
    assert len(of_dark) == 9
    assert {sample.source for sample in of_dark} == {f"light-0-{n}.png" for n in range(8)} | {"light-0-0-2.png"}
    for sample in of_dark:
        assert of_dark.path(sample).stat().st_nlink == 2, "a hard link, not a copy"
    assert len(list(read_manifest(out / "result.manifest"))) == 25


def test_the_request_of_the_specification_runs_as_it_stands(photos: Path, tmp_path: Path) -> None:
    request = read_request(REQUESTS / "requests" / "auto_grouping.json")
    answer = run_request(request, read_samples(photos), tmp_path / "out")
    assert (answer["status"], answer["export_type"]) == (3, 1)
    assert answer["result"]["property"] == "size"
    sizes = {sample.property["size"] for sample in read_manifest(tmp_path / "out" / "result.manifest")}
    assert sizes == {"1", "2"}


@pytest.mark.parametrize("name", ["group_by_content", "group_by_light", "group_to_attribute"])
def test_our_own_requests_run(photos: Path, tmp_path: Path, name: str) -> None:
    answer = run_request(read_request(REQUESTS / f"{name}.jsonc"), read_samples(photos), tmp_path / "out")
    assert answer["status"] == 3


def test_the_same_request_gives_the_same_bytes(photos: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        grouped(photos, tmp_path / name, image_brightness=None, seed=5, threads=1 if name == "a" else 2)
    for name in ("result.manifest", "features.parquet"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    pages = [(tmp_path / name / "report.html").read_text() for name in ("a", "b")]
    assert pages[0] == pages[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"property": "@modelarts:size"}, "property: must be a name that does not begin with @"),
        ({"weights": "x.pth"}, "weights: belong to an encoder, got x.pth and no encoder"),
        ({"encoder": "resnet18"}, "resnet18 needs weights from a local file"),
        ({"encoder": "nothing"}, "encoder: must be "),
        ({"device": "cuda:17"}, "device: cuda:17 is not there"),
        ({"n_clusters": 30}, "n_clusters: must be at most the number of unlabeled images, got 30 for 24"),
    ],
)
def test_options_that_cannot_be(photos: Path, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        grouped(photos, tmp_path / "out", **options)


def test_boxes_come_with_the_size_of_their_image(photos: Path, tmp_path: Path) -> None:
    shape = Shape("cell", "bndbox", ((4, 4), (20, 16)))
    label = Label(type=OBJECT_DETECTION, drawing=Drawing((shape,)))
    samples = [Sample(path.name, (label,)) for path in sorted(photos.iterdir())]
    with OutFolder(tmp_path / "voc") as folder:
        write_voc_folder(samples, Sources(photos), folder, copy=True)
    out = tmp_path / "out"
    request = parse_request(
        request_body("auto-grouping", {"n_clusters": 2, "all": True, "image_brightness": True, "result_type": 0})
    )
    run_request(request, read_samples(tmp_path / "voc"), out)
    for sample in read_manifest(out / "result.manifest"):
        assert sample.property["@modelarts:size"] == [48, 36, 3]
    assert len(read_samples(out)[0].boxes) == 1, "the annotation files are found from OUT"
    assert len(read_samples(out / "groups" / "1" / "group.manifest")[0].boxes) == 1
    row = pq.read_table(out / "features.parquet").to_pylist()[0]
    assert row["box_count"] == 1
    assert row["box_aspect_ratio"] == pytest.approx([16 / 12])
    assert "box_area_share" in (out / "report.html").read_text()


def test_out_may_not_be_the_data(photos: Path) -> None:
    with pytest.raises(OutputError, match="must be new or empty"):
        grouped(photos, photos)


def test_out_inside_the_data_is_said(photos: Path, tmp_path: Path) -> None:
    answer = grouped(photos, photos / "out")
    assert any("lies inside the folder of the data set" in line for line in answer["notices"])
    assert not any("lies inside" in line for line in grouped(photos / "out", tmp_path / "other")["notices"])


# ---- features


def test_versions_side_by_side(photos: Path, tmp_path: Path) -> None:
    second = tmp_path / "more" / "photos"
    for number in range(5):
        draw(second / f"{number}.png", light=0.7, seed=number)
    (second / "broken.png").write_bytes(b"no image")
    datasets = [read_samples(photos, plain=True), read_samples(second, plain=True)]
    answer = run(features_task(datasets), tmp_path / "out")
    assert version_names(datasets) == ["photos", "photos (2)"]
    versions = answer["result"]["versions"]
    assert [(each["total_sample_count"], each["readable"]) for each in versions] == [(24, 24), (6, 5)]
    assert versions[1]["medians"]["brightness"] > versions[0]["medians"]["brightness"]
    table = pq.read_table(tmp_path / "out" / "features.parquet")
    assert table["version"].to_pylist() == ["photos"] * 24 + ["photos (2)"] * 6
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("photos (2)") > 7
    assert "broken.png" in page


def test_a_version_without_a_readable_image(tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.jpg").write_bytes(b"no image")
    answer = run(features_task([read_samples(tmp_path / "bad")]), tmp_path / "out")
    assert answer["result"]["versions"][0]["medians"]["brightness"] is None
    assert len(answer["failures"]) == 1


# ---- what a person does afterwards


@pytest.fixture
def groups(photos: Path, tmp_path: Path) -> Path:
    out = tmp_path / "out"
    grouped(photos, out, result_type=0)
    return out


def labels_in(manifest: Path) -> dict[str, tuple[Label, ...]]:
    return {Path(sample.source).name: sample.labels for sample in read_manifest(manifest)}


def test_label_a_group(groups: Path) -> None:
    done = label_group(groups, 3, "bright", by="anna")
    assert (done.changed, done.kept) == (8, 0)
    for manifest, count in ((groups / "result.manifest", 24), (groups / "groups" / "3" / "group.manifest", 8)):
        found = labels_in(manifest)
        labeled = {name: labels for name, labels in found.items() if labels}
        assert len(found) == count
        assert set(labeled) == {f"light-2-{n}.png" for n in range(8)}
        (label,) = labeled["light-2-0.png"]
        assert (label.name, label.annotated_by, label.type) == ("bright", "human/anna", IMAGE_CLASSIFICATION)
        assert label.by_human
        assert label.creation_time
    assert all(sample.state == "ALL" for sample in read_manifest(groups / "groups" / "3" / "group.manifest"))


def test_a_persons_label_is_kept_and_a_machines_is_not(groups: Path) -> None:
    manifest = groups / "result.manifest"
    samples = list(read_manifest(manifest))
    mine = Label(type=IMAGE_CLASSIFICATION, name="mine")
    guess = Label(type=IMAGE_CLASSIFICATION, name="guess", annotated_by="modelarts/active-learning", confidence=0.4)
    numbers = [number for number, sample in enumerate(samples) if sample.property["group"] == "1"]
    for number, label in zip(numbers[:2], (mine, guess), strict=True):
        samples[number] = Sample(samples[number].source, (label,), property=samples[number].property)
    write_manifest(manifest, samples)
    done = label_group(groups, 1, "dark")
    assert (done.changed, done.kept) == (7, 1)
    after = list(read_manifest(manifest))
    assert [label.name for label in after[numbers[0]].labels] == ["mine"]
    assert [label.name for label in after[numbers[1]].labels] == ["dark"]
    assert label_group(groups, 1, "darker", replace_human=True).changed == 8


def test_a_labeled_group_has_no_marks_of_a_machine(groups: Path) -> None:
    guess = Label(type=IMAGE_CLASSIFICATION, name="guess", annotated_by="modelarts/active-learning", confidence=0.4)
    marks = {HARD_REASONS_KEY: [3], STATE_KEY: "__AUTO_ANNOTATION__"}
    manifests = (groups / "result.manifest", groups / "groups" / "1" / "group.manifest")
    for manifest in manifests:
        doubted = [
            replace(sample, labels=(guess,), hard=True, hard_coefficient=0.8, property={**sample.property, **marks})
            for sample in read_manifest(manifest)
        ]
        write_manifest(manifest, doubted)
    label_group(groups, 1, "dark")
    for manifest, others in zip(manifests, (16, 0), strict=True):
        samples = list(read_manifest(manifest))
        labeled = [sample for sample in samples if sample.labels[0].name == "dark"]
        assert (len(labeled), len(samples)) == (8, 8 + others)
        for sample in labeled:
            assert (sample.hard, sample.hard_coefficient, sample.state) == (None, None, "ALL")
            assert marks.keys().isdisjoint(sample.property)
        assert sum(sample.hard is True and sample.state == "AUTO_ANNOTATION" for sample in samples) == others


def test_drop_a_group_touches_no_file(groups: Path, photos: Path) -> None:
    before = sorted(photos.iterdir())
    done = drop_group(groups, 2)
    assert (done.changed, done.moved) == (8, 0)
    assert sorted(photos.iterdir()) == before
    assert len(labels_in(groups / "result.manifest")) == 16
    assert set(labels_in(groups / DROPPED_NAME)) == {f"light-1-{n}.png" for n in range(8)}
    with pytest.raises(UsageError, match="no sample is in group 2; it was taken out before"):
        drop_group(groups, 2)
    drop_group(groups, 3)
    assert len(labels_in(groups / DROPPED_NAME)) == 16


def test_drop_a_group_moves_files_when_told_where_to(groups: Path, photos: Path, tmp_path: Path) -> None:
    to = tmp_path / "rejected"
    to.mkdir()
    (to / "light-1-0.png").write_text("a user's own file")
    (photos / "light-1-7.png").unlink()
    done = drop_group(groups, 2, to=to)
    assert (done.changed, done.moved, len(done.failures)) == (8, 7, 1)
    assert "light-1-7.png" in done.failures[0].source
    assert (to / "light-1-0.png").read_text() == "a user's own file"
    assert sorted(path.name for path in to.iterdir()) == [
        "light-1-0-2.png",
        "light-1-0.png",
        *(f"light-1-{n}.png" for n in range(1, 7)),
    ]
    assert not [path for path in photos.iterdir() if path.name.startswith("light-1")]
    left = sorted(path.name for path in (groups / "groups" / "2").iterdir())
    assert left == ["group.manifest", "light-1-7.png"], "links to moved files are gone, the last copy of a file is not"
    dropped = read_samples(groups / DROPPED_NAME)
    assert sum(dropped.path(sample).is_file() for sample in dropped) == 7


def put_elsewhere(patched: pytest.MonkeyPatch) -> None:
    """Files are moved to another file system, which keeps no times."""

    def refuses(source: Any, target: Any) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    patched.setattr(review.os, "link", refuses)
    patched.setattr(review.shutil, "copy2", shutil.copyfile)


def keep_photos(patched: pytest.MonkeyPatch, photos: Path) -> None:
    """No photo can be taken away."""
    unlink = Path.unlink

    def refuses(path: Path, missing_ok: bool = False) -> None:
        if path.parent.name == photos.name:
            raise PermissionError(errno.EACCES, "Permission denied")
        unlink(path, missing_ok)

    patched.setattr(Path, "unlink", refuses)


@pytest.mark.parametrize("other_file_system", [False, True])
@pytest.mark.parametrize("at", ["photos", "2"])
@pytest.mark.parametrize("how", ["interrupted", "killed"])
def test_moving_a_group_goes_on(
    groups: Path,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
    at: str,
    other_file_system: bool,
) -> None:
    """The third file is placed and not yet unlinked, or unlinked but for its link in groups/2; of a kill nothing is
    written down but the moves."""
    to = tmp_path / "rejected"
    unlink, gone = Path.unlink, list[Path]()

    def stops(path: Path, missing_ok: bool = False) -> None:
        gone.extend([path] * (path.parent.name == at))
        if len(gone) == 3:
            if how == "killed":
                monkeypatch.setattr(review, "write_manifest", lambda *_: None)
            raise KeyboardInterrupt
        unlink(path, missing_ok)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", stops)
        if other_file_system:
            put_elsewhere(patched)
        with pytest.raises(KeyboardInterrupt):
            drop_group(groups, 2, to=to)
    monkeypatch.undo()
    dropped = read_samples(groups / DROPPED_NAME)
    assert sum(dropped.path(sample).is_file() for sample in dropped) == (8 if how == "interrupted" else 6) - (at == "2")
    done = drop_group(groups, 2, to=to)
    assert (done.changed, done.failures) == (0, ())
    assert sorted(path.name for path in to.iterdir()) == [f"light-1-{n}.png" for n in range(8)]
    assert not [path for path in photos.iterdir() if path.name.startswith("light-1")]
    assert [path.name for path in (groups / "groups" / "2").iterdir()] == ["group.manifest"]
    dropped = read_samples(groups / DROPPED_NAME)
    assert len(dropped) == 8 and all(dropped.path(sample).parent.samefile(to) for sample in dropped)
    assert not (groups / MOVES_NAME.format(2)).exists()
    with pytest.raises(UsageError, match="it was taken out before"):
        drop_group(groups, 2, to=to)


@pytest.mark.parametrize("other_file_system", [False, True])
def test_a_file_that_cannot_be_taken_away_is_not_copied_again_and_again(
    groups: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other_file_system: bool
) -> None:
    to = tmp_path / "rejected"
    with monkeypatch.context() as patched:
        keep_photos(patched, photos)
        if other_file_system:
            put_elsewhere(patched)
        for _ in range(3):
            done = drop_group(groups, 2, to=to)
            assert (done.moved, len(done.failures)) == (0, 8)
            assert sorted(path.name for path in to.iterdir()) == [f"light-1-{n}.png" for n in range(8)]
    done = drop_group(groups, 2, to=to)
    assert (done.moved, done.failures, len(list(to.iterdir()))) == (8, (), 8)
    assert not [path for path in photos.iterdir() if path.name.startswith("light-1")]
    assert [path.name for path in (groups / "groups" / "2").iterdir()] == ["group.manifest"]


def test_files_lie_where_the_last_call_said(
    groups: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where an earlier call could not take them away, finished with another folder, or was not told of one."""
    drop_group(groups, 2)
    with monkeypatch.context() as patched:
        keep_photos(patched, photos)
        drop_group(groups, 2, to=tmp_path / "first")
    for folder in ("second", "third"):
        assert drop_group(groups, 2, to=tmp_path / folder).moved == 8
        dropped = read_samples(groups / DROPPED_NAME)
        assert all(dropped.path(sample).parent.samefile(tmp_path / folder) for sample in dropped)


def test_a_group_is_listed_once_however_often_it_is_dropped(groups: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(path: Path, samples: Any) -> None:
        if path.name != DROPPED_NAME:
            raise KeyboardInterrupt
        write_manifest(path, samples)

    with monkeypatch.context() as patched:
        patched.setattr(review, "write_manifest", dies)
        with pytest.raises(KeyboardInterrupt):
            drop_group(groups, 2)
    assert drop_group(groups, 2).changed == 8
    assert len(read_samples(groups / DROPPED_NAME)) == 8


def test_a_symbolic_link_is_moved_as_the_file_that_it_means(photos: Path, tmp_path: Path) -> None:
    (photos / "light-1-0.png").unlink()
    (photos / "light-1-0.png").symlink_to("light-1-1.png")
    (photos / "light-1-9.png").symlink_to("light-1-1.png")
    out, to = tmp_path / "out", tmp_path / "rejected"
    grouped(photos, out)
    assert drop_group(out, 2, to=to).failures == ()
    assert not [path for path in photos.iterdir() if path.name.startswith("light-1")]
    assert len(list(to.iterdir())) == 9 and all(path.is_file() for path in to.iterdir())


def test_groups_that_are_not_there(groups: Path, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"group: must be 1\.\.3, got 4"):
        label_group(groups, 4, "x")
    with pytest.raises(UsageError, match="label: must not be empty"):
        label_group(groups, 1, " ")
    with pytest.raises(InputError, match="must be the folder of a finished task"):
        drop_group(photos, 1)
    run(features_task([read_samples(photos)]), tmp_path / "features")
    with pytest.raises(InputError, match="must be the folder of a finished grouping"):
        drop_group(tmp_path / "features", 1)


def test_overwrite_clears_what_was_dropped_before(groups: Path, photos: Path) -> None:
    drop_group(groups, 2)
    request = parse_request(request_body("auto-grouping", {"n_clusters": 3, "image_brightness": True}))
    run_request(request, read_samples(photos), groups, overwrite=True)
    assert not (groups / DROPPED_NAME).exists()
    assert len(labels_in(groups / "result.manifest")) == 24


def test_task_json_is_plain_json(groups: Path) -> None:
    text = (groups / "task.json").read_text("utf-8")
    assert "NaN" not in text
    assert json.loads(text)["result"]["n_clusters"] == 3
