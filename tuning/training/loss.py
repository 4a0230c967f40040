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
        with last_states_only(model, batch.attention_mask):
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


@contextmanager
def last_states_only(model: nn.Module, mask: torch.Tensor | None) -> Iterator[None]:
    """While this is on, a head that reads every state and then chooses one a row gets each row's last real one alone.

    The library finds that state by the padding token's id: a row that ends in that very token, or padding by another
    id, makes it read a state of something else. `mask` (rows x tokens) says how long each row is.
    """
    head: Any = next(filter(None, (getattr(model_of(model), name, None) for name in ("score", "classifier"))), None)
    if head is None or mask is None:
        yield
        return
    lasts = mask.sum(1) - 1
    width: list[int] = []

    def narrow(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        width.clear()
        states = inputs[0]
        if states.dim() != 3 or _linear(head) is None:
            return inputs
        width.append(states.shape[1])
        front = states.shape[1] - mask.shape[1]  # virtual tokens that a method put there
        rows = torch.arange(states.shape[0], device=states.device)
        return (states[rows, lasts + front][:, None], *inputs[1:])

    def widen(_: nn.Module, __: tuple[Any, ...], logits: torch.Tensor) -> torch.Tensor:
        return logits.expand(-1, width[0], -1) if width else logits

    handles = head.register_forward_pre_hook(narrow), head.register_forward_hook(widen)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def model_of(model: Any) -> Any:
    """The model itself, without the wrapper that PEFT puts around it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _linear(head: Any) -> nn.Linear | None:
    """The head where it is one layer over every state, wrapped or not; a head that pools by itself is more."""
    inner = getattr(head, "original_module", head)
    return inner if isinstance(inner, nn.Linear) else None


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
