"""What a model says: one or many prompts, greedy or drawn, whole or word by word.

Comes in: a model, its tokenizer, a `Question`.  Goes out: texts; for a classifier the probability of each class.
Writing is the library's own `generate`, so that whatever a method has put on the model takes part.  What it draws, it
draws from a generator put back afterwards: asking a model in the middle of its training changes nothing about it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from tuning.core.errors import GoOn, RunError, check_stop
from tuning.models.families import POSITIONS
from tuning.models.shapes import shape_from_config
from tuning.text import TextTokenizer
from tuning.text.prompts import question_ids
from tuning.text.question import Question
from tuning.training.loss import last_states_only

Say = Callable[[int, str], None]
"""Told the number of a prompt and the next piece of its answer."""
_BATCH = 32


class Speaker:
    """A model that answers. The model's mode and torch's generators are as before after each call, also where it ends
    with Stopped: `should_continue` is asked before each token, and before each text that gets a class."""

    def __init__(
        self,
        model: nn.Module,
        tokenizer: TextTokenizer,
        labels: Sequence[str] | None = None,
        should_continue: GoOn = lambda: True,
    ) -> None:
        self._model, self._tokenizer, self._labels, self._should_continue = model, tokenizer, labels, should_continue

    def answers(self, question: Question, say: Say | None = None) -> list[str]:
        """A text for each prompt; `say` hears it piece by piece. A classifier names its class and how sure it is."""
        if self._labels is not None:
            said = [_likeliest(chances) for chances in self.chances(question.prompts)]
            for number, text in enumerate(said):
                if say is not None:
                    say(number, text)
            return said
        with _asked(self._model), torch.no_grad(), torch.random.fork_rng(devices=self._cuda()):
            said = []
            for number, prompt in enumerate(question.prompts):
                torch.random.manual_seed(question.seed)
                listener = _Listener(self._tokenizer, number, say) if say is not None else None
                ids = [self._ids(prompt, question)]
                said += self._written(ids, question.max_new_tokens, question.temperature, listener)
        return said

    def continued(self, rows: Sequence[list[int]], max_new_tokens: int) -> list[str]:
        """Greedy answers to prompts in tokens, many at once: quicker, and equal to `answers` up to rounding."""
        prompts = [fitting(ids, self._model, max_new_tokens) for ids in rows]
        order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
        said = [""] * len(prompts)
        with _asked(self._model), torch.no_grad():
            for start in range(0, len(order), _BATCH):
                part = order[start : start + _BATCH]
                texts = self._written([prompts[index] for index in part], max_new_tokens, 0.0, None)
                for index, text in zip(part, texts, strict=True):
                    said[index] = text
        return said

    def chances(self, texts: Sequence[str]) -> list[dict[str, float]]:
        """For each text the probability of each class, the likeliest first."""
        device, found = next(self._model.parameters()).device, []
        with _asked(self._model), torch.no_grad():
            for text in texts:
                check_stop(self._should_continue)
                ids = self._tokenizer.encode_with_specials(text)[: room_of(self._model) or None]
                if not ids:
                    raise RunError("The prompt is empty; write a text to classify.")
                given = torch.tensor([ids], device=device)
                with last_states_only(self._model, torch.ones_like(given)):
                    logits = self._model(input_ids=given).logits[0].float()
                pairs = zip(self._labels or (), torch.softmax(logits, -1).tolist(), strict=True)
                found.append(dict(sorted(pairs, key=lambda pair: -pair[1])))
        return found

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
        return fitting(ids, self._model, question.max_new_tokens)

    def _cuda(self) -> list[torch.device]:
        device = next(self._model.parameters()).device
        return [device] if device.type == "cuda" else []

    def _written(
        self, rows: list[list[int]], max_new_tokens: int, temperature: float, listener: _Listener | None
    ) -> list[str]:
        from transformers import GenerationConfig

        check_stop(self._should_continue)
        device, width = next(self._model.parameters()).device, max(map(len, rows))
        pad = self._tokenizer.pad_id or 0
        ids = torch.tensor([[pad] * (width - len(row)) + row for row in rows], device=device)
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=device)
        count = room_for_answer(self._model, width, max_new_tokens)
        drawn, ends = temperature > 0, ends_of(self._model, self._tokenizer)
        config = GenerationConfig(
            max_new_tokens=count,
            do_sample=drawn,
            temperature=temperature if drawn else None,
            top_k=0 if drawn else None,
            top_p=1.0 if drawn else None,
            pad_token_id=pad,
            eos_token_id=sorted(ends) or None,
            bos_token_id=self._tokenizer.bos_id,
        )
        generate: Any = self._model.generate
        with _writing_as(self._model, config):
            made = generate(
                input_ids=ids,
                attention_mask=mask,
                generation_config=config,
                streamer=listener,
                stopping_criteria=[self._after_token],
            )
        return [self._tokenizer.decode(_until(row[width:], ends)) for row in made.tolist()]

    def _after_token(self, ids: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        """A criterion of `generate`, which asks it after each token: never an end of its own, Stopped where told so."""
        check_stop(self._should_continue)
        return torch.zeros(len(ids), dtype=torch.bool, device=ids.device)


def room_of(model: Any) -> int | None:
    """Tokens that a model has places for, prompt and answer together: its positions without those that come before a
    text (the padding token's, a method's virtual tokens). None where its config does not say."""
    config = model.config.to_dict()
    if not any(isinstance(config.get(name), int) for name in POSITIONS):
        return None
    adapter = getattr(model, "active_peft_config", None)
    virtual = getattr(adapter, "num_virtual_tokens", None) or 0
    return max(1, shape_from_config(config).max_positions - virtual)


def fitting(ids: list[int], model: Any, max_new_tokens: int) -> list[int]:
    """The end of a long prompt, with room for an answer in the model's positions."""
    room = room_of(model)
    return ids if room is None else ids[-max(1, room - min(max_new_tokens, room - 1)) :]


def room_for_answer(model: Any, prompt: int, max_new_tokens: int) -> int:
    """How many of the wanted tokens have a place behind a prompt of so many."""
    room = room_of(model)
    return max_new_tokens if room is None else max(1, min(max_new_tokens, room - prompt))


class _Listener:
    """Hears tokens as `generate` makes them and passes on whole characters (the streamer's protocol)."""

    def __init__(self, tokenizer: TextTokenizer, number: int, say: Say) -> None:
        self._tokenizer, self._number, self._say = tokenizer, number, say
        self._ids: list[int] = []
        self._said = ""
        self._begun = False

    def put(self, value: torch.Tensor) -> None:
        if not self._begun:  # the prompt comes first
            self._begun = True
            return
        self._ids += value.flatten().tolist()
        text = self._tokenizer.decode(self._ids)
        if not text.endswith("\ufffd"):  # half of a character is held back
            self._pass_on(text)

    def end(self) -> None:
        self._pass_on(self._tokenizer.decode(self._ids))

    def _pass_on(self, text: str) -> None:
        if text.startswith(self._said) and len(text) > len(self._said):
            self._say(self._number, text[len(self._said) :])
            self._said = text


@contextmanager
def _asked(model: nn.Module) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


@contextmanager
def _writing_as(model: nn.Module, config: Any) -> Iterator[None]:
    """Within this the model's own wishes for writing (penalties, beams, guidance, forced tokens) are out of the way.

    What a generation config leaves open, the library fills from the model's; greedy is then not the likeliest token.
    """
    owners: list[Any] = [one for one in model.modules() if "generation_config" in vars(one)]
    before = [one.generation_config for one in owners]
    for one in owners:
        one.generation_config = config
    try:
        yield
    finally:
        for one, own in zip(owners, before, strict=True):
            one.generation_config = own


def ends_of(model: Any, tokenizer: TextTokenizer) -> set[int]:
    """The tokens that end an answer: the tokenizer's end, and those that the model's folder names."""
    found: set[int | None] = {tokenizer.eos_id}
    for config in (model.config, getattr(model, "generation_config", None)):
        ends = getattr(config, "eos_token_id", None)
        found |= set(ends) if isinstance(ends, list) else {ends}
    return {one for one in found if one is not None}


def _until(ids: list[int], ends: set[int]) -> list[int]:
    stop = next((place for place, token in enumerate(ids) if token in ends), len(ids))
    return ids[:stop]


def _likeliest(chances: dict[str, float]) -> str:
    label = next(iter(chances))
    return f"{label} ({chances[label]:.0%})"
