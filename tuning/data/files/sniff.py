"""Recognises the format of a file of rows by its first bytes; what its name promises has to agree with them.

What is no table of rows (archives, pickles, web pages, source code, bytes of an unknown encoding) is refused with the
fix, and so is a file that is called one format and holds another.
"""

from __future__ import annotations

import codecs
import json
import re
from dataclasses import replace
from itertools import islice
from typing import Any, BinaryIO

from tuning.core.errors import DataError, Notice
from tuning.data.files.formats import FORMATS, PARQUET, PROMISED, TITLES, Format, ending_of
from tuning.data.files.header import ROW_NAMES, SHOWN, TEXT_NAMES, TableHead, one_column, table_head
from tuning.data.files.other_formats import PLAIN_TEXT, binary, document, document_words

HEAD_BYTES = 256 * 1024
FIRST_LINE_BYTES = 64 * 2**20
"""How far a first line without an end is followed to tell JSON Lines from one JSON document."""
_TALKS = ("messages", "conversations", "conversation")
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32", "UTF-32 by its byte-order mark"),
    (codecs.BOM_UTF32_BE, "utf-32", "UTF-32 by its byte-order mark"),
    (codecs.BOM_UTF8, "utf-8", "UTF-8 with a byte-order mark"),
    (codecs.BOM_UTF16_LE, "utf-16", "UTF-16 by its byte-order mark"),
    (codecs.BOM_UTF16_BE, "utf-16", "UTF-16 by its byte-order mark"),
)


def sniff(
    file: BinaryIO, name: str, kind: str = "auto", encoding: str = "auto", packed: str = "", inner: str = ""
) -> Format:
    """Tell the format of an open file; `kind` and `encoding` other than auto are taken as said.

    `packed` says how a file was compressed, where this is what was inside, and `inner` what that is called.
    """
    head = file.read(HEAD_BYTES)
    if not head:
        raise DataError(f"{name} is empty and has no rows; give at least one", name)
    ending = ending_of(inner or name)
    if head.startswith(PARQUET):
        if kind == "auto":
            _check_promise(name, ending, "parquet", "")
        return Format(kind="parquet", encoding_words="Parquet's own")
    if words := binary(head):
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
        found = _recognised(text, whole, file, name, ending)
    elif kind == "csv":
        found = _table(table_head(text, whole, name, sure=True) or one_column(text, name, sure=True))
    else:
        found = Format(kind=kind)
    return replace(
        found,
        encoding=coded.encoding,
        encoding_words=coded.encoding_words,
        mark=coded.mark,
        mac_lines=mac,
        packed=packed,
    )


def _recognised(text: str, whole: bool, file: BinaryIO, name: str, ending: str) -> Format:
    """The format by the content. Raises DataError where the name promises another, or where it is no rows at all."""
    title, notices = document(text, ending), tuple[Notice, ...]()
    if title is not None and ending not in PLAIN_TEXT:
        raise DataError(f"{name} {document_words(title, text)}", name, "JSONL, JSON, CSV, TSV, Parquet or plain text")
    if title is not None:
        message = f"{name} looks like {title} and is read as plain text all the same, for it is called {ending}."
        notices = (Notice(field="data.format", message=message),)
    promise = PROMISED.get(ending, "")
    if promise == "csv" and not whole and "\n" not in text:
        message = f"the first line of {name} is longer than {HEAD_BYTES >> 10} KiB: it is no table that is read here"
        raise DataError(message, name, f"a header of up to {HEAD_BYTES >> 10} KiB")
    found = Format(kind="lines") if title is not None else _kind(text, whole, file, name, ending)
    if FORMATS[found.kind].family == "text":
        body = text.strip()
        found = replace(found, kind="lines")
        if re.search(r"\S[ \t\r]*\n[ \t\r]*\n", body):
            found = replace(found, kind="paragraphs")
            message = (
                f"{name} has blank lines, and what stands between two of them is one row; for a row a line set lines."
            )
            notices = (*notices, Notice(field="data.format", message=message))
    _check_promise(name, ending, found.kind, text)
    return replace(found, notices=(*found.notices, *notices))


def _check_promise(name: str, ending: str, kind: str, text: str) -> None:
    """Raises DataError where a file is called one format and holds another."""
    promise, family = PROMISED.get(ending), FORMATS[kind].family
    if promise is None or promise == family:
        return
    shown = f" (it begins {text.strip()[:SHOWN]!r})" if family == "text" else ""
    message = (
        f"{name} is called {ending}, which promises {TITLES[promise]}, and holds {TITLES[family]}{shown}; fetch or "
        f"save it again, or set data.format to {kind} where that is what is meant"
    )
    raise DataError(message, name, f"{TITLES[promise]}, as {ending} promises")


def _table(head: TableHead | None) -> Format:
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


def _kind(text: str, whole: bool, file: BinaryIO, name: str, ending: str) -> Format:
    """JSON, a table, or lines of text."""
    sure = PROMISED.get(ending) == "csv"
    start = text.lstrip()
    if start.startswith("{"):
        return Format(kind=_object_kind(start, whole, file, ending))
    if re.match(r"\[\s*[\[{\"\]]", start):
        return Format(kind="json", in_array=True)
    head = table_head(text, whole, name, sure)
    first, _, rest = text.strip().partition("\n")
    if head is None and (sure or (first.strip().strip('"').lower() in TEXT_NAMES and rest)):
        head = one_column(text, name, sure)
    return _table(head)


def _object_kind(text: str, whole: bool, file: BinaryIO, ending: str) -> str:
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
    if all(isinstance(item, list) for item in value.values()):  # columns, or {"data": [{…}]}; not one conversation
        return "json" if len(value) > 1 or list_of_rows(value) else "jsonl"
    return "json" if ending == ".json" and (list_of_rows(value) or objects_only(value)) else "jsonl"


def list_of_rows(value: dict[str, Any]) -> str | None:
    """The key under which an object holds a list of rows; None where there is none, or where the object is a row
    itself: one with a text beside it, or with the turns of a conversation."""
    found = [key for key, items in value.items() if _are_rows(key, items)]
    texts = [key for key, item in value.items() if isinstance(item, str) and key.lower() in ROW_NAMES]
    return found[0] if len(found) == 1 and not texts else None


def _are_rows(key: str, items: Any) -> bool:
    if not isinstance(items, list) or not items or not all(isinstance(item, dict) for item in items):
        return False
    turns = {"role", "content"} <= set(items[0]) or {"from", "value"} <= set(items[0])
    return not turns and key.lower() not in _TALKS


def objects_only(value: dict[str, Any]) -> bool:
    """An object of several objects: columns with numbered cells, or rows under names."""
    return len(value) > 1 and all(isinstance(one, dict) and one for one in value.values())


def _object(line: str) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
