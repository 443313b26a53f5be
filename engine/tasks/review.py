"""What a person does with the groups of a finished grouping: label one, or take one out.

In: OUT of a grouping, and the number of a group. Changed: OUT/result.manifest and the manifest of the group's folder,
each whole or not at all, so that both may be interrupted and given again. While there are files to be moved,
OUT/dropped-N.moves has a line for each that has come to its new place: what was killed, or could not take a file away,
goes on from there. The features and the page stay as they were made.
(CreateTask, auto grouping: images can be labeled or cleaned by group.)
"""

from __future__ import annotations

import errno
import filecmp
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from engine.dataset import RESULT_NAME
from engine.errors import Failure, ImageError, InputError, OutputError, UsageError
from engine.manifest import read_manifest, write_manifest
from engine.outfolder import own, safe_name
from engine.samples import IMAGE_CLASSIFICATION, Label, Sample, undoubted
from engine.sources import Sources, parse_prefixes
from engine.tasks.grouping import GROUP_NAME, GROUPS_FOLDER
from engine.tasks.runner import Status, read_answer
from engine.tasks.schema import AUTO_GROUPING

DROPPED_NAME: Final = "dropped.manifest"
MOVES_NAME: Final = "dropped-{}.moves"


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
    replace_human; labels of machines are replaced, and what marks the sample as hard goes with them. Raises InputError
    when `out` holds no finished grouping, UsageError when it has no such group or the label is empty.
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
        return undoubted(sample, (*others, made))

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
    Those of samples that an earlier call took out, finished or interrupted, are moved too, unless they lie there.
    Without it no file is touched. map: as for `read_samples`. A file that cannot be moved is a failure and stays where
    it is; one that can only not be taken away lies at both places until a further call can. Raises InputError and
    UsageError as `label_group`, OutputError when `to` cannot be written.
    """
    attribute = _attribute(out, number)
    path, dropped_path = out / RESULT_NAME, out / DROPPED_NAME
    kept: list[Sample] = []
    dropped: list[Sample] = []
    for sample in read_manifest(path):
        (dropped if _is_in(sample, attribute, number) else kept).append(sample)
    others: list[Sample] = []
    before: list[Sample] = []  # of this group, by an earlier call
    for sample in read_manifest(dropped_path) if dropped_path.is_file() else ():
        (before if _is_in(sample, attribute, number) else others).append(sample)
    listed = {sample.source for sample in dropped}
    group = [*dropped, *(sample for sample in before if sample.source not in listed)]
    sources = Sources(out, parse_prefixes(map))
    rows = [] if to is None else [row for row, sample in enumerate(group) if not _lies_in(to, sample, sources)]
    _check_found(path, number, len(dropped) + len(rows))
    # First the records, so that whatever happens to the files, no manifest names what is not there.
    own(out, DROPPED_NAME)
    write_manifest(dropped_path, [*others, *group])
    write_manifest(path, kept)
    if to is None:
        return Reviewed(number, len(dropped))
    moves = MOVES_NAME.format(number)
    own(out, moves)
    moved, failures = 0, []
    try:
        for row, found in _moved(group, rows, sources, to, _group_manifest(out, number).parent, out / moves):
            if isinstance(found, Failure):
                failures.append(found)
            else:
                group[row], moved = found, moved + 1
    finally:
        write_manifest(dropped_path, [*others, *group])
    if not failures:  # else a further call goes on from there
        (out / moves).unlink(missing_ok=True)
    return Reviewed(number, len(dropped), moved=moved, failures=tuple(failures))


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


def _lies_in(to: Path, sample: Sample, sources: Sources) -> bool:
    with suppress(ImageError, OSError):
        return sources.path(sample.source).parent.resolve() == to.resolve()
    return False


def _moved(
    group: Sequence[Sample], rows: Iterable[int], sources: Sources, to: Path, folder: Path, moves: Path
) -> Iterator[tuple[int, Sample | Failure]]:
    """Move the files of these rows below `to`; for each the sample as it lies then, or why it could not be moved.

    folder: of the group, whose hard links go. moves: a file that remembers them, also those of an earlier call.
    """
    try:
        to.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{to}: cannot be written: {error.strerror or error}") from error
    links = _inodes(folder)
    known = _known(moves)
    paths: dict[int, Path] = {}
    for row in rows:
        try:
            paths[row] = sources.path(group[row].source)
        except ImageError as error:
            yield row, Failure(group[row].source, "unreadable", f"was not moved: {error}")
    with moves.open("a") as record:
        for row in sorted(paths, key=lambda row: not paths[row].is_symlink()):  # links while there is what they mean
            sample, path = group[row], paths[row]
            try:
                if sample.source in known and _is_moved(path, known[sample.source][0], to):
                    target, inode = known[sample.source]
                else:
                    inode = _inode(path)
                    target = _placed(path, to)
                    record.write(json.dumps([sample.source, os.fspath(target.resolve()), *inode]) + "\n")
                    record.flush()  # before the file goes: who is killed now finds it
                path.unlink(missing_ok=True)
                for link in links.get(inode, ()):
                    link.unlink(missing_ok=True)
            except OSError as error:
                yield row, Failure(sample.source, "unreadable", f"was not moved: {error.strerror or error}")
                continue
            source = os.path.relpath(target.resolve(), sources.root.resolve())
            yield row, replace(sample, source=Path(source).as_posix())


def _known(moves: Path) -> dict[str, tuple[Path, tuple[int, ...]]]:
    """Where the files lie that an earlier call has moved, or begun to, and the inodes they had, by their sources."""
    known: dict[str, tuple[Path, tuple[int, ...]]] = {}
    with suppress(FileNotFoundError):
        for line in moves.read_text().splitlines():
            with suppress(json.JSONDecodeError):  # the last line of a killed call
                source, target, *inode = json.loads(line)
                known[source] = Path(target), tuple(inode)
    return known


def _is_moved(path: Path, target: Path, to: Path) -> bool:
    """Whether a file lies at the target, and at its path none, or the same, linked or copied to here, that has still to
    go. A copy is known by its content: another file system may have coarser times."""
    if not target.is_file() or not path.exists():  # what is left of a symbolic link may go
        return target.is_file()
    return target.parent.samefile(to) and (path.samefile(target) or filecmp.cmp(path, target, shallow=False))


def _placed(path: Path, to: Path) -> Path:
    """Make a file appear below `to` under the first free name; a link is made first, which never replaces anything.
    What is a symbolic link becomes the file that it means."""
    stem, extension = os.path.splitext(safe_name(path.name))
    count = 1
    while True:
        target = to / (f"{stem}{extension}" if count == 1 else f"{stem}-{count}{extension}")
        try:
            os.link(os.path.realpath(path), target)
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
        return target


def _inode(path: Path) -> tuple[int, ...]:
    """What all hard links of a file have in common: its device and number."""
    status = path.stat()
    return status.st_dev, status.st_ino


def _inodes(folder: Path) -> dict[tuple[int, ...], list[Path]]:
    """The files of a group's folder by what they are hard links of."""
    found: dict[tuple[int, ...], list[Path]] = {}
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.is_file() and not path.is_symlink():
            found.setdefault(_inode(path), []).append(path)
    return found
