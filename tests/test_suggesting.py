"""`suggest` as a task: what is written, who is never asked about, and where the uncertainty comes from."""

from __future__ import annotations

import csv
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import LIGHTS, draw

from engine import embeddings
from engine.dataset import RESULT_NAME, Dataset, read_samples
from engine.errors import InputError, UsageError
from engine.manifest import read_manifest, write_manifest
from engine.samples import IMAGE_CLASSIFICATION, Label, Sample
from engine.tasks.runner import run
from engine.tasks.suggesting import PROBABILITIES_NAME, PROPERTY, suggest_task


@pytest.fixture(autouse=True)
def small_eyes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thumbnails of 16 pixels: a fifth of the columns to whiten."""
    monkeypatch.setitem(embeddings.ENCODERS, "gradients", lambda: embeddings.Gradients(size=16))


def suggested(data: Path | Dataset, out: Path, count: int, **options: Any) -> tuple[dict[str, Any], list[Sample]]:
    dataset = data if isinstance(data, Dataset) else read_samples(data, plain=True)
    answer = run(suggest_task(dataset, count=count, **options), out)
    return answer, list(read_manifest(out / "suggested.manifest"))


def names(samples: list[Sample]) -> list[str]:
    return [Path(sample.source).name for sample in samples]


def labeled(photos: Path, each: int, *, automatic: bool = False) -> Dataset:
    """The photos, so many of each light labeled by a person; automatic: the others by a machine."""
    dataset = read_samples(photos, plain=True)

    def with_label(sample: Sample) -> Sample:
        light, number = Path(sample.source).stem.split("-")[1:]
        if int(number) < each:
            return replace(sample, labels=(Label(IMAGE_CLASSIFICATION, light, annotated_by="human/Ann"),))
        if automatic:
            return replace(sample, labels=(Label(IMAGE_CLASSIFICATION, light, annotated_by="modelarts/auto"),))
        return sample

    return dataset.with_samples(map(with_label, dataset))


def test_a_cold_start(photos: Path, tmp_path: Path) -> None:
    (photos / "broken.png").write_bytes(b"no image")
    out = tmp_path / "out"
    answer, samples = suggested(photos, out, 6)
    assert sorted(path.name for path in out.iterdir()) == [
        ".labelengine-wrote",
        "report.html",
        "suggested.csv",
        "suggested.manifest",
        "task.json",
    ]
    assert len(set(names(samples))) == 6
    assert [sample.property[PROPERTY]["rank"] for sample in samples] == [1, 2, 3, 4, 5, 6]
    assert all(read_samples(out).path(sample).is_file() for sample in samples)
    with (out / "suggested.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["rank"], row["source"], row["why"], float(row["score"])) for row in rows] == [
        (str(rank), sample.source, "typical", sample.property[PROPERTY]["score"])
        for rank, sample in enumerate(samples, start=1)
    ]
    assert answer["task_type"] == "suggest"
    result = answer["result"]
    assert (result["suggested_sample_count"], result["total_sample_count"], result["labeled_sample_count"]) == (
        6,
        25,
        0,
    )
    assert (result["cold_start"], result["reasons"]) == (True, {"typical": 6})
    assert [failure["source"] for failure in answer["failures"]] == ["broken.png"]
    assert any("a cold start, no label" in line for line in answer["notices"])
    page = (out / "report.html").read_text()
    assert "Typical: 6" in page and "broken.png" in page
    places = [page.index(f'title="{name}"') for name in names(samples)]
    assert places == sorted(places)


def test_the_same_seed_suggests_the_same(photos: Path, tmp_path: Path) -> None:
    first, second = (suggested(labeled(photos, 3), tmp_path / name, 5, seed=4)[1] for name in ("a", "b"))
    assert [(sample.source, sample.property) for sample in first] == [
        (sample.source, sample.property) for sample in second
    ]


@pytest.mark.parametrize("automatic", [False, True])
def test_what_a_person_labeled_is_never_suggested(photos: Path, tmp_path: Path, automatic: bool) -> None:
    answer, samples = suggested(labeled(photos, 3, automatic=automatic), tmp_path / "out", 40)
    assert all(int(Path(name).stem.split("-")[2]) >= 3 for name in names(samples))
    assert 8 <= len(samples) <= 15
    assert set(answer["result"]["reasons"]) <= {"uncertain", "new"}
    assert any("a ridge head on 9 labeled images, 3 labels" in line for line in answer["notices"])
    assert any(f"{len(samples)} images instead of 40" in line for line in answer["notices"])
    assert all(bool(sample.labels) == automatic for sample in samples)  # they keep what they have


def test_one_label_or_one_a_class_is_too_few_for_doubt(photos: Path, tmp_path: Path) -> None:
    answer, _ = suggested(labeled(photos, 1), tmp_path / "few", 3)
    assert answer["result"]["reasons"] == {"typical": 3}
    assert any("fewer than 2 a label" in line for line in answer["notices"])
    dataset = read_samples(photos, plain=True)
    one = replace(dataset[0], labels=(Label(IMAGE_CLASSIFICATION, "dark"),))
    answer, samples = suggested(dataset.with_samples((one, *dataset[1:])), tmp_path / "one", 3)
    assert any("a cold start, one label only" in line for line in answer["notices"])
    assert one.source not in names(samples)


def test_several_labels_a_sample(photos: Path, tmp_path: Path) -> None:
    dataset = labeled(photos, 3)
    both = (*dataset[0].labels, Label(IMAGE_CLASSIFICATION, "first", annotated_by="human/Ann"))
    dataset = dataset.with_samples((replace(dataset[0], labels=both), *dataset[1:]))
    answer, samples = suggested(dataset, tmp_path / "out", 4)
    assert len(samples) == 4
    assert any("a ridge head on 9 labeled images, 4 labels" in line for line in answer["notices"])


def test_the_same_picture_is_suggested_once(photos: Path, tmp_path: Path) -> None:
    for number in range(10):
        shutil.copy(photos / "light-1-5.png", photos / f"copy-{number}.png")
    answer, samples = suggested(photos, tmp_path / "out", 34)
    again = [name for name in names(samples) if name.startswith("copy") or name == "light-1-5.png"]
    assert len(again) == 1
    assert answer["result"]["same_picture_count"] >= 10
    assert answer["result"]["same_picture_count"] == 34 - len(samples)


# ---- OUT of auto labeling


def earlier(photos: Path, out: Path, doubtful: str, **arrays: Any) -> Path:
    """OUT as auto labeling leaves it: all but the labeled ones have a machine's label, one light is doubtful."""
    samples = [replace(sample, source=f"../photos/{sample.source}") for sample in labeled(photos, 3, automatic=True)]
    out.mkdir()
    write_manifest(out / RESULT_NAME, samples)
    rows = [[0.5, 0.5, 0.0] if f"light-{doubtful}" in sample.source else [1.0, 0.0, 0.0] for sample in samples]
    content: dict[str, Any] = {
        "probabilities": np.array(rows, np.float32),
        "labels": np.array(["0", "1", "2"]),
        "sources": np.array([sample.source for sample in samples]),
        "labeled": np.array([bool(sample.labels[0].by_human) for sample in samples]),
        **arrays,
    }
    np.savez(out / PROBABILITIES_NAME, **{name: value for name, value in content.items() if value is not None})
    return out


@pytest.mark.parametrize("doubtful", ["0", "1", "2"])
def test_an_earlier_run_says_what_is_uncertain(photos: Path, tmp_path: Path, doubtful: str) -> None:
    answer, samples = suggested(earlier(photos, tmp_path / "labels", doubtful), tmp_path / "out", 3)
    assert [name.split("-")[1] for name in names(samples)] == [doubtful] * 3
    assert any("probabilities.npz of the earlier run, for 15 unlabeled images" in line for line in answer["notices"])


def test_an_earlier_run_on_other_images_says_nothing(photos: Path, tmp_path: Path) -> None:
    sources = np.array([f"other/{number}.png" for number in range(24)])
    answer, _ = suggested(earlier(photos, tmp_path / "labels", "0", sources=sources), tmp_path / "out", 3)
    assert any("a ridge head on 9 labeled images" in line for line in answer["notices"])


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"probabilities": None}, "must hold the arrays of auto labeling, cannot be read"),
        (
            {"sources": np.array(["a"])},
            r"must hold probabilities \(1, 3\) and labeled \(1,\), n and k at least 1, got \(24, 3\) and \(24,\)",
        ),
    ],
)
def test_a_file_that_holds_something_else(photos: Path, tmp_path: Path, arrays: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        suggested(earlier(photos, tmp_path / "labels", "0", **arrays), tmp_path / "out", 3)


# ---- what fails


def test_nothing_left_to_label(photos: Path, tmp_path: Path) -> None:
    said = r"needs at least 1 image .* got none among 24 samples \(24 labeled, 0 cannot be read\)"
    with pytest.raises(UsageError, match=said):
        suggested(labeled(photos, 8), tmp_path / "out", 3)
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"no image")
    with pytest.raises(UsageError, match=r"got none among 1 samples \(0 labeled, 1 cannot be read\)"):
        suggested(folder, tmp_path / "out2", 3)


def test_one_image(tmp_path: Path) -> None:
    draw(tmp_path / "one" / "a.png", light=LIGHTS[0])
    answer, samples = suggested(tmp_path / "one", tmp_path / "out", 3)
    assert names(samples) == ["a.png"]
    assert any("1 images instead of 3: there are no more" in line for line in answer["notices"])


def test_options_that_fail(photos: Path) -> None:
    dataset = read_samples(photos, plain=True)
    with pytest.raises(UsageError, match="count: must be at least 1, got 0"):
        suggest_task(dataset, count=0)
    with pytest.raises(UsageError, match="weights: belong to an encoder"):
        suggest_task(dataset, count=1, weights=Path("w.safetensors"))
    with pytest.raises(UsageError, match="encoder: must be"):
        suggest_task(dataset, count=1, encoder="nothing")
