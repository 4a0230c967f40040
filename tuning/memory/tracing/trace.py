"""The trace of an update or an evaluation: its events in order, and the storages that lived through them.

The tracing process makes traces from an `AllocationLog`, and `fit` reads them. They have storages and not only their
sums, for the bytes of one storage are mostly one product of the sizes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy

from tuning.memory.workload import CATEGORIES

Array = numpy.ndarray


@dataclass(frozen=True, kw_only=True)
class Trace:
    """Events and storages of one recording.

    `labels` are the segments of the events. `columns` are those of `AllocationLog.columns`: category, first event,
    event after the last, bytes. `layers` are the bytes by category that each layer has between updates.
    """

    labels: list[str]
    columns: Sequence[tuple[int, int, int, int]]
    layers: list[tuple[int, ...]]

    @cached_property
    def spans(self) -> Array:
        """Category, first event and event after the last of each storage: columns x 3."""
        return numpy.array([column[:3] for column in self.columns])

    @cached_property
    def bytes(self) -> Array:
        """Bytes of each storage."""
        return numpy.array([column[3] for column in self.columns])

    @cached_property
    def live(self) -> Array:
        """Live bytes: events x categories."""
        return summed(self.spans, self.bytes, len(self.labels))

    @property
    def peak(self) -> int:
        """The largest sum of live bytes."""
        return int(self.live.sum(axis=1).max())

    def only(self, events: Sequence[int], leave_out: tuple[int, int]) -> Trace:
        """The trace of some events alone; `leave_out` is a category, and how many of the first are without it."""
        live = self.live[list(events)]
        live[: leave_out[1], leave_out[0]] = 0
        steps = numpy.diff(live, axis=0, prepend=0)
        columns = [
            (category, event, len(events), int(steps[event, category]))
            for event in range(len(events))
            for category in range(len(CATEGORIES))
        ]
        return Trace(labels=[self.labels[event] for event in events], columns=columns, layers=self.layers)


def summed(spans: Array, values: Array, events: int) -> Array:
    """Sums of the storages' values by event and category.

    `spans` is columns x 3 as in `Trace.spans`; `values` has a number for each column, or a row of numbers.
    """
    category, first, after = spans.T
    steps = numpy.zeros((events + 1, len(CATEGORIES), *values.shape[1:]), dtype=values.dtype)
    numpy.add.at(steps, (first, category), values)
    numpy.subtract.at(steps, (after, category), values)
    return steps.cumsum(axis=0)[:-1]
