"""Folders -> samples, in the formats that import as a data set: tree, tile, VOC, YOLO, COCO, and plain images.

- images: any layout, recursive; nothing is a label.
- tree: `.../label/1.jpg`; the last folder level is the label, images at the root are unlabeled.
- tile: `x/1.jpg`, `x/1.txt`; one label a line, UTF-8, blank lines skipped, repeated ones once; no or an empty txt:
  unlabeled.
- voc: `x/1.jpg`, `x/1.xml`, or the devkit, `JPEGImages/` beside `Annotations/`; no xml: unlabeled.
- yolo: `obj.names`, `obj.data`, `train.txt`, `valid.txt`, `obj_train_data/`; no txt: unlabeled; an empty one: labeled,
  nothing is there.
- coco: one or more documents (`annotations.json`, `annotations/instances_train.json`, `train/_annotations.coco.json`)
  that list the images; not listed: unlabeled; listed without an annotation: labeled, nothing is there.

`list_folder` looks once at what lies there, `detect` says which format it is, `READERS` read it. Sources are paths
relative to the folder, with `/`, sorted as strings; hidden files and folders are skipped; extensions count in any
letter case. A folder that several links lead to is read once, by its real path where there is one; a link to a folder
above is not followed. What cannot be read is a `Failure`; what was passed over is said in notes.

Boxes are xyxy pixels of the upright image (EXIF orientation applied), but those of VOC and COCO files, which are as
they are written. Pixels are never decoded: only YOLO needs the
size of an image, and reads it from the header.
"""

from __future__ import annotations

import math
import os
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import orjson

from engine.coco import CocoImage, looks_like_coco, parse_coco
from engine.errors import Failure, ImageError, InputError, VocError
from engine.samples import (
    IMAGE_CLASSIFICATION,
    IMAGE_SEGMENTATION,
    OBJECT_DETECTION,
    SIZE_KEY,
    Drawing,
    Label,
    Sample,
    Shape,
)
from engine.voc import read_voc

IMAGE_EXTENSIONS: Final = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif")
VOC_FORMAT: Final = "PASCAL VOC"

#: Names of folders of a tree that are not the labels themselves: {folder: label}, written beside them.
LABELS_FILE: Final = "labelengine-labels.json"

#: A text of labels is small; longer files are logs or tables, and longer lines, where a format is guessed, captions.
_TEXT_BYTES: Final = 1 << 16
_LABEL_CHARS: Final = 128
_LIST_BYTES: Final = 1 << 30
#: Text files looked at to detect a tile folder, evenly spread.
_PROBES: Final = 500

_YOLO_FILES: Final = ("obj.names", "obj.data", "train.txt", "valid.txt")
YOLO_FOLDER: Final = "obj_train_data"
#: Names of COCO documents, how many there may be, and who draws what comes with a score.
_COCO_NAME: Final = re.compile(r"(instances|annotation|coco|labels)[^/]*$|(^|/)annotations/[^/]*$", re.IGNORECASE)
_COCO_WORDS: Final = re.compile(r"instances|coco|annotations", re.IGNORECASE)
_MOST_DOCUMENTS: Final = 64
COCO_MACHINE: Final = "coco"
#: Boxes come out of YOLO's rounded fractions on a grid of 1/1000 pixel, so that whole pixels are whole again.
_GRID: Final = 3

_ORIENTATION_TAG: Final = 0x0112
_SIDEWAYS: Final = frozenset((5, 6, 7, 8))


@dataclass(frozen=True, slots=True)
class Listing:
    """What lies below a folder: relative paths, sorted. `folders` includes "" for the root itself."""

    root: Path
    images: tuple[str, ...]
    others: tuple[str, ...]
    folders: frozenset[str]
    failures: tuple[Failure, ...] = ()

    @property
    def seen(self) -> str:
        """In words, what is there: `12 images, 3 .txt, 1 without extension`."""
        endings = Counter(ending_of(name) or "without extension" for name in self.others)
        most = [f"{count:,} {ending}" for ending, count in sorted(endings.items(), key=lambda e: (-e[1], e[0]))]
        rest = [f"{len(most) - 5:,} other kinds"] if len(most) > 5 else []
        return ", ".join([f"{len(self.images):,} images", *most[:5], *rest])


@dataclass(frozen=True, slots=True)
class Found:
    """What a folder holds, read in one format."""

    samples: tuple[Sample, ...]
    failures: tuple[Failure, ...] = ()
    notes: tuple[str, ...] = ()


# --- looking


def list_folder(root: Path) -> Listing:
    """Everything that is not hidden below `root`. Unreadable folders, dead links and names that are not UTF-8
    (no manifest can hold them) are failures."""
    images: list[str] = []
    others: list[str] = []
    folders: list[str] = []
    failures: list[Failure] = []
    above = {(status.st_dev, status.st_ino) for status in map(os.stat, Path(os.path.realpath(root)).parents)}
    seen: set[tuple[int, int]] = set()
    pending, links = [""], list[str]()
    while pending or links:
        if not pending:  # everything real has been seen: now what only a link leads to
            links.sort(reverse=True)
            pending.append(links.pop())
        folder = pending.pop()
        try:
            status = os.stat(root / folder)
            identity = (status.st_dev, status.st_ino)
            if identity in seen or identity in above:
                continue
            seen.add(identity)
            with os.scandir(root / folder) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            failures.append(Failure(folder or ".", "unreadable", f"folder cannot be read: {error.strerror or error}"))
            continue
        folders.append(folder)
        for entry in found:
            if entry.name.startswith("."):
                continue
            name = f"{folder}/{entry.name}" if folder else entry.name
            if not _is_unicode(entry.name):
                shown = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
                failures.append(Failure(shown, "unreadable", "its name is not UTF-8, which no manifest can hold"))
            elif _is(entry, os.DirEntry.is_dir):
                (links if entry.is_symlink() else pending).append(name)
            elif _is(entry, os.DirEntry.is_file):
                (images if ending_of(name) in IMAGE_EXTENSIONS else others).append(name)
            elif ending_of(name) in IMAGE_EXTENSIONS:
                dead = entry.is_symlink()
                reason = "a link that leads nowhere" if dead else "expected an image file, got a special file"
                failures.append(Failure(name, "missing" if dead else "not_a_file", reason))
    return Listing(root, tuple(sorted(images)), tuple(sorted(others)), frozenset(folders), tuple(failures))


def detect(listing: Listing, *, plain: bool = False) -> tuple[str, tuple[str, ...]]:
    """Which format a folder has, and what speaks for others, in words.

    In this order: `obj.names` at the root: yolo. A COCO document: coco. `JPEGImages/` beside `Annotations/`: voc. An
    image with an xml of its name: voc; with a txt of its name that reads as labels: tile; both: what more images have.
    Images with a txt that does not read as labels: images, for whoever wrote those did not mean the folders. Else
    images in folders: tree, unless `plain`. Else images.

    A txt reads as labels when it is UTF-8, at most 64 KB, its lines at most 128 characters (no captions), and not all
    of them YOLO boxes (five numbers); most of up to 500 txt files looked at must.
    """
    if "obj.names" in listing.others:
        return "yolo", ()
    if _coco_documents(listing):
        return "coco", ()
    if _devkits(listing):
        return "voc", ()
    xmls, texts = _by_stem(listing, ".xml"), _by_stem(listing, ".txt")
    with_xml = sum(stem_of(image) in xmls for image in listing.images)
    with_text = [texts[stem_of(image)] for image in listing.images if stem_of(image) in texts]
    doubt = _doubt_of_texts(listing.root, with_text)
    if with_xml and (doubt or with_xml >= len(with_text)):
        return "voc", _passed_over(len(with_text), ".txt", "tile")
    if with_text and not doubt:
        return "tile", _passed_over(with_xml, ".xml", "voc")
    if with_text:
        return "images", (f"{len(with_text):,} images have a .txt beside them that is not a list of labels ({doubt})",)
    if plain or all("/" not in image for image in listing.images):
        return "images", ()
    return "tree", ()


def _passed_over(count: int, ending: str, format_: str) -> tuple[str, ...]:
    return (f"{count:,} images have a {ending} beside them too, which was not read (--format {format_})",) * bool(count)


def _doubt_of_texts(root: Path, texts: Sequence[str]) -> str:
    """Why these files are not lists of labels, by the first that is not; "" when most of them are."""
    probes = texts[:: max(1, math.ceil(len(texts) / _PROBES))]
    doubts = [doubt for text in probes if (doubt := _doubt_of_text(root, text))]
    return doubts[0] if 2 * len(doubts) > len(probes) else ""


def _doubt_of_text(root: Path, text: str) -> str:
    try:
        labels = _text_labels(root / text)
    except InputError as error:
        return f"{text}: {error}"
    if long := next((label for label in labels if len(label) > _LABEL_CHARS), ""):
        return f"{text}: has a line of {len(long):,} characters"
    if labels and all(len(fields := label.split()) == 5 and all(map(_is_number, fields)) for label in labels):
        return f"{text}: holds YOLO boxes, but there is no obj.names beside its folder"
    return ""


# --- reading


def read_images(listing: Listing) -> Found:
    """Every image, unlabeled."""
    return Found(tuple(map(Sample, listing.images)))


def read_tree(listing: Listing) -> Found:
    """The name of the folder that an image lies in is its label. Raises InputError when no image lies in a folder."""
    if not any("/" in image for image in listing.images):
        raise InputError("a tree has its images in folders, one a label")
    labels, failures = _folder_labels(listing)
    samples, loose, folders = [], 0, set()
    for image in listing.images:
        folder, slash, _ = image.rpartition("/")
        name = folder.rpartition("/")[2]
        loose += not slash
        folders.add(folder)
        samples.append(Sample(image, (Label(IMAGE_CLASSIFICATION, name=labels.get(folder, name)),) if slash else ()))
    folders.discard("")
    merged = len(folders) - len({label.name for sample in samples for label in sample.labels})
    notes = [f"{loose:,} images at the root are unlabeled"] if loose else []
    if merged > 0:
        names = len(folders) - merged
        notes.append(f"{len(folders):,} folders share the names of {names:,} labels (the last level counts)")
    return Found(tuple(samples), failures, tuple(notes))


def _folder_labels(listing: Listing) -> tuple[Mapping[str, str], tuple[Failure, ...]]:
    if LABELS_FILE not in listing.others:
        return {}, ()
    try:
        labels = orjson.loads(_read_text(listing.root / LABELS_FILE, _LIST_BYTES))
        if not isinstance(labels, dict) or not all(isinstance(label, str) and label for label in labels.values()):
            raise InputError("must be an object {folder: label}")
    except (orjson.JSONDecodeError, InputError) as error:
        return {}, (Failure(LABELS_FILE, "annotation", f"{error}; folder names are taken as labels"),)
    return labels, ()


def read_tile(listing: Listing) -> Found:
    """The lines of the txt beside an image are its labels. Raises InputError when no image has a txt."""
    texts = _by_stem(listing, ".txt")
    samples, failures, used = [], [], set()
    for image in listing.images:
        text = texts.get(stem_of(image))
        names: tuple[str, ...] = ()
        if text is not None:
            used.add(text)
            try:
                names = _text_labels(listing.root / text)
            except InputError as error:
                failures.append(Failure(image, "annotation", f"{text}: {error}"))
        samples.append(Sample(image, tuple(Label(IMAGE_CLASSIFICATION, name=name) for name in names)))
    if not used:
        raise InputError("a tile folder has a .txt of labels beside an image")
    return Found(tuple(samples), tuple(failures), _unused(texts, used, ".txt"))


def _text_labels(path: Path) -> tuple[str, ...]:
    """The distinct lines that are not blank. Raises InputError when the file is not a small UTF-8 text."""
    return tuple(dict.fromkeys(line for raw in _read_text(path, _TEXT_BYTES).split("\n") if (line := raw.strip())))


def read_voc_folder(listing: Listing) -> Found:
    """The xml of an image is its drawing. Raises InputError when there is neither an xml of an image nor a devkit."""
    xmls, devkits = _by_stem(listing, ".xml"), _devkits(listing)
    samples, failures, used, outside = [], [], set(), 0
    for image in listing.images:
        if not _is_voc_image(image, devkits):
            outside += 1
            continue
        xml = xmls.get(stem_of(image)) or xmls.get(_annotations_stem(image))
        if xml is None:
            samples.append(Sample(image))
            continue
        used.add(xml)
        sample, faults = _read_xml(Sample(image), listing.root / xml, xml)
        samples.append(sample)
        failures += faults
    if not used and not devkits:
        raise InputError("a VOC folder has an .xml beside an image, or Annotations/ beside JPEGImages/")
    usages, usage_notes = _image_sets(listing, devkits)
    samples = [replace(s, usage=usages[stem_of(s.source)]) if stem_of(s.source) in usages else s for s in samples]
    notes = [f"{outside:,} images outside JPEGImages/ were left out (masks?)"] if outside else []
    return Found(tuple(samples), tuple(failures), (*notes, *usage_notes, *_unused(xmls, used, ".xml")))


def _read_xml(sample: Sample, path: Path, loc: str) -> tuple[Sample, list[Failure]]:
    drawing, failures = read_drawing(path, sample.source)
    if drawing is None:
        return sample, failures
    kind = IMAGE_SEGMENTATION if drawing.mask_source is not None else OBJECT_DETECTION
    label = Label(kind, annotation_loc=loc, annotation_format=VOC_FORMAT, drawing=drawing)
    return with_size(replace(sample, labels=(label,))), failures


def read_drawing(path: Path, source: str) -> tuple[Drawing | None, list[Failure]]:
    """The drawing of the sample `source`, and what is wrong with it; None when nothing of it can be read."""
    try:
        drawing, faults = read_voc(path)
    except (VocError, ValueError) as error:  # ValueError: a zero byte in the path
        return None, [Failure(source, "annotation", str(error))]
    return drawing, [replace(fault, source=source, kind="annotation") for fault in faults]


def known_size(drawing: Drawing) -> tuple[int, int, int] | None:
    """The size that a drawing tells, unless it is one of the zeros that some tools write."""
    return drawing.size if drawing.size is not None and drawing.size[0] > 0 and drawing.size[1] > 0 else None


def drawings_of(labels: Iterable[Label]) -> Iterator[Drawing]:
    """The drawings that have been read."""
    return (label.drawing for label in labels if label.drawing is not None)


def with_size(sample: Sample) -> Sample:
    """The same sample with the size that its drawings tell as property SIZE_KEY: [width, height, depth]."""
    if SIZE_KEY in sample.property:
        return sample
    size = next((size for drawing in drawings_of(sample.labels) if (size := known_size(drawing))), None)
    return sample if size is None else replace(sample, property={**sample.property, SIZE_KEY: list(size)})


def _devkits(listing: Listing) -> tuple[str, ...]:
    """The folders, as prefixes ("" or "a/b/"), that hold JPEGImages/ beside Annotations/."""
    parents = (folder.removesuffix("JPEGImages") for folder in listing.folders if _last(folder) == "JPEGImages")
    return tuple(sorted(parent for parent in parents if f"{parent}Annotations" in listing.folders))


def _is_voc_image(image: str, devkits: Sequence[str]) -> bool:
    inside = [devkit for devkit in devkits if image.startswith(devkit)]
    return not inside or any(image.startswith(f"{devkit}JPEGImages/") for devkit in inside)


def _annotations_stem(image: str) -> str:
    before, folder, after = f"/{stem_of(image)}".rpartition("/JPEGImages/")
    return f"{before}/Annotations/{after}".removeprefix("/") if folder else ""


def _image_sets(listing: Listing, devkits: Sequence[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """The usage of the devkit's images, by stem: ImageSets/Main/{train,val,test}.txt list names without extension."""
    usages: dict[str, str] = {}
    notes = []
    for devkit in devkits:
        for part, usage in (("test", "TEST"), ("val", "EVAL"), ("train", "TRAIN")):
            name = f"{devkit}ImageSets/Main/{part}.txt"
            if name in listing.others:
                try:
                    lines = _lines(listing.root / name)
                except InputError as error:
                    notes.append(f"{name}: {error}; the usages in it are not known")
                    continue
                usages.update({f"{devkit}JPEGImages/{line.split()[0]}": usage for line in lines if line})
    return usages, tuple(notes)


def read_yolo(listing: Listing) -> Found:
    """The lines `index x y w h` of the txt beside an image (or in obj_train_data/) are its boxes, as fractions of the
    image's width and height; a line that is not is a failure, and the others count. The usage is TRAIN or EVAL
    where train.txt or valid.txt lists the image.
    Raises InputError when obj.names is missing or unreadable."""
    if "obj.names" not in listing.others:
        raise InputError("a YOLO folder has obj.names at its root")
    names = _class_names(listing.root / "obj.names")
    texts = {stem: text for stem, text in _by_stem(listing, ".txt").items() if text not in _YOLO_FILES}
    usages, failures, notes = _yolo_usages(listing, names)
    samples, used, clipped = [], set(), 0
    for image in listing.images:
        sample = Sample(image, usage=usages.get(image, ""))
        text = texts.get(stem_of(image)) or texts.get(f"{YOLO_FOLDER}/{_last(stem_of(image))}")
        if text is not None:
            used.add(text)
            sample, faults, beyond = _read_boxes(sample, listing.root, text, names)
            failures += faults
            clipped += beyond
        samples.append(sample)
    if clipped:
        notes.append(f"{clipped:,} boxes reached out of their image and were clipped")
    return Found(tuple(samples), tuple(failures), (*notes, *_unused(texts, used, ".txt")))


def _read_boxes(sample: Sample, root: Path, text: str, names: Sequence[str]) -> tuple[Sample, list[Failure], int]:
    """The sample with the boxes of `text`, what was wrong with lines, how many boxes were clipped."""
    try:
        lines = _lines(root / text)
        width, height, depth = image_size(root / sample.source)
    except ImageError as error:
        return sample, [Failure(sample.source, error.kind, f"its boxes cannot be placed: {error}")], 0
    except InputError as error:
        return sample, [Failure(sample.source, "annotation", f"{text}: {error}")], 0
    shapes, failures, clipped = [], [], 0
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            name, (x1, y1, x2, y2) = _parse_box(line, names)
            inside = _pixels(x1, width), _pixels(y1, height), _pixels(x2, width), _pixels(y2, height)
            if inside[0] >= inside[2] or inside[1] >= inside[3]:
                raise InputError(f"the box must cover some of the image, got {line!r}")
        except InputError as error:
            failures.append(Failure(sample.source, "annotation", f"{text}:{number}: {error}"))
            continue
        clipped += min(x1 * width, y1 * height) < -0.5 or x2 * width > width + 0.5 or y2 * height > height + 0.5
        shapes.append(Shape(name, "bndbox", (inside[:2], inside[2:])))
    drawing = Drawing(tuple(shapes), (width, height, depth), filename=_last(sample.source))
    return with_size(replace(sample, labels=(Label(OBJECT_DETECTION, drawing=drawing),))), failures, clipped


def _pixels(fraction: float, side: int) -> float:
    return round(min(max(fraction, 0.0), 1.0) * side, _GRID)


def _parse_box(line: str, names: Sequence[str]) -> tuple[str, tuple[float, float, float, float]]:
    """`1 0.5 0.5 0.2 0.4` -> the second name, (xmin, ymin, xmax, ymax) as fractions."""
    fields = line.split()
    if len(fields) != 5 or not re.fullmatch(r"[0-9]{1,9}", fields[0]) or not all(map(_is_number, fields[1:])):
        raise InputError(f"must be `label_index x_center y_center width height`, got {line[:80]!r}")
    index, (x, y, w, h) = int(fields[0]), map(float, fields[1:])
    if index >= len(names) or not names[index]:
        raise InputError(f"label_index must be one of the {len(names)} lines of obj.names, got {index}")
    if not (0 <= x <= 1 and 0 <= y <= 1 and 0 < w <= 2 and 0 < h <= 2):
        raise InputError(f"numbers must be fractions of the image's width and height, got {line!r}")
    return names[index], (x - w / 2, y - h / 2, x + w / 2, y + h / 2)


def _class_names(path: Path) -> list[str]:
    try:
        names = _lines(path)
    except InputError as error:
        raise InputError(f"{path.name}: {error}") from error
    while names and not names[-1]:
        names.pop()
    return names


def _yolo_usages(listing: Listing, names: Sequence[str]) -> tuple[dict[str, str], list[Failure], list[str]]:
    """What obj.data, train.txt and valid.txt say: the usage by image, what they name in vain, what is odd."""
    usages: dict[str, str] = {}
    failures: list[Failure] = []
    notes: list[str] = []
    images = frozenset(listing.images)
    data = _yolo_data(listing, len(names), notes)
    twice = 0
    for key, usage in (("train", "TRAIN"), ("valid", "EVAL")):
        name = _last(data.get(key, "").replace("\\", "/"))
        name = name if name in listing.others else f"{key}.txt"
        if name not in listing.others:
            continue
        try:
            lines = _lines(listing.root / name)
        except InputError as error:
            failures.append(Failure(name, "annotation", f"{error}; the usages in it are not known"))
            continue
        for line in filter(None, lines):
            image = _listed_image(line, images)
            if image is None:
                failures.append(Failure(line, "missing", f"{name} lists it, but no image of the folder ends like that"))
            else:
                twice += usages.setdefault(image, usage) != usage
    if twice:
        notes.append(f"{twice:,} images are in both train.txt and valid.txt: taken as TRAIN")
    return usages, failures, notes


def _yolo_data(listing: Listing, classes: int, notes: list[str]) -> dict[str, str]:
    if "obj.data" not in listing.others:
        notes.append("there is no obj.data")
        return {}
    try:
        lines = _lines(listing.root / "obj.data")
    except InputError as error:
        notes.append(f"obj.data: {error}")
        return {}
    data = {key.strip(): value.strip() for key, _, value in (line.partition("=") for line in lines)}
    if data.get("classes", str(classes)) != str(classes):
        notes.append(f"obj.data says {data['classes']} classes, obj.names has {classes}")
    return data


def _listed_image(line: str, images: frozenset[str]) -> str | None:
    """The image that a line like `data/obj_train_data/1.jpg` means: the longest end of the path that is one."""
    parts = (line if line in images else line.replace("\\", "/")).split("/")
    ends = ("/".join(parts[start:]) for start in range(len(parts)))
    return next((end for end in ends if end in images), None)


def read_coco(listing: Listing) -> Found:
    """The documents say what is drawn on the images that they list. A name is that of the file, from where the document
    lies, or from a folder beside or above it; else of the only image of that name. The usage is that which the name of
    the document says. Raises InputError where there is no document, or one is broken."""
    documents = _coco_documents(listing)
    if not documents:
        raise InputError("a COCO folder has a document with images, annotations and categories, as annotations.json")
    drawn: dict[str, Sample] = {}
    failures: list[Failure] = []
    lost: list[str] = []
    outlines = crowds = twice = 0
    find = _Finder(listing.images)
    unplaced: list[tuple[str, CocoImage]] = []

    def place_at(source: str, image: CocoImage, document: str) -> None:
        by = COCO_MACHINE if image.scored else None
        label = Label(OBJECT_DETECTION, annotated_by=by, drawing=image.drawing)
        drawn[source] = with_size(Sample(source, (label,), usage=_usage_of(document)))

    for place in documents:
        found = parse_coco(_read_bytes(listing.root / place, _LIST_BYTES), place)
        failures += found.failures
        outlines, crowds = outlines + found.outlines, crowds + found.crowds
        for image in found.images:
            source = find.exactly(image.file_name, place)
            if source is None:
                unplaced.append((place, image))
            elif source in drawn:
                twice += 1
            else:
                place_at(source, image, place)
    for place, image in unplaced:  # where a document says exactly what it means, no other one's guess counts
        source = find.by_name(image.file_name)
        if source is None or source in drawn:
            lost.append(image.file_name)
        else:
            place_at(source, image, place)
    notes = [
        (outlines, "outlines beside boxes were passed over: boxes are read"),
        (crowds, "regions of many objects (iscrowd) were left out"),
        (twice, "images are listed more than once: the first counts"),
        (len(lost), f"images are listed and not in the folder, such as {lost[0] if lost else ''}"),
    ]
    samples = tuple(drawn.get(image) or Sample(image) for image in listing.images)
    return Found(samples, tuple(failures), tuple(f"{count:,} {words}" for count, words in notes if count))


def _coco_documents(listing: Listing) -> list[str]:
    """Files that are named like COCO documents, and look like them."""
    named = [name for name in listing.others if ending_of(name) == ".json" and _COCO_NAME.search(name)]
    named.sort(key=lambda name: _COCO_WORDS.search(_last(name)) is None)  # the likeliest first
    found = []
    for name in named[:_MOST_DOCUMENTS]:
        with suppress(InputError):
            if looks_like_coco(_read_bytes(listing.root / name, _LIST_BYTES)):
                found.append(name)
    return sorted(found)


class _Finder:
    """Where the image of a name lies."""

    def __init__(self, images: Sequence[str]) -> None:
        self._images = frozenset(images)
        self._by_name: dict[str, list[str]] = {}
        for image in images:
            self._by_name.setdefault(_last(image), []).append(image)

    def exactly(self, name: str, document: str) -> str | None:
        """The image at the place that a document says."""
        folder = document.rpartition("/")[0]
        part = next(iter(re.findall(r"instances_(\w+)\.json$", document)), "")
        while True:
            for below in ("", "images/", *((f"{part}/", f"images/{part}/") if part else ())):
                if (path := f"{folder}/{below}{name}".removeprefix("/")) in self._images:
                    return path
            if not folder:
                break
            folder = folder.rpartition("/")[0]
        return None

    def by_name(self, name: str) -> str | None:
        """The only image of that name, wherever it lies."""
        alike = self._by_name.get(_last(name), [])
        return alike[0] if len(alike) == 1 else None


def _usage_of(document: str) -> str:
    words = re.split(r"[^a-z]+", document.lower())
    known = {"train": "TRAIN", "val": "EVAL", "valid": "EVAL", "validation": "EVAL", "eval": "EVAL", "test": "TEST"}
    return next((known[word] for word in reversed(words) if word in known), "")


def image_size(path: Path) -> tuple[int, int, int]:
    """(width, height, depth) of an image as it is looked at (EXIF orientation applied), from its header.

    depth: channels; a palette counts as its colors, 3. Raises ImageError.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # huge images: nothing is decoded here
            with Image.open(path) as image:
                tags = getattr(image, "tag_v2", {})  # of a TIFF; newer Pillows turn its `size` upright themselves
                width, height = (tags[256], tags[257]) if 256 in tags and 257 in tags else image.size
                depth = 3 if image.mode == "P" else len(image.getbands())
                orientation = Image.Image.getexif(image).get(_ORIENTATION_TAG, 1)  # the one for PNG would decode
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ImageError("missing", "no such file") from error
    except UnidentifiedImageError as error:
        if path.stat().st_size == 0:
            raise ImageError("empty", "expected an image, got 0 bytes") from error
        raise ImageError("not_an_image", "expected an image, got bytes of no known format") from error
    except Image.DecompressionBombError as error:
        raise ImageError("too_large", str(error)) from error
    except IsADirectoryError as error:
        raise ImageError("not_a_file", "expected an image file, got a directory") from error
    except Exception as error:  # Pillow's plugins raise all kinds of errors on damaged headers
        raise ImageError("broken", f"cannot be read: {error}") from error
    return (height, width, depth) if orientation in _SIDEWAYS else (width, height, depth)


#: Every folder format, by name.
READERS: Final[dict[str, Callable[[Listing], Found]]] = {
    "images": read_images,
    "tree": read_tree,
    "tile": read_tile,
    "voc": read_voc_folder,
    "yolo": read_yolo,
    "coco": read_coco,
}


# --- names and texts


def ending_of(name: str) -> str:
    """`.jpg` for `a/1.JPG`."""
    return os.path.splitext(name)[1].lower()


def stem_of(name: str) -> str:
    """`a/1` for `a/1.JPG`."""
    return os.path.splitext(name)[0]


def _last(name: str) -> str:
    return name.rpartition("/")[2]


def _is_unicode(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is(entry: os.DirEntry[str], test: Callable[[os.DirEntry[str]], bool]) -> bool:
    try:
        return test(entry)
    except OSError:  # a link to itself, a folder that may not be searched
        return False


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _by_stem(listing: Listing, ending: str) -> dict[str, str]:
    """The files with that ending by their path without it; of `1.txt` and `1.TXT` the last in order."""
    return {stem_of(name): name for name in listing.others if ending_of(name) == ending}


def _unused(files: Mapping[str, str], used: set[str], ending: str) -> tuple[str, ...]:
    left = sorted(set(files.values()) - used)
    return (f"{len(left):,} {ending} files belong to no image, such as {left[0]}",) if left else ()


def _read_bytes(path: Path, limit: int) -> bytes:
    """A file of at most `limit` bytes. Raises InputError."""
    try:
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}") from error
    if len(content) > limit:
        raise InputError(f"must have at most {limit:,} bytes, got more")
    return content


def _read_text(path: Path, limit: int) -> str:
    """A UTF-8 text of at most `limit` bytes, without a byte order mark. Raises InputError."""
    content = _read_bytes(path, limit)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"must be UTF-8, got byte 0x{content[error.start]:02X} at {error.start}") from error
    if "\0" in text:
        raise InputError("must be text, got a zero byte")
    return text


def _lines(path: Path) -> list[str]:
    return [line.strip() for line in _read_text(path, _LIST_BYTES).split("\n")]
