"""Large files: read whole in the background, quickly and with the same result as row by row."""

from __future__ import annotations

import gc
import gzip
import io
import os
import random
import shutil
import threading
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st

from tuning.core.errors import DataError, TuningError
from tuning.data import open_data
from tuning.data.data_set import TOKEN_SETTINGS, check
from tuning.data.files.file_format import Format
from tuning.data.files.lines import MOST_OPEN_TABLES, LineTable
from tuning.data.files.progress import ReadProgress, reading
from tuning.data.preview.background_read import _reads, read_whole, reading_progress
from tuning.data.schema import RowError, RowSchema, fast_valid, make_row
from tuning.settings.schema import DataSettings
from tuning.web.data import add_data_routes
from tuning.web.requests import problems_response

PIECES = [
    "a",
    ",",
    "b",
    "\n",
    "\n",
    "\r\n",
    "\r",
    '"',
    " ",
    "\u00e9",
    "\U0001f600",
    "\0",
    "x,y\n",
    "x,y\n",
    "x,y\n",
    "|",
]


def odd_table(draw: random.Random, pieces: list[str]) -> LineTable:
    """A table of two columns from pieces that make rows too short, too long, blank, quoted, not UTF-8."""
    content = "".join(draw.choices(pieces, k=draw.randrange(1, 60))).encode() + b"x,y\n"
    content += b"caf\xe9,y\n" * (draw.random() < 0.2)
    form = Format(kind="csv", delimiter=",", columns=("text", "label"), header=False)
    return LineTable(io.BytesIO(content), Path("odd.csv"), form, len(content))


def test_rows_read_many_at_once_are_those_read_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(0)
    tables = [odd_table(draw, PIECES if n % 2 else [one for one in PIECES if one != '"']) for n in range(600)]
    some = [sorted(draw.sample(range(len(one)), draw.randrange(1, len(one) + 1))) for one in tables]
    quick = [(list(one.read(range(len(one)))), list(one.read(few))) for one, few in zip(tables, some, strict=True)]
    assert sum(len(rows) for rows, _ in quick) > 3_000
    monkeypatch.setattr("tuning.data.files.lines._unquoted_cells", lambda block, file_format, rows: None)
    for table, few, (rows, chosen) in zip(tables, some, quick, strict=True):
        assert list(table.read(range(len(table)))) == rows
        assert list(table.read(few)) == chosen == [rows[place] for place in few]


VALUES = st.one_of(
    st.none(),
    st.text(max_size=3),
    st.just("\ud800"),
    st.integers(),
    st.floats(),
    st.booleans(),
    st.lists(st.integers(), max_size=1),
)
SHAPES: list[tuple[str, dict[str, str]]] = [
    ("text", {"text": "a"}),
    ("text + label", {"text": "a", "label": "b"}),
    ("prompt + completion", {"prompt": "a", "completion": "b"}),
    ("prompt + completion", {"prompt": "{a} {b}", "completion": "c"}),
    ("instruction + input + output", {"prompt": "a", "input": "b", "completion": "c"}),
    ("conversation", {"messages": "a"}),
]


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from("abc"), VALUES), st.sampled_from(SHAPES), st.sampled_from([None, "{c}!", "{a}"]))
def test_what_is_surely_good_makes_a_row(
    record: dict[str, Any], shape: tuple[str, dict[str, str]], template: str | None
) -> None:
    reading = RowSchema(
        columns=tuple(shape[1].items()),
        shape=shape[0],
        labelled="label" in shape[1],
        prompt_template=template,
        answer_template=" {label}",
        task="causal_lm",
    )
    if fast_valid(reading)(record):
        assert make_row(record, reading, {}) is not None


def test_most_plain_records_are_surely_good() -> None:
    for shape, columns in SHAPES[:-1]:
        reading = RowSchema(
            columns=tuple(columns.items()),
            shape=shape,
            labelled="label" in columns,
            prompt_template=None,
            answer_template=" {label}",
            task="causal_lm",
        )
        assert fast_valid(reading)({"a": "text", "b": 3, "c": "more"})
        with pytest.raises(RowError):
            make_row({"a": None}, reading, {})
        assert not fast_valid(reading)({"a": None})


@pytest.mark.parametrize("bad", [0, 7])
def test_the_split_is_by_label_by_the_seed_and_keeps_the_order(tmp_path: Path, bad: int) -> None:
    file = tmp_path / "a.csv"
    rows = [f"row {n},{'abc'[n * n % 7 % 3]}" if not bad or n % 50 != bad else "only this" for n in range(2_000)]
    file.write_text("text,label\n" + "\n".join(rows) + "\n")
    data = open_data(DataSettings(source=str(file), eval_fraction=0.15, bad_rows="skip"), "causal_lm", 3)
    by_label: dict[str, list[int]] = {name: [] for name in "abc"}  # the same, written plainly
    for place, row in enumerate(rows):
        if "," in row:
            by_label[row[-1]].append(place)
    draw, held = random.Random(3), set[int]()
    for group in by_label.values():
        held |= {group[one] for one in draw.sample(range(len(group)), round(len(group) * 0.15))}
    good = sorted(place for group in by_label.values() for place in group)
    assert list(data.eval.indices) == sorted(held) and list(data.train.indices) == [n for n in good if n not in held]
    assert Counter(row.label for row in data.eval) == {n: round(len(by_label["abc"[n]]) * 0.15) for n in range(3)}


def test_counts_of_a_large_file_follow_its_first_rows(tmp_path: Path) -> None:
    file, lines = tmp_path / "many.csv", b"the soup was good,fine\nthe soup was late and cold,poor\nno soup,poor\n"
    many = 17 * 2**20 // len(lines) + 1
    file.write_bytes(b"text,label\n" + lines * many + b"short\n")
    app = FastAPI()
    app.add_exception_handler(TuningError, problems_response)
    add_data_routes(app, tmp_path)
    client, asked = TestClient(app), {"data": {"source": str(file), "max_seq_length": 16}}
    head = client.post("/fork/data/preview", json=asked).json()
    assert not head["whole"] and head["train_rows"] < many and head["bad"]["count"] == 0
    answers = [client.post("/fork/data/facts", json=asked).json()]
    while "reading" in answers[-1]:
        answers.append(client.post("/fork/data/facts", json=asked).json())
        assert len(answers) < 200
    facts = answers[-1]["facts"]
    told = [one["reading"] for one in answers[:-1]]
    assert all(one["total"] >= one["done"] >= 0 and "many.csv is being read" in one["words"] for one in told)
    held = {"fine": round(many * 0.1), "poor": round(2 * many * 0.1)}
    assert facts["labels"] == [
        {"name": name, "train": rows - held[name], "eval": held[name]}
        for name, rows in (("fine", many), ("poor", 2 * many))
    ]
    assert facts["train_rows"] + facts["eval_rows"] == 3 * many and facts["counted"]
    assert facts["bad"]["count"] == 1 and facts["bad"]["rows"][0]["line"] == 3 * many + 2
    with pytest.raises(DataError, match="has 1 cell"):
        read_whole(DataSettings(source=str(file), max_seq_length=16), "causal_lm", 0, 60)


def test_a_reading_that_takes_longer_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"text": "a"}\n')
    slow = lambda *given: time.sleep(0.3) or open_data(*given)
    monkeypatch.setattr("tuning.data.preview.background_read.open_data", slow)
    chosen, began = DataSettings(source=str(file), eval_fraction=0.0), time.monotonic()
    assert read_whole(chosen, "causal_lm", 0, 0.05) is None and time.monotonic() - began < 0.25
    found = read_whole(chosen, "causal_lm", 0, 10)
    assert found is not None and len(found.train) == 1 and check(found.train.table, found.schema).whole


def test_a_failed_reading_is_told_and_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.csv.gz"
    file.write_bytes(gzip.compress(b"text,label\na,x\nb,y\n"))
    chosen, free = DataSettings(source=str(file), eval_fraction=0.0), shutil.disk_usage("/")
    ask = partial(read_whole, chosen, "causal_lm", 0)
    with monkeypatch.context() as full:
        full.setattr("tuning.data.files.unpack.shutil.disk_usage", lambda folder: free._replace(free=0))
        for _ in range(2):
            with pytest.raises(DataError, match="unpacks to more than 0 MiB"):
                ask(10)
    found = ask(10)
    assert found is not None and len(found.train) == 2 and ask(0) is found, "what was read is kept"


def test_a_failure_that_nobody_heard_of_waits_for_a_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, tries, go = tmp_path / "a.jsonl", list[int](), threading.Event()
    file.write_text('{"text": "a"}\n')

    def fail(*given: Any) -> None:
        tries.append(1)
        go.wait(10)
        raise DataError("no room", "a.jsonl")

    monkeypatch.setattr("tuning.data.preview.background_read.open_data", fail)
    ask = partial(read_whole, DataSettings(source=str(file), eval_fraction=0.0), "causal_lm", 0)
    assert ask(0) is None and ask(0) is None
    go.set()
    with pytest.raises(DataError, match="no room"):
        ask(10)
    assert len(tries) == 1, "who asked twice was told of the same reading"
    go.clear()
    assert ask(0) is None
    go.set()
    while not list(_reads.values())[-1].rows.done():
        time.sleep(0.01)
    monkeypatch.setattr("tuning.data.preview.background_read.FAILED_SECONDS", 0.0)
    with pytest.raises(DataError, match="no room"):
        ask(10)
    assert len(tries) == 3, "an old failure is not told: it is tried again"


class Watched(DataSettings):
    """Settings that note which of them are looked at."""

    seen: ClassVar[set[str]] = set()

    def __getattribute__(self, name: str) -> Any:
        Watched.seen.add(name)
        return super().__getattribute__(name)


def test_one_reading_serves_all_settings_that_change_no_row(tmp_path: Path) -> None:
    source = {"source": str(tmp_path / "a.jsonl"), "eval_fraction": 0.2}
    (tmp_path / "a.jsonl").write_text("".join(f'{{"text": "row {n}", "label": {n % 2}}}\n' for n in range(20)))
    first = read_whole(DataSettings(**source), "causal_lm", 0, 10)
    others: dict[str, Any] = {
        "system_prompt": "Be brief.",
        "loss_on": "all",
        "max_seq_length": 64,
        "packing": True,
        "group_by_length": False,
        "long_text": "cut",
        "chat_template": "off",
        "special_tokens": "config",
    }
    assert first is not None and set(others) == TOKEN_SETTINGS
    for name, value in others.items():
        assert read_whole(DataSettings(**source | {name: value}), "causal_lm", 0, 10) is first
    assert read_whole(DataSettings(**source | {"train_rows": 3}), "causal_lm", 0, 10) is not first
    Watched.seen.clear()
    open_data(Watched(**source, train_rows=5), "causal_lm", 0)
    assert "columns" in Watched.seen and not Watched.seen & TOKEN_SETTINGS


def test_only_so_many_unpacked_files_are_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuning.data.files.unpack.MEMORY_BYTES", 1)

    def held() -> int:
        gc.collect()
        links = (os.readlink(one) for one in Path("/proc/self/fd").iterdir() if one.is_symlink())
        return sum("(deleted)" in link for link in links)

    before = held()
    for number in range(20):
        file = tmp_path / f"{number}.csv.gz"
        file.write_bytes(gzip.compress(f"text,label\na {number},x\nb,y\n".encode()))
        assert read_whole(DataSettings(source=str(file), eval_fraction=0.0), "causal_lm", 0, 10) is not None
    assert 1 <= held() - before <= MOST_OPEN_TABLES
    assert not _reads, "only what is under way is waited for"


def test_the_progress_of_another_file_of_the_same_name_is_not_told(tmp_path: Path) -> None:
    for folder in ("mine", "other"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "train.jsonl").write_text('{"text": "a"}\n')
    other = tmp_path / "other" / "train.jsonl"
    with reading(str(other), other.name, "finding rows", "bytes", 2**22) as tell:
        tell(2**21)
        far = reading_progress(DataSettings(source=str(other)))
        assert (far["doing"], far["done"], far["total"]) == ("finding rows", 2**21, 2**22)
        assert far["words"] == "train.jsonl is being read (finding rows: 2 of 4 MiB)" and "path" not in far
        mine = reading_progress(DataSettings(source=str(tmp_path / "mine" / "train.jsonl")))
        assert (mine["doing"], mine["total"]) == ("reading", 0)


def test_tables_name_their_file_in_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = set[str]()
    made = ReadProgress.__init__
    monkeypatch.setattr(ReadProgress, "__init__", lambda self, *given: (told.add(given[0]), made(self, *given))[1])
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"text,label\na,x\nb,y\n"))
    monkeypatch.chdir(tmp_path)
    open_data(DataSettings(source="./a.csv.gz", eval_fraction=0.0), "causal_lm", 0)
    assert told == {str(tmp_path / "a.csv.gz")}


def test_of_a_large_parquet_file_the_first_rows_are_looked_at(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    many, file = 300_000, tmp_path / "a.parquet"
    texts = [f"row {n} says that it is quite a long row, as rows of a large file go" for n in range(many)]
    columns = {"text": texts, "label": [n % 3 for n in range(many)]}
    pyarrow.parquet.write_table(
        pyarrow.table(columns), file, row_group_size=70_000, compression="none", use_dictionary=False
    )
    assert file.stat().st_size > 17 * 2**20
    app = FastAPI()
    add_data_routes(app, tmp_path)
    client, asked = TestClient(app), {"data": {"source": str(file), "max_seq_length": 16}}
    head = client.post("/fork/data/preview", json=asked).json()
    assert head["problems"] == [] and not head["whole"] and head["train_rows"] + head["eval_rows"] == 20_000
    while "reading" in (answer := client.post("/fork/data/facts", json=asked).json()):
        assert answer["reading"]["name"] == "a.parquet"
    assert [one["train"] + one["eval"] for one in answer["facts"]["labels"]] == [100_000] * 3
    data = open_data(DataSettings(source=str(file), max_seq_length=16), "causal_lm", 0)
    some = [0, 69_999, 70_000, 70_001, 299_999]
    assert [row.prompt for row in data.train.at(some)] == [texts[n] + "\nLabel:" for n in some]
