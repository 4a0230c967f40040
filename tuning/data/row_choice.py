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
"""Increasing numbers of rows in their table."""


def held_counts(sizes: Sequence[int], fraction: float, seed: int) -> list[int]:
    """How many rows of each group are held out: together the whole share, and at least one of each group while there
    are enough for that. A group of one row keeps it, and no group is held out whole."""
    share = sum(sizes) * fraction
    total = round(share)
    plain = [min(max(0, size - 1), round(size * fraction)) for size in sizes]
    most = [max(0, size - 1) for size in sizes]
    short = any(one == 0 < room for one, room in zip(plain, most, strict=True))
    if abs(sum(plain) - share) <= 0.5 and not (short and total >= sum(room > 0 for room in most)):
        return plain
    return _apportioned(sizes, most, total, seed)


def taken_counts(sizes: Sequence[int], total: int, seed: int) -> list[int]:
    """How many rows of each group are taken where only so many are: each group in proportion to its size, and at
    least one of each while there are enough for that."""
    return _apportioned(sizes, sizes, total, seed)


def _apportioned(sizes: Sequence[int], most: Sequence[int], total: int, seed: int) -> list[int]:
    """`total` shared out in proportion to `sizes` by largest remainders, at most `most` of each, at least one of each
    where that is possible; the seed decides between equal remainders."""
    total, everything = min(total, sum(most)), sum(sizes)
    if total <= 0:
        return [0] * len(sizes)
    quotas = [size * total / everything for size in sizes]
    least = [int(room > 0) for room in most]
    if sum(least) > total:
        least = [0] * len(sizes)
    found = [min(room, max(low, int(quota + 1e-9))) for room, low, quota in zip(most, least, quotas, strict=True)]
    ties = list(range(len(sizes)))
    random.Random(f"ties {seed}").shuffle(ties)

    def lack(group: int) -> tuple[float, int]:
        return round(quotas[group] - found[group], 9), ties[group]

    while sum(found) < total:
        found[max((one for one, room in enumerate(most) if found[one] < room), key=lack)] += 1
    while sum(found) > total:  # what is at least one of each was taken from the others
        found[min((one for one, low in enumerate(least) if found[one] > low), key=lack)] -= 1
    return found


def hold_out(groups: Sequence[Indices], fraction: float, seed: int) -> array[int]:
    """The places of the rows that are held out, in increasing order."""
    draw, held = random.Random(seed), array("Q")
    for group, count in zip(groups, held_counts([len(one) for one in groups], fraction, seed), strict=True):
        held.extend(group[one] for one in draw.sample(range(len(group)), count))
    return as_indices(np.sort(as_numbers(held)))


def take(places: Indices, groups: Sequence[Indices], total: int | None, seed: int, side: str) -> Indices:
    """`total` of these places, which `groups` parts, in increasing order; all where there are no more. `side` names
    what they are for, so that training and evaluation rows are drawn apart."""
    if total is None or total >= len(places):
        return places
    draw, found = random.Random(f"{side} {seed}"), array("Q")
    for group, count in zip(groups, taken_counts([len(one) for one in groups], total, seed), strict=True):
        found.extend(group[one] for one in draw.sample(range(len(group)), count))
    return as_indices(np.sort(as_numbers(found)))


def as_numbers(places: Indices) -> np.ndarray:
    """Indices of rows as int64; those of an array are not copied."""
    if isinstance(places, range):
        return np.arange(places.start, places.stop, places.step, dtype=np.int64)
    return np.frombuffer(cast("array[int]", places), dtype=np.int64)  # far below 2**63


def as_indices(numbers: np.ndarray) -> array[int]:
    return array("Q", numbers.astype(np.uint64).tobytes())
