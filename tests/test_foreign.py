"""Models from elsewhere: what goes in and comes out is what their model.json says, or one line says why not."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from foreign_models import COLORS, SIDE, bright_detector, described, exported, onnx_colors
from torch import Tensor, nn

from engine.errors import InputError, MissingExtraError
from engine.hard.box_look import Looked, box_changes
from engine.hard.reasons import OPERATORS
from engine.models import ForeignClassifier, ForeignDetector, load_any, load_model, read_model_info
from engine.models.foreign.forms import ForeignInput
from engine.models.foreign.placing import Placed, fitted, placed
from engine.predictions import Boxes, Predictions


def classifier(folder: Path) -> ForeignClassifier:
    model = load_any(folder)
    assert isinstance(model, ForeignClassifier)
    return model


def detector(folder: Path) -> ForeignDetector:
    model = load_any(folder)
    assert isinstance(model, ForeignDetector)
    return model


def plain(*colors: tuple[float, float, float], side: int = SIDE) -> Tensor:
    """Images of one color each."""
    return torch.tensor(colors)[:, :, None, None].expand(-1, 3, side, side).contiguous()


class Scores(nn.Module):
    """Says these numbers of every image, and the means of its channels where there are none."""

    def __init__(self, *numbers: float, shape: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.numbers = torch.tensor(numbers).reshape(shape or (len(numbers),))

    def forward(self, images: Tensor) -> Tensor:
        means = images.mean(dim=(2, 3))
        return self.numbers + 0 * means.sum() if len(self.numbers) else means


def test_an_onnx_graph_says_what_it_computes(tmp_path: Path) -> None:
    model = classifier(onnx_colors(tmp_path / "m"))
    told = model.predict(plain((0.2, 0.1, 0.1), (0.0, 0.0, 0.3)))
    assert told.labels == COLORS and told.probabilities is not None
    expected = torch.tensor([[2.0, 1.0, 1.0], [0.0, 0.0, 3.0]]).softmax(dim=1)
    assert torch.allclose(told.probabilities, expected, atol=0.02)  # colors are 8 bits
    assert model.image_size == SIDE and model.committee is None and not model.multi_label
    assert len(model.probabilities(torch.zeros(0, 3, 8, 8, dtype=torch.uint8))) == 0


def test_many_images_of_another_size(tmp_path: Path) -> None:
    """37 are asked about in several batches; each is stretched."""
    model = classifier(onnx_colors(tmp_path / "m"))
    images = torch.rand(37, 3, 20, 33, generator=torch.Generator().manual_seed(0))
    together = model.predict(images).probabilities
    alone = torch.cat([p for each in images if (p := model.predict(each[None]).probabilities) is not None])
    assert together is not None and together.shape == (37, 3) and torch.allclose(together, alone, atol=1e-6)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, (0.2, 0.4, 0.6)),
        ({"colors": "BGR"}, (0.6, 0.4, 0.2)),
        ({"scale": 255}, (51, 102, 153)),
        ({"mean": [0.1, 0.1, 0.1], "std": [0.5, 0.25, 0.125]}, (0.2, 1.2, 4.0)),
    ],
)
def test_what_goes_in(tmp_path: Path, given: dict[str, Any], expected: tuple[float, ...]) -> None:
    exported(tmp_path, Scores(), batch=None, height=SIDE, width=SIDE)
    described(
        tmp_path,
        type="image_classification",
        file="model.pt2",
        labels=list(COLORS),
        input={"width": SIDE, "height": SIDE, **given},
        outputs={"scores": "0"},
        activation="softmax",
    )
    said = classifier(tmp_path).predict(plain((0.2, 0.4, 0.6))).probabilities
    assert said is not None and torch.allclose(said[0], torch.tensor(expected).float().softmax(dim=0), atol=1e-5)


@pytest.mark.parametrize(
    ("numbers", "changes", "expected"),
    [
        ((0.2, 0.3, 0.5), {}, (0.2, 0.3, 0.5)),
        ((0.0, 0.0, 2.0), {"activation": "sigmoid", "multi_label": True}, (0.5, 0.5, 0.8808)),
        ((0.9, 0.8, 0.1), {"multi_label": True}, (0.9, 0.8, 0.1)),
        ((1.0, 2.0, 3.0), {"activation": "softmax"}, (0.0900, 0.2447, 0.6652)),
    ],
)
def test_what_comes_out(
    tmp_path: Path, numbers: tuple[float, ...], changes: dict[str, Any], expected: tuple[float, ...]
) -> None:
    assert torch.allclose(
        said_of(tmp_path, Scores(*numbers, shape=(1, 3)), **changes), torch.tensor(expected), atol=1e-4
    )


def said_of(folder: Path, model: nn.Module, **changes: Any) -> Tensor:
    exported(folder, model, batch=1, height=SIDE, width=SIDE)
    fields: dict[str, Any] = {
        "type": "image_classification",
        "file": "model.pt2",
        "labels": list(COLORS),
        "input": {"width": SIDE, "height": SIDE},
        "outputs": {"scores": "0"},
        "batch": 1,
    }
    described(folder, **{**fields, **changes})
    said = classifier(folder).predict(plain((0.5, 0.5, 0.5))).probabilities
    assert said is not None
    return said[0]


def test_a_label_with_its_confidence(tmp_path: Path) -> None:
    """The documented form `predicted_label` and one score: the rest is shared by the other labels."""

    class Documented(nn.Module):
        def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
            sure = 0 * images.mean(dim=(1, 2, 3)) + 0.7
            return sure.long() + 1, sure

    said = said_of(tmp_path, Documented(), outputs={"predicted_label": "0", "scores": "1"})
    assert said.tolist() == pytest.approx([0.15, 0.7, 0.15])


@pytest.mark.parametrize("sure", [0.45, 0.0])
def test_a_label_that_is_named_is_the_likeliest_however_unsure_it_is(tmp_path: Path, sure: float) -> None:
    """A score of one against the rest may be below 1 / k: the row sums to 1 all the same, the named label on top."""

    class Unsure(nn.Module):
        def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
            nothing = 0 * images.mean(dim=(1, 2, 3))
            return nothing.long() + 1, nothing + sure

    said = said_of(tmp_path, Unsure(), labels=["cat", "dog"], outputs={"predicted_label": "0", "scores": "1"})
    assert said.sum().item() == pytest.approx(1.0) and said.argmax().item() == 1
    assert said.tolist() == pytest.approx([0.5, 0.5], abs=1e-3)


@pytest.mark.parametrize(
    ("numbers", "changes", "message"),
    [
        ((1.0, 2.0, 3.0), {}, "must be in [0, 1], got 1 to 3; does model.json lack an activation?"),
        ((0.5, 0.4, 0.4), {}, "must sum to 1 for each image, got 1.3"),
        ((0.5, 0.5), {}, "0 must be (B, 3), a number a label, got (1, 2)"),
        ((0.2, float("nan"), 0.5), {}, "0 must be finite, got NaN or infinity"),
        ((0.2, 0.3, 0.5), {"outputs": {"scores": "softmax"}}, "must have an output 'softmax', got '0'"),
    ],
)
def test_numbers_that_are_no_probabilities(
    tmp_path: Path, numbers: tuple[float, ...], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError) as error:
        said_of(tmp_path, Scores(*numbers, shape=(1, len(numbers))), **changes)
    assert message in str(error.value) and str(tmp_path / "model.pt2") in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"type": "image_segmentation"}, "type must be image_classification or object_detection"),
        ({"type": []}, "type must be"),
        ({"labels": []}, "labels: "),
        ({"labels": ["a", "a", "b"]}, "must be different from each other"),
        ({"file": "../model.onnx"}, "file: "),
        ({"file": "model.pkl"}, "file: "),
        ({"file": "other.onnx"}, "must be a file of a model, got nothing there"),
        ({"input": {"width": 0, "height": 16}}, "input.width: "),
        ({"input": {"width": 16, "height": 16, "std": [0, 1, 1]}}, "input.std.0: "),
        ({"input": {"width": 16, "height": 16, "fit": "shrink"}}, "input.fit: "),
        ({"input": {"width": 16, "height": 16, "name": "pixels"}}, "input.name must be one of images, got 'pixels'"),
        ({"colour": "red"}, "colour: "),
        ({"version": 2}, "version: "),
        ({"activation": "softmax", "multi_label": True}, "activation: must be sigmoid or none"),
        ({"input": {"width": 17, "height": 16}}, "does not run on (2, 3, 16, 17) float32"),
    ],
)
def test_a_description_that_does_not_fit(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    onnx_colors(tmp_path / "m", **changes)
    with pytest.raises(InputError) as error:
        load_any(tmp_path / "m")
    assert message in str(error.value) and "\n" not in str(error.value)


def test_files_that_are_no_graphs(tmp_path: Path) -> None:
    for name in ("model.onnx", "model.pt2"):
        folder = onnx_colors(tmp_path / name, file=name)
        (folder / name).write_bytes(b"PK\x03\x04 no graph")
        with pytest.raises(InputError, match="cannot be read"):
            load_any(folder)


def test_without_onnxruntime_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"pip install '\.\[onnx\]' in the folder"):
        load_any(onnx_colors(tmp_path / "m"))


def test_it_is_no_model_of_ours(tmp_path: Path) -> None:
    folder = onnx_colors(tmp_path / "m")
    with pytest.raises(InputError, match="labelengine-model"):
        load_model(folder)
    info = read_model_info(folder)
    assert (info.type, info.labels, info.input_size, info.origin) == (
        "image_classification",
        COLORS,
        (SIDE, SIDE),
        "ONNX",
    )
    assert info.bytes == sum(each.stat().st_size for each in folder.iterdir())
    before = info.id
    (folder / "model.onnx").write_bytes((folder / "model.onnx").read_bytes() + b"\0")
    assert read_model_info(folder).id != before


# ---- Detectors. ----


def lit(width: int, height: int, box: tuple[int, int, int, int]) -> Tensor:
    """A dark image with one bright rectangle, (1, 3, height, width)."""
    image = torch.full((1, 3, height, width), 0.1)
    x1, y1, x2, y2 = box
    image[:, :, y1:y2, x1:x2] = 1.0
    return image


def found_on(model: ForeignDetector, image: Tensor) -> Boxes:
    told = model.predict(image)
    assert told.boxes is not None
    return told.boxes[0]


@pytest.mark.parametrize("fit", ["stretch", "pad"])
@pytest.mark.parametrize("size", [(120, 80), (120, 40), (60, 160), (60, 40)])
def test_boxes_come_back_in_pixels_of_the_image(tmp_path: Path, fit: str, size: tuple[int, int]) -> None:
    model = detector(bright_detector(tmp_path, input={"width": 60, "height": 40, "fit": fit}))
    width, height = size
    box = (width // 4, height // 4, width * 3 // 4, height // 2)
    found = found_on(model, lit(width, height, box))
    scale = max(width / 60, height / 40)  # a pixel of what the graph sees
    assert found.xyxy.shape == (1, 4) and found.classes.tolist() == [0]
    assert found.scores.tolist() == pytest.approx([0.9])
    assert (found.xyxy[0] - torch.tensor(box)).abs().max() <= scale
    assert len(found_on(model, torch.full((1, 3, height, width), 0.1)).scores) == 0


def test_a_batch_of_fixed_size_is_filled_up(tmp_path: Path) -> None:
    model = detector(bright_detector(tmp_path, batch=3))
    images = torch.cat([lit(60, 40, (5 + at, 10, 30 + at, 20)) for at in range(7)])
    told = model.predict(images)
    assert told.boxes is not None
    assert [each.xyxy[0, 0].item() for each in told.boxes] == [5, 6, 7, 8, 9, 10, 11]


class Fixed(nn.Module):
    """Says the same boxes of every image: two that overlap, and one outside."""

    def __init__(self, boxes: list[list[float]], scores: Tensor | None = None) -> None:
        super().__init__()
        self.boxes = torch.tensor(boxes)
        self.scores = torch.tensor([[2.0, -3.0], [1.0, -3.0], [0.0, 1.0]]) if scores is None else scores

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        nothing = 0 * images.sum()
        return self.boxes + nothing, self.scores + nothing


@pytest.mark.parametrize(
    ("boxes", "changes"),
    [
        ([[10, 20, 30, 40], [11, 20, 31, 40], [-5, 8, 25, 90]], {"boxes": "xyxy"}),
        ([[20, 10, 40, 30], [20, 11, 40, 31], [8, -5, 90, 25]], {"boxes": "yxyx"}),
        ([[20, 30, 20, 20], [21, 30, 20, 20], [10, 49, 30, 82]], {"boxes": "cxcywh"}),
        ([[0.1, 0.4, 0.3, 0.8], [0.11, 0.4, 0.31, 0.8], [-0.05, 0.16, 0.25, 1.8]], {"boxes": "xyxy", "unit": "share"}),
        ([[0.4, 0.1, 0.8, 0.3], [0.4, 0.11, 0.8, 0.31], [0.16, -0.05, 1.8, 0.25]], {"unit": "share"}),
    ],
)
def test_every_spelling_of_boxes(tmp_path: Path, boxes: list[list[float]], changes: dict[str, Any]) -> None:
    """Overlapping boxes of a class become one with `iou`, what reaches out is cut, the surest comes first."""
    exported(tmp_path, Fixed(boxes), batch=1, height=50, width=100)
    fields: dict[str, Any] = {
        "type": "object_detection",
        "file": "model.pt2",
        "labels": ["a", "b"],
        "input": {"width": 100, "height": 50},
        "outputs": {"detection_boxes": "0", "detection_scores": "1"},
        "activation": "sigmoid",
        "batch": 1,
    }
    described(tmp_path, **{**fields, **changes, "iou": 0.5})
    found = found_on(detector(tmp_path), torch.zeros(1, 3, 50, 100))
    assert torch.allclose(found.xyxy, torch.tensor([[10.0, 20, 30, 40], [0, 8, 25, 50]]), atol=1e-4)
    assert found.classes.tolist() == [0, 1]
    assert found.scores.tolist() == pytest.approx([0.8808, 0.7311], abs=1e-4)
    described(tmp_path, **{**fields, **changes})
    assert len(found_on(detector(tmp_path), torch.zeros(1, 3, 50, 100)).scores) == 3


def scored(folder: Path, scores: Tensor, labels: tuple[str, ...]) -> Boxes:
    """What is found by a graph that gives these scores to three boxes."""
    boxes = [[0.0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]]
    exported(folder, Fixed(boxes, scores), batch=1, height=50, width=100)
    described(
        folder,
        type="object_detection",
        file="model.pt2",
        labels=list(labels),
        input={"width": 100, "height": 50},
        outputs={"detection_boxes": "0", "detection_scores": "1"},
        boxes="xyxy",
        batch=1,
    )
    return found_on(detector(folder), torch.zeros(1, 3, 50, 100))


@pytest.mark.parametrize("layout", ["(m, k)", "(1, m, k)", "(k, m)", "(1, k, m)"])
def test_scores_belong_to_their_boxes_in_either_layout(tmp_path: Path, layout: str) -> None:
    scores = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]])
    scores = scores.T.contiguous() if "k, m" in layout else scores
    found = scored(tmp_path, scores[None] if "1" in layout else scores, ("a", "b"))
    assert found.xyxy[:, 0].tolist() == [0, 20, 40] and found.classes.tolist() == [0, 1, 0]
    assert found.scores.tolist() == pytest.approx([0.9, 0.8, 0.7])


def test_scores_of_one_label_need_no_side_for_it(tmp_path: Path) -> None:
    found = scored(tmp_path, torch.tensor([[0.7, 0.9, 0.8]]), ("a",))
    assert found.xyxy[:, 0].tolist() == [20, 40, 0] and found.classes.tolist() == [0, 0, 0]


def test_scores_of_another_shape_are_refused_though_they_are_as_many(tmp_path: Path) -> None:
    message = r"1 must be \(B, m, 4\) or \(B, 4, m\), m = 3, got \(2, 6\)"
    with pytest.raises(InputError, match=message):
        scored(tmp_path, torch.full((2, 6), 0.1), ("a", "b", "c", "d"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input": {"width": 60, "height": 40, "fit": "crop"}}, "input.fit: must be stretch or pad"),
        ({"iou": 1.5}, "iou: "),
        ({"score_threshold": -1}, "score_threshold: "),
        ({"outputs": {"detection_boxes": "scores", "detection_scores": "scores"}}, "scores must be (B, m, 4)"),
        ({"outputs": {"detection_boxes": "boxes"}}, "outputs.detection_scores: "),
    ],
)
def test_a_detector_that_does_not_fit(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    bright_detector(tmp_path, **changes)
    with pytest.raises(InputError) as error:
        load_any(tmp_path)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_how_an_image_gets_its_size() -> None:
    """200 x 100 pixels into 50 x 50: all of it squeezed, all of it with grey above and below, its middle."""
    rgb = np.zeros((100, 200, 3), np.uint8)
    rgb[:, 100:] = 255
    places = {fit: placed(ForeignInput(width=50, height=50, fit=fit), 200, 100) for fit in ("stretch", "pad", "crop")}
    assert places["stretch"] == Placed(0.25, 0.5, 0.0, 0.0)
    assert places["pad"] == Placed(0.25, 0.25, 0, 12)
    assert places["crop"] == Placed(0.5, 0.5, -25.0, 0.0)
    seen = {
        fit: fitted(ForeignInput(width=50, height=50, fit=fit), rgb, place, 200, 100) for fit, place in places.items()
    }
    for each in seen.values():
        assert each.shape == (50, 50, 3) and each[25, 10, 0] == 0 and each[25, 40, 0] == 255
    assert seen["pad"][2, 10].tolist() == [114] * 3 and seen["stretch"][2, 40, 0] == 255
    # Of a JPEG that was decoded at half its size the place is the same.
    assert np.array_equal(
        fitted(ForeignInput(width=50, height=50, fit="crop"), rgb[::2, ::2], places["crop"], 200, 100), seen["crop"]
    )


def test_a_crop_of_a_very_long_image_takes_no_more_room_than_it_shows() -> None:
    given = ForeignInput(width=32, height=32, fit="crop")
    rgb = np.zeros((2, 30_000, 3), np.uint8)
    rgb[:, 14_999:15_001] = 255
    seen = fitted(given, rgb, placed(given, 30_000, 2), 30_000, 2)
    assert seen.shape == (32, 32, 3) and seen.min() == 255


def test_words_instead_of_numbers(tmp_path: Path) -> None:
    folder = onnx_colors(tmp_path / "m")
    model = classifier(folder)

    class Words:
        place = folder / "model.onnx"

        def run(self, batch: Any) -> dict[str, Any]:
            return {"logits": np.array([["cat", "dog", "owl"]] * len(batch))}

    with pytest.raises(InputError, match="logits must be numbers"):
        ForeignClassifier(model.form, Words()).predict(plain((0.1, 0.1, 0.1)))


def test_a_graph_of_one_image_at_a_time_must_say_so(tmp_path: Path) -> None:
    exported(tmp_path, Scores(0.2, 0.3, 0.5, shape=(1, 3)), batch=1, height=SIDE, width=SIDE)
    told = {"type": "image_classification", "file": "model.pt2", "labels": list(COLORS), "outputs": {"scores": "0"}}
    described(tmp_path, **told, input={"width": SIDE, "height": SIDE})
    with pytest.raises(InputError, match=r"needs `batch` in model\.json"):
        load_any(tmp_path)


class Lamps:
    """Finds the bright rectangle of an image where it lies in the left half; sees 60 x 40 pixels."""

    labels = ("lamp",)
    side = 60

    def predict(self, images: Tensor) -> Predictions:
        assert max(images.shape[2:]) <= self.side
        found = [found_bright(image) for image in images]
        return Predictions(self.labels, boxes=tuple(each if left(each, images.shape[3]) else NOTHING for each in found))


NOTHING = Boxes(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))


def left(boxes: Boxes, width: int) -> bool:
    return bool((boxes.xyxy[:, 2] <= width / 2).all())


def found_bright(image: Tensor) -> Boxes:
    light = (image.mean(dim=0) > 0.6).nonzero()
    (y1, x1), (y2, x2) = light.amin(dim=0).tolist(), (light.amax(dim=0) + 1).tolist()
    return Boxes(torch.tensor([[x1, y1, x2, y2]]).float(), torch.tensor([0.8]), torch.zeros(1, dtype=torch.int64))


def test_any_detector_is_asked_whether_boxes_stay_where_the_image_is_altered(tmp_path: Path) -> None:
    pixels = np.zeros((80, 120, 3), np.uint8)  # twice what the detector sees
    pixels[20:40, 12:36] = 255
    path = tmp_path / "lamp.png"
    cv2.imwrite(os.fspath(path), pixels)
    (tmp_path / "broken.png").write_bytes(b"no image")
    box, sure = torch.tensor([[12.0, 20.0, 36.0, 40.0]]), torch.tensor([0.8])
    asked = [(path, 1), (path, 0), (tmp_path / "broken.png", 1)]
    looked = [Looked(place, box, torch.tensor([kind]), sure, -1) for place, kind in asked]
    names = ("fliplr", "sharpen", "translate")
    found = box_changes(looked, Lamps(), names, names=("cat", "lamp"), threads=1, max_pixels=10**6)
    lamp, misnamed, unreadable = torch.stack([found[OPERATORS[name]] for name in names]).T
    assert lamp.tolist() == [1.0, 0.0, pytest.approx(0.0, abs=0.15)]  # mirrored it lies where nothing is found
    assert misnamed.tolist() == [1.0, 1.0, 1.0]
    assert unreadable.isnan().all()


def test_a_detector_that_fails_on_an_image_tells_nothing_of_its_boxes(tmp_path: Path) -> None:
    class Failing(Lamps):
        def predict(self, images: Tensor) -> Predictions:
            raise InputError("scores must be finite, got NaN or infinity")

    cv2.imwrite(str(tmp_path / "lamp.png"), np.zeros((40, 60, 3), np.uint8))
    box, sure = torch.tensor([[12.0, 20.0, 36.0, 40.0]]), torch.tensor([0.8])
    looked = [Looked(tmp_path / "lamp.png", box, torch.tensor([0]), sure, -1)]
    asked = partial(box_changes, detector=Failing(), operators=("fliplr",), names=("lamp",), threads=1)
    assert asked(looked, max_pixels=10**6)[OPERATORS["fliplr"]].isnan().all()
    with pytest.raises(InputError, match="must be finite, got NaN"):  # it is not the images
        asked(looked * 2, max_pixels=10**6)
