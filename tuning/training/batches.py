"""Which rows go into which update, and how they become tensors.

Comes in: encoded rows, a seed, the effective batch, the micro-batch size.  Goes out: windows (the rows of one update)
and `Batch`es (the tensors of one micro-batch).  The rows of an update depend on the seed, the epoch, the number of
rows and the effective batch alone; micro-batches only cut them, so that equal settings give equal curves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from tuning.text import Encoded

_EPOCH_STRIDE = 1_000_003
"""A prime, so that (seed, epoch) pairs a person would try never share a generator seed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One micro-batch on its device."""

    input_ids: torch.Tensor
    attention_mask: torch.Tensor | None
    """None when rows are packed: the restarting positions tell them apart."""
    position_ids: torch.Tensor | None
    label_places: torch.Tensor
    """Flat places (row * width + position) of the hidden states that predict a label; for classes, empty."""
    labels: torch.Tensor
    """The label tokens at those places, or one class a row."""
    rows: int
    tokens: int
    """Real tokens, padding not counted."""
    token_type_ids: torch.Tensor | None = None
    """Which of two texts a token belongs to, where rows are pairs and the model is told."""
    states: torch.Tensor | None = None
    """What the output layer reads, one line a label, where a frozen body's states are kept instead of computed."""

    @property
    def cells(self) -> int:
        """Places the model computes, padding counted: what the memory depends on."""
        return self.input_ids.numel()


def label_count(row: Encoded, *, classes: bool) -> int:
    """What a row adds to the window's divisor: its label tokens, or itself. The first token is never predicted."""
    return 1 if classes else row.trained_tokens


def epoch_order(rows: int, seed: int, epoch: int) -> list[int]:
    """The order of the rows in this epoch, from a generator of its own."""
    generator = torch.Generator().manual_seed(seed + epoch * _EPOCH_STRIDE)
    return torch.randperm(rows, generator=generator).tolist()


def epoch_windows(rows: int, seed: int, epoch: int, effective_batch: int) -> list[list[int]]:
    """The rows of each update of this epoch; the last window holds what is left."""
    order = epoch_order(rows, seed, epoch)
    return [order[start : start + effective_batch] for start in range(0, rows, effective_batch)]


def cut(window: Sequence[int], rows: Sequence[Encoded], micro_batch_size: int, *, by_length: bool) -> list[list[int]]:
    """Cut a window into micro-batches; sorting by length stays inside the window and so changes no update."""
    placed = sorted(window, key=lambda index: -len(rows[index].ids)) if by_length else list(window)
    return [placed[start : start + micro_batch_size] for start in range(0, len(placed), micro_batch_size)]


def widest_cells(pieces: Sequence[Sequence[int]], rows: Sequence[Encoded], *, packing: bool) -> tuple[int, int]:
    """Places of the first micro-batch and of the largest later one (0 if none), padding counted where there is any.

    The memory peak follows both: later ones find gradients alive.
    """
    lengths = ([len(rows[index].ids) for index in piece] for piece in pieces)
    cells = [sum(each) if packing else len(each) * max(each) for each in lengths]
    return cells[0], max(cells[1:], default=0)


def collate(rows: Sequence[Encoded], *, pad_id: int, classes: bool, packing: bool, device: torch.device) -> Batch:
    """Make a micro-batch: padded on the right, or packed into one long row with restarting positions."""
    if packing:
        return _packed(rows, device)
    width = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), width), pad_id, dtype=torch.long)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    types = torch.zeros((len(rows), width), dtype=torch.long) if any(row.types for row in rows) else None
    places: list[int] = []
    labels: list[int] = []
    for number, row in enumerate(rows):
        ids[number, : len(row.ids)] = torch.tensor(row.ids, dtype=torch.long)
        mask[number, : len(row.ids)] = 1
        if types is not None and row.types is not None:
            types[number, : len(row.ids)] = torch.tensor(row.types, dtype=torch.long)
        if classes:
            labels.append(_class_of(row))
            continue
        _add_labels(row, number * width, places, labels)
    return Batch(
        input_ids=ids.to(device),
        attention_mask=mask.to(device),
        position_ids=None,
        label_places=torch.tensor(places, dtype=torch.long, device=device),
        labels=torch.tensor(labels, dtype=torch.long, device=device),
        rows=len(rows),
        tokens=sum(len(row.ids) for row in rows),
        token_type_ids=None if types is None else types.to(device),
    )


def gather(states: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Lines of `states` at the label places; virtual tokens that a method put in front are trimmed first."""
    states = states[:, states.shape[1] - batch.input_ids.shape[1] :]
    return states.reshape(-1, states.shape[-1]).index_select(0, batch.label_places)


def _packed(rows: Sequence[Encoded], device: torch.device) -> Batch:
    ids: list[int] = []
    positions: list[int] = []
    places: list[int] = []
    labels: list[int] = []
    for row in rows:
        _add_labels(row, len(ids), places, labels)
        ids.extend(row.ids)
        positions.extend(range(len(row.ids)))
    return Batch(
        input_ids=torch.tensor([ids], dtype=torch.long, device=device),
        attention_mask=None,
        position_ids=torch.tensor([positions], dtype=torch.long, device=device),
        label_places=torch.tensor(places, dtype=torch.long, device=device),
        labels=torch.tensor(labels, dtype=torch.long, device=device),
        rows=len(rows),
        tokens=len(ids),
    )


def _add_labels(row: Encoded, start: int, places: list[int], labels: list[int]) -> None:
    for position in range(1, len(row.ids)):
        if row.trained[position]:
            places.append(start + position - 1)
            labels.append(row.ids[position])


def _class_of(row: Encoded) -> int:
    if row.label is None:
        raise ValueError("a row without a class reached the training loop")
    return row.label
