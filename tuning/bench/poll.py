"""One poll of the live curve: bytes and milliseconds with 1 and with 100,000 stored points.

The first poll asks for everything (capped by the server); a later one asks for what came after its cursor.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from tuning.bench.measure import interleaved, markdown
from tuning.plan.plan import plan_for
from tuning.runs.events import Emitter
from tuning.runs.service import RunService
from tuning.web import add_routes


def table(repeats: int) -> str:
    """Measure and draw the table."""
    lines = []
    for points in (1, 100_000):
        with tempfile.TemporaryDirectory() as home:
            service = RunService(Path(home))
            try:
                lines += _measure(service, points, repeats)
            finally:
                service.close()
    title = f"One poll of /fork/live, median of {repeats}"
    return markdown(title, ["stored points", "poll", "bytes", "CPU ms of the server's thread"], lines)


def _measure(service: RunService, points: int, repeats: int) -> list[list[str]]:
    plan = plan_for({"max_steps": points})
    service.store.create_run("bench", "bench", plan.settings.to_dict(), {"device": {"kind": "cpu"}}, total_steps=points)
    emit = Emitter("bench", 1, service.store.append)
    emit("started", total_steps=points)
    for step in range(1, points + 1):
        emit(
            "step",
            step=step,
            epoch=step / 10,
            loss=2.0 / step,
            learning_rate=1e-3,
            grad_norm=1.0,
            peak_bytes=None,
            trained_tokens=step,
            input_tokens=step * 9,
            examples=step * 8,
            seconds=step / 9,
        )
    service.store.flush()
    client = client_of(service)
    first = client.get("/fork/live?cur=bench:0").json()
    cursor = first["points"]["bench"]["id"]
    lines = []
    for name, url in (
        ("first", "/fork/live?cur=bench:0"),
        ("later", f"/fork/live?cur=bench:{cursor}&v={first['version']}"),
    ):
        sizes: list[int] = []

        def once(url: str = url, sizes: list[int] = sizes) -> float:
            began = time.process_time()
            sizes.append(len(client.get(url).content))
            return time.process_time() - began

        seconds = interleaved({"poll": once}, repeats)["poll"]
        lines.append([f"{points:,}", name, f"{sizes[-1]:,}", f"{seconds * 1000:.1f}"])
    return lines


def client_of(service: RunService) -> Any:
    from fastapi import FastAPI
    from fastapi.testclient import TestClient

    app = FastAPI()
    add_routes(app, service)
    return TestClient(app, base_url="http://127.0.0.1")
