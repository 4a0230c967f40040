"""What a plain library says of the same file: `datasets` for tables, the standard library for text.

It reads the rows of a file in its format, or None where it cannot, and compares a value of ours with one of its.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from pandas._libs.parsers import STR_NA_VALUES

MISSING_TEXTS = frozenset(STR_NA_VALUES)
"""What pandas, and so `datasets`, reads as missing in a CSV file."""


def rows_of(path: Path, form: str, delimiter: str, cache: Path) -> list[dict[str, Any]] | None:
    """The rows of a file by `datasets`; None where it refuses the file."""
    import datasets

    datasets.disable_progress_bars()
    datasets.utils.logging.set_verbosity(datasets.utils.logging.CRITICAL)
    try:
        if form in ("lines", "paragraphs"):
            kind = "line" if form == "lines" else "paragraph"
            rows = list(datasets.Dataset.from_text(str(path), cache_dir=str(cache), sample_by=kind))
            if rows and rows[0]["text"].startswith("\ufeff"):  # the mark of its encoding is no letter of a file
                rows[0] = {"text": rows[0]["text"][1:]}
            return rows if rows[:1] != [{"text": ""}] else rows[1:]
        if form == "parquet":
            return list(datasets.Dataset.from_parquet(str(path), cache_dir=str(cache)))
        if form in ("csv", "tsv"):
            rows = datasets.Dataset.from_csv(str(path), cache_dir=str(cache), sep=delimiter)
            content = path.read_bytes()
            if b"sep=" in content[:8]:  # the spreadsheet's line about the delimiter is a header to that library
                return None
            return [*rows] if b"Unnamed: " in content else list(map(_named, rows))
        return list(datasets.Dataset.from_json(str(path), cache_dir=str(cache)))
    except Exception:
        return None


def _named(row: dict[str, Any]) -> dict[str, Any]:
    """A row of pandas under the names that columns without one have here. Columns that pandas makes an index of, where
    the first line has fewer cells than the rows, have no name to be told by."""
    unnamed = re.compile(r"Unnamed: (\d+)")
    pairs = [(unnamed.fullmatch(name), name, value) for name, value in row.items() if "__index_level_" not in name]
    return {f"column {int(generated[1]) + 1}" if generated else name: value for generated, name, value in pairs}


def missing(value: Any) -> bool:
    """No value, in the words of `datasets`."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def same(ours: Any, theirs: Any, form: str) -> bool:
    """Whether both mean the same; numbers and booleans that a CSV reader makes of texts are that text."""
    if missing(theirs):
        none = MISSING_TEXTS if form in ("csv", "tsv") else {"null"} if form in ("json", "jsonl") else ()
        return missing(ours) or ours in ("", [], {}) or ours in none  # pandas takes the JSON text "null" for none
    if isinstance(theirs, dict):
        mine = ours if isinstance(ours, dict) else {}
        names = {*mine, *theirs}
        return isinstance(ours, dict) and all(same(mine.get(name), theirs.get(name), form) for name in names)
    if isinstance(theirs, list):
        pairs = zip(ours, theirs) if isinstance(ours, list) and len(ours) == len(theirs) else None
        return pairs is not None and all(same(ours, theirs, form) for ours, theirs in pairs)
    if ours == theirs or str(ours) == str(theirs):
        return True
    if "\n".join(str(ours).splitlines()).strip() == "\n".join(str(theirs).splitlines()).strip():
        return True  # blanks at the ends of a line of text belong to nobody
    try:
        return math.isclose(float(ours), float(theirs), rel_tol=1e-12)
    except (TypeError, ValueError, OverflowError):
        return False


def texts(value: Any) -> list[str]:
    """Every text within a value."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for member in value.values() for text in texts(member)]
    if isinstance(value, list | tuple):
        return [text for member in value for text in texts(member)]
    return [] if value is None else [str(value)]
