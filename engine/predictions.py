"""What rooms hand to one another about images: `Predictions`, and the `Predictor` that makes them.

Auto labeling makes predictions, hard examples consume them and re-run the predictor on altered images,
pre-labeling and the service run imported predictors. Images are float tensors (B, 3, H, W), RGB, in [0, 1];
boxes are (xmin, ymin, xmax, ymax) in pixels of the image that was given.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Boxes:
    """The boxes predicted on one image: xyxy (m, 4) float pixels, scores (m,) in [0, 1], classes (m,) int64."""

    xyxy: Tensor
    scores: Tensor
    classes: Tensor

    def __post_init__(self) -> None:
        m = self.xyxy.shape[0]
        if self.xyxy.shape != (m, 4) or self.scores.shape != (m,) or self.classes.shape != (m,):
            raise ValueError(
                f"boxes must be (m, 4), scores (m,), classes (m,), got {tuple(self.xyxy.shape)}, "
                f"{tuple(self.scores.shape)}, {tuple(self.classes.shape)}"
            )


@dataclass(frozen=True, slots=True)
class Predictions:
    """What a model says about n images, parallel to them.

    labels: the k class names. probabilities: (n, k) in [0, 1], rows sum to 1 unless the set is multi-label;
    None for a detector. boxes: one `Boxes` an image; None for a classifier. embeddings: (n, d) when there
    are. out_of_fold: True when no image was predicted by a model that had seen its label.
    """

    labels: tuple[str, ...]
    probabilities: Tensor | None = None
    boxes: tuple[Boxes, ...] | None = None
    embeddings: Tensor | None = None
    out_of_fold: bool = False

    def __post_init__(self) -> None:
        if (self.probabilities is None) == (self.boxes is None):
            raise ValueError("predictions hold either class probabilities or boxes, got both or neither")
        if self.probabilities is not None and (
            self.probabilities.ndim != 2 or self.probabilities.shape[1] != len(self.labels)
        ):
            raise ValueError(f"probabilities must be (n, {len(self.labels)}), got {tuple(self.probabilities.shape)}")
        if self.embeddings is not None and self.embeddings.shape[0] != len(self):
            raise ValueError(f"embeddings must have {len(self)} rows, got {self.embeddings.shape[0]}")

    def __len__(self) -> int:
        if self.probabilities is not None:
            return int(self.probabilities.shape[0])
        assert self.boxes is not None
        return len(self.boxes)


class Predictor(Protocol):
    """A model that can be asked: images (B, 3, H, W) float RGB in [0, 1] in, one prediction an image out.

    The predictor resizes to its own input size; boxes come back in pixels of the images given.
    """

    @property
    def labels(self) -> tuple[str, ...]: ...

    def predict(self, images: Tensor) -> Predictions: ...
