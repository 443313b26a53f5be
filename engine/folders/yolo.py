"""Listing -> samples with the boxes of YOLO texts.

`obj.names`, `obj.data`, `train.txt`, `valid.txt`, `obj_train_data/`; no txt: unlabeled; an empty one: labeled, nothing
is there; one with lines none of which can be read says neither (`Drawing.is_empty`). Boxes are xyxy pixels of the
upright image (EXIF orientation applied), whose size is read from its header. A line that cannot be read is a `Failure`;
what was passed over is said in notes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from engine.errors import Failure, ImageError, InputError
from engine.folders.found import Found, unused
from engine.folders.listing import Listing, by_stem, last_part_of, stem_of
from engine.folders.sizes import image_size, with_size
from engine.folders.texts import is_number, read_lines
from engine.samples import OBJECT_DETECTION, UNREAD_KEY, Drawing, Label, Sample, Shape

_YOLO_FILES: Final = ("obj.names", "obj.data", "train.txt", "valid.txt")
YOLO_FOLDER: Final = "obj_train_data"
#: Boxes come out of YOLO's rounded fractions on a grid of 1/1000 pixel, so that whole pixels are whole again.
_GRID: Final = 3


def read_yolo(listing: Listing) -> Found:
    """The lines `index x y w h` of the txt beside an image (or in obj_train_data/) are its boxes, as fractions of the
    image's width and height; a line that is not is a failure, and the others count. The usage is TRAIN or EVAL
    where train.txt or valid.txt lists the image.
    Raises InputError when obj.names is missing or unreadable."""
    if "obj.names" not in listing.others:
        raise InputError("a YOLO folder has obj.names at its root")
    names = _class_names(listing.root / "obj.names")
    texts = {stem: text for stem, text in by_stem(listing, ".txt").items() if text not in _YOLO_FILES}
    usages, failures, notes = _yolo_usages(listing, names)
    samples, used, clipped = [], set(), 0
    elsewhere = _texts_elsewhere(listing.images, texts)
    for image in listing.images:
        sample = Sample(image, usage=usages.get(image, ""))
        text = texts.get(stem_of(image)) or elsewhere.get(image)
        if text is not None:
            used.add(text)
            sample, faults, beyond = _read_boxes(sample, listing.root, text, names)
            failures += faults
            clipped += beyond
        samples.append(sample)
    if clipped:
        notes.append(f"{clipped:,} boxes reached out of their image and were clipped")
    return Found(tuple(samples), tuple(failures), (*notes, *unused(texts, used, ".txt")))


def _texts_elsewhere(images: Sequence[str], texts: Mapping[str, str]) -> dict[str, str]:
    """The texts in obj_train_data/ of images that lie in other folders: each belongs to the only image of its name."""
    alike: dict[str, list[str]] = {}
    for image in images:
        alike.setdefault(last_part_of(stem_of(image)), []).append(image)
    found = {name: texts.get(f"{YOLO_FOLDER}/{name}") for name in alike}
    return {alike[name][0]: text for name, text in found.items() if text is not None and len(alike[name]) == 1}


def _read_boxes(sample: Sample, root: Path, text: str, names: Sequence[str]) -> tuple[Sample, list[Failure], int]:
    """The sample with the boxes of `text`, what was wrong with lines, how many boxes were clipped."""
    try:
        lines = read_lines(root / text)
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
    extra = {UNREAD_KEY: str(len(failures))} if failures else {}
    drawing = Drawing(tuple(shapes), (width, height, depth), filename=last_part_of(sample.source), extra=extra)
    return with_size(replace(sample, labels=(Label(OBJECT_DETECTION, drawing=drawing),))), failures, clipped


def _pixels(fraction: float, side: int) -> float:
    return round(min(max(fraction, 0.0), 1.0) * side, _GRID)


def _parse_box(line: str, names: Sequence[str]) -> tuple[str, tuple[float, float, float, float]]:
    """`1 0.5 0.5 0.2 0.4` -> the second name, (xmin, ymin, xmax, ymax) as fractions."""
    fields = line.split()
    if len(fields) != 5 or not re.fullmatch(r"[0-9]{1,9}", fields[0]) or not all(map(is_number, fields[1:])):
        raise InputError(f"must be `label_index x_center y_center width height`, got {line[:80]!r}")
    index, (x, y, w, h) = int(fields[0]), map(float, fields[1:])
    if index >= len(names) or not names[index]:
        raise InputError(f"label_index must be one of the {len(names)} lines of obj.names, got {index}")
    if not (0 <= x <= 1 and 0 <= y <= 1 and 0 < w <= 2 and 0 < h <= 2):
        raise InputError(f"numbers must be fractions of the image's width and height, got {line!r}")
    return names[index], (x - w / 2, y - h / 2, x + w / 2, y + h / 2)


def _class_names(path: Path) -> list[str]:
    try:
        names = read_lines(path)
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
        name = last_part_of(data.get(key, "").replace("\\", "/"))
        name = name if name in listing.others else f"{key}.txt"
        if name not in listing.others:
            continue
        try:
            lines = read_lines(listing.root / name)
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
        lines = read_lines(listing.root / "obj.data")
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
