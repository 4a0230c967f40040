"""Settings of an older version, with their old meaning written out in the present version.

The settings object of a file, a request or a stored run is given the present version, and a `Notice` lists what had to
be written out. Nothing is checked here; `Settings.from_dict` does that.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from tuning.core.errors import Notice

VERSION = 2

_BEGINNING_AND_END = 100_000
"""The largest interval: no run of the old version that evaluated at its start and end only reaches it twice."""
_WRITTEN_OUT = {
    "data.packing": False,
    "data.long_text": "cut",
    "data.row_choice": "first",
    "data.separator": " ",
    "data.chat_template": "off",
    "data.special_tokens": "config",
}
"""What version 1 did where it had no such setting, or another default."""


def upgrade(given: Any) -> tuple[Any, tuple[Notice, ...]]:
    """The settings object in the present version, and a notice of what was written out.

    One of the present version comes back as it is, and so does one without a version.
    """
    if not isinstance(given, dict) or given.get("version") != 1 or given["version"] is True:
        return given, ()
    upgraded, changes = deepcopy(given), list[str]()
    upgraded["version"] = VERSION
    if upgraded.get("precision") == "bf16":
        upgraded["precision"] = "autocast_bf16"
        changes.append("precision autocast_bf16, which was bf16")
    evaluation = upgraded.setdefault("eval", {})
    if isinstance(evaluation, dict) and "every" in evaluation and evaluation["every"] is None:
        evaluation["every"] = _BEGINNING_AND_END
        changes.append(f"eval.every {_BEGINNING_AND_END:,}: at the start and the end only, which was empty")
    data = upgraded.setdefault("data", {})
    if isinstance(data, dict):
        for path, old in _WRITTEN_OUT.items():
            name = path.partition(".")[2]
            if name not in data:
                data[name] = old
                changes.append(f"{path} {old!r}" if isinstance(old, str) else f"{path} {str(old).lower()}")
    message = f"These settings are of version 1 and keep their meaning, written out in version {VERSION}: "
    message += ("; ".join(changes) or "nothing had to be changed") + "."
    return upgraded, (Notice(field="version", message=message, count=len(changes)),)
