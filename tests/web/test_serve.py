"""The start of the page: what is refused, a busy port, the printed addresses, and a browser that opens them."""

from __future__ import annotations

import argparse
import json
import os
import queue
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.request import HTTPError, urlopen

import pytest

from support.browser import ROOT, SLOW, Server, Tab, free_port, playwright
from support.quick_runs import SMALL
from tuning.cli import main
from tuning.core.errors import SettingsError
from tuning.runs.service import RunService
from tuning.web.serving import (
    LOOPBACK_NAMES,
    Keys,
    ListenError,
    Serving,
    add_options,
    addresses,
    has_display,
    is_loopback,
    listen,
    plain_name,
    serving_of,
)


def serving(*options: str, **environ: str) -> Serving:
    """What these options mean."""
    parser = argparse.ArgumentParser()
    add_options(parser)
    return serving_of(parser.parse_args(options), environ)


def app(*options: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """`python app.py`, which is to end by itself."""
    command = [sys.executable, "app.py", "--no-browser", *options]
    return subprocess.run(command, cwd=ROOT, env=os.environ | (env or {}), text=True, capture_output=True, timeout=120)


# -- what is refused --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "my-machine", ""])
def test_beyond_this_machine_there_is_no_serving_without_a_token(host: str, capsys: Any) -> None:
    assert main(["serve", "--host", host, "--no-token", "--port", "0"]) == 2
    printed = capsys.readouterr()
    (problem,) = json.loads(printed.out.splitlines()[-1])["problems"]
    assert problem["field"] == "no_token" and "token" in problem["message"] and "token" in printed.err


def test_under_the_name_of_another_host_there_is_none_either(capsys: Any) -> None:
    """A proxy would let in everybody as the holder."""
    assert main(["serve", "--no-token", "--allow-host", "class.example", "--port", "0"]) == 2
    (problem,) = json.loads(capsys.readouterr().out.splitlines()[-1])["problems"]
    assert problem["field"] == "no_token" and "token" in problem["message"]
    assert serving("--no-token", "--allow-host", "localhost").keys is None


def test_app_refuses_it_before_anything_is_made(tmp_path: Path) -> None:
    done = app("--host", "0.0.0.0", "--no-token", "--home", str(tmp_path / "home"))
    assert done.returncode == 2 and "token" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.1.2.3"])
def test_on_loopback_the_token_may_be_left_out(host: str) -> None:
    assert serving("--host", host, "--no-token").keys is None
    assert serving("--host", host).keys is not None


@pytest.mark.parametrize(
    "options, field",
    [
        (["--port", "70000"], "port"),
        (["--port", "-1"], "port"),
        (["--data", "/no/such/folder"], "data"),
        (["--models", "/no/such/folder"], "models"),
        (["--allow-host", "http://fork.example/"], "allow_host"),
        (["--allow-host", ""], "allow_host"),
    ],
)
def test_options_that_cannot_be_are_reported_by_name(options: list[str], field: str) -> None:
    with pytest.raises(SettingsError) as refused:
        serving(*options)
    assert [problem.field for problem in refused.value.problems] == [field]


@pytest.mark.parametrize("token", ["", "short", "with a blank in it 123", "x" * 200])
def test_a_token_of_ones_own_is_long_and_plain(token: str) -> None:
    with pytest.raises(SettingsError) as refused:
        serving(TUNING_FORK_TOKEN=token)
    assert refused.value.problems[0].field == "TUNING_FORK_TOKEN" and (not token or token not in str(refused.value))


def test_each_start_has_a_new_token_unless_one_is_set() -> None:
    first, second = serving().keys, serving().keys
    assert first is not None and second is not None and first.holder != second.holder and len(first.holder) >= 43
    fixed = [serving(TUNING_FORK_TOKEN="a-token-of-the-tests-1").keys for _ in range(2)]
    assert {(keys.holder, keys.guest) for keys in fixed if keys} == {
        ("a-token-of-the-tests-1", Keys("a-token-of-the-tests-1").guest)
    }


# -- names and addresses ----------------------------------------------------------------------------------------------
def test_names_of_other_hosts_are_let_in_only_where_they_are_named() -> None:
    assert serving().names == LOOPBACK_NAMES
    assert serving("--allow-host", "Fork.Example", "--allow-host", "10.0.0.9").names == LOOPBACK_NAMES | {
        "fork.example",
        "10.0.0.9",
    }
    everywhere = serving("--host", "0.0.0.0").names
    assert socket.gethostname().lower() in everywhere and not {"0.0.0.0", "::", "", "*"} & everywhere
    assert "evil.example" not in everywhere


@pytest.mark.parametrize(
    "host, name",
    [
        ("localhost:7860", "localhost"),
        ("[::1]:7860", "::1"),
        ("[::1]", "::1"),
        ("A.Example", "a.example"),
        ("a.example.", "a.example"),
        ("a:b", "a:b"),
    ],
)
def test_a_host_is_compared_without_port_and_brackets(host: str, name: str) -> None:
    assert plain_name(host) == name


def test_loopback_is_recognized_by_its_address() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "", "localhost.evil.example", "10.0.0.1", "127.0.0.1.nip.io")))


def test_the_printed_address_can_be_reached_and_carries_the_token() -> None:
    own = serving("--host", "127.0.0.1", TUNING_FORK_TOKEN="a-token-of-the-tests-1")
    assert addresses(own, 7861) == ("http://127.0.0.1:7861/?token=a-token-of-the-tests-1", None)
    assert addresses(serving("--no-token"), 7861) == ("http://127.0.0.1:7861/", None)
    six = serving("--host", "::1", "--no-token")
    assert addresses(six, 7861) == ("http://[::1]:7861/", None)
    everywhere = serving("--host", "0.0.0.0")
    first, second = addresses(everywhere, 7861)
    assert everywhere.keys is not None and second is not None and "0.0.0.0" not in first
    assert first.endswith(everywhere.keys.holder) and second.endswith(everywhere.keys.guest)


def test_a_browser_is_opened_only_where_it_is_seen() -> None:
    assert has_display({"DISPLAY": ":0"}) and has_display({"WAYLAND_DISPLAY": "wayland-0"})
    assert not has_display({"DISPLAY": ":0", "SSH_CONNECTION": "10.0.0.1"})
    assert serving(DISPLAY=":0").browser and not serving("--no-browser", DISPLAY=":0").browser
    if sys.platform == "linux":
        assert not has_display({})


def test_the_browser_is_given_a_key_that_opens_once(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    from tuning.ui import page

    opened: queue.Queue[str] = queue.Queue()
    monkeypatch.setattr(page.webbrowser, "open", opened.put)
    own = serving(DISPLAY=":0")
    page._print_addresses(own, 7861)
    once = opened.get(timeout=10).partition("?token=")[2]
    assert own.keys is not None and once != own.keys.holder and once not in capsys.readouterr().out
    assert (own.keys.role_of(once), own.keys.role_of(once)) == ("holder", None)


# -- a busy port ------------------------------------------------------------------------------------------------------
def test_a_busy_port_is_a_sentence_and_leaves_the_queue_alone(tmp_path: Path) -> None:
    service = RunService(tmp_path)
    service.executor.submit = lambda job, sink: None  # type: ignore[method-assign,assignment,return-value]
    run = service.start(SMALL)
    service.store.close()  # as a server does that is gone: the run is queued, and nobody has it
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = app("--port", str(taken.getsockname()[1]), "--home", str(tmp_path))
    assert done.returncode == 1 and "is in use" in done.stderr and "--port" in done.stderr
    assert "Tuning Fork is at" not in done.stdout and "Traceback" not in done.stderr
    again = RunService(tmp_path)
    try:
        row = again.run(run)
        assert (row.state, row.attempt) == ("queued", 1)
        assert [event.kind for event in again.store.events(run)] == []
    finally:
        again.close()


def test_a_host_that_is_not_here_is_a_sentence() -> None:
    with pytest.raises(ListenError, match="Check --host"):
        listen("192.0.2.1", 0)


def test_everywhere_is_reached_by_both_kinds_of_addresses() -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    with listen("::", 0) as door:
        for host in ("127.0.0.1", "::1"):
            socket.create_connection((host, door.getsockname()[1]), timeout=5).close()


# -- over the wire ----------------------------------------------------------------------------------------------------
@pytest.mark.browser
@pytest.mark.timeout(600)
def test_the_printed_address_opens_the_page_and_a_bare_one_says_where_it_stands(browser: Any, tmp_path: Path) -> None:
    command = [sys.executable, "app.py", "--port", str(free_port()), "--home", str(tmp_path), "--no-browser"]
    env = {key: value for key, value in os.environ.items() if key != "TUNING_FORK_TOKEN"}
    process = subprocess.Popen(command, cwd=ROOT, env=env, text=True, stdout=subprocess.PIPE)
    context = browser.new_context()
    try:
        assert process.stdout is not None
        printed = next(match[0] for line in process.stdout if (match := re.search(r"http://\S+", line)))
        bare, _, token = printed.partition("?token=")
        with pytest.raises(HTTPError) as refused:
            urlopen(bare, timeout=20)
        assert refused.value.code == 403 and "the one that ends in ?token=" in refused.value.read().decode()
        page = context.new_page()
        page.goto(bare)
        playwright.expect(page.locator("p")).to_contain_text("This page opens at the address")
        page.goto(printed + "&runs=r0001")
        page.wait_for_selector(".tf-tile", timeout=SLOW)
        assert page.url == f"{bare}?runs=r0001"
        assert token not in page.content() and token not in page.evaluate("document.cookie")
        page.reload()
        page.wait_for_selector(".tf-tile", timeout=SLOW)
    finally:
        context.close()
        process.terminate()
        process.wait(30)


@pytest.mark.browser
@pytest.mark.timeout(600)
def test_in_a_class_a_browser_starts_and_sees_its_own_runs(browser: Any, tmp_path: Path) -> None:
    server = Server(tmp_path, options=("--host", "0.0.0.0"))
    server.start()
    contexts = [browser.new_context() for _ in range(2)]
    try:
        holder = Tab(contexts[0], server)
        guest = Tab(contexts[1], server, key=Keys(server.token).guest)
        own = holder.press_start(max_steps="2", run_name="of the holder")
        run = guest.press_start(max_steps="2", run_name="of a guest")
        guest.wait_state(run, "finished")
        assert guest.ids() == [run]
        playwright.expect(holder.page.locator("[data-run]")).to_have_count(2)
        assert set(holder.ids()) == {own, run}
        assert guest.faults == [] and holder.faults == []
    finally:
        for context in contexts:
            context.close()
        server.stop()


@pytest.mark.browser
@pytest.mark.timeout(600)
def test_a_page_that_is_open_over_a_restart_says_what_to_open(browser: Any, tmp_path: Path) -> None:
    server = Server(tmp_path)
    server.start()
    context = browser.new_context()
    try:
        tab = Tab(context, server)
        server.stop()
        server.env["TUNING_FORK_TOKEN"] = "the-token-of-the-next-start"
        server.start()
        playwright.expect(tab.page.locator(".tf-link")).to_contain_text("open the address it printed", timeout=30_000)
        tab.page.reload()
        playwright.expect(tab.page.locator("p")).to_contain_text("This page opens at the address")
    finally:
        context.close()
        server.stop()
