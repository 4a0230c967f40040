"""Rows that are written with the answers of a model: by methods without updates, and by recipes.

A method that acts in the prompt writes the evaluation rows, which are encoded for the same evaluation that trained runs
have. A recipe writes the training rows, and measures the trained model.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from tuning.core.errors import ShouldContinue
from tuning.data import DataSet, encode_pairs
from tuning.methods import method_named
from tuning.methods.base import Method, PromptInputs
from tuning.methods.recipes import read_recipe, recipe_named
from tuning.plan.plan import Plan
from tuning.text import EncodedRow, Row, TextTokenizer
from tuning.training.build import base_of, pick_device, stop_between_tensors
from tuning.training.confidence import OnProgress, answers_with_confidence, preferences


def prompted_rows(
    plan: Plan,
    data: DataSet,
    method: Method[Any],
    model: nn.Module,
    tokenizer: TextTokenizer,
    on_progress: OnProgress,
    should_continue: ShouldContinue = lambda: True,
) -> list[tuple[Row, EncodedRow]]:
    """The evaluation rows of `data` as `method` writes them, each with its tokens. Raises Stopped.

    They are cut where the model's context ends, not at max_seq_length.
    """
    settings = plan.settings

    def answer(prompts: Sequence[str]) -> list[tuple[str, float]]:
        return answers_with_confidence(
            model,
            tokenizer,
            prompts,
            settings.eval.max_new_tokens,
            settings.data.system_prompt,
            on_progress,
            should_continue,
            chat=plan.chat,
            special_tokens=settings.data.special_tokens,
        )

    inputs = PromptInputs(
        train=data.train,
        eval=data.eval,
        answer=answer,
        data_folder=data.folder,
        seed=settings.seed,
    )
    rows = method.prompts(inputs, settings.method)
    whole = plan.data_settings.replace(max_seq_length=plan.model.shape.max_positions)
    return list(encode_pairs(rows, tokenizer, whole, settings.task, should_continue))


def prompted_texts(
    plan: Plan,
    data: DataSet,
    method: Method[Any],
    model: nn.Module,
    tokenizer: TextTokenizer,
    texts: Sequence[str],
    should_continue: ShouldContinue = lambda: True,
) -> list[str]:
    """Prompts of a person as `method` writes them, for example with the passages that it retrieves. Raises Stopped."""
    settings = plan.settings

    def answer(prompts: Sequence[str]) -> list[tuple[str, float]]:
        longest, system_prompt = settings.eval.max_new_tokens, settings.data.system_prompt
        return answers_with_confidence(
            model, tokenizer, prompts, longest, system_prompt, should_continue=should_continue
        )

    inputs = PromptInputs(
        train=data.train,
        eval=[Row(prompt=text, completion="") for text in texts],
        answer=answer,
        data_folder=data.folder,
        seed=settings.seed,
    )
    return [row.prompt or "" for row in method.prompts(inputs, settings.method)]


def prepared_rows(
    plan: Plan,
    rows: Sequence[Row],
    tokenizer: TextTokenizer,
    on_progress: OnProgress,
    should_continue: ShouldContinue = lambda: True,
) -> list[Row]:
    """Rows as the recipe writes them, from the answers of the base model, which is loaded for that. Raises Stopped."""
    settings = plan.settings
    recipe, _ = read_recipe(settings.recipe)
    with stop_between_tensors(should_continue):
        base = base_of(settings, plan.model.path, None, tokenizer.pad_id or 0)
    if plan.model.adapter is not None:  # this run starts from the base model with an earlier run's adapter
        method = method_named(settings.method.name)
        base = method.load(base, Path(plan.model.adapter)).to(pick_device(settings.device)).eval()

    def answer(prompts: Sequence[str]) -> list[tuple[str, float]]:
        return answers_with_confidence(
            base,
            tokenizer,
            prompts,
            settings.eval.max_new_tokens,
            settings.data.system_prompt,
            on_progress,
            should_continue,
            special_tokens=settings.data.special_tokens,
        )

    assert recipe is not None, "only plans with a recipe prepare rows"
    return recipe_named(recipe.name).prepare(rows, recipe, answer)


def recipe_metrics(
    plan: Plan,
    model: nn.Module,
    rows: Sequence[Row],
    tokenizer: TextTokenizer,
    should_continue: ShouldContinue = lambda: True,
) -> dict[str, float]:
    """The recipe's metrics of a model, over evaluation rows with their true answers. Raises Stopped."""
    recipe, _ = read_recipe(plan.settings.recipe)
    longest, system_prompt = plan.settings.eval.max_new_tokens, plan.settings.data.system_prompt
    special_tokens = plan.settings.data.special_tokens

    def answer(prompts: Sequence[str]) -> list[tuple[str, float]]:
        return answers_with_confidence(
            model,
            tokenizer,
            prompts,
            longest,
            system_prompt,
            should_continue=should_continue,
            special_tokens=special_tokens,
        )

    def prefer(prompts: Sequence[str], first: str, second: str | None) -> list[float]:
        return preferences(
            model, tokenizer, prompts, first, second, system_prompt, should_continue, special_tokens=special_tokens
        )

    assert recipe is not None, "only plans with a recipe are measured by it"
    return recipe_named(recipe.name).measure(rows, recipe, answer, prefer)
