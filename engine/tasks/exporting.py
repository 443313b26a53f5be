"""Exporting as a task: the samples that are asked for, with their labels, as a folder, a manifest or a table.

    tree, tile, voc, yolo, coco     OUT is the folder; with ratio_sample_usage OUT/train and OUT/eval are two (yolo and
                                    coco list both in one)
    manifest                        OUT/NAME-VERSION.manifest; the images stay where they are
    csv, parquet                    OUT/NAME-VERSION.csv: a line a label
    new                             OUT/images and OUT/NAME-VERSION.manifest: a data set by itself

(CreateTask, table 4.) The data set that is read stays as it is. Knows nothing of the command line.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from engine.dataset import Dataset, rebased, settled, with_files
from engine.errors import Failure, ImageError, InputError, UsageError
from engine.exports import WRITERS, Tally
from engine.files import atomic_writer, write_bytes
from engine.manifest import write_manifest
from engine.outfolder import OutFolder, safe_name
from engine.samples import HARD_KEYS, HARD_REASONS_KEY, LABEL_TYPES, Label, Sample, Shape, unmarked, without
from engine.tasks.conditions import drawn_more, known_id, marks_of, matching
from engine.tasks.further import below_out
from engine.tasks.runner import Outcome, Run, Task
from engine.tasks.schema import ExportParams

KIND: Final = "export"
SELECTING: Final = "choosing samples"
WRITING: Final = "writing the export"

#: Formats of an export.
MANIFEST: Final = "manifest"
NEW: Final = "new"
CSV: Final = "csv"
PARQUET: Final = "parquet"
FORMATS: Final = (*WRITERS, MANIFEST, NEW, CSV, PARQUET)
#: Formats that say themselves which samples are for training.
_LISTING: Final = frozenset({"yolo", "coco", MANIFEST, NEW, CSV, PARQUET})
#: Folders of the parts, by usage.
_PARTS: Final = {"TRAIN": "train", "EVAL": "eval"}
_IMAGES: Final = "images"
_FIRST_VERSION: Final = "V001"

_COLUMNS: Final = (
    *("source", "sample_id", "usage", "state", "label", "type", "shape", "points", "confidence", "annotated_by"),
    *("hard", "hard_coefficient", "hard_reasons"),
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What shall be exported. to: one of FORMATS. copy: copies instead of hard links. seed: of the division."""

    to: str
    params: ExportParams
    copy: bool = False
    seed: int = 0


def format_for(export_format: int | None, version_format: str | None, params: ExportParams, boxes: bool) -> str:
    """Which of FORMATS the fields of a request mean. boxes: whether the samples carry boxes rather than labels.

    export_format 1 is a tree, 2 lies flat: a .txt beside each image, or of boxes an .xml; without it, version_format
    decides. Raises UsageError for what cannot be written here.
    """
    if "CarbonData" in (version_format, params.export_dataset_version_format):
        raise UsageError(
            "config.version_format: CarbonData belongs to table data sets of the service; CSV says the same here, and "
            "`labelengine export --to parquet` writes Parquet"
        )
    if params.export_dest == "NEW_DATASET":
        if export_format is not None:
            raise UsageError("config.export_format: a new data set has a manifest, no format of folders")
        return NEW
    if export_format == 1 and boxes:
        raise UsageError("config.export_format: a tree (1) has no place for boxes; 2 writes PASCAL VOC files")
    if export_format is not None:
        return "tree" if export_format == 1 else "voc" if boxes else "tile"
    asked = params.export_dataset_version_format or version_format or "Default"
    if asked not in ("Default", "CSV"):
        raise UsageError(f"export_dataset_version_format: must be Default or CSV, got {asked!r}")
    return CSV if asked == "CSV" else MANIFEST


def export_task(dataset: Dataset, wanted: Wanted) -> Task:
    """The task that writes an export. Raises UsageError for an unknown format, or a folder outside OUT."""
    if wanted.to not in FORMATS:
        raise UsageError(f"format to write must be one of {', '.join(FORMATS)}, got {wanted.to!r}")
    work_folder(wanted.params)
    return Task(
        job=lambda this: _export(this, dataset, wanted),
        kind=KIND,
        config={
            "to": wanted.to,
            "copy": wanted.copy,
            "seed": wanted.seed,
            "export_params": wanted.params.model_dump(mode="json", by_alias=True, exclude_unset=True),
        },
        dataset=dataset.name,
        stages={SELECTING: 10.0, WRITING: 90.0},
        files=dataset.files,
        digest=lambda: dataset.digest(automatic=True),
        notices=dataset.notes,
    )


def _export(this: Run, dataset: Dataset, wanted: Wanted) -> Outcome:
    done = export(dataset, wanted, this.out, stage=this.stage)
    for line in done.notes:
        this.note(line)
    return Outcome(done.result, (*dataset.failures, *done.failures))


@dataclass(frozen=True, slots=True)
class Exported:
    result: dict[str, Any]
    failures: tuple[Failure, ...]
    notes: tuple[str, ...]


def export(
    dataset: Dataset,
    wanted: Wanted,
    out: OutFolder,
    *,
    folder: str = "",
    stage: Callable[[str, int], Callable[[int], None]] = lambda name, total: lambda done: None,
) -> Exported:
    """Write what is wanted below `folder` of `out`. Raises InputError when no sample is meant."""
    params = wanted.params
    advance = stage(SELECTING, len(dataset))
    rows = matching(dataset, params.search_conditions or (), state=params.sample_state, ids=params.samples)
    if not len(rows):
        raise InputError(f"nothing to export: none of {len(dataset):,} samples of {dataset.name} is what was asked for")
    chosen = [dataset[row] for row in rows.tolist()]
    if params.clear_hard_property:
        chosen = [without_marks(sample) for sample in chosen]
    if params.ratio_sample_usage:
        chosen = divided(chosen, params.train_sample_ratio, wanted.seed)
    advance(len(dataset))
    part = dataset.with_samples(chosen)
    advance = stage(WRITING, len(chosen))
    if wanted.to in WRITERS:
        tally, path = _as_folder(part, wanted, out, folder), folder or "."
    else:
        tally, path = _AS_FILES[wanted.to](part, wanted, out, folder)
    advance(len(chosen))
    usages = Counter(sample.usage for sample in chosen)
    result = {
        "total_sample_count": len(dataset),
        "exported_sample_count": len(chosen),
        "dataset_name": params.export_new_dataset_name or dataset.name,
        "export_dest": params.export_dest,
        "format": wanted.to,
        "path": path,
        "train_sample_count": usages["TRAIN"],
        "eval_sample_count": usages["EVAL"],
        "counts": dict(tally.counts),
    }
    return Exported(result, tuple(tally.failures), tally.notes)


# ---- Samples as they leave. ----


def without_marks(sample: Sample) -> Sample:
    """The sample without the marks of hard examples: its own, those of its labels and of what is drawn on it."""
    labels = tuple(map(_label_without_marks, sample.labels))
    marked = sample.hard is not None or sample.hard_coefficient is not None or not HARD_KEYS.isdisjoint(sample.property)
    if not marked and all(new is old for new, old in zip(labels, sample.labels, strict=True)):
        return sample
    return replace(unmarked(sample), labels=labels)


def _label_without_marks(label: Label) -> Label:
    drawing, loc = label.drawing, label.annotation_loc
    if drawing is not None and any(map(_is_marked, drawing.shapes)):
        drawing, loc = replace(drawing, shapes=tuple(map(_shape_without_marks, drawing.shapes))), None
    own = label.hard is not None or label.hard_coefficient is not None or not HARD_KEYS.isdisjoint(label.property)
    if drawing is label.drawing and not own:
        return label
    bare = without(label.property, HARD_KEYS)
    return replace(label, hard=None, hard_coefficient=None, property=bare, drawing=drawing, annotation_loc=loc)


def _is_marked(shape: Shape) -> bool:
    return shape.hard_coefficient is not None or bool(shape.hard_reasons) or not HARD_KEYS.isdisjoint(shape.property)


def _shape_without_marks(shape: Shape) -> Shape:
    return replace(shape, hard_coefficient=None, hard_reasons=(), property=without(shape.property, HARD_KEYS))


def divided(samples: Sequence[Sample], ratio: float, seed: int) -> list[Sample]:
    """The samples with the usages TRAIN and EVAL, at random: `ratio` of each label, rarest first, and of them all, for
    training. The same seed and samples give the same."""
    names = [sorted({mark.name for mark in marks_of(sample)}) for sample in samples]
    counts = Counter(name for each in names for name in each)
    groups: dict[str, list[int]] = {}
    for row, each in enumerate(names):
        groups.setdefault(min(each, key=lambda name: (counts[name], name), default=""), []).append(row)
    draw = np.random.default_rng(seed)
    training: set[int] = set()
    owed = 0.0  # what rounding has kept from the groups before, so that the whole comes out right
    for name in sorted(groups):
        share = ratio * len(groups[name]) + owed
        count = min(len(groups[name]), max(0, round(share)))
        owed = share - count
        training.update(draw.permutation(groups[name])[:count].tolist())
    return [replace(sample, usage="TRAIN" if row in training else "EVAL") for row, sample in enumerate(samples)]


# ---- Ways to write them. ----


def _as_folder(dataset: Dataset, wanted: Wanted, out: OutFolder, folder: str) -> Tally:
    write = WRITERS[wanted.to]
    if not wanted.params.ratio_sample_usage or wanted.to in _LISTING:
        return write(dataset.samples, dataset.sources, out.below(folder), copy=wanted.copy)
    together = Tally()
    for usage, name in _PARTS.items():
        mine = [replace(sample, usage="") for sample in dataset.samples if sample.usage == usage]
        inside = out.below(f"{folder}/{name}" if folder else name)
        together.add(write(mine, dataset.sources, inside, copy=wanted.copy))
    return together


def _as_manifest(dataset: Dataset, wanted: Wanted, out: OutFolder, folder: str) -> tuple[Tally, str]:
    tally = Tally()
    name = _version_file(dataset, wanted, folder, ".manifest")
    path = out.target(name)
    written = list(settled(dataset, out.below(folder), tally))
    tally.counts["samples"] = write_manifest(path, written)
    return tally, name


def _as_new(dataset: Dataset, wanted: Wanted, out: OutFolder, folder: str) -> tuple[Tally, str]:
    """A data set by itself: copies of the images, and a manifest that names them relative to itself."""
    tally, kept = Tally(), []
    folder = "/".join(filter(None, (folder, work_folder(wanted.params))))
    name = _version_file(dataset, wanted, folder, ".manifest")
    out.claim(name)
    sources = replace(dataset.sources, root=dataset.sources.root.resolve())
    for sample in dataset.samples:
        here = rebased(sample, sources, (out.folder / folder).resolve())
        if not sample.is_image:
            kept.append(here)
            continue
        try:
            path = dataset.path(sample)
            image = out.claim(f"{folder}/{_IMAGES}/{safe_name(path.name)}".lstrip("/"))
            out.place(path, image, copy=wanted.copy)
        except ImageError as error:
            tally.failures.append(Failure(sample.source, error.kind, str(error)))
            continue
        # Every drawing gets a file of its own here: those of the other data set may go.
        labels = tuple(replace(label, annotation_loc=None) if label.drawing else label for label in here.labels)
        here = replace(here, source=image.removeprefix(f"{folder}/"), labels=labels)
        kept.append(with_files(here, sample.source, out, tally, folder=folder))
        tally.counts["images"] += 1
    tally.counts["samples"] = write_manifest(out.target(name), kept)
    return tally, name


def _as_csv(dataset: Dataset, wanted: Wanted, out: OutFolder, folder: str) -> tuple[Tally, str]:
    name = _version_file(dataset, wanted, folder, ".csv")
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    writer.writeheader()
    lines = list(_lines(dataset))
    writer.writerows({**line, "hard": str(line["hard"]).lower()} for line in lines)  # true, as in a manifest
    write_bytes(out.target(name), text.getvalue().encode("utf-8", "surrogatepass"))
    return _counted(dataset, lines), name


def _as_parquet(dataset: Dataset, wanted: Wanted, out: OutFolder, folder: str) -> tuple[Tally, str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from engine.tasks.tables import utf8

    name = _version_file(dataset, wanted, folder, ".parquet")
    kinds = {"type": pa.int32(), "confidence": pa.float64(), "hard": pa.bool_(), "hard_coefficient": pa.float64()}
    schema = pa.schema([(column, kinds.get(column, pa.string())) for column in _COLUMNS])
    lines = list(_lines(dataset))
    told = [
        {column: utf8(value) if isinstance(value, str) else value for column, value in line.items() if value != ""}
        for line in lines
    ]
    with atomic_writer(out.target(name)) as file:
        pq.write_table(pa.Table.from_pylist(told, schema), file, compression="zstd")
    return _counted(dataset, lines), name


def _counted(dataset: Dataset, lines: Sequence[Any]) -> Tally:
    tally = Tally()
    tally.counts.update(samples=len(dataset), lines=len(lines))
    return tally


def _lines(dataset: Dataset) -> Iterator[dict[str, Any]]:
    """A line a label, or a shape; one without a label where a sample has none."""
    for sample in dataset.samples:
        about = {"source": sample.source, "sample_id": known_id(sample), "usage": sample.usage, "state": sample.state}
        said = [line for label in sample.labels for line in _label_lines(label)]
        for line in said or [{}]:
            yield {**dict.fromkeys(_COLUMNS, ""), **about, **line}


def _label_lines(label: Label) -> Iterator[dict[str, Any]]:
    about = {"type": LABEL_TYPES.get(label.type, ""), "annotated_by": label.annotated_by or "human"}
    if label.drawing is None:
        reasons = label.property.get(HARD_REASONS_KEY, "")
        yield {
            **about,
            "label": label.name or "",
            **_marks(label.confidence, label.hard, label.hard_coefficient, str(reasons)),
        }
        return
    for shape in label.drawing.shapes:
        points = " ".join(",".join(f"{number:g}" for number in point) for point in shape.points)
        reasons = "-".join(map(str, shape.hard_reasons))
        marks = _marks(shape.confidence, None, shape.hard_coefficient, reasons)
        yield {**about, "label": shape.name, "shape": shape.kind, "points": points, **marks}


def _marks(confidence: float | None, hard: bool | None, coefficient: float | None, reasons: str) -> dict[str, Any]:
    values = {"confidence": confidence, "hard": hard, "hard_coefficient": coefficient, "hard_reasons": reasons or None}
    return {name: value for name, value in values.items() if value is not None}


_AS_FILES: Final[dict[str, Callable[[Dataset, Wanted, OutFolder, str], tuple[Tally, str]]]] = {
    MANIFEST: _as_manifest,
    NEW: _as_new,
    CSV: _as_csv,
    PARQUET: _as_parquet,
}


def _version_file(dataset: Dataset, wanted: Wanted, folder: str, extension: str) -> str:
    """`NAME-VERSION.manifest`, as the service calls the file of a version."""
    params = wanted.params
    name = params.export_new_dataset_name or dataset.name
    file = safe_name(f"{name}-{params.export_dataset_version_name or _FIRST_VERSION}") + extension
    return f"{folder}/{file}" if folder else file


def work_folder(params: ExportParams) -> str:
    """Where below OUT a new data set lies. Raises UsageError for a place elsewhere: nothing is written outside OUT."""
    given = params.export_new_dataset_work_path
    return below_out("export_new_dataset_work_path", given) if given else ""


def suggested_format(dataset: Dataset) -> str:
    """What is written where nobody says: PASCAL VOC for boxes, else a tree."""
    return "voc" if drawn_more(dataset.samples) else "tree"
