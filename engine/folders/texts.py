"""Files of limited size, read whole: bytes, UTF-8 text, lines. What is larger or something else is an InputError that
says so, without the name of the file."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Final

from engine.errors import InputError

#: Bytes of a list or a document at most.
LIST_BYTES: Final = 1 << 30


def read_bytes(path: Path, limit: int) -> bytes:
    """A file of at most `limit` bytes. Raises InputError."""
    try:
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}") from error
    if len(content) > limit:
        raise InputError(f"must have at most {limit:,} bytes, got more")
    return content


def read_text(path: Path, limit: int) -> str:
    """A UTF-8 text of at most `limit` bytes, without a byte order mark; half a surrogate pair, as `exports` writes one,
    comes back as it went. Raises InputError."""
    content = read_bytes(path, limit)
    try:
        text = content.decode("utf-8-sig", "surrogatepass")
    except UnicodeDecodeError as error:
        raise InputError(f"must be UTF-8, got byte 0x{content[error.start]:02X} at {error.start}") from error
    if "\0" in text:
        raise InputError("must be text, got a zero byte")
    return text


def read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 text, without the space around them. Raises InputError."""
    return [line.strip() for line in read_text(path, LIST_BYTES).split("\n")]


def is_number(text: str) -> bool:
    """Whether a text says a finite number."""
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
