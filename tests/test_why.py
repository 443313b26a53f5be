"""Why an image is hard, and what a review leaves, on a page."""

from __future__ import annotations

import html
import json
import re

import numpy as np
import pytest
import torch

from engine.hard.combine import Residual
from engine.report import Curve, Example, Gallery, Page, Tile, Why, render, thumbnail
from engine.report.curve import curve_html
from engine.tasks.hard_page import curve_of, neighbours_of, reviews


def picture(light: int) -> bytes:
    return thumbnail(np.full((8, 12, 3), light, np.uint8))


def page(*whys: Why | None, examples: int = 2) -> Page:
    tiles = tuple(Tile(picture(40 * at), f"{at}.jpg", "43 % · cat", why=why) for at, why in enumerate(whys))
    return Page(
        title="hard",
        galleries=(Gallery("Hard examples", tiles),),
        reasons={1: "the confidence is low", 30: "predicted to be <abnormal>"},
        examples=tuple(Example(picture(100 + at), f"cat & {at}") for at in range(examples)),
    )


WHY = Why("43 % likely wrong", ((1, 0.75), (30, 0.25)), ('ca"t',), (1, 0), '{"source":"a\'b.jpg"}')


def test_a_page_carries_reasons_examples_and_lines() -> None:
    text = render(page(WHY, None))
    (why,) = re.findall(r'data-why="([^"]*)"', text)
    assert json.loads(html.unescape(why)) == {
        "told": "43 % likely wrong",
        "reasons": [[1, 0.75], [30, 0.25]],
        "labels": ['ca"t'],
        "near": [1, 0],
    }
    (line,) = re.findall(r'data-line="([^"]*)"', text)
    assert json.loads(html.unescape(line)) == {"source": "a'b.jpg"}
    (words,) = re.findall(r'data-words="([^"]*)"', text)
    assert json.loads(html.unescape(words)) == {"1": "the confidence is low", "30": "predicted to be <abnormal>"}
    assert text.count("<figcaption>cat &amp; ") == 2 and 'id="why"' in text and "selection.manifest" in text


def test_a_page_without_reasons_is_as_before() -> None:
    text = render(page(None, None))
    assert "data-why" not in text and 'id="why"' not in text and "selection.manifest" not in text
    assert 'id="examples"' not in text


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="reason 2: must have words on the page"):
        page(Why("hard", ((2, 1.0),), ()))
    with pytest.raises(ValueError, match=r"examples must be 0\.\.0, got \(1, 0\)"):
        page(WHY, examples=1)
    with pytest.raises(ValueError, match=r"reason 1: share must be in \[0, 1\], got 1.5"):
        Why("hard", ((1, 1.5),), ())


def test_a_curve_and_its_band() -> None:
    curve = Curve("Left", "after a review", ((0, 0.04, 0.02, 0.08), (50, 0.01, 0.0, 0.03), (100, 0.0, 0.0, 0.0)))
    text = curve_html(curve)
    assert "4.0 % left (2.0 % to 8.0 %)" in text and 'class="band s0"' in text
    assert ">8 %<" in text and ">100<" in text  # both axes end where the data do
    assert "No values" in curve_html(Curve("Left", "", ()))
    with pytest.raises(ValueError, match="must be"):
        Curve("Left", "", ((0, 0.5, 0.6, 0.7),))
    with pytest.raises(ValueError, match="in order"):
        Curve("Left", "", ((5, 0.1, 0.1, 0.1), (5, 0.1, 0.1, 0.1)))


def test_a_curve_of_what_is_left() -> None:
    left = (Residual(0, 10.0, 5.0, 20.0), Residual(50, 3.0, 1.0, 8.0), Residual(100, 0.0, 0.0, 0.0))
    curve = curve_of(left)
    assert curve is not None and curve.points[0] == (0, 0.1, 0.05, 0.2)
    assert curve_of(()) is None
    assert dict(reviews(left, 100)) == {
        "to review until 98 % are right": "88 of 100",  # at most 2 may be left: 8 at 50, none at 100
        "to review until 99.5 % are right": "97 of 100",
    }


def test_neighbours_are_training_images_of_the_label_first() -> None:
    vectors = torch.tensor([[0.0], [1.0], [2.0], [3.0], [9.0], [0.5], [float("nan")]])
    told = torch.zeros(7, 2, dtype=torch.bool)
    told[[1, 3, 4], 0], told[2, 1] = True, True
    found = neighbours_of([5, 1, 6], vectors, told, {5: [0], 1: [0], 6: [0]})
    near = {row: [found.rows[at] for at in places] for row, places in found.near.items()}
    assert near == {5: [1, 3, 4, 2], 1: [3, 4, 2]}  # never itself; a row without a vector has none
