"""The commands around auto labeling as a user has them: label, confirm, evaluate, suggest."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import draw

from engine.cli import main
from engine.dataset import Dataset
from engine.decisions import write_decisions
from engine.manifest import read_manifest, write_manifest
from engine.models import ModelInfo, Models
from engine.outfolder import OutFolder
from engine.samples import IMAGE_CLASSIFICATION, Label, Sample
from engine.tasks.schema import TaskRequest

Output = pytest.CaptureFixture[str]
MACHINE = "modelarts/active-learning"


def lines(output: Output) -> tuple[list[str], list[str]]:
    captured = output.readouterr()
    return captured.out.splitlines(), captured.err.splitlines()


def label(name: str, **more: Any) -> Label:
    return Label(IMAGE_CLASSIFICATION, name, **more)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """What auto labeling leaves: 0 and 1 are cats by a machine, 2 a dog; 3 is a person's, 4 could not be read."""
    rows = {"0.jpg": [0.9, 0.1], "1.jpg": [0.6, 0.4], "2.jpg": [0.2, 0.8], "3.jpg": [0.5, 0.5], "4.jpg": [np.nan] * 2}
    names = ["cat", "dog"]
    samples = [
        Sample(source, (label(names[int(np.argmax(row))], annotated_by=MACHINE, confidence=max(row)),))
        for source, row in list(rows.items())[:3]
    ]
    samples += [Sample("3.jpg", (label("dog"),)), Sample("4.jpg")]
    with OutFolder(tmp_path / "out") as folder:
        write_manifest(folder.target("result.manifest"), samples)
        folder.target("task.json").write_text(json.dumps({"task_type": "auto-label", "status": 3}))
        np.savez(
            folder.target("probabilities.npz"),
            probabilities=np.array([*rows.values()], np.float32),
            labels=np.array(names),
            sources=np.array([*rows]),
            labeled=np.array([source == "3.jpg" for source in rows]),
        )
    return tmp_path / "out"


@pytest.fixture
def truth(out: Path) -> Path:
    path = out.parent / "truth.manifest"
    names = {"0.jpg": "cat", "1.jpg": "dog", "2.jpg": "dog", "3.jpg": "dog", "4.jpg": "dog"}
    write_manifest(path, [Sample(f"out/{source}", (label(name),)) for source, name in names.items()])
    return path


# ---- confirm


def test_confirm_below_then_by_decisions_then_all(out: Path, tmp_path: Path, capsys: Output) -> None:
    manifest = out / "result.manifest"
    assert main(["confirm", str(out), "--below", "0.15", "--by", "anna"]) == 0
    assert lines(capsys)[0] == [f"{manifest}: 1 confirmed, 0 corrected, 0 rejected", "2 are still to be confirmed"]
    decisions = tmp_path / "decisions.jsonl"
    write_decisions(decisions, {"1.jpg": ["dog"], "3.jpg": ["cat"], "2.jpg": []})
    assert main(["confirm", str(out), "--labels", str(decisions), "--by", "anna"]) == 0
    assert lines(capsys)[0] == [
        f"{manifest}: 0 confirmed, 1 corrected, 1 rejected",
        "1 keep the labels that a person gave them (--replace changes them too)",
    ]
    assert main(["confirm", str(out), "--labels", str(decisions), "--all", "--replace"]) == 0
    assert lines(capsys)[0] == [f"{manifest}: 0 confirmed, 1 corrected, 0 rejected"]
    told = [[(each.name, each.annotated_by) for each in sample.labels] for sample in read_manifest(manifest)]
    assert told == [[("cat", "human/anna")], [("dog", "human/anna")], [], [("cat", "human")], []]


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        ([], 2, "error: confirm: must say which: --all, --below, --samples or --labels, got none of them"),
        (["--below", "2"], 2, "error: below: must be in [0, 1], got 2.0"),
        (["--all", "--by", ""], 2, "error: by: must not be blank, got ''"),
    ],
)
def test_confirm_what(out: Path, capsys: Output, arguments: list[str], code: int, line: str) -> None:
    assert main(["confirm", str(out), *arguments]) == code
    assert lines(capsys) == ([], [line])


def test_confirm_what_is_not_there(out: Path, tmp_path: Path, capsys: Output) -> None:
    (tmp_path / "some.txt").write_text("0.jpg\n9.jpg\n8.jpg\n")
    assert main(["confirm", str(out), "--samples", str(tmp_path / "some.txt")]) == 1
    assert lines(capsys)[1] == [
        f"error: {tmp_path}/some.txt:2: must be a source in {out}/result.manifest, got '9.jpg'",
        f"error: {tmp_path}/some.txt:3: must be a source in {out}/result.manifest, got '8.jpg'",
    ]
    assert main(["confirm", str(tmp_path), "--all"]) == 1
    assert "must hold result.manifest with automatic labels, got none" in lines(capsys)[1][0]


# ---- evaluate


def test_evaluate_says_how_good_it_is(out: Path, truth: Path, capsys: Output) -> None:
    assert main(["evaluate", str(out), "--truth", str(truth)]) == 0
    said, notes = lines(capsys)
    # Brier: 2 * (0.01 + 0.36 + 0.04) / 3, above a guess of 1/3 and 2/3, which has 4/9. Each confidence is a bin:
    # (0.1 + 0.6 + 0.2) / 3.
    assert said == [
        "4 of 5 images compared with truth; 1 that people had labeled before are left out",
        "1 of them have no prediction, which counts as wrong",
        "accuracy 0.5000, macro accuracy 0.6667",
        "calibration error (ECE) 0.3000, Brier skill 0.3850",
        "  samples  precision     recall         F1  label",
        "        1     0.5000     1.0000     0.6667  cat",
        "        3     1.0000     0.3333     0.5000  dog",
        "taken for another label, most often:",
        "        1  dog as cat",
        f"all of it is in {out / 'evaluation.json'}",
    ]
    assert notes == [f"reading {truth} ...", "read as manifest: 5 samples, 2 labels"]


def test_evaluate_as_json(out: Path, truth: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert main(["evaluate", str(out), "--truth", str(truth), "--json"]) == 0
    printed = capfdbinary.readouterr().out
    assert printed == (out / "evaluation.json").read_bytes()
    assert json.loads(printed)["accuracy"] == 0.5


def test_evaluate_many_classes_and_odd_names(tmp_path: Path, capsys: Output) -> None:
    names = [f"{n:02} 🐈" for n in range(48)] + ["two\nlines", "comma, slash/"]
    given = [*names[1:4], *names[3:]]  # the first three are wrong
    samples = [Sample(f"{n}.jpg", (label(name, annotated_by=MACHINE),)) for n, name in enumerate(given)]
    write_manifest(tmp_path / "result.manifest", samples)
    write_manifest(tmp_path / "truth.manifest", [Sample(f"{n}.jpg", (label(name),)) for n, name in enumerate(names)])
    assert main(["evaluate", str(tmp_path), "--truth", str(tmp_path / "truth.manifest")]) == 0
    said, notes = lines(capsys)
    assert "accuracy 0.9400, macro accuracy 0.9400" in said
    assert "calibration error (ECE) -, Brier skill -" in said
    table = said[said.index("  samples  precision     recall         F1  label") + 1 :]
    assert [line.split()[-2] for line in table[:4]] == ["00", "01", "02", "03"]
    assert "and 10 labels with a higher F1" in table
    assert "        1  00 🐈 as 01 🐈" in table
    assert notes[-1].startswith("no probabilities there: ")


def test_evaluate_several_labels(tmp_path: Path, capsys: Output) -> None:
    write_manifest(tmp_path / "result.manifest", [Sample("0.jpg", (label("a", annotated_by=MACHINE),))])
    write_manifest(tmp_path / "truth.manifest", [Sample("0.jpg", (label("a"), label("b\n")))])
    assert main(["evaluate", str(tmp_path), "--truth", str(tmp_path / "truth.manifest")]) == 0
    assert lines(capsys)[0][1:5] == [
        "mean average precision -, F1 0.6667, macro F1 0.5000, all labels right 0.0000",
        "calibration error (ECE) -, Brier skill -",
        "  samples  precision     recall         F1  avg prec.  label",
        "        1     1.0000     1.0000     1.0000          -  a",
    ]


def test_evaluate_against_something_else(out: Path, photos: Path, capsys: Output) -> None:
    assert main(["evaluate", str(out), "--truth", str(photos)]) == 1
    assert "must hold images of" in lines(capsys)[1][-1]
    assert main(["evaluate", str(photos), "--truth", str(photos)]) == 1
    assert "must hold result.manifest with automatic labels, got none" in lines(capsys)[1][-1]
    assert main(["evaluate", str(out), "--truth", str(photos / "nothing")]) == 1
    assert not (out / "evaluation.json").exists()


# ---- label


class Asked:
    """Stands where requests are run, and keeps what it was asked for."""

    def __init__(self) -> None:
        self.request: TaskRequest | None = None
        self.dataset: Dataset | None = None

    def __call__(self, request: TaskRequest, dataset: Dataset, out: Path, **_: object) -> dict[str, Any]:
        self.request, self.dataset = request, dataset
        result = {
            "annotated_sample_count": 1200,
            "total_sample_count": 1300,
            "algorithm_type": "fast",
            "key_sample_count": 70 if request.collect_key_sample else None,
            "labels": [
                {"label": "cat", "human": 60, "automatic": 1000},
                {"label": "big\ndog", "human": 40, "automatic": 200},
            ],
        }
        return {"result": result, "failures": []}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[Asked]:
    there = Asked()
    monkeypatch.setattr("engine.tasks.catalog.run_request", there)
    return there


def test_label_makes_a_request(asked: Asked, photos: Path, tmp_path: Path, capsys: Output) -> None:
    (photos / "cat").mkdir()
    (photos / "light-0-0.png").rename(photos / "cat" / "0.png")
    options = [
        "--algorithm-type",
        "fast",
        "--confidence-scope",
        "0.10-0.90",
        "--minutes",
        "2.5",
        "--collect-key-sample",
    ]
    assert main(["label", str(photos), "--out", str(tmp_path / "out"), *options, "--seed", "3"]) == 0
    assert asked.request is not None
    assert asked.dataset is not None
    assert asked.request.body() == {
        "task_type": "auto-label",
        "collect_key_sample": True,
        "config": {
            "algorithm_type": "fast",
            "confidence_scope": "0.1-0.9",
            "parameters": [{"label": "minutes", "value": "2.5"}, {"label": "seed", "value": "3"}],
        },
    }
    names = [each.name for sample in asked.dataset for each in sample.labels]
    assert names == ["cat"], "the folders of a tree are labels"
    out = tmp_path / "out"
    assert lines(capsys)[0] == [
        "1,200 of 1,300 images labeled by fast, to be confirmed",
        "    1,000  cat (60 by people)",
        "      200  'big\\ndog' (40 by people)",
        "70 key samples copied",
        f"look at {out / 'report.html'}",
    ]
    assert main(["label", str(photos), "--out", str(out)]) == 0
    assert not any("key samples" in line for line in lines(capsys)[0])


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--algorithm-type", "slow"], "error: --algorithm-type: must be 'fast' or 'accurate', got 'slow'"),
        (["--confidence-scope", "0.9-0.1"], "error: --confidence-scope: must be MIN-MAX with 0 <= MIN <= MAX <= 1"),
        (["--minutes", "0"], "error: --minutes: must be greater than 0, got '0'"),
    ],
)
def test_label_wrongly(
    asked: Asked, photos: Path, tmp_path: Path, capsys: Output, arguments: list[str], told: str
) -> None:
    assert main(["label", str(photos), "--out", str(tmp_path / "out"), *arguments]) == 2
    assert lines(capsys)[1][-1].startswith(told)
    assert asked.request is None


# ---- suggest


def test_suggest_without_any_label(photos: Path, tmp_path: Path, capsys: Output) -> None:
    assert main(["suggest", str(photos), "--out", str(tmp_path / "out"), "--count", "4"]) == 0
    said, notes = lines(capsys)
    assert said == [
        "4 images to label next: 4 typical",
        f"{tmp_path / 'out' / 'suggested.csv'} lists them, the most useful first",
        f"look at {tmp_path / 'out' / 'report.html'}",
    ]
    assert "a cold start, no label by people: typical images are suggested" in notes
    assert len(list(read_manifest(tmp_path / "out" / "suggested.manifest"))) == 4


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--count", "0"], "error: count: must be at least 1, got 0"),
        (["--count", "3", "--seed", "x"], "error: --seed: must be an integer 0..4294967295, got 'x'"),
        (["--count", "3", "--weights", "w.pt"], "error: weights: belong to an encoder, got w.pt and no encoder"),
    ],
)
def test_suggest_wrongly(photos: Path, tmp_path: Path, capsys: Output, arguments: list[str], told: str) -> None:
    assert main(["suggest", str(photos), "--out", str(tmp_path / "out"), *arguments]) == 2
    assert lines(capsys)[1][-1] == told
    assert not (tmp_path / "out").exists()


# ---- simulate and models


def test_simulate_prints_a_table(tmp_path: Path, capsys: Output) -> None:
    for number in range(40):
        light = (0.2, 0.8)[number % 2]
        draw(tmp_path / "tree" / ("dark", "light")[number % 2] / f"{number}.png", light=light, seed=number)
    options = [
        "--labels",
        "10,12",
        "--seeds",
        "1",
        "--algorithm",
        "logistic",
        "--out",
        str(tmp_path / "out"),
    ]
    assert main(["simulate", str(tmp_path / "tree"), *options]) == 0
    said = lines(capsys)[0]
    assert said[0].split()[:4] == ["labels", "algorithm", "runs", "accuracy"]
    assert [line.split()[0] for line in said[1:3]] == ["10", "12"]
    assert (tmp_path / "out" / "simulation.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--labels", "50;100"], "error: --labels: must be numbers as 50,100,200, got '50;100'"),
        (["--labels", ""], "error: --labels: must be numbers as 50,100,200, got ''"),
        (["--resume"], "error: --resume: needs --out, got none"),
        (["--device", "tpu"], "error: --device: must be auto, cpu, cuda or cuda:N, got 'tpu'"),
        (["--algorithm", "magic"], "error: algorithm: must be "),
    ],
)
def test_simulate_wrongly(photos: Path, capsys: Output, arguments: list[str], told: str) -> None:
    assert main(["simulate", str(photos), *arguments]) == 2
    assert lines(capsys)[1][-1].startswith(told)


def test_models(tmp_path: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    info = ModelInfo(
        id="ab" * 32,
        type="image_classification",
        labels=("cat", "big\ndog"),
        multi_label=False,
        input_size=(32, 32),
        encoder=None,
        networks=2,
        calibration={"temperature_of_networks": 1.5},
        metrics={"accuracy": 0.9, "more": {"a": 1}},
        training_digest="cd" * 32,
        created=datetime(2026, 1, 2, 3, 4, 5),
        code_version="0.1.0",
        path=tmp_path / "model",
        bytes=2_500_000,
    )
    monkeypatch.setattr("engine.models.list_models", lambda folder: Models((info,), ("x/model.json: must be JSON",)))
    monkeypatch.setattr("engine.models.read_model_info", lambda folder: info)
    assert main(["models", "list", str(tmp_path)]) == 1
    assert lines(capsys) == (
        [f"{tmp_path / 'model'}: image_classification, 2 labels, 2.5 MB, 2026-01-02 03:04:05"],
        ["not a model: x/model.json: must be JSON"],
    )
    assert main(["models", "show", str(tmp_path / "model")]) == 0
    said = lines(capsys)[0]
    assert "labels       cat, 'big\\ndog'" in said
    assert "made         2026-01-02 03:04:05, labelengine 0.1.0" in said
    assert "accuracy     0.9" in said
    odd = replace(info, labels=("cat", "caf\udce9"))
    monkeypatch.setattr("engine.models.read_model_info", lambda folder: odd)
    assert main(["models", "show", str(tmp_path / "model"), "--json"]) == 0
    told = json.loads("\n".join(lines(capsys)[0]))
    assert (told["labels"], told["created"]) == (["cat", "caf\udce9"], "2026-01-02T03:04:05")
    assert told["path"] == str(tmp_path / "model")


def test_models_that_are_not_there(tmp_path: Path, capsys: Output) -> None:
    assert main(["models", "list", str(tmp_path)]) == 0
    assert lines(capsys) == ([], [f"no model in {tmp_path}"])
    assert main(["models", "show", str(tmp_path)]) == 1
    assert lines(capsys)[1][0].startswith("error: ")
    assert main(["models", "list", str(tmp_path / "nothing")]) == 1


# ---- help


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        ("label", ("--algorithm-type", "--confidence-scope", "--collect-key-sample", "--minutes", "--steps", "--seed")),
        ("confirm", ("--all", "--below", "--samples", "--labels", "--by", "--replace", "--map")),
        ("evaluate", ("--truth", "--format", "--json", "--map")),
        ("suggest", ("--count", "--seed", "--encoder")),
        ("simulate", ("--labels", "--seeds", "--algorithm", "--minutes", "--device")),
        ("models", ("list", "show")),
    ],
)
def test_help(command: str, flags: tuple[str, ...], capsys: Output) -> None:
    with pytest.raises(SystemExit) as exit:
        main([command, "--help"])
    assert exit.value.code == 0
    text = capsys.readouterr().out
    assert f"usage: labelengine {command}" in text
    assert max(map(len, text.splitlines())) <= 112
    for flag in flags:
        assert flag in text
