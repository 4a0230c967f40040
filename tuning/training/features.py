"""The cached features of a frozen body: its last states, computed once for each row.

Where only what reads the last states is trained, batches have those states instead of tokens. They are computed in one
pass over the rows, batch by batch in order of length; at equal shapes they are bit for bit what each epoch would
compute again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import nn

from tuning.text import EncodedRow
from tuning.training.batches import Batch, collate, gather


class FeatureCache:
    """The cached states by row. A row is found by its identity, so the same row objects must be used all along."""

    def __init__(
        self,
        model: nn.Module,
        autocast: Callable[[], AbstractContextManager[object]],
        *,
        pad_id: int,
        classes: bool,
        device: torch.device,
    ) -> None:
        self._model, self._autocast = model, autocast
        self._pad_id, self._classes, self._device = pad_id, classes, device
        self._states: dict[int, torch.Tensor] = {}
        self._labels: dict[int, torch.Tensor] = {}
        self.bytes = 0

    def fill(self, rows: Sequence[EncodedRow], batch_size: int, should_continue: Callable[[], bool]) -> Iterator[int]:
        """Compute the states of these rows, yielding how many are done. Ends where `should_continue` answers False."""
        order = sorted(range(len(rows)), key=lambda index: -len(rows[index].ids))
        for start in range(0, len(order), batch_size):
            if not should_continue():
                return
            chosen = [rows[index] for index in order[start : start + batch_size]]
            batch = collate(chosen, pad_id=self._pad_id, classes=self._classes, packing=False, device=self._device)
            with torch.no_grad(), self._autocast():
                states = last_states(self._model, batch, classes=self._classes)
            counts = [1 if self._classes else row.trained_tokens for row in chosen]
            for row, part, labels in zip(chosen, states.split(counts), batch.labels.split(counts), strict=True):
                self._states[id(row)], self._labels[id(row)] = part.clone(), labels
                self.bytes += part.nbytes
            yield min(len(order), start + batch_size)

    def batch(self, rows: Sequence[EncodedRow]) -> Batch:
        """The batch of these rows with their states in place of their tokens, each row one token wide."""
        labels = [self._labels[id(row)] for row in rows]
        counts = torch.tensor([len(of_row) for of_row in labels], device=self._device)
        owners = torch.arange(len(rows), device=self._device).repeat_interleave(counts)
        return Batch(
            input_ids=torch.zeros((len(rows), 1), dtype=torch.long, device=self._device),
            attention_mask=None,
            position_ids=None,
            label_indices=owners,
            labels=torch.cat(labels),
            rows=len(rows),
            tokens=sum(len(row.ids) for row in rows),
            states=torch.cat([self._states[id(row)] for row in rows]),
        )


def last_states(model: nn.Module, batch: Batch, *, classes: bool) -> torch.Tensor:
    """What the output layer reads: (label tokens, width), or for classes (rows, width)."""
    whole: Any = model
    if classes:
        more = {} if batch.token_type_ids is None else {"token_type_ids": batch.token_type_ids}
        rows: torch.Tensor = whole.features(batch.input_ids, batch.attention_mask, **more)
        return rows
    body = getattr(whole, whole.base_model_prefix)
    states = body(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False).last_hidden_state
    return gather(states, batch)


def logits_of(model: nn.Module, states: torch.Tensor, *, classes: bool) -> torch.Tensor:
    """The logits of cached states: what the model itself computes from them, including more than its output layer."""
    whole: Any = model
    if classes:
        scores: torch.Tensor = whole.get_output_embeddings()(states)
        return scores
    ids = torch.zeros((1, len(states)), dtype=torch.long, device=states.device)
    with _body_returns(getattr(whole, whole.base_model_prefix), states[None]):
        logits: torch.Tensor = whole(input_ids=ids, use_cache=False).logits[0]
        return logits


@contextmanager
def _body_returns(body: nn.Module, states: torch.Tensor) -> Iterator[None]:
    """Within this context the body returns `states` instead of computing them."""
    from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

    def answer(*_: Any, **__: Any) -> BaseModelOutputWithPastAndCrossAttentions:
        return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=states)

    body.forward = answer
    try:
        yield
    finally:
        del body.forward
