"""One runner for every task: a job in, its answer out, and OUT as the record of both.

OUT/task.json is the specification's task answer (status, progress, config, result, ...), with failures, timings and
notices besides. It is written when the task begins, while it runs and when it ends, so that a killed run says
"running" for ever and --resume knows what may go on: what a job keeps in OUT/CACHE survives until the task succeeds.
The command line, Python and a server wrap `run` and add nothing. Knows nothing of images.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from threading import Event
from typing import Any, Final, Protocol

from engine.dataset import RESULT_NAME
from engine.errors import EngineError, Failure, InputError, OutputError, Stopped
from engine.files import as_json, write_bytes, write_text
from engine.outfolder import JOURNAL, OutFolder, check_nothing_left

TASK_NAME: Final = "task.json"
CACHE: Final = ".labelengine-cache"
#: In CACHE: folders of OUT that a task which goes on has until it makes others (see `Run.keep`).
_KEPT: Final = "kept"
#: In CACHE: the digest of the result of a task that did not end well, as the task left it.
_LEFT: Final = "result.sha256"

#: Parameters of how a task is computed, not of what it is: it goes on with others.
_HOW: Final = ("device", "threads")

#: Seconds between two writes of task.json while a stage runs.
_EVERY: Final = 2.0


class Status(IntEnum):
    """States of a task (task API)."""

    QUEUING = -1
    INITIALIZING = 0
    RUNNING = 1
    FAILED = 2
    SUCCEEDED = 3
    STOPPING = 4
    STOPPED = 5


class Reporter(Protocol):
    """Who is told how a task goes on: a terminal, a server, nobody."""

    def stage(self, name: str, total: int) -> None:
        """A stage begins; total: how many things it will count, 0 when that is not known."""

    def advance(self, done: int) -> None:
        """So many things of the stage are done."""

    def note(self, line: str) -> None:
        """Something that a person should know."""


class Silent:
    """The reporter that tells nobody."""

    def stage(self, name: str, total: int) -> None: ...
    def advance(self, done: int) -> None: ...
    def note(self, line: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a job gives back. result: for the answer, JSON values. failures: inputs that could not be used."""

    result: dict[str, Any]
    failures: tuple[Failure, ...] = ()


@dataclass(frozen=True, slots=True)
class Task:
    """What is to be done, and how it is told apart.

    job: the work; it gets the `Run`. kind: a task type, or the name of a command. config: what was asked for, as JSON
    values; `--resume` goes on with a task only if this (but for _HOW) and the data are the same. dataset: its name.
    stages: the share of the time that each is expected to take, from which progress is made; in percent where some
    stand for others. files: what will be read, which no clearing of OUT may delete. digest: what tells the data from
    others of the same name. notices: what is known already.
    """

    job: Callable[[Run], Outcome]
    kind: str
    config: Mapping[str, Any]
    dataset: str
    stages: Mapping[str, float]
    files: Callable[[], Iterable[Path]] = tuple
    digest: Callable[[], str] = str
    notices: tuple[str, ...] = ()
    export_type: int | None = None


@dataclass(slots=True)
class Run:
    """A task on its way: where its job writes, whom it tells, and whether it shall stop."""

    task: Task
    id: str
    out: OutFolder
    reporter: Reporter
    stop: Event
    status: Status = Status.RUNNING
    notices: list[str] = field(default_factory=list)
    failures: tuple[Failure, ...] = ()
    result: dict[str, Any] = field(default_factory=dict)
    error: BaseException | None = None
    stages: list[_Stage] = field(default_factory=list)
    created: float = field(default_factory=time.time)
    started: float = field(default_factory=time.perf_counter)
    _written: float = 0.0

    @property
    def cache(self) -> Path:
        """A folder for what a stopped task should not do again."""
        return self.out.folder / CACHE

    def stopped(self) -> bool:
        return self.stop.is_set()

    def note(self, line: str) -> None:
        self.notices.append(line)
        self.reporter.note(line)

    def keep(self, folder: str) -> None:
        """What lies in this folder of OUT stays there also where the task is stopped, goes on, and is stopped again
        before it has made another."""
        kept = self.cache / _KEPT / folder
        part = kept.with_name(f"{kept.name}.part")
        try:
            shutil.rmtree(part, ignore_errors=True)
            shutil.copytree(self.out.folder / folder, part)
            shutil.rmtree(kept, ignore_errors=True)
            part.rename(kept)
        except OSError:  # a full disk: it is only a copy
            shutil.rmtree(part, ignore_errors=True)

    def tell_reused(self, count: int) -> None:
        """Said, but not kept: a run that was resumed leaves the same result as one that was not."""
        if count:
            self.reporter.note(f"{count:,} images were known already")

    def stage(self, name: str, total: int = 0) -> Callable[[int], None]:
        """Begin a stage; gives what to call with the number of things done. Raises Stopped when the task shall stop."""
        self._check_stop()
        if self.stages:
            self.stages[-1].end()
        stage = _Stage(name, total)
        self.stages.append(stage)
        self.reporter.stage(name, total)
        self.write()

        def advance(done: int) -> None:
            stage.done = done
            self.reporter.advance(done)
            self._check_stop()
            if time.perf_counter() - self._written > _EVERY:
                self.write()

        return advance

    def succeed(self) -> None:
        if self.stages:
            self.stages[-1].end()
        self.status = Status.SUCCEEDED

    def write(self) -> dict[str, Any]:
        """Write task.json as things stand; gives what it says."""
        self._written = time.perf_counter()
        answer = self.answer()
        write_bytes(self.out.folder / TASK_NAME, as_json(answer))
        return answer

    def answer(self) -> dict[str, Any]:
        """The task as the specification answers it, and what it does not ask for (from `failures` on)."""
        detail = "" if self.error is None else str(self.error) or type(self.error).__name__
        return {
            "task_id": self.id,
            "task_name": self.task.config.get("name") or f"{self.task.kind} {self.task.dataset}",
            "task_type": self.task.kind,
            "status": int(self.status),
            "progress": self._percent(),
            "code": "",
            "message": MESSAGES[self.status],
            "error_code": "" if self.error is None else type(self.error).__name__,
            "error_msg": detail.partition("\n")[0],
            "error_detail": detail,
            "config": self.task.config,
            "create_time": round(1000 * self.created),
            "elapsed_time": round(time.perf_counter() - self.started, 3),
            "export_type": self.task.export_type,
            "resource_id": None,
            "result": self.result,
            "failures": [{"source": each.source, "kind": each.kind, "reason": each.reason} for each in self.failures],
            "timings": [stage.answer() for stage in self.stages],
            "notices": self.notices,
        }

    def _percent(self) -> float:
        if self.status == Status.SUCCEEDED:
            return 100.0
        whole = min(100.0, sum(self.task.stages.values()))
        done = sum(self.task.stages.get(stage.name, 0.0) * stage.share for stage in self.stages)
        return round(min(99.9, 100.0 * done / whole), 1) if whole else 0.0

    def _check_stop(self) -> None:
        if self.stop.is_set():
            raise Stopped("stopped on request")


@dataclass(slots=True)
class _Stage:
    name: str
    total: int
    done: int = 0
    started: float = field(default_factory=time.perf_counter)
    seconds: float | None = None

    def end(self) -> None:
        self.seconds = time.perf_counter() - self.started

    @property
    def share(self) -> float:
        """Of the stage that is done, in [0, 1]."""
        return 1.0 if self.seconds is not None else self.done / self.total if self.total else 0.0

    def answer(self) -> dict[str, Any]:
        seconds = time.perf_counter() - self.started if self.seconds is None else self.seconds
        return {"stage": self.name, "seconds": round(seconds, 3), "count": self.done}


MESSAGES: Final = {
    Status.QUEUING: "queuing",
    Status.INITIALIZING: "initializing",
    Status.RUNNING: "running",
    Status.FAILED: "failed",
    Status.SUCCEEDED: "succeeded",
    Status.STOPPING: "stopping",
    Status.STOPPED: "stopped",
}


def run(
    task: Task,
    out: Path,
    *,
    overwrite: bool = False,
    resume: bool = False,
    same_task: bool = False,
    reporter: Reporter | None = None,
    stop: Event | None = None,
) -> dict[str, Any]:
    """Do the task and write what it makes into `out`; gives the answer, which is OUT/task.json.

    out: a new or empty folder. overwrite: replace what an earlier run wrote there. resume: go on with a run that was
    stopped or killed, and do not repeat one that is finished. A run that failed left no manifest and may be tried again
    as it is. same_task: nobody else writes to `out`: the task there is this one, though its data may have changed
    meanwhile; a finished one is then done again.

    Raises OutputError when `out` may not be written to, holds another task, or a result that a person has changed since
    the task was stopped; Stopped when `stop` was set, and what the job raises; in the last two cases task.json says so.
    """
    identity = task_id(task)
    before = _earlier(out)  # after the data were read, which takes a while: another run may have ended
    if not overwrite:
        if resume and before.get("status") == Status.SUCCEEDED and before.get("task_id") == identity:
            return before
        _check_resumable(out, before, resume)
        if resume and not same_task:
            _check_same(out, before, task, identity)
        if not same_task:
            _check_untouched(out)
    again = resume or overwrite or before.get("status") == Status.FAILED
    with OutFolder(out, overwrite=again, inputs=task.files) as folder:
        if not resume:
            shutil.rmtree(out / CACHE, ignore_errors=True)
        with suppress(OSError):
            (out / CACHE / _LEFT).unlink(missing_ok=True)
        if before.get("task_id") != identity:
            shutil.rmtree(out / CACHE / _KEPT, ignore_errors=True)
        folder.target(TASK_NAME)
        this = Run(task, identity, folder, reporter or Silent(), stop or Event())
        for line in task.notices:
            this.note(line)
        try:
            this.write()
            outcome = task.job(this)
            this.result, this.failures = outcome.result, outcome.failures
            this.succeed()
        except (Stopped, KeyboardInterrupt) as error:
            this.status = Status.STOPPED
            this.error = Stopped(f"{error or 'stopped on request'}; --resume goes on")
            raise this.error from None
        except BaseException as error:
            this.status, this.error = Status.FAILED, error
            raise
        finally:
            if this.error is not None:
                _leave(this)
            answer = _write_last(this)
        shutil.rmtree(out / CACHE, ignore_errors=True)
    return answer


def task_id(task: Task) -> str:
    """The same for the same task on the same data, however it is computed: 32 hexadecimal digits."""
    told = json.dumps([task.kind, task.dataset, task.digest(), _asked(task.config)], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()[:32]


def _asked(config: Mapping[str, Any]) -> dict[str, Any]:
    """What was asked for, each parameter by itself, whether they were given by name or as entries of a request."""
    given = config.get("parameters") or {}
    named = given if isinstance(given, Mapping) else {each.get("label"): each.get("value") for each in given}
    parameters = {f"parameters.{name}": value for name, value in named.items() if name not in _HOW}
    return {name: value for name, value in config.items() if name != "parameters"} | parameters


def read_answer(out: Path) -> dict[str, Any]:
    """The answer of a task that wrote to `out`. Raises InputError when there is none."""
    path = out / TASK_NAME
    try:
        answer = json.loads(path.read_bytes())  # not orjson, which refuses half a surrogate pair
    except OSError as error:
        raise InputError(f"{out}: must be the folder of a finished task, got no {TASK_NAME} there") from error
    except ValueError as error:
        raise InputError(f"{path}: must be the answer of a task, is not JSON: {error}") from error
    if not isinstance(answer, dict):
        raise InputError(f"{path}: must be the answer of a task, got {type(answer).__name__}")
    return answer


def _earlier(out: Path) -> dict[str, Any]:
    """What an earlier run said here; {} when there was none."""
    try:
        return read_answer(out) if (out / JOURNAL).is_file() else {}
    except (InputError, OSError, ValueError):
        return {}


def _check_resumable(out: Path, before: dict[str, Any], resume: bool) -> None:
    if not resume and before.get("status") in (Status.RUNNING, Status.STOPPED):
        raise OutputError(
            f"{out}: holds a task that did not end; --resume goes on with it, --overwrite begins it again"
        )


def _check_same(out: Path, before: dict[str, Any], task: Task, identity: str) -> None:
    """Raise OutputError where another task than this one would lose what it has."""
    if not before:
        check_nothing_left(out, TASK_NAME)
    if before.get("task_id") == identity:
        return
    if before.get("status") == Status.SUCCEEDED:
        raise OutputError(
            f"{out}: holds the finished result of another task, or of other data; --overwrite replaces it"
        )
    if before.get("status") in (Status.RUNNING, Status.STOPPED):
        raise OutputError(
            f"{out}: holds another task that did not end ({_difference(before, task)}); "
            "--overwrite replaces it, or choose a new folder"
        )


def _check_untouched(out: Path) -> None:
    """Raise OutputError where the result of a task that did not end is no longer as the task left it: a person has
    confirmed labels in it, which would be lost."""
    try:
        left = (out / CACHE / _LEFT).read_bytes()
    except OSError:
        return
    now = _result_digest(out)
    if now and now.encode() != left:
        raise OutputError(
            f"{out}: holds a {RESULT_NAME} that a person has changed since the task ended, and it would be lost; "
            "--overwrite replaces it, or choose a new folder"
        )


def _result_digest(out: Path) -> str:
    """64 hexadecimal digits; "" where there is no result."""
    digest = hashlib.sha256()
    try:
        with (out / RESULT_NAME).open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    except OSError:
        return ""
    return digest.hexdigest()


def _leave(this: Run) -> None:
    """What a task that did not end well leaves in OUT: the folders that it has kept, and in CACHE how its result is
    told from one that a person has changed since."""
    with suppress(EngineError, OSError):
        for kept in sorted((this.cache / _KEPT).glob("*")):
            if not kept.name.endswith(".part") and not (this.out.folder / kept.name).exists():
                for file in sorted(kept.iterdir()):
                    this.out.place(file, f"{kept.name}/{file.name}", copy=True)
    with suppress(EngineError):
        if digest := _result_digest(this.out.folder):
            write_text(this.cache / _LEFT, digest)


def _difference(before: dict[str, Any], task: Task) -> str:
    """In what the task of an earlier run was another one."""
    if before.get("task_type") != task.kind:
        return f"{before.get('task_type')}, got {task.kind}"
    was, asked = _asked(before.get("config") or {}), _asked(json.loads(as_json(task.config)))
    names = [name for name in was | asked if was.get(name) != asked.get(name)]
    return f"with other {', '.join(names)}" if names else "of other data"


def _write_last(this: Run) -> dict[str, Any]:
    try:
        return this.write()
    except EngineError:
        if this.error is None:
            raise
        return {}  # the first error is the one to tell
