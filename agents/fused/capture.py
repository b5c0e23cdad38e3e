"""Work on a GPU recorded once and replayed, instead of launched kernel by kernel."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Hashable, Iterable
from typing import TypeVar

import torch
from torch import Tensor

MOST = 8
"""Recordings kept at a time."""


class Captured:
    """A function of tensors whose kernels are recorded as a CUDA graph at the second call of a kind, then replayed.

    The networks of control tasks are so small that a GPU waits for the processor to launch their kernels. The first
    call of a kind runs as it is, which loads libraries and makes lasting buffers. On a CPU every call does.

    While the key is the same, what the function reads and writes beside its arguments must stay where it is in memory
    and numbers of Python as they are: the key is made of addresses and values. It may draw from the device's default
    generator.
    """

    def __init__(self, function: Callable[..., Tensor]) -> None:
        """Wrap `function`, which takes tensors on one device and gives one tensor."""
        self.function = function
        self.seconds = 0.0
        """Spent on recording so far."""
        self._seen: set[Hashable] = set()
        self._graphs: dict[Hashable, tuple[torch.cuda.CUDAGraph, tuple[Tensor, ...], Tensor]] = {}

    def __call__(self, key: Hashable, *inputs: Tensor) -> Tensor:
        """The function of `inputs`, as a new tensor."""
        if not inputs[0].is_cuda:
            return self.function(*inputs)
        kind = (key, *((x.shape, x.dtype) for x in inputs))
        if kind not in self._seen:
            if len(self._seen) == MOST:
                self._seen.clear()
                self._graphs.clear()
            self._seen.add(kind)
            return self.function(*inputs)
        with torch.cuda.device(inputs[0].device):
            if kind not in self._graphs:
                self._graphs[kind] = self._record(inputs)
            graph, own, output = self._graphs[kind]
            torch._foreach_copy_(own, inputs)
            graph.replay()
            return output.clone()

    def _record(self, inputs: tuple[Tensor, ...]) -> tuple[torch.cuda.CUDAGraph, tuple[Tensor, ...], Tensor]:
        before = time.perf_counter()
        own, graph = tuple(x.clone() for x in inputs), torch.cuda.CUDAGraph()
        # torch's own stream for recording belongs to the device of the first recording in this process.
        with torch.cuda.graph(graph, stream=torch.cuda.Stream()):
            output = self.function(*own)
        self.seconds += time.perf_counter() - before
        return graph, own, output


T = TypeVar("T")


def side_by_side(*calls: Callable[[], T]) -> list[T]:
    """What the calls give. A recording has them run at the same time; elsewhere they run one after the other.

    Each may write only what none of the others touches.
    """
    if not torch.cuda.is_available() or not torch.cuda.is_current_stream_capturing():
        return [call() for call in calls]
    here = torch.cuda.current_stream()
    others = [_stream(here.device_index, number) for number in range(1, len(calls))]
    for stream in others:
        stream.wait_stream(here)
    found = [calls[0]()]
    for call, stream in zip(calls[1:], others, strict=True):
        with torch.cuda.stream(stream):
            found.append(call())
        here.wait_stream(stream)
    return found


@functools.cache
def _stream(device: int, number: int) -> torch.cuda.Stream:
    """One of a few: each that multiplies matrices takes memory to work in."""
    return torch.cuda.Stream(device)


def addresses(tensors: Iterable[Tensor]) -> tuple[int, ...]:
    """Where tensors are in memory, a part of a key."""
    return tuple(tensor.data_ptr() for tensor in tensors)
