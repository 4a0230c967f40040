"""Finished runs in a store, with points and predictions but without any training, for tests of what a page shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from support.quick_runs import SMALL
from tuning.plan.plan import plan_for
from tuning.runs.events import Emitter
from tuning.runs.service import RunService
from tuning.runs.store import RunStore

ROOT = Path(__file__).resolve().parents[2]
STORED = ROOT / "tests" / "stored"
"""Homes and settings that earlier versions wrote."""
SECONDS = 0.5
"""How long each update of such a run took."""
EVALUATION_SECONDS = 0.25
"""How long each evaluation of such a run took."""


def store_run(
    home: Path, run_id: str, *, steps: int = 6, every: int = 2, texts: tuple[str, ...] = (), **settings: Any
) -> None:
    """Store a finished run of `steps` updates, named after its id, with an evaluation after `every` updates; `texts`
    are the rows that it was evaluated on."""
    store = RunStore(home)
    plan = plan_for({"max_steps": steps} | settings)
    stored = plan.to_dict() | {"data": {"shape": plan.data.shape}}
    store.create_run(run_id, f"run {run_id}", plan.settings.to_dict(), stored, total_steps=steps)
    emit = Emitter(run_id, 1, store.append)
    emit("started", total_steps=steps)
    emit("eval", step=0, loss=3.0, seconds=EVALUATION_SECONDS, metrics={})
    for step in range(1, steps + 1):
        counts = {"examples": 16 * step, "trained_tokens": 100 * step, "input_tokens": 200 * step}
        emit("step", step=step, loss=3.0 / step, learning_rate=1e-3, grad_norm=1.0, seconds=SECONDS * step, **counts)
        if step % every == 0:
            emit("eval", step=step, loss=3.5 / step, seconds=EVALUATION_SECONDS, metrics={})
    emit("finished", state="finished", step=steps, seconds=SECONDS * steps)
    store.flush()
    store.release(run_id)
    store.close()
    folder = home / "runs" / run_id / "predictions"
    folder.mkdir(parents=True)
    rows = [
        {"row": i, "text": text, "truth": "yes", "prediction": "yes", "right": True, "loss": 0.1}
        for i, text in enumerate(texts)
    ]
    table = json.dumps({"step": steps, "loss": 0.5, "metrics": {}, "of": len(rows), "rows": rows})
    (folder / f"step-{steps:08d}.json").write_text(table, encoding="utf-8")


def add_run(service: RunService, number: int, **more: Any) -> str:
    """Store a queued run with the id of this number, without a folder. Returns the id."""
    settings = more.pop("settings", None) or plan_for(SMALL).settings.to_dict()
    run_id = f"r{number:04d}"
    service.store.create_run(run_id, more.pop("name", run_id), settings, {"device": {"kind": "cpu"}}, **more)
    return run_id


def as_it_was(text: str, home: Path) -> str:
    """A stored file with the folders that it was written in replaced by those of this test."""
    return text.replace("{CHECKOUT}", str(ROOT)).replace("{HOME}", str(home))
