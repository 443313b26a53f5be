"""Which task runs when, and what becomes of it: a thread that starts workers and looks after them.

The tasks of a data set run one after the other, in the order in which they came; those of different data sets beside
each other, as many as there are workers. A worker is a process of its own: one that crashes, or is killed for its
memory, ends its task and no other. What a server that died left behind goes on: a worker that still lives is looked
after, a task whose worker has died begins again where it stopped, at most MOST_ATTEMPTS times.
"""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from threading import Event, Lock, Thread
from typing import IO, Any, Final

import orjson

from engine.errors import OutputError
from engine.server.checks import Roots
from engine.server.database import AT_WORK, OPEN, Database, TaskRow
from engine.server.datasets import forget_base
from engine.server.worker import ERROR, LANDED, OUT, STOPPED, is_held, locked, task_folder
from engine.tasks.runner import TASK_NAME, Status

#: Times that a task is begun, where its worker and the server died.
MOST_ATTEMPTS: Final = 10
#: Seconds that a worker has to stop by itself.
PATIENCE: Final = 4.0
_TICK: Final = 0.1
_LOG: Final = "log.txt"
_LOCK: Final = ".server-lock"

_log = logging.getLogger("labelengine.server")


class Queue:
    """Runs the tasks of a database until `close`. workers: how many at once. A context manager."""

    def __init__(self, database: Database, roots: Roots, *, workers: int = 1) -> None:
        self._database = database
        self._roots = roots
        self._workers = workers
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._kill_at: dict[str, float] = {}
        self._lock = Lock()
        self._awake = Event()
        self._closed = Event()
        self._home_lock: IO[bytes]
        self._thread = Thread(target=self._run, name="queue", daemon=True)

    def __enter__(self) -> Queue:
        """Raises OutputError where another server works on the same home."""
        self._home_lock = (self._database.home / _LOCK).open("ab")
        try:
            fcntl.flock(self._home_lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._home_lock.close()
            raise OutputError(f"{self._database.home}: another server works on it") from None
        self._recover()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop looking after tasks. Workers are asked to stop, keep what they have, and go on at the next start."""
        self._closed.set()
        self._awake.set()
        if self._thread.is_alive():
            self._thread.join()
        for process in self._processes.values():
            _signal(process.pid, signal.SIGTERM)
        deadline = time.monotonic() + PATIENCE
        for task_id, process in self._processes.items():
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
            if process.poll() is None:
                _signal(process.pid, signal.SIGKILL)
                process.wait()
            self._end(task_id, process.returncode, leaving=True)
        self._processes.clear()
        self._home_lock.close()

    def wake(self) -> None:
        """There is something new to do."""
        self._awake.set()

    def stop(self, task_id: str) -> bool:
        """Ask a task to stop; whether there was one that had not ended. It has ended within PATIENCE, and a second."""
        now = time.time()
        if self._database.move(task_id, [Status.QUEUING], Status.STOPPED, ended=now):
            self._let_go(task_id)
            return True
        if not self._database.move(task_id, [Status.INITIALIZING, Status.RUNNING], Status.STOPPING):
            row = self._database.task(task_id)
            return row is not None and row.status == Status.STOPPING
        with self._lock:
            self._ask_to_stop(task_id)
        self._awake.set()
        return True

    def _ask_to_stop(self, task_id: str) -> None:
        process = self._processes.get(task_id)
        pid = process.pid if process is not None else is_held(task_folder(self._database.home, task_id))
        if pid:
            _signal(pid, signal.SIGTERM)
        self._kill_at[task_id] = time.monotonic() + PATIENCE

    def resume(self, task_id: str) -> bool:
        """Put a task that has stopped or failed into the queue again, to go on where it stopped; whether it is such a
        one. Its time and its attempts are counted anew."""
        ended = [Status.STOPPED, Status.FAILED]
        fresh = {"attempts": 0, "started": None, "ended": None, "error_code": "", "error_msg": ""}
        done = self._database.move(task_id, ended, Status.QUEUING, **fresh)
        self._awake.set()
        return done

    # ---- The thread.

    def _run(self) -> None:
        while not self._closed.is_set():
            try:
                with self._lock:
                    self._look()
                    if not self._closed.is_set():
                        self._begin()
            except Exception:  # a full disk, a database that is locked: the next look may go better
                _log.exception("the queue could not look after its tasks")
            self._awake.wait(_TICK)
            self._awake.clear()

    def _recover(self) -> None:
        """Take over what a server before this one left at work."""
        for row in self._database.tasks(statuses=AT_WORK, bodies=False):
            folder = task_folder(self._database.home, row.task_id)
            if is_held(folder) is not None:
                continue  # its worker lives, and is looked after without being our child
            self._end(row.task_id, None, leaving=row.attempts < MOST_ATTEMPTS)

    def _look(self) -> None:
        for row in self._database.tasks(statuses=AT_WORK, bodies=False):
            process = self._processes.get(row.task_id)
            folder = task_folder(self._database.home, row.task_id)
            if process is not None:
                if process.poll() is not None:
                    del self._processes[row.task_id]
                    self._end(row.task_id, process.returncode)
                    continue
            elif is_held(folder) is None:
                self._end(row.task_id, None, leaving=row.attempts < MOST_ATTEMPTS)
                continue
            if row.status == Status.STOPPING and row.task_id not in self._kill_at:  # somebody else has said so
                self._ask_to_stop(row.task_id)
            if time.monotonic() > self._kill_at.get(row.task_id, float("inf")):
                pid = process.pid if process is not None else is_held(folder)
                if pid:
                    _signal(pid, signal.SIGKILL)
            if row.status == Status.INITIALIZING and (folder / OUT / TASK_NAME).is_file():
                self._database.move(row.task_id, [Status.INITIALIZING], Status.RUNNING)

    def _begin(self) -> None:
        rows = self._database.tasks(statuses=OPEN, bodies=False)
        busy = {row.dataset_id for row in rows if row.status in AT_WORK}
        free = self._workers - sum(row.status in AT_WORK for row in rows)
        for row in rows:
            if free <= 0:
                return
            if row.status == Status.QUEUING and row.dataset_id not in busy:
                busy.add(row.dataset_id)
                free -= 1
                self._start(row)

    def _start(self, row: TaskRow) -> None:
        started = row.started or time.time()
        attempts = row.attempts + 1
        if not self._database.move(
            row.task_id, [Status.QUEUING], Status.INITIALIZING, attempts=attempts, started=started
        ):
            return
        folder = task_folder(self._database.home, row.task_id)
        command = [sys.executable, "-m", "engine.server.worker", os.fspath(self._database.home), row.task_id]
        try:
            lock = locked(folder)
            if lock is None:  # another server has just begun it
                return
            with lock, (folder / _LOG).open("ab") as log:
                process = subprocess.Popen(
                    [*command, *self._roots.folders],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    pass_fds=[lock.fileno()],
                )
                self._processes[row.task_id] = process
                lock.write(str(process.pid).encode())
        except OSError as error:
            self._fail(row.task_id, "OutputError", f"no worker could be started: {error}")

    def _end(self, task_id: str, code: int | None, *, leaving: bool = False) -> None:
        """Write down how a task ended, and let go of what it began with. code: of the process, None where nobody knows
        it. leaving: it may go on later: one that has not ended by itself goes back into the queue."""
        self._written(task_id, code, leaving)
        self._let_go(task_id)

    def _let_go(self, task_id: str) -> None:
        row = self._database.task(task_id)
        if row is not None and row.status not in OPEN:
            forget_base(self._database.home, row.dataset_id, task_id)

    def _written(self, task_id: str, code: int | None, leaving: bool) -> None:
        self._kill_at.pop(task_id, None)
        folder = task_folder(self._database.home, task_id)
        row = self._database.task(task_id)
        answer = read_json(folder / OUT / TASK_NAME)
        error = read_json(folder / ERROR)
        if (folder / LANDED).is_file():
            self._database.move(task_id, AT_WORK, Status.SUCCEEDED, ended=time.time())
        elif error and not (code is not None and code < 0):
            self._fail(task_id, str(error.get("error_code", "")), str(error.get("error_msg", "")))
        elif row is not None and row.status == Status.STOPPING:
            self._database.move(task_id, AT_WORK, Status.STOPPED, ended=time.time())
        elif code == STOPPED:  # it was asked to stop, but not by a client: the machine goes down, say
            attempts = 0 if row is None else max(0, row.attempts - 1)
            self._database.move(task_id, AT_WORK, Status.QUEUING, attempts=attempts)
        elif leaving:
            self._database.move(task_id, AT_WORK, Status.QUEUING)
        elif answer.get("status") == Status.FAILED:
            self._fail(task_id, str(answer.get("error_code", "")), str(answer.get("error_msg", "")))
        elif code is None:
            self._fail(task_id, "WorkerDied", "its worker has died again and again, and the server with it")
        else:
            how = f"by signal {-code}" if code is not None and code < 0 else f"with code {code}"
            memory = "; it may have run out of memory" if code == -signal.SIGKILL else ""
            self._fail(task_id, "WorkerDied", f"the worker ended {how}{memory}; its log is in the task's folder")

    def _fail(self, task_id: str, code: str, message: str) -> None:
        self._database.move(task_id, AT_WORK, Status.FAILED, ended=time.time(), error_code=code, error_msg=message)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file; {} where there is none."""
    try:
        found = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return {}
    return found if isinstance(found, dict) else {}


def _signal(pid: int, number: int) -> None:
    """To a worker and all that it has started."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)
