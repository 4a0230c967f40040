"""The training loop: micro-batches, accumulation, update.

`train` is a generator that yields an `Update` after each optimizer step. It keeps no global state and knows nothing of
events, evaluation or files: whoever iterates does those between two updates. `should_continue` is called between
micro-batches, and ends the loop where it answers False.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from tuning.core.errors import RunError
from tuning.data import row_sizes
from tuning.methods import method_named
from tuning.plan.micro_batches import (
    PeakCandidate,
    candidates_of_update,
    cut,
    epoch_update_batches,
    highest_candidates,
    sorted_sizes,
)
from tuning.plan.plan import Plan
from tuning.settings.schema import Settings
from tuning.text import EncodedRow
from tuning.training.batches import Batch, label_count
from tuning.training.build import Built, random_state, set_random_state
from tuning.training.loss import LossReduction, batch_logits, sum_loss
from tuning.training.probes import PeakProbe
from tuning.training.schedule import schedule_factor


@dataclass(slots=True, kw_only=True)
class Progress:
    """How far a run is, in cumulative counts. A checkpoint stores it, and a resumed run starts from it."""

    step: int = 0
    trained_tokens: int = 0
    input_tokens: int = 0
    examples: int = 0
    weights_consistent: bool = True
    """Whether the weights are those after `step` updates.

    False from where an update begins to change them until `step` counts it: `update_once` sets False, and `train` sets
    True with the counts. A failure in between leaves False, and such weights are not saved. Not in a checkpoint.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopConfig:
    """What the loop reads: the settings, and the numbers that the plan has resolved beside them."""

    settings: Settings
    total_steps: int
    effective_batch: int
    learning_rate: float
    """The highest rate of the schedule."""
    packing: bool

    @staticmethod
    def of(plan: Plan) -> LoopConfig:
        """The configuration of a planned run."""
        return LoopConfig(
            settings=plan.settings,
            total_steps=plan.value("total_steps"),
            effective_batch=plan.value("effective_batch"),
            learning_rate=plan.value("learning_rate"),
            packing=plan.packing,
        )

    @property
    def steps_in_backward(self) -> bool:
        """Whether the method's optimizer updates weights during the backward pass, and drops their gradients there."""
        method = self.settings.method
        return method_named(method.name).steps_in_backward(method)

    def rate(self, step: int) -> float:
        """The learning rate of the update that follows `step` updates."""
        schedule = self.settings.schedule
        return self.learning_rate * schedule_factor(
            schedule.name, step, self.total_steps, schedule.warmup_steps, schedule.min_lr_ratio
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """The measurements of one optimizer step; counts are cumulative."""

    step: int
    epoch: float
    loss: float
    learning_rate: float
    grad_norm: float
    trained_tokens: int
    input_tokens: int
    examples: int
    peak_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """The measurements of one optimizer step, without the counts of the run."""

    loss: float
    learning_rate: float
    grad_norm: float
    """The gradient's L2 norm before clipping."""


class NotFiniteError(RunError):
    """The loss or the gradient is not finite.

    The weights are those before this update where `weights_consistent` is True.
    """

    def __init__(self, step: int, quantity: str, weights_consistent: bool = True) -> None:
        weights = (
            f"the weights of update {step - 1} are kept"
            if weights_consistent
            else "layers that were updated in its backward pass have moved already, so these weights are not kept"
        )
        super().__init__(
            f"The {quantity} of update {step} is not a finite number, so the run ended there; {weights}. A lower"
            " learning rate, a longer warm-up or gradient clipping usually helps."
        )
        self.step = step


def train(
    built: Built,
    rows: Sequence[EncodedRow],
    config: LoopConfig,
    progress: Progress,
    should_continue: Callable[[], bool],
    probe: PeakProbe | None = None,
) -> Iterator[Update]:
    """Run the updates that are left, yielding after each.

    Where `should_continue` answers False the update in hand is dropped, its gradients cleared, and the generator ends.
    `probe` measures the memory peak of a few updates; without one `peak_bytes` stays None.
    """
    per_epoch = math.ceil(len(rows) / config.effective_batch)
    settings = config.settings
    lengths, label_tokens = row_sizes(rows, classes=built.classes)
    epoch, update_batches = -1, list[list[int]]()
    while progress.step < config.total_steps:
        current_epoch, index = divmod(progress.step, per_epoch)
        if current_epoch != epoch:
            epoch = current_epoch
            update_batches = epoch_update_batches(len(rows), settings.seed, epoch, config.effective_batch)
            if probe is not None:
                left = update_batches[index : index + config.total_steps - progress.step]
                probe.expect(_peak_candidates(left, lengths, label_tokens, config, first=progress.step == 0))
        by_length = settings.data.group_by_length
        micro_batches = cut(update_batches[index], lengths, settings.micro_batch_size, by_length=by_length)
        measurement = None
        if probe is not None:
            first = progress.step == 0
            candidates = candidates_of_update(micro_batches, lengths, label_tokens, packing=config.packing, first=first)
            cached_bytes = built.features.bytes if built.features is not None else 0
            if probe.should_measure(candidates):
                measurement = probe.measure(built.model, built.optimizer, built.device, candidates, cached_bytes)
        random_before, result = random_state(built.device), None
        try:
            with measurement or contextlib.nullcontext():
                result = update_once(built, rows, micro_batches, config, progress, should_continue)
        finally:
            if result is None:  # stopped or failed: a resumed run makes this update again, with the same random draws
                set_random_state(random_before, built.device)
        if result is None:
            return
        _count(progress, rows, update_batches[index], classes=built.classes)
        yield Update(
            step=progress.step,
            epoch=progress.step / per_epoch,
            loss=result.loss,
            learning_rate=result.learning_rate,
            grad_norm=result.grad_norm,
            trained_tokens=progress.trained_tokens,
            input_tokens=progress.input_tokens,
            examples=progress.examples,
            peak_bytes=probe.peak_bytes if probe is not None else None,
        )


def _peak_candidates(
    update_batches: Sequence[Sequence[int]],
    lengths: np.ndarray,
    label_tokens: np.ndarray,
    config: LoopConfig,
    *,
    first: bool,
) -> list[PeakCandidate]:
    """The micro-batches of these updates, one of which has the memory peak."""
    # the last update of an epoch has the rows that are left, and may be smaller
    full = len(update_batches) - (len(update_batches[-1]) < len(update_batches[0]))
    arrays = [np.array(part) for part in (update_batches[:full], update_batches[full:]) if part]
    sizes = sorted_sizes(arrays, lengths, label_tokens, by_length=config.settings.data.group_by_length)
    return highest_candidates(sizes, config.settings.micro_batch_size, packing=config.packing, first=first)


def _count(progress: Progress, rows: Sequence[EncodedRow], update_batch: Sequence[int], *, classes: bool) -> None:
    progress.step += 1
    progress.weights_consistent = True
    progress.examples += len(update_batch)
    progress.input_tokens += sum(len(rows[index].ids) for index in update_batch)
    progress.trained_tokens += sum(label_count(rows[index], classes=classes) for index in update_batch)


def update_once(
    built: Built,
    rows: Sequence[EncodedRow],
    micro_batches: list[list[int]],
    config: LoopConfig,
    progress: Progress,
    should_continue: Callable[[], bool],
) -> StepResult | None:
    """One optimizer step, or None where `should_continue` answered False.

    `progress.weights_consistent` is True afterwards where the step was dropped, and False where it was made: whoever
    counts it sets that back. Raises NotFiniteError.
    """
    built.model.train()
    rate = config.rate(progress.step)
    # before the backward pass, in which some optimizers move weights already
    for group in built.optimizer.param_groups:
        group["lr"] = rate
    progress.weights_consistent = not config.steps_in_backward
    total = accumulate(built, rows, micro_batches, config, should_continue)
    if total is None:
        built.optimizer.zero_grad(set_to_none=True)
        # no weight has moved: an optimizer that steps in the backward pass is refused together with accumulation, so
        # that its update has one micro-batch, and the only stop is the one before it
        progress.weights_consistent = True
        return None
    loss = float(total)
    norm = float(_clip(built, config))
    if not (math.isfinite(loss) and math.isfinite(norm)):
        built.optimizer.zero_grad(set_to_none=True)
        quantity = "gradient" if math.isfinite(loss) else "loss"
        raise NotFiniteError(progress.step + 1, quantity, progress.weights_consistent)
    progress.weights_consistent = False
    built.optimizer.step()
    built.optimizer.zero_grad(set_to_none=True)
    return StepResult(loss=loss, learning_rate=rate, grad_norm=norm)


def accumulate(
    built: Built,
    rows: Sequence[EncodedRow],
    micro_batches: list[list[int]],
    config: LoopConfig,
    should_continue: Callable[[], bool],
) -> torch.Tensor | None:
    """Add the gradient of one update's micro-batches to the parameters, one micro-batch at a time.

    The summed loss of each micro-batch is multiplied by the factor that `LossReduction` gives: with `window_mean` it is
    one over the label tokens (or rows) of the whole update, whatever the micro-batches have of them. Returns the loss
    of the update, a scalar in fp64, or None where `should_continue` answered False.
    """
    reduction = LossReduction(
        name=config.settings.loss_reduction,
        micro_batches=len(micro_batches),
        update_labels=sum(
            label_count(rows[index], classes=built.classes) for micro_batch in micro_batches for index in micro_batch
        ),
    )
    total = torch.zeros((), dtype=torch.float64, device=built.device)
    for micro_batch in micro_batches:
        if not should_continue():
            return None
        batch = built.batch([rows[index] for index in micro_batch], config.packing)
        total += _backward(built, batch, reduction)
    # weights that moved during the backward pass cannot be put back, so that update counts as made
    return total if config.steps_in_backward or should_continue() else None


def _backward(built: Built, batch: Batch, reduction: LossReduction) -> torch.Tensor:
    with built.autocast():
        logits = batch_logits(built.model, batch, classes=built.classes)
    loss = sum_loss(logits, batch) * reduction.factor(batch.labels.numel())
    if loss.requires_grad:
        loss.backward()
    return loss.detach().double()


def _clip(built: Built, config: LoopConfig) -> torch.Tensor:
    """The gradient's L2 norm before clipping; gradients are clipped to `max_grad_norm` where there is one."""
    if config.steps_in_backward:  # the gradients are gone, and the optimizer has measured them
        optimizer: Any = built.optimizer
        return torch.tensor(optimizer.gradient_norm)
    gradients = [parameter.grad for parameter in built.trainable if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    limit = config.settings.optimizer.max_grad_norm
    if limit is not None:
        torch.nn.utils.clip_grads_with_norm_(built.trainable, limit, norm)
    return norm
