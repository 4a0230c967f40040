"""A run of a few steps without a model, which reads its commands as a real one does."""

from __future__ import annotations

import threading
import time
from typing import Any

from tuning.runs.events import Event
from tuning.runs.executors.base import Emit, Executor
from tuning.runs.executors.inline import InlineExecutor
from tuning.training.job import Commands, Job


def toy_run(job: Any, emit: Emit, commands: Commands) -> str:
    """The run function of an executor under test; `toy_job` says what it does."""
    emit("started", total_steps=job.plan["steps"])
    for step in range(1, job.plan["steps"] + 1):
        commands.wait_while_paused()
        for task in commands.take_tasks():
            task(None, None, None)  # type: ignore[arg-type]  # it has no model
        if commands.stopping:
            emit("cancelled", step=step)
            return "cancelled"
        if step == job.plan.get("raise_at"):
            raise job.plan["error"]
        emit("step", step=step, loss=1.0 / step)
        time.sleep(job.plan.get("sleep", 0))
    if job.plan.get("forgets_to_end"):
        return "finished"
    emit("finished", step=job.plan["steps"])
    if job.plan.get("raises_late"):
        raise ValueError("after the end")
    return "finished"


def toy_job(run_id: str = "r1", **plan: Any) -> Job:
    """A job for `toy_run`: `steps`, `sleep` (seconds after each), `raise_at` a step an `error`, and ways to end."""
    return Job(run_id=run_id, attempt=1, plan={"steps": 3, **plan}, folder="unused")  # type: ignore[arg-type]


class StartedRun:
    """A run on its way in an executor that need not return from `submit` before the run has ended."""

    def __init__(self, executor: Executor, job: Job) -> None:
        self.events: list[Event] = []
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        if isinstance(executor, InlineExecutor):
            self.commands = Commands()
            submit = lambda: executor.submit(job, self._hear, self.commands)  # noqa: E731
            self._thread = threading.Thread(target=submit, daemon=True)
            self._thread.start()
        else:
            self.handle = executor.submit(job, self._hear)
            self.commands = self.handle.commands

    def _hear(self, event: Event) -> None:
        with self._changed:
            self.events.append(event)
            self._changed.notify_all()

    def wait_for_event(self, kind: str = "step", after: int = 0) -> None:
        """Wait until an event of this kind comes behind the first `after` events."""
        with self._changed:
            there = lambda: any(event.kind == kind for event in self.events[after:])  # noqa: E731
            assert self._changed.wait_for(there, 30), [event.kind for event in self.events]

    def wait(self) -> str:
        """The kind of the last event, once the run has ended."""
        if self._thread is not None:
            self._thread.join(30)
        else:
            assert self.handle.wait(30) == self.events[-1].kind
        return self.events[-1].kind
