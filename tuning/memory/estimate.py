"""The estimate of a run's memory before it starts: its peak by category, a band around it, and whether it fits.

The verdict is taken from the band's upper edge. `kind` says how the figures were found: `traced` from a table of the
real training code, or `approximate` by formula where there is no table yet.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from tuning.memory.fixes import Fix, fixes, largest_micro_batch
from tuning.memory.peak_batches import batches_in_words
from tuning.memory.usage import MemoryUsage
from tuning.plan.checks import device_problems
from tuning.plan.plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryEstimate:
    """Bytes at the peak of one update, or of the evaluation where a run makes none. `total_bytes` is the sum of
    `parts`; the band is around `process_bytes`.

    The process, its band and the verdict are about the run as a whole: the highest of update, evaluation and writing.
    """

    total_bytes: int
    parts: dict[str, int]
    evaluation_bytes: int
    """Bytes of tensors at the peak of an evaluation; 0 where no rows are held out."""
    generation_bytes: int
    """Bytes of tensors at the peak while answers are written; 0 where none are."""
    process_bytes: int
    low_bytes: int
    high_bytes: int
    fits: bool
    kind: str
    why_approximate: str | None
    """Why the figures are by formula, where tracing was tried and failed."""
    batches: str
    """The batches that the figures are for, in words that follow "for": those of this run, or the widest that its rows
    can give."""
    peak_at: str
    trainable_parameters: int
    total_parameters: int
    device: str
    device_bytes: int
    device_lacks: str | None
    """What a device that is not here cannot compute of these settings, in a sentence; the sizes are right anyway."""
    largest_micro_batch: int | None
    """The largest micro_batch_size that fits, of these data, evaluations and written answers included; None where not
    even 1 does."""
    fixes: list[Fix]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def estimate(usage: MemoryUsage) -> MemoryEstimate:
    """The estimate for the plan and device of a usage."""
    plan, device = usage.plan, usage.plan.device
    parts, peak_at = usage.peak()
    total, evaluation, generation = sum(parts.values()), usage.evaluation(), usage.generation()
    process, low, high = usage.process_band(max(total, evaluation, generation))
    fits = high <= device.total_bytes
    return MemoryEstimate(
        total_bytes=total,
        parts=parts,
        evaluation_bytes=evaluation,
        generation_bytes=generation,
        process_bytes=process,
        low_bytes=low,
        high_bytes=high,
        fits=fits,
        kind=usage.kind,
        why_approximate=usage.why_approximate,
        batches=batches_in_words(plan),
        peak_at=peak_at,
        trainable_parameters=int(plan.value("trainable_parameters")),
        total_parameters=int(plan.value("total_parameters")),
        device=device.name,
        device_bytes=device.total_bytes,
        device_lacks=_device_lacks(plan),
        largest_micro_batch=largest_micro_batch(usage),
        fixes=[] if fits else [fix for fix in fixes(usage) if fix["saved_bytes"] > 0],
    )


def _device_lacks(plan: Plan) -> str | None:
    """The first thing that the plan's device cannot compute, without the full stop; None where the device is here, for
    the settings would have been refused."""
    if plan.device.here:
        return None
    problems = device_problems(plan.inputs)
    return problems[0].message.rstrip(".") if problems else None
