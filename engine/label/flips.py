"""Which mirror images keep their label: a cat is a cat from both sides, a digit is not. Asked of the labeled images."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from engine.embeddings import Encoder
from engine.label.classifier import resized
from engine.label.heads import fit_ridge
from engine.label.pool import Pool

#: A mirrored image counts as one of its class when the head, which has not seen it, gives it at least this share of the
#: lead over the other classes that it gives the image itself.
_FLIP_FROM: Final = 0.75


def allowed_flips(pool: Pool, encoder: Encoder, fold: Tensor) -> tuple[tuple[bool, bool], dict[str, float]]:
    """Which mirror images keep the label, (horizontal, vertical), and what was measured: shares of the lead kept.

    For each fold a head is fitted without it, and asked about its images as they are and mirrored. The lead is the
    score of the true labels less the mean of the others.
    """
    rows = pool.labeled
    truth = pool.told[rows]

    def vectors(axis: int | None) -> Tensor:
        return pool.mapped(
            lambda images: encoder.encode(resized(images if axis is None else images.flip(axis), encoder.size)), rows
        )

    upright, mirrored, turned = vectors(None), vectors(3), vectors(2)
    leads = torch.zeros(3, dtype=torch.float64)
    for number in range(int(fold.max()) + 1):
        held = fold == number
        if bool(held.all()) or not bool(held.any()):
            continue
        ridge = fit_ridge(upright[~held], truth[~held], balanced=not pool.multi_label)
        for at, views in enumerate((upright, mirrored, turned)):
            leads[at] += _lead(ridge.scores(views[held]), truth[held])
    kept = {
        name: round(float(lead / leads[0]), 3) if leads[0] > 0 else 0.0
        for name, lead in zip(("horizontal", "vertical"), leads[1:], strict=True)
    }
    return (kept["horizontal"] >= _FLIP_FROM, kept["vertical"] >= _FLIP_FROM), kept


def _lead(scores: Tensor, truth: Tensor) -> float:
    """The sum over the rows of: mean score of the true labels less the mean of the others."""
    right = (scores * truth).sum(dim=1) / truth.sum(dim=1)
    wrong = (scores * (1 - truth)).sum(dim=1) / (1 - truth).sum(dim=1).clamp(min=1)
    return float((right - wrong).double().sum())
