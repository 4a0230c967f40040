"""Which kinds of model `transformers` has code for, and for which task, without importing it.

Comes in: a model_type.  Goes out: the tasks it can be trained for.  The tables are read from the package's own source:
importing it takes seconds, brings torch in, and must not happen while a form is being filled in.
"""

from __future__ import annotations

import ast
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

_TABLES = {
    "causal_lm": "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
    "sequence_classification": "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",
}

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
    found: dict[str, frozenset[str]] = {}
    for task, table in _TABLES.items():
        start = source.index(f"\n{table} = OrderedDict(")
        text = source[source.index("[", start) : source.index("\n    ]\n)", start)] + "]"
        found[task] = frozenset(kind for kind, _ in ast.literal_eval(text))
    return found


def tasks_of(model_type: str, encoder: bool) -> tuple[str, ...]:
    """The tasks this kind of model has a class for; empty where `transformers` does not know it.

    An encoder is listed for causal_lm too, as a decoder of an encoder-decoder pair; alone it cannot write.
    """
    return tuple(
        task for task, kinds in _known().items() if model_type in kinds and not (encoder and task == "causal_lm")
    )


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
