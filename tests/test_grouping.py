"""engine.grouping: known groups come back, numbered and named by what sets them apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import draw
from sklearn.metrics import adjusted_rand_score

import engine
from engine.dataset import Dataset, read_samples
from engine.embeddings import Gradients
from engine.errors import Stopped, UsageError
from engine.grouping import CHOICES, UNGROUPED, annotate, group
from engine.samples import IMAGE_CLASSIFICATION, Label, Sample


def truth_of(dataset: Dataset) -> list[int]:
    """The light that an image of the fixture was drawn with: 0 dark, 1, 2 bright."""
    return [int(sample.source.split("-")[1]) for sample in dataset]


def test_groups_by_light_are_found_and_ordered_from_dark_to_bright(photos: Path) -> None:
    dataset = read_samples(photos)
    found = group(dataset, 3, image_brightness=True)
    assert found.group.tolist() == [light + 1 for light in truth_of(dataset)]
    assert [each.size for each in found.groups] == [8, 8, 8]
    assert [each.name.split()[-1] for each in found.groups] == ["dark", "average", "bright"]
    assert found.dimensions == ("brightness",)
    assert found.groups[0].medians["brightness"] == pytest.approx(0.23, abs=0.04)


def test_dimensions_combine(tmp_path: Path) -> None:
    for number in range(40):
        blur, light = number % 2, number // 2 % 2
        draw(tmp_path / f"{light}-{blur}-{number}.png", light=0.3 + 0.4 * light, blur=2.5 * blur, seed=number)
    dataset = read_samples(tmp_path)
    found = group(dataset, 4, image_brightness=True, ambiguity=True)
    truth = [sample.source[:3] for sample in dataset]
    assert adjusted_rand_score(truth, found.group) == 1.0
    assert [each.name for each in found.groups] == ["dark, sharp", "dark, blurred", "bright, sharp", "bright, blurred"]


def test_an_outlier_does_not_get_a_group_of_its_own(photos: Path) -> None:
    for number in range(24, 60):
        draw(photos / f"light-{number % 3}-{number}.png", light=(0.2, 0.5, 0.8)[number % 3], seed=number)
    draw(photos / "light-0-flat.png", light=0.2, blur=30.0, seed=99)  # hardly any color left: 9 deviations away
    dataset = read_samples(photos)
    found = group(dataset, 3, image_brightness=True, image_colorfulness=True)
    assert min(each.size for each in found.groups) > 1


def stripes(path: Path, angle: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:40, :40] - 20.0
    wave = np.sin((x * np.cos(angle) + y * np.sin(angle)) * 0.9 + rng.uniform(0, 6))
    pixels = (127 + 90 * wave + rng.normal(0, 12, wave.shape)).clip(0, 255).astype(np.uint8)
    cv2.imwrite(str(path), pixels)


def test_content_is_seen_where_light_and_color_are_equal(tmp_path: Path) -> None:
    for number in range(60):
        stripes(tmp_path / f"{number % 3}-{number}.png", angle=np.pi / 3 * (number % 3), seed=number)
    dataset = read_samples(tmp_path)
    truth = [sample.source[0] for sample in dataset]
    found = group(dataset, 3)
    assert adjusted_rand_score(truth, found.group) == 1.0
    assert found.dimensions == ()
    assert [each.size for each in found.groups] == [20, 20, 20]
    chosen = group(dataset, encoder=Gradients())
    assert len(chosen.groups) == 3, "three kinds: the silhouette should see so"
    assert max(chosen.silhouettes, key=lambda k: chosen.silhouettes[k]) == 3
    assert set(chosen.silhouettes) == set(CHOICES)
    assert any("n_clusters was not given: 3 of 2..20" in note for note in chosen.notes)


def test_content_groups_are_ordered_by_size(tmp_path: Path) -> None:
    for number in range(36):
        kind = 0 if number < 6 else 1 if number < 16 else 2
        stripes(tmp_path / f"{kind}-{number:02}.png", angle=np.pi / 3 * kind, seed=number)
    found = group(read_samples(tmp_path), 3)
    assert [each.size for each in found.groups] == [20, 10, 6]


def test_the_most_typical_members_come_first(photos: Path) -> None:
    found = group(read_samples(photos), 3, image_brightness=True)
    values = found.survey.column("brightness")
    for each in found.groups:
        distances = np.abs(values[each.members] - values[each.members].mean())
        assert distances[0] < distances[-1]
        assert sorted(each.members.tolist()) == np.flatnonzero(found.group == each.number).tolist()


def test_labeled_broken_and_other_samples_are_left_out(photos: Path) -> None:
    (photos / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n rest")
    dataset = read_samples(photos)
    label = Label(type=IMAGE_CLASSIFICATION, name="cat")
    first = dataset[1]
    with_label = [replace(first, labels=(label,)) if sample is first else sample for sample in dataset]
    text = Sample("content://hello", sample_type=1)
    found = group(dataset.with_samples([*with_label, text]), 3, image_brightness=True)
    broken = [sample.source for sample in dataset].index("broken.png")
    labeled = dataset.samples.index(first)
    assert found.group[[broken, labeled, -1]].tolist() == [UNGROUPED] * 3
    assert [failure.source for failure in found.survey.failures] == ["broken.png"]
    assert any(note.startswith("2 samples were left out") for note in found.notes)
    everything = group(dataset.with_samples(with_label), 3, image_brightness=True, all=True)
    assert everything.group[labeled] != UNGROUPED


def test_the_same_call_gives_the_same_groups(photos: Path) -> None:
    dataset = read_samples(photos)
    first, second = group(dataset, 5, seed=3, threads=1), group(dataset, 5, seed=3, threads=2)
    assert (first.group == second.group).all()
    assert [each.members.tolist() for each in first.groups] == [each.members.tolist() for each in second.groups]
    assert [each.name for each in first.groups] == [each.name for each in second.groups]


def test_equal_images_make_fewer_groups_and_a_note(tmp_path: Path) -> None:
    for number in range(6):
        draw(tmp_path / f"{number}.png", light=0.3 + 0.4 * (number % 2), seed=number % 2)
    found = group(read_samples(tmp_path), 4, image_brightness=True)
    assert [each.size for each in found.groups] == [3, 3]
    assert any(note.startswith("2 groups instead of 4") for note in found.notes)


@pytest.mark.parametrize("flags", [{}, {"image_brightness": True}])
def test_two_images_are_enough(tmp_path: Path, flags: dict[str, bool]) -> None:
    draw(tmp_path / "a.png", light=0.2)
    draw(tmp_path / "b.png", light=0.8, seed=1)
    assert sorted(group(read_samples(tmp_path), 2, **flags).group.tolist()) == [1, 2]
    assert sorted(group(read_samples(tmp_path), **flags).group.tolist()) == [1, 2]


@pytest.mark.parametrize("n_clusters", [1, 201, 0, -3, True, 2.5, "8"])
def test_n_clusters_out_of_range(photos: Path, n_clusters: object) -> None:
    with pytest.raises(UsageError, match=r"n_clusters: must be 2\.\.200, got "):
        group(read_samples(photos), n_clusters)  # type: ignore[arg-type]


def test_more_groups_than_images(photos: Path) -> None:
    with pytest.raises(UsageError, match="at most the number of unlabeled images, got 25 for 24"):
        group(read_samples(photos), 25)
    for path in sorted(photos.iterdir())[:20]:
        path.write_bytes(b"no image")
    with pytest.raises(UsageError, match="at most the number of images that can be read, got 5 for 4"):
        group(read_samples(photos), 5, image_brightness=True)
    with pytest.raises(UsageError, match="grouping needs at least 2 images"):
        group([Sample("content://text", sample_type=1)], all=True)


def test_annotate_writes_the_number_and_keeps_the_rest(photos: Path) -> None:
    dataset = read_samples(photos)
    dataset = dataset.with_samples([replace(sample, property={"color": "red"}) for sample in dataset])
    found = group(dataset, 3, image_brightness=True)
    found.group[0] = UNGROUPED
    after = annotate(dataset, found, property="size")
    assert after[0] is dataset[0]
    assert after[1].property == {"color": "red", "size": str(found.group[1])}
    assert "size" not in dataset[1].property
    for name in ("", "@modelarts:size"):
        with pytest.raises(UsageError, match="property: must be a name"):
            annotate(dataset, found, property=name)


def test_stages_are_told_and_a_stop_is_heard(photos: Path) -> None:
    told: list[tuple[str, int]] = []

    def stage(name: str, total: int) -> Callable[[int], None]:
        told.append((name, total))
        return lambda done: None

    group(read_samples(photos), 3, stage=stage)
    assert [name for name, _ in told] == ["reading images", "looking at contents", "finding neighbours", "grouping"]
    assert {total for _, total in told} == {24}
    with pytest.raises(Stopped):
        group(read_samples(photos), 3, stopped=lambda: True)


def test_the_five_lines_of_the_readme(photos: Path, tmp_path: Path) -> None:
    samples = engine.read_samples(photos)
    grouping = engine.group(samples, n_clusters=3, image_brightness=True)
    count = engine.write_manifest(photos / "groups.manifest", engine.annotate(samples, grouping))
    assert count == 24
    assert [sample.property["group"] for sample in engine.read_samples(photos / "groups.manifest")] == [
        str(number) for number in grouping.group
    ]
