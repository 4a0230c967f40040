"""Rows of a Parquet file, a batch at a time.

Comes in: a path.  Goes out: a `Table`.  Only the row groups that are asked for are read, and pyarrow is imported when
a Parquet file is there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from tuning.data.record import BadRow, Record
from tuning.data.sniff import Format
from tuning.errors import DataError

BATCH_ROWS = 1024


class ParquetTable:
    """A Parquet file, or its first `most` rows; `line` counts its rows from 1."""

    unit = "row"

    def __init__(self, path: Path, form: Format, most: int | None = None) -> None:
        import pyarrow
        import pyarrow.parquet

        self.path, self.name, self.format, self.size = str(path), path.name, form, path.stat().st_size
        self.digest = ""
        if most is None:
            with open(path, "rb") as file:
                self.digest = hashlib.file_digest(file, "sha256").hexdigest()
        try:
            with pyarrow.parquet.ParquetFile(path) as opened:
                meta = opened.metadata
                self._groups = [meta.row_group(n).num_rows for n in range(meta.num_row_groups)]
        except (pyarrow.ArrowException, OSError) as error:
            raise DataError(f"{path.name} is a broken Parquet file: {error}"[:300], path.name) from None
        if not sum(self._groups):
            raise DataError(f"{path.name} has no rows; give at least one", path.name)
        self.row_bytes = max(1, self.size // sum(self._groups))
        self.whole = most is None
        self._rows = sum(self._groups) if most is None else min(most, sum(self._groups))

    def __len__(self) -> int:
        return self._rows

    def read(self, indices: Sequence[int]) -> Iterator[Record | BadRow]:
        import pyarrow
        import pyarrow.parquet

        wanted, at = iter(indices), 0
        index = next(wanted, None)
        try:
            with pyarrow.parquet.ParquetFile(self.path) as opened:
                for group, rows in enumerate(self._groups):
                    if index is None:
                        return
                    if index >= at + rows:
                        at += rows
                        continue
                    for batch in opened.iter_batches(batch_size=BATCH_ROWS, row_groups=[group]):
                        here = list[int]()
                        while index is not None and index < at + batch.num_rows:
                            here.append(index)
                            index = next(wanted, None)
                        rows_here = batch.take(pyarrow.array([one - at for one in here], "int64")).to_pylist()
                        yield from (Record(one + 1, row) for one, row in zip(here, rows_here, strict=True))
                        at += batch.num_rows
                        if index is None:
                            return
        except (pyarrow.ArrowException, OSError) as error:
            raise DataError(f"{self.name} is a broken Parquet file: {error}"[:300], self.name) from None
