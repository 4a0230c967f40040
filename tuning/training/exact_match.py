"""Whether the model writes the right answer: exact match over evaluation rows, within a time that is told.

Comes in: a built model, rows with an answer.  Goes out: what was written for each row, and how many are right.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tuning.core.errors import GoOn
from tuning.text import Row, TextTokenizer
from tuning.text.prompts import answer_of, prompt_ids
from tuning.text.question import ANSWER_ROWS
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


def write_answers(
    built: Built,
    tokenizer: TextTokenizer,
    rows: Sequence[Row],
    *,
    most: int,
    max_new_tokens: int,
    seconds: float,
    system_prompt: str | None,
    chat: bool,
    special_tokens: str,
    should_continue: GoOn,
    clock: Callable[[], float] = time.perf_counter,
) -> Written:
    """Answer the first `most` rows greedily, until `seconds` have passed. Raises Stopped where told to stop."""
    answered = ((number, row, answer) for number, row in enumerate(rows) if (answer := answer_of(row)) is not None)
    asked = [
        (number, ids, answer)
        for number, row, answer in itertools.islice(answered, most)
        if (ids := prompt_ids(row, tokenizer, system_prompt, chat=chat, special_tokens=special_tokens))
    ]
    result, began, speaker = Written(asked=len(asked)), clock(), Speaker(built.model, tokenizer, None, should_continue)
    for start in range(0, len(asked), ANSWER_ROWS):
        if clock() - began > seconds:
            return result
        part = asked[start : start + ANSWER_ROWS]
        with built.autocast():
            said = speaker.continued([ids for _, ids, _ in part], max_new_tokens)
        for (number, _, answer), text in zip(part, said, strict=True):
            result.texts[number] = text
            result.right += right(text, answer)
    return result
