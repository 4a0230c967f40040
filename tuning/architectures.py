"""Which kinds of model `transformers` has code for, and for which task, without importing it.

Comes in: a model_type.  Goes out: the tasks it can be trained for.  The tables are read from the package's own source:
importing it takes seconds, brings torch in, and must not happen while a form is being filled in.
"""

from __future__ import annotations

import ast
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_TABLES = {
    "causal_lm": ("CAUSAL_LM",),
    "sequence_classification": ("SEQUENCE_CLASSIFICATION",),
    "pairs of encoder and decoder": ("SEQ_TO_SEQ_CAUSAL_LM",),
    "sounds": ("SPEECH_SEQ_2_SEQ", "AUDIO_CLASSIFICATION", "CTC", "TEXT_TO_SPECTROGRAM", "TEXT_TO_WAVEFORM"),
    "pictures": (
        "IMAGE_TEXT_TO_TEXT",
        "MULTIMODAL_LM",
        "IMAGE_CLASSIFICATION",
        "ZERO_SHOT_IMAGE_CLASSIFICATION",
        "OBJECT_DETECTION",
        "IMAGE_SEGMENTATION",
        "MASKED_IMAGE_MODELING",
        "DEPTH_ESTIMATION",
        "VIDEO_CLASSIFICATION",
        "DOCUMENT_QUESTION_ANSWERING",
        "BACKBONE",
    ),
}
"""What a kind is, by the names of the package's own tables (MODEL_FOR_..._MAPPING_NAMES)."""

STATE_SPACE = ("falcon_mamba", "mamba", "mamba2", "rwkv", "xlstm")
"""Kinds that have no attention at all: a state goes from token to token."""

DECODERS = (
    "apertus",
    "arcee",
    "biogpt",
    "bitnet",
    "bloom",
    "codegen",
    "cohere",
    "cohere2",
    "ctrl",
    "cwm",
    "diffllama",
    "ernie4_5",
    "exaone4",
    "falcon",
    "falcon_h1",
    "gemma",
    "gemma2",
    "gemma3_text",
    "gemma4_unified_text",
    "glm",
    "glm4",
    "gpt-sw3",
    "gpt2",
    "gpt_bigcode",
    "gpt_neo",
    "gpt_neox",
    "gpt_neox_japanese",
    "gptj",
    "granite",
    "granite_swa",
    "helium",
    "hrm_text",
    "hunyuan_v1_dense",
    "hyperclovax",
    "internlm3",
    "iquestcoder",
    "jais2",
    "lfm2",
    "lfm3",
    "llama",
    "ministral",
    "ministral3",
    "mistral",
    "modernbert-decoder",
    "mpt",
    "nanochat",
    "nemotron",
    "olmo",
    "olmo2",
    "olmo3",
    "olmo_hybrid",
    "openai-gpt",
    "opt",
    "persimmon",
    "phi",
    "phi3",
    "qwen2",
    "qwen3",
    "qwen3_5_text",
    "recurrent_gemma",
    "seed_oss",
    "smollm3",
    "stablelm",
    "starcoder2",
    "vaultgemma",
    "xglm",
)
"""Kinds whose tokens see only what stands before them, and padding changes nothing, each proven by a test. A kind that
is not among them never writes text: being in the library's table is no proof, for encoders stand there too."""

DECODERS_IF_TOLD = (
    "bert",
    "bert-generation",
    "big_bird",
    "camembert",
    "data2vec-text",
    "electra",
    "ernie",
    "megatron-bert",
    "rembert",
    "roberta",
    "roberta-prelayernorm",
    "roc_bert",
    "roformer",
    "xlm-roberta",
    "xlm-roberta-xl",
)
"""Encoders that are decoders where config.json has `is_decoder: true`, each proven by a test."""

CLASSIFIERS = (
    "albert",
    "arcee",
    "bert",
    "big_bird",
    "biogpt",
    "bloom",
    "camembert",
    "ctrl",
    "data2vec-text",
    "deberta",
    "deberta-v2",
    "diffllama",
    "distilbert",
    "electra",
    "ernie",
    "eurobert",
    "exaone4",
    "falcon",
    "flaubert",
    "gemma",
    "gemma2",
    "gemma3_text",
    "glm",
    "glm4",
    "gpt-sw3",
    "gpt2",
    "gpt_bigcode",
    "gpt_neo",
    "gpt_neox",
    "gptj",
    "gte",
    "helium",
    "hunyuan_v1_dense",
    "ibert",
    "jina_embeddings_v3",
    "llama",
    "longformer",
    "megatron-bert",
    "ministral",
    "ministral3",
    "mistral",
    "modernbert",
    "modernbert-decoder",
    "mpnet",
    "mpt",
    "mra",
    "nemotron",
    "nomic_bert",
    "olmo",
    "olmo2",
    "olmo3",
    "openai-gpt",
    "opt",
    "persimmon",
    "phi",
    "phi3",
    "qwen2",
    "qwen3",
    "rembert",
    "roberta",
    "roberta-prelayernorm",
    "roc_bert",
    "roformer",
    "seed_oss",
    "smollm3",
    "squeezebert",
    "stablelm",
    "starcoder2",
    "ultrabert",
    "xlm",
    "xlm-roberta",
    "xlm-roberta-xl",
)
"""Kinds whose classes a text gets alone as among longer ones, each proven by a test; others count the padding in."""

PACKING = (
    "apertus",
    "arcee",
    "cohere",
    "ernie4_5",
    "exaone4",
    "gemma",
    "gemma3_text",
    "glm",
    "gpt2",
    "gpt_bigcode",
    "gpt_neox",
    "granite",
    "granitemoe",
    "helium",
    "hunyuan_v1_dense",
    "llama",
    "mistral",
    "mixtral",
    "nemotron",
    "olmo",
    "olmo2",
    "olmo3",
    "persimmon",
    "phi",
    "phi3",
    "qwen2",
    "qwen3",
    "qwen3_moe",
    "seed_oss",
    "smollm3",
    "stablelm",
    "starcoder2",
)
"""Kinds that keep packed rows apart by their restarting positions, each proven by a test; others mix them silently."""


@lru_cache(maxsize=1)
def _known() -> dict[str, frozenset[str]]:
    spec = find_spec("transformers")  # finds the folder; imports nothing
    if spec is None or spec.origin is None:
        return {}
    source = (Path(spec.origin).parent / "models" / "auto" / "modeling_auto.py").read_text(encoding="utf-8")
    return {
        name: frozenset(kind for table in tables for kind in _kinds(source, table)) for name, tables in _TABLES.items()
    }


def _kinds(source: str, table: str) -> list[str]:
    """The model types of one table; none where this version has no such table."""
    start = source.find(f"\nMODEL_FOR_{table}_MAPPING_NAMES = OrderedDict(")
    if start < 0:
        return []
    text = source[source.index("[", start) : source.index("\n    ]\n)", start)] + "]"
    listed = ast.parse(text, mode="eval").body
    pairs = listed.elts if isinstance(listed, ast.List) else []  # some tables take others in, which are read themselves
    return [str(ast.literal_eval(pair.elts[0])) for pair in pairs if isinstance(pair, ast.Tuple)]


def tasks_of(model_type: str, told_decoder: bool = False) -> tuple[str, ...]:
    """The tasks that a model of this kind can be trained for: `transformers` has a class, and a test has proven it.

    `told_decoder`: config.json says `is_decoder`, which makes some encoders write.
    """
    writes = DECODERS + (DECODERS_IF_TOLD if told_decoder else ())
    proven = {"causal_lm": writes, "sequence_classification": CLASSIFIERS}
    return tuple(task for task, kinds in proven.items() if model_type in kinds and model_type in _known()[task])


def is_text_model(model_type: str) -> bool:
    """Whether `transformers` has a class of this kind for one of the tasks, proven or not."""
    return any(model_type in _known()[task] for task in ("causal_lm", "sequence_classification"))


def not_for_text(config: dict[str, Any]) -> str | None:
    """What this model is, in words, where it is not one stack of attention blocks over text; None where it may be."""
    kind, known = config.get("model_type"), _known()
    if kind in known["sounds"] or any(name.startswith("audio_") and name.endswith("config") for name in config):
        return "a model of sounds"
    if kind in known["pictures"] or "vision_config" in config:
        return "a model of pictures"
    if kind in known["pairs of encoder and decoder"] or config.get("is_encoder_decoder") is True:
        return "a pair of encoder and decoder"
    if kind in STATE_SPACE:
        return "a state space model, which has no attention,"
    return None


@lru_cache(maxsize=256)
def supports_sdpa(model_type: str) -> bool:
    """Whether this kind has scaled dot product attention; taken to have it where its source is not found."""
    spec, name = find_spec("transformers"), model_type.replace("-", "_")
    if spec is None or spec.origin is None or not name.isidentifier():
        return True
    source = Path(spec.origin).parent / "models" / name / f"modeling_{name}.py"
    return not source.is_file() or "_supports_sdpa = True" in source.read_text(encoding="utf-8")


def transformers_version() -> str:
    from importlib.metadata import version

    return version("transformers")
