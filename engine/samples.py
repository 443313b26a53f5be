"""What a data set is made of: `Sample`, `Label`, `Drawing`, `Shape`, and the states of a sample.

Frozen records that check themselves and know nothing of files. A `Sample` is one image (or text, sound,
table row, video) with its `labels`; a `Label` is one annotation, made by a person or by a machine; the
label of an object detection or segmentation set points to an annotation file, whose contents are a
`Drawing`: `Shape`s in pixels of the image, origin at its top left corner.

Conventions, for every room: boxes are (xmin, ymin, xmax, ymax) in pixels; confidences and hard coefficients
lie in [0, 1], 1 = certain and 1 = hardest; UNLABELED = -1 wherever labels are numbers.

`extra` holds what this engine does not understand, and known keys as they were spelled where our spelling
would differ, so that an untouched record is written back as it was read.
"""

from __future__ import annotations

import builtins
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, make_dataclass, replace
from typing import Any, Final, TypeVar, cast

from engine.errors import InputError

UNLABELED: Final = -1

IMAGE_CLASSIFICATION: Final = "modelarts/image_classification"
OBJECT_DETECTION: Final = "modelarts/object_detection"
IMAGE_SEGMENTATION: Final = "modelarts/image_segmentation"

#: Label types of a manifest, and their numbers in the task API (CreateTask, tables 7 and 13).
LABEL_TYPES: Final[dict[str, int]] = {
    IMAGE_CLASSIFICATION: 0,
    OBJECT_DETECTION: 1,
    IMAGE_SEGMENTATION: 3,
    "modelarts/text_classification": 100,
    "modelarts/text_entity": 101,
    "modelarts/text_triplet": 102,
    "modelarts/audio_classification": 200,
    "modelarts/audio_content": 201,
    "modelarts/audio_segmentation": 202,
}

#: Sample types (CreateTask, table 12).
SAMPLE_TYPES: Final[dict[int, str]] = {0: "image", 1: "text", 2: "speech", 4: "table", 6: "video", 9: "custom"}
IMAGE: Final = 0

#: Sample states (CreateTask, table 4). The first, second and last can be derived from the labels; the others are
#: set by a team and live in the property STATE_KEY.
STATES: Final = (
    "ALL",
    "NONE",
    "UNCHECK",
    "ACCEPTED",
    "REJECTED",
    "UNREVIEWED",
    "REVIEWED",
    "WORKFORCE_SAMPLED",
    "WORKFORCE_SAMPLED_UNCHECK",
    "WORKFORCE_SAMPLED_CHECKED",
    "WORKFORCE_SAMPLED_ACCEPTED",
    "WORKFORCE_SAMPLED_REJECTED",
    "AUTO_ANNOTATION",
)
STATE_KEY: Final = "@labelengine:sample_state"
SIZE_KEY: Final = "@modelarts:size"
HARD_REASONS_KEY: Final = "@modelarts:hard_reasons"
#: All marks of a hard example, among the attributes of a sample or label (tables 13 to 15).
HARD_KEYS: Final = frozenset({HARD_REASONS_KEY, "@modelarts:hard", "@modelarts:hard_coefficient"})

#: Sides of an image, in pixels at most: what every whole number that holds one can hold (int32).
LONGEST_SIDE: Final = 2**31 - 1

#: Keys in `extra` of a drawing that tell of objects which could not be understood: those of a VOC file itself; how many
#: a file of another format had.
BROKEN_KEY: Final = "object"
UNREAD_KEY: Final = "labelengine-unread"

#: Points of each shape: how many (min, max; None = any), in the API's `@modelarts:feature` form.
SHAPE_POINTS: Final[dict[str, tuple[int, int | None]]] = {
    "bndbox": (2, 2),
    "polygon": (3, None),
    "circle": (2, 2),  # ((cx, cy), (r,))
    "line": (2, 2),
    "dashed": (2, 2),
    "point": (1, 1),
    "polyline": (2, None),
}

#: A file that states another size than its image has is of the same image, made smaller or larger, where both sides
#: tell the same factor up to this.
_SAME_SHAPE: Final = 0.02

_Record = TypeVar("_Record")


class _Nothing(Mapping[str, Any]):
    """A mapping without an entry, of which there is one: also when it is copied, or sent to another process."""

    def __getitem__(self, key: str) -> Any:
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0

    def __repr__(self) -> str:
        return "{}"

    def __reduce__(self) -> str:
        return "NOTHING"


#: What a record holds that has no properties, as most have none.
NOTHING: Final[Mapping[str, Any]] = _Nothing()


def _nothing() -> Mapping[str, Any]:
    return NOTHING


@dataclass(frozen=True, slots=True)
class Shape:
    """One object drawn on an image: its name, its outline in pixels, and what is known about it.

    points: ((x, y), ...) as in the API's `@modelarts:feature`; a circle is ((cx, cy), (r,)); a bndbox is its
    top left and bottom right corners. parts: the VOC `part`s, shapes themselves.
    Raises InputError when the kind is unknown or the points do not make such a shape.
    """

    name: str
    kind: str
    points: tuple[tuple[float, ...], ...]
    pose: str | None = None
    truncated: str | None = None
    occluded: str | None = None
    difficult: str | None = None
    confidence: float | None = None
    hard_coefficient: float | None = None
    hard_reasons: tuple[int, ...] = ()
    mask_color: str | None = None
    property: Mapping[str, Any] = field(default_factory=_nothing)
    parts: tuple[Shape, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=_nothing)

    def __post_init__(self) -> None:
        if self.kind not in SHAPE_POINTS:
            raise InputError(f"shape must be one of {', '.join(SHAPE_POINTS)}, got {self.kind!r}")
        least, most = SHAPE_POINTS[self.kind]
        if len(self.points) < least or (most is not None and len(self.points) > most):
            wanted = f"{least}" if most == least else f"at least {least}"
            raise InputError(f"a {self.kind} needs {wanted} points, got {len(self.points)}")
        check_unit("confidence", self.confidence)
        check_unit("hard coefficient", self.hard_coefficient)

    @builtins.property
    def xyxy(self) -> tuple[float, float, float, float]:
        """The corners of a bndbox: (xmin, ymin, xmax, ymax) in pixels. Only for kind "bndbox"."""
        assert self.kind == "bndbox", self.kind
        (x1, y1), (x2, y2) = self.points
        return x1, y1, x2, y2


@dataclass(frozen=True, slots=True)
class Drawing:
    """What an annotation file says: the size of its image, and the shapes on it, in the file's order.

    size: (width, height, depth) in pixels, None when the file does not say.
    """

    shapes: tuple[Shape, ...]
    size: tuple[int, int, int] | None = None
    folder: str | None = None
    filename: str | None = None
    segmented: str | None = None
    mask_source: str | None = None
    extra: Mapping[str, Any] = field(default_factory=_nothing)

    @property
    def is_empty(self) -> bool:
        """Whether it says that nothing is there: an object that could not be understood is not nothing."""
        return not self.shapes and BROKEN_KEY not in self.extra and UNREAD_KEY not in self.extra


@dataclass(frozen=True, slots=True)
class Label:
    """One annotation of a sample.

    type: one of LABEL_TYPES, or another string that is passed through. name: the label; for detection and
    segmentation the names are in the drawing. annotated_by: None means a person. confidence,
    hard_coefficient: in [0, 1]. creation_time: "yyyy-MM-dd HH:mm:ss". annotation_loc: where the
    drawing is stored; drawing: its contents, None while it has not been read (or could not be).
    Raises InputError when a number is out of range.
    """

    type: str
    name: str | None = None
    id: str | None = None
    property: Mapping[str, Any] = field(default_factory=_nothing)
    annotated_by: str | None = None
    creation_time: str | None = None
    confidence: float | None = None
    hard: bool | None = None
    hard_coefficient: float | None = None
    annotation_loc: str | None = None
    annotation_format: str | None = None
    drawing: Drawing | None = None
    extra: Mapping[str, Any] = field(default_factory=_nothing)

    def __post_init__(self) -> None:
        if self.confidence is not None:
            check_unit("confidence", self.confidence)
        if self.hard_coefficient is not None:
            check_unit("hard-coefficient", self.hard_coefficient)

    @builtins.property
    def by_human(self) -> bool:
        """Whether a person made this label: `human`, `human/...`, or nobody said otherwise."""
        return not self.annotated_by or self.annotated_by == "human" or self.annotated_by.startswith("human/")


@dataclass(frozen=True, slots=True)
class Sample:
    """One thing to label, with the labels that it has.

    source: URI or path as the data set names it (relative ones: to the data set), or `content://TEXT`.
    usage: TRAIN, EVAL, TEST, INFERENCE or "". sample_type: one of SAMPLE_TYPES. hard_coefficient: in [0, 1].
    Raises InputError when the source is empty or a number is out of range.
    """

    source: str
    labels: tuple[Label, ...] = ()
    usage: str = ""
    id: str | None = None
    sample_type: int = IMAGE
    hard: bool | None = None
    hard_coefficient: float | None = None
    property: Mapping[str, Any] = field(default_factory=_nothing)
    inference_loc: str | None = None
    extra: Mapping[str, Any] = field(default_factory=_nothing)

    def __post_init__(self) -> None:
        if not self.source:
            raise InputError("source must be a path or URI, got an empty string")
        if self.hard_coefficient is not None:
            check_unit("hard-coefficient", self.hard_coefficient)

    @builtins.property
    def state(self) -> str:
        """One of STATES: what a team set, else NONE (no label), AUTO_ANNOTATION (some wait for a person) or ALL."""
        team_state = self.property.get(STATE_KEY)
        if isinstance(team_state, str):
            return normal_state(team_state)
        if not self.labels:
            return "NONE"
        return "AUTO_ANNOTATION" if self.waiting else "ALL"

    @builtins.property
    def waiting(self) -> tuple[Label, ...]:
        """The labels that a person is to confirm: a machine's, of a type of which nobody gave any."""
        signed = {label.type for label in self.labels if label.by_human}
        return tuple(label for label in self.labels if label.type not in signed)

    @builtins.property
    def is_image(self) -> bool:
        return self.sample_type == IMAGE and not self.source.startswith("content://")

    @builtins.property
    def boxes(self) -> tuple[Shape, ...]:
        """Every rectangle drawn on this sample, over all its labels."""
        drawings = (label.drawing for label in self.labels if label.drawing is not None)
        return tuple(shape for drawing in drawings for shape in drawing.shapes if shape.kind == "bndbox")


def scale_to(width: float, height: float, stated: Sequence[float]) -> tuple[float, float] | None:
    """What x and y are multiplied with to be pixels of an image of this size, where a file of numbers states another
    one, (width, height): not 1 where that is of the same shape. None where the shape differs: nobody knows what the
    numbers mean. 1 where a size is not known (0)."""
    if min(*stated, width, height) <= 0:
        return 1.0, 1.0
    x, y = width / stated[0], height / stated[1]
    return (x, y) if abs(x / y - 1) <= _SAME_SHAPE else None


def shapes_at(drawing: Drawing, size: Sequence[int] | None) -> tuple[Shape, ...] | None:
    """The shapes of a drawing in pixels of an image of this size, (width, height, ...): scaled where the drawing states
    another one of the same shape, None where the shape differs. A size that is not known (None, 0) is no other one."""
    factors = scale_to(size[0], size[1], drawing.size[:2]) if size and drawing.size else (1.0, 1.0)
    if factors is None or factors == (1.0, 1.0):
        return None if factors is None else drawing.shapes
    return tuple(_scaled(shape, *factors) for shape in drawing.shapes)


def _scaled(shape: Shape, x: float, y: float) -> Shape:
    points = tuple(
        (x * each[0], y * each[1]) if len(each) == 2 else (math.sqrt(x * y) * each[0],) for each in shape.points
    )
    return replace(shape, points=points, parts=tuple(_scaled(part, x, y) for part in shape.parts))


def unmarked(sample: Sample) -> Sample:
    """The sample without marks of a hard example of its own; its labels have theirs."""
    return replace(sample, hard=None, hard_coefficient=None, property=without(sample.property, HARD_KEYS))


def without(properties: Mapping[str, Any], keys: frozenset[str]) -> Mapping[str, Any]:
    """The attributes but for these."""
    if keys.isdisjoint(properties):
        return properties
    return {key: value for key, value in properties.items() if key not in keys}


def undoubted(sample: Sample, labels: tuple[Label, ...]) -> Sample:
    """The sample with these labels, as a person decided: where none of them waits, nothing that a machine said of it
    makes it doubtful any more, neither marks of a hard example nor a state."""
    decided = replace(sample, labels=labels)
    if decided.waiting:
        return decided
    bare = unmarked(decided)
    if not bare.property.get(STATE_KEY) or bare.state != "AUTO_ANNOTATION":
        return bare
    return replace(bare, property=without(bare.property, frozenset({STATE_KEY})))


def normal_state(state: str) -> str:
    """`ALL` for `ALL`, `__ALL__` and `all`. Raises InputError when it is none of STATES."""
    bare = state.strip().strip("_").upper()
    if bare not in STATES:
        raise InputError(f"sample state must be one of {', '.join(STATES)}, got {state!r}")
    return bare


def check_unit(what: str, value: float | None) -> None:
    """Raise InputError unless value is None or in [0, 1] (NaN is not)."""
    if value is not None and not 0.0 <= value <= 1.0:
        raise InputError(f"{what} must be in [0, 1], got {value!r}")


def unchecked(record: type[_Record]) -> Callable[..., _Record]:
    """A fast constructor of a frozen record, for values already checked: every field, in order, by position.

    `Label(...)` sets each field through `object.__setattr__` (1.1 us a label), which is most of the time of reading
    a manifest. Here an open twin with the same slots is filled and then becomes the record (0.25 us).
    """

    def become(twin: Any) -> None:
        twin.__class__ = record

    names = [slot.name for slot in fields(record)]  # type: ignore[arg-type]
    twin = make_dataclass(f"_Open{record.__name__}", names, slots=True, eq=False, namespace={"__post_init__": become})
    return cast(Callable[..., _Record], twin)
