"""Small files that stand for gigabytes: the preview and the run take little memory for them, and say what they left."""

from __future__ import annotations

import gzip
import json
import lzma
import subprocess
import sys
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest

from tuning.core.errors import DataError
from tuning.core.paths import asset_path
from tuning.data import open_data
from tuning.data.files.table import MOST_ROW_BYTES
from tuning.data.preview.preview import MOST_LETTERS, preview
from tuning.data.preview.token_view import beginning_of
from tuning.settings.schema import DataSettings
from tuning.text import Row, TextTokenizer, Turn

ROOT = Path(__file__).resolve().parents[2]
MODEL = asset_path("models", "tiny-town")
MEBIBYTE = 2**20


def shown(file: Path, **more: Any) -> dict[str, Any]:
    return preview(DataSettings(source=str(file), **more), "causal_lm", 0, TextTokenizer(MODEL), 8)


def gigabytes(folder: Path) -> dict[str, Path]:
    """Files of a few bytes to a few mebibytes that a reader who takes rows, groups or columns whole chokes on."""
    import pyarrow
    import pyarrow.parquet

    (folder / "zeros.txt").write_text("0" * 2_000_000)
    (folder / "long.txt.xz").write_bytes(lzma.compress(b"0" * (40 * MEBIBYTE), preset=0))
    (folder / "words.jsonl").write_text(json.dumps({"text": "the mill by the river " * 190_000}) + "\n")
    (folder / "wide.csv").write_text(",".join(f"c{n}" for n in range(300_000)) + "\n" + ",".join("1" * 300_000) + "\n")
    (folder / "keys.jsonl").write_text(json.dumps({f"key number {n}": "some text" for n in range(100_000)}) + "\n")
    (folder / "talk.jsonl").write_text(
        json.dumps({"messages": [{"role": ("user", "assistant")[n % 2], "content": "x"} for n in range(50_000)]}) + "\n"
    )
    dictionary = pyarrow.DictionaryArray.from_arrays
    group = dictionary(pyarrow.array([0] * 600, pyarrow.int32()), pyarrow.array(["a" * 1_000_000]))
    pyarrow.parquet.write_table(pyarrow.table({"text": group}), folder / "group.parquet", store_schema=False)
    codes = pyarrow.array([n % 5 for n in range(500_000)], pyarrow.int32())
    table = pyarrow.table({"text": dictionary(codes, pyarrow.array([f"{n} mills " * 200 for n in range(5)]))})
    pyarrow.parquet.write_table(table, folder / "dictionary.parquet", compression="zstd")
    return {file.name: file for file in sorted(folder.iterdir())}


LOOK = """
import json, resource, sys
from tuning.core.errors import TuningError
from tuning.web.data import data_preview
import pyarrow, pyarrow.parquet
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
data_preview({"data": {"source": "reviews"}})
for name in sys.argv[1:]:
    before = peak()
    try:
        found = data_preview({"data": {"source": name}})
        said = [one["message"] for one in found["problems"] + found["notices"]]
        size = len(json.dumps(found))
    except TuningError as error:
        said, size = [str(error)], len(str(error))
    print(json.dumps({"mebibytes": peak() - before, "bytes": size, "said": said}))
"""


@pytest.mark.skipif(sys.platform == "darwin", reason="counts bytes where Linux counts KiB")
def test_a_preview_of_any_small_file_takes_little_memory_and_answers_briefly(tmp_path: Path) -> None:
    files = gigabytes(tmp_path)
    assert all(file.stat().st_size < 6 * MEBIBYTE for file in files.values())
    out = subprocess.run(
        [sys.executable, "-c", LOOK, *map(str, files.values())], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    found = dict(zip(files, map(json.loads, out.splitlines()), strict=True))
    for name, one in found.items():
        assert one["mebibytes"] < 150 and one["bytes"] < 100_000, (name, one)
    words = {
        "zeros.txt": "1 of 1 rows looked at is longer than 2,048 letters",
        "long.txt.xz": "line 1 is longer than 8 MiB",
        "words.jsonl": "1 of 1 rows looked at is longer than 2,048 letters",
        "wide.csv": "longer than 256 KiB",
        "keys.jsonl": "has 100,000 keys, and the most is 1,000",
        "talk.jsonl": "1 of 1 rows looked at is longer than 2,048 letters",
        "group.parquet": "rows looked at are longer than 2,048 letters",
    }
    assert {name: any(word in said for said in found[name]["said"]) for name, word in words.items()} == dict.fromkeys(
        words, True
    )


def test_a_row_beyond_the_limit_is_a_bad_row_in_every_format(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    long = "x" * (MOST_ROW_BYTES + 1)
    (tmp_path / "a.jsonl").write_text(f'{{"text": "a"}}\n{{"text": "{long}"}}\n{{"text": "b"}}\n')
    (tmp_path / "a.csv").write_text(f"text,label\na,x\n{long},y\nb,y\n")
    (tmp_path / "a.txt").write_text(f"a\n{long}\nb\n")
    (tmp_path / "b.txt").write_text(f"a\n\n{long}\n\nb\n")
    (tmp_path / "a.json").write_text(json.dumps([{"text": "a"}, {"text": long}, {"text": "b"}]))
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a", long, "b"]}), tmp_path / "a.parquet")
    for file in sorted(tmp_path.iterdir()):
        chosen = DataSettings(source=str(file), eval_fraction=0.0, columns={"text": "text"})
        with pytest.raises(DataError, match="is longer than 8 MiB, the most for one row"):
            open_data(chosen, "causal_lm", 0)
        data = open_data(DataSettings(**{**_plain(chosen), "bad_rows": "skip"}), "causal_lm", 0)
        assert [row.text for row in data.train] == ["a", "b"], file.name


def _plain(settings: DataSettings) -> dict[str, Any]:
    return {"source": settings.source, "eval_fraction": 0.0, "columns": settings.columns}


def test_a_look_takes_so_much_of_each_text_and_the_whole_of_short_rows() -> None:
    short = Row(prompt="a" * 10, completion="b" * 10)
    assert beginning_of(short, 10) is short
    row = beginning_of(Row(prompt="start" + "a" * 10, completion="b" * 10 + "end", history=(("q", "r" * 50),) * 9), 10)
    assert (row.prompt, row.completion) == ("a" * 10, "b" * 10) and row.history == (("q", "r" * 10),)
    talk = tuple(Turn(("user", "assistant")[n % 2], "word " * 3) for n in range(1_000))
    first = beginning_of(Row(messages=talk), 100).messages or ()
    assert first == talk[: len(first)] and 2 <= len(first) <= 4
    late = (Turn("user", "x" * 500), Turn("user", "y"), Turn("assistant", "z"), Turn("user", "w"))
    assert beginning_of(Row(messages=late), 100).messages == (Turn("user", "x" * 100), *late[1:3])


def test_the_tokens_shown_of_a_long_row_are_those_of_its_beginning(tmp_path: Path) -> None:
    texts = ["the mill by the river " * 9_000, "a short one"]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    found = shown(tmp_path / "rows.jsonl", max_seq_length=16, eval_fraction=0.0)
    whole = TextTokenizer(MODEL).encode(texts[0])
    tokens = found["tokens"][0]["tokens"]
    read = [text for text, *_ in takewhile(lambda token: token[1] != "gap", tokens)]
    assert "".join(read).strip() and texts[0].startswith("".join(read).strip())
    assert not any(special for _, _, special, _ in tokens), "no end stands where the row goes on"
    assert 16 < found["lengths"]["longest"] < len(whole) and found["lengths"]["cut_rows"] == 0, "split, not cut"
    (notice,) = [one for one in found["notices"] if "letters" in one["message"]]
    assert notice["count"] == 1 and "2,000 letters" in notice["message"]
    assert found["rows"][0]["cells"]["text"].endswith("…") and len(texts[0]) < MOST_LETTERS


def test_of_a_wide_row_the_chosen_columns_are_shown(tmp_path: Path) -> None:
    row = {f"column {n:03}": "1" for n in range(600)} | {"text": "the mill"}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    found = shown(tmp_path / "rows.jsonl", columns={"text": "text"}, eval_fraction=0.0)
    cells = found["rows"][0]["cells"]
    assert found["problems"] == [] and cells["text"] == "the mill" and len(cells) == 40
    assert len(found["columns"]) == 300 and any("601 columns" in note for note in found["notes"])


def test_lines_are_found_the_same_however_long_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["a" * length for length in (1, 63, 64, 65, 127, 128, 129, 500, 1)]
    content = "\n\n".join(texts) + "\n \n" + "b" * 70 + "\n"
    for kind in ("lines", "paragraphs"):
        for block in (2**20, 64):
            monkeypatch.setattr("tuning.data.files.lines.BLOCK_BYTES", block)
            file = tmp_path / f"{kind}{block}.txt"
            file.write_text(content)
            data = open_data(DataSettings(source=str(file), format=kind, eval_fraction=0.0), "causal_lm", 0)
            assert [row.text for row in data.train] == [*texts, "b" * 70]
            lines = [one.line for one in data.train.table.read(range(len(data.train)))]
            assert lines == [*range(1, 18, 2), 19]


def test_only_the_head_of_a_packed_array_or_of_another_encoding_is_read_for_a_look(tmp_path: Path) -> None:
    row = json.dumps({"text": "the mill by the river is old and red"})
    many = "[" + ",\n".join([row] * (20 * MEBIBYTE // len(row))) + "\n]"
    cut = gzip.compress(many.encode())[:-100]  # its end is never reached
    (tmp_path / "rows.json.gz").write_bytes(cut)
    (tmp_path / "rows16.jsonl").write_bytes("\n".join([row] * (10 * MEBIBYTE // len(row))).encode("utf-16"))
    for file in tmp_path.iterdir():
        found = shown(file)
        assert found["problems"] == [] and not found["whole"]
        assert found["train_rows"] + found["eval_rows"] < 3 * MEBIBYTE / len(row)
