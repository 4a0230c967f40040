"""The routes under /fork/models/: a model's card before anything is fetched, and downloads with progress.

A request is {"model", "revision", "token"}. The card says whether the model can be trained on this machine.
"""

from collections.abc import Sequence
from typing import TypedDict

from fastapi import FastAPI

from tuning.core.errors import ModelError, TuningError
from tuning.core.hardware import this_machine
from tuning.data import DataSummary
from tuning.hub.download import cached_bytes
from tuning.hub.models import HubModel, look_up
from tuning.memory.estimate import estimate
from tuning.memory.usage import usage_of
from tuning.methods import method_named
from tuning.models.base_model import BaseModel, descriptive_name, is_cached, resolve_model, split_spec, tuning_of
from tuning.plan.inputs import PlanInputs
from tuning.plan.plan import make_plan
from tuning.settings.schema import Settings
from tuning.web.hub_routes import HubDescription, add_hub_routes
from tuning.web.requests import TOKEN_REFUSAL, Body, OptionalText, SomeText, Token, take

ROWS, LENGTH = 4, 128
"""What the card's verdict is about, besides the method: a micro-batch of so many rows of so many tokens."""
METHODS = ("lora", "full")


class ModelFit(TypedDict):
    """Whether the model can be trained on this machine by a method: the bytes it may take, and those there are."""

    words: str
    method: str
    fits: bool
    bytes: int
    device_bytes: int


class ModelDescription(HubDescription):
    """What is said of a model; None stands for what its config does not tell."""

    architecture: str | None
    parameters: int | None
    max_positions: int | None
    tasks: Sequence[str]
    tuned: str
    why: str
    fits: list[ModelFit]


class ModelBody(Body):
    """What a request asks about."""

    refusals = {
        "model": ("model", "a text", "Type a model first: a hub id such as org/name, or a path."),
        "revision": ("revision", "a text", "The revision must be a branch, a tag or a commit."),
        "token": TOKEN_REFUSAL,
    }
    model: SomeText
    revision: OptionalText = None
    token: Token = None

    @property
    def name(self) -> str:
        return split_spec(self.model)[1]


def add_model_routes(app: FastAPI) -> None:
    """Look-up, download and cancel of models."""
    add_hub_routes(
        app,
        "/fork/models",
        "model",
        "model",
        read=lambda body: take(body, ModelBody),
        name_of=lambda spec: split_spec(spec)[1],
        local_card=_local_card,
        look_up=lambda request: look_up(request.name, request.revision, request.token),
        hub_card=lambda repo, request: hub_card(repo),
        to_download=_to_download,
    )


def _local_card(request: ModelBody) -> ModelDescription | None:
    kind, name = split_spec(request.model)
    if kind == "hub" and not is_cached(name, request.revision):
        return None
    return local_card(resolve_model(request.model, request.revision))


def _to_download(model: HubModel, request: ModelBody) -> HubModel:
    if model.problem is not None:
        raise ModelError(model.problem, request.model)
    return model


def local_card(model: BaseModel) -> ModelDescription:
    """The card of a model that is on this machine."""
    kind, why = tuning_of(descriptive_name(model.title, model.source), model.chat_template)
    return {
        "id": model.spec,
        "source": model.source,
        "here": model.missing is None,
        "architecture": model.shape.model_type,
        "parameters": model.shape.parameters,
        "bytes": model.weight_bytes,
        "done_bytes": model.weight_bytes,
        "licence": None,
        "max_positions": model.shape.max_positions,
        "tasks": model.tasks,
        "tuned": "encoder" if model.shape.encoder else kind,
        "why": why,
        "gated": False,
        "locked": False,
        "notes": model.notes,
        "problem": model.missing,
        "fits": memory_verdicts(model),
        "download": None,
    }


def hub_card(model: HubModel) -> ModelDescription:
    """The card of a model on the hub: everything but the weights."""
    kind, why = model.tuned
    shape = model.shape
    notes = (why,) if shape is not None and not shape.encoder else ()
    base = None
    if shape is not None:
        base = BaseModel(
            spec=model.id,
            source="hub",
            path="",
            title=model.title,
            shape=shape,
            weight_bytes=model.weight_bytes,
            chat_template=model.chat_template,
            tasks=model.tasks,
        )
    return {
        "id": model.id,
        "source": "hub",
        "here": False,
        "architecture": shape.model_type if shape else None,
        "parameters": model.parameters,
        "bytes": model.total_bytes,
        "done_bytes": cached_bytes(model),
        "licence": model.licence,
        "max_positions": shape.max_positions if shape else None,
        "tasks": model.tasks,
        "tuned": "encoder" if shape and shape.encoder else kind,
        "why": why,
        "gated": model.gated,
        "locked": model.locked,
        "notes": notes,
        "problem": model.problem,
        "fits": memory_verdicts(base) if base else [],
    }


def memory_verdicts(model: BaseModel) -> list[ModelFit]:
    """Whether it can be trained on this machine, by method, from the shape alone."""
    longest = min(LENGTH, model.shape.max_positions)
    task, device = model.tasks[0], this_machine()
    verdicts = list[ModelFit]()
    for method in METHODS:
        settings = Settings.from_dict(
            {
                "task": task,
                "method": {"name": method},
                "micro_batch_size": ROWS,
                "gradient_accumulation_steps": 2,
                "data": {"max_seq_length": max(8, longest)},
            }
        )
        try:
            inputs = PlanInputs(settings=settings, model=model, summary=_rows(longest, task), device=device)
            memory = estimate(usage_of(make_plan(inputs)))
        except TuningError:  # a method may refuse a very narrow model, which then has no verdict
            continue
        where = device.name if device.kind == "cuda" else "this machine"
        words = f"{method_named(method).title}, {ROWS} rows of {longest} tokens, on {where}"
        verdicts.append(
            {
                "words": words,
                "method": method,
                "fits": memory.fits,
                "bytes": memory.high_bytes,
                "device_bytes": memory.device_bytes,
            }
        )
    return verdicts


def _rows(longest: int, task: str) -> DataSummary:
    """Full-length rows: the verdict is about a model, not about the data in the form."""
    classes = ("first", "second") if task == "sequence_classification" else None
    return DataSummary(
        name="full rows",
        title="full rows",
        shape="text",
        label_names=classes,
        train_rows=8 * ROWS,
        eval_rows=0,
        lengths=(longest,) * 8 * ROWS,
        trained_tokens=(1 if classes else longest,) * 8 * ROWS,
        cut_rows=0,
        dropped_rows=0,
        fingerprint="",
    )
