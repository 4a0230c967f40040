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


def bytes_of(place: Path) -> int:
    """All files of a folder together, or one file; links are not followed, and what vanishes meanwhile counts 0."""
    total = 0
    with suppress(OSError):
        if place.is_file() and not place.is_symlink():
            return place.stat().st_size
    for folder, _, files in os.walk(place):
        for name in files:
            with suppress(OSError):
                total += os.lstat(os.path.join(folder, name)).st_size
    return total


def remove(place: Path) -> None:
    """A file or a folder with all in it; of a link only the link. What cannot be removed is left, and logged."""
    try:
        if place.is_dir() and not place.is_symlink():
            shutil.rmtree(place)
        else:
            place.unlink(missing_ok=True)
    except OSError:
        log.warning("could not remove %s", place, exc_info=True)


def clear_parts(folder: Path) -> None:
    """What was being written in a run's folder when its process was killed. Nobody may be writing there."""
    for pattern in (f"*{PART}", ".tmp*"):  # safetensors writes aside to .tmpXXXXXX
        for left in list(folder.rglob(pattern)):
            remove(left)


def clear_uploads(home: Path) -> None:
    """Uploads that were cut off, which no living process is writing."""
    for left in (home / UPLOADS).glob(f"{UPLOAD_PREFIX}*"):
        try:
            handle = os.open(left, os.O_RDWR)
        except OSError:
            continue
        try:
            if lock_descriptor(handle, blocking=False):  # else somebody is writing it
                remove(left)
        finally:
            os.close(handle)


def upload_folders(home: Path) -> list[Path]:
    """The folders of uploaded files, each named after its content; those of one browser lie in a folder of its own."""
    found = [place for place in (home / UPLOADS).glob("*") if place.is_dir()]
    inner = [place for outer in found for place in outer.glob("*") if place.is_dir()]
    return [place for place in (*found, *inner) if not any(one.is_dir() for one in place.glob("*"))]


def upload_of(home: Path, path: str) -> Path | None:
    """The folder of an uploaded file; None for any other path."""
    place = Path(path).parent
    return place if place in upload_folders(home) else None


def is_older(place: Path, seconds: float) -> bool:
    """Whether nothing in a folder was written for so long."""
    with suppress(OSError):
        newest = max(one.stat().st_mtime for one in (place, *place.iterdir()))
        return time.time() - newest > seconds
    return False


def counted(places: Iterable[Path]) -> CountAndBytes:
    """The number of files and folders, and their bytes."""
    sizes = [bytes_of(place) for place in places]
    return {"count": len(sizes), "bytes": sum(sizes)}
