"""Data sets on the hub: look-up before any file is fetched, and the listing of each in the cache.

A `HubData` has subsets, splits, sizes and licence; a data set whose rows would need a script is refused. The hub is
asked only when a person presses a button for it. The listing is JSON beside the cached files, so that without a network
it is known what each subset consists of.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from tuning.core.errors import DataError, ModelError
from tuning.core.files import write_text
from tuning.hub.connection import ANSWER_SECONDS, connect_to_hub, within
from tuning.hub.download import fetch
from tuning.hub.label_names import Classes, classes_of
from tuning.hub.repo import HubFile, HubRepo, hub_file, licence_of, translate_hub_errors
from tuning.hub.splits import CONVERTED, Layout, Splits, layout_of
from tuning.models.base_model import COMMIT, HUB_ID, cache_folder

FIELDS = {"model": "data.source", "revision": "data.revision"}
"""Fields of a model's problem, and those of a data set in their place."""
LISTINGS = ".listings"
"""The folder of listings in a data set's folder of the cache; other programs ignore names with a dot first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HubData(HubRepo):
    """A data set as the hub describes it; `files` are those of the chosen subset, `subset` is None while none is."""

    repo_type: ClassVar[str] = "dataset"
    words: ClassVar[str] = "data set"

    requested_subset: str | None
    """The subset that was asked for."""
    subset: str | None
    layout: Layout
    listed: tuple[HubFile, ...]
    """All files that hold rows."""
    configs: Any
    """The description of its subsets in the card, not checked."""
    script: str | None
    """A loading script, which is never fetched nor run."""
    classes: dict[str, Classes]
    """Names of classes by subset and column, for rows that hold class numbers."""

    @property
    def splits(self) -> Splits:
        """The splits of the chosen subset; empty while none is chosen."""
        return self.layout.subsets.get(self.subset or "", {})

    def refusal(self) -> DataError | None:
        """The error that keeps it from being downloaded; None where nothing does."""
        if self.problem is None:
            return None
        return (
            unknown_subset(self.id, self.layout, self.requested_subset)
            if self.listed
            else DataError(self.problem, self.id)
        )

    def split_bytes(self, subset: str) -> dict[str, int]:
        """Bytes of each split of a subset."""
        sizes = {file.name: file.size for file in self.listed}
        return {split: sum(map(sizes.__getitem__, names)) for split, names in self.layout.subsets[subset].items()}


def is_hub_id(name: str) -> bool:
    """Whether a name is written as a hub id."""
    return bool(HUB_ID.fullmatch(name)) and "--" not in name and ".." not in name


def as_data_error(error: ModelError) -> DataError:
    """An error about a model with the fields of a data set, for what both share."""
    (problem,) = error.problems
    return DataError(str(error), problem.value, problem.limit, FIELDS.get(problem.field, problem.field))


def look_up_data(
    source: str, subset: str | None = None, revision: str | None = None, token: str | None = None
) -> HubData:
    """Look a data set up on the hub. Raises DataError, on field `token` where a token would help."""
    name = source.removeprefix("hub:").strip()
    if not is_hub_id(name):
        raise DataError(f"{source!r} is no hub id; write it as org/name", source, "org/name")
    try:
        address = connect_to_hub()
        late = f"The hub at {address} took the connection but did not answer within {ANSWER_SECONDS:g} seconds."
        data = within(
            ANSWER_SECONDS, lambda: _ask(address, name, revision or None, token or None), f"{late} Try again."
        )
    except ModelError as error:
        raise as_data_error(error) from None
    return with_subset(data, subset)


def with_subset(data: HubData, subset: str | None) -> HubData:
    """The data set with the files of one subset, the default where none is named; with a problem where there is
    none."""
    if data.problem is not None:
        return data
    name = subset or data.layout.default
    if name not in data.layout.subsets:
        return replace(data, requested_subset=subset, problem=str(unknown_subset(data.id, data.layout, subset)))
    chosen = {file for files in data.layout.subsets[name].values() for file in files}
    listed = tuple(file for file in data.listed if file.name in chosen)
    return replace(data, requested_subset=subset, subset=name, files=listed)


def unknown_subset(name: str, layout: Layout, subset: str | None) -> DataError:
    """The refusal of a subset that a data set lacks, or of none where one has to be chosen."""
    names = ", ".join(sorted(layout.subsets)[:20]) + (", …" if len(layout.subsets) > 20 else "")
    what = f"no subset {subset!r}" if subset else f"{len(layout.subsets)} subsets, and none that is its default"
    message = f"{name} has {what}; choose one with data.subset: {names}"
    return DataError(message, subset, names, "data.subset")


def _ask(address: str, name: str, revision: str | None, token: str | None) -> HubData:
    """The hub's answer about a data set, with no subset chosen. Raises ModelError."""
    from huggingface_hub import HfApi

    with translate_hub_errors(name, revision, token, HubData.words):
        api = HfApi(endpoint=address, token=token or False)  # False: a token kept on this machine is not sent unasked
        info = api.dataset_info(name, revision=revision, files_metadata=True, timeout=ANSWER_SECONDS)
    siblings = {sibling.rfilename: sibling for sibling in info.siblings or ()}
    card = info.card_data.to_dict() if info.card_data else {}
    configs = card.get("configs")
    layout = layout_of(list(siblings), configs, revision)
    row_files = {file for splits in layout.subsets.values() for files in splits.values() for file in files}
    listed = tuple(hub_file(sibling) for file, sibling in sorted(siblings.items()) if file in row_files)
    own = f"{name.rpartition('/')[2]}.py"
    script = own if own in siblings else None
    return HubData(
        id=name,
        revision=revision,
        commit=str(info.sha),
        files=(),
        licence=licence_of(card),
        gated=bool(info.gated),
        locked=False,
        problem=None if listed else _why_no_rows(name, set(siblings), script),
        requested_subset=None,
        subset=None,
        layout=layout,
        listed=listed,
        configs=configs,
        script=script,
        classes=classes_of(card.get("dataset_info")),
    )


def _why_no_rows(name: str, files: set[str], script: str | None) -> str:
    """Why none of these files holds rows, as a sentence with the fix."""
    script = script or next((file for file in sorted(files) if file.endswith(".py")), None)
    if script:
        return (
            f"{name} has no files of rows, only a script that makes them ({script}): foreign code is never "
            f"run here. Where the hub has made its own copy, data.revision {CONVERTED} reads it; else choose another "
            "data set."
        )
    seen = ", ".join(sorted({Path(file).suffix for file in files if not file.startswith(".")} - {"", ".md"}))
    return (
        f"{name} has no files of rows that are read here (JSONL, JSON, CSV, TSV, Parquet, text)"
        + (f", only {seen}" if seen else "")
        + "; choose another data set."
    )


# -- listings in the cache --------------------------------------------------------------------------------------------
def store_listing(data: HubData) -> None:
    """Store what the data set consists of, beside its files. Raises DataError where nothing can be written."""
    path = data.folder / LISTINGS / f"{data.commit}.json"
    files = [[file.name, file.size, file.key] for file in data.listed]
    plain = {
        "files": files,
        "configs": data.configs,
        "licence": data.licence,
        "converted": data.revision == CONVERTED,
        "classes": data.classes,
    }
    try:
        write_text(path, json.dumps(plain))
    except OSError as error:
        message = f"{path.parent} cannot be written ({error.strerror}); the cache of the hub lies there (HF_HUB_CACHE)"
        raise DataError(message, data.id, "a folder that can be written") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A data set in the cache at one commit: what it consists of, and where each file is or would be."""

    folder: Path
    layout: Layout
    sizes: dict[str, int]
    licence: str | None
    classes: dict[str, Classes]

    def missing(self, names: tuple[str, ...]) -> list[str]:
        """The files that are not in the cache, or not whole."""
        return [name for name in names if not self._whole(name)]

    def _whole(self, name: str) -> bool:
        """Whether a file is in the cache with all its bytes."""
        file = self.folder / name
        return file.is_file() and file.stat().st_size == self.sizes.get(name)


def cached_data(name: str, revision: str | None) -> Snapshot | None:
    """A data set in the cache at a branch, tag or commit; None where it was never downloaded."""
    folder = cache_folder() / f"datasets--{name.replace('/', '--')}"
    commit = revision or "main"
    if not COMMIT.fullmatch(commit):
        ref = folder / "refs" / commit
        if not ref.resolve().is_relative_to((folder / "refs").resolve()) or not ref.is_file():
            return None
        commit = ref.read_text(encoding="utf-8").strip()
    listing = folder / LISTINGS / f"{commit}.json"
    if not COMMIT.fullmatch(commit) or not listing.is_file():
        return None
    plain = json.loads(listing.read_text(encoding="utf-8"))
    sizes = {str(file): int(size) for file, size, _ in plain["files"]}
    layout = layout_of(list(sizes), plain["configs"], CONVERTED if plain["converted"] else None)
    classes = {
        subset: {column: tuple(names) for column, names in columns.items()}
        for subset, columns in plain.get("classes", {}).items()  # a listing of an older version has none
    }
    return Snapshot(
        folder=folder / "snapshots" / commit, layout=layout, sizes=sizes, licence=plain["licence"], classes=classes
    )


def download_data_now(
    source: str, subset: str | None, revision: str | None, token: str | None, progress: Callable[[int, int], None]
) -> None:
    """Look a data set up and fetch it in the calling thread, for the command line. Raises DataError."""
    data = look_up_data(source, subset, revision, token)
    if refusal := data.refusal():
        raise refusal
    store_listing(data)
    try:
        fetch(data, token, lambda done: progress(done, data.total_bytes), lambda: False)
    except ModelError as error:
        raise as_data_error(error) from None
