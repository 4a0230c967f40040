"""Shared ground of the tests: one thread, no network beyond this machine, a store of its own for each test."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from functools import partialmethod
from typing import Any

import pytest
from starlette.testclient import TestClient

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# memory tables made by tests are for the tests of this session
os.environ.setdefault("TUNING_FORK_CACHE", tempfile.mkdtemp(prefix="tuning-fork-cache-"))
# a client of tests calls the app by a name of its own: `testserver` is let in nowhere
TestClient.__init__ = partialmethod(TestClient.__init__, base_url="http://127.0.0.1")  # type: ignore[method-assign]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fuzz", type=int, default=0, help="mutated files of each format in tests/fuzz; 0 skips them")
    parser.addoption("--fuzz-seed", type=int, default=0, help="another seed makes other files")


LOOPBACK = ("127.", "::1", "localhost", "0.0.0.0")


@pytest.fixture(autouse=True)
def only_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket that leaves this machine fails the test that opened it."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            host = str(address[0]) if isinstance(address, tuple) else str(address)
            assert host.startswith(LOOPBACK), f"a connection to {address} left this machine"
        connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The page as a person starts it, with a home of its own; one for all tests of a file."""
    from support.browser import open_server

    with open_server(tmp_path_factory.mktemp("home")) as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium; one for all tests of a file."""
    from support.browser import open_browser

    with open_browser() as browser:
        yield browser
