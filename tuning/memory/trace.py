"""What was traced: the events of an update or an evaluation in order, and the storages that lived through them.

Comes in: what a `Ledger` has noted.  Goes out: the live bytes at each event.  Made in the tracing process, read by
`fit.py`: a storage's bytes say more than their sums do, for they are mostly one product of the sizes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy

from tuning.memory.subject import CATEGORIES


@dataclass(frozen=True, kw_only=True)
class Trace:
    """Events named by where they are, `columns` (as a `Ledger` gives them: category, first event, event after the last,
    bytes), and each layer's bytes by category, as they stay between updates."""

    labels: list[str]
    columns: Sequence[tuple[int, int, int, int]]
    layers: list[tuple[int, ...]]

    @cached_property
    def places(self) -> Any:
        """Category, first event and event after the last: one row a column."""
        return numpy.array([one[:3] for one in self.columns])

    @cached_property
    def bytes(self) -> Any:
        """Of each column."""
        return numpy.array([one[3] for one in self.columns])

    @cached_property
    def live(self) -> Any:
        """Live bytes: events x categories."""
        return summed(self.places, self.bytes, len(self.labels))

    @property
    def peak(self) -> int:
        """The largest sum of live bytes."""
        return int(self.live.sum(axis=1).max())

    def only(self, events: Sequence[int], leave_out: tuple[int, int]) -> Trace:
        """Some of the events, without a category in the first so many: (category, how many)."""
        live = self.live[list(events)]
        live[: leave_out[1], leave_out[0]] = 0
        steps = numpy.diff(live, axis=0, prepend=0)
        columns = [
            (category, event, len(events), int(steps[event, category]))
            for event in range(len(events))
            for category in range(len(CATEGORIES))
        ]
        return Trace(labels=[self.labels[event] for event in events], columns=columns, layers=self.layers)


def summed(places: Any, values: Any, events: int) -> Any:
    """Sums of the values (each column has one, or a row of them) by event and category."""
    category, first, after = places.T
    steps = numpy.zeros((events + 1, len(CATEGORIES), *values.shape[1:]), dtype=values.dtype)
    numpy.add.at(steps, (first, category), values)
    numpy.subtract.at(steps, (after, category), values)
    return steps.cumsum(axis=0)[:-1]
