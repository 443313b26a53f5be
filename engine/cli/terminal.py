"""What a command says on the terminal, and how it hears Ctrl-C. stdout has results, stderr what happens on the way."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any, Final

from tqdm import tqdm

from engine.errors import Failure
from engine.files import as_json

DONE: Final = 0
FAILED: Final = 1
WRONG_USAGE: Final = 2
INTERRUPTED: Final = 130

_FAILURES_SHOWN: Final = 5


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def say_failures(failures: Sequence[Failure]) -> None:
    for failure in failures[:_FAILURES_SHOWN]:
        say(f"could not use {failure.source!r}: {failure.reason}")
    if len(failures) > _FAILURES_SHOWN:
        say(f"and {len(failures) - _FAILURES_SHOWN:,} more that could not be used")


def print_json(answer: dict[str, Any]) -> None:
    sys.stdout.flush()
    sys.stdout.buffer.write(as_json(answer))
    sys.stdout.buffer.flush()


def tell(answer: dict[str, Any], lines: Iterator[str], out: Path, *, json: bool, page: bool = True) -> int:
    """Say what came of a task: its answer as JSON, or in lines; the exit code. page: whether there is one."""
    if json:
        print_json(answer)
        return DONE
    say_failures([Failure(**each) for each in answer["failures"]])
    for line in lines:
        print(line)
    print(f"look at {out / 'report.html'}" if page else f"it is in {out}")
    return DONE


def in_one_line(label: str) -> str:
    """A label as it may stand in a table: quoted where it holds what would break the line."""
    return label if label.isprintable() else repr(label)


class Terminal:
    """Stages as bars on a terminal, and as one line each elsewhere. A context manager; a `Reporter`."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None
        self._stage: tuple[str, float, int] | None = None

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def stage(self, name: str, total: int) -> None:
        self._end()
        self._stage = name, time.perf_counter(), 0
        if sys.stderr.isatty():
            self._bar = tqdm(desc=name, total=total or None, unit="", unit_scale=False, leave=True, file=sys.stderr)

    def advance(self, done: int) -> None:
        if self._stage:
            self._stage = (*self._stage[:2], done)
        if self._bar is not None:
            self._bar.update(done - self._bar.n)

    def note(self, line: str) -> None:
        if self._bar is not None:
            self._bar.write(line, file=sys.stderr)
        else:
            say(line)

    def _end(self) -> None:
        if self._bar is not None:
            self._bar.close()
        elif self._stage:
            name, started, done = self._stage
            seconds = time.perf_counter() - started
            say(f"{name}: {done:,} in {seconds:.1f} s" + (f" ({done / seconds:,.0f}/s)" if seconds > 0.05 else ""))
        self._bar = self._stage = None


@contextmanager
def stoppable() -> Iterator[Event]:
    """An event that the first Ctrl-C (or SIGTERM) sets; the second one interrupts at once."""
    stop = Event()
    before = {}

    def ask(number: int, frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        say("\nstopping; once more to interrupt at once")

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, ask)
    except ValueError:  # not in the main thread: whoever runs us there stops us
        pass
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
