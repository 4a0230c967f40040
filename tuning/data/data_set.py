"""A data set opened: its rows split into training and evaluation, checked as far as its size allows.

Rows are read from disk when they are asked for. Small files are checked whole; of a large one the head is checked here,
and every row when it is tokenized.
"""

from __future__ import annotations

import math
import re
import unicodedata
from array import array
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, overload

import numpy as np

from tuning.core.errors import DataError, Notice, ShouldContinue, counted
from tuning.core.lru import LruCache
from tuning.data.files import progress
from tuning.data.files.concat import open_tables
from tuning.data.files.header import MOST_COLUMNS
from tuning.data.files.lines import MOST_OPEN_TABLES, head
from tuning.data.files.progress import read_once
from tuning.data.files.table import BadRow, Record, Table, file_version
from tuning.data.locate import DataFiles, find_data_files
from tuning.data.notices import LISTED, NoticeCounts, notices_of
from tuning.data.row_choice import Indices, as_indices, as_numbers, hold_out, take
from tuning.data.schema import RowSchema, column_notices, columns_of, fast_valid, label_text, make_row, schema_of
from tuning.data.values import RowError
from tuning.settings.schema import DataSettings
from tuning.text import Row

CHECKED_BYTES = 16 * 2**20
"""Files up to this size are checked whole before anything else."""
CHECKED_ROWS = 1_000
"""Rows of a larger file that are checked before a run."""
LISTED_BAD_ROWS = 100
MOST_CLASSES = 1_000
LISTED_CLASSES = 10
SPLITS = ("train", "eval")
PROGRESS_ROWS = 20_000
"""A check reports its progress once in so many rows."""
TOKEN_SETTINGS = {
    "system_prompt",
    "loss_on",
    "max_seq_length",
    "packing",
    "group_by_length",
    "long_text",
    "chat_template",
    "special_tokens",
}
"""Settings that say what tokens rows become, and not which rows they are."""
MOST_OPEN_DATA_SETS = 4
"""Data sets held open for the next call: each one that was unpacked holds a temporary file."""
_OPEN_DATA_SETS: LruCache[DataSet] = LruCache(MOST_OPEN_DATA_SETS)
_TURN = re.compile(r"turn \d+ of")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """The result of one reading of a table's rows."""

    rows: int
    """How many rows were read."""
    whole: bool
    """Whether these are all rows of the table."""
    bad: tuple[BadRow, ...]
    """The first bad rows."""
    bad_count: int
    bad_indices: tuple[int, ...]
    codes: array[int]
    """The class of each row as its index in `class_names`, -1 for a bad row; empty where rows have no classes."""
    class_names: tuple[str, ...]
    """The classes in the order of their first rows."""
    notice_counts: NoticeCounts = field(default_factory=NoticeCounts)
    """What is read otherwise than it is written, and what is not used, in the rows that were read."""
    reasons: tuple[tuple[str, int], ...] = ()
    """Why rows are bad, each with the number of its rows, the most frequent first."""


class Rows(Sequence[Row]):
    """Rows of a table in their order, read when they are asked for; a bad row raises DataError, or is left out with
    `skip_bad`."""

    def __init__(
        self, table: Table, indices: Sequence[int], schema: RowSchema, labels: dict[str, int], skip_bad: bool
    ) -> None:
        """`indices` are the rows' positions in the table, in increasing order; `labels` numbers the classes."""
        self.table, self.indices, self._schema, self._labels, self._skip_bad = table, indices, schema, labels, skip_bad

    def __len__(self) -> int:
        """The number of rows; with bad ones among them that were not checked and are left out, fewer are read."""
        return len(self.indices)

    def __iter__(self) -> Iterator[Row]:
        return self._read(self.indices)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        if isinstance(index, slice):
            return list(self._read(self.indices[index]))
        return next(self._read([self.indices[index]]))

    def at(self, indices: Sequence[int]) -> Rows:
        """The rows at other positions of the same table."""
        return Rows(self.table, indices, self._schema, self._labels, self._skip_bad)

    def _read(self, indices: Sequence[int]) -> Iterator[Row]:
        for record in self.table.read(indices):
            row = _row_or_bad(record, self._schema, self._labels)
            if isinstance(row, Row):
                yield row
            elif not self._skip_bad:
                raise refused(self.table, [row], 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSet:
    """Rows with their names; `label_names` is set where rows carry classes."""

    name: str
    title: str
    source: str
    shape: str
    columns: dict[str, str]
    label_names: tuple[str, ...] | None
    train: Rows
    eval: Rows
    fingerprint: str
    files: DataFiles
    schema: RowSchema
    all_columns: tuple[str, ...]
    checks: tuple[Checked, ...] = field(repr=False)
    """Of the training rows and, where there is one, of the evaluation file."""
    notices: tuple[Notice, ...] = ()
    """Notices about columns, turns, rows and classes: which are used, and which are not."""

    @property
    def folder(self) -> Path | None:
        """The folder of a bundled set, with what lies beside its rows; None for anything else."""
        return self.files.train[0].parent if self.files.origin == "bundled" else None

    @property
    def small(self) -> bool:
        """Whether every row was checked."""
        return all(checked.whole for checked in self.checks)


def open_data(
    settings: DataSettings,
    task: str,
    seed: int,
    head_only: bool = False,
    should_continue: ShouldContinue = lambda: True,
) -> DataSet:
    """The rows of a data set, split; of a large file only those of its head, where that is enough.

    For files and settings that are the same as before it is the data set that was opened before. Raises DataError
    naming the line or the column and the fix, and Stopped soon after `should_continue` says no.
    """
    files = find_data_files(settings)
    with progress.stopped_by(should_continue):
        if head_only:
            return _open(files, settings, task, seed, head_only=True)
        key = _key(files, settings, task, seed)
        return _OPEN_DATA_SETS.get(key, lambda: _open(files, settings, task, seed, head_only=False))


def rows_key(settings: DataSettings, task: str, seed: int) -> Hashable:
    """Equal for settings with the same rows, while no file of them changes. Raises DataError."""
    return _key(find_data_files(settings), settings, task, seed)


def opened_before(key: Hashable) -> DataSet | None:
    """The data set of this `rows_key`, where it is still open."""
    return _OPEN_DATA_SETS.find(key)


def _key(files: DataFiles, settings: DataSettings, task: str, seed: int) -> Hashable:
    """Equal for equal rows of the same versions of files. Raises DataError."""
    try:
        versions = tuple(file_version(file.stat()) for file in (*files.train, *(files.eval or ())))
    except OSError as error:  # the file was removed meanwhile
        raise DataError(f"{files.title} cannot be read: {error.strerror}", files.title, "a readable file") from None
    return settings.model_dump_json(exclude=TOKEN_SETTINGS), task, seed, repr(files), versions


@dataclass(frozen=True, slots=True, kw_only=True)
class _CheckedTable:
    """A table with the schema of its rows and the result of checking them."""

    table: Table
    schema: RowSchema
    checked: Checked


def _open(files: DataFiles, settings: DataSettings, task: str, seed: int, *, head_only: bool) -> DataSet:
    """The data set of these files. Raises DataError."""
    paths = (files.train,) if files.eval is None else (files.train, files.eval)
    tables = [open_tables(of_split, settings.format, settings.encoding, head_only) for of_split in paths]
    records = _first_records(tables[0])
    columns = _checked_columns(records, tables[0].name)
    named_classes, csv = tables[0].classes | files.classes, tables[0].format.kind == "csv"
    schema = schema_of(records, files.card, settings, task, named_classes, csv)
    checked = [_checked_table(table, schema, settings) for table in tables]
    checks = tuple(table.checked for table in checked)
    names = label_names(checks, files, schema, settings) if schema.labelled else None
    splits = _splits(checked, names, settings, seed)
    indices = [of_split for _, of_split in splits]
    labels = {name: i for i, name in enumerate(names or ())}
    train, evaluation = (
        Rows(table.table, of_split, table.schema, labels, settings.bad_rows == "skip") for table, of_split in splits
    )
    notices = (
        *files.notices,
        *(notice for table in tables for notice in table.format.notices),
        *_row_notices(schema, tables, checks, names or ()),
        *_split_notices([(table.checked, of_split) for table, of_split in splits], names, files),
    )
    return DataSet(
        name=files.name,
        title=files.title,
        source=files.origin,
        shape=schema.shape,
        columns=dict(schema.columns),
        label_names=names,
        train=train,
        eval=evaluation,
        fingerprint=_fingerprint(tables, schema, names, indices),
        files=files,
        schema=schema,
        all_columns=tuple(columns),
        checks=checks,
        notices=tuple(dict.fromkeys(notices)),
    )


def _checked_table(table: Table, schema: RowSchema, settings: DataSettings) -> _CheckedTable:
    """The table with its rows checked. Raises DataError where bad ones of them are refused."""
    schema = replace(schema, csv=table.format.kind == "csv")
    checked = check(table, schema)
    _refuse_bad_rows(table, checked, skip=settings.bad_rows == "skip")
    return _CheckedTable(table=table, schema=schema, checked=checked)


def _splits(
    tables: Sequence[_CheckedTable], names: tuple[str, ...] | None, settings: DataSettings, seed: int
) -> list[tuple[_CheckedTable, Indices]]:
    """The table and the indices of the training and of the evaluation rows, which one table may hold both."""
    if len(tables) == 1:
        pairs = [(tables[0], indices) for indices in _held_out(tables[0], names, settings.eval_fraction, seed)]
    else:
        pairs = [(table, _good_indices(table.checked, len(table.table))) for table in tables]
    return [
        (table, _chosen_indices(table.checked, indices, names, settings, split, seed))
        for (table, indices), split in zip(pairs, SPLITS, strict=True)
    ]


def _first_records(table: Table) -> list[dict[str, Any]]:
    """The first rows of a table that can be read. Raises DataError where none can be."""
    first = head(table)
    if first:
        return [record.values for record in first]
    bad = [row for row in table.read(range(min(3, len(table)))) if isinstance(row, BadRow)]
    if bad:
        raise refused(table, bad, len(bad))
    raise DataError(f"{table.name} has no row that can be read", table.name)


def _checked_columns(records: Sequence[dict[str, Any]], name: str) -> list[str]:
    """The columns of these first records of the table `name`. Raises DataError where there are too many."""
    present = columns_of(records)
    if len(present) <= MOST_COLUMNS:
        return present
    message = (
        f"the first rows of {name} have {len(present):,} different columns, and the most is {MOST_COLUMNS:,}; keep "
        "those to learn from"
    )
    raise DataError(message, len(present), f"up to {MOST_COLUMNS:,} columns")


def _refuse_bad_rows(table: Table, checked: Checked, *, skip: bool) -> None:
    """Raises DataError where there are bad rows that the settings do not leave out, or none but bad rows."""
    if checked.bad_count and not skip:
        raise refused(table, checked.bad, checked.bad_count)
    if checked.whole and checked.bad_count == checked.rows:
        raise refused(table, checked.bad, checked.bad_count, mendable=False)


def _chosen_indices(
    checked: Checked, indices: Indices, names: tuple[str, ...] | None, settings: DataSettings, split: str, seed: int
) -> Indices:
    """So many of a split's rows as the settings ask for, drawn by the seed class by class, or the first ones."""
    limit = settings.train_rows if split == "train" else settings.eval_rows
    if settings.row_choice == "first":
        return indices[:limit]
    return take(indices, _by_class(checked, indices, names), limit, seed, split)


def _fingerprint(
    tables: Sequence[Table], schema: RowSchema, names: Sequence[str] | None, splits: Sequence[Indices]
) -> str:
    """A hash that is equal for equal rows; stored runs go on only where it is as it was."""
    # the schema was called Reading when the first runs were stored
    of_schema = "Reading" + repr(schema).removeprefix("RowSchema")
    digests = [repr(table.digest) for table in (tables[0], tables[-1])]
    parts = [*digests, of_schema, repr(names), *(repr(_digest(indices)) for indices in splits)]
    return sha256(f"({', '.join(parts)})".encode()).hexdigest()[:16]


def _digest(indices: Indices) -> str:
    """A hash of the chosen rows; the same for the same rows, however they were chosen."""
    return sha256(as_numbers(indices).astype("<i8").tobytes()).hexdigest()


def _row_notices(
    schema: RowSchema,
    tables: Sequence[Table],
    checks: Sequence[Checked],
    names: Sequence[str],
) -> Iterator[Notice]:
    """Notices about columns, turns, marks, classes and bad rows."""
    yield from column_notices(schema)
    whole = all(checked.whole for checked in checks) and all(table.whole for table in tables)
    scope = "" if whole else f" (of the first {counted(sum(checked.rows for checked in checks), 'row')})"
    notice_counts = NoticeCounts()
    for checked in checks:
        notice_counts.update(checked.notice_counts)
    yield from notices_of(notice_counts, scope)
    yield from _bad_row_notices(checks, scope)
    yield from _class_notices(checks[0], names)


def _bad_row_notices(checks: Sequence[Checked], scope: str) -> Iterator[Notice]:
    """How many bad rows are left out, and why; `scope` says of which rows, where not all were read."""
    count = sum(checked.bad_count for checked in checks)
    if not count:  # the settings leave bad rows out, else these would have been refused
        return
    reasons = Counter[str]()
    for checked in checks:
        reasons.update(dict(checked.reasons))
    why = ", ".join(f"{reason} ({many:,})" for reason, many in reasons.most_common(3))
    message = f"{counted(count, 'row')} cannot be used and {'is' if count == 1 else 'are'} left out: {why}{scope}."
    yield Notice(field="data.bad_rows", message=message, count=count)


def _class_notices(checked: Checked, names: Sequence[str]) -> Iterator[Notice]:
    """What is odd about the classes: many with one row only, or names that a person reads as the same."""
    codes = np.frombuffer(checked.codes, dtype=np.int32)
    single = int(np.count_nonzero(np.bincount(codes[codes >= 0]) == 1)) if names else 0
    if single > max(2, len(names) / 2):
        of = counted(len(names), "class", "classes")
        message = f"{single:,} of {of} have one row only; a column of measured numbers is no class."
        yield Notice(field="data.columns", message=message, count=single)
    folded = [_folded(name) for name in names]
    alike = [name for name, same in zip(names, folded, strict=True) if folded.count(same) > 1]
    if alike:
        message = (
            "Classes that differ in nothing but capital letters, spaces, invisible characters or the form of letters "
            "stay apart: "
            f"{', '.join(map(_spelled_out, alike[:LISTED]))}."
        )
        yield Notice(field="data.label_names", message=message, count=len(alike))


def _folded(name: str) -> str:
    """The name as a person reads it, whatever capitals, spaces, invisible characters and Unicode forms it is written
    in; -0 is 0."""
    visible = "".join(letter for letter in unicodedata.normalize("NFKC", name) if not _invisible(letter))
    folded = " ".join(visible.casefold().split())
    return folded.removeprefix("-") if folded in ("-0", "-0.0") else folded


def _invisible(letter: str) -> bool:
    """Whether this is a mark of format for which nothing is drawn, such as the space of no width."""
    return unicodedata.category(letter) == "Cf"


def _spelled_out(name: str) -> str:
    """A name with its letters as escapes where they do not say how it differs from others."""
    shown = repr(name) if name != " ".join(name.split()) else name
    plain = unicodedata.normalize("NFKC", name) == name and not any(map(_invisible, name))
    return shown if plain else ascii(name)


@read_once(MOST_OPEN_TABLES)
def check(table: Table, schema: RowSchema) -> Checked:
    """Read rows once for what is wrong with them and for their classes; the result is cached for each version of a
    file. All rows are read where the file is small or their classes have to be known, else the first ones.

    Raises DataError where a label column has too many different values to be classes.
    """
    small = table.size <= CHECKED_BYTES or len(table) <= CHECKED_ROWS or not table.whole
    whole = small or schema.labelled
    rows = len(table) if whole else CHECKED_ROWS
    checker = _RowChecker(schema, may_have_late_columns=table.format.kind in ("jsonl", "json"))
    with progress.reading(table.path, table.name, "reading rows", "rows", rows) as on_progress:
        for i, record in enumerate(table.read(range(rows))):
            progress.look()
            if i % PROGRESS_ROWS == 0:
                on_progress(i)
            checker.add(i, record)
    return checker.result(rows, whole=whole)


class _RowChecker:
    """Collects what is wrong with rows, which classes they have, and what notices say of them."""

    def __init__(self, schema: RowSchema, *, may_have_late_columns: bool) -> None:
        self._schema = schema
        self._is_valid = fast_valid(schema) if not schema.has_row_notices else lambda values: False
        self._columns = set(schema.present) if may_have_late_columns else None
        self._label_column = (schema.column("label") or "") if schema.labelled else None
        self._bad, self._bad_indices, self._reasons = list[BadRow](), list[int](), Counter[str]()
        self._notice_counts = NoticeCounts()
        # each row's spelling of its class as a number, -1 for a bad row; and the class of each spelling
        self._spelling_codes, self._spellings = array("i"), dict[str, int]()
        self._class_of_spelling, self._classes = list[int](), dict[str, int]()

    def add(self, index: int, record: Record | BadRow) -> None:
        """Check one row. Valid rows with nothing to count, which most are, take the short way through here.

        Raises DataError where there are too many classes.
        """
        if isinstance(record, BadRow):
            self._add_bad(index, record)
            return
        values = record.values
        if self._columns and not values.keys() <= self._columns:
            self._notice_counts.update(("late", repr(name)) for name in values.keys() - self._columns)
        if self._is_valid(values):
            if self._label_column is None:
                return
            code = self._spellings.get(str(values[self._label_column]))
            if code is not None:  # a spelling that is new may be no class
                self._spelling_codes.append(code)
                return
        row = _row_or_bad(record, self._schema, {}, self._notice_counts)
        if isinstance(row, BadRow):
            self._add_bad(index, row)
        elif self._label_column is not None:
            self._add_class(values, self._label_column)

    def _add_bad(self, index: int, row: BadRow) -> None:
        self._bad_indices.append(index)
        if len(self._bad) < LISTED_BAD_ROWS:
            self._bad.append(row)
        reason = _TURN.sub("a turn of", row.reason)
        self._reasons[reason] += reason in self._reasons or len(self._reasons) < LISTED_BAD_ROWS
        self._spelling_codes.append(-1)

    def _add_class(self, values: dict[str, Any], column: str) -> None:
        """Note the class of a good row. Raises DataError where there are too many."""
        spelling = str(values[column])
        if spelling not in self._spellings:
            self._spellings[spelling] = len(self._spellings)
            name = label_text(values, self._schema)
            self._class_of_spelling.append(self._classes.setdefault(name, len(self._classes)))
        self._spelling_codes.append(self._spellings[spelling])
        if len(self._classes) > MOST_CLASSES:
            message = f"column {column!r} has more than {MOST_CLASSES} different values; choose another for label"
            raise DataError(message, column, f"up to {MOST_CLASSES} classes", "data.columns")

    def result(self, rows: int, *, whole: bool) -> Checked:
        """What the rows that were added are; `rows` is their number."""
        codes = self._class_codes() if self._schema.labelled else self._spelling_codes
        return Checked(
            rows=rows,
            whole=whole,
            bad=tuple(self._bad),
            bad_count=len(self._bad_indices),
            bad_indices=tuple(self._bad_indices),
            codes=codes,
            class_names=tuple(self._classes),
            notice_counts=+self._notice_counts,
            reasons=tuple(self._reasons.most_common()),
        )

    def _class_codes(self) -> array[int]:
        """The class of each row from its spelling, -1 for a bad row. Spellings that are not their class's name are
        counted."""
        names, codes = tuple(self._classes), np.frombuffer(self._spelling_codes, dtype=np.int32)
        counts = np.bincount(codes[codes >= 0], minlength=len(self._spellings))
        for spelling, code, count in zip(self._spellings, self._class_of_spelling, counts.tolist(), strict=True):
            if spelling != names[code]:
                self._notice_counts["class", f"{spelling!r:.60} read as {names[code]!r:.60}"] += count
        # the -1 behind the classes is the class of a bad row, whose code -1 is the last index
        classes = np.append(np.asarray(self._class_of_spelling, dtype=np.int32), np.int32(-1))
        return array("i", classes[codes].tobytes())


def _row_or_bad(
    record: Record | BadRow, schema: RowSchema, labels: dict[str, int], notice_counts: NoticeCounts | None = None
) -> Row | BadRow:
    """The record as a row, or why it cannot be one; of a good row its peculiarities are added to
    `notice_counts`."""
    if isinstance(record, BadRow):
        return record
    of_row = NoticeCounts()
    try:
        row = make_row(record.values, schema, labels, of_row)
    except RowError as fault:
        return BadRow(record.line, str(fault))
    if notice_counts is not None and of_row:
        notice_counts.update(of_row)
    return row


def refused(table: Table, bad: Sequence[BadRow], count: int, mendable: bool = True) -> DataError:
    """The refusal of `count` bad rows: the first ones with line and reason, and what can be done."""
    first = "; ".join(f"{table.unit} {row.line} {row.reason}" for row in bad[:3])
    many = f"{count:,} rows of {table.name} cannot be used: " if count > 1 else f"{table.name}: "
    more = f"; and {count - 3:,} more" if count > 3 else ""
    fix = "mend them, or leave such rows out with data.bad_rows skip" if mendable else "no row is left; mend them"
    limit = "rows that can be read"
    return DataError(f"{many}{first}{more}; {fix}", f"{table.unit} {bad[0].line}", limit, "data.source")


def label_names(
    checks: Sequence[Checked], files: DataFiles, schema: RowSchema, settings: DataSettings
) -> tuple[str, ...]:
    """The classes in their order: as given, else as the card says, else sorted, numbers by their value.

    Raises DataError where rows have another class, or all have the same.
    """
    given = schema.classes or settings.label_names or files.card.get("label_names")
    in_rows = list(dict.fromkeys(name for checked in checks for name in checked.class_names))
    names = tuple(given) if given else tuple(sorted(in_rows, key=_number_first))
    strange = next((name for name in in_rows if name not in names), None)
    if strange is not None:
        message = f"label {strange!r} is not among data.label_names {', '.join(names)}; add it there"
        if strange.isdecimal():
            message += f". Numbers are places in that list, from 0 to {len(names) - 1}"
        raise DataError(message, strange, ", ".join(names), "data.label_names")
    if len(names) < 2:
        raise _single_class(names, schema)
    return names


def _single_class(names: tuple[str, ...], schema: RowSchema) -> DataError:
    """The refusal of rows that all have one class."""
    message = f"the label column has one value only, {names[0]!r}; a class needs something to differ from"
    if schema.task == "causal_lm":
        message = (
            f"the label column has one value only, {names[0]!r}: each text would have the same answer, and no text "
            "would have to be read for it; choose another label, or learn the texts themselves with data.columns "
            f'{{"text": "{schema.column("text")}"}}'
        )
    return DataError(message, list(names), "two labels or more", "data.label_names")


def _number_first(name: str) -> tuple[Any, ...]:
    """A key that sorts numbers by their value, before all other names."""
    try:
        number = float(name)
    except ValueError:
        number = math.nan
    return (0, number, name) if math.isfinite(number) else (1, 0.0, name)


def _good_indices(checked: Checked, rows: int) -> Indices:
    """The indices of all rows but the bad ones; rows that were not checked are among them."""
    if not checked.bad_indices:
        return range(rows)
    bad = set(checked.bad_indices)
    return array("Q", (index for index in range(rows) if index not in bad))


def _held_out(
    table: _CheckedTable, names: tuple[str, ...] | None, fraction: float, seed: int
) -> tuple[Indices, Indices]:
    """The indices of training and of evaluation rows, split by the seed class by class, in the order of the table."""
    good = _good_indices(table.checked, len(table.table))
    evaluation = hold_out(_by_class(table.checked, good, names), fraction, seed)
    if not evaluation:
        return good, evaluation
    is_held_out = np.zeros(len(table.table), dtype=bool)
    is_held_out[as_numbers(evaluation)] = True
    numbers = as_numbers(good)
    return as_indices(numbers[~is_held_out[numbers]]), evaluation


def _by_class(checked: Checked, indices: Indices, names: tuple[str, ...] | None) -> list[Indices]:
    """These rows of a table by class, in the order of the names; all in one group where there are no classes."""
    if names is None:
        return [indices]
    numbers = as_numbers(indices)
    codes, class_names = np.frombuffer(checked.codes, dtype=np.int32)[numbers], checked.class_names
    return [as_indices(numbers[codes == class_names.index(name)]) for name in names if name in class_names]


def _split_notices(
    splits: Sequence[tuple[Checked, Indices]], names: tuple[str, ...] | None, files: DataFiles
) -> list[Notice]:
    """Notices about the split into training and evaluation rows: that there are no evaluation rows, or that a class has
    no rows in one of the two."""
    eval_field = "data.eval_fraction" if files.eval is None else "data.eval_split"
    (train_check, train), (eval_check, evaluation) = splits
    notices = list[Notice]()
    if not len(evaluation):
        message = "There are no evaluation rows: no evaluation loss, no metrics, nothing to tell learning from memory."
        notices.append(Notice(field=eval_field, message=message, count=0))
    if names is None:
        return notices
    unlearned = _absent_classes(names, train_check, train)
    if unlearned:
        message = f"{_classes_have(unlearned)} no training rows and cannot be learned: {_listed(unlearned)}."
        notices.append(Notice(field="data.train_rows", message=message, count=len(unlearned)))
    unmeasured = _absent_classes(names, eval_check, evaluation) if len(evaluation) else []
    if unmeasured:
        message = (
            f"{_classes_have(unmeasured)} no evaluation rows, so that no metric counts them: {_listed(unmeasured)}."
        )
        notices.append(Notice(field=eval_field, message=message, count=len(unmeasured)))
    return notices


def _absent_classes(names: tuple[str, ...], checked: Checked, indices: Indices) -> list[str]:
    """The classes that none of these rows has."""
    codes = np.frombuffer(checked.codes, dtype=np.int32)[as_numbers(indices)]
    present = {checked.class_names[code] for code in np.unique(codes).tolist() if code >= 0}
    return [name for name in names if name not in present]


def _classes_have(names: Sequence[str]) -> str:
    """The beginning of a sentence about these classes."""
    return "1 class has" if len(names) == 1 else f"{len(names):,} classes have"


def _listed(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    first = ", ".join(f"{name:.60}" for name in names[:LISTED_CLASSES])
    return first + (f" and {len(names) - LISTED_CLASSES:,} more" if len(names) > LISTED_CLASSES else "")
