"""Checkpoints: weights, optimizer, random generators, counts and evaluations, written and restored.

A checkpoint is a folder with safetensors and JSON, never pickle. The order of rows needs no state, for it follows from
the seed and the step. A checkpoint is on the disk before it has its name, and one that cannot be read is skipped for
the one before it.
"""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from tuning.core.errors import RunError
from tuning.core.files import new_file, new_folder
from tuning.training.build import Built, random_state, set_random_state
from tuning.training.checkpoint_files import (
    OPTIMIZER,
    STATE,
    WEIGHTS,
    checkpoint_folder,
    checkpoint_folders,
    checkpoint_step,
)
from tuning.training.loop import Progress

_HISTORY, _OPTIMIZER_COUNTS, _CHECKSUMS = "so_far", "optimizer_counts", "sums"
_RANDOM = "random."
_PROGRESS = ("step", "trained_tokens", "input_tokens", "examples")

FAULTS = (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError, RunError)
"""What reading a damaged checkpoint raises."""
LEAST_SECONDS = 30.0
"""The least time between two checkpoints that are written by time, where the settings name no interval."""
MOST_SHARE = 0.02
"""The share of its training time that a run may spend on checkpoints by time."""
SLOW_DISK = 100e6
"""Bytes a second that the first checkpoint is assumed to be written with, before one was measured."""


def trainable_weights(built: Built) -> dict[str, torch.Tensor]:
    """The parameters that are trained, by name; a tied weight is there once."""
    return {name: weight.detach() for name, weight in built.model.named_parameters() if weight.requires_grad}


def write_weights(built: Built, file: Path, metadata: dict[str, str] | None = None) -> None:
    """Write the trainable weights with some metadata; the file appears whole or not at all."""
    with new_file(file, sync=True) as part:
        save_file({name: weight.contiguous() for name, weight in trainable_weights(built).items()}, part, metadata)


def read_weights(built: Built, file: Path) -> None:
    """Load weights of `write_weights` into the model. Raises RunError where they are of another model."""
    _put_weights(built, _checked_weights(built, load_file(file), file.parent.name))


def _checked_weights(built: Built, saved: dict[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    """`saved`, where it has the names and shapes of the trainable weights. Raises RunError."""
    shapes = {key: weight.shape for key, weight in trainable_weights(built).items()}
    if {key: weight.shape for key, weight in saved.items()} != shapes:
        raise RunError(f"The checkpoint {name} belongs to another model or method.")
    return saved


def _put_weights(built: Built, saved: Mapping[str, torch.Tensor]) -> None:
    for name, weight in trainable_weights(built).items():
        weight.copy_(saved[name])


def write_checkpoint(
    built: Built, progress: Progress, fingerprint: str, run_folder: Path, keep: int, history: dict[str, Any]
) -> Path:
    """Write the state after an update and remove all but the newest `keep` checkpoints up to it; returns its folder.

    `history` is JSON: evaluations and clock. Checkpoints of later steps, written by an attempt whose newest could not
    be read, stay until this attempt comes there.
    """
    folder = checkpoint_folder(run_folder, progress.step)
    with new_folder(folder, sync=True) as part:
        write_weights(built, part / WEIGHTS)
        optimizer_state = dict(_flat(built.optimizer.state_dict()["state"]))
        tensors = {f"{_RANDOM}{name}": state for name, state in random_state(built.device).items()}
        save_file(tensors | _separate_tensors(optimizer_state), part / OPTIMIZER)
        state = {key: getattr(progress, key) for key in _PROGRESS} | {"fingerprint": fingerprint, _HISTORY: history}
        # some optimizers count their steps in plain numbers
        state[_OPTIMIZER_COUNTS] = {name: value for name, value in optimizer_state.items() if isinstance(value, int)}
        state[_CHECKSUMS] = {name: _checksum(part / name) for name in (WEIGHTS, OPTIMIZER)}
        (part / STATE).write_text(json.dumps(state), encoding="utf-8")
    up_to_here = [path for path in checkpoint_folders(run_folder) if checkpoint_step(path) <= progress.step]
    for path in up_to_here[keep:]:
        shutil.rmtree(path, ignore_errors=True)
    return folder


def state_bytes(built: Built) -> int:
    """Bytes that a checkpoint written now would have."""
    state = [*trainable_weights(built).values(), *dict(_flat(built.optimizer.state_dict()["state"])).values()]
    return sum(value.nbytes for value in state if isinstance(value, torch.Tensor))


class Interval:
    """When a checkpoint by time is due: after `seconds` of training, or for None as often as its cost allows.

    For None all checkpoints of this attempt together take at most `MOST_SHARE` of its training time, where the next one
    is expected to take as long as the last one.
    """

    def __init__(self, seconds: float | None, now: float) -> None:
        self._seconds, self._start, self._last = seconds, now, now
        self._spent = 0.0
        self._cost: float | None = None

    def due(self, now: float, size: Callable[[], int]) -> bool:
        """Whether to write one after `now` seconds of training; `size` returns the bytes that it would have."""
        waited = now - self._last
        if self._seconds is not None:
            return waited >= self._seconds
        if waited < LEAST_SECONDS:
            return False
        expected = size() / SLOW_DISK if self._cost is None else self._cost
        return self._spent + expected <= MOST_SHARE * (now - self._start)

    def record(self, now: float, cost: float) -> None:
        """A checkpoint was written, for whatever reason, or tried; it took `cost` seconds."""
        self._last, self._cost = now, cost
        self._spent += cost


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A checkpoint that was read whole and fits the model."""

    progress: Progress
    history: dict[str, Any] | None
    """Evaluations and clock; None in checkpoints of version 1."""
    weights: dict[str, torch.Tensor]
    optimizer: dict[str, torch.Tensor | int]
    random: dict[str, torch.Tensor]

    def restore_weights(self, built: Built) -> None:
        """Load its weights into the model."""
        _put_weights(built, self.weights)

    def restore(self, built: Built) -> None:
        """Load its weights, optimizer state and states of the random generators."""
        self.restore_weights(built)
        set_random_state(self.random, built.device)
        _restore_optimizer(built.optimizer, self.optimizer)


def newest_checkpoint(
    built: Built, run_folder: Path, fingerprint: str, on_damage: Callable[[str], None]
) -> Checkpoint | None:
    """The newest checkpoint of this very plan that can be read; `on_damage` gets a sentence for each that cannot."""
    for folder in checkpoint_folders(run_folder):
        try:
            checkpoint = _read(built, folder, fingerprint)
        except FAULTS as error:
            reason = str(error) if isinstance(error, RunError) else f"{type(error).__name__}: {error}"
            on_damage(f"The checkpoint of update {checkpoint_step(folder):,} cannot be read ({reason}).")
            continue
        if checkpoint is not None:
            return checkpoint
    return None


def _read(built: Built, folder: Path, fingerprint: str) -> Checkpoint | None:
    """All of a checkpoint, before anything of it is used; None where it is of another plan. Raises `FAULTS`."""
    state = json.loads((folder / STATE).read_text(encoding="utf-8"))
    if state["fingerprint"] != fingerprint:
        return None
    for name, expected in state.get(_CHECKSUMS, {}).items():
        if _checksum(folder / name) != expected:  # `newest_complete` looks at sizes alone
            raise RunError(f"{name} is not as it was written")
    tensors: dict[str, Any] = load_file(folder / OPTIMIZER)
    random = {key.removeprefix(_RANDOM): tensors.pop(key) for key in list(tensors) if key.startswith(_RANDOM)}
    if "cpu" not in random:
        raise RunError("it holds no state of the generators")
    return Checkpoint(
        progress=Progress(**{key: state[key] for key in _PROGRESS}),
        history=state.get(_HISTORY),
        weights=_checked_weights(built, load_file(folder / WEIGHTS), folder.name),
        optimizer=tensors | state[_OPTIMIZER_COUNTS],
        random=random,
    )


def _restore_optimizer(optimizer: torch.optim.Optimizer, values: Mapping[str, torch.Tensor | int]) -> None:
    states: dict[int, dict[str, Any]] = {}
    for key, value in values.items():
        parameter, *outer, name = key.split(".")
        nested = states.setdefault(int(parameter), {})
        for level in outer:
            nested = nested.setdefault(level, {})
        nested[name] = value
    optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})


def _flat(states: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Values of an optimizer's state by `parameter.name`, or a longer path where it nests them (bitsandbytes does)."""
    for key, value in states.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _separate_tensors(values: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The tensors among these values, each with memory of its own.

    bitsandbytes has one lookup table for the states of all weights, and safetensors takes no tensor twice.
    """
    tensors: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    for name, value in values.items():
        if isinstance(value, torch.Tensor):
            tensor = value.contiguous()
            memory = tensor.untyped_storage().data_ptr()
            tensors[name] = tensor.clone() if memory in seen and tensor.numel() else tensor
            seen.add(memory)
    return tensors


def _checksum(file: Path) -> int:
    """The CRC-32 of a file, so that a missing half or a flipped bit is noticed."""
    checksum = 0
    with open(file, "rb") as opened:
        while block := opened.read(1 << 20):
            checksum = zlib.crc32(block, checksum)
    return checksum
