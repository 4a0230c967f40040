"""What tests of the memory estimate share: a run's own measured peak.

Comes in: a plan and a folder.  Goes out: the most bytes tensors took at one moment, as the run told it.
"""

from __future__ import annotations

from pathlib import Path

from tuning.events import Emitter
from tuning.job import Commands, Job
from tuning.plan import Plan
from tuning.training.entry import run_job


def measured_peak(plan: Plan, folder: Path) -> int:
    """Run the plan to its end here and now."""
    peaks: list[int] = []
    emit = Emitter("peak", 1, lambda event: peaks.append(event.data.get("peak_bytes") or 0))
    assert run_job(Job(run_id="peak", attempt=1, plan=plan, folder=str(folder)), emit, Commands()) == "finished"
    return max(peaks)
