"""Retrieval: nothing is trained; passages that fit the question are put before it."""

from __future__ import annotations

import json
import math
import os
import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from tuning.core.errors import Problem
from tuning.core.fields import WHOLE, Text
from tuning.core.visitor import path_refusal
from tuning.methods.base import MethodInputs, MethodSettings, PromptInputs
from tuning.methods.prompt_engineering import UntrainedMethod, longest_questions, no_questions
from tuning.text import Row

INDEX_BYTES = 256 * 2**20
"""The largest index: it is held in memory."""


class RetrievalSettings(MethodSettings):
    name: str = "retrieval"
    index: Text | None = None
    """A JSONL file with a column passage (or text); empty takes the passages that come with the bundled data."""
    top_k: Annotated[int, Field(ge=1, le=32), WHOLE] = 1
    """How many passages are put before each question. More find more, and distract more."""
    policy: Literal["naive", "conflict_aware"] = "naive"
    """naive trusts every passage; conflict_aware keeps the model's own answer where it is sure of another one."""
    threshold: Annotated[float, Field(ge=0.0, le=1.0)] = 0.2
    """For conflict_aware: how sure the model must be, by the chance it gives its whole answer. The bundled model is
    above this in most of what it knows, and below 0.1 in what it does not."""
    misleading_share: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Share of facts whose passage in the index is one that misleads, where the index marks such passages."""


class Retrieval(UntrainedMethod[RetrievalSettings]):
    name = "retrieval"
    title = "Retrieval"
    card = (
        "Trains nothing: for each question the best fitting passages are looked up and put before it. Brings in facts "
        "that the model never learned, and with misleading passages brings in errors. conflict_aware is a simplified "
        "form of Astute RAG: a rule on confidence in place of its prompting."
    )
    source = "Lewis et al. 2020, arXiv 2005.11401; Wang et al. 2024, arXiv 2410.07176"
    settings = RetrievalSettings

    def problems(self, inputs: MethodInputs, settings: RetrievalSettings) -> list[Problem]:
        file = index_file(settings, inputs.data_folder)
        refusal = path_refusal(file, "data") if file is not None and settings.index else None
        if refusal is not None:
            return [
                Problem(
                    "method.index", settings.index, "a JSONL file with passages", f"{settings.index!r:.300} {refusal}"
                )
            ]
        if file is None or not file.is_file():
            fault = (
                f"there is no file {settings.index!r}" if settings.index else "these data bring no passages with them"
            )
            message = f"{fault}; give a JSONL file with a column passage as method.index"
            return [Problem("method.index", settings.index, "a JSONL file with passages", message)]
        try:
            index = open_index(file, settings.misleading_share, 0)
        except ValueError as error:
            return [Problem("method.index", settings.index, "a JSONL file with passages", str(error))]
        if settings.misleading_share > 0 and not index.misleads:
            message = "no passage of this index is marked misleading; set misleading_share to 0"
            return [Problem("method.misleading_share", settings.misleading_share, "0", message)]
        count = len(index.passages)
        if settings.top_k > count:
            message = f"the index has {count} passages to choose from; set top_k to {count} or less"
            if not count:
                message = "every passage of this index is marked misleading; set misleading_share to 1"
            return [Problem("method.top_k", settings.top_k, f"1 to {count}", message)]
        return no_questions(inputs.eval)

    def longest_prompts(self, inputs: MethodInputs, settings: RetrievalSettings) -> list[Row]:
        file = index_file(settings, inputs.data_folder)
        assert file is not None
        bundled = inputs.data_folder is not None
        questions = [question_of(row, bundled=bundled) for row in longest_questions(inputs.eval)]
        return with_passages(questions, open_index(file, settings.misleading_share, 0).passages, settings.top_k)

    def prompt_length_setting(self, settings: RetrievalSettings) -> tuple[str, Any, str]:
        return "method.top_k", settings.top_k, "fewer passages"

    def summary(self, settings: RetrievalSettings) -> str:
        bad = f", {settings.misleading_share:.0%} misleading" if settings.misleading_share else ""
        return f"Retrieval {settings.policy.replace('_', '-')}{bad}"

    def prompts(self, inputs: PromptInputs, settings: RetrievalSettings) -> list[Row]:
        file = index_file(settings, inputs.data_folder)
        assert file is not None
        questions = [question_of(row, bundled=inputs.data_folder is not None) for row in inputs.eval]
        index = open_index(file, settings.misleading_share, inputs.seed)
        rows = with_passages(questions, index.passages, settings.top_k)
        if not self.queries_base_model(settings):
            return rows
        closed_answers = inputs.answer([row.prompt or "" for row in questions])
        open_answers = inputs.answer([row.prompt or "" for row in rows])
        return [
            question
            if closed_answer[0].strip() != open_answer[0].strip() and closed_answer[1] >= settings.threshold
            else with_passage
            for question, with_passage, closed_answer, open_answer in zip(
                questions, rows, closed_answers, open_answers, strict=True
            )
        ]

    def queries_base_model(self, settings: RetrievalSettings) -> bool:
        return settings.policy == "conflict_aware"

    def with_shorter_prompts(self, settings: RetrievalSettings) -> tuple[RetrievalSettings, str] | None:
        if settings.top_k == 1:
            return None
        fewer = settings.top_k // 2
        cost = f"top_k {settings.top_k} -> {fewer}: the passage that answers is missed more often"
        return settings.replace(top_k=fewer), cost


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """A passage; `fact` is what several passages say the same or different things about."""

    text: str
    fact: str
    misleading: bool


def index_file(settings: RetrievalSettings, data_folder: Path | None) -> Path | None:
    """The index that the settings name, else the passages that lie beside a bundled set."""
    if settings.index:
        return Path(os.path.expanduser(settings.index))
    return None if data_folder is None else data_folder / "passages.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """An index file with one side of each fact, ready to be searched."""

    passages: Bm25
    misleads: bool
    """Whether the file marks any passage as misleading, chosen or not."""


def open_index(file: Path, share: float, seed: int) -> Index:
    """The index that `share` of misleading facts leaves, made once for each version of the file. Raises ValueError
    naming the line, or the size where that is too much."""
    status = file.stat()
    if status.st_size > INDEX_BYTES:
        raise ValueError(f"{file.name} has {status.st_size:,} bytes; give an index of {INDEX_BYTES:,} bytes or less")
    return _index(file, status.st_mtime_ns, status.st_size, share, seed)


@lru_cache(maxsize=4)
def _index(file: Path, changed: int, size: int, share: float, seed: int) -> Index:
    passages = read_passages(file)
    chosen = Bm25([passage.text for passage in chosen_index(passages, share, seed)])
    return Index(passages=chosen, misleads=any(passage.misleading for passage in passages))


def read_passages(file: Path) -> list[Passage]:
    """The passages of a JSONL file. Raises ValueError naming the line."""
    passages = list[Passage]()
    # only line feeds end a line of JSONL; splitlines() would cut at others that may stand inside a text
    for number, line in enumerate(file.read_text(encoding="utf-8-sig").split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            text = row.get("passage", row.get("text"))
        except (ValueError, AttributeError):
            raise ValueError(f"line {number} of {file.name} is not a JSON object; save the index as JSONL") from None
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"line {number} of {file.name} has no passage; name the column passage")
        fact = f"{row.get('name', '')}|{row.get('attribute', row.get('question', number))}"
        passages.append(Passage(text=text.strip(), fact=fact, misleading=bool(row.get("misleading"))))
    if not passages:
        raise ValueError(f"{file.name} has no passages; give at least one JSON object a line")
    return passages


def chosen_index(passages: Sequence[Passage], share: float, seed: int) -> list[Passage]:
    """One side of each fact: for `share` of those that have a misleading side that one, for the others the true one."""
    contested = sorted({passage.fact for passage in passages if passage.misleading})
    random.Random(seed).shuffle(contested)
    misled = set(contested[: round(share * len(contested))])
    return [passage for passage in passages if passage.misleading == (passage.fact in misled)]


def question_of(row: Row, *, bundled: bool) -> Row:
    """A bundled row without the passage that comes with it; a person's own rows stay as they are."""
    if not bundled:
        return row
    return replace(row, prompt=re.sub(r"^Passage:.*?\n", "", row.prompt or "", flags=re.DOTALL))


def with_passages(rows: Sequence[Row], index: Bm25, count: int) -> list[Row]:
    """Each question behind the passages that fit it best."""
    questions = [row.prompt or "" for row in rows]
    return [
        replace(row, prompt=f"Passage: {' '.join(index.best(question, count))}\n{question}")
        for row, question in zip(rows, questions, strict=True)
    ]


class Bm25:
    """Ranks texts by the words they share with a question, rare words first (Robertson and Zaragoza 2009)."""

    def __init__(self, texts: Sequence[str], k: float = 1.5, b: float = 0.75) -> None:
        import numpy

        words = [_words(text) for text in texts]
        mean = sum(map(len, words)) / max(1, len(words))
        postings: dict[str, tuple[list[int], list[float]]] = {}
        for i, words_of_text in enumerate(words):
            for word, count in Counter(words_of_text).items():
                weight = count * (k + 1) / (count + k * (1 - b + b * len(words_of_text) / max(1.0, mean)))
                indices, weights = postings.setdefault(word, ([], []))
                indices.append(i)
                weights.append(weight)
        self._texts = list(texts)
        # each word's texts, by index, and its weight in each of them
        self._postings = {
            word: (numpy.array(indices), numpy.array(weights)) for word, (indices, weights) in postings.items()
        }

    def __len__(self) -> int:
        return len(self._texts)

    def best(self, question: str, count: int) -> list[str]:
        """The `count` best texts, best first; ties go to the earlier one."""
        import numpy

        scores = numpy.zeros(len(self._texts))
        for word in sorted(set(_words(question)) & self._postings.keys()):
            indices, weights = self._postings[word]
            scores[indices] += math.log(1 + (len(self._texts) - len(indices) + 0.5) / (len(indices) + 0.5)) * weights
        return [self._texts[i] for i in numpy.argsort(-scores, kind="stable")[:count]]


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


METHOD = Retrieval()
