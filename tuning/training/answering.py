"""What a base model answers, and how sure it is: for methods that act in the prompt, and for recipes.

Comes in: a model, prompts.  Goes out: (answer, confidence) for each, greedy; and the evaluation rows as a method that
trains nothing writes them, encoded for the same evaluation that trained runs have.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from tuning.data import bundled_folder, encode_pairs, open_data
from tuning.methods.base import Asked, Method
from tuning.plan import Plan
from tuning.text import Encoded, Row, TextTokenizer

Tell = Callable[[int, int], bool]
"""Told how many prompts of how many are answered; False ends the answering."""


def prompted_rows(
    plan: Plan, method: Method, model: nn.Module, tokenizer: TextTokenizer, tell: Tell
) -> list[tuple[Row, Encoded]]:
    """The evaluation rows as `method` writes them. Only the model's context cuts them, not max_seq_length."""
    settings = plan.settings
    data = open_data(settings.data, settings.task, settings.seed)

    def answer(prompts: Sequence[str]) -> list[tuple[str, float]]:
        return answers_with_confidence(model, tokenizer, prompts, settings.eval.max_new_tokens, tell)

    asked = Asked(
        train=list(data.train), eval=list(data.eval), answer=answer, data_folder=bundled_folder(settings.data.source),
        seed=settings.seed,
    )  # fmt: skip
    rows = method.prompts(asked, settings.method)
    whole = replace(settings.data, max_seq_length=plan.model.shape.max_positions)
    return list(encode_pairs(rows, tokenizer, whole, settings.task))


def answers_with_confidence(
    model: nn.Module, tokenizer: TextTokenizer, prompts: Sequence[str], max_new_tokens: int,
    tell: Tell = lambda done, total: True,
) -> list[tuple[str, float]]:  # fmt: skip
    """The greedy answer to each prompt up to its end or line end, and the mean probability of its tokens."""
    was_training = model.training
    model.eval()
    found = []
    try:
        with torch.no_grad():
            for number, prompt in enumerate(prompts):
                if not tell(number, len(prompts)):
                    found += [("", 0.0)] * (len(prompts) - number)
                    break
                found.append(_answer(model, tokenizer, prompt, max_new_tokens))
    finally:
        model.train(was_training)
    return found


def _answer(model: Any, tokenizer: TextTokenizer, prompt: str, max_new_tokens: int) -> tuple[str, float]:
    device = next(model.parameters()).device
    begin = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    given = torch.tensor([[*begin, *tokenizer.encode(prompt)]], device=device)
    past, said, chances = None, [], []
    for _ in range(max_new_tokens):
        output = model(input_ids=given, past_key_values=past, use_cache=True)
        past = output.past_key_values
        best = torch.softmax(output.logits[0, -1].float(), -1).max(0)
        chances.append(float(best.values))
        if int(best.indices) == tokenizer.eos_id or "\n" in tokenizer.decode([int(best.indices)]):
            break
        said.append(int(best.indices))
        given = best.indices.view(1, 1)
    return tokenizer.decode(said), sum(chances) / len(chances)
