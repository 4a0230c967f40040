"""The learning rate's course over a run, counted in updates.

Comes in: the schedule's settings and an update's number.  Goes out: the factor on the base learning rate.  No torch:
the page draws the course with the same function the loop uses.
"""

from __future__ import annotations

import math


def schedule_factor(name: str, update: int, total: int, warmup: int, min_ratio: float) -> float:
    """The factor for the update with this number (the first is 0) in a run of `total` updates.

    Warm-up climbs from 1/warmup to 1, so that the first update is not wasted at zero; what follows goes from 1 down
    to `min_ratio`, which would be reached at update `total`, one after the last.
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
