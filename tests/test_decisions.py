"""Decisions as JSON lines and CSV: what comes back, what is refused and where, and which samples are meant."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.decisions import Names, read_decisions, read_sources, write_decisions, write_labels
from engine.errors import InputError, OutputError
from engine.samples import IMAGE_CLASSIFICATION, OBJECT_DETECTION, Label, Sample
from engine.sources import Sources

ODD = {
    "a/1.jpg": ("cat",),
    "b, c.jpg": ("dog, small", 'the "big" one'),
    "new\nline.jpg": ("two\nlines", "carriage\rreturn", "both\r\n"),
    "straße 🐈.jpg": ("猫 🐈", "\u2028 separated"),
    "none.jpg": (),
    " spaces .jpg ": (" x ",),
    "not utf-8 \udcff.jpg": ("half \udc80",),
    "zero.jpg": ("null", "[]", "0"),
    "=1+1": ("source", "label"),
}


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


# ---- there and back


@pytest.mark.parametrize("name", ["decisions.jsonl", "labels.csv", "LABELS.CSV"])
def test_what_is_written_is_read(tmp_path: Path, name: str) -> None:
    write_decisions(tmp_path / name, ODD)
    found = read_decisions(tmp_path / name)
    assert dict(found) == ODD
    assert list(found) == list(ODD), "in the order of the file"


TEXT = st.text(st.characters(exclude_characters="\x00"), min_size=1).filter(str.strip)


@given(st.dictionaries(TEXT, st.lists(TEXT, unique=True, max_size=3)), st.sampled_from(["x.jsonl", "x.csv"]))
def test_any_text_comes_back(
    tmp_path_factory: pytest.TempPathFactory, decided: dict[str, list[str]], name: str
) -> None:
    path = tmp_path_factory.getbasetemp() / name
    write_decisions(path, decided)
    assert {source: list(labels) for source, labels in read_decisions(path).items()} == decided


def test_nothing_decided(tmp_path: Path) -> None:
    for name in ("x.jsonl", "x.csv"):
        write_decisions(tmp_path / name, {})
        assert dict(read_decisions(tmp_path / name)) == {}


def test_what_cannot_be_read_again_is_not_written(tmp_path: Path) -> None:
    for decided in ({"": ["cat"]}, {"a.jpg": [" "]}, {"a.jpg": ["cat", ""]}):
        for name in ("x.jsonl", "x.csv"):
            with pytest.raises(OutputError, match="source and labels must not be blank"):
                write_decisions(tmp_path / name, decided)
    assert list(tmp_path.iterdir()) == []


# ---- as others write them


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_byte_order_marks_and_line_ends(tmp_path: Path, mark: bytes, end: bytes) -> None:
    lines = [b'{"source": "a.jpg", "label": "cat"}', b"", b'{"source": "b.jpg", "labels": [], "by": "anna"}']
    path = write(tmp_path / "x.jsonl", mark + end.join(lines))
    assert dict(read_decisions(path)) == {"a.jpg": ("cat",), "b.jpg": ()}
    assert read_decisions(path).place("b.jpg") == f"{path}:3"
    rows = [b"source,label,confidence,annotated_by", b"a.jpg,cat,0.9,modelarts/active-learning", b"", b"b.jpg,", b""]
    path = write(tmp_path / "x.csv", mark + end.join(rows))
    assert dict(read_decisions(path)) == {"a.jpg": ("cat",), "b.jpg": ()}
    assert read_decisions(path).place("b.jpg") == f"{path}:4"


def test_several_labels(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", "Label, Source\ncat,a.jpg\ndog,b.jpg\ndog,a.jpg\ncat,a.jpg\n")
    assert dict(read_decisions(path)) == {"a.jpg": ("cat", "dog"), "b.jpg": ("dog",)}
    path = write(tmp_path / "x.jsonl", '{"source": "a.jpg", "labels": ["cat", "dog", "cat"]}')
    assert dict(read_decisions(path)) == {"a.jpg": ("cat", "dog")}


def test_null_is_none_of_them(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", '{"source": "a", "label": null}\n{"source": "b", "labels": null}\n')
    assert dict(read_decisions(path)) == {"a": (), "b": ()}


def test_the_same_twice_is_no_contradiction(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", '{"source": "a", "labels": ["x", "y"]}\n{"source": "a", "labels": ["y", "x"]}\n')
    assert dict(read_decisions(path)) == {"a": ("x", "y")}
    path = write(tmp_path / "x.csv", "source,label\na,\na,\n")
    assert dict(read_decisions(path)) == {"a": ()}


# ---- what is refused: file, line, expected, got


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('{"source": "a", "label": "x"}\n{"source": "a",', ':2: must be one JSON object, got \'{"source": "a",\''),
        ("[1]", ":1: must be one JSON object, got [1]"),
        ('\n\n{"label": "x"}', ":3: source: must be a path or URI, got the keys ['label']"),
        ('{"source": 5, "label": "x"}', ":1: source: must be a path or URI, got 5"),
        ('{"source": "", "label": "x"}', ":1: source: must be a path or URI, got ''"),
        (
            '{"source": "a", "lable": "x"}',
            ':1: must have "labels" (or "label") beside "source", got the keys [\'lable\', \'source\']',
        ),
        ('{"source": "a", "label": "x", "labels": []}', ":1: must have"),
        ('{"source": "a", "labels": "x"}', ":1: labels: must be a list of strings, [] for none, got 'x'"),
        ('{"source": "a", "labels": ["x", 5]}', ":1: labels: must be a list of strings, [] for none, got ['x', 5]"),
        ('{"source": "a", "label": ["x"]}', ":1: label: must be a string, or null for none, got ['x']"),
        ('{"source": "a", "label": " "}', ":1: label: must not be blank, got ' '"),
        (b'{"source": "a", "label": "x"}\n{"source": "\xff"}', ":2: must be UTF-8, got byte 0xff"),
        ("[" * 100_000, ":1: must be one JSON object, got '[[["),
        (
            '{"source": "a", "label": "x"}\n\n{"source": "a", "label": null}',
            ":3: must say the same of 'a' as line 1, 'x', got no label",
        ),
    ],
)
def test_bad_json_lines(tmp_path: Path, content: str | bytes, told: str) -> None:
    path = write(tmp_path / "x.jsonl", content)
    with pytest.raises(InputError) as error:
        read_decisions(path)
    assert str(error.value).startswith(f"{path}{told}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", ":1: must begin with a header of the columns source and label, got nothing"),
        ("a.jpg,cat\n", ":1: must begin with a header of the columns source and label, got 'a.jpg,cat'"),
        ("source;label\n", ":1: must begin with a header of the columns source and label, got 'source;label'"),
        ("source,label,label\n", ":1: must begin with a header"),
        ("source,label\na.jpg,cat, small\n", ":2: must have 2 columns as the header, got 3"),
        ('source,label\n"a\nb",x\n\na.jpg\n', ":5: must have the columns source and label, got 1 columns"),
        ("source,label\n,cat\n", ":2: source: must not be empty, got ''"),
        ("source,label\na,  \n", ":2: label: must not be blank, got '  '"),
        ('source,label\na,"x\nb,y\n', ":2: must be CSV, is not: "),
        (b"source,label\na,x\nb,\xff\n", ":3: must be UTF-8, got byte 0xff"),
        ("source,label\na,\nb,x\na,x\n", ":4: must say the same of 'a' as line 2, no label, got 'x'"),
    ],
)
def test_bad_csv(tmp_path: Path, content: str | bytes, told: str) -> None:
    path = write(tmp_path / "x.csv", content)
    with pytest.raises(InputError) as error:
        read_decisions(path)
    assert str(error.value).startswith(f"{path}{told}")
    assert "\n" not in str(error.value)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing.csv", tmp_path):
        with pytest.raises(InputError, match="cannot be read: "):
            read_decisions(path)


# ---- lists of sources


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.txt", "a, b.jpg\n\nc.jpg\r\na, b.jpg\n"),
        ("x.csv", 'n,source\n1,"a, b.jpg"\n\n2,c.jpg\n'),
        ("x.jsonl", '{"source": "a, b.jpg"}\n\n{"source": "c.jpg", "labels": []}\n'),
        ("x.manifest", '{"source": "a, b.jpg", "annotation": []}\n\n{"source": "c.jpg"}\n'),
    ],
)
def test_sources_and_their_lines(tmp_path: Path, name: str, content: str) -> None:
    assert read_sources(write(tmp_path / name, content)) == {
        "a, b.jpg": 1 + (name == "x.csv"),
        "c.jpg": 3 + (name == "x.csv"),
    }


# ---- labels.csv


def test_labels_of_samples(tmp_path: Path) -> None:
    def label(name: str, **more: object) -> Label:
        return Label(type=IMAGE_CLASSIFICATION, name=name, **more)  # type: ignore[arg-type]

    machine = {"annotated_by": "modelarts/active-learning"}
    samples = [
        Sample("a.jpg", (label("cat, big", confidence=0.876543219, **machine),)),
        Sample("b.jpg", (label("cat"), label("dog", annotated_by="human/anna"), label("no", **machine))),
        Sample("c.jpg", (Label(type=OBJECT_DETECTION, annotation_loc="c.xml"),)),
    ]
    write_labels(tmp_path / "labels.csv", samples)
    assert (tmp_path / "labels.csv").read_text() == (
        "source,label,confidence,annotated_by\n"
        'a.jpg,"cat, big",0.876543,modelarts/active-learning\n'
        "b.jpg,cat,,human\n"
        "b.jpg,dog,,human/anna\n"
        "c.jpg,,,\n"
    )
    found = read_decisions(tmp_path / "labels.csv")
    assert dict(found) == {"a.jpg": ("cat, big",), "b.jpg": ("cat", "dog"), "c.jpg": ()}


# ---- which samples are meant


def test_sources_are_found_exactly_by_path_and_by_name(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "a", target_is_directory=True)
    names = Names(["a/1.jpg", "b/2.jpg", "a/1.jpg", "s3://x/3.jpg"], Sources(tmp_path))

    def find(source: str) -> list[int]:
        return names.find({source: "here:1"}, Path("m"))[source]

    assert find("a/1.jpg") == [0, 2]
    assert find(str(tmp_path / "a" / "1.jpg")) == [0, 2]
    assert find("link/1.jpg") == [0, 2]
    assert find("2.jpg") == [1]
    assert find("3.jpg") == [3]


def test_sources_that_mean_nothing_or_several(tmp_path: Path) -> None:
    names = Names([f"{folder}/{n}.jpg" for folder in "ab" for n in range(9)], Sources(tmp_path))
    with pytest.raises(InputError) as error:
        names.find({"1.jpg": "f:1", "c/2.jpg": "f:2", "a/1.jpg": "f:3"}, Path("result.manifest"))
    assert str(error.value).splitlines() == [
        "f:1: must be the source of one image, got '1.jpg': 'a/1.jpg', 'b/1.jpg'",
        "f:2: must be a source in result.manifest, got 'c/2.jpg'",
    ]
    with pytest.raises(InputError) as error:
        names.find({f"c/{n}.jpg": f"f:{n}" for n in range(8)}, Path("m"))
    assert len(str(error.value).splitlines()) == 6
    assert str(error.value).splitlines()[-1] == "and 3 more"
