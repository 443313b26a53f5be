"""A PASCAL VOC file (XML) <-> `Drawing`. The only place that knows VOC's own form.

Comes in: VOC as the devkit, labeling tools and the service write it: seven shapes, `part`s, properties, both spellings
of a point. Goes out: a `Drawing`, coordinates in pixels as the file gives them, origin [0, 0] at the top left: nothing
is shifted by one, integers stay integers. Our own element is `<hard-reasons>3-20</hard-reasons>`.

Reading loses nothing. An element that is not understood goes into `extra` under its tag, as a `Tree` (attributes as
`@name`); an element that is understood goes there too where we would write it differently (`0.90`, the attribute of a
name, a box given from its bottom right corner), and is written again so as long as it still means the present value. An
object that cannot be understood is a `Failure`, and stays in the drawing's `extra` under `object`.

XML that declares entities is refused. Knows nothing of images or manifests.
"""

from __future__ import annotations

import json
import math
import operator
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from stat import S_ISREG
from typing import Any, Final, NamedTuple, TypeAlias
from xml.etree.ElementTree import Element

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import ParseError, fromstring

from engine.errors import Failure, InputError, OutputError, VocError
from engine.files import write_bytes
from engine.samples import LONGEST_SIDE, NOTHING, SHAPE_POINTS, Drawing, Shape

#: What an element holds, comparable and printable: its text; or, when it holds more, a dict of `@attribute`, `#text`,
#: and of each child's Tree under its tag (several with one tag: a list). Children of one tag that do not stand
#: together are `#children`, [tag, Tree] pairs in order. `#tail` is text after an element.
Tree: TypeAlias = "str | dict[str, Any]"

_OWN_PROPERTIES: Final = "labelengine-json"  # properties that plain elements cannot hold
_DEEPEST: Final = 100  # levels of elements; nobody's annotation has ten
_MOST_BYTES: Final = 64 << 20  # of a file: 200,000 objects
_CLIP: Final = 80  # characters of a bad value that a message shows
_PLAIN_NAME: Final = re.compile(r"[A-Za-z_][\w.\-]*", re.ASCII)
_TAG: Final = re.compile(r"(?:\{([^{}]*)\})?([^\s<>&\"'=/{}@#\d.\-][^\s<>&\"'=/{}]*)")
_NOT_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_NUMBER: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_SIZE_TAG: Final = re.compile("width|height|depth")
_BNDBOX_TAG: Final = re.compile("[xy](min|max)")
_CIRCLE_TAG: Final = re.compile("cx|cy|r")
_POINT_TAG: Final = re.compile("[xy]1?")
_PATH_TAG: Final = re.compile(r"[xy](\d{1,9})", re.ASCII)


# --- files


def read_voc(path: Path) -> tuple[Drawing, tuple[Failure, ...]]:
    """What a VOC file says, and a Failure (kind "annotation") for each of its objects that cannot be understood.

    Raises VocError when the file cannot be read, is too large or none, or is not VOC at all.
    """
    try:
        if not S_ISREG(os.stat(path).st_mode):  # before it is opened: a pipe would wait for a writer
            raise VocError(f"{path}: cannot be read: it is not a regular file")
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise VocError(f"{path}: cannot be read: {error.strerror or error}") from error
    if len(content) > _MOST_BYTES:
        raise VocError(f"{path}: must have at most {_MOST_BYTES:,} bytes, got more")
    return parse_voc(content, str(path))


def write_voc(path: Path, drawing: Drawing) -> None:
    """Write a drawing to `path`, whole or not at all. Raises OutputError."""
    try:
        content = format_voc(drawing)
    except OutputError as error:
        raise OutputError(f"{path}: {error}") from None
    write_bytes(path, content)


def parse_voc(content: bytes, place: str) -> tuple[Drawing, tuple[Failure, ...]]:
    """The contents of a VOC file; `place` names it in messages. Raises VocError when they are not VOC at all."""
    try:
        root = fromstring(content)
        tree = _tree(root)
    except DefusedXmlException:
        raise VocError(f"{place}: must be XML without entities of its own, got a declaration of one") from None
    except InputError as error:
        raise VocError(f"{place}: {error}") from None
    except (ParseError, ValueError, LookupError) as error:
        raise VocError(f"{place}: must be well-formed XML, got {error}") from None
    if root.tag != "annotation":
        raise VocError(f"{place}: must hold an <annotation>, got <{root.tag}>")
    return _read_drawing(tree, place)


def format_voc(drawing: Drawing) -> bytes:
    """The VOC file of a drawing, UTF-8, indented. Raises OutputError for what XML or a reader would refuse."""
    try:
        xml = _xml("annotation", _drawing_tree(drawing), "\n")
        return f"{xml[1:]}\n".encode()
    except (InputError, ValueError, TypeError, RecursionError) as error:
        raise OutputError(f"cannot be written as PASCAL VOC: {error}") from None


# --- drawings and shapes


class _Field(NamedTuple):
    """A known element: where its value lives, what a Tree (or a list, of several) means, and how we write a value.

    `read` raises InputError whose message goes after the tag. None and empty values are not written.
    """

    attribute: str
    read: Callable[[Any], Any]
    show: Callable[[Any], Any]


def _read_drawing(tree: Tree, place: str) -> tuple[Drawing, tuple[Failure, ...]]:
    """Of a known element that is given twice, the first counts, and all are kept."""
    shapes: list[Shape] = []
    broken: list[tuple[str, Tree]] = []
    failures: list[Failure] = []
    children = list(_children(tree))
    objects = [child for tag, child in children if tag == "object"]
    for number, child in enumerate(objects, 1):
        try:
            shapes.append(_read_shape(child))
        except InputError as error:
            broken.append(("object", child))
            where = f"object {number} ({_name_of(child)})"
            failures.append(Failure(place, "annotation", f"{place}: {where}: {error}"))
    values: dict[str, Any] = {}
    extra = _marks(tree)
    for tag, field in _DRAWING_FIELDS.items():
        if found := [child for name, child in children if name == tag]:
            try:
                values[field.attribute] = value = field.read(_one_or_all(found))
            except InputError as error:
                value = None
                failures.append(Failure(place, "annotation", f"{place}: {tag} {error}"))
            extra.update(_kept(tag, field, value, found))
    unknown = [(tag, child) for tag, child in children if tag not in _DRAWING_FIELDS and tag != "object"]
    extra |= _fold(unknown) | _fold(broken)
    return Drawing(tuple(shapes), **values, extra=extra or NOTHING), tuple(failures)


def _read_shape(tree: Tree) -> Shape:
    """One `object` or `part`. Raises InputError when its name or its one shape is missing, or a value is nonsense."""
    children = list(_children(tree))
    kinds = [tag for tag, _ in children if tag in SHAPE_POINTS]
    if len(kinds) != 1:
        raise InputError(f"must have one shape of {', '.join(SHAPE_POINTS)}, got {', '.join(kinds) or 'none'}")
    fields = _SHAPE_FIELDS | {kinds[0]: _POINTS[kinds[0]]}
    values: dict[str, Any] = {"kind": kinds[0]}
    extra = _marks(tree)
    for tag, field in fields.items():
        found = [child for name, child in children if name == tag]
        if len(found) > 1 and tag not in ("property", "part"):
            raise InputError(f"{tag} must be given once, got {len(found)}")
        if found:
            try:
                values[field.attribute] = value = field.read(_one_or_all(found))
            except InputError as error:
                raise InputError(f"{tag} {error}") from None
            extra.update(_kept(tag, field, value, found))
    if not values.get("name"):
        raise InputError("name must be given, got nothing")
    extra |= _fold((tag, child) for tag, child in children if tag not in fields)
    return Shape(**values, extra=extra or NOTHING)


def _drawing_tree(drawing: Drawing) -> Tree:
    known, unknown = _shown(drawing, _DRAWING_FIELDS)
    objects = [("object", _shape_tree(shape)) for shape in drawing.shapes]
    broken = [child for child in unknown if child[0] == "object"]
    others = [child for child in unknown if child[0] != "object"]
    head = [child for child in known if child[0] in ("folder", "filename")]
    rest = [child for child in known if child[0] not in ("folder", "filename")]
    return {**_marks(drawing.extra), **_fold([*head, *others, *rest, *objects, *broken])}


def _shape_tree(shape: Shape) -> Tree:
    if not shape.name:
        raise InputError("the name of a shape must be given, got nothing")
    known, unknown = _shown(shape, _SHAPE_FIELDS | {shape.kind: _POINTS[shape.kind]})
    others = [child for child in unknown if child[0] not in SHAPE_POINTS]  # not the spelling of what it was before
    return {**_marks(shape.extra), **_fold([*known, *others])}


def _kept(tag: str, field: _Field, value: Any, found: list[Tree]) -> dict[str, Any]:
    """{tag: what was found}, when we would write the value differently."""
    ours = [] if _is_empty(value) else [child for _, child in _children({tag: field.show(value)})]
    return {} if ours == found else {tag: _one_or_all(found)}


def _shown(
    owner: Drawing | Shape, fields: Mapping[str, _Field]
) -> tuple[list[tuple[str, Tree]], list[tuple[str, Tree]]]:
    """The known and the unknown elements of a drawing or shape; known ones as they were read, if they still hold."""
    known: list[tuple[str, Tree]] = []
    for tag, field in fields.items():
        value = getattr(owner, field.attribute)
        if tag in owner.extra and _still_means(field, owner.extra[tag], value):
            known += _children({tag: owner.extra[tag]})
        elif not _is_empty(value):
            known += _children({tag: field.show(value)})
    unknown = [(tag, child) for tag, child in _children(owner.extra) if tag not in fields]
    return known, unknown


def _still_means(field: _Field, kept: Any, value: Any) -> bool:
    try:
        return bool(field.read(kept) == value)
    except InputError:
        return value is None


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, (tuple, Mapping)) and not value)


def _name_of(tree: Tree) -> str:
    names = [_text(child) for tag, child in _children(tree) if tag == "name"]
    return _clip(names[0]) if names else "no name"


def _clip(text: str) -> str:
    return repr(text if len(text) <= _CLIP else f"{text[:_CLIP]}...")


# --- what the known elements mean, and how we write them


def _text(tree: Any) -> str:
    first = tree[0] if isinstance(tree, list) else tree
    text = first if isinstance(first, str) else first.get("#text", "")
    return str(text).strip()


def _number(text: str) -> float:
    """An int when it is written as one. Raises InputError unless it is a finite decimal number."""
    if not _NUMBER.fullmatch(text) or len(text) > 300 or not math.isfinite(value := float(text)):
        raise InputError(f"must be a number, got {_clip(text)}")
    return value if set(text) & set(".eE") else int(text)


def _show_number(value: Any) -> str:
    try:
        return str(operator.index(value))
    except TypeError:
        if not math.isfinite(value):
            raise InputError(f"a number must be finite, got {value}") from None
        return repr(float(value))


def _read_unit(tree: Any) -> float | None:
    if not (text := _text(tree)):
        return None
    if not 0.0 <= (value := _number(text)) <= 1.0:
        raise InputError(f"must be in [0, 1], got {value}")
    return float(value)


def _read_reasons(tree: Any) -> tuple[int, ...]:
    text = _text(tree)
    if not re.fullmatch(r"(\d{1,9}(-\d{1,9})*)?", text, re.ASCII):
        raise InputError(f"must be numbers joined by '-', got {_clip(text)}")
    return tuple(int(reason) for reason in text.split("-") if reason)


def _numbers(tree: Any, tags: re.Pattern[str]) -> dict[str, float]:
    """The children of an element whose tags are asked for, which are numbers, by tag."""
    first = tree[0] if isinstance(tree, list) else tree
    numbers: dict[str, float] = {}
    for tag, child in _children(first):
        if not tags.fullmatch(tag):
            continue
        if tag in numbers:
            raise InputError(f"must have one {tag}, got several")
        try:
            numbers[tag] = _number(_text(child))
        except InputError:
            raise InputError(f"must have a number as {tag}, got {_clip(_text(child))}") from None
    return numbers


def _at(numbers: Mapping[str, float], tags: str) -> tuple[float, ...]:
    missing = [tag for tag in tags.split() if tag not in numbers]
    if missing:
        raise InputError(f"must have {tags.replace(' ', ', ')}, got no {missing[0]}")
    return tuple(numbers[tag] for tag in tags.split())


def _read_size(tree: Any) -> tuple[int, int, int] | None:
    """(width, height, depth). A depth left blank is 3 (CreateTask, table 15); 0 x 0 is how some tools say unknown."""
    first = tree[0] if isinstance(tree, list) else tree
    given = {tag: child for tag, child in _children(first) if _text(child)}
    numbers = {"depth": 3.0} | _numbers(given, _SIZE_TAG)
    if len(numbers) == 1:
        return None
    width, height, depth = (round(number) for number in _at(numbers, "width height depth"))
    if min(width, height, depth) < 0:
        raise InputError(f"must not be negative, got {width} x {height} x {depth}")
    if max(width, height, depth) > LONGEST_SIDE:
        raise InputError(f"must be at most {LONGEST_SIDE}, got {_clip(f'{width} x {height} x {depth}')}")
    return (width, height, depth) if width and height else None


def _show_size(size: tuple[int, int, int]) -> Tree:
    return dict(zip(("width", "height", "depth"), map(_show_number, size), strict=True))


Points: TypeAlias = tuple[tuple[float, ...], ...]


def _read_bndbox(tree: Any) -> Points:
    x1, y1, x2, y2 = _at(_numbers(tree, _BNDBOX_TAG), "xmin ymin xmax ymax")
    if x1 > x2:  # some tools write the corner first where the mouse went down
        x1, x2 = x2, x1
    if y1 > y2:
        y1, y2 = y2, y1
    return (x1, y1), (x2, y2)


def _show_bndbox(points: Points) -> Tree:
    return dict(zip(("xmin", "ymin", "xmax", "ymax"), _shown_numbers(points), strict=True))


def _read_circle(tree: Any) -> Points:
    x, y, radius = _at(_numbers(tree, _CIRCLE_TAG), "cx cy r")
    if radius < 0:
        raise InputError(f"must have r >= 0, got {radius}")
    return (x, y), (radius,)


def _show_circle(points: Points) -> Tree:
    return dict(zip(("cx", "cy", "r"), _shown_numbers(points), strict=True))


def _read_point(tree: Any) -> Points:
    numbers = _numbers(tree, _POINT_TAG)
    x, y = _at(numbers, "x y") if "x" in numbers or "y" in numbers else _at(numbers, "x1 y1")
    return ((x, y),)


def _show_point(points: Points) -> Tree:
    return dict(zip(("x", "y"), _shown_numbers(points), strict=True))


def _read_path(tree: Any) -> Points:
    """x1, y1, x2, y2, ... in the order of their numbers, wherever they stand."""
    numbers = _numbers(tree, _PATH_TAG)
    found = {int(match[1]) for tag in numbers if (match := _PATH_TAG.fullmatch(tag))}
    return tuple(_at(numbers, f"x{number} y{number}") for number in sorted(found))


def _show_path(points: Points) -> Tree:
    pairs = [zip((f"x{i}", f"y{i}"), _shown_numbers([point]), strict=True) for i, point in enumerate(points, 1)]
    return {tag: number for pair in pairs for tag, number in pair}


def _shown_numbers(points: Iterable[Iterable[float]]) -> Iterator[str]:
    return (_show_number(value) for point in points for value in point)


def _read_parts(tree: Any) -> tuple[Shape, ...]:
    parts = []
    for number, part in enumerate(tree if isinstance(tree, list) else [tree], 1):
        try:
            parts.append(_read_shape(part))
        except InputError as error:
            raise InputError(f"{number}: {error}") from None
    return tuple(parts)


def _read_property(tree: Any) -> Mapping[str, Any]:
    """Tag -> Tree. Text instead of elements is under `#text`, several `property` elements are under `#list`."""
    if isinstance(tree, list):
        return {"#list": tree}
    if isinstance(tree, str):
        return {"#text": tree} if tree.strip() else NOTHING
    properties: dict[str, Any] = tree
    try:
        own = json.loads(properties.get(_OWN_PROPERTIES, "{}"), parse_constant=_no_constant)
    except (TypeError, ValueError, RecursionError):
        own = None
    if not isinstance(own, dict):
        return properties
    return {**{tag: child for tag, child in properties.items() if tag != _OWN_PROPERTIES}, **own}


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _show_property(properties: Mapping[str, Any]) -> Tree:
    """An element an entry, where that reads back the same; one JSON object for the others."""
    plain = {key: value for key, value in properties.items() if _is_plain(key, value)}
    others = {key: value for key, value in properties.items() if key not in plain}
    if others:
        plain[_OWN_PROPERTIES] = json.dumps(others, allow_nan=False)
    return plain


def _is_plain(key: str, value: Any) -> bool:
    if not _PLAIN_NAME.fullmatch(key) or key == _OWN_PROPERTIES:
        return False
    if isinstance(value, str):
        return not _NOT_XML.search(value)
    if not value or not isinstance(value, (dict, list)):
        return False
    try:
        return bool(_tree(fromstring(_xml("x", {key: value}, "\n"))) == {key: value})
    except (InputError, ParseError, ValueError, TypeError, AttributeError):
        return False


_DRAWING_FIELDS: Final = {
    "folder": _Field("folder", _text, str),
    "filename": _Field("filename", _text, str),
    "size": _Field("size", _read_size, _show_size),
    "segmented": _Field("segmented", _text, str),
    "mask_source": _Field("mask_source", _text, str),
}
_SHAPE_FIELDS: Final = {
    "name": _Field("name", _text, str),
    "pose": _Field("pose", _text, str),
    "truncated": _Field("truncated", _text, str),
    "occluded": _Field("occluded", _text, str),
    "difficult": _Field("difficult", _text, str),
    "confidence": _Field("confidence", _read_unit, lambda value: _show_number(float(value))),
    "hard-coefficient": _Field("hard_coefficient", _read_unit, lambda value: _show_number(float(value))),
    "hard-reasons": _Field("hard_reasons", _read_reasons, lambda reasons: "-".join(map(str, reasons))),
    "mask_color": _Field("mask_color", _text, str),
    "property": _Field("property", _read_property, _show_property),
    "part": _Field("parts", _read_parts, lambda parts: [_shape_tree(part) for part in parts]),
}
_POINTS: Final = {
    "bndbox": _Field("points", _read_bndbox, _show_bndbox),
    "polygon": _Field("points", _read_path, _show_path),
    "circle": _Field("points", _read_circle, _show_circle),
    "line": _Field("points", _read_path, _show_path),
    "dashed": _Field("points", _read_path, _show_path),
    "point": _Field("points", _read_point, _show_point),
    "polyline": _Field("points", _read_path, _show_path),
}


# --- XML <-> Tree


def _tree(element: Element, *, depth: int = 1, in_text: bool = False) -> Tree:
    """What an element holds. Space between elements counts only where there is text between them, too."""
    if depth > _DEEPEST:
        raise InputError(f"elements must be nested at most {_DEEPEST} deep, got more")
    tail = (element.tail or "") if in_text else ""
    text = element.text or ""
    if not (len(element) or element.attrib or tail):
        return text
    mixed = any((between or "").strip() for between in (text, *(child.tail for child in element)))
    tree: dict[str, Any] = {f"@{name}": value for name, value in element.attrib.items()}
    if text and (mixed or not len(element)):
        tree["#text"] = text
    if tail:
        tree["#tail"] = tail
    return tree | _fold((child.tag, _tree(child, depth=depth + 1, in_text=mixed)) for child in element)


def _fold(children: Iterable[tuple[str, Tree]]) -> dict[str, Any]:
    """Children as a dict: {tag: Tree}, {tag: [Tree, ...]}, or {"#children": ...} where that would lose their order."""
    pairs = list(children)
    folded: dict[str, Any] = {}
    last = None
    for tag, child in pairs:
        if tag not in folded:
            folded[tag] = [child]
        elif tag == last:
            folded[tag].append(child)
        else:
            return {"#children": [[tag, child] for tag, child in pairs]}
        last = tag
    return {tag: _one_or_all(found) for tag, found in folded.items()}


def _children(tree: Tree | Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The (tag, Tree) pairs of an element, in order."""
    if isinstance(tree, str):
        return
    for key, value in tree.items():
        if key == "#children":
            yield from ((tag, child) for tag, child in value)
        elif not key.startswith(("@", "#")):
            yield from ((key, child) for child in (value if isinstance(value, list) else [value]))


def _marks(tree: Tree | Mapping[str, Any]) -> dict[str, Any]:
    """What a Tree holds beside children: its attributes and text."""
    if isinstance(tree, str):
        return {}
    return {key: value for key, value in tree.items() if key.startswith("@") or key in ("#text", "#tail")}


def _one_or_all(found: list[Any]) -> Any:
    return found[0] if len(found) == 1 else found


def _xml(tag: str, tree: Tree | Mapping[str, Any], margin: str) -> str:
    """An element, on lines of its own that begin with `margin`; an empty margin: in one piece, between text."""
    name, attributes = _opened(tag, tree)
    if isinstance(tree, str):
        return f"{margin}<{name}{attributes}>{_escape(tree)}</{name}>"
    children = list(_children(tree))
    text, tail = tree.get("#text", ""), tree.get("#tail", "")
    mixed = text or any("#tail" in child for _, child in children if not isinstance(child, str))
    inner = f"{margin}\t" if margin and not mixed else ""
    content = _escape(text) + "".join([_xml(tag, child, inner) for tag, child in children])
    close = margin if inner and children else ""
    return f"{margin}<{name}{attributes}>{content}{close}</{name}>{_escape(tail)}"


def _opened(tag: str, tree: Tree | Mapping[str, Any]) -> tuple[str, str]:
    """The name of an element and its attributes, with the namespaces that both need."""
    name, declared = _qualified(tag, "e")
    for number, (key, value) in enumerate([] if isinstance(tree, str) else tree.items()):
        if key.startswith("@"):
            attribute, declaration = _qualified(key[1:], f"a{number}")
            escaped = _escape(value).replace('"', "&quot;").replace("\n", "&#10;").replace("\t", "&#9;")
            declared += f'{declaration} {attribute}="{escaped}"'
    return name, declared


def _qualified(name: str, prefix: str) -> tuple[str, str]:
    match = _TAG.fullmatch(name)
    if not match:
        raise InputError(f"a tag must be an XML name, got {name!r}")
    namespace, local = match.groups()
    if namespace is None:
        return name, ""
    if namespace == "http://www.w3.org/XML/1998/namespace":
        return f"xml:{local}", ""
    return f"{prefix}:{local}", f' xmlns:{prefix}="{_escape(namespace)}"'


def _escape(text: Any) -> str:
    if not isinstance(text, str):
        raise InputError(f"text must be a string, got {text!r}")
    if bad := _NOT_XML.search(text):
        raise InputError(f"text must be free of control characters, got {bad[0]!r} in {_clip(text)}")
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("\r", "&#13;")
