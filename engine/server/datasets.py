"""A registered data set as it stands now: one manifest in HOME/datasets/ID, where results land and people confirm.

The data that were registered are only read. Whoever changes the manifest holds the lock of its folder; it is replaced
whole. Between two changes it is read once.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Final

from engine.dataset import RESULT_NAME, Dataset, read_samples, settled
from engine.errors import ImageError, InputError
from engine.exports import Tally
from engine.folders import VOC_FORMAT
from engine.manifest import write_manifest
from engine.outfolder import OutFolder
from engine.samples import STATE_KEY, Label, Sample
from engine.server.database import Database, DatasetRow, new_id
from engine.sources import Sources, is_uri
from engine.tasks.conditions import known_id
from engine.voc import write_voc

DATASETS: Final = "datasets"
CURRENT: Final = "current.manifest"
_LOCK: Final = ".lock"
_ANNOTATIONS: Final = "annotations"


def dataset_folder(home: Path, dataset_id: str) -> Path:
    return home / DATASETS / dataset_id


def data_folder(row: DatasetRow) -> Path:
    """The folder of the data that were registered: where relative paths of a request begin."""
    data = Path(row.data)
    return data if data.is_dir() else data.parent


def register(home: Path, dataset_id: str, data: Path, *, format: str | None = None, map: Sequence[str] = ()) -> Dataset:
    """Read a data set and keep what it says as the first state of `dataset_id`. Raises InputError, OutputError."""
    dataset = read_samples(data, format=format, map=map)
    folder = dataset_folder(home, dataset_id)
    try:
        with OutFolder(folder) as out:
            samples = zip(dataset.samples, settled(dataset, out, Tally()), strict=True)
            write_manifest(out.target(CURRENT), [_anywhere(old, new, dataset) for old, new in samples])
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return dataset


def add_dataset(
    database: Database, project_id: str, name: str, path: Path, format: str | None = None, map: Sequence[str] = ()
) -> str:
    """Register a data set; gives its id. Raises InputError for what is none, or a name that is taken."""
    if any(each.name == name for each in database.datasets(project_id)):
        raise InputError(f"data set {name!r}: the project {project_id!r} has one of this name")
    dataset_id = new_id()
    register(database.home, dataset_id, path, format=format, map=map)
    row = DatasetRow(dataset_id, project_id, name, os.fspath(path.resolve()), tuple(map), time.time())
    database.add_dataset(row)
    return dataset_id


def _anywhere(old: Sample, new: Sample, dataset: Dataset) -> Sample:
    """The sample under an absolute path, and under the id that it has where it was registered."""
    try:
        source = new.source if is_uri(old.source) else os.path.abspath(dataset.path(old))
    except (ImageError, ValueError):
        source = new.source
    return replace(new, source=source, id=known_id(old))


class Standing:
    """Data sets as they stand, read again only when they have changed."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._lock = Lock()
        self._read: dict[str, tuple[tuple[int, int], Dataset]] = {}

    def dataset(self, dataset_id: str, name: str, map: Sequence[str] = ()) -> Dataset:
        """Raises InputError when it is gone."""
        path = dataset_folder(self._home, dataset_id) / CURRENT
        try:
            status = path.stat()
        except OSError as error:
            raise InputError(f"data set {name!r}: its manifest cannot be read: {error.strerror}") from error
        stamp = (status.st_mtime_ns, status.st_ino)
        with self._lock:
            known = self._read.get(dataset_id)
            if known is None or known[0] != stamp:
                known = (stamp, replace(read_samples(path, map=map), name=name))
                self._read[dataset_id] = known
            return known[1]

    def forget(self, dataset_id: str) -> None:
        with self._lock:
            self._read.pop(dataset_id, None)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Nobody else changes what is in this folder, in this process or another."""
    with (folder / _LOCK).open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def change(home: Path, dataset_id: str, what: Callable[[Dataset], Sequence[Sample]]) -> None:
    """Replace the samples of a data set by what becomes of them; drawings without a file get one."""
    folder = dataset_folder(home, dataset_id)
    with alone(folder):
        before = read_samples(folder / CURRENT)
        after = [_with_files(sample, folder) for sample in what(before)]
        if any(new is not old for new, old in zip(after, before.samples, strict=True)):
            write_manifest(folder / CURRENT, after)


def land(home: Path, dataset_id: str, out: Path) -> int:
    """Take over what a task found out: labels where no person has given any meanwhile, and attributes. Giving the same
    result twice changes nothing more. -> how many samples have other labels than before."""
    result = read_samples(out / RESULT_NAME)
    there = {_real(result.sources, sample): sample for sample in result}
    changed = 0

    def merged(before: Dataset) -> list[Sample]:
        nonlocal changed
        after = []
        for sample in before:
            found = there.get(_real(before.sources, sample))
            new = sample if found is None else _merged(sample, found)
            changed += new.labels != sample.labels
            after.append(new)
        return after

    change(home, dataset_id, merged)
    return changed


def _real(sources: Sources, sample: Sample) -> str:
    try:
        return str(sources.path(sample.source).resolve())
    except (ImageError, OSError, ValueError):  # a URI that is not mapped
        return sample.source


def _merged(sample: Sample, found: Sample) -> Sample:
    state = sample.property.get(STATE_KEY)
    properties = {**found.property, **({} if state is None else {STATE_KEY: state})}
    if any(label.by_human for label in sample.labels):
        new = {name: value for name, value in properties.items() if name not in sample.property}
        return replace(sample, property={**sample.property, **new}) if new else sample
    # The files of a task stay with the task: a drawing becomes the data set's own.
    labels = tuple(replace(label, annotation_loc=None) if label.drawing else label for label in found.labels)
    return replace(sample, labels=labels, hard=found.hard, hard_coefficient=found.hard_coefficient, property=properties)


def _with_files(sample: Sample, folder: Path) -> Sample:
    """The sample with a file for every drawing that has none."""
    if all(label.drawing is None or label.annotation_loc for label in sample.labels):
        return sample
    labels: list[Label] = []
    for at, label in enumerate(sample.labels):
        if label.drawing is not None and not label.annotation_loc:
            told = hashlib.sha256(f"{sample.source}\0{at}".encode("utf-8", "surrogatepass")).hexdigest()[:32]
            (folder / _ANNOTATIONS).mkdir(exist_ok=True)
            write_voc(folder / _ANNOTATIONS / f"{told}.xml", label.drawing)
            label = replace(label, annotation_loc=f"{_ANNOTATIONS}/{told}.xml", annotation_format=VOC_FORMAT)
        labels.append(label)
    return replace(sample, labels=tuple(labels))
