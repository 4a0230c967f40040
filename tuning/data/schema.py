"""What rows are: text, prompt and completion, instruction, conversation, text and label; and rows into `Row`s.

The first records of a table, what a person has chosen and the card of a bundled set make a `RowSchema`. By it each
record becomes a `Row`, or raises RowError with the reason why it cannot.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from tuning.core.errors import DataError, Notice
from tuning.data.columns import INSTRUCTIONS, ROLES, Columns, plain_name
from tuning.data.conversations import (
    count_systems,
    history_of,
    is_talk,
    masked,
    tools_of,
    turns_of,
    unlearned_answers,
)
from tuning.data.notices import LISTED, NoticeCounts
from tuning.data.values import LONGEST_MISSING, MISSING_WORDS, RowError, as_text, is_answers, is_missing
from tuning.settings.schema import DataSettings
from tuning.text import Row, Turn

TEMPLATES = ("text", "text_pair", "prompt", "input", "completion", "system")
"""Roles that a text with {column} placeholders can play too."""
WRITTEN_BY_TEMPLATE = ("text", "text_pair", "prompt", "input")
"""Roles whose columns are read only where data.text_template names them, when there is one."""
ROLES_OF_SHAPE = {
    "text": {"text"},
    "text + label": {"text", "text_pair", "label"},
    "prompt + completion": {"prompt", "completion", "system", "history"},
    "instruction + input + output": {"prompt", "input", "completion", "system", "history"},
    "conversation": {"messages", "prompt", "completion", "system", "tools", "loss_mask"},
}
"""The roles that each shape has a use for."""
LABEL_LINE = "\nLabel:"
"""Put behind a text whose label is to be written."""

_INDEX = re.compile(r"\d{1,6}")
_WHOLE_NUMBER = re.compile(r"([+-]?\d+)\.0+")


@dataclass(frozen=True, slots=True, kw_only=True)
class RowSchema:
    """How records become rows; hashable, so that results of reading rows by it can be cached."""

    columns: tuple[tuple[str, str], ...]
    """(role, column or template)."""
    shape: str
    labelled: bool
    prompt_template: str | None
    answer_template: str
    task: str
    classes: tuple[str, ...] = field(default=(), repr=False)
    """Names of the classes where the label column holds their numbers; a fingerprint has them as label names."""
    given: tuple[str, ...] = field(default=(), repr=False)
    """Names of the classes as a person gave them; a number in the label column is the place of one of them."""
    csv: bool = False
    """The table is CSV, where words stand for missing values."""
    separator: str = ""
    """Put between a prompt and its completion where neither has a blank there."""
    guessed: bool = False
    """The columns were recognised, and not chosen by a person or a card."""
    present: tuple[str, ...] = field(default=(), repr=False)
    """All columns of the first records, used or not."""

    @property
    def has_row_notices(self) -> bool:
        """Whether each row may have something to count for a notice, so that `make_row` has to see all of them."""
        beside = any(role in ("input", "system", "history") for role, _ in self.columns)
        return beside or (bool(self.separator) and not self.labelled)

    def column(self, role: str) -> str | None:
        return dict(self.columns).get(role)


def schema_of(
    records: Sequence[Mapping[str, Any]],
    card: Mapping[str, Any],
    settings: DataSettings,
    task: str,
    class_names: Mapping[str, tuple[str, ...]] | None = None,
    csv: bool = False,
) -> RowSchema:
    """What these records are. `class_names` has the names of classes for columns of numbers, by column; `csv` says that
    the records are of a CSV file.

    Raises DataError at the setting that would mend it.
    """
    present, template = columns_of(records), settings.text_template
    if template is not None:
        check_template(template, present, "data.text_template")
    columns = _chosen(settings.columns, present) or _of_card(card)
    guessed = not columns
    if guessed:
        columns = _recognised(records, template, task, tuple(class_names or ()), csv)
    shape = shape_of(columns, task, records)
    _check_shape(shape, columns, present, task)
    assert shape is not None
    _check_roles(columns, shape, task, template)
    if template is not None and shape == "conversation":
        message = "conversations are written by the model's chat template; leave data.text_template empty"
        raise DataError(message, template, "null", "data.text_template")
    classes = _classes((class_names or {}).get(columns.get("label", ""), ()), settings)
    return RowSchema(
        columns=tuple(columns.items()),
        shape=shape,
        labelled=shape == "text + label",
        task=task,
        prompt_template=template or (card.get("prompt_template") if task == "causal_lm" else None),
        answer_template=card.get("completion_template") or " {label}",
        classes=classes,
        given=() if classes else tuple(settings.label_names or ()),
        csv=csv,
        separator=_separator(columns, settings),
        guessed=guessed,
        present=tuple(present),
    )


def _of_card(card: Mapping[str, Any]) -> dict[str, str]:
    """Columns by role as a data set's card names them."""
    return {role: column for role, column in (card.get("columns") or {}).items() if role in ROLES}


def _recognised(
    records: Sequence[Mapping[str, Any]], template: str | None, task: str, classed: tuple[str, ...], csv: bool
) -> dict[str, str]:
    """Columns by role as the records' own names and values say; a text that a template makes needs none of them.

    Raises DataError where they can be read in more than one way.
    """
    template_is_enough = template is not None and task != "sequence_classification"
    try:
        columns = Columns(records, csv).roles(task, classed)
    except DataError:
        if not template_is_enough:
            raise
        columns = {}
    if not columns and template is not None:
        return {"text": template}  # what is learned is said outright
    return columns


def _check_shape(shape: str | None, columns: Mapping[str, str], present: Sequence[str], task: str) -> None:
    """Raises DataError for rows from which nothing can be learned, or nothing for this task."""
    if shape is None:
        alone = f"nothing to learn from {', '.join(columns)} alone" if columns else "no column to learn from"
        message = (
            f"{alone} among {', '.join(present)[:300]}: needs text, or prompt and completion, or messages; "
            'say which with data.columns, for example {"text": "body"}'
        )
        limit = "text | text + label | prompt + completion | messages"
        raise DataError(message, present, limit, "data.columns")
    if task == "sequence_classification" and shape != "text + label":
        message = "classification needs rows with a text and a label column; choose task causal_lm or other data"
        raise DataError(message, present, "text + label", "task")


def _check_roles(columns: Mapping[str, str], shape: str, task: str, template: str | None) -> None:
    """Raises DataError for roles that this shape has no use for, and for two texts that only a template can join."""
    uses = ROLES_OF_SHAPE[shape] - ({"prompt", "completion"} if "messages" in columns else set())
    strange = next((role for role in columns if role not in uses), None)
    if strange is not None:
        limit = ", ".join(sorted(uses))
        message = f"the role {strange!r} has no use for rows of {shape}, which have {limit}; leave it out"
        raise DataError(message, dict(columns), limit, "data.columns")
    if "text_pair" in columns and task != "sequence_classification" and template is None:
        first, second = columns["text"], columns["text_pair"]
        example = f"{{{first}}}\\n{{{second}}}\\nLabel:"
        message = (
            f"a row has two texts, {first} and {second}; say how they are written before the label with "
            f'data.text_template, for example "{example}", or choose the task sequence_classification'
        )
        raise DataError(message, None, f"a template of {first} and {second}", "data.text_template")


def _separator(columns: Mapping[str, str], settings: DataSettings) -> str:
    """What stands between prompt and completion: what the settings say, else one space where the prompt is a field of
    its own, so that its completion is not written to go on from it."""
    if settings.separator is not None:
        return settings.separator
    own = "input" in columns or plain_name(columns.get("prompt", "")) in INSTRUCTIONS
    return " " if own else ""


def column_notices(schema: RowSchema) -> Iterator[Notice]:
    """Which columns are used, where neither a person nor their own names say it, and which are not."""
    yield from _role_notices(schema)
    yield from _label_notices(schema)
    yield from _unused_column_notices(schema)


def _role_notices(schema: RowSchema) -> Iterator[Notice]:
    """The roles that columns were given whose names do not say them."""
    columns = dict(schema.columns)
    if schema.guessed and any(role != plain_name(column) for role, column in columns.items()):
        roles = ", ".join(f"{role} from {column!r:.60}" for role, column in columns.items())
        message = f"The rows are recognised as {schema.shape}: {roles}."
        yield Notice(field="data.columns", message=message, count=len(columns))


def _label_notices(schema: RowSchema) -> Iterator[Notice]:
    """How a label is written behind its text, where a language model learns it."""
    if schema.labelled and schema.task == "causal_lm" and (schema.guessed or not schema.prompt_template):
        written = f"{schema.answer_template.format(label='label')!r}"
        prompt = "text_template writes the prompt" if schema.prompt_template else f"each text ends in {LABEL_LINE!r}"
        message = (
            f"The label is the answer to its text: {prompt}, and {written} follows; only the answer is learned, unless "
            "data.loss_on is all."
        )
        yield Notice(field="data.columns", message=message, count=2)


def _unused_column_notices(schema: RowSchema) -> Iterator[Notice]:
    """The columns that stand in no row."""
    used = _used_columns(schema)
    unused = [column for column in schema.present if column not in used]
    if unused:
        names = ", ".join(f"{column!r:.60}" for column in unused[:LISTED])
        more = f" and {len(unused) - LISTED} more" if len(unused) > LISTED else ""
        count = "1 column is" if len(unused) == 1 else f"{len(unused)} columns are"
        yield Notice(field="data.columns", message=f"{count} not used: {names}{more}.", count=len(unused))


def _used_columns(schema: RowSchema) -> set[str]:
    """The columns that stand in a row, by themselves or in a template."""
    columns = dict(schema.columns)
    if schema.prompt_template:  # it says which columns stand in a text or prompt
        columns = {role: column for role, column in columns.items() if role not in WRITTEN_BY_TEMPLATE}
    texts = [schema.prompt_template or "", *columns.values()]
    return set(columns.values()) | {name for text in texts for name in _placeholders(text)}


def _placeholders(template: str) -> set[str]:
    """The names of the columns in a template."""
    try:
        return {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}
    except ValueError:  # a column with a brace in its name
        return {""}


def _classes(names: tuple[str, ...], settings: DataSettings) -> tuple[str, ...]:
    """The names of numbered classes: those a person gave, else those of the card. Raises DataError for too few."""
    given = settings.label_names
    if names and given and len(given) < len(names):
        limit = f"{len(names)} names, for the classes 0 to {len(names) - 1}"
        message = f"data.label_names names {len(given)} classes and the rows have {len(names)}; give {limit}"
        raise DataError(message, list(given), limit, "data.label_names")
    return (given or names) if names else ()


def columns_of(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """All columns of these records in the order of their first appearance."""
    return list(dict.fromkeys(name for record in records for name in record))


def _chosen(chosen: Mapping[str, str], present: list[str]) -> dict[str, str]:
    """Columns by role as data.columns names them. Raises DataError for a role or a column that does not exist."""
    for role, column in chosen.items():
        if role in ROLES and column in present:
            continue
        if role in TEMPLATES and "{" in column:
            check_template(column, present, "data.columns")
            continue
        limit = f"one of {', '.join(ROLES)} with a column of {', '.join(present)}"
        message = f"data.columns: {role!r} cannot be column {column!r}; use {limit}"
        raise DataError(message, dict(chosen), limit, "data.columns")
    return dict(chosen)


def shape_of(columns: Mapping[str, str], task: str, records: Sequence[Mapping[str, Any]]) -> str | None:
    """The shape that these roles make; None where nothing can be learned from them."""
    if task == "sequence_classification" and {"text", "label"} <= set(columns):
        return "text + label"
    if "messages" in columns:
        return "conversation"
    if {"prompt", "completion"} <= set(columns):
        if any(is_talk(record.get(columns[role])) for record in records for role in ("prompt", "completion")):
            return "conversation"
        return "instruction + input + output" if "input" in columns else "prompt + completion"
    if "text" in columns:
        return "text + label" if "label" in columns else "text"
    return None


def check_template(template: str, present: Sequence[str], field: str) -> None:
    """Raises DataError where a template names no existing column, or does more than name columns."""
    limit = ", ".join("{" + name + "}" for name in present)
    try:
        placeholders = [
            (name, spec, conversion)
            for _, name, spec, conversion in string.Formatter().parse(template)
            if name is not None
        ]
    except ValueError as error:
        raise DataError(f"{field} cannot be read: {error}", template, limit, field) from None
    wrong = next((name for name, _, _ in placeholders if name not in present), None)
    if not placeholders or wrong is not None or any(spec or conversion for _, spec, conversion in placeholders):
        fault = f"there is no column {wrong!r}" if wrong is not None else "it must name a column, and nothing else"
        raise DataError(f"{field} needs placeholders of existing columns: {limit}; {fault}", template, limit, field)


def fill(template: str, record: Mapping[str, Any], csv: bool = False) -> str:
    """The template with the record's values; values are put in as they are and never read as templates."""
    out = []
    for literal, name, _, _ in string.Formatter().parse(template):
        out.append(literal)
        if name is not None:
            out.append(as_text(record.get(name), name, csv, empty=True))
    return "".join(out)


def label_text(record: Mapping[str, Any], schema: RowSchema) -> str:
    """The record's class as text: as it stands there without blanks around it, a whole number without its .0, or the
    name of its number. Raises RowError."""
    column = schema.column("label") or ""
    value = record.get(column)
    if isinstance(value, str) and value in schema.given:  # said outright to be a class, whatever else it may mean
        return value
    text = as_text(value, column, schema.csv).strip()
    if not text:
        raise RowError(f"column {column!r} is missing or empty")
    whole_number = _WHOLE_NUMBER.fullmatch(text)
    if whole_number and text not in (schema.classes or schema.given):
        text = whole_number[1]
    names = _numbered_classes(schema, text)
    number = int(text) if names and _INDEX.fullmatch(text) else -1
    if 0 <= number < len(names):  # first of all a number, for a name may be one too
        return names[number]
    if not schema.classes or text in schema.classes:
        return text
    raise RowError(f"column {column!r} is {text!r:.40}, and the classes are 0 to {len(schema.classes) - 1}")


def _numbered_classes(schema: RowSchema, label: str) -> tuple[str, ...]:
    """The names of which this label may be the number; none where a person's own names may be numbers themselves."""
    if schema.classes:
        return schema.classes
    return () if label in schema.given or any(map(_INDEX.fullmatch, schema.given)) else schema.given


def make_row(
    record: Mapping[str, Any], schema: RowSchema, labels: Mapping[str, int], counts: NoticeCounts | None = None
) -> Row:
    """The record as a row; `labels` numbers the classes, its peculiarities are added to `counts`. Raises
    RowError."""
    counts = NoticeCounts() if counts is None else counts
    if schema.shape == "conversation":
        return _conversation(record, schema, counts)
    columns, template, csv = dict(schema.columns), schema.prompt_template, schema.csv
    if schema.labelled:
        name = label_text(record, schema)
        text = _value(record, columns["text"], csv)
        pair = _value(record, columns["text_pair"], csv) if "text_pair" in columns else None
        if schema.task == "sequence_classification":
            if template:
                return Row(text=fill(template, record, csv), label=labels.get(name))
            return Row(text=text, text_pair=pair, label=labels.get(name))
        prompt = fill(template, record, csv) if template else text + LABEL_LINE
        return Row(prompt=prompt, completion=schema.answer_template.format(label=name), label=labels.get(name))
    if "prompt" in columns:
        return _answered(record, schema, counts)
    if template:
        return Row(text=fill(template, record, csv))
    return Row(text=_value(record, columns["text"], csv))


def _answered(record: Mapping[str, Any], schema: RowSchema, counts: NoticeCounts) -> Row:
    """A prompt with its completion, and what stands beside them."""
    columns, csv = dict(schema.columns), schema.csv
    prompt = _value(record, columns["prompt"], csv)
    column, value = columns["completion"], record.get(columns["completion"])
    if is_answers(value):
        completion = as_text(next(iter(value["text"]), None), column)
        counts["answers", ""] += len(value["text"]) - 1
    else:
        completion = _value(record, column, csv)
    extra = _value(record, columns["input"], csv, empty=True) if "input" in columns else ""
    if extra.strip():
        prompt = prompt + "\n\n" + extra
        counts["input", ""] += 1
    prompt = fill(schema.prompt_template, record, csv) if schema.prompt_template else prompt
    separated = not completion or completion[0].isspace() or not prompt or prompt[-1].isspace()
    if schema.separator and not separated:  # words start with their space in byte-level vocabularies
        completion = schema.separator + completion
        counts["separator", ""] += 1
    history = columns.get("history", "")
    return Row(
        prompt=prompt,
        completion=completion,
        system=_system(record, schema, counts),
        history=history_of(record.get(history), history, counts) if history else (),
    )


def _conversation(record: Mapping[str, Any], schema: RowSchema, counts: NoticeCounts) -> Row:
    """Turns of one column, or those of a prompt and of its completion."""
    columns = dict(schema.columns)
    if "messages" in columns:
        turns = turns_of(record.get(columns["messages"]), columns["messages"], counts)
    else:
        prompt_turns = unlearned_answers(_part(record, columns["prompt"], "user", schema, counts), counts)
        turns = prompt_turns + _part(record, columns["completion"], "assistant", schema, counts)
    if "loss_mask" in columns and not is_missing(record.get(columns["loss_mask"]), schema.csv):
        turns = masked(turns, record[columns["loss_mask"]], columns["loss_mask"], counts)
    count_systems(turns, counts)
    counts["asked_last", ""] += turns[-1].role == "user"
    tools = columns.get("tools", "")
    system = _system(record, schema, counts) if "system" in columns else None
    counts["system_turn", ""] += turns[0].role == "system"
    if system is not None and turns[0].role == "system":
        counts["system_both", ""] += system != turns[0].content
        counts["system", ""] -= 1
        system = None
    return Row(messages=turns, system=system, tools=tools_of(record.get(tools), tools, counts) if tools else None)


def _part(
    record: Mapping[str, Any], column: str, role: str, schema: RowSchema, counts: NoticeCounts
) -> tuple[Turn, ...]:
    """The turns of a prompt or of a completion; a plain text is one turn."""
    value = record.get(column)
    if isinstance(value, list | dict) or is_talk(value):
        return turns_of(value, column, counts)
    return (Turn(role, _value(record, column, schema.csv)),)


def _system(record: Mapping[str, Any], schema: RowSchema, counts: NoticeCounts) -> str | None:
    """The row's own system prompt; None where it has none."""
    column = schema.column("system")
    text = _value(record, column, schema.csv, empty=True) if column else ""
    if not text.strip():
        return None
    counts["system", ""] += 1
    return text


def fast_valid(schema: RowSchema) -> Callable[[Mapping[str, Any]], bool]:
    """A fast test of records: True only for records that `make_row` takes, False where `make_row` has to decide."""
    templates = [column for _, column in schema.columns if "{" in column] + [schema.prompt_template or ""]
    in_templates = {name for text in templates for name in _placeholders(text)}
    needed = tuple({column for _, column in schema.columns if "{" not in column} | in_templates)
    if schema.shape == "conversation":
        return lambda record: False
    csv, label = schema.csv, schema.column("label") if schema.labelled else None

    def is_valid(record: Mapping[str, Any]) -> bool:
        for name in needed:
            value = record.get(name)
            if type(value) is str:
                if not value or value[0].isspace() or not value.isascii():  # an empty class is none
                    return False
                if csv and len(value) <= LONGEST_MISSING and value in MISSING_WORDS:
                    return False
            elif not isinstance(value, int | float) or (type(value) is float and not isfinite(value)):
                return False
        return label is None or str(record[label]).strip() != ""

    return is_valid


def _value(record: Mapping[str, Any], column: str, csv: bool, empty: bool = False) -> str:
    """The text of a column, or of a template of columns. Raises RowError."""
    if "{" in column and column not in record:
        return fill(column, record, csv)
    return as_text(record.get(column), column, csv, empty=empty)
