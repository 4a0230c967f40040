"""The kinds of model that the installed transformers has code for, by task, written to assets/models/kinds.json.

    python assets/make/model_kinds.py

Run it after an upgrade of transformers; tests/models/test_models.py fails until then.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TARGET = Path(__file__).resolve().parent.parent / "models" / "kinds.json"
TABLES = {
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
"""What a kind is, by the names of the library's own tables (MODEL_FOR_..._MAPPING_NAMES)."""
TEXT = ("sequence_classification", "causal_lm")


def model_kinds() -> dict[str, list[str]]:
    """The kinds of each table, and the kinds for text whose classes have no scaled dot product attention."""
    from transformers.models.auto import modeling_auto

    kinds = {
        name: {kind for table in tables for kind in getattr(modeling_auto, f"MODEL_FOR_{table}_MAPPING_NAMES")}
        for name, tables in TABLES.items()
    }
    kinds["without_sdpa"] = {
        kind for kind in kinds["causal_lm"] | kinds["sequence_classification"] if not _has_sdpa(kind)
    }
    return {name: sorted(members) for name, members in kinds.items()}


def _has_sdpa(kind: str) -> bool:
    """Whether a kind's class for text has scaled dot product attention; its other class then has it too."""
    import transformers
    from transformers.models.auto import modeling_auto

    classes: dict[str, Any] = {
        **modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
        **modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    }
    return bool(getattr(transformers, classes[kind])._supports_sdpa)


if __name__ == "__main__":
    TARGET.write_text(json.dumps(model_kinds(), indent=1) + "\n", encoding="utf-8")
