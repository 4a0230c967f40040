"""A run as the list shows it, and which columns an event changes; the store applies the changes."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tuning.data import CONVERSATION, read_first
from tuning.runs.events import END_KINDS, Event

ACTIVE_STATES = ("queued", "running", "paused")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """A run as the list shows it; everything but name, note and deletion follows from its events."""

    run_id: str
    number: int
    name: str
    note: str
    state: str
    created: float
    started: float | None
    ended: float | None
    settings: dict[str, Any] = field(repr=False)
    plan: dict[str, Any] = field(repr=False)
    estimate: dict[str, Any] | None = field(repr=False)
    parent: str | None
    from_step: int | None
    attempt: int
    step: int
    total_steps: int | None
    loss: float | None
    eval_loss: float | None
    best_eval: float | None
    message: str | None
    phase: str | None
    seconds: float | None
    input_tokens: int | None
    peak_bytes: int | None
    slot: int
    deleted: float | None
    owner: str | None
    """The browser whose run it is; None is whoever runs the program."""

    @property
    def active(self) -> bool:
        return self.state in ACTIVE_STATES

    @property
    def chat(self) -> bool:
        """Whether what it learns from is written through the chat template."""
        return bool((self.plan.get("data") or {}).get("chat", self._shape == CONVERSATION))

    @property
    def special_tokens(self) -> str:
        """The setting data.special_tokens; runs of version 1 have `config`, the tokens of config.json."""
        return str(self.settings["data"].get("special_tokens", "config"))

    @property
    def system_prompt(self) -> str | None:
        """The system prompt that it is trained with."""
        return read_first(self.settings["data"].get("system_prompt"), self._shape)

    @property
    def _shape(self) -> str | None:
        return (self.plan.get("data") or {}).get("shape")

    @staticmethod
    def from_values(values: tuple[Any, ...]) -> "RunRow":
        """A row from the values of COLUMNS, in that order."""
        fields = dict(zip(COLUMNS, values, strict=True))
        for column in JSON_COLUMNS:
            fields[column] = None if fields[column] is None else json.loads(fields[column])
        return RunRow(**fields)


COLUMNS = tuple(RunRow.__dataclass_fields__)
JSON_COLUMNS = ("settings", "plan", "estimate")
LINE_COLUMNS = tuple(column for column in COLUMNS if column not in JSON_COLUMNS)
"""The columns that a list reads: the others have some 20 kB a run."""
LISTED_KINDS = ("queued", "started", "paused", "resumed", *END_KINDS)
"""Events after which a list shows the run anew. What other events change is in the progress of active runs."""


def timing_key(settings: Mapping[str, Any], device: Any) -> str | None:
    """A key that runs have in common of which one shows how long another takes; None where that is not known."""
    try:
        keys = ("model", "task", "precision", "gradient_checkpointing")
        return json.dumps([settings["method"]["name"], device, *(settings[key] for key in keys)])
    except (KeyError, TypeError):
        return None


def named_sources(settings: Mapping[str, Any]) -> set[str]:
    """What a run was made from and may need again: run:ID for a run's artifact, else an absolute path.

    What is bundled or came from the hub is not among them.
    """
    sources: set[str | None] = set()
    model = str(settings.get("model"))
    if model.startswith("run:"):
        sources.add(model.partition("/")[0])
    else:
        sources.add(_path_of(model))
    sources.add(_path_of(str((settings.get("data") or {}).get("source"))))
    index = (settings.get("method") or {}).get("index")
    sources.add(_path_of(f"path:{index}") if index else None)
    return {source for source in sources if source is not None}


def _path_of(spec: str) -> str | None:
    """The absolute path that a model or data source is; None for a bundled name or a hub id."""
    path = spec.removeprefix("path:")
    if path == spec and not spec.startswith(("/", "./", "../", "~")):
        return None
    return os.path.abspath(os.path.expanduser(path))


def row_changes(event: Event) -> dict[str, tuple[str, tuple[Any, ...]]]:
    """What an event changes in its run's row: by column an SQL expression with the values for its question marks."""
    data, kind = event.data, event.kind
    plain: dict[str, Any] = {}
    special: dict[str, tuple[str, tuple[Any, ...]]] = {}
    if kind == "step":
        plain = {column: data.get(column) for column in ("step", "loss", "seconds", "input_tokens")} | {"phase": None}
    elif kind == "eval":
        loss = data.get("loss")
        plain = {"eval_loss": loss, "phase": None}
        special["best_eval"] = ("coalesce(min(best_eval, ?), best_eval, ?)", (loss, loss))
    elif kind == "phase":
        name, done, total = data.get("name"), data.get("done"), data.get("total")
        plain = {"phase": f"{name} {done:,} of {total:,}" if total and done is not None else name}
        special["state"] = ("CASE state WHEN 'queued' THEN 'running' ELSE state END", ())  # loading is running already
    elif kind == "queued":
        plain = {"state": "queued", "attempt": event.attempt, "ended": None}
    elif kind == "started":
        plain = {"state": "running", "started": event.time, "attempt": event.attempt, "ended": None, "message": None}
        special["total_steps"] = ("coalesce(?, total_steps)", (data.get("total_steps"),))
        special["step"] = ("coalesce(?, step)", (data.get("step"),))  # a later attempt may begin further back
    elif kind in ("paused", "resumed"):
        plain = {"state": "paused" if kind == "paused" else "running"}
    elif kind in END_KINDS:
        plain = {"state": kind, "ended": event.time, "message": data.get("message"), "phase": None}
        # so that no expected time has to be computed from the events of earlier runs
        special["rate"] = ("CASE WHEN seconds > 0 AND input_tokens > 0 THEN seconds * 1.0 / input_tokens END", ())
    if data.get("peak_bytes") is not None:
        special["peak_bytes"] = ("max(coalesce(peak_bytes, 0), ?)", (data["peak_bytes"],))
    return {column: ("?", (value,)) for column, value in plain.items()} | special
