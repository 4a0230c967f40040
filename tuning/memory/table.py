"""A memory table: the moments of an update that can be its peak, each as a polynomial in the sizes.

Comes in: JSON of a table (made by `fit.py`).  Goes out: the bytes at the peak for a shape, by category, and where in
the step it lies.  Plain Python: an evaluation takes some ten microseconds and imports nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from operator import mul
from typing import Any

from tuning.memory.subject import CATEGORIES, Shape

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

    def to_dict(self) -> dict[str, Any]:
        return {"place": self.place, "bytes": self.bytes}


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """The moments for one range of shapes."""

    monomials: list[str]
    rows: list[Row]
    line: list[Row]
    """Moments in the order of time, totals only."""

    def peak(self, shape: Shape, rank: int | None, *, accumulate: bool) -> tuple[dict[str, int], str]:
        """Bytes at the peak by category, and where; `accumulate` says that gradients of earlier micro-batches live."""
        values = self._values(shape, rank)
        where = self._highest(values, accumulate)
        return _parts(where, values), where.place[2:]

    def moments(self, shape: Shape, rank: int | None, *, accumulate: bool) -> list[tuple[str, dict[str, int]]]:
        """Place (as in `Row`) and bytes by category of every moment that can be the peak."""
        values = self._values(shape, rank)
        return [(row.place, _parts(row, values)) for row in self._possible(accumulate)]

    def total(self, shape: Shape, rank: int | None, *, accumulate: bool) -> int:
        """Bytes at the peak alone."""
        values = self._values(shape, rank)
        return round(self._highest(values, accumulate).at(values))

    def through_step(self, shape: Shape, rank: int | None, *, accumulate: bool) -> list[tuple[str, int]]:
        """Memory through one step: the last micro-batch and the update, in order; its highest is the peak.

        Which moment of a stretch the line keeps was chosen for middling sizes. Where another one that can be the peak
        is higher at these, that one is told; it comes after the moment that begins the stretch.
        """
        values = self._values(shape, rank)
        shown = ("1.", "2.") if accumulate else ("0.", "2.")
        tops: dict[str, int] = {}
        for row in self.rows:
            tops[row.place] = max(tops.get(row.place, 0), sum(_parts(row, values).values()))
        found = []
        for place, stretch in itertools.groupby(self.line, key=lambda row: row.place):
            if place.startswith(shown):
                counts = [max(0, round(row.at(values))) for row in stretch]
                if tops.get(place, 0) >= max(counts):
                    counts = [counts[0], tops[place]]
                found += [(place[2:], count) for count in counts]
        return found

    def _highest(self, values: list[float], accumulate: bool) -> Row:
        """The moment that is the peak."""
        return max(self._possible(accumulate), key=lambda row: row.at(values))

    def _possible(self, accumulate: bool) -> Iterator[Row]:
        """Moments that can be the peak; of a later micro-batch, beside gradients of earlier ones, if there is one."""
        return (row for row in self.rows if accumulate or not row.place.startswith("1."))

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
    """All that is known about one subject. Counts are polynomials too: constant, and a part for each rank."""

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
