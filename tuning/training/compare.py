"""The same question to the base model and to the trained one.

Answers are `{"base": [...], "trained": [...]}`, with `"chances"` for a classifier. The model is loaded once; where the
method allows it the base model is the trained one with its adapter switched off.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tuning.core.errors import RunError, ShouldContinue
from tuning.data import open_data
from tuning.methods import method_named
from tuning.methods.base import Method
from tuning.plan.plan import Plan
from tuning.settings.schema import Settings
from tuning.text import TextTokenizer
from tuning.text.question import Question
from tuning.training.base_answers import prompted_texts
from tuning.training.build import base_of, stop_between_tensors
from tuning.training.generate import TextGenerator
from tuning.training.save import saved_class_names

NO_CLASSES = "(a new head knows no classes yet)"
OnText = Callable[[str, int, str], None]
"""Called with the side (base or trained), the index of the prompt and the next piece of the answer."""
ComparedAnswers = dict[str, list[Any]]
"""By side a text for each prompt; under "chances" a dictionary of probabilities by class for each."""


class BaseAndTuned:
    """The base model and what a run has saved, loaded once for any number of questions."""

    def __init__(
        self,
        run_folder: str | Path,
        model_path: str,
        settings: Settings,
        should_continue: ShouldContinue = lambda: True,
    ) -> None:
        """Load the trained model. Raises RunError where the run has saved nothing, and Stopped."""
        method = method_named(settings.method.name)
        artifact = Path(run_folder) / method.artifact
        if not artifact.is_dir():
            raise RunError("This run has saved nothing yet, so there is no trained model to ask.")
        self._tokenizer = TextTokenizer(model_path)
        self._class_names = saved_class_names(artifact)
        self._method = method
        self._model_path, self._settings = model_path, settings
        # a fresh adapter draws its weights before the saved ones come
        with torch.random.fork_rng(devices=[]), stop_between_tensors(should_continue):
            self._trained = method.load(
                _base(model_path, self._tokenizer, self._class_names, settings), artifact
            ).eval()
        self._base: nn.Module | None = None

    def ask(
        self, question: Question, on_text: OnText | None = None, should_continue: ShouldContinue = lambda: True
    ) -> ComparedAnswers:
        """Both answers to each prompt. Raises Stopped."""
        view, base = _base_view(self._method, self._trained, self._class_names)
        if view is None and base is None and self._class_names is None:
            with stop_between_tensors(should_continue):
                self._base = self._base or _base(self._model_path, self._tokenizer, None, self._settings)
            base = self._base
        return _both(self._trained, view, base, self._tokenizer, question, self._class_names, on_text, should_continue)


class PlainAndPrompted:
    """The base model of a run that trains nothing, asked plainly and with the prompts of the run's method."""

    def __init__(self, plan: Plan, should_continue: ShouldContinue = lambda: True) -> None:
        self._plan, self._tokenizer = plan, TextTokenizer(plan.model.path)
        data = plan.settings.data
        self._data = open_data(data, plan.settings.task, plan.settings.seed, should_continue=should_continue)
        with stop_between_tensors(should_continue):
            self._model = _base(plan.model.path, self._tokenizer, None, plan.settings)

    def ask(
        self, question: Question, on_text: OnText | None = None, should_continue: ShouldContinue = lambda: True
    ) -> ComparedAnswers:
        """Both answers to each prompt, and under "prompts" what the second was an answer to. Raises Stopped."""
        method = method_named(self._plan.settings.method.name)
        generator = TextGenerator(self._model, self._tokenizer, None, should_continue)
        prompts = prompted_texts(
            self._plan, self._data, method, self._model, self._tokenizer, question.prompts, should_continue
        )
        answers: ComparedAnswers = {}
        for side, side_question in (("base", question), ("trained", question.with_prompts(prompts))):
            answers[side] = list(generator.answers(side_question, _of_side(side, on_text)))
        return answers | {"prompts": prompts}


def compare_in_training(
    model: nn.Module,
    tokenizer: TextTokenizer,
    model_path: str,
    settings: Settings,
    question: Question,
    class_names: Sequence[str] | None,
    on_text: OnText | None = None,
    should_continue: ShouldContinue = lambda: True,
) -> ComparedAnswers:
    """Answers of the base model and of a model in training, as it is now. Raises Stopped.

    Where training has changed the base model's own weights, the base model is loaded for the answer.
    """
    view, base = _base_view(method_named(settings.method.name), model, class_names)
    if view is None and base is None and class_names is None:
        with stop_between_tensors(should_continue):
            base = _base(model_path, tokenizer, None, settings)
    return _both(model, view, base, tokenizer, question, class_names, on_text, should_continue)


def _base_view(
    method: Method[Any], model: nn.Module, class_names: Sequence[str] | None
) -> tuple[AbstractContextManager[Any] | None, nn.Module | None]:
    """A context in which `model` answers as the base model, and `model`; None and None where there is none."""
    view = method.base_view(model) if class_names is None else None
    return view, model if view is not None else None


def _both(
    trained: nn.Module,
    view: AbstractContextManager[Any] | None,
    base: nn.Module | None,
    tokenizer: TextTokenizer,
    question: Question,
    class_names: Sequence[str] | None,
    on_text: OnText | None,
    should_continue: ShouldContinue,
) -> ComparedAnswers:
    answers: ComparedAnswers = {"base": [NO_CLASSES] * len(question.prompts)}
    if base is not None:
        with view or nullcontext():
            of_base = TextGenerator(base, tokenizer, None, should_continue)
            answers["base"] = list(of_base.answers(question, _of_side("base", on_text)))
    of_trained = TextGenerator(trained, tokenizer, class_names, should_continue)
    answers["trained"] = list(of_trained.answers(question, _of_side("trained", on_text)))
    if class_names is not None:
        answers["chances"] = list(of_trained.class_probabilities(question.prompts))
    return answers


def _of_side(side: str, on_text: OnText | None) -> Callable[[int, str], None] | None:
    return None if on_text is None else lambda index, text: on_text(side, index, text)


def _base(
    model_path: str, tokenizer: TextTokenizer, class_names: Sequence[str] | None, settings: Settings
) -> nn.Module:
    with torch.random.fork_rng(devices=[]):  # a fresh head draws its weights
        return base_of(settings, model_path, class_names, tokenizer.pad_id or 0).eval()
