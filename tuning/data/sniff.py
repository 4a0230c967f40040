"""What a file of rows is, told by its first bytes and never by its name.

Comes in: an open file, and the format and encoding a person may have said outright.  Goes out: a `Format`: how the
bytes become text, what separates rows and columns, and a sentence that says so.  Raises DataError with the fix for
what is no table of rows: archives, pickles, pictures, bytes of an unknown encoding.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, BinaryIO

from tuning.errors import DataError

HEAD_BYTES = 256 * 1024
FIRST_LINE_BYTES = 64 * 2**20
"""How far a first line without an end is followed to tell JSON Lines from one JSON document."""
DELIMITERS = {"\t": "tabs", ",": "commas", ";": "semicolons", "|": "bars"}
TEXT_NAMES = ("text", "content", "document", "body", "sentence", "review", "comment", "tweet", "article", "story")
KNOWN_NAMES = frozenset(
    (
        *TEXT_NAMES,
        "prompt",
        "completion",
        "question",
        "answer",
        "instruction",
        "input",
        "output",
        "response",
        "query",
        "messages",
        "conversations",
        "label",
        "labels",
        "class",
        "category",
        "sentiment",
        "topic",
        "target",
        "source",
        "title",
        "id",
        "rating",
        "stars",
        "score",
        "intent",
        "context",
        "chosen",
        "message",
    )
)

_REFUSED = (
    (b"\x1f\x8b", "is compressed with gzip again; unpack it first (gunzip)"),
    (b"PK\x03\x04", "is a zip archive or an Excel workbook; unpack it, or save the sheet as CSV"),
    (b"\xd0\xcf\x11\xe0", "is an old Excel or Word file; save the sheet as CSV"),
    (b"BZh", "is compressed with bzip2 again; unpack it first (bunzip2)"),
    (b"\xfd7zXZ", "is compressed with xz again; unpack it first (unxz)"),
    (b"\x28\xb5\x2f\xfd", "is compressed with zstd again; unpack it first (unzstd)"),
    (b"7z\xbc\xaf", "is a 7z archive; unpack it first"),
    (b"%PDF", "is a PDF; copy its text into a plain text file"),
    (b"SQLite format 3", "is an SQLite database; export a table as CSV"),
    (b"ARROW1", "is an Arrow IPC file; save it as Parquet"),
    (b"\x89PNG", "is a picture; give rows of text"),
    (b"\xff\xd8\xff", "is a picture; give rows of text"),
    (b"\x80\x02", "is a pickle, which can run code when it is opened; save the rows as JSONL"),
    (b"\x80\x03", "is a pickle, which can run code when it is opened; save the rows as JSONL"),
    (b"\x80\x04", "is a pickle, which can run code when it is opened; save the rows as JSONL"),
    (b"\x80\x05", "is a pickle, which can run code when it is opened; save the rows as JSONL"),
)
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32", "UTF-32 by its byte-order mark"),
    (codecs.BOM_UTF32_BE, "utf-32", "UTF-32 by its byte-order mark"),
    (codecs.BOM_UTF8, "utf-8", "UTF-8 with a byte-order mark"),
    (codecs.BOM_UTF16_LE, "utf-16", "UTF-16 by its byte-order mark"),
    (codecs.BOM_UTF16_BE, "utf-16", "UTF-16 by its byte-order mark"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """How bytes become rows. `mark` counts the bytes of a UTF-8 byte-order mark to leave out."""

    kind: str
    """jsonl, json, csv, parquet, lines or paragraphs."""
    encoding: str = "utf-8"
    encoding_words: str = "UTF-8"
    mark: int = 0
    delimiter: str = ""
    columns: tuple[str, ...] = ("text",)
    """Of a CSV file; plain text has the one column `text`."""
    header: bool = True
    mac_lines: bool = False
    """Lines end with a carriage return alone."""
    packed: str = ""
    """How the file was compressed, for a person; empty where it was not."""

    @property
    def words(self) -> str:
        """What was recognised, for a person."""
        return f"{self._plain_words}, {self.packed}" if self.packed else self._plain_words

    @property
    def _plain_words(self) -> str:
        if self.kind == "csv":
            name = "TSV" if self.delimiter == "\t" else "CSV"
            return f"{name}, columns separated by {DELIMITERS.get(self.delimiter, self.delimiter)}" + (
                "" if self.header else ", without a header line"
            )
        return {
            "jsonl": "JSON Lines, one object a line",
            "json": "JSON, one document",
            "parquet": "Parquet",
            "lines": "plain text, each line a row",
            "paragraphs": "plain text, a blank line between rows",
        }[self.kind]


def sniff(file: BinaryIO, name: str, kind: str = "auto", encoding: str = "auto", packed: str = "") -> Format:
    """Tell the format of an open file; `kind` and `encoding` other than auto are taken as said.

    `packed` says how a file was compressed, where this is what was inside.
    """
    head = file.read(HEAD_BYTES)
    if not head:
        raise DataError(f"{name} is empty and has no rows; give at least one", name)
    if head[:4] == b"PAR1":
        return Format(kind="parquet", encoding_words="Parquet's own")
    refused = (*_REFUSED, (head[:257] + b"ustar", "is a tar archive of files; unpack it and give the folder"))
    for magic, words in refused:
        if head.startswith(magic):
            words = f"is compressed, and what is inside {words}" if packed else words
            raise DataError(f"{name} {words}", name, "JSONL, JSON, CSV, TSV, Parquet or plain text")
    if kind == "parquet":
        message = f"{name} is not Parquet: it does not begin with PAR1; set data.format to auto"
        raise DataError(message, kind, "auto", "data.format")
    whole = len(head) < HEAD_BYTES
    coded = _encoding(head, name, encoding, whole)
    text = _decoded(head, coded, name, whole)
    if not text.strip():
        raise DataError(f"{name} holds nothing but blank space and has no rows; give at least one", name)
    mac = "\n" not in text and "\r" in text.rstrip("\r")
    text = text.replace("\r\n", "\n").replace("\r", "\n") if mac else text
    if kind == "auto":
        found = _kind(text, whole, file)
        kind = found.kind
    else:
        found = _csv_format(text, whole) or _one_column(text) if kind == "csv" else Format(kind=kind)
    return replace(
        found,
        kind=kind,
        encoding=coded.encoding,
        encoding_words=coded.encoding_words,
        mark=coded.mark,
        mac_lines=mac,
        packed=packed,
    )


def _encoding(head: bytes, name: str, said: str, whole: bool) -> Format:
    for mark, encoding, words in _MARKS:
        if head.startswith(mark) and said in ("auto", encoding):
            return Format(
                kind="lines", encoding=encoding, encoding_words=words, mark=len(mark) if encoding == "utf-8" else 0
            )
    if said != "auto":
        return Format(kind="lines", encoding=said, encoding_words=f"{said}, as data.encoding says")
    if b"\0" in head:
        message = (
            f"{name} holds zero bytes: it is not text, or UTF-16 without a byte-order mark; save it as UTF-8, or say "
            "what it is with data.encoding"
        )
        raise DataError(message, name, "text", "data.encoding")
    return Format(kind="lines")


def _decoded(head: bytes, coded: Format, name: str, whole: bool) -> str:
    decoder = codecs.getincrementaldecoder(coded.encoding)("strict" if coded.encoding_words == "UTF-8" else "replace")
    try:
        return decoder.decode(head[coded.mark :], final=whole)
    except UnicodeDecodeError as error:
        line = head[: error.start].count(b"\n") + 1
        message = (
            f"line {line} of {name} is not UTF-8 (byte 0x{head[error.start]:02x}); save the file as UTF-8, or set "
            "data.encoding to what it is, often latin-1 or cp1252"
        )
        raise DataError(message, "auto", "utf-8, utf-16, latin-1, cp1252", "data.encoding") from None


def _kind(text: str, whole: bool, file: BinaryIO) -> Format:
    start = text.lstrip()
    if start.startswith("{"):
        return Format(kind=_object_kind(start, whole, file))
    if re.match(r"\[\s*[\[{\"\]]", start):
        return Format(kind="json")
    found = _csv_format(text, whole)
    if found:
        return found
    first, _, rest = text.strip().partition("\n")
    if first.strip().strip('"').lower() in TEXT_NAMES and rest:
        return _one_column(text)
    body = text.strip()
    paragraphs = re.search(r"\S[ \t\r]*\n[ \t\r]*\n", body) is not None
    return Format(kind="paragraphs" if paragraphs else "lines")


def _object_kind(text: str, whole: bool, file: BinaryIO) -> str:
    """Lines of objects, or one document? An object of columns and a pretty-printed one are documents."""
    first, newline, rest = text.partition("\n")
    if not newline and not whole:  # a very long first line: is there a second one?
        ends = (b"\n" in block for block in iter(lambda: file.read(2**20), b""))
        if any(islice(ends, FIRST_LINE_BYTES // 2**20)):
            return "jsonl"
        return "json" if re.match(r'\{\s*"[^"]*"\s*:\s*\[\s*(["\d]|-\d)', text) else "jsonl"
    value = _object(first)
    if value is None:
        second = rest.lstrip().partition("\n")[0]
        broken_line = first.rstrip().endswith("}") or _object(second) is not None
        return "jsonl" if broken_line else "json"
    if rest.strip() or not value:
        return "jsonl"
    lists = [isinstance(item, list) for item in value.values()]
    if len(lists) == 1 and lists[0]:  # {"data": [{…}]}, unless it is one conversation
        ((key, items),) = value.items()
        return "jsonl" if not items or key.lower() in ("messages", "conversations", "conversation") else "json"
    return "json" if all(lists) else "jsonl"


def _object(line: str) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _csv_format(text: str, whole: bool) -> Format | None:
    """The delimiter under which the head is a table, if there is one; known column names count first."""
    best: tuple[tuple[int, int], Format] | None = None
    for delimiter in DELIMITERS:
        rows = csv_head(text, delimiter, whole)
        if len(rows) < 2 or len(rows[0]) < 2:
            continue
        width, first = len(rows[0]), [cell.strip() for cell in rows[0]]
        hits = sum(cell.lower() in KNOWN_NAMES for cell in first)
        share = sum(len(row) == width for row in rows) / len(rows)
        plain = all(len(cell) <= 40 and len(cell.split()) <= 4 for cell in first)
        if share < (0.5 if hits else 0.9) or not (hits or plain):
            continue
        header = len(set(first)) == width and not any(_number(cell) for cell in first)
        columns = tuple(cell or f"column {n}" for n, cell in enumerate(first, 1))
        if not header:
            columns = tuple(f"column {n}" for n in range(1, width + 1))
        found = Format(kind="csv", delimiter=delimiter, columns=columns, header=header)
        if best is None or (hits, width) > best[0]:
            best = (hits, width), found
    return best[1] if best else None


def _one_column(text: str) -> Format:
    """A table of one column: any delimiter does that splits no row of the head."""
    for delimiter in DELIMITERS:
        rows = csv_head(text, delimiter, whole=True)
        if rows and all(len(row) == 1 for row in rows):
            return Format(kind="csv", delimiter=delimiter, columns=(rows[0][0].strip() or "text",))
    return Format(kind="lines")


def csv_head(text: str, delimiter: str, whole: bool, limit: int = 60) -> list[list[str]]:
    """The first records of a CSV text; the last one is left out where the text was cut off."""
    csv.field_size_limit(2**31 - 1)  # the library's own limit refuses a cell above 131,072 characters
    rows: list[list[str]] = []
    try:
        for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter):
            if len(rows) > limit:
                return rows[:limit]
            if row:
                rows.append(row)
    except csv.Error:
        pass
    return rows if whole or len(rows) < 2 else rows[:-1]


def _number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
