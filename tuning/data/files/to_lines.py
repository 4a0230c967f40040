"""Other encodings, line ends and JSON documents rewritten as UTF-8 lines, of which a table can find the rows.

The lines go into a temporary file, in memory while it is small, which is gone with its last user; where the head is
enough, only the beginning is rewritten. Of an array of rows one element is in memory at a time. A refusal names line
and column.
"""

from __future__ import annotations

import codecs
import json
import re
import tempfile
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

from tuning.core.errors import DataError, Notice
from tuning.data.files.file_format import Format
from tuning.data.files.progress import look
from tuning.data.files.sniff import list_of_rows, objects_only
from tuning.data.files.table import JSON_DECODER, MOST_ROW_BYTES, DuplicateKeyError

MEMORY_BYTES = 32 * 2**20
OBJECT_BYTES = 64 * 2**20
"""Bytes of the largest JSON document that is one object: it is one value, so it has to be read whole."""
PIECE_BYTES = 2**20
_BLANK = re.compile(r"[ \t\r\n]*")


def _temporary_file() -> BinaryIO:
    return cast(BinaryIO, tempfile.SpooledTemporaryFile(max_size=MEMORY_BYTES))


def utf8_lines(file: BinaryIO, file_format: Format, name: str, most: int) -> BinaryIO:
    """About the first `most` bytes of a text as UTF-8 with \\n or \\r\\n line ends. Raises DataError."""
    out, decoder = _temporary_file(), codecs.getincrementaldecoder(file_format.encoding)("strict")
    file.seek(file_format.mark)
    try:
        while out.tell() <= most:
            look()
            block = file.read(PIECE_BYTES)
            text = decoder.decode(block, final=not block)
            out.write((text.replace("\r", "\n") if file_format.mac_lines else text).encode("utf-8"))
            if not block:
                break
    except UnicodeError as error:
        message = f"{name} cannot be read as {file_format.encoding}: {error}; set data.encoding to what it is"
        raise DataError(message, file_format.encoding, "the file's encoding", "data.encoding") from None
    out.seek(0)
    return out


def json_lines(file: BinaryIO, file_format: Format, name: str, most: int) -> tuple[BinaryIO, tuple[Notice, ...]]:
    """One JSON document as JSON Lines, about its first `most` bytes, and notices of what in it is no row.

    Raises DataError.
    """
    file.seek(file_format.mark)
    text, notices = _JsonText(file, file_format), list[Notice]()
    try:
        out = _temporary_file()
        for row in (
            _elements(text, name)
            if text.begins_with("[")
            else _rows_of_object(_read_whole(text, file, name), name, notices)
        ):
            look()
            out.write((row if isinstance(row, bytes) else json.dumps(row, ensure_ascii=True).encode()) + b"\n")
            if out.tell() > most:
                break
    except DuplicateKeyError as error:
        message = f"{name} {error} in one object; give each key a name of its own"
        raise DataError(message, name, "keys of different names") from None
    except json.JSONDecodeError as error:
        where = "line {} column {}".format(*text.line_and_column(error))
        raise DataError(f"{name} is not JSON: {error.msg} at {where}", where, "valid JSON") from None
    except UnicodeError as error:
        message = f"{name} cannot be read as {file_format.encoding}: {error}; set data.encoding to what it is"
        raise DataError(message, file_format.encoding, "the file's encoding", "data.encoding") from None
    except RecursionError:
        raise DataError(f"{name} is nested too deeply to be rows", name, "an array of objects") from None
    out.seek(0)
    return out, tuple(notices)


class _JsonText:
    """A part of a file's text, in memory: parsed text is dropped, more is read where it is needed.

    Positions are indices into that part.
    """

    def __init__(self, file: BinaryIO, file_format: Format) -> None:
        self._file, self._decoder = file, codecs.getincrementaldecoder(file_format.encoding)("strict")
        self.text, self.ended = "", False
        self._lines, self._column = 0, 0

    def read_more(self, position: int) -> int:
        """Drop the text before a position and read more. Returns the position of the same character afterwards."""
        dropped = self.text[:position]
        self._lines += dropped.count("\n")
        self._column = len(dropped) - dropped.rindex("\n") - 1 if "\n" in dropped else self._column + len(dropped)
        block = self._file.read(max(PIECE_BYTES, len(self.text) - position))
        self.text = self.text[position:] + self._decoder.decode(block, final=not block)
        self.ended = not block
        return 0

    def after_blank(self, position: int) -> int:
        """The position of the next character that is no blank; of the end, where there is none."""
        while True:
            end = cast("re.Match[str]", _BLANK.match(self.text, position)).end()
            if end < len(self.text) or self.ended:
                return end
            position = self.read_more(end)

    def begins_with(self, letter: str) -> bool:
        """Whether this is the first character that is no blank."""
        position = self.after_blank(0)
        return self.text[position : position + 1] == letter

    def line_and_column(self, error: json.JSONDecodeError) -> tuple[int, int]:
        """The line and column of an error in the file, from 1."""
        return self._lines + error.lineno, error.colno + (self._column if error.lineno == 1 else 0)


def _read_whole(text: _JsonText, file: BinaryIO, name: str) -> str:
    """The whole text. Raises DataError where it is longer than `OBJECT_BYTES`."""
    position = file.tell()
    if file.seek(0, 2) > OBJECT_BYTES:
        limit = f"{OBJECT_BYTES >> 20} MiB"
        message = f"{name} is one JSON object of more than {limit}; save it as JSON Lines, one object a line"
        raise DataError(message, file.tell(), f"{limit} of one JSON object")
    file.seek(position)
    while not text.ended:
        text.read_more(0)
    return text.text


def _rows_of_object(text: str, name: str, notices: list[Notice]) -> Iterator[Any]:
    """The rows of an object: the one list of objects in it, its columns, or itself."""
    value = JSON_DECODER.decode(text)
    if not isinstance(value, dict) or not value:
        yield value
    elif isinstance(value.get("columns"), list) and _is_matrix(value.get("data"), len(value["columns"])):
        yield from (dict(zip(value["columns"], cells, strict=True)) for cells in value["data"])  # pandas' "split"
    elif all(isinstance(member, list) for member in value.values()):
        yield from _rows_of_lists(value, name)
    elif (key := list_of_rows(value)) is not None:
        others = [other for other in value if other != key]
        message = (
            f"The rows of {name} are the list under {key!r}; what stands beside it was left out: {_listed(others)}."
        )
        notices.append(Notice(field="data.source", message=message, count=len(others)))
        yield from value[key]
    elif objects_only(value):
        yield from _rows_of_objects(value, name, notices)
    else:
        yield value


def _rows_of_lists(value: dict[str, list[Any]], name: str) -> Iterator[Any]:
    """Rows of an object of lists: the one list of rows, or columns. Raises DataError for several lists of rows, and
    for columns of unequal length."""
    key = list_of_rows(value)
    if key is not None and len(value) == 1:
        yield from value[key]
        return
    of_objects = [other for other, items in value.items() if items and isinstance(items[0], dict)]
    if len(of_objects) > 1:
        message = (
            f"{name} holds {len(of_objects)} lists of rows ({_listed(of_objects)}); save each in a file of its own"
        )
        raise DataError(message, _listed(of_objects), "one list of rows")
    sizes = {column: len(cells) for column, cells in value.items()}
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{column} {size}" for column, size in sizes.items())
        raise DataError(f"{name} is an object of columns of unequal length: {listed}", listed, "equal lengths")
    yield from (dict(zip(value, cells, strict=True)) for cells in zip(*value.values(), strict=True))


def _rows_of_objects(value: dict[str, dict[str, Any]], name: str, notices: list[Notice]) -> Iterator[Any]:
    """Rows of an object of objects: columns whose cells are numbered, as pandas writes them, or rows by name."""
    keys = [list(member) for member in value.values()]
    if all(names == keys[0] for names in keys) and all(key.isdecimal() for key in keys[0]):
        yield from ({column: cells[key] for column, cells in value.items()} for key in keys[0])
        return
    if not all(set(names) == set(keys[0]) for names in keys):
        yield value
        return
    message = f"The rows of {name} stand under {len(value):,} names, which were left out: {_listed(list(value))}."
    notices.append(Notice(field="data.source", message=message, count=len(value)))
    yield from value.values()


def _is_matrix(value: Any, width: int) -> bool:
    """Whether this is a list of lists of `width` items."""
    return isinstance(value, list) and all(isinstance(row, list) and len(row) == width for row in value)


def _listed(names: list[str]) -> str:
    return ", ".join(name[:60] for name in names[:5]) + (f" and {len(names) - 5:,} more" if len(names) > 5 else "")


def _elements(text: _JsonText, name: str) -> Iterator[Any]:
    """The elements of an array, of which one is held at a time. One with a key twice comes as its JSON text in bytes,
    for the table to refuse."""
    row = 1
    position = text.after_blank(text.after_blank(0) + 1)
    while text.text[position : position + 1] != "]":
        try:
            try:
                value, end = JSON_DECODER.raw_decode(text.text, position)
            except DuplicateKeyError:
                _, end = json.JSONDecoder().raw_decode(text.text, position)
                value = text.text[position:end].replace("\n", " ").encode()
        except json.JSONDecodeError:
            if text.ended:
                raise
            if len(text.text) - position > 2 * MOST_ROW_BYTES:
                limit = f"{MOST_ROW_BYTES >> 20} MiB"
                message = f"row {row} of {name} is longer than {limit}, or is not JSON; part it into several rows"
                raise DataError(message, row, f"rows of up to {limit}") from None
            position = text.read_more(position)
            continue
        if end == len(text.text) and not text.ended:  # a number may go on
            position = text.read_more(position)
            continue
        yield value
        row += 1
        position = text.after_blank(end)
        if text.text[position : position + 1] == ",":
            position = text.after_blank(position + 1)
        elif text.text[position : position + 1] != "]":
            raise json.JSONDecodeError("Expecting ',' or ']'", text.text, position)
    end = text.after_blank(position + 1)
    if end != len(text.text):
        raise json.JSONDecodeError("Something follows the array", text.text, end)
