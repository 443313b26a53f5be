"""engine.images: every format of picture comes out upright RGB; what cannot be read has a kind and a reason."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.errors import ImageError
from engine.folders.sizes import image_size
from engine.images import NOTES, _chunks, decode_at, decode_picture, read_picture, reduction_for, stream

#: 2 rows, 3 columns of 16-pixel squares, all of different colors, so that every turn shows.
SQUARES = (
    np.array([[[250, 0, 0], [0, 250, 0], [0, 0, 250]], [[250, 250, 0], [0, 250, 250], [250, 0, 250]]], np.uint8)
    .repeat(16, 0)
    .repeat(16, 1)
)


def encoded(image: Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def turned(orientation: int) -> np.ndarray:
    """What a viewer shows of SQUARES stored with this EXIF orientation (TIFF 6.0, tag 274)."""
    stored = SQUARES
    return {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.transpose(1, 0, 2),
        6: np.rot90(stored, -1),
        7: stored[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(stored, 1),
    }[orientation]


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_comes_out_upright(format: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}.get(format, {})
    picture = decode_picture(encoded(Image.fromarray(SQUARES), format, exif=exif, **options))
    expected = turned(orientation)
    assert (picture.height, picture.width) == expected.shape[:2] == picture.rgb.shape[:2]
    assert np.abs(picture.rgb[8::16, 8::16].astype(int) - expected[8::16, 8::16]).max() <= 12


def test_an_image_is_decoded_as_large_as_it_is_shown() -> None:
    rng = np.random.default_rng(0)
    content = encoded(Image.fromarray(rng.integers(0, 256, (800, 1000, 3), np.uint8)), "JPEG")
    for scale, reduction in ((0.3, 2), (0.5, 2), (0.51, 1), (2.0, 1)):
        picture = decode_at(content, lambda width, height, scale=scale: scale if width > height else 9.0)
        assert (picture.reduction, picture.width, picture.height) == (reduction, 1000, 800)
        assert picture.rgb.shape[:2] == (800 // reduction, 1000 // reduction)


def test_only_exif_turns_an_image(tmp_path: Path) -> None:
    """A JPEG whose EXIF was taken out, and whose XMP still tells how a camera was held."""
    content = encoded(Image.fromarray(SQUARES), "JPEG", quality=95, subsampling=0)
    xmp = b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf tiff:Orientation="6"/></x:xmpmeta>'
    path = tmp_path / "turned.jpg"
    path.write_bytes(content[:2] + b"\xff\xe1" + (len(xmp) + 2).to_bytes(2, "big") + xmp + content[2:])
    picture = read_picture(path)
    assert (picture.height, picture.width) == picture.rgb.shape[:2] == SQUARES.shape[:2]
    assert image_size(path) == (*SQUARES.shape[1::-1], 3)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ImageError, match="not a regular file"):
        read_picture(tmp_path / "pipe.png")


GREY = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
WIDE = Image.fromarray((np.arange(256, dtype=np.uint16) * 257).reshape(16, 16))
GLASS = Image.fromarray(np.dstack([SQUARES, np.zeros(SQUARES.shape[:2], np.uint8)]), "RGBA")


@pytest.mark.parametrize(
    ("content", "middle", "note"),
    [
        (encoded(GREY, "PNG"), [136, 136, 136], NOTES[0]),
        (encoded(GREY, "BMP"), [136, 136, 136], NOTES[0]),
        (encoded(GREY, "JPEG", quality=100), [136, 136, 136], NOTES[0]),
        (encoded(WIDE, "PNG"), [136, 136, 136], NOTES[2]),
        (encoded(WIDE, "TIFF"), [136, 136, 136], NOTES[2]),
        (encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=95), [254, 0, 0], NOTES[3]),
        (encoded(Image.new("RGB", (16, 16), (0, 200, 0)).quantize(4), "PNG"), [0, 200, 0], NOTES[0]),
        (encoded(Image.new("RGB", (16, 16), (0, 200, 0)), "WEBP", lossless=True), [0, 200, 0], NOTES[0]),
        (encoded(Image.new("1", (16, 16), 1), "PNG"), [255, 255, 255], NOTES[0]),
        (encoded(GLASS.resize((16, 16)), "PNG"), [255, 255, 255], NOTES[1]),
        (encoded(Image.new("LA", (16, 16), (0, 128)), "PNG"), [127, 127, 127], NOTES[1]),
    ],
)
def test_everything_becomes_rgb_and_says_so(content: bytes, middle: list[int], note: str) -> None:
    picture = decode_picture(content)
    assert picture.rgb.dtype == np.uint8
    assert picture.rgb.shape == (16, 16, 3)
    assert np.abs(picture.rgb[8, 8].astype(int) - middle).max() <= 2
    assert picture.note == note


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 5000), (5000, 1), (3, 2)])
@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_odd_sizes(width: int, height: int, format: str) -> None:
    picture = decode_picture(encoded(Image.new("RGB", (width, height), "red"), format))
    assert (picture.width, picture.height) == (width, height)
    assert picture.rgb.shape == (height, width, 3)


@pytest.mark.parametrize(
    ("width", "height", "reduction"),
    [(320, 240, 1), (640, 480, 2), (480, 640, 2), (4000, 3000, 4), (8000, 6000, 8), (20000, 300, 1), (479, 479, 1)],
)
def test_large_jpegs_are_decoded_smaller(width: int, height: int, reduction: int) -> None:
    assert reduction_for(width, height) == reduction


def test_a_reduced_decode_shows_the_same_picture() -> None:
    rng = np.random.default_rng(0)
    pixels = Image.fromarray(rng.integers(0, 255, (12, 16, 3), dtype=np.uint8)).resize(
        (640, 480), Image.Resampling.NEAREST
    )
    content = encoded(pixels, "JPEG", quality=95, subsampling=0)
    small, whole = decode_picture(content), decode_picture(content, reduce=False)
    assert (small.reduction, small.width, small.height, small.rgb.shape) == (2, 640, 480, (240, 320, 3))
    assert (whole.reduction, whole.rgb.shape) == (1, (480, 640, 3))
    assert np.abs(small.rgb[10::20, 10::20].astype(int) - whole.rgb[20::40, 20::40]).mean() < 3


@pytest.mark.parametrize(("side", "reduction"), [(200, 1), (600, 2), (3100, 4), (6200, 8)])
def test_every_reduction_is_rgb(side: int, reduction: int) -> None:
    content = encoded(Image.new("RGB", (side, side), (250, 120, 10)), "JPEG", quality=95)
    picture = decode_picture(content)
    assert (picture.reduction, picture.rgb.shape) == (reduction, (side // reduction, side // reduction, 3))
    assert np.abs(picture.rgb.astype(int) - (250, 120, 10)).max() <= 3


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0, "restart_marker_blocks": 1}])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_header_read_here_or_by_pillow_gives_the_same_picture(mode: str, options: dict[str, object]) -> None:
    image = Image.fromarray(SQUARES).convert(mode).resize((700, 500))
    here = decode_picture(encoded(image, "JPEG", **options))
    pillow = decode_picture(encoded(image, "JPEG", exif=Image.Exif().tobytes(), **options))
    assert np.array_equal(here.rgb, pillow.rgb)
    assert (here.width, here.height, here.reduction) == (pillow.width, pillow.height, pillow.reduction) == (700, 500, 2)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    jpeg = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 90, 3), dtype=np.uint8)), "JPEG")
    png = encoded(Image.fromarray(SQUARES), "PNG")
    contents = {
        "empty": b"",
        "text": b"hello\n",
        "cut.jpg": jpeg[: len(jpeg) // 2],
        "cut header.jpg": jpeg[: jpeg.index(b"\xff\xc0") + 6],
        "cut.png": png[:-40],
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "folder").mkdir()
    kinds = {}
    for name in ("missing", "folder", *contents):
        with pytest.raises(ImageError) as caught:
            read_picture(tmp_path / name)
        kinds[name] = caught.value.kind
        assert "\n" not in str(caught.value)
    assert kinds == {
        "missing": "missing",
        "folder": "not_a_file",
        "empty": "empty",
        "text": "not_an_image",
        "cut.jpg": "broken",
        "cut header.jpg": "broken",
        "cut.png": "broken",
    }


def test_a_limit_of_pixels_is_kept_before_anything_is_decoded() -> None:
    content = encoded(Image.new("1", (20_000, 20_000)), "PNG")
    with pytest.raises(ImageError, match="must have at most 300,000,000 pixels, got 20000x20000") as caught:
        decode_picture(content)
    assert caught.value.kind == "too_large"
    for format in ("PNG", "JPEG"):
        with pytest.raises(ImageError, match="at most 100 pixels, got 48x32"):
            decode_picture(encoded(Image.fromarray(SQUARES), format), max_pixels=100)
    assert Image.MAX_IMAGE_PIXELS is not None, "Pillow's own limit is back"


def test_a_stream_keeps_the_order_and_goes_on_after_failures(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(100)]
    for number, path in enumerate(paths):
        path.write_bytes(encoded(Image.new("L", (4, 4), number), "PNG") if number % 10 else b"broken")
    for threads in (1, 3):
        batches = stream(paths, lambda i, content: (i, int(decode_picture(content).rgb[0, 0, 0])), threads=threads)
        results = [result for batch in batches for result in batch]
        assert [isinstance(result, ImageError) for result in results] == [number % 10 == 0 for number in range(100)]
        assert all(result == (number, number) for number, result in enumerate(results) if number % 10)


@pytest.mark.parametrize("count", [0, 1, 5, 24, 364])
@pytest.mark.parametrize("threads", [1, 2, 7])
def test_a_stream_shares_out_every_file_once(count: int, threads: int) -> None:
    chunks = list(_chunks(count, threads))
    assert [i for chunk in chunks for i in chunk] == list(range(count))
    lengths = [len(chunk) for chunk in chunks]
    assert lengths == sorted(lengths, reverse=True), "the last ones are the shortest"
    assert all(1 <= length <= 16 for length in lengths)


def test_a_stream_ends_when_it_is_told_to(tmp_path: Path) -> None:
    paths = [tmp_path / "a.png"] * 1000
    (tmp_path / "a.png").write_bytes(encoded(Image.new("L", (4, 4)), "PNG"))
    done: list[object] = []
    for batch in stream(paths, lambda i, content: i, threads=1, stopped=lambda: len(done) > 30):
        done.extend(batch)
    assert 30 < len(done) < 200
