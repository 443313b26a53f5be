"""What a network is asked to minimise: on labeled images, on pairs of views, on images that nobody labeled.

Each function gives a `Lesson`, ready for `training.train`. Images come from `Pixels`; targets are (n, k) float, one-hot
or shares of belief, with several ones where a sample may have several labels. Knows nothing of files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.label.augment import VIEWS, WEAK, Policy, between, changed, changes, policy_for
from engine.label.networks import Network, blank
from engine.label.recorded import Given, sent
from engine.label.training import Deck, Lesson, Training, generator_of

#: Positions (m,) int64 -> images (m, 3, S, S) uint8, on the device of the network.
Pixels: TypeAlias = Callable[[Tensor], Tensor]

#: A target keeps this much of every class, so that no label is believed without end (Szegedy et al. 2016).
SMOOTHING: Final = 0.1


@dataclass(frozen=True, slots=True)
class Told:
    """Samples and what is known of them. rows: (n,) int64, their positions. targets: (n, k) float."""

    rows: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.rows)


#: How wide images are at first while labels are taught, as a share of what the network sees in the end, and until when,
#: as a share of the steps (progressive learning: Tan and Le 2021): a step takes half the time.
_SMALL: Final = ((0.5, 0.5), (0.75, 0.8))
#: Times that an image is seen: up to the first it pays, from the second on whole images are better. (cifar10, one
#: network, equal time: 250 labels seen 330 times 46.8 %, as whole images 160 times 48.8.)
_SEEN: Final = (40, 160)


def lesson_sides(epochs: float) -> tuple[tuple[float, float], ...]:
    """From which share of the steps on labeled images are how wide, where each is seen so often."""
    small = 1 - between(epochs, *_SEEN)
    starts = (0.0, *(small * until for _, until in _SMALL))
    return tuple(zip(starts, (*(share for share, _ in _SMALL), 1.0), strict=True))


def supervised(
    pixels: Pixels, told: Told, flips: tuple[bool, bool], batch: int, *names: object, multi_label: bool
) -> Lesson:
    """Cross-entropy on altered labeled images, the stronger the more often each is seen. flips: that keep labels.
    names: of the training, for its chance."""
    deck = Deck(len(told), batch, *names, "deck")

    def epochs(steps: int) -> float:
        return steps * batch / max(1, len(told))

    def given(step: int, steps: int) -> Given:
        images = pixels(told.rows[dealt := deck.deal(step)])
        drawn = changes(policy(steps), len(images), generator_of(*names, step))
        targets = smoothed(told.targets[dealt], multi_label)
        side = view_side(images.shape[-1], step / steps, lesson_sides(epochs(steps)))
        return Given((images, sent(drawn, images.device), sent(targets, images.device)), side)

    def policy(steps: int) -> Policy:
        return policy_for(epochs(steps)).flipped(flips)

    def loss(training: Training, given: Given) -> Tensor:
        images, drawn, targets = given.tensors
        logits = training.net(changed(images, drawn, policy(training.steps), side=given.side))
        return cross_entropy(logits, targets, multi_label).mean()

    return Lesson(given, loss)


def smoothed(targets: Tensor, multi_label: bool) -> Tensor:
    """Targets (n, k) with SMOOTHING of their belief spread over all classes; half of that for yes-or-no targets."""
    even = 0.5 if multi_label else 1.0 / targets.shape[1]
    amount = SMOOTHING / 2 if multi_label else SMOOTHING
    return targets * (1 - amount) + amount * even


def cross_entropy(logits: Tensor, targets: Tensor, multi_label: bool) -> Tensor:
    """(n, k) and (n, k) shares -> (n,): of the softmax, or the sum of that of each sigmoid."""
    logits = logits.float()
    if multi_label:
        return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(dim=1)
    return -(targets * logits.log_softmax(dim=1)).sum(dim=1)


# ---- Two views of an image lie near each other: no labels at all. ----

#: Of the similarities of views (Chen et al. 2020 find 0.1..0.5 alike good).
_TEMPERATURE: Final = 0.1
_PROJECTED: Final = 128


class Projected(nn.Module):
    """A network under training by pairs of views: features (B, d) through two layers to (B, 128)."""

    def __init__(self, net: Network, generator: torch.Generator) -> None:
        super().__init__()
        self.net = net
        dim = net.spec.dim
        self.projector = nn.Sequential(
            blank(nn.Linear, dim, dim, bias=False),
            nn.BatchNorm1d(dim),
            nn.ReLU(),
            blank(nn.Linear, dim, _PROJECTED, bias=False),
        )
        with torch.no_grad():
            for weight in (each for each in self.projector.parameters() if each.ndim > 1):
                weight.normal_(0, dim**-0.5, generator=generator)

    def forward(self, images: Tensor) -> Tensor:
        projected: Tensor = self.projector(self.net.features(images))
        return projected


def contrastive(pixels: Pixels, rows: Tensor, flips: tuple[bool, bool], batch: int, *names: object) -> Lesson:
    """SimCLR (Chen et al. 2020): of all views in a batch, the other one of the same image shall be the nearest."""
    deck = Deck(len(rows), batch, *names, "deck")
    policy = VIEWS.flipped(flips)

    def given(step: int, steps: int) -> Given:
        images = pixels(rows[deck.deal(step)])
        drawn = changes(policy, 2 * len(images), generator_of(*names, step))
        return Given((images, sent(drawn, images.device)), view_side(images.shape[-1], step / steps))

    def loss(training: Training, given: Given) -> Tensor:
        images, drawn = given.tensors
        views = changed(torch.cat([images, images]), drawn, policy, side=given.side)
        return nearest_pairs(training.net(views))

    return Lesson(given, loss)


#: Views are so wide, as a share of the images, from so much of the steps on. Half as wide is a quarter of the work,
#: and what is learned serves whole images as well. At equal time on cifar10: 15 nearest neighbours agree with 61.0 %
#: at a half, 60.5 % at three quarters.
VIEW_SIDES: Final = ((0.0, 0.5), (0.6, 0.75))


def view_side(side: int, done: float, sides: Sequence[tuple[float, float]] = VIEW_SIDES) -> int:
    """Side of the views of images so wide, when this share of the steps is done. sides: pairs of a share of the steps,
    and from there on a share of the side."""
    return max(8, int(side * next(share for start, share in reversed(sides) if done >= start)))


def mean_seconds(
    side: int, seconds: Callable[[int], float], sides: Sequence[tuple[float, float]] = VIEW_SIDES
) -> float:
    """What a step takes on the mean of all steps. seconds: of one whose views have this side."""
    ends = [start for start, _ in sides[1:]] + [1.0]
    return sum(
        (end - start) * seconds(view_side(side, start, sides)) for (start, _), end in zip(sides, ends, strict=True)
    )


def nearest_pairs(projected: Tensor) -> Tensor:
    """(2 n, d), row i and n + i of the same image -> the mean cross-entropy of finding the other one (NT-Xent)."""
    z = F.normalize(projected.float(), dim=1)
    n = len(z) // 2
    similar = z @ z.T / _TEMPERATURE
    similar = similar.masked_fill(torch.eye(2 * n, dtype=torch.bool, device=z.device), float("-inf"))
    places = torch.arange(n, device=z.device)
    return F.cross_entropy(similar, torch.cat([places + n, places]))


# ---- A student agrees with its teacher on images that nobody labeled. ----

#: While student and teacher agree images are so wide, from so much of the steps on.
AGREEMENT_SIDES: Final = ((0.0, 0.75), (0.6, 1.0))
#: The teacher's beliefs of a class are averaged over about 1 / (1 - _SLOW) steps.
_SLOW: Final = 0.99
#: Beliefs below the mean confidence weigh less, by a Gaussian of this many standard deviations (SoftMatch: 2).
_SPREAD: Final = 2.0


@dataclass(frozen=True, slots=True)
class Believed:
    """Unlabeled samples. rows: (m,) int64, positions. beliefs: (m, k) what is thought of them at the beginning.
    shares: (k,) of the classes among them, sum 1 (unused in a multi-label set)."""

    rows: Tensor
    beliefs: Tensor
    shares: Tensor


def consistent(
    pixels: Pixels,
    told: Told,
    believed: Believed,
    policy: Policy,
    batches: tuple[int, int],
    *names: object,
    multi_label: bool,
) -> Lesson:
    """Labeled images, altered as `policy` says; and on unlabeled ones the student, who sees them so altered, shall say
    what the teacher (the averaged network) says of the nearly plain image, weighted by how sure the teacher is.

    Beliefs are aligned to the shares of the classes (Berthelot et al. 2020) and weighted by a Gaussian of their
    confidence (SoftMatch: Chen et al. 2023). The teacher is trusted step by step: at first all beliefs are those from
    the graph, at the end all are the teacher's. batches: labeled and unlabeled images of a step.
    """
    labeled = Deck(len(told), batches[0], *names, "labeled")
    unlabeled = Deck(len(believed.rows), batches[1], *names, "unlabeled")
    weak = WEAK.flipped((policy.flip_horizontal, policy.flip_vertical))

    def given(step: int, steps: int) -> Given:
        dealt, drawn = labeled.deal(step), unlabeled.deal(step)
        images = pixels(torch.cat([told.rows[dealt], believed.rows[drawn]]))
        chance = generator_of(*names, step)
        plainly, strongly = changes(weak, len(drawn), chance), changes(policy, len(images), chance)
        targets, beliefs = smoothed(told.targets[dealt], multi_label), believed.beliefs[drawn]
        trust = torch.tensor(step / steps)
        tensors = (sent(each, images.device) for each in (plainly, strongly, targets, beliefs, believed.shares, trust))
        return Given((images, *tensors), view_side(images.shape[-1], step / steps, AGREEMENT_SIDES))

    def loss(training: Training, given: Given) -> Tensor:
        images, plainly, strongly, targets, beliefs, shares, trust = given.tensors
        known = len(targets)
        with torch.no_grad():
            said = training.average(changed(images[known:], plainly, weak, side=given.side)).float()
            if multi_label:
                beliefs, weights = _answers(said, beliefs, trust)
            else:
                beliefs, weights = _beliefs(training.memory, said, beliefs, shares, trust)
        logits = training.net(changed(images, strongly, policy, side=given.side))
        agreement = (weights * cross_entropy(logits[known:], beliefs, multi_label)).mean()
        return cross_entropy(logits[:known], targets, multi_label).mean() + agreement

    k = told.targets.shape[1]
    usual = {"usual": believed.shares, "mean": torch.tensor(1 / k), "variance": torch.tensor(1.0)}
    return Lesson(given, loss, {} if multi_label else usual)


def _answers(said: Tensor, graph: Tensor, trust: Tensor) -> tuple[Tensor, Tensor]:
    """The teacher's logits (m, k) of yes-or-no answers -> targets (m, k) and weights (m,)."""
    p = trust * said.sigmoid() + (1 - trust) * graph
    return p, (2 * p - 1).abs().mean(dim=1)


def _beliefs(
    memory: dict[str, Tensor], said: Tensor, graph: Tensor, shares: Tensor, trust: Tensor
) -> tuple[Tensor, Tensor]:
    """The teacher's logits (m, k) -> targets (m, k) and weights (m,)."""
    p = said.softmax(dim=1)
    usual = _slowly(memory["usual"], p.mean(dim=0))
    p = p * (shares / usual.clamp(min=1e-6))
    p = p / p.sum(dim=1, keepdim=True)
    p = trust * p + (1 - trust) * graph
    sure = p.amax(dim=1)
    mean = _slowly(memory["mean"], sure.mean())
    variance = _slowly(memory["variance"], sure.var(unbiased=False))
    below = (sure - mean).clamp(max=0)
    return p, torch.exp(-below.square() / (2 * variance / _SPREAD**2).clamp(min=1e-8))


def _slowly(kept: Tensor, now: Tensor) -> Tensor:
    """The running mean of a number, in place."""
    return kept.mul_(_SLOW).add_(now, alpha=1 - _SLOW)
