"""The registry of methods: one tuple. The form, the estimate, the matrix test and the guide read it."""

from typing import Any

from tuning.methods import (
    adapter,
    feature_extraction,
    full,
    galore,
    ia3,
    lora,
    p_tuning,
    partial,
    prefix_tuning,
    prompt_engineering,
    prompt_tuning,
    qlora,
    retrieval,
)
from tuning.methods.base import Method

METHODS: tuple[Method[Any], ...] = (
    full.METHOD,
    partial.METHOD,
    feature_extraction.METHOD,
    lora.METHOD,
    qlora.METHOD,
    galore.METHOD,
    adapter.METHOD,
    ia3.METHOD,
    prompt_tuning.METHOD,
    prefix_tuning.METHOD,
    p_tuning.METHOD,
    prompt_engineering.METHOD,
    retrieval.METHOD,
)


_BY_NAME = {method.name: method for method in METHODS}


def method_named(name: str) -> Method[Any]:
    """The method of that name; raises KeyError."""
    return _BY_NAME[name]
