"""Files of every kind through the door: what they are recognised as, or the field and the words of the refusal."""

from __future__ import annotations

import gzip
import io
import lzma
import random
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from support.data_files import BAD, GOOD, GREEDY_XZ, GREEDY_ZSTD, lines, rows_summary, zipped, zstd
from tuning.core.errors import DataError, TuningError
from tuning.core.paths import asset_path
from tuning.data import encode_set, open_data
from tuning.data.files.progress import read_once, reading, reads_in_progress
from tuning.data.files.unpack import beginning, unpack
from tuning.data.preview.preview import preview
from tuning.settings.schema import DataSettings
from tuning.text import TextTokenizer
from tuning.web.data import add_data_routes
from tuning.web.requests import problems_response

MODEL = asset_path("models", "tiny-town")
TOKENIZER = TextTokenizer(MODEL)


def written(folder: Path, name: str, content: bytes) -> str:
    (folder / name).write_bytes(content)
    return str(folder / name)


def settings_of(source: str, **more: Any) -> DataSettings:
    return DataSettings(**({"source": source, "eval_fraction": 0.0} | more))


def test_the_table_is_long_enough() -> None:
    assert len(GOOD) + len(BAD) >= 60


@pytest.mark.parametrize(("name", "content", "more", "shape", "rows", "first"), GOOD, ids=[one[0] for one in GOOD])
def test_good_and_odd_files(
    tmp_path: Path, name: str, content: bytes, more: dict[str, Any], shape: str, rows: int, first: dict[str, Any]
) -> None:
    settings = settings_of(written(tmp_path, name, content), **more)
    data = open_data(settings, "causal_lm", 0)
    found = list(data.train)
    assert (data.shape, len(found)) == (shape, rows)
    assert {key: getattr(found[0], key) for key in first} == first
    assert len(data.train) == rows and data.train[:1] == found[:1] and data.train[rows - 1] == found[-1]
    shown = preview(settings, "causal_lm", 0, TOKENIZER, 8)
    assert shown["problems"] == [] and shown["shape"] == shape and len(shown["tokens"]) == min(rows, 4)
    assert len(encode_set(data.train, TOKENIZER, settings.replace(long_text="cut"), "causal_lm")) == rows


@pytest.mark.parametrize(("name", "content", "more", "field", "words"), BAD, ids=[one[0] for one in BAD])
def test_broken_files(tmp_path: Path, name: str, content: bytes, more: dict[str, Any], field: str, words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        open_data(settings_of(written(tmp_path, name, content), **more), "causal_lm", 0)
    assert caught.value.problems[0].field == field
    assert "Traceback" not in str(caught.value) and len(str(caught.value)) < 600


@pytest.mark.parametrize("path", ["/nowhere/rows.jsonl", "./" + "x" * 5000, "path:a\0b", "~nobody-at-all/x", "./"])
def test_paths_that_lead_nowhere(path: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError):
        open_data(settings_of(path), "causal_lm", 0)


def test_the_evaluation_rows_are_taken_where_they_lie(tmp_path: Path) -> None:
    rows = [{"text": f"row {n}"} for n in range(10)]
    train = written(tmp_path, "talk-train.jsonl", lines(*rows))
    assert len(open_data(DataSettings(source=train), "causal_lm", 0).eval) == 1, "a tenth held out by the seed"
    written(tmp_path, "talk-valid.jsonl", lines(*rows[:3]))
    data = open_data(DataSettings(source=train), "causal_lm", 0)
    assert (len(data.train), len(data.eval)) == (10, 3)
    written(tmp_path, "other.csv", b"text\nx\ny\n")
    assert len(open_data(DataSettings(source=train, eval_split="other"), "causal_lm", 0).eval) == 2
    folder = tmp_path / "set"
    folder.mkdir()
    written(folder, "train.csv", b"text,label\na,x\nb,y\n")
    written(folder, "test.jsonl", lines({"text": "c", "label": "z"}))
    data = open_data(DataSettings(source=str(folder)), "causal_lm", 0)
    assert (len(data.train), len(data.eval), data.label_names) == (2, 1, ("x", "y", "z"))
    with pytest.raises(DataError, match="no split 'dev'"):
        open_data(DataSettings(source=str(folder), split="dev"), "causal_lm", 0)


def test_bundled_names_take_a_split(tmp_path: Path) -> None:
    data = open_data(DataSettings(source="reviews", split="eval", eval_split="train"), "causal_lm", 0)
    assert (len(data.train), len(data.eval)) == (100, 500)


def test_numbers_as_classes_are_in_the_order_of_numbers(tmp_path: Path) -> None:
    rows = [{"text": f"meal {n}", "label": n % 12} for n in range(36)]
    data = open_data(settings_of(written(tmp_path, "a.jsonl", lines(*rows))), "sequence_classification", 0)
    assert data.label_names == tuple(str(n) for n in range(12))


def test_a_large_file_is_sampled_and_says_so(tmp_path: Path) -> None:
    source = written(tmp_path, "a.jsonl", lines(*({"text": "word " * (n % 90 + 1)} for n in range(10_000))))
    summary = rows_summary(DataSettings(source=source, max_seq_length=64, long_text="cut"), str(MODEL), "causal_lm", 0)
    assert summary.sampled and summary.train_rows == 9_000 and summary.longest == 64
    assert 500 <= len(summary.lengths) <= 1_000 and "of 9,000 rows" in summary.longest_origin
    small = rows_summary(DataSettings(source=source, train_rows=50, eval_rows=5), str(MODEL), "causal_lm", 0)
    assert not small.sampled and len(small.lengths) == 50


def test_tokens_of_many_rows_lie_on_disk_and_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = DataSettings(source="reviews")
    rows = open_data(settings, "causal_lm", 0).train
    kept = list(encode_set(rows, TOKENIZER, settings, "causal_lm"))
    monkeypatch.setattr("tuning.data.token_arrays.MEMORY_BYTES", 1000)
    on_disk = encode_set(rows, TOKENIZER, settings, "causal_lm", tmp_path)
    assert list(on_disk) == kept and on_disk[-1] == kept[-1] and on_disk[3:5] == kept[3:5]
    assert on_disk.lengths == [len(one.ids) for one in kept]
    assert list(tmp_path.iterdir()) == [], "the file has no name"


def test_the_preview_counts_what_is_odd(tmp_path: Path) -> None:
    rows = [{"prompt": f"Q{n}", "completion": "A" * n} for n in range(40)]
    source = written(tmp_path, "a-train.jsonl", lines(*rows, rows[3], {"prompt": "x"}))
    written(tmp_path, "a-eval.jsonl", lines(rows[5], {"prompt": "new", "completion": "A"}))
    shown = preview(DataSettings(source=source, max_seq_length=16), "causal_lm", 0, TOKENIZER, 8)
    assert (shown["duplicates"], shown["in_both"], shown["empty"]) == (1, 1, 1)
    assert shown["bad"]["count"] == 1 and shown["bad"]["rows"][0]["line"] == 42
    assert shown["updates_per_epoch"] == 6 and shown["lengths"]["cut_rows"] > 0
    assert sum(shown["lengths"]["counts"]) == shown["lengths"]["rows"] == 41
    states = {state for row in shown["tokens"] for _, state, _, _ in row["tokens"]}
    assert states == {"seen", "trained"}


def test_a_packed_file_is_the_same_rows_and_the_same_data(tmp_path: Path) -> None:
    content = lines(*({"text": f"row {n}"} for n in range(50)))
    plain, packed = written(tmp_path, "a.jsonl", content), written(tmp_path, "b.jsonl.gz", gzip.compress(content))
    first, second = (open_data(DataSettings(source=source), "causal_lm", 0) for source in (plain, packed))
    assert list(first.train) == list(second.train) and first.fingerprint == second.fingerprint
    shown = preview(settings_of(packed), "causal_lm", 0, TOKENIZER, 8)
    assert shown["format"] == "JSON Lines, one object a line, packed with gzip" and shown["bytes"] == len(content)
    train = written(tmp_path, "talk-train.jsonl.gz", gzip.compress(content))
    written(tmp_path, "talk-valid.jsonl.gz", gzip.compress(lines({"text": "new"})))
    data = open_data(DataSettings(source=train), "causal_lm", 0)
    assert (data.name, len(data.train), len(data.eval)) == ("talk-train", 50, 1)


@pytest.mark.parametrize("pack", [gzip.compress, zstd, lambda rows: zipped({"a.csv": rows})])
def test_of_a_large_packed_file_only_the_head_is_unpacked_for_a_look(
    tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    row = b"some words that say little,1\nother words that say less,0\n"
    content = b"text,label\n" + row * (17 * 2**20 // len(row) + 1)
    cut = pack(content)[:-100] if pack is gzip.compress else pack(content)  # its end is never reached
    shown = preview(settings_of(written(tmp_path, "a", cut)), "causal_lm", 0, TOKENIZER, 8)
    assert shown["problems"] == [] and not shown["whole"] and shown["looked_at"] == 1_000
    assert 2.0e6 < shown["train_rows"] * len(row) / 2 < 2.2e6


def test_a_file_made_to_fill_the_disk_is_refused_with_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tuning.data.files.unpack.LEAST_LIMIT_BYTES", 2**20)
    source = written(tmp_path, "a.gz", gzip.compress(lines({"text": "a"}) + b" " * 2**25))
    with pytest.raises(DataError, match="unpacks to more than 6 MiB, which is the limit.*200 times its size") as told:
        open_data(settings_of(source), "causal_lm", 0)
    assert told.value.problems[0].field == "data.source"


def test_a_damaged_archive_gives_rows_or_a_sentence() -> None:
    draw, told = random.Random(0), Counter[str]()
    content = lines({"text": "a"})
    whole = [zipped({"./a//b.jsonl": content, "README.md": b"x"}, method=method) for method in (0, 8, 12, 14)]
    for _ in range(4_000):
        made = bytearray(draw.choice(whole))
        central = made.index(b"PK\x01\x02")
        for place in draw.sample(range(4, len(made)), draw.choice((1, 1, 2, 8))):
            made[place] = draw.randrange(256)
        made[central + draw.randrange(46)] = draw.choice((0, 1, 46, 255))
        try:
            told[unpack(io.BytesIO(made), "zip", Path("a.zip"), len(made)).words] += 1
        except DataError as error:
            assert len(str(error)) < 600
            told["refused"] += 1
    assert told["refused"] > 500 and told["b.jsonl in a zip archive"] > 500


def test_a_beginning_that_asks_for_too_much_memory_is_refused() -> None:
    assert beginning(lzma.compress(lines({"text": "a"}))[:-9], "a.xz", 100) == lines({"text": "a"})
    for content in (GREEDY_XZ, GREEDY_ZSTD):
        with pytest.raises(DataError, match="more than 128 MiB of memory"):
            beginning(content, "a", 100)


def test_one_reading_serves_all_who_ask_at_once_and_is_seen_while_it_goes() -> None:
    begun, go, made = threading.Event(), threading.Event(), list[int]()

    @read_once(2)
    def read(number: int) -> int:
        with reading("/a/rows.csv", "rows.csv", "finding rows", "bytes", 10) as tell:
            tell(number)
            begun.set()
            go.wait(10)
            made.append(number)
            return number

    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(read, 7) for _ in range(4)]
        assert begun.wait(10)
        (seen,) = reads_in_progress()
        assert (seen.path, seen.name, seen.done, seen.total) == ("/a/rows.csv", "rows.csv", 7, 10)
        go.set()
        assert [one.result(10) for one in asked] == [7] * 4
    assert made == [7] and reads_in_progress() == []


def test_a_packed_file_is_uploaded_and_shown_like_any_other(tmp_path: Path) -> None:
    app = FastAPI()
    app.add_exception_handler(TuningError, problems_response)
    add_data_routes(app, tmp_path)
    client = TestClient(app)
    for name, content, words in (
        (
            "my rows.csv.gz",
            gzip.compress(b"text,label\na,x\nb,y\n"),
            "CSV, columns separated by commas, packed with gzip",
        ),
        ("set.zip", zipped({"rows.jsonl": lines({"text": "a"})}), "JSON Lines, one object a line, rows.jsonl in a zip"),
    ):
        stored = client.post("/fork/data/upload", params={"name": name}, content=content)
        assert stored.status_code == 201 and stored.json()["name"] == name
        shown = client.post("/fork/data/preview", json={"data": {"source": stored.json()["path"]}}).json()
        assert shown["problems"] == [] and shown["format"].startswith(words) and len(shown["tokens"]) >= 1
    stored = client.post("/fork/data/upload", params={"name": "a.zip"}, content=zipped({"a.csv": b"", "b.csv": b""}))
    answer = client.post("/fork/data/preview", json={"data": {"source": stored.json()["path"]}})
    assert answer.status_code == 422 and "2 files (a.csv, b.csv)" in answer.json()["message"]
