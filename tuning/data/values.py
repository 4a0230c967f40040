"""Single values of a record as text, and which of them count as missing.

Missing is what `datasets` reads as missing: null and NaN everywhere; in CSV also the words that pandas takes for it. A
value that cannot be a text raises RowError with the reason why its row cannot be used.
"""

from __future__ import annotations

import json
from decimal import Decimal
from math import isfinite
from typing import Any, TypeGuard

from tuning.data.files.table import JSON_DECODER, DuplicateKeyError

MISSING_WORDS = frozenset(
    (
        *("", "NaN", "nan", "-NaN", "-nan", "NA", "N/A", "n/a", "<NA>", "NULL", "null", "None"),
        *("#N/A", "#N/A N/A", "#NA", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN"),
    )
)
"""Cells of a CSV file that pandas, and so `datasets`, reads as missing, quoted or not."""
LONGEST_MISSING = max(map(len, MISSING_WORDS))


class RowError(ValueError):
    """A record that cannot become a row, and why."""


def is_missing(value: Any, csv: bool = False) -> bool:
    """Whether there is no value: null, NaN, Infinity (no number of JSON), or in CSV one of MISSING_WORDS."""
    if isinstance(value, str):
        return csv and len(value) <= LONGEST_MISSING and value in MISSING_WORDS
    return value is None or (isinstance(value, float | Decimal) and not isfinite(value))


def as_text(value: Any, column: str, csv: bool = False, *, empty: bool = False) -> str:
    """The value as text; a missing one is "" where it may be empty. Raises RowError."""
    if is_missing(value, csv):
        if empty:
            return ""
        word = f" ({value})" if not isinstance(value, float | Decimal) and value not in (None, "") else ""
        raise RowError(f"column {column!r} is missing or empty{word}")
    if not isinstance(value, str | int | float | Decimal):
        raise RowError(f"column {column!r} is not text")
    return whole_characters(str(value), f"column {column!r}")


def whole_characters(text: str, where: str) -> str:
    """The text itself. Raises RowError where it holds half of a character."""
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise RowError(f"{where} holds half of a character (a lone surrogate)") from None
    return text


def from_json(value: Any, *, look: bool = False) -> Any:
    """What a text holds where it is a JSON list or object, as a CSV cell has to be; any other value as it is. Raises
    RowError where an object has two keys of one name, unless this is but a `look` at what sort of rows these are."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(value) if look else JSON_DECODER.decode(value)
        except DuplicateKeyError as error:
            raise RowError(f"the JSON in a cell {error}") from None
        except (ValueError, RecursionError):
            return value
    return value


def is_answers(value: Any) -> TypeGuard[dict[str, Any]]:
    """Whether these are answers to one question as SQuAD has them: {"text": ["Paris", …], "answer_start": [17, …]}."""
    return isinstance(value, dict) and isinstance(value.get("text"), list)
