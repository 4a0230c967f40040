"""Parsers: the text of one row as the values of its columns.

Each function takes the text of a row, with its line end, and the `Format` of its file. It raises ValueError with the
reason, to follow the number of the line, where the row breaks the format.
"""

from __future__ import annotations

import csv
from typing import Any

from tuning.data.files.file_format import Format
from tuning.data.files.header import MOST_COLUMNS
from tuning.data.files.table import JSON_DECODER, DuplicateKeyError, turns_in_columns

BLANK = " \t\r\n\v\f"
"""The characters of a blank line: those for which bytes.isspace is true."""
MOST_NAME = 200
"""The most letters of a column's name."""


def json_values(line: str, file_format: Format) -> dict[str, Any]:
    """A JSON object as a row: its members by name."""
    try:
        row = JSON_DECODER.decode(line)
    except DuplicateKeyError:
        raise
    except (ValueError, RecursionError):
        raise ValueError(f"is not JSON: {line.strip()[:60]!r}") from None
    if not isinstance(row, dict):
        raise ValueError(f"is not a JSON object: {line.strip()[:60]!r}")
    if len(row) > MOST_COLUMNS:
        raise ValueError(f"has {len(row):,} keys, and the most is {MOST_COLUMNS:,}")
    if len(line) > MOST_NAME and (long := next((name for name in row if len(name) > MOST_NAME), None)):
        raise ValueError(f"has a key of {len(long):,} letters, and the most is {MOST_NAME}: {long[:60]!r}")
    return turns_in_columns(row)


def csv_values(line: str, file_format: Format) -> dict[str, Any]:
    """A record of a CSV file as a row: its cells by column, as text."""
    csv.field_size_limit(2**31 - 1)
    try:
        cells = next(csv.reader([line.rstrip("\r\n")], delimiter=file_format.delimiter))
    except csv.Error as error:
        raise ValueError(f"is not CSV: {error}") from None
    if "\n" in line.rstrip("\r\n") and _open_quote(line, file_format):
        raise ValueError("opens a quotation mark that is never closed")
    if len(cells) != len(file_format.columns):
        many = "1 cell" if len(cells) == 1 else f"{len(cells)} cells"
        raise ValueError(f"has {many} where the header has {len(file_format.columns)}")
    return dict(zip(file_format.columns, cells, strict=True))


def _open_quote(line: str, file_format: Format) -> bool:
    """Whether a quotation mark in the record is never closed."""
    try:
        next(csv.reader([line.rstrip("\r\n")], delimiter=file_format.delimiter, strict=True))
    except csv.Error as error:
        return "unexpected end" in str(error)
    return False


def text_values(line: str, file_format: Format) -> dict[str, Any]:
    """A line or a paragraph as a row with the one column `text`."""
    lines = line.replace("\r\n", "\n").strip("\n").split("\n")
    while len(lines) > 1 and not lines[-1].strip(BLANK):  # blank lines up to the next row
        lines.pop()
    return {"text": "\n".join(lines)}
