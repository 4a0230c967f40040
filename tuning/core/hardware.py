"""Devices that a run can be held against: their memory, and the number types they compute in.

Some are of this machine, others are named models that it need not have. Memory is read from the operating system, a
CUDA card through `nvidia-smi`, and not with torch, so that the page opens without waiting.
"""

from __future__ import annotations

import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import psutil

from tuning.core.errors import Problem, SettingsError

GIB = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A device with its memory in bytes; `here` says whether this machine has it."""

    name: str
    kind: str
    total_bytes: int
    free_bytes: int | None
    dtypes: tuple[str, ...]
    here: bool


def _named_card(name: str, gib: float, dtypes: tuple[str, ...] = ("fp32", "bf16", "fp16")) -> Device:
    return Device(name=name, kind="cuda", total_bytes=int(gib * GIB), free_bytes=None, dtypes=dtypes, here=False)


DEVICES: tuple[Device, ...] = (
    Device(
        name="Laptop, 8 GB RAM", kind="cpu", total_bytes=8 * GIB, free_bytes=None, dtypes=("fp32", "bf16"), here=False
    ),
    Device(
        name="Laptop, 16 GB RAM", kind="cpu", total_bytes=16 * GIB, free_bytes=None, dtypes=("fp32", "bf16"), here=False
    ),
    _named_card("GTX 1080 Ti 11 GB", 10.9, ("fp32", "fp16")),
    _named_card("RTX 2080 Ti 11 GB", 10.7, ("fp32", "fp16")),
    _named_card("T4 16 GB", 14.6, ("fp32", "fp16")),
    _named_card("V100 16 GB", 15.8, ("fp32", "fp16")),
    _named_card("V100 32 GB", 31.7, ("fp32", "fp16")),
    _named_card("RTX 3060 12 GB", 11.6),
    _named_card("RTX 4060 8 GB", 7.6),
    _named_card("RTX 3090 24 GB", 23.6),
    _named_card("RTX 4090 24 GB", 23.5),
    _named_card("RTX 5090 32 GB", 31.3),
    _named_card("A10 24 GB", 22.0),
    _named_card("L4 24 GB", 22.0),
    _named_card("L40S 48 GB", 44.4),
    _named_card("RTX A6000 48 GB", 47.4),
    _named_card("A100 40 GB", 39.4),
    _named_card("A100 80 GB", 79.2),
    _named_card("H100 80 GB", 79.1),
    _named_card("H200 141 GB", 139.8),
    _named_card("B200 180 GB", 178.3),
)
"""Capacities are what a driver reports as usable, rounded down; the printed size is larger."""


def _memory() -> tuple[int, int]:
    """Total and free bytes of main memory; a container's limit counts where it is smaller."""
    memory, limit = psutil.virtual_memory(), ""
    with suppress(OSError):
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
    return min(memory.total, int(limit)) if limit.isdigit() else memory.total, memory.available


@lru_cache(maxsize=1)
def cuda_named_card() -> Device | None:
    """The first CUDA card of this machine as its driver reports it; None where there is none."""
    if not shutil.which("nvidia-smi"):
        return None
    try:
        out = subprocess.run(
            ["nvidia-smi", "--query-gpu=name,memory.total,memory.free", "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        ).stdout
        name, total, free = (part.strip() for part in out.splitlines()[0].split(","))
        mib = 2**20
        return Device(
            name=name,
            kind="cuda",
            total_bytes=int(total) * mib,
            free_bytes=int(free) * mib,
            dtypes=("fp32", "bf16", "fp16"),
            here=True,
        )
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None


def this_machine(kind: str = "auto") -> Device:
    """The device a run would use here: `auto` takes a CUDA card where there is one, else the processor."""
    card = cuda_named_card() if kind in ("auto", "cuda") else None
    if card:
        return card
    if kind == "cuda":
        message = "no CUDA card was found on this machine; set device to cpu or auto"
        raise SettingsError([Problem("device", kind, "a device of this machine", message)])
    total, free = _memory()
    return Device(
        name="This machine", kind="cpu", total_bytes=total, free_bytes=free, dtypes=("fp32", "bf16"), here=True
    )


def named_device(name: str | None) -> Device:
    """A device by name (any case); None or `this machine` is this machine. Raises SettingsError."""
    if name is None or name.lower() in ("this machine", "auto", "cpu", "cuda"):
        return this_machine("auto" if name is None or name.lower() == "this machine" else name.lower())
    for device in DEVICES:
        if device.name.lower() == name.lower():
            return device
    names = ", ".join(device.name for device in DEVICES)
    raise SettingsError([Problem("device", name, names, f"no device named {name!r} is known; use one of: {names}")])
