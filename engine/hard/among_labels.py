"""Wrong labels among those that people gave, of images or of boxes.

In: samples that people labeled. Out: a `Search`. Models are trained here, out of fold: each label is held against what
networks say that have not seen it. Knows nothing of labels that a machine gave, or of training sets from elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from engine.dataset import Dataset
from engine.detect.detecting import auto_detect
from engine.detect.fast import FOLDS as BOX_FOLDS
from engine.hard.asking import LOOKING, READING, Search, Setting
from engine.hard.box_errors import box_label_errors
from engine.hard.config import HardConfig
from engine.hard.labeled import evidence_of
from engine.hard.planted import label_errors
from engine.hard.reasons import OPERATOR_WEIGHTS
from engine.label.fast import FOLDS
from engine.label.results import Labeling
from engine.samples import Sample
from engine.sources import Sources


def among_labels(
    samples: Dataset | Sequence[Sample], setting: Setting, config: HardConfig, training: Callable[..., Labeling]
) -> Search:
    """Every label is judged by the network that has not seen it."""
    labeling = training(
        samples,
        "fast",
        networks=FOLDS,
        encoder=setting.encoder,
        looks=FOLDS + len(config.altering),
        **setting.training,
    )
    assert labeling.survey.thumbnails is not None
    advance = setting.stage(LOOKING, len(labeling.survey.thumbnails))
    evidence = evidence_of(
        list(samples),
        labeling,
        labeling.survey.thumbnails,
        operators=config.altering,
        encoder=setting.encoder,
        progress=advance,
        stopped=setting.stopped,
    )
    answer = label_errors(replace(evidence, given=evidence.told), config, seed=setting.seed)
    answer = replace(answer, names=labeling.labels, choices={**answer.choices, "training": dict(labeling.choices)})
    vectors = evidence.views[0].vectors if evidence.views else torch.full((len(samples), 1), torch.nan)
    rows = np.unique(answer.labels.rows)
    nobody = Dataset((), Sources(Path()))
    failures = labeling.survey.failures
    several = labeling.targets.multi_label
    return Search(
        answer, rows, False, several, nobody, labeling.survey, vectors, evidence.told, failures, labeling.notes
    )


def among_peoples_boxes(
    samples: Dataset | Sequence[Sample],
    setting: Setting,
    config: HardConfig,
    minutes: float | None,
    steps: Sequence[int],
    min_per_class: int,
    note: Callable[[str], None],
) -> Search:
    """Every box is held against what a detector says that has not seen it."""
    detection = auto_detect(
        samples,
        "fast",
        minutes=minutes,
        steps=steps,
        min_per_class=min_per_class,
        networks=BOX_FOLDS,
        rest=False,
        note=note,
        **setting.training,
    )
    if config.algo_config is not None or config.operators != OPERATOR_WEIGHTS:
        note("boxes of people are held against what a detector says: weights of miners and of alterations do not count")
    answer = box_label_errors(detection, seed=setting.seed, threshold=config.threshold)
    answer = replace(answer, choices={**answer.choices, "training": dict(detection.choices)})
    found = setting.surveyed(samples, setting.encoder.size, READING)
    rows = np.flatnonzero(detection.judges >= 0)
    nothing = torch.full((len(samples), 1), torch.nan)
    told = torch.from_numpy(detection.sketches.labeled)[:, None]
    nobody = Dataset((), Sources(Path()))
    return Search(answer, rows, True, False, nobody, found, nothing, told, detection.failures, detection.notes)
