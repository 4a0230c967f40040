"""Runs a job inside `submit`, in the caller's thread: for tests and the command line.

The handle is that of a run that has ended already. To stop a run early, its sink or another thread sets a command.
"""

from typing import Any

from tuning.core.errors import RunError
from tuning.runs.executors.base import (
    RunEmitter,
    RunFunction,
    Sink,
    Task,
    Work,
    default_run_function,
    release_memory,
    run_to_end,
)
from tuning.training.job import Commands, Job


class InlineHandle:
    """A run of the inline executor."""

    def __init__(self, job: Job, sink: Sink, commands: Commands) -> None:
        self.run_id = job.run_id
        self.commands = commands
        self.emit = RunEmitter(job, sink)

    def cancel(self) -> None:
        self.commands.stop()

    def wait(self, timeout: float | None = None) -> str | None:
        return self.emit.wait(timeout)


class InlineExecutor:
    """One run after another, each to its end before `submit` returns."""

    def __init__(self, run_function: RunFunction = default_run_function) -> None:
        self._run_function = run_function
        self._current: InlineHandle | None = None
        self._closed = False

    def submit(self, job: Job, sink: Sink, commands: Commands | None = None) -> InlineHandle:
        """`commands` lets a signal handler, another thread or the sink stop the run before this returns."""
        if self._closed:
            raise RunError("The server is shutting down; no new run can start.")
        handle = InlineHandle(job, sink, commands or Commands())
        self._current = handle
        try:
            handle.emit("queued")
            run_to_end(job, handle.emit, handle.commands, self._run_function)
        finally:
            self._current = None
            release_memory()
        return handle

    def queue_position(self, run_id: str) -> int | None:
        return 0 if self._current is not None and self._current.run_id == run_id else None

    def submit_task(self, work: Work) -> Task:
        if self._closed:
            raise RunError("The server is shutting down.")
        task = Task(work)
        task.run(lambda: True, run_waits=False)
        return task

    def run_between_updates(self, work: Work, timeout: float) -> Any:
        return self.submit_task(work).done.result(timeout=0)

    def close(self, timeout: float = 10.0) -> None:
        self._closed = True
        if self._current is not None:
            self._current.cancel()
