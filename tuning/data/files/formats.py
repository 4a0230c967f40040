"""The file formats, one record each: those that hold rows, those that pack one file, and those that are refused.

A new format of rows is a record here, its parser in `parse` or its table beside `ParquetTable`, what recognises it in
`sniff`, its ending in `tuning.hub.splits.KINDS`, and its name in the setting `data.format`. A family of its own has
a title too. tests/data/test_tables.py holds every record to one contract.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tuning.core.errors import Notice
from tuning.data.files.header import DELIMITERS
from tuning.data.files.parse import csv_values, json_values, text_values
from tuning.hub.splits import KINDS, PACKED, rows_ending

PARQUET = b"PAR1"
"""How a Parquet file begins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """How the bytes of one file become rows."""

    kind: str
    """jsonl, json, csv, parquet, lines or paragraphs."""
    encoding: str = "utf-8"
    encoding_words: str = "UTF-8"
    mark: int = 0
    """Bytes of a UTF-8 byte-order mark at the beginning, which are skipped."""
    delimiter: str = ""
    columns: tuple[str, ...] = ("text",)
    """Columns of a CSV file; plain text has the one column `text`."""
    header: bool = True
    above: int = 0
    """How many lines of a CSV file stand above its header, or above its first row."""
    rule: bool = False
    """Whether a rule of dashes stands under the header of a CSV file, as in Markdown."""
    in_array: bool = False
    """Whether the rows of a JSON document are the elements of one array, which can be read one by one."""
    mac_lines: bool = False
    """Whether lines end with a carriage return alone."""
    packed: str = ""
    """How the file is compressed, in words for a person; empty where it is not."""
    notices: tuple[Notice, ...] = ()
    """What was left out of the file, or read in a way that a person should know."""

    @property
    def words(self) -> str:
        """The format in words for a person, such as "CSV, columns separated by commas"."""
        return f"{self._plain_words}, {self.packed}" if self.packed else self._plain_words

    @property
    def _plain_words(self) -> str:
        if self.kind == "csv":
            name = "TSV" if self.delimiter == "\t" else "CSV"
            return f"{name}, columns separated by {DELIMITERS.get(self.delimiter, self.delimiter)}" + (
                "" if self.header else ", without a header line"
            )
        return FORMATS[self.kind].words


# -- rows -------------------------------------------------------------------------------------------------------------
def _not_in_lines(line: str, file_format: Format) -> dict[str, Any]:
    raise TypeError(f"{file_format.kind} has no lines to parse")


@dataclass(frozen=True, slots=True, kw_only=True)
class RowFormat:
    """A format that holds rows."""

    kind: str
    """Its name in the setting data.format."""
    family: str
    """What an ending can promise: json, csv, parquet or text."""
    words: str
    """The format in words for a person; for a CSV file `Format.words` says more."""
    parse: Callable[[str, Format], dict[str, Any]] = _not_in_lines
    """The values of a row from its text, for formats that `LineTable` reads; raises ValueError with the reason."""


FORMATS = {
    row_format.kind: row_format
    for row_format in (
        RowFormat(kind="jsonl", family="json", words="JSON Lines, one object a line", parse=json_values),
        RowFormat(kind="json", family="json", words="JSON, one document", parse=json_values),
        RowFormat(kind="csv", family="csv", words="CSV", parse=csv_values),
        RowFormat(kind="parquet", family="parquet", words="Parquet"),
        RowFormat(kind="lines", family="text", words="plain text, each line a row", parse=text_values),
        RowFormat(kind="paragraphs", family="text", words="plain text, a blank line between rows", parse=text_values),
    )
}
TITLES = {"json": "JSON", "csv": "a table (CSV, TSV)", "parquet": "Parquet", "text": "plain text"}
"""The families of formats in words for a person."""
PROMISED = {ending: family for ending, family in KINDS.items() if family != "text"}
"""The family that a file of this ending must hold; another content is refused and never read as plain text."""


def ending_of(name: str) -> str:
    """The ending of a name that says what the rows are: .jsonl of rows.jsonl.gz."""
    return rows_ending(name, (*PACKED, ".zip"))


# -- one packed file --------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True, kw_only=True)
class Packing:
    """A format that packs one file of rows."""

    name: str
    magic: re.Pattern[bytes]
    """The beginning of a file that is unpacked here."""
    prefix: bytes
    """The beginning of any file of this format, also of one that is cut off."""
    refusal: str
    """The refusal of such a file inside another, to follow the file's name."""


PACKINGS = (
    Packing(
        name="gzip",
        magic=re.compile(rb"\x1f\x8b"),
        prefix=b"\x1f\x8b",
        refusal="is compressed with gzip again; unpack it first (gunzip)",
    ),
    Packing(
        name="bzip2",
        magic=re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)"),
        prefix=b"BZh",
        refusal="is compressed with bzip2 again; unpack it first (bunzip2)",
    ),
    Packing(
        name="xz",
        magic=re.compile(rb"\xfd7zXZ\0"),
        prefix=b"\xfd7zXZ",
        refusal="is compressed with xz again; unpack it first (unxz)",
    ),
    Packing(
        name="zstd",
        magic=re.compile(rb"\x28\xb5\x2f\xfd"),
        prefix=b"\x28\xb5\x2f\xfd",
        refusal="is compressed with zstd again; unpack it first (unzstd)",
    ),
    Packing(
        name="zip",
        magic=re.compile(rb"PK(\x03\x04|\x05\x06)"),
        prefix=b"PK\x03\x04",
        refusal="is a zip archive or an Excel workbook; unpack it, or save the sheet as CSV",
    ),
)


def packing_of(head: bytes) -> str | None:
    """The packing that begins with these bytes (gzip, bzip2, xz, zstd or zip); None for anything else."""
    return next((packing.name for packing in PACKINGS if packing.magic.match(head)), None)


# -- what is refused by its first bytes -------------------------------------------------------------------------------
_PICKLE = "is a pickle, which can run code when it is opened; save the rows as JSONL"
FOREIGN = (
    (b"\xd0\xcf\x11\xe0", "is an old Excel or Word file; save the sheet as CSV"),
    (b"\x04\x22\x4d\x18", "is compressed with lz4; unpack it first (unlz4)"),
    (b"7z\xbc\xaf", "is a 7z archive; unpack it first"),
    (b"Rar!", "is a RAR archive; unpack it first"),
    (b"%PDF", "is a PDF; copy its text into a plain text file"),
    (b"SQLite format 3", "is an SQLite database; export a table as CSV"),
    (b"ARROW1", "is an Arrow IPC file; save it as Parquet"),
    (b"\xff\xff\xff\xff", "is an Arrow stream, as save_to_disk writes it; save it as Parquet (to_parquet)"),
    (b"FEA1", "is a Feather file; save it as Parquet"),
    (b"ORC", "is an ORC file; save it as Parquet"),
    (b"Obj\x01", "is an Avro file; save it as Parquet"),
    (b"\x89HDF", "is an HDF5 file; save the rows as Parquet"),
    (b"\x93NUMPY", "is a NumPy array; give rows of text"),
    (b"GGUF", "is the weights of a model; give rows of text"),
    (b"\x89PNG", "is a picture; give rows of text"),
    (b"\xff\xd8\xff", "is a picture; give rows of text"),
    (b"\x80\x02", _PICKLE),
    (b"\x80\x03", _PICKLE),
    (b"\x80\x04", _PICKLE),
    (b"\x80\x05", _PICKLE),
)
"""The beginning of files of other formats, and the refusal of such a file, to follow its name."""
TAR_OFFSET = 257
"""The offset at which a tar archive has its magic bytes `ustar`."""


def refusal_of(head: bytes) -> str | None:
    """The refusal of a file that begins with these bytes, to follow its name; None where it may hold rows."""
    refusals = (*((packing.prefix, packing.refusal) for packing in PACKINGS), *FOREIGN)
    for prefix, refusal in refusals:
        if head.startswith(prefix):
            return refusal
    if head[TAR_OFFSET:].startswith(b"ustar"):
        return "is a tar archive of files; unpack it and give the folder"
    return None
