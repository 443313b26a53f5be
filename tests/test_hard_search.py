"""Hard examples of samples: predictions made elsewhere, boxes, people's labels; marks, files, the command line."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from conftest import SHAPES, paint

import engine
from engine.cli import main
from engine.dataset import Dataset, read_samples
from engine.errors import Failure, InputError, UsageError
from engine.hard.among_boxes import with_sizes
from engine.hard.asking import Said
from engine.hard.boxes import boxes_of
from engine.hard.config import HardConfig
from engine.hard.crops import crops
from engine.hard.examples import HardExamples, hard_examples
from engine.hard.marks import marked, marked_boxes
from engine.hard.mining import Evidence, View
from engine.hard.planted import label_errors, planted, share_wrong
from engine.hard.questions import has_automatic_boxes, questions_of
from engine.hard.search import find_hard_examples, search
from engine.label.classifier import Classifier, Committee, resized
from engine.label.networks import NetworkSpec, fit_stem, initialised
from engine.label.training import generator_of
from engine.manifest import write_manifest
from engine.samples import IMAGE_CLASSIFICATION, OBJECT_DETECTION, Drawing, Label, Sample, Shape
from engine.sources import Sources
from engine.tasks.confirming import confirm
from engine.tasks.hard import hard_task
from engine.tasks.hard_page import with_boxes
from engine.tasks.pages import tiles_of
from engine.tasks.parameters import Parameters
from engine.tasks.runner import run
from engine.voc import read_voc

MACHINE = "modelarts/auto"


def automatic(name: str, confidence: float | None = 0.9) -> Label:
    return Label(type=IMAGE_CLASSIFICATION, name=name, annotated_by=MACHINE, confidence=confidence)


@pytest.fixture
def predicted(tmp_path: Path) -> Dataset:
    """60 images of three shapes: 30 that people labeled, 30 with automatic labels, of which those of 30..32 are wrong
    and not sure, and that of 33 is wrong and sure."""
    folder = tmp_path / "shapes"
    folder.mkdir()
    samples = []
    for number in range(60):
        name, shape = f"{number:02}.png", SHAPES[number % 3]
        paint(folder / name, shape, number)
        wrong = SHAPES[(number + 1) % 3]
        if number < 30:
            labels = (Label(type=IMAGE_CLASSIFICATION, name=shape),)
        elif number < 33:
            labels = (automatic(wrong, 0.4),)
        else:
            labels = (automatic(wrong if number == 33 else shape, 0.9),)
        samples.append(Sample(source=name, labels=labels))
    return Dataset(tuple(samples), Sources(folder), name="shapes")


# ---- Which labels are in question.


def test_questions_are_automatic_labels_where_nobody_labeled() -> None:
    human, machine = Label(type=IMAGE_CLASSIFICATION, name="cat"), automatic("dog", 0.7)
    samples = [
        Sample("a", (human, machine)),
        Sample("b", (machine,)),
        Sample("c"),
        Sample("d", (automatic("eel", None),)),
    ]
    asked = questions_of(samples, further_names=["owl"])
    assert asked.names == ("cat", "dog", "eel", "owl") and not asked.multi_label
    assert asked.told.nonzero().tolist() == [[0, 0]]
    assert asked.given.nonzero().tolist() == [[1, 1], [3, 2]]
    assert asked.probabilities[1].tolist() == pytest.approx([0.1, 0.7, 0.1, 0.1])
    assert asked.probabilities[[0, 2, 3]].isnan().all()


def test_several_automatic_labels() -> None:
    asked = questions_of(
        [Sample("a", (automatic("cat", 0.9), automatic("dog", 0.6))), Sample("b", (automatic("cat"),))]
    )
    assert asked.multi_label
    np.testing.assert_allclose(asked.probabilities, [[0.9, 0.6], [0.9, 0.0]])


# ---- Predictions made elsewhere.


def test_wrong_predictions_are_found(predicted: Dataset) -> None:
    found = find_hard_examples(predicted)
    assert found.names == tuple(sorted(SHAPES)) and found.combiner == "weights"
    asked = np.arange(30, 60)
    assert set(asked[np.argsort(-found.coefficients[asked])[:4]].tolist()) >= {30, 31, 32}
    assert 1 in found.reasons[31] and 3 in found.reasons[33]  # the sure one is unlike its label
    assert not found.coefficients[:30].any() and set(found.labels.rows.tolist()) == set(range(30, 60))


def test_a_training_set_from_elsewhere(predicted: Dataset, tmp_path: Path) -> None:
    train, rest = predicted.with_samples(predicted[:30]), predicted.with_samples(predicted[30:])
    elsewhere, together = search(rest, train=train), search(predicted)
    np.testing.assert_allclose(elsewhere.found.coefficients, together.found.coefficients[30:], atol=1e-5)
    assert len(elsewhere.told) == 60 and len(elsewhere.train) == 30
    # Images that are in question do not train, whatever a training set says of them.
    again = search(rest, train=predicted.with_samples([*train, replace(train[0], source="45.png")]))
    assert len(again.train) == 30


def test_no_training_set(predicted: Dataset) -> None:
    done = search(predicted.with_samples(predicted[30:]))
    assert any("no training set" in note for note in done.notes)
    assert np.isfinite(done.found.coefficients).all() and 3 in done.found.scores
    assert set(done.found.order[:3].tolist()) == {0, 1, 2}  # the least certain ones
    assert done.found.coefficients[:3].min() > done.found.coefficients[3:].max() and done.found.hard[:3].all()


def test_labels_without_confidences_are_judged_by_the_rest(predicted: Dataset) -> None:
    bare = [replace(each, labels=tuple(replace(label, confidence=None) for label in each.labels)) for each in predicted]
    done = search(predicted.with_samples(bare))
    found = done.found
    assert any("without a confidence" in note for note in done.notes)
    assert np.isnan(found.scores[1][30:]).all() and found.coefficients[33] > np.median(found.coefficients[34:])


def test_an_image_that_is_gone_keeps_its_prediction(predicted: Dataset) -> None:
    (predicted.sources.root / "31.png").unlink()
    (predicted.sources.root / "40.png").write_bytes(b"no image")
    done = search(predicted)
    assert len(done.found) == 60 and len(done.failures) == 2
    assert np.isfinite(done.found.coefficients).all()
    assert done.found.coefficients[31] > done.found.coefficients[40] and 31 in done.found.labels.rows
    assert np.isnan(done.found.scores[3][31]) and not np.isnan(done.found.scores[1][31])


def test_a_label_that_training_has_never_seen(predicted: Dataset) -> None:
    samples = list(predicted)
    samples[50] = replace(samples[50], labels=(automatic("star", 0.9),))
    found = find_hard_examples(predicted.with_samples(samples))
    assert found.scores[3][50] == 1 and found.coefficients[50] > 0.1


def test_one_class_only(predicted: Dataset) -> None:
    same = [replace(each, labels=tuple(replace(label, name="thing") for label in each.labels)) for each in predicted]
    found = find_hard_examples(predicted.with_samples(same))
    assert np.isfinite(found.coefficients).all() and found.scores[3][33] == 0


def test_two_labeled_samples_a_class(predicted: Dataset) -> None:
    few = predicted.with_samples([*predicted[:6], *predicted[30:]])
    assert np.isfinite(find_hard_examples(few).coefficients).all()


def test_what_a_model_said(predicted: Dataset) -> None:
    """Its probabilities count instead of the confidences; rows out of fold are learned from."""
    classes = sorted(SHAPES)
    values = np.full((60, 3), 0.05, np.float32)
    for row in range(60):
        values[row, classes.index(SHAPES[(row + (row in (5, 40))) % 3])] = 0.9
    sources = [sample.source for sample in predicted]
    judges = np.where(np.arange(60) < 30, 0, -1)
    found = find_hard_examples(predicted, said=Said(sources, classes, values, judges))
    assert found.combiner == "calibrated" and found.choices["judged_out_of_fold"] == 30
    assert found.choices["errors_out_of_fold"] == 1
    assert {30, 31, 32, 33, 40} >= set(found.order[:4].tolist())
    unknown = find_hard_examples(predicted, said=Said(sources, classes, values))
    assert unknown.combiner == "weights"


def test_what_networks_believe_is_in_the_columns_of_the_names(
    predicted: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model with labels in another order, one of them of no sample, that lacks one; and training images."""
    labels = ("moon", *sorted(SHAPES, reverse=True)[:2])
    spec, chance = NetworkSpec(32, (8, 16), 3), generator_of("network")
    pixels = torch.randint(0, 256, (20, 3, 32, 32), generator=chance, dtype=torch.uint8)
    network = initialised(spec, fit_stem(pixels, spec), chance)
    network.head.weight.data = torch.randn(network.head.weight.shape, generator=chance)
    model = Classifier(labels, False, 32, Committee((network,), 1.0, (False, False), False), None, 1.0)
    asked: list[Evidence] = []

    def spied(evidence: Evidence, *arguments: object, **options: object) -> HardExamples:
        asked.append(evidence)
        return hard_examples(evidence, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("engine.hard.among_images.hard_examples", spied)
    here, train = predicted.with_samples(predicted[20:]), predicted.with_samples(predicted[:20])
    find_hard_examples(here, train=train, model=model)
    (evidence,) = asked
    beliefs = evidence.views[0].beliefs
    names = sorted({*SHAPES, "moon"})
    assert beliefs is not None and beliefs.shape == (60, 4)
    for row, sample in enumerate([*here, *train]):
        rgb = cv2.cvtColor(cv2.imread(str(predicted.path(sample))), cv2.COLOR_BGR2RGB)
        seen = resized(torch.from_numpy(rgb).permute(2, 0, 1)[None], 32)
        said = dict(zip(labels, model.probabilities(seen)[0].tolist(), strict=True))
        assert beliefs[row].tolist() == pytest.approx([said.get(name, 0.0) for name in names], abs=0.02)


def test_a_model_that_fails_on_all_images_is_told(predicted: Dataset) -> None:
    class Failing:
        labels, multi_label, image_size, committee = tuple(sorted(SHAPES)), False, 32, None
        fails_from = 1

        def probabilities(self, images: torch.Tensor) -> torch.Tensor:
            if len(images) > self.fails_from:
                raise InputError("scores: must be finite, got NaN or infinity")
            return torch.full((len(images), 3), 1 / 3)

    assert find_hard_examples(predicted, model=Failing()).coefficients.max() <= 1  # one by one it works
    Failing.fails_from = 0
    with pytest.raises(InputError, match="must be finite, got NaN"):
        find_hard_examples(predicted, model=Failing())


def test_labels_that_only_the_model_knows(predicted: Dataset) -> None:
    """Its probabilities are of four labels; what it gives to the fourth is a doubt about the others."""
    values = np.tile(np.array([[0.5, 0.0, 0.0, 0.5]], np.float32), (60, 1))
    said = Said([sample.source for sample in predicted], (*sorted(SHAPES), "star"), values)
    sure = replace(predicted[40], labels=(automatic(sorted(SHAPES)[0], 0.9),))
    samples = [*predicted[:40], sure, *predicted[41:]]
    found = find_hard_examples(predicted.with_samples(samples), said=said)
    assert found.names == (*sorted(SHAPES), "star") and found.scores[1][40] == pytest.approx(0.5)


def test_images_that_nobody_knows_anything_of_do_not_vote(predicted: Dataset) -> None:
    blank = [Sample(source=sample.source) for sample in predicted[34:]]
    done = search(predicted.with_samples([*predicted[:34], *blank]))
    assert done.rows.tolist() == [30, 31, 32, 33] and done.found.scores[2][33] > 0.5
    right = replace(predicted[33], labels=(automatic(SHAPES[0], 0.9),))
    again = search(predicted.with_samples([*predicted[:33], right, *blank]))
    assert again.found.scores[2][33] < 0.35


def test_sources_that_are_not_here(predicted: Dataset, tmp_path: Path) -> None:
    far = Sample(source="s3://bucket/far.png", labels=(automatic("ring", 0.3),))
    data = predicted.sources.root / "predicted.manifest"
    write_manifest(data, [*predicted, far])
    assert main(["hard", str(data), "--out", str(tmp_path / "out")]) == 0
    assert read_samples(tmp_path / "out" / "result.manifest")[60].hard
    assert "far.png" in (tmp_path / "out" / "report.html").read_text()


def test_nothing_in_question(predicted: Dataset) -> None:
    with pytest.raises(InputError, match="got none among 30 samples"):
        find_hard_examples(predicted.with_samples(predicted[:30]))
    with pytest.raises(InputError, match="train: must have labels that people gave on other images, got none in 30"):
        find_hard_examples(predicted, train=predicted.with_samples(predicted[30:]))
    with pytest.raises(UsageError, match="labeled: models are trained out of fold"):
        find_hard_examples(predicted, train=predicted, labeled=True)


def test_the_same_twice(predicted: Dataset) -> None:
    first, second = (find_hard_examples(predicted, seed=3) for _ in range(2))
    assert np.array_equal(first.coefficients, second.coefficients) and first.reasons == second.reasons


# ---- Marks.


def test_marks_on_samples_and_labels(predicted: Dataset) -> None:
    found = find_hard_examples(predicted)
    samples = marked(predicted.samples, found, range(30, 60), found.names)
    assert samples[:30] == predicted.samples[:30]
    hard, label = samples[33], samples[33].labels[0]
    assert hard.hard and hard.hard_coefficient == pytest.approx(found.coefficients[33], abs=1e-6)
    assert hard.property["@modelarts:hard_reasons"] == list(found.reasons[33])
    assert label.property["@modelarts:hard_reasons"] == "-".join(map(str, found.reasons[33]))
    assert (label.confidence, label.annotated_by) == (0.9, MACHINE)
    again = marked(samples, replace(found, hard=np.zeros(60, bool), reasons=((),) * 60), range(30, 60), found.names)
    assert "@modelarts:hard_reasons" not in again[33].property  # marks of an earlier run are replaced


# ---- Labels that people gave.


def blobs(n: int, share: float, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Points of four classes, what people say, which of it is wrong, and out-of-fold probabilities (nearest means)."""
    rng = np.random.default_rng(seed)
    centres = 3.0 * np.array([[0, 0], [1, 0], [0, 1], [1, 1]])
    truth = rng.integers(0, 4, n)
    points = centres[truth] + rng.normal(size=(n, 2)) * 0.7
    wrong = rng.random(n) < share
    given = np.where(wrong, (truth + rng.integers(1, 4, n)) % 4, truth)
    p = np.zeros((n, 4))
    for fold in range(5):
        held = np.arange(n) % 5 == fold
        means = np.stack([points[~held & (given == k)].mean(axis=0) for k in range(4)])
        distances = ((points[held][:, None] - means) ** 2).sum(axis=2)
        p[held] = np.exp(-distances)
    return points, given, wrong, p / p.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("share", [0.05, 0.2])
def test_wrong_human_labels_are_found(share: float) -> None:
    points, given, wrong, p = blobs(600, share, 0)
    found = label_errors(Evidence.of_arrays(p, given, given=given, embeddings=points))
    assert found.combiner == "calibrated" and found.threshold == 0.5
    assert (found.hard & wrong).sum() / wrong.sum() > 0.85  # recall
    assert (found.hard & wrong).sum() / found.hard.sum() > 0.85  # precision
    assert found.coefficients.mean() == pytest.approx(wrong.mean(), abs=0.04)
    assert found.choices["estimated_share_wrong"] == pytest.approx(wrong.mean(), abs=0.04)


def test_right_human_labels_are_left_alone() -> None:
    points, given, _, p = blobs(400, 0.0, 1)
    found = label_errors(Evidence.of_arrays(p, given, given=given, embeddings=points))
    assert found.hard.mean() < 0.02


def test_planted_labels_are_other_ones() -> None:
    points, given, _, p = blobs(100, 0.1, 2)
    evidence = Evidence.of_arrays(p, given, given=given, embeddings=points)
    other = planted(evidence, generator=generator_of("planted"))
    assert (other.sum(dim=1) == 1).all() and not bool((other & evidence.given).any())


def test_the_share_of_wrong_labels_by_hand() -> None:
    p = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.1, 0.9], [0.1, 0.9]])
    evidence = Evidence.of_arrays(p, given=[0, 0, 0, 1, 1])
    # Usual: (0.9 + 0.8 + 0.1) / 3 = 0.6 of the first, 0.9 of the second: one in three of the first is wrong.
    assert share_wrong(evidence.probabilities, evidence.given) == pytest.approx((3 * 1 / 3 + 0) / 5)


def test_several_labels_a_sample_are_not_wrong_for_being_several() -> None:
    rng = np.random.default_rng(0)
    given = rng.random((400, 4)) < 0.5
    given[~given.any(axis=1), 0] = True
    p = np.where(given, 0.92, 0.08) + rng.uniform(-0.06, 0.06, given.shape)
    told = given.copy()
    wrong = np.zeros(400, bool)
    for row in range(0, 400, 20):  # one label of every twentieth image is taken for another
        told[row, np.flatnonzero(given[row])[0]] = False
        told[row, (np.flatnonzero(~given[row]) if not given[row].all() else [0])[0]] = True
        wrong[row] = True
    evidence = Evidence.of_arrays(p, told, given=told)
    assert share_wrong(evidence.probabilities, evidence.given, multi_label=True) < 0.1
    found = label_errors(evidence)
    assert found.hard[wrong].mean() > 0.9 and found.hard[~wrong].mean() < 0.05


def test_a_label_that_nobody_gave_is_no_mistake_of_people() -> None:
    points, given, _, p = blobs(400, 0.05, 3)
    wider = np.concatenate([p * 0.999, np.full((400, 1), 0.001)], axis=1)
    found = label_errors(Evidence.of_arrays(wider, given, given=given, embeddings=points))
    assert found.choices["estimated_share_wrong"] < 0.1 and found.hard.mean() < 0.1


@pytest.mark.parametrize("multi_label", [False, True])
def test_labels_in_a_row_are_held_against_those_that_people_gave(multi_label: bool) -> None:
    """Frames of one scene, nearly all labeled alike: the odd one out, and frames that nobody labeled."""
    n, chance = 300, generator_of("row")
    vectors = torch.randn(n, 8, generator=chance)
    vectors[:24] = torch.randn(1, 8, generator=chance) + 0.01 * vectors[:24]
    told = torch.zeros(n, 2, dtype=torch.bool)
    told[:, 0] = True
    told[[4, 6, 50]] = False  # those beside frame 5 are unlabeled
    told[20] = torch.tensor([False, True])
    probabilities = torch.full((n, 2), 0.5)  # models know nothing
    frames = Evidence(
        probabilities, told, told, told.any(dim=1), multi_label, (View(vectors, torch.arange(0)),), sequences=[range(n)]
    )
    found = label_errors(frames, HardConfig(algo_config={"sequential_mining": 1.0}))
    assert found.scores[4][5] == 0 and found.scores[4][20] > 0.9
    assert found.coefficients[20] == found.coefficients.max() and found.coefficients[5] < 0.1


def test_few_labels_and_weights_of_a_person() -> None:
    p = np.array([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]])
    few = Evidence.of_arrays(p, [0, 0, 1], given=[0, 0, 1])
    for config in (HardConfig(), HardConfig(algo_config={"predict_score_mining": 1.0})):
        found = label_errors(few, config)
        assert np.isfinite(found.coefficients).all() and found.coefficients.argmax() == 1
    assert label_errors(few, HardConfig(algo_config={"predict_score_mining": 1.0})).combiner == "weights"
    nothing = Evidence.of_arrays(np.full((3, 2), np.nan), [0, 0, 1], given=[0, 0, 1])
    assert not label_errors(nothing).hard.any()


# ---- Boxes.


def cells(path: Path, seed: int, *, dark: bool = False) -> list[tuple[str, tuple[float, float, float, float]]]:
    """Three round and two square cells on a 120x90 image; gives their names and boxes."""
    rng = np.random.default_rng(seed)
    picture = np.full((90, 120, 3), 200, np.uint8) + rng.integers(0, 20, (90, 120, 3), np.uint8)
    found = []
    places = [(20, 20), (60, 22), (100, 20), (35, 65), (85, 65)]
    for at, (x, y) in enumerate(places):
        x, y = x + int(rng.integers(-4, 5)), y + int(rng.integers(-4, 5))
        half = int(rng.integers(10, 13))
        if at < 3:
            cv2.circle(picture, (x, y), half, (60, 60, 190), -1)
        else:
            cv2.rectangle(picture, (x - half, y - half), (x + half, y + half), (180, 90, 40), -1)
        found.append(("round" if at < 3 else "square", (x - half, y - half, x + half, y + half)))
    if dark:
        picture = (picture * 0.25).astype(np.uint8)
    cv2.imwrite(str(path), picture)
    return [(name, tuple(map(float, box))) for name, box in found]


def drawn(boxes, *, machine: bool, confidence: float | None = 0.95) -> Label:
    shapes = tuple(
        Shape(name, "bndbox", ((x1, y1), (x2, y2)), confidence=confidence if machine else None)
        for name, (x1, y1, x2, y2) in boxes
    )
    by = MACHINE if machine else None
    return Label(type=OBJECT_DETECTION, annotated_by=by, drawing=Drawing(shapes, (120, 90, 3)))


DEFECTS = ("nothing", "swapped", "flat", "at the edge", "dark", "many", "fine")


@pytest.fixture
def plate(tmp_path: Path) -> Dataset:
    """30 images that a person drew boxes on, then 7 by a machine, of which six have the DEFECTS."""
    folder = tmp_path / "plate"
    folder.mkdir()
    samples = []
    for number in range(37):
        name = f"cell-{number}-x.png"
        defect = DEFECTS[number - 30] if number >= 30 else ""
        boxes = cells(folder / name, number, dark=defect == "dark")
        if defect == "nothing":
            boxes = []
        if defect == "swapped":
            boxes[0] = ("square", boxes[0][1])
        if defect == "flat":
            boxes[0] = ("round", (5.0, 5.0, 115.0, 9.0))
        if defect == "at the edge":
            boxes[0] = ("round", (-10.0, 70.0, 8.0, 99.0))
        if defect == "many":
            boxes += [boxes[0]] * 12
        samples.append(Sample(source=name, labels=(drawn(boxes, machine=number >= 30),)))
    return Dataset(tuple(samples), Sources(folder), name="plate")


def test_boxes_in_order(plate: Dataset) -> None:
    found = boxes_of(plate)
    assert found.names == ("round", "square") and len(found) == 30 * 5 + 0 + 4 * 5 + 17 + 5
    assert int(found.asked.sum()) == 42 and int(found.told.sum()) == 150
    assert not has_automatic_boxes(plate[0]) and has_automatic_boxes(plate[30])


def test_each_defect_of_boxes_has_its_reason(plate: Dataset) -> None:
    done = search(plate, config=HardConfig(threshold=0.0))
    assert done.of_boxes and done.rows.tolist() == list(range(30, 37))
    expected = {"nothing": 0, "swapped": 3, "flat": 13, "dark": 7, "many": 11}
    reasons = dict(zip(DEFECTS, done.found.reasons[30:], strict=True))
    for defect, reason in expected.items():
        assert reason in reasons[defect][:3], (defect, reasons[defect])
    assert 15 in reasons["at the edge"] and 18 in reasons["many"]
    coefficients = done.found.coefficients[30:]
    assert coefficients.argmin() in (DEFECTS.index("fine"), DEFECTS.index("many"))  # offsets weigh little
    assert np.isfinite(done.found.coefficients).all()


def test_boxes_are_cut_out_where_they_are_of_images_that_are_decoded_smaller(tmp_path: Path) -> None:
    picture = np.zeros((600, 800, 3), np.uint8)
    picture[300:400, 500:600] = 255
    picture[:8, :8] = 255
    cv2.imwrite(str(tmp_path / "large.jpg"), picture)
    boxes = np.array([[500, 300, 600, 400], [250, 150, 300, 200], [0, 0, 8, 8], [0, 0, 800, 600]], np.float32)
    for which, means in (([0, 1, 3], [255, 0, 5.3]), ([2], [255])):
        (found,) = crops([tmp_path / "large.jpg"], [boxes[which]], side=32, threads=1)
        assert found.float().mean(dim=(1, 2, 3)).numpy() == pytest.approx(means, abs=6)


def test_sizes_of_boxes_stand_beside_what_is_inside() -> None:
    inside = torch.zeros(4, 3)
    boxes = np.array([[0, 0, 10, 10], [5, 5, 15, 15], [0, 0, 40, 10], [9, 9, 9, 9]], np.float32)
    found = with_sizes(inside, boxes)
    assert found.shape == (4, 5) and bool(found.isfinite().all()) and torch.equal(found[:, :3], inside)
    assert torch.equal(found[0], found[1])  # where a box lies says nothing
    assert found[2, 3] > found[0, 3] > found[3, 3] and found[2, 4] == found[0, 4]
    alike = np.array([[0, 0, 10, 10.001], [0, 0, 10, 10]], np.float32)
    assert torch.allclose(with_sizes(inside[:2], alike)[:, 3:], torch.zeros(2, 2), atol=1e-3)


def test_a_name_that_only_the_size_of_a_box_denies(tmp_path: Path) -> None:
    """Small and large cells look the same inside; on the last image a small one is called large."""
    samples = []
    for number in range(24):
        rng = np.random.default_rng(number)
        picture, boxes = np.full((90, 120, 3), 200, np.uint8) + rng.integers(0, 20, (90, 120, 3), np.uint8), []
        for x, y in ((25, 30), (60, 45), (95, 60)):
            name = "large" if rng.random() < 0.5 else "small"
            half = int(rng.integers(16, 19) if name == "large" else rng.integers(6, 8))
            cv2.circle(picture, (x, y), half, (60, 60, 190), -1)
            boxes.append((name, (float(x - half), float(y - half), float(x + half), float(y + half))))
        if number == 23:
            cv2.circle(picture, (60, 45), 19, (200, 200, 200), -1)
            cv2.circle(picture, (60, 45), 7, (60, 60, 190), -1)
            boxes[1] = ("large", (53.0, 38.0, 67.0, 52.0))
        cv2.imwrite(str(tmp_path / f"{number:02}-x.png"), picture)
        samples.append(Sample(f"{number:02}-x.png", (drawn(boxes, machine=number >= 20),)))
    found = search(Dataset(tuple(samples), Sources(tmp_path)), config=HardConfig(threshold=0.0)).found
    rows, boxes_in_question = found.labels.rows, found.labels.coefficients
    assert boxes_in_question.argmax() == np.flatnonzero(rows == 23)[1] and {2, 3} & set(found.reasons[23][:3])


def test_marks_on_boxes(plate: Dataset) -> None:
    done = search(plate)
    samples = marked_boxes(plate.samples, done.found)
    assert samples[:30] == plate.samples[:30]
    swapped = samples[31].labels[0]
    worst = max(swapped.drawing.shapes, key=lambda shape: shape.hard_coefficient)
    assert 3 in swapped.drawing.shapes[0].hard_reasons and worst.hard_coefficient > 0.5
    assert swapped.hard_coefficient == worst.hard_coefficient and swapped.annotation_loc is None
    assert samples[30].hard and 0 in samples[30].property["@modelarts:hard_reasons"] and not samples[30].boxes


def test_other_shapes_and_other_labels_are_left_alone(plate: Dataset) -> None:
    """A machine drew a circle: something was found. A person outlined the cells, which is another label."""
    circle = Shape("round", "circle", ((30.0, 30.0), (10.0,)), confidence=0.99)
    outlines = Label(
        type="modelarts/image_segmentation",
        drawing=Drawing((Shape("cell", "bndbox", ((110.0, 80.0), (118.0, 88.0))),), (120, 90, 3)),
    )
    drawn_circle = Label(type=OBJECT_DETECTION, annotated_by=MACHINE, drawing=Drawing((circle,), (120, 90, 3)))
    mixed = replace(plate[31], labels=(outlines, *plate[31].labels))
    data = plate.with_samples([*plate[:30], replace(plate[30], labels=(drawn_circle,)), mixed, *plate[32:]])
    done = search(data)
    assert done.found.scores[0][30] == 0 and done.found.scores[0][31] == 0
    samples = marked_boxes(data.samples, done.found)
    assert samples[31].labels[0] == outlines
    before = marked_boxes(plate.samples, search(plate).found)[31].labels[0]
    first = samples[31].labels[1].drawing.shapes[0]
    assert first.hard_reasons == before.drawing.shapes[0].hard_reasons


def test_boxes_without_area_or_training(plate: Dataset) -> None:
    flat = drawn([("round", (30.0, 30.0, 30.0, 50.0)), ("square", (500.0, 500.0, 600.0, 700.0))], machine=True)
    alone = plate.with_samples([replace(plate[36], labels=(flat,))])
    done = search(alone)
    assert np.isfinite(done.found.coefficients).all() and len(done.found.labels) == 2
    assert any("no training set" in note for note in done.notes)
    (plate.sources.root / plate[36].source).unlink()
    gone = search(alone)
    assert np.isfinite(gone.found.coefficients).all() and len(gone.found.labels) == 2 and len(gone.failures) == 1


# ---- The task and the command.


def test_the_command(predicted: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = predicted.sources.root / "predicted.manifest"
    write_manifest(data, predicted.samples)
    out = tmp_path / "out"
    arguments = ["hard", str(data), "--out", str(out), "--collect-key-sample", "--confidence-scope", "0.3-0.5"]
    assert main(arguments) == 0
    said = capsys.readouterr()
    assert "of 30 samples in question are hard examples" in said.out and "3 key samples copied" in said.out
    assert "aug_consistent_mining did not run" in said.err
    result = read_samples(out / "result.manifest")
    assert [sample.hard for sample in result[:30]] == [None] * 30 and result[33].hard
    rows = list(csv.DictReader((out / "hard.csv").open()))
    assert len(rows) == 30 and rows[0]["rank"] == "1" and "unlike the training images" in (out / "hard.csv").read_text()
    scores = np.load(out / "hard_scores.npz")
    assert scores["scores"].shape == (60, len(scores["reasons"])) and scores["reasons"].tolist()[0] == 1
    task = json.loads((out / "task.json").read_text())
    assert task["result"]["judged_sample_count"] == 30 and task["result"]["key_sample_count"] == 3
    assert task["result"]["hard_examples"]["combiner"] == "weights"
    key = read_samples(out / "key_samples" / "key_samples.manifest")
    assert len(key) == 3 and all(sample.hard for sample in key)
    page = (out / "report.html").read_text()
    assert "data-why=" in page and "data-line=" in page and "nearer" not in page


def test_what_the_page_advises_works(predicted: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = predicted.sources.root / "predicted.manifest"
    write_manifest(data, predicted.samples)
    out = tmp_path / "out"
    assert main(["hard", str(data), "--out", str(out)]) == 0
    assert "confirm OUT --labels decisions.jsonl" in (out / "report.html").read_text()
    source = read_samples(out)[31].source
    (tmp_path / "decisions.jsonl").write_text(json.dumps({"source": source, "labels": ["ring"]}) + "\n")
    assert main(["confirm", str(out), "--labels", str(tmp_path / "decisions.jsonl"), "--by", "anna"]) == 0
    assert [(label.name, label.annotated_by) for label in read_samples(out)[31].labels] == [("ring", "human/anna")]


def test_what_is_not_looked_at_is_said(predicted: Dataset) -> None:
    said: list[str] = []
    box = drawn([("cell", (1.0, 1.0, 9.0, 9.0))], machine=True)
    search(predicted.with_samples([*predicted, Sample("box.png", (box,))]), note=said.append)
    assert said == ["labels of images were looked at: 1 samples have only automatic boxes, which were not"]


def test_a_box_beyond_all_numbers_is_cut_at_its_image(plate: Dataset) -> None:
    far = drawn([("cell", (1.0, 1.0, 1e39, 1e39))], machine=True)
    samples = [*plate.samples[:-1], replace(plate[-1], labels=(far,))]
    found = find_hard_examples(plate.with_samples(samples))
    assert np.isfinite(found.coefficients).all() and found.labels.rows[-1] == len(plate) - 1


def test_the_command_on_boxes(plate: Dataset, tmp_path: Path) -> None:
    engine.write_dataset(plate, tmp_path / "data", to="manifest")
    out = tmp_path / "out"
    assert main(["hard", str(tmp_path / "data" / "plate.manifest"), "--out", str(out)]) == 0
    result = read_samples(out / "result.manifest")
    assert result[31].labels[0].annotation_loc.startswith("annotations/")
    drawing, failures = read_voc(out / result[31].labels[0].annotation_loc)
    assert not failures and 3 in drawing.shapes[0].hard_reasons and drawing.shapes[0].hard_coefficient > 0.1
    assert result[0].labels[0].annotation_loc.startswith("../data/")  # what people drew stays where it is
    assert "data-why=" in (out / "report.html").read_text()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--comprehensive-algo-config", "magic:1"], "--comprehensive-algo-config: must be of clustering_mining"),
        (["--comprehensive-algo-config", "clustering_mining:-1"], "must be a number from 0 on, got -1"),
        (["--comprehensive-algo-config", "clustering_mining:0"], "one weight must be above 0, got none"),
        (["--algo-hard-threshold", "2"], "--algo-hard-threshold: must be"),
        (["--labeled", "--model", "m"], "--labeled trains models of its own"),
        (["--steps", "5"], "--steps: nothing is trained without --labeled"),
        (["--min-per-class", "3"], "--min-per-class: nothing is trained without --labeled"),
        (["--model", "nowhere"], "nowhere"),
        (["--key-sample-output", "../up", "--collect-key-sample"], "must be a folder below OUT"),
    ],
)
def test_wrong_usage(
    predicted: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], said: str
) -> None:
    data = predicted.sources.root / "predicted.manifest"
    write_manifest(data, predicted.samples)
    assert main(["hard", str(data), "--out", str(tmp_path / "out"), *more]) in (1, 2)
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out" / "result.manifest").exists()


@pytest.mark.parametrize("score", ["1.3", "-0.1", "NaN", '"sure"'])
def test_a_score_out_of_range_is_told_with_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], score: str
) -> None:
    bad = tmp_path / "bad.manifest"
    line = '{"source":"a.png","annotation":[{"type":"modelarts/image_classification","name":"cat",'
    bad.write_text(f'{line}"annotated-by":"m","confidence":{score}}}]}}\n')
    assert main(["hard", str(bad), "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert "bad.manifest:1" in said and not (tmp_path / "out" / "result.manifest").exists()


def test_wrong_labels_of_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "people"
    folder.mkdir()
    samples = []
    for number in range(90):
        name = f"{number:02}.png"
        paint(folder / name, SHAPES[number % 3], number)
        given = SHAPES[(number + (number in (4, 50))) % 3]
        samples.append(Sample(source=name, labels=(Label(type=IMAGE_CLASSIFICATION, name=given),)))
    write_manifest(folder / "people.manifest", samples)
    out = tmp_path / "out"
    arguments = ["hard", str(folder / "people.manifest"), "--labeled", "--out", str(out), "--steps", "24"]
    assert main(arguments) == 0
    result = read_samples(out / "result.manifest")
    coefficients = np.array([sample.hard_coefficient for sample in result])
    assert set(np.argsort(-coefficients)[:4].tolist()) >= {4, 50}
    assert result[4].labels[0].hard_coefficient == pytest.approx(coefficients[4])
    assert result[4].labels[0].by_human
    task = json.loads((out / "task.json").read_text())
    assert task["result"]["hard_examples"]["learned_from"] == "90 planted labels"
    assert "people" in (out / "report.html").read_text()


# ---- Files that state another size, and objects that nobody understands.


def stating(sample: Sample, size: tuple[int, int, int]) -> Sample:
    """The same boxes as a file states them that takes its image of 120x90 to have this size."""
    labels = []
    for label in sample.labels:
        x, y = size[0] / 120, size[1] / 90
        shapes = tuple(
            replace(shape, points=tuple((x * a, y * b) for a, b in shape.points)) for shape in label.drawing.shapes
        )
        labels.append(replace(label, drawing=replace(label.drawing, shapes=shapes, size=size)))
    return replace(sample, labels=tuple(labels))


def test_boxes_in_a_file_that_states_another_size_are_judged_where_they_are(
    plate: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    halved = [stating(each, (60, 45, 3)) if row in (0, 1, 2, 31, 36) else each for row, each in enumerate(plate)]
    asked: list[list[np.ndarray]] = []

    def changes(looked, detector, operators, **options):
        asked.append([each.xyxy.numpy() for each in looked])
        return {}

    monkeypatch.setattr("engine.hard.among_boxes.box_changes", changes)
    detector = SimpleNamespace(labels=("round", "square"))
    known, found = (search(each, detector=detector) for each in (plate, plate.with_samples(halved)))
    np.testing.assert_allclose(found.found.coefficients, known.found.coefficients, atol=1e-5)
    np.testing.assert_allclose(found.found.labels.coefficients, known.found.labels.coefficients, atol=1e-5)
    assert found.found.reasons == known.found.reasons and not found.failures
    for first, second in zip(*asked, strict=True):
        np.testing.assert_allclose(first, second)
    written = marked_boxes(halved, found.found)
    assert [shape.xyxy for shape in written[36].boxes] == [shape.xyxy for shape in halved[36].boxes]


def test_boxes_of_an_image_of_another_shape_are_not_looked_at(plate: Dataset) -> None:
    alone = plate.with_samples([*plate[:30], stating(plate[36], (100, 90, 3))])
    reason = "its file states 100x90 pixels, the image has 120x90: not looked at"
    with pytest.raises(InputError, match=f"got none that fit their images: {reason}"):
        search(alone)
    data = plate.with_samples([stating(plate[0], (100, 90, 3)), *plate[1:36], stating(plate[36], (100, 90, 3))])
    done = search(data)
    assert [(each.source, each.kind, each.reason) for each in done.failures] == [
        (plate[row].source, "annotation", reason) for row in (0, 36)
    ]
    assert done.rows.tolist() == list(range(30, 36)) and not (done.found.labels.rows == 36).any()
    assert not done.told[0] and done.told[1:30].all() and done.found.coefficients[36] == 0
    assert marked_boxes(data.samples, done.found, done.rows.tolist())[36] == data[36]


def test_boxes_are_drawn_where_they_are_whatever_size_their_file_states(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "even.png"), np.full((90, 120, 3), 90, np.uint8))
    label = drawn([("cell", (60.0, 45.0, 120.0, 90.0))], machine=True)
    whole = Sample("even.png", (label,))
    shown = []
    for sample in (whole, stating(whole, (60, 45, 3))):
        dataset = Dataset((sample,), Sources(tmp_path))
        (tile,) = tiles_of(dataset, [0], [""], 1, lambda done: None, draw=with_boxes(dataset))
        shown.append(tile.image)
    assert shown[0] is not None and shown[0] == shown[1]


def broken(label: Label) -> Label:
    """A drawing with an object that could not be understood."""
    return replace(label, drawing=replace(label.drawing, extra={"object": {"name": "round"}}))


def test_objects_that_could_not_be_understood_are_not_nothing(plate: Dataset) -> None:
    nothing, some = broken(drawn([], machine=True)), broken(plate[36].labels[0])
    by_people = broken(drawn([], machine=False))
    samples = [replace(plate[0], labels=(by_people,)), *plate[1:35]]
    samples += [replace(plate[35], labels=(nothing,)), replace(plate[36], labels=(some,))]
    assert not has_automatic_boxes(samples[35]) and has_automatic_boxes(samples[36])
    assert not has_automatic_boxes(replace(samples[0], labels=(by_people, *plate[36].labels)))  # a person drew there
    done = search(plate.with_samples(samples))
    assert done.rows.tolist() == [30, 31, 32, 33, 34, 36] and not done.told[0]
    assert done.found.coefficients[35] == 0 and done.found.scores[0][30] == 1  # what says that nothing is there
    for reason in (0, 11, 12):  # how many there are, nobody knows
        assert np.isnan(done.found.scores[reason][36]) and not np.isnan(done.found.scores[reason][31])


def test_an_image_is_as_hard_as_its_worst_box_and_few_are_hard_where_people_drew(plate: Dataset) -> None:
    """Ten of people's images once more, as a machine would have drawn them: one in ten is hard, or few more."""
    boxes = [[(shape.name, shape.xyxy) for shape in each.boxes] for each in plate[20:30]]
    again = [replace(each, labels=(drawn(of, machine=True),)) for each, of in zip(plate[20:30], boxes, strict=True)]
    found = search(plate.with_samples([*plate[:20], *again, *plate[30:]])).found
    worst = np.zeros(37)
    np.maximum.at(worst, found.labels.rows, found.labels.coefficients)
    assert (found.coefficients >= worst).all()
    assert found.hard[found.labels.rows[found.labels.hard]].all() and found.labels.hard.any()
    assert found.hard[20:30].sum() <= 5


# ---- What the task tells and keeps.


def test_old_marks_among_the_attributes_are_taken_away(predicted: Dataset) -> None:
    old = {"@modelarts:hard": True, "@modelarts:hard_coefficient": 0.99, "@modelarts:hard_reasons": [8], "mine": 1}
    samples = [
        replace(each, property=old, labels=tuple(replace(label, property=old) for label in each.labels))
        for each in predicted
    ]
    found = find_hard_examples(predicted.with_samples(samples))
    after = marked(samples, found, range(30, 60), found.names)
    for sample, label in ((each, each.labels[0]) for each in after[30:]):
        assert (
            set(sample.property) - {"@modelarts:hard_reasons"}
            == {"mine"}
            == set(label.property) - {"@modelarts:hard_reasons"}
        )
    assert after[0] == samples[0]


def test_a_training_set_does_not_count_where_networks_judge_what_they_drew(
    plate: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="train: boxes that auto labeling drew are held against those that it has"):
        search(plate, train=plate, detection=SimpleNamespace())
    monkeypatch.setattr("engine.tasks.hard._earlier_boxes", lambda *_: SimpleNamespace())
    with pytest.raises(UsageError, match="so no other training set can be given"):
        hard_task(plate, Parameters(), train=plate)


def test_what_fails_in_the_training_set_and_in_copying_is_told_once(predicted: Dataset, tmp_path: Path) -> None:
    unread = Failure("x.png", "annotation", "x.xml: cannot be read")
    train = replace(
        predicted.with_samples(predicted[:30]), failures=(unread,), notes=("read as manifest",), manifest=None
    )
    with pytest.raises(InputError, match=r"got none in 1 samples; 1 failures, the first: x\.xml: cannot be read"):
        search(predicted, train=replace(train, samples=(Sample("x.png"),)))
    (predicted.sources.root / "31.png").unlink()
    task = hard_task(
        predicted.with_samples(predicted[30:]),
        Parameters(),
        train=train,
        collect_key_sample=True,
        confidence_scope=(0.3, 0.5),
    )
    answer = run(task, tmp_path / "out")
    assert "training set: read as manifest" in answer["notices"]
    assert [(each["source"], each["kind"]) for each in answer["failures"]] == [
        ("x.png", "annotation"),
        ("31.png", "missing"),
    ]
    assert len(read_samples(tmp_path / "out" / "key_samples" / "key_samples.manifest")) == 2
    assert answer["result"]["key_sample_count"] == 2 and answer["result"]["dataset_type"] == 0
    assert "x.xml: cannot be read" in (tmp_path / "out" / "report.html").read_text()


def test_another_folder_of_key_samples_is_another_task(predicted: Dataset) -> None:
    def config(**options: object) -> Mapping[str, object]:
        return hard_task(predicted, Parameters(), **options).config

    here = config(collect_key_sample=True)
    assert "key_sample_output" not in here and config(collect_key_sample=True, key_sample_output="key_samples") == here
    assert config(collect_key_sample=True, key_sample_output="key2") == {**here, "key_sample_output": "key2"}


def test_the_scope_of_confidences_does_not_count_for_labels_of_people(
    predicted: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In place of a training: what is found among automatic labels without a confidence."""
    bare = [replace(each, labels=tuple(replace(label, confidence=None) for label in each.labels)) for each in predicted]
    monkeypatch.setattr("engine.tasks.hard.search", lambda data, **options: search(data, config=options["config"]))
    for labeled, copies in ((True, True), (False, False)):
        task = hard_task(
            predicted.with_samples(bare),
            Parameters(),
            labeled=labeled,
            collect_key_sample=True,
            confidence_scope=(0.0, 0.5),
        )
        assert any("confidence_scope does not count" in line for line in task.notices) == labeled
        result = run(task, tmp_path / str(labeled))["result"]
        assert result["hard_sample_count"] and result["key_sample_count"] == result["hard_sample_count"] * copies


def test_what_was_in_question_is_what_is_confirmed(plate: Dataset, tmp_path: Path) -> None:
    """People named every image; a machine drew on some: it is these boxes that are confirmed."""
    name = Label(type=IMAGE_CLASSIFICATION, name="blood")
    engine.write_dataset(
        plate.with_samples(replace(each, labels=(*each.labels, name)) for each in plate),
        tmp_path / "data",
        to="manifest",
    )
    answer = run(hard_task(read_samples(tmp_path / "data" / "plate.manifest"), Parameters()), tmp_path / "out")
    assert answer["result"]["dataset_type"] == 1
    assert confirm(tmp_path / "out", all=True).confirmed == 7
