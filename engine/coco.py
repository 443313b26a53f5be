"""COCO instances JSON <-> drawings (format: cocodataset.org, "Data format", object detection).

A document lists images (`file_name`, `width`, `height`), categories, and annotations with a `bbox` (x, y, width,
height in pixels). Read are boxes: an outline beside a box is passed over and counted, one without a box is a polygon;
regions of many objects (`iscrowd`) are no objects. An image of the document that has no annotation is one on which
somebody drew nothing; where there are some, but none that could be read, the drawing says so (`is_empty`). Knows
nothing of folders, or of where images lie.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from engine.errors import Failure, InputError
from engine.files import as_json
from engine.samples import LONGEST_SIDE, UNREAD_KEY, Drawing, Shape

#: What COCO can say of shapes.
COCO_KINDS: Final = ("bndbox", "polygon")

#: Of the order of bytes, which some editors write.
_MARK: Final = b"\xef\xbb\xbf"
_KEYS: Final = ("images", "annotations", "categories")
#: Our own, of an image without shapes: whether a machine found nothing there, for no score can tell.
_AUTOMATIC: Final = "automatic"


@dataclass(frozen=True, slots=True)
class CocoImage:
    """An image of a document, and what is drawn on it. scored: whether every shape came with a score, as those of a
    machine do; of an image without shapes, whether all of the document did, or the document says so."""

    file_name: str
    drawing: Drawing
    scored: bool


@dataclass(frozen=True, slots=True)
class CocoDocument:
    """images: in the order of the document. failures: of annotations that cannot be read, by the names of their images.
    outlines, crowds: how many were passed over."""

    images: tuple[CocoImage, ...]
    failures: tuple[Failure, ...]
    outlines: int
    crowds: int


def looks_like_coco(content: bytes) -> bool:
    """Whether the bytes of a JSON file may be such a document, without reading it."""
    return content.removeprefix(_MARK).lstrip()[:1] == b"{" and all(f'"{key}"'.encode() in content for key in _KEYS)


def parse_coco(content: bytes, place: str) -> CocoDocument:
    """A document; `place` names it in messages. Raises InputError when it is none."""
    try:
        told = _loaded(content.removeprefix(_MARK))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{place}: must be JSON, is not: {error}") from None
    if not isinstance(told, dict) or not all(isinstance(told.get(key), list) for key in _KEYS):
        raise InputError(f"{place}: must be a COCO document with the lists {', '.join(_KEYS)}")
    names = _categories(told["categories"], place)
    images = _images(told["images"], place)
    automatic = {image["id"]: image[_AUTOMATIC] for image in told["images"] if isinstance(image.get(_AUTOMATIC), bool)}
    shapes: dict[Any, list[Shape]] = {number: [] for number in images}
    failures: list[Failure] = []
    unread: Counter[Any] = Counter()  # by image
    outlines = crowds = 0
    for at, annotation in enumerate(told["annotations"]):
        where = f"{place}: annotations[{at}]"
        number = annotation.get("image_id") if isinstance(annotation, dict) else None
        if not isinstance(number, int | str) or number not in images:
            failures.append(Failure(place, "annotation", f"{where}: image_id must be that of an image, got {number!r}"))
        elif annotation.get("iscrowd") == 1:
            crowds += 1
            unread[number] += 1
        else:
            try:
                shape = _shape(annotation, names)
            except InputError as error:
                failures.append(Failure(images[number][0], "annotation", f"{where}: {error}"))
                unread[number] += 1
                continue
            outlines += shape.kind == "bndbox" and bool(annotation.get("segmentation"))
            shapes[number].append(shape)
    found = []
    everything = [shape for each in shapes.values() for shape in each]
    all_scored = bool(everything) and all(shape.confidence is not None for shape in everything)
    for number, (name, size) in images.items():
        mine = tuple(shapes[number])
        scored = all(shape.confidence is not None for shape in mine) if mine else automatic.get(number, all_scored)
        extra = {UNREAD_KEY: str(unread[number])} if unread[number] else {}
        found.append(CocoImage(name, Drawing(mine, size, filename=name.rpartition("/")[2], extra=extra), scored))
    return CocoDocument(tuple(found), tuple(failures), outlines, crowds)


def _loaded(content: bytes) -> Any:
    """The values of JSON. Raises ValueError or RecursionError."""
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:  # half a surrogate pair, as a label may hold, is fine
        return json.loads(content)


def _categories(told: Iterable[Any], place: str) -> dict[int, str]:
    names: dict[int, str] = {}
    for at, category in enumerate(told):
        number, name = (category.get("id"), category.get("name")) if isinstance(category, dict) else (None, None)
        if not isinstance(number, int) or not isinstance(name, str) or not name.strip() or number in names:
            raise InputError(f"{place}: categories[{at}]: must have an id of its own, a number, and a name")
        names[number] = name
    return names


def _images(told: Iterable[Any], place: str) -> dict[Any, tuple[str, tuple[int, int, int] | None]]:
    """By id, the name and size of each image."""
    found: dict[Any, tuple[str, tuple[int, int, int] | None]] = {}
    for at, image in enumerate(told):
        number, name = (image.get("id"), image.get("file_name")) if isinstance(image, dict) else (None, None)
        if not isinstance(number, int | str) or not isinstance(name, str) or not name or number in found:
            raise InputError(f"{place}: images[{at}]: must have an id of its own and a file_name")
        sides = [image.get(side) for side in ("width", "height")]
        known = all(isinstance(side, int) and 0 < side <= LONGEST_SIDE for side in sides)
        found[number] = name.replace("\\", "/"), (sides[0], sides[1], 3) if known else None
    return found


def _shape(annotation: Mapping[str, Any], names: Mapping[int, str]) -> Shape:
    """Raises InputError for what is no shape of a known category."""
    number = annotation.get("category_id")
    name = names.get(number) if isinstance(number, int) else None
    if name is None:
        raise InputError(f"category_id must be that of a category, got {number!r}")
    score = annotation.get("score")
    if score is not None and not _is_number(score):
        raise InputError(f"score must be in [0, 1], got {score!r}")
    box, around = annotation.get("bbox"), annotation.get("segmentation")
    if isinstance(box, list) and len(box) == 4 and all(map(_is_number, box)) and box[2] > 0 and box[3] > 0:
        x, y, width, height = map(float, box)
        return Shape(name, "bndbox", ((x, y), (x + width, y + height)), confidence=score)
    first = around[0] if isinstance(around, list) and around else None
    if isinstance(first, list) and len(first) >= 6 and all(map(_is_number, first)):
        numbers = list(map(float, first))
        points = tuple(zip(numbers[::2], numbers[1::2], strict=False))
        return Shape(name, "polygon", points, confidence=score)
    raise InputError(f"bbox must be x, y, width > 0, height > 0, got {str(box)[:80]}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def format_coco(
    images: Sequence[tuple[str, tuple[int, int, int], Drawing]], names: Sequence[str], automatic: Collection[str] = ()
) -> tuple[bytes, Counter[str]]:
    """images: file name, (width, height, depth) in pixels, and drawing of each. names: of the categories, numbered from
    1. automatic: file names of images on which a machine drew, or found nothing. -> the document, UTF-8, and how many
    shapes of each kind it holds; those of other than COCO_KINDS are left out. Shapes that came with a confidence have a
    `score`."""
    numbers = {name: number for number, name in enumerate(names, start=1)}
    annotations: list[dict[str, Any]] = []
    written: Counter[str] = Counter()
    for image_id, (_, _, drawing) in enumerate(images, start=1):
        for shape in drawing.shapes:
            if shape.kind in COCO_KINDS:
                annotations.append(_annotation(len(annotations) + 1, image_id, numbers[shape.name], shape))
                written[shape.kind] += 1
    document = {
        "images": [
            {"id": number, "file_name": name, "width": size[0], "height": size[1]}
            | ({} if drawing.shapes else {_AUTOMATIC: name in automatic})
            for number, (name, size, drawing) in enumerate(images, start=1)
        ],
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for name, number in numbers.items()],
    }
    return as_json(document), written


def _annotation(number: int, image_id: int, category_id: int, shape: Shape) -> dict[str, Any]:
    xs, ys = ([point[axis] for point in shape.points] for axis in (0, 1))
    left, top, width, height = min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)
    around = [] if shape.kind == "bndbox" else [coordinate for point in shape.points for coordinate in point]
    corners = zip(shape.points, (*shape.points[1:], shape.points[0]), strict=True)
    area = abs(sum(a[0] * b[1] - b[0] * a[1] for a, b in corners)) / 2 if around else width * height
    sure = {} if shape.confidence is None else {"score": shape.confidence}
    return {
        "id": number,
        "image_id": image_id,
        "category_id": category_id,
        "bbox": [left, top, width, height],
        "area": area,
        "segmentation": [around] if around else [],
        "iscrowd": 0,
        **sure,
    }
