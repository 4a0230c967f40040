"""Which rows go into which update and which micro-batch, and the sizes that decide what memory those take.

The rows of an update depend on the seed, the epoch, the number of rows and the effective batch alone; micro-batches
only cut them, so that equal settings give equal curves. The loop trains on these windows (the rows of one update), and
the memory estimate looks before the run for the `Moment` that has the peak; so there is no torch here: the order is
torch's own `randperm`, computed with numpy.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Counts = Sequence[int] | np.ndarray
"""One whole number a row."""
_EPOCH_STRIDE = 1_000_003
"""A prime, so that (seed, epoch) pairs a person would try never share a generator seed."""
_SEED_BITS = 0xFFFFFFFF
"""Of a seed torch's generator takes the lower 32 bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """One micro-batch: rows, tokens of the longest, label tokens in all, and whether some row is shorter.

    Joined rows are one, as long as all of them; `padded` then says that there are several, which need a mask.
    """

    rows: int
    length: int
    labels: int
    padded: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """A micro-batch that can hold the peak of a run, and what lives beside it."""

    shape: Shape
    accumulate: bool
    """Whether gradients of an earlier micro-batch are alive."""
    first: bool = False
    """Whether it is of the run's first update, when the optimizer keeps nothing yet."""


def epoch_order(rows: int, seed: int, epoch: int) -> list[int]:
    """The order of the rows in this epoch, from a generator of its own: what `torch.randperm` gives for this seed.

    torch's generator on a processor is the Mersenne Twister, of which numpy has the same; `randperm` swaps each place
    with a later one, taken by the remainder of a draw.
    """
    # a legacy seed is the one that torch's generator knows; numpy's newer ways of seeding give another state
    twister: Any = np.random.RandomState((seed + epoch * _EPOCH_STRIDE) & _SEED_BITS)
    draws = twister._bit_generator.random_raw(max(0, rows - 1))
    left = np.arange(rows, 1, -1, dtype=np.uint64)
    partners = (draws % left + np.arange(len(left), dtype=np.uint64)).tolist()
    order = list(range(rows))
    for place, partner in enumerate(partners):
        order[place], order[partner] = order[partner], order[place]
    return order


def epoch_windows(rows: int, seed: int, epoch: int, effective_batch: int) -> list[list[int]]:
    """The rows of each update of this epoch; the last window holds what is left."""
    order = epoch_order(rows, seed, epoch)
    return [order[start : start + effective_batch] for start in range(0, rows, effective_batch)]


def cut(window: Sequence[int], lengths: Counts, micro_batch_size: int, *, by_length: bool) -> list[list[int]]:
    """Cut a window into micro-batches; sorting by length stays inside the window and so changes no update."""
    placed = sorted(window, key=lambda index: -lengths[index]) if by_length else list(window)
    return [placed[start : start + micro_batch_size] for start in range(0, len(placed), micro_batch_size)]


def shape_of(lengths: Sequence[int], labels: Sequence[int], *, packing: bool = False) -> Shape:
    """The shape of a micro-batch of rows with these lengths and label tokens."""
    if packing:
        return Shape(rows=1, length=sum(lengths), labels=sum(labels), padded=len(lengths) > 1)
    return Shape(rows=len(lengths), length=max(lengths), labels=sum(labels), padded=min(lengths) != max(lengths))


def moments_of_update(
    pieces: Sequence[Sequence[int]], lengths: Counts, labels: Counts, *, packing: bool, first: bool
) -> list[Moment]:
    """The micro-batches of one update, in their order; `first` where it is the run's first."""
    found = []
    for place, piece in enumerate(pieces):
        shape = shape_of([int(lengths[i]) for i in piece], [int(labels[i]) for i in piece], packing=packing)
        found.append(Moment(shape=shape, accumulate=place > 0, first=first))
    return found


def windows_of_run(rows: int, seed: int, effective_batch: int, total_steps: int) -> list[Any]:
    """The rows of all updates of a run, as arrays (updates, rows of each): those of one size together, in the order in
    which the sizes first come, so that the first line of the first array is the run's first update."""
    sizes: dict[int, list[Any]] = {}
    for epoch in itertools.count():
        order = np.array(epoch_order(rows, seed, epoch), dtype=np.int32)
        whole = rows // effective_batch * effective_batch
        for part, width in ((order[:whole], effective_batch), (order[whole:], rows - whole)):
            chosen = part[: total_steps * width]
            if len(chosen):
                sizes.setdefault(width, []).append(chosen.reshape(-1, width))
                total_steps -= len(chosen) // width
        if not total_steps:
            return [np.concatenate(each) for each in sizes.values()]
    raise AssertionError("epochs never end")


def sorted_sizes(windows: Sequence[Any], lengths: Any, labels: Any, *, by_length: bool) -> list[tuple[Any, Any]]:
    """Lengths and label tokens of the rows of these windows, in the order in which they are cut into micro-batches."""
    found = []
    for window in windows:
        long, learned = lengths[window], labels[window]
        if by_length:
            placed = np.argsort(-long, axis=1, kind="stable")
            long, learned = np.take_along_axis(long, placed, 1), np.take_along_axis(learned, placed, 1)
        found.append((long, learned))
    return found


def highest_moments(
    sizes: Sequence[tuple[Any, Any]], micro_batch_size: int, *, packing: bool, first: bool
) -> list[Moment]:
    """Of these updates the micro-batches of which one holds the peak: all that no other is at or above in every size.

    `sizes` are those of `sorted_sizes`; `first` says that the first of them is the run's first.
    """
    found = np.empty((0, _COLUMNS), dtype=np.int64)
    for number, (long, learned) in enumerate(sizes):
        starts = np.arange(0, long.shape[1], micro_batch_size)
        counts = np.diff(starts, append=long.shape[1])
        each = np.ones((len(long), len(starts), _COLUMNS), dtype=np.int64)
        each[:, 0, _ACCUMULATE] = 0
        each[:, :, _LABELS] = np.add.reduceat(learned, starts, axis=1)
        if packing:
            each[:, :, _LENGTH] = np.add.reduceat(long, starts, axis=1)
            each[:, :, _PADDED] = counts > 1
        else:
            each[:, :, _ROWS] = counts
            each[:, :, _LENGTH] = np.maximum.reduceat(long, starts, axis=1)
            each[:, :, _PADDED] = np.minimum.reduceat(long, starts, axis=1) != each[:, :, _LENGTH]
        if first and number == 0:
            each[0, :, _NOT_FIRST] = 0
        found = _maximal(np.concatenate([found, each.reshape(-1, _COLUMNS)]))
    return [_moment(one) for one in found.tolist()]


def highest_of(moments: Sequence[Moment]) -> list[Moment]:
    """Those of these moments that no other is at or above in every size; of equal ones one."""
    return [_moment(one) for one in _maximal(np.array([_columns(one) for one in moments], dtype=np.int64)).tolist()]


def at_or_below(one: Moment, other: Moment) -> bool:
    """Whether the other is at least as large in every size, and so takes no less."""
    return all(here <= there for here, there in zip(_columns(one), _columns(other), strict=True))


_ACCUMULATE, _NOT_FIRST, _ROWS, _LENGTH, _LABELS, _PADDED = range(6)
_COLUMNS = 6
"""What decides the memory of a micro-batch, each such that more of it takes no less."""


def _columns(one: Moment) -> tuple[int, ...]:
    shape = one.shape
    return int(one.accumulate), int(not one.first), shape.rows, shape.length, shape.labels, int(shape.padded)


def _moment(columns: Sequence[int]) -> Moment:
    accumulate, not_first, rows, length, labels, padded = columns
    shape = Shape(rows=rows, length=length, labels=labels, padded=bool(padded))
    return Moment(shape=shape, accumulate=bool(accumulate), first=not not_first)


def _maximal(columns: Any) -> Any:
    """Of lines of columns those that no other is at or above in all of them; of equal ones one."""
    kinds = [_ACCUMULATE, _NOT_FIRST, _ROWS, _PADDED]
    order = np.lexsort((-columns[:, _LABELS], -columns[:, _LENGTH], *(columns[:, kind] for kind in kinds)))
    columns = columns[order]
    begins = np.flatnonzero(np.any(np.diff(columns[:, kinds], axis=0, prepend=-1), axis=1))
    kept = []
    for begin, end in itertools.pairwise([*begins.tolist(), len(columns)]):
        # within one kind, the longest first: a line counts only with more labels than all before it
        most = np.maximum.accumulate(columns[begin:end, _LABELS])
        kept.append(begin + np.flatnonzero(np.diff(most, prepend=-1)))
    columns = columns[np.concatenate(kept)]
    above = (columns[:, None, :] <= columns[None, :, :]).all(axis=2)
    return columns[above.sum(axis=1) == 1]  # itself alone is at or above it
