"""A real browser for tests: the server as a person starts it, Chromium, and a tab that collects faults of the page."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

playwright = pytest.importorskip("playwright.sync_api")
ROOT = Path(__file__).resolve().parents[2]
AXE = ROOT / "tests" / "vendor" / "axe.min.js"
ARGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
playwright.expect.set_options(timeout=20_000)  # tests run beside each other: the time limit is no measure of speed
SLOW = 90_000
"""Milliseconds to wait for what training does: the first run imports torch, and test machines are busy."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """`python app.py` with a home of its own, and a token that a restart does not change."""

    def __init__(self, home: Path, env: Mapping[str, str] | None = None, options: Sequence[str] = ()) -> None:
        self.options = options
        self.home, self.port, self.token = home, free_port(), secrets.token_urlsafe(32)
        self.env = dict(os.environ if env is None else env)
        self.env |= {"OMP_NUM_THREADS": "1", "TUNING_FORK_TOKEN": self.token}
        self.process: subprocess.Popen[str] | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def with_token(self, query: str = "", key: str | None = None) -> str:
        """The printed address, with more of a query (such as ?runs=r0001) before its token, or another key."""
        return f"{self.address}{query}{'&' if query else '?'}token={key or self.token}"

    def get(self, path: str) -> bytes:
        """The answer to a program that has the token."""
        request = Request(self.address + path, headers={"Authorization": f"Bearer {self.token}"})
        return urlopen(request, timeout=20).read()

    def start(self) -> None:
        command = [sys.executable, "app.py", "--port", str(self.port), "--home", str(self.home), "--no-browser"]
        command += self.options
        self.process = subprocess.Popen(command, cwd=ROOT, env=self.env, text=True, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if "Tuning Fork is at" in line:
                return
        raise AssertionError("the server ended before it had an address")

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        assert self.process is not None
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.kill()


@contextmanager
def open_server(home: Path, env: Mapping[str, str] | None = None) -> Iterator[Server]:
    server = Server(home, env)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def open_browser() -> Iterator[Any]:
    chromium = Path("/usr/bin/chromium")
    with playwright.sync_playwright() as driver:
        path = str(chromium) if chromium.exists() else None
        browser = driver.chromium.launch(executable_path=path, args=ARGS)
        yield browser
        browser.close()


class Tab:
    """One page; faults of its scripts, errors in its console and requests to other hosts are collected, and fail the
    test at its end."""

    def __init__(self, context: Any, server: Server, query: str = "", key: str | None = None) -> None:
        self.page = context.new_page()
        self.faults: list[str] = []
        self.page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        self.page.on("request", self._check_request)
        self.page.on("console", self._check_console)
        self.page.goto(server.with_token(query, key))
        self.page.wait_for_selector(".tf-tile", timeout=SLOW)

    def _check_request(self, request: Any) -> None:
        if not request.url.startswith(("http://127.0.0.1:", "data:", "blob:")):
            self.faults.append(f"foreign: {request.url}")

    def _check_console(self, message: Any) -> None:
        """Collect what the browser shows in red; a server that is away, as in some tests, is no fault of the page."""
        if message.type == "error" and "net::ERR_" not in message.text:
            self.faults.append(f"console: {message.text} {message.location}")

    def field(self, path: str) -> Any:
        return self.page.locator(f"#f-{path.replace('.', '-')}").locator("input, textarea").first

    def press_start(self, **settings: str) -> str:
        """Fills the fields, presses Start and waits for the new row; answers the run's id."""
        for path, value in settings.items():
            self.field(path.replace("__", ".")).fill(value)
        before = self.ids()
        self.page.get_by_role("button", name="Start training").click()
        self.page.wait_for_function(f"document.querySelectorAll('[data-run]').length > {len(before)}", timeout=SLOW)
        return next(run for run in self.ids() if run not in before)

    def ids(self) -> list[str]:
        return self.page.evaluate("[...document.querySelectorAll('[data-run]')].map((row) => row.dataset.run)")

    def wait_state(self, run: str, state: str) -> None:
        """Wait for a run's state; a run that has failed ends the wait with its own sentence."""
        chip = f"[data-run={run}] .tf-chip"
        self.page.wait_for_selector(f"{chip}[data-state={state}], {chip}[data-state=failed]", timeout=SLOW)
        row_text = self.page.locator(f"[data-run={run}] .tf-state").inner_text()
        assert self.page.locator(f"{chip}[data-state={state}]").count() == 1, row_text

    def points(self, run: str) -> list[float]:
        """The steps that the chart draws of this run."""
        return self.page.evaluate(
            "(uid) => (document.querySelector('.tf-plot').data ?? []).find((trace) => trace.uid === uid)?.x ?? []",
            f"{run}-smooth",
        )

    def wait_points(self, run: str, count: int) -> None:
        end = time.monotonic() + SLOW / 1000
        while len(self.points(run)) < count:
            row_text = self.page.locator(f"[data-run={run}] .tf-state").inner_text()
            assert "failed" not in row_text, row_text
            assert time.monotonic() < end, (
                f"only {len(self.points(run))} of {count} points came; the row says {row_text!r}"
            )
            self.page.wait_for_timeout(100)


def violations(tab: Tab) -> list[str]:
    """The violations that the accessibility checker finds in the page, in words."""
    tab.page.evaluate(AXE.read_text(encoding="utf-8"))
    rules = tab.page.evaluate("axe.run().then((result) => result.violations)")
    return [f"{rule['id']} ({rule['impact']}): {node['html'][:160]}" for rule in rules for node in rule["nodes"]]


def pick(tab: Tab, path: str, option: str) -> None:
    """Chooses an entry of a drop-down list by its text."""
    tab.field(path).click()
    tab.page.get_by_role("option", name=option).click()
