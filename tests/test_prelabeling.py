"""Pre-labeling: a model that is there labels what nobody labeled; what people said stays, whatever the model thinks."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from conftest import SHAPES, painted
from foreign_models import COLORS, bright_detector, onnx_colors

from engine.cli import main
from engine.dataset import Dataset, read_samples
from engine.errors import InputError, UsageError
from engine.hard.reasons import OPERATORS
from engine.manifest import write_manifest
from engine.models import ForeignClassifier, ForeignDetector, Shelf, load_any
from engine.models.foreign.graphs import Graph
from engine.prelabel import pre_detect, pre_label
from engine.samples import HARD_REASONS_KEY, IMAGE_CLASSIFICATION, OBJECT_DETECTION, Drawing, Label, Sample, Shape
from engine.sources import Sources
from engine.tasks.candidates import read_candidates
from engine.tasks.catalog import run_request
from engine.tasks.confirming import confirm
from engine.tasks.hard import hard_task
from engine.tasks.parameters import read_parameters
from engine.tasks.probabilities import read_probabilities
from engine.tasks.request import parse_request
from engine.tasks.runner import run
from engine.tasks.schema import TaskRequest


def request(model: str | None = None, *, config: Any = None, collect: bool = False, **options: object) -> TaskRequest:
    entries = [{"label": name, "value": value} for name, value in options.items()]
    body = {
        "task_type": "pre-label",
        "collect_key_sample": collect,
        "config": {"parameters": entries, **(config or {})},
    }
    return parse_request(body if model is None else {**body, "model_id": model})


def human(name: str) -> Label:
    return Label(type=IMAGE_CLASSIFICATION, name=name)


def colored(folder: Path, *, wrong: int = 0) -> Dataset:
    """30 images of a color each, with noise, of which people labeled twelve, `wrong` of them with the next color."""
    folder.mkdir(parents=True)
    samples = []
    for number in range(30):
        rng = np.random.default_rng(number)
        pixels = rng.normal(90, 20, (20, 24, 3))
        pixels[:, :, 2 - number % 3] += 60  # OpenCV writes BGR
        cv2.imwrite(str(folder / f"{number:02}.png"), pixels.clip(0, 255).astype(np.uint8))
        name = COLORS[(number + (number < wrong)) % 3]
        samples.append(Sample(f"{number:02}.png", (human(name),) if number < 12 else ()))
    return Dataset(tuple(samples), Sources(folder), name="colors")


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "home")


def test_what_nobody_labeled_is_labeled_by_the_model(tmp_path: Path, shelf: Shelf) -> None:
    dataset = colored(tmp_path / "data", wrong=2)
    model = shelf.add(onnx_colors(tmp_path / "rgb"), name="rgb", version="1.2")
    answer = run_request(request(model.model_id), dataset, tmp_path / "out", shelf=shelf)
    result = answer["result"]
    assert result["annotated_sample_count"] == 18 and result["total_sample_count"] == 30
    assert (result["model_id"], result["model_name"], result["model_version"]) == (model.model_id, "rgb", "1.2")
    assert answer["task_type"] == "pre-label" and answer["config"]["model_id"] == model.model_id
    written = read_samples(tmp_path / "out")
    for number, sample in enumerate(written):
        (label,) = sample.labels
        if number < 12:
            assert label == dataset[number].labels[0]  # people's labels stay, right or wrong
        else:
            assert label.name == COLORS[number % 3] and label.annotated_by == "modelarts/pre-label"
            assert label.confidence is not None and 0.5 < label.confidence <= 1
    said = read_probabilities(tmp_path / "out" / "probabilities.npz")
    assert said.labels == tuple(sorted(COLORS)) and np.isnan(said.values[:12]).all()
    assert np.allclose(said.values[12:].sum(axis=1), 1, atol=1e-5)
    assert "by the model rgb:1.2" in (tmp_path / "out" / "report.html").read_text()
    assert not (tmp_path / "out" / "model").exists()
    done = confirm(tmp_path / "out", all=True, by="anna")
    assert done.confirmed == 18


def test_hard_examples_do_not_change_the_labels(tmp_path: Path) -> None:
    """An image of no color is hard; alterations ask the model again, which sees other colors in a negative."""
    dataset = colored(tmp_path / "data")
    grey = np.full((20, 24, 3), 120, np.uint8)
    cv2.imwrite(str(tmp_path / "data" / "20.png"), grey)
    model = onnx_colors(tmp_path / "rgb")
    asked = request(comprehensive_algo_config="predict_score_mining:1.0", algo_hard_threshold=0.2)
    answer = run_request(asked, dataset, tmp_path / "out", model=model)
    written = read_samples(tmp_path / "out")
    doubts = {row: sample.hard_coefficient or 0 for row, sample in enumerate(written) if row >= 12}
    assert max(doubts, key=lambda row: doubts[row]) == 20 and written[20].hard
    assert written[20].labels[0].name in COLORS
    assert answer["result"]["model_name"] == "rgb" and answer["result"]["model_id"] is None
    asked = request(
        comprehensive_algo_config="aug_consistent_mining:1.0", aug_op_config="invert:1.0", algo_hard_threshold=0.04
    )  # below what one labeled image in ten reaches, for they change as much
    answer = run_request(asked, dataset, tmp_path / "again", model=model)
    assert not any("aug_consistent_mining did not run" in line for line in answer["notices"])
    negatives = [sample for sample in read_samples(tmp_path / "again") if sample.property.get(HARD_REASONS_KEY) == [29]]
    assert len(negatives) >= 8


def test_labels_that_the_model_has_not_seen_tell_how_far_it_can_be_trusted(tmp_path: Path) -> None:
    dataset = colored(tmp_path / "data", wrong=3)
    model = load_any(onnx_colors(tmp_path / "rgb"))
    told = pre_label(dataset, model, unseen=True)  # type: ignore[arg-type]
    assert told.choices["cv_images"] == 12 and told.choices["cv_accuracy"] == 0.75
    assert told.judges[:12].tolist() == [-2] * 12 and told.judges[12:].tolist() == [-1] * 18
    assert not np.isnan(told.probabilities).any()
    alone = pre_label(dataset, model)  # type: ignore[arg-type]
    assert "cv_accuracy" not in alone.choices and np.array_equal(alone.probabilities[12:], told.probabilities[12:])
    answer = run_request(request(unseen=True), dataset, tmp_path / "out", model=tmp_path / "rgb")
    assert answer["result"]["choices"]["cv_accuracy"] == 0.75


def test_labels_that_the_model_does_not_know_stay_and_are_never_given(tmp_path: Path) -> None:
    dataset = colored(tmp_path / "data")
    samples = list(dataset.samples)
    samples[0] = Sample("00.png", (human("violet"),))
    told = pre_label(dataset.with_samples(samples), load_any(onnx_colors(tmp_path / "rgb")))  # type: ignore[arg-type]
    assert told.labels == ("blue", "green", "red", "violet")
    assert told.notes == ("the model does not know labels that people gave, and never gives them: violet",)
    assert not told.predicted[:, 3].any() and told.targets.matrix[0].tolist() == [False, False, False, True]


@pytest.mark.parametrize("fit", ["pad", "crop"])
def test_a_graph_that_wants_the_shape_kept_sees_the_file_itself(tmp_path: Path, fit: str) -> None:
    """Images with a green edge that a crop does not see, and a padded one does."""
    folder = tmp_path / "data"
    folder.mkdir()
    pixels = np.full((16, 80, 3), (60, 60, 90), np.uint8)
    pixels[:, :30] = pixels[:, 50:] = (0, 255, 0)
    cv2.imwrite(str(folder / "a.png"), pixels)
    dataset = Dataset((Sample("a.png"), Sample("gone.png")), Sources(folder))
    model = load_any(onnx_colors(tmp_path / "rgb", input={"width": 16, "height": 16, "fit": fit}))
    told = pre_label(dataset, model)  # type: ignore[arg-type]
    assert told.labels[int(told.probabilities[0].argmax())] == ("green" if fit == "pad" else "red")
    assert np.isnan(told.probabilities[1]).all() and [each.source for each in told.survey.failures] == ["gone.png"]


def test_hard_examples_ask_a_graph_about_the_file_itself_too(tmp_path: Path) -> None:
    """A crop is red where the whole image, squeezed, is green: what the model said is not overruled."""
    folder = tmp_path / "data"
    folder.mkdir()
    pixels = np.full((16, 80, 3), (60, 60, 90), np.uint8)
    pixels[:, :30] = pixels[:, 50:] = (0, 255, 0)
    cv2.imwrite(str(folder / "a.png"), pixels)
    onnx_colors(tmp_path / "rgb", input={"width": 16, "height": 16, "fit": "crop"})
    said = Label(IMAGE_CLASSIFICATION, "red", annotated_by="a-model", confidence=0.9)
    task = hard_task(
        Dataset((Sample("a.png", (said,)),), Sources(folder)),
        read_parameters([], "auto-label"),
        model=tmp_path / "rgb",
    )
    run(task, tmp_path / "out")
    scores = np.load(tmp_path / "out" / "hard_scores.npz")
    assert scores["scores"][0, scores["reasons"].tolist().index(1)] < 0.5


def test_a_model_of_ours(tmp_path: Path) -> None:
    dataset = painted(tmp_path / "few")
    usual = [{"label": name, "value": value} for name, value in (("steps", "30"), ("networks", 2), ("image_size", 16))]
    body = {"task_type": "auto-label", "config": {"algorithm_type": "fast", "parameters": usual}}
    run_request(parse_request(body), dataset, tmp_path / "learned")
    fresh = Dataset(tuple(Sample(f"{at:02}.png") for at in range(27)), Sources(tmp_path / "few"), name="fresh")
    asked = request(collect=True, config={"key_sample_output": "look"}, algo_hard_threshold=0)
    answer = run_request(asked, fresh, tmp_path / "out", model=tmp_path / "learned" / "model")
    written = read_samples(tmp_path / "out")
    right = sum(sample.labels[0].name == SHAPES[at % 3] for at, sample in enumerate(written))
    learned = {sample.source: sample.labels[0].confidence for sample in read_samples(tmp_path / "learned")}
    for sample in written:
        if learned[sample.source] is not None:
            assert sample.labels[0].confidence == pytest.approx(learned[sample.source], abs=1e-5)
    assert right >= 18 and answer["result"]["key_sample_count"] == 27
    assert len(read_samples(tmp_path / "out" / "look" / "key_samples.manifest")) == 27
    assert answer["result"]["model_name"] == "learned" and answer["config"]["collect_key_sample"] is True


@dataclass(frozen=True)
class Fussy:
    """A graph that says NaN of black images."""

    graph: Graph

    @property
    def place(self) -> Path:
        return self.graph.place

    def run(self, batch: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
        black = batch.max(axis=(1, 2, 3)) == 0
        said = self.graph.run(batch)
        return {name: np.where(black.reshape(-1, *[1] * (x.ndim - 1)), np.nan, x) for name, x in said.items()}


def fussy(folder: Path) -> Any:
    model = load_any(folder)
    assert isinstance(model, ForeignClassifier | ForeignDetector)
    return replace(model, graph=Fussy(model.graph))


def blacken(dataset: Dataset, *numbers: int) -> None:
    for number in numbers:
        cv2.imwrite(str(dataset.path(dataset[number])), np.zeros((80, 120, 3), np.uint8))


@pytest.mark.parametrize("fit", ["stretch", "crop"])
def test_an_image_that_the_graph_fails_on_costs_no_other_its_label(
    tmp_path: Path, fit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does it end the search for hard examples, which asks the graph about altered images."""
    dataset = colored(tmp_path / "data")
    blacken(dataset, 14)
    folder = onnx_colors(tmp_path / "rgb", input={"width": 16, "height": 16, "fit": fit})
    monkeypatch.setattr("engine.tasks.prelabeling.load_any", lambda path, device: fussy(path))
    asked = request(comprehensive_algo_config="aug_consistent_mining:1.0", aug_op_config="fliplr:1.0")
    answer = run_request(asked, dataset, tmp_path / "out", model=folder)
    assert answer["result"]["annotated_sample_count"] == 17
    written = read_samples(tmp_path / "out")
    assert [row for row, sample in enumerate(written) if not sample.labels] == [14]
    failures = pre_label(dataset, fussy(folder)).survey.failures
    assert [(each.source, each.kind) for each in failures] == [("14.png", "broken")]
    assert "must be finite, got NaN or infinity" in failures[0].reason


def test_a_graph_that_fails_on_all_that_it_sees_first_ends_the_run(tmp_path: Path) -> None:
    dataset = colored(tmp_path / "data")
    blacken(dataset, *range(12, 30))
    with pytest.raises(InputError, match="must be finite, got NaN or infinity"):
        pre_label(dataset, fussy(onnx_colors(tmp_path / "rgb")))


# ---- Boxes. ----


def lamps(folder: Path, *, labeled: int = 0, name: str = "lamp") -> Dataset:
    """Twelve dark images with one bright rectangle, of which people drew on some."""
    folder.mkdir(parents=True)
    samples = []
    for number in range(12):
        pixels = np.full((80, 120, 3), 25, np.uint8)
        x, y = 10 + 5 * number, 20 + 2 * number
        pixels[y : y + 20, x : x + 30] = 250
        cv2.imwrite(str(folder / f"{number:02}.png"), pixels)
        shape = Shape(name, "bndbox", ((x, y), (x + 30, y + 20)))
        label = Label(OBJECT_DETECTION, drawing=Drawing((shape,), (120, 80, 3)))
        samples.append(Sample(f"{number:02}.png", (label,) if number < labeled else ()))
    return Dataset(tuple(samples), Sources(folder), name="lamps")


def test_boxes_of_a_detector_from_elsewhere(tmp_path: Path) -> None:
    dataset = lamps(tmp_path / "data", labeled=2)
    answer = run_request(request(), dataset, tmp_path / "out", model=bright_detector(tmp_path / "bright"))
    assert answer["result"]["annotated_sample_count"] == 10 and answer["result"]["labels"][0]["automatic"] == 10
    written = read_samples(tmp_path / "out")
    for number, sample in enumerate(written):
        (box,) = sample.boxes
        x, y = 10 + 5 * number, 20 + 2 * number
        assert box.name == "lamp" and np.abs(np.array(box.xyxy) - (x, y, x + 30, y + 20)).max() <= 2
        assert (box.confidence is None) == (number < 2)
    assert written[5].labels[0].annotated_by == "modelarts/pre-label"
    said = read_candidates(tmp_path / "out" / "candidates.npz")
    assert said.labels == ("lamp",) and said.known.all() and (said.judges == -1).all()
    assert not any("aug_consistent_mining did not run" in line for line in answer["notices"])
    hard = ["hard", str(tmp_path / "out"), "--model", str(tmp_path / "bright"), "--aug-op-config", "fliplr:1+add:1"]
    assert main([*hard, "--out", str(tmp_path / "hard")]) == 0
    with np.load(tmp_path / "hard" / "hard_scores.npz") as file:
        scores = dict(zip(file["reasons"].tolist(), file["scores"].T, strict=True))
    assert (scores[OPERATORS["fliplr"]][2:] < 0.2).all()  # a mirrored lamp is a lamp
    assert confirm(tmp_path / "out", all=True).confirmed == 10


def test_an_image_that_a_detector_fails_on_costs_no_other_its_boxes(tmp_path: Path) -> None:
    dataset = lamps(tmp_path / "data", labeled=2)
    blacken(dataset, 5)
    told = pre_detect(dataset, fussy(bright_detector(tmp_path / "bright")))
    assert [(each.source, each.kind) for each in told.failures] == [("05.png", "broken")]
    assert told.automatic.sum() == 9 and not told.automatic[5]


def test_how_good_a_detector_is_on_boxes_that_it_has_not_seen(tmp_path: Path) -> None:
    dataset = lamps(tmp_path / "data", labeled=6)
    model = load_any(bright_detector(tmp_path / "bright"))
    told = pre_detect(dataset, model, unseen=True)  # type: ignore[arg-type]
    assert told.choices["cv_images"] == 6 and told.choices["cv_map50"] == 1.0
    assert told.judges.tolist() == [-2] * 6 + [-1] * 6
    none = pre_detect(dataset, model, score_threshold=0.95)  # type: ignore[arg-type]
    assert none.automatic.sum() == 6 and none.automatic_counts.sum() == 0 and "cv_map50" not in none.choices
    with pytest.raises(UsageError, match="score_threshold"):
        pre_detect(dataset, model, score_threshold=2)  # type: ignore[arg-type]


def test_names_of_boxes_that_the_detector_does_not_know(tmp_path: Path) -> None:
    dataset = lamps(tmp_path / "data", labeled=3, name="moon")
    answer = run_request(request(), dataset, tmp_path / "out", model=bright_detector(tmp_path / "bright"))
    assert any("never gives them: moon" in line for line in answer["notices"])
    assert {each["label"]: each["automatic"] for each in answer["result"]["labels"]} == {"lamp": 9, "moon": 0}


def test_a_label_that_is_never_given_has_no_confidence_from_which_on_it_is(tmp_path: Path) -> None:
    dataset = lamps(tmp_path / "data", labeled=3, name="moon")
    out = tmp_path / "out"
    answer = run_request(request(unseen=True), dataset, out, model=bright_detector(tmp_path / "bright"))
    least = {each["label"]: each["threshold"] for each in answer["result"]["choices"]["cv_classes"]}
    assert least["moon"] is None and 0 <= least["lamp"] <= 1
    assert "2.00" not in (out / "report.html").read_text()


# ---- What is refused. ----


def test_a_model_of_the_wrong_type(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="must label what people labeled, boxes, got one of image_classification"):
        run_request(request(), lamps(tmp_path / "a", labeled=2), tmp_path / "out", model=onnx_colors(tmp_path / "rgb"))
    with pytest.raises(UsageError, match="labels of whole images, got one of object_detection"):
        run_request(request(), colored(tmp_path / "b"), tmp_path / "out", model=bright_detector(tmp_path / "bright"))
    with pytest.raises(UsageError, match="must be one for label_type 1"):
        run_request(request(label_type=1), colored(tmp_path / "c"), tmp_path / "out", model=tmp_path / "rgb")
    assert not (tmp_path / "out").exists()


def test_which_model_a_request_means(tmp_path: Path, shelf: Shelf) -> None:
    dataset = colored(tmp_path / "data")
    first = shelf.add(onnx_colors(tmp_path / "rgb"), name="rgb")
    second = shelf.add(onnx_colors(tmp_path / "rgb2", batch=1), name="rgb")
    assert first.model_version == "0.0.1" and second.model_version == "0.0.2"

    def meant(number: int, asked: TaskRequest) -> str:
        answer = run_request(asked, dataset, tmp_path / f"out{number}", shelf=shelf)
        return str(answer["result"]["model_version"])

    assert meant(1, request(config={"model_name": "rgb"})) == "0.0.2"
    assert meant(2, request(config={"model_name": "rgb", "model_version": "0.0.1"})) == "0.0.1"
    assert meant(3, request(config={"model_id": first.model_id})) == "0.0.1"
    assert (
        meant(4, request(config={"inf_config_list": [{"model_id": second.model_id, "instance_count": 1}]})) == "0.0.2"
    )
    for asked, message in [
        (request(), "model_id: must name the model that labels"),
        (request(first.model_id, config={"model_version": "7"}), "config.model_version: must be that of the model"),
        (request("nobody"), "model 'nobody': there is none"),
    ]:
        with pytest.raises((UsageError, InputError), match=message):
            run_request(asked, dataset, tmp_path / "no", shelf=shelf)


def test_nothing_to_label(tmp_path: Path) -> None:
    dataset = colored(tmp_path / "data")
    with pytest.raises(InputError, match="pre-labeling needs at least 1 unlabeled image"):
        run_request(
            request(), dataset.with_samples(dataset.samples[:12]), tmp_path / "out", model=onnx_colors(tmp_path / "m")
        )


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = colored(tmp_path / "data")
    write_manifest(tmp_path / "data" / "colors.manifest", dataset.samples)
    data, home = str(tmp_path / "data" / "colors.manifest"), ["--home", str(tmp_path / "home")]
    onnx_colors(tmp_path / "rgb")
    assert main(["models", "import", str(tmp_path / "rgb"), *home]) == 0
    capsys.readouterr()
    assert main(["prelabel", data, "--model", "rgb", "--unseen", "--out", str(tmp_path / "out"), *home]) == 0
    assert "18 of 30 images labeled by rgb, to be confirmed" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "task.json").read_text())["result"]["model_version"] == "0.0.1"
    assert main(["prelabel", data, "--model", "nobody", "--out", str(tmp_path / "no"), *home]) == 1
    assert "'nobody': must be a folder with model.json" in capsys.readouterr().err
    hard = ["hard", str(tmp_path / "out"), "--model", "rgb", "--out", str(tmp_path / "hard"), *home]
    assert main(hard) == 0
    bright_detector(tmp_path / "bright")
    assert main([*hard[:3], str(tmp_path / "bright"), "--out", str(tmp_path / "no")]) == 2
    assert "model: must be one of image_classification" in capsys.readouterr().err


def test_what_a_person_drew_stays_though_it_does_not_fit(tmp_path: Path) -> None:
    """A drawing that states another shape than the image has: nobody knows what it means, and no machine may say."""
    dataset = lamps(tmp_path / "data", labeled=3)
    label = dataset[1].labels[0]
    assert label.drawing is not None
    odd = Sample("01.png", (Label(OBJECT_DETECTION, drawing=Drawing(label.drawing.shapes, (300, 40, 3))),))
    dataset = dataset.with_samples((dataset[0], odd, *dataset.samples[2:]))
    answer = run_request(request(), dataset, tmp_path / "out", model=bright_detector(tmp_path / "bright"))
    assert answer["result"]["annotated_sample_count"] == 9
    assert read_samples(tmp_path / "out")[1].labels[0].by_human


def test_labels_and_boxes_beside_each_other(tmp_path: Path) -> None:
    """Boxes that a machine drew on more images than have labels: labels are what is in question all the same."""
    dataset = colored(tmp_path / "data")
    machine = Label(
        OBJECT_DETECTION, annotated_by="x", drawing=Drawing((Shape("thing", "bndbox", ((1, 1), (9, 9))),), (24, 20, 3))
    )
    both = dataset.with_samples(Sample(each.source, (*each.labels, machine)) for each in dataset)
    answer = run_request(request(label_type=0), both, tmp_path / "out", model=onnx_colors(tmp_path / "rgb"))
    assert answer["result"]["annotated_sample_count"] == 18
