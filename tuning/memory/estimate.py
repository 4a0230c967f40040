"""What a run will take at its peak, before it starts.

Comes in: a `Plan` and the device to hold it against.  Goes out: a `MemoryEstimate` by category, with an honest band,
a verdict from the band's upper edge, and what to change when it does not fit.  `kind` says how it was found: `traced`
from a table of the real training code (`tables.py`), or `approximate` by formula where there is no table yet.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from tuning.hardware import Device
from tuning.memory.closed_form import closed_form
from tuning.memory.evaluation import evaluation_bytes, generation_bytes
from tuning.memory.process import process_bytes
from tuning.memory.subject import Moment, Subject, kept_features, moments_of, subject_of
from tuning.memory.table import Table
from tuning.memory.tables import find_table, make_table
from tuning.plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryEstimate:
    """Bytes at the peak of one update. `total_bytes` is the sum of `parts`; the band is around `process_bytes`.

    The process, its band and the verdict are about the run as a whole: the highest of update, evaluation and writing.
    """

    total_bytes: int
    parts: dict[str, int]
    evaluation_bytes: int
    """Bytes of tensors at the peak of an evaluation; 0 where no rows are held out."""
    generation_bytes: int
    """The same while answers are written; 0 where none are."""
    process_bytes: int
    low_bytes: int
    high_bytes: int
    fits: bool
    kind: str
    peak_at: str
    trainable_parameters: int
    total_parameters: int
    device: str
    device_bytes: int
    largest_micro_batch: int | None
    """The most rows on the device at once that fit, of these data; None where not even one does."""
    fixes: list[dict[str, Any]]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is known about a plan's memory: its table, if it has one. Any size can be asked of it."""

    plan: Plan
    subject: Subject | None
    table: Table | None

    @property
    def kind(self) -> str:
        return "approximate" if self.table is None else "traced"

    def peak(self) -> tuple[dict[str, int], str]:
        """Bytes by category at the peak, and where it is."""
        found = [(*self._at(moment), moment) for moment in moments_of(self.plan)]
        parts, where, moment = max(found, key=lambda one: sum(one[0].values()))
        kept = kept_features(self.plan, moment.shape)
        return parts | {"activations": parts["activations"] + kept}, where

    def _at(self, moment: Moment) -> tuple[dict[str, int], str]:
        if self.table is None or self.subject is None:
            return closed_form(self.plan, moment)
        block = self.table.block(moment.shape)
        return block.peak(moment.shape, self.subject.rank, accumulate=moment.accumulate)

    def total(self, rows: int | None = None, length: int | None = None) -> int:
        """Bytes at the peak, of these settings or with other sizes."""
        moments = moments_of(self.plan, rows, length)
        if self.table is None or self.subject is None:
            return max(
                sum(closed_form(self.plan, one)[0].values()) + kept_features(self.plan, one.shape) for one in moments
            )
        rank, table = self.subject.rank, self.table
        return max(
            table.block(one.shape).total(one.shape, rank, accumulate=one.accumulate)
            + kept_features(self.plan, one.shape)
            for one in moments
        )

    def evaluation(self, rows: int | None = None, length: int | None = None) -> int:
        """Bytes at the peak of an evaluation, of these settings or with other sizes."""
        return evaluation_bytes(self.plan, self.subject, self.table, rows, length)

    def generation(self, length: int | None = None) -> int:
        """Bytes at the peak while answers are written."""
        return generation_bytes(self.plan, self.subject, self.table, length)

    def highest(self, rows: int | None = None, length: int | None = None) -> int:
        """The most bytes that tensors take in the whole run: what a device must hold."""
        return max(self.total(rows, length), self.evaluation(rows, length), self.generation(length))

    def through_step(self) -> list[tuple[str, int]]:
        """Memory through one update, in order of time, with the micro-batch that holds the peak."""
        if self.table is None or self.subject is None:
            return []
        at = max(moments_of(self.plan), key=lambda moment: sum(self._at(moment)[0].values()))
        kept, block = kept_features(self.plan, at.shape), self.table.block(at.shape)
        line = block.through_step(at.shape, self.subject.rank, accumulate=at.accumulate)
        return [(place, count + kept) for place, count in line]

    def fits(self, device: Device, rows: int | None = None) -> bool:
        """Whether the upper edge stays on the device."""
        return self.process(self.highest(rows), device)[2] <= device.total_bytes

    def process(self, total: int, device: Device) -> tuple[int, int, int]:
        """Expected, low and high bytes of the process whose tensors take `total`."""
        return process_bytes(
            total, self.kind, device.kind, frozen=self.plan.value("trainable_share") < 0.1,
            recompute=self.plan.settings.gradient_checkpointing,
        )  # fmt: skip


def known(plan: Plan, *, make: bool = False) -> Known:
    """The plan with its table; `make` has a missing one traced, which takes seconds in a process of its own."""
    try:
        subject = subject_of(plan)
    except (OSError, ValueError):  # the model's folder has gone since: the shape in the plan is still there
        return Known(plan=plan, subject=None, table=None)
    return Known(plan=plan, subject=subject, table=make_table(subject) if make else find_table(subject))


def estimate(plan: Plan, device: Device | None = None, *, make: bool = False) -> MemoryEstimate:
    """The estimate for this plan on `device` (default: the plan's own)."""
    from tuning.memory.fixes import fixes, largest_micro_batch

    target = device or plan.device
    found = known(plan, make=make)
    parts, peak_at = found.peak()
    total, evaluation, generation = sum(parts.values()), found.evaluation(), found.generation()
    process, low, high = found.process(max(total, evaluation, generation), target)
    trainable, everything = int(plan.value("trainable_parameters")), int(plan.value("total_parameters"))
    return MemoryEstimate(
        total_bytes=total, parts=parts, evaluation_bytes=evaluation, generation_bytes=generation,
        process_bytes=process, low_bytes=low, high_bytes=high,
        fits=high <= target.total_bytes, kind=found.kind, peak_at=peak_at, trainable_parameters=trainable,
        total_parameters=everything, device=target.name, device_bytes=target.total_bytes,
        largest_micro_batch=largest_micro_batch(found, target),
        fixes=fixes(found, target) if high > target.total_bytes else [],
    )  # fmt: skip


def changed(plan: Plan, settings: dict[str, Any]) -> Plan:
    """The plan with other values of some settings that need no new look at the data; its other numbers stay."""
    return replace(plan, settings=replace(plan.settings, **settings))
