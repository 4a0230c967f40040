"""Where rows are: bundled sets, files and folders, and which file of them is which split.

Comes in: `DataSettings`.  Goes out: a `Place` with the files of the training and the evaluation rows, and the card of
a bundled set.  Nothing is read here but cards and folder listings.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tuning.assets import assets_folder
from tuning.errors import DataError
from tuning.settings import DataSettings

EVAL_NAMES = ("eval", "evaluation", "validation", "valid", "val", "dev", "test")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Files that hold the rows. `eval` is None where a share of the training rows has to be held out."""

    name: str
    title: str
    origin: str
    """bundled, path or hub."""
    train: Path
    eval: Path | None
    card: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def data_catalogue() -> list[dict[str, Any]]:
    """The cards of the bundled data sets, by name."""
    cards = sorted(assets_folder().glob("data/*/card.json"))
    return [json.loads(card.read_text(encoding="utf-8")) for card in cards]


def bundled_folder(source: str) -> Path | None:
    """The folder of a bundled data set, with what lies beside its rows; None for anything else."""
    folder = assets_folder() / "data" / source.removeprefix("bundled:")
    return folder if "/" not in source and (folder / "card.json").is_file() else None


def find_place(settings: DataSettings) -> Place:
    """Raises DataError where there is no such set, file, folder or split."""
    kind, colon, rest = settings.source.partition(":")
    said = kind if colon and kind in ("bundled", "path") else None
    name = rest if said else settings.source
    for setting in ("subset", "revision"):
        if getattr(settings, setting) is not None:
            message = f"{setting} is for hub data; leave it empty"
            raise DataError(message, getattr(settings, setting), "null", field=f"data.{setting}")
    bundled = {card["name"]: card for card in data_catalogue()}
    if said != "path" and name in bundled:
        card, folder = bundled[name], assets_folder() / "data" / name
        train, held = _folder_files(folder, settings)
        return Place(name=name, title=card.get("title", name), origin="bundled", train=train, eval=held, card=card)
    if said == "path" or name.startswith(("/", "./", "../", "~")):
        try:
            path = Path(name).expanduser()
        except RuntimeError:  # ~somebody who has no home here
            path = Path(name)
        return _path_place(path, settings)
    known = ", ".join(bundled) or "none"
    message = f"no data set {settings.source!r} here; bundled: {known}; or give a file's path such as ./rows.jsonl"
    raise DataError(message, settings.source, "a bundled name or a file's path")


def _path_place(path: Path, settings: DataSettings) -> Place:
    try:
        folder, file = path.is_dir(), path.is_file()
    except (OSError, ValueError):  # a name too long, or with a zero byte in it
        folder = file = False
    if folder:
        train, held = _folder_files(path, settings)
    elif file:
        train, held = path, _beside(path, settings)
        if settings.split is not None and settings.split != path.stem:
            message = f"{path.name} is one file and has no split {settings.split!r}; leave data.split empty"
            raise DataError(message, settings.split, "null", "data.split")
    else:
        message = f"there is no file {str(path)!r:.300}; check the path"
        raise DataError(message, str(path), "an existing file or folder")
    notes = (f"evaluation rows from {held.name}",) if held is not None else ()
    return Place(name=path.stem, title=path.name, origin="path", train=train, eval=held, notes=notes)


def _stems(folder: Path) -> dict[str, Path]:
    """Files of a folder by their name without ending; hidden ones and cards are no rows."""
    files = [file for file in sorted(folder.iterdir()) if file.is_file() and not file.name.startswith(".")]
    return {file.stem: file for file in reversed(files) if file.name not in ("card.json", "README.md")}


def _folder_files(folder: Path, settings: DataSettings) -> tuple[Path, Path | None]:
    stems = _stems(folder)
    names = ", ".join(sorted(stems)) or "nothing"
    wanted = settings.split or "train"
    train = stems.get(wanted)
    if train is None and settings.split is None and len(stems) == 1:
        train = next(iter(stems.values()))
    if train is None:
        message = f"{folder.name} has no split {wanted!r}; its files are {names}; choose one with data.split"
        raise DataError(
            message, settings.split or str(folder), names, "data.split" if settings.split else "data.source"
        )
    if settings.eval_split is not None:
        return train, _asked_eval(stems, train, settings.eval_split)
    return train, next((stems[name] for name in EVAL_NAMES if name in stems and stems[name] != train), None)


def _beside(path: Path, settings: DataSettings) -> Path | None:
    """The evaluation file beside a training file: the one asked for, else train -> eval in its own name."""
    if settings.eval_split is not None:
        return _asked_eval(_stems(path.parent), path, settings.eval_split)
    if not path.stem.lower().endswith("train"):
        return None
    stem = path.stem[: -len("train")]
    beside = (path.with_name(f"{stem}{name}{path.suffix}") for name in EVAL_NAMES)
    return next((file for file in beside if file.is_file()), None)


def _asked_eval(stems: dict[str, Path], train: Path, asked: str) -> Path:
    found = stems.get(asked) or next((file for file in stems.values() if file.name == asked), None)
    if found is None:
        names = ", ".join(sorted(stems))
        message = f"there is no evaluation split {asked!r} beside {train.name}; there are {names}"
        raise DataError(message, asked, names, "data.eval_split")
    if found == train:
        message = f"{train.name} cannot be trained on and evaluated on; choose another data.eval_split"
        raise DataError(message, asked, "another file", "data.eval_split")
    return found
