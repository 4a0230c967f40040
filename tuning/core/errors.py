"""The errors that a person reads when something cannot be done, and the sentences they consist of.

    TuningError            shown to the person, word for word; never a traceback
    ├── SettingsError      the settings are at fault: one Problem for each faulty field, all at once
    ├── ModelError         the base model cannot be used (missing files, unknown kind, pickle weights)
    ├── DataError          the rows cannot be used (missing file, wrong columns, nothing left to train on)
    └── RunError           a run is not in a state for what was asked of it

A sentence names the field, the value, the limit and the fix. Every other exception is a bug and is reported as one. A
`Notice` is no error: a person reads it before Start, and the run goes on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

SHOWN_CHARACTERS, SHOWN_ITEMS, SHOWN_LEVELS = 400, 20, 4
"""How much of a faulty value is repeated to the person who gave it."""


def whole_characters(text: str) -> str:
    """The text with halves of characters (lone surrogates), which no file can hold, written as escapes."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def counted(count: float, singular: str, plural: str = "") -> str:
    """A count with its noun: 1 row, 2 rows, 1,000 rows. `plural` is needed where it is not the singular with an s."""
    return f"{count:,.0f} {singular if count == 1 else plural or singular + 's'}"


def number_words(number: int | float) -> str:
    """A number as text of at most 15 digits; of a longer whole number how many digits it has."""
    if isinstance(number, float):
        return f"{number:g}"
    return str(number) if abs(number) < 10**15 else f"a number of {len(str(abs(number)))} digits"


def shown_value(value: Any, level: int = 0) -> Any:
    """A faulty value as JSON can hold it and a person can read it: short, whole characters, finite numbers."""
    if isinstance(value, str):
        text = whole_characters(value[: SHOWN_CHARACTERS + 1])
        return text if len(value) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "…"
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)  # JSON has no infinity
    if isinstance(value, int):
        return value if abs(value) < 2**63 else number_words(value)
    if level == SHOWN_LEVELS:
        return "…"
    if isinstance(value, Mapping):
        return {
            str(shown_value(str(key))): shown_value(member, level + 1)
            for key, member in islice(value.items(), SHOWN_ITEMS)
        }
    if isinstance(value, list | tuple):
        return [shown_value(item, level + 1) for item in value[:SHOWN_ITEMS]]
    return shown_value(str(value))


@dataclass(frozen=True, slots=True)
class Problem:
    """One faulty field: its dotted path in the settings, the value given, the limit it breaks, and a sentence."""

    field: str
    value: Any
    limit: str
    message: str
    """Does not repeat the field's name: the command line puts its path before it, the page its label."""
    suggestion: str = ""
    """The value that the message names at its end as one to try, which is the default of the setting."""

    def trying(self, value: str) -> Problem:
        """This problem with another value to try in its message: the page has some defaults of its own."""
        end = f"; try {self.suggestion}."
        if not self.suggestion or not value or not self.message.endswith(end):
            return self
        return replace(self, message=f"{self.message.removesuffix(end)}; try {value}.", suggestion=value)

    def to_dict(self) -> dict[str, Any]:
        """The JSON object that the command line prints and the page reads, whatever the value was."""
        message = whole_characters(self.message)
        return {
            "field": whole_characters(self.field),
            "value": shown_value(self.value),
            "limit": self.limit,
            "message": message,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """What a person reads before Start: something left out, guessed, renamed, replaced, rounded or cut."""

    field: str
    """Dotted path of the setting that it is about, such as data.columns."""
    message: str
    """One sentence, with the count in it where something is counted."""
    count: int | None = None
    """How many rows, turns, tokens or tensors; None where nothing is counted."""

    def to_dict(self) -> dict[str, Any]:
        return {"field": self.field, "message": self.message, "count": self.count}

    @staticmethod
    def from_dict(plain: dict[str, Any]) -> Notice:
        return Notice(field=plain["field"], message=plain["message"], count=plain.get("count"))


class TuningError(Exception):
    """An error the person can mend; `problems` says field by field how."""

    def __init__(self, message: str, problems: Iterable[Problem] = ()) -> None:
        super().__init__(whole_characters(message))
        self.problems: tuple[Problem, ...] = tuple(problems)


class SettingsError(TuningError):
    """One or more settings are at fault."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        listed = tuple(problems)
        super().__init__("\n".join(f"{problem.field}: {problem.message}" for problem in listed), listed)


class ModelError(TuningError):
    """The base model cannot be used."""

    def __init__(self, message: str, value: Any = None, limit: str = "a usable model", field: str = "model") -> None:
        super().__init__(message, [Problem(field, value, limit, message)])


class DataError(TuningError):
    """The training data cannot be used."""

    def __init__(self, message: str, value: Any = None, limit: str = "usable rows", field: str = "data.source") -> None:
        super().__init__(message, [Problem(field, value, limit, message)])


class RunError(TuningError):
    """A run is not in a state for what was asked of it."""


class Stopped(BaseException):
    """Long work was stopped in the middle; its caller keeps what there is.

    It is no Exception, as asyncio's CancelledError is none, so that no `except Exception` on its way swallows it.
    """


ShouldContinue = Callable[[], bool]
"""Called inside all long work, at least once a second: False when it is to stop. Quick, and never raises."""


def check_stop(should_continue: ShouldContinue) -> None:
    """Raises Stopped where `should_continue` answers False."""
    if not should_continue():
        raise Stopped
