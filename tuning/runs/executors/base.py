"""What every executor promises, the one place where a job is run, and the small tasks done between updates.

In: a job, and a sink for its events. Out: a handle to stop and await it. Whatever happens inside a run, its events
are numbered without a gap, exactly one end event is the last of them, and `wait()` says the same.
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

from tuning.core.errors import GoOn, Stopped, TuningError
from tuning.runs.events import END_KINDS, Emitter, Event
from tuning.training.job import Commands, Job

log = logging.getLogger(__name__)

Sink = Callable[[Event], None]
Work = Callable[[GoOn, bool], Any]
"""Looks at the first, as all long work does; the second says whether a training is held up meanwhile."""
Emit = Callable[..., Event | None]
RunFunction = Callable[[Job, Emit, Commands], str]


class SmallTask:
    """Something to do between two updates or two runs; whoever comes first does it.

    Who does not want it any more cancels `done`. Where a run's stop ends it half-way it waits for its turn again.
    """

    def __init__(self, work: Work) -> None:
        self._work = work
        self._claim = threading.Lock()
        self.done: Future[Any] = Future()

    def run(self, should_continue: GoOn, *, held: bool) -> None:
        """Do it, unless it is done, dropped or in hand; `held` is as `Work` has it. Never raises."""
        if self.done.done() or not self._claim.acquire(blocking=False):
            return
        try:
            found = self._work(lambda: should_continue() and not self.done.cancelled(), held)
        except Stopped:
            return
        except BaseException as error:
            with suppress(InvalidStateError):  # nobody waits for it any more
                self.done.set_exception(error)
        else:
            with suppress(InvalidStateError):
                self.done.set_result(found)
        finally:
            self._claim.release()

    def refuse(self, error: Exception) -> None:
        """Tell who waits that it will not be done."""
        with suppress(InvalidStateError):
            self.done.set_exception(error)


class RunHandle(Protocol):
    """One submitted run."""

    run_id: str
    commands: Commands

    def cancel(self) -> None:
        """Ask it to end; may be called before, during and after the run, any number of times."""

    def wait(self, timeout: float | None = None) -> str | None:
        """The kind of its end event, or None when it has not ended within `timeout` seconds."""


class Executor(Protocol):
    """Runs jobs somewhere."""

    def submit(self, job: Job, sink: Sink) -> RunHandle: ...

    def place(self, run_id: str) -> int | None:
        """How many runs go first: 0 for the one running, 1 for the next; None for one it does not have."""

    def later(self, work: Work) -> SmallTask:
        """Put something in line that must not overlap with a training update; whoever wants its result waits for
        `done` in a way of their own."""

    def between(self, work: Work, timeout: float) -> Any:
        """Do such a thing now, and answer its result. Raises RunError when it has not been done after so long."""

    def close(self, timeout: float = 10.0) -> None: ...


class OneEnd:
    """The emit of one run: passes events on until the run's end, and nothing after it."""

    def __init__(self, job: Job, sink: Sink) -> None:
        self._emitter = Emitter(job.run_id, job.attempt, sink)
        self._lock = threading.RLock()
        self._ended = threading.Event()
        self.kind: str | None = None

    def __call__(self, kind: str, **data: Any) -> Event | None:
        with self._lock:
            if self.kind is not None:
                log.warning("an event %r after the end of a run was dropped", kind)
                return None
            if kind in END_KINDS:
                self.kind = kind
            try:
                return self._emitter(kind, **data)
            finally:
                if self.kind is not None:
                    self._ended.set()

    def wait(self, timeout: float | None) -> str | None:
        return self.kind if self._ended.wait(timeout) else None


def default_run_function(job: Job, emit: Emit, commands: Commands) -> str:
    """The real training job; imported when the first run starts, not when the page opens."""
    from tuning.training.run import run_job

    return run_job(job, emit, commands)


def run_to_its_end(job: Job, emit: OneEnd, commands: Commands, run_function: RunFunction) -> None:
    """Run one job; never raises, and always leaves an end event behind."""
    try:
        if commands.stopping:
            emit("cancelled", message="Stopped before it began.")
            return
        said = run_function(job, emit, commands)
        if emit.kind is None:
            said = said if said in END_KINDS else "finished"
            emit(said)
    except BaseException as error:  # SystemExit of a library, too, must not take the executor with it
        log.exception("run %s", job.run_id)
        if emit.kind is None:
            _say_failed(job, emit, error)
    finally:
        commands.end()


def _say_failed(job: Job, emit: OneEnd, error: BaseException) -> None:
    message = str(error) if isinstance(error, TuningError) else f"{type(error).__name__}: {error}"
    try:
        emit("failed", message=message, traceback="".join(traceback.format_exception(error)))
    except Exception:  # the sink itself is broken; the handle still knows how it ended
        log.exception("the end of run %s could not be told", job.run_id)


def give_memory_back() -> None:
    """Return what a finished run has used to the system, as far as the C library can."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):  # only glibc has it
        return
