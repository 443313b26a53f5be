"""How good boxes are on images whose labels a detector has not seen: figures for people, as JSON values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.detect.average_precision import BoxScores, Found, box_scores
from engine.detect.judging import matched
from engine.evaluation import expected_calibration_error, reliability
from engine.predictions import Boxes


def held_out_scores(
    labels: Sequence[str], thresholds: Sequence[float], found: Sequence[Boxes], truth: Sequence[tuple[Tensor, Tensor]]
) -> tuple[BoxScores | None, dict[str, Any]]:
    """found: of each image all likely boxes, more than are given. truth: its true boxes (t, 4) and classes (t,).
    thresholds: (k,), the confidence from which on a box is given; beyond 1 none is. -> None where there is no image."""
    if not found:
        return None, {"cv_images": 0}
    scores = box_scores(
        [Found(each.xyxy.numpy(), each.classes.numpy(), each.scores.numpy()) for each in found],
        [Found(xyxy.numpy(), classes.numpy(), np.ones(len(classes))) for xyxy, classes in truth],
        len(labels),
    )
    rights = [matched(each.xyxy, each.classes, *true).right for each, true in zip(found, truth, strict=True)]
    least = torch.tensor(thresholds)
    given = [each.scores >= least[each.classes] for each in found]
    confidences = torch.cat([each.scores[of] for each, of in zip(found, given, strict=True)]).double().numpy()
    correct = torch.cat([right[of] for right, of in zip(rights, given, strict=True)]).numpy()
    bins = reliability(confidences, correct) if len(correct) else ()
    told = [each if each <= 1 else None for each in thresholds]
    return scores, {
        "cv_images": scores.images,
        "cv_map50": _figure(scores.map50),
        "cv_map75": _figure(scores.map75),
        "cv_map50_95": _figure(scores.map50_95),
        "cv_classes": [
            {"label": name, "ap50": _figure(a), "ap50_95": _figure(b), "threshold": given_from}
            for name, a, b, given_from in zip(labels, scores.class_ap50, scores.class_ap50_95, told, strict=True)
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
