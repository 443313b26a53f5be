"""Several networks, each trained without one part of the labels: together a committee, apart an honest judge of it.

In: a pool, and networks with what they shall minimise. Out: trained networks, and for labeled images the logits of the
network that has not seen their label (out of fold): what calibration, choices and the search for hard examples rest on.
Knows nothing of where the networks begin, or of what they minimise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from engine.label.classifier import resized, viewed_logits
from engine.label.networks import Network
from engine.label.plan import Plan
from engine.label.pool import Pool
from engine.label.training import Lesson, Recipe, Watch, train

#: Of a training step, the part that a look at the images takes: measured 0.2..0.29.
_FORWARD_SHARE: Final = 0.3
#: Only training is compiled: a look takes at most so many times what compiled steps let expect.
NOT_COMPILED: Final = 2.0


@dataclass(frozen=True, slots=True)
class Member:
    """A network. part: of the labels, that it has not seen. logits: (h, k) on the CPU, of the images of that part.
    trained: the share of its steps that it has taken, below 1 when it was stopped."""

    network: Network
    part: int
    logits: Tensor
    trained: float


@dataclass(frozen=True, slots=True)
class CrossFit:
    """networks: the members'. logits: (n, k) float32 of the n labeled images in the order of `pool.labeled`, each by
    the member that has not seen it. judge: (n,) int64, the number of this network; -1 where every member has seen the
    label, and logits are 0."""

    networks: tuple[Network, ...]
    logits: Tensor
    judge: Tensor


def seen_by(pool: Pool, plan: Plan, part: int) -> Tensor:
    """Positions of the labeled images that a member without this part may see."""
    return pool.labeled[plan.fold != part]


def hidden_from(pool: Pool, plan: Plan, part: int) -> Tensor:
    """Positions of the images whose labels it does not know: that nobody labeled, and of its part."""
    return torch.cat([pool.unlabeled, pool.labeled[plan.fold == part]])


def trained_member(
    pool: Pool,
    plan: Plan,
    part: int,
    net: Network,
    lesson: Lesson,
    steps: int,
    recipe: Recipe,
    *,
    name: str,
    watch: Watch,
) -> Member:
    """Train a network for so many steps, or until it is stopped, and ask it about the part that it has not seen."""
    training = train(f"{name}-{part}", net, steps, recipe, lesson, bfloat16=plan.bfloat16, watch=watch)
    network = training.average
    assert isinstance(network, Network)
    held = pool.labeled[plan.fold == part]
    return Member(network, part, logits_of(pool, network, held, plan), training.step / training.steps)


def gathered(pool: Pool, plan: Plan, members: Sequence[Member]) -> CrossFit:
    """What the members have said of the parts that they had not seen, in the order of `pool.labeled`."""
    logits = torch.zeros(len(plan.fold), len(pool.labels))
    judge = torch.full((len(plan.fold),), -1)
    for number, member in enumerate(members):
        held = plan.fold == member.part
        logits[held], judge[held] = member.logits, number
    return CrossFit(tuple(member.network for member in members), logits, judge)


def logits_of(pool: Pool, network: Network, rows: Tensor, plan: Plan) -> Tensor:
    """(r, k) on the CPU: what a network says of the images at these positions."""

    def said(images: Tensor) -> Tensor:
        images = resized(images, plan.image_size)
        return viewed_logits(network, images, flips=plan.flips, bfloat16=plan.bfloat16)

    return pool.mapped(said, rows) if len(rows) else torch.zeros(0, len(pool.labels))


def prediction_seconds(
    pool: Pool, plan: Plan, step_seconds: float, *, looks: int = 0, members: int | None = None
) -> float:
    """What it takes about to ask all members, or so many, about all images, and so many more looks at each by one.
    step_seconds: of a supervised step."""
    views = (plan.members if members is None else members) * (1 + sum(plan.flips)) + looks
    slower = NOT_COMPILED if plan.compiled else 1.0
    return len(pool) * views * slower * step_seconds / plan.batch * _FORWARD_SHARE
