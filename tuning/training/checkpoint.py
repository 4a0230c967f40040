"""What a run needs to go on where it was: weights, optimizer, generators, counts.

Comes in: a built model and the progress.  Goes out: `checkpoints/step-N/` with safetensors and JSON (never pickle),
and the way back.  The order of rows needs no state: it follows from the seed and the step.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tuning.errors import RunError
from tuning.training.build import Built
from tuning.training.loop import Progress

_STATE, _WEIGHTS, _OPTIMIZER = "state.json", "weights.safetensors", "optimizer.safetensors"
_SO_FAR = "so_far"
_CPU_RANDOM, _CUDA_RANDOM = "random.cpu", "random.cuda"


def trainable_weights(built: Built) -> dict[str, torch.Tensor]:
    """What training moves, by name; a tied weight stands once."""
    return {name: weight.detach() for name, weight in built.model.named_parameters() if weight.requires_grad}


def write_weights(built: Built, file: Path, about: dict[str, str] | None = None) -> None:
    """Write the trainable weights and what is to be known of them; the file appears whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    save_file({name: weight.contiguous() for name, weight in trainable_weights(built).items()}, part, about)
    part.replace(file)


def weights_about(file: Path) -> dict[str, str]:
    """What was written beside the weights of such a file; empty where there is no file, or nothing in it."""
    if not file.is_file():
        return {}
    with safe_open(file, "pt") as opened:
        return opened.metadata() or {}


def read_weights(built: Built, file: Path) -> None:
    """Put the weights of such a file into the model."""
    saved = load_file(file)
    own = trainable_weights(built)
    if saved.keys() != own.keys():
        raise RunError(f"The checkpoint {file.parent.name} belongs to another model or method.")
    for name, weight in own.items():
        weight.copy_(saved[name])


def write_checkpoint(
    built: Built, progress: Progress, fingerprint: str, folder: Path, keep: int, so_far: dict[str, Any]
) -> Path:
    """Write the state after an update and drop all but the newest `keep`. `so_far` is JSON: evaluations and clock."""
    place = folder / "checkpoints" / f"step-{progress.step:08d}"
    part = place.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    write_weights(built, part / _WEIGHTS)
    tensors = {_CPU_RANDOM: torch.random.get_rng_state()}
    if built.device.type == "cuda":
        tensors[_CUDA_RANDOM] = torch.cuda.get_rng_state(built.device)
    kept = dict(_flat(built.optimizer.state_dict()["state"]))
    tensors |= {name: value.contiguous() for name, value in kept.items() if isinstance(value, torch.Tensor)}
    # some optimizers count their steps in plain numbers
    counts = {name: value for name, value in kept.items() if isinstance(value, int)}
    save_file(tensors, part / _OPTIMIZER)
    state = asdict(progress) | {"fingerprint": fingerprint, "optimizer_counts": counts, _SO_FAR: so_far}
    (part / _STATE).write_text(json.dumps(state), encoding="utf-8")
    shutil.rmtree(place, ignore_errors=True)
    part.rename(place)
    for old in sorted(place.parent.glob("step-????????"))[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return place


def latest_checkpoint(folder: Path, fingerprint: str) -> Path | None:
    """The newest whole checkpoint of this very plan; None where there is none."""
    for place in sorted((folder / "checkpoints").glob("step-????????"), reverse=True):
        if json.loads((place / _STATE).read_text(encoding="utf-8")).get("fingerprint") == fingerprint:
            return place
    return None


def read_checkpoint(built: Built, place: Path) -> tuple[Progress, dict[str, Any] | None]:
    """Bring model, optimizer and generators back to that moment; what `so_far` was then, None in old checkpoints."""
    state = json.loads((place / _STATE).read_text(encoding="utf-8"))
    read_weights(built, place / _WEIGHTS)
    tensors = load_file(place / _OPTIMIZER)
    torch.random.set_rng_state(tensors.pop(_CPU_RANDOM))
    if _CUDA_RANDOM in tensors:
        torch.cuda.set_rng_state(tensors.pop(_CUDA_RANDOM), built.device)
    _restore(built.optimizer, tensors | state["optimizer_counts"])
    progress = Progress(**{key: state[key] for key in ("step", "trained_tokens", "input_tokens", "examples")})
    return progress, state.get(_SO_FAR)


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
