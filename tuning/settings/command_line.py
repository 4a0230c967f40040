"""The shell command that trains a run again, with only those settings that differ from the defaults."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

from tuning.methods import method_named
from tuning.settings.schema import Settings


def changed_only(plain: dict[str, Any]) -> dict[str, Any]:
    """The settings that differ from their defaults, from which `Settings.from_dict` makes the same settings."""
    defaults = Settings().to_dict()
    method_defaults = Settings(method=method_named(plain["method"]["name"]).settings()).to_dict()["method"]
    changes = {key: _differing(value, defaults[key]) for key, value in plain.items() if key != "method"}
    changes = {key: value for key, value in changes.items() if value != {} and plain[key] != defaults[key]}
    changes = {"version": plain["version"], **changes}  # so that a later version reads it with the meaning of this one
    method_changes = _differing(plain["method"], method_defaults)
    changes["method"] = {"name": plain["method"]["name"], **method_changes}
    if plain.get("max_steps") is None:  # giving epochs sets the default of steps aside
        changes.pop("max_steps", None)
    return changes


def command_line(run_id: str, plain: dict[str, Any], home: Path) -> str:
    """One line for a POSIX shell; with the home folder where the base model is the result of a run in it."""
    text = json.dumps(changed_only(plain), ensure_ascii=False)
    where = f" --home {shlex.quote(str(home))}" if plain["model"].startswith("run:") else ""
    return f"echo {shlex.quote(text)} | python -m tuning run - --out {shlex.quote(run_id)}{where}"


def _differing(value: Any, default: Any) -> Any:
    """The members of an object that differ from those of its default; any other value as it is."""
    if isinstance(value, dict) and isinstance(default, dict) and default:
        return {key: member for key, member in value.items() if key not in default or member != default[key]}
    return value
