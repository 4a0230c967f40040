"""Sizes, durations and counts in three digits and a unit."""

from __future__ import annotations

import pytest

from tuning.core.quantities import count_text, duration_text, size_text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (32.7 * 2**20, "32.7 MiB"),
        (434 * 2**20, "434 MiB"),
        (23.5 * 2**30, "23.5 GiB"),
        (5000 * 2**40, "5000 TiB"),
    ],
)
def test_bytes_have_a_binary_unit(count: float, text: str) -> None:
    assert size_text(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "about 1 s"), (89, "about 89 s"), (90, "about 2 min"), (3600, "about 60 min"), (9000, "about 2.5 h")],
)
def test_a_duration_is_rough(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0.25, "0.25"), (7, "7"), (7.5, "7.5"), (123.4, "123"), (1200, "1,200"), (3.4e6, "3.4 M"), (1.24e9, "1.24 B")],
)
def test_a_count_has_three_digits_or_all_of_a_small_whole_number(count: float, text: str) -> None:
    assert count_text(count) == text
