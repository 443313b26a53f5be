"""Listing -> samples with the boxes of COCO documents.

One or more documents (`annotations.json`, `annotations/instances_train.json`, `train/_annotations.coco.json`) that list
the images; not listed: unlabeled; listed without an annotation: nothing is there, as a person says, or a machine where
all that the document holds has scores. Boxes are xyxy pixels as they are written. An annotation that cannot be read is
a `Failure`; what was passed over is said in notes. No image is opened.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from engine.coco import CocoImage, looks_like_coco, parse_coco
from engine.errors import Failure, InputError
from engine.folders.found import Found
from engine.folders.listing import Listing, ending_of, last_part_of
from engine.folders.sizes import with_size
from engine.folders.texts import LIST_BYTES, read_bytes
from engine.samples import OBJECT_DETECTION, Label, Sample

#: Names of COCO documents, how many there may be, and who draws what comes with a score.
_COCO_NAME: Final = re.compile(r"(instances|annotation|coco|labels)[^/]*$|(^|/)annotations/[^/]*$", re.IGNORECASE)
_COCO_WORDS: Final = re.compile(r"instances|coco|annotations", re.IGNORECASE)
_MOST_DOCUMENTS: Final = 64
COCO_MACHINE: Final = "coco"


def read_coco(listing: Listing) -> Found:
    """The documents say what is drawn on the images that they list. A name is that of the file, from where the document
    lies, or from a folder beside or above it; else of the only image of that name. The usage is that which the name of
    the document says. Raises InputError where there is no document, or one is broken."""
    documents = coco_documents(listing)
    if not documents:
        raise InputError("a COCO folder has a document with images, annotations and categories, as annotations.json")
    drawn: dict[str, Sample] = {}
    failures: list[Failure] = []
    lost: list[str] = []
    outlines = crowds = twice = 0
    find = _Finder(listing.images)
    unplaced: list[tuple[str, CocoImage]] = []

    def place_at(source: str, image: CocoImage, document: str) -> None:
        by = COCO_MACHINE if image.scored else None
        label = Label(OBJECT_DETECTION, annotated_by=by, drawing=image.drawing)
        drawn[source] = with_size(Sample(source, (label,), usage=_usage_of(document)))

    for place in documents:
        found = parse_coco(read_bytes(listing.root / place, LIST_BYTES), place)
        failures += found.failures
        outlines, crowds = outlines + found.outlines, crowds + found.crowds
        for image in found.images:
            source = find.exactly(image.file_name, place)
            if source is None:
                unplaced.append((place, image))
            elif source in drawn:
                twice += 1
            else:
                place_at(source, image, place)
    for place, image in unplaced:  # where a document says exactly what it means, no other one's guess counts
        source = find.by_name(image.file_name)
        if source is None or source in drawn:
            lost.append(image.file_name)
        else:
            place_at(source, image, place)
    notes = [
        (outlines, "outlines beside boxes were passed over: boxes are read"),
        (crowds, "regions of many objects (iscrowd) were left out"),
        (twice, "images are listed more than once: the first counts"),
        (len(lost), f"images are listed and not in the folder, such as {lost[0] if lost else ''}"),
    ]
    samples = tuple(drawn.get(image) or Sample(image) for image in listing.images)
    return Found(samples, tuple(failures), tuple(f"{count:,} {words}" for count, words in notes if count))


def coco_documents(listing: Listing) -> list[str]:
    """Files that are named like COCO documents, and look like them."""
    named = [name for name in listing.others if ending_of(name) == ".json" and _COCO_NAME.search(name)]
    named.sort(key=lambda name: _COCO_WORDS.search(last_part_of(name)) is None)  # the likeliest first
    found = []
    for name in named[:_MOST_DOCUMENTS]:
        with suppress(InputError):
            if looks_like_coco(read_bytes(listing.root / name, LIST_BYTES)):
                found.append(name)
    return sorted(found)


class _Finder:
    """Where the image of a name lies."""

    def __init__(self, images: Sequence[str]) -> None:
        self._images = frozenset(images)
        self._by_name: dict[str, list[str]] = {}
        for image in images:
            self._by_name.setdefault(last_part_of(image), []).append(image)

    def exactly(self, name: str, document: str) -> str | None:
        """The image at the place that a document says."""
        folder = document.rpartition("/")[0]
        part = next(iter(re.findall(r"instances_(\w+)\.json$", document)), "")
        while True:
            for below in ("", "images/", *((f"{part}/", f"images/{part}/") if part else ())):
                if (path := f"{folder}/{below}{name}".removeprefix("/")) in self._images:
                    return path
            if not folder:
                break
            folder = folder.rpartition("/")[0]
        return None

    def by_name(self, name: str) -> str | None:
        """The only image of that name, wherever it lies."""
        alike = self._by_name.get(last_part_of(name), [])
        return alike[0] if len(alike) == 1 else None


def _usage_of(document: str) -> str:
    words = re.split(r"[^a-z]+", document.lower())
    known = {"train": "TRAIN", "val": "EVAL", "valid": "EVAL", "validation": "EVAL", "eval": "EVAL", "test": "TEST"}
    return next((known[word] for word in reversed(words) if word in known), "")
