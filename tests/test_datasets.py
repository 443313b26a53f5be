"""The scripts in datasets/: what they write is what they say."""

from __future__ import annotations

import csv
import importlib.util
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest
from sklearn.datasets import load_digits
from sklearn.metrics import adjusted_rand_score

from engine.dataset import read_samples
from engine.errors import OutputError
from engine.grouping import group
from engine.images import read_picture

SCRIPTS = Path(__file__).parents[1] / "datasets"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"datasets_{name}", SCRIPTS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def truth(folder: Path) -> dict[str, tuple[str, ...]]:
    with (folder / "truth.csv").open(newline="") as file:
        _, *rows = csv.reader(file)
    return {name: tuple(values) for name, *values in rows}


def test_digits(tmp_path: Path) -> None:
    digits = script("digits")
    assert digits.write(tmp_path / "flat") == 1797
    assert digits.write(tmp_path / "tree", layout="tree") == 1797
    known = truth(tmp_path / "flat")
    tree = read_samples(tmp_path / "tree")
    assert tree.format == "tree"
    assert {Path(sample.source).name: (sample.labels[0].name,) for sample in tree} == known
    assert len(read_samples(tmp_path / "flat")) == 1797
    assert read_picture(tmp_path / "flat" / "digit-0001.png").rgb.shape == (32, 32, 3)
    with pytest.raises(OutputError, match="must be new or empty"):
        digits.write(tmp_path / "flat")


def test_digits_of_which_some_are_labeled(tmp_path: Path) -> None:
    script("digits").write(tmp_path / "some", labeled=25)
    some, all_of_them = (read_samples(tmp_path / "some" / f"{name}.manifest") for name in ("some", "truth"))
    assert len(some) == len(all_of_them) == 1797 and all(len(sample.labels) == 1 for sample in all_of_them)
    known = [row for row, sample in enumerate(some) if sample.labels]
    assert len(known) == 25 and all(some[row] == all_of_them[row] for row in known)
    names = [some[row].labels[0].name for row in known]
    assert {names.count(name) for name in set(names)} == {2, 3} and len(set(names)) == 10
    assert all_of_them.path(all_of_them[7]).is_file()


def test_digit_pairs(tmp_path: Path) -> None:
    pairs = script("digit_pairs")
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        count = pairs.write(tmp_path / name, seed=seed)
        assert 650 < count < 780
        assert len(list((tmp_path / name).glob("*.png"))) == len(list((tmp_path / name).glob("*.txt"))) == count
    files = sorted(path.name for path in (tmp_path / "a").glob("picture-*"))
    assert all((tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes() for file in files)
    assert any((tmp_path / "a" / file).read_bytes() != (tmp_path / "c" / file).read_bytes() for file in files[:20])
    dataset = read_samples(tmp_path / "a")
    assert dataset.format == "tile"
    assert {len(sample.labels) for sample in dataset} == {2, 3}
    given = Counter(label.name for sample in dataset for label in sample.labels)
    digits = load_digits().target.tolist()
    assert all(0.9 * digits.count(int(name)) < count <= digits.count(int(name)) for name, count in given.items())
    assert sorted(given) == [str(label) for label in range(10)]
    for sample in dataset[:20]:
        rgb = read_picture(dataset.path(sample)).rgb
        assert rgb.shape == (32, 32, 3)
        columns = (rgb[:, :, 0] > 0).any(axis=0).sum()
        assert 5 * len(sample.labels) < columns <= 10 * len(sample.labels)


def test_photos_are_the_same_for_the_same_seed(tmp_path: Path) -> None:
    photos = script("photos")
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        assert photos.write(tmp_path / name, count=12, seed=seed) == 12
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.jpg"))
    assert len(files) == 12
    assert all((tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes() for file in files)
    assert any((tmp_path / "a" / file).read_bytes() != (tmp_path / "c" / file).read_bytes() for file in files)


def test_the_planted_groups_are_found(tmp_path: Path) -> None:
    assert script("planted").write(tmp_path / "planted", count=8, seed=1) == 216
    known = truth(tmp_path / "planted")
    dataset = read_samples(tmp_path / "planted")
    found = group(dataset, 27, image_brightness=True, image_colorfulness=True, ambiguity=True)
    score = adjusted_rand_score([" ".join(known[sample.source]) for sample in dataset], found.group)
    assert score >= 0.95
