"""What a person is told when something cannot be done.

    TuningError            shown to the person, word for word; never a traceback
    ├── SettingsError      the settings are at fault: one Problem for each faulty field, all at once
    ├── ModelError         the base model cannot be used (missing files, unknown kind, pickle weights)
    ├── DataError          the rows cannot be used (missing file, wrong columns, nothing left to train on)
    └── RunError           a run is not in a state for what was asked of it

Every other exception is a bug and is reported as one.  A `Notice` is no error: it is told, and the run goes on.

Comes in: what was wrong.  Goes out: sentences that name the field, the value, the limit and the fix.
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


def counted(count: float, one: str, many: str = "") -> str:
    """A count with its noun: 1 row, 2 rows, 1,000 rows; `many` where the plural has more than an s."""
    return f"{count:,.0f} {one if count == 1 else many or one + 's'}"


def number_words(number: int | float) -> str:
    """A number as it was given, in few signs: a whole number may have more digits than a float reaches to."""
    if isinstance(number, float):
        return f"{number:g}"
    return str(number) if abs(number) < 10**15 else f"a number of {len(str(abs(number)))} digits"


def shown_value(value: Any, level: int = 0) -> Any:
    """What was given, as JSON can hold it and a person can read it: short, whole characters, finite numbers."""
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
            str(shown_value(str(key))): shown_value(one, level + 1) for key, one in islice(value.items(), SHOWN_ITEMS)
        }
    if isinstance(value, list | tuple):
        return [shown_value(one, level + 1) for one in value[:SHOWN_ITEMS]]
    return shown_value(str(value))


@dataclass(frozen=True, slots=True)
class Problem:
    """One faulty field: its dotted path in the settings, the value given, the limit it breaks, the sentence."""

    field: str
    value: Any
    limit: str
    message: str
    """Does not repeat the field's name: the command line puts its path before it, the page its label."""
    suggestion: str = ""
    """The value that the message names at its end as one to try, the default of the settings."""

    def trying(self, value: str) -> Problem:
        """The same with another value to try: the page begins with some of its own."""
        end = f"; try {self.suggestion}."
        if not self.suggestion or not value or not self.message.endswith(end):
            return self
        return replace(self, message=f"{self.message.removesuffix(end)}; try {value}.", suggestion=value)

    def to_dict(self) -> dict[str, Any]:
        """The plain form that the command line prints and the page reads; always JSON, whatever the value was."""
        message = whole_characters(self.message)
        return {
            "field": whole_characters(self.field),
            "value": shown_value(self.value),
            "limit": self.limit,
            "message": message,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """What a person is told before Start: something left out, guessed, renamed, replaced, rounded or cut."""

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
        found = tuple(problems)
        super().__init__("\n".join(f"{problem.field}: {problem.message}" for problem in found), found)


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
    """Long work has been told to stop in the middle. Whoever began it keeps what there is.

    No Exception, as asyncio's cancellation is none: what a library or a handler of ours does about faults must not
    swallow it on its way.
    """


GoOn = Callable[[], bool]
"""Looked at inside all long work, at least once a second: False when it is to stop. Quick, and never raises."""


def check_stop(go_on: GoOn) -> None:
    """Raises Stopped where `go_on` says no."""
    if not go_on():
        raise Stopped
