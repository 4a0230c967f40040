"""What passages in the prompt bring in, and what misleading ones cost: nothing is trained here.

Comes in: nothing to choose.  Goes out: a table of exact match on held-out questions for growing shares of misleading
passages: closed book, every passage trusted, and the rule that keeps what the model is sure of.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from tuning.bench.measure import markdown
from tuning.events import Emitter, Event
from tuning.job import Commands, Job
from tuning.plan import plan_for

ROWS = 100
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
SETS = {
    "retention": "people it knows",
    "new-people": "people it never read of",
    "people-questions": "known people, half in new words",
}


def table(repeats: int) -> str:
    """Exact, so once is enough: `repeats` is not used."""
    lines = []
    for source, what in SETS.items():
        closed = _exact_match(source, {"name": "prompt_engineering"})
        lines.append([what, "closed book", *[f"{closed:.2f}"] * len(SHARES)])
        for policy in ("naive", "conflict_aware"):
            asked = [{"name": "retrieval", "policy": policy, "misleading_share": share} for share in SHARES]
            lines.append([what, policy, *(f"{_exact_match(source, method):.2f}" for method in asked)])
    head = ["questions about", "policy", *(f"{share:.0%} mislead" for share in SHARES)]
    return markdown(f"Exact match of the untrained model on up to {ROWS} held-out questions", head, lines)


def _exact_match(source: str, method: dict[str, Any]) -> float:
    from tuning.training.entry import run_job

    plan = plan_for({
        "data": {"source": source, "eval_rows": ROWS}, "method": method, "max_steps": 1, "device": "cpu",
        "eval": {"metrics": ["exact_match"], "generate_rows": ROWS, "max_new_tokens": 12, "max_seconds": 600},
    })  # fmt: skip
    events: list[Event] = []
    with tempfile.TemporaryDirectory() as folder:
        job = Job(run_id="bench", attempt=1, plan=plan, folder=str(Path(folder)))
        if run_job(job, Emitter("bench", 1, events.append), Commands()) != "finished":
            raise RuntimeError(f"{method} on {source} did not finish: {events[-1].data}")
    return next(event.data["metrics"]["exact_match"] for event in events if event.kind == "eval")
