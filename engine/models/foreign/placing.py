"""What goes into the graph of a model from elsewhere: images brought to its size, in its colors and numbers.

In: files, RGB of any size, (h, w, 3) uint8, or a batch that has the size already, (B, 3, height, width) float in [0,
1]. Out: what the graph sees, the place of the image on it, and the array that it takes. Knows nothing of graphs, or of
what they say.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engine.images import MAX_PIXELS, Picture, Pixels, decode_at
from engine.models.foreign.forms import ForeignInput

#: What is left free around an image that is padded.
_GREY: Final = 114


@dataclass(frozen=True, slots=True)
class Placed:
    """Where an image lies on what the graph sees: x' = x * scale_x + left, y' = y * scale_y + top."""

    scale_x: float
    scale_y: float
    left: float
    top: float


def placed(given: ForeignInput, width: int, height: int) -> Placed:
    """The place of an image of width x height pixels."""
    x, y = given.width / width, given.height / height
    if given.fit == "stretch":
        return Placed(x, y, 0.0, 0.0)
    if given.fit == "crop":
        scale = max(x, y)
        return Placed(scale, scale, (given.width - scale * width) / 2, (given.height - scale * height) / 2)
    wide, tall = (max(1, round(min(x, y) * side)) for side in (width, height))
    return Placed(wide / width, tall / height, (given.width - wide) // 2, (given.height - tall) // 2)


def seen_by(given: ForeignInput, content: bytes, max_pixels: int = MAX_PIXELS) -> tuple[Pixels, Placed, Picture]:
    """The bytes of an image file -> what the graph sees, (height, width, 3), the place of the image on it, and its
    picture. Raises ImageError."""

    def scale_of(width: int, height: int) -> float:
        place = placed(given, width, height)
        return max(place.scale_x, place.scale_y)

    picture = decode_at(content, scale_of, max_pixels=max_pixels)
    place = placed(given, picture.width, picture.height)
    return fitted(given, picture.rgb, place, picture.width, picture.height), place, picture


def fitted(given: ForeignInput, rgb: Pixels, place: Placed, width: int, height: int) -> Pixels:
    """(h, w, 3) uint8, perhaps decoded smaller than width x height -> what the graph sees, (height, width, 3)."""
    if given.fit == "crop":
        return _resized(_middle(given, rgb, place, width, height), given.width, given.height)
    wide, tall = round(place.scale_x * width), round(place.scale_y * height)
    image = _resized(rgb, wide, tall)
    if (tall, wide) == (given.height, given.width):
        return image
    canvas = np.full((given.height, given.width, 3), _GREY, np.uint8)
    left, top = round(place.left), round(place.top)
    canvas[top : top + tall, left : left + wide] = image
    return canvas


def _middle(given: ForeignInput, rgb: Pixels, place: Placed, width: int, height: int) -> Pixels:
    """The part of an image that a crop sees, before it is resized: an image of any shape needs no more room."""
    sides = ((rgb.shape[1], width, given.width / place.scale_x), (rgb.shape[0], height, given.height / place.scale_y))
    (left, right), (top, bottom) = (
        (round((whole - part) / 2 / whole * there), round((whole + part) / 2 / whole * there))
        for there, whole, part in sides
    )
    return rgb[top : max(bottom, top + 1), left : max(right, left + 1)]


def _resized(rgb: Pixels, width: int, height: int) -> Pixels:
    shrinks = width * height < rgb.shape[0] * rgb.shape[1]
    return np.asarray(
        cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR), np.uint8
    )


def batch_of(given: ForeignInput, images: Tensor) -> npt.NDArray[Any]:
    """(B, 3, height, width) float RGB in [0, 1] -> what the graph takes."""
    x = images.flip(1) if given.colors == "BGR" else images
    shape = (1, 3, 1, 1)
    x = (x * given.scale - torch.tensor(given.mean).view(shape)) / torch.tensor(given.std).view(shape)
    x = x if given.layout == "NCHW" else x.permute(0, 2, 3, 1)
    array: npt.NDArray[np.float32] = x.contiguous().numpy()
    return np.clip(np.rint(array), 0, 255).astype(np.uint8) if given.number == "uint8" else array
