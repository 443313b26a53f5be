"""engine.survey: one pass, every image once, whatever happens."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import draw
from sklearn.datasets import load_sample_image

from engine import survey as room
from engine.dataset import read_samples
from engine.errors import Stopped
from engine.images import read_picture
from engine.samples import OBJECT_DETECTION, Drawing, Label, Sample, Shape
from engine.sources import Sources
from engine.survey import BOX_COLUMNS, COLUMNS, boxes_on, drawing_scale, resized, survey


def test_rows_are_parallel_to_the_samples(photos: Path, tmp_path: Path) -> None:
    (photos / "broken.png").write_bytes(b"no image")
    dataset = read_samples(photos)
    samples = [*dataset, Sample("content://text", sample_type=1), Sample("missing.png"), Sample("s3://bucket/a.png")]
    found = survey(samples, dataset.sources, folder=tmp_path / "cache")
    assert found.features.shape == (28, len(COLUMNS))
    assert found.readable.sum() == 24
    assert np.isnan(found.features[~found.readable]).all()
    assert [(failure.source, failure.kind) for failure in found.failures] == [
        ("broken.png", "not_an_image"),
        ("missing.png", "missing"),
        ("s3://bucket/a.png", "remote"),
    ]
    assert found.sizes[1].tolist() == [48, 36]
    assert found.column("resolution")[1] == 48 * 36
    assert found.column("aspect_ratio")[1] == pytest.approx(48 / 36)
    assert found.thumbnails is None


def test_threads_do_not_change_a_bit(photos: Path, tmp_path: Path) -> None:
    samples, sources = list(read_samples(photos)), Sources(photos)
    one, many = (survey(samples, sources, folder=tmp_path / str(n), thumbnail_side=16, threads=n) for n in (1, 4))
    assert one.features.tobytes() == many.features.tobytes()
    assert torch.equal(torch.cat(list(one.thumbnails.batches(7))), torch.cat(list(many.thumbnails.batches(256))))


def test_thumbnails_are_those_of_the_readable_images(photos: Path, tmp_path: Path) -> None:
    (photos / "broken.png").write_bytes(b"no image")
    dataset = read_samples(photos)
    found = survey(dataset, dataset.sources, folder=tmp_path, thumbnail_side=8)
    assert found.thumbnails is not None
    assert found.thumbnails.index.tolist() == [i for i, s in enumerate(dataset) if s.source != "broken.png"]
    rows = found.thumbnails.rows(np.array([5, 0]))
    assert rows.shape == (2, 3, 8, 8)
    expected = resized(read_picture(dataset.path(dataset[6])).rgb, 8)
    assert torch.equal(rows[0], torch.from_numpy(expected).permute(2, 0, 1))


def test_a_second_pass_decodes_nothing(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = read_samples(photos)
    first = survey(dataset, dataset.sources, folder=tmp_path, thumbnail_side=8)
    assert first.reused == 0
    monkeypatch.setattr(room, "decode_picture", lambda *_, **__: pytest.fail("decoded again"))
    second = survey(dataset, dataset.sources, folder=tmp_path, thumbnail_side=8)
    assert second.reused == 24
    assert second.features.tobytes() == first.features.tobytes()


def test_a_changed_file_is_measured_again(photos: Path, tmp_path: Path) -> None:
    dataset = read_samples(photos)
    survey(dataset, dataset.sources, folder=tmp_path)
    draw(photos / "light-0-0.png", light=0.9, seed=5)
    second = survey(dataset, dataset.sources, folder=tmp_path)
    assert second.reused == 23
    assert second.column("brightness")[0] > 0.8


def test_a_stopped_pass_goes_on_where_it_was(photos: Path, tmp_path: Path) -> None:
    for number in range(200):
        draw(photos / f"more-{number}.png", seed=1000 + number)
    dataset = read_samples(photos)
    seen: list[int] = []
    with pytest.raises(Stopped, match=r"stopped after \d+ of 224 images"):
        survey(
            dataset, dataset.sources, folder=tmp_path, threads=1, progress=seen.append, stopped=lambda: len(seen) > 2
        )
    again = survey(dataset, dataset.sources, folder=tmp_path)
    assert 0 < again.reused < 224
    assert again.reused >= seen[-1]


def test_boxes_are_measured_on_their_image(tmp_path: Path) -> None:
    draw(tmp_path / "a.png", light=0.5, size=(60, 40))
    shapes = (Shape("x", "bndbox", ((0, 0), (30, 40))), Shape("x", "bndbox", ((15, 0), (45, 20))))
    label = Label(type=OBJECT_DETECTION, drawing=Drawing(shapes))
    found = survey([Sample("a.png", (label,)), Sample("a.png")], Sources(tmp_path), folder=tmp_path)
    first = dict(zip(BOX_COLUMNS, found.boxes[0].T, strict=True))
    assert first["aspect_ratio"] == pytest.approx([0.75, 1.5])
    assert first["area_share"] == pytest.approx([0.5, 0.25])
    assert first["overlap"] == pytest.approx([0.25, 0.5])
    assert first["edge"] == pytest.approx([0.5, 0.5])
    assert found.box_area_std[0] == pytest.approx(300.0)
    assert found.boxes[1].shape == (0, len(BOX_COLUMNS))
    assert found.reused == 0, "the same bytes with other boxes are another thing to measure"


def test_the_format_of_a_file_does_not_change_what_is_measured(tmp_path: Path) -> None:
    whole = cv2.resize(load_sample_image("china.jpg"), (960, 720), interpolation=cv2.INTER_CUBIC)
    blurred = cv2.GaussianBlur(whole, (0, 0), 4)
    for name in ("a.png", "a.jpg"):
        cv2.imwrite(str(tmp_path / name), blurred, [cv2.IMWRITE_JPEG_QUALITY, 98])
    box = Shape("sky", "bndbox", ((100.0, 100.0), (500.0, 400.0)))
    drawn = (Label(type=OBJECT_DETECTION, drawing=Drawing((box,), (960, 720, 3))),)
    found = survey([Sample("a.png", drawn), Sample("a.jpg", drawn)], Sources(tmp_path), folder=tmp_path / "cache")
    for values in (*found.features.T, *np.stack(found.boxes)[:, 0].T):
        assert values[0] == pytest.approx(values[1], rel=0.1, abs=0.02)


def test_thumbnails_are_as_sharp_as_they_are_large(tmp_path: Path) -> None:
    stripes = np.zeros((600, 700, 3), np.uint8)
    stripes[::2] = 255
    cv2.imwrite(str(tmp_path / "stripes.jpg"), stripes, [cv2.IMWRITE_JPEG_QUALITY, 100])
    for side, sees in ((600, True), (200, False)):
        found = survey([Sample("stripes.jpg")], Sources(tmp_path), folder=tmp_path / "cache", thumbnail_side=side)
        assert found.thumbnails is not None
        (shown,) = next(found.thumbnails.batches(1)).float()
        assert (float(shown.std()) > 100) == sees


@pytest.mark.parametrize("size", [(1, 30_000), (30_000, 1), (2, 60_000)])
def test_a_very_thin_image_is_measured(tmp_path: Path, size: tuple[int, int]) -> None:
    cv2.imwrite(str(tmp_path / "thin.png"), np.full((*size, 3), 90, np.uint8))
    found = survey([Sample("thin.png")], Sources(tmp_path), folder=tmp_path / "cache", thumbnail_side=8)
    assert found.readable.all() and np.isfinite(found.features).all() and not found.failures


def test_a_reduced_decode_still_sees_the_blur_of_12_megapixels(tmp_path: Path) -> None:
    whole = np.tile(load_sample_image("china.jpg"), (7, 6, 1))  # detail down to the pixel
    for name, pixels in (("sharp.jpg", whole), ("blurred.jpg", cv2.GaussianBlur(whole, (0, 0), 4))):
        cv2.imwrite(str(tmp_path / name), pixels, [cv2.IMWRITE_JPEG_QUALITY, 90])
    found = survey([Sample("sharp.jpg"), Sample("blurred.jpg")], Sources(tmp_path), folder=tmp_path)
    assert found.column("resolution")[0] > 11e6
    sharp, blurred = found.column("clarity")
    assert sharp > 2 * blurred


def test_boxes_are_in_pixels_of_the_image_whatever_size_their_file_states(tmp_path: Path) -> None:
    draw(tmp_path / "a.png", light=0.5, size=(60, 40))
    halves = (Shape("x", "bndbox", ((0, 0), (15, 20))), Shape("x", "bndbox", ((7.5, 0), (22.5, 10))))
    stated = Sample("a.png", (Label(type=OBJECT_DETECTION, drawing=Drawing(halves, (30, 20, 3))),))
    bare = Sample("a.png", (Label(type=OBJECT_DETECTION, drawing=Drawing(halves)),))
    other = Sample("a.png", (Label(type=OBJECT_DETECTION, drawing=Drawing(halves, (30, 30, 3))),))
    found = survey([stated, bare, other], Sources(tmp_path), folder=tmp_path)
    assert dict(zip(BOX_COLUMNS, found.boxes[0].T, strict=True))["area_share"] == pytest.approx([0.5, 0.25])
    assert found.box_area_std.tolist() == pytest.approx([300.0, 75.0, 75.0]) and found.reused == 0
    assert boxes_on(stated, 60, 40).tolist() == [[0, 0, 30, 40], [15, 0, 45, 20]]
    assert boxes_on(stated, 0, 0).tolist() == boxes_on(other, 60, 40).tolist() == boxes_on(bare, 60, 40).tolist()
    drawing = stated.labels[0].drawing
    assert drawing is not None and drawing_scale(drawing, 60, 40) == (2, 2)
    assert drawing_scale(drawing, 61, 40) == (61 / 30, 2) and drawing_scale(drawing, 62, 40) is None
