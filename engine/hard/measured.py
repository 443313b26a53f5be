"""What a survey has measured, by the reason that it may give: 5-10 of images, 11-18 of boxes and what has them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from engine.features import BOX_FEATURES, IMAGE_FEATURES
from engine.survey import BOX_COLUMNS, Survey


def image_features(found: Survey) -> dict[int, Tensor]:
    """Reasons 5-10. By reason (n,) float32, NaN where there is no readable image."""
    return {
        feature.reason: torch.from_numpy(found.column(name).copy())
        for name, feature in IMAGE_FEATURES.items()
        if feature.reason is not None
    }


def counted_boxes(found: Survey, counts: Sequence[int]) -> dict[int, Tensor]:
    """Reasons 11 and 12. counts: boxes of each sample. By reason (n,) float32, NaN where there is no readable image."""
    unread = torch.from_numpy(~found.readable)
    numbers = {11: torch.tensor(counts, dtype=torch.float32), 12: torch.from_numpy(found.box_area_std.copy())}
    return {reason: values.masked_fill(unread, torch.nan) for reason, values in numbers.items()}


def box_features(found: Survey) -> dict[int, Tensor]:
    """Reasons 13-18. By reason (m,) float32 of all boxes, sample after sample; of samples without a readable image
    there are none."""
    rows = np.concatenate([*found.boxes, np.zeros((0, len(BOX_COLUMNS)), np.float32)])
    reasons = [BOX_FEATURES[f"box_{name}"].reason for name in BOX_COLUMNS]
    columns = torch.from_numpy(rows).unbind(1)
    return {reason: column for reason, column in zip(reasons, columns, strict=True) if reason is not None}
