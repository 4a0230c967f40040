"""The micro-batches of a run, and the batches of its evaluations, of which one holds the memory peak.

Comes in: a plan.  Goes out: `Moment`s of its updates and `Shape`s of what is only read.  Where every row was counted
these are the batches that the run will really have: the loop's own windows (`tuning.micro_batches`), known before
Start from data, order and seed.  Elsewhere they are the widest that its rows can give, and `which` says so.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from tuning.data import DataSummary
from tuning.errors import counted
from tuning.methods import method_named
from tuning.micro_batches import Moment, Shape, highest_moments, shape_of, sorted_sizes, windows_of_run
from tuning.plan import Plan

MOST_PASSED = 500_000
"""Rows that all updates of a run may read together for its own windows to be counted: about a second's work, once."""
AT_ONCE = 50_000
"""Rows up to which that is done on the spot (a tenth of a second); more are counted in a thread of its own."""
KEPT_ROWS, KEPT_ANSWERS = 8, 2_000
"""Data sets whose facts are kept, and answers of each."""


def moments_of(plan: Plan, rows: int | None = None, length: int | None = None) -> Sequence[Moment]:
    """The micro-batches of this plan's updates of which one is the highest; with other rows at once, or another length
    of the longest row: shorter rows are then cut there, longer ones grown like it.

    With more rows at once than the effective batch the windows are others: the widest that the rows can give.
    """
    facts = rows_of(plan.data)
    count, longest = rows or plan.settings.micro_batch_size, length or int(plan.value("widest_length"))
    if _own_windows(plan) is None and count <= plan.value("effective_batch"):
        found = facts.of_windows(_Run.of(plan), count, longest, int(plan.value("widest_length")))
        if found is not None:
            return found
    return _widest(plan, facts, count, longest)


def which(plan: Plan) -> str:
    """Which batches the figures are for, in words that follow "for"."""
    if not method_named(plan.settings.method.name).updates:
        return "the batches of its evaluation" if plan.data.eval_lengths else "its longest evaluation rows"
    why = _own_windows(plan)
    if why is None and rows_of(plan.data).counted(_Run.of(plan)):
        return f"the widest of the batches that its {counted(plan.value('total_steps'), 'update')} will have"
    return f"the widest batch that its rows can give ({why or 'its own are being counted'})"


def count_windows(plan: Plan) -> None:
    """Count this run's windows now, however many they are."""
    if _own_windows(plan) is None:
        rows_of(plan.data).count(_Run.of(plan))


def windows_pending(plan: Plan) -> bool:
    """Whether this run's windows are being counted: asking again soon gives better figures."""
    return (
        method_named(plan.settings.method.name).updates
        and _own_windows(plan) is None
        and not rows_of(plan.data).counted(_Run.of(plan))
    )


def _own_windows(plan: Plan) -> str | None:
    """Why the windows that this run will have are not known before it; None where they are."""
    data = plan.data
    if data.sampled or len(data.lengths) != data.train_rows:
        return f"{len(data.lengths):,} of {data.train_rows:,} rows were counted"
    if plan.settings.recipe is not None:
        return "how the recipe writes each row shows in the run"
    if plan.value("total_steps") * min(data.train_rows, plan.value("effective_batch")) > MOST_PASSED:
        return f"its updates read more than {MOST_PASSED:,} rows"
    return None


def _widest(plan: Plan, facts: Rows, count: int, longest: int) -> list[Moment]:
    """The widest micro-batches that the rows can give, whatever the order: of length and of labels the most.

    Sorted by length, an update's widest micro-batch is its first, when no gradients are alive yet; the second then has
    the rows that come after the longest. Packed rows are taken to be the longest of all data: what the draw can give.
    """
    count = min(count, plan.data.train_rows)
    several = plan.value("effective_batch") > count and plan.data.train_rows > count
    share = longest / max(1, int(plan.value("widest_length")))
    packed, others = plan.packing, min(count, plan.data.train_rows - count)
    first = facts.joined(0, count, share) if packed else facts.shape(count, longest, share)
    if not several or not plan.settings.data.group_by_length:
        return [Moment(shape=first, accumulate=several)]
    second = max(2, round(share * facts.lengths[min(count, len(facts.lengths) - 1)]))
    later = facts.joined(count, others, share) if packed else facts.shape(others, min(longest, second), share)
    return [Moment(shape=first, accumulate=False), Moment(shape=later, accumulate=True)]


def passes_of(plan: Plan, rows: int | None = None, length: int | None = None) -> list[Shape]:
    """The batches that can be the widest of those that are only read: by an evaluation, and to keep a body's states.

    Both take their rows longest first, so a later batch counts only where it has more labels. Rows that a method
    without updates has written are as long as it makes them. Where not every held-out row was counted, they are taken
    to be like the training rows, which are drawn from the same file.
    """
    settings, data, facts, widest = plan.settings, plan.data, rows_of(plan.data), longest_row(plan)
    found, longest = list[Shape](), length or widest
    if method_named(settings.method.name).caches(settings.method):
        count = min(rows or settings.micro_batch_size, data.train_rows)
        if _own_windows(plan) is None:
            found += [_of_length(one, longest, widest) for one in facts.widest_batches(count, held_out=False)]
        else:
            found.append(facts.shape(count, longest, longest / max(1, widest)))
    if not data.eval_rows:
        return found
    count = max(1, min(plan.evaluation_rows(rows), data.eval_rows))
    if "prompted_length" in plan.derived:
        labels = int(plan.value("prompted_labels"))
        return [Shape(rows=count, length=longest, labels=max(1, count * labels), padded=count > 1)]
    if not data.eval_lengths:
        return [*found, facts.shape(count, longest, longest / max(1, widest))]
    return found + [_of_length(one, longest, widest) for one in facts.widest_batches(count, held_out=True)]


def _of_length(shape: Shape, longest: int, widest: int) -> Shape:
    """The batch where the longest training row has `longest` tokens for `widest`: cut there, or grown like that row."""
    length = min(shape.length, longest) if longest < widest else round(shape.length * longest / widest)
    if length == shape.length:
        return shape
    labels = round(shape.labels * length / shape.length)
    return replace(shape, length=length, labels=max(1, min(labels, shape.rows * (length - 1))))


def longest_row(plan: Plan) -> int:
    """Tokens of the longest row that the run reads: as a method without updates writes it, else of the data."""
    return int(plan.value("prompted_length" if "prompted_length" in plan.derived else "widest_length"))


def kept_features(plan: Plan, shape: Shape) -> int:
    """Bytes of the states that a run over a frozen body keeps of all rows, beyond those of one micro-batch."""
    if not method_named(plan.settings.method.name).caches(plan.settings.method):
        return 0
    here = shape.rows if plan.labels else shape.labels
    rows, each = plan.data.train_rows + plan.data.eval_rows, 1.0 if plan.labels else rows_of(plan.data).mean_labels
    return max(0, round(rows * each - here)) * plan.model.shape.hidden_size * 4


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """All that a run's windows and their cut depend on, besides the rows and how many are taken at once."""

    seed: int
    effective_batch: int
    total_steps: int
    by_length: bool
    packing: bool

    @staticmethod
    def of(plan: Plan) -> _Run:
        return _Run(
            seed=plan.settings.seed,
            effective_batch=int(plan.value("effective_batch")),
            total_steps=int(plan.value("total_steps")),
            by_length=plan.settings.data.group_by_length,
            packing=plan.packing,
        )


class Rows:
    """Of one data set's rows what is asked again and again: lengths and label tokens, and the batches they give.

    Every answer is worked out once and kept, for a search over sizes asks for many.
    """

    def __init__(self, data: DataSummary) -> None:
        self._data = data
        known = data.trained_tokens + data.eval_trained_tokens
        self.lengths = sorted(data.lengths, reverse=True) or [1]
        self.trained = sorted(data.trained_tokens, reverse=True) or [1]
        self._most_labels = [0, *itertools.accumulate(self.trained)]
        """Of so many rows, those with the most."""
        self.mean_labels = sum(known) / max(1, len(known))
        """Label tokens, of all rows that were counted."""
        self._windows: dict[tuple[int, ...], list[Any]] = {}
        self._sizes: dict[Any, list[tuple[Any, Any]]] = {}
        self._moments: dict[Any, Sequence[Moment]] = {}
        self._batches: dict[tuple[bool, int], list[Shape]] = {}
        self._counting = threading.Lock()
        self._threads: dict[tuple[int, ...], threading.Thread] = {}

    def belongs_to(self, data: DataSummary) -> bool:
        """Whether this is about these data, told apart as objects."""
        mine = self._data
        return mine is data or (mine.lengths is data.lengths and mine.eval_lengths is data.eval_lengths)

    @property
    def padded(self) -> bool:
        """Whether a micro-batch can need padding."""
        return self.lengths[0] != self.lengths[-1]

    # -- the widest that can be ------------------------------------------------------------------------------------
    def shape(self, rows: int, length: int, share: float) -> Shape:
        """So many rows of this length, with the most labels that so many rows have."""
        labels = round(self._most_labels[min(rows, len(self.trained))] * share)
        most = max(1, rows * (length - 1))
        return Shape(rows=rows, length=length, labels=max(1, min(labels, most)), padded=self.padded and rows > 1)

    def joined(self, start: int, rows: int, share: float) -> Shape:
        """Packed rows, as one: so many from this place on, the longest first."""
        length = max(2, round(sum(self.lengths[start : start + rows]) * share))
        labels = round(sum(self.trained[start : start + rows]) * share)
        return Shape(rows=1, length=length, labels=max(1, min(labels, length - 1)), padded=rows > 1)

    # -- those that will be ----------------------------------------------------------------------------------------
    def widest_batches(self, rows: int, *, held_out: bool) -> list[Shape]:
        """Taken longest first: the first batch, and each later one that has more labels than all before it."""
        if (held_out, rows) not in self._batches:
            lengths, labels = self._held_out if held_out else self._trained
            order, found, most = np.argsort(-lengths, kind="stable"), list[Shape](), 0
            for start in range(0, len(order), rows):
                part = order[start : start + rows]
                shape = shape_of(lengths[part].tolist(), labels[part].tolist())
                if shape.labels > most:
                    most = shape.labels
                    found.append(shape)
            self._batches[held_out, rows] = found
        return self._batches[held_out, rows]

    def of_windows(self, run: _Run, rows: int, longest: int, widest: int) -> Sequence[Moment] | None:
        """The micro-batches of `rows` rows of which one is this run's highest; None while its windows are counted.

        `longest` for `widest`: the longest row is then so long.
        """
        asked = (run, rows, longest)
        if asked not in self._moments:
            sizes = self._sorted(run, longest, widest)
            if sizes is None:
                return None
            if len(self._moments) >= KEPT_ANSWERS:
                self._moments.clear()
            self._moments[asked] = highest_moments(sizes, rows, packing=run.packing, first=True)
        return self._moments[asked]

    def counted(self, run: _Run) -> bool:
        """Whether this run's windows are there; if not, they are counted now: on the spot where they are few."""
        return self._ordered(run) is not None

    def count(self, run: _Run) -> None:
        """Count this run's windows, and wait."""
        self._count(self._key(run))

    @cached_property
    def _trained(self) -> tuple[Any, Any]:
        return np.array(self._data.lengths, dtype=np.int64), np.array(self._data.trained_tokens, dtype=np.int64)

    @cached_property
    def _held_out(self) -> tuple[Any, Any]:
        data = self._data
        return np.array(data.eval_lengths, dtype=np.int64), np.array(data.eval_trained_tokens, dtype=np.int64)

    def _sorted(self, run: _Run, longest: int, widest: int) -> list[tuple[Any, Any]] | None:
        windows, asked = self._ordered(run), (run, longest)
        if windows is None:
            return None
        if asked not in self._sizes:
            lengths, labels = self._trained
            if longest != widest:
                changed = np.minimum(lengths, longest) if longest < widest else lengths * longest // widest
                labels = np.maximum(1, np.minimum(labels * changed // lengths, changed - 1))
                lengths = changed
            if len(self._sizes) >= KEPT_ROWS:
                self._sizes.clear()
            self._sizes[asked] = sorted_sizes(windows, lengths, labels, by_length=run.by_length)
        return self._sizes[asked]

    def _key(self, run: _Run) -> tuple[int, ...]:
        return len(self._data.lengths), run.seed, run.effective_batch, run.total_steps

    def _ordered(self, run: _Run) -> list[Any] | None:
        key = self._key(run)
        if key not in self._windows:
            if run.total_steps * min(len(self._data.lengths), run.effective_batch) <= AT_ONCE:
                self._count(key)
            elif key not in self._threads:
                self._threads[key] = threading.Thread(target=self._count, args=(key,), name="windows", daemon=True)
                self._threads[key].start()
        return self._windows.get(key)

    def _count(self, key: tuple[int, ...]) -> None:
        with self._counting:
            if key not in self._windows:
                found = windows_of_run(*key)
                if len(self._windows) >= KEPT_ROWS:
                    self._windows.clear()
                self._windows[key] = found
        self._threads.pop(key, None)


_KNOWN: list[Rows] = []


def rows_of(data: DataSummary) -> Rows:
    """Kept for the data looked at last: sorting many rows is slower than the estimate."""
    for one in list(_KNOWN):
        if one.belongs_to(data):
            return one
    found = Rows(data)
    _KNOWN[:] = [found, *_KNOWN[: KEPT_ROWS - 1]]
    return found
