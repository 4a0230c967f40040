"""The head of a table of separated columns: its delimiter, its header, and what stands above it.

Whether the first line names the columns or is a row is decided by the rows below it; where they do not decide it, the
file is refused with the line shown.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from tuning.core.errors import DataError, Notice

DELIMITERS = {"\t": "tabs", ",": "commas", ";": "semicolons", "|": "bars"}
TEXT_NAMES = ("text", "content", "document", "body", "sentence", "review", "comment", "tweet", "article", "story")
ROW_NAMES = frozenset(
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
        "context",
    )
)
"""Names of texts in a row, which an object around rows does not have."""
KNOWN_NAMES = ROW_NAMES | frozenset(
    (
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
        "chosen",
        "message",
    )
)
LISTED = 8
"""The most names that a sentence lists."""
MOST_COLUMNS = 1_000
"""Columns of the widest table, and keys of the widest row, that are read: a page can show no more."""
MOST_ABOVE = 10
"""Lines above the header that are searched for it."""
HEAD_ROWS = 60
SHOWN = 80
_SEPARATOR = re.compile(r'"?sep=(.)"?[ \t]*\r?$', re.IGNORECASE)
_DATE = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}([ T]\d{1,2}:\d{2}.*)?$")
_RULE = re.compile(r":?-+:?")
_NAME = re.compile(r"[^\W\d][\w .\-/()#?]*$")


@dataclass(frozen=True, slots=True, kw_only=True)
class TableHead:
    """How a text becomes a table: `above` lines stand above the header, which may be missing."""

    delimiter: str
    columns: tuple[str, ...]
    header: bool
    above: int = 0
    rule: bool = False
    """Whether a rule of dashes stands under the header, as in Markdown."""
    notices: tuple[Notice, ...] = ()


@dataclass(frozen=True, slots=True)
class _Line:
    """One record of the head, as a delimiter splits it into cells."""

    number: int
    """Lines of the file before this record."""
    cells: list[str]


def table_head(text: str, whole: bool, name: str, required: bool) -> TableHead | None:
    """The head of a table of two columns or more; None where the text is no such table.

    `required` says that the file has to be a table: by its name, or because a person says so. Raises DataError where it
    then is none, or where it has too many columns or two of one name.
    """
    separator = _SEPARATOR.match(text.partition("\n")[0])  # a first line as Excel writes it, such as sep=;
    heads = []
    for delimiter in (separator[1],) if separator else DELIMITERS:
        lines = _split_lines(text, delimiter, whole)[1 if separator else 0 :]
        head = _head_with(lines, delimiter, name, required or separator is not None)
        if head is not None:
            heads.append(head)
    if not heads:
        return None
    _, best = max(heads, key=lambda head: head[0])
    return _with_notice_of_lines_above(best, text, name)


def _with_notice_of_lines_above(head: TableHead, text: str, name: str) -> TableHead:
    """The head with a notice of the lines above it, where these are not blank."""
    lines = [line.strip() for line in text.split("\n")[: head.above] if line.strip()]
    if not lines:
        return head
    listed = ", ".join(repr(line[:SHOWN]) for line in lines[:3]) + (", …" if len(lines) > 3 else "")
    many = "1 line above the table is" if len(lines) == 1 else f"{len(lines)} lines above the table are"
    message = f"{many} no row and left out of {name}: {listed}."
    notices = (Notice(field="data.format", message=message, count=len(lines)), *head.notices)
    return replace(head, notices=notices)


def one_column(text: str, name: str, required: bool) -> TableHead | None:
    """The head of a table of one column, whose delimiter splits no row. None where the text is no such table and is not
    required to be one; else raises DataError."""
    for delimiter in DELIMITERS:
        rows = [line.cells for line in _split_lines(text, delimiter, whole=True)]
        if rows and all(len(row) == 1 for row in rows):
            first = rows[0][0].strip()
            if first.lower() in TEXT_NAMES or _is_header(rows[0], rows[1:]):
                columns = (first or "text",)
                notices = tuple(_name_notices(name, rows[0], columns))
                return TableHead(delimiter=delimiter, columns=columns, header=True, notices=notices)
            if required:
                raise _ambiguous(name, first)
    if not required:
        return None
    line = text.strip().partition("\n")[0]
    message = (
        f"{name} is no table: no separator (comma, semicolon, tab, bar) parts its lines into equally many columns. Its "
        f"first line is {line[:SHOWN]!r}; quote cells that hold the separator, or set data.format to lines"
    )
    raise DataError(message, line[:SHOWN], "a header line and rows of as many cells")


@dataclass(frozen=True, slots=True)
class _SplitHead:
    """The lines of a head as one delimiter splits them: those above the table, and the table."""

    delimiter: str
    above: Sequence[_Line]
    table: Sequence[_Line]

    @property
    def first(self) -> list[str]:
        """The cells of the table's first line, which may name the columns."""
        return [cell.strip() for cell in self.table[0].cells]

    @property
    def hits(self) -> int:
        """How many cells of the first line are names that tables of texts have."""
        return _known(self.first)

    @property
    def first_line(self) -> str:
        """The text of the table's first line."""
        return self.delimiter.join(self.table[0].cells)

    @property
    def second_is_rule(self) -> bool:
        """Whether a rule of dashes stands under the first line, as in Markdown."""
        return len(self.table) > 1 and self.delimiter == "|" and _is_rule(self.table[1].cells)

    def text_column(self) -> str | None:
        """The single column name above the table, whose texts the delimiter splits; None where there is no such
        name."""
        cells = [cell.strip() for cell in self.above[-1].cells] if self.above else []
        return cells[0] if len(cells) == 1 and cells[0].lower() in KNOWN_NAMES and not self.hits else None

    def is_table(self, required: bool) -> bool:
        """Whether most lines have as many cells as the first one, and its cells may be names of columns."""
        first, hits = self.first, self.hits
        share = sum(len(row.cells) == len(first) for row in self.table) / len(self.table)
        if len(first) < 2 or share < (0.5 if hits else 0.9):
            return False
        plain = all(len(cell) <= 40 and len(cell.split()) <= 4 for cell in first)
        if not (hits or plain or required or self.delimiter == "\t"):
            return False
        return len(self.table) > 1 or required or hits == sum(map(bool, first))

    def has_header(self) -> bool | None:
        """Whether the first line names the columns; None where the other lines do not decide it."""
        header = _is_header(self.first, [row.cells for row in self.table[1 + self.second_is_rule :]])
        odd = any(sum(map(bool, row.cells)) > 1 and not row.cells[0].startswith("#") for row in self.above)
        return None if odd and not header else header


def _head_with(
    rows: Sequence[_Line], delimiter: str, name: str, required: bool
) -> tuple[tuple[int, int], TableHead] | None:
    """The head of the table that this delimiter makes, with a measure of how well it fits: the number of known column
    names, then of columns. None where it makes no table. Raises DataError as `table_head` does."""
    widths = Counter(len(row.cells) for row in rows)
    width = max(widths, key=lambda cells: (widths[cells], cells), default=0)
    if width < 2:
        return None
    start = _table_start(rows, width)
    split = _SplitHead(delimiter, rows[:start], rows[start:])
    texts = split.text_column()
    if texts is not None:
        if not required:
            return None
        raise _unquoted_texts(name, texts, split.table[0], delimiter)
    if not split.is_table(required):
        return None
    header = split.has_header()
    if header is None:
        if not required:
            return None
        raise _ambiguous(name, split.first_line)
    if len(split.first) > MOST_COLUMNS:
        many = len(split.first)
        message = f"{name} has {many:,} columns, and the most is {MOST_COLUMNS:,}; keep those to learn from"
        raise DataError(message, many, f"up to {MOST_COLUMNS:,} columns")
    columns, notices = _named_columns(split, name) if header else _numbered_columns(split, name)
    head = TableHead(
        delimiter=delimiter,
        columns=columns,
        header=header,
        above=split.table[0].number,
        rule=header and split.second_is_rule,
        notices=notices,
    )
    return (split.hits, len(columns)), head


def _named_columns(split: _SplitHead, name: str) -> tuple[tuple[str, ...], tuple[Notice, ...]]:
    """The columns as the first line names them, with notices of changed names. Raises DataError for two of one name."""
    columns = tuple(cell or f"column {i}" for i, cell in enumerate(split.first, 1))
    repeated = next((column for column, count in Counter(columns).items() if count > 1), None)
    if repeated is not None:
        raise two_of_one_name(name, repeated)
    notices = tuple(_name_notices(name, split.table[0].cells, columns))
    if split.second_is_rule:
        line = split.delimiter.join(split.table[1].cells).strip()[:SHOWN]
        message = f"The line under the header of {name} is a rule and no row, and is left out: {line!r}."
        notices = (*notices, Notice(field="data.format", message=message, count=1))
    return columns, notices


def _numbered_columns(split: _SplitHead, name: str) -> tuple[tuple[str, ...], tuple[Notice, ...]]:
    """The columns of a table without a header, and the notice that says so."""
    columns = tuple(f"column {i}" for i in range(1, len(split.first) + 1))
    message = (
        f"{name} has no header line: its first line {split.first_line[:SHOWN]!r} is read as a row, "
        f"and the columns are called column 1 to column {len(columns)}."
    )
    return columns, (Notice(field="data.columns", message=message),)


def _name_notices(name: str, written: Sequence[str], columns: Sequence[str]) -> Iterator[Notice]:
    """Notices of column names that are not read exactly as they are written."""
    pairs = list(zip(written, columns, strict=True))
    trimmed = [f"{cell[:SHOWN]!r} as {column[:SHOWN]!r}" for cell, column in pairs if cell != column and cell.strip()]
    if trimmed:
        many = f"{len(trimmed):,} column names are read without the blanks around them"
        if len(trimmed) == 1:
            many = "1 column name is read without the blanks around it"
        message = f"{many} in {name}: {', '.join(trimmed[:LISTED])}."
        yield Notice(field="data.columns", message=message, count=len(trimmed))
    nameless = [column for cell, column in pairs if not cell.strip()]
    if nameless:
        many = f"{len(nameless):,} columns have no name and are"
        if len(nameless) == 1:
            many = "1 column has no name and is"
        listed = ", ".join(nameless[:LISTED]) + (" …" if len(nameless) > LISTED else "")
        yield Notice(field="data.columns", message=f"{many} called so in {name}: {listed}.", count=len(nameless))


def two_of_one_name(name: str, column: str) -> DataError:
    """The refusal of a table with two columns of one name."""
    message = f"{name} has two columns named {column[:SHOWN]!r}; give each a name of its own"
    return DataError(message, column[:SHOWN], "columns of different names")


def _ambiguous(name: str, line: str) -> DataError:
    """The refusal of a table whose first line may be a header or a row."""
    message = (
        f"the first line of {name} may name the columns or be a row, and its other lines do not tell: "
        f"{line[:SHOWN]!r}. Put a line of column names above it, such as text,label"
    )
    return DataError(message, line[:SHOWN], "a first line that names the columns")


def _unquoted_texts(name: str, header: str, row: _Line, delimiter: str) -> DataError:
    """The refusal of texts that the delimiter would split, under a header that names one column."""
    shown = delimiter.join(row.cells)[:SHOWN]
    message = (
        f"{name} names one column, {header!r}, and its rows have {len(row.cells)} cells, parted by "
        f"{DELIMITERS.get(delimiter, repr(delimiter))}: {shown!r}. Put texts in quotation marks, or name each column"
    )
    return DataError(message, shown, "rows of as many cells as the header")


def _is_rule(cells: Sequence[str]) -> bool:
    """Whether all cells are dashes, as under the header of a table in Markdown."""
    filled = [cell.strip() for cell in cells if cell.strip()]
    return bool(filled) and all(map(_RULE.fullmatch, filled))


def _table_start(rows: Sequence[_Line], width: int) -> int:
    """The index of the header, or of the first row: below titles, comments and lines of other widths."""
    for i, row in enumerate(rows[:MOST_ABOVE]):
        if _may_stand_above(row.cells, width):
            continue
        if i == 0 and len(rows) > 1 and _all_known(rows[1].cells) and not _all_known(row.cells):
            return 1  # a title with a separator in it
        before = rows[i - 1].cells if i else []
        if len(before) == width and all(cell.strip() for cell in before) and not _all_known(row.cells):
            return i - 1  # a header that begins with #
        return i
    return 0


def _may_stand_above(cells: Sequence[str], width: int) -> bool:
    """Whether a line of these cells may stand above a table of `width` columns."""
    filled = sum(bool(cell.strip()) for cell in cells)
    return filled <= 1 or (len(cells) < width and not _all_known(cells)) or cells[0].lstrip().startswith("#")


def _all_known(cells: Sequence[str]) -> bool:
    """Whether these are several names, all of which tables of texts have."""
    names = [cell.strip().lower() for cell in cells if cell.strip()]
    return len(names) > 1 and all(name in KNOWN_NAMES for name in names)


# -- whether a first line is a header ---------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class _Column:
    """A cell of the first line, and the cells below it that are not empty."""

    name: str
    values: list[str]

    @property
    def repeated(self) -> bool:
        """Whether a row has the name itself as its value: then it is rather a value than a name."""
        return bool(self.name) and self.name in self.values

    @property
    def contrasts(self) -> bool:
        """Whether the name differs from its values, which are alike among themselves."""
        return bool(self.name) and not self.repeated and _alike(self.values)

    @property
    def mean_length(self) -> float:
        """Characters of a value on average; 0 without values."""
        return sum(map(len, self.values)) / len(self.values) if self.values else 0.0


def _is_header(first: Sequence[str], rest: Sequence[Sequence[str]]) -> bool | None:
    """Whether the first line names the columns; None where the rows do not decide it."""
    columns = _columns(first, rest)
    names = [column.name for column in columns if column.name]
    if any(map(_is_number, names)):
        return _is_header_with_numbers(names, columns)
    repeated = [column.repeated for column in columns]
    if _known(names) and not all(repeated):
        return True
    contrasts = any(column.contrasts for column in columns)
    if any(repeated):
        return None if contrasts else False
    distinct = len(set(names)) == len(names)
    return True if contrasts or (distinct and _short_above_long(columns)) else None


def _columns(first: Sequence[str], rest: Sequence[Sequence[str]]) -> list[_Column]:
    """The columns of a table, by the cells of its first line; of shorter rows the cells that there are."""
    values = [[row[i].strip() for row in rest if i < len(row) and row[i].strip()] for i in range(len(first))]
    return [_Column(cell.strip(), below) for cell, below in zip(first, values, strict=True)]


def _known(names: Sequence[str]) -> int:
    """How many of these are names that tables of texts have."""
    return sum(name.lower() in KNOWN_NAMES for name in names)


def _is_header_with_numbers(names: list[str], columns: Sequence[_Column]) -> bool:
    """Whether names of which some are numbers name the columns: half of them known, or 0, 1, 2, … as pandas writes
    them above columns of text."""
    counting = len(names) > 1 and names == [str(i) for i in range(len(names))]
    texts = any(column.values and not any(map(_is_number, column.values)) for column in columns)
    return _known(names) >= max(2, len(names) / 2) or (counting and texts)


def _alike(values: Sequence[str]) -> bool:
    """Whether these are all numbers, all dates or a few classes, among which a name would stand out."""
    if len(values) < 2:
        return False
    return all(map(_is_number, values)) or all(map(_DATE.match, values)) or len(set(values)) <= len(values) // 2


def _short_above_long(columns: Sequence[_Column]) -> bool:
    """Whether the names have up to three words and stand above longer texts."""
    named = [column for column in columns if column.name]
    if not named or not all(_NAME.match(column.name) and len(column.name.split()) <= 3 for column in named):
        return False
    longer = any(column.mean_length >= 2 * len(column.name) for column in named)
    return longer and all(1.5 * column.mean_length >= len(column.name) for column in named)


# -- cells ------------------------------------------------------------------------------------------------------------
def _split_lines(text: str, delimiter: str, whole: bool) -> list[_Line]:
    """The first records of a text; the last one is left out where the text was cut off (not `whole`)."""
    csv.field_size_limit(2**31 - 1)  # the library's own limit refuses a cell above 131,072 characters
    rows: list[_Line] = []
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    lines_before = 0
    try:
        for row in reader:
            if len(rows) > HEAD_ROWS:
                return rows[:HEAD_ROWS]
            if row:
                rows.append(_Line(lines_before, row))
            lines_before = reader.line_num
    except csv.Error:
        pass
    return rows if whole or len(rows) < 2 else rows[:-1]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
