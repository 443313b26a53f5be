"""`fast`: detectors learn from the labeled images only (CreateTask, table 3).

Several from scratch, each without one part of the labels; their mean is asked, and what each says of the part that it
has not seen tells how far that can be trusted. The unlabeled images are never read here.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from torch import Tensor

from engine.detect.crossfit import BoxMember, BoxVerdict, Loss, raws_of, seen_by, trained_member, verdict_of
from engine.detect.losses import detection_loss, wanted
from engine.detect.plan import BoxPlan, new_detector
from engine.detect.pool import BoxPool
from engine.detect.views import LEARNING, viewed
from engine.label.clock import Clock
from engine.label.fast import ALMOST
from engine.label.plan import NETWORK_STAGE, Stage
from engine.label.training import Deck, Training, Watch, generator_of, trained_before

#: Parts of the labels, and networks that each miss one of them.
FOLDS: Final = 5
MEMBERS: Final = 3


def fast(pool: BoxPool, plan: BoxPlan, step_seconds: float, *, clock: Clock, stage: Stage, watch: Watch) -> BoxVerdict:
    """Learn from the labeled images of a pool.

    step_seconds: what a step takes here. Raises Unfinished once `watch.stopped()` says so."""
    members: list[BoxMember] = []
    while len(members) < plan.members and not watch.stopped():
        part = len(members)
        steps = clock.steps(1 / (plan.members - part), step_seconds)
        net = new_detector(pool, seen_by(plan, part), plan, part)
        own = replace(watch, progress=stage(NETWORK_STAGE.format(part + 1, plan.members), steps))
        loss = from_labels(pool, plan, seen_by(plan, part), "fast", part)
        with clock.paced(steps, step_seconds, stopped=watch.stopped):
            member = trained_member(pool, plan, part, net, loss, steps, name="fast", watch=own)
        if watch.stopped() or not clock.again():
            members.append(member)
    return verdict_of(pool, plan, [*members, *kept_members(pool, plan, len(members), "fast", watch)])


def kept_members(pool: BoxPool, plan: BoxPlan, first: int, name: str, watch: Watch) -> list[BoxMember]:
    """The detectors that an earlier run has left of the trainings of this name, from this part of the labels on. They
    are not finished, whatever they have learned."""
    kept = []
    for part in range(first, plan.members):
        net = new_detector(pool, seen_by(plan, part), plan, part).eval().requires_grad_(False)
        if trained := trained_before(f"{name}-{part}", net, watch):
            held = (plan.fold == part).nonzero()[:, 0]
            kept.append(BoxMember(net, part, raws_of(pool, [net], held, plan), min(trained, ALMOST)))
    return kept


def from_labels(pool: BoxPool, plan: BoxPlan, seen: Tensor, *names: object) -> Loss:
    """The loss on the labeled images of these numbers, altered at random."""
    deck = Deck(len(seen), plan.batch, plan.seed, *names, "deck")
    view = plan.view(LEARNING)

    def loss(training: Training) -> Tensor:
        which = seen[deck.deal(training.step)]
        chance = generator_of(plan.seed, *names, "views", training.step)
        images, drawn = viewed(pool.pixels(pool.labeled[which]), pool.drawn(which), view, plan.shown, chance)
        return detection_loss(training.net(images), wanted(drawn, plan.spec.outputs, *plan.shown))

    return loss
