"""python -m tuning bench: which benchmarks there are, run one after another, printed as Markdown.

Comes in: a name or `all`, and the number of repeats.  Goes out: tables on standard output and an exit code.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from tuning.bench import (
    accumulation,
    click,
    data,
    devices,
    estimate,
    loop,
    memory,
    methods,
    poll,
    published,
    questions,
    ragged,
    retrieval,
    start,
    stored,
    watchers,
)

BENCHES: dict[str, Callable[[int], str]] = {
    "start": start.table,
    "click": click.table,
    "loop": loop.table,
    "accumulation": accumulation.table,
    "watchers": watchers.table,
    "poll": poll.table,
    "questions": questions.table,
    "stored": stored.table,
    "methods": methods.table,
    "retrieval": retrieval.table,
    "memory": memory.table,
    "devices": devices.table,
    "data": data.table,
}
BY_NAME: dict[str, Callable[[int], str]] = {
    "data-large": data.large_table,
    "published": published.table,
    "estimate": estimate.table,
    "ragged": ragged.table,
}
"""Those that take minutes, and are not among `all`."""


def run_benches(name: str, repeats: int) -> int:
    """Run the named benchmark, or all; 2 for a name that is none."""
    known = BENCHES | BY_NAME
    if name != "all" and name not in known:
        print(f"no benchmark is named {name!r}; use one of {', '.join(known)}, or all", file=sys.stderr)
        return 2
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for one in BENCHES if name == "all" else [name]:
        print(known[one](repeats), flush=True)
    return 0
