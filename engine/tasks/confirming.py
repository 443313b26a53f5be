"""Automatic labels become a person's: confirmed as they are, corrected, or taken away.

In: OUT of auto labeling or pre-labeling (or any manifest), which of its labels somebody confirms, and the decisions
that say otherwise. Changed: result.manifest, in one write, whole or not at all, so that it may be interrupted and
given again; labels.csv beside it, if there is one; and the files of drawings. Nothing outside the folder of the
manifest: a drawing that lies elsewhere gets a file of its own in annotations/ there. Probabilities, model and page stay
as they were made. (Task API: results are "to be confirmed" and become labels only when a person confirms them.)
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Final

from engine.dataset import RESULT_NAME
from engine.decisions import Decisions, Names, image_labels, read_decisions, read_sources, write_labels
from engine.errors import ImageError, InputError, UsageError
from engine.files import write_bytes
from engine.folders.voc_folder import read_drawing
from engine.manifest import read_manifest, write_manifest
from engine.outfolder import JOURNAL, own
from engine.samples import (
    HARD_KEYS,
    IMAGE_CLASSIFICATION,
    LABEL_TYPES,
    OBJECT_DETECTION,
    Label,
    Sample,
    undoubted,
    without,
)
from engine.sources import Sources, parse_prefixes
from engine.tasks.runner import TASK_NAME, Status, read_answer
from engine.tasks.schema import AUTO_LABEL, HARD, PRE_LABEL
from engine.voc import format_voc, write_voc

LABELS_NAME: Final = "labels.csv"


@dataclass(frozen=True, slots=True)
class Confirmed:
    """What became of the samples. path: the manifest. confirmed: samples whose automatic labels are a person's now.
    corrected: samples that got other labels. rejected: samples that lost theirs and are unlabeled again. kept: samples
    that a person had labeled otherwise, and that stay so. waiting: samples with automatic labels that are left.
    """

    path: Path
    confirmed: int
    corrected: int
    rejected: int
    kept: int
    waiting: int


def confirm(
    out: Path,
    *,
    all: bool = False,
    below: float | None = None,
    samples: Path | Sequence[str] | None = None,
    labels: Path | Mapping[str, Sequence[str]] | None = None,
    by: str | None = None,
    replace_human: bool = False,
    label_type: int | None = None,
    map: Sequence[str] = (),
) -> Confirmed:
    """Make automatic labels a person's, and correct those that decisions speak of.

    out: the folder of a task (auto-label, pre-label, hard), or a manifest. Confirmed are the samples that any of these
    chooses: `all`; `below`: those that are less difficult (see `difficulty`) than this, in [0, 1]; `samples`: their
    sources, or a file that names them (.csv with a column `source`, .jsonl, .manifest, or text, one a line). labels:
    decisions, as a file (see `decisions`) or as source -> labels: they replace the automatic labels, no label takes
    them away; they go before the other choices. A sample that a person has labeled keeps its labels; with replace_human
    decisions change them too. by: who says so, in `annotated-by` as human/NAME. label_type: 0, labels of images, or 1,
    boxes; None: what the task labeled, or what more samples have. map: as for `read_samples`. A task that was stopped
    does not go on afterwards: these labels would be lost.

    A source is one of the manifest, a path to the same image, or a file name alone that is unique there. Raises
    UsageError when nothing is chosen, InputError (a line for each) for an unknown source and for decisions that
    contradict each other; nothing is written then.
    """
    if not (all or below is not None or samples is not None or labels is not None):
        raise UsageError("confirm: must say which: --all, --below, --samples or --labels, got none of them")
    if below is not None and not 0 <= below <= 1:
        raise UsageError(f"below: must be in [0, 1], got {below}")
    if by is not None and not by.strip():
        raise UsageError(f"by: must not be blank, got {by!r}")
    path = labeled_manifest(out, (AUTO_LABEL, PRE_LABEL, HARD))
    before = list(read_manifest(path))
    sources = Sources(path.parent, parse_prefixes(map))
    names = Names([sample.source for sample in before], sources)
    kinds = {LABEL_TYPES[each]: each for each in (IMAGE_CLASSIFICATION, OBJECT_DETECTION)}
    if label_type is not None and label_type not in kinds:
        raise UsageError(f"label_type: must be 0 or 1, got {label_type}")
    kind = _kind_of(out, before) if label_type is None else kinds[label_type]
    decided = _decided(labels, names, path)
    chosen = _named(samples, names, path)

    counts = dict.fromkeys(("confirmed", "corrected", "rejected", "kept"), 0)
    pen = _Pen(f"human/{by.strip()}" if by else "human", datetime.now().strftime("%Y-%m-%d %H:%M:%S"), kind)
    after = []
    for position, sample in enumerate(before):
        what = ""
        if position in decided:
            sample, what = pen.decide(sample, decided[position], replace_human)
        elif is_automatic(sample, kind) and (
            all or position in chosen or (below is not None and difficulty(_read(sample, sources), kind) < below)
        ):
            sample, what = pen.confirm(sample), "confirmed"
        if what:
            counts[what] += 1
        after.append(sample)
    if kind == OBJECT_DETECTION:
        after = [
            new if new is old else _with_signed_drawings(new, sources) for new, old in zip(after, before, strict=True)
        ]
    if any(new is not old for new, old in zip(after, before, strict=True)):
        write_manifest(path, after)
    sheet = path.parent / LABELS_NAME
    if path.name == RESULT_NAME and sheet.is_file():  # also where a run was killed between the two
        write_labels(sheet, after)
    return Confirmed(path, **counts, waiting=sum(is_automatic(sample, kind) for sample in after))


def is_automatic(sample: Sample, kind: str = IMAGE_CLASSIFICATION) -> bool:
    """Whether the labels of a sample are a machine's alone, to be confirmed. kind: IMAGE_CLASSIFICATION or
    OBJECT_DETECTION, those of the image or its boxes."""
    mine = _of_kind(sample, kind)
    return bool(mine) and not any(label.by_human for label in mine)


def difficulty(sample: Sample, kind: str = IMAGE_CLASSIFICATION) -> float:
    """How doubtful the automatic labels of a sample are, in [0, 1], 1 = hardest: its hard coefficient, else 1 less the
    lowest confidence, of a label or of a box that was read; a label without a confidence is as hard as can be."""
    if sample.hard_coefficient is not None:
        return sample.hard_coefficient
    return 1.0 - min(_confidence(label) for label in _of_kind(sample, kind))


def _confidence(label: Label) -> float:
    shapes = label.drawing.shapes if label.drawing is not None else ()
    boxes = [shape for shape in shapes if shape.kind == "bndbox"]
    if label.confidence is not None or not boxes:
        return label.confidence or 0.0
    return min(box.confidence or 0.0 for box in boxes)


def _read(sample: Sample, sources: Sources) -> Sample:
    """The sample, with the boxes of its files where they can be read."""
    if sample.hard_coefficient is not None or not any(label.annotation_loc for label in sample.labels):
        return sample
    return replace(sample, labels=tuple(_with_drawing(label, sample, sources) for label in sample.labels))


def _with_drawing(label: Label, sample: Sample, sources: Sources) -> Label:
    if label.type != OBJECT_DETECTION or label.drawing is not None or not label.annotation_loc:
        return label
    with suppress(ImageError):  # a URI that is not mapped
        return replace(label, drawing=read_drawing(sources.path(label.annotation_loc), sample.source)[0])
    return label


def _of_kind(sample: Sample, kind: str) -> list[Label]:
    if kind == IMAGE_CLASSIFICATION:
        return image_labels(sample)
    return [label for label in sample.labels if label.type == kind]


def _kind_of(out: Path, samples: Sequence[Sample]) -> str:
    """What is to be confirmed: labels of images, or boxes. What the task labeled, as it says; else what more samples
    have."""
    if (out / TASK_NAME).is_file():
        result = read_answer(out).get("result")
        told = result.get("dataset_type") if isinstance(result, Mapping) else None
        if told is not None:
            return OBJECT_DETECTION if told == LABEL_TYPES[OBJECT_DETECTION] else IMAGE_CLASSIFICATION
    boxes = sum(bool(_of_kind(sample, OBJECT_DETECTION)) for sample in samples)
    images = sum(bool(image_labels(sample)) for sample in samples)
    return OBJECT_DETECTION if boxes > images else IMAGE_CLASSIFICATION


@dataclass(frozen=True, slots=True)
class _Pen:
    """Who writes labels, when, and of which kind."""

    author: str
    time: str
    kind: str

    def confirm(self, sample: Sample) -> Sample:
        """The sample, its automatic labels a person's."""
        labels = tuple(self._signed(each) if each.type == self.kind else each for each in sample.labels)
        return undoubted(sample, labels)

    def decide(self, sample: Sample, names: Sequence[str], replace_human: bool) -> tuple[Sample, str]:
        """The sample with these image labels, and in a word what that means; "" when it has them already. Boxes can
        only be taken away: UsageError for any label of theirs."""
        if self.kind == OBJECT_DETECTION and names:
            raise UsageError(
                f"labels: of boxes they can only be taken away (no label), got {names[0]!r} for {sample.source}"
            )
        if self.kind == OBJECT_DETECTION:
            drawn = _of_kind(sample, self.kind)
            if any(label.by_human for label in drawn) and not replace_human:
                return sample, "kept"
            left = tuple(each for each in sample.labels if each.type != self.kind)
            return (undoubted(sample, left), "rejected") if drawn else (sample, "")
        mine = image_labels(sample)
        human = any(label.by_human for label in mine)
        same = {label.name for label in mine if label.by_human or not human} == set(names)
        if same and (human or not mine):
            return sample, ""
        if same:
            return self.confirm(sample), "confirmed"
        if human and not replace_human:
            return sample, "kept"
        others = tuple(label for label in sample.labels if label.type != IMAGE_CLASSIFICATION)
        there = {label.name: label for label in reversed(mine)}
        made = tuple(self._signed(there.get(name) or Label(type=IMAGE_CLASSIFICATION, name=name)) for name in names)
        return undoubted(sample, (*others, *made)), "corrected" if made else "rejected"

    def _signed(self, label: Label) -> Label:
        """The label as this person's: without what only a machine says."""
        return replace(
            label,
            annotated_by=self.author,
            creation_time=self.time,
            confidence=None,
            hard=None,
            hard_coefficient=None,
            property=without(label.property, HARD_KEYS),
        )


def _with_signed_drawings(sample: Sample, sources: Sources) -> Sample:
    """The sample, its boxes without what only a machine says, where they can be read."""
    return replace(sample, labels=tuple(_with_signed_drawing(label, sample, sources) for label in sample.labels))


def _with_signed_drawing(label: Label, sample: Sample, sources: Sources) -> Label:
    if label.type != OBJECT_DETECTION or not label.by_human or not label.annotation_loc:
        return label
    drawing = _with_drawing(label, sample, sources).drawing
    if drawing is None:
        return label
    shapes = (replace(each, confidence=None, hard_coefficient=None, hard_reasons=()) for each in drawing.shapes)
    signed = replace(drawing, shapes=tuple(shapes))
    if signed == drawing:
        return label
    folder, file = sources.root, sources.path(label.annotation_loc)
    if file.resolve().is_relative_to(folder.resolve()):
        write_voc(file, signed)
        return label
    content = format_voc(signed)
    of = sample.source.encode("utf-8", "surrogatepass")
    name = f"annotations/{hashlib.sha256(of + content).hexdigest()[:40]}.xml"
    if (folder / JOURNAL).is_file():
        own(folder, name)
    write_bytes(folder / name, content)
    return replace(label, annotation_loc=name)


def labeled_manifest(out: Path, kinds: Sequence[str] = (AUTO_LABEL, PRE_LABEL)) -> Path:
    """The manifest with automatic labels that is meant by a folder of a task of these kinds, or by its path.

    Raises InputError when there is none in the folder, or its task is another or did not end."""
    if not out.is_dir():
        return out
    path = out / RESULT_NAME
    if (out / TASK_NAME).is_file():
        answer = read_answer(out)
        kind, status = answer.get("task_type"), answer.get("status")
        if kind not in kinds:
            wanted = " or ".join([", ".join(kinds[:-1]), kinds[-1]])
            raise InputError(f"{out}: must be the folder of a task of {wanted}, got {kind!r}")
        if status not in (Status.SUCCEEDED, Status.STOPPED):  # a stopped one may have left its best so far
            raise InputError(f"{out}: must be the folder of a finished task, got {answer.get('message')!r}")
    if not path.is_file():
        raise InputError(f"{out}: must hold {RESULT_NAME} with automatic labels, got none; give a manifest or its task")
    return path


def _decided(labels: Path | Mapping[str, Sequence[str]] | None, names: Names, what: Path) -> dict[int, tuple[str, ...]]:
    """The labels that decisions give, by position of the sample."""
    if labels is None:
        return {}
    if not isinstance(labels, Mapping):
        labels = read_decisions(labels)
    given = labels if isinstance(labels, Decisions) else _as_decisions(labels)
    decided: dict[int, tuple[str, ...]] = {}
    first: dict[int, str] = {}
    for source, positions in names.find({source: given.place(source) for source in given}, what).items():
        for position in positions:
            if position in decided and set(decided[position]) != set(given[source]):
                raise InputError(
                    f"{given.place(source)}: must say the same of {source!r} as {given.place(first[position])}, "
                    f"got {list(given[source])} and {list(decided[position])}"
                )
            decided[position], first[position] = given[source], source
    return decided


def _as_decisions(labels: Mapping[str, Sequence[str]]) -> Decisions:
    for source, names in labels.items():
        if isinstance(names, str) or not all(name.strip() for name in names):
            raise UsageError(f"labels: must be a sequence of labels that are not blank, got {names!r} for {source!r}")
    return Decisions({source: tuple(dict.fromkeys(names)) for source, names in labels.items()})


def _named(file: Path | Sequence[str] | None, names: Names, what: Path) -> set[int]:
    """The positions of the samples that a file, or a list of sources, names."""
    if file is None:
        return set()
    places: dict[str, str] = {}
    if not isinstance(file, Path):
        places = dict.fromkeys(file, "samples")
        return {position for positions in names.find(places, what).values() for position in positions}
    beside = Sources(file.parent.resolve())
    for source, line in read_sources(file).items():
        # A manifest that lies elsewhere names the same image by another relative path.
        here = beside.rebased(source, what.parent.resolve()) if file.suffix.lower() == ".manifest" else source
        places[here if names.by_source(here) else source] = f"{file}:{line}"
    return {position for positions in names.find(places, what).values() for position in positions}
