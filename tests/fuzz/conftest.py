"""How many files and folders the fuzz tests make: `--fuzz N` of each kind, `--fuzz-seed` for others."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def fuzz(pytestconfig: pytest.Config) -> int:
    """Mutated files of each format, and mutated folders of each model kind."""
    return int(pytestconfig.getoption("--fuzz"))


@pytest.fixture(scope="session")
def fuzz_seed(pytestconfig: pytest.Config) -> int:
    return int(pytestconfig.getoption("--fuzz-seed"))
