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
from tuning.core.visitor import current_visitor
from tuning.data import CONVERSATION, TEXT
from tuning.data.preview.background_read import look
from tuning.data.preview.preview import preview
from tuning.data.template_choice import template_notices, with_template_chosen
from tuning.models.base_model import BaseModel
from tuning.plan.plan import base_model
from tuning.settings.schema import Settings
from tuning.text import TextTokenizer
from tuning.web.requests import json_body

SPARE_BYTES = 1 * 2**30
"""What an upload leaves free on the disk."""
NAME_LENGTH = 80
FACTS_SECONDS = 0.5
"""How long one request waits for all rows to be read, before it says how far they are."""
BATCH = ("micro_batch_size", "gradient_accumulation_steps")
UPDATES = ("updates_per_epoch", "effective_batch")
USED = ("task", "model", "revision", "recipe", "seed", *BATCH, "data")
"""The settings that say what rows become; a fault elsewhere in the form does not hide them."""


def add_data_routes(app: FastAPI, home: Path, base: Callable[[Settings], BaseModel] = base_model) -> None:
    """Preview and upload. `base` finds the base model of settings, also a run's result where runs are known."""

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
            message = f"the file cannot be kept on the server: {error.strerror or error}."
            raise SettingsError([Problem("data.source", None, "room on the disk", message)]) from error
        return JSONResponse({"path": str(path), "name": path.name, "bytes": path.stat().st_size}, status_code=201)


def data_preview(given: dict[str, Any], base: Callable[[Settings], BaseModel] = base_model) -> dict[str, Any]:
    """What the settings' rows are, with their notices; what is wrong stands under `problems`. Raises TuningError."""
    settings, effective_batch = _of_the_rows(given)
    tokenizer, problems, rows = None, list[dict[str, Any]](), settings.data
    written = tuple[Notice, ...]()
    try:
        model = base(settings)
        rows = with_template_chosen(settings.data, model, settings.recipe)
        written = template_notices(settings.data, model, settings.recipe, pairs=settings.task == "causal_lm")
        tokenizer = TextTokenizer(model.path)
    except TuningError as error:  # rows can be looked at without a model
        problems = [problem.to_dict() for problem in error.problems]
    found = preview(rows, settings.task, settings.seed, tokenizer, effective_batch or 1)
    if found.get("shape") not in (TEXT, CONVERSATION):
        found["notices"] = [*found["notices"], *(one.to_dict() for one in written)]
    return _updates_known(found, effective_batch) | {"problems": [*found["problems"], *problems]}


def data_facts(given: dict[str, Any]) -> dict[str, Any]:
    """What only all rows tell, or how far their reading is; asked again until it is done. Raises TuningError."""
    settings, rows = _of_the_rows(given)
    found = look(settings.data, settings.task, settings.seed, rows or 1, FACTS_SECONDS)
    return found | {"facts": _updates_known(found["facts"], rows)} if "facts" in found else found


def _of_the_rows(given: dict[str, Any]) -> tuple[Settings, int | None]:
    """The settings that say what rows become, and the rows of an update: None where their numbers cannot be read,
    which changes no row. Raises SettingsError."""
    used = {key: given[key] for key in USED if key in given}
    try:
        settings = Settings.from_dict(used)
    except SettingsError as error:
        if not all(problem.field in BATCH for problem in error.problems):
            raise
        return Settings.from_dict({key: value for key, value in used.items() if key not in BATCH}), None
    return settings, settings.micro_batch_size * settings.gradient_accumulation_steps * settings.num_devices


def _updates_known(found: Mapping[str, Any], rows: int | None) -> dict[str, Any]:
    """Without the counts of updates where the rows of one are not known."""
    return {key: value for key, value in found.items() if rows or key not in UPDATES}


def clean_name(name: str) -> str:
    """A file name that is nothing but a name: no folders, no control characters, not hidden."""
    last = re.split(r"[/\\]", name)[-1]
    kept = re.sub(r"[^\w.\- ]", "_", last).strip(" .")[-NAME_LENGTH:]
    return kept.lstrip(" .-") or "rows"


def _check_room(folder: Path, expected: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free - SPARE_BYTES
    if expected > free:
        limit = f"{max(0, free) / 2**20:.0f} MiB"
        message = f"the file has {expected / 2**20:.0f} MiB, and the disk of the server has room for {limit}."
        raise SettingsError([Problem("data.source", expected, limit, message)])


async def _store(request: Request, folder: Path, name: str) -> Path:
    """Write the body aside, then give it its place; a broken transfer leaves nothing."""
    digest, size = hashlib.sha256(), 0
    with temporary_file(folder, UPLOAD_PREFIX) as (out, aside):
        lock_descriptor(
            out.fileno(), blocking=False
        )  # as long as it is written, no other server's start clears it away
        async for chunk in request.stream():
            size += len(chunk)
            if size % (64 * 2**20) < len(chunk):
                _check_room(folder, len(chunk))
            digest.update(chunk)
            await run_in_threadpool(out.write, chunk)
        out.close()
        if size == 0:
            raise SettingsError([Problem("data.source", 0, "a file with rows", "the file is empty; choose another.")])
        place = folder / (current_visitor().owner or "") / digest.hexdigest()[:16]
        place.mkdir(parents=True, exist_ok=True)
        os.replace(aside, place / name)
        return place / name
