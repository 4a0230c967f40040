"""A tiny random model of any kind (`model_type`) for which `transformers` has a class, without files.

A kind that cannot be made tiny raises an exception.
"""

from __future__ import annotations

import contextlib
from typing import Any

TINY: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "dim", "embedding_size", "word_embed_proj_dim"), 32),
    **dict.fromkeys(("intermediate_size", "n_inner", "ffn_dim", "d_ff", "d_inner", "ffn_hidden_size"), 64),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads"), 4),
    **dict.fromkeys(("decoder_attention_heads", "encoder_attention_heads"), 4),
    **dict.fromkeys(("decoder_ffn_dim", "encoder_ffn_dim"), 64),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers", "encoder_layers"), 2),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "vocab_size", "max_seq_len", "n_ctx"), 64),
    "num_key_value_heads": 2,
    "head_dim": 8,
    "d_head": 8,
    "moe_intermediate_size": 32,
    "num_local_experts": 4,
    "num_experts": 4,
    "n_routed_experts": 4,
    "attention_hidden_size": 32,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": 2,
}
OWN: dict[str, dict[str, Any]] = {
    "codegen": {"rotary_dim": 4},
    "gptj": {"rotary_dim": 4},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 8},
    "hunyuan_v1_dense": {"head_dim": 8, "num_key_value_heads": 2},
    "ministral": {"head_dim": 8, "num_key_value_heads": 2},
    "nemotron": {"head_dim": 8, "num_key_value_heads": 2},
    "minicpm3": {"qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8, "q_lora_rank": 8, "kv_lora_rank": 8},
    "deberta": {"pooler_hidden_size": 32, "relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
    "deberta-v2": {"pooler_hidden_size": 32, "relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
    "big_bird": {"attention_type": "original_full"},
    "longformer": {"attention_window": 8},
    "funnel": {"block_sizes": [1, 1], "d_model": 32, "n_head": 4, "d_head": 8, "d_inner": 64},
    "reformer": {"is_decoder": True},
    "bert-generation": {"is_decoder": False},
    "modernbert": {"cls_token_id": 4, "sep_token_id": 5, "reference_compile": False},
    "git": {
        "vision_config": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    },
}
"""Members of the config that a kind needs besides, or names differently."""
NOT_TOLD = {"falcon": ("head_dim",), "xlnet": ("max_position_embeddings",), "dbrx": tuple(TINY)}
"""Members of the config that a kind does not accept."""


def tiny_kind(kind: str, maker: str = "AutoModelForCausalLM", **changes: Any) -> Any:
    """A random model of this kind, in eval mode, without dropout, with weights large enough that its states differ
    clearly."""
    import torch
    import transformers

    config = kind_config(kind, **changes)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        with torch.device("meta"):
            size = sum(weight.numel() for weight in getattr(transformers, maker).from_config(config).parameters())
        if size > 30_000_000:
            raise ValueError(f"{kind} cannot be made tiny: {size:,} weights")
        model = getattr(transformers, maker).from_config(config).eval()
        with torch.no_grad():
            for weight in model.parameters():
                if weight.dim() > 1:
                    weight.normal_(std=0.3)
    return model


def kind_config(kind: str, **changes: Any) -> Any:
    """The config of a tiny model of this kind."""
    from transformers import AutoConfig

    usual = AutoConfig.for_model(kind)
    sizes = {}
    for name, value in TINY.items():
        with contextlib.suppress(Exception):  # some kinds forbid to ask for what they do not have
            if name.endswith("token_id") or getattr(usual, name, None) is not None:
                sizes[name] = value
    for name in NOT_TOLD.get(kind, ()):
        sizes.pop(name, None)
    config = AutoConfig.for_model(kind, **(sizes | OWN.get(kind, {}) | changes))
    for name, value in list(vars(config).items()):
        if "drop" in name and isinstance(value, float):
            setattr(config, name, 0.0)
    return config
