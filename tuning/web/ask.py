"""The routes to ask a run: answers that arrive as they are written, and what it said while it trained.

In: {"prompts", "max_new_tokens", "temperature", "seed", "chat", "weights": "last" or "best"}. Out: JSON lines, {"side",
"index", "text"} for each piece and {"answers": {...}} at the end, or {"message": ...} where the answering failed after
it had begun.
"""

import json
from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from tuning.asking import streamed
from tuning.errors import TuningError
from tuning.question import Question
from tuning.runs import RunService
from tuning.web.requests import json_body, row_of, take

MEMBERS = ("prompts", "max_new_tokens", "temperature", "seed", "chat", "weights")
# identity: a compressed answer would be held back until it is whole
HEADERS = {"Cache-Control": "no-store", "Content-Encoding": "identity"}


def add_ask_routes(app: FastAPI, service: RunService) -> None:
    """POST ask, GET samples."""

    @app.post("/fork/runs/{run_id}/ask")
    async def ask(run_id: str, request: Request) -> StreamingResponse:
        await run_in_threadpool(row_of, service, run_id)
        body = await json_body(request)
        take(body, *MEMBERS)
        weights = body.pop("weights", "last")
        question = Question(**{"prompts": (), **body})
        pieces = streamed(lambda tell: service.ask(run_id, question, tell, weights))
        first = await run_in_threadpool(next, pieces)  # a refusal is still told with its own status
        return StreamingResponse(_lines(first, pieces), media_type="application/jsonl", headers=HEADERS)

    @app.get("/fork/runs/{run_id}/samples")
    def samples(run_id: str) -> dict[str, Any]:
        row_of(service, run_id)
        said = [event.data for event in service.store.events(run_id, "sample")]
        return {"samples": [{key: one.get(key) for key in ("step", "prompt", "text")} for one in said]}


def _lines(first: dict[str, Any], rest: Iterator[dict[str, Any]]) -> Iterator[str]:
    yield json.dumps(first) + "\n"
    try:
        for piece in rest:
            yield json.dumps(piece) + "\n"
    except TuningError as error:
        yield json.dumps({"message": str(error)}) + "\n"
