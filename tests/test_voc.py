"""PASCAL VOC: hand-written files for every shape and quirk, identity by force, and errors that name the object."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import Failure, OutputError, VocError
from engine.samples import SHAPE_POINTS, Drawing, Shape
from engine.voc import format_voc, parse_voc, read_voc, write_voc

BOX = "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>30</xmax><ymax>40</ymax></bndbox>"
POINTS = ((1, 2), (30, 40))


def parse(xml: str) -> Drawing:
    drawing, failures = parse_voc(xml.encode(), "a.xml")
    assert failures == ()
    return drawing


def parse_object(inside: str) -> Shape:
    (shape,) = parse(f"<annotation><object>{inside}</object></annotation>").shapes
    return shape


def fail_object(inside: str) -> str:
    """The reason why one object, between two good ones, is not understood; checks that nothing is lost."""
    good = f"<object><name>good</name>{BOX}</object>"
    xml = f"<annotation>{good}<object>{inside}</object>{good}</annotation>"
    drawing, failures = parse_voc(xml.encode(), "dir/a.xml")
    assert [shape.name for shape in drawing.shapes] == ["good", "good"]
    (failure,) = failures
    assert (failure.source, failure.kind) == ("dir/a.xml", "annotation")
    assert "\n" not in failure.reason
    written = format_voc(drawing)
    assert outline(written, ordered=False) == outline(xml.encode(), ordered=False)
    assert parse_voc(written, "dir/a.xml")[0] == drawing
    return failure.reason


def outline(xml: bytes | ElementTree.Element, *, ordered: bool = True) -> Any:
    """A naive reading of XML to compare by: tag, attributes, text, children; space between elements left out."""
    element = ElementTree.fromstring(xml) if isinstance(xml, bytes) else xml
    children = [outline(child, ordered=ordered) for child in element]
    text = (element.text or "") if not children else (element.text or "").strip()
    parts = (element.tag, sorted(element.attrib.items()), text, (element.tail or "").strip())
    return (*parts, children if ordered else sorted(children, key=repr))


def check_identity(xml: str) -> None:
    """Read -> write -> read is the identity, and the XML holds what it held."""
    drawing = parse(xml)
    written = format_voc(drawing)
    assert parse_voc(written, "b.xml") == (drawing, ())
    assert outline(written, ordered=False) == outline(xml.encode(), ordered=False)


# --- by eye

FULL = """<annotation>
	<folder>Images</folder>
	<filename>a&amp;b.jpg</filename>
	<source>
		<database>Unknown</database>
		<image>flickr</image>
	</source>
	<size>
		<width>640</width>
		<height>480</height>
		<depth>3</depth>
	</size>
	<segmented>0</segmented>
	<mask_source>masks/a.png</mask_source>
	<object>
		<name>猫</name>
		<pose>Left</pose>
		<truncated>1</truncated>
		<occluded>0</occluded>
		<difficult>0</difficult>
		<confidence>0.5</confidence>
		<hard-coefficient>0.25</hard-coefficient>
		<hard-reasons>3-20</hard-reasons>
		<mask_color>238,130,238</mask_color>
		<property>
			<color>white</color>
		</property>
		<part>
			<name>head</name>
			<bndbox>
				<xmin>2</xmin>
				<ymin>3</ymin>
				<xmax>4</xmax>
				<ymax>5.5</ymax>
			</bndbox>
		</part>
		<bndbox>
			<xmin>1</xmin>
			<ymin>2</ymin>
			<xmax>30</xmax>
			<ymax>40</ymax>
		</bndbox>
	</object>
</annotation>
"""
FULL_DRAWING = Drawing(
    shapes=(
        Shape(
            name="猫",
            kind="bndbox",
            points=POINTS,
            pose="Left",
            truncated="1",
            occluded="0",
            difficult="0",
            confidence=0.5,
            hard_coefficient=0.25,
            hard_reasons=(3, 20),
            mask_color="238,130,238",
            property={"color": "white"},
            parts=(Shape("head", "bndbox", ((2, 3), (4, 5.5))),),
        ),
    ),
    size=(640, 480, 3),
    folder="Images",
    filename="a&b.jpg",
    segmented="0",
    mask_source="masks/a.png",
    extra={"source": {"database": "Unknown", "image": "flickr"}},
)


def test_a_full_file_both_ways() -> None:
    assert parse(FULL) == FULL_DRAWING
    assert format_voc(FULL_DRAWING).decode() == FULL
    (shape,) = parse(FULL).shapes
    assert [type(value) for value in shape.xyxy] == [int] * 4


@pytest.mark.parametrize(
    ("inside", "kind", "points"),
    [
        (BOX, "bndbox", POINTS),
        ("<circle><cx>5</cx><cy>6</cy><r>7.5</r></circle>", "circle", ((5, 6), (7.5,))),
        ("<line><x1>1</x1><y1>2</y1><x2>3</x2><y2>4</y2></line>", "line", ((1, 2), (3, 4))),
        ("<dashed><x1>1</x1><y1>2</y1><x2>3</x2><y2>4</y2></dashed>", "dashed", ((1, 2), (3, 4))),
        ("<point><x>1</x><y>2</y></point>", "point", ((1, 2),)),
        ("<point><x1>1</x1><y1>2</y1></point>", "point", ((1, 2),)),
        (
            "<polygon><x1>0</x1><y1>0</y1><x2>9</x2><y2>0</y2><x3>9</x3><y3>9</y3></polygon>",
            "polygon",
            ((0, 0), (9, 0), (9, 9)),
        ),
        ("<polyline><y1>2</y1><x2>3</x2><x1>1</x1><y2>4</y2></polyline>", "polyline", ((1, 2), (3, 4))),
    ],
)
def test_every_shape(inside: str, kind: str, points: tuple[tuple[float, ...], ...]) -> None:
    shape = parse_object(f"<name>n</name>{inside}")
    assert shape == Shape("n", kind, points, extra=shape.extra)
    check_identity(f"<annotation><object><name>n</name>{inside}</object></annotation>")


def test_all_shapes_are_tested() -> None:
    assert set(SHAPE_POINTS) == {"bndbox", "polygon", "circle", "line", "dashed", "point", "polyline"}


def test_the_points_of_a_polygon_are_ordered_by_number() -> None:
    tags = [f"<{axis}{i}>{i * 10 + (axis == 'y')}</{axis}{i}>" for i in range(1, 13) for axis in "xy"]
    shape = parse_object(f"<name>n</name><polygon>{''.join(sorted(tags))}</polygon>")  # x1, x10, x11, x12, x2, ...
    assert shape.points == tuple((i * 10, i * 10 + 1) for i in range(1, 13))


def test_the_other_spelling_of_a_point_is_written_until_the_point_moves() -> None:
    xml = "<annotation><object><name>n</name><point><x1>1</x1><y1>2</y1></point></object></annotation>"
    drawing = parse(xml)
    assert b"<x1>1</x1>" in format_voc(drawing)
    moved = replace(drawing, shapes=(replace(drawing.shapes[0], points=((3, 4),)),))
    assert b"<x>3</x>" in format_voc(moved) and b"x1" not in format_voc(moved)


def test_an_inverted_box_is_put_upright_and_written_as_it_was() -> None:
    xml = "<bndbox><xmin>30</xmin><ymin>2</ymin><xmax>1</xmax><ymax>40</ymax></bndbox>"
    shape = parse_object(f"<name>n</name>{xml}")
    assert shape.xyxy == (1, 2, 30, 40)
    assert b"<xmin>30</xmin>" in format_voc(Drawing((shape,)))
    assert b"<xmin>0</xmin>" in format_voc(Drawing((replace(shape, points=((0, 2), (30, 40))),)))


def test_a_box_without_area_and_one_outside_are_kept() -> None:
    shape = parse_object("<name>n</name><bndbox><xmin>5</xmin><ymin>5</ymin><xmax>5</xmax><ymax>5</ymax></bndbox>")
    assert shape.xyxy == (5, 5, 5, 5)
    shape = parse_object("<name>n</name><bndbox><xmin>-3</xmin><ymin>-.5</ymin><xmax>5</xmax><ymax>1e4</ymax></bndbox>")
    assert shape.xyxy == (-3, -0.5, 5, 10000.0)


@pytest.mark.parametrize(
    ("xml", "size"),
    [
        ("", None),
        ("<size/>", None),
        ("<size><width>0</width><height>0</height><depth>0</depth></size>", None),
        ("<size><width>64</width><height>48</height></size>", (64, 48, 3)),
        ("<size><width>64</width><height>48</height><depth/></size>", (64, 48, 3)),
        ("<size><width>64.0</width><height> 48 </height><depth>1</depth></size>", (64, 48, 1)),
    ],
)
def test_sizes(xml: str, size: tuple[int, int, int] | None) -> None:
    xml = f"<annotation>{xml}<object><name>n</name>{BOX}</object></annotation>"
    assert parse(xml).size == size
    check_identity(xml)


def test_a_bad_size_is_a_failure_and_the_objects_are_kept() -> None:
    xml = f"<annotation><size><width>wide</width></size><object><name>n</name>{BOX}</object></annotation>".encode()
    drawing, failures = parse_voc(xml, "a.xml")
    assert failures == (Failure("a.xml", "annotation", "a.xml: size must have a number as width, got 'wide'"),)
    assert drawing.size is None and len(drawing.shapes) == 1
    assert outline(format_voc(drawing)) == outline(xml)
    assert b"<width>64</width>" in format_voc(replace(drawing, size=(64, 48, 3)))


@pytest.mark.parametrize("width", ["2147483648", "9" * 20, "1e300"])
def test_no_image_is_that_large(width: str) -> None:
    xml = f"<annotation><size><width>{width}</width><height>48</height></size></annotation>".encode()
    drawing, (failure,) = parse_voc(xml, "a.xml")
    assert drawing.size is None and "size must be at most 2147483647, got" in failure.reason
    assert outline(format_voc(drawing)) == outline(xml)


@pytest.mark.parametrize(
    "xml",
    [
        "<annotation/>",
        "<annotation verified='no'><path>/home/a b</path></annotation>",
        "<annotation><owner><name>x</name><flickrid>y</flickrid></owner></annotation>",
        "<annotation><url>1</url><note/><url>2</url><note>x</note></annotation>",
        "<annotation><filename>a.jpg</filename><filename>b.jpg</filename></annotation>",
        "<annotation><filename lang='en'> a.jpg </filename></annotation>",
        "<annotation><note>one <b>two</b> <i>three</i> four</note></annotation>",
        "<annotation><s:x xmlns:s='http://s' s:y='1' xml:lang='en'/></annotation>",
        "<annotation><note a='&quot;&lt;&#10;&#9;'>&lt;&amp;&gt;&#13;\n</note></annotation>",
    ],
)
def test_what_is_not_understood_or_spelled_differently_comes_back(xml: str) -> None:
    check_identity(xml)


@pytest.mark.parametrize(
    "inside",
    [
        f"<attributes/><name>n</name>{BOX}<layer z='1'>2</layer>",
        f"<name> n </name>{BOX}<confidence>0.90</confidence>",
        f"<name lang='en'>n</name>{BOX}<confidence/><hard-coefficient> 1 </hard-coefficient>",
        f"<name>n</name>{BOX}<pose/><hard-reasons/><property/>",
        f"<name>n</name>{BOX}<property>text</property>",
        f"<name>n</name>{BOX}<property><цвет a='1'>x</цвет></property>",
        f"<name>n</name>{BOX}<property><a>1</a></property><property><a>2</a></property>",
        f"<name>n</name>{BOX}<part><name>a</name>{BOX}</part><part><name>b</name>{BOX}</part>",
        f"<part id='1'><name> a</name>{BOX}<note/></part><name>n</name><note/>{BOX}<part><name>b</name>{BOX}</part>",
        "<name>n</name><bndbox unit='px'><z/><xmin>1.50</xmin><ymin>+2</ymin><xmax>3</xmax><ymax>4</ymax></bndbox>",
        "<name>n</name><circle><cx>5</cx><note/><cy>6</cy><r> 7</r></circle>",
    ],
)
def test_objects_with_more_in_them_come_back(inside: str) -> None:
    check_identity(f"<annotation><object id='3'>{inside}</object></annotation>")


def test_extra_is_plain_data() -> None:
    xml = "<annotation a='1'><b>x</b><c d='2'><e/></c><f>1</f><f>2</f></annotation>"
    assert parse(xml).extra == {"@a": "1", "b": "x", "c": {"@d": "2", "e": ""}, "f": ["1", "2"]}
    mixed = parse("<annotation><u>1</u><v>2</v><u>3</u></annotation>")
    assert mixed.extra == {"#children": [["u", "1"], ["v", "2"], ["u", "3"]]}


def test_a_changed_value_replaces_its_spelling() -> None:
    shape = parse_object(f"<name> n </name>{BOX}<confidence>0.90</confidence>")
    assert shape.confidence == 0.9
    assert b"<confidence>0.90</confidence>" in format_voc(Drawing((shape,)))
    assert b"<confidence>0.3</confidence>" in format_voc(Drawing((replace(shape, confidence=0.3),)))
    assert b"<name>m</name>" in format_voc(Drawing((replace(shape, name="m"),)))
    assert b"confidence" not in format_voc(Drawing((replace(shape, confidence=None),)))


def test_a_shape_that_becomes_another_kind_has_one_shape() -> None:
    shape = parse_object(
        "<name>n</name><polygon><x0>0</x0><y0>0</y0><x1>9</x1><y1>0</y1><x2>9</x2><y2>9</y2></polygon>"
    )
    assert "polygon" in shape.extra  # numbered from 0, we would from 1
    box = replace(shape, kind="bndbox", points=((0, 0), (9, 9)))
    assert parse_voc(format_voc(Drawing((box,))), "a.xml")[0].shapes[0].xyxy == (0, 0, 9, 9)


@pytest.mark.parametrize(
    "properties",
    [
        {"color": "red", "note": " <&>\r\n"},
        {"@modelarts:shape": "bndbox", "two words": "x", "1st": "y", "": "z"},
        {"n": 3, "flag": True, "none": None, "list": [1, [2]], "nested": {"a": {"b": "c"}, "d": []}},
        {"repeated": ["a", "b"], "single": ["a"], "empty": [], "deep": {"x": {"y": "z"}}},
        {"control": "\x00\x0b", "#text": "t", "@a": "b", "#children": "c", "labelengine-json": "d"},
    ],
)
def test_every_property_is_written(properties: dict[str, Any]) -> None:
    drawing = Drawing((Shape("n", "bndbox", POINTS, property=properties),))
    assert parse_voc(format_voc(drawing), "a.xml") == (drawing, ())


def test_properties_are_elements_where_that_is_possible() -> None:
    drawing = Drawing((Shape("n", "bndbox", POINTS, property={"color": "red", "@modelarts:n": 3}),))
    written = format_voc(drawing)
    assert b"<color>red</color>" in written
    assert b'<labelengine-json>{"@modelarts:n": 3}</labelengine-json>' in written


def test_added_properties_leave_the_others() -> None:
    shape = parse_object(f"<name>n</name>{BOX}<property>text</property>")
    drawing = Drawing((replace(shape, property={**shape.property, "added": "x"}),))
    (again,) = parse_voc(format_voc(drawing), "a.xml")[0].shapes
    assert again.property == {"#text": "text", "added": "x"}


def test_thousands_of_objects() -> None:
    shapes = tuple(Shape(f"n{i}", "bndbox", ((i, 0), (i + 1, 1))) for i in range(5000))
    assert parse_voc(format_voc(Drawing(shapes)), "a.xml") == (Drawing(shapes), ())


# --- by force

texts = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=8)
filled = texts.map(str.strip).filter(bool)
coordinates = st.integers(-(2**40), 2**40) | st.floats(allow_nan=False, allow_infinity=False)
units = st.none() | st.floats(0, 1)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=4,
)


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    kind = draw(st.sampled_from(list(SHAPE_POINTS)))
    least, most = SHAPE_POINTS[kind]
    points = draw(st.lists(st.tuples(coordinates, coordinates), min_size=least, max_size=most or least + 9))
    if kind == "circle":
        points[1:] = [(abs(points[1][0]),)]
    if kind == "bndbox":
        (x1, x2), (y1, y2) = sorted((points[0][0], points[1][0])), sorted((points[0][1], points[1][1]))
        points = [(x1, y1), (x2, y2)]
    optional = {
        name: draw(st.none() | texts.map(str.strip)) for name in ("pose", "truncated", "occluded", "mask_color")
    }
    return Shape(
        draw(filled),
        kind,
        tuple(points),
        confidence=draw(units),
        hard_coefficient=draw(units),
        hard_reasons=tuple(draw(st.lists(st.integers(0, 30), max_size=3))),
        property=draw(st.dictionaries(texts, json_values, max_size=3)),
        **optional,
    )


@given(st.lists(shapes(), max_size=3), st.lists(shapes(), max_size=2))
def test_write_read_is_the_identity(found: list[Shape], parts: list[Shape]) -> None:
    whole = tuple(replace(shape, parts=tuple(parts)) for shape in found)
    drawing = Drawing(whole, size=(640, 480, 3), filename="a.jpg")
    assert parse_voc(format_voc(drawing), "a.xml") == (drawing, ())


TAGS = (
    "name pose size width height object part bndbox polygon xmin ymin xmax ymax x1 y1 property confidence folder note b"
)
tags = st.sampled_from([*TAGS.split(), "hard-reasons", "labelengine-json"])
contents = st.sampled_from(["", " ", "1", "2.50", "-3", "x", "3-20", "{}", '{"a":1}', " cat ", "0.5"])


def element(
    tag: str, text: str, attributes: dict[str, str], children: list[ElementTree.Element]
) -> ElementTree.Element:
    made = ElementTree.Element(tag, attributes)
    made.text = text
    made.extend(children)
    return made


trees = st.recursive(
    st.builds(element, tags, contents, st.just({}), st.just([])),
    lambda inner: st.builds(
        element, tags, st.sampled_from(["", "mixed"]), st.sampled_from([{}, {"id": "1"}]), st.lists(inner, max_size=6)
    ),
    max_leaves=25,
)


@given(st.lists(trees, max_size=6))
def test_any_xml_at_all_comes_back(children: list[ElementTree.Element]) -> None:
    """Broken objects included: whatever the file holds, nothing of it is lost."""
    xml = ElementTree.tostring(element("annotation", "", {}, children))
    drawing, failures = parse_voc(xml, "a.xml")
    written = format_voc(drawing)
    assert outline(written, ordered=False) == outline(xml, ordered=False)
    again, still = parse_voc(written, "a.xml")
    assert again == drawing and len(still) == len(failures)


# --- errors


@pytest.mark.parametrize(
    ("inside", "message"),
    [
        (f"<name>cat</name>{BOX}<point><x>1</x><y>2</y></point>", "object 2 ('cat'): must have one shape of"),
        (f"<name>cat</name>{BOX}{BOX}", "got bndbox, bndbox"),
        ("<name>cat</name>", "got none"),
        (BOX, "object 2 (no name): name must be given"),
        (f"<name> </name>{BOX}", "name must be given"),
        (f"<name>a</name><name>b</name>{BOX}", "name must be given once, got 2"),
        ("<name>cat</name><bndbox><xmin>1</xmin></bndbox>", "bndbox must have xmin, ymin, xmax, ymax, got no ymin"),
        (f"<name>cat</name>{BOX.replace('30', 'x')}", "bndbox must have a number as xmax, got 'x'"),
        (f"<name>cat</name>{BOX.replace('30', 'nan')}", "bndbox must have a number as xmax, got 'nan'"),
        (f"<name>cat</name>{BOX.replace('30', '1e999')}", "bndbox must have a number as xmax"),
        (f"<name>cat</name>{BOX.replace('30', '9' * 5000)}", "bndbox must have a number as xmax"),
        (f"<name>cat</name>{BOX.replace('<xmin>', '<xmin>3</xmin><xmin>')}", "bndbox must have one xmin, got several"),
        ("<name>cat</name><circle><cx>1</cx><cy>1</cy><r>-1</r></circle>", "circle must have r >= 0, got -1"),
        ("<name>cat</name><line><x1>1</x1><y1>1</y1></line>", "a line needs 2 points, got 1"),
        ("<name>cat</name><polygon><x1>1</x1><x2>1</x2><y1>1</y1></polygon>", "polygon must have x2, y2, got no y2"),
        ("<name>cat</name><polygon/>", "a polygon needs at least 3 points, got 0"),
        (
            f"<name>cat</name>{BOX}<confidence>1.3</confidence>",
            "object 2 ('cat'): confidence must be in [0, 1], got 1.3",
        ),
        (f"<name>cat</name>{BOX}<confidence>high</confidence>", "confidence must be a number, got 'high'"),
        (f"<name>cat</name>{BOX}<hard-reasons>3,20</hard-reasons>", "hard-reasons must be numbers joined by '-'"),
        (f"<name>cat</name>{BOX}<part>{BOX}</part>", "part 1: name must be given, got nothing"),
        (f"<name>cat</name>{BOX}<part><name>a</name>{BOX}</part><part/>", "part 2: must have one shape"),
    ],
)
def test_one_broken_object(inside: str, message: str) -> None:
    assert message in fail_object(inside)


BOMB = """<?xml version="1.0"?><!DOCTYPE annotation [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]>
<annotation><filename>&b;</filename></annotation>"""
OUTSIDE = """<?xml version="1.0"?><!DOCTYPE annotation [<!ENTITY a SYSTEM "file:///etc/passwd">]>
<annotation><filename>&a;</filename></annotation>"""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (BOMB.encode(), "must be XML without entities of its own"),
        (OUTSIDE.encode(), "must be XML without entities of its own"),
        (b"", "must be well-formed XML, got no element found"),
        (b"\x89PNG\r\n", "must be well-formed XML"),
        (b"<annotation><object></annotation>", "must be well-formed XML, got mismatched tag"),
        ("<annotation><filename>é</filename></annotation>".encode("latin-1"), "must be well-formed XML"),
        (b'<?xml version="1.0" encoding="klingon"?><annotation/>', "must be well-formed XML"),
        (b"<html/>", "must hold an <annotation>, got <html>"),
        (b"<annotation>" + b"<a>" * 5000 + b"</a>" * 5000 + b"</annotation>", "nested at most 100 deep"),
    ],
)
def test_files_that_are_not_voc(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    path.write_bytes(content)
    with pytest.raises(VocError) as caught:
        read_voc(path)
    assert str(caught.value).startswith(f"{path}: ") and message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
def test_declared_encodings(encoding: str) -> None:
    name = encoding.removesuffix("-sig")
    xml = f'<?xml version="1.0" encoding="{name}"?><annotation><filename>é.jpg</filename></annotation>'
    assert parse_voc(xml.encode(encoding), "a.xml") == (Drawing((), filename="é.jpg"), ())


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing.xml"):
        with pytest.raises(VocError, match=rf"{path}: cannot be read: "):
            read_voc(path)


def test_what_is_no_file_or_has_no_end_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe.xml")
    for path in (Path("/dev/zero"), tmp_path / "pipe.xml"):
        with pytest.raises(VocError, match=f"{path}: cannot be read: it is not a regular file"):
            read_voc(path)
    monkeypatch.setattr("engine.voc._MOST_BYTES", 20)
    (tmp_path / "large.xml").write_text("<annotation></annotation>")
    with pytest.raises(VocError, match=r"large\.xml: must have at most 20 bytes, got more"):
        read_voc(tmp_path / "large.xml")


def test_files_both_ways(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "a.xml"
    write_voc(path, FULL_DRAWING)
    assert read_voc(path) == (FULL_DRAWING, ())
    assert [file.name for file in path.parent.iterdir()] == ["a.xml"]


@pytest.mark.parametrize(
    ("drawing", "message"),
    [
        (Drawing((Shape("", "bndbox", POINTS),)), "name of a shape must be given"),
        (Drawing((Shape("a\x00", "bndbox", POINTS),)), "control characters"),
        (Drawing((Shape("a", "bndbox", ((0, 0), (1, math.nan))),)), "must be finite, got nan"),
        (Drawing((Shape("a", "bndbox", POINTS, property={"x": math.inf}),)), "JSON"),
        (Drawing((Shape("a", "bndbox", POINTS, property={"x": object()}),)), "JSON"),
        (Drawing((), extra={"a b": "x"}), "a tag must be an XML name, got 'a b'"),
    ],
)
def test_what_xml_cannot_hold_is_not_written(drawing: Drawing, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    with pytest.raises(OutputError) as caught:
        write_voc(path, drawing)
    assert str(caught.value).startswith(f"{path}: ") and message in str(caught.value)
    assert not list(tmp_path.iterdir())
