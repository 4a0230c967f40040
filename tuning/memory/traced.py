"""A micro-batch's memory from the table of its workload, which was traced on the real training code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tuning.memory.batch_memory import Parts
from tuning.memory.tracing.table import Block, Table
from tuning.plan.micro_batches import BatchShape, PeakCandidate
from tuning.plan.plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class TracedMemory:
    """Answers from a memory table; it implements `BatchMemory`."""

    table: Table
    rank: int | None
    """The rank of the method's settings, which is a size; None where the method has none."""
    even_table: Table | None = None
    """The table of micro-batches of several rows of equal length, which need no mask and so take less; None where the
    run has none beside others, or it has not been made."""

    @property
    def kind(self) -> str:
        return "traced"

    def with_plan(self, plan: Plan) -> TracedMemory:
        """This one: a table holds for all sizes."""
        return self

    def peak(self, batch: PeakCandidate) -> tuple[Parts, str]:
        return self._block(batch).peak(batch, self.rank)

    def total(self, batch: PeakCandidate) -> int:
        return self._block(batch).total(batch, self.rank)

    def points_to_shard(self, batches: Sequence[PeakCandidate]) -> list[tuple[PeakCandidate, str, Parts]]:
        """Every point of every micro-batch: sharing can move the peak to any of them."""
        return [
            (batch, place, parts)
            for batch in batches
            for place, parts in self._block(batch).points_to_shard(batch, self.rank)
        ]

    def through_step(self, batch: PeakCandidate) -> list[tuple[str, int]]:
        return self._block(batch).through_step(batch, self.rank)

    def forward_peak(self, shape: BatchShape) -> tuple[Parts, str]:
        return self.table.evaluation(shape).peak(PeakCandidate(shape=shape, accumulate=True), self.rank)

    def forward_total(self, shape: BatchShape) -> int:
        return self.table.evaluation(shape).total(PeakCandidate(shape=shape, accumulate=True), self.rank)

    def _block(self, batch: PeakCandidate) -> Block:
        """The block for this micro-batch; rows of equal length have the table of unequal ones until theirs is made."""
        if self.even_table is not None and is_even(batch):
            return self.even_table.block(batch.shape)
        return self.table.block(batch.shape)


def is_even(batch: PeakCandidate) -> bool:
    """Whether a micro-batch has several rows, all of the same length."""
    return batch.shape.rows > 1 and not batch.shape.padded
