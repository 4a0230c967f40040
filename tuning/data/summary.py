"""What the chosen rows become as tokens: lengths, labels, what is cut, as plain data for the plan.

Up to a few thousand rows all are counted; of more, rows spread evenly over the file are, and the summary says so.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tuning.core.errors import DataError, Notice
from tuning.core.lru import LruCache
from tuning.data.data_set import DataSet, Rows
from tuning.data.duplicates import repeat_notices
from tuning.data.row_counts import RowCounts
from tuning.data.token_arrays import learnable, tokenize_each
from tuning.methods.recipes import read_recipe, recipe_named
from tuning.settings.schema import DataSettings
from tuning.text import EncodedRow, Row, TextTokenizer, TokenizedRow
from tuning.text.prompts import longest_prompt

COUNTED_BYTES = 2 * 2**20
"""Files up to this size have every row counted: about a second of tokenizing."""
PAIRS = "prompt + completion"
"""The shape of rows that a recipe takes."""
CONVERSATION = "conversation"
TEXT = "text"
SAMPLED_ROWS = 1_000
SAMPLED_BYTES = 2 * 2**20
SUMMARIES = 16
"""Summaries held for the next call: plain numbers, which take little memory, and seconds to count."""


def read_first(system_prompt: str | None, shape: str | None) -> str | None:
    """The system prompt where rows of this shape have prompts for it to stand before; None where they are texts."""
    return system_prompt if shape not in (TEXT, None) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSummary:
    """What the chosen rows become as tokens; lengths in tokens, after cutting.

    Where `sampled` is true, `lengths` and `trained_tokens` belong to rows spread over the file, the counts of rows are
    of all rows, bad and empty ones not yet left out, and `longest` is max_seq_length.
    """

    name: str
    title: str
    shape: str
    label_names: tuple[str, ...] | None
    train_rows: int
    """Examples to train on; a long text counts once for each of its blocks."""
    eval_rows: int
    lengths: tuple[int, ...]
    trained_tokens: tuple[int, ...]
    cut_rows: int
    dropped_rows: int
    fingerprint: str
    sampled: bool = False
    limit: int = 0
    """max_seq_length, where not every row was counted."""
    eval_lengths: tuple[int, ...] = ()
    """Lengths of the evaluation rows in their order; empty where not every row was counted."""
    eval_trained_tokens: tuple[int, ...] = ()
    notices: tuple[Notice, ...] = ()
    """Notices about columns, turns and rows: which are used, and which are not."""
    asked_length: int = 0
    """Tokens of the longest question, whole, of the rows that were counted, where a recipe asks them of the base model;
    else 0."""
    chat: bool = False
    """Whether rows are written through the model's chat template, and so questions too."""
    largest_id: int = 0
    """The largest token id of the rows that were counted: the embedding needs a row more."""

    @property
    def longest(self) -> int:
        return self.limit if self.sampled else max(self.lengths, default=0)

    @property
    def longest_origin(self) -> str:
        counted = f"max_seq_length: only {len(self.lengths):,} of {self.train_rows:,} rows were counted"
        return counted if self.sampled else "the longest row of this data, in tokens"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_dict(plain: dict[str, Any]) -> DataSummary:
        names = plain["label_names"]
        plain = {"chat": plain["shape"] == CONVERSATION} | plain
        lists = ("lengths", "trained_tokens", "eval_lengths", "eval_trained_tokens")
        tuples = {name: tuple(plain[name]) for name in lists if name in plain}  # plans of old runs lack some
        tuples["notices"] = tuple(map(Notice.from_dict, plain.get("notices", ())))
        return DataSummary(**(plain | tuples | {"label_names": tuple(names) if names is not None else None}))


_SUMMARIES: LruCache[DataSummary] = LruCache(SUMMARIES)


def summarize(
    data: DataSet, tokenizer: TextTokenizer, settings: DataSettings, task: str, recipe: dict[str, Any] | None = None
) -> DataSummary:
    """Tokenize the rows and count, or give what was counted before for the same. Raises DataError.

    `settings.chat_template` is decided: `on` or `off`. Rows that a recipe rewrites count in the longest form it may
    give them: what the base model knows shows in the run.
    """
    of_data = (data.fingerprint, data.name, data.title, data.notices)
    key = (of_data, tokenizer.version, settings.model_dump_json(), task, json.dumps(recipe))
    return _SUMMARIES.get(key, lambda: _summary_of(data, tokenizer, settings, task, recipe))


def uncounted(data: DataSet, settings: DataSettings, task: str) -> DataSummary:
    """The rows where no tokenizer can count them: each is taken to be as long as max_seq_length allows."""
    longest = settings.max_seq_length
    return DataSummary(
        name=data.name,
        title=data.title,
        shape=data.shape,
        label_names=data.label_names,
        train_rows=len(data.train),
        eval_rows=len(data.eval),
        lengths=(longest,),
        trained_tokens=(1 if task == "sequence_classification" else longest,),
        cut_rows=0,
        dropped_rows=0,
        fingerprint=data.fingerprint,
        notices=data.notices,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Counted:
    """The rows that were tokenized for a summary."""

    train: list[EncodedRow]
    """Training rows with something to learn from."""
    eval: list[EncodedRow]
    """Evaluation rows with something to learn from; empty where not every row was tokenized."""
    dropped: int
    """Training rows with nothing to learn from."""
    parts_a_row: float
    """Training examples that come of one row, on average: more than 1 where long texts are split."""
    longest_prompt: int
    """Tokens of the longest question that a recipe asks the base model; 0 without a recipe."""
    sampled: bool
    """Whether not every row was tokenized."""


def _summary_of(
    data: DataSet, tokenizer: TextTokenizer, settings: DataSettings, task: str, recipe: dict[str, Any] | None
) -> DataSummary:
    """The summary of rows that are tokenized for it. Raises DataError where none has anything to learn from."""
    counts = RowCounts(settings)
    rows = _count(data, tokenizer, settings, task, recipe, counts)
    sampled = rows.sampled
    repeats = () if sampled else repeat_notices(data)
    return DataSummary(
        name=data.name,
        title=data.title,
        shape=data.shape,
        label_names=data.label_names,
        train_rows=round(len(data.train) * rows.parts_a_row) if sampled else len(rows.train),
        eval_rows=round(len(data.eval) * rows.parts_a_row) if sampled else len(rows.eval),
        lengths=tuple(len(row.ids) for row in rows.train),
        trained_tokens=_label_counts(rows.train),
        cut_rows=sum(row.cut for row in rows.train),
        dropped_rows=rows.dropped,
        fingerprint=data.fingerprint,
        sampled=sampled,
        limit=settings.max_seq_length if sampled else 0,
        eval_lengths=tuple(len(row.ids) for row in rows.eval),
        eval_trained_tokens=_label_counts(rows.eval),
        notices=(*data.notices, *repeats, *tokenizer.notices, *counts.notices(tokenizer, sampled=sampled)),
        asked_length=rows.longest_prompt,
        chat=task == "causal_lm" and _through_template(data, settings, counts),
        largest_id=max(max(row.ids) for row in (*rows.train, *rows.eval)),
    )


def _count(
    data: DataSet,
    tokenizer: TextTokenizer,
    settings: DataSettings,
    task: str,
    recipe: dict[str, Any] | None,
    counts: RowCounts,
) -> _Counted:
    """Tokenize the rows, or a sample of many, and add each to `counts`.

    Raises DataError where no training row has anything to learn from.
    """
    recipe_settings = None if data.shape != PAIRS else read_recipe(recipe)[0]  # a plan with other rows is refused
    sampled = not counted_whole(data)
    train_rows: Rows = sample(data.train) if sampled else data.train
    eval_rows: Iterable[Row] = () if sampled else data.eval
    train = _encoded(train_rows, tokenizer, settings, task, recipe_settings, counts)
    parts_a_row = len(train) / max(1, len(train_rows)) if counts.blocks else 1.0
    evaluation = _encoded(eval_rows, tokenizer, settings, task, recipe_settings, counts)
    learned = list(filter(learnable, train))
    if not learned:
        raise _nothing_to_learn(settings, counts)
    prompts = () if recipe_settings is None else itertools.chain(train_rows, eval_rows)
    return _Counted(
        train=learned,
        eval=list(filter(learnable, evaluation)),
        dropped=len(train) - len(learned),
        parts_a_row=parts_a_row,
        longest_prompt=longest_prompt(
            prompts, tokenizer, settings.system_prompt, special_tokens=settings.special_tokens
        ),
        sampled=sampled,
    )


def _through_template(data: DataSet, settings: DataSettings, counts: RowCounts) -> bool:
    """Whether rows are written through the model's chat template."""
    return data.shape == CONVERSATION or (settings.chat_template == "on" and counts.pairs > 0)


def _nothing_to_learn(settings: DataSettings, counts: RowCounts) -> DataError:
    """The refusal of rows of which none has a token to learn: for they are cut, or were never to be learned."""
    if counts.answers:
        message = "no row has anything to learn from within max_seq_length; raise it"
        return DataError(message, settings.max_seq_length, "at least one row", "data.max_seq_length")
    message = (
        "no row has anything to learn from: the answers are empty, or the data mark them as not to be learned; check "
        "the answers and their marks"
    )
    return DataError(message, settings.source, "at least one answer to learn", "data.source")


def _encoded(
    rows: Iterable[Row],
    tokenizer: TextTokenizer,
    settings: DataSettings,
    task: str,
    recipe_settings: Any,
    counts: RowCounts,
) -> list[EncodedRow]:
    """The examples that rows become, each row added to `counts`; under a recipe, of the longest form it may give a
    row."""
    examples = list[EncodedRow]()
    for row, tokenized in _tokenized(rows, tokenizer, settings, task, recipe_settings):
        parts = [] if tokenized is None else tokenized.parts(settings.max_seq_length, settings.long_text)
        counts.add(row, tokenized, parts, tokenizer)
        examples += parts
    return examples


def _tokenized(
    rows: Iterable[Row], tokenizer: TextTokenizer, settings: DataSettings, task: str, recipe_settings: Any
) -> Iterator[tuple[Row, TokenizedRow | None]]:
    """Rows beside their tokens, None where the chat template refuses one; under a recipe each in its longest form."""
    if recipe_settings is None:
        yield from tokenize_each(rows, tokenizer, settings, task)
        return
    recipe = recipe_named(recipe_settings.name)
    forms = zip(*(recipe.forms(row, recipe_settings) for row in rows), strict=True)
    tokenized = [list(tokenize_each(form, tokenizer, settings, task)) for form in forms]
    for forms_of_row in zip(*tokenized, strict=True):
        yield max(forms_of_row, key=lambda pair: (len(pair[1].ids), sum(pair[1].trained[1:])) if pair[1] else (0, 0))


def _label_counts(rows: Sequence[EncodedRow]) -> tuple[int, ...]:
    """Labels of each row: a class, or the tokens that are trained on."""
    return tuple(1 if row.label is not None else row.trained_tokens for row in rows)


def counted_whole(data: DataSet) -> bool:
    """Whether the data are small enough for every row to be counted."""
    share = (len(data.train) + len(data.eval)) / max(1, len(data.train.table))
    return data.small and data.train.table.size * min(1.0, share) <= COUNTED_BYTES


def sample(rows: Rows) -> Rows:
    """Rows spread evenly, fewer of them where they are long."""
    count = max(1, min(SAMPLED_ROWS, SAMPLED_BYTES // rows.table.row_bytes, len(rows)))
    indices: Sequence[int] = [rows.indices[i * len(rows) // count] for i in range(count)]
    return rows.at(indices)
