"""Runs without training, for tests of the queue, the store and the routes.

`quick_job` replaces the job function of an executor; everything around it is the real code.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tuning.runs.events import Emitter
from tuning.training.job import Commands, Job

SMALL = {"max_steps": 3, "data": {"train_rows": 16, "eval_rows": 4}}
SERVER = """
import json, sys, time
sys.path.insert(0, sys.argv[2])
from support.quick_runs import SMALL, quick_job
from tuning.runs.executors.thread import ThreadExecutor
from tuning.runs.service import RunService
from tuning.web.runs import RunLines, live_answer
service = RunService(sys.argv[1], ThreadExecutor(quick_job))
running = service.start({**SMALL, "max_steps": 100000})
waiting = service.start(SMALL, name="waiting")
cursor = 0
while True:
    points = json.loads(live_answer(service, {running: cursor}, "", RunLines(service)))["points"].get(running)
    if points:
        cursor = points["id"]
        for point in points["step"]:
            print(point["step"], flush=True)
"""
"""The program of a server in its own process, whose arguments are a home folder and the folder of this package."""


def quick_job(job: Job, emit: Emitter, commands: Commands) -> str:
    """Emit the events of a run without training, and write an adapter folder as the real job does."""
    total = int(job.plan.value("total_steps"))
    emit("phase", name="loading", done=0, total=None)
    emit("started", total_steps=total)
    for step in range(1, total + 1):
        commands.wait_while_paused()
        for question in commands.take_tasks():
            question(None, None, None)
        if commands.stopping:
            emit("cancelled", step=step)
            return "cancelled"
        emit("step", step=step, loss=1.0 / step, seconds=0.1 * step, input_tokens=100 * step, peak_bytes=1000)
        time.sleep(0.002)
    folder = Path(job.folder) / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")
    emit("finished", step=total)
    return "finished"


def until(true: Callable[[], Any], seconds: float = 90.0) -> None:
    """Wait until the condition holds; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen in time"
        threading.Event().wait(0.02)
