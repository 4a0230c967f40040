"""How the encoded rows of a micro-batch become tensors; `tuning.plan.micro_batches` says which rows they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from tuning.text import EncodedRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One micro-batch on its device."""

    input_ids: torch.Tensor
    attention_mask: torch.Tensor | None
    """None where rows are packed: positions that restart at 0 separate them."""
    position_ids: torch.Tensor | None
    label_indices: torch.Tensor
    """Flat indices (row * width + position) of the hidden states that predict a label; for classes, empty."""
    labels: torch.Tensor
    """The label tokens at those indices, or one class a row."""
    rows: int
    tokens: int
    """Real tokens, padding not counted."""
    token_type_ids: torch.Tensor | None = None
    """Which of two texts a token belongs to, where rows are pairs and the model has an input for it."""
    states: torch.Tensor | None = None
    """What the output layer reads, one row a label, where a frozen body's states are cached."""


def label_count(row: EncodedRow, *, classes: bool) -> int:
    """How many labels a row has: its label tokens, or one class. The first token is never predicted."""
    return 1 if classes else row.trained_tokens


def collate(rows: Sequence[EncodedRow], *, pad_id: int, classes: bool, packing: bool, device: torch.device) -> Batch:
    """Make a micro-batch: padded on the right, or packed into one long row with positions that restart."""
    if packing:
        return _packed(rows, device)
    width = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), width), pad_id, dtype=torch.long)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    types = torch.zeros((len(rows), width), dtype=torch.long) if any(row.types for row in rows) else None
    indices: list[int] = []
    labels: list[int] = []
    for index, row in enumerate(rows):
        ids[index, : len(row.ids)] = torch.tensor(row.ids, dtype=torch.long)
        mask[index, : len(row.ids)] = 1
        if types is not None and row.types is not None:
            types[index, : len(row.ids)] = torch.tensor(row.types, dtype=torch.long)
        if classes:
            labels.append(_class_of(row))
            continue
        _add_labels(row, index * width, indices, labels)
    return Batch(
        input_ids=ids.to(device),
        attention_mask=mask.to(device),
        position_ids=None,
        label_indices=torch.tensor(indices, dtype=torch.long, device=device),
        labels=torch.tensor(labels, dtype=torch.long, device=device),
        rows=len(rows),
        tokens=sum(len(row.ids) for row in rows),
        token_type_ids=None if types is None else types.to(device),
    )


def gather(states: torch.Tensor, batch: Batch) -> torch.Tensor:
    """The states (rows, tokens, width) that predict a label, as (labels, width), without a method's virtual tokens."""
    states = states[:, states.shape[1] - batch.input_ids.shape[1] :]
    return states.reshape(-1, states.shape[-1]).index_select(0, batch.label_indices)


def _packed(rows: Sequence[EncodedRow], device: torch.device) -> Batch:
    ids: list[int] = []
    positions: list[int] = []
    indices: list[int] = []
    labels: list[int] = []
    for row in rows:
        _add_labels(row, len(ids), indices, labels)
        ids.extend(row.ids)
        positions.extend(range(len(row.ids)))
    return Batch(
        input_ids=torch.tensor([ids], dtype=torch.long, device=device),
        attention_mask=None,
        position_ids=torch.tensor([positions], dtype=torch.long, device=device),
        label_indices=torch.tensor(indices, dtype=torch.long, device=device),
        labels=torch.tensor(labels, dtype=torch.long, device=device),
        rows=len(rows),
        tokens=len(ids),
    )


def _add_labels(row: EncodedRow, start: int, indices: list[int], labels: list[int]) -> None:
    for position in range(1, len(row.ids)):
        if row.trained[position]:
            indices.append(start + position - 1)
            labels.append(row.ids[position])


def _class_of(row: EncodedRow) -> int:
    if row.label is None:
        raise ValueError("a row without a class reached the training loop")
    return row.label
