"""About 700 pictures of two or three different handwritten digits side by side, as PNG, with a .txt of their labels:
a set where an image has several labels, drawn from the digits of scikit-learn (see digits.py for source and licence).

    python datasets/digit_pairs.py OUT [--seed 0]

    OUT/picture-0001.png, OUT/picture-0001.txt ...    the labels, one a line: "tile" for `read_samples`

Every one of the 1,797 digits is in one picture at most, so that what is learned from one helps with another only as far
as it is true of handwriting. 32x32 pixels, white on black; each digit is 10x10, at a random height, with random gaps.
The same seed gives the same pictures.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from sklearn.datasets import load_digits

from engine.outfolder import OutFolder

SIDE = 32
DIGIT = 10
MEMBERS = (2, 3)


def write(out: Path, *, seed: int = 0, overwrite: bool = False) -> int:
    """Write the pictures to `out`, a new or empty folder; how many."""
    chance = np.random.default_rng(seed)
    digits = load_digits()
    left = [list(chance.permutation(np.flatnonzero(digits.target == label))) for label in range(10)]
    count = 0
    with OutFolder(out, overwrite=overwrite) as folder:
        while members := _drawn(left, chance):
            count += 1
            picture = _side_by_side([digits.images[left[label].pop()] for label in members], chance)
            done, png = cv2.imencode(".png", picture)
            assert done
            folder.write(f"picture-{count:04}.png", png.tobytes())
            folder.write(f"picture-{count:04}.txt", "".join(f"{label}\n" for label in sorted(members)).encode())
    return count


def _drawn(left: list[list[int]], chance: np.random.Generator) -> list[int]:
    """Different labels for the next picture, in the order from left to right, those of which there are more likelier;
    none when too few are left."""
    size = int(chance.choice(MEMBERS))
    remaining = np.array([len(each) for each in left])
    if (remaining > 0).sum() < size:
        return []
    return [int(label) for label in chance.choice(10, size, replace=False, p=remaining / remaining.sum())]


def _side_by_side(levels: list[np.ndarray], chance: np.random.Generator) -> np.ndarray:
    """Digits (8, 8) of levels 0..16 -> (SIDE, SIDE) grey."""
    picture = np.zeros((SIDE, SIDE), np.uint8)
    spare = SIDE - DIGIT * len(levels)
    gaps = np.diff(np.sort(chance.integers(0, spare + 1, len(levels))), prepend=0)
    x = 0
    for digit, gap in zip(levels, gaps, strict=True):
        grey = np.round(digit * (255 / 16)).astype(np.uint8)
        y, x = int(chance.integers(0, SIDE - DIGIT + 1)), x + int(gap)
        picture[y : y + DIGIT, x : x + DIGIT] = cv2.resize(grey, (DIGIT, DIGIT), interpolation=cv2.INTER_CUBIC)
        x += DIGIT
    return picture


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", metavar="OUT", type=Path, help="a new or empty folder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--overwrite", action="store_true", help="replace what this script wrote there before")
    options = parser.parse_args()
    count = write(options.out, seed=options.seed, overwrite=options.overwrite)
    print(f"{options.out}: {count:,} pictures of two or three digits")


if __name__ == "__main__":
    main()
