"""Live polls while many long questions wait on a run that trains, and how soon a stop ends it then.

The table has p50 and p95 of GET /fork/live without and with the questions, the updates the run makes meanwhile, and the
seconds from Stop to the end of the run. The server is a process of its own; each question comes from another address of
this machine.
"""

from __future__ import annotations

import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

from tuning.bench.measure import markdown
from tuning.bench.start import free_port

QUESTIONS, PROMPTS, TOKENS = 45, 64, 512
POLLS, PAUSE_SECONDS = 400, 0.1
SERVE = """
import sys, uvicorn
from fastapi import FastAPI
from tuning.runs.service import RunService
from tuning.web import add_routes
service, app = RunService(sys.argv[1]), FastAPI()
add_routes(app, service)
uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="error")
"""
RUN = {"max_steps": 1_000_000, "eval": {"every": 100_000}, "gradient_accumulation_steps": 2, "device": "cpu"}


def table(repeats: int) -> str:
    """Measure and draw the table; of several repeats the medians."""
    measured = [_measure() for _ in range(repeats)]
    lines = []
    for i, name in enumerate(("none", f"{QUESTIONS} of {PROMPTS} x {TOKENS} tokens")):
        cells = zip(*(repeat[i] for repeat in measured), strict=True)
        lines.append(
            [name, *(f"{statistics.median(column):,.{2 if j == 2 else 0}f}" for j, column in enumerate(cells))]
        )
    head = ["questions waiting", "p50 ms", "p95 ms", "updates a second", "ms from Stop to cancelled"]
    return markdown(f"{POLLS} live polls on a run that trains, median of {repeats}", head, lines)


def _measure() -> list[list[float]]:
    """[p50, p95 in ms, updates a second, ms from Stop to the end] without questions, and with them."""
    measured = []
    with tempfile.TemporaryDirectory() as home:
        port = free_port()
        server = subprocess.Popen(
            [sys.executable, "-c", SERVE, home, str(port)],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"},
        )
        try:
            _until(lambda: _get(port, "/fork/live") is not None)
            for count in (0, QUESTIONS):
                run_id = _post(port, "/fork/runs", {"settings": RUN})["run_id"]
                _until(lambda run_id=run_id: _run(port, run_id)["step"] > 5)
                connections = [_ask(port, run_id, f"127.0.0.{2 + i}") for i in range(count)]
                time.sleep(1)
                first, began, took = _run(port, run_id)["step"], time.monotonic(), []
                for _ in range(POLLS):
                    at = time.perf_counter()
                    _get(port, f"/fork/live?cur={run_id}:0")
                    took.append(1000 * (time.perf_counter() - at))
                    time.sleep(PAUSE_SECONDS)
                speed = (_run(port, run_id)["step"] - first) / (time.monotonic() - began)
                pressed = time.time()
                _post(port, f"/fork/runs/{run_id}/stop", {})
                _until(lambda run_id=run_id: _run(port, run_id)["state"] == "cancelled")
                stopped = 1000 * (_run(port, run_id)["ended"] - pressed)  # as the event says, of the same clock
                for connection in connections:
                    connection.close()
                spread = statistics.quantiles(took, n=20)
                measured.append([statistics.median(took), spread[-1], speed, stopped])
        finally:
            server.terminate()
            server.wait()
    return measured


def _until(true: Any, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError("the server did not come so far in time")
        time.sleep(0.02)


def _get(port: int, path: str) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", path)
        return json.loads(connection.getresponse().read())
    except ConnectionError:  # not up yet
        return None
    finally:
        connection.close()


def _post(port: int, path: str, body: dict[str, Any]) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


def _run(port: int, run_id: str) -> dict[str, Any]:
    return next(run for run in _get(port, "/fork/live")["runs"] if run["run_id"] == run_id)


def _ask(port: int, run_id: str, source: str) -> http.client.HTTPConnection:
    """A question on its way, whose answer nobody reads yet."""
    body = {"prompts": ["The film was"] * PROMPTS, "max_new_tokens": TOKENS}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600, source_address=(source, 0))
    connection.request("POST", f"/fork/runs/{run_id}/ask", json.dumps(body), {"content-type": "application/json"})
    return connection
