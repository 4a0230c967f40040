"""The progress of long readings of files, and a cache in which several threads share one reading.

Readers report from any thread, and the page asks `under_way` for what is being read. A reading that is not wanted any
more ends with Stopped. Several parts of the page need the same file at the same moment: the first one reads it, the
others wait.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, wraps
from itertools import count
from typing import TypeVar

from tuning.core.errors import GoOn, check_stop

Result = TypeVar("Result")
LOOK_SECONDS = 0.2
"""How often a thread that waits for another's reading checks whether its own is still wanted."""


@dataclass(frozen=True, slots=True)
class Under:
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


_under_way = dict[int, Under]()
_ids = count()
_thread = threading.local()
"""Its `go_on` is the callback of the calling thread; no argument of a reading, for those are the keys of caches."""


@contextmanager
def wanted(go_on: GoOn) -> Iterator[None]:
    """Within the block, readings in the calling thread end with Stopped soon after `go_on` answers False."""
    before = getattr(_thread, "go_on", None)
    _thread.go_on = go_on
    try:
        yield
    finally:
        _thread.go_on = before


def look() -> None:
    """Check, between two pieces of long work, whether it is still wanted. Raises Stopped where it is not."""
    go_on = getattr(_thread, "go_on", None)
    if go_on is not None:
        check_stop(go_on)


@contextmanager
def reading(path: str, name: str, doing: str, unit: str, total: int) -> Iterator[Callable[[int], None]]:
    """Within the block, `under_way` lists this reading. The callback that it gives takes how many units are done."""
    reading_id = next(_ids)

    def on_progress(done: int) -> None:
        look()
        _under_way[reading_id] = Under(path, name, doing, unit, done, total)

    on_progress(0)
    try:
        yield on_progress
    finally:
        _under_way.pop(reading_id, None)


def under_way() -> list[Under]:
    """The readings of this process that have not ended, the oldest first."""
    return [under for _, under in sorted(_under_way.copy().items())]


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
