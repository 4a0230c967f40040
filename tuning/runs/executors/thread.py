"""Runs jobs in one background thread: one at a time, the rest wait in line. The page's default.

In: jobs and their sinks, from any thread. Out: handles at once, events from the background thread. The thread
survives whatever a run does, and gives memory back after each.
"""

import logging
import threading
from collections import deque
from typing import Any

from tuning.core.errors import GoOn, RunError
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

log = logging.getLogger(__name__)


class ThreadHandle:
    """A run of the thread executor."""

    def __init__(self, executor: "ThreadExecutor", job: Job, sink: Sink) -> None:
        self.run_id = job.run_id
        self.job = job
        self.commands = Commands()
        self.emit = OneEnd(job, sink)
        self._executor = executor

    def cancel(self) -> None:
        self.commands.stop()
        self._executor.withdraw(self)

    def wait(self, timeout: float | None = None) -> str | None:
        return self.emit.wait(timeout)


class ThreadExecutor:
    """One background thread, started with the first job."""

    def __init__(self, run_function: RunFunction = default_run_function) -> None:
        self._run_function = run_function
        self._changed = threading.Condition()
        self._waiting: deque[ThreadHandle] = deque()
        self._tasks: deque[SmallTask] = deque()
        self._current: ThreadHandle | None = None
        self._thread: threading.Thread | None = None
        self._closed = False
        self._in_hand: GoOn = lambda: True
        """Of the small task that is being done."""

    def submit(self, job: Job, sink: Sink) -> ThreadHandle:
        handle = ThreadHandle(self, job, sink)
        with self._changed:
            if self._closed:
                raise RunError("The server is shutting down; no new run can start.")
            handle.emit("queued")  # before the thread can see it, so that nothing comes earlier
            self._waiting.append(handle)
            self._wake()
        return handle

    def withdraw(self, handle: ThreadHandle) -> None:
        """Take a run that is still waiting out of the line; one that runs reads its commands itself."""
        with self._changed:
            if handle not in self._waiting:
                return
            self._waiting.remove(handle)
        try:
            handle.emit("cancelled", message="Stopped before it began.")
        except Exception:
            log.exception("the end of run %s could not be told", handle.run_id)

    def place(self, run_id: str) -> int | None:
        with self._changed:
            if self._current is not None and self._current.run_id == run_id:
                return 0
            ahead = 1 if self._current is not None else 0
            for number, handle in enumerate(self._waiting):
                if handle.run_id == run_id:
                    return number + ahead
        return None

    def later(self, work: Work) -> SmallTask:
        """In the background thread, so that nothing else draws random numbers or competes for memory meanwhile."""
        small = SmallTask(work)
        with self._changed:
            if self._closed:
                raise RunError("The server is shutting down.")
            self._tasks = deque(one for one in self._tasks if not one.done.done())
            self._tasks.append(small)
            if self._current is not None:
                self._offer(small, self._current.commands)
            self._wake()
        return small

    def _offer(self, small: SmallTask, commands: Commands) -> None:
        """Let a run do this between two of its updates; where its stop ends it half-way, it is done after the run."""
        commands.ask(lambda *_: self._do(small, lambda: not commands.stopping, held=not commands.paused))

    def _do(self, small: SmallTask, should_continue: GoOn, *, held: bool) -> None:
        self._in_hand = should_continue
        small.run(should_continue, held=held)

    def between(self, work: Work, timeout: float) -> Any:
        if threading.current_thread() is self._thread:  # one small thing that needs another
            return work(self._in_hand, False)
        small = self.later(work)
        try:
            return small.done.result(timeout=timeout)
        except TimeoutError:
            small.done.cancel()
            message = f"No answer within {timeout:.0f} seconds: a run is busy. Ask again when it is over."
            raise RunError(message) from None

    def close(self, timeout: float = 10.0) -> None:
        """Stop what runs and end the thread. Runs in line get no end event: they stay queued for the next start."""
        with self._changed:
            self._closed = True
            self._waiting.clear()
            dropped = list(self._tasks)
            self._tasks.clear()
            if self._current is not None:
                self._current.commands.stop()
            self._changed.notify_all()
        for small in dropped:
            small.refuse(RunError("The server is shutting down."))
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout)

    def _wake(self) -> None:
        """Called with the lock held."""
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._loop, name="training", daemon=True)
            self._thread.start()
        self._changed.notify_all()

    def _loop(self) -> None:
        task_before = False
        while True:
            with self._changed:
                while not (self._waiting or self._tasks or self._closed):
                    self._changed.wait()
                if self._closed:
                    return
                # by turns: many tasks do not keep a run waiting, which does those that are left between its updates
                is_task = bool(self._tasks) and not (self._waiting and task_before)
                task = self._tasks.popleft() if is_task else None
                handle = None if is_task else self._waiting.popleft()
                self._current = handle
                task_before, held = is_task, bool(self._waiting)
                if handle is not None:
                    for one in self._tasks:
                        self._offer(one, handle.commands)
            if task is not None:
                self._do(task, lambda: not self._closed, held=held)
                task.refuse(RunError("The server is shutting down."))  # where that has ended it half-way
                continue
            assert handle is not None
            run_to_its_end(handle.job, handle.emit, handle.commands, self._run_function)
            with self._changed:
                self._current = None
            give_memory_back()
