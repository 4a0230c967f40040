"""What the benchmarks share: CPU seconds, interleaved repeats, medians, and a Markdown table.

Absolute times belong to the machine; the ratios within one table are what to read.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tuning.plan.plan import Plan
from tuning.runs.events import Emitter, Event
from tuning.training.job import Commands, Job


def interleaved(works: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, float]:
    """Run every work once a round, `repeats` rounds; the median of what each returned (seconds or bytes)."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            seconds[name].append(work())
    return {name: statistics.median(values) for name, values in seconds.items()}


def cpu(work: Callable[[], object]) -> float:
    """CPU seconds of this thread for one call."""
    began = time.thread_time()
    work()
    return time.thread_time() - began


def finished(plan: Plan, folder: Path, on_event: Callable[[Event], None] = lambda event: None) -> list[Event]:
    """Run a plan in this thread and return its events; `on_event` gets each as it comes. Raises RuntimeError where the
    run does not finish."""
    from tuning.training.run import run_job

    events: list[Event] = []

    def sink(event: Event) -> None:
        events.append(event)
        on_event(event)

    job = Job(run_id="bench", attempt=1, plan=plan, folder=str(folder))
    if run_job(job, Emitter(job.run_id, 1, sink), Commands()) != "finished":
        raise RuntimeError(f"{plan.settings.method.name} did not finish: {events[-1].data}")
    return events


def training_rows(plan: Plan) -> list[Any]:
    """The plan's rows as a run trains on them."""
    from tuning.data import encode_set, open_data
    from tuning.text import TextTokenizer

    data = open_data(plan.settings.data, plan.settings.task, plan.settings.seed)
    return list(encode_set(data.train, TextTokenizer(plan.model.path), plan.settings.data, plan.settings.task))


def markdown(title: str, head: list[str], lines: list[list[str]]) -> str:
    """A titled Markdown table."""
    rows = [head, ["---"] * len(head), *lines]
    return f"### {title}\n\n" + "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"
