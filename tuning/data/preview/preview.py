"""What a person sees of their data before Start: rows, the tokens they become, lengths, and what is odd about them.

It is plain data for the page. Of a large file only the head is read, and it is said so; what is wrong with the settings
comes as problems beside whatever could be read all the same, so that it can be mended by sight.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from itertools import islice
from typing import Any, NotRequired, TypedDict

import numpy as np

from tuning.core.errors import DataError, Notice, counted
from tuning.data.columns import ROLES
from tuning.data.data_set import Checked, DataSet, open_data
from tuning.data.duplicates import is_empty, repeated
from tuning.data.files.concat import open_tables
from tuning.data.files.formats import format_words
from tuning.data.files.lines import head
from tuning.data.files.table import BadRow, Record
from tuning.data.locate import find_data_files
from tuning.data.preview.token_view import Histogram, TokenView, beginning_of, histogram, shown_tokens
from tuning.data.row_choice import as_numbers
from tuning.data.row_counts import RowCounts
from tuning.data.schema import columns_of
from tuning.data.summary import SAMPLED_ROWS, counted_whole, sample
from tuning.data.token_arrays import tokenizing_options
from tuning.settings.schema import DataSettings
from tuning.text import ConversationError, Row, TextTokenizer, TokenizedRow, tokenize_rows

SHOWN_ROWS = 4
SHOWN_CHARACTERS = 600
SHOWN_COLUMNS, SHOWN_CELLS = 300, 40
"""Columns that are listed, and cells that are shown of a row."""
LETTERS_A_TOKEN, LEAST_LETTERS, MOST_LETTERS = 16, 2_000, 200_000
"""How much of a row is tokenized for the preview: so many letters for each token of max_seq_length, a few times what
is kept of it, within these bounds."""
TOKENIZED_ROWS = 32
"""Rows that are tokenized at once."""
LISTED = 50


class BadRows(TypedDict):
    """How many rows cannot be used, of how many that were checked, and the first of them with line and reason.

    `whole` is whether all rows were checked, `choice` what the settings say is done with them.
    """

    count: int
    checked: int
    whole: bool
    choice: str
    rows: list[dict[str, Any]]


class PreviewRow(TypedDict):
    """A row as it stands in the file: its line, and short texts by column."""

    line: int
    cells: dict[str, str]


class LabelCount(TypedDict):
    """A class with its rows in training and in evaluation."""

    name: str
    train: int
    eval: int


class Lengths(Histogram):
    """How long rows are in tokens.

    `cut_rows` lose tokens to the limit, `cut_answers` tokens that are trained on, `lost_answers` all of them; `blocks`
    are what long texts are split into, 0 where none is.
    """

    rows: int
    longest: int
    mean: float
    limit: int
    cut_rows: int
    blocks: int
    cut_answers: int
    lost_answers: int
    trained_share: float


class DataPreview(TypedDict):
    """Everything the section "Your data" shows; keys that a fault of the settings leaves without a value are missing.

    `whole` is whether all of the file was looked at, `counted` whether the numbers of rows are those of all of it.
    """

    title: NotRequired[str]
    origin: NotRequired[str]
    bytes: NotRequired[int]
    format: NotRequired[str]
    encoding: NotRequired[str]
    whole: NotRequired[bool]
    unit: NotRequired[str]
    problems: list[dict[str, Any]]
    notices: list[dict[str, Any]]
    notes: NotRequired[list[str]]
    columns: NotRequired[list[str]]
    role_names: list[str]
    rows: NotRequired[list[PreviewRow]]
    shape: NotRequired[str]
    roles: NotRequired[dict[str, str]]
    train_rows: NotRequired[int]
    eval_rows: NotRequired[int]
    bad: NotRequired[BadRows]
    updates_per_epoch: NotRequired[int]
    effective_batch: NotRequired[int]
    empty: NotRequired[int]
    looked_at: NotRequired[int]
    labels: NotRequired[list[LabelCount]]
    duplicates: NotRequired[int]
    in_both: NotRequired[int]
    tokens: NotRequired[list[TokenView]]
    lengths: NotRequired[Lengths | dict[str, int]]
    counted: NotRequired[bool]


def preview(
    settings: DataSettings, task: str, seed: int, tokenizer: TextTokenizer | None, effective_batch: int
) -> DataPreview:
    """Everything the section "Your data" shows. Raises DataError where there is nothing to show at all."""
    page = _file_facts(settings)
    try:
        data = open_data(settings.replace(bad_rows="skip"), task, seed, head_only=True)
    except DataError as error:
        refused: DataPreview = page | {"problems": [problem.to_dict() for problem in error.problems]}
        return refused
    train, first = list(sample(data.train)), _first_rows(data)
    page = _with_facts(page, data, settings, effective_batch, train)
    page["notes"] = [*page["notes"], *data.files.notes]
    class_names, chosen = {data.columns.get("label", ""): data.schema.classes}, tuple(data.columns.values())
    cells: list[PreviewRow] = [
        {"line": record.line, "cells": shown_cells(record.values, class_names, chosen)} for record, _ in first
    ]
    page["rows"] = cells or page["rows"]
    letters = _letters_read(settings)
    long_rows = sum(beginning_of(row, letters) is not row for row in train)
    if long_rows:
        page["notices"].append(_long_rows_notice(long_rows, len(train), letters).to_dict())
    if tokenizer is None:
        return page
    all_counted = counted_whole(data) and len(data.train) + len(data.eval) <= SAMPLED_ROWS
    evaluation = list(data.eval) if all_counted else []  # then the same is counted as in the plan
    try:
        return _with_tokens(page, data, settings, task, tokenizer, train, evaluation, first)
    except DataError as error:
        refused = page | {"problems": [problem.to_dict() for problem in error.problems]}
        return refused


def _letters_read(settings: DataSettings) -> int:
    """Letters of a row that are tokenized for the preview."""
    return min(MOST_LETTERS, max(LEAST_LETTERS, LETTERS_A_TOKEN * settings.max_seq_length))


def _with_facts(
    page: DataPreview, data: DataSet, settings: DataSettings, effective_batch: int, train: list[Row]
) -> DataPreview:
    """`page` with the facts of rows that take no tokenizer; `train` are the training rows that were read."""
    notices = [_as_refused(notice) if settings.bad_rows == "stop" else notice for notice in data.notices]
    repeats = repeated(data)
    return page | {
        "title": data.title,
        "shape": data.shape,
        "roles": data.columns,
        "train_rows": len(data.train),
        "eval_rows": len(data.eval),
        "bad": bad_rows(data, settings),
        "updates_per_epoch": math.ceil(len(data.train) / effective_batch),
        "effective_batch": effective_batch,
        "notices": [notice.to_dict() for notice in notices],
        "empty": sum(map(is_empty, train)),
        "looked_at": len(train),
        "labels": label_balance(data),
        "duplicates": repeats["duplicates"],
        "in_both": repeats["in_both"],
    }


def _with_tokens(
    page: DataPreview,
    data: DataSet,
    settings: DataSettings,
    task: str,
    tokenizer: TextTokenizer,
    train: list[Row],
    evaluation: list[Row],
    first: list[tuple[Record, Row]],
) -> DataPreview:
    """`page` with the first rows as tokens, the lengths of the training rows, and the notices of tokenizing.

    Raises DataError.
    """
    letters = _letters_read(settings)
    train_starts = [beginning_of(row, letters) for row in train]
    starts = [*train_starts, *(beginning_of(row, letters) for row in evaluation)]
    pairs = _tokenized(starts, tokenizer, settings, task, page["bad"])
    # of a row of which only the beginning was read nothing can be counted; the plan reads it to its end
    whole = {id(row) for row in (*train, *evaluation)}
    counts = _counts([pair for pair in pairs if id(pair[0]) in whole], tokenizer, settings)
    notices = counts.notices(tokenizer, sampled=counts.rows < len(data.train) + len(evaluation))
    of_training = {id(row) for row in train_starts}
    tokenized = [tokens for row, tokens in pairs if id(row) in of_training]
    return page | {
        "notices": [*page["notices"], *(notice.to_dict() for notice in (*tokenizer.notices, *notices))],
        "tokens": _token_views([row for _, row in first], tokenizer, settings, task),
        "lengths": _lengths(tokenized, settings.max_seq_length, settings.long_text),
    }


def _counts(pairs: list[tuple[Row, TokenizedRow]], tokenizer: TextTokenizer, settings: DataSettings) -> RowCounts:
    """What becomes of these rows as tokens, counted."""
    counts = RowCounts(settings)
    for row, tokenized in pairs:
        parts = tokenized.parts(settings.max_seq_length, settings.long_text)
        counts.add(row, tokenized, parts, tokenizer)
    return counts


def _token_views(rows: list[Row], tokenizer: TextTokenizer, settings: DataSettings, task: str) -> list[TokenView]:
    """The beginnings of rows as tokens."""
    starts = [beginning_of(row, _letters_read(settings)) for row in rows]
    cut_texts = {
        id(start) for start, row in zip(starts, rows, strict=True) if start is not row and start.text is not None
    }
    views = []
    for start, tokens in _tokenized(starts, tokenizer, settings, task):  # without the rows that have no tokens
        view = shown_tokens(tokens, settings.max_seq_length, tokenizer, settings.long_text)
        if id(start) in cut_texts:
            _without_end(view)
        views.append(view)
    return views


def _without_end(view: TokenView) -> None:
    """Take the special tokens off the end of a row that is shown in part: they stand behind the whole row only."""
    while view["tokens"] and view["tokens"][-1][2]:
        view["tokens"].pop()


def _as_refused(notice: Notice) -> Notice:
    """The notice of bad rows where Start would refuse them: the rows are read here as if they were left out."""
    if notice.field != "data.bad_rows" or notice.count is None:
        return notice
    them = "it" if notice.count == 1 else "them"
    rows = counted(notice.count, "row")
    message = f"{rows} cannot be used: mend {them}, or leave {them} out; until then Start refuses {them}."
    return Notice(field=notice.field, message=message, count=notice.count)


def _first_rows(data: DataSet) -> list[tuple[Record, Row]]:
    """The first training rows, each as it stands in the file and as it is read."""
    rows = []
    for index in data.train.indices[:SHOWN_ROWS]:
        for record, row in zip(data.train.table.read([index]), data.train.at([index]), strict=False):
            if isinstance(record, Record):
                rows.append((record, row))
    return rows


def _file_facts(settings: DataSettings) -> DataPreview:
    """What the file is, and its first rows as they stand in it. Raises DataError."""
    files = find_data_files(settings)
    table = open_tables(files.train, settings.format, settings.encoding, head_only=True)
    first = head(table)
    columns = columns_of([record.values for record in first])
    notes = [] if table.whole else [f"The file is large: this looks at its first {len(table):,} rows."]
    if len(columns) > SHOWN_CELLS:
        columns_listed = f"the first {min(len(columns), SHOWN_COLUMNS):,} are listed"
        notes.append(
            f"There are {len(columns):,} columns: {columns_listed}, and {SHOWN_CELLS} cells of a row are shown."
        )
    return {
        "title": files.title,
        "origin": files.origin,
        "bytes": table.size,
        "format": format_words(table.format),
        "encoding": table.format.encoding_words,
        "whole": table.whole,
        "unit": table.unit,
        "problems": [],
        "notices": [],
        "notes": notes,
        "columns": columns[:SHOWN_COLUMNS],
        "role_names": list(ROLES),
        "rows": [{"line": record.line, "cells": shown_cells(record.values)} for record in first[:SHOWN_ROWS]],
    }


def _long_rows_notice(count: int, rows: int, letters: int) -> Notice:
    message = (
        f"{count:,} of {rows:,} rows looked at {'is' if count == 1 else 'are'} longer than {letters:,} letters: for "
        "this look their tokens were counted on so much of them, and are more."
    )
    return Notice(field="data.max_seq_length", message=message, count=count)


def shown_cells(
    values: Mapping[str, Any], class_names: Mapping[str, tuple[str, ...]] | None = None, chosen: Iterable[str] = ()
) -> dict[str, str]:
    """A row's values as texts short enough to look at, of a wide row the `chosen` columns and the first ones; numbers
    of classes with their names, by column in `class_names`."""
    if len(values) > SHOWN_CELLS:
        order = dict.fromkeys([*(name for name in chosen if name in values), *values])
        values = {name: values[name] for name in islice(order, SHOWN_CELLS)}
    cells = {name: _short(value) for name, value in values.items()}
    for column, names in (class_names or {}).items():
        number = cells.get(column, "").removesuffix(".0")
        if number.isdecimal() and int(number) < len(names):
            cells[column] = f"{number} ({names[int(number)]})"
    return cells


def _short(value: Any) -> str:
    if isinstance(value, list) and value and all(isinstance(turn, dict) for turn in value):
        turns = [f"{t.get('role', t.get('from'))}: {t.get('content', t.get('value'))}" for t in value[:20]]
        value = "\n".join(turns)
    if isinstance(value, bool | list | tuple | dict):  # as the file has it, not as Python writes it
        try:
            value = json.dumps(value, ensure_ascii=False, default=str)
        except (ValueError, RecursionError):
            value = str(value)
    text = "" if value is None else str(value)[: SHOWN_CHARACTERS + 1]
    text = text.encode("utf-8", "replace").decode()
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "…"


def bad_rows(data: DataSet, settings: DataSettings) -> BadRows:
    """How many rows cannot be used, the first of them with line and reason, and what was chosen about them."""
    checks: tuple[Checked, ...] = data.checks
    listed: Iterable[BadRow] = (row for checked in checks for row in checked.bad)
    return {
        "count": sum(checked.bad_count for checked in checks),
        "checked": sum(checked.rows for checked in checks),
        "whole": data.small and data.train.table.whole,
        "choice": settings.bad_rows,
        "rows": [asdict(row) for row in list(listed)[:LISTED]],
    }


def label_balance(data: DataSet) -> list[LabelCount]:
    """Rows of each class, from the codes that the check kept; no row is read again."""
    if data.label_names is None:
        return []
    counts = []
    for rows, checked in ((data.train, data.checks[0]), (data.eval, data.checks[-1])):
        codes = np.frombuffer(checked.codes, dtype=np.int32)[as_numbers(rows.indices)]
        many = np.bincount(codes, minlength=len(checked.class_names))
        counts.append(dict(zip(checked.class_names, many.tolist(), strict=True)))
    return [
        {"name": name[:SHOWN_CHARACTERS], "train": counts[0].get(name, 0), "eval": counts[1].get(name, 0)}
        for name in data.label_names
    ]


def _tokenized(
    rows: list[Row], tokenizer: TextTokenizer, settings: DataSettings, task: str, bad: BadRows | None = None
) -> list[tuple[Row, TokenizedRow]]:
    """Rows beside their whole token lists, without conversations that the template refuses, which are added to `bad`.

    Raises DataError.
    """

    def tokenize(chunk: list[Row]) -> list[TokenizedRow]:
        return tokenize_rows(chunk, tokenizer, **tokenizing_options(settings, task))

    pairs = list[tuple[Row, TokenizedRow]]()
    for begin in range(0, len(rows), TOKENIZED_ROWS):  # a tokenizer takes hundreds of bytes a letter while it works
        chunk = rows[begin : begin + TOKENIZED_ROWS]
        try:
            pairs += zip(chunk, tokenize(chunk), strict=True)
        except ConversationError:
            for number, row in enumerate(chunk, begin + 1):
                try:
                    pairs += [(row, tokens) for tokens in tokenize([row])]
                except ConversationError as error:
                    if bad is not None:
                        bad["count"] += 1
                        bad["rows"].append({"line": number, "reason": str(error)})
    return pairs


def _lengths(tokenized: list[TokenizedRow], limit: int, long_text: str) -> Lengths | dict[str, int]:
    """How long rows are in tokens before cutting, and what cutting takes away or makes of them."""
    lengths = [len(row.ids) for row in tokenized]
    if not lengths:
        return {}
    parts = [row.parts(limit, long_text) for row in tokenized]
    labels = [0 if row.plain else sum(row.trained[1:]) for row in tokenized]
    labels_left = [sum(part.trained_tokens for part in of_row) for of_row in parts]
    examples = [part for of_row in parts for part in of_row]
    summary: Lengths = {
        **histogram(lengths, limit),
        "rows": len(lengths),
        "longest": max(lengths),
        "mean": sum(lengths) / len(lengths),
        "limit": limit,
        "cut_rows": sum(row.cut for row in examples),
        "blocks": len(examples) if len(examples) > len(tokenized) else 0,
        "cut_answers": sum(a < b for a, b in zip(labels_left, labels, strict=True)),
        "lost_answers": sum(a == 0 < b for a, b in zip(labels_left, labels, strict=True)),
        "trained_share": sum(labels_left) / max(1, sum(len(row.ids) for row in examples)),
    }
    return summary
