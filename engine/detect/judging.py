"""Which boxes are right, and from labels that were not seen: how far scores can be trusted, and which boxes to give.

In: what networks said of labeled images that they had not learned from, and what people drew there. Out: a
`Calibration`, thresholds, average precision. A box is right where it overlaps a true one of its class by half (IoU 0.5)
that no surer box has claimed (as COCO counts). Knows nothing of images or networks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize
from torch import Tensor

from engine.detect.decode import Raw
from engine.detect.detector import Calibration, logits_of
from engine.detect.overlaps import box_iou
from engine.label.heads import unseen_share

_Floats = npt.NDArray[np.float64]

#: A box is right from this overlap on.
RIGHT_FROM: Final = 0.5
#: Prior of the calibration: standard deviations of all classes together around "offset 0, the center alone", and of
#: each class around all.
_DEVIATIONS: Final = (3.0, 1.0, 1.0)
_CLASS_DEVIATIONS: Final = (1.0, 0.3, 0.3)
#: Thresholds that are tried, and true boxes that a class needs to have its own.
_TRIED: Final = np.linspace(0.05, 0.95, 91)
_LEAST_TRUE: Final = 15


@dataclass(frozen=True, slots=True)
class Matched:
    """Found boxes of one image, by score from high to low. right: (m,) bool. of: (m,) int64, the true box that each
    claims, -1 for none. missed: (t,) bool, true boxes that none claims."""

    right: Tensor
    of: Tensor
    missed: Tensor


def matched(xyxy: Tensor, classes: Tensor, true_xyxy: Tensor, true_classes: Tensor) -> Matched:
    """Each found box, the surest first, claims the free true one of its class that it overlaps most."""
    m, t = len(xyxy), len(true_xyxy)
    of = torch.full((m,), -1)
    free = torch.ones(t, dtype=torch.bool)
    if m and t:
        overlap = box_iou(xyxy.float(), true_xyxy.float())
        overlap[classes[:, None] != true_classes[None]] = 0.0
        for at in (overlap.amax(dim=1) >= RIGHT_FROM).nonzero()[:, 0].tolist():
            best = torch.where(free, overlap[at], -1.0)
            place = int(best.argmax())
            if float(best[place]) >= RIGHT_FROM:
                of[at], free[place] = place, False
    return Matched(of >= 0, of, free)


def calibrated(raws: Sequence[Raw], rights: Sequence[Tensor], outputs: int) -> Calibration:
    """A logistic regression of being right on what centers and fits say: one for all classes, and each class drawn
    towards it, so that a class with few boxes is trusted like the others. Maximum a posteriori, in float64."""
    classes = torch.cat([raw.classes for raw in raws]) if raws else torch.zeros(0, dtype=torch.int64)
    x = np.zeros((len(classes), 3))
    x[:, 0] = 1
    if len(classes):
        x[:, 1] = logits_of(torch.cat([raw.centers for raw in raws])).numpy()
        x[:, 2] = logits_of(torch.cat([raw.fits for raw in raws])).numpy()
    y = torch.cat(list(rights)).double().numpy() if rights else np.zeros(0)
    # Boxes that are wrong though nothing says so: where all were right, they are supposed.
    share = unseen_share(max(1, len(y)))
    y = y * (1 - share) + (1 - y) * share
    at = classes.numpy()
    start = np.zeros((outputs + 1, 3))
    start[0] = (0.0, 1.0, 0.0)
    mean = start.copy()
    deviation = np.tile(np.array(_CLASS_DEVIATIONS), (outputs + 1, 1))
    deviation[0] = _DEVIATIONS

    def loss(flat: _Floats) -> tuple[float, _Floats]:
        numbers = flat.reshape(outputs + 1, 3)
        z = ((numbers[0] + numbers[1 + at]) * x).sum(axis=1)
        error = 0.5 * (1 + np.tanh(z / 2)) - y
        away = (numbers - mean) / deviation
        slope = away / deviation
        pull = error[:, None] * x
        slope[0] += pull.sum(axis=0)
        np.add.at(slope, 1 + at, pull)
        value = float((np.logaddexp(0, z) - y * z).sum() + 0.5 * (away**2).sum())
        return value, slope.ravel()

    best = np.asarray(minimize(loss, start.ravel(), jac=True, method="L-BFGS-B").x).reshape(outputs + 1, 3)
    numbers = torch.from_numpy(best[0] + best[1:])
    return Calibration(*numbers.unbind(1))


def thresholds(
    confidences: Sequence[Tensor], classes: Sequence[Tensor], rights: Sequence[Tensor], truths: npt.NDArray[np.int64]
) -> tuple[float, ...]:
    """(k,) the confidence from which on boxes of each class have the best F1; of a class with few true boxes that of
    all. truths: (k,) true boxes of each class."""
    sure = torch.cat([*confidences, torch.zeros(0)]).double().numpy()
    at = torch.cat([*classes, torch.zeros(0, dtype=torch.int64)]).numpy()
    right = torch.cat([*rights, torch.zeros(0, dtype=torch.bool)]).numpy()
    everything = _best_threshold(sure, right, int(truths.sum()))
    return tuple(
        _best_threshold(sure[at == c], right[at == c], int(count)) if count >= _LEAST_TRUE else everything
        for c, count in enumerate(truths)
    )


def _best_threshold(sure: _Floats, right: npt.NDArray[np.bool_], truths: int) -> float:
    """The middle of those that are as good as the best, up to half a point of F1: a single peak is chance."""
    scores = np.array([_f1(int(right[sure >= each].sum()), int((sure >= each).sum()), truths) for each in _TRIED])
    good = _TRIED[scores >= scores.max() - 0.005]
    return round(float(np.median(good)), 4)


def _f1(right: int, found: int, truths: int) -> float:
    return 2 * right / max(1, found + truths)
