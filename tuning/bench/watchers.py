"""Training speed with 0, 1 and 30 watching clients: the training thread's CPU time for the same run.

The table has the ratio to training alone. Watchers are HTTP clients in a process of their own that poll twice a second
as the page does.
"""

from __future__ import annotations

import queue
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

from tuning.bench.measure import interleaved, markdown
from tuning.bench.start import free_port, wait_until_served
from tuning.runs.executors.thread import ThreadExecutor
from tuning.runs.service import RunService
from tuning.web.serving import Keys, Serving

STEPS = 25
TOKEN = secrets.token_urlsafe(32)
WATCH = """
import sys, threading, time, urllib.request
url, count = urllib.request.Request(sys.argv[1], headers={"Authorization": "Bearer " + sys.argv[3]}), int(sys.argv[2])
def watch():
    while True:
        try: urllib.request.urlopen(url, timeout=10).read()
        except OSError: pass
        time.sleep(0.5)
for _ in range(count): threading.Thread(target=watch, daemon=True).start()
time.sleep(3600)
"""


def table(repeats: int) -> str:
    """Measure and draw the table."""
    with tempfile.TemporaryDirectory() as home:
        spent: queue.SimpleQueue[float] = queue.SimpleQueue()

        def timed(job: Any, emit: Any, commands: Any) -> str:
            from tuning.training.run import run_job

            began = time.thread_time()
            try:
                return run_job(job, emit, commands)
            finally:
                spent.put(time.thread_time() - began)

        service = RunService(Path(home), executor=ThreadExecutor(timed))
        port = free_port()
        server = _serve(service, port)
        try:
            walls: dict[int, list[float]] = {0: [], 1: [], 30: []}
            _once(service, spent, port, 0, [])
            works = {str(count): partial(_once, service, spent, port, count, wall) for count, wall in walls.items()}
            medians = interleaved(works, repeats)
        finally:
            server.should_exit = True
            service.close()
    alone = medians["0"]
    lines = [
        [name, f"{seconds:.2f}", f"{alone / seconds:.2f}", f"{sorted(walls[int(name)])[repeats // 2]:.2f}"]
        for name, seconds in medians.items()
    ]
    head = ["watching clients", "CPU s of the training thread", "speed against alone", "wall s"]
    return markdown(f"One run of {STEPS} updates, median of {repeats}", head, lines)


def _serve(service: RunService, port: int) -> Any:
    import uvicorn

    from tuning.ui.page import build_app

    app = build_app(service, "127.0.0.1", port, Serving(keys=Keys(TOKEN)))
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning"))
    threading.Thread(target=server.run, daemon=True).start()
    wait_until_served(port, TOKEN)
    return server


def _once(service: RunService, spent: queue.SimpleQueue[float], port: int, count: int, walls: list[float]) -> float:
    run = service.start({"max_steps": STEPS, "device": "cpu", "gradient_accumulation_steps": 4})
    url = f"http://127.0.0.1:{port}/fork/live?cur={run}:0"
    watchers = subprocess.Popen([sys.executable, "-c", WATCH, url, str(count), TOKEN])
    began = time.monotonic()
    try:
        service.wait(run, 300)
        walls.append(time.monotonic() - began)
        return spent.get(timeout=60)  # the run's end is told a moment before its thread has counted
    finally:
        watchers.kill()
        watchers.wait()
