"""Auto labeling, part by part: networks, augmentation, training, losses, graph, calibration, clock; by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from engine.embeddings import Gradients
from engine.errors import InputError, UsageError
from engine.label.accurate import PRETRAINING_SHARE, TEACHING_SHARE, pretraining_share, teaching_share
from engine.label.augment import LIGHT, STRONG, VIEWS, WEAK, Policy, changed, changes, plain, policy_for
from engine.label.beliefs import Beliefs, with_networks
from engine.label.calibration import folds_of, mean_log_loss, mix, temperature_of
from engine.label.classifier import probabilities_of, resized
from engine.label.clock import LEAST_STEPS, Clock
from engine.label.descent import Descent, orthogonalised
from engine.label.flips import FLIP_FROM, allowed_flips
from engine.label.losses import (
    Believed,
    Projected,
    Told,
    consistent,
    contrastive,
    cross_entropy,
    lesson_sides,
    mean_seconds,
    nearest_pairs,
    smoothed,
    supervised,
    view_side,
)
from engine.label.mirrored import mirrored
from engine.label.networks import Network, NetworkSpec, fit_stem, initialised
from engine.label.plan import Plan
from engine.label.pool import Pool
from engine.label.propagation import balanced, graph_of, propagated
from engine.label.recorded import Given
from engine.label.sight import Sight, content_of
from engine.label.targets import check_rules, targets_of
from engine.label.training import Deck, Lesson, Recipe, Training, Watch, generator_of, train, trained_before
from engine.samples import IMAGE_CLASSIFICATION, Label, Sample


def images(n: int, side: int = 16, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, (n, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def altered(x: Tensor, policy: Policy, generator: torch.Generator, *, side: int | None = None) -> Tensor:
    return changed(x, changes(policy, len(x), generator), policy, side=side)


def network(side: int = 16, outputs: int = 3, seed: int = 0) -> Network:
    spec = NetworkSpec(side, (8, 16), outputs)
    return initialised(spec, fit_stem(images(20, side), spec), torch.Generator().manual_seed(seed))


def test_a_sight_is_what_a_network_sees_beside_what_an_encoder_does() -> None:
    pixels, net = images(60, 32), network()
    sight = Sight(net, True, False, Gradients())
    assert sight.size == 32 and sight.dim == 16 + Gradients().dim == sum(part.columns for part in sight.parts)
    raw = sight.encode(pixels)
    assert torch.equal(raw[:, 16:], Gradients().encode(pixels))
    torch.testing.assert_close(raw[:, :16], sight.encode(pixels.flip(3))[:, :16])  # mirrored it looks the same
    assert not torch.allclose(raw[:, :16], replace(sight, flip=False).encode(pixels)[:, :16])
    pool = Pool(lambda rows: pixels[rows], torch.zeros(60, 3), ("a", "b", "c"), False, 32, torch.device("cpu"))
    embedding, content = content_of(pool, sight)
    torch.testing.assert_close(content, embedding.encode(pixels))
    of_network, beside = content[:, :16].norm(dim=1), content[:, 16:].norm(dim=1)
    torch.testing.assert_close(of_network, torch.ones(60))
    torch.testing.assert_close(beside, torch.full((60,), 0.7))


def test_a_sight_of_small_images_sees_the_same_in_a_pool_as_later() -> None:
    """Gradients want 32 pixels a side: a head gets the images enlarged, and was fitted on the same."""
    pixels, sight = images(60, 16), Sight(network(16), True, False, Gradients())
    pool = Pool(lambda rows: pixels[rows], torch.zeros(60, 3), ("a", "b", "c"), False, 16, torch.device("cpu"))
    embedding, content = content_of(pool, sight)
    torch.testing.assert_close(content, embedding.encode(resized(pixels, embedding.size)))


@pytest.mark.parametrize("flips", [(True, False), (False, True), (True, True)])
def test_a_mirrored_encoder_sees_the_same_from_all_sides(flips: tuple[bool, bool]) -> None:
    pixels, both = images(12, 32), mirrored(Gradients(), flips)
    vectors = both.encode(pixels)
    turned = {"horizontal": pixels.flip(3), "vertical": pixels.flip(2)}
    seen = [
        Gradients().encode(pixels),
        *(Gradients().encode(x) for x, asked in zip(turned.values(), flips, strict=True) if asked),
    ]
    torch.testing.assert_close(vectors, torch.stack(seen).mean(dim=0))
    if sum(flips) == 1:
        (axis,) = (axis for axis, asked in zip((3, 2), flips, strict=True) if asked)
        torch.testing.assert_close(both.encode(pixels.flip(axis)), vectors)
        assert not torch.allclose(both.encode(pixels.flip(5 - axis)), vectors)
    assert (both.size, both.dim, both.parts) == (32, Gradients().dim, Gradients().parts)
    assert both.name == "mirrored gradients"


def test_no_mirror_image_leaves_the_encoder_as_it_is() -> None:
    assert mirrored(Gradients(), (False, False)) == Gradients()


def test_mirrored_gradients_weigh_as_much_as_the_network() -> None:
    sight = Sight(network(), True, False, mirrored(Gradients(), (True, False)))
    weights = [part.weight for part in sight.parts]
    assert math.hypot(*weights[1:]) == pytest.approx(weights[0]) == 1.0


# ---- What people said. ----


def sample(name: str, *labels: str, by: str | None = None) -> Sample:
    made = tuple(Label(type=IMAGE_CLASSIFICATION, name=label, annotated_by=by) for label in labels)
    return Sample(source=name, labels=made)


def test_targets_are_what_people_said() -> None:
    targets = targets_of(
        [sample("1", "cat"), sample("2", "dog", by="modelarts/active-learning"), sample("3"), sample("4", "ant")]
    )
    assert targets.labels == ("ant", "cat")
    assert targets.matrix.tolist() == [[False, True], [False, False], [False, False], [True, False]]
    assert targets.classes.tolist() == [1, -1, -1, 0]
    assert not targets.multi_label
    assert targets_of([sample("1", "cat", "ant")]).multi_label
    assert targets.only(np.array([False, True, True, True])).labeled.tolist() == [False, False, False, True]


@pytest.mark.parametrize(
    ("names", "unlabeled", "said"),
    [
        ([], 3, "at least 2 labels that people gave, got no labeled image"),
        (["cat"] * 9, 3, "at least 2 labels that people gave, got only 'cat'"),
        (["cat"] * 5 + ["dog"] * 4, 3, "every label on at least 5 readable images .*, got 'dog' on 4$"),
        (["cat"] * 5 + ["dog"] * 5, 0, "at least 1 unlabeled image that can be read, got none"),
    ],
)
def test_rules_of_the_specification(names: list[str], unlabeled: int, said: str) -> None:
    targets = targets_of([sample(str(at), name) for at, name in enumerate(names)])
    with pytest.raises(InputError, match=said) as error:
        check_rules(targets, unlabeled)
    assert len(str(error.value).splitlines()) == 1


def test_rules_hold_with_five_of_each_and_can_be_lowered() -> None:
    check_rules(targets_of([sample(str(at), "ab"[at % 2]) for at in range(10)]), 1)
    check_rules(targets_of([sample(str(at), "ab"[at % 2]) for at in range(4)]), 1, min_per_class=2)
    with pytest.raises(UsageError, match="min_per_class: must be at least 2, got 1"):
        check_rules(targets_of([]), 1, min_per_class=1)


# ---- Networks. ----


@pytest.mark.parametrize("side", [8, 16, 32, 33, 64, 100])
def test_a_network_takes_its_side_and_gives_finite_logits(side: int) -> None:
    spec = NetworkSpec(side, (8, 16, 32), 5)
    net = initialised(spec, fit_stem(images(6, side), spec), torch.Generator().manual_seed(0))
    x = plain(images(4, side))
    assert net.features(x).shape == (4, 32)
    assert net(x).shape == (4, 5)
    assert bool(net(x).isfinite().all())


def test_the_stem_whitens_patches() -> None:
    pixels = images(200)
    spec = NetworkSpec(16, (8,), 2)
    filters, biases = fit_stem(pixels, spec)
    assert filters.shape == (32, 3, 3, 3)
    torch.testing.assert_close(filters[:16], -filters[16:])
    seen = F.conv2d(pixels.float() / 255, filters[:16], biases[:16])
    rows = seen.permute(1, 0, 2, 3).flatten(1).double()
    covariance = rows @ rows.T / rows.shape[1]
    assert float(rows.mean(dim=1).abs().max()) < 0.05
    torch.testing.assert_close(covariance, torch.eye(16, dtype=torch.float64), atol=0.1, rtol=0)


def test_the_stem_of_images_that_are_all_alike_is_finite() -> None:
    spec = NetworkSpec(16, (8,), 2)
    filters, biases = fit_stem(torch.full((5, 3, 16, 16), 7, dtype=torch.uint8), spec)
    assert bool(filters.isfinite().all() and biases.isfinite().all())


def test_initial_weights_come_from_the_generator_alone() -> None:
    before = torch.random.get_rng_state()
    first, second, other = network(seed=1), network(seed=1), network(seed=2)
    assert torch.equal(before, torch.random.get_rng_state())
    for mine, same, differs in zip(first.parameters(), second.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, same)
        assert mine.ndim < 4 or mine.shape[1] == 3 or not torch.equal(mine, differs)


# ---- Augmentation. ----


@pytest.mark.parametrize("policy", [STRONG, VIEWS, WEAK, STRONG.flipped((True, True))])
def test_altered_images_stay_images(policy: Policy) -> None:
    result = altered(images(32), policy, torch.Generator().manual_seed(0))
    assert result.shape == (32, 3, 16, 16) and result.dtype == torch.float32
    assert float(result.min()) >= 0 and float(result.max()) <= 1
    assert torch.equal(result, altered(images(32), policy, torch.Generator().manual_seed(0)))
    assert not torch.equal(result, altered(images(32), policy, torch.Generator().manual_seed(1)))


def test_no_policy_alters_nothing() -> None:
    torch.testing.assert_close(altered(images(4), Policy(), torch.Generator()), plain(images(4)), atol=1e-5, rtol=0)


def test_flips_mirror_half_of_the_images_and_nothing_else() -> None:
    x = images(200)
    result = altered(x, Policy(flip_horizontal=True), torch.Generator().manual_seed(0))
    mirrored = [(result[at] - plain(x.flip(3))[at]).abs().max() < 1e-4 for at in range(200)]
    kept = [(result[at] - plain(x)[at]).abs().max() < 1e-4 for at in range(200)]
    assert all(a != b for a, b in zip(mirrored, kept, strict=True))
    assert 70 < sum(mirrored) < 130


def test_grey_takes_the_color_and_keeps_the_light() -> None:
    x = images(8)
    result = altered(x, Policy(grey=1.0), torch.Generator().manual_seed(0))
    luma = (plain(x) * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(dim=1)
    torch.testing.assert_close(result, luma[:, None].expand(-1, 3, -1, -1), atol=1e-5, rtol=0)


def test_a_cut_leaves_the_rest_alone() -> None:
    x = images(16)
    result = altered(x, Policy(cut=0.5), torch.Generator().manual_seed(0))
    same = (result - plain(x)).abs().amax(dim=1) < 1e-6
    assert 0.6 < float(same.float().mean()) < 1.0
    assert bool((same.float().mean(dim=(1, 2)) >= 1 - 0.5**2 - 0.15).all())


def sided(n: int) -> Pool:
    """n images of each of two classes: bright on the left, bright on the right; noise on top."""
    pixels = images(2 * n) // 4
    pixels[:n, :, :, :8] += 150
    pixels[n:, :, :, 8:] += 150
    told = F.one_hot(torch.arange(2 * n) // n, 2).float()
    return Pool(lambda rows: pixels[rows], told, ("left", "right"), False, 16, torch.device("cpu"))


def test_mirror_images_that_change_the_label_are_found_out_and_those_that_do_not() -> None:
    flips, kept = allowed_flips(sided(20), Gradients(), torch.arange(40) % 5)
    assert flips == (False, True) and kept["horizontal"] < 0.2 and kept["vertical"] > FLIP_FROM


def test_of_many_labeled_images_some_are_asked_about_their_mirror_images(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = sided(20)
    asked: list[int] = []

    def pixels(rows: Tensor) -> Tensor:
        asked.extend(rows.tolist())
        return pool.pixels(rows)

    monkeypatch.setattr("engine.label.flips._MOST_ASKED", 12)
    _, kept = allowed_flips(replace(pool, pixels=pixels), Gradients(), torch.arange(40) % 5)
    assert kept["horizontal"] < kept["vertical"] and len(set(asked)) == 12 and {0, 39} <= set(asked)


def test_few_labels_leave_what_is_usual_of_photographs() -> None:
    noise = replace(sided(2), told=F.one_hot(torch.tensor([0, 1, 0, 1]), 2).float())  # nothing to tell them apart by
    flips, kept = allowed_flips(noise, Gradients(), torch.tensor([0, 0, 1, 1]))
    assert flips == (True, False)
    assert kept["horizontal"] >= 0.8 and kept["vertical"] <= 0.5


def test_what_is_seen_often_is_altered_strongly() -> None:
    assert policy_for(1) == policy_for(25) == LIGHT and policy_for(100) == policy_for(5000) == STRONG
    half = policy_for(50)
    assert LIGHT.cut < half.cut < STRONG.cut and half.turn == pytest.approx(STRONG.turn / 2)
    assert half.scale == pytest.approx([(a + b) / 2 for a, b in zip(LIGHT.scale, STRONG.scale, strict=True)])
    assert not half.flip_horizontal


def test_altered_images_are_float32_where_networks_compute_in_bfloat16() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        within = altered(images(3), STRONG, generator_of("a"))
    assert within.dtype == torch.float32 and torch.equal(within, altered(images(3), STRONG, generator_of("a")))


def test_lessons_begin_with_small_images() -> None:
    few = lesson_sides(30)
    assert [view_side(32, done, few) for done in (0.0, 0.49, 0.5, 0.79, 0.8, 1.0)] == [16, 16, 24, 24, 32, 32]
    assert mean_seconds(32, float, few) == pytest.approx(0.5 * 16 + 0.3 * 24 + 0.2 * 32)
    assert mean_seconds(32, float, lesson_sides(160)) == 32  # seen often, they are whole from the first step on
    assert mean_seconds(32, float, few) < mean_seconds(32, float, lesson_sides(80)) < 32


def test_many_labels_are_taught_longer_and_told_apart_shorter() -> None:
    assert pretraining_share(40) == pretraining_share(250) == PRETRAINING_SHARE
    assert PRETRAINING_SHARE > pretraining_share(1000) > pretraining_share(50_000) > 0
    assert teaching_share(40, 30) == teaching_share(250, 30) == TEACHING_SHARE
    assert TEACHING_SHARE < teaching_share(1000, 30) < teaching_share(50_000, 30) == 1
    # Where all images can be seen often, that is what many labels leave time for.
    assert 1 > teaching_share(50_000, 300) > teaching_share(50_000, 5000) == TEACHING_SHARE


def test_views_may_be_smaller() -> None:
    assert altered(images(3), VIEWS, torch.Generator(), side=12).shape == (3, 3, 12, 12)


# ---- Losses. ----


def test_cross_entropy_by_hand() -> None:
    logits = torch.tensor([[0.0, 0.0], [math.log(3), 0.0]])
    targets = torch.tensor([[0.5, 0.5], [1.0, 0.0]])
    expected = torch.tensor([math.log(2), math.log(4 / 3)])
    torch.testing.assert_close(cross_entropy(logits, targets, False), expected)
    of_sigmoids = torch.tensor([2 * math.log(2), math.log(4 / 3) + math.log(2)])
    torch.testing.assert_close(cross_entropy(logits, targets, True), of_sigmoids)


def test_smoothed_targets_keep_their_sum() -> None:
    targets = torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    torch.testing.assert_close(smoothed(targets, False), torch.tensor([[0.925, 0.025, 0.025, 0.025]]))
    torch.testing.assert_close(smoothed(targets, True), torch.tensor([[0.975, 0.025, 0.025, 0.025]]))


def test_pairs_that_lie_together_cost_less() -> None:
    z = torch.eye(8)[:4]
    together, apart = nearest_pairs(torch.cat([z, z])), nearest_pairs(torch.cat([z, z.roll(1, 0)]))
    # Of 7 others one is the partner at cosine 1, six are at 0, over a temperature of 0.1.
    assert float(together) == pytest.approx(math.log(math.exp(10) + 6) - 10, abs=1e-5)
    assert float(apart) == pytest.approx(math.log(math.exp(10) + 6), abs=1e-5)


# ---- Training. ----


def learnable() -> tuple[Tensor, Told]:
    """Dark and bright images, labeled so."""
    pixels = torch.cat([images(12) // 3, 170 + images(12, seed=1) // 3])
    return pixels, Told(torch.arange(24), F.one_hot(torch.arange(24) // 12, 2).float())


def run(steps: int, watch: Watch | None = None) -> Training:
    pixels, told = learnable()
    loss = supervised(lambda rows: pixels[rows], told, (False, False), 8, 0, multi_label=False)
    return train("t", network(outputs=2), steps, Recipe(), loss, bfloat16=False, watch=watch or Watch())


def weights(training: Training) -> bytes:
    return b"".join(value.numpy().tobytes() for value in training.average.state_dict().values())


def test_training_learns_and_repeats_itself_to_the_byte() -> None:
    pixels, told = learnable()
    first = run(40)
    assert torch.equal(first.average(plain(pixels)).argmax(dim=1), told.targets.argmax(dim=1))
    assert weights(first) == weights(run(40))


def test_a_training_that_was_stopped_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    asked = 0

    def stopped() -> bool:
        nonlocal asked
        asked += 1
        return asked > 7

    half = run(15, Watch(stopped=stopped, folder=tmp_path))
    assert half.step == 7 and not half.finished
    assert weights(run(15, Watch(folder=tmp_path))) == weights(run(15))


def test_a_checkpoint_of_another_training_is_passed_over(tmp_path: Path) -> None:
    run(5, Watch(folder=tmp_path))
    assert weights(run(6, Watch(folder=tmp_path))) == weights(run(6))
    (tmp_path / "t.checkpoint").write_bytes(b"broken")
    assert weights(run(5, Watch(folder=tmp_path))) == weights(run(5))
    of_another_version = torch.load(tmp_path / "t.checkpoint", weights_only=True)
    of_another_version["optimizer"] = of_another_version.pop("momenta")
    torch.save(of_another_version, tmp_path / "t.checkpoint")
    assert weights(run(5, Watch(folder=tmp_path))) == weights(run(5))


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("PytorchStreamWriter failed")])
def test_a_training_goes_on_where_no_checkpoint_fits_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def full(state: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise error

    monkeypatch.setattr("torch.save", full)
    assert weights(run(5, Watch(folder=tmp_path))) == weights(run(5))
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_says_how_far_a_training_has_come(tmp_path: Path) -> None:
    asked = iter(range(100))
    half = run(14, Watch(stopped=lambda: next(asked) >= 7, folder=tmp_path))
    net, before = network(outputs=2), network(outputs=2).state_dict()
    assert trained_before("other", net, Watch(folder=tmp_path)) == trained_before("t", net, Watch()) == 0
    (tmp_path / "other.checkpoint").write_bytes(b"broken")
    assert trained_before("other", net, Watch(folder=tmp_path)) == 0
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert trained_before("t", net, Watch(folder=tmp_path)) == 0.5
    assert all(torch.equal(value, half.average.state_dict()[name]) for name, value in net.state_dict().items())


def test_a_loss_that_is_no_number_is_recovered_from_and_in_the_end_said() -> None:
    def loss(training: Training) -> Tensor:
        value = training.net(plain(images(4))).square().mean()
        return value * math.nan if training.step in (3, 9) else value

    training = train("t", network(), 12, Recipe(), loss, bfloat16=False, watch=Watch())
    assert training.recoveries == 2
    assert all(bool(value.isfinite().all()) for value in training.average.state_dict().values())
    with pytest.raises(InputError, match="the loss must be a number, got nan 5 times; lower learning_rate"):
        train(
            "t",
            network(),
            12,
            Recipe(),
            lambda t: t.net(plain(images(4))).mean() * math.nan,
            bfloat16=False,
            watch=Watch(),
        )


def test_what_is_no_number_is_not_remembered() -> None:
    lesson = lessons()["one of several"]

    def broken(step: int, steps: int) -> Given:
        given = lesson.given(step, steps)
        return (
            replace(given, tensors=(given.tensors[0], *(each * math.nan for each in given.tensors[1:])))
            if step == 5
            else given
        )

    training = train(
        "t", network(outputs=2), 12, Recipe(), replace(lesson, given=broken), bfloat16=False, watch=Watch()
    )
    assert training.recoveries == 1 and training.finished
    assert all(bool(value.isfinite().all()) for value in tensors_of(training))


def test_a_step_whose_gradient_is_no_number_is_not_taken() -> None:
    """sqrt(0) is a number, its slope is none: an average of such weights would leave nothing to go on from."""

    def loss(training: Training) -> Tensor:
        value = training.net(plain(images(4))).square().mean()
        return value + (value * 0).sqrt() if training.step == 11 else value

    training = train("t", network(), 12, Recipe(), loss, bfloat16=False, watch=Watch())
    assert training.recoveries == 1 and training.finished
    assert all(bool(value.isfinite().all()) for value in training.average.state_dict().values())


def lessons() -> dict[str, Lesson]:
    """Of every kind, on the images of `learnable`; with answers that may be several, too."""
    pixels, told = learnable()
    rest = Told(torch.arange(0, 24, 2), torch.full((12, 2), 0.5))

    def agreeing(multi_label: bool) -> Lesson:
        few = Told(torch.arange(1, 24, 2), told.targets[1::2])
        believed = Believed(rest.rows, rest.targets, torch.tensor([0.5, 0.5]))
        return consistent(lambda rows: pixels[rows], few, believed, STRONG, (4, 6), 0, multi_label=multi_label)

    return {
        "labels": supervised(lambda rows: pixels[rows], told, (True, False), 8, 0, multi_label=False),
        "pairs": contrastive(lambda rows: pixels[rows], torch.arange(24), (True, False), 6, 0),
        "one of several": agreeing(multi_label=False),
        "several": agreeing(multi_label=True),
    }


class _OnTensorsAlone(TorchDispatchMode):
    """What a GPU cannot record fails: questions to the CPU, and numbers from it."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        name = func.__name__.split(".")[0]
        assert name not in {"_local_scalar_dense", "nonzero", "masked_select", "lift_fresh", "equal"}, func
        if name.startswith("index"):
            assert not any(each is not None and each.dtype == torch.bool for each in args[1]), func
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", lessons())
def test_a_gpu_could_record_a_step_of_every_lesson(kind: str) -> None:
    """Everything that a step changes it changes in place, and it asks nothing of the CPU."""
    lesson = lessons()[kind]
    net = Projected(network(), generator_of("p")) if kind == "pairs" else network(outputs=2)
    training = Training(net.train(), 9, Recipe(), False, {name: each.clone() for name, each in lesson.memory.items()})
    places = [value.data_ptr() for value in tensors_of(training)]
    before = weights(training)
    given = lesson.given(0, 9)
    with _OnTensorsAlone():
        worth = training.slope(lesson.loss(training, given))
    training.optimizer.at(1.0)
    training._newer.fill_(0.5)
    with _OnTensorsAlone():
        training.descend()
    assert float(worth) > 0 and weights(training) != before
    assert [value.data_ptr() for value in tensors_of(training)] == places


def tensors_of(training: Training) -> list[Tensor]:
    state = training.state()
    return [*state["net"].values(), *state["average"].values(), *state["memory"].values(), *state["momenta"]]


def test_what_a_training_has_kept_comes_back() -> None:
    lesson = lessons()["one of several"]
    memory = {name: each.clone() for name, each in lesson.memory.items()}
    training = Training(network(outputs=2), 9, Recipe(), False, memory)
    places = [value.data_ptr() for value in tensors_of(training)]
    bring_back, before = training.kept(), [value.clone() for value in tensors_of(training)]
    for _ in range(2):  # and once more
        for step in range(2):
            worth = training.slope(lesson.loss(training, lesson.given(step, 9)))
            training.take(float(worth), training.descend)
        assert not all(map(torch.equal, tensors_of(training), before)) and training.step == 2
        bring_back()
        assert all(map(torch.equal, tensors_of(training), before)) and training.step == 0
    assert [value.data_ptr() for value in tensors_of(training)] == places


def test_what_is_given_has_a_form() -> None:
    given = Given((torch.zeros(2, 3), torch.zeros(2)), 8)
    assert given.form == Given((torch.ones(2, 3), torch.ones(2)), 8).form
    others = (Given(given.tensors, 9), Given(given.tensors[:1], 8), Given((torch.zeros(2, 3), torch.zeros(3)), 8))
    assert all(given.form != other.form for other in others)


def test_a_network_is_compiled_where_a_person_asks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **options: seen.append(options))
    pixels, told = learnable()
    loss = supervised(lambda rows: pixels[rows], told, (False, False), 8, 0, multi_label=False)
    compiled = train("t", network(outputs=2), 3, Recipe(compiled=True), loss, bfloat16=False, watch=Watch())
    assert seen == [{"dynamic": False}] and weights(compiled) == weights(run(3))


def test_what_compiling_needs_is_said_in_a_line() -> None:
    compiler_failed = type("InvalidCxxCompiler", (RuntimeError,), {"__module__": "torch._inductor.exc"})

    def broken(training: Training) -> Tensor:
        raise compiler_failed("no g++\nand more")

    with pytest.raises(UsageError, match=r"^compile: torch.compile must work here .*, got no g\+\+$"):
        train("t", network(), 3, Recipe(compiled=True), broken, bfloat16=False, watch=Watch())
    with pytest.raises(compiler_failed):
        train("t", network(), 3, Recipe(), broken, bfloat16=False, watch=Watch())


def test_the_clock_is_kept_with_each_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is killed has used its time up to there."""
    monkeypatch.setattr("engine.label.training._EVERY", 0.0)
    saved = []
    run(5, Watch(folder=tmp_path, saved=lambda: saved.append((tmp_path / "t.checkpoint").is_file())))
    assert saved == [True] * 5


def test_the_learning_rate_warms_up_and_falls_to_nothing() -> None:
    training = Training(network(), 100, Recipe(), False)
    shares = []
    for training.step in range(100):
        shares.append(training._share())
    assert shares[5] == pytest.approx(0.5) and shares[10] == pytest.approx(1) and max(shares) == shares[10]
    assert shares[55] == pytest.approx(0.5) and shares[99] < 0.02


@pytest.mark.parametrize(("rows", "columns"), [(6, 20), (20, 6), (5, 5)])
def test_orthogonalised_keeps_directions_and_makes_them_equally_long(rows: int, columns: int) -> None:
    matrix = torch.randn(rows, columns, generator=generator_of("matrix"))
    u, before, vh = torch.linalg.svd(matrix, full_matrices=False)
    turned = u.T @ orthogonalised(matrix) @ vh.T
    assert turned.diagonal().min() > 0.4 and turned.diagonal().max() < 1.3
    assert (turned - turned.diagonal().diag()).abs().max() < 1e-4  # the same singular vectors
    assert turned.diagonal().max() / turned.diagonal().min() < before.max() / before.min()
    assert torch.equal(orthogonalised(torch.zeros(3, 4)), torch.zeros(3, 4))


def test_descent_moves_filters_across_and_all_else_down() -> None:
    net = network()
    filters, head, norm = net.stages[0].widen.weight, net.head.weight, net.stages[0].widen_norm.bias
    descent = Descent(net, rate=0.5, other_rate=0.1, weight_decay=0.2, dtype=torch.float32)
    gradient = torch.randn(filters.shape, generator=generator_of("gradient"))
    before = [each.detach().clone() for each in (filters, head, norm)]
    filters.grad, head.grad, norm.grad = gradient, torch.ones_like(head), torch.ones_like(norm)
    descent.at(0.5)
    descent.step()
    # The first step with Nesterov momentum goes along (1 + momentum) times the gradient.
    unit = before[0] * len(filters) ** 0.5 / before[0].norm()
    update = orthogonalised(gradient.reshape(len(gradient), -1)).view_as(gradient)
    assert torch.allclose(filters, unit - 0.25 * update, atol=1e-5)
    assert torch.allclose(head, before[1] - 0.05 * 1.9 * (1 + 0.2 * before[1]), atol=1e-6)
    assert torch.allclose(norm, before[2] - 0.05 * 1.9, atol=1e-6)
    assert torch.equal(net.stem.weight, network().stem.weight)


def test_a_deck_deals_every_sample_once_a_round_and_any_step_alike() -> None:
    deck = Deck(10, 4, "deck", 1)
    dealt = torch.cat([deck.deal(step) for step in range(5)])
    assert sorted(dealt[:10].tolist()) == sorted(dealt[10:].tolist()) == list(range(10))
    assert torch.equal(Deck(10, 4, "deck", 1).deal(3), dealt[12:16])
    assert not torch.equal(Deck(10, 4, "deck", 2).deal(3), dealt[12:16])
    assert len(Deck(3, 8, "few").deal(2)) == 8


def test_generators_are_made_of_names() -> None:
    assert torch.rand(1, generator=generator_of(1, "a")) == torch.rand(1, generator=generator_of(1, "a"))
    assert torch.rand(1, generator=generator_of(1, "a")) != torch.rand(1, generator=generator_of(1, "b"))


# ---- Clock. ----


def test_a_clock_turns_time_into_steps(tmp_path: Path) -> None:
    now = 0.0
    file = tmp_path / "steps.json"
    clock = Clock(110.0, 0.0, reserve=10.0, file=file, now=lambda: now)
    assert clock.steps(0.5, 0.1) == 500
    now = 60.0
    assert clock.steps(1.0, 0.1) == 400
    now = 200.0
    assert clock.steps(1.0, 0.1) == LEAST_STEPS
    later = Clock(110.0, 0.0, reserve=10.0, file=file, now=lambda: 0.0)
    assert [later.steps(0.5, 9.0), later.steps(1.0, 9.0)] == [500, 400]  # as decided before
    assert Clock(1.0, 0.0, given=(7, 9), now=lambda: 5.0).steps(1.0, 1.0, most=2) == 7
    assert Clock(110.0, 0.0, now=lambda: 0.0).steps(0.5, 0.1, most=20) == 20


def test_a_training_that_is_not_worth_its_time_is_left_out() -> None:
    clock = Clock(10.0, 0.0, now=lambda: 0.0)
    assert clock.steps(0.5, 0.1, worth=51) == 0
    assert clock.steps(0.5, 0.1, worth=50) == 50
    assert clock.steps(0.5, 0.1, most=20, worth=50) == 20  # all that there is to do
    assert clock.decided == [0, 50, 20]


def test_half_of_the_time_is_for_learning_whatever_comes_after() -> None:
    clock = Clock(100.0, 0.0, reserve=30.0, now=lambda: 0.0)
    assert clock.left == 70 and not clock.overrun_in_words
    clock.reserve = 650.0
    assert clock.left == 50 and "10.0 minutes more" in clock.overrun_in_words[0]
    assert not replace(clock, given=(8,)).overrun_in_words  # nobody asked for a time
    clock = Clock(100.0, 0.0, reserve=30.0, now=lambda: 0.0)
    clock.extend(600.0)
    clock.reserve += 600.0
    assert clock.left == 70 and not clock.overrun_in_words


def test_a_clock_learns_what_steps_really_take() -> None:
    now = 0.0
    clock = Clock(100.0, 0.0, now=lambda: now)
    steps = clock.steps(0.25, 0.1)
    assert steps == 250
    with clock.paced(steps, 0.1):
        now = 50.0  # twice as long
    assert clock.steps(1.0, 0.1) == 250
    with clock.paced(250, 0.1):
        now = 70.0  # somewhat quicker than it was measured: the measure holds
    assert clock.steps(1.0, 0.1) == 300


def test_a_training_that_was_planned_on_a_busy_machine_is_done_again(tmp_path: Path) -> None:
    now = 0.0
    file = tmp_path / "steps.json"
    clock = Clock(100.0, 0.0, file=file, now=lambda: now)
    steps = clock.steps(1.0, 1.0)
    with clock.paced(steps, 1.0):
        now = 10.0  # a tenth of what a step was thought to take
    assert steps == 100 and clock.again() and not clock.again()
    assert clock.steps(1.0, 1.0) == 900 and clock.decided == [900]
    with clock.paced(900, 1.0):
        now = 100.0
    assert not clock.again() and Clock(100.0, 0.0, file=file, now=lambda: now).steps(1.0, 1.0) == 900
    clock = Clock(100.0, 0.0, given=(100,), now=lambda: now)
    with clock.paced(clock.steps(1.0, 1.0), 1.0):
        pass
    assert not clock.again()  # who gives the steps wants no more


def test_a_run_that_goes_on_knows_the_pace(tmp_path: Path) -> None:
    now = 0.0
    file = tmp_path / "steps.json"
    clock = Clock(100.0, 0.0, file=file, now=lambda: now)
    with clock.paced(clock.steps(0.25, 0.1), 0.1):
        now = 50.0
    clock.keep()
    later = Clock(100.0, 0.0, file=file, now=lambda: 0.0)
    with later.paced(later.steps(0.25, 0.1), 0.1):
        pass  # done before, from a checkpoint: this says nothing of the pace
    assert later.pace == clock.pace == 2.0
    file.write_text('{"steps": [250], "spent": 3.0}')  # as an earlier version kept it
    assert Clock(100.0, 0.0, file=file).pace == 1.0


def test_a_training_that_was_stopped_says_nothing_of_the_pace(tmp_path: Path) -> None:
    now = 0.0
    file = tmp_path / "steps.json"
    clock = Clock(100.0, 0.0, file=file, now=lambda: now)
    with clock.paced(clock.steps(0.5, 0.1), 0.1, stopped=lambda: True):
        now = 1.0  # a fiftieth of its steps
    assert not clock.again() and clock.pace == 1.0
    clock.keep()
    now = 0.0
    later = Clock(100.0, 0.0, file=file, now=lambda: now)
    with later.paced(later.steps(0.5, 0.1), 0.1):
        now = 49.0
    assert later.decided == [500] and later.steps(1.0, 0.1) == 500


def test_a_pace_below_what_was_measured_is_not_that_of_a_run_that_measures_anew(tmp_path: Path) -> None:
    file = tmp_path / "steps.json"
    file.write_text('{"steps": [500], "spent": 1.0, "pace": 0.02}')  # of a training that was stopped
    assert Clock(100.0, 0.0, file=file).pace == 1.0


def test_a_clock_finds_the_steps_where_their_number_says_what_each_takes() -> None:
    clock = Clock(100.0, 0.0, now=lambda: 0.0)
    seconds = {n: 0.1 if n < 500 else 0.2 for n in range(2000)}
    assert clock.steps(1.0, lambda n: seconds.get(n, 0.2)) == 500
    assert clock.steps(0.2, lambda n: seconds.get(n, 0.2)) == 200
    assert clock.steps(1.0, lambda n: 1e9) == LEAST_STEPS


def test_given_steps_are_taken_in_order_and_the_last_again() -> None:
    clock = Clock(1.0, 0.0, given=(7, 9))
    assert [clock.steps(1.0, 1.0) for _ in range(4)] == [7, 9, 9, 9]


# ---- Calibration. ----


def test_temperature_of_logits_that_are_twice_too_sure() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4000, 3, generator=generator) * 2
    drawn = torch.multinomial(logits.softmax(dim=1), 1, generator=generator)[:, 0]
    truth = F.one_hot(drawn, 3) > 0
    assert temperature_of(2 * logits, truth, multi_label=False) == pytest.approx(2.0, rel=0.1)
    yes = torch.rand(4000, 3, generator=generator) < logits.sigmoid()
    assert temperature_of(2 * logits, yes, multi_label=True) == pytest.approx(2.0, rel=0.1)


def test_log_loss_by_hand() -> None:
    p, truth = torch.tensor([[0.5, 0.5], [0.25, 0.75]]), torch.tensor([[True, False], [False, True]])
    expected = -(math.log(0.5) + math.log(0.75)) / 2
    assert mean_log_loss(p, truth, multi_label=False) == pytest.approx(expected)
    assert mean_log_loss(p, truth, multi_label=True) == pytest.approx(2 * expected)
    assert math.isfinite(mean_log_loss(torch.tensor([[0.0, 1.0]]), truth[:1], multi_label=False))


def test_the_better_opinion_counts_for_all() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = F.one_hot(torch.arange(600) % 3, 3) > 0
    good, noise = 3 * truth + torch.randn(600, 3, generator=generator), 3 * torch.randn(600, 3, generator=generator)
    assert mix(good, noise, truth, multi_label=False).share == 1.0
    assert mix(noise, good, truth, multi_label=False).share == 0.0
    assert mix(good, good, truth, multi_label=False).share == 0.6  # of equals both count


def test_both_opinions_count_where_few_samples_tell() -> None:
    truth = F.one_hot(torch.arange(12) % 3, 3) > 0
    sure, hardly = 8.0 * truth, 2.0 * truth  # both are right about everything
    mixture = mix(sure, hardly, truth, multi_label=False)
    assert 0.5 <= mixture.share <= 0.8
    said = ((mixture.share * sure + (1 - mixture.share) * hardly) / mixture.temperature).softmax(dim=1)
    assert 0.9 < float(said.amax(dim=1).mean()) < 0.995  # a quarter of an error beside 12 right ones: 0.98


def test_unseen_errors_keep_confidences_below_one() -> None:
    many = 5.0 * F.one_hot(torch.arange(400) % 4, 4)
    few = many[:20]
    for logits in (few, many):
        temperature = temperature_of(logits, logits > 0, multi_label=False)
        confidence = (logits / temperature).softmax(dim=1).amax(dim=1).mean()
        assert 1 - float(confidence) == pytest.approx(0.25 / (len(logits) + 1), rel=0.35)


def test_two_witnesses_are_surer_than_one() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = F.one_hot(torch.arange(3000) % 3, 3) > 0
    first, second = (3 * truth + 2 * torch.randn(3000, 3, generator=generator) for _ in range(2))
    alone = temperature_of(first, truth, multi_label=False)
    mixture = mix(first / alone, second / alone, truth, multi_label=False)
    assert mixture.share == pytest.approx(0.5, abs=0.11)
    assert mixture.temperature == pytest.approx(0.5, abs=0.05)  # their mean has half the variance of each
    assert mixture.losses[mixture.share] < min(mixture.losses[0.0], mixture.losses[1.0])


def test_beliefs_begin_with_whoever_is_right_about_labels_not_seen() -> None:
    truth = F.one_hot(torch.arange(60) % 3, 3).float()
    told = truth.clone()
    told[30:] = 0
    pool = Pool(lambda rows: rows, told, ("a", "b", "c"), False, 16, torch.device("cpu"))
    fold = torch.arange(30) % 2
    plan = Plan(NetworkSpec(16, (8,), 3), 8, fold, 2, None, (False, False), False, False, 0, 0, {})
    right, even = truth * 0.94 + 0.02, torch.full((60, 3), 1 / 3)
    shares = torch.full((3,), 1 / 3)

    def chosen(graph: Tensor, network: Tensor) -> Beliefs:
        return with_networks(
            pool, plan, Beliefs("graph", (graph, graph), graph, {"graph": 0.0}, shares), [network.log()] * 2
        )

    for graph, network, better, worse in ((even, right, "networks", "graph"), (right, even, "graph", "networks")):
        found = chosen(graph, network)
        assert found.losses[better] < 0.1 and found.losses[worse] == pytest.approx(math.log(3), abs=0.01)
        assert all(torch.equal(each.argmax(dim=1), truth.argmax(dim=1)) for each in found.without)
        assert found.by_networks is (better == "networks")
    # A network that is right once more than the graph, of thirty, may be so by chance.
    once = right.clone()
    once[0] = torch.tensor([0.02, 0.96, 0.02])
    found = chosen(once, right)
    assert found.losses["networks"] < found.losses["graph"] and found.way == "graph" and not found.by_networks
    # Each network is asked only about its own part: what it says of the labels that it has seen does not count.
    by_heart = torch.where((torch.arange(60) < 30)[:, None], right, even)
    seen = [torch.where((fold == part)[:, None], even[:30], by_heart[:30]) for part in (0, 1)]
    said = [torch.cat([each, even[30:]]).log() for each in seen]
    found = with_networks(pool, plan, Beliefs("graph", (right, right), right, {}, shares), said)
    assert found.losses["networks"] == pytest.approx(math.log(3), abs=0.01)
    assert all(torch.equal(each.argmax(dim=1), truth.argmax(dim=1)) for each in found.without)
    torch.testing.assert_close(found.without[0].sum(dim=1), torch.ones(60))


def test_folds_spread_every_class_evenly() -> None:
    matrix = F.one_hot(torch.tensor([0] * 10 + [1] * 7 + [2] * 3), 3) > 0
    matrix = torch.cat([matrix, torch.zeros(2, 3, dtype=torch.bool)])
    fold = folds_of(matrix, 5, torch.Generator().manual_seed(0))
    assert fold[-2:].tolist() == [-1, -1]
    for column in range(3):
        counts = torch.bincount(fold[:-2][matrix[:-2, column]], minlength=5)
        assert int(counts.max() - counts.min()) <= 1
    assert int(torch.bincount(fold[:-2], minlength=5).max()) == 4


def test_probabilities_of_logits() -> None:
    logits = torch.tensor([[2 * math.log(3), 0.0]])
    torch.testing.assert_close(probabilities_of(logits, 2.0, False), torch.tensor([[0.75, 0.25]]))
    torch.testing.assert_close(probabilities_of(logits, 2.0, True), torch.tensor([[0.75, 0.5]]))


def test_resized_averages_down_and_interpolates_up() -> None:
    x = torch.tensor([[0, 100], [100, 200]], dtype=torch.uint8).expand(1, 3, 2, 2)
    assert resized(x, 1).unique().tolist() == [100]
    assert resized(x, 2) is x
    assert resized(x, 8).shape == (1, 3, 8, 8)


# ---- The graph. ----


def two_rings(n: int = 60) -> tuple[Tensor, Tensor]:
    """Two clusters of directions, and whose is whose."""
    generator = torch.Generator().manual_seed(0)
    centre = torch.tensor([[3.0, 0.0, 0.0], [0.0, 3.0, 0.0]]).repeat_interleave(n // 2, 0)
    return centre + torch.randn(n, 3, generator=generator), torch.arange(2).repeat_interleave(n // 2)


def test_labels_flow_to_their_cluster() -> None:
    x, truth = two_rings()
    told = torch.zeros(60, 2)
    told[0, 0] = told[59, 1] = 1
    graph = graph_of(x, always=told.any(dim=1), generator=torch.Generator().manual_seed(0), neighbours=8)
    beliefs = propagated(graph, told, torch.tensor([0.5, 0.5]))
    torch.testing.assert_close(beliefs.sum(dim=1), torch.ones(60))
    assert float((beliefs.argmax(dim=1) == truth).float().mean()) > 0.9
    torch.testing.assert_close(beliefs.mean(dim=0), torch.tensor([0.5, 0.5]), atol=0.02, rtol=0)


def test_a_graph_with_landmarks_speaks_for_everyone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.label.propagation.LANDMARKS", 30)
    x, truth = two_rings(200)
    told = torch.zeros(200, 2)
    told[0, 0] = told[199, 1] = 1
    graph = graph_of(x, always=told.any(dim=1), generator=torch.Generator().manual_seed(0), neighbours=8)
    assert graph.ties.shape == (30, 30) and {0, 199} <= set(graph.landmarks.tolist())
    beliefs = propagated(graph, told, torch.tensor([0.5, 0.5]))
    assert float((beliefs.argmax(dim=1) == truth).float().mean()) > 0.9


def test_a_graph_of_equal_points_is_finite() -> None:
    told = torch.zeros(10, 2)
    told[0, 0] = told[1, 1] = 1
    graph = graph_of(torch.ones(10, 4), always=told.any(dim=1), generator=torch.Generator())
    assert bool(propagated(graph, told, torch.tensor([0.5, 0.5])).isfinite().all())


def test_balanced_beliefs_have_the_shares() -> None:
    beliefs = torch.rand(500, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([5.0, 1.0, 1.0])
    shares = torch.tensor([0.2, 0.3, 0.5])
    result = balanced(beliefs, shares)
    torch.testing.assert_close(result.sum(dim=1), torch.ones(500))
    torch.testing.assert_close(result.mean(dim=0), shares, atol=1e-3, rtol=0)
    torch.testing.assert_close(balanced(torch.zeros(4, 3), shares), shares.expand(4, 3), atol=1e-4, rtol=0)


def test_only_what_is_trained_gets_gradients() -> None:
    net = network()
    assert not net.stem.weight.requires_grad and not net.stem.bias.requires_grad
    assert all(each.requires_grad for stage in net.stages for each in stage.parameters())
    assert isinstance(net.head, nn.Linear)
