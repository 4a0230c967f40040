"""The routes to ask a run: answers that arrive as they are generated, and the samples of its training.

A question is {"prompts", "max_new_tokens", "temperature", "seed", "chat", "weights": "last" or "best"}. The answer is
JSON lines: {"side", "index", "text"} for each piece, {"again": true} where answering begins anew, and at the end
{"answers": {...}}, or {"message": ...} where it failed after it had begun. It is 429 where too many questions wait.
A question whose client has disconnected is dropped. While a question waits it takes no thread.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Any, NotRequired, TypedDict

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from fastapi import FastAPI, Request
from fastapi.responses import Response, StreamingResponse

from tuning.core.errors import TuningError
from tuning.core.visitor import current_visitor
from tuning.runs.ask import ASK_SECONDS, PendingAnswer
from tuning.runs.service import RunService
from tuning.text.question import Question
from tuning.training.checkpoint_files import RecoverySource
from tuning.web.requests import Body, json_body, row_of, take

# identity: a compressed answer would be held back until it is whole
HEADERS = {"Cache-Control": "no-store", "Content-Encoding": "identity"}
ASKING = CapacityLimiter(2)
"""Threads for putting questions in the queue; apart from those that all other requests share."""
CHECK_SECONDS = 0.5
"""How often it is checked whether the client is still connected."""
CLIENT_CLOSED_REQUEST = 499


class Answers(TypedDict):
    """Both answers to each prompt.

    `chances` are there for classes; `prompts` are the texts that the trained model answered, where its method wrote
    something around the prompts; `recovered_from` says which weights answered, where the run was cut off.
    """

    base: list[str]
    trained: list[str]
    chances: NotRequired[list[dict[str, float]]]
    prompts: NotRequired[list[str]]
    recovered_from: NotRequired[RecoverySource]


class Sample(TypedDict):
    """What the run answered to a sample prompt after an update."""

    step: int
    prompt: str
    text: str


class AskBody(Body):
    """A question, which `Question` judges; and which weights of an ended run answer it."""

    prompts: Any = ()
    max_new_tokens: Any = None
    temperature: Any = None
    seed: Any = None
    chat: Any = None
    weights: Any = "last"


def add_ask_routes(app: FastAPI, service: RunService) -> None:
    """POST ask, GET samples."""

    @app.post("/fork/runs/{run_id}/ask")
    async def ask(run_id: str, request: Request) -> Response:
        await run_sync(row_of, service, run_id, limiter=ASKING)
        body = take(await json_body(request), AskBody)
        question = Question(**{"prompts": ()} | body.model_dump(exclude_unset=True, exclude={"weights"}))
        pieces = _Pieces()
        client = current_visitor().owner or (request.client.host if request.client is not None else None)
        put = partial(service.put_question, run_id, question, pieces.put, client, body.weights)
        pending = await run_sync(put, limiter=ASKING)
        lines = pieces.of(pending, request)
        try:
            first = await anext(lines)  # a refusal still has a status of its own
        except StopAsyncIteration:
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        return StreamingResponse(_lines(first, lines), media_type="application/jsonl", headers=HEADERS)

    @app.get("/fork/runs/{run_id}/samples")
    def list_samples(run_id: str) -> dict[str, Any]:
        row_of(service, run_id)
        samples = [event.data for event in service.store.events(run_id, "sample")]
        return {"samples": [{key: sample.get(key) for key in Sample.__annotations__} for sample in samples]}


class _Pieces:
    """A queue from the thread that answers to the event loop that serves."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue = asyncio.Queue[dict[str, Any] | None]()

    def put(self, piece: dict[str, Any] | None) -> None:
        """Adds a piece, from any thread; nothing where the loop is closed."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._queue.put_nowait, piece)

    async def of(self, pending: PendingAnswer, request: Request) -> AsyncIterator[dict[str, Any]]:
        """The pieces of a question, then {"answers": ...}. Raises TuningError.

        It ends early where the client has disconnected, and drops the question where it is closed early."""
        pending.done.add_done_callback(lambda _: self.put(None))
        since = time.monotonic()
        try:
            while True:
                try:
                    piece = await asyncio.wait_for(self._queue.get(), CHECK_SECONDS)
                except TimeoutError:
                    if await request.is_disconnected():
                        return
                    if not pending.begun and time.monotonic() - since > ASK_SECONDS:
                        pending.too_late()
                    continue
                if piece is None:
                    yield {"answers": pending.done.result()}
                    return
                yield piece
        finally:
            pending.drop()


async def _lines(first: dict[str, Any], rest: AsyncIterator[dict[str, Any]]) -> AsyncIterator[str]:
    try:
        yield json.dumps(first) + "\n"
        async for piece in rest:
            yield json.dumps(piece) + "\n"
    except TuningError as error:
        yield json.dumps({"message": str(error)}) + "\n"
    finally:
        await rest.aclose()  # type: ignore[attr-defined]
