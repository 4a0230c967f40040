"""What a memory table belongs to.

Comes in: a plan.  Goes out: a `Subject`, which says everything that shapes the computation except sizes, with the key
its table is kept under.  Plain data; no torch.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tuning.families import DROPOUT_GROUPS, DROPOUTS, WITHOUT_SIZE
from tuning.memory.moments import rows_of
from tuning.methods import method_named
from tuning.plan import Plan

CATEGORIES = ("weights", "gradients", "optimizer", "activations", "logits", "workspace")
TRACED = 4
"""Raise it when the training code allocates differently: tables made before are then not used any more."""
LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes")


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
    padded = (rows_of(plan.data).padded or "prompted_length" in plan.derived) and not plan.packing
    config = config_of(plan.model.path)
    card = plan.device.kind == "cuda" and _differs_on_a_card(config, kept, plan.model.shape.family.positions)
    return Subject(config=config, settings=kept, labels=plan.labels, padded=padded, card=card)


def _differs_on_a_card(config: dict[str, Any], settings: dict[str, Any], learned_positions: bool) -> bool:
    """Whether a card may allocate otherwise: with dropout, or under autocast.

    Kinds with learned positions (GPT-2's and BERT's age) have dropout unless their config switches each off.
    """
    told = {name: config[name] for name in DROPOUTS if name in config}
    silent = learned_positions and not any(told.keys() >= {*names} for names in DROPOUT_GROUPS)
    drops = silent or any(told.values()) or bool(settings["method"].get("dropout"))
    return drops or settings["precision"] != "fp32"


def _plain(block: Any) -> dict[str, Any]:
    return block.model_dump(mode="json")


@lru_cache(maxsize=32)
def _config_at(file: Path, changed: int) -> dict[str, Any]:
    config = json.loads(file.read_text(encoding="utf-8"))
    return {name: value for name, value in config.items() if name not in WITHOUT_SIZE}


def config_of(folder: str) -> dict[str, Any]:
    """A model's config.json without what changes no size. Raises OSError or ValueError where it is gone."""
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
