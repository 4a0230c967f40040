"""Tokens kept between runs: the same rows, tokenizer and settings are not tokenized a second time.

Comes in: an opened `DataSet`, a model's folder, `DataSettings`.  Goes out: an `EncodedSet`, from the user's cache where
it lies there.  A file is named after all that its tokens depend on, the program's own code among it, so that nothing
has to be thrown away by hand; the ones not used for longest go when there are too many.  A damaged file is made anew,
and where nothing can be written nothing is kept.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import date
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

from tuning.data.encoded import EncodedSet, encode_set
from tuning.data.sets import DataSet
from tuning.errors import GoOn
from tuning.settings import DataSettings
from tuning.text import TextTokenizer, tokenizer_files

LEAST_TOKENS = 200_000
"""Fewer are made in a second, and not kept."""
MOST_BYTES = 4 * 2**30
SPARE_BYTES = 2**30
"""What keeping tokens leaves free on the disk."""
DAY = 24 * 3600
NO_MATTER = ("source", "subset", "revision", "split", "eval_split", "eval_rows", "packing", "group_by_length")
"""Settings that do not change a training row's tokens, or whose effect the data's fingerprint tells."""
CODE = (
    "tuning.access",
    "tuning.child",
    "tuning.text",
    *(f"tuning.text.{name}" for name in ("chat", "chat_process", "conversations", "rows", "spelling", "tokenizer")),
    *(
        f"tuning.data.{name}"
        for name in (
            "archive",
            "columns",
            "conversations",
            "draw",
            "encoded",
            "foreign",
            "header",
            "joined",
            "parquet",
            "places",
            "recognise",
            "record",
            "sets",
            "sniff",
            "spool",
            "tables",
            "told",
            "unpack",
            "values",
        )
    ),
)
"""What stands between the bytes of files and tokens. What chooses the files, or names classes for them, changes the
data's fingerprint instead."""


def cache_folder() -> Path:
    """The user's cache; TUNING_FORK_CACHE names another place."""
    from platformdirs import user_cache_path

    return Path(os.environ.get("TUNING_FORK_CACHE") or user_cache_path("tuning-fork", appauthor=False)) / "tokens"


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
    place = cache_folder() / f"{_key(data, model, settings, task)}.safetensors"
    found = _read(place, go_on)
    if found is None:
        found = encode_set(data.train, tokenizer, settings, task, folder, tell, go_on)
        if found.tokens >= LEAST_TOKENS:
            _keep(found, place, go_on)
    return found


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


def _read(place: Path, go_on: GoOn) -> EncodedSet | None:
    try:
        found = EncodedSet.read(place, go_on)
        os.utime(place)  # used now: others go first
        return found
    except FileNotFoundError:
        return None
    except (OSError, ValueError):  # damaged, or not to be read: made anew
        with suppress(OSError):
            place.unlink()
        return None


def _keep(tokens: EncodedSet, place: Path, go_on: GoOn) -> None:
    """Write the file aside, then give it its name; without room, or without permission, nothing is kept."""
    aside = None
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        if not _make_room(place.parent, tokens.bytes):
            return
        handle, aside = tempfile.mkstemp(prefix=".part-", dir=place.parent)
        with os.fdopen(handle, "wb") as out:
            tokens.write(out, go_on)
        os.replace(aside, place)
    except OSError:
        pass
    finally:
        if aside is not None:
            Path(aside).unlink(missing_ok=True)


def _make_room(folder: Path, wanted: int) -> bool:
    """Throw away the files not used for longest until so many bytes fit; False where they never would."""
    if wanted > MOST_BYTES or shutil.disk_usage(folder).free < wanted + SPARE_BYTES:
        return False
    for part in folder.glob(".part-*"):  # of a program that was killed
        if time.time() - part.stat().st_mtime > DAY:
            part.unlink(missing_ok=True)
    files = sorted(folder.glob("*.safetensors"), key=lambda file: file.stat().st_mtime)
    total = sum(file.stat().st_size for file in files)
    for file in files:
        if total + wanted <= MOST_BYTES:
            break
        total -= file.stat().st_size
        file.unlink(missing_ok=True)
    return True
