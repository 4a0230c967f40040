"""The progress of long readings of files, and a cache in which several threads share one reading.

Readers report from any thread, and the page shows `reads_in_progress`. A reading that nobody needs any more ends with
Stopped. Several parts of the page need the same file at the same moment: the first one reads it, the others wait.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, wraps
from itertools import count
from typing import TypeVar

from tuning.core.errors import ShouldContinue, check_stop

Result = TypeVar("Result")
LOOK_SECONDS = 0.2
"""How often a thread that waits for another's reading checks whether its own is still wanted."""


@dataclass(frozen=True, slots=True)
class ReadProgress:
    """The progress of one reading: of `total` units of a file, `done` have been read."""

    path: str
    """The path of the file, for two files can have the same name; of several files read as one, the first."""
    name: str
    doing: str
    """What is done to the file, such as "unpacking"."""
    unit: str
    """bytes or rows."""
    done: int
    total: int


_reads_in_progress = dict[int, ReadProgress]()
_ids = count()
_thread = threading.local()
"""Its `should_continue` is the callback of the calling thread: an argument of a reading would be a key of its cache."""


@contextmanager
def stopped_by(should_continue: ShouldContinue) -> Iterator[None]:
    """Within the block, readings in the calling thread end with Stopped soon after `should_continue` answers False."""
    before = getattr(_thread, "should_continue", None)
    _thread.should_continue = should_continue
    try:
        yield
    finally:
        _thread.should_continue = before


def look() -> None:
    """Check, between two pieces of long work, whether it is still wanted. Raises Stopped where it is not."""
    should_continue = getattr(_thread, "should_continue", None)
    if should_continue is not None:
        check_stop(should_continue)


@contextmanager
def reading(path: str, name: str, doing: str, unit: str, total: int) -> Iterator[Callable[[int], None]]:
    """Within the block, `reads_in_progress` lists this reading. It gives a callback for how many units are done."""
    reading_id = next(_ids)

    def on_progress(done: int) -> None:
        look()
        _reads_in_progress[reading_id] = ReadProgress(path, name, doing, unit, done, total)

    on_progress(0)
    try:
        yield on_progress
    finally:
        _reads_in_progress.pop(reading_id, None)


def reads_in_progress() -> list[ReadProgress]:
    """The readings of this process that have not ended, the oldest first."""
    return [under for _, under in sorted(_reads_in_progress.copy().items())]


def read_once(most: int) -> Callable[[Callable[..., Result]], Callable[..., Result]]:
    """An `lru_cache` of `most` results whose callers wait for an equal call of another thread, instead of repeating its
    work."""

    def decorate(function: Callable[..., Result]) -> Callable[..., Result]:
        cached, guard = lru_cache(maxsize=most)(function), threading.Lock()
        locks = dict[Hashable, tuple[threading.RLock, list[int]]]()

        @wraps(function)
        def once(*arguments: Hashable) -> Result:
            with guard:
                lock, waiting = locks.setdefault(arguments, (threading.RLock(), []))
                waiting.append(1)
            try:
                while not lock.acquire(timeout=LOOK_SECONDS):
                    look()
                try:
                    return cached(*arguments)
                finally:
                    lock.release()
            finally:
                with guard:
                    waiting.pop()
                    if not waiting:
                        del locks[arguments]

        return once

    return decorate
