"""Evidence for what the product says, measured against torch's own code, a plain library and published figures.

`python -m tuning bench NAME` runs `table` of tests/bench/NAME.py in a checkout; the installed package has none of it.
"""

from __future__ import annotations

import os
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent


def child_environment(**more: str) -> dict[str, str]:
    """The environment of a child process that imports `tuning` and `bench`, on one thread."""
    path = os.pathsep.join([str(TESTS.parent), str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path} | more
