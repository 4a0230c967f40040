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

from tuning.plan.plan import Plan


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
        self._asks: deque[tuple[Ask, Callable[[], None] | None]] = deque()
        self._asking = threading.Lock()
        self._over = False

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

    def ask(self, question: Ask, instead: Callable[[], None] | None = None) -> bool:
        """Have `question(model, tokenizer, class names or None)` called by the loop between two updates.

        Where the run ends before its turn comes, `instead` is called then; False where the run has ended already.
        """
        with self._asking:
            if not self._over:
                self._asks.append((question, instead))
            return not self._over

    def take_asks(self, most: int | None = None) -> list[Ask]:
        """The questions waiting, at most so many, oldest first; each is given out once."""
        with self._asking:
            count = len(self._asks) if most is None else min(most, len(self._asks))
            return [self._asks.popleft()[0] for _ in range(count)]

    def end(self) -> None:
        """The run has ended: nothing is asked of its loop any more, and what waits is told so."""
        with self._asking:
            self._over = True
            left = [instead for _, instead in self._asks if instead is not None]
            self._asks.clear()
        for instead in left:
            instead()
