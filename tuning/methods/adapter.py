"""Bottleneck adapters: the model is frozen; small networks behind its sublayers learn the change."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from tuning.core.errors import Problem
from tuning.core.fields import WHOLE
from tuning.methods.base import Method, MethodInputs, MethodSettings, freeze, new_heads
from tuning.methods.network import (
    ADDED,
    ATTENTION,
    FEED_FORWARD,
    Linear,
    Part,
    block_name,
    linears,
    model_parts,
    target_pattern,
)
from tuning.models.base_model import ModelShape, shape_from_config


class AdapterSettings(MethodSettings):
    name: str = "adapter"
    bottleneck: Annotated[int, Field(ge=1, le=8192), WHOLE] = 16
    """Width of the small networks. Wider learns more, and costs memory in proportion."""
    placement: Literal["houlsby", "pfeiffer"] = "houlsby"
    """houlsby puts one behind attention and one behind the feed-forward of each block; pfeiffer only the second."""
    activation: Literal["relu", "gelu", "silu", "tanh"] = "gelu"
    """The bend between the two layers. They learn much the same here."""


class Adapter(Method[AdapterSettings]):
    name = "adapter"
    title = "Adapter"
    card = (
        "Freezes the model and puts a narrow two-layer network behind its sublayers, which starts as doing nothing. "
        "The oldest of the small methods; unlike LoRA it cannot be merged, so answering stays a little slower."
    )
    source = "Houlsby et al. 2019, arXiv 1902.00751; Pfeiffer et al. 2020, arXiv 2005.00247"
    settings = AdapterSettings
    cheaper_methods: tuple[str, ...] = ("qlora",)
    default_learning_rate = 1e-3
    learning_rate_reason = "each adapter changes all that follows: at 3e-3 the bundled model forgot everything it knew"
    needs_known_layers = True
    own_loader = True
    shapes_adapter = ("bottleneck", "placement", "activation")

    def parameter_groups(self, shape: ModelShape, settings: AdapterSettings, class_count: int) -> list[Part]:
        hidden, chosen = shape.hidden_size, _behind(shape, settings)
        each = len(chosen) * (2 * hidden * settings.bottleneck + settings.bottleneck + hidden)
        names = " and ".join(linear.half for linear in chosen)
        added = [
            Part(layer=block_name(number), name=f"adapter behind {names}", state=ADDED, parameters=each)
            for number in range(1, shape.num_layers + 1)
        ]
        return model_parts(shape, class_count) + added

    def problems(self, inputs: MethodInputs, settings: AdapterSettings) -> list[Problem]:
        limit = inputs.shape.hidden_size
        if settings.bottleneck <= limit:
            return []
        message = (
            f"{settings.bottleneck} is above the model's width {limit}, so it narrows nothing; set {limit} or less"
        )
        return [Problem("method.bottleneck", settings.bottleneck, f"1 to {limit}", message)]

    def summary(self, settings: AdapterSettings) -> str:
        return f"Adapter {settings.bottleneck}"

    def apply(self, model: Any, settings: AdapterSettings, task: str) -> Any:
        from tuning.methods.torch_adapter import put_adapters

        shape = shape_from_config(model.config.to_dict())
        pattern = target_pattern(shape, _behind(shape, settings))
        names = [name for name, _ in model.named_modules() if re.fullmatch(pattern, name)]
        freeze(model)
        put_adapters(model, names, shape.hidden_size, settings.bottleneck, settings.activation)
        for head in new_heads(model):
            head.requires_grad_(True)
        model.adapter_plan = {
            "modules": names,
            "width": shape.hidden_size,
            "bottleneck": settings.bottleneck,
            "activation": settings.activation,
            "labels": model.config.num_labels if task == "sequence_classification" else 0,
        }
        return model

    def save(self, model: Any, folder: Path) -> None:
        from tuning.methods.torch_adapter import save_adapters

        save_adapters(model, model.adapter_plan, folder)

    def load(self, model: Any, folder: Path) -> Any:
        from tuning.methods.torch_adapter import put_saved

        return put_saved(model, folder)

    def train_on(self, model: Any, folder: Path) -> None:
        from tuning.methods.torch_adapter import put_weights

        put_weights(model, folder)

    def base_view(self, model: Any) -> AbstractContextManager[Any] | None:
        from tuning.methods.torch_adapter import adapters_off

        return adapters_off(model)


def _behind(shape: ModelShape, settings: AdapterSettings) -> list[Linear]:
    """The last linear layer of attention and of the feed-forward: what they give to the rest of the model."""
    halves = (ATTENTION, FEED_FORWARD) if settings.placement == "houlsby" else (FEED_FORWARD,)
    return [[linear for linear in linears(shape) if linear.half == half][-1] for half in halves]


METHOD = Adapter()
