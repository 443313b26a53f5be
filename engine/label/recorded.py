"""Work that a GPU is shown once and then repeats in one call (CUDA graphs).

A step of training is a thousand small calls, and a GPU waits longer for them than they take. In: two pieces of work
that touch nothing but tensors, in place, and ask nothing of the CPU. What the first one is computed of, a `Given`, is
copied to where the recorded work reads it. Knows nothing of networks.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

#: Times that work is done before it is recorded: libraries set themselves up in the first ones.
_WARM_UP: Final = 3


@dataclass(frozen=True, slots=True)
class Given:
    """What a step is computed of. tensors: on the device of the network. side: of images as the network sees them, in
    pixels."""

    tensors: tuple[Tensor, ...] = ()
    side: int = 0

    @property
    def form(self) -> tuple[object, ...]:
        """Of another form is other work."""
        return self.side, *((each.shape, each.dtype) for each in self.tensors)


def sent(values: Tensor, device: torch.device) -> Tensor:
    """Values from the CPU on a device; a GPU is not waited for."""
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)


class Recorded:
    """Two pieces of work, `first` and then `second`, recorded on a GPU when a `Given` of another form comes.

    first: gives a tensor. kept: remembers everything that the work changes; gives what brings it back, in place.
    """

    def __init__(
        self,
        device: torch.device,
        first: Callable[[Given], Tensor],
        second: Callable[[], None],
        kept: Callable[[], Callable[[], None]],
    ) -> None:
        self._device, self._work, self._kept = device, (first, second), kept
        self._beside = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._graphs: tuple[torch.cuda.CUDAGraph, torch.cuda.CUDAGraph] | None = None
        self.forget()

    def first(self, given: Given) -> Tensor:
        with torch.cuda.device(self._device):
            if self._graphs is None or given.form != self._given.form:
                self.forget()
                self._graphs = self._record(given)
            for mine, new in zip(self._given.tensors, given.tensors, strict=True):
                mine.copy_(new)
            self._graphs[0].replay()
        return self._answer

    def second(self) -> None:
        assert self._graphs is not None
        with torch.cuda.device(self._device):
            self._graphs[1].replay()

    def forget(self) -> None:
        """What is recorded gives its memory back."""
        for graph in self._graphs or ():
            graph.reset()
        self._graphs = None
        self._given, self._answer = Given(), torch.empty(0)

    def _record(self, given: Given) -> tuple[torch.cuda.CUDAGraph, torch.cuda.CUDAGraph]:
        first, second = self._work
        self._given = given = Given(tuple(each.clone() for each in given.tensors), given.side)
        bring_back = self._kept()
        self._beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._beside):
            for _ in range(_WARM_UP):
                first(given)
                second()
        torch.cuda.current_stream().wait_stream(self._beside)
        bring_back()
        gc.collect()  # a forgotten recording must not go while another one is made
        graphs = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        with torch.cuda.graph(graphs[0], stream=self._beside, capture_error_mode="thread_local"):
            self._answer = first(given)
        with torch.cuda.graph(graphs[1], pool=graphs[0].pool(), stream=self._beside, capture_error_mode="thread_local"):
            second()
        return graphs
