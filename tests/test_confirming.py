"""Automatic labels become a person's: confirmed, corrected, rejected; what people said stays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import draw

from engine.decisions import write_decisions, write_labels
from engine.errors import EngineError, InputError, UsageError
from engine.manifest import read_manifest, write_manifest
from engine.samples import IMAGE_CLASSIFICATION, OBJECT_DETECTION, STATE_KEY, Drawing, Label, Sample, Shape
from engine.tasks.confirming import Confirmed, confirm, difficulty, is_automatic
from engine.voc import read_voc, write_voc

MACHINE = "modelarts/active-learning"


def annotation(name: str, **more: Any) -> dict[str, Any]:
    return {"type": IMAGE_CLASSIFICATION, "name": name, **more}


RECORDS: list[dict[str, Any]] = [
    {
        "source": "a/1.jpg",
        "annotation": [
            annotation(
                "cat",
                id="7",
                confidence="0.95",
                hard="true",
                **{"annotated-by": MACHINE, "creation-time": "2026-01-01 00:00:00", "hard-coefficient": 0.3},
                property={"@modelarts:hard_reasons": "3-20", "color": "red"},
            )
        ],
        "hard": "1",
        "property": {"@modelarts:hard_reasons": [3], "kept": "yes", STATE_KEY: "__AUTO_ANNOTATION__"},
        "undocumented": [1],
    },
    {"source": "a/2.jpg", "annotation": [annotation("dog", confidence=0.6, **{"annotated-by": MACHINE})]},
    {
        "source": "b/3.jpg",
        "annotation": [annotation("dog", confidence=0.99, **{"annotated-by": MACHINE})],
        "hard": "true",
        "hard-coefficient": 0.8,
    },
    {"source": "b/4.jpg", "annotation": [annotation("cat", **{"annotated-by": "human/ben"})]},
    {"source": "b/1.jpg"},
    {
        "source": "b/6.jpg",
        "annotation": [
            {"type": "modelarts/object_detection", "annotation-loc": "6.xml", "annotated-by": MACHINE},
            annotation("cat", confidence=0.9, **{"annotated-by": MACHINE}),
            annotation("dog", confidence=0.7, **{"annotated-by": MACHINE}),
        ],
    },
]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """What auto labeling leaves: four samples with automatic labels, one that a person labeled, one without."""
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "result.manifest").write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    (folder / "task.json").write_text(json.dumps({"task_type": "auto-label", "status": 3}))
    write_labels(folder / "labels.csv", read_manifest(folder / "result.manifest"))
    return folder


def read(out: Path) -> dict[str, Sample]:
    return {sample.source: sample for sample in read_manifest(out / "result.manifest")}


def names(out: Path) -> dict[str, list[str | None]]:
    return {source: [label.name for label in sample.labels] for source, sample in read(out).items()}


def counts(done: Confirmed) -> tuple[int, int, int, int, int]:
    return done.confirmed, done.corrected, done.rejected, done.kept, done.waiting


# ---- confirming


def test_all_become_a_persons(out: Path) -> None:
    before = read(out)
    done = confirm(out, all=True, by="anna")
    assert done.path == out / "result.manifest"
    assert counts(done) == (4, 0, 0, 0, 0)
    after = read(out)
    assert list(after) == list(before)
    assert names(out) == {source: [label.name for label in sample.labels] for source, sample in before.items()}
    assert after["b/4.jpg"] == before["b/4.jpg"], "what a person said stays as it was"
    assert after["b/1.jpg"] == before["b/1.jpg"]
    assert after["b/6.jpg"].labels[0] == before["b/6.jpg"].labels[0], "a detection is no image label"
    for source in ("a/1.jpg", "a/2.jpg", "b/3.jpg", "b/6.jpg"):
        for label in after[source].labels[-2:]:
            if label.type == IMAGE_CLASSIFICATION:
                assert label.annotated_by == "human/anna"
                assert (label.creation_time or "") > "2026-01-01 00:00:00"
                assert (label.confidence, label.hard, label.hard_coefficient) == (None, None, None)
        assert (after[source].hard, after[source].hard_coefficient) == (None, None)
        assert after[source].state == ("AUTO_ANNOTATION" if source == "b/6.jpg" else "ALL"), "its boxes still wait"


def test_what_else_a_line_says_is_kept(out: Path) -> None:
    confirm(out, all=True)
    record = json.loads((out / "result.manifest").read_text().splitlines()[0])
    time = record["annotation"][0].pop("creation-time")
    assert time > "2026-01-01 00:00:00"
    assert record == {
        "source": "a/1.jpg",
        "annotation": [annotation("cat", id="7", **{"annotated-by": "human"}, property={"color": "red"})],
        "property": {"kept": "yes"},
        "undocumented": [1],
    }


def test_again_changes_nothing(out: Path) -> None:
    decided = {"a/2.jpg": ["cat"], "b/3.jpg": [], "b/1.jpg": ["bird"], "b/4.jpg": ["dog"]}
    assert counts(confirm(out, all=True, labels=decided)) == (2, 2, 1, 1, 0)
    first = (out / "result.manifest").stat().st_mtime_ns, (out / "result.manifest").read_bytes()
    assert counts(confirm(out, all=True, labels=decided)) == (0, 0, 0, 1, 0)
    assert ((out / "result.manifest").stat().st_mtime_ns, (out / "result.manifest").read_bytes()) == first


def test_below_a_difficulty(out: Path) -> None:
    found = {source: round(difficulty(sample), 6) for source, sample in read(out).items() if is_automatic(sample)}
    # Its coefficient, where a sample has one; else 1 less the lowest confidence.
    assert found == {"a/1.jpg": 0.05, "a/2.jpg": 0.4, "b/3.jpg": 0.8, "b/6.jpg": 0.3}
    assert difficulty(Sample("x", (Label(IMAGE_CLASSIFICATION, "cat", annotated_by=MACHINE),))) == 1
    assert counts(confirm(out, below=0.05)) == (0, 0, 0, 0, 4), "below is not at"
    assert counts(confirm(out, below=0.35)) == (2, 0, 0, 0, 2)
    assert [source for source, sample in read(out).items() if is_automatic(sample)] == ["a/2.jpg", "b/3.jpg"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("some.txt", "a/1.jpg\n2.jpg\n"),
        ("some.csv", "source,note\na/1.jpg,x\n2.jpg,\n"),
        ("some.jsonl", '{"source": "a/1.jpg"}\n{"source": "2.jpg"}\n'),
        ("some.manifest", '{"source": "out/a/1.jpg"}\n{"source": "out/a/2.jpg"}\n'),
    ],
)
def test_samples_that_a_file_names(out: Path, name: str, content: str) -> None:
    path = out.parent / name
    path.write_text(content)
    assert counts(confirm(out, samples=path)) == (2, 0, 0, 0, 2)
    assert [read(out)[source].state for source in ("a/1.jpg", "a/2.jpg", "b/3.jpg")] == [
        "ALL",
        "ALL",
        "AUTO_ANNOTATION",
    ]


def test_a_sample_without_automatic_labels_is_not_confirmed(out: Path, tmp_path: Path) -> None:
    (tmp_path / "some.txt").write_text("b/4.jpg\nb/1.jpg\n")
    before = (out / "result.manifest").read_bytes()
    assert counts(confirm(out, samples=tmp_path / "some.txt")) == (0, 0, 0, 0, 4)
    assert (out / "result.manifest").read_bytes() == before


def test_the_choices_add_up(out: Path, tmp_path: Path) -> None:
    (tmp_path / "some.txt").write_text("b/3.jpg\n")
    done = confirm(out, below=0.1, samples=tmp_path / "some.txt", labels={"b/6.jpg": ["dog"]})
    assert counts(done) == (2, 1, 0, 0, 1)


# ---- decisions


@pytest.mark.parametrize("name", ["decisions.jsonl", "labels.csv"])
def test_decisions_from_a_file(out: Path, tmp_path: Path, name: str) -> None:
    odd = 'cat, "small"\n🐈'
    decided = {"a/1.jpg": ["cat"], "2.jpg": [odd], "b/3.jpg": [], "b/1.jpg": ["bird", "dog"], "b/6.jpg": ["dog"]}
    write_decisions(tmp_path / name, decided)
    assert counts(confirm(out, labels=tmp_path / name, by="anna")) == (1, 3, 1, 0, 0)
    after = read(out)
    assert names(out) == {
        "a/1.jpg": ["cat"],
        "a/2.jpg": [odd],
        "b/3.jpg": [],
        "b/4.jpg": ["cat"],
        "b/1.jpg": ["bird", "dog"],
        "b/6.jpg": [None, "dog"],
    }
    assert after["a/1.jpg"].labels[0].id == "7", "the label that was there, confirmed"
    assert after["b/3.jpg"].state == "NONE"
    assert (after["b/3.jpg"].hard, after["b/3.jpg"].hard_coefficient) == (None, None)
    assert all(label.by_human for source in ("a/2.jpg", "b/1.jpg") for label in after[source].labels)
    assert after["b/6.jpg"].labels[1].annotated_by == "human/anna"
    assert after["b/6.jpg"].labels[1].confidence is None


def test_a_decision_goes_before_the_other_choices(out: Path) -> None:
    assert counts(confirm(out, all=True, labels={"a/1.jpg": [], "a/2.jpg": ["cat"]})) == (2, 1, 1, 0, 0)
    assert (names(out)["a/1.jpg"], names(out)["a/2.jpg"]) == ([], ["cat"])


def test_what_a_person_said_changes_only_when_asked(out: Path) -> None:
    assert counts(confirm(out, labels={"b/4.jpg": ["dog"]})) == (0, 0, 0, 1, 4)
    assert counts(confirm(out, labels={"b/4.jpg": []})) == (0, 0, 0, 1, 4)
    assert counts(confirm(out, labels={"b/4.jpg": ["cat"]})) == (0, 0, 0, 0, 4), "the same is no conflict"
    assert read(out)["b/4.jpg"].labels[0].annotated_by == "human/ben"
    assert counts(confirm(out, labels={"b/4.jpg": ["dog"]}, by="anna", replace_human=True)) == (0, 1, 0, 0, 4)
    assert (read(out)["b/4.jpg"].labels[0].name, read(out)["b/4.jpg"].labels[0].annotated_by) == ("dog", "human/anna")
    assert counts(confirm(out, labels={"b/4.jpg": []}, replace_human=True)) == (0, 0, 1, 0, 4)
    assert names(out)["b/4.jpg"] == []


def test_labels_csv_follows_and_may_be_given_back(out: Path) -> None:
    sheet = (out / "labels.csv").read_text()
    assert "a/2.jpg,dog,0.6,modelarts/active-learning" in sheet
    (out / "labels.csv").write_text(sheet.replace("a/2.jpg,dog", "a/2.jpg,cat"))
    assert counts(confirm(out, labels=out / "labels.csv", by="anna")) == (3, 1, 0, 0, 0)
    assert (out / "labels.csv").read_text() == (
        "source,label,confidence,annotated_by\n"
        "a/1.jpg,cat,,human/anna\n"
        "a/2.jpg,cat,,human/anna\n"
        "b/3.jpg,dog,,human/anna\n"
        "b/4.jpg,cat,,human/ben\n"
        "b/1.jpg,,,\n"
        "b/6.jpg,cat,,human/anna\n"
        "b/6.jpg,dog,,human/anna\n"
    )
    (out / "labels.csv").unlink()
    confirm(out, all=True)
    assert not (out / "labels.csv").exists()


def test_a_manifest_alone(out: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.manifest"
    path.write_bytes((out / "result.manifest").read_bytes())
    assert counts(confirm(path, all=True)) == (4, 0, 0, 0, 0)
    assert is_automatic(read(out)["a/1.jpg"]), "the other one is not touched"


def test_an_image_that_is_named_twice(out: Path) -> None:
    with (out / "result.manifest").open("a") as file:
        file.write(json.dumps(RECORDS[1]) + "\n")
    assert counts(confirm(out, labels={"a/2.jpg": ["cat"]})) == (0, 2, 0, 0, 3)


# ---- refused: nothing is written


def refused(out: Path, error: type[EngineError], match: str, **options: Any) -> None:
    before = {path: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(error, match=match):
        confirm(out, **options)
    assert {path: path.read_bytes() for path in out.iterdir()} == before


def test_bad_choices(out: Path, tmp_path: Path) -> None:
    refused(out, UsageError, "must say which: --all, --below, --samples or --labels")
    refused(out, UsageError, r"below: must be in \[0, 1\], got 1\.5", below=1.5)
    refused(out, UsageError, r"below: must be in \[0, 1\], got nan", below=float("nan"))
    refused(out, UsageError, "by: must not be blank, got ' '", all=True, by=" ")
    refused(out, UsageError, "labels: must be a sequence of labels that are not blank", labels={"a/1.jpg": [""]})
    refused(out, UsageError, "labels: must be a sequence of labels", labels={"a/1.jpg": "cat"})
    refused(out, InputError, "cannot be read", samples=tmp_path / "nothing.txt")


def test_sources_that_nobody_knows(out: Path, tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text(
        '{"source": "a/1.jpg", "label": "x"}\n{"source": "c.jpg", "label": "x"}\n{"source": "1.jpg", "label": "x"}\n'
    )
    told = r"d\.jsonl:2: must be a source in .*result\.manifest, got 'c\.jpg'\n.*d\.jsonl:3: must be the source of one"
    refused(out, InputError, told, labels=tmp_path / "d.jsonl", all=True)
    (tmp_path / "some.txt").write_text("a/1.jpg\n\nc.jpg\n")
    refused(out, InputError, r"some\.txt:3: must be a source in", samples=tmp_path / "some.txt")


def test_one_sample_under_two_names(out: Path, tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("source,label\na/2.jpg,x\n2.jpg,y\n")
    refused(out, InputError, r"d\.csv:3: must say the same of '2\.jpg' as .*d\.csv:2", labels=tmp_path / "d.csv")


def test_folders_that_hold_no_labels_to_confirm(out: Path, tmp_path: Path) -> None:
    (out / "task.json").write_text(json.dumps({"task_type": "auto-grouping", "status": 3}))
    refused(out, InputError, "must be the folder of a task of auto-label, pre-label or hard, got 'auto-grou", all=True)
    (out / "task.json").write_text(json.dumps({"task_type": "auto-label", "status": 1, "message": "running"}))
    refused(out, InputError, "must be the folder of a finished task, got 'running'", all=True)
    (out / "task.json").write_text(json.dumps({"task_type": "pre-label", "status": 3}))
    (out / "result.manifest").rename(tmp_path / "moved.manifest")
    refused(out, InputError, r"out: must hold result\.manifest with automatic labels, got none", all=True)
    with pytest.raises(InputError, match="cannot be read: No such file"):
        confirm(tmp_path / "nothing", all=True)


def test_a_write_that_fails_leaves_the_manifest_as_it_was(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    refused(out, EngineError, r"result\.manifest: cannot be written: No space left", all=True)


def test_boxes_of_a_machine_can_be_rejected(tmp_path: Path) -> None:
    """No label takes them away, as it does with labels of images."""
    drawing = Drawing((Shape("lamp", "bndbox", ((1, 1), (6, 9)), confidence=0.7),), (32, 24, 3))
    day = Label(IMAGE_CLASSIFICATION, name="day", annotated_by="human")
    samples = [Sample("c.png", (day,))]
    for name in ("a", "b"):
        write_voc(tmp_path / f"{name}.xml", drawing)
        by = "modelarts/pre-label"
        boxes = Label(OBJECT_DETECTION, annotated_by=by, annotation_loc=f"{name}.xml", annotation_format="PASCAL VOC")
        samples.append(Sample(f"{name}.png", (day, boxes)))
    path = tmp_path / "lamps.manifest"
    write_manifest(path, samples)
    assert counts(confirm(path, all=True)) == (0, 0, 0, 0, 0)  # more samples have labels of images
    assert counts(confirm(path, labels={"a.png": []}, all=True, label_type=1)) == (1, 0, 1, 0, 0)
    _, first, second = read_manifest(path)
    assert first.labels == (day,) and second.labels[1].by_human
    with pytest.raises(UsageError, match="label_type: must be 0 or 1"):
        confirm(path, all=True, label_type=2)


def boxes_of_a_machine(folder: Path, **sure: float) -> Path:
    """A manifest with an image and a box by name, as sure as that."""
    samples = []
    for name, confidence in sure.items():
        shapes = (
            Shape("lamp", "bndbox", ((1, 1), (6, 9)), confidence=confidence),
            Shape("x", "bndbox", ((1, 1), (2, 2))),
        )
        write_voc(folder / f"{name}.xml", Drawing(shapes[:1] if confidence else shapes, (32, 24, 3)))
        loc = {"annotation_loc": f"{name}.xml", "annotation_format": "PASCAL VOC"}
        samples.append(Sample(f"{name}.png", (Label(OBJECT_DETECTION, annotated_by=MACHINE, **loc),)))
    write_manifest(folder / "lamps.manifest", samples)
    return folder / "lamps.manifest"


def test_boxes_below_a_difficulty_by_their_own_confidences(tmp_path: Path) -> None:
    path = boxes_of_a_machine(tmp_path, a=0.9, b=0.3, c=0.0)
    assert counts(confirm(path, below=0.5)) == (1, 0, 0, 0, 2)
    assert [sample.labels[0].by_human for sample in read_manifest(path)] == [True, False, False]
    assert counts(confirm(path, labels={"a.png": [], "b.png": []})) == (0, 0, 1, 1, 1)  # a person's stays
    assert counts(confirm(path, labels={"a.png": []}, replace_human=True, label_type=1)) == (0, 0, 1, 0, 1)


def test_boxes_have_no_labels_to_be_decided(tmp_path: Path) -> None:
    path = boxes_of_a_machine(tmp_path, a=0.9)
    before = path.read_bytes()
    with pytest.raises(
        UsageError, match=r"labels: of boxes they can only be taken away \(no label\), got 'lamp' for a.png"
    ):
        confirm(path, labels={"a.png": ["lamp"]})
    assert path.read_bytes() == before


@pytest.mark.parametrize(("loc", "map"), [("../labeled/a.xml", False), ("s3://b/a.xml", True)])
def test_boxes_that_lie_elsewhere_are_signed_in_a_file_of_their_own(tmp_path: Path, loc: str, map: bool) -> None:
    """Nothing is written outside the folder of the manifest."""
    sure = Shape("lamp", "bndbox", ((1, 1), (6, 9)), confidence=0.7, hard_coefficient=0.4, hard_reasons=(3,))
    write_voc(tmp_path / "labeled" / "a.xml", Drawing((sure,), (32, 24, 3)))
    before = (tmp_path / "labeled" / "a.xml").read_bytes()
    draw(tmp_path / "labeled" / "a.png", size=(32, 24))
    boxes = Label(OBJECT_DETECTION, annotated_by=MACHINE, annotation_loc=loc, annotation_format="PASCAL VOC")
    path = tmp_path / "mine" / "lamps.manifest"
    write_manifest(path, [Sample("../labeled/a.png", (boxes,))])
    prefixes = [f"s3://b/={tmp_path / 'labeled'}"] if map else []
    assert counts(confirm(path, all=True, map=prefixes)) == (1, 0, 0, 0, 0)
    assert (tmp_path / "labeled" / "a.xml").read_bytes() == before
    (mine,) = read_manifest(path)
    drawing, _ = read_voc(path.parent / str(mine.labels[0].annotation_loc))
    (shape,) = drawing.shapes
    assert (shape.confidence, shape.hard_coefficient, shape.hard_reasons) == (None, None, ())
    assert shape.points == sure.points and [each.name for each in path.parent.iterdir() if each.is_dir()] == [
        "annotations"
    ]


def test_a_drawing_that_cannot_be_read_does_not_keep_the_others_from_being_signed(tmp_path: Path) -> None:
    sure = Shape("lamp", "bndbox", ((1, 1), (6, 9)), confidence=0.7)
    write_voc(tmp_path / "b.xml", Drawing((sure,), (32, 24, 3)))
    (tmp_path / "a.xml").write_text("<annotation>")
    samples = [
        Sample(f"{name}.png", (Label(OBJECT_DETECTION, annotated_by=MACHINE, annotation_loc=f"{name}.xml"),))
        for name in ("a", "b", "gone")
    ]
    write_manifest(tmp_path / "lamps.manifest", samples)
    assert counts(confirm(tmp_path / "lamps.manifest", all=True)) == (3, 0, 0, 0, 0)
    assert read_voc(tmp_path / "b.xml")[0].shapes[0].confidence is None
