"""Runs jobs in one background thread, one at a time, while the others wait in a queue. The page's default.

`submit` returns at once, and events come from the background thread. It survives whatever a run does, and releases
memory after each.
"""

import logging
import threading
from collections import deque
from typing import Any

from tuning.core.errors import RunError, ShouldContinue
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

log = logging.getLogger(__name__)


class ThreadHandle:
    """A run of the thread executor."""

    def __init__(self, executor: "ThreadExecutor", job: Job, sink: Sink) -> None:
        self.run_id = job.run_id
        self.job = job
        self.commands = Commands()
        self.emit = RunEmitter(job, sink)
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
        self._tasks: deque[Task] = deque()
        self._current: ThreadHandle | None = None
        self._thread: threading.Thread | None = None
        self._closed = False
        self._task_continues: ShouldContinue = lambda: True
        """The `should_continue` of the task that is being done."""

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
        """Take a run that still waits out of the queue; one that runs reads its commands itself."""
        with self._changed:
            if handle not in self._waiting:
                return
            self._waiting.remove(handle)
        try:
            handle.emit("cancelled", message="Stopped before it began.")
        except Exception:
            log.exception("the end of run %s could not be passed on", handle.run_id)

    def queue_position(self, run_id: str) -> int | None:
        with self._changed:
            if self._current is not None and self._current.run_id == run_id:
                return 0
            ahead = 1 if self._current is not None else 0
            for index, handle in enumerate(self._waiting):
                if handle.run_id == run_id:
                    return index + ahead
        return None

    def submit_task(self, work: Work) -> Task:
        """In the background thread, so that nothing else draws random numbers or competes for memory meanwhile."""
        new = Task(work)
        with self._changed:
            if self._closed:
                raise RunError("The server is shutting down.")
            self._tasks = deque(task for task in self._tasks if not task.done.done())
            self._tasks.append(new)
            if self._current is not None:
                self._offer(new, self._current.commands)
            self._wake()
        return new

    def _offer(self, task: Task, commands: Commands) -> None:
        """Let a run do the task between two updates; where the run is stopped in the middle of it, it is done later."""
        commands.ask(lambda *_: self._do(task, lambda: not commands.stopping, run_waits=not commands.paused))

    def _do(self, task: Task, should_continue: ShouldContinue, *, run_waits: bool) -> None:
        self._task_continues = should_continue
        task.run(should_continue, run_waits=run_waits)

    def run_between_updates(self, work: Work, timeout: float) -> Any:
        if threading.current_thread() is self._thread:  # a task that needs another
            return work(self._task_continues, False)
        task = self.submit_task(work)
        try:
            return task.done.result(timeout=timeout)
        except TimeoutError:
            task.done.cancel()
            message = f"No answer within {timeout:.0f} seconds: a run is busy. Ask again when it is over."
            raise RunError(message) from None

    def close(self, timeout: float = 10.0) -> None:
        """Stop the run that is running, and end the thread."""
        with self._changed:
            self._closed = True
            self._waiting.clear()
            dropped = list(self._tasks)
            self._tasks.clear()
            if self._current is not None:
                self._current.commands.stop()
            self._changed.notify_all()
        for task in dropped:
            task.refuse(RunError("The server is shutting down."))
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
                task_before, run_waits = is_task, bool(self._waiting)
                if handle is not None:
                    for waiting in self._tasks:
                        self._offer(waiting, handle.commands)
            if task is not None:
                self._do(task, lambda: not self._closed, run_waits=run_waits)
                task.refuse(RunError("The server is shutting down."))  # where that has stopped it in the middle
                continue
            assert handle is not None
            run_to_end(handle.job, handle.emit, handle.commands, self._run_function)
            with self._changed:
                self._current = None
            release_memory()
