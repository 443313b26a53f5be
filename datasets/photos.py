"""Real photos in a small: overlapping cuts of the two sample photos that scikit-learn carries inside its package
("china.jpg" by Peter Csorba, "flower.jpg" by dany13, CC BY 2.0). Nothing is downloaded.

    python datasets/photos.py OUT [--count 120] [--seed 0]

OUT/china/*.jpg and OUT/flower/*.jpg: each photo whole, and cuts of it from 160x120 to 560x420 pixels. One cut in four
is darkened, one in four made pale, one in four blurred, as albums are.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from sklearn.datasets import load_sample_images

from engine.outfolder import OutFolder

QUALITY = 90
WIDTHS = (160, 560)


def write(out: Path, *, count: int = 120, seed: int = 0, overwrite: bool = False) -> int:
    """Write `count` photos to `out`, a new or empty folder; how many."""
    rng = np.random.default_rng(seed)
    photos = {Path(name).stem: image for name, image in zip(*_samples(), strict=True)}
    names = list(photos)
    with OutFolder(out, overwrite=overwrite) as folder:
        for number in range(count):
            name = names[number % len(names)]
            rgb = photos[name] if number < len(names) else _spoiled(_cut(photos[name], rng), number // 2 % 4)
            folder.write(f"{name}/{name}-{number // len(names):03}.jpg", jpeg(rgb))
    return count


def _samples() -> tuple[list[str], list[np.ndarray]]:
    bunch = load_sample_images()
    return bunch.filenames, bunch.images


def _cut(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    width = int(rng.integers(*WIDTHS))
    height = width * 3 // 4
    top, left = int(rng.integers(rgb.shape[0] - height + 1)), int(rng.integers(rgb.shape[1] - width + 1))
    return rgb[top : top + height, left : left + width]


def _spoiled(rgb: np.ndarray, how: int) -> np.ndarray:
    """0: as it is, 1: dark, 2: pale, 3: out of focus."""
    if how == 1:
        return cv2.convertScaleAbs(rgb, alpha=0.35)
    if how == 2:
        grey = cv2.cvtColor(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        return cv2.addWeighted(rgb, 0.15, grey, 0.85, 0)
    return cv2.GaussianBlur(rgb, (0, 0), 3) if how == 3 else rgb


def jpeg(rgb: np.ndarray) -> bytes:
    """(h, w, 3) uint8 RGB -> JPEG."""
    done, content = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    assert done
    return content.tobytes()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", metavar="OUT", type=Path, help="a new or empty folder")
    parser.add_argument("--count", type=int, default=120, help="how many photos (120)")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same photos (0)")
    parser.add_argument("--overwrite", action="store_true", help="replace what this script wrote there before")
    options = parser.parse_args()
    count = write(options.out, count=options.count, seed=options.seed, overwrite=options.overwrite)
    print(f"{options.out}: {count:,} photos in 2 folders")


if __name__ == "__main__":
    main()
