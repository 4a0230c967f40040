"""Between the form and the settings JSON: which components there are, what they hold, and both ways across.

Comes in: what stands in the form's components, by path; or settings.  Goes out: the other.  No component is made here.
A field that a person types into holds text even for numbers: what was typed stays, and is judged by the settings.
"""

from __future__ import annotations

import json
import re
from typing import Any

from tuning import fields as field_tables
from tuning.fields import Field
from tuning.hardware import this_machine
from tuning.methods import METHODS
from tuning.recipes import RECIPES
from tuning.settings import Settings, all_fields

STEPS, EPOCHS = "updates", "epochs"
LENGTH = "length"
"""The form's own choice between max_steps and num_epochs; the other one is sent as null."""
WOULD_FIT_ON = "would_fit_on"
"""A question to the estimate, never a setting."""
RUN_NAME = "run_name"
NO_RECIPE = "none"
NOT_SETTINGS = (LENGTH, WOULD_FIT_ON, RUN_NAME)

SLIDERS = {"micro_batch_size": 64, "gradient_accumulation_steps": 64}
HIDDEN = ("version", "num_devices", "method.name", "recipe", "recipe.name", "max_steps", "num_epochs")
"""Not offered yet, or in a form of its own; they take their default, which `Settings` adds."""
CHOSEN: dict[str, tuple[Any, ...]] = {"method": METHODS, "recipe": RECIPES}
"""Blocks of settings that come with one choice among several."""


def every_path() -> dict[str, Field]:
    """All fields that the form offers, by the path of the component."""
    found = {path: one for path, one in all_fields().items() if not path.startswith("method.")}
    for kind, choices in CHOSEN.items():
        for choice in choices:
            for name, one in field_tables.table(choice.settings, f"{kind}.").items():
                if one.path not in HIDDEN:
                    found[f"{kind}.{choice.name}.{name}"] = one
    return {path: one for path, one in found.items() if path not in HIDDEN or path in ("max_steps", "num_epochs")}


def as_text(value: Any, field: Field) -> Any:
    """A settings value as its component shows it."""
    kind = field.kind
    if value is None:
        return ""
    if kind is bool:
        return str(bool(value)).lower() if field.nullable else bool(value)
    if kind is dict:
        return json.dumps(value) if value else ""
    if kind is tuple:
        words = bool(value) and isinstance(value[0], str)
        return "\n".join(map(_one_line, value)) if words else ", ".join(_exactly(one) for one in value)
    if isinstance(value, list | tuple):
        return ", ".join(value)
    if isinstance(value, str) and value != value.strip():  # blanks at its ends would be lost: between quotation marks
        return json.dumps(value, ensure_ascii=False)
    return _exactly(value) if isinstance(value, float) else str(value)


def _one_line(text: str) -> str:
    """A text that may hold line breaks, in a list with one text a line."""
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _many_lines(text: str) -> str:
    return re.sub(r"\\(\\|n)", lambda found: "\n" if found[1] == "n" else "\\", text)


def _exactly(value: float) -> str:
    """As short as possible, but the same number when it is read again."""
    return f"{value:g}" if float(f"{value:g}") == value else repr(value)


def from_text(value: Any, field: Field) -> Any:
    """What a component holds as a settings value. What cannot be read goes on as it is, for the settings to refuse."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    if field.listed and text != field.default:
        return [part.strip() for part in text.split(",") if part.strip()] or text
    if field.kind is str:
        return _unquoted(text) or (None if field.nullable else text)
    if field.kind is bool:
        return {"": None, "true": True, "false": False}.get(text, text)
    if not text:
        empty: Any = [] if field.kind is tuple else {} if field.kind is dict else ""
        return None if field.nullable else empty
    if field.kind is dict:
        return _json_or(text)
    if field.kind is tuple:
        numbers = bool(field.default) and not isinstance(field.default[0], str)
        parts = [part.strip() for part in (text.split(",") if numbers else text.split("\n")) if part.strip()]
        return [_number_or(part) for part in parts] if numbers else [_many_lines(part) for part in parts]
    return _number_or(text)


def _unquoted(text: str) -> str:
    """What stands between quotation marks, where they were put there for blanks at its ends."""
    inner = _json_or(text) if len(text) > 2 and text[0] == text[-1] == '"' else None
    return inner if isinstance(inner, str) and inner != inner.strip() else text


def _json_or(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _number_or(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


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
        values[path] = value if path in SLIDERS else as_text(value, field)
    values[LENGTH] = EPOCHS if settings.get("num_epochs") is not None else STEPS
    return values


def first_settings() -> dict[str, Any]:
    """What stands in the form on a first visit: one press of Start shows learning within ten seconds."""
    preset = {"gradient_accumulation_steps": 4, "max_steps": 60}
    return Settings.from_dict(preset).to_dict()


def first_values() -> dict[str, Any]:
    return values_from_settings(first_settings()) | {WOULD_FIT_ON: this_machine().name, RUN_NAME: ""}
