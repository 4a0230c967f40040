"""Every format that packs one file keeps one contract: the rows are those of the plain file, and damage is refused."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path

import pytest

from support.data_files import lines, zipped, zstd
from tuning.core.errors import DataError
from tuning.data.files.concat import open_tables
from tuning.data.files.formats import PACKINGS, Packing, packing_of
from tuning.data.files.table import Record

ROWS = [{"text": f"row {n}", "label": n % 2} for n in range(400)]
PLAIN = lines(*ROWS)
PACK: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstd,
    "zip": lambda content: zipped({"rows.jsonl": content}),
}
every = pytest.mark.parametrize("packing", PACKINGS, ids=[packing.name for packing in PACKINGS])


def test_every_packing_has_a_case() -> None:
    assert PACK.keys() == {packing.name for packing in PACKINGS}


@every
def test_a_packed_file_has_the_rows_of_the_plain_one(tmp_path: Path, packing: Packing) -> None:
    name = packing.name
    (tmp_path / "rows.jsonl.packed").write_bytes(PACK[name](PLAIN))
    table = open_tables((tmp_path / "rows.jsonl.packed",))
    assert [row.values for row in table.read(range(len(table))) if isinstance(row, Record)] == ROWS
    assert table.whole and table.size == len(PLAIN) and table.format.packed


@every
def test_a_packed_file_is_known_by_its_first_bytes(packing: Packing) -> None:
    content = PACK[packing.name](PLAIN)
    assert packing_of(content) == packing.name and content.startswith(packing.prefix)


@every
def test_a_packed_file_that_is_cut_off_is_refused(tmp_path: Path, packing: Packing) -> None:
    content = PACK[packing.name](PLAIN)
    (tmp_path / "rows.jsonl.packed").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="damaged|cut off"):
        open_tables((tmp_path / "rows.jsonl.packed",))


@every
def test_a_packed_file_inside_another_is_refused(tmp_path: Path, packing: Packing) -> None:
    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress(PACK[packing.name](PLAIN)))
    with pytest.raises(DataError, match="what is inside") as refusal:
        open_tables((tmp_path / "rows.jsonl.gz",))
    assert packing.refusal in str(refusal.value)
