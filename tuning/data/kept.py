"""Tokens stored between runs: the same rows, tokenizer and settings are not tokenized a second time.

A file of the user's cache is named after all that its tokens depend on, the program's own code among it, so that
nothing has to be removed by hand.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import date
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

from tuning.data.encoded import EncodedSet, encode_set
from tuning.data.sets import DataSet
from tuning.errors import GoOn
from tuning.files import FileCache
from tuning.settings import DataSettings
from tuning.text import TextTokenizer, tokenizer_files

LEAST_TOKENS = 200_000
"""Fewer are made in a second, and not kept."""
MOST_BYTES = 4 * 2**30
SPARE_BYTES = 2**30
"""What keeping tokens leaves free on the disk."""
NO_MATTER = ("source", "subset", "revision", "split", "eval_split", "eval_rows", "packing", "group_by_length")
"""Settings that do not change a training row's tokens, or whose effect the data's fingerprint tells."""
CODE = (
    "tuning.access",
    "tuning.child",
    "tuning.data.archive",
    "tuning.data.columns",
    "tuning.data.conversations",
    "tuning.data.draw",
    "tuning.data.encoded",
    "tuning.data.foreign",
    "tuning.data.formats",
    "tuning.data.header",
    "tuning.data.joined",
    "tuning.data.parquet",
    "tuning.data.parse",
    "tuning.data.places",
    "tuning.data.recognise",
    "tuning.data.record",
    "tuning.data.sets",
    "tuning.data.sniff",
    "tuning.data.spool",
    "tuning.data.tables",
    "tuning.data.told",
    "tuning.data.unpack",
    "tuning.data.values",
    "tuning.text",
    "tuning.text.chat",
    "tuning.text.chat_process",
    "tuning.text.conversations",
    "tuning.text.rows",
    "tuning.text.spelling",
    "tuning.text.tokenizer",
)
"""What stands between the bytes of files and tokens. What chooses the files, or names classes for them, changes the
data's fingerprint instead."""


def _cache() -> FileCache:
    return FileCache(name="tokens", suffix=".safetensors", limit_bytes=MOST_BYTES, spare_bytes=SPARE_BYTES)


def encode_kept(
    data: DataSet,
    model: Path,
    tokenizer: TextTokenizer,
    settings: DataSettings,
    task: str,
    folder: Path | None = None,
    tell: Callable[[int], None] = lambda done: None,
    go_on: GoOn = lambda: True,
) -> EncodedSet:
    """The training rows as `encode_set` makes them, bit for bit; `model` is the folder that the tokenizer came from.
    Raises Stopped."""
    cache, key = _cache(), _key(data, model, settings, task)
    tokens = cache.read(key, lambda path: EncodedSet.read(path, go_on))
    if tokens is None:
        made = tokens = encode_set(data.train, tokenizer, settings, task, folder, tell, go_on)
        if made.tokens >= LEAST_TOKENS:
            cache.write(key, made.bytes, lambda out: made.write(out, go_on))
    return tokens


def _key(data: DataSet, model: Path, settings: DataSettings, task: str) -> str:
    """A hash of all that the tokens depend on."""
    chosen = {name: value for name, value in settings.model_dump().items() if name not in NO_MATTER}
    files = [(file.name, sha256(file.read_bytes()).hexdigest()) for file in tokenizer_files(model)]
    code = [sha256(Path(sys.modules[name].__file__ or "").read_bytes()).hexdigest() for name in CODE]
    talks = data.shape == "conversation" or settings.chat_template == "on"
    day = str(date.today()) if talks else None  # a chat template may write the date
    packages = [version(name) for name in ("tokenizers", "transformers", "jinja2")]
    core = [data.fingerprint, chosen, task, files, code, packages, day]
    return sha256(json.dumps(core, sort_keys=True).encode()).hexdigest()[:32]
