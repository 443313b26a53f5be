"""Peak memory of a whole grouping, task and page included, at two numbers of distinct images.

    python benchmarks/memory.py [--n 10000 100000] [--threads 2]

Images are drawn (24x24 PNG, all different). Each run is a process of its own, as a user starts it: `labelengine group`,
by light, color and blur, and by content. Its peak resident memory is read when it ends; the growth is the difference of
the two runs over the difference of their numbers of images.

Recorded on 2 cores, Python 3.11, torch 2.14:

                                    10,000 MB     100,000 MB   growth, KB an image    seconds
    by light, color and blur              807            860                    0.59         47
    by content                            882          1,122                    2.67         86
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

WAYS = {
    "by light, color and blur": ["--image-brightness", "--image-colorfulness", "--ambiguity"],
    "by content": [],
}


def draw(folder: Path, count: int) -> None:
    rng = np.random.default_rng(0)
    for number in range(count):
        if number % 1000 == 0:
            part = folder / f"{number // 1000:04}"
            part.mkdir(parents=True)
        small = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        cv2.imwrite(str(part / f"{number:07}.png"), cv2.resize(small, (24, 24), interpolation=cv2.INTER_LINEAR))


def peak(data: Path, out: Path, flags: list[str], threads: int) -> tuple[float, float]:
    """Bytes and seconds of one run."""
    command = [sys.executable, "-m", "engine", "group", str(data), "--out", str(out), "--n-clusters", "10"]
    began = time.perf_counter()
    with subprocess.Popen(
        [*command, "--threads", str(threads), *flags], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as run:
        _, status, usage = os.wait4(run.pid, 0)
        run.returncode = os.waitstatus_to_exitcode(status)
    assert run.returncode == 0
    return usage.ru_maxrss * 1024, time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, nargs=2, default=[10_000, 100_000], metavar=("FEW", "MANY"))
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    few, many = options.n
    print(f"{'':26}{few:>12,} MB{many:>12,} MB   growth, KB an image    seconds")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for count in options.n:
            draw(folder / f"data-{count}", count)
        for way, flags in WAYS.items():
            out = folder / way.replace(" ", "-")
            runs = [
                peak(folder / f"data-{count}", out.with_suffix(f".{count}"), flags, options.threads)
                for count in options.n
            ]
            growth = (runs[1][0] - runs[0][0]) / (many - few) / 1000
            print(f"{way:26}{runs[0][0] / 1e6:15,.0f}{runs[1][0] / 1e6:15,.0f}{growth:24.2f}{runs[1][1]:11.0f}")


if __name__ == "__main__":
    main()
