"""The routes of runs: the list with the points of the curves, estimates, start, and what can be done with a run.

GET /fork/live answers only what is newer than the cursors that a page sends.
"""

import json
from collections.abc import Callable, Iterable
from functools import lru_cache
from itertools import starmap
from typing import Any, NotRequired, TypedDict, cast

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.concurrency import run_in_threadpool

from tuning.core.errors import Problem, RunError, SettingsError
from tuning.data import short_name
from tuning.runs.events import EvalEvent, StepEvent
from tuning.runs.run_row import ACTIVE_STATES, LINE_COLUMNS, RunRow
from tuning.runs.service import RunService
from tuning.runs.store import FIRST_LOAD_LIMIT, LIST_LINES, POINT_KINDS
from tuning.web.requests import RUN_ID, Body, json_body, row_of, take

SHOWN_RUNS = 50
STARTING = CapacityLimiter(4)
"""Threads for what may take long before a run is in the queue (reading its rows, merging its base); apart from those
that all other requests share."""
KEPT_LINES = 4_000
"""The number of runs whose unchanging part of a line stays in memory, a few kB each."""
SEARCH_LENGTH = 200


class RunSettings(TypedDict):
    """The settings that the table of runs shows; of the data their source alone."""

    task: str
    model: str
    method: dict[str, Any]
    optimizer: dict[str, Any]
    precision: str
    schedule: dict[str, Any]
    seed: int
    data: dict[str, str]


class RunPlan(TypedDict):
    """What the plan of a run said before Start: its derived numbers by name, and its notices."""

    derived: dict[str, Any]
    notices: list[dict[str, Any]]


class RunEstimate(TypedDict):
    """The bytes that a run was expected to take, and how they were found; None of a run without an estimate."""

    total_bytes: int | None
    low_bytes: int | None
    high_bytes: int | None
    kind: str | None


class Progress(TypedDict):
    """What changes of a run while it goes; `place` is its position in the queue."""

    state: str
    step: int
    total_steps: int | None
    loss: float | None
    eval_loss: float | None
    best_eval: float | None
    seconds: float | None
    phase: str | None
    peak_bytes: int | None
    place: int | None


class RunLine(Progress):
    """A run as the page's table shows it."""

    run_id: str
    number: int
    name: str
    note: str
    created: float
    started: float | None
    ended: float | None
    parent: str | None
    from_step: int | None
    attempt: int
    message: str | None
    slot: int
    owner: str | None
    chat: bool
    system_prompt: str | None
    settings: RunSettings
    data_name: str
    plan: RunPlan
    estimate: RunEstimate


class RunPage(TypedDict):
    """A part of the list, newest first; `older` is the number before which there are more, else None."""

    runs: list[RunLine]
    older: int | None


class Points(TypedDict):
    """The points of a run behind a cursor; `id` is the next cursor."""

    id: int
    step: list[StepEvent]
    eval: list[EvalEvent]


class LiveAnswer(TypedDict):
    """The answer of GET /fork/live.

    `runs` is the newest of the list and those of the cursors, with `older` beside it; for a page that knows a version
    of the list, what has changed since, with `removed` beside it. `trouble` says why nothing can be stored just now.
    """

    epoch: str
    version: int
    runs: NotRequired[list[RunLine]]
    older: NotRequired[int | None]
    removed: NotRequired[list[str]]
    progress: dict[str, Progress]
    trouble: NotRequired[str]
    points: dict[str, Points]


LINE_KEYS = tuple(key for key in RunLine.__annotations__ if key in LINE_COLUMNS)
PROGRESS_KEYS = tuple(key for key in Progress.__annotations__ if key in LINE_COLUMNS)
"""Those of their keys that are columns of the store."""


def add_run_routes(app: FastAPI, service: RunService) -> None:
    """Add the routes that read runs, and those that start and change them."""
    _add_reading(app, service)
    _add_running(app, service)


def _cursors(text: str) -> dict[str, int]:
    """RUN:ID,RUN:ID as a dictionary; what does not read like that is left out: a stale address must not break."""
    cursors = {}
    for part in text.split(",")[:SHOWN_RUNS]:
        run_id, _, number = part.partition(":")
        if RUN_ID.fullmatch(run_id):
            cursors[run_id] = int(number) if number.isascii() and number.isdigit() and len(number) < 19 else 0
    return cursors


class RunLines:
    """Runs as the page's table shows them. What never changes of a run is read and made small once, for everybody."""

    def __init__(self, service: RunService) -> None:
        self._service = service
        self._fixed: Callable[[str], dict[str, Any]] = lru_cache(KEPT_LINES)(
            lambda run_id: fixed_part(service.run(run_id))
        )

    def of(self, stored: Iterable[dict[str, Any]]) -> list[RunLine]:
        """The store's lines, each with its place in the queue and what it was started with."""
        lines = list[RunLine]()
        for line in stored:
            try:
                fixed = self._fixed(line["run_id"])
            except RunError:  # of a damaged store: the page shows what is wrong beside the list
                continue
            shown = {key: line[key] for key in LINE_KEYS}
            place = self._service.queue_position(line["run_id"]) if is_active(line) else None
            lines.append(cast(RunLine, {**shown, "place": place, **fixed}))
        return lines

    def first(self, run_ids: Iterable[str]) -> RunPage:
        """The newest runs, those named besides, and whether there are older ones."""
        page = self.page()
        listed = {line["run_id"] for line in page["runs"]}
        named = self._service.store.lines_of(run_id for run_id in run_ids if run_id not in listed)
        return {"runs": page["runs"] + self.of(named), "older": page["older"]}

    def page(self, before: int | None = None, find: str = "", deleted: bool = False) -> RunPage:
        """Some of the list, and whether there are more before the last of them: `older` is its number, else null."""
        lines = self._service.store.lines(before, find, deleted, LIST_LINES + 1)
        older = lines[LIST_LINES - 1]["number"] if len(lines) > LIST_LINES else None
        return {"runs": self.of(lines[:LIST_LINES]), "older": older}

    def changed(self, page_version: str | None) -> dict[str, Any] | None:
        """What came, changed and went since a version of the list; None where the list has to be sent anew."""
        if page_version is None or not page_version.isdecimal() or len(page_version) > 15:
            return None
        changes = self._service.store.changes_after(int(page_version))
        if changes is None:
            return None
        runs, removed = self.of(changes[0]), changes[1]
        return {key: value for key, value in (("runs", runs), ("removed", removed)) if runs or removed}


def is_active(line: dict[str, Any]) -> bool:
    return line["state"] in ACTIVE_STATES


def fixed_part(row: RunRow) -> dict[str, Any]:
    """What a run was started with, as far as the table shows it."""
    settings = {key: row.settings[key] for key in RunSettings.__annotations__ if key != "data"}
    estimate = row.estimate or {}
    return {
        "chat": row.chat,
        "system_prompt": row.system_prompt,
        "settings": {**settings, "data": {"source": row.settings["data"]["source"]}},
        "data_name": short_name(row.settings["data"]["source"]),
        "plan": {
            "derived": {key: number["value"] for key, number in row.plan.get("derived", {}).items()},
            "notices": row.plan.get("notices", []),
        },
        "estimate": {key: estimate.get(key) for key in RunEstimate.__annotations__},
    }


def live_answer(service: RunService, cursors: dict[str, int], page_version: str | None, lines: RunLines) -> str:
    """What a page that has this version of the list and these points does not have yet: a `LiveAnswer` as JSON."""
    store = service.store
    version = store.list_version()  # before the list: a change in between is then sent again, never missed
    points = store.series_texts(cursors, FIRST_LOAD_LIMIT)
    answer: dict[str, Any] = {"epoch": store.store_id, "version": version}
    if page_version != str(version):
        changed = lines.changed(page_version)
        answer |= lines.first(cursors) if changed is None else changed
    answer["progress"] = {
        line["run_id"]: {key: line[key] for key in PROGRESS_KEYS} | {"place": service.queue_position(line["run_id"])}
        for line in store.active_lines()
    }
    if store.trouble:
        answer["trouble"] = store.trouble
    return f'{json.dumps(answer)[:-1]}, "points": {{{", ".join(starmap(_series_json, points.items()))}}}}}'


def _series_json(run_id: str, series: dict[str, Any]) -> str:
    """A member of `points`: what is stored as JSON is put together and not read, for it may be 20 MB."""
    kinds = ", ".join(f'"{kind}": [{",".join(series[kind])}]' for kind in POINT_KINDS)
    return f'"{run_id}": {{"id": {series["id"]}, {kinds}}}'


def preview_answer(service: RunService, settings: Any, device: str | None) -> dict[str, Any]:
    """The estimate's members, with the derived numbers and the expected seconds beside them."""
    preview = service.preview(settings, device)
    derived = {key: {"value": number.value, "origin": number.origin} for key, number in preview.plan.derived.items()}
    notices = [notice.to_dict() for notice in preview.plan.notices]
    answer = {"derived": derived, "notices": notices, "seconds": preview.seconds, "pending": preview.pending}
    return {**preview.estimate.to_dict(), **answer}


# -- the routes -------------------------------------------------------------------------------------------------------
def _add_reading(app: FastAPI, service: RunService) -> None:
    lines = RunLines(service)

    @app.get("/fork/live")
    def live(cur: str = "", v: str | None = None) -> Response:
        answer = live_answer(service, _cursors(cur), v, lines)
        return Response(answer, media_type="application/json", headers={"Cache-Control": "no-store"})

    @app.get("/fork/disk")
    def disk() -> JSONResponse:
        return JSONResponse(service.disk(), headers={"Cache-Control": "no-store"})

    @app.get("/fork/runs")
    def some(before: str = "", find: str = "", deleted: bool = False) -> JSONResponse:
        """A page of the list: runs with a smaller number, whose name or id holds a text, or the deleted ones."""
        if before and not (before.isascii() and before.isdigit() and len(before) < 19):
            raise SettingsError([Problem("before", before, "a run's number", "before must be a run's number.")])
        answer = lines.page(int(before) if before else None, find.strip()[:SEARCH_LENGTH], deleted)
        return JSONResponse(answer, headers={"Cache-Control": "no-store"})


class StartBody(Body):
    """A run to start; the service judges each member and says what is wrong with it."""

    settings: Any = None
    name: Any = None
    parent: Any = None
    from_step: Any = None


class NameBody(Body):
    """A run's new name, which the service judges."""

    name: Any = None


class NoteBody(Body):
    """A run's note, which the service judges."""

    note: Any = None


def _add_running(app: FastAPI, service: RunService) -> None:
    @app.post("/fork/estimate")
    async def estimate(request: Request, device: str | None = None) -> dict[str, Any]:
        return await run_in_threadpool(preview_answer, service, await json_body(request), device)

    @app.post("/fork/runs")
    async def start(request: Request) -> JSONResponse:
        body = take(await json_body(request), StartBody)
        if body.parent is not None:
            await run_in_threadpool(row_of, service, str(body.parent))
        settings = {} if body.settings is None else body.settings
        run_id = await run_sync(service.start, settings, body.name, body.parent, body.from_step, limiter=STARTING)
        return JSONResponse({"run_id": run_id}, status_code=201)

    @app.post("/fork/runs/{run_id}/{action}")
    async def change(run_id: str, action: str, request: Request) -> JSONResponse:
        await run_in_threadpool(row_of, service, run_id)
        texts: dict[str, tuple[Callable[[str, Any], None], type[Body], str]] = {
            "rename": (service.rename, NameBody, "name"),
            "note": (service.note, NoteBody, "note"),
        }
        plain = {
            "stop": service.stop,
            "pause": service.pause,
            "resume": service.unpause,
            "delete": service.delete,
            "undelete": service.undelete,
        }
        if action in texts:
            function, model, member = texts[action]
            text = getattr(take(await json_body(request), model), member)
            await run_in_threadpool(function, run_id, text)
        elif action == "go_on":
            step = await run_sync(service.resume_from_checkpoint, run_id, limiter=STARTING)
            return JSONResponse({"run_id": run_id, "step": step})
        elif action == "purge":
            freed = await run_in_threadpool(service.purge, run_id)
            return JSONResponse({"run_id": run_id, "bytes": freed})
        elif action in plain:
            await run_in_threadpool(plain[action], run_id)
        else:
            return JSONResponse({"message": f"A run cannot {action!r}."}, status_code=404)
        return JSONResponse({"run_id": run_id})
