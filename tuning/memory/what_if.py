"""What a run's memory would be if rows, length or method were other, for the charts under "More about memory".

Every number comes from the same tables as the estimate; methods whose tables have not been made are left out.
"""

from __future__ import annotations

from typing import Any, TypedDict

from tuning.memory.fixes import MOST_ROWS, Fix, fixes, largest_micro_batch, most_rows
from tuning.memory.multi_device import device_shares
from tuning.memory.peak_batches import longest_row
from tuning.memory.usage import MemoryUsage, usage_of, with_settings_unchecked
from tuning.methods import METHODS, method_named
from tuning.plan.plan import Plan

ROWS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
SHARES = (0.125, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
"""Lengths that are drawn, as shares of the longest row."""
LEAST_TOKENS = 8
DEVICE_COUNTS = (2, 4, 8)


class DeviceSize(TypedDict):
    """The device that the figures are held against."""

    name: str
    bytes: int


class StepPoint(TypedDict):
    """A point of one update, in order of time."""

    place: str
    bytes: int


class Curve(TypedDict):
    """Bytes of one method at each value of an axis: of the tensors at the update's peak, and of the whole process."""

    method: str
    title: str
    tensors: list[int]
    process: list[int]


class Curves(TypedDict):
    """Curves over the `values` of one size, that of the chosen method first; `at` is what the settings have."""

    at: int
    values: list[int]
    curves: list[Curve]


class RowsAndSteps(TypedDict):
    """A micro-batch size and accumulation steps."""

    rows: int
    steps: int


class WhatIf(TypedDict):
    """The answer of POST /fork/memory, without `pending`.

    Where a run makes no updates, tensors are those of its evaluation, and `effective_batch` is None. `reaches` are the
    most rows that fit and give exactly the effective batch, with their accumulation steps; `all_rows` is how many rows
    there are, where all of them at once fit.
    """

    kind: str
    why_approximate: str | None
    device: DeviceSize
    step: list[StepPoint]
    rows: Curves
    lengths: Curves
    several: list[dict[str, Any]]
    fits: bool
    largest_micro_batch: int | None
    all_rows: int | None
    effective_batch: float | None
    reaches: RowsAndSteps | None
    fixes: list[Fix]
    settings: dict[str, Any]


def what_if(usage: MemoryUsage) -> WhatIf:
    """Memory through one update, against rows at once and against the longest row, and what to change."""
    plan, device = usage.plan, usage.plan.device
    largest = largest_micro_batch(usage)
    data_rows = plan.data.train_rows if usage.trains else plan.data.eval_rows
    lengths = _lengths(plan)
    usages = [usage, *_other_methods(usage)]
    counts = DEVICE_COUNTS if usage.trains else ()
    shared = [share.to_dict() for count in counts for share in device_shares(usage, count)]
    return {
        "kind": usage.kind,
        "why_approximate": usage.why_approximate,
        "device": {"name": device.name, "bytes": device.total_bytes},
        "step": [{"place": place, "bytes": size} for place, size in usage.through_step()],
        "rows": {
            "at": plan.settings.micro_batch_size,
            "values": list(ROWS),
            "curves": [_curve(other, [{"row_count": rows} for rows in ROWS]) for other in usages],
        },
        "lengths": {
            "at": longest_row(plan),
            "values": lengths,
            "curves": [_curve(other, [{"length": length} for length in lengths]) for other in usages],
        },
        "several": shared,
        "fits": usage.fits(),
        "largest_micro_batch": largest,
        "all_rows": data_rows if largest == most_rows(usage) < MOST_ROWS else None,
        "effective_batch": plan.value("effective_batch") if usage.trains else None,
        "reaches": _same_effective_batch(usage) if usage.trains else None,
        "fixes": fixes(usage),
        "settings": plan.settings.to_dict(),
    }


def _same_effective_batch(usage: MemoryUsage) -> RowsAndSteps | None:
    """The most rows that fit with the steps that keep the effective batch; None where not even one row fits."""
    settings = usage.plan.settings
    product = settings.micro_batch_size * settings.gradient_accumulation_steps
    for rows in range(product, 0, -1):
        if product % rows == 0 and usage.fits(rows):
            return {"rows": rows, "steps": product // rows}
    return None


def _lengths(plan: Plan) -> list[int]:
    """The numbers of tokens to draw: shares of the longest row up to what the model has positions for."""
    longest = longest_row(plan)
    limit = plan.model.shape.max_positions
    lengths = {min(limit, max(LEAST_TOKENS, round(longest * share))) for share in SHARES}
    return sorted(lengths | {longest})


def _curve(usage: MemoryUsage, sizes: list[dict[str, int]]) -> Curve:
    """The curve of a usage over these sizes, each an argument of `MemoryUsage.total`."""
    method = usage.plan.settings.method.name
    return {
        "method": method,
        "title": method_named(method).title,
        "tensors": [usage.total(**size) for size in sizes],
        "process": [usage.process_band(usage.peak_of_run(**size))[0] for size in sizes],
    }


def _other_methods(usage: MemoryUsage) -> list[MemoryUsage]:
    """The same plan with each other method that makes updates and has a table, at the method's defaults."""
    chosen = usage.plan.settings.method.name
    candidates = [method for method in METHODS if method.updates and method.name != chosen]
    usages = [usage_of(with_settings_unchecked(usage.plan, {"method": method.settings()})) for method in candidates]
    return [other for other in usages if other.kind == "traced"]
