"""The one door to data sets: a manifest or a folder -> `Dataset`; a `Dataset` -> a manifest or a folder.

Reading finds out which format a folder has and says so in `notes`; what cannot be read is in `failures`, and the rest
goes on. Images are never decoded here. A drawing that differs from the file it was read from must have
`annotation_loc=None`: that is how writing knows that it has no file yet.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from stat import S_ISDIR
from typing import Final, overload

from engine.errors import Failure, ImageError, InputError, OutputError, UsageError
from engine.exports import WRITERS, Tally, write_drawing
from engine.folders.formats import READERS, detect
from engine.folders.listing import IMAGE_EXTENSIONS, Listing, ending_of, list_folder
from engine.folders.sizes import drawings_of, with_size
from engine.folders.voc_folder import VOC_FORMAT, read_drawing
from engine.manifest import UNREAD_PROPERTY_KEY, read_manifest, write_manifest
from engine.outfolder import OutFolder, safe_name
from engine.samples import Drawing, Label, Sample
from engine.sources import Sources, parse_prefixes

MANIFEST: Final = "manifest"
FORMATS: Final = (MANIFEST, *READERS)
TARGETS: Final = (MANIFEST, *WRITERS)
RESULT_NAME: Final = "result.manifest"
COPIES: Final = ("link", "copy")

_IN_WORDS: Final = {
    "manifest": "manifest",
    "tree": "image classification, one folder a label (tree)",
    "tile": "image classification, a .txt of labels beside an image (tile)",
    "voc": "object detection, PASCAL VOC files (voc)",
    "yolo": "object detection, YOLO files (yolo)",
    "coco": "object detection, COCO documents (coco)",
    "images": "plain images, nothing is a label (images)",
}


@dataclass(frozen=True, slots=True)
class Dataset(Sequence[Sample]):
    """Samples, in order, and where they are.

    sources: how a source becomes a path. format: one of FORMATS. failures: what could not be read (annotation
    files, folders). notes: what was found out, in words. name: of the folder, or of the manifest without extension.
    guests: the last so many samples are another data set's, to learn from: no result is written of them. manifest: the
    file that it was read from; None: a folder, or none.
    """

    samples: tuple[Sample, ...]
    sources: Sources
    format: str = MANIFEST
    failures: tuple[Failure, ...] = ()
    notes: tuple[str, ...] = ()
    name: str = "dataset"
    guests: int = 0
    manifest: Path | None = None

    @property
    def own(self) -> int:
        """How many samples are its own."""
        return len(self.samples) - self.guests

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Sample, ...]: ...
    def __getitem__(self, index: int | slice) -> Sample | tuple[Sample, ...]:
        return self.samples[index]

    def __len__(self) -> int:
        return len(self.samples)

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.samples)

    def path(self, sample: Sample) -> Path:
        """Where the sample lies on this machine. Raises ImageError (kind "remote") for a URI that is not mapped."""
        return self.sources.path(sample.source)

    def files(self) -> Iterator[Path]:
        """Every file that the data set consists of and this machine may have."""
        if self.manifest is not None:
            yield self.manifest
        for sample in self.samples:
            for source in (sample.source, *(label.annotation_loc for label in sample.labels), sample.inference_loc):
                with suppress(ImageError):  # a URI that is not mapped
                    if source:
                        yield self.sources.path(source)

    def digest(self, *, automatic: bool = False) -> str:
        """64 hexadecimal digits of what it holds: sources, and what people said of them. automatic: what machines said,
        too."""
        digest = hashlib.sha256()
        for sample in self.samples:
            said = [
                (label.name, label.confidence, _said_by(label.drawing))
                for label in sample.labels
                if label.by_human or automatic
            ]
            marks = (sample.hard, sample.hard_coefficient) if automatic else ()
            digest.update(repr((sample.source, said, marks)).encode("utf-8", "surrogatepass"))
        return digest.hexdigest()

    def with_samples(self, samples: Iterable[Sample]) -> Dataset:
        """The same data set with other samples."""
        return replace(self, samples=tuple(samples))


def _said_by(drawing: Drawing | None) -> object:
    """What of a drawing counts: its shapes, the size in whose pixels they are, and whether nothing is nothing."""
    return () if drawing is None else (drawing.shapes, drawing.size, drawing.is_empty)


@dataclass(frozen=True, slots=True)
class Written:
    """What was written: path: the manifest, or the folder. counts: samples, images, labels, ... by name."""

    path: Path
    counts: dict[str, int]
    failures: tuple[Failure, ...] = ()
    notes: tuple[str, ...] = ()


# --- reading


def read_samples(
    path: str | Path,
    *,
    format: str | None = None,
    map: Sequence[str] = (),
    drawings: bool = True,
    plain: bool = False,
) -> Dataset:
    """Read a data set: a file is a manifest; a folder is what `format` says, or what it looks like (`folders.detect`).

    A folder that an earlier run wrote to (it holds result.manifest) is read through that manifest; so is one that
    holds a single manifest and no image. map: `SCHEME://PREFIX=FOLDER` entries, where URIs lie on this machine.
    drawings: read the annotation files that a manifest names (those of a folder are always read). plain: take a folder
    without annotation files as plain images, never as a tree.

    Raises InputError when there is nothing to read or it is not of that format, ManifestError at a bad line,
    UsageError for an unknown format or a wrong entry of map.
    """
    if format is not None and format not in FORMATS:
        raise UsageError(f"format must be one of {', '.join(FORMATS)}, got {format!r}")
    prefixes = parse_prefixes(map)
    path = Path(path)
    if not _is_folder(path):
        return _from_file(path, format, prefixes, drawings)
    if format in (None, MANIFEST) and (path / RESULT_NAME).is_file():
        dataset = _from_manifest(path / RESULT_NAME, prefixes, drawings)
        return replace(dataset, notes=(f"{path} was written by an earlier run: its {RESULT_NAME}", *dataset.notes))
    return _from_folder(path, format, prefixes, drawings, plain)


def _is_folder(path: Path) -> bool:
    try:
        return S_ISDIR(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{path}: must be a manifest or a folder, got nothing: no such file or folder") from error
    except (OSError, ValueError) as error:  # ValueError: a zero byte
        raise InputError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _from_file(path: Path, format: str | None, prefixes: tuple[tuple[str, Path], ...], drawings: bool) -> Dataset:
    if format not in (None, MANIFEST):
        raise InputError(f"{path}: format {format} needs a folder, got a file")
    if ending_of(path.name) in IMAGE_EXTENSIONS:
        raise InputError(f"{path}: must be a manifest or a folder, got one image; give its folder")
    return _from_manifest(path, prefixes, drawings)


def _from_manifest(path: Path, prefixes: tuple[tuple[str, Path], ...], drawings: bool) -> Dataset:
    sources = Sources(path.parent, prefixes)
    samples: list[Sample] = []
    failures: list[Failure] = []
    for sample in read_manifest(path):
        if drawings and any(label.annotation_loc for label in sample.labels):
            sample, faults = _with_drawings(sample, sources)
            failures += faults
        samples.append(sample)
    if not samples:
        raise InputError(f"{path}: must hold a sample a line, got no line")
    note = f"read as {_IN_WORDS[MANIFEST]}: {_contents(samples, 'samples')}"
    return Dataset(tuple(samples), sources, MANIFEST, tuple(failures), (note,), path.stem, manifest=path)


def _with_drawings(sample: Sample, sources: Sources) -> tuple[Sample, list[Failure]]:
    labels: list[Label] = []
    failures: list[Failure] = []
    for label in sample.labels:
        if label.annotation_loc and label.drawing is None:
            try:
                drawing, faults = read_drawing(sources.path(label.annotation_loc), sample.source)
            except ImageError as error:  # a URI that is not mapped
                drawing, faults = None, [Failure(sample.source, "annotation", str(error))]
            label = replace(label, drawing=drawing)
            failures += faults
        labels.append(label)
    sample = replace(sample, labels=tuple(labels))
    # A property that is not a mapping has no room for a size: the line stays as it is.
    return sample if UNREAD_PROPERTY_KEY in sample.property else with_size(sample), failures


def _from_folder(
    path: Path, format: str | None, prefixes: tuple[tuple[str, Path], ...], drawings: bool, plain: bool
) -> Dataset:
    listing = list_folder(path)
    manifests = [name for name in listing.others if "/" not in name and ending_of(name) == ".manifest"]
    if format == MANIFEST or (format is None and not listing.images and len(manifests) == 1):
        if len(manifests) != 1:
            raise InputError(f"{path}: must hold {RESULT_NAME} or one manifest, got {len(manifests)}; name the file")
        return _from_manifest(path / manifests[0], prefixes, drawings)
    if not listing.images:
        raise InputError(f"{path}: must hold images ({_extensions()}), got {_nothing(listing)}")
    chosen, doubts = detect(listing, plain=plain) if format is None else (format, ())
    try:
        found = READERS[chosen](listing)
    except InputError as error:
        raise InputError(f"{path}: not of format {chosen}: {error}; got {listing.seen}") from error
    if not found.samples:
        raise InputError(f"{path}: not of format {chosen}: no image lies where its images lie; got {listing.seen}")
    return Dataset(
        found.samples,
        Sources(path, prefixes),
        chosen,
        (*listing.failures, *found.failures),
        (
            f"read as {_IN_WORDS[chosen]}: {_contents(found.samples, 'images')}{_other_way(chosen, listing, format)}",
            *doubts,
            *found.notes,
            *(f"{name} lies in the folder and was not read; give its path to use it" for name in manifests),
        ),
        path.resolve().name or "dataset",
    )


def _contents(samples: Sequence[Sample], what: str) -> str:
    """`1,797 images, 12 of them unlabeled, 10 labels`."""
    unlabeled = sum(not sample.labels for sample in samples)
    labels = [label for sample in samples for label in sample.labels]
    names = {label.name for label in labels if label.name}
    names |= {shape.name for drawing in drawings_of(labels) for shape in drawing.shapes}
    some = f", {unlabeled:,} of them unlabeled" if 0 < unlabeled < len(samples) else ""
    return f"{len(samples):,} {what}{some}, {len(names) or 'no'} label{'s' * (len(names) != 1)}"


def _other_way(chosen: str, listing: Listing, asked: str | None) -> str:
    if asked is None and chosen == "tree":
        return "; --format images takes them as plain images"
    if asked is None and chosen == "images" and any("/" in image for image in listing.images):
        return "; --format tree takes the name of the last folder as label"
    return ""


def _extensions() -> str:
    return ", ".join(extension[1:] for extension in IMAGE_EXTENSIONS)


def _nothing(listing: Listing) -> str:
    seen = listing.seen if listing.others or listing.images else "an empty folder"
    failed = f"; {len(listing.failures):,} could not be read: {listing.failures[0].reason}" if listing.failures else ""
    return seen + failed


# --- writing


def write_dataset(
    dataset: Dataset, out: str | Path, *, to: str, copy: str = "link", overwrite: bool = False
) -> Written:
    """Write a data set into the folder `out` in another format; nothing outside `out` is touched.

    to: "manifest" (OUT/NAME.manifest; the sources stay where they are, relative ones are written relative to OUT;
    drawings that have no file are written to OUT/annotations/), or a folder format (see `exports` for what each can
    express): tree, tile, voc, yolo, coco. copy: "link" makes hard links where that is possible, so that an image
    changed in one place changes in both; "copy" always copies.
    `out` must be new or empty; with `overwrite` what an earlier call wrote there is replaced, and nothing else.

    In a folder a machine's labels stand where no person gave any of their type; they look like a person's, a note says
    how many. Images that cannot be read are failures. Raises OutputError when `out` cannot be written, UsageError.
    """
    if to not in TARGETS:
        raise UsageError(f"format to write must be one of {', '.join(TARGETS)}, got {to!r}")
    if copy not in COPIES:
        raise UsageError(f"copy must be one of {', '.join(COPIES)}, got {copy!r}")
    out = Path(out)
    real_out, real_root = os.path.realpath(out), os.path.realpath(dataset.sources.root)
    if real_out == real_root:
        raise OutputError(f"{out}: is the folder of the data set itself; choose another")
    with OutFolder(out, overwrite=overwrite, inputs=dataset.files) as folder:
        if to == MANIFEST:
            name = f"{safe_name(dataset.name)}.manifest"
            tally, path = _write_manifest(dataset, folder, name), out / name
        else:
            tally, path = WRITERS[to](dataset.samples, dataset.sources, folder, copy=copy == "copy"), out
    return Written(path, dict(tally.counts), tuple(tally.failures), (*tally.notes, *inside_note(dataset, out)))


def inside_note(dataset: Dataset, out: Path) -> tuple[str, ...]:
    """What to say when a result is written into the folder of its own data set: one line, or none."""
    root = os.path.realpath(dataset.sources.root).rstrip(os.sep) + os.sep
    if dataset.format == MANIFEST or not os.path.realpath(out).startswith(root):
        return ()
    return (f"{out} lies inside the folder of the data set, which will find it there when it is read again",)


def _write_manifest(dataset: Dataset, out: OutFolder, name: str) -> Tally:
    tally = Tally()
    tally.counts["samples"] = write_manifest(out.target(name), settled(dataset, out, tally))
    tally.counts["labels"] = sum(len(sample.labels) for sample in dataset.samples)
    return tally


def settled(dataset: Dataset, out: OutFolder, tally: Tally) -> Iterator[Sample]:
    """Its own samples as a manifest in `out` names them, one by one; drawings that have no file get one there."""
    # Both ends are resolved, for `..` means something else below a link.
    sources = replace(dataset.sources, root=dataset.sources.root.resolve())
    root = out.folder.resolve()
    for sample in dataset.samples[: dataset.own]:
        yield with_files(rebased(sample, sources, root), sample.source, out, tally)


def rebased(sample: Sample, sources: Sources, root: Path) -> Sample:
    """The sample as a data set in `root` names it; the same record when nothing changes."""
    source = sources.rebased(sample.source, root)
    located = any(label.annotation_loc for label in sample.labels)
    if source == sample.source and not located and not sample.inference_loc:
        return sample
    labels = tuple(
        replace(label, annotation_loc=sources.rebased(label.annotation_loc, root)) if label.annotation_loc else label
        for label in sample.labels
    )
    inference_loc = sources.rebased(sample.inference_loc, root) if sample.inference_loc else sample.inference_loc
    return replace(sample, source=source, labels=labels, inference_loc=inference_loc)


def with_files(sample: Sample, source: str, out: OutFolder, tally: Tally, *, folder: str = "") -> Sample:
    """The sample with a file in `annotations/` for every drawing that has none, and without what has no XML.

    source: what the data set calls it, for failures. folder: below OUT, where the manifest and annotations/ lie.
    """
    if all(label.drawing is None or label.annotation_loc for label in sample.labels):
        return sample
    image = sample.source.rpartition("/")[2] or "image"
    labels = []
    for label in sample.labels:
        if label.drawing is not None and not label.annotation_loc:
            name = out.claim(os.path.join(folder, f"annotations/{safe_name(os.path.splitext(image)[0])}.xml"))
            loc = os.path.relpath(name, folder or ".").replace(os.sep, "/")
            drawing = replace(label.drawing, filename=label.drawing.filename or image)
            if not write_drawing(source, drawing, out, name, tally):
                continue  # a label that points nowhere would make the line unreadable
            tally.counts["annotation files"] += 1
            label = replace(label, annotation_loc=loc, annotation_format=VOC_FORMAT)
        labels.append(label)
    return replace(sample, labels=tuple(labels))
