"""Evaluation: the loss, the metrics that need no generation, and the prediction for each evaluation row.

The loss is summed over all labels and divided once, so that it does not depend on the batch size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch.nn import functional

from tuning.plan.micro_batches import PeakCandidate, highest_of, shape_of
from tuning.text import EncodedRow
from tuning.training.batches import Batch, label_count
from tuning.training.build import Built
from tuning.training.loss import batch_logits
from tuning.training.probes import PeakProbe

LOWER_IS_BETTER = frozenset({"eval_loss", "perplexity"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What the model predicts for one evaluation row."""

    index: int
    """Index among the evaluation rows."""
    loss: float
    """Nats a label, the mean over the labels of this row."""
    predicted: list[int]
    """The likeliest token at each label, given the true ones before it; for classes the one class."""
    target: list[int]
    """The true token at each label, or the true class."""
    probabilities: list[float]
    """The probability of each class; empty for a language model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Loss in nats a label, metrics by name, and the predictions in the order of the rows."""

    loss: float
    metrics: dict[str, float]
    predictions: list[Prediction]


def evaluate(
    built: Built,
    rows: Sequence[EncodedRow],
    *,
    batch_size: int,
    should_continue: Callable[[], bool] = lambda: True,
    probe: PeakProbe | None = None,
) -> Evaluation | None:
    """Evaluate on all rows; None where `should_continue` answered False. The model's mode is restored.

    `probe` measures the memory peak of the batches that may take the most.
    """
    was_training = built.model.training
    built.model.eval()
    try:
        return _evaluate(built, rows, batch_size, should_continue, probe)
    finally:
        built.model.train(was_training)


def _evaluate(
    built: Built,
    rows: Sequence[EncodedRow],
    batch_size: int,
    should_continue: Callable[[], bool],
    probe: PeakProbe | None,
) -> Evaluation | None:
    order = sorted(range(len(rows)), key=lambda index: -len(rows[index].ids))
    total, predictions = 0.0, list[Prediction]()
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    if probe is not None and batches:
        probe.expect(highest_of([_candidate(rows, indices, classes=built.classes) for indices in batches]))
    for indices in batches:
        if not should_continue():
            return None
        measurement = None
        if probe is not None:
            candidates = [_candidate(rows, indices, classes=built.classes)]
            if probe.should_measure(candidates):
                measurement = probe.measure(built.model, built.optimizer, built.device, candidates)
        with measurement or nullcontext():
            loss, of_batch = _evaluate_batch(built, rows, indices)
        total += loss
        predictions += of_batch
    return _evaluation(total, sorted(predictions, key=lambda prediction: prediction.index), classes=built.classes)


def _candidate(rows: Sequence[EncodedRow], indices: Sequence[int], *, classes: bool) -> PeakCandidate:
    """The sizes that decide a batch's memory: its tokens, and its labels, for logits are made at those alone."""
    label_tokens = [label_count(rows[index], classes=classes) for index in indices]
    return PeakCandidate(shape=shape_of([len(rows[index].ids) for index in indices], label_tokens), accumulate=False)


def _evaluate_batch(built: Built, rows: Sequence[EncodedRow], indices: Sequence[int]) -> tuple[float, list[Prediction]]:
    """The summed loss of these rows and their predictions. A function, so that its tensors are freed before the next
    batch."""
    batch = built.batch([rows[index] for index in indices])
    # not inference_mode: what it makes cannot take part in a later backward pass, and libraries keep some of it
    with torch.no_grad(), built.autocast():
        logits = batch_logits(built.model, batch, classes=built.classes)
    with torch.no_grad():
        losses = functional.cross_entropy(logits.float(), batch.labels, reduction="none").double()
    return float(losses.sum()), _predictions(batch, logits, losses, indices, classes=built.classes)


def _predictions(
    batch: Batch, logits: torch.Tensor, losses: torch.Tensor, indices: Sequence[int], *, classes: bool
) -> list[Prediction]:
    likeliest, labels, loss_of_label = logits.argmax(-1).tolist(), batch.labels.tolist(), losses.tolist()
    row_of_label = range(len(indices)) if classes else (batch.label_indices // batch.input_ids.shape[1]).tolist()
    probabilities = torch.softmax(logits.float(), -1).tolist() if classes else []
    labels_of_row: list[list[int]] = [[] for _ in indices]
    for label, row in enumerate(row_of_label):
        labels_of_row[row].append(label)
    predictions = []
    for row, index in enumerate(indices):
        own = labels_of_row[row]
        predictions.append(
            Prediction(
                index=index,
                loss=sum(loss_of_label[label] for label in own) / len(own) if own else math.nan,
                predicted=[likeliest[label] for label in own],
                target=[labels[label] for label in own],
                probabilities=probabilities[row] if classes else [],
            )
        )
    return predictions


def _evaluation(total: float, predictions: list[Prediction], *, classes: bool) -> Evaluation:
    predicted = [label for prediction in predictions for label in prediction.predicted]
    target = [label for prediction in predictions for label in prediction.target]
    if not target:
        return Evaluation(loss=math.nan, metrics={}, predictions=predictions)
    loss = total / len(target)
    right = sum(mine == true for mine, true in zip(predicted, target, strict=True)) / len(target)
    if classes:
        metrics = {"accuracy": right, "macro_f1": macro_f1(predicted, target)}
    else:
        metrics = {"perplexity": math.exp(loss) if loss < 700 else math.inf, "token_accuracy": right}
    return Evaluation(loss=loss, metrics=metrics, predictions=predictions)


def macro_f1(predicted: Iterable[int], target: Iterable[int]) -> float:
    """The mean of F1, the harmonic mean of precision and recall, over the classes that occur."""
    pairs = list(zip(predicted, target, strict=True))
    scores = []
    for label in {label for pair in pairs for label in pair}:
        hits = sum(mine == true == label for mine, true in pairs)
        misses = sum((mine == label) != (true == label) for mine, true in pairs)
        scores.append(2 * hits / (2 * hits + misses))
    return sum(scores) / len(scores)


def confusion(predicted: Sequence[int], target: Sequence[int], classes: int) -> list[list[int]]:
    """The confusion matrix: counts by true class (row) and predicted class (column)."""
    counts = [[0] * classes for _ in range(classes)]
    for mine, true in zip(predicted, target, strict=True):
        counts[true][mine] += 1
    return counts
