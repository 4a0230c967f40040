"""Whether the model writes the right answer: exact match over evaluation rows, within a time that is told.

Comes in: a built model, rows with an answer.  Goes out: what was written for each row, and how many are right.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tuning.question import ANSWER_ROWS, Question
from tuning.text import Row, TextTokenizer
from tuning.training.build import Built
from tuning.training.generate import Speaker


@dataclass(slots=True)
class Written:
    """What was written, by the number of the evaluation row."""

    texts: dict[int, str] = field(default_factory=dict)
    right: int = 0
    asked: int = 0
    """Rows that were meant to be answered; more than `texts` holds where the time was up."""

    @property
    def exact_match(self) -> float:
        """The share of answered rows that are `right`; NaN where none was answered."""
        return self.right / len(self.texts) if self.texts else math.nan


def right(text: str, answer: str) -> bool:
    """Whether the written text says the answer, but for space around it, in as many lines as the answer has.

    What comes on later lines does not count: a model that only goes on with texts writes a next question there, and
    `max_new_tokens` cuts it anywhere.
    """
    wanted = answer.strip()
    return "\n".join(text.strip().split("\n")[: 1 + wanted.count("\n")]).rstrip() == wanted


def question_and_answer(row: Row) -> tuple[str, str, bool] | None:
    """What to ask, what to expect, and whether it is a chat; None for a row without an answer of its own."""
    if row.completion is not None:
        return row.prompt or "", row.completion, False
    if row.messages and len(row.messages) >= 2 and row.messages[-1][0] == "assistant" and row.messages[-2][0] == "user":
        return row.messages[-2][1], row.messages[-1][1], True
    return None


def write_answers(
    built: Built, tokenizer: TextTokenizer, rows: Sequence[Row], *, most: int, max_new_tokens: int, seconds: float,
    seed: int, go_on: Callable[[], bool], clock: Callable[[], float] = time.perf_counter,
) -> Written:  # fmt: skip
    """Answer the first `most` rows greedily, until `seconds` are up or `go_on` says no."""
    asked = [(number, found) for number, row in enumerate(rows) if (found := question_and_answer(row)) is not None]
    asked = [one for one in asked if one[1][0].strip()][:most]
    result, began, speaker = Written(asked=len(asked)), clock(), Speaker(built.model, tokenizer)
    for chat in (False, True):
        chosen = [(number, prompt, answer) for number, (prompt, answer, is_chat) in asked if is_chat is chat]
        for start in range(0, len(chosen), ANSWER_ROWS):
            if clock() - began > seconds or not go_on():
                return result
            part = chosen[start : start + ANSWER_ROWS]
            with built.autocast():
                said = speaker.written(Question([prompt for _, prompt, _ in part], max_new_tokens, 0.0, seed, chat))
            for (number, _, answer), text in zip(part, said, strict=True):
                result.texts[number] = text
                result.right += right(text, answer)
    return result
