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

from engine.detect.average_precision import BoxScores, Found, box_scores
from engine.detect.canvases import Canvas
from engine.detect.decode import Raw, decoded
from engine.detect.detector import BATCH, BoxDetector, maps_of
from engine.detect.judging import calibrated, matched, thresholds
from engine.detect.network import Detector
from engine.detect.plan import BoxPlan
from engine.detect.pool import BoxPool
from engine.errors import Stopped
from engine.evaluation import expected_calibration_error, reliability
from engine.label.training import Training, Watch, train

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
    for batch in torch.split(which, BATCH):
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
    sure = {at: calibration.probabilities(raw) for at, raw in raws.items()}
    truths = np.bincount(torch.cat([pool.classes[at] for at in raws]).numpy(), minlength=k) if raws else np.zeros(k)
    given_from = (
        thresholds(
            list(sure.values()), [raw.classes for raw in raws.values()], list(rights.values()), truths.astype(np.int64)
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
    scores = _scores(pool, raws, sure) if raws else None
    return BoxVerdict(detector, raws, judge, scores, {**plan.found, **_in_words(detector, scores, sure, rights, raws)})


def _scores(pool: BoxPool, raws: dict[int, Raw], sure: dict[int, Tensor]) -> BoxScores:
    found = [Found(raw.xyxy.numpy(), raw.classes.numpy(), sure[at].numpy()) for at, raw in raws.items()]
    truth = [Found(pool.boxes[at].numpy(), pool.classes[at].numpy(), np.ones(len(pool.classes[at]))) for at in raws]
    return box_scores(found, truth, len(pool.labels))


def _in_words(
    detector: BoxDetector,
    scores: BoxScores | None,
    sure: dict[int, Tensor],
    rights: dict[int, Tensor],
    raws: dict[int, Raw],
) -> dict[str, Any]:
    """JSON values: what was found out on labels that were not seen."""
    if scores is None:
        return {"cv_images": 0}
    least = torch.tensor(detector.thresholds)
    given = {at: sure[at] >= least[raws[at].classes] for at in raws}
    confidences = torch.cat([sure[at][given[at]] for at in raws]).double().numpy()
    correct = torch.cat([rights[at][given[at]] for at in raws]).numpy()
    bins = reliability(confidences, correct) if len(correct) else ()
    return {
        "cv_images": scores.images,
        "cv_map50": _figure(scores.map50),
        "cv_map75": _figure(scores.map75),
        "cv_map50_95": _figure(scores.map50_95),
        "cv_classes": [
            {"label": name, "ap50": _figure(a), "ap50_95": _figure(b), "threshold": given_from}
            for name, a, b, given_from in zip(
                detector.labels, scores.class_ap50, scores.class_ap50_95, detector.thresholds, strict=True
            )
        ],
        "cv_precision": round(float(correct.mean()), 4) if len(correct) else None,
        "cv_ece": round(expected_calibration_error(confidences, correct), 4) if len(correct) else None,
        "reliability": [
            {"confidence": round(each.confidence, 4), "accuracy": round(each.accuracy, 4), "count": each.count}
            for each in bins
        ],
    }


def _figure(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 4)
