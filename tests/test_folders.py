"""Folders -> samples: what is found, which format it is taken for, what is said about the rest."""

from __future__ import annotations

import json
import os
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from engine.dataset import read_samples, write_dataset
from engine.errors import ImageError, InputError
from engine.folders.classified import read_images, read_tile, read_tree
from engine.folders.coco_folder import read_coco
from engine.folders.formats import detect
from engine.folders.listing import IMAGE_EXTENSIONS, list_folder
from engine.folders.sizes import image_size
from engine.folders.voc_folder import read_voc_folder
from engine.folders.yolo import read_yolo
from engine.samples import IMAGE_CLASSIFICATION, IMAGE_SEGMENTATION, OBJECT_DETECTION, SIZE_KEY, Sample

XML = """<annotation>{head}<filename>1.jpg</filename><size><width>100</width><height>50</height><depth>3</depth></size>
<segmented>0</segmented>{objects}</annotation>"""
CAT = "<object><name>cat</name><bndbox><xmin>10</xmin><ymin>5</ymin><xmax>40</xmax><ymax>45</ymax></bndbox></object>"
NO_BOX = "<object><name>dog</name></object>"


def put(root: Path, *names: str, content: bytes = b"x") -> Path:
    """Files of that content below `root`: nothing here decodes an image, unless a test draws one."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def text(root: Path, name: str, content: str) -> None:
    put(root, name, content=content.encode())


def picture(root: Path, name: str, size: tuple[int, int] = (100, 50), **options: object) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (200, 100, 50)).save(path, **options)


def labels_of(sample: Sample) -> list[str | None]:
    return [label.name for label in sample.labels]


def by_source(samples: tuple[Sample, ...]) -> dict[str, list[str | None]]:
    return {sample.source: labels_of(sample) for sample in samples}


# --- list_folder


def test_every_extension_in_any_case_is_an_image_and_hidden_things_are_not(tmp_path: Path) -> None:
    put(tmp_path, *(f"a/x{extension.upper()}" for extension in IMAGE_EXTENSIONS), "b.Jpg", "notes.txt", "LICENSE")
    put(tmp_path, ".hidden.jpg", ".cache/1.jpg", "a/.DS_Store", "__MACOSX/._1.jpg")
    listing = list_folder(tmp_path)
    assert set(listing.images) == {"b.Jpg", *(f"a/x{extension.upper()}" for extension in IMAGE_EXTENSIONS)}
    assert listing.others == ("LICENSE", "notes.txt")
    assert listing.seen == "9 images, 1 .txt, 1 without extension"


def test_the_order_is_that_of_the_paths_as_strings(tmp_path: Path) -> None:
    put(tmp_path, "b/1.jpg", "a/2.jpg", "a/10.jpg", "B.jpg", "a.jpg", "a/z/0.jpg")
    assert list_folder(tmp_path).images == ("B.jpg", "a.jpg", "a/10.jpg", "a/2.jpg", "a/z/0.jpg", "b/1.jpg")


def test_odd_names_are_names(tmp_path: Path) -> None:
    names = ('a b/it\'s "1".jpg', "new\nline.jpg", "straße/日本.jpg", "-rf.jpg", "$(ls).jpg", "%2F.jpg", "1.tar.jpg")
    put(tmp_path, *names)
    assert set(list_folder(tmp_path).images) == set(names)


def test_a_name_that_is_not_utf8_is_a_failure_and_the_rest_goes_on(tmp_path: Path) -> None:
    put(tmp_path, "good.jpg")
    bad = os.fsencode(tmp_path) + b"/caf\xe9.jpg"
    try:
        os.close(os.open(bad, os.O_CREAT | os.O_WRONLY))
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    os.mkdir(os.fsencode(tmp_path) + b"/d\xff")
    listing = list_folder(tmp_path)
    assert listing.images == ("good.jpg",)
    assert [(failure.source, failure.kind) for failure in listing.failures] == [
        ("caf\\xe9.jpg", "unreadable"),
        ("d\\xff", "unreadable"),
    ]


def test_links_to_folders_neither_loop_nor_double(tmp_path: Path) -> None:
    data, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    put(data, "z/1.jpg")
    put(elsewhere, "2.jpg")
    put(tmp_path, "beside/3.jpg")  # not ours, though `parent` leads there
    (data / "a").symlink_to(data / "z")  # sorts before what it leads to; the real path is kept
    (data / "z/up").symlink_to(data)
    (data / "z/self").symlink_to(data / "z")
    (data / "parent").symlink_to(tmp_path)
    (data / "more").symlink_to(elsewhere)
    (data / "more2").symlink_to(elsewhere)
    listing = list_folder(data)
    assert listing.images == ("more/2.jpg", "z/1.jpg")
    assert listing.failures == ()


def test_links_to_files_count_and_dead_ones_and_pipes_are_failures(tmp_path: Path) -> None:
    put(tmp_path, "1.jpg")
    (tmp_path / "2.jpg").symlink_to(tmp_path / "1.jpg")
    (tmp_path / "3.jpg").symlink_to(tmp_path / "nowhere")
    (tmp_path / "4.jpg").symlink_to(tmp_path / "4.jpg")
    (tmp_path / "5.txt").symlink_to(tmp_path / "nowhere")  # no image: not missed
    os.mkfifo(tmp_path / "6.jpg")
    put(tmp_path, "7.jpg/8.jpg")  # a folder may be called so
    listing = list_folder(tmp_path)
    assert listing.images == ("1.jpg", "2.jpg", "7.jpg/8.jpg")
    assert [(failure.source, failure.kind) for failure in listing.failures] == [
        ("3.jpg", "missing"),
        ("4.jpg", "missing"),
        ("6.jpg", "not_a_file"),
    ]


def test_an_unreadable_folder_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "a/1.jpg", "b/2.jpg")
    scandir = os.scandir

    def refusing(path: Path) -> object:
        if Path(path).name == "a":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    listing = list_folder(tmp_path)
    assert listing.images == ("b/2.jpg",)
    (failure,) = listing.failures
    assert (failure.source, failure.kind) == ("a", "unreadable")
    assert "Permission denied" in failure.reason


# --- detect


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["1.jpg", "2.jpg"], "images"),
        (["cat/1.jpg", "2.jpg"], "tree"),
        (["x/1.jpg", "x/1.xml", "2.jpg"], "voc"),
        (["JPEGImages/1.jpg", "Annotations/2.xml"], "voc"),
        (["VOC2012/JPEGImages/1.jpg", "VOC2012/Annotations/1.xml"], "voc"),
        (["obj.names", "obj_train_data/1.jpg", "obj_train_data/1.txt"], "yolo"),
        (["cat/1.jpg", "cat/readme.txt", "cat/meta.xml"], "tree"),
        (["JPEGImages/1.jpg", "other/1.jpg"], "tree"),
    ],
)
def test_the_files_tell_the_format(tmp_path: Path, names: list[str], expected: str) -> None:
    put(tmp_path, *names)
    assert detect(list_folder(tmp_path))[0] == expected


def test_plain_takes_folders_without_annotation_files_as_images_and_others_as_they_are(tmp_path: Path) -> None:
    put(tmp_path / "photos", "2021/trip/1.jpg")
    put(tmp_path / "tile", "x/1.jpg", "x/1.txt")
    put(tmp_path / "voc", "x/1.jpg", "x/1.xml")
    found = {name: detect(list_folder(tmp_path / name), plain=True)[0] for name in ("photos", "tile", "voc")}
    assert found == {"photos": "images", "tile": "tile", "voc": "voc"}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"0 0.5 0.5 0.2 0.2\n1 0.1 0.1 0.1 0.1\n", "YOLO boxes"),
        (b"a caption that tells a story " * 10, "289 characters"),
        (b"\xff\xfec\x00a\x00t\x00", "must be UTF-8, got byte 0xFF at 0"),
        (b"a\0b", "zero byte"),
        (b"log line\n" * 10_000, "at most 65,536 bytes"),
    ],
)
def test_texts_that_are_no_labels_make_plain_images_and_it_is_said(tmp_path: Path, content: bytes, reason: str) -> None:
    put(tmp_path, "cat/1.jpg", "cat/2.jpg", "cat/3.jpg")
    put(tmp_path, "cat/1.txt", "cat/2.txt", content=content)
    text(tmp_path, "cat/3.txt", "cat\n")
    found, notes = detect(list_folder(tmp_path))
    assert found == "images"
    assert "3 images have a .txt" in notes[0]
    assert reason in notes[0]


def test_a_minority_of_odd_texts_does_not_change_what_the_folder_is(tmp_path: Path) -> None:
    put(tmp_path, *(f"{n}.jpg" for n in range(5)))
    for n in range(4):
        text(tmp_path, f"{n}.txt", "cat\n")
    put(tmp_path, "4.txt", content=b"\xff")
    assert detect(list_folder(tmp_path)) == ("tile", ())


def test_of_txt_and_xml_the_more_frequent_wins_and_the_other_is_named(tmp_path: Path) -> None:
    put(tmp_path, "1.jpg", "2.jpg", "3.jpg", "1.xml")
    for n in (1, 2, 3):
        text(tmp_path, f"{n}.txt", "cat")
    found, notes = detect(list_folder(tmp_path))
    assert (found, notes) == ("tile", ("1 images have a .xml beside them too, which was not read (--format voc)",))
    put(tmp_path, "2.xml", "3.xml")
    found, notes = detect(list_folder(tmp_path))
    assert (found, notes) == ("voc", ("3 images have a .txt beside them too, which was not read (--format tile)",))


# --- images, tree


def test_plain_images_have_no_labels(tmp_path: Path) -> None:
    put(tmp_path, "a/b/1.jpg", "2.png")
    assert read_images(list_folder(tmp_path)).samples == (Sample("2.png"), Sample("a/b/1.jpg"))


def test_the_last_folder_is_the_label_of_a_tree(tmp_path: Path) -> None:
    put(tmp_path, "cat/1.jpg", "train/cat/2.jpg", "train/big dog/3.jpg", "4.jpg")
    found = read_tree(list_folder(tmp_path))
    assert by_source(found.samples) == {
        "4.jpg": [],
        "cat/1.jpg": ["cat"],
        "train/big dog/3.jpg": ["big dog"],
        "train/cat/2.jpg": ["cat"],
    }
    assert all(label.type == IMAGE_CLASSIFICATION for sample in found.samples for label in sample.labels)
    assert found.notes == (
        "1 images at the root are unlabeled",
        "3 folders share the names of 2 labels (the last level counts)",
    )


def test_a_tree_without_folders_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a tree has its images in folders"):
        read_tree(list_folder(put(tmp_path, "1.jpg")))


def test_a_broken_list_of_labels_is_a_failure_and_folders_stand(tmp_path: Path) -> None:
    put(tmp_path, "a%2Fb/1.jpg")
    text(tmp_path, "labelengine-labels.json", '{"a%2Fb": "a/b"}')
    assert by_source(read_tree(list_folder(tmp_path)).samples) == {"a%2Fb/1.jpg": ["a/b"]}
    for broken in ('{"a%2Fb": 1}', "[1]", "{"):
        text(tmp_path, "labelengine-labels.json", broken)
        found = read_tree(list_folder(tmp_path))
        assert by_source(found.samples) == {"a%2Fb/1.jpg": ["a%2Fb"]}
        assert [failure.kind for failure in found.failures] == ["annotation"]


# --- tile


def test_the_lines_beside_an_image_are_its_labels(tmp_path: Path) -> None:
    put(tmp_path, "x/1.jpg", "x/2.JPG", "x/3.png", "4.jpg", "5.jpg", "6.jpg")
    put(tmp_path, "x/1.txt", content=b"\xef\xbb\xbfcat\r\n\r\n  dog \r\ncat\r\n")
    text(tmp_path, "x/2.TXT", "Straße\n")
    text(tmp_path, "4.txt", "")
    text(tmp_path, "5.txt", " \n\t\n")
    put(tmp_path, "6.txt", content=b"caf\xe9\n")
    text(tmp_path, "readme.txt", "not a label")
    found = read_tile(list_folder(tmp_path))
    assert by_source(found.samples) == {
        "4.jpg": [],
        "5.jpg": [],
        "6.jpg": [],
        "x/1.jpg": ["cat", "dog"],
        "x/2.JPG": ["Straße"],
        "x/3.png": [],
    }
    (failure,) = found.failures
    assert (failure.source, failure.kind) == ("6.jpg", "annotation")
    assert failure.reason == "6.txt: must be UTF-8, got byte 0xE9 at 3"
    assert found.notes == ("1 .txt files belong to no image, such as readme.txt",)


def test_a_tile_folder_needs_a_text_beside_an_image(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a tile folder has"):
        read_tile(list_folder(put(tmp_path, "1.jpg", "readme.txt")))


# --- voc


def test_the_xml_beside_an_image_is_its_drawing(tmp_path: Path) -> None:
    put(tmp_path, "x/1.jpg", "x/2.jpg")
    text(tmp_path, "x/1.xml", XML.format(head="", objects=CAT))
    first, second = read_voc_folder(list_folder(tmp_path)).samples
    (label,) = first.labels
    assert (label.type, label.annotation_loc, label.annotation_format) == (OBJECT_DETECTION, "x/1.xml", "PASCAL VOC")
    assert [(shape.name, shape.kind) for shape in first.boxes] == [("cat", "bndbox")]
    assert first.property == {SIZE_KEY: [100, 50, 3]}
    assert second == Sample("x/2.jpg")


def test_an_xml_that_names_a_mask_is_a_segmentation(tmp_path: Path) -> None:
    put(tmp_path, "1.jpg")
    text(tmp_path, "1.xml", XML.format(head="<mask_source>mask.png</mask_source>", objects=CAT))
    (sample,) = read_voc_folder(list_folder(tmp_path)).samples
    assert [label.type for label in sample.labels] == [IMAGE_SEGMENTATION]


def test_a_broken_xml_and_a_broken_object_are_failures_and_the_rest_is_read(tmp_path: Path) -> None:
    put(tmp_path, "1.jpg", "2.jpg", "3.jpg")
    text(tmp_path, "1.xml", XML.format(head="", objects=CAT))
    text(tmp_path, "2.xml", "<annotation><object>")
    text(tmp_path, "3.xml", XML.format(head="", objects=CAT + NO_BOX))
    found = read_voc_folder(list_folder(tmp_path))
    assert [len(sample.boxes) for sample in found.samples] == [1, 0, 1]
    assert [(failure.source, failure.kind) for failure in found.failures] == [
        ("2.jpg", "annotation"),
        ("3.jpg", "annotation"),
    ]
    assert "2.xml" in found.failures[0].reason
    assert "dog" in found.failures[1].reason or "object" in found.failures[1].reason


def test_the_devkit_layout_with_its_masks_and_image_sets(tmp_path: Path) -> None:
    devkit = "VOC2012"
    put(tmp_path, *(f"{devkit}/JPEGImages/{n}.jpg" for n in (1, 2, 3, 4)), f"{devkit}/SegmentationClass/1.png")
    text(tmp_path, f"{devkit}/Annotations/1.xml", XML.format(head="", objects=CAT))
    text(tmp_path, f"{devkit}/Annotations/9.xml", XML.format(head="", objects=CAT))
    text(tmp_path, f"{devkit}/ImageSets/Main/train.txt", "1\n")
    text(tmp_path, f"{devkit}/ImageSets/Main/val.txt", "2\n")
    text(tmp_path, f"{devkit}/ImageSets/Main/test.txt", "3 \n")
    found = read_voc_folder(list_folder(tmp_path))
    assert [sample.source for sample in found.samples] == [f"{devkit}/JPEGImages/{n}.jpg" for n in (1, 2, 3, 4)]
    assert [sample.usage for sample in found.samples] == ["TRAIN", "EVAL", "TEST", ""]
    assert found.samples[0].labels[0].annotation_loc == f"{devkit}/Annotations/1.xml"
    assert found.notes == (
        "1 images outside JPEGImages/ were left out (masks?)",
        f"1 .xml files belong to no image, such as {devkit}/Annotations/9.xml",
    )


def test_names_with_blanks_in_image_sets(tmp_path: Path) -> None:
    put(tmp_path, *(f"JPEGImages/{name}.jpg" for name in ("my", "my photo", "cat 1", "dog")))
    text(tmp_path, "Annotations/my.xml", XML.format(head="", objects=CAT))
    text(tmp_path, "ImageSets/Main/test.txt", "my photo\ncat 1\ndog -1\n")
    found = read_voc_folder(list_folder(tmp_path))
    usages = {sample.source: sample.usage for sample in found.samples}
    assert usages.pop("JPEGImages/my.jpg") == "" and set(usages.values()) == {"TEST"}


def test_a_voc_folder_needs_an_xml_of_an_image(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a VOC folder has"):
        read_voc_folder(list_folder(put(tmp_path, "1.jpg", "pom.xml")))


# --- yolo


def yolo(root: Path) -> Path:
    text(root, "obj.names", "cat\nbig dog\n\n")
    text(root, "obj.data", "classes = 2\ntrain = data/train.txt\nvalid = data/valid.txt\nnames = data/obj.names\n")
    return root


def test_fractions_become_pixels(tmp_path: Path) -> None:
    yolo(tmp_path)
    picture(tmp_path, "obj_train_data/1.jpg", (200, 100))
    # x 60..100 of 200 wide: centre 80 = 0.4, width 40 = 0.2; y 10..60 of 100: centre 35 = 0.35, height 50 = 0.5
    text(tmp_path, "obj_train_data/1.txt", "1 0.4 0.35 0.2 0.5\n\n0 0.5 0.5 1 1\n")
    (sample,) = read_yolo(list_folder(tmp_path)).samples
    assert [(shape.name, shape.xyxy) for shape in sample.boxes] == [
        ("big dog", (60.0, 10.0, 100.0, 60.0)),
        ("cat", (0.0, 0.0, 200.0, 100.0)),
    ]
    assert sample.property == {SIZE_KEY: [200, 100, 3]}
    assert (sample.labels[0].type, sample.labels[0].annotation_loc) == (OBJECT_DETECTION, None)


def test_the_lists_tell_the_usage_by_the_end_of_a_path(tmp_path: Path) -> None:
    yolo(tmp_path)
    for n in range(5):
        put(tmp_path, f"obj_train_data/{n}.jpg")
    text(tmp_path, "train.txt", "data/obj_train_data/0.jpg\nobj_train_data\\1.jpg\n/home/me/obj_train_data/2.jpg\n")
    text(tmp_path, "valid.txt", "obj_train_data/2.jpg\nobj_train_data/3.jpg\nobj_train_data/gone.jpg\n")
    found = read_yolo(list_folder(tmp_path))
    assert [sample.usage for sample in found.samples] == ["TRAIN", "TRAIN", "TRAIN", "EVAL", ""]
    assert [(failure.source, failure.kind) for failure in found.failures] == [("obj_train_data/gone.jpg", "missing")]
    assert found.notes == ("1 images are in both train.txt and valid.txt: taken as TRAIN",)


def test_no_text_is_unlabeled_and_an_empty_one_says_that_nothing_is_there(tmp_path: Path) -> None:
    yolo(tmp_path)
    picture(tmp_path, "obj_train_data/1.jpg")
    picture(tmp_path, "obj_train_data/2.jpg")
    text(tmp_path, "obj_train_data/2.txt", "")
    first, second = read_yolo(list_folder(tmp_path)).samples
    assert (first.state, second.state) == ("NONE", "ALL")
    assert second.boxes == ()


@pytest.mark.parametrize(
    "line",
    [
        "2 0.5 0.5 0.1 0.1",  # two names only
        "-1 0.5 0.5 0.1 0.1",
        "1.0 0.5 0.5 0.1 0.1",
        "9" * 5000 + " 0.5 0.5 0.1 0.1",
        "0 0.5 0.5 0.1",
        "0 0.5 0.5 0.1 0.1 0.9",
        "0 nan 0.5 0.1 0.1",
        "0 50 50 10 10",  # pixels
        "0 0.5 0.5 0 0.1",
        "0 0.5 0.5 -0.1 0.1",
        "cat",
    ],
)
def test_a_wrong_line_is_a_failure_with_its_number_and_the_others_count(tmp_path: Path, line: str) -> None:
    yolo(tmp_path)
    picture(tmp_path, "obj_train_data/1.jpg")
    text(tmp_path, "obj_train_data/1.txt", f"0 0.5 0.5 0.1 0.1\n{line}\n1 0.5 0.5 0.1 0.1\n")
    found = read_yolo(list_folder(tmp_path))
    assert [shape.name for shape in found.samples[0].boxes] == ["cat", "big dog"]
    (failure,) = found.failures
    assert (failure.source, failure.kind) == ("obj_train_data/1.jpg", "annotation")
    assert failure.reason.startswith("obj_train_data/1.txt:2: ")
    assert len(failure.reason) < 300


@pytest.mark.parametrize("line", ["0 0.1 0.1 0.5 0.1 0.5 0.5", "7 0.5 0.5 0.1 0.1"])
def test_lines_none_of_which_can_be_read_do_not_say_that_nothing_is_there(tmp_path: Path, line: str) -> None:
    """It stays so through a manifest."""
    yolo(tmp_path / "data")
    picture(tmp_path / "data", "obj_train_data/1.jpg")
    text(tmp_path / "data", "obj_train_data/1.txt", f"{line}\n")
    found = read_samples(tmp_path / "data")
    write_dataset(found, tmp_path / "out", to="manifest")
    for (sample,) in (found, read_samples(tmp_path / "out")):
        (label,) = sample.labels
        assert label.drawing is not None and label.drawing.shapes == () and not label.drawing.is_empty
    assert [failure.source for failure in found.failures] == ["obj_train_data/1.jpg"]


def test_boxes_that_reach_out_are_clipped_and_counted(tmp_path: Path) -> None:
    yolo(tmp_path)
    picture(tmp_path, "obj_train_data/1.jpg", (100, 50))
    text(tmp_path, "obj_train_data/1.txt", "0 0.0 0.5 0.2 0.5\n0 0.05 0.5 0.1000001 0.5\n")
    found = read_yolo(list_folder(tmp_path))
    assert [shape.xyxy for shape in found.samples[0].boxes] == [(0.0, 12.5, 10.0, 37.5), (0.0, 12.5, 10.0, 37.5)]
    assert found.notes == ("1 boxes reached out of their image and were clipped",)  # the second only by rounding


def test_an_image_whose_size_is_not_known_keeps_its_place_without_boxes(tmp_path: Path) -> None:
    yolo(tmp_path)
    put(tmp_path, "obj_train_data/1.jpg", content=b"no image")
    put(tmp_path, "obj_train_data/2.jpg", content=b"")
    text(tmp_path, "obj_train_data/1.txt", "0 0.5 0.5 0.1 0.1\n")
    text(tmp_path, "obj_train_data/2.txt", "0 0.5 0.5 0.1 0.1\n")
    found = read_yolo(list_folder(tmp_path))
    assert found.samples == (Sample("obj_train_data/1.jpg"), Sample("obj_train_data/2.jpg"))
    assert [failure.kind for failure in found.failures] == ["not_an_image", "empty"]


def test_obj_names_must_be_there_and_readable_and_obj_data_should_agree(tmp_path: Path) -> None:
    put(tmp_path, "obj_train_data/1.jpg")
    with pytest.raises(InputError, match=r"obj\.names at its root"):
        read_yolo(list_folder(tmp_path))
    text(tmp_path, "obj.names", "cat\n")
    assert read_yolo(list_folder(tmp_path)).notes == ("there is no obj.data",)
    text(tmp_path, "obj.data", "classes = 7\n")
    assert read_yolo(list_folder(tmp_path)).notes == ("obj.data says 7 classes, obj.names has 1",)
    put(tmp_path, "obj.names", content=b"\xff")
    with pytest.raises(InputError, match=r"obj\.names: must be UTF-8, got byte 0xFF at 0"):
        read_yolo(list_folder(tmp_path))


# --- image_size


@pytest.mark.parametrize(("orientation", "expected"), [(1, (100, 50, 3)), (3, (100, 50, 3)), (6, (50, 100, 3))])
@pytest.mark.parametrize("extension", ["jpg", "png", "webp", "tif"])
def test_the_size_is_that_of_the_upright_image(
    tmp_path: Path, extension: str, orientation: int, expected: tuple[int, int, int]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture(tmp_path, f"1.{extension}", exif=exif)
    assert image_size(tmp_path / f"1.{extension}") == expected


def test_depth_counts_channels(tmp_path: Path) -> None:
    for mode, depth in (("L", 1), ("P", 3), ("RGBA", 4), ("1", 1), ("I;16", 1)):
        Image.new(mode, (4, 3)).save(tmp_path / "1.png")
        assert image_size(tmp_path / "1.png") == (4, 3, depth), mode


def test_only_the_header_is_read(tmp_path: Path) -> None:
    picture(tmp_path, "1.png", (3000, 2000))
    content = (tmp_path / "1.png").read_bytes()
    (tmp_path / "1.png").write_bytes(content[:60])  # IHDR and the start of the pixels
    assert image_size(tmp_path / "1.png") == (3000, 2000, 3)


def test_what_is_no_image_has_no_size(tmp_path: Path) -> None:
    put(tmp_path, "empty.jpg", content=b"")
    put(tmp_path, "text.jpg", content=b"hello")
    (tmp_path / "folder.jpg").mkdir()
    kinds = {}
    for name in ("empty.jpg", "text.jpg", "folder.jpg", "gone.jpg"):
        with pytest.raises(ImageError) as caught:
            image_size(tmp_path / name)
        kinds[name] = caught.value.kind
    assert kinds == {
        "empty.jpg": "empty",
        "text.jpg": "not_an_image",
        "folder.jpg": "not_a_file",
        "gone.jpg": "missing",
    }


def test_a_huge_image_has_a_size(tmp_path: Path) -> None:
    """Who decodes it says how large it may be, and not Pillow, which refuses from 179 million pixels on."""
    picture(tmp_path, "huge.png", (4, 4))
    content = bytearray((tmp_path / "huge.png").read_bytes())
    content[16:24] = struct.pack(">II", 60_000, 50_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    (tmp_path / "huge.png").write_bytes(content)
    assert image_size(tmp_path / "huge.png") == (60_000, 50_000, 3)
    assert Image.MAX_IMAGE_PIXELS is not None, "Pillow's own limit is back"


def test_a_text_elsewhere_is_that_of_the_only_image_of_its_name(tmp_path: Path) -> None:
    yolo(tmp_path)
    for name in ("obj_train_data/2.jpg", "todo/2.jpg", "train/3.jpg", "val/3.jpg", "more/4.jpg"):
        picture(tmp_path, name)
    for name in ("2", "3", "4"):
        text(tmp_path, f"obj_train_data/{name}.txt", "0 0.5 0.5 0.2 0.4\n")
    found = read_yolo(list_folder(tmp_path))
    labeled = {sample.source for sample in found.samples if sample.labels}
    assert {"obj_train_data/2.jpg", "more/4.jpg"} <= labeled
    assert not {"todo/2.jpg", "train/3.jpg", "val/3.jpg"} & labeled
    assert any("3.txt" in note for note in found.notes)


# --- coco


def coco(root: Path, name: str, images: list[object], annotations: list[object]) -> None:
    categories = [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}]
    text(root, name, json.dumps({"images": images, "annotations": annotations, "categories": categories}))


def test_coco_boxes(tmp_path: Path) -> None:
    put(tmp_path, "images/1.jpg", "images/2.jpg", "images/3.jpg")
    coco(
        tmp_path,
        "annotations.json",
        [{"id": 10, "file_name": "1.jpg", "width": 100, "height": 50}, {"id": 11, "file_name": "2.jpg"}],
        [
            {"image_id": 10, "category_id": 3, "bbox": [10, 5, 30, 40], "segmentation": [[10, 5, 40, 5, 40, 45]]},
            {"image_id": 10, "category_id": 7, "segmentation": [[1, 2, 3, 2, 3, 4.5]]},
            {"image_id": 10, "category_id": 7, "bbox": [0, 0, 9, 9], "iscrowd": 1, "segmentation": {"counts": "x"}},
        ],
    )
    assert detect(list_folder(tmp_path)) == ("coco", ())
    found = read_coco(list_folder(tmp_path))
    first, second, third = found.samples
    (label,) = first.labels
    assert label.type == OBJECT_DETECTION and label.by_human and first.property[SIZE_KEY] == [100, 50, 3]
    assert label.drawing is not None
    box, outline = label.drawing.shapes
    assert (box.name, box.xyxy, outline.kind, outline.points) == (
        "cat",
        (10, 5, 40, 45),
        "polygon",
        ((1, 2), (3, 2), (3, 4.5)),
    )
    assert second.labels[0].drawing is not None and second.labels[0].drawing.is_empty  # looked at, nothing is there
    assert third.labels == () and found.failures == ()
    assert found.notes == (
        "1 outlines beside boxes were passed over: boxes are read",
        "1 regions of many objects (iscrowd) were left out",
    )


@pytest.mark.parametrize("annotation", [{"bbox": [1, 1, 2, 2], "iscrowd": 1}, {"bbox": [1, 1, 0, 2]}])
def test_annotations_none_of_which_can_be_read_do_not_say_that_nothing_is_there(
    tmp_path: Path, annotation: dict[str, object]
) -> None:
    put(tmp_path, "1.jpg")
    listed = [{"id": 1, "file_name": "1.jpg", "width": 10**19, "height": 5}]  # no image is that large
    coco(tmp_path, "annotations.json", listed, [{"image_id": 1, "category_id": 3, **annotation}])
    found = read_coco(list_folder(tmp_path))
    drawing = found.samples[0].labels[0].drawing
    assert drawing is not None and drawing.shapes == () and not drawing.is_empty and drawing.size is None


@pytest.mark.parametrize(
    ("document", "image", "listed", "usage"),
    [
        ("annotations/instances_val2017.json", "val2017/1.jpg", "1.jpg", "EVAL"),
        ("annotations/instances_train.json", "images/train/a/1.jpg", "a/1.jpg", "TRAIN"),
        ("train/_annotations.coco.json", "train/1.jpg", "1.jpg", "TRAIN"),
        ("test.coco.json", "somewhere/else/1.jpg", "old\\path\\1.jpg", "TEST"),
        ("annotations-eval.json", "images/1.jpg", "1.jpg", "EVAL"),
        ("labels.json", "data/1.jpg", "1.jpg", ""),
    ],
)
def test_where_the_images_of_coco_lie(tmp_path: Path, document: str, image: str, listed: str, usage: str) -> None:
    put(tmp_path, image)
    coco(
        tmp_path,
        document,
        [{"id": "a", "file_name": listed}],
        [{"image_id": "a", "category_id": 3, "bbox": [1, 1, 2, 2]}],
    )
    (sample,) = read_coco(list_folder(tmp_path)).samples
    assert (sample.source, sample.usage, len(sample.boxes)) == (image, usage, 1)


def test_several_documents_and_images_that_are_not_there(tmp_path: Path) -> None:
    put(tmp_path, "train/1.jpg", "test/1.jpg", "test/2.jpg")
    for part in ("train", "test"):
        listed = [{"id": 1, "file_name": "1.jpg"}, {"id": 2, "file_name": "9.jpg"}]
        coco(
            tmp_path,
            f"{part}/_annotations.coco.json",
            listed,
            [{"image_id": 1, "category_id": 7, "bbox": [1, 1, 2, 2], "score": 0.5}],
        )
    found = read_coco(list_folder(tmp_path))
    assert [(sample.source, sample.usage, len(sample.labels)) for sample in found.samples] == [
        ("test/1.jpg", "TEST", 1),
        ("test/2.jpg", "", 0),
        ("train/1.jpg", "TRAIN", 1),
    ]
    assert not found.samples[0].labels[0].by_human  # every box came with a score
    assert found.notes == ("2 images are listed and not in the folder, such as 9.jpg",)


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        ({"image_id": 1, "category_id": 4, "bbox": [1, 1, 2, 2]}, "category_id must be that of a category, got 4"),
        ({"image_id": 1, "category_id": 3, "bbox": [1, 1, 0, 2]}, "bbox must be x, y, width > 0, height > 0"),
        ({"image_id": 1, "category_id": 3, "bbox": [1, None, 3, 2]}, "bbox must be x, y"),
        ({"image_id": 1, "category_id": 3, "bbox": [1, 1, 2, 2], "score": 2}, "confidence must be in [0, 1], got 2"),
        (
            {"image_id": 1, "category_id": 3, "bbox": [1, 1, 2, 2], "score": "high"},
            "score must be in [0, 1], got 'high'",
        ),
        ({"image_id": 2, "category_id": 3, "bbox": [1, 1, 2, 2]}, "image_id must be that of an image, got 2"),
        ({"image_id": [1], "category_id": 3, "bbox": [1, 1, 2, 2]}, "image_id must be that of an image"),
        ("no annotation", "image_id must be that of an image"),
    ],
)
def test_annotations_that_cannot_be_read_are_told_and_the_others_count(
    tmp_path: Path, annotation: object, message: str
) -> None:
    put(tmp_path, "1.jpg")
    good = {"image_id": 1, "category_id": 3, "bbox": [1, 1, 2, 2]}
    coco(tmp_path, "annotations.json", [{"id": 1, "file_name": "1.jpg"}], [good, annotation])
    found = read_coco(list_folder(tmp_path))
    (failure,) = found.failures
    assert message in failure.reason and "annotations[1]" in failure.reason
    assert len(found.samples[0].boxes) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"images": [], "annotations": [], "categories": [', "annotations.json: must be JSON"),
        ('{"images": {}, "annotations": [], "categories": []}', "must be a COCO document with the lists"),
        ('{"images": [{"id": 1}], "annotations": [], "categories": []}', r"images\[0\]: must have an id of its own"),
        (
            '{"images": [], "annotations": [], "categories": [{"id": 1}]}',
            r"categories\[0\]: must have an id of its own",
        ),
    ],
)
def test_documents_that_are_none(tmp_path: Path, content: str, message: str) -> None:
    put(tmp_path, "1.jpg")
    text(tmp_path, "annotations.json", content)
    with pytest.raises(InputError, match=message):
        read_coco(list_folder(tmp_path))


def test_what_a_document_says_exactly_goes_before_what_another_may_mean(tmp_path: Path) -> None:
    """The first document lists an image that is not there; only the second has one of that name, and it is its own."""
    put(tmp_path, "train/1.jpg", "test/2.jpg")
    for part, x in (("test", 5), ("train", 7)):
        boxes = [{"image_id": 1, "category_id": 3, "bbox": [x, 1, 2, 2]}]
        coco(tmp_path, f"{part}/_annotations.coco.json", [{"id": 1, "file_name": "1.jpg"}], boxes)
    found = read_coco(list_folder(tmp_path))
    (mine,) = (sample for sample in found.samples if sample.source == "train/1.jpg")
    assert mine.usage == "TRAIN" and mine.boxes[0].xyxy[0] == 7
    assert found.notes == ("1 images are listed and not in the folder, such as 1.jpg",)


def test_a_document_with_a_byte_order_mark(tmp_path: Path) -> None:
    put(tmp_path, "cat/1.jpg")
    coco(tmp_path, "annotations.json", [{"id": 1, "file_name": "cat/1.jpg"}], [])
    path = tmp_path / "annotations.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert detect(list_folder(tmp_path))[0] == "coco"
    assert read_coco(list_folder(tmp_path)).samples[0].labels[0].type == OBJECT_DETECTION


def test_json_that_is_something_else_is_no_coco(tmp_path: Path) -> None:
    put(tmp_path, "cat/1.jpg")
    text(tmp_path, "annotations.json", '{"a": 1}')
    assert detect(list_folder(tmp_path))[0] == "tree"
    with pytest.raises(InputError, match="a COCO folder has a document"):
        read_coco(list_folder(tmp_path))
