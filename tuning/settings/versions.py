"""Settings of an older version, with their old meaning written out in today's words.

Comes in: a settings object as it stands in a file, a request or a stored run.  Goes out: the same meaning in the
version of today, and a `Notice` that lists what had to be written out.  Nothing is judged here; `Settings.from_dict`
does that.
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
"""What version 1 did where it had no setting for it, or another default, and what says so today."""


def today(given: Any) -> tuple[Any, tuple[Notice, ...]]:
    """The settings object in the version of today, and what is told of it; one of today's comes back as it is.

    A file that names no version is taken as today's, like every key that is left out.
    """
    if not isinstance(given, dict) or given.get("version") != 1 or given["version"] is True:
        return given, ()
    found, told = deepcopy(given), list[str]()
    found["version"] = VERSION
    if found.get("precision") == "bf16":
        found["precision"] = "autocast_bf16"
        told.append("precision autocast_bf16, which was bf16")
    evaluation = found.setdefault("eval", {})
    if isinstance(evaluation, dict) and "every" in evaluation and evaluation["every"] is None:
        evaluation["every"] = _BEGINNING_AND_END
        told.append(f"eval.every {_BEGINNING_AND_END:,}: at the start and the end only, which was empty")
    data = found.setdefault("data", {})
    if isinstance(data, dict):
        for path, old in _WRITTEN_OUT.items():
            name = path.partition(".")[2]
            if name not in data:
                data[name] = old
                told.append(f"{path} {old!r}" if isinstance(old, str) else f"{path} {str(old).lower()}")
    message = f"These settings are of version 1 and keep their meaning, written out in version {VERSION}: "
    message += ("; ".join(told) or "nothing had to be changed") + "."
    return found, (Notice(field="version", message=message, count=len(told)),)
