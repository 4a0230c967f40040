"""What a home folder takes on the disk, and the removal of what killed programs have left in it.

What a living process is writing is never touched: it holds a lock.
"""

import logging
import os
import shutil
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TypedDict

from filelock import lock_descriptor

from tuning.core.files import PART

log = logging.getLogger(__name__)

UPLOADS = "uploads"
UPLOAD_PREFIX = ".upload-"
DAY = 24 * 3600.0


class CountAndBytes(TypedDict):
    """How many files and folders there are, and their bytes together."""

    count: int
    bytes: int


def bytes_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder; links are not followed, and what vanishes meanwhile counts 0."""
    total = 0
    with suppress(OSError):
        if path.is_file() and not path.is_symlink():
            return path.stat().st_size
    for folder, _, files in os.walk(path):
        for name in files:
            with suppress(OSError):
                total += os.lstat(os.path.join(folder, name)).st_size
    return total


def remove(path: Path) -> None:
    """Remove a file, or a folder with all in it; of a link only the link. What cannot be removed is left, and
    logged."""
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError:
        log.warning("could not remove %s", path, exc_info=True)


def clear_parts(folder: Path) -> None:
    """Remove what was being written in a run's folder when its process was killed. No process may be writing there."""
    for pattern in (f"*{PART}", ".tmp*"):  # safetensors writes aside to .tmpXXXXXX
        for leftover in list(folder.rglob(pattern)):
            remove(leftover)


def clear_uploads(home: Path) -> None:
    """Remove uploads that were cut off, which no living process is writing."""
    for upload in (home / UPLOADS).glob(f"{UPLOAD_PREFIX}*"):
        try:
            handle = os.open(upload, os.O_RDWR)
        except OSError:
            continue
        try:
            if lock_descriptor(handle, blocking=False):  # else a living process is writing it
                remove(upload)
        finally:
            os.close(handle)


def upload_folders(home: Path) -> list[Path]:
    """The folders of uploaded files, each named after its content; those of one browser lie in a folder of its own."""
    outer = [path for path in (home / UPLOADS).glob("*") if path.is_dir()]
    inner = [path for folder in outer for path in folder.glob("*") if path.is_dir()]
    return [folder for folder in (*outer, *inner) if not any(path.is_dir() for path in folder.glob("*"))]


def upload_of(home: Path, path: str) -> Path | None:
    """The folder of an uploaded file; None for any other path."""
    folder = Path(path).parent
    return folder if folder in upload_folders(home) else None


def is_older(folder: Path, seconds: float) -> bool:
    """Whether nothing in a folder was written in the last `seconds`; False where that cannot be seen."""
    with suppress(OSError):
        newest = max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
        return time.time() - newest > seconds
    return False


def count_and_bytes(paths: Iterable[Path]) -> CountAndBytes:
    """How many files and folders these are, and their bytes together."""
    sizes = [bytes_of(path) for path in paths]
    return {"count": len(sizes), "bytes": sum(sizes)}
