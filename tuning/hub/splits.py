"""The subsets and splits of a data set's files, by its card or by their names.

The rules are those of the `datasets` library (its documentation, "Structure your repository", and
`datasets.data_files`), so that a data set is split as it is there; a test compares the two. Nothing is fetched or
imported for it, so it works on a listing alone.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Any

KINDS = {
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".txt": "text",
}
"""The only files of rows that are ever fetched, with the format that the ending promises: no scripts, no pickles, no
archives."""
PACKED = (".gz", ".bz2", ".xz", ".zst")
"""Endings of a compressed file, which follow that of its rows."""
NOT_ROWS = frozenset(
    (
        "README.md",
        "config.json",
        "dataset_info.json",
        "dataset_infos.json",
        "dummy_data.zip",
        "dataset_dict.json",
        "requirements.txt",
        "LICENSE.txt",
    )
)
CONVERTED = "refs/convert/parquet"
"""The hub's own Parquet copy of a data set, which has no card: its folders are SUBSET/SPLIT/0000.parquet."""
_SHARD = re.compile(r"data/([^/]+)-\d{5}-of-\d{5}[^/]*\.[^/]*")
_SPLIT_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_SEPARATORS = "-._ 0-9"
_FOLDER_PATTERNS = ("**/{w}/**", "**/{w}[{s}]*/**", "**/*[{s}]{w}/**", "**/*[{s}]{w}[{s}]*/**")
_NAME_PATTERNS = ("**/{w}[{s}]*", "**/*[{s}]{w}[{s}]*")

Splits = dict[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Subsets by name; `default` is the one that is taken where none is named, None where a person has to choose."""

    subsets: dict[str, Splits]
    default: str | None


def rows_ending(name: str, packed: Sequence[str] = PACKED) -> str:
    """The ending of a name that says what the rows are, in small letters: .jsonl of rows.jsonl.gz."""
    path = PurePosixPath(name.lower())
    return PurePosixPath(path.stem).suffix if path.suffix in packed else path.suffix


def layout_of(names: Sequence[str], configs: Any, revision: str | None = None) -> Layout:
    """The subsets and splits of these files (paths inside the data set); empty where no file holds rows.

    `configs` is the member of that name in the data set's card, as it came.
    """
    rows = [name for name in sorted(names) if _holds_rows(name)]
    entries = [entry for entry in configs if isinstance(entry, dict)] if isinstance(configs, list) else []
    subsets = {name: splits for name, splits in _subsets(rows, entries, revision).items() if splits}
    if len(subsets) == 1:
        return Layout(subsets=subsets, default=next(iter(subsets)))
    flagged = [str(entry.get("config_name")) for entry in entries if entry.get("default") is True]
    default = next((name for name in [*flagged, "default"] if name in subsets), None)
    return Layout(subsets=subsets, default=default)


def _subsets(rows: Sequence[str], entries: Sequence[dict[str, Any]], revision: str | None) -> dict[str, Splits]:
    """The splits by subset, as the entries of the card say, or else the names of the files."""
    if entries:
        return {str(entry.get("config_name", "default")): _splits_by_card(rows, entry) for entry in entries}
    if revision == CONVERTED:
        return _converted_subsets(rows)
    return {"default": _splits_by_names(rows)}


def _holds_rows(name: str) -> bool:
    """Whether a file holds rows, by its name: neither hidden nor outside the data set."""
    path = PurePosixPath(name)
    hidden = any(part.startswith(".") for part in path.parts) or any(
        part.startswith("__") for part in path.parent.parts
    )
    strange = path.is_absolute() or ".." in path.parts or "\\" in name
    return rows_ending(name) in KINDS and path.name not in NOT_ROWS and not hidden and not strange


def _splits_by_card(rows: Sequence[str], config: dict[str, Any]) -> Splits:
    """One entry of the card's `configs`: files for each split, a list of files, or a folder."""
    folder = str(config.get("data_dir") or "").strip("/").removeprefix("./")
    prefix = f"{folder}/" if folder else ""
    names = [name.removeprefix(prefix) for name in rows if name.startswith(prefix)]
    if config.get("data_files") is None:
        splits = _splits_by_names(names)
    else:
        patterns = _patterns_of_card(config["data_files"])
        matching = {split: _matching(names, globs) for split, globs in patterns.items()}
        splits = {split: _commonest_format(files) for split, files in matching.items() if files}
    return {split: tuple(prefix + name for name in files) for split, files in splits.items()}


def _patterns_of_card(data_files: Any) -> dict[str, list[str]]:
    """Glob patterns by split, from the member `data_files` of a card's entry."""
    patterns = dict[str, list[str]]()
    for entry in data_files if isinstance(data_files, list) else [data_files]:
        split, path = (entry.get("split"), entry.get("path")) if isinstance(entry, dict) else ("train", entry)
        patterns.setdefault(str(split), []).extend(map(str, path if isinstance(path, list) else [path]))
    return patterns


def _splits_by_names(rows: Sequence[str]) -> Splits:
    """The splits of files without a card: `data/NAME-00000-of-00001…`, then words in folders, then words in names."""
    sharded = dict[str, list[str]]()
    for name in rows:
        if shard := _SHARD.fullmatch(name):
            sharded.setdefault(shard[1], []).append(name)
    if sharded:
        order = [split for split in _SPLIT_WORDS if split in sharded] + sorted(sharded.keys() - _SPLIT_WORDS.keys())
        return {split: _commonest_format(sharded[split]) for split in order}
    for templates in (_FOLDER_PATTERNS, _NAME_PATTERNS):
        splits = {}
        for split, words in _SPLIT_WORDS.items():
            patterns = [template.format(w=word, s=_SEPARATORS) for word in words for template in templates]
            if names := _matching(rows, patterns):
                splits[split] = _commonest_format(names)
        if splits:
            return splits
    return {"train": _commonest_format(rows)} if rows else {}


def _converted_subsets(rows: Sequence[str]) -> dict[str, Splits]:
    """The splits by subset of the hub's Parquet copy, by the folders of its files."""
    subsets = dict[str, dict[str, list[str]]]()
    for name in rows:
        parts = name.split("/")
        if len(parts) == 3:
            subsets.setdefault(parts[0], {}).setdefault(parts[1].removeprefix("partial-"), []).append(name)
    return {subset: {split: tuple(names) for split, names in splits.items()} for subset, splits in subsets.items()}


def _matching(names: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """The names that the patterns match, in the order of the patterns, each name once."""
    matching = dict[str, None]()
    for pattern in patterns:
        glob = _compiled_glob(pattern.removeprefix("./"))
        matching |= dict.fromkeys(name for name in names if glob.match(name))
    return list(matching)


@lru_cache(maxsize=512)
def _compiled_glob(pattern: str) -> re.Pattern[str]:
    from fsspec.utils import glob_translate  # comes with huggingface_hub; its globs are those of the library

    try:
        return re.compile(glob_translate(pattern))
    except ValueError:  # '**' inside a word means nothing there either
        return re.compile(r"(?!)")


def _commonest_format(names: Sequence[str]) -> tuple[str, ...]:
    """The files of the commonest format: a data set often has the same rows in two formats, which would count twice."""
    kinds = Counter(KINDS[rows_ending(name)] for name in names)
    most = max(kinds.values(), default=0)
    kind = next((kind for kind in ("parquet", "json", "csv", "text") if kinds[kind] == most), None)
    return tuple(name for name in names if KINDS[rows_ending(name)] == kind)
