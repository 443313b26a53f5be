"""Hard examples among automatic boxes, whoever drew them.

In: samples, and the training samples from elsewhere with a detector to ask, if there is one; or the `Detection` that
drew the boxes. Out: a `Search`, with a label each box in question, in the order of `Sample.boxes`. Knows nothing of
labels of images, or of how detectors are trained.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engine.dataset import Dataset
from engine.detect.results import Detection
from engine.embeddings import content_vectors
from engine.errors import Failure, InputError
from engine.hard.asking import LOOKING, READING, READING_TRAINING, Search, Setting, contents, first_of, sources_of
from engine.hard.box_look import Detecting, Looked, box_changes
from engine.hard.boxes import Sights, boxes_of, hard_boxes
from engine.hard.config import HardConfig
from engine.hard.crops import crops
from engine.hard.detected import hard_detections
from engine.hard.questions import box_labels, has_automatic_boxes, has_peoples_boxes
from engine.hard.sequential import sequences_in
from engine.samples import Sample
from engine.sources import Sources
from engine.survey import BOX_COLUMNS, Survey, boxes_on, drawing_scale
from engine.threads import processors

#: How far apart two boxes are, one a deviation larger than the other, where what is inside has a length of about 1.
#: (Boxes of blood cells with another name, of all boxes: area under the ROC curve 0.894 by the clusters around and
#: 0.873 by likeness without sizes; 0.990 and 0.992 with 0.2, 0.996 and 0.997 with 0.45.)
_OF_SIZE: Final = 0.4
#: Sizes that differ less are the same.
_LEAST_DEVIATION: Final = 0.1


def among_boxes(
    samples: Dataset | Sequence[Sample],
    train: Dataset,
    detector: Detecting | None,
    setting: Setting,
    config: HardConfig,
) -> Search:
    """Every automatic box is held against what people drew, and against what the detector draws on altered images. An
    image of another shape than the file of its boxes states is a failure, and these boxes count for nothing."""
    side = setting.encoder.size
    found = setting.surveyed(samples, side, READING)
    of_train = setting.surveyed(train, side, READING_TRAINING)
    everything, together, misfits = _fitting([*samples, *train], _joined(found, of_train))
    rows_asked = np.flatnonzero([has_automatic_boxes(sample) for sample in everything[: len(samples)]])
    if misfits and not len(rows_asked):
        raise InputError(
            f"hard examples are looked for among automatic boxes, got none that fit their images: {misfits[0].reason}"
        )
    pixels = [boxes_on(sample, *size) for sample, size in zip(everything, together.sizes.tolist(), strict=True)]
    altering = len(samples) if detector is not None and config.altering else 0
    advance = setting.stage(LOOKING, 2 * len(everything) + altering)
    of_images = contents([found, of_train], setting.encoder, setting.device, progress=advance, stopped=setting.stopped)
    paths, boxes, rows = [], [], []
    for row, sample in enumerate(everything):
        if len(pixels[row]) and together.readable[row]:
            origin = sources_of(samples) if row < len(samples) else train.sources
            paths.append(origin.path(sample.source))
            boxes.append(pixels[row])
        rows += [bool(together.readable[row])] * len(pixels[row])
    of_boxes = torch.full((len(rows), 1), torch.nan)
    if paths:
        threads = setting.threads or processors()
        inside = partial(
            crops, paths, boxes, side=side, threads=threads, max_pixels=setting.max_pixels, stopped=setting.stopped
        )
        share = len(everything) / max(1, sum(map(len, boxes)))
        vectors = content_vectors(
            inside,
            encoder=setting.encoder,
            device=setting.device,
            progress=lambda done: advance(len(everything) + int(share * done)),
        )
        vectors = with_sizes(vectors, np.concatenate(boxes))
        of_boxes = torch.full((len(rows), vectors.shape[1]), torch.nan)
        of_boxes[torch.tensor(rows)] = vectors
    advance(2 * len(everything))
    altered = {}
    if detector is not None and config.altering:
        altered = _box_changes(
            everything,
            pixels,
            np.flatnonzero(found.readable).tolist(),
            sources_of(samples),
            detector,
            setting,
            config,
            lambda done: advance(2 * len(everything) + done),
        )
    order = sequences_in(samples)
    sights = Sights(of_images, of_boxes)
    answer = hard_boxes(everything, together, sights, order, config, altered=altered, seed=setting.seed)
    told = torch.tensor([[has_peoples_boxes(sample)] for sample in everything])
    notes = []
    if config.altering and detector is None:
        notes.append("aug_consistent_mining did not run: it asks the detector that predicted, and there is none")
    if not bool(told.any()):
        notes.append("there is no training set: nothing tells what boxes of a label look like")
    failures = (*found.failures, *of_train.failures, *misfits)
    return Search(
        first_of(answer, len(samples)), rows_asked, True, False, train, found, of_images, told, failures, tuple(notes)
    )


def _fitting(samples: Sequence[Sample], found: Survey) -> tuple[list[Sample], Survey, list[Failure]]:
    """The samples and their survey without boxes that do not fit their image, and a failure for each such sample."""
    fitting, measured, failures = list(samples), list(found.boxes), []
    for row, (sample, (width, height)) in enumerate(zip(samples, found.sizes.tolist(), strict=True)):
        drawings = [label.drawing for label in box_labels(sample) if label.drawing is not None]
        sizes = [each.size for each in drawings if each.size and drawing_scale(each, width, height) is None]
        if sizes:
            stated = f"{sizes[0][0]}x{sizes[0][1]}"
            reason = f"its file states {stated} pixels, the image has {width}x{height}: not looked at"
            failures.append(Failure(sample.source, "annotation", reason))
            fitting[row] = replace(sample, labels=tuple(replace(each, drawing=None) for each in sample.labels))
            measured[row] = np.zeros((0, len(BOX_COLUMNS)), np.float32)
    return fitting, replace(found, boxes=tuple(measured)), failures


def with_sizes(vectors: Tensor, boxes: npt.NDArray[np.float32]) -> Tensor:
    """(m, d) what is inside of boxes, and (m, 4) xyxy pixels -> (m, d + 2): and how wide and how high they are, which
    squares of one size have lost. By logarithms, over their deviation among all boxes."""
    sizes = torch.from_numpy(np.log((boxes[:, 2:] - boxes[:, :2]).clip(min=1)))
    sizes = (sizes - sizes.mean(dim=0)) / sizes.std(dim=0, unbiased=False).clamp(min=_LEAST_DEVIATION)
    return torch.cat([vectors, _OF_SIZE * sizes], dim=1)


def _box_changes(
    everything: Sequence[Sample],
    pixels: Sequence[npt.NDArray[np.float32]],
    rows: Sequence[int],
    sources: Sources,
    detector: Detecting,
    setting: Setting,
    config: HardConfig,
    advance: Callable[[int], None],
) -> dict[int, Tensor]:
    """By reason (m,) how much each of all boxes changes on altered images; NaN for those that are not in question.
    pixels: of each sample where its boxes are. rows: of the samples that can be read."""
    every = boxes_of(everything)
    first, last = (
        torch.searchsorted(every.rows, torch.tensor(rows, dtype=torch.int64), right=right).tolist()
        for right in (False, True)
    )
    places, looked = [torch.zeros(0, dtype=torch.int64)], []
    for row, start, end in zip(rows, first, last, strict=True):
        mine = every.asked[start:end].nonzero()[:, 0]
        if len(mine):
            at = mine + start
            xyxy = torch.from_numpy(pixels[row])[mine]
            path = sources.path(everything[row].source)
            looked.append(Looked(path, xyxy, every.columns[at], every.confidences[at], -1))
            places.append(at)
    found = box_changes(
        looked,
        detector,
        config.altering,
        names=every.names,
        threads=setting.threads or processors(),
        max_pixels=setting.max_pixels,
        progress=advance,
        stopped=setting.stopped,
    )
    changes = {reason: torch.full((len(every),), torch.nan) for reason in found}
    for reason, change in found.items():
        changes[reason][torch.cat(places)] = change
    return changes


def _joined(first: Survey, second: Survey) -> Survey:
    """Two surveys as one, without their thumbnails."""
    return replace(
        first,
        features=np.concatenate([first.features, second.features]),
        sizes=np.concatenate([first.sizes, second.sizes]),
        boxes=(*first.boxes, *second.boxes),
        box_area_std=np.concatenate([first.box_area_std, second.box_area_std]),
        thumbnails=None,
        failures=(*first.failures, *second.failures),
    )


def among_detections(
    samples: Dataset | Sequence[Sample], detection: Detection, setting: Setting, config: HardConfig
) -> Search:
    """Every automatic box is judged by the networks that drew it, which are asked again."""
    found = setting.surveyed(samples, setting.encoder.size, READING)
    answer, vectors = hard_detections(
        samples,
        detection,
        config,
        sources=sources_of(samples),
        folder=setting.folder,
        threads=setting.threads or processors(),
        max_pixels=setting.max_pixels,
        seed=setting.seed,
        stage=setting.stage,
        stopped=setting.stopped,
    )
    rows = np.flatnonzero(detection.automatic)
    if not len(rows):
        raise InputError("hard examples are looked for among automatic boxes, got none that a person has not confirmed")
    told = torch.from_numpy(detection.sketches.labeled)[:, None]
    nobody = Dataset((), Sources(Path()))
    return Search(answer, rows, True, False, nobody, found, vectors, told, found.failures, ())
