"""Partial fine-tuning: the last blocks, or modules chosen by name, move; the rest of the model is frozen."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Annotated, Any

from pydantic import Field

from tuning.core.errors import Problem
from tuning.core.fields import WHOLE, Text
from tuning.methods.base import MethodInputs, MethodSettings, WholeModelMethod, freeze, new_heads, target_problems
from tuning.methods.network import (
    ADDED,
    ATTENTION,
    FEED_FORWARD,
    FINAL_NORM,
    HEAD,
    TRAINED,
    Linear,
    Part,
    block_name,
    chosen_linears,
    model_parts,
    target_pattern,
)
from tuning.models.base_model import ModelShape, shape_from_config


class PartialSettings(MethodSettings):
    name: str = "partial"
    last_blocks: Annotated[int, Field(ge=0, le=1000), WHOLE] = 1
    """How many of the last blocks are trained. More learns more; each costs its gradients and optimizer state."""
    modules: Text = ""
    """Linear layers trained in every block besides, names joined by +, such as v_proj+down_proj; empty adds none."""
    final_norm: bool = True
    """Train the norm after the last block too. A few weights; lets the scale of what goes out follow."""
    head: bool = False
    """Train the output layer too. Learns new words well, forgets more; a tied one is copied first, so it grows."""


class Partial(WholeModelMethod[PartialSettings]):
    name = "partial"
    title = "Partial"
    card = (
        "Trains the last blocks as they are and freezes what comes before, which also needs no backward pass. Keeps "
        "most of what the model knew, because the early layers cannot move; learns less when the task needs them."
    )
    source = "Howard and Ruder 2018, arXiv 1801.06146, on unfreezing from the top"
    settings = PartialSettings
    default_learning_rate = 1e-3
    learning_rate_reason = "fewer weights move than in full fine-tuning, so each may move further"
    needs_known_layers = True

    def parameter_groups(self, shape: ModelShape, settings: PartialSettings, class_count: int) -> list[Part]:
        chosen = _chosen_modules(shape, settings.modules)
        first = shape.num_layers - settings.last_blocks
        last_blocks = {block_name(number) for number in range(first + 1, shape.num_layers + 1)}

        def is_trained(part: Part) -> bool:
            own_head = part.layer == HEAD and part.name == "output layer" and settings.head
            return part.layer in last_blocks or (part.layer == FINAL_NORM and settings.final_norm) or own_head

        parts = model_parts(shape, class_count, is_trained)
        if settings.head and shape.tied and not class_count:
            output = shape.vocab_size * shape.hidden_size
            parts.append(Part(layer=HEAD, name="a copy, untied from the embeddings", state=ADDED, parameters=output))
        return [piece for part in parts for piece in _split(part, chosen, last_blocks)]

    def problems(self, inputs: MethodInputs, settings: PartialSettings) -> list[Problem]:
        problems, shape = [], inputs.shape
        if settings.last_blocks > shape.num_layers:
            limit = shape.num_layers
            message = f"this model has {limit} blocks; set last_blocks to {limit} or less"
            problems.append(Problem("method.last_blocks", settings.last_blocks, f"0 to {limit}", message))
        if settings.modules.strip():
            problems += target_problems(shape, "method.modules", settings.modules)
        if not (settings.last_blocks or settings.modules or settings.final_norm or settings.head or inputs.class_count):
            message = "nothing is left to train; set last_blocks to 1 or more, or name modules"
            problems.append(Problem("method.last_blocks", settings.last_blocks, "1 or more", message))
        return problems

    def summary(self, settings: PartialSettings) -> str:
        return (
            f"Last {settings.last_blocks}"
            + (f" + {settings.modules}" if settings.modules else "")
            + (" + head" if settings.head else "")
        )

    def apply(self, model: Any, settings: PartialSettings, task: str) -> Any:
        freeze(model)
        shape = shape_from_config(model.config.to_dict())
        chosen = _chosen_modules(shape, settings.modules)
        pattern = target_pattern(shape, chosen) if chosen else ""
        first = shape.num_layers - settings.last_blocks
        for name, parameter in model.named_parameters():
            block = re.search(r"\.(\d+)\.(.+)", name)
            if block is None:
                parameter.requires_grad_(settings.final_norm and _is_final_norm(name))
            else:
                is_chosen = pattern and re.fullmatch(pattern + r"\.weight", name)
                parameter.requires_grad_(int(block[1]) >= first or bool(is_chosen))
        for head in new_heads(model):
            head.requires_grad_(True)
        if settings.head and task == "causal_lm":
            from tuning.methods.torch_heads import untie

            untie(model)
            model.get_output_embeddings().requires_grad_(True)
        return model

    def merged_shape(self, shape: ModelShape, settings: PartialSettings, class_count: int) -> ModelShape | None:
        return replace(shape, tied=False) if settings.head and not class_count else shape


def _is_final_norm(name: str) -> bool:
    """Whether the parameter of this name belongs to the norm behind the last block."""
    last = r"(^|(?<!embeddings)(?<!head)\.)(norm|ln_f|final_layernorm|final_layer_norm)\.(weight|bias)$"
    return re.search(last, name) is not None


def _chosen_modules(shape: ModelShape, modules: str) -> list[Linear]:
    """The linear layers that method.modules names."""
    return chosen_linears(shape, modules) if modules.strip() else []


def _split(part: Part, modules: list[Linear], last_blocks: set[str]) -> list[Part]:
    """A frozen half of a block as what stays frozen of it and what the named modules train."""
    if part.name not in (ATTENTION, FEED_FORWARD) or part.layer in last_blocks:
        return [part]
    chosen = [linear for linear in modules if linear.half == part.name]
    count = sum(linear.into * linear.out for linear in chosen)
    if not count:
        return [part]
    rest = Part(layer=part.layer, name=part.name, state=part.state, parameters=part.parameters - count)
    names = ", ".join(linear.name for linear in chosen)
    return [rest, Part(layer=part.layer, name=names, state=TRAINED, parameters=count)]


METHOD = Partial()
