"""A small hub on this machine, with the HTTP interface that `huggingface_hub` and `datasets` use.

It serves folders as models and data sets, records every request, and can misbehave: gated, slow, cut in the middle,
silent. There are also an address that refuses connections, and one where packets vanish.
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from fastapi.testclient import TestClient

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SECRET = "hf_secretsecretsecret"
"""A token; tests search for it wherever it must not be."""
LARGE = 4096
"""Files from this size on are served as large files are: named by their SHA-256."""
PIECE = 16 * 1024


@dataclass(slots=True)
class Request:
    """One request, with how many bytes of a file were sent for it."""

    method: str
    path: str
    range: str | None
    authorized: bool
    status: int
    sent: int = 0


@dataclass(slots=True)
class Hub:
    """The content of the server and its behaviour, which may be changed at any time."""

    models: dict[str, Path] = field(default_factory=dict)
    datasets: dict[str, Path] = field(default_factory=dict)
    licence: str = "apache-2.0"
    branches: tuple[str, ...] = ()
    """Other names of the one revision there is."""
    gated_by: str | None = None
    """The token that opens the models; None where they are open."""
    silent: bool = False
    seconds_a_piece: float = 0.0
    cut_after: int | None = None
    """Bytes of a large file after which the connection is broken, once for each time that this is set."""
    requests: list[Request] = field(default_factory=list)
    address: str = ""

    def bytes_of(self, name: str) -> list[Request]:
        """The requests that fetched this file's content."""
        return [
            request
            for request in self.requests
            if request.method == "GET" and request.path.endswith(f"/{name}") and request.sent
        ]


def file_key(content: bytes) -> tuple[str, bool]:
    """The hash by which the hub names a file, and whether it is a large file."""
    if len(content) >= LARGE:
        return hashlib.sha256(content).hexdigest(), True
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest(), False


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: Any) -> None:
        """Quiet: `Hub.requests` is the record."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self._answer(self.rfile.read(length))

    def _answer(self, body: bytes = b"") -> None:
        if self.hub.silent:
            time.sleep(30)
            self.close_connection = True
            return
        path = urlsplit(self.path).path
        match = re.fullmatch(
            r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(revision|tree|paths-info)/([^/]+)(/.*)?)?", path
        )
        if match:
            kind, name, what, revision, inner = (unquote(part) if part else None for part in match.groups())
            assert kind and name
            self._api(kind, name, what or "revision", revision or "main", (inner or "").strip("/"), body)
            return
        match = re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        if match:
            kind, name, revision, file = (unquote(part) if part else "" for part in match.groups())
            self._resolve("datasets" if kind else "models", name, revision, file)
            return
        self._send(404, {"X-Error-Code": "RepoNotFound"}, b"{}")

    # -- what is served ------------------------------------------------------------------------------------------------
    def _folder(self, kind: str, name: str, revision: str) -> Path | None:
        folder = getattr(self.hub, kind).get(name)
        if folder is None:
            self._send(401, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}, b"{}")
        elif revision not in ("main", COMMIT, *self.hub.branches):
            self._send(404, {"X-Error-Code": "RevisionNotFound"}, b"{}")
        else:
            return folder
        return None

    def _open_to(self) -> bool:
        """Whether this request may read files; answers as the hub does where it may not."""
        token, given = self.hub.gated_by, self.headers.get("Authorization")
        if token is None or given == f"Bearer {token}":
            return True
        message = "Access to model is restricted. You must have access to it and be authenticated to access it."
        headers = {"X-Error-Code": "GatedRepo", "X-Error-Message": message, "X-Repo-Commit": COMMIT}
        self._send(403 if given else 401, headers, message.encode())
        return False

    def _api(self, kind: str, name: str, what: str, revision: str, inner: str, body: bytes) -> None:
        folder = self._folder(kind, name, revision)
        if folder is None:
            return
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        if what == "revision":
            self._json(self._info(name, folder, files))
            return
        if what == "paths-info":
            requested = _requested_paths(body)
            files = [path for path in files if path.relative_to(folder).as_posix() in requested]
        elif inner:
            files = [path for path in files if path.relative_to(folder).as_posix().startswith(inner + "/")]
        self._json([_entry(path, folder) for path in files])

    def _info(self, name: str, folder: Path, files: list[Path]) -> dict[str, Any]:
        siblings = []
        for path in files:
            entry = _entry(path, folder)
            lfs = {"sha256": entry["oid"], "size": entry["size"], "pointerSize": 130} if "lfs" in entry else None
            sibling = {"rfilename": entry["path"], "size": entry["size"], "blobId": entry["oid"][:40]}
            siblings.append(sibling | ({"lfs": lfs} if lfs else {}))
        about, card = _json(folder / "config.json"), {"license": self.hub.licence} | _card(folder / "README.md")
        return {
            "_id": "0" * 24,
            "id": name,
            "modelId": name,
            "sha": COMMIT,
            "private": False,
            "disabled": False,
            "gated": "auto" if self.hub.gated_by else False,
            "downloads": 0,
            "likes": 0,
            "siblings": siblings,
            "tags": [f"license:{self.hub.licence}"],
            "cardData": card,
            "config": {
                "model_type": about.get("model_type"),
                "architectures": about.get("architectures"),
                "tokenizer_config": _json(folder / "tokenizer_config.json"),
            },
            "lastModified": "2024-01-01T00:00:00.000Z",
            "createdAt": "2024-01-01T00:00:00.000Z",
        }

    def _resolve(self, kind: str, name: str, revision: str, file: str) -> None:
        folder = self._folder(kind, name, revision)
        if folder is None or not self._open_to():
            return
        path = folder / file
        if not path.is_file():
            self._send(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}, b"")
            return
        content = path.read_bytes()
        start, total = 0, len(content)
        byte_range = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        headers = {"ETag": f'"{file_key(content)[0]}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if byte_range:
            start, end = int(byte_range[1]), int(byte_range[2]) if byte_range[2] else total - 1
            headers["Content-Range"] = f"bytes {start}-{end}/{total}"
            content = content[start : end + 1]
        self._send(206 if byte_range else 200, headers, content, large=total >= LARGE)

    # -- how it is sent ------------------------------------------------------------------------------------------------
    def _json(self, value: Any) -> None:
        self._send(200, {"Content-Type": "application/json"}, json.dumps(value).encode())

    def _send(self, status: int, headers: dict[str, str], content: bytes, large: bool = False) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(name, value)
        path, authorized = urlsplit(self.path).path, self.headers.get("Authorization") is not None
        request = Request(self.command, path, self.headers.get("Range"), authorized, status)
        self.hub.requests.append(request)  # before the client can go on
        self.end_headers()
        if self.command != "HEAD":
            self._pour(content, large, request)

    def _pour(self, content: bytes, large: bool, request: Request) -> None:
        """Send the content, or as much of it as the hub's behaviour lets through."""
        limit = self.hub.cut_after if large else None
        for start in range(0, len(content), PIECE):
            piece = content[start : start + PIECE]
            if limit is not None and request.sent + len(piece) > limit:
                self.hub.cut_after = None
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            if large:
                time.sleep(self.hub.seconds_a_piece)
            request.sent += len(piece)
            try:
                self.wfile.write(piece)
            except OSError:  # the other side went away, as on a cancel
                request.sent -= len(piece)
                self.close_connection = True
                return


def _entry(path: Path, folder: Path) -> dict[str, Any]:
    content = path.read_bytes()
    key, large = file_key(content)
    entry: dict[str, Any] = {
        "type": "file",
        "path": path.relative_to(folder).as_posix(),
        "size": len(content),
        "oid": key,
    }
    return entry | ({"lfs": {"oid": key, "size": len(content), "pointerSize": 130}} if large else {})


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.is_file() else {}


def _card(path: Path) -> dict[str, Any]:
    """The YAML at the head of a README, as the hub reads it."""
    match = re.match(r"---\n(.*?)\n---", path.read_text(encoding="utf-8"), re.DOTALL) if path.is_file() else None
    return yaml.safe_load(match[1]) if match else {}


def _requested_paths(body: bytes) -> set[str]:
    """The paths of a paths-info request, which come as JSON or as a form."""
    try:
        return set(json.loads(body)["paths"])
    except ValueError:
        from urllib.parse import parse_qs

        return set(parse_qs(body.decode())["paths"])


@contextmanager
def open_hub(**content: Any) -> Iterator[Hub]:
    """A hub at `Hub.address`, for as long as the block lasts."""
    hub = Hub(**content)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads, server.block_on_close = True, False
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def only_hub(patch: pytest.MonkeyPatch, cache: Path, **content: Any) -> Iterator[Hub]:
    """A hub that is the only one this process uses, with an empty cache."""
    from huggingface_hub import constants

    patch.setattr(constants, "HF_HUB_OFFLINE", False)
    patch.setattr(constants, "HF_HUB_CACHE", str(cache))
    with open_hub(**content) as hub:
        patch.setenv("HF_ENDPOINT", hub.address)
        yield hub


def wait_for_download(client: TestClient, address: str, state: str) -> dict[str, Any]:
    """The answer to GET of this address once its download is in a state; fails after 30 seconds."""
    end = time.monotonic() + 30
    while True:
        now = client.get(address).json()
        if now["state"] == state:
            return now
        assert time.monotonic() < end, now
        time.sleep(0.02)


def refusing_address() -> str:
    """An address at which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


@contextmanager
def vanishing_address() -> Iterator[str]:
    """An address whose packets get no answer: its queue of connections is full, so the system drops new ones."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        waiting = []
        for _ in range(4):
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex(address)
            waiting.append(client)
        try:
            yield f"http://127.0.0.1:{address[1]}"
        finally:
            for client in waiting:
                client.close()
