"""aug_consistent_mining: does the prediction survive an alteration of the image? (reasons 19-29)

In: predictions, altered images, and a function that predicts. Out: for each operator, one number in [0, 1] an image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from engine.hard.divergence import divergence


def inconsistencies(
    before: Tensor, altered: Mapping[str, Tensor], predict: Callable[[Tensor], Tensor], *, multi_label: bool = False
) -> dict[str, Tensor]:
    """Reasons 19-29. before: (B, k), the probabilities of the plain images. altered: by operator (see `operators`),
    images (B, 3, H, W) float in [0, 1]. predict: images -> probabilities (B, k). -> by operator (B,) float32 in [0, 1].

    The divergence of the predictions on the image and on the altered one: 0 when they are the same, 1 when they have
    nothing in common.
    """
    return {name: divergence(before, predict(images), multi_label=multi_label) for name, images in altered.items()}
