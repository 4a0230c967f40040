"""Full fine-tuning: every weight of the model moves."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuning.errors import Problem
from tuning.methods.base import classes_parameters
from tuning.models import ModelShape


@dataclass(frozen=True, slots=True, kw_only=True)
class FullSettings:
    """Full fine-tuning has nothing to set."""

    name: str = "full"


class Full:
    name = "full"
    title = "Full"
    card = (
        "Updates every weight. Most capacity and the simplest idea; needs a gradient and two optimizer values for "
        "each weight, and can overwrite what the model knew."
    )
    source = "Howard and Ruder 2018, arXiv 1801.06146"
    settings = FullSettings
    default_learning_rate = 3e-4
    learning_rate_reason = "every weight moves, so small steps keep what the model knows"
    artifact = "model"

    def trainable_parameters(self, shape: ModelShape, s: FullSettings, labels: int) -> int:
        return shape.body_parameters + classes_parameters(shape, labels) if labels else shape.parameters

    def added_parameters(self, shape: ModelShape, s: FullSettings) -> int:
        return 0

    def problems(self, shape: ModelShape, s: FullSettings) -> list[Problem]:
        return []

    def summary(self, s: FullSettings) -> str:
        return "Full"

    def apply(self, model: Any, s: FullSettings, task: str) -> Any:
        for parameter in model.parameters():
            parameter.requires_grad_(True)
        return model

    def save(self, model: Any, folder: Path) -> None:
        model.save_pretrained(folder)

    def load(self, model: Any, folder: Path) -> Any:
        return type(model).from_pretrained(folder, local_files_only=True, use_safetensors=True)

    def base_view(self, model: Any) -> AbstractContextManager[Any] | None:
        return None


METHOD = Full()
