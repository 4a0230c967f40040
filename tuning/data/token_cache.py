"""Tokens stored between runs: the same rows, tokenizer and settings are not tokenized a second time.

A file of the user's cache is named after all that its tokens depend on, so that nothing has to be removed by hand.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date
from hashlib import sha256
from pathlib import Path

from tuning.core.errors import ShouldContinue
from tuning.core.files import FileCache
from tuning.core.libraries import installed_version
from tuning.data.data_set import DataSet
from tuning.data.token_arrays import EncodedSet, encode_set
from tuning.settings.schema import DataSettings
from tuning.text import TextTokenizer, tokenizer_files

TOKENS_VERSION = 1
"""The version of the code between the bytes of a file and its tokens, part of the key: raise it when that code makes
other tokens of the same rows. tests/data/test_token_cache.py has a digest of that code, and fails when it changes."""
LEAST_TOKENS = 200_000
"""Fewer tokens are made again in a second, and not stored."""
MOST_BYTES = 4 * 2**30
SPARE_BYTES = 2**30
"""Bytes that storing tokens leaves free on the disk."""
WITHOUT_EFFECT = ("source", "subset", "revision", "split", "eval_split", "eval_rows", "packing", "group_by_length")
"""Settings that do not change a training row's tokens, or whose effect is in the fingerprint of the data."""


def _cache() -> FileCache:
    return FileCache(name="tokens", suffix=".safetensors", limit_bytes=MOST_BYTES, spare_bytes=SPARE_BYTES)


def encode_cached(
    data: DataSet,
    model: Path,
    tokenizer: TextTokenizer,
    settings: DataSettings,
    task: str,
    folder: Path | None = None,
    on_progress: Callable[[int], None] = lambda done: None,
    should_continue: ShouldContinue = lambda: True,
) -> EncodedSet:
    """The training rows as `encode_set` makes them, bit for bit; `model` is the folder that the tokenizer came from.
    Raises Stopped."""
    cache, key = _cache(), _key(data, model, settings, task)
    tokens = cache.read(key, lambda path: EncodedSet.read(path, should_continue))
    if tokens is None:
        encoded = tokens = encode_set(data.train, tokenizer, settings, task, folder, on_progress, should_continue)
        if encoded.tokens >= LEAST_TOKENS:
            cache.write(key, encoded.bytes, lambda out: encoded.write(out, should_continue))
    return tokens


def _key(data: DataSet, model: Path, settings: DataSettings, task: str) -> str:
    """A hash of all that the tokens depend on."""
    chosen = {name: value for name, value in settings.model_dump().items() if name not in WITHOUT_EFFECT}
    files = [(file.name, sha256(file.read_bytes()).hexdigest()) for file in tokenizer_files(model)]
    talks = data.shape == "conversation" or settings.chat_template == "on"
    day = str(date.today()) if talks else None  # a chat template may write the date
    packages = [installed_version(name) for name in ("tokenizers", "transformers", "jinja2")]
    shaping = [TOKENS_VERSION, data.fingerprint, chosen, task, files, packages, day]
    return sha256(json.dumps(shaping, sort_keys=True).encode()).hexdigest()[:32]
