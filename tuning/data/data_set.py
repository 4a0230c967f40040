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
from tuning.data.notices import LISTED, Told, notices_of
from tuning.data.row_choice import Places, as_numbers, as_places, hold_out, take
from tuning.data.schema import RowSchema, column_notices, columns_of, label_text, make_row, read_as, surely_good
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
SIDES = ("train", "eval")
TOLD_ROWS = 20_000
"""How often a check says how far it is."""
OF_TOKENS = {
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
OPENED = 4
"""Data sets held open for who asks again: of what was unpacked, each holds a temporary file."""
_OPENED: LruCache[DataSet] = LruCache(OPENED)
_TURN = re.compile(r"turn \d+ of")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What a pass over a table found. `codes[i]` numbers the class of row i, -1 where it is bad."""

    rows: int
    whole: bool
    bad: tuple[BadRow, ...]
    bad_count: int
    bad_places: tuple[int, ...]
    codes: array[int]
    found: tuple[str, ...]
    told: Told = field(default_factory=Told)
    """What was read otherwise than it is written, and what was not used, in all rows that were looked at."""
    reasons: tuple[tuple[str, int], ...] = ()
    """Why rows are bad, the most frequent reason first, and of how many."""


class Rows(Sequence[Row]):
    """Rows of a table in their order, read when they are asked for; a bad one is refused, or left out when told so."""

    def __init__(
        self, table: Table, places: Sequence[int], schema: RowSchema, labels: dict[str, int], skip: bool
    ) -> None:
        self.table, self.places, self._schema, self._labels, self._skip = table, places, schema, labels, skip

    def __len__(self) -> int:
        """How many there are; with unchecked bad ones left out, fewer come."""
        return len(self.places)

    def __iter__(self) -> Iterator[Row]:
        return self._read(self.places)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        if isinstance(index, slice):
            return list(self._read(self.places[index]))
        return next(self._read([self.places[index]]))

    def at(self, places: Sequence[int]) -> Rows:
        """The rows at other places of the same table."""
        return Rows(self.table, places, self._schema, self._labels, self._skip)

    def _read(self, places: Sequence[int]) -> Iterator[Row]:
        for one in self.table.read(places):
            row = _row_or_bad(one, self._schema, self._labels)
            if isinstance(row, Row):
                yield row
            elif not self._skip:
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
    """What is told before Start of columns, turns, rows and classes: which were used, and which were not."""

    @property
    def folder(self) -> Path | None:
        """The folder of a bundled set, with what lies beside its rows; None for anything else."""
        return self.files.train[0].parent if self.files.origin == "bundled" else None

    @property
    def small(self) -> bool:
        """Checked whole."""
        return all(one.whole for one in self.checks)


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
            return _opened(files, settings, task, seed, head_only=True)
        key = _key(files, settings, task, seed)
        return _OPENED.get(key, lambda: _opened(files, settings, task, seed, head_only=False))


def rows_key(settings: DataSettings, task: str, seed: int) -> Hashable:
    """Equal for settings with the same rows, while no file of them changes. Raises DataError."""
    return _key(find_data_files(settings), settings, task, seed)


def opened_before(key: Hashable) -> DataSet | None:
    """The data set of this `rows_key`, where it is still open."""
    return _OPENED.find(key)


def _key(files: DataFiles, settings: DataSettings, task: str, seed: int) -> Hashable:
    try:
        versions = tuple(file_version(file.stat()) for file in (*files.train, *(files.eval or ())))
    except OSError as error:  # gone since
        raise DataError(f"{files.title} cannot be read: {error.strerror}", files.title, "a readable file") from None
    return settings.model_dump_json(exclude=OF_TOKENS), task, seed, repr(files), versions


def _opened(files: DataFiles, settings: DataSettings, task: str, seed: int, *, head_only: bool) -> DataSet:
    sides = (files.train,) if files.eval is None else (files.train, files.eval)
    tables = [open_tables(paths, settings.format, settings.encoding, head_only) for paths in sides]
    records = _first_records(tables[0])
    present = _checked_columns(records, tables[0].name)
    named_classes, csv = tables[0].classes | files.classes, tables[0].format.kind == "csv"
    schema = read_as(records, files.card, settings, task, named_classes, csv)
    schemas = [replace(schema, csv=table.format.kind == "csv") for table in tables]
    checks = [check(table, schema) for table, schema in zip(tables, schemas, strict=True)]
    for table, checked in zip(tables, checks, strict=True):
        _refuse_bad_rows(table, checked, skip=settings.bad_rows == "skip")
    names = label_names(checks, files, schema, settings) if schema.labelled else None
    notices = [
        *files.notices,
        *(notice for table in tables for notice in table.format.notices),
        *_row_notices(schema, tables, checks, names or ()),
    ]
    all_checks = tuple(checks)
    if files.eval is None:
        places = list(_held_out(tables[0], schema, names, settings.eval_fraction, seed))
        tables, checks, schemas = tables * 2, checks * 2, schemas * 2
    else:
        places = [_places(checked, len(table)) for checked, table in zip(checks, tables, strict=True)]
    places = [
        _taken(checked, of_side, names, settings, side, seed)
        for checked, of_side, side in zip(checks, places, SIDES, strict=True)
    ]
    eval_field = "data.eval_fraction" if files.eval is None else "data.eval_split"
    notices += _drawn_notices(list(zip(checks, places, strict=True)), names, eval_field)
    labels, skip = {name: number for number, name in enumerate(names or ())}, settings.bad_rows == "skip"
    train, held = (
        Rows(table, of_side, schema, labels, skip)
        for table, of_side, schema in zip(tables, places, schemas, strict=True)
    )
    return DataSet(
        name=files.name,
        title=files.title,
        source=files.origin,
        shape=schema.shape,
        columns=dict(schema.columns),
        label_names=names,
        train=train,
        eval=held,
        fingerprint=_fingerprint(tables, schema, names, places),
        files=files,
        schema=schema,
        all_columns=tuple(present),
        checks=all_checks,
        notices=tuple(dict.fromkeys(notices)),
    )


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
    """Raises DataError where there are bad rows that nobody said to leave out, or no other ones."""
    if checked.bad_count and not skip:
        raise refused(table, checked.bad, checked.bad_count)
    if checked.whole and checked.bad_count == checked.rows:
        raise refused(table, checked.bad, checked.bad_count, mendable=False)


def _taken(
    checked: Checked, places: Places, names: tuple[str, ...] | None, settings: DataSettings, side: str, seed: int
) -> Places:
    """Of one side's rows so many as the settings want, drawn by the seed class by class, or the first."""
    limit = settings.train_rows if side == "train" else settings.eval_rows
    if settings.row_choice == "first":
        return places[:limit]
    return take(places, _by_class(checked, places, names), limit, seed, side)


def _fingerprint(
    tables: Sequence[Table], schema: RowSchema, names: Sequence[str] | None, places: Sequence[Places]
) -> str:
    """Equal for equal rows; stored runs go on only where theirs is as it was."""
    # the schema was called Reading when the first runs were stored
    of_schema = "Reading" + repr(schema).removeprefix("RowSchema")
    digests = [repr(table.digest) for table in (tables[0], tables[-1])]
    parts = [*digests, of_schema, repr(names), *(repr(_mark(one)) for one in places)]
    return sha256(f"({', '.join(parts)})".encode()).hexdigest()[:16]


def _mark(places: Places) -> str:
    """A hash of the rows taken; the same for the same rows, however they were chosen."""
    return sha256(as_numbers(places).astype("<i8").tobytes()).hexdigest()


def _row_notices(
    schema: RowSchema,
    tables: Sequence[Table],
    checks: Sequence[Checked],
    names: Sequence[str],
) -> Iterator[Notice]:
    """What is told of columns, turns, marks, classes and bad rows."""
    yield from column_notices(schema)
    told, reasons = Told(), Counter[str]()
    for one in checks:
        told.update(one.told)
        reasons.update(dict(one.reasons))
    whole = all(one.whole for one in checks) and all(table.whole for table in tables)
    scope = "" if whole else f" (of the first {counted(sum(one.rows for one in checks), 'row')})"
    yield from notices_of(told, scope)
    count = sum(one.bad_count for one in checks)
    if count:  # else they were refused
        why = ", ".join(f"{reason} ({many:,})" for reason, many in reasons.most_common(3))
        message = f"{counted(count, 'row')} cannot be used and {'is' if count == 1 else 'are'} left out: {why}{scope}."
        yield Notice(field="data.bad_rows", message=message, count=count)
    codes = np.frombuffer(checks[0].codes, dtype=np.int32)
    lonely = int(np.count_nonzero(np.bincount(codes[codes >= 0]) == 1)) if names else 0
    if lonely > max(2, len(names) / 2):
        of = counted(len(names), "class", "classes")
        message = f"{lonely:,} of {of} have one row only; a column of measured numbers is no class."
        yield Notice(field="data.columns", message=message, count=lonely)
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
    """What a person reads, whatever capitals, spaces, invisible characters and Unicode forms it is written in; -0 is
    0."""
    seen = "".join(letter for letter in unicodedata.normalize("NFKC", name) if not _invisible(letter))
    read = " ".join(seen.casefold().split())
    return read.removeprefix("-") if read in ("-0", "-0.0") else read


def _invisible(letter: str) -> bool:
    """A mark of format that nothing is drawn for, such as the space of no width."""
    return unicodedata.category(letter) == "Cf"


def _spelled_out(name: str) -> str:
    """A name with its letters as escapes where they do not say how it differs from others."""
    shown = repr(name) if name != " ".join(name.split()) else name
    plain = unicodedata.normalize("NFKC", name) == name and not any(map(_invisible, name))
    return shown if plain else ascii(name)


@read_once(MOST_OPEN_TABLES)
def check(table: Table, schema: RowSchema) -> Checked:
    """Read rows once for what is wrong with them and for their classes; kept for each version of a file.

    The whole file, where it is small or its classes have to be known; else its first rows.
    """
    small = table.size <= CHECKED_BYTES or len(table) <= CHECKED_ROWS or not table.whole
    whole = small or schema.labelled
    rows = len(table) if whole else CHECKED_ROWS
    codes, numbers, good = array("i"), dict[str, int](), surely_good(schema)
    column, known, classes = schema.column("label") or "", dict[str, int](), list[int]()
    bad, bad_places, told, reasons = list[BadRow](), list[int](), Told(), Counter[str]()
    quick = not schema.telling
    present = set(schema.present) if table.format.kind in ("jsonl", "json") else None
    with progress.reading(table.path, table.name, "reading rows", "rows", rows) as tell:
        for place, one in enumerate(table.read(range(rows))):
            progress.look()
            if place % TOLD_ROWS == 0:
                tell(place)
            code, sure = None, quick and isinstance(one, Record) and good(one.values)
            if present and isinstance(one, Record) and not one.values.keys() <= present:
                told.update(("late", repr(name)) for name in one.values.keys() - present)
            if sure and schema.labelled and isinstance(one, Record):
                code = known.get(str(one.values[column]))
                sure = code is not None  # a class not seen before may be none
            made = None if sure else _row_or_bad(one, schema, {}, told)
            if isinstance(made, BadRow):
                bad_places.append(place)
                bad += [made] if len(bad) < LISTED_BAD_ROWS else []
                reason = _TURN.sub("a turn of", made.reason)
                reasons[reason] += reason in reasons or len(reasons) < LISTED_BAD_ROWS
                codes.append(-1)
            elif code is not None:
                codes.append(code)
            elif schema.labelled and isinstance(one, Record):
                tokenized = str(one.values[column])
                if tokenized not in known:
                    known[tokenized] = len(known)
                    classes.append(numbers.setdefault(label_text(one.values, schema), len(numbers)))
                codes.append(known[tokenized])
                if len(numbers) > MOST_CLASSES:
                    message = f"column {column!r} has more than {MOST_CLASSES} different values; choose another"
                    raise DataError(f"{message} for label", column, f"up to {MOST_CLASSES} classes", "data.columns")
    if schema.labelled:
        codes = _classes_of(codes, classes, tuple(known), tuple(numbers), told)
    return Checked(
        rows=rows,
        whole=whole,
        bad=tuple(bad),
        bad_count=len(bad_places),
        bad_places=tuple(bad_places),
        codes=codes,
        found=tuple(numbers),
        told=+told,
        reasons=tuple(reasons.most_common()),
    )


def _classes_of(
    codes: array[int], classes: Sequence[int], spellings: Sequence[str], names: Sequence[str], told: Told
) -> array[int]:
    """The class of each row from its spelling, -1 where it is bad; and what is told of spellings."""
    tokenized = np.frombuffer(codes, dtype=np.int32)
    counts = np.bincount(tokenized[tokenized >= 0], minlength=len(spellings))
    for spelling, code, count in zip(spellings, classes, counts.tolist(), strict=True):
        if spelling != names[code]:
            told["class", f"{spelling!r:.60} read as {names[code]!r:.60}"] += count
    return array("i", np.append(np.asarray(classes, dtype=np.int32), np.int32(-1))[tokenized].tobytes())


def _row_or_bad(
    one: Record | BadRow, schema: RowSchema, labels: dict[str, int], told: Told | None = None
) -> Row | BadRow:
    if isinstance(one, BadRow):
        return one
    mine = Told()
    try:
        row = make_row(one.values, schema, labels, mine)
    except RowError as fault:
        return BadRow(one.line, str(fault))
    if told is not None and mine:  # of a bad row nothing else is told
        told.update(mine)
    return row


def refused(table: Table, bad: Sequence[BadRow], count: int, mendable: bool = True) -> DataError:
    """The refusal of bad rows: the first ones with line and reason, and what can be done."""
    told = "; ".join(f"{table.unit} {one.line} {one.reason}" for one in bad[:3])
    many = f"{count:,} rows of {table.name} cannot be used: " if count > 1 else f"{table.name}: "
    more = f"; and {count - 3:,} more" if count > 3 else ""
    fix = "mend them, or leave such rows out with data.bad_rows skip" if mendable else "no row is left; mend them"
    limit = "rows that can be read"
    return DataError(f"{many}{told}{more}; {fix}", f"{table.unit} {bad[0].line}", limit, "data.source")


def label_names(
    checks: Sequence[Checked], files: DataFiles, schema: RowSchema, settings: DataSettings
) -> tuple[str, ...]:
    """The classes in their order: as given, else as the card says, else sorted, numbers by their value."""
    given = schema.classes or settings.label_names or files.card.get("label_names")
    found = list(dict.fromkeys(name for one in checks for name in one.found))
    names = tuple(given) if given else tuple(sorted(found, key=_number_first))
    strange = next((label for label in found if label not in names), None)
    if strange is not None:
        message = f"label {strange!r} is not among data.label_names {', '.join(names)}; add it there"
        if strange.isdecimal():
            message += f". Numbers are places in that list, from 0 to {len(names) - 1}"
        raise DataError(message, strange, ", ".join(names), "data.label_names")
    if len(names) < 2 and schema.task == "causal_lm":
        message = (
            f"the label column has one value only, {names[0]!r}: each text would have the same answer, and no text "
            "would have to be read for it; choose another label, or learn the texts themselves with data.columns "
            f'{{"text": "{schema.column("text")}"}}'
        )
        raise DataError(message, list(names), "two labels or more", "data.label_names")
    if len(names) < 2:
        message = f"the label column has one value only, {names[0]!r}; a class needs something to differ from"
        raise DataError(message, list(names), "two labels or more", "data.label_names")
    return names


def _number_first(name: str) -> tuple[Any, ...]:
    try:
        number = float(name)
    except ValueError:
        number = math.nan
    return (0, number, name) if math.isfinite(number) else (1, 0.0, name)


def _places(found: Checked, rows: int) -> Sequence[int]:
    """The rows that are left when the bad ones are out; those not checked yet are all in."""
    if not found.bad_places:
        return range(rows)
    bad = set(found.bad_places)
    return array("Q", (place for place in range(rows) if place not in bad))


def _held_out(
    table: Table, schema: RowSchema, names: tuple[str, ...] | None, fraction: float, seed: int
) -> tuple[Places, Places]:
    """The rows split by the seed, label by label; both sides keep the rows' order."""
    found = check(table, schema)
    places = _places(found, len(table))
    held = hold_out(_by_class(found, places, names), fraction, seed)
    if not held:
        return places, held
    out = np.zeros(len(table), dtype=bool)
    out[as_numbers(held)] = True
    kept = as_numbers(places)
    return as_places(kept[~out[kept]]), held


def _by_class(found: Checked, places: Places, names: tuple[str, ...] | None) -> list[Places]:
    """These places of a table by class, in the order of the names; all in one group where there are no classes."""
    if names is None:
        return [places]
    numbers = as_numbers(places)
    codes = np.frombuffer(found.codes, dtype=np.int32)[numbers]
    return [as_places(numbers[codes == found.found.index(name)]) for name in names if name in found.found]


def _drawn_notices(sides: Sequence[tuple[Checked, Places]], names: tuple[str, ...] | None, field: str) -> list[Notice]:
    """What is told of the rows that training and evaluation get: no evaluation rows at all, or none of some class.

    `field` is the setting that gives evaluation rows.
    """
    (trained, train), (evaluated, held) = sides
    told = list[Notice]()
    if not len(held):
        message = "There are no evaluation rows: no evaluation loss, no metrics, nothing to tell learning from memory."
        told.append(Notice(field=field, message=message, count=0))
    if names is None:
        return told
    none = _without(names, trained, train)
    if none:
        message = f"{_counted(none)} no training rows and cannot be learned: {_listed(none)}."
        told.append(Notice(field="data.train_rows", message=message, count=len(none)))
    unseen = _without(names, evaluated, held) if len(held) else []
    if unseen:
        message = f"{_counted(unseen)} no evaluation rows, so that no metric counts them: {_listed(unseen)}."
        told.append(Notice(field=field, message=message, count=len(unseen)))
    return told


def _without(names: tuple[str, ...], found: Checked, places: Places) -> list[str]:
    """The classes that none of these rows has."""
    codes = np.frombuffer(found.codes, dtype=np.int32)[as_numbers(places)]
    there = {found.found[code] for code in np.unique(codes).tolist() if code >= 0}
    return [name for name in names if name not in there]


def _counted(names: Sequence[str]) -> str:
    return "1 class has" if len(names) == 1 else f"{len(names):,} classes have"


def _listed(names: Sequence[str]) -> str:
    told = ", ".join(f"{name:.60}" for name in names[:LISTED_CLASSES])
    return told + (f" and {len(names) - LISTED_CLASSES:,} more" if len(names) > LISTED_CLASSES else "")
