"""Which process owns a run: one locked file for each run that a process owns.

The system frees a lock when its process dies, however it dies, so a run that says "running" while its lock is free was
interrupted.
"""

import threading
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

SUFFIX = ".lock"


class OwnerLocks:
    """The locks of this process, as files in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._locks: dict[str, FileLock] = {}
        self._guard = threading.Lock()

    def held(self, run_id: str) -> bool:
        """Whether this process owns the run."""
        return run_id in self._locks

    def take(self, run_id: str) -> bool:
        """Make this process the owner of the run; False where another living process is."""
        with self._guard:
            if run_id in self._locks:
                return True
            self._folder.mkdir(parents=True, exist_ok=True)
            # any thread may release it; a lock that is only a file would outlive a killed process
            lock = FileLock(self._file(run_id), timeout=0, mode=0o600, thread_local=False, fallback_to_soft=False)
            try:
                lock.acquire()
            except Timeout:
                return False
            self._locks[run_id] = lock
            return True

    def release(self, run_id: str) -> None:
        """Release a run's lock and remove its file, so that the files left are of processes that live or were
        killed."""
        with self._guard:
            lock = self._locks.pop(run_id, None)
            if lock is None:
                return
            with suppress(OSError):  # Windows removes no open file; there the library does, once it is closed
                self._file(run_id).unlink()  # while it is still locked: nobody else can have it
            lock.release()

    def left(self) -> list[str]:
        """Runs that have a lock file and are not owned by this process, sorted."""
        runs = {file.name.removesuffix(SUFFIX) for file in self._folder.glob(f"*{SUFFIX}")}
        return sorted(runs - self._locks.keys())

    def release_all(self) -> None:
        """Release every lock of this process."""
        for run_id in list(self._locks):
            self.release(run_id)

    def _file(self, run_id: str) -> Path:
        return self._folder / f"{run_id}{SUFFIX}"
