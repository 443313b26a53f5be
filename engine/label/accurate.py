"""`accurate`: labeled images, and what the unlabeled ones show without labels (CreateTask, table 3).

A network learns to tell images apart without any label (SimCLR); a closed-form head may rest on what it sees, and
labels spread over a graph of neighbours in it, balanced as the classes are among the labels; what these believe of all
images teaches another head. Networks that begin there are taught the labels. What the graph, and networks that are
clearly better, believe of the unlabeled images is where consistency begins: each network learns to agree with its own
averaged self on them. On labels that neither has seen the first network is held against itself as it was taught before:
where it was clearly better then, this has not helped, and the rest of the time goes to the labels alone. With many
labels and little time networks are taught the labels from scratch, as `fast` does it; so are they where the time is too
short to learn anything without labels, and the graph of neighbours rests on what the encoder sees. Which beliefs begin,
how much the networks and the head count: all decided out of fold.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

import torch
from torch import Tensor, nn

from engine.embeddings import Encoder
from engine.label.augment import STRONG, between
from engine.label.beliefs import Beliefs, beliefs_of, with_networks
from engine.label.calibration import CLEARLY, above, log_losses, temperature_of
from engine.label.classifier import probabilities_of, resized
from engine.label.clock import Clock, StepSeconds
from engine.label.crossfit import Member, hidden_from, logits_of, prediction_seconds, seen_by, trained_member
from engine.label.fast import MEMBERS as MEMBERS_FROM_SCRATCH
from engine.label.fast import WHOLE, from_labels, kept_member, lesson_seconds, taught_from_scratch
from engine.label.losses import (
    AGREEMENT_SIDES,
    VIEW_SIDES,
    Believed,
    Projected,
    Told,
    consistent,
    contrastive,
    mean_seconds,
)
from engine.label.mirrored import mirrored
from engine.label.networks import Network, copied, reset_head
from engine.label.opinions import USABLE_FROM, Verdict, best_head, fit_head, head_seconds, taught_head, verdict_of
from engine.label.plan import NETWORK_STAGE, Plan, Settings, Stage, new_network, plan_for
from engine.label.pool import Pool
from engine.label.sight import Sight, content_of
from engine.label.training import Lesson, Watch, generator_of, step_seconds, train, trained_before

FOLDS: Final = 5
MEMBERS: Final = 2
#: Of the time: learning to tell images apart, where few images are labeled, and where many are: what labels say need
#: not be found out without them.
PRETRAINING_SHARE: Final = 0.4
_PRETRAINING_OF_MANY: Final = 0.1
#: Of what is left then, teaching the labels, where few are labeled. Where many are it takes all, unless there is time
#: to see all images often: consistency needs that. (cifar10, 4,000 labels, one network: 78.2 % after 250 s of labels,
#: 77.8 after 110 s of consistency more, which is four times each image, 79.1 after 400 s of labels.) What was learned
#: without labels is then of little use to a network, either: two that began there labeled the rest worse together,
#: 78.2 %, than three from scratch in the same 15 minutes, 78.6.
TEACHING_SHARE: Final = 0.35
_FEW, _MANY = 250, 4_000
_SELDOM, _OFTEN = 100, 1_000
_LEFT_OUT: Final = "left out: with so many labels these teach more in the same time"
#: Steps of pretraining that are worth beginning with it. (signs, 100 labels: 96.3 % by `fast` in half a minute, 93.5 by
#: 42 of these steps and what follows them; in a minute 96.7, and 98.0 by 113. digits, 100 labels: 99.2 by 76.)
_WORTH: Final = 50
_TOO_SHORT: Final = "left out, and pretraining: the time is too short for them"
TEACHING_STAGE: Final = "teaching network {} of {} the labels"
#: Pairs of views a step, at most a quarter of the images.
PAIRS: Final = 256
PRETRAINING_RATE: Final = 0.24
TEACHING_RATE: Final = 0.24
LEARNING_RATE: Final = 0.1
#: Enough, where a GPU or a long time would allow more: so many looks at each image while networks learn to tell them
#: apart (most of what a thousand teach is learned by then: Chen et al. 2020), which are still far more than _OFTEN in
#: all of the time; and steps in which a network is taught labels before it learns from all images, and looks at each of
#: these (supposed, not measured). What they leave goes to agreement.
_MOST_LOOKS: Final = 600
_MOST_LESSONS: Final = 3_000
_MOST_LOOKS_AT_LABELS: Final = 300
#: Unlabeled images a step, for each of a batch of labeled ones: together as much work as four such batches; on a GPU
#: more of small images. Labeled ones, at least.
_UNLABELED: Final = 3
_UNLABELED_ON_GPU: Final = 7
_SMALL: Final = 32
_LEAST_LABELED: Final = 16
#: A network that was taught the labels only, of two lessons, counts as so far trained.
_NOT_YET: Final = 0.9
#: Seconds that the graph takes an image, about.
_SPREADING: Final = 1.5e-3


def accurate(pool: Pool, settings: Settings, *, clock: Clock, stage: Stage, watch: Watch) -> Verdict:
    """Learn from all images of a pool. Raises Unfinished once `watch.stopped()` says so."""
    advance = stage("looking at labeled images", len(pool.labeled))
    plan = plan_for(pool, settings, folds=FOLDS, members=MEMBERS)
    beside = mirrored(settings.encoder, plan.flips)
    head = fit_head(pool, beside, plan.fold)
    advance(len(pool.labeled))
    seconds = lesson_seconds(pool, plan, clock)
    seeing = len(pool) * clock.measured(lambda: head_seconds(pool, head))
    seeing += prediction_seconds(pool, plan, seconds(WHOLE), looks=1 + int(plan.flips[0]), members=0)
    clock.reserve += prediction_seconds(pool, plan, seconds(WHOLE), looks=plan.looks) + _SPREADING * len(pool)
    clock.reserve += 2 * seeing  # for the graph, and to label in the end
    start, looks = _pretrained(pool, plan, clock=clock, stage=stage, watch=watch)
    clock.reserve -= _SPREADING * len(pool) + seeing
    teaching = 1.0 if start is None else teaching_share(len(pool.labeled), looks)
    fewer = plan.members
    if teaching == 1:
        plan = plan.of_members(settings.members or MEMBERS_FROM_SCRATCH)
    if watch.stopped():
        return verdict_of(pool, plan, head, _so_far(pool, plan, [], [], watch))
    advance = stage("spreading labels", len(pool))
    heads = [head]
    encoder, content = _content(pool, plan, start, beside)
    if start is not None:
        heads.append(fit_head(pool, encoder, plan.fold))
    graph = beliefs_of(pool, plan, content) if start is None or teaching < 1 else None
    if graph is not None and graph.whole is not None:
        heads.append(taught_head(pool, encoder, content, graph.whole, graph.without, plan.fold))
    advance(len(pool))
    if start is None or graph is None:
        clock.reserve += prediction_seconds(pool, plan, seconds(WHOLE), members=plan.members - fewer)
        members = taught_from_scratch(pool, plan, seconds, clock=clock, stage=stage, watch=watch)
        choice: dict[str, Any] = {"consistency": _TOO_SHORT if start is None else _LEFT_OUT}
    else:
        members, choice = _members(pool, plan, start, graph, teaching, seconds, clock=clock, stage=stage, watch=watch)
    head = best_head(*heads)
    verdict = verdict_of(pool, plan, head, members)
    return replace(verdict, found={**choice, "head": head.name, **verdict.found})


def pretraining_share(labeled: int) -> float:
    """Of the time, for so many labeled images."""
    return PRETRAINING_SHARE + between(labeled, _FEW, _MANY) * (_PRETRAINING_OF_MANY - PRETRAINING_SHARE)


def teaching_share(labeled: int, looks: float) -> float:
    """Of the time after pretraining, for so many labeled images. looks: times that each image could be seen in all of
    the time."""
    return TEACHING_SHARE + between(labeled, _FEW, _MANY) * (1 - between(looks, _SELDOM, _OFTEN)) * (1 - TEACHING_SHARE)


# ---- Before any label: a network that tells images apart. ----


def _content(pool: Pool, plan: Plan, start: Network | None, beside: Encoder) -> tuple[Encoder, Tensor]:
    """What tells images apart, and the vectors of all m images, (m, d): what a network sees beside an encoder, or
    without one the encoder."""
    if start is not None:
        return content_of(pool, Sight(start, plan.flips[0], plan.bfloat16, beside))
    return beside, pool.mapped(lambda images: beside.encode(resized(images, beside.size)))


def _pretrained(pool: Pool, plan: Plan, *, clock: Clock, stage: Stage, watch: Watch) -> tuple[Network | None, float]:
    """The network, None where there is no time for it; and how often each image could be seen in all of the time, at
    the pace of this, at least: told by its steps, so that the same steps decide the same."""
    rows = torch.arange(len(pool))
    pairs = max(2, min(PAIRS, len(pool) // 4))

    def begun() -> Projected:
        net = new_network(pool, rows, plan.spec, plan.seed, "pretrained")
        return Projected(net, generator_of(plan.seed, "projector")).to(pool.device)

    lesson = contrastive(pool.sized(plan.image_size), rows, plan.flips, pairs, plan.seed, "pretraining")
    seconds = clock.measured(lambda: _mean_seconds(begun, lesson, plan, VIEW_SIDES))
    share = pretraining_share(len(pool.labeled))
    steps = clock.steps(share, seconds, most=math.ceil(_MOST_LOOKS * len(pool) / pairs), worth=_WORTH)
    if steps == 0:
        return None, 0.0
    progress = stage("learning to tell images apart", steps)
    recipe = plan.recipe(PRETRAINING_RATE)
    watch = replace(watch, progress=progress)
    with clock.paced(steps, seconds, stopped=watch.stopped):
        training = train("pretraining", begun(), steps, recipe, lesson, bfloat16=plan.bfloat16, watch=watch)
    assert isinstance(training.average, Projected)
    return training.average.net, steps * pairs / len(pool) / share


def _mean_seconds(
    begun: Callable[[], nn.Module], lesson: Lesson, plan: Plan, sides: Sequence[tuple[float, float]]
) -> float:
    """What a step takes here on the mean of all, measured on networks that are not used again. sides: of images, from
    which share of the steps on, as shares of what networks see."""

    def seconds(side: int) -> float:
        return step_seconds(begun(), lesson, bfloat16=plan.bfloat16, compiled=plan.compiled, side=side)

    return mean_seconds(plan.image_size, seconds, sides)


# ---- Then with labels, then with everything. ----


def _members(
    pool: Pool,
    plan: Plan,
    start: Network,
    graph: Beliefs,
    teaching: float,
    teaching_seconds: Callable[[int], float],
    *,
    clock: Clock,
    stage: Stage,
    watch: Watch,
) -> tuple[list[Member], dict[str, Any]]:
    """The trained members, and what was chosen and why. teaching: share of the time for labels only, of which a step
    takes teaching_seconds."""
    consistency = clock.measured(lambda: _consistent_seconds(pool, plan, graph))
    asking = prediction_seconds(pool, plan, teaching_seconds(WHOLE))

    def train_on(
        part: int, net: Network, lesson: Lesson, steps: int, seconds: StepSeconds, rate: float, *, name: str, title: str
    ) -> Member:
        own = replace(watch, progress=stage(title.format(part + 1, plan.members), steps))
        with clock.paced(steps, seconds, stopped=watch.stopped):
            return trained_member(pool, plan, part, net, lesson, steps, plan.recipe(rate), name=name, watch=own)

    def begun(part: int) -> Network:
        net = copied(start)
        reset_head(net, generator_of(plan.seed, "head", part))
        return net

    def taught_labels(part: int, name: str, steps: int, title: str) -> Member:
        of_labels = from_labels(pool, seen_by(pool, plan, part), plan, name, part)
        return train_on(part, begun(part), of_labels, steps, teaching_seconds, TEACHING_RATE, name=name, title=title)

    def taught_everything(part: int, beliefs: Beliefs) -> Member:
        of_all = _from_everything(pool, plan, part, beliefs, "accurate", part)
        steps = clock.steps(1 / (plan.members - part), consistency)
        # A network that is not worth asking is not worth beginning with, either.
        net = copied(taught[part].network) if beliefs.by_networks else begun(part)
        return train_on(part, net, of_all, steps, consistency, LEARNING_RATE, name="accurate", title=NETWORK_STAGE)

    clock.reserve += asking
    each = teaching / plan.members
    taught: list[Member] = []
    for part in range(plan.members):
        steps = clock.steps(each / (1 - part * each), teaching_seconds, most=most_lessons(pool, plan))
        taught.append(taught_labels(part, "labels", steps, TEACHING_STAGE))
        if watch.stopped():
            # What is taught the labels alone is not yet what was asked for.
            return _so_far(pool, plan, [], taught, watch), {}
    beliefs = with_networks(pool, plan, graph, [_said(pool, plan, member) for member in taught])
    clock.reserve -= asking

    first = taught_everything(0, beliefs)
    choice = {
        "beliefs": beliefs.way,
        "cv_log_loss_of_beliefs": beliefs.losses,
        **_compared(pool, plan, taught[0], first),
    }
    if watch.stopped():
        return _so_far(pool, plan, [_further(first, taught[0])], taught, watch), choice
    members = [first] if choice["unlabeled_images_used"] else []
    while len(members) < plan.members and not watch.stopped():
        part = len(members)
        if choice["unlabeled_images_used"]:
            members.append(taught_everything(part, beliefs))
        else:
            steps = clock.steps(1 / (plan.members - part), teaching_seconds)
            members.append(taught_labels(part, "longer", steps, NETWORK_STAGE))
    if watch.stopped():
        members = [_further(member, before) for member, before in zip(members, taught, strict=False)]
        return _so_far(pool, plan, members, taught, watch), choice
    return members, choice


def most_lessons(pool: Pool, plan: Plan) -> int:
    """Steps in which a network is taught labels before it learns from all images, at most."""
    return min(_MOST_LESSONS, math.ceil(_MOST_LOOKS_AT_LABELS * len(pool.labeled) / plan.batch))


def _not_yet(member: Member) -> Member:
    """A member that is not finished, whatever it has learned."""
    return replace(member, trained=min(member.trained, _NOT_YET))


def _further(member: Member, before: Member) -> Member:
    """Of a member that was stopped the one before this lesson, unless it had come far."""
    return member if member.trained >= USABLE_FROM else _not_yet(before)


def _so_far(pool: Pool, plan: Plan, members: Sequence[Member], taught: Sequence[Member], watch: Watch) -> list[Member]:
    """The networks of a run that was stopped: its members; of each other part of the labels the network that an earlier
    run has left, else the one that was taught the labels only. Those are not finished."""
    longer = trained_before("longer-0", Network(plan.spec), watch) > 0  # where consistency has not helped
    lesson = "longer" if longer else "accurate"
    found = list(members)
    for part in range(len(members), plan.members):
        member = kept_member(pool, plan, part, ("fast", lesson), watch)
        if member is None:
            member = taught[part] if part < len(taught) else kept_member(pool, plan, part, ("labels",), watch)
        if member is not None:
            found.append(_not_yet(member))
    return found


def _said(pool: Pool, plan: Plan, member: Member) -> Tensor:
    """(m, k) logits of all images."""
    return logits_of(pool, member.network, torch.arange(len(pool)), plan)


def _from_everything(pool: Pool, plan: Plan, part: int, beliefs: Beliefs, *names: object) -> Lesson:
    """Images of its own part are to a member what those are that nobody labeled: it grows as sure of the one as of the
    other, so that what is found out about its errors on its part holds for all."""
    rows, hidden = seen_by(pool, plan, part), hidden_from(pool, plan, part)
    return consistent(
        pool.sized(plan.image_size),
        Told(rows, pool.told[rows]),
        Believed(hidden, beliefs.without[part][hidden], beliefs.shares),
        STRONG.flipped(plan.flips),
        batches(pool, plan),
        plan.seed,
        *names,
        multi_label=pool.multi_label,
    )


def batches(pool: Pool, plan: Plan) -> tuple[int, int]:
    """Labeled and unlabeled images of a step.

    Of few labels only a few at a time, else they are learned by heart long before the others are.
    """
    unlabeled = _UNLABELED_ON_GPU if pool.device.type != "cpu" and plan.image_size <= _SMALL else _UNLABELED
    return min(plan.batch, max(_LEAST_LABELED, len(pool.labeled) // 8)), unlabeled * plan.batch


def _consistent_seconds(pool: Pool, plan: Plan, beliefs: Beliefs) -> float:
    """What a step of `_from_everything` takes here."""

    def begun() -> Network:
        return new_network(pool, pool.labeled, plan.spec, plan.seed, "timing")

    return _mean_seconds(begun, _from_everything(pool, plan, 0, beliefs, "timing"), plan, AGREEMENT_SIDES)


def _compared(pool: Pool, plan: Plan, before: Member, after: Member) -> dict[str, Any]:
    """Whether the unlabeled images have helped: the same network before and after, on labels that it has not seen."""
    truth = pool.told[pool.labeled[plan.fold == after.part]] > 0
    multi_label = pool.multi_label

    def losses(member: Member) -> Tensor:
        temperature = temperature_of(member.logits, truth, multi_label=multi_label)
        return log_losses(probabilities_of(member.logits, temperature, multi_label), truth, multi_label=multi_label)

    mean, error = above(losses(after), losses(before))
    return {
        "unlabeled_images_used": not mean > CLEARLY * error,
        "log_loss_above_labels_only": round(mean, 4),
        "log_loss_above_labels_only_error": round(error, 4) if math.isfinite(error) else None,
        "compared_on": len(truth),
    }
