"""Small models as other programs write them, made in code: what they say can be worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

#: The color that is strongest names the image: logits are 10 x the mean of each channel.
COLORS = ("red", "green", "blue")
SIDE = 16


def described(folder: Path, **fields: Any) -> Path:
    """Write model.json into a folder; gives the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    given = {"format": "labelengine-foreign-model", "version": 1, **fields}
    (folder / "model.json").write_text(json.dumps(given))
    return folder


def onnx_colors(folder: Path, **changes: Any) -> Path:
    """A classifier of COLORS as an ONNX graph with the output `logits`, which takes any number of images."""
    weights = numpy_helper.from_array((10 * np.eye(3)).astype(np.float32), "weights")
    nodes = [
        helper.make_node("GlobalAveragePool", ["images"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
    ]
    floats = TensorProto.FLOAT
    taken = helper.make_tensor_value_info("images", floats, ["n", 3, SIDE, SIDE])
    given = helper.make_tensor_value_info("logits", floats, ["n", 3])
    graph = helper.make_graph(nodes, "colors", [taken], [given], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(folder / "model.onnx"))
    fields: dict[str, Any] = {
        "type": "image_classification",
        "file": "model.onnx",
        "labels": list(COLORS),
        "input": {"width": SIDE, "height": SIDE},
        "outputs": {"scores": "logits"},
        "activation": "softmax",
    }
    return described(folder, **{**fields, **changes})


class Bright(nn.Module):
    """The one bright rectangle of each image, as the documented answer gives boxes: y_min, x_min, y_max, x_max."""

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        light = images.mean(dim=1) > 0.7
        columns, rows = light.any(dim=1), light.any(dim=2)
        x, y = torch.arange(images.shape[3]), torch.arange(images.shape[2])
        edges = [
            torch.where(rows, y, 10_000).amin(dim=1),
            torch.where(columns, x, 10_000).amin(dim=1),
            torch.where(rows, y + 1, 0).amax(dim=1),
            torch.where(columns, x + 1, 0).amax(dim=1),
        ]
        boxes = torch.stack(edges, dim=1).float()[:, None]
        there = light.flatten(1).any(dim=1).float()[:, None]
        # Beside the real box one of nothing, as graphs with a fixed number of boxes fill them up.
        boxes = torch.cat([boxes, torch.zeros_like(boxes)], dim=1)
        scores = torch.cat([0.9 * there, torch.zeros_like(there)], dim=1)
        return {"boxes": boxes, "scores": scores, "classes": torch.ones_like(scores)}


def exported(folder: Path, model: nn.Module, *, batch: int | None, height: int = 40, width: int = 60) -> None:
    """Write a module as model.pt2, for so many images at once (None: any number)."""
    folder.mkdir(parents=True, exist_ok=True)
    example = (torch.rand(batch or 2, 3, height, width),)
    shapes = None if batch else ({0: torch.export.Dim("n", max=512)},)
    torch.export.save(torch.export.export(model.eval(), example, dynamic_shapes=shapes), str(folder / "model.pt2"))


def bright_detector(folder: Path, *, batch: int | None = None, **changes: Any) -> Path:
    """A detector of one bright rectangle as a torch.export program of 60 x 40 pixels; it calls it `lamp`."""
    exported(folder, Bright(), batch=batch)
    fields: dict[str, Any] = {
        "type": "object_detection",
        "file": "model.pt2",
        "labels": ["lamp"],
        "input": {"width": 60, "height": 40},
        "outputs": {"detection_boxes": "boxes", "detection_scores": "scores", "detection_classes": "classes"},
        "first_class": 1,
        "batch": batch,
    }
    return described(folder, **{**fields, **changes})
