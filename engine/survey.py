"""One pass over the images of a data set: features, box features and thumbnails, each file decoded once.

In: samples and where they lie. Out: a `Survey`, parallel to the samples, with a `Failure` for each that could not be
read. What was computed is kept in a store on disk, keyed by the bytes of the file and its boxes: an interrupted
pass goes on where it stopped, and thumbnails never fill the memory. Knows nothing of what the numbers are for.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engine import features as measure
from engine.errors import Failure, ImageError, Stopped
from engine.images import (
    MAX_PIXELS,
    NOTES,
    Picture,
    Pixels,
    decode_at,
    decode_picture,
    digest_of,
    reduction_for,
    stream,
)
from engine.samples import Drawing, Sample, Shape, scale_to
from engine.sources import Sources
from engine.store import Store
from engine.threads import processors, torch_threads

#: Light and color are averages over pixels: they are measured on an even grid of about GRID x GRID of them.
GRID: Final = 96

#: Columns of Survey.features and of Survey.boxes.
COLUMNS: Final = tuple(measure.IMAGE_FEATURES)
BOX_COLUMNS: Final = ("aspect_ratio", "area_share", "edge", "brightness", "clarity", "overlap")

#: Part of a store's name: raise it when a number that the pass computes changes its meaning.
VERSION: Final = 2

_Numbers = npt.NDArray[np.float32]
_HEAD: Final = np.dtype(
    [
        ("size", "<u4", 2),
        ("note", "<u4"),
        ("features", "<f4", len(COLUMNS)),
        ("box_area_std", "<f4"),
        ("boxes", "<u4"),
    ]
)


@dataclass(frozen=True, slots=True)
class Survey:
    """What one pass found, parallel to its n samples.

    features: (n, 7) float32, columns COLUMNS; a row of NaN where there is no readable image. sizes: (n, 2) int64,
    width and height in pixels, 0 where there is none. boxes: for each sample (m, 6) float32, columns
    BOX_COLUMNS. box_area_std: (n,) float32. thumbnails: when they were asked for. failures: in the order of the
    samples. notes: how many images had to be converted, by what was done. reused: how many the store knew.
    """

    features: _Numbers
    sizes: npt.NDArray[np.int64]
    boxes: tuple[_Numbers, ...]
    box_area_std: _Numbers
    thumbnails: Thumbnails | None
    failures: tuple[Failure, ...]
    notes: dict[str, int]
    reused: int

    @property
    def readable(self) -> npt.NDArray[np.bool_]:
        """(n,) True where there is an image that could be read."""
        return self.sizes[:, 0] > 0

    def column(self, name: str) -> _Numbers:
        """One image feature of all samples, (n,)."""
        return self.features[:, COLUMNS.index(name)]


@dataclass(frozen=True, slots=True)
class Thumbnails:
    """Square thumbnails (side x side, RGB) on disk, of the samples that have a readable image.

    index: (m,) int64, the positions of these samples.
    """

    index: npt.NDArray[np.int64]
    side: int
    path: Path
    places: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.index)

    def batches(self, size: int = 256) -> Iterator[Tensor]:
        """Thumbnails (B, 3, side, side) uint8, `size` at a time, in the order of `index`."""
        for start in range(0, len(self), size):
            yield self.rows(np.arange(start, min(start + size, len(self))))

    def rows(self, which: npt.NDArray[np.int64]) -> Tensor:
        """The thumbnails (B, 3, side, side) uint8 at these positions of `index`."""
        bytes_each = 3 * self.side**2
        with self.path.open("rb") as file:
            content = b"".join(os.pread(file.fileno(), bytes_each, int(place)) for place in self.places[which])
        pixels = np.frombuffer(bytearray(content), np.uint8).reshape(-1, self.side, self.side, 3)
        return torch.from_numpy(pixels).permute(0, 3, 1, 2)


def survey(
    samples: Sequence[Sample],
    sources: Sources,
    *,
    folder: Path,
    thumbnail_side: int | None = None,
    threads: int | None = None,
    max_pixels: int = MAX_PIXELS,
    progress: Callable[[int], None] = lambda done: None,
    stopped: Callable[[], bool] = lambda: False,
) -> Survey:
    """Measure every image sample, `threads` (all cores) at once.

    folder: where the store lies; one that is there is used and extended. progress: called with how many
    images are done. Raises Stopped, with everything done so far in the store, once `stopped()` says so.
    """
    located, failures = _locate(samples, sources)
    todo = [i for i, _ in located]
    rows = _Rows(len(samples))
    path = folder / f"survey-{VERSION}-{thumbnail_side or 0}.store"
    done = 0
    with Store(path) as store, _one_thread_each():

        def work(k: int, content: bytes) -> _Measured:
            sample = samples[todo[k]]
            key = digest_of(content + _drawn(sample))
            return _Measured(key) if key in store else _measure(key, content, sample, thumbnail_side, max_pixels)

        paths = [path for _, path in located]
        for batch in stream(paths, work, threads=threads or processors(), stopped=stopped):
            for i, found in zip(todo[done:], batch, strict=False):
                if isinstance(found, ImageError):
                    failures[i] = Failure(samples[i].source, found.kind, str(found))
                else:
                    rows.take(i, store, found)
            done += len(batch)
            store.flush()
            progress(done)
    if done < len(todo):
        raise Stopped(f"stopped after {done:,} of {len(todo):,} images")
    return rows.survey([failures[i] for i in sorted(failures)], path, thumbnail_side)


class _Rows:
    """The arrays of a survey while they fill."""

    def __init__(self, n: int) -> None:
        self.features = np.full((n, len(COLUMNS)), np.nan, np.float32)
        self.sizes = np.zeros((n, 2), np.int64)
        self.boxes = [_NO_BOXES] * n
        self.box_area_std = np.zeros(n, np.float32)
        self.places = np.zeros(n, np.int64)
        self.notes: Counter[str] = Counter()
        self.reused = 0

    def take(self, i: int, store: Store, found: _Measured) -> None:
        payload = found.payload()
        place = store.place(found.key) if payload is None else store.put(found.key, payload)
        head = np.frombuffer(payload or store.read(place, _HEAD.itemsize), _HEAD, count=1)[0]
        if count := int(head["boxes"]):
            numbers = store.read(place, 4 * count * len(BOX_COLUMNS), skip=_HEAD.itemsize)
            self.boxes[i] = np.frombuffer(numbers, "<f4").reshape(count, -1)
        self.features[i], self.sizes[i], self.box_area_std[i] = head["features"], head["size"], head["box_area_std"]
        self.places[i] = place + _HEAD.itemsize + 4 * count * len(BOX_COLUMNS)
        self.notes[NOTES[head["note"]]] += 1
        self.reused += payload is None

    def survey(self, failures: Sequence[Failure], path: Path, side: int | None) -> Survey:
        index = np.flatnonzero(self.sizes[:, 0])
        return Survey(
            features=self.features,
            sizes=self.sizes,
            boxes=tuple(self.boxes),
            box_area_std=self.box_area_std,
            thumbnails=Thumbnails(index, side, path, self.places[index]) if side else None,
            failures=tuple(failures),
            notes={note: count for note, count in sorted(self.notes.items()) if note},
            reused=self.reused,
        )


#: Corners of boxes lie within that, in pixels.
_BEYOND: Final = 1e9
_NO_BOXES: Final = np.zeros((0, len(BOX_COLUMNS)), np.float32)


def _locate(samples: Sequence[Sample], sources: Sources) -> tuple[list[tuple[int, Path]], dict[int, Failure]]:
    """The position and path of every image sample, and a failure for each whose source has no path here."""
    located, failures = [], {}
    for i, sample in enumerate(samples):
        if sample.is_image:
            try:
                located.append((i, sources.path(sample.source)))
            except ImageError as error:
                failures[i] = Failure(sample.source, error.kind, str(error))
    return located, failures


def box_array(shapes: Sequence[Shape]) -> _Numbers:
    """Rectangles -> (m, 4) float32 xyxy, finite: what lies beyond all images is as good as any other place there."""
    found = np.array([shape.xyxy for shape in shapes], np.float64).reshape(-1, 4)
    return np.asarray(found.clip(-_BEYOND, _BEYOND), np.float32)


def drawing_scale(drawing: Drawing, width: float, height: float) -> tuple[float, float] | None:
    """`scale_to`, of a drawing."""
    return scale_to(width, height, drawing.size[:2] if drawing.size else (0, 0))


def boxes_on(sample: Sample, width: float, height: float) -> _Numbers:
    """`Sample.boxes` -> (m, 4) float32 xyxy, finite, in pixels of the image, which has this size. Numbers that nobody
    understands, and those on an image of unknown size (0), stay as they are."""
    drawings = [label.drawing for label in sample.labels if label.drawing is not None]
    scales = [
        drawing_scale(drawing, width, height) or (1.0, 1.0)
        for drawing in drawings
        for shape in drawing.shapes
        if shape.kind == "bndbox"
    ]
    scaled = box_array(sample.boxes) * np.tile(np.array(scales).reshape(-1, 2), 2)
    return np.asarray(scaled.clip(-_BEYOND, _BEYOND), np.float32)


def _drawn(sample: Sample) -> bytes:
    """What tells the boxes of a sample from others on the same image: their numbers, and the sizes that files state."""
    boxes = box_array(sample.boxes).tobytes()
    drawings = [label.drawing for label in sample.labels if label.drawing is not None]
    stated = [(drawing.size, len(drawing.shapes)) for drawing in drawings]
    return boxes + repr(stated).encode() if boxes and any(size for size, _ in stated) else boxes


@dataclass(slots=True)
class _Measured:
    """What a thread found out about one image. head, rest: None and nothing when the store knows it already."""

    key: bytes
    head: npt.NDArray[np.void] | None = None
    rest: bytes = b""

    def payload(self) -> bytes | None:
        return None if self.head is None else self.head.tobytes() + self.rest


def _measure(key: bytes, content: bytes, sample: Sample, side: int | None, max_pixels: int) -> _Measured:
    """Everything the survey wants of one image."""
    picture = decode_picture(content, max_pixels=max_pixels)
    boxes = boxes_on(sample, picture.width, picture.height)
    rgb = _as_measured(picture)
    numbers = {
        "resolution": picture.width * picture.height,
        "aspect_ratio": picture.width / picture.height,
        **measure.light_of(_grid(rgb)),
        **measure.sharpness_of(rgb),
    }
    head = np.zeros(1, _HEAD)
    head["size"], head["note"] = (picture.width, picture.height), NOTES.index(picture.note)
    head["features"] = [numbers[name] for name in COLUMNS]
    of_boxes = _NO_BOXES
    if len(boxes):
        pixels = torch.from_numpy(rgb).permute(2, 0, 1)
        found = measure.box_features(torch.from_numpy(boxes), picture.width, picture.height, pixels)
        head["boxes"], head["box_area_std"] = found.count, found.area_std
        of_boxes = torch.stack([getattr(found, name) for name in BOX_COLUMNS], 1).numpy()
    thumbnail = b""
    if side and picture.reduction > 1 and side > min(picture.rgb.shape[:2]):
        thumbnail = squared(content, side, max_pixels)[0].tobytes()
    elif side:
        thumbnail = resized(picture.rgb, side).tobytes()
    return _Measured(key, head, of_boxes.astype("<f4").tobytes() + thumbnail)


def _as_measured(picture: Picture) -> Pixels:
    """The pixels in which an image of this size is measured, however its file is coded: as many as a JPEG has then."""
    reduction = reduction_for(picture.width, picture.height)
    if picture.reduction == reduction:
        return picture.rgb
    size = math.ceil(picture.width / reduction), math.ceil(picture.height / reduction)
    return np.asarray(cv2.resize(picture.rgb, size, interpolation=cv2.INTER_AREA), np.uint8)


def _grid(rgb: Pixels) -> Pixels:
    """An even grid of about GRID x GRID pixels: (3, n), red, green and blue."""
    height, width = rgb.shape[:2]
    step = max(1, round((height * width) ** 0.5 / GRID))
    first = step // 2
    grid = rgb[min(first, height - 1) :: step, min(first, width - 1) :: step].transpose(2, 0, 1)
    return np.ascontiguousarray(grid).reshape(3, -1)


def squared(content: bytes, side: int, max_pixels: int = MAX_PIXELS) -> tuple[Pixels, Picture]:
    """The bytes of an image file -> (side, side, 3), and its picture. Raises ImageError."""
    picture = decode_at(content, lambda width, height: side / min(width, height), max_pixels=max_pixels)
    return resized(picture.rgb, side), picture


def resized(rgb: Pixels, side: int) -> Pixels:
    """(h, w, 3) -> (side, side, 3): averages when it gets smaller, bilinear when it gets larger."""
    shrinks = rgb.shape[0] >= side and rgb.shape[1] >= side
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(rgb, (side, side), interpolation=interpolation), np.uint8)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """The workers are the parallelism: inside, torch and OpenCV use one thread an operation."""
    cv_threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        with torch_threads(1):
            yield
    finally:
        cv2.setNumThreads(cv_threads)
