"""What torchvision computes of boxes, brought in when it is first asked for.

Importing torchvision takes longer than everything else that a task imports, and only boxes need it.
"""

from __future__ import annotations

from torch import Tensor


def box_iou(one: Tensor, other: Tensor) -> Tensor:
    """Boxes xyxy (m, 4) and (n, 4) -> their overlaps (m, n): the shared area as a share of the area of both."""
    from torchvision import ops

    found: Tensor = ops.box_iou(one, other)
    return found


def batched_nms(xyxy: Tensor, scores: Tensor, classes: Tensor, iou: float) -> Tensor:
    """Which of m boxes stay, (r,) int64, the surest first: those that overlap no surer one of their class by more."""
    from torchvision import ops

    kept: Tensor = ops.batched_nms(xyxy, scores, classes, iou)
    return kept


def roi_align(maps: Tensor, boxes: list[Tensor], side: int, *, spatial_scale: float, sampling_ratio: int) -> Tensor:
    """Maps (B, c, H, W), and of each image its boxes, xyxy -> what each shows, (m, c, side, side), image after image.

    spatial_scale: cells of the map for one unit of the boxes. sampling_ratio: points that a cell of the result is the
    mean of, a side.
    """
    from torchvision import ops

    inside: Tensor = ops.roi_align(maps, boxes, side, spatial_scale=spatial_scale, sampling_ratio=sampling_ratio)
    return inside
