"""Tiny random model folders of many kinds, and what goes wrong with such folders on their way to a person.

A folder is made for a kind of `transformers`; each change returns what it has done. The same seed always gives the same
folders.
"""

from __future__ import annotations

import json
import random
import shutil
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.tiny_models import tiny_tokenizer, vocabulary  # noqa: E402
from tuning.text.tokenizer import MODEL_TYPES_WITH_OWN_CLASS  # noqa: E402

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 64,
    "n_inner": 48,
    "d_model": 32,
    "d_ff": 48,
    "d_kv": 8,
    "num_layers": 2,
    "num_heads": 4,
    "n_layers": 2,
    "n_heads": 4,
    "max_seq_len": 64,
    "ffn_dim": 48,
    "word_embed_proj_dim": 32,
    "embedding_size": 32,
    "dim": 32,
    "hidden_dim": 48,
    "sliding_window": 16,
    "q_lora_rank": 8,
    "kv_lora_rank": 8,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "num_local_experts": 2,
    "num_experts": 2,
    "num_experts_per_tok": 1,
    "moe_intermediate_size": 16,
    "rotary_dim": 4,
    "layer_types": None,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "attention_dropout": 0.0,
    "hidden_dropout": 0.0,
    "resid_pdrop": 0.0,
    "embd_pdrop": 0.0,
    "attn_pdrop": 0.0,
    "dropout": 0.0,
    "initializer_range": 0.2,
}
"""Every name that some kind has for its sizes; a kind takes those that its config knows."""
DECODERS = (
    "apertus",
    "arcee",
    "bloom",
    "codegen",
    "cohere",
    "cohere2",
    "exaone4",
    "falcon",
    "gemma",
    "gemma2",
    "gemma3_text",
    "glm",
    "glm4",
    "gpt2",
    "gpt_bigcode",
    "gpt_neo",
    "gpt_neox",
    "gptj",
    "granite",
    "granitemoe",
    "helium",
    "llama",
    "mistral",
    "mixtral",
    "mpt",
    "nemotron",
    "olmo",
    "olmo2",
    "opt",
    "persimmon",
    "phi",
    "phi3",
    "qwen2",
    "qwen2_moe",
    "qwen3",
    "qwen3_moe",
    "seed_oss",
    "smollm3",
    "stablelm",
    "starcoder2",
    "xglm",
)
ENCODERS = ("albert", "bert", "camembert", "deberta", "distilbert", "electra", "ernie", "mpnet", "roberta", "roformer")
OTHERS = ("t5", "bart", "mamba", "vit", "whisper", "rwkv", "xlnet")
OWN: dict[str, dict[str, Any]] = {"gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 8}}
"""What a kind needs besides."""
KINDS = (*DECODERS, *ENCODERS, *OTHERS)


def made(kind: str, folder: Path) -> Path | None:
    """An unharmed folder of this kind; None where these sizes make none, or the kind is no text model."""
    import torch
    import transformers
    from transformers import AutoConfig

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    try:
        defaults = vars(AutoConfig.for_model(kind))
        names = {
            name: value
            for name, value in SIZES.items()
            if name in defaults or name in getattr(AutoConfig.for_model(kind), "attribute_map", {})
        }
        config = AutoConfig.for_model(kind, **names | OWN.get(kind, {}) | {"vocab_size": len(vocabulary())})
        maker = next(
            cls
            for cls in (transformers.AutoModelForCausalLM, transformers.AutoModelForMaskedLM, transformers.AutoModel)
            if type(config) in cls._model_mapping
            and not (cls is transformers.AutoModelForCausalLM and kind in ENCODERS)
        )
        with torch.random.fork_rng():
            torch.manual_seed(7)
            maker.from_config(config).save_pretrained(folder)
    except Exception:
        shutil.rmtree(folder, ignore_errors=True)
        return None
    tiny_tokenizer(folder, frame=kind in ENCODERS, chat=kind not in ENCODERS)
    if (
        kind in MODEL_TYPES_WITH_OWN_CLASS
    ):  # whatever the folder names, transformers cuts texts into bytes and joins them as merges say
        plain = json.loads((folder / "tokenizer.json").read_text("utf-8"))
        names = [token["content"] for token in plain["added_tokens"]] + list("Ġ:" + string.ascii_lowercase)
        plain["model"]["vocab"] = {name: id for id, name in enumerate(names[: len(vocabulary())])}
        (folder / "tokenizer.json").write_text(json.dumps(plain), "utf-8")
    return folder


def config_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text("utf-8"))


def edit(folder: Path, name: str = "config.json", **changes: Any) -> None:
    file = folder / name
    plain = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    file.write_text(json.dumps({**plain, **changes}), "utf-8")


def tensors(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def write_tensors(folder: Path, tensors_by_name: dict[str, Any]) -> None:
    from safetensors.torch import save_file

    save_file(
        {name: tensor.contiguous().clone() for name, tensor in tensors_by_name.items()}, folder / "model.safetensors"
    )


# -- what happens to the tensors --------------------------------------------------------------------------------------
def without_a_tensor(folder: Path, draw: random.Random) -> str:
    tensors_by_name = tensors(folder)
    name = draw.choice(sorted(tensors_by_name))
    del tensors_by_name[name]
    write_tensors(folder, tensors_by_name)
    return f"without {name}"


def other_prefix(folder: Path, draw: random.Random) -> str:
    prefix = draw.choice(("_orig_mod.", "module.", "base_model.model.", "model.model.", "student."))
    write_tensors(folder, {prefix + name: tensor for name, tensor in tensors(folder).items()})
    return f"names begin with {prefix}"


def other_shape(folder: Path, draw: random.Random) -> str:
    tensors_by_name = tensors(folder)
    name = draw.choice([name for name, tensor in sorted(tensors_by_name.items()) if tensor.ndim == 2])
    tensors_by_name[name] = tensors_by_name[name].repeat(2, 1)
    write_tensors(folder, tensors_by_name)
    return f"{name} twice as high"


def further_tensor(folder: Path, draw: random.Random) -> str:
    import torch

    name = draw.choice(("extra.weight", "model.layers.2.mlp.up_proj.weight", "score.weight", "value_head.weight"))
    write_tensors(folder, tensors(folder) | {name: torch.zeros(4, 32)})
    return f"a further tensor {name}"


def other_dtype(folder: Path, draw: random.Random) -> str:
    import torch

    dtype = draw.choice((torch.float16, torch.bfloat16, torch.float64, torch.int8, torch.float8_e4m3fn))
    write_tensors(folder, {name: tensor.to(dtype) for name, tensor in tensors(folder).items()})
    return f"weights of {dtype}"


def nan_weight(folder: Path, draw: random.Random) -> str:
    tensors_by_name = tensors(folder)
    name = draw.choice(sorted(tensors_by_name))
    tensors_by_name[name].view(-1)[0] = float("nan")
    write_tensors(folder, tensors_by_name)
    return f"NaN in {name}"


# -- what happens to the texts ----------------------------------------------------------------------------------------
def odd_config(folder: Path, draw: random.Random) -> str:
    sizes = [name for name, value in config_of(folder).items() if isinstance(value, int)]
    name = draw.choice(sorted(sizes))
    value = draw.choice((0, -1, None, "32", 3, 10**9, 1.5, True, [], {}))
    edit(folder, **{name: value})
    return f"config.json says {name} = {value!r}"


def without_a_key(folder: Path, draw: random.Random) -> str:
    plain = config_of(folder)
    name = draw.choice(sorted(plain))
    del plain[name]
    (folder / "config.json").write_text(json.dumps(plain), "utf-8")
    return f"config.json without {name}"


def fewer_layers(folder: Path, draw: random.Random) -> str:
    names = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
    name = next((name for name in names if name in config_of(folder)), "num_hidden_layers")
    edit(folder, **{name: draw.choice((1, 3))}, layer_types=None)
    return f"another {name}"


def other_tie(folder: Path, draw: random.Random) -> str:
    tied = bool(config_of(folder).get("tie_word_embeddings", True))
    edit(folder, tie_word_embeddings=not tied)
    return f"tie_word_embeddings = {not tied}"


def other_pad(folder: Path, draw: random.Random) -> str:
    edit(folder, pad_token_id=draw.choice((5, None, -1, 10_000)))
    return "another pad_token_id"


def other_kind(folder: Path, draw: random.Random) -> str:
    kind = draw.choice(KINDS)
    edit(folder, model_type=kind)
    return f"model_type = {kind}"


def odd_generation(folder: Path, draw: random.Random) -> str:
    odd = draw.choice(
        (
            {"num_beams": 4},
            {"repetition_penalty": 5.0},
            {"no_repeat_ngram_size": 1},
            {"do_sample": True},
            {"guidance_scale": 3.0},
            {"max_length": 1},
            {"forced_eos_token_id": 2},
            {"eos_token_id": [2, 3]},
        )
    )
    edit(folder, "generation_config.json", **odd)
    return f"generation_config.json says {odd}"


def adapter_beside(folder: Path, draw: random.Random) -> str:
    edit(folder, "adapter_config.json", peft_type="LORA", base_model_name_or_path="x", r=2, target_modules=["q_proj"])
    return "adapter_config.json beside the model"


def larger_tokenizer(folder: Path, draw: random.Random) -> str:
    plain = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    more = {
        "id": len(vocabulary()),
        "content": "[MORE]",
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }
    plain["added_tokens"].append(more)
    (folder / "tokenizer.json").write_text(json.dumps(plain), "utf-8")
    if draw.random() < 0.5:
        edit(folder, "tokenizer_config.json", pad_token="[MORE]")
    return "a tokenizer larger than the model"


def other_specials(folder: Path, draw: random.Random) -> str:
    plain = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    name = draw.choice(("bos_token", "eos_token", "pad_token", "unk_token", "chat_template"))
    plain[name] = draw.choice((None, "<nowhere>", "dog", 3, [], {"content": "<s>"}))
    (folder / "tokenizer_config.json").write_text(json.dumps(plain), "utf-8")
    return f"tokenizer_config.json says {name} = {plain[name]!r}"


def damaged_file(folder: Path, draw: random.Random) -> str:
    file = draw.choice(sorted(path for path in folder.iterdir() if path.is_file()))
    content = bytearray(file.read_bytes())
    if draw.random() < 0.5:
        content = content[: draw.randrange(len(content))]
    else:
        for _ in range(3):
            content[draw.randrange(min(len(content), 4_000))] = draw.randrange(256)
    file.write_bytes(content)
    return f"{file.name} is damaged"


def file_gone(folder: Path, draw: random.Random) -> str:
    file = draw.choice(sorted(path for path in folder.iterdir() if path.is_file()))
    file.unlink()
    return f"{file.name} is gone"


CHANGES: tuple[Callable[[Path, random.Random], str], ...] = (
    without_a_tensor,
    other_prefix,
    other_shape,
    further_tensor,
    other_dtype,
    nan_weight,
    odd_config,
    odd_config,
    without_a_key,
    fewer_layers,
    other_tie,
    other_pad,
    other_kind,
    odd_generation,
    adapter_beside,
    larger_tokenizer,
    other_specials,
    damaged_file,
    file_gone,
)
