"""The fit of a memory table to traces of small shapes: for each point that can be the peak, a polynomial in the sizes.

The peak itself is no polynomial (it moves between the loss, the layers' backward passes and the update), but the live
bytes at any one event are: sums of tensors whose sizes are products of rows, tokens, rank. So every event is fitted,
and those that can never be the largest are dropped. Of the layers, those in the middle stand for all of their kind that
the trace leaves out.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy

from tuning.memory.tracing.layers import Layout, UntraceableError
from tuning.memory.tracing.table import MONOMIALS, Block, Monomial, Point, monomials
from tuning.memory.tracing.trace import Array, Trace, summed
from tuning.memory.workload import CATEGORIES
from tuning.plan.micro_batches import BatchShape, PeakCandidate

GRADIENTS = CATEGORIES.index("gradients")
GRID = (
    (1, 2, 3, 4, 8, 16, 32, 64, 256),
    (16, 64, 128, 256, 512, 1024, 4096, 16384),
    (0.02, 0.3, 1.0),
    (1, 8, 64, 512),
)
"""Rows, tokens, shares of label tokens and ranks, at one of which an event must be the largest to stay in the table."""
EXACT = 1e-8
"""The share by which a storage's bytes may be off the polynomial that is taken for them: rounding alone."""
TOLERANCE = 0.002
"""The share of the peak by which the polynomials may be off a trace of another shape or depth."""
FEW, SOME = 3, 5
"""Numbers of traces that are enough where a storage's bytes are one product of the sizes or two; or three, as those of
the square of a prompt and a row."""
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
"""Rows, tokens, label tokens and the index of the rank, of the shapes to trace."""
LONGER = 112
"""Tokens of the larger shape against which a fit is checked."""


def shapes_to_trace(
    ranks: Sequence[int | None], *, many: bool, padded: bool, longest: int = LONGER
) -> list[tuple[BatchShape, int | None]]:
    """The shapes to trace for one row or for many: enough for a coefficient of every product of the sizes.

    Together with a larger shape, the first `FEW` tell any two products from any other two, the first `SOME` any three
    from any other three: what meets them all is no chance. Where a model has no positions for a row of `LONGER`, but
    for one of `longest`, all are shorter in that proportion.
    """
    shapes = []
    for rows, length, label_tokens, which in SIZES:
        if longest < LONGER:
            length = max(3, length * longest // LONGER)
            label_tokens = max(1, min(length - 1, label_tokens * longest // LONGER))
        shape = BatchShape(rows=rows if many else 1, length=length, label_tokens=label_tokens, padded=padded)
        shapes.append((shape, ranks[-which]))
    return shapes


def shape_to_check(
    ranks: Sequence[int | None], length: int, *, many: bool, padded: bool
) -> tuple[BatchShape, int | None]:
    """The larger shape against which a fit is checked, and its rank."""
    return BatchShape(rows=4 if many else 1, length=length, label_tokens=min(200, length - 1), padded=padded), ranks[-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """Polynomials of the traced model: of its events in order, and of what each layer has between updates."""

    labels: list[str]
    names: dict[str, Monomial]
    events: Array
    """Coefficients in bytes: events x categories x monomials."""
    layers: Array
    """Coefficients in bytes: layers x categories x monomials."""


def fit_traces(traces: Sequence[Trace], shapes: Sequence[tuple[BatchShape, int | None]], depth: int) -> Fit | None:
    """The polynomials of every event; None where the traces are too few to determine them. Raises UntraceableError."""
    first = traces[0]
    if any(trace.labels != first.labels or not numpy.array_equal(trace.spans, first.spans) for trace in traces):
        raise UntraceableError("the operations of an update depend on its sizes")
    many, ranked = any(shape.rows > 1 for shape, _ in shapes), len({rank for _, rank in shapes}) > 1
    names = monomials(many=many, ranked=ranked)
    matrix = numpy.array([_values(names, shape, rank) for shape, rank in shapes])
    own = numpy.array([trace.layers for trace in traces], dtype=float).reshape(len(traces), -1)
    columns = _coefficients(matrix, numpy.array([trace.bytes for trace in traces], dtype=float))
    layers = _coefficients(matrix, own)
    if columns is None or layers is None:
        return None
    events = summed(first.spans, columns, len(first.labels))
    return Fit(labels=first.labels, names=names, events=events, layers=layers.reshape(depth, len(CATEGORIES), -1))


def _coefficients(matrix: Array, values: Array) -> Array | None:
    """The coefficients of the monomials for each column of `values`; `matrix` has the monomials' values.

    Both have a row for each trace. The answer is columns x monomials.

    Of each column they are the fewest that meet all traces: up to three monomials and fewer than traces; then any
    number, for which the traces must be as many as the monomials. None where they are not.
    """
    unlike, which = numpy.unique(values, axis=1, return_inverse=True)
    coefficients = numpy.zeros((unlike.shape[1], matrix.shape[1]))
    left = numpy.flatnonzero(abs(unlike).max(axis=0))
    for count in range(1, min(len(matrix), 4)):
        for chosen in itertools.combinations(range(matrix.shape[1]), count):
            part = matrix[:, chosen]
            solved = numpy.linalg.pinv(part) @ unlike[:, left]
            gaps = abs(part @ solved - unlike[:, left]).max(axis=0)
            met = gaps <= EXACT * abs(unlike[:, left]).max(axis=0)
            coefficients[numpy.ix_(left[met], chosen)] = solved[:, met].T
            left = left[~met]
    if len(left):
        if numpy.linalg.matrix_rank(matrix) < matrix.shape[1]:
            return None
        coefficients[left] = numpy.linalg.lstsq(matrix, unlike[:, left], rcond=None)[0].T
    return coefficients[which.reshape(-1)]


def _values(names: dict[str, Monomial], shape: BatchShape, rank: int | None) -> list[float]:
    """The monomials' values at a shape and rank."""
    return [float(names[name](shape, rank or 0)) for name in names]


def block_of(fit: Fit, layout: Layout) -> Block:
    """The table's block of a fit, with the layers that were left out and only the events that can be the peak."""
    places, matrices = _with_layers(fit, layout)
    return _pruned([_words(place, layout) for place in places], matrices, fit.names)


def is_exact(fit: Fit, shape: BatchShape, rank: int | None, trace: Trace) -> bool:
    """Whether every event and category is met to the byte at a larger shape. Raises UntraceableError."""
    if trace.labels != fit.labels:
        raise UntraceableError("the operations of an update depend on its sizes")
    gaps = fit.events @ numpy.array(_values(fit.names, shape, rank)) - trace.live
    return bool(abs(gaps).max() < 0.5 + 1e-9 * trace.peak)


def check_events(fit: Fit, shape: BatchShape, rank: int | None, trace: Trace) -> None:
    """Check every event's sum against a trace of another shape. Raises UntraceableError."""
    gaps = fit.events.sum(axis=1) @ numpy.array(_values(fit.names, shape, rank)) - trace.live.sum(axis=1)
    _check_gap(float(gaps[abs(gaps).argmax()]), trace.peak)


def check_layers(fit: Fit, layout: Layout, shape: BatchShape, rank: int | None, trace: Trace) -> None:
    """Check the peak, left-out layers included, against a trace that has them all. Raises UntraceableError."""
    peak = sum(block_of(fit, layout).peak(PeakCandidate(shape=shape, accumulate=True), rank)[0].values())
    _check_gap(peak - trace.peak, trace.peak)


def _check_gap(gap: float, peak: int) -> None:
    if abs(gap) > TOLERANCE * peak:
        raise UntraceableError(f"the table is {100 * gap / peak:+.2f} % off a trace it was not made from")


def _with_layers(fit: Fit, layout: Layout) -> tuple[list[str], Array]:
    """Labels and coefficients of the events, with the layers that were left out.

    Events of a layer that stands for others come twice: before the first of those, and after the last.

    Kinds of layers take turns, so all that are left out are passed together: before the first, or after the last.
    """
    labels, events, layers = fit.labels, fit.events, fit.layers
    if layout.whole:
        return labels, events
    first: dict[str, int] = {}
    for i, label in enumerate(labels):
        first.setdefault(label, i)

    def step(micro: str, direction: str, layer: int, next_layer: int) -> Array | None:
        """The difference between the first events of two layers; None where one has none."""
        begin = first.get(f"{micro}.{direction} {layer}|")
        end = first.get(f"{micro}.{direction} {next_layer}|")
        return None if begin is None or end is None else events[end] - events[begin]

    def left_out(micro: str) -> dict[str, Array]:
        """Coefficients of all left-out layers by their state (`_states_of`)."""
        total = {state: numpy.zeros_like(events[0]) for state in ("before", "up", "held", "back")}
        for i in layout.representatives():
            base = layers[i].copy()
            if micro == "0":  # the gradients of this update are not there yet
                base[GRADIENTS] = 0
            up, down = step(micro, "forward", i, i + 1), step(micro, "backward", i, i - 1)
            up = 0 * base if up is None else up
            # what of it lives on in the backward pass (none where no gradient passes): not autocast's 16-bit copies
            lasting = numpy.array([[name != "gradients"] for name in CATEGORIES])
            held = 0 * base if down is None else -down * lasting
            passed = {"before": 0 * base, "up": up, "held": held, "back": 0 * base if down is None else held + down}
            for state, difference in passed.items():
                total[state] += layout.stands_for[i] * (base + difference)
        return total

    extra = {micro: left_out(micro) for micro in {label.partition(".")[0] for label in labels}}
    added: dict[str, list[Array]] = {}
    for label in set(labels):
        micro, _, place = label.rstrip("|").partition(".")
        states = _states_of(place, layout) if place else []
        added[label] = [extra[micro][state] for state in states] or [numpy.zeros_like(events[0])]
    indices = [i for i, label in enumerate(labels) for _ in added[label]]
    of_layers = numpy.array([coefficients for label in labels for coefficients in added[label]])
    return [labels[i] for i in indices], events[indices] + of_layers


def _states_of(place: str, layout: Layout) -> list[str]:
    """The states of the left-out layers at a place.

    They are `before` their forward pass, `up` after it, `held` when autocast has ended too, `back` after the backward
    pass.
    """
    if place in ("loss", "loss value", "backward loss"):
        return ["up" if place == "loss" else "held"]
    match = re.fullmatch(r"(forward|backward) (\d+)", place)
    if not match:
        return ["before"]
    representatives, layer = layout.representatives(), int(match[2])
    before, after = ("before", "up") if match[1] == "forward" else ("back", "held")
    return [before] * (layer <= representatives[-1]) + [after] * (layer >= representatives[0])


@lru_cache(maxsize=4096)
def _words(label: str, layout: Layout) -> str:
    """A place in words, with layers counted from 1 in the whole model."""
    micro, _, place = label.rstrip("|").partition(".")
    direction, _, layer = place.partition(" ")
    if direction in ("forward", "backward") and layer.isdigit():
        is_middle = layout.stands_for[int(layer)] > 0
        place = f"{direction} of " + ("a middle layer" if is_middle else f"layer {layout.picks[int(layer)] + 1}")
    words = {"update": "optimizer step", "loss value": "loss", "backward loss": "backward of the loss"}
    return f"{micro}.{words.get(place, place)}"


@lru_cache(maxsize=4)
def _grid(order: tuple[str, ...]) -> Array:
    """The monomials' values at the sizes of `GRID`: sizes x monomials."""
    sizes = (
        (BatchShape(rows=b, length=s, label_tokens=max(1, int(b * s * share)), padded=False), r)
        for b, s, share, r in itertools.product(*GRID)
        if "B" in order or b == 1
    )
    return numpy.array([[MONOMIALS[name](shape, r) for name in order] for shape, r in sizes], dtype=float)


def _pruned(places: list[str], matrices: Array, names: dict[str, Monomial]) -> Block:
    """The block of the events that are the largest at some size of `GRID`."""
    grid, sums = _grid(tuple(names)), matrices.sum(axis=1)
    # the events of a first micro-batch and of the update: where there is no later one, the peak is among them
    first = numpy.array([i for i, place in enumerate(places) if not place.startswith("1.")])
    chosen = {*first[_largest(sums[first], grid)].tolist(), *_largest(sums, grid).tolist()}
    points = [Point(place=places[i], bytes=_rounded(matrices[i])) for i in sorted(chosen)]
    return Block(monomials=list(names), points=points, line=_line(places, sums, sums @ grid.mean(axis=0)))


def _largest(sums: Array, grid: Array) -> Array:
    """The indices of the events that are the largest at some size; in pieces, which stay in the processor's cache."""
    pieces = [(grid[start : start + 16] @ sums.T).argmax(axis=1) for start in range(0, len(grid), 16)]
    return numpy.unique(numpy.concatenate(pieces))


def _line(places: list[str], sums: Array, middle: Array) -> list[Point]:
    """Two events of each stretch of the step, its first and its largest, for a picture of the memory in time."""
    chosen = []
    for _, group in itertools.groupby(range(len(places)), key=places.__getitem__):
        members = list(group)
        chosen += sorted({members[0], max(members, key=middle.__getitem__)})
    return [Point(place=places[i], bytes=_rounded(sums[i : i + 1])) for i in chosen]


def _rounded(matrix: Array) -> list[list[float]]:
    return [[round(value, 3) + 0.0 for value in line] for line in matrix.tolist()]
