"""What every reader of files gives: records, bad rows with their reason, and the protocol of a table of them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tuning.data.files.file_format import Format

MOST_ROW_BYTES = 8 * 2**20
"""The longest row, in bytes of its file: tokenizing takes up to 400 bytes of memory for each."""
TOO_LONG = f"is longer than {MOST_ROW_BYTES >> 20} MiB, the most for one row; part it into several"


@dataclass(slots=True)  # not frozen: millions are made, and a frozen one takes three times as long
class Record:
    """One row of a file, with the values of its columns."""

    line: int
    values: dict[str, Any]


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be used, and why."""

    line: int
    reason: str


FileVersion = tuple[int, ...]


def file_version(status: os.stat_result) -> FileVersion:
    """What changes with a file's content: its bytes, its two times, of which no program can set the second, and its
    identity. A copy put in its place with the old time and as many bytes is another version."""
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_dev, status.st_ino


class Table(Protocol):
    """Rows that lie on disk and are read when they are asked for."""

    path: str
    """The path of the file; of several files, of the first."""
    name: str
    format: Format
    unit: str
    """What `Record.line` counts: `line` for lines of the file, `row` for its rows."""
    size: int
    """Bytes of the file, unpacked; packed where only its head was unpacked."""
    row_bytes: int
    """Bytes of a row on average, over the rows known."""
    digest: str
    """The SHA-256 of the content; empty where only its head was read."""
    whole: bool
    """Whether every row is known, not only the head of a large file."""
    classes: dict[str, tuple[str, ...]]
    """Columns that hold class numbers, with the names that the file gives those classes."""

    def __len__(self) -> int: ...
    def __hash__(self) -> int: ...
    def read(self, indices: Sequence[int]) -> Iterator[Record | BadRow]:
        """The rows at these indices, which increase."""
        ...


class DuplicateKeyError(ValueError):
    """A JSON object has two keys of one name; JSON readers keep one of them silently."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object from its pairs. Raises DuplicateKeyError."""
    values = dict(pairs)
    if len(values) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise DuplicateKeyError(f"has the key {twice[:60]!r} twice")
    return values


JSON_DECODER = json.JSONDecoder(object_pairs_hook=_object)
"""Reads JSON; raises DuplicateKeyError for an object that has a key twice."""

_TURN_KEYS = ({"role", "content"}, {"from", "value"})


def turns_in_columns(values: dict[str, Any]) -> dict[str, Any]:
    """The row with each conversation as a list of turns, which may be stored as an object of lists
    ({"from": ["human", "gpt"], "value": ["Hi", "Hello"]}), as the `datasets` library does for a Sequence."""
    for name, value in values.items():
        if type(value) is dict and any(keys <= value.keys() for keys in _TURN_KEYS):
            columns = value.values()
            if all(type(column) is list for column in columns) and len(set(map(len, columns))) == 1:
                values[name] = [dict(zip(value, cells, strict=True)) for cells in zip(*columns, strict=True)]
    return values
