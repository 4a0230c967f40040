"""The text of a field of the form, and the settings value that it stands for.

A field that a person types into holds text even for numbers: it stays as it was typed, and the settings refuse what
cannot be read. Text that a field would hide or change, such as blanks at the ends, stands between quotation marks.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any

from tuning.core.fields import Field


def as_text(value: Any, field: Field) -> Any:
    """A settings value as its component shows it; `parse` of it gives the value again."""
    kind = field.kind
    if value is None:
        return ""
    if kind is bool:
        return str(bool(value)).lower() if field.nullable else bool(value)
    if kind is dict:
        return json.dumps(value, ensure_ascii=False) if value else ""
    if kind is tuple:
        texts = bool(value) and isinstance(value[0], str)
        return "\n".join(map(_one_line, value)) if texts else ", ".join(map(_exactly, value))
    if isinstance(value, list | tuple):
        return ", ".join(value)
    if isinstance(value, str):
        return _quoted(value) if (value or field.nullable) and _hidden_in_a_field(value) else value
    return _exactly(value) if isinstance(value, float) else str(value)


def _hidden_in_a_field(text: str) -> bool:
    """Whether a text field would hide some of this text, or change it."""
    return text != text.strip() or not text or "\r" in text or _unquoted(text) is not None


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _unquoted(text: str) -> str | None:
    """The text inside quotation marks that `as_text` has set; None where those are part of the text."""
    if len(text) < 2 or not text[0] == text[-1] == '"':
        return None
    inner, _ = _json(text)
    return inner if isinstance(inner, str) and _hidden_in_a_field(inner) else None


def _one_line(text: str) -> str:
    """An item of a list with one text a line; its own line breaks are written as \\n."""
    return _quoted(text) if _hidden_in_a_field(text) else text.replace("\\", "\\\\").replace("\n", "\\n")


def _many_lines(text: str) -> str:
    return re.sub(r"\\(\\|n)", lambda escape: "\n" if escape[1] == "n" else "\\", text)


def _exactly(value: float) -> str:
    """As short as possible, but the same number when it is parsed."""
    return f"{value:g}" if float(f"{value:g}") == value else repr(value)


@dataclass(frozen=True, slots=True)
class ParsedField:
    """The content of a field as a settings value, with a hint where it was not read word for word."""

    value: Any
    hint: str = ""
    empty_lines: int = 0
    """The number of empty lines that were left out of a list with one text a line."""


def parse(value: Any, field: Field) -> ParsedField:
    """The content of a component as a settings value. What cannot be read stays text, which the settings refuse."""
    if not isinstance(value, str):
        return ParsedField(value)
    text = value.strip()
    if field.listed:
        return ParsedField(text if text in ("", field.default) else [part.strip() for part in text.split(",")])
    if field.kind is str:
        return _parse_text(value, field.nullable)
    if field.kind is bool:
        return ParsedField({"": None, "true": True, "false": False}.get(text, value))
    if not text:
        empty: Any = [] if field.kind is tuple else {} if field.kind is dict else value
        return ParsedField(None if field.nullable else empty)
    if field.kind is dict:
        return _parse_json(value)
    if field.kind is not tuple:
        return _parse_number(value)
    of_numbers = field.default and not isinstance(field.default[0], str)
    return _parse_numbers(text) if of_numbers else _parse_lines(value)


def _parse_json(typed: str) -> ParsedField:
    content, fault = _json(typed.strip())
    return ParsedField(typed, f"This is not JSON: {fault}.") if fault else ParsedField(content)


def _parse_numbers(text: str) -> ParsedField:
    """Numbers with commas between them; the hint is that of the first which has one."""
    numbers = [_parse_number(part) for part in text.split(",")]
    hints = (number.hint for number in numbers if number.hint)
    return ParsedField([number.value for number in numbers], next(hints, ""))


def _parse_text(text: str, nullable: bool) -> ParsedField:
    inner = _unquoted(text)
    if inner is not None:
        return ParsedField(
            inner, "Read as what stands between the quotation marks." if inner else "Read as an empty text."
        )
    if not text:
        return ParsedField(None if nullable else text)
    return ParsedField(text, "The blanks at its ends are part of it." if text != text.strip() else "")


def _parse_lines(text: str) -> ParsedField:
    """One text a line; a line break at the end begins no other one."""
    lines = text.removesuffix("\n").split("\n")
    filled = [line for line in lines if line.strip()]
    values, hints = list[str](), dict[str, None]()
    for line in filled:
        inner = _unquoted(line)
        values.append(_many_lines(line) if inner is None else inner)
        if inner is None and line != line.strip():
            hints["The blanks at the ends of a line are part of it."] = None
        if inner is None and values[-1] != line:
            hints["\\n is read as a line break, \\\\ as \\."] = None
    return ParsedField(values, " ".join(hints), len(lines) - len(filled))


_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
NUMBER_HINT = "Numbers are written with the digits 0 to 9 and a point: 0.001 or 1e-3."


def _parse_number(typed: str) -> ParsedField:
    """A number as JSON has it, so that a settings file and the form agree on what is one."""
    text = typed.strip()
    if not _NUMBER.fullmatch(text):
        return ParsedField(typed, NUMBER_HINT if any(sign.isdigit() for sign in text) else "")
    try:
        return ParsedField(int(text))
    except ValueError:  # decimals, or more digits than Python turns into a number
        number = float(text)
    underflow = number == 0 and re.search("[1-9]", re.split("[eE]", text)[0])
    return ParsedField(number if math.isfinite(number) and not underflow else typed)


def _json(text: str) -> tuple[Any, str]:
    """The value of a JSON text, and what is wrong with it: with a fault, the value is the text."""

    def without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        for i, (name, _) in enumerate(pairs):
            if name in dict(pairs[:i]):
                raise ValueError(f"duplicate name {name!r}")
        return dict(pairs)

    try:
        return json.loads(text, object_pairs_hook=without_duplicates), ""
    except (ValueError, RecursionError) as error:
        return text, str(error)
