"""What a person does with the groups of a finished grouping: label one, or take one out.

In: OUT of a grouping, and the number of a group. Changed: OUT/result.manifest and the manifest of the group's folder,
each whole or not at all, so that both may be interrupted and given again. The features and the page stay as they were
made. (CreateTask, auto grouping: images can be labeled or cleaned by group.)
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from engine.dataset import RESULT_NAME
from engine.errors import Failure, ImageError, InputError, OutputError, UsageError
from engine.manifest import read_manifest, write_manifest
from engine.outfolder import own, safe_name
from engine.samples import IMAGE_CLASSIFICATION, Label, Sample
from engine.sources import Sources, parse_prefixes
from engine.tasks.grouping import GROUP_NAME, GROUPS_FOLDER
from engine.tasks.runner import Status, read_answer
from engine.tasks.schema import AUTO_GROUPING

DROPPED_NAME: Final = "dropped.manifest"


@dataclass(frozen=True, slots=True)
class Reviewed:
    """What became of a group. changed: samples labeled or taken out. kept: as a person labeled them. moved: files."""

    group: int
    changed: int
    kept: int = 0
    moved: int = 0
    failures: tuple[Failure, ...] = ()


def label_group(out: Path, number: int, label: str, *, by: str | None = None, replace_human: bool = False) -> Reviewed:
    """Give every sample of a group an image label, as a person's.

    by: who says so, in `annotated-by` as human/NAME. A sample that a person has labeled keeps its labels, unless
    replace_human; labels of machines are replaced. Raises InputError when `out` holds no finished grouping,
    UsageError when it has no such group or the label is empty.
    """
    if not label.strip():
        raise UsageError(f"label: must not be empty, got {label!r}")
    attribute = _attribute(out, number)
    made = Label(
        type=IMAGE_CLASSIFICATION,
        name=label,
        annotated_by=f"human/{by}" if by else "human",
        creation_time=datetime.now().strftime("%Y-%m-%d %H:%M:%S"),
    )

    def labeled(sample: Sample) -> Sample:
        mine = [each for each in sample.labels if each.type == IMAGE_CLASSIFICATION]
        if any(each.by_human for each in mine) and not replace_human:
            return sample
        others = tuple(each for each in sample.labels if each.type != IMAGE_CLASSIFICATION)
        return replace(sample, labels=(*others, made))

    path = out / RESULT_NAME
    changed, kept = 0, 0
    samples = []
    for sample in read_manifest(path):
        if _is_in(sample, attribute, number):
            after = labeled(sample)
            changed, kept = changed + (after is not sample), kept + (after is sample)
            sample = after
        samples.append(sample)
    _check_found(path, number, changed + kept)
    of_group = _group_manifest(out, number)
    if of_group.is_file():
        write_manifest(of_group, map(labeled, read_manifest(of_group)))
    write_manifest(path, samples)
    return Reviewed(number, changed, kept)


def drop_group(out: Path, number: int, *, to: Path | None = None, map: Sequence[str] = ()) -> Reviewed:
    """Take a group out of OUT/result.manifest; its samples go to OUT/dropped.manifest.

    to: a folder that the image files are moved to, never over another file; hard links to them in OUT/groups/N go.
    Without it no file is touched. map: as for `read_samples`. A file that cannot be moved is a failure and
    stays where it is. Raises InputError and UsageError as `label_group`, OutputError when `to` cannot be written.
    """
    attribute = _attribute(out, number)
    path, dropped_path = out / RESULT_NAME, out / DROPPED_NAME
    kept: list[Sample] = []
    dropped: list[Sample] = []
    for sample in read_manifest(path):
        (dropped if _is_in(sample, attribute, number) else kept).append(sample)
    _check_found(path, number, len(dropped))
    earlier = list(read_manifest(dropped_path)) if dropped_path.is_file() else []
    # First the records, so that whatever happens to the files, no manifest names what is not there.
    own(out, DROPPED_NAME)
    write_manifest(dropped_path, [*earlier, *dropped])
    write_manifest(path, kept)
    if to is None:
        return Reviewed(number, len(dropped))
    moved, failures = _move(dropped, Sources(out, parse_prefixes(map)), to, _group_manifest(out, number).parent)
    write_manifest(dropped_path, [*earlier, *moved])
    return Reviewed(number, len(dropped), moved=len(dropped) - len(failures), failures=tuple(failures))


def _attribute(out: Path, number: int) -> str:
    """The sample attribute that holds the group. Raises InputError, UsageError."""
    answer = read_answer(out)
    if answer.get("task_type") != AUTO_GROUPING or answer.get("status") != Status.SUCCEEDED:
        raise InputError(f"{out}: must be the folder of a finished grouping, got {answer.get('task_name')!r}")
    result: dict[str, Any] = answer["result"]
    numbers = [each["group"] for each in result["groups"]]
    if number not in numbers:
        raise UsageError(f"group: must be {min(numbers)}..{max(numbers)}, got {number}")
    return str(result["property"])


def _is_in(sample: Sample, attribute: str, number: int) -> bool:
    return sample.property.get(attribute) == str(number)


def _check_found(path: Path, number: int, found: int) -> None:
    if not found:
        raise UsageError(f"{path}: no sample is in group {number}; it was taken out before")


def _group_manifest(out: Path, number: int) -> Path:
    return out / GROUPS_FOLDER / str(number) / GROUP_NAME


def _move(dropped: Sequence[Sample], sources: Sources, to: Path, folder: Path) -> tuple[list[Sample], list[Failure]]:
    """Move the files below `to`; the samples as they lie then, and what could not be moved."""
    try:
        to.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{to}: cannot be written: {error.strerror or error}") from error
    links = _inodes(folder)
    moved: list[Sample] = []
    failures: list[Failure] = []
    for sample in dropped:
        try:
            path = sources.path(sample.source)
            inode = _inode(path)
            target = _moved(path, to)
        except (ImageError, OSError) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
            failures.append(Failure(sample.source, "unreadable", f"was not moved: {reason}"))
            moved.append(sample)
            continue
        for link in links.get(inode, ()):
            link.unlink(missing_ok=True)
        source = os.path.relpath(target.resolve(), sources.root.resolve())
        moved.append(replace(sample, source=Path(source).as_posix()))
    return moved, failures


def _moved(path: Path, to: Path) -> Path:
    """Move a file below `to` under the first free name; a link is made first, which never replaces anything."""
    stem, extension = os.path.splitext(safe_name(path.name))
    count = 1
    while True:
        target = to / (f"{stem}{extension}" if count == 1 else f"{stem}-{count}{extension}")
        try:
            os.link(path, target)
        except FileExistsError:
            count += 1
            continue
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK):
                raise
            if os.path.lexists(target):
                count += 1
                continue
            part = to / f".{target.name}.part"  # another file system
            shutil.copy2(path, part)
            part.replace(target)
        path.unlink()
        return target


def _inode(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _inodes(folder: Path) -> dict[tuple[int, int], list[Path]]:
    """The files of a group's folder by what they are hard links of."""
    found: dict[tuple[int, int], list[Path]] = {}
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.is_file() and not path.is_symlink():
            found.setdefault(_inode(path), []).append(path)
    return found
