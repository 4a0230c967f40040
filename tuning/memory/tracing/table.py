"""A memory table: the points of an update that can be its peak, each as a polynomial in the sizes.

`fit` makes tables, and they are stored as JSON. An answer for a few micro-batches takes some ten microseconds and
imports nothing heavy.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from operator import mul
from typing import Any

import numpy as np

from tuning.memory.workload import CATEGORIES
from tuning.plan.micro_batches import BatchShape, PeakCandidate

OPTIMIZER = CATEGORIES.index("optimizer")
Monomial = Callable[[BatchShape, int], float]
MONOMIALS: dict[str, Monomial] = {
    "1": lambda x, r: 1,
    "S": lambda x, r: x.length,
    "SS": lambda x, r: x.length**2,
    "N": lambda x, r: x.label_tokens,
    "B": lambda x, r: x.rows,
    "BS": lambda x, r: x.rows * x.length,
    "BSS": lambda x, r: x.rows * x.length**2,
    "r": lambda x, r: r,
    "BSr": lambda x, r: x.rows * x.length * r,
}
"""The products that tensor sizes are made of: rows B, tokens S, label tokens N, rank r."""


def monomials(*, many: bool, ranked: bool) -> dict[str, Monomial]:
    """The monomials that can be fitted to traces: none with B for one row, none with r without a rank."""
    names = ["1", "S", "SS", "N"] + (["B", "BS", "BSS"] if many else []) + (["r", "BSr"] if ranked else [])
    return {name: MONOMIALS[name] for name in names}


@dataclass(frozen=True, kw_only=True)
class Point:
    """One point of an update: its place, and for each category the coefficients of the block's monomials."""

    place: str
    """Micro-batch (0 the first, 1 a later one, 2 after all), a full stop, and words."""
    bytes: list[list[float]]
    total: list[float] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "total", [sum(column) for column in zip(*self.bytes)])

    def at(self, values: list[float]) -> float:
        """Bytes of all categories, where the monomials have these values."""
        return float(sum(map(mul, self.total, values)))

    def before_the_first_step(self) -> list[list[float]]:
        """The coefficients where the optimizer has no state yet: in the first update, until it steps."""
        if self.place.startswith("2."):
            return self.bytes
        return [[0.0] * len(line) if i == OPTIMIZER else line for i, line in enumerate(self.bytes)]

    def to_dict(self) -> dict[str, Any]:
        return {"place": self.place, "bytes": self.bytes}


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """The points of an update, or of an evaluation, for one range of shapes."""

    monomials: list[str]
    points: list[Point]
    line: list[Point]
    """Points in the order of time, whose only coefficients are those of all categories together."""
    _possible: dict[tuple[bool, bool], tuple[list[Point], Any]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def peak(self, candidate: PeakCandidate, rank: int | None) -> tuple[dict[str, int], str]:
        """Bytes by category at the peak of this micro-batch or the update after it, and the name of that point."""
        values = self._values(candidate.shape, rank)
        points, totals = self._of(candidate)
        highest = points[int((totals @ np.array(values)).argmax())]
        return _parts(highest, values), highest.place[2:]

    def points_to_shard(self, candidate: PeakCandidate, rank: int | None) -> list[tuple[str, dict[str, int]]]:
        """Place (as in `Point`) and bytes by category of every point that can be the peak."""
        values = self._values(candidate.shape, rank)
        return [(point.place, _parts(point, values)) for point in self._of(candidate)[0]]

    def total(self, candidate: PeakCandidate, rank: int | None) -> int:
        """Bytes of all categories at the peak."""
        totals = self._of(candidate)[1] @ np.array(self._values(candidate.shape, rank))
        return round(float(max(totals.tolist())))  # of a dozen numbers faster than numpy's own

    def through_step(self, candidate: PeakCandidate, rank: int | None) -> list[tuple[str, int]]:
        """Names and bytes of the points of the last micro-batch and the update, in order; the highest is the peak.

        The points that the line has of a stretch were chosen for middling sizes. Where another that can be the peak is
        higher at these sizes, it stands in their place, after the point that begins the stretch.
        """
        values = self._values(candidate.shape, rank)
        shown = ("1.", "2.") if candidate.accumulate else ("0.", "2.")
        tops: dict[str, int] = {}
        for point in self._of(candidate)[0]:
            tops[point.place] = max(tops.get(point.place, 0), sum(_parts(point, values).values()))
        state = max(_parts(point, values)["optimizer"] for point in self.points) if candidate.first else 0
        named_points = []
        for place, stretch in itertools.groupby(self.line, key=lambda point: point.place):
            if place.startswith(shown):
                missing = 0 if place.startswith("2.") else state  # before the first step
                sizes = [max(0, round(point.at(values)) - missing) for point in stretch]
                if tops.get(place, 0) >= max(sizes):
                    sizes = [sizes[0], tops[place]]
                named_points += [(place[2:], size) for size in sizes]
        return named_points

    def _of(self, candidate: PeakCandidate) -> tuple[list[Point], Any]:
        """The points that can be the peak of this micro-batch, with the coefficients of their totals.

        Points beside the gradients of an earlier micro-batch count only where there is one.
        """
        kind = candidate.accumulate, candidate.first
        if kind not in self._possible:
            points = [point for point in self.points if candidate.accumulate or not point.place.startswith("1.")]
            if candidate.first:
                points = [Point(place=point.place, bytes=point.before_the_first_step()) for point in points]
            self._possible[kind] = points, np.array([point.total for point in points])
        return self._possible[kind]

    def _values(self, shape: BatchShape, rank: int | None) -> list[float]:
        return [MONOMIALS[name](shape, rank or 0) for name in self.monomials]


def _parts(point: Point, values: list[float]) -> dict[str, int]:
    """Bytes by category of a point, where the monomials have these values."""
    sums = (sum(map(mul, line, values)) for line in point.bytes)
    return {name: max(0, round(size)) for name, size in zip(CATEGORIES, sums)}


BEYOND = "beyond_"
"""The beginning of a block's name that is for rows as long as the model's attention window or longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """The blocks of one workload. Parameter counts are polynomials too: a constant, and a part for each rank."""

    layers: int
    window: int | None
    """Tokens from which on some layers see a window only, and need a mask that says so."""
    blocks: dict[str, Block]
    """Blocks by name: `one` row, `many` rows, `evaluation_one`, `evaluation_many`, and each with `BEYOND` before it."""
    trainable: tuple[float, float]
    total: tuple[float, float]

    def block(self, shape: BatchShape) -> Block:
        """The points of an update for this shape: one row alone takes other paths than several."""
        return self.blocks[self._beyond(shape) + ("one" if shape.rows == 1 else "many")]

    def evaluation(self, shape: BatchShape) -> Block:
        """The points of an evaluation of a batch of this shape."""
        return self.blocks[self._beyond(shape) + ("evaluation_one" if shape.rows == 1 else "evaluation_many")]

    def _beyond(self, shape: BatchShape) -> str:
        return BEYOND if self.window is not None and shape.length >= self.window else ""

    def counts(self, rank: int | None) -> tuple[int, int]:
        """Trainable and total parameters."""
        trainable, total = ((at[0] + at[1] * (rank or 0)) for at in (self.trainable, self.total))
        return round(trainable), round(total)

    def to_dict(self) -> dict[str, Any]:
        blocks = {
            name: {
                "monomials": block.monomials,
                "rows": [point.to_dict() for point in block.points],
                "line": [point.to_dict() for point in block.line],
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
                points=[Point(**point) for point in given["rows"]],
                line=[Point(**point) for point in given["line"]],
            )

        return Table(
            layers=plain["layers"],
            window=plain["window"],
            trainable=tuple(plain["trainable"]),
            total=tuple(plain["total"]),
            blocks={name: block(given) for name, given in plain["blocks"].items()},
        )
