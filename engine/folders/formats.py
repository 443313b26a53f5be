"""Listing -> which format a folder has (`detect`), and who reads it (`READERS`: Listing -> Found, by name of the
format). What is passed over for another format is said in words."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from engine.errors import InputError
from engine.folders.classified import read_images, read_tile, read_tree, text_labels
from engine.folders.coco_folder import coco_documents, read_coco
from engine.folders.found import Found
from engine.folders.listing import Listing, by_stem, stem_of
from engine.folders.texts import is_number
from engine.folders.voc_folder import devkits_of, read_voc_folder
from engine.folders.yolo import read_yolo

#: Longer lines of a text, where a format is guessed, are captions.
_LABEL_CHARS: Final = 128
#: Text files looked at to detect a tile folder, evenly spread.
_PROBES: Final = 500

#: Every folder format, by name.
READERS: Final[dict[str, Callable[[Listing], Found]]] = {
    "images": read_images,
    "tree": read_tree,
    "tile": read_tile,
    "voc": read_voc_folder,
    "yolo": read_yolo,
    "coco": read_coco,
}


def detect(listing: Listing, *, plain: bool = False) -> tuple[str, tuple[str, ...]]:
    """Which format a folder has, and what speaks for others, in words.

    In this order: `obj.names` at the root: yolo. A COCO document: coco. `JPEGImages/` beside `Annotations/`: voc. An
    image with an xml of its name: voc; with a txt of its name that reads as labels: tile; both: what more images have.
    Images with a txt that does not read as labels: images, for whoever wrote those did not mean the folders. Else
    images in folders: tree, unless `plain`. Else images.

    A txt reads as labels when it is UTF-8, at most 64 KB, its lines at most 128 characters (no captions), and not all
    of them YOLO boxes (five numbers); most of up to 500 txt files looked at must.
    """
    if "obj.names" in listing.others:
        return "yolo", ()
    if coco_documents(listing):
        return "coco", ()
    if devkits_of(listing):
        return "voc", ()
    xmls, texts = by_stem(listing, ".xml"), by_stem(listing, ".txt")
    with_xml = sum(stem_of(image) in xmls for image in listing.images)
    with_text = [texts[stem_of(image)] for image in listing.images if stem_of(image) in texts]
    doubt = _doubt_of_texts(listing.root, with_text)
    if with_xml and (doubt or with_xml >= len(with_text)):
        return "voc", _passed_over(len(with_text), ".txt", "tile")
    if with_text and not doubt:
        return "tile", _passed_over(with_xml, ".xml", "voc")
    if with_text:
        return "images", (f"{len(with_text):,} images have a .txt beside them that is not a list of labels ({doubt})",)
    if plain or all("/" not in image for image in listing.images):
        return "images", ()
    return "tree", ()


def _passed_over(count: int, ending: str, format_: str) -> tuple[str, ...]:
    return (f"{count:,} images have a {ending} beside them too, which was not read (--format {format_})",) * bool(count)


def _doubt_of_texts(root: Path, texts: Sequence[str]) -> str:
    """Why these files are not lists of labels, by the first that is not; "" when most of them are."""
    probes = texts[:: max(1, math.ceil(len(texts) / _PROBES))]
    doubts = [doubt for text in probes if (doubt := _doubt_of_text(root, text))]
    return doubts[0] if 2 * len(doubts) > len(probes) else ""


def _doubt_of_text(root: Path, text: str) -> str:
    try:
        labels = text_labels(root / text)
    except InputError as error:
        return f"{text}: {error}"
    if long := next((label for label in labels if len(label) > _LABEL_CHARS), ""):
        return f"{text}: has a line of {len(long):,} characters"
    if labels and all(len(fields := label.split()) == 5 and all(map(is_number, fields)) for label in labels):
        return f"{text}: holds YOLO boxes, but there is no obj.names beside its folder"
    return ""
