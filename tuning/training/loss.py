"""The loss of a micro-batch as a sum, and what a window divides it by.

Comes in: a model, a micro-batch.  Goes out: the summed cross-entropy over label tokens (or over rows, for classes) in
fp32, with the logits it was made from.  Dividing is the window's business: `Reduction` says by what.  `window_mean` is
the right one; `micro_batch_mean` and `sum` are its wrong siblings, kept for the lessons that show the difference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from tuning.training.batches import Batch, gather
from tuning.training.features import logits_of


def batch_logits(model: nn.Module, batch: Batch, *, classes: bool) -> torch.Tensor:
    """The logits that have a label: one line a label token, or one a row.

    For tokens the hidden states are gathered before the output layer, so logits are computed at label places only.
    """
    if batch.states is not None:
        return logits_of(model, batch.states, classes=classes)
    inputs: dict[str, Any] = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "use_cache": False}
    if batch.position_ids is not None:
        inputs["position_ids"] = batch.position_ids
    if batch.token_type_ids is not None:
        inputs["token_type_ids"] = batch.token_type_ids
    if classes:
        return model(**inputs).logits
    with reading_only(model, lambda states: gather(states, batch)):
        logits = model(**inputs).logits
    if logits.dim() == 3:
        return gather(logits, batch)
    return logits


def sum_loss(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Cross-entropy summed over the batch's labels, in fp32 whatever the model computes in."""
    return functional.cross_entropy(logits.float(), batch.labels, reduction="sum")


@contextmanager
def reading_only(model: nn.Module, chosen: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
    """While this is on, the output layer sees only what `chosen` takes of the hidden states (rows, tokens, width).

    For models of every kind, under every method: not all take `logits_to_keep`. One without an output layer sees all.
    """
    find: Callable[[], nn.Module | None] = getattr(model, "get_output_embeddings", lambda: None)
    head = find()
    if head is None:
        yield
        return

    def narrow(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (chosen(inputs[0]), *inputs[1:]) if inputs[0].dim() == 3 else inputs

    handle = head.register_forward_pre_hook(narrow)
    try:
        yield
    finally:
        handle.remove()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reduction:
    """What each micro-batch's loss sum is multiplied with, so that the window's gradient comes out as named."""

    name: str
    window_labels: int
    """Label tokens (or rows) of the whole window."""
    micro_batches: int

    def weight(self, labels: int) -> float:
        """The factor for a micro-batch with this many labels; the logged loss is the weighted sum too."""
        if self.name == "window_mean":
            return 1.0 / max(1, self.window_labels)
        if self.name == "micro_batch_mean":
            return 1.0 / (max(1, labels) * self.micro_batches)
        if self.name == "sum":
            return 1.0
        raise ValueError(f"unknown loss reduction {self.name!r}")
