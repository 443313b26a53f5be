"""engine.embeddings: what the vectors see, whitening by hand, neighbours, and weights from files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sklearn.metrics import adjusted_rand_score
from torch import Tensor
from torchvision import models

from engine.embeddings import (
    Backbone,
    Gradients,
    content_vectors,
    fit_embedding,
    fit_whitening,
    load_encoder,
    neighbour_embedding,
)
from engine.errors import InputError, UsageError
from engine.kmeans import kmeans


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(n: int = 12, side: int = 32, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, (n, 3, side, side), generator=rng(seed), dtype=torch.uint8)


def wave(angle: float, contrast: float = 100.0, offset: float = 127.0) -> Tensor:
    """(1, 3, 32, 32): grey stripes whose gradient points along `angle` (radians)."""
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    phase = 0.7 * (x * np.cos(angle) + y * np.sin(angle))
    return (offset + contrast * torch.sin(phase)).clamp(0, 255).to(torch.uint8).expand(1, 3, 32, 32).contiguous()


# ---- Gradients


@pytest.mark.parametrize("orientation", range(9))
def test_stripes_fall_into_their_orientation(orientation: int) -> None:
    rows = Gradients().encode(wave(np.pi * orientation / 9))
    coarse = rows[0, : 4 * 9 * 9].reshape(4, 9, 9)  # four corners, orientations, blocks of cells of 8 pixels
    assert int(coarse.sum(dim=(0, 2)).argmax()) == orientation


def test_shape_does_not_see_contrast_or_light_but_color_does() -> None:
    shape = Gradients().parts[0].columns
    strong, weak, light = (Gradients().encode(image)[0] for image in (wave(0.3), wave(0.3, 50), wave(0.3, 50, 180)))
    assert torch.allclose(strong[:shape], weak[:shape], atol=0.06)
    assert torch.allclose(weak[:shape], light[:shape], atol=1e-5)
    assert (light - weak)[shape:].abs().max() > 0.15


def test_a_plain_image_has_no_shape() -> None:
    assert (
        Gradients().encode(torch.full((1, 3, 32, 32), 99, dtype=torch.uint8))[0, : Gradients().parts[0].columns].max()
        == 0
    )


def test_each_image_is_seen_by_itself() -> None:
    images = noise()
    together = Gradients().encode(images)
    apart = torch.cat([Gradients().encode(image[None]) for image in images])
    assert together.shape == (12, Gradients().dim)
    assert torch.allclose(together, apart, atol=1e-6)


@pytest.mark.parametrize("images", [noise(side=31), noise().float(), noise()[0], noise()[:, :1]])
def test_other_images_are_refused(images: Tensor) -> None:
    with pytest.raises(InputError, match=r"images: must be \(B, 3, 32, 32\) torch.uint8, got "):
        Gradients().encode(images)


# ---- whitening


def test_power_0_is_pca_and_power_1_whitens() -> None:
    x = torch.randn(500, 6, generator=rng()) @ torch.randn(6, 6, generator=rng(1)) + 5
    centred = x.double().numpy() - x.double().numpy().mean(0)
    values, vectors = np.linalg.eigh(centred.T @ centred / 500)
    main = centred @ vectors[:, ::-1][:, :3]
    found = fit_whitening(torch.split(x, 70), 3, power=0.0).apply(x).numpy()
    assert np.allclose(np.abs(found), np.abs(main), atol=1e-3)
    white = fit_whitening([x], 6, power=1.0).apply(x)
    assert torch.allclose(white.T @ white / 500, torch.eye(6), atol=1e-3)
    half = fit_whitening([x], 3, power=0.5).apply(x).var(dim=0, correction=0).numpy()
    assert np.allclose(half, np.sqrt(values[::-1][:3]), rtol=1e-3)


def test_directions_without_variance_are_zero() -> None:
    x = torch.randn(50, 2, generator=rng()) @ torch.randn(2, 5, generator=rng(1))
    found = fit_whitening([x], 4).apply(x)
    assert (found[:, 2:] == 0).all()


@pytest.mark.parametrize(
    ("rows", "dim", "message"),
    [
        ([], 1, "rows: must be at least 1, got 0"),
        ([torch.ones(3, 2)], 3, r"dim: must be 1\.\.2 \(the columns\), got 3"),
        ([torch.ones(3, 2), torch.ones(3, 4)], 1, r"rows: must be \(m, 2\), got shape \(3, 4\)"),
        ([torch.tensor([[1.0, float("nan")]])], 1, "rows: must be finite"),
    ],
)
def test_rows_that_cannot_be_whitened(rows: list[Tensor], dim: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        fit_whitening(rows, dim)


# ---- the vectors of a set


def test_content_vectors_are_those_of_the_fitted_embedding() -> None:
    images = noise(40)
    told: list[int] = []
    vectors = content_vectors(lambda: torch.split(images, 16), progress=told.append)
    fitted = fit_embedding(Gradients(), torch.split(images, 16))
    assert torch.equal(vectors, torch.cat([fitted.encode(part) for part in torch.split(images, 16)]))
    assert vectors.shape == (40, fitted.dim) == (40, 88)
    assert torch.equal(vectors, content_vectors(lambda: torch.split(images, 16)))
    assert told == sorted(told)
    assert told[-1] == 40
    lengths = vectors[:, :64].norm(dim=1)
    assert torch.allclose(lengths, torch.ones(40), atol=1e-5)


def test_one_image_and_none() -> None:
    assert content_vectors(lambda: [noise(1)]).shape == (1, 88)
    with pytest.raises(InputError, match="images: must be at least 1, got 0"):
        content_vectors(list)


# ---- neighbours


def rings(n: int = 300) -> tuple[Tensor, Tensor]:
    """Two rings, one inside the other: k-means cuts both in half."""
    kind = torch.arange(n) % 2
    angle = torch.rand(n, generator=rng()) * 2 * np.pi
    radius = 1.0 + 2.0 * kind + 0.1 * torch.randn(n, generator=rng(1))
    return torch.stack([radius * angle.cos(), radius * angle.sin()], 1), kind


@pytest.mark.parametrize("landmarks", [20_000, 150])
def test_rings_become_groups(landmarks: int) -> None:
    x, kind = rings()
    assert adjusted_rand_score(kind, kmeans(x, 2, generator=rng()).assignment) < 0.1
    placed = neighbour_embedding(x, dim=2, landmarks=landmarks, generator=rng())
    found = kmeans(placed, 2, generator=rng()).assignment
    assert adjusted_rand_score(kind, found) > 0.95
    assert torch.allclose(placed.norm(dim=1), torch.ones(len(x)), atol=1e-5)
    assert torch.equal(placed, neighbour_embedding(x, dim=2, landmarks=landmarks, generator=rng()))


def test_copies_lie_in_one_place_and_count_once() -> None:
    x, _ = rings(200)
    many = torch.cat([x, x[:1].expand(500, 2)])
    placed = neighbour_embedding(many, dim=4, generator=rng())
    assert (placed[200:] == placed[0]).all()
    assert torch.equal(placed[:200], neighbour_embedding(x, dim=4, generator=rng()))


@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_few_points(n: int) -> None:
    placed = neighbour_embedding(torch.randn(n, 3, generator=rng()), dim=8, generator=rng())
    assert placed.shape == (n, 8)
    assert placed.isfinite().all()


@pytest.mark.parametrize(
    ("x", "options", "message"),
    [
        (torch.ones(3), {}, r"x: must be \(n, d\)"),
        (torch.tensor([[float("inf")]]), {}, "x: must be finite"),
        (torch.ones(3, 2), {"dim": 0}, "dim: must be at least 1, got 0"),
    ],
)
def test_points_that_cannot_be_placed(x: Tensor, options: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        neighbour_embedding(x, generator=rng(), **options)


# ---- weights


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """resnet18 with random weights, as torch.save and as safetensors."""
    folder = tmp_path_factory.mktemp("weights")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = models.resnet18(weights=None).state_dict()
    torch.save(state, folder / "resnet18.pth")
    save_file(state, folder / "resnet18.safetensors")
    return folder


def test_a_backbone_with_weights_from_a_file(weights: Path) -> None:
    first, second = (load_encoder("resnet18", weights=weights / f"resnet18.{end}") for end in ("pth", "safetensors"))
    assert isinstance(first, Backbone)
    assert (first.dim, first.size, first.name) == (512, 224, "resnet18")
    images = noise(3, 224)
    rows = first.encode(images)
    assert torch.equal(rows, second.encode(images))
    net = models.resnet18(weights=None)
    net.load_state_dict(torch.load(weights / "resnet18.pth", weights_only=True))
    net.fc = torch.nn.Identity()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    inputs = (images / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    with torch.no_grad():
        assert torch.allclose(rows, net.eval()(inputs), atol=1e-3)
    assert content_vectors(lambda: [images], encoder=first).shape == (3, 128)


def test_names_and_weights_that_do_not_go_together(weights: Path) -> None:
    with pytest.raises(UsageError, match="encoder: must be gradients or one of alexnet, "):
        load_encoder("resnet17")
    with pytest.raises(UsageError, match="resnet18 needs weights from a local file, got none"):
        load_encoder("resnet18")
    with pytest.raises(UsageError, match="encoder 'gradients' has none"):
        load_encoder(weights=weights / "resnet18.pth")


def test_files_that_are_not_its_weights(weights: Path, tmp_path: Path) -> None:
    state = torch.load(weights / "resnet18.pth", weights_only=True)
    torch.save({key: value for key, value in state.items() if "layer4" not in key}, tmp_path / "short.pth")
    torch.save({**state, "conv1.weight": torch.ones(3)}, tmp_path / "shape.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"model": state}, tmp_path / "nested.pth")
    (tmp_path / "text.pth").write_text("hello")
    (tmp_path / "text.safetensors").write_text("hello")
    for name, told in {
        "short.pth": "missing (layer4.0.conv1.weight, ...)",
        "shape.pth": "1 of another shape (conv1.weight)",
        "list.pth": "must be a state dict of tensors, got list",
        "nested.pth": "must be a state dict of tensors, got a dict with 'model'",
        "text.pth": "must be a state dict of tensors, cannot be read",
        "text.safetensors": "must be a state dict of tensors, cannot be read",
        "nothing.pth": "must be a file with weights, got nothing there",
    }.items():
        with pytest.raises(InputError) as caught:
            load_encoder("resnet18", weights=tmp_path / name)
        assert told in str(caught.value)
        assert "\n" not in str(caught.value)
