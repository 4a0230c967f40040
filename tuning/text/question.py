"""A question to a model: the prompts that a person typed, or a file of them, checked as one `Question`."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tuning.core.errors import Problem, SettingsError

PROMPT_LENGTH, PROMPT_COUNT, MOST_NEW_TOKENS = 4_000, 64, 512
ANSWER_ROWS = 8
"""Evaluation rows that are answered together; between two such groups the time limit and a stop are checked."""


@dataclass(frozen=True, slots=True)
class Question:
    """Prompts and how to answer them. Raises SettingsError with every fault."""

    prompts: Sequence[str]
    max_new_tokens: int = 32
    temperature: float = 0.0
    """0 takes the most probable token each time."""
    seed: int = 0
    chat: bool | None = None
    """Whether each prompt is written as a user's message with the model's chat template; None: as in the run's
    training."""
    special_tokens: str = "tokenizer"
    """Which begin token stands before a prompt without a chat template: a value of data.special_tokens."""
    system_prompt: str | None = None
    """The system prompt that the run was trained with, put before each prompt."""

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
        object.__setattr__(self, "temperature", float(self.temperature))  # libraries want 2.0 for 2

    def with_prompts(self, texts: Sequence[str]) -> Question:
        """This question with other prompts, as a method writes them; they may be longer than a person may type."""
        question = copy.copy(self)
        object.__setattr__(question, "prompts", tuple(texts))
        return question


def prompt_problems(prompts: Any) -> list[Problem]:
    """The first fault of prompts that a person typed; empty where there is none."""
    limit = f"1 to {PROMPT_COUNT} texts of 1 to {PROMPT_LENGTH:,} characters"
    if not isinstance(prompts, Sequence) or isinstance(prompts, str) or not 1 <= len(prompts) <= PROMPT_COUNT:
        return [Problem("prompts", prompts, limit, f"Type something to ask: {limit}.")]
    for i, text in enumerate(prompts, 1):
        if not isinstance(text, str) or not text.strip() or len(text) > PROMPT_LENGTH:
            return [Problem("prompts", text, limit, f"Prompt {i} is empty or too long: type {limit}.")]
    return []
