"""How things are measured here: CPU seconds, interleaved repeats, medians, one table.

Comes in: named pieces of work.  Goes out: for each the median, and Markdown.  Absolute times belong to the machine;
the ratios of one run are what to read.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping


def interleaved(works: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, float]:
    """Run every work once a round, `repeats` rounds; the median of what each returned (seconds or bytes)."""
    found: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            found[name].append(work())
    return {name: statistics.median(values) for name, values in found.items()}


def cpu(work: Callable[[], object]) -> float:
    """CPU seconds of this thread for one call."""
    began = time.thread_time()
    work()
    return time.thread_time() - began


def markdown(title: str, head: list[str], lines: list[list[str]]) -> str:
    """A titled Markdown table."""
    rows = [head, ["---"] * len(head), *lines]
    return f"### {title}\n\n" + "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"
