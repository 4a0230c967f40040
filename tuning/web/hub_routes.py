"""The four routes of things on the hub: POST lookup, download, cancel; GET download.

Models and data sets share them. What is bundled, in a folder or in the cache is read from the disk. The hub is asked
only here, because a person has pressed a button. A token is used for the one request, or by the thread that downloads,
and is in no answer and no log.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, NotRequired, Protocol, TypedDict, TypeVar

from fastapi import FastAPI, Query, Request
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from tuning.core.errors import ModelError, TuningError
from tuning.hub.download import Downloads
from tuning.hub.repo import HubRepo
from tuning.web.requests import for_the_holder, json_body

LOOK_UPS = 32
"""Look-ups that stay in memory, so that Download need not ask again."""


class HubDescription(TypedDict):
    """What is said of a model or a data set before it is fetched; each kind adds its own.

    `here` is whether it is on this machine, `locked` whether a token is asked for, `done_bytes` what an earlier
    download has left, and `download` the one that is under way.
    """

    id: str
    source: str
    here: bool
    licence: str | None
    notes: Sequence[str]
    gated: bool
    locked: bool
    problem: str | None
    bytes: int | None
    done_bytes: NotRequired[int]
    download: NotRequired[dict[str, Any] | None]


class HubRequest(Protocol):
    """What a request asks about."""

    @property
    def name(self) -> str:
        """The hub id."""

    @property
    def revision(self) -> str | None: ...

    @property
    def token(self) -> str | None: ...


RequestT = TypeVar("RequestT", bound=HubRequest)
Repo = TypeVar("Repo", bound=HubRepo)


def add_hub_routes(
    app: FastAPI,
    prefix: str,
    parameter: str,
    field: str,
    *,
    read: Callable[[dict[str, Any]], RequestT],
    name_of: Callable[[str], str],
    local_card: Callable[[RequestT], Mapping[str, Any] | None],
    look_up: Callable[[RequestT], Repo],
    hub_card: Callable[[Repo, RequestT], Mapping[str, Any]],
    to_download: Callable[[Repo, RequestT], Repo],
    refusal: Callable[[ModelError], TuningError] = lambda error: error,
) -> None:
    """The routes below `prefix`.

    `parameter` names the thing in the address of GET download, from which `name_of` takes its hub id; `field` is where
    a browser that may not ask the hub is refused. `read` makes a request of a JSON object, or raises SettingsError;
    `local_card` describes what needs no hub, None where the hub has to be asked; `to_download` raises TuningError for
    what cannot be fetched; `refusal` puts what a download raises at the fields of this kind of thing.
    """
    downloads, recent = Downloads(), dict[tuple[str, str | None], Repo]()

    def ask(request: RequestT) -> Repo:
        for_the_holder(field)
        repo = look_up(request)
        while len(recent) >= LOOK_UPS:
            recent.pop(next(iter(recent)))
        recent[(request.name, request.revision)] = repo
        return repo

    def card(request: RequestT) -> dict[str, Any]:
        local = local_card(request)
        if local is not None:
            return dict(local)
        repo = ask(request)
        running = downloads.of(repo.id)
        return {**hub_card(repo, request), "download": running.to_dict() if running else None}

    def begin(request: RequestT) -> dict[str, Any]:
        for_the_holder(field)
        repo = recent.get((request.name, request.revision))
        if repo is None or repo.locked:  # this request may bring the token
            repo = ask(request)
        return downloads.start(to_download(repo, request), request.token).to_dict()

    @app.post(f"{prefix}/lookup")
    async def lookup(request: Request) -> dict[str, Any]:
        return await run_in_threadpool(card, read(await json_body(request)))

    @app.post(f"{prefix}/download")
    async def download(request: Request) -> dict[str, Any]:
        return await run_in_threadpool(begin, read(await json_body(request)))

    @app.post(f"{prefix}/cancel")
    async def cancel(request: Request) -> dict[str, Any]:
        name = read(await json_body(request)).name
        for_the_holder(field)
        try:
            return downloads.cancel(name).to_dict()
        except ModelError as error:
            raise refusal(error) from None

    @app.get(f"{prefix}/download")
    def progress(text: Annotated[str, Query(alias=parameter)]) -> JSONResponse:
        running = downloads.of(name_of(text))
        answer = running.to_dict() if running else None
        return JSONResponse(answer, status_code=200 if answer else 404, headers={"Cache-Control": "no-store"})
