"""What a GPU must do as a CPU does: the same bytes twice and after a stop, models that may move, every command."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import painted
from test_detecting import quick, scenes
from test_labeling import label

from engine.cli import main
from engine.dataset import write_dataset
from engine.errors import Stopped
from engine.label.augment import STRONG
from engine.label.losses import Believed, Told, consistent
from engine.label.networks import NetworkSpec, fit_stem, initialised
from engine.label.recorded import Given, sent
from engine.label.training import Lesson, Recipe, Training, Watch, generator_of, train
from engine.manifest import read_manifest, write_manifest
from engine.models import load_any, model_digest, save_model
from engine.outfolder import OutFolder
from engine.sums import grouped_sums

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

ALGORITHMS = ["fast", "accurate"]
PRECISIONS = ["float32", "bfloat16"]
GPU = torch.device("cuda")
AT = datetime(2026, 5, 1)


def after(calls: int) -> Callable[[], bool]:
    left = iter(range(calls))
    return lambda: next(left, None) is None


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("algorithm_type", ALGORITHMS)
def test_the_same_labeling_twice_and_after_a_stop(tmp_path: Path, algorithm_type: str, precision: str) -> None:
    few, options = painted(tmp_path / "few"), {"device": GPU, "precision": precision, "steps": (12,)}
    first, second = label(few, algorithm_type, **options), label(few, algorithm_type, **options)
    assert model_digest(first.classifier) == model_digest(second.classifier)
    assert first.probabilities.tobytes() == second.probabilities.tobytes()
    with pytest.raises(Stopped):
        label(few, algorithm_type, folder=tmp_path / "cache", stopped=after(15), **options)
    resumed = label(few, algorithm_type, folder=tmp_path / "cache", **options)
    assert resumed.probabilities.tobytes() == first.probabilities.tobytes()


def test_a_recorded_step_does_what_the_step_does() -> None:
    """The same images, weights and chance: step by step, and as the GPU has recorded it; also where it is no number."""
    pixels = torch.randint(0, 256, (64, 3, 32, 32), dtype=torch.uint8, generator=generator_of("pixels")).to(GPU)
    targets, few = F.one_hot(torch.arange(64) % 4, 4).float(), torch.arange(24)
    told, shares = Told(few, targets[few]), torch.full((4,), 0.25)
    believed = Believed(torch.arange(24, 64), targets[24:], shares)
    lesson = consistent(lambda rows: pixels[sent(rows, GPU)], told, believed, STRONG, (8, 24), 0, multi_label=False)
    spec = NetworkSpec(32, (16, 32), 4)
    begun = initialised(spec, fit_stem(pixels.cpu(), spec), generator_of("net")).to(GPU)

    def run(lesson: Lesson | Callable[[Training], torch.Tensor]) -> Training:
        return train("t", copy.deepcopy(begun), 30, Recipe(), lesson, bfloat16=True, watch=Watch())

    def one_by_one(training: Training) -> torch.Tensor:
        for name, value in lesson.memory.items():
            training.memory.setdefault(name, value.clone().to(GPU))
        return lesson.loss(training, lesson.given(training.step, 30))

    recorded, plainly = run(lesson), run(one_by_one)
    for name, value in recorded.average.state_dict().items():
        torch.testing.assert_close(value, plainly.average.state_dict()[name], atol=1e-2, rtol=1e-2, msg=name)

    def broken(step: int, steps: int) -> Given:
        given = lesson.given(step, steps)
        factor = float("nan") if step == 9 else 1.0
        return replace(given, tensors=(given.tensors[0], *(factor * each for each in given.tensors[1:])))

    broken_once = run(replace(lesson, given=broken))
    assert broken_once.recoveries == 1 and broken_once.finished
    assert all(bool(value.isfinite().all()) for value in broken_once.average.state_dict().values())


def test_a_budget_becomes_steps(tmp_path: Path) -> None:
    labeling = label(painted(tmp_path / "few"), steps=(), minutes=0.1, precision="auto", device=GPU)
    assert labeling.choices["device"] == "cuda" and all(int(n) >= 8 for n in labeling.choices["steps"].split("+"))


@pytest.mark.parametrize("algorithm_type", ALGORITHMS)
def test_a_classifier_moves_to_the_cpu_and_back(tmp_path: Path, algorithm_type: str) -> None:
    model = label(painted(tmp_path / "few"), algorithm_type, device=GPU, steps=(12,)).classifier
    with OutFolder(tmp_path / "out") as out:
        save_model(out, model, metrics={}, training_digest="0" * 64, created=AT)
    images = torch.randint(0, 256, (5, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    there = model.probabilities(images.to(GPU)).cpu()
    kept = [load_any(tmp_path / "out" / "model", device=torch.device(name)) for name in ("cpu", "cuda")]
    assert model_digest(model) == model_digest(kept[0]) == model_digest(kept[1])  # type: ignore[arg-type]
    assert torch.equal(kept[1].probabilities(images.to(GPU)).cpu(), there)  # type: ignore[union-attr]
    assert torch.allclose(kept[0].probabilities(images), there, atol=0.02)  # type: ignore[union-attr]


@pytest.mark.parametrize("algorithm_type", ALGORITHMS)
def test_the_same_boxes_twice_and_after_a_stop(tmp_path: Path, algorithm_type: str) -> None:
    dataset, _ = scenes(tmp_path / "few", 6, 3)
    options = {"device": GPU, "min_per_class": 2, "steps": (10,)}
    first, second = quick(dataset, algorithm_type, **options), quick(dataset, algorithm_type, **options)
    assert model_digest(first.detector) == model_digest(second.detector)
    with pytest.raises(Stopped):
        quick(dataset, algorithm_type, folder=tmp_path / "cache", stopped=after(12), **options)
    resumed = quick(dataset, algorithm_type, folder=tmp_path / "cache", **options)
    assert model_digest(resumed.detector) == model_digest(first.detector)


def commands(*lines: str) -> None:
    for line in lines:
        words = line.split()
        assert main([*words, *(["--device", "cuda"] if "--device" not in line else [])]) == 0, line


def test_every_command_for_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABELENGINE_HOME", str(tmp_path / "home"))
    few = painted(tmp_path / "few")
    data = tmp_path / "few" / "few.manifest"
    write_manifest(data, [*few])
    commands(
        f"group {data} --out {tmp_path}/content --n-clusters 3",
        f"group {data} --out {tmp_path}/light --n-clusters 2 --image-brightness --image-colorfulness --ambiguity --all",
        f"label {data} --out {tmp_path}/fast --algorithm-type fast --steps 12 --collect-key-sample",
        f"label {data} --out {tmp_path}/accurate --algorithm-type accurate --steps 12 --collect-key-sample",
        f"suggest {data} --out {tmp_path}/next --count 3",
        f"suggest {tmp_path}/fast --out {tmp_path}/after --count 3",
        f"hard {tmp_path}/fast --out {tmp_path}/hard",
        f"prelabel {data} --model {tmp_path}/accurate/model --out {tmp_path}/pre",
        f"simulate {data} --out {tmp_path}/sim --labels 9 --seeds 1 --min-per-class 3 --algorithm fast --minutes 0.1",
    )
    for name in ("fast", "accurate", "pre"):
        labels = [each for sample in read_manifest(tmp_path / name / "result.manifest") for each in sample.labels]
        assert len(labels) >= 27 and json.loads((tmp_path / name / "task.json").read_text())["status"] == 3
    said = [np.load(tmp_path / name / "probabilities.npz")["probabilities"] for name in ("fast", "accurate")]
    assert all(np.isfinite(each[18:]).all() for each in said)


def test_every_command_for_boxes(tmp_path: Path) -> None:
    dataset, _ = scenes(tmp_path / "few", 8, 3)
    data = tmp_path / "data"
    write_dataset(dataset, data, to="voc")
    commands(
        f"label {data} --out {tmp_path}/fast --algorithm-type fast --steps 10 --min-per-class 2 --collect-key-sample",
        f"label {data} --out {tmp_path}/accurate --algorithm-type accurate --steps 10 --min-per-class 2",
        f"prelabel {data} --model {tmp_path}/fast/model --out {tmp_path}/pre",
        f"hard {tmp_path}/fast --out {tmp_path}/hard",
    )
    assert all((tmp_path / name / "report.html").stat().st_size > 0 for name in ("fast", "accurate", "pre", "hard"))


def test_sums_by_group_are_the_same_bits_twice() -> None:
    chance = torch.Generator().manual_seed(0)
    values, groups = torch.randn(3, 50_000, generator=chance), torch.randint(0, 7, (3, 50_000), generator=chance)
    there = [grouped_sums(values.to(GPU), groups.to(GPU), 7).cpu() for _ in range(3)]
    assert torch.equal(there[0], there[1]) and torch.equal(there[1], there[2])
    assert torch.allclose(there[0], grouped_sums(values, groups, 7), atol=0.01)


def test_images_come_to_the_device_of_the_model(tmp_path: Path) -> None:
    model = label(painted(tmp_path / "few"), device=GPU).classifier
    images = torch.rand(2, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    said = model.predict(images).probabilities
    assert said is not None and said.device.type == "cuda" and bool(said.isfinite().all())
