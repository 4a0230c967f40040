"""The memory that a plan's run takes: one `MemoryUsage` a plan, asked by the estimate, the fixes and the charts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from tuning.core.hardware import Device
from tuning.memory.batch_memory import BatchMemory, Parts
from tuning.memory.evaluation import evaluation_bytes, evaluation_peak, generation_bytes
from tuning.memory.formula import FormulaMemory
from tuning.memory.peak_batches import cached_features_bytes, count_update_batches, peak_batches, row_sizes_of
from tuning.memory.process_overhead import process_bytes
from tuning.memory.traced import TracedMemory, is_even
from tuning.memory.tracing.table_cache import find_table, make_table, untraceable
from tuning.memory.workload import Workload, workload_of
from tuning.methods import method_named
from tuning.plan.micro_batches import PeakCandidate
from tuning.plan.plan import Plan, with_method

MOSTLY_FROZEN_SHARE = 0.1
"""The share of trained weights below which a run is one over a mostly frozen model: its process has another overhead
beside the tensors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryUsage:
    """What the run of a plan takes on the plan's device, in bytes: as its settings are, or with other sizes.

    The parameter `row_count` of the functions below stands for another micro-batch size, `length` for another number of
    tokens of the longest row; None is what the settings have.
    """

    plan: Plan
    memory: BatchMemory
    workloads: tuple[Workload, ...] = ()
    """The workloads whose tables make all figures exact, as `workloads_of` gives them."""

    @property
    def kind(self) -> str:
        """`traced` or `approximate`."""
        return self.memory.kind

    @property
    def trains(self) -> bool:
        """Whether the run makes updates; else it is one evaluation."""
        return method_named(self.plan.settings.method.name).updates

    @property
    def why_approximate(self) -> str | None:
        """Why there is no table, in a sentence; None where there is one, or none has been tried yet."""
        if self.kind == "traced" or not self.workloads:
            return None
        reason = untraceable(self.workloads[0])
        if reason is None:
            return None
        first_line = reason.strip().partition("\n")[0].rstrip(".")
        return f"A run with these settings could not be traced ({first_line}), so the figures are by formula."

    def with_plan(self, plan: Plan) -> MemoryUsage:
        """The usage of a plan that differs in sizes alone, so that the table stays."""
        return replace(self, plan=plan, memory=self.memory.with_plan(plan))

    def by_formula(self) -> MemoryUsage:
        """The usage of the same plan without its table, to compare with another plan that has none."""
        return MemoryUsage(plan=self.plan, memory=FormulaMemory(plan=self.plan))

    def peak(self) -> tuple[Parts, str]:
        """Bytes by category at the peak of an update, and the name of that point; of the evaluation where the run makes
        no update."""
        if not self.trains:
            return evaluation_peak(self.plan, self.memory)
        batch = self._peak_batch()
        parts, place = self.memory.peak(batch)
        return self._with_features(batch, parts), place

    def peak_batches(self, row_count: int | None = None, length: int | None = None) -> Sequence[PeakCandidate]:
        """The micro-batches of the run's updates, one of which has the peak."""
        batches, settings = peak_batches(self.plan, row_count, length), self.plan.settings.method
        # where weights are updated within the backward pass, the optimizer's state comes before that is over
        if any(batch.first for batch in batches) and method_named(settings.name).steps_in_backward(settings):
            return [replace(batch, first=False) for batch in batches]
        return batches

    def total(self, row_count: int | None = None, length: int | None = None) -> int:
        """Bytes at the peak of an update; of the evaluation where the run makes no update."""
        if not self.trains:
            return self.evaluation(row_count, length)
        return max(map(self.batch_total, self.peak_batches(row_count, length)))

    def batch_total(self, batch: PeakCandidate) -> int:
        """Bytes at the peak of one micro-batch, with the features that a run keeps of all rows."""
        return self.memory.total(batch) + cached_features_bytes(self.plan, batch.shape)

    def evaluation(self, row_count: int | None = None, length: int | None = None) -> int:
        """Bytes at the peak of an evaluation; 0 where no rows are held out."""
        return evaluation_bytes(self.plan, self.memory, row_count, length)

    def generation(self) -> int:
        """Bytes at the peak while answers are written; 0 where none are. Prompts are whole, whatever max_seq_length
        is."""
        return generation_bytes(self.plan, self.memory)

    def peak_of_run(self, row_count: int | None = None, length: int | None = None) -> int:
        """The most bytes that tensors take in the whole run: what a device must hold."""
        return max(self.total(row_count, length), self.evaluation(row_count, length), self.generation())

    def points_to_shard(self) -> list[tuple[str, Parts]]:
        """The points of an update that can be the highest once its memory is sharded over several devices.

        Each is a place, as in `table.Point`, and the bytes by category there.
        """
        if not self.trains:
            parts, place = self.peak()
            return [(f"0.{place}", parts)]
        points = self.memory.points_to_shard(self.peak_batches())
        return [(place, self._with_features(batch, parts)) for batch, place, parts in points]

    def through_step(self) -> list[tuple[str, int]]:
        """Names and bytes of the points of one update in order of time, with the micro-batch that has the peak; empty
        without a table or an update."""
        if not self.trains:
            return []
        batch = self._peak_batch()
        cached = cached_features_bytes(self.plan, batch.shape)
        return [(place, size + cached) for place, size in self.memory.through_step(batch)]

    def fits(self, row_count: int | None = None) -> bool:
        """Whether the upper edge of the run's process stays on the device."""
        return self.fits_bytes(self.peak_of_run(row_count))

    def fits_bytes(self, total: int) -> bool:
        """Whether a run whose tensors peak at `total` bytes fits: the upper edge of its process."""
        return self.process_band(total)[2] <= self.plan.device.total_bytes

    def process_band(self, total: int) -> tuple[int, int, int]:
        """Expected bytes of the process whose tensors peak at `total` bytes, and the low and high edge of its band."""
        return process_bytes(
            total,
            self.kind,
            self.plan.device.kind,
            mostly_frozen=self.plan.value("trainable_share") < MOSTLY_FROZEN_SHARE,
            recompute=self.plan.settings.gradient_checkpointing,
            ragged=row_sizes_of(self.plan.data).padded,
            half=self.plan.settings.precision == "autocast_bf16",
        )

    def _peak_batch(self) -> PeakCandidate:
        return max(self.peak_batches(), key=self.batch_total)

    def _with_features(self, batch: PeakCandidate, parts: Parts) -> Parts:
        return parts | {"activations": parts["activations"] + cached_features_bytes(self.plan, batch.shape)}


def usage_of(plan: Plan, device: Device | None = None, *, make: bool = False) -> MemoryUsage:
    """The usage of a plan on `device` (default: the plan's own), from its table where that has been made.

    `make` has a missing table traced, which takes seconds in a process of its own, and all update batches counted.
    """
    plan = plan if device is None else plan.with_device(device)
    if make:
        count_update_batches(plan)
    workloads = workloads_of(plan)
    tables = [make_table(workload) if make else find_table(workload) for workload in workloads]
    if not tables or tables[0] is None:
        return MemoryUsage(plan=plan, memory=FormulaMemory(plan=plan), workloads=workloads)
    even_table = tables[1] if len(tables) == 2 else None
    traced = TracedMemory(table=tables[0], rank=workloads[0].rank, even_table=even_table)
    return MemoryUsage(plan=plan, memory=traced, workloads=workloads)


def workloads_of(plan: Plan) -> tuple[Workload, ...]:
    """The workloads whose tables make all figures of a plan exact.

    The first is that of the run. A second one is added if some micro-batches have rows of equal length, which need no
    mask. Empty where the model's folder has gone.
    """
    try:
        workload = workload_of(plan)
    except (OSError, ValueError):  # the model's folder has gone since: the shape in the plan is still there
        return ()
    updates = method_named(plan.settings.method.name).updates
    if workload.padded and updates and any(map(is_even, peak_batches(plan))):
        return workload, replace(workload, padded=False)
    return (workload,)


def with_settings_unchecked(plan: Plan, settings: dict[str, Any]) -> Plan:
    """The plan with other values of some settings, not checked and with no number derived anew but those of a method.

    Only for settings that change neither rows nor their tokens, and for an estimate, never for a run.
    """
    others = {name: value for name, value in settings.items() if name != "method"}
    plan = replace(plan, settings=plan.settings.replace(**others)) if others else plan
    return with_method(plan, settings["method"]) if "method" in settings else plan
