"""From bytes to records: what is no rows is refused by name, headers are found, every Parquet type is read, a clone of
the hub's is read as the hub's; held beside `datasets`, `pandas` and `pyarrow` on the same files."""

from __future__ import annotations

import datetime
import gzip
import json
import os
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from support.data_files import lines, zipped
from tuning.core.errors import DataError, ModelError
from tuning.data import open_data
from tuning.data.data_set import DataSet
from tuning.data.files.concat import open_tables
from tuning.data.files.table import Record
from tuning.models.base_model import resolve_model
from tuning.settings.schema import DataSettings


def written(folder: Path, name: str, content: bytes | str) -> str:
    place = folder / name
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(place)


def opened(source: str, task: str = "causal_lm", **more: Any) -> DataSet:
    return open_data(DataSettings(**({"source": source, "eval_fraction": 0.0} | more)), task, 0)


def records(source: str) -> list[dict[str, Any]]:
    table = open_tables((Path(source),))
    found = list(table.read(range(len(table))))
    assert all(isinstance(one, Record) for one in found), found
    return [one.values for one in found if isinstance(one, Record)]


def told(data: DataSet) -> list[str]:
    """What is told of the file; which columns were read is another matter."""
    others = ("no evaluation rows", "The rows are recognised", "column is not used", "The label is the answer")
    return [one.message for one in data.notices if not any(words in one.message for words in others)]


HTML = "<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body>Please sign in</body></html>\n"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4665a5ea423c2713d436b5ee50593a96\nsize 12345\n"
COMMENTED = '// exported\n[\n{"text": "the mill"},\n{"text": "the river"}\n]\n'
NOTEBOOK = '{"cells": [{"cell_type": "code", "source": ["1"]}], "metadata": {}, "nbformat": 4}'
YAML = "- text: the mill\n  label: a\n- text: the river\n  label: b\n"
REFUSED = [
    ("rows.parquet", POINTER, "Git LFS pointer.*12,345 bytes"),
    ("rows.txt", POINTER, "Git LFS pointer"),
    ("rows.csv", "../.git/annex/objects/xX/Zz/SHA256E-s9--a/SHA256E-s9--a\n", "pointer of git-annex"),
    ("rows.jsonl", HTML, "HTML page that asks to sign in"),
    ("rows", HTML, "HTML page"),
    ("page.html", "words of a page\n", "HTML page"),
    ("rows.csv", '<?xml version="1.0"?>\n<rows><row>a</row></rows>\n', "is XML"),
    ("rows.doc", '<?xml version="1.0"?>\n<?mso-application progid="Word.Document"?><w:wordDocument/>', "Word document"),
    ("rows.json", COMMENTED, "JSON with a comment"),
    ("rows.jsonl", '# made today\n{"text": "a"}\n', "JSON with a comment"),
    ("rows.yaml", "text: the mill\n", "is YAML"),
    ("rows.json", "---\ntext: the mill\n", "is YAML"),
    ("rows.dat", YAML, "is YAML"),
    ("train.py", "rows = 3\n", "Python source"),
    ("train", "import os\n\nprint(os)\n", "Python source"),
    ("rows.ipynb", NOTEBOOK, "Jupyter notebook"),
    ("rows.json", NOTEBOOK, "Jupyter notebook"),
    ("rows.rtf", "{\\rtf1\\ansi hello}", "RTF document"),
    ("rows.csv", "{\\rtf1\\ansi hello}", "RTF document"),
    ("rows.arrow", b"\xff\xff\xff\xff\x10\0\0\0", "Arrow stream"),
    ("rows.parquet", '{"text": "a"}\n', "called .parquet, which promises Parquet, and holds JSON"),
    ("rows.csv", '{"text": "a"}\n', "called .csv, which promises a table .CSV, TSV., and holds JSON"),
    ("rows.jsonl", "text,label\na,x\nb,y\n", "called .jsonl, which promises JSON, and holds a table"),
    ("rows.json", "the mill\nthe river\n", "called .json, which promises JSON, and holds plain text.*the mill"),
    ("rows.jsonl.gz", gzip.compress(b"the mill\nthe river\n"), "called .jsonl, which promises JSON, and holds plain"),
    ("rows.zip", zipped({"rows.json": b"the mill\nthe river\n"}), "called .json, which promises JSON"),
    ("rows.csv", "The mill stood.\nIt was old, and red, and big.\nIt fell.\n", "may name the columns.*The mill stood"),
    ("rows.csv", "The mill.\nIt was old, red; big | wet\tdry, cold.\nIt fell.\n", "is no table.*The mill"),
    ("rows.csv", "text,label\n", r"has a header \(text, label\) and no rows"),
    ("rows.tsv", "text\tlabel\n\n", r"has a header \(text, label\) and no rows"),
    ("rows.csv", "sep=;\ntext;label\n", r"has a header \(text, label\) and no rows"),
    ("rows.json", "[]", "has no rows"),
    ("rows.csv", "text,text\na,b\nc,d\n", "two columns named 'text'"),
    ("rows.csv", "red,old\nwet,dry\n", "may name the columns or be a row.*'red,old'"),
    ("rows.json", json.dumps({"train": [{"text": "a"}], "test": [{"text": "b"}]}), "2 lists of rows .train, test."),
]


@pytest.mark.parametrize(("name", "content", "words"), REFUSED, ids=[f"{n} {one[0]}" for n, one in enumerate(REFUSED)])
def test_what_is_no_file_of_rows_is_refused_by_name(
    tmp_path: Path, name: str, content: bytes | str, words: str
) -> None:
    with pytest.raises(DataError, match=f"(?s){words}") as caught:
        opened(written(tmp_path, name, content))
    assert caught.value.problems[0].field == "data.source" and name in str(caught.value)


def test_a_text_file_stays_text_and_is_told_what_it_looks_like(tmp_path: Path) -> None:
    for content, title in ((HTML, "an HTML page"), (YAML, "YAML"), ("import os\nprint(1)\n", "Python source")):
        data = opened(written(tmp_path, "rows.txt", content))
        assert data.shape == "text" and [row.text for row in data.train] == content.splitlines()
        assert len(told(data)) == 1 and title in told(data)[0]
    assert told(opened(written(tmp_path, "rows.txt", "Hello, world\nGood, morning\nBye, all\n"))) == []


def test_a_format_that_is_said_outright_is_read_as_said(tmp_path: Path) -> None:
    source = written(tmp_path, "rows.json", COMMENTED)
    assert len(opened(source, format="lines").train) == 5
    assert len(opened(written(tmp_path, "code.py", "a = 1\nb = 2\n"), format="lines").train) == 2
    assert len(opened(written(tmp_path, "rows.csv", '{"text": "a"}\n'), format="jsonl").train) == 1


BODY = "".join(f"the mill {n} is {'good' if n % 2 else 'bad'};{'pos' if n % 2 else 'neg'}\n" for n in range(12))
HEADED = [
    ("sep=;\ntext;label\n" + BODY, 1, "'sep=;'"),
    ('"sep=;"\r\ntext;label\r\n' + BODY, 1, "sep=;"),
    ("Export of reviews;\ntext;label\n" + BODY, 1, "'Export of reviews;'"),
    ("Export of reviews\n\ntext;label\n" + BODY, 1, "'Export of reviews'"),
    ("Reviews; 2024\ntext;label\n" + BODY, 1, "'Reviews; 2024'"),
    ("# made by hand\n# on monday\ntext;label\n" + BODY, 2, "'# made by hand', '# on monday'"),
    ("text;label\n" + BODY, 0, ""),
    ("what;how\n" + BODY, 0, ""),
]


@pytest.mark.parametrize(("content", "count", "words"), HEADED, ids=[repr(one[0][:20]) for one in HEADED])
def test_the_header_is_found_below_what_stands_above_it(tmp_path: Path, content: str, count: int, words: str) -> None:
    import pandas

    data = opened(written(tmp_path, "rows.csv", content))
    above = next(n for n, line in enumerate(content.splitlines()) if line in ("text;label", "what;how"))
    theirs = pandas.read_csv(tmp_path / "rows.csv", sep=";", skiprows=above)
    assert list(data.all_columns) == list(theirs.columns) and data.label_names == ("neg", "pos")
    assert records(str(tmp_path / "rows.csv")) == theirs.to_dict("records")
    assert [(one.field, one.count) for one in data.notices if words in one.message and one.field != "data.columns"][
        :1
    ] == ([("data.format", count)] if count else [("data.eval_fraction", 0)])
    first = data.train.table.read([0])
    assert next(iter(first)).line == above + 2, "lines are counted from the top of the file"


def test_a_table_without_a_header_keeps_its_first_row(tmp_path: Path) -> None:
    for name, content in (("rows.csv", BODY), ("SMSSpamCollection", BODY.replace(";", "\t"))):
        data = opened(written(tmp_path, name, content))
        assert len(data.train) == 12 and data.label_names == ("neg", "pos"), "no class of the first line's"
        assert len(told(data)) == 1 and "no header line" in told(data)[0] and "the mill 0 is bad" in told(data)[0]


def test_a_header_with_nameless_columns_is_a_header(tmp_path: Path) -> None:
    content = "v1,v2,,,\n" + "".join(f"{'ham' if n % 2 else 'spam'},the mill {n} is good,,,\n" for n in range(30))
    source = written(tmp_path, "spam.csv", content)
    assert len(records(source)) == 30 and list(records(source)[0])[:3] == ["v1", "v2", "column 3"]
    indexed = written(tmp_path, "frame.csv", ",0,1\n0,hello there,pos\n1,bad day,neg\n")
    assert records(indexed)[0] == {"column 1": "0", "0": "hello there", "1": "pos"}


FRAME = {"text": ["the mill", "the river"], "label": ["a", "b"]}


@pytest.mark.parametrize("orient", ["records", "columns", "index", "split", "table"])
def test_json_as_pandas_writes_it_is_read(tmp_path: Path, orient: Any) -> None:
    import pandas

    source = str(tmp_path / "rows.json")
    pandas.DataFrame(FRAME).to_json(source, orient=orient)
    if orient == "index":  # rows under names that are numbers: columns of the two rows, or rows of the two columns?
        pandas.DataFrame(FRAME, index=["first", "second"]).to_json(source, orient=orient)
    found = opened(source)
    rows = [{name: row[name] for name in FRAME} for row in records(source)]
    assert rows == pandas.DataFrame(FRAME).to_dict("records")
    assert len(told(found)) == (orient in ("index", "table")), "what stands around the rows is told"


def test_the_list_of_rows_in_an_object_is_found_and_the_rest_told(tmp_path: Path) -> None:
    rows = [{"question": "Q", "answer": "A"}, {"question": "R", "answer": "B"}]
    data = opened(written(tmp_path, "rows.json", json.dumps({"version": "1.1", "data": rows})))
    assert [row.prompt for row in data.train] == ["Q", "R"] and told(data)[0].endswith("left out: version.")
    one = {"id": 1, "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]}
    assert opened(written(tmp_path, "one.json", json.dumps(one, indent=1))).shape == "conversation"


def test_a_large_array_is_read_element_by_element_with_its_faults_in_place(tmp_path: Path) -> None:
    rows = [{"text": f"row {n} " + "word " * 40} for n in range(15_000)]
    text = json.dumps(rows, indent=1)
    assert len(text) > 3 * 2**20
    assert records(written(tmp_path, "rows.json", text)) == rows
    cut = text.rindex('"text"')
    broken = text[:cut] + "}" + text[cut:]
    with pytest.raises(json.JSONDecodeError) as theirs:
        json.loads(broken)
    with pytest.raises(DataError, match=f"line {theirs.value.lineno} column {theirs.value.colno}"):
        opened(written(tmp_path, "rows.json", broken))


# -- Parquet ----------------------------------------------------------------------------------------------------------
def parquet(folder: Path, table: Any, **more: Any) -> str:
    import pyarrow.parquet

    pyarrow.parquet.write_table(table, folder / "rows.parquet", **more)
    return str(folder / "rows.parquet")


def test_every_text_type_of_parquet_is_read_as_datasets_reads_it(tmp_path: Path) -> None:
    import pyarrow
    from datasets import load_dataset

    texts = [f"the mill {n % 3}" for n in range(100)]
    kinds = (pyarrow.string(), pyarrow.large_string(), pyarrow.string_view())
    columns = {str(kind): pyarrow.array(texts, kind) for kind in kinds}
    columns["dictionary"] = pyarrow.array(texts).dictionary_encode()
    source = parquet(tmp_path, pyarrow.table(columns), row_group_size=30)
    assert records(source) == [dict.fromkeys(columns, text) for text in texts]
    theirs = load_dataset("parquet", data_files=source, split="train", cache_dir=str(tmp_path / "cache"))
    assert [dict(row) for row in theirs] == records(source)


def test_numbers_dates_bytes_and_maps_of_parquet_become_texts_and_objects(tmp_path: Path) -> None:
    import pyarrow

    day, moment = datetime.date(2024, 5, 6), datetime.datetime(2024, 5, 6, 7, 8, 9)
    table = pyarrow.table(
        {
            "price": pyarrow.array([Decimal("8.50"), None]),
            "whole": pyarrow.array([Decimal("7"), Decimal("-3")]),
            "day": pyarrow.array([day, day]),
            "moment": pyarrow.array([moment, moment]),
            "bytes": pyarrow.array(["caf\u00e9".encode(), b"\xff"]),
            "map": pyarrow.array([[("a", 1)], [("b", 2)]], pyarrow.map_(pyarrow.string(), pyarrow.int64())),
            "inside": pyarrow.array([[{"cost": Decimal("1.5")}], []]),
            "parts": pyarrow.array([[{"type": "text", "text": "a"}], []]),
        }
    )
    first, second = records(parquet(tmp_path, table))
    assert first == {
        "price": "8.50",
        "whole": 7,
        "day": "2024-05-06",
        "moment": "2024-05-06 07:08:09",
        "bytes": "caf\u00e9",
        "map": {"a": 1},
        "inside": [{"cost": "1.5"}],
        "parts": [{"type": "text", "text": "a"}],
    }
    assert (second["price"], second["whole"], second["bytes"]) == (None, -3, b"\xff")
    data = opened(str(tmp_path / "rows.parquet"), columns={"text": "price"}, bad_rows="skip")
    assert next(iter(data.train)).text == "8.50" and "holds bytes" in told(data)[0]


def test_a_numbers_class_names_are_those_that_datasets_wrote_into_the_file(tmp_path: Path) -> None:
    from datasets import ClassLabel, Dataset, Features, Value

    features = Features({"text": Value("string"), "label": ClassLabel(names=["neg", "pos"])})
    rows = {"text": [f"the mill {n}" for n in range(10)], "label": [n % 2 for n in range(10)]}
    Dataset.from_dict(rows, features=features).to_parquet(str(tmp_path / "rows.parquet"))
    data = opened(str(tmp_path / "rows.parquet"), "sequence_classification")
    assert data.label_names == ("neg", "pos") and [row.label for row in data.train] == rows["label"]


def test_two_columns_of_one_name_are_refused_by_name(tmp_path: Path) -> None:
    import pyarrow

    table = pyarrow.Table.from_arrays([pyarrow.array(["a"]), pyarrow.array(["z"])], names=["text", "text"])
    with pytest.raises(DataError, match="two columns named 'text'"):
        opened(parquet(tmp_path, table))
    with pytest.raises(DataError, match=r"columns \(text\) and no rows"):
        opened(parquet(tmp_path, pyarrow.table({"text": pyarrow.array([], pyarrow.string())})))


def test_a_conversation_in_columns_is_read_as_one_in_rows(tmp_path: Path) -> None:
    import pyarrow

    columns, turns = {"from": ["human", "gpt"], "value": ["hi", "yo"]}, [("human", "hi"), ("gpt", "yo")]
    rows = [{"from": who, "value": said} for who, said in turns]
    as_rows = opened(written(tmp_path, "rows.jsonl", lines({"conversations": rows})))
    for source in (
        parquet(tmp_path, pyarrow.table({"conversations": [columns]})),
        written(tmp_path, "columns.jsonl", lines({"conversations": columns})),
    ):
        data = opened(source)
        assert data.shape == "conversation" and list(data.train) == list(as_rows.train)


def test_rows_of_very_unequal_size_are_all_read_in_their_order(tmp_path: Path) -> None:
    import pyarrow

    texts = [("x" * 300_000 if n % 50 == 7 else "y") + str(n) for n in range(500)]
    source = parquet(tmp_path, pyarrow.table({"text": texts}), row_group_size=170)
    assert [row["text"] for row in records(source)] == texts
    table = open_tables((Path(source),))
    some = [0, 6, 7, 8, 169, 170, 171, 499]
    assert [one.values["text"] for one in table.read(some) if isinstance(one, Record)] == [texts[n] for n in some]


def test_a_damaged_parquet_file_gives_rows_or_a_sentence(tmp_path: Path) -> None:
    import random

    import pyarrow

    table = pyarrow.table({"text": pyarrow.array(["the mill"] * 50).dictionary_encode(), "label": [1, 2] * 25})
    whole, draw, counts = Path(parquet(tmp_path, table)).read_bytes(), random.Random(0), {"read": 0, "refused": 0}
    for number in range(600):
        made = bytearray(whole)
        for place in draw.sample(range(4, len(made) - 4), draw.choice((1, 2, 8))):
            made[place] = draw.randrange(256)
        source = written(tmp_path, f"rows{number % 20}.parquet", bytes(made))
        try:
            counts["read"] += len(list(opened(source, bad_rows="skip").train)) > 0
        except DataError as error:
            assert len(str(error)) < 600
            counts["refused"] += 1
    assert counts["read"] > 50 and counts["refused"] > 50


# -- folders ----------------------------------------------------------------------------------------------------------
CARD = """---
configs:
- config_name: plain
  default: true
  data_files:
  - split: train
    path: data/train-*
  - split: test
    path: data/test-*
- config_name: other
  data_files: other/*.parquet
dataset_info:
- config_name: plain
  features:
  - name: text
    dtype: string
  - name: label
    dtype:
      class_label:
        names:
          '0': neg
          '1': pos
---
# Mills
"""


def clone(folder: Path) -> Path:
    import pyarrow
    import pyarrow.parquet

    parts = {
        "data/train-00000-of-00002": 6,
        "data/train-00001-of-00002": 4,
        "data/test-00000-of-00001": 3,
        "other/a": 2,
    }
    for name, count in parts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        rows = {"text": [f"{name} {n}" for n in range(count)], "label": [n % 2 for n in range(count)]}
        pyarrow.parquet.write_table(pyarrow.table(rows), folder / f"{name}.parquet")
    written(folder, ".git/config", "x")
    written(folder, ".gitattributes", "x")
    return folder


@pytest.mark.parametrize("card", [CARD, ""])
def test_a_clone_of_a_data_set_reads_as_datasets_reads_it(tmp_path: Path, card: str) -> None:
    from datasets import load_dataset

    folder = clone(tmp_path / "mills")
    if card:
        written(folder, "README.md", card)
    theirs = load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
    data = opened(str(folder), "sequence_classification")
    assert [row.text for row in data.train] == theirs["train"]["text"]
    assert [row.text for row in data.eval] == theirs["test"]["text"]
    assert data.label_names == (("neg", "pos") if card else ("0", "1"))
    (left,) = [one for one in data.notices if one.field == "data.split"]
    assert left.count == 1 and "other/a.parquet" in left.message
    if card:
        assert [row.text for row in opened(str(folder), subset="other", columns={"text": "text"}).train] == (
            load_dataset(str(folder), "other", split="train", cache_dir=str(tmp_path / "cache"))["text"]
        )
        with pytest.raises(DataError, match="no subset 'third'") as caught:
            opened(str(folder), subset="third")
        assert caught.value.problems[0].field == "data.subset"


def test_what_of_a_folder_is_not_used_is_told(tmp_path: Path) -> None:
    for name in ("train.jsonl", "eval.jsonl", "train-more.jsonl", "old/rows.jsonl"):
        written(tmp_path, f"set/{name}", lines({"text": name}))
    written(tmp_path, "set/LICENSE", "free")
    data = opened(str(tmp_path / "set"))
    assert [row.text for row in (*data.train, *data.eval)] == ["train.jsonl", "eval.jsonl"]
    assert told(data) == ["2 files of set are not used: train-more.jsonl, old/rows.jsonl."]


def test_a_folder_of_save_to_disk_is_refused_with_the_fix(tmp_path: Path) -> None:
    from datasets import Dataset

    Dataset.from_dict({"text": ["a", "b"]}).save_to_disk(str(tmp_path / "set"))
    with pytest.raises(DataError, match="save_to_disk.*to_parquet"):
        opened(str(tmp_path / "set"))


def test_column_names_that_are_read_otherwise_than_they_stand_there_are_told(tmp_path: Path) -> None:
    source = written(tmp_path, "rows.csv", "no,text ,\n" + "".join(f"{n},row {n} said,x\n" for n in range(8)))
    data = opened(source)
    assert data.columns == {"text": "text"}
    assert "1 column name is read without the blanks around it in rows.csv: 'text ' as 'text'." in told(data)
    assert "1 column has no name and is called so in rows.csv: column 3." in told(data)
    one = opened(written(tmp_path, "one.csv", " text\nthe mill\nthe river\n"))
    assert told(one) == ["1 column name is read without the blanks around it in one.csv: ' text' as 'text'."]
    assert told(opened(written(tmp_path, "plain.csv", "text\nthe mill\nthe river\n"))) == []


def test_what_may_not_be_looked_at_is_refused_in_words_and_stops_no_folder(tmp_path: Path) -> None:
    """A link to a name that no file can have stands for all that the system refuses to look at."""
    rows = written(tmp_path, "rows/train.jsonl", lines({"text": "the mill"}, {"text": "the river"}))
    folder, link = Path(rows).parent, tmp_path / "link"
    os.symlink("n" * 300, folder / "other")
    os.symlink("n" * 300, link)
    with pytest.raises(OSError):
        link.is_file()
    assert len(opened(str(folder)).train) == 2
    with pytest.raises(DataError, match="there is no file"):
        opened(str(link))
    for spec in (str(link), str(link / "model")):
        with pytest.raises(ModelError, match="cannot be read: File name too long; check who may read it"):
            resolve_model(spec)


def test_blank_lines_of_a_text_are_counted_and_those_of_tables_are_nobodys(tmp_path: Path) -> None:
    data = opened(written(tmp_path, "notes.txt", "the mill\n\nthe river\n \nthe bridge\n"), format="lines")
    assert len(data.train) == 3 and told(data) == ["2 blank lines of notes.txt are no rows and left out."]
    for text in ("the mill\nthe river\n", "the mill\nthe river"):
        assert told(opened(written(tmp_path, "plain.txt", text), format="lines")) == []
    assert told(opened(written(tmp_path, "rows.csv", "text,x\nthe mill,1\n\nthe river,2\n"))) == []


@pytest.mark.parametrize("nested", [False, True])
def test_an_object_with_a_key_twice_is_a_bad_row_in_lines_and_in_arrays(tmp_path: Path, nested: bool) -> None:
    plain = '{"role": "user", "content": "old"}, {"role": "assistant", "content": "mill"}'
    twice = plain.replace('"content": "old"', '"content": "red",\n "content": "old"')
    good, bad = (
        (f'{{"messages": [{one}]}}' for one in (plain, twice))
        if nested
        else (
            '{"text": "red bread"}',
            '{"text": "red bread",\n "text": "old mill"}',
        )
    )
    key = "content" if nested else "text"
    for name, content in {
        "a.jsonl": f"{good}\n" * 3 + bad.replace("\n", " ") + "\n",
        "a.json": "[" + ",\n".join([good] * 3 + [bad]) + "]",
    }.items():
        source = written(tmp_path, name, content)
        with pytest.raises(DataError, match=f"(line|row) 4 has the key '{key}' twice"):
            opened(source)
        assert len(opened(source, bad_rows="skip").train) == 3
    with pytest.raises(DataError, match=f"has the key '{key}' twice"):
        opened(written(tmp_path, "b.json", f'{{"data": [{good},\n{bad}]}}'))


def test_texts_with_commas_under_one_name_are_refused_and_not_cut(tmp_path: Path) -> None:
    content = "text\n" + "".join(f"mill {n}, and old\n" for n in range(30))
    with pytest.raises(DataError, match="names one column, 'text', and its rows have 2 cells, parted by commas"):
        opened(written(tmp_path, "a.csv", content))
    plain = opened(written(tmp_path, "a.txt", content))  # not called a table, so that any other delimiter will do
    assert [row.text for row in plain.train][:2] == ["mill 0, and old", "mill 1, and old"]
    titled = opened(written(tmp_path, "b.csv", "Source\ntext,label\n" + "a b,x\nc d,y\n" * 9))
    assert titled.columns == {"text": "text", "label": "label"} and len(titled.train) == 18


@pytest.mark.parametrize("rule", ["|---|---|", "| :--- | ---: |"])
def test_the_rule_of_a_markdown_table_is_no_row_and_is_told(tmp_path: Path, rule: str) -> None:
    rows = "".join(f'| mill {n} "old" | {n % 2} |\n' if n == 5 else f"| mill {n} | {n % 2} |\n" for n in range(24))
    for name, body in {"a.txt": rows, "b.txt": rows.replace('"', "")}.items():
        data = opened(written(tmp_path, name, f"| text | label |\n{rule}\n{body}"))
        assert len(data.train) == 24 and data.label_names == ("0", "1")
        assert [one.count for one in data.notices if "is a rule and no row" in one.message] == [1]
