"""aug_consistent_mining: does the prediction survive an alteration of the image? (reasons 19-29)

In: images, and a function that predicts. Out: for each operator, one number in [0, 1] an image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torch import Tensor

from engine.hard.divergence import divergence
from engine.hard.operators import OPERATORS


def inconsistencies(
    images: Tensor, predict: Callable[[Tensor], Tensor], operators: Iterable[str], *, multi_label: bool = False
) -> dict[str, Tensor]:
    """Reasons 19-29. images: (B, 3, H, W) float in [0, 1]. predict: images -> probabilities (B, k). operators: names
    of OPERATORS. -> for each operator (B,) float32 in [0, 1].

    The divergence of the predictions on the image and on the altered one: 0 when they are the same, 1 when they have
    nothing in common.
    """
    before = predict(images)
    return {
        name: divergence(before, predict(OPERATORS[name](images)), multi_label=multi_label).cpu() for name in operators
    }
