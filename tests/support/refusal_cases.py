"""Inputs for each setting: of a wrong type, out of range, not a number, too long, unknown, nested, or odd but right."""

from __future__ import annotations

import random
from typing import Any

from tuning.core.errors import SettingsError
from tuning.methods import METHODS
from tuning.methods.recipes import RECIPES
from tuning.settings.schema import Settings

SECTIONS = ("data", "optimizer", "schedule", "eval", "save", "sample")
WRONG: tuple[Any, ...] = (
    None,
    True,
    "8",
    "",
    8,
    8.0,
    8.5,
    0,
    -1,
    -0.0,
    2**53,
    10**30,
    10**400,
    1e300,
    float("nan"),
    float("inf"),
    "x" * 5_000,
    "\ud800",
    "auto",
    [],
    ["a", 3],
    ["\ud800"],
    [0, 0.5],
    ["accuracy"],
    {},
    {"a": 1},
    {"text": "\ud800"},
)


def nested(path: str, value: Any, method: str = "lora") -> dict[str, Any]:
    """The settings object that holds this value at a dotted path."""
    outer, _, name = path.rpartition(".")
    if outer == "method":
        return {"method": {"name": method, name: value}}
    if outer == "recipe":
        return {"recipe": {"name": "r_tuning", name: value}}
    return {outer: {name: value}} if outer else {name: value}


def paths() -> list[tuple[str, str]]:
    """Every setting as (dotted path, method it belongs to)."""
    plain = Settings.from_dict({}).to_dict()
    entries = [(name, "lora") for name in plain]
    entries += [(f"{section}.{name}", "lora") for section in SECTIONS for name in plain[section]]
    for method in METHODS:
        own = Settings.from_dict({"method": {"name": method.name}}).to_dict()["method"]
        entries += [(f"method.{name}", method.name) for name in own if name != "name"]
    entries += [("method.name", "lora"), ("recipe.form", ""), ("recipe.threshold", ""), ("recipe.name", "")]
    return entries


def cases() -> list[Any]:
    """All inputs, in a fixed order: each setting alone, several at once, and objects of another form."""
    inputs: list[Any] = [nested(path, value, method) for path, method in paths() for value in WRONG]
    for prefix in ("", *(f"{section}." for section in SECTIONS), "recipe."):
        inputs += [nested(f"{prefix}{name}", 1) for name in ("unknown", "", "\ud800", "data.source")]
    inputs += [nested("method.unknown", 1, method.name) for method in METHODS]
    inputs += [None, [], "settings", 3, {"method": {}}, {"method": {"r": -1}}, {"recipe": {"name": RECIPES[0].name}}]
    inputs += [
        {"max_steps": 5, "num_epochs": 2},
        {"max_steps": None},
        {"num_epochs": "x"},
        {"num_epochs": 0, "max_steps": None},
        {"num_epochs": 2, "micro_batch_size": 0},
        {"task": "sequence_classification", "eval": {"metrics": ["exact_match"]}, "save": {"best_by": "perplexity"}},
        {"save": {"best_by": "exact_match"}, "eval": {"metrics": ["perplexity", "exact_match"]}},
        {"save": {"best_by": "exact_match"}},
        {"eval": {"metrics": ["perplexity", "auto", "nonsense"]}},
        {"sample": {"prompts": ["a", " ", 3]}},
        {"sample": {"prompts": ["a", " "]}},
        {"sample": {"prompts": ["a"] * 65}},
        {"data": {"columns": {"text": 3}, "label_names": [1]}, "optimizer": {"betas": [2]}, "sample": {"prompts": [1]}},
        {"optimizer": {"betas": [0.9, 1.0]}},
        {"optimizer": {"betas": [0.9, True]}},
        {"optimizer": {"betas": [0, 0.9]}},
        {"optimizer": {"betas": [0.9, float("nan")]}},
        {"version": 1, "micro_batch_size": 8},
        {"version": 1, "precision": "bf16", "data": 3},
        {"version": 3},
        {"model": "a/" + "b" * 300, "data": {"source": "/" + "x" * 300, "split": "s" * 201}},
        {"method": {"name": "retrieval", "index": "/" + "x" * 5_000}},
    ]
    draw, single = random.Random(0), list(paths())
    for _ in range(200):
        several: dict[str, Any] = {}
        for path, method in draw.sample(single, draw.randint(2, 6)):
            for name, value in nested(path, draw.choice(WRONG), method).items():
                if isinstance(value, dict) and isinstance(several.get(name), dict):
                    several[name] |= value
                else:
                    several[name] = value
        inputs.append(several)
    return inputs


def answer(given: Any) -> list[Any]:
    """The answer of the settings to an input: each problem as [field, value, limit, message, suggestion] in its order;
    or, where there is none, one object of the values that are not the default."""
    try:
        plain = Settings.from_dict(given).to_dict()
    except SettingsError as error:
        problems = [(problem.to_dict(), problem.suggestion) for problem in error.problems]
        return [
            [problem["field"], shorter(problem["value"]), problem["limit"], problem["message"], suggestion]
            for problem, suggestion in problems
        ]
    return [changed(plain, Settings.from_dict({}).to_dict())]


def shorter(value: Any) -> Any:
    """A value as the record has it: of a long text the beginning and the length."""
    return f"{value[:20]} ({len(value)})" if isinstance(value, str) and len(value) > 60 else value


def changed(plain: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """The values that differ from their defaults in value or in type, by key."""
    changes = {name: value for name, value in plain.items() if repr(value) != repr(defaults.get(name))}
    return {
        name: changed(value, defaults[name])
        if isinstance(value, dict) and isinstance(defaults.get(name), dict)
        else shorter(value)
        for name, value in changes.items()
    }
