"""Settings blocks as pydantic models: how they are read, the table of their fields, the sentence for each fault.

A block is strict (no text becomes a number, only 8.0 is 8), refuses unknown keys and is frozen. The form, the table in
the documentation and the sentences read the models' own JSON schema, so that a setting is described once.
"""

from __future__ import annotations

import ast
import inspect
import sys
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Self, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationError

from tuning.core.errors import Problem, number_words, whole_characters

V = TypeVar("V")


def _whole(value: Any) -> Any:
    """A float without a fraction as the whole number it is, as JSON may write one."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _tuple(value: Any) -> Any:
    """A JSON list as a tuple, which a frozen block can hold."""
    return tuple(value) if isinstance(value, list) else value


HALF = "holds half of a character (a lone surrogate)"


def _half_characters(value: Any) -> bool:
    """Whether some text within the value cannot be written to any file."""
    if isinstance(value, str):
        return not value.isascii() and whole_characters(value) != value
    if isinstance(value, dict):
        return any(_half_characters(one) for pair in value.items() for one in pair)
    return isinstance(value, list | tuple) and any(map(_half_characters, value))


def _whole_characters(value: V) -> V:
    if _half_characters(value):
        raise ValueError(HALF)
    return value


WHOLE = BeforeValidator(_whole)
"""For whole numbers, outermost: `Annotated[int, Field(ge=1), WHOLE]`."""
LIST = BeforeValidator(_tuple)
"""For tuples: `Annotated[tuple[Text, ...], LIST]`."""
Text = Annotated[str, AfterValidator(_whole_characters)]
"""Text that can be written to a file: without lone surrogates."""
JsonObject = Annotated[dict[str, Any], AfterValidator(_whole_characters)]
"""A JSON object whose keys and values are judged elsewhere, with such text only."""


class SettingsBlock(BaseModel):
    """One JSON object of settings. The string under a field is its help in the form and in the documentation."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False, defer_build=True)

    def replace(self, **changes: Any) -> Self:
        """The same block with other values, which are not validated. Raises TypeError for a name that no field has."""
        unknown = changes.keys() - type(self).model_fields.keys()
        if unknown:
            raise TypeError(f"{type(self).__name__} has no field {', '.join(sorted(unknown))}")
        return self.model_copy(update=changes)


B = TypeVar("B", bound=SettingsBlock)


def limit_words(number: float) -> str:
    """A limit as a person writes it: 4096, 10,000,000, 1e-08."""
    whole = abs(number) < 2**53 and float(number).is_integer()
    return f"{number:g}" if not whole else f"{int(number):,}" if abs(number) >= 10_000 else str(int(number))


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """What a field accepts beyond its type, as its JSON schema says it."""

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


_KINDS: dict[str, type] = {
    "integer": int,
    "number": float,
    "string": str,
    "boolean": bool,
    "array": tuple,
    "object": dict,
}
_EXACT = 2**53
"""Below this, whole numbers and floats are the same numbers."""
_WORDS = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    tuple: "a list",
    dict: "an object",
}


def _words_of(schema: dict[str, Any]) -> list[str]:
    """The words that a schema accepts, in itself or as items of a list."""
    own = [schema["const"]] if "const" in schema else list(schema.get("enum", schema.get("examples", ())))
    return own + (_words_of(schema["items"]) if "items" in schema else [])


@cache
def _classes(module: str) -> dict[str, ast.ClassDef]:
    """The classes of a module as parsed, once for all of them."""
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}


def _helps(model: type[SettingsBlock]) -> dict[str, str]:
    """The string under each field of a block and of those it extends, read from their source when it is asked for.

    pydantic's `use_attribute_docstrings` reads the same strings, but at import and by way of each class's frames, which
    takes 100 ms of every start.
    """
    found: dict[str, str] = {}
    for one in reversed(model.__mro__):
        if not issubclass(one, SettingsBlock) or one is SettingsBlock:
            continue
        body = _classes(one.__module__)[one.__name__].body
        for node, after in zip(body, body[1:], strict=False):
            is_text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and is_text:
                found[node.target.id] = " ".join(str(after.value.value).split())  # type: ignore[attr-defined]
    return found


def table(model: type[SettingsBlock], prefix: str = "") -> dict[str, Field]:
    """The simple fields of a settings block by name; nested blocks are not among them."""
    return _table(model, prefix)


@cache
def _table(model: type[SettingsBlock], prefix: str) -> dict[str, Field]:
    found, helps = {}, _helps(model)
    for name, schema in model.model_json_schema()["properties"].items():
        branches = [one for one in schema.get("anyOf", [schema]) if one.get("type") != "null"]
        first = branches[0]
        if first.get("type") not in _KINDS:  # a reference to a nested block
            continue
        field = model.model_fields[name]
        listed = any(one.get("type") == "array" for one in branches[1:])
        suggested = schema.get("examples", ())
        limit = Limit(
            low=first.get("minimum"),
            high=first.get("maximum"),
            above=first.get("exclusiveMinimum"),
            choices=tuple(suggested or dict.fromkeys(word for one in branches for word in _words_of(one))),
            open=bool(suggested),
        )
        found[name] = Field(
            path=prefix + name,
            kind=_KINDS[first["type"]],
            nullable=len(branches) < len(schema.get("anyOf", [schema])),
            default=field.get_default(call_default_factory=True),
            limit=limit,
            help=helps.get(name, ""),
            listed=listed,
        )
    return found


def _fault(field: Field, value: Any, kind: str) -> Problem:
    """The sentence for a value that pydantic refuses with an error of this kind (`ErrorDetails["type"]`)."""
    needed = f"needs {_WORDS[field.kind]}"
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is None:
        return _problem(field, value, needed)
    if field.listed and isinstance(value, list | tuple):
        wrong = [word for word in value if word not in field.limit.choices or word == field.default]
        fault = f"has {wrong[0]!r:.60} in its list, which it does not know" if wrong else "needs at least one name"
        return _problem(field, list(value), fault)
    right = isinstance(value, (list, tuple) if field.kind is tuple else field.kind)
    if right and _half_characters(value):
        return _problem(field, value, HALF)
    bounded = kind in ("greater_than_equal", "greater_than", "less_than_equal")
    if bounded or (number and kind == "float_type"):  # a float cannot hold a whole number this large
        value = field.kind(value) if abs(value) < _EXACT else value
        return _problem(field, value, f"{number_words(value)} is outside the limit: {field.limit}")
    if kind == "finite_number":
        return _problem(field, str(value), "needs a finite number")
    if isinstance(value, str) and field.limit.choices:
        return _problem(field, value, f"{value!r:.60} is not one of {field.limit}")
    return _problem(field, value, f"{needed}, not {value!r:.60}")


def _problem(field: Field, value: Any, fault: str) -> Problem:
    shown = field.default
    limit = str(field.limit) if str(field.limit) != "any value" else _WORDS[field.kind]
    suggestion = number_words(shown) if isinstance(shown, int | float) and not isinstance(shown, bool) else ""
    if isinstance(shown, str):
        suggestion = shown
    message = f"{fault}; try {suggestion}." if suggestion else f"{fault}."
    return Problem(field.path, value, limit, message, suggestion)


Inside = dict[str, tuple[str, str]]


def read_block(
    model: type[B], given: Any, prefix: str = "", inside: Inside | None = None, nested: tuple[str, ...] = ()
) -> tuple[B, list[Problem], list[Problem]]:
    """A block from a JSON object, with the default in place of each faulty value; its problems, in the order of the
    fields; and those inside a list or an object of texts, whose limit and sentence `inside` has by path.

    `nested` names the fields that hold blocks of their own, which are read apart.
    """
    if not isinstance(given, dict):
        return model(), [Problem(prefix.rstrip("."), given, "an object", "needs an object.")], []
    try:
        return model.model_validate(given), [], []
    except ValidationError:
        return _read_faulty(model, given, prefix, inside or {}, nested)


def _read_faulty(
    model: type[B], given: dict[Any, Any], prefix: str, inside: Inside, nested: tuple[str, ...]
) -> tuple[B, list[Problem], list[Problem]]:
    known = table(model, prefix)
    names = [*known, *nested]
    problems, within = [], []
    for key in given:
        if key not in names:
            message = f"unknown setting {prefix + str(key)!r}; known here: {', '.join(names)}."
            problems.append(Problem(prefix + (str(key) or repr(key)), given[key], "a known setting", message))
    sound: dict[str, Any] = {name: given[name] for name in names if name in given}
    # ErrorDetails cannot name a key with half a character, so those fields are set aside first
    faults = {name: "value_error" for name, value in sound.items() if _half_characters(value)}
    try:
        model.model_validate({name: value for name, value in sound.items() if name not in faults})
    except ValidationError as error:
        for one in error.errors(include_url=False, include_context=False, include_input=False):
            faults.setdefault(str(one["loc"][0]), one["type"])
    for name in names:
        if name not in faults:
            continue
        field, value = known[name], sound.pop(name)
        right = isinstance(value, dict if field.kind is dict else list | tuple)
        if field.path in inside and right and not _half_characters(value):
            limit, message = inside[field.path]
            within.append(Problem(field.path, value if isinstance(value, dict) else list(value), limit, message))
        else:
            problems.append(_fault(field, value, faults[name]))
    return model.model_validate(sound), problems, within
