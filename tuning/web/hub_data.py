"""The routes of data sets on the hub: POST /fork/data/lookup, download, cancel; GET /fork/data/download.

In: {"source", "subset", "revision", "split", "token"}.  Out: the card as JSON: subsets, splits, sizes, licence, first
rows; how far a download is.  What is on this machine is read from the disk; the hub is asked only here, because a
person pressed.  A token is used for the one request, or by the thread that downloads, and is in no answer and no log.
"""

from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from tuning.data.first_rows import first_rows
from tuning.data.places import class_words, find_place, split_source
from tuning.errors import DataError, ModelError
from tuning.hub.classes import of_subset
from tuning.hub.download import Downloads, bytes_here
from tuning.hub.hub_data import HubData, cached_data, chosen, data_error, keep_listing, look_up_data
from tuning.hub.repo import TOKEN
from tuning.settings import DataSettings
from tuning.web.requests import TOKEN_REFUSAL, Body, OptionalText, SomeText, Token, for_the_holder, json_body, take

KNOWN = 16
"""Looked-up data sets kept in mind, so that Download need not ask again."""
SHOWN_SUBSETS = 200


class DataBody(Body):
    """What a request asks about."""

    refusals = {
        "source": ("data.source", "a text", "Type a data set first: a hub id such as org/name, or a path."),
        **{name: (f"data.{name}", "a text", f"The {name} must be a text.") for name in ("subset", "revision", "split")},
        "token": TOKEN_REFUSAL,
    }
    source: SomeText
    subset: OptionalText = None
    revision: OptionalText = None
    split: OptionalText = None
    token: Token = None

    @property
    def settings(self) -> DataSettings:
        return DataSettings(source=self.source, subset=self.subset, revision=self.revision, split=self.split)


def add_hub_data_routes(app: FastAPI) -> None:
    """Look-up, download and cancel of data sets."""
    downloads, known = Downloads(), dict[tuple[str, str | None], HubData]()

    def ask(asked: DataBody) -> HubData:
        for_the_holder("data.source")
        found = look_up_data(asked.source, asked.subset, asked.revision, asked.token)
        while len(known) >= KNOWN:
            known.pop(next(iter(known)))
        known[(found.id, asked.revision)] = found
        return found

    def card(asked: DataBody) -> dict[str, Any]:
        here = _card_of_what_is_here(asked)
        return here or hub_card(ask(asked), asked, downloads)

    def begin(asked: DataBody) -> dict[str, Any]:
        for_the_holder("data.source")
        found = known.get((split_source(asked.source)[1], asked.revision)) or ask(asked)
        found = chosen(found, asked.subset)
        if refusal := found.refusal():
            raise refusal
        keep_listing(found)
        return downloads.start(found, asked.token).to_dict()

    @app.post("/fork/data/lookup")
    async def lookup(request: Request) -> dict[str, Any]:
        return await run_in_threadpool(card, take(await json_body(request), DataBody))

    @app.post("/fork/data/download")
    async def download(request: Request) -> dict[str, Any]:
        return await run_in_threadpool(begin, take(await json_body(request), DataBody))

    @app.post("/fork/data/cancel")
    async def cancel(request: Request) -> dict[str, Any]:
        asked = take(await json_body(request), DataBody)
        for_the_holder("data.source")
        try:
            return downloads.cancel(split_source(asked.source)[1]).to_dict()
        except ModelError as error:
            raise data_error(error) from None

    @app.get("/fork/data/download")
    def progress(source: str) -> JSONResponse:
        one = downloads.of(split_source(source)[1])
        found = one.to_dict() if one else None
        return JSONResponse(found, status_code=200 if found else 404, headers={"Cache-Control": "no-store"})


def _card_of_what_is_here(asked: DataBody) -> dict[str, Any] | None:
    """The card of bundled sets, files, and what is in the cache; None where the hub has to be asked."""
    kind, name = split_source(asked.source)
    try:
        place = find_place(asked.settings)
    except DataError as error:
        if kind != "hub" or error.problems[0].field in ("data.split", "data.eval_split"):
            raise
        return None
    card: dict[str, Any] = {
        "id": place.title,
        "source": kind,
        "here": True,
        "subset": None,
        "subsets": [],
        "licence": place.card.get("licence"),
        "notes": list(place.notes),
        "rows": [],
        "gated": False,
        "locked": False,
        "problem": None,
        "bytes": sum(file.stat().st_size for file in (*place.train, *(place.eval or ()))),
    }
    kept = cached_data(name, asked.revision) if kind == "hub" else None
    if kept is not None:
        subsets = [
            {
                "name": subset,
                "splits": [
                    {"name": split, "files": len(files), "bytes": sum(kept.sizes[file] for file in files)}
                    for split, files in splits.items()
                ],
            }
            for subset, splits in list(kept.layout.subsets.items())[:SHOWN_SUBSETS]
        ]
        card |= {"id": name, "licence": kept.licence, "subset": asked.subset or kept.layout.default, "subsets": subsets}
    return card


def hub_card(found: HubData, asked: DataBody, downloads: Downloads) -> dict[str, Any]:
    """What the hub says, with the first rows of the split that would be trained on."""
    rows, why, locked, problem = list[dict[str, str]](), None, found.locked, found.problem
    if problem is None:
        try:
            rows, why = first_rows(found, asked.split, asked.token)
        except ModelError as error:
            locked = found.gated and error.problems[0].field == TOKEN
            problem = str(error) if locked else None
            why = None if locked else f"The first rows cannot be shown: {error}"
    notes = [why] if why else []
    if found.script:
        notes.append(f"Its loading script {found.script} is not run: its files are read as they are.")
    notes += [class_words(column, names) for column, names in of_subset(found.classes, found.subset or "").items()]
    subsets = [
        {
            "name": subset,
            "splits": [
                {"name": split, "files": len(found.layout.subsets[subset][split]), "bytes": size}
                for split, size in found.split_bytes(subset).items()
            ],
        }
        for subset in list(found.layout.subsets)[:SHOWN_SUBSETS]
    ]
    running = downloads.of(found.id)
    return {
        "id": found.id,
        "source": "hub",
        "here": False,
        "subset": found.subset,
        "subsets": subsets,
        "licence": found.licence,
        "gated": found.gated,
        "locked": locked,
        "problem": problem,
        "notes": notes,
        "rows": rows,
        "bytes": found.total_bytes,
        "done_bytes": bytes_here(found),
        "download": running.to_dict() if running else None,
    }
