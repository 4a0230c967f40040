"""What rows are: text, prompt and completion, instruction, conversation, text and label; and rows into `Row`s.

Comes in: the first records of a table, what a person has chosen, a card of a bundled set.  Goes out: a `Reading`, by
which each record becomes a `Row`, or raises RowFault with the reason why it cannot.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tuning.data.header import TEXT_NAMES
from tuning.errors import DataError
from tuning.settings import DataSettings
from tuning.text import Row, Turn

ROLES = ("text", "prompt", "input", "completion", "messages", "label")
PAIRS = (
    ("prompt", "completion"),
    ("prompt", "response"),
    ("instruction", "output"),
    ("instruction", "response"),
    ("instruction", "completion"),
    ("instruction", "answer"),
    ("question", "answer"),
    ("query", "response"),
    ("question", "response"),
    ("prompt", "answer"),
    ("input", "output"),
    ("input", "target"),
    ("source", "target"),
)
"""Column names of prompt and completion, the surest first."""
INPUTS = ("input", "context")
TALKS = ("messages", "conversations", "conversation", "dialog", "dialogue", "chat")
LABELS = ("label", "labels", "class", "category", "sentiment", "topic", "intent", "stars", "rating", "target")
SPEAKERS = {
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "ai": "assistant",
}
"""Who speaks in the `from`/`value` form, in the words of chat templates."""
FEW_CLASSES = 20


_NUMBER = re.compile(r"\d{1,6}(\.0)?")


class RowFault(ValueError):
    """A record that cannot become a row, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How records become rows; hashable, so that what it found can be kept."""

    columns: tuple[tuple[str, str], ...]
    """(role, column or template)."""
    shape: str
    labelled: bool
    prompt_template: str | None
    answer_template: str
    task: str
    classes: tuple[str, ...] = field(default=(), repr=False)
    """Names of the classes where the label column holds their numbers; a fingerprint has them as label names."""

    def column(self, role: str) -> str | None:
        return dict(self.columns).get(role)


def read_as(
    records: Sequence[Mapping[str, Any]],
    card: Mapping[str, Any],
    settings: DataSettings,
    task: str,
    named: Mapping[str, tuple[str, ...]] | None = None,
) -> Reading:
    """What these records are; `named` has the names of classes for columns of numbers.

    Raises DataError at the setting that would mend it.
    """
    present = columns_of(records)
    columns = _chosen(settings.columns, present) or {
        role: column for role, column in (card.get("columns") or {}).items() if role in ROLES
    }
    columns = columns or _with_label(recognise(records, task), present, named or {})
    shape = shape_of(columns, task)
    if shape is None:
        message = (
            f"no column to learn from among {', '.join(present)}: needs text, or prompt and completion, or messages; "
            'say which with data.columns, for example {"text": "body"}'
        )
        limit = "text | text + label | prompt + completion | messages"
        raise DataError(message, present, limit, "data.columns")
    if task == "sequence_classification" and shape != "text + label":
        message = "classification needs rows with a text and a label column; choose task causal_lm or other data"
        raise DataError(message, present, "text + label", "task")
    template = settings.text_template
    if template is not None:
        check_template(template, present, "data.text_template")
        if shape == "conversation":
            message = "conversations are written by the model's chat template; leave data.text_template empty"
            raise DataError(message, template, "null", "data.text_template")
    return Reading(
        columns=tuple(columns.items()),
        shape=shape,
        labelled=shape == "text + label",
        task=task,
        prompt_template=template or (card.get("prompt_template") if task == "causal_lm" else None),
        answer_template=card.get("completion_template") or " {label}",
        classes=_classes((named or {}).get(columns.get("label", ""), ()), settings),
    )


def _with_label(
    columns: dict[str, str], present: Sequence[str], named: Mapping[str, tuple[str, ...]]
) -> dict[str, str]:
    """A column whose classes have names is a label, whatever it is called."""
    label = next((name for name in named if name in present), None)
    return columns | {"label": label} if label and set(columns) == {"text"} and columns["text"] != label else columns


def _classes(names: tuple[str, ...], settings: DataSettings) -> tuple[str, ...]:
    """The names by number: those a person gave, else those of the card."""
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
    for role, column in chosen.items():
        if role in ROLES and column in present:
            continue
        if role in ("prompt", "completion", "text", "input") and "{" in column:
            check_template(column, present, "data.columns")
            continue
        limit = f"one of {', '.join(ROLES)} with a column of {', '.join(present)}"
        message = f"data.columns: {role!r} cannot be column {column!r}; use {limit}"
        raise DataError(message, dict(chosen), limit, "data.columns")
    return dict(chosen)


def recognise(records: Sequence[Mapping[str, Any]], task: str) -> dict[str, str]:
    """Role -> column by what the values are and what the columns are called; empty where nothing fits."""
    present = columns_of(records)
    by_name = {name.lower().strip(): name for name in reversed(present)}
    talks = [name for name in present if any(_is_talk(record.get(name)) for record in records)]
    talks = talks or [by_name[name] for name in TALKS if name in by_name]
    if talks and task != "sequence_classification":
        return {"messages": min(talks, key=lambda name: TALKS.index(name.lower()) if name.lower() in TALKS else 99)}
    if task != "sequence_classification":
        for prompt, completion in PAIRS:
            if prompt in by_name and completion in by_name:
                found = {"prompt": by_name[prompt], "completion": by_name[completion]}
                extra = next((by_name[n] for n in INPUTS if n in by_name and n != prompt), None)
                return found | ({"input": extra} if prompt == "instruction" and extra else {})
    texts = _texts(records, present)
    text = next((by_name[name] for name in TEXT_NAMES if name in by_name), None)
    label = next((by_name[name] for name in LABELS if name in by_name and by_name[name] != text), None)
    if text is None:
        free = [name for name in texts if name != label]
        text = max(free, key=lambda name: _mean_length(records, name), default=None) if len(free) <= 2 else None
    if text is None:
        return {}
    if label is None and len(present) == 2:
        other = next(name for name in present if name != text)
        label = other if _like_classes(records, other) else None
        if label is None and task != "sequence_classification" and other in texts and text.lower() not in TEXT_NAMES:
            return {}  # two columns of prose with names that say nothing: not ours to choose
    return {"text": text, **({"label": label} if label else {})}


def _is_talk(value: Any) -> bool:
    if not isinstance(value, list) or not value or not isinstance(value[0], dict):
        return False
    return {"role", "content"} <= set(value[0]) or {"from", "value"} <= set(value[0])


def _texts(records: Sequence[Mapping[str, Any]], present: list[str]) -> list[str]:
    def some(name: str) -> list[Any]:
        return [record[name] for record in records if record.get(name) not in (None, "")]

    return [name for name in present if some(name) and all(isinstance(value, str) for value in some(name))]


def _mean_length(records: Sequence[Mapping[str, Any]], name: str) -> float:
    return sum(len(str(record.get(name) or "")) for record in records) / max(1, len(records))


def _like_classes(records: Sequence[Mapping[str, Any]], name: str) -> bool:
    values = [str(record.get(name)) for record in records]
    return 2 <= len(set(values)) <= min(FEW_CLASSES, len(values) // 2) and max(map(len, values)) <= 40


def shape_of(columns: Mapping[str, str], task: str) -> str | None:
    """The shape that these roles make; None where nothing can be learned from them."""
    if task == "sequence_classification" and {"text", "label"} <= set(columns):
        return "text + label"
    if "messages" in columns:
        return "conversation"
    if {"prompt", "completion"} <= set(columns):
        return "instruction + input + output" if "input" in columns else "prompt + completion"
    if "text" in columns:
        return "text + label" if "label" in columns else "text"
    return None


def check_template(template: str, present: Sequence[str], field: str) -> None:
    """Raises DataError where a template names no existing column, or does more than name columns."""
    limit = ", ".join("{" + name + "}" for name in present)
    try:
        asked = [(name, spec, turn) for _, name, spec, turn in string.Formatter().parse(template) if name is not None]
    except ValueError as error:
        raise DataError(f"{field} cannot be read: {error}", template, limit, field) from None
    wrong = next((name for name, _, _ in asked if name not in present), None)
    if not asked or wrong is not None or any(spec or turn for _, spec, turn in asked):
        fault = f"there is no column {wrong!r}" if wrong is not None else "it must name a column, and nothing else"
        raise DataError(f"{field} needs placeholders of existing columns: {limit}; {fault}", template, limit, field)


def fill(template: str, record: Mapping[str, Any]) -> str:
    """The template with the record's values; values are put in as they are and never read as templates."""
    out = []
    for literal, name, _, _ in string.Formatter().parse(template):
        out.append(literal)
        if name is not None:
            out.append(_as_text(record.get(name), name, empty=True))
    return "".join(out)


def label_text(record: Mapping[str, Any], reading: Reading) -> str:
    """The record's class as text: as it stands there, or the name of its number. Raises RowFault."""
    column = reading.column("label") or ""
    text, classes = _as_text(record.get(column), column), reading.classes
    if not classes:
        return text
    number = int(text.removesuffix(".0")) if _NUMBER.fullmatch(text) else -1
    if 0 <= number < len(classes):  # first of all a number, for a name may be one too
        return classes[number]
    if text in classes:
        return text
    raise RowFault(f"column {column!r} is {text!r:.40}, and the classes are 0 to {len(classes) - 1}")


def make_row(record: Mapping[str, Any], reading: Reading, labels: Mapping[str, int]) -> Row:
    """The record as a row; `labels` numbers the classes. Raises RowFault."""
    columns = dict(reading.columns)
    if reading.shape == "conversation":
        return Row(messages=_turns(record.get(columns["messages"]), columns["messages"]))
    if reading.labelled:
        name = label_text(record, reading)
        text = _value(record, columns["text"])
        if reading.task == "sequence_classification":
            text = fill(reading.prompt_template, record) if reading.prompt_template else text
            return Row(text=text, label=labels.get(name))
        prompt = fill(reading.prompt_template, record) if reading.prompt_template else f"{text}\nLabel:"
        return Row(prompt=prompt, completion=reading.answer_template.format(label=name), label=labels.get(name))
    if "prompt" in columns:
        prompt = _value(record, columns["prompt"])
        completion = _value(record, columns["completion"], empty=columns["completion"] in record)
        extra = _value(record, columns["input"], empty=True) if "input" in columns else ""
        prompt = prompt + "\n\n" + extra if extra.strip() else prompt
        prompt = fill(reading.prompt_template, record) if reading.prompt_template else prompt
        if completion and not completion[0].isspace() and prompt and not prompt[-1].isspace():
            completion = " " + completion  # words start with their space in byte-level vocabularies
        return Row(prompt=prompt, completion=completion)
    if reading.prompt_template:
        return Row(text=fill(reading.prompt_template, record))
    return Row(text=_value(record, columns["text"]))


def surely_good(reading: Reading) -> Callable[[Mapping[str, Any]], bool]:
    """A quick test of records: yes only where `make_row` finds no fault; no where it has to be asked."""
    templates = [column for _, column in reading.columns if "{" in column] + [reading.prompt_template or ""]
    try:
        inside = {name for text in templates for _, name, _, _ in string.Formatter().parse(text) if name is not None}
    except ValueError:  # a column with a brace in its name
        inside = {""}
    needed = tuple({column for _, column in reading.columns if "{" not in column} | inside)
    if reading.shape == "conversation":
        return lambda record: False

    def good(record: Mapping[str, Any]) -> bool:
        for name in needed:
            value = record.get(name)
            if type(value) is str:
                if not value.isascii():
                    return False
            elif not isinstance(value, int | float):
                return False
        return True

    return good


def _value(record: Mapping[str, Any], column: str, empty: bool = False) -> str:
    if "{" in column and column not in record:
        return fill(column, record)
    return _as_text(record.get(column), column, empty)


def _as_text(value: Any, column: str, empty: bool = False) -> str:
    if value is None and empty:
        return ""
    if not isinstance(value, str | int | float):
        raise RowFault(f"column {column!r} is {'missing or empty' if value is None else 'not text'}")
    text = str(value)
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise RowFault(f"column {column!r} holds half of a character (a lone surrogate)") from None
    return text


def _turns(turns: Any, column: str) -> tuple[Turn, ...]:
    if not isinstance(turns, list) or not turns:
        raise RowFault(f"{column} needs a list of turns with role and content")
    found = []
    for number, turn in enumerate(turns, 1):
        if not isinstance(turn, dict):
            raise RowFault(f"turn {number} of {column} needs role and content")
        who = turn.get("role", turn.get("from"))
        said = turn.get("content", turn.get("value"))
        if not isinstance(who, str) or not isinstance(said, str):
            raise RowFault(f"turn {number} of {column} needs role and content (or from and value) as texts")
        found.append(Turn(SPEAKERS.get(who.lower(), who), _as_text(said, column)))
    return tuple(found)
