"""What people decided about automatic labels, outside a manifest: decisions.jsonl and labels.csv, in and out.

    decisions.jsonl     {"source": "a/1.jpg", "labels": ["cat"]}, one object a line; `"label": "cat"` is read too
    labels.csv          source,label[,confidence,annotated_by]; several lines for one source are several labels

In and out: source -> labels, in the order of the file; no label means that none is right ([], null, an empty cell).
Both are UTF-8, with or without a byte order mark, with any line end; a label may hold any text that is not blank. Which
samples of a data set a written source means is found out here too (`Names`). Knows nothing of images.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from engine.errors import ImageError, InputError, OutputError
from engine.files import as_json, write_bytes
from engine.samples import IMAGE_CLASSIFICATION, Label, Sample
from engine.sources import Sources

CSV: Final = ".csv"
COLUMNS: Final = ("source", "label", "confidence", "annotated_by")

_BOM: Final = b"\xef\xbb\xbf"
_CLIP: Final = 60  # characters of a bad value that a message shows
_MOST_PROBLEMS: Final = 5  # sources that are not found, in one error
#: Half a surrogate pair is how Python spells file names that are not UTF-8; these bytes come back as they went.
_SURROGATES: Final = "surrogatepass"


@dataclass(frozen=True, slots=True, eq=False)
class Decisions(Mapping[str, tuple[str, ...]]):
    """Labels by source, in order; () where none is right. lines: of the file that each source was read from."""

    labels: Mapping[str, tuple[str, ...]]
    path: str = "decisions"
    lines: Mapping[str, int] = field(default_factory=dict)

    def __getitem__(self, source: str) -> tuple[str, ...]:
        return self.labels[source]

    def __iter__(self) -> Iterator[str]:
        return iter(self.labels)

    def __len__(self) -> int:
        return len(self.labels)

    def place(self, source: str) -> str:
        """`decisions.jsonl:17`, for messages."""
        return f"{self.path}:{self.lines[source]}" if source in self.lines else self.path


# ---- Reading. ----


def read_decisions(path: Path) -> Decisions:
    """The decisions in a file: CSV if its name ends in .csv, else JSON lines.

    A label that is given twice counts once. Raises InputError, one line that names file and line, for what is no such
    file, and for a source with two decisions that contradict each other.
    """
    content = _read(path)
    decided = _csv_decisions(content, path) if _is_csv(path) else _json_decisions(content, path)
    labels: dict[str, tuple[str, ...]] = {}
    lines: dict[str, int] = {}
    for line, source, given in decided:
        place = f"{path}:{line}"
        if source not in labels:
            labels[source], lines[source] = given, line
        elif _is_csv(path) and given and labels[source]:
            labels[source] = tuple(dict.fromkeys((*labels[source], *given)))
        elif set(given) != set(labels[source]):
            raise InputError(
                f"{place}: must say the same of {_clip(source)} as line {lines[source]}, {_told(labels[source])}, "
                f"got {_told(given)}"
            )
    return Decisions(labels, str(path), lines)


def read_sources(path: Path) -> dict[str, int]:
    """The sources that a file names, each with its line: the column `source` of a .csv, the `source` of each object of
    a .jsonl or .manifest, else one a line. Raises InputError as `read_decisions`."""
    content = _read(path)
    found: Iterable[tuple[int, str]]
    if _is_csv(path):
        found = ((line, row["source"]) for line, row in _rows(content, path, ("source",)))
    elif path.suffix.lower() in (".jsonl", ".manifest"):
        found = ((line, _source(record, f"{path}:{line}")) for line, record in _objects(content, path))
    else:
        found = ((line, text) for line, text in _lines(content, path) if text.strip())
    sources: dict[str, int] = {}
    for line, source in found:
        sources.setdefault(source, line)
    return sources


def _json_decisions(content: bytes, path: Path) -> Iterator[tuple[int, str, tuple[str, ...]]]:
    for line, record in _objects(content, path):
        place = f"{path}:{line}"
        source = _source(record, place)
        keys = [key for key in ("labels", "label") if key in record]
        if len(keys) != 1:
            got = "both" if keys else f"the keys {_clip(sorted(record))}"
            raise InputError(f'{place}: must have "labels" (or "label") beside "source", got {got}')
        yield line, source, _given(record[keys[0]], keys[0], place)


def _given(value: Any, key: str, place: str) -> tuple[str, ...]:
    if value is None:
        return ()
    names = value if key == "labels" else [value]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        wanted = "a list of strings, [] for none" if key == "labels" else "a string, or null for none"
        raise InputError(f"{place}: {key}: must be {wanted}, got {_clip(value)}")
    return tuple(dict.fromkeys(_checked(name, place) for name in names))


def _csv_decisions(content: bytes, path: Path) -> Iterator[tuple[int, str, tuple[str, ...]]]:
    for line, row in _rows(content, path, ("source", "label")):
        yield line, row["source"], (_checked(row["label"], f"{path}:{line}"),) if row["label"] else ()


def _checked(name: str, place: str) -> str:
    if not name.strip():
        raise InputError(f"{place}: label: must not be blank, got {name!r}")
    return name


def _rows(content: bytes, path: Path, needed: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a CSV file by column, each with its first line; what stands in other columns than `needed` is left
    alone."""
    reader = csv.reader(io.StringIO(_decoded(content, path, 1), newline=""), strict=True)
    wanted = " and ".join(needed)
    columns: list[str] | None = None
    line = 1
    while True:
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise InputError(f"{path}:{line}: must be CSV, is not: {error}") from None
        if row is None:
            break
        place = f"{path}:{line}"
        if row and columns is None:
            columns = [name.strip().lower() for name in row]
            if any(columns.count(name) != 1 for name in needed):
                raise InputError(
                    f"{place}: must begin with a header of the columns {wanted}, got {_clip(','.join(row))}"
                )
        elif row and columns is not None:
            if len(row) > len(columns):
                raise InputError(
                    f"{place}: must have {len(columns)} columns as the header, got {len(row)} "
                    "(text with a comma needs quotes)"
                )
            cells = dict(zip(columns, row, strict=False))
            for name in needed:
                if name not in cells:
                    raise InputError(f"{place}: must have the columns {wanted}, got {len(row)} columns")
            if not cells["source"]:
                raise InputError(f"{place}: source: must not be empty, got ''")
            yield line, cells
        line = reader.line_num + 1
    if columns is None:
        raise InputError(f"{path}:1: must begin with a header of the columns {wanted}, got nothing")


def _objects(content: bytes, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, text in _lines(content, path):
        if text.strip():
            try:
                record = json.loads(text)
            except (ValueError, RecursionError) as error:
                why = f"{error.msg} at character {error.pos + 1}" if isinstance(error, json.JSONDecodeError) else "it"
                raise InputError(f"{path}:{line}: must be one JSON object, got {_clip(text)}: {why}") from None
            if not isinstance(record, dict):
                raise InputError(f"{path}:{line}: must be one JSON object, got {_clip(record)}")
            yield line, record


def _source(record: Mapping[str, Any], place: str) -> str:
    source = record.get("source")
    if not isinstance(source, str) or not source:
        got = _clip(source) if "source" in record else f"the keys {_clip(sorted(record))}"
        raise InputError(f"{place}: source: must be a path or URI, got {got}")
    return source


def _lines(content: bytes, path: Path) -> Iterator[tuple[int, str]]:
    """The lines, without their ends; only \\n and \\r\\n end one, for JSON and names may hold other separators."""
    for line, text in enumerate(content.split(b"\n"), 1):
        yield line, _decoded(text.removesuffix(b"\r"), path, line)


def _decoded(content: bytes, path: Path, line: int) -> str:
    try:
        return content.decode("utf-8", _SURROGATES)
    except UnicodeDecodeError as error:
        line += content.count(b"\n", 0, error.start)
        raise InputError(f"{path}:{line}: must be UTF-8, got byte 0x{content[error.start]:02x}") from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes().removeprefix(_BOM)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error


def _is_csv(path: Path) -> bool:
    return path.suffix.lower() == CSV


def _told(labels: Sequence[str]) -> str:
    return _clip(", ".join(labels)) if labels else "no label"


def _clip(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _CLIP else f"{text[:_CLIP]}..."


# ---- Writing. ----


def write_decisions(path: Path, decisions: Mapping[str, Sequence[str]]) -> None:
    """Write labels by source, whole or not at all: CSV if the name ends in .csv, else JSON lines.

    `read_decisions` gives the same back. Raises OutputError when the file cannot be written, or a source is empty, or
    a label blank.
    """
    for source, labels in decisions.items():
        if not source or not all(label.strip() for label in labels):
            raise OutputError(f"{path}: source and labels must not be blank, got {_clip(source)}: {_clip([*labels])}")
    if _is_csv(path):
        rows = ((source, label) for source, labels in decisions.items() for label in labels or ("",))
        write_bytes(path, _as_csv([COLUMNS[:2], *rows]))
    else:
        records = ({"source": source, "labels": list(labels)} for source, labels in decisions.items())
        write_bytes(path, b"".join(as_json(record, indent=False) for record in records))


def write_labels(path: Path, samples: Iterable[Sample]) -> None:
    """Write the image labels of samples as labels.csv, whole or not at all: of each sample what people say, else what
    machines say, a line a label; an empty label where nobody says anything. Raises OutputError."""
    rows = (row for sample in samples for row in _label_rows(sample))
    write_bytes(path, _as_csv([COLUMNS, *rows]))


def _label_rows(sample: Sample) -> Iterator[tuple[str, ...]]:
    mine = image_labels(sample)
    for label in [each for each in mine if each.by_human] or mine:
        confidence = "" if label.confidence is None else f"{label.confidence:.6g}"
        yield sample.source, label.name or "", confidence, label.annotated_by or "human"
    if not mine:
        yield sample.source, "", "", ""


def image_labels(sample: Sample) -> list[Label]:
    """The labels of image classification that a sample has, whoever made them."""
    return [label for label in sample.labels if label.type == IMAGE_CLASSIFICATION]


def _as_csv(rows: Iterable[Sequence[str]]) -> bytes:
    text = io.StringIO()
    write: Callable[[Sequence[str]], object] = csv.writer(text, lineterminator="\n").writerow
    write_quoted: Callable[[Sequence[str]], object] = csv.writer(
        text, lineterminator="\n", quoting=csv.QUOTE_ALL
    ).writerow
    for row in rows:  # a lone \r would not be quoted of itself
        (write_quoted if any("\r" in cell for cell in row) else write)(row)
    return text.getvalue().encode("utf-8", _SURROGATES)


# ---- Which samples are meant. ----


class Names:
    """The sources of a data set, and which of its samples a source means that somebody wrote elsewhere."""

    def __init__(self, sources: Sequence[str], where: Sources) -> None:
        """sources: of the samples, in order. where: how they become paths."""
        self._where = where
        self._sources = sources
        self._by_source: dict[str, list[int]] = {}
        for position, source in enumerate(sources):
            self._by_source.setdefault(source, []).append(position)
        self._by_path: dict[str, list[int]] | None = None
        self._by_name: dict[str, list[str]] = {}
        for source in self._by_source:
            self._by_name.setdefault(file_name(source), []).append(source)

    def by_path(self, path: str | None) -> list[int]:
        """The samples whose image is this file; path: as `real_path` gives it."""
        if self._by_path is None:
            self._by_path = {}
            for source, positions in self._by_source.items():
                if (real := real_path(source, self._where)) is not None:
                    self._by_path.setdefault(real, []).extend(positions)
        return self._by_path.get(path, []) if path is not None else []

    def by_source(self, source: str) -> list[int]:
        """The samples of exactly this source."""
        return self._by_source.get(source, [])

    def by_name(self, source: str) -> list[int]:
        """The samples whose file has the name of this one, if their source is the only such; else none."""
        sources = self._by_name.get(file_name(source), [])
        return self._by_source[sources[0]] if len(sources) == 1 else []

    def find(self, places: Mapping[str, str], what: Path) -> dict[str, list[int]]:
        """The samples that each source means: exactly, or by the path, or (a file name alone) by the name.

        places: source -> where it is written. Raises InputError, a line each, for a source that means no sample of
        `what`, or several.
        """
        found: dict[str, list[int]] = {}
        problems: list[str] = []
        for source, place in places.items():
            positions = self.by_source(source) or self.by_path(real_path(source, self._where))
            if not positions and file_name(source) == source:
                positions = self.by_name(source)
                several = self._by_name.get(source, [])
                if len(several) > 1:
                    named = ", ".join(map(_clip, several[:3])) + (", ..." if len(several) > 3 else "")
                    problems.append(f"{place}: must be the source of one image, got {_clip(source)}: {named}")
                    continue
            if positions:
                found[source] = positions
            else:
                problems.append(f"{place}: must be a source in {what}, got {_clip(source)}")
        if problems:
            more = len(problems) - _MOST_PROBLEMS
            raise InputError("\n".join(problems[:_MOST_PROBLEMS] + [f"and {more:,} more"] * (more > 0)))
        return found


def file_name(source: str) -> str:
    return source.rpartition("/")[2]


def real_path(source: str, where: Sources) -> str | None:
    """Where an image really lies, links followed; None when it is not on this machine."""
    try:
        return os.path.realpath(where.path(source))
    except (ImageError, OSError, ValueError):  # ValueError: a zero byte
        return None
