"""The evidence after auto labeling: how the networks see all images, and whether altered ones change their minds.

In: samples, their `Labeling`, and thumbnails of its images. Out: an `Evidence`. A labeled sample is judged by the
network that has not seen its label; others by all networks.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from engine.errors import Stopped
from engine.hard.consistency import inconsistencies
from engine.hard.mining import Evidence, View
from engine.hard.operators import OPERATORS as ALTERATIONS
from engine.hard.reasons import OPERATORS
from engine.hard.sequential import sequences_of
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
    progress: Callable[[int], None] = lambda done: None,
    stopped: Callable[[], bool] = lambda: False,
) -> Evidence:
    """operators: names of alterations to try. progress: called with the number of images done. Raises Stopped once
    `stopped()` says so."""
    predicted = torch.from_numpy(labeling.predicted)
    told = torch.from_numpy(labeling.targets.matrix)
    judges = torch.from_numpy(labeling.judges)
    committee = labeling.classifier.committee
    views: tuple[View, ...] = ()
    altered: dict[int, Tensor] = {}
    if committee is not None:
        vectors, changes = _looked_at(committee, labeling, thumbnails, operators, progress, stopped)
        labeled = told.any(dim=1)
        views = tuple(
            View(vectors[number], (labeled & (judges != number)).nonzero()[:, 0]) for number in range(len(vectors))
        )
        altered = {OPERATORS[name]: _fairly(change, judges) for name, change in changes.items()}
    return Evidence(
        torch.from_numpy(labeling.probabilities),
        predicted,
        told,
        torch.from_numpy(labeling.predictable) & told.any(dim=1),
        labeling.targets.multi_label,
        views,
        torch.from_numpy(labeling.survey.features),
        altered,
        sequences_of([sample.source for sample in samples]),
    )


def _looked_at(
    committee: Committee,
    labeling: Labeling,
    thumbnails: Thumbnails,
    operators: Collection[str],
    progress: Callable[[int], None],
    stopped: Callable[[], bool],
) -> tuple[Tensor, dict[str, Tensor]]:
    """Vectors (v, n, d) of each of v networks, and by operator (v, n) how much its prediction changes; zeros and NaN
    where there is no image."""
    n, count, dim = len(labeling), len(committee.networks), committee.spec.dim
    vectors = torch.zeros(count, n, dim)
    changes = {name: torch.full((count, n), torch.nan) for name in operators}
    multi_label = labeling.targets.multi_label
    device = next(committee.networks[0].parameters()).device
    for start in range(0, len(thumbnails), _BATCH):
        if stopped():
            raise Stopped(f"stopped after {start:,} of {len(thumbnails):,} images")
        places = np.arange(start, min(start + _BATCH, len(thumbnails)))
        rows = torch.from_numpy(thumbnails.index[places])
        images = resized(thumbnails.rows(places).to(device), committee.spec.image_size).float().div_(255)
        variants = {name: ALTERATIONS[name](images) for name in operators}
        for number, network in enumerate(committee.networks):
            features = _features(network, committee, images)
            vectors[number, rows] = F.normalize(features, dim=1).cpu()
            before = _said(network, committee, features, multi_label)
            predict = partial(_predicted, network, committee, multi_label)
            found = inconsistencies(before, variants, predict, multi_label=multi_label)
            for name, change in found.items():
                changes[name][number, rows] = change.cpu()
        progress(int(places[-1]) + 1)
    return vectors, changes


def _predicted(network: Network, committee: Committee, multi_label: bool, images: Tensor) -> Tensor:
    """(B, 3, S, S) float in [0, 1] -> probabilities (B, k) float32."""
    return _said(network, committee, _features(network, committee, images), multi_label)


def _features(network: Network, committee: Committee, images: Tensor) -> Tensor:
    """(B, 3, S, S) float in [0, 1] -> (B, d) float32."""
    network.eval()
    with torch.no_grad(), torch.autocast(images.device.type, torch.bfloat16, enabled=committee.bfloat16):
        return network.features(images.contiguous(memory_format=torch.channels_last))


def _said(network: Network, committee: Committee, features: Tensor, multi_label: bool) -> Tensor:
    with torch.no_grad():
        return probabilities_of(network.head(features), committee.temperature, multi_label)


def _fairly(changes: Tensor, judges: Tensor) -> Tensor:
    """(v, n) -> (n,): of a labeled sample what its judge says, of others the mean."""
    own = changes.gather(0, judges.clamp(min=0)[None])[0]
    return torch.where(judges >= 0, own, changes.mean(dim=0))
