"""From a source, as a data set names it, to a path on this machine, and back.

A source is a path (absolute, or relative to the data set), a `file://` URI, a `s3://`, `s3a://` or `obs://` URI
with a prefix map (`s3://bucket/` -> a local folder), or `content://TEXT`, which is no file at all. Nothing
here reads a file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from engine.errors import ImageError, UsageError

_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+://")


@dataclass(frozen=True, slots=True)
class Sources:
    """Where sources lie: relative ones below `root`, URIs that begin with a prefix below that prefix's folder. A prefix
    ends where a part of their path does: `s3://b/photo-` does not map `s3://b/photo-1/a.jpg`."""

    root: Path
    prefixes: tuple[tuple[str, Path], ...] = ()

    @property
    def map(self) -> tuple[str, ...]:
        """The prefixes as `--map` takes them."""
        return tuple(f"{prefix}={folder}" for prefix, folder in self.prefixes)

    def path(self, source: str) -> Path:
        """The local path of a source. Raises ImageError (kind "remote") for a URI that no prefix maps."""
        for prefix, folder in self.prefixes:
            if _is_below(source, prefix):
                return folder / source[len(prefix) :].lstrip("/")  # `folder / "/1.jpg"` would be /1.jpg
        if source.startswith("file://"):
            try:
                return Path(unquote(urlsplit(source).path))
            except ValueError as error:  # as file://[
                raise ImageError("remote", f"{source[:200]}: no URI: {error}") from None
        if is_uri(source):
            raise ImageError("remote", f"{source}: not on this machine; map its prefix with --map PREFIX=FOLDER")
        return self.root / source

    def rebased(self, source: str, root: Path) -> str:
        """The same source as a data set stored in `root` names it: only relative paths change."""
        if is_uri(source) or os.path.isabs(source):
            return source
        return Path(os.path.relpath((self.root / source).absolute(), root.absolute())).as_posix()


def is_uri(source: str) -> bool:
    return _SCHEME.match(source) is not None


def _is_below(source: str, prefix: str) -> bool:
    """Whether a source begins with a prefix and this ends where a part of its path does: `s3://b` is none of
    `s3://b2/1.jpg`."""
    return source.startswith(prefix) and (prefix.endswith("/") or source[len(prefix) :][:1] in ("", "/"))


def parse_prefixes(entries: Sequence[str]) -> tuple[tuple[str, Path], ...]:
    """`["s3://bucket/=/data/"]` -> ((`s3://bucket/`, Path("/data")),), longest prefix first. A relative folder is one
    of where this is read, and comes out absolute. Raises UsageError."""
    prefixes = []
    for entry in entries:
        prefix, equals, folder = entry.partition("=")
        if not (equals and folder and is_uri(prefix)):
            raise UsageError(f"--map: must be SCHEME://PREFIX=FOLDER, got {entry!r}")
        prefixes.append((prefix, Path(folder).absolute()))
    return tuple(sorted(prefixes, key=lambda pair: -len(pair[0])))
