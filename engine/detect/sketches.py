"""What people drew on the samples, as numbers: classes, boxes, and which images are labeled at all.

In: samples. Out: `Sketches`, parallel to them. Only boxes that a person drew count; those of machines are there to be
replaced. An image is labeled when a person's drawing of it could be read and has boxes, or nothing at all: that shows
that there is nothing. Other shapes (polygons, circles, ...) are no boxes, and are left alone; an image with such shapes
only, or with objects none of which could be understood, is neither labeled nor to be labeled. Knows nothing of pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from engine.errors import Failure, InputError
from engine.folders.sizes import known_size
from engine.label.targets import LEAST_PER_CLASS, common_problems
from engine.samples import OBJECT_DETECTION, Label, Sample, Shape, scale_to, shapes_at
from engine.survey import box_array

Boxes = npt.NDArray[np.float32]
Classes = npt.NDArray[np.int64]

#: What is left of a box inside its image, in pixels of a side, that is still a box.
_LEAST_SIDE: Final = 1.0


@dataclass(frozen=True, slots=True)
class Sketches:
    """Of n samples. labels: the k class names, sorted. boxes: of each sample (m, 4) float32, xyxy in pixels of the size
    that its file states. classes: of each (m,) int64. drawn: of each sample the classes of all boxes that people drew,
    (t,) int64; kept: (t,) bool, which of these are in boxes. labeled: (n,) bool. by_people: (n,) bool, where people
    drew anything, whether it could be read or not. stated: (n, 2) int64, width and height that files state, 0 where
    they do not."""

    labels: tuple[str, ...]
    boxes: tuple[Boxes, ...]
    classes: tuple[Classes, ...]
    drawn: tuple[Classes, ...]
    kept: tuple[npt.NDArray[np.bool_], ...]
    labeled: npt.NDArray[np.bool_]
    by_people: npt.NDArray[np.bool_]
    stated: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.boxes)

    @property
    def presence(self) -> npt.NDArray[np.bool_]:
        """(n, k) whether a sample has a box of a class."""
        found = np.zeros((len(self), len(self.labels)), bool)
        for row, classes in enumerate(self.classes):
            found[row, classes] = True
        return found


def human_drawings(sample: Sample) -> tuple[Label, ...]:
    """The labels of an image sample that a person drew and whose drawing could be read."""
    if not sample.is_image:
        return ()
    return tuple(label for label in sample.labels if _is_peoples(label) and label.drawing is not None)


def _is_peoples(label: Label) -> bool:
    return label.type == OBJECT_DETECTION and label.by_human


def _is_told(labels: Sequence[Label]) -> bool:
    """Whether drawings say where objects are, or that there are none."""
    drawings = [label.drawing for label in labels if label.drawing is not None]
    return bool(_rectangles(labels)) or (bool(drawings) and all(drawing.is_empty for drawing in drawings))


def sketches_of(samples: Sequence[Sample]) -> Sketches:
    """What people drew: every name of a box is a class."""
    drawn = [human_drawings(sample) for sample in samples]
    sizes = [_stated(labels) for labels in drawn]
    shapes = [_rectangles(labels, size) for labels, size in zip(drawn, sizes, strict=True)]
    labels = tuple(sorted({shape.name for each in shapes for shape in each}))
    column = {name: at for at, name in enumerate(labels)}
    stated = np.zeros((len(samples), 2), np.int64)
    for row, size in enumerate(sizes):
        if size:
            stated[row] = size[:2]
    classes = tuple(np.array([column[shape.name] for shape in each], np.int64) for each in shapes)
    return Sketches(
        labels,
        tuple(map(box_array, shapes)),
        classes,
        classes,
        tuple(np.ones(len(each), bool) for each in classes),
        np.array([_is_told(each) for each in drawn], bool),
        np.array([any(_is_peoples(label) for label in sample.labels) for sample in samples], bool),
        stated,
    )


def _stated(labels: Sequence[Label]) -> tuple[int, int, int] | None:
    """The size that drawings of an image state: the first one, in whose pixels all are then; where another one is of
    another shape that, for it does not fit the image, or the first one does not."""
    sizes = [size for label in labels if label.drawing and (size := known_size(label.drawing))]
    others = (size for size in sizes if scale_to(*sizes[0][:2], size[:2]) is None)
    return next(others, sizes[0] if sizes else None)


def _rectangles(labels: Sequence[Label], size: tuple[int, int, int] | None = None) -> list[Shape]:
    """size: in whose pixels they are; None: as they are written."""
    drawings = [label.drawing for label in labels if label.drawing]
    shapes = (shape for drawing in drawings for shape in shapes_at(drawing, size) or drawing.shapes)
    return [shape for shape in shapes if shape.kind == "bndbox"]


@dataclass(frozen=True, slots=True)
class Fitted:
    """Sketches in pixels of the images that are really there. failures: what does not fit its image."""

    sketches: Sketches
    failures: tuple[Failure, ...]


def fitted(sketches: Sketches, samples: Sequence[Sample], sizes: npt.NDArray[np.int64]) -> Fitted:
    """sizes: (n, 2) width and height of images, 0 where one could not be read: it does not count as labeled then.

    Where a file states another size of the same shape, its boxes are scaled; where the shape differs, nobody knows what
    its numbers mean: the image does not count as labeled. Boxes are cut at the border of the image; what has no area
    there is left out.
    """
    boxes, classes, kept, failures = list(sketches.boxes), list(sketches.classes), list(sketches.kept), []
    labeled = sketches.labeled & (sizes[:, 0] > 0)
    for row in np.flatnonzero(labeled).tolist():
        size, stated = sizes[row], sketches.stated[row]
        factor = scale_to(float(size[0]), float(size[1]), stated.tolist())
        if factor is None:
            reason = f"its file states {stated[0]}x{stated[1]} pixels, the image has {size[0]}x{size[1]}: not learned"
            failures.append(Failure(samples[row].source, "annotation", reason))
            labeled[row] = False
            continue
        scaled = boxes[row] * np.tile(factor, 2).astype(np.float32)
        inside = np.clip(scaled, 0, np.tile(size, 2).astype(np.float32))
        good: npt.NDArray[np.bool_] = np.all(inside[:, 2:] - inside[:, :2] >= _LEAST_SIDE, axis=1)
        if not good.all():
            reason = f"{int((~good).sum()):,} of {len(good):,} boxes have no area inside the image: left out"
            failures.append(Failure(samples[row].source, "annotation", reason))
            labeled[row] = bool(good.any())  # what has no box left is not empty
        boxes[row], classes[row], kept[row] = inside[good].astype(np.float32), classes[row][good], good
    for row in np.flatnonzero(~labeled).tolist():
        boxes[row], classes[row] = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
        kept[row] = np.zeros(len(kept[row]), bool)
    found = replace(
        sketches, boxes=tuple(boxes), classes=tuple(classes), kept=tuple(kept), labeled=labeled, stated=sizes
    )
    return Fitted(found, tuple(failures))


def with_columns(sketches: Sketches, labels: Sequence[str]) -> Sketches:
    """The same sketches, their classes as columns of these labels, which hold all of theirs."""
    column = {name: at for at, name in enumerate(labels)}
    renamed = np.array([column[name] for name in sketches.labels], np.int64)
    return replace(
        sketches,
        labels=tuple(labels),
        classes=tuple(renamed[each] for each in sketches.classes),
        drawn=tuple(renamed[each] for each in sketches.drawn),
    )


def check_rules(
    sketches: Sketches, unlabeled: int, *, min_per_class: int = LEAST_PER_CLASS, least_unlabeled: int = 1
) -> None:
    """Raise InputError unless auto labeling of boxes may begin, one line each. unlabeled: how many images nobody
    labeled.

    One label is enough here, where the specification asks for two: an object is told from what is none.
    """
    counts = dict(zip(sketches.labels, sketches.presence.sum(axis=0).tolist(), strict=True))
    problems = [] if counts else ["auto labeling of boxes needs boxes that people drew, got none"]
    problems += common_problems(counts, unlabeled, min_per_class, least_unlabeled)
    if problems:
        raise InputError("\n".join(problems))
