"""The loss of a micro-batch as a sum, and the factor that makes it a share of the update's loss.

The sum is the cross-entropy over label tokens (or over rows, for classes) in fp32. `LossReduction` has the factor by
which it is multiplied: `window_mean` divides by the labels of the whole update, which is right; `micro_batch_mean` and
`sum` are common mistakes, offered for lessons that show the difference.
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
            scores: torch.Tensor = model(**inputs).logits
        return scores
    with reading_only(model, lambda states: gather(states, batch)):
        logits: torch.Tensor = model(**inputs).logits
    if logits.dim() == 3:
        return gather(logits, batch)
    return logits


def sum_loss(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Cross-entropy summed over the batch's labels, in fp32 whatever the model computes in."""
    return functional.cross_entropy(logits.float(), batch.labels, reduction="sum")


@contextmanager
def reading_only(model: nn.Module, select: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
    """Within this context the output layer reads only what `select` returns of the hidden states.

    `select` takes a tensor (rows, tokens, width). This works for models of every kind under every method, not all of
    which have `logits_to_keep`; a model without an output layer is left as it is.
    """
    find: Callable[[], nn.Module | None] = getattr(model, "get_output_embeddings", lambda: None)
    head = find()
    if head is None:
        yield
        return

    def narrow(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (select(inputs[0]), *inputs[1:]) if inputs[0].dim() == 3 else inputs

    handle = head.register_forward_pre_hook(narrow)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def last_states_only(model: nn.Module, mask: torch.Tensor | None) -> Iterator[None]:
    """Within this context a classification head over all tokens reads only the state of each row's last token.

    transformers looks for that token by the id of the padding token: it takes another one where a row ends in that very
    token, or where rows are padded with another. `mask` (rows, tokens) is 1 for real tokens.
    """
    head: Any = next(filter(None, (getattr(model_of(model), name, None) for name in ("score", "classifier"))), None)
    if head is None or mask is None:
        yield
        return
    last = mask.sum(1) - 1
    width: list[int] = []

    def narrow(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        width.clear()
        states = inputs[0]
        if states.dim() != 3 or _linear(head) is None:
            return inputs
        width.append(states.shape[1])
        front = states.shape[1] - mask.shape[1]  # virtual tokens that a method put there
        rows = torch.arange(states.shape[0], device=states.device)
        return (states[rows, last + front][:, None], *inputs[1:])

    def widen(_: nn.Module, __: tuple[Any, ...], logits: torch.Tensor) -> torch.Tensor:
        return logits.expand(-1, width[0], -1) if width else logits

    handles = head.register_forward_pre_hook(narrow), head.register_forward_hook(widen)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def model_of(model: Any) -> Any:
    """The transformers model without the wrapper that PEFT puts around it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _linear(head: Any) -> nn.Linear | None:
    """The head where it is a single linear layer, wrapped or not; None for a head that pools by itself."""
    inner = getattr(head, "original_module", head)
    return inner if isinstance(inner, nn.Linear) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class LossReduction:
    """The factor for the summed loss of each micro-batch of an update, by the setting `loss_reduction`."""

    name: str
    update_labels: int
    """Label tokens (or rows) of the whole update."""
    micro_batches: int

    def factor(self, labels: int) -> float:
        """The factor for a micro-batch with this many labels; the logged loss is the sum of losses times factors.

        Raises ValueError for an unknown name.
        """
        if self.name == "window_mean":
            return 1.0 / max(1, self.update_labels)
        if self.name == "micro_batch_mean":
            return 1.0 / (max(1, labels) * self.micro_batches)
        if self.name == "sum":
            return 1.0
        raise ValueError(f"unknown loss reduction {self.name!r}")
