"""A classifier from elsewhere: what its graph says, made probabilities of its labels.

In: images (B, 3, H, W) RGB of any size; they are stretched to what the graph takes. Out: (B, k) in [0, 1], or an
`InputError` that says what the graph gave instead. Knows nothing of files, or of what runs the graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from engine.errors import InputError
from engine.models.foreign.asking import SLACK, asked, check_unit, output
from engine.models.foreign.forms import ForeignClassifierForm
from engine.models.foreign.graphs import Graph
from engine.predictions import Predictions

#: The label that a graph names is the likeliest, whatever its score (of one against the rest, it may be below 1 / k):
#: its probability is at least this many times that of chance.
_LEAD: Final = 1.001


@dataclass(frozen=True, slots=True)
class ForeignClassifier:
    """A classifier from elsewhere: a `Predictor`, asked as our own `Classifier` is. It has no networks of ours."""

    form: ForeignClassifierForm
    graph: Graph

    @property
    def labels(self) -> tuple[str, ...]:
        return self.form.labels

    @property
    def multi_label(self) -> bool:
        return self.form.multi_label

    @property
    def image_size(self) -> int:
        return max(self.form.input.width, self.form.input.height)

    @property
    def committee(self) -> None:
        return None

    def probabilities(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 of any size, stretched to what the graph takes -> (B, k) float32."""
        given = self.form.input
        x = images.float()
        if x.shape[2:] != (given.height, given.width):
            x = F.interpolate(x, (given.height, given.width), mode="bilinear", antialias=True, align_corners=False)
        x = x.div(255).clamp(0, 1)
        parts = [self._probabilities(said, count) for said, count in asked(self.graph, self.form, x)]
        return torch.cat([torch.zeros(0, len(self.labels)), *parts])

    def predict(self, images: Tensor) -> Predictions:
        """(B, 3, H, W) float RGB in [0, 1], of any size -> probabilities (B, k). Raises InputError."""
        if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
            raise InputError(f"images: must be (B, 3, H, W) float, got {tuple(images.shape)} {images.dtype}")
        return Predictions(self.labels, probabilities=self.probabilities((images.clamp(0, 1) * 255).round().byte()))

    def _probabilities(self, said: Mapping[str, npt.NDArray[Any]], count: int) -> Tensor:
        k, names, place = len(self.labels), self.form.outputs, self.graph.place
        scores = output(self.graph, said, names.scores)
        if names.predicted_label is not None:
            best = output(self.graph, said, names.predicted_label).reshape(-1)[:count].long()
            sure = scores.reshape(-1)[:count]
            if len(best) < count or len(sure) < count or int(best.min()) < 0 or int(best.max()) >= k:
                raise InputError(f"{place}: {names.predicted_label} must be numbers of {k} labels, one an image")
            check_unit(place, names.scores, sure)
            sure = sure.clamp(min=_LEAD / k, max=1)
            rest = (1 - sure) / max(1, k - 1)
            return rest[:, None].expand(-1, k).scatter(1, best[:, None], sure[:, None]).float()
        if scores.ndim < 2 or scores.shape[0] < count or scores[0].numel() != k:
            raise InputError(f"{place}: {names.scores} must be (B, {k}), a number a label, got {tuple(scores.shape)}")
        scores = scores.reshape(len(scores), k)[:count]
        if self.form.activation == "softmax":
            return scores.softmax(dim=1).float()
        if self.form.activation == "sigmoid":
            scores = scores.sigmoid()
        check_unit(place, names.scores, scores)
        if not self.multi_label:
            sums = scores.sum(dim=1, keepdim=True)
            if self.form.activation == "none" and bool(((sums - 1).abs() > SLACK).any()):
                got = float(sums[(sums - 1).abs().argmax()])
                raise InputError(
                    f"{place}: {names.scores} must sum to 1 for each image, got {got:.4g}; does model.json lack an "
                    "activation?"
                )
            scores = scores / sums.clamp(min=1e-12)
        return scores.clamp(0, 1).float()
