"""Tables of the rows of a file, whose values stay on disk: only the positions of rows are held in memory.

A `Table` knows how many rows there are and reads any of them as `Record`s; a row that cannot be read is a `BadRow` with
its line and the reason. Each row costs a few bytes of memory. Nothing is written beside the file; what must be decoded
first (UTF-16, one JSON document, a packed file) goes into an anonymous temporary file.
"""

from __future__ import annotations

import csv
import hashlib
import sys
import threading
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import BinaryIO

from tuning.core.errors import DataError, Notice
from tuning.data.files.file_format import Format
from tuning.data.files.formats import FORMATS, PARQUET, packing_of
from tuning.data.files.parquet import ParquetTable
from tuning.data.files.progress import read_once, reading
from tuning.data.files.sniff import sniff
from tuning.data.files.table import (
    MOST_ROW_BYTES,
    TOO_LONG,
    BadRow,
    FileVersion,
    Record,
    Table,
    file_version,
)
from tuning.data.files.to_lines import json_lines, utf8_lines
from tuning.data.files.unpack import unpack

BLOCK_BYTES = 2**20
HEAD_ROWS = 200
HEAD_CHARACTERS = 8 * 2**20
"""The most characters of the first rows that are held at once."""
HEAD_FILE_BYTES = 16 * 2**20
HEAD_TABLE_BYTES = 2 * 2**20
"""Of a file of more bytes than the first, as many as the second are enough to show what it holds."""
HEAD_PARQUET_ROWS = 20_000
"""Rows of any Parquet file that are enough to show what it holds; its bytes do not say how much it unpacks to."""
PROGRESS_ROWS = 50_000
"""Rows after which a long reading reports its progress."""
MOST_OPEN_TABLES = 6
"""How many opened tables are cached; one of a packed file holds a temporary file."""
RECORD_BYTES = 64 * 2**20
"""Bytes of the longest row of a CSV file: a quotation mark that is never closed would take in all that follows."""


def open_table(path: Path, kind: str = "auto", encoding: str = "auto", head_only: bool = False) -> Table:
    """The table of a file, indexed once for each version of it; with `head_only` of a large file only its first rows.

    Raises DataError where the file cannot be read, or holds no rows.
    """
    try:
        if not path.is_file():
            raise DataError(f"there is no file {str(path)!r}; check the path", str(path), "an existing file")
        status = path.stat()
        return _open(str(path.absolute()), file_version(status), kind, encoding, head_only)
    except (OSError, ValueError) as error:
        message = f"{path.name!r:.80} cannot be read: {getattr(error, 'strerror', None) or error}"
        raise DataError(message, str(path), "a readable file") from None


@read_once(MOST_OPEN_TABLES)
def _open(path: str, version: FileVersion, kind: str, encoding: str, head_only: bool) -> Table:
    """`open_table`, cached for each version of a file."""
    file = Path(path)
    content = _content(file, version[0], head_only)
    if head_only and content.is_small_head:
        content.file.close()
        return open_table(file, kind, encoding)
    content.file.seek(0)
    file_format = sniff(content.file, file.name, kind, encoding, content.words, content.inner)
    if head_only and file_format.kind == "json" and not file_format.in_array:  # one object has to be read whole
        content.file.close()
        return open_table(file, kind, encoding)
    if file_format.kind != "parquet":
        return LineTable(content.file, file, file_format, content.size, content.digest, head_only)
    if content.words:
        raise DataError(f"{file.name} is a packed Parquet file; unpack it, it is compressed in itself", file.name)
    content.file.close()
    return ParquetTable(file, file_format, HEAD_PARQUET_ROWS if head_only else None)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Content:
    """The unpacked bytes of a file, open for reading."""

    file: BinaryIO
    size: int
    """Bytes; of a packed file of which only the head was unpacked, those on disk."""
    whole: bool
    """Whether everything is unpacked."""
    parquet: bool
    words: str = ""
    """How the file was packed, for a person; empty where it was not."""
    inner: str = ""
    """The name of the file inside a packed one."""
    digest: str = ""

    @property
    def is_small_head(self) -> bool:
        """Whether this is a whole file, so small that its head is all of it; rows of Parquet may unpack to more."""
        return self.whole and self.size <= HEAD_FILE_BYTES and not self.parquet


def _content(path: Path, size: int, head_only: bool) -> _Content:
    """The content of a file of `size` bytes; with `head_only` of a packed one only the beginning. Raises DataError."""
    file: BinaryIO = open(path, "rb")  # noqa: SIM115  held as long as the table
    first = file.read(16)
    packing, parquet = packing_of(first), first.startswith(PARQUET)
    if not packing:
        return _Content(file=file, size=size, whole=True, parquet=parquet)
    with file:
        unpacked = unpack(file, packing, path, size, HEAD_FILE_BYTES if head_only else None)
    return _Content(
        file=unpacked.file,
        size=unpacked.file.seek(0, 2) if unpacked.whole else size,
        whole=unpacked.whole,
        parquet=parquet,
        words=unpacked.words,
        inner=unpacked.name,
        digest=unpacked.digest,
    )


class LineTable:
    """JSON Lines, CSV and plain text: one pass finds where each row begins."""

    def __init__(
        self, file: BinaryIO, path: Path, file_format: Format, size: int, digest: str = "", head_only: bool = False
    ) -> None:
        self.path, self.name, self.format, self.size = str(path), path.name, file_format, size
        self.unit = "row" if file_format.kind == "json" else "line"
        self.classes = dict[str, tuple[str, ...]]()
        self.whole = not head_only
        self._lock = threading.Lock()
        self.digest = digest if head_only or digest else _digest(file, path, size)
        most = HEAD_TABLE_BYTES if head_only else sys.maxsize
        self._file = self._as_utf8_lines(file, most)
        self._file.seek(0 if self._file is not file else file_format.mark)
        with reading(self.path, self.name, "finding rows", "bytes", size) as on_progress:
            index = _index(self._file, file_format, self.name, most, on_progress)
        self._starts, self._lines, self._end = index.starts, index.lines, index.end
        if file_format.kind == "lines" and index.blank:  # for the other formats blank lines mean nothing
            self.format = _with_notice_of_blank_lines(self.format, index.blank, self.name, head_only)
        if not self._starts:
            names = ", ".join(file_format.columns[:20])
            fault = f"has a header ({names:.200}) and no rows" if file_format.kind == "csv" else "has no rows"
            raise DataError(f"{self.name} {fault}; give at least one", self.name)
        self.row_bytes = max(1, (self._end - self._starts[0]) // len(self._starts))

    def _as_utf8_lines(self, file: BinaryIO, most: int) -> BinaryIO:
        """The file, or a temporary one with about its first `most` bytes as UTF-8 lines where it has no such lines."""
        file_format = self.format
        if file_format.kind == "json":
            lines, notices = json_lines(file, file_format, self.name, most)
            self.format = replace(file_format, notices=(*file_format.notices, *notices))
            return lines
        if file_format.encoding != "utf-8" or file_format.mac_lines:
            return utf8_lines(file, file_format, self.name, most + 2 * MOST_ROW_BYTES)
        return file

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
            dense = self.format.kind == "csv" and span <= 2 * len(group) and b'"' not in block
            cells = _unquoted_cells(block, self.format, span) if dense else None
            if cells is not None:
                lines, names = self._lines, self.format.columns
                for index in group:
                    yield Record(lines[index], dict(zip(names, cells[index - first], strict=True)))
            else:
                for index in group:
                    yield self._parse(index, block[self._starts[index] - start : self._stop(index) - start])

    def _stop(self, index: int) -> int:
        """The position behind a row."""
        return self._starts[index + 1] if index + 1 < len(self._starts) else self._end

    def _groups(self, indices: Sequence[int]) -> Iterator[list[int]]:
        """The rows in groups that lie within `BLOCK_BYTES`, to be read at once."""
        group: list[int] = []
        for index in indices:
            if group and self._stop(index) - self._starts[group[0]] > BLOCK_BYTES:
                yield group
                group = []
            group.append(index)
        if group:
            yield group

    def _parse(self, index: int, line: bytes) -> Record | BadRow:
        line_number = self._lines[index]
        try:
            return Record(line_number, FORMATS[self.format.kind].parse(line.decode("utf-8"), self.format))
        except UnicodeDecodeError as error:
            return BadRow(
                line_number, f"is not UTF-8 (byte 0x{line[error.start]:02x}); data.encoding can say what it is"
            )
        except (ValueError, RecursionError) as error:
            return BadRow(line_number, str(error))


def _unquoted_cells(block: bytes, file_format: Format, rows: int) -> list[list[str]] | None:
    """The cells of `rows` CSV rows without quotation marks, split at once, which is fast; None where one of them breaks
    the format."""
    try:
        lines = block.decode("utf-8").split("\n")
        table = [cells for cells in csv.reader(lines, delimiter=file_format.delimiter) if cells]
    except (csv.Error, UnicodeDecodeError):
        return None
    width = len(file_format.columns)
    return table if len(table) == rows and all(len(cells) == width for cells in table) else None


def _with_notice_of_blank_lines(file_format: Format, count: int, name: str, head_only: bool) -> Format:
    """The format of a text with a notice of its blank lines, which are no rows."""
    scope = " looked at" if head_only else ""
    many = "1 blank line" if count == 1 else f"{count:,} blank lines"
    message = f"{many}{scope} of {name} {'is no row' if count == 1 else 'are no rows'} and left out."
    notice = Notice(field="data.format", message=message, count=count)
    return replace(file_format, notices=(*file_format.notices, notice))


@dataclass(frozen=True, slots=True)
class _Index:
    """Where the rows of a file lie."""

    starts: array[int]
    """The position of each row."""
    lines: array[int]
    """The line number of each row, from 1."""
    end: int
    """The position behind the last row."""
    blank: int = 0
    """How many lines are blank."""


def _digest(file: BinaryIO, path: Path, size: int) -> str:
    """The SHA-256 of a file of `size` bytes."""
    digest, done = hashlib.sha256(), 0
    file.seek(0)
    with reading(str(path), path.name, "hashing", "bytes", size) as on_progress:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
            done += len(block)
            on_progress(done)
    return digest.hexdigest()


def _index(file: BinaryIO, file_format: Format, name: str, most: int, on_progress: Callable[[int], None]) -> _Index:
    """The index of the rows in about `most` bytes from the file's position on."""
    if file_format.kind == "paragraphs":
        return _index_paragraphs(file, most, on_progress)
    for _ in range(file_format.above):
        file.readline()
    if file_format.kind != "csv":
        return _index_lines(file, file_format.above, most, on_progress, stop_at_quote=False)[0]
    begin = file.tell()
    index, quoted = _index_lines(file, file_format.above, most, on_progress, stop_at_quote=True)
    if quoted:  # a quoted cell may hold line ends: the csv module finds where records end
        file.seek(begin)
        index = _index_records(file, file_format, name, most, on_progress)
    if file_format.header:
        header_lines = 1 + file_format.rule
        del index.starts[:header_lines], index.lines[:header_lines]
    return index


def _index_lines(
    file: BinaryIO, above: int, most: int, on_progress: Callable[[int], None], *, stop_at_quote: bool
) -> tuple[_Index, bool]:
    """The index of the lines that are not blank, behind `above` lines that have been read; and whether it has ended at
    a quotation mark, as `stop_at_quote` asks."""
    starts, lines = array("Q"), array("Q")
    position = line_start = file.tell()
    line, has_text, at_line_start = above, False, True
    for piece in _pieces(file):
        if at_line_start:
            line, line_start, has_text = line + 1, position, False
        if not has_text and not piece.isspace():
            starts.append(line_start)
            lines.append(line)
            has_text = True
        if stop_at_quote and b'"' in piece:
            return _Index(starts, lines, position), True
        position += len(piece)
        at_line_start = piece.endswith(b"\n")
        if position > most and (at_line_start or position - line_start > MOST_ROW_BYTES):
            break
        if at_line_start and line % PROGRESS_ROWS == 0:
            on_progress(position)
    return _Index(starts, lines, position, line - above - len(starts)), False


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    """The lines of a file, long ones in several pieces, so that no line is held whole."""
    return iter(partial(file.readline, BLOCK_BYTES), b"")


def _index_paragraphs(file: BinaryIO, most: int, on_progress: Callable[[int], None]) -> _Index:
    """The index of paragraphs, which blank lines separate."""
    starts, lines = array("Q"), array("Q")
    position = line_start = file.tell()
    line, line_is_blank, at_line_start, after_blank = 0, True, True, True
    for piece in _pieces(file):
        if at_line_start:
            line, line_start, line_is_blank = line + 1, position, True
        if line_is_blank and not piece.isspace():
            line_is_blank = False
            if after_blank:
                starts.append(line_start)
                lines.append(line)
        position += len(piece)
        at_line_start = piece.endswith(b"\n")
        after_blank = line_is_blank if at_line_start else after_blank
        if position > most and (after_blank or (starts and position - starts[-1] > MOST_ROW_BYTES)):
            break
        if at_line_start and line % PROGRESS_ROWS == 0:
            on_progress(position)
    return _Index(starts, lines, position)


class _LineCounter:
    """The lines of a file for csv.reader, which takes one only when it needs it: `position` is where a record ends."""

    def __init__(self, file: BinaryIO, name: str, above: int) -> None:
        self._file, self._name = file, name
        self.position, self.line = file.tell(), above
        self.record_start = self.position

    def __iter__(self) -> Iterator[str]:
        for line in iter(partial(self._file.readline, RECORD_BYTES + 1), b""):
            self.position += len(line)
            self.line += 1
            if self.position - self.record_start > RECORD_BYTES:
                message = (
                    f"a row of {self._name} that ends at line {self.line} is longer than {RECORD_BYTES >> 20} MiB; "
                )
                raise DataError(message + "a quotation mark before it is probably never closed", self._name)
            yield line.decode("latin-1").rstrip("\r\n") + "\n"  # only ASCII matters to where a record ends


def _index_records(
    file: BinaryIO, file_format: Format, name: str, most: int, on_progress: Callable[[int], None]
) -> _Index:
    """The index of CSV records whose quoted cells may hold line ends. Raises DataError for an endless record."""
    csv.field_size_limit(2**31 - 1)
    counter = _LineCounter(file, name, file_format.above)
    starts, lines = array("Q"), array("Q")
    records = csv.reader(iter(counter), delimiter=file_format.delimiter)
    while True:
        start, line = counter.position, counter.line
        counter.record_start = start
        if start > most:
            return _Index(starts, lines, start)
        try:
            cells = next(records)
        except StopIteration:
            return _Index(starts, lines, counter.position)
        except csv.Error:  # reported when the row is read
            cells = [""]
        if cells:
            starts.append(start)
            lines.append(line + 1)
            if len(starts) % PROGRESS_ROWS == 0:
                on_progress(start)


def head(table: Table, rows: int = HEAD_ROWS) -> list[Record]:
    """Those of a table's first `rows` rows that can be read; fewer where they are large."""
    records, characters = list[Record](), 0
    for row in table.read(range(min(rows, len(table)))):
        if isinstance(row, Record):
            records.append(row)
            characters += sum(len(value) for value in row.values.values() if isinstance(value, str | list | dict))
            if characters > HEAD_CHARACTERS:
                break
    return records
