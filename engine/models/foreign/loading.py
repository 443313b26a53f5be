"""The door to models from elsewhere: a folder in, a model on a device out that has been asked once.

Knows nothing of where folders are kept, or of what the model is for.
"""

from __future__ import annotations

from pathlib import Path

import torch

from engine.models.foreign.classifier import ForeignClassifier
from engine.models.foreign.detector import ForeignDetector
from engine.models.foreign.forms import ONNX, ForeignClassifierForm, read_foreign_form
from engine.models.foreign.graphs import exported_graph, onnx_graph


def load_foreign(folder: Path, *, device: torch.device | None = None) -> ForeignClassifier | ForeignDetector:
    """The model, asked once about grey images. Raises InputError when it is not what its model.json says,
    MissingExtraError for an ONNX graph without onnxruntime."""
    form = read_foreign_form(folder)
    path = folder / form.file
    graph = onnx_graph(path, form, device) if path.suffix == ONNX else exported_graph(path, device)
    asked = 1 if form.batch else 2  # a graph of one image at a time must say so
    if isinstance(form, ForeignClassifierForm):
        classifier = ForeignClassifier(form, graph)
        classifier.probabilities(torch.full((asked, 3, form.input.height, form.input.width), 128, dtype=torch.uint8))
        return classifier
    detector = ForeignDetector(form, graph)
    detector.predict(torch.full((asked, 3, form.input.height, form.input.width), 0.5))
    return detector
