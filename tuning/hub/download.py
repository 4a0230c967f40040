"""Downloads of models and data sets into the standard cache, with progress; one can be cancelled and resumed.

The cache is the one that every other program on this machine uses, so that nothing is fetched or stored twice. The
library itself begins a broken file anew, so files are fetched here, with Range, into a part beside their place, checked
against their hash, and then renamed; the library's own call then puts them into the snapshot's folder. A branch or tag
in the cache points at a commit only when all its files are there.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuning.core.errors import ModelError
from tuning.core.files import PART, write_text
from tuning.hub.connection import connect_to_hub
from tuning.hub.models import look_up
from tuning.hub.repo import HubFile, HubRepo, translate_hub_errors

STALL_SECONDS = 10.0
TRIES = 5
PAUSE_SECONDS = 0.5
LOCK_SECONDS = 5.0
_SPARE_BYTES = 64 * 2**20


class _Cancelled(Exception):
    """A person cancelled."""


def part_path(repo: HubRepo, file: HubFile) -> Path:
    """The path of a file while it is being fetched."""
    return repo.folder / "blobs" / f"{file.key}{PART}"


def cached_bytes(repo: HubRepo) -> int:
    """Bytes that are in the cache already, those of unfinished files included."""
    blobs = repo.folder / "blobs"
    done = 0
    for file in repo.files:
        if (repo.folder / "snapshots" / repo.commit / file.name).is_file() or (blobs / file.key).is_file():
            done += file.size
        elif part_path(repo, file).is_file():
            done += part_path(repo, file).stat().st_size
    return done


def fetch(
    repo: HubRepo, token: str | None, progress: Callable[[int], None], is_cancelled: Callable[[], bool]
) -> Path | None:
    """Fetch all files. Returns the snapshot's folder; None where it was cancelled. Raises ModelError. In both cases the
    bytes so far stay in the cache."""
    if repo.problem is not None:
        raise ModelError(repo.problem, repo.id)
    address = connect_to_hub()
    _check_disk_space(repo)
    try:
        for file in repo.files:
            _fetch_file(address, repo, file, token, progress, is_cancelled)
    except _Cancelled:
        return None
    _name_revision(repo)
    return repo.folder / "snapshots" / repo.commit


def _check_disk_space(repo: HubRepo) -> None:
    """Raises ModelError where the disk has no room for what is still to fetch."""
    (repo.folder / "blobs").mkdir(parents=True, exist_ok=True)
    missing, free = repo.total_bytes - cached_bytes(repo), shutil.disk_usage(repo.folder).free
    if missing + _SPARE_BYTES > free:
        message = (
            f"{repo.id} needs {missing / 2**20:,.0f} MiB more, and the disk has {free / 2**20:,.0f}; free some space"
        )
        raise ModelError(message, repo.id, f"{missing:,} bytes free")


def _fetch_file(
    address: str,
    repo: HubRepo,
    file: HubFile,
    token: str | None,
    progress: Callable[[int], None],
    is_cancelled: Callable[[], bool],
) -> None:
    from filelock import Timeout
    from huggingface_hub import hf_hub_download
    from huggingface_hub.utils import WeakFileLock

    """Fetch one file, if it is missing, and put it into the snapshot. Raises ModelError, _Cancelled."""
    blob = repo.folder / "blobs" / file.key
    if not (repo.folder / "snapshots" / repo.commit / file.name).is_file():
        locks = repo.folder.parent / ".locks" / repo.folder.name
        locks.mkdir(parents=True, exist_ok=True)
        try:
            with WeakFileLock(locks / f"{file.key}.lock", timeout=LOCK_SECONDS):
                if not blob.is_file():
                    _fetch_in_parts(address, repo, file, token, progress, is_cancelled)
        except Timeout:
            message = f"another program is downloading {repo.id}; wait for it, then look up again"
            raise ModelError(message, repo.id, "one download at a time") from None
        with translate_hub_errors(repo.id, repo.commit, token, repo.words):
            hf_hub_download(
                repo.id,
                file.name,
                repo_type=repo.repo_type,
                revision=repo.commit,
                endpoint=address,
                token=token or False,
                cache_dir=repo.folder.parent,
            )
    progress(cached_bytes(repo))


def _fetch_in_parts(
    address: str,
    repo: HubRepo,
    file: HubFile,
    token: str | None,
    progress: Callable[[int], None],
    is_cancelled: Callable[[], bool],
) -> None:
    """Append to the part until it is the whole file, over several connections where one breaks."""
    part, tries = part_path(repo, file), TRIES
    before = cached_bytes(repo) - (part.stat().st_size if part.is_file() else 0)
    while True:
        had = part.stat().st_size if part.is_file() else 0
        if had >= file.size:
            break
        try:
            _stream(address, repo, file, token, part, lambda size: progress(before + size), is_cancelled)
        except (_Cancelled, ModelError):
            raise
        except Exception as error:  # the connection broke; a part that has grown since is worth new tries
            now = part.stat().st_size if part.is_file() else 0
            tries = TRIES if now > had else tries - 1
            if tries <= 0:
                message = (
                    f"the connection broke at {now:,} of {file.size:,} bytes of {file.name} ({type(error).__name__}); "
                    "press Download again to go on from there"
                )
                raise ModelError(message, repo.id, "a connection that holds") from None
            time.sleep(PAUSE_SECONDS)
    if part.stat().st_size != file.size or _git_or_lfs_hash(part, file) != file.key:
        part.unlink()
        message = f"{file.name} of {repo.id} did not arrive as the hub describes it; press Download to fetch it anew"
        raise ModelError(message, repo.id, f"hash {file.key}")
    os.replace(part, repo.folder / "blobs" / file.key)


def _stream(
    address: str,
    repo: HubRepo,
    file: HubFile,
    token: str | None,
    part: Path,
    progress: Callable[[int], None],
    is_cancelled: Callable[[], bool],
) -> None:
    """Append to the part what one connection gives; begin it anew where the server sends the file from its start."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    had = part.stat().st_size if part.is_file() else 0
    headers = build_hf_headers(token=token or False) | {"Accept-Encoding": "identity"}
    if had:
        headers["Range"] = f"bytes={had}-"
    url = hf_hub_url(repo.id, file.name, repo_type=repo.repo_type, revision=repo.commit, endpoint=address)
    with get_session().stream("GET", url, headers=headers, timeout=STALL_SECONDS, follow_redirects=True) as answer:
        if answer.status_code >= 400 and answer.status_code < 500:
            with translate_hub_errors(repo.id, repo.commit, token, repo.words):
                hf_raise_for_status(answer)
        hf_raise_for_status(answer)
        continues = answer.headers.get("Content-Range", "").startswith(f"bytes {had}-")
        with open(part, "ab" if had and answer.status_code == 206 and continues else "wb") as out:
            for chunk in answer.iter_raw():  # as they come: what has arrived is stored when the connection breaks
                if is_cancelled():
                    raise _Cancelled
                out.write(chunk)
                progress(out.tell())


def _git_or_lfs_hash(part: Path, file: HubFile) -> str:
    """The hash by which the hub names a file: SHA-256 of a large one, git's SHA-1 over a header and the bytes of a
    small one."""
    digest: Any = hashlib.sha256()
    if len(file.key) != 64:
        digest = hashlib.sha1(f"blob {file.size}\0".encode(), usedforsecurity=False)
    with open(part, "rb") as opened:
        while chunk := opened.read(2**20):
            digest.update(chunk)
    return str(digest.hexdigest())


def _name_revision(repo: HubRepo) -> None:
    """Let the branch or tag point at the commit; called last, so that a half download is never taken for a whole
    one."""
    revision = repo.revision or "main"
    if revision == repo.commit:
        return
    ref = repo.folder / "refs" / revision
    if not ref.resolve().is_relative_to((repo.folder / "refs").resolve()):
        return
    write_text(ref, repo.commit)


# -- in the background ------------------------------------------------------------------------------------------------
@dataclass(slots=True)
class Download:
    """One download as the page shows it: `state` is running, done, cancelled or failed."""

    id: str
    revision: str | None
    total_bytes: int
    done_bytes: int
    state: str = "running"
    message: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "state": self.state,
            "done_bytes": self.done_bytes,
            "total_bytes": self.total_bytes,
            "message": self.message,
        }


class Downloads:
    """The downloads of this server, by hub id. A token lives in the thread that uses it and nowhere else."""

    def __init__(self) -> None:
        self._all: dict[str, Download] = {}
        self._stops: dict[str, threading.Event] = {}
        self._guard = threading.Lock()

    def start(self, repo: HubRepo, token: str | None) -> Download:
        """Begin or resume a download; one that is running is left alone."""
        with self._guard:
            current = self._all.get(repo.id)
            if current is not None and current.state == "running":
                return current
            download = Download(repo.id, repo.revision, repo.total_bytes, cached_bytes(repo))
            self._all[repo.id], self._stops[repo.id] = download, threading.Event()
            worker = threading.Thread(
                target=self._work, args=(repo, token, download, self._stops[repo.id]), name="download", daemon=True
            )
        worker.start()
        return download

    def _work(self, repo: HubRepo, token: str | None, download: Download, stop: threading.Event) -> None:
        def progress(done: int) -> None:
            download.done_bytes = done

        try:
            folder = fetch(repo, token, progress, stop.is_set)
        except ModelError as error:
            download.message, download.state = str(error), "failed"
        except Exception as error:  # its text may hold an address; the kind is enough to report
            download.message, download.state = (
                f"The download failed ({type(error).__name__}); press Download again.",
                "failed",
            )
        else:
            if download.state == "running":
                download.state = "done" if folder is not None else "cancelled"

    def cancel(self, model_id: str) -> Download:
        """Stop a download; its bytes so far stay in the cache. Raises ModelError where there is no download."""
        download = self.of(model_id)
        if download is None:
            raise ModelError(f"{model_id} is not being downloaded", model_id, "a running download")
        if download.state == "running":
            self._stops[model_id].set()
            download.state = "cancelled"
        return download

    def of(self, model_id: str) -> Download | None:
        """The last download of a hub id; None where there was none."""
        return self._all.get(model_id)

    def close(self) -> None:
        """Stop all downloads."""
        for stop in self._stops.values():
            stop.set()


def download_now(
    model_id: str, revision: str | None, token: str | None, progress: Callable[[int, int], None]
) -> Path | None:
    """Look a model up and fetch it in the calling thread, for the command line. Raises ModelError."""
    model = look_up(model_id, revision, token)
    return fetch(model, token, lambda done: progress(done, model.total_bytes), lambda: False)
