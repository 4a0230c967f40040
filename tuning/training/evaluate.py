"""How good the model is on the evaluation rows.

Comes in: a built model, encoded rows.  Goes out: the loss per label (summed over all labels and divided once, so that
it does not depend on the batch size), metrics that need no generation, and what was guessed for each row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch.nn import functional

from tuning.plan.micro_batches import Moment, highest_of, shape_of
from tuning.text import Encoded
from tuning.training.batches import Batch, label_count
from tuning.training.build import Built
from tuning.training.loss import batch_logits
from tuning.training.probes import PeakProbe

LOWER_IS_BETTER = frozenset({"eval_loss", "perplexity"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Guess:
    """One evaluation row: what the model held likeliest at each label, and what stands there."""

    index: int
    """Which of the evaluation rows."""
    loss: float
    """Nats a label, the row's own mean: how wrong the model is about it."""
    said: list[int]
    """The likeliest token at each label, given the true ones before it; for classes the one class."""
    wanted: list[int]
    chances: list[float]
    """The probability of each class; empty for a language model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """The loss per label, metrics by name, and the rows in their order."""

    loss: float
    metrics: dict[str, float]
    guesses: list[Guess]


def evaluate(
    built: Built,
    rows: Sequence[Encoded],
    *,
    batch_size: int,
    should_continue: Callable[[], bool] = lambda: True,
    probe: PeakProbe | None = None,
) -> Evaluation | None:
    """Evaluate on all rows; None when told to stop in between. The model's mode is put back.

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
    rows: Sequence[Encoded],
    batch_size: int,
    should_continue: Callable[[], bool],
    probe: PeakProbe | None,
) -> Evaluation | None:
    order = sorted(range(len(rows)), key=lambda index: -len(rows[index].ids))
    total, guesses = 0.0, []
    pieces = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    if probe is not None and pieces:
        probe.expect(highest_of([_moment(rows, piece, classes=built.classes) for piece in pieces]))
    for chosen in pieces:
        if not should_continue():
            return None
        watch = None
        if probe is not None:
            moment = [_moment(rows, chosen, classes=built.classes)]
            watch = probe.watch(built.model, built.optimizer, built.device, moment) if probe.wants(moment) else None
        with watch or nullcontext():
            loss, found = _batch(built, rows, chosen)
        total += loss
        guesses += found
    return _summed(total, sorted(guesses, key=lambda guess: guess.index), classes=built.classes)


def _moment(rows: Sequence[Encoded], chosen: Sequence[int], *, classes: bool) -> Moment:
    """A batch as what decides its memory: its places, and its labels, for there alone logits are made."""
    labels = [label_count(rows[index], classes=classes) for index in chosen]
    return Moment(shape=shape_of([len(rows[index].ids) for index in chosen], labels), accumulate=False)


def _batch(built: Built, rows: Sequence[Encoded], chosen: Sequence[int]) -> tuple[float, list[Guess]]:
    """The sum of the losses of these rows, and what was guessed; none of its tensors lives on beside the next batch."""
    batch = built.batch([rows[index] for index in chosen])
    # not inference_mode: what it makes cannot take part in a later backward pass, and libraries keep some of it
    with torch.no_grad(), built.autocast():
        logits = batch_logits(built.model, batch, classes=built.classes)
    with torch.no_grad():
        losses = functional.cross_entropy(logits.float(), batch.labels, reduction="none").double()
    return float(losses.sum()), _guesses(batch, logits, losses, chosen, classes=built.classes)


def _guesses(
    batch: Batch, logits: torch.Tensor, losses: torch.Tensor, chosen: Sequence[int], *, classes: bool
) -> list[Guess]:
    likeliest, wanted, each = logits.argmax(-1).tolist(), batch.labels.tolist(), losses.tolist()
    owner = list(range(len(chosen))) if classes else (batch.label_places // batch.input_ids.shape[1]).tolist()
    chances = torch.softmax(logits.float(), -1).tolist() if classes else []
    places_of: list[list[int]] = [[] for _ in chosen]
    for place, number in enumerate(owner):
        places_of[number].append(place)
    found = []
    for number, index in enumerate(chosen):
        places = places_of[number]
        found.append(
            Guess(
                index=index,
                loss=sum(each[place] for place in places) / len(places) if places else math.nan,
                said=[likeliest[place] for place in places],
                wanted=[wanted[place] for place in places],
                chances=chances[number] if classes else [],
            )
        )
    return found


def _summed(total: float, guesses: list[Guess], *, classes: bool) -> Evaluation:
    said = [one for guess in guesses for one in guess.said]
    wanted = [one for guess in guesses for one in guess.wanted]
    if not wanted:
        return Evaluation(loss=math.nan, metrics={}, guesses=guesses)
    loss = total / len(wanted)
    right = sum(one == other for one, other in zip(said, wanted, strict=True)) / len(wanted)
    if classes:
        metrics = {"accuracy": right, "macro_f1": macro_f1(said, wanted)}
    else:
        metrics = {"perplexity": math.exp(loss) if loss < 700 else math.inf, "token_accuracy": right}
    return Evaluation(loss=loss, metrics=metrics, guesses=guesses)


def macro_f1(guessed: Iterable[int], wanted: Iterable[int]) -> float:
    """The mean over the classes that occur of the harmonic mean of precision and recall."""
    pairs = list(zip(guessed, wanted, strict=True))
    scores = []
    for label in {label for pair in pairs for label in pair}:
        hit = sum(guess == want == label for guess, want in pairs)
        missed = sum((guess == label) != (want == label) for guess, want in pairs)
        scores.append(2 * hit / (2 * hit + missed))
    return sum(scores) / len(scores)


def confusion(guessed: Sequence[int], wanted: Sequence[int], classes: int) -> list[list[int]]:
    """Counts by true class (line) and guessed class (column)."""
    counts = [[0] * classes for _ in range(classes)]
    for guess, want in zip(guessed, wanted, strict=True):
        counts[want][guess] += 1
    return counts
