"""Learning rate schedules: the factor on the base learning rate, by update. No torch, so that the page can use it."""

from __future__ import annotations

import math


def schedule_factor(name: str, update: int, total: int, warmup: int, min_ratio: float) -> float:
    """The factor for the update with this index, from 0, in a run of `total` updates. Raises ValueError for a name.

    Warm-up climbs from 1/warmup to 1, so that the first update has an effect; then the factor falls from 1 to
    `min_ratio`, which it would have at index `total`, one after the last.
    """
    if update < warmup:
        return (update + 1) / warmup
    share = min(1.0, (update - warmup) / max(1, total - warmup))
    if name == "constant":
        return 1.0
    if name == "linear":
        return min_ratio + (1.0 - min_ratio) * (1.0 - share)
    if name == "cosine":
        return min_ratio + (1.0 - min_ratio) * 0.5 * (1.0 + math.cos(math.pi * share))
    raise ValueError(f"unknown schedule {name!r}")
