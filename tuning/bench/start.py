"""From the command to the page: CPU seconds until the first byte is served, against `import gradio` alone.

Each measurement is a fresh process; CPU time is that of the process.
"""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

import psutil

from tuning.bench.measure import interleaved, markdown
from tuning.web.serving import TOKEN


def table(repeats: int) -> str:
    """Measure and draw the table."""
    medians = interleaved({"import gradio": _bare_import, "page served": _served}, repeats)
    bare = medians["import gradio"]
    lines = [[name, f"{seconds:.2f}", f"{seconds / bare:.2f}x"] for name, seconds in medians.items()]
    return markdown(f"CPU seconds from the command to the page, median of {repeats}", ["", "s", "ratio"], lines)


def _bare_import() -> float:
    code = "import gradio, time; print(time.process_time())"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    return float(out.split()[-1])


def free_port() -> int:
    """A port nobody listens on just now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _served() -> float:
    port = free_port()
    with tempfile.TemporaryDirectory() as home:
        server, token = serve(port, home)
        try:
            wait_until_served(port, token)
            times = psutil.Process(server.pid).cpu_times()
            return float(times.user + times.system)
        finally:
            server.terminate()
            server.wait()


def serve(port: int, home: str) -> tuple[subprocess.Popen[bytes], str]:
    """The page in a process of its own, with its token."""
    token = secrets.token_urlsafe(32)
    command = [sys.executable, "-m", "tuning", "serve", "--port", str(port), "--home", home, "--no-browser"]
    env = os.environ | {TOKEN: token}
    return subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL), token


def wait_until_served(port: int, token: str, limit: float = 120.0) -> None:
    """Return when the page's first byte comes; raises TimeoutError after `limit` seconds."""
    end, headers = time.monotonic() + limit, {"Authorization": f"Bearer {token}"}
    page_address = urllib.request.Request(f"http://127.0.0.1:{port}/", headers=headers)
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(page_address, timeout=5) as page:
                page.read(1)
                return
        except OSError:
            time.sleep(0.02)
    raise TimeoutError(f"no page on port {port} within {limit:g} seconds")
