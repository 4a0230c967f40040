"""Rows to train on: the bundled data sets and local JSONL files.

Comes in: `DataSettings` with a source.  Goes out: a `DataSet` of typed rows split into training and evaluation, and a
`DataSummary` of what a tokenizer makes of them: lengths, counted labels, what is cut.  No torch.
"""

from __future__ import annotations

import json
import random
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from tuning.assets import assets_folder
from tuning.errors import DataError
from tuning.settings import DataSettings
from tuning.text import Encoded, Row, TextTokenizer, encode_row

MAX_FILE_BYTES = 256 * 2**20
"""The largest file read whole; larger ones are refused rather than half read."""

ROLES = ("text", "prompt", "completion", "messages", "label")


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSet:
    """Rows with their names; `label_names` is set where rows carry classes."""

    name: str
    title: str
    source: str
    shape: str
    columns: dict[str, str]
    label_names: tuple[str, ...] | None
    train: list[Row]
    eval: list[Row]
    fingerprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSummary:
    """What the chosen rows become as tokens; lengths in tokens, after cutting."""

    name: str
    title: str
    shape: str
    label_names: tuple[str, ...] | None
    train_rows: int
    eval_rows: int
    lengths: tuple[int, ...]
    trained_tokens: tuple[int, ...]
    cut_rows: int
    dropped_rows: int
    fingerprint: str

    @property
    def longest(self) -> int:
        return max(self.lengths, default=0)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_dict(plain: dict[str, Any]) -> DataSummary:
        names = plain["label_names"]
        tuples = {"lengths": tuple(plain["lengths"]), "trained_tokens": tuple(plain["trained_tokens"])}
        return DataSummary(**(plain | tuples | {"label_names": tuple(names) if names is not None else None}))


def data_catalogue() -> list[dict[str, Any]]:
    """The cards of the bundled data sets, by name."""
    cards = sorted(assets_folder().glob("data/*/card.json"))
    return [json.loads(card.read_text(encoding="utf-8")) for card in cards]


def bundled_folder(source: str) -> Path | None:
    """The folder of a bundled data set, with what lies beside its rows; None for anything else."""
    folder = assets_folder() / "data" / source.removeprefix("bundled:")
    return folder if "/" not in source and (folder / "card.json").is_file() else None


def open_data(settings: DataSettings, task: str, seed: int) -> DataSet:
    """The rows of a bundled set or a local file, split. Raises DataError naming the line or the column and the fix."""
    source, colon, rest = settings.source.partition(":")
    name = rest if colon and source in ("bundled", "path") else settings.source
    bundled = {card["name"]: card for card in data_catalogue()}
    for field in ("subset", "revision"):
        if getattr(settings, field) is not None:
            raise DataError(
                f"{field} is for hub data; leave it empty", getattr(settings, field), "null", field=f"data.{field}"
            )
    if source != "path" and name in bundled:
        card, folder = bundled[name], assets_folder() / "data" / name
        train, evaluation = _read_lines(folder / "train.jsonl"), _read_lines(folder / "eval.jsonl")
        origin = "bundled"
    elif source == "path" or name.startswith(("/", "./", "../", "~")):
        file = Path(name).expanduser()
        card, train, evaluation, origin = {"name": file.stem, "title": file.name}, _read_lines(file), None, "path"
    else:
        known = ", ".join(bundled) or "none"
        message = f"no data set {settings.source!r} here; bundled: {known}; or give a file's path such as ./rows.jsonl"
        raise DataError(message, settings.source, "a bundled name or a file's path")
    return _typed(card, origin, train, evaluation, settings, task, seed)


def _read_lines(file: Path) -> list[dict[str, Any]]:
    if not file.is_file():
        raise DataError(f"there is no file {str(file)!r}; check the path", str(file), "an existing JSONL file")
    size = file.stat().st_size
    if size > MAX_FILE_BYTES:
        message = f"{file.name} has {size / 2**20:.0f} MiB; files up to {MAX_FILE_BYTES >> 20} MiB are read"
        raise DataError(message, size, f"{MAX_FILE_BYTES} bytes")
    return list(_parsed(str(file), size, file.stat().st_mtime_ns))


@lru_cache(maxsize=8)
def _parsed(file: str, size: int, changed: int) -> tuple[dict[str, Any], ...]:
    """Parsed once for each version of a file: the form asks again with every moved control."""
    rows = []
    try:
        with open(file, encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except ValueError:
                    raise DataError(f"line {number} of {Path(file).name} is not JSON: {line.strip()[:60]!r}") from None
                if not isinstance(row, dict):
                    raise DataError(f"line {number} of {Path(file).name} is not a JSON object: {line.strip()[:60]!r}")
                rows.append(row)
    except UnicodeDecodeError:
        raise DataError(f"{Path(file).name} is not UTF-8 text; save it as UTF-8") from None
    if not rows:
        raise DataError(f"{Path(file).name} has no rows; give at least one JSON object a line")
    return tuple(rows)


def _columns(rows: Sequence[dict[str, Any]], card: dict[str, Any], chosen: dict[str, str]) -> dict[str, str]:
    """Role -> column: the person's choice, else the card's, else by name."""
    present = set(rows[0])
    for role, column in chosen.items():
        if role not in ROLES or column not in present:
            limit = f"one of {', '.join(ROLES)} with a column of {', '.join(sorted(present))}"
            raise DataError(
                f"data.columns: {role!r} cannot be column {column!r}; use {limit}", chosen, limit, "data.columns"
            )
    columns = chosen or dict(card.get("columns") or {}) or {role: role for role in ROLES if role in present}
    if not ({"messages", "text"} & set(columns) or {"prompt", "completion"} <= set(columns)):
        message = (
            f"no column to learn from among {', '.join(sorted(present))}: needs text, or prompt and completion, or "
            'messages; say which with data.columns, for example {"text": "body"}'
        )
        raise DataError(message, sorted(present), "text | prompt + completion | messages", "data.columns")
    return columns


def _typed(
    card: dict[str, Any], origin: str, train: list[dict[str, Any]], evaluation: list[dict[str, Any]] | None,
    settings: DataSettings, task: str, seed: int,
) -> DataSet:  # fmt: skip
    columns = _columns(train, card, settings.columns)
    label_names = _label_names(train, columns, card, settings)
    if task == "sequence_classification" and (label_names is None or "text" not in columns):
        message = "classification needs rows with a text and a label column; choose task causal_lm or other data"
        raise DataError(message, sorted(train[0]), "text + label", "task")
    template = settings.text_template or card.get("prompt_template")
    answer = card.get("completion_template") or " {label}"
    if settings.text_template is not None:
        _check_template(settings.text_template, set(train[0]))
    rows = [_row(line, columns, label_names, template, answer, task, n) for n, line in enumerate(train, 1)]
    held = [_row(line, columns, label_names, template, answer, task, n) for n, line in enumerate(evaluation or [], 1)]
    if evaluation is None:
        rows, held = _split(rows, settings.eval_fraction, seed)
    rows, held = rows[: settings.train_rows], held[: settings.eval_rows]
    digest = sha256(repr((rows, held)).encode()).hexdigest()[:16]
    shape = "messages" if "messages" in columns else "prompt + completion" if "prompt" in columns else "text"
    return DataSet(
        name=card["name"], title=card.get("title", card["name"]), source=origin,
        shape="text + label" if label_names else shape, columns=columns, label_names=label_names, train=rows, eval=held,
        fingerprint=digest,
    )  # fmt: skip


def _label_names(
    rows: list[dict[str, Any]], columns: dict[str, str], card: dict[str, Any], settings: DataSettings
) -> tuple[str, ...] | None:
    if not {"label", "text"} <= set(columns):
        return None  # a label beside a prompt and its completion is not what is learned
    given = settings.label_names or card.get("label_names")
    found = Counter(str(row.get(columns["label"])) for row in rows)
    names = tuple(given) if given else tuple(sorted(found))
    strange = [label for label in found if label not in names]
    if strange:
        message = f"label {strange[0]!r} is not among data.label_names {', '.join(names)}; add it there"
        raise DataError(message, strange[0], ", ".join(names), "data.label_names")
    if len(names) < 2:
        message = f"the label column has one value only, {names[0]!r}; a class needs something to differ from"
        raise DataError(message, list(names), "two labels or more", "data.label_names")
    return names


def _check_template(template: str, present: set[str]) -> None:
    try:
        asked = {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}
    except ValueError as error:
        raise DataError(
            f"data.text_template cannot be read: {error}", template, "{column}", "data.text_template"
        ) from None
    if not asked or asked - present:
        limit = ", ".join("{" + name + "}" for name in sorted(present))
        message = f"data.text_template needs placeholders of existing columns: {limit}"
        raise DataError(message, template, limit, "data.text_template")


def _row(
    line: dict[str, Any], columns: dict[str, str], labels: tuple[str, ...] | None, template: str | None, answer: str,
    task: str, number: int,
) -> Row:  # fmt: skip
    def value(role: str) -> str:
        found = line.get(columns[role])
        if not isinstance(found, str | int | float):
            raise DataError(f"row {number}: column {columns[role]!r} is missing or not text", found, "text in each row")
        return str(found)

    if "messages" in columns:
        turns = line.get(columns["messages"])
        good = (
            isinstance(turns, list)
            and turns
            and all(isinstance(t, dict) and {"role", "content"} <= set(t) for t in turns)
        )
        if not good:
            raise DataError(f"row {number}: messages needs a list of role and content", number, "role + content")
        return Row(messages=tuple((str(turn["role"]), str(turn["content"])) for turn in turns or []))
    if labels is not None:
        label = labels.index(value("label"))
        if task == "sequence_classification":
            return Row(text=value("text"), label=label)
        prompt = template.format_map(line) if template else f"{value('text')}\nLabel:"
        return Row(prompt=prompt, completion=answer.format(label=labels[label]), label=label)
    if {"prompt", "completion"} <= set(columns):
        prompt, completion = value("prompt"), value("completion")
        if completion and not completion[0].isspace() and prompt and not prompt[-1].isspace():
            completion = " " + completion  # words start with their space in byte-level vocabularies
        return Row(prompt=prompt, completion=completion)
    return Row(text=value("text"))


def _split(rows: list[Row], fraction: float, seed: int) -> tuple[list[Row], list[Row]]:
    """Hold out a share by the seed, label by label; both sides keep the rows' order."""
    groups: dict[int | None, list[int]] = {}
    for index, row in enumerate(rows):
        groups.setdefault(row.label, []).append(index)
    draw, held = random.Random(seed), set()
    for label in sorted(groups, key=lambda one: -1 if one is None else one):
        group = groups[label]
        held |= set(draw.sample(group, min(len(group) - 1, round(len(group) * fraction))))
    return [row for i, row in enumerate(rows) if i not in held], [row for i, row in enumerate(rows) if i in held]


def encode_set(rows: list[Row], tokenizer: TextTokenizer, settings: DataSettings, task: str) -> list[Encoded]:
    """The rows as tokens; rows with nothing to learn from (an empty answer) are left out."""
    loss_on = settings.loss_on
    encoded = [
        encode_row(row, tokenizer, max_seq_length=settings.max_seq_length, loss_on=loss_on, task=task,
                   system_prompt=settings.system_prompt)
        for row in rows
    ]  # fmt: skip
    return [one for one in encoded if one.label is not None or one.trained_tokens]


@lru_cache(maxsize=16)
def _summary(model_path: str, key: str, task: str, seed: int, version: int) -> DataSummary:
    plain = json.loads(key)
    names = plain["label_names"]
    settings = DataSettings(**(plain | {"label_names": tuple(names) if names is not None else None}))
    data = open_data(settings, task, seed)
    tokenizer = TextTokenizer(model_path)
    train, held = (encode_set(rows, tokenizer, settings, task) for rows in (data.train, data.eval))
    if not train:
        message = "no row has anything to learn from within max_seq_length; raise it, or check the answers"
        raise DataError(message, settings.max_seq_length, "at least one row", "data.max_seq_length")
    return DataSummary(
        name=data.name, title=data.title, shape=data.shape, label_names=data.label_names, train_rows=len(train),
        eval_rows=len(held), lengths=tuple(len(one.ids) for one in train),
        trained_tokens=tuple(1 if one.label is not None else one.trained_tokens for one in train),
        cut_rows=sum(one.cut for one in train), dropped_rows=len(data.train) - len(train), fingerprint=data.fingerprint,
    )  # fmt: skip


def summarize(settings: DataSettings, model_path: str, task: str, seed: int) -> DataSummary:
    """Open, tokenize and count the rows; kept for the settings last asked for. Raises DataError."""
    file = Path(settings.source.removeprefix("path:")).expanduser()
    version = file.stat().st_mtime_ns if file.is_file() else 0  # a changed file is counted anew
    return _summary(model_path, json.dumps(asdict(settings)), task, seed, version)
