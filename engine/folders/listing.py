"""A folder -> `Listing`: what lies below it, looked at once; and the names of files, taken apart.

Sources are paths relative to the folder, with `/`, sorted as strings; hidden files and folders are skipped; extensions
count in any letter case. A folder that several links lead to is read once, by its real path where there is one; a link
to a folder above is not followed. What cannot be read is a `Failure`. Opens no file, and knows no format.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from engine.errors import Failure

IMAGE_EXTENSIONS: Final = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif")


@dataclass(frozen=True, slots=True)
class Listing:
    """What lies below a folder: relative paths, sorted. `folders` includes "" for the root itself."""

    root: Path
    images: tuple[str, ...]
    others: tuple[str, ...]
    folders: frozenset[str]
    failures: tuple[Failure, ...] = ()

    @property
    def seen(self) -> str:
        """In words, what is there: `12 images, 3 .txt, 1 without extension`."""
        endings = Counter(ending_of(name) or "without extension" for name in self.others)
        most = [f"{count:,} {ending}" for ending, count in sorted(endings.items(), key=lambda e: (-e[1], e[0]))]
        rest = [f"{len(most) - 5:,} other kinds"] if len(most) > 5 else []
        return ", ".join([f"{len(self.images):,} images", *most[:5], *rest])


def list_folder(root: Path) -> Listing:
    """Everything that is not hidden below `root`. Unreadable folders, dead links and names that are not UTF-8
    (no manifest can hold them) are failures."""
    images: list[str] = []
    others: list[str] = []
    folders: list[str] = []
    failures: list[Failure] = []
    above = {(status.st_dev, status.st_ino) for status in map(os.stat, Path(os.path.realpath(root)).parents)}
    seen: set[tuple[int, int]] = set()
    pending, links = [""], list[str]()
    while pending or links:
        if not pending:  # everything real has been seen: now what only a link leads to
            links.sort(reverse=True)
            pending.append(links.pop())
        folder = pending.pop()
        try:
            status = os.stat(root / folder)
            identity = (status.st_dev, status.st_ino)
            if identity in seen or identity in above:
                continue
            seen.add(identity)
            with os.scandir(root / folder) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            failures.append(Failure(folder or ".", "unreadable", f"folder cannot be read: {error.strerror or error}"))
            continue
        folders.append(folder)
        for entry in found:
            if entry.name.startswith("."):
                continue
            name = f"{folder}/{entry.name}" if folder else entry.name
            if not _is_unicode(entry.name):
                shown = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
                failures.append(Failure(shown, "unreadable", "its name is not UTF-8, which no manifest can hold"))
            elif _is(entry, os.DirEntry.is_dir):
                (links if entry.is_symlink() else pending).append(name)
            elif _is(entry, os.DirEntry.is_file):
                (images if ending_of(name) in IMAGE_EXTENSIONS else others).append(name)
            elif ending_of(name) in IMAGE_EXTENSIONS:
                dead = entry.is_symlink()
                reason = "a link that leads nowhere" if dead else "expected an image file, got a special file"
                failures.append(Failure(name, "missing" if dead else "not_a_file", reason))
    return Listing(root, tuple(sorted(images)), tuple(sorted(others)), frozenset(folders), tuple(failures))


def _is_unicode(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is(entry: os.DirEntry[str], test: Callable[[os.DirEntry[str]], bool]) -> bool:
    try:
        return test(entry)
    except OSError:  # a link to itself, a folder that may not be searched
        return False


# --- names


def ending_of(name: str) -> str:
    """`.jpg` for `a/1.JPG`."""
    return os.path.splitext(name)[1].lower()


def stem_of(name: str) -> str:
    """`a/1` for `a/1.JPG`."""
    return os.path.splitext(name)[0]


def last_part_of(name: str) -> str:
    """`1.JPG` for `a/1.JPG`."""
    return name.rpartition("/")[2]


def by_stem(listing: Listing, ending: str) -> dict[str, str]:
    """The files with that ending by their path without it; of `1.txt` and `1.TXT` the last in order."""
    return {stem_of(name): name for name in listing.others if ending_of(name) == ending}
