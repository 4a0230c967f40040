"""What a run needs to go on where it was: weights, optimizer, generators, counts, evaluations.

Comes in: a built model and the progress.  Goes out: `checkpoints/step-N/` with safetensors and JSON (never pickle),
and the way back.  The order of rows needs no state: it follows from the seed and the step.  A checkpoint is on the disk
before it has its name, and one that cannot be read is passed over for the one before it.
"""

from __future__ import annotations

import json
import re
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from tuning.core.errors import RunError
from tuning.core.files import new_file, new_folder
from tuning.training.build import Built, random_state, set_random_state
from tuning.training.loop import Progress

STATE, WEIGHTS, OPTIMIZER = "state.json", "weights.safetensors", "optimizer.safetensors"
_SO_FAR, _COUNTS, _SUMS = "so_far", "optimizer_counts", "sums"
_RANDOM = "random."
_COUNTED = ("step", "trained_tokens", "input_tokens", "examples")
_NAME = re.compile(r"step-(\d{8})(\.old)?")

FAULTS = (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError, RunError)
"""What a checkpoint raises that is not as it was written."""
LEAST_SECONDS = 30.0
"""Between two checkpoints that are written by time, where the settings name no interval."""
MOST_SHARE = 0.02
"""Of the time that a run has trained, what its checkpoints by time may take."""
SLOW_DISK = 100e6
"""Bytes a second: what the first checkpoint is taken to cost, before one has been measured."""


def trainable_weights(built: Built) -> dict[str, torch.Tensor]:
    """What training moves, by name; a tied weight stands once."""
    return {name: weight.detach() for name, weight in built.model.named_parameters() if weight.requires_grad}


def write_weights(built: Built, file: Path, about: dict[str, str] | None = None) -> None:
    """Write the trainable weights and what is to be known of them; the file appears whole or not at all."""
    with new_file(file, sync=True) as part:
        save_file({name: weight.contiguous() for name, weight in trainable_weights(built).items()}, part, about)


def weights_about(file: Path) -> dict[str, str]:
    """What was written beside the weights of such a file; empty where there is no file, or none that can be read."""
    if not file.is_file():
        return {}
    try:
        with safe_open(file, "pt") as opened:
            return opened.metadata() or {}
    except (OSError, SafetensorError):
        return {}


def read_weights(built: Built, file: Path) -> None:
    """Put the weights of such a file into the model."""
    _put_weights(built, _fitting(built, load_file(file), file.parent.name))


def _fitting(built: Built, saved: dict[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    own = trainable_weights(built)
    if {key: one.shape for key, one in saved.items()} != {key: one.shape for key, one in own.items()}:
        raise RunError(f"The checkpoint {name} belongs to another model or method.")
    return saved


def _put_weights(built: Built, saved: Mapping[str, torch.Tensor]) -> None:
    for name, weight in trainable_weights(built).items():
        weight.copy_(saved[name])


def write_checkpoint(
    built: Built, progress: Progress, fingerprint: str, folder: Path, keep: int, so_far: dict[str, Any]
) -> Path:
    """Write the state after an update and drop all but the newest `keep` up to it. `so_far` is JSON: evaluations and
    clock.

    Those of later steps, of an attempt whose newest could not be read, stay until this one comes there.
    """
    place = folder / "checkpoints" / f"step-{progress.step:08d}"
    with new_folder(place, sync=True) as part:
        write_weights(built, part / WEIGHTS)
        kept = dict(_flat(built.optimizer.state_dict()["state"]))
        tensors = {f"{_RANDOM}{name}": state for name, state in random_state(built.device).items()}
        save_file(tensors | _apart(kept), part / OPTIMIZER)
        state = {key: getattr(progress, key) for key in _COUNTED} | {"fingerprint": fingerprint, _SO_FAR: so_far}
        # some optimizers count their steps in plain numbers
        state[_COUNTS] = {name: value for name, value in kept.items() if isinstance(value, int)}
        state[_SUMS] = {name: _sum(part / name) for name in (WEIGHTS, OPTIMIZER)}
        (part / STATE).write_text(json.dumps(state), encoding="utf-8")
    behind = [one for one in checkpoint_places(folder) if _step(one) <= progress.step]
    for one in behind[keep:]:
        shutil.rmtree(one, ignore_errors=True)
    return place


def state_bytes(built: Built) -> int:
    """What a checkpoint of now would hold."""
    held = [*trainable_weights(built).values(), *dict(_flat(built.optimizer.state_dict()["state"])).values()]
    return sum(one.nbytes for one in held if isinstance(one, torch.Tensor))


class Interval:
    """When a checkpoint by time is due: after `seconds` of training, or None for as often as its cost allows.

    Then all of this attempt together take at most `MOST_SHARE` of the time it has trained, the next one counted as long
    as the last one took.
    """

    def __init__(self, seconds: float | None, now: float) -> None:
        self._seconds, self._begun, self._last = seconds, now, now
        self._spent = 0.0
        self._cost: float | None = None

    def due(self, now: float, size: Callable[[], int]) -> bool:
        """Whether to write one; `size` tells how many bytes it would have."""
        waited = now - self._last
        if self._seconds is not None:
            return waited >= self._seconds
        if waited < LEAST_SECONDS:
            return False
        expected = size() / SLOW_DISK if self._cost is None else self._cost
        return self._spent + expected <= MOST_SHARE * (now - self._begun)

    def wrote(self, now: float, cost: float) -> None:
        """One was written, for whatever reason, or tried; it took `cost` seconds."""
        self._last, self._cost = now, cost
        self._spent += cost


def checkpoint_places(folder: Path) -> list[Path]:
    """The checkpoints of a run's folder, the newest first; whether they can be read is not looked at."""
    found = [place for place in (folder / "checkpoints").glob("step-*") if _NAME.fullmatch(place.name)]
    return sorted(found, key=lambda place: (-_step(place), place.name))


def _step(place: Path) -> int:
    return int(place.name[5:13])


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """One that was read whole, and fits the model."""

    place: Path
    progress: Progress
    so_far: dict[str, Any] | None
    """Evaluations and clock; None in checkpoints of version 1."""
    weights: dict[str, torch.Tensor]
    optimizer: dict[str, torch.Tensor | int]
    random: dict[str, torch.Tensor]

    def put_weights(self, built: Built) -> None:
        """Bring the model back to that moment."""
        _put_weights(built, self.weights)

    def restore(self, built: Built) -> None:
        """Bring model, optimizer and generators back to that moment."""
        self.put_weights(built)
        set_random_state(self.random, built.device)
        _restore(built.optimizer, self.optimizer)


def newest_checkpoint(built: Built, folder: Path, fingerprint: str, tell: Callable[[str], None]) -> Checkpoint | None:
    """The newest of this very plan that can be read; `tell` hears a sentence for each that cannot."""
    for place in checkpoint_places(folder):
        try:
            found = _read(built, place, fingerprint)
        except FAULTS as error:
            said = str(error) if isinstance(error, RunError) else f"{type(error).__name__}: {error}"
            tell(f"The checkpoint of update {_step(place):,} cannot be read ({said}).")
            continue
        if found is not None:
            return found
    return None


def _read(built: Built, place: Path, fingerprint: str) -> Checkpoint | None:
    """All of a checkpoint, before anything of it is used; None where it is of another plan."""
    state = json.loads((place / STATE).read_text(encoding="utf-8"))
    if state["fingerprint"] != fingerprint:
        return None
    for name, wanted in state.get(_SUMS, {}).items():
        if _sum(place / name) != wanted:
            raise RunError(f"{name} is not as it was written")
    tensors: dict[str, Any] = load_file(place / OPTIMIZER)
    random = {key.removeprefix(_RANDOM): tensors.pop(key) for key in list(tensors) if key.startswith(_RANDOM)}
    if "cpu" not in random:
        raise RunError("it holds no state of the generators")
    return Checkpoint(
        place=place,
        progress=Progress(**{key: state[key] for key in _COUNTED}),
        so_far=state.get(_SO_FAR),
        weights=_fitting(built, load_file(place / WEIGHTS), place.name),
        optimizer=tensors | state[_COUNTS],
        random=random,
    )


def _restore(optimizer: torch.optim.Optimizer, values: Mapping[str, torch.Tensor | int]) -> None:
    states: dict[int, dict[str, Any]] = {}
    for key, value in values.items():
        number, *outer, name = key.split(".")
        place = states.setdefault(int(number), {})
        for one in outer:
            place = place.setdefault(one, {})
        place[name] = value
    optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})


def _flat(states: Mapping[Any, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Values by their path: `number.name`, or deeper where an optimizer nests its state (bitsandbytes does)."""
    for key, value in states.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value


def _apart(values: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The tensors among these, each with memory of its own: bitsandbytes has one table for the states of all weights,
    and safetensors takes no tensor twice."""
    found: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    for name, value in values.items():
        if isinstance(value, torch.Tensor):
            one = value.contiguous()
            memory = one.untyped_storage().data_ptr()
            found[name] = one.clone() if memory in seen and one.numel() else one
            seen.add(memory)
    return found


def _sum(file: Path) -> int:
    """A checksum of a file: half of it lost, or a bit turned, is noticed."""
    found = 0
    with open(file, "rb") as opened:
        while piece := opened.read(1 << 20):
            found = zlib.crc32(piece, found)
    return found
