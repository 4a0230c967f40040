"""The table of a Parquet file, of which a few rows are read at a time.

Only the row groups that are asked for are read, in batches whose decoded bytes are bounded: a few bytes of a file may
stand for gigabytes of rows. Values come as those of JSON: the other types of Parquet (decimals, dates, bytes of text,
maps, conversations stored as columns) become text, lists and objects. pyarrow is imported when a Parquet file is
opened.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuning.core.errors import DataError, Notice
from tuning.data.files.file_format import Format
from tuning.data.files.header import MOST_COLUMNS, two_of_one_name
from tuning.data.files.progress import look
from tuning.data.files.table import MOST_ROW_BYTES, TOO_LONG, BadRow, Record, turns_in_columns

if TYPE_CHECKING:
    import pyarrow
    import pyarrow.parquet

FIRST_ROWS, BATCH_ROWS = 4, 64
"""Rows decoded to see how large they are, and rows decoded at once where they are small."""
PIECE_BYTES = 2**20
"""Bytes that are hashed at once."""
BATCH_BYTES = 8 * 2**20
"""Decoded bytes that a batch should have."""
MEASURED_BYTES = 16 * 2**20
"""Decoded bytes from which the size of the rows is estimated."""
LEAST_LIMIT_BYTES, MOST_TIMES = 2**30, 200
"""A row group may unpack to `MOST_TIMES` the bytes of its file, and at least to the first of these."""
Converter = Callable[[Any], Any]


class ParquetTable:
    """A Parquet file, or its head of at most `most` rows; `line` counts its rows from 1."""

    unit = "row"

    def __init__(self, path: Path, file_format: Format, most: int | None = None) -> None:
        self.path, self.name, self.format, self.size = str(path), path.name, file_format, path.stat().st_size
        self.digest = ""
        with _translate_errors(self.name), _open_file(self.path) as opened:
            meta = opened.metadata
            self._groups = [meta.row_group(i).num_rows for i in range(meta.num_row_groups)]
            rows = sum(self._groups)
            if min(self._groups, default=0) < 0:
                raise OSError("a group of it has fewer rows than none")
            self._check(opened)
            if not rows:
                names = ", ".join(opened.schema_arrow.names[:20])
                raise DataError(f"{self.name} has columns ({names:.200}) and no rows; give at least one", self.name)
            seen, seen_bytes = self._measure(opened, rows if most is None else min(most, rows))
            self.classes = _classes(opened.schema_arrow)
            self._converters, notices = _converters(opened.schema_arrow)
        self.format = replace(file_format, notices=(*file_format.notices, *notices))
        unpacked = sum(meta.row_group(i).total_byte_size for i in range(meta.num_row_groups))
        self.row_bytes = max(1, seen_bytes // seen)
        self.whole = most is None or seen == rows
        self._rows = rows if most is None else seen
        self.size = seen_bytes if seen == rows else max(self.size, unpacked, self.row_bytes * rows)
        if self.whole:
            with open(path, "rb") as file:
                digest = hashlib.sha256()
                while piece := file.read(PIECE_BYTES):
                    look()
                    digest.update(piece)
                self.digest = digest.hexdigest()

    def __len__(self) -> int:
        return self._rows

    def read(self, indices: Sequence[int]) -> Iterator[Record | BadRow]:
        remaining, start = iter(indices), 0
        index = next(remaining, None)
        with _translate_errors(self.name), _open_file(self.path) as opened:
            for group, rows in enumerate(self._groups):
                if index is None:
                    return
                if index >= start + rows:
                    start += rows
                    continue
                for batch in _batches(opened, group, rows):
                    members = list[int]()
                    while index is not None and index < start + batch.num_rows:
                        members.append(index)
                        index = next(remaining, None)
                    yield from self._records(batch, start, members)
                    start += batch.num_rows
                    if index is None:
                        return

    def _records(self, batch: pyarrow.RecordBatch, start: int, indices: Sequence[int]) -> Iterator[Record | BadRow]:
        """The rows at these indices of the file from a batch that begins at index `start`; decoded together where they
        are small."""
        small = batch.nbytes <= BATCH_BYTES and 2 * len(indices) >= batch.num_rows
        rows = batch.to_pylist() if small else None
        for index in indices:
            if rows is not None:
                yield Record(index + 1, self._plain(rows[index - start]))
            elif (row := batch.slice(index - start, 1)).nbytes > MOST_ROW_BYTES:
                yield BadRow(index + 1, TOO_LONG)
            else:
                yield Record(index + 1, self._plain(row.to_pylist()[0]))

    def _plain(self, values: dict[str, Any]) -> dict[str, Any]:
        """A row with values as JSON has them."""
        for name, convert in self._converters.items():
            values[name] = convert(values[name])
        return turns_in_columns(values)

    def _check(self, opened: pyarrow.parquet.ParquetFile) -> None:
        """Raises DataError where columns cannot be distinguished, or a group would take too much memory."""
        names = opened.schema_arrow.names
        repeated = next((name for name, count in Counter(names).items() if count > 1), None)
        if repeated is not None:
            raise two_of_one_name(self.name, repeated)
        if len(names) > MOST_COLUMNS:
            message = (
                f"{self.name} has {len(names):,} columns, and the most is {MOST_COLUMNS:,}; keep those to learn from"
            )
            raise DataError(message, len(names), f"up to {MOST_COLUMNS:,} columns")
        limit = max(LEAST_LIMIT_BYTES, MOST_TIMES * self.size)
        most = max((opened.metadata.row_group(i).total_byte_size for i in range(len(self._groups))), default=0)
        if most > limit:
            message = (
                f"{self.name} has {self.size / 2**20:,.1f} MiB, and one group of its rows unpacks to "
                f"{most / 2**20:,.0f} MiB; the limit for it is {limit / 2**20:,.0f} MiB. Write it with smaller groups"
            )
            raise DataError(message, most, f"{limit / 2**20:,.0f} MiB a row group")

    def _measure(self, opened: pyarrow.parquet.ParquetFile, most: int) -> tuple[int, int]:
        """How many rows of the head were decoded, at most `most`, and their bytes; fewer rows where they are large."""
        rows, size = 0, 0
        for group, count in enumerate(self._groups):
            for batch in _batches(opened, group, count):
                rows, size = rows + batch.num_rows, size + batch.nbytes
                if size > MEASURED_BYTES or rows >= most:
                    return min(rows, most), size
        return rows, size


def _batches(opened: pyarrow.parquet.ParquetFile, group: int, rows: int) -> Iterator[pyarrow.RecordBatch]:
    """The `rows` rows of a group in order, in batches of about `BATCH_BYTES` at most, and of one row at least.

    The size of batches is found at the first rows and only ever made smaller: for each size the group is read anew.
    """
    at, size, most = 0, FIRST_ROWS, BATCH_ROWS
    while at < rows:
        begin, fits = 0, size
        for batch in opened.iter_batches(batch_size=size, row_groups=[group], use_threads=False):
            if begin + batch.num_rows <= at:  # read before, in batches of another size
                begin += batch.num_rows
                continue
            batch = _dense(batch.slice(max(0, at - begin)))
            begin, at = begin + max(0, at - begin) + batch.num_rows, at + batch.num_rows
            yield batch
            fits = max(1, min(most, int(BATCH_BYTES * batch.num_rows / max(1, batch.nbytes))))
            if 2 * fits <= size or (most == BATCH_ROWS and fits > size):
                break
        else:
            if at < rows:
                raise OSError(f"group {group + 1} has {at:,} rows, and its head says {rows:,}")
        size = most = fits


def _dense(batch: pyarrow.RecordBatch) -> pyarrow.RecordBatch:
    """The batch with its values in place of references to a dictionary."""
    import pyarrow

    columns = [
        column.dictionary_decode() if pyarrow.types.is_dictionary(column.type) else column for column in batch.columns
    ]
    return pyarrow.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _open_file(path: str) -> pyarrow.parquet.ParquetFile:
    import pyarrow.parquet

    return pyarrow.parquet.ParquetFile(path, pre_buffer=False)


@contextmanager
def _translate_errors(name: str) -> Iterator[None]:
    """Turns what pyarrow raises at broken bytes into a DataError."""
    import pyarrow

    try:
        yield
    except MemoryError:
        message = f"{name} has rows that do not fit the memory of this machine; write it with shorter rows"
        raise DataError(message, name, "shorter rows") from None
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{name} is a broken Parquet file: {error}"[:300], name) from None


def _classes(schema: pyarrow.Schema) -> dict[str, tuple[str, ...]]:
    """Names of classes by column, as the `datasets` library writes them beside the columns (ClassLabel)."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        labels = {name: feature for name, feature in features.items() if feature.get("_type") == "ClassLabel"}
        return {
            name: tuple(map(str, feature["names"]))
            for name, feature in labels.items()
            if feature.get("names") and name in schema.names
        }
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}


def _converters(schema: pyarrow.Schema) -> tuple[dict[str, Converter], tuple[Notice, ...]]:
    """Converters to values that JSON has, for the columns whose values are others; and notices of them."""
    import pyarrow.types as types

    converters, notices = dict[str, Converter](), list[Notice]()
    for field in schema:
        kind = field.type.value_type if types.is_dictionary(field.type) else field.type
        if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
            message = f"Column {field.name!r:.80} holds bytes, which are read as UTF-8 text where they are that."
            notices.append(Notice(field="data.columns", message=message))
        if not _is_json_type(kind):
            converters[field.name] = _json_value
    return converters, tuple(notices)


def _is_json_type(kind: pyarrow.DataType) -> bool:
    """Whether JSON has values of this type."""
    import pyarrow.types as types

    if types.is_map(kind):
        return False
    if types.is_nested(kind):
        return all(_is_json_type(kind.field(i).type) for i in range(kind.num_fields))
    text = types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
    number = types.is_integer(kind) or types.is_floating(kind)
    return bool(text or number or types.is_boolean(kind) or types.is_null(kind))


def _json_value(value: Any) -> Any:
    """A value of Parquet as JSON has it: decimals, dates and times as they are written, bytes as text where they are
    text, a map as an object."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, bytes):
        return _text_or_bytes(value)
    if isinstance(value, Decimal):
        return int(value) if value.as_tuple().exponent == 0 else format(value, "f")
    if isinstance(value, dict):
        return {name: _json_value(member) for name, member in value.items()}
    if isinstance(value, list):
        if value and all(isinstance(item, tuple) for item in value):  # pyarrow gives a map as pairs
            return {str(key): _json_value(item) for key, item in value}
        return list(map(_json_value, value))
    return str(value)


def _text_or_bytes(value: bytes) -> str | bytes:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value
