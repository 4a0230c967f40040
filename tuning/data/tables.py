"""Rows of a file, read where they lie: positions in memory, values on disk.

Comes in: a path with the format and encoding a person may have said.  Goes out: a `Table` that knows how many rows
there are and reads any of them as `Record`s; what cannot be read is a `BadRow` with its line and the reason.  A
gigabyte costs a few bytes a row.  Nothing is written beside the file; what must be decoded first (UTF-16, one JSON
document) goes into a temporary file that nobody sees.
"""

from __future__ import annotations

import csv
import hashlib
import json
import sys
import threading
from array import array
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from tuning.data.parquet import ParquetTable
from tuning.data.record import BadRow, Record, Table
from tuning.data.sniff import Format, sniff
from tuning.data.spool import decoded, rows_of_document
from tuning.errors import DataError

BLOCK_BYTES = 4 * 2**20
HEAD_ROWS = 200
HEAD_FILE_BYTES = 16 * 2**20
HEAD_TABLE_BYTES = 2 * 2**20
"""Of a file above the first size, this much is enough to show what it is."""
RECORD_BYTES = 64 * 2**20
"""The longest row of a CSV file; a quotation mark without its partner would else swallow all that follows."""


def open_table(path: Path, kind: str = "auto", encoding: str = "auto", head_only: bool = False) -> Table:
    """The table of a file, indexed once for each version of it; of a large one only the head, where that is enough.

    Raises DataError.
    """
    try:
        if not path.is_file():
            raise DataError(f"there is no file {str(path)!r}; check the path", str(path), "an existing file")
        status = path.stat()
        head_only = head_only and status.st_size > HEAD_FILE_BYTES
        return _open(str(path.absolute()), status.st_size, status.st_mtime_ns, kind, encoding, head_only)
    except (OSError, ValueError) as error:
        message = f"{path.name!r:.80} cannot be read: {getattr(error, 'strerror', None) or error}"
        raise DataError(message, str(path), "a readable file") from None


@lru_cache(maxsize=8)
def _open(path: str, size: int, changed: int, kind: str, encoding: str, head_only: bool) -> Table:
    file = Path(path)
    with open(file, "rb") as handle:
        form = sniff(handle, file.name, kind, encoding)
    if form.kind == "parquet":
        return ParquetTable(file, form)
    return LineTable(file, form, head_only and form.encoding == "utf-8" and form.kind != "json")


class LineTable:
    """JSON Lines, CSV and plain text: one pass finds where each row begins."""

    def __init__(self, path: Path, form: Format, head_only: bool = False) -> None:
        self.name, self.format, self.size = path.name, form, path.stat().st_size
        self.unit = "row" if form.kind == "json" else "line"
        self.whole = not head_only
        self.digest = ""
        self._lock = threading.Lock()
        if not head_only:
            with open(path, "rb") as file:
                self.digest = hashlib.file_digest(file, "sha256").hexdigest()
        self._file: BinaryIO = open(path, "rb")  # noqa: SIM115  held as long as the table
        if form.kind == "json":
            self._file = rows_of_document(self._file, form, path.name)
        elif form.encoding != "utf-8" or form.mac_lines:
            self._file = decoded(self._file, form, path.name)
        self._file.seek(0 if form.kind == "json" or form.encoding != "utf-8" or form.mac_lines else form.mark)
        most = HEAD_TABLE_BYTES if head_only else sys.maxsize
        self._starts, self._lines, self._end = _index(self._file, form, path.name, most)
        if not self._starts:
            raise DataError(f"{path.name} has no rows; give at least one", path.name)

    def __len__(self) -> int:
        return len(self._starts)

    def read(self, indices: Sequence[int]) -> Iterator[Record | BadRow]:
        for group in self._groups(indices):
            start = self._starts[group[0]]
            with self._lock:
                self._file.seek(start)
                block = self._file.read(self._stop(group[-1]) - start)
            for index in group:
                yield self._parsed(index, block[self._starts[index] - start : self._stop(index) - start])

    def _stop(self, index: int) -> int:
        return self._starts[index + 1] if index + 1 < len(self._starts) else self._end

    def _groups(self, indices: Sequence[int]) -> Iterator[list[int]]:
        """Rows that one read fetches together."""
        group: list[int] = []
        for index in indices:
            if group and self._stop(index) - self._starts[group[0]] > BLOCK_BYTES:
                yield group
                group = []
            group.append(index)
        if group:
            yield group

    def _parsed(self, index: int, line: bytes) -> Record | BadRow:
        number = self._lines[index]
        try:
            return Record(number, _VALUES[self.format.kind](line.decode("utf-8"), self.format))
        except UnicodeDecodeError as error:
            return BadRow(number, f"is not UTF-8 (byte 0x{line[error.start]:02x}); data.encoding can say what it is")
        except (ValueError, RecursionError) as error:
            return BadRow(number, str(error))


def _json_values(line: str, form: Format) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError(f"is not JSON: {line.strip()[:60]!r}") from None
    if not isinstance(row, dict):
        raise ValueError(f"is not a JSON object: {line.strip()[:60]!r}")
    return row


def _csv_values(line: str, form: Format) -> dict[str, Any]:
    csv.field_size_limit(2**31 - 1)
    try:
        cells = next(csv.reader([line.rstrip("\r\n")], delimiter=form.delimiter))
    except csv.Error as error:
        raise ValueError(f"is not CSV: {error}") from None
    if "\n" in line.rstrip("\r\n") and _open_quote(line, form):
        raise ValueError("opens a quotation mark that is never closed")
    if len(cells) != len(form.columns):
        many = "1 cell" if len(cells) == 1 else f"{len(cells)} cells"
        raise ValueError(f"has {many} where the header has {len(form.columns)}")
    return dict(zip(form.columns, cells, strict=True))


def _open_quote(line: str, form: Format) -> bool:
    try:
        next(csv.reader([line.rstrip("\r\n")], delimiter=form.delimiter, strict=True))
    except csv.Error as error:
        return "unexpected end" in str(error)
    return False


def _text_values(line: str, form: Format) -> dict[str, Any]:
    return {"text": line.replace("\r\n", "\n").strip("\n")}


_VALUES = {"jsonl": _json_values, "json": _json_values, "csv": _csv_values, "lines": _text_values,
           "paragraphs": _text_values}  # fmt: skip

Index = tuple["array[int]", "array[int]", int]


def _index(file: BinaryIO, form: Format, name: str, most: int) -> Index:
    """Where rows begin, their line numbers, and the end of the last one, for about `most` bytes from here on."""
    if form.kind == "paragraphs":
        return _paragraphs(file, most)
    starts, lines, place, quoted = array("Q"), array("Q"), file.tell(), False
    begin = place
    for number, line in enumerate(file, 1):
        if not line.isspace():
            starts.append(place)
            lines.append(number)
            if form.kind == "csv" and b'"' in line:
                quoted = True
                break
        place += len(line)
        if place > most:
            break
    if quoted:  # a quoted cell may hold line ends: let the library say where records end
        file.seek(begin)
        starts, lines, place = _csv_records(file, form, name, most)
    if form.kind == "csv" and form.header:
        del starts[:1], lines[:1]
    return starts, lines, place


def _paragraphs(file: BinaryIO, most: int) -> Index:
    starts, lines, place, blank = array("Q"), array("Q"), file.tell(), True
    for number, line in enumerate(file, 1):
        space = line.isspace()
        if blank and not space:
            starts.append(place)
            lines.append(number)
        blank = space
        place += len(line)
        if place > most and blank:
            break
    return starts, lines, place


class _Counted:
    """Lines of a file for csv.reader, which takes one only when it needs it: so `place` is where a record ends."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file, self._name, self.place, self.number = file, name, file.tell(), 0
        self.start = self.place

    def __iter__(self) -> Iterator[str]:
        for line in self._file:
            self.place += len(line)
            self.number += 1
            if self.place - self.start > RECORD_BYTES:
                message = (
                    f"a row of {self._name} that ends at line {self.number} is longer than {RECORD_BYTES >> 20} MiB; "
                )
                raise DataError(message + "a quotation mark before it is probably never closed", self._name)
            yield line.decode("latin-1").rstrip("\r\n") + "\n"  # only ASCII matters to where a record ends


def _csv_records(file: BinaryIO, form: Format, name: str, most: int) -> Index:
    csv.field_size_limit(2**31 - 1)
    counted = _Counted(file, name)
    starts, lines = array("Q"), array("Q")
    records = csv.reader(iter(counted), delimiter=form.delimiter)
    while True:
        place, number = counted.place, counted.number
        counted.start = place
        if place > most:
            return starts, lines, place
        try:
            cells = next(records)
        except StopIteration:
            return starts, lines, counted.place
        except csv.Error:  # told when the row is read
            cells = [""]
        if cells:
            starts.append(place)
            lines.append(number + 1)


def head(table: Table, rows: int = HEAD_ROWS) -> list[Record]:
    """The first rows that can be read."""
    found: Iterable[Record | BadRow] = table.read(range(min(rows, len(table))))
    return [one for one in found if isinstance(one, Record)]
