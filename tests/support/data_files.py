"""Files as people have them, with the result for each: its shape and rows, or the field and words of the refusal.

`GOOD` has (name, bytes, settings, shape, rows, first row), `BAD` (name, bytes, settings, field, words). Content decides
the format; what a name promises has to agree with it, unless the settings name the format.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import zipfile
from typing import Any

from tuning.data import DataSummary, open_data, summarize
from tuning.settings.schema import DataSettings
from tuning.text import TextTokenizer, Turn


def rows_summary(settings: DataSettings, folder: str, task: str, seed: int) -> DataSummary:
    """What the rows of these settings become by the tokenizer in a model's folder."""
    return summarize(open_data(settings, task, seed), TextTokenizer(folder), settings, task)


def lines(*rows: Any, end: str = "\n") -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + end for row in rows).encode()


def parquet(**columns: list[Any]) -> bytes:
    import pyarrow
    import pyarrow.parquet

    out = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), out)
    return out.getvalue()


def zstd(content: bytes) -> bytes:
    import pyarrow

    return bytes(pyarrow.compress(content, codec="zstd", asbytes=True))


def zipped(files: dict[str, bytes], locked: bool = False, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip archive; a locked one says that its members need a password, one of method 9 is called Deflate64."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED if method == 9 else method) as archive:
        for name, member in files.items():
            archive.writestr(name, member)
    content = bytearray(out.getvalue())
    if files:
        central = content.index(b"PK\x01\x02")
        content[central + 8] |= locked
        content[central + 10] = content[8] = method
    return bytes(content)


def greedy_zip() -> bytes:
    """An archive whose LZMA member says that it needs a dictionary of 256 MiB."""
    content = bytearray(zipped({"rows.jsonl": lines({"text": "a"})}, method=zipfile.ZIP_LZMA))
    offset = 30 + len("rows.jsonl") + 4 + 1
    content[offset : offset + 4] = (2**28).to_bytes(4, "little")
    return bytes(content)


GREEDY_XZ = lzma.compress(b'{"text": "a"}\n', filters=[{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 2**28}])
GREEDY_ZSTD = b"\x28\xb5\x2f\xfd\x00\x90" + b"\x71\0\0" + b'{"text": "aa"}'
"""A frame of 256 MiB window (RFC 8878 3.1.1.1.2: 18 << 3), with one raw block that is the last."""


TALK = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
SHARE = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello."}]
RATED = [{"text": f"meal {n}", "label": n % 3} for n in range(12)]
ALPACA = {"instruction": "Add", "input": "1 and 2", "output": "3"}
CSV = 'text,label\r\n"a, ""quoted"" word",good\r\n"two\nlines",bad\r\n'
LONG = "word " * 40_000
TWO = lines({"text": "a"}, {"text": "b"})
TEXT, LABEL, PAIR, TALKS = "text", "text + label", "prompt + completion", "conversation"
INSTRUCT = "instruction + input + output"

GOOD: list[tuple[str, bytes, dict[str, Any], str, int, dict[str, Any]]] = [
    ("plain.jsonl", lines({"text": "a"}, {"text": "b"}), {}, TEXT, 2, {"text": "a"}),
    ("jsonl-called.csv", lines({"text": "a"}, {"text": "b"}), {"format": "jsonl"}, TEXT, 2, {"text": "a"}),
    ("windows.jsonl", lines({"text": "a"}, {"text": "b"}, end="\r\n"), {}, TEXT, 2, {"text": "a"}),
    ("blank-lines.jsonl", b'\n{"text": "a"}\n\n\n{"text": "b"}', {}, TEXT, 2, {"text": "a"}),
    ("mark.jsonl", b"\xef\xbb\xbf" + lines({"text": "a"}), {}, TEXT, 1, {"text": "a"}),
    ("one-line.jsonl", b'{"text": "a"}', {}, TEXT, 1, {"text": "a"}),
    ("emoji.jsonl", lines({"text": "\U0001f600 caf\u00e9"}), {}, TEXT, 1, {"text": "\U0001f600 caf\u00e9"}),
    ("long.jsonl", lines({"text": LONG}), {}, TEXT, 1, {"text": LONG}),
    ("long-first.jsonl", lines({"text": LONG * 2}, {"text": "b"}), {}, TEXT, 2, {"text": LONG * 2}),
    ("utf16.jsonl", lines({"text": "caf\u00e9"}).decode().encode("utf-16"), {}, TEXT, 1, {"text": "caf\u00e9"}),
    ("utf16be.jsonl", b"\xfe\xff" + '{"text": "a"}\n'.encode("utf-16-be"), {}, TEXT, 1, {"text": "a"}),
    ("utf32.jsonl", '{"text": "a"}\n'.encode("utf-32"), {}, TEXT, 1, {"text": "a"}),
    ("latin.jsonl", '{"text": "caf\u00e9"}'.encode("latin-1"), {"encoding": "latin-1"}, TEXT, 1, {"text": "caf\u00e9"}),
    ("cp1252.csv", "text,label\na \u20ac,x\nb,y\n".encode("cp1252"), {"encoding": "cp1252"}, LABEL, 2, {}),
    ("mac.csv", b"text,label\ra,x\rb,y\r", {}, LABEL, 2, {}),
    ("pair.jsonl", lines({"prompt": "2+2?", "completion": "4"}), {}, PAIR, 1, {"prompt": "2+2?", "completion": "4"}),
    ("questions.jsonl", lines({"question": "Q", "answer": "A"}), {}, PAIR, 1, {"prompt": "Q", "completion": " A"}),
    ("Capitals.jsonl", lines({"Prompt": "Q", "Response": "A"}), {}, PAIR, 1, {"prompt": "Q", "completion": "A"}),
    ("alpaca.jsonl", lines(ALPACA), {}, INSTRUCT, 1, {"prompt": "Add\n\n1 and 2", "completion": " 3"}),
    ("alpaca-none.jsonl", lines(ALPACA | {"input": ""}), {}, INSTRUCT, 1, {"prompt": "Add"}),
    (
        "dolly.jsonl",
        lines({"instruction": "I", "context": "C", "response": "R", "category": "x"}),
        {},
        INSTRUCT,
        1,
        {"prompt": "I\n\nC"},
    ),
    ("instruction-output.jsonl", lines({"instruction": "I", "output": "O"}), {}, PAIR, 1, {"prompt": "I"}),
    (
        "talk.jsonl",
        lines({"messages": TALK}),
        {},
        TALKS,
        1,
        {"messages": (Turn("user", "Hi"), Turn("assistant", "Hello."))},
    ),
    (
        "share.json",
        json.dumps([{"conversations": SHARE}]).encode(),
        {},
        TALKS,
        1,
        {"messages": (Turn("user", "Hi"), Turn("assistant", "Hello."))},
    ),
    ("odd-name.jsonl", lines({"id": 1, "thread": TALK}), {}, TALKS, 1, {}),
    ("numbers.jsonl", lines(*RATED), {}, LABEL, 12, {"label": 0}),
    ("truths.jsonl", lines({"text": "a", "label": True}, {"text": "b", "label": False}), {}, LABEL, 2, {"label": 1}),
    ("sentences.tsv", b"sentence\tlabel\ngood one\t1\nbad one\t0\n", {}, LABEL, 2, {"label": 1}),
    ("quoted.csv", CSV.encode(), {}, LABEL, 2, {"prompt": 'a, "quoted" word\nLabel:'}),
    ("semicolons.csv", b"review;stars\na, b;1\nc;2\n", {}, LABEL, 2, {"prompt": "a, b\nLabel:"}),
    ("bars.txt", b"question|answer\nWho?|Me\nWhy?|So\n", {}, PAIR, 2, {"prompt": "Who?"}),
    ("inner-quote.csv", b'text,label\n5" pipe,x\nb,y\n', {}, LABEL, 2, {"prompt": '5" pipe\nLabel:'}),
    ("unnamed-index.csv", b",text,label\n0,a,x\n1,b,y\n", {}, LABEL, 2, {"prompt": "a\nLabel:"}),
    ("mark.csv", b"\xef\xbb\xbftext,label\na,x\nb,y\n", {}, LABEL, 2, {"prompt": "a\nLabel:"}),
    ("one-column.csv", b"text\nhello, you\nbye\n", {}, TEXT, 2, {"text": "hello, you"}),
    ("long-cell.csv", f"text,label\n{LONG},x\nb,y\n".encode(), {}, LABEL, 2, {"prompt": f"{LONG}\nLabel:"}),
    (
        "no-header.csv",
        b"1,good soup\n2,bad soup\n1,nice soup\n2,cold soup\n",
        {},
        LABEL,
        4,
        {"prompt": "good soup\nLabel:"},
    ),
    ("array.json", json.dumps([{"text": "a"}, {"text": "b"}]).encode(), {}, TEXT, 2, {"text": "a"}),
    ("pretty.json", json.dumps([{"text": "a"}, {"text": "b"}], indent=2).encode(), {}, TEXT, 2, {"text": "a"}),
    ("columns.json", b'{"text": ["a", "b"], "label": [0, 1]}', {}, LABEL, 2, {"label": 0}),
    ("pretty-columns.json", json.dumps({"text": ["a", "b"]}, indent=1).encode(), {}, TEXT, 2, {"text": "a"}),
    ("wrapped.json", b'{"data": [{"text": "a"}, {"text": "b"}]}', {}, TEXT, 2, {"text": "a"}),
    ("one-talk.jsonl", json.dumps({"messages": TALK}).encode(), {}, TALKS, 1, {}),
    ("utf16.json", json.dumps([{"text": "\u00e9"}]).encode("utf-16"), {}, TEXT, 1, {"text": "\u00e9"}),
    ("lines.txt", b"first row\nsecond row\nthird\n", {}, TEXT, 3, {"text": "first row"}),
    ("paragraphs.txt", b"one\ntwo\n\nthree\n\n\nfour", {}, TEXT, 3, {"text": "one\ntwo"}),
    ("windows.txt", b"one\r\ntwo\r\n\r\nthree\r\n", {}, TEXT, 2, {"text": "one\ntwo"}),
    ("as-lines.txt", b"one\n\ntwo\nthree\n", {"format": "lines"}, TEXT, 3, {"text": "one"}),
    ("prose.txt", b"Well, he said, no.\nYes.\nThen, later, they went, and came.\n", {}, TEXT, 3, {}),
    ("lyrics.txt", b"[Verse 1]\nla la\n[Chorus]\nlo lo\n", {}, TEXT, 4, {"text": "[Verse 1]"}),
    ("text.parquet", parquet(text=["a", "b"]), {}, TEXT, 2, {"text": "a"}),
    ("parquet-called.txt", parquet(text=["a", "b"], label=[1, 0]), {}, LABEL, 2, {"label": 1}),
    (
        "talk.parquet",
        parquet(messages=[TALK, TALK]),
        {},
        TALKS,
        2,
        {"messages": (Turn("user", "Hi"), Turn("assistant", "Hello."))},
    ),
    ("columns-said.jsonl", lines({"q": "Q", "a": "A"}), {"columns": {"prompt": "q", "completion": "a"}}, PAIR, 1, {}),
    (
        "template-said.jsonl",
        lines({"q": "Q", "a": 4}),
        {"columns": {"prompt": "Say {q}:", "completion": "{a}"}},
        PAIR,
        1,
        {"prompt": "Say Q:", "completion": "4"},
    ),
    (
        "template.jsonl",
        lines({"text": "a", "place": "Rome"}),
        {"text_template": "{text} ({place})"},
        TEXT,
        1,
        {"text": "a (Rome)"},
    ),
    ("skip.jsonl", b'{"text": "a"}\nnot json\n{"text": null}\n{"text": "b"}\n', {"bad_rows": "skip"}, TEXT, 2, {}),
    ("skip.csv", b"text,label\na,x\nb\nc,y\nd,x,extra\n", {"bad_rows": "skip"}, LABEL, 2, {}),
    ("rows.jsonl.gz", gzip.compress(TWO), {}, TEXT, 2, {"text": "a"}),
    ("in-parts.gz", gzip.compress(TWO) + gzip.compress(TWO) + b"\0" * 9, {}, TEXT, 4, {"text": "a"}),
    ("gz-called.csv", gzip.compress(CSV.encode()), {}, LABEL, 2, {"prompt": 'a, "quoted" word\nLabel:'}),
    ("array.json.gz", gzip.compress(json.dumps([{"text": "a"}, {"text": "b"}]).encode()), {}, TEXT, 2, {"text": "a"}),
    ("utf16.csv.bz2", bz2.compress("text,label\na,x\ncaf\u00e9,y\n".encode("utf-16")), {}, LABEL, 2, {}),
    ("rows.jsonl.xz", lzma.compress(TWO), {}, TEXT, 2, {"text": "a"}),
    ("rows.jsonl.zst", zstd(TWO), {}, TEXT, 2, {"text": "a"}),
    ("rows.zip", zipped({"rows.jsonl": TWO}), {}, TEXT, 2, {"text": "a"}),
    ("mac.zip", zipped({"set/rows.csv": CSV.encode(), "__MACOSX/._x": b"x", "README.md": b"# Rows"}), {}, LABEL, 2, {}),
    ("dot.zip", zipped({"./rows.jsonl": TWO}), {}, TEXT, 2, {"text": "a"}),
    ("slashes.zip", zipped({"a//rows.jsonl": TWO, "a//": b""}), {}, TEXT, 2, {"text": "a"}),
    ("up.zip", zipped({"../rows.jsonl": TWO}), {}, TEXT, 2, {"text": "a"}),
    ("root.zip", zipped({"/etc/rows.jsonl": TWO, "/etc/license.txt": b"free"}), {}, TEXT, 2, {"text": "a"}),
    ("plates.zip", zipped({"license plates.csv": CSV.encode()}), {}, LABEL, 2, {}),
    ("readme.zip", zipped({"README.md": b"one row\n"}), {"format": "lines"}, TEXT, 1, {"text": "one row"}),
    ("hidden.zip", zipped({".rows.jsonl": TWO}), {}, TEXT, 2, {"text": "a"}),
    ("lzma.zip", zipped({"rows.jsonl": TWO}, method=zipfile.ZIP_LZMA), {}, TEXT, 2, {"text": "a"}),
    ("best.jsonl.xz", lzma.compress(TWO, preset=9 | lzma.PRESET_EXTREME), {}, TEXT, 2, {"text": "a"}),
    ("in-parts.xz", lzma.compress(TWO) + b"\0" * 8 + lzma.compress(TWO) + b"\0" * 4, {}, TEXT, 4, {"text": "a"}),
    (
        "latin-lines.txt",
        b"good\ncaf\xe9\nfine\n",
        {"encoding": "utf-8", "bad_rows": "skip", "format": "lines"},
        TEXT,
        2,
        {"text": "good"},
    ),
]

BAD: list[tuple[str, bytes, dict[str, Any], str, str]] = [
    ("empty.jsonl", b"", {}, "data.source", "empty"),
    ("blank.jsonl", b" \n\n  \n", {}, "data.source", "no rows"),
    ("header-only.csv", b"text,label\n", {"format": "csv"}, "data.source", "no rows"),
    ("latin.jsonl", '{"text": "caf\u00e9"}'.encode("latin-1"), {}, "data.encoding", "latin-1"),
    ("latin-late.txt", b"ok\nfine\ncaf\xe9\n", {}, "data.encoding", "line 3"),
    ("utf16-unmarked.jsonl", '{"text": "a"}'.encode("utf-16-le"), {}, "data.encoding", "UTF-16"),
    ("cut-utf16.csv", "text,label\n".encode("utf-16") + b"\x00", {}, "data.encoding", "utf-16"),
    ("rows.jsonl.gz", b"\x1f\x8b\x08\x00rest", {}, "data.source", "damaged gzip"),
    ("cut.jsonl.gz", gzip.compress(TWO)[:-9], {}, "data.source", "damaged gzip"),
    ("cut.jsonl.zst", zstd(TWO * 99)[:-9], {}, "data.source", "damaged zstd"),
    ("wrong.jsonl.gz", gzip.compress(TWO)[:-8] + b"\0" * 8, {}, "data.source", "damaged gzip"),
    ("wrong.jsonl.xz", lzma.compress(TWO)[:30] + b"\0" * 30, {}, "data.source", "damaged xz"),
    ("wrong.jsonl.bz2", bz2.compress(TWO * 99)[:-12] + b"\0" * 12, {}, "data.source", "damaged bzip2"),
    ("half.zip", zipped({"rows.jsonl": TWO})[:-9], {}, "data.source", "damaged zip"),
    ("nothing.gz", gzip.compress(b""), {}, "data.source", "empty inside"),
    ("twice.gz", gzip.compress(gzip.compress(TWO)), {}, "data.source", "gzip again"),
    ("rows.parquet.gz", gzip.compress(parquet(text=["a"])), {}, "data.source", "compressed in itself"),
    ("rows.tar.gz", gzip.compress(b"rows.jsonl".ljust(257, b"\0") + b"ustar\x0000" + TWO), {}, "data.source", "tar"),
    ("two.zip", zipped({"a.csv": TWO, "b.csv": TWO}), {}, "data.source", "2 files .a.csv, b.csv."),
    ("none.zip", zipped({}), {}, "data.source", "is an empty zip archive"),
    ("folder.zip", zipped({"set/": b""}), {}, "data.source", "is an empty zip archive"),
    ("side.zip", zipped({"README.md": b"# Rows", "LICENSE": b"free"}), {}, "data.source", "2 files .README.md, LICEN"),
    ("license-too.zip", zipped({"license plates.csv": TWO, "a.csv": TWO}), {}, "data.source", "2 files"),
    ("odd.zip", zipped({"rows.jsonl": TWO}, method=9), {}, "data.source", "packed in a way that is not read here"),
    ("greedy.xz", GREEDY_XZ, {}, "data.source", "more than 128 MiB of memory"),
    ("greedy.zip", greedy_zip(), {}, "data.source", "more than 128 MiB of memory"),
    ("greedy.zst", GREEDY_ZSTD, {}, "data.source", "more than 128 MiB of memory"),
    ("cut.jsonl.xz", lzma.compress(TWO)[:-9], {}, "data.source", "damaged xz"),
    ("locked.zip", zipped({"rows.jsonl": TWO}, locked=True), {}, "data.source", "password"),
    ("book.xlsx", zipped({"[Content_Types].xml": b"<x/>"}), {}, "data.source", "CSV"),
    ("rows.pkl", b"\x80\x04\x95rest", {}, "data.source", "pickle"),
    ("paper.pdf", b"%PDF-1.7 rest", {}, "data.source", "PDF"),
    ("picture.png", b"\x89PNG\r\n", {}, "data.source", "picture"),
    ("broken.parquet", b"PAR1 and nothing else", {}, "data.source", "broken Parquet"),
    ("not.parquet", b"text\n", {"format": "parquet"}, "data.format", "not Parquet"),
    ("second.jsonl", b'{"text": "a"}\nnot json\n', {}, "data.source", "line 2 is not JSON"),
    ("list.jsonl", b'{"text": "a"}\n[1]\n', {}, "data.source", "not a JSON object"),
    ("array.json", b'[{"text": "a"}, {"text": ]', {}, "data.source", "column 26"),
    ("after.json", b'[{"text": "a"}] more', {}, "data.source", "follows"),
    ("unequal.json", b'{"text": ["a", "b"], "label": [1]}', {}, "data.source", "unequal"),
    ("short-row.csv", b"text,label\na,x\nb\nc,y\n", {}, "data.source", "line 3 has 1 cell"),
    ("open-quote.csv", b'text,label\na,x\n"b,y\nc,x\n', {}, "data.source", "never closed"),
    ("null.jsonl", lines({"text": "a"}, {"text": None}), {}, "data.source", "line 2"),
    ("no-answer.jsonl", lines({"prompt": "a", "completion": "b"}, {"prompt": "c"}), {}, "data.source", "missing"),
    ("half.jsonl", b'{"text": "a"}\n{"text": "\\ud800"}\n', {}, "data.source", "surrogate"),
    ("empty-talk.jsonl", lines({"messages": TALK}, {"messages": []}), {}, "data.source", "line 2"),
    ("odd-talk.jsonl", lines({"messages": TALK}, {"messages": [{"role": "user"}]}), {}, "data.source", "turn 1"),
    (
        "picture-talk.jsonl",
        lines({"messages": [{"role": "user", "content": [{"type": "image"}]}]}),
        {},
        "data.source",
        "content",
    ),
    ("nothing.jsonl", lines({"n": 1, "m": 2, "k": 3}), {}, "data.columns", "data.columns"),
    (
        "two-proses.jsonl",
        lines(*({"left": f"a long text {n}", "right": f"another text {n}"} for n in range(6))),
        {},
        "data.columns",
        "say which",
    ),
    (
        "one-class.jsonl",
        lines({"text": "a", "label": "x"}, {"text": "b", "label": "x"}),
        {},
        "data.label_names",
        "one value",
    ),
    (
        "many-classes.csv",
        ("text,label\n" + "".join(f"a,{n}\n" for n in range(1500))).encode(),
        {},
        "data.columns",
        "1000 different",
    ),
    ("strange-class.jsonl", lines(*RATED), {"label_names": ("0", "1")}, "data.label_names", "'2'"),
    ("no-column.jsonl", lines({"text": "a"}), {"columns": {"text": "body"}}, "data.columns", "cannot be column"),
    ("no-role.jsonl", lines({"text": "a"}), {"columns": {"body": "text"}}, "data.columns", "cannot be column"),
    ("no-field.jsonl", lines({"text": "a"}), {"text_template": "{body}"}, "data.text_template", "no column 'body'"),
    ("attribute.jsonl", lines({"text": "a"}), {"text_template": "{text.__class__}"}, "data.text_template", "no column"),
    ("spec.jsonl", lines({"text": "a"}), {"text_template": "{text:>999999999}"}, "data.text_template", "nothing else"),
    ("brace.jsonl", lines({"text": "a"}), {"text_template": "{text"}, "data.text_template", "cannot be read"),
    (
        "talk-template.jsonl",
        lines({"messages": TALK}),
        {"text_template": "{messages}"},
        "data.text_template",
        "chat template",
    ),
    ("split.jsonl", lines({"text": "a"}), {"split": "train"}, "data.split", "one file"),
    ("eval.jsonl", lines({"text": "a"}), {"eval_split": "nowhere"}, "data.eval_split", "nowhere"),
    ("all-bad.jsonl", b'{"text": 1}\nx\n{"text": []}\n', {"bad_rows": "stop"}, "data.source", "2 rows"),
]
