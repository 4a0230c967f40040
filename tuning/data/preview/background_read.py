"""A data set read whole in the background: what is known of all its rows, or how far the reading is.

Comes in: `DataSettings`, the task, the seed.  Goes out: a `DataSet` once it is there, and the facts that only all rows
tell: how many, of which class, which of them are bad.  A large labelled file takes seconds to minutes, because its
classes and its stratified split need every row; the page shows its first rows meanwhile and asks again.
"""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from concurrent.futures import Future
from concurrent.futures import TimeoutError as StillRunning
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, TypedDict

from tuning.core.errors import DataError
from tuning.data.data_set import DataSet, open_data
from tuning.data.files.progress import Under, under_way
from tuning.data.files.table import version_of
from tuning.data.locate import find_place
from tuning.data.preview.preview import bad_rows, label_balance
from tuning.settings.schema import DataSettings

KEPT = 4
"""Data sets held at most: of what was unpacked, each holds a temporary file."""
FAILED_SECONDS = 10.0
"""How long a failure that nobody has been told of waits for one who asks."""
NO_ROW = ("system_prompt", "loss_on", "max_seq_length", "packing", "group_by_length")
"""Settings that say what becomes of rows, and not which they are: one reading serves them all."""


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


_DEFAULT = DataSettings()
_reads: OrderedDict[tuple[Any, ...], _Read] = OrderedDict()
_guard = threading.Lock()


def read_whole(settings: DataSettings, task: str, seed: int, seconds: float) -> DataSet | None:
    """The data set with all its rows; None while reading them takes longer than this.

    Raises DataError. A failed reading is told once and forgotten: what was wrong may be mended when next asked.
    """
    place = find_place(settings)
    try:
        stats = [file.stat() for file in chain(place.train, place.eval or ())]
    except OSError as error:  # gone since
        raise DataError(f"{place.title} cannot be read: {error.strerror}", place.title, "a readable file") from None
    versions = tuple(map(version_of, stats))
    settings = settings.replace(**{name: getattr(_DEFAULT, name) for name in NO_ROW})
    key = (settings.model_dump_json(), task, seed, versions)
    with _guard:
        found = _reads.get(key)
        if found is None or time.monotonic() - found.failed > FAILED_SECONDS:
            found = _Read()
            threading.Thread(target=_read, args=(found, settings, task, seed), daemon=True, name="rows").start()
            _reads[key] = found
        _reads.move_to_end(key)
        ended = [one for one, read in _reads.items() if read.rows.done() and read is not found]
        for old in ended[: max(0, len(_reads) - KEPT)]:
            del _reads[old]
    try:
        return found.rows.result(seconds)
    except StillRunning:
        return None
    except Exception:
        with _guard:
            if _reads.get(key) is found:
                del _reads[key]
        raise


def _read(found: _Read, settings: DataSettings, task: str, seed: int) -> None:
    try:
        rows = open_data(settings, task, seed)
    except BaseException as error:  # told to whoever asks for the rows
        found.failed = time.monotonic()
        found.rows.set_exception(error)
    else:
        found.rows.set_result(rows)


def how_far(settings: DataSettings) -> Reading:
    """The reading of these files that is under way; of none, that of rows before the first one."""
    place = find_place(settings)
    paths = {str(file.absolute()) for file in chain(place.train, place.eval or ())}
    mine = [one for one in under_way() if one.path in paths]
    now = mine[-1] if mine else Under("", place.title, "reading", "rows", 0, 0)
    return {
        "name": now.name,
        "doing": now.doing,
        "unit": now.unit,
        "done": now.done,
        "total": now.total,
        "words": _words(now),
    }


def _words(now: Under) -> str:
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
