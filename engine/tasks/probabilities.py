"""probabilities.npz: what a model says of every sample, written by auto labeling and read by those that follow."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from engine.dataset import RESULT_NAME, Dataset
from engine.errors import InputError
from engine.files import write_bytes

PROBABILITIES_NAME: Final = "probabilities.npz"


@dataclass(frozen=True, slots=True)
class Probabilities:
    """sources: n, as result.manifest names them. labels: the k class names. values: (n, k) float32, a row of NaN where
    there is no prediction. labeled: (n,) bool, where a person had labeled the sample and its row is out of fold.
    judges: (n,) int64, for these the number of the network of the model that has not seen the label, else -1."""

    sources: tuple[str, ...]
    labels: tuple[str, ...]
    values: npt.NDArray[np.float32]
    labeled: npt.NDArray[np.bool_]
    judges: npt.NDArray[np.int64]


def write_probabilities(path: Path, said: Probabilities) -> None:
    """Write the file whole or not at all. Raises OutputError."""
    content = io.BytesIO()
    np.savez_compressed(
        content,
        probabilities=said.values,
        labels=np.array(said.labels, dtype=np.str_),
        sources=np.array(said.sources, dtype=np.str_),
        labeled=said.labeled,
        judges=said.judges,
    )
    write_bytes(path, content.getvalue())


def read_probabilities(path: Path) -> Probabilities:
    """What the file says; nothing in it is executed. Raises InputError for another file."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            values = np.asarray(arrays["probabilities"], np.float32)
            labels, sources, labeled = (np.asarray(arrays[name]) for name in ("labels", "sources", "labeled"))
            judges = np.asarray(arrays["judges"] if "judges" in arrays else np.full(labeled.shape, -1), np.int64)
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise InputError(f"{path}: must hold the arrays of auto labeling, cannot be read: {error}") from error
    n, k = sources.size, labels.size
    if not n or not k or values.shape != (n, k) or labeled.shape != (n,) or judges.shape != (n,):
        raise InputError(
            f"{path}: must hold probabilities ({n}, {k}) and labeled ({n},), n and k at least 1, "
            f"got {values.shape} and {labeled.shape}"
        )
    return Probabilities(tuple(map(str, sources)), tuple(map(str, labels)), values, labeled.astype(bool), judges)


def earlier_probabilities(dataset: Dataset) -> Probabilities | None:
    """What auto labeling left beside its result, where that is the data set."""
    path = dataset.sources.root / PROBABILITIES_NAME
    if f"{dataset.name}.manifest" != RESULT_NAME or not path.is_file():
        return None
    return read_probabilities(path)
