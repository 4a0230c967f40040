"""Full fine-tuning: every weight of the model moves."""

from __future__ import annotations

from typing import Any

from tuning.methods.base import MethodSettings, WholeModelMethod
from tuning.methods.network import Part, model_parts
from tuning.models.base_model import ModelShape


class FullSettings(MethodSettings):
    """Full fine-tuning has nothing to set."""

    name: str = "full"


class Full(WholeModelMethod[FullSettings]):
    name = "full"
    title = "Full"
    card = (
        "Updates every weight. Most capacity and the simplest idea; needs a gradient and two optimizer values for "
        "each weight, and can overwrite what the model knew."
    )
    source = "Howard and Ruder 2018, arXiv 1801.06146"
    settings = FullSettings
    new_pooler = True
    default_learning_rate = 3e-4
    learning_rate_reason = "every weight moves, so small steps keep what the model knows"

    def parameter_groups(self, shape: ModelShape, settings: FullSettings, class_count: int) -> list[Part]:
        return model_parts(shape, class_count, lambda part: True)

    def apply(self, model: Any, settings: FullSettings, task: str) -> Any:
        for parameter in model.parameters():
            parameter.requires_grad_(True)
        return model


METHOD = Full()
