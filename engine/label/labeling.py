"""The door to auto labeling: samples in, of which people labeled some; a `Labeling` of all out.

One pass over the images, then `fast` or `accurate` on what could be read, then the model's word on every image. Knows
nothing of requests, or of where results are written.
"""

from __future__ import annotations

import hashlib
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engine.dataset import Dataset
from engine.embeddings import Encoder, Gradients
from engine.errors import ImageError, OutputError, Stopped, UsageError
from engine.files import write_text
from engine.images import MAX_PIXELS, read_picture
from engine.label import accurate as accurate_learning
from engine.label import fast as fast_learning
from engine.label.accurate import accurate
from engine.label.clock import Clock
from engine.label.fast import fast
from engine.label.opinions import Unfinished, Verdict
from engine.label.plan import Settings, Stage, batch_for, bfloat16_for
from engine.label.pool import Pool, pixels_of
from engine.label.results import Labeling
from engine.label.targets import LEAST_PER_CLASS, Targets, check_rules, human_labels, targets_of
from engine.label.training import Watch
from engine.samples import Sample
from engine.sources import Sources
from engine.survey import survey
from engine.threads import torch_threads

#: Sides of the square images that networks see, in pixels: the smallest that is not below what the labeled images have.
_SIDES: Final = (16, 32, 64)
_SIDES_ON_GPU: Final = (16, 32, 64, 128)
#: Labeled images whose size is looked at.
_PEEKED: Final = 32

ALGORITHM_TYPES: Final = ("fast", "accurate")
PRECISIONS: Final = ("auto", "bfloat16", "float32")


def auto_label(
    samples: Dataset | Sequence[Sample],
    algorithm_type: str = "accurate",
    *,
    minutes: float | None = None,
    steps: Sequence[int] = (),
    min_per_class: int = LEAST_PER_CLASS,
    least_unlabeled: int = 1,
    encoder: Encoder | None = None,
    image_size: int | None = None,
    batch_size: int | None = None,
    epochs: int | None = None,
    learning_rate: float | None = None,
    networks: int | None = None,
    precision: str = "auto",
    compiled: bool = False,
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
) -> Labeling:
    """Label the images that nobody labeled, from those that people did (CreateTask, auto labeling: active learning).

    algorithm_type: `fast` learns from labeled images only, `accurate` from all. minutes: for everything; None chooses
    by the number of images and the device. steps: of each training in its order instead, the last one again and again;
    with the same seed, machine and precision they repeat a result exactly, whatever the time. epochs: another way to
    say steps: in each training as many as a network needs to see every labeled image so often. min_per_class: images
    that each label needs. least_unlabeled: images that must be left to label; 0: a set that people labeled whole will
    do for `fast`, for what is said of it out of fold. encoder: what the closed-form head sees, and with `accurate` the
    graph of neighbours; histograms of gradients by default. image_size: side that networks see, in pixels. networks:
    how many are trained. precision: auto times bfloat16 against float32. compiled: whether networks are, by
    torch.compile, which needs a C++ compiler. folder: keeps checkpoints and what the pass over the images has found,
    for a call that goes on; None: a temporary one. reserve: seconds of `minutes` that the caller needs afterwards,
    beside `looks` at every image by one network. stage: called with the name and the total of each stage, gives what to
    call with the number done. note: told at once what a person should know.

    Raises InputError when the rules of the specification are not kept (at least two labels, each on five images,
    something unlabeled), UsageError for an option out of range; once `stopped()` says so, Stopped while images are read
    and Unfinished, with the best so far, from then on.
    """
    began = time.perf_counter()
    _check_options(algorithm_type, minutes, precision, steps, epochs)
    targets = targets_of(samples)
    device = device or torch.device("cpu")
    encoder = encoder or Gradients()
    sources = samples.sources if isinstance(samples, Dataset) else Sources(Path())
    least = max(1, least_unlabeled) if algorithm_type == "accurate" else least_unlabeled
    rules = partial(check_rules, min_per_class=min_per_class, least_unlabeled=least)
    rules(targets, _unlabeled_images(samples, targets))
    side = image_size or _side_for(samples, sources, targets, device)

    if compiled:
        torch.compiler.reset()  # what was compiled for other calls counts against what is kept
    with tempfile.TemporaryDirectory() as temporary, torch_threads(threads):
        folder = folder or Path(temporary)
        found = survey(
            samples,
            sources,
            folder=folder,
            thumbnail_side=max(side, encoder.size) if not isinstance(encoder, Gradients) else side,
            threads=threads,
            max_pixels=max_pixels,
            progress=stage("reading images", sum(sample.is_image for sample in samples)),
            stopped=stopped,
        )
        assert found.thumbnails is not None
        targets = targets.only(found.readable)
        readable = found.thumbnails.index
        rules(targets, int((~targets.labeled[readable]).sum()))
        pool = Pool(
            pixels_of(found.thumbnails, device),
            torch.from_numpy(targets.matrix[readable]).float(),
            targets.labels,
            targets.multi_label,
            found.thumbnails.side,
            device,
        )
        minutes = minutes or default_minutes(algorithm_type, len(pool), len(pool.labeled), device)
        digest = _digest(samples, targets)
        seen = hashlib.sha256(found.features.tobytes()).hexdigest()  # other pixels have other features
        asked: tuple[object, ...] = (algorithm_type, side, batch_size, learning_rate, networks, precision, seed)
        asked = (*asked, minutes, device.type, encoder.name, seen, *(("compiled",) if compiled else ()))
        work = made(folder / f"training-{hashlib.sha256(repr((digest, asked)).encode()).hexdigest()[:16]}")
        clock = Clock(60 * minutes, began, tuple(steps), work / "steps.json", reserve)
        settings = Settings(encoder, seed, side, batch_size, learning_rate, networks, compiled=compiled, looks=looks)
        settings = replace(settings, bfloat16=_in_bfloat16(precision, pool, settings, work / "precision"))
        if epochs:
            clock.given = (math.ceil(epochs * len(pool.labeled) / batch_for(len(pool.labeled), settings)),)
        note(_plan_in_words(algorithm_type, minutes, clock.given, pool))
        learn = fast if algorithm_type == "fast" else accurate

        def chosen(verdict: Verdict) -> Verdict:
            """With what was asked for and decided among what was found."""
            choices = {"minutes": minutes, "steps": "+".join(map(str, clock.decided)), "seed": seed}
            return replace(verdict, found={**choices, "training_digest": digest, **verdict.found})

        try:
            watch = Watch(stopped=stopped, folder=work, saved=clock.keep)
            verdict = chosen(learn(pool, settings, clock=clock, stage=unbroken(stage), watch=watch))
        except Unfinished as error:
            raise Unfinished(str(error), chosen(error.verdict)) from None
        finally:
            clock.keep()  # a run that goes on has only the rest of the time
        for line in clock.overrun_in_words:
            note(line)
        probabilities = np.full((len(samples), len(targets.labels)), np.nan, np.float32)
        try:
            probabilities[readable] = _asked(pool, verdict, stage("labeling", len(pool)))
        except Stopped as error:  # the model is there, and is not to be lost
            raise Unfinished(str(error), verdict) from None
        judges = np.full(len(samples), -1, np.int64)
        judges[readable[pool.labeled.numpy()]] = verdict.judge.numpy()
    notes = _notes(targets, samples)
    return Labeling(algorithm_type, targets, probabilities, judges, verdict.classifier, verdict.found, found, notes)


#: Networks that are trained, unless a person asks for another number.
MEMBERS: Final = {"fast": fast_learning.MEMBERS, "accurate": accurate_learning.MEMBERS}


def _in_bfloat16(precision: str, pool: Pool, settings: Settings, file: Path) -> bool:
    """What was asked for; `auto` is timed once, and kept in the file for a run that goes on."""
    if precision == "auto":
        if not file.is_file():
            write_text(file, "bfloat16" if bfloat16_for(pool, settings) else "float32")
        precision = file.read_text("utf-8")
    return precision == "bfloat16"


def made(folder: Path) -> Path:
    """The folder, which is there now. Raises OutputError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made: {error.strerror or error}") from error
    return folder


def unbroken(stage: Stage) -> Stage:
    """The same stages, but telling them never breaks off: a task's do, by Stopped, and a training that asks `stopped()`
    itself ends between two steps, with a checkpoint and a model."""

    def begin(name: str, total: int) -> Callable[[int], None]:
        advance: Callable[[int], None] | None = None
        with suppress(Stopped):
            advance = stage(name, total)

        def tell(done: int) -> None:
            with suppress(Stopped):
                if advance is not None:
                    advance(done)

        return tell

    return begin


def default_minutes(algorithm_type: str, images: int, labeled: int, device: torch.device) -> float:
    """A budget for people who name none: more images and labels are worth more time; a GPU needs less.

    fast: 1 minute and one more for 500 labels, at most 10. accurate: 3 minutes and one more for 1,000 images, at most
    30.
    """
    minutes = min(10.0, 1 + labeled / 500) if algorithm_type == "fast" else min(30.0, 3 + images / 1000)
    return round(minutes if device.type == "cpu" else max(0.5, minutes / 4), 1)


def _asked(pool: Pool, verdict: Verdict, advance: Callable[[int], None]) -> npt.NDArray[np.float32]:
    """(m, k) what the classifier says of every image, and of the labeled ones what was said out of fold."""
    done = 0

    def said(images: Tensor) -> Tensor:
        nonlocal done
        done += len(images)
        answer = verdict.classifier.probabilities(images)
        advance(done)
        return answer

    probabilities = pool.mapped(said)
    probabilities[pool.labeled] = verdict.out_of_fold
    assert bool(probabilities[pool.unlabeled].isfinite().all())
    found: npt.NDArray[np.float32] = probabilities.clamp(0, 1).numpy()
    return found


def _check_options(
    algorithm_type: str, minutes: float | None, precision: str, steps: Sequence[int], epochs: int | None
) -> None:
    if algorithm_type not in ALGORITHM_TYPES:
        raise UsageError(f"algorithm_type: must be {' or '.join(ALGORITHM_TYPES)}, got {algorithm_type!r}")
    if minutes is not None and not 0 < minutes < math.inf:
        raise UsageError(f"minutes: must be above 0, got {minutes!r}")
    if precision not in PRECISIONS:
        raise UsageError(f"precision: must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    check_lengths(steps, epochs, pretraining=algorithm_type == "accurate")


def check_lengths(steps: Sequence[int], epochs: int | None, *, pretraining: bool) -> None:
    """Raises UsageError where both say how long training is, or steps leave out a training that must be. pretraining:
    whether the first is one, which may be left out."""
    if min(steps[1:] if pretraining and len(steps) > 1 else steps, default=1) < 1:
        raise UsageError(f"steps: must be above 0, got {'+'.join(map(str, steps))}")
    if steps and epochs:
        raise UsageError("epochs: cannot be given beside steps, which say already how long training is")


def _unlabeled_images(samples: Sequence[Sample], targets: Targets) -> int:
    return sum(
        sample.is_image and not labeled for sample, labeled in zip(samples, targets.labeled.tolist(), strict=True)
    )


def _side_for(samples: Sequence[Sample], sources: Sources, targets: Targets, device: torch.device) -> int:
    """The side that networks see: by the middle short side of a few labeled images."""
    rows = np.flatnonzero(targets.labeled)
    shorts = []
    for row in rows[:: max(1, len(rows) // _PEEKED)]:
        with suppress(ImageError):
            picture = read_picture(sources.path(samples[row].source))
            shorts.append(min(picture.width, picture.height))
    sides = _SIDES if device.type == "cpu" else _SIDES_ON_GPU
    usual = float(np.median(shorts)) if shorts else float(sides[-1])
    return next((side for side in sides if side >= usual), sides[-1])


def _digest(samples: Sequence[Sample], targets: Targets) -> str:
    """64 hexadecimal digits of what is to be learned: sources and targets; no checkpoint is taken for another's."""
    digest = hashlib.sha256(repr(targets.labels).encode())
    digest.update(np.packbits(targets.matrix).tobytes())
    for sample in samples:
        digest.update(sample.source.encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()


def _plan_in_words(algorithm_type: str, minutes: float, steps: Sequence[int], pool: Pool) -> str:
    kinds = "several labels a sample" if pool.multi_label else "one label a sample"
    time_or_steps = f"in steps of {'+'.join(map(str, steps))}" if steps else f"in {minutes:g} minutes"
    return (
        f"{algorithm_type}: {len(pool.unlabeled):,} images to label with {len(pool.labels):,} labels ({kinds}), "
        f"{len(pool.labeled):,} labeled to learn from, {time_or_steps}"
    )


def _notes(targets: Targets, samples: Sequence[Sample]) -> tuple[str, ...]:
    lost = sum(bool(human_labels(sample)) for sample in samples) - int(targets.labeled.sum())
    return (f"{lost:,} labeled images cannot be read and do not count",) if lost else ()
