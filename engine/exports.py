"""Samples -> folders: tree, tile, VOC, YOLO, COCO: the way back of `folders`.

Images are placed under their own file name, made safe; a clash gets `-2`, `-3`, ... in the order of the samples. Of
each type of labels a person's stand for a sample; where there are none, a machine's are written as if they were a
person's, and counted in a note, for no folder can say "to be confirmed". What the format cannot express is counted in a
note, and is a failure of the sample where that leaves it without its label. An image that cannot be read is a failure;
the rest goes on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from engine.coco import COCO_KINDS, format_coco
from engine.errors import Failure, ImageError, OutputError
from engine.files import as_json
from engine.folders.classified import LABELS_FILE
from engine.folders.listing import IMAGE_EXTENSIONS, ending_of, stem_of
from engine.folders.sizes import drawings_of, image_size, known_size
from engine.folders.yolo import YOLO_FOLDER
from engine.outfolder import OutFolder, safe_name
from engine.samples import IMAGE_SEGMENTATION, OBJECT_DETECTION, Drawing, Label, Sample, Shape, scale_to, shapes_at
from engine.sources import Sources
from engine.voc import format_voc


@dataclass(slots=True)
class Tally:
    """What a writer did: counts by name, failures by sample, and losses: a sentence, how often it applies."""

    counts: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    losses: Counter[str] = field(default_factory=Counter)

    def add(self, more: Tally) -> None:
        self.counts.update(more.counts)
        self.failures += more.failures
        self.losses.update(more.losses)

    @property
    def notes(self) -> tuple[str, ...]:
        return tuple(text.format(f"{count:,}") for text, count in self.losses.items() if count)


_UNCONFIRMED: Final = "{} samples carry labels of a machine that nobody has confirmed; they are written like a person's"
_NOT_IMAGES: Final = "{} samples are not images and were left out"
_NO_DRAWINGS: Final = "{} drawings (boxes, shapes) were left out: the format has no place for them"
_NO_LABELS: Final = "{} labels of whole images were left out: the format has no place for them"
_NO_USAGE: Final = "{} usages (TRAIN, EVAL, ...) were left out: the format has no place for them"
_NEITHER_LIST: Final = "{} images of another usage than TRAIN and EVAL are in neither train.txt nor valid.txt"
_NO_EXTENSION: Final = "{} files have no extension of an image and will not be found when the folder is read"
_ONE_LINE: Final = "{} labels were written with changed blanks, for a line holds one label"
_RENAMED: Final = f"{{}} labels cannot name a folder as they are; {LABELS_FILE} says which folder means which"
#: Where the images of COCO lie.
COCO_FOLDER: Final = "images"
_OTHER_TYPE: Final = "{} drawings were left out: a file holds the objects or the segmentation of an image, not both"
_CLIPPED: Final = "{} boxes reached out of their image and were clipped"


def standing_labels(sample: Sample) -> tuple[Label, ...]:
    """The labels that count: a person's; a machine's where there are none of their type."""
    waiting = {label.type for label in sample.waiting}
    return tuple(label for label in sample.labels if label.by_human or label.type in waiting)


def write_tree(samples: Iterable[Sample], sources: Sources, out: OutFolder, *, copy: bool = False) -> Tally:
    """`label/1.jpg`. Unlabeled images lie at the root, and so do those with several labels, each a failure. A label
    that cannot name a folder gets a safe name (`safe_name`); LABELS_FILE then says which label it is."""
    tally = Tally()
    samples = list(samples)
    out.claim(LABELS_FILE)  # before a label can have that name
    folders: dict[str, str] = {}
    for sample in samples:
        for name in _class_labels(sample):
            if name not in folders:
                folders[name] = out.claim_folder(safe_name(name))
    renamed = {folder: name for name, folder in folders.items() if folder != name}
    used: set[str] = set()
    for sample in _images(samples, tally, drawn=False):
        _count_drawings(sample, tally)
        names = _class_labels(sample)
        folder = folders[names[0]] if len(names) == 1 else ""
        if len(names) > 1:
            many = f"{len(names)} labels ({', '.join(names)[:200]})"
            reason = f"a tree has room for one label, got {many}; the image lies unlabeled at the root"
            tally.failures.append(Failure(sample.source, "annotation", reason))
        if _place(sample, sources, out, folder, tally, copy=copy) is not None:
            tally.counts["labels"] += bool(folder)
            used.add(folder)
    if written := {folder: name for folder, name in renamed.items() if folder in used}:
        out.write(LABELS_FILE, as_json(written))
        tally.losses[_RENAMED] += len(written)
    return tally


def write_tile(samples: Iterable[Sample], sources: Sources, out: OutFolder, *, copy: bool = False) -> Tally:
    """`1.jpg`, `1.txt` with one label a line; no txt for unlabeled images."""
    tally = Tally()
    for sample in _images(samples, tally, drawn=False):
        _count_drawings(sample, tally)
        placed = _place(sample, sources, out, "", tally, copy=copy, sidecar=".txt")
        lines = list(filter(None, (_one_line(name, tally) for name in _class_labels(sample))))
        if placed is not None and lines:
            out.write(stem_of(placed) + ".txt", _text(lines))
            tally.counts["labels"] += len(lines)
    return tally


def write_voc_folder(samples: Iterable[Sample], sources: Sources, out: OutFolder, *, copy: bool = False) -> Tally:
    """`1.jpg`, `1.xml` with every shape; no xml for unlabeled images. Several drawings of a sample become one."""
    tally = Tally()
    for sample in _images(samples, tally, drawn=True):
        tally.losses[_NO_LABELS] += len(_class_labels(sample))
        placed = _place(sample, sources, out, "", tally, copy=copy, sidecar=".xml")
        drawing = _one_drawing(sample, tally)
        if placed is None or drawing is None:
            continue
        # A file of XML states the size in whose pixels it is, whatever the image has.
        size = known_size(drawing) or _size(sample, drawing, sources, tally)
        drawing = replace(drawing, size=size, filename=placed)
        if not write_drawing(sample.source, drawing, out, stem_of(placed) + ".xml", tally):
            continue
        tally.counts["labels"] += 1
        tally.counts["shapes"] += len(drawing.shapes)
    return tally


def write_yolo(samples: Iterable[Sample], sources: Sources, out: OutFolder, *, copy: bool = False) -> Tally:
    """obj.names (sorted), obj.data, train.txt, valid.txt, obj_train_data/ with images and boxes.

    A box keeps its name and rectangle only; other shapes are left out, and an image that has nothing else goes without
    a txt, for an empty one says that nothing is there. EVAL goes to valid.txt; TRAIN, and labeled images of no usage,
    to train.txt; the rest is listed in neither.
    """
    tally = Tally()
    samples = list(samples)
    drawings = (drawing for sample in samples for drawing in drawings_of(_drawn_labels(sample)))
    boxes = (shape for drawing in drawings for shape in drawing.shapes if shape.kind == "bndbox")
    names = sorted({_one_line(shape.name, tally) for shape in boxes} - {""})
    index = {name: number for number, name in enumerate(names)}
    lists: dict[str, list[str]] = {"train.txt": [], "valid.txt": []}
    for sample in _images(samples, tally, drawn=True, usages=True):
        tally.losses[_NO_LABELS] += len(_class_labels(sample))
        placed = _place(sample, sources, out, YOLO_FOLDER, tally, copy=copy, sidecar=".txt")
        if placed is None:
            continue
        drawing = _one_drawing(sample, tally)
        size = None if drawing is None else _size(sample, drawing, sources, tally)
        lines = [] if drawing is None or size is None else _box_lines(sample, drawing, size, index, tally)
        labeled = bool(lines) or (drawing is not None and size is not None and drawing.is_empty)
        if labeled:
            out.write(stem_of(placed) + ".txt", _text(lines))
            tally.counts["labels"] += 1
            tally.counts["shapes"] += len(lines)
        if sample.usage == "EVAL":
            lists["valid.txt"].append(placed)
        elif sample.usage == "TRAIN" or (not sample.usage and labeled):
            lists["train.txt"].append(placed)
        elif sample.usage:
            tally.losses[_NEITHER_LIST] += 1
    for name, images in lists.items():
        out.write(name, _text(images))
    out.write("obj.names", _text(names))
    data = f"classes = {len(names)}\ntrain = train.txt\nvalid = valid.txt\nnames = obj.names\nbackup = backup/\n"
    out.write("obj.data", data.encode())
    return tally


def write_coco(samples: Iterable[Sample], sources: Sources, out: OutFolder, *, copy: bool = False) -> Tally:
    """images/1.jpg, annotations.json: rectangles and polygons as COCO instances, with `score` where a machine drew, and
    nobody signed.

    Where samples have usages, there is a file for each: annotations-train.json, annotations-eval.json, ... An image on
    which somebody drew nothing is listed, too; one that nobody labeled is not, nor one with nothing that COCO knows.
    """
    tally = Tally()
    listed: list[tuple[str, str, tuple[int, int, int], Drawing]] = []
    automatic: set[str] = set()
    for sample in _images(samples, tally, drawn=True, usages=True):
        tally.losses[_NO_LABELS] += len(_class_labels(sample))
        placed = _place(sample, sources, out, COCO_FOLDER, tally, copy=copy)
        drawing = _one_drawing(_without_signed_scores(sample), tally)
        size = None if placed is None or drawing is None else _size(sample, drawing, sources, tally)
        if placed is None or drawing is None or size is None:
            continue
        known = tuple(shape for shape in drawing.shapes if shape.kind in COCO_KINDS)
        for shape in drawing.shapes:
            if shape.kind not in COCO_KINDS:
                tally.losses[f"{{}} shapes of kind {shape.kind} were left out: COCO knows boxes and polygons only"] += 1
        if known or drawing.is_empty:
            place = placed.removeprefix(f"{COCO_FOLDER}/")
            listed.append((sample.usage.lower(), place, size, replace(drawing, shapes=known)))
            if not any(label.by_human for label in _drawn_labels(sample)):
                automatic.add(place)
            tally.counts["labels"] += 1
    names = sorted({shape.name for *_, drawing in listed for shape in drawing.shapes})
    for usage in sorted({usage for usage, *_ in listed}) or [""]:
        mine = [(name, size, drawing) for of, name, size, drawing in listed if of == usage]
        document, written = format_coco(mine, names, automatic)
        tally.counts["shapes"] += written.total()
        out.write(f"annotations{'-' * bool(usage)}{usage}.json", document)
    return tally


def _box_lines(
    sample: Sample, drawing: Drawing, size: tuple[int, int, int], index: Mapping[str, int], tally: Tally
) -> list[str]:
    """The lines `index x y w h` of a drawing; counts the shapes that are no boxes, and boxes that reach out."""
    lines = []
    for shape in drawing.shapes:
        if shape.kind != "bndbox":
            tally.losses[f"{{}} shapes of kind {shape.kind} were left out: YOLO knows boxes only"] += 1
            continue
        (x1, y1, x2, y2), (width, height, _) = shape.xyxy, size
        left, right = (min(max(x / width, 0.0), 1.0) for x in (x1, x2))
        top, bottom = (min(max(y / height, 0.0), 1.0) for y in (y1, y2))
        name = _one_line(shape.name)
        if not (name and left < right and top < bottom):
            reason = f"box {shape.name!r} ({x1:g}, {y1:g}, {x2:g}, {y2:g}) of {width}x{height} pixels was left out: "
            reason += "it covers nothing of the image" if name else "it has no name"
            tally.failures.append(Failure(sample.source, "annotation", reason))
            continue
        tally.losses[_CLIPPED] += min(x1, y1) < 0 or x2 > width or y2 > height
        numbers = ((left + right) / 2, (top + bottom) / 2, right - left, bottom - top)
        lines.append(f"{index[name]} " + " ".join(f"{number:.9f}" for number in numbers))
    return lines


def _images(samples: Iterable[Sample], tally: Tally, *, drawn: bool, usages: bool = False) -> Iterator[Sample]:
    """The samples that are images; counts the others, and what no format (or none without `usages`) can say of them.
    drawn: whether the format has drawings, or labels of whole images."""
    for sample in samples:
        if not sample.is_image:
            tally.losses[_NOT_IMAGES] += 1
            continue
        if any(_is_drawn(label) == drawn for label in sample.waiting):
            tally.losses[_UNCONFIRMED] += 1
        tally.losses[_NO_USAGE] += bool(sample.usage) and not usages
        yield sample


def _place(
    sample: Sample, sources: Sources, out: OutFolder, folder: str, tally: Tally, *, copy: bool, sidecar: str = ""
) -> str | None:
    """Where the image now lies in `out`; None, and a failure, when it could not be read."""
    try:
        path = sources.path(sample.source)
        name = safe_name(path.name or "image")
        target = out.claim(f"{folder}/{name}" if folder else name, sidecar=sidecar)
        out.place(path, target, copy=copy)
    except ImageError as error:
        tally.failures.append(Failure(sample.source, error.kind, str(error)))
        return None
    tally.counts["images"] += 1
    if ending_of(name) not in IMAGE_EXTENSIONS:
        tally.losses[_NO_EXTENSION] += 1
    return target


def write_drawing(source: str, drawing: Drawing, out: OutFolder, name: str, tally: Tally) -> bool:
    """Write the drawing of the sample `source`; False, and a failure, when XML cannot hold it."""
    try:
        content = format_voc(drawing)
    except OutputError as error:
        tally.failures.append(Failure(source, "annotation", f"its drawing was left out: {error}"))
        return False
    out.write(name, content)
    return True


def _size(sample: Sample, drawing: Drawing, sources: Sources, tally: Tally) -> tuple[int, int, int] | None:
    """What the drawing tells, for its shapes are in those pixels, else what the image says; None, and a failure, also
    where both are known and differ in shape: nobody knows what its numbers mean then, unless there are none."""
    stated = known_size(drawing)
    try:
        size = image_size(sources.path(sample.source))
    except ImageError as error:
        if stated is not None:
            return stated
        reason = f"its boxes cannot be written, for its size is not known: {error}"
        tally.failures.append(Failure(sample.source, error.kind, reason))
        return None
    if stated is not None and scale_to(*size[:2], stated[:2]) is None:
        if not drawing.shapes:
            return size
        reason = f"its file states {stated[0]}x{stated[1]} pixels, the image has {size[0]}x{size[1]}: boxes left out"
        tally.failures.append(Failure(sample.source, "annotation", reason))
        return None
    return stated or size


def _count_drawings(sample: Sample, tally: Tally) -> None:
    tally.losses[_NO_DRAWINGS] += sum(_is_drawn(label) for label in standing_labels(sample))


def _class_labels(sample: Sample) -> tuple[str, ...]:
    """The distinct labels of the whole image, in their order."""
    named = (label.name for label in standing_labels(sample) if not _is_drawn(label) and label.name)
    return tuple(dict.fromkeys(named))


def _is_drawn(label: Label) -> bool:
    return label.type in (OBJECT_DETECTION, IMAGE_SEGMENTATION) or label.drawing is not None


def _one_drawing(sample: Sample, tally: Tally) -> Drawing | None:
    """All that stands drawn on a sample (`_drawn_labels`) as one drawing, in pixels of the first that states a size;
    None when nothing is. A drawing not read is a failure, and so are drawings of which nobody knows how they lie
    together."""
    labels = _drawn_labels(sample)
    tally.losses[_OTHER_TYPE] += sum(_is_drawn(label) for label in standing_labels(sample)) - len(labels)
    for label in labels:
        if label.drawing is None:
            reason = f"drawing {label.annotation_loc or '(nowhere)'} has not been read; the image goes without it"
            tally.failures.append(Failure(sample.source, "annotation", reason))
    drawings = tuple(drawings_of(labels))
    if len(drawings) < 2:
        return drawings[0] if drawings else None
    size = next((size for drawing in drawings if (size := known_size(drawing))), None)
    shapes: list[Shape] = []
    for drawing in drawings:
        there = shapes_at(drawing, size)
        if there is None:
            assert size is not None and drawing.size is not None
            reason = f"its drawings state {size[0]}x{size[1]} and {drawing.size[0]}x{drawing.size[1]} pixels: left out"
            tally.failures.append(Failure(sample.source, "annotation", reason))
            return None
        shapes += there
    extra = {key: value for drawing in reversed(drawings) for key, value in drawing.extra.items()}
    return replace(drawings[0], shapes=tuple(shapes), size=size, extra=extra)


def _drawn_labels(sample: Sample) -> list[Label]:
    """The standing labels with drawings, of one type: where there are objects and a segmentation the objects, unless a
    machine found none. One file cannot say which shape is whose."""
    labels = [label for label in standing_labels(sample) if _is_drawn(label)]
    objects = [label for label in labels if label.type != IMAGE_SEGMENTATION]
    some = any(label.by_human or (label.drawing is not None and label.drawing.shapes) for label in objects)
    return objects if some else [label for label in labels if label.type == IMAGE_SEGMENTATION] or objects


def _without_signed_scores(sample: Sample) -> Sample:
    """The sample, what people drew without confidences: those that a file still has are what a machine once thought."""
    return replace(sample, labels=tuple(_without_scores(each) if each.by_human else each for each in sample.labels))


def _without_scores(label: Label) -> Label:
    if label.drawing is None:
        return label
    shapes = tuple(replace(shape, confidence=None) for shape in label.drawing.shapes)
    return replace(label, drawing=replace(label.drawing, shapes=shapes))


def _text(lines: Iterable[str]) -> bytes:
    """The lines of a text file, UTF-8; half a surrogate pair, which a label may hold, goes as labels.csv has it."""
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogatepass")


def _one_line(name: str, tally: Tally | None = None) -> str:
    """The label as a line of a text file, "" when nothing of it is left; counts a change."""
    line = name.replace("\n", " ").strip()
    if tally is not None:
        tally.losses[_ONE_LINE] += line != name
    return line


#: Every folder format that can be written, by name.
WRITERS: Final = {
    "tree": write_tree,
    "tile": write_tile,
    "voc": write_voc_folder,
    "yolo": write_yolo,
    "coco": write_coco,
}
