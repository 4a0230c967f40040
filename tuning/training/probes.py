"""Measured memory: the most bytes that tensors have at one moment of an update, or of an evaluation.

On CPU that is what torch's allocator reports through the profiler, added to the bytes that were there before; on CUDA
it is the allocator's own peak. The resident size of the process is not used, for it says nothing about a small model.
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

from tuning.plan.micro_batches import PeakCandidate, at_or_below, highest_of


@dataclass(slots=True)
class Meter:
    """The result of `metered`, set when the block ends."""

    peak_bytes: int | None = None


def live_bytes(model: nn.Module, optimizer: torch.optim.Optimizer | None) -> int:
    """Bytes of the tensors that outlive an update, each storage counted once."""
    return sum(storage.nbytes() for storage in _storages(_tensors(model, optimizer)))


@contextmanager
def metered(model: nn.Module, optimizer: torch.optim.Optimizer | None, device: torch.device) -> Iterator[Meter]:
    """Measure the memory peak of the block, in bytes. Nothing else may allocate tensors in this process meanwhile."""
    meter = Meter()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        yield meter
        meter.peak_bytes = torch.cuda.max_memory_allocated(device)
        return
    gc.collect()  # what an earlier run has left must not be released, and counted, within the block
    before = live_bytes(model, optimizer)
    with allocations() as changes:
        yield meter
    meter.peak_bytes = before + peak_of(changes)


def peak_of(changes: Iterable[int]) -> int:
    """The most bytes at one moment, where `changes` are bytes allocated and, negative, released, from 0 on."""
    return max(itertools.accumulate(changes, initial=0))


@contextmanager
def allocations() -> Iterator[list[int]]:
    """Filled when the block ends: bytes of each allocation and, negative, of each release in this thread, in order.

    This is torch's older profiler, which has no public interface. The newer one takes 2 kB for each event, the older
    0.4 kB, and a model of many layers has so many events that they would count in the process that is measured.
    Operations are not recorded, for their records take more than a small model's tensors.
    """
    profiler, autograd = torch._C._profiler, torch._C._autograd
    config: Any = profiler.ProfilerConfig  # its stub misses arguments
    record: Any = torch.autograd._enable_record_function
    changes: list[int] = []
    record(False)
    autograd._enable_profiler_legacy(
        config(profiler.ProfilerState.CPU, False, True, False, False, False, profiler._ExperimentalConfig())
    )
    try:
        yield changes
    finally:
        threads = autograd._disable_profiler_legacy()
        record(True)
        changes += [event.cpu_memory_usage() for event in itertools.chain(*threads) if event.kind() == "memory_alloc"]


class PeakProbe:
    """Decides which updates of a run, or batches of an evaluation, are measured, and has the largest peak.

    Measuring takes time, so few are measured: an early one, to have a number, and those that can have the peak, which
    are not exceeded by another in every size that memory depends on (`tuning.plan.micro_batches`).
    """

    def __init__(self) -> None:
        self.peak_bytes: int | None = None
        self._measured: list[PeakCandidate] = []
        self._awaited: list[PeakCandidate] = []

    def expect(self, candidates: Iterable[PeakCandidate]) -> None:
        """Set the micro-batches to come of which one can have the peak, in place of those set before."""
        self._awaited = [candidate for candidate in candidates if not self._is_covered(candidate)]

    def should_measure(self, candidates: Sequence[PeakCandidate]) -> bool:
        """Whether to measure an update or a batch, given its micro-batches."""
        if any(candidate in self._awaited for candidate in candidates):
            return True
        # the optimizer's state exists from the second update on: a number without it would be far too low
        return self.peak_bytes is None and not candidates[0].first

    @contextmanager
    def measure(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        device: torch.device,
        candidates: Sequence[PeakCandidate],
        cached_bytes: int = 0,
    ) -> Iterator[None]:
        """Measure the block; `cached_bytes` of tensors on the CPU belong to neither model nor optimizer."""
        with metered(model, optimizer, device) as meter:
            yield
        self._measured = highest_of([*self._measured, *candidates])
        self._awaited = [candidate for candidate in self._awaited if not self._is_covered(candidate)]
        if meter.peak_bytes is not None:
            cached = 0 if device.type == "cuda" else cached_bytes
            self.peak_bytes = max(self.peak_bytes or 0, meter.peak_bytes + cached)

    def _is_covered(self, candidate: PeakCandidate) -> bool:
        """Whether a micro-batch was measured that is at least as large in every size."""
        return any(at_or_below(candidate, measured) for measured in self._measured)


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
    """The tensors that bitsandbytes has beside a matrix packed in 4 bits; they are neither parameters nor buffers."""
    state = getattr(weight, "quant_state", None)
    while state is not None:
        yield from (value for value in (state.absmax, state.code, state.offset) if isinstance(value, torch.Tensor))
        state = state.state2


def _storages(tensors: Iterable[torch.Tensor]) -> list[torch.UntypedStorage]:
    storages = {}
    for tensor in tensors:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage
    return list(storages.values())
