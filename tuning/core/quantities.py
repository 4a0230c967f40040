"""Sizes, durations and counts, as people read them: three digits and a unit."""

from __future__ import annotations

UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def size_text(count: float) -> str:
    """A number of bytes with a binary unit: 512 B, 32.7 MiB, 23.5 GiB."""
    unit = 0
    while count >= 1024 and unit < len(UNITS) - 1:
        count, unit = count / 1024, unit + 1
    return f"{count:.0f} {UNITS[unit]}" if count >= 100 or unit == 0 else f"{count:.3g} {UNITS[unit]}"


def duration_text(seconds: float) -> str:
    """A duration that is only roughly known: about 40 s, about 12 min, about 2.5 h."""
    if seconds < 90:
        return f"about {max(1, round(seconds))} s"
    return f"about {seconds / 60:.0f} min" if seconds < 5400 else f"about {seconds / 3600:.1f} h"


def count_text(count: float) -> str:
    """A number of things, without its noun: 0.25, 7.5, 1,200, 3.4 M, 1.24 B."""
    for size, unit in ((1e9, "B"), (1e6, "M")):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:,.0f}" if count >= 100 or count == int(count) else f"{count:.3g}"
