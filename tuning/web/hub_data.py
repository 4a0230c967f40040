"""The routes of data sets on the hub, under /fork/data/: a data set's card before it is fetched, and downloads.

A request is {"source", "subset", "revision", "split", "token"}. The card has subsets, splits, sizes, the licence and
the first rows.
"""

from typing import TypedDict

from fastapi import FastAPI

from tuning.core.errors import DataError, ModelError
from tuning.data.locate import class_words, find_data_files, split_source
from tuning.data.preview.first_rows import first_rows
from tuning.hub.data_sets import HubData, as_data_error, cached_data, look_up_data, store_listing, with_subset
from tuning.hub.download import cached_bytes
from tuning.hub.label_names import classes_of_subset
from tuning.hub.repo import TOKEN
from tuning.settings.schema import DataSettings
from tuning.web.hub_routes import HubDescription, add_hub_routes
from tuning.web.requests import TOKEN_REFUSAL, Body, OptionalText, SomeText, Token, take

SHOWN_SUBSETS = 200


class Split(TypedDict):
    """A split with its files and their bytes together."""

    name: str
    files: int
    bytes: int


class Subset(TypedDict):
    """A subset with its splits."""

    name: str
    splits: list[Split]


class DataDescription(HubDescription):
    """What is said of a data set; `subset` is the one that `rows`, the first of them, are of."""

    subset: str | None
    subsets: list[Subset]
    rows: list[dict[str, str]]


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
    def name(self) -> str:
        return split_source(self.source)[1]

    @property
    def settings(self) -> DataSettings:
        return DataSettings(source=self.source, subset=self.subset, revision=self.revision, split=self.split)


def add_hub_data_routes(app: FastAPI) -> None:
    """Look-up, download and cancel of data sets."""
    add_hub_routes(
        app,
        "/fork/data",
        "source",
        "data.source",
        read=lambda body: take(body, DataBody),
        name_of=lambda source: split_source(source)[1],
        local_card=_local_card,
        look_up=lambda request: look_up_data(request.source, request.subset, request.revision, request.token),
        hub_card=hub_card,
        to_download=_to_download,
        refusal=as_data_error,
    )


def _to_download(data: HubData, request: DataBody) -> HubData:
    """The files of the chosen subset, whose list is stored beside them. Raises DataError."""
    data = with_subset(data, request.subset)
    if refusal := data.refusal():
        raise refusal
    store_listing(data)
    return data


def _local_card(request: DataBody) -> DataDescription | None:
    """The card of bundled sets, files, and what is in the cache; None where the hub has to be asked."""
    kind, name = split_source(request.source)
    try:
        files = find_data_files(request.settings)
    except DataError as error:
        if kind != "hub" or error.problems[0].field in ("data.split", "data.eval_split"):
            raise
        return None
    card: DataDescription = {
        "id": files.title,
        "source": kind,
        "here": True,
        "subset": None,
        "subsets": [],
        "licence": files.card.get("licence"),
        "notes": list(files.notes),
        "rows": [],
        "gated": False,
        "locked": False,
        "problem": None,
        "bytes": sum(file.stat().st_size for file in (*files.train, *(files.eval or ()))),
    }
    cached = cached_data(name, request.revision) if kind == "hub" else None
    if cached is not None:
        subsets: list[Subset] = [
            {
                "name": subset,
                "splits": [
                    {"name": split, "files": len(names), "bytes": sum(cached.sizes[file] for file in names)}
                    for split, names in splits.items()
                ],
            }
            for subset, splits in list(cached.layout.subsets.items())[:SHOWN_SUBSETS]
        ]
        card |= {
            "id": name,
            "licence": cached.licence,
            "subset": request.subset or cached.layout.default,
            "subsets": subsets,
        }
    return card


def hub_card(data: HubData, request: DataBody) -> DataDescription:
    """What the hub says, with the first rows of the split that would be trained on."""
    rows, why, locked, problem = list[dict[str, str]](), None, data.locked, data.problem
    if problem is None:
        try:
            rows, why = first_rows(data, request.split, request.token)
        except ModelError as error:
            locked = data.gated and error.problems[0].field == TOKEN
            problem = str(error) if locked else None
            why = None if locked else f"The first rows cannot be shown: {error}"
    notes = [why] if why else []
    if data.script:
        notes.append(f"Its loading script {data.script} is not run: its files are read as they are.")
    notes += [
        class_words(column, names) for column, names in classes_of_subset(data.classes, data.subset or "").items()
    ]
    subsets: list[Subset] = [
        {
            "name": subset,
            "splits": [
                {"name": split, "files": len(data.layout.subsets[subset][split]), "bytes": size}
                for split, size in data.split_bytes(subset).items()
            ],
        }
        for subset in list(data.layout.subsets)[:SHOWN_SUBSETS]
    ]
    return {
        "id": data.id,
        "source": "hub",
        "here": False,
        "subset": data.subset,
        "subsets": subsets,
        "licence": data.licence,
        "gated": data.gated,
        "locked": locked,
        "problem": problem,
        "notes": notes,
        "rows": rows,
        "bytes": data.total_bytes,
        "done_bytes": cached_bytes(data),
    }
