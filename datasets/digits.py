"""1,797 handwritten digits, 10 classes, as PNG: the test part of UCI's "Optical Recognition of Handwritten Digits"
(Alpaydin and Kaynak 1998, CC BY 4.0), which scikit-learn carries inside its package. Nothing is downloaded.

    python datasets/digits.py OUT [--layout images | tree] [--labeled N]

8x8 pixels of 17 grey levels are enlarged to 32x32, white on black.
    images   OUT/digit-0001.png ..., nothing is a label; OUT/truth.csv has them (file, label)
    tree     OUT/7/digit-0008.png ..., one folder a label

With --labeled N two manifests of the plain images are there too: some.manifest, in which N of them, drawn at random,
as many of each digit as can be, have a label as if a person had given it; and truth.manifest, in which all have.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from sklearn.datasets import load_digits

from engine.errors import UsageError
from engine.manifest import write_manifest
from engine.outfolder import OutFolder
from engine.samples import IMAGE_CLASSIFICATION, Label, Sample

SIDE = 32
LAYOUTS = ("images", "tree")


def write(out: Path, *, layout: str = "images", labeled: int = 0, overwrite: bool = False) -> int:
    """Write the digits to `out`, a new or empty folder; how many."""
    if labeled and layout != "images":
        raise UsageError(f"labeled: goes with the layout images, got {layout}")
    digits = load_digits()
    truth = ["file,label"]
    with OutFolder(out, overwrite=overwrite) as folder:
        for number, (levels, label) in enumerate(zip(digits.images, digits.target, strict=True), start=1):
            name = f"digit-{number:04}.png"
            folder.write(name if layout == "images" else f"{label}/{name}", _png(levels))
            truth.append(f"{name},{label}")
        if layout == "images":
            folder.write("truth.csv", "\n".join([*truth, ""]).encode())
        if labeled:
            pairs = [line.split(",") for line in truth[1:]]
            known = drawn(digits.target, labeled)
            write_manifest(folder.target("truth.manifest"), [_sample(*pair) for pair in pairs])
            some = [_sample(name, label if row in known else None) for row, (name, label) in enumerate(pairs)]
            write_manifest(folder.target("some.manifest"), some)
    return len(truth) - 1


def drawn(target: np.ndarray, count: int) -> set[int]:
    """Rows of so many samples, drawn at random, of each class as many as of any other or one less."""
    chance = np.random.default_rng(0)
    turns = np.empty(len(target), np.int64)
    for label in np.unique(target):
        rows = np.flatnonzero(target == label)
        turns[chance.permutation(rows)] = np.arange(len(rows))
    return set(np.argsort(turns, kind="stable")[:count].tolist())


def _sample(name: str, label: str | None) -> Sample:
    return Sample(name, (Label(IMAGE_CLASSIFICATION, label),) if label else ())


def _png(levels: np.ndarray) -> bytes:
    """(8, 8) levels 0..16 -> PNG of (32, 32) grey."""
    grey = np.round(levels * (255 / 16)).astype(np.uint8)
    done, png = cv2.imencode(".png", cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC))
    assert done
    return png.tobytes()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", metavar="OUT", type=Path, help="a new or empty folder")
    parser.add_argument("--layout", choices=LAYOUTS, default="images")
    parser.add_argument("--labeled", type=int, default=0, metavar="N", help="write manifests with N and all labels too")
    parser.add_argument("--overwrite", action="store_true", help="replace what this script wrote there before")
    options = parser.parse_args()
    count = write(options.out, layout=options.layout, labeled=options.labeled, overwrite=options.overwrite)
    print(f"{options.out}: {count:,} digits as {options.layout}")


if __name__ == "__main__":
    main()
