"""What crosses to a worker: a Job as plain data going down, and the small commands a running loop reads.

Comes in: a plan with a run's identity.  Goes out: a `Job` (JSON there and back) and `Commands`, which the training
loop looks at between micro-batches.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tuning.plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One attempt at one run."""

    run_id: str
    attempt: int
    plan: Plan
    folder: str
    """Where the run's files go (settings.json, adapter/ or model/, checkpoints/)."""

    def to_dict(self) -> dict[str, Any]:
        return {"run_id": self.run_id, "attempt": self.attempt, "plan": self.plan.to_dict(), "folder": self.folder}

    @staticmethod
    def from_dict(plain: dict[str, Any]) -> Job:
        return Job(
            run_id=plain["run_id"],
            attempt=plain["attempt"],
            plan=Plan.from_dict(plain["plan"]),
            folder=plain["folder"],
        )


Ask = Callable[[Any, Any, Any], None]


class Commands:
    """What a person asks of a running run. Set from any thread; the loop reads it between micro-batches."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._go = threading.Event()
        self._go.set()
        self._asks: deque[Ask] = deque()

    def stop(self) -> None:
        """End the run after the micro-batch in hand; may be called twice, or late."""
        self._stop.set()
        self._go.set()

    def pause(self) -> None:
        """Hold the run before its next micro-batch, until `resume` or `stop`."""
        if not self._stop.is_set():
            self._go.clear()

    def resume(self) -> None:
        """Let a held run go on."""
        self._go.set()

    @property
    def stopping(self) -> bool:
        return self._stop.is_set()

    @property
    def paused(self) -> bool:
        return not self._go.is_set()

    def wait_while_paused(self, timeout: float | None = None) -> None:
        """Return once the run may go on, or after `timeout` seconds."""
        self._go.wait(timeout)

    def ask(self, question: Ask) -> None:
        """Have `question(model, tokenizer, class names or None)` called by the loop between two updates."""
        self._asks.append(question)

    def take_asks(self) -> list[Ask]:
        """The questions waiting, oldest first; each is given out once."""
        taken = []
        while self._asks:
            taken.append(self._asks.popleft())
        return taken
