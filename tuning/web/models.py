"""The routes under /fork/models/: a model's card before anything is fetched, and downloads with progress.

In: {"model", "revision", "token"}. Out: the card as JSON; how far a download is. A bundled model, a folder and what is
in the cache are read from the disk; the hub is asked only here, because a person pressed. A token is used for the one
request, or by the thread that downloads, and is in no answer and no log.
"""

from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from tuning.data import DataSummary
from tuning.errors import ModelError, Problem, SettingsError, TuningError
from tuning.hardware import this_machine
from tuning.hub.download import Downloads, bytes_here
from tuning.hub.lookup import HubModel, look_up
from tuning.memory.estimate import estimate
from tuning.memory.known import usage_of
from tuning.methods import method_named
from tuning.models import BaseModel, is_cached, named, resolve_model, split_spec, tuned_for
from tuning.plan import make_plan
from tuning.settings import Settings
from tuning.web.requests import for_the_holder, json_body, take, take_token

ROWS, LENGTH = 4, 128
"""What the card's verdict is about, besides the method: a micro-batch of so many rows of so many tokens."""
METHODS = ("lora", "full")
KNOWN = 32
"""Looked-up models kept in mind, so that Download need not ask again."""


def add_model_routes(app: FastAPI) -> None:
    """POST lookup, download, cancel; GET download."""
    downloads, known = Downloads(), dict[tuple[str, str | None], HubModel]()

    def asked_hub(name: str, revision: str | None, token: str | None) -> HubModel:
        for_the_holder("model")
        found = look_up(name, revision, token)
        while len(known) >= KNOWN:
            known.pop(next(iter(known)))
        known[(name, revision)] = found
        return found

    def card(spec: str, revision: str | None, token: str | None) -> dict[str, Any]:
        kind, name = split_spec(spec)
        if kind != "hub" or is_cached(name, revision):
            return local_card(resolve_model(spec, revision))
        found = asked_hub(name, revision, token)
        running = downloads.of(found.id)
        return hub_card(found) | {"download": running.to_dict() if running else None}

    def begin(spec: str, revision: str | None, token: str | None) -> dict[str, Any]:
        for_the_holder("model")
        _, name = split_spec(spec)
        found = known.get((name, revision)) or asked_hub(name, revision, token)
        if found.locked:
            found = asked_hub(name, revision, token)
        if found.problem is not None:
            raise ModelError(found.problem, spec)
        return downloads.start(found, token).to_dict()

    @app.post("/fork/models/lookup")
    async def lookup(request: Request) -> dict[str, Any]:
        return await run_in_threadpool(card, *_asked(await json_body(request)))

    @app.post("/fork/models/download")
    async def download(request: Request) -> dict[str, Any]:
        return await run_in_threadpool(begin, *_asked(await json_body(request)))

    @app.post("/fork/models/cancel")
    async def cancel(request: Request) -> dict[str, Any]:
        spec, _, _ = _asked(await json_body(request))
        for_the_holder("model")
        return downloads.cancel(split_spec(spec)[1]).to_dict()

    @app.get("/fork/models/download")
    def progress(model: str) -> JSONResponse:
        one = downloads.of(split_spec(model)[1])
        found = one.to_dict() if one else None
        return JSONResponse(found, status_code=200 if found else 404, headers={"Cache-Control": "no-store"})


def _asked(body: dict[str, Any]) -> tuple[str, str | None, str | None]:
    """Model, revision and token of a request; a problem never repeats the token."""
    model, revision, token = take(body, "model", "revision", "token")
    problems = []
    if not isinstance(model, str) or not model.strip():
        problems.append(Problem("model", model, "a text", "Type a model first: a hub id such as org/name, or a path."))
    if revision is not None and not isinstance(revision, str):
        problems.append(Problem("revision", revision, "a text", "The revision must be a branch, a tag or a commit."))
    if problems:
        raise SettingsError(problems)
    return model.strip(), (revision or "").strip() or None, take_token(token)


def local_card(model: BaseModel) -> dict[str, Any]:
    """The card of a model that is on this machine."""
    kind, why = tuned_for(named(model.title, model.source), model.chat_template)
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
        "fits": verdicts(model),
        "download": None,
    }


def hub_card(found: HubModel) -> dict[str, Any]:
    """The card of a model on the hub: everything but the weights."""
    kind, why = found.tuned
    shape = found.shape
    notes = (why,) if shape is not None and not shape.encoder else ()
    model = None
    if shape is not None:
        model = BaseModel(
            spec=found.id,
            source="hub",
            path="",
            title=found.title,
            shape=shape,
            weight_bytes=found.weight_bytes,
            chat_template=found.chat_template,
            tasks=found.tasks,
        )
    return {
        "id": found.id,
        "source": "hub",
        "here": False,
        "architecture": shape.model_type if shape else None,
        "parameters": found.parameters,
        "bytes": found.total_bytes,
        "done_bytes": bytes_here(found),
        "licence": found.licence,
        "max_positions": shape.max_positions if shape else None,
        "tasks": found.tasks,
        "tuned": "encoder" if shape and shape.encoder else kind,
        "why": why,
        "gated": found.gated,
        "locked": found.locked,
        "notes": notes,
        "problem": found.problem,
        "fits": verdicts(model) if model else [],
    }


def verdicts(model: BaseModel) -> list[dict[str, Any]]:
    """Whether it can be trained on this machine, by method, from the shape alone."""
    longest = min(LENGTH, model.shape.max_positions)
    task, device, found = model.tasks[0], this_machine(), []
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
            seen = estimate(usage_of(make_plan(settings, model, _rows(longest, task), device)))
        except TuningError:  # a method may refuse a very narrow model; then there is nothing to say of it
            continue
        place = device.name if device.kind == "cuda" else "this machine"
        words = f"{method_named(method).title}, {ROWS} rows of {longest} tokens, on {place}"
        found.append(
            {
                "words": words,
                "method": method,
                "fits": seen.fits,
                "bytes": seen.high_bytes,
                "device_bytes": seen.device_bytes,
            }
        )
    return found


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
