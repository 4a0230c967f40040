"""The measured memory peak of a run, for tests of the estimate: the most bytes that its tensors took at one moment."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tuning.plan.plan import Plan
from tuning.runs.events import Emitter
from tuning.training.job import Commands, Job
from tuning.training.run import run_job

GPT2 = {"model_type": "gpt2", "n_embd": 96, "n_layer": 3, "n_head": 4, "vocab_size": 2048, "n_positions": 256}


def config_folder(folder: Path, config: dict[str, Any]) -> str:
    """A folder that holds a config.json alone."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return str(folder)


def measured_peak(plan: Plan, folder: Path) -> int:
    """Run the plan to its end in this thread. Returns the peak that the run reports, in bytes."""
    peaks: list[int] = []
    emit = Emitter("peak", 1, lambda event: peaks.append(event.data.get("peak_bytes") or 0))
    assert run_job(Job(run_id="peak", attempt=1, plan=plan, folder=str(folder)), emit, Commands()) == "finished"
    return max(peaks)
