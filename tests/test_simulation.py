"""`simulate`: what is hidden, what is shown, what an algorithm may be, and what the table says."""

from __future__ import annotations

import csv
import json
import os
import sys
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from conftest import draw

from engine.dataset import Dataset, read_samples
from engine.errors import InputError, OutputError, Stopped, UsageError
from engine.label import plan
from engine.label.labeling import auto_label
from engine.outfolder import OutFolder
from engine.samples import IMAGE_CLASSIFICATION, Label
from engine.tasks import contenders
from engine.tasks.contenders import Answer, Problem, own_algorithm
from engine.tasks.peers import label_spreading, logistic, self_training
from engine.tasks.runner import Silent
from engine.tasks.simulation import drawn, simulate
from engine.tasks.trials import Trial, summary, table

PEER_NAMES = ("logistic", "label-spreading", "self-training")


@pytest.fixture
def lights(tmp_path: Path) -> Dataset:
    """A tree of 30 images, 10 of each label: dark with bars, plain, light with columns."""
    chance = np.random.default_rng(0)
    stripes = 20 * (np.arange(24) // 4 % 2) - 10
    shapes = {"dark": stripes[:, None] + 60, "middle": np.full((1, 1), 130), "light": stripes[None, :] + 200}
    for name, shape in shapes.items():
        (tmp_path / "tree" / name).mkdir(parents=True)
        for number in range(10):
            level = np.roll(np.broadcast_to(shape, (24, 24)), number, (0, 1)) + chance.normal(0, 4, (24, 24))
            cv2.imwrite(str(tmp_path / "tree" / name / f"{number}.png"), level.astype(np.uint8))
    return read_samples(tmp_path / "tree", format="tree")


def several(lights: Dataset) -> Dataset:
    """The same images, every other one also labeled "even"."""
    even = Label(IMAGE_CLASSIFICATION, "even")
    return lights.with_samples(
        replace(sample, labels=(*sample.labels, even)) if number % 2 == 0 else sample
        for number, sample in enumerate(lights)
    )


def write_own(folder: Path, body: str) -> str:
    path = folder / "mine.py"
    path.write_text(f"import numpy as np\n\n\ndef guess(images_labeled, classes, images_unlabeled, k):\n    {body}\n")
    return f"{path}:guess"


def even(problem: Problem) -> Answer:
    """An algorithm that knows nothing."""
    return Answer(np.full(problem.told.shape, 1 / len(problem.labels)))


#: The class whose labeled images are the nearest in mean level.
NEAREST = (
    "levels = np.array([images_labeled[classes == c].mean() for c in range(k)])\n"
    "    away = np.abs(images_unlabeled.reshape(len(images_unlabeled), -1).mean(axis=1)[:, None] - levels)\n"
    "    return np.eye(k)[away.argmin(axis=1)]"
)


# ---- Which labels are shown.


def test_as_many_of_each_class_and_a_larger_draw_holds_the_smaller() -> None:
    matrix = np.eye(3, dtype=bool)[np.repeat([0, 1, 2], [50, 20, 4])]
    few, many = (drawn(matrix, n, 7, least=5, proportional=False) for n in (9, 20))
    assert few.sum(axis=0).tolist() == [3, 3, 3]
    assert many.sum(axis=0).tolist() == [8, 8, 4]  # there are no more of the third
    assert not (few & ~many).any() and not (many & ~matrix).any()
    assert sorted(drawn(matrix, 10, 7, least=5, proportional=False).sum(axis=0).tolist()) == [3, 3, 4]
    assert (few != drawn(matrix, 9, 8, least=5, proportional=False)).any()


def test_as_frequent_as_the_classes_but_the_least_of_each() -> None:
    matrix = np.eye(3, dtype=bool)[np.repeat([0, 1, 2], [100, 50, 10])]
    assert drawn(matrix, 32, 0, least=2, proportional=True).sum(axis=0).tolist() == [20, 10, 2]
    assert drawn(matrix, 32, 0, least=5, proportional=True).sum(axis=0).tolist()[2] == 5
    assert drawn(matrix, 9, 0, least=5, proportional=True).sum(axis=0).tolist() == [3, 3, 3]


def test_several_labels_count_for_each_of_their_classes() -> None:
    matrix = np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1], [0, 0, 1], [1, 0, 0]], bool)
    shown = drawn(matrix, 2, 3, least=5, proportional=False)
    assert shown.any(axis=1).sum() == 2
    assert (shown[shown.any(axis=1)] == matrix[shown.any(axis=1)]).all()
    assert shown[:, 2].sum() == 1  # whatever came first, the third class is among the two that follow


# ---- What an algorithm sees.


def test_nothing_but_pixels_tells_the_class(lights: Dataset) -> None:
    seen: list[Problem] = []

    def watch(problem: Problem) -> Answer:
        seen.append(problem)
        folder = problem.dataset.sources.root
        assert [(folder / sample.source).stat().st_nlink for sample in problem.dataset] == [2] * 30
        return Answer(np.full((30, 3), 1 / 3))

    simulate(lights, labels=[6, 12], seeds=2, algorithms=["a", "b"], further={"a": watch, "b": watch})
    assert len(seen) == 8
    for problem in seen:
        names = [sample.source for sample in problem.dataset]
        assert len(set(names)) == 30 and all(len(name) == 24 and name.isalnum() for name in names)
        assert not any(name.startswith(("dark", "middle", "light")) for name in names)
        shown = [sample.labels[0].name for sample in problem.dataset if sample.labels]
        assert Counter(shown) == {name: len(problem.seen) // 3 for name in ("dark", "middle", "light")}
        assert sorted(problem.seen.tolist() + problem.unseen.tolist()) == list(range(30))
        assert not problem.dataset.sources.root.exists()  # all is gone afterwards
    for first, second in zip(seen[::2], seen[1::2], strict=True):
        assert (first.told == second.told).all()  # the same for every algorithm
    assert (seen[0].told != seen[2].told).any()
    order = [problem.told for problem in seen[4:6]]
    assert len(np.flatnonzero(order[0].any(axis=1))) == 12
    assert sum(path.is_file() for path in Path(lights.sources.root).rglob("*.png")) == 30


def test_seeds_may_begin_anywhere(lights: Dataset) -> None:
    shown: dict[int, bytes] = {}

    def watch(problem: Problem) -> Answer:
        told = problem.told.tobytes()
        assert shown.setdefault(problem.seed, told) == told  # a seed draws the same whichever comes first
        return Answer(np.full((30, 3), 1 / 3))

    options: dict[str, Any] = {"labels": [9], "algorithms": ["watch"], "further": {"watch": watch}}
    assert [trial.seed for trial in simulate(lights, seeds=2, first_seed=1, **options)] == [1, 2]
    assert [trial.seed for trial in simulate(lights, seeds=3, **options)] == [0, 1, 2]
    assert len(set(shown.values())) == 3


def test_images_are_copied_where_links_cannot_be_made(lights: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path: path.read_bytes() for path in Path(lights.sources.root).rglob("*.png")}

    def refuse(*_: object) -> None:
        raise OSError("another file system")

    monkeypatch.setattr(os, "link", refuse)
    (trial,) = simulate(lights, labels=[9], seeds=1, algorithms=["logistic"])
    assert trial.scores["accuracy"] is not None and trial.scores["accuracy"] > 0.9
    assert all(path.read_bytes() == content for path, content in before.items())


def test_a_full_disk_is_not_taken_for_images_that_cannot_be_read(
    lights: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("another file system")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match=r"images/\w+: cannot be written: No space left on device"):
        simulate(lights, labels=[9], seeds=1, algorithms=["logistic"])


# ---- Trials.


def test_peers_tell_the_lights_apart(lights: Dataset) -> None:
    trials = simulate(lights, labels=[9], seeds=2, algorithms=PEER_NAMES)
    assert [(trial.algorithm, trial.labels, trial.seed) for trial in trials] == [
        (name, 9, seed) for seed in (0, 1) for name in PEER_NAMES
    ]
    for trial in trials:
        assert (trial.error, trial.scored, trial.multi_label) == ("", 21, False)
        assert list(trial.scores) == ["accuracy", "macro_accuracy", "ece", "brier_skill"]
        assert all(trial.scores[name] > 0.85 for name in ("accuracy", "macro_accuracy"))  # type: ignore[operator]
        assert trial.seconds > 0


@pytest.mark.parametrize(("algorithm", "steps"), [("fast", "8"), ("accurate", "8+8+8")])
def test_our_own(lights: Dataset, monkeypatch: pytest.MonkeyPatch, algorithm: str, steps: str) -> None:
    small = partial(auto_label, networks=1, precision="float32", image_size=16)
    monkeypatch.setattr(contenders, "auto_label", small)
    monkeypatch.setattr(plan, "_WIDTHS", (8, 8, 8))
    (trial,) = simulate(lights, labels=[15], seeds=1, algorithms=[algorithm], steps=(8,), threads=1)
    assert (trial.error, trial.scored) == ("", 15)
    assert trial.scores["accuracy"] is not None and trial.scores["accuracy"] > 0.6  # a third is chance
    assert trial.choices["steps"] == steps  # of accurate: telling apart, the labels, everything


def test_too_few_labels_for_the_rules_are_a_line_of_the_table(lights: Dataset) -> None:
    trials = simulate(lights, labels=[9], seeds=1, algorithms=["fast", "logistic"], steps=(8,))
    assert "needs every label on at least 5 readable images" in trials[0].error
    assert trials[0].scores == {} and not trials[1].error
    assert "fast, 9 labels: failed: auto labeling needs" in table(trials)


def test_an_own_function(lights: Dataset, tmp_path: Path) -> None:
    (trial,) = simulate(lights, labels=[9], seeds=1, algorithms=[write_own(tmp_path, NEAREST)])
    assert (trial.error, trial.scores["accuracy"], trial.scores["ece"]) == ("", 1.0, 0.0)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("raise RuntimeError('no idea\\nmore')", "RuntimeError: no idea"),
        ("return np.zeros((2, k))", r"probabilities: must be (21, 3), got (2, 3)"),
        ("return np.full((len(images_unlabeled), k), np.nan)", "probabilities: must be in [0, 1], got nan..nan"),
        ("return np.ones((len(images_unlabeled), k))", "probabilities: rows must sum to 1, got one that is off by 2"),
        ("return 'cat'", "ValueError: could not convert string to float: 'cat'"),
        (
            "raise ValueError(images_labeled.shape, images_labeled.dtype)",
            "ValueError: ((9, 3, 32, 32), dtype('uint8'))",
        ),
        (
            "raise ValueError(classes.dtype.name, sorted(classes.tolist()))",
            "ValueError: ('int64', [0, 0, 0, 1, 1, 1, 2",
        ),
    ],
)
def test_an_own_function_that_fails_does_not_end_the_others(
    lights: Dataset, tmp_path: Path, body: str, error: str
) -> None:
    trials = simulate(
        lights, labels=[9], seeds=1, algorithms=[write_own(tmp_path, body), "other"], further={"other": even}
    )
    assert trials[0].error.startswith(error), trials[0].error
    assert not trials[1].error


def test_names_that_are_no_algorithm(lights: Dataset, tmp_path: Path) -> None:
    own = write_own(tmp_path, "return 1")
    (tmp_path / "broken.py").write_text("x = 1 / 0\n")
    for name, message in (
        ("quick", "must be fast, accurate, logistic, label-spreading, self-training or FILE.py:NAME, got 'quick'"),
        (f"{tmp_path}/none.py:guess", "must name a file, got nothing at"),
        (own.replace(":guess", ":guesses"), "has no function 'guesses'"),
        (f"{tmp_path}/broken.py:guess", "cannot be run: ZeroDivisionError: division by zero"),
    ):
        with pytest.raises(UsageError, match=message.replace("[", r"\[")):
            simulate(lights, labels=[9], seeds=1, algorithms=["logistic", name])
    assert callable(own_algorithm(own))


def test_an_own_file_is_an_ordinary_module(tmp_path: Path) -> None:
    told = "from __future__ import annotations\nfrom dataclasses import dataclass\n\n\n@dataclass\nclass Way:\n"
    for number in (1, 2):
        (tmp_path / str(number)).mkdir()
        path = tmp_path / str(number) / "mine.py"
        path.write_text(f"{told}    way: int = {number}\n\n\ndef guess(*given):\n    return Way()\n")
    first, second = (own_algorithm(f"{tmp_path}/{number}/mine.py:guess") for number in (1, 2))
    assert first is not second
    own = [module for name, module in sys.modules.items() if name.startswith("labelengine_own_mine_")]
    ways = [module.guess().way for module in own if Path(str(module.__file__)).is_relative_to(tmp_path)]
    assert sorted(ways) == [1, 2]
    (tmp_path / "broken.py").write_text("1 / 0\n")
    with pytest.raises(UsageError, match="cannot be run"):
        own_algorithm(f"{tmp_path}/broken.py:guess")
    assert not any(name.startswith("labelengine_own_broken") for name in sys.modules)


def test_several_labels_a_sample(lights: Dataset, tmp_path: Path) -> None:
    body = "assert classes.shape == (12, 4) and classes.dtype == bool\n    return np.zeros((len(images_unlabeled), k))"
    own = write_own(tmp_path, body)
    trials = simulate(several(lights), labels=[12], seeds=1, algorithms=["logistic", "self-training", own])
    assert list(trials[0].scores) == ["mean_average_precision", "micro_f1", "ece", "brier_skill"]
    assert trials[0].multi_label and trials[0].scores["mean_average_precision"] > 0.6  # type: ignore[operator]
    assert trials[1].error == "SelfTrainingClassifier: takes one label an image, got images with several"
    assert not trials[2].error and trials[2].scores["mean_average_precision"] < 0.6  # type: ignore[operator]
    assert "mean AP" in table(trials)


def test_what_cannot_be_read_is_left_out_and_what_has_no_label_is_not_scored(lights: Dataset) -> None:
    notes: list[str] = []

    class Notes(Silent):
        def note(self, line: str) -> None:
            notes.append(line)

    (lights.path(lights[0])).write_bytes(b"no image")
    (lights.path(lights[1])).unlink()
    mixed = lights.with_samples([*lights[:-1], replace(lights[-1], labels=())])
    (trial,) = simulate(mixed, labels=[9], seeds=1, algorithms=["logistic"], reporter=Notes())
    assert trial.scored == 30 - 3 - 9
    assert notes[0] == "2 images cannot be read and are left out"
    assert notes[1].startswith("logistic, 9 labels, seed 0: accuracy ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": []}, "labels: must be numbers of images"),
        ({"labels": [1]}, "labels: must be numbers of images, at least 2"),
        ({"labels": [30]}, "labels: must be fewer than the 30 labeled images that can be read, got 30"),
        ({"seeds": 0}, "seeds: must be at least 1, got 0"),
        ({"first_seed": -1}, "first_seed: must be at least 0, got -1"),
        ({"algorithms": []}, "algorithms: must be at least 1"),
        ({"minutes": 0}, "minutes: must be above 0, got 0"),
        ({"minutes": {"fast": -1.0}}, "minutes: must be above 0, got -1.0"),
    ],
)
def test_options_out_of_range(lights: Dataset, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        simulate(lights, **{"labels": [9], "seeds": 1, "algorithms": ["logistic"], **options})


def test_one_label_is_no_data_set(lights: Dataset) -> None:
    with pytest.raises(InputError, match="at least 2 labels that people gave, got only 'dark'"):
        simulate(lights.with_samples(lights[:10]), labels=[5], seeds=1, algorithms=["logistic"])


# ---- What is kept.


def test_the_result_is_written_and_finished_trials_are_not_run_again(lights: Dataset, tmp_path: Path) -> None:
    out, calls = tmp_path / "out", []

    def count(problem: Problem) -> Answer:
        calls.append(problem.seed)
        if len(calls) == 2:
            raise RuntimeError("once")
        return Answer(np.full((30, 3), 1 / 3), {"steps": "8"})

    asked: dict[str, Any] = {"seeds": 3, "algorithms": ["count"], "further": {"count": count}, "out": out}
    first = simulate(lights, labels=[9], **asked)
    assert sorted(path.name for path in out.iterdir()) == [".labelengine-wrote", "simulation.csv", "simulation.json"]
    kept = json.loads((out / "simulation.json").read_text())
    assert [Trial(**each) for each in kept["trials"]] == list(first)
    with (out / "simulation.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["algorithm"], row["labels"], row["seed"], row["error"]) for row in rows] == [
        ("count", "9", "0", ""),
        ("count", "9", "1", "RuntimeError: once"),
        ("count", "9", "2", ""),
    ]
    assert [row["accuracy"] == "" for row in rows] == [False, True, False]
    with pytest.raises(OutputError, match="must be new or empty"):
        simulate(lights, labels=[9], **asked)

    again = simulate(lights, labels=[9], resume=True, **asked)
    assert calls == [0, 1, 2, 1]  # only what had failed
    assert (again[0], again[2]) == (first[0], first[2]) and not again[1].error
    more = simulate(lights, labels=[9, 12], resume=True, **asked)
    assert calls == [0, 1, 2, 1, 0, 1, 2] and more[:3] == again
    simulate(lights, labels=[9], resume=True, min_per_class=4, **asked)
    assert len(calls) == 10  # other settings
    draw(lights.path(lights[0]), light=0.5, seed=99)
    simulate(lights, labels=[9], resume=True, **asked)
    assert len(calls) == 13  # other data
    assert len(json.loads((out / "simulation.json").read_text())["trials"]) == 12
    assert len(simulate(lights, labels=[9], overwrite=True, **asked)) == 3
    assert len(json.loads((out / "simulation.json").read_text())["trials"]) == 3


def test_an_edited_file_is_another_algorithm(lights: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "out"
    own = write_own(tmp_path, "return np.full((len(images_unlabeled), k), 1 / k)")
    (before,) = simulate(lights, labels=[9], seeds=1, algorithms=[own], out=out)
    assert own == write_own(tmp_path, NEAREST)
    (after,) = simulate(lights, labels=[9], seeds=1, algorithms=[own], out=out, resume=True)
    assert before.scores["accuracy"] != after.scores["accuracy"] == 1.0


def test_a_stop_keeps_what_is_finished(lights: Dataset, tmp_path: Path) -> None:
    stop, calls = Event(), []

    def halt(problem: Problem) -> Answer:
        calls.append(problem.seed)
        if len(calls) == 2:
            stop.set()
        return Answer(np.full((30, 3), 1 / 3))

    asked: dict[str, Any] = {"labels": [9], "seeds": 3, "algorithms": ["halt"], "further": {"halt": halt}}
    with pytest.raises(Stopped, match="stopped after 2 of 3 trials; --resume goes on"):
        simulate(lights, out=tmp_path / "out", stop=stop, **asked)
    assert len(simulate(lights, out=tmp_path / "out", resume=True, **asked)) == 3
    assert calls == [0, 1, 2]
    broken = tmp_path / "out" / "simulation.json"
    broken.write_text('{"trials": [{"algorithm": 1}]}')
    with pytest.raises(InputError, match="must hold the trials of an earlier run"):
        simulate(lights, out=tmp_path / "out", resume=True, **asked)
    assert broken.exists()


# ---- The table.


def trial(algorithm: str, seed: int, accuracy: float, *, labels: int = 50, error: str = "") -> Trial:
    scores = {"accuracy": accuracy, "macro_accuracy": accuracy, "ece": 0.02, "brier_skill": None}
    return Trial(algorithm, labels, seed, None, 100, False, {} if error else scores, 10.0 + seed, error)


def test_means_spreads_and_paired_differences() -> None:
    trials = [
        *(trial("fast", seed, value) for seed, value in enumerate((0.80, 0.84, 0.88))),
        *(trial("logistic", seed, value) for seed, value in enumerate((0.70, 0.72, 0.80))),
        *(trial("own.py:f", seed, value) for seed, value in enumerate((0.60, 0.60, 0.60))),
        trial("broken", 0, 0.0, error="no idea"),
    ]
    rows = {row.algorithm: row for row in summary(trials)}
    fast = rows["fast"]
    assert fast.means["accuracy"] == pytest.approx(0.84)
    assert fast.spreads["accuracy"] == pytest.approx(0.04)  # (0.04^2 + 0 + 0.04^2) / 2
    assert (fast.runs, fast.seconds, fast.peer) == (3, 11.0, "logistic")
    assert fast.difference == pytest.approx(0.1)  # 0.10, 0.12, 0.08
    assert fast.reach == pytest.approx(2.919986 * 0.02 / 3**0.5)  # the 0.95 quantile of t with 2 degrees of freedom
    assert rows["own.py:f"].difference == pytest.approx(-0.14)
    assert (rows["logistic"].peer, rows["logistic"].difference) == ("", None)
    assert (rows["broken"].runs, rows["broken"].seconds, rows["broken"].failed) == (0, None, "no idea")
    lines = table(trials, targets={("fast", 50): "96.5"}).splitlines()
    assert lines[1].split() == [
        *("50", "fast", "3", "84.00", "±", "4.00", "84.00", "±", "4.00", "0.020", "±", "0.000", "-", "11.0", "96.5"),
        *("+10.00", "(+6.63", "..", "+13.37)", "logistic"),
    ]
    assert lines[-1] == "broken, 50 labels: failed: no idea"
    assert len({line.index("above") for line in lines[:1]} | {line.index("+10.00") for line in lines[1:2]}) == 1


def test_one_seed_has_no_spread_and_no_interval() -> None:
    (row, _) = summary([trial("fast", 0, 0.8), trial("logistic", 0, 0.7)])
    assert (row.spreads["accuracy"], row.difference, row.reach) == (None, None, None)
    text = table([trial("fast", 0, 0.8), trial("logistic", 0, 0.7)])
    assert "±" not in text and "above" not in text


# ---- The peers.


def test_peers_on_two_heaps() -> None:
    chance = np.random.default_rng(0)
    centres = np.array([[0, 0], [4, 0]], np.float32)
    seen = np.vstack([centres[i] + chance.normal(0, 0.3, (4, 2)) for i in (0, 1)]).astype(np.float32)
    unseen = np.vstack([centres[i] + chance.normal(0, 0.3, (20, 2)) for i in (0, 1)]).astype(np.float32)
    told = np.zeros((8, 3), bool)  # a third label that nobody has
    told[:4, 0], told[4:, 1] = True, True
    for peer in (logistic, label_spreading, self_training):
        said = peer(seen, told, unseen, False)
        assert said.shape == (40, 3)
        assert said.argmax(axis=1).tolist() == [0] * 20 + [1] * 20
        assert (said[:, 2] == 0).all()
        assert np.allclose(said.sum(axis=1), 1)
    both = told.copy()
    both[[0, 1, 4, 5], 2] = True
    assert logistic(seen, both, unseen, True).shape == (40, 3)
    one = logistic(seen[[0, 4]], told[[0, 4]], unseen, False)  # too few to choose a penalty by
    assert one.argmax(axis=1).tolist() == [0] * 20 + [1] * 20


def test_resume_keeps_what_another_command_wrote(lights: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "out"
    asked: dict[str, Any] = {"labels": [9], "seeds": 1, "algorithms": ["even"], "further": {"even": even}, "out": out}
    with OutFolder(out) as folder:
        folder.write("result.manifest", b"a person's")
    with pytest.raises(OutputError, match=r"files that another command wrote, and no simulation\.json to go on with"):
        simulate(lights, resume=True, **asked)
    assert (out / "result.manifest").read_bytes() == b"a person's"
    simulate(lights, overwrite=True, **asked)
    assert not (out / "result.manifest").exists()
    with OutFolder(out, overwrite=True) as folder:  # killed before its first word
        folder.target("simulation.json")
    assert len(simulate(lights, resume=True, **asked)) == 1


def test_a_simulation_that_runs_is_left_alone(lights: Dataset, tmp_path: Path) -> None:
    asked: dict[str, Any] = {"labels": [9], "seeds": 1, "algorithms": ["twice"], "out": tmp_path / "out"}

    def twice(problem: Problem) -> Answer:
        for again in ({"resume": True}, {"overwrite": True}):
            with pytest.raises(OutputError, match="another run writes there"):
                simulate(lights, further={"twice": even}, **again, **asked)
        assert problem.dataset.path(problem.dataset[0]).is_file()
        return even(problem)

    (trial,) = simulate(lights, further={"twice": twice}, **asked)
    assert not trial.error


def test_names_that_are_not_utf8_and_choices_that_are_not_json(lights: Dataset, tmp_path: Path) -> None:
    calls: list[int] = []

    def odd(problem: Problem) -> Answer:
        calls.append(problem.seed)
        assert "caf\udce9" in problem.labels
        return Answer(even(problem).probabilities, {"steps": np.int64(8), "rates": np.array([0.5]), "where": tmp_path})

    cafe = {"dark": Label(IMAGE_CLASSIFICATION, "caf\udce9")}
    named = replace(
        lights.with_samples(
            replace(sample, labels=tuple(cafe.get(str(label.name), label) for label in sample.labels))
            for sample in lights
        ),
        name="d\udce9",
    )
    asked: dict[str, Any] = {"labels": [9], "seeds": 1, "algorithms": ["odd"], "further": {"odd": odd}}
    simulate(named, out=tmp_path / "out", **asked)
    kept = json.loads((tmp_path / "out" / "simulation.json").read_text())
    assert kept["dataset_name"] == "d\udce9"
    assert kept["trials"][0]["choices"] == {"steps": 8, "rates": [0.5], "where": str(tmp_path)}
    assert simulate(named, out=tmp_path / "out", resume=True, **asked)[0].choices["steps"] == 8 and calls == [0]


def test_threads_are_those_of_torch_while_it_runs(lights: Dataset) -> None:
    before, seen = torch.get_num_threads(), []

    def look(problem: Problem) -> Answer:
        seen.append(torch.get_num_threads())
        return even(problem)

    simulate(lights, labels=[9], seeds=1, algorithms=["look"], further={"look": look}, threads=before + 1)
    assert seen == [before + 1] and torch.get_num_threads() == before
