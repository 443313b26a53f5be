"""engine.jpeg: the size that Pillow finds, or no answer; never another size."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from engine.jpeg import plain_size


def jpeg(mode: str = "RGB", size: tuple[int, int] = (61, 37), **options: object) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    pixels = {"L": noise[..., 0], "RGB": noise[..., :3], "CMYK": noise}[mode]
    buffer = io.BytesIO()
    Image.fromarray(pixels, mode=mode).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def oriented(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return jpeg(exif=exif)


def with_segment(marker: int, payload: bytes, content: bytes = jpeg()) -> bytes:
    """The same JPEG with one more segment at its beginning."""
    return content[:2] + bytes((0xFF, marker)) + (len(payload) + 2).to_bytes(2, "big") + payload + content[2:]


def changed(at: int, value: int) -> bytes:
    """The same JPEG with one byte of its frame header changed: 0 marker, 3 bits, 4-5 height, 8 components."""
    content = bytearray(jpeg())
    content[content.index(b"\xff\xc0") + 1 + at] = value
    return bytes(content)


@pytest.mark.parametrize(
    "content",
    [
        jpeg(),
        jpeg("L"),
        jpeg(progressive=True),
        jpeg(optimize=True),
        jpeg(subsampling=0, quality=100),
        jpeg(restart_marker_blocks=1),
        jpeg(comment=b"\xff\xc0 is no frame here"),
        jpeg(size=(1, 1)),
        jpeg(size=(1, 3000)),
        jpeg(size=(65500, 1)),
        with_segment(0xE0, b"JFXX\0\x10"),
    ],
)
def test_a_plain_jpeg_has_the_size_that_pillow_finds(content: bytes) -> None:
    assert plain_size(content) == Image.open(io.BytesIO(content)).size


@pytest.mark.parametrize(
    "content",
    [
        *(oriented(orientation) for orientation in range(1, 9)),
        jpeg("CMYK"),
        jpeg(icc_profile=b"a profile"),
        with_segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x/>"),
        with_segment(0xE2, b"MPF\0"),
        with_segment(0xEE, b"Adobe\0d\0\0\0\0\0"),
        jpeg()[:2] + b"\xff" + jpeg()[2:],  # a fill byte before a marker
        jpeg()[:2] + b"\0" + jpeg()[2:],
        with_segment(0xFE, b"")[:4] + b"\0\0" + jpeg()[2:],  # a segment shorter than its own length
        changed(0, 0xC3),
        changed(0, 0xC9),
        changed(3, 12),
        changed(8, 2),
        changed(8, 1),
        changed(5, 0),  # 37 rows become 0: the scan tells how many
        jpeg()[2:],
        b"",
        b"\xff\xd8",
        b"\x89PNG\r\n\x1a\n",
    ],
)
def test_everything_else_is_left_to_a_full_reader(content: bytes) -> None:
    assert plain_size(content) is None


def test_two_frames_are_in_doubt() -> None:
    content = jpeg()
    frame = content.index(b"\xff\xc0")
    assert plain_size(content[:frame] + content[frame : frame + 19] + content[frame:]) is None


def test_a_header_cut_anywhere_has_no_size() -> None:
    content = jpeg()
    scan = content.index(b"\xff\xda")
    assert all(plain_size(content[:length]) is None for length in range(scan + 4))


def test_a_damaged_header_never_has_another_size_than_pillow_finds() -> None:
    rng = np.random.default_rng(0)
    content = jpeg(size=(16, 16))
    scan = content.index(b"\xff\xda")
    for _ in range(2000):
        damaged = bytearray(content)
        damaged[rng.integers(scan)] = rng.integers(256)
        size = plain_size(bytes(damaged))
        try:
            expected = Image.open(io.BytesIO(damaged)).size
        except Exception:
            continue
        assert size in (None, expected)
