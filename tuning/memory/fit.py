"""From traces of small shapes to a table: for each moment that can be the peak, bytes as a polynomial in the sizes.

Comes in: traces of one update, all with the same sequence of events.  Goes out: a `Table`.  The peak itself is no
polynomial (it moves between the loss, the layers' backward passes and the update), but the live bytes at any one event
are: sums of tensors whose sizes are products of rows, tokens, rank.  So every event is fitted, and those that can
never be the largest are dropped.  Layers: those in the middle stand for all of their kind that the trace leaves out.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from tuning.memory.layers import Layout, Unfit
from tuning.memory.subject import CATEGORIES
from tuning.memory.table import MONOMIALS, Block, Monomial, Row, monomials
from tuning.memory.trace import Trace, summed
from tuning.micro_batches import Moment, Shape

GRADIENTS = CATEGORIES.index("gradients")
GRID = (
    (1, 2, 3, 4, 8, 16, 32, 64, 256),
    (16, 64, 128, 256, 512, 1024, 4096, 16384),
    (0.02, 0.3, 1.0),
    (1, 8, 64, 512),
)
"""Rows, tokens, share of label tokens, ranks at which an event must be the largest to be kept."""


EXACT = 1e-8
"""How far a storage's bytes may be off what they are taken to be made of: rounding alone."""
TOLERANCE = 0.002
"""How far the polynomials may be off a trace of another shape or depth."""


FEW, SOME = 3, 5
"""Traces that tell what a storage's bytes are made of, if that is one product of the sizes or two; or three, as the
square of a prompt and a row is."""
SIZES = (
    (3, 64, 16, 0),
    (2, 24, 22, 0),
    (5, 56, 4, 1),
    (2, 96, 16, 0),
    (3, 88, 20, 1),
    (2, 72, 8, 0),
    (3, 16, 14, 1),
    (3, 28, 10, 0),
    (5, 20, 12, 1),
)
"""Rows, tokens, label tokens, and which rank, of the shapes to trace."""
LONGER = 112
"""Tokens of the larger shape that a fit is held against."""


def design(
    ranks: Sequence[int | None], *, many: bool, padded: bool, longest: int = LONGER
) -> list[tuple[Shape, int | None]]:
    """The shapes to trace for one row or for many: enough for a coefficient of every product of the sizes.

    Together with a larger shape, the first `FEW` tell any two products from any other two, the first `SOME` any three
    from any other three: what meets them all is no chance. Where a model has no positions for a row of `LONGER`, but
    for one of `longest`, all are shorter in that proportion.
    """
    found = []
    for rows, length, labels, which in SIZES:
        if longest < LONGER:
            length = max(3, length * longest // LONGER)
            labels = max(1, min(length - 1, labels * longest // LONGER))
        shape = Shape(rows=rows if many else 1, length=length, labels=labels, padded=padded)
        found.append((shape, ranks[-which]))
    return found


def larger(ranks: Sequence[int | None], length: int, *, many: bool, padded: bool) -> tuple[Shape, int | None]:
    """The shape that a fit is held against."""
    return Shape(rows=4 if many else 1, length=length, labels=min(200, length - 1), padded=padded), ranks[-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """Polynomials of the traced layers: events in order, and what each layer keeps between updates."""

    labels: list[str]
    names: dict[str, Monomial]
    events: Any
    """Bytes an event, a category, a monomial; one each."""
    layers: Any
    """The same, a layer instead of an event."""


def fitted(traces: Sequence[Trace], shapes: Sequence[tuple[Shape, int | None]], depth: int) -> Fit | None:
    """The polynomials of every event, or None where these traces are too few to tell. Raises Unfit."""
    import numpy

    first = traces[0]
    if any(one.labels != first.labels or not numpy.array_equal(one.places, first.places) for one in traces):
        raise Unfit("the operations of an update depend on its sizes")
    many, ranked = any(shape.rows > 1 for shape, _ in shapes), len({rank for _, rank in shapes}) > 1
    names = monomials(many=many, ranked=ranked)
    matrix = numpy.array([_values(names, shape, rank) for shape, rank in shapes])
    own = numpy.array([trace.layers for trace in traces], dtype=float).reshape(len(traces), -1)
    parts = [_coefficients(matrix, given) for given in (numpy.array([one.bytes for one in traces], dtype=float), own)]
    if any(one is None for one in parts):
        return None
    columns, layers = parts
    events = summed(first.places, columns, len(first.labels))
    return Fit(labels=first.labels, names=names, events=events, layers=layers.reshape(depth, len(CATEGORIES), -1))


def _coefficients(matrix: Any, values: Any) -> Any:
    """For each column of values (a row for each trace) the coefficients of the monomials, whose values are the matrix.

    The fewest that meet all traces: up to three monomials and fewer than traces; then any number, for which the traces
    must be as many as the monomials; None where they are not.
    """
    import numpy

    unlike, which = numpy.unique(values, axis=1, return_inverse=True)
    found = numpy.zeros((unlike.shape[1], matrix.shape[1]))
    left = numpy.flatnonzero(abs(unlike).max(axis=0))
    for count in range(1, min(len(matrix), 4)):
        for chosen in itertools.combinations(range(matrix.shape[1]), count):
            part = matrix[:, chosen]
            solved = numpy.linalg.pinv(part) @ unlike[:, left]
            gaps = abs(part @ solved - unlike[:, left]).max(axis=0)
            met = gaps <= EXACT * abs(unlike[:, left]).max(axis=0)
            found[numpy.ix_(left[met], chosen)] = solved[:, met].T
            left = left[~met]
    if len(left):
        if numpy.linalg.matrix_rank(matrix) < matrix.shape[1]:
            return None
        found[left] = numpy.linalg.lstsq(matrix, unlike[:, left], rcond=None)[0].T
    return found[which.reshape(-1)]


def _values(names: dict[str, Monomial], shape: Shape, rank: int | None) -> list[float]:
    return [float(names[name](shape, rank or 0)) for name in names]


def block_of(fit: Fit, layout: Layout) -> Block:
    """The left-out layers added, pruned to the events that can be the peak."""
    places, matrices = _with_layers(fit, layout)
    return _pruned([_words(place, layout) for place in places], matrices, fit.names)


def exact(fit: Fit, shape: Shape, rank: int | None, trace: Trace) -> bool:
    """Whether every event and category is met to the byte at a larger shape. Raises Unfit."""
    import numpy

    if trace.labels != fit.labels:
        raise Unfit("the operations of an update depend on its sizes")
    gaps = fit.events @ numpy.array(_values(fit.names, shape, rank)) - trace.live
    return bool(abs(gaps).max() < 0.5 + 1e-9 * trace.peak)


def check_events(fit: Fit, shape: Shape, rank: int | None, trace: Trace) -> None:
    """Every event's sum against a trace of another shape. Raises Unfit."""
    import numpy

    gaps = fit.events.sum(axis=1) @ numpy.array(_values(fit.names, shape, rank)) - trace.live.sum(axis=1)
    _near(float(gaps[abs(gaps).argmax()]), trace.peak)


def check_layers(fit: Fit, layout: Layout, shape: Shape, rank: int | None, trace: Trace) -> None:
    """The peak with left-out layers against a trace of another shape that has them all. Raises Unfit."""
    found = sum(block_of(fit, layout).peak(Moment(shape=shape, accumulate=True), rank)[0].values())
    _near(found - trace.peak, trace.peak)


def _near(gap: float, peak: int) -> None:
    if abs(gap) > TOLERANCE * peak:
        raise Unfit(f"the table is {100 * gap / peak:+.2f} % off a trace it was not made from")


def _with_layers(fit: Fit, layout: Layout) -> tuple[list[str], Any]:
    """Each event with the bytes of the layers that were left out; events of a standing layer come at both ends.

    Kinds of layers take turns, so all that are left out are passed together: before the first, or after the last.
    """
    import numpy

    labels, events, layers = fit.labels, fit.events, fit.layers
    if layout.whole:
        return labels, events
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
    added: dict[str, list[Any]] = {}
    for label in set(labels):
        micro, _, place = label.rstrip("|").partition(".")
        states = _passed(place, layout) if place else []
        added[label] = [extra[micro][state] for state in states] or [numpy.zeros_like(events[0])]
    numbers = [number for number, label in enumerate(labels) for _ in added[label]]
    more = numpy.array([one for label in labels for one in added[label]])
    return [labels[number] for number in numbers], events[numbers] + more


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


@lru_cache(maxsize=4096)
def _words(label: str, layout: Layout) -> str:
    """A place as people read it: layers counted from 1, of the whole model."""
    micro, _, place = label.rstrip("|").partition(".")
    direction, _, number = place.partition(" ")
    if direction in ("forward", "backward") and number.isdigit():
        some = layout.stands_for[int(number)] > 0
        place = f"{direction} of " + ("a middle layer" if some else f"layer {layout.picks[int(number)] + 1}")
    words = {"update": "optimizer step", "loss value": "loss", "backward loss": "backward of the loss"}
    return f"{micro}.{words.get(place, place)}"


@lru_cache(maxsize=4)
def _grid(order: tuple[str, ...]) -> Any:
    """The monomials' values at the sizes where an event must be the largest to be kept."""
    import numpy

    sizes = (
        (Shape(rows=b, length=s, labels=max(1, int(b * s * share)), padded=False), r)
        for b, s, share, r in itertools.product(*GRID)
        if "B" in order or b == 1
    )
    return numpy.array([[MONOMIALS[name](shape, r) for name in order] for shape, r in sizes], dtype=float)


def _pruned(places: list[str], matrices: Any, names: dict[str, Monomial]) -> Block:
    import numpy

    grid, sums = _grid(tuple(names)), matrices.sum(axis=1)
    first = numpy.array([n for n, place in enumerate(places) if not place.startswith("1.")])  # of no later micro-batch
    kept = {*first[_largest(sums[first], grid)].tolist(), *_largest(sums, grid).tolist()}
    rows = [Row(place=places[n], bytes=_rounded(matrices[n])) for n in sorted(kept)]
    return Block(monomials=list(names), rows=rows, line=_line(places, sums, sums @ grid.mean(axis=0)))


def _largest(sums: Any, grid: Any) -> Any:
    """The numbers of the events that are the largest somewhere; in pieces, which stay in the processor's cache."""
    import numpy

    pieces = [(grid[start : start + 16] @ sums.T).argmax(axis=1) for start in range(0, len(grid), 16)]
    return numpy.unique(numpy.concatenate(pieces))


def _line(places: list[str], sums: Any, middle: Any) -> list[Row]:
    """Two moments of each stretch of the step, where it begins and its largest, for a picture of the memory in time."""
    found = []
    for _, group in itertools.groupby(range(len(places)), key=places.__getitem__):
        members = list(group)
        found += sorted({members[0], max(members, key=middle.__getitem__)})
    return [Row(place=places[n], bytes=_rounded(sums[n : n + 1])) for n in found]


def _rounded(matrix: Any) -> list[list[float]]:
    return [[round(value, 3) + 0.0 for value in line] for line in matrix.tolist()]
