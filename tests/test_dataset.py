"""The door: what is read and said, what is refused, and the way through every format and back."""

from __future__ import annotations

import copy
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from engine.dataset import FORMATS, TARGETS, Dataset, read_samples, write_dataset
from engine.errors import EngineError, ImageError, InputError, ManifestError, OutputError, UsageError
from engine.manifest import write_manifest
from engine.outfolder import JOURNAL, OutFolder
from engine.samples import IMAGE_CLASSIFICATION, OBJECT_DETECTION, SIZE_KEY, Drawing, Label, Sample, Shape
from engine.sources import Sources, parse_prefixes

XML = """<annotation><filename>x</filename><size><width>120</width><height>80</height><depth>3</depth></size>
<segmented>0</segmented>{}</annotation>"""
OBJECT = "<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"


def image(root: Path, *names: str, size: tuple[int, int] = (120, 80)) -> Path:
    """Images that differ: each name has its own grey."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", size, sum(name.encode("utf-8", "surrogateescape")) % 256).save(path, format="PNG")
    return root


def text(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def named(*names: str) -> tuple[Label, ...]:
    return tuple(Label(IMAGE_CLASSIFICATION, name=name) for name in names)


def content_by_labels(dataset: Dataset) -> list[tuple[bytes, tuple[str | None, ...], str]]:
    """What a data set says, whatever its files are called: sorted (image bytes, labels, usage)."""
    return sorted(
        (dataset.path(sample).read_bytes(), tuple(label.name for label in sample.labels), sample.usage)
        for sample in dataset
    )


def boxes_by_content(dataset: Dataset) -> dict[bytes, list[tuple[str, tuple[float, ...]]]]:
    return {
        dataset.path(sample).read_bytes(): [(shape.name, shape.xyxy) for shape in sample.boxes] for sample in dataset
    }


# --- Dataset


def test_a_dataset_is_a_sequence_that_knows_where_its_samples_are(tmp_path: Path) -> None:
    samples = (Sample("a.jpg"), Sample("s3://bucket/b.jpg"), Sample("obs://c.jpg"))
    dataset = Dataset(samples, Sources(tmp_path, (("s3://bucket/", Path("/mnt")),)))
    assert (len(dataset), dataset[0], dataset[-2:], list(dataset)) == (3, samples[0], samples[1:], list(samples))
    assert dataset.path(samples[0]) == tmp_path / "a.jpg"
    assert dataset.path(samples[1]) == Path("/mnt/b.jpg")
    with pytest.raises(ImageError, match="--map"):
        dataset.path(samples[2])
    fewer = dataset.with_samples([samples[1]])
    assert (fewer.samples, fewer.sources, len(dataset)) == ((samples[1],), dataset.sources, 3)


# --- reading folders


@pytest.mark.parametrize("entry", ["s3://bucket=photos", "s3://bucket/=photos", "s3://bucket/=photos/"])
def test_a_prefix_leads_below_its_folder(entry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sources = Sources(tmp_path, parse_prefixes([entry]))
    monkeypatch.chdir("/")
    for source in ("s3://bucket/a/1.jpg", "s3://bucket//a/1.jpg"):
        assert sources.path(source) == tmp_path / "photos/a/1.jpg"
    with pytest.raises(ImageError, match="not on this machine"):
        sources.path("s3://bucket2/a/1.jpg")
    assert parse_prefixes(sources.map) == sources.prefixes


def test_a_folder_is_read_as_what_it_is_and_that_is_said(tmp_path: Path) -> None:
    image(tmp_path, "cat/1.png", "dog/2.png", "3.png")
    dataset = read_samples(tmp_path)
    assert (dataset.format, dataset.name, dataset.sources.root) == ("tree", tmp_path.name, tmp_path)
    assert dataset.notes == (
        "read as image classification, one folder a label (tree): 3 images, 1 of them unlabeled, 2 labels; "
        "--format images takes them as plain images",
        "1 images at the root are unlabeled",
    )
    plain = read_samples(str(tmp_path), plain=True)
    assert plain.format == "images"
    assert plain.notes == (
        "read as plain images, nothing is a label (images): 3 images, no labels; "
        "--format tree takes the name of the last folder as label",
    )
    assert read_samples(tmp_path, format="images").samples == plain.samples
    assert read_samples(tmp_path, format="tree", plain=True).samples == dataset.samples


@pytest.mark.parametrize(
    ("format", "reason"),
    [
        ("yolo", r"not of format yolo: a YOLO folder has obj\.names at its root; got 2 images, 1 \.csv"),
        ("voc", r"not of format voc: a VOC folder has an \.xml beside an image"),
        ("tile", r"not of format tile: a tile folder has a \.txt of labels beside an image"),
        ("tree", "not of format tree: a tree has its images in folders"),
        ("manifest", r"must hold result\.manifest or one manifest, got 0"),
    ],
)
def test_a_format_that_does_not_fit_is_an_error_that_says_why(tmp_path: Path, format: str, reason: str) -> None:
    image(tmp_path, "1.png", "2.png")
    text(tmp_path / "table.csv", "a")
    with pytest.raises(InputError, match=reason):
        read_samples(tmp_path, format=format)


def test_what_cannot_be_read_at_all(tmp_path: Path) -> None:
    image(tmp_path / "images", "1.png")
    text(tmp_path / "texts/a/1.txt", "x")
    text(tmp_path / "texts/2.pdf", "x")
    (tmp_path / "empty").mkdir()
    image(tmp_path / "masks", "SegmentationClass/1.png")
    (tmp_path / "masks/JPEGImages").mkdir()
    (tmp_path / "masks/Annotations").mkdir()
    text(tmp_path / "blank.manifest", "\n\n")
    for path, reason in (
        (tmp_path / "gone", "gone: must be a manifest or a folder, got nothing"),
        (tmp_path / "blank.manifest/x", "got nothing"),
        (tmp_path / "a\0b", "cannot be read"),
        (tmp_path / ("x" * 300), "cannot be read"),
        (tmp_path / "empty", r"empty: must hold images \(jpg, .*\), got an empty folder"),
        (tmp_path / "texts", r"texts: must hold images \(.*\), got 0 images, 1 \.pdf, 1 \.txt"),
        (tmp_path / "masks", r"masks: not of format voc: no image lies where its images lie"),
        (tmp_path / "images/1.png", "got one image; give its folder"),
        (tmp_path / "blank.manifest", "must hold a sample a line, got no line"),
    ):
        with pytest.raises(InputError, match=reason):
            read_samples(path)
    with pytest.raises(InputError, match="format tree needs a folder, got a file"):
        read_samples(tmp_path / "blank.manifest", format="tree")
    with pytest.raises(UsageError, match=f"format must be one of {', '.join(FORMATS)}, got 'csv'"):
        read_samples(tmp_path / "images", format="csv")
    with pytest.raises(UsageError, match="--map"):
        read_samples(tmp_path / "images", map=["s3:bucket"])


def test_failures_of_the_folder_and_of_its_files_are_both_there(tmp_path: Path) -> None:
    image(tmp_path, "1.png", "2.png")
    text(tmp_path / "1.xml", XML.format(OBJECT.format("cat", 1, 2, 30, 40)))
    text(tmp_path / "2.xml", "<annotation>")
    (tmp_path / "3.png").symlink_to(tmp_path / "nowhere")
    dataset = read_samples(tmp_path)
    assert [(failure.source, failure.kind) for failure in dataset.failures] == [
        ("3.png", "missing"),
        ("2.png", "annotation"),
    ]
    assert [len(sample.boxes) for sample in dataset] == [1, 0]


def test_a_folder_that_an_earlier_run_wrote_is_read_through_its_manifest(tmp_path: Path) -> None:
    image(tmp_path, "groups/0/1.png")
    write_manifest(tmp_path / "result.manifest", [Sample("groups/0/1.png", named("cat"))])
    dataset = read_samples(tmp_path)
    assert (dataset.format, dataset[0].labels) == ("manifest", named("cat"))
    assert "was written by an earlier run: its result.manifest" in dataset.notes[0]
    assert read_samples(tmp_path, format="images")[0].labels == ()


def test_a_manifest_beside_images_is_named_and_a_lone_one_is_read(tmp_path: Path) -> None:
    image(tmp_path / "data", "cat/1.png")
    write_manifest(tmp_path / "data/V001.manifest", [Sample("cat/1.png", named("dog"))])
    dataset = read_samples(tmp_path / "data")
    assert dataset.format == "tree"
    assert dataset.notes[-1] == "V001.manifest lies in the folder and was not read; give its path to use it"
    assert read_samples(tmp_path / "data", format="manifest")[0].labels == named("dog")
    write_manifest(tmp_path / "lone/V001.manifest", [Sample("../data/cat/1.png")])
    lone = read_samples(tmp_path / "lone")
    assert (lone.format, lone.name) == ("manifest", "V001")
    assert lone.path(lone[0]).is_file()


# --- reading manifests


def annotated(source: str, loc: str) -> Sample:
    return Sample(source, (Label(OBJECT_DETECTION, annotation_loc=loc, annotation_format="PASCAL VOC"),))


def test_the_drawings_of_a_manifest_are_read_from_beside_it_and_through_the_map(tmp_path: Path) -> None:
    xml = XML.format(OBJECT.format("cat", 1, 2, 30, 40))
    text(tmp_path / "set/xml/1.xml", xml)
    text(tmp_path / "mirror/2.xml", xml)
    text(tmp_path / "set/xml/3.xml", "<annotation>")
    samples = [
        annotated("1.jpg", "xml/1.xml"),
        annotated("s3://bucket/2.jpg", "s3://bucket/2.xml"),
        annotated("3.jpg", "xml/3.xml"),
        annotated("4.jpg", "xml/gone.xml"),
        annotated("5.jpg", "obs://elsewhere/5.xml"),
        annotated("7.jpg", "xml/a\0b.xml"),
        Sample("6.jpg", named("cat")),
    ]
    write_manifest(tmp_path / "set/all.manifest", samples)
    dataset = read_samples(tmp_path / "set/all.manifest", map=[f"s3://bucket/={tmp_path}/mirror"])
    assert [len(sample.boxes) for sample in dataset] == [1, 1, 0, 0, 0, 0, 0]
    assert [dict(sample.property) for sample in dataset] == [{SIZE_KEY: [120, 80, 3]}] * 2 + [{}] * 5
    assert [(failure.source, failure.kind) for failure in dataset.failures] == [
        ("3.jpg", "annotation"),
        ("4.jpg", "annotation"),
        ("5.jpg", "annotation"),
        ("7.jpg", "annotation"),
    ]
    assert "--map" in dataset.failures[2].reason
    assert dataset.notes == ("read as manifest: 7 samples, 1 label",)
    untouched = read_samples(tmp_path / "set/all.manifest", drawings=False)
    assert (list(untouched), untouched.failures) == (samples, ())


def test_a_property_that_is_no_mapping_is_left_as_it_is(tmp_path: Path) -> None:
    text(tmp_path / "1.xml", XML.format(""))
    line = '{"source":"1.jpg","property":"[{\\"type\\":0}]","annotation":[{"type":"modelarts/object_detection",'
    line += '"annotation-loc":"1.xml"}]}\n'
    dataset = read_samples(text(tmp_path / "a.manifest", line))
    assert SIZE_KEY not in dataset[0].property
    written = write_dataset(dataset, tmp_path / "out", to="manifest")
    assert json.loads(written.path.read_text())["property"] == '[{"type":0}]'


def test_a_bad_line_is_an_error_with_its_place(tmp_path: Path) -> None:
    path = text(tmp_path / "a.manifest", '{"source": "1.jpg"}\n{"usage": "TRAIN"}\n')
    with pytest.raises(ManifestError, match=r"a\.manifest:2: "):
        read_samples(path)


# --- writing


def test_tree_to_manifest_to_tree(tmp_path: Path) -> None:
    names = ("cat/1.png", "cat/a b.png", "dog/1.png", "straße/日本.png", "top.png", 'it\'s "2"/new\nline.png')
    data = read_samples(image(tmp_path / "data", *names))
    first = write_dataset(data, tmp_path / "manifest", to="manifest")
    assert first.path == tmp_path / "manifest/data.manifest"
    assert first.counts == {"samples": 6, "labels": 5}
    through = read_samples(first.path)
    assert content_by_labels(through) == content_by_labels(data)
    second = write_dataset(through, tmp_path / "tree", to="tree")
    assert (second.counts, second.failures) == ({"images": 6, "labels": 5}, ())
    back = read_samples(tmp_path / "tree")
    assert back.format == "tree"
    assert content_by_labels(back) == content_by_labels(data)
    assert (tmp_path / "tree/cat/1.png").samefile(tmp_path / "data/cat/1.png")


def test_labels_that_cannot_name_a_folder_come_back_from_a_tree(tmp_path: Path) -> None:
    labels = ["a/b", "../up", "..", "con", "x" * 300, "a\0b", ".dot", "a%2Fb", "Cat", "cat"]
    image(tmp_path, *(f"{n}.png" for n in range(len(labels))))
    samples = tuple(Sample(f"{n}.png", named(label)) for n, label in enumerate(labels))
    data = Dataset(samples, Sources(tmp_path))
    write_dataset(data, tmp_path / "out", to="tree")
    assert content_by_labels(read_samples(tmp_path / "out")) == content_by_labels(data)


def test_tile_with_several_labels_and_back(tmp_path: Path) -> None:
    image(tmp_path / "data", "a/1.png", "b/1.png", "b/2.png")
    text(tmp_path / "data/a/1.txt", "cat\nbig dog\n")
    text(tmp_path / "data/b/1.txt", "Straße\n")
    data = read_samples(tmp_path / "data")
    assert data.format == "tile"
    manifest = write_dataset(data, tmp_path / "manifest", to="manifest")
    write_dataset(read_samples(manifest.path), tmp_path / "tile", to="tile")
    back = read_samples(tmp_path / "tile")
    assert back.format == "tile"
    assert content_by_labels(back) == content_by_labels(data)
    assert [labels for _, labels, _ in content_by_labels(back)].count(("cat", "big dog")) == 1


def test_voc_to_yolo_to_voc_within_a_thousandth_of_a_pixel(tmp_path: Path) -> None:
    image(tmp_path / "data", "a/1.png", "b/1.png", "b/2.png")
    text(
        tmp_path / "data/a/1.xml", XML.format(OBJECT.format("cat", 1, 2, 31, 47) + OBJECT.format("dog", 7, 3, 119, 80))
    )
    text(tmp_path / "data/b/1.xml", XML.format(OBJECT.format("dog", 13, 17, 19, 23)))
    text(tmp_path / "data/b/2.xml", XML.format(""))
    data = read_samples(tmp_path / "data")
    assert data.format == "voc"
    expected = boxes_by_content(data)
    assert sorted(map(len, expected.values())) == [0, 1, 2]
    write_dataset(data, tmp_path / "yolo", to="yolo")
    yolo = read_samples(tmp_path / "yolo")
    assert yolo.format == "yolo"
    write_dataset(yolo, tmp_path / "voc", to="voc")
    voc = read_samples(tmp_path / "voc")
    assert voc.format == "voc"
    for dataset in (yolo, voc):
        boxes = boxes_by_content(dataset)
        assert boxes.keys() == expected.keys()
        for content, drawn in expected.items():
            assert [name for name, _ in boxes[content]] == [name for name, _ in drawn]
            for (_, got), (_, wanted) in zip(boxes[content], drawn, strict=True):
                assert got == pytest.approx(wanted, abs=1e-3)
        assert all(sample.state == "ALL" for sample in dataset)  # nothing drawn is an answer, too


def test_the_split_survives_yolo(tmp_path: Path) -> None:
    image(tmp_path, *(f"{n}.png" for n in range(4)))
    drawing = (Label(OBJECT_DETECTION, drawing=Drawing((Shape("cat", "bndbox", ((1, 2), (30, 40))),))),)
    samples = (
        Sample("0.png", drawing, usage="TRAIN"),
        Sample("1.png", drawing, usage="EVAL"),
        Sample("2.png", usage="EVAL"),
        Sample("3.png"),
    )
    write_dataset(Dataset(samples, Sources(tmp_path)), tmp_path / "yolo", to="yolo")
    back = read_samples(tmp_path / "yolo")
    assert [(sample.usage, len(sample.boxes)) for sample in back] == [("TRAIN", 1), ("EVAL", 1), ("EVAL", 0), ("", 0)]
    again = write_dataset(back, tmp_path / "yolo2", to="yolo")
    assert [(s.usage, s.boxes) for s in read_samples(again.path)] == [(s.usage, s.boxes) for s in back]


def test_drawings_without_a_file_get_one_beside_the_manifest(tmp_path: Path) -> None:
    image(tmp_path / "data", "a/1.png", "b/1.png")
    box = Shape("cat", "bndbox", ((1.0, 2.0), (30.0, 40.0)))
    labels = (Label(OBJECT_DETECTION, drawing=Drawing((box,), (120, 80, 3))),)
    data = Dataset((Sample("a/1.png", labels), Sample("b/1.png", labels)), Sources(tmp_path / "data"), name="x")
    written = write_dataset(data, tmp_path / "out", to="manifest")
    assert written.counts == {"samples": 2, "labels": 2, "annotation files": 2}
    back = read_samples(tmp_path / "out")
    assert [sample.labels[0].annotation_loc for sample in back] == ["annotations/1.xml", "annotations/1-2.xml"]
    assert [sample.labels[0].annotation_format for sample in back] == ["PASCAL VOC"] * 2
    assert [sample.boxes for sample in back] == [(box,), (box,)]
    assert [back.path(sample).read_bytes() for sample in back] == [data.path(sample).read_bytes() for sample in data]


def test_a_drawing_that_xml_cannot_hold_is_left_out_of_a_manifest_and_said(tmp_path: Path) -> None:
    nameless = Label(OBJECT_DETECTION, drawing=Drawing((Shape("", "bndbox", ((1, 2), (3, 4))),)))
    data = Dataset((Sample("1.png", (nameless, *named("cat"))),), Sources(tmp_path))
    written = write_dataset(data, tmp_path / "out", to="manifest")
    assert [(failure.source, failure.kind) for failure in written.failures] == [("1.png", "annotation")]
    assert read_samples(written.path)[0].labels == named("cat")


def test_a_manifest_keeps_what_it_does_not_understand_and_finds_its_files_from_elsewhere(tmp_path: Path) -> None:
    image(tmp_path / "set", "images/1.png")
    text(tmp_path / "set/xml/1.xml", XML.format(OBJECT.format("cat", 1, 2, 30, 40)))
    samples = [
        Sample("s3://bucket/9.jpg", named("cat"), extra={"odd": [1, None]}),
        Sample("content://some text", sample_type=1),
        Sample(str(tmp_path / "set/images/1.png"), hard=True),
        annotated("images/1.png", "xml/1.xml"),
    ]
    write_manifest(tmp_path / "set/V1.manifest", samples)
    (tmp_path / "far/away").mkdir(parents=True)
    (tmp_path / "short").symlink_to(tmp_path / "far/away")  # `..` below a link is not what it looks like
    data = read_samples(tmp_path / "set/V1.manifest")
    written = write_dataset(data, tmp_path / "short/out", to="manifest")
    assert written.path.name == "V1.manifest"
    back = read_samples(written.path)
    assert list(back)[:3] == samples[:3]
    assert back.path(back[3]).samefile(tmp_path / "set/images/1.png")
    assert (back[3].boxes, back.failures) == (data[3].boxes, ())
    assert len(back[3].boxes) == 1
    image(tmp_path / "far/data", "2.png")
    roundabout = read_samples(tmp_path / "short/../data")  # far/data, not the data beside `short`
    again = read_samples(write_dataset(roundabout, tmp_path / "out", to="manifest").path)
    assert again.path(again[0]).samefile(tmp_path / "far/data/2.png")


def test_written_labels_of_every_target_are_the_same_twice(tmp_path: Path) -> None:
    image(tmp_path / "data", "a/1.png", "b/1.png", "c/2.png")
    data = read_samples(tmp_path / "data")
    for to in TARGETS:
        trees = []
        for name in ("first", "later"):
            write_dataset(data, tmp_path / name / to, to=to)
            root = tmp_path / name / to
            trees.append({p.relative_to(root): p.read_bytes() for p in root.rglob("*") if p.is_file()})
        assert trees[0] == trees[1], to


def test_copies_are_copies(tmp_path: Path) -> None:
    data = read_samples(image(tmp_path / "data", "a/1.png"))
    write_dataset(data, tmp_path / "out", to="tree", copy="copy")
    assert not (tmp_path / "out/a/1.png").samefile(tmp_path / "data/a/1.png")
    assert content_by_labels(read_samples(tmp_path / "out")) == content_by_labels(data)


def test_a_dataset_whose_images_are_all_gone_is_written_without_them(tmp_path: Path) -> None:
    data = Dataset((Sample("1.jpg"), Sample("2.jpg")), Sources(tmp_path))
    written = write_dataset(data, tmp_path / "out", to="tile")
    assert (written.counts, [failure.kind for failure in written.failures]) == ({}, ["missing", "missing"])


@pytest.mark.parametrize("to", TARGETS)
def test_existing_results_are_replaced_on_request_only_and_files_of_others_never(tmp_path: Path, to: str) -> None:
    first = read_samples(image(tmp_path / "first", "a/1.png", "b/2.png"))
    second = read_samples(image(tmp_path / "second", "c/3.png"))
    out = tmp_path / "out"
    write_dataset(first, out, to=to)
    text(out / "a/mine.txt", "mine")
    with pytest.raises(OutputError, match="must be new or empty"):
        write_dataset(second, out, to=to)
    write_dataset(second, out, to=to, overwrite=True)
    fresh = write_dataset(second, tmp_path / "fresh", to=to).path
    fresh = fresh if fresh.is_dir() else fresh.parent

    def names(folder: Path) -> set[str]:
        return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}

    assert names(out) == names(fresh) | {"a/mine.txt"}
    assert (out / "a/mine.txt").read_text() == "mine"


def test_a_data_set_is_never_written_over_itself(tmp_path: Path) -> None:
    data = read_samples(image(tmp_path / "data", "a/1.png"))
    write_dataset(data, tmp_path / "out", to="tree", copy="copy")
    again = read_samples(tmp_path / "out")
    with pytest.raises(OutputError, match="is the folder of the data set itself"):
        write_dataset(again, tmp_path / "out", to="tile", overwrite=True)
    elsewhere = write_dataset(again, tmp_path / "set", to="manifest")
    with pytest.raises(OutputError, match=r"out/a/1\.png: is part of the data set being read"):
        write_dataset(read_samples(elsewhere.path), tmp_path / "out", to="tile", overwrite=True)
    assert content_by_labels(read_samples(tmp_path / "out")) == content_by_labels(data)


def test_writing_inside_the_data_set_is_said(tmp_path: Path) -> None:
    data = read_samples(image(tmp_path / "data", "a/1.png"))
    written = write_dataset(data, tmp_path / "data/out", to="tile")
    assert "lies inside the folder of the data set" in written.notes[-1]


def test_wrong_requests_write_nothing(tmp_path: Path) -> None:
    data = read_samples(image(tmp_path / "data", "a/1.png"))
    bad: list[dict[str, str]] = [{"to": "pdf"}, {"to": "images"}, {"to": "tree", "copy": "move"}]
    for options in bad:
        with pytest.raises(UsageError, match="must be one of"):
            write_dataset(data, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_nothing_is_written_outside_out_whatever_the_names(tmp_path: Path) -> None:
    image(tmp_path / "deep/er/data", "1.png")
    image(tmp_path / "deep", "up.png")
    box = Shape("../../evil", "bndbox", ((1, 2), (3, 4)))
    samples = (
        Sample("../../up.png", (*named("../../../evil"), Label(OBJECT_DETECTION, drawing=Drawing((box,))))),
        Sample("1.png", named("/tmp/evil", "..")),
        Sample("..", named("x")),
    )
    data = Dataset(samples, Sources(tmp_path / "deep/er/data"), name="../../evil")
    before = set(tmp_path.rglob("*"))
    for to in TARGETS:
        write_dataset(data, tmp_path / "deep/er/out" / to, to=to)
    outside = set(tmp_path.rglob("*")) - before
    assert all(path.is_relative_to(tmp_path / "deep/er/out") for path in outside)
    assert (tmp_path / "deep/er/out/manifest/%2E.%2F..%2Fevil.manifest").is_file()
    assert (tmp_path / "deep/er/out/tree" / JOURNAL).is_file()


@pytest.mark.parametrize("to", TARGETS)
def test_a_full_disk_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: str) -> None:
    data = read_samples(image(tmp_path / "data", "a/1.png"))

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(EngineError, match="cannot be written: No space left on device"):
        write_dataset(data, tmp_path / "out", to=to, copy="copy")


def test_the_manifest_that_is_read_is_one_of_the_files(tmp_path: Path) -> None:
    """So that no task clears the labels that it reads."""
    out = tmp_path / "out"
    with OutFolder(out) as folder:
        folder.write("result.manifest", b'{"source": "a.jpg"}\n')
    dataset = read_samples(out)
    assert dataset.manifest == out / "result.manifest" and out / "result.manifest" in list(dataset.files())
    with pytest.raises(OutputError, match="is part of the data set being read"):
        OutFolder(out, overwrite=True, inputs=dataset.files)
    assert (out / "result.manifest").is_file()


def test_a_digest_tells_what_people_said(tmp_path: Path) -> None:
    def of(*labels: Label) -> str:
        return Dataset((Sample("a.jpg", labels),), Sources(tmp_path)).digest()

    plain, machine = of(), of(Label(0, "cat", annotated_by="modelarts/active-learning"))
    assert plain == machine != of(Label(0, "cat")) != of(Label(0, "dog"))
    sure, unsure = (Label(0, "cat", annotated_by="a-model", confidence=each) for each in (0.9, 0.2))
    said = [Dataset((Sample("a.jpg", (each,)),), Sources(tmp_path)) for each in (sure, unsure)]
    assert said[0].digest() == said[1].digest()
    assert said[0].digest(automatic=True) != said[1].digest(automatic=True)
    shapes = (Shape("cat", "bndbox", ((1, 2), (3, 4))),)
    sizes = {of(Label(OBJECT_DETECTION, drawing=Drawing(shapes, size))) for size in ((9, 9, 3), (18, 18, 3), None)}
    assert len(sizes) == 3  # the same numbers are other places


@pytest.mark.parametrize("again", [copy.deepcopy, lambda samples: pickle.loads(pickle.dumps(samples))])
def test_samples_may_be_copied_and_sent_to_other_processes(tmp_path: Path, again: Callable[[Dataset], Dataset]) -> None:
    plain = Sample("a.png", named("cat"))
    told = Sample("b.png", (Label(IMAGE_CLASSIFICATION, name="dog", property={"@modelarts:color": "#fff"}),))
    write_manifest(tmp_path / "a.manifest", [plain, told])
    dataset = read_samples(tmp_path / "a.manifest")
    assert again(dataset) == dataset
    assert again(dataset).samples == (plain, told)
