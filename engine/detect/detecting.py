"""The door to auto labeling of boxes: samples in, of which people labeled some; a `Detection` of all out.

One pass over the images that training sees, then `fast` or `accurate`, then the detector's word on every image, file by
file. Knows nothing of requests, or of where results are written.
"""

from __future__ import annotations

import hashlib
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import torch

from engine.dataset import Dataset
from engine.detect import accurate as accurate_learning
from engine.detect import fast as fast_learning
from engine.detect.accurate import accurate
from engine.detect.canvases import Canvas, Canvases, located_images, read_canvases
from engine.detect.detector import BATCH, BoxDetector
from engine.detect.fast import FOLDS, fast
from engine.detect.plan import BoxPlan, BoxSettings, plan_for, supervised_seconds, with_precision
from engine.detect.pool import BoxPool, pool_of
from engine.detect.results import Detection
from engine.detect.sketches import LEAST_PER_CLASS, Sketches, check_rules, fitted, sketches_of
from engine.errors import Failure, ImageError, InputError, Stopped, UsageError
from engine.files import write_text
from engine.folders import image_size as header_size
from engine.images import MAX_PIXELS, Pixels, stream
from engine.label.clock import Clock
from engine.label.labeling import ALGORITHM_TYPES, PRECISIONS
from engine.label.plan import Stage
from engine.label.training import Watch, generator_of
from engine.predictions import Boxes
from engine.samples import Sample
from engine.sources import Sources

#: Sides of the canvas are such that boxes of the smallest class are so wide, in pixels, as far as the area allows.
_SMALL: Final = 20.0
_LEAST_AREA: Final = 128 * 128
_MOST_AREA: Final = 320 * 256
_MOST_AREA_ON_GPU: Final = 640 * 640
_MOST_ENLARGED: Final = 2.0
_SIDE_STEP: Final = 16
#: Smaller objects than so many pixels of the canvas are hard to find: a person is told.
_TINY: Final = 8.0
#: Labeled images whose size is looked at.
_PEEKED: Final = 200
#: Unlabeled images that `accurate` learns from at most: more take room on disk and would not be seen in time.
_MOST_UNLABELED: Final = 5_000
#: A candidate below that is none.
_LEAST_CONFIDENCE: Final = 0.02

#: Networks that are trained, unless a person asks for another number.
MEMBERS: Final = {"fast": fast_learning.MEMBERS, "accurate": accurate_learning.MEMBERS}
READING: Final = "reading images"
LABELING: Final = "labeling"


def auto_detect(
    samples: Dataset | Sequence[Sample],
    algorithm_type: str = "accurate",
    *,
    minutes: float | None = None,
    steps: Sequence[int] = (),
    min_per_class: int = LEAST_PER_CLASS,
    least_unlabeled: int = 1,
    image_size: int | None = None,
    batch_size: int | None = None,
    epochs: int | None = None,
    learning_rate: float | None = None,
    networks: int | None = None,
    precision: str = "auto",
    score_threshold: float | None = None,
    seed: int = 0,
    threads: int | None = None,
    device: torch.device | None = None,
    max_pixels: int = MAX_PIXELS,
    folder: Path | None = None,
    reserve: float = 0.0,
    looks: int = 0,
    stage: Stage = lambda name, total: lambda done: None,
    note: Callable[[str], None] = lambda line: None,
    stopped: Callable[[], bool] = lambda: False,
) -> Detection:
    """Draw boxes on the images that nobody labeled, from those on which people did (CreateTask, auto labeling: active
    learning, object detection).

    algorithm_type: `fast` learns from labeled images only, `accurate` from all. minutes: for everything; None chooses
    by the number of images and the device. steps: of each training in its order instead, the last one again and again;
    with the same seed, machine and precision they repeat a result exactly, whatever the time. epochs: times that a
    network sees every labeled image, another way to say steps. min_per_class: images that each label needs.
    least_unlabeled: images that must be left to label. image_size: longer side of what networks see, in pixels; None
    chooses it by the boxes. networks: how many are trained. precision: auto times bfloat16 against float32.
    score_threshold: confidence from which on boxes are given, instead of one a class that is best by F1. folder: keeps
    checkpoints, for a call that goes on; None: a temporary one. reserve: seconds of `minutes` that the caller needs
    afterwards, beside `looks` at every image by one network. stage: called with the name and the total of each stage,
    gives what to call with the number done. note: told at once what a person should know.

    Raises InputError when the rules of the specification are not kept (each label on five images, something unlabeled),
    UsageError for an option out of range; once `stopped()` says so, Stopped, and from training on Unfinished with the
    best so far.
    """
    began = time.perf_counter()
    _check_options(algorithm_type, minutes, precision, score_threshold)
    device = device or torch.device("cpu")
    threads = threads or os.cpu_count() or 1
    sources = samples.sources if isinstance(samples, Dataset) else Sources(Path())
    drawn = sketches_of(samples)
    rules = partial(check_rules, min_per_class=min_per_class, least_unlabeled=least_unlabeled)
    unlabeled = [row for row, sample in enumerate(samples) if sample.is_image and not drawn.labeled[row]]
    rules(drawn, len(unlabeled))
    canvas, notes = _canvas_for(samples, sources, drawn, device, image_size)

    with tempfile.TemporaryDirectory() as temporary:
        folder = folder or Path(temporary)
        learned = _some(unlabeled, seed) if algorithm_type == "accurate" else []
        rows = sorted([*np.flatnonzero(drawn.labeled).tolist(), *learned])
        canvases = read_canvases(
            samples,
            sources,
            rows,
            canvas,
            folder=folder,
            threads=threads,
            max_pixels=max_pixels,
            progress=stage(READING, len(rows)),
            stopped=stopped,
        )
        sizes = np.zeros((len(samples), 2), np.int64)
        sizes[canvases.index] = canvases.sizes
        fit = fitted(drawn, samples, sizes)
        sketches = fit.sketches
        rules(sketches, len(unlabeled))
        pool = pool_of(canvases, sketches, device)
        minutes = minutes or default_minutes(algorithm_type, len(pool.labeled), device)
        digest = _digest(samples, sketches)
        asked = (algorithm_type, canvas, batch_size, learning_rate, networks, precision, seed, digest, sizes.tobytes())
        work = folder / f"training-{hashlib.sha256(repr(asked).encode()).hexdigest()[:16]}"
        work.mkdir(parents=True, exist_ok=True)
        settings = BoxSettings(seed, batch_size, learning_rate, networks)
        clock = Clock(60 * minutes, began, tuple(steps), work / "steps.json", reserve)
        if epochs and not steps:
            clock.given = (math.ceil(epochs * len(pool.labeled) / (batch_size or BATCH)),)
        advance = stage("looking at labeled images", len(pool.labeled))
        plan = plan_for(pool, settings, folds=FOLDS, members=MEMBERS[algorithm_type])
        plan, step_seconds = _with_precision(pool, plan, precision, clock, work / "precision")
        clock.reserve += _labeling_seconds(pool, plan, step_seconds, len(unlabeled), looks)
        advance(len(pool.labeled))
        note(_plan_in_words(algorithm_type, minutes, clock.given, pool, len(unlabeled), canvas))
        learn = fast if algorithm_type == "fast" else accurate
        try:
            verdict = learn(
                pool, plan, step_seconds, clock=clock, stage=stage, watch=Watch(stopped=stopped, folder=work)
            )
        finally:
            clock.keep()  # a run that goes on has only the rest of the time
        if score_threshold is not None:
            given_from = (float(score_threshold),) * len(sketches.labels)
            verdict = replace(verdict, detector=replace(verdict.detector, thresholds=given_from))
        candidates: list[Boxes | None] = [None] * len(samples)
        judges = np.full(len(samples), -1, np.int64)
        for at, row in enumerate(canvases.index[pool.labeled.numpy()].tolist()):
            if at in verdict.raws:
                scale = canvas.scale(*sizes[row].tolist())
                candidates[row] = _likely(verdict.detector, verdict.raws[at], scale, *sizes[row].tolist())
                judges[row] = int(verdict.judge[at])
        failures = [*canvases.failures, *fit.failures]
        for row, found in found_boxes(
            samples,
            sources,
            unlabeled,
            verdict.detector,
            threads=threads,
            device=device,
            max_pixels=max_pixels,
            progress=stage(LABELING, len(unlabeled)),
            stopped=stopped,
        ):
            if isinstance(found, Failure):
                failures.append(found)
            else:
                candidates[row], sizes[row] = found
    choices = {
        "minutes": minutes,
        "steps": "+".join(map(str, clock.decided)),
        "seed": seed,
        "training_digest": digest,
        "thresholds": list(verdict.detector.thresholds),
        **verdict.found,
    }
    return Detection(
        algorithm_type,
        sketches,
        tuple(candidates),
        judges,
        verdict.detector.thresholds,
        sizes,
        verdict.detector,
        choices,
        _once(failures),
        (*notes, *_notes(drawn, sketches), *_converted(canvases)),
    )


def found_boxes(
    samples: Sequence[Sample],
    sources: Sources,
    rows: Sequence[int],
    detector: BoxDetector,
    *,
    threads: int,
    device: torch.device,
    max_pixels: int = MAX_PIXELS,
    progress: Callable[[int], None] = lambda done: None,
    stopped: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[int, tuple[Boxes, tuple[int, int]] | Failure]]:
    """What a detector finds on the images of the samples at these rows, one by one in their order: likely boxes, more
    than are given, and the width and height of the image; or a failure. Files are read as it goes. Raises Stopped once
    `stopped()` says so."""
    located, failures = located_images(samples, sources, rows)
    place = {sample.source: row for row, sample in enumerate(samples)}
    for failure in failures:
        yield place[failure.source], failure

    def work(at: int, content: bytes) -> tuple[Pixels, int, int]:
        pixels, picture = detector.canvas.of(content, max_pixels)
        return pixels, picture.width, picture.height

    waiting: list[tuple[int, tuple[Pixels, int, int]]] = []
    done = 0

    def asked() -> Iterator[tuple[int, tuple[Boxes, tuple[int, int]] | Failure]]:
        if not waiting:
            return
        pixels = torch.from_numpy(np.stack([found[0] for _, found in waiting])).permute(0, 3, 1, 2)
        for (row, (_, width, height)), raw in zip(waiting, detector.raw(pixels.to(device)), strict=True):
            boxes = _likely(detector, raw.cpu(), detector.canvas.scale(width, height), width, height)
            yield row, (boxes, (width, height))
        waiting.clear()

    for batch in stream([path for _, path in located], work, threads=threads, stopped=stopped):
        for each in batch:
            row = located[done][0]
            done += 1
            if isinstance(each, ImageError):
                yield row, Failure(samples[row].source, each.kind, str(each))
                continue
            waiting.append((row, each))
            if len(waiting) == BATCH:
                yield from asked()
                progress(done)
    if done < len(located):
        raise Stopped(f"stopped after {done:,} of {len(located):,} images")
    yield from asked()
    progress(done)


def _likely(detector: BoxDetector, raw: object, scale: float, width: int, height: int) -> Boxes:
    xyxy, classes, sure = detector.boxes(raw, scale, width, height)  # type: ignore[arg-type]
    likely = sure >= min(_LEAST_CONFIDENCE, *detector.thresholds)
    return Boxes(xyxy[likely], sure[likely], classes[likely])


def default_minutes(algorithm_type: str, labeled: int, device: torch.device) -> float:
    """A budget for people who name none: more labels are worth more time; a GPU needs less.

    fast: 4 minutes and one more for 30 labeled images, at most 15; accurate: twice that.
    """
    minutes = min(15.0, 4 + labeled / 30) * (1 if algorithm_type == "fast" else 2)
    return round(minutes if device.type == "cpu" else max(0.5, minutes / 6), 1)


# ---- What networks see. ----


def _canvas_for(
    samples: Sequence[Sample], sources: Sources, drawn: Sketches, device: torch.device, longer: int | None
) -> tuple[Canvas, tuple[str, ...]]:
    """The usual shape of a few labeled images, as large as their smallest objects need."""
    rows = np.flatnonzero(drawn.presence.any(axis=1))
    rows = rows[:: max(1, len(rows) // _PEEKED)]
    sizes: list[tuple[int, int]] = []
    smalls: dict[int, list[float]] = {}
    for row in rows.tolist():
        with suppress(ImageError, OSError):
            width, height, _ = header_size(sources.path(samples[row].source))
            factor = width / drawn.stated[row, 0] if drawn.stated[row, 0] else 1.0
            sizes.append((width, height))
            boxes = drawn.boxes[row]
            sides = np.sqrt(np.prod((boxes[:, 2:] - boxes[:, :2]).clip(min=0), axis=1)) * factor
            for of, side in zip(drawn.classes[row].tolist(), sides.tolist(), strict=True):
                smalls.setdefault(of, []).append(side)
    if not sizes:
        raise InputError("auto labeling needs labeled images that can be read, got none")
    wide, high = (float(each) for each in np.median(np.array(sizes), axis=0))
    everything = [side for sides in smalls.values() for side in sides]
    small = min([float(np.median(sides)) for sides in smalls.values()] + [float(np.quantile(everything, 0.1))])
    scale = _SMALL / max(small, 1e-3)
    most = _MOST_AREA if device.type == "cpu" else _MOST_AREA_ON_GPU
    scale = min(scale, _MOST_ENLARGED, math.sqrt(most / (wide * high)))
    scale = max(scale, math.sqrt(_LEAST_AREA / (wide * high)))
    if longer is not None:
        scale = longer / max(wide, high)
    canvas = Canvas(*(max(2 * _SIDE_STEP, _SIDE_STEP * round(side * scale / _SIDE_STEP)) for side in (high, wide)))
    seen = small * canvas.scale(round(wide), round(high))
    notes = (
        (f"small objects are {seen:.1f} pixels wide where networks see them; a larger image_size may find more",)
        if seen < _TINY
        else ()
    )
    return canvas, notes


def _some(rows: Sequence[int], seed: int) -> list[int]:
    """At most _MOST_UNLABELED of them, at random."""
    chosen = torch.randperm(len(rows), generator=generator_of(seed, "unlabeled"))[:_MOST_UNLABELED]
    return [rows[at] for at in chosen.tolist()]


# ---- Time and words. ----


def _with_precision(pool: BoxPool, plan: BoxPlan, precision: str, clock: Clock, file: Path) -> tuple[BoxPlan, float]:
    """The plan with what was asked for, and what a step takes then; 0 where nothing depends on it. `auto` is timed
    once, and kept in the file for a run that goes on."""
    if precision == "auto" and file.is_file():
        precision = file.read_text("utf-8")
    plans = {name: with_precision(plan, bfloat16=name == "bfloat16") for name in PRECISIONS if name != "auto"}
    if precision != "auto":
        return plans[precision], clock.measured(lambda: supervised_seconds(pool, plans[precision]))
    seconds = {name: supervised_seconds(pool, each) for name, each in plans.items()}
    best = min(seconds, key=lambda name: seconds[name])
    write_text(file, best)
    return plans[best], seconds[best]


#: Of a training step, the part that a look at the images takes.
_FORWARD_SHARE: Final = 0.35


def _labeling_seconds(pool: BoxPool, plan: BoxPlan, step_seconds: float, images: int, looks: int) -> float:
    """What asking all networks about so many images will take, and `looks` more by one."""
    views = plan.members * (1 + sum(plan.flips)) + looks
    return (images + len(pool.labeled)) * views * step_seconds / plan.batch * _FORWARD_SHARE


def _check_options(algorithm_type: str, minutes: float | None, precision: str, threshold: float | None) -> None:
    if algorithm_type not in ALGORITHM_TYPES:
        raise UsageError(f"algorithm_type: must be {' or '.join(ALGORITHM_TYPES)}, got {algorithm_type!r}")
    if minutes is not None and not minutes > 0:
        raise UsageError(f"minutes: must be above 0, got {minutes!r}")
    if precision not in PRECISIONS:
        raise UsageError(f"precision: must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    if threshold is not None and not 0 <= threshold <= 1:
        raise UsageError(f"score_threshold: must be in [0, 1], got {threshold!r}")


def _digest(samples: Sequence[Sample], sketches: Sketches) -> str:
    """64 hexadecimal digits of what is to be learned: sources and boxes; no checkpoint is taken for another's."""
    digest = hashlib.sha256(repr(sketches.labels).encode())
    for sample, boxes, classes in zip(samples, sketches.boxes, sketches.classes, strict=True):
        digest.update(sample.source.encode("utf-8", "surrogatepass") + b"\0")
        digest.update(boxes.tobytes() + classes.tobytes())
    digest.update(np.packbits(sketches.labeled).tobytes())
    return digest.hexdigest()


def _plan_in_words(
    algorithm_type: str, minutes: float, steps: Sequence[int], pool: BoxPool, unlabeled: int, canvas: Canvas
) -> str:
    time_or_steps = f"in steps of {'+'.join(map(str, steps))}" if steps else f"in {minutes:g} minutes"
    return (
        f"{algorithm_type}: boxes for {unlabeled:,} images with {len(pool.labels):,} labels, "
        f"{len(pool.labeled):,} labeled images with {sum(map(len, pool.boxes)):,} boxes to learn from, "
        f"seen at {canvas.width}x{canvas.height}, {time_or_steps}"
    )


def _notes(drawn: Sketches, sketches: Sketches) -> Iterator[str]:
    lost = int(drawn.labeled.sum() - sketches.labeled.sum())
    if lost:
        yield f"{lost:,} labeled images cannot be read or do not fit their boxes, and do not count"


def _converted(canvases: Canvases) -> Iterator[str]:
    return (f"{count:,} images: {what}" for what, count in canvases.notes.items())


def _once(failures: Sequence[Failure]) -> tuple[Failure, ...]:
    return tuple(dict.fromkeys(failures))
