"""The kinds of model (`model_type`) for which `transformers` has code, by task, without importing it.

Importing it takes seconds, brings torch in, and must not happen while a form is being filled in. So its tables are
written into an asset once (assets/make/model_kinds.py), and a test compares the asset with the installed package.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from tuning.core.libraries import installed_version
from tuning.core.paths import asset_path
from tuning.models.families import family_of

KINDS = "models/kinds.json"

STATE_SPACE = ("falcon_mamba", "mamba", "mamba2", "rwkv", "xlstm")
"""Kinds without attention, in which a state goes from token to token."""


@lru_cache(maxsize=1)
def _tables() -> dict[str, frozenset[str]]:
    """Kinds of model by the name of a table of `transformers`: a task, another sort of model, or no scaled dot product
    attention."""
    tables = json.loads(asset_path(KINDS).read_text(encoding="utf-8"))
    return {name: frozenset(kinds) for name, kinds in tables.items()}


def tasks_of(model_type: str, is_decoder: bool = False) -> tuple[str, ...]:
    """The tasks that a model of this kind can be trained for: `transformers` has a class, and a test has proven it.

    `is_decoder` is that member of config.json, with which some encoders write text.
    """
    family = family_of(model_type)
    writes = family.writes or (is_decoder and family.writes_if_decoder)
    proven = {"causal_lm": writes, "sequence_classification": family.classifies}
    return tuple(task for task, is_proven in proven.items() if is_proven and model_type in _tables()[task])


def is_text_model(model_type: str) -> bool:
    """Whether `transformers` has a class of this kind for one of the tasks, proven or not."""
    return any(model_type in _tables()[task] for task in ("causal_lm", "sequence_classification"))


def not_for_text(config: dict[str, Any]) -> str | None:
    """What this model is, in words, where it is no single stack of attention blocks over text; None where it may be."""
    kind, tables = config.get("model_type"), _tables()
    if kind in tables["sounds"] or any(name.startswith("audio_") and name.endswith("config") for name in config):
        return "a model of sounds"
    if kind in tables["pictures"] or "vision_config" in config:
        return "a model of pictures"
    if kind in tables["pairs of encoder and decoder"] or config.get("is_encoder_decoder") is True:
        return "a pair of encoder and decoder"
    if kind in STATE_SPACE:
        return "a state space model, which has no attention,"
    return None


def supports_sdpa(model_type: str) -> bool:
    """Whether this kind has scaled dot product attention; an unknown kind is taken to have it."""
    return model_type not in _tables()["without_sdpa"]


def transformers_version() -> str:
    """The version of the installed `transformers`, which is not imported for it."""
    return installed_version("transformers")
