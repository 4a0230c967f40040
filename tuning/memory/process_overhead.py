"""The bytes of a run's whole process, as a task manager shows them, from the bytes of its tensors.

They are expected within a band, whose upper edge decides whether a run fits.
"""

from __future__ import annotations

from dataclasses import dataclass

MIB = 2**20
PROCESS_CPU = 365 * MIB
"""What Python with torch, transformers and PEFT holds while it trains, before any tensor (`bench memory`, Linux)."""
HEAP_SHARE, HEAP_MOST = 0.8, 60 * MIB
"""Freed blocks that the C library keeps for later: a share of the tensors of small models, little of large ones."""
SCATTERED, RECOMPUTED = 10 * MIB, 20 * MIB
"""Freed blocks that the C library keeps besides, where small trained tensors lie among large short-lived ones, and
where layers are recomputed."""
RAGGED_SHARE, RAGGED_MOST = 0.25, 150 * MIB
"""Freed blocks that it may keep besides, where micro-batches are of many lengths and seldom fit a freed block
(`bench ragged`; up to 0.56 of the tensors, and 240 MiB)."""
RAGGED_HIGH_SHARE, RAGGED_HIGH_MOST = 0.4, 200 * MIB
"""Bytes by which the band's upper edge is raised for such micro-batches."""
KERNELS = 40 * MIB
"""Bytes of the kernels that the libraries compile and keep for products in 16 bits on a processor."""
CONTEXT_CUDA = 450 * MIB
"""A stated assumption for the CUDA context and library workspace, outside torch's allocator."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """Factors on the bytes of the tensors, and bytes to both sides for the rest of the process."""

    low: float
    high: float
    rest: int


BANDS = {
    ("traced", "cpu"): Band(low=0.98, high=1.06, rest=60 * MIB),
    # on a card the allocator keeps segments: reserved is 2 to 12 % above allocated
    ("traced", "cuda"): Band(low=0.95, high=1.17, rest=200 * MIB),
    ("approximate", "cpu"): Band(low=0.65, high=1.45, rest=90 * MIB),
    ("approximate", "cuda"): Band(low=0.65, high=1.6, rest=200 * MIB),
}


def process_bytes(
    total: int, kind: str, device: str, *, mostly_frozen: bool, recompute: bool, ragged: bool, half: bool
) -> tuple[int, int, int]:
    """(expected, low, high) bytes of a run's whole process, or on a card of all that its memory must hold.

    `ragged` says that rows are of different lengths, `half` that products are computed in 16 bits.
    """
    band = BANDS[kind, device]
    fixed, more, above = CONTEXT_CUDA, 0, 0
    if device == "cpu":
        heap = int(min(HEAP_SHARE * total, HEAP_MOST)) + SCATTERED * mostly_frozen + RECOMPUTED * recompute
        fixed = PROCESS_CPU + heap + KERNELS * half
        if ragged:
            more = int(min(RAGGED_SHARE * total, RAGGED_MOST))
            above = int(min(RAGGED_HIGH_SHARE * total, RAGGED_HIGH_MOST))
    low = int(total * band.low) + fixed - band.rest
    return total + fixed + more, low, int(total * band.high) + fixed + more + band.rest + above
