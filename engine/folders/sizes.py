"""How large an image is: (width, height, depth) in pixels and channels, from the header of its file, upright (EXIF
orientation applied), or as its drawings tell. Pixels are never decoded."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from engine.errors import ImageError
from engine.jpeg import SIDEWAYS, orientation_of
from engine.pillow import any_size
from engine.samples import SIZE_KEY, Drawing, Label, Sample


def image_size(path: Path) -> tuple[int, int, int]:
    """(width, height, depth) of an image as it is looked at (EXIF orientation applied), from its header.

    depth: channels; a palette counts as its colors, 3. Raises ImageError.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # damaged headers: the error says it
            with any_size(), Image.open(path) as image:
                tags = getattr(image, "tag_v2", {})  # of a TIFF; newer Pillows turn its `size` upright themselves
                width, height = (tags[256], tags[257]) if 256 in tags and 257 in tags else image.size
                depth = 3 if image.mode == "P" else len(image.getbands())
                orientation = orientation_of(image)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ImageError("missing", "no such file") from error
    except UnidentifiedImageError as error:
        if path.stat().st_size == 0:
            raise ImageError("empty", "expected an image, got 0 bytes") from error
        raise ImageError("not_an_image", "expected an image, got bytes of no known format") from error
    except IsADirectoryError as error:
        raise ImageError("not_a_file", "expected an image file, got a directory") from error
    except Exception as error:  # Pillow's plugins raise all kinds of errors on damaged headers
        raise ImageError("broken", f"cannot be read: {error}") from error
    return (height, width, depth) if orientation in SIDEWAYS else (width, height, depth)


def known_size(drawing: Drawing) -> tuple[int, int, int] | None:
    """The size that a drawing tells, unless it is one of the zeros that some tools write."""
    return drawing.size if drawing.size is not None and drawing.size[0] > 0 and drawing.size[1] > 0 else None


def drawings_of(labels: Iterable[Label]) -> Iterator[Drawing]:
    """The drawings that have been read."""
    return (label.drawing for label in labels if label.drawing is not None)


def with_size(sample: Sample) -> Sample:
    """The same sample with the size that its drawings tell as property SIZE_KEY: [width, height, depth]."""
    if SIZE_KEY in sample.property:
        return sample
    size = next((size for drawing in drawings_of(sample.labels) if (size := known_size(drawing))), None)
    return sample if size is None else replace(sample, property={**sample.property, SIZE_KEY: list(size)})
