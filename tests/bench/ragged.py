"""Estimated against measured memory on rows of very unequal length, as people have them.

Each configuration runs with half as many seeds as there are repeats, two at least. The table has for fourteen
configurations the estimate of an update's and of an evaluation's tensors, what the run's own meter said, and what an
allocator tracer under the whole process saw, which knows nothing of torch. Rows are like pages of the web: most short,
some far beyond max_seq_length; classes are the bundled topics.
"""

from __future__ import annotations

import json
import math
import random
import statistics
import tempfile
from pathlib import Path
from typing import Any

from bench.memory import MIB, measured
from bench.memory_models import make_model
from tuning.bench.measure import markdown

SEEDS = 86028121
"""The first of the seeds; none of these runs was looked at while the estimate was made."""
ROWS = 400
COMMON = {"hidden_size": 192, "num_hidden_layers": 5, "num_attention_heads": 6, "vocab_size": 4096}
FORWARD = COMMON | {"intermediate_size": 512, "max_position_embeddings": 2048}
ALIKE = FORWARD | {"num_key_value_heads": 6}
GROUPED = FORWARD | {"num_key_value_heads": 2}
MODELS: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 192, "n_layer": 5, "n_head": 6, "vocab_size": 4096, "n_positions": 1024},
    "qwen2": GROUPED | {"tie_word_embeddings": True, "vocab_size": 8192},
    "mistral": GROUPED | {"sliding_window": None},
    "bert": COMMON | {"intermediate_size": 768},
    "distilbert": {"dim": 192, "hidden_dim": 768, "n_layers": 5, "n_heads": 6, "vocab_size": 4096},
    "phi3": ALIKE | {"pad_token_id": 1},
    "opt": COMMON | {"ffn_dim": 768, "word_embed_proj_dim": 192, "max_position_embeddings": 1024},
    "gpt_neox": FORWARD,
    "llama": GROUPED | {"vocab_size": 32000},
    "qwen3": GROUPED | {"head_dim": 32},
}


def _run(model: str, method: str, rows: int, length: int, **more: Any) -> dict[str, Any]:
    block = {"name": method} | more.pop("block", {})
    return {"model": model, "method": block, "micro_batch_size": rows, "length": length, **more}


CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "gpt2 full 4 x 256": _run("gpt2", "full", 4, 256),
    "qwen2 LoRA r16 8 x 512": _run("qwen2", "lora", 8, 512, block={"r": 16}),
    "mistral LoRA eager 4 x 512": _run("mistral", "lora", 4, 512, attention="eager"),
    "bert full classes 16": _run("bert", "full", 16, 256),
    "distilbert LoRA classes 16": _run("distilbert", "lora", 16, 256),
    "phi3 full adafactor 2 x 512": _run("phi3", "full", 2, 512, optimizer={"name": "adafactor"}),
    "opt full checkpointing 4 x 512": _run("opt", "full", 4, 512, gradient_checkpointing=True),
    "tiny-town QLoRA 8 x 256": _run("tiny-town", "qlora", 8, 256),
    "gpt_neox GaLore 4 x 256": _run("gpt_neox", "galore", 4, 256),
    "llama V = 32,000 full bf16 8 x 256": _run("llama", "full", 8, 256, precision="autocast_bf16"),
    "qwen3 prefix 4 x 256": _run("qwen3", "prefix_tuning", 4, 256),
    "mistral full packing 8 x 256": _run("mistral", "full", 8, 256, packing=True),
    "qwen2 full adamw_8bit 2 x 1024": _run("qwen2", "full", 2, 1024, optimizer={"name": "adamw_8bit"}),
    "qwen3 partial 2 + head 4 x 1024": _run("qwen3", "partial", 4, 1024, block={"last_blocks": 2, "head": True}),
}
CLASSES = ("bert", "distilbert")


def table(repeats: int) -> str:
    """Run everything and draw the tables."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_pages(folder / "pages.jsonl")
        models = {name: str(make_model(folder / name, name, config)) for name, config in MODELS.items()}
        cases = [
            (name, settings_of(configuration, models, folder, SEEDS + seed))
            for name, configuration in CONFIGURATIONS.items()
            for seed in range(max(2, repeats // 2))
        ]
        lines = measured([settings for _, settings in cases], folder)
        return report([line | {"what": name} for (name, _), line in zip(cases, lines, strict=True)])


def write_pages(file: Path, rows: int = ROWS) -> None:
    """Rows whose lengths are spread as those of web pages are: log-normally, some twenty times as long as others."""
    draw = random.Random(5)
    words = ["town", "river", "bridge", "market", "winter", "the", "of", "and", "old", "clock"]
    counts = [min(3000, max(3, round(math.exp(draw.gauss(5.3, 1.1))))) for _ in range(rows)]
    texts = [" ".join(draw.choice(words) for _ in range(count)) for count in counts]
    file.write_text("\n".join(json.dumps({"text": text}) for text in texts), encoding="utf-8")


def settings_of(configuration: dict[str, Any], models: dict[str, str], folder: Path, seed: int) -> dict[str, Any]:
    """The settings of one run."""
    given = dict(configuration)
    length, packing, model = given.pop("length"), given.pop("packing", False), given.pop("model")
    classes = model in CLASSES
    optimizer = {"learning_rate": 1e-4} | given.pop("optimizer", {})
    return given | {
        "model": models.get(model, model),
        "task": "sequence_classification" if classes else "causal_lm",
        "data": {
            "source": "topics" if classes else str(folder / "pages.jsonl"),
            "max_seq_length": length,
            "long_text": "cut",
            "packing": packing,
            "eval_fraction": 0.02,
        },
        "gradient_accumulation_steps": 2,
        "max_steps": 3,
        "optimizer": optimizer,
        "eval": {"every": 3},
        "device": "cpu",
        "seed": seed,
    }


def report(lines: list[dict[str, Any]]) -> str:
    """The runs, one a line, and the summary."""
    head = ["run", "kind", "estimated MiB", "allocator MiB", "error %", "meter %", "evaluation %", "process in band"]
    lines = [line for line in lines if not line["failed"]] + [line for line in lines if line["failed"]]
    body, errors, lows, between = [], list[float](), list[float](), list[float]()
    for line in lines:
        if line["failed"]:
            body.append([line["what"], "failed", line["failed"], "", "", "", "", ""])
            continue
        true = line["live_update"]
        error, meter = (100 * (line[name] / true - 1) for name in ("estimated", "peak"))
        passing = 100 * (line["evaluation"] / line["live_evaluation"] - 1)
        errors.append(error)
        lows.append(meter)
        between.append(passing)
        inside = "yes" if line["low"] <= line["resident"] <= line["high"] else "no"
        figures = [f"{line['estimated'] / MIB:.2f}", f"{true / MIB:.2f}"]
        body.append([line["what"], line["kind"], *figures, f"{error:+.2f}", f"{meter:+.2f}", f"{passing:+.2f}", inside])
    rows = [
        [name, str(len(each)), f"{statistics.median(map(abs, each)):.2f}", f"{min(each):+.2f}", f"{max(each):+.2f}"]
        for name, each in (("the estimate, updates", errors), ("the run's meter", lows), ("evaluations", between))
    ]
    text = markdown(f"Memory of {len(errors)} runs on ragged rows, against the allocator", head, body)
    return text + "\n" + markdown("Error %", ["of", "runs", "median", "lowest", "highest"], rows)
