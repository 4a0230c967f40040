"""Estimated against measured memory: real runs of small models of nine kinds, some chosen, some drawn at random.

Repeats are the number of random draws (times ten). The table has each run's error at the allocator and at the process,
medians and worst cases, and what two common rules say about the same runs: accelerate's estimate, and 16 bytes a
parameter. Every run happens in a process of its own, forked from one that has imported the libraries.
"""

from __future__ import annotations

import contextlib
import json
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench import child_environment
from bench.memory_models import make_models
from tuning.bench.measure import markdown
from tuning.core.errors import TuningError
from tuning.core.paths import asset_path
from tuning.memory.estimate import MemoryEstimate, estimate
from tuning.memory.tracing.table_cache import find_table, make_tables
from tuning.memory.usage import usage_of
from tuning.methods import METHODS, method_named
from tuning.methods.network import linears
from tuning.plan.plan import Plan, plan_for

MIB = 2**20
LIVE = ("live", "live_update", "live_evaluation")
"""What the allocator tracer told: of the whole run, of its updates, of its evaluations."""
SEED = 86028121
"""Of the random draws; none of them was looked at while the estimate was made."""


def table(repeats: int) -> str:
    """Run everything and draw the tables."""
    with tempfile.TemporaryDirectory() as scratch:
        models = make_models(Path(scratch))
        lines = list(measured(chosen(models) + drawn(models, 10 * max(2, repeats // 2)), Path(scratch)))
    return report(lines)


def chosen(models: dict[str, str]) -> list[dict[str, Any]]:
    """Full and LoRA on every model over precision, attention, checkpointing and rows; every other method on two."""
    candidates = []
    for i, name in enumerate(models):
        for method in ("full", "lora"):
            for turn, (rows, recompute) in enumerate([(1, False), (4, False), (4, True)]):
                candidates.append(
                    given(
                        models[name],
                        name,
                        {"name": method},
                        rows=rows,
                        recompute=recompute,
                        precision=("fp32", "autocast_bf16")[(i + turn) % 2],
                        attention=("sdpa", "eager")[(i // 2 + turn) % 2],
                    )
                )
    for other in METHODS:
        if other.updates and other.name not in ("full", "lora"):
            candidates += [given(models[name], name, {"name": other.name}, rows=4) for name in ("llama", "gpt2")]
    return [settings for settings in candidates if settings is not None]


def drawn(models: dict[str, str], count: int) -> list[dict[str, Any]]:
    """Combinations drawn by the seed."""
    draw = random.Random(SEED)
    methods = [method.name for method in METHODS if method.updates]
    runs: list[dict[str, Any]] = []
    while len(runs) < count:
        name = draw.choice(list(models))
        settings = given(
            models[name],
            name,
            {"name": draw.choice(methods)},
            rows=draw.choice((1, 4)),
            recompute=draw.random() < 0.5,
            precision=draw.choice(("fp32", "autocast_bf16")),
            attention=draw.choice(("sdpa", "eager")),
            steps=draw.choice((1, 2)),
            length=draw.choice((64, 100, 128)),
            optimizer=draw.choice(("adamw", "sgd")),
        )
        if settings is not None:
            runs.append(settings)
    return runs


def given(
    folder: str,
    name: str,
    method: dict[str, Any],
    *,
    rows: int,
    recompute: bool = False,
    precision: str = "fp32",
    attention: str = "sdpa",
    steps: int = 2,
    length: int = 128,
    optimizer: str = "adamw",
) -> dict[str, Any] | None:
    """The settings of one run, or None for a combination that is refused."""
    classes = name == "bert"
    settings = {
        "model": folder,
        "task": "sequence_classification" if classes else "causal_lm",
        "method": method,
        "micro_batch_size": rows,
        "gradient_accumulation_steps": steps,
        "precision": precision,
        "attention": attention,
        "gradient_checkpointing": recompute,
        "max_steps": 3,
        "device": "cpu",
        "optimizer": {"name": optimizer, "learning_rate": 1e-4},
        "eval": {"every": None},
        "data": {
            "source": str(Path(folder).parent / ("labels.jsonl" if classes else "rows.jsonl")),
            "max_seq_length": length,
            "long_text": "cut",
            "eval_fraction": 0.05,
        },
    }
    try:
        plan_for(settings)
    except TuningError:
        return None
    return settings


def measured(cases: list[dict[str, Any]], scratch: Path) -> Iterator[dict[str, Any]]:
    """Each case with its estimate, and what the run in a process of its own took.

    Where there is an allocator tracer, each runs a second time under it: its own table takes up to 50 MiB, which must
    not count among the process's.
    """
    tracer = _allocator_tracer(scratch)
    plans = [plan_for(case) for case in cases]
    all_workloads = [workload for plan in plans for workload in usage_of(plan).workloads]
    workloads = {workload.key: workload for workload in all_workloads if find_table(workload) is None}
    make_tables(list(workloads.values()))
    with contextlib.ExitStack() as stack:
        plain = stack.enter_context(_runner({}))
        traced = None if tracer is None else stack.enter_context(_runner({"LD_PRELOAD": str(tracer)}))
        for case, plan in zip(cases, plans):
            children = [child for child in (plain, traced) if child is not None]
            for child in children:
                assert child.stdin is not None
                child.stdin.write(json.dumps(case) + "\n")
                child.stdin.flush()
            runs = [json.loads(child.stdout.readline()) for child in children if child.stdout is not None]
            yield _line(plan, estimate(usage_of(plan)), runs[0] | {name: runs[-1].get(name) for name in LIVE})


def _runner(more: dict[str, str]) -> subprocess.Popen[str]:
    """A child that runs what it is given, with more in its environment."""
    return subprocess.Popen(
        [sys.executable, "-m", "bench.memory_run"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=child_environment(**more),
    )


def _allocator_tracer(scratch: Path) -> Path | None:
    """An LD_PRELOAD library that sees every allocation, kernels' own included; None without a compiler."""
    source, target = asset_path("make", "livebytes.c"), scratch / "livebytes.so"
    try:
        subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", str(target), str(source), "-ldl"], check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return target


def _line(plan: Plan, figures: MemoryEstimate, run: dict[str, Any]) -> dict[str, Any]:
    settings, parameters = plan.settings, figures.total_parameters
    return {
        "what": f"{plan.model.shape.model_type} {settings.method.name} {settings.micro_batch_size} x "
        f"{settings.gradient_accumulation_steps} x {int(plan.value('widest_length'))} {settings.precision} "
        f"{settings.attention}{' recompute' if settings.gradient_checkpointing else ''} {settings.optimizer.name}",
        "kind": figures.kind,
        "peak_at": figures.peak_at,
        "estimated": figures.total_bytes,
        "peak": run.get("peak", 0),
        "evaluation": figures.evaluation_bytes,
        **{name: None if run.get(name) is None else run[name] + _mapped(plan) for name in LIVE},
        "process": figures.process_bytes,
        "low": figures.low_bytes,
        "high": figures.high_bytes,
        "resident": run.get("resident", 0),
        "failed": run["failed"],
        "accelerate": 4 * 4 * plan.model.shape.body_parameters,
        "sixteen": 16 * parameters,
    }


def _mapped(plan: Plan) -> int:
    """Weights that are read from their file as they are lie in a mapping, which an allocator never sees: all, or what
    is not packed in 4 bits."""
    shape = plan.model.shape
    if not method_named(plan.settings.method.name).load_options(plan.settings.method, "cpu"):
        return plan.model.weight_bytes
    packed = sum(linear.into * linear.out for linear in linears(shape)) * shape.num_layers
    return 4 * (shape.parameters - packed)


def report(lines: list[dict[str, Any]]) -> str:
    """The runs, one a line, and the summary."""
    failed = [line for line in lines if line["failed"]]
    lines = [line for line in lines if not line["failed"]]
    head = [
        "run",
        "kind",
        "peak at",
        "estimated MiB",
        "measured MiB",
        "error %",
        "allocator MiB",
        "process MiB",
        "error %",
    ]
    body = [
        [
            line["what"],
            line["kind"],
            line["peak_at"],
            f"{line['estimated'] / MIB:.2f}",
            f"{line['peak'] / MIB:.2f}",
            f"{_error(line, 'estimated', 'peak'):+.3f}",
            "" if line["live"] is None else f"{line['live'] / MIB:.2f}",
            f"{line['resident'] / MIB:.0f}",
            f"{_error(line, 'process', 'resident'):+.1f}",
        ]
        for line in lines
    ]
    text = markdown(f"Memory of {len(lines)} runs, {len(failed)} failed", head, body)
    rules = [
        ("ours, tensors at the peak", "estimated", "peak"),
        ("ours, against the allocator tracer", "estimated", "live"),
        ("ours, process", "process", "resident"),
        ("accelerate: 4 x the fp32 body, no head", "accelerate", "peak"),
        ("16 bytes a parameter", "sixteen", "peak"),
    ]
    summary = [_summary(lines, *rule) for rule in rules]
    low = sum(line["resident"] > line["high"] for line in lines)
    inside = sum(line["low"] <= line["resident"] <= line["high"] for line in lines)
    sentence = f"The process stayed below the band's upper edge in all but {low} runs, inside the band in {inside}.\n"
    return (
        text
        + "\n"
        + markdown("Error", ["estimate", "runs", "median %", "worst %", "worst MiB"], summary)
        + "\n"
        + sentence
    )


def _error(line: dict[str, Any], ours: str, truth: str) -> float:
    return 100 * (line[ours] / line[truth] - 1)


def _summary(lines: list[dict[str, Any]], name: str, ours: str, truth: str) -> list[str]:
    pairs = [line for line in lines if line[truth]]
    if not pairs:
        return [name, "0", "", "", ""]
    errors = [abs(_error(line, ours, truth)) for line in pairs]
    gaps = [abs(line[ours] - line[truth]) / MIB for line in pairs]
    return [name, str(len(pairs)), f"{statistics.median(errors):.3f}", f"{max(errors):.2f}", f"{max(gaps):.2f}"]
