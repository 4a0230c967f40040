"""The protocol of executors, and what they share: running a job to its end, and tasks between updates.

Whatever happens inside a run, its events are numbered without a gap, exactly one end event is the last of them, and
`RunHandle.wait` returns its kind. `tests/runs/test_executors_contract.py` holds every executor to this.
"""

import ctypes
import gc
import logging
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Any, Protocol

from tuning.core.errors import ShouldContinue, Stopped, TuningError
from tuning.runs.events import END_KINDS, Emitter, Event
from tuning.training.job import Commands, Job

log = logging.getLogger(__name__)

Sink = Callable[[Event], None]
Work = Callable[[ShouldContinue, bool], Any]
"""A task, called with `should_continue` and with whether a run waits for it."""
Emit = Callable[..., Event | None]
RunFunction = Callable[[Job, Emit, Commands], str]


class Task:
    """Work to be done between two updates or two runs, once, in whichever place reaches it first.

    To drop it, cancel `done`. Where a run is stopped in the middle of it, it waits for its turn again.
    """

    def __init__(self, work: Work) -> None:
        self._work = work
        self._claim = threading.Lock()
        self.done: Future[Any] = Future()

    def run(self, should_continue: ShouldContinue, *, run_waits: bool) -> None:
        """Do the work, unless it is done, dropped or being done. `run_waits` is passed on to it. Never raises."""
        if self.done.done() or not self._claim.acquire(blocking=False):
            return
        try:
            result = self._work(lambda: should_continue() and not self.done.cancelled(), run_waits)
        except Stopped:
            return
        except BaseException as error:
            with suppress(InvalidStateError):  # nobody waits for it any more
                self.done.set_exception(error)
        else:
            with suppress(InvalidStateError):
                self.done.set_result(result)
        finally:
            self._claim.release()

    def refuse(self, error: Exception) -> None:
        """Set `error` as the result, for work that will not be done."""
        with suppress(InvalidStateError):
            self.done.set_exception(error)


class RunHandle(Protocol):
    """A submitted run."""

    run_id: str
    commands: Commands

    def cancel(self) -> None:
        """End the run; may be called before, during and after it, any number of times."""

    def wait(self, timeout: float | None = None) -> str | None:
        """The kind of its end event, or None when it has not ended within `timeout` seconds."""


class Executor(Protocol):
    """Runs jobs somewhere, one at a time, in the order in which they were submitted."""

    def submit(self, job: Job, sink: Sink) -> RunHandle:
        """Run a job, whose events go to `sink`, the first being `queued`. Raises RunError after `close`."""

    def queue_position(self, run_id: str) -> int | None:
        """How many runs go first: 0 for the one running, 1 for the next; None for a run that is not here."""

    def submit_task(self, work: Work) -> Task:
        """Do work that must not overlap with an update of a run. Returns at once where it has to wait for that; its
        result is in `done`. Raises RunError after `close`."""

    def run_between_updates(self, work: Work, timeout: float) -> Any:
        """Do such work, wait for it and return its result, or raise what it raised.

        Raises RunError where it is not done after `timeout` seconds.
        """

    def close(self, timeout: float = 10.0) -> None:
        """Stop the run that is running, and wait for that for `timeout` seconds. Runs in the queue get no end event:
        they stay queued for the next start."""


class RunEmitter:
    """Emits the events of one run up to its end event, and none after that."""

    def __init__(self, job: Job, sink: Sink) -> None:
        self._emitter = Emitter(job.run_id, job.attempt, sink)
        self._lock = threading.RLock()
        self._ended = threading.Event()
        self.end_kind: str | None = None

    def __call__(self, kind: str, **data: Any) -> Event | None:
        with self._lock:
            if self.end_kind is not None:
                log.warning("an event %r after the end of a run was dropped", kind)
                return None
            if kind in END_KINDS:
                self.end_kind = kind
            try:
                return self._emitter(kind, **data)
            finally:
                if self.end_kind is not None:
                    self._ended.set()

    def wait(self, timeout: float | None) -> str | None:
        """The kind of the end event; None where none came within `timeout` seconds."""
        return self.end_kind if self._ended.wait(timeout) else None


def default_run_function(job: Job, emit: Emit, commands: Commands) -> str:
    """Train; imported when the first run starts, not when the page opens."""
    from tuning.training.run import run_job

    return run_job(job, emit, commands)


def run_to_end(job: Job, emit: RunEmitter, commands: Commands, run_function: RunFunction) -> None:
    """Run one job; never raises, and always emits an end event."""
    try:
        if commands.stopping:
            emit("cancelled", message="Stopped before it began.")
            return
        end = run_function(job, emit, commands)
        if emit.end_kind is None:
            emit(end if end in END_KINDS else "finished")
    except BaseException as error:  # SystemExit of a library, too, must not end the executor
        log.exception("run %s", job.run_id)
        if emit.end_kind is None:
            _emit_failed(job, emit, error)
    finally:
        commands.end()


def _emit_failed(job: Job, emit: RunEmitter, error: BaseException) -> None:
    message = str(error) if isinstance(error, TuningError) else f"{type(error).__name__}: {error}"
    try:
        emit("failed", message=message, traceback="".join(traceback.format_exception(error)))
    except Exception:  # the sink itself is broken; the handle still knows how the run ended
        log.exception("the end of run %s could not be passed on", job.run_id)


def release_memory() -> None:
    """Return what a finished run has used to the system, as far as the C library can."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):  # only glibc has it
        return
