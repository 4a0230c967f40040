"""The cache of memory tables: shipped with the program, in the user's cache, or made now in a child process.

Tracing changes library globals and takes seconds, so it happens in a process of its own, one table at a time.
"""

from __future__ import annotations

import gzip
import json
import queue
import threading
from functools import lru_cache
from pathlib import Path
from typing import Any

from tuning.core.child_process import IDLE_SECONDS, Child
from tuning.core.files import FileCache
from tuning.core.paths import assets_folder
from tuning.memory.tracing.table import Table
from tuning.memory.workload import Workload

SHIPPED = "memory/tables.jsonl.gz"
BUILD_SECONDS = 300.0
_READ: dict[str, Table | str] = {}
"""Tables read so far, or why there is none, by key."""
CACHE = FileCache(name="memory", suffix=".json.gz", limit_bytes=2**28)


def find_table(workload: Workload) -> Table | None:
    """The table of this workload where it has been made; None where it has not, or cannot be."""
    key = workload.key
    if key not in _READ:
        plain = _shipped().get(key) or CACHE.read(key, _read)
        if plain is None:
            return None
        _READ[key] = Table.from_dict(plain)
    table = _READ[key]
    return table if isinstance(table, Table) else None


def untraceable(workload: Workload) -> str | None:
    """Why this workload's table could not be made; None where it was made, or nobody has tried yet."""
    find_table(workload)
    table = _READ.get(workload.key)
    return table if isinstance(table, str) else None


class TableMaker:
    """Makes tables in a child process, one at a time; what was asked for last goes first."""

    def __init__(self) -> None:
        self._requests: queue.LifoQueue[Workload] = queue.LifoQueue()
        self._pending: set[str] = set()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._builder = _builder()

    def want(self, workload: Workload) -> bool:
        """Request a table. Returns True while it is being made, False where it exists or cannot be made."""
        key = workload.key
        with self._lock:
            if find_table(workload) is not None or key in _READ:
                return False
            if key not in self._pending:
                self._pending.add(key)
                self._requests.put(workload)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="memory-tables", daemon=True)
                self._thread.start()
            return True

    def close(self) -> None:
        """End the child process, if there is one."""
        self._builder.kill()

    def _work(self) -> None:
        while True:
            try:
                workload = self._requests.get(timeout=IDLE_SECONDS)
            except queue.Empty:
                with self._lock:
                    if self._requests.empty():
                        self._builder.close()
                        self._thread = None
                        return
                continue
            _ask(self._builder, workload)
            with self._lock:
                self._pending.discard(workload.key)


def make_table(workload: Workload) -> Table | None:
    """Make a table now and wait for it; None where it cannot be made (`untraceable` says why)."""
    if find_table(workload) is None and workload.key not in _READ:
        make_tables([workload])
    return find_table(workload)


def make_tables(workloads: list[Workload]) -> None:
    """Make several tables, one after another, in a child process that stays for later ones."""
    for workload in workloads:
        _ask(_SHARED_BUILDER, workload)


def _builder() -> Child:
    """A child process that makes tables one after another, of which none may take longer than `BUILD_SECONDS`."""
    return Child("tuning.memory.tracing.build_table", BUILD_SECONDS)


_SHARED_BUILDER = _builder()


def _ask(builder: Child, workload: Workload) -> None:
    """Have one table made, and store it in memory and in the cache; where the child ends, store that as the reason why
    there is none."""
    plain = builder.ask(workload.to_dict())
    if plain is None:
        _READ[workload.key] = "the tracing process ended"
        return
    if "error" in plain:
        _READ[workload.key] = plain["error"]
        return
    _READ[workload.key] = Table.from_dict(plain)
    packed = gzip.compress(json.dumps(plain, separators=(",", ":")).encode(), mtime=0)
    CACHE.write(workload.key, len(packed), lambda out: out.write(packed))


@lru_cache(maxsize=1)
def _shipped() -> dict[str, dict[str, Any]]:
    """The tables of the bundled models by key."""
    file = assets_folder() / SHIPPED
    if not file.is_file():
        return {}
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        return {entry["key"]: entry["table"] for entry in map(json.loads, lines)}


def _read(file: Path) -> Any:
    """A cached table as JSON."""
    with gzip.open(file, "rt", encoding="utf-8") as content:
        return json.load(content)
