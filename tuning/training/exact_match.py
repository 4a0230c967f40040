"""Exact match: the share of evaluation rows whose answer the model writes, within a time budget.

Rows that did not fit into the time are counted, so that they can be reported.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tuning.core.errors import ShouldContinue
from tuning.text import Row, TextTokenizer
from tuning.text.prompts import answer_of, prompt_ids
from tuning.text.question import ANSWER_ROWS
from tuning.training.build import Built
from tuning.training.generate import TextGenerator


@dataclass(slots=True)
class WrittenAnswers:
    """Generated answers by the index of their evaluation row."""

    texts: dict[int, str] = field(default_factory=dict)
    right: int = 0
    row_count: int = 0
    """Rows to be answered: more than `texts` has where the time was up."""

    @property
    def exact_match(self) -> float:
        """The share of the answered rows that are right; NaN where none was answered."""
        return self.right / len(self.texts) if self.texts else math.nan


def is_right(text: str, answer: str) -> bool:
    """Whether the generated text is the answer, without the space around it, in as many lines as the answer has.

    Later lines do not count: a base model continues with a next question there, which `max_new_tokens` cuts anywhere.
    """
    target = answer.strip()
    return "\n".join(text.strip().split("\n")[: 1 + target.count("\n")]).rstrip() == target


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
    should_continue: ShouldContinue,
    clock: Callable[[], float] = time.perf_counter,
) -> WrittenAnswers:
    """Answer the first `most` rows greedily, until `seconds` have passed. Raises Stopped."""
    with_answer = ((index, row, answer) for index, row in enumerate(rows) if (answer := answer_of(row)) is not None)
    prompts = [
        (index, ids, answer)
        for index, row, answer in itertools.islice(with_answer, most)
        if (ids := prompt_ids(row, tokenizer, system_prompt, chat=chat, special_tokens=special_tokens))
    ]
    written, start_time = WrittenAnswers(row_count=len(prompts)), clock()
    generator = TextGenerator(built.model, tokenizer, None, should_continue)
    for start in range(0, len(prompts), ANSWER_ROWS):
        if clock() - start_time > seconds:
            return written
        batch = prompts[start : start + ANSWER_ROWS]
        with built.autocast():
            texts = generator.continuations([ids for _, ids, _ in batch], max_new_tokens)
        for (index, _, answer), text in zip(batch, texts, strict=True):
            written.texts[index] = text
            written.right += is_right(text, answer)
    return written
