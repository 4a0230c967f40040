"""What a worker is given: a `Job`, which can be JSON, and `Commands`, which the loop reads between micro-batches."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tuning.plan.plan import Plan
from tuning.text import TextTokenizer

if TYPE_CHECKING:
    from torch import nn


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


LoopTask = Callable[["nn.Module", TextTokenizer, Sequence[str] | None], None]
"""Work for the loop between two updates or while it is paused.

It is called with the model, its tokenizer, and the class names of a classifier.
"""


class Commands:
    """Commands to a run, set from any thread and read by the loop between micro-batches."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._running = threading.Event()
        self._running.set()
        self._tasks: deque[tuple[LoopTask, Callable[[], None] | None]] = deque()
        self._lock = threading.Lock()
        self._ended = False

    def stop(self) -> None:
        """End the run after the present micro-batch; may be called again, and after the end."""
        self._stop.set()
        self._running.set()

    def pause(self) -> None:
        """Hold the run before its next micro-batch, until `unpause` or `stop`."""
        if not self._stop.is_set():
            self._running.clear()

    def unpause(self) -> None:
        """Let a paused run continue."""
        self._running.set()

    @property
    def stopping(self) -> bool:
        return self._stop.is_set()

    @property
    def paused(self) -> bool:
        return not self._running.is_set()

    def wait_while_paused(self, timeout: float | None = None) -> None:
        """Return once the run may continue, or after `timeout` seconds."""
        self._running.wait(timeout)

    def ask(self, task: LoopTask, if_ended: Callable[[], None] | None = None) -> bool:
        """Have the loop call `task` between two updates, or between two micro-batches while it is paused.

        Returns False where the run has ended already. Where it ends before the task's turn comes, `if_ended` is called
        instead.
        """
        with self._lock:
            if not self._ended:
                self._tasks.append((task, if_ended))
            return not self._ended

    def take_tasks(self, most: int | None = None) -> list[LoopTask]:
        """The tasks that wait, at most so many, oldest first; they do not wait any more then."""
        with self._lock:
            count = len(self._tasks) if most is None else min(most, len(self._tasks))
            return [self._tasks.popleft()[0] for _ in range(count)]

    def end(self) -> None:
        """The run has ended: no more tasks are taken, and `if_ended` of those that wait is called."""
        with self._lock:
            self._ended = True
            waiting = [if_ended for _, if_ended in self._tasks if if_ended is not None]
            self._tasks.clear()
        for if_ended in waiting:
            if_ended()
