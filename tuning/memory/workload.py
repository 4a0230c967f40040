"""The cache key of a memory table: everything that shapes a run's computation except sizes, as plain data."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from tuning.core.libraries import installed_version
from tuning.memory.peak_batches import row_sizes_of
from tuning.methods import method_named
from tuning.models.families import DROPOUT_GROUPS, DROPOUTS, WITHOUT_SIZE
from tuning.plan.plan import Plan

CATEGORIES = ("weights", "gradients", "optimizer", "activations", "logits", "workspace")
TABLE_VERSION = 4
"""The version of the tables, part of their key: raise it when the training code allocates differently."""
LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """All of a run that shapes its computation, without sizes.

    `config` is the model's config.json, `settings` a settings object in JSON form, without its data.
    """

    config: dict[str, Any]
    settings: dict[str, Any]
    class_count: int
    """Classes of the head to train; 0 for a language model."""
    padded: bool
    """Whether micro-batches of several rows need a mask."""
    packed: bool = False
    """Whether a micro-batch's rows are joined: its shape then has one row, as long as all of them."""
    on_cuda: bool = False
    """Whether the run is on a CUDA device, where that makes a difference to what is allocated."""

    @property
    def rank(self) -> int | None:
        """The rank of the method, where it has one: a size, and so not part of the key."""
        rank = self.settings["method"].get("r")
        return rank if isinstance(rank, int) else None

    @property
    def pads_evaluation(self) -> bool:
        """Whether an evaluation's batch can need padding: rows that are packed to train are not joined there."""
        return self.padded or self.packed

    @property
    def key(self) -> str:
        """The name of the table's file, equal for runs that differ in sizes alone.

        The tables in the user's cache are named so, and those in `assets/memory/tables.jsonl.gz`, which is shipped.
        """
        method = {name: value for name, value in self.settings["method"].items() if name != "r"}
        shaping = [
            TABLE_VERSION,
            [f"{name} {installed_version(name).partition('+')[0]}" for name in LIBRARIES],
            self.config,
            self.settings_for(None) | {"method": method},
            self.class_count,
            self.padded,
        ]
        if self.on_cuda:
            shaping.append("card")
        return sha256(json.dumps(shaping, sort_keys=True).encode()).hexdigest()[:20]

    def settings_for(self, rank: int | None) -> dict[str, Any]:
        """The whole settings object, with another rank of the method; None is the rank that it has."""
        method = self.settings["method"] | ({} if rank is None else {"r": rank})
        data = {"data": {"packing": True}} if self.packed else {}
        return self.settings | data | {"method": method}

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def workload_of(plan: Plan) -> Workload:
    """The workload of a plan. Raises OSError or ValueError where the model's config.json is gone."""
    settings, method = plan.settings, method_named(plan.settings.method.name)
    optimizer = settings.optimizer
    # the settings of a method without updates shape the prompts alone: one table serves them all
    method_settings = method.resolve_auto(settings.method, plan.device.kind) if method.updates else method.settings()
    shaping = {
        "task": settings.task,
        "precision": settings.precision,
        "attention": settings.attention,
        "device": "cpu",  # tracing computes nothing, and needs no card: `on_cuda` says where a card allocates otherwise
        "gradient_checkpointing": settings.gradient_checkpointing,
        "method": method_settings.model_dump(mode="json"),
        "optimizer": {
            "name": optimizer.name,
            # any momentum above 0, and any limit of the norm, allocates alike
            "momentum": 0.9 if optimizer.momentum else 0.0,
            "max_grad_norm": None if optimizer.max_grad_norm is None else 1.0,
        },
    }
    # the lengths of prompts that a method writes are not counted one by one, so they are taken to differ
    unequal = row_sizes_of(plan.data).padded or "prompted_length" in plan.derived
    config = config_of(plan.model.path)
    on_cuda = plan.device.kind == "cuda" and _differs_on_cuda(config, shaping, plan.model.shape.family.positions)
    return Workload(
        config=config,
        settings=shaping,
        class_count=plan.class_count,
        padded=unequal and not plan.packing,
        packed=plan.packing,
        on_cuda=on_cuda,
    )


def _differs_on_cuda(config: dict[str, Any], settings: dict[str, Any], learned_positions: bool) -> bool:
    """Whether a CUDA device may allocate otherwise than a processor: with dropout, or where anything but fp32 is
    computed.

    Model types with learned positions (GPT-2's and BERT's age) have dropout unless their config switches each off.
    """
    given = {name: config[name] for name in DROPOUTS if name in config}
    by_default = learned_positions and not any(given.keys() >= {*names} for names in DROPOUT_GROUPS)
    drops = by_default or any(given.values()) or bool(settings["method"].get("dropout"))
    return drops or settings["precision"] != "fp32"


@lru_cache(maxsize=32)
def _config_at(file: Path, changed: int) -> dict[str, Any]:
    """`config_of`, cached by the time of the file."""
    config = json.loads(file.read_text(encoding="utf-8"))
    return {name: value for name, value in config.items() if name not in WITHOUT_SIZE}


def config_of(folder: str) -> dict[str, Any]:
    """A model's config.json without what changes no size. Raises OSError or ValueError where it is gone."""
    file = Path(folder) / "config.json"
    return _config_at(file, file.stat().st_mtime_ns)
