"""Algorithms that `simulate` holds against each other: what each is given, and what it gives back.

A function from a `Problem` to an `Answer`: our own two, the classifiers of `peers.py` on content vectors, or one that a
person wrote (`own_algorithm`). Knows nothing of the truth.
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engine.dataset import Dataset
from engine.embeddings import Gradients, content_vectors
from engine.errors import EngineError, InputError, UsageError
from engine.label.labeling import ALGORITHM_TYPES, auto_label
from engine.label.targets import LEAST_PER_CLASS
from engine.survey import Thumbnails, survey
from engine.tasks.peers import PEERS, Peer, Vectors

#: Rows of an own function must sum to 1 but for this.
_ROUNDING: Final = 1e-3

Booleans: TypeAlias = npt.NDArray[np.bool_]
Integers: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Problem:
    """m readable images, of which some are labeled.

    dataset: the images, under random names in random order, and the labels that are shown. labels: the k names. told:
    (m, k) bool, the labels that are shown. side: of images that suit this data set, in pixels. minutes: for the whole;
    None: the algorithm chooses. pictures: thumbnails and vectors, made once for all who ask.
    """

    dataset: Dataset
    labels: tuple[str, ...]
    told: Booleans
    multi_label: bool
    side: int
    seed: int
    pictures: Pictures
    minutes: float | None = None
    steps: tuple[int, ...] = ()
    min_per_class: int = LEAST_PER_CLASS
    threads: int | None = None
    device: torch.device | None = None
    stopped: Callable[[], bool] = lambda: False

    @property
    def seen(self) -> Integers:
        """The positions of the labeled images, in their order."""
        return np.flatnonzero(self.told.any(axis=1))

    @property
    def unseen(self) -> Integers:
        """The positions of the others, in their order."""
        return np.flatnonzero(~self.told.any(axis=1))


@dataclass(frozen=True, slots=True)
class Answer:
    """probabilities: (m, k), of the unlabeled images at least; a row of NaN is no prediction. choices: what is worth
    keeping of how it came about, JSON values."""

    probabilities: npt.NDArray[Any]
    choices: Mapping[str, Any] = field(default_factory=dict)


Algorithm: TypeAlias = Callable[[Problem], Answer]


class Pictures:
    """What several algorithms look at: each thing is made once, and every one who asks is charged its seconds.

    charged: seconds of things that had been made before they were asked for.
    """

    def __init__(
        self, dataset: Dataset, folder: Path, threads: int | None, thumbnails: Thumbnails, seconds: float
    ) -> None:
        """thumbnails: that there are already; seconds: what they took."""
        self.charged = 0.0
        self._dataset, self._folder, self._threads = dataset, folder, threads
        self._kept: dict[object, tuple[Any, float]] = {("thumbnails", thumbnails.side): (thumbnails, seconds)}

    def once(self, key: object, make: Callable[[], Any]) -> Any:
        """What `make` gives, kept under the key."""
        if key in self._kept:
            value, seconds = self._kept[key]
            self.charged += seconds
            return value
        began, before = time.perf_counter(), self.charged
        value = make()
        self._kept[key] = value, time.perf_counter() - began + self.charged - before
        return value

    def images(self, side: int) -> Tensor:
        """(m, 3, side, side) uint8 RGB of all images."""
        found: Tensor = self.once(("images", side), lambda: self._images(side))
        return found

    def vectors(self) -> Vectors:
        """(m, d) float32, see `content_vectors`: what the images show, no label used."""
        found: Vectors = self.once("vectors", self._vectors)
        return found

    def _thumbnails(self, side: int) -> Thumbnails:
        folder, threads = self._folder, self._threads
        found = survey(self._dataset, self._dataset.sources, folder=folder, thumbnail_side=side, threads=threads)
        assert found.thumbnails is not None
        if found.failures:
            raise InputError(f"images: {len(found.failures):,} can no longer be read")
        return found.thumbnails

    def _images(self, side: int) -> Tensor:
        thumbnails: Thumbnails = self.once(("thumbnails", side), lambda: self._thumbnails(side))
        return thumbnails.rows(np.arange(len(thumbnails)))

    def _vectors(self) -> Vectors:
        images = self.images(Gradients().size)
        found: Vectors = content_vectors(lambda: torch.split(images, 256)).numpy()
        return found


def auto(algorithm_type: str) -> Algorithm:
    """Our own `auto_label`."""

    def algorithm(problem: Problem) -> Answer:
        labeling = auto_label(
            problem.dataset,
            algorithm_type,
            minutes=problem.minutes,
            steps=problem.steps,
            min_per_class=problem.min_per_class,
            seed=problem.seed,
            threads=problem.threads,
            device=problem.device,
            stopped=problem.stopped,
        )
        probabilities = np.zeros((len(problem.dataset), len(problem.labels)))
        probabilities[:, [problem.labels.index(name) for name in labeling.labels]] = labeling.probabilities
        return Answer(probabilities, labeling.choices)

    return algorithm


def on_vectors(
    peer: Peer, vectors: Callable[[Problem], Vectors] = lambda problem: problem.pictures.vectors()
) -> Algorithm:
    """A peer that looks at vectors (m, d), the content vectors by default."""

    def algorithm(problem: Problem) -> Answer:
        rows, seen, unseen = vectors(problem), problem.seen, problem.unseen
        return _answer(problem, peer(rows[seen], problem.told[seen], rows[unseen], problem.multi_label))

    return algorithm


ALGORITHMS: Final[Mapping[str, Algorithm]] = MappingProxyType(
    {**{name: auto(name) for name in ALGORITHM_TYPES}, **{name: on_vectors(peer) for name, peer in PEERS.items()}}
)


def own_algorithm(name: str) -> Algorithm:
    """One's own algorithm from "FILE.py:NAME": the function NAME of that file, whose code is run.

    It is called as `NAME(images_labeled, classes, images_unlabeled, k)` and gives probabilities (m, k).
    images_labeled: (n, 3, S, S) uint8 RGB numpy, S of 16, 32 or 64 by the size of the images. classes: (n,) int64 in
    [0, k); in a data set where images have several labels (n, k) bool instead. images_unlabeled: (m, 3, S, S). The
    result: numbers in [0, 1], rows that sum to 1 where an image has one label.

    Raises UsageError when there is no such file or function, or the file cannot be run.
    """
    path, function = own_file(name)
    place = hashlib.sha256(str(path.resolve()).encode("utf-8", "surrogatepass")).hexdigest()[:8]
    spec = importlib.util.spec_from_file_location(f"labelengine_own_{path.stem}_{place}", path)
    if spec is None or spec.loader is None:
        raise UsageError(f"algorithm {name}: {path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there for the module of a class
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[spec.name]
        raise UsageError(f"algorithm {name}: {path} cannot be run: {in_one_line(error)}") from error
    guess = getattr(module, function, None)
    if not callable(guess):
        raise UsageError(f"algorithm {name}: {path} has no function {function!r}")

    def algorithm(problem: Problem) -> Answer:
        images, told = problem.pictures.images(problem.side).numpy(), problem.told[problem.seen]
        classes = told if problem.multi_label else told.argmax(axis=1)
        said = guess(images[problem.seen], classes, images[problem.unseen], len(problem.labels))
        return _answer(problem, said)

    return algorithm


def own_file(name: str) -> tuple[Path, str]:
    """`FILE.py:NAME` in its two parts. Raises UsageError when it is none, or there is no such file."""
    file, _, function = name.rpartition(":")
    if not file.endswith(".py") or not function.isidentifier():
        raise UsageError(f"algorithm: must be {', '.join(ALGORITHMS)} or FILE.py:NAME, got {name!r}")
    path = Path(file)
    if not path.is_file():
        raise UsageError(f"algorithm {name}: must name a file, got nothing at {path}")
    return path, function


def _answer(problem: Problem, said: Any) -> Answer:
    """What was said of the unlabeled images alone, checked, in the rows of all."""
    found, unseen = np.asarray(said, np.float64), problem.unseen
    wanted = (len(unseen), len(problem.labels))
    if found.shape != wanted:
        raise InputError(f"probabilities: must be {wanted}, got {found.shape}")
    if not np.isfinite(found).all() or found.min(initial=0) < 0 or found.max(initial=0) > 1 + _ROUNDING:
        raise InputError(f"probabilities: must be in [0, 1], got {found.min():g}..{found.max():g}")
    off = np.abs(found.sum(axis=1) - 1).max(initial=0)
    if not problem.multi_label and off > _ROUNDING:
        raise InputError(f"probabilities: rows must sum to 1, got one that is off by {off:g}")
    whole = np.full((len(problem.dataset), len(problem.labels)), np.nan)
    whole[unseen] = found.clip(0, 1)
    return Answer(whole)


def in_one_line(error: BaseException) -> str:
    """An error in one line: that of the engine as it is, another with its type."""
    line = next((line for line in str(error).splitlines() if line.strip()), "")
    return line if isinstance(error, EngineError) else f"{type(error).__name__}: {line}".removesuffix(": ")
