"""All features of every image in one pass, beside a bare decode of the same files and beside CleanVision.

    python benchmarks/image_pass.py FOLDER [--large 24] [--threads 2] [--repeats 3]

FOLDER: JPEGs of 640x480. Two sets: these, and `large` 12-megapixel JPEGs made of tiles of them (4032x3024, quality
90). Candidates, taking turns: our pass (`survey`, all seven features of reason ids 5-10 and blur, digest and store
included); cv2.imdecode alone at the scale that our pass decodes at, from bytes read by the same threads; CleanVision's
Imagelab (dark, light, blurry, odd size and aspect ratio, grayscale, low information) with as many processes.
Images/s are medians; a peer that is not installed is left out (pip install '.[benchmark]').

Recorded on 2 cores, Python 3.11, opencv 5.0, torch 2.14, CleanVision 0.3.7:

    2 threads of 2, 9 repeats
    364 JPEGs of 640x480      images/s  of decode
      bare decode                  3,058.3       1.00
      labelengine                  2,197.2       0.72
      CleanVision                    108.4       0.04
    24 JPEGs of 4032x3024      images/s  of decode
      bare decode                    122.9       1.00
      labelengine                    108.8       0.88
      CleanVision                      2.4       0.02

Machines differ: compare within a table. On this one the pass of before made 1,066 images/s at 640x480, 0.35 of a bare
decode: its many short torch operations handed the interpreter lock to and fro between the threads. Beside others at
work on the same cores the share at 640x480 falls to 0.68.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import cv2
import numpy as np
from PIL import Image

from engine.dataset import read_samples
from engine.images import _REDUCED, reduction_for
from engine.survey import survey

LARGE = (4032, 3024)
ISSUES = ("dark", "light", "blurry", "odd_size", "odd_aspect_ratio", "grayscale", "low_information")


def ours(folder: Path, threads: int) -> None:
    dataset = read_samples(folder, format="images")
    with tempfile.TemporaryDirectory() as cache:
        found = survey(dataset, dataset.sources, folder=Path(cache), threads=threads)
    assert found.readable.all()


def bare_decode(folder: Path, threads: int) -> None:
    """What decoding alone takes, at the scale that our pass chooses."""
    cv2.setNumThreads(1)
    paths = sorted(folder.glob("*.jpg"))
    with Image.open(paths[0]) as first:  # its header alone: a decode of it would count
        how = _REDUCED[reduction_for(*first.size)]
    with ThreadPoolExecutor(threads) as pool:
        for image in pool.map(lambda path: cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), how), paths):
            assert image is not None


def cleanvision(folder: Path, threads: int) -> None:
    from cleanvision import Imagelab

    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        Imagelab(data_path=str(folder)).find_issues({issue: {} for issue in ISSUES}, n_jobs=threads)


def candidates() -> dict[str, Callable[[Path, int], None]]:
    known = {"bare decode": bare_decode, "labelengine": ours}
    with contextlib.suppress(ImportError):
        import cleanvision as _  # noqa: F401

        return {**known, "CleanVision": cleanvision}
    print("CleanVision is not installed and is left out")
    return known


def measure(folder: Path, threads: int, repeats: int) -> None:
    count = len(list(folder.glob("*.jpg")))
    times: dict[str, list[float]] = {name: [] for name in candidates()}
    for repeat in range(repeats):
        for name, candidate in candidates().items():
            if name == "CleanVision" and repeat:  # a minute each: once says enough
                continue
            began = time.perf_counter()
            candidate(folder, threads)
            times[name].append(time.perf_counter() - began)
    height, width = cv2.imread(str(next(folder.glob("*.jpg")))).shape[:2]
    print(f"{count} JPEGs of {width}x{height}      images/s  of decode")
    for name, seconds in times.items():
        ratio = median(times["bare decode"]) / median(seconds)
        print(f"  {name:<26} {count / median(seconds):9,.1f} {ratio:10.2f}")


def make_large(small: list[Path], out: Path, count: int) -> None:
    tiles = [cv2.resize(cv2.imread(str(path)), (640, 480)) for path in small]
    for number in range(count):
        rows = [np.hstack([tiles[(number * 7 + y * 7 + x) % len(tiles)] for x in range(7)]) for y in range(7)]
        whole = np.vstack(rows)[: LARGE[1], : LARGE[0]]
        cv2.imwrite(str(out / f"{number:03}.jpg"), whole, [cv2.IMWRITE_JPEG_QUALITY, 90])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", metavar="FOLDER", type=Path)
    parser.add_argument("--large", type=int, default=24, help="how many 12-megapixel images (24)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    print(f"{options.threads} threads of {os.cpu_count()}, {options.repeats} repeats")
    measure(options.folder, options.threads, options.repeats)
    with tempfile.TemporaryDirectory() as folder:
        make_large(sorted(options.folder.glob("*.jpg")), Path(folder), options.large)
        measure(Path(folder), options.threads, options.repeats)


if __name__ == "__main__":
    main()
