"""Prefix tuning: the model is frozen; keys and values put before every text in every block are learned."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from tuning.core.errors import Problem, RunError
from tuning.core.fields import WHOLE, Text
from tuning.methods.base import MethodInputs, MethodSettings, PeftMethod
from tuning.methods.network import ADDED, Part, block_name, model_parts
from tuning.methods.prompt_tuning import Init, attention_heads, prompt_problems, start_tokens, with_start
from tuning.models.base_model import ModelShape


class PrefixSettings(MethodSettings):
    name: str = "prefix_tuning"
    virtual_tokens: Annotated[int, Field(ge=1, le=4096), WHOLE] = 16
    """How many keys and values stand before each text in each block. More say more and cost memory in proportion."""
    init: Init = "vocabulary"
    """What they start as: what the model itself makes of random words or of init_text, or noise of the same size."""
    init_text: Text = "Answer the question."
    """For init text: these words, repeated until all virtual tokens have one."""


class PrefixTuning(PeftMethod[PrefixSettings]):
    name = "prefix_tuning"
    title = "Prefix tuning"
    card = (
        "Freezes the model and learns keys and values put before every text in every block, so that each layer is "
        "steered at once. Learns much more than prompt tuning at the same number of tokens; cannot be merged."
    )
    source = "Li and Liang 2021, arXiv 2101.00190"
    settings = PrefixSettings
    default_learning_rate = 6e-2
    learning_rate_reason = "few numbers in each block: on the bundled task 1e-2 learned little, 3e-1 forgot everything"
    supports_packing = False
    shapes_adapter = ("virtual_tokens",)

    def parameter_groups(self, shape: ModelShape, settings: PrefixSettings, class_count: int) -> list[Part]:
        each = 2 * settings.virtual_tokens * shape.num_kv_heads * shape.head_dim
        name = f"keys and values of {settings.virtual_tokens} tokens"
        blocks = range(1, shape.num_layers + 1)
        added = [Part(layer=block_name(number), name=name, state=ADDED, parameters=each) for number in blocks]
        return model_parts(shape, class_count) + added

    def problems(self, inputs: MethodInputs, settings: PrefixSettings) -> list[Problem]:
        problems = prompt_problems(inputs, settings)
        if inputs.gradient_checkpointing:
            message = "keys and values put in front are lost when a block is computed again; set it to false"
            problems.append(Problem("gradient_checkpointing", True, "false", message))
        if inputs.shape.encoder:
            message = "an encoder takes no keys and values from before; use lora, adapter or partial on this model"
            problems.append(Problem("method.name", settings.name, "a model that writes", message))
        return problems

    def summary(self, settings: PrefixSettings) -> str:
        return f"{self.title} {settings.virtual_tokens}"

    def apply(self, model: Any, settings: PrefixSettings, task: str) -> Any:
        from peft import PrefixTuningConfig, TaskType, get_peft_model

        start = _start(model, settings)
        config = PrefixTuningConfig(
            num_virtual_tokens=settings.virtual_tokens,
            num_attention_heads=attention_heads(model),
            task_type=TaskType.SEQ_CLS if task == "sequence_classification" else TaskType.CAUSAL_LM,
        )
        return with_start(get_peft_model(model, config), start)


def _start(model: Any, settings: PrefixSettings) -> Any:
    """Keys and values as the model makes them of real words; a line a token: block 1's keys, its values, block 2's.

    Raises RunError where some blocks look back less far than the prefix is long.
    """
    import torch

    with torch.no_grad():
        body = getattr(model, model.base_model_prefix)
        cache = body(input_ids=start_tokens(model, settings)[None], use_cache=True).past_key_values
    lines = [part[0].transpose(0, 1).flatten(1) for layer in cache.layers for part in (layer.keys, layer.values)]
    window = min(map(len, lines))
    if window < settings.virtual_tokens:
        raise RunError(
            f"method.virtual_tokens is {settings.virtual_tokens}, but some blocks of this model look"
            f" back over {window} tokens only; use at most {window}."
        )
    vectors = torch.cat(lines, 1)
    return torch.randn_like(vectors) * vectors.std() if settings.init == "random" else vectors


METHOD = PrefixTuning()
