"""Images with known answers: 27 combinations of dark, mid, bright x grey, mid, vivid x sharp, soft, blurred.

    python datasets/planted.py OUT [--count 20] [--seed 0]

Each is a random cut of one of scikit-learn's two sample photos (see photos.py), halved to 320x240 pixels, of which
then, as in a darkroom:
    blur         a Gaussian of sigma 0, 1.5 or 4 pixels
    color        the distances of the channels from their luma are scaled, until colorfulness is 5, 30 or 80
    light        luma is scaled and shifted until mean brightness is 0.25, 0.50 or 0.75
Every one of these numbers varies from image to image: by a tenth, light by 0.03 (standard deviations).
OUT/planted-00001.jpg ... and OUT/truth.csv (file, brightness, colorfulness, ambiguity), in a mixed order.
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path

import cv2
import numpy as np
import torch
from sklearn.datasets import load_sample_images

from engine.features import brightness, colorfulness
from engine.outfolder import OutFolder

LIGHT = {"dark": 0.25, "mid": 0.50, "bright": 0.75}
COLOR = {"grey": 5.0, "mid": 30.0, "vivid": 80.0}
BLUR = {"sharp": 0.0, "soft": 1.5, "blurred": 4.0}
WIDTH, HEIGHT = 320, 240
QUALITY = 90


def write(out: Path, *, count: int = 20, seed: int = 0, overwrite: bool = False) -> int:
    """Write `count` images of each combination to `out`, a new or empty folder; how many in all."""
    rng = np.random.default_rng(seed)
    photos = load_sample_images().images
    combinations = list(product(LIGHT, COLOR, BLUR)) * count
    truth = ["file,brightness,colorfulness,ambiguity"]
    with OutFolder(out, overwrite=overwrite) as folder:
        for number, place in enumerate(rng.permutation(len(combinations)), start=1):
            light, color, blur = combinations[place]
            name = f"planted-{number:05}.jpg"
            shift, *factors = rng.normal((0.0, 1.0, 1.0), (0.03, 0.1, 0.1)).clip((-0.06, 0.8, 0.8), (0.06, 1.2, 1.2))
            cut = _cut(photos[int(rng.integers(2))], rng)
            rgb = made(cut, LIGHT[light] + shift, COLOR[color] * factors[0], BLUR[blur] * factors[1])
            bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
            folder.write(name, cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes())
            truth.append(f"{name},{light},{color},{blur}")
        folder.write("truth.csv", "\n".join([*truth, ""]).encode())
    return len(truth) - 1


def made(rgb: np.ndarray, light: float, color: float, blur: float) -> np.ndarray:
    """(h, w, 3) uint8 -> the same with mean brightness `light`, that colorfulness, and a blur of that sigma."""
    pixels = rgb.astype(np.float32)
    if blur:
        pixels = cv2.GaussianBlur(pixels, (0, 0), blur)
    # Clipping at black and white undoes a part of each step, so both are repeated until they hold together.
    gain, offset = 1.0, 0.0
    result = rgb
    for _ in range(10):
        luma = pixels @ np.array([0.299, 0.587, 0.114], np.float32)
        result = _toned(luma, pixels - luma[..., None], gain, offset)
        tensor = torch.from_numpy(np.ascontiguousarray(result[::3, ::3].transpose(2, 0, 1)))[None]
        gain *= float(np.clip(color / max(float(colorfulness(tensor)), 0.1), 0.5, 2.0))
        offset += 255.0 * (light - float(brightness(tensor)))
    return result


def _toned(luma: np.ndarray, chroma: np.ndarray, gain: float, offset: float) -> np.ndarray:
    contrast = 0.6  # leaves room for color below white and above black
    middle = luma.mean()
    grey = middle + contrast * (luma - middle) + offset
    return np.clip(np.round(grey[..., None] + gain * chroma), 0, 255).astype(np.uint8)


def _cut(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random place of the photo, at half its size: sharper than the photo itself."""
    half = cv2.resize(rgb, (WIDTH, rgb.shape[0] * WIDTH // rgb.shape[1]), interpolation=cv2.INTER_AREA)
    scale = float(rng.uniform(1.0, 1.3)) * HEIGHT / half.shape[0]
    size = max(WIDTH, round(WIDTH * scale)), max(HEIGHT, round(half.shape[0] * scale))
    photo = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    top, left = int(rng.integers(size[1] - HEIGHT + 1)), int(rng.integers(size[0] - WIDTH + 1))
    cut = photo[top : top + HEIGHT, left : left + WIDTH]
    return np.ascontiguousarray(cut[:, ::-1] if rng.integers(2) else cut)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", metavar="OUT", type=Path, help="a new or empty folder")
    parser.add_argument("--count", type=int, default=20, help="images of each of the 27 combinations (20)")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same images (0)")
    parser.add_argument("--overwrite", action="store_true", help="replace what this script wrote there before")
    options = parser.parse_args()
    count = write(options.out, count=options.count, seed=options.seed, overwrite=options.overwrite)
    print(f"{options.out}: {count:,} images of 27 combinations")


if __name__ == "__main__":
    main()
