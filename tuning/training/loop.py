"""The training loop: micro-batches, accumulation, update.

Comes in: a built model with its optimizer, encoded rows, the plan's numbers, and `go_on`, which is asked between
micro-batches.  Goes out: a generator that yields an `Update` after each optimizer step.  It keeps no global state and
knows nothing of events, evaluation or files: whoever iterates does those between two updates.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from tuning.core.errors import RunError
from tuning.data import row_sizes
from tuning.plan.micro_batches import Moment, cut, epoch_windows, highest_moments, moments_of_update, sorted_sizes
from tuning.plan.plan import Plan
from tuning.text import Encoded
from tuning.training.batches import Batch, label_count
from tuning.training.build import Built, random_state, set_random_state
from tuning.training.loss import Reduction, batch_logits, sum_loss
from tuning.training.probes import PeakProbe
from tuning.training.schedule import schedule_factor


@dataclass(slots=True, kw_only=True)
class Progress:
    """How far a run is; everything cumulative. A checkpoint holds it, a resumed run goes on from it."""

    step: int = 0
    trained_tokens: int = 0
    input_tokens: int = 0
    examples: int = 0
    whole: bool = True
    """Whether the weights are those behind `step`; not so while an update moves them. No checkpoint holds this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """The numbers of a run that the loop needs, resolved by the plan."""

    total_steps: int
    micro_batch_size: int
    effective_batch: int
    seed: int
    by_length: bool
    packing: bool
    reduction: str
    learning_rate: float
    schedule: str
    warmup_steps: int
    min_lr_ratio: float
    max_grad_norm: float | None

    def rate(self, update: int) -> float:
        """The learning rate of the update with this number, the first being 0."""
        return self.learning_rate * schedule_factor(
            self.schedule, update, self.total_steps, self.warmup_steps, self.min_lr_ratio
        )


def course_of(plan: Plan) -> Course:
    """The course that a plan has resolved."""
    settings = plan.settings
    return Course(
        total_steps=plan.value("total_steps"),
        micro_batch_size=settings.micro_batch_size,
        effective_batch=plan.value("effective_batch"),
        seed=settings.seed,
        by_length=settings.data.group_by_length,
        packing=plan.packing,
        reduction=settings.loss_reduction,
        learning_rate=plan.value("learning_rate"),
        schedule=settings.schedule.name,
        warmup_steps=settings.schedule.warmup_steps,
        min_lr_ratio=settings.schedule.min_lr_ratio,
        max_grad_norm=settings.optimizer.max_grad_norm,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """What one optimizer step was; counts are cumulative."""

    step: int
    epoch: float
    loss: float
    learning_rate: float
    grad_norm: float
    trained_tokens: int
    input_tokens: int
    examples: int
    peak_bytes: int | None


class NotFinite(RunError):
    """The loss or the gradient stopped being a number; the weights are those before this update, where they are
    `whole`."""

    def __init__(self, step: int, what: str, whole: bool = True) -> None:
        kept = (
            f"the weights of update {step - 1} are kept"
            if whole
            else "layers that were updated in its backward pass have moved already, so these weights are not kept"
        )
        super().__init__(
            f"The {what} of update {step} is not a finite number, so the run ended there; {kept}. A lower learning"
            " rate, a longer warm-up or gradient clipping usually helps."
        )
        self.step = step


def train(
    built: Built,
    rows: Sequence[Encoded],
    course: Course,
    progress: Progress,
    go_on: Callable[[], bool],
    probe: PeakProbe | None = None,
) -> Iterator[Update]:
    """Run the updates that are left, yielding after each; ends early, gradients cleared, when `go_on` says no.

    `probe` measures the memory peak of a few updates; without one `peak_bytes` stays None.
    """
    per_epoch = math.ceil(len(rows) / course.effective_batch)
    lengths, labels = row_sizes(rows, classes=built.classes)
    epoch, windows = -1, list[list[int]]()
    while progress.step < course.total_steps:
        now, place = divmod(progress.step, per_epoch)
        if now != epoch:
            epoch, windows = now, epoch_windows(len(rows), course.seed, now, course.effective_batch)
            if probe is not None:
                left = windows[place : place + course.total_steps - progress.step]
                probe.expect(_highest(left, lengths, labels, course, first=progress.step == 0))
        pieces = cut(windows[place], lengths, course.micro_batch_size, by_length=course.by_length)
        watch = None
        if probe is not None:
            moments = moments_of_update(pieces, lengths, labels, packing=course.packing, first=progress.step == 0)
            kept = built.features.bytes if built.features is not None else 0
            if probe.wants(moments):
                watch = probe.watch(built.model, built.optimizer, built.device, moments, kept)
        drawn, result = random_state(built.device), None
        try:
            with watch or contextlib.nullcontext():
                result = update_once(built, rows, pieces, course, progress, go_on)
        finally:
            if result is None:  # stopped or failed: whoever goes on makes this update again, with the same draws
                set_random_state(drawn, built.device)
        if result is None:
            return
        _count(progress, rows, windows[place], classes=built.classes)
        yield Update(
            step=progress.step,
            epoch=progress.step / per_epoch,
            loss=result[0],
            learning_rate=result[1],
            grad_norm=result[2],
            trained_tokens=progress.trained_tokens,
            input_tokens=progress.input_tokens,
            examples=progress.examples,
            peak_bytes=probe.peak_bytes if probe is not None else None,
        )


def _highest(
    windows: Sequence[Sequence[int]], lengths: np.ndarray, labels: np.ndarray, course: Course, *, first: bool
) -> list[Moment]:
    """Of these updates the micro-batches of which one takes the most memory."""
    last = len(windows) - (len(windows[-1]) < len(windows[0]))  # a window that holds what is left is smaller
    arrays = [np.array(part) for part in (windows[:last], windows[last:]) if part]
    sizes = sorted_sizes(arrays, lengths, labels, by_length=course.by_length)
    return highest_moments(sizes, course.micro_batch_size, packing=course.packing, first=first)


def _count(progress: Progress, rows: Sequence[Encoded], window: Sequence[int], *, classes: bool) -> None:
    progress.step += 1
    progress.whole = True
    progress.examples += len(window)
    progress.input_tokens += sum(len(rows[index].ids) for index in window)
    progress.trained_tokens += sum(label_count(rows[index], classes=classes) for index in window)


def update_once(
    built: Built,
    rows: Sequence[Encoded],
    pieces: list[list[int]],
    course: Course,
    progress: Progress,
    go_on: Callable[[], bool],
) -> tuple[float, float, float] | None:
    """One optimizer step over a window: (loss, learning rate, gradient norm), or None when told to stop."""
    built.model.train()
    rate = course.rate(progress.step)
    for group in built.optimizer.param_groups:  # before the gradient: some optimizers act while it is made
        group["lr"] = rate
    progress.whole = not _moves_in_backward(built)
    total = accumulate(built, rows, pieces, course, go_on)
    if total is None:
        built.optimizer.zero_grad(set_to_none=True)
        progress.whole = True
        return None
    loss = float(total)
    norm = float(_clip(built, course.max_grad_norm))
    if not (math.isfinite(loss) and math.isfinite(norm)):
        built.optimizer.zero_grad(set_to_none=True)
        raise NotFinite(progress.step + 1, "gradient" if math.isfinite(loss) else "loss", progress.whole)
    progress.whole = False
    built.optimizer.step()
    built.optimizer.zero_grad(set_to_none=True)
    return loss, rate, norm


def _moves_in_backward(built: Built) -> bool:
    """Whether the optimizer moves weights while their gradients are made; it counts those itself then."""
    return getattr(built.optimizer, "gradient_norm", None) is not None


def accumulate(
    built: Built, rows: Sequence[Encoded], pieces: list[list[int]], course: Course, go_on: Callable[[], bool]
) -> torch.Tensor | None:
    """Add the window's gradient to the parameters, one micro-batch at a time; the window's loss, or None on a stop."""
    reduction = Reduction(
        name=course.reduction,
        micro_batches=len(pieces),
        window_labels=sum(label_count(rows[index], classes=built.classes) for piece in pieces for index in piece),
    )
    total = torch.zeros((), dtype=torch.float64, device=built.device)
    for piece in pieces:
        if not go_on():
            return None
        batch = built.batch([rows[index] for index in piece], course.packing)
        total += _backward(built, batch, reduction)
    # where the weights have moved already, the update is made
    return total if _moves_in_backward(built) or go_on() else None


def _backward(built: Built, batch: Batch, reduction: Reduction) -> torch.Tensor:
    with built.autocast():
        logits = batch_logits(built.model, batch, classes=built.classes)
    loss = sum_loss(logits, batch) * reduction.weight(batch.labels.numel())
    if loss.requires_grad:
        loss.backward()
    return loss.detach().double()


def _clip(built: Built, limit: float | None) -> torch.Tensor:
    """The gradient's norm before clipping; clipped once an update, and only when there is a limit."""
    seen = getattr(built.optimizer, "gradient_norm", None)
    if seen is not None:  # an optimizer that took the gradients as they came has counted them
        return torch.tensor(seen)
    gradients = [parameter.grad for parameter in built.trainable if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    if limit is not None:
        torch.nn.utils.clip_grads_with_norm_(built.trainable, limit, norm)
    return norm
