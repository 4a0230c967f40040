"""From traces of small shapes to a table: for each moment that can be the peak, bytes as a polynomial in the sizes.

Comes in: traces of one update, all with the same sequence of events.  Goes out: a `Table`.  The peak itself is no
polynomial (it moves between the loss, the layers' backward passes and the update), but the live bytes at any one event
are: sums of tensors whose sizes are products of rows, tokens, rank.  So every event is fitted, and those that can
never be the largest are dropped.  Layers: those in the middle stand for all of their kind that the trace leaves out.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from typing import Any

from tuning.memory.layers import Layout
from tuning.memory.subject import CATEGORIES, Shape
from tuning.memory.table import Block, Row, monomials

GRADIENTS = CATEGORIES.index("gradients")
SIZES = (
    (1, 2, 3, 4, 8, 16, 32, 64, 256), (16, 64, 128, 256, 512, 1024, 4096, 16384), (0.02, 0.3, 1.0), (1, 8, 64, 512),
)  # fmt: skip
"""Rows, tokens, share of label tokens, ranks at which an event must be the largest to be kept."""


TOLERANCE = 0.002
"""How far the polynomials may be off a trace of another shape or depth."""


class Unfit(Exception):
    """The traces are no polynomial of the sizes: their events do not line up, or the check failed."""


def design(rows: Sequence[int], ranks: Sequence[int | None], padded: bool) -> list[tuple[Shape, int | None]]:
    """The shapes to trace for micro-batches of these numbers of rows: as many as there are coefficients."""
    first = ranks[0]
    found = [(Shape(rows=n, length=s, labels=8, padded=padded), first) for n in rows for s in (32, 48, 72)]
    found.append((Shape(rows=rows[-1], length=48, labels=24, padded=padded), first))
    for rank in ranks[1:]:
        found += [(Shape(rows=rows[-1], length=s, labels=8, padded=padded), rank) for s in (32, 72)]
    return found


def fit_block(traces: Sequence[Any], shapes: Sequence[tuple[Shape, int | None]], layout: Layout) -> Block:
    """Polynomials of every event, the left-out layers added, pruned to those that can be the peak."""
    import numpy

    labels = [name for name, _ in traces[0].events]
    if any([name for name, _ in trace.events] != labels for trace in traces):
        raise Unfit("the operations of an update depend on its sizes")
    names = monomials(many=any(shape.rows > 1 for shape, _ in shapes), ranked=shapes[-1][1] != shapes[0][1])
    matrix = numpy.array([[names[name](shape, rank or 0) for name in names] for shape, rank in shapes], dtype=float)
    values = numpy.array([[live for _, live in trace.events] for trace in traces], dtype=float)
    solved, *_ = numpy.linalg.lstsq(matrix, values.reshape(len(traces), -1), rcond=None)
    events = solved.reshape(len(names), len(labels), len(CATEGORIES)).transpose(1, 2, 0)
    own = numpy.array([trace.layers for trace in traces], dtype=float).reshape(len(traces), -1)
    kept, *_ = numpy.linalg.lstsq(matrix, own, rcond=None)
    layers = kept.reshape(len(names), layout.depth, len(CATEGORIES)).transpose(1, 2, 0)
    placed = [(_words(label, layout), matrix) for label, matrix in _with_layers(labels, events, layers, layout)]
    return _pruned(placed, list(names), names)


def _with_layers(labels: list[str], events: Any, layers: Any, layout: Layout) -> list[tuple[str, Any]]:
    """Each event with the bytes of the layers that were left out; events of a standing layer come at both ends.

    Kinds of layers take turns, so all that are left out are passed together: before the first, or after the last.
    """
    import numpy

    if layout.whole:
        return list(zip(labels, events))
    first: dict[str, int] = {}
    for number, label in enumerate(labels):
        first.setdefault(label, number)

    def step(micro: str, direction: str, one: int, other: int) -> Any:
        a, b = first.get(f"{micro}.{direction} {one}|"), first.get(f"{micro}.{direction} {other}|")
        return None if a is None or b is None else events[b] - events[a]

    def left_out(micro: str) -> dict[str, Any]:
        """Bytes of all left-out layers by how far they are."""
        found = {state: numpy.zeros_like(events[0]) for state in ("before", "up", "held", "back")}
        for place in layout.standing():
            base = layers[place].copy()
            if micro == "0":  # the gradients of this update are not there yet
                base[GRADIENTS] = 0
            up, down = step(micro, "forward", place, place + 1), step(micro, "backward", place, place - 1)
            up = 0 * base if up is None else up
            # what of it lives on in the backward pass (none where no gradient passes): not autocast's 16-bit copies
            kept = numpy.array([[name != "gradients"] for name in CATEGORIES])
            held = 0 * base if down is None else -down * kept
            passed = {"before": 0 * base, "up": up, "held": held, "back": 0 * base if down is None else held + down}
            for state, more in passed.items():
                found[state] += layout.stands_for[place] * (base + more)
        return found

    extra = {micro: left_out(micro) for micro in {label.partition(".")[0] for label in labels}}
    placed = []
    for number, label in enumerate(labels):
        micro, _, place = label.rstrip("|").partition(".")
        states = _passed(place, layout) if place else []
        placed += [(label, events[number] + extra[micro][state]) for state in states] or [(label, events[number])]
    return placed


def _passed(place: str, layout: Layout) -> list[str]:
    """How far the left-out layers are at a place: before, up (forward done), held (autocast left too), back."""
    if place in ("loss", "loss value", "backward loss"):
        return ["up" if place == "loss" else "held"]
    found = re.fullmatch(r"(forward|backward) (\d+)", place)
    if not found:
        return ["before"]
    standing, number = layout.standing(), int(found[2])
    before, after = ("before", "up") if found[1] == "forward" else ("back", "held")
    return [before] * (number <= standing[-1]) + [after] * (number >= standing[0])


def _words(label: str, layout: Layout) -> str:
    """A place as people read it: layers counted from 1, of the whole model."""
    micro, _, place = label.rstrip("|").partition(".")
    direction, _, number = place.partition(" ")
    if direction in ("forward", "backward") and number.isdigit():
        some = layout.stands_for[int(number)] > 0
        place = f"{direction} of " + ("a middle layer" if some else f"layer {layout.picks[int(number)] + 1}")
    words = {"update": "optimizer step", "loss value": "loss", "backward loss": "backward of the loss"}
    return f"{micro}.{words.get(place, place)}"


def _pruned(placed: list[tuple[str, Any]], order: list[str], names: dict[str, Callable[[Shape, int], float]]) -> Block:
    import numpy

    grid = [
        [names[name](Shape(rows=b, length=s, labels=max(1, int(b * s * share)), padded=False), r) for name in order]
        for b, s, share, r in itertools.product(*SIZES)
        if "B" in order or b == 1
    ]
    totals = numpy.array([row.sum(axis=0) for _, row in placed]) @ numpy.array(grid, dtype=float).T
    first = [not label.startswith("1.") for label, _ in placed]  # none of a later micro-batch
    alone = sorted(set(numpy.where(numpy.array(first)[:, None], totals, -1).argmax(axis=0).tolist()))
    among = sorted(set(totals.argmax(axis=0).tolist()))
    rows = [Row(place=placed[n][0], bytes=_rounded(placed[n][1])) for n in sorted({*alone, *among})]
    middle = numpy.array(grid, dtype=float).mean(axis=0)
    return Block(monomials=order, rows=rows, line=_line(placed, totals, middle))


def _line(placed: list[tuple[str, Any]], totals: Any, middle: Any) -> list[Row]:
    """Two moments of each stretch of the step, where it begins and its largest, for a picture of the memory in time."""
    found = []
    for _, group in itertools.groupby(enumerate(placed), key=lambda one: one[1][0]):
        members = [number for number, _ in group]
        best = max(members, key=lambda number: float(placed[number][1].sum(axis=0) @ middle))
        found += sorted({members[0], best})
    return [Row(place=placed[n][0], bytes=[_rounded(placed[n][1].sum(axis=0, keepdims=True))[0]]) for n in found]


def _rounded(matrix: Any) -> list[list[float]]:
    return [[round(float(value), 3) + 0.0 for value in line] for line in matrix]


def check(block: Block, shape: Shape, rank: int | None, traced: int) -> None:
    """The polynomials against a trace they were not made from. Raises Unfit."""
    found = sum(block.peak(shape, rank, accumulate=True)[0].values())
    if abs(found - traced) > TOLERANCE * traced:
        raise Unfit(f"the table is {100 * (found / traced - 1):+.2f} % off a trace it was not made from")
