"""The interface of the two ways to find a micro-batch's memory: from a traced table, or by formula."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from tuning.plan.micro_batches import BatchShape, PeakCandidate
from tuning.plan.plan import Plan

Parts = dict[str, int]
"""Bytes by category (`workload.CATEGORIES`)."""


class BatchMemory(Protocol):
    """Bytes of tensors while one micro-batch is trained on, or while one batch is only read.

    `tuning.memory.traced` and `tuning.memory.formula` implement it; `MemoryUsage` asks it about whole runs.
    """

    @property
    def kind(self) -> str:
        """`traced` or `approximate`, as the estimate says it."""
        ...

    def with_plan(self, plan: Plan) -> BatchMemory:
        """The memory of a plan that differs in sizes alone."""
        ...

    def peak(self, batch: PeakCandidate) -> tuple[Parts, str]:
        """Bytes by category at the peak of this micro-batch or the update after it, and the name of that point."""
        ...

    def total(self, batch: PeakCandidate) -> int:
        """Bytes of all categories together at the peak of this micro-batch or the update after it."""
        ...

    def points_to_shard(self, batches: Sequence[PeakCandidate]) -> list[tuple[PeakCandidate, str, Parts]]:
        """The points of these micro-batches that can be the highest once memory is shared out over devices.

        Each is the micro-batch, its place as in `table.Point` ("0.loss": micro-batch, a point, words), bytes by
        category.
        """
        ...

    def through_step(self, batch: PeakCandidate) -> list[tuple[str, int]]:
        """Names and bytes of the points of one update in order of time; empty where they are not known."""
        ...

    def forward_peak(self, shape: BatchShape) -> tuple[Parts, str]:
        """Bytes by category at the peak of a forward pass without gradients, and the name of that point."""
        ...

    def forward_total(self, shape: BatchShape) -> int:
        """Bytes of all categories together at the peak of a forward pass without gradients."""
        ...
