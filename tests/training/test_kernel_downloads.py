"""Nothing leaves the machine: every socket of the server and every request of the page, over a whole run.

A hook in the server's Python, and in each Python it starts, writes down what its sockets are asked for. Nothing is
blocked, so what a library would fetch is seen. Beside it lies a `kernels` package that tells when it is imported.
"""

from __future__ import annotations

import ipaddress
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.browser import ROOT, SLOW, Tab, open_browser, open_server, playwright

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]
RECORD = "SOCKET_RECORD"
HOOK = """
import os, sys
def write(event, host):
    with open(os.environ["SOCKET_RECORD"], "a") as lines:
        lines.write(f"{event} {host}\\n")
def hook(event, arguments):
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg", "socket.bind"):
        family, address = arguments[0].family.name, arguments[1]
        if family != "AF_UNIX" and address is not None:
            write(event, address[0] if isinstance(address, tuple) else address)
    elif event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
        write(event, arguments[0])
sys.addaudithook(hook)
"""
KERNELS = 'import os\nwith open(os.environ["SOCKET_RECORD"], "a") as lines:\n    lines.write("import kernels\\n")\n'
PASSING_ONLY = {"HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE", "GRADIO_ANALYTICS_ENABLED"}
"""Switches that this test run may have on: the app must keep to itself without them."""


@pytest.fixture
def watched(tmp_path: Path) -> dict[str, str]:
    """An environment in which Python writes down what its sockets do, and `kernels` is there to be imported."""
    folder = tmp_path / "hook"
    (folder / "kernels-0.20.0.dist-info").mkdir(parents=True)
    (folder / "kernels-0.20.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: kernels\nVersion: 0.20.0\n"
    )
    (folder / "sitecustomize.py").write_text(HOOK)
    (folder / "kernels.py").write_text(KERNELS)
    environment = {key: value for key, value in os.environ.items() if key not in PASSING_ONLY}
    return environment | {"PYTHONPATH": str(folder), RECORD: str(tmp_path / "record")}


def record(watched: dict[str, str]) -> list[str]:
    path = Path(watched[RECORD])
    return path.read_text().splitlines() if path.exists() else []


def leaves(line: str) -> bool:
    """Whether a line of the record is about another machine, or about the package that must not come in."""
    event, _, host = line.partition(" ")
    if event in ("import", "socket.bind"):
        return event == "import"
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host not in ("localhost", "None", "")


def python(watched: dict[str, str], code: str) -> None:
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=watched, check=True, timeout=120)


def test_the_hook_sees_a_connection_that_leaves(watched: dict[str, str]) -> None:
    connect = "s = socket.socket(); s.settimeout(0.05); s.connect_ex(('192.0.2.1', 9))"
    python(watched, f"import socket; {connect}; socket.socket(type=socket.SOCK_DGRAM).bind(('127.0.0.1', 0))")
    assert [line for line in record(watched) if leaves(line)] == ["socket.connect 192.0.2.1"]
    Path(watched[RECORD]).unlink()
    ask = "try: socket.getaddrinfo('name.invalid', 80)\nexcept OSError: pass"
    child = f"import socket\n{ask}"
    python(watched, f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}], check=True)")
    assert [line for line in record(watched) if leaves(line)] == ["socket.getaddrinfo name.invalid"]


def test_no_kernels_package_is_imported(watched: dict[str, str]) -> None:
    python(watched, "import kernels")
    assert record(watched) == ["import kernels"], "the package of this test cannot be seen"
    Path(watched[RECORD]).unlink()
    blocked = "from tuning.training.kernel_downloads import block_kernel_downloads as keep; keep(); keep()\n"
    python(watched, blocked + "try: import kernels\nexcept ImportError: pass\nelse: raise SystemExit('it came in')")
    python(watched, blocked + "from importlib.util import find_spec; assert find_spec('kernels') is None")
    assert record(watched) == []


def test_a_whole_run_from_the_page_reaches_no_other_machine(watched: dict[str, str], tmp_path: Path) -> None:
    addresses: list[str] = []
    with open_server(tmp_path / "home", watched) as server, open_browser() as browser:
        context = browser.new_context()
        context.on("request", lambda request: addresses.append(request.url))
        tab = Tab(context, server)
        tab.field("gradient_accumulation_steps").fill("2")
        playwright.expect(tab.page.locator(".tf-tile").first).to_contain_text("4 × 2 = 8", timeout=20_000)
        run = tab.press_start(max_steps="4")
        tab.wait_state(run, "finished")
        tab.wait_points(run, 4)
        assert tab.page.locator(".modebar-btn").count() > 3, "the chart has no buttons"
        assert tab.page.get_by_role("button", name="Share").count() == 0, "a chart can be sent to another machine"
        panel = tab.page.get_by_role("region", name="Ask the model")
        panel.get_by_label("prompt").fill("The film was dull.")
        panel.get_by_role("button", name="Ask", exact=True).click()
        tab.page.wait_for_selector(".tf-answer-row:not([aria-busy])", timeout=SLOW)
        assert tab.faults == []
        home = server.address
    assert any(line == "socket.bind 127.0.0.1" for line in record(watched)), "the hook was not in the server"
    assert [line for line in record(watched) if leaves(line)] == []
    assert any(address.startswith(home + "fork/live") for address in addresses), "the page's requests were not seen"
    assert [address for address in addresses if not address.startswith((home, "data:", "blob:" + home))] == []
