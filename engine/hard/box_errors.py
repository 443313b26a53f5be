"""Wrong boxes among those that people drew: false ones, shifted ones, wrong names, and objects that have none.

In: a `Detection` whose candidates on labeled images are by networks that had not seen these. Out: `HardExamples` of the
samples, with a label each box that a person drew, in the order of `Sample.boxes`.

A box is held against the candidates around it: how surely one of its class lies where it does, and how surely one of
another class. What these say is learned from errors that are planted: boxes put elsewhere, shifted, and renamed, beside
those that people drew. An object without a box is a sure candidate that no box overlaps: what that says is learned from
the candidates of boxes that people drew, as if they had not. So many are supposed to be wrong as `SUPPOSED` says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from engine.detect.overlaps import box_iou
from engine.detect.results import Detection
from engine.hard.examples import HardExamples, HardLabels
from engine.label.training import generator_of
from engine.predictions import Boxes

_Floats = npt.NDArray[np.float64]

#: Boxes of each kind of error, as a share of those that are right.
SUPPOSED: Final = 0.02
#: A candidate says something of a box that it overlaps so much, and is about the same object from there on.
_NEAR: Final = 0.1
_SAME: Final = 0.5
#: How far a box is shifted, as a share of its sides.
_SHIFTED: Final = (0.25, 0.6)
#: From which probability on a box, or an image, is hard: more likely wrong than right.
THRESHOLD: Final = 0.5
_LEAST: Final = 1e-3
#: Of `LogisticRegression`: hardly any pull towards 0.
_FREEDOM: Final = 100.0
#: Reasons: an object has no box; the box itself is doubted; another name is more likely.
_MISSED, _DOUBTED, _RENAMED = 0, 1, 2
_WORDS: Final = {
    _MISSED: "an object seems to have no box",
    _DOUBTED: "a box seems to lie where no such object is, or beside it",
    _RENAMED: "a box seems to have the name of another label",
}


@dataclass(frozen=True, slots=True)
class _Held:
    """m boxes against the candidates of their images. support: (m,) how surely one of its class lies there: the largest
    confidence times overlap (IoU). place: (m,) that overlap. other: (m,) the largest confidence of another class."""

    support: Tensor
    place: Tensor
    other: Tensor

    @property
    def features(self) -> _Floats:
        """(m, 3)."""
        found = [torch.logit(each.double().clamp(_LEAST, 1 - _LEAST)) for each in (self.support, self.other)]
        features: _Floats = torch.stack([found[0], self.place.double(), found[1]], dim=1).numpy()
        return features


def box_label_errors(detection: Detection, *, seed: int = 0, threshold: float | None = None) -> HardExamples:
    """threshold: of the coefficient, from which on a box or an image is hard; THRESHOLD by default. A box that has no
    area inside its image is wrong."""
    threshold = THRESHOLD if threshold is None else threshold
    sketches = detection.sketches
    rows = [row for row in range(len(detection)) if sketches.labeled[row] and detection.candidates[row] is not None]
    held = _joined([_held(*_drawn(detection, row), _candidates(detection, row)) for row in rows])
    planted = _joined([_planted(detection, row, seed) for row in rows])
    of_kept, name_doubted = _wrong(held, planted)
    kept = np.concatenate([np.zeros(0, bool), *(sketches.kept[row] for row in rows)])
    doubts, renamed = np.ones(len(kept)), np.zeros(len(kept), bool)
    doubts[kept], renamed[kept] = of_kept, name_doubted
    of_rows = np.repeat(np.array(rows, np.int64), [len(sketches.kept[row]) for row in rows])
    columns = np.concatenate([np.zeros(0, np.int64), *(sketches.drawn[row] for row in rows)])
    hard = doubts >= threshold
    reasons = np.where(renamed, _RENAMED, _DOUBTED).tolist()
    labels = HardLabels(
        of_rows,
        columns,
        doubts.astype(np.float32),
        hard,
        tuple((reason,) if each else () for each, reason in zip(hard.tolist(), reasons, strict=True)),
    )
    missed = _missed(held, [_free(detection, row) for row in rows])
    return _of_images(detection, rows, labels, renamed, missed, threshold)


def _of_images(
    detection: Detection,
    rows: list[int],
    labels: HardLabels,
    renamed: npt.NDArray[np.bool_],
    missed: list[Tensor],
    threshold: float,
) -> HardExamples:
    """An image is wrong when any of its boxes is, or an object has none."""
    n = len(detection)
    doubts = labels.coefficients.astype(np.float64)
    scores = {
        _MISSED: _by_row(n, rows, [float(each.max()) if len(each) else 0.0 for each in missed]),
        _DOUBTED: _worst(n, rows, labels.rows, np.where(renamed, 0.0, doubts)),
        _RENAMED: _worst(n, rows, labels.rows, np.where(renamed, doubts, 0.0)),
    }
    right = np.zeros(n)
    np.add.at(right, labels.rows, np.log1p(-doubts.clip(max=1 - _LEAST)))
    right[rows] += [float(torch.log1p(-each.clamp(max=1 - _LEAST)).sum()) for each in missed]
    coefficients = np.zeros(n, np.float32)
    coefficients[rows] = 1 - np.exp(right[rows])
    hard = coefficients >= threshold
    total = np.maximum(np.sum([np.nan_to_num(score) for score in scores.values()], axis=0), 1e-12)
    return HardExamples(
        coefficients,
        hard,
        tuple(_reasons(scores, row, threshold) if hard[row] else () for row in range(n)),
        labels,
        scores,
        {number: (np.nan_to_num(score) / total).astype(np.float32) for number, score in scores.items()},
        dict.fromkeys(scores, threshold),
        "calibrated",
        threshold,
        (),
        {"combiner": "calibrated", "algo_hard_threshold": threshold, "boxes": len(labels), "supposed": SUPPOSED},
        detection.labels,
        _WORDS,
    )


def _drawn(detection: Detection, row: int) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(detection.sketches.boxes[row]), torch.from_numpy(detection.sketches.classes[row])


def _candidates(detection: Detection, row: int) -> Boxes:
    boxes = detection.candidates[row]
    assert boxes is not None
    return boxes


def _held(xyxy: Tensor, classes: Tensor, candidates: Boxes) -> _Held:
    """Boxes against candidates of the same image."""
    m = len(xyxy)
    if not m or not len(candidates.scores):
        return _Held(torch.zeros(m), torch.zeros(m), torch.zeros(m))
    overlap = box_iou(xyxy.float(), candidates.xyxy.float())
    same = classes[:, None] == candidates.classes[None]
    near = torch.where(same & (overlap >= _NEAR), overlap * candidates.scores, 0.0)
    support, at = near.max(dim=1)
    place = torch.where(support > 0, overlap.gather(1, at[:, None])[:, 0], 0.0)
    other = torch.where(~same & (overlap >= _SAME), candidates.scores.expand_as(overlap), 0.0).amax(dim=1)
    return _Held(support.float(), place.float(), other.float())


def _joined(parts: list[_Held]) -> _Held:
    nothing = torch.zeros(0)
    return _Held(*(torch.cat([nothing, *(getattr(each, name) for each in parts)]) for name in _Held.__slots__))


# ---- What planted errors look like. ----


def _planted(detection: Detection, row: int, seed: int) -> _Held:
    """The boxes of a labeled image put elsewhere, shifted, and, where there are several classes, renamed."""
    xyxy, classes = _drawn(detection, row)
    chance = generator_of(seed, "planted boxes", row)
    u = torch.rand(len(xyxy), 8, generator=chance)
    size = xyxy[:, 2:] - xyxy[:, :2]
    sides = torch.from_numpy(detection.sizes[row]).float()
    corner = u[:, :2] * (sides - size).clamp(min=0)
    elsewhere = torch.cat([corner, corner + size], dim=1)
    low, high = _SHIFTED
    reach = (low + (high - low) * u[:, 2:4]) * size * torch.where(u[:, 4:6] < 0.5, -1.0, 1.0)
    shifted = xyxy + torch.cat([reach, reach], dim=1)
    candidates = _candidates(detection, row)
    found = [_held(elsewhere, classes, candidates), _held(shifted, classes, candidates)]
    k = len(detection.labels)
    if k > 1:
        renamed = (classes + 1 + (u[:, 6] * (k - 1)).long().clamp(max=k - 2)) % k
        found.append(_held(xyxy, renamed, candidates))
    return _joined(found)


def _wrong(held: _Held, planted: _Held) -> tuple[_Floats, npt.NDArray[np.bool_]]:
    """(m,) the probability that each box is wrong, and whether its name is what is doubted."""
    if not len(held.support):
        return np.zeros(0), np.zeros(0, bool)
    x = np.concatenate([held.features, planted.features])
    y = np.concatenate([np.zeros(len(held.support)), np.ones(len(planted.support))])
    weight = np.where(y == 1, SUPPOSED, 1.0)  # of each kind as many are planted as there are boxes
    model = LogisticRegression(C=_FREEDOM, max_iter=1_000).fit(x, y, sample_weight=weight)
    doubts: _Floats = model.predict_proba(held.features)[:, 1]
    return doubts, (held.other > held.support).numpy()


def _free(detection: Detection, row: int) -> Tensor:
    """(f,) confidences of the candidates that overlap no box that a person drew."""
    xyxy, _ = _drawn(detection, row)
    candidates = _candidates(detection, row)
    if not len(xyxy) or not len(candidates.scores):
        return candidates.scores.float()
    return candidates.scores[box_iou(candidates.xyxy.float(), xyxy.float()).amax(dim=1) < _SAME].float()


def _missed(held: _Held, free: list[Tensor]) -> list[Tensor]:
    """Of each image the probabilities that its free candidates are objects which nobody drew."""
    loose = torch.cat([torch.zeros(0), *free])
    if not len(loose) or not len(held.support):
        return [torch.zeros(len(each)) for each in free]
    # As sure as a candidate of an object is that somebody drew: had nobody, it would be free.
    objects = (held.support / held.place.clamp(min=_NEAR)).clamp(max=1)[held.support > 0]
    x = torch.logit(torch.cat([loose, objects]).double().clamp(_LEAST, 1 - _LEAST)).numpy()[:, None]
    y = np.concatenate([np.zeros(len(loose)), np.ones(len(objects))])
    if len(objects) == 0:
        return [torch.zeros(len(each)) for each in free]
    weight = np.where(y == 1, SUPPOSED, 1.0)
    model = LogisticRegression(C=_FREEDOM, max_iter=1_000).fit(x, y, sample_weight=weight)
    p = torch.from_numpy(model.predict_proba(x[: len(loose)])[:, 1]).float()
    return list(torch.split(p, [len(each) for each in free]))


# ---- Images. ----


def _by_row(n: int, rows: list[int], values: list[float]) -> npt.NDArray[np.float32]:
    found = np.full(n, np.nan, np.float32)
    found[rows] = values
    return found


def _worst(n: int, rows: list[int], of_rows: npt.NDArray[np.int64], doubts: _Floats) -> npt.NDArray[np.float32]:
    found = np.full(n, np.nan, np.float32)
    found[rows] = 0.0
    np.maximum.at(found, of_rows, doubts.astype(np.float32))
    return found


def _reasons(scores: dict[int, npt.NDArray[np.float32]], row: int, threshold: float) -> tuple[int, ...]:
    """Those that come halfway to the threshold by themselves, or the strongest, by score."""
    order = sorted(scores, key=lambda number: -float(scores[number][row]))
    return tuple(number for number in order if scores[number][row] >= max(threshold / 2, _LEAST)) or (order[0],)
