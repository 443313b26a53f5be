"""Writing files whole or not at all: beside the target, flushed to disk, then renamed over it."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import orjson

from engine.errors import OutputError


@contextmanager
def atomic_writer(path: Path) -> Iterator[IO[bytes]]:
    """A binary file that becomes `path` when the block ends well, and nothing when it does not.

    Raises OutputError naming the path when the operating system refuses (read-only, full disk, ...).
    """
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name[:50]}.", suffix=".part", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_UMASK)
        os.replace(temporary, path)
        temporary = None
        _sync_folder(path.parent)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            with suppress(OSError):
                os.unlink(temporary)


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path`, whole or not at all. Raises OutputError."""
    with atomic_writer(path) as file:
        file.write(content)


def as_json(document: object, *, indent: bool = True, default: Callable[[object], object] | None = None) -> bytes:
    """JSON of JSON values, a newline at its end; half a surrogate pair, which orjson refuses, comes out escaped.
    default: gives a JSON value for what is none."""
    option = orjson.OPT_APPEND_NEWLINE | (orjson.OPT_INDENT_2 if indent else 0)
    try:
        return orjson.dumps(document, default=default, option=option)
    except orjson.JSONEncodeError:
        return json.dumps(_finite(document), indent=2 if indent else None, default=default).encode() + b"\n"


def _finite(value: object) -> object:
    """The same with null in place of numbers that JSON does not have, as orjson writes it."""
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 to `path`, whole or not at all. Raises OutputError."""
    write_bytes(path, text.encode("utf-8"))


def _sync_folder(folder: Path) -> None:
    with suppress(OSError):  # some file systems do not let a folder be opened
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _read_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


_UMASK = _read_umask()
