"""What every reader of files gives: rows with their line, bad rows with their reason, and the protocol of a table."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from tuning.data.files.formats import Format

MOST_ROW_BYTES = 8 * 2**20
"""The longest row, in bytes of its file: tokenizing takes up to 400 bytes of memory for each."""
TOO_LONG = f"is longer than {MOST_ROW_BYTES >> 20} MiB, the most for one row; part it into several"


@dataclass(slots=True)  # not frozen: millions are made, and a frozen one takes three times as long
class Record:
    """One row as it stands in its file."""

    line: int
    values: dict[str, Any]


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be used, and why."""

    line: int
    reason: str


Version = tuple[int, ...]


def version_of(status: os.stat_result) -> Version:
    """What changes with a file's content: bytes, time, the time that no program can set, and which file it is. A copy
    laid over it with the old time and as many bytes is another version."""
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_dev, status.st_ino


class Table(Protocol):
    """Rows on disk."""

    path: str
    """The file in full; of several files, the first."""
    name: str
    format: Format
    unit: str
    """What `line` counts: a line of the file, or a row of it."""
    size: int
    """Bytes of the file, unpacked; on disk, where only its head was unpacked."""
    row_bytes: int
    """Bytes of a known row, on average."""
    digest: str
    """A hash of the content; empty where only its head was read."""
    whole: bool
    """Every row is known, not only the head of a large file."""
    classes: dict[str, tuple[str, ...]]
    """Columns that hold numbers of classes, with the names that the file gives them."""

    def __len__(self) -> int: ...
    def __hash__(self) -> int: ...
    def read(self, indices: Sequence[int]) -> Iterator[Record | BadRow]:
        """The rows at these increasing places."""
        ...


class KeyTwice(ValueError):
    """An object of JSON has two keys of one name, of which readers of JSON keep one and say nothing."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise KeyTwice(f"has the key {twice[:60]!r} twice")
    return found


JSON_DECODER = json.JSONDecoder(object_pairs_hook=_object)
"""Reads JSON whose objects have each key once; raises KeyTwice."""

_TURN_KEYS = ({"role", "content"}, {"from", "value"})


def turns_in_columns(values: dict[str, Any]) -> dict[str, Any]:
    """The same row with its conversations as lists of turns: a list of objects may be stored as an object of lists
    ({"from": ["human", "gpt"], "value": ["Hi", "Hello"]}), as the `datasets` library does for a Sequence."""
    for name, value in values.items():
        if type(value) is dict and any(keys <= value.keys() for keys in _TURN_KEYS):
            columns = value.values()
            if all(type(column) is list for column in columns) and len(set(map(len, columns))) == 1:
                values[name] = [dict(zip(value, cells, strict=True)) for cells in zip(*columns, strict=True)]
    return values
