"""A folder that a result is written to: nothing outside it is touched, and nothing in it that is not ours.

In: names that a data set chose (labels, file names) and what belongs under them. Out: files below one folder,
under names that every file system takes. What is written is journaled first, one JSON string a line in
JOURNAL, so that a later run may replace it, also after this one was killed, and so that a user's own files are
never replaced or deleted. Who writes there has the journal locked, where the system knows such locks: two runs never
share a folder, and a lock ends with the process that holds it. Knows nothing of samples or formats.

Single files are not flushed to disk one by one (3 ms each on an ordinary disk: minutes for 100,000 images);
each appears whole, by a rename.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from stat import S_ISREG
from types import TracebackType
from typing import IO, Final

import orjson

from engine.errors import ImageError, OutputError

if sys.platform != "win32":
    import fcntl

JOURNAL: Final = ".labelengine-wrote"
_PART: Final = ".labelengine-part"

#: A name may have 255 bytes on most file systems; the rest is room for an extension and a number.
_NAME_BYTES: Final = 200
_FORBIDDEN: Final = frozenset('/\\<>:"|?*\x7f') | {chr(code) for code in range(32)}
_RESERVED: Final = frozenset(
    {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}
)


def safe_name(name: str) -> str:
    """`name` as one file or folder name that every file system takes, and the same one if it already is.

    What cannot stand there becomes %XX, its UTF-8 bytes in hexadecimal: `/ \\ < > : " | ? *` and control
    characters anywhere, a dot in front (hidden files, `..`), a dot or space at the end, the first letter of
    a reserved name (`con`, `nul`, ...). More than 200 bytes are cut to 170, `~`, 8 digits of their SHA-256, and the
    extension.

    >>> safe_name("a/b"), safe_name(".."), safe_name("CON"), safe_name("straße 1.5")
    ('a%2Fb', '%2E%2E', '%43ON', 'straße 1.5')
    """
    assert name
    last = len(name) - 1
    reserved = name.split(".", 1)[0].casefold() in _RESERVED
    safe = "".join(
        _percent(char)
        if char in _FORBIDDEN
        or "\ud800" <= char <= "\udfff"
        or (i == 0 and (char == "." or reserved))
        or (i == last and char in ". ")
        else char
        for i, char in enumerate(name)
    )
    encoded = safe.encode()
    if len(encoded) <= _NAME_BYTES:
        return safe
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    extension = os.path.splitext(safe)[1] if len(os.path.splitext(safe)[1].encode()) <= 20 else ""
    return f"{encoded[: _NAME_BYTES - 30].decode('utf-8', 'ignore')}~{digest}{extension}"


def _percent(char: str) -> str:
    return "".join(f"%{byte:02X}" for byte in char.encode("utf-8", "surrogatepass"))


class OutFolder:
    """`folder`, opened for writing: new, empty, or (overwrite) cleared of what an earlier run wrote there.

    inputs: paths that are still to be read; clearing never deletes one of them. All names given and returned
    are relative to the folder, with `/`. A context manager; leaving it closes the journal, and lets others write there.
    Raises OutputError when the folder is not ours to write to, another run writes there, or the operating system
    refuses.
    """

    def __init__(self, folder: Path, *, overwrite: bool = False, inputs: Callable[[], Iterable[Path]] = tuple) -> None:
        self.folder = folder
        self._taken: set[str] = set()
        self._next: dict[str, int] = {}
        self._checked: set[str] = set()
        with _refusals(folder):
            present = _entries(folder)
            if present and not overwrite:
                raise OutputError(
                    f"{folder}: must be new or empty, got {len(present):,} entries; "
                    "--overwrite replaces what an earlier run wrote there"
                )
            if present and JOURNAL not in present:
                raise OutputError(
                    f"{folder}: nothing in it was written by an earlier run ({JOURNAL} is missing), "
                    "so nothing may be replaced; choose a new folder"
                )
            folder.mkdir(parents=True, exist_ok=True)
            self._real = os.path.realpath(folder)
            self._journal = _locked(folder)
            try:
                if present:
                    self._clear(inputs)
                self._journal.truncate(0)
            except BaseException:
                self._journal.close()
                raise
            self._folds = (folder / JOURNAL.upper()).exists()  # a file system where "Cat" is "cat"

    def __enter__(self) -> OutFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._journal.close()

    def claim(self, name: str, *, sidecar: str = "") -> str:
        """`name`, or the first of `x-2.jpg`, `x-3.jpg`, ... that is free, together with its sidecar (`.txt`)."""
        stem, extension = os.path.splitext(name)
        for candidate in self._candidates(stem, key=stem + sidecar if sidecar else name):
            names = {candidate + extension, candidate + sidecar} if sidecar else {candidate + extension}
            if not any(self._key(each) in self._taken or os.path.lexists(self.folder / each) for each in names):
                self._taken.update(map(self._key, names))
                return candidate + extension
        raise AssertionError("the candidates never end")

    def claim_folder(self, name: str) -> str:
        """`name`, or the first of `name-2`, `name-3`, ... that no other claim has; a folder of that name is shared."""
        for candidate in self._candidates(name, key=name + "/"):
            path, key = self.folder / candidate, self._key(candidate)
            if key not in self._taken and (not os.path.lexists(path) or _is_real_folder(path)):
                self._taken.add(key)
                return candidate
        raise AssertionError("the candidates never end")

    def write(self, name: str, content: bytes) -> None:
        """Write a new file. Raises OutputError, also when there is one that is not ours."""
        target = self.target(name)
        with _refusals(target):
            part = self.folder / _PART
            part.write_bytes(content)
            part.replace(target)

    def place(self, source: Path, name: str, *, copy: bool) -> None:
        """Make `source` appear under `name`: a hard link where that is possible, else (or with `copy`) a copy.

        Raises ImageError when the source is missing, empty, not a file or unreadable; OutputError as `write`.
        """
        _check_source(source)
        target = self.target(name)
        if not copy:
            with suppress(OSError):  # another file system, no permission, too many links: copied instead
                os.link(os.path.realpath(source), target)
                return
        with _refusals(target):
            part = self.folder / _PART
            with part.open("wb") as file:
                for chunk in _chunks(source):
                    file.write(chunk)
            with suppress(OSError):  # times and mode are a courtesy
                shutil.copystat(source, part)
            part.replace(target)

    def below(self, folder: str) -> OutFolder:
        """The same folder as seen from one inside it: names are relative to that, what is written is journaled here."""
        return self if not folder else _Below(self, folder)

    def target(self, name: str) -> Path:
        """The path of a new file of that name, journaled, its folder made. Raises OutputError."""
        path = self.folder / name
        assert _is_below(name), name
        with _refusals(path):
            self._make_folder(path.parent)
            if os.path.lexists(path):
                raise OutputError(f"{path}: exists and was not written by an earlier run; it is left alone")
            self._journal.write(orjson.dumps(name) + b"\n")
            self._journal.flush()  # before the file: a killed run leaves nothing that the next one may not replace
        return path

    def _make_folder(self, folder: Path) -> None:
        if str(folder) in self._checked:
            return
        folder.mkdir(parents=True, exist_ok=True)
        if not self._holds(folder):
            raise OutputError(f"{folder}: leads out of {self.folder}; nothing is written there")
        self._checked.add(str(folder))

    def _clear(self, inputs: Callable[[], Iterable[Path]]) -> None:
        """Delete what the journal lists, and the folders that this leaves empty."""
        ours = [name for name in _journaled(self._journal) if self._is_ours(name)]
        if ours:
            kept = {os.path.realpath(path) for path in inputs()}
            for name in ours:
                if os.path.realpath(self.folder / name) in kept:
                    raise OutputError(
                        f"{self.folder / name}: is part of the data set being read; choose another folder"
                    )
        for name in [_PART, *reversed(ours)]:  # the first one last: it tells, also when this is killed, what there is
            with suppress(FileNotFoundError):
                os.unlink(self.folder / name)
        parents = {parent.as_posix() for name in ours for parent in Path(name).parents} - {"."}
        for parent in sorted(parents, key=lambda folder: -folder.count("/")):
            with suppress(OSError):  # not empty: a user's file lies there
                os.rmdir(self.folder / parent)

    def _is_ours(self, name: str) -> bool:
        """Whether a line of the journal may be believed: a file or link below this folder, not reached by links."""
        path = self.folder / name
        return _is_below(name) and not _is_real_folder(path) and self._holds(path.parent) and os.path.lexists(path)

    def _holds(self, folder: Path) -> bool:
        real = os.path.realpath(folder)
        return real == self._real or real.startswith(self._real.rstrip(os.sep) + os.sep)

    def _candidates(self, stem: str, *, key: str) -> Iterator[str]:
        """stem, stem-2, stem-3, ...; a later call with the same key goes on where the last one ended."""
        for n in itertools.count(self._next.get(key, 1)):
            self._next[key] = n + 1
            yield stem if n == 1 else f"{stem}-{n}"

    def _key(self, name: str) -> str:
        return name.casefold() if self._folds else name


class _Below(OutFolder):
    """A folder inside an `OutFolder`, with its journal and its claims."""

    def __init__(self, whole: OutFolder, inside: str) -> None:
        self._whole = whole
        self._inside = f"{inside}/"
        self.folder = whole.folder / inside

    def claim(self, name: str, *, sidecar: str = "") -> str:
        return self._whole.claim(self._inside + name, sidecar=sidecar).removeprefix(self._inside)

    def claim_folder(self, name: str) -> str:
        return self._whole.claim_folder(self._inside + name).removeprefix(self._inside)

    def write(self, name: str, content: bytes) -> None:
        self._whole.write(self._inside + name, content)

    def place(self, source: Path, name: str, *, copy: bool) -> None:
        self._whole.place(source, self._inside + name, copy=copy)

    def below(self, folder: str) -> OutFolder:
        return self._whole.below(self._inside + folder) if folder else self

    def target(self, name: str) -> Path:
        return self._whole.target(self._inside + name)


def own(folder: Path, name: str) -> None:
    """Journal a file that is written into a finished folder later on. Raises OutputError."""
    with _refusals(folder / name), (folder / JOURNAL).open("ab") as journal:
        journal.write(orjson.dumps(name) + b"\n")


def check_nothing_left(folder: Path, record: str) -> None:
    """For a run that would go on where no `record` of an earlier one can be read. Raises OutputError where files that
    a run wrote are there all the same: they are another command's."""
    with _refusals(folder), suppress(FileNotFoundError, NotADirectoryError), (folder / JOURNAL).open("rb") as journal:
        left = sum(_is_below(name) and os.path.lexists(folder / name) for name in set(_journaled(journal)))
        if left:
            raise OutputError(
                f"{folder}: holds {left:,} files that another command wrote, and no {record} to go on with; "
                "--overwrite replaces them, or choose a new folder"
            )


@contextmanager
def _refusals(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        raise OutputError(f"{path}: cannot be written: {getattr(error, 'strerror', None) or error}") from error


def _entries(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []
    except NotADirectoryError as error:
        raise OutputError(f"{folder}: must be a folder, got a file") from error


def _locked(folder: Path) -> IO[bytes]:
    """The journal of a folder, nobody else's until it is closed. Raises OutputError where another run has it."""
    journal = (folder / JOURNAL).open("a+b")
    if sys.platform != "win32":
        try:
            fcntl.flock(journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            journal.close()
            raise OutputError(f"{folder}: another run writes there; wait for its end, or choose a new folder") from None
        except OSError:  # a file system without locks
            pass
    return journal


def _journaled(journal: IO[bytes]) -> Iterator[str]:
    journal.seek(0)
    for line in journal.read().splitlines():
        with suppress(orjson.JSONDecodeError):  # the last line of a killed run
            name = orjson.loads(line)
            if isinstance(name, str):
                yield name


def _is_below(name: str) -> bool:
    return bool(name) and "\0" not in name and all(part not in ("", ".", "..") for part in name.split("/"))


def _is_real_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _check_source(source: Path) -> None:
    try:
        status = os.stat(source)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ImageError("missing", "no such file") from error
    except (OSError, ValueError) as error:
        raise ImageError("unreadable", f"cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not S_ISREG(status.st_mode):
        raise ImageError("not_a_file", "expected a file, got something that is not a regular file")
    if status.st_size == 0:
        raise ImageError("empty", "expected an image, got 0 bytes")


def _chunks(source: Path) -> Iterator[bytes]:
    try:
        with source.open("rb") as file:
            while chunk := file.read(1 << 20):
                yield chunk
    except OSError as error:
        raise ImageError("unreadable", f"cannot be read: {error.strerror or error}") from error
