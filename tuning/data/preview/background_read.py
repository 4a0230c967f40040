"""A data set read whole in the background: what is known of all its rows, or how far the reading is.

Some facts need all rows: how many there are, of which class, which of them are bad. A large labelled file takes seconds
to minutes, because its classes and its stratified split need every row; the page shows its first rows meanwhile and
asks again.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Hashable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as StillRunning
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, TypedDict

from tuning.data.data_set import DataSet, open_data, opened_before, rows_key
from tuning.data.files.progress import ReadProgress, reads_in_progress
from tuning.data.locate import find_data_files
from tuning.data.preview.preview import bad_rows, label_balance
from tuning.settings.schema import DataSettings

FAILED_SECONDS = 10.0
"""How long a failure that nobody has been told of waits for one who asks."""


class Reading(TypedDict):
    """A reading that is under way: of which file, what is done to it, in which unit, and a sentence of them."""

    name: str
    doing: str
    unit: str
    done: int
    total: int
    words: str


@dataclass(slots=True)
class _Read:
    rows: Future[DataSet] = field(default_factory=Future)
    failed: float = math.inf
    """When it failed, on the monotonic clock."""


_reads: dict[Hashable, _Read] = {}
"""Readings that are under way, and those that have failed and nobody has been told of."""
_guard = threading.Lock()


def read_whole(settings: DataSettings, task: str, seed: int, seconds: float) -> DataSet | None:
    """The data set with all its rows; None while reading them takes longer than this.

    Raises DataError. A failed reading is told once and forgotten: what was wrong may be mended when next asked.
    """
    key = rows_key(settings, task, seed)
    opened = opened_before(key)
    if opened is not None:
        return opened
    with _guard:
        for old in [old for old, read in _reads.items() if time.monotonic() - read.failed > FAILED_SECONDS]:
            del _reads[old]
        found = _reads.get(key)
        if found is None:
            found = _reads[key] = _Read()
            threading.Thread(target=_read, args=(found, key, settings, task, seed), daemon=True, name="rows").start()
    try:
        return found.rows.result(seconds)
    except StillRunning:
        return None
    except Exception:
        _forget(key, found)
        raise


def _read(found: _Read, key: Hashable, settings: DataSettings, task: str, seed: int) -> None:
    try:
        rows = open_data(settings, task, seed)
    except BaseException as error:  # told to whoever asks for the rows
        found.failed = time.monotonic()
        found.rows.set_exception(error)
    else:
        _forget(key, found)  # from here on they are opened before
        found.rows.set_result(rows)


def _forget(key: Hashable, found: _Read) -> None:
    with _guard:
        if _reads.get(key) is found:
            del _reads[key]


def how_far(settings: DataSettings) -> Reading:
    """The reading of these files that is under way; of none, that of rows before the first one."""
    files = find_data_files(settings)
    paths = {str(file.absolute()) for file in chain(files.train, files.eval or ())}
    mine = [one for one in reads_in_progress() if one.path in paths]
    now = mine[-1] if mine else ReadProgress("", files.title, "reading", "rows", 0, 0)
    return {
        "name": now.name,
        "doing": now.doing,
        "unit": now.unit,
        "done": now.done,
        "total": now.total,
        "words": _words(now),
    }


def _words(now: ReadProgress) -> str:
    if now.unit == "rows":
        far = f": {now.done:,} of {now.total:,} rows" if now.total else ""
    else:
        far = f": {now.done / 2**20:,.0f} of {now.total / 2**20:,.0f} MiB"
    return f"{now.name} is being read ({now.doing}{far})"


def whole_facts(data: DataSet, settings: DataSettings, effective_batch: int) -> dict[str, Any]:
    """What the preview of a head could not say: counts of rows, of classes, of bad rows."""
    return {
        "train_rows": len(data.train),
        "eval_rows": len(data.eval),
        "effective_batch": effective_batch,
        "updates_per_epoch": math.ceil(len(data.train) / effective_batch),
        "counted": True,
        "bad": bad_rows(data, settings),
        "labels": label_balance(data),
        "notices": [one.to_dict() for one in data.notices],
    }


def look(settings: DataSettings, task: str, seed: int, effective_batch: int, seconds: float) -> dict[str, Any]:
    """{"facts": …} once all rows are read, {"reading": …} while they are not. Raises DataError."""
    data = read_whole(settings.replace(bad_rows="skip"), task, seed, seconds)
    if data is None:
        return {"reading": how_far(settings)}
    return {"facts": whole_facts(data, settings, effective_batch)}
