"""A service that answers what is on an image: models in processes of their own, and what is kept of the requests.

In: the folder that auto-deploy wrote (or that of one model), and the bytes of images. Out: the documented answers. A
process that dies takes one request with it and is replaced; a disk that is full, or an image that is broken, stops
nothing.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import math
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Mapping
from concurrent.futures import CancelledError, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import orjson

from engine.errors import EngineError, ImageError, InputError
from engine.files import write_bytes
from engine.folders.voc_folder import VOC_FORMAT
from engine.manifest import format_sample
from engine.samples import (
    HARD_REASONS_KEY,
    IMAGE_CLASSIFICATION,
    OBJECT_DETECTION,
    Drawing,
    Label,
    Sample,
    Shape,
)
from engine.tasks.deploying import ServedModel, ServicePlan
from engine.threads import processors
from engine.voc import format_voc

COLLECTED: Final = "collected.manifest"
ANNOTATED_BY: Final = "modelarts/inference"
#: Bytes of an image at most.
MOST_IMAGE: Final = 64 * 2**20
_LOW_CONFIDENCE: Final = 1  # the reason of a hard example
_NOTHING_FOUND: Final = 0
#: Where the process is that looks at nothing else.
_ALONE: Final = -1

_log = logging.getLogger("labelengine.service")


@dataclass(frozen=True, slots=True)
class Answered:
    """What a model said. answer: in the documented form. size: width and height of the image. given: how many labels,
    the first of `scores`, or boxes. confidence: of the least certain of these; None where nothing was found."""

    answer: dict[str, Any]
    size: tuple[int, int]
    given: int
    confidence: float | None


class Service:
    """The models of a service, ready to answer. folder: where it keeps things that no output_dir was named for."""

    def __init__(self, service_id: str, plan: ServicePlan, folder: Path) -> None:
        self.service_id = service_id
        self.plan = plan
        self._owed = [0] * len(plan.models)
        self._lock = threading.Lock()
        self._apart = threading.Lock()
        self._closed = False
        self._pools: dict[int, ProcessPoolExecutor] = {}  # by the number of the model, and _ALONE
        output = Path(plan.output_dir) if plan.output_dir else folder / "collected"
        results = plan.infer_result_output_dir
        self._collector = _Collector(
            plan,
            output if plan.collect_sample else None,
            Path(results) if results else output / f"{service_id}-infer-result" if plan.collect_sample else None,
        )

    def answer(self, content: bytes) -> dict[str, Any]:
        """What the next model says of an image, in the documented form. Raises ImageError for what is no image,
        InputError for a model that fails."""
        number = self._next()
        found = self._asked(number, content)
        if found is None:  # once more, and alone: it may have been another image that the process died of
            found = self._alone(number, content)
        if found is None:
            self._check_open()  # else its process was ended
            raise InputError("the process of the model died of this image, twice")
        if isinstance(found, ImageError):
            raise found
        if isinstance(found, EngineError):
            raise InputError(str(found))
        self._collector.keep(content, found, self.plan.models[number])
        return found.answer

    def _asked(self, number: int, content: bytes) -> Answered | EngineError | None:
        """What a model says; None where its process has died, and is replaced."""
        pool = self._pool(number)
        try:
            future = pool.submit(_look, content)
        except RuntimeError:  # it is broken, or was shut down meanwhile
            self._replace(number, pool)
            return None
        try:
            return future.result()
        except (BrokenProcessPool, CancelledError):
            self._replace(number, pool)
            return None

    def _alone(self, number: int, content: bytes) -> Answered | EngineError | None:
        """What a model says in a process that looks at nothing else; None where it dies again."""
        with self._apart, self._pool(number, alone=True) as pool:
            try:
                return pool.submit(_look, content).result()
            except (RuntimeError, CancelledError):  # it is broken, or was shut down meanwhile
                return None
            finally:
                with self._lock:
                    self._pools.pop(_ALONE, None)

    def close(self) -> None:
        """No more is answered: what still looks at an image is ended."""
        with self._lock:
            self._closed = True
            pools, self._pools = list(self._pools.values()), {}
        for pool in pools:
            processes = pool._processes  # taken before, for the shutdown forgets them; those just being started come in
            pool.shutdown(wait=False, cancel_futures=True)
            for process in () if processes is None else list(processes.values()):
                process.kill()  # it may hang, and has nothing to tidy up

    def _check_open(self) -> None:
        if self._closed:
            raise InputError(f"service {self.service_id}: has been removed")

    def _next(self) -> int:
        """Which model answers: each gets its share of the traffic, evenly spread and without chance."""
        with self._lock:
            for at, model in enumerate(self.plan.models):
                self._owed[at] += model.weight
            number = max(range(len(self._owed)), key=lambda at: self._owed[at])
            self._owed[number] -= 100
            return number

    def _pool(self, number: int, *, alone: bool = False) -> ProcessPoolExecutor:
        """The processes of a model; alone: one that is apart from them."""
        with self._lock:
            self._check_open()
            place, count = (_ALONE, 1) if alone else (number, self.plan.models[number].instance_count)
            if place not in self._pools:
                self._pools[place] = self._new_pool(number, count)
            return self._pools[place]

    def _new_pool(self, number: int, processes: int) -> ProcessPoolExecutor:
        model = self.plan.models[number]
        total = sum(each.instance_count for each in self.plan.models)
        threads = max(1, processors() // total)
        return ProcessPoolExecutor(
            processes,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_load,
            initargs=(os.fspath(model.path), threads, dict(model.envs)),
        )

    def _replace(self, number: int, broken: ProcessPoolExecutor) -> None:
        if not self._closed:
            _log.warning("service %s: a process of model %s died, and is replaced", self.service_id, number + 1)
        with self._lock:
            if self._pools.get(number) is broken:  # else another request has done so
                del self._pools[number]
        broken.shutdown(wait=False, cancel_futures=True)


# ---- In the processes. ----

_loaded: list[Any] = []


def _load(folder: str, threads: int, envs: Mapping[str, str]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which ends its processes
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    os.environ.update(envs)
    import torch

    from engine.models import load_any

    torch.set_num_threads(threads)
    _loaded[:] = [load_any(Path(folder))]


def _end_with(parent: int) -> None:
    """End when the server has: one that was killed ends nothing itself."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


def _look(content: bytes) -> Answered | EngineError:
    from engine.tasks.inference import image_answer

    try:
        return Answered(*image_answer(_loaded[0], content))
    except EngineError as error:
        return error
    except RuntimeError as error:  # of torch: no memory, say
        first = (str(error).splitlines() or ["no more is known"])[0]
        return InputError(f"the model must answer on this image, it failed: {first}")


# ---- What is kept. ----


class _Collector:
    """Images and answers of requests, as a manifest in a folder: a line is written whole, after its files."""

    def __init__(self, plan: ServicePlan, output: Path | None, results: Path | None) -> None:
        self._plan = plan
        self._output = output
        self._results = results
        self._lock = threading.Lock()
        self._failed = False

    def keep(self, content: bytes, found: Answered, model: ServedModel) -> None:
        """Never raises: what cannot be kept is said in the log."""
        if self._output is None and self._results is None:
            return
        try:
            self._keep(content, found, model)
            self._failed = False
        except (OSError, EngineError) as error:
            if not self._failed:
                _log.warning("requests are answered, but cannot be kept: %s", error)
            self._failed = True

    def _keep(self, content: bytes, found: Answered, model: ServedModel) -> None:
        name = hashlib.sha256(content).hexdigest()[:32]
        said = {**found.answer, "model_id": model.model_id, "time": datetime.now().isoformat(timespec="milliseconds")}
        if self._results is not None:
            self._results.mkdir(parents=True, exist_ok=True)
            write_bytes(self._results / f"{name}.json", orjson.dumps(said, option=orjson.OPT_INDENT_2))
        if self._output is None:
            return
        image = f"images/{name}{_extension(content)}"
        for folder in ("images", "annotations"):
            (self._output / folder).mkdir(parents=True, exist_ok=True)
        if not (self._output / image).is_file():
            write_bytes(self._output / image, content)
        sample = _as_sample(image, name, found, self._plan, self._results, self._output)
        if "detection_boxes" in found.answer:
            drawing = sample.labels[0].drawing
            assert drawing is not None
            write_bytes(self._output / f"annotations/{name}.xml", format_voc(drawing))
        with self._lock:
            _append(self._output / COLLECTED, format_sample(sample))


def _append(path: Path, line: bytes) -> None:
    """Add a line to a file, the whole of it or nothing."""
    with path.open("ab", buffering=0) as file:
        before = file.tell()
        try:
            if file.write(line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fspath(path))
        except OSError:  # a full disk: half a line would spoil all that follow
            with suppress(OSError):
                os.truncate(path, before)
            raise


def _as_sample(image: str, name: str, found: Answered, plan: ServicePlan, results: Path | None, output: Path) -> Sample:
    answer, sure = found.answer, found.confidence
    coefficient = round(1.0 - (sure or 0.0), 6)
    low, high = plan.confidence_scope
    hard = coefficient >= plan.hard_from and (sure is None or low <= sure <= high)
    reasons = [_NOTHING_FOUND if sure is None else _LOW_CONFIDENCE] if hard else []
    if "detection_boxes" in answer:
        labels: tuple[Label, ...] = (_boxes(answer, name, found.size),)
    else:
        labels = tuple(
            _named(label, float(score), plan.hard_from if hard else math.inf)
            for label, score in answer["scores"][: found.given]
        )
    where = None if results is None else os.path.relpath(results / f"{name}.json", output)
    return Sample(
        image,
        labels,
        usage="INFERENCE",
        hard=hard,
        hard_coefficient=coefficient,
        property={HARD_REASONS_KEY: reasons} if reasons else {},
        inference_loc=where,
    )


def _named(label: str, confidence: float, hard_from: float) -> Label:
    coefficient = round(1.0 - confidence, 6)
    return Label(
        type=IMAGE_CLASSIFICATION,
        name=label,
        annotated_by=ANNOTATED_BY,
        creation_time=datetime.now().strftime("%Y-%m-%d %H:%M:%S"),
        confidence=confidence,
        hard=coefficient >= hard_from,
        hard_coefficient=coefficient,
    )


def _boxes(answer: Mapping[str, Any], name: str, size: tuple[int, int]) -> Label:
    shapes = [
        Shape(of, "bndbox", ((x1, y1), (x2, y2)), confidence=score)
        for of, (y1, x1, y2, x2), score in zip(
            answer["detection_classes"], answer["detection_boxes"], answer["detection_scores"], strict=True
        )
    ]
    return Label(
        type=OBJECT_DETECTION,
        annotated_by=ANNOTATED_BY,
        creation_time=datetime.now().strftime("%Y-%m-%d %H:%M:%S"),
        drawing=Drawing(tuple(shapes), (*size, 3)),
        annotation_loc=f"annotations/{name}.xml",
        annotation_format=VOC_FORMAT,
    )


def _extension(content: bytes) -> str:
    known = ((b"\x89PNG", ".png"), (b"BM", ".bmp"), (b"GIF8", ".gif"), (b"RIFF", ".webp"), (b"II*\0", ".tif"))
    return next((extension for start, extension in known if content.startswith(start)), ".jpg")


def closed(services: Mapping[str, Service]) -> None:
    """Close them all; one that fails keeps no other from it."""
    for service in services.values():
        with suppress(Exception):
            service.close()
