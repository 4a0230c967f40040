"""Progress of long readings of files, and one reading for all who want the same.

Readers report from any thread; whoever shows it asks `under_way`. A reading that is not wanted any more ends with
Stopped. Several parts of the page ask for the same file at the same moment: the first one reads, the others wait.
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

Found = TypeVar("Found")
LOOK_SECONDS = 0.2
"""How often one that waits for another's reading looks whether it is still wanted."""


@dataclass(frozen=True, slots=True)
class Under:
    """One reading that is under way: of which file, what is done to it, and how far it is, in `unit`s."""

    path: str
    """The file in full, for two of one name are two; of several files read as one, the first."""
    name: str
    doing: str
    unit: str
    """bytes or rows."""
    done: int
    total: int


_under_way = dict[int, Under]()
_numbers = count()
_thread = threading.local()
"""`go_on` of the reading in hand: what is read once is kept by what it is of, and not by who wants it."""


@contextmanager
def wanted(go_on: GoOn) -> Iterator[None]:
    """Within this, readings in the calling thread end with Stopped soon after `go_on` says no."""
    before = getattr(_thread, "go_on", None)
    _thread.go_on = go_on
    try:
        yield
    finally:
        _thread.go_on = before


def look() -> None:
    """Called between the pieces of everything that may take long. Raises Stopped."""
    go_on = getattr(_thread, "go_on", None)
    if go_on is not None:
        check_stop(go_on)


@contextmanager
def reading(path: str, name: str, doing: str, unit: str, total: int) -> Iterator[Callable[[int], None]]:
    """For as long as the block lasts this is under way; call what it gives with how much is done."""
    number = next(_numbers)

    def on_progress(done: int) -> None:
        look()
        _under_way[number] = Under(path, name, doing, unit, done, total)

    on_progress(0)
    try:
        yield on_progress
    finally:
        _under_way.pop(number, None)


def under_way() -> list[Under]:
    """All readings of this process that are going on, the oldest first."""
    return [one for _, one in sorted(_under_way.copy().items())]


def read_once(most: int) -> Callable[[Callable[..., Found]], Callable[..., Found]]:
    """`lru_cache` whose callers wait for the same call that is under way, instead of doing its work again."""

    def made(function: Callable[..., Found]) -> Callable[..., Found]:
        kept, guard = lru_cache(maxsize=most)(function), threading.Lock()
        locks = dict[Hashable, tuple[threading.RLock, list[int]]]()

        @wraps(function)
        def once(*arguments: Hashable) -> Found:
            with guard:
                lock, waiting = locks.setdefault(arguments, (threading.RLock(), []))
                waiting.append(1)
            try:
                while not lock.acquire(timeout=LOOK_SECONDS):
                    look()
                try:
                    return kept(*arguments)
                finally:
                    lock.release()
            finally:
                with guard:
                    waiting.pop()
                    if not waiting:
                        del locks[arguments]

        return once

    return made
