"""The page of auto labeling: counts and confusions by hand, what is shown first, and never too many tiles."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, cast

import cv2
import numpy as np
import pytest

from engine.dataset import Dataset, read_samples
from engine.errors import Failure
from engine.label.results import Labeling
from engine.label.targets import Targets
from engine.report import MOST_TILES, Page, render
from engine.survey import Survey
from engine.tasks.labeling_page import REVIEW_FIRST, _percent, _tiles_per_label, _word, labeling_page

CAT, DOG, EEL = 0, 1, 2


def survey_of(rows: int, failures: tuple[Failure, ...] = ()) -> Survey:
    return Survey(
        features=np.zeros((rows, 7), np.float32),
        sizes=np.full((rows, 2), 8),
        boxes=(np.zeros((0, 6), np.float32),) * rows,
        box_area_std=np.zeros(rows, np.float32),
        thumbnails=None,
        failures=failures,
        notes={},
        reused=0,
    )


def labeling_of(
    labels: tuple[str, ...], people: dict[int, tuple[int, ...]], probabilities: Any, **choices: Any
) -> Labeling:
    """people: row -> what people say."""
    matrix = np.zeros((len(probabilities), len(labels)), bool)
    for row, columns in people.items():
        matrix[row, list(columns)] = True
    multi_label = any(len(columns) > 1 for columns in people.values())
    return Labeling(
        algorithm_type="fast",
        targets=Targets(labels, matrix, multi_label),
        probabilities=np.array(probabilities, np.float32),
        judges=np.full(len(probabilities), -1, np.int64),
        classifier=cast(Any, None),
        choices=choices,
        survey=survey_of(len(probabilities), (Failure("b.jpg", "broken", "ends early"),)),
        notes=(),
    )


@pytest.fixture
def dataset(tmp_path) -> Dataset:
    """Eight images, 0.png to 7.png, each of another gray."""
    for at in range(8):
        cv2.imwrite(str(tmp_path / f"{at}.png"), np.full((8, 8, 3), 30 * at, np.uint8))
    return replace(read_samples(tmp_path), name="pets")


#: Rows 0-3 by people (3 has no prediction), 4-7 automatic but for 7, which has no readable image.
PEOPLE = {0: (CAT,), 1: (CAT,), 2: (DOG,), 3: (EEL,)}
NOTHING = (math.nan,) * 3
PROBABILITIES = (
    (0.9, 0.1, 0.0),
    (0.2, 0.8, 0.0),  # people say cat
    (0.1, 0.6, 0.3),
    NOTHING,
    (0.5, 0.3, 0.2),
    (0.125, 0.75, 0.125),
    (0.998, 0.001, 0.001),
    NOTHING,
)


def page_of(dataset: Dataset, **choices: Any) -> Page:
    labeling = labeling_of(("cat", "dog", "eel"), PEOPLE, PROBABILITIES, **choices)
    return labeling_page(dataset, labeling, notes=("a note",), threads=1)


def test_the_least_certain_come_first(dataset):
    page = page_of(dataset)
    assert page.title == "pets: 3 images labeled" and page.notes == ("a note",)
    (review,) = page.galleries
    assert [(tile.title, tile.caption) for tile in review.tiles] == [
        ("4.png", "50 % · cat"),
        ("5.png", "75 % · dog"),
        ("6.png", "99.8 % · cat"),
    ]
    assert review.tiles[0].proposal.labels == ("cat",)
    assert dict(review.tiles[0].proposal.likely) == pytest.approx({"cat": 0.5, "dog": 0.3, "eel": 0.2})
    assert [name for name, _ in review.tiles[1].proposal.likely] == ["dog", "cat", "eel"]
    assert all(tile.image for tile in review.tiles)


def test_a_card_for_every_label_the_largest_first(dataset):
    cards = page_of(dataset).cards
    assert [(card.name, card.size, card.number) for card in cards] == [("cat", 2, 1), ("dog", 1, 2), ("eel", 0, 3)]
    assert [(tile.title, tile.caption) for tile in cards[0].tiles] == [("4.png", "50 %"), ("6.png", "99.8 %")]
    assert cards[0].share == pytest.approx(2 / 3)
    assert dict(cards[0].facts) == {"labeled by people": "2", "mean confidence": "75 %", "found again": "50 %"}
    assert dict(cards[2].facts) == {"labeled by people": "1", "mean confidence": "–", "found again": "–"}


def test_facts_tell_what_was_chosen(dataset):
    facts = dict(page_of(dataset, cv_accuracy=0.9651, cv_accuracy_interval=[0.94, 0.981], cv_ece=0.0183).facts)
    assert facts == {
        "labeled automatically": "3",
        "labeled by people": "4",
        "labels": "3",
        "accuracy expected": "96.5 % (94.0–98.1)",
        "calibration error (ECE)": "0.018",
        "algorithm": "fast",
        "unreadable": "1",
    }
    assert "accuracy expected" not in dict(page_of(dataset, cv_accuracy=None, minutes=2.96).facts)
    assert dict(page_of(dataset, minutes=2.96).facts)["minutes asked for"] == "2.96"


def test_tables_by_hand(dataset):
    choices = {
        "unlabeled_images_used": False,
        "precision": "bfloat16",
        "candidates": {"ridge": 0.9412, "a_net": None},
        "why": "measured",
        "steps": [12000, 5],
    }
    tables = {table.title: table for table in page_of(dataset, **choices).tables}
    assert tables["Confusions"].rows == (("cat", "dog", "1", "50 %"),)
    assert tables["Counts"].rows == (
        ("cat", "2", "2", "75 %", "50 %"),
        ("dog", "1", "1", "75 %", "100 %"),
        ("eel", "1", "0", "–", "–"),
    )
    assert tables["Choices"].rows == (
        ("unlabeled images used", "no"),
        ("numbers that networks compute in", "bfloat16"),
        ("candidates: ridge", "0.9412"),
        ("candidates: a net", "–"),
        ("why", "measured"),
        ("steps", "12,000, 5"),
    )
    assert tables["Unreadable"].rows == (("b.jpg", "broken", "ends early"),)


def test_confusions_of_several_labels(dataset):
    sure, unsure = 0.9, 0.1
    people = {0: (CAT, DOG), 1: (CAT,), 2: (EEL,), 3: (CAT, DOG)}
    probabilities = [
        (sure, unsure, sure),  # eel instead of dog
        (sure, sure, unsure),  # dog too
        (0.3, 0.2, 0.4),  # the most probable one is always given
        (sure, unsure, unsure),  # dog is missed
        (0.8, 0.6, unsure),
        *[(math.nan,) * 3] * 3,
    ]
    page = labeling_page(dataset, labeling_of(("cat", "dog", "eel"), people, probabilities), notes=(), threads=1)
    (table,) = [table for table in page.tables if table.title == "Confusions"]
    assert table.rows == (("–", "dog", "1", "–"), ("dog", "–", "1", "50 %"), ("dog", "eel", "1", "50 %"))
    assert page.decisions.several
    assert page.galleries[0].tiles[0].caption == "80 % · cat, 60 % · dog"
    assert [card.tiles[0].caption for card in page.cards[:2]] == ["80 % + dog", "60 % + cat"]
    assert page.galleries[0].tiles[0].proposal.labels == ("cat", "dog")


def test_confidences_and_reliability(dataset):
    points = [
        {"confidence": 0.9, "accuracy": 0.8, "count": 5},
        {"confidence": 0.5, "accuracy": 0.5, "count": 2},
        {"confidence": 0.1, "accuracy": 0.0, "count": 0},
    ]
    page = page_of(dataset, reliability=points)
    assert page.reliability.points == ((0.5, 0.5, 2), (0.9, 0.8, 5))
    (chart,) = page.histograms
    assert chart.edges == tuple(range(50, 101, 5))
    assert chart.series[0][1] == (1, 0, 0, 0, 0, 1, 0, 0, 0, 1)
    assert "Choices" not in [table.title for table in page.tables]
    assert page_of(dataset).reliability is None


def test_sources_are_those_of_the_result(dataset):
    labeling = labeling_of(("cat", "dog", "eel"), PEOPLE, PROBABILITIES)
    renamed = [replace(sample, source=f"../pets/{at}.png") for at, sample in enumerate(dataset)]
    read = []

    def begin(total):
        read.append(total)
        return read.append

    page = labeling_page(dataset, labeling, notes=(), threads=1, begin=begin, written=renamed)
    assert [proposal.source for proposal in page.proposals][:3] == ["../pets/4.png", "../pets/5.png", "../pets/6.png"]
    assert {proposal.source for proposal in page_of(dataset).proposals} == {"4.png", "5.png", "6.png"}
    assert (read[0], read[-1]) == (3, 3)  # an image is read once, though it is shown twice
    assert "data-source=" in render(page)


def test_nothing_labeled_is_a_page(dataset):
    labeling = labeling_of(("cat", "dog", "eel"), PEOPLE, [*PROBABILITIES[:4], *[NOTHING] * 4])
    page = labeling_page(dataset, labeling, notes=(), threads=1)
    assert page.title == "pets: 0 images labeled" and page.galleries == () and page.histograms == ()
    render(page)


@pytest.mark.parametrize(
    ("labels", "wanted"), [(2, (18, 9)), (80, (18, 9)), (100, (12, 6)), (200, (6, 3)), (300, (5, 2)), (5000, (0, 0))]
)
def test_tiles_of_all_sections_keep_the_page_small(labels, wanted):
    least, most = _tiles_per_label(labels, REVIEW_FIRST)
    assert (least, most) == wanted
    assert labels * (least + most) + REVIEW_FIRST <= MOST_TILES


def test_many_labels_and_images_stay_below_the_cap(dataset):
    rng = np.random.default_rng(0)
    rows, labels = 4000, tuple(f"label {at}" for at in range(300))
    probabilities = rng.dirichlet(np.full(300, 0.02), rows)
    many = replace(dataset, samples=tuple(dataset.samples[at % 8] for at in range(rows)))
    labeling = labeling_of(labels, {at: (at,) for at in range(300)}, probabilities)
    page = labeling_page(many, replace(labeling, survey=survey_of(rows)), notes=(), threads=2)
    assert len(page.galleries[0].tiles) == REVIEW_FIRST
    assert REVIEW_FIRST < len(list(page.proposals)) <= MOST_TILES
    assert all(len(proposal.likely) == 9 for proposal in page.proposals)
    assert len(page.cards) == 300


def test_shares_in_words():
    assert [_percent(share) for share in (0, 0.001, 0.574, 0.994, 0.9999, 1)] == [
        "0 %",
        "<1 %",
        "57 %",
        "99.4 %",
        "99.9 %",
        "100 %",
    ]
    assert [_word(value) for value in (True, None, math.nan, 3, 12_345, 0.123456, [], {"a_b": 1}, "x")] == [
        "yes",
        "–",
        "–",
        "3",
        "12,345",
        "0.1235",
        "none",
        "a b 1",
        "x",
    ]
