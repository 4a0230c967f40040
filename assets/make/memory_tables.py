"""Trace the memory tables that ship with the bundled models, into assets/memory/tables.jsonl.gz.

Comes in: the bundled models and the registry of methods.  Goes out: one line a table, sorted by key: every method with
its defaults, for text in fp32 and bf16, with and without recomputing, and for each bundled number of classes. Other
settings are traced when they are first asked for.
Run it from the repository's root after the training code, a method or a bundled model has changed:
    python assets/make/memory_tables.py
"""

from __future__ import annotations

import gzip
import itertools
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from tuning.core.errors import TuningError  # noqa: E402
from tuning.core.paths import assets_folder  # noqa: E402
from tuning.data import data_catalogue  # noqa: E402
from tuning.memory.tracing.table_cache import SHIPPED, find_table, make_tables, untraceable  # noqa: E402
from tuning.memory.workload import Workload, workload_of  # noqa: E402
from tuning.methods import METHODS  # noqa: E402
from tuning.models.base_model import model_catalogue  # noqa: E402
from tuning.plan.plan import plan_for  # noqa: E402


def wanted() -> dict[str, Workload]:
    """The workloads to ship, by key; combinations that are refused are left out."""
    classed = [card["name"] for card in data_catalogue()]
    found: dict[str, Workload] = {}
    for model, method in itertools.product(model_catalogue(), METHODS):
        text = "reviews" if method.updates else "people-questions"  # without updates prompts and answers are needed
        for task, places in {"causal_lm": [text], "sequence_classification": classed}.items():
            ways = (
                itertools.product(("fp32", "autocast_bf16"), (False, True))
                if task == "causal_lm"
                else [("fp32", False)]
            )
            for (precision, recompute), source in itertools.product(ways, places):
                settings: dict[str, Any] = {
                    "model": model.spec,
                    "task": task,
                    "method": {"name": method.name},
                    "precision": precision,
                    "gradient_checkpointing": recompute,
                    "device": "cpu",
                    "data": {"source": source},
                }
                try:
                    workload = workload_of(plan_for(settings))
                except TuningError:
                    continue
                found[workload.key] = workload
    return found


def main() -> None:
    workloads = wanted()
    target = assets_folder() / SHIPPED
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["TUNING_FORK_CACHE"] = scratch  # the user's own tables stay as they are
        make_tables(list(workloads.values()))
        lines = []
        for key in sorted(workloads):
            table = find_table(workloads[key])
            if table is None:
                print(f"left out: {workloads[key].settings}: {untraceable(workloads[key])}", file=sys.stderr)
                continue
            lines.append(json.dumps({"key": key, "table": table.to_dict()}, separators=(",", ":")))
    target.parent.mkdir(exist_ok=True)
    aside = target.with_suffix(".part")
    aside.write_bytes(gzip.compress("\n".join(lines).encode(), mtime=0))
    os.replace(aside, target)
    print(f"{len(lines)} tables, {target.stat().st_size} bytes")


if __name__ == "__main__":
    main()
