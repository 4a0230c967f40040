"""What runs and uploads take on the disk of a home folder, and their removal for good.

A run's folder is home/runs/RUN_ID. Uploads are removed with the last run that was made from them.
"""

import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypedDict

from tuning.core.disk_usage import (
    DAY,
    CountAndBytes,
    bytes_of,
    clear_parts,
    clear_uploads,
    count_and_bytes,
    is_older,
    remove,
    upload_folders,
    upload_of,
)
from tuning.core.errors import RunError
from tuning.core.visitor import current_visitor
from tuning.runs.store import STORE, RunStore

PURGED = "purged"
"""Where a run's folder lies in the home while it is being deleted for good."""
UNUSED_SECONDS = 30 * DAY
"""Seconds after which an upload that no run names is removed."""


class DiskUse(TypedDict):
    """What a home folder takes on the disk: bytes, and None for what a browser of a class may not see."""

    runs: CountAndBytes
    deleted: CountAndBytes
    uploads: CountAndBytes
    store: int | None
    free: int | None


class RunDisk:
    """The folders of runs and uploads in a home folder."""

    def __init__(self, store: RunStore) -> None:
        self._home, self._store = store.home, store

    def usage(self) -> DiskUse:
        """What the home folder takes; for a browser of a class, what its own runs and uploads take."""
        if (owner := current_visitor().owner) is not None:
            own = self._store.runs(include_deleted=True)
            uploads = [folder for folder in upload_folders(self._home) if folder.parent.name == owner]
            return {
                "runs": count_and_bytes(self._store.run_folder(row.run_id) for row in own if row.deleted is None),
                "deleted": count_and_bytes(
                    self._store.run_folder(row.run_id) for row in own if row.deleted is not None
                ),
                "uploads": count_and_bytes(uploads),
                "store": None,
                "free": None,
            }
        folders = [folder for folder in self._store.runs_folder.glob("*") if folder.is_dir()]
        deleted = self._store.deleted_ids()
        files = [self._home / f"{STORE}{end}" for end in ("", "-wal", "-shm")]
        return {
            "runs": count_and_bytes(folder for folder in folders if folder.name not in deleted),
            "deleted": count_and_bytes(self._store.run_folder(run_id) for run_id in deleted),
            "uploads": count_and_bytes(upload_folders(self._home)),
            "store": sum(bytes_of(file) for file in files),
            "free": shutil.disk_usage(self._home).free,
        }

    def clear_killed(self) -> None:
        """Remove what killed processes have left half done, and uploads that no run has named for a month.

        The time it takes does not grow with the number of runs.
        """
        for run_id in self._store.claim_killed():
            clear_parts(self._store.run_folder(run_id))
            self._store.release(run_id)
        clear_uploads(self._home)
        for folder in sorted((self._home / PURGED).glob("*")):  # a deletion for good that was cut off
            with suppress(RunError):
                self._store.run(folder.name)
                self._store.purge(folder.name)
            remove(folder)
        for upload in upload_folders(self._home):
            if is_older(upload, UNUSED_SECONDS) and not self._store.made_from(str(upload)):
                remove(upload)

    def purge(self, run_id: str, release_files: Callable[[], None]) -> int:
        """Delete a deleted run for good: its points, its folder, and its uploads that no other run names.

        Returns the bytes freed. `release_files` is called before anything is deleted: it closes what is open of the
        run's files. Raises RunError where the run is not deleted or is in use, or where another run began with its
        result or a file of it.
        """
        row, folder = self._store.run(run_id), self._store.run_folder(run_id)
        if row.deleted is None or row.active:
            reason = "has not ended yet" if row.active else "is not deleted: delete it first, which can be undone"
            raise RunError(f"{row.name} {reason}.")
        needing = [name for other, name in self._store.made_from(f"run:{run_id}", str(folder)) if other != run_id]
        if needing:
            more = f" and {len(needing) - 3:,} more" if len(needing) > 3 else ""
            raise RunError(
                f"{row.name} cannot be deleted for good, for other runs began with its result and need it:"
                f" {', '.join(needing[:3])}{more}. Delete those for good first."
            )
        if not self._store.claim(run_id):
            raise RunError(f"{row.name} is in use by another Tuning Fork process on this home folder.")
        try:
            release_files()
            return self._purge(run_id, folder)
        except OSError as error:
            raise RunError(f"{row.name} could not be deleted for good: {error.strerror or error}.") from error
        finally:
            self._store.release(run_id)

    def _purge(self, run_id: str, folder: Path) -> int:
        sources, freed, aside = self._store.sources(run_id), bytes_of(folder), self._home / PURGED / run_id
        aside.parent.mkdir(exist_ok=True)
        if folder.is_dir():
            folder.rename(aside)  # from here on a start finishes it
        try:
            self._store.purge(run_id)
        except RunError:
            if aside.is_dir():
                aside.rename(folder)
            raise
        remove(aside)
        for upload in {upload for path in sources if (upload := upload_of(self._home, path)) is not None}:
            # one of today may stand in somebody's form, who has not started yet
            if not self._store.made_from(str(upload)) and is_older(upload, DAY):
                freed += bytes_of(upload)
                remove(upload)
        return freed
