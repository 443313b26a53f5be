"""`accurate`: detectors learn from the unlabeled images too (CreateTask, table 3), each with a teacher.

A detector first learns from labels, to the end. Then it is its own teacher: what it has said of an unlabeled image,
seen from all sides, it shall say of the same place in other light and colors, partly covered, while labels go on to be
learned. Not boxes are taught but maps, cell by cell (Zhou et al. 2022, Dense Teacher): where people draw only some of
the objects of a kind, as they do where many lie together, boxes above a threshold would teach that all are there or
none. A cell counts by how far teacher and detector differ, boxes by how sure the teacher is. The teacher stands still:
one that follows the detector, as a mean teacher does, is worse than none in the minutes that there are (60 labeled
images of blood cells, one network: mAP50:95 0.582 before, 0.573 after; with one that stands 0.587). All members as the
teacher of each bring single ones farther (30 images: 0.577 -> 0.588), and all together no farther. Each member leaves
out one part of the labels, as with `fast`, and so has its teacher: images of that part are to it as unlabeled ones.
Whether that has helped is asked of these parts: the better of before and after is kept.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import torch.nn.functional as F
from torch import Tensor

from engine.detect.crossfit import BoxMember, BoxVerdict, Loss, hidden_from, seen_by, trained_member, verdict_of
from engine.detect.detector import maps_of
from engine.detect.fast import from_labels, kept_members
from engine.detect.losses import boxes_of, overlaps
from engine.detect.network import Detector, Maps, trainable
from engine.detect.plan import BoxPlan, new_detector
from engine.detect.pool import BoxPool
from engine.detect.views import STRONG, covered, placed, recolored
from engine.label.clock import Clock
from engine.label.fast import ALMOST
from engine.label.plan import NETWORK_STAGE, Stage
from engine.label.training import Deck, Training, Watch, generator_of

MEMBERS: Final = 3
#: What the training of a network with a teacher is called: its number, and of how many.
TEACHING_STAGE: Final = "teaching network {} of {}"
#: Share of the time in which a detector learns from labels alone.
ALONE: Final = 0.5
#: The peak of the learning rate with a teacher, as a share of the one without.
_RATE: Final = 0.5
#: How much what it says counts beside labels, and boxes and fits beside centers.
_WEIGHT: Final = 1.0
_OF_BOXES: Final = 3.0
_OF_FITS: Final = 0.5
#: Unlabeled images a step, for one labeled one.
_RATIO: Final = 1.0
#: Cells whose center the teacher is less sure of teach no boxes.
_LEAST: Final = 0.1
#: What a step with a teacher costs, in steps without: twice as many images, and a look of the teacher at half of them,
#: from three sides. Measured 2.7.
_COST: Final = 2.8


def accurate(
    pool: BoxPool, plan: BoxPlan, step_seconds: float, *, clock: Clock, stage: Stage, watch: Watch
) -> BoxVerdict:
    """Learn from all images of a pool.

    step_seconds: what a step on labeled images takes here. Raises Unfinished once `watch.stopped()` says so.
    """
    before: list[BoxMember] = []
    after: list[BoxMember] = []
    with_a_teacher = _COST * step_seconds
    while len(after) < plan.members and not watch.stopped():
        part, left = len(after), plan.members - len(after)
        seen = seen_by(plan, part)
        steps = clock.steps(ALONE / left, step_seconds)
        own = replace(watch, progress=stage(NETWORK_STAGE.format(part + 1, plan.members), steps))
        net = new_detector(pool, seen, plan, part)
        loss = from_labels(pool, plan, seen, "accurate", part)
        with clock.paced(steps, step_seconds, stopped=watch.stopped):
            member = trained_member(pool, plan, part, net, loss, steps, name="accurate", watch=own)
        if not watch.stopped() and clock.again():
            continue
        before.append(member)
        if before[-1].trained < 1:
            break
        steps = clock.steps((1 - ALONE) / (left - ALONE), with_a_teacher)
        own = replace(watch, progress=stage(TEACHING_STAGE.format(part + 1, plan.members), steps))
        hidden = hidden_from(pool, plan, part)
        loss = with_teacher(pool, plan, seen, hidden, before[-1].network, "taught", part)
        gentle = replace(plan, recipe=replace(plan.recipe, learning_rate=_RATE * plan.recipe.learning_rate))
        net = trainable(before[-1].network)
        with clock.paced(steps, with_a_teacher, stopped=watch.stopped):
            after.append(trained_member(pool, gentle, part, net, loss, steps, name="taught", watch=own))
    if len(after) < plan.members or after[-1].trained < 1:
        before += kept_members(pool, plan, len(before), "accurate", watch)
        return verdict_of(pool, plan, [replace(each, trained=min(each.trained, ALMOST)) for each in before])
    return _better(verdict_of(pool, plan, before), verdict_of(pool, plan, after))


def _better(before: BoxVerdict, after: BoxVerdict) -> BoxVerdict:
    """The verdict with the larger mean average precision on labels that were not seen, over all overlaps."""
    if before.scores is None or after.scores is None:
        return after
    helped = after.scores.map50_95 >= before.scores.map50_95
    told = {
        "teachers": "helped" if helped else "did not help: what was learned from labels alone is kept",
        "cv_map50_95_alone": round(before.scores.map50_95, 4),
        "cv_map50_95_taught": round(after.scores.map50_95, 4),
    }
    kept = after if helped else before
    return replace(kept, found={**kept.found, **told})


def with_teacher(pool: BoxPool, plan: BoxPlan, seen: Tensor, hidden: Tensor, teacher: Detector, *names: object) -> Loss:
    """The loss on the labeled images of these numbers, and on those at the hidden positions by what the teacher says of
    them."""
    supervised = from_labels(pool, plan, seen, *names)
    if not len(hidden):  # there were some, and none could be read
        return supervised
    count = max(1, round(_RATIO * plan.batch))
    deck = Deck(len(hidden), count, plan.seed, *names, "unlabeled")
    view = plan.view(STRONG)

    def loss(training: Training) -> Tensor:
        own = supervised(training)
        images = pool.pixels(hidden[deck.deal(training.step)])
        chance = generator_of(plan.seed, *names, "taught", training.step)
        shown = placed(images, view, plan.shown, chance).shown(images)
        told = maps_of([teacher], shown, flips=plan.flips, bfloat16=plan.bfloat16)
        altered = covered(recolored(shown, view, chance), chance)
        theirs = taught_loss(training.net(altered), told)
        return own + _WEIGHT * theirs

    return loss


def taught_loss(maps: Maps, told: Maps) -> Tensor:
    """How far a detector (logits) is from its teacher (probabilities), an object that the teacher sees.

    Of centers, the cross entropy with the teacher's, each cell by the square of their difference (quality focal loss:
    Li et al. 2020); of boxes and fits where the teacher sees a center, by how
    sure it is.
    """
    p = maps.centers.sigmoid()
    weight = (p - told.centers).abs().square()
    of_centers = (weight * F.binary_cross_entropy_with_logits(maps.centers, told.centers, reduction="none")).sum()
    sure, _ = told.centers.max(dim=1)
    chosen = sure > _LEAST
    peaks = told.centers * (F.max_pool2d(told.centers, 3, stride=1, padding=1) == told.centers)
    objects = peaks[peaks > _LEAST].sum().clamp(min=1.0)
    if not bool(chosen.any()):
        return of_centers / objects + 0.0 * (maps.edges.sum() + maps.fits.sum())
    by = sure[chosen]
    _, general = overlaps(
        boxes_of(maps.edges).permute(0, 2, 3, 1)[chosen], boxes_of(told.edges).permute(0, 2, 3, 1)[chosen]
    )
    fits = F.binary_cross_entropy_with_logits(maps.fits[chosen], told.fits[chosen], reduction="none")
    # The cells of an object count together as it does: by their share of what the teacher sees.
    each = by / by.sum() * objects
    of_boxes = (each * (1 - general)).sum()
    of_fits = (each * fits).sum()
    return (of_centers + _OF_BOXES * of_boxes + _OF_FITS * of_fits) / objects
