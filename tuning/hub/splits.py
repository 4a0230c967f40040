"""Which files of a data set are which subset and split, by its card or by the names of its files.

The rules are those of the `datasets` library (its documentation, "Structure your repository", and
`datasets.data_files`), so that a data set is split here as it is there; a test holds the two beside each other. Nothing
is fetched or imported for it, so it works on a listing alone.
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
"""The only files of rows that are ever fetched: no scripts, no pickles, no archives. Read by content all the same."""
PACKED = (".gz", ".bz2", ".xz", ".zst")
"""Endings of one compressed file, behind that of its rows."""
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
_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_SEPARATORS = "-._ 0-9"
_IN_FOLDERS = ("**/{w}/**", "**/{w}[{s}]*/**", "**/*[{s}]{w}/**", "**/*[{s}]{w}[{s}]*/**")
_IN_NAMES = ("**/{w}[{s}]*", "**/*[{s}]{w}[{s}]*")

Splits = dict[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Subsets by name; `default` is the one taken when none is asked for, None where a person has to choose."""

    subsets: dict[str, Splits]
    default: str | None


def rows_ending(name: str, packed: Sequence[str] = PACKED) -> str:
    """The ending that says what the rows are, in small letters: .jsonl of rows.jsonl.gz."""
    path = PurePosixPath(name.lower())
    return PurePosixPath(path.stem).suffix if path.suffix in packed else path.suffix


def layout_of(names: Sequence[str], configs: Any, revision: str | None = None) -> Layout:
    """The subsets and splits of these files (paths inside the data set); empty where no file holds rows."""
    rows = [name for name in sorted(names) if _holds_rows(name)]
    described = [one for one in configs if isinstance(one, dict)] if isinstance(configs, list) else []
    if not described and revision == CONVERTED:
        subsets = _converted(rows)
    elif described:
        subsets = {str(one.get("config_name", "default")): _described(rows, one) for one in described}
    else:
        subsets = {"default": by_names(rows)}
    subsets = {name: splits for name, splits in subsets.items() if splits}
    flagged = [str(one.get("config_name")) for one in described if one.get("default") is True]
    default = next((name for name in [*flagged, "default"] if name in subsets), None)
    return Layout(subsets=subsets, default=next(iter(subsets)) if len(subsets) == 1 else default)


def _holds_rows(name: str) -> bool:
    path = PurePosixPath(name)
    hidden = any(part.startswith(".") for part in path.parts) or any(p.startswith("__") for p in path.parent.parts)
    strange = path.is_absolute() or ".." in path.parts or "\\" in name
    return rows_ending(name) in KINDS and path.name not in NOT_ROWS and not hidden and not strange


def _described(rows: Sequence[str], config: dict[str, Any]) -> Splits:
    """One entry of the card's `configs`: files for each split, a list of files, or a folder."""
    folder = str(config.get("data_dir") or "").strip("/").removeprefix("./")
    inside = [name for name in rows if name.startswith(f"{folder}/")] if folder else list(rows)
    cut = len(folder) + 1 if folder else 0
    given = config.get("data_files")
    if given is None:
        found = by_names([name[cut:] for name in inside])
        return {split: tuple(folder + "/" * bool(folder) + name for name in names) for split, names in found.items()}
    patterns = dict[str, list[str]]()
    for one in given if isinstance(given, list) else [given]:
        split, path = (one.get("split"), one.get("path")) if isinstance(one, dict) else ("train", one)
        patterns.setdefault(str(split), []).extend(map(str, path if isinstance(path, list) else [path]))
    found = {}
    for split, wanted in patterns.items():
        names = _matching([name[cut:] for name in inside], wanted)
        if names:
            found[split] = tuple(folder + "/" * bool(folder) + name for name in _one_kind(names))
    return found


def by_names(rows: Sequence[str]) -> Splits:
    """The splits of files without a card: `data/NAME-00000-of-00001…`, then words in folders, then words in names."""
    sharded = dict[str, list[str]]()
    for name in rows:
        if found := _SHARD.fullmatch(name):
            sharded.setdefault(found[1], []).append(name)
    if sharded:
        order = [split for split in _WORDS if split in sharded] + sorted(sharded.keys() - _WORDS.keys())
        return {split: _one_kind(sharded[split]) for split in order}
    for forms in (_IN_FOLDERS, _IN_NAMES):
        splits = {}
        for split, words in _WORDS.items():
            patterns = [form.format(w=word, s=_SEPARATORS) for word in words for form in forms]
            if names := _matching(rows, patterns):
                splits[split] = _one_kind(names)
        if splits:
            return splits
    return {"train": _one_kind(rows)} if rows else {}


def _converted(rows: Sequence[str]) -> dict[str, Splits]:
    found = dict[str, dict[str, list[str]]]()
    for name in rows:
        parts = name.split("/")
        if len(parts) == 3:
            found.setdefault(parts[0], {}).setdefault(parts[1].removeprefix("partial-"), []).append(name)
    return {subset: {split: tuple(names) for split, names in splits.items()} for subset, splits in found.items()}


def _matching(names: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """Names that a pattern matches, pattern by pattern, each once."""
    found = dict[str, None]()
    for pattern in patterns:
        rule = _rule(pattern.removeprefix("./"))
        found |= dict.fromkeys(name for name in names if rule.match(name))
    return list(found)


@lru_cache(maxsize=512)
def _rule(pattern: str) -> re.Pattern[str]:
    from fsspec.utils import glob_translate  # comes with huggingface_hub; its globs are those of the library

    try:
        return re.compile(glob_translate(pattern))
    except ValueError:  # '**' inside a word means nothing there either
        return re.compile(r"(?!)")


def _one_kind(names: Sequence[str]) -> tuple[str, ...]:
    """The files of the commonest format: the same rows often lie there in two formats, and would count twice."""
    kinds = Counter(KINDS[rows_ending(name)] for name in names)
    most = max(kinds.values(), default=0)
    kind = next((kind for kind in ("parquet", "json", "csv", "text") if kinds[kind] == most), None)
    return tuple(name for name in names if KINDS[rows_ending(name)] == kind)
