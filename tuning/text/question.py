"""A question to a model, as a checked value.

Comes in: what a person typed, or a file of prompts.  Goes out: a `Question`, or SettingsError with every fault.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tuning.core.errors import Problem, SettingsError

PROMPT_LENGTH, PROMPT_COUNT, MOST_NEW_TOKENS = 4_000, 64, 512
ANSWER_ROWS = 8
"""Evaluation rows that are answered at once; the clock and a stop are looked at in between."""


@dataclass(frozen=True, slots=True)
class Question:
    """Prompts and how to answer them. Raises SettingsError."""

    prompts: Sequence[str]
    max_new_tokens: int = 32
    temperature: float = 0.0
    """0 takes the likeliest token each time."""
    seed: int = 0
    chat: bool | None = None
    """Write each prompt as a user's message with the model's chat template; None asks a run as it was taught."""
    special_tokens: str = "tokenizer"
    """Which begin token stands before a prompt that is no chat, as data.special_tokens."""
    system_prompt: str | None = None
    """What the run was taught to read before each prompt."""

    def __post_init__(self) -> None:
        problems = prompt_problems(self.prompts)
        for field, low, high, kinds in (
            ("max_new_tokens", 1, MOST_NEW_TOKENS, (int,)),
            ("temperature", 0, 5, (int, float)),
            ("seed", 0, 2**31 - 1, (int,)),
        ):
            value = getattr(self, field)
            kind = "a number" if float in kinds else "a whole number"
            if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
                problems.append(Problem(field, value, f"{low} to {high}", f"needs {kind} from {low} to {high}."))
        if self.chat is not None and not isinstance(self.chat, bool):
            problems.append(Problem("chat", self.chat, "true, false or null", "must be true, false or null."))
        if problems:
            raise SettingsError(problems)
        object.__setattr__(self, "temperature", float(self.temperature))  # 2 is 2.0, which libraries insist on

    def written_as(self, texts: Sequence[str]) -> Question:
        """The same in the words of a method that acts in the prompt; those may be longer than what a person types."""
        other = copy.copy(self)
        object.__setattr__(other, "prompts", tuple(texts))
        return other


def prompt_problems(prompts: Any) -> list[Problem]:
    """What is wrong with prompts that a person typed."""
    limit = f"1 to {PROMPT_COUNT} texts of 1 to {PROMPT_LENGTH:,} characters"
    if not isinstance(prompts, Sequence) or isinstance(prompts, str) or not 1 <= len(prompts) <= PROMPT_COUNT:
        return [Problem("prompts", prompts, limit, f"Type something to ask: {limit}.")]
    for number, text in enumerate(prompts, 1):
        if not isinstance(text, str) or not text.strip() or len(text) > PROMPT_LENGTH:
            return [Problem("prompts", text, limit, f"Prompt {number} is empty or too long: type {limit}.")]
    return []
