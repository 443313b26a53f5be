"""probabilities.npz: what a model says of every sample, written by auto labeling and read by those that follow."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from engine.errors import InputError
from engine.files import write_bytes

PROBABILITIES_NAME: Final = "probabilities.npz"


@dataclass(frozen=True, slots=True)
class Probabilities:
    """sources: n, as result.manifest names them. labels: the k class names. values: (n, k) float32, a row of NaN where
    there is no prediction. labeled: (n,) bool, where a person had labeled the sample and its row is out of fold."""

    sources: tuple[str, ...]
    labels: tuple[str, ...]
    values: npt.NDArray[np.float32]
    labeled: npt.NDArray[np.bool_]


def write_probabilities(path: Path, said: Probabilities) -> None:
    """Write the file whole or not at all. Raises OutputError."""
    content = io.BytesIO()
    np.savez_compressed(
        content,
        probabilities=said.values,
        labels=np.array(said.labels, dtype=np.str_),
        sources=np.array(said.sources, dtype=np.str_),
        labeled=said.labeled,
    )
    write_bytes(path, content.getvalue())


def read_probabilities(path: Path) -> Probabilities:
    """What the file says; nothing in it is executed. Raises InputError for another file."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            values = np.asarray(arrays["probabilities"], np.float32)
            labels, sources, labeled = (np.asarray(arrays[name]) for name in ("labels", "sources", "labeled"))
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise InputError(f"{path}: must hold the arrays of auto labeling, cannot be read: {error}") from error
    n, k = sources.size, labels.size
    if not n or not k or values.shape != (n, k) or labeled.shape != (n,):
        raise InputError(
            f"{path}: must hold probabilities ({n}, {k}) and labeled ({n},), n and k at least 1, "
            f"got {values.shape} and {labeled.shape}"
        )
    return Probabilities(tuple(map(str, sources)), tuple(map(str, labels)), values, labeled.astype(bool))
