"""Automatic labels against the truth: which samples are compared, and what is said about them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.dataset import Dataset, read_samples
from engine.errors import InputError
from engine.evaluation import MultiLabelScores, Scores
from engine.manifest import write_manifest
from engine.outfolder import JOURNAL, OutFolder
from engine.samples import IMAGE_CLASSIFICATION, Label, Sample
from engine.sources import Sources
from engine.tasks.confirming import confirm
from engine.tasks.evaluating import evaluate

NAN = float("nan")
MACHINE = "modelarts/active-learning"


def labels(*names: str, by: str | None = None, confidence: float | None = None) -> tuple[Label, ...]:
    return tuple(Label(IMAGE_CLASSIFICATION, name, annotated_by=by, confidence=confidence) for name in names)


def truth_of(folder: Path, named: Mapping[str, Sequence[str]]) -> Dataset:
    samples = tuple(Sample(source, labels(*names)) for source, names in named.items())
    return Dataset(samples, Sources(folder), name="truth")


def auto_labeled(
    out: Path, rows: Mapping[str, Sequence[float]], names: Sequence[str], human: Mapping[str, str]
) -> Path:
    """OUT of auto labeling: of each sample the probabilities, or what a person had said of it before."""
    samples = []
    for source, row in rows.items():
        if source in human:
            samples.append(Sample(source, labels(human[source])))
        elif math.isnan(row[0]):
            samples.append(Sample(source))
        else:
            samples.append(Sample(source, labels(names[int(np.argmax(row))], by=MACHINE, confidence=max(row))))
    with OutFolder(out) as folder:
        write_manifest(folder.target("result.manifest"), samples)
        folder.target("task.json").write_text(json.dumps({"task_type": "auto-label", "status": 3}))
        np.savez(
            folder.target("probabilities.npz"),
            probabilities=np.array([*rows.values()], np.float32),
            labels=np.array(names),
            sources=np.array([*rows]),
            labeled=np.array([source in human for source in rows]),
        )
    return out


ROWS = {
    "0.jpg": [0.9, 0.1],
    "1.jpg": [0.6, 0.4],
    "2.jpg": [0.3, 0.7],
    "3.jpg": [NAN, NAN],
    "4.jpg": [0.2, 0.8],
    "5.jpg": [1.0, 0.0],
}
TRUE = {"0.jpg": ["cat"], "1.jpg": ["dog"], "2.jpg": ["dog"], "3.jpg": ["dog"], "4.jpg": ["cat"], "6.jpg": ["cat"]}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return auto_labeled(tmp_path / "out", ROWS, ["cat", "dog"], human={"4.jpg": "cat"})


def test_what_is_compared_and_what_is_not(out: Path) -> None:
    done = evaluate(out, truth_of(out, TRUE))
    assert done.matched == {"path": 5, "source": 0, "name": 0}
    assert (done.total, done.labeled_before, done.without_truth) == (6, 1, 0)
    assert isinstance(done.scores, Scores)
    # 0 and 2 are right, 1 is wrong, 3 has no prediction.
    assert (done.scores.samples, done.scores.missing, done.scores.accuracy) == (4, 1, 0.5)
    assert done.scores.macro_accuracy == pytest.approx((1 + 1 / 3) / 2)
    assert done.scores.confusion.tolist() == [[1, 0], [1, 1]]
    assert done.scores.brier == pytest.approx((2 * 0.01 + 2 * 0.36 + 2 * 0.09) / 3)
    assert done.standing == 0.5
    assert done.notes == ()


def test_the_answer_is_written_and_belongs_to_the_folder(out: Path) -> None:
    done = evaluate(out, truth_of(out, TRUE))
    text = (out / "evaluation.json").read_text()
    answer = json.loads(text)
    assert answer == done.answer()
    assert answer["accuracy"] == 0.5
    assert answer["matched_sample_count"] == 5
    assert answer["evaluated_sample_count"] == 4
    assert answer["largest_confusions"] == [{"truth": "dog", "predicted": "cat", "count": 1}]
    assert answer["classes"][0]["average_precision"] is None
    assert [each["label"] for each in answer["classes"]] == ["cat", "dog"]
    assert sum(each["count"] for each in answer["reliability"]) == 3
    assert "NaN" not in text
    assert str(out) not in text
    evaluate(out, truth_of(out, {"0.jpg": ["cat"]}))
    assert json.loads((out / "evaluation.json").read_text())["accuracy"] == 1, "repeated, it is written anew"
    assert (out / JOURNAL).read_text().count("evaluation.json") == 1
    with OutFolder(out, overwrite=True):
        assert not (out / "evaluation.json").exists()


def test_what_the_model_said_counts_also_when_people_corrected_it_since(out: Path) -> None:
    before = evaluate(out, truth_of(out, TRUE))
    confirm(out, all=True, labels={"1.jpg": ["dog"], "3.jpg": ["dog"]})
    after = evaluate(out, truth_of(out, TRUE))
    assert isinstance(before.scores, Scores)
    assert isinstance(after.scores, Scores)
    assert after.scores.accuracy == before.scores.accuracy == 0.5
    assert (before.standing, after.standing) == (0.5, 1.0)


# ---- how a sample is found in the truth


def test_by_path_by_source_and_by_name(tmp_path: Path) -> None:
    rows = {"../data/0.jpg": [0.9, 0.1], "s3://x/1.jpg": [0.9, 0.1], "../data/2.jpg": [0.9, 0.1], "../a/3.jpg": [1, 0]}
    out = auto_labeled(tmp_path / "out", {**rows, "../b/3.jpg": [1, 0]}, ["cat", "dog"], human={})
    (tmp_path / "link").symlink_to(tmp_path / "data", target_is_directory=True)
    named = {"0.jpg": ["cat"], "s3://x/1.jpg": ["cat"], "elsewhere/2.jpg": ["cat"], "elsewhere/3.jpg": ["cat"]}
    done = evaluate(out, truth_of(tmp_path / "link", named))
    assert done.matched == {"path": 1, "source": 1, "name": 1}, "3.jpg may be either of two"
    mapped = evaluate(out, truth_of(tmp_path / "data", {"1.jpg": ["cat"]}), map=[f"s3://x/={tmp_path / 'data'}"])
    assert mapped.matched == {"path": 1, "source": 0, "name": 0}


def test_a_tree_is_the_truth(photos: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for at, path in enumerate(sorted(photos.iterdir())[:4]):
        target = tree / ("cat", "dog")[at % 2] / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    rows = {f"../photos/{path.name}": [0.9, 0.1] for path in sorted(photos.iterdir())}
    out = auto_labeled(tmp_path / "out", rows, ["cat", "dog"], human={})
    done = evaluate(out, read_samples(tree))
    assert done.matched["name"] == 4
    assert isinstance(done.scores, Scores)
    assert done.scores.accuracy == 0.5


def test_nothing_to_compare(out: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"truth: must hold images of .*out, got none of its 6, as '0\.jpg'"):
        evaluate(out, truth_of(tmp_path, {"x.jpg": ["cat"]}))
    with pytest.raises(InputError, match="people had labeled 1 before, and 1 have no label there"):
        evaluate(out, truth_of(out, {"4.jpg": ["cat"], "5.jpg": []}))
    machine = Dataset((Sample("0.jpg", labels("cat", by=MACHINE)),), Sources(out), name="truth")
    with pytest.raises(InputError, match="have no label there"):
        evaluate(out, machine)
    with pytest.raises(InputError, match="must be the folder of a finished task, got nothing"):
        evaluate(tmp_path / "nothing", truth_of(out, TRUE))
    assert not (out / "evaluation.json").exists()


def test_a_truth_that_contradicts_itself_and_one_that_knows_more(out: Path) -> None:
    samples = [*truth_of(out, TRUE), Sample("0.jpg", labels("dog")), Sample("2.jpg", labels("dog"))]
    done = evaluate(out, Dataset(tuple(samples), Sources(out), name="truth"))
    assert done.without_truth == 1
    assert done.notes == ("1 images have different labels in truth: they are not scored",)
    done = evaluate(out, truth_of(out, {**TRUE, "1.jpg": ["bird, big"]}))
    assert done.notes == ("1 samples have labels that the model does not know, which is wrong: 'bird, big'",)
    assert isinstance(done.scores, Scores)
    assert done.scores.labels == ("cat", "dog", "bird, big")
    assert done.scores.accuracy == 0.5
    assert done.scores.missing == 1
    assert done.scores.log_loss == pytest.approx(-(math.log(0.9) + math.log(0.7) + math.log(1e-7)) / 3)


@pytest.mark.parametrize("broken", ["short", "wrong", "objects", "no arrays"])
def test_broken_probabilities(out: Path, broken: str) -> None:
    path = out / "probabilities.npz"
    arrays: dict[str, Any] = {"probabilities": np.ones((2, 2)), "labels": ["a", "b"], "sources": ["x"], "labeled": [0]}
    if broken == "short":
        path.write_bytes(path.read_bytes()[:200])
    elif broken == "wrong":
        np.savez(path, **arrays)
    elif broken == "objects":
        np.savez(path, **{**arrays, "sources": np.array([None], object)})
    else:
        np.savez(path, other=np.ones(3))
    with pytest.raises(InputError, match=r"probabilities\.npz: must hold "):
        evaluate(out, truth_of(out, TRUE))


# ---- labels alone


def test_without_probabilities_the_labels_count(out: Path) -> None:
    whole = evaluate(out, truth_of(out, TRUE))
    (out / "probabilities.npz").unlink()
    alone = evaluate(out, truth_of(out, TRUE))
    assert isinstance(whole.scores, Scores)
    assert isinstance(alone.scores, Scores)
    assert not alone.from_probabilities
    for name in ("samples", "missing", "accuracy", "macro_accuracy"):
        assert getattr(alone.scores, name) == getattr(whole.scores, name)
    assert alone.scores.ece == pytest.approx(whole.scores.ece)
    assert alone.answer()["brier"] is None
    assert alone.notes == ("no probabilities there: calibration is that of the confidences in result.manifest",)
    confirm(out, all=True)
    # What is confirmed is a person's: nothing automatic is left but what never was labeled.
    left = evaluate(out, truth_of(out, TRUE))
    assert (left.scores.samples, left.scores.missing) == (1, 1)


def test_a_folder_that_no_task_wrote(tmp_path: Path) -> None:
    write_manifest(tmp_path / "result.manifest", [Sample("0.jpg", labels("cat", by="other/model"))])
    done = evaluate(tmp_path, truth_of(tmp_path, {"0.jpg": ["cat"]}))
    assert isinstance(done.scores, Scores)
    assert done.scores.accuracy == 1
    assert math.isnan(done.scores.ece), "no confidence was said"
    assert not (tmp_path / JOURNAL).exists()


# ---- several labels a sample


def test_several_labels(tmp_path: Path) -> None:
    rows = {"0.jpg": [0.9, 0.2], "1.jpg": [0.6, 0.7], "2.jpg": [0.4, 0.3], "3.jpg": [NAN, NAN]}
    out = auto_labeled(tmp_path / "out", rows, ["a", "b"], human={})
    true = {"0.jpg": ["a"], "1.jpg": ["b", "a"], "2.jpg": ["b"], "3.jpg": ["a"]}
    done = evaluate(out, truth_of(out, true))
    scores = done.scores
    assert isinstance(scores, MultiLabelScores)
    # Given: a; a and b; a, the most probable one; nothing.
    assert (scores.samples, scores.missing, scores.exact) == (4, 1, 0.5)
    assert scores.micro_f1 == pytest.approx(2 * 3 / (4 + 5))
    assert scores.mean_average_precision == pytest.approx((2 / 3 + 1) / 2)
    answer = json.loads((out / "evaluation.json").read_text())
    assert answer["multi_label"] is True
    assert answer["exact"] == 0.5
    assert "confusion" not in answer


def test_several_labels_without_probabilities(tmp_path: Path) -> None:
    samples = [
        Sample("0.jpg", (*labels("a", by=MACHINE, confidence=0.9), *labels("b", by=MACHINE, confidence=0.9))),
        Sample("1.jpg", labels("b", by=MACHINE, confidence=0.9)),
        Sample("2.jpg"),
    ]
    write_manifest(tmp_path / "result.manifest", samples)
    done = evaluate(tmp_path, truth_of(tmp_path, {"0.jpg": ["a", "b"], "1.jpg": ["a"], "2.jpg": ["b"]}))
    scores = done.scores
    assert isinstance(scores, MultiLabelScores)
    assert (scores.samples, scores.missing) == (3, 1)
    assert scores.exact == pytest.approx(1 / 3)
    assert scores.micro_f1 == pytest.approx(2 * 2 / (3 + 4))
    assert scores.ece == pytest.approx(0.9 - 2 / 3)
    assert math.isnan(scores.mean_average_precision)
    assert math.isnan(scores.brier)
