"""Auto labeling as a whole: `auto_label` on drawn images, small but real training."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import orjson
import pytest
import torch
import torch.nn.functional as F
from conftest import SHAPES, draw, paint
from torch import nn

from engine.dataset import Dataset, read_samples
from engine.embeddings import Embedding, Gradients
from engine.errors import InputError, OutputError, Stopped, UsageError
from engine.label.accurate import most_lessons
from engine.label.beliefs import Beliefs, with_networks
from engine.label.calibration import mean_log_loss
from engine.label.classifier import LinearHead
from engine.label.clock import Clock
from engine.label.crossfit import Member, trained_member
from engine.label.labeling import auto_label, default_minutes, made
from engine.label.losses import AGREEMENT_SIDES, VIEW_SIDES
from engine.label.mirrored import mirrored
from engine.label.networks import Network
from engine.label.opinions import HeadFit, Unfinished, _unseen, _weighed, best_head, taught_head
from engine.label.plan import Plan, Settings, plan_for
from engine.label.pool import Pool
from engine.label.results import Labeling, annotated
from engine.label.sight import Sight
from engine.label.targets import targets_of
from engine.label.training import Training, train
from engine.models import model_digest
from engine.samples import HARD_REASONS_KEY, IMAGE_CLASSIFICATION, Label, Sample
from engine.sources import Sources

CPU = torch.device("cpu")


def label(dataset: Dataset, algorithm_type: str = "fast", **options: object) -> Labeling:
    options = {"steps": (8,), "networks": 2, "precision": "float32", "image_size": 16, **options}
    return auto_label(dataset, algorithm_type, **options)  # type: ignore[arg-type]


def truth(dataset: Dataset) -> list[str]:
    return [SHAPES[int(sample.source[:2]) % 3] for sample in dataset]


@pytest.mark.parametrize("algorithm_type", ["fast", "accurate"])
def test_the_rest_is_labeled(few: Dataset, algorithm_type: str) -> None:
    labeling = label(few, algorithm_type)
    assert labeling.labels == ("lying", "ring", "standing")
    assert labeling.automatic.tolist() == [at >= 18 for at in range(27)]
    np.testing.assert_allclose(labeling.probabilities[18:].sum(axis=1), 1, atol=1e-5)
    said = [labeling.labels[at] for at in labeling.predicted.argmax(axis=1)]
    assert said[18:] == truth(few)[18:]
    assert ((labeling.confidences[18:] > 1 / 3) & (labeling.confidences[18:] <= 1)).all()
    # Two networks of five parts: the labels of the other parts were seen by both.
    assert 0 < int(labeling.predictable[:18].sum()) < 18
    assert labeling.choices["networks"] == 2
    assert labeling.choices["cv_images"] == int(labeling.predictable[:18].sum())


def test_with_a_network_for_each_part_every_label_is_judged_out_of_fold(few: Dataset) -> None:
    labeling = label(few, networks=5)
    assert labeling.predictable.all()
    assert labeling.choices["cv_images"] == 18


def test_the_same_call_gives_the_same_bytes(few: Dataset) -> None:
    first, second, other = label(few), label(few), label(few, seed=1)
    assert first.probabilities.tobytes() == second.probabilities.tobytes()
    assert model_digest(first.classifier) == model_digest(second.classifier) != model_digest(other.classifier)


def repaint(dataset: Dataset, labeled: bool) -> None:
    """Other pixels for the images with, or without, a label."""
    for number, sample in enumerate(dataset):
        if bool(sample.labels) == labeled:
            paint(dataset.path(sample), SHAPES[number % 2], 100 + number)


def test_fast_never_sees_the_pixels_of_unlabeled_images(few: Dataset) -> None:
    before = model_digest(label(few).classifier)
    repaint(few, labeled=False)
    assert model_digest(label(few).classifier) == before
    repaint(few, labeled=True)
    assert model_digest(label(few).classifier) != before


def test_accurate_does_see_them(few: Dataset) -> None:
    before = model_digest(label(few, "accurate").classifier)
    repaint(few, labeled=False)
    assert model_digest(label(few, "accurate").classifier) != before


@pytest.mark.parametrize("which", [0, 1, 2])
def test_the_head_of_accurate_may_rest_on_what_was_learned_without_labels(
    few: Dataset, monkeypatch: pytest.MonkeyPatch, which: int
) -> None:
    heads: list[HeadFit] = []

    def kept(*fits: HeadFit) -> HeadFit:
        heads.extend(fits)
        return fits[which]

    monkeypatch.setattr("engine.label.accurate.best_head", kept)
    labeling = label(few, "accurate")
    of_gradients, of_sight, taught = (fit.head.encoder for fit in heads)
    assert isinstance(of_sight, Embedding) and isinstance(of_sight.encoder, Sight) and of_sight.images == 27
    assert taught is of_sight and heads[2].name == f"{of_sight.name}, taught by the graph"
    assert of_gradients == mirrored(Gradients(), (True, True)) == label(few, "fast").classifier.head.encoder  # type: ignore[union-attr]
    assert labeling.classifier.head is not None and torch.equal(
        labeling.classifier.head.weights, heads[which].head.weights
    )
    assert labeling.choices["head"] == heads[which].name


@pytest.mark.parametrize("by_networks", [False, True])
def test_a_network_that_is_not_asked_is_not_begun_with(
    few: Dataset, monkeypatch: pytest.MonkeyPatch, by_networks: bool
) -> None:
    before: dict[tuple[str, int], dict[str, torch.Tensor]] = {}
    after: dict[tuple[str, int], dict[str, torch.Tensor]] = {}

    def recorded(pool: Pool, plan: Plan, part: int, net: Network, *rest: Any, name: str, **options: Any) -> Member:
        before[name, part] = {key: value.clone() for key, value in net.state_dict().items()}
        member = trained_member(pool, plan, part, net, *rest, name=name, **options)
        after[name, part] = member.network.state_dict()
        return member

    def asked(*given: Any) -> Beliefs:
        return replace(with_networks(*given), by_networks=by_networks)

    monkeypatch.setattr("engine.label.accurate.trained_member", recorded)
    monkeypatch.setattr("engine.label.accurate.with_networks", asked)
    label(few, "accurate")
    expected = (after if by_networks else before)["labels", 0]
    assert all(torch.equal(before["accurate", 0][key], value) for key, value in expected.items())
    assert not torch.equal(before["labels", 0]["head.weight"], after["labels", 0]["head.weight"])


def test_few_labels_are_not_looked_at_without_end() -> None:
    told = torch.eye(2)[torch.arange(40) % 2]
    pool = Pool(lambda rows: torch.zeros(len(rows), 3, 16, 16, dtype=torch.uint8), told, ("a", "b"), False, 16, CPU)
    plan = plan_for(pool, Settings(), folds=2, members=2)
    assert most_lessons(pool, plan) == math.ceil(300 * 40 / plan.batch)
    assert most_lessons(pool, replace(plan, batch=1)) == 3_000


def test_the_best_head_is_that_with_the_least_loss() -> None:
    def fit(loss: float) -> HeadFit:
        empty = torch.zeros(0)
        return HeadFit(LinearHead(Gradients(), empty, empty, empty, 1.0), empty, loss, "gradients")

    good, bad = fit(0.1), fit(0.2)
    assert best_head(good, bad) is best_head(bad, good, bad) is good


def test_a_head_is_taught_what_is_believed_and_judged_by_what_it_has_not_seen() -> None:
    """Vectors that tell the classes, four labels; beliefs of all images are right, those without a part perhaps not."""
    truth = F.one_hot(torch.arange(40) % 2, 2).float()
    vectors = truth @ torch.tensor([[1.0, 0.0], [0.0, 1.0]]) + 0.1 * torch.randn(
        40, 2, generator=torch.Generator().manual_seed(0)
    )
    told = truth.clone()
    told[4:] = 0
    pool = Pool(lambda rows: rows, told, ("a", "b"), False, 32, CPU)
    fold = torch.tensor([0, 0, 1, 1])
    good = taught_head(pool, Gradients(), vectors, truth, [truth, truth], fold)
    assert torch.equal(good.logits.argmax(dim=1), truth[:4].argmax(dim=1)) and good.log_loss < 0.3
    wrong_without = taught_head(pool, Gradients(), vectors, truth, [truth, 1 - truth], fold)
    assert torch.equal(wrong_without.head.weights, good.head.weights)
    assert torch.equal(wrong_without.logits[:2], good.logits[:2])
    assert torch.equal(wrong_without.logits[2:].argmax(dim=1), (1 - truth[2:4]).argmax(dim=1))


def test_many_labels_take_all_the_time(few: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.label.accurate._FEW", 2)
    monkeypatch.setattr("engine.label.accurate._MANY", 18)
    labeling = label(few, "accurate")
    assert labeling.choices["consistency"].startswith("left out") and "beliefs" not in labeling.choices
    assert labeling.choices["steps"] == "8+8+8"  # telling images apart, then the labels by each of two networks
    assert label(few, "accurate", networks=None).choices["networks"] == 3
    said = [labeling.labels[at] for at in labeling.predicted.argmax(axis=1)]
    assert said[18:] == truth(few)[18:]
    with pytest.raises(Unfinished) as stopped:
        label(few, "accurate", stopped=after(24))
    assert stopped.value.verdict.classifier.committee is not None


def after(calls: int) -> Callable[[], bool]:
    """Says that it is time to stop from so many calls on."""
    asked = 0

    def stopped() -> bool:
        nonlocal asked
        asked += 1
        return asked > calls

    return stopped


@pytest.mark.parametrize(("algorithm_type", "calls"), [("fast", 12), ("fast", 14), ("accurate", 12), ("accurate", 24)])
def test_a_labeling_that_was_stopped_goes_on_to_the_same_result(
    few: Dataset, tmp_path: Path, algorithm_type: str, calls: int
) -> None:
    with pytest.raises(Unfinished) as stopped:
        label(few, algorithm_type, folder=tmp_path / "cache", stopped=after(calls))
    best = stopped.value.verdict.classifier.probabilities(torch.zeros(2, 3, 16, 16, dtype=torch.uint8))
    assert best.shape == (2, 3) and bool(best.isfinite().all())
    whole = label(few, algorithm_type)
    resumed = label(few, algorithm_type, folder=tmp_path / "cache")
    assert model_digest(resumed.classifier) == model_digest(whole.classifier)
    assert resumed.probabilities.tobytes() == whole.probabilities.tobytes()


def at(stage: str) -> dict[str, Callable[..., Any]]:
    """Options for a call that is stopped when this stage begins."""
    begun: list[str] = []

    def begin(name: str, total: int) -> Callable[[int], None]:
        begun.append(name)
        return lambda done: None

    return {"stage": begin, "stopped": lambda: stage in begun}


@pytest.mark.parametrize(
    ("algorithm_type", "first", "second", "lessons"),
    [
        ("fast", "labeling", "looking at labeled images", ("fast", "fast")),
        ("accurate", "labeling", "learning to tell images apart", ("accurate", "accurate")),
        ("accurate", "labeling", "learning to tell images apart", ("longer", "longer")),
        ("accurate", "labeling", "training network 1 of 2", ("accurate", "accurate")),
        ("accurate", "training network 2 of 2", "teaching network 1 of 2 the labels", ("accurate", "labels")),
        ("accurate", "training network 1 of 2", "learning to tell images apart", ("labels", "labels")),
    ],
)
def test_networks_of_an_earlier_run_are_not_lost_to_another_stop(
    few: Dataset,
    tmp_path: Path,
    algorithm_type: str,
    first: str,
    second: str,
    lessons: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("engine.label.plan._WIDTHS", (8, 8, 8))
    helped = {"unlabeled_images_used": "longer" not in lessons}
    monkeypatch.setattr("engine.label.accurate._compared", lambda *arguments: helped)
    if first == "labeling":
        label(few, algorithm_type, folder=tmp_path)
    else:
        with pytest.raises(Unfinished):
            label(few, algorithm_type, folder=tmp_path, **at(first))
    with pytest.raises(Unfinished, match="with 2 of 2 networks") as stopped:
        label(few, algorithm_type, folder=tmp_path, **at(second))
    verdict = stopped.value.verdict
    assert verdict.classifier.committee is not None and sorted(set(verdict.judge.tolist())) == [-1, 0, 1]
    for part, network in enumerate(verdict.classifier.committee.networks):
        (path,) = tmp_path.glob(f"training-*/{lessons[part]}-{part}.checkpoint")
        kept = torch.load(path)["average"]
        assert all(torch.equal(value, kept[name]) for name, value in network.state_dict().items())


def test_the_model_of_a_stopped_run_knows_what_it_learned_from(few: Dataset) -> None:
    with pytest.raises(Unfinished) as stopped:
        label(few, seed=3, **at("training network 2 of 2"))
    found, whole = stopped.value.verdict.found, label(few, seed=3).choices
    for name in ("training_digest", "seed", "minutes", "steps"):
        assert found[name] == whole[name], name


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="file/training: cannot be made: Not a directory"):
        made(tmp_path / "file" / "training")


@pytest.mark.parametrize("calls", [42, 48])
def test_networks_that_were_taught_the_labels_are_not_lost_to_a_stop(few: Dataset, calls: int) -> None:
    """8 steps of pretraining, 2 x 8 with the labels, 2 x 8 with everything: the stop comes in the last two."""
    with pytest.raises(Unfinished) as stopped:
        label(few, "accurate", stopped=after(calls))
    verdict = stopped.value.verdict
    committee = verdict.classifier.committee
    assert committee is not None and len(committee.networks) == 2
    assert sorted(set(verdict.judge.tolist())) == [-1, 0, 1]


def test_a_stop_while_the_rest_is_labeled_keeps_the_model(few: Dataset) -> None:
    def stage(name: str, total: int) -> Callable[[int], None]:
        def advance(done: int) -> None:
            if name == "labeling":
                raise Stopped("stopped on request")

        return advance

    with pytest.raises(Unfinished, match="stopped on request") as stopped:
        label(few, stage=stage)
    assert stopped.value.verdict.classifier.committee is not None


def test_no_more_networks_than_parts_of_the_labels(few: Dataset) -> None:
    two = few.with_samples(few.samples[:6] + few.samples[18:])
    labeling = label(two, "accurate", networks=8, min_per_class=2, steps=(2,))
    assert labeling.choices["networks"] == labeling.choices["folds"] <= 6


def test_what_is_reported_was_not_chosen_for() -> None:
    """Temperatures and shares are fitted on labels that are not the ones reported on: never better than on these."""
    logits = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    truth = torch.nn.functional.one_hot(torch.arange(60) % 3, 3).bool()
    seen = _weighed(logits, logits.flip(1), truth, False).together(logits, logits.flip(1))
    unseen, _ = _unseen(logits, logits.flip(1), truth, False, 0)
    assert mean_log_loss(unseen, truth, multi_label=False) > mean_log_loss(seen, truth, multi_label=False)
    torch.testing.assert_close(unseen.sum(dim=1), torch.ones(60))


def test_a_checkpoint_of_another_data_set_is_not_taken(few: Dataset, tmp_path: Path) -> None:
    label(few, folder=tmp_path / "cache")
    swapped = {"lying": "ring", "ring": "lying", "standing": "standing"}
    other = few.with_samples(
        Sample(
            source=sample.source,
            labels=tuple(Label(type=each.type, name=swapped[str(each.name)]) for each in sample.labels),
        )
        for sample in few
    )
    resumed = label(other, folder=tmp_path / "cache")
    assert model_digest(resumed.classifier) == model_digest(label(other).classifier)


def test_a_budget_of_a_tenth_of_a_minute_is_kept(few: Dataset) -> None:
    told: list[str] = []
    labeling = label(few, steps=(), minutes=0.1, note=told.append)
    assert [line for line in told if "in 0.1 minutes" in line]
    steps = [int(each) for each in labeling.choices["steps"].split("+")]
    assert len(steps) == 2 and min(steps) >= 8
    repeated = label(few, steps=tuple(steps))
    assert model_digest(repeated.classifier) == model_digest(labeling.classifier)


def test_a_run_that_goes_on_has_only_the_rest_of_the_time(few: Dataset, tmp_path: Path) -> None:
    began = time.perf_counter()
    with pytest.raises(Unfinished):
        label(few, steps=(), minutes=0.2, folder=tmp_path, stopped=lambda: time.perf_counter() - began > 4)
    (file,) = tmp_path.glob("training-*/steps.json")
    assert orjson.loads(file.read_bytes())["spent"] > 3.5


@pytest.mark.parametrize(
    ("algorithm_type", "stage", "pretraining"),
    [("fast", "training", 0.1), ("accurate", "learn", 0.1), ("accurate", "teach", 1e-6)],
)
def test_a_training_that_was_stopped_does_not_change_the_pace(
    few: Dataset,
    tmp_path: Path,
    algorithm_type: str,
    stage: str,
    pretraining: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """pretraining: seconds that a step of it is thought to take; so few that it takes no less."""
    monkeypatch.setattr("engine.label.plan._WIDTHS", (8, 8, 8))
    monkeypatch.setattr("engine.label.accurate._MOST_LOOKS", 2)  # 9 steps
    for room, seconds in (("fast", 0.1), ("accurate", pretraining)):
        monkeypatch.setattr(f"engine.label.{room}.step_seconds", lambda *given, each=seconds, **options: each)
    begun: list[str] = []

    def begin(name: str, total: int) -> Callable[[int], None]:
        begun.append(name)
        return lambda done: None

    with pytest.raises(Unfinished):
        label(
            few,
            algorithm_type,
            steps=(),
            minutes=5.0,
            folder=tmp_path,
            stage=begin,
            stopped=lambda: any(name.startswith(stage) for name in begun),
        )
    (file,) = tmp_path.glob("training-*/steps.json")
    assert orjson.loads(file.read_bytes())["pace"] >= 1.0


def test_time_that_a_killed_run_has_used_is_known(
    few: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With each checkpoint, not only where a training begins or ends."""
    monkeypatch.setattr("engine.label.training._EVERY", 0.0)
    kept = []
    monkeypatch.setattr(Clock, "keep", lambda self: kept.append(len(self.decided)))
    label(few, steps=(5,), folder=tmp_path)
    assert kept.count(1) >= 5 and kept.count(2) >= 5


def test_without_time_to_learn_from_unlabeled_images_networks_are_taught_the_labels(few: Dataset) -> None:
    """And a budget that came to that is repeated by its steps."""
    short = label(few, "accurate", steps=(), minutes=0.001)
    assert short.choices["consistency"] == "left out, and pretraining: the time is too short for them"
    assert short.choices["steps"] == "0+8+8"
    again, longer = label(few, "accurate", steps=(0, 8, 8)), label(few, "accurate", steps=(8,))
    assert again.probabilities.tobytes() == short.probabilities.tobytes()
    assert model_digest(again.classifier) == model_digest(short.classifier) != model_digest(longer.classifier)
    assert "consistency" not in longer.choices


def test_epochs_are_another_way_to_say_steps(few: Dataset) -> None:
    assert label(few, steps=(), epochs=20).choices["steps"] == "6+6"  # 20 x 18 images, 64 at a time


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"algorithm_type": "slow"}, "algorithm_type: must be fast or accurate, got 'slow'"),
        ({"minutes": 0.0}, "minutes: must be above 0, got 0.0"),
        ({"steps": (0,), "algorithm_type": "accurate"}, "steps: must be above 0, got 0"),
        ({"steps": (0, 8)}, r"steps: must be above 0, got 0\+8"),
        ({"steps": (8, 0), "algorithm_type": "accurate"}, r"steps: must be above 0, got 8\+0"),
        ({"precision": "int8"}, "precision: must be one of auto, bfloat16, float32, got 'int8'"),
    ],
)
def test_options_out_of_range(few: Dataset, options: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        label(few, **options)  # type: ignore[arg-type]


def test_a_default_budget_grows_with_the_work() -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert default_minutes("fast", 2000, 100, cpu) == 1.2
    assert default_minutes("accurate", 2000, 100, cpu) == 5.0
    assert default_minutes("accurate", 10**6, 100, cpu) == 30.0
    assert default_minutes("fast", 2000, 100, gpu) == 0.5


def test_a_run_that_goes_on_keeps_the_precision_it_began_with(
    few: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.label.labeling.bfloat16_for", lambda pool, settings: False)
    with pytest.raises(Unfinished):
        label(few, folder=tmp_path / "cache", precision="auto", stopped=after(12))
    monkeypatch.setattr("engine.label.labeling.bfloat16_for", lambda pool, settings: True)  # the machine is busy now
    resumed = label(few, folder=tmp_path / "cache", precision="auto")
    assert resumed.choices["precision"] == "float32"
    assert model_digest(resumed.classifier) == model_digest(label(few).classifier)


def test_a_checkpoint_of_other_settings_is_not_taken(few: Dataset, tmp_path: Path) -> None:
    label(few, folder=tmp_path / "cache")
    resumed = label(few, folder=tmp_path / "cache", learning_rate=0.01)
    assert model_digest(resumed.classifier) == model_digest(label(few, learning_rate=0.01).classifier)
    assert model_digest(resumed.classifier) != model_digest(label(few).classifier)


def test_a_checkpoint_of_other_pixels_is_not_taken(few: Dataset, tmp_path: Path) -> None:
    label(few, folder=tmp_path / "cache")
    for sample in few.samples[:18:3]:
        path = few.sources.path(sample.source)
        cv2.imwrite(str(path), 255 - cv2.imread(str(path)))
    resumed = label(few, folder=tmp_path / "cache")
    assert model_digest(resumed.classifier) == model_digest(label(few).classifier)


@pytest.mark.parametrize("algorithm_type", ["fast", "accurate"])
@pytest.mark.parametrize("minutes", [0.2, 3.0])
def test_a_budget_is_kept_on_a_machine_whose_steps_take_what_they_were_measured_to_take(
    few: Dataset, algorithm_type: str, minutes: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    seconds = {"fast": 0.05, "labels": 0.05, "pretraining": 0.2, "accurate": 0.15}

    def two_steps(name: str, net: nn.Module, steps: int, *arguments: object, **options: object) -> Training:
        nonlocal now
        now += steps * seconds[name.split("-")[0]]
        return train(name, net, 2, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("time.perf_counter", lambda: now)
    monkeypatch.setattr("engine.label.labeling.Clock", partial(Clock, now=lambda: now))
    monkeypatch.setattr("engine.label.fast.lesson_seconds", lambda pool, plan, clock: lambda steps: seconds["fast"])
    monkeypatch.setattr(
        "engine.label.accurate.lesson_seconds", lambda pool, plan, clock: lambda steps: seconds["labels"]
    )
    by_sides = {VIEW_SIDES: seconds["pretraining"], AGREEMENT_SIDES: seconds["accurate"]}
    monkeypatch.setattr(
        "engine.label.accurate._mean_seconds", lambda begun, lesson, plan, sides: by_sides[tuple(sides)]
    )
    for room in ("crossfit", "accurate"):
        monkeypatch.setattr(f"engine.label.{room}.train", two_steps)
    label(few, algorithm_type, steps=(), minutes=minutes, reserve=1.0)
    assert now == pytest.approx(60 * minutes - 1.0, rel=0.1)


@pytest.mark.parametrize("algorithm_type", ["fast", "accurate"])
def test_nothing_is_timed_where_the_steps_are_given(
    few: Dataset, algorithm_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def timed(*arguments: object, **options: object) -> float:
        raise AssertionError("timed")

    for room in ("fast", "accurate", "training"):
        monkeypatch.setattr(f"engine.label.{room}.step_seconds", timed)
    label(few, algorithm_type)


@pytest.mark.parametrize("calls", range(8, 40))
def test_one_network_that_was_stopped_anywhere_is_never_a_finished_result(few: Dataset, calls: int) -> None:
    try:
        labeling = label(few, "accurate", networks=1, steps=(3,), stopped=after(calls))
    except Stopped:
        return
    assert labeling.choices["compared_on"] > 0  # all of it was done: the network was held against what it was before


# ---- What data sets in the wild hold. ----


def test_a_labeled_image_that_cannot_be_read_does_not_count(few: Dataset) -> None:
    few.path(few[0]).write_bytes(b"not an image")
    few.path(few[26]).unlink()
    labeling = label(few)
    assert [failure.source for failure in labeling.survey.failures] == ["00.png", "26.png"]
    assert np.isnan(labeling.probabilities[[0, 26]]).all()
    assert labeling.notes == ("1 labeled images cannot be read and do not count",)
    samples = annotated(few, labeling, time=datetime(2026, 1, 2))
    assert samples[0] == few[0] and samples[26] == few[26]
    few.path(few[3]).write_bytes(b"neither")
    with pytest.raises(InputError, match="got 'lying' on 4"):
        label(few)


def test_nothing_unlabeled_that_can_be_read(few: Dataset) -> None:
    for sample in few[18:]:
        few.path(sample).write_bytes(b"broken")
    with pytest.raises(InputError, match="at least 1 unlabeled image that can be read, got none"):
        label(few)


@pytest.mark.parametrize("algorithm_type", ["fast", "accurate"])
def test_images_of_every_kind_and_labels_of_any_name(few: Dataset, algorithm_type: str) -> None:
    rng = np.random.default_rng(0)
    shapes = [(1, 1, 3), (20, 5000, 3), (30, 30), (40, 30, 4), (700, 900, 3)]
    for number, shape in enumerate(shapes):
        for at in (number, number + 18):  # one with a label, one without
            cv2.imwrite(str(few.path(few[at])), rng.integers(0, 256, shape, np.uint8))
    odd = {"lying": 'a/b, c\n"d"', "ring": "x" * 200, "standing": "\N{CAT FACE}"}
    renamed = few.with_samples(
        Sample(source=each.source, labels=tuple(Label(type=one.type, name=odd[str(one.name)]) for one in each.labels))
        for each in few
    )
    labeling = label(renamed, algorithm_type)
    assert set(labeling.labels) == set(odd.values())
    assert np.isfinite(labeling.probabilities[18:]).all()


@pytest.mark.parametrize("algorithm_type", ["fast", "accurate"])
def test_images_that_are_all_the_same(few: Dataset, algorithm_type: str) -> None:
    content = few.path(few[0]).read_bytes()
    for sample in few:
        few.path(sample).write_bytes(content)
    labeling = label(few, algorithm_type)
    assert np.isfinite(labeling.probabilities[18:]).all()
    assert float(labeling.confidences[18:].max()) < 0.9  # nothing can be known


@pytest.mark.parametrize("algorithm_type", ["fast", "accurate"])
def test_several_labels_on_a_sample_make_the_set_multi_label(few: Dataset, algorithm_type: str) -> None:
    both = few.with_samples(
        Sample(
            source=sample.source,
            labels=(*sample.labels, Label(type=IMAGE_CLASSIFICATION, name="even"))
            if sample.labels and number % 2 == 0
            else sample.labels,
        )
        for number, sample in enumerate(few)
    )
    labeling = label(both, algorithm_type)
    assert labeling.targets.multi_label and labeling.labels == ("even", "lying", "ring", "standing")
    assert np.isfinite(labeling.probabilities[18:]).all()
    assert labeling.predicted[18:].any(axis=1).all()


def test_three_hundred_labels_with_two_images_each(tmp_path: Path) -> None:
    samples = []
    for number in range(620):
        name = f"{number}.png"
        draw(tmp_path / name, light=0.2 + 0.6 * (number % 300) / 300, seed=number, size=(12, 12))
        labels = (Label(type=IMAGE_CLASSIFICATION, name=f"{number % 300}"),) if number < 600 else ()
        samples.append(Sample(source=name, labels=labels))
    labeling = label(Dataset(tuple(samples), Sources(tmp_path)), networks=1, steps=(8,), min_per_class=2)
    assert labeling.probabilities.shape == (620, 300)
    assert np.isfinite(labeling.probabilities[600:]).all()


# ---- What becomes of the samples. ----


def test_human_labels_stay_and_old_automatic_ones_are_replaced(few: Dataset) -> None:
    old = Label(type=IMAGE_CLASSIFICATION, name="wrong", annotated_by="modelarts/active-learning", confidence=0.5)
    box = Label(type="modelarts/other", name="kept", annotated_by="somebody")
    before = few.with_samples(
        Sample(source=sample.source, labels=(old, box)) if at >= 18 else sample for at, sample in enumerate(few)
    )
    assert targets_of(before).labels == ("lying", "ring", "standing")
    labeling = label(before)
    samples = annotated(before, labeling, time=datetime(2026, 1, 2, 3, 4, 5))
    assert samples[:18] == before.samples[:18]
    for at in range(18, 27):
        kept, made = samples[at].labels
        assert kept == box
        assert made.name == truth(few)[at] and made.annotated_by == "modelarts/active-learning"
        assert made.creation_time == "2026-01-02 03:04:05"
        assert made.confidence == pytest.approx(float(labeling.confidences[at]), abs=1e-6)
        assert samples[at].state == "AUTO_ANNOTATION"


def test_marks_go_with_the_labels_that_they_doubted(few: Dataset) -> None:
    labeling = label(few)
    old = Label(type=IMAGE_CLASSIFICATION, name="wrong", annotated_by="modelarts/active-learning", confidence=0.5)
    doubted = {"hard": True, "hard_coefficient": 0.9, "property": {HARD_REASONS_KEY: [1], "mine": 2}}
    before = [
        Sample(source=sample.source, labels=(old,), **doubted) if at >= 18 else sample for at, sample in enumerate(few)
    ]
    box = Label(type="modelarts/other", name="kept", annotated_by="modelarts/other")
    before[20] = replace(before[20], labels=(old, box))
    probabilities = labeling.probabilities.copy()
    probabilities[[18, 20]] = np.nan  # they cannot be read any more
    told = replace(labeling, probabilities=probabilities)
    gone, made, other = annotated(before, told, time=datetime(2026, 1, 2))[18:21]
    assert other.labels == (box,) and other.hard  # what is left may be what is doubtful
    assert (gone.labels, gone.hard, gone.hard_coefficient, gone.property) == ((), None, None, {"mine": 2})
    assert made.labels and made.hard  # the next search for hard examples replaces its marks


def test_accurate_wants_something_unlabeled_that_fast_does_without(few: Dataset) -> None:
    told = few.with_samples(few.samples[:18])
    with pytest.raises(InputError, match="unlabeled"):
        label(told, "accurate", least_unlabeled=0)
    assert label(told, "fast", least_unlabeled=0).probabilities.shape == (18, 3)


def test_reading_what_was_written_and_labeling_again_learns_from_people_only(few: Dataset, tmp_path: Path) -> None:
    from engine.manifest import write_manifest

    samples = annotated(few, label(few), time=datetime(2026, 1, 2))
    path = few.sources.root / "again.manifest"
    write_manifest(path, samples)
    again = read_samples(path)
    assert targets_of(again).matrix.tolist() == targets_of(few).matrix.tolist()
    assert model_digest(label(again).classifier) == model_digest(label(few).classifier)
