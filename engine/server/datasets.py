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
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any, Final

from engine.dataset import RESULT_NAME, Dataset, read_samples, settled
from engine.errors import ImageError, InputError
from engine.exports import Tally
from engine.files import write_bytes
from engine.folders.voc_folder import VOC_FORMAT
from engine.manifest import format_sample, write_manifest
from engine.outfolder import OutFolder
from engine.samples import HARD_KEYS, Label, Sample
from engine.server.database import Database, DatasetRow, new_id
from engine.sources import is_uri
from engine.tasks.conditions import known_id
from engine.voc import format_voc

DATASETS: Final = "datasets"
CURRENT: Final = "current.manifest"
_LOCK: Final = ".lock"
_ANNOTATIONS: Final = "annotations"
_BASE: Final = "base-{}.manifest"
#: Data sets that are remembered at once.
MOST_READ: Final = 16


def dataset_folder(home: Path, dataset_id: str) -> Path:
    return home / DATASETS / dataset_id


def data_folder(row: DatasetRow) -> Path:
    """The folder of the data that were registered: where relative paths of a request begin."""
    data = Path(row.data)
    return data if data.is_dir() else data.parent


def register(
    home: Path,
    dataset_id: str,
    data: Path,
    *,
    format: str | None = None,
    map: Sequence[str] = (),
    only: Callable[[Dataset], Dataset] = lambda dataset: dataset,
) -> Dataset:
    """Read a data set and keep what it says as the first state of `dataset_id`. only: leaves out samples that may not
    be read. Raises InputError, OutputError."""
    found = read_samples(data, format=format, map=map)
    dataset = only(found)
    if len(found) and not len(dataset):
        raise InputError(f"{data}: must have samples that may be read here, got none of {len(found):,}")
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
    database: Database,
    project_id: str,
    name: str,
    path: Path,
    format: str | None = None,
    map: Sequence[str] = (),
    *,
    only: Callable[[Dataset], Dataset] = lambda dataset: dataset,
) -> str:
    """Register a data set; gives its id. only: leaves out samples that may not be read. Raises InputError for what is
    none, or a name that is taken."""
    if any(each.name == name for each in database.datasets(project_id)):
        raise InputError(f"data set {name!r}: the project {project_id!r} has one of this name")
    dataset_id = new_id()
    dataset = register(database.home, dataset_id, path, format=format, map=map, only=only)
    # A server may be started elsewhere: the map that is kept has absolute folders.
    row = DatasetRow(dataset_id, project_id, name, os.fspath(path.resolve()), dataset.sources.map, time.time())
    database.add_dataset(row)
    return dataset_id


def _anywhere(old: Sample, new: Sample, dataset: Dataset) -> Sample:
    """The sample under an absolute path, and under the id that it has where it was registered."""
    source = new.source
    if not is_uri(old.source):
        # Links are followed as the system does, for `..` means something else below one; a file keeps its name.
        folder, name = os.path.split(dataset.path(old))
        with suppress(ValueError):  # a zero byte
            source = os.path.join(os.path.realpath(folder), name)
    return replace(new, source=source, id=known_id(old))


class Standing:
    """Data sets as they stand, read again only when they have changed; the last MOST_READ of them are remembered."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._lock = Lock()
        self._locks: dict[str, Lock] = {}
        self._read: dict[str, tuple[tuple[int, int], Dataset]] = {}

    def dataset(self, dataset_id: str, name: str, map: Sequence[str] = ()) -> Dataset:
        """Raises InputError when it is gone."""
        path = dataset_folder(self._home, dataset_id) / CURRENT
        with self._lock:
            lock = self._locks.setdefault(dataset_id, Lock())
        with lock:  # who asks for another data set does not wait while this one is read
            try:
                status = path.stat()
            except OSError as error:
                raise InputError(f"data set {name!r}: its manifest cannot be read: {error.strerror}") from error
            stamp = (status.st_mtime_ns, status.st_ino)
            known = self._read.get(dataset_id)
            if known is None or known[0] != stamp:
                known = (stamp, replace(read_samples(path, map=map), name=name))
        with self._lock:
            self._read.pop(dataset_id, None)
            self._read[dataset_id] = known
            while len(self._read) > MOST_READ:
                del self._read[next(iter(self._read))]
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


def change(home: Path, dataset_id: str, what: Callable[[Dataset], Sequence[Sample]], map: Sequence[str] = ()) -> None:
    """Replace the samples of a data set by what becomes of them; drawings without a file get one. Whatever fails, the
    data set is as it was."""
    folder = dataset_folder(home, dataset_id)
    with alone(folder):
        before = read_samples(folder / CURRENT, map=map)
        after = list(what(before))
        if all(new is old for new, old in zip(after, before.samples, strict=True)):
            return
        files: dict[str, bytes] = {}
        settled_samples = [_with_files(sample, files) for sample in after]
        for sample in settled_samples:
            format_sample(sample)  # what no manifest can hold is said before anything is written
        for name, content in files.items():
            (folder / _ANNOTATIONS).mkdir(exist_ok=True)
            write_bytes(folder / name, content)  # also where it is there: a person may have confirmed it since
        write_manifest(folder / CURRENT, settled_samples)


# ---- What a task finds out. ----


def begin(home: Path, dataset_id: str, task_id: str) -> None:
    """Remember what a task begins with, so that what changes meanwhile is told apart from what the task found out."""
    folder = dataset_folder(home, dataset_id)
    base = folder / _BASE.format(task_id)
    with alone(folder):
        if not base.is_file():
            write_bytes(base, (folder / CURRENT).read_bytes())


def begun_with(home: Path, dataset_id: str, task_id: str, name: str, map: Sequence[str] = ()) -> Dataset:
    """The data set as a task began with it. Raises InputError when it is gone."""
    path = dataset_folder(home, dataset_id) / _BASE.format(task_id)
    return replace(read_samples(path, map=map), name=name)


def land(
    home: Path,
    dataset_id: str,
    task_id: str,
    out: Path,
    other: Dataset | None = None,
    map: Sequence[str] = (),
) -> int:
    """Take over what a task found out: what its result says otherwise than the data set that it began with, where
    nobody has said anything else meanwhile. other: the data that the task was about instead, where it named a manifest.
    map: that of the data set, and of `other`. Landing twice is landing once. -> how many samples got other labels."""
    folder = dataset_folder(home, dataset_id)
    base = _by_place(other if other is not None else read_samples(folder / _BASE.format(task_id), map=map))
    result = _by_place(read_samples(out / RESULT_NAME, map=map))
    changed = 0

    def merged(before: Dataset) -> list[Sample]:
        nonlocal changed
        after = []
        for place, sample in _by_place(before).items():
            old, new = base.get(place), result.get(place)
            mine = sample if old is None or new is None else _merged(sample, old, new)
            changed += mine.labels != sample.labels
            after.append(mine)
        return after

    change(home, dataset_id, merged, map)
    return changed


def forget_base(home: Path, dataset_id: str, task_id: str) -> None:
    """What a task began with is needed no more."""
    (dataset_folder(home, dataset_id) / _BASE.format(task_id)).unlink(missing_ok=True)


def _by_place(dataset: Dataset) -> dict[tuple[str, int], Sample]:
    """Every sample by where its file really lies, and the how manieth it is of this file."""
    seen: Counter[str] = Counter()
    found = {}
    for sample in dataset:
        try:
            real = os.path.realpath(dataset.path(sample))
        except (ImageError, OSError, ValueError):  # a URI that is not mapped
            real = sample.source
        found[real, seen[real]] = sample
        seen[real] += 1
    return found


def _merged(now: Sample, old: Sample, new: Sample) -> Sample:
    """The sample as it is now, with what is new against what it was."""
    changes: dict[str, Any] = {}
    if _said(new.labels) != _said(old.labels) and _said(now.labels) == _said(old.labels):
        # The files of a task stay with the task: a drawing becomes the data set's own.
        changes["labels"] = tuple(
            replace(label, annotation_loc=None) if label.drawing is not None else label for label in new.labels
        )
        changes |= {"hard": new.hard, "hard_coefficient": new.hard_coefficient}
    properties = dict(now.property)
    # What is doubtful about labels comes with them.
    for name in {*old.property, *new.property} - (set() if "labels" in changes else set(HARD_KEYS)):
        was, wanted = old.property.get(name), new.property.get(name)
        if wanted != was and now.property.get(name) == was:
            properties.pop(name, None)
            if wanted is not None:
                properties[name] = wanted
    if properties != dict(now.property):
        changes["property"] = properties
    return replace(now, **changes) if changes else now


def _said(labels: Sequence[Label]) -> list[Label]:
    """Labels, wherever their files lie."""
    return [replace(label, annotation_loc=None, annotation_format=None) for label in labels]


def _with_files(sample: Sample, files: dict[str, bytes]) -> Sample:
    """The sample with a file for every drawing that has none, by what it holds, and of its own: who confirms one
    changes no other."""
    if all(label.drawing is None or label.annotation_loc for label in sample.labels):
        return sample
    labels: list[Label] = []
    for label in sample.labels:
        if label.drawing is not None and not label.annotation_loc:
            content = format_voc(label.drawing)
            of = known_id(sample).encode("utf-8", "surrogatepass")
            name = f"{_ANNOTATIONS}/{hashlib.sha256(of + content).hexdigest()[:40]}.xml"
            files[name] = content
            label = replace(label, annotation_loc=name, annotation_format=VOC_FORMAT)
        labels.append(label)
    return replace(sample, labels=tuple(labels))
