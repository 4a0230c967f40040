"""Whose run is it: one locked file per run a process owns.

In: run ids. Out: whether this process has the run. The system lets go of a lock when its process dies, however it
dies, so a run that says "running" while its lock is free was interrupted.
"""

import os
import threading
from contextlib import suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: there it is msvcrt
    fcntl = None  # type: ignore[assignment]


ENDING = ".lock"


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
            handle = _locked(self._folder / f"{run_id}{ENDING}")
            if handle is None:
                return False
            self._open[run_id] = handle
            return True

    def release(self, run_id: str) -> None:
        """Let go of a run's lock; its file goes too, so that those left are of processes that live or were killed."""
        with self._guard:
            handle = self._open.pop(run_id, None)
            if handle is None:
                return
            file = self._folder / f"{run_id}{ENDING}"
            if fcntl is not None:
                file.unlink(missing_ok=True)  # while it is still locked: nobody else can have it
            os.close(handle)
            if fcntl is None:
                with suppress(OSError):  # another has it by now
                    file.unlink(missing_ok=True)

    def left(self) -> list[str]:
        """Runs whose lock file is there, and not this process's own."""
        return sorted(
            file.name.removesuffix(ENDING)
            for file in self._folder.glob(f"*{ENDING}")
            if file.name.removesuffix(ENDING) not in self._open
        )

    def release_all(self) -> None:
        for run_id in list(self._open):
            self.release(run_id)


def _locked(file: Path) -> int | None:
    """The file open and locked; None where another has it."""
    while True:
        handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            lock_file(handle)
        except OSError:
            os.close(handle)
            return None
        try:
            if fcntl is None or os.path.samestat(os.fstat(handle), os.stat(file)):
                return handle
        except FileNotFoundError:
            pass
        os.close(handle)  # its last owner took the file away in between: a lock on it holds nobody off


def lock_file(handle: int) -> None:
    if fcntl is not None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    else:
        import msvcrt

        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
