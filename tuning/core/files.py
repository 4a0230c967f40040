"""Files and folders that appear whole or not at all, and caches of such files.

What is being written lies beside its destination under a name that ends in `.part`, so that a reader never meets half
of it and `tuning.core.disk_usage.clear_parts` finds what a killed process has left. A cache never makes its user fail:
a damaged file is made anew, and where nothing can be written nothing is stored.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

T = TypeVar("T")

PART = ".part"
OLD = ".old"
"""What a folder is called while a new one takes its name."""
STALE_SECONDS = 24 * 3600.0
"""A `.part` file of a cache that was not written to for so long is one of a program that was killed."""


@contextmanager
def new_file(path: Path, *, sync: bool = False) -> Iterator[Path]:
    """A path to write to; the file takes the name `path`, in place of an older one, when the block ends without error.

    Only for files with one writer at a time: the path is always the same. With `sync` the content is on the disk
    before it has its name, and outlasts a power cut.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + PART)
    try:
        yield part
        if sync:
            sync_to_disk(part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)  # a full disk leaves no half of a file


def write_text(path: Path, text: str) -> None:
    """Write a whole text file in UTF-8, in place of an older one."""
    with new_file(path) as part:
        part.write_text(text, encoding="utf-8")


@contextmanager
def new_folder(path: Path, *, sync: bool = False) -> Iterator[Path]:
    """An empty folder to fill; it takes the name `path`, in place of an older one, when the block ends without error.

    Only for folders with one writer at a time. With `sync` all its files are on the disk before it has its name.
    """
    part, old = path.with_name(path.name + PART), path.with_name(path.name + OLD)
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        if sync:
            for file in sorted(part.rglob("*")):
                sync_to_disk(file)
            sync_to_disk(part)
        if path.is_dir():
            shutil.rmtree(old, ignore_errors=True)
            path.rename(old)
        part.rename(path)
        if sync:
            sync_to_disk(path.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)  # a full disk leaves no half of a folder
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def temporary_file(folder: Path, prefix: str, suffix: str = "") -> Iterator[tuple[BinaryIO, Path]]:
    """An open file with a unique name: for several writers of one path, or a path that depends on the content.

    Rename it to its destination within the block; otherwise it is removed after the block.
    """
    handle, name = tempfile.mkstemp(prefix=prefix, suffix=suffix, dir=folder)
    try:
        with os.fdopen(handle, "wb") as out:
            yield out, Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def sync_to_disk(path: Path) -> None:
    """Wait until a file's content, or the names in a folder, would outlast a power cut."""
    if path.is_dir() and os.name == "nt":  # Windows keeps names by itself, and opens no folder
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def user_cache(name: str) -> Path:
    """The folder of one cache among the user's caches; TUNING_FORK_CACHE names another parent folder for all of
    them."""
    from platformdirs import user_cache_path

    return Path(os.environ.get("TUNING_FORK_CACHE") or user_cache_path("tuning-fork", appauthor=False)) / name


@dataclass(frozen=True, slots=True, kw_only=True)
class FileCache:
    """Files that can be made again, in the user's cache: each named after a key of all that it depends on.

    Any number of processes read and write it. Where it would grow beyond `limit_bytes`, the files that were not read
    for longest go.
    """

    name: str
    suffix: str
    limit_bytes: int
    spare_bytes: int = 0
    """Bytes of the disk that storing leaves free."""

    def path(self, key: str) -> Path:
        """The path of this key's file, whether it is there or not."""
        return user_cache(self.name) / f"{key}{self.suffix}"

    def read(self, key: str, reader: Callable[[Path], T]) -> T | None:
        """What `reader` makes of the key's file; None where there is none, or where the reader raises OSError, EOFError
        or ValueError: then the file is damaged, and is removed."""
        path = self.path(key)
        try:
            value = reader(path)
            os.utime(path)  # read now: others are removed first
            return value
        except FileNotFoundError:
            return None
        except (OSError, EOFError, ValueError):
            with suppress(OSError):
                path.unlink()
            return None

    def write(self, key: str, size: int, writer: Callable[[BinaryIO], object]) -> None:
        """Store a file of about `size` bytes; without room, or without permission, nothing is stored."""
        path = self.path(key)
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            if not self._make_room(size):
                return
            with temporary_file(path.parent, ".", PART) as (out, part):
                writer(out)
                out.close()
                os.replace(part, path)

    def _make_room(self, size: int) -> bool:
        """Remove the files not read for longest until `size` more bytes fit; False where they never would."""
        folder = user_cache(self.name)
        if size > self.limit_bytes or shutil.disk_usage(folder).free < size + self.spare_bytes:
            return False
        for part in folder.glob(f"*{PART}*"):
            if time.time() - part.stat().st_mtime > STALE_SECONDS:
                part.unlink(missing_ok=True)
        files = sorted(folder.glob(f"*{self.suffix}"), key=lambda file: file.stat().st_mtime)
        total = sum(file.stat().st_size for file in files)
        for file in files:
            if total + size <= self.limit_bytes:
                break
            total -= file.stat().st_size
            file.unlink(missing_ok=True)
        return True
