"""From bytes of tensors to what a task manager shows, with an honest band.

Comes in: bytes at the allocator's peak, whether they were traced, the kind of device.  Goes out: the process's bytes,
low and high.  The verdict is taken from the high edge.
"""

from __future__ import annotations

from dataclasses import dataclass

MIB = 2**20
PROCESS_CPU = 365 * MIB
"""What Python with torch, transformers and PEFT holds while it trains, before any tensor (`bench memory`, Linux)."""
HEAP_SHARE, HEAP_MOST = 0.8, 60 * MIB
"""Freed blocks that the C library keeps for later: a share of small models' tensors, little of large ones'."""
SCATTERED, RECOMPUTED = 10 * MIB, 20 * MIB
"""What it keeps besides where small trained tensors lie among large passing ones, and where layers run twice."""
RAGGED_SHARE, RAGGED_MOST = 0.25, 150 * MIB
"""What it may keep besides where micro-batches are of many lengths: a freed block seldom fits the next one's
(`bench ragged`; up to 0.56 of the tensors, and 240 MiB)."""
RAGGED_HIGH_SHARE, RAGGED_HIGH_MOST = 0.4, 200 * MIB
"""How far above that the band's upper edge then lies."""
KERNELS = 40 * MIB
"""What the kernels take that the libraries compile and keep for products in 16 bits on a processor."""
CONTEXT_CUDA = 450 * MIB
"""A stated assumption for the CUDA context and library workspace, outside torch's allocator."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """Factors on the tensors' bytes, and bytes to both sides for the rest of the process."""

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
    total: int, kind: str, device: str, *, frozen: bool, recompute: bool, ragged: bool, half: bool
) -> tuple[int, int, int]:
    """(expected, low, high) bytes of a run's whole process, or on a card of all that its memory must hold.

    `ragged` says that rows are of different lengths, `half` that products are computed in 16 bits.
    """
    band = BANDS[kind, device]
    fixed, more, above = CONTEXT_CUDA, 0, 0
    if device == "cpu":
        heap = int(min(HEAP_SHARE * total, HEAP_MOST)) + SCATTERED * frozen + RECOMPUTED * recompute
        fixed = PROCESS_CPU + heap + KERNELS * half
        if ragged:
            more = int(min(RAGGED_SHARE * total, RAGGED_MOST))
            above = int(min(RAGGED_HIGH_SHARE * total, RAGGED_HIGH_MOST))
    low = int(total * band.low) + fixed - band.rest
    return total + fixed + more, low, int(total * band.high) + fixed + more + band.rest + above
