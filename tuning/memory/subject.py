"""What a memory table belongs to, and where in it a run lies.

Comes in: a plan.  Goes out: a `Subject`, which says everything that shapes the computation except sizes, with the key
its table is kept under, and a `Shape`: rows, length, label tokens.  Plain data; no torch.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tuning.data import DataSummary
from tuning.methods import method_named
from tuning.models import DROPOUTS
from tuning.plan import Plan

CATEGORIES = ("weights", "gradients", "optimizer", "activations", "logits", "workspace")
TRACED = 4
"""Raise it when the training code allocates differently: tables made before are then not used any more."""
LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes")
DEPTHS = ("num_hidden_layers", "n_layer", "num_layers")
_IDLE = (
    "transformers_version",
    "dtype",
    "torch_dtype",
    "_name_or_path",
    "architectures",
    "initializer_range",
    "bos_token_id",
    "eos_token_id",
    "pretraining_tp",
    "auto_map",
    "id2label",
    "label2id",
)
"""Members of a config.json that change no size."""
_EACH_DROPOUT: tuple[set[str], ...] = (
    {"resid_pdrop", "embd_pdrop", "attn_pdrop"},
    {"hidden_dropout_prob", "attention_probs_dropout_prob"},
    {"dropout", "attention_dropout"},
)
"""The members that together speak of all dropout, by the families' ways of naming it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """One micro-batch: rows, tokens of the longest, label tokens in all, and whether some row is shorter."""

    rows: int
    length: int
    labels: int
    padded: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Everything but the sizes. `config` is the model's config.json; `settings` a settings object."""

    config: dict[str, Any]
    settings: dict[str, Any]
    labels: int
    padded: bool
    card: bool = False
    """Whether it is for a CUDA card, where that makes a difference."""

    @property
    def rank(self) -> int | None:
        """The rank of these settings, where the method has one: a size, and so not part of the key."""
        rank = self.settings["method"].get("r")
        return rank if isinstance(rank, int) else None

    @property
    def packed(self) -> bool:
        """Whether a micro-batch's rows are joined: its shape then has one row, as long as all of them."""
        return "data" in self.settings

    @property
    def pads_evaluation(self) -> bool:
        """Whether an evaluation's batch can need padding: where rows are packed to train, they are not joined there."""
        return self.padded or self.packed

    @property
    def key(self) -> str:
        """The name of the table: equal for runs that differ in sizes alone."""
        method = {name: value for name, value in self.settings["method"].items() if name != "r"}
        told = [TRACED, _versions(), self.config, self.settings | {"method": method}, self.labels, self.padded]
        told += ["card"] * self.card
        return sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:20]

    def settings_for(self, rank: int | None) -> dict[str, Any]:
        """The settings with another rank."""
        method = self.settings["method"] | ({} if rank is None else {"r": rank})
        return self.settings | {"method": method}

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def subject_of(plan: Plan) -> Subject:
    """The subject of a plan. Raises OSError or ValueError where the model's config.json is gone."""
    settings, method = plan.settings, method_named(plan.settings.method.name)
    optimizer = settings.optimizer
    # what a method without updates is told shapes the prompts alone: one table serves all of it
    block = method.on(settings.method, plan.device.kind) if method.updates else method.settings()
    kept = {
        "task": settings.task,
        "precision": settings.precision,
        "attention": settings.attention,
        "device": "cpu",
        "gradient_checkpointing": settings.gradient_checkpointing,
        "method": _plain(block),
        "optimizer": {
            "name": optimizer.name,
            "momentum": 0.9 if optimizer.momentum else 0.0,
            "max_grad_norm": None if optimizer.max_grad_norm is None else 1.0,
        },
    }
    if plan.packing:
        kept["data"] = {"packing": True}
    padded = (_facts(plan.data).padded or "prompted_length" in plan.derived) and not plan.packing
    config = _config(plan.model.path)
    card = plan.device.kind == "cuda" and _differs_on_a_card(config, kept, plan.model.shape.family.positions)
    return Subject(config=config, settings=kept, labels=plan.labels, padded=padded, card=card)


def _differs_on_a_card(config: dict[str, Any], settings: dict[str, Any], learned_positions: bool) -> bool:
    """Whether a card may allocate otherwise: with dropout, or under autocast.

    Kinds with learned positions (GPT-2's and BERT's age) have dropout unless their config switches each off.
    """
    told = {name: config[name] for name in DROPOUTS if name in config}
    silent = learned_positions and not any(names <= told.keys() for names in _EACH_DROPOUT)
    drops = silent or any(told.values()) or bool(settings["method"].get("dropout"))
    return drops or settings["precision"] != "fp32"


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """A micro-batch that can hold the peak, and whether gradients of an earlier one are alive then."""

    shape: Shape
    accumulate: bool


def moments_of(plan: Plan, rows: int | None = None, length: int | None = None) -> list[Moment]:
    """The widest micro-batches that this plan's data can give, or those of other sizes with the same share of labels.

    Sorted by length, an update's widest micro-batch is its first, when no gradients are alive yet; the second then has
    the rows that come after the longest. Packed rows are taken to be the longest of all data: what the draw can give.
    """
    settings, facts = plan.settings, _facts(plan.data)
    count = min(rows or settings.micro_batch_size, plan.data.train_rows)
    longest = length or int(plan.value("widest_length"))
    several = plan.value("effective_batch") > count and plan.data.train_rows > count
    share = longest / max(1, int(plan.value("widest_length")))
    packed, others = plan.packing, min(count, plan.data.train_rows - count)
    first = _joined(facts, 0, count, share) if packed else _shape(facts, count, longest, share)
    if not several or not settings.data.group_by_length:
        return [Moment(shape=first, accumulate=several)]
    second = max(2, round(share * facts.lengths[min(count, len(facts.lengths) - 1)]))
    later = _joined(facts, count, others, share) if packed else _shape(facts, others, min(longest, second), share)
    return [Moment(shape=first, accumulate=False), Moment(shape=later, accumulate=True)]


def passes_of(plan: Plan, rows: int | None = None, length: int | None = None) -> list[Shape]:
    """The batches that can be the widest of those that are only read: by an evaluation, and to keep a body's states.

    An evaluation takes its rows longest first, so a later batch counts only where it has more labels. Rows that a
    method without updates has written are as long as it makes them. Where not every held-out row was counted, they
    are taken to be like the training rows, which are drawn from the same file.
    """
    settings, data = plan.settings, plan.data
    found = []
    if method_named(settings.method.name).caches(settings.method):
        found.append(moments_of(plan, rows, length)[0].shape)
    if not data.eval_rows:
        return found
    count, widest = max(1, min(plan.evaluation_rows(rows), data.eval_rows)), longest_row(plan)
    longest = length or widest
    if "prompted_length" in plan.derived:
        labels = int(plan.value("prompted_labels"))
        return [Shape(rows=count, length=longest, labels=max(1, count * labels), padded=count > 1)]
    if not data.eval_lengths:
        return [*found, _shape(_facts(data), count, longest, longest / max(1, widest))]
    return found + [_of_length(one, longest, widest) for one in _facts(data).widest_batches(count)]


def _of_length(shape: Shape, longest: int, widest: int) -> Shape:
    """The batch where the longest training row has `longest` tokens for `widest`: cut there, or grown like that row."""
    length = min(shape.length, longest) if longest < widest else round(shape.length * longest / widest)
    if length == shape.length:
        return shape
    labels = round(shape.labels * length / shape.length)
    return replace(shape, length=length, labels=max(1, min(labels, shape.rows * (length - 1))))


def longest_row(plan: Plan) -> int:
    """Tokens of the longest row that the run reads: as a method without updates writes it, else of the data."""
    return int(plan.value("prompted_length" if "prompted_length" in plan.derived else "widest_length"))


def kept_features(plan: Plan, shape: Shape) -> int:
    """Bytes of the states that a run over a frozen body keeps of all rows, beyond those of one micro-batch."""
    if not method_named(plan.settings.method.name).caches(plan.settings.method):
        return 0
    here = shape.rows if plan.labels else shape.labels
    rows, each = plan.data.train_rows + plan.data.eval_rows, 1.0 if plan.labels else _facts(plan.data).mean_labels
    return max(0, round(rows * each - here)) * plan.model.shape.hidden_size * 4


@dataclass(frozen=True, slots=True, kw_only=True)
class _Facts:
    """Of the data: lengths and label tokens of the training rows, most first; both of each held-out row, longest
    first, where they were counted."""

    lengths: list[int]
    trained: list[int]
    held_out: list[tuple[int, int]]
    mean_labels: float
    """Of all rows that were counted."""
    batches: dict[int, list[Shape]] = field(default_factory=dict)
    """Of the held-out rows, by how many are taken at once."""

    @property
    def padded(self) -> bool:
        """Whether a micro-batch can need padding."""
        return self.lengths[0] != self.lengths[-1]

    def widest_batches(self, rows: int) -> list[Shape]:
        """The first batch of held-out rows, and each later one that has more labels than all before it."""
        if rows not in self.batches:
            found, most = [], 0
            for start in range(0, len(self.held_out), rows):
                part = self.held_out[start : start + rows]
                labels, longest = sum(labels for _, labels in part), part[0][0]
                if labels > most:
                    most, padded = labels, part[-1][0] != longest
                    found.append(Shape(rows=len(part), length=longest, labels=labels, padded=padded))
            self.batches[rows] = found
        return self.batches[rows]


def _shape(facts: _Facts, rows: int, length: int, share: float) -> Shape:
    labels = round(sum(facts.trained[:rows]) * share)
    most = max(1, rows * (length - 1))
    return Shape(rows=rows, length=length, labels=max(1, min(labels, most)), padded=facts.padded and rows > 1)


def _joined(facts: _Facts, start: int, rows: int, share: float) -> Shape:
    """Packed rows, as one: so many from this place on, the longest first."""
    length = max(2, round(sum(facts.lengths[start : start + rows]) * share))
    labels = round(sum(facts.trained[start : start + rows]) * share)
    return Shape(rows=1, length=length, labels=max(1, min(labels, length - 1)), padded=False)


_LAST: list[tuple[DataSummary, _Facts]] = []


def _facts(data: DataSummary) -> _Facts:
    """Kept for the last data looked at, told apart as objects: sorting many rows is slower than the estimate."""
    for last, facts in list(_LAST):
        if last is data or (last.lengths is data.lengths and last.eval_lengths is data.eval_lengths):
            return facts
    known = data.trained_tokens + data.eval_trained_tokens
    found = _Facts(
        lengths=sorted(data.lengths, reverse=True) or [1],
        trained=sorted(data.trained_tokens, reverse=True) or [1],
        held_out=sorted(zip(data.eval_lengths, data.eval_trained_tokens, strict=True), key=lambda row: -row[0]),
        mean_labels=sum(known) / max(1, len(known)),
    )
    _LAST[:] = [(data, found)]
    return found


def _plain(block: Any) -> dict[str, Any]:
    return json.loads(json.dumps(asdict(block)))


@lru_cache(maxsize=32)
def _config_at(file: Path, changed: int) -> dict[str, Any]:
    config = json.loads(file.read_text(encoding="utf-8"))
    return {name: value for name, value in config.items() if name not in _IDLE}


def _config(folder: str) -> dict[str, Any]:
    file = Path(folder) / "config.json"
    return _config_at(file, file.stat().st_mtime_ns)


@lru_cache(maxsize=1)
def _versions() -> list[str]:
    found = []
    for name in LIBRARIES:
        try:
            found.append(f"{name} {version(name).partition('+')[0]}")
        except PackageNotFoundError:
            found.append(f"{name} none")
    return found
