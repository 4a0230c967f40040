"""The two tiers of the tests: a few cases of a long test are run always, the others (`-m slow`) before a release."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest


def one_of_each(cases: Iterable[Any], kind: Callable[[Any], object]) -> list[Any]:
    """The cases for `pytest.mark.parametrize`: the first of each kind as it is, the others marked slow."""
    kinds, parameters = set[object](), []
    for case in cases:
        values = case if isinstance(case, tuple) else (case,)
        parameters.append(pytest.param(*values, marks=[pytest.mark.slow] if kind(case) in kinds else []))
        kinds.add(kind(case))
    return parameters


def first_only(cases: Iterable[Any]) -> list[Any]:
    """The cases for `pytest.mark.parametrize`: the first as it is, the others marked slow."""
    return one_of_each(cases, lambda case: None)
