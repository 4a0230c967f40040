"""What a base model answers, and how sure it is: for methods that act in the prompt, and for recipes.

Comes in: a model, prompts.  Goes out: (answer, confidence) for each, greedy; and the evaluation rows as a method that
trains nothing writes them, encoded for the same evaluation that trained runs have.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tuning.core.errors import GoOn, check_stop
from tuning.data import DataSet, encode_pairs
from tuning.methods import method_named
from tuning.methods.base import Method, PromptInputs
from tuning.methods.recipes import read_recipe, recipe_named
from tuning.plan.plan import Plan
from tuning.text import Encoded, Row, TextTokenizer
from tuning.text.prompts import question_ids
from tuning.training.build import base_of, look_between_tensors, pick_device
from tuning.training.generate import ends_of, fitting, room_for_answer, room_of
from tuning.training.loss import reading_only

Tell = Callable[[int, int], None]
"""Told how many prompts of how many are answered."""


def prompted_rows(
    plan: Plan,
    data: DataSet,
    method: Method[Any],
    model: nn.Module,
    tokenizer: TextTokenizer,
    tell: Tell,
    go_on: GoOn = lambda: True,
) -> list[tuple[Row, Encoded]]:
    """The evaluation rows of `data` as `method` writes them. Only the model's context cuts them, not max_seq_length.
    Raises Stopped."""
    settings = plan.settings

    def answer(prompts: Sequence[str]) -> list[tuple[str, float]]:
        return answers_with_confidence(
            model,
            tokenizer,
            prompts,
            settings.eval.max_new_tokens,
            settings.data.system_prompt,
            tell,
            go_on,
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
    return list(encode_pairs(rows, tokenizer, whole, settings.task, go_on))


def prompted_texts(
    plan: Plan,
    data: DataSet,
    method: Method[Any],
    model: nn.Module,
    tokenizer: TextTokenizer,
    texts: Sequence[str],
    go_on: GoOn = lambda: True,
) -> list[str]:
    """Questions of a person as `method` writes them, for example behind the passages that it finds for them. Raises
    Stopped."""
    settings = plan.settings

    def answer(prompts: Sequence[str]) -> list[tuple[str, float]]:
        longest, system_prompt = settings.eval.max_new_tokens, settings.data.system_prompt
        return answers_with_confidence(model, tokenizer, prompts, longest, system_prompt, go_on=go_on)

    inputs = PromptInputs(
        train=data.train,
        eval=[Row(prompt=text, completion="") for text in texts],
        answer=answer,
        data_folder=data.folder,
        seed=settings.seed,
    )
    return [row.prompt or "" for row in method.prompts(inputs, settings.method)]


def prepared_rows(
    plan: Plan, rows: Sequence[Row], tokenizer: TextTokenizer, tell: Tell, go_on: GoOn = lambda: True
) -> list[Row]:
    """Rows as the recipe writes them, by what the base model answers; it is loaded for that, and let go. Raises
    Stopped."""
    settings = plan.settings
    taught, _ = read_recipe(settings.recipe)
    with look_between_tensors(go_on):
        base = base_of(settings, plan.model.path, None, tokenizer.pad_id or 0)
    if plan.model.adapter is not None:  # what this run starts from is the base model with an earlier run's adapter
        method = method_named(settings.method.name)
        base = method.load(base, Path(plan.model.adapter)).to(pick_device(settings.device)).eval()

    def answer(prompts: Sequence[str]) -> list[tuple[str, float]]:
        return answers_with_confidence(
            base,
            tokenizer,
            prompts,
            settings.eval.max_new_tokens,
            settings.data.system_prompt,
            tell,
            go_on,
            special_tokens=settings.data.special_tokens,
        )

    assert taught is not None, "only plans with a recipe prepare rows"
    return recipe_named(taught.name).prepare(rows, taught, answer)


def recipe_metrics(
    plan: Plan, model: nn.Module, rows: Sequence[Row], tokenizer: TextTokenizer, go_on: GoOn = lambda: True
) -> dict[str, float]:
    """What the recipe measures of a model on evaluation rows with their true answers. Raises Stopped."""
    taught, _ = read_recipe(plan.settings.recipe)
    longest, system_prompt = plan.settings.eval.max_new_tokens, plan.settings.data.system_prompt
    special_tokens = plan.settings.data.special_tokens

    def answer(prompts: Sequence[str]) -> list[tuple[str, float]]:
        return answers_with_confidence(
            model, tokenizer, prompts, longest, system_prompt, go_on=go_on, special_tokens=special_tokens
        )

    def prefer(prompts: Sequence[str], first: str, second: str | None) -> list[float]:
        return preferences(
            model, tokenizer, prompts, first, second, system_prompt, go_on, special_tokens=special_tokens
        )

    assert taught is not None, "only plans with a recipe are measured by it"
    return recipe_named(taught.name).measure(rows, taught, answer, prefer)


def answers_with_confidence(
    model: nn.Module,
    tokenizer: TextTokenizer,
    prompts: Sequence[str],
    max_new_tokens: int,
    system_prompt: str | None = None,
    tell: Tell = lambda done, total: None,
    go_on: GoOn = lambda: True,
    *,
    chat: bool = False,
    special_tokens: str = "tokenizer",
) -> list[tuple[str, float]]:
    """The greedy answer to each prompt up to its end or line end, and its chance: the product over its tokens.

    A mean over tokens would call a made-up name sure, whose later syllables follow from the first. An empty answer: 0.
    Raises Stopped, between two tokens.
    """
    was_training = model.training
    model.eval()
    found = []
    try:
        with torch.no_grad():
            for number, prompt in enumerate(prompts):
                tell(number, len(prompts))
                asked = question_ids(prompt, tokenizer, system_prompt, chat=chat, special_tokens=special_tokens)
                ids = fitting(asked, model, max_new_tokens)
                found.append(_answer(model, tokenizer, ids, max_new_tokens, go_on))
    finally:
        model.train(was_training)
    return found


def _answer(
    model: Any, tokenizer: TextTokenizer, ids: list[int], max_new_tokens: int, go_on: GoOn
) -> tuple[str, float]:
    device = next(model.parameters()).device
    given = torch.tensor([ids], device=device)
    past, said, chance, ends = None, [], 1.0, ends_of(model, tokenizer)
    for _ in range(room_for_answer(model, len(ids), max_new_tokens)):
        check_stop(go_on)
        with reading_only(model, _last):
            output = model(input_ids=given, past_key_values=past, use_cache=True)
        past = output.past_key_values
        best = torch.softmax(output.logits[0, -1].float(), -1).max(0)
        if int(best.indices) in ends or "\n" in tokenizer.decode([int(best.indices)]):
            break
        said.append(int(best.indices))
        chance *= float(best.values)
        given = best.indices.view(1, 1)
    return tokenizer.decode(said), chance if said else 0.0


def _last(states: torch.Tensor) -> torch.Tensor:
    """Of the last place alone, so that logits of a long prompt's other places are never made."""
    return states[:, -1:]


def preferences(
    model: nn.Module,
    tokenizer: TextTokenizer,
    prompts: Sequence[str],
    first: str,
    second: str | None,
    system_prompt: str | None = None,
    go_on: GoOn = lambda: True,
    *,
    special_tokens: str = "tokenizer",
) -> list[float]:
    """The chance that a prompt goes on with `first`: against `second`, or against everything where that is None.

    What counts is the first token in which the two differ; what they share is put behind the prompt. Raises Stopped.
    """
    wanted, other = tokenizer.encode(first), tokenizer.encode(second) if second is not None else []
    shared = 0
    while shared < min(len(wanted), len(other)) - 1 and wanted[shared] == other[shared]:
        shared += 1
    device, room = next(model.parameters()).device, room_of(model) or 0
    was_training, found = model.training, []
    model.eval()
    try:
        with torch.no_grad():
            for prompt in prompts:
                check_stop(go_on)
                asked = question_ids(prompt, tokenizer, system_prompt, chat=False, special_tokens=special_tokens)
                asked += wanted[:shared]
                ids = torch.tensor([asked[-room:]], device=device)
                with reading_only(model, _last):
                    spread = torch.softmax(model(input_ids=ids, use_cache=False).logits[0, -1].float(), -1)
                mine = float(spread[wanted[shared]])
                against = float(spread[other[shared]]) if other else 1.0 - mine
                found.append(mine / max(mine + against, 1e-12))
    finally:
        model.train(was_training)
    return found
