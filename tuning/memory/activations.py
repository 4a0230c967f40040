"""Bytes that one block keeps for its backward pass, counted layer by layer.

Comes in: a shape, rows, length in tokens.  Goes out: bytes.  Counted for blocks with RMS norms, rotary positions and a
gated feed-forward as `transformers` writes them; other families come close and stay inside the printed band.
"""

from __future__ import annotations

from tuning.data import DataSummary
from tuning.models import ModelShape


def block_saved_bytes(
    shape: ModelShape, rows: int, length: int, *, half: bool, eager: bool, all_train: bool, adapters: bool
) -> int:
    """Saved tensors of one block for rows x length tokens, in bytes.

    hidden-wide: the norm's input, its normalised form and its output, twice; the attention's output projection input.
    Query, key and value are kept after the rotation. inner-wide: gate, its activation, up, and their product.
    A frozen weight's input is not kept, but an adapter beside it keeps it all the same.
    """
    tokens = rows * length
    hidden, inner = shape.hidden_size, shape.intermediate_size
    query, key = shape.num_heads * shape.head_dim, shape.num_kv_heads * shape.head_dim
    wide = 2 if half else 4
    norms = tokens * hidden * (4 * 4 + 2 * wide)
    attention = tokens * wide * (2 * query + 2 * key) + tokens * shape.num_heads * 4
    if eager:
        attention += 2 * rows * shape.num_heads * length * length * wide
    forward = tokens * inner * wide * (4 if shape.gated else 2)
    if not (all_train or adapters):
        norms -= 2 * tokens * hidden * wide
        forward -= tokens * inner * wide
    return int(norms + attention + forward)


def head_bytes(shape: ModelShape, rows: int, length: int, labels: int, data: DataSummary, half: bool) -> int:
    """Logits and what the loss keeps of them: only positions that are trained on go through the head."""
    tokens = rows * length
    if labels:
        return rows * labels * 4 * 3 + tokens * shape.hidden_size * 4
    share = max((t / n for t, n in zip(data.trained_tokens, data.lengths)), default=1.0)
    counted = min(tokens, int(tokens * share) + rows)
    return counted * shape.vocab_size * 4 * 3 + tokens * shape.hidden_size * 4


def widest_recompute_bytes(shape: ModelShape, rows: int, length: int) -> int:
    """Short-lived buffers of the backward pass of one recomputed block."""
    return rows * length * (shape.hidden_size + shape.intermediate_size) * 4
