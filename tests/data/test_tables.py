"""The contract of a table of rows, held by every format of files: the same rows, read in the same way."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tuning.data.files.concat import open_tables
from tuning.data.files.formats import FORMATS, TITLES
from tuning.data.files.table import BadRow, Record, Table
from tuning.hub.splits import KINDS
from tuning.settings.schema import choices

ROWS = [{"text": f"the mill {n} stood"} for n in range(50)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)
BAD = 7
"""The row that is spoilt where a format can have a bad row."""


def parquet(path: Path, rows: list[dict[str, str]]) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=8)


def written(name: str, content: str | bytes) -> Callable[[Path], tuple[Path, ...]]:
    def write(folder: Path) -> tuple[Path, ...]:
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
        return (folder / name,)

    return write


def in_parquet(folder: Path) -> tuple[Path, ...]:
    parquet(folder / "rows.parquet", ROWS)
    return (folder / "rows.parquet",)


def in_several(folder: Path) -> tuple[Path, ...]:
    (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS[:20]))
    parquet(folder / "b.parquet", ROWS[20:])
    return folder / "a.jsonl", folder / "b.parquet"


CASES: dict[str, tuple[str, Callable[[Path], tuple[Path, ...]]]] = {
    "jsonl": ("jsonl", written("rows.jsonl", LINES)),
    "jsonl, packed": ("jsonl", written("rows.jsonl.gz", gzip.compress(LINES.encode()))),
    "jsonl, UTF-16": ("jsonl", written("rows.jsonl", LINES.encode("utf-16"))),
    "json": ("json", written("rows.json", json.dumps(ROWS))),
    "json, columns": ("json", written("rows.json", json.dumps({"text": [row["text"] for row in ROWS], "n": [*ROWS]}))),
    "csv": ("csv", written("rows.csv", "text\n" + "".join(f"{row['text']}\n" for row in ROWS))),
    "csv, quoted": ("csv", written("rows.csv", "text\n" + "".join(f'"{row["text"]}"\r\n' for row in ROWS))),
    "parquet": ("parquet", in_parquet),
    "lines": ("lines", written("rows.txt", "\n".join(row["text"] for row in ROWS))),
    "paragraphs": ("paragraphs", written("rows.txt", "\n\n".join(row["text"] for row in ROWS))),
    "several files": ("jsonl", in_several),
}
every = pytest.mark.parametrize(("kind", "write"), CASES.values(), ids=CASES.keys())


def texts(table: Table, places: Any) -> list[Any]:
    return [one.values["text"] if isinstance(one, Record) else one for one in table.read(places)]


def test_every_format_has_a_case_and_a_name_in_the_settings() -> None:
    assert {kind for kind, _ in CASES.values()} == FORMATS.keys()
    assert set(choices("data.format")) == {"auto", *FORMATS}


def test_every_family_of_formats_has_a_title() -> None:
    assert {row_format.family for row_format in FORMATS.values()} | set(KINDS.values()) == set(TITLES)


@every
def test_a_table_has_the_rows_of_its_file_in_order(tmp_path: Path, kind: str, write: Any) -> None:
    table = open_tables(write(tmp_path))
    assert table.format.kind == kind and table.whole
    assert len(table) == len(ROWS)
    assert texts(table, range(len(table))) == [row["text"] for row in ROWS]
    assert FORMATS[kind].words in table.format.words or kind == "csv"


@every
def test_any_rows_can_be_read_and_read_again(tmp_path: Path, kind: str, write: Any) -> None:
    table = open_tables(write(tmp_path))
    for places in ([0], [49], [3, 4, 5, 19, 20, 48], [*range(0, 50, 7)], []):
        assert texts(table, places) == [ROWS[place]["text"] for place in places]
    lines = [one.line for one in table.read(range(50))]
    assert lines == sorted(set(lines)), "each row has a line of its own"
    assert [one.line for one in table.read([20])] == [lines[20]]


@every
def test_a_table_describes_itself(tmp_path: Path, kind: str, write: Any) -> None:
    table = open_tables(write(tmp_path))
    assert table.unit in ("line", "row") and table.size > 0 and table.row_bytes > 0
    assert table.classes == {} and Path(table.path).name in table.name + " and 1 more"
    assert len(table.digest) == 64 and hash(table) == hash(table)


@every
def test_a_file_is_opened_once_for_each_version_of_it(tmp_path: Path, kind: str, write: Any) -> None:
    files = write(tmp_path)
    first = open_tables(files)
    assert open_tables(files) is first
    status = files[0].stat()
    files[0].write_bytes(files[0].read_bytes())
    os.utime(files[0], ns=(status.st_atime_ns, status.st_mtime_ns + 1_000))
    second = open_tables(files)
    assert second is not first and second.digest == first.digest, "the digest is that of the content"
    assert texts(first, [0, 49]) == texts(second, [0, 49])


@every
def test_the_head_of_a_small_file_is_all_of_it(tmp_path: Path, kind: str, write: Any) -> None:
    table = open_tables(write(tmp_path), head_only=True)
    assert table.whole and texts(table, range(50)) == [row["text"] for row in ROWS]


@pytest.mark.parametrize(
    ("name", "line", "reason"),
    [("rows.jsonl", "{not json", "is not JSON"), ("rows.csv", "one", "has 1 cell where the header has 2")],
)
def test_a_bad_row_is_reported_in_its_place_and_the_others_are_read(
    tmp_path: Path, name: str, line: str, reason: str
) -> None:
    rows = [json.dumps(row) if name.endswith("jsonl") else f"{row['text']},{n}" for n, row in enumerate(ROWS)]
    rows[BAD] = line
    above = [] if name.endswith("jsonl") else ["text,number"]
    (tmp_path / name).write_text("\n".join([*above, *rows]) + "\n")
    (tmp_path / "more.jsonl").write_text(LINES)
    files = (tmp_path / name, tmp_path / "more.jsonl")
    for table, number in ((open_tables(files[:1]), BAD + len(above) + 1), (open_tables(files), BAD + 1)):
        found = texts(table, range(50))
        bad = found[BAD]
        assert isinstance(bad, BadRow) and bad.line == number and reason in bad.reason
        assert [one for one in found if one is not bad] == [row["text"] for n, row in enumerate(ROWS) if n != BAD]
        assert [type(one) for one in table.read([BAD - 1, BAD, BAD + 1])] == [Record, BadRow, Record]
