"""How one value of a request is read: leniently in its spelling, strictly in its range.

JSON value in, typed value out. Requests in the wild write integers as strings ("2"), booleans as "true", and
numbers where the tables say String; each reader here accepts those and nothing looser. What it refuses, it
refuses with a ValueError that says expected and got; `request.py` puts the path before it. Where a value is
kept in another type than the specification's (hard reasons "3-20" as integers), the type carries the
serializer that writes it back in the specification's spelling.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from difflib import get_close_matches
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator, PlainSerializer

from engine.errors import InputError
from engine.samples import normal_state

HARD_REASONS: Final = 31  # ids 0..30 (CreateTask, tables 14 and 15)

_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,18}")
_DECIMAL: Final = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_SCOPE: Final = re.compile(r"([0-9.]+)\s*-\s*([0-9.]+)")
_BOUND: Final = re.compile(r"(>=|<=|>|<)?\s*([0-9.]+(?:[eE][+-]?[0-9]+)?)")
_PERIOD: Final = re.compile(
    r"([0-9]{8})-([0-9]{8})(?:[0-9]{2})?"
)  # the specification's own example has two digits more
_CLOCK: Final = re.compile(r"[0-9]{2,}:[0-5][0-9]:[0-5][0-9](\.[0-9]{1,3})?")


def shown(value: object) -> str:
    """A JSON value as an error names it: on one line, at most 60 characters."""
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, list | tuple):
        return "an array"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return _clipped(repr(value))


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` (did you mean n_clusters?)`, or nothing when no known name is near."""
    near = get_close_matches(name[:60], known, n=1, cutoff=0.7)
    return f" (did you mean {near[0]}?)" if near else ""


def whole(low: int, high: int | None = None) -> BeforeValidator:
    """A reader of integers in low..high (open above without `high`)."""
    limits = f">= {low}" if high is None else f"{low}..{high}"

    def read(value: object) -> int:
        number = _as_integer(value)
        if number is None:
            raise ValueError(f"must be an integer {limits}, got {shown(value)}")
        if number < low or (high is not None and number > high):
            raise ValueError(f"must be {limits}, got {shown(number)}")
        return number

    return BeforeValidator(read)


def one_of(*numbers: int) -> BeforeValidator:
    """A reader of the integers that a table lists."""
    allowed = f"{', '.join(map(str, numbers[:-1]))} or {numbers[-1]}"

    def read(value: object) -> int:
        number = _as_integer(value)
        if number is None or number not in numbers:
            raise ValueError(f"must be {allowed}, got {shown(value)}")
        return number

    return BeforeValidator(read)


def above_zero(value: object) -> float:
    number = _as_number(value)
    if number <= 0:
        raise ValueError(f"must be greater than 0, got {shown(value)}")
    return number


def unit(value: object) -> float:
    number = _as_number(value)
    if not 0 <= number <= 1:
        raise ValueError(f"must be in [0, 1], got {shown(value)}")
    return number


def truth(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    raise ValueError(f"must be true or false, got {shown(value)}")


def hard(value: object) -> bool:
    """Hard or not, as the service itself writes it in four ways: 0/1, "0"/"1", true/false, "true"/"false"."""
    if _as_integer(value) in (0, 1):
        return _as_integer(value) == 1
    try:
        return truth(value)
    except ValueError:
        raise ValueError(f"must be 0, 1, true or false, got {shown(value)}") from None


def text(value: object) -> str:
    """A string, which may have been written as a number."""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise ValueError(f"must be a string, got {shown(value)}")


def scalar(value: object) -> str:
    """A string, which may have been written as a number or a boolean."""
    return str(value).lower() if isinstance(value, bool) else text(value)


def step_counts(value: object) -> tuple[int, ...]:
    """`800` or `"900+610+598"` -> the steps of each training, in their order; the first, where others follow, may be 0:
    it is left out."""
    parts = str(value).split("+") if isinstance(value, str | int) and not isinstance(value, bool) else []
    numbers = [_as_integer(part.strip()) for part in parts]
    taken = numbers[1:] if numbers[:1] == [0] else numbers
    if not taken or not all(number and number > 0 for number in taken):
        raise ValueError(f"must be numbers of steps above 0, as 800 or 900+610+598, got {shown(value)}")
    return tuple(number or 0 for number in numbers)


def not_blank(value: str) -> str:
    if not value.strip():
        raise ValueError(f"must not be blank, got {shown(value)}")
    return value


def scope(value: object) -> tuple[float, float]:
    """`"0.10-0.90"` -> (0.1, 0.9)."""
    match = _SCOPE.fullmatch(value.strip()) if isinstance(value, str) else None
    try:
        low, high = (unit(end) for end in (match.groups() if match else ()))
        if low <= high:
            return low, high
    except ValueError:
        pass
    raise ValueError(f"must be MIN-MAX with 0 <= MIN <= MAX <= 1, as 0.10-0.90, got {shown(value)}")


def reasons(value: object) -> tuple[int, ...]:
    """`"3-20-21-19"` or `[3, 20, 21, 19]` -> (3, 20, 21, 19): the order is by contribution and stays."""
    parts = ([] if value == "" else value.split("-")) if isinstance(value, str) else _items(value)
    ids = [_as_integer(part) for part in parts or ()]
    found = tuple(number for number in ids if number is not None and 0 <= number < HARD_REASONS)
    if parts is None or len(found) != len(ids):
        raise ValueError(f"must be hard reasons 0..{HARD_REASONS - 1}, as 3-20 or [3, 20], got {_shown_items(value)}")
    return found


def size(value: object) -> tuple[int, ...]:
    """`[width, height]` or `[width, height, depth]` in pixels."""
    numbers = [_as_integer(part) for part in _items(value) or ()]
    found = tuple(number for number in numbers if number is not None and number > 0)
    if len(found) not in (2, 3) or len(found) != len(numbers):
        raise ValueError(f"must be [width, height] or [width, height, depth] in pixels, got {_shown_items(value)}")
    return found


def points(value: object) -> tuple[tuple[float, ...], ...]:
    """`[[x, y], ...]` in pixels, or a circle's `[[x, y], [radius]]`: finite numbers, none negative."""
    try:
        found = tuple(tuple(_as_number(part) for part in _items(point) or ()) for point in _items(value) or ())
    except ValueError:
        found = ()
    if not found or any(len(point) not in (1, 2) or min(point) < 0 for point in found):
        raise ValueError(f"must be [[x, y], ...] with x, y >= 0, got {_shown_items(value)}")
    return found


def state(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"must be a string, got {shown(value)}")
    try:
        return normal_state(value)
    except InputError as error:
        raise ValueError(str(error).removeprefix("sample state ")) from None


def folder(value: str) -> str:
    if not value.endswith("/"):
        raise ValueError(f"must end with /, got {shown(value)}")
    return value


@dataclass(frozen=True, slots=True)
class Bounds:
    """An interval of numbers; an open end does not belong to it."""

    low: float
    high: float
    open_low: bool = False
    open_high: bool = False

    def hold(self, value: float) -> bool:
        above = value > self.low if self.open_low else value >= self.low
        return above and (value < self.high if self.open_high else value <= self.high)


def bounds(text: str) -> Bounds:
    """`0.3-0.8` (both ends included), `>0.5`, `>=0.5`, `<0.5`, `<=0.5`, or the number itself, in [0, 1].

    >>> bounds("<0.5")
    Bounds(low=0.0, high=0.5, open_low=False, open_high=True)
    """
    match = _BOUND.fullmatch(text.strip())
    try:
        if match is None:
            return Bounds(*scope(text))
        sign, number = match[1] or "", unit(match[2])
    except ValueError:
        raise ValueError(f"must be MIN-MAX or a number, also after >, >=, <, <=, got {shown(text)}") from None
    if sign.startswith(">"):
        return Bounds(number, 1.0, open_low=sign == ">")
    if sign.startswith("<"):
        return Bounds(0.0, number, open_high=sign == "<")
    return Bounds(number, number)


def bounded(value: object) -> str:
    """The text of `bounds`, checked."""
    told = text(value)
    bounds(told)
    return told


def clock(value: str) -> str:
    if not _CLOCK.fullmatch(value):
        raise ValueError(f"must be hh:mm:ss.SSS, got {shown(value)}")
    return value


def period(value: str) -> str:
    """`month`, `day`, or `yyyyMMdd-yyyyMMdd` over at most 30 days."""
    if value in ("month", "day"):
        return value
    match = _PERIOD.fullmatch(value)
    try:
        first, last = (datetime.strptime(day, "%Y%m%d") for day in (match.groups() if match else ()))
    except ValueError:
        raise ValueError(f"must be month, day or yyyyMMdd-yyyyMMdd, got {shown(value)}") from None
    if not timedelta() <= last - first <= timedelta(days=30):
        raise ValueError(f"must run forward over at most 30 days, got {shown(value)}")
    return value


def moment(told: str) -> datetime:
    """`yyyy-MM-dd HH:mm:ss`, or milliseconds since 1970, as local time.

    >>> moment("2024-05-06 07:08:09")
    datetime.datetime(2024, 5, 6, 7, 8, 9)
    """
    try:
        if told.strip().isdigit():
            return datetime.fromtimestamp(int(told) / 1000)
        return datetime.strptime(told.strip(), "%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        raise ValueError(f"must be yyyy-MM-dd HH:mm:ss or milliseconds since 1970, got {shown(told)}") from None


def timed(value: object) -> str:
    """The text of `moment`, checked."""
    told = text(value)
    moment(told)
    return told


def plain(number: float) -> str:
    """A number without an exponent: 1e-05 -> "0.00001"."""
    return format(Decimal(repr(number)), "f")


def _written(write: Any) -> PlainSerializer:
    return PlainSerializer(write, return_type=str)


Count = Annotated[int, whole(1)]
Index = Annotated[int, whole(0)]
Truth = Annotated[bool, BeforeValidator(truth)]
Positive = Annotated[float, BeforeValidator(above_zero)]
Unit = Annotated[float, BeforeValidator(unit)]
UnitText = Annotated[Unit, _written(plain)]
Scope = Annotated[tuple[float, float], BeforeValidator(scope), _written(lambda ends: "-".join(map(plain, ends)))]
Steps = Annotated[tuple[int, ...], BeforeValidator(step_counts), _written(lambda steps: "+".join(map(str, steps)))]
Name = Annotated[str, AfterValidator(not_blank)]
Text = Annotated[str, BeforeValidator(text)]
Timed = Annotated[str, BeforeValidator(timed)]
Bounded = Annotated[str, BeforeValidator(bounded)]
Scalar = Annotated[str, BeforeValidator(scalar)]
Folder = Annotated[str, AfterValidator(folder)]
Clock = Annotated[str, AfterValidator(clock)]
Period = Annotated[str, AfterValidator(period)]
State = Annotated[str, BeforeValidator(state)]
Size = Annotated[tuple[int, ...], BeforeValidator(size)]
Points = Annotated[tuple[tuple[float, ...], ...], BeforeValidator(points)]
Reasons = Annotated[tuple[int, ...], BeforeValidator(reasons)]
ReasonsText = Annotated[Reasons, _written(lambda ids: "-".join(map(str, ids)))]
HardNumber = Annotated[bool, BeforeValidator(hard), PlainSerializer(float, return_type=float)]
HardDigit = Annotated[bool, BeforeValidator(hard), _written(lambda is_hard: str(int(is_hard)))]
HardWord = Annotated[bool, BeforeValidator(hard), _written(scalar)]


def message(error: Mapping[str, Any]) -> str:
    """What one error of pydantic says, in our words: expected and got, without the path."""
    kind = error["type"]
    if kind == "value_error":
        return str(error["ctx"]["error"])
    if kind == "missing":
        return "must be given"
    expected = error["ctx"]["expected"] if kind == "literal_error" else _EXPECTED.get(kind)
    what = f"must be {expected}" if expected else error["msg"]
    return f"{what}, got {shown(error['input'])}"


_EXPECTED: Final = {
    "string_type": "a string",
    "string_unicode": "a string of valid Unicode",
    "tuple_type": "an array",
    "dict_type": "an object",
    "model_type": "an object",
}


def _as_integer(value: object) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and _INTEGER.fullmatch(value.strip()):
        return int(value)
    return None


def _as_number(value: object) -> float:
    number = math.nan
    try:
        if isinstance(value, str):
            number = float(value) if _DECIMAL.fullmatch(value.strip()) else math.nan
        elif isinstance(value, int | float) and not isinstance(value, bool):
            number = float(value)
    except OverflowError:  # an integer of 400 digits
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"must be a number, got {shown(value)}")
    return number


def _items(value: object) -> list[object] | None:
    return list(value) if isinstance(value, list | tuple) else None


def _shown_items(value: object) -> str:
    items = _items(value)
    return shown(value) if items is None else _clipped(repr(items))


def _clipped(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."
