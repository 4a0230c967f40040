"""What must be decoded before its rows can be found: other encodings, other line ends, one JSON document.

Comes in: an open file.  Goes out: an open temporary file of UTF-8 lines, in memory while it is small, gone with its
last user.  Raises DataError naming line and column.
"""

from __future__ import annotations

import codecs
import json
import re
import tempfile
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

from tuning.data.sniff import Format
from tuning.errors import DataError

MEMORY_BYTES = 32 * 2**20
DOCUMENT_BYTES = 256 * 2**20
"""The largest JSON document: it is one value, so it has to be read whole."""
_BLANK = re.compile(r"[ \t\r\n]*")


def _spool() -> BinaryIO:
    return cast(BinaryIO, tempfile.SpooledTemporaryFile(max_size=MEMORY_BYTES))


def decoded(file: BinaryIO, form: Format, name: str) -> BinaryIO:
    """The same text as UTF-8 with \\n or \\r\\n line ends."""
    out, decoder = _spool(), codecs.getincrementaldecoder(form.encoding)("strict")
    file.seek(form.mark)
    try:
        while True:
            block = file.read(2**20)
            text = decoder.decode(block, final=not block)
            out.write((text.replace("\r", "\n") if form.mac_lines else text).encode("utf-8"))
            if not block:
                break
    except UnicodeError as error:
        message = f"{name} cannot be read as {form.encoding}: {error}; set data.encoding to what it is"
        raise DataError(message, form.encoding, "the file's encoding", "data.encoding") from None
    out.seek(0)
    return out


def rows_of_document(file: BinaryIO, form: Format, name: str) -> BinaryIO:
    """One JSON document as JSON Lines: an array of rows, an object of columns, or an object around either."""
    file.seek(0, 2)
    if file.tell() > DOCUMENT_BYTES:
        limit = f"{DOCUMENT_BYTES >> 20} MiB"
        message = f"{name} is one JSON document of more than {limit}; save it as JSON Lines, one object a line"
        raise DataError(message, file.tell(), f"{limit} of one JSON document")
    file.seek(form.mark)
    try:
        text = file.read().decode(form.encoding)
        out = _spool()
        for row in _rows(text, name):
            out.write(json.dumps(row, ensure_ascii=True).encode() + b"\n")
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        raise DataError(f"{name} is not JSON: {error.msg} at {where}", where, "valid JSON") from None
    except UnicodeError as error:
        message = f"{name} cannot be read as {form.encoding}: {error}; set data.encoding to what it is"
        raise DataError(message, form.encoding, "the file's encoding", "data.encoding") from None
    except RecursionError:
        raise DataError(f"{name} is nested too deeply to be rows", name, "an array of objects") from None
    out.seek(0)
    return out


def _rows(text: str, name: str) -> Iterator[Any]:
    place = _after_blank(text, 0)
    if text[place] == "[":
        yield from _elements(text, place)
        return
    value = json.loads(text)
    inner = next(iter(value.values())) if isinstance(value, dict) and len(value) == 1 else None
    if isinstance(inner, list) and inner and isinstance(inner[0], dict):
        yield from inner
    elif isinstance(value, dict) and value and all(isinstance(column, list) for column in value.values()):
        sizes = {column: len(cells) for column, cells in value.items()}
        if len(set(sizes.values())) > 1:
            told = ", ".join(f"{column} {size}" for column, size in sizes.items())
            raise DataError(f"{name} is an object of columns of unequal length: {told}", told, "equal lengths")
        yield from (dict(zip(value, cells, strict=True)) for cells in zip(*value.values(), strict=True))
    else:
        yield value


def _elements(text: str, place: int) -> Iterator[Any]:
    """The elements of an array one by one, so that only one is held at a time."""
    decoder = json.JSONDecoder()
    place = _after_blank(text, place + 1)
    while text[place : place + 1] != "]":
        value, place = decoder.raw_decode(text, place)
        yield value
        place = _after_blank(text, place)
        if text[place : place + 1] == ",":
            place = _after_blank(text, place + 1)
        elif text[place : place + 1] != "]":
            raise json.JSONDecodeError("Expecting ',' or ']'", text, place)
    if _after_blank(text, place + 1) != len(text):
        raise json.JSONDecodeError("Something follows the array", text, place + 1)


def _after_blank(text: str, place: int) -> int:
    match = _BLANK.match(text, place)
    return match.end() if match else place
