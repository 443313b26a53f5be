"""engine.features: values by hand, a naive reference, and what blur does to clarity."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import pytest
import torch
from sklearn.datasets import load_sample_image
from torch import Tensor

from engine.features import (
    BOX_FEATURES,
    IMAGE_FEATURES,
    ambiguity,
    box_features,
    brightness,
    clarity,
    colorfulness,
    light_of,
    saturation,
    sharpness_of,
    to_grey,
)


def plain(*rgb: int) -> Tensor:
    return torch.tensor(rgb, dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 8, 8).contiguous()


def noise(seed: int = 0, batch: int = 4, side: int = 24) -> Tensor:
    return torch.randint(
        0, 256, (batch, 3, side, side), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8
    )


@pytest.mark.parametrize(
    ("rgb", "light", "pure", "colorful"),
    [
        ((0, 0, 0), 0.0, 0.0, 0.0),
        ((255, 255, 255), 1.0, 0.0, 0.0),
        ((128, 128, 128), 128 / 255, 0.0, 0.0),
        ((255, 0, 0), 0.299**0.5, 1.0, 0.3 * (255**2 + 127.5**2) ** 0.5),
        ((0, 0, 255), 0.114**0.5, 1.0, 0.3 * 255),
        ((200, 100, 100), (0.299 * 200**2 + 0.701 * 100**2) ** 0.5 / 255, 0.5, 0.3 * (100**2 + 50**2) ** 0.5),
    ],
)
def test_plain_colors_by_hand(rgb: tuple[int, int, int], light: float, pure: float, colorful: float) -> None:
    image = plain(*rgb)
    assert float(brightness(image)) == pytest.approx(light, abs=1e-6)
    assert float(saturation(image)) == pytest.approx(pure, abs=1e-6)
    assert float(colorfulness(image)) == pytest.approx(colorful, abs=1e-3)


def test_colorfulness_is_that_of_hasler_and_suesstrunk() -> None:
    images = noise()
    for image, found in zip(images.double(), colorfulness(images), strict=True):
        rg = (image[0] - image[1]).numpy()
        yb = (0.5 * (image[0] + image[1]) - image[2]).numpy()
        expected = np.hypot(rg.std(), yb.std()) + 0.3 * np.hypot(rg.mean(), yb.mean())
        assert float(found) == pytest.approx(expected, rel=1e-5)


def test_a_batch_gives_the_bits_of_its_images() -> None:
    images = noise(batch=9)
    for feature in (brightness, saturation, colorfulness, lambda batch: clarity(to_grey(batch))):
        assert torch.equal(feature(images), torch.cat([feature(image[None]) for image in images]))


def test_clarity_by_hand() -> None:
    # One bright pixel of 100 on 0: Laplacian 100^2 (16 + ... neighbours), gradient by central differences.
    grey = torch.zeros(1, 7, 7, dtype=torch.uint8)
    grey[0, 3, 3] = 100
    laplacian = (400**2 + 4 * 100**2) / 25 - 20 / 12
    gradient = 4 * 50**2 / 25
    assert float(clarity(grey)) == pytest.approx(laplacian / (gradient + 1), rel=1e-5)


@pytest.mark.parametrize("shape", [(1, 1), (2, 50), (50, 2)])
def test_images_without_a_laplacian_have_the_least_clarity(shape: tuple[int, int]) -> None:
    assert clarity(torch.zeros(1, *shape, dtype=torch.uint8)).tolist() == pytest.approx([1e-4])


def photo(width: int) -> np.ndarray:
    grey = cv2.cvtColor(load_sample_image("china.jpg"), cv2.COLOR_RGB2GRAY)
    return cv2.resize(grey, (width, width * 2 // 3), interpolation=cv2.INTER_AREA)


def clear(grey: np.ndarray) -> float:
    return float(clarity(torch.from_numpy(grey)[None]))


def test_clarity_falls_with_every_step_of_blur() -> None:
    sharp = photo(480)
    values = [clear(sharp), *(clear(cv2.GaussianBlur(sharp, (0, 0), sigma)) for sigma in (0.5, 1, 2, 3, 4))]
    assert all(first > second * 1.2 for first, second in pairwise(values))


def test_clarity_does_not_depend_on_contrast_or_size() -> None:
    sharp = photo(480)
    pale = cv2.convertScaleAbs(sharp, alpha=0.4, beta=80)
    assert clear(pale) == pytest.approx(clear(sharp), rel=0.15)
    assert clear(photo(240)) == pytest.approx(clear(photo(600)), rel=0.6)


def test_ambiguity_is_the_sigma_of_a_blurred_edge() -> None:
    stripes = np.tile(np.repeat(np.float32([200, 0]), 12), (64, 10))
    for sigma in (1.0, 1.5, 2.0):
        blurred = cv2.GaussianBlur(stripes, (0, 0), sigma).round().astype(np.uint8)
        assert float(ambiguity(clarity(torch.from_numpy(blurred)[None]))) == pytest.approx(sigma, rel=0.03)


def test_every_feature_says_what_it_is() -> None:
    assert [feature.reason for feature in IMAGE_FEATURES.values()] == [5, 6, 7, 8, 9, 10, None]
    assert [feature.reason for feature in BOX_FEATURES.values()] == list(range(11, 19))
    assert all(feature.meaning and feature.unit for feature in (*IMAGE_FEATURES.values(), *BOX_FEATURES.values()))


def boxes(*rows: tuple[float, float, float, float]) -> Tensor:
    return torch.tensor(rows).view(-1, 4)


def test_boxes_by_hand() -> None:
    found = box_features(boxes((0, 0, 50, 100), (25, 0, 75, 50), (40, 40, 60, 60)), 100, 100)
    assert found.count == 3
    assert found.area_std == pytest.approx(float(np.std([5000, 2500, 400])))
    assert found.aspect_ratio.tolist() == pytest.approx([0.5, 1.0, 1.0])
    assert found.area_share.tolist() == pytest.approx([0.5, 0.25, 0.04])
    assert found.edge.tolist() == pytest.approx([0.5, 0.5, 0.0])
    # The first is covered by 25x50 of the second and 10x20 of the third, which meet in 10x10.
    assert found.overlap.tolist() == pytest.approx([(1250 + 200 - 100) / 5000, (1250 + 200 - 100) / 2500, 0.75])
    assert found.brightness.isnan().all()


def test_boxes_at_the_border_and_without_area() -> None:
    found = box_features(boxes((-10, -10, 10, 10), (90, 90, 200, 200), (5, 5, 5, 9), (300, 300, 400, 400)), 100, 100)
    assert found.area_share.tolist() == pytest.approx([0.01, 0.01, 0.0, 0.0])
    assert found.aspect_ratio.tolist() == pytest.approx([1.0, 1.0, 0.0, 0.0])
    assert found.overlap.tolist() == [0.0] * 4
    assert found.edge.tolist() == pytest.approx([0.9, 0.9, 0.9, 1.0])


def test_no_boxes_and_one() -> None:
    none = box_features(boxes(), 100, 100)
    assert (none.count, none.area_std, len(none.overlap), len(none.edge)) == (0, 0.0, 0, 0)
    assert box_features(boxes((0, 0, 10, 10)), 100, 100).area_std == 0.0


def test_light_inside_a_box() -> None:
    image = torch.zeros(3, 50, 50, dtype=torch.uint8)
    image[:, :, 25:] = 255
    found = box_features(boxes((50, 0, 100, 100), (0, 0, 50, 100)), 100, 100, image)
    assert found.brightness.tolist() == pytest.approx([1.0, 0.0])


PATTERNS = {
    "noise": lambda y, x, rng: rng.integers(0, 256, (*x.shape, 3)),
    "black": lambda y, x, rng: np.zeros((*x.shape, 3)),
    "red": lambda y, x, rng: np.full((*x.shape, 3), (255, 0, 0)),
    "almost grey": lambda y, x, rng: 128 + rng.integers(0, 2, (*x.shape, 3)),
    "ramp": lambda y, x, rng: np.stack([x % 256, y % 256, (x + y) % 256], 2),
    "squares of the greatest contrast": lambda y, x, rng: np.stack([(x + y) % 2 * 255] * 3, 2),
}


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("shape", [(1, 1), (2, 50), (50, 2), (3, 3), (3, 90), (97, 101), (170, 250), (403, 611)])
def test_one_image_on_the_cpu_has_the_numbers_of_the_tensors(shape: tuple[int, int], pattern: str) -> None:
    y, x = np.indices(shape)
    rgb = PATTERNS[pattern](y, x, np.random.default_rng(0)).astype(np.uint8)
    image = torch.from_numpy(rgb).permute(2, 0, 1)[None]
    light = light_of(np.ascontiguousarray(rgb.transpose(2, 0, 1)).reshape(3, -1))
    assert light == {
        "brightness": pytest.approx(float(brightness(image)), rel=1e-5),
        "saturation": pytest.approx(float(saturation(image)), rel=1e-5),
        "colorfulness": pytest.approx(float(colorfulness(image)), rel=1e-5, abs=1e-4),
    }
    sharp = clarity(torch.from_numpy(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY))[None])
    assert sharpness_of(rgb) == {
        "clarity": pytest.approx(float(sharp), rel=1e-5),
        "ambiguity": pytest.approx(float(ambiguity(sharp)), rel=1e-5),
    }


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same_features() -> None:
    images = noise()
    for feature in (brightness, saturation, colorfulness):
        assert torch.allclose(feature(images), feature(images.cuda()).cpu(), rtol=1e-5)
