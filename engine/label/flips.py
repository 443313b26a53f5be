"""Which mirror images keep their label: a cat is a cat from both sides, a digit is not.

Asked of the labeled images, as far as they can tell; else what is usual of photographs holds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import torch
from torch import Tensor

from engine.embeddings import Encoder
from engine.label.classifier import resized
from engine.label.heads import fit_ridge
from engine.label.pool import Pool

#: A mirrored image counts as one of its class when the head, which has not seen it, gives it at least this share of the
#: lead over the other classes that it gives the image itself.
FLIP_FROM: Final = 0.75

#: What changes keep of photographs, mostly: left and right may be exchanged, above and below not (supposed, not
#: measured). It counts like so many images with a full lead; labels that are few, or hard to tell apart, say less than
#: that. (cifar10, 40 labels, six draws: all leads together come to 0.6 to 3.5 images, and three draws would have let
#: images stand on their heads; labels spread over the graph of what networks then learn are right on 43.1 % of the
#: images, and on 48.5 without, the mean of eight draws. 50 labels of digits or hand signs come to 11 to 34, and none
#: lets a mirror in.)
USUALLY_KEPT: Final[Mapping[str, float]] = {"horizontal": 1.0, "vertical": 0.2, "transposed": 0.2}
_USUAL_IMAGES: Final = 5.0
#: Labeled images that are asked, at most, drawn evenly: more would fill the memory, and tell no more.
_MOST_ASKED: Final = 10_000


def allowed_flips(pool: Pool, encoder: Encoder, fold: Tensor) -> tuple[tuple[bool, bool], dict[str, float]]:
    """Which mirror images keep the label, (horizontal, vertical), and what was found: shares of the lead kept."""
    changes = {"horizontal": lambda images: images.flip(3), "vertical": lambda images: images.flip(2)}
    kept = leads_kept(pool, encoder, fold, changes)
    return (kept["horizontal"] >= FLIP_FROM, kept["vertical"] >= FLIP_FROM), kept


def leads_kept(
    pool: Pool,
    encoder: Encoder,
    fold: Tensor,
    changes: Mapping[str, Callable[[Tensor], Tensor]],
    *,
    counted: Tensor | None = None,
) -> dict[str, float]:
    """How much of their lead over other classes changed images keep, by change, beside what is USUALLY_KEPT.

    For each fold a head is fitted without it, and asked about its images as they are and changed. The lead is the score
    of the true labels less the mean of the others. counted: (n,) bool, of the labeled images those whose leads count;
    None: all.
    """
    some = _evenly(len(pool.labeled))
    rows, fold = pool.labeled[some], fold[some]
    counts = torch.ones_like(some, dtype=torch.bool) if counted is None else counted[some]
    truth = pool.told[rows]

    def vectors(change: Callable[[Tensor], Tensor]) -> Tensor:
        return pool.mapped(lambda images: encoder.encode(resized(change(images), encoder.size)), rows)

    views = [vectors(lambda images: images), *map(vectors, changes.values())]
    leads = torch.zeros(len(views), dtype=torch.float64)
    for number in range(int(fold.max()) + 1):
        held = fold == number
        if bool(held.all()) or not bool(held.any()):
            continue
        ridge = fit_ridge(views[0][~held], truth[~held], balanced=not pool.multi_label)
        for at, each in enumerate(views):
            leads[at] += _lead(ridge.scores(each[held & counts]), truth[held & counts])
    whole, n = max(0.0, float(leads[0])), _USUAL_IMAGES
    return {
        name: round((max(-whole, min(whole, float(lead))) + n * USUALLY_KEPT[name]) / (whole + n), 3)
        for name, lead in zip(changes, leads[1:], strict=True)
    }


def _evenly(n: int) -> Tensor:
    """Numbers below n, all of them or _MOST_ASKED."""
    return torch.linspace(0, n - 1, min(n, _MOST_ASKED), dtype=torch.float64).round().long()


def _lead(scores: Tensor, truth: Tensor) -> float:
    """The sum over the rows of: mean score of the true labels less the mean of the others."""
    right = (scores * truth).sum(dim=1) / truth.sum(dim=1)
    wrong = (scores * (1 - truth)).sum(dim=1) / (1 - truth).sum(dim=1).clamp(min=1)
    return float((right - wrong).double().sum())
