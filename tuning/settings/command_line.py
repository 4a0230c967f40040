"""A run as the line that trains it again from a shell.

In: settings as a JSON object. Out: the object with only what differs from the defaults, and the command line.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

from tuning.methods import method_named
from tuning.settings.schema import Settings


def changed_only(plain: dict[str, Any]) -> dict[str, Any]:
    """The settings without what is as documented anyway; `Settings.from_dict` of it gives the same settings."""
    usual = Settings().to_dict()
    method = Settings(method=method_named(plain["method"]["name"]).settings()).to_dict()["method"]
    found = {key: _differing(value, usual[key]) for key, value in plain.items() if key != "method"}
    found = {key: value for key, value in found.items() if value != {} and plain[key] != usual[key]}
    found = {"version": plain["version"], **found}  # so that a later version reads it with the meaning of this one
    own = _differing(plain["method"], method)
    found["method"] = {"name": plain["method"]["name"], **own}
    if plain.get("max_steps") is None:  # giving epochs sets the default of steps aside
        found.pop("max_steps", None)
    return found


def command_line(run_id: str, plain: dict[str, Any], home: Path) -> str:
    """One line for a POSIX shell; with the home folder where the base model is the result of a run in it."""
    text = json.dumps(changed_only(plain), ensure_ascii=False)
    where = f" --home {shlex.quote(str(home))}" if plain["model"].startswith("run:") else ""
    return f"echo {shlex.quote(text)} | python -m tuning run - --out {shlex.quote(run_id)}{where}"


def _differing(value: Any, usual: Any) -> Any:
    if isinstance(value, dict) and isinstance(usual, dict) and usual:
        return {key: one for key, one in value.items() if key not in usual or one != usual[key]}
    return value
