"""python -m tuning bench: which benchmarks there are, run one after another, printed as Markdown.

Comes in: a name or `all`, and the number of repeats.  Goes out: tables on standard output and an exit code.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from tuning.bench import click, loop, memory, methods, poll, start, watchers

BENCHES: dict[str, Callable[[int], str]] = {
    "start": start.table, "click": click.table, "loop": loop.table, "watchers": watchers.table, "poll": poll.table,
    "methods": methods.table,
    "memory": memory.table,
}  # fmt: skip


def run_benches(name: str, repeats: int) -> int:
    """Run the named benchmark, or all; 2 for a name that is none."""
    if name != "all" and name not in BENCHES:
        print(f"no benchmark is named {name!r}; use one of {', '.join(BENCHES)}, or all", file=sys.stderr)
        return 2
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for one in BENCHES if name == "all" else [name]:
        print(BENCHES[one](repeats), flush=True)
    return 0
