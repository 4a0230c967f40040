"""Measurements taken beside the training: the memory peak of one update, or of the evaluation where none is made.

Comes in: a piece of work to run once.  Goes out: the most bytes that tensors took at one moment of it.  On CPU that is
what torch's own allocator reports through the profiler, with the bytes that lived before; on CUDA the allocator's own
peak.  The process's resident size is not used: it says nothing about a small model.
"""

from __future__ import annotations

import gc
import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tuning.plan.micro_batches import Moment, at_or_below, highest_of


@dataclass(slots=True)
class Meter:
    """Filled when the metered block ends."""

    peak_bytes: int | None = None


def live_bytes(model: nn.Module, optimizer: torch.optim.Optimizer | None) -> int:
    """Bytes of the tensors that outlive an update, each storage counted once."""
    return sum(storage.nbytes() for storage in _storages(_tensors(model, optimizer)))


@contextmanager
def metered(model: nn.Module, optimizer: torch.optim.Optimizer | None, device: torch.device) -> Iterator[Meter]:
    """Measure the peak of the block. Nothing else may allocate tensors in this process meanwhile."""
    meter = Meter()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        yield meter
        meter.peak_bytes = torch.cuda.max_memory_allocated(device)
        return
    gc.collect()  # what an earlier run left behind, collected within the block, would be taken for a release of its own
    before = live_bytes(model, optimizer)
    with allocations() as changes:
        yield meter
    meter.peak_bytes = before + highest(changes)


def highest(changes: Iterable[int]) -> int:
    """The most bytes at one moment, by what came and went from nothing on."""
    return max(itertools.accumulate(changes, initial=0))


@contextmanager
def allocations() -> Iterator[list[int]]:
    """Filled when the block ends: bytes of each allocation and, negative, of each release in this thread, in order.

    By torch's older profiler, which has no public door: the newer one keeps 2 kB for each of these events, the older
    0.4, and a model of many layers has so many that they would stand out in the process they are to measure.
    Operations are not noted: their records outweigh a small model's tensors.
    """
    profiler, door = torch._C._profiler, torch._C._autograd
    how: Any = profiler.ProfilerConfig  # its stub misses arguments
    record: Any = torch.autograd._enable_record_function
    found: list[int] = []
    record(False)
    door._enable_profiler_legacy(
        how(profiler.ProfilerState.CPU, False, True, False, False, False, profiler._ExperimentalConfig())
    )
    try:
        yield found
    finally:
        threads = door._disable_profiler_legacy()
        record(True)
        found += [event.cpu_memory_usage() for event in itertools.chain(*threads) if event.kind() == "memory_alloc"]


class PeakProbe:
    """Decides which updates of a run are measured, or which batches of an evaluation, and keeps the largest peak.

    Each costs some time, so few are: an early one, to have a figure, and those that can be the highest: which no other
    is at or above in every size that memory depends on (`tuning.plan.micro_batches`).
    """

    def __init__(self) -> None:
        self.peak_bytes: int | None = None
        self._measured: list[Moment] = []
        self._awaited: list[Moment] = []

    def expect(self, highest: Iterable[Moment]) -> None:
        """What is to come, in place of what was told before: the micro-batches of which one can be the highest."""
        self._awaited = [one for one in highest if not self._known(one)]

    def wants(self, moments: Sequence[Moment]) -> bool:
        """Whether to measure an update or a batch, given its micro-batches."""
        if any(one in self._awaited for one in moments):
            return True
        # the optimizer's state exists from the second update on: a figure without it would be far too low
        return self.peak_bytes is None and not moments[0].first

    @contextmanager
    def watch(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        device: torch.device,
        moments: Sequence[Moment],
        kept_bytes: int = 0,
    ) -> Iterator[None]:
        """Measure the block; `kept_bytes` are tensors on the processor that belong to neither model nor optimizer."""
        with metered(model, optimizer, device) as meter:
            yield
        self._measured = highest_of([*self._measured, *moments])
        self._awaited = [one for one in self._awaited if not self._known(one)]
        if meter.peak_bytes is not None:
            kept = 0 if device.type == "cuda" else kept_bytes
            self.peak_bytes = max(self.peak_bytes or 0, meter.peak_bytes + kept)

    def _known(self, one: Moment) -> bool:
        """Whether something at or above it was measured."""
        return any(at_or_below(one, other) for other in self._measured)


def _tensors(model: nn.Module, optimizer: torch.optim.Optimizer | None) -> Iterator[torch.Tensor]:
    for parameter in model.parameters():
        yield parameter
        yield from quantization(parameter)
        if parameter.grad is not None:
            yield parameter.grad
    yield from model.buffers()
    for state in optimizer.state.values() if optimizer is not None else ():
        yield from (value for value in state.values() if isinstance(value, torch.Tensor))


def quantization(weight: torch.Tensor) -> Iterator[torch.Tensor]:
    """What bitsandbytes keeps beside a matrix packed in 4 bits: neither parameter nor buffer."""
    state = getattr(weight, "quant_state", None)
    while state is not None:
        yield from (value for value in (state.absmax, state.code, state.offset) if isinstance(value, torch.Tensor))
        state = state.state2


def _storages(tensors: Iterable[torch.Tensor]) -> list[torch.UntypedStorage]:
    found = {}
    for tensor in tensors:
        storage = tensor.untyped_storage()
        found[storage.data_ptr()] = storage
    return list(found.values())
