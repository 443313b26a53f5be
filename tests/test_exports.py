"""Samples -> folders: what lies where, what cannot be said and that it is said, names that want to leave the folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import orjson
import pytest
from PIL import Image

from engine.dataset import read_samples
from engine.exports import (
    WRITERS,
    Tally,
    standing_labels,
    write_coco,
    write_tile,
    write_tree,
    write_voc_folder,
    write_yolo,
)
from engine.outfolder import JOURNAL, OutFolder
from engine.samples import (
    IMAGE_CLASSIFICATION,
    IMAGE_SEGMENTATION,
    OBJECT_DETECTION,
    UNREAD_KEY,
    Drawing,
    Label,
    Sample,
    Shape,
)
from engine.sources import Sources
from engine.voc import read_voc


def image(root: Path, *names: str, size: tuple[int, int] = (100, 50)) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (9, 99, 199)).save(path, format="PNG")


def named(*names: str, by: str | None = None) -> tuple[Label, ...]:
    return tuple(Label(IMAGE_CLASSIFICATION, name=name, annotated_by=by) for name in names)


def box(name: str, x1: float, y1: float, x2: float, y2: float) -> Shape:
    return Shape(name, "bndbox", ((x1, y1), (x2, y2)))


def drawn(*shapes: Shape, size: tuple[int, int, int] | None = (100, 50, 3)) -> tuple[Label, ...]:
    return (Label(OBJECT_DETECTION, drawing=Drawing(shapes, size)),)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    image(tmp_path / "data", "1.png", "a/1.png", "b/1.png")
    return tmp_path / "data"


def written(out: Path) -> dict[str, str]:
    """Every file by name; texts with their content, images as "image"."""
    files = {path.relative_to(out).as_posix(): path for path in out.rglob("*") if path.is_file()}
    files.pop(JOURNAL)
    return {
        name: "image" if name.endswith(("png", "bmp")) else path.read_text() for name, path in sorted(files.items())
    }


def export(write: Callable[..., Tally], samples: list[Sample], data: Path) -> tuple[dict[str, str], Tally]:
    out = data.parent / "out"
    with OutFolder(out) as folder:
        tally = write(samples, Sources(data), folder)
    return written(out), tally


def test_a_persons_labels_stand_before_a_machines() -> None:
    machine, human = named("dog", by="modelarts/active-learning"), named("cat", by="human/me")
    assert standing_labels(Sample("1.png", machine + human)) == human
    assert standing_labels(Sample("1.png", machine)) == machine
    boxes = (replace(drawn(box("cat", 1, 2, 30, 40))[0], annotated_by="modelarts/auto"),)
    assert standing_labels(Sample("1.png", (*machine, *boxes, *human))) == (*boxes, *human)  # of each type by itself


def test_boxes_of_a_machine_are_written_beside_labels_of_people(data: Path) -> None:
    boxes = (replace(drawn(box("cat", 1, 2, 30, 40))[0], annotated_by="modelarts/auto"),)
    samples = [Sample("1.png", (*named("indoors"), *boxes))]
    files, tally = export(write_voc_folder, samples, data)
    assert set(files) == {"1.png", "1.xml"} and tally.counts["shapes"] == 1
    assert [note[:34] for note in tally.notes] == [
        "1 samples carry labels of a machin",
        "1 labels of whole images were left",
    ]
    with OutFolder(data.parent / "tree") as folder:
        tally = write_tree(samples, Sources(data), folder)
    assert tally.notes == ("1 drawings (boxes, shapes) were left out: the format has no place for them",)


def test_a_score_says_that_nobody_signed(data: Path) -> None:
    sure = replace(box("cat", 1, 2, 30, 40), confidence=0.7)
    guess = replace(drawn(sure)[0], annotated_by="modelarts/auto")
    samples = [Sample("1.png", drawn(sure)), Sample("a/1.png", (guess,))]
    files, _ = export(write_coco, samples, data)
    assert [each.get("score") for each in orjson.loads(files["annotations.json"])["annotations"]] == [None, 0.7]
    assert [each.state for each in read_samples(data.parent / "out")] == ["AUTO_ANNOTATION", "ALL"]  # 1-2.png, 1.png


@pytest.mark.parametrize("to", ["tree", "tile", "yolo", "coco"])
def test_labels_that_are_not_utf8_come_back(data: Path, to: str) -> None:
    name = "caf\udce9"
    labels = drawn(box(name, 1, 2, 30, 40)) if to in ("yolo", "coco") else named(name)
    with OutFolder(data.parent / "out") as folder:
        tally = WRITERS[to]([Sample("1.png", labels)], Sources(data), folder)
    assert tally.failures == []
    back = read_samples(data.parent / "out", format=to)
    (sample,) = back
    assert not back.failures and [sample.labels[0].name, *(shape.name for shape in sample.boxes)][-1] == name


# --- tree


def test_a_tree_has_one_folder_a_label_and_distinct_names(data: Path) -> None:
    samples = [
        Sample("b/1.png", named("cat")),
        Sample("1.png", named("cat")),
        Sample("a/1.png"),
        Sample("a/1.png", named("dog", by="modelarts/auto"), usage="TRAIN"),
    ]
    files, tally = export(write_tree, samples, data)
    assert set(files) == {"cat/1.png", "cat/1-2.png", "1.png", "dog/1.png"}
    assert (data.parent / "out/cat/1.png").samefile(data / "b/1.png")
    assert (data.parent / "out/cat/1-2.png").samefile(data / "1.png")
    assert tally.counts == {"images": 4, "labels": 3}
    assert tally.failures == []
    assert set(tally.notes) == {
        "1 samples carry labels of a machine that nobody has confirmed; they are written like a person's",
        "1 usages (TRAIN, EVAL, ...) were left out: the format has no place for them",
    }


def test_several_labels_leave_an_image_unlabeled_at_the_root_and_that_is_a_failure(data: Path) -> None:
    files, tally = export(write_tree, [Sample("a/1.png", named("cat", "dog")), Sample("b/1.png", drawn())], data)
    assert set(files) == {"1.png", "1-2.png"}
    assert [(failure.source, failure.kind) for failure in tally.failures] == [("a/1.png", "annotation")]
    assert "got 2 labels (cat, dog)" in tally.failures[0].reason
    assert tally.notes == ("1 drawings (boxes, shapes) were left out: the format has no place for them",)


def test_the_same_label_twice_is_one(data: Path) -> None:
    files, tally = export(write_tree, [Sample("a/1.png", named("cat", "cat"))], data)
    assert (set(files), tally.failures) == ({"cat/1.png"}, [])


EVIL = [
    "a/b",
    "..",
    "../..",
    "/etc",
    ".",
    ".git",
    "a\0b",
    "new\nline",
    "CON",
    "x" * 300,
    "ä" * 150,
    "a%2Fb",
    " ",
    "1.png",
]
EVIL += ["obj.names", "labelengine-labels.json", ".labelengine-wrote"]


def test_labels_that_want_to_leave_the_folder_stay_in_it_and_are_remembered(data: Path) -> None:
    samples = [Sample("a/1.png", named(label)) for label in EVIL] + [Sample("1.png")]
    files, tally = export(write_tree, samples, data)
    folders = orjson.loads(files.pop("labelengine-labels.json"))
    assert len(files) == len(EVIL) + 1
    assert all(name.count("/") == 1 for name in files if name != "1-2.png")  # unlabeled, beside a folder called 1.png
    assert {folders.get(name.split("/")[0], name.split("/")[0]) for name in files if "/" in name} == set(EVIL)
    assert folders["a%2Fb"] == "a/b"
    assert folders["a%2Fb-2"] == "a%2Fb"
    assert "labels cannot name a folder as they are" in tally.notes[0]
    assert sorted(path.name for path in data.parent.iterdir()) == ["data", "out"]


def test_images_that_cannot_be_read_are_failures_and_the_rest_goes_on(data: Path) -> None:
    (data / "empty.png").write_bytes(b"")
    samples = [
        Sample("gone.png", named("cat")),
        Sample("empty.png", named("cat")),
        Sample("a", named("cat")),
        Sample("s3://bucket/1.png", named("cat")),
        Sample("content://some text", named("cat")),
        Sample("1.png", named("cat")),
    ]
    files, tally = export(write_tree, samples, data)
    assert [failure.kind for failure in tally.failures] == ["missing", "empty", "not_a_file", "remote"]
    assert tally.counts == {"images": 1, "labels": 1}
    assert tally.notes == ("1 samples are not images and were left out",)
    assert len(files) == 1


def test_file_names_are_made_safe_too(data: Path) -> None:
    image(data, ".hidden.png", "new\nline.png")
    (data / "photo").write_bytes((data / "1.png").read_bytes())
    samples = [Sample(".hidden.png"), Sample("new\nline.png"), Sample("photo")]
    out = data.parent / "out"
    with OutFolder(out) as folder:
        tally = write_tree(samples, Sources(data), folder)
    assert {path.name for path in out.iterdir()} == {JOURNAL, "%2Ehidden.png", "new%0Aline.png", "photo"}
    assert tally.notes == ("1 files have no extension of an image and will not be found when the folder is read",)


# --- tile


def test_a_tile_folder_has_its_labels_beside_the_images(data: Path) -> None:
    samples = [
        Sample("a/1.png", named("cat", "dog", "cat")),
        Sample("b/1.png"),
        Sample("1.png", named("../x", " two\nlines ", " ")),
    ]
    files, tally = export(write_tile, samples, data)
    assert files == {
        "1.png": "image",
        "1.txt": "cat\ndog\n",
        "1-2.png": "image",
        "1-3.png": "image",
        "1-3.txt": "../x\ntwo lines\n",
    }
    assert tally.counts == {"images": 3, "labels": 4}
    assert tally.notes == ("2 labels were written with changed blanks, for a line holds one label",)


def test_images_that_differ_in_extension_only_do_not_share_their_labels(data: Path) -> None:
    image(data, "1.bmp")
    files, _ = export(write_tile, [Sample("1.png", named("cat")), Sample("1.bmp", named("dog"))], data)
    assert (files["1.txt"], files["1-2.txt"]) == ("cat\n", "dog\n")


# --- voc


def test_a_voc_folder_has_drawings_beside_the_images(data: Path) -> None:
    cat, dog = box("cat", 1, 2, 30, 40), Shape("dog", "point", ((5, 6),))
    samples = [
        Sample("a/1.png", drawn(cat, size=None) + drawn(dog) + named("indoors")),
        Sample("b/1.png"),
        Sample("1.png", (Label(OBJECT_DETECTION, annotation_loc="lost.xml"),)),
    ]
    _, tally = export(write_voc_folder, samples, data)
    out = data.parent / "out"
    assert sorted(path.name for path in out.iterdir()) == [JOURNAL, "1-2.png", "1-3.png", "1.png", "1.xml"]
    drawing, _ = read_voc(out / "1.xml")
    assert [(shape.name, shape.kind) for shape in drawing.shapes] == [("cat", "bndbox"), ("dog", "point")]
    assert (drawing.size, drawing.filename) == ((100, 50, 3), "1.png")
    assert tally.counts == {"images": 3, "labels": 1, "shapes": 2}
    assert tally.notes == ("1 labels of whole images were left out: the format has no place for them",)
    assert [(failure.source, failure.kind) for failure in tally.failures] == [("1.png", "annotation")]
    assert "drawing lost.xml has not been read" in tally.failures[0].reason


def test_a_drawing_that_xml_cannot_hold_is_a_failure_and_the_rest_goes_on(data: Path) -> None:
    samples = [Sample("a/1.png", drawn(box("", 1, 2, 3, 4))), Sample("b/1.png", drawn(box("cat", 1, 2, 3, 4)))]
    files, tally = export(write_voc_folder, samples, data)
    assert set(files) == {"1.png", "1-2.png", "1-2.xml"}
    assert [(failure.source, failure.kind) for failure in tally.failures] == [("a/1.png", "annotation")]
    assert tally.counts == {"images": 2, "labels": 1, "shapes": 1}


# --- yolo


def test_a_yolo_folder(data: Path) -> None:
    samples = [
        Sample("a/1.png", drawn(box("dog", 0, 0, 100, 50), box("cat", 20, 10, 60, 30)), usage="EVAL"),
        Sample("b/1.png", drawn(), usage="TRAIN"),
        Sample("1.png", drawn(box("cat", 50, 25, 100, 50))),
        Sample("1.png"),
        Sample("1.png", drawn(box("cat", 50, 25, 100, 50)), usage="TEST"),
    ]
    files, tally = export(write_yolo, samples, data)
    folder = "obj_train_data"
    assert files["obj.names"] == "cat\ndog\n"
    assert files["obj.data"].splitlines()[0] == "classes = 2"
    assert files["valid.txt"] == f"{folder}/1.png\n"
    assert files["train.txt"] == f"{folder}/1-2.png\n{folder}/1-3.png\n"
    # cat: centre (40, 20) of 100 x 50, 40 wide, 20 high
    assert [[float(number) for number in line.split()] for line in files[f"{folder}/1.txt"].splitlines()] == [
        [1, 0.5, 0.5, 1, 1],
        [0, 0.4, 0.4, 0.4, 0.4],
    ]
    assert files[f"{folder}/1-2.txt"] == ""
    assert f"{folder}/1-4.txt" not in files
    assert tally.counts == {"images": 5, "labels": 4, "shapes": 4}
    assert tally.notes == ("1 images of another usage than TRAIN and EVAL are in neither train.txt nor valid.txt",)


def test_what_yolo_cannot_express_is_counted_and_empty_boxes_are_failures(data: Path) -> None:
    shapes = (
        Shape("cat", "polygon", ((0, 0), (9, 0), (9, 9))),
        Shape("cat", "circle", ((5, 5), (3,))),
        Shape("cat", "circle", ((6, 6), (3,))),
        box("cat", -10, 0, 50, 60),
        box("dog", 10, 10, 10, 30),
        box(" ", 10, 10, 20, 30),
    )
    files, tally = export(write_yolo, [Sample("1.png", drawn(*shapes))], data)
    assert files["obj_train_data/1.txt"].split()[1:] == ["0.250000000", "0.500000000", "0.500000000", "1.000000000"]
    assert tally.notes == (
        "1 labels were written with changed blanks, for a line holds one label",
        "1 shapes of kind polygon were left out: YOLO knows boxes only",
        "2 shapes of kind circle were left out: YOLO knows boxes only",
        "1 boxes reached out of their image and were clipped",
    )
    assert ["covers nothing" in failure.reason for failure in tally.failures] == [True, False]
    assert "has no name" in tally.failures[1].reason


@pytest.mark.parametrize("write", [write_yolo, write_coco])
def test_what_cannot_be_expressed_is_not_written_as_nothing(write: Callable[..., Tally], data: Path) -> None:
    ring = Shape("ring", "circle", ((5, 5), (3,)))
    unread = (Label(OBJECT_DETECTION, drawing=Drawing((), (100, 50, 3), extra={UNREAD_KEY: "2"})),)
    samples = [Sample("1.png", drawn(ring)), Sample("a/1.png", unread), Sample("b/1.png", drawn())]
    _, tally = export(write, samples, data)
    assert tally.counts["labels"] == 1
    assert tally.notes[0].startswith("1 shapes of kind circle were left out")
    assert [each.state for each in read_samples(data.parent / "out")].count("NONE") == 2


def test_the_size_of_the_drawing_counts_before_that_of_the_image(data: Path) -> None:
    samples = [
        Sample("1.png", drawn(box("cat", 0, 0, 20, 20), size=(200, 100, 3))),
        Sample("a/1.png", drawn(box("cat", 0, 0, 20, 20), size=(0, 0, 0))),
    ]
    files, _ = export(write_yolo, samples, data)
    assert files["obj_train_data/1.txt"].split()[3:] == ["0.100000000", "0.200000000"]
    assert files["obj_train_data/1-2.txt"].split()[3:] == ["0.200000000", "0.400000000"]


@pytest.mark.parametrize("write", [write_yolo, write_coco])
def test_numbers_of_another_shape_than_the_image_are_a_failure(write: Callable[..., Tally], data: Path) -> None:
    sample = Sample("1.png", drawn(box("cat", 10, 10, 30, 30), size=(50, 100, 3)))
    files, tally = export(write, [sample], data)
    assert [str(failure) for failure in tally.failures if "states 50x100 pixels, the image has 100x50" in str(failure)]
    assert tally.counts["shapes"] == 0 and "obj_train_data/1.txt" not in files
    assert not orjson.loads(files.get("annotations.json", '{"annotations": []}'))["annotations"]


def test_xml_states_the_size_in_whose_pixels_it_is(data: Path) -> None:
    files, tally = export(
        write_voc_folder, [Sample("1.png", drawn(box("cat", 10, 10, 30, 30), size=(50, 100, 3)))], data
    )
    assert not tally.failures and "<width>50</width>" in files["1.xml"]


def test_nothing_is_nothing_in_any_size(data: Path) -> None:
    files, tally = export(write_yolo, [Sample("1.png", drawn(size=(50, 100, 3)))], data)
    assert not tally.failures and files["obj_train_data/1.txt"] == ""


def test_drawings_of_other_sizes_are_brought_to_the_first(data: Path) -> None:
    labels = (*drawn(box("cat", 10, 5, 30, 45)), *drawn(box("dog", 100, 60, 200, 100), size=(200, 100, 3)))
    files, tally = export(write_yolo, [Sample("1.png", labels)], data)
    assert not tally.failures
    assert files["obj_train_data/1.txt"].split() == [
        *("0", "0.200000000", "0.500000000", "0.200000000", "0.800000000"),
        *("1", "0.750000000", "0.800000000", "0.500000000", "0.400000000"),
    ]


def test_a_segmentation_does_not_swallow_boxes(data: Path) -> None:
    outline = Shape("cell", "polygon", ((1, 1), (9, 1), (9, 9)))
    mask = Label(IMAGE_SEGMENTATION, drawing=Drawing((outline,), (100, 50, 3), mask_source="mask.png"))
    boxes = drawn(box("cat", 10, 5, 30, 45))
    for labels in ((mask, *boxes), (*boxes, mask)):
        out = data.parent / f"out-{len(list(data.parent.iterdir()))}"
        with OutFolder(out) as folder:
            tally = write_voc_folder([Sample("1.png", labels)], Sources(data), folder)
        told = "1 drawings were left out: a file holds the objects or the segmentation of an image, not both"
        assert tally.notes == (told,)
        (label,) = read_samples(out)[0].labels
        assert label.type == OBJECT_DETECTION and label.drawing is not None
        assert [shape.name for shape in label.drawing.shapes] == ["cat"]


def test_a_machine_that_found_nothing_does_not_swallow_a_segmentation(data: Path) -> None:
    outline = Shape("cell", "polygon", ((1, 1), (9, 1), (9, 9)))
    mask = Label(IMAGE_SEGMENTATION, drawing=Drawing((outline,), (100, 50, 3)))
    nothing = replace(drawn()[0], annotated_by="modelarts/auto")
    files, _ = export(write_coco, [Sample("1.png", (mask, nothing))], data)
    assert len(orjson.loads(files["annotations.json"])["annotations"]) == 1


def test_drawings_that_do_not_lie_together_are_a_failure(data: Path) -> None:
    labels = (*drawn(box("cat", 10, 5, 30, 45)), *drawn(box("dog", 10, 5, 30, 45), size=(50, 100, 3)))
    files, tally = export(write_yolo, [Sample("1.png", labels)], data)
    assert "its drawings state 100x50 and 50x100 pixels: left out" in str(tally.failures[0])
    assert "obj_train_data/1.txt" not in files


def test_nothing_that_a_machine_found_is_not_a_person_s_word(data: Path) -> None:
    """COCO has no place for who drew; where something was found, scores tell."""
    machine = [
        replace(label, annotated_by="modelarts/auto")
        for label in (*drawn(replace(box("cat", 10, 5, 30, 45), confidence=0.9)), *drawn())
    ]
    samples = [Sample("1.png", (machine[0],)), Sample("a/1.png", (machine[1],)), Sample("b/1.png", drawn())]
    export(write_coco, samples, data)
    states = {sample.source: sample.state for sample in read_samples(data.parent / "out")}
    assert states == {"images/1.png": "AUTO_ANNOTATION", "images/1-2.png": "AUTO_ANNOTATION", "images/1-3.png": "ALL"}


def test_without_any_size_boxes_are_a_failure_and_the_image_is_not_trained_on(data: Path) -> None:
    (data / "text.png").write_bytes(b"no image")
    files, tally = export(write_yolo, [Sample("text.png", drawn(box("cat", 0, 0, 9, 9), size=None))], data)
    assert [failure.kind for failure in tally.failures] == ["not_an_image"]
    assert (files["train.txt"], "obj_train_data/text.txt" in files) == ("", False)
