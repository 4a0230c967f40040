"""Runs a job inside `submit`, in the caller's thread: for tests and the command line.

In: a job and a sink. Out: a handle to a run that has already ended. A run that should stop early is stopped from
its own sink.
"""

from typing import Any

from tuning.runs.executors.base import (
    OneEnd,
    RunFunction,
    Sink,
    SmallTask,
    Work,
    default_run_function,
    give_memory_back,
    run_to_its_end,
)
from tuning.training.job import Commands, Job


class InlineHandle:
    """A run of the inline executor."""

    def __init__(self, job: Job, sink: Sink, commands: Commands) -> None:
        self.run_id = job.run_id
        self.commands = commands
        self.emit = OneEnd(job, sink)

    def cancel(self) -> None:
        self.commands.stop()

    def wait(self, timeout: float | None = None) -> str | None:
        return self.emit.wait(timeout)


class InlineExecutor:
    """One run after another, each to its end before `submit` returns."""

    def __init__(self, run_function: RunFunction = default_run_function) -> None:
        self._run_function = run_function
        self._current: InlineHandle | None = None

    def submit(self, job: Job, sink: Sink, commands: Commands | None = None) -> InlineHandle:
        """`commands` lets a caller (a signal handler, a test's sink) stop a run that has not returned yet."""
        handle = InlineHandle(job, sink, commands or Commands())
        self._current = handle
        try:
            handle.emit("queued")
            run_to_its_end(job, handle.emit, handle.commands, self._run_function)
        finally:
            self._current = None
            give_memory_back()
        return handle

    def place(self, run_id: str) -> int | None:
        return 0 if self._current is not None and self._current.run_id == run_id else None

    def later(self, work: Work) -> SmallTask:
        small = SmallTask(work)
        small.run(lambda: True, held=False)
        return small

    def between(self, work: Work, timeout: float) -> Any:
        return self.later(work).done.result(timeout=0)

    def close(self, timeout: float = 10.0) -> None:
        if self._current is not None:
            self._current.cancel()
