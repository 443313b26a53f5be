"""candidates.npz: the boxes that may be on each sample, more than are given; written by auto labeling of boxes, read by
those that hold it against the truth."""

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

CANDIDATES_NAME: Final = "candidates.npz"

_NAMES: Final = ("sources", "labels", "thresholds", "labeled", "known", "judges", "counts", "xyxy", "classes", "scores")


@dataclass(frozen=True, slots=True)
class Candidates:
    """sources: n, as result.manifest names them. labels: the k class names. thresholds: (k,), the confidence from which
    on a box is given. labeled: (n,) bool, where a person had drawn boxes. known: (n,) bool, where anything was said.
    judges: (n,) int64, for labeled ones the number of the network of the model that has not seen their boxes, else -1.
    counts: (n,) int64, candidates of each sample; of all of them together, sample after sample, by confidence from high
    to low, xyxy: (m, 4) float32 pixels, classes: (m,) int64, scores: (m,) float32, calibrated confidences."""

    sources: tuple[str, ...]
    labels: tuple[str, ...]
    thresholds: npt.NDArray[np.float64]
    labeled: npt.NDArray[np.bool_]
    known: npt.NDArray[np.bool_]
    judges: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]
    xyxy: npt.NDArray[np.float32]
    classes: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]

    def slices(self) -> list[slice]:
        """The places of the candidates of each sample."""
        ends = np.cumsum(self.counts).tolist()
        return [slice(end - count, end) for end, count in zip(ends, self.counts.tolist(), strict=True)]


def write_candidates(path: Path, said: Candidates) -> None:
    """Write the file whole or not at all. Raises OutputError."""
    content = io.BytesIO()
    texts = {name: np.array(getattr(said, name), dtype=np.str_) for name in ("sources", "labels")}
    np.savez_compressed(content, **texts, **{name: getattr(said, name) for name in _NAMES[2:]})  # type: ignore[arg-type]
    write_bytes(path, content.getvalue())


def read_candidates(path: Path) -> Candidates:
    """What the file says; nothing in it is executed. Raises InputError for another file."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found = {name: np.asarray(arrays[name]) for name in _NAMES}
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise InputError(f"{path}: must hold the arrays of auto labeling, cannot be read: {error}") from error
    n, m, k = found["sources"].size, found["scores"].size, found["labels"].size
    shapes = {"thresholds": (k,), "xyxy": (m, 4), "classes": (m,)}
    shapes |= dict.fromkeys(("labeled", "known", "judges", "counts"), (n,))
    for name, shape in shapes.items():
        if found[name].shape != shape:
            raise InputError(f"{path}: {name} must be {shape}, got {found[name].shape}")
    if int(found["counts"].sum()) != m or (m and not 0 <= found["classes"].min() <= found["classes"].max() < k):
        raise InputError(f"{path}: counts must add up to {m} boxes of {k} labels, got {int(found['counts'].sum())}")
    return Candidates(
        tuple(map(str, found["sources"])),
        tuple(map(str, found["labels"])),
        found["thresholds"].astype(np.float64),
        found["labeled"].astype(bool),
        found["known"].astype(bool),
        found["judges"].astype(np.int64),
        found["counts"].astype(np.int64),
        found["xyxy"].astype(np.float32),
        found["classes"].astype(np.int64),
        found["scores"].astype(np.float32),
    )


def earlier_candidates(dataset: Dataset) -> Candidates | None:
    """What auto labeling of boxes left beside its result, where that is the data set."""
    path = dataset.sources.root / CANDIDATES_NAME
    if f"{dataset.name}.manifest" != RESULT_NAME or not path.is_file():
        return None
    return read_candidates(path)
