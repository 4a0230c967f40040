"""The routes under /fork/data/: the preview of a person's rows, the facts of all of them, and the upload of a file.

Uploads lie in home/uploads under their content's hash, so that the same file is stored once; those of a browser of a
class in a folder of its own.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from filelock import lock_descriptor
from starlette.concurrency import run_in_threadpool

from tuning.core.disk_usage import UPLOAD_PREFIX, UPLOADS
from tuning.core.errors import Notice, Problem, SettingsError, TuningError
from tuning.core.files import temporary_file
from tuning.core.quantities import size_text
from tuning.core.visitor import current_visitor
from tuning.data import CONVERSATION, TEXT
from tuning.data.preview.background_read import look
from tuning.data.preview.preview import preview
from tuning.data.template_choice import template_notices, with_template_chosen
from tuning.models.base_model import BaseModel
from tuning.plan.inputs import base_model
from tuning.settings.schema import Settings
from tuning.text import TextTokenizer
from tuning.web.requests import json_body

SPARE_BYTES = 1 * 2**30
"""What an upload leaves free on the disk."""
NAME_LENGTH = 80
FACTS_SECONDS = 0.5
"""How long one request waits for all rows to be read, before it reports how many are."""
BATCH = ("micro_batch_size", "gradient_accumulation_steps")
UPDATES = ("updates_per_epoch", "effective_batch")
USED = ("task", "model", "revision", "recipe", "seed", *BATCH, "data")
"""The settings that decide what rows become; a fault in another one does not hide the rows."""


def add_data_routes(app: FastAPI, home: Path, base: Callable[[Settings], BaseModel] = base_model) -> None:
    """Add preview, facts and upload. `base` finds the base model of settings, which may be a run's result."""

    @app.post("/fork/data/preview")
    async def show(request: Request) -> JSONResponse:
        given = await json_body(request)
        return JSONResponse(await run_in_threadpool(data_preview, given, base), headers={"Cache-Control": "no-store"})

    @app.post("/fork/data/facts")
    async def facts(request: Request) -> JSONResponse:
        given = await json_body(request)
        return JSONResponse(await run_in_threadpool(data_facts, given), headers={"Cache-Control": "no-store"})

    @app.post("/fork/data/upload")
    async def upload(request: Request, name: str = "rows") -> JSONResponse:
        folder = home / UPLOADS
        expected = request.headers.get("content-length", "")
        try:
            _check_room(folder, int(expected) if expected.isdigit() else 0)
            path = await _store(request, folder, clean_name(name))
        except OSError as error:  # a full disk, a folder that may only be read
            message = f"the file cannot be stored on the server: {error.strerror or error}."
            raise SettingsError([Problem("data.source", None, "room on the disk", message)]) from error
        return JSONResponse({"path": str(path), "name": path.name, "bytes": path.stat().st_size}, status_code=201)


def data_preview(given: dict[str, Any], base: Callable[[Settings], BaseModel] = base_model) -> dict[str, Any]:
    """The rows of the settings, with their notices and `problems`. Raises TuningError."""
    settings, effective_batch = _row_settings(given)
    tokenizer, problems, rows = None, list[dict[str, Any]](), settings.data
    template = tuple[Notice, ...]()
    try:
        model = base(settings)
        rows = with_template_chosen(settings.data, model, settings.recipe)
        template = template_notices(settings.data, model, settings.recipe, pairs=settings.task == "causal_lm")
        tokenizer = TextTokenizer(model.path)
    except TuningError as error:  # rows can be looked at without a model
        problems = [problem.to_dict() for problem in error.problems]
    answer = preview(rows, settings.task, settings.seed, tokenizer, effective_batch or 1)
    if answer.get("shape") not in (TEXT, CONVERSATION):
        answer["notices"] = [*answer["notices"], *(notice.to_dict() for notice in template)]
    return _with_updates(answer, effective_batch) | {"problems": [*answer["problems"], *problems]}


def data_facts(given: dict[str, Any]) -> dict[str, Any]:
    """The facts of all rows, or the progress of reading them, until which the page asks again. Raises TuningError."""
    settings, rows = _row_settings(given)
    answer = look(settings.data, settings.task, settings.seed, rows or 1, FACTS_SECONDS)
    return answer | {"facts": _with_updates(answer["facts"], rows)} if "facts" in answer else answer


def _row_settings(given: dict[str, Any]) -> tuple[Settings, int | None]:
    """The settings that decide what rows become, and the number of rows of an update: None where it cannot be read,
    which changes no row. Raises SettingsError."""
    used = {key: given[key] for key in USED if key in given}
    try:
        settings = Settings.from_dict(used)
    except SettingsError as error:
        if not all(problem.field in BATCH for problem in error.problems):
            raise
        return Settings.from_dict({key: value for key, value in used.items() if key not in BATCH}), None
    return settings, settings.micro_batch_size * settings.gradient_accumulation_steps * settings.num_devices


def _with_updates(facts: Mapping[str, Any], rows: int | None) -> dict[str, Any]:
    """The facts, without the counts of updates where the number of rows of one is unknown."""
    return {key: value for key, value in facts.items() if rows or key not in UPDATES}


def clean_name(name: str) -> str:
    """A file name that is nothing but a name: no folders, no control characters, not hidden."""
    last = re.split(r"[/\\]", name)[-1]
    clean = re.sub(r"[^\w.\- ]", "_", last).strip(" .")[-NAME_LENGTH:]
    return clean.lstrip(" .-") or "rows"


def _check_room(folder: Path, expected: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free - SPARE_BYTES
    if expected > free:
        limit = size_text(max(0, free))
        message = f"the file has {size_text(expected)}, and the disk of the server has room for {limit}."
        raise SettingsError([Problem("data.source", expected, limit, message)])


async def _store(request: Request, folder: Path, name: str) -> Path:
    """Write the body to a temporary file, then move it to its folder; a broken transfer leaves nothing."""
    digest, size = hashlib.sha256(), 0
    with temporary_file(folder, UPLOAD_PREFIX) as (out, temporary):
        # as long as it is written, no other server's start clears it away
        lock_descriptor(out.fileno(), blocking=False)
        async for chunk in request.stream():
            size += len(chunk)
            if size % (64 * 2**20) < len(chunk):
                _check_room(folder, len(chunk))
            digest.update(chunk)
            await run_in_threadpool(out.write, chunk)
        out.close()
        if size == 0:
            raise SettingsError([Problem("data.source", 0, "a file with rows", "the file is empty; choose another.")])
        target = folder / (current_visitor().owner or "") / digest.hexdigest()[:16] / name
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(temporary, target)
        return target
