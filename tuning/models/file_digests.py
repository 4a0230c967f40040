"""Digests of a model's files, by which a later check finds whether they have changed since a plan was made.

Weights are not read whole: the header of a safetensors file and a few bytes of every tensor show whether it was trained
or replaced, at the cost of one short read a tensor.
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
"""The files besides the weights on which a run depends."""
SAMPLED_BYTES = 64
"""Bytes of each tensor that are read, from its middle."""
HEADER_LIMIT = 100_000_000
"""Bytes of the longest header that safetensors allows."""


def digests(files: Iterable[Path]) -> dict[str, str]:
    """The digests of those of these files that exist, by file name."""
    return {file.name: _digest(file) for file in files if file.is_file()}


def base_files(folder: Path, weights: Iterable[Path]) -> dict[str, str]:
    """The digests of a base model's weights, config and tokenizer, by file name."""
    return digests([*weights, *(folder / name for name in BESIDE_WEIGHTS)])


def adapter_files(folder: Path) -> dict[str, str]:
    """The digests of a saved adapter's weights and configs, by file name."""
    files = (file for pattern in ("*.safetensors", "*.json") for file in folder.glob(pattern))
    return digests(sorted(files))


def changes(folder: Path, earlier: Mapping[str, str]) -> list[str]:
    """How a folder's files differ from their earlier digests, such as "model.safetensors has changed"; empty where they
    do not."""
    differences = []
    for name, digest in earlier.items():
        file = folder / name
        if not file.is_file():
            differences.append(f"{name} is gone")
        elif _content_digest(file) != digest:  # read anew: clocks are coarse, and another file may be as long
            differences.append(f"{name} has changed")
    return differences


def _digest(file: Path) -> str:
    """The digest of a file, cached by its time and size."""
    state = file.stat()
    return _cached_content_digest(str(file), state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=512)
def _cached_content_digest(name: str, time: int, size: int) -> str:
    """`_content_digest`, computed once for each version of a file, for a plan is made with every change of the form."""
    return _content_digest(Path(name))


def _content_digest(file: Path) -> str:
    """16 hexadecimal digits: of samples of a safetensors file, of all bytes of any other."""
    digest = _sample_digest(file) if file.suffix == ".safetensors" else None
    return (digest or sha256(file.read_bytes()).hexdigest())[:16]


def _sample_digest(file: Path) -> str | None:
    """A hash of the header and of a few bytes of each tensor; None where it is no safetensors file."""
    with open(file, "rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if not 2 <= length <= HEADER_LIMIT:
            return None
        header = opened.read(length)
        try:
            tensors = json.loads(header)
            spans = sorted(tensor["data_offsets"] for name, tensor in tensors.items() if name != "__metadata__")
        except (ValueError, TypeError, KeyError, AttributeError):
            return None
        digest = sha256(header)
        for start, end in spans:
            opened.seek(8 + length + max(start, (start + end - SAMPLED_BYTES) // 2))
            digest.update(opened.read(min(SAMPLED_BYTES, end - start)))
    return digest.hexdigest()
