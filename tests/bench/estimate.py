"""What an estimate costs: making a model's table from its config alone, and one estimate by a table that is there.

The tables have CPU seconds by model and method, with none of the caches used, and CPU milliseconds of an estimate, with
the list of fixes and without. Tables are made in a child process, `python -m bench.estimate`, one workload a line,
importing apart.
"""

from __future__ import annotations

import gc
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from bench import child_environment
from tuning.bench.measure import cpu, markdown
from tuning.core.hardware import DEVICES, named_device
from tuning.memory.estimate import MemoryEstimate, estimate
from tuning.memory.fixes import fixes
from tuning.memory.usage import usage_of, with_settings_unchecked
from tuning.memory.workload import Workload, workload_of
from tuning.models.architectures import supports_sdpa
from tuning.plan.plan import Plan, plan_for

MOST_SECONDS, MOST_MILLISECONDS = 5.0, 1.0
SEED = 7919
ROWS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
LENGTHS = (16, 32, 64, 256)
FITS, DOES_NOT, LIST = "it fits", "it does not: with the list of fixes", "the list alone"
DRAWN_FROM = ("Llama 3.1 8B", "Gemma 3 1B")
CARD = "A100 80 GB"


def _model(
    kind: str, hidden: int, inner: int, layers: int, heads: int, groups: int, words: int, positions: int, **more: Any
) -> dict[str, Any]:
    return {
        "model_type": kind,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "vocab_size": words,
        "max_position_embeddings": positions,
        **more,
    }


MODELS: dict[str, dict[str, Any]] = {
    "Llama 3.1 8B": _model("llama", 4096, 14336, 32, 32, 8, 128256, 131072),
    "Llama 3.1 70B": _model("llama", 8192, 28672, 80, 64, 8, 128256, 131072),
    "Qwen2.5 32B": _model("qwen2", 5120, 27648, 64, 40, 8, 152064, 32768),
    "Qwen3 8B": _model("qwen3", 4096, 12288, 36, 32, 8, 151936, 40960, head_dim=128),
    "Gemma 2 27B": _model(
        "gemma2", 4608, 36864, 46, 32, 16, 256000, 8192, head_dim=128, sliding_window=4096, query_pre_attn_scalar=144
    ),
    "Gemma 3 1B": _model(
        "gemma3_text", 1152, 6912, 26, 4, 1, 262144, 32768, head_dim=256, sliding_window=512, query_pre_attn_scalar=256
    ),
    "Gemma 3 27B": _model(
        "gemma3_text",
        5376,
        21504,
        62,
        32,
        16,
        262208,
        131072,
        head_dim=128,
        sliding_window=1024,
        query_pre_attn_scalar=168,
    ),
    "Mistral 7B": _model("mistral", 4096, 14336, 32, 32, 8, 32000, 32768, sliding_window=4096),
    "Phi-3 medium": _model("phi3", 5120, 17920, 40, 40, 10, 32064, 4096, sliding_window=2047, pad_token_id=32000),
    "OLMo 2 32B": _model("olmo2", 5120, 27648, 64, 40, 8, 100352, 4096, pad_token_id=1),
    "GPT-2 XL": {
        "model_type": "gpt2",
        "n_embd": 1600,
        "n_layer": 48,
        "n_head": 25,
        "vocab_size": 50257,
        "n_positions": 1024,
    },
}
"""Sizes as the models' makers published them."""
WAYS: dict[str, dict[str, Any]] = {
    "full": {"method": {"name": "full"}},
    "LoRA": {"method": {"name": "lora"}},
    "QLoRA": {"method": {"name": "qlora"}},
    "QLoRA, checkpointing, bf16": {
        "method": {"name": "qlora"},
        "gradient_checkpointing": True,
        "precision": "autocast_bf16",
    },
}


def table(repeats: int) -> str:
    """Make every table, draw the estimates."""
    with tempfile.TemporaryDirectory() as scratch, own_cache(Path(scratch) / "cache"):
        folders = {name: written(Path(scratch) / name, config) for name, config in MODELS.items()}
        seconds = {name: made([workload_of(plan) for plan in plans(folder, WAYS)]) for name, folder in folders.items()}
        some = [plan for name in DRAWN_FROM for plan in plans(folders[name], WAYS, LENGTHS)]
        return report(seconds) + "\n" + estimate_times(some, 1000 * repeats)


@contextmanager
def own_cache(folder: Path) -> Iterator[None]:
    """While this is on, the tables that the program keeps are here, and none of the user's is found."""
    before = os.environ.get("TUNING_FORK_CACHE")
    os.environ["TUNING_FORK_CACHE"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["TUNING_FORK_CACHE"]
        else:
            os.environ["TUNING_FORK_CACHE"] = before


def written(folder: Path, config: dict[str, Any]) -> Path:
    """A folder with this config.json and nothing else."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def plans(folder: Path, ways: dict[str, dict[str, Any]], lengths: tuple[int, ...] = (64,)) -> list[Plan]:
    """A plan for each way and length, of a model that is nothing but its config."""
    kind = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"]
    attention = "sdpa" if supports_sdpa(kind) else "eager"
    return [
        plan_for(
            {"model": str(folder), "device": "cpu", "attention": attention, "data": {"max_seq_length": length}} | way
        )
        for way in ways.values()
        for length in lengths
    ]


def made(workloads: list[Workload]) -> list[float]:
    """CPU seconds of each table, made one after another in a child process. Raises RuntimeError where one is not."""
    lines = "".join(json.dumps(workload.to_dict()) + "\n" for workload in workloads)
    child = subprocess.run(
        [sys.executable, "-m", "bench.estimate"],
        input=lines,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=child_environment(HF_HUB_OFFLINE="1"),
        check=True,
    )
    answers = [json.loads(line) for line in child.stdout.splitlines()]
    for workload, answer in zip(workloads, answers, strict=True):
        if answer["error"]:
            kind, method = workload.config["model_type"], workload.settings["method"]["name"]
            raise RuntimeError(f"{kind} {method}: {answer['error']}")
    return [answer["seconds"] for answer in answers]


def report(seconds: dict[str, list[float]]) -> str:
    """CPU seconds by model and way, the worst last."""
    lines = [[name, *(f"{value:.2f}" for value in times)] for name, times in seconds.items()]
    worst = [max(times[i] for times in seconds.values()) for i in range(len(WAYS))]
    lines.append([f"worst (at most {MOST_SECONDS:g})", *(f"{value:.2f}" for value in worst)])
    return markdown("CPU seconds to make a table from a config", ["model", *WAYS], lines)


def _estimated(plan: Plan) -> MemoryEstimate:
    """The estimate of a plan, with all that it takes to find its memory usage."""
    return estimate(usage_of(plan))


def estimate_times(some: list[Plan], count: int) -> str:
    """CPU milliseconds of estimates for rows, lengths, methods and devices drawn at random."""
    for plan in [given.with_device(device) for given in some for device in (given.device, named_device(CARD))]:
        if usage_of(plan, make=True).kind != "traced":
            raise RuntimeError(f"{plan.model.shape.model_type} {plan.settings.method.name} has no table")
    draw = random.Random(SEED)
    took: dict[str, list[float]] = {FITS: [], DOES_NOT: [], LIST: []}
    for _ in range(count):
        device = draw.choice(DEVICES)
        plan = with_settings_unchecked(draw.choice(some), {"micro_batch_size": draw.choice(ROWS)}).with_device(device)
        fits = estimate(usage_of(plan)).fits
        took[FITS if fits else DOES_NOT].append(cpu(partial(_estimated, plan)))
        took[LIST].append(cpu(partial(fixes, usage_of(plan))))
    lines = [
        [
            what,
            f"{len(each):,}",
            f"{1000 * statistics.median(each):.2f}",
            f"{1000 * statistics.quantiles(each, n=100)[98]:.2f}",
        ]
        for what, each in took.items()
        if len(each) > 1
    ]
    title = f"CPU milliseconds of one estimate (p99 at most {MOST_MILLISECONDS:g})"
    return markdown(title, ["estimate", "drawn", "median", "p99"], lines)


def main() -> None:
    """The child: CPU seconds to make each table, all that is imported being there."""
    from tuning.memory.tracing.build_table import build_table
    from tuning.training.kernel_downloads import block_kernel_downloads

    block_kernel_downloads()
    import bitsandbytes  # noqa: F401
    import peft  # noqa: F401
    import transformers

    lines = [json.loads(line) for line in sys.stdin]
    for workload in lines:  # the code of the model's kind
        transformers.MODEL_FOR_CAUSAL_LM_MAPPING[
            type(transformers.AutoConfig.for_model(workload["config"]["model_type"]))
        ]
    gc.freeze()
    for workload in lines:
        began, error = time.process_time(), None
        try:
            build_table(Workload(**workload))
        except Exception as problem:  # whatever a library says about a model it cannot build
            error = f"{type(problem).__name__}: {problem}"
        print(json.dumps({"seconds": time.process_time() - began, "error": error}), flush=True)
        gc.collect()


if __name__ == "__main__":
    main()
