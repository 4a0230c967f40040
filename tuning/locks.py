"""Whose run is it: one locked file per run a process owns.

In: run ids. Out: whether this process has the run. The system lets go of a lock when its process dies, however it
dies, so a run that says "running" while its lock is free was interrupted.
"""

import os
import threading
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: there it is msvcrt
    fcntl = None  # type: ignore[assignment]


class OwnerLocks:
    """One locked file per run this process owns."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: dict[str, int] = {}
        self._guard = threading.Lock()

    def held(self, run_id: str) -> bool:
        return run_id in self._open

    def take(self, run_id: str) -> bool:
        with self._guard:
            if run_id in self._open:
                return True
            self._folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(self._folder / f"{run_id}.lock", os.O_RDWR | os.O_CREAT, 0o600)
            try:
                lock_file(handle)
            except OSError:
                os.close(handle)
                return False
            self._open[run_id] = handle
            return True

    def release(self, run_id: str) -> None:
        with self._guard:
            handle = self._open.pop(run_id, None)
            if handle is not None:
                os.close(handle)

    def release_all(self) -> None:
        for run_id in list(self._open):
            self.release(run_id)


def lock_file(handle: int) -> None:
    if fcntl is not None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    else:
        import msvcrt

        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
