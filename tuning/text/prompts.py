"""Prompts as token ids, equal to those that training reads, and how long the longest of many is.

A prompt is a question that a person asks, or what stands before a row's answer. max_seq_length does not cut it, only
the model's context does.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from tuning.text import (
    Row,
    TextTokenizer,
    as_conversation,
    characters,
    plain_prompt_ids,
    text_before_completion,
    tokenize_rows,
)

TOKENIZED = 64
"""How many of many rows are tokenized to find the longest: those with the most characters. The row with the most tokens
is among them, unless its text is very unlike the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptLengths:
    """How long evaluation rows are as a method without updates writes them, in tokens and whole."""

    rows: int
    """How many rows were measured."""
    row: int
    """Tokens of the longest row, its answer included."""
    labels: int
    """The most label tokens of one row."""
    prompt: int
    """The most tokens before the answer of one row."""


def prompt_lengths(
    rows: Sequence[Row],
    tokenizer: TextTokenizer,
    loss_on: str,
    system_prompt: str | None,
    *,
    chat: bool = False,
    special_tokens: str = "tokenizer",
) -> PromptLengths:
    """Measure these rows, of which there is at least one, as the run will tokenize them."""
    tokenized = tokenize_rows(
        rows,
        tokenizer,
        loss_on=loss_on,
        task="causal_lm",
        system_prompt=system_prompt,
        chat=chat,
        special_tokens=special_tokens,
    )
    return PromptLengths(
        rows=len(rows),
        row=max(len(row.ids) for row in tokenized),
        labels=max(sum(row.trained[1:]) for row in tokenized),
        prompt=longest_prompt(rows, tokenizer, system_prompt, chat=chat, special_tokens=special_tokens),
    )


def question_ids(
    text: str,
    tokenizer: TextTokenizer,
    system_prompt: str | None,
    *,
    chat: bool,
    special_tokens: str = "tokenizer",
) -> list[int]:
    """The tokens of a question, not cut, as training reads a prompt.

    With `chat` it is a user's message in the model's chat template, and the system prompt is the system's message.
    """
    if chat:
        system = [{"role": "system", "content": system_prompt}] if system_prompt else []
        written = tokenizer.render_chat([*system, {"role": "user", "content": text}], add_generation_prompt=True)
        return tokenizer.encode(written)
    return plain_prompt_ids(text_before_completion(Row(prompt=text), system_prompt), tokenizer, special_tokens)


def answer_of(row: Row) -> str | None:
    """The answer that a row has; None for a row without one."""
    if row.completion is not None:
        return row.completion
    if row.messages and row.messages[-1].role == "assistant":
        return row.messages[-1].content
    return None


def prompt_ids(
    row: Row,
    tokenizer: TextTokenizer,
    system_prompt: str | None,
    *,
    chat: bool = False,
    special_tokens: str = "tokenizer",
) -> list[int]:
    """The tokens before the row's (last) answer, as training reads them, not cut."""
    (ids,) = _before_answers([row], tokenizer, system_prompt, chat, special_tokens)
    return ids


def longest_prompt(
    rows: Iterable[Row],
    tokenizer: TextTokenizer,
    system_prompt: str | None,
    *,
    chat: bool = False,
    special_tokens: str = "tokenizer",
) -> int:
    """The most tokens that stand before a row's answer, not cut; 0 where no row has an answer."""
    answered = (row for row in rows if answer_of(row) is not None)
    longest = heapq.nlargest(TOKENIZED, answered, key=_prompt_characters)
    return max(map(len, _before_answers(longest, tokenizer, system_prompt, chat, special_tokens)), default=0)


def _before_answers(
    rows: Sequence[Row], tokenizer: TextTokenizer, system_prompt: str | None, chat: bool, special_tokens: str
) -> list[list[int]]:
    """The tokens before the last answer of each row; all rows must be of one type."""
    loss_on = "last_turn" if rows and (chat or rows[0].messages is not None) else "response"
    end = tokenizer.written_end if chat else ""
    written = [as_conversation(row, end) if chat and row.completion is not None else row for row in rows]
    prompts = []
    for tokenized in tokenize_rows(
        list(map(_with_last_turn_learned, written)),
        tokenizer,
        loss_on=loss_on,
        task="causal_lm",
        system_prompt=system_prompt,
        special_tokens=special_tokens,
    ):
        answer = len(tokenized.trained)
        while answer and not tokenized.trained[answer - 1]:
            answer -= 1
        while answer and tokenized.trained[answer - 1]:
            answer -= 1
        prompts.append(tokenized.ids[:answer])
    return prompts


def _with_last_turn_learned(row: Row) -> Row:
    """The row with its last turn learned: a question is asked also where the data say not to learn its answer."""
    if row.messages is None or row.messages[-1].learned:
        return row
    return replace(row, messages=(*row.messages[:-1], replace(row.messages[-1], learned=True)))


def _prompt_characters(row: Row) -> int:
    """Characters of what stands before the row's answer."""
    answer = row.messages[-1].content if row.messages else row.completion or ""
    return characters(row) - len(answer)
