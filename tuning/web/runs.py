"""The routes of runs: the live list with its points, estimates, and what can be done with a run.

In: settings, a run id, what a page has already. Out: JSON.
"""

from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from tuning.data import short_name
from tuning.rows import RunRow
from tuning.runs import RunService
from tuning.store import FIRST_LOAD_LIMIT
from tuning.web.requests import RUN_ID, json_body, row_of, take

SHOWN_RUNS = 50


def add_run_routes(app: FastAPI, service: RunService) -> None:
    """What there is and how it goes on; estimates; runs started, stopped, named, deleted."""
    _add_reading(app, service)
    _add_running(app, service)


def _cursors(text: str) -> dict[str, int]:
    """RUN:ID,RUN:ID as a dictionary; what does not read like that is left out: a stale address must not break."""
    found = {}
    for part in text.split(",")[:SHOWN_RUNS]:
        run_id, _, number = part.partition(":")
        if RUN_ID.fullmatch(run_id):
            found[run_id] = int(number) if number.isascii() and number.isdigit() and len(number) < 19 else 0
    return found


def run_summary(row: RunRow, place: int | None) -> dict[str, Any]:
    """A run as the page's table shows it: small, because the list is sent whole."""
    plain = (
        "run_id",
        "name",
        "note",
        "state",
        "created",
        "started",
        "ended",
        "parent",
        "from_step",
        "attempt",
        "step",
        "total_steps",
        "loss",
        "eval_loss",
        "best_eval",
        "message",
        "phase",
        "seconds",
        "peak_bytes",
        "slot",
    )
    keys = ("task", "model", "method", "optimizer", "precision", "schedule", "seed")
    settings = {key: row.settings[key] for key in keys}
    estimate = row.estimate or {}
    return {
        **{key: getattr(row, key) for key in plain},
        "place": place,
        "chat": row.chat,
        "system_prompt": row.system_prompt,
        "settings": {**settings, "data": {"source": row.settings["data"]["source"]}},
        "data_name": short_name(row.settings["data"]["source"]),
        "plan": {
            "derived": {key: one["value"] for key, one in row.plan.get("derived", {}).items()},
            "notices": row.plan.get("notices", []),
        },
        "estimate": {key: estimate.get(key) for key in ("total_bytes", "low_bytes", "high_bytes", "kind")},
    }


def live_answer(service: RunService, cursors: dict[str, int], known_version: str | None) -> dict[str, Any]:
    """What a page that has this version of the list and these points does not know yet."""
    store = service.store
    version = store.version()  # before the list: a change in between is then sent again, never missed
    points = store.series_after(cursors, FIRST_LOAD_LIMIT)
    answer: dict[str, Any] = {"epoch": store.epoch, "version": version, "points": points}
    if known_version != str(version):
        answer["runs"] = [run_summary(row, service.place(row.run_id)) for row in store.runs()]
    keys = ("state", "step", "total_steps", "loss", "eval_loss", "best_eval", "seconds", "phase", "peak_bytes")
    answer["progress"] = {row.run_id: {key: getattr(row, key) for key in keys} for row in store.active_runs()}
    if store.trouble:
        answer["trouble"] = store.trouble
    return answer


def preview_answer(service: RunService, settings: Any, device: str | None) -> dict[str, Any]:
    """The estimate's members, with the derived numbers and the expected seconds beside them."""
    preview = service.preview(settings, device)
    derived = {key: {"value": one.value, "origin": one.origin} for key, one in preview.plan.derived.items()}
    notices = [one.to_dict() for one in preview.plan.notices]
    answer = {"derived": derived, "notices": notices, "seconds": preview.seconds, "pending": preview.pending}
    return {**preview.estimate.to_dict(), **answer}


# -- the routes -------------------------------------------------------------------------------------------------------
def _add_reading(app: FastAPI, service: RunService) -> None:
    @app.get("/fork/live")
    def live(cur: str = "", v: str | None = None) -> JSONResponse:
        return JSONResponse(live_answer(service, _cursors(cur), v), headers={"Cache-Control": "no-store"})


def _add_running(app: FastAPI, service: RunService) -> None:
    @app.post("/fork/estimate")
    async def estimate(request: Request, device: str | None = None) -> dict[str, Any]:
        return await run_in_threadpool(preview_answer, service, await json_body(request), device)

    @app.post("/fork/runs")
    async def start(request: Request) -> JSONResponse:
        settings, name, parent, from_step = take(await json_body(request), "settings", "name", "parent", "from_step")
        if parent is not None:
            await run_in_threadpool(row_of, service, str(parent))
        run_id = await run_in_threadpool(service.start, {} if settings is None else settings, name, parent, from_step)
        return JSONResponse({"run_id": run_id}, status_code=201)

    @app.post("/fork/runs/{run_id}/{action}")
    async def change(run_id: str, action: str, request: Request) -> JSONResponse:
        await run_in_threadpool(row_of, service, run_id)
        texts = {"rename": (service.rename, "name"), "note": (service.note, "note")}
        plain = {
            "stop": service.stop,
            "pause": service.pause,
            "resume": service.resume,
            "go_on": service.go_on,
            "delete": service.delete,
            "undelete": service.undelete,
        }
        if action in texts:
            function, member = texts[action]
            (text,) = take(await json_body(request), member)
            await run_in_threadpool(function, run_id, text)
        elif action in plain:
            await run_in_threadpool(plain[action], run_id)
        else:
            return JSONResponse({"message": f"A run cannot {action!r}."}, status_code=404)
        return JSONResponse({"run_id": run_id})
