"""Bytes under a key, appended to one file: what a long pass has already done, kept for the next try.

Records are written one after the other with a checksum; a record that a crash cut short is dropped when the file is
opened again, and everything before it is kept. Knows nothing of what the bytes mean.
"""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from types import TracebackType
from typing import Final

from engine.errors import OutputError

KEY_BYTES: Final = 16
_HEAD: Final = struct.Struct(f"<{KEY_BYTES}sII")  # key, length of the payload, CRC-32 of the payload


class Store:
    """An open store; a context manager. One process writes; threads may ask `key in store` while it does.

    Raises OutputError when the file cannot be opened or written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._places: dict[bytes, int] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a+b")
            self._end = self._flushed = self._scan()
            self._file.truncate(self._end)
        except OSError as error:
            raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.flush()
        self._file.close()

    def __contains__(self, key: bytes) -> bool:
        return key in self._places

    def __len__(self) -> int:
        return len(self._places)

    def put(self, key: bytes, payload: bytes) -> int:
        """Keep the payload under the key unless there is one already. Returns the place of the payload."""
        assert len(key) == KEY_BYTES
        if key in self._places:
            return self._places[key]
        place = self._end + _HEAD.size
        try:
            self._file.write(_HEAD.pack(key, len(payload), zlib.crc32(payload)) + payload)
        except OSError as error:
            raise OutputError(f"{self._path}: cannot be written: {error.strerror or error}") from error
        self._end = place + len(payload)
        self._places[key] = place
        return place

    def place(self, key: bytes) -> int:
        """Where the payload of a key that is in the store begins."""
        return self._places[key]

    def read(self, place: int, length: int, skip: int = 0) -> bytes:
        """`length` bytes of the payload at this place, after the first `skip`."""
        if place + skip + length > self._flushed:
            self.flush()
        return os.pread(self._file.fileno(), length, place + skip)

    def flush(self) -> None:
        """Hand everything to the operating system: it survives the end of this process."""
        try:
            self._file.flush()
        except OSError as error:
            raise OutputError(f"{self._path}: cannot be written: {error.strerror or error}") from error
        self._flushed = self._end

    def _scan(self) -> int:
        """Find the places of all whole records. Returns where the last of them ends."""
        self._file.seek(0)
        end = 0
        while len(head := self._file.read(_HEAD.size)) == _HEAD.size:
            key, length, checksum = _HEAD.unpack(head)
            payload = self._file.read(length)
            if len(payload) < length or zlib.crc32(payload) != checksum:
                break
            self._places[key] = end + _HEAD.size
            end += _HEAD.size + length
        return end
