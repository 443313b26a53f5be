"""Pillow without its own limit: who opens an image says how large it may be.

Pillow refuses images above some 179 million pixels by a number of the whole process, for all who use it. Knows nothing
of files.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lifting = threading.Lock()
_lifted = 0
_limit: int | None = None


@contextmanager
def any_size() -> Iterator[None]:
    """Inside, images of any size are opened: Pillow's own limit is lifted, and put back by the last to leave."""
    from PIL import Image

    global _lifted, _limit
    with _lifting:
        if _lifted == 0:
            _limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        _lifted += 1
    try:
        yield
    finally:
        with _lifting:
            _lifted -= 1
            if _lifted == 0:
                Image.MAX_IMAGE_PIXELS = _limit
