"""Which samples are meant: search conditions (CreateTask, tables 5 to 8), states and ids, held against samples.

Conditions are joined by OR in an export (table 4), by AND in a listing; the fields of one are joined by AND. What a
label is: a label of the whole sample, or a shape drawn on it. A field that asks for what a sample does not have does
not find it. Nothing is read but the times of files, and those only where they are asked for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from engine.dataset import Dataset
from engine.errors import ImageError, InputError
from engine.samples import HARD_REASONS_KEY, LABEL_TYPES, OBJECT_DETECTION, Label, Sample, Shape
from engine.tasks.schema import SearchCondition, SearchLabel, SearchLabels, SearchProp
from engine.tasks.values import bounds

#: Attributes of the service itself begin so.
OWN: Final = "@modelarts:"
_HARD: Final = f"{OWN}hard"
_COEFFICIENT: Final = f"{OWN}hard_coefficient"
_MOST_UNKNOWN: Final = 5  # ids in one error


def known_id(sample: Sample) -> str:
    """The id of a sample: its own, else 32 hexadecimal digits of its source, the same wherever it is asked for."""
    return sample.id or hashlib.sha256(sample.source.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def matching(
    dataset: Dataset,
    conditions: Sequence[SearchCondition] = (),
    *,
    every: bool = False,
    state: str | None = None,
    ids: Sequence[str] | None = None,
    today: date | None = None,
) -> npt.NDArray[np.int64]:
    """The positions of the samples that meet any of the conditions (with `every`: all of them), that are in a state
    (see `in_state`), and that have one of these ids. What is not given selects nothing away.

    today: for conditions that ask for the last days. Raises InputError for ids that no sample has.
    """
    wanted = None if ids is None else _positions(dataset, ids)
    join = all if every else any
    found = [
        row
        for row, sample in enumerate(dataset.samples)
        if (wanted is None or row in wanted)
        and (state is None or in_state(sample, state))
        and (not conditions or join(_meets(sample, each, dataset, today or date.today()) for each in conditions))
    ]
    return np.array(found, np.int64)


def in_state(sample: Sample, state: str) -> bool:
    """Whether a sample is in a state, one of STATES: ALL is what a person labeled, whatever a team thinks of it."""
    if state == "ALL":
        return any(label.by_human for label in sample.labels)
    return sample.state == state


def _positions(dataset: Dataset, ids: Sequence[str]) -> set[int]:
    place: dict[str, list[int]] = {}
    for row, sample in enumerate(dataset.samples):
        place.setdefault(known_id(sample), []).append(row)
    unknown = [each for each in ids if each not in place]
    if unknown:
        more = f" and {len(unknown) - _MOST_UNKNOWN:,} more" if len(unknown) > _MOST_UNKNOWN else ""
        raise InputError(
            f"samples: must be ids of samples of {dataset.name}, got {', '.join(unknown[:_MOST_UNKNOWN])}{more}"
        )
    return {row for each in ids for row in place[each]}


def _meets(sample: Sample, condition: SearchCondition, dataset: Dataset, today: date) -> bool:
    for name, value in condition:
        if value is not None and not _FIELDS[name](_Asked(sample, dataset, today), value):
            return False
    return True


@dataclass(frozen=True, slots=True)
class _Asked:
    sample: Sample
    dataset: Dataset
    today: date


@dataclass(frozen=True, slots=True)
class Mark:
    """One label of a sample, of the whole or of a shape. type: its number in the task API, -1 for others. property: as
    answers have it. author: of `annotated-by`, None for a person whose name is not said."""

    name: str
    type: int
    property: Mapping[str, Any]
    score: float | None
    author: str | None


def marks_of(sample: Sample) -> Iterator[Mark]:
    """Everything that is said of a sample, in order; a drawing of nothing says nothing."""
    for label in sample.labels:
        number = LABEL_TYPES.get(label.type, -1)
        if label.drawing is not None:
            for shape in label.drawing.shapes:
                yield Mark(shape.name, number, shape_property(shape), shape.confidence, label.annotated_by)
        else:
            yield Mark(label.name or "", number, label_property(label), label.confidence, label.annotated_by)


# ---- Attributes, as answers show them. ----


def metadata_of(sample: Sample) -> dict[str, Any]:
    """The attributes of a sample as answers have them."""
    found = {"@modelarts:import_origin": 0, **sample.property}
    if sample.hard is not None:
        found[_HARD] = sample.hard
    if sample.hard_coefficient is not None:
        found[_COEFFICIENT] = sample.hard_coefficient
    return found


def label_property(label: Label) -> dict[str, Any]:
    """The attributes of a label of the whole sample as answers have them, what is doubtful about it among them."""
    found = dict(label.property)
    if label.hard is not None:
        found[_HARD] = "true" if label.hard else "false"
    if label.hard_coefficient is not None:
        found[_COEFFICIENT] = str(label.hard_coefficient)
    return found


def shape_property(shape: Shape) -> dict[str, Any]:
    """The attributes of a shape as answers have them, its form and points among them."""
    found: dict[str, Any] = {
        **shape.property,
        f"{OWN}shape": shape.kind,
        f"{OWN}feature": [list(point) for point in shape.points],
    }
    if shape.hard_coefficient is not None:
        found[_COEFFICIENT] = str(shape.hard_coefficient)
        found.setdefault(_HARD, "true" if shape.hard_reasons else "false")
    if shape.hard_reasons:
        found[HARD_REASONS_KEY] = "-".join(map(str, shape.hard_reasons))
    return found


# ---- Fields of a condition. ----


def _hard(asked: _Asked, wanted: bool) -> bool:
    return bool(asked.sample.hard) == wanted


def _coefficient(asked: _Asked, wanted: str) -> bool:
    found = asked.sample.hard_coefficient
    return found is not None and bounds(wanted).hold(found)


def _score(asked: _Asked, wanted: str) -> bool:
    return any(mark.score is not None and bounds(wanted).hold(mark.score) for mark in marks_of(asked.sample))


def _labels(asked: _Asked, wanted: SearchLabels) -> bool:
    if not wanted.labels:
        return True
    join = all if wanted.op == "AND" else any
    marks = list(marks_of(asked.sample))
    return join(any(_is_label(mark, each) for mark in marks) for each in wanted.labels)


def _is_label(mark: Mark, wanted: SearchLabel) -> bool:
    return (
        wanted.name in (None, mark.name)
        and wanted.type in (None, mark.type)
        and (not wanted.property or _has(mark.property, wanted.property, wanted.op))
    )


def _labeler(asked: _Asked, wanted: str) -> bool:
    authors = {label.annotated_by or "human" for label in asked.sample.labels}
    if wanted == asked.sample.property.get(f"{OWN}worker_id"):  # whom the sample was given to
        return True
    return any(wanted == author or wanted in author.split("/")[1:] for author in authors)


def _metadata(asked: _Asked, wanted: SearchProp) -> bool:
    return not wanted.props or _has(metadata_of(asked.sample), wanted.props, wanted.op)


def _has(properties: Mapping[str, Any], wanted: Mapping[str, Sequence[str] | None], op: str | None) -> bool:
    """Whether attributes have one of the values wanted, each (AND, by default) or any (OR); None: any value."""
    join = any if op == "OR" else all
    return join(
        name in properties and (values is None or any(_equal(properties[name], each) for each in values))
        for name, values in wanted.items()
    )


def _attribute(name: str) -> Callable[[_Asked, Any], bool]:
    def field(asked: _Asked, wanted: Any) -> bool:
        properties = asked.sample.property
        return any(key in properties and _equal(properties[key], wanted) for key in (OWN + name, name))

    return field


def _import_origin(asked: _Asked, wanted: str) -> bool:
    return _equal(asked.sample.property.get(f"{OWN}import_origin", 0), wanted)  # 0 is what answers say of the others


def _equal(found: Any, wanted: Any) -> bool:
    """Whether an attribute is what was asked for, written as text: 1 is "1" and "1.0", true is "true"."""
    if isinstance(found, bool):
        return str(wanted).lower() == str(found).lower()
    if isinstance(found, list | tuple):
        return any(_equal(each, wanted) for each in found)
    if isinstance(found, int | float):  # text that looks like a number is text: 0012 is not 12
        try:
            return float(found) == float(wanted)
        except (ValueError, OverflowError):
            return False
    return str(found) == str(wanted)


def _sample_name(asked: _Asked, wanted: str) -> bool:
    name = asked.sample.source.rpartition("/")[2]
    return name == wanted or ("*" in wanted and fnmatchcase(name, wanted.replace("[", "[[]").replace("?", "[?]")))


def _sample_dir(asked: _Asked, wanted: str) -> bool:
    """The folder itself, as the source names it or by the path of the file; not those below it."""
    folder = asked.sample.source.rpartition("/")[0] + "/"
    if folder.removeprefix("./") == wanted.removeprefix("./"):
        return True
    try:
        lies = asked.dataset.path(asked.sample).resolve().parent.as_posix()
        return wanted.startswith("/") and PurePosixPath(lies) == PurePosixPath(wanted)
    except (ImageError, OSError, ValueError):
        return False


def _sample_time(asked: _Asked, wanted: str) -> bool:
    """By the day on which the file was last changed."""
    try:
        changed = datetime.fromtimestamp(asked.dataset.path(asked.sample).stat().st_mtime).date()
    except (ImageError, OSError, ValueError, OverflowError):
        return False
    first, last = period_of(wanted, asked.today)
    return first <= changed <= last


def period_of(text: str, today: date) -> tuple[date, date]:
    """The first and last day of `month`, `day` or `yyyyMMdd-yyyyMMdd`."""
    if text in ("month", "day"):
        return today - timedelta(days=30 if text == "month" else 1), today
    first, last = (datetime.strptime(part[:8], "%Y%m%d").date() for part in text.split("-"))
    return first, last


#: Every field of a condition (table 5). What only DICOM files have is looked for among the attributes, as the rest.
_FIELDS: Final[dict[str, Callable[[_Asked, Any], bool]]] = {
    "coefficient": _coefficient,
    "frame_in_video": _attribute("frame_in_video"),
    "hard": _hard,
    "import_origin": _import_origin,
    "kvp": _attribute("kvp"),
    "label_list": _labels,
    "labeler": _labeler,
    "metadata": _metadata,
    "parent_sample_id": _attribute("parent_sample_id"),
    "sample_dir": _sample_dir,
    "sample_name": _sample_name,
    "sample_time": _sample_time,
    "score": _score,
    "slice_thickness": _attribute("slice_thickness"),
    "study_date": _attribute("study_date"),
    "time_in_video": _attribute("time_in_video"),
}


def drawn_more(samples: Sequence[Sample]) -> bool:
    """Whether more of the samples carry boxes than labels of the whole image."""

    def kinds(label: Label) -> bool:
        return label.type == OBJECT_DETECTION

    boxes = sum(any(map(kinds, sample.labels)) for sample in samples)
    return boxes > sum(any(not kinds(label) for label in sample.labels) for sample in samples)
