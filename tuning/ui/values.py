"""What the form holds, and the conversion of that to settings and back: which fields there are, and their values.

The components themselves are made in `tuning.ui.form`.
"""

from __future__ import annotations

from typing import Any

from tuning.core.errors import Notice
from tuning.core.fields import Field, fields_of
from tuning.core.hardware import this_machine
from tuning.methods import METHODS
from tuning.methods.recipes import RECIPES
from tuning.settings.schema import Settings, all_fields
from tuning.settings.versions import VERSION, upgrade
from tuning.ui.field_text import ParsedField, as_text, parse

Values = dict[str, Any]
"""The content of the form's components by path, as the browser sends it."""
STEPS, EPOCHS = "updates", "epochs"
LENGTH = "length"
"""The form's own choice between max_steps and num_epochs; the other one is null in the settings."""
WOULD_FIT_ON = "would_fit_on"
"""A question to the estimate, never a setting."""
RUN_NAME = "run_name"
STORED_VERSION = "version"
"""In a form that a browser has stored: the version of its settings; a form of version 1 has none."""
NO_RECIPE = "none"
NOT_SETTINGS = (LENGTH, WOULD_FIT_ON, RUN_NAME)

HIDDEN = ("version", "num_devices", "method.name", "recipe", "recipe.name", "max_steps", "num_epochs")
"""Settings without a field of their own name; `Settings` adds their defaults."""
CHOSEN: dict[str, tuple[Any, ...]] = {"method": METHODS, "recipe": RECIPES}
"""Blocks of settings that come with one choice among several."""


def every_path() -> dict[str, Field]:
    """All fields that the form offers, by the path of the component."""
    fields = {path: field for path, field in all_fields().items() if not path.startswith("method.")}
    for kind, choices in CHOSEN.items():
        for choice in choices:
            for name, field in fields_of(choice.settings, f"{kind}.").items():
                if field.path not in HIDDEN:
                    fields[f"{kind}.{choice.name}.{name}"] = field
    offered = ("max_steps", "num_epochs")
    return {path: field for path, field in fields.items() if path not in HIDDEN or path in offered}


def parsed_fields(values: Values) -> dict[str, ParsedField]:
    """The fields that were not read word for word, by path; those of the chosen method and recipe only."""
    parsed = {}
    for path, field in every_path().items():
        kind, _, rest = path.partition(".")
        if kind not in CHOSEN or rest.partition(".")[0] == values[f"{kind}.name"]:
            content = parse(values[path], field)
            if content.hint or content.empty_lines:
                parsed[path] = content
    return parsed


def exact_in_a_browser(settings: Any) -> Any:
    """The settings, with whole numbers that JavaScript would round as text; the server refuses either."""
    if isinstance(settings, dict):
        return {key: exact_in_a_browser(value) for key, value in settings.items()}
    if isinstance(settings, list):
        return [exact_in_a_browser(value) for value in settings]
    return str(settings) if isinstance(settings, int) and abs(settings) > 2**53 else settings


def settings_from_values(values: Values) -> dict[str, Any]:
    """The settings JSON of the form. There is no other way from the form to settings."""
    settings: dict[str, Any] = {kind: {"name": values[f"{kind}.name"]} for kind in CHOSEN}
    for path, field in every_path().items():
        kind = path.partition(".")[0]
        if kind in CHOSEN:
            choice, key = path.split(".")[1:]
            if choice == settings[kind]["name"]:
                settings[kind][key] = parse(values[path], field).value
            continue
        block = settings
        *outer, last = path.split(".")
        for part in outer:
            block = block.setdefault(part, {})
        block[last] = parse(values[path], field).value
    if settings["recipe"]["name"] == NO_RECIPE:
        settings["recipe"] = None
    settings["num_epochs" if values[LENGTH] == STEPS else "max_steps"] = None
    return settings


def values_from_settings(settings: dict[str, Any]) -> Values:
    """What the form shows for these settings; fields of other methods and recipes have their defaults."""
    chosen = {kind: settings.get(kind) or {} for kind in CHOSEN}
    values: Values = {
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
    """The settings of a first visit: one press of Start shows learning within ten seconds."""
    preset = {"gradient_accumulation_steps": 4, "max_steps": 60}
    return Settings.from_dict(preset).to_dict()


def first_values() -> Values:
    """The form on a first visit."""
    return values_from_settings(first_settings()) | {WOULD_FIT_ON: this_machine().name, RUN_NAME: ""}


def stored_values(stored: Values) -> tuple[Values, tuple[Notice, ...]]:
    """A form that a browser has stored, as the form of today, with notices of what an older version meant differently.

    It may lack fields, have ones that are gone, and values with another meaning.
    """
    first = first_values()
    values = first | {path: value for path, value in stored.items() if path in first}
    if stored.get(STORED_VERSION) == VERSION:
        return values, ()
    settings = settings_from_values(values) | {"version": 1}
    before = values_from_settings(settings)
    for path in all_fields():  # what the older form did not have, it did not choose
        if path in first and path not in stored:
            *outer, last = path.split(".")
            block: Any = settings
            for part in outer:
                block = block[part]
            block.pop(last, None)
    current, notices = upgrade(settings)
    after = values_from_settings(current)
    changed = {path for path, value in after.items() if value != before[path]}
    changed |= {path for path in after if type(values[path]) is not type(first[path])}  # another kind of component
    return values | {path: after[path] for path in changed}, notices
