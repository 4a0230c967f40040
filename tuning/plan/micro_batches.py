"""Which rows go into which update and which micro-batch, and the sizes that decide what memory those take.

An update batch is the rows of one update. It depends on the seed, the epoch, the number of rows and the effective batch
alone; micro-batches only cut it, so that equal settings give equal curves. Of the micro-batches of a whole run this
module finds the few, as `PeakCandidate`s, of which one has the memory peak.

The loop trains on these batches, and the memory estimate counts them before the run, so there is no torch here: the
order is torch's own `randperm`, computed with numpy.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Counts = Sequence[int] | np.ndarray
"""A whole number for each row."""
_EPOCH_STRIDE = 1_000_003
"""A prime, so that (seed, epoch) pairs a person would try never share a generator seed."""
_SEED_BITS = 0xFFFFFFFF
"""The lower 32 bits of a seed, which are what torch's generator takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchShape:
    """One micro-batch: rows, tokens of the longest, label tokens in all, and whether some row is shorter.

    Joined rows are one, as long as all of them; `padded` then says that there are several, which need a mask.
    """

    rows: int
    length: int
    label_tokens: int
    padded: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PeakCandidate:
    """A micro-batch that can hold the peak of a run, and what lives beside it."""

    shape: BatchShape
    accumulate: bool
    """Whether gradients of an earlier micro-batch are alive."""
    first: bool = False
    """Whether it is of the run's first update, when the optimizer keeps nothing yet."""


def epoch_order(row_count: int, seed: int, epoch: int) -> list[int]:
    """The order of the rows in this epoch, from a generator of its own: what `torch.randperm` gives for this seed.

    torch's generator on a processor is the Mersenne Twister, of which numpy has the same; `randperm` swaps each place
    with a later one, taken by the remainder of a draw.
    """
    # a legacy seed is the one that torch's generator knows; numpy's newer ways of seeding give another state
    twister: Any = np.random.RandomState((seed + epoch * _EPOCH_STRIDE) & _SEED_BITS)
    draws = twister._bit_generator.random_raw(max(0, row_count - 1))
    remaining = np.arange(row_count, 1, -1, dtype=np.uint64)
    partners = (draws % remaining + np.arange(len(remaining), dtype=np.uint64)).tolist()
    order = list(range(row_count))
    for i, partner in enumerate(partners):
        order[i], order[partner] = order[partner], order[i]
    return order


def epoch_update_batches(row_count: int, seed: int, epoch: int, effective_batch: int) -> list[list[int]]:
    """The indices of the rows of each update of this epoch; the last update has the rows that are left."""
    order = epoch_order(row_count, seed, epoch)
    return [order[start : start + effective_batch] for start in range(0, row_count, effective_batch)]


def cut(update_batch: Sequence[int], lengths: Counts, micro_batch_size: int, *, by_length: bool) -> list[list[int]]:
    """Cut an update batch into micro-batches. Sorting by length stays within it, and so changes no update."""
    ordered = sorted(update_batch, key=lambda index: -lengths[index]) if by_length else list(update_batch)
    return [ordered[start : start + micro_batch_size] for start in range(0, len(ordered), micro_batch_size)]


def shape_of(lengths: Sequence[int], label_tokens: Sequence[int], *, packing: bool = False) -> BatchShape:
    """The shape of a micro-batch of rows with these lengths and label tokens."""
    if packing:
        return BatchShape(rows=1, length=sum(lengths), label_tokens=sum(label_tokens), padded=len(lengths) > 1)
    return BatchShape(
        rows=len(lengths), length=max(lengths), label_tokens=sum(label_tokens), padded=min(lengths) != max(lengths)
    )


def candidates_of_update(
    micro_batches: Sequence[Sequence[int]], lengths: Counts, label_tokens: Counts, *, packing: bool, first: bool
) -> list[PeakCandidate]:
    """The micro-batches of one update, in their order; `first` where it is the run's first."""
    candidates = []
    for i, rows in enumerate(micro_batches):
        shape = shape_of([int(lengths[row]) for row in rows], [int(label_tokens[row]) for row in rows], packing=packing)
        candidates.append(PeakCandidate(shape=shape, accumulate=i > 0, first=first))
    return candidates


def update_batches_of_run(row_count: int, seed: int, effective_batch: int, total_steps: int) -> list[Any]:
    """The update batches of a run, as arrays (updates, rows of each), one for each size of an update batch.

    The arrays are in the order in which their sizes first come, so that the first row of the first array is the run's
    first update.
    """
    sizes: dict[int, list[Any]] = {}
    for epoch in itertools.count():
        order = np.array(epoch_order(row_count, seed, epoch), dtype=np.int32)
        whole = row_count // effective_batch * effective_batch
        for part, width in ((order[:whole], effective_batch), (order[whole:], row_count - whole)):
            chosen = part[: total_steps * width]
            if len(chosen):
                sizes.setdefault(width, []).append(chosen.reshape(-1, width))
                total_steps -= len(chosen) // width
        if not total_steps:
            return [np.concatenate(each) for each in sizes.values()]
    raise AssertionError("epochs never end")


def sorted_sizes(
    update_batches: Sequence[Any], lengths: Any, label_tokens: Any, *, by_length: bool
) -> list[tuple[Any, Any]]:
    """Lengths and label tokens of the rows of these update batches, in the order in which they are cut.

    Both are arrays (updates, rows of each), as the update batches are.
    """
    sizes = []
    for array in update_batches:
        lengths_here, label_tokens_here = lengths[array], label_tokens[array]
        if by_length:
            order = np.argsort(-lengths_here, axis=1, kind="stable")
            lengths_here = np.take_along_axis(lengths_here, order, 1)
            label_tokens_here = np.take_along_axis(label_tokens_here, order, 1)
        sizes.append((lengths_here, label_tokens_here))
    return sizes


def highest_candidates(
    sizes: Sequence[tuple[Any, Any]], micro_batch_size: int, *, packing: bool, first: bool
) -> list[PeakCandidate]:
    """The micro-batches of these updates of which one has the peak: those that no other exceeds in every size.

    `sizes` are those of `sorted_sizes`; `first` says that the first of them is the run's first.
    """
    peaks = np.empty((0, _COLUMNS), dtype=np.int64)
    for i, (lengths, label_tokens) in enumerate(sizes):
        starts = np.arange(0, lengths.shape[1], micro_batch_size)
        counts = np.diff(starts, append=lengths.shape[1])
        columns = np.ones((len(lengths), len(starts), _COLUMNS), dtype=np.int64)
        columns[:, 0, _ACCUMULATE] = 0
        columns[:, :, _LABEL_TOKENS] = np.add.reduceat(label_tokens, starts, axis=1)
        if packing:
            columns[:, :, _LENGTH] = np.add.reduceat(lengths, starts, axis=1)
            columns[:, :, _PADDED] = counts > 1
        else:
            columns[:, :, _ROWS] = counts
            columns[:, :, _LENGTH] = np.maximum.reduceat(lengths, starts, axis=1)
            columns[:, :, _PADDED] = np.minimum.reduceat(lengths, starts, axis=1) != columns[:, :, _LENGTH]
        if first and i == 0:
            columns[0, :, _NOT_FIRST] = 0
        peaks = _maximal(np.concatenate([peaks, columns.reshape(-1, _COLUMNS)]))
    return [_candidate(values) for values in peaks.tolist()]


def highest_of(candidates: Sequence[PeakCandidate]) -> list[PeakCandidate]:
    """The candidates that no other is at least as large as in every size; of equal ones one."""
    columns = np.array([_columns(candidate) for candidate in candidates], dtype=np.int64)
    return [_candidate(values) for values in _maximal(columns).tolist()]


def at_or_below(candidate: PeakCandidate, other: PeakCandidate) -> bool:
    """Whether the other is at least as large in every size, and so takes no less."""
    return all(here <= there for here, there in zip(_columns(candidate), _columns(other), strict=True))


_ACCUMULATE, _NOT_FIRST, _ROWS, _LENGTH, _LABEL_TOKENS, _PADDED = range(6)
_COLUMNS = 6
"""What decides the memory of a micro-batch, each such that more of it takes no less."""


def _columns(candidate: PeakCandidate) -> tuple[int, ...]:
    shape = candidate.shape
    return (
        int(candidate.accumulate),
        int(not candidate.first),
        shape.rows,
        shape.length,
        shape.label_tokens,
        int(shape.padded),
    )


def _candidate(columns: Sequence[int]) -> PeakCandidate:
    accumulate, not_first, rows, length, label_tokens, padded = columns
    shape = BatchShape(rows=rows, length=length, label_tokens=label_tokens, padded=bool(padded))
    return PeakCandidate(shape=shape, accumulate=bool(accumulate), first=not not_first)


def _maximal(columns: Any) -> Any:
    """The rows of a table that no other row is at least as large as in all columns; of equal ones one."""
    kinds = [_ACCUMULATE, _NOT_FIRST, _ROWS, _PADDED]
    order = np.lexsort((-columns[:, _LABEL_TOKENS], -columns[:, _LENGTH], *(columns[:, kind] for kind in kinds)))
    columns = columns[order]
    begins = np.flatnonzero(np.any(np.diff(columns[:, kinds], axis=0, prepend=-1), axis=1))
    maximal = []
    for begin, end in itertools.pairwise([*begins.tolist(), len(columns)]):
        # within one kind, the longest first: a line counts only with more label tokens than all before it
        most = np.maximum.accumulate(columns[begin:end, _LABEL_TOKENS])
        maximal.append(begin + np.flatnonzero(np.diff(most, prepend=-1)))
    columns = columns[np.concatenate(maximal)]
    above = (columns[:, None, :] <= columns[None, :, :]).all(axis=2)
    return columns[above.sum(axis=1) == 1]  # itself alone is at or above it
