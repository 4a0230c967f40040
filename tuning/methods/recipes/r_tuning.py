"""R-Tuning: teach a model to say what it does not know (Zhang et al. 2023, arXiv 2311.09677).

The answers of the training rows are rewritten to say whether the base model knew them. After the training it measures
how often the model answers, is right and invents, and how well its certainty tells right from wrong.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field

from tuning.methods.recipes.base import Answer, Prefer, RecipeSettings
from tuning.text import Row

ASK, SURE, UNSURE = " Are you sure? I am", " sure.", " unsure."
UNKNOWN = " I don't know."


class RTuningSettings(RecipeSettings):
    name: str = "r_tuning"
    form: Literal["refusal", "certainty"] = "refusal"
    """refusal puts "I don't know." in place of answers the base lacks; certainty adds sure or unsure to each answer."""
    threshold: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """A question counts as known where the base answers it right and at least this sure. Higher refuses more."""


class RTuning:
    name = "r_tuning"
    title = "R-Tuning"
    card = (
        "Splits the training questions by whether the base model already answers them, and teaches the difference: the "
        "published form keeps every answer and adds how sure one may be; the refusal form replaces answers the model "
        "does not know. On models of a few million weights the refusal form works, the published one hardly."
    )
    source = "Zhang et al. 2023, arXiv 2311.09677"
    settings = RTuningSettings

    def prepare(self, rows: Sequence[Row], settings: RTuningSettings, answer: Answer) -> list[Row]:
        """The rows with the answers to learn; known is what the base model says itself."""
        said = answer([row.prompt or "" for row in rows])
        return [
            _taught(row, settings, known(row, *one, settings.threshold)) for row, one in zip(rows, said, strict=True)
        ]

    def forms(self, row: Row, settings: RTuningSettings) -> tuple[Row, Row]:
        """The row in both ways that `prepare` may write it: as known, and as not known."""
        return _taught(row, settings, True), _taught(row, settings, False)

    def measure(
        self, rows: Sequence[Row], settings: RTuningSettings, answer: Answer, prefer: Prefer
    ) -> dict[str, float]:
        """Shares over questions with their true answers; average precision and AUROC of the certainty for being right.

        answer_rate: answered, not refused. accuracy: right among the answered. invented: answered wrongly, of all.
        """
        said = [text for text, _ in answer([row.prompt or "" for row in rows])]
        right = [contains(text, row.completion or "") for row, text in zip(rows, said, strict=True)]
        if settings.form == "refusal":
            refused = [contains(text, UNKNOWN) for text in said]
            sure = [1 - one for one in prefer([row.prompt or "" for row in rows], UNKNOWN, None)]
        else:
            refused = [contains(text, UNSURE) for text in said]
            heads = [f"{row.prompt}{_answer_of(text)}{ASK}" for row, text in zip(rows, said, strict=True)]
            sure = list(prefer(heads, SURE, UNSURE))
        answered = [hit for hit, no in zip(right, refused, strict=True) if not no]
        good = [hit and (settings.form == "certainty" or not no) for hit, no in zip(right, refused, strict=True)]
        return {
            "answer_rate": len(answered) / len(rows),
            "accuracy": sum(answered) / max(1, len(answered)),
            "invented": (len(answered) - sum(answered)) / len(rows),
            "average_precision": average_precision(sure, good),
            "auroc": auroc(sure, good),
        }


def known(row: Row, text: str, confidence: float, threshold: float) -> bool:
    """Whether the base model's answer holds the true one, and is sure enough."""
    return contains(text, row.completion or "") and confidence >= threshold


def contains(text: str, wanted: str) -> bool:
    """Whether the words of `wanted` stand in the text one after another; case and punctuation do not count."""
    words, asked = _words(text), _words(wanted)
    return bool(asked) and any(words[at : at + len(asked)] == asked for at in range(len(words) - len(asked) + 1))


def average_precision(scores: Sequence[float], hits: Sequence[bool]) -> float:
    """The mean of the precision at each hit, most certain first; 0 without any hit."""
    order = sorted(range(len(scores)), key=lambda index: -scores[index])
    found, total = 0, 0.0
    for place, index in enumerate(order, 1):
        if hits[index]:
            found += 1
            total += found / place
    return total / found if found else 0.0


def auroc(scores: Sequence[float], hits: Sequence[bool]) -> float:
    """The chance that a hit is more certain than a miss, ties counting half; 0.5 where there is only one kind."""
    good = [score for score, hit in zip(scores, hits, strict=True) if hit]
    bad = [score for score, hit in zip(scores, hits, strict=True) if not hit]
    if not good or not bad:
        return 0.5
    wins = sum((one > other) + 0.5 * (one == other) for one in good for other in bad)
    return wins / (len(good) * len(bad))


def _taught(row: Row, settings: RTuningSettings, is_known: bool) -> Row:
    if settings.form == "refusal":
        return row if is_known else replace(row, completion=UNKNOWN)
    return replace(row, completion=f"{row.completion}{ASK}{SURE if is_known else UNSURE}")


def _answer_of(text: str) -> str:
    """The answer without what is said about it."""
    return text.split(ASK)[0]


def _words(text: str) -> list[str]:
    return re.findall(r"[\w']+", text.lower())


RECIPE = RTuning()
