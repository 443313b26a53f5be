"""A manifest (JSON Lines, one sample a line) <-> `Sample`s, one line at a time.

Comes in: UTF-8 lines as the service, its tools and people write them: blank lines, CRLF, a byte order mark, numbers and
flags as strings, properties as JSON inside a string, keys nobody documented. Goes out: normalised records (usage in
capitals, `hard` a bool, coefficients floats in [0, 1], properties mappings).

Reading loses nothing. What is not understood goes into `extra` under its key; a known key goes there too, as it was
spelled, where our spelling of its value would differ (`"0.9"` for 0.9, `null` for nothing). Writing prefers that
spelling as long as it still means the record's present value. So an untouched line comes back with the same content,
and a changed field is really changed. A property that is not a mapping becomes the entry UNREAD_PROPERTY_KEY of one.

Knows nothing of annotation files (`Label.drawing` stays None), of images, of where sources lie. Integers beyond 64 bits
become floats, and a NaN that a property holds is written as null: JSON, and orjson, know neither.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

import orjson

from engine.errors import InputError, ManifestError, OutputError
from engine.files import atomic_writer
from engine.samples import (
    IMAGE,
    IMAGE_SEGMENTATION,
    LABEL_TYPES,
    NOTHING,
    OBJECT_DETECTION,
    Label,
    Sample,
    check_unit,
    unchecked,
)

#: Where a property that is not a mapping (`"[{\"type\": 0}]"`) lives in the mapping that a record needs.
UNREAD_PROPERTY_KEY: Final = "@labelengine:property"

USAGES: Final = ("TRAIN", "EVAL", "TEST", "INFERENCE")

_CLASSIFICATIONS: Final = frozenset(f"modelarts/{kind}_classification" for kind in ("image", "text", "audio"))
_DRAWN: Final = frozenset({OBJECT_DETECTION, IMAGE_SEGMENTATION})  # their annotations are files of their own
_BOM: Final = b"\xef\xbb\xbf"
_KINDS: Final = {kind: kind for kind in LABEL_TYPES}  # one string for all lines instead of one each
_NUMBER: Final = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)
_ABSENT: Final = object()  # unlike null, which is written back
_ABSENT_MEANS: Final = {"annotation": (), "usage": "", "sample-type": IMAGE, "property": NOTHING}  # else None
_CLIP: Final = 80  # characters of a bad value that a message shows
_OTHERS_NAMED: Final = 5  # lines listed beside the first bad one

_make_label: Final = unchecked(Label)
_make_sample: Final = unchecked(Sample)


# --- files


def read_manifest(path: Path) -> Iterator[Sample]:
    """The samples of a manifest in its order, read as they are asked for; blank lines are skipped.

    Raises InputError when the file cannot be read, and ManifestError at the first bad line: it names that line, and
    says how many of the lines after it are bad too, and which.
    """
    with _open(path) as file:
        for number, line in enumerate(file, 1):
            try:
                sample = _parse(line)
            except InputError as error:
                if line.isspace():
                    continue
                raise ManifestError(f"{path}:{number}: {error}{_other_bad_lines(file, number)}") from None
            yield sample


def write_manifest(path: Path, samples: Iterable[Sample]) -> int:
    """Write samples to `path`, one line each, whole or not at all; returns how many.

    `samples` may come from reading the same file. Raises OutputError when the file cannot be written, or a sample
    holds what JSON cannot (an object) or a reader would refuse (a classification without name).
    """
    count = 0
    with atomic_writer(path) as file:
        write = file.write
        for sample in samples:
            write(format_sample(sample))
            count += 1
    return count


@contextmanager
def _open(path: Path) -> Iterator[IO[bytes]]:
    try:
        with path.open("rb") as file:
            if file.peek(len(_BOM)).startswith(_BOM):
                file.read(len(_BOM))
            yield file
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error


def _other_bad_lines(rest: Iterable[bytes], number: int) -> str:
    """` (and 2 more bad lines: 19, 40)`, or nothing, for the lines after `number`."""
    count, named = 0, []
    for later, line in enumerate(rest, number + 1):
        try:
            _parse(line)
        except InputError:
            if not line.isspace():
                count += 1
                if count <= _OTHERS_NAMED:
                    named.append(str(later))
    if not count:
        return ""
    dots = ", ..." if count > _OTHERS_NAMED else ""
    return f" (and {count} more bad line{'s' * (count > 1)}: {', '.join(named)}{dots})"


# --- lines


def parse_sample(line: bytes, place: str) -> Sample:
    """One line of a manifest. Raises ManifestError that begins with `place` (`train.manifest:17`)."""
    try:
        return _parse(line)
    except InputError as error:
        raise ManifestError(f"{place}: {error}") from None


def format_sample(sample: Sample) -> bytes:
    """One line of a manifest, its newline included. Raises OutputError that names the sample by its source."""
    try:
        record = _sample_record(sample)
        try:
            return orjson.dumps(record, _plain, orjson.OPT_APPEND_NEWLINE)
        except orjson.JSONEncodeError:  # surrogates, deep nesting, long integers; or not JSON at all
            return json.dumps(record, allow_nan=False, default=_plain).encode() + b"\n"
    except (InputError, TypeError, ValueError, RecursionError) as error:
        raise OutputError(f"{_clip(sample.source)}: cannot be written to a manifest: {error}") from None


def _parse(line: bytes) -> Sample:
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        record = _load_slowly(line, error)
    if type(record) is not dict:
        raise _wrong("a line", "one JSON object", record)
    return _sample(record)


def _load_slowly(line: bytes, reason: orjson.JSONDecodeError) -> Any:
    """What orjson refused: half a surrogate pair (how Python spells file names that are not UTF-8) is fine."""
    try:
        return json.loads(line.decode(), parse_constant=_refuse, parse_float=_finite)
    except UnicodeDecodeError as error:
        found = f"byte 0x{line[error.start]:02x} at byte {error.start + 1}"
        raise InputError(f"a line must be UTF-8, got {found}") from None
    except (ValueError, RecursionError):
        raise InputError(f"a line must be one JSON object, got at character {reason.pos + 1}: {reason.msg}") from None


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} {_clip(value)} is not JSON")


def _finite(text: str) -> float:
    return value if math.isfinite(value := float(text)) else _refuse(text)


def _refuse(text: str) -> Any:
    raise ValueError(text)


# --- records: reading
#
# Every line comes through here, so this is written flat: known keys are popped one by one, and a value that is spelled
# as we would write it is taken as it is. `_respelled` does the rest: what is absent, and what others spell differently.
# What is left of the record in the end, with those other spellings put back, is `extra`.


def _sample(record: dict[str, Any]) -> Sample:
    pop = record.pop
    source = pop("source", None)
    if type(source) is not str or not source:
        raise _wrong("source", "a path or URI", source)
    if type(labels := pop("annotation", _ABSENT)) is list and labels:
        labels = _labels(labels)
    else:
        labels = _respelled(record, "annotation", labels, _no_labels)
    if (usage := pop("usage", _ABSENT)) not in USAGES:
        usage = _respelled(record, "usage", usage, _usage)
    if type(sample_id := pop("id", _ABSENT)) is not str:
        sample_id = _respelled(record, "id", sample_id, _text)
    if type(sample_type := pop("sample-type", _ABSENT)) is not int or sample_type == IMAGE:
        sample_type = _respelled(record, "sample-type", sample_type, _sample_type)
    hard = pop("hard", _ABSENT)
    hard = True if hard == "true" else False if hard == "false" else _respelled(record, "hard", hard, _flag)
    if type(coefficient := pop("hard-coefficient", _ABSENT)) is not float or not 0.0 <= coefficient <= 1.0:
        coefficient = _respelled(record, "hard-coefficient", coefficient, _unit)
    if type(properties := pop("property", _ABSENT)) is not dict or not properties:
        properties = _respelled(record, "property", properties, _property)
    if type(result := pop("inference-loc", _ABSENT)) is not str:
        result = _respelled(record, "inference-loc", result, _text)
    extra = record.copy() if record else NOTHING  # a copy: popping leaves a dict as large as it was
    return _make_sample(source, labels, usage, sample_id, sample_type, hard, coefficient, properties, result, extra)


def _labels(annotations: list[Any]) -> tuple[Label, ...]:
    labels: list[Label] = []
    try:
        for annotation in annotations:
            labels.append(_label(annotation))
    except InputError as error:
        raise InputError(f"{error} (annotation {len(labels) + 1})") from None
    return tuple(labels)


def _label(record: Any) -> Label:
    if type(record) is not dict:
        raise _wrong("an annotation", "an object", record)
    pop = record.pop
    kind = pop("type", None)
    if type(kind) is not str or not kind:
        raise _wrong("type", "a string like 'modelarts/image_classification'", kind)
    kind = _KINDS.get(kind, kind)
    if type(name := pop("name", _ABSENT)) is not str:
        name = _respelled(record, "name", name, _text)
    if type(label_id := pop("id", _ABSENT)) is not str:
        label_id = _respelled(record, "id", label_id, _text)
    if type(properties := pop("property", _ABSENT)) is not dict or not properties:
        properties = _respelled(record, "property", properties, _property)
    if type(author := pop("annotated-by", _ABSENT)) is not str:
        author = _respelled(record, "annotated-by", author, _text)
    if type(time := pop("creation-time", _ABSENT)) is not str:
        time = _respelled(record, "creation-time", time, _text)
    if type(confidence := pop("confidence", _ABSENT)) is not float or not 0.0 <= confidence <= 1.0:
        confidence = _respelled(record, "confidence", confidence, _unit)
    hard = pop("hard", _ABSENT)
    hard = True if hard == "true" else False if hard == "false" else _respelled(record, "hard", hard, _flag)
    if type(coefficient := pop("hard-coefficient", _ABSENT)) is not float or not 0.0 <= coefficient <= 1.0:
        coefficient = _respelled(record, "hard-coefficient", coefficient, _unit)
    if type(loc := pop("annotation-loc", _ABSENT)) is not str:
        loc = _respelled(record, "annotation-loc", loc, _text)
    if type(form := pop("annotation-format", _ABSENT)) is not str:
        form = _respelled(record, "annotation-format", form, _text)
    if not name or kind in _DRAWN:
        _check_mandatory(kind, name, loc)
    extra = record.copy() if record else NOTHING
    return _make_label(
        kind, name, label_id, properties, author, time, confidence, hard, coefficient, loc, form, None, extra
    )


def _respelled(record: dict[str, Any], key: str, spelled: Any, meaning: Callable[[str, Any], Any]) -> Any:
    """What a value means that is absent, or spelled differently from ours: that spelling stays in the record."""
    if spelled is _ABSENT:
        return _ABSENT_MEANS.get(key)
    record[key] = spelled
    return meaning(key, spelled)


def _check_mandatory(kind: str, name: str | None, location: str | None) -> None:
    if not name and kind in _CLASSIFICATIONS:
        raise _wrong("name", f"the label of a {kind}", name)
    if not location and kind in _DRAWN:
        raise _wrong("annotation-loc", f"the annotation file of a {kind}", location)


# --- spellings: what a known key means, however it is written; None and what is absent mean the same
#
# Each takes the key, for the message, and what the line holds there. Each raises InputError when that is nonsense.


def _text(key: str, spelled: Any) -> str | None:
    if spelled is None or type(spelled) is str:
        return spelled
    raise _wrong(key, "a string", spelled)


def _no_labels(key: str, spelled: Any) -> tuple[Label, ...]:
    if spelled is None or spelled == []:
        return ()
    raise _wrong(key, "a list", spelled)


def _usage(key: str, spelled: Any) -> str:
    """One of USAGES; a word that is none of them is kept in `extra`, and leaves the decision to the user."""
    usage = (_text(key, spelled) or "").strip().upper()
    return usage if usage in USAGES else ""


def _sample_type(key: str, spelled: Any) -> int:
    if spelled is None:
        return IMAGE
    if type(spelled) is int:
        return spelled
    if type(spelled) is str and re.fullmatch(r"\s*\d{1,9}\s*", spelled, re.ASCII):
        return int(spelled)
    raise _wrong(key, "a number like 0 (image)", spelled)


def _flag(key: str, spelled: Any) -> bool | None:
    if spelled is None:
        return None
    text = str(spelled).strip().lower() if isinstance(spelled, (str, bool, int, float)) else ""
    if text in ("true", "1", "1.0"):
        return True
    if text in ("false", "0", "0.0"):
        return False
    raise _wrong(key, "true or false", spelled)


def _unit(key: str, spelled: Any) -> float | None:
    if spelled is None:
        return None
    if type(spelled) is str and _NUMBER.fullmatch(spelled):
        value = float(spelled)
    elif type(spelled) in (int, float):
        value = spelled
    else:
        raise _wrong(key, "a number in [0, 1]", spelled)
    check_unit(key, value)
    return float(value)


def _property(_: str, spelled: Any) -> Mapping[str, Any]:
    if type(spelled) is str:
        try:
            inside = orjson.loads(spelled)
        except orjson.JSONDecodeError:
            inside = None
        if type(inside) is dict:
            return inside or NOTHING
    if type(spelled) is dict or spelled is None or spelled in ("", []):
        return spelled or NOTHING
    return {UNREAD_PROPERTY_KEY: spelled}


_Spellings = Mapping[str, tuple[str, Callable[[str, Any], Any]]]  # key: attribute, meaning

_SAMPLE_SPELLINGS: Final[_Spellings] = {
    "source": ("source", _text),
    "annotation": ("labels", _no_labels),
    "usage": ("usage", _usage),
    "id": ("id", _text),
    "sample-type": ("sample_type", _sample_type),
    "hard": ("hard", _flag),
    "hard-coefficient": ("hard_coefficient", _unit),
    "property": ("property", _property),
    "inference-loc": ("inference_loc", _text),
}
_LABEL_SPELLINGS: Final[_Spellings] = {
    "type": ("type", _text),
    "name": ("name", _text),
    "id": ("id", _text),
    "property": ("property", _property),
    "annotated-by": ("annotated_by", _text),
    "creation-time": ("creation_time", _text),
    "confidence": ("confidence", _unit),
    "hard": ("hard", _flag),
    "hard-coefficient": ("hard_coefficient", _unit),
    "annotation-loc": ("annotation_loc", _text),
    "annotation-format": ("annotation_format", _text),
}


# --- records: writing
#
# The usual keys go into one display, which makes a dict that need not grow (a quarter of the time); the others follow.


def _sample_record(sample: Sample) -> dict[str, Any]:
    record: dict[str, Any] = {
        "source": sample.source,
        "usage": (usage := sample.usage),
        "id": (sample_id := sample.id),
        "property": (properties := sample.property),
        "annotation": (labels := sample.labels),
        "hard": "true" if (hard := sample.hard) else "false",
    }
    if labels:
        record["annotation"] = list(map(_label_record, labels))
    else:
        del record["annotation"]
    if not usage:
        del record["usage"]
    if sample_id is None:
        del record["id"]
    if not properties:
        del record["property"]
    if hard is None:
        del record["hard"]
    if (coefficient := sample.hard_coefficient) is not None:
        record["hard-coefficient"] = coefficient if type(coefficient) is float else float(coefficient)
    if sample_type := sample.sample_type:
        record["sample-type"] = sample_type
    if (result := sample.inference_loc) is not None:
        record["inference-loc"] = result
    if extra := sample.extra:
        _respell(record, extra, sample, _SAMPLE_SPELLINGS)
    return record


def _label_record(label: Label) -> dict[str, Any]:
    record: dict[str, Any] = {
        "type": (kind := label.type),
        "name": (name := label.name),
        "id": (label_id := label.id),
        "property": (properties := label.property),
        "annotated-by": (author := label.annotated_by),
        "creation-time": (time := label.creation_time),
    }
    if not name or kind in _DRAWN:
        _check_mandatory(kind, name, label.annotation_loc)
        if name is None:
            del record["name"]
    if label_id is None:
        del record["id"]
    if not properties:
        del record["property"]
    if author is None:
        del record["annotated-by"]
    if time is None:
        del record["creation-time"]
    if (confidence := label.confidence) is not None:
        record["confidence"] = confidence if type(confidence) is float else float(confidence)
    if (hard := label.hard) is not None:
        record["hard"] = "true" if hard else "false"
    if (coefficient := label.hard_coefficient) is not None:
        record["hard-coefficient"] = coefficient if type(coefficient) is float else float(coefficient)
    if (loc := label.annotation_loc) is not None:
        record["annotation-loc"] = loc
    if (form := label.annotation_format) is not None:
        record["annotation-format"] = form
    if extra := label.extra:
        _respell(record, extra, label, _LABEL_SPELLINGS)
    return record


def _respell(record: dict[str, Any], extra: Mapping[str, Any], owner: object, spellings: _Spellings) -> None:
    """Add what nobody understood, and known keys as they were spelled where that still means the present value."""
    for key, spelled in extra.items():
        if key not in spellings:
            record[key] = spelled
            continue
        attribute, meaning = spellings[key]
        try:
            if _same(meaning(key, spelled), getattr(owner, attribute)):
                record[key] = spelled
        except InputError:  # nonsense cannot be the present value
            continue


def _same(one: Any, other: Any) -> bool:
    """Equal, and in a property equal in kind too: 1, 1.0 and true are three things there."""
    return bool(one == other) and (type(one) is not dict or _sorted_dump(one) == _sorted_dump(other))


def _sorted_dump(value: Any) -> bytes:
    return orjson.dumps(value, _plain, orjson.OPT_SORT_KEYS)


def _wrong(what: str, expected: str, got: Any) -> InputError:
    return InputError(f"{what} must be {expected}, got {'nothing' if got is None else _clip(got)}")


def _clip(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _CLIP else f"{text[:_CLIP]}..."
