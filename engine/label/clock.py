"""A time budget turned into numbers of steps, which are kept: the same numbers give the same result on any day.

In: seconds, or the steps themselves. Out: steps for each training, in the order in which they begin. What a run has
decided is written to a file, so that a run that goes on later decides the same. Knows nothing of networks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

import orjson

from engine.files import write_bytes

#: Seconds of a step, on the mean of all steps of a training; or, by their number, of so many.
StepSeconds: TypeAlias = float | Callable[[int], float]

#: Steps that a training takes at least, however short the time.
LEAST_STEPS: Final = 8
_MOST_STEPS: Final = 2**40
#: The share of the time that is for learning, at least: a model that has learned nothing says nothing, of however many
#: images.
_LEAST_LEARNING: Final = 0.5
#: A training that took less than this share of the time that was thought was planned by a wrong measure.
_HASTY: Final = 0.5
#: A task may take longer than asked by this share of its time.
_NOTICED: Final = 0.1


@dataclass(slots=True)
class Clock:
    """Turns time into steps.

    seconds: of the whole task, from `began` (a time of `now`) on. reserve: of them, for what comes after the last
    training. learning: of them, for learning, whatever comes after; None: half. given: steps to take instead, the last
    of them again and again; none: time decides. file: where what was decided is kept for a run that goes on; None:
    nowhere. spent: seconds that earlier runs of the task have taken. decided: steps of each training so far. pace: how
    many times as long as it was measured a step really takes, of the last training: a machine may have more to do than
    it had, and a step more than what was measured of it.
    """

    seconds: float
    began: float
    given: tuple[int, ...] = ()
    file: Path | None = None
    reserve: float = 0.0
    learning: float | None = None
    spent: float = 0.0
    decided: list[int] = field(default_factory=list)
    pace: float = 1.0
    now: Callable[[], float] = time.perf_counter
    _known: list[int] = field(default_factory=list)
    _hasty: bool = False

    def __post_init__(self) -> None:
        if self.file is not None and self.file.is_file():
            kept = orjson.loads(self.file.read_bytes())
            self._known, self.spent = kept["steps"], kept["spent"]
            # A run that goes on measures its steps anew: only that they take longer than measured is true of it, too.
            self.pace = max(1.0, kept.get("pace", 1.0))  # a run of an earlier version has kept none

    @property
    def left(self) -> float:
        """Seconds for training that are left; below 0 when the time is over."""
        return self.seconds - self._kept - self.spent - (self.now() - self.began)

    @property
    def overrun_in_words(self) -> tuple[str, ...]:
        """A line where what comes after the last training will take a task well beyond the time that was asked for."""
        over = self.reserve - self._kept
        if self.given or over < _NOTICED * self.seconds:
            return ()
        return (f"looking at all images takes long: the task will need about {over / 60:,.1f} minutes more",)

    def extend(self, seconds: float) -> None:
        """More time, none of it for learning."""
        self.learning = self.seconds - self._kept
        self.seconds += seconds

    @property
    def _kept(self) -> float:
        """Seconds that training leaves."""
        learning = _LEAST_LEARNING * self.seconds if self.learning is None else self.learning
        return min(self.reserve, self.seconds - learning)

    def measured(self, measure: Callable[[], float]) -> float:
        """Seconds that something takes, by trying it; 0 without a try where the steps are given and nothing depends on
        it."""
        return 0.0 if self.given else measure()

    def steps(self, share: float, step_seconds: StepSeconds, *, most: int = _MOST_STEPS, worth: int = 0) -> int:
        """How many steps the training takes that begins now. share: of the time that is left, in (0, 1]. most: so many
        are enough, however much time there is. worth: where there is no time for so many it is left out: 0."""
        at = len(self.decided)
        if self.given:
            chosen = self.given[min(at, len(self.given) - 1)]
        elif at < len(self._known):
            chosen = self._known[at]
        else:
            chosen = max(LEAST_STEPS, min(most, _most_steps(self.left * share / self.pace, step_seconds)))
            chosen = chosen if chosen >= min(worth, most) else 0
        self.decided.append(chosen)
        self.keep()
        return chosen

    @contextmanager
    def paced(
        self, steps: int, step_seconds: StepSeconds, *, stopped: Callable[[], bool] = lambda: False
    ) -> Iterator[None]:
        """Around the training whose steps were decided last, which were thought to take so long: the next ones are
        planned by what it took; unless a part of it was done by an earlier run, or is left to a later one.

        stopped: whether it was to end before all its steps were done."""
        began, thought = self.now(), self.pace
        self._hasty = False
        yield
        if stopped() or len(self.decided) <= len(self._known):
            return
        expected = _all_seconds(steps, step_seconds)
        if expected > 0:
            pace = (self.now() - began) / expected
            self._hasty = not self.given and pace < _HASTY * min(1.0, thought)
            self.pace = pace if self._hasty else max(1.0, pace)

    def again(self) -> bool:
        """Whether the last training took so little of its time that it is better done again, in as many steps as there
        is time for: the machine had much to do when a step was measured. It is forgotten then."""
        if self._hasty:
            self._hasty = False
            self.decided.pop()
            self.keep()
            return True
        return False

    def keep(self) -> None:
        """Write down what was decided, and the time taken."""
        if self.file is not None:
            known = [*self.decided, *self._known[len(self.decided) :]]
            spent = self.spent + self.now() - self.began
            write_bytes(self.file, orjson.dumps({"steps": known, "spent": spent, "pace": self.pace}))


def _all_seconds(steps: int, step_seconds: StepSeconds) -> float:
    return steps * (step_seconds(steps) if callable(step_seconds) else step_seconds)


def _most_steps(seconds: float, step_seconds: StepSeconds) -> int:
    """How many steps take no longer than that; more steps take longer."""
    if not callable(step_seconds):
        return int(seconds / step_seconds)
    most = 1
    while _all_seconds(most, step_seconds) <= seconds and most < _MOST_STEPS:
        most *= 2
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _all_seconds(middle, step_seconds) <= seconds else (low, middle)
    return low
