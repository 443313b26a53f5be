"""The parts of the detector, each by itself: what is wanted, shown, decoded, and counted as right."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import draw
from torch import Tensor

from engine.detect.accurate import taught_loss
from engine.detect.average_precision import Found, box_scores
from engine.detect.canvases import GREY, Canvas, read_canvases
from engine.detect.decode import Raw, decoded, mean_maps, probable, unflipped
from engine.detect.detector import Calibration
from engine.detect.judging import calibrated, matched, thresholds
from engine.detect.losses import Drawn, boxes_of, detection_loss, overlaps, wanted
from engine.detect.network import CELL, Detector, DetectorSpec, Maps, initialised_detector
from engine.detect.plan import BoxSettings, plan_for
from engine.detect.pool import BoxPool, padded
from engine.detect.sketches import check_rules, fitted, sketches_of
from engine.detect.views import View, covered, viewed
from engine.errors import InputError, UsageError
from engine.label.augment import Policy
from engine.label.networks import NetworkSpec, fit_stem
from engine.label.training import generator_of
from engine.samples import OBJECT_DETECTION, UNREAD_KEY, Drawing, Label, Sample, Shape
from engine.sources import Sources
from engine.voc import parse_voc

SPEC = DetectorSpec((16, 16, 16, 16), 16, 2, 8.0)


def detector() -> Detector:
    images = torch.randint(0, 255, (4, 3, 64, 96), dtype=torch.uint8, generator=generator_of("noise"))
    return initialised_detector(SPEC, fit_stem(images, NetworkSpec(96, (1,), 1)), generator_of("net")).eval()


def boxes(*rows: tuple[float, ...]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)


def one(xyxy: Tensor, classes: list[int]) -> Drawn:
    return padded([xyxy], [torch.tensor(classes)])


# ---- What is wanted.


def test_the_cell_of_a_middle_is_sure_and_what_lies_outside_the_box_is_not() -> None:
    found = wanted(one(boxes((8, 8, 40, 24)), [1]), 2, 32, 48)
    assert found.centers.shape == (1, 2, 8, 12)
    at = found.centers[0, 1] == 1
    assert at.nonzero().tolist() == [[4, 6]]  # the middle is (24, 16): in the cell of 24..28, 16..20
    assert not found.centers[0, 0].any()
    outside = found.centers[0, 1].clone()
    outside[2:6, 2:10] = 0
    assert not outside.any()


@pytest.mark.parametrize("side", [1.0, 3.0, 16.0, 200.0])
def test_every_object_counts_the_same_whatever_its_size(side: float) -> None:
    found = wanted(one(boxes((50.2 - side / 2, 30.7 - side / 2, 50.2 + side / 2, 30.7 + side / 2)), [0]), 1, 64, 128)
    assert found.weights.sum() == pytest.approx(1.0, abs=1e-5)
    assert found.centers.max() == 1


def test_an_object_inside_another_has_its_middle() -> None:
    drawn = one(boxes((0, 0, 40, 40), (12, 12, 28, 28)), [0, 0])
    found = wanted(drawn, 1, 40, 80)
    small = (found.boxes[0, 0] == 12) & (found.weights[0] > 0)
    large = (found.boxes[0, 0] == 0) & (found.weights[0] > 0)
    assert small.any() and large.any()
    far = found.weights[0].clone()
    far[:, :10] = 0
    assert not far.any()


def test_many_boxes_are_laid_out_in_parts_as_they_would_be_together() -> None:
    chance = generator_of("many")
    corner = torch.rand(150, 2, generator=chance) * 100
    xyxy = torch.cat([corner, corner + 4 + 20 * torch.rand(150, 2, generator=chance)], dim=1)
    classes = torch.randint(0, 2, (150,), generator=chance)
    together = wanted(padded([xyxy], [classes]), 2, 128, 128)
    apart = [wanted(padded([xyxy[i : i + 1]], [classes[i : i + 1]]), 2, 128, 128) for i in range(150)]
    assert torch.equal(together.centers, torch.stack([each.centers for each in apart]).amax(dim=0))
    assert together.weights.sum() <= 150 + 1e-3


def test_what_is_unsure_is_neither_an_object_nor_none() -> None:
    drawn = Drawn(boxes((8, 8, 24, 24))[None], torch.tensor([[0]]), torch.tensor([[0.0]]))
    found = wanted(drawn, 1, 32, 32)
    assert not found.centers.any() and not found.weights.any()
    assert found.care[0, 0, 3, 3] == 0 and found.care[0, 0, 0, 0] == 1


def test_overlaps_by_hand() -> None:
    iou, general = overlaps(boxes((0, 0, 2, 2), (0, 0, 1, 1)), boxes((1, 0, 3, 2), (2, 0, 3, 1)))
    assert iou.tolist() == pytest.approx([1 / 3, 0.0])
    assert general.tolist() == pytest.approx([1 / 3, -1 / 3])  # hull of the second pair: 3, union: 2


def perfect(drawn: Drawn, outputs: int, height: int, width: int) -> Maps:
    """What a detector would say that has learned everything."""
    found = wanted(drawn, outputs, height, width)
    h, w = height // CELL, width // CELL
    xs = (torch.arange(w) + 0.5) * CELL
    ys = ((torch.arange(h) + 0.5) * CELL)[:, None]
    x1, y1, x2, y2 = found.boxes.unbind(1)
    edges = torch.stack([xs - x1, ys - y1, x2 - xs, y2 - ys], dim=1).clamp(min=0.1)
    return Maps(found.centers.clamp(1e-4, 1 - 1e-4).logit(), edges, torch.full((len(found.weights), h, w), 4.0))


def test_the_loss_is_least_where_everything_is_right() -> None:
    drawn = one(boxes((8, 8, 40, 24), (50, 30, 60, 60)), [1, 0])
    target = wanted(drawn, 2, 64, 96)
    right = detection_loss(perfect(drawn, 2, 64, 96), target)
    moved = perfect(drawn, 2, 64, 96)
    shifted = Maps(moved.centers, moved.edges * 1.5, moved.fits)
    renamed = Maps(moved.centers.flip(1), moved.edges, moved.fits)
    assert right < detection_loss(shifted, target) and right < detection_loss(renamed, target)


def test_images_without_objects_have_a_loss_too() -> None:
    target = wanted(padded([torch.zeros(0, 4)], [torch.zeros(0, dtype=torch.int64)]), 2, 64, 96)
    loss = detection_loss(detector()(torch.rand(1, 3, 64, 96, generator=generator_of("x"))), target)
    assert 0 < float(loss.detach()) < 1e4


# ---- What is decoded.


def test_what_was_drawn_is_found_again() -> None:
    xyxy = boxes((8, 8, 40, 24), (50, 30, 60, 60), (52, 4, 90, 28))
    raw = decoded(probable(perfect(one(xyxy, [1, 0, 1]), 2, 64, 96)))[0]
    found = {
        (of, *[round(edge) for edge in box]) for of, box in zip(raw.classes.tolist(), raw.xyxy.tolist(), strict=True)
    }
    assert found == {(1, 8, 8, 40, 24), (0, 50, 30, 60, 60), (1, 52, 4, 90, 28)}
    assert (raw.scores[:-1] >= raw.scores[1:]).all()


def test_nothing_is_found_where_nothing_is() -> None:
    nothing = padded([torch.zeros(0, 4)], [torch.zeros(0, dtype=torch.int64)])
    assert len(decoded(probable(perfect(nothing, 2, 64, 96)))[0]) == 0


@pytest.mark.parametrize("axis", [2, 3])
def test_maps_of_mirrored_images_are_mirrored_back(axis: int) -> None:
    xyxy = boxes((8, 8, 40, 24), (50, 30, 60, 60))
    size = (64, 96)
    mirrored = xyxy.clone()
    low, high, side = (0, 2, size[1]) if axis == 3 else (1, 3, size[0])
    mirrored[:, low], mirrored[:, high] = side - xyxy[:, high], side - xyxy[:, low]
    back = unflipped(probable(perfect(one(mirrored, [1, 0]), 2, *size)), axis)
    raw = decoded(back)[0]
    assert sorted(raw.xyxy.round().tolist()) == sorted(xyxy.tolist())
    assert torch.equal(mean_maps([back, back]).edges, back.edges)


def test_a_detector_answers_images_of_any_multiple_of_a_cell() -> None:
    maps = detector()(torch.rand(2, 3, 60, 100, generator=generator_of("x")))
    assert maps.centers.shape == (2, 2, 15, 25) and maps.edges.shape == (2, 4, 15, 25)
    assert (maps.edges > 0).all()
    assert boxes_of(maps.edges).shape == (2, 4, 15, 25)


# ---- What is shown.


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("flips", [(False, False), (True, True)])
def test_boxes_go_where_their_pixels_go(flips: tuple[bool, bool], turned: bool) -> None:
    images = torch.zeros(16, 3, 64, 96, dtype=torch.uint8)
    images[:, :, 20:40, 30:60] = 255
    drawn = padded([boxes((30, 20, 60, 40))] * 16, [torch.tensor([0])] * 16)
    view = View((0.6, 1.6), 0.3, flips=flips, transposed=turned)
    shown, moved = viewed(images, drawn, view, (56, 72), generator_of("views"))
    sides = (moved.xyxy[:, 0, 2:] - moved.xyxy[:, 0, :2]).unbind(1)
    assert bool((sides[0] < sides[1]).any()) == turned  # a lying box stands
    for at in range(16):
        bright = (shown[at, 0] > 0.75).nonzero()
        if not len(bright):
            continue
        assert moved.classes[at, 0] == 0
        y1, x1 = bright.amin(dim=0).tolist()
        y2, x2 = (bright.amax(dim=0) + 1).tolist()
        assert moved.xyxy[at, 0].tolist() == pytest.approx([x1, y1, x2, y2], abs=1.6)
    assert len({tuple(box) for box in moved.xyxy[:, 0].round().tolist()}) > 8


def test_what_is_shown_is_as_sharp_where_networks_compute_in_bfloat16() -> None:
    images = torch.randint(0, 255, (2, 3, 64, 320), dtype=torch.uint8, generator=generator_of("noise"))
    drawn = padded([boxes((1, 2, 30, 40))] * 2, [torch.tensor([0])] * 2)
    view = View((0.5, 2.0), color=Policy(light=0.3, hue=20))
    exact, _ = viewed(images, drawn, view, (64, 320), generator_of("same"))
    with torch.autocast("cpu", torch.bfloat16):
        shown, _ = viewed(images, drawn, view, (64, 320), generator_of("same"))
    assert torch.equal(shown, exact)


def test_what_is_cut_off_counts_no_more() -> None:
    images = torch.zeros(64, 3, 64, 96, dtype=torch.uint8)
    drawn = padded([boxes((80, 50, 96, 64))] * 64, [torch.tensor([0])] * 64)
    _, moved = viewed(images, drawn, View((1.0, 1.0)), (56, 84), generator_of("cut"))
    kept = moved.classes[:, 0] == 0
    assert (moved.xyxy[kept][:, 0, 2] <= 84).all() and (moved.xyxy[kept][:, 0, 3] <= 56).all()
    areas = (moved.xyxy[:, 0, 2:] - moved.xyxy[:, 0, :2]).prod(dim=1) / (16 * 14)
    assert ((moved.weights[:, 0] > 0) == (areas >= 1 / 3 - 1e-6)).all()


def test_the_same_generator_gives_the_same_view() -> None:
    images = torch.randint(0, 255, (2, 3, 64, 96), dtype=torch.uint8, generator=generator_of("noise"))
    drawn = padded([boxes((1, 2, 30, 40))] * 2, [torch.tensor([0])] * 2)
    first, second = (viewed(images, drawn, View((0.5, 2.0)), (64, 64), generator_of("same")) for _ in range(2))
    assert torch.equal(first[0], second[0]) and torch.equal(first[1].xyxy, second[1].xyxy)


# ---- Canvases.


def test_an_image_keeps_its_proportions_and_the_rest_is_grey(tmp_path: Path) -> None:
    pixels = np.full((40, 100, 3), 250, np.uint8)
    cv2.imwrite(str(tmp_path / "wide.png"), pixels)
    canvas = Canvas(64, 64)
    found = read_canvases(
        [Sample("wide.png"), Sample("gone.png")],
        Sources(tmp_path),
        [0, 1],
        canvas,
        folder=tmp_path / "cache",
        threads=1,
        max_pixels=10**6,
    )
    assert found.index.tolist() == [0] and found.sizes.tolist() == [[100, 40]]
    assert [failure.kind for failure in found.failures] == ["missing"]
    shown = found.rows(torch.tensor([0]))[0]
    assert (shown[:, :26] == 250).all() and (shown[:, 26:] == GREY).all()
    assert found.scales.tolist() == [0.64]


def test_a_large_jpeg_is_not_decoded_smaller_than_it_is_shown(tmp_path: Path) -> None:
    draw(tmp_path / "large.jpg", size=(1200, 800))
    content = (tmp_path / "large.jpg").read_bytes()
    _, small = Canvas(240, 320).of(content, 10**7)
    _, large = Canvas(800, 1200).of(content, 10**7)
    assert small.reduction == 2 and large.reduction == 1


# ---- What people drew.


def sample(
    name: str, *shapes: Shape, size: tuple[int, int, int] | None = (100, 80, 3), by: str | None = None
) -> Sample:
    return Sample(name, (Label(OBJECT_DETECTION, annotated_by=by, drawing=Drawing(shapes, size)),))


def box(name: str, *xyxy: float) -> Shape:
    return Shape(name, "bndbox", (xyxy[:2], xyxy[2:]))


def test_only_peoples_rectangles_count() -> None:
    ring = Shape("ring", "circle", ((5.0, 5.0), (3.0,)))
    sketches = sketches_of(
        [
            sample("a", box("cat", 1, 2, 3, 4), ring),
            sample("b", box("dog", 1, 2, 3, 4), by="modelarts/auto"),
            sample("empty"),
            Sample("nothing"),
        ]
    )
    assert sketches.labels == ("cat",)
    assert sketches.labeled.tolist() == [True, False, True, False]
    assert [len(each) for each in sketches.boxes] == [1, 0, 0, 0]


def test_two_drawings_of_other_sizes_are_of_one_image() -> None:
    labels = [
        Label(OBJECT_DETECTION, drawing=Drawing((box("cat", 10, 10, 50, 40),), (100, 80, 3))),
        Label(OBJECT_DETECTION, drawing=Drawing((box("dog", 100, 80, 200, 160),), (200, 160, 3))),
    ]
    samples = [Sample("a", tuple(labels))]
    done = fitted(sketches_of(samples), samples, np.array([[100, 80]]))
    assert done.sketches.boxes[0].tolist() == [[10, 10, 50, 40], [50, 40, 100, 80]] and not done.failures


def test_a_drawing_that_does_not_fit_the_others_is_not_learned() -> None:
    labels = [
        Label(OBJECT_DETECTION, drawing=Drawing((box("cat", 10, 10, 50, 40),), (100, 80, 3))),
        Label(OBJECT_DETECTION, drawing=Drawing((box("dog", 10, 10, 20, 20),), (80, 100, 3))),
    ]
    samples = [
        Sample("a", tuple(labels)),
        Sample("b", (Label(OBJECT_DETECTION, drawing=Drawing((), (0, 0, 0))), labels[0])),
    ]
    done = fitted(sketches_of(samples), samples, np.array([[100, 80], [200, 160]]))
    assert done.sketches.labeled.tolist() == [False, True]
    assert "states 80x100 pixels, the image has 100x80" in done.failures[0].reason
    assert done.sketches.boxes[1].tolist() == [[20, 20, 100, 80]]


def test_objects_that_nobody_understands_are_not_nothing() -> None:
    robots = b"<annotation><object><name>cat</name><robndbox><cx>5</cx></robndbox></object></annotation>"
    drawings = [
        parse_voc(robots, "a.xml")[0],
        Drawing((), (100, 80, 3), extra={UNREAD_KEY: "2"}),
        Drawing((box("cat", 1, 2, 3, 4),), (100, 80, 3), extra={UNREAD_KEY: "2"}),
    ]
    samples = [Sample(str(at), (Label(OBJECT_DETECTION, drawing=each),)) for at, each in enumerate(drawings)]
    sketches = sketches_of(samples)
    assert sketches.labeled.tolist() == [False, False, True]
    assert sketches.by_people.all()  # and so no machine draws there


def test_boxes_are_fitted_to_the_image_that_is_there() -> None:
    samples = [
        sample("half", box("cat", 10, 10, 50, 40), size=(200, 160, 3)),
        sample("turned", box("cat", 10, 10, 50, 40), size=(80, 100, 3)),
        sample("outside", box("cat", -10, 10, 50, 400), box("cat", 300, 300, 400, 400), box("cat", 50, 40, 10, 60)),
        sample("unread", box("cat", 10, 10, 50, 40)),
    ]
    sizes = np.array([[100, 80], [100, 80], [100, 80], [0, 0]])
    done = fitted(sketches_of(samples), samples, sizes)
    assert done.sketches.boxes[0].tolist() == [[5, 5, 25, 20]]
    assert done.sketches.labeled.tolist() == [True, False, True, False]
    assert done.sketches.boxes[2].tolist() == [[0, 10, 50, 80]]
    reasons = {failure.source: failure.reason for failure in done.failures}
    assert reasons == {
        "turned": "its file states 80x100 pixels, the image has 100x80: not learned",
        "outside": "2 of 3 boxes have no area inside the image: left out",
    }
    assert done.sketches.kept[2].tolist() == [True, False, False]
    lost = [sample("lost", box("cat", 300, 300, 400, 400))]
    assert not fitted(sketches_of(lost), lost, np.array([[100, 80]])).sketches.labeled.any()  # it is not empty


def test_rules_are_said_in_one_line_each() -> None:
    few = sketches_of([sample(str(at), box("cat", 1, 2, 3, 4)) for at in range(3)])
    with pytest.raises(
        InputError, match=r"on at least 5 readable images.*'cat' on 3\nauto labeling needs at least 1 un"
    ):
        check_rules(few, 0)
    check_rules(few, 1, min_per_class=3)
    with pytest.raises(InputError, match="needs boxes that people drew, got none"):
        check_rules(sketches_of([Sample("a")]), 1)
    with pytest.raises(UsageError, match="min_per_class: must be at least 2, got 1"):
        check_rules(few, 1, min_per_class=1)


# ---- What is right.


def signs(names: tuple[str, ...], images: int, each: int) -> BoxPool:
    """Images full of signs of 12 pixels, every name as often."""
    outlines = {
        "left": [(1, 6), (10, 1), (10, 10)],
        "right": [(10, 6), (1, 1), (1, 10)],
        "square": [(1, 1), (10, 1), (10, 10), (1, 10)],
        "diamond": [(6, 0), (11, 6), (6, 11), (0, 6)],
        "bar": [(5, 0), (7, 0), (7, 11), (5, 11)],
        "cross": [(5, 0), (7, 0), (7, 5), (11, 5), (11, 7), (7, 7), (7, 11), (5, 11), (5, 7), (0, 7), (0, 5), (5, 5)],
    }
    rng = np.random.default_rng(0)
    pixels, boxes, classes = [], [], []
    for _ in range(images):
        canvas = rng.normal(120, 20, (256, 336, 3)).clip(0, 255).astype(np.uint8)
        cells = rng.permutation(21 * 28)[:each]
        shown = np.arange(each) % len(names)
        for cell, of in zip(cells.tolist(), shown.tolist(), strict=True):
            corner = np.array([cell % 28, cell // 28]) * 12
            cv2.fillPoly(canvas, [np.array(outlines[names[of]], np.int32) + corner], (240, 240, 240))
        corners = np.stack([cells % 28, cells // 28], axis=1) * 12
        pixels.append(torch.from_numpy(canvas).permute(2, 0, 1))
        boxes.append(torch.from_numpy(np.concatenate([corners, corners + 12], axis=1)).float())
        classes.append(torch.from_numpy(shown))
    stacked, rows = torch.stack(pixels), torch.arange(images)
    extents = torch.tensor([[336.0, 256.0]]).repeat(images, 1)
    device, none = torch.device("cpu"), torch.zeros(0, dtype=torch.int64)
    return BoxPool(
        lambda at: stacked[at], (256, 336), rows, tuple(boxes), tuple(classes), extents, rows, none, names, device
    )


@pytest.mark.parametrize(
    ("names", "each", "flips"),
    [
        (("left", "right"), 12, (False, True)),
        (("left", "right"), 580, (False, True)),  # one such image is full of signs
        (("left", "right", "square", "diamond", "bar", "cross"), 12, (False, True)),  # nothing is nothing in any mirror
        (("square", "diamond", "bar", "cross"), 12, (True, True)),
    ],
)
def test_mirror_images_that_change_a_label_are_not_shown(
    names: tuple[str, ...], each: int, flips: tuple[bool, bool]
) -> None:
    assert plan_for(signs(names, 10, each), BoxSettings(), folds=5, members=2).flips == flips


def test_the_stem_is_the_same_however_many_images_are_taken_apart_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.randint(0, 256, (5, 3, 48, 64), generator=generator_of("stem"), dtype=torch.uint8)
    whole = fit_stem(images, NetworkSpec(64, (1,), 1))
    monkeypatch.setattr("engine.label.networks._UNFOLDED", 2)
    parts = fit_stem(images, NetworkSpec(64, (1,), 1))
    assert torch.equal(whole[0], parts[0]) and torch.equal(whole[1], parts[1])


def test_fewer_large_images_are_looked_at_together() -> None:
    assert [Canvas(*size).batch for size in ((240, 320), (1024, 1024), (2048, 2048), (4096, 4096))] == [16, 16, 4, 1]


def test_each_true_box_is_claimed_once_by_the_surest() -> None:
    truth = boxes((0, 0, 10, 10), (20, 0, 30, 10))
    found = boxes((0, 0, 10, 10), (1, 0, 11, 10), (20, 0, 30, 10), (50, 50, 60, 60))
    match = matched(found, torch.tensor([0, 0, 1, 0]), truth, torch.tensor([0, 0]))
    assert match.right.tolist() == [True, False, False, False]  # the third has another name
    assert match.of.tolist() == [0, -1, -1, -1]
    assert match.missed.tolist() == [False, True]


def test_a_box_may_claim_its_second_choice() -> None:
    truth = boxes((0, 0, 10, 10), (2, 0, 12, 10))
    match = matched(boxes((1, 0, 11, 10), (1, 0, 11, 10)), torch.tensor([0, 0]), truth, torch.tensor([0, 0]))
    assert match.right.all() and sorted(match.of.tolist()) == [0, 1]


def raw_of(centers: Tensor, classes: Tensor | None = None) -> Raw:
    m = len(centers)
    classes = torch.zeros(m, dtype=torch.int64) if classes is None else classes
    return Raw(torch.zeros(m, 4), classes, centers, centers, torch.full((m,), 0.5))


def test_confidences_come_near_the_share_that_is_right() -> None:
    chance = generator_of("calibration")
    centers = torch.rand(4000, generator=chance) * 0.98 + 0.01
    truly = (2 * centers.logit() - 1).sigmoid()  # scores that are too unsure, and too high
    right = torch.rand(4000, generator=chance) < truly
    sure = calibrated([raw_of(centers)], [right], 1).probabilities(raw_of(centers))
    assert (sure - truly).abs().mean() < 0.02


def test_a_class_with_few_boxes_is_trusted_like_the_others() -> None:
    chance = generator_of("few")
    centers = torch.rand(1000, generator=chance) * 0.98 + 0.01
    right = torch.rand(1000, generator=chance) < centers
    classes = torch.zeros(1000, dtype=torch.int64)
    alone = calibrated([raw_of(centers, classes)], [right], 2)
    assert alone.of_center[1] == pytest.approx(float(alone.of_center[0]), abs=0.1)
    assert alone.offset[1] == pytest.approx(float(alone.offset[0]), abs=0.3)
    assert calibrated([], [], 2).probabilities(raw_of(torch.tensor([0.9]))) == pytest.approx(0.9, abs=0.1)


def test_all_right_is_not_certain() -> None:
    centers = torch.full((50,), 0.99)
    sure = calibrated([raw_of(centers)], [torch.ones(50, dtype=torch.bool)], 1).probabilities(raw_of(centers))
    assert (sure < 1 - 1e-4).all() and (sure > 0.9).all()


def test_the_threshold_has_the_best_f1() -> None:
    sure = torch.linspace(0.99, 0.01, 99)
    right = sure > 0.4
    least = thresholds([sure], [torch.zeros(99, dtype=torch.int64)], [right], np.array([60, 0]))
    assert 0.38 <= least[0] <= 0.42
    assert least[1] == least[0]  # nobody knows better


def test_average_precision_by_hand() -> None:
    def of(*rows: tuple[int, float, tuple[float, ...]]) -> Found:
        return Found(
            np.array([row[2] for row in rows], float).reshape(-1, 4),
            np.array([row[0] for row in rows], np.int64),
            np.array([row[1] for row in rows], float),
        )

    truth = [of((0, 1, (0, 0, 10, 10)), (0, 1, (20, 0, 30, 10))), of((1, 1, (0, 0, 10, 10)))]
    found = [of((0, 0.9, (0, 0, 10, 10)), (0, 0.8, (50, 0, 60, 10))), of((1, 0.9, (0, 0, 10, 8)))]
    scores = box_scores(found, truth, 3)
    # Class 0: one of two found first: precision 1 up to a recall of one half, at 51 of 101 points.
    assert scores.class_ap50[:2] == pytest.approx([51 / 101, 1.0])
    # Class 1 overlaps by 0.8: right at 0.5, 0.55, .. 0.8.
    assert scores.class_ap50_95[1] == pytest.approx(7 / 10)
    assert np.isnan(scores.class_ap50[2])
    assert scores.map50 == pytest.approx((51 / 101 + 1) / 2)
    assert box_scores([of(), of()], truth, 3).map50 == 0


# ---- The teacher.


def test_a_detector_that_agrees_with_its_teacher_has_least_to_learn() -> None:
    maps = perfect(one(boxes((8, 8, 40, 24), (50, 30, 60, 60)), [1, 0]), 2, 64, 96)
    told = probable(maps)
    same = float(taught_loss(maps, told))
    assert same == pytest.approx(0.5 * float(F.binary_cross_entropy(told.fits[0, 0, 0], told.fits[0, 0, 0])), abs=1e-3)
    assert same < float(taught_loss(Maps(maps.centers.flip(1), maps.edges, maps.fits), told)) - 1
    assert same < float(taught_loss(Maps(maps.centers, 1.5 * maps.edges, maps.fits), told)) - 0.3
    assert same < float(taught_loss(Maps(maps.centers, maps.edges, -maps.fits), told)) - 0.3


def test_a_teacher_that_sees_nothing_teaches_nothing_of_boxes() -> None:
    nothing = perfect(padded([torch.zeros(0, 4)], [torch.zeros(0, dtype=torch.int64)]), 2, 64, 96)
    wide = Maps(nothing.centers, 3 * nothing.edges, nothing.fits)
    assert float(taught_loss(nothing, probable(nothing))) == float(taught_loss(wide, probable(nothing)))


def test_a_part_of_each_image_is_covered() -> None:
    shown = torch.zeros(8, 3, 64, 96)
    found = covered(shown, generator_of("covers"))
    shares = (found[:, 0] == 0.5).float().mean(dim=(1, 2))
    assert ((shares > 0) & (shares < 0.2)).all() and len(set(shares.tolist())) > 4


def test_calibration_of_a_raw_box_rises_with_its_center() -> None:
    calibration = Calibration(*(torch.tensor([each], dtype=torch.float64) for each in (0.0, 1.0, 0.5)))
    sure = calibration.probabilities(raw_of(torch.tensor([0.1, 0.5, 0.9])))
    assert sure.tolist() == pytest.approx([0.1, 0.5, 0.9], abs=1e-5)
