"""Mutated files of rows: valid tables in every format and shape, and what goes wrong with them on their way.

A `Sample` has the name and bytes of a file, and what was done to it. The same seed always gives the same files.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

WORDS = ("the a red green dog cat likes sees big small house tree and good bad never always runs to from").split()  # noqa: SIM905
FORMATS = ("jsonl", "json", "csv", "tsv", "parquet", "lines", "paragraphs", "jsonl.gz")
ODD_VALUES: tuple[Any, ...] = (
    None,
    "",
    " ",
    "NaN",
    "nan",
    "null",
    "None",
    "N/A",
    "n/a",
    "NA",
    "#N/A",
    "-",
    float("nan"),
    float("inf"),
    0,
    -1,
    1.5,
    1e300,
    10**20,
    True,
    False,
    [],
    {},
    ["a", "b"],
    {"a": 1},
    "\n",
    "\t",
    "\r",
    "\x00",
    "\ufeff",
    "\ud800",
    "\u202e",
    "a" * 5_000,
    "=1+1",
    '"',
    "'",
    ",",
    ";",
    "|",
    "<s>",
    "</s>",
    "<|endoftext|>",
    "{",
    "{}",
    "{text}",
    "a,b\nc",
    "中文字",
    "ａ",
    "é",
    "🙂",
    "2026-11-28",
    "0012",
    "1e3",
    "1_000",
    "-0",
    "True",
)  # the last ones are numbers, dates and booleans only to who guesses


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A file as a person could have it."""

    name: str
    content: bytes
    format: str
    changes: str
    """What was done to it, in words, for the report."""
    delimiter: str
    """What stands between the cells of a CSV file."""


def sentence(draw: random.Random, most: int = 12) -> str:
    return " ".join(draw.choice(WORDS) for _ in range(draw.randint(1, most)))


def table(draw: random.Random) -> list[dict[str, Any]]:
    """Rows of one of the shapes that people have."""
    shape = draw.choice(("text", "label", "pair", "instruction", "talk", "share", "extra"))
    rows: list[dict[str, Any]] = []
    for i in range(draw.randint(4, 14)):
        text, answer, label = sentence(draw), sentence(draw, 4), ("good", "bad")[i % 2]
        turns = [("user", text), ("assistant", answer)]
        rows.append(
            {
                "text": {"text": text},
                "label": {"text": text, "label": label},
                "pair": {"prompt": text, "completion": answer},
                "instruction": {"instruction": text, "input": sentence(draw, 3), "output": answer},
                "talk": {"messages": [{"role": role, "content": message} for role, message in turns]},
                "share": {"conversations": [{"from": role, "value": message} for role, message in turns]},
                "extra": {"id": i, "text": text, "url": f"http://example.org/{i}", "label": label},
            }[shape]
        )
    return rows


# -- what happens to the values ---------------------------------------------------------------------------------------
def odd_value(rows: list[dict[str, Any]], draw: random.Random) -> str:
    row = draw.choice(rows)
    name, value = draw.choice(list(row)), draw.choice(ODD_VALUES)
    row[name] = value
    return f"{name} = {value!r:.40}"


def missing_column(rows: list[dict[str, Any]], draw: random.Random) -> str:
    row = draw.choice(rows)
    name = draw.choice(list(row))
    del row[name]
    if not row:
        row["other"] = "x"
    return f"one row without {name}"


def further_column(rows: list[dict[str, Any]], draw: random.Random) -> str:
    name = draw.choice(
        ("system", "history", "context", "weight", "tools", "score", "title", "source", "notes", "text2")
    )
    for row in rows:
        row[name] = draw.choice((sentence(draw), 1, None))
    return f"a further column {name}"


def other_name(rows: list[dict[str, Any]], draw: random.Random) -> str:
    old = draw.choice(list(rows[0]))
    new = draw.choice((old.upper(), f" {old}", f"{old} ", old.title(), "content", "question", "a b", "", "Unnamed: 0"))
    for row in rows:
        if old in row:
            row[new] = row.pop(old)
    return f"{old} renamed {new!r}"


def odd_turn(rows: list[dict[str, Any]], draw: random.Random) -> str:
    row = draw.choice(rows)
    turns = next((value for value in row.values() if isinstance(value, list) and value), None)
    if turns is None or not isinstance(turns[0], dict):
        return odd_value(rows, draw)
    turn = draw.choice(turns)
    key = draw.choice(list(turn))
    way = draw.choice(("drop", "value", "role", "weight", "parts", "further", "order"))
    if way == "drop":
        del turn[key]
    elif way == "value":
        turn[key] = draw.choice(ODD_VALUES)
    elif way == "role":
        turn["role" if "role" in turn else "from"] = draw.choice(("User", "GPT", "human", "tool", "narrator", "system"))
    elif way == "weight":
        turn[draw.choice(("weight", "train", "loss_weight"))] = draw.choice((0, 1, 0.5, False, True, None))
    elif way == "parts":
        turn["content"] = draw.choice(([{"type": "text", "text": "a dog"}], [{"type": "image"}], [], ["a"]))
    elif way == "further":
        turn[draw.choice(("name", "tool_calls", "reasoning_content", "id"))] = draw.choice(("x", [], None, [{"a": 1}]))
    else:
        turns.reverse()
    return f"a turn: {way}"


def same_row_again(rows: list[dict[str, Any]], draw: random.Random) -> str:
    rows.append(dict(draw.choice(rows)))
    return "a row twice"


VALUE_CHANGES: tuple[Callable[[list[dict[str, Any]], random.Random], str], ...] = (
    odd_value,
    odd_value,
    odd_value,
    missing_column,
    further_column,
    other_name,
    odd_turn,
    same_row_again,
)


# -- how it is written ------------------------------------------------------------------------------------------------
def written(rows: list[dict[str, Any]], form: str, delimiter: str, draw: random.Random) -> bytes:
    """The rows in a format. Raises ValueError or the like where the format cannot hold them."""
    if form.startswith("jsonl"):
        joined = "".join(json.dumps(row, ensure_ascii=draw.random() < 0.3) + "\n" for row in rows)
        content = joined.encode("utf-8", "surrogatepass")
        return gzip.compress(content, mtime=0) if form.endswith("gz") else content
    if form == "json":
        return json.dumps(rows, indent=draw.choice((None, 2))).encode("utf-8", "surrogatepass")
    names = list(dict.fromkeys(name for row in rows for name in row))
    if form in ("csv", "tsv"):
        out = io.StringIO()
        writer = csv.writer(out, delimiter=delimiter)
        writer.writerow(names)
        for row in rows:
            writer.writerow(["" if row.get(name) is None else as_cell(row[name]) for name in names])
        return out.getvalue().encode("utf-8", "surrogatepass")
    if form == "parquet":
        import pyarrow
        import pyarrow.parquet

        out_bytes = io.BytesIO()
        columns = {name: [row.get(name) for row in rows] for name in names}
        pyarrow.parquet.write_table(pyarrow.table(columns), out_bytes)
        return out_bytes.getvalue()
    texts = [str(next(iter(row.values()), "")).replace("\n", " ") for row in rows]
    return ("\n\n" if form == "paragraphs" else "\n").join(texts).encode("utf-8", "surrogatepass")


def as_cell(value: Any) -> str:
    return json.dumps(value) if isinstance(value, list | dict) else str(value)


# -- what happens to the bytes ----------------------------------------------------------------------------------------
def flipped(content: bytes, draw: random.Random) -> bytes:
    made = bytearray(content)
    for _ in range(draw.randint(1, 4)):
        made[draw.randrange(len(made))] = draw.randrange(256)
    return bytes(made)


def shortened(content: bytes, draw: random.Random) -> bytes:
    return content[: draw.randrange(len(content))]


def without_a_part(content: bytes, draw: random.Random) -> bytes:
    start = draw.randrange(len(content))
    return content[:start] + content[start + draw.randint(1, 40) :]


def with_a_part_twice(content: bytes, draw: random.Random) -> bytes:
    start = draw.randrange(len(content))
    return content[:start] + content[start : start + 60] + content[start:]


def with_other_line_ends(content: bytes, draw: random.Random) -> bytes:
    return content.replace(b"\n", draw.choice((b"\r\n", b"\r", b"\n\n", b"\n \n")))


def with_a_mark(content: bytes, draw: random.Random) -> bytes:
    return draw.choice((b"\xef\xbb\xbf", b"\xff\xfe", b"# a comment\n", b"sep=;\n", b"A title\n\n", b"\n\n")) + content


def in_another_encoding(content: bytes, draw: random.Random) -> bytes:
    return content.decode("utf-8").encode(draw.choice(("utf-16", "cp1252", "utf-32")))


def twice(content: bytes, draw: random.Random) -> bytes:
    return content + content


BYTE_CHANGES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    flipped,
    flipped,
    shortened,
    without_a_part,
    with_a_part_twice,
    with_other_line_ends,
    with_a_mark,
    in_another_encoding,
    twice,
)


def samples(form: str, count: int, seed: int) -> list[Sample]:
    """So many mutated files of a format."""
    draw, made = random.Random(f"{form} {seed}"), list[Sample]()
    while len(made) < count:
        rows = table(draw)
        changes = [draw.choice(VALUE_CHANGES)(rows, draw) for _ in range(draw.choice((0, 1, 1, 2)))]
        try:
            delimiter = "\t" if form == "tsv" else draw.choice((",", ",", ";"))
            content = written(rows, form, delimiter, draw)
            if not changes or draw.random() < 0.3:
                change = draw.choice(BYTE_CHANGES)
                content = change(content, draw)
                changes.append(change.__name__)
        except Exception:  # the format has no way to hold it, so nobody has such a file
            continue
        if content:
            ending = {"lines": "txt", "paragraphs": "txt"}.get(form, form)
            made.append(
                Sample(
                    name=f"rows.{ending}", content=content, format=form, changes="; ".join(changes), delimiter=delimiter
                )
            )
    return made
