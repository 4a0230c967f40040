"""Random settings objects: every field of the schema with values that fit, nearly fit, and never could.

They are JSON objects as a request or a file could hold them.
"""

from __future__ import annotations

import random
from typing import Any

from tuning.core.fields import Field, fields_of
from tuning.methods import METHODS
from tuning.methods.recipes import RECIPES
from tuning.settings.schema import BLOCKS, Settings

ODD: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    2**31,
    2**63,
    10**30,
    10**400,
    0.0,
    0.5,
    1e-320,
    1e308,
    -0.0,
    float("nan"),
    float("inf"),
    "",
    " ",
    "auto",
    "\ud800",
    "\x00",
    "x" * 5_000,
    "/etc/passwd",
    "../..",
    "a/b",
    "run:r0001",
    "hub:a/b",
    "bundled:reviews",
    "path:/",
    "é🙂",
    [],
    {},
    [1],
    ["a"],
    ["\ud800"],
    [float("nan")],
    [[[[[[]]]]]],
    {"a": 1},
    {"": ""},
    {"\ud800": "\ud800"},
    {"name": "lora"},
    {"name": "r_tuning", "form": "certainty"},
    "{text}",
    "{",
    "{0}",
    "%s",
    "1e3",
)
NAMES = ("reviews", "pirate", "chats", "topics", "people-questions", "tiny-town")


def fitting(field: Field, draw: random.Random) -> Any:
    """A value that the field's own limit accepts."""
    limit = field.limit
    if field.nullable and draw.random() < 0.3:
        return None
    if limit.choices:
        return draw.choice(limit.choices)
    if field.kind is bool:
        return draw.random() < 0.5
    if field.kind in (int, float):
        low = limit.low if limit.low is not None else limit.above if limit.above is not None else 0
        high = limit.high if limit.high is not None else 100
        value = low + (high - low) * draw.random() ** 8  # mostly small ones
        return max(int(value), int(low)) if field.kind is int else value or high
    return field.default if field.kind is not str else draw.choice((*NAMES, field.default, "words"))


def value_of(field: Field, draw: random.Random) -> Any:
    return draw.choice(ODD) if draw.random() < 0.15 else fitting(field, draw)


def block_of(cls: type, draw: random.Random, share: float) -> dict[str, Any]:
    return {name: value_of(field, draw) for name, field in fields_of(cls).items() if draw.random() < share}


def settings_object(draw: random.Random) -> dict[str, Any]:
    """One object; a few of its fields are given, and a few of those are odd."""
    share = draw.choice((0.03, 0.1, 0.3))
    settings = block_of(Settings, draw, share)
    for name, cls in BLOCKS.items():
        if draw.random() < 0.4:
            settings[name] = draw.choice(ODD) if draw.random() < 0.03 else block_of(cls, draw, share)
    method = draw.choice(METHODS)
    settings["method"] = {**block_of(method.settings, draw, share), "name": method.name}
    if draw.random() < 0.1:
        recipe = draw.choice(RECIPES)
        settings["recipe"] = {**block_of(recipe.settings, draw, share), "name": recipe.name}
    if draw.random() < 0.05:
        settings[draw.choice(("", "unknown", "Model", "\ud800", "data.source"))] = draw.choice(ODD)
    if draw.random() < 0.1:
        settings["version"] = draw.choice((1, 2, 3, *ODD))
    for name in ("model", "revision", "device"):  # mostly left as they are: what is not here is refused first
        if draw.random() < 0.8:
            settings.pop(name, None)
    return settings
