"""What a reader has to know of one file: its format, encoding and columns, as they were recognised."""

from __future__ import annotations

from dataclasses import dataclass

from tuning.core.errors import Notice


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
