"""The head of a table of separated columns: its delimiter, its header, and what stands above it.

Whether the first line names the columns or is a row is decided by the rows below it; where they do not say, it is not
guessed, and the file is refused with the line shown.
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
"""Names of texts that a row has, and what stands around rows has not."""
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
"""Names that are listed at most."""
MOST_COLUMNS = 1_000
"""The widest table, and the most keys of a row: what is shown of it has to stay small."""
MOST_ABOVE = 10
"""Lines above the header that are looked through for it."""
HEAD_ROWS = 60
SHOWN = 80
_SEPARATOR = re.compile(r'"?sep=(.)"?[ \t]*\r?$', re.IGNORECASE)
_DATE = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}([ T]\d{1,2}:\d{2}.*)?$")
_RULE = re.compile(r":?-+:?")
_NAME = re.compile(r"[^\W\d][\w .\-/()#?]*$")


@dataclass(frozen=True, slots=True, kw_only=True)
class TableHead:
    """How a text becomes a table: `above` lines stand over the header, which may be missing."""

    delimiter: str
    columns: tuple[str, ...]
    header: bool
    above: int = 0
    rule: bool = False
    """Whether a rule of dashes stands under the header, as in Markdown."""
    notices: tuple[Notice, ...] = ()


@dataclass(frozen=True, slots=True)
class _Line:
    number: int
    """Lines of the file before this record."""
    cells: list[str]


def table_head(text: str, whole: bool, name: str, sure: bool) -> TableHead | None:
    """The head of a table of two columns or more; None where the text is none.

    `sure` says that the file has to be a table: by its name, or because a person said so.
    """
    said = _SEPARATOR.match(text.partition("\n")[0])
    best: tuple[tuple[int, int], TableHead] | None = None
    for delimiter in (said[1],) if said else DELIMITERS:
        rows = _records(text, delimiter, whole)
        rows = rows[1:] if said else rows
        found = _under(rows, delimiter, name, sure or said is not None)
        if found is not None and (best is None or found[0] > best[0]):
            best = found
    if best is None:
        return None
    head = best[1]
    lines = text.split("\n")[: head.above]
    shown = [line.strip() for line in lines if line.strip()]
    if not shown:
        return head
    listed = ", ".join(repr(line[:SHOWN]) for line in shown[:3]) + (", …" if len(shown) > 3 else "")
    many = "1 line above the table is" if len(shown) == 1 else f"{len(shown)} lines above the table are"
    message = f"{many} no row and left out of {name}: {listed}."
    notices = (Notice(field="data.format", message=message, count=len(shown)), *head.notices)
    return replace(head, notices=notices)


def one_column(text: str, name: str, sure: bool) -> TableHead | None:
    """A table of one column: any delimiter does that splits no row of the head. None where it is none and need not be
    one; raises DataError where it has to be."""
    for delimiter in DELIMITERS:
        rows = [line.cells for line in _records(text, delimiter, whole=True)]
        if rows and all(len(row) == 1 for row in rows):
            first = rows[0][0].strip()
            if first.lower() in TEXT_NAMES or _is_header(rows[0], rows[1:]):
                columns = (first or "text",)
                notices = tuple(_names_changed(name, rows[0], columns))
                return TableHead(delimiter=delimiter, columns=columns, header=True, notices=notices)
            if sure:
                raise _doubtful(name, first)
    if not sure:
        return None
    line = text.strip().partition("\n")[0]
    message = (
        f"{name} is no table: no separator (comma, semicolon, tab, bar) parts its lines into equally many columns. Its "
        f"first line is {line[:SHOWN]!r}; quote cells that hold the separator, or set data.format to lines"
    )
    raise DataError(message, line[:SHOWN], "a header line and rows of as many cells")


@dataclass(frozen=True, slots=True)
class _Parted:
    """The lines of a file as one delimiter parts them, into what stands above the table and the table."""

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
        return sum(cell.lower() in KNOWN_NAMES for cell in self.first)

    @property
    def first_line(self) -> str:
        return self.delimiter.join(self.table[0].cells)

    @property
    def second_is_rule(self) -> bool:
        return len(self.table) > 1 and self.delimiter == "|" and _is_rule(self.table[1].cells)

    def text_column(self) -> str | None:
        """The one name that stands above rows of texts with the delimiter in them; None where there is no such name."""
        cells = [cell.strip() for cell in self.above[-1].cells] if self.above else []
        return cells[0] if len(cells) == 1 and cells[0].lower() in KNOWN_NAMES and not self.hits else None

    def is_table(self, sure: bool) -> bool:
        """Whether lines have as many cells as the first one, and its cells may be names of columns."""
        first, hits = self.first, self.hits
        share = sum(len(row.cells) == len(first) for row in self.table) / len(self.table)
        if len(first) < 2 or share < (0.5 if hits else 0.9):
            return False
        plain = all(len(cell) <= 40 and len(cell.split()) <= 4 for cell in first)
        if not (hits or plain or sure or self.delimiter == "\t"):
            return False
        return len(self.table) > 1 or sure or hits == sum(map(bool, first))

    def has_header(self) -> bool | None:
        """Whether the first line names the columns; None where the other lines do not say."""
        header = _is_header(self.first, [row.cells for row in self.table[1 + self.second_is_rule :]])
        odd = any(sum(map(bool, row.cells)) > 1 and not row.cells[0].startswith("#") for row in self.above)
        return None if odd and not header else header


def _under(rows: Sequence[_Line], delimiter: str, name: str, sure: bool) -> tuple[tuple[int, int], TableHead] | None:
    """The table under this delimiter, with how well it fits: known names first, then columns."""
    widths = Counter(len(row.cells) for row in rows)
    width = max(widths, key=lambda one: (widths[one], one), default=0)
    if width < 2:
        return None
    start = _first_of_table(rows, width)
    parted = _Parted(delimiter, rows[:start], rows[start:])
    texts = parted.text_column()
    if texts is not None:
        if not sure:
            return None
        raise _cut_texts(name, texts, parted.table[0], delimiter)
    if not parted.is_table(sure):
        return None
    header = parted.has_header()
    if header is None:
        if not sure:
            return None
        raise _doubtful(name, parted.first_line)
    if len(parted.first) > MOST_COLUMNS:
        many = len(parted.first)
        message = f"{name} has {many:,} columns, and the most is {MOST_COLUMNS:,}; keep those to learn from"
        raise DataError(message, many, f"up to {MOST_COLUMNS:,} columns")
    columns, notices = _named_columns(parted, name) if header else _numbered_columns(parted, name)
    found = TableHead(
        delimiter=delimiter,
        columns=columns,
        header=header,
        above=parted.table[0].number,
        rule=header and parted.second_is_rule,
        notices=notices,
    )
    return (parted.hits, len(columns)), found


def _named_columns(parted: _Parted, name: str) -> tuple[tuple[str, ...], tuple[Notice, ...]]:
    """The columns as the first line names them, and the notices of that. Raises DataError for two of one name."""
    columns = tuple(cell or f"column {n}" for n, cell in enumerate(parted.first, 1))
    twice = next((cell for cell, count in Counter(columns).items() if count > 1), None)
    if twice is not None:
        raise two_of_one_name(name, twice)
    notices = tuple(_names_changed(name, parted.table[0].cells, columns))
    if parted.second_is_rule:
        line = parted.delimiter.join(parted.table[1].cells).strip()[:SHOWN]
        message = f"The line under the header of {name} is a rule and no row, and is left out: {line!r}."
        notices = (*notices, Notice(field="data.format", message=message, count=1))
    return columns, notices


def _numbered_columns(parted: _Parted, name: str) -> tuple[tuple[str, ...], tuple[Notice, ...]]:
    """The columns of a table without a header, and the notice of that."""
    columns = tuple(f"column {n}" for n in range(1, len(parted.first) + 1))
    message = (
        f"{name} has no header line: its first line {parted.first_line[:SHOWN]!r} is read as a row, "
        f"and the columns are called column 1 to column {len(columns)}."
    )
    return columns, (Notice(field="data.columns", message=message),)


def _names_changed(name: str, written: Sequence[str], columns: Sequence[str]) -> Iterator[Notice]:
    """Notices of names in a header that are read otherwise than they stand there."""
    pairs = list(zip(written, columns, strict=True))
    trimmed = [f"{cell[:SHOWN]!r} as {column[:SHOWN]!r}" for cell, column in pairs if cell != column and cell.strip()]
    if trimmed:
        one = len(trimmed) == 1
        many = (
            "1 column name is read without the blanks around it"
            if one
            else (f"{len(trimmed):,} column names are read without the blanks around them")
        )
        message = f"{many} in {name}: {', '.join(trimmed[:LISTED])}."
        yield Notice(field="data.columns", message=message, count=len(trimmed))
    nameless = [column for cell, column in pairs if not cell.strip()]
    if nameless:
        many = (
            "1 column has no name and is" if len(nameless) == 1 else f"{len(nameless):,} columns have no name and are"
        )
        listed = ", ".join(nameless[:LISTED]) + (" …" if len(nameless) > LISTED else "")
        yield Notice(field="data.columns", message=f"{many} called so in {name}: {listed}.", count=len(nameless))


def two_of_one_name(name: str, column: str) -> DataError:
    """The refusal of a table in which a column's name says two columns."""
    message = f"{name} has two columns named {column[:SHOWN]!r}; give each a name of its own"
    return DataError(message, column[:SHOWN], "columns of different names")


def _doubtful(name: str, line: str) -> DataError:
    message = (
        f"the first line of {name} may name the columns or be a row, and its other lines do not tell: "
        f"{line[:SHOWN]!r}. Put a line of column names above it, such as text,label"
    )
    return DataError(message, line[:SHOWN], "a first line that names the columns")


def _cut_texts(name: str, header: str, row: _Line, delimiter: str) -> DataError:
    """The refusal of texts that the delimiter would cut under the one name of their column."""
    shown = delimiter.join(row.cells)[:SHOWN]
    message = (
        f"{name} names one column, {header!r}, and its rows have {len(row.cells)} cells, parted by "
        f"{DELIMITERS.get(delimiter, repr(delimiter))}: {shown!r}. Put texts in quotation marks, or name each column"
    )
    return DataError(message, shown, "rows of as many cells as the header")


def _is_rule(cells: Sequence[str]) -> bool:
    """Nothing but dashes, as under the header of a table in Markdown?"""
    filled = [cell.strip() for cell in cells if cell.strip()]
    return bool(filled) and all(map(_RULE.fullmatch, filled))


def _first_of_table(rows: Sequence[_Line], width: int) -> int:
    """The place of the header, or of the first row: below titles, comments and lines of other widths."""
    for place, row in enumerate(rows[:MOST_ABOVE]):
        if _above(row.cells, width):
            continue
        if place == 0 and len(rows) > 1 and _all_known(rows[1].cells) and not _all_known(row.cells):
            return 1  # a title with a separator in it
        before = rows[place - 1].cells if place else []
        if len(before) == width and all(cell.strip() for cell in before) and not _all_known(row.cells):
            return place - 1  # a header that begins with #
        return place
    return 0


def _above(cells: Sequence[str], width: int) -> bool:
    """May this line stand above a table of so many columns?"""
    filled = sum(bool(cell.strip()) for cell in cells)
    return filled <= 1 or (len(cells) < width and not _all_known(cells)) or cells[0].lstrip().startswith("#")


def _all_known(cells: Sequence[str]) -> bool:
    names = [cell.strip().lower() for cell in cells if cell.strip()]
    return len(names) > 1 and all(name in KNOWN_NAMES for name in names)


def _is_header(first: Sequence[str], rest: Sequence[Sequence[str]]) -> bool | None:
    """Does the first line name the columns? None where the rows do not tell."""
    cells = [cell.strip() for cell in first]
    filled = [cell for cell in cells if cell]
    hits = sum(cell.lower() in KNOWN_NAMES for cell in filled)
    columns = [[row[n].strip() for row in rest if n < len(row) and row[n].strip()] for n in range(len(cells))]
    if any(map(_number, filled)):
        counted = len(filled) > 1 and filled == [str(n) for n in range(len(filled))]  # as pandas names columns
        words = any(column and not any(map(_number, column)) for column in columns)
        return hits >= max(2, len(filled) / 2) or (counted and words)
    again = [bool(cell) and cell in column for cell, column in zip(cells, columns, strict=True)]
    if hits and not all(again):
        return True
    differs = [bool(cell) and _differs(column) for cell, column in zip(cells, columns, strict=True)]
    if any(again):
        return None if any(one and not two for one, two in zip(differs, again, strict=True)) else False
    if any(differs):
        return True
    return True if len(set(filled)) == len(filled) and _shorter(cells, columns) else None


def _differs(column: Sequence[str]) -> bool:
    """Would a name stand out from these values: numbers, dates, a few classes?"""
    if len(column) < 2:
        return False
    return all(map(_number, column)) or all(map(_DATE.match, column)) or len(set(column)) <= len(column) // 2


def _shorter(cells: Sequence[str], columns: Sequence[Sequence[str]]) -> bool:
    """Are these names of a word or two above texts that are longer?"""
    means = [sum(map(len, column)) / len(column) if column else 0.0 for column in columns]
    named = [(cell, mean) for cell, mean in zip(cells, means, strict=True) if cell]
    if not named or not all(_NAME.match(cell) and len(cell.split()) <= 3 for cell, _ in named):
        return False
    return any(mean >= 2 * len(cell) for cell, mean in named) and all(1.5 * mean >= len(cell) for cell, mean in named)


def _records(text: str, delimiter: str, whole: bool) -> list[_Line]:
    """The first records of a text; the last one is left out where the text was cut off."""
    csv.field_size_limit(2**31 - 1)  # the library's own limit refuses a cell above 131,072 characters
    rows: list[_Line] = []
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    number = 0
    try:
        for row in reader:
            if len(rows) > HEAD_ROWS:
                return rows[:HEAD_ROWS]
            if row:
                rows.append(_Line(number, row))
            number = reader.line_num
    except csv.Error:
        pass
    return rows if whole or len(rows) < 2 else rows[:-1]


def _number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
