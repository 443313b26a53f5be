"""From files to pixels: each file read and decoded once, in parallel, in order, a bounded number at a time.

In: paths. Out: a `Picture` (RGB uint8 HWC, EXIF orientation applied) for each file that can be read, an
ImageError for each that cannot; the stream goes on. JPEGs much larger than needed are decoded at a half, a quarter
or an eighth of their size, which the decoder does faster than the whole.

Anything that is not RGB becomes RGB: grey, 16-bit and float (scaled to their full range), CMYK, palettes;
transparent pixels are laid on white. `Picture.note` says what was converted. Knows nothing of what is done
with the pixels.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG
from typing import Final, TypeVar

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from engine.errors import ImageError
from engine.jpeg import SIDEWAYS, orientation_of, plain_size
from engine.pillow import any_size

Pixels = npt.NDArray[np.uint8]
T = TypeVar("T")

#: A JPEG is decoded smaller while its short side keeps LEAST_SIDE pixels and, beyond one half, its area keeps
#: LEAST_AREA: 640x480 is decoded at a half, 12 megapixels at a quarter, 48 at an eighth. Stronger reductions
#: would save little (12 megapixels: an eighth 180/s, a quarter 163/s, the whole 58/s; 2 threads) and hide blur.
LEAST_SIDE: Final = 240
LEAST_AREA: Final = 600_000

MAX_PIXELS: Final = 300_000_000
DIGEST_BYTES: Final = 16

#: What may have been converted on the way to RGB.
NOTES: Final = (
    "",
    "transparent pixels laid on white",
    "more than 8 bits a channel scaled to 8",
    "another color space (CMYK, Lab, ...) converted to RGB",
)

#: Pictures a worker takes at once: enough to hide the cost of handing over, few enough to stay small.
_CHUNK: Final = 16

#: IMREAD_REDUCED_COLOR_2 and its like say BGR; with GRAYSCALE in its place the scale remains, and RGB is said apart.
_REDUCED = {
    1: cv2.IMREAD_COLOR_RGB,
    2: cv2.IMREAD_COLOR_RGB | cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_COLOR_RGB | cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_COLOR_RGB | cv2.IMREAD_REDUCED_GRAYSCALE_8,
}


@dataclass(frozen=True, slots=True)
class Picture:
    """One decoded image.

    rgb: (h, w, 3) uint8, upright, decoded at 1/reduction of the full size. width, height: pixels of the full
    upright image. note: what had to be converted, one of NOTES.
    """

    rgb: Pixels
    width: int
    height: int
    reduction: int
    note: str = ""


def read_picture(path: Path, *, max_pixels: int = MAX_PIXELS, reduce: bool = True) -> Picture:
    """Read and decode one image file; `reduce` allows a smaller decode of a large JPEG.

    Raises ImageError: missing, empty, not a file, not an image, broken, or more than max_pixels.
    """
    return decode_picture(read_content(path), max_pixels=max_pixels, reduce=reduce)


def read_content(path: Path) -> bytes:
    """The bytes of a regular file that holds something. Raises ImageError."""
    try:
        if not S_ISREG(os.stat(path).st_mode):  # before it is opened: a pipe would wait for a writer
            raise ImageError("not_a_file", "expected an image file, got something that is not a regular file")
        with path.open("rb", buffering=0) as file:
            content = file.read()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ImageError("missing", "no such file") from error
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        raise ImageError("unreadable", f"cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not content:
        raise ImageError("empty", "expected an image, got 0 bytes")
    return content


def digest_of(content: bytes) -> bytes:
    """The key under which what was computed from these bytes is kept: the first DIGEST_BYTES of SHA-256."""
    return hashlib.sha256(content).digest()[:DIGEST_BYTES]


def decode_picture(content: bytes, *, max_pixels: int = MAX_PIXELS, reduce: bool = True) -> Picture:
    """Decode the bytes of an image file. Raises ImageError: not an image, broken, or more than max_pixels."""
    return _decoded(content, reduction_for if reduce else lambda width, height: 1, max_pixels)


def decode_at(content: bytes, scale_of: Callable[[int, int], float], *, max_pixels: int = MAX_PIXELS) -> Picture:
    """Decode an image that is shown at `scale_of(width, height)` of its full size: reduced as far as that loses nothing
    of it. Raises ImageError as `decode_picture`."""

    def reduction(width: int, height: int) -> int:
        found, scale = reduction_for(width, height), scale_of(width, height)
        while found > 1 and scale * found > 1:
            found //= 2
        return found

    return _decoded(content, reduction, max_pixels)


def _decoded(content: bytes, reduction: Callable[[int, int], int], max_pixels: int) -> Picture:
    """reduction: of a JPEG of this width and height."""
    with _own_errors(content):
        if size := plain_size(content):  # Pillow takes ten times as long to read a header
            _check_size(size, max_pixels)
            return _decode_jpeg(content, size, reduction(*size))
        with any_size(), Image.open(io.BytesIO(content)) as image:
            _check_size(image.size, max_pixels)
            return _decode_opened(image, content, reduction)


def reduction_for(width: int, height: int) -> int:
    """By how much a JPEG of this size is decoded smaller: 1, 2, 4 or 8 (see LEAST_SIDE, LEAST_AREA)."""
    short = min(width, height)
    for reduction in (8, 4):
        if short >= LEAST_SIDE * reduction and width * height >= LEAST_AREA * reduction**2:
            return reduction
    return 2 if short >= LEAST_SIDE * 2 else 1


def converted_in_words(notes: Mapping[str, int]) -> Iterator[str]:
    """notes: how many images had to be converted, by what was done."""
    return (f"{count:,} images: {what}" for what, count in notes.items())


def stream(
    paths: Sequence[Path],
    work: Callable[[int, bytes], T],
    *,
    threads: int,
    stopped: Callable[[], bool] = lambda: False,
) -> Iterator[list[T | ImageError]]:
    """Read every file in `threads` threads and run `work(position, bytes)` on each there.

    Results come in the order of the paths, in short lists, an ImageError in place of a file that could not be used. A
    few lists at most are held at a time. Ends early, after what is in flight, once `stopped()` says so.
    """

    def run(positions: range) -> list[T | ImageError]:
        return [_attempt(i, paths[i], work) for i in positions]

    with ThreadPoolExecutor(threads, thread_name_prefix="images") as pool:
        waiting: deque[Future[list[T | ImageError]]] = deque()
        try:
            for positions in _chunks(len(paths), threads):
                if stopped():
                    break
                waiting.append(pool.submit(run, positions))
                if len(waiting) > 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _chunks(count: int, threads: int) -> Iterator[range]:
    """What a worker takes at once: _CHUNK, and less towards the end, so that all workers are done together."""
    start = 0
    while start < count:
        stop = start + min(_CHUNK, math.ceil((count - start) / (2 * threads)))
        yield range(start, stop)
        start = stop


def _attempt(i: int, path: Path, work: Callable[[int, bytes], T]) -> T | ImageError:
    try:
        return work(i, read_content(path))
    except ImageError as error:
        return error
    except MemoryError:
        return ImageError("too_large", "not enough memory to decode it")


@contextmanager
def _own_errors(content: bytes) -> Iterator[None]:
    """Foreign errors inside become ImageErrors."""
    try:
        yield
    except UnidentifiedImageError as error:
        raise ImageError("not_an_image", f"no decoder knows these {len(content):,} bytes") from error
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # a damaged file makes a decoder fail in any way it likes
        raise ImageError("broken", f"cannot be decoded: {error}".splitlines()[0]) from error


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise ImageError("too_large", f"must have at most {max_pixels:,} pixels, got {width}x{height}")


def _decode_opened(image: Image.Image, content: bytes, reduction: Callable[[int, int], int]) -> Picture:
    """Decode an image whose header Pillow has read, and nothing else yet."""
    if image.format == "PNG" and "exif" not in image.info:
        image.load()  # it may come after the pixels
    # A TIFF is turned upright by its decoder, and tells the size that it will have then.
    orientation = 1 if image.format == "TIFF" else orientation_of(image)
    size = image.size[::-1] if orientation in SIDEWAYS else image.size
    if image.format == "JPEG" and image.mode in ("RGB", "L"):
        return _decode_jpeg(content, size, reduction(*size))
    rgb, note = _to_rgb(image)
    return Picture(_upright(rgb, orientation), *size, 1, note)


def _decode_jpeg(content: bytes, size: tuple[int, int], reduction: int) -> Picture:
    """Decode a JPEG, grey or of three components, of this upright size; OpenCV turns it upright itself."""
    rgb = cv2.imdecode(np.frombuffer(content, np.uint8), _REDUCED[reduction])
    if rgb is None:
        raise ImageError("broken", "cannot be decoded: the JPEG is truncated or damaged")
    return Picture(np.asarray(rgb, np.uint8), *size, reduction)


def _to_rgb(image: Image.Image) -> tuple[Image.Image, str]:
    """The image as RGB, and what was done to it: one of NOTES."""
    mode = image.mode
    if image.has_transparency_data:
        layered = image.convert("RGBA")
        white = Image.new("RGBA", layered.size, "white")
        return Image.alpha_composite(white, layered).convert("RGB"), NOTES[1]
    if mode in ("I", "F") or mode.startswith("I;"):
        return Image.fromarray(_to_8_bits(np.asarray(image))).convert("RGB"), NOTES[2]
    return image.convert("RGB"), "" if mode in ("RGB", "L", "1", "P") else NOTES[3]


def _to_8_bits(values: npt.NDArray[np.generic]) -> Pixels:
    """16-bit values by their full range; wider integers and floats by their own largest value, at least 1."""
    wide = np.nan_to_num(values.astype(np.float64), posinf=0.0, neginf=0.0)
    highest = 65535.0 if values.dtype.itemsize == 2 or wide.max() > 255 else 255.0 if wide.max() > 1 else 1.0
    scaled: Pixels = np.clip(wide * (255.0 / max(highest, wide.max())), 0, 255).astype(np.uint8)
    return scaled


def _upright(image: Image.Image, orientation: int) -> Pixels:
    transposition = _TRANSPOSITIONS.get(orientation)
    return np.array(image if transposition is None else image.transpose(transposition), np.uint8)


_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
