"""Settings blocks as pydantic models: how they are read, what their fields are, and the sentence for each fault.

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


LONE_SURROGATE = "holds half of a character (a lone surrogate)"


def _has_lone_surrogate(value: Any) -> bool:
    """Whether some text within the value cannot be written to any file."""
    if isinstance(value, str):
        return not value.isascii() and whole_characters(value) != value
    if isinstance(value, dict):
        return any(_has_lone_surrogate(text) for pair in value.items() for text in pair)
    return isinstance(value, list | tuple) and any(map(_has_lone_surrogate, value))


def _without_lone_surrogates(value: V) -> V:
    """The value itself. Raises ValueError where a text in it cannot be written to any file."""
    if _has_lone_surrogate(value):
        raise ValueError(LONE_SURROGATE)
    return value


WHOLE = BeforeValidator(_whole)
"""For whole numbers, outermost: `Annotated[int, Field(ge=1), WHOLE]`."""
LIST = BeforeValidator(_tuple)
"""For tuples: `Annotated[tuple[Text, ...], LIST]`."""
Text = Annotated[str, AfterValidator(_without_lone_surrogates)]
"""Text without lone surrogates, which can be written to a file."""
JsonObject = Annotated[dict[str, Any], AfterValidator(_without_lone_surrogates)]
"""A JSON object whose texts are without lone surrogates; its keys and values are checked elsewhere."""


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
    """The values that a field accepts beyond its type, as its JSON schema says it."""

    low: float | None = None
    high: float | None = None
    above: float | None = None
    """Exclusive lower bound."""
    choices: tuple[str, ...] = ()
    open: bool = False
    """Whether the choices are suggestions: other words are accepted here and checked where their meaning is known."""

    def __str__(self) -> str:
        if self.choices:
            return ", ".join(self.choices) + (", or others" if self.open else "")
        bounds = (self.low, self.high, self.above)
        low, high, above = (None if bound is None else limit_words(bound) for bound in bounds)
        if above is not None:
            return f"above {above}" if high is None else f"above {above}, up to {high}"
        if low is not None:
            return f"{low} or more" if high is None else f"{low} to {high}"
        return "any value"


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One setting: its dotted path, the type of its value, its default, its help."""

    path: str
    kind: type
    nullable: bool
    default: Any
    limit: Limit
    help: str
    listed: bool = False
    """Whether it may hold a list of words instead of one."""


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
    """The words that a JSON schema accepts, as its value or as items of a list."""
    own = [schema["const"]] if "const" in schema else list(schema.get("enum", schema.get("examples", ())))
    return own + (_words_of(schema["items"]) if "items" in schema else [])


@cache
def _classes(module: str) -> dict[str, ast.ClassDef]:
    """The syntax trees of a module's classes by name; each module is parsed once."""
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}


def _help_texts(model: type[SettingsBlock]) -> dict[str, str]:
    """The string under each field of a block and of those it extends, read from their source when it is asked for.

    pydantic's `use_attribute_docstrings` reads the same strings, but at import and by way of each class's frames, which
    takes 100 ms of every start.
    """
    texts: dict[str, str] = {}
    for block in reversed(model.__mro__):
        if not issubclass(block, SettingsBlock) or block is SettingsBlock:
            continue
        body = _classes(block.__module__)[block.__name__].body
        for node, after in zip(body, body[1:], strict=False):
            is_text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and is_text:
                texts[node.target.id] = " ".join(str(after.value.value).split())  # type: ignore[attr-defined]
    return texts


def fields_of(model: type[SettingsBlock], prefix: str = "") -> dict[str, Field]:
    """The simple fields of a settings block by name; nested blocks are not among them. `prefix` begins their paths."""
    return _fields_of(model, prefix)


@cache
def _fields_of(model: type[SettingsBlock], prefix: str) -> dict[str, Field]:
    """`fields_of`, computed once for each block and prefix."""
    by_name, help_texts = {}, _help_texts(model)
    for name, schema in model.model_json_schema()["properties"].items():
        branches = [branch for branch in schema.get("anyOf", [schema]) if branch.get("type") != "null"]
        first = branches[0]
        if first.get("type") not in _KINDS:  # a reference to a nested block
            continue
        by_name[name] = Field(
            path=prefix + name,
            kind=_KINDS[first["type"]],
            nullable=len(branches) < len(schema.get("anyOf", [schema])),
            default=model.model_fields[name].get_default(call_default_factory=True),
            limit=_limit_of(schema, branches),
            help=help_texts.get(name, ""),
            listed=any(branch.get("type") == "array" for branch in branches[1:]),
        )
    return by_name


def _limit_of(schema: dict[str, Any], branches: list[dict[str, Any]]) -> Limit:
    """The limit of a field by its JSON schema, whose alternatives besides null are `branches`."""
    first, suggested = branches[0], schema.get("examples", ())
    words = [word for branch in branches for word in _words_of(branch)]
    return Limit(
        low=first.get("minimum"),
        high=first.get("maximum"),
        above=first.get("exclusiveMinimum"),
        choices=tuple(suggested or dict.fromkeys(words)),
        open=bool(suggested),
    )


_BOUND_ERRORS = ("greater_than_equal", "greater_than", "less_than_equal")
"""pydantic's names for values beyond a bound."""


def _fault(field: Field, value: Any, kind: str) -> Problem:
    """The sentence for a value that pydantic refuses with an error of this kind (`ErrorDetails["type"]`)."""
    needed = f"needs {_WORDS[field.kind]}"
    if value is None:
        return _problem(field, value, needed)
    if field.listed and isinstance(value, list | tuple):
        return _problem(field, list(value), _list_fault(field, value))
    if _has_type(value, field.kind) and _has_lone_surrogate(value):
        return _problem(field, value, LONE_SURROGATE)
    if kind in _BOUND_ERRORS or (kind == "float_type" and _is_number(value)):
        value = field.kind(value) if abs(value) < _EXACT else value  # a float cannot hold a whole number this large
        return _problem(field, value, f"{number_words(value)} is outside the limit: {field.limit}")
    if kind == "finite_number":
        return _problem(field, str(value), "needs a finite number")
    if isinstance(value, str) and field.limit.choices:
        return _problem(field, value, f"{value!r:.60} is not one of {field.limit}")
    return _problem(field, value, f"{needed}, not {value!r:.60}")


def _list_fault(field: Field, words: list[Any] | tuple[Any, ...]) -> str:
    """What is wrong with a list of words for a field that may hold one."""
    wrong = [word for word in words if word not in field.limit.choices or word == field.default]
    return f"has {wrong[0]!r:.60} in its list, which it does not know" if wrong else "needs at least one name"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _has_type(value: Any, kind: type) -> bool:
    """Whether a JSON value is of a field's type; a list is what JSON has for a tuple."""
    return isinstance(value, list | tuple if kind is tuple else kind)


def _problem(field: Field, value: Any, fault: str) -> Problem:
    """The problem of a field with this fault in words; the default is what its sentence suggests, where it has one."""
    default, suggestion = field.default, ""
    if _is_number(default):
        suggestion = number_words(default)
    if isinstance(default, str):
        suggestion = default
    limit = str(field.limit) if str(field.limit) != "any value" else _WORDS[field.kind]
    message = f"{fault}; try {suggestion}." if suggestion else f"{fault}."
    return Problem(field.path, value, limit, message, suggestion)


ItemLimits = dict[str, tuple[str, str]]
"""Limit and sentence for what is inside a list or an object of texts, by the path of its field."""


def read_block(
    model: type[B], given: Any, prefix: str = "", item_limits: ItemLimits | None = None, nested: tuple[str, ...] = ()
) -> tuple[B, list[Problem], list[Problem]]:
    """A block from a JSON object, with the default in place of each faulty value; its problems, in the order of the
    fields; and the problems inside lists and objects, for the paths that `item_limits` has.

    `nested` names the fields that hold blocks of their own, which are read separately.
    """
    if not isinstance(given, dict):
        return model(), [Problem(prefix.rstrip("."), given, "an object", "needs an object.")], []
    try:
        return model.model_validate(given), [], []
    except ValidationError:
        return _read_faulty(model, given, prefix, item_limits or {}, nested)


def _read_faulty(
    model: type[B], given: dict[Any, Any], prefix: str, item_limits: ItemLimits, nested: tuple[str, ...]
) -> tuple[B, list[Problem], list[Problem]]:
    """`read_block` of an object that pydantic refuses."""
    fields = fields_of(model, prefix)
    names = [*fields, *nested]
    problems = [_unknown_setting(prefix, key, given[key], names) for key in given if key not in names]
    sound: dict[str, Any] = {name: given[name] for name in names if name in given}
    faults, item_problems = _faults(model, sound), []
    for name in filter(faults.__contains__, names):
        field, value = fields[name], sound.pop(name)
        if field.path in item_limits and _has_type(value, field.kind) and not _has_lone_surrogate(value):
            limit, message = item_limits[field.path]
            plain = value if isinstance(value, dict) else list(value)
            item_problems.append(Problem(field.path, plain, limit, message))
        else:
            problems.append(_fault(field, value, faults[name]))
    return model.model_validate(sound), problems, item_problems


def _unknown_setting(prefix: str, key: Any, value: Any, names: list[str]) -> Problem:
    message = f"unknown setting {prefix + str(key)!r}; known here: {', '.join(names)}."
    return Problem(prefix + (str(key) or repr(key)), value, "a known setting", message)


def _faults(model: type[SettingsBlock], values: dict[str, Any]) -> dict[str, str]:
    """The kind of pydantic's first error for each faulty field."""
    # ErrorDetails cannot name a key with half a character, so those fields are set aside first
    faults = {name: "value_error" for name, value in values.items() if _has_lone_surrogate(value)}
    try:
        model.model_validate({name: value for name, value in values.items() if name not in faults})
    except ValidationError as error:
        for details in error.errors(include_url=False, include_context=False, include_input=False):
            faults.setdefault(str(details["loc"][0]), details["type"])
    return faults
