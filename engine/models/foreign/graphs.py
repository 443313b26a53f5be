"""The graph of a model from elsewhere on a device: an ONNX graph, or a torch.export program.

In: its file. Out: a `Graph`, which takes a batch of images as an array and gives arrays by name; of a program without
names by place, "0", "1". Knows nothing of what the numbers mean.

An ONNX graph is data. A .pt2 file is read by torch.export, which may run what a file tells it to: load only those
that you trust.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engine.errors import InputError, MissingExtraError
from engine.models.documents import clipped
from engine.models.foreign.forms import ForeignForm


class Graph(Protocol):
    """A graph on a device. place: its file."""

    @property
    def place(self) -> Path: ...

    def run(self, batch: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]: ...


@dataclass(frozen=True, slots=True)
class _OnnxGraph:
    place: Path
    session: Any
    input: str
    outputs: tuple[str, ...]

    def run(self, batch: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
        try:
            found = self.session.run(None, {self.input: batch})
        except Exception as error:  # onnxruntime has a dozen of them, none of them public
            raise _refused(self.place, batch, error) from None
        return {name: np.asarray(value) for name, value in zip(self.outputs, found, strict=True)}


def onnx_graph(path: Path, form: ForeignForm, device: torch.device | None) -> Graph:
    """form: says which of its inputs is the image. Raises InputError, MissingExtraError without onnxruntime."""
    try:
        import onnxruntime
    except ImportError:
        install = "pip install '.[onnx]' in the folder of labelengine"
        raise MissingExtraError(f"{path}: needs onnxruntime: {install}") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors only: it writes to stderr by itself
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # threads that wait leave the cores alone
    there = onnxruntime.get_available_providers()
    wanted = ["CUDAExecutionProvider"] if device is not None and device.type == "cuda" else []
    providers = [*(name for name in wanted if name in there), "CPUExecutionProvider"]
    try:
        session = onnxruntime.InferenceSession(os.fspath(path), options, providers=providers)
    except Exception as error:
        raise InputError(f"{path}: must be an ONNX graph, cannot be read: {_first_line(error)}") from None
    inputs = [each.name for each in session.get_inputs()]
    name = form.input.name or (inputs[0] if len(inputs) == 1 else "")
    if name not in inputs:
        raise InputError(f"{path}: input.name must be one of {', '.join(inputs)}, got {name!r}")
    return _OnnxGraph(path, session, name, tuple(each.name for each in session.get_outputs()))


@dataclass(frozen=True, slots=True)
class _ExportedGraph:
    place: Path
    module: Any
    device: torch.device

    def run(self, batch: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
        try:
            with torch.no_grad():
                found = self.module(torch.from_numpy(batch).to(self.device))
        except Exception as error:
            raise _refused(self.place, batch, error) from None
        if isinstance(found, Tensor):
            found = (found,)
        named = found if isinstance(found, Mapping) else {str(at): each for at, each in enumerate(found)}
        return {str(name): each.detach().cpu().numpy() for name, each in named.items() if isinstance(each, Tensor)}


def exported_graph(path: Path, device: torch.device | None) -> Graph:
    """The program on a device, the CPU by default. Raises InputError."""
    on = device or torch.device("cpu")
    try:
        program = torch.export.load(os.fspath(path))
        if on.type != "cpu":
            from torch.export.passes import move_to_device_pass

            program = move_to_device_pass(program, str(on))
        module = program.module()
    except Exception as error:
        raise InputError(f"{path}: must be a torch.export program, cannot be read: {_first_line(error)}") from None
    return _ExportedGraph(path, module, on)


def _first_line(error: BaseException) -> str:
    return clipped((str(error).splitlines() or [type(error).__name__])[0])


def _refused(place: Path, batch: npt.NDArray[Any], error: BaseException) -> InputError:
    fixed = "; a graph that takes a fixed number of images needs `batch` in model.json" if len(batch) > 1 else ""
    return InputError(f"{place}: does not run on {batch.shape} {batch.dtype}: {_first_line(error)}{fixed}")
