"""Hard examples, reason by reason: scores by hand, combiners, bad input."""

from __future__ import annotations

import doctest
import importlib
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.errors import InputError, UsageError
from engine.hard.anomaly import abnormality, joined
from engine.hard.asking import NOBODY
from engine.hard.clustering import around, disagreement
from engine.hard.combine import (
    Residual,
    by_miner,
    calibrate,
    levelled,
    reasons_of,
    residuals,
    reviews_to_reach,
    scale_of,
    usual_mean,
    usual_means,
    weighted,
)
from engine.hard.config import HardConfig, parsed_weights
from engine.hard.consistency import inconsistencies
from engine.hard.distribution import deviations, offset
from engine.hard.divergence import divergence
from engine.hard.examples import hard_examples, judge_of
from engine.hard.labeled import Seen, views_of
from engine.hard.mining import Evidence, View, mined
from engine.hard.operators import OPERATORS as ALTERATIONS
from engine.hard.predict_score import low_confidence, nothing_found
from engine.hard.reasons import OPERATORS, REASONS, WEIGHTS
from engine.hard.sequential import inconsistency, sequences_in, sequences_of
from engine.hard.similarity import unlikeness
from engine.label.training import generator_of
from engine.samples import Sample


def one_hot(*classes: int, k: int = 2) -> Tensor:
    return torch.nn.functional.one_hot(torch.tensor(classes), k).bool()


# ---- The reasons. ----


def test_the_31_reasons_and_their_miners() -> None:
    assert list(REASONS) == list(range(31))
    assert {reason.miner for reason in REASONS.values()} == set(WEIGHTS)
    assert list(OPERATORS.values()) == list(range(19, 30)) and list(OPERATORS) == list(ALTERATIONS)
    assert [number for number, reason in REASONS.items() if reason.of_boxes] == [0, *range(11, 19)]


@pytest.mark.parametrize("name", ["predict_score", "divergence", "config"])
def test_examples_in_docstrings(name: str) -> None:
    found = doctest.testmod(importlib.import_module(f"engine.hard.{name}"), extraglobs={"torch": torch})
    assert found.attempted and not found.failed


def test_low_confidence_of_one_and_of_several_labels() -> None:
    assert low_confidence(torch.tensor([[0.2, 0.3, 0.5]]), one_hot(2, k=3)).item() == pytest.approx(0.5)
    several = torch.tensor([[0.9, 0.8, 0.1], [0.9, 0.6, 0.45]])
    given = torch.tensor([[True, True, False], [True, True, False]])
    assert low_confidence(several, given).tolist() == pytest.approx([0.2, 0.45])
    assert low_confidence(torch.tensor([[math.nan, math.nan]]), one_hot(0)).isnan().all()


def test_nothing_found() -> None:
    assert nothing_found(torch.tensor([0.0, 0.25, 0.5, 0.9]), floor=0.5).tolist() == [1, 0.5, 0, 0]


#: Two labels, training images at 0, 1 (label 0) and 10, 11 (label 1); then asked ones at 0.5 and 10.5.
LINE = torch.tensor([[0.0], [1.0], [10.0], [11.0], [0.5], [10.5]])
SEEN, TOLD = torch.arange(4), one_hot(0, 0, 1, 1)


def test_unlikeness_by_hand() -> None:
    given = one_hot(0, 0, 1, 1, 0, 0)
    found = unlikeness(LINE, SEEN, TOLD, given)[given]
    # A training image is not its own neighbour: at 0 the other of its label is at 1, others at 10 and 11.
    expected = [1 / (1 + 10.5), 1 / (1 + 9.5), 1 / (1 + 9.5), 1 / (1 + 10.5), 0.5 / (0.5 + 10), 10 / (10 + 0.5)]
    assert found.tolist() == pytest.approx(expected)


def test_unlikeness_at_the_edges() -> None:
    nobody = torch.zeros(6, 3, dtype=torch.bool)
    told = one_hot(0, 0, 1, 1, k=3)
    assert unlikeness(LINE, SEEN, told, nobody).isnan().all()
    never = nobody.clone()
    never[4, 2] = True
    assert unlikeness(LINE, SEEN, told, never)[4, 2] == 1  # no training image has the label
    assert unlikeness(LINE, SEEN[:2], told[:2], one_hot(0, 0, 0, 0, 0, 0, k=3))[4, 0] == 0  # all have
    assert unlikeness(LINE, SEEN[:0], told[:0], never).isnan().all()
    same = torch.ones(6, 1)
    asked = one_hot(0, 0, 1, 1, 0, 1, k=3)
    assert unlikeness(same, SEEN, told, asked)[asked].tolist() == [0.5] * 6


def test_abnormality_by_hand() -> None:
    vectors = torch.tensor([[0.0], [1.0], [2.0], [10.0], [1.0]])
    found = abnormality(vectors, torch.arange(3), neighbours=1)
    # Training images lie 1 from their nearest; the asked ones 8 and 0.
    assert found.tolist() == pytest.approx([0.5, 0.5, 0.5, 8 / 9, 0.0])
    assert abnormality(vectors, torch.arange(1)).isnan().all()  # nothing to compare with
    assert abnormality(torch.ones(4, 2), torch.arange(3)).tolist() == [0.5] * 4


def test_another_share_may_be_far_and_scales_be_joined() -> None:
    scores = {1: torch.arange(101) / 100, 3: torch.arange(101) / 200}
    everyone = torch.ones(101, dtype=torch.bool)
    usual, other = scale_of(scores, everyone), scale_of({3: scores[3]}, everyone, far=0.95)
    assert usual.far == pytest.approx({1: 0.99, 3: 0.495}) and other.far == pytest.approx({3: 0.475})
    both = usual.with_others(other)
    assert both.far == pytest.approx({1: 0.99, 3: 0.475}) and both.typical == usual.typical


def test_the_larger_abnormality_counts_on_one_scale() -> None:
    first = torch.tensor([0.4, 0.5, 0.6, 0.5, torch.nan, 0.5])
    second = torch.tensor([0.1, 0.2, 0.3, 0.9, 0.4, torch.nan])
    reference = torch.tensor([True, True, True, False, False, False])
    found = joined(first, second, reference)  # the second one moved by 0.3
    assert found.tolist() == pytest.approx([0.4, 0.5, 0.6, 1.0, 0.7, 0.5])
    assert joined(first, second, ~reference).tolist()[:4] == pytest.approx([0.5, 0.5, 0.6, 0.5])
    assert torch.equal(joined(first, second * torch.nan, reference).nan_to_num(9), first.nan_to_num(9))


def test_what_networks_do_not_see_is_found_by_pixels() -> None:
    """Two labels that lie apart for the networks; the last sample looks like nothing that anybody labeled."""
    chance = generator_of("foreign")
    names = torch.arange(41) % 2
    told, given = one_hot(*names.tolist()), one_hot(*names.tolist())
    told[30:], given[:30] = False, False
    vectors = one_hot(*names.tolist()).float() + 0.05 * torch.randn(41, 2, generator=chance)
    pixels = torch.randn(41, 8, generator=chance)
    pixels[40] += 9
    view, nobody = View(vectors, torch.arange(30)), torch.zeros(41, dtype=torch.bool)
    known = Evidence(given.float() * 0.9 + 0.05, given, told, nobody, False, (view,))
    by_networks, by_both = (mined(each).scores[30] for each in (known, replace(known, contents=pixels)))
    rest = torch.arange(30, 40)
    assert by_networks[40] < by_networks[rest].max()
    assert by_both[40] > by_both[rest].max() + 0.1
    with pytest.raises(InputError, match=r"contents: must be \(41, d\), got \(40, 8\)"):
        hard_examples(replace(known, contents=pixels[:40]))


def test_clusters_vote_against_a_label() -> None:
    chance = generator_of("points")
    vectors = torch.cat([torch.randn(20, 2, generator=chance), torch.randn(20, 2, generator=chance) + 20])
    told = one_hot(*[0] * 20, *[1] * 20)
    given = told.clone()
    given[3] = ~given[3]  # a wrong label among the training images
    found = disagreement(vectors, torch.arange(40), told, given, generator=generator_of("k"))[given]
    assert found.argmax() == 3 and found[3] > 0.8
    assert found[torch.arange(40) != 3].max() < 0.2
    assert disagreement(vectors, torch.arange(1), told[:1], given, generator=generator_of("k")).isnan().all()


def test_those_around_speak_of_a_label() -> None:
    vectors = torch.cat([torch.arange(12.0)[:, None], 100 + torch.arange(12.0)[:, None]])
    beliefs = torch.cat([torch.tensor([[1.0, 0.0]]).repeat(12, 1), torch.tensor([[0.2, 0.8]]).repeat(12, 1)])
    given = one_hot(*[0] * 12, *[1] * 12)
    given[3] = ~given[3]
    found = around(vectors, beliefs, given, generator=generator_of("around"))
    assert found[0, 0] == 0 and found[3, 1] == 1 and found[20, 1].item() == pytest.approx(0.2)
    assert found[~given].isnan().all()
    # Among drawn ones, the sample itself is never asked, and each has ten that are.
    strange = beliefs.clone()
    strange[5] = torch.tensor([0.0, 1.0])
    few = around(vectors, strange, given, generator=generator_of("around"), among=20)
    assert few[given].isfinite().all() and few[5, 0] <= 0.5
    unknown = strange.clone()
    unknown[5] = math.nan  # nothing is believed of it, so it does not vote
    assert around(vectors, unknown, given, generator=generator_of("around"))[4, 0] == 0
    blind = vectors.clone()
    blind[0] = math.nan
    assert around(blind, beliefs, given, generator=generator_of("around"))[0].isnan().all()
    assert around(vectors[:1], beliefs[:1], given[:1], generator=generator_of("around")).isnan().all()


def test_offsets_from_a_distribution() -> None:
    reference = np.linspace(0, 1, 101)
    found = offset(np.array([0.5, 0.0, 1.0, 3.0, math.nan]), reference)
    assert found[0] == 0 and found[1] == pytest.approx(found[2], abs=1e-3) and 0.7 < found[1] < 0.95
    assert found[3] > 0.99 and np.isnan(found[4])
    # Each side has its own spread; the same value of all still lets the unnoticeable pass.
    skewed = np.concatenate([np.linspace(-0.1, 0, 50), np.linspace(0, 10, 50)])
    below, above = offset(np.array([-1.0, 1.0]), skewed)
    assert below > 0.99 and above < 0.3
    same, hardly, far = offset(np.array([0.5, 0.501, 1.0]), np.full(30, 0.5))
    assert same == 0 and hardly < 0.1 and far > 0.99
    assert offset(np.array([2.0]), np.array([])).tolist() == [0.0]
    large = offset(np.array([200.0]), np.array([100.0, 101, 99, 102]), log=True)
    assert large[0] > 0.9


def test_scores_of_a_distribution_tell_how_far_out_they_lie() -> None:
    reference = np.random.default_rng(0).standard_normal(10_000)
    values = np.array([0.0, 2.0, 5.0, 10.0, 15.0])
    assert deviations(torch.from_numpy(offset(values, reference))).tolist() == pytest.approx(values, abs=0.5)
    assert deviations(torch.tensor([1.0])).tolist() == pytest.approx([20], abs=1)
    assert bool(deviations(torch.tensor([math.nan])).isnan().all())


def test_a_box_is_held_against_boxes_of_its_label() -> None:
    told = one_hot(*[0] * 50, *[1] * 50, *[2] * 3, 0, 1, 2, k=3)
    told[-3:] = False
    given = torch.zeros_like(told)
    given[-3:] = one_hot(0, 1, 2, k=3)
    sizes = torch.cat([torch.linspace(9, 11, 50), torch.linspace(0.9, 1.1, 50), torch.full((3,), 5.0)])
    areas = torch.cat([sizes, torch.ones(3)])
    asked = Evidence(given.float(), given, told, torch.zeros(106, dtype=torch.bool), features={14: areas, 7: areas})
    found = mined(asked, miners=["feature_distribution_mining"]).scores
    assert found[14][-3] > 0.99 and found[14][-2] < 0.3  # small as those of the second label, and small for its own
    assert 0.3 < found[14][-1] < 0.99  # three of a label tell nothing: held against all
    assert found[7][-3] == found[7][-2]  # what is measured of an image is not of its label


def test_frames_by_their_names() -> None:
    names = ["a/f_10.jpg", "a/f_9.jpg", "b/f_11.jpg", "a/f_11.jpg", "a/f_90.jpg", "x.jpg"]
    assert sequences_of(names) == [[1, 0, 3]]
    assert sequences_of(["p.jpg", "q.jpg"]) == [[0, 1]]  # the order of the samples is the only one
    assert sequences_of(["p.jpg", "q.jpg", "r.jpg"], {0: ("v", 2.0), 2: ("v", 1.0)}) == [[2, 0]]


def test_frames_of_a_video_by_their_time() -> None:
    def frame(name: str, video: str, time: object) -> Sample:
        return Sample(name, property={"@modelarts:parent_source": video, "@modelarts:time_in_video": time})

    samples = [frame("x9.jpg", "v", "2.5"), frame("y1.jpg", "v", 1), frame("z.jpg", "w", 0), Sample("k.jpg")]
    assert sequences_in(samples) == [[1, 0]]
    assert sequences_in([frame("p.jpg", "v", "soon"), Sample("q.jpg")]) == [[0, 1]]  # no time: the order there is


def test_a_person_beside_a_machine_that_says_the_same_is_no_contradiction() -> None:
    chance = generator_of("alike")
    vectors = torch.randn(10, 8, generator=chance)[torch.arange(40) // 4] + 0.01 * torch.randn(40, 8, generator=chance)
    told = torch.zeros(40, 2, dtype=torch.bool)
    told[::2, 0] = True
    given = torch.zeros(40, 2, dtype=torch.bool)
    given[1::2, 0] = True
    probabilities = torch.where(given.any(dim=1, keepdim=True), torch.tensor([0.97, 0.03]), torch.nan)
    nobody = torch.zeros(40, dtype=torch.bool)
    views = (View(vectors, told[:, 0].nonzero()[:, 0]),)
    found = mined(Evidence(probabilities, given, told, nobody, False, views, sequences=[list(range(40))])).scores[4]
    assert float(found[1::2].max()) < 0.05


def test_a_label_that_goes_from_one_frame_to_the_next_counts_whole() -> None:
    """Of several labels each is a question of its own."""
    vectors = torch.randn(200, 8, generator=generator_of("frames"))
    vectors[:12] = 1
    said = torch.ones(200, 3)
    said[5, 2] = 0
    runs = [list(range(12))]
    several = inconsistency(vectors, said, runs, multi_label=True, generator=generator_of("pairs"))
    assert float(several[5]) > 0.9 and float(several[5]) == float(several.max())


def test_what_is_planted_on_all_frames_is_odd_beside_what_was_said_of_each() -> None:
    vectors = torch.randn(200, 8, generator=generator_of("frames"))
    vectors[:12] = 1
    said = torch.tensor([[1.0, 0.0]]).repeat(200, 1)
    runs, own = [list(range(12))], said.flip(1)
    found = inconsistency(vectors, said, runs, own=own, generator=generator_of("pairs"))
    assert float(found[:12].min()) > 0.9 and float(found[12:].max()) == 0
    same = inconsistency(vectors, own, runs, generator=generator_of("pairs"))
    assert float(same.max()) == 0


def test_the_odd_frame_out_is_the_most_inconsistent() -> None:
    chance = generator_of("frames")
    scene = torch.randn(1, 16, generator=chance)
    frames = torch.cat([scene + 0.01 * torch.randn(5, 16, generator=chance), torch.randn(60, 16, generator=chance)])
    said = torch.tensor([[0.9, 0.1]]).repeat(65, 1)
    said[2] = torch.tensor([0.1, 0.9])
    found = inconsistency(frames, said, [list(range(65))], generator=generator_of("pairs"))
    assert found.argmax() == 2 and found[2] > 0.4
    assert found[1] == pytest.approx(found[3].item(), rel=0.1) and found[1] == pytest.approx(
        found[2].item() / 4, rel=0.1
    )
    assert found[6:].max() == 0  # others changed their minds about nothing
    shuffled = torch.randperm(65, generator=chance)
    out_of_order = inconsistency(frames[shuffled], said[shuffled], [list(range(65))], generator=generator_of("pairs"))
    assert out_of_order.isnan().all()  # an order that tells nothing says nothing


def test_divergence() -> None:
    p, q = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5, 0.5]])
    by_hand = (
        1.5 * math.log2(4 / 3) - 0.75 * math.log2(4 / 3) + 0.25 * 2 - 0.5
    )  # entropies of (3/4, 1/4) and (1/2, 1/2)
    entropy = -(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25))
    assert divergence(p, q).item() == pytest.approx(entropy - 0.5) and by_hand == pytest.approx(entropy - 0.5)
    assert divergence(p, q) == divergence(q, p)
    assert divergence(torch.tensor([[0.5, 1.0]]), torch.tensor([[0.5, 0.0]]), multi_label=True) == 1
    assert divergence(p * math.nan, q).isnan().all()


# ---- Alterations. ----


def photos(n: int = 3, height: int = 20, width: int = 28) -> Tensor:
    coarse = torch.rand(n, 3, 5, 7, generator=generator_of("photos"))
    return torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear").clamp(0, 1)


@pytest.mark.parametrize("name", ALTERATIONS)
def test_an_alteration_keeps_the_form_and_every_image_to_itself(name: str) -> None:
    images = photos()
    before, found = images.clone(), ALTERATIONS[name](images)
    assert found.shape == images.shape and found.dtype == images.dtype
    assert found.min() >= 0 and found.max() <= 1 and not torch.equal(found, images)
    assert torch.equal(images, before)
    alone = torch.cat([ALTERATIONS[name](image[None]) for image in images])
    torch.testing.assert_close(found, alone, atol=1e-6, rtol=0)
    assert ALTERATIONS[name](torch.rand(2, 3, 1, 1)).shape == (2, 3, 1, 1)
    assert ALTERATIONS[name](torch.rand(1, 3, 2, 40)).isfinite().all()


@pytest.mark.parametrize("name", [name for name in ALTERATIONS if name not in ("add", "invert")])
def test_an_even_image_stays_even(name: str) -> None:
    even = torch.full((1, 3, 16, 16), 0.4)
    torch.testing.assert_close(ALTERATIONS[name](even), even)


def test_alterations_by_eye() -> None:
    ramp = torch.linspace(0, 1, 20).expand(1, 3, 20, 20)
    assert torch.equal(ALTERATIONS["fliplr"](ramp), ramp.flip(3)) and torch.equal(ALTERATIONS["flipud"](ramp), ramp)
    crop, smaller = ALTERATIONS["crop"](ramp)[0, 0, 10], ALTERATIONS["scale"](ramp)[0, 0, 10]
    assert crop[0] == pytest.approx(0.1, abs=0.01) and crop[-1] == pytest.approx(0.9, abs=0.01)
    assert smaller[3] == pytest.approx(ramp[0, 0, 10, 1].item(), abs=0.03)
    moved = ALTERATIONS["translate"](ramp)[0, 0, 10]
    assert moved[12] == pytest.approx(ramp[0, 0, 10, 10].item(), abs=0.01)
    assert ALTERATIONS["invert"](ramp)[0, 0, 0, 0] == 1
    edge = (torch.arange(20) >= 10).float().expand(1, 3, 20, 20)
    assert ALTERATIONS["gaussianblur"](edge)[0, 0, 5, 9] > 0.1
    grey = edge * 0.4 + 0.3
    assert ALTERATIONS["sharpen"](grey)[0, 0, 5, 9] < 0.3 and ALTERATIONS["sharpen"](grey)[0, 0, 5, 10] > 0.7


def test_superpixels_keep_edges_and_lose_noise() -> None:
    edge = (torch.arange(36) >= 17).float().expand(1, 3, 36, 36) * 0.8
    noisy = (edge + 0.05 * torch.rand(1, 3, 36, 36, generator=generator_of("noise"))).clamp(0, 1)
    found = ALTERATIONS["superpixels"](noisy)
    assert found[..., :17].max() < 0.2 and found[..., 17:].min() > 0.7
    assert len(found[0, 0].unique()) <= 144
    assert found[..., :17].std() < 0.7 * noisy[..., :17].std()


def test_inconsistencies_ask_again() -> None:
    def predict(images: Tensor) -> Tensor:
        left = (images[:, 0, :, 0].mean(dim=1) > 0.5).float()
        return torch.stack([left, 1 - left], dim=1)

    ramp = torch.linspace(0, 1, 20).expand(2, 3, 20, 20)
    altered = {name: ALTERATIONS[name](ramp) for name in ("fliplr", "flipud")}
    found = inconsistencies(predict(ramp), altered, predict)
    assert found["fliplr"].tolist() == [1, 1] and found["flipud"].tolist() == [0, 0]


# ---- All miners. ----


def simulated(n: int, labeled: int, *, seed: int = 0, errors: float = 0.2) -> tuple[Evidence, np.ndarray]:
    """Two classes that overlap; which labels are wrong (n,) shows in vectors and in changes, not in the confidence."""
    chance = generator_of("evidence", seed)
    truth = torch.randint(0, 2, (n,), generator=chance)
    wrong = torch.rand(n, generator=chance) < errors
    predicted = torch.where(wrong, 1 - truth, truth)
    confidence = 0.8 + 0.15 * torch.rand(n, generator=chance)
    given = one_hot(*predicted.tolist())
    probabilities = torch.where(given, confidence[:, None], 1 - confidence[:, None])
    vectors = torch.stack([4.0 * truth, torch.zeros(n)], dim=1) + 1.5 * torch.randn(n, 2, generator=chance)
    told = one_hot(*truth.tolist())
    told[labeled:] = False
    judged = torch.arange(n) < labeled
    changed = (0.5 * torch.rand(n, generator=chance) + 0.3 * wrong).clamp(0, 1)
    features = {reason: torch.rand(n, generator=chance) for reason in range(5, 11)}
    views = (View(vectors, judged.nonzero()[:, 0]),)
    return Evidence(probabilities, given, told, judged, False, views, features, {20: changed}), wrong.numpy()


def evidence(n: int = 200, labeled: int = 100) -> Evidence:
    return simulated(n, labeled)[0]


def test_mined_scores_lie_between_0_and_1_and_choose_miners() -> None:
    found = mined(evidence()).scores
    assert list(found) == [1, 2, 3, *range(5, 11), 20, 30]
    assert all(bool(((score >= 0) & (score <= 1)).all()) for score in found.values())
    assert list(mined(evidence(), miners=["predict_score_mining"]).scores) == [1]


def test_a_view_does_not_judge_what_it_has_learned_from() -> None:
    known = evidence(20, 10)
    far = known.views[0].vectors.clone()
    far[0] += 100
    first, second = View(known.views[0].vectors, torch.arange(5)), View(far, torch.arange(5, 10))
    both = Evidence(known.probabilities, known.given, known.told, known.judged, False, (first, second))
    alone = Evidence(known.probabilities, known.given, known.told, known.judged, False, (second,))
    by_both, by_one = mined(both).scores[30], mined(alone).scores[30]
    assert by_both[0] == by_one[0] > 0.9  # sample 0 was seen by the first
    assert by_both[15] not in (by_one[15], 0)


def test_those_around_are_what_the_model_believes_that_has_not_seen_the_label() -> None:
    known = evidence(60, 20)
    n, k = known.probabilities.shape
    vectors, yes = torch.randn(n, 3, generator=generator_of("around")), torch.tensor([1.0, 0.0]).expand(n, k)
    first = View(vectors, torch.arange(10), 1 - yes)
    second = View(vectors, torch.arange(10, 20), yes)
    told, given = torch.zeros(n, k, dtype=torch.bool), torch.zeros(n, k, dtype=torch.bool)
    told[:20, 0], given[:, 0] = True, True
    said = replace(known, told=told, given=given, probabilities=yes)
    found = mined(replace(said, views=(first, second))).around[:, 0]
    # Of the ten around a third is labeled, and people say yes; of the others the first model says no, all say yes.
    assert bool((found[:10] == 0).all()) and 0.5 < found[10:20].mean() < 0.8
    assert bool((found[20:] == 0).all())
    shown = mined(replace(said, views=(first, second), contents=vectors)).alike
    blind = vectors.clone()
    blind[12] = math.nan
    not_shown = mined(replace(said, views=(first, second), contents=blind)).alike
    assert bool(not_shown[12].isnan().all()) and not bool(not_shown[13:20, 0].isnan().any())
    assert torch.equal(shown[:, 0], found)  # the same of those alike, where pixels show the same
    for views in ((first, second), (second, first)):  # seen by neither: their mean, in any order
        neither = tuple(replace(view, seen=torch.arange(5)) for view in views)
        by_both = mined(replace(said, views=neither, contents=vectors))
        assert torch.allclose(by_both.alike[5:20, 0], by_both.around[5:20, 0])
        assert 0.25 < by_both.alike[5:20, 0].mean() < 0.4
    nobody_asked = (replace(first, beliefs=None), replace(second, beliefs=None))
    assert bool((mined(replace(said, views=nobody_asked)).around[:, 0] == 0).all())
    with pytest.raises(InputError, match="views: beliefs must be"):
        hard_examples(replace(said, views=(replace(first, beliefs=yes[:9]),)))
    with pytest.raises(InputError, match=r"views: beliefs must be in \[0, 1\] or NaN"):
        hard_examples(replace(said, views=(replace(first, beliefs=2 * yes),)))
    with pytest.raises(InputError, match="contents: must be finite"):
        hard_examples(replace(said, contents=vectors / 0))


def test_views_of_networks_know_what_each_has_not_seen_and_are_as_sure_as_they_are_right() -> None:
    chance = generator_of("views")
    truth = torch.randint(0, 2, (400,), generator=chance)
    right = torch.rand(2, 400, generator=chance) < 0.8
    sure = torch.where(right ^ (truth == 0), 0.99, 0.01)  # of the second label; too sure
    told = one_hot(*truth.tolist())
    told[300:] = False
    judges = torch.arange(400) % 2
    judges[200:250], judges[250:300], judges[300:] = -1, NOBODY, -1
    seen = Seen(torch.rand(2, 400, 3, generator=chance), torch.stack([1 - sure, sure], dim=2), {})
    views = views_of(seen, told, judges, multi_label=False)
    for number, view in enumerate(views):
        assert torch.equal(view.vectors, seen.vectors[number])
        assert view.seen.tolist() == [row for row in range(300) if row >= 200 or row % 2 != number]
        assert view.beliefs is not None and view.beliefs.sum(dim=1) == pytest.approx(torch.ones(400), abs=1e-5)
        assert view.beliefs.amax(dim=1).mean() == pytest.approx(0.8, abs=0.08)  # they were right as often as that
        assert torch.equal(view.beliefs.argmax(dim=1), seen.beliefs[number].argmax(dim=1))
    nobody = views_of(seen, told, torch.full((400,), -1), multi_label=False)
    assert torch.allclose(nobody[0].beliefs, seen.beliefs[0], atol=1e-5)  # nothing tells how sure they may be


@pytest.mark.parametrize("combiner", ["weights", "calibrated"])
def test_wrong_labels_come_first(combiner: str) -> None:
    known, wrong = simulated(400, 200)
    found = hard_examples(known, HardConfig(combiner=combiner))
    first = [row for row in found.order if row >= 200][: int(wrong[200:].sum())]
    assert wrong[first].mean() > 0.6  # a fifth is chance
    assert found.combiner == combiner and found.hard.dtype == bool
    assert all(bool(reasons) == bool(hard) for reasons, hard in zip(found.reasons, found.hard, strict=True))
    assert 20 in {reason for row in first for reason in found.reasons[row]}


def test_the_calibrated_coefficient_is_a_probability() -> None:
    gaps = []
    for seed in range(5):
        known, wrong = simulated(1200, 200, seed=seed, errors=0.125)  # as the confidences say
        gaps.append(hard_examples(known).coefficients[200:].mean() - wrong[200:].mean())
    assert abs(np.mean(gaps)) < 0.03


def test_many_errors_out_of_fold_say_more_than_confidences() -> None:
    gaps = []
    for judged in (60, 600):  # of the confidences one would expect 12.5 % wrong
        each = []
        for seed in range(5):
            known, wrong = simulated(1200, judged, seed=seed, errors=0.3)
            each.append(hard_examples(known).coefficients[judged:].mean() - wrong[judged:].mean())
        gaps.append(abs(np.mean(each)))
    assert gaps[1] < gaps[0] and gaps[1] < 0.1


def test_a_model_that_is_always_sure_is_believed_as_often_as_it_was_right() -> None:
    """One-hot probabilities say that nothing is wrong; the labeled samples say that a quarter is."""
    gaps = []
    for seed in range(5):
        known, wrong = simulated(1200, 150, seed=seed, errors=0.25)
        sure = replace(known, probabilities=known.given.float())
        gaps.append(hard_examples(sure).coefficients[150:].mean() - wrong[150:].mean())
    assert abs(np.mean(gaps)) < 0.08


def test_the_answer_says_what_a_review_leaves() -> None:
    found = hard_examples(evidence(400, 200))
    marks = found.choices["wrong_after_review"]
    assert [mark["reviewed"] for mark in marks] == [0, 10, 20, 40, 100]
    assert all(mark["interval"][0] <= mark["expected"] <= mark["interval"][1] for mark in marks)
    assert marks[0]["expected"] == pytest.approx(found.left[0].expected / 200, abs=1e-5)
    assert set(found.choices["reviews_until_right"]) == {"0.98", "0.995"}


def test_an_interval_of_what_is_left_covers_the_truth() -> None:
    covered = []
    for seed in range(40):
        known, is_wrong = simulated(500, 200, seed=seed, errors=0.15)
        found = hard_examples(known, seed=seed)
        wrong = is_wrong[[row for row in found.order if row >= 200]]
        covered.append(
            [each.low - 0.5 <= wrong[each.reviewed :].sum() <= each.high + 0.5 for each in found.left[:60:12]]
        )
    assert 0.8 < np.mean(covered) <= 1


def test_no_review_leaves_all_and_a_whole_one_nothing() -> None:
    found = hard_examples(evidence())
    assert found.left[0].reviewed == 0 and found.left[-1].reviewed == 100
    assert found.left[-1].expected == found.left[-1].high == 0
    expected = [each.expected for each in found.left]
    assert expected == sorted(expected, reverse=True)
    assert found.left[0].expected == pytest.approx(float(found.coefficients[100:].sum()), rel=1e-3)


def test_without_labels_the_weights_count() -> None:
    known = evidence()
    nobody = torch.zeros_like(known.told)
    found = hard_examples(Evidence(known.probabilities, known.given, nobody, nobody[:, 0], altered=known.altered))
    assert found.combiner == "weights" and found.left == () and found.threshold == 0.1
    assert list(found.scores) == [1, 20]


def test_given_weights_select_the_combiner() -> None:
    found = hard_examples(evidence(), HardConfig(algo_config={"predict_score_mining": 1.0}, threshold=0.0))
    assert found.combiner == "weights" and list(found.scores) == [1] and found.hard.all()


def test_a_sample_without_a_prediction_is_kept_and_not_hard() -> None:
    known = evidence()
    known.given[150] = False
    found = hard_examples(known)
    assert found.coefficients[150] == 0 and not found.hard[150] and found.reasons[150] == ()
    assert np.isfinite(found.coefficients).all()
    assert 150 not in found.labels.rows and len(found.labels) == 199


@pytest.mark.parametrize("combiner", ["weights", "calibrated"])
def test_labels_without_probabilities_are_judged_by_the_rest(combiner: str) -> None:
    known, wrong = simulated(400, 200)
    known.probabilities[200:] = math.nan
    found = hard_examples(known, HardConfig(combiner=combiner))
    assert np.isfinite(found.coefficients).all() and np.isnan(found.scores[1][200:]).all()
    assert found.coefficients[200:][wrong[200:]].mean() > found.coefficients[200:][~wrong[200:]].mean() + 0.1


def test_of_several_labels_each_is_judged_by_itself() -> None:
    """Two clusters of training images; a sample in the first one is given both labels, the second one wrongly."""
    chance = generator_of("several")
    vectors = torch.cat([torch.randn(30, 2, generator=chance), torch.randn(30, 2, generator=chance) + 20])
    told = torch.zeros(60, 2, dtype=torch.bool)
    told[:25, 0], told[30:55, 1] = True, True
    given = torch.zeros(60, 2, dtype=torch.bool)
    given[25:30, 0], given[55:, 1], given[25, 1] = True, True, True
    probabilities = torch.full((60, 2), 0.1) + 0.8 * given
    view = View(vectors, told.any(dim=1).nonzero()[:, 0])
    known = Evidence(probabilities, given, told, torch.zeros(60, dtype=torch.bool), True, (view,))
    found = hard_examples(known, HardConfig(combiner="weights"))
    of = {
        (row, column): at for at, (row, column) in enumerate(zip(found.labels.rows, found.labels.columns, strict=True))
    }
    right, wrong = found.labels.coefficients[of[25, 0]], found.labels.coefficients[of[25, 1]]
    assert wrong > right + 0.2 and len(found.labels) == 11
    assert found.coefficients[25] >= wrong - 1e-6


def test_of_several_labels_the_coefficient_of_each_is_a_probability() -> None:
    """Confidences that are as often right as they say; a sample has three labels, each with its own."""
    chance = generator_of("several probabilities")
    p = 0.5 + 0.5 * torch.rand(900, 3, generator=chance)
    truth = torch.rand(900, 3, generator=chance) < p
    truth[:, 0] |= ~truth.any(dim=1)
    judged = torch.arange(900) < 450
    told = truth & judged[:, None]
    found = hard_examples(Evidence(p, torch.ones_like(truth), told, judged, True))
    rest = found.labels.rows >= 450
    wrong = ~truth.numpy()[found.labels.rows, found.labels.columns][rest]
    assert abs(found.labels.coefficients[rest].mean() - wrong.mean()) < 0.04


def test_a_label_of_a_set_of_one_label_is_as_hard_as_its_sample() -> None:
    found = hard_examples(evidence())
    assert found.labels.rows.tolist() == list(range(200))
    assert np.array_equal(found.labels.coefficients, found.coefficients)
    assert found.labels.reasons == found.reasons


def test_shares_of_reasons_add_up() -> None:
    found = hard_examples(evidence())
    total = sum(found.shares.values())
    assert set(np.round(total, 5)) <= {0.0, 1.0} and (total[found.hard] > 0).all()
    at = int(found.order[0])
    assert found.reasons[at][0] == max(found.shares, key=lambda number: found.shares[number][at])


# ---- Plain arrays. ----


def test_plain_arrays() -> None:
    known, _ = simulated(400, 200)
    labels = np.where(known.told.any(dim=1), known.told.int().argmax(dim=1), -1)
    of_arrays = Evidence.of_arrays(known.probabilities.numpy(), labels, embeddings=known.views[0].vectors.numpy())
    assert torch.equal(of_arrays.given, known.given) and torch.equal(of_arrays.judged, known.judged)
    assert torch.equal(of_arrays.told, known.told) and torch.equal(of_arrays.views[0].seen, known.views[0].seen)
    found = hard_examples(of_arrays)
    assert found.combiner == "calibrated" and list(found.scores) == [1, 2, 3, 30]
    assert hard_examples(Evidence.of_arrays(known.probabilities, labels, out_of_fold=False)).combiner == "weights"
    assert hard_examples(Evidence.of_arrays(known.probabilities)).coefficients.shape == (400,)


def test_plain_arrays_of_several_labels() -> None:
    p = np.array([[0.9, 0.6], [0.2, 0.3], [np.nan, np.nan]])
    known = Evidence.of_arrays(p, np.array([[True, False], [False, False], [False, False]]))
    assert known.multi_label and known.given.tolist() == [[True, True], [False, True], [False, False]]
    assert Evidence.of_arrays(p, given=[1, -1, 0]).given.tolist() == [[False, True], [False, False], [True, False]]


def test_plain_arrays_that_do_not_fit() -> None:
    with pytest.raises(InputError, match=r"labels: must be class numbers 0\.\.1, or -1 for none, got 0\.\.2"):
        Evidence.of_arrays(np.full((2, 2), 0.5), [0, 2])
    with pytest.raises(InputError, match=r"labels: must be class numbers 0\.\.1, or -1 for none, got 0\.0\.\.1\.0"):
        Evidence.of_arrays(np.full((2, 2), 0.5), np.array([0.0, 1.0]))
    with pytest.raises(InputError, match=r"probabilities: must be \(n, k\), got \(2,\)"):
        Evidence.of_arrays([0.5, 0.5])
    with pytest.raises(InputError, match=r"labels: must be \(2,\) or \(2, 2\), got \(3,\)"):
        Evidence.of_arrays(np.full((2, 2), 0.5), [0, 1, 1])


# ---- Combining. ----


def test_the_weighted_mean_is_over_miners_that_could_run() -> None:
    miners = {"predict_score_mining": torch.tensor([1.0, 0.5]), "clustering_mining": torch.tensor([0.0, math.nan])}
    found = weighted(miners, {"predict_score_mining": 0.3, "clustering_mining": 0.1})
    assert found.tolist() == pytest.approx([0.75, 0.5])
    assert weighted({"clustering_mining": torch.tensor([2.0])}, WEIGHTS).tolist() == [2.0]
    assert weighted({}, WEIGHTS).tolist() == []


def test_what_one_training_sample_in_ten_reaches_is_the_threshold() -> None:
    assert usual_mean(torch.arange(101) / 100) == pytest.approx(0.9)
    assert usual_mean(torch.zeros(101)) == usual_mean(torch.ones(9)) == 0.1  # nothing is strange; too few tell
    assert usual_mean(torch.full((20,), 3.0)) < 3
    means = torch.tensor([0.0, 0.2, 0.4, 0.7, 1.0, 2.0, 3.0])
    assert levelled(means, 0.4).tolist() == pytest.approx([0.0, 0.05, 0.1, 0.5, 0.9, 0.95, 1.0])
    assert levelled(torch.tensor([0.5, 1.5, 3.0]), 1.5).tolist() == pytest.approx([0.1 / 3, 0.1, 1.0])
    known, wrong = simulated(2_000, 1_000)
    found = hard_examples(known, HardConfig(combiner="weights"))
    assert found.hard[:1000].mean() == pytest.approx(0.1, abs=0.02)  # those that were judged out of fold
    assert found.hard[wrong].mean() > 5 * found.hard[~wrong].mean()


def test_scores_are_scaled_by_the_labeled_samples() -> None:
    score = torch.arange(101.0) / 100
    scale = scale_of({1: score}, torch.arange(101) < 101)
    assert (scale.typical[1], scale.far[1]) == pytest.approx((0.5, 0.99))
    assert scale.of(1, torch.tensor([0.2, 0.5, 0.99, 1.0, 9.0])).tolist() == pytest.approx([0, 0, 1, 0.5 / 0.49, 3])


def test_a_difference_that_nobody_notices_is_no_reason() -> None:
    scores = {5: torch.cat([torch.zeros(100), torch.tensor([0.4])])}
    scale = scale_of(scores, torch.arange(101) < 100)
    assert scale.far[5] == pytest.approx(0.3)


def test_predictions_that_are_all_bad_are_hard() -> None:
    scores = {1: torch.full((6,), 0.9)}
    assert float(scale_of(scores, torch.zeros(6, dtype=torch.bool)).of(1, scores[1]).min()) >= 1


def test_operators_of_a_miner_are_weighted() -> None:
    scores = {19: torch.tensor([1.0, 0.0]), 20: torch.tensor([0.0, 1.0])}
    scale = scale_of({19: torch.tensor([0.0, 1.0]), 20: torch.tensor([0.0, 1.0])}, torch.tensor([True, True]))
    found = by_miner(scores, scale, operator_weights={"gaussianblur": 3, "fliplr": 1})["aug_consistent_mining"]
    assert found[0] == pytest.approx(3 * found[1].item())


def odds_of(p: float) -> float:
    return math.log(p / (1 - p))


def test_calibrating_without_samples_is_the_prior() -> None:
    model = calibrate(torch.empty(0, 3), {"clustering_mining": torch.empty(0)}, torch.empty(0, dtype=torch.bool))
    found = (model.intercept, model.confidence, model.around, model.alike, model.errors)
    assert found == (0, 0.4, pytest.approx(0.35), pytest.approx(0.35), 0)
    miners = {"clustering_mining": torch.zeros(1)}
    for doubts in ([0.3, math.nan, math.nan], [0.3, 0.3, math.nan], [math.nan, 0.3, 0.3], [0.3, 0.3, 0.3]):
        said = model.probabilities(torch.tensor([doubts]), miners).item()  # known ones stand for unknown ones
        assert odds_of(said) == pytest.approx(1.1 * odds_of(0.3))
    said = model.probabilities(torch.tensor([[0.3, 0.6, 0.7]]), miners).item()
    assert odds_of(said) == pytest.approx(0.4 * odds_of(0.3) + 0.35 * odds_of(0.6) + 0.35 * odds_of(0.7))
    open_ = torch.tensor([[0.3, 0.6, 0.6], [0.1, 0.2, 0.2]])
    fewer = model.adding_up(open_, {"clustering_mining": torch.zeros(2)}, 0.05)
    said_ = fewer.probabilities(open_, {"clustering_mining": torch.zeros(2)})
    assert said_.mean().item() == pytest.approx(0.05, abs=1e-4) and said_[0] > said_[1]


def test_a_doubt_that_stands_for_others_has_their_weight() -> None:
    model = calibrate(torch.empty(0, 3), {}, torch.empty(0, dtype=torch.bool))
    for known, weights in (
        ((True, True, True), (0.4, 0.35, 0.35)),
        ((True, True, False), (0.4, 0.7, 0)),
        ((True, False, False), (1.1, 0, 0)),
        ((False, True, True), (0, 0.75, 0.35)),
    ):
        assert model.weights_of(torch.tensor(known)) == pytest.approx(weights)


def test_of_those_around_and_those_alike_the_better_judge_counts_more() -> None:
    wrong = torch.arange(100) < 5
    tells, knows_nothing = torch.where(wrong, 0.6, 0.02), torch.full((100,), 0.4)
    own = torch.full((100,), 0.05)
    first = calibrate(torch.stack([own, tells, knows_nothing], dim=1), {}, wrong)
    second = calibrate(torch.stack([own, knows_nothing, tells], dim=1), {}, wrong)
    assert first.around > 4 * first.alike and second.alike > 4 * second.around
    assert first.around == pytest.approx(second.alike, abs=1e-3)


def test_many_labels_that_nobody_doubts_do_not_make_others_sure() -> None:
    """3,000 confirmed labels, one in 10,000 expected to be wrong, and none that is: nothing was understated."""
    own = torch.full((3_000, 3), math.nan)
    own[:, 0] = 1e-4
    model = calibrate(own, {}, torch.zeros(3_000, dtype=torch.bool))
    assert abs(model.understated) < 0.05
    open_ = torch.full((100, 3), math.nan)
    for doubt in (1e-6, 1e-3):  # a shift downwards never makes it more
        open_[:, 0] = doubt
        sure = replace(model, understated=-1e-3).at_level(open_, {}).probabilities(open_, {}).mean()
        assert sure <= model.at_level(open_, {}).probabilities(open_, {}).mean()


def test_what_a_person_chose_does_not_tell_what_is_usual() -> None:
    known = evidence(200, 100)
    chosen = torch.arange(200) >= 30
    assert torch.equal(replace(known, chosen=chosen).reference, known.reference & ~chosen)
    few = torch.arange(200) >= 5
    assert torch.equal(replace(known, chosen=few).reference, known.reference)  # then all that were judged
    three = known.judged & (torch.arange(200) < 3)
    assert torch.equal(replace(known, judged=three).reference, known.told.any(dim=1))


def test_calibration_rises_with_every_miner() -> None:
    chance = generator_of("calibrate")
    doubt, score = torch.rand(300, 3, generator=chance), torch.rand(300, generator=chance)
    opposite = score < 0.5  # a miner that is wrong about everything gets no weight, never a negative one
    model = calibrate(doubt, {"clustering_mining": score}, opposite)
    assert model.weights["clustering_mining"] < 0.05 and model.confidence >= 0


def test_how_many_to_review() -> None:
    left = [Residual(0, 10.0, 5.0, 20.0), Residual(50, 3.0, 1.0, 8.0), Residual(100, 0.0, 0.0, 0.0)]
    assert reviews_to_reach(left, 0.8) == 0
    assert reviews_to_reach(left, 0.86) == 25  # at most 14 may be left: halfway from 20 to 8
    assert reviews_to_reach(left, 0.92) == 50
    assert reviews_to_reach(left, 1.0) == 100
    assert reviews_to_reach([], 0.9) is None


def test_few_errors_leave_the_documented_weights() -> None:
    chance = generator_of("few errors")
    model = calibrate(
        torch.rand(60, 3, generator=chance) / 50,
        {"clustering_mining": torch.rand(60, generator=chance)},
        torch.zeros(60, dtype=torch.bool),
    )
    assert model.errors == 0 and model.width == 0.3
    assert model.weights["clustering_mining"] == pytest.approx(WEIGHTS["clustering_mining"], abs=0.1)


def test_reasons_go_by_contribution() -> None:
    scores = {1: torch.tensor([0.9, 0.1]), 2: torch.tensor([0.8, 0.1]), 30: torch.tensor([0.1, 0.2])}
    scale = scale_of({number: torch.tensor([0.0, 0.5]) for number in scores}, torch.tensor([True, True]))
    weights = {"predict_score_mining": 0.1, "clustering_mining": 0.5, "anomaly_detection_mining": 1.0}
    found = reasons_of(scores, scale, weights, torch.tensor([True, True]))
    assert found[0] == (1, 2)  # by how far beyond the usual
    assert len(found[1]) == 1  # nothing passes the far mark, yet a hard sample has a reason
    assert reasons_of(scores, scale, weights, torch.tensor([False, False])) == ((), ())


def test_nothing_may_be_left_where_nobody_has_erred() -> None:
    """20 labels that are all right do not tell that there are errors among a thousand that nobody doubts."""
    doubt = torch.full((1_000, 3), 1e-4)
    model = calibrate(doubt[:20], {}, torch.zeros(20, dtype=torch.bool))
    (left, _) = residuals(model, doubt, {}, steps=1, generator=np.random.default_rng(0))
    assert left.low < 0.5 < left.expected < left.high


def test_residuals_are_the_same_for_the_same_seed() -> None:
    model = calibrate(torch.empty(0, 3), {}, torch.empty(0, dtype=torch.bool))
    doubt = torch.rand(50, 3, generator=generator_of("doubt"))
    first, second = (residuals(model, doubt, {}, steps=5, generator=np.random.default_rng(0)) for _ in range(2))
    assert first == second and len(first) == 6


# ---- Bad input. ----


def test_a_configuration_out_of_range() -> None:
    with pytest.raises(UsageError, match=r"comprehensive_algo_config: must be of .* got 'magic'"):
        HardConfig(algo_config={"magic": 1.0})
    with pytest.raises(UsageError, match="the weight of clustering_mining must be a number from 0 on, got -1"):
        HardConfig(algo_config={"clustering_mining": -1})
    with pytest.raises(UsageError, match="one weight must be above 0, got none"):
        HardConfig(algo_config={"clustering_mining": 0.0})
    with pytest.raises(UsageError, match=r"algo_hard_threshold: must be in \[0, 1\], got 1.5"):
        HardConfig(threshold=1.5)
    with pytest.raises(UsageError, match="aug_op_config: must be name:weight\\+name:weight, got 'crop'"):
        parsed_weights("aug_op_config", "crop+fliplr:1")
    with pytest.raises(UsageError, match="crop must be there once, got it twice"):
        parsed_weights("aug_op_config", "crop:1+crop:2")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"given": one_hot(0, 1)}, r"given: must be \(200, 2\) bool, got \(2, 2\)"),
        ({"probabilities": torch.full((200, 2), 1.5)}, r"probabilities: must be in \[0, 1\] or NaN, got 1.5..1.5"),
        ({"judged": torch.ones(200, dtype=torch.bool)}, "judged: must be labeled samples"),
        ({"views": (View(torch.full((200, 2), math.nan), torch.arange(3)),)}, "vectors must be finite"),
        ({"features": {5: torch.zeros(3)}}, r"features\[5\]: must be \(200,\), got \(3,\)"),
    ],
)
def test_evidence_that_does_not_fit(change: dict[str, object], said: str) -> None:
    known = evidence()
    parts = {name: getattr(known, name) for name in ("probabilities", "given", "told", "judged", "views", "features")}
    with pytest.raises(InputError, match=said):
        hard_examples(Evidence(**{**parts, **change}))  # type: ignore[arg-type]


@pytest.mark.parametrize("labeled", [0, 1, 2])
def test_next_to_no_labels_and_all_images_the_same(labeled: int) -> None:
    n = 12
    told = one_hot(*[0] * n)
    told[labeled:] = False
    judged = torch.arange(n) < labeled
    same = Evidence(
        torch.full((n, 2), 0.5),
        one_hot(*[0] * n),
        told,
        judged,
        views=(View(torch.ones(n, 3), judged.nonzero()[:, 0]),),
        features={5: torch.ones(n)},
        sequences=[list(range(n))],
    )
    for combiner in ("weights", "calibrated"):
        found = hard_examples(same, HardConfig(combiner=combiner))
        assert np.isfinite(found.coefficients).all()
        assert np.ptp(found.coefficients[labeled:]) < 0.05  # not 0: of equally near ones some are asked


def test_neighbours_in_a_row_are_not_far_for_being_sure_to_other_digits() -> None:
    """People's labels agree exactly, predictions never do: 0.97 beside 0.99 is no reason, another label is one."""
    agreed = torch.zeros(40)
    scores = {4: torch.cat([agreed, torch.tensor([0.01, 0.02, 0.9])])}
    reference = torch.arange(43) < 40
    scale = scale_of(scores, reference)
    assert (scores[4] > scale.far[4]).tolist()[40:] == [False, False, True]
    assert scale.of(4, scores[4])[40:].tolist() == pytest.approx([0.0333, 0.0667, 3.0], abs=1e-3)


def test_an_image_and_what_is_on_it_have_one_threshold() -> None:
    """One in ten reaches either mean, whether they rise together or apart."""
    first, second = torch.arange(101) / 100, torch.arange(100, -1, -1) / 50
    assert usual_means(first, first) == pytest.approx((0.9, 0.9))
    of_first, of_second = usual_means(first, second)
    reached = (levelled(first, of_first) >= 0.1) | (levelled(second, of_second) >= 0.1)
    assert of_second == pytest.approx(2 * of_first) and int(reached.sum()) == pytest.approx(10, abs=2)
    assert usual_means(torch.ones(9), torch.ones(9)) == (0.1, 0.1)  # too few tell
    assert max(usual_means(torch.full((20,), 3.0), torch.zeros(20))) < 3


def test_a_coefficient_is_no_less_than_what_is_on_the_image() -> None:
    known = evidence()
    found = mined(known)
    judge = judge_of(known, found, HardConfig(combiner="weights"))
    alone = judge.coefficients(found.doubts(known), found.scores)
    least = torch.full((200,), 0.3)
    assert torch.equal(judge.coefficients(found.doubts(known), found.scores, least=least), alone.clamp(min=0.3))
    assert bool((alone < 0.3).any()) and bool((alone > 0.3).any())


def test_plain_arrays_whose_labels_in_question_are_several() -> None:
    p = np.array([[0.9, 0.2], [0.8, 0.3]])
    known = Evidence.of_arrays(p, given=np.array([[True, True], [True, False]]))
    assert known.multi_label and known.doubt.tolist() == pytest.approx([0.8, 0.3])
    assert not Evidence.of_arrays(p, given=[0, 1]).multi_label
