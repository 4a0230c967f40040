"""How many files and folders the fuzz tests make: `--fuzz N` of each kind, `--fuzz-seed` for others."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def fuzz(pytestconfig: pytest.Config) -> int:
    """Mutated files of each format, and mutated folders of each model kind."""
    count = int(pytestconfig.getoption("--fuzz"))
    if not count:
        pytest.skip("a tier of its own: python -m pytest tests/fuzz --fuzz 500")
    return count


@pytest.fixture(scope="session")
def fuzz_seed(pytestconfig: pytest.Config) -> int:
    return int(pytestconfig.getoption("--fuzz-seed"))
