"""The evidence after auto labeling: how the networks see all images, and whether altered ones change their minds.

In: samples, their `Labeling`, and thumbnails of its images. Out: an `Evidence`. A labeled sample is judged by the
network that has not seen its label; others by all networks.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from engine.embeddings import Encoder, Gradients
from engine.errors import Stopped
from engine.hard.asking import contents
from engine.hard.consistency import inconsistencies
from engine.hard.measured import image_features
from engine.hard.mining import Evidence, View
from engine.hard.operators import OPERATORS as ALTERATIONS
from engine.hard.reasons import OPERATORS
from engine.hard.sequential import sequences_in
from engine.label.calibration import temperature_of
from engine.label.classifier import Committee, probabilities_of, resized
from engine.label.networks import Network
from engine.label.results import Labeling
from engine.samples import Sample
from engine.survey import Thumbnails

#: Images that are altered and asked about at once.
_BATCH: Final = 256


def evidence_of(
    samples: Sequence[Sample],
    labeling: Labeling,
    thumbnails: Thumbnails,
    *,
    operators: Collection[str],
    encoder: Encoder | None = None,
    progress: Callable[[int], None] = lambda done: None,
    stopped: Callable[[], bool] = lambda: False,
) -> Evidence:
    """operators: names of alterations to try. encoder: what sees the contents of images beside the networks; histograms
    of gradients by default. progress: called with the number of images done. Raises Stopped once `stopped()` says
    so."""
    predicted = torch.from_numpy(labeling.predicted)
    told = torch.from_numpy(labeling.targets.matrix)
    judges = torch.from_numpy(labeling.judges)
    committee = labeling.classifier.committee
    views: tuple[View, ...] = ()
    altered: dict[int, Tensor] = {}
    shown: Tensor | None = None
    if committee is not None:
        look = Look(committee, labeling.targets.multi_label, tuple(operators))
        seen = look.at(thumbnails, judges, progress=progress, stopped=stopped)
        altered, views = seen.altered, views_of(seen, told, judges, labeling.targets.multi_label)
        shown = contents([labeling.survey], encoder or Gradients(), committee.device, stopped=stopped)
    return Evidence(
        torch.from_numpy(labeling.probabilities),
        predicted,
        told,
        torch.from_numpy(labeling.predictable) & told.any(dim=1),
        labeling.targets.multi_label,
        views,
        image_features(labeling.survey),
        altered,
        sequences_in(samples),
        contents=shown,
    )


@dataclass(frozen=True, slots=True)
class Seen:
    """How v networks see n images, rows of NaN where there is none. vectors: (v, n, d) of length 1. beliefs: (v, n, k),
    what each says by itself, at the temperature of the whole classifier, for which one alone is too sure. altered: by
    reason (n,), how much a prediction changes."""

    vectors: Tensor
    beliefs: Tensor
    altered: dict[int, Tensor]


def views_of(seen: Seen, told: Tensor, judges: Tensor, multi_label: bool) -> tuple[View, ...]:
    """told: (n, k) bool, what people said. judges: (n,) int64, the network that has not seen the label of each; less
    than 0: what it looks like is known to all, for all have learned it, or a person has said it since."""
    labeled = told.any(dim=1)
    logits = seen.beliefs.logit(1e-6) if multi_label else seen.beliefs.clamp(min=1e-9).log()
    unseen = torch.stack([labeled & (judges == number) for number in range(len(logits))])
    unseen &= ~seen.beliefs.isnan().any(dim=2)
    temperature = 1.0
    if bool(unseen.any()):
        temperature = temperature_of(logits[unseen], told.expand(logits.shape)[unseen], multi_label=multi_label)
    return tuple(
        View(
            seen.vectors[number],
            (labeled & (judges != number)).nonzero()[:, 0],
            probabilities_of(logits[number], temperature, multi_label),
        )
        for number in range(len(logits))
    )


@dataclass(frozen=True, slots=True)
class Look:
    """How the networks of a committee see images, and what these operators change."""

    committee: Committee
    multi_label: bool
    operators: tuple[str, ...]

    def at(
        self,
        thumbnails: Thumbnails,
        judges: Tensor,
        *,
        progress: Callable[[int], None] = lambda done: None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> Seen:
        """judges: (n,) int64, the network that is asked about altered images of each sample; -1: any, the first one,
        for asking all costs several times as much and tells hardly more.
        """
        n, networks = len(judges), self.committee.networks
        vectors = torch.full((len(networks), n, self.committee.spec.dim), torch.nan)
        beliefs = torch.full((len(networks), n, self.committee.spec.outputs), torch.nan)
        changes = {OPERATORS[name]: torch.full((n,), torch.nan) for name in self.operators}
        device = self.committee.device
        for start in range(0, len(thumbnails), _BATCH):
            if stopped():
                raise Stopped(f"stopped after {start:,} of {len(thumbnails):,} images")
            places = np.arange(start, min(start + _BATCH, len(thumbnails)))
            rows = torch.from_numpy(thumbnails.index[places])
            images = resized(thumbnails.rows(places).to(device), self.committee.spec.image_size).float().div_(255)
            for number, network in enumerate(networks):
                features = self._features(network, images)
                said = self._said(network, features)
                vectors[number, rows], beliefs[number, rows] = F.normalize(features, dim=1).cpu(), said.cpu()
                mine = judges[rows].clamp(min=0) == number
                if self.operators and bool(mine.any()):
                    on = mine.to(device)
                    variants = {name: ALTERATIONS[name](images[on]) for name in self.operators}
                    predict = partial(self._predicted, network)
                    found = inconsistencies(said[on], variants, predict, multi_label=self.multi_label)
                    for name, change in found.items():
                        changes[OPERATORS[name]][rows[mine]] = change.cpu()
            progress(int(places[-1]) + 1)
        return Seen(vectors, beliefs, changes)

    def _predicted(self, network: Network, images: Tensor) -> Tensor:
        """(B, 3, S, S) float in [0, 1] -> probabilities (B, k) float32."""
        return self._said(network, self._features(network, images))

    def _features(self, network: Network, images: Tensor) -> Tensor:
        """(B, 3, S, S) float in [0, 1] -> (B, d) float32."""
        network.eval()
        bfloat16 = self.committee.bfloat16
        with torch.no_grad(), torch.autocast(images.device.type, torch.bfloat16, enabled=bfloat16):
            return network.features(images.contiguous(memory_format=torch.channels_last))

    def _said(self, network: Network, features: Tensor) -> Tensor:
        with torch.no_grad():
            return probabilities_of(network.head(features), self.committee.temperature, self.multi_label)
