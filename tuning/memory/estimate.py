"""What a run will take at its peak, before it starts.

Comes in: a `Plan` and the device to hold it against.  Goes out: a `MemoryEstimate` by category, with an honest band,
a verdict from the band's upper edge, and what to change when it does not fit.  `kind` says how it was found: `traced`
from a table of the real training code (`tables.py`), or `approximate` by formula where there is no table yet.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from tuning.hardware import Device
from tuning.memory.fixes import fixes, largest_micro_batch
from tuning.memory.known import known
from tuning.memory.moments import which
from tuning.plan import Plan
from tuning.refusals import device_lacks


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
    """The same while answers are written; 0 where none are."""
    process_bytes: int
    low_bytes: int
    high_bytes: int
    fits: bool
    kind: str
    why_approximate: str | None
    """Why it is by formula, where tracing was tried and failed."""
    batches: str
    """Which batches it is for, in words that follow "for": those that the run will have, or the widest that can be."""
    peak_at: str
    trainable_parameters: int
    total_parameters: int
    device: str
    device_bytes: int
    device_lacks: str | None
    """What of these settings a device that is not here cannot compute, in a sentence; the sizes are right anyway."""
    largest_micro_batch: int | None
    """The largest micro_batch_size that fits, of these data, evaluations and written answers included; None where not
    even 1 does."""
    fixes: list[dict[str, Any]]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def estimate(plan: Plan, device: Device | None = None, *, make: bool = False) -> MemoryEstimate:
    """The estimate for this plan on `device` (default: the plan's own)."""
    target = device or plan.device
    found = known(plan.on(target), make=make)
    parts, peak_at = found.peak()
    total, evaluation, generation = sum(parts.values()), found.evaluation(), found.generation()
    process, low, high = found.process(max(total, evaluation, generation), target)
    trainable, everything = int(plan.value("trainable_parameters")), int(plan.value("total_parameters"))
    return MemoryEstimate(
        total_bytes=total,
        parts=parts,
        evaluation_bytes=evaluation,
        generation_bytes=generation,
        process_bytes=process,
        low_bytes=low,
        high_bytes=high,
        fits=high <= target.total_bytes,
        kind=found.kind,
        why_approximate=found.why_approximate,
        batches=which(plan),
        peak_at=peak_at,
        trainable_parameters=trainable,
        total_parameters=everything,
        device=target.name,
        device_bytes=target.total_bytes,
        device_lacks=_lacks(plan.on(target)),
        largest_micro_batch=largest_micro_batch(found, target),
        fixes=[fix for fix in fixes(found, target) if fix["saved_bytes"] > 0] if high > target.total_bytes else [],
    )


def _lacks(plan: Plan) -> str | None:
    if plan.device.here:  # it would have been refused
        return None
    found = device_lacks(plan.settings, plan.model, plan.data, plan.device)
    return found[0].message.rstrip(".") if found else None
