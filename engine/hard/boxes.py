"""Hard examples among boxes: which boxes, and which images for what is drawn on them.

In: samples with boxes, of which some are people's (the training set) and others a machine's (in question), and what was
measured. Out: `HardExamples` of the samples, with a label each box in question, in the order of `Sample.boxes`.

A box has the reasons 1-3, 13-18 and 30, from its confidence, its place and what it shows; an image those of its worst
box, and its own: 0, 4-12 and 30. How much a detector changes its mind, 19-29, is told to it. An image is as hard as its
worst box at least, so that what is usual of both is told by people's images: on one in ten of them the image is hard, a
box, or both. (182 images of blood cells, 15 boxes each, a defect on 128: hard are 126 of these, 21 of the others, and
140 boxes, among them all 90 that are a defect by themselves. Were one box of people's in ten hard, 655 boxes would be,
and 46 of the images without a defect.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from torch import Tensor

from engine.hard.combine import levelled, scale_of, usual_means
from engine.hard.config import HardConfig
from engine.hard.examples import HardExamples, HardLabels, Judge, judge_of, judged
from engine.hard.measured import box_features, counted_boxes, image_features
from engine.hard.mining import Evidence, Mined, View, mined
from engine.hard.predict_score import nothing_found
from engine.hard.questions import box_labels, has_automatic_boxes, has_peoples_boxes, is_understood
from engine.hard.reasons import REASONS
from engine.samples import OBJECT_DETECTION, Label, Sample, Shape
from engine.survey import Survey

#: An image whose surest box is less sure than that shows nothing, perhaps (reason 0): as likely wrong as right.
_FLOOR: Final = 0.5
#: What is said of names, and the share of people's images whose worst box stays below the mark from which on it is a
#: reason of the image. Of many boxes one soon has a wrong name, when people drew it, too: what one image in a hundred
#: reaches are their errors. With two such reasons one image in twenty has either.
_OF_NAMES: Final = ("clustering_mining", "image_similarity_mining")
_FAR_NAMES: Final = 0.97
#: What is said of an image by itself, beside what is said of its boxes.
OF_IMAGES: Final = ("sequential_mining", "feature_distribution_mining", "anomaly_detection_mining")


@dataclass(frozen=True, slots=True)
class Boxes:
    """All boxes of n samples, sample after sample.

    rows: (m,) int64, the sample of each. names: of k classes. columns: (m,) int64. asked, told: (m,) bool, drawn by a
    machine on an image in question; by a person. confidences: (m,) float32, NaN where a box came without.
    """

    rows: Tensor
    names: tuple[str, ...]
    columns: Tensor
    asked: Tensor
    told: Tensor
    confidences: Tensor

    def __len__(self) -> int:
        return len(self.rows)


def boxes_of(samples: Sequence[Sample]) -> Boxes:
    """The boxes of samples, in the order of `Sample.boxes`. Those of labels of another type are neither asked nor
    told."""
    drawn = [
        (row, shape.name, _of_interest(label) and label.by_human, shape.confidence, _of_interest(label) and asked)
        for row, sample in enumerate(samples)
        for asked in [has_automatic_boxes(sample)]
        for label in sample.labels
        if label.drawing is not None
        for shape in label.drawing.shapes
        if shape.kind == "bndbox"
    ]
    names = tuple(sorted({name for _, name, *_ in drawn}))
    column = {name: at for at, name in enumerate(names)}
    return Boxes(
        torch.tensor([row for row, *_ in drawn], dtype=torch.int64),
        names,
        torch.tensor([column[name] for _, name, *_ in drawn], dtype=torch.int64),
        torch.tensor([asked and not people for *_, people, _, asked in drawn], dtype=torch.bool),
        torch.tensor([people for *_, people, _, _ in drawn], dtype=torch.bool),
        torch.tensor([np.nan if sure is None else sure for *_, sure, _ in drawn], dtype=torch.float32),
    )


def _of_interest(label: Label) -> bool:
    return label.type == OBJECT_DETECTION


@dataclass(frozen=True, slots=True)
class Sights:
    """What n samples and their m boxes show: vectors (n, d) and (m, e), rows of NaN where there is no image."""

    of_images: Tensor
    of_boxes: Tensor


def hard_boxes(
    samples: Sequence[Sample],
    found: Survey,
    sights: Sights,
    sequences: Sequence[Sequence[int]] = (),
    config: HardConfig | None = None,
    *,
    altered: Mapping[int, Tensor] | None = None,
    seed: int = 0,
) -> HardExamples:
    """Of n samples with their survey. Human-drawn boxes are the training set. sequences: positions in order. altered:
    by reason (m,) in [0, 1], how much a detector changes its mind about each box on an altered image."""
    config = replace(config or HardConfig(), combiner="weights")
    boxes = boxes_of(samples)
    miners = [name for name, weight in config.weights.items() if weight > 0]
    of_boxes, box_scores = _mined_boxes(boxes, found, sights.of_boxes, altered or {}, miners, seed)
    of_images, image_scores = _mined_images(samples, boxes, found, sights.of_images, sequences, miners, seed)
    scores = _together(image_scores, box_scores, boxes, len(samples))
    if "predict_score_mining" in miners:
        scores[0] = _nothing_found(samples, of_images.given[:, 0])
    nobody_around = torch.full((len(samples), 1), torch.nan)
    together = Mined(dict(sorted(scores.items())), {}, nobody_around, nobody_around)
    box_judge, judge = judge_of(of_boxes, box_scores, config), judge_of(of_images, together, config)
    worst = _worst_mean(boxes, box_judge, box_scores, len(samples))
    people = of_images.reference
    of_box, of_image = usual_means(worst[people], _means(judge, together, people)[people])
    box_judge, judge = replace(box_judge, usual=max(box_judge.usual, of_box)), replace(judge, usual=of_image)
    by_box = judged(of_boxes, box_scores, box_judge, seed=seed)
    asked = by_box.labels.rows  # positions among the boxes
    of_names = {number: score for number, score in scores.items() if REASONS[number].miner in _OF_NAMES}
    marks = judge.scale.with_others(scale_of(of_names, of_images.reference, far=_FAR_NAMES))
    least = levelled(worst, box_judge.usual)
    answer = judged(of_images, together, judge, least=least, marks=marks, seed=seed)
    labels = HardLabels(
        boxes.rows[asked].numpy(),
        boxes.columns[asked].numpy(),
        by_box.labels.coefficients,
        by_box.labels.hard,
        by_box.labels.reasons,
    )
    return replace(answer, labels=labels, names=boxes.names)


def _mined_boxes(
    boxes: Boxes, found: Survey, vectors: Tensor, altered: Mapping[int, Tensor], miners: Sequence[str], seed: int
) -> tuple[Evidence, Mined]:
    """Every box as a sample of its own."""
    named = torch.nn.functional.one_hot(boxes.columns, max(1, len(boxes.names))).bool()
    told, given = named & boxes.told[:, None], named & boxes.asked[:, None]
    rest = (1 - boxes.confidences[:, None]) / max(1, named.shape[1] - 1)
    probabilities = torch.where(named, boxes.confidences[:, None], rest)
    readable = torch.from_numpy(found.readable)[boxes.rows]
    measured = {}
    for reason, values in box_features(found).items():
        column = torch.full((len(boxes),), torch.nan)
        column[readable] = values
        measured[reason] = column
    there = ~vectors.isnan().any(dim=1)
    view = View(vectors, (boxes.told & there).nonzero()[:, 0])
    nobody = torch.zeros(len(boxes), dtype=torch.bool)
    evidence = Evidence(probabilities, given, told, nobody, False, (view,), measured, altered)
    return evidence, mined(evidence, miners=[name for name in miners if name != "sequential_mining"], seed=seed)


def _mined_images(
    samples: Sequence[Sample],
    boxes: Boxes,
    found: Survey,
    vectors: Tensor,
    sequences: Sequence[Sequence[int]],
    miners: Sequence[str],
    seed: int,
) -> tuple[Evidence, Mined]:
    """Every image with all that is drawn on it as one answer, by a person or by a machine."""
    n = len(samples)
    asked = torch.tensor([has_automatic_boxes(sample) for sample in samples], dtype=torch.bool)
    told = torch.tensor([has_peoples_boxes(sample) for sample in samples], dtype=torch.bool)
    there = ~vectors.isnan().any(dim=1)
    counts = torch.bincount(boxes.rows, minlength=n)
    uncounted = torch.tensor([not is_understood(sample) for sample in samples], dtype=torch.bool)
    counted = counted_boxes(found, counts.tolist()).items()
    features = image_features(found) | {reason: each.masked_fill(uncounted, torch.nan) for reason, each in counted}
    evidence = Evidence(
        torch.full((n, 1), torch.nan),
        asked[:, None],
        told[:, None],
        torch.zeros(n, dtype=torch.bool),
        False,
        (View(vectors, (told & there).nonzero()[:, 0]),),
        features,
        sequences=sequences,
        said=_composition(boxes, n),
    )
    return evidence, mined(evidence, miners=[name for name in miners if name in OF_IMAGES], seed=seed)


def _composition(boxes: Boxes, n: int) -> Tensor:
    """(n, k + 1): the share of each class among the boxes of an image, the last of images without any."""
    shares = torch.zeros(n, len(boxes.names) + 1)
    shares.index_put_((boxes.rows, boxes.columns), torch.ones(len(boxes)), accumulate=True)
    shares[shares.sum(dim=1) == 0, -1] = 1
    return shares / shares.sum(dim=1, keepdim=True)


def _worst_mean(boxes: Boxes, judge: Judge, found: Mined, n: int) -> Tensor:
    """(n,) in [0, 3]: the largest weighted mean of the boxes of each image, people's too, 0 where there is none."""
    return torch.zeros(n).scatter_reduce(0, boxes.rows, _means(judge, found, boxes.told), "amax")


def _means(judge: Judge, found: Mined, told: Tensor) -> Tensor:
    """(m,) in [0, 3], the weighted means. told: (m,) bool, people's: of these a miner finds nothing strange where it
    says nothing."""
    scores = {number: torch.where(told, each.nan_to_num(0.0), each) for number, each in found.scores.items()}
    return judge.means(scores, len(told))


def _together(image_scores: Mined, box_scores: Mined, boxes: Boxes, n: int) -> dict[int, Tensor]:
    """By reason (n,): of the image, and of its worst box."""
    scores = dict(image_scores.scores)
    for number, score in box_scores.scores.items():
        worst = torch.full((n,), -1.0)
        worst.scatter_reduce_(0, boxes.rows, score.nan_to_num(-1.0), "amax")
        worst = torch.where(worst >= 0, worst, torch.nan)
        scores[number] = torch.fmax(scores[number], worst) if number in scores else worst
    return scores


def _nothing_found(samples: Sequence[Sample], asked: Tensor) -> Tensor:
    """Reason 0. (n,), NaN where nothing is in question, or an object could not be understood, which may be a sure one.
    What came without a confidence is sure; any shape counts."""
    surest = [
        max(
            (_sure(shape) for label in box_labels(sample) if label.drawing for shape in label.drawing.shapes),
            default=0.0,
        )
        for sample in samples
    ]
    known = asked & torch.tensor([is_understood(sample) for sample in samples], dtype=torch.bool)
    return torch.where(known, nothing_found(torch.tensor(surest), floor=_FLOOR), torch.nan)


def _sure(shape: Shape) -> float:
    return 1.0 if shape.confidence is None else shape.confidence
