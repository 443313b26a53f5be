"""The small JPEG that stands for an image: made here, measured here. Pixels are (h, w, 3) uint8 RGB."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

#: Longer side of a thumbnail in pixels. At QUALITY a photo takes about 3 KB.
SIDE: Final = 160
QUALITY: Final = 80
#: A small image grows by whole factors, so that its pixels stay squares; beyond this the browser does it as crisply.
MOST_ENLARGED: Final = 4
#: Up to this longer side (a source of 20 pixels, enlarged 4 times) the page draws a picture with square pixels. Seen so
#: large, what JPEG loses would be seen too, and a better one is small: 6 KB for pure noise, 0.6 KB for a digit.
PIXELATED: Final = 80
PIXELATED_QUALITY: Final = 95


def thumbnail(rgb: npt.NDArray[np.uint8], side: int = SIDE) -> bytes:
    """JPEG of an image (h, w, 3) uint8 RGB: its aspect, its longer side at most `side` pixels.

    Large ones shrink by area averaging; small ones grow by the largest whole factor that fits, at most MOST_ENLARGED.
    Raises ValueError for another shape or type.
    """
    if rgb.ndim != 3 or rgb.shape[2] != 3 or 0 in rgb.shape or rgb.dtype != np.uint8:
        raise ValueError(f"an image must be (h, w, 3) uint8, got {rgb.shape} {rgb.dtype}")
    if side < 1:
        raise ValueError(f"side must be at least 1 pixel, got {side}")
    height, width = rgb.shape[:2]
    longer = max(height, width)
    options = [cv2.IMWRITE_JPEG_OPTIMIZE, 1]
    if longer > side:
        size = max(1, round(width * side / longer)), max(1, round(height * side / longer))
        small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    else:
        factor = min(MOST_ENLARGED, side // longer)
        small = cv2.resize(rgb, (width * factor, height * factor), interpolation=cv2.INTER_NEAREST)
        options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]  # color as sharp as light
    options += [cv2.IMWRITE_JPEG_QUALITY, PIXELATED_QUALITY if max(small.shape) <= PIXELATED else QUALITY]
    done, jpeg = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), options)
    assert done
    return bytes(jpeg.tobytes())


def jpeg_size(jpeg: bytes) -> tuple[int, int]:
    """(width, height) of a JPEG, from its frame header (ITU T.81, B.2.2). Raises ValueError when there is none."""
    place = 2
    while jpeg[:2] == b"\xff\xd8" and place + 9 <= len(jpeg) and jpeg[place] == 0xFF:
        marker = jpeg[place + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # a start of frame, not a table
            height, width = jpeg[place + 5 : place + 7], jpeg[place + 7 : place + 9]
            return int.from_bytes(width, "big"), int.from_bytes(height, "big")
        place += 2 + int.from_bytes(jpeg[place + 2 : place + 4], "big")
    raise ValueError(f"a tile's image must be the bytes of a JPEG, got {jpeg[:8]!r}...")
