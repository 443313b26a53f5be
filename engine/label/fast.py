"""`fast`: everything is learned from the labeled images, and nothing from the others (CreateTask, table 3).

A closed-form head on histograms of gradients is there in a second; networks from scratch, each without one part of the
labels, take the rest of the time. How much each counts is decided out of fold. The unlabeled images are never read
here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

import torch
from torch import Tensor

from engine.label.clock import Clock
from engine.label.crossfit import Member, logits_of, prediction_seconds, seen_by, trained_member
from engine.label.losses import Told, lesson_sides, mean_seconds, supervised, view_side
from engine.label.mirrored import mirrored
from engine.label.networks import Network
from engine.label.opinions import USABLE_FROM, Verdict, fit_head, head_seconds, verdict_of
from engine.label.plan import NETWORK_STAGE, Plan, Settings, Stage, new_network, plan_for
from engine.label.pool import Pool
from engine.label.training import Lesson, Watch, step_seconds, trained_before

#: Parts of the labels, and networks that each miss one of them.
FOLDS: Final = 5
MEMBERS: Final = 3
LEARNING_RATE: Final = 0.24
#: So many steps that all images are whole.
WHOLE: Final = 10**9
#: A training that others wait for is not at its end.
ALMOST: Final = 0.999


def fast(pool: Pool, settings: Settings, *, clock: Clock, stage: Stage, watch: Watch) -> Verdict:
    """Learn from the labeled images of a pool. Raises Unfinished once `watch.stopped()` says so."""
    advance = stage("looking at labeled images", len(pool.labeled))
    plan = plan_for(pool, settings, folds=FOLDS, members=MEMBERS)
    head = fit_head(pool, mirrored(settings.encoder, plan.flips), plan.fold)
    advance(len(pool.labeled))
    seconds = lesson_seconds(pool, plan, clock)
    clock.reserve += prediction_seconds(pool, plan, seconds(WHOLE), looks=plan.looks)
    clock.reserve += len(pool) * clock.measured(lambda: head_seconds(pool, head))
    members = taught_from_scratch(pool, plan, seconds, clock=clock, stage=stage, watch=watch)
    return verdict_of(pool, plan, head, members)


def taught_from_scratch(
    pool: Pool, plan: Plan, seconds: Callable[[int], float], *, clock: Clock, stage: Stage, watch: Watch
) -> list[Member]:
    """Networks that learn from the labels alone, until the time is over; where the watch says stop, those that there
    are so far. seconds: of a step."""
    members: list[Member] = []
    while len(members) < plan.members and not watch.stopped():
        part = len(members)
        steps = clock.steps(1 / (plan.members - part), seconds)
        lesson = from_labels(pool, seen_by(pool, plan, part), plan, "fast", part)
        net = new_network(pool, seen_by(pool, plan, part), plan.spec, plan.seed, part)
        own = replace(watch, progress=stage(NETWORK_STAGE.format(part + 1, plan.members), steps))
        recipe = plan.recipe(LEARNING_RATE)
        with clock.paced(steps, seconds, stopped=watch.stopped):
            member = trained_member(pool, plan, part, net, lesson, steps, recipe, name="fast", watch=own)
        if watch.stopped() or not clock.again():
            members.append(member)
    later = (kept_member(pool, plan, part, ("fast",), watch) for part in range(len(members), plan.members))
    return [*members, *(member for member in later if member is not None)]


def kept_member(pool: Pool, plan: Plan, part: int, names: Sequence[str], watch: Watch) -> Member | None:
    """The network without this part of the labels as an earlier run has left it: of the first of the trainings of these
    names that had come far enough. It is not finished, whatever it has learned. None where there is none."""
    for name in names:
        net = Network(plan.spec).eval().requires_grad_(False).to(pool.device).to(memory_format=torch.channels_last)
        if (trained := trained_before(f"{name}-{part}", net, watch)) >= USABLE_FROM:
            logits = logits_of(pool, net, pool.labeled[plan.fold == part], plan)
            return Member(net, part, logits, min(trained, ALMOST))
    return None


def from_labels(pool: Pool, rows: Tensor, plan: Plan, *names: object) -> Lesson:
    """Of the labeled images at these positions."""
    told = Told(rows, pool.told[rows])
    pixels = pool.sized(plan.image_size)
    return supervised(pixels, told, plan.flips, plan.batch, plan.seed, *names, multi_label=pool.multi_label)


def lesson_seconds(pool: Pool, plan: Plan, clock: Clock) -> Callable[[int], float]:
    """What a step of `from_labels` takes here, on the mean of so many, measured on networks that are not used again."""
    lesson = from_labels(pool, pool.labeled, plan, "timing")

    def seconds(side: int) -> float:
        net = new_network(pool, pool.labeled, plan.spec, plan.seed, "timing")
        return step_seconds(net, lesson, bfloat16=plan.bfloat16, compiled=plan.compiled, side=side)

    sides = {view_side(plan.image_size, start, lesson_sides(1)) for start, _ in lesson_sides(1)}
    measured = {side: clock.measured(partial(seconds, side)) for side in sorted(sides)}
    seen = len(pool.labeled) * (1 - 1 / (int(plan.fold.max()) + 1))
    return lambda steps: mean_seconds(plan.image_size, measured.__getitem__, lesson_sides(steps * plan.batch / seen))
