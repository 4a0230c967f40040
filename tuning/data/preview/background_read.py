"""A data set read whole in the background: facts of all its rows, or the progress of the reading.

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
"""How long a failed reading waits for a caller to raise its error for."""


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
    """One reading in a thread of its own."""

    rows: Future[DataSet] = field(default_factory=Future)
    failed_at: float = math.inf
    """When it failed, in seconds of the monotonic clock."""


_reads: dict[Hashable, _Read] = {}
"""Readings that are under way, and failed ones whose error nobody has received."""
_guard = threading.Lock()


def read_whole(settings: DataSettings, task: str, seed: int, seconds: float) -> DataSet | None:
    """The data set with all its rows; None while reading them takes longer than so many seconds.

    Raises DataError. A failed reading raises its error once and is forgotten: the file may be mended at the next call.
    """
    key = rows_key(settings, task, seed)
    opened = opened_before(key)
    if opened is not None:
        return opened
    with _guard:
        now = time.monotonic()
        for old in [old for old, read in _reads.items() if now - read.failed_at > FAILED_SECONDS]:
            del _reads[old]
        read = _reads.get(key)
        if read is None:
            read = _reads[key] = _Read()
            threading.Thread(target=_read, args=(read, key, settings, task, seed), daemon=True, name="rows").start()
    try:
        return read.rows.result(seconds)
    except StillRunning:
        return None
    except Exception:
        _forget(key, read)
        raise


def _read(read: _Read, key: Hashable, settings: DataSettings, task: str, seed: int) -> None:
    """Open the data set and give it, or the error, to those who wait for `read`."""
    try:
        rows = open_data(settings, task, seed)
    except BaseException as error:  # raised for whoever asks for the rows
        read.failed_at = time.monotonic()
        read.rows.set_exception(error)
    else:
        _forget(key, read)  # from here on `opened_before` has them
        read.rows.set_result(rows)


def _forget(key: Hashable, read: _Read) -> None:
    with _guard:
        if _reads.get(key) is read:
            del _reads[key]


def reading_progress(settings: DataSettings) -> Reading:
    """The reading of these files that is under way; without one, a reading before its first row."""
    files = find_data_files(settings)
    paths = {str(file.absolute()) for file in chain(files.train, files.eval or ())}
    of_these = [progress for progress in reads_in_progress() if progress.path in paths]
    latest = of_these[-1] if of_these else ReadProgress("", files.title, "reading", "rows", 0, 0)
    return {
        "name": latest.name,
        "doing": latest.doing,
        "unit": latest.unit,
        "done": latest.done,
        "total": latest.total,
        "words": _reading_words(latest),
    }


def _reading_words(progress: ReadProgress) -> str:
    if progress.unit == "rows":
        amount = f": {progress.done:,} of {progress.total:,} rows" if progress.total else ""
    else:
        amount = f": {progress.done / 2**20:,.0f} of {progress.total / 2**20:,.0f} MiB"
    return f"{progress.name} is being read ({progress.doing}{amount})"


def whole_facts(data: DataSet, settings: DataSettings, effective_batch: int) -> dict[str, Any]:
    """The facts that the preview of the first rows lacks: counts of all rows, of their classes, of bad rows."""
    return {
        "train_rows": len(data.train),
        "eval_rows": len(data.eval),
        "effective_batch": effective_batch,
        "updates_per_epoch": math.ceil(len(data.train) / effective_batch),
        "counted": True,
        "bad": bad_rows(data, settings),
        "labels": label_balance(data),
        "notices": [notice.to_dict() for notice in data.notices],
    }


def look(settings: DataSettings, task: str, seed: int, effective_batch: int, seconds: float) -> dict[str, Any]:
    """{"facts": …} once all rows are read, {"reading": …} while they are not. Raises DataError."""
    data = read_whole(settings.replace(bad_rows="skip"), task, seed, seconds)
    if data is None:
        return {"reading": reading_progress(settings)}
    return {"facts": whole_facts(data, settings, effective_batch)}
