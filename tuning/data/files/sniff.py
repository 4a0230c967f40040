"""The format of a file of rows by its first bytes, with which the ending of its name has to agree.

A file without rows (an archive, a pickle, a web page, source code, bytes of an unknown encoding) is refused with the
fix, and so is one whose ending promises another format than it holds.
"""

from __future__ import annotations

import codecs
import json
import re
from dataclasses import replace
from itertools import islice
from typing import Any, BinaryIO

from tuning.core.errors import DataError, Notice
from tuning.data.files.file_format import Format
from tuning.data.files.formats import FORMATS, PARQUET, PROMISED, TITLES, ending_of
from tuning.data.files.header import ROW_NAMES, SHOWN, TEXT_NAMES, TableHead, one_column, table_head
from tuning.data.files.other_formats import PLAIN_TEXT, binary_refusal, document_refusal, document_title

HEAD_BYTES = 256 * 1024
FIRST_LINE_BYTES = 64 * 2**20
"""How many bytes of a first line without an end are read to tell JSON Lines from one JSON document."""
_CONVERSATION_KEYS = ("messages", "conversations", "conversation")
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32", "UTF-32 by its byte-order mark"),
    (codecs.BOM_UTF32_BE, "utf-32", "UTF-32 by its byte-order mark"),
    (codecs.BOM_UTF8, "utf-8", "UTF-8 with a byte-order mark"),
    (codecs.BOM_UTF16_LE, "utf-16", "UTF-16 by its byte-order mark"),
    (codecs.BOM_UTF16_BE, "utf-16", "UTF-16 by its byte-order mark"),
)


def sniff(
    file: BinaryIO, name: str, kind: str = "auto", encoding: str = "auto", packed: str = "", inner: str = ""
) -> Format:
    """The format of an open file; a `kind` or `encoding` other than auto is taken as given. Raises DataError.

    Where the content was unpacked from another file, `packed` says how that was compressed, and `inner` is the name of
    the file inside.
    """
    head = file.read(HEAD_BYTES)
    if not head:
        raise DataError(f"{name} is empty and has no rows; give at least one", name)
    ending = ending_of(inner or name)
    if head.startswith(PARQUET):
        if kind == "auto":
            _check_promise(name, ending, "parquet", "")
        return Format(kind="parquet", encoding_words="Parquet's own")
    if refusal := binary_refusal(head):
        refusal = f"is compressed, and what is inside {refusal}" if packed else refusal
        raise DataError(f"{name} {refusal}", name, "JSONL, JSON, CSV, TSV, Parquet or plain text")
    if kind == "parquet":
        message = f"{name} is not Parquet: it does not begin with PAR1; set data.format to auto"
        raise DataError(message, kind, "auto", "data.format")
    whole = len(head) < HEAD_BYTES
    encoded = _encoding(head, name, encoding, whole)
    text = _decode(head, encoded, name, whole)
    if not text.strip():
        raise DataError(f"{name} holds nothing but blank space and has no rows; give at least one", name)
    mac = "\n" not in text and "\r" in text.rstrip("\r")
    text = text.replace("\r\n", "\n").replace("\r", "\n") if mac else text
    if kind == "auto":
        file_format = _format_by_content(text, whole, file, name, ending)
    elif kind == "csv":
        file_format = _table_format(
            table_head(text, whole, name, required=True) or one_column(text, name, required=True)
        )
    else:
        file_format = Format(kind=kind)
    return replace(
        file_format,
        encoding=encoded.encoding,
        encoding_words=encoded.encoding_words,
        mark=encoded.mark,
        mac_lines=mac,
        packed=packed,
    )


def _format_by_content(text: str, whole: bool, file: BinaryIO, name: str, ending: str) -> Format:
    """The format by the content. Raises DataError where the name promises another, or where the content is no rows."""
    title, notices = document_title(text, ending), tuple[Notice, ...]()
    if title is not None and ending not in PLAIN_TEXT:
        raise DataError(f"{name} {document_refusal(title, text)}", name, "JSONL, JSON, CSV, TSV, Parquet or plain text")
    if title is not None:
        message = f"{name} looks like {title} and is read as plain text all the same, for it is called {ending}."
        notices = (Notice(field="data.format", message=message),)
    promise = PROMISED.get(ending, "")
    if promise == "csv" and not whole and "\n" not in text:
        message = f"the first line of {name} is longer than {HEAD_BYTES >> 10} KiB: it is no table that is read here"
        raise DataError(message, name, f"a header of up to {HEAD_BYTES >> 10} KiB")
    file_format = Format(kind="lines") if title is not None else _structure(text, whole, file, name, ending)
    if FORMATS[file_format.kind].family == "text":
        body = text.strip()
        file_format = replace(file_format, kind="lines")
        if re.search(r"\S[ \t\r]*\n[ \t\r]*\n", body):
            file_format = replace(file_format, kind="paragraphs")
            message = (
                f"{name} has blank lines, and what stands between two of them is one row; for a row a line set lines."
            )
            notices = (*notices, Notice(field="data.format", message=message))
    _check_promise(name, ending, file_format.kind, text)
    return replace(file_format, notices=(*file_format.notices, *notices))


def _check_promise(name: str, ending: str, kind: str, text: str) -> None:
    """Raises DataError where the ending of a file's name promises another format than it holds."""
    promise, family = PROMISED.get(ending), FORMATS[kind].family
    if promise is None or promise == family:
        return
    shown = f" (it begins {text.strip()[:SHOWN]!r})" if family == "text" else ""
    message = (
        f"{name} is called {ending}, which promises {TITLES[promise]}, and holds {TITLES[family]}{shown}; fetch or "
        f"save it again, or set data.format to {kind} where that is what is meant"
    )
    raise DataError(message, name, f"{TITLES[promise]}, as {ending} promises")


def _table_format(head: TableHead | None) -> Format:
    """The format of a table with this head; lines of text where there is none."""
    if head is None:
        return Format(kind="lines")
    return Format(
        kind="csv",
        delimiter=head.delimiter,
        columns=head.columns,
        header=head.header,
        above=head.above,
        rule=head.rule,
        notices=head.notices,
    )


def _encoding(head: bytes, name: str, given: str, whole: bool) -> Format:
    """A format with the encoding of these bytes, that of a byte-order mark or the one given. Raises DataError."""
    for mark, encoding, words in _BYTE_ORDER_MARKS:
        if head.startswith(mark) and given in ("auto", encoding):
            return Format(
                kind="lines", encoding=encoding, encoding_words=words, mark=len(mark) if encoding == "utf-8" else 0
            )
    if given != "auto":
        return Format(kind="lines", encoding=given, encoding_words=f"{given}, as data.encoding says")
    if b"\0" in head:
        message = (
            f"{name} holds zero bytes: it is not text, or UTF-16 without a byte-order mark; save it as UTF-8, or say "
            "what it is with data.encoding"
        )
        raise DataError(message, name, "text", "data.encoding")
    return Format(kind="lines")


def _decode(head: bytes, encoded: Format, name: str, whole: bool) -> str:
    """The text of these bytes. Raises DataError where they are not UTF-8, and no encoding was given."""
    decoder = codecs.getincrementaldecoder(encoded.encoding)(
        "strict" if encoded.encoding_words == "UTF-8" else "replace"
    )
    try:
        return decoder.decode(head[encoded.mark :], final=whole)
    except UnicodeDecodeError as error:
        line = head[: error.start].count(b"\n") + 1
        message = (
            f"line {line} of {name} is not UTF-8 (byte 0x{head[error.start]:02x}); save the file as UTF-8, or set "
            "data.encoding to what it is, often latin-1 or cp1252"
        )
        raise DataError(message, "auto", "utf-8, utf-16, latin-1, cp1252", "data.encoding") from None


def _structure(text: str, whole: bool, file: BinaryIO, name: str, ending: str) -> Format:
    """The format by the structure of the text: JSON, a table, or lines."""
    required = PROMISED.get(ending) == "csv"
    start = text.lstrip()
    if start.startswith("{"):
        return Format(kind=_object_kind(start, whole, file, ending))
    if re.match(r"\[\s*[\[{\"\]]", start):
        return Format(kind="json", in_array=True)
    head = table_head(text, whole, name, required)
    first, _, rest = text.strip().partition("\n")
    if head is None and (required or (first.strip().strip('"').lower() in TEXT_NAMES and rest)):
        head = one_column(text, name, required)
    return _table_format(head)


def _object_kind(text: str, whole: bool, file: BinaryIO, ending: str) -> str:
    """`jsonl` for lines of objects, `json` for one document: an object of columns, or one over several lines."""
    first, newline, rest = text.partition("\n")
    if not newline and not whole:
        return _kind_of_long_line(text, file)
    value = _object(first)
    if value is None:
        second = rest.lstrip().partition("\n")[0]
        broken_line = first.rstrip().endswith("}") or _object(second) is not None
        return "jsonl" if broken_line else "json"
    if rest.strip() or not value:
        return "jsonl"
    return "json" if _holds_several_rows(value, ending) else "jsonl"


def _kind_of_long_line(text: str, file: BinaryIO) -> str:
    """`_object_kind` of a first line that is longer than the head: is there a second one?"""
    line_ends = (b"\n" in block for block in iter(lambda: file.read(2**20), b""))
    if any(islice(line_ends, FIRST_LINE_BYTES // 2**20)):
        return "jsonl"
    return "json" if re.match(r'\{\s*"[^"]*"\s*:\s*\[\s*(["\d]|-\d)', text) else "jsonl"


def _holds_several_rows(value: dict[str, Any], ending: str) -> bool:
    """Whether the only object of a file holds rows, and is not one itself."""
    if all(isinstance(item, list) for item in value.values()):  # columns, or {"data": [{…}]}; not one conversation
        return len(value) > 1 or list_of_rows(value) is not None
    return ending == ".json" and (list_of_rows(value) is not None or objects_only(value))


def list_of_rows(value: dict[str, Any]) -> str | None:
    """The key under which an object holds a list of rows; None where there is none, or where the object is a row
    itself: one with a text beside it, or with the turns of a conversation."""
    keys = [key for key, items in value.items() if _are_rows(key, items)]
    texts = [key for key, item in value.items() if isinstance(item, str) and key.lower() in ROW_NAMES]
    return keys[0] if len(keys) == 1 and not texts else None


def _are_rows(key: str, items: Any) -> bool:
    """Whether the items under this key are objects that are rows, and not the turns of a conversation."""
    if not isinstance(items, list) or not items or not all(isinstance(item, dict) for item in items):
        return False
    turns = {"role", "content"} <= set(items[0]) or {"from", "value"} <= set(items[0])
    return not turns and key.lower() not in _CONVERSATION_KEYS


def objects_only(value: dict[str, Any]) -> bool:
    """Whether an object holds several objects and nothing else: columns with numbered cells, or rows by name."""
    return len(value) > 1 and all(isinstance(member, dict) and member for member in value.values())


def _object(line: str) -> dict[str, Any] | None:
    """The JSON object in a line; None where the line is anything else."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
