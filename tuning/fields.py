"""Reads settings dataclasses as data: their fields, the help under each, their limits, and JSON into them.

Comes in: a dataclass whose fields carry limits in their annotations and help in the string under them.  Goes out:
one table of fields that the form, the docs and the checks all read, so that a setting is described once.
"""

from __future__ import annotations

import ast
import inspect
import math
import sys
import types
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from tuning.errors import Problem, number_words, whole_characters


def limit_words(number: float) -> str:
    """A limit as a person writes it: 4096, 10,000,000, 1e-08."""
    whole = abs(number) < 2**53 and float(number).is_integer()
    return f"{number:g}" if not whole else f"{int(number):,}" if abs(number) >= 10_000 else str(int(number))


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """What a field accepts beyond its type."""

    low: float | None = None
    high: float | None = None
    above: float | None = None
    """Exclusive lower bound."""
    choices: tuple[str, ...] = ()
    open: bool = False
    """The choices are suggestions: other words are accepted here and judged where their meaning is known."""

    def __str__(self) -> str:
        if self.choices:
            return ", ".join(self.choices) + (", or others" if self.open else "")
        low, high, above = (None if one is None else limit_words(one) for one in (self.low, self.high, self.above))
        if above is not None:
            return f"above {above}" if high is None else f"above {above}, up to {high}"
        if low is not None:
            return f"{low} or more" if high is None else f"{low} to {high}"
        return "any value"

    def accepts(self, value: float) -> bool:
        return not (
            (self.low is not None and value < self.low)
            or (self.high is not None and value > self.high)
            or (self.above is not None and value <= self.above)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One setting: where it stands, its kind of value, its default, its help."""

    path: str
    kind: type
    nullable: bool
    default: Any
    limit: Limit
    help: str
    listed: bool = False
    """Instead of one word it may hold a list of them."""


@cache
def _classes(module: str) -> dict[str, ast.ClassDef]:
    """The classes of a file as parsed, once for all of them: `inspect.getsource` would read it anew for each."""
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}


@cache
def helps(cls: type) -> dict[str, str]:
    """The string under each field of a dataclass and of those it extends, read from their source."""
    found: dict[str, str] = {}
    for one in reversed([base for base in cls.__mro__ if is_dataclass(base)]):
        body = _classes(one.__module__)[one.__name__].body
        for node, after in zip(body, body[1:], strict=False):
            is_text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and is_text:
                found[node.target.id] = " ".join(str(after.value.value).split())  # type: ignore[attr-defined]
    return found


@cache
def table(cls: type, prefix: str = "") -> dict[str, Field]:
    """The simple fields of a settings dataclass by name; nested blocks are not among them."""
    hints, text, found = get_type_hints(cls, include_extras=True), helps(cls), {}
    for field in fields(cls):
        hint, limit = hints[field.name], Limit()
        if get_origin(hint) is Annotated:
            hint, *extras = get_args(hint)
            limit = next((extra for extra in extras if isinstance(extra, Limit)), limit)
        nullable = listed = False
        if get_origin(hint) in (Union, types.UnionType):
            inner = [part for part in get_args(hint) if part is not type(None)]
            nullable, hint = len(inner) < len(get_args(hint)), inner[0]
            listed = any(get_origin(part) is tuple for part in inner[1:])
        kind = get_origin(hint) or hint
        if kind in (int, float, str, bool, tuple, dict):
            default = field.default_factory() if field.default_factory is not MISSING else field.default
            found[field.name] = Field(
                path=prefix + field.name,
                kind=kind,
                nullable=nullable,
                default=default,
                limit=limit,
                help=text.get(field.name, ""),
                listed=listed,
            )
    return found


_WORDS = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    tuple: "a list",
    dict: "an object",
}


_EXACT = 2**53
"""Below this, whole numbers and floats are the same numbers."""


def _half_characters(value: Any) -> bool:
    """Whether some text within the value cannot be written to any file."""
    if isinstance(value, str):
        return not value.isascii() and whole_characters(value) != value
    if isinstance(value, dict):
        return any(_half_characters(one) for pair in value.items() for one in pair)
    return isinstance(value, list | tuple) and any(map(_half_characters, value))


def check(field: Field, value: Any) -> tuple[Any, Problem | None]:
    """The value as the field's kind, and what is wrong with it. A value is never changed, only its number type."""
    if value is None:
        if field.nullable:
            return None, None
        return field.default, _problem(field, value, f"needs {_WORDS[field.kind]}")
    if field.listed and isinstance(value, list | tuple):
        return _checked_words(field, tuple(value))
    if field.kind is tuple and isinstance(value, list | tuple):
        if _half_characters(value):
            return field.default, _problem(field, value, "holds half of a character (a lone surrogate)")
        return tuple(value), None
    number = field.kind in (int, float) and isinstance(value, int | float) and not isinstance(value, bool)
    if number and abs(value) != math.inf and abs(value) >= _EXACT and not field.limit.accepts(value):
        return field.default, _problem(field, value, f"{number_words(value)} is outside the limit: {field.limit}")
    if field.kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value) if abs(value) < _EXACT else math.inf
    if field.kind is int and isinstance(value, float) and value.is_integer() and abs(value) < _EXACT:
        value = int(value)
    right = isinstance(value, field.kind) and not (field.kind is int and isinstance(value, bool))
    if right and _half_characters(value):
        return field.default, _problem(field, value, "holds half of a character (a lone surrogate)")
    if not right:
        return field.default, _problem(field, value, f"needs {_WORDS[field.kind]}, not {value!r:.60}")
    if isinstance(value, float) and not math.isfinite(value):
        return field.default, _problem(field, str(value), "needs a finite number")
    if field.limit.choices and not field.limit.open and value not in field.limit.choices:
        return field.default, _problem(field, value, f"{value!r:.60} is not one of {field.limit}")
    if isinstance(value, int | float) and not isinstance(value, bool) and not field.limit.accepts(value):
        return field.default, _problem(field, value, f"{number_words(value)} is outside the limit: {field.limit}")
    return value, None


def _checked_words(field: Field, words: tuple[Any, ...]) -> tuple[Any, Problem | None]:
    wrong = [word for word in words if word not in field.limit.choices or word == field.default]
    if wrong or not words:
        fault = f"has {wrong[0]!r:.60} in its list, which it does not know" if wrong else "needs at least one name"
        return field.default, _problem(field, list(words), fault)
    return words, None


def _problem(field: Field, value: Any, fault: str) -> Problem:
    shown = field.default
    limit = str(field.limit) if str(field.limit) != "any value" else _WORDS[field.kind]
    suggestion = number_words(shown) if isinstance(shown, int | float) and not isinstance(shown, bool) else ""
    if isinstance(shown, str):
        suggestion = shown
    message = f"{fault}; try {suggestion}." if suggestion else f"{fault}."
    return Problem(field.path, value, limit, message, suggestion)


def read_block(
    cls: type, given: Any, prefix: str, nested: tuple[str, ...] = ()
) -> tuple[dict[str, Any], list[Problem]]:
    """Check a JSON object against a dataclass: values for its simple fields, and every problem.

    `nested` names keys that belong to inner blocks and are read elsewhere.
    """
    found, problems = {}, []
    known = table(cls, prefix)
    if not isinstance(given, dict):
        return {}, [Problem(prefix.rstrip("."), given, "an object", "needs an object.")]
    for key in given:
        if key not in known and key not in nested:
            names = ", ".join([*known, *nested])
            message = f"unknown setting {prefix + str(key)!r}; known here: {names}."
            problems.append(Problem(prefix + (str(key) or repr(key)), given[key], "a known setting", message))
    for name, field in known.items():
        value, problem = check(field, given[name]) if name in given else (field.default, None)
        if problem:
            problems.append(problem)
        found[name] = value
    return found, problems
