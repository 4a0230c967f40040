"""A memory table: the moments of an update that can be its peak, each as a polynomial in the sizes.

Comes in: JSON of a table (made by `fit.py`).  Goes out: the bytes at the peak for a shape, by category, and where in
the step it lies.  An answer for a few micro-batches takes some ten microseconds and imports nothing heavy.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from operator import mul
from typing import Any

import numpy as np

from tuning.memory.subject import CATEGORIES
from tuning.micro_batches import Moment, Shape

OPTIMIZER = CATEGORIES.index("optimizer")
Monomial = Callable[[Shape, int], float]
MONOMIALS: dict[str, Monomial] = {
    "1": lambda x, r: 1,
    "S": lambda x, r: x.length,
    "SS": lambda x, r: x.length**2,
    "N": lambda x, r: x.labels,
    "B": lambda x, r: x.rows,
    "BS": lambda x, r: x.rows * x.length,
    "BSS": lambda x, r: x.rows * x.length**2,
    "r": lambda x, r: r,
    "BSr": lambda x, r: x.rows * x.length * r,
}
"""What tensor sizes are made of: rows B, tokens S, label tokens N, rank r."""


def monomials(*, many: bool, ranked: bool) -> dict[str, Monomial]:
    """Those that can be told apart: with one row B is 1, and without a rank there is none."""
    names = ["1", "S", "SS", "N"] + (["B", "BS", "BSS"] if many else []) + (["r", "BSr"] if ranked else [])
    return {name: MONOMIALS[name] for name in names}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One moment: where it is, and for each category the coefficients of the block's monomials."""

    place: str
    """Micro-batch (0 the first, 1 a later one, 2 after all), a point, and words."""
    bytes: list[list[float]]
    total: list[float] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "total", [sum(column) for column in zip(*self.bytes)])

    def at(self, values: list[float]) -> float:
        """Bytes in all, where the monomials have these values."""
        return sum(map(mul, self.total, values))

    def before_the_first_step(self) -> list[list[float]]:
        """The bytes where the optimizer has kept nothing yet: in the first update, until it steps."""
        if self.place.startswith("2."):
            return self.bytes
        return [[0.0] * len(line) if number == OPTIMIZER else line for number, line in enumerate(self.bytes)]

    def to_dict(self) -> dict[str, Any]:
        return {"place": self.place, "bytes": self.bytes}


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """The moments for one range of shapes."""

    monomials: list[str]
    rows: list[Row]
    line: list[Row]
    """Moments in the order of time, totals only."""
    _possible: dict[tuple[bool, bool], tuple[list[Row], Any]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def peak(self, moment: Moment, rank: int | None) -> tuple[dict[str, int], str]:
        """Bytes at the peak of this micro-batch, or of the update after it, by category, and where."""
        values = self._values(moment.shape, rank)
        rows, totals = self._of(moment)
        where = rows[int((totals @ np.array(values)).argmax())]
        return _parts(where, values), where.place[2:]

    def moments(self, moment: Moment, rank: int | None) -> list[tuple[str, dict[str, int]]]:
        """Place (as in `Row`) and bytes by category of everything that can be the peak."""
        values = self._values(moment.shape, rank)
        return [(row.place, _parts(row, values)) for row in self._of(moment)[0]]

    def total(self, moment: Moment, rank: int | None) -> int:
        """Bytes at the peak alone."""
        totals = self._of(moment)[1] @ np.array(self._values(moment.shape, rank))
        return round(max(totals.tolist()))  # of a dozen numbers faster than numpy's own

    def through_step(self, moment: Moment, rank: int | None) -> list[tuple[str, int]]:
        """Memory through one step: the last micro-batch and the update, in order; its highest is the peak.

        Which moment of a stretch the line keeps was chosen for middling sizes. Where another one that can be the peak
        is higher at these, that one is told; it comes after the moment that begins the stretch.
        """
        values = self._values(moment.shape, rank)
        shown = ("1.", "2.") if moment.accumulate else ("0.", "2.")
        tops: dict[str, int] = {}
        for row in self._of(moment)[0]:
            tops[row.place] = max(tops.get(row.place, 0), sum(_parts(row, values).values()))
        state = max(_parts(row, values)["optimizer"] for row in self.rows) if moment.first else 0
        found = []
        for place, stretch in itertools.groupby(self.line, key=lambda row: row.place):
            if place.startswith(shown):
                missing = 0 if place.startswith("2.") else state  # before the first step
                counts = [max(0, round(row.at(values)) - missing) for row in stretch]
                if tops.get(place, 0) >= max(counts):
                    counts = [counts[0], tops[place]]
                found += [(place[2:], count) for count in counts]
        return found

    def _of(self, moment: Moment) -> tuple[list[Row], Any]:
        """What can be the peak, with the coefficients of its totals; what comes beside gradients of an earlier
        micro-batch only if there is one."""
        kind = moment.accumulate, moment.first
        if kind not in self._possible:
            rows = [row for row in self.rows if moment.accumulate or not row.place.startswith("1.")]
            if moment.first:
                rows = [Row(place=row.place, bytes=row.before_the_first_step()) for row in rows]
            self._possible[kind] = rows, np.array([row.total for row in rows])
        return self._possible[kind]

    def _values(self, shape: Shape, rank: int | None) -> list[float]:
        return [MONOMIALS[name](shape, rank or 0) for name in self.monomials]


def _parts(row: Row, values: list[float]) -> dict[str, int]:
    """Bytes by category."""
    sums = (sum(map(mul, line, values)) for line in row.bytes)
    return {name: max(0, round(found)) for name, found in zip(CATEGORIES, sums)}


BEYOND = "beyond_"
"""Before a block's name: for rows as long as the model's attention window or longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """All that is known about one workload. Counts are polynomials too: constant, and a part for each rank."""

    layers: int
    window: int | None
    """Tokens from which on some layers see a window only, and need a mask that says so."""
    blocks: dict[str, Block]
    """`one` row alone, `many`, the same for an evaluation, and all of them once more beyond the window."""
    trainable: tuple[float, float]
    total: tuple[float, float]

    def block(self, shape: Shape) -> Block:
        """The moments of an update for this shape: one row alone takes other paths than several."""
        return self.blocks[self._beyond(shape) + ("one" if shape.rows == 1 else "many")]

    def evaluation(self, shape: Shape) -> Block:
        """The moments of an evaluation of a batch of this shape."""
        return self.blocks[self._beyond(shape) + ("evaluation_one" if shape.rows == 1 else "evaluation_many")]

    def _beyond(self, shape: Shape) -> str:
        return BEYOND if self.window is not None and shape.length >= self.window else ""

    def counts(self, rank: int | None) -> tuple[int, int]:
        """Trainable and total parameters."""
        trainable, total = ((at[0] + at[1] * (rank or 0)) for at in (self.trainable, self.total))
        return round(trainable), round(total)

    def to_dict(self) -> dict[str, Any]:
        blocks = {
            name: {
                "monomials": block.monomials,
                "rows": [row.to_dict() for row in block.rows],
                "line": [row.to_dict() for row in block.line],
            }
            for name, block in self.blocks.items()
        }
        return {
            "layers": self.layers,
            "window": self.window,
            "trainable": self.trainable,
            "total": self.total,
            "blocks": blocks,
        }

    @staticmethod
    def from_dict(plain: dict[str, Any]) -> Table:
        def block(given: dict[str, Any]) -> Block:
            return Block(
                monomials=given["monomials"],
                rows=[Row(**row) for row in given["rows"]],
                line=[Row(**row) for row in given["line"]],
            )

        return Table(
            layers=plain["layers"],
            window=plain["window"],
            trainable=tuple(plain["trainable"]),
            total=tuple(plain["total"]),
            blocks={name: block(given) for name, given in plain["blocks"].items()},
        )
