"""The optimizers, one record each: all that the form, the plan, the estimate and the advice about memory need.

`training/optimizers.py` makes each of them with torch. To add one: a record here, its name in `OptimizerSettings.name`,
and its line in `training.optimizers.MAKERS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tuning.settings.schema import OptimizerSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimizer:
    """An optimizer as it is known without torch."""

    name: str
    title: str
    """As people write it, for the form."""
    values_per_weight: Callable[[OptimizerSettings], float]
    """Values of 4 bytes that the optimizer keeps for each trained weight between updates; fractions where it stores
    them in fewer bits, or for rows and columns instead of single weights."""
    rate_factor: int = 1
    """Its usual learning rate as a multiple of AdamW's; a method's default rate is multiplied by it."""
    rate_reason: str = ""
    """The reason for `rate_factor`, for the plan."""
    as_fix: str | None = None
    """Its cost in words where it is offered to save memory, in the order of the records; None where it is not
    offered."""


OPTIMIZERS: tuple[Optimizer, ...] = (
    Optimizer(name="adamw", title="AdamW", values_per_weight=lambda settings: 2.0),
    Optimizer(
        name="sgd",
        title="SGD",
        values_per_weight=lambda settings: 1.0 if settings.momentum else 0.0,
        rate_factor=100,
        rate_reason="SGD does not divide by the gradient's size",
    ),
    Optimizer(
        name="adamw_8bit",
        title="8-bit AdamW",
        values_per_weight=lambda settings: 0.52,
        as_fix="8-bit AdamW: its two values a weight are rounded, nearly the same curve",
    ),
    Optimizer(
        name="adafactor",
        title="Adafactor",
        values_per_weight=lambda settings: 0.1,
        rate_factor=10,
        rate_reason="Adafactor measures its steps by the size of the weights, which is far below one",
        as_fix="Adafactor: another optimizer with hardly any state, another curve",
    ),
    Optimizer(name="muon", title="Muon", values_per_weight=lambda settings: 1.0),
)
_BY_NAME = {optimizer.name: optimizer for optimizer in OPTIMIZERS}


def optimizer_named(name: str) -> Optimizer:
    """The record of that name; raises KeyError."""
    return _BY_NAME[name]
