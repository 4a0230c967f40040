"""Text generation: one or many prompts, greedy or sampled, whole or token by token.

Tokens come from transformers' own `generate`, so that whatever a method has added to the model takes part. torch's
random generators are restored afterwards: a question in the middle of a training changes nothing about it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from tuning.core.errors import RunError, ShouldContinue, check_stop
from tuning.models.families import POSITIONS
from tuning.models.shapes import shape_from_config
from tuning.text import TextTokenizer
from tuning.text.prompts import question_ids
from tuning.text.question import Question
from tuning.training.loss import last_states_only

OnText = Callable[[int, str], None]
"""Called with the index of a prompt and the next piece of its answer."""
_BATCH = 32


class TextGenerator:
    """A model with its tokenizer that answers prompts.

    The model's mode and torch's random generators are as before after each call. `should_continue` is called before
    each token and each text to classify; where it answers False the call raises Stopped.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: TextTokenizer,
        class_names: Sequence[str] | None = None,
        should_continue: ShouldContinue = lambda: True,
    ) -> None:
        self._model, self._tokenizer, self._class_names, self._should_continue = (
            model,
            tokenizer,
            class_names,
            should_continue,
        )

    def answers(self, question: Question, on_text: OnText | None = None) -> list[str]:
        """A text for each prompt, which `on_text` gets piece by piece. That of a classifier is its likeliest class."""
        if self._class_names is not None:
            answers = [_likeliest(probabilities) for probabilities in self.class_probabilities(question.prompts)]
            for index, text in enumerate(answers):
                if on_text is not None:
                    on_text(index, text)
            return answers
        with _evaluation_mode(self._model), torch.no_grad(), torch.random.fork_rng(devices=self._cuda()):
            answers = []
            for index, prompt in enumerate(question.prompts):
                torch.random.manual_seed(question.seed)
                streamer = _Streamer(self._tokenizer, index, on_text) if on_text is not None else None
                ids = [self._ids(prompt, question)]
                answers += self._generate(ids, question.max_new_tokens, question.temperature, streamer)
        return answers

    def continuations(self, rows: Sequence[list[int]], max_new_tokens: int) -> list[str]:
        """Greedy answers to prompts given as tokens, in batches: faster, and equal to `answers` up to rounding."""
        prompts = [fit_prompt(ids, self._model, max_new_tokens) for ids in rows]
        order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
        answers = [""] * len(prompts)
        with _evaluation_mode(self._model), torch.no_grad():
            for start in range(0, len(order), _BATCH):
                part = order[start : start + _BATCH]
                texts = self._generate([prompts[index] for index in part], max_new_tokens, 0.0, None)
                for index, text in zip(part, texts, strict=True):
                    answers[index] = text
        return answers

    def class_probabilities(self, texts: Sequence[str]) -> list[dict[str, float]]:
        """For each text the probability of each class, the likeliest first. Raises RunError for an empty text."""
        device, probabilities = next(self._model.parameters()).device, []
        with _evaluation_mode(self._model), torch.no_grad():
            for text in texts:
                check_stop(self._should_continue)
                ids = self._tokenizer.encode_with_specials(text)[: max_tokens_of(self._model) or None]
                if not ids:
                    raise RunError("The prompt is empty; write a text to classify.")
                given = torch.tensor([ids], device=device)
                with last_states_only(self._model, torch.ones_like(given)):
                    logits = self._model(input_ids=given).logits[0].float()
                pairs = zip(self._class_names or (), torch.softmax(logits, -1).tolist(), strict=True)
                probabilities.append(dict(sorted(pairs, key=lambda pair: -pair[1])))
        return probabilities

    def _ids(self, prompt: str, question: Question) -> list[int]:
        ids = question_ids(
            prompt,
            self._tokenizer,
            question.system_prompt,
            chat=bool(question.chat),
            special_tokens=question.special_tokens,
        )
        if not ids:
            raise RunError("The prompt is empty; write something for the model to go on from.")
        return fit_prompt(ids, self._model, question.max_new_tokens)

    def _cuda(self) -> list[torch.device]:
        device = next(self._model.parameters()).device
        return [device] if device.type == "cuda" else []

    def _generate(
        self, rows: list[list[int]], max_new_tokens: int, temperature: float, streamer: _Streamer | None
    ) -> list[str]:
        from transformers import GenerationConfig

        check_stop(self._should_continue)
        device, width = next(self._model.parameters()).device, max(map(len, rows))
        pad = self._tokenizer.pad_id or 0
        ids = torch.tensor([[pad] * (width - len(row)) + row for row in rows], device=device)
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=device)
        new_tokens = answer_tokens(self._model, width, max_new_tokens)
        sampled, ends = temperature > 0, end_tokens(self._model, self._tokenizer)
        config = GenerationConfig(
            max_new_tokens=new_tokens,
            do_sample=sampled,
            temperature=temperature if sampled else None,
            top_k=0 if sampled else None,
            top_p=1.0 if sampled else None,
            pad_token_id=pad,
            eos_token_id=sorted(ends) or None,
            bos_token_id=self._tokenizer.bos_id,
        )
        generate: Any = self._model.generate
        with _generation_config(self._model, config):
            output = generate(
                input_ids=ids,
                attention_mask=mask,
                generation_config=config,
                streamer=streamer,
                stopping_criteria=[self._after_token],
            )
        return [self._tokenizer.decode(_before_end(row[width:], ends)) for row in output.tolist()]

    def _after_token(self, ids: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        """A stopping criterion, which `generate` calls after each token: it never ends a text. Raises Stopped."""
        check_stop(self._should_continue)
        return torch.zeros(len(ids), dtype=torch.bool, device=ids.device)


def max_tokens_of(model: Any) -> int | None:
    """The tokens that prompt and answer may have together; None where the model's config does not say.

    These are the model's positions without those in front of a text (the padding token's, a method's virtual tokens).
    """
    config = model.config.to_dict()
    if not any(isinstance(config.get(name), int) for name in POSITIONS):
        return None
    adapter = getattr(model, "active_peft_config", None)
    virtual = getattr(adapter, "num_virtual_tokens", None) or 0
    return max(1, shape_from_config(config).max_positions - virtual)


def fit_prompt(ids: list[int], model: Any, max_new_tokens: int) -> list[int]:
    """The last tokens of a long prompt, so that an answer fits behind them."""
    most = max_tokens_of(model)
    return ids if most is None else ids[-max(1, most - min(max_new_tokens, most - 1)) :]


def answer_tokens(model: Any, prompt_tokens: int, max_new_tokens: int) -> int:
    """How many of `max_new_tokens` fit behind a prompt of so many tokens."""
    most = max_tokens_of(model)
    return max_new_tokens if most is None else max(1, min(max_new_tokens, most - prompt_tokens))


class _Streamer:
    """Passes on whole characters of an answer as `generate` makes its tokens (transformers' streamer protocol)."""

    def __init__(self, tokenizer: TextTokenizer, index: int, on_text: OnText) -> None:
        self._tokenizer, self._index, self._on_text = tokenizer, index, on_text
        self._ids: list[int] = []
        self._passed_on = ""
        self._begun = False

    def put(self, value: torch.Tensor) -> None:
        if not self._begun:  # the prompt comes first
            self._begun = True
            return
        self._ids += value.flatten().tolist()
        text = self._tokenizer.decode(self._ids)
        if not text.endswith("\ufffd"):  # the first bytes of a character wait for the others
            self._pass_on(text)

    def end(self) -> None:
        self._pass_on(self._tokenizer.decode(self._ids))

    def _pass_on(self, text: str) -> None:
        if text.startswith(self._passed_on) and len(text) > len(self._passed_on):
            self._on_text(self._index, text[len(self._passed_on) :])
            self._passed_on = text


@contextmanager
def _evaluation_mode(model: nn.Module) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


@contextmanager
def _generation_config(model: nn.Module, config: Any) -> Iterator[None]:
    """Within this context `config` stands in for the model's own generation config (penalties, beams, forced tokens).

    `generate` fills in from the model's own what the config that it is given leaves open; greedy is then not the
    likeliest token.
    """
    owners: list[Any] = [module for module in model.modules() if "generation_config" in vars(module)]
    before = [owner.generation_config for owner in owners]
    for owner in owners:
        owner.generation_config = config
    try:
        yield
    finally:
        for owner, own in zip(owners, before, strict=True):
            owner.generation_config = own


def end_tokens(model: Any, tokenizer: TextTokenizer) -> set[int]:
    """The tokens that end an answer: the tokenizer's end of text, and those that the model's folder names."""
    tokens: set[int | None] = {tokenizer.eos_id}
    for config in (model.config, getattr(model, "generation_config", None)):
        ends = getattr(config, "eos_token_id", None)
        tokens |= set(ends) if isinstance(ends, list) else {ends}
    return {token for token in tokens if token is not None}


def _before_end(ids: list[int], ends: set[int]) -> list[int]:
    end = next((index for index, token in enumerate(ids) if token in ends), len(ids))
    return ids[:end]


def _likeliest(probabilities: dict[str, float]) -> str:
    label = next(iter(probabilities))
    return f"{label} ({probabilities[label]:.0%})"
