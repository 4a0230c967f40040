"""The events of a run, numbered within an attempt and passed to a sink; as text, each is one flat JSON line."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypedDict

KINDS = (
    "queued",
    "started",
    "phase",
    "step",
    "eval",
    "sample",
    "knob",
    "paused",
    "resumed",
    "checkpoint",
    "warning",
    "interrupted",
    "finished",
    "cancelled",
    "failed",
)
END_KINDS = ("finished", "cancelled", "failed", "interrupted")
_HEAD = ("run_id", "attempt", "seq", "time", "kind")


class StepEvent(TypedDict):
    """The keys of a `step` event besides those of every event; tokens, examples and seconds are cumulative."""

    step: int
    epoch: float
    loss: float | None
    learning_rate: float | None
    grad_norm: float | None
    trained_tokens: int
    input_tokens: int
    examples: int
    seconds: float
    peak_bytes: int | None


class EvalEvent(TypedDict):
    """The keys of an `eval` event besides those of every event; `seconds` are how long it took."""

    step: int
    loss: float | None
    metrics: dict[str, float | None]
    seconds: float
    peak_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """An event of a run; `(run_id, attempt, seq)` is unique, so that one that comes twice is stored once."""

    run_id: str
    attempt: int
    seq: int
    time: float
    """Seconds since the epoch."""
    kind: str
    data: dict[str, Any]

    def to_line(self) -> str:
        """The event as one flat JSON line, without the line end."""
        head = {key: getattr(self, key) for key in _HEAD}
        return json.dumps(head | self.data, ensure_ascii=False, allow_nan=False)

    @staticmethod
    def from_line(line: str) -> Event:
        """The event of a line of `to_line`. Raises ValueError for any other line."""
        flat = json.loads(line)
        if not isinstance(flat, dict) or any(key not in flat for key in _HEAD):
            raise ValueError(f"not an event line: {line[:80]!r}")
        head = {key: flat.pop(key) for key in _HEAD}
        return Event(**head, data=flat)


class Emitter:
    """Numbers the events of one attempt and passes them to the sink in order, from any thread."""

    def __init__(
        self,
        run_id: str,
        attempt: int,
        sink: Callable[[Event], None],
        clock: Callable[[], float] = time.time,
        first_seq: int = 0,
    ) -> None:
        self._run_id, self._attempt, self._sink, self._clock = run_id, attempt, sink, clock
        self._next, self._lock = first_seq, threading.Lock()

    def __call__(self, kind: str, **data: Any) -> Event:
        """Make an event of this kind and pass it on; numbers that are not finite become None, for JSON has none.

        Raises ValueError for an unknown kind.
        """
        if kind not in KINDS:
            raise ValueError(f"unknown event kind {kind!r}")
        with self._lock:
            event = Event(
                run_id=self._run_id,
                attempt=self._attempt,
                seq=self._next,
                time=self._clock(),
                kind=kind,
                data={key: _finite(value) for key, value in data.items()},
            )
            self._next += 1
            self._sink(event)
        return event


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
