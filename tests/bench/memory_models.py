"""Small models of random weights of nine kinds, and rows of equal length, for measuring memory.

They are written as model folders, with two files of rows beside them.
"""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

from tuning.core.paths import asset_path

SIZES: dict[str, dict[str, Any]] = {
    "llama": {
        "hidden_size": 160,
        "intermediate_size": 432,
        "num_hidden_layers": 5,
        "num_attention_heads": 5,
        "num_key_value_heads": 5,
        "vocab_size": 4096,
    },
    "qwen2": {
        "hidden_size": 192,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "vocab_size": 8192,
        "tie_word_embeddings": True,
    },
    "qwen3": {
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 4096,
        "head_dim": 64,
    },
    "gpt2": {"n_embd": 192, "n_layer": 4, "n_head": 6, "vocab_size": 4096, "n_positions": 512},
    "gemma": {
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 6144,
        "head_dim": 32,
    },
    "phi3": {
        "hidden_size": 192,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 6,
        "num_key_value_heads": 6,
        "vocab_size": 4096,
        "pad_token_id": 1,
    },
    "olmo2": {
        "hidden_size": 160,
        "intermediate_size": 448,
        "num_hidden_layers": 5,
        "num_attention_heads": 5,
        "num_key_value_heads": 5,
        "vocab_size": 4096,
        "pad_token_id": 1,
    },
    "gemma3_text": {
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_hidden_layers": 14,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 6144,
        "head_dim": 32,
        "query_pre_attn_scalar": 32,
        "sliding_window": 96,
    },
    "bert": {
        "hidden_size": 192,
        "intermediate_size": 768,
        "num_hidden_layers": 5,
        "num_attention_heads": 6,
        "vocab_size": 4096,
    },
}
OTHERS: dict[str, dict[str, Any]] = {
    "gemma2": {
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_hidden_layers": 13,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 6144,
        "head_dim": 32,
        "query_pre_attn_scalar": 32,
        "sliding_window": 96,
    },
    "mistral": {
        "hidden_size": 160,
        "intermediate_size": 432,
        "num_hidden_layers": 5,
        "num_attention_heads": 5,
        "num_key_value_heads": 5,
        "vocab_size": 4096,
        "sliding_window": 96,
    },
}
"""Kinds made when asked for: gemma2 runs with eager attention only, mistral is a llama with a window."""
ENCODERS = ("bert", "distilbert")


def make_models(folder: Path, kinds: tuple[str, ...] = tuple(SIZES)) -> dict[str, str]:
    """Write the models and the rows; model folder by kind."""
    draw = random.Random(5)
    words = ["town", "river", "bridge", "market", "winter", "the", "of", "and", "old", "clock"]
    texts = [" ".join(draw.choice(words) for _ in range(400)) for _ in range(40)]
    (folder / "rows.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts), encoding="utf-8")
    labelled = [json.dumps({"text": text, "label": ("yes", "no")[n % 2]}) for n, text in enumerate(texts)]
    (folder / "labels.jsonl").write_text("\n".join(labelled), encoding="utf-8")
    return {kind: str(make_model(folder / kind, kind, (SIZES | OTHERS)[kind])) for kind in kinds}


def make_model(folder: Path, kind: str, sizes: dict[str, Any]) -> Path:
    """A model of this kind with random weights and the bundled model's tokenizer."""
    import torch
    import transformers

    common = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1}
    config = transformers.AutoConfig.for_model(kind, **(common | sizes))
    auto = transformers.AutoModel if kind in ENCODERS else transformers.AutoModelForCausalLM
    with torch.random.fork_rng():
        torch.manual_seed(1)
        auto.from_config(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(asset_path("models", "tiny-town", name), folder / name)
    return folder
