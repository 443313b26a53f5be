"""How well groups match the truth: the planted ones by light, color and blur, and classes by content.

    python benchmarks/grouping.py [--tree NAME=FOLDER ...] [--most 5000] [--seeds 3]

Planted: datasets/planted.py with 20 images of each of 27 combinations; adjusted Rand index of `group` with all three
flags. By content: the digits of datasets/digits.py, and every tree (one folder a class) given, at most --most images
of it, drawn evenly; normalised mutual information (NMI) with the classes at the true number of groups, mean over the
seeds. Beside: scikit-learn's k-means on pixels (32x32 RGB), on their first 64 principal components, and on
scikit-image's histograms of oriented gradients (the best of two cell sizes), the same thumbnails for all.
Last: images/s of the embedding itself, from thumbnails of 96 pixels.

Recorded on 2 cores, Python 3.11, torch 2.14, scikit-learn 1.9, scikit-image 0.26 (signs: 2,062 photos of hands, 10
classes; cifar10: 20,000 of the training split, of which 5,000):

    planted, 540 images, 27 groups: adjusted Rand index 1.000 1.000 1.000
    digits, 1,797 images, 10 classes, 1.9 s: pixels 0.747  PCA 0.747  HOG 4 0.858  labelengine 0.931
    signs, 2,062 images, 10 classes, 2.3 s: pixels 0.174  PCA 0.173  HOG 8 0.513  labelengine 0.626
    cifar10, 5,000 images, 10 classes, 4.1 s: pixels 0.078  PCA 0.081  HOG 8 0.133  labelengine 0.235
    embedding, from 96 pixels: 2,581 images/s
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from engine.dataset import Dataset, read_samples
from engine.embeddings import content_vectors
from engine.grouping import group
from engine.images import read_picture
from engine.survey import resized

DATASETS = Path(__file__).parents[1] / "datasets"
SIDE = 32


def written_by(script: str, out: Path, **options: object) -> Path:
    spec = importlib.util.spec_from_file_location(script, DATASETS / f"{script}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.write(out, **options)
    return out


def planted(folder: Path, seeds: int) -> None:
    dataset = read_samples(written_by("planted", folder / "planted", count=20))
    with (folder / "planted" / "truth.csv").open(newline="") as file:
        truth = {row[0]: " ".join(row[1:]) for row in csv.reader(file)}
    known = [truth[sample.source] for sample in dataset]
    scores = []
    for seed in range(seeds):
        found = group(dataset, 27, image_brightness=True, image_colorfulness=True, ambiguity=True, seed=seed)
        scores.append(adjusted_rand_score(known, found.group))
    print(f"planted, {len(dataset)} images, 27 groups: adjusted Rand index {' '.join(f'{s:.3f}' for s in scores)}")


def evenly(dataset: Dataset, most: int) -> Dataset:
    """At most so many samples, as many of each class."""
    step = max(1, -(-len(dataset) // most))
    return dataset.with_samples(dataset.samples[::step])


def nmi_of_peers(dataset: Dataset, known: list[str], seeds: int) -> dict[str, float]:
    thumbnails = [resized(read_picture(dataset.path(sample)).rgb, SIDE) for sample in dataset]
    pixels = np.stack(thumbnails).reshape(len(thumbnails), -1) / np.float32(255)
    spaces = {"pixels": pixels, "PCA": PCA(64, random_state=0).fit_transform(pixels), **histograms(thumbnails)}
    scores = {}
    for name, space in spaces.items():
        runs = [KMeans(len(set(known)), n_init=10, random_state=seed).fit_predict(space) for seed in range(seeds)]
        scores[name] = float(np.mean([normalized_mutual_info_score(known, run) for run in runs]))
    best = max((name for name in scores if name.startswith("HOG")), key=lambda name: scores[name], default=None)
    return {name: score for name, score in scores.items() if name == best or not name.startswith("HOG")}


def histograms(thumbnails: list[np.ndarray]) -> dict[str, np.ndarray]:
    try:
        from skimage.feature import hog
    except ImportError:
        print("scikit-image is not installed and is left out")
        return {}

    def rows(cell: int) -> np.ndarray:
        shape = {"pixels_per_cell": (cell, cell), "cells_per_block": (2, 2), "channel_axis": -1}
        return np.stack([hog(image, **shape) for image in thumbnails])

    return {f"HOG {cell}": rows(cell) for cell in (4, 8)}


def by_content(name: str, dataset: Dataset, seeds: int) -> None:
    known = [str(sample.labels[0].name) for sample in dataset]
    scores = nmi_of_peers(dataset, known, seeds)
    began = time.perf_counter()
    runs = [group(dataset, len(set(known)), all=True, seed=seed).group for seed in range(seeds)]
    seconds = (time.perf_counter() - began) / seeds
    scores["labelengine"] = float(np.mean([normalized_mutual_info_score(known, run) for run in runs]))
    told = "  ".join(f"{peer} {score:.3f}" for peer, score in scores.items())
    print(f"{name}, {len(dataset):,} images, {len(set(known))} classes, {seconds:.1f} s: {told}")


def speed(count: int = 2048) -> None:
    images = torch.randint(0, 256, (count, 96, 96, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))

    def batches() -> list[torch.Tensor]:
        small = [cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for image in images.numpy()]
        return list(torch.split(torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2), 256))

    times = []
    for _ in range(3):
        began = time.perf_counter()
        content_vectors(batches)
        times.append(time.perf_counter() - began)
    print(f"embedding, from 96 pixels: {count / sorted(times)[1]:,.0f} images/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tree", action="append", default=[], metavar="NAME=FOLDER", help="one folder a class")
    parser.add_argument("--most", type=int, default=5000, help="images of a tree (5000)")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    trees = [(name, path) for name, _, path in (entry.partition("=") for entry in options.tree)]
    with tempfile.TemporaryDirectory() as folder:
        planted(Path(folder), options.seeds)
        digits = written_by("digits", Path(folder) / "digits", layout="tree")
        for name, path in [("digits", digits), *trees]:
            by_content(name, evenly(read_samples(path, format="tree"), options.most), options.seeds)
    speed()


if __name__ == "__main__":
    main()
