"""The memory tables that ship with the bundled models, traced into assets/memory/tables.jsonl.gz.

The file has one line a table, sorted by key: for each bundled model every method with its defaults, for text in fp32
and bf16, with and without recomputing, and for each bundled number of classes. Other settings are traced when a person
first chooses them.

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


def workloads_to_ship() -> dict[str, Workload]:
    """The workloads to ship, by key; combinations that are refused are left out."""
    labelled = [card["name"] for card in data_catalogue()]
    workloads: dict[str, Workload] = {}
    for model, method in itertools.product(model_catalogue(), METHODS):
        text = "reviews" if method.updates else "people-questions"  # without updates prompts and answers are needed
        for task, sources in {"causal_lm": [text], "sequence_classification": labelled}.items():
            precisions = (
                itertools.product(("fp32", "autocast_bf16"), (False, True))
                if task == "causal_lm"
                else [("fp32", False)]
            )
            for (precision, recompute), source in itertools.product(precisions, sources):
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
                workloads[workload.key] = workload
    return workloads


def main() -> None:
    """Trace the tables and write the file."""
    workloads = workloads_to_ship()
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
    part = target.with_suffix(".part")
    part.write_bytes(gzip.compress("\n".join(lines).encode(), mtime=0))
    os.replace(part, target)
    print(f"{len(lines)} tables, {target.stat().st_size} bytes")


if __name__ == "__main__":
    main()
