"""Auto grouping as a task: a request and a data set in, OUT full of groups.

    result.manifest     every sample, with its group in the sample attribute
    groups/3/           result_type 0: the images of group 3, and group.manifest
    features.parquet    every feature of every sample, and its group
    report.html         the groups to look at

`task.json` around it is the runner's. Knows nothing of the command line.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch

from engine.dataset import RESULT_NAME, Dataset, rebased, settled
from engine.embeddings import Encoder, load_encoder
from engine.errors import Failure, ImageError, UsageError
from engine.exports import Tally
from engine.files import write_text
from engine.grouping import PROPERTY, Grouping, annotate, check_property, group
from engine.images import converted_in_words
from engine.manifest import write_manifest
from engine.outfolder import OutFolder, safe_name
from engine.report import render
from engine.samples import LABEL_TYPES, SIZE_KEY, Sample
from engine.sources import Sources
from engine.tasks.pages import grouping_page
from engine.tasks.parameters import Parameters, read_parameters
from engine.tasks.request import notices
from engine.tasks.runner import Outcome, Run, Task
from engine.tasks.schema import SmartTaskConfig, TaskRequest
from engine.tasks.tables import write_features
from engine.threads import processors, torch_threads

FEATURES_NAME: Final = "features.parquet"
REPORT_NAME: Final = "report.html"
GROUPS_FOLDER: Final = "groups"
GROUP_NAME: Final = "group.manifest"

#: result_type (CreateTask, table 3).
TO_FOLDERS: Final = 0
TO_SAMPLES: Final = 1

#: Where the time goes, in percent, on photos.
_STAGES: Final = {
    "reading images": 70.0,
    "looking at contents": 6.0,
    "finding neighbours": 8.0,
    "grouping": 6.0,
    "writing the result": 4.0,
    "writing folders": 3.0,
    "drawing the page": 3.0,
}


def grouping_task(request: TaskRequest, dataset: Dataset) -> Task:
    """The task that a request for auto-grouping asks for. Raises UsageError or InputError for options that fail."""
    config = request.config
    options = read_parameters(config.parameters, request.task_type)
    lines = [*dataset.notes, *notices(request)]
    if config.property:
        check_property(config.property)
    elif config.result_type == TO_SAMPLES:
        lines.append(f"config.property was not given: the group goes to the sample attribute {PROPERTY!r}")
    encoder = encoder_of(options)
    if encoder and (config.image_brightness or config.image_colorfulness or config.ambiguity):
        lines.append(f"encoder {encoder.name} is not used: dimensions were chosen, content plays no part")

    return Task(
        job=on_threads(options.threads, lambda this: _group(this, dataset, config, options, encoder)),
        kind=request.task_type,
        config=request.body()["config"],
        dataset=dataset.name,
        stages=_STAGES,
        files=dataset.files,
        digest=dataset.digest,
        notices=tuple(lines),
        export_type=_result_type(config),
    )


def device_of(name: str) -> torch.device:
    """`auto`: the first GPU, if there is one. Raises UsageError for a device that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"device: {name} is not there, this machine has {torch.cuda.device_count()} CUDA devices")
    return device


def on_threads(count: int | None, job: Callable[[Run], Outcome]) -> Callable[[Run], Outcome]:
    """The job with so many threads an operation of torch on the CPU; None: as it is."""

    def limited(this: Run) -> Outcome:
        with torch_threads(count):
            return job(this)

    return limited


def encoder_of(options: Parameters) -> Encoder | None:
    """The encoder that the parameters name; None when they name none. Raises UsageError, InputError for its weights."""
    if options.encoder is None:
        if options.weights is not None:
            raise UsageError(f"weights: belong to an encoder, got {options.weights} and no encoder")
        return None
    weights = Path(options.weights) if options.weights else None
    return load_encoder(options.encoder, weights=weights, device=device_of(options.device))


def _result_type(config: SmartTaskConfig) -> int:
    return TO_SAMPLES if config.result_type is None else config.result_type


def _group(
    this: Run, dataset: Dataset, config: SmartTaskConfig, options: Parameters, encoder: Encoder | None
) -> Outcome:
    grouping = group(
        dataset,
        config.n_clusters,
        image_brightness=config.image_brightness,
        image_colorfulness=config.image_colorfulness,
        ambiguity=config.ambiguity,
        all=options.all,
        encoder=encoder,
        restarts=options.restarts,
        seed=options.seed,
        threads=options.threads,
        device=device_of(options.device),
        max_pixels=options.max_pixels,
        folder=this.cache,
        stage=this.stage,
        stopped=this.stopped,
    )
    this.tell_reused(grouping.survey.reused)
    for line in (*grouping.notes, *converted_in_words(grouping.survey.notes)):
        this.note(line)
    attribute = config.property or PROPERTY
    written = _write_result(this, dataset, grouping, attribute)
    if _result_type(config) == TO_FOLDERS:
        written += _write_folders(this, dataset, grouping)
    _write_page(this, dataset, grouping, options.threads or processors())
    failures = (*dataset.failures, *grouping.survey.failures, *written)
    return Outcome(_result(dataset, grouping, attribute, this.out.folder), failures)


def _write_result(this: Run, dataset: Dataset, grouping: Grouping, attribute: str) -> list[Failure]:
    advance = this.stage("writing the result", len(dataset))
    tally = Tally()
    samples = map(_with_size, annotate(dataset, grouping, property=attribute), grouping.survey.sizes.tolist())
    write_manifest(this.out.target(RESULT_NAME), settled(dataset.with_samples(samples), this.out, tally))
    write_features(this.out.target(FEATURES_NAME), [({"group": grouping.group}, dataset.samples, grouping.survey)])
    advance(len(dataset))
    for line in tally.notes:
        this.note(line)
    return tally.failures


def _with_size(sample: Sample, size: Sequence[int]) -> Sample:
    """A sample with boxes tells the size of its image: [width, height, depth]."""
    if not size[0] or SIZE_KEY in sample.property or not sample.boxes:
        return sample
    return replace(sample, property={**sample.property, SIZE_KEY: [*size, 3]})


def _write_folders(this: Run, dataset: Dataset, grouping: Grouping) -> list[Failure]:
    """OUT/groups/N/ with the images of group N, by hard links where that is possible, and its manifest."""
    advance = this.stage("writing folders", sum(each.size for each in grouping.groups))
    failures: list[Failure] = []
    done = 0
    for each in grouping.groups:
        folder = f"{GROUPS_FOLDER}/{each.number}"
        this.out.claim(f"{folder}/{GROUP_NAME}")
        there: list[Sample] = []
        for position in sorted(each.members.tolist()):
            try:
                there.append(placed(dataset[position], dataset.sources, this.out, folder, copy=False))
            except ImageError as error:  # it was there a minute ago
                failures.append(Failure(dataset[position].source, error.kind, str(error)))
            done += 1
            if done % 1000 == 0:
                advance(done)
        write_manifest(this.out.target(f"{folder}/{GROUP_NAME}"), there)
    advance(done)
    return failures


def placed(sample: Sample, sources: Sources, out: OutFolder, folder: str, *, copy: bool) -> Sample:
    """Put the image below `folder`, as a hard link where that is possible or as a copy; the sample as it is there."""
    path = sources.path(sample.source)
    name = out.claim(f"{folder}/{safe_name(path.name)}")
    out.place(path, name, copy=copy)
    here = replace(sources, root=sources.root.resolve())
    return replace(rebased(sample, here, (out.folder / folder).resolve()), source=name.rpartition("/")[2])


def _write_page(this: Run, dataset: Dataset, grouping: Grouping, threads: int) -> None:
    begin = partial(this.stage, "drawing the page")
    page = grouping_page(dataset, grouping, notes=this.notices, threads=threads, begin=begin)
    write_text(this.out.target(REPORT_NAME), render(page))


def _result(dataset: Dataset, grouping: Grouping, attribute: str, out: Path) -> dict[str, Any]:
    """The `result` of the task answer; from `property` on, ours."""
    types = [label.type for sample in dataset for label in sample.labels]
    return {
        "annotated_sample_count": sum(each.size for each in grouping.groups),
        "total_sample_count": len(dataset),
        "dataset_name": dataset.name,
        "dataset_type": LABEL_TYPES.get(max(sorted(set(types)), key=types.count), None) if types else None,
        "manifest_path": RESULT_NAME,
        "property": attribute,
        "n_clusters": len(grouping.groups),
        "dimensions": list(grouping.dimensions) or ["content"],
        "silhouettes": {str(k): round(value, 4) for k, value in grouping.silhouettes.items()},
        "groups": [
            {
                "group": each.number,
                "name": each.name,
                "sample_count": each.size,
                "medians": {name: float(f"{value:.6g}") for name, value in each.medians.items()},
            }
            for each in grouping.groups
        ],
    }
