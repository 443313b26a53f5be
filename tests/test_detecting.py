"""Auto labeling of boxes from end to end: scenes drawn in code, learned, labeled, kept, loaded, run again."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from threading import Event
from typing import Any

import cv2
import numpy as np
import orjson
import pytest
import torch
import torch.nn.functional as F

import engine
from engine.cli import main
from engine.dataset import Dataset, read_samples
from engine.detect.average_precision import Found, box_scores
from engine.detect.crossfit import Unfinished
from engine.detect.detecting import auto_detect, found_boxes, members_for
from engine.detect.network import DetectorSpec, initialised_detector
from engine.detect.results import Detection, annotated
from engine.detect.sketches import fitted, sketches_of
from engine.detect.trunk import read_trunk, widths_of
from engine.embeddings import IMAGENET_MEAN, IMAGENET_STD
from engine.errors import Failure, InputError, Stopped, UsageError
from engine.hard.box_errors import box_label_errors
from engine.hard.box_look import as_sure, back_on, changes, mapped_back, still_there
from engine.hard.detected import hard_detections
from engine.hard.marks import marked_boxes
from engine.hard.operators import OPERATORS, PLACES
from engine.hard.reasons import REASONS
from engine.label.training import Recipe, Training, generator_of
from engine.models import load_detector, load_model, model_digest, read_model_info, save_model
from engine.outfolder import OutFolder
from engine.predictions import Boxes
from engine.prelabel import pre_detect
from engine.samples import IMAGE_CLASSIFICATION, OBJECT_DETECTION, SIZE_KEY, Drawing, Label, Sample, Shape
from engine.sources import Sources
from engine.tasks.candidates import Candidates, read_candidates, write_candidates
from engine.tasks.catalog import run_request
from engine.tasks.confirming import confirm
from engine.tasks.evaluating_boxes import evaluate_boxes
from engine.tasks.hard import hard_task
from engine.tasks.hard_page import with_boxes
from engine.tasks.pages import tiles_of
from engine.tasks.parameters import Parameters
from engine.tasks.request import parse_request
from engine.tasks.runner import Status, run
from engine.tasks.suggesting import suggest_task
from engine.voc import write_voc

SIZE = (96, 72)
COLORS = {"disc": (220, 60, 40), "square": (40, 80, 230)}


def scene(path: Path, seed: int, *, kinds: tuple[str, ...] = ("disc", "square"), most: int = 3) -> list[Shape]:
    """Up to `most` discs and squares of two colors on noise; gives the boxes around them."""
    rng = np.random.default_rng(seed)
    pixels = np.full((SIZE[1], SIZE[0], 3), rng.uniform(90, 160), np.float64)
    shapes: list[Shape] = []
    for _ in range(int(rng.integers(1, most + 1))):
        kind, half = kinds[int(rng.integers(len(kinds)))], int(rng.integers(6, 11))
        x, y = int(rng.integers(half, SIZE[0] - half)), int(rng.integers(half, SIZE[1] - half))
        if any(abs(x - (s.xyxy[0] + s.xyxy[2]) / 2) < 20 and abs(y - (s.xyxy[1] + s.xyxy[3]) / 2) < 20 for s in shapes):
            continue
        color = COLORS[kind][::-1]
        if kind == "disc":
            cv2.circle(pixels, (x, y), half, color, -1)
        else:
            cv2.rectangle(pixels, (x - half, y - half), (x + half, y + half), color, -1)
        shapes.append(Shape(kind, "bndbox", ((x - half, y - half), (x + half + 1, y + half + 1))))
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), (pixels + rng.normal(0, 12, pixels.shape)).clip(0, 255).astype(np.uint8))
    return shapes


def drawn(name: str, shapes: list[Shape], *, size: tuple[int, int, int] | None = (*SIZE, 3)) -> Sample:
    return Sample(name, (Label(OBJECT_DETECTION, drawing=Drawing(tuple(shapes), size)),))


def scenes(folder: Path, labeled: int, unlabeled: int, **options: Any) -> tuple[Dataset, list[list[Shape]]]:
    """Labeled scenes, then unlabeled ones; and the boxes of all."""
    samples, truth = [], []
    for number in range(labeled + unlabeled):
        name = f"{number:03}.png"
        truth.append(scene(folder / name, number, **options))
        samples.append(drawn(name, truth[-1]) if number < labeled else Sample(name))
    return Dataset(tuple(samples), Sources(folder), name="scenes"), truth


USUAL: dict[str, Any] = {"steps": (6,), "networks": 2, "precision": "float32", "batch_size": 4}


def quick(dataset: Dataset, algorithm_type: str = "fast", **options: Any) -> Detection:
    return auto_detect(dataset, algorithm_type, **{**USUAL, **options})


def score(detection: Detection, truth: list[list[Shape]]) -> float:
    rows = np.flatnonzero(detection.automatic).tolist()
    column = {name: at for at, name in enumerate(detection.labels)}
    found, wanted = [], []
    for row in rows:
        boxes = detection.candidates[row]
        assert boxes is not None
        found.append(Found(boxes.xyxy.numpy(), boxes.classes.numpy(), boxes.scores.numpy()))
        xyxy = np.array([shape.xyxy for shape in truth[row]], float).reshape(-1, 4)
        classes = np.array([column[shape.name] for shape in truth[row]], np.int64)
        wanted.append(Found(xyxy, classes, np.ones(len(classes))))
    return box_scores(found, wanted, len(column)).map50


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, list[list[Shape]], Detection]:
    """24 labeled and 16 unlabeled scenes, learned until four seeds find every box of the others. Not to be changed."""
    dataset, truth = scenes(tmp_path_factory.mktemp("scenes"), 24, 16)
    return dataset, truth, quick(dataset, steps=(320,), batch_size=6)


Learned = tuple[Dataset, list[list[Shape]], Detection]


@pytest.mark.slow
def test_what_was_learned_is_found_on_images_that_nobody_labeled(learned: Learned) -> None:
    _, truth, detection = learned
    assert score(detection, truth) > 0.8
    assert detection.choices["cv_map50"] > 0.6
    assert detection.choices["flips"] == ["horizontal", "vertical", "transposed"]


def test_labeled_images_are_judged_by_the_network_that_has_not_seen_them(learned: Learned) -> None:
    _, _, detection = learned
    judged = detection.judges >= 0
    assert set(detection.judges[judged].tolist()) == {0, 1}
    assert not (judged & ~detection.sketches.labeled).any()
    there = np.array([each is not None for each in detection.candidates])
    assert (there == (judged | ~detection.sketches.labeled)).all()


def test_automatic_boxes_are_written_where_nobody_drew(learned: Learned) -> None:
    dataset, _, detection = learned
    samples = annotated(dataset.samples, detection, time=datetime(2026, 1, 2))
    assert samples[:24] == dataset.samples[:24]
    for row in range(24, 40):
        (label,) = samples[row].labels
        assert not label.by_human and label.type == OBJECT_DETECTION and label.drawing is not None
        assert label.drawing.size == (*SIZE, 3) and samples[row].property[SIZE_KEY] == [*SIZE, 3]
        for shape in label.drawing.shapes:
            x1, y1, x2, y2 = shape.xyxy
            assert 0 <= x1 < x2 <= SIZE[0] and 0 <= y1 < y2 <= SIZE[1]
            assert shape.confidence is not None and 0 <= shape.confidence <= 1
    again = annotated(samples, detection, time=datetime(2026, 1, 2))
    assert again == samples  # those of an earlier run are replaced


def test_other_shapes_that_a_machine_drew_stay(learned: Learned) -> None:
    """Boxes are replaced; an outline is nothing that a detector could have said better."""
    dataset, _, detection = learned
    outline = Shape("cell", "polygon", ((2, 2), (8, 2), (8, 12)))
    drawing = Drawing((Shape("disc", "bndbox", ((0, 0), (9, 9))), outline), (2 * SIZE[0], 2 * SIZE[1], 3))
    before = replace(dataset[30], labels=(Label(OBJECT_DETECTION, annotated_by="modelarts/auto", drawing=drawing),))
    samples = [*dataset.samples[:30], before, *dataset.samples[31:]]
    (label,) = annotated(samples, detection, time=datetime(2026, 1, 2))[30].labels
    assert label.drawing is not None
    others = [shape for shape in label.drawing.shapes if shape.kind != "bndbox"]
    assert [shape.points for shape in others] == [((1, 1), (4, 1), (4, 6))]
    assert not any(shape.xyxy == (0, 0, 9, 9) for shape in label.drawing.shapes if shape.kind == "bndbox")


@pytest.mark.parametrize("algorithm_type", ["fast", "accurate"])
def test_the_same_seed_and_steps_give_the_same_boxes(tmp_path: Path, algorithm_type: str) -> None:
    dataset, _ = scenes(tmp_path / "few", 6, 3)
    first, second = (quick(dataset, algorithm_type, min_per_class=2) for _ in range(2))
    assert model_digest(first.detector) == model_digest(second.detector)
    for one, other in zip(first.candidates, second.candidates, strict=True):
        assert (one is None) == (other is None)
        assert (
            one is None
            or other is None
            or (torch.equal(one.xyxy, other.xyxy) and torch.equal(one.scores, other.scores))
        )
    assert model_digest(quick(dataset, algorithm_type, min_per_class=2, seed=1).detector) != model_digest(
        first.detector
    )


def test_a_stop_while_boxes_are_looked_for_keeps_the_detector(tmp_path: Path) -> None:
    dataset, _ = scenes(tmp_path, 6, 2)

    def stage(name: str, total: int) -> Any:
        if name == "labeling":
            raise Stopped("stopped on request")
        return lambda done: None

    with pytest.raises(Unfinished, match="stopped on request") as stopped:
        quick(dataset, min_per_class=2, steps=(2,), networks=1, stage=stage)
    assert stopped.value.verdict is not None and len(stopped.value.verdict.detector.networks) == 1


@pytest.mark.parametrize("algorithm_type", ["fast", "accurate"])
def test_a_run_that_was_stopped_goes_on_to_the_same_result(tmp_path: Path, algorithm_type: str) -> None:
    dataset, _ = scenes(tmp_path / "few", 6, 3)
    options = {"min_per_class": 2, "steps": (10,)}
    whole = quick(dataset, algorithm_type, **options)
    asked = 0

    def stopped() -> bool:
        nonlocal asked
        asked += 1
        return asked > 12

    with pytest.raises(Unfinished) as caught:
        quick(dataset, algorithm_type, folder=tmp_path / "cache", stopped=stopped, **options)
    assert caught.value.verdict is not None  # the best so far: half of a network is one
    again = quick(dataset, algorithm_type, folder=tmp_path / "cache", **options)
    assert model_digest(again.detector) == model_digest(whole.detector)


def at(stage: str) -> dict[str, Any]:
    """Options for a call that is stopped when this stage begins."""
    begun: list[str] = []

    def begin(name: str, total: int) -> Any:
        begun.append(name)
        return lambda done: None

    return {"stage": begin, "stopped": lambda: stage in begun}


@pytest.mark.parametrize(
    ("algorithm_type", "stage", "minutes"),
    [("fast", "training", 5.0), ("accurate", "training", 5.0), ("accurate", "teaching", 0.01)],
)
def test_a_training_that_was_stopped_does_not_change_the_pace(
    tmp_path: Path, algorithm_type: str, stage: str, minutes: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.detect.detecting.supervised_seconds", lambda pool, plan: 0.01)
    dataset, _ = scenes(tmp_path / "few", 6, 3)
    options = {"min_per_class": 2, "steps": (), "minutes": minutes, "folder": tmp_path / "cache"}
    with pytest.raises(Unfinished):
        quick(dataset, algorithm_type, **options, **at(f"{stage} network 1 of 2"))
    (file,) = (tmp_path / "cache").glob("training-*/steps.json")
    assert orjson.loads(file.read_bytes())["pace"] >= 1.0


@pytest.mark.parametrize(
    ("algorithm_type", "second"), [("fast", "looking at labeled images"), ("accurate", "training network 1 of 2")]
)
def test_detectors_of_an_earlier_run_are_not_lost_to_another_stop(
    tmp_path: Path, algorithm_type: str, second: str
) -> None:
    dataset, _ = scenes(tmp_path / "few", 6, 3)
    options = {"min_per_class": 2, "steps": (4,), "folder": tmp_path / "cache"}
    quick(dataset, algorithm_type, **options)
    with pytest.raises(Unfinished, match="with 2 of 2 networks") as stopped:
        quick(dataset, algorithm_type, **options, **at(second))
    verdict = stopped.value.verdict
    assert verdict is not None and len(verdict.found["training_digest"]) == 64 and verdict.found["seed"] == 0
    for part, network in enumerate(verdict.detector.networks):
        (path,) = (tmp_path / "cache").glob(f"training-*/{algorithm_type}-{part}.checkpoint")
        kept = torch.load(path)["average"]
        assert all(torch.equal(value, kept[name]) for name, value in network.state_dict().items())


def test_the_unlabeled_images_of_fast_are_not_learned_from(tmp_path: Path) -> None:
    dataset, _ = scenes(tmp_path / "few", 6, 3)
    first = quick(dataset, min_per_class=2)
    scene(tmp_path / "few" / "007.png", 99)
    assert model_digest(quick(dataset, min_per_class=2).detector) == model_digest(first.detector)


# ---- Bad input.


def test_one_label_is_enough(tmp_path: Path) -> None:
    dataset, _ = scenes(tmp_path / "discs", 5, 2, kinds=("disc",), most=1)
    assert quick(dataset).labels == ("disc",)


def test_five_images_with_one_tiny_box_each(tmp_path: Path) -> None:
    folder, samples = tmp_path / "tiny", []
    for number in range(7):
        scene(folder / f"{number}.png", number)
        tiny = [Shape("speck", "bndbox", ((10.0, 10.0), (11.5, 11.2)))]
        samples.append(drawn(f"{number}.png", tiny) if number < 5 else Sample(f"{number}.png"))
    detection = quick(Dataset(tuple(samples), Sources(folder)))
    assert detection.automatic.sum() == 2
    assert any("pixels wide where networks see them" in note for note in detection.notes)


def test_thousands_of_boxes_on_an_image(tmp_path: Path) -> None:
    dataset, _ = scenes(tmp_path / "crowd", 6, 2)
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 60, (3000, 2))
    crowd = [Shape("disc", "bndbox", ((x, y), (x + 6, y + 6))) for x, y in corners.tolist()]
    samples = (drawn("000.png", crowd), *dataset.samples[1:])
    assert quick(dataset.with_samples(samples), min_per_class=2, steps=(3,)).automatic.sum() == 2


def test_images_without_objects_are_learned_from_when_they_are_labeled(tmp_path: Path) -> None:
    dataset, _ = scenes(tmp_path / "some", 6, 2)
    empty = drawn("006.png", [])
    detection = quick(dataset.with_samples((*dataset.samples[:6], empty, *dataset.samples[7:])), min_per_class=2)
    assert detection.sketches.labeled.sum() == 7 and detection.automatic.sum() == 1


def test_what_is_no_rectangle_is_left_alone(tmp_path: Path) -> None:
    dataset, _ = scenes(tmp_path / "mixed", 6, 3)
    ring = Shape("ring", "circle", ((20.0, 20.0), (5.0,)))
    polygon = Label("modelarts/image_segmentation", drawing=Drawing((Shape("x", "polygon", ((0, 0), (9, 0), (9, 9))),)))
    first = replace(dataset[0].labels[0], drawing=Drawing((*dataset[0].boxes, ring), (*SIZE, 3)))
    samples = (
        replace(dataset[0], labels=(first, polygon)),
        *dataset.samples[1:7],
        replace(dataset[7], labels=(polygon, Label(IMAGE_CLASSIFICATION, name="street"))),
        dataset[8],
    )
    detection = quick(dataset.with_samples(samples), min_per_class=2)
    assert "ring" not in detection.labels and "x" not in detection.labels
    after = annotated(samples, detection, time=datetime(2026, 1, 2))
    assert after[0] == samples[0]
    assert after[7].labels[:2] == samples[7].labels and len(after[7].labels) == 3


def test_grey_and_sixteen_bit_images_of_other_sizes(tmp_path: Path) -> None:
    dataset, _ = scenes(tmp_path / "kinds", 6, 4)
    folder = tmp_path / "kinds"
    cv2.imwrite(str(folder / "006.png"), np.full((200, 30), 90, np.uint8))
    cv2.imwrite(str(folder / "007.png"), np.full((33, 150, 3), 9000, np.uint16))
    cv2.imwrite(str(folder / "000.png"), cv2.imread(str(folder / "000.png"), cv2.IMREAD_GRAYSCALE))
    detection = quick(dataset, min_per_class=2)
    assert detection.automatic.sum() == 4
    assert detection.sizes[6].tolist() == [30, 200] and detection.sizes[7].tolist() == [150, 33]


def test_an_image_that_turns_unreadable_between_training_and_labeling(tmp_path: Path) -> None:
    dataset, _ = scenes(tmp_path / "lost", 6, 3)

    def stage(name: str, total: int) -> Any:
        if name == "labeling":
            (tmp_path / "lost" / "007.png").write_bytes(b"no image")
        return lambda done: None

    for algorithm_type in ("fast", "accurate"):
        detection = quick(dataset, algorithm_type, min_per_class=2, stage=stage)
        assert [failure.source for failure in detection.failures] == ["007.png"]
        assert detection.candidates[7] is None and detection.automatic.sum() == 2
        scene(tmp_path / "lost" / "007.png", 7)


def test_files_without_their_images_and_the_reverse(tmp_path: Path) -> None:
    dataset, _ = scenes(tmp_path / "voc" / "JPEGImages", 6, 2)
    engine.write_dataset(dataset, tmp_path / "out", to="voc")
    (tmp_path / "out" / "000.png").unlink(missing_ok=True)
    for path in (tmp_path / "out").rglob("000.png"):
        path.unlink()
    again = read_samples(tmp_path / "out", format="voc")
    assert quick(again, min_per_class=2).sketches.labeled.sum() == 5


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"algorithm_type": "quick"}, "algorithm_type: must be fast or accurate, got 'quick'"),
        ({"minutes": 0}, "minutes: must be above 0, got 0"),
        ({"precision": "half"}, "precision: must be one of"),
        ({"score_threshold": 1.5}, r"score_threshold: must be in \[0, 1\], got 1.5"),
    ],
)
def test_options_out_of_range(tmp_path: Path, options: dict[str, Any], line: str) -> None:
    dataset, _ = scenes(tmp_path / "few", 5, 1, kinds=("disc",))
    with pytest.raises(UsageError, match=line):
        quick(dataset, options.pop("algorithm_type", "fast"), **options)


def test_nothing_to_learn_from_or_nothing_to_label(tmp_path: Path) -> None:
    dataset, _ = scenes(tmp_path / "few", 5, 1, kinds=("disc",))
    with pytest.raises(InputError, match="nothing to label"):
        quick(dataset.with_samples(dataset.samples[:5]))
    with pytest.raises(InputError, match="needs boxes that people drew"):
        quick(dataset.with_samples(dataset.samples[5:]))
    for sample in dataset.samples[:5]:
        dataset.path(sample).write_bytes(b"no image")
    with pytest.raises(InputError, match="labeled images that can be read"):
        quick(dataset)


def test_a_threshold_that_a_person_gives(learned: Learned) -> None:
    dataset, _, _ = learned
    few = dataset.with_samples((*dataset.samples[:8], *dataset.samples[24:27]))
    detection = quick(few, score_threshold=0.0, min_per_class=2)
    assert detection.thresholds == (0.0, 0.0)
    assert all(bool(detection.given(row).all()) for row in np.flatnonzero(detection.automatic).tolist())


def test_what_people_drew_otherwise_is_neither_learned_nor_labeled(tmp_path: Path) -> None:
    dataset, _ = scenes(tmp_path / "mixed", 6, 4)
    polygon = Shape("disc", "polygon", ((0.0, 0.0), (9.0, 0.0), (9.0, 9.0)))
    unread = Sample("007.png", (Label(OBJECT_DETECTION, annotation_loc="gone.xml"),))
    samples = (*dataset.samples[:6], drawn("006.png", [polygon]), unread, *dataset.samples[8:])
    detection = quick(dataset.with_samples(samples), min_per_class=2)
    assert detection.sketches.labeled.sum() == 6
    assert np.flatnonzero(detection.automatic).tolist() == [8, 9]


def test_copies_of_an_image_are_judged_by_the_same_network(tmp_path: Path) -> None:
    dataset, _ = scenes(tmp_path / "twins", 8, 1)
    for number in (5, 6, 7):
        (tmp_path / "twins" / f"00{number}.png").write_bytes((tmp_path / "twins" / "000.png").read_bytes())
    same = [replace(dataset[0], source=f"00{number}.png") for number in (5, 6, 7)]
    detection = quick(dataset.with_samples((*dataset.samples[:5], *same, dataset[8])), min_per_class=2, networks=4)
    assert len({int(detection.judges[row]) for row in (0, 5, 6, 7)}) == 1


def test_copies_of_one_image_are_not_enough(tmp_path: Path) -> None:
    shapes = scene(tmp_path / "0.png", 1, most=2)
    scene(tmp_path / "9.png", 2)
    samples = [drawn("0.png", shapes), Sample("9.png")]
    for number in range(1, 5):
        (tmp_path / f"{number}.png").write_bytes((tmp_path / "0.png").read_bytes())
        samples.append(drawn(f"{number}.png", shapes))
    with pytest.raises(InputError, match=r"2 different labeled images at least, .* got the same file 5 times"):
        quick(Dataset(tuple(samples), Sources(tmp_path)))


def test_more_networks_than_parts_and_nothing_unlabeled_that_can_be_read(tmp_path: Path) -> None:
    dataset, _ = scenes(tmp_path, 5, 2, kinds=("disc",))
    content = (tmp_path / "005.png").read_bytes()
    for name in ("005.png", "006.png"):  # a sound header, and nothing behind it
        (tmp_path / name).write_bytes(content[:60])
    found = quick(dataset, "accurate", networks=6, steps=(2,))
    assert {failure.source for failure in found.failures} == {"005.png", "006.png"} and not found.automatic.any()


def test_unlabeled_images_that_are_none_are_not_trained_for(tmp_path: Path) -> None:
    dataset, _ = scenes(tmp_path, 5, 2)
    for name in ("005.png", "006.png"):
        (tmp_path / name).write_bytes(b"hello")
    with pytest.raises(InputError, match="at least 1 unlabeled image that can be read, got none"):
        quick(dataset)


def test_another_time_is_another_training(tmp_path: Path) -> None:
    dataset, _ = scenes(tmp_path / "few", 5, 1, kinds=("disc",))
    for minutes in (0.01, 0.02):
        quick(dataset, steps=(), minutes=minutes, networks=1, folder=tmp_path / "work")
    assert len(list((tmp_path / "work").glob("training-*"))) == 2


@pytest.mark.parametrize("image_size", [8, 32, 64])
def test_images_may_be_seen_very_small(tmp_path: Path, image_size: int) -> None:
    dataset, _ = scenes(tmp_path / "small", 6, 1)
    assert quick(dataset, min_per_class=2, image_size=image_size, steps=(2,), networks=1).automatic.sum() == 1


def test_nothing_is_trained_where_no_unlabeled_image_is_there(tmp_path: Path) -> None:
    dataset, _ = scenes(tmp_path / "gone", 6, 2)
    for number in (6, 7):
        (tmp_path / "gone" / f"00{number}.png").unlink()
    with pytest.raises(InputError, match="nothing to label"):
        quick(dataset, min_per_class=2)


def test_what_is_expected_holds_for_the_threshold_that_a_person_gives(learned: Learned) -> None:
    dataset, _, _ = learned
    few = dataset.with_samples((*dataset.samples[:8], dataset[24]))
    detection = quick(few, score_threshold=0.0, min_per_class=2)
    assert {each["threshold"] for each in detection.choices["cv_classes"]} == {0.0}
    assert detection.choices["cv_precision"] < 0.5  # everything is given


# ---- The model.


def test_a_detector_is_kept_and_loaded_to_the_bit(learned: Learned, tmp_path: Path) -> None:
    dataset, _, detection = learned
    with OutFolder(tmp_path / "out", overwrite=False, inputs=tuple) as out:
        created = datetime(2026, 1, 2)
        save_model(out, detection.detector, metrics={"cv_map50": 0.5}, training_digest="d", created=created)
    folder = tmp_path / "out" / "model"
    info = read_model_info(folder)
    assert (info.type, info.labels, info.networks) == ("object_detection", ("disc", "square"), 2)
    assert info.id == model_digest(detection.detector)
    loaded = load_detector(folder)
    sources = dataset.sources
    rows = list(range(24, 40))
    arguments: dict[str, Any] = {"threads": 1, "device": torch.device("cpu")}
    for (row, one), (_, other) in zip(
        found_boxes(dataset, sources, rows, detection.detector, **arguments),
        found_boxes(dataset, sources, rows, loaded, **arguments),
        strict=True,
    ):
        assert not isinstance(one, Failure) and not isinstance(other, Failure)
        kept = detection.candidates[row]
        assert kept is not None
        assert torch.equal(one.boxes.xyxy, other.boxes.xyxy)
        assert torch.equal(one.boxes.scores, kept.scores)
    with pytest.raises(InputError, match="must be a model of image_classification, got one of object_detection"):
        load_model(folder)
    assert main(["models", "show", str(folder)]) == 0


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("thresholds", [0.5], "thresholds: must have 2 numbers, got 1"),
        ("width", 97, "width: must be a multiple of 4"),
        ("labels", ["disc", "disc"], "labels: must be different"),
        ("type", "image_segmentation", "type"),
    ],
)
def test_a_model_that_was_altered_is_refused(
    learned: Learned, tmp_path: Path, key: str, value: object, line: str
) -> None:
    with OutFolder(tmp_path / "out", overwrite=False, inputs=tuple) as out:
        save_model(out, learned[2].detector, metrics={}, training_digest="", created=datetime(2026, 1, 2))
    place = tmp_path / "out" / "model" / "model.json"
    place.write_bytes(orjson.dumps({**orjson.loads(place.read_bytes()), key: value}))
    with pytest.raises(InputError, match=line):
        load_detector(place.parent)


def test_a_detector_is_a_predictor(learned: Learned) -> None:
    dataset, _, detection = learned
    pixels = cv2.imread(str(dataset.path(dataset[30])), cv2.IMREAD_COLOR_RGB)
    images = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    (boxes,) = detection.detector.predict(images).boxes or ()
    kept = detection.candidates[30]
    assert kept is not None
    given = detection.given(30)
    assert torch.allclose(boxes.xyxy, kept.xyxy[given], atol=0.5) and len(boxes.xyxy) == int(given.sum())
    with pytest.raises(InputError, match="images: must be"):
        detection.detector.predict(images[0])


# ---- Hard examples.


@pytest.mark.parametrize("operator", sorted(PLACES))
def test_places_on_an_altered_image_are_mapped_back(operator: str) -> None:
    width, height = 96, 64
    image = torch.zeros(1, 3, height, width)
    image[:, :, 24:34, 40:56] = 1
    bright = (OPERATORS[operator](image)[0, 0] > 0.5).nonzero()
    y1, x1 = bright.amin(dim=0).tolist()
    y2, x2 = (bright.amax(dim=0) + 1).tolist()
    (back,) = mapped_back(torch.tensor([[x1, y1, x2, y2]]).float(), operator, width, height)
    slanted = 3.0 if operator == "shear" else 1.5
    assert back.tolist() == pytest.approx([40, 24, 56, 34], abs=slanted)
    assert still_there(torch.tensor([[40.0, 24, 56, 34]]), operator, width, height).all()


@pytest.mark.parametrize("operator", sorted(PLACES))
def test_what_is_shown_mirrored_beyond_the_image_is_not_found_on_it(operator: str) -> None:
    xs, ys = torch.meshgrid(torch.arange(0.0, 96, 8), torch.arange(0.0, 64, 8), indexing="ij")
    boxes = torch.stack([xs, ys, xs + 8, ys + 8], dim=-1).reshape(-1, 4)
    numbers = torch.arange(len(boxes))
    back, classes, sure = back_on(boxes, numbers, numbers / 100, operator, 96, 64)
    middles = (back[:, :2] + back[:, 2:]) / 2
    assert bool(((middles >= 0) & (middles <= torch.tensor([96, 64]))).all())
    assert torch.equal(back, mapped_back(boxes, operator, 96, 64)[classes]) and torch.equal(sure, classes / 100)
    assert (len(back) == len(boxes)) == (operator in ("fliplr", "flipud", "crop"))


def test_what_lies_outside_an_altered_image_is_not_asked_about() -> None:
    edge = torch.tensor([[0.0, 0, 8, 8], [40, 24, 56, 34]])
    assert still_there(edge, "crop", 96, 64).tolist() == [False, True]
    assert still_there(edge, "fliplr", 96, 64).tolist() == [True, True]
    assert still_there(edge, "invert", 96, 64).tolist() == [True, True]


def test_changes_by_hand() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]])
    found = torch.tensor([[0.0, 0, 10, 5], [20, 0, 30, 10], [40, 0, 50, 10], [70, 0, 80, 10]])
    change, unseen = changes(
        boxes,
        torch.tensor([0, 0, 0]),
        torch.tensor([0.8, 0.8, torch.nan]),
        found,
        torch.tensor([0, 0, 1, 0]),
        torch.tensor([0.9, 0.4, 0.9, 0.7]),
    )
    # Half as high; half as sure; another name; and one where there is no box.
    assert change.tolist() == pytest.approx([0.5, 0.5, 1.0])
    assert unseen == pytest.approx(0.7)
    assert as_sure(
        boxes,
        torch.tensor([0, 0, 0]),
        torch.tensor([0.8, 0.8, 0.7]),
        found,
        torch.tensor([0, 0, 1, 0]),
        torch.tensor([0.9, 0.4, 0.9, 0.7]),
    ).tolist() == pytest.approx([0.9, 0.4, 0.7])
    nothing = torch.zeros(0)
    assert changes(boxes, torch.zeros(3), nothing, torch.zeros(0, 4), nothing, nothing)[0].tolist() == [1, 1, 1]


@pytest.mark.slow
def test_boxes_that_are_wrong_are_harder(learned: Learned, tmp_path: Path) -> None:
    dataset, _, detection = learned
    samples = annotated(dataset.samples, detection, time=datetime(2026, 1, 2))
    found, vectors = hard_detections(
        samples, detection, sources=dataset.sources, folder=tmp_path / "cache", threads=1, seed=3
    )
    assert found.combiner == "calibrated" and len(found) == len(dataset)
    assert len(found.labels) == sum(int(detection.given(row).sum()) for row in np.flatnonzero(detection.automatic))
    assert ((found.coefficients >= 0) & (found.coefficients <= 1)).all()
    reasons = {number for each in found.labels.reasons for number in each}
    assert reasons <= set(REASONS)
    assert {0, 1, 2, 3, 11, 12, 13, 20, 30} <= set(found.scores)
    assert bool(vectors[found.coefficients > 0].isfinite().all())
    again, _ = hard_detections(
        samples, detection, sources=dataset.sources, folder=tmp_path / "cache", threads=1, seed=3
    )
    assert (again.coefficients == found.coefficients).all() and again.labels.reasons == found.labels.reasons


@pytest.mark.slow
@pytest.mark.parametrize("unseen", [False, True])
def test_boxes_of_a_model_that_was_here_before_are_judged_by_what_people_drew(
    learned: Learned, tmp_path: Path, unseen: bool
) -> None:
    """A box of a strange shape has reasons, whether or not labeled images tell how far the model can be trusted."""
    dataset, _, detection = learned
    told = pre_detect(dataset, detection.detector, unseen=unseen, threads=1)
    row = next(row for row in np.flatnonzero(told.automatic).tolist() if told.given(row).any())
    boxes, thresholds = told.candidates[row], told.thresholds
    candidates = list(told.candidates)
    thin = torch.tensor([[1.0, 1.0, 61.0, 3.0]])
    candidates[row] = Boxes(
        torch.cat([thin, boxes.xyxy.float()]),
        torch.cat([torch.tensor([max(thresholds)]), boxes.scores.float()]),
        torch.cat([boxes.classes[:1], boxes.classes]),
    )
    told = replace(told, candidates=tuple(candidates))
    samples = annotated(dataset.samples, told, time=datetime(2026, 1, 2))
    found, _ = hard_detections(samples, told, sources=dataset.sources, folder=tmp_path / "cache", threads=1)
    assert max(found.scores[number][row] for number in range(13, 19)) > 0.9
    usual = [each for each in np.flatnonzero(told.automatic).tolist() if each != row]
    assert np.nanmedian([found.scores[11][each] for each in usual]) < 0.95  # counts are held against people's
    assert all(np.isfinite(found.scores[number][row]) for number in (2, 3, 30))


# ---- The task.


def request(**options: object) -> Any:
    told = {"steps": "6", "networks": 2, "precision": "float32", "batch_size": 4, "min_per_class": 2, **options}
    entries = [{"label": name, "value": value} for name, value in told.items()]
    config = {"algorithm_type": "fast", "parameters": entries, "key_sample_output": "doubtful"}
    return parse_request({"task_type": "auto-label", "collect_key_sample": True, "config": config})


def test_out_holds_boxes_with_confidences_and_marks(tmp_path: Path) -> None:
    dataset, _ = scenes(tmp_path / "few", 8, 4)
    out = tmp_path / "out"
    answer = run_request(request(score_threshold=0.0, algo_hard_threshold=0.0), dataset, out)
    assert answer["status"] == Status.SUCCEEDED and answer["config"]["collect_key_sample"] is True
    result = answer["result"]
    assert (result["annotated_sample_count"], result["dataset_type"]) == (4, 1)
    written = read_samples(out)
    assert not written.failures
    automatic = [sample for sample in written if sample.state == "AUTO_ANNOTATION"]
    assert len(automatic) == 4
    boxes = [shape for sample in automatic for shape in sample.boxes]
    assert boxes and all(shape.confidence is not None and shape.hard_coefficient is not None for shape in boxes)
    assert all(shape.hard_reasons for shape in boxes)
    assert all(sample.hard and sample.hard_coefficient is not None for sample in automatic)
    written_files = {label.annotation_loc for sample in automatic for label in sample.labels if sample.boxes}
    for name in written_files:
        xml = (out / str(name)).read_text()
        assert "<confidence>" in xml and "<hard-coefficient>" in xml
    assert (out / "boxes.csv").read_text().count("\n") == len(boxes) + 1
    assert result["key_sample_count"] == 4 and len(list((out / "doubtful").glob("*.png"))) == 4
    copies = read_samples(out / "doubtful" / "key_samples.manifest")
    assert not copies.failures and len(copies) == 4
    assert sorted(map(len, (sample.boxes for sample in copies))) == sorted(len(sample.boxes) for sample in automatic)
    page = (out / "report.html").read_text()
    assert "Review first" in page and "mAP50 expected" in page
    assert '<code class="command">labelengine confirm OUT --below 0.1 --by NAME</code>' in page
    assert re.search(r'<span class="caption">[^<]* · (?:\d+/\d+|no box)(?: · [\d-]+)?</span>', page)
    assert read_model_info(out / "model").type == "object_detection"


def test_confirmed_boxes_are_a_persons(tmp_path: Path) -> None:
    dataset, _ = scenes(tmp_path / "few", 8, 4)
    out = tmp_path / "out"
    run_request(request(), dataset, out)
    done = confirm(out, all=True, by="anna")
    assert (done.confirmed, done.waiting) == (4, 0)
    again = read_samples(out)
    assert sketches_of(again.samples).labeled.all()


def test_confirmed_boxes_lose_what_only_a_machine_says(tmp_path: Path) -> None:
    dataset, _ = scenes(tmp_path / "few", 8, 4)
    street = Label(IMAGE_CLASSIFICATION, name="street")  # every image has a label of a person, too
    dataset = dataset.with_samples(replace(sample, labels=(*sample.labels, street)) for sample in dataset)
    out = tmp_path / "out"
    run_request(request(label_type=1, score_threshold=0.0), dataset, out)
    assert any(shape.confidence is not None for sample in read_samples(out) for shape in sample.boxes)
    assert confirm(out, all=True, by="anna").confirmed == 4
    shapes = [shape for sample in read_samples(out) for shape in sample.boxes]
    assert shapes and all(shape.confidence is None and not shape.hard_reasons for shape in shapes)


def test_an_image_that_is_gone_since_the_last_run_keeps_its_boxes(tmp_path: Path) -> None:
    dataset, _ = scenes(tmp_path / "few", 8, 4)
    run_request(request(score_threshold=0.0), dataset, tmp_path / "out")
    (tmp_path / "few" / "009.png").unlink()
    answer = run_request(request(score_threshold=0.0), read_samples(tmp_path / "out"), tmp_path / "again")
    assert answer["status"] == Status.SUCCEEDED and [each["kind"] for each in answer["failures"]] == ["missing"]
    before, after = read_samples(tmp_path / "out"), read_samples(tmp_path / "again")
    assert [len(each[9].boxes) for each in (before, after)] == [len(before[9].boxes)] * 2


def test_a_task_that_was_stopped_goes_on(tmp_path: Path) -> None:
    dataset, _ = scenes(tmp_path / "few", 8, 4)
    out, stop = tmp_path / "out", Event()

    class Teller:
        def stage(self, name: str, total: int) -> None:
            if name == "labeling":
                stop.set()

        def advance(self, done: int) -> None: ...
        def note(self, line: str) -> None: ...

    with pytest.raises(Stopped, match="--resume goes on"):
        run_request(request(), dataset, out, reporter=Teller(), stop=stop)
    assert len(read_model_info(out / "model").training_digest) == 64
    with pytest.raises(Stopped, match="--resume goes on"):  # at once
        run_request(request(), dataset, out, resume=True, stop=stop)
    assert len(read_model_info(out / "model").training_digest) == 64
    run_request(request(), dataset, out, resume=True)
    run_request(request(), dataset, tmp_path / "whole")
    for name in ("boxes.csv", "model/weights.safetensors"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_the_command_line_reads_the_label_type_from_the_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset, _ = scenes(tmp_path / "few", 8, 2)
    engine.write_dataset(dataset, tmp_path / "voc", to="voc")
    command = ["label", str(tmp_path / "voc"), "--out", str(tmp_path / "out"), "--algorithm-type", "fast"]
    options = ["--steps", "4", "--networks", "1", "--min-per-class", "2", "--precision", "float32"]
    assert main([*command, *options]) == 0
    assert "2 of 10 images have boxes labeled by fast" in capsys.readouterr().out
    assert main([*command, *options, "--label-type", "0", "--overwrite"]) != 0  # there are no labels of images


def truth_of(dataset: Dataset, truth: list[list[Shape]]) -> Dataset:
    return dataset.with_samples(drawn(sample.source, shapes) for sample, shapes in zip(dataset, truth, strict=True))


def say_the_truth(out: Path, truth: list[list[Shape]]) -> None:
    """Make the candidates those that a perfect detector finds on the last four images of twelve."""
    said = read_candidates(out / "candidates.npz")
    column = {name: at for at, name in enumerate(said.labels)}
    perfect = [
        (shape.xyxy, column[shape.name], 0.9 if row >= 8 else 0.5)
        for row, shapes in enumerate(truth)
        for shape in shapes
    ]
    write_candidates(
        out / "candidates.npz",
        replace(
            said,
            counts=np.array(list(map(len, truth))),
            xyxy=np.array([each[0] for each in perfect], np.float32),
            classes=np.array([each[1] for each in perfect]),
            scores=np.array([each[2] for each in perfect], np.float32),
            thresholds=np.array([0.8, 0.8]),
        ),
    )


def test_boxes_are_held_against_the_truth(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset, truth = scenes(tmp_path / "few", 8, 4)
    out = tmp_path / "out"
    run_request(request(), dataset, out)
    answer = evaluate_boxes(out, truth_of(dataset, truth))
    assert (answer["evaluated_sample_count"], answer["labeled_before_count"]) == (4, 8)
    assert [each["support"] for each in answer["classes"]] == [
        sum(shape.name == name for shapes in truth[8:] for shape in shapes) for name in ("disc", "square")
    ]
    assert answer["right_count"] + answer["missed_count"] == sum(map(len, truth[8:]))
    say_the_truth(out, truth)
    engine.write_dataset(truth_of(dataset, truth), tmp_path / "voc", to="voc")
    assert main(["evaluate", str(out), "--truth", str(tmp_path / "voc")]) == 0
    told = capsys.readouterr().out
    assert "4 of 12 images compared" in told and "mAP50 1.0000" in told and "0 objects have none" in told
    with pytest.raises(InputError, match="must have boxes that people drew on images that"):
        evaluate_boxes(out, dataset.with_samples(dataset.samples[:8]))


def test_the_truth_may_state_another_size(tmp_path: Path) -> None:
    dataset, truth = scenes(tmp_path / "few", 8, 4)
    out = tmp_path / "out"
    run_request(request(), dataset, out)
    twice = [
        [replace(shape, points=tuple((2 * x, 2 * y) for x, y in shape.points)) for shape in shapes] for shapes in truth
    ]
    larger = dataset.with_samples(
        drawn(sample.source, shapes, size=(2 * SIZE[0], 2 * SIZE[1], 3))
        for sample, shapes in zip(dataset, twice, strict=True)
    )
    assert evaluate_boxes(out, larger) == evaluate_boxes(out, truth_of(dataset, truth))


def test_the_truth_may_hold_the_larger_originals(tmp_path: Path) -> None:
    """What was labeled are copies of half the size; of one the original is cut: its boxes mean nothing here."""
    dataset, truth = scenes(tmp_path / "few", 8, 4)
    out, folder = tmp_path / "out", tmp_path / "originals"
    run_request(request(), dataset, out)
    say_the_truth(out, truth)
    folder.mkdir()
    told = []
    for sample, shapes in zip(dataset, truth, strict=True):
        pixels = np.zeros((SIZE[1] if sample.source == "008.png" else 2 * SIZE[1], 2 * SIZE[0], 3), np.uint8)
        cv2.imwrite(str(folder / sample.source), pixels)
        twice = [replace(shape, points=tuple((2 * x, 2 * y) for x, y in shape.points)) for shape in shapes]
        told += [Sample(sample.source), drawn(sample.source, twice, size=None)]  # an image may be listed twice
    answer = evaluate_boxes(out, Dataset(tuple(told), Sources(folder), name="originals"))
    assert answer["evaluated_sample_count"] == 3 and answer["map50_95"] == 1.0
    (note,) = answer["notices"]
    assert note.startswith("1 images are not scored: in originals they cannot be read, have another shape")


def test_candidates_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "candidates.npz"
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match="must hold the arrays of auto labeling"):
        read_candidates(path)
    good = Candidates(
        ("a", "b"),
        ("cat",),
        np.array([0.5]),
        np.zeros(2, bool),
        np.ones(2, bool),
        np.array([-1, -1]),
        np.array([0, 1]),
        np.zeros((1, 4), np.float32),
        np.array([0]),
        np.array([0.7], np.float32),
    )
    write_candidates(path, good)
    assert read_candidates(path).slices() == [slice(0, 0), slice(0, 1)]
    write_candidates(path, replace(good, counts=np.array([1, 1])))
    with pytest.raises(InputError, match="counts must add up to 1 boxes of 1 labels, got 2"):
        read_candidates(path)


def test_images_with_doubtful_boxes_are_suggested_next(tmp_path: Path) -> None:
    dataset, _ = scenes(tmp_path / "few", 8, 6)
    out = tmp_path / "out"
    run_request(request(), dataset, out)
    answer = run(suggest_task(read_samples(out), count=2), tmp_path / "next")
    assert answer["result"]["suggested_sample_count"] == 2 and not answer["result"]["cold_start"]
    assert any("hard coefficients of the earlier run, for 6 images" in line for line in answer["notices"])
    cold = run(suggest_task(dataset, count=2), tmp_path / "cold")
    assert cold["result"]["cold_start"]


def test_hard_boxes_of_a_result_are_looked_for_again_by_its_model(tmp_path: Path) -> None:
    dataset, _ = scenes(tmp_path / "few", 8, 6)
    out = tmp_path / "out"
    run_request(request(score_threshold=0.0), dataset, out)
    confirmed = tmp_path / "seen.txt"
    confirmed.write_text("009.png\n")
    assert confirm(out, samples=confirmed, by="anna").confirmed == 1
    answer = run(hard_task(read_samples(out), Parameters()), tmp_path / "hard")
    assert any("its candidates and its model are used" in line for line in answer["notices"])
    assert answer["result"]["judged_sample_count"] == 5
    assert answer["result"]["hard_examples"]["boxes"]["judged_out_of_fold"] > 0
    marked_again = read_samples(tmp_path / "hard")
    for before, after in zip(read_samples(out), marked_again, strict=True):
        assert [shape.xyxy for shape in after.boxes] == [shape.xyxy for shape in before.boxes]
        assert after.hard_coefficient is not None or after.state == "ALL"


def test_boxes_that_were_changed_by_hand_are_left_as_they_are(tmp_path: Path) -> None:
    dataset, _ = scenes(tmp_path / "few", 8, 4)
    out = tmp_path / "out"
    run_request(request(score_threshold=0.0), dataset, out)
    sample = read_samples(out)[9]
    drawing, loc = sample.labels[0].drawing, sample.labels[0].annotation_loc
    assert drawing is not None and len(drawing.shapes) > 1 and loc is not None
    write_voc(out / loc, replace(drawing, shapes=drawing.shapes[::-1]))
    answer = run(hard_task(read_samples(out), Parameters()), tmp_path / "hard")
    told = "1 images have other automatic boxes than the model drew, and are left as they are; confirm them first"
    assert told in answer["notices"]
    assert answer["result"]["judged_sample_count"] == 3


# ---- Wrong boxes among people's.


def told_by(truth: list[list[Shape]], drawn_by_people: list[list[Shape]], *, sure: float = 0.9) -> Detection:
    """What a perfect detector would say of images on which people drew these."""
    samples = [drawn(f"{row}.png", shapes) for row, shapes in enumerate(drawn_by_people)]
    sizes = np.tile(np.array(SIZE), (len(samples), 1))
    sketches = fitted(sketches_of(samples), samples, sizes).sketches
    column = {name: at for at, name in enumerate(sketches.labels)}
    candidates = tuple(
        Boxes(
            torch.tensor([shape.xyxy for shape in shapes]).reshape(-1, 4).float(),
            torch.full((len(shapes),), sure),
            torch.tensor([column[shape.name] for shape in shapes], dtype=torch.int64),
        )
        for shapes in truth
    )
    judges = np.zeros(len(samples), np.int64)
    nobody: Any = None
    return Detection("fast", sketches, candidates, judges, (0.5, 0.5), sizes, nobody, {}, (), ())


def test_planted_errors_are_the_hardest() -> None:
    rng = np.random.default_rng(0)

    def at(kind: str, x: float, y: float) -> Shape:
        return Shape(kind, "bndbox", ((x, y), (x + 16, y + 16)))

    kinds = ("disc", "square")
    truth = [
        [at(kinds[int(rng.integers(2))], *rng.uniform((0, 0), (26, 50))), at(kinds[row % 2], 60.0, 30.0)]
        for row in range(30)
    ]
    people = [list(shapes) for shapes in truth]
    people[3] = people[3][:1]  # dropped
    people[7] = [*people[7], at("disc", 60.0, 2.0)]  # added
    x, y = people[11][1].points[0]
    people[11][1] = at(people[11][1].name, x + 7, y + 5)  # shifted
    people[19][1] = replace(people[19][1], name=kinds[(19 + 1) % 2])  # another name
    people[23] = [*people[23], at("square", 200.0, 2.0)]  # outside the image
    found = box_label_errors(told_by(truth, people))
    assert set(found.order[:5].tolist()) == {3, 7, 11, 19, 23}
    assert 0 in found.reasons[3] or not found.hard[3]
    assert found.meaning(0) == "an object seems to have no box"  # people's boxes have no confidence, and no clusters
    doubted = np.argsort(-found.labels.coefficients)[:4]
    assert sorted(found.labels.rows[doubted].tolist()) == [7, 11, 19, 23]
    assert len(found.labels) == sum(map(len, people))
    samples = [drawn(f"{row}.png", shapes) for row, shapes in enumerate(people)]
    marked_samples = marked_boxes(samples, found, range(len(samples)), of_people=True)
    assert [len(sample.boxes) for sample in marked_samples] == list(map(len, people))
    assert marked_samples[23].boxes[2].hard_coefficient == 1.0
    assert marked_samples[23].boxes[2].hard_reasons == (1,)


def test_nothing_is_said_where_nothing_was_drawn() -> None:
    empty: list[list[Shape]] = [[], [], []]
    found = box_label_errors(told_by(empty, empty))
    assert not found.coefficients.any() and not len(found.labels)


def test_people_s_boxes_are_looked_at_by_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset, _ = scenes(tmp_path / "few", 10, 0)
    engine.write_dataset(dataset, tmp_path / "voc", to="voc")
    out = tmp_path / "out"
    command = ["hard", str(tmp_path / "voc"), "--labeled", "--out", str(out), "--steps", "3", "--min-per-class", "2"]
    assert main([*command, "--algo-hard-threshold", "0"]) == 0
    assert "10 of 10 samples in question are hard examples" in capsys.readouterr().out
    table = (out / "hard.csv").read_text()
    assert "confidence" not in table.partition("\n")[2] and re.search(
        "a box seems to lie|an object seems to have", table
    )
    again = read_samples(out)
    assert all(shape.hard_coefficient is not None for sample in again for shape in sample.boxes)
    assert sketches_of(again.samples).labeled.all()


def test_boxes_are_drawn_where_they_are_on_pictures_that_were_decoded_smaller(tmp_path: Path) -> None:
    pixels = np.full((480, 640, 3), 90, np.uint8)
    cv2.imwrite(str(tmp_path / "large.jpg"), pixels)
    box = replace(Shape("disc", "bndbox", ((320.0, 240.0), (640.0, 480.0))), hard_reasons=(1,))
    dataset = Dataset((drawn("large.jpg", [box], size=(640, 480, 3)),), Sources(tmp_path))
    (tile,) = tiles_of(dataset, [0], [""], 1, lambda done: None, draw=with_boxes(dataset))
    assert tile.image is not None
    shown = cv2.imdecode(np.frombuffer(tile.image, np.uint8), cv2.IMREAD_COLOR_RGB).astype(int)
    red = np.argwhere(shown[..., 0] - shown[..., 1] > 60)
    height, width = shown.shape[:2]
    assert red.min(axis=0) / (height, width) == pytest.approx([0.5, 0.5], abs=0.03)


@pytest.mark.parametrize(("steps", "fast", "accurate"), [(90, 1, 1), (1_300, 2, 1), (2_100, 3, 2), (90_000, 3, 3)])
def test_as_many_networks_as_there_is_time_for(tmp_path: Path, steps: float, fast: int, accurate: int) -> None:
    assert members_for("fast", lambda members: steps, tmp_path / "fast") == fast
    assert members_for("accurate", lambda members: steps, tmp_path / "accurate") == accurate
    for later in (lambda members: 1.0, None):  # a run that goes on decides the same
        assert members_for("fast", later, tmp_path / "fast") == fast
    assert members_for("fast", None, tmp_path / "other") == 3  # nobody knows how long a step takes


def test_networks_have_to_find_the_time_to_label(tmp_path: Path) -> None:
    assert members_for("fast", lambda members: 1_900 - 50 * members, tmp_path / "few") == 2
    assert members_for("fast", lambda members: 1_900 - 500 * members, tmp_path / "many") == 1


def test_time_to_look_at_all_images_is_added_to_what_is_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, _ = scenes(tmp_path, 10, 2)
    usual = quick(dataset).choices["minutes"]
    monkeypatch.setattr("engine.detect.detecting._labeling_seconds", lambda *given: 300.0 * given[-1])
    notes: list[str] = []
    assert quick(dataset, note=notes.append).choices["minutes"] == pytest.approx(usual + 10)  # by two networks
    timed = {"steps": (), "minutes": 0.02, "networks": 1}
    assert quick(dataset, note=notes.append, **timed).choices["minutes"] == 0.02
    assert len(notes) == 3 and "5.0 minutes more" in notes[-1]


def test_time_that_is_chosen_is_for_as_many_networks_as_are_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, _ = scenes(tmp_path, 10, 2)
    usual = quick(dataset).choices["minutes"]
    monkeypatch.setattr("engine.detect.detecting._labeling_seconds", lambda *given: 600.0 * given[-1])
    monkeypatch.setattr("engine.detect.detecting._WORTH", {"fast": 10**9})
    found = quick(dataset, networks=None, precision="auto")  # the steps are given, and how long they take is known
    assert len(found.detector.networks) == 1 and found.choices["minutes"] == pytest.approx(usual + 10)


def test_unlabeled_images_are_looked_at_only_where_somebody_wants_them(tmp_path: Path) -> None:
    dataset, _ = scenes(tmp_path, 10, 2)
    notes: list[str] = []
    found = quick(dataset, rest=False, note=notes.append)
    assert found.candidates[10:] == (None, None) and not found.automatic.any()
    assert sum(each is not None for each in found.candidates) > 0
    assert notes[0].startswith("fast: 2 labels, 10 labeled images")


def test_a_name_that_no_file_can_have_is_a_failure(tmp_path: Path) -> None:
    dataset, _ = scenes(tmp_path, 10, 2)
    long = f"{'a' * 300}.png"
    found = quick(dataset.with_samples([*dataset.samples, Sample(long)]))
    assert [failure.source for failure in found.failures] == [long] and found.automatic[10:].tolist() == [1, 1, 0]


def test_what_was_converted_is_told_of_unlabeled_images_too(tmp_path: Path) -> None:
    dataset, _ = scenes(tmp_path, 10, 2)
    wide = np.full((SIZE[1], SIZE[0]), 30_000, np.uint16)
    cv2.imwrite(str(tmp_path / "011.png"), wide)
    cv2.imwrite(str(tmp_path / "000.png"), wide)
    found = quick(dataset)
    assert found.notes[-1] == "2 images: more than 8 bits a channel scaled to 8"
    told = pre_detect(dataset, found.detector, threads=1)
    assert told.notes[-1] == found.notes[-1]
    assert quick(dataset, "accurate").notes[-1] == found.notes[-1]


def test_a_run_that_goes_on_has_as_many_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the steps are given, and the precision, once chosen, is not timed again."""
    dataset, _ = scenes(tmp_path / "few", 10, 2)
    monkeypatch.setattr("engine.detect.detecting._WORTH", {"fast": 10**9})
    options = {"precision": "auto", "networks": None, "folder": tmp_path / "cache"}
    first, again = (quick(dataset, **options).detector for _ in range(2))
    assert len(first.networks) == len(again.networks) == 1


@pytest.mark.slow
def test_boxes_are_held_against_people_s_by_one_network_too(tmp_path: Path) -> None:
    """It has learned from most labeled images, and judges the few others."""
    dataset, _ = scenes(tmp_path / "few", 20, 4)
    detection = quick(dataset, networks=1, steps=(40,), score_threshold=0.0)
    samples = annotated(dataset.samples, detection, time=datetime(2026, 1, 2))
    found, _ = hard_detections(samples, detection, sources=dataset.sources, folder=tmp_path / "cache", threads=1)
    assert detection.automatic[20:].all()
    assert all(np.isfinite(found.scores[number][20:]).all() for number in (2, 3, 30))


@pytest.mark.slow
def test_a_threshold_of_0_gives_whatever_a_detector_says(learned: Learned) -> None:
    dataset, _, detection = learned
    usual, everything = (
        sum(len(boxes.scores) for boxes in told.candidates if boxes is not None)
        for told in (pre_detect(dataset, detection.detector, score_threshold=at, threads=1) for at in (None, 0.0))
    )
    assert everything > usual


def test_a_short_budget_trains_one_network_to_its_end(tmp_path: Path) -> None:
    dataset, _ = scenes(tmp_path, 12, 4)
    found = auto_detect(dataset, "fast", minutes=0.05, precision="float32")
    assert found.choices["networks"] == 1 and "+" not in found.choices["steps"]
    again = auto_detect(dataset, "fast", steps=(int(found.choices["steps"]),), networks=1, precision="float32")
    for one, two in zip(found.candidates, again.candidates, strict=True):
        assert (one is None) == (two is None)
        assert one is None or two is None or torch.equal(one.xyxy, two.xyxy)


# ---- A trunk that was trained. ----


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file as torchvision publishes them, of a resnet18 that knows nothing."""
    from torchvision import models

    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.save(models.resnet18(weights=None).state_dict(), path)
    return path


def test_a_trunk_is_that_of_the_file_and_its_first_parts_stay(resnet: Path) -> None:
    trunk = read_trunk("resnet18", resnet)
    spec = DetectorSpec(widths_of("resnet18"), 16, 2, 8.0, "resnet18")
    net = initialised_detector(spec, trunk, generator_of("test"))
    images = torch.rand(2, 3, 64, 96, generator=generator_of("images"))
    given = torch.load(resnet, weights_only=True)
    with torch.no_grad():
        stages = net.eval().trunk(images)
    assert [tuple(each.shape[1:]) for each in stages] == [(64, 16, 24), (128, 8, 12), (256, 4, 6), (512, 2, 3)]
    from torchvision import models

    theirs = models.resnet18(weights=None)
    theirs.load_state_dict(given)
    x = (images - torch.tensor(IMAGENET_MEAN).view(3, 1, 1)) / torch.tensor(IMAGENET_STD).view(3, 1, 1)
    with torch.no_grad():
        expected = torch.nn.Sequential(*list(theirs.eval().children())[:-2])(x)
    assert torch.allclose(stages[3], expected, atol=1e-3, rtol=1e-3)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    training = Training(net, 2, Recipe(learning_rate=0.2, gently={"trunk.": 0.1}), False)
    net.train()
    maps = net(images)
    worth = training.slope(maps.centers.square().mean() + maps.edges.mean() + maps.fits.mean())
    training.take(float(worth), training.descend)
    moved = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
    assert not any(name.startswith(("trunk.net.conv1", "trunk.net.bn1", "trunk.net.layer1")) for name in moved)
    assert {"trunk.net.layer4.0.conv1.weight", "trunk.net.layer2.0.bn1.running_mean", "center.weight"} <= moved

    def turned(name: str) -> float:
        """How far a bank of filters has turned."""
        return float(1 - F.cosine_similarity(net.state_dict()[name].flatten(), before[name].flatten(), dim=0))

    assert turned("trunk.net.layer4.1.conv2.weight") < 0.1 * turned("smooth.0.filters.weight")


def test_a_trunk_in_half_precision(resnet: Path, tmp_path: Path) -> None:
    state = torch.load(resnet, weights_only=True)
    halved = {key: each.bfloat16() if each.is_floating_point() else each for key, each in state.items()}
    torch.save(halved, tmp_path / "half.pth")
    trunk = read_trunk("resnet18", tmp_path / "half.pth")
    assert trunk.state["conv1.weight"].dtype == torch.float32
    assert torch.equal(trunk.state["conv1.weight"], halved["conv1.weight"].float())


def test_the_trunk_of_a_detector_and_files_that_do_not_fit(resnet: Path, tmp_path: Path) -> None:
    given = torch.load(resnet, weights_only=True)
    of_detector = {f"backbone.body.{name}": each for name, each in given.items() if not name.startswith("fc.")}
    torch.save({**of_detector, "head.bias": torch.zeros(3)}, tmp_path / "detector.pth")
    assert read_trunk("resnet18", tmp_path / "detector.pth").digest == read_trunk("resnet18", resnet).digest
    with pytest.raises(UsageError, match=r"of boxes it must be one of resnet18, .*, got 'alexnet'"):
        read_trunk("alexnet", resnet)
    with pytest.raises(UsageError, match="needs weights from a local file"):
        read_trunk("resnet18", None)
    with pytest.raises(InputError, match=r"must hold the .* tensors of resnet50"):
        read_trunk("resnet50", resnet)


def test_a_task_that_begins_with_a_trained_trunk(resnet: Path, tmp_path: Path) -> None:
    dataset, _ = scenes(tmp_path / "data", 12, 2)
    options = {**{name: value for name, value in USUAL.items() if name != "steps"}, "steps": 2, "networks": 1}
    asked = [{"label": name, "value": value} for name, value in options.items()]
    asked += [{"label": "encoder", "value": "resnet18"}, {"label": "weights", "value": str(resnet)}]
    body = {"task_type": "auto-label", "config": {"algorithm_type": "accurate", "parameters": asked}}
    answer = run_request(parse_request(body), dataset, tmp_path / "out")
    assert answer["status"] == 3
    model = load_detector(tmp_path / "out" / "model")
    assert model.networks[0].spec.trunk == "resnet18"
    told = orjson.loads((tmp_path / "out" / "model" / "model.json").read_bytes())
    assert told["networks"]["trunk"] == "resnet18" and told["networks"]["widths"] == [64, 128, 256, 512]
    told["networks"]["trunk"] = "resnet34"
    (tmp_path / "out" / "model" / "model.json").write_bytes(orjson.dumps(told))
    with pytest.raises(InputError, match="trunk"):
        load_detector(tmp_path / "out" / "model")
    with pytest.raises(UsageError, match="weights: belong to an encoder"):
        run_request(parse_request({**body, "config": {"parameters": [asked[-1]]}}), dataset, tmp_path / "no")
