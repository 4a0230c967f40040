"""The routes of what a run has left: files to download, its settings, the command that trains it again, predictions.

In: a run's id. Out: a zip, JSON. Nothing is made before it is asked for.
"""

import json
import re
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse
from starlette.background import BackgroundTask

from tuning.command import command_line
from tuning.errors import RunError
from tuning.runs import RunService
from tuning.settings import Settings
from tuning.web.requests import json_body, row_of

STEP_FILE = re.compile(r"step-(\d{8})\.json")


def add_result_routes(app: FastAPI, service: RunService) -> None:
    """GET settings, command, kept, files.zip, predictions; POST settings to have them checked."""

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

    @app.get("/fork/runs/{run_id}/kept")
    def kept(run_id: str) -> dict[str, Any]:
        row_of(service, run_id)
        return service.kept(run_id)

    @app.get("/fork/runs/{run_id}/files.zip")
    def files(run_id: str, form: str = "trained") -> FileResponse:
        row_of(service, run_id)
        packed = _zip_of(service.result(run_id, form), service.run_folder(run_id))
        done = BackgroundTask(packed.unlink, missing_ok=True)
        name = f"{run_id}.zip" if form == "trained" else f"{run_id}-{form}.zip"
        return FileResponse(packed, filename=name, media_type="application/zip", background=done)

    @app.get("/fork/runs/{run_id}/predictions")
    def predictions(run_id: str, step: int | None = None) -> dict[str, Any]:
        row_of(service, run_id)
        return _predictions(service.run_folder(run_id) / "predictions", step)


def _predictions(folder: Path, step: int | None) -> dict[str, Any]:
    """{"steps": [...]} with the table of one step, the last when none is named. Raises RunError."""
    found = {int(match[1]): file for file in folder.glob("step-*.json") if (match := STEP_FILE.fullmatch(file.name))}
    if not found:
        return {"steps": [], "rows": []}
    step = max(found) if step is None else step
    if step not in found:
        raise RunError(f"There was no evaluation at step {step}; there are {', '.join(map(str, sorted(found)))}.")
    return {"steps": sorted(found), **json.loads(found[step].read_text("utf-8"))}


def _zip_of(artifact: Path, run_folder: Path) -> Path:
    """settings.json and the result's folder, in one file. Weights hardly shrink, so nothing is compressed."""
    with tempfile.NamedTemporaryFile(suffix=".zip", delete=False) as target:
        file = Path(target.name)
        try:
            with zipfile.ZipFile(target, "w") as packed:
                packed.write(run_folder / "settings.json", "settings.json")
                for path in sorted(artifact.rglob("*")):
                    if path.is_file():
                        packed.write(path, Path(artifact.name) / path.relative_to(artifact))
        except OSError as error:  # a full disk: what is packed so far would fill it further
            file.unlink()
            raise RunError(f"This result could not be packed: {error.strerror or error}.") from error
    return file
