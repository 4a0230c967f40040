"""The cache in memory: the values used last, by key, made where they are missing."""

from __future__ import annotations

import pytest

from tuning.core.lru import LruCache


def test_the_value_not_used_for_longest_goes() -> None:
    cache, made = LruCache[str](2), list[str]()

    def value(key: str) -> str:
        return cache.get(key, lambda: made.append(key) or key.upper())

    assert [value(key) for key in ("a", "b", "a", "c", "a", "b")] == ["A", "B", "A", "C", "A", "B"]
    assert made == ["a", "b", "c", "b"]
    assert cache.find("b") == "B" and cache.find("c") is None


def test_a_failure_is_not_stored() -> None:
    cache = LruCache[int](2)
    with pytest.raises(ZeroDivisionError):
        cache.get("a", lambda: 1 // 0)
    assert cache.get("a", lambda: 1) == 1
