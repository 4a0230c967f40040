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

from tuning.core.errors import GoOn
from tuning.core.files import FileCache
from tuning.data.data_set import DataSet
from tuning.data.token_arrays import EncodedSet, encode_set
from tuning.settings.schema import DataSettings
from tuning.text import TextTokenizer, tokenizer_files

LEAST_TOKENS = 200_000
"""Fewer are made in a second, and not kept."""
MOST_BYTES = 4 * 2**30
SPARE_BYTES = 2**30
"""What keeping tokens leaves free on the disk."""
NO_MATTER = ("source", "subset", "revision", "split", "eval_split", "eval_rows", "packing", "group_by_length")
"""Settings that do not change a training row's tokens, or whose effect the data's fingerprint tells."""
CODE = (
    "tuning.core.visitor",
    "tuning.core.child_process",
    "tuning.data.files.archive",
    "tuning.data.columns",
    "tuning.data.conversations",
    "tuning.data.row_choice",
    "tuning.data.token_arrays",
    "tuning.data.files.other_formats",
    "tuning.data.files.formats",
    "tuning.data.files.header",
    "tuning.data.files.concat",
    "tuning.data.files.parquet",
    "tuning.data.files.parse",
    "tuning.data.locate",
    "tuning.data.schema",
    "tuning.data.files.table",
    "tuning.data.data_set",
    "tuning.data.files.sniff",
    "tuning.data.files.to_lines",
    "tuning.data.files.lines",
    "tuning.data.notices",
    "tuning.data.files.unpack",
    "tuning.data.values",
    "tuning.text",
    "tuning.text.chat_templates",
    "tuning.text.chat_template_process",
    "tuning.text.conversations",
    "tuning.text.rows",
    "tuning.text.encode",
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
