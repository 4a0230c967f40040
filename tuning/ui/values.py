"""Between the form and the settings JSON: which components there are, what they hold, and both ways across.

Comes in: what stands in the form's components, by path; or settings.  Goes out: the other.  No component is made here.
A field that a person types into holds text even for numbers: what was typed stays, and is judged by the settings.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any

from tuning.core import fields as field_tables
from tuning.core.errors import Notice
from tuning.core.fields import Field
from tuning.core.hardware import this_machine
from tuning.methods import METHODS
from tuning.methods.recipes import RECIPES
from tuning.settings.schema import Settings, all_fields
from tuning.settings.versions import VERSION, upgrade

STEPS, EPOCHS = "updates", "epochs"
LENGTH = "length"
"""The form's own choice between max_steps and num_epochs; the other one is sent as null."""
WOULD_FIT_ON = "would_fit_on"
"""A question to the estimate, never a setting."""
RUN_NAME = "run_name"
KEPT_VERSION = "version"
"""In what a browser keeps of the form: the version of the settings in it; a form of version 1 has none."""
NO_RECIPE = "none"
NOT_SETTINGS = (LENGTH, WOULD_FIT_ON, RUN_NAME)

HIDDEN = ("version", "num_devices", "method.name", "recipe", "recipe.name", "max_steps", "num_epochs")
"""Not offered yet, or in a form of its own; they take their default, which `Settings` adds."""
CHOSEN: dict[str, tuple[Any, ...]] = {"method": METHODS, "recipe": RECIPES}
"""Blocks of settings that come with one choice among several."""


def every_path() -> dict[str, Field]:
    """All fields that the form offers, by the path of the component."""
    found = {path: one for path, one in all_fields().items() if not path.startswith("method.")}
    for kind, choices in CHOSEN.items():
        for choice in choices:
            for name, one in field_tables.fields_of(choice.settings, f"{kind}.").items():
                if one.path not in HIDDEN:
                    found[f"{kind}.{choice.name}.{name}"] = one
    return {path: one for path, one in found.items() if path not in HIDDEN or path in ("max_steps", "num_epochs")}


def as_text(value: Any, field: Field) -> Any:
    """A settings value as its component shows it; `from_text` of it is the value again."""
    kind = field.kind
    if value is None:
        return ""
    if kind is bool:
        return str(bool(value)).lower() if field.nullable else bool(value)
    if kind is dict:
        return json.dumps(value, ensure_ascii=False) if value else ""
    if kind is tuple:
        words = bool(value) and isinstance(value[0], str)
        return "\n".join(map(_one_line, value)) if words else ", ".join(_exactly(one) for one in value)
    if isinstance(value, list | tuple):
        return ", ".join(value)
    if isinstance(value, str):
        return _quoted(value) if (value or field.nullable) and _hidden_in_a_field(value) else value
    return _exactly(value) if isinstance(value, float) else str(value)


def _hidden_in_a_field(text: str) -> bool:
    """Would a text field hide some of this text, or change it? Then it stands between quotation marks."""
    return text != text.strip() or not text or "\r" in text or _unquoted(text) is not None


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _unquoted(text: str) -> str | None:
    """What stands between quotation marks that `as_text` would have put there; None where they are part of the text."""
    if len(text) < 2 or not text[0] == text[-1] == '"':
        return None
    inner, _ = _json(text)
    return inner if isinstance(inner, str) and _hidden_in_a_field(inner) else None


def _one_line(text: str) -> str:
    """A text that may hold line breaks, in a list with one text a line."""
    return _quoted(text) if _hidden_in_a_field(text) else text.replace("\\", "\\\\").replace("\n", "\\n")


def _many_lines(text: str) -> str:
    return re.sub(r"\\(\\|n)", lambda found: "\n" if found[1] == "n" else "\\", text)


def _exactly(value: float) -> str:
    """As short as possible, but the same number when it is read again."""
    return f"{value:g}" if float(f"{value:g}") == value else repr(value)


@dataclass(frozen=True, slots=True)
class Reading:
    """What stands in a field, as a settings value, and what a person is told of how it was read."""

    value: Any
    hint: str = ""
    left_out: int = 0
    """Empty lines of a list that has one text a line."""


def from_text(value: Any, field: Field) -> Any:
    """What a component holds as a settings value. What cannot be read goes on as it is, for the settings to refuse."""
    return read(value, field).value


def read(value: Any, field: Field) -> Reading:
    """The same, with how it was read where that is not plain to see."""
    if not isinstance(value, str):
        return Reading(value)
    text = value.strip()
    if field.listed:
        return Reading(text if text in ("", field.default) else [part.strip() for part in text.split(",")])
    if field.kind is str:
        return _read_text(value, field.nullable)
    if field.kind is bool:
        return Reading({"": None, "true": True, "false": False}.get(text, value))
    if not text:
        empty: Any = [] if field.kind is tuple else {} if field.kind is dict else value
        return Reading(None if field.nullable else empty)
    if field.kind is dict:
        found, fault = _json(text)
        return Reading(value, f"This is not JSON: {fault}.") if fault else Reading(found)
    if field.kind is not tuple:
        return _read_number(value)
    if field.default and not isinstance(field.default[0], str):
        numbers = [_read_number(part) for part in text.split(",")]
        return Reading([one.value for one in numbers], next((one.hint for one in numbers if one.hint), ""))
    return _read_lines(value)


def _read_text(text: str, nullable: bool) -> Reading:
    inner = _unquoted(text)
    if inner is not None:
        return Reading(inner, "Read as what stands between the quotation marks." if inner else "Read as an empty text.")
    if not text:
        return Reading(None if nullable else text)
    return Reading(text, "The blanks at its ends are part of it." if text != text.strip() else "")


def _read_lines(text: str) -> Reading:
    """One text a line; a line break at the end begins no other one."""
    lines = text.removesuffix("\n").split("\n")
    kept = [line for line in lines if line.strip()]
    values, hints = list[str](), dict[str, None]()
    for line in kept:
        inner = _unquoted(line)
        values.append(_many_lines(line) if inner is None else inner)
        if inner is None and line != line.strip():
            hints["The blanks at the ends of a line are part of it."] = None
        if inner is None and values[-1] != line:
            hints["\\n is read as a line break, \\\\ as \\."] = None
    return Reading(values, " ".join(hints), len(lines) - len(kept))


_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
NUMBER_HINT = "Numbers are written with the digits 0 to 9 and a point: 0.001 or 1e-3."


def _read_number(typed: str) -> Reading:
    """A number as JSON would take it, so that a settings file and the form agree on what is one."""
    text = typed.strip()
    if not _NUMBER.fullmatch(text):
        return Reading(typed, NUMBER_HINT if any(sign.isdigit() for sign in text) else "")
    try:
        return Reading(int(text))
    except ValueError:  # decimals, or more digits than Python turns into a number
        number = float(text)
    vanished = number == 0 and re.search("[1-9]", re.split("[eE]", text)[0])
    return Reading(number if math.isfinite(number) and not vanished else typed)


def _json(text: str) -> tuple[Any, str]:
    """What the JSON text says, and what is wrong with it."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        for place, (name, _) in enumerate(pairs):
            if name in dict(pairs[:place]):
                raise ValueError(f"{name!r} stands there twice")
        return dict(pairs)

    try:
        return json.loads(text, object_pairs_hook=once), ""
    except (ValueError, RecursionError) as error:
        return text, str(error)


def readings(values: dict[str, Any]) -> dict[str, Reading]:
    """Of the fields that say something of how they were read, by path; without those of what is not chosen."""
    found = {}
    for path, field in every_path().items():
        kind, _, rest = path.partition(".")
        if kind not in CHOSEN or rest.partition(".")[0] == values[f"{kind}.name"]:
            one = read(values[path], field)
            if one.hint or one.left_out:
                found[path] = one
    return found


def exact_in_a_browser(settings: Any) -> Any:
    """The settings with whole numbers that the browser's own would round as text; the server refuses either."""
    if isinstance(settings, dict):
        return {key: exact_in_a_browser(value) for key, value in settings.items()}
    if isinstance(settings, list):
        return [exact_in_a_browser(value) for value in settings]
    return str(settings) if isinstance(settings, int) and abs(settings) > 2**53 else settings


def settings_from_values(values: dict[str, Any]) -> dict[str, Any]:
    """The settings JSON of what stands in the form. The only way from the form to settings."""
    settings: dict[str, Any] = {kind: {"name": values[f"{kind}.name"]} for kind in CHOSEN}
    for path, field in every_path().items():
        kind = path.partition(".")[0]
        if kind in CHOSEN:
            choice, key = path.split(".")[1:]
            if choice == settings[kind]["name"]:
                settings[kind][key] = from_text(values[path], field)
            continue
        block = settings
        *outer, last = path.split(".")
        for part in outer:
            block = block.setdefault(part, {})
        block[last] = from_text(values[path], field)
    if settings["recipe"]["name"] == NO_RECIPE:
        settings["recipe"] = None
    settings["num_epochs" if values[LENGTH] == STEPS else "max_steps"] = None
    return settings


def values_from_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """What the form shows for these settings; fields of what is not chosen keep their defaults."""
    chosen = {kind: settings.get(kind) or {} for kind in CHOSEN}
    values: dict[str, Any] = {
        "method.name": chosen["method"].get("name", METHODS[0].name),
        "recipe.name": chosen["recipe"].get("name", NO_RECIPE),
    }
    for path, field in every_path().items():
        value: Any = field.default
        kind = path.partition(".")[0]
        if kind in CHOSEN:
            name, key = path.split(".")[1:]
            if name == chosen[kind].get("name"):
                value = chosen[kind].get(key, field.default)
        else:
            block: Any = settings
            for part in path.split("."):
                block = block.get(part, field.default) if isinstance(block, dict) else field.default
            value = block
        values[path] = as_text(value, field)
    values[LENGTH] = EPOCHS if settings.get("num_epochs") is not None else STEPS
    return values


def first_settings() -> dict[str, Any]:
    """What stands in the form on a first visit: one press of Start shows learning within ten seconds."""
    preset = {"gradient_accumulation_steps": 4, "max_steps": 60}
    return Settings.from_dict(preset).to_dict()


def first_values() -> dict[str, Any]:
    return values_from_settings(first_settings()) | {WOULD_FIT_ON: this_machine().name, RUN_NAME: ""}


def kept_values(kept: dict[str, Any]) -> tuple[dict[str, Any], tuple[Notice, ...]]:
    """A form that a browser has kept, as the form of today; with what is told where an older version kept it.

    It may lack fields, hold ones that are gone, and words that meant something else.
    """
    first = first_values()
    values = first | {path: value for path, value in kept.items() if path in first}
    if kept.get(KEPT_VERSION) == VERSION:
        return values, ()
    settings = settings_from_values(values) | {"version": 1}
    before = values_from_settings(settings)
    for path in all_fields():  # what the older form did not have, it did not choose
        if path in first and path not in kept:
            *outer, last = path.split(".")
            block: Any = settings
            for part in outer:
                block = block[part]
            block.pop(last, None)
    found, told = upgrade(settings)
    after = values_from_settings(found)
    changed = {path for path, value in after.items() if value != before[path]}
    changed |= {path for path in after if type(values[path]) is not type(first[path])}  # another kind of component
    return values | {path: after[path] for path in changed}, told
