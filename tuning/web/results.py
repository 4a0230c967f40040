"""The routes of what a run has left: files to download, its settings, the command that trains it again, predictions.

In: a run's id. Out: a zip, JSON. Nothing is made or written by looking: what has to be made first (a merged model) is
made by a POST, in the thread that trains, and looked at until it is there.
"""

import io
import json
import re
import zipfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse

from tuning.core.errors import RunError
from tuning.runs.service import ResultStates, RunService
from tuning.settings.command_line import command_line
from tuning.settings.schema import Settings
from tuning.web.requests import Body, json_body, row_of, take

PACKING = CapacityLimiter(2)
"""Threads for reading what is packed; apart from those that all other requests share."""
PIECE_BYTES = 2**20
STEP_FILE = re.compile(r"step-(\d{8})\.json")


class PredictionRow(TypedDict):
    """One evaluation row with what the run predicts for it.

    A row that is learned whole has no `truth`, and `right` is None; `chance` is there for classes, `written` where the
    answer was generated.
    """

    row: int
    loss: float | None
    text: str
    truth: NotRequired[str]
    prediction: str
    right: bool | None
    chance: NotRequired[float]
    written: NotRequired[str]


class Predictions(TypedDict):
    """The steps that were evaluated, and the table of one of them; `of` is how many rows were evaluated."""

    steps: list[int]
    step: NotRequired[int]
    loss: NotRequired[float | None]
    metrics: NotRequired[dict[str, float | None]]
    rows: list[PredictionRow]
    of: NotRequired[int]
    labels: NotRequired[list[str]]
    confusion: NotRequired[list[list[int]]]


class ResultBody(Body):
    """Which form of a run's result to make; the service knows them."""

    form: Any = None


def add_result_routes(app: FastAPI, service: RunService) -> None:
    """GET settings, command, results, files.zip, predictions; POST settings to have them checked, results to have a
    form of them made."""

    @app.get("/fork/runs/{run_id}/settings")
    def settings(run_id: str) -> dict[str, Any]:
        return row_of(service, run_id).settings

    @app.get("/fork/runs/{run_id}/settings.json")
    def settings_file(run_id: str) -> JSONResponse:
        name = f'attachment; filename="{run_id}-settings.json"'
        return JSONResponse(row_of(service, run_id).settings, headers={"Content-Disposition": name})

    @app.post("/fork/settings")
    async def check(request: Request) -> dict[str, Any]:
        """The settings in full, or what is wrong with them; whether they fit this machine is the estimate's."""
        return Settings.from_dict(await json_body(request)).to_dict()

    @app.get("/fork/runs/{run_id}/command")
    def command(run_id: str) -> dict[str, str]:
        return {"command": command_line(run_id, row_of(service, run_id).settings, service.home)}

    @app.get("/fork/runs/{run_id}/results", response_model=None)
    def results(run_id: str) -> ResultStates:
        row_of(service, run_id)
        return service.result_states(run_id)

    @app.post("/fork/runs/{run_id}/results")
    async def make(run_id: str, request: Request) -> JSONResponse:
        await run_sync(row_of, service, run_id, limiter=PACKING)
        form = take(await json_body(request), ResultBody).form
        await run_sync(service.make_result, run_id, str(form), limiter=PACKING)
        states = await run_sync(service.result_states, run_id, limiter=PACKING)
        return JSONResponse(states, status_code=202)

    @app.get("/fork/runs/{run_id}/files.zip")
    def files(run_id: str, form: str = "trained") -> StreamingResponse:
        row_of(service, run_id)
        packed = _zipped(service.ready_result(run_id, form), service.run_folder(run_id))
        name = f"{run_id}.zip" if form == "trained" else f"{run_id}-{form}.zip"
        # identity: weights hardly shrink, and packing them anew would take the loop that serves all others
        headers = {"Content-Disposition": f'attachment; filename="{name}"', "Content-Encoding": "identity"}
        return StreamingResponse(_apart(packed), media_type="application/zip", headers=headers)

    @app.get("/fork/runs/{run_id}/predictions", response_model=None)
    def predictions(run_id: str, step: int | None = None) -> Predictions:
        row_of(service, run_id)
        return _predictions(service.run_folder(run_id) / "predictions", step)


def _predictions(folder: Path, step: int | None) -> Predictions:
    """The table of one step, the last where none is named. Raises RunError."""
    found = {int(match[1]): file for file in folder.glob("step-*.json") if (match := STEP_FILE.fullmatch(file.name))}
    if not found:
        return {"steps": [], "rows": []}
    step = max(found) if step is None else step
    if step not in found:
        raise RunError(f"There was no evaluation at step {step}; there are {', '.join(map(str, sorted(found)))}.")
    table: dict[str, Any] = json.loads(found[step].read_text("utf-8"))
    return cast(Predictions, {"steps": sorted(found), **table})


class _Sink(io.RawIOBase):
    """A file that is written once and never sought, whose bytes are taken as they come."""

    def __init__(self) -> None:
        self._pieces = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, piece: Any) -> int:
        self._pieces += piece
        return len(piece)

    def taken(self) -> bytes:
        found = bytes(self._pieces)
        self._pieces.clear()
        return found


def _zipped(artifact: Path, run_folder: Path) -> Iterator[bytes]:
    """settings.json and the result's folder, in one zip, piece by piece: no file of it is written, on no disk. Nothing
    is compressed, for weights hardly shrink."""
    files = {"settings.json": run_folder / "settings.json"}
    inside = (path for path in sorted(artifact.rglob("*")) if path.is_file())
    files |= {str(Path(artifact.name) / path.relative_to(artifact)): path for path in inside}
    sink = _Sink()
    with zipfile.ZipFile(sink, "w") as packed:
        for name, path in files.items():
            about = zipfile.ZipInfo.from_file(path, name)
            with open(path, "rb") as file, packed.open(about, "w") as entry:
                while piece := file.read(PIECE_BYTES):
                    entry.write(piece)
                    yield sink.taken()
    yield sink.taken()


async def _apart(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    """The pieces, read in threads that no other request waits for."""
    while (piece := await run_sync(next, pieces, None, limiter=PACKING)) is not None:
        if piece:
            yield piece
