"""Digests of a model's files, to tell later whether they are those that a plan was made with.

Weights are not read whole: the header of a safetensors file and a few bytes of every tensor show what training or
copying another file over it changes, at the cost of one short read a tensor.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

BESIDE_WEIGHTS = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
)
"""What shapes a run besides the weights."""
SAMPLED_BYTES = 64
"""Of each tensor, from its middle."""
HEADER_LIMIT = 100_000_000
"""What safetensors itself allows."""


def digests(files: Iterable[Path]) -> dict[str, str]:
    """A digest of each of these files that is there, by its name."""
    return {file.name: _digest(file) for file in files if file.is_file()}


def base_files(folder: Path, weights: Iterable[Path]) -> dict[str, str]:
    """Digests of a base model: its weights, its config, its tokenizer."""
    return digests([*weights, *(folder / name for name in BESIDE_WEIGHTS)])


def adapter_files(folder: Path) -> dict[str, str]:
    """Digests of a saved adapter: its weights and what they say of themselves."""
    found = (file for pattern in ("*.safetensors", "*.json") for file in folder.glob(pattern))
    return digests(sorted(found))


def changes(folder: Path, kept: Mapping[str, str]) -> list[str]:
    """What differs from these digests now, such as "model.safetensors has changed"; empty where nothing does."""
    found = []
    for name, digest in kept.items():
        file = folder / name
        if not file.is_file():
            found.append(f"{name} is gone")
        elif _content(file) != digest:  # read anew: clocks are coarse, and another file may be as long
            found.append(f"{name} has changed")
    return found


def _digest(file: Path) -> str:
    state = file.stat()
    return _kept_content(str(file), state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=512)
def _kept_content(name: str, time: int, size: int) -> str:
    """For each version of a file once, for a plan is made with every change of the form."""
    return _content(Path(name))


def _content(file: Path) -> str:
    found = _sampled(file) if file.suffix == ".safetensors" else None
    return (found or sha256(file.read_bytes()).hexdigest())[:16]


def _sampled(file: Path) -> str | None:
    """A hash of the header and of a piece of each tensor; None where it is no safetensors file."""
    with open(file, "rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if not 2 <= length <= HEADER_LIMIT:
            return None
        header = opened.read(length)
        try:
            parts = json.loads(header)
            spans = sorted(part["data_offsets"] for name, part in parts.items() if name != "__metadata__")
        except (ValueError, TypeError, KeyError, AttributeError):
            return None
        found = sha256(header)
        for start, end in spans:
            opened.seek(8 + length + max(start, (start + end - SAMPLED_BYTES) // 2))
            found.update(opened.read(min(SAMPLED_BYTES, end - start)))
    return found.hexdigest()
