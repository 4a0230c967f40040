"""The cost of stored runs: list, a change of it, idle poll, estimate, free name, and the start of the server.

The table has CPU milliseconds and bytes for 10 and for 10,000 runs. Each has 20 points; half of them are deleted.
"""

import sqlite3
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tuning.bench.measure import cpu, interleaved, markdown
from tuning.bench.poll import client_of
from tuning.runs.events import Emitter
from tuning.runs.run_row import COLUMNS
from tuning.runs.service import RunService
from tuning.runs.store import STORE

SIZES = (10, 10_000)
POINTS = 20
HEAD = ["what", *(f"{size:,} runs: CPU ms" for size in SIZES), *(f"{size:,} runs: bytes" for size in SIZES)]


def table(repeats: int) -> str:
    """Measure and draw the table."""
    measured = {size: _measure(size, repeats) for size in SIZES}
    lines = []
    for name in measured[SIZES[0]]:
        seconds = [f"{1000 * measured[size][name][0]:.1f}" for size in SIZES]
        sent = [f"{measured[size][name][1]:,}" if measured[size][name][1] else "" for size in SIZES]
        lines.append([name, *seconds, *sent])
    return markdown(f"The cost of stored runs, half of them deleted, median of {repeats}", HEAD, lines)


def fill(home: Path, size: int, settings: dict[str, Any]) -> None:
    """A store with so many finished runs of these settings, each as one that was started; every other is deleted."""
    service = RunService(home)
    try:
        preview = service.preview(settings)
        plan, store = preview.plan, service.store
        more: dict[str, Any] = {"estimate": preview.estimate.to_dict(), "total_steps": POINTS}
        store.create_run("r0001", "run (1)", plan.settings.to_dict(), plan.to_dict(), **more)
        emit = Emitter("r0001", 1, store.append)
        emit("started", total_steps=POINTS)
        for step in range(1, POINTS + 1):
            emit("step", step=step, loss=2.0 / step, seconds=step / 9, input_tokens=step * 9, peak_bytes=10**7)
        emit("finished", step=POINTS)
        store.flush()
    finally:
        service.close()
    own = ("number", "run_id", "name", "deleted")
    copied = ", ".join([*(column for column in COLUMNS if column not in own), "timed_as", "rate"])
    numbers = f"WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < {size})"
    db = sqlite3.connect(home / STORE)
    with db:
        db.execute(
            f"{numbers} INSERT INTO runs (run_id, name, deleted, {copied}) SELECT printf('r%04d', i),"
            f" printf('run (%d)', i), CASE WHEN i % 2 THEN NULL ELSE 1.0 END, {copied} FROM n, runs"
        )
        db.execute(
            f"{numbers} INSERT INTO events (run_id, attempt, seq, time, kind, step, value, data)"
            " SELECT printf('r%04d', i), attempt, seq, time, kind, step, value, data FROM n, events"
        )
        db.execute("UPDATE runs SET changed = (SELECT value FROM meta WHERE key = 'version')")
    db.close()


def _measure(size: int, repeats: int) -> dict[str, tuple[float, int]]:
    """Seconds and bytes by name."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        fill(home, size, {"max_steps": POINTS})
        start = {"start of the store": (interleaved({"open": lambda: _start(home)}, repeats)["open"], 0)}
        service = RunService(home)
        try:
            return start | _requests(service, repeats)
        finally:
            service.close()


def _start(home: Path) -> float:
    """CPU seconds of all that a start does with the store."""

    def start() -> None:
        service = RunService(home)
        service.recover()
        service.close()

    return cpu(start)


def _requests(service: RunService, repeats: int) -> dict[str, tuple[float, int]]:
    client, sent = client_of(service), dict[str, int]()

    def timed(
        name: str, request: Callable[[], Any], before: Callable[[], object] = lambda: None
    ) -> Callable[[], float]:
        def once() -> float:
            before()
            began = time.process_time()
            answer = request()
            spent = time.process_time() - began
            sent[name] = int(answer.headers["content-length"])  # as it went over the wire
            return spent

        return once

    def live() -> Any:
        return client.get(f"/fork/live?cur=r0001:{cursor}&v={version}", headers={"accept-encoding": "identity"})

    first = client.get("/fork/live?cur=r0001:0").json()
    cursor, version = first["points"]["r0001"]["id"], first["version"]
    last = f"r{service.store.last_number() - 1:04d}"
    works = {
        "estimate, a key press": timed("estimate, a key press", lambda: client.post("/fork/estimate", json={})),
        "idle poll": timed("idle poll", live),
        "list": timed("list", lambda: client.get("/fork/live", headers={"accept-encoding": "identity"})),
        "list, packed": timed("list, packed", lambda: client.get("/fork/live")),
    }
    measured = {name: (interleaved({name: work}, repeats)[name], sent[name]) for name, work in works.items()}

    def changed() -> None:
        service.note(last, str(time.monotonic_ns()))

    name = "poll after a change"
    measured[name] = (interleaved({name: timed(name, live, changed)}, 1)[name], sent[name])
    free = interleaved({"name": lambda: cpu(lambda: service.free_name("run"))}, repeats)["name"]
    return measured | {"free name": (free, 0)}
