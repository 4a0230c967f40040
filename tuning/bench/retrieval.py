"""The gain of passages in the prompt, and the loss from misleading ones: nothing is trained.

The table has exact match on held-out questions for growing shares of misleading passages: closed book, every passage
trusted, and the rule by which the model keeps the answers it is sure of.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from tuning.bench.measure import finished, markdown
from tuning.plan.plan import plan_for

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
        closed = exact_match(source, {"name": "prompt_engineering"})
        lines.append([what, "closed book", *[f"{closed:.2f}"] * len(SHARES)])
        for policy in ("naive", "conflict_aware"):
            methods = [{"name": "retrieval", "policy": policy, "misleading_share": share} for share in SHARES]
            lines.append([what, policy, *(f"{exact_match(source, method):.2f}" for method in methods)])
    head = ["questions about", "policy", *(f"{share:.0%} mislead" for share in SHARES)]
    return markdown(f"Exact match of the untrained model on up to {ROWS} held-out questions", head, lines)


def exact_match(source: str, method: dict[str, Any], rows: int = ROWS) -> float:
    """The exact match of a method without updates on so many held-out questions, 0 to 1."""
    plan = plan_for(
        {
            "data": {"source": source, "eval_rows": rows},
            "method": method,
            "max_steps": 1,
            "device": "cpu",
            "eval": {"metrics": ["exact_match"], "generate_rows": rows, "max_new_tokens": 12, "max_seconds": 600},
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        events = finished(plan, Path(folder))
    value: float = next(event.data["metrics"]["exact_match"] for event in events if event.kind == "eval")
    return value
