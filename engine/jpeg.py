"""The size of a plain JPEG, read from its header in a few microseconds; and how an image is turned.

In: the bytes of a file. Out: width and height, or None, which says nothing about the file but that a full reader must
look at it: EXIF (it may turn the image), XMP, color profiles, several images in one file, CMYK, arithmetic coding,
lossless or 12-bit JPEGs, fill bytes, and anything damaged. Knows nothing of pixels.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from PIL.Image import Image

_START: Final = b"\xff\xd8"
_SCAN: Final = 0xDA  # the header ends where the first scan starts
#: Baseline, extended sequential and progressive, all Huffman coded.
_FRAMES: Final = frozenset((0xC0, 0xC1, 0xC2))
#: Huffman tables, quantization tables, restart interval, JFIF, comment: nothing that changes size or orientation.
_PASSED_OVER: Final = frozenset((0xC4, 0xDB, 0xDD, 0xE0, 0xFE))

_SEGMENT: Final = struct.Struct(">BBH")  # 0xFF, marker, length of what follows the marker
_FRAME: Final = struct.Struct(">BBHBHHB")  # the same, then bits a sample, height, width, components


def plain_size(content: bytes) -> tuple[int, int] | None:
    """Width and height of a JPEG of 8 bits, grey or three components, that its header alone describes; else None."""
    if not content.startswith(_START):
        return None
    size, at = None, len(_START)
    while at + _SEGMENT.size <= len(content):
        fill, marker, length = _SEGMENT.unpack_from(content, at)
        if fill != 0xFF or length < 2:
            return None
        if marker == _SCAN:
            return size
        if marker in _FRAMES and size is None:
            size = _frame_size(content, at)
        elif marker not in _PASSED_OVER:
            return None
        at += 2 + length
    return None


def _frame_size(content: bytes, at: int) -> tuple[int, int] | None:
    """Width and height that the frame header at this place tells. A height of 0 is told by the scan, and not here."""
    if at + _FRAME.size > len(content):
        return None
    _, _, length, bits, height, width, components = _FRAME.unpack_from(content, at)
    usual = bits == 8 and components in (1, 3) and length == 8 + 3 * components
    return (width, height) if usual and width and height else None


_ORIENTATION_TAG: Final = 0x0112
#: Orientations in which rows become columns.
SIDEWAYS: Final = frozenset((5, 6, 7, 8))
_XMP: Final = ("xmp", "XML:com.adobe.xmp")


def orientation_of(image: Image) -> int:
    """How an image is turned, 1 to 8 (TIFF 6.0), by the EXIF that was read of it. XMP may say otherwise, and counts for
    nobody who shows or decodes a picture, but for Pillow."""
    import PIL.Image

    image.info = {key: value for key, value in image.info.items() if key not in _XMP}
    return int(PIL.Image.Image.getexif(image).get(_ORIENTATION_TAG, 1))  # the one of PNG would decode
