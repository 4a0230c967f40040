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
        """The rows with the answers to learn, by whether the base model answers their questions right itself."""
        answers = answer([row.prompt or "" for row in rows])
        return [
            _rewritten(row, settings, known=is_known(row, text, confidence, settings.threshold))
            for row, (text, confidence) in zip(rows, answers, strict=True)
        ]

    def forms(self, row: Row, settings: RTuningSettings) -> tuple[Row, Row]:
        """The row in both ways that `prepare` may write it: as known, and as not known."""
        return _rewritten(row, settings, known=True), _rewritten(row, settings, known=False)

    def measure(
        self, rows: Sequence[Row], settings: RTuningSettings, answer: Answer, prefer: Prefer
    ) -> dict[str, float]:
        """Shares over questions with their true answers; average precision and AUROC of the certainty for being right.

        answer_rate: answered, not refused. accuracy: right among the answered. invented: answered wrongly, of all.
        """
        prompts = [row.prompt or "" for row in rows]
        answers = [text for text, _ in answer(prompts)]
        correct = [contains(text, row.completion or "") for row, text in zip(rows, answers, strict=True)]
        refused, certainty = _refusals(prompts, answers, settings, prefer)
        answered = [right for right, refusal in zip(correct, refused, strict=True) if not refusal]
        # an answer in the certainty form stands there even where the model says that it is unsure of it
        refusal_counts = settings.form == "refusal"
        hits = [right and not (refusal_counts and no) for right, no in zip(correct, refused, strict=True)]
        return {
            "answer_rate": len(answered) / len(rows),
            "accuracy": sum(answered) / max(1, len(answered)),
            "invented": (len(answered) - sum(answered)) / len(rows),
            "average_precision": average_precision(certainty, hits),
            "auroc": auroc(certainty, hits),
        }


def _refusals(
    prompts: Sequence[str], answers: Sequence[str], settings: RTuningSettings, prefer: Prefer
) -> tuple[list[bool], list[float]]:
    """Of each answer, whether it is a refusal, and how certain the model is, 0 to 1."""
    if settings.form == "refusal":
        refused = [contains(text, UNKNOWN) for text in answers]
        return refused, [1 - chance for chance in prefer(prompts, UNKNOWN, None)]
    refused = [contains(text, UNSURE) for text in answers]
    questions = [f"{prompt}{_answer_of(text)}{ASK}" for prompt, text in zip(prompts, answers, strict=True)]
    return refused, list(prefer(questions, SURE, UNSURE))


def is_known(row: Row, text: str, confidence: float, threshold: float) -> bool:
    """Whether the base model's answer `text` holds the true one, and is sure enough."""
    return contains(text, row.completion or "") and confidence >= threshold


def contains(text: str, answer: str) -> bool:
    """Whether the words of `answer` stand in the text one after another; case and punctuation do not count."""
    words, target = _words(text), _words(answer)
    return bool(target) and any(words[i : i + len(target)] == target for i in range(len(words) - len(target) + 1))


def average_precision(scores: Sequence[float], hits: Sequence[bool]) -> float:
    """The mean of the precision at each hit, most certain first; 0 without any hit."""
    order = sorted(range(len(scores)), key=lambda index: -scores[index])
    hits_before, total = 0, 0.0
    for rank, index in enumerate(order, 1):
        if hits[index]:
            hits_before += 1
            total += hits_before / rank
    return total / hits_before if hits_before else 0.0


def auroc(scores: Sequence[float], hits: Sequence[bool]) -> float:
    """The chance that a hit is more certain than a miss, ties counting half; 0.5 where there is only one kind."""
    positives = [score for score, hit in zip(scores, hits, strict=True) if hit]
    negatives = [score for score, hit in zip(scores, hits, strict=True) if not hit]
    if not positives or not negatives:
        return 0.5
    wins = sum((hit > miss) + 0.5 * (hit == miss) for hit in positives for miss in negatives)
    return wins / (len(positives) * len(negatives))


def _rewritten(row: Row, settings: RTuningSettings, *, known: bool) -> Row:
    """The row with the answer to learn, where the base model knows the true answer or does not."""
    if settings.form == "refusal":
        return row if known else replace(row, completion=UNKNOWN)
    return replace(row, completion=f"{row.completion}{ASK}{SURE if known else UNSURE}")


def _answer_of(text: str) -> str:
    """The answer alone, without the words behind it on how sure the model is."""
    return text.split(ASK)[0]


def _words(text: str) -> list[str]:
    return re.findall(r"[\w']+", text.lower())


RECIPE = RTuning()
