"""Listing -> samples with the drawings of PASCAL VOC files.

`x/1.jpg`, `x/1.xml`, or the devkit, `JPEGImages/` beside `Annotations/`; no xml: unlabeled. Boxes are xyxy pixels as
they are written. An xml or an object that cannot be read is a `Failure`; what was passed over is said in notes. No
image is opened.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from engine.errors import Failure, InputError, VocError
from engine.folders.found import Found, unused
from engine.folders.listing import Listing, by_stem, last_part_of, stem_of
from engine.folders.sizes import with_size
from engine.folders.texts import read_lines
from engine.samples import IMAGE_SEGMENTATION, OBJECT_DETECTION, Drawing, Label, Sample
from engine.voc import read_voc

VOC_FORMAT: Final = "PASCAL VOC"


def read_voc_folder(listing: Listing) -> Found:
    """The xml of an image is its drawing. Raises InputError when there is neither an xml of an image nor a devkit."""
    xmls, devkits = by_stem(listing, ".xml"), devkits_of(listing)
    samples, failures, used, outside = [], [], set(), 0
    for image in listing.images:
        if not _is_voc_image(image, devkits):
            outside += 1
            continue
        xml = xmls.get(stem_of(image)) or xmls.get(_annotations_stem(image))
        if xml is None:
            samples.append(Sample(image))
            continue
        used.add(xml)
        sample, faults = _read_xml(Sample(image), listing.root / xml, xml)
        samples.append(sample)
        failures += faults
    if not used and not devkits:
        raise InputError("a VOC folder has an .xml beside an image, or Annotations/ beside JPEGImages/")
    usages, usage_notes = _image_sets(listing, devkits)
    samples = [replace(s, usage=usages[stem_of(s.source)]) if stem_of(s.source) in usages else s for s in samples]
    notes = [f"{outside:,} images outside JPEGImages/ were left out (masks?)"] if outside else []
    return Found(tuple(samples), tuple(failures), (*notes, *usage_notes, *unused(xmls, used, ".xml")))


def _read_xml(sample: Sample, path: Path, loc: str) -> tuple[Sample, list[Failure]]:
    drawing, failures = read_drawing(path, sample.source)
    if drawing is None:
        return sample, failures
    kind = IMAGE_SEGMENTATION if drawing.mask_source is not None else OBJECT_DETECTION
    label = Label(kind, annotation_loc=loc, annotation_format=VOC_FORMAT, drawing=drawing)
    return with_size(replace(sample, labels=(label,))), failures


def read_drawing(path: Path, source: str) -> tuple[Drawing | None, list[Failure]]:
    """The drawing of the sample `source`, and what is wrong with it; None when nothing of it can be read."""
    try:
        drawing, faults = read_voc(path)
    except (VocError, ValueError) as error:  # ValueError: a zero byte in the path
        return None, [Failure(source, "annotation", str(error))]
    return drawing, [replace(fault, source=source, kind="annotation") for fault in faults]


def devkits_of(listing: Listing) -> tuple[str, ...]:
    """The folders, as prefixes ("" or "a/b/"), that hold JPEGImages/ beside Annotations/."""
    parents = (folder.removesuffix("JPEGImages") for folder in listing.folders if last_part_of(folder) == "JPEGImages")
    return tuple(sorted(parent for parent in parents if f"{parent}Annotations" in listing.folders))


def _is_voc_image(image: str, devkits: Sequence[str]) -> bool:
    inside = [devkit for devkit in devkits if image.startswith(devkit)]
    return not inside or any(image.startswith(f"{devkit}JPEGImages/") for devkit in inside)


def _annotations_stem(image: str) -> str:
    before, folder, after = f"/{stem_of(image)}".rpartition("/JPEGImages/")
    return f"{before}/Annotations/{after}".removeprefix("/") if folder else ""


def _listed(line: str, devkit: str, stems: frozenset[str]) -> str:
    """The stem that a line of an image set means: `my photo`, or `my photo -1`, as sets of one class have it."""
    stem = f"{devkit}JPEGImages/{line.strip()}"
    return stem if stem in stems else re.sub(r"\s+(-1|0|1)$", "", stem)


def _image_sets(listing: Listing, devkits: Sequence[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """The usage of the devkit's images, by stem: ImageSets/Main/{train,val,test}.txt list names without extension."""
    usages: dict[str, str] = {}
    notes = []
    stems = frozenset(map(stem_of, listing.images))
    for devkit in devkits:
        for part, usage in (("test", "TEST"), ("val", "EVAL"), ("train", "TRAIN")):
            name = f"{devkit}ImageSets/Main/{part}.txt"
            if name in listing.others:
                try:
                    lines = read_lines(listing.root / name)
                except InputError as error:
                    notes.append(f"{name}: {error}; the usages in it are not known")
                    continue
                usages.update({_listed(line, devkit, stems): usage for line in lines if line})
    return usages, tuple(notes)
