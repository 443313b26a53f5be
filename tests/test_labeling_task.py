"""Auto labeling as a task: a request in, OUT full of labels, confirmed, and learned from again."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import orjson
import pytest
from foreign_models import onnx_colors

from engine.dataset import Dataset, read_samples
from engine.decisions import read_decisions
from engine.errors import InputError, OutputError, Stopped, UsageError
from engine.hard.reasons import REASONS
from engine.label.labeling import MEMBERS
from engine.label.targets import targets_of
from engine.models import load_model, read_model_info
from engine.samples import HARD_REASONS_KEY, IMAGE_CLASSIFICATION, Label
from engine.tasks.catalog import run_request
from engine.tasks.confirming import confirm
from engine.tasks.evaluating import evaluate
from engine.tasks.hard import hard_task
from engine.tasks.labeling import labeling_task
from engine.tasks.parameters import Parameters
from engine.tasks.probabilities import Probabilities, read_probabilities, write_probabilities
from engine.tasks.request import parse_request
from engine.tasks.runner import Silent, Status, read_answer, run, task_id
from engine.tasks.schema import TaskRequest

USUAL = {"steps": "8", "networks": 2, "precision": "float32", "image_size": 16}


def request(
    algorithm_type: str = "fast", *, collect: bool = False, config: Any = None, **options: object
) -> TaskRequest:
    entries = [{"label": name, "value": value} for name, value in {**USUAL, **options}.items()]
    told = {"algorithm_type": algorithm_type, "parameters": entries, **(config or {})}
    return parse_request({"task_type": "auto-label", "collect_key_sample": collect, "config": told})


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, Path, dict[str, Any]]:
    """A finished labeling with key samples: the data set, OUT and the answer. Not to be changed."""
    from conftest import painted

    folder = tmp_path_factory.mktemp("labeling")
    dataset = painted(folder / "few")
    config = {"confidence_scope": "0.00-1.00", "key_sample_output": "doubtful"}
    hardly = {"algo_hard_threshold": 0.0}  # everything is a hard example
    return dataset, folder / "out", run_request(request(collect=True, config=config, **hardly), dataset, folder / "out")


Finished = tuple[Dataset, Path, dict[str, Any]]


def test_out_holds_what_the_specification_asks_for(shared: Finished) -> None:
    _, out, answer = shared
    assert answer == read_answer(out)
    assert answer["status"] == Status.SUCCEEDED and answer["progress"] == 100.0
    result = answer["result"]
    assert (result["annotated_sample_count"], result["total_sample_count"]) == (9, 27)
    assert result["dataset_type"] == 0 and result["confidence_scope"] == "0.00-1.00"
    assert sum(each["automatic"] for each in result["labels"]) == 9
    samples = read_samples(out).samples
    automatic = [sample for sample in samples if sample.state == "AUTO_ANNOTATION"]
    assert len(automatic) == 9
    for sample in automatic:
        (made,) = sample.labels
        assert made.annotated_by == "modelarts/active-learning" and made.confidence is not None
        assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", str(made.creation_time))


def test_every_file_says_the_same(shared: Finished) -> None:
    _, out, answer = shared
    samples = read_samples(out).samples
    said = read_probabilities(out / "probabilities.npz")
    assert list(said.sources) == [sample.source for sample in samples]
    assert said.labels == tuple(each["label"] for each in answer["result"]["labels"])
    table = read_decisions(out / "labels.csv")
    for row, sample in enumerate(samples):
        names = tuple(str(label.name) for label in sample.labels)
        assert table[sample.source] == names
        if not said.labeled[row]:
            assert names == (said.labels[int(said.values[row].argmax())],)
    model = load_model(out / "model")
    assert model.labels == said.labels
    assert read_model_info(out / "model").training_digest == answer["result"]["choices"]["training_digest"]


def test_hard_examples_of_a_finished_labeling_are_those_that_it_found(shared: Finished, tmp_path: Path) -> None:
    """Its model is asked again, and its probabilities are learned from; other choices need no other labeling."""
    _, out, answer = shared
    done = read_samples(out)
    options = Parameters(algo_hard_threshold=0.0)
    again = run(hard_task(done, options), tmp_path / "again")
    learned, found = answer["result"]["hard_examples"], again["result"]["hard_examples"]
    assert found["combiner"] == "calibrated" and found["judged_out_of_fold"] == learned["judged_out_of_fold"]
    assert "aug_consistent_mining" in found["miners"]
    coefficients = [sample.hard_coefficient for sample in done]
    for before, sample in zip(coefficients, read_samples(tmp_path / "again"), strict=True):
        assert (sample.hard_coefficient is None) == (before is None)
        assert before is None or sample.hard_coefficient == pytest.approx(before, abs=0.02)
    only = Parameters(comprehensive_algo_config="predict_score_mining:1")
    other = run(hard_task(done, only), tmp_path / "other")
    assert other["result"]["hard_examples"]["combiner"] == "weights"
    assert other["result"]["hard_examples"]["miners"] == ["predict_score_mining"]


def test_a_model_from_elsewhere_is_loaded_only_where_it_is_named(shared: Finished, tmp_path: Path) -> None:
    _, out, _ = shared
    downloaded = shutil.copytree(out, tmp_path / "downloaded")
    shutil.rmtree(downloaded / "model")
    model = onnx_colors(downloaded / "model")
    with pytest.raises(InputError, match=r"model\.json: must be .* this is another program's file"):
        hard_task(read_samples(downloaded), Parameters())
    assert hard_task(read_samples(downloaded), Parameters(), model=model).config["model"] == read_model_info(model).id


def test_what_a_person_confirmed_since_tells_how_far_to_trust(tmp_path: Path) -> None:
    from conftest import painted

    out = tmp_path / "out"
    run_request(request(), painted(tmp_path / "few"), out)
    before = run(hard_task(read_samples(out), Parameters()), tmp_path / "before")
    hardest = read_samples(tmp_path / "before")
    names = [each.source for each in sorted(hardest, key=lambda each: -(each.hard_coefficient or 0.0))[:4]]
    wanted = {Path(name).name for name in names}
    chosen = tmp_path / "chosen.txt"
    chosen.write_text("".join(f"{each.source}\n" for each in read_samples(out) if Path(each.source).name in wanted))
    assert confirm(out, samples=chosen, by="anna").confirmed == 4
    after = run(hard_task(read_samples(out), Parameters()), tmp_path / "after")
    judged = [answer["result"]["hard_examples"]["judged_out_of_fold"] for answer in (before, after)]
    assert judged[1] == judged[0] + 4 and after["result"]["judged_sample_count"] == 5


def test_key_samples_are_copied_with_their_labels(shared: Finished) -> None:
    dataset, out, answer = shared
    assert answer["result"]["key_sample_count"] == 9
    copies = read_samples(out / "doubtful" / "key_samples.manifest")
    assert len(copies) == 9 and not (out / "key_samples").exists()
    coefficients = [sample.hard_coefficient for sample in copies]
    assert coefficients == sorted(coefficients, reverse=True)  # type: ignore[type-var]
    first = copies.path(copies[0])
    assert first.parent == out / "doubtful" and first.stat().st_nlink == 1, "a copy, not a link"
    assert first.read_bytes() == (dataset.sources.root / first.name).read_bytes()


def test_hard_examples_are_marked_as_specified(shared: Finished) -> None:
    _, out, answer = shared
    samples = read_samples(out).samples
    assert answer["result"]["hard_sample_count"] == 9
    assert answer["result"]["hard_examples"]["judged_out_of_fold"] == answer["result"]["choices"]["cv_images"]
    for sample in samples:
        if sample.state != "AUTO_ANNOTATION":
            assert sample.hard is None and sample.hard_coefficient is None
            continue
        (label,) = sample.labels
        reasons = sample.property[HARD_REASONS_KEY]
        assert sample.hard and label.hard and sample.hard_coefficient == label.hard_coefficient
        assert reasons and all(reason in REASONS and not REASONS[reason].of_boxes for reason in reasons)
        assert label.property[HARD_REASONS_KEY] == "-".join(map(str, reasons))
    page = (out / "report.html").read_text("utf-8")
    assert "hard examples" in page and "hard coefficient" in page and "to review until" in page


def test_the_page_offers_corrections_under_the_sources_of_the_manifest(shared: Finished) -> None:
    _, out, _ = shared
    page = (out / "report.html").read_text("utf-8")
    assert "decisions.jsonl" in page
    for told in ("accuracy expected", "calibration error (ECE)", "minutes asked for", "drawn at random among all"):
        assert told in page
    for sample in read_samples(out):
        assert (sample.source in page) == (sample.state == "AUTO_ANNOTATION")


def test_confirmed_labels_are_learned_from_next_time(few: Dataset, tmp_path: Path) -> None:
    run_request(request(), few, tmp_path / "out")
    decisions = tmp_path / "decisions.jsonl"
    source = read_samples(tmp_path / "out").samples[26].source
    decisions.write_bytes(orjson.dumps({"source": source, "labels": ["lying"]}))
    sources = tmp_path / "sources.txt"
    sources.write_text(read_samples(tmp_path / "out").samples[25].source + "\n", "utf-8")
    done = confirm(tmp_path / "out", samples=sources, labels=decisions, by="anna")
    assert (done.confirmed, done.corrected) == (1, 1)
    again = read_samples(tmp_path / "out")
    assert int(targets_of(again).labeled.sum()) == 20
    answer = run_request(request(), again, tmp_path / "second")
    assert answer["result"]["annotated_sample_count"] == 7
    kept = read_samples(tmp_path / "second").samples[26].labels
    assert [(label.name, label.annotated_by) for label in kept] == [("lying", "human/anna")]


@pytest.mark.parametrize("where", ["/elsewhere", "../elsewhere", "obs://bucket/keys/", "a/../../b"])
def test_a_wrong_place_for_key_samples_is_said_before_anything_is_read(few: Dataset, where: str) -> None:
    with pytest.raises(UsageError, match=r"config\.key_sample_output: must be a folder below OUT"):
        labeling_task(request(collect=True, config={"key_sample_output": where}), few)
    labeling_task(request(config={"key_sample_output": where}), few)  # nothing is collected


@pytest.mark.parametrize(("algorithm_type", "networks"), [("fast", None), ("accurate", None), ("accurate", 5)])
def test_progress_ends_near_the_whole(few: Dataset, algorithm_type: str, networks: int | None) -> None:
    options = {} if networks is None else {"networks": networks}
    task = labeling_task(
        parse_request(
            {
                "task_type": "auto-label",
                "config": {
                    "algorithm_type": algorithm_type,
                    "parameters": [{"label": name, "value": value} for name, value in options.items()],
                },
            }
        ),
        few,
    )
    count = networks or MEMBERS[algorithm_type]
    other = {name for name in task.stages if name.startswith("training") and not name.endswith(f"of {count}")}
    assert sum(share for name, share in task.stages.items() if name not in other) == pytest.approx(100)
    if algorithm_type == "accurate" and networks is None:  # with many labels: no lessons before, and three networks
        lessons = {name for name in task.stages if name.startswith("teaching") or name.endswith("of 2")}
        assert sum(share for name, share in task.stages.items() if name not in lessons) == pytest.approx(100)


class Watching(Silent):
    """Sets the event when a stage of this name is so far."""

    def __init__(self, name: str, done: int, event: Event) -> None:
        self.name, self.done, self.event, self.now = name, done, event, ""

    def stage(self, name: str, total: int) -> None:
        self.now = name

    def advance(self, done: int) -> None:
        if self.now == self.name and done >= self.done:
            self.event.set()


@pytest.mark.parametrize(
    ("algorithm_type", "stage"),
    [
        ("fast", "training network 2 of 2"),
        ("accurate", "learning to tell images apart"),
        ("fast", "labeling"),
        ("fast", "finding hard examples"),
    ],
)
def test_ctrl_c_leaves_a_model_and_resume_the_same_result(
    few: Dataset, tmp_path: Path, algorithm_type: str, stage: str
) -> None:
    out, event = tmp_path / "out", Event()
    with pytest.raises(Stopped, match=r"--resume goes on"):
        run_request(request(algorithm_type), few, out, reporter=Watching(stage, 4, event), stop=event)
    assert read_answer(out)["status"] == Status.STOPPED
    assert load_model(out / "model").labels == ("lying", "ring", "standing")
    assert not (out / "result.manifest").exists()
    run_request(request(algorithm_type), few, out, resume=True)
    run_request(request(algorithm_type), few, tmp_path / "whole")
    resumed, whole = (read_probabilities(each / "probabilities.npz") for each in (out, tmp_path / "whole"))
    assert resumed.values.tobytes() == whole.values.tobytes()
    assert read_model_info(out / "model").id == read_model_info(tmp_path / "whole" / "model").id


class Pausing(Silent):
    """Sets the event when a stage of this name begins."""

    def __init__(self, name: str, event: Event) -> None:
        self.name, self.event = name, event

    def stage(self, name: str, total: int) -> None:
        if name == self.name:
            self.event.set()


def stopped_at(stage: str, dataset: Dataset, out: Path, algorithm_type: str = "fast", *, resume: bool = False) -> None:
    event = Event()
    with pytest.raises(Stopped, match=r"--resume goes on"):
        run_request(request(algorithm_type), dataset, out, resume=resume, reporter=Pausing(stage, event), stop=event)


def test_what_a_person_confirmed_after_a_stop_is_not_lost_to_resume(few: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "out"
    stopped_at("drawing the page", few, out)
    stopped_at("drawing the page", few, out, resume=True)
    assert confirm(out, all=True, by="anna").confirmed == 9
    with pytest.raises(OutputError, match=r"a result\.manifest that a person has changed .*; --overwrite replaces it"):
        run_request(request(), few, out, resume=True)
    assert targets_of(read_samples(out)).labeled.all()


@pytest.mark.parametrize("again", ["reading images", "looking at labeled images"])
def test_a_second_stop_leaves_the_best_model_so_far(few: Dataset, tmp_path: Path, again: str) -> None:
    out = tmp_path / "out"
    stopped_at("finding hard examples", few, out)
    info = read_model_info(out / "model")
    assert len(info.training_digest) == 64 and info.metrics["steps"] == "8+8" and info.metrics["seed"] == 0
    stopped_at(again, few, out, resume=True)
    assert read_model_info(out / "model").training_digest == info.training_digest
    committee = load_model(out / "model").committee
    assert committee is not None and len(committee.networks) == 2


def test_that_key_samples_are_collected_is_part_of_what_a_task_is(few: Dataset) -> None:
    with_them, without = (labeling_task(request(collect=collect), few) for collect in (True, False))
    assert with_them.config["collect_key_sample"] is True
    assert dict(without.config) == {name: with_them.config[name] for name in without.config}
    assert "collect_key_sample" not in without.config and task_id(with_them) != task_id(without)


def test_a_labeled_image_that_cannot_be_read_is_no_error_of_the_model(few: Dataset, tmp_path: Path) -> None:
    few.path(few[0]).write_bytes(b"no image")
    run_request(request(), few, tmp_path / "out")
    said = read_probabilities(tmp_path / "out" / "probabilities.npz")
    assert np.isnan(said.values[0]).all() and said.labeled[:19].tolist() == [True] * 18 + [False]
    truth = few.with_samples(
        replace(sample, labels=sample.labels or (Label(IMAGE_CLASSIFICATION, "ring"),)) for sample in few
    )
    found = evaluate(tmp_path / "out", truth)
    assert (found.scores.samples, found.scores.missing, found.labeled_before) == (9, 0, 18)


def test_probabilities_come_back_as_they_went(tmp_path: Path) -> None:
    values = np.array([[0.25, 0.75], [np.nan, np.nan]], np.float32)
    said = Probabilities(
        ("a/ü.jpg", "b\n.jpg"), ("cat", "\N{CAT FACE}"), values, np.array([True, False]), np.array([2, -1])
    )
    write_probabilities(tmp_path / "probabilities.npz", said)
    back = read_probabilities(tmp_path / "probabilities.npz")
    assert (back.sources, back.labels) == (said.sources, said.labels)
    assert np.array_equal(back.values, values, equal_nan=True) and back.labeled.tolist() == [True, False]
