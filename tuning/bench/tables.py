"""The benchmarks of `python -m tuning bench`, run one after another and printed as Markdown tables.

Benchmarks for users are in this package. Comparisons with other libraries and with published figures are in tests/bench
and need a checkout of the repository.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from tuning.bench import (
    accumulation,
    click,
    loop,
    methods,
    poll,
    questions,
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
}
EVIDENCE = {
    "memory": "memory.table",
    "devices": "devices.table",
    "data": "data.table",
    "data-large": "data.large_table",
    "published": "published.table",
    "estimate": "estimate.table",
    "ragged": "ragged.table",
}
"""Module and function in tests/bench."""
BY_NAME = ("data-large", "published", "estimate", "ragged")
"""Benchmarks that take minutes, and are not among `all`."""
TESTS = Path(__file__).resolve().parent.parent.parent / "tests"


def run_benches(name: str, repeats: int) -> int:
    """Run the named benchmark, or all that are installed. Returns 2 where there is none, or it needs a checkout."""
    names = [*BENCHES, *EVIDENCE]
    if name != "all" and name not in names:
        print(f"no benchmark is named {name!r}; use one of {', '.join(names)}, or all", file=sys.stderr)
        return 2
    in_checkout = (TESTS / "bench").is_dir()
    if name in EVIDENCE and not in_checkout:
        print(_needs_checkout([name]), file=sys.stderr)
        return 2
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    chosen = [bench for bench in names if bench not in BY_NAME] if name == "all" else [name]
    for bench in chosen:
        if bench in BENCHES:
            print(BENCHES[bench](repeats), flush=True)
        elif in_checkout:
            print(_evidence(bench)(repeats), flush=True)
    left_out = [bench for bench in chosen if bench in EVIDENCE and not in_checkout]
    if left_out:
        print(_needs_checkout(left_out), file=sys.stderr)
    return 0


def _evidence(name: str) -> Callable[[int], str]:
    """The function of this benchmark in tests/bench."""
    if str(TESTS) not in sys.path:
        sys.path.insert(0, str(TESTS))
    module, _, function = EVIDENCE[name].partition(".")
    table: Callable[[int], str] = getattr(import_module(f"bench.{module}"), function)
    return table


def _needs_checkout(names: list[str]) -> str:
    verb = "needs" if len(names) == 1 else "need"
    return f"{', '.join(names)} {verb} a checkout of the repository: what it measures against is in its tests/bench."
