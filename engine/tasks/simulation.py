"""One's own labeled data as a benchmark: labels are hidden, algorithms guess them, and the truth is the judge.

In: a data set that people labeled. For each number of labels and each seed that many images keep theirs, the same for
every algorithm; the files lie under random names and in random order, so that neither path nor place tells a class.
Out: a `Trial` for each algorithm, number and seed, and a table of means. An algorithm is a function from a `Problem`
to an `Answer`, see `contenders.py`. Knows nothing of the command line.

OUT, where it is asked for:
    simulation.json     the trials, each written when it ends: --resume runs none of them again
    simulation.csv      the same as a table
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from stat import S_ISREG
from threading import Event
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from engine.dataset import Dataset
from engine.embeddings import Gradients
from engine.errors import ImageError, InputError, OutputError, Stopped, UsageError
from engine.evaluation import score_multi_label, score_probabilities
from engine.files import as_json, write_bytes
from engine.label.labeling import ALGORITHM_TYPES
from engine.label.results import GIVEN_FROM
from engine.label.targets import LEAST_LABELS, LEAST_PER_CLASS, Targets, targets_of
from engine.outfolder import OutFolder, check_nothing_left
from engine.samples import IMAGE_CLASSIFICATION, Label, Sample
from engine.sources import Sources
from engine.survey import survey
from engine.tasks.contenders import (
    ALGORITHMS,
    Algorithm,
    Booleans,
    Pictures,
    Problem,
    in_one_line,
    own_algorithm,
    own_file,
)
from engine.tasks.peers import PEERS
from engine.tasks.runner import Reporter, Silent
from engine.tasks.trials import SEVERAL, SINGLE, Scores, Trial, as_csv, in_words
from engine.threads import torch_threads

RESULT_NAME: Final = "simulation.json"
TABLE_NAME: Final = "simulation.csv"

DEFAULT_LABELS: Final = (50, 100, 200)
DEFAULT_SEEDS: Final = 3
DEFAULT_ALGORITHMS: Final = (*ALGORITHM_TYPES, *PEERS)

#: Part of a trial's key: raise it when the same trial would come out otherwise.
_VERSION: Final = 3
#: Of the random order of the images.
_ORDER_SEED: Final = 1
#: Sides that the images of an own function have: the smallest that the middle short side does not exceed.
_SIDES: Final = (16, 32, 64)
#: Images are read under this folder of OUT while trials run; a folder of the system without OUT.
_WORKPLACE: Final = ".labelengine-simulation"


def simulate(
    dataset: Dataset,
    *,
    labels: Sequence[int] = DEFAULT_LABELS,
    seeds: int = DEFAULT_SEEDS,
    first_seed: int = 0,
    algorithms: Sequence[str] = DEFAULT_ALGORITHMS,
    minutes: float | Mapping[str, float] | None = None,
    steps: Sequence[int] = (),
    min_per_class: int = LEAST_PER_CLASS,
    proportional: bool = False,
    threads: int | None = None,
    device: torch.device | None = None,
    out: Path | None = None,
    overwrite: bool = False,
    resume: bool = False,
    further: Mapping[str, Algorithm] = MappingProxyType({}),
    reporter: Reporter | None = None,
    stop: Event | None = None,
) -> tuple[Trial, ...]:
    """Hide the labels of a data set but for a few, let algorithms guess them, compare: a trial for each number of
    labels, seed first_seed..first_seed + seeds - 1 and algorithm, in this order.

    labels: numbers of images that stay labeled, as many of each class as near as can be; a larger draw of a seed holds
    the smaller ones. proportional: as frequent as the classes are instead, min_per_class of each at least. algorithms:
    names of ALGORITHMS, or FILE.py:NAME (see `own_algorithm`). minutes: for algorithms that take a budget; a mapping
    gives some of them their own. steps, min_per_class, threads, device: as for `auto_label`. out: a new or empty folder
    for the result; overwrite, resume: as for every task. further: algorithms by name, besides ALGORITHMS.

    An image that cannot be read is left out; one without a label takes part, unlabeled, and is not scored. A trial that
    fails says so. Raises UsageError for an option out of range, InputError when the data set has no two labels,
    OutputError, and Stopped, with the trials that are finished in `out`, once `stop` is set.
    """
    reporter, stop = reporter or Silent(), stop or Event()
    _check_options(labels, seeds, first_seed, algorithms, minutes)
    candidates = [_candidate(name, further, minutes) for name in dict.fromkeys(algorithms)]
    opened = _opened(out, dataset, overwrite=overwrite, resume=resume)
    with opened as ledger, _workplace(out) as folder, torch_threads(threads):
        data = _hidden(dataset, folder, threads=threads, reporter=reporter, stop=stop)
        _check_counts(labels, data.truth)
        device = device or torch.device("cpu")
        total, done = len(labels) * seeds * len(candidates), 0
        reporter.stage("trials", total)
        for n in labels:
            for seed in range(first_seed, first_seed + seeds):
                told = drawn(data.truth.matrix, n, seed, least=min_per_class, proportional=proportional)
                for candidate in candidates:
                    if stop.is_set():
                        raise _stopped(done, total, out)
                    asked = [_VERSION, candidate.name, candidate.digest, n, seed, candidate.minutes, list(steps)]
                    key = _digest_of([*asked, min_per_class, proportional, str(device), data.digest])
                    if not ledger.has(key):
                        problem = Problem(
                            dataset=_shown(data, told),
                            labels=data.truth.labels,
                            told=told,
                            multi_label=data.truth.multi_label,
                            side=data.side,
                            seed=seed,
                            pictures=data.pictures,
                            minutes=candidate.minutes,
                            steps=tuple(steps),
                            min_per_class=min_per_class,
                            threads=threads,
                            device=device,
                            stopped=stop.is_set,
                        )
                        try:
                            trial = _tried(candidate, problem, data.truth.matrix, n, key)
                        except Stopped:
                            raise _stopped(done, total, out) from None
                        ledger.add(trial)
                        reporter.note(in_words(trial))
                    done += 1
                    reporter.advance(done)
                    ledger.ask(key)
    return ledger.asked


def _check_options(
    labels: Sequence[int],
    seeds: int,
    first_seed: int,
    algorithms: Sequence[str],
    minutes: float | Mapping[str, float] | None,
) -> None:
    if not labels or min(labels) < LEAST_LABELS:
        raise UsageError(f"labels: must be numbers of images, at least {LEAST_LABELS}, got {list(labels)}")
    if seeds < 1:
        raise UsageError(f"seeds: must be at least 1, got {seeds}")
    if first_seed < 0:
        raise UsageError(f"first_seed: must be at least 0, got {first_seed}")
    if not algorithms:
        raise UsageError("algorithms: must be at least 1, got none")
    given = [minutes] if isinstance(minutes, int | float) else list((minutes or {}).values())
    if wrong := [each for each in given if not each > 0]:
        raise UsageError(f"minutes: must be above 0, got {wrong[0]!r}")


def _check_counts(labels: Sequence[int], truth: Targets) -> None:
    if len(truth.labels) < LEAST_LABELS:
        got = f"only {truth.labels[0]!r}" if truth.labels else "none"
        raise InputError(f"simulate needs a data set with at least {LEAST_LABELS} labels that people gave, got {got}")
    there = int(truth.labeled.sum())
    if max(labels) >= there:
        raise UsageError(
            f"labels: must be fewer than the {there:,} labeled images that can be read, got {max(labels):,}: "
            "some must be left to guess"
        )


@dataclass(frozen=True, slots=True)
class _Candidate:
    """digest: of the file of an own algorithm, which is another one when it was edited."""

    name: str
    algorithm: Algorithm
    minutes: float | None
    digest: str = ""


def _candidate(name: str, further: Mapping[str, Algorithm], minutes: float | Mapping[str, float] | None) -> _Candidate:
    own = minutes.get(name) if isinstance(minutes, Mapping) else minutes
    if algorithm := {**ALGORITHMS, **further}.get(name):
        return _Candidate(name, algorithm, own)
    algorithm = own_algorithm(name)
    return _Candidate(name, algorithm, own, hashlib.sha256(own_file(name)[0].read_bytes()).hexdigest())


def _tried(candidate: _Candidate, problem: Problem, truth: Booleans, n: int, key: str) -> Trial:
    """The trial of an algorithm. Raises Stopped; everything else that goes wrong is the trial's."""
    hidden = truth.any(axis=1) & ~problem.told.any(axis=1)
    scores: Scores = {}
    choices: Mapping[str, Any] = {}
    error = ""
    problem.pictures.charged = 0.0
    began = time.perf_counter()
    try:
        answer = candidate.algorithm(problem)
        seconds = time.perf_counter() - began + problem.pictures.charged
        scores, choices = _scores(answer.probabilities[hidden], truth[hidden], problem), answer.choices
    except Stopped:
        raise
    except Exception as failed:  # an algorithm of anybody's: it must not end the others
        error, seconds = in_one_line(failed), time.perf_counter() - began + problem.pictures.charged
    return Trial(
        algorithm=candidate.name,
        labels=n,
        seed=problem.seed,
        minutes=candidate.minutes,
        scored=int(hidden.sum()),
        multi_label=problem.multi_label,
        scores=scores,
        seconds=round(seconds, 3),
        error=error,
        choices=choices,
        key=key,
    )


def _scores(probabilities: npt.NDArray[Any], truth: Booleans, problem: Problem) -> Scores:
    if not problem.multi_label:
        single = score_probabilities(probabilities, truth.argmax(axis=1), labels=problem.labels)
        return {name: _number(getattr(single, name)) for name in SINGLE}
    filled = np.nan_to_num(np.asarray(probabilities, np.float64), nan=-1.0)
    given = filled >= GIVEN_FROM  # and the most probable one always, as auto labeling gives them
    given[np.arange(len(given)), filled.argmax(axis=1)] = True
    several = score_multi_label(probabilities, given, truth, labels=problem.labels)
    return {name: _number(getattr(several, name)) for name in SEVERAL}


def _number(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 6)


def _stopped(done: int, total: int, out: Path | None) -> Stopped:
    return Stopped(f"stopped after {done:,} of {total:,} trials" + ("; --resume goes on" if out else ""))


# ---- Which labels are shown. ----


def drawn(matrix: Booleans, n: int, seed: int, *, least: int, proportional: bool) -> Booleans:
    """(m, k) bool: the labels of n rows of `matrix` (m, k), all False elsewhere.

    One row after the other, each of the class that has the fewest so far; with `proportional` the fewest for how
    frequent it is, once every class has `least`. So a larger draw of a seed holds the smaller ones.
    """
    chance = np.random.default_rng(seed)
    stacks = [list(chance.permutation(np.flatnonzero(column))) for column in matrix.T]
    weights = matrix.sum(axis=0) if proportional else np.ones(matrix.shape[1])
    counts, taken = np.zeros(matrix.shape[1]), np.zeros(len(matrix), bool)
    for _ in range(n):
        for stack in stacks:
            while stack and taken[stack[-1]]:
                stack.pop()
        free = np.array([bool(stack) for stack in stacks])
        short = free & (counts < least)
        rank = np.where(short, counts, np.inf) if short.any() else np.where(free, counts / weights.clip(1), np.inf)
        fewest = np.flatnonzero(rank == rank.min())
        row = stacks[int(chance.choice(fewest))].pop()
        taken[row] = True
        counts += matrix[row]
    return np.where(taken[:, None], matrix, False)


@dataclass(frozen=True, slots=True)
class _Hidden:
    """The data set without its labels. dataset: m readable images under random names, in random order. truth: their
    labels. digest: of names, labels and bytes. side: see `Problem`."""

    dataset: Dataset
    truth: Targets
    digest: str
    side: int
    pictures: Pictures


def _hidden(dataset: Dataset, folder: Path, *, threads: int | None, reporter: Reporter, stop: Event) -> _Hidden:
    images = [sample for sample in dataset if sample.is_image]
    order = np.random.default_rng(_ORDER_SEED).permutation(len(images))
    reporter.stage("hiding labels", len(images))
    digest, kept, named = hashlib.sha256(), [], []
    (folder / "images").mkdir()
    for place, at in enumerate(order.tolist()):
        if stop.is_set():
            raise Stopped("stopped before the first trial")
        name = hashlib.sha256(f"image {place}".encode()).hexdigest()[:24]
        if content := _placed(dataset, images[at], folder / "images" / name):
            kept.append(images[at])
            named.append(Sample(name))
            digest.update(_told([content, [label.name for label in images[at].labels if label.by_human]]))
        reporter.advance(place + 1)
    if not kept:
        raise InputError(f"{dataset.name}: must hold images, got none of {len(dataset):,} samples that can be read")
    flat = Dataset(tuple(named), Sources(folder / "images"), name=dataset.name)
    reporter.stage("reading images", len(flat))
    side, began = Gradients().size, time.perf_counter()
    found = survey(
        flat,
        flat.sources,
        folder=folder,
        thumbnail_side=side,
        threads=threads,
        progress=reporter.advance,
        stopped=stop.is_set,
    )
    seconds, rows = time.perf_counter() - began, np.flatnonzero(found.readable)
    if lost := len(images) - len(rows):
        reporter.note(f"{lost:,} images cannot be read and are left out")
    assert found.thumbnails is not None
    flat = flat.with_samples(flat[row] for row in rows.tolist())
    thumbnails = replace(found.thumbnails, index=np.arange(len(rows)))
    shorts = float(np.median(found.sizes[rows].min(axis=1))) if len(rows) else 0.0
    return _Hidden(
        dataset=flat,
        truth=targets_of([kept[row] for row in rows]),
        digest=digest.hexdigest(),
        side=next((side for side in _SIDES if side >= shorts), _SIDES[-1]),
        pictures=Pictures(flat, folder, threads, thumbnails, seconds),
    )


def _placed(dataset: Dataset, sample: Sample, target: Path) -> str:
    """Make the image appear as `target`: a hard link where that is possible, else a copy. The digest of its bytes, ""
    where it cannot be read. Raises OutputError where the copy cannot be written."""
    try:
        path = os.path.realpath(dataset.path(sample))
        if not S_ISREG(os.stat(path).st_mode):
            return ""
        with open(path, "rb") as file:
            content = file.read()
    except (OSError, ValueError, ImageError):  # ValueError: a zero byte in the path
        return ""
    try:
        os.link(path, target)
    except OSError:  # another file system, no permission
        try:
            target.write_bytes(content)
        except OSError as error:
            raise OutputError(f"{target}: cannot be written: {error.strerror or error}") from error
    return hashlib.sha256(content).hexdigest()


def _shown(data: _Hidden, told: Booleans) -> Dataset:
    """The data set with the labels that are shown."""

    def labels(row: npt.NDArray[np.bool_]) -> tuple[Label, ...]:
        return tuple(Label(IMAGE_CLASSIFICATION, data.truth.labels[column]) for column in np.flatnonzero(row))

    return data.dataset.with_samples(
        replace(sample, labels=labels(row)) if row.any() else sample
        for sample, row in zip(data.dataset, told, strict=True)
    )


@contextmanager
def _workplace(out: Path | None) -> Iterator[Path]:
    """A folder for the time of the simulation; below `out`, where hard links are likelier, if there is one."""
    if out is None:
        with tempfile.TemporaryDirectory() as temporary:
            yield Path(temporary)
        return
    folder = out / _WORKPLACE
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# ---- What is kept. ----


@contextmanager
def _opened(out: Path | None, dataset: Dataset, *, overwrite: bool, resume: bool) -> Iterator[_Ledger]:
    """The trials of an earlier run that this one goes on with, and a place for its own; until the end nobody else
    writes to `out`."""
    if out is None:
        yield _Ledger(dataset.name)
        return
    earlier = _read_trials(out) if resume and not overwrite else ()
    with OutFolder(out, overwrite=overwrite or resume, inputs=dataset.files) as folder:
        paths = folder.target(RESULT_NAME), folder.target(TABLE_NAME)
        yield _Ledger(dataset.name, paths, [trial for trial in earlier if not trial.error])


class _Ledger:
    """Trials by key, in files if there are paths. asked: those of this call, in their order."""

    def __init__(self, name: str, paths: tuple[Path, ...] = (), earlier: Sequence[Trial] = ()) -> None:
        self._name = name
        self._paths = paths
        self._trials = {trial.key: trial for trial in earlier}
        self._asked: dict[str, None] = {}
        self._write()

    @property
    def asked(self) -> tuple[Trial, ...]:
        return tuple(self._trials[key] for key in self._asked)

    def has(self, key: str) -> bool:
        return key in self._trials

    def ask(self, key: str) -> None:
        self._asked[key] = None

    def add(self, trial: Trial) -> None:
        self._trials[trial.key] = trial
        self._write()

    def _write(self) -> None:
        if not self._paths:
            return
        trials = list(self._trials.values())
        kept = {"dataset_name": self._name, "trials": [asdict(trial) for trial in trials]}
        write_bytes(self._paths[0], as_json(kept, default=_as_value))
        write_bytes(self._paths[1], as_csv(trials))


def _as_value(value: object) -> object:
    """What JSON does not have, from an algorithm of anybody's, as near to it as can be."""
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else str(value)


def _read_trials(out: Path) -> tuple[Trial, ...]:
    """The trials of an earlier run; none where there was none. Raises InputError where they cannot be read, OutputError
    where another command wrote there."""
    path = out / RESULT_NAME
    try:
        return tuple(Trial(**each) for each in json.loads(path.read_bytes())["trials"])
    except FileNotFoundError:
        check_nothing_left(out, RESULT_NAME)
        return ()
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"{path}: must hold the trials of an earlier run, cannot be read: {in_one_line(error)}"
        ) from error


def _digest_of(told: object) -> str:
    return hashlib.sha256(_told(told)).hexdigest()[:32]


def _told(what: object) -> bytes:
    return as_json(what, indent=False).removesuffix(b"\n")
