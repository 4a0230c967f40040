"""What a plan is made from, opened once: settings, base model, rows, tokenizer and device.

Checks, counts and derived numbers are functions of these inputs alone; none of them opens anything again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from tuning.core.errors import ModelError, Notice
from tuning.core.hardware import Device, this_machine
from tuning.data import DataSet, DataSummary, open_data, summarize, uncounted
from tuning.data.template_choice import with_template_chosen
from tuning.methods import method_named
from tuning.methods.base import MethodInputs
from tuning.models.base_model import BaseModel, resolve_model
from tuning.models.weights import Weights, compare_weights
from tuning.settings.schema import Settings
from tuning.settings.versions import upgrade
from tuning.text import TextTokenizer

FindRunResult = Callable[[Settings], BaseModel]
"""Finds the result of an earlier run for settings whose `model` is run:ID."""


@dataclass(frozen=True, kw_only=True)
class PlanInputs:
    """Everything that a plan is made from.

    Two callers have no rows, so `data` and `tokenizer` are None: trying a model, and checking a plan again with changed
    settings. Checks that read rows are then skipped.
    """

    settings: Settings
    model: BaseModel
    summary: DataSummary
    """What the rows become as tokens."""
    device: Device
    data: DataSet | None = None
    tokenizer: TextTokenizer | None = None
    """None also where the files of an incomplete model lack the tokenizer."""
    weights: Weights | None = None
    """How the tensors in the model's folder compare with those of its architecture."""
    notices: tuple[Notice, ...] = ()
    """Notices about settings of an older version."""

    def with_settings(self, settings: Settings) -> PlanInputs:
        """The same model, rows and device with other settings that change neither rows nor their tokens."""
        return replace(self, settings=settings)

    @property
    def class_count(self) -> int:
        """Classes of the head to train; 0 for a language model."""
        return class_count(self.settings, self.summary)

    @cached_property
    def method_inputs(self) -> MethodInputs:
        """What a method may look at when it says what it refuses."""
        settings, data = self.settings, self.data
        writes_prompts = data is not None and not method_named(settings.method.name).updates
        return MethodInputs(
            shape=self.model.shape,
            task=settings.task,
            class_count=self.class_count,
            device=self.device.kind,
            device_name=self.device.name,
            dtypes=self.device.dtypes,
            optimizer=settings.optimizer.name,
            max_grad_norm=settings.optimizer.max_grad_norm,
            gradient_accumulation_steps=settings.gradient_accumulation_steps,
            gradient_checkpointing=settings.gradient_checkpointing,
            max_seq_length=settings.data.max_seq_length,
            label_tokens=sum(self.summary.trained_tokens),
            train=data.train if data is not None and writes_prompts else (),
            eval=list(data.eval) if data is not None and writes_prompts else (),
            data_folder=None if data is None else data.folder,
        )


def open_inputs(given: Any, find_run_result: FindRunResult | None = None) -> PlanInputs:
    """Open everything that a settings object names, on this machine. Raises TuningError.

    Rows and counts of the same files and settings are cached.
    """
    given, notices = upgrade(given)
    settings = Settings.from_dict(given)
    model = base_model(settings, find_run_result)
    weights = compare_weights(model, settings.task)
    assert weights is not None  # without a limit of time it is waited for
    if model.learned_head:
        # the files of the base were compared; this run's own head replaces theirs, so what was said of heads goes
        weights = replace(weights, notices=(), head_for=())
    data_settings = with_template_chosen(settings.data, model, settings.recipe)
    data = open_data(settings.data, settings.task, settings.seed)
    tokenizer = None
    if model.missing is None or (Path(model.path) / "tokenizer.json").is_file():
        tokenizer = TextTokenizer(model.path)
        summary = summarize(data, tokenizer, data_settings, settings.task, settings.recipe)
    else:
        summary = uncounted(data, settings.data, settings.task)
    return PlanInputs(
        settings=settings,
        model=model,
        summary=summary,
        device=this_machine(settings.device),
        data=data,
        tokenizer=tokenizer,
        weights=weights,
        notices=notices,
    )


def base_model(settings: Settings, find_run_result: FindRunResult | None = None) -> BaseModel:
    """The model that `model` names; for run:ID the result of that run, never the base it was trained from.

    Raises ModelError.
    """
    if not settings.model.startswith("run:"):
        return resolve_model(settings.model, settings.revision)
    if settings.revision is not None:
        raise ModelError("revision is for hub models; leave it empty", settings.revision, "null", "revision")
    if find_run_result is None:
        message = "the result of a run is found only in the home folder that holds it; name that: --home DIR"
        raise ModelError(message, settings.model, "a run of the home folder that --home names")
    return find_run_result(settings)


def class_count(settings: Settings, summary: DataSummary) -> int:
    """Classes of the head to train; 0 for a language model."""
    return len(summary.label_names or ()) if settings.task == "sequence_classification" else 0
