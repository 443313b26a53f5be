"""Several detectors, each trained without one part of the labels: together a committee, apart an honest judge of it.

In: a pool, and detectors with what they shall minimise. Out: trained ones, what each says of the labeled images that it
has not seen, and from that a calibrated `BoxDetector` and how good it is expected to be.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from engine.detect.average_precision import BoxScores
from engine.detect.canvases import Canvas
from engine.detect.decode import Raw, decoded
from engine.detect.detector import BoxDetector, Calibration, maps_of
from engine.detect.held_out import held_out_scores
from engine.detect.judging import calibrated, matched, thresholds
from engine.detect.network import Detector
from engine.detect.plan import BoxPlan
from engine.detect.pool import BoxPool
from engine.errors import Stopped
from engine.label.training import Training, Watch, train
from engine.predictions import Boxes

Loss = Callable[[Training], Tensor]

#: A detector that was stopped counts from this share of its steps on.
_USABLE_FROM: Final = 0.3


@dataclass(frozen=True, slots=True)
class BoxMember:
    """A detector. part: of the labels, that it has not seen. raws: what it says of the images of that part, by their
    number among the labeled. trained: the share of its steps that it has taken."""

    network: Detector
    part: int
    raws: dict[int, Raw]
    trained: float


@dataclass(frozen=True, slots=True)
class BoxVerdict:
    """A detector, and what was said of labeled images by a network that has not seen their labels. raws: by number
    among the labeled. judge: (n,) int64, the number of this network, -1 where there is none. scores: of these images,
    None where there are none. found: JSON values."""

    detector: BoxDetector
    raws: dict[int, Raw]
    judge: Tensor
    scores: BoxScores | None
    found: dict[str, Any]


class Unfinished(Stopped):
    """Training was stopped. verdict: the best that there is so far; None: nothing."""

    def __init__(self, message: str, verdict: BoxVerdict | None) -> None:
        super().__init__(message)
        self.verdict = verdict


def seen_by(plan: BoxPlan, part: int) -> Tensor:
    """Numbers of the labeled images that a member without this part may see."""
    return (plan.fold != part).nonzero()[:, 0]


def hidden_from(pool: BoxPool, plan: BoxPlan, part: int) -> Tensor:
    """Positions of the images whose boxes it does not know: that nobody labeled, and of its part."""
    return torch.cat([pool.unlabeled, pool.labeled[plan.fold == part]])


def trained_member(
    pool: BoxPool, plan: BoxPlan, part: int, net: Detector, loss: Loss, steps: int, *, name: str, watch: Watch
) -> BoxMember:
    """Train a detector for so many steps, or until it is stopped, and ask it about the part that it has not seen."""
    training = train(f"{name}-{part}", net, steps, plan.recipe, loss, bfloat16=plan.bfloat16, watch=watch)
    network = training.average
    assert isinstance(network, Detector)
    held = (plan.fold == part).nonzero()[:, 0]
    return BoxMember(network, part, raws_of(pool, [network], held, plan), training.step / training.steps)


def raws_of(pool: BoxPool, networks: Sequence[Detector], which: Tensor, plan: BoxPlan) -> dict[int, Raw]:
    """What networks together say of the labeled images of these numbers, on the CPU, cut at the border of the image."""
    found: dict[int, Raw] = {}
    for batch in torch.split(which, Canvas(*pool.size).batch):
        images = pool.pixels(pool.labeled[batch])
        maps = maps_of(networks, images, flips=plan.flips, bfloat16=plan.bfloat16)
        for at, raw in zip(batch.tolist(), decoded(maps), strict=True):
            raw = raw.cpu()
            inside = torch.minimum(raw.xyxy.clamp(min=0), pool.extents[at].repeat(2))
            found[at] = replace(raw, xyxy=inside.to(raw.xyxy.dtype))
    return found


def verdict_of(pool: BoxPool, plan: BoxPlan, members: Sequence[BoxMember]) -> BoxVerdict:
    """The verdict of all members together. Raises Unfinished, with that of the usable ones, when some are missing."""
    usable = [member for member in members if member.trained >= _USABLE_FROM]
    verdict = _judged_together(pool, plan, usable) if usable else None
    if verdict is not None and len(members) == plan.members and all(member.trained == 1 for member in members):
        return verdict
    raise Unfinished(f"stopped with {len(usable)} of {plan.members} networks", verdict)


def _judged_together(pool: BoxPool, plan: BoxPlan, members: Sequence[BoxMember]) -> BoxVerdict:
    raws = {at: raw for member in members for at, raw in member.raws.items()}
    judge = torch.full((len(pool.labeled),), -1)
    for number, member in enumerate(members):
        judge[list(member.raws)] = number
    rights = {at: matched(raw.xyxy, raw.classes, pool.boxes[at], pool.classes[at]).right for at, raw in raws.items()}
    k = len(pool.labels)
    calibration = calibrated(list(raws.values()), list(rights.values()), k)
    found = {at: _by_confidence(raw, calibration) for at, raw in raws.items()}
    # The surest box claims an object: that is known only now.
    rights = {
        at: matched(each.xyxy, each.classes, pool.boxes[at], pool.classes[at]).right for at, each in found.items()
    }
    truths = np.bincount(torch.cat([pool.classes[at] for at in raws]).numpy(), minlength=k) if raws else np.zeros(k)
    given_from = (
        thresholds(
            [each.scores for each in found.values()],
            [each.classes for each in found.values()],
            list(rights.values()),
            truths.astype(np.int64),
        )
        if plan.threshold is None
        else (float(plan.threshold),) * k
    )
    detector = BoxDetector(
        pool.labels,
        Canvas(*pool.size),
        tuple(member.network for member in members),
        plan.flips,
        plan.bfloat16,
        calibration,
        given_from,
    )
    truth = [(pool.boxes[at], pool.classes[at]) for at in raws]
    scores, told = held_out_scores(detector.labels, given_from, list(found.values()), truth)
    return BoxVerdict(detector, raws, judge, scores, {**plan.found, **told})


def _by_confidence(raw: Raw, calibration: Calibration) -> Boxes:
    """The boxes with their confidence, from high to low."""
    sure = calibration.probabilities(raw)
    order = sure.argsort(descending=True, stable=True)
    return Boxes(raw.xyxy[order], sure[order], raw.classes[order])
