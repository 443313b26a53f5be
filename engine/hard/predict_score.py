"""predict_score_mining: what the model itself doubts (reasons 0 and 1). Probabilities in, doubts in [0, 1] out."""

from __future__ import annotations

import torch
from torch import Tensor


def low_confidence(probabilities: Tensor, given: Tensor) -> Tensor:
    """Reason 1. probabilities: (n, k) calibrated. given: (n, k) bool, the labels in question. -> (n,) in [0, 1].

    The probability that the most doubtful answer is wrong: 1 - p for a label that is given, and where several labels
    may be given also p for one that is not. A sample of one label: 1 - p(label). NaN where nothing is predicted.

    >>> low_confidence(torch.tensor([[0.75, 0.25], [0.5, 0.5]]), torch.tensor([[True, False], [True, False]]))
    tensor([0.2500, 0.5000])
    """
    return torch.where(given, 1 - probabilities, probabilities).amax(dim=1).clamp(0, 1)


def nothing_found(surest: Tensor, *, floor: float) -> Tensor:
    """Reason 0. surest: (n,) in [0, 1], the score of the surest box found on each image, 0 where there is none. -> (n,)
    in [0, 1].

    1 where no box was found at all, else how far the surest one lies below `floor`, as a share of it.

    >>> nothing_found(torch.tensor([0.0, 0.1, 0.9]), floor=0.4)
    tensor([1.0000, 0.7500, 0.0000])
    """
    return (1 - surest / floor).clamp(0, 1)
