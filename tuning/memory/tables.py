"""Where tables are: shipped with the program, kept in the user's cache, or made now in a child process.

Comes in: a `Subject`.  Goes out: its `Table`, or None while there is none.  Tracing changes library globals and takes
seconds, so it happens in a process of its own, one at a time, and never beside a run in this one.
"""

from __future__ import annotations

import gzip
import json
import queue
import threading
from functools import lru_cache
from pathlib import Path
from typing import Any

from tuning.assets import assets_folder
from tuning.child import IDLE_SECONDS, Child
from tuning.files import FileCache
from tuning.memory.subject import Subject
from tuning.memory.table import Table

SHIPPED = "memory/tables.jsonl.gz"
BUILD_SECONDS = 300.0
_OPEN: dict[str, Table | str] = {}
"""Tables read so far, or why there is none, by key."""
CACHE = FileCache(name="memory", suffix=".json.gz", limit_bytes=2**28)


def find_table(subject: Subject) -> Table | None:
    """The table of this subject where it has been made; None where it has not, or cannot be."""
    key = subject.key
    if key not in _OPEN:
        plain = _shipped().get(key) or CACHE.read(key, _read)
        if plain is None:
            return None
        _OPEN[key] = Table.from_dict(plain)
    found = _OPEN[key]
    return found if isinstance(found, Table) else None


def untraceable(subject: Subject) -> str | None:
    """Why this subject's table could not be made; None where nobody has tried yet."""
    find_table(subject)
    found = _OPEN.get(subject.key)
    return found if isinstance(found, str) else None


class TableMaker:
    """Makes tables in a child process, in the order they were asked for; a later wish goes first."""

    def __init__(self) -> None:
        self._wishes: queue.LifoQueue[Subject] = queue.LifoQueue()
        self._pending: set[str] = set()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._builder = _builder()

    def want(self, subject: Subject) -> bool:
        """Ask for a table; True while it is being made, False where it is there or cannot be made."""
        key = subject.key
        with self._lock:
            if find_table(subject) is not None or key in _OPEN:
                return False
            if key not in self._pending:
                self._pending.add(key)
                self._wishes.put(subject)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="memory-tables", daemon=True)
                self._thread.start()
            return True

    def close(self) -> None:
        """End the child, if there is one."""
        self._builder.kill()

    def _work(self) -> None:
        while True:
            try:
                subject = self._wishes.get(timeout=IDLE_SECONDS)
            except queue.Empty:
                with self._lock:
                    if self._wishes.empty():
                        self._builder.close()
                        self._thread = None
                        return
                continue
            _ask(self._builder, subject)
            with self._lock:
                self._pending.discard(subject.key)


def make_table(subject: Subject) -> Table | None:
    """Make a table now and wait for it; None where it cannot be made (`untraceable` says why)."""
    found = find_table(subject)
    if found is None and subject.key not in _OPEN:
        make_tables([subject])
    return find_table(subject)


def make_tables(subjects: list[Subject]) -> None:
    """Make several, one after another, in a child process that stays for the next as long as this process does."""
    for subject in subjects:
        _ask(_KEPT, subject)


def _builder() -> Child:
    """A child process that makes tables one after another."""
    return Child("tuning.memory.build_table", BUILD_SECONDS)


_KEPT = _builder()


def _ask(builder: Child, subject: Subject) -> None:
    """Have one table made, keep it, and remember it. A child that dies is a table that cannot be made."""
    plain = builder.ask(subject.to_dict())
    if plain is None:
        _OPEN[subject.key] = "the tracing process ended"
        return
    if "error" in plain:
        _OPEN[subject.key] = plain["error"]
        return
    _OPEN[subject.key] = Table.from_dict(plain)
    packed = gzip.compress(json.dumps(plain, separators=(",", ":")).encode(), mtime=0)
    CACHE.write(subject.key, len(packed), lambda out: out.write(packed))


@lru_cache(maxsize=1)
def _shipped() -> dict[str, dict[str, Any]]:
    """The tables of the bundled models by key."""
    file = assets_folder() / SHIPPED
    if not file.is_file():
        return {}
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        return {one["key"]: one["table"] for one in map(json.loads, lines)}


def _read(file: Path) -> Any:
    with gzip.open(file, "rt", encoding="utf-8") as opened:
        return json.load(opened)
