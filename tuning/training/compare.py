"""Base and trained side by side: the same question to both.

Comes in: a run's folder (or its model in training) and a `Question`.  Goes out: {"base": [...], "trained": [...]} and,
for a classifier, "chances".  The model is loaded once; where the method allows it the base is the same model with the
adapter switched off.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tuning.core.errors import GoOn, RunError
from tuning.data import open_data
from tuning.methods import method_named
from tuning.methods.base import Method
from tuning.plan.plan import Plan
from tuning.settings.schema import Settings
from tuning.text import TextTokenizer
from tuning.text.question import Question
from tuning.training.base_answers import prompted_texts
from tuning.training.build import base_of, look_between_tensors
from tuning.training.generate import Speaker
from tuning.training.save import saved_labels

NO_CLASSES = "(a new head knows no classes yet)"
Tell = Callable[[str, int, str], None]
"""Told the side, the number of the prompt and the next piece of the answer."""


class SavedSides:
    """What a run has saved, loaded to be asked any number of times. Raises RunError where nothing was saved, and
    Stopped."""

    def __init__(self, run_folder: str | Path, model_path: str, settings: Settings, go_on: GoOn = lambda: True) -> None:
        chosen = method_named(settings.method.name)
        artifact = Path(run_folder) / chosen.artifact
        if not artifact.is_dir():
            raise RunError("This run has saved nothing yet, so there is no trained model to ask.")
        self._tokenizer = TextTokenizer(model_path)
        self._labels = saved_labels(artifact)
        self._method = chosen
        self._model_path, self._settings = model_path, settings
        # a fresh adapter draws its weights before the saved ones come
        with torch.random.fork_rng(devices=[]), look_between_tensors(go_on):
            self._trained = chosen.load(_base(model_path, self._tokenizer, self._labels, settings), artifact).eval()
        self._base: nn.Module | None = None

    def ask(self, question: Question, tell: Tell | None = None, go_on: GoOn = lambda: True) -> dict[str, list[Any]]:
        """Both answers to each prompt, the base's first. Raises Stopped."""
        view, base = _base_side(self._method, self._trained, self._labels)
        if view is None and base is None and self._labels is None:
            with look_between_tensors(go_on):
                self._base = self._base or _base(self._model_path, self._tokenizer, None, self._settings)
            base = self._base
        return _both(self._trained, view, base, self._tokenizer, question, self._labels, tell, go_on)


class PromptedSides:
    """The base model of a run that trains nothing, asked plainly and as the run's method asks it."""

    def __init__(self, plan: Plan, go_on: GoOn = lambda: True) -> None:
        self._plan, self._tokenizer = plan, TextTokenizer(plan.model.path)
        self._data = open_data(plan.settings.data, plan.settings.task, plan.settings.seed, go_on=go_on)
        with look_between_tensors(go_on):
            self._model = _base(plan.model.path, self._tokenizer, None, plan.settings)

    def ask(self, question: Question, tell: Tell | None = None, go_on: GoOn = lambda: True) -> dict[str, list[Any]]:
        """Both answers to each prompt, and under "prompts" what the second was an answer to. Raises Stopped."""
        method = method_named(self._plan.settings.method.name)
        speaker = Speaker(self._model, self._tokenizer, None, go_on)
        how = (method, self._model, self._tokenizer, question.prompts, go_on)
        texts = prompted_texts(self._plan, self._data, *how)
        asked = {"base": question, "trained": question.with_prompts(texts)}
        said: dict[str, list[Any]] = {
            side: list(speaker.answers(one, _hearer(side, tell))) for side, one in asked.items()
        }
        return said | {"prompts": texts}


def live_sides(
    model: nn.Module,
    tokenizer: TextTokenizer,
    model_path: str,
    settings: Settings,
    question: Question,
    labels: Sequence[str] | None,
    tell: Tell | None = None,
    go_on: GoOn = lambda: True,
) -> dict[str, list[Any]]:
    """The same from a model in training. Where no view of the base is left in it, the base is loaded for the answer.
    Raises Stopped."""
    view, base = _base_side(method_named(settings.method.name), model, labels)
    if view is None and base is None and labels is None:
        with look_between_tensors(go_on):
            base = _base(model_path, tokenizer, None, settings)
    return _both(model, view, base, tokenizer, question, labels, tell, go_on)


def _base_side(
    method: Method[Any], model: nn.Module, labels: Sequence[str] | None
) -> tuple[AbstractContextManager[Any] | None, nn.Module | None]:
    view = method.base_view(model) if labels is None else None
    return view, model if view is not None else None


def _both(
    trained: nn.Module,
    view: AbstractContextManager[Any] | None,
    base: nn.Module | None,
    tokenizer: TextTokenizer,
    question: Question,
    labels: Sequence[str] | None,
    tell: Tell | None,
    go_on: GoOn,
) -> dict[str, list[Any]]:
    answers: dict[str, list[Any]] = {"base": [NO_CLASSES] * len(question.prompts)}
    if base is not None:
        with view or nullcontext():
            answers["base"] = list(Speaker(base, tokenizer, None, go_on).answers(question, _hearer("base", tell)))
    speaker = Speaker(trained, tokenizer, labels, go_on)
    answers["trained"] = list(speaker.answers(question, _hearer("trained", tell)))
    if labels is not None:
        answers["chances"] = list(speaker.chances(question.prompts))
    return answers


def _hearer(side: str, tell: Tell | None) -> Callable[[int, str], None] | None:
    return None if tell is None else lambda number, text: tell(side, number, text)


def _base(model_path: str, tokenizer: TextTokenizer, labels: Sequence[str] | None, settings: Settings) -> nn.Module:
    with torch.random.fork_rng(devices=[]):  # a fresh head draws its weights
        return base_of(settings, model_path, labels, tokenizer.pad_id or 0).eval()
