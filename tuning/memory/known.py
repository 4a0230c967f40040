"""What is known about a plan's memory: its table where one was traced, and every question that can be asked of it.

Comes in: a `Plan`.  Goes out: a `Known`, which answers in bytes for these settings or for other sizes: by the table of
the real training code (`tables.py`), or by formula where there is none yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from tuning.hardware import Device
from tuning.memory.closed_form import closed_form
from tuning.memory.evaluation import evaluation_bytes, evaluation_parts, generation_bytes
from tuning.memory.moments import count_windows, kept_features, moments_of, rows_of
from tuning.memory.process import process_bytes
from tuning.memory.subject import Subject, subject_of
from tuning.memory.table import Block, Table
from tuning.memory.tables import find_table, make_table, untraceable
from tuning.methods import method_named
from tuning.micro_batches import Moment
from tuning.plan import Plan, with_method


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is known about a plan's memory: its table, if it has one. Any size can be asked of it."""

    plan: Plan
    subject: Subject | None
    table: Table | None
    even_subject: Subject | None = None
    """Of micro-batches of several rows that are all as long: they need no mask, and so take less. None where this run
    has no such beside others."""
    even_table: Table | None = None

    @property
    def wanted(self) -> tuple[Subject, ...]:
        """Whose tables tell all that this plan asks."""
        return tuple(one for one in (self.subject, self.even_subject) if one is not None)

    @property
    def kind(self) -> str:
        return "approximate" if self.table is None else "traced"

    @property
    def trains(self) -> bool:
        """Whether the run makes updates; else it is one evaluation."""
        return method_named(self.plan.settings.method.name).updates

    @property
    def why_approximate(self) -> str | None:
        """Why there is no table, in a sentence; None where there is one, or none has been tried yet."""
        reason = None if self.table is not None or self.subject is None else untraceable(self.subject)
        if reason is None:
            return None
        said = reason.strip().partition("\n")[0].rstrip(".")
        return f"A run with these settings could not be traced ({said}), so the figures are by formula."

    def peak(self) -> tuple[dict[str, int], str]:
        """Bytes by category at the peak of an update, and where it is; of the evaluation where there is no update."""
        if not self.trains:
            return evaluation_parts(self.plan, self.subject, self.table)
        moment = self._highest()
        (parts, where), kept = self._at(moment), kept_features(self.plan, moment.shape)
        return parts | {"activations": parts["activations"] + kept}, where

    def moments(self, rows: int | None = None, length: int | None = None) -> Sequence[Moment]:
        """The micro-batches of which one is the highest."""
        found, settings = moments_of(self.plan, rows, length), self.plan.settings.method
        # where weights are updated within the backward pass, the optimizer's state comes before that is over
        if any(one.first for one in found) and method_named(settings.name).steps_in_backward(settings):
            return [replace(one, first=False) for one in found]
        return found

    def _highest(self) -> Moment:
        """The one of them that is."""
        return max(self.moments(), key=self._total)

    def _total(self, moment: Moment) -> int:
        """Bytes at its peak, what a run keeps of all rows included."""
        if self.table is None or self.subject is None:
            total = sum(closed_form(self.plan, moment)[0].values())
        else:
            total = self._block(self.table, moment).total(moment, self.subject.rank)
        return total + kept_features(self.plan, moment.shape)

    def _at(self, moment: Moment) -> tuple[dict[str, int], str]:
        if self.table is None or self.subject is None:
            return closed_form(self.plan, moment)
        return self._block(self.table, moment).peak(moment, self.subject.rank)

    def _block(self, table: Table, moment: Moment) -> Block:
        """The moments for this micro-batch: of rows of unequal length until the table of equal ones is there."""
        if self.even_table is not None and _is_even(moment):
            table = self.even_table
        return table.block(moment.shape)

    def total(self, rows: int | None = None, length: int | None = None) -> int:
        """Bytes at that peak, of these settings or with other sizes."""
        if not self.trains:
            return self.evaluation(rows, length)
        return max(map(self._total, self.moments(rows, length)))

    def evaluation(self, rows: int | None = None, length: int | None = None) -> int:
        """Bytes at the peak of an evaluation, of these settings or with other sizes."""
        return evaluation_bytes(self.plan, self.subject, self.table, rows, length)

    def generation(self) -> int:
        """Bytes at the peak while answers are written: prompts are whole, whatever max_seq_length is."""
        return generation_bytes(self.plan, self.subject, self.table)

    def highest(self, rows: int | None = None, length: int | None = None) -> int:
        """The most bytes that tensors take in the whole run: what a device must hold."""
        return max(self.total(rows, length), self.evaluation(rows, length), self.generation())

    def through_step(self) -> list[tuple[str, int]]:
        """Memory through one update, in order of time, with the micro-batch that holds the peak."""
        if self.table is None or self.subject is None or not self.trains:
            return []
        at = self._highest()
        kept, block = kept_features(self.plan, at.shape), self._block(self.table, at)
        line = block.through_step(at, self.subject.rank)
        return [(place, count + kept) for place, count in line]

    def fits(self, device: Device, rows: int | None = None) -> bool:
        """Whether the upper edge stays on the device."""
        return self.held(self.highest(rows), device)

    def held(self, total: int, device: Device) -> bool:
        """The same where tensors take `total`."""
        return self.process(total, device)[2] <= device.total_bytes

    def process(self, total: int, device: Device) -> tuple[int, int, int]:
        """Expected, low and high bytes of the process whose tensors take `total`."""
        return process_bytes(
            total,
            self.kind,
            device.kind,
            frozen=self.plan.value("trainable_share") < 0.1,
            recompute=self.plan.settings.gradient_checkpointing,
            ragged=rows_of(self.plan.data).padded,
            half=self.plan.settings.precision == "autocast_bf16",
        )


def known(plan: Plan, *, make: bool = False) -> Known:
    """The plan with its table; `make` has a missing one traced, which takes seconds in a process of its own, and all
    windows of the run counted."""
    if make:
        count_windows(plan)
    try:
        subject = subject_of(plan)
    except (OSError, ValueError):  # the model's folder has gone since: the shape in the plan is still there
        return Known(plan=plan, subject=None, table=None)
    table_of = make_table if make else find_table
    found = Known(plan=plan, subject=subject, table=table_of(subject))
    if not subject.padded or not found.trains or not any(map(_is_even, moments_of(plan))):
        return found
    even = replace(subject, padded=False)
    return replace(found, even_subject=even, even_table=table_of(even))


def _is_even(moment: Moment) -> bool:
    return moment.shape.rows > 1 and not moment.shape.padded


def changed(plan: Plan, settings: dict[str, Any]) -> Plan:
    """The plan with other values of some settings that need no new look at the data; its other numbers stay."""
    others = {name: value for name, value in settings.items() if name != "method"}
    plan = replace(plan, settings=plan.settings.replace(**others)) if others else plan
    return with_method(plan, settings["method"]) if "method" in settings else plan
