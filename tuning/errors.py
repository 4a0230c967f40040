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
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Problem:
    """One faulty field: its dotted path in the settings, the value given, the limit it breaks, the sentence."""

    field: str
    value: Any
    limit: str
    message: str

    def to_dict(self) -> dict[str, Any]:
        """The plain form that the command line prints and the page reads; infinity, which JSON lacks, as a word."""
        endless = isinstance(self.value, float) and not math.isfinite(self.value)
        value = str(self.value) if endless else self.value
        return {"field": self.field, "value": value, "limit": self.limit, "message": self.message}


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
        super().__init__(message)
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
