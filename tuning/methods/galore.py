"""GaLore: every weight moves, but the optimizer's values live in a low-rank view of each gradient."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import Field

from tuning.core.errors import Problem
from tuning.core.fields import WHOLE, Text
from tuning.methods.base import MethodInputs, MethodSettings, WholeModelMethod, target_problems, words_pattern
from tuning.methods.network import Part, chosen_linears, model_parts
from tuning.models.base_model import ModelShape

TARGETS = ("all-linear", "attention", "feed-forward")


class GaloreSettings(MethodSettings):
    name: str = "galore"
    rank: Annotated[int, Field(ge=1, le=8192), WHOLE] = 16
    """Directions kept of each matrix's gradient. More follow it better, and cost optimizer state in proportion."""
    update_gap: Annotated[int, Field(ge=1, le=100_000), WHOLE] = 50
    """Updates after which the directions are found anew. Seldom is cheap, often follows the gradient as it turns."""
    scale: Annotated[float, Field(gt=0.0, le=100.0)] = 0.25
    """The step is multiplied by this on its way back to full size; a learning rate for the projected matrices."""
    targets: Annotated[Text, Field(examples=[*TARGETS])] = "all-linear"
    """Which matrices are projected: all-linear, attention, feed-forward, or module names joined by +."""
    layerwise: bool = False
    """Update each layer in the backward pass and drop its gradient: less memory; no accumulation and no clipping."""


class Galore(WholeModelMethod[GaloreSettings]):
    name = "galore"
    title = "GaLore"
    card = (
        "Trains every weight as full fine-tuning does, but keeps AdamW's two values only for the main directions of "
        "each matrix's gradient. Saves optimizer memory, not weights or gradients; learns and forgets like full "
        "fine-tuning. Embeddings and norms keep their full state, which dominates on small models."
    )
    source = "Zhao et al. 2024, arXiv 2403.03507"
    settings = GaloreSettings
    new_pooler = True
    default_learning_rate = 2e-3
    learning_rate_reason = "the projected step is multiplied by scale, so the rate is larger than full fine-tuning's"
    needs_known_layers = True

    def parameter_groups(self, shape: ModelShape, settings: GaloreSettings, class_count: int) -> list[Part]:
        return model_parts(shape, class_count, lambda part: True)

    def optimizer_values(self, shape: ModelShape, settings: GaloreSettings, class_count: int, per_weight: int) -> int:
        chosen = [(linear.into, linear.out) for linear in chosen_linears(shape, settings.targets)]
        whole = shape.num_layers * sum(into * out for into, out in chosen)
        low = shape.num_layers * sum(settings.rank * (per_weight * max(size) + min(size)) for size in chosen)
        return per_weight * (self.trainable_parameters(shape, settings, class_count) - whole) + low

    def problems(self, inputs: MethodInputs, settings: GaloreSettings) -> list[Problem]:
        problems = target_problems(inputs.shape, "method.targets", settings.targets)
        chosen = chosen_linears(inputs.shape, settings.targets)
        widest = min((min(linear.into, linear.out) for linear in chosen), default=settings.rank)
        if settings.rank > widest:
            message = (
                f"{settings.rank} is above the width of this model's narrowest layer, {widest}; set {widest} or less"
            )
            problems.append(Problem("method.rank", settings.rank, f"1 to {widest}", message))
        if inputs.optimizer != "adamw":
            message = "GaLore brings its own AdamW over projected gradients; set optimizer to adamw"
            problems.append(Problem("optimizer.name", inputs.optimizer, "adamw", message))
        if settings.layerwise and inputs.gradient_accumulation_steps > 1:
            message = (
                "layer by layer no whole gradient ever exists, so micro-batches cannot be added up; set "
                "gradient_accumulation_steps to 1, or layerwise to false"
            )
            problems.append(Problem("method.layerwise", True, "false with accumulation", message))
        if settings.layerwise and inputs.max_grad_norm is not None:
            message = (
                "layer by layer no whole gradient ever exists, so its length cannot be limited; empty "
                "optimizer.max_grad_norm, or set layerwise to false"
            )
            problems.append(Problem("optimizer.max_grad_norm", inputs.max_grad_norm, "empty", message))
        return problems

    def summary(self, settings: GaloreSettings) -> str:
        return f"GaLore r{settings.rank}"

    def apply(self, model: Any, settings: GaloreSettings, task: str) -> Any:
        for parameter in model.parameters():
            parameter.requires_grad_(True)
        return model

    def optimizer(self, model: Any, settings: GaloreSettings, chosen: Any, learning_rate: float) -> Any | None:
        from tuning.methods.torch_galore import GaLoreAdamW

        pattern = words_pattern(model, settings.targets) + r"\.weight"
        parameters = dict(model.named_parameters())
        projected = [weight for name, weight in parameters.items() if re.fullmatch(pattern, name)]
        projected_ids = {id(weight) for weight in projected}
        rest = [weight for weight in parameters.values() if id(weight) not in projected_ids]
        groups = [
            {
                "params": projected,
                "rank": settings.rank,
                "update_gap": settings.update_gap,
                "scale": settings.scale,
                "weight_decay": chosen.weight_decay,
            },
            {"params": [weight for weight in rest if weight.dim() >= 2], "weight_decay": chosen.weight_decay},
            {"params": [weight for weight in rest if weight.dim() < 2], "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
        return GaLoreAdamW(groups, learning_rate, chosen.betas, chosen.eps, settings.layerwise)

    def steps_in_backward(self, settings: GaloreSettings) -> bool:
        return settings.layerwise


METHOD = Galore()
