"""Images of any size as inputs of a detector: one size for all, proportions kept, on disk.

An image is made as large as the canvas allows, put into its upper left corner, and the rest is grey. `Canvases` keeps
them on disk, keyed by the bytes of their files: an interrupted pass goes on where it stopped, and pixels never fill the
memory. Knows nothing of boxes.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engine.detect.network import CELL
from engine.errors import Failure, ImageError, Stopped
from engine.images import NOTES, Picture, Pixels, decode_at, digest_of, stream
from engine.samples import Sample
from engine.sources import Sources
from engine.store import Store

Seen = TypeVar("Seen")
Answer = TypeVar("Answer")

GREY: Final = 128
#: Raise it when the same image gives another canvas.
_VERSION: Final = 1
#: Images that networks look at together at most, and pixels of them: large ones take room.
_BATCH: Final = 16
_BATCH_PIXELS: Final = 2**24


@dataclass(frozen=True, slots=True)
class Canvas:
    """height, width: in pixels, multiples of CELL."""

    height: int
    width: int

    def __post_init__(self) -> None:
        assert self.height % CELL == 0 and self.width % CELL == 0

    @property
    def batch(self) -> int:
        """How many images networks look at together."""
        return max(1, min(_BATCH, _BATCH_PIXELS // (self.height * self.width)))

    def scale(self, width: int, height: int) -> float:
        """Pixels of the canvas for one of an image of this size."""
        return min(self.width / width, self.height / height)

    def holding(self, rgb: Pixels, width: int, height: int) -> Pixels:
        """(h, w, 3) uint8 of an image of this full size, decoded at whatever scale -> (height, width, 3)."""
        scale = self.scale(width, height)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        shrinks = rgb.shape[1] >= size[0] and rgb.shape[0] >= size[1]
        interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        canvas = np.full((self.height, self.width, 3), GREY, np.uint8)
        canvas[: size[1], : size[0]] = cv2.resize(rgb, size, interpolation=interpolation)
        return canvas

    def of(self, content: bytes, max_pixels: int) -> tuple[Pixels, Picture]:
        """The canvas of the bytes of an image file, and its picture. Raises ImageError."""
        picture = decode_at(content, self.scale, max_pixels=max_pixels)
        return self.holding(picture.rgb, picture.width, picture.height), picture


@dataclass(frozen=True, slots=True)
class Canvases:
    """m images on disk. index: (m,) int64, their positions among the samples. sizes: (m, 2) int64, width and height in
    pixels. digest: 64 hexadecimal digits of the bytes of their files. failures: of samples that could not be read.
    notes: how many had to be converted, by what was done."""

    canvas: Canvas
    index: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    path: Path
    places: npt.NDArray[np.int64]
    digest: str
    failures: tuple[Failure, ...]
    notes: dict[str, int]

    def __len__(self) -> int:
        return len(self.index)

    @property
    def scales(self) -> npt.NDArray[np.float64]:
        """(m,) pixels of the canvas for one of the image."""
        found: npt.NDArray[np.float64] = np.array([self.canvas.scale(*size) for size in self.sizes.tolist()])
        return found

    def rows(self, which: Tensor) -> Tensor:
        """The canvases (B, 3, H, W) uint8, channels last, at these positions of `index`."""
        height, width = self.canvas.height, self.canvas.width
        with self.path.open("rb") as file:
            places = self.places[which.numpy()].tolist()
            content = b"".join(os.pread(file.fileno(), 3 * height * width, place) for place in places)
        pixels = np.frombuffer(bytearray(content), np.uint8).reshape(-1, height, width, 3)
        return torch.from_numpy(pixels).permute(0, 3, 1, 2)


_HEAD: Final = np.dtype([("size", "<u4", 2), ("note", "<u4")])


def read_canvases(
    samples: Sequence[Sample],
    sources: Sources,
    rows: Sequence[int],
    canvas: Canvas,
    *,
    folder: Path,
    threads: int,
    max_pixels: int,
    progress: Callable[[int], None] = lambda done: None,
    stopped: Callable[[], bool] = lambda: False,
) -> Canvases:
    """The images of the samples at these rows. folder: where they are kept; what is there is used and extended. Raises
    Stopped, with everything done so far kept, once `stopped()` says so."""
    located, lost = located_images(samples, sources, rows)
    failures = [failure for _, failure in lost]
    path = folder / f"canvases-{_VERSION}-{canvas.width}x{canvas.height}.store"
    index, sizes, places = [], [], []
    notes: Counter[str] = Counter()
    digest = hashlib.sha256()
    done = 0
    with Store(path) as store:

        def work(at: int, content: bytes) -> tuple[bytes, bytes | None]:
            key = digest_of(content)
            if key in store:
                return key, None
            pixels, picture = canvas.of(content, max_pixels)
            head = np.zeros(1, _HEAD)
            head["size"], head["note"] = (picture.width, picture.height), NOTES.index(picture.note)
            return key, head.tobytes() + pixels.tobytes()

        for batch in stream([path for _, path in located], work, threads=threads, stopped=stopped):
            for (row, _), found in zip(located[done:], batch, strict=False):
                if isinstance(found, ImageError):
                    failures.append(Failure(samples[row].source, found.kind, str(found)))
                    continue
                key, payload = found
                place = store.place(key) if payload is None else store.put(key, payload)
                head = np.frombuffer(store.read(place, _HEAD.itemsize), _HEAD, count=1)[0]
                digest.update(key)
                index.append(row)
                sizes.append(head["size"])
                places.append(place + _HEAD.itemsize)
                notes[NOTES[head["note"]]] += 1
            done += len(batch)
            store.flush()
            progress(done)
    if done < len(located):
        raise Stopped(f"stopped after {done:,} of {len(located):,} images")
    return Canvases(
        canvas,
        np.array(index, np.int64),
        np.array(sizes, np.int64).reshape(-1, 2),
        path,
        np.array(places, np.int64),
        digest.hexdigest(),
        tuple(failures),
        {note: count for note, count in sorted(notes.items()) if note},
    )


def asked_files(
    samples: Sequence[Sample],
    sources: Sources,
    rows: Sequence[int],
    work: Callable[[int, bytes], Seen],
    ask: Callable[[list[Seen]], Iterable[Answer]],
    *,
    batch: int,
    threads: int,
    progress: Callable[[int], None],
    stopped: Callable[[], bool],
) -> Iterator[tuple[int, Answer | Failure]]:
    """What is said of the files of the samples at these rows, each with its row, or why it could not be read.

    work: position and bytes of a file -> what is asked about, in a thread. ask: `batch` of these -> an answer each.
    progress: called with the number of files done. Raises Stopped once `stopped()` says so.
    """
    located, lost = located_images(samples, sources, rows)
    yield from lost
    waiting: list[tuple[int, Seen]] = []
    done = 0

    def asked() -> Iterator[tuple[int, Answer]]:
        if waiting:
            yield from zip([row for row, _ in waiting], ask([seen for _, seen in waiting]), strict=True)
            waiting.clear()
            progress(done)

    for found in stream([path for _, path in located], work, threads=threads, stopped=stopped):
        for each in found:
            row = located[done][0]
            done += 1
            if isinstance(each, ImageError):
                yield row, Failure(samples[row].source, each.kind, str(each))
                continue
            waiting.append((row, each))
            if len(waiting) == batch:
                yield from asked()
    if done < len(located):
        raise Stopped(f"stopped after {done:,} of {len(located):,} images")
    yield from asked()
    progress(done)


def located_images(
    samples: Sequence[Sample], sources: Sources, rows: Sequence[int]
) -> tuple[list[tuple[int, Path]], list[tuple[int, Failure]]]:
    """Row and path of those that lie on this machine, and row and failure of each other one."""
    located, lost = [], []
    for row in rows:
        try:
            located.append((row, sources.path(samples[row].source)))
        except ImageError as error:
            lost.append((row, Failure(samples[row].source, error.kind, str(error))))
    return located, lost
