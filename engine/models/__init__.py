"""A trained model on disk: a folder that holds everything, and how it is loaded, listed, and known by name.

documents.py    what the model.json of our own models says, read and checked
tensors.py      tensors as safetensors, to the bit
info.py         what a model is, without its tensors
kept.py         our own models: save, load; nothing from a folder is run
foreign/        models from elsewhere: ONNX, torch.export
doors.py        any model: what it is, load it, list folders
shelf.py        models by id, name and version: import, find, remove
"""

from engine.models.documents import MODEL_NAME, WEIGHTS_NAME
from engine.models.doors import (
    DETECTOR_TYPE,
    AnyModel,
    files_of,
    list_models,
    load_any,
    read_model_info,
)
from engine.models.foreign.classifier import ForeignClassifier
from engine.models.foreign.detector import ForeignDetector
from engine.models.info import ModelInfo, Models
from engine.models.kept import load_detector, load_model, model_digest, save_model
from engine.models.shelf import Shelf, Shelved, called

__all__ = [
    "DETECTOR_TYPE",
    "MODEL_NAME",
    "WEIGHTS_NAME",
    "AnyModel",
    "ForeignClassifier",
    "ForeignDetector",
    "ModelInfo",
    "Models",
    "Shelf",
    "Shelved",
    "called",
    "files_of",
    "list_models",
    "load_any",
    "load_detector",
    "load_model",
    "model_digest",
    "read_model_info",
    "save_model",
]
