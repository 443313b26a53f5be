"""One network trained to its end: a number of steps, a schedule, an average of its weights, a checkpoint on the way.

In: a network, and a lesson, which gives the loss of a step. Out: the network with averaged weights. What is random
about a step is drawn from generators made of the seed, the name of the training and the number of the step, so that a
training that went on from a checkpoint gives the same bytes as one that was never stopped. Knows nothing of labels or
images.
"""

from __future__ import annotations

import copy
import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any, Final, TypeAlias

import torch
from torch import Tensor, nn

from engine.errors import InputError, UsageError
from engine.label.descent import Descent
from engine.label.networks import Network
from engine.label.recorded import Given, Recorded

#: Seconds between two checkpoints.
_EVERY: Final = 20.0
#: A training whose loss was infinite or no number goes on from its average, half as fast, so often.
_RECOVERIES: Final = 4
#: The average forgets over this share of the steps, and over 20 steps at least.
_MEMORY: Final = 0.04

State: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a network learns (see `Descent`): a warm-up, then evenly down to nothing.

    learning_rate: the peak, of filters. other_rate: of heads, norms and biases. weight_decay: of heads. warm_up: share
    of the steps. gently: shares of these rates, by the beginning of the names of parameters. compiled: whether the
    network is compiled first (torch.compile): steps take less time, from the time on that compiling takes.
    """

    learning_rate: float = 0.24
    other_rate: float = 0.05
    weight_decay: float = 5e-4
    warm_up: float = 0.1
    gently: Mapping[str, float] = field(default_factory=dict)
    compiled: bool = False


@dataclass(frozen=True, slots=True)
class Watch:
    """Who follows a training. progress: called with the number of steps done. stopped: whether to end now. folder:
    where checkpoints are kept; None: nowhere. saved: called after each checkpoint."""

    progress: Callable[[int], None] = lambda done: None
    stopped: Callable[[], bool] = lambda: False
    folder: Path | None = None
    saved: Callable[[], None] = lambda: None


@dataclass(slots=True)
class Training:
    """A training on its way. step: how many steps are done. average: the network with averaged weights, in evaluation
    mode; a teacher, for those who need one. memory: tensors that a lesson keeps from step to step, changed in place."""

    net: nn.Module
    steps: int
    recipe: Recipe
    bfloat16: bool
    average: nn.Module = field(init=False)
    optimizer: Descent = field(init=False)
    memory: dict[str, Tensor] = field(default_factory=dict)
    step: int = 0
    recoveries: int = 0
    _newer: Tensor = field(init=False)
    _remembered_at_first: dict[str, Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self.average = copy.deepcopy(self.net).eval().requires_grad_(False)
        self.optimizer = Descent(
            self.net,
            rate=self.recipe.learning_rate,
            other_rate=self.recipe.other_rate,
            weight_decay=self.recipe.weight_decay,
            gently=self.recipe.gently,
            dtype=torch.bfloat16 if self.bfloat16 else torch.float32,
        )
        self._newer = torch.zeros((), device=_device(self.net))
        self._remembered_at_first = {name: value.clone() for name, value in self.memory.items()}

    @property
    def finished(self) -> bool:
        return self.step >= self.steps

    def slope(self, loss: Tensor) -> Tensor:
        """The gradient of the loss, kept with the parameters; gives the loss, and no number where its gradient is
        none: one number to ask for, since a GPU is waited for then."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        gradients = [each.grad for each in self.net.parameters() if each.grad is not None]
        norms = list(torch._foreach_norm(gradients)) if gradients else []
        return loss.detach() + 0 * torch.stack(norms).sum() if norms else loss.detach()

    def take(self, worth: float, descend: Callable[[], None]) -> None:
        """The step that `slope` was found for, by `descend`, unless it is no number: nothing would be left to go on
        from. Raises InputError when it is none again and again."""
        if not math.isfinite(worth):
            self._recover(worth)
            return
        self.optimizer.at(self._share() * 0.5**self.recoveries)
        self.step += 1
        self._newer.fill_(1 - self._keep())
        descend()

    def descend(self) -> None:
        """Down the gradient, and the average after it: on tensors alone."""
        self.optimizer.step()
        mine, its = (list(net.state_dict().values()) for net in (self.average, self.net))
        numbers = [at for at, value in enumerate(mine) if value.is_floating_point()]
        with torch.no_grad():
            further = torch._foreach_sub([its[at] for at in numbers], [mine[at] for at in numbers])
            torch._foreach_mul_(further, self._newer)
            torch._foreach_add_([mine[at] for at in numbers], further)
            for at in set(range(len(mine))) - set(numbers):  # counts of batches
                mine[at].copy_(its[at])

    def _share(self) -> float:
        """Of the peak rates, at this step."""
        at, warm_up = self.step / self.steps, self.recipe.warm_up
        return max(1e-3, at / warm_up if at < warm_up else (1 - at) / (1 - warm_up))

    def _keep(self) -> float:
        """What the average keeps of itself: little at first, when there is little to average."""
        memory = max(20.0, _MEMORY * self.steps)
        return min(1 - 1 / memory, (1 + self.step) / (10 + self.step))

    def _recover(self, loss: float) -> None:
        self.recoveries += 1
        self.step += 1
        if self.recoveries > _RECOVERIES:
            raise InputError(
                f"training: the loss must be a number, got {loss} {self.recoveries} times; lower learning_rate"
            )
        self.net.load_state_dict(self.average.state_dict())
        self.optimizer.forget()
        for name, value in self._remembered_at_first.items():
            self.memory[name].copy_(value)

    def state(self) -> State:
        """Everything that a checkpoint needs."""
        return {
            "net": self.net.state_dict(),
            "average": self.average.state_dict(),
            "momenta": self.optimizer.momenta,
            "memory": self.memory,
            "numbers": [self.step, self.recoveries],
        }

    def kept(self) -> Callable[[], None]:
        """Remembers the training as it is now; gives what brings it back."""
        state = copy.deepcopy(self.state())
        return lambda: self.load(state)

    def load(self, state: State) -> None:
        """Everything as it was then, in place."""
        self.net.load_state_dict(state["net"])
        self.average.load_state_dict(state["average"])
        for mine, kept in zip(self.optimizer.momenta, state["momenta"], strict=True):
            mine.copy_(kept)
        for name, value in self.memory.items():
            value.copy_(state["memory"][name])
        self.step, self.recoveries = state["numbers"]


@dataclass(frozen=True, slots=True)
class Lesson:
    """What a network is asked to minimise.

    given: of a step, and of how many, what its loss is computed of. loss: of that, a number; on tensors alone, so that
    a GPU can record it: what it remembers it changes in place in `memory`, which is at first as told here.
    """

    given: Callable[[int, int], Given]
    loss: Callable[[Training, Given], Tensor]
    memory: Mapping[str, Tensor] = field(default_factory=dict)


#: A loss that asks the CPU on its way, of the step that comes.
Asking: TypeAlias = Callable[[Training], Tensor]


def train(
    name: str,
    net: nn.Module,
    steps: int,
    recipe: Recipe,
    lesson: Lesson | Asking,
    *,
    bfloat16: bool,
    watch: Watch,
) -> Training:
    """Train for so many steps; the training at its end, with its `average`.

    name: of the training, and of its checkpoint. Ends early, not `finished`, once `watch.stopped()` says so. Raises
    InputError when the loss, or its gradient, is no number again and again.
    """
    training = _begun(net, max(1, steps), recipe, lesson, bfloat16=bfloat16)
    path = _checkpoint(name, watch)
    if path and path.is_file():
        _resume(training, path)
    stride = _Stride(training, lesson)
    saved = time.perf_counter()
    with _repeatable(), closing(stride):
        while not training.finished and not watch.stopped():
            stride.go()
            watch.progress(training.step)
            if time.perf_counter() - saved > _EVERY:
                _save(training, path)
                watch.saved()
                saved = time.perf_counter()
    _save(training, path)
    return training


def trained_before(name: str, net: nn.Module, watch: Watch) -> float:
    """Give a network the averaged weights of the checkpoint of this training, of however many steps; the share of them
    that it has taken: none is taken here. 0: there is no checkpoint that fits, and the network is as it was."""
    path = _checkpoint(name, watch)
    if path is None or not path.is_file():
        return 0.0
    before = copy.deepcopy(net.state_dict())
    try:
        state = torch.load(path, map_location=_device(net), weights_only=True)
        net.load_state_dict(state["average"])
        return float(state["numbers"][0] / state["steps"])
    except Exception:  # as in `_resume`
        net.load_state_dict(before)
        return 0.0


def _checkpoint(name: str, watch: Watch) -> Path | None:
    return watch.folder / f"{name}.checkpoint" if watch.folder else None


def _begun(net: nn.Module, steps: int, recipe: Recipe, lesson: Lesson | Asking, *, bfloat16: bool) -> Training:
    kept = lesson.memory if isinstance(lesson, Lesson) else {}
    memory = {name: value.clone().to(_device(net)) for name, value in kept.items()}
    return Training(net, steps, recipe, bfloat16, memory)


class _Stride:
    """Takes the steps of a training: one by one, or as a GPU has recorded them. side: of what is given, if another."""

    def __init__(self, training: Training, lesson: Lesson | Asking, *, side: int | None = None) -> None:
        self._training, self._side = training, side
        self._lesson = lesson if isinstance(lesson, Lesson) else _asking(lesson)
        self._next: Given | None = None
        compiled, device = training.recipe.compiled, _device(training.net)
        if compiled:
            training.net.compile(dynamic=False)
        self._slope, self._descend = self._told, training.descend
        self._recorded: Recorded | None = None
        if device.type == "cuda" and isinstance(lesson, Lesson) and not compiled:
            self._recorded = Recorded(device, self._told, training.descend, training.kept)
            self._slope, self._descend = self._recorded.first, self._recorded.second

    def go(self) -> None:
        training = self._training
        training.net.train()
        given = self._given(training.step) if self._next is None else self._next
        worth = self._slope(given)
        # What comes next is drawn while a GPU computes.
        self._next = self._given(training.step + 1) if training.step + 1 < training.steps else None
        training.take(float(worth), self._descend)

    def close(self) -> None:
        """Gradients, and what was recorded, give their memory back."""
        self._training.optimizer.zero_grad(set_to_none=True)
        self._next = None
        if self._recorded is not None:
            self._recorded.forget()
            self._recorded, self._slope, self._descend = None, self._told, self._training.descend

    def _given(self, step: int) -> Given:
        given = self._lesson.given(step, self._training.steps)
        return given if self._side is None else replace(given, side=self._side)

    def _told(self, given: Given) -> Tensor:
        training, compiled = self._training, self._training.recipe.compiled
        with _told_what_compiling_needs(compiled):
            with torch.autocast(_device(training.net).type, torch.bfloat16, enabled=training.bfloat16):
                loss = self._lesson.loss(training, given)
            return training.slope(loss)


def _asking(loss: Asking) -> Lesson:
    return Lesson(lambda step, steps: Given(), lambda training, given: loss(training))


@contextmanager
def _repeatable() -> Iterator[None]:
    """Convolutions on a GPU by methods that give the same sums each time; on a CPU all do."""
    before, torch.backends.cudnn.deterministic = torch.backends.cudnn.deterministic, True
    try:
        yield
    finally:
        torch.backends.cudnn.deterministic = before


#: Where errors come from that are the compiler's.
_COMPILERS: Final = ("torch._dynamo", "torch._inductor")


@contextmanager
def _told_what_compiling_needs(compiled: bool) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # of the compiler's many kinds; a network that is not compiled fails as it likes
        if not compiled or not type(error).__module__.startswith(_COMPILERS):
            raise
        line = str(error).strip().partition("\n")[0]
        needs = "it needs a C++ compiler, on a GPU Triton"
        raise UsageError(f"compile: torch.compile must work here ({needs}), got {line}") from error


def _device(net: nn.Module) -> torch.device:
    return next(net.parameters()).device


def _save(training: Training, path: Path | None) -> None:
    """Keep a checkpoint; where the disk is full, or refuses, a training goes on without another one."""
    if path is None:
        return
    part = path.with_suffix(".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save({**training.state(), "steps": training.steps}, part)
        part.replace(path)
    except (OSError, RuntimeError):  # torch has no other word for a full disk
        with suppress(OSError):
            part.unlink(missing_ok=True)


def _resume(training: Training, path: Path) -> None:
    """Go on from a checkpoint of the same training; one that does not fit is another's, and is passed over."""
    bring_back = training.kept()
    try:
        state = torch.load(path, map_location=_device(training.net), weights_only=True)
        if state["steps"] == training.steps:
            training.load(state)
    except Exception:  # a damaged file makes the reader fail in any way it likes, also when half of it was taken
        bring_back()


# ---- Chance, and the order of the samples. ----


def generator_of(*names: object) -> torch.Generator:
    """A generator of the CPU for what these names say, as (seed, "network", 3, step): the same names, the same
    numbers."""
    digest = hashlib.sha256("/".join(map(str, names)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


class Deck:
    """Samples 0..n-1 dealt in a new random order again and again, `batch` at a time; any step may be asked for."""

    def __init__(self, n: int, batch: int, *names: object) -> None:
        self._n, self._batch, self._names = n, batch, names
        self._round, self._order = -1, torch.empty(0, dtype=torch.int64)

    def deal(self, step: int) -> Tensor:
        """(batch,) int64, those of this step."""
        places = torch.arange(step * self._batch, (step + 1) * self._batch)
        rounds = places // self._n
        dealt = [self._orders(number)[places[rounds == number] % self._n] for number in sorted(set(rounds.tolist()))]
        return torch.cat(dealt)

    def _orders(self, number: int) -> Tensor:
        if number != self._round:
            self._round, self._order = number, torch.randperm(self._n, generator=generator_of(*self._names, number))
        return self._order


# ---- What the machine can do. ----


def faster_in_bfloat16(net: Network, batch: int, *, device: torch.device) -> bool:
    """Whether a training step takes less time in bfloat16 than in float32 here: timed on a copy, in half a second."""

    images = torch.zeros(batch, 3, net.spec.image_size, net.spec.image_size, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    lesson = Lesson(
        lambda step, steps: Given((images,)),
        lambda training, given: training.net(given.tensors[0]).float().square().mean(),
    )
    return step_seconds(copy.deepcopy(net), lesson, bfloat16=True) < step_seconds(
        copy.deepcopy(net), lesson, bfloat16=False
    )


#: Of a training that is only timed.
_MANY: Final = 10**6
#: Steps that are timed, for so many seconds at least: where others are at work a GPU turns from one to the next every
#: few milliseconds.
_TIMED: Final = 3
_TIMED_SECONDS: Final = 0.2


def step_seconds(
    net: nn.Module, lesson: Lesson | Asking, *, bfloat16: bool, compiled: bool = False, side: int | None = None
) -> float:
    """What a whole training step takes: the middle of some, after one to warm up. net: is not used again. side: of
    images as the network sees them, in pixels; as the lesson says by default."""
    device = _device(net)
    training = _begun(net, _MANY, Recipe(compiled=compiled), lesson, bfloat16=bfloat16)
    stride = _Stride(training, lesson, side=side)
    taken: list[float] = []
    with _repeatable(), closing(stride):
        stride.go()
        while len(taken) < _TIMED or sum(taken) < _TIMED_SECONDS:
            _wait(device)
            began = time.perf_counter()
            stride.go()
            _wait(device)
            taken.append(time.perf_counter() - began)
    return median(taken)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
