"""The first rows of a data set on the hub, before it is fetched.

They are read from the first piece of the split's first file, by the tables that read files here.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from tuning.core.errors import DataError
from tuning.data.files.formats import PARQUET
from tuning.data.files.lines import head, open_table
from tuning.data.files.table import Record
from tuning.data.files.unpack import beginning
from tuning.data.preview.preview import SHOWN_ROWS, shown_cells
from tuning.hub.connection import ANSWER_SECONDS, connect_to_hub, within
from tuning.hub.data_sets import HubData
from tuning.hub.label_names import classes_of_subset
from tuning.hub.remote_file import PIECE_BYTES, ByteLimitError, RemoteFile

DOCUMENT_BYTES = 4 * 2**20
"""One JSON document up to this size is fetched whole to show its rows: its beginning alone cannot be read."""


def first_rows(data: HubData, split: str | None, token: str | None) -> tuple[list[dict[str, str]], str | None]:
    """Rows as column -> text, and the sentence that says why there are none. Asks the hub."""
    names = data.splits.get(split or "") or data.splits.get("train") or next(iter(data.splits.values()))
    file = next(file for file in data.listed if file.name == names[0])
    late = "The hub took too long to send the first rows; they can be seen once it is downloaded."
    address = connect_to_hub()

    def read() -> list[Record]:
        remote = RemoteFile(address, data, file, token)
        return _parquet(remote) if remote.read(len(PARQUET)) == PARQUET else _text(remote, file.name, file.size)

    try:
        records = within(ANSWER_SECONDS, read, late)
    except (DataError, ByteLimitError, OSError) as error:
        why = str(error) if isinstance(error, DataError) else "they are too large to be fetched for a look"
        return [], f"The first rows cannot be shown before the download: {why}."
    named = classes_of_subset(data.classes, data.subset or "")
    return [shown_cells(record.values, named) for record in records], None


def _text(remote: RemoteFile, name: str, size: int) -> list[Record]:
    remote.seek(0)
    whole = size <= PIECE_BYTES or (name.endswith(".json") and size <= DOCUMENT_BYTES)
    content = remote.read(size if whole else PIECE_BYTES)
    content = content if whole else beginning(content, name, DOCUMENT_BYTES)
    if not whole and b"\n" in content:
        content = content[: content.rindex(b"\n") + 1]  # the last line is cut off
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        file = Path(folder) / Path(name).name
        file.write_bytes(content)
        return head(open_table(file), SHOWN_ROWS)


def _parquet(remote: RemoteFile) -> list[Record]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(remote, buffer_size=PIECE_BYTES, pre_buffer=False) as opened:
            rows: list[dict[str, Any]] = next(opened.iter_batches(batch_size=SHOWN_ROWS)).to_pylist()
    except pyarrow.ArrowException as error:
        raise DataError(f"the file is a broken Parquet file ({type(error).__name__})") from None
    return [Record(number, row) for number, row in enumerate(rows, 1)]
