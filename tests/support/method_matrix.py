"""The matrix of methods, tasks and models for the tests of methods, and the jobs that run its lines.

`MatrixJobs` has a Llama (untied), a Llama (tied) and a BERT of random weights, and settings with which each method
learns something within a few updates.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.tiny_jobs import WORDS, TinyJobs

CLASSES = "sequence_classification"
LLAMA, TIED, BERT = "llama", "tied", "bert"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the matrix: a method, a task, a model, and further settings (`more`)."""

    method: dict[str, Any]
    task: str = "causal_lm"
    model: str = LLAMA
    more: dict[str, Any] | None = None
    tolerance: float = 2e-6
    """Relative difference of the first gradient between cuts; larger only where arithmetic is not fp32."""

    @property
    def id(self) -> str:
        rest = [f"{key}={value}" for key, value in self.method.items() if key != "name"]
        short = "classes" if self.task == CLASSES else "text"
        return "-".join([self.method["name"], *rest, short, self.model])


MATRIX = [
    Row(method={"name": "full"}),
    Row(method={"name": "full"}, task=CLASSES),
    Row(method={"name": "full"}, task=CLASSES, model=BERT),
    Row(method={"name": "partial"}),
    Row(method={"name": "partial", "last_blocks": 0, "modules": "v_proj+down_proj", "head": True}, model=TIED),
    Row(method={"name": "partial"}, task=CLASSES, model=BERT),
    Row(method={"name": "lora", "r": 4}),
    Row(method={"name": "lora", "r": 4, "init": "pissa"}),
    Row(method={"name": "lora", "r": 4, "init": "olora", "rslora": True, "target_modules": "q_proj+v_proj"}),
    Row(method={"name": "lora", "r": 4, "dora": True, "target_modules": "attention"}, task=CLASSES),
    Row(method={"name": "lora", "r": 4}, task=CLASSES, model=BERT),
    Row(method={"name": "feature_extraction"}),
    Row(method={"name": "feature_extraction", "cache": False}, model=TIED),
    Row(method={"name": "feature_extraction", "random_body": True}, model=TIED),
    Row(method={"name": "feature_extraction"}, task=CLASSES),
    Row(method={"name": "feature_extraction", "head": "mlp", "depth": 2, "pooling": "last"}, task=CLASSES),
    Row(method={"name": "feature_extraction", "head": "kan", "width": 8}, task=CLASSES, model=BERT),
    Row(method={"name": "qlora", "r": 4}),
    Row(method={"name": "qlora", "r": 4, "quant_type": "fp4", "double_quant": False}, task=CLASSES, model=BERT),
    Row(method={"name": "adapter"}),
    Row(method={"name": "adapter", "placement": "pfeiffer"}, task=CLASSES),
    # a random BERT of two layers moves slowly
    Row(
        method={"name": "adapter", "activation": "relu"},
        task=CLASSES,
        model=BERT,
        more={"optimizer": {"learning_rate": 3e-3}},
    ),
    Row(method={"name": "prompt_tuning", "virtual_tokens": 8}),
    Row(method={"name": "prompt_tuning", "init": "text", "init_text": "the red dog"}, model=TIED),
    Row(method={"name": "prefix_tuning", "virtual_tokens": 8}),
    Row(method={"name": "prefix_tuning", "init": "random"}, task=CLASSES),
    Row(method={"name": "p_tuning", "virtual_tokens": 8}),
    Row(method={"name": "galore", "rank": 4, "update_gap": 2}),
    Row(method={"name": "galore", "targets": "attention", "rank": 8}, task=CLASSES, model=BERT),
    Row(
        method={"name": "galore", "rank": 4, "layerwise": True},
        more={"gradient_accumulation_steps": 1, "optimizer": {"max_grad_norm": None}},
    ),
    Row(method={"name": "ia3"}),
    Row(method={"name": "ia3"}, task=CLASSES, model=BERT),
]


class MatrixJobs(TinyJobs):
    """Jobs on three kinds of base model, with answers that can be learned."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        _rows(self.rows)
        self.models = {
            TIED: self.model,
            LLAMA: _untied(self.model, folder / LLAMA),
            BERT: _bert(self.model, folder / BERT),
        }

    def of(self, row: Row, **changes: Any) -> Any:
        """A job of this line of the matrix."""
        more = dict(row.more or {})
        more["optimizer"] = {"learning_rate": None} | more.get("optimizer", {})
        merged = {"task": row.task, "model": str(self.models[row.model]), "method": row.method} | more
        for key, value in changes.items():
            merged[key] = merged.get(key, {}) | value if isinstance(value, dict) else value
        return self.job(**merged)


def _rows(file: Path) -> None:
    """Write texts of unequal length, from one half of the words or the other, so that any pooling distinguishes
    them."""
    draw, lines = random.Random(5), []
    for i in range(72):
        label, half = ("yes", WORDS[:10]) if i % 2 else ("no", WORDS[10:])
        text = " ".join(draw.choice(half) for _ in range(draw.randint(2, 24)))
        answer = " ".join([label] + [draw.choice(half) for _ in range(draw.randint(0, 5))])
        lines.append(json.dumps({"text": text, "prompt": text + " :", "completion": f" {answer}", "label": label}))
    file.write_text("\n".join(lines), encoding="utf-8")


def _untied(base: Path, folder: Path) -> Path:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    shutil.copytree(base, folder)
    config = LlamaConfig.from_pretrained(base, tie_word_embeddings=False)
    with torch.random.fork_rng():
        torch.manual_seed(11)
        LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def _bert(base: Path, folder: Path) -> Path:
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    shutil.copytree(base, folder)
    for old in ("model.safetensors", "generation_config.json"):
        (folder / old).unlink(missing_ok=True)
    vocabulary = json.loads((base / "config.json").read_text(encoding="utf-8"))["vocab_size"]
    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=128,
        pad_token_id=0,
        initializer_range=0.1,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(12)
        BertForSequenceClassification(config).save_pretrained(folder)
    return folder


@contextmanager
def read_ids() -> Iterator[list[list[int]]]:
    """Within the block, every sequence of two or more tokens that any model reads."""
    import torch

    sequences: list[list[int]] = []

    def record(module: object, inputs: tuple) -> None:
        if isinstance(module, torch.nn.Embedding) and inputs[0].shape[-1] > 1:
            sequences.append(inputs[0][0].tolist())

    handle = torch.nn.modules.module.register_module_forward_pre_hook(record)
    try:
        yield sequences
    finally:
        handle.remove()


def built_for(job: Any) -> Any:
    """The built model of a job, as a session has it before its first update."""
    import torch

    from tuning.data import open_data
    from tuning.training.build import build, own_random_state

    plan = job.plan
    settings = plan.settings
    with own_random_state(settings.seed, torch.device("cpu")):
        names = open_data(settings.data, settings.task, settings.seed).label_names if plan.class_count else None
        return build(settings, plan.model.path, names, plan.value("learning_rate"), 0)
