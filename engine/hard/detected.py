"""Hard examples after auto labeling of boxes: which boxes are likely wrong, on which images something is.

In: samples, their `Detection`, and how its networks see the boxes. Out: `HardExamples` of the samples, with a label
each automatic box, in the order of `Sample.boxes`.

What scores mean is learned from boxes that networks drew on labeled images whose boxes they had not seen: each is
right, or wrong, where it overlaps no true box of its class by half. A box has one column for its class and one more
that says "nothing is here". An image is wrong when any of its boxes is (false, shifted or misnamed), or an object has
none. How many errors are to be expected on it, of its boxes and of the likely boxes that were not given, are the odds
of its own doubt: where nearly every image has an error, the order is by how many.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from engine.detect.judging import matched
from engine.detect.overlaps import box_iou
from engine.detect.results import NOBODY, Detection
from engine.hard.box_look import BoxSights, Looked, box_sights
from engine.hard.boxes import OF_IMAGES
from engine.hard.config import HardConfig
from engine.hard.examples import HardExamples, HardLabels, judge_of, judged
from engine.hard.measured import box_features, counted_boxes, image_features
from engine.hard.mining import Evidence, Mined, View, mined
from engine.hard.predict_score import nothing_found
from engine.hard.reasons import REASONS
from engine.hard.sequential import sequences_in
from engine.images import MAX_PIXELS
from engine.label.plan import Stage
from engine.samples import OBJECT_DETECTION, Drawing, Label, Sample, Shape
from engine.sources import Sources
from engine.survey import Survey, survey

LOOKING: Final = "finding hard examples"
MEASURING: Final = "measuring boxes"

#: A candidate that overlaps a given box so much is another word for it, not an object that was missed.
_SAME: Final = 0.5


@dataclass(frozen=True, slots=True)
class _Rows:
    """All boxes that are looked at, image after image. rows: (m,) the sample of each. xyxy: (m, 4) pixels. classes:
    (m,). scores: (m,), NaN for people's. asked: (m,) bool, automatic ones, in question. tested: (m,) bool, drawn by
    a network on a labeled image that it has not seen. right: (m,) bool, of tested ones. The others are people's."""

    rows: Tensor
    xyxy: Tensor
    classes: Tensor
    scores: Tensor
    asked: Tensor
    tested: Tensor
    right: Tensor

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def peoples(self) -> Tensor:
        """(m,) bool, drawn by a person."""
        return ~self.asked & ~self.tested

    @property
    def measured(self) -> Tensor:
        """(m,) bool, what counts where boxes are measured and counted: what networks drew, and where they were tested
        on no labeled image, what people drew, which then says what is usual."""
        return self.asked | self.tested if bool(self.tested.any()) else torch.ones_like(self.asked)


def hard_detections(
    samples: Sequence[Sample],
    detection: Detection,
    config: HardConfig | None = None,
    *,
    sources: Sources,
    folder: Path,
    threads: int,
    max_pixels: int = MAX_PIXELS,
    seed: int = 0,
    stage: Stage = lambda name, total: lambda done: None,
    stopped: Callable[[], bool] = lambda: False,
) -> tuple[HardExamples, Tensor]:
    """samples: as `annotated` made them. folder: keeps what was measured. -> hard examples, and how the images look,
    (n, d), rows of NaN where there is none. Raises Stopped once `stopped()` says so."""
    config = config or HardConfig()
    assert detection.detector is not None, "a model from elsewhere shows nothing of how it sees images"
    boxes = _boxes_of(detection)
    drawn = _as_drawn(samples, detection, boxes)
    found = survey(
        drawn,
        sources,
        folder=folder,
        threads=threads,
        max_pixels=max_pixels,
        progress=stage(MEASURING, sum(sample.is_image for sample in drawn)),
        stopped=stopped,
    )
    images = np.flatnonzero(_seen(detection))
    looked = [_looked(row, samples, sources, boxes, detection) for row in images.tolist()]
    sights = box_sights(
        looked,
        detection.detector,
        config.altering,
        threads=threads,
        max_pixels=max_pixels,
        progress=stage(LOOKING, len(looked)),
        stopped=stopped,
    )
    of_images = torch.full((len(samples), sights.of_images.shape[1]), torch.nan)
    of_images[images] = sights.of_images
    unseen = torch.full((len(samples),), torch.nan)
    unseen[images] = sights.unseen
    evidence = _evidence_of_boxes(boxes, detection, sights, found)
    miners = [name for name, weight in config.weights.items() if weight > 0]
    scores = mined(evidence, miners=[name for name in miners if name != "sequential_mining"], seed=seed)
    by_box = judged(evidence, scores, judge_of(evidence, scores, config), seed=seed)
    answer = _of_images(samples, detection, boxes, by_box, scores, found, of_images, unseen, config, seed)
    asked = boxes.asked.nonzero()[:, 0]
    mine = np.isin(by_box.labels.rows, asked.numpy())
    labels = HardLabels(
        boxes.rows[by_box.labels.rows[mine]].numpy(),
        boxes.classes[by_box.labels.rows[mine]].numpy(),
        by_box.labels.coefficients[mine],
        by_box.labels.hard[mine],
        tuple(reasons for reasons, is_mine in zip(by_box.labels.reasons, mine.tolist(), strict=True) if is_mine),
    )
    return replace(
        answer, labels=labels, names=detection.labels, choices={**answer.choices, "boxes": dict(by_box.choices)}
    ), of_images


def _seen(detection: Detection) -> npt.NDArray[np.bool_]:
    """(n,) True for images that are looked at: those on which boxes were found, and those on which people drew, from
    which every network learned what objects look like."""
    found = np.array([candidates is not None for candidates in detection.candidates], bool)
    return np.asarray(found | detection.sketches.labeled, bool)


def _boxes_of(detection: Detection) -> _Rows:
    rows: list[Tensor] = []
    xyxy: list[Tensor] = []
    classes: list[Tensor] = []
    scores: list[Tensor] = []
    kinds: list[Tensor] = []
    right: list[Tensor] = []
    for row, candidates in enumerate(detection.candidates):
        labeled = bool(detection.sketches.labeled[row])
        if candidates is not None and not (labeled and detection.judges[row] == -1):
            given = detection.given(row)
            drawn = candidates.xyxy[given].float(), candidates.classes[given], candidates.scores[given].float()
            good = torch.zeros(len(drawn[0]), dtype=torch.bool)
            if labeled:
                truth, of = _truth(detection, row)
                good = matched(drawn[0], drawn[1], truth, of).right
            _extend(rows, row, xyxy, drawn[0], classes, drawn[1], scores, drawn[2])
            kinds.append(torch.full((len(drawn[0]),), 1 if labeled else 0))
            right.append(good)
        if labeled:
            truth, of = _truth(detection, row)
            _extend(rows, row, xyxy, truth, classes, of, scores, torch.full((len(truth),), torch.nan))
            kinds.append(torch.full((len(truth),), 2))
            right.append(torch.ones(len(truth), dtype=torch.bool))
    nothing = torch.zeros(0, dtype=torch.int64)
    kind = torch.cat([*kinds, nothing])
    return _Rows(
        torch.cat([*rows, nothing]),
        torch.cat([*xyxy, torch.zeros(0, 4)]),
        torch.cat([*classes, nothing]),
        torch.cat([*scores, torch.zeros(0)]),
        kind == 0,
        kind == 1,
        torch.cat([*right, torch.zeros(0, dtype=torch.bool)]),
    )


def _truth(detection: Detection, row: int) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(detection.sketches.boxes[row]), torch.from_numpy(detection.sketches.classes[row])


def _extend(
    rows: list[Tensor],
    row: int,
    xyxy: list[Tensor],
    more: Tensor,
    classes: list[Tensor],
    of: Tensor,
    scores: list[Tensor],
    sure: Tensor,
) -> None:
    rows.append(torch.full((len(more),), row))
    xyxy.append(more)
    classes.append(of)
    scores.append(sure)


def _as_drawn(samples: Sequence[Sample], detection: Detection, boxes: _Rows) -> list[Sample]:
    """The samples with the boxes of which something is measured, and no others."""
    mine = boxes.measured
    by_row: dict[int, list[Shape]] = {}
    for row, (x1, y1, x2, y2), of in zip(
        boxes.rows[mine].tolist(), boxes.xyxy[mine].tolist(), boxes.classes[mine].tolist(), strict=True
    ):
        by_row.setdefault(row, []).append(Shape(detection.labels[of], "bndbox", ((x1, y1), (x2, y2))))
    return [
        replace(sample, labels=(Label(OBJECT_DETECTION, drawing=Drawing(tuple(by_row.get(row, ())))),))
        for row, sample in enumerate(samples)
    ]


def _looked(row: int, samples: Sequence[Sample], sources: Sources, boxes: _Rows, detection: Detection) -> Looked:
    first, last = torch.searchsorted(boxes.rows, torch.tensor([row, row + 1])).tolist()
    part = slice(first, last)
    return Looked(
        sources.path(samples[row].source),
        boxes.xyxy[part],
        boxes.classes[part],
        boxes.scores[part],
        int(detection.judges[row]),
    )


# ---- Boxes. ----


def _evidence_of_boxes(boxes: _Rows, detection: Detection, sights: BoxSights, found: Survey) -> Evidence:
    """Every box as a sample of its own, of k classes and nothing."""
    m, k = len(boxes), len(detection.labels)
    at = torch.from_numpy(np.isin(boxes.rows.numpy(), np.flatnonzero(_seen(detection))))
    named = F.one_hot(boxes.classes, k + 1).bool()
    nothing = F.one_hot(torch.full((m,), k), k + 1).bool()
    given = named & (boxes.asked | boxes.tested)[:, None]
    told = torch.where(boxes.right[:, None], named, nothing) & ~boxes.asked[:, None]
    probabilities = torch.full((m, k + 1), torch.nan)
    known = ~boxes.scores.isnan()
    probabilities[known] = 0.0
    probabilities[known] += named[known] * boxes.scores[known, None] + nothing[known] * (1 - boxes.scores[known, None])
    judges = torch.from_numpy(detection.judges)[boxes.rows]
    views = []
    peoples = boxes.peoples
    nobody, half = judges == NOBODY, torch.zeros_like(boxes.rows)
    half[nobody] = torch.unique(boxes.rows[nobody], return_inverse=True)[1] % 2
    halves = (0, 1) if bool(nobody.any()) else (0,)
    for number, part in product(range(len(sights.of_boxes)), halves):
        vectors = torch.full((m, sights.of_boxes.shape[2]), torch.nan)
        vectors[at] = sights.of_boxes[number]
        # A box on a labeled image is seen by the network that judges it, and its image's true boxes are not. Where no
        # network has seen these, half of the images are judged by what is on the others.
        judged_here = (judges == number) | (nobody & (half == part))
        vectors[boxes.tested & ~judged_here] = torch.nan
        vectors[peoples & judged_here] = torch.nan
        views.append(View(vectors, (peoples & ~vectors.isnan().any(dim=1)).nonzero()[:, 0]))
    altered = {}
    for reason, values in sights.altered.items():
        column = torch.full((m,), torch.nan)
        column[at] = values
        column[peoples] = torch.nan
        altered[reason] = column
    readable = torch.from_numpy(found.readable)[boxes.rows]
    measured = {}
    for reason, values in box_features(found).items():
        column = torch.full((m,), torch.nan)
        column[boxes.measured & readable] = values
        measured[reason] = column
    return Evidence(probabilities, given, told, boxes.tested, False, tuple(views), measured, altered, chosen=nobody)


# ---- Images. ----


def _of_images(
    samples: Sequence[Sample],
    detection: Detection,
    boxes: _Rows,
    by_box: HardExamples,
    box_scores: Mined,
    found: Survey,
    vectors: Tensor,
    unseen: Tensor,
    config: HardConfig,
    seed: int,
) -> HardExamples:
    """Every image with all that is drawn on it as one answer: right (column 0), or not (column 1)."""
    n = len(samples)
    there = torch.tensor([candidates is not None for candidates in detection.candidates])
    labeled = torch.from_numpy(detection.sketches.labeled & (detection.judges != -1))
    wrong = torch.tensor([_is_wrong(detection, row) if labeled[row] and there[row] else False for row in range(n)])
    given = torch.stack([there, torch.zeros(n, dtype=torch.bool)], dim=1)
    by_people = torch.from_numpy(detection.sketches.labeled)
    usual = labeled if bool(labeled.any()) else by_people  # where nothing was judged, what people labeled
    told = torch.stack([usual & ~wrong, labeled & wrong], dim=1) & there[:, None]
    missed = torch.tensor([_missed(detection, row) if there[row] else torch.nan for row in range(n)])
    doubts = torch.from_numpy(by_box.coefficients).double()
    drawn = boxes.measured
    expected = missed.nan_to_num(0.0).double()
    expected.index_add_(0, boxes.rows[drawn], doubts[drawn])
    doubt = (expected / (1 + expected)).float()
    counts = torch.bincount(boxes.rows[drawn], minlength=n)
    evidence = Evidence(
        torch.stack([1 - doubt, doubt], dim=1),
        given,
        told,
        labeled & there,
        False,
        (View(vectors, (usual & there & ~vectors.isnan().any(dim=1)).nonzero()[:, 0]),),
        image_features(found) | counted_boxes(found, counts.tolist()),
        sequences=sequences_in(samples),
        said=_composition(boxes, drawn, n, len(detection.labels)),
        chosen=torch.from_numpy(detection.judges == NOBODY),
    )
    miners = [name for name, weight in config.weights.items() if weight > 0]
    own = mined(evidence, miners=[name for name in miners if name in (*OF_IMAGES, "predict_score_mining")], seed=seed)
    scores = _with_worst_box(own.scores, box_scores, boxes, drawn, n)
    if "predict_score_mining" in miners:
        surest = torch.zeros(n).scatter_reduce_(0, boxes.rows[drawn], boxes.scores[drawn].nan_to_num(1.0), "amax")
        empty = nothing_found(surest, floor=0.5)
        one_missed = 1 - torch.exp(-missed)
        scores[0] = torch.where(there, torch.fmax(torch.fmax(empty, one_missed), unseen.nan_to_num(0.0)), torch.nan)
    together = Mined(dict(sorted(scores.items())), {}, *[torch.full((n, 2), torch.nan)] * 2)
    return judged(evidence, together, judge_of(evidence, together, config), seed=seed)


def _is_wrong(detection: Detection, row: int) -> bool:
    """Whether what was drawn on a labeled image differs from what people drew: a false box, or a missed object."""
    candidates = detection.candidates[row]
    assert candidates is not None
    given = detection.given(row)
    truth, of = _truth(detection, row)
    match = matched(candidates.xyxy[given].float(), candidates.classes[given], truth, of)
    return bool((~match.right).any() or match.missed.any())


def _missed(detection: Detection, row: int) -> float:
    """How many objects are expected to have no box: the candidates that were not given, each by its confidence; those
    that are other words for a given box left out."""
    candidates = detection.candidates[row]
    assert candidates is not None
    given = detection.given(row)
    rest = ~given
    if bool(given.any()) and bool(rest.any()):
        rest &= box_iou(candidates.xyxy.float(), candidates.xyxy[given].float()).amax(dim=1) < _SAME
    return float(candidates.scores[rest].double().sum())


def _composition(boxes: _Rows, drawn: Tensor, n: int, k: int) -> Tensor:
    """(n, k + 1): the share of each class among the boxes of an image, the last of images without any."""
    shares = torch.zeros(n, k + 1)
    ones = torch.ones(int(drawn.sum()))
    shares.index_put_((boxes.rows[drawn], boxes.classes[drawn]), ones, accumulate=True)
    shares[shares.sum(dim=1) == 0, -1] = 1
    return shares / shares.sum(dim=1, keepdim=True)


def _with_worst_box(
    of_images: dict[int, Tensor], of_boxes: Mined, boxes: _Rows, drawn: Tensor, n: int
) -> dict[int, Tensor]:
    """By reason (n,): of the image, and of its worst box; of confidence, the image's own counts, for it knows all."""
    scores = dict(of_images)
    for number, score in of_boxes.scores.items():
        if REASONS[number].miner == "predict_score_mining":
            continue
        worst = torch.full((n,), -1.0)
        worst.scatter_reduce_(0, boxes.rows[drawn], score[drawn].float().nan_to_num(-1.0), "amax")
        worst = torch.where(worst >= 0, worst, torch.nan)
        scores[number] = torch.fmax(scores[number].float(), worst) if number in scores else worst
    return scores
