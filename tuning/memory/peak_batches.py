"""The micro-batches of a run's updates, and the batches of its evaluations, one of which has the memory peak.

Where every row was counted these are the batches that the run will really have, for the loop's own update batches
follow from data, order and seed (`tuning.plan.micro_batches`). Elsewhere they are the widest that the rows can give,
and `batches_in_words` says so.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from tuning.core.errors import counted
from tuning.data import DataSummary
from tuning.methods import method_named
from tuning.plan.micro_batches import (
    BatchShape,
    PeakCandidate,
    highest_candidates,
    shape_of,
    sorted_sizes,
    update_batches_of_run,
)
from tuning.plan.plan import Plan

MOST_ROWS_READ = 500_000
"""Rows that all updates of a run may read together for its own batches to be counted: about a second's work, once."""
COUNTED_AT_ONCE = 50_000
"""Rows up to which they are counted on the spot (a tenth of a second); more are counted in a thread of its own."""
CACHED_DATA_SETS, CACHED_ANSWERS = 8, 2_000
"""Data sets whose row sizes are cached, and answers of each."""


def peak_batches(plan: Plan, row_count: int | None = None, length: int | None = None) -> Sequence[PeakCandidate]:
    """The micro-batches of this plan's updates, one of which has the memory peak.

    `row_count` stands for another micro-batch size. `length` stands for another number of tokens of the longest row:
    rows are then cut there, or all grow in that proportion. With more rows at once than the effective batch the update
    batches are others, and the answer is the widest that the rows can give.
    """
    row_sizes = row_sizes_of(plan.data)
    count, longest = row_count or plan.settings.micro_batch_size, length or int(plan.value("widest_length"))
    if _why_not_counted(plan) is None and count <= plan.value("effective_batch"):
        batches = row_sizes.of_update_batches(_BatchOrder.of(plan), count, longest, int(plan.value("widest_length")))
        if batches is not None:
            return batches
    return _widest(plan, row_sizes, count, longest)


def batches_in_words(plan: Plan) -> str:
    """The batches that the estimate is for, in words that follow "for"."""
    if not method_named(plan.settings.method.name).updates:
        return "the batches of its evaluation" if plan.data.eval_lengths else "its longest evaluation rows"
    why = _why_not_counted(plan)
    if why is None and row_sizes_of(plan.data).counted(_BatchOrder.of(plan)):
        return f"the widest of the batches that its {counted(plan.value('total_steps'), 'update')} will have"
    return f"the widest batch that its rows can give ({why or 'its own are being counted'})"


def count_update_batches(plan: Plan) -> None:
    """Count the batches of this run's updates now, however many they are."""
    if _why_not_counted(plan) is None:
        row_sizes_of(plan.data).count(_BatchOrder.of(plan))


def update_batches_pending(plan: Plan) -> bool:
    """Whether the batches of this run's updates are being counted: asking again soon gives better figures."""
    return (
        method_named(plan.settings.method.name).updates
        and _why_not_counted(plan) is None
        and not row_sizes_of(plan.data).counted(_BatchOrder.of(plan))
    )


def _why_not_counted(plan: Plan) -> str | None:
    """Why the batches that this run will have are not known before it starts; None where they are."""
    data = plan.data
    if data.sampled or len(data.lengths) != data.train_rows:
        return f"{len(data.lengths):,} of {data.train_rows:,} rows were counted"
    if plan.settings.recipe is not None:
        return "how the recipe writes each row shows in the run"
    if plan.value("total_steps") * min(data.train_rows, plan.value("effective_batch")) > MOST_ROWS_READ:
        return f"its updates read more than {MOST_ROWS_READ:,} rows"
    return None


def _widest(plan: Plan, row_sizes: RowSizes, count: int, longest: int) -> list[PeakCandidate]:
    """The widest micro-batches that the rows can give, whatever the order: of length and of label tokens the most.

    Sorted by length, an update's widest micro-batch is its first, when no gradients are alive yet; the second then has
    the rows that come after the longest. Packed rows are taken to be the longest of all data: what the draw can give.
    """
    count = min(count, plan.data.train_rows)
    several = plan.value("effective_batch") > count and plan.data.train_rows > count
    share = longest / max(1, int(plan.value("widest_length")))
    packed, others = plan.packing, min(count, plan.data.train_rows - count)
    first = row_sizes.joined(0, count, share) if packed else row_sizes.shape(count, longest, share)
    if not several or not plan.settings.data.group_by_length:
        return [PeakCandidate(shape=first, accumulate=several)]
    second = max(2, round(share * row_sizes.lengths[min(count, len(row_sizes.lengths) - 1)]))
    later = row_sizes.joined(count, others, share) if packed else row_sizes.shape(others, min(longest, second), share)
    return [PeakCandidate(shape=first, accumulate=False), PeakCandidate(shape=later, accumulate=True)]


def eval_batches(plan: Plan, row_count: int | None = None, length: int | None = None) -> list[BatchShape]:
    """The shapes of the batches of an evaluation, and of caching a frozen body's features, that can have the peak.

    Both take their rows longest first, so a later batch counts only where it has more label tokens. Rows that a method
    without updates has written are as long as it makes them. Where not every held-out row was counted, they are taken
    to be like the training rows, which are drawn from the same file.
    """
    settings, data, row_sizes, widest = plan.settings, plan.data, row_sizes_of(plan.data), longest_row(plan)
    shapes, longest = list[BatchShape](), length or widest
    if method_named(settings.method.name).caches_features(settings.method):
        count = min(row_count or settings.micro_batch_size, data.train_rows)
        if _why_not_counted(plan) is None:
            batches = row_sizes.widest_batches(count, held_out=False)
            shapes += [_of_length(batch, longest, widest) for batch in batches]
        else:
            shapes.append(row_sizes.shape(count, longest, longest / max(1, widest)))
    if not data.eval_rows:
        return shapes
    count = max(1, min(plan.evaluation_batch_size(row_count), data.eval_rows))
    if "prompted_length" in plan.derived:
        label_tokens = int(plan.value("prompted_labels"))
        return [BatchShape(rows=count, length=longest, label_tokens=max(1, count * label_tokens), padded=count > 1)]
    if not data.eval_lengths:
        return [*shapes, row_sizes.shape(count, longest, longest / max(1, widest))]
    batches = row_sizes.widest_batches(count, held_out=True)
    return shapes + [_of_length(batch, longest, widest) for batch in batches]


def _of_length(shape: BatchShape, longest: int, widest: int) -> BatchShape:
    """The batch where the longest training row has `longest` tokens for `widest`: cut there, or grown like that row."""
    length = min(shape.length, longest) if longest < widest else round(shape.length * longest / widest)
    if length == shape.length:
        return shape
    label_tokens = round(shape.label_tokens * length / shape.length)
    return replace(shape, length=length, label_tokens=max(1, min(label_tokens, shape.rows * (length - 1))))


def longest_row(plan: Plan) -> int:
    """Tokens of the longest row that the run reads: of those that a method without updates writes, else of the data."""
    return int(plan.value("prompted_length" if "prompted_length" in plan.derived else "widest_length"))


def cached_features_bytes(plan: Plan, shape: BatchShape) -> int:
    """Bytes of a frozen body's cached features of all rows, beyond those of one such batch; 0 without a cache."""
    if not method_named(plan.settings.method.name).caches_features(plan.settings.method):
        return 0
    here = shape.rows if plan.class_count else shape.label_tokens
    rows, each = (
        plan.data.train_rows + plan.data.eval_rows,
        1.0 if plan.class_count else row_sizes_of(plan.data).mean_label_tokens,
    )
    return max(0, round(rows * each - here)) * plan.model.shape.hidden_size * 4


@dataclass(frozen=True, slots=True, kw_only=True)
class _BatchOrder:
    """All that the update batches of a run and their cut depend on, besides the rows and how many are taken at once."""

    seed: int
    effective_batch: int
    total_steps: int
    by_length: bool
    packing: bool

    @staticmethod
    def of(plan: Plan) -> _BatchOrder:
        return _BatchOrder(
            seed=plan.settings.seed,
            effective_batch=int(plan.value("effective_batch")),
            total_steps=int(plan.value("total_steps")),
            by_length=plan.settings.data.group_by_length,
            packing=plan.packing,
        )


class RowSizes:
    """Lengths and label tokens of one data set's rows, and the batches that they give.

    Every answer is computed once and cached, for a search over sizes asks for many.
    """

    def __init__(self, data: DataSummary) -> None:
        self._data = data
        label_tokens = data.trained_tokens + data.eval_trained_tokens
        self.lengths = sorted(data.lengths, reverse=True) or [1]
        self.trained = sorted(data.trained_tokens, reverse=True) or [1]
        self._most_label_tokens = [0, *itertools.accumulate(self.trained)]
        """At index n, the label tokens of the n rows that have the most."""
        self.mean_label_tokens = sum(label_tokens) / max(1, len(label_tokens))
        """Label tokens a row, over all rows that were counted."""
        self._update_batches: dict[tuple[int, ...], list[Any]] = {}
        self._sizes: dict[Any, list[tuple[Any, Any]]] = {}
        self._peak_batches: dict[Any, Sequence[PeakCandidate]] = {}
        self._batches: dict[tuple[bool, int], list[BatchShape]] = {}
        self._counting = threading.Lock()
        self._threads: dict[tuple[int, ...], threading.Thread] = {}

    def belongs_to(self, data: DataSummary) -> bool:
        """Whether these are the sizes of `data`, by identity of its lists."""
        mine = self._data
        return mine is data or (mine.lengths is data.lengths and mine.eval_lengths is data.eval_lengths)

    @property
    def padded(self) -> bool:
        """Whether a micro-batch can need padding."""
        return self.lengths[0] != self.lengths[-1]

    # -- the widest batches that rows can give ----------------------------------------------------------------------
    def shape(self, row_count: int, length: int, share: float) -> BatchShape:
        """The shape of so many rows of `length` tokens, with the most label tokens of so many rows, times `share`."""
        label_tokens = round(self._most_label_tokens[min(row_count, len(self.trained))] * share)
        most = max(1, row_count * (length - 1))
        return BatchShape(
            rows=row_count,
            length=length,
            label_tokens=max(1, min(label_tokens, most)),
            padded=self.padded and row_count > 1,
        )

    def joined(self, start: int, row_count: int, share: float) -> BatchShape:
        """The shape of so many packed rows joined into one, from index `start` on in order of length, times `share`."""
        length = max(2, round(sum(self.lengths[start : start + row_count]) * share))
        label_tokens = round(sum(self.trained[start : start + row_count]) * share)
        return BatchShape(
            rows=1, length=length, label_tokens=max(1, min(label_tokens, length - 1)), padded=row_count > 1
        )

    # -- the batches of a run --------------------------------------------------------------------------------------
    def widest_batches(self, row_count: int, *, held_out: bool) -> list[BatchShape]:
        """Batches of rows, longest first: the first, and each later one with more label tokens than all before it."""
        if (held_out, row_count) not in self._batches:
            lengths, label_tokens = self._held_out if held_out else self._trained
            by_length, shapes, most = np.argsort(-lengths, kind="stable"), list[BatchShape](), 0
            for start in range(0, len(by_length), row_count):
                part = by_length[start : start + row_count]
                shape = shape_of(lengths[part].tolist(), label_tokens[part].tolist())
                if shape.label_tokens > most:
                    most = shape.label_tokens
                    shapes.append(shape)
            self._batches[held_out, row_count] = shapes
        return self._batches[held_out, row_count]

    def of_update_batches(
        self, order: _BatchOrder, row_count: int, longest: int, widest: int
    ) -> Sequence[PeakCandidate] | None:
        """The micro-batches of so many rows, one of which has this run's peak; None while update batches are counted.

        The longest row, which has `widest` tokens, is taken to have `longest`.
        """
        question = (order, row_count, longest)
        if question not in self._peak_batches:
            sizes = self._sorted(order, longest, widest)
            if sizes is None:
                return None
            if len(self._peak_batches) >= CACHED_ANSWERS:
                self._peak_batches.clear()
            self._peak_batches[question] = highest_candidates(sizes, row_count, packing=order.packing, first=True)
        return self._peak_batches[question]

    def counted(self, order: _BatchOrder) -> bool:
        """Whether this run's update batches are counted: few are counted now, many in the background."""
        return self._counted_batches(order) is not None

    def count(self, order: _BatchOrder) -> None:
        """Count this run's update batches, and wait for it."""
        self._count(self._key(order))

    @cached_property
    def _trained(self) -> tuple[Any, Any]:
        return np.array(self._data.lengths, dtype=np.int64), np.array(self._data.trained_tokens, dtype=np.int64)

    @cached_property
    def _held_out(self) -> tuple[Any, Any]:
        data = self._data
        return np.array(data.eval_lengths, dtype=np.int64), np.array(data.eval_trained_tokens, dtype=np.int64)

    def _sorted(self, order: _BatchOrder, longest: int, widest: int) -> list[tuple[Any, Any]] | None:
        update_batches, question = self._counted_batches(order), (order, longest)
        if update_batches is None:
            return None
        if question not in self._sizes:
            lengths, label_tokens = self._trained
            if longest != widest:
                changed = np.minimum(lengths, longest) if longest < widest else lengths * longest // widest
                label_tokens = np.maximum(1, np.minimum(label_tokens * changed // lengths, changed - 1))
                lengths = changed
            if len(self._sizes) >= CACHED_DATA_SETS:
                self._sizes.clear()
            self._sizes[question] = sorted_sizes(update_batches, lengths, label_tokens, by_length=order.by_length)
        return self._sizes[question]

    def _key(self, order: _BatchOrder) -> tuple[int, ...]:
        return len(self._data.lengths), order.seed, order.effective_batch, order.total_steps

    def _counted_batches(self, order: _BatchOrder) -> list[Any] | None:
        key = self._key(order)
        if key not in self._update_batches:
            if order.total_steps * min(len(self._data.lengths), order.effective_batch) <= COUNTED_AT_ONCE:
                self._count(key)
            elif key not in self._threads:
                self._threads[key] = threading.Thread(
                    target=self._count, args=(key,), name="update-batches", daemon=True
                )
                self._threads[key].start()
        return self._update_batches.get(key)

    def _count(self, key: tuple[int, ...]) -> None:
        with self._counting:
            if key not in self._update_batches:
                counted = update_batches_of_run(*key)
                if len(self._update_batches) >= CACHED_DATA_SETS:
                    self._update_batches.clear()
                self._update_batches[key] = counted
        self._threads.pop(key, None)


_CACHED: list[RowSizes] = []


def row_sizes_of(data: DataSummary) -> RowSizes:
    """The row sizes of these data, cached for the data sets seen last: sorting them is slower than an estimate."""
    for cached in list(_CACHED):
        if cached.belongs_to(data):
            return cached
    row_sizes = RowSizes(data)
    _CACHED[:] = [row_sizes, *_CACHED[: CACHED_DATA_SETS - 1]]
    return row_sizes
