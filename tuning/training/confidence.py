"""How sure a model is: the probability of its greedy answer, and its preference between two continuations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from tuning.core.errors import ShouldContinue, check_stop
from tuning.text import TextTokenizer
from tuning.text.prompts import question_ids
from tuning.training.generate import answer_tokens, end_tokens, fit_prompt, max_tokens_of
from tuning.training.loss import reading_only

OnProgress = Callable[[int, int], None]
"""Called with the number of prompts that are answered, and of all."""


def answers_with_confidence(
    model: nn.Module,
    tokenizer: TextTokenizer,
    prompts: Sequence[str],
    max_new_tokens: int,
    system_prompt: str | None = None,
    on_progress: OnProgress = lambda done, total: None,
    should_continue: ShouldContinue = lambda: True,
    *,
    chat: bool = False,
    special_tokens: str = "tokenizer",
) -> list[tuple[str, float]]:
    """The greedy answer to each prompt, up to its end or the end of the line, and the probability of the whole answer.

    That is the product over its tokens: by a mean a made-up name would be sure, for its later syllables follow from the
    first. An empty answer has probability 0. Raises Stopped between two tokens.
    """
    was_training = model.training
    model.eval()
    answers = []
    try:
        with torch.no_grad():
            for index, prompt in enumerate(prompts):
                on_progress(index, len(prompts))
                ids = question_ids(prompt, tokenizer, system_prompt, chat=chat, special_tokens=special_tokens)
                ids = fit_prompt(ids, model, max_new_tokens)
                answers.append(_greedy_answer(model, tokenizer, ids, max_new_tokens, should_continue))
    finally:
        model.train(was_training)
    return answers


def _greedy_answer(
    model: Any, tokenizer: TextTokenizer, ids: list[int], max_new_tokens: int, should_continue: ShouldContinue
) -> tuple[str, float]:
    device = next(model.parameters()).device
    input_ids = torch.tensor([ids], device=device)
    past, answer, probability, ends = None, [], 1.0, end_tokens(model, tokenizer)
    for _ in range(answer_tokens(model, len(ids), max_new_tokens)):
        check_stop(should_continue)
        with reading_only(model, _last_token):
            output = model(input_ids=input_ids, past_key_values=past, use_cache=True)
        past = output.past_key_values
        likeliest = torch.softmax(output.logits[0, -1].float(), -1).max(0)
        token = int(likeliest.indices)
        if token in ends or "\n" in tokenizer.decode([token]):
            break
        answer.append(token)
        probability *= float(likeliest.values)
        input_ids = likeliest.indices.view(1, 1)
    return tokenizer.decode(answer), probability if answer else 0.0


def _last_token(states: torch.Tensor) -> torch.Tensor:
    """The state of the last token, so that no logits are made for the others of a long prompt."""
    return states[:, -1:]


def preferences(
    model: nn.Module,
    tokenizer: TextTokenizer,
    prompts: Sequence[str],
    first: str,
    second: str | None,
    system_prompt: str | None = None,
    should_continue: ShouldContinue = lambda: True,
    *,
    special_tokens: str = "tokenizer",
) -> list[float]:
    """For each prompt the probability that it continues with `first`: against `second`, or where that is None against
    everything else.

    It is that of the first token in which the two differ; the tokens before it are put behind the prompt. Raises
    Stopped.
    """
    mine, other = tokenizer.encode(first), tokenizer.encode(second) if second is not None else []
    shared = 0
    while shared < min(len(mine), len(other)) - 1 and mine[shared] == other[shared]:
        shared += 1
    device, most = next(model.parameters()).device, max_tokens_of(model) or 0
    was_training, probabilities = model.training, []
    model.eval()
    try:
        with torch.no_grad():
            for prompt in prompts:
                check_stop(should_continue)
                ids = question_ids(prompt, tokenizer, system_prompt, chat=False, special_tokens=special_tokens)
                ids += mine[:shared]
                input_ids = torch.tensor([ids[-most:]], device=device)
                with reading_only(model, _last_token):
                    logits = model(input_ids=input_ids, use_cache=False).logits[0, -1].float()
                distribution = torch.softmax(logits, -1)
                of_first = float(distribution[mine[shared]])
                of_other = float(distribution[other[shared]]) if other else 1.0 - of_first
                probabilities.append(of_first / max(of_first + of_other, 1e-12))
    finally:
        model.train(was_training)
    return probabilities
