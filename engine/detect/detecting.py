"""The door to auto labeling of boxes: samples in, of which people labeled some; a `Detection` of all out.

One pass over the images that training sees, then `fast` or `accurate`, then the detector's word on every image, file by
file. Knows nothing of requests, or of where results are written.
"""

from __future__ import annotations

import hashlib
import math
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import torch

from engine.dataset import Dataset
from engine.detect import accurate as accurate_learning
from engine.detect import fast as fast_learning
from engine.detect.accurate import accurate
from engine.detect.canvases import Canvas, Canvases, asked_files, located_images, read_canvases
from engine.detect.crossfit import BoxVerdict, Unfinished
from engine.detect.decode import Raw
from engine.detect.detector import BoxDetector
from engine.detect.fast import FOLDS, fast
from engine.detect.plan import BATCH, BoxPlan, BoxSettings, plan_for, supervised_seconds, with_members, with_precision
from engine.detect.pool import BoxPool, pool_of
from engine.detect.results import Detection
from engine.detect.sizing import canvas_for
from engine.detect.sketches import Sketches, check_rules, fitted, sketches_of
from engine.detect.trunk import Trunk
from engine.errors import Failure, ImageError, InputError, Stopped, UsageError
from engine.files import write_text
from engine.folders.sizes import image_size as header_size
from engine.images import MAX_PIXELS, Pixels, converted_in_words
from engine.label.clock import Clock
from engine.label.crossfit import NOT_COMPILED
from engine.label.labeling import ALGORITHM_TYPES, PRECISIONS, check_lengths, made, unbroken
from engine.label.plan import Stage
from engine.label.targets import LEAST_PER_CLASS
from engine.label.training import Watch, generator_of
from engine.predictions import Boxes
from engine.samples import Sample
from engine.sources import Sources
from engine.threads import processors, torch_threads

#: Unlabeled images that `accurate` learns from at most: more take room on disk and would not be seen in time.
_MOST_UNLABELED: Final = 5_000
#: A candidate below that is none.
_LEAST_CONFIDENCE: Final = 0.02
#: Labeled images: a network learns from some, and is judged by others.
_LEAST_DIFFERENT: Final = 2

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
    trunk: Trunk | None = None,
    precision: str = "auto",
    compiled: bool = False,
    score_threshold: float | None = None,
    seed: int = 0,
    threads: int | None = None,
    device: torch.device | None = None,
    max_pixels: int = MAX_PIXELS,
    folder: Path | None = None,
    reserve: float = 0.0,
    looks: int = 0,
    rest: bool = True,
    stage: Stage = lambda name, total: lambda done: None,
    note: Callable[[str], None] = lambda line: None,
    stopped: Callable[[], bool] = lambda: False,
) -> Detection:
    """Draw boxes on the images that nobody labeled, from those on which people did (CreateTask, auto labeling: active
    learning, object detection).

    algorithm_type: `fast` learns from labeled images only, `accurate` from all. minutes: for everything; None chooses
    by the labels and the device, and by how long it takes to look at all images. steps: of each training in its order
    instead, the last one again and again; with the same seed, machine, precision and networks they repeat a result
    exactly, whatever the time. epochs: another way to say steps: in each training as many as a network needs to see
    every labeled image so often. min_per_class: images that each label needs. least_unlabeled: images that must be left
    to label. image_size: longer side of what networks see, in pixels; None chooses it by the boxes. networks: how many
    are trained; None: as many as there is time for, three at most. trunk: one that was trained, to begin with
    (`read_trunk`); None: from scratch. precision: auto times bfloat16 against float32. compiled: whether networks are
    (torch.compile). score_threshold: confidence from which on boxes are given, instead of one a class that is best by
    F1. folder: keeps checkpoints, for a call that goes on; None: a temporary one. reserve: seconds of `minutes` that
    the caller needs afterwards, beside `looks` at every image by one network. rest: whether boxes are found on
    unlabeled images, too. stage: called with the name and the total of each stage, gives what to call with the number
    done. note: told at once what a person should know.

    Raises InputError when the rules of the specification are not kept (each label on five images, something unlabeled),
    UsageError for an option out of range; once `stopped()` says so, Stopped, and from training on Unfinished with the
    best so far.
    """
    began = time.perf_counter()
    _check_options(algorithm_type, minutes, precision, score_threshold)
    check_lengths(steps, epochs, pretraining=False)
    device = device or torch.device("cpu")
    computing, threads = threads, threads or processors()
    sources = samples.sources if isinstance(samples, Dataset) else Sources(Path())
    drawn = sketches_of(samples)
    rules = partial(check_rules, min_per_class=min_per_class, least_unlabeled=least_unlabeled)
    unlabeled = [row for row, sample in enumerate(samples) if sample.is_image and not drawn.by_people[row]]
    there = _readable(samples, sources, unlabeled, least_unlabeled)
    rules(drawn, there)
    canvas, notes = canvas_for(samples, sources, drawn, device, image_size)

    if compiled:
        torch.compiler.reset()  # what was compiled for other calls counts against what is kept
    with tempfile.TemporaryDirectory() as temporary, torch_threads(computing):
        folder = folder or Path(temporary)
        learned = _some(unlabeled, seed) if algorithm_type == "accurate" else []
        rows = sorted([*np.flatnonzero(drawn.labeled).tolist(), *learned])
        reading = time.perf_counter()
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
        reading = (time.perf_counter() - reading) / len(rows)
        sizes = np.zeros((len(samples), 2), np.int64)
        sizes[canvases.index] = canvases.sizes
        fit = fitted(drawn, samples, sizes)
        sketches = fit.sketches
        rules(sketches, there)
        pool = pool_of(canvases, sketches, device)
        if len(torch.unique(pool.same)) < _LEAST_DIFFERENT:
            got = f"the same file {len(pool.labeled):,} times" if len(pool.labeled) > 1 else "one"
            raise InputError(
                f"auto labeling of boxes needs {_LEAST_DIFFERENT} different labeled images at least, to learn from one "
                f"and be tested on the other; got {got}"
            )
        given = minutes or default_minutes(algorithm_type, len(pool.labeled), device)
        digest = _digest(samples, sketches)
        seen = (digest, canvases.digest)
        asked: tuple[object, ...] = (algorithm_type, canvas, batch_size, learning_rate, networks, precision, seed, seen)
        asked = (*asked, minutes, device.type, *((trunk.digest,) if trunk is not None else ()))
        asked = (*asked, *(("compiled",) if compiled else ()))
        work = made(folder / f"training-{hashlib.sha256(repr(asked).encode()).hexdigest()[:16]}")
        reading = _first_said(reading, work / "reading")
        settings = BoxSettings(seed, batch_size, learning_rate, networks, score_threshold, trunk, compiled)
        clock = Clock(60 * given, began, tuple(steps), work / "steps.json", reserve)
        if epochs:
            clock.given = (math.ceil(epochs * len(pool.labeled) / (batch_size or BATCH)),)
        advance = stage("looking at labeled images", len(pool.labeled))
        plan = plan_for(pool, settings, folds=FOLDS, members=MEMBERS[algorithm_type])
        plan, step_seconds = _with_precision(pool, plan, precision, clock, work / "precision")
        asked_of = unlabeled if rest else []
        labeling = partial(_labeling_seconds, pool, plan, step_seconds, reading, len(asked_of), looks)
        if networks is None:
            costs = labeling if minutes is not None else lambda members: 0.0
            time_for = partial(_time_for, clock, costs, step_seconds) if step_seconds else None
            plan = with_members(plan, members_for(algorithm_type, time_for, work / "networks"))
        if minutes is None:  # what is chosen by the labels is for learning
            clock.extend(labeling(plan.members))
        clock.reserve += labeling(plan.members)
        advance(len(pool.labeled))
        minutes = minutes or round(clock.seconds / 60, 1)
        note(_plan_in_words(algorithm_type, minutes, clock.given, pool, len(asked_of), canvas))
        for line in clock.overrun_in_words:
            note(line)
        learn = fast if algorithm_type == "fast" else accurate

        def chosen(verdict: BoxVerdict) -> BoxVerdict:
            """With what was asked for and decided among what was found."""
            choices = {"minutes": minutes, "steps": "+".join(map(str, clock.decided)), "seed": seed}
            choices |= {"training_digest": digest, "thresholds": list(verdict.detector.thresholds)}
            return replace(verdict, found={**choices, **verdict.found})

        try:
            watch = Watch(stopped=stopped, folder=work, saved=clock.keep)
            verdict = chosen(learn(pool, plan, step_seconds, clock=clock, stage=unbroken(stage), watch=watch))
        except Unfinished as error:
            raise Unfinished(str(error), None if error.verdict is None else chosen(error.verdict)) from None
        finally:
            clock.keep()  # a run that goes on has only the rest of the time
        detector = verdict.detector
        candidates = _out_of_fold(verdict, canvases, pool, len(samples))
        judges = np.full(len(samples), -1, np.int64)
        judges[canvases.index[pool.labeled.numpy()]] = verdict.judge.numpy()
        failures = [*canvases.failures, *fit.failures]
        converted = Counter(canvases.notes)
        known = set(canvases.index.tolist())
        asking = partial(found_boxes, threads=threads, device=device, max_pixels=max_pixels, stopped=stopped)
        try:
            advance = stage(LABELING, len(asked_of))
            for row, found in asking(samples, sources, asked_of, detector, progress=advance):
                if isinstance(found, Failure):
                    failures.append(found)
                    continue
                candidates[row], sizes[row] = found.boxes, found.size
                if found.note and row not in known:
                    converted[found.note] += 1
        except Stopped as error:  # the model is there, and is not to be lost
            raise Unfinished(str(error), verdict) from None
    return Detection(
        algorithm_type,
        sketches,
        tuple(candidates),
        judges,
        detector.thresholds,
        sizes,
        detector,
        verdict.found,
        _once(failures),
        (*notes, *_notes(drawn, sketches), *converted_in_words(converted)),
    )


@dataclass(frozen=True, slots=True)
class OnImage:
    """What was found on an image. boxes: by confidence from high to low. size: its width and height in pixels. note:
    what had to be converted, one of `images.NOTES`."""

    boxes: Boxes
    size: tuple[int, int]
    note: str = ""


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
) -> Iterator[tuple[int, OnImage | Failure]]:
    """What a detector finds on the images of the samples at these rows, one by one: likely boxes, more than are given;
    or a failure. Files are read as it goes. Raises Stopped once `stopped()` says so."""

    def work(at: int, content: bytes) -> tuple[Pixels, int, int, str]:
        pixels, picture = detector.canvas.of(content, max_pixels)
        return pixels, picture.width, picture.height, picture.note

    def ask(seen: list[tuple[Pixels, int, int, str]]) -> Iterator[OnImage]:
        pixels = torch.from_numpy(np.stack([each for each, *_ in seen])).permute(0, 3, 1, 2)
        for (_, width, height, converted), raw in zip(seen, detector.raw(pixels.to(device)), strict=True):
            boxes = _likely(detector, raw.cpu(), detector.canvas.scale(width, height), width, height)
            yield OnImage(boxes, (width, height), converted)

    return asked_files(
        samples,
        sources,
        rows,
        work,
        ask,
        batch=detector.canvas.batch,
        threads=threads,
        progress=progress,
        stopped=stopped,
    )


def _out_of_fold(verdict: BoxVerdict, canvases: Canvases, pool: BoxPool, n: int) -> list[Boxes | None]:
    """Of n samples what was said of labeled ones by the network that has not seen their boxes; None of the others."""
    candidates: list[Boxes | None] = [None] * n
    for at, raw in verdict.raws.items():
        place = int(pool.labeled[at])
        width, height = canvases.sizes[place].tolist()
        scale = canvases.canvas.scale(width, height)
        candidates[int(canvases.index[place])] = _likely(verdict.detector, raw, scale, width, height)
    return candidates


def _likely(detector: BoxDetector, raw: Raw, scale: float, width: int, height: int) -> Boxes:
    """Boxes that may be there, in pixels of the image."""
    xyxy, classes, sure = detector.boxes(raw, scale, width, height)
    likely = sure >= min(_LEAST_CONFIDENCE, *detector.thresholds)
    return Boxes(xyxy[likely], sure[likely], classes[likely])


def default_minutes(algorithm_type: str, labeled: int, device: torch.device) -> float:
    """A budget for people who name none: more labels are worth more time; a GPU needs less.

    fast: 4 minutes and one more for 30 labeled images, at most 15; accurate: twice that.
    """
    minutes = min(15.0, 4 + labeled / 30) * (1 if algorithm_type == "fast" else 2)
    return round(minutes if device.type == "cpu" else max(0.5, minutes / 6), 1)


def _readable(samples: Sequence[Sample], sources: Sources, rows: Sequence[int], enough: int) -> int:
    """How many of the samples at these rows have an image file with a sound header: no more are looked for than are
    enough."""
    found = 0
    for _, path in located_images(samples, sources, rows)[0]:
        if found >= enough:
            break
        with suppress(ImageError, OSError):
            header_size(path)
            found += 1
    return found


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


#: Steps on labeled images that a network is worth having for, and how many networks there are beside what teaches them.
#: (60 labeled images of blood cells, 2 cores without AMX, mAP50:95: 0.576 by two networks with 244 and 223 steps, 0.580
#: and 0.584 by three with 410 and 440 each, 0.594 by one with 1,300 that has seen all labels.)
_WORTH: Final = {"fast": 600, "accurate": 1000}


def members_for(algorithm_type: str, steps: Callable[[int], float] | None, file: Path) -> int:
    """How many networks there is time for; kept in the file for a run that goes on. steps: for which there is time
    beside what asking so many networks takes; None: nobody knows how long one takes."""
    if file.is_file():
        return int(file.read_text("utf-8"))
    members = MEMBERS[algorithm_type]
    while members > 1 and steps is not None and steps(members) < members * _WORTH[algorithm_type]:
        members -= 1
    write_text(file, str(members))
    return members


def _time_for(clock: Clock, labeling: Callable[[int], float], step_seconds: float, members: int) -> float:
    """Steps on labeled images that are left where so many networks label."""
    return replace(clock, reserve=clock.reserve + labeling(members), file=None).left / step_seconds


def _first_said(seconds: float, file: Path) -> float:
    """What the first of several runs has measured: later ones find canvases that are there already."""
    if file.is_file():
        return float(file.read_text("utf-8"))
    write_text(file, repr(seconds))
    return seconds


#: Of a training step, the part that a look at the images takes.
_FORWARD_SHARE: Final = 0.35


def _labeling_seconds(
    pool: BoxPool, plan: BoxPlan, step_seconds: float, reading: float, images: int, looks: int, members: int
) -> float:
    """What asking so many networks about so many images will take, and `looks` more by one. reading: seconds that an
    image takes from its file to its canvas, which is done for the first look and once for all others."""
    views = members * (1 + sum(plan.flips)) + looks
    slower = NOT_COMPILED if plan.recipe.compiled else 1.0
    looking = views * slower * step_seconds / plan.batch * _FORWARD_SHARE
    return (images + len(pool.labeled)) * (looking + (2 if looks else 1) * reading)


def _check_options(algorithm_type: str, minutes: float | None, precision: str, threshold: float | None) -> None:
    if algorithm_type not in ALGORITHM_TYPES:
        raise UsageError(f"algorithm_type: must be {' or '.join(ALGORITHM_TYPES)}, got {algorithm_type!r}")
    if minutes is not None and not 0 < minutes < math.inf:
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
    wanted = f"boxes for {unlabeled:,} images with " if unlabeled else ""
    return (
        f"{algorithm_type}: {wanted}{len(pool.labels):,} labels, "
        f"{len(pool.labeled):,} labeled images with {sum(map(len, pool.boxes)):,} boxes to learn from, "
        f"seen at {canvas.width}x{canvas.height}, {time_or_steps}"
    )


def _notes(drawn: Sketches, sketches: Sketches) -> Iterator[str]:
    lost = int(drawn.labeled.sum() - sketches.labeled.sum())
    if lost:
        yield f"{lost:,} labeled images cannot be read or do not fit their boxes, and do not count"


def _once(failures: Sequence[Failure]) -> tuple[Failure, ...]:
    return tuple(dict.fromkeys(failures))
