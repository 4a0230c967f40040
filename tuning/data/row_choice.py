"""Which rows are held out and which are taken: drawn by the seed, class by class, so that each class keeps its share.

How many of each class are drawn follows from the method of largest remainders. Pure arithmetic: no files, no rows.
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Sequence
from typing import cast

import numpy as np

Indices = Sequence[int]
"""Positions of rows in their table, in increasing order."""


def held_counts(sizes: Sequence[int], fraction: float, seed: int) -> list[int]:
    """How many rows of each group are held out: together the whole share, and at least one of each group while there
    are enough for that. A group of one row keeps it, and no group is held out whole."""
    share = sum(sizes) * fraction
    total = round(share)
    rounded = [min(max(0, size - 1), round(size * fraction)) for size in sizes]
    limits = [max(0, size - 1) for size in sizes]
    misses_group = any(count == 0 < limit for count, limit in zip(rounded, limits, strict=True))
    if abs(sum(rounded) - share) <= 0.5 and not (misses_group and total >= sum(limit > 0 for limit in limits)):
        return rounded
    return _apportioned(sizes, limits, total, seed)


def taken_counts(sizes: Sequence[int], total: int, seed: int) -> list[int]:
    """How many rows of each group are taken where only so many are: each group in proportion to its size, and at
    least one of each while there are enough for that."""
    return _apportioned(sizes, sizes, total, seed)


def _apportioned(sizes: Sequence[int], limits: Sequence[int], total: int, seed: int) -> list[int]:
    """`total` shared out in proportion to `sizes` by largest remainders, at most `limits` of each, at least one of each
    where that is possible; the seed decides between equal remainders."""
    total, all_rows = min(total, sum(limits)), sum(sizes)
    if total <= 0:
        return [0] * len(sizes)
    quotas = [size * total / all_rows for size in sizes]
    minimums = [int(limit > 0) for limit in limits]
    if sum(minimums) > total:
        minimums = [0] * len(sizes)
    counts = [
        min(limit, max(minimum, int(quota + 1e-9)))
        for limit, minimum, quota in zip(limits, minimums, quotas, strict=True)
    ]
    ties = list(range(len(sizes)))
    random.Random(f"ties {seed}").shuffle(ties)

    def shortfall(group: int) -> tuple[float, int]:
        return round(quotas[group] - counts[group], 9), ties[group]

    while sum(counts) < total:
        counts[max((group for group, limit in enumerate(limits) if counts[group] < limit), key=shortfall)] += 1
    while sum(counts) > total:  # the one row that each group gets is taken from the others
        counts[min((group for group, minimum in enumerate(minimums) if counts[group] > minimum), key=shortfall)] -= 1
    return counts


def hold_out(groups: Sequence[Indices], fraction: float, seed: int) -> array[int]:
    """The indices of the rows that are held out, in increasing order."""
    draw, indices = random.Random(seed), array("Q")
    for group, count in zip(groups, held_counts([len(group) for group in groups], fraction, seed), strict=True):
        indices.extend(group[i] for i in draw.sample(range(len(group)), count))
    return as_indices(np.sort(as_numbers(indices)))


def take(indices: Indices, groups: Sequence[Indices], total: int | None, seed: int, split: str) -> Indices:
    """`total` of these indices in increasing order, or all where there are no more. `groups` are the same indices by
    class; `split` is train or eval, whose rows are drawn apart."""
    if total is None or total >= len(indices):
        return indices
    draw, chosen = random.Random(f"{split} {seed}"), array("Q")
    for group, count in zip(groups, taken_counts([len(group) for group in groups], total, seed), strict=True):
        chosen.extend(group[i] for i in draw.sample(range(len(group)), count))
    return as_indices(np.sort(as_numbers(chosen)))


def as_numbers(indices: Indices) -> np.ndarray:
    """Indices of rows as int64; those of an array are not copied."""
    if isinstance(indices, range):
        return np.arange(indices.start, indices.stop, indices.step, dtype=np.int64)
    return np.frombuffer(cast("array[int]", indices), dtype=np.int64)  # far below 2**63


def as_indices(numbers: np.ndarray) -> array[int]:
    """Whole numbers, none below 0, as indices of rows."""
    return array("Q", numbers.astype(np.uint64).tobytes())
