"""Files of every kind through the door: what they are recognised as, or the field and the words of the refusal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from data_files import BAD, GOOD, lines

from tuning.assets import asset_path
from tuning.data import encode_set, open_data, summarize
from tuning.data.preview import preview
from tuning.errors import DataError
from tuning.settings import DataSettings
from tuning.text import TextTokenizer

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
    assert len(encode_set(data.train, TOKENIZER, settings, "causal_lm")) == rows


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
    summary = summarize(DataSettings(source=source, max_seq_length=64), str(MODEL), "causal_lm", 0)
    assert summary.sampled and summary.train_rows == 9_000 and summary.longest == 64
    assert 500 <= len(summary.lengths) <= 1_000 and "of 9,000 rows" in summary.longest_origin
    small = summarize(DataSettings(source=source, train_rows=50, eval_rows=5), str(MODEL), "causal_lm", 0)
    assert not small.sampled and len(small.lengths) == 50


def test_tokens_of_many_rows_lie_on_disk_and_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = DataSettings(source="reviews")
    rows = open_data(settings, "causal_lm", 0).train
    kept = list(encode_set(rows, TOKENIZER, settings, "causal_lm"))
    monkeypatch.setattr("tuning.data.encoded.MEMORY_BYTES", 1000)
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
