"""feature_distribution_mining: a measured feature lies far out in the distribution of the training set (reasons 5-18).

Numbers in, one number in [0, 1] a sample out. Knows nothing of what was measured.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import t as student
from torch import Tensor

_Numbers = npt.NDArray[np.floating]

#: Quantiles on each side that tell how far the training set spreads there, and what they are of a normal distribution.
_TAILS: Final = (0.1, 0.9)
_NORMAL_TAIL: Final = 1.2816
#: The least spread, of values and of logarithms: what nobody would notice is no offset, however uniform the rest.
_LEAST_SPREAD: Final = 0.02
_LEAST_LOG_SPREAD: Final = 0.05
_LOG_FLOOR: Final = 0.01
#: Tails are as heavy as those of a t distribution with so many degrees of freedom, or fewer for few samples.
_FREEDOM: Final = 8
#: What single precision tells from 0.
_LEAST_TAIL: Final = 4e-8


def offset(values: _Numbers, reference: _Numbers, *, log: bool = False) -> npt.NDArray[np.float32]:
    """Reasons 5-18. values: (n,) >= 0. reference: (r,), of the training set. log: compare logarithms, of values plus
    one in a hundred of the reference's median. -> (n,) float32 in [0, 1].

    How much of a distribution like the training set's lies nearer to its middle: 0 in the middle, 0.9 at its 5th and
    95th percentiles, 1 far out. Middle: the median; spread: of each side by itself, from the 10th and 90th percentiles,
    so that neither a skew nor a few outliers in a small training set misleads. NaN where the value is, 0 without a
    reference.
    """
    reference = reference[np.isfinite(reference)]
    if not len(reference):
        return np.where(np.isnan(values), np.nan, 0).astype(np.float32)
    if log:
        least = max(_LOG_FLOOR * float(np.median(reference)), 1e-12)
        values, reference = (np.log(np.maximum(each, 0) + least) for each in (values, reference))
    low, middle, high = np.quantile(reference, (_TAILS[0], 0.5, _TAILS[1]))
    least = _LEAST_LOG_SPREAD if log else _LEAST_SPREAD
    below, above = max((middle - low) / _NORMAL_TAIL, least), max((high - middle) / _NORMAL_TAIL, least)
    away = np.where(values < middle, (middle - values) / below, (values - middle) / above)
    freedom = max(1, min(_FREEDOM, len(reference) - 1))
    return np.asarray(1 - 2 * student.sf(away, freedom), np.float32)


def deviations(score: Tensor) -> Tensor:
    """A score of `offset` -> by how many deviations the value lies off the middle, 0 to 20 (single precision tells no
    more apart); where fewer than 9 samples were the reference, fewer than it does. NaN stays."""
    tail = (1 - score.double()).clamp(min=_LEAST_TAIL) / 2
    return torch.as_tensor(student.isf(tail.numpy(), _FREEDOM), dtype=torch.float32)
