"""Prompt tuning: the model is frozen; a few vectors put before every input are learned."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from tuning.core.errors import Problem
from tuning.core.fields import WHOLE, Text
from tuning.methods.base import MethodInputs, MethodSettings, PeftMethod
from tuning.methods.network import ADDED, EMBEDDINGS, Part, model_parts
from tuning.models.base_model import ModelShape
from tuning.text import TextTokenizer

Init = Literal["vocabulary", "text", "random"]
SHORTEST = 8
"""The smallest data.max_seq_length that settings can have."""


class PromptSettings(MethodSettings):
    name: str = "prompt_tuning"
    virtual_tokens: Annotated[int, Field(ge=1, le=4096), WHOLE] = 16
    """How many vectors stand before each text. More say more, and each lengthens every row by one place."""
    init: Init = "vocabulary"
    """What they start as: vectors of random words, of the words of init_text, or noise of the same size."""
    init_text: Text = "Answer the question."
    """For init text: these words, repeated until all virtual tokens have one."""


class PromptTuning(PeftMethod[PromptSettings]):
    name = "prompt_tuning"
    title = "Prompt tuning"
    card = (
        "Freezes the model and learns a few vectors put before every text, as if they were words. A few thousand "
        "trained weights, but the whole model still computes and keeps its activations; works well on large models, "
        "and hardly on ones of a few million weights."
    )
    source = "Lester et al. 2021, arXiv 2104.08691"
    settings = PromptSettings
    default_learning_rate = 3e-2
    learning_rate_reason = "few vectors far from the output have small gradients, so they need large steps"
    supports_packing = False
    tasks = ("causal_lm",)
    shapes_adapter = ("virtual_tokens",)

    def parameter_groups(self, shape: ModelShape, settings: PromptSettings, class_count: int) -> list[Part]:
        count = settings.virtual_tokens * shape.hidden_size
        added = Part(layer=EMBEDDINGS, name=f"{settings.virtual_tokens} virtual tokens", state=ADDED, parameters=count)
        return [*model_parts(shape, class_count), added]

    def problems(self, inputs: MethodInputs, settings: PromptSettings) -> list[Problem]:
        return prompt_problems(inputs, settings)

    def summary(self, settings: PromptSettings) -> str:
        return f"{self.title} {settings.virtual_tokens}"

    def apply(self, model: Any, settings: PromptSettings, task: str) -> Any:
        from peft import PromptTuningConfig, TaskType, get_peft_model

        start = start_vectors(model, settings)
        config = PromptTuningConfig(
            num_virtual_tokens=settings.virtual_tokens,
            num_attention_heads=attention_heads(model),
            task_type=TaskType.CAUSAL_LM,
        )
        return with_start(get_peft_model(model, config), start)


def prompt_problems(inputs: MethodInputs, settings: Any) -> list[Problem]:
    """Problems of every method that puts virtual tokens before the text."""
    problems, positions = [], inputs.shape.max_positions
    limit, shorter = positions - inputs.max_seq_length, positions - settings.virtual_tokens
    if settings.virtual_tokens > limit:
        problems.append(_too_long(inputs, settings.virtual_tokens, limit, shorter))
    if settings.init == "text" and not settings.init_text.strip():
        message = "init text needs words to start from; write some into init_text, or set init to vocabulary"
        problems.append(Problem("method.init_text", settings.init_text, "one word or more", message))
    return problems


def _too_long(inputs: MethodInputs, count: int, limit: int, shorter: int) -> Problem:
    """The problem of virtual tokens that leave no positions for the rows, with the limits within which both fit."""
    rows = f"set data.max_seq_length to {shorter} or less" if shorter >= SHORTEST else ""
    tokens = f"set virtual_tokens to {limit} or fewer" if limit >= 1 else ""
    fixes = ", or ".join(fix for fix in (tokens, rows) if fix)
    if not fixes:
        fewest = inputs.shape.max_positions - SHORTEST
        fixes = (
            f"set virtual_tokens to {fewest} or fewer and data.max_seq_length to what is left"
            if fewest >= 1
            else "choose another method"
        )
    message = (
        f"{count} virtual tokens and rows of {inputs.max_seq_length} do not fit into this model's "
        f"{inputs.shape.max_positions} positions; {fixes}"
    )
    if limit >= 1:
        return Problem("method.virtual_tokens", count, f"1 to {limit}", message)
    none = f"no virtual tokens fit beside rows of {inputs.max_seq_length}"
    return Problem("method.virtual_tokens", count, none, message)


def start_tokens(model: Any, settings: Any) -> Any:
    """Token ids to start from: drawn from the vocabulary by the run's seed, or the text's, repeated."""
    import torch

    if settings.init == "text":
        ids = TextTokenizer(model.config.name_or_path).encode(settings.init_text)
        return torch.tensor((ids * settings.virtual_tokens)[: settings.virtual_tokens])
    return torch.randint(model.get_input_embeddings().weight.shape[0], (settings.virtual_tokens,))


def start_vectors(model: Any, settings: Any) -> Any:
    """The virtual tokens' vectors before training, at the size of the model's own embeddings."""
    import torch

    table = model.get_input_embeddings().weight.detach()
    if settings.init == "random":
        return torch.randn(settings.virtual_tokens, table.shape[1]) * table.std() + table.mean(0)
    return table[start_tokens(model, settings)].clone()


def attention_heads(model: Any) -> int | None:
    """Attention heads by the name that `transformers` gives them for every kind; config.json may have another, and
    PEFT reads only some of those. None leaves them to PEFT."""
    return getattr(model.config, "num_attention_heads", None)


def with_start(wrapped: Any, start: Any) -> Any:
    """The model with `start` as its virtual tokens."""
    wrapped.prompt_encoder["default"].embedding.weight.data.copy_(start)
    return wrapped


METHOD = PromptTuning()
