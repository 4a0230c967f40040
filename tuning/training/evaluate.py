"""How good the model is on the evaluation rows.

Comes in: a built model, encoded rows.  Goes out: the loss per label (summed over all labels and divided once, so that
it does not depend on the batch size) and task metrics that need no generation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch

from tuning.text import Encoded
from tuning.training.batches import collate
from tuning.training.build import Built
from tuning.training.loss import batch_logits, sum_loss

LOWER_IS_BETTER = frozenset({"eval_loss", "perplexity"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """The loss per label, and metrics by name."""

    loss: float
    metrics: dict[str, float]


def evaluate(
    built: Built, rows: Sequence[Encoded], *, batch_size: int, go_on: Callable[[], bool] = lambda: True
) -> Evaluation | None:
    """Evaluate on all rows; None when told to stop in between. The model's mode is put back."""
    was_training = built.model.training
    built.model.eval()
    try:
        return _evaluate(built, rows, batch_size, go_on)
    finally:
        built.model.train(was_training)


def _evaluate(built: Built, rows: Sequence[Encoded], batch_size: int, go_on: Callable[[], bool]) -> Evaluation | None:
    order = sorted(range(len(rows)), key=lambda index: -len(rows[index].ids))
    total, guessed, wanted = 0.0, [], []
    for start in range(0, len(order), batch_size):
        if not go_on():
            return None
        batch = collate(
            [rows[index] for index in order[start : start + batch_size]], pad_id=built.pad_id,
            classes=built.classes, packing=False, device=built.device,
        )  # fmt: skip
        with torch.inference_mode(), built.autocast():
            logits = batch_logits(built.model, batch, classes=built.classes)
        with torch.inference_mode():
            total += float(sum_loss(logits, batch))
            guessed += logits.argmax(-1).tolist()
        wanted += batch.labels.tolist()
    if not wanted:
        return Evaluation(loss=math.nan, metrics={})
    loss = total / len(wanted)
    right = sum(guess == want for guess, want in zip(guessed, wanted, strict=True)) / len(wanted)
    if built.classes:
        return Evaluation(loss=loss, metrics={"accuracy": right, "macro_f1": macro_f1(guessed, wanted)})
    perplexity = math.exp(loss) if loss < 700 else math.inf
    return Evaluation(loss=loss, metrics={"perplexity": perplexity, "token_accuracy": right})


def macro_f1(guessed: Iterable[int], wanted: Iterable[int]) -> float:
    """The mean over the classes that occur of the harmonic mean of precision and recall."""
    pairs = list(zip(guessed, wanted, strict=True))
    scores = []
    for label in {label for pair in pairs for label in pair}:
        hit = sum(guess == want == label for guess, want in pairs)
        missed = sum((guess == label) != (want == label) for guess, want in pairs)
        scores.append(2 * hit / (2 * hit + missed))
    return sum(scores) / len(scores)
