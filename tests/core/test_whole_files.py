"""Files and folders appear whole or not at all, and a cache never makes its user fail."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tuning.core.disk_usage import clear_parts
from tuning.core.files import STALE_SECONDS, FileCache, new_file, new_folder, temporary_file, write_text


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize("sync", [False, True])
def test_a_file_takes_its_name_when_it_is_whole(tmp_path: Path, sync: bool) -> None:
    path = tmp_path / "inner" / "weights.bin"
    for content in (b"one", b"two"):
        with new_file(path, sync=sync) as part:
            part.write_bytes(content)
            assert not path.exists() or path.read_bytes() != content
        assert path.read_bytes() == content
    assert names(tmp_path) == ["inner", "inner/weights.bin"]


def test_a_file_that_fails_leaves_the_one_before_it(tmp_path: Path) -> None:
    write_text(tmp_path / "a.json", "before")
    with pytest.raises(OSError, match="full"), new_file(tmp_path / "a.json") as part:
        part.write_text("half")
        raise OSError("the disk is full")
    assert (tmp_path / "a.json").read_text() == "before" and names(tmp_path) == ["a.json"]


@pytest.mark.parametrize("sync", [False, True])
def test_a_folder_takes_the_place_of_the_one_before_it(tmp_path: Path, sync: bool) -> None:
    for content in ("one", "two"):
        with new_folder(tmp_path / "adapter", sync=sync) as part:
            assert names(part) == []
            (part / f"{content}.txt").write_text(content)
    assert names(tmp_path) == ["adapter", "adapter/two.txt"]


def test_a_folder_that_fails_leaves_the_one_before_it(tmp_path: Path) -> None:
    with new_folder(tmp_path / "model") as part:
        (part / "a").write_text("whole")
    with pytest.raises(KeyboardInterrupt), new_folder(tmp_path / "model") as part:
        (part / "b").write_text("half")
        raise KeyboardInterrupt
    assert names(tmp_path) == ["model", "model/a"]


def test_what_a_killed_process_was_writing_is_cleared_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "kept.txt").write_text("")
    writing = [new_file(tmp_path / "a.json"), new_folder(tmp_path / "b")]
    for block in writing:
        part = block.__enter__()
        if not part.is_dir():
            part.write_text("half")
    assert len(names(tmp_path)) == 3
    clear_parts(tmp_path)
    assert names(tmp_path) == ["kept.txt"]


def test_a_temporary_file_is_gone_unless_it_was_renamed(tmp_path: Path) -> None:
    with temporary_file(tmp_path, ".upload-") as (out, path):
        out.write(b"one")
        assert path.name.startswith(".upload-")
    assert names(tmp_path) == []
    with temporary_file(tmp_path, ".upload-") as (out, path):
        out.write(b"two")
        out.close()
        os.replace(path, tmp_path / "rows")
    assert (tmp_path / "rows").read_bytes() == b"two"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FileCache:
    monkeypatch.setenv("TUNING_FORK_CACHE", str(tmp_path))
    return FileCache(name="tables", suffix=".bin", limit_bytes=25)


def stored(cache: FileCache, key: str, content: bytes) -> None:
    cache.write(key, len(content), lambda out: out.write(content))


def test_a_cache_gives_back_what_was_stored(cache: FileCache, tmp_path: Path) -> None:
    assert cache.read("a", Path.read_bytes) is None
    stored(cache, "a", b"0123456789")
    assert cache.read("a", Path.read_bytes) == b"0123456789"
    assert names(tmp_path) == ["tables", "tables/a.bin"]


def test_the_files_that_were_not_read_for_longest_go_first(cache: FileCache, tmp_path: Path) -> None:
    for age, key in enumerate("ab"):
        stored(cache, key, b"0123456789")
        os.utime(cache.path(key), (1000 + age, 1000 + age))
    assert cache.read("a", Path.read_bytes) is not None
    stored(cache, "c", b"0123456789")
    assert names(tmp_path / "tables") == ["a.bin", "c.bin"]
    stored(cache, "large", b"x" * 26)
    assert names(tmp_path / "tables") == ["a.bin", "c.bin"], "what never fits removes nothing"


def test_a_damaged_file_is_removed_and_none(cache: FileCache) -> None:
    stored(cache, "a", b"text")
    assert cache.read("a", lambda path: int(path.read_text())) is None
    assert not cache.path("a").exists()


def test_a_write_that_fails_stores_nothing_and_is_silent_only_of_the_disk(cache: FileCache, tmp_path: Path) -> None:
    def full(out: object) -> None:
        raise OSError("the disk is full")

    cache.write("a", 1, full)
    with pytest.raises(ZeroDivisionError):
        cache.write("a", 1, lambda out: 1 // 0)
    assert names(tmp_path / "tables") == []
    (tmp_path / "tables").rmdir()
    (tmp_path / "tables").write_text("in the way")
    stored(cache, "a", b"1")
    assert cache.read("a", Path.read_bytes) is None


def test_parts_of_killed_programs_go_after_a_day(cache: FileCache, tmp_path: Path) -> None:
    stored(cache, "a", b"1")
    old, fresh = tmp_path / "tables" / ".old.part", tmp_path / "tables" / ".fresh.part"
    for part in (old, fresh):
        part.write_bytes(b"half")
    os.utime(old, (time.time() - 2 * STALE_SECONDS,) * 2)
    stored(cache, "b", b"1")
    assert not old.exists() and fresh.exists()
