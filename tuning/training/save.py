"""The artifact of a run: a folder `adapter/` or `model/` that plain `peft` or `transformers` loads.

It has the tokenizer beside the weights and, for a classifier, the names of its classes. A folder appears whole or not
at all.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tuning.core.errors import RunError
from tuning.core.files import new_folder
from tuning.methods import method_named
from tuning.methods.base import Method
from tuning.models.base_model import BaseModel
from tuning.plan.plan import Plan

_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "tokenizer.model",
    "chat_template.jinja",
)
LABELS_FILE = "labels.json"


def save_artifact(
    model: nn.Module, method: Method[Any], folder: Path, base: BaseModel, class_names: Sequence[str] | None, card: str
) -> Path:
    """Write the artifact into the run's `folder`, with `card` as its README.md, in place of an older one."""
    artifact = folder / method.artifact
    with new_folder(artifact) as part:
        method.save(model, part)
        copy_tokenizer(Path(base.path), part)
        name_base(part, base.public_name)
        (part / "README.md").write_text(card, encoding="utf-8")  # in place of the README.md of a library
        if class_names is not None:
            (part / LABELS_FILE).write_text(json.dumps(list(class_names), ensure_ascii=False), encoding="utf-8")
        same_modes(part)
    return artifact


def name_base(folder: Path, name: str) -> None:
    """Let the config of a saved adapter name its base model by `name`, not by a path of this machine."""
    file = folder / "adapter_config.json"
    if file.is_file():
        config = json.loads(file.read_text(encoding="utf-8"))
        file.write_text(json.dumps(config | {"base_model_name_or_path": name}, indent=2), encoding="utf-8")


def same_modes(folder: Path) -> None:
    """Give all files the permissions of an ordinary one: weights are written for their owner alone."""
    ordinary = folder / "mode.part"
    ordinary.touch()
    mode = ordinary.stat().st_mode & 0o777
    ordinary.unlink()
    for file in folder.rglob("*"):
        if file.is_file():
            file.chmod(mode)


def train_on(model: nn.Module, plan: Plan, class_names: Sequence[str] | None) -> None:
    """Load the adapter of an earlier run into the model, where this run trains it further. Raises RunError where its
    classes are others."""
    if plan.model.adapter is None:
        return
    folder = Path(plan.model.adapter)
    if not folder.is_dir():
        raise RunError(f"The adapter of {plan.model.title} is gone from {folder}; start from another model.")
    if class_names is not None and list(class_names) != saved_class_names(folder):
        raise RunError(f"{plan.model.title} tells other classes apart: {', '.join(saved_class_names(folder) or [])}.")
    with torch.no_grad():
        method_named(plan.settings.method.name).train_on(model, folder)


def copy_tokenizer(base_folder: Path, folder: Path) -> None:
    """The base model's tokenizer and chat template, so that the result can be used alone."""
    for name in _TOKENIZER_FILES:
        if (base_folder / name).is_file():
            shutil.copyfile(base_folder / name, folder / name)


def saved_class_names(artifact: Path) -> list[str] | None:
    """The class names of a saved classifier; None for a language model."""
    file = artifact / LABELS_FILE
    return [str(name) for name in json.loads(file.read_text(encoding="utf-8"))] if file.is_file() else None
