"""Where rows are: bundled sets, files and folders, what was downloaded from the hub, and which file is which split.

The answer is a `DataFiles`: the files of the training and the evaluation rows, and the card of a bundled set. Nothing
is read here but cards and folder listings.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from tuning.core.errors import DataError, Notice
from tuning.core.paths import assets_folder
from tuning.core.visitor import path_refusal
from tuning.data.files.archive import NAME_LETTERS
from tuning.data.files.archive import NOT_ROWS as NOT_ROWS_BESIDE
from tuning.data.files.table import FileVersion, file_version
from tuning.hub.data_sets import Snapshot, cached_data, is_hub_id, unknown_subset
from tuning.hub.label_names import classes_of, classes_of_subset
from tuning.hub.splits import NOT_ROWS, PACKED, Layout, layout_of
from tuning.settings.schema import DataSettings

MOST_FILES, MOST_DEPTH = 10_000, 6
"""How many files of a folder are looked at, and how deep in it."""
CARD_BYTES = 2**20
EVAL_NAMES = ("eval", "evaluation", "validation", "valid", "val", "dev", "test")


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFiles:
    """Files that hold the rows. `eval` is None where a share of the training rows has to be held out."""

    name: str
    title: str
    origin: str
    """bundled, path or hub."""
    train: tuple[Path, ...]
    eval: tuple[Path, ...] | None
    card: dict[str, Any] = field(default_factory=dict)
    classes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Columns that hold numbers of classes, with the names that the hub's card gives them."""
    notes: tuple[str, ...] = ()
    notices: tuple[Notice, ...] = ()
    """Notices about files that are left out."""


def data_catalogue() -> list[dict[str, Any]]:
    """The cards of the bundled data sets, by name."""
    cards = sorted(assets_folder().glob("data/*/card.json"))
    return [json.loads(card.read_text(encoding="utf-8")) for card in cards]


def _bundled_card(name: str) -> dict[str, Any] | None:
    """The card of the bundled set of that name; None where there is none."""
    file = assets_folder() / "data" / name / "card.json"
    if "/" in name or not os.path.isfile(file):  # false, too, for a name too long or with a zero byte in it
        return None
    card: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return card


def split_source(source: str) -> tuple[str, str]:
    """(`bundled` | `path` | `hub`, the name without its prefix); `hub` is what nothing else is."""
    kind, name = _kind_as_written(source)
    if kind is None:
        kind = "hub" if _bundled_card(name) is None else "bundled"
    return kind, name


def _kind_as_written(source: str) -> tuple[str | None, str]:
    """The kind as far as the source itself says it, and the name without its prefix. The kind is None for a name that
    is either bundled or the hub's."""
    kind, colon, rest = source.partition(":")
    if colon and kind in ("bundled", "path", "hub"):
        return kind, rest
    return ("path" if source.startswith(("/", "./", "../", "~")) else None), source


UPLOADED = re.compile(r"/uploads/[0-9a-f]{16}/[^/]+")
"""How the path of a file ends that came in through the page."""


def is_uploaded(source: str) -> bool:
    """Whether this is the path of a file that came in through the page."""
    return UPLOADED.search(source) is not None


def short_name(source: str) -> str:
    """What people call these data: of a file or folder its own name, without where it lies."""
    kind, name = _kind_as_written(source)
    return Path(name).name or name if kind == "path" else name


def find_data_files(settings: DataSettings) -> DataFiles:
    """The files that the settings name. Raises DataError where there is no such set, file, folder or split."""
    kind, name = split_source(settings.source)
    if kind == "hub":
        return _from_hub(name, settings)
    if settings.revision is not None:
        raise DataError("revision is for hub data; leave it empty", settings.revision, "null", field="data.revision")
    if kind == "path":
        try:
            path = Path(name).expanduser()
        except RuntimeError:  # ~somebody who has no home here
            path = Path(name)
        _check_readable(path, name)
        try:
            files = _from_path(path, settings)
        except OSError as error:  # a folder that may not be looked into, a disk that is gone
            shown = f"{str(path)!r:.300}"
            message = f"{shown} cannot be read: {error.strerror or error}; check who may read it, or choose another"
            raise DataError(message, str(path), "a readable file or folder") from None
        for file in (*files.train, *(files.eval or ())):  # a link in a folder may lead out of it
            _check_readable(file, str(Path(name) / file.name) if path.is_dir() else name)
        return files
    _no_subset(settings)
    card = _bundled_card(name)
    if card is None:
        raise DataError(f"no data set {settings.source!r} here; bundled: {_bundled()}", settings.source, _bundled())
    train, evaluation = _folder_files(assets_folder() / "data" / name, settings)
    return DataFiles(
        name=name,
        title=card.get("title", name),
        origin="bundled",
        train=(train,),
        eval=(evaluation,) if evaluation else None,
        card=card,
    )


def _check_readable(path: Path, name: str) -> None:
    """Raises DataError where the visitor of the page may not read this path. It is not opened for that."""
    refusal = path_refusal(path, "data")
    if refusal is not None:
        raise DataError(f"{name!r:.300} {refusal}", name, "an upload, bundled data, or a folder named for all")


def _no_subset(settings: DataSettings) -> None:
    """Raises DataError where a subset is named for data that have none."""
    if settings.subset is not None:
        message = "subset is for hub data and its clones; leave it empty"
        raise DataError(message, settings.subset, "null", field="data.subset")


def is_here(settings: DataSettings) -> bool:
    """Whether the rows are on this machine, whole."""
    try:
        find_data_files(settings)
    except DataError:
        return False
    return True


def _bundled() -> str:
    """The names of the bundled data sets, for messages."""
    return ", ".join(card["name"] for card in data_catalogue()) or "none"


# -- the hub's cache --------------------------------------------------------------------------------------------------
def _from_hub(name: str, settings: DataSettings) -> DataFiles:
    """The files of a data set that was downloaded; the hub is not asked. Raises DataError."""
    snapshot = cached_data(name, settings.revision) if is_hub_id(name) else None
    if snapshot is None:
        at = f" at revision {settings.revision!r}" if settings.revision else ""
        message = (
            f"no data set {settings.source!r:.200}{at} here: not bundled ({_bundled()}), not downloaded yet. Press "
            "Look up to see and fetch it (on the command line: run --download), or give a file's path such as "
            "./rows.jsonl"
        )
        limit = "a bundled name, a file's path, or a hub id that is downloaded"
        raise DataError(message, settings.source, limit)
    _check_readable(snapshot.folder, settings.source)
    subset, train_split, eval_split = _chosen_splits(name, snapshot.layout, settings)
    splits = snapshot.layout.subsets[subset]
    files = _downloaded_files(name, subset, snapshot, splits[train_split] + (splits[eval_split] if eval_split else ()))
    train = tuple(files[file] for file in splits[train_split])
    classes = classes_of_subset(snapshot.classes, subset)
    notes = (
        f"{subset}, {train_split}" + (f"; evaluation rows from {eval_split}" if eval_split else ""),
        *(class_words(column, names) for column, names in classes.items()),
    )
    title = name.rpartition("/")[2] + ("" if len(snapshot.layout.subsets) == 1 else f" ({subset})")
    return DataFiles(
        name=title,
        title=title,
        origin="hub",
        train=train,
        notes=notes,
        classes=classes,
        eval=tuple(files[file] for file in splits[eval_split]) if eval_split else None,
    )


def _chosen_splits(name: str, layout: Layout, settings: DataSettings) -> tuple[str, str, str | None]:
    """Subset, training split and evaluation split, which may be None, as the settings say or as usual.

    Raises DataError where the data set `name` has none of that name.
    """
    subset = settings.subset or layout.default
    if subset not in layout.subsets:
        raise unknown_subset(name, layout, settings.subset)
    splits = list(layout.subsets[subset])
    train = _train_split(name, splits, settings)
    return subset, train, _eval_split(name, splits, train, settings)


def _train_split(name: str, splits: Sequence[str], settings: DataSettings) -> str:
    """The split that the settings name, else train, or the only one there is. Raises DataError."""
    train = settings.split or ("train" if "train" in splits or len(splits) > 1 else splits[0])
    if train in splits:
        return train
    limit = ", ".join(splits)
    message = f"{name} has no split {train!r}; it has {limit}; choose one with data.split"
    raise DataError(message, settings.split, limit, "data.split")


def _eval_split(name: str, splits: Sequence[str], train: str, settings: DataSettings) -> str | None:
    """The split that the settings name, else one with a usual name of evaluation rows; None without one.

    Raises DataError where there is no split of that name besides `train`.
    """
    others = [split for split in splits if split != train]
    evaluation = settings.eval_split or next((usual for usual in EVAL_NAMES if usual in others), None)
    if evaluation is None or evaluation in others:
        return evaluation
    limit = ", ".join(others) or "none"
    message = f"{name} has no split {evaluation!r} besides {train!r}; there are {limit}; choose another data.eval_split"
    raise DataError(message, evaluation, limit, "data.eval_split")


def class_words(column: str, names: tuple[str, ...]) -> str:
    """The sentence about the names that a card gives the classes of a column."""
    numbered = ", ".join(f"{number} {name}" for number, name in enumerate(names[:10])) + (
        ", …" if len(names) > 10 else ""
    )
    return f"The card names the classes of {column}: {numbered}. data.label_names can name them otherwise."


def _downloaded_files(name: str, subset: str, snapshot: Snapshot, names: tuple[str, ...]) -> dict[str, Path]:
    """The paths of these files by name. Raises DataError where one is not downloaded."""
    missing = snapshot.missing(names)
    if missing:
        message = (
            f"subset {subset!r} of {name} is not downloaded yet: {len(missing)} of {len(names)} files are missing. "
            "Press Look up to fetch it (on the command line: run --download)"
        )
        raise DataError(message, subset, "a subset that is downloaded")
    return {file: snapshot.folder / file for file in names}


# -- a person's own files ---------------------------------------------------------------------------------------------
def _from_path(path: Path, settings: DataSettings) -> DataFiles:
    """A person's own file or folder. Raises DataError, and OSError where it may not be looked at."""
    # unlike those of Path these are false, too, for a name too long, with a zero byte in it, or not to be looked at
    folder, file = os.path.isdir(path), os.path.isfile(path)
    if folder:
        return _from_folder(path, settings)
    _no_subset(settings)
    if file:
        train, evaluation = path, _eval_file_beside(path, settings)
        if settings.split is not None and settings.split != _stem(path):
            message = f"{path.name} is one file and has no split {settings.split!r}; leave data.split empty"
            raise DataError(message, settings.split, "null", "data.split")
    else:
        message = f"there is no file {str(path)!r:.300}; check the path"
        raise DataError(message, str(path), "an existing file or folder")
    notes = (f"evaluation rows from {evaluation.name}",) if evaluation is not None else ()
    return DataFiles(
        name=_stem(path),
        title=path.name,
        origin="path",
        train=(train,),
        eval=(evaluation,) if evaluation else None,
        notes=notes,
    )


def _from_folder(folder: Path, settings: DataSettings) -> DataFiles:
    """A folder of files named after their splits; or a clone of a data set of the hub, which reads as it does there."""
    names, whole = _listing(folder)
    _refuse_arrow(folder, names)
    card = _card_of(folder)
    layout = layout_of(names, card.get("configs")) if whole else Layout(subsets={}, default=None)
    if _is_clone(folder, names, card, layout, settings):
        files = _from_clone(folder, card, layout, settings)
    else:
        _no_subset(settings)
        train, evaluation = _folder_files(folder, settings)
        files = DataFiles(
            name=_stem(folder),
            title=folder.name,
            origin="path",
            train=(train,),
            eval=(evaluation,) if evaluation else None,
            notes=(f"evaluation rows from {evaluation.name}",) if evaluation else (),
        )
    used = {file.relative_to(folder).as_posix() for file in (*files.train, *(files.eval or ()))}
    unused = [name for name in names if name not in used and not _beside_rows(name)]
    return replace(files, notices=_unused_files_notice(folder.name, unused, whole))


def _refuse_arrow(folder: Path, names: list[str]) -> None:
    """Raises DataError for a folder that `save_to_disk` of the package datasets has written."""
    if any(name.endswith("state.json") for name in names) and any(name.endswith(".arrow") for name in names):
        message = (
            f"{folder.name} holds Arrow files, as save_to_disk writes them, which are not read here; save the rows "
            "as Parquet (to_parquet)"
        )
        raise DataError(message, str(folder), "files of rows")


def _is_clone(folder: Path, names: list[str], card: dict[str, Any], layout: Layout, settings: DataSettings) -> bool:
    """Whether the folder is read by the hub's rules, and not by the names of its files alone."""
    stems = _stems(folder)
    if not layout.subsets or not (card or settings.subset is not None or not _has_split(stems, names, settings)):
        return False
    split, subsets = settings.split, layout.subsets.values()
    return split is None or split not in stems or any(split in splits for splits in subsets)


def _from_clone(folder: Path, card: dict[str, Any], layout: Layout, settings: DataSettings) -> DataFiles:
    """A clone of a data set of the hub, with the subset and the splits that the settings name."""
    subset, train_split, eval_split = _chosen_splits(folder.name, layout, settings)
    splits = layout.subsets[subset]
    train = tuple(folder / name for name in splits[train_split])
    classes = classes_of_subset(classes_of(card.get("dataset_info")), subset)
    read = f"{subset}, {train_split}" if len(layout.subsets) > 1 else train_split
    many = f", {len(train)} files" if len(train) > 1 else ""
    evaluation = f"; evaluation rows from {eval_split}" if eval_split else ""
    return DataFiles(
        name=_stem(folder),
        title=folder.name,
        origin="path",
        train=train,
        eval=tuple(folder / name for name in splits[eval_split]) if eval_split else None,
        notes=(
            f"read as on the hub: {read}{many}{evaluation}",
            *(class_words(column, names) for column, names in classes.items()),
        ),
        classes=classes,
    )


def _has_split(stems: dict[str, Path], names: list[str], settings: DataSettings) -> bool:
    """Whether a file of the folder is named after the split that is asked for, or is the only one there is."""
    inside = any("/" in name and not _beside_rows(name) for name in names)
    return (settings.split or "train") in stems or (settings.split is None and len(stems) == 1 and not inside)


def _beside_rows(name: str) -> bool:
    """Whether a file of this name lies beside rows and holds none."""
    short = name.rpartition("/")[2]
    return short in NOT_ROWS or short == "card.json" or NOT_ROWS_BESIDE.fullmatch(short) is not None


def _unused_files_notice(name: str, unused: list[str], whole: bool) -> tuple[Notice, ...]:
    """That files of the folder `name` are not used; `whole` says whether all of them were listed."""
    if not unused and whole:
        return ()
    names = ", ".join(file[-NAME_LETTERS:] for file in unused[:5]) + (", …" if len(unused) > 5 or not whole else "")
    many = f"{len(unused):,} {'file' if len(unused) == 1 else 'files'}" if whole else f"More than {len(unused):,} files"
    message = f"{many} of {name} {'is' if whole and len(unused) == 1 else 'are'} not used: {names}."
    return (Notice(field="data.split", message=message, count=len(unused)),)


def _listing(folder: Path) -> tuple[list[str], bool]:
    """Files of the folder and of the folders in it, those nearer first, as paths inside it; hidden ones are left out.
    The second is False where there are too many to be looked through."""
    files, folders = list[str](), [folder]
    for _ in range(MOST_DEPTH):
        below = list[Path]()
        for parent in folders:
            try:
                entries = sorted(os.scandir(parent), key=lambda entry: entry.name)
            except OSError:
                continue
            for entry in entries:
                if entry.name.startswith((".", "__")):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    below.append(Path(entry.path))
                elif os.path.isfile(entry.path):  # a link may lead to what may not be looked at
                    files.append(Path(entry.path).relative_to(folder).as_posix())
                if len(files) + len(below) > MOST_FILES:
                    return files, False
        folders = below
    return files, True


def _card_of(folder: Path) -> dict[str, Any]:
    """What the README.md of a data set says between its first two lines of dashes; empty where it says nothing."""
    readme = folder / "README.md"
    if path_refusal(readme, "data") or not os.path.isfile(readme) or readme.stat().st_size > CARD_BYTES:
        return {}
    return _read_card(str(readme), file_version(readme.stat()))


@lru_cache(maxsize=16)
def _read_card(readme: str, version: FileVersion) -> dict[str, Any]:
    from huggingface_hub.repocard import metadata_load

    try:
        card = metadata_load(readme)
    except Exception as error:  # the package lets the YAML parser's own errors pass
        message = f"the card README.md of {Path(readme).parent.name} cannot be read: {str(error).strip():.200}; mend it"
        raise DataError(message, readme, "a card of valid YAML") from None
    return card if isinstance(card, dict) else {}


def _stem(file: Path) -> str:
    """The name without its ending, and without that of its packing: rows of rows.jsonl.gz."""
    return Path(file.stem).stem if file.suffix.lower() in PACKED else file.stem


def _stems(folder: Path) -> dict[str, Path]:
    """Files of a folder by their name without ending; hidden ones and cards are no rows."""
    files = [file for file in sorted(folder.iterdir()) if os.path.isfile(file) and file.name[:1] != "."]
    return {_stem(file): file for file in reversed(files) if file.name not in NOT_ROWS and file.name != "card.json"}


def _folder_files(folder: Path, settings: DataSettings) -> tuple[Path, Path | None]:
    """The files of a folder that are named after the training and the evaluation split. Raises DataError."""
    stems = _stems(folder)
    names = ", ".join(sorted(stems)) or "nothing"
    train_name = settings.split or "train"
    train = stems.get(train_name)
    if train is None and settings.split is None and len(stems) == 1:
        train = next(iter(stems.values()))
    if train is None:
        message = f"{folder.name} has no split {train_name!r}; its files are {names}; choose one with data.split"
        raise DataError(
            message, settings.split or str(folder), names, "data.split" if settings.split else "data.source"
        )
    if settings.eval_split is not None:
        return train, _named_eval_file(stems, train, settings.eval_split)
    return train, next((stems[name] for name in EVAL_NAMES if name in stems and stems[name] != train), None)


def _eval_file_beside(path: Path, settings: DataSettings) -> Path | None:
    """The evaluation file beside a training file: the one that data.eval_split names, else the one whose name has eval
    (or val, test, …) in place of train; None without one. Raises DataError."""
    if settings.eval_split is not None:
        return _named_eval_file(_stems(path.parent), path, settings.eval_split)
    whole = _stem(path)
    if not whole.lower().endswith("train"):
        return None
    stem, ending = whole[: -len("train")], path.name[len(whole) :]
    beside = (path.with_name(f"{stem}{name}{ending}") for name in EVAL_NAMES)
    return next((file for file in beside if os.path.isfile(file)), None)


def _named_eval_file(stems: dict[str, Path], train: Path, name: str) -> Path:
    """The file with the name that data.eval_split gives, with its ending or without. Raises DataError."""
    evaluation = stems.get(name) or next((file for file in stems.values() if file.name == name), None)
    if evaluation is None:
        names = ", ".join(sorted(stems))
        message = f"there is no evaluation split {name!r} beside {train.name}; there are {names}"
        raise DataError(message, name, names, "data.eval_split")
    if evaluation == train:
        message = f"{train.name} cannot be trained on and evaluated on; choose another data.eval_split"
        raise DataError(message, name, "another file", "data.eval_split")
    return evaluation
