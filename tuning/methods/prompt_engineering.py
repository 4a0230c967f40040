"""Prompt engineering: nothing is trained; the question is put better, with or without examples."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Annotated, Any

from pydantic import Field

from tuning.core.errors import Problem
from tuning.core.fields import WHOLE, Text
from tuning.methods.base import Method, MethodInputs, MethodSettings, PromptInputs, S, freeze
from tuning.methods.network import Part, model_parts
from tuning.models.base_model import ModelShape
from tuning.text import Row

PLACE = "{prompt}"
TRIED_ROWS = 256
"""So many of the longest questions are written out before Start, to see whether they fit."""


class PromptEngineeringSettings(MethodSettings):
    name: str = "prompt_engineering"
    template: Text = PLACE
    """How each question is put: words around {prompt}. A system prompt goes into data.system_prompt."""
    shots: Annotated[int, Field(ge=0, le=64), WHOLE] = 0
    """Training rows shown with their answers before the question. More show the format; each takes its tokens."""
    example_seed: Annotated[int, Field(ge=0, le=2**31 - 1), WHOLE] = 0
    """Which rows those are. Small models depend on the choice: try a few."""


class UntrainedMethod(Method[S]):
    """What methods share that train nothing: the run is one evaluation, drawn as a level line."""

    default_learning_rate = 1e-3
    learning_rate_reason = "nothing is trained, so it is not used"
    tasks = ("causal_lm",)
    updates = False

    def parameter_groups(self, shape: ModelShape, settings: S, class_count: int) -> list[Part]:
        return model_parts(shape, class_count)

    def apply(self, model: Any, settings: S, task: str) -> Any:
        freeze(model)
        return model

    def load(self, model: Any, folder: Any) -> Any:
        return model

    def base_view(self, model: Any) -> AbstractContextManager[Any] | None:
        return nullcontext()


class PromptEngineering(UntrainedMethod[PromptEngineeringSettings]):
    name = "prompt_engineering"
    title = "Prompt engineering"
    card = (
        "Trains nothing: the same evaluation rows are asked in other words, or with a few solved examples before them. "
        "Draws out what the model knows already and cannot add to it. Its score is a level line among the curves."
    )
    source = "Brown et al. 2020, arXiv 2005.14165, on examples in the prompt"
    settings = PromptEngineeringSettings

    def problems(self, inputs: MethodInputs, settings: PromptEngineeringSettings) -> list[Problem]:
        if PLACE not in settings.template:
            message = (
                f"the template needs {PLACE} where the question goes, for example {PLACE} or Please answer. {PLACE}"
            )
            return [Problem("method.template", settings.template, PLACE, message)]
        problems = no_questions(inputs.eval)
        if not problems and settings.shots > len(inputs.train):
            count = len(inputs.train)
            message = f"there are {count} training rows to show; set shots to {count} or less"
            problems.append(Problem("method.shots", settings.shots, f"0 to {count}", message))
        return problems

    def summary(self, settings: PromptEngineeringSettings) -> str:
        return f"{settings.shots}-shot" if settings.shots else "zero-shot"

    def prompts(self, inputs: PromptInputs, settings: PromptEngineeringSettings) -> list[Row]:
        return with_template(inputs.train, inputs.eval, settings)

    def longest_prompts(self, inputs: MethodInputs, settings: PromptEngineeringSettings) -> list[Row]:
        return with_template(inputs.train, longest_questions(inputs.eval), settings)

    def prompt_length_setting(self, settings: PromptEngineeringSettings) -> tuple[str, Any, str]:
        if settings.shots:
            return "method.shots", settings.shots, "fewer shots"
        return "method.template", settings.shots, "a shorter template"

    def with_shorter_prompts(self, settings: PromptEngineeringSettings) -> tuple[PromptEngineeringSettings, str] | None:
        if not settings.shots:
            return None
        fewer = settings.shots // 2
        return settings.replace(shots=fewer), f"shots {settings.shots} -> {fewer}: fewer examples show what is wanted"


def with_template(train: Sequence[Row], evaluation: Sequence[Row], settings: PromptEngineeringSettings) -> list[Row]:
    """The evaluation rows in the template, behind the same examples for all."""
    chosen = [train[i] for i in random.Random(settings.example_seed).sample(range(len(train)), settings.shots)]
    examples = "".join(f"{settings.template.replace(PLACE, row.prompt or '')}{row.completion}\n\n" for row in chosen)
    return [replace(row, prompt=examples + settings.template.replace(PLACE, row.prompt or "")) for row in evaluation]


def longest_questions(rows: Sequence[Row]) -> list[Row]:
    """The rows with the longest questions: what does not fit, does not fit there."""
    return sorted(rows, key=lambda row: -len(row.prompt or ""))[:TRIED_ROWS]


def no_questions(evaluation: Sequence[Row]) -> list[Problem]:
    """The problem of evaluation rows that have no question, or of no evaluation rows; empty without one."""
    if evaluation and all(row.prompt is not None and row.completion is not None for row in evaluation):
        return []
    message = "this needs evaluation rows with a prompt and an answer; use such data, for example people-questions"
    return [Problem("data.source", None, "prompt + completion", message)]


METHOD = PromptEngineering()
