"""What each of several devices takes: the arithmetic of `memory/several.py` against torch's own code.

The table has small models, methods and ways to share the work; each line is one update of our loop under
`DistributedDataParallel` or `fully_shard`, as one device among several makes it.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench import child_environment
from bench.memory import MIB, given
from bench.memory_models import make_models
from tuning.bench.measure import markdown
from tuning.memory.multi_device import DATA_PARALLEL, FULLY_SHARDED, device_shares
from tuning.memory.usage import usage_of
from tuning.plan.plan import plan_for

KINDS = ("llama", "gpt2", "qwen2", "gemma")
COUNTS = (2, 8)
CASES = ((4, 1, False), (4, 2, False), (1, 1, False), (4, 2, True))
"""Rows, accumulation steps, recomputing."""


def table(repeats: int) -> str:
    """Bytes do not vary, so once is enough: `repeats` is not used."""
    with tempfile.TemporaryDirectory() as scratch:
        models = make_models(Path(scratch), KINDS)
        cases = [
            given(models[kind], kind, {"name": method}, rows=rows, steps=steps, recompute=recompute)
            for kind in KINDS
            for method in ("full", "lora")
            for rows, steps, recompute in CASES
        ]
        return report(list(measured([case for case in cases if case is not None])))


def measured(cases: list[dict[str, Any]], counts: tuple[int, ...] = COUNTS) -> Iterator[dict[str, Any]]:
    """Each case both ways, shared among so many: bytes by arithmetic and as measured. Raises RuntimeError."""
    with subprocess.Popen(
        [sys.executable, "-m", "bench.devices_run"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=child_environment(),
    ) as child:
        assert child.stdin is not None and child.stdout is not None
        for case in cases:
            plan = plan_for(case)
            usage = usage_of(plan, make=True)
            for count in counts:
                for share in device_shares(usage, count):
                    child.stdin.write(json.dumps({"settings": case, "way": share.way, "count": count}) + "\n")
                    child.stdin.flush()
                    result = json.loads(child.stdout.readline())
                    if "failed" in result:
                        raise RuntimeError(result["failed"])
                    settings = plan.settings
                    yield {
                        "what": f"{plan.model.shape.model_type} {settings.method.name} {settings.micro_batch_size} x "
                        f"{settings.gradient_accumulation_steps}"
                        f"{' recompute' if settings.gradient_checkpointing else ''}",
                        "way": share.way,
                        "count": count,
                        "estimated": share.total_bytes,
                        "peak": result["peak"],
                    }


def report(lines: list[dict[str, Any]]) -> str:
    """The runs, one a line, and for each way the error."""
    head = ["run", "way", "devices", "estimated MiB", "measured MiB", "error %"]
    body = [
        [
            line["what"],
            line["way"],
            str(line["count"]),
            f"{line['estimated'] / MIB:.2f}",
            f"{line['peak'] / MIB:.2f}",
            f"{_error(line):+.2f}",
        ]
        for line in lines
    ]
    summary = []
    for way in (DATA_PARALLEL, FULLY_SHARDED):
        errors = [_error(line) for line in lines if line["way"] == way]
        sizes = [abs(error) for error in errors]
        summary.append(
            [way, str(len(errors)), f"{statistics.median(sizes):.2f}", f"{min(errors):+.2f}", f"{max(errors):+.2f}"]
        )
    return (
        markdown("Bytes of tensors on one of several devices", head, body)
        + "\n"
        + markdown("Error", ["way", "runs", "median %", "lowest %", "highest %"], summary)
    )


def _error(line: dict[str, Any]) -> float:
    return 100 * (line["estimated"] / line["peak"] - 1)
