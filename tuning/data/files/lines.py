"""Rows of a file, read where they lie: positions in memory, values on disk.

A `Table` knows how many rows there are and reads any of them as `Record`s; what cannot be read is a `BadRow` with its
line and the reason. A gigabyte costs a few bytes a row. Nothing is written beside the file; what must be decoded first
(UTF-16, one JSON document, what was packed) goes into a temporary file that nobody sees.
"""

from __future__ import annotations

import csv
import hashlib
import sys
import threading
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import BinaryIO

from tuning.core.errors import DataError, Notice
from tuning.data.files.formats import FORMATS, PARQUET, Format, packing_of
from tuning.data.files.parquet import ParquetTable
from tuning.data.files.progress import read_once, reading
from tuning.data.files.sniff import sniff
from tuning.data.files.table import (
    MOST_ROW_BYTES,
    TOO_LONG,
    BadRow,
    Record,
    Table,
    Version,
    version_of,
)
from tuning.data.files.to_lines import decoded, rows_of_document
from tuning.data.files.unpack import unpack

BLOCK_BYTES = 2**20
HEAD_ROWS = 200
HEAD_LETTERS = 8 * 2**20
"""What the first rows that are held at once may have of text."""
HEAD_FILE_BYTES = 16 * 2**20
HEAD_TABLE_BYTES = 2 * 2**20
"""Of a file above the first size, this much is enough to show what it is."""
HEAD_PARQUET_ROWS = 20_000
"""The same of any Parquet file, whose size does not say how much it unpacks to."""
TOLD_ROWS = 50_000
"""How often a long reading says how far it is."""
KEPT_TABLES = 6
"""How many tables are kept for who asks again: of a packed file each holds a temporary one."""
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
        return _open(str(path.absolute()), version_of(status), kind, encoding, head_only)
    except (OSError, ValueError) as error:
        message = f"{path.name!r:.80} cannot be read: {getattr(error, 'strerror', None) or error}"
        raise DataError(message, str(path), "a readable file") from None


@read_once(KEPT_TABLES)
def _open(path: str, version: Version, kind: str, encoding: str, head_only: bool) -> Table:
    file, size = Path(path), version[0]
    handle: BinaryIO = open(file, "rb")  # noqa: SIM115  held as long as the table
    first = handle.read(16)
    packing, words, inner, whole, digest = packing_of(first), "", "", True, ""
    if packing:
        with handle:
            found = unpack(handle, packing, file, size, HEAD_FILE_BYTES if head_only else None)
        handle, words, inner, whole, digest = found.file, found.words, found.name, found.whole, found.digest
        size = handle.seek(0, 2) if whole else size
    if head_only and whole and size <= HEAD_FILE_BYTES and not first.startswith(PARQUET):  # its head is all of it
        handle.close()
        return open_table(file, kind, encoding)
    handle.seek(0)
    form = sniff(handle, file.name, kind, encoding, words, inner)
    if form.kind == "parquet" and not packing:
        handle.close()
        return ParquetTable(file, form, HEAD_PARQUET_ROWS if head_only else None)
    if form.kind == "parquet":
        raise DataError(f"{file.name} is a packed Parquet file; unpack it, it is compressed in itself", file.name)
    if head_only and form.kind == "json" and not form.in_array:  # one object has to be read whole
        handle.close()
        return open_table(file, kind, encoding)
    return LineTable(handle, file, form, size, digest, head_only)


class LineTable:
    """JSON Lines, CSV and plain text: one pass finds where each row begins."""

    def __init__(
        self, file: BinaryIO, path: Path, form: Format, size: int, digest: str = "", head_only: bool = False
    ) -> None:
        self.path, self.name, self.format, self.size = str(path), path.name, form, size
        self.unit = "row" if form.kind == "json" else "line"
        self.classes = dict[str, tuple[str, ...]]()
        self.whole = not head_only
        self._lock = threading.Lock()
        self.digest = digest if head_only or digest else _digest(file, path, size)
        self._file = file
        most = HEAD_TABLE_BYTES if head_only else sys.maxsize
        if form.kind == "json":
            self._file, notices = rows_of_document(file, form, self.name, most)
            self.format = replace(form, notices=(*form.notices, *notices))
        elif form.encoding != "utf-8" or form.mac_lines:
            self._file = decoded(file, form, self.name, most + 2 * MOST_ROW_BYTES)
        begin = 0 if self._file is not file else form.mark
        self._file.seek(begin)
        with reading(self.path, self.name, "finding rows", "bytes", size) as on_progress:
            self._starts, self._lines, self._end, blank = _index(self._file, form, self.name, most, on_progress)
        if form.kind == "lines" and blank:  # rows of nothing, by others; in tables they are no rows for anybody
            scope = " looked at" if head_only else ""
            many = "1 blank line" if blank == 1 else f"{blank:,} blank lines"
            message = f"{many}{scope} of {self.name} {'is no row' if blank == 1 else 'are no rows'} and left out."
            one = Notice(field="data.format", message=message, count=blank)
            self.format = replace(self.format, notices=(*self.format.notices, one))
        if not self._starts:
            names = ", ".join(form.columns[:20])
            what = f"has a header ({names:.200}) and no rows" if form.kind == "csv" else "has no rows"
            raise DataError(f"{self.name} {what}; give at least one", self.name)
        self.row_bytes = max(1, (self._end - self._starts[0]) // len(self._starts))

    def __len__(self) -> int:
        return len(self._starts)

    def read(self, indices: Sequence[int]) -> Iterator[Record | BadRow]:
        for group in self._groups(indices):
            start = self._starts[group[0]]
            if self._stop(group[0]) - start > MOST_ROW_BYTES:  # alone in its group
                yield BadRow(self._lines[group[0]], TOO_LONG)
                continue
            with self._lock:
                self._file.seek(start)
                block = self._file.read(self._stop(group[-1]) - start)
            first, span = group[0], group[-1] - group[0] + 1
            near = self.format.kind == "csv" and span <= 2 * len(group) and b'"' not in block
            cells = _plain_cells(block, self.format, span) if near else None
            if cells is not None:
                lines, names = self._lines, self.format.columns
                for index in group:
                    yield Record(lines[index], dict(zip(names, cells[index - first], strict=True)))
            else:
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
            return Record(number, FORMATS[self.format.kind].parse(line.decode("utf-8"), self.format))
        except UnicodeDecodeError as error:
            return BadRow(number, f"is not UTF-8 (byte 0x{line[error.start]:02x}); data.encoding can say what it is")
        except (ValueError, RecursionError) as error:
            return BadRow(number, str(error))


def _plain_cells(block: bytes, form: Format, rows: int) -> list[list[str]] | None:
    """The cells of so many rows without quotation marks, all at once; None where one of them is not as it should be."""
    try:
        lines = block.decode("utf-8").split("\n")
        found = [cells for cells in csv.reader(lines, delimiter=form.delimiter) if cells]
    except (csv.Error, UnicodeDecodeError):
        return None
    width = len(form.columns)
    return found if len(found) == rows and all(len(cells) == width for cells in found) else None


Index = tuple["array[int]", "array[int]", int, int]


def _digest(file: BinaryIO, path: Path, size: int) -> str:
    digest, done = hashlib.sha256(), 0
    file.seek(0)
    with reading(str(path), path.name, "hashing", "bytes", size) as on_progress:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
            done += len(block)
            on_progress(done)
    return digest.hexdigest()


def _index(file: BinaryIO, form: Format, name: str, most: int, on_progress: Callable[[int], None]) -> Index:
    """Where rows begin, their line numbers, the end of the last one, and how many lines are blank, for about `most`
    bytes from here on."""
    if form.kind == "paragraphs":
        return _paragraphs(file, most, on_progress)
    starts, lines, quoted = array("Q"), array("Q"), False
    for _ in range(form.above):
        file.readline()
    place = begin = file.tell()
    number, line_start, started, fresh = form.above, place, False, True
    for piece in _pieces(file):
        if fresh:
            number, line_start, started = number + 1, place, False
        if not started and not piece.isspace():
            starts.append(line_start)
            lines.append(number)
            started = True
        if form.kind == "csv" and b'"' in piece:
            quoted = True
            break
        place += len(piece)
        fresh = piece.endswith(b"\n")
        if place > most and (fresh or place - line_start > MOST_ROW_BYTES):
            break
        if fresh and number % TOLD_ROWS == 0:
            on_progress(place)
    blank = number - form.above - len(starts)
    if quoted:  # a quoted cell may hold line ends: let the library say where records end
        file.seek(begin)
        starts, lines, place = _csv_records(file, form, name, most, on_progress)
    if form.kind == "csv" and form.header:
        del starts[: 1 + form.rule], lines[: 1 + form.rule]
    return starts, lines, place, blank


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    """Lines of a file; of long ones a piece at a time, so that no line is held whole."""
    return iter(partial(file.readline, BLOCK_BYTES), b"")


def _paragraphs(file: BinaryIO, most: int, on_progress: Callable[[int], None]) -> Index:
    starts, lines, place, blank = array("Q"), array("Q"), file.tell(), True
    number, line_start, space, fresh = 0, place, True, True
    for piece in _pieces(file):
        if fresh:
            number, line_start, space = number + 1, place, True
        if space and not piece.isspace():
            space = False
            if blank:
                starts.append(line_start)
                lines.append(number)
        place += len(piece)
        fresh = piece.endswith(b"\n")
        blank = space if fresh else blank
        if place > most and (blank or (starts and place - starts[-1] > MOST_ROW_BYTES)):
            break
        if fresh and number % TOLD_ROWS == 0:
            on_progress(place)
    return starts, lines, place, 0


class _Counted:
    """Lines of a file for csv.reader, which takes one only when it needs it: so `place` is where a record ends."""

    def __init__(self, file: BinaryIO, name: str, above: int) -> None:
        self._file, self._name, self.place, self.number = file, name, file.tell(), above
        self.start = self.place

    def __iter__(self) -> Iterator[str]:
        for line in iter(partial(self._file.readline, RECORD_BYTES + 1), b""):
            self.place += len(line)
            self.number += 1
            if self.place - self.start > RECORD_BYTES:
                message = (
                    f"a row of {self._name} that ends at line {self.number} is longer than {RECORD_BYTES >> 20} MiB; "
                )
                raise DataError(message + "a quotation mark before it is probably never closed", self._name)
            yield line.decode("latin-1").rstrip("\r\n") + "\n"  # only ASCII matters to where a record ends


def _csv_records(
    file: BinaryIO, form: Format, name: str, most: int, on_progress: Callable[[int], None]
) -> tuple[array[int], array[int], int]:
    csv.field_size_limit(2**31 - 1)
    counted = _Counted(file, name, form.above)
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
        except csv.Error:  # reported when the row is read
            cells = [""]
        if cells:
            starts.append(place)
            lines.append(number + 1)
            if len(starts) % TOLD_ROWS == 0:
                on_progress(place)


def head(table: Table, rows: int = HEAD_ROWS) -> list[Record]:
    """The first rows that can be read; fewer where they are large."""
    found, letters = list[Record](), 0
    for one in table.read(range(min(rows, len(table)))):
        if isinstance(one, Record):
            found.append(one)
            letters += sum(len(value) for value in one.values.values() if isinstance(value, str | list | dict))
            if letters > HEAD_LETTERS:
                break
    return found
