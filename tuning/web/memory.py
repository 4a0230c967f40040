"""The route under /fork/memory: how memory moves through a step, with rows and with length, and what to change.

The page asks it when "More about memory" is opened. `pending` in the answer says that a table is being made now, so
that asking again soon gives better numbers.
"""

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from tuning.runs.service import MemoryAnswer, RunService
from tuning.web.requests import json_body


def add_memory_routes(app: FastAPI, service: RunService) -> None:
    """POST /fork/memory?device=NAME takes settings."""

    @app.post("/fork/memory")
    async def memory(request: Request, device: str | None = None) -> JSONResponse:
        given = await json_body(request)

        def answer() -> MemoryAnswer:
            return service.what_if(service.preview(given, device))

        return JSONResponse(await run_in_threadpool(answer))
