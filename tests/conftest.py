"""Images drawn in code, for every test that needs some."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest


def draw(path: Path, *, light: float = 0.5, blur: float = 0.0, seed: int = 0, size: tuple[int, int] = (48, 36)) -> Path:
    """Write an image of random colored squares: mean level `light`, a Gaussian blur of that sigma."""
    rng = np.random.default_rng(seed)
    squares = rng.normal(light, 0.12, (size[1] // 6, size[0] // 6, 3)).clip(0, 1)
    pixels = cv2.resize(squares, size, interpolation=cv2.INTER_NEAREST)
    if blur:
        pixels = cv2.GaussianBlur(pixels, (0, 0), blur)
    path.parent.mkdir(parents=True, exist_ok=True)
    done, content = cv2.imencode(path.suffix, np.round(pixels * 255).astype(np.uint8))
    assert done
    path.write_bytes(content.tobytes())
    return path


LIGHTS = (0.2, 0.5, 0.8)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of 24 images, `light-N-M.png`: 8 of each of LIGHTS."""
    folder = tmp_path / "photos"
    for number in range(24):
        draw(folder / f"light-{number % 3}-{number // 3}.png", light=LIGHTS[number % 3], seed=number)
    return folder
