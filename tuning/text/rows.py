"""One example of the data: as text with its roles (`Row`), and as tokens with which of them are learned (`EncodedRow`).

Readers of data make rows, the tokenizer makes tokens of them, and the training loop reads those.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a conversation, with the role names of chat templates."""

    role: str
    content: str
    learned: bool = True
    """False where the data say that this turn is not to be learned (weight 0, train false). Only turns of the
    assistant are ever learned, unless loss_on is `all`."""
    extra: str = ""
    """Further keys of the message that a chat template may write (tool_calls, name, tool_call_id, reasoning_content),
    as one JSON object; empty where there are none. Text, so that rows can be compared and hashed."""

    def message(self) -> dict[str, Any]:
        """The turn as the object that a chat template reads."""
        return {"role": self.role, "content": self.content, **(json.loads(self.extra) if self.extra else {})}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One example as text. Its type follows from the fields that are set: text, prompt and completion, or messages."""

    text: str | None = None
    text_pair: str | None = None
    """The second text of a pair, in the tokenizer's own form for pairs; for classes only."""
    prompt: str | None = None
    completion: str | None = None
    messages: tuple[Turn, ...] | None = None
    system: str | None = None
    """This row's own system prompt, in place of data.system_prompt."""
    history: tuple[tuple[str, str], ...] = ()
    """Earlier questions and answers of a prompt with a completion, oldest first."""
    tools: str | None = None
    """The tools of a conversation as JSON (a list of function schemas), for the chat template."""
    label: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedRow:
    """One example as tokens; `trained[i]` says that predicting token i counts in the loss."""

    ids: list[int]
    trained: list[bool]
    label: int | None
    cut: bool
    """Whether the row was longer than max_seq_length."""
    types: list[int] | None = None
    """The text that each token belongs to, 0 or 1, where the tokenizer distinguishes the two of a pair
    (token_type_ids)."""

    @property
    def trained_tokens(self) -> int:
        """How many labels the loss counts; the first token is never one, for nothing stands before it."""
        return sum(self.trained[1:])


def characters(row: Row) -> int:
    """Characters of all texts of the row together."""
    texts = (row.text, row.text_pair, row.prompt, row.completion, row.system, row.tools)
    plain = sum(len(text) for text in texts if text)
    history = sum(len(question) + len(answer) for question, answer in row.history)
    return plain + history + sum(len(turn.content) + len(turn.extra) for turn in row.messages or ())
