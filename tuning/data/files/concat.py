"""Several files of one split as one table, with the rows of one file after those of another."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import replace
from hashlib import sha256
from itertools import accumulate, groupby
from pathlib import Path

from tuning.core.errors import DataError
from tuning.data.files.lines import HEAD_FILE_BYTES, MOST_OPEN_TABLES, open_table
from tuning.data.files.progress import read_once
from tuning.data.files.table import BadRow, FileVersion, Record, Table, file_version


def open_tables(files: tuple[Path, ...], kind: str = "auto", encoding: str = "auto", head_only: bool = False) -> Table:
    """The table of one file or of several; with `head_only` of large ones their first rows alone. Raises DataError."""
    if len(files) == 1:
        return open_table(files[0], kind, encoding, head_only)
    try:
        stats = [file.stat() for file in files]
    except OSError as error:
        message = f"{Path(error.filename).name} cannot be read: {error.strerror}"
        raise DataError(message, error.filename, "a readable file") from None
    head_only = head_only and sum(status.st_size for status in stats) > HEAD_FILE_BYTES
    versions = tuple(map(file_version, stats))
    return _join(files, versions, kind, encoding, head_only)


@read_once(MOST_OPEN_TABLES)
def _join(
    files: tuple[Path, ...], versions: tuple[FileVersion, ...], kind: str, encoding: str, head_only: bool
) -> Table:
    size = sum(version[0] for version in versions)
    opened = files[:1] if head_only else files
    return JoinedTable([open_table(file, kind, encoding, head_only) for file in opened], size, len(files))


class JoinedTable:
    """Tables one after another; `line` counts the rows of all of them from 1."""

    unit = "row"

    def __init__(self, tables: list[Table], size: int, files: int) -> None:
        self.path, self.name = tables[0].path, f"{tables[0].name} and {files - 1} more"
        notices = tuple(dict.fromkeys(notice for table in tables for notice in table.format.notices))
        self.format, self.classes = replace(tables[0].format, notices=notices), tables[0].classes
        self.size, self.whole = size, len(tables) == files and all(table.whole for table in tables)
        digests = [table.digest for table in tables]
        self.digest = sha256(" ".join(digests).encode()).hexdigest() if all(digests) else ""
        self._tables = tables
        self._starts = [0, *accumulate(map(len, tables))]
        self.row_bytes = max(1, sum(table.row_bytes * len(table) for table in tables) // self._starts[-1])

    def __len__(self) -> int:
        return self._starts[-1]

    def read(self, indices: Sequence[int]) -> Iterator[Record | BadRow]:
        for i, group in groupby(indices, lambda index: bisect_right(self._starts, index) - 1):
            members, start = list(group), self._starts[i]
            rows = self._tables[i].read([index - start for index in members])
            for index, row in zip(members, rows, strict=True):
                yield replace(row, line=index + 1)
