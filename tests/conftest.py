"""Images drawn in code, for every test that needs some."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.dataset import Dataset
from engine.samples import IMAGE_CLASSIFICATION, Label, Sample
from engine.sources import Sources


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


SHAPES = ("lying", "standing", "ring")


def paint(path: Path, shape: str, seed: int) -> None:
    """A bar that lies or stands, or a ring, of one random color on another, with noise; 24x24 pixels."""
    rng = np.random.default_rng(seed)
    back, front = rng.uniform(0, 90, 3), rng.uniform(160, 255, 3)
    pixels = np.tile(back, (24, 24, 1))
    x, y = (int(each) for each in rng.integers(9, 15, 2))
    if shape == "ring":
        cv2.circle(pixels, (x, y), 7, front.tolist(), 3)
    else:
        half = (9, 2) if shape == "lying" else (2, 9)
        cv2.rectangle(pixels, (x - half[0], y - half[1]), (x + half[0], y + half[1]), front.tolist(), -1)
    cv2.imwrite(str(path), (pixels + rng.normal(0, 8, pixels.shape)).clip(0, 255).astype(np.uint8))


def painted(folder: Path) -> Dataset:
    """27 images of three shapes, in a flat folder: six of each with a label, three without."""
    folder.mkdir()
    samples = []
    for number in range(27):
        name = f"{number:02}.png"
        paint(folder / name, SHAPES[number % 3], number)
        labels = (Label(type=IMAGE_CLASSIFICATION, name=SHAPES[number % 3]),) if number < 18 else ()
        samples.append(Sample(source=name, labels=labels))
    return Dataset(tuple(samples), Sources(folder))


@pytest.fixture
def few(tmp_path: Path) -> Dataset:
    return painted(tmp_path / "few")
