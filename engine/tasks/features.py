"""Data feature analysis as a task: data sets in, OUT/features.parquet and OUT/report.html with them side by side.

Knows nothing of the command line.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate, chain
from typing import Any, Final

import numpy as np

from engine.dataset import Dataset
from engine.features import IMAGE_FEATURES
from engine.files import write_text
from engine.images import MAX_PIXELS
from engine.report import render
from engine.survey import Survey, survey
from engine.tasks.pages import features_page
from engine.tasks.runner import Outcome, Run, Task
from engine.tasks.tables import write_features

FEATURES_NAME: Final = "features.parquet"
REPORT_NAME: Final = "report.html"
KIND: Final = "features"

_STAGES: Final = {"reading images": 95.0, "writing the result": 5.0}


def features_task(datasets: Sequence[Dataset], *, threads: int | None = None, max_pixels: int = MAX_PIXELS) -> Task:
    """The task that measures these data sets, which are versions of one another perhaps."""
    names = version_names(datasets)
    lines = [f"{name}: {note}" for name, dataset in zip(names, datasets, strict=True) for note in dataset.notes]
    return Task(
        job=lambda this: _measure(this, datasets, names, threads, max_pixels),
        kind=KIND,
        config={"datasets": names, "max_pixels": max_pixels},
        dataset=", ".join(names),
        stages=_STAGES,
        files=lambda: chain.from_iterable(dataset.files() for dataset in datasets),
        digest=lambda: "".join(dataset.digest() for dataset in datasets),
        notices=tuple(lines),
    )


def version_names(datasets: Sequence[Dataset]) -> list[str]:
    """A name for each, all different: `photos`, `photos (2)`."""
    names: list[str] = []
    for dataset in datasets:
        name, count = dataset.name, 1
        while name in names:
            count += 1
            name = f"{dataset.name} ({count})"
        names.append(name)
    return names


def _measure(
    this: Run, datasets: Sequence[Dataset], names: Sequence[str], threads: int | None, max_pixels: int
) -> Outcome:
    images = [sum(sample.is_image for sample in dataset) for dataset in datasets]
    advance = this.stage("reading images", sum(images))
    versions: list[tuple[str, Dataset, Survey]] = []
    for name, dataset, before in zip(names, datasets, accumulate(images, initial=0), strict=False):
        found = survey(
            dataset,
            dataset.sources,
            folder=this.cache,
            threads=threads,
            max_pixels=max_pixels,
            progress=partial(_advance, advance, before),
            stopped=this.stopped,
        )
        versions.append((name, dataset, found))
        this.tell_reused(found.reused)
        for what, count in found.notes.items():
            this.note(f"{name}: {count:,} images: {what}")
    advance = this.stage("writing the result", sum(images))
    parts = [({"version": name}, dataset.samples, found) for name, dataset, found in versions]
    rows = write_features(this.out.target(FEATURES_NAME), parts)
    write_text(this.out.target(REPORT_NAME), render(features_page(versions, notes=this.notices)))
    advance(sum(images))
    failures = tuple(each for _, dataset, found in versions for each in (*dataset.failures, *found.failures))
    result = {"total_sample_count": rows, "versions": [_summary(*version) for version in versions]}
    return Outcome(result, failures)


def _advance(advance: Callable[[int], None], before: int, done: int) -> None:
    advance(before + done)


def _summary(name: str, dataset: Dataset, found: Survey) -> dict[str, Any]:
    return {
        "dataset_name": name,
        "total_sample_count": len(dataset),
        "readable": int(found.readable.sum()),
        "medians": {
            feature: float(f"{np.median(found.column(feature)[found.readable]):.6g}") if found.readable.any() else None
            for feature in IMAGE_FEATURES
        },
    }
