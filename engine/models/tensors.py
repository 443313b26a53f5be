"""Tensors of a model as safetensors: what is kept, and taken from the file again group by group.

In: tensors by name. Out: the same, on the CPU, to the bit; whatever is missing, of another shape, left over or not
finite is said. Knows nothing of networks.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from engine.errors import InputError
from engine.models.documents import MODEL_NAME, clipped

#: Types of the tensors of a model: numbers, and counts and positions.
_TYPES: Final = (torch.float32, torch.int64)
#: Ends the name of a matrix that lies in memory column by column, and is kept so: a product rounds by that order.
_COLUMNS: Final = ".T"


class Tensors:
    """The tensors of a file, taken from it group by group until none is left. place: for errors."""

    def __init__(self, place: Path, tensors: dict[str, Tensor]) -> None:
        self.place = place
        self.bytes = sum(tensor.nbytes for tensor in tensors.values())
        self._left = tensors

    @classmethod
    def read(cls, place: Path, content: bytes) -> Tensors:
        try:
            tensors = safetensors.torch.load(content)
        except (SafetensorError, ValueError, KeyError) as error:  # KeyError: a type that torch does not have
            why = (str(error).splitlines() or [type(error).__name__])[0]
            raise InputError(f"{place}: must be tensors as safetensors, cannot be read: {why}") from None
        check_tensors(place, tensors)
        return cls(place, dict(_restored(name, tensor) for name, tensor in tensors.items()))

    def take(self, prefix: str, wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Those wanted, by the rest of their names, in that order. Raises InputError for another shape or type."""
        taken = {}
        for name, like in wanted.items():
            got = self._left.pop(prefix + name, None)
            if got is None or got.shape != like.shape or got.dtype != like.dtype:
                told = "nothing there" if got is None else shape_of(got)
                raise InputError(f"{self.place}: {prefix}{name} must be {shape_of(like)}, got {told}")
            taken[name] = got
        return taken

    def take_all(self, prefix: str) -> dict[str, Tensor]:
        """Whatever there is whose names begin so, by the rest of the names."""
        names = [name for name in self._left if name.startswith(prefix)]
        return {name.removeprefix(prefix): self._left.pop(name) for name in names}

    def end(self) -> None:
        """Raise InputError when there is more than was taken."""
        if self._left:
            first, more = min(self._left), ", ..." if len(self._left) > 1 else ""
            raise InputError(
                f"{self.place}: must hold the tensors that {MODEL_NAME} tells of, got {len(self._left):,} more "
                f"({clipped(first)}{more})"
            )


def shaped(*shape: int) -> Tensor:
    return torch.empty(shape, device="meta")


def shape_of(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def stored(name: str, tensor: Tensor) -> tuple[str, Tensor]:
    """As it is kept: row by row, on the CPU, in memory that it shares with no other tensor."""
    if tensor.ndim == 2 and tensor.T.is_contiguous() and not tensor.is_contiguous():
        name, tensor = name + _COLUMNS, tensor.T
    return name, tensor.detach().cpu().clone(memory_format=torch.contiguous_format)


def _restored(name: str, tensor: Tensor) -> tuple[str, Tensor]:
    """What `stored` was given."""
    return (name.removesuffix(_COLUMNS), tensor.mT) if name.endswith(_COLUMNS) and tensor.ndim == 2 else (name, tensor)


def check_tensors(place: object, tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if tensor.dtype not in _TYPES:
            raise InputError(f"{place}: {clipped(name)} must be float32 or int64, got {shape_of(tensor)}")
        if not bool(tensor.isfinite().all()):
            raise InputError(f"{place}: {clipped(name)} must be finite, got NaN or infinity")
