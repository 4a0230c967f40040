"""Where a run's checkpoints and best weights are, and how far they are, without torch.

`checkpoints/step-N/` in a run's folder holds the state after N updates: `state.json`, the trainable weights and the
optimizer. `tuning.training.checkpoint` writes and reads them. This module finds them for whoever only needs to know
that one is there.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Literal, TypedDict

from safetensors import SafetensorError, safe_open

CHECKPOINTS = "checkpoints"
STATE, WEIGHTS, OPTIMIZER = "state.json", "weights.safetensors", "optimizer.safetensors"
BEST_FILE = "best.safetensors"
"""The trainable weights of the best evaluation so far, with its step and value as metadata."""
_NAME = re.compile(r"step-(\d{8})(\.old)?")
"""`.old` is a checkpoint that was being replaced when its process was killed."""


class RecoverySource(TypedDict):
    """The stored weights that the artifact of a run that was cut off is recovered from, and the update they are of."""

    kind: Literal["checkpoint", "best"]
    step: int


def checkpoint_folder(run_folder: Path, step: int) -> Path:
    """Where the checkpoint after this many updates is, or would be."""
    return run_folder / CHECKPOINTS / f"step-{step:08d}"


def checkpoint_step(folder: Path) -> int:
    """The number of updates before this checkpoint was written."""
    return int(folder.name[5:13])


def checkpoint_folders(run_folder: Path) -> list[Path]:
    """The checkpoints of a run, the newest first, whether they can be read or not."""
    folders = [path for path in (run_folder / CHECKPOINTS).glob("step-*") if _NAME.fullmatch(path.name)]
    return sorted(folders, key=lambda folder: (-checkpoint_step(folder), folder.name))


def newest_complete(run_folder: Path) -> Path | None:
    """The newest checkpoint that has all its files, none of them empty.

    Whether they are as they were written shows only when `tuning.training.checkpoint` reads them and their checksums: a
    damaged one counts here.
    """
    return next(filter(_has_all_files, checkpoint_folders(run_folder)), None)


def _has_all_files(folder: Path) -> bool:
    try:
        state = json.loads((folder / STATE).read_text("utf-8"))
        return isinstance(state, dict) and all((folder / name).stat().st_size for name in (WEIGHTS, OPTIMIZER))
    except (OSError, ValueError):
        return False


def best_weights(run_folder: Path) -> tuple[int, float] | None:
    """Step and value of the evaluation whose weights `BEST_FILE` has; None where there is no such file, or a damaged
    one."""
    try:
        with safe_open(run_folder / BEST_FILE, "np") as opened:
            metadata = opened.metadata() or {}
        return int(metadata["step"]), float(metadata["value"])
    except (OSError, SafetensorError, KeyError, ValueError):
        return None


def stored_weights(run_folder: Path) -> tuple[Path, RecoverySource] | None:
    """Where the weights are that an artifact can be recovered from, and which they are: the newest checkpoint, or where
    there is none the best weights. None where neither is there, or the best weights are those that the run began with.
    """
    newest = newest_complete(run_folder)
    if newest is not None:
        return newest, {"kind": "checkpoint", "step": checkpoint_step(newest)}
    best = best_weights(run_folder)
    if best is not None and best[0] > 0:
        return run_folder / BEST_FILE, {"kind": "best", "step": best[0]}
    return None


def recovery_words(source: RecoverySource) -> str:
    """Which weights these are, such as `update 10, its best evaluation`."""
    which = "its best evaluation" if source["kind"] == "best" else "its last checkpoint"
    return f"update {source['step']:,}, {which}"
