"""Listing -> samples with labels of whole images: plain images, tree, tile.

- images: any layout, recursive; nothing is a label.
- tree: `.../label/1.jpg`; the last folder level is the label, images at the root are unlabeled.
- tile: `x/1.jpg`, `x/1.txt`; one label a line, UTF-8, blank lines skipped, repeated ones once; no or an empty txt:
  unlabeled.

A list of labels that cannot be read is a `Failure`; what was passed over is said in notes. No image is opened.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from engine.errors import Failure, InputError
from engine.folders.found import Found, unused
from engine.folders.listing import Listing, by_stem, stem_of
from engine.folders.texts import LIST_BYTES, read_text
from engine.samples import IMAGE_CLASSIFICATION, Label, Sample

#: Names of folders of a tree that are not the labels themselves: {folder: label}, written beside them.
LABELS_FILE: Final = "labelengine-labels.json"

#: A text of labels is small; longer files are logs or tables.
_TEXT_BYTES: Final = 1 << 16


def read_images(listing: Listing) -> Found:
    """Every image, unlabeled."""
    return Found(tuple(map(Sample, listing.images)))


def read_tree(listing: Listing) -> Found:
    """The name of the folder that an image lies in is its label. Raises InputError when no image lies in a folder."""
    if not any("/" in image for image in listing.images):
        raise InputError("a tree has its images in folders, one a label")
    labels, failures = _folder_labels(listing)
    samples, loose, folders = [], 0, set()
    for image in listing.images:
        folder, slash, _ = image.rpartition("/")
        name = folder.rpartition("/")[2]
        loose += not slash
        folders.add(folder)
        samples.append(Sample(image, (Label(IMAGE_CLASSIFICATION, name=labels.get(folder, name)),) if slash else ()))
    folders.discard("")
    merged = len(folders) - len({label.name for sample in samples for label in sample.labels})
    notes = [f"{loose:,} images at the root are unlabeled"] if loose else []
    if merged > 0:
        names = len(folders) - merged
        notes.append(f"{len(folders):,} folders share the names of {names:,} labels (the last level counts)")
    return Found(tuple(samples), failures, tuple(notes))


def _folder_labels(listing: Listing) -> tuple[Mapping[str, str], tuple[Failure, ...]]:
    if LABELS_FILE not in listing.others:
        return {}, ()
    try:
        labels = json.loads(read_text(listing.root / LABELS_FILE, LIST_BYTES))
        if not isinstance(labels, dict) or not all(isinstance(label, str) and label for label in labels.values()):
            raise InputError("must be an object {folder: label}")
    except (ValueError, RecursionError, InputError) as error:
        return {}, (Failure(LABELS_FILE, "annotation", f"{error}; folder names are taken as labels"),)
    return labels, ()


def read_tile(listing: Listing) -> Found:
    """The lines of the txt beside an image are its labels. Raises InputError when no image has a txt."""
    texts = by_stem(listing, ".txt")
    samples, failures, used = [], [], set()
    for image in listing.images:
        text = texts.get(stem_of(image))
        names: tuple[str, ...] = ()
        if text is not None:
            used.add(text)
            try:
                names = text_labels(listing.root / text)
            except InputError as error:
                failures.append(Failure(image, "annotation", f"{text}: {error}"))
        samples.append(Sample(image, tuple(Label(IMAGE_CLASSIFICATION, name=name) for name in names)))
    if not used:
        raise InputError("a tile folder has a .txt of labels beside an image")
    return Found(tuple(samples), tuple(failures), unused(texts, used, ".txt"))


def text_labels(path: Path) -> tuple[str, ...]:
    """The distinct lines that are not blank. Raises InputError when the file is not a small UTF-8 text."""
    return tuple(dict.fromkeys(line for raw in read_text(path, _TEXT_BYTES).split("\n") if (line := raw.strip())))
