"""How hard examples are asked for, whatever is in question: what was said of samples, how their images are read and
looked at, and what was found.

In: surveys of images, and a `Setting`. Out: how they look, one vector an image; and `Search`, what every way of looking
gives back. Knows nothing of which labels are in question, or of how they are judged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engine.dataset import Dataset
from engine.embeddings import Encoder, content_vectors
from engine.errors import Failure, Stopped
from engine.hard.examples import HardExamples, HardLabels
from engine.label.classifier import resized
from engine.label.plan import Stage
from engine.samples import Sample
from engine.sources import Sources
from engine.survey import Survey, survey

#: Images a batch where contents are looked at.
BATCH: Final = 256

#: No network has seen the label: all have judged it together.
NOBODY: Final = -2

#: Stages, in their order.
READING: Final = "reading images"
READING_TRAINING: Final = "reading training images"
LOOKING: Final = "finding hard examples"


@dataclass(frozen=True, slots=True)
class Said:
    """What a model has said of samples. sources: n, as the data set names them. labels: k names. values: (n, k) float
    in [0, 1], rows of NaN for nothing. judges: (n,) int64, the number of the network of the model that has not seen the
    label of a sample and has judged it; NOBODY where none has seen it, as where a person confirmed or corrected it
    later; -1 where all have. None: nobody knows, and nothing is learned from rows of labeled samples."""

    sources: Sequence[str]
    labels: Sequence[str]
    values: npt.NDArray[np.float32]
    judges: npt.NDArray[np.int64] | None = None

    @property
    def multi_label(self) -> bool:
        """Whether a sample may have several labels: then rows need not sum to 1."""
        sums = self.values[~np.isnan(self.values).any(axis=1)].sum(axis=1)
        return bool((np.abs(sums - 1) > 1e-3).any())


@dataclass(frozen=True, slots=True)
class Search:
    """What was found among n samples, and what it rests on.

    found: of the n samples. rows: (r,) int64, those in question. of_boxes: whether their labels are boxes. multi_label:
    whether one may have several. train: the t training samples from elsewhere. survey: of the samples. vectors: (n + t,
    d), how the samples and the t training ones from elsewhere look; rows of NaN where there is nothing to see. told: (n
    + t, k) bool, what people said, columns found.names. failures: of training images, too. notes: what a person should
    know, a line each.
    """

    found: HardExamples
    rows: npt.NDArray[np.int64]
    of_boxes: bool
    multi_label: bool
    train: Dataset
    survey: Survey
    vectors: Tensor
    told: Tensor
    failures: tuple[Failure, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Setting:
    """How images are read and looked at."""

    encoder: Encoder
    seed: int
    threads: int | None
    device: torch.device
    max_pixels: int
    folder: Path
    stage: Stage
    stopped: Callable[[], bool]

    def surveyed(self, samples: Dataset | Sequence[Sample], side: int, name: str) -> Survey:
        """One pass over the images of the samples, with thumbnails; name: of its stage."""
        return survey(
            samples,
            sources_of(samples),
            folder=self.folder,
            thumbnail_side=side,
            threads=self.threads,
            max_pixels=self.max_pixels,
            progress=self.stage(name, sum(sample.is_image for sample in samples)),
            stopped=self.stopped,
        )

    @property
    def training(self) -> dict[str, Any]:
        """What `auto_label` and `auto_detect` are told of it, where people may have labeled every image."""
        return {
            "least_unlabeled": 0,
            "seed": self.seed,
            "threads": self.threads,
            "device": self.device,
            "max_pixels": self.max_pixels,
            "folder": self.folder,
            "stage": self.stage,
            "stopped": self.stopped,
        }


def sources_of(samples: Dataset | Sequence[Sample]) -> Sources:
    """Where the images of samples lie; what is no `Dataset` names files from here."""
    return samples.sources if isinstance(samples, Dataset) else Sources(Path())


def contents(
    surveys: Sequence[Survey],
    encoder: Encoder,
    device: torch.device,
    *,
    progress: Callable[[int], None] = lambda done: None,
    stopped: Callable[[], bool] = lambda: False,
) -> Tensor:
    """(n + t, d): how the images of n samples and t others look, by what their pixels show; rows of NaN where there is
    none. Raises Stopped once `stopped()` says so."""
    thumbnails = [each.thumbnails for each in surveys if each.thumbnails is not None and len(each.thumbnails)]
    total = sum(len(each.sizes) for each in surveys)
    if not thumbnails:
        return torch.full((total, 1), torch.nan)

    def batches() -> Iterator[Tensor]:
        for batch in chain.from_iterable(each.batches(BATCH) for each in thumbnails):
            if stopped():
                raise Stopped("stopped while looking at contents")
            yield resized(batch, encoder.size)

    found = content_vectors(batches, encoder=encoder, device=device, progress=progress)
    result = torch.full((total, found.shape[1]), torch.nan)
    result[torch.from_numpy(np.concatenate([each.readable for each in surveys]))] = found
    return result


def first_of(found: HardExamples, n: int) -> HardExamples:
    """What was found of the first n samples; training samples from elsewhere come after them, and have no labels in
    question."""
    labels = found.labels
    mine = labels.rows < n
    kept = HardLabels(
        labels.rows[mine],
        labels.columns[mine],
        labels.coefficients[mine],
        labels.hard[mine],
        tuple(reasons for reasons, is_mine in zip(labels.reasons, mine.tolist(), strict=True) if is_mine),
    )
    return replace(
        found,
        coefficients=found.coefficients[:n],
        hard=found.hard[:n],
        reasons=found.reasons[:n],
        labels=kept,
        scores={reason: score[:n] for reason, score in found.scores.items()},
        shares={reason: share[:n] for reason, share in found.shares.items()},
    )
