"""What to change so that a run takes less memory, ranked, each with what it saves and what it costs.

Comes in: what is known about a plan, a device.  Goes out: settings changes; and the inverse answer, the largest
micro-batch that fits.
"""

from __future__ import annotations

from typing import Any

from tuning.architectures import supports_sdpa
from tuning.hardware import Device
from tuning.memory.known import Known, changed, known
from tuning.methods import method_named

MOST_ROWS = 4096


def largest_micro_batch(found: Known, device: Device) -> int | None:
    """The most rows at once whose upper edge stays on the device; more than the data has are never at once."""
    low, high = 0, min(MOST_ROWS, found.plan.data.train_rows)
    while low < high:
        middle = (low + high + 1) // 2
        if found.fits(device, middle):
            low = middle
        else:
            high = middle - 1
    return low or None


def fixes(found: Known, device: Device) -> list[dict[str, Any]]:
    """Changes that lower an update's peak: those that suffice first, then by bytes saved. `time_percent` is rough.

    What suffices is judged by the whole run, evaluations and written answers included.
    """
    plan = found.plan
    ranked = []
    for settings, cost, time in [*_smaller_batch(found, device), *_others(found)]:
        length = settings.get("data", {}).get("max_seq_length")
        fields = {name: value for name, value in settings.items() if name not in ("data", "method", "optimizer")}
        if "method" in settings:
            fields["method"] = method_named(settings["method"]["name"]).settings()
        other = known(changed(plan, fields)) if fields else found
        if other.kind != found.kind:  # compare like with like: both by formula
            other = Known(plan=other.plan, subject=None, table=None)
        base = found if other.kind == found.kind else _by_formula(found)
        saved = base.total() - other.total(length=length)
        high = found.process(found.highest() - base.highest() + other.highest(length=length), device)[2]
        if saved > 0:
            ranked.append({
                "settings": settings, "cost": cost, "saved_bytes": saved, "time_percent": time,
                "fits": high <= device.total_bytes,
            })  # fmt: skip
    return sorted(ranked, key=lambda fix: (not fix["fits"], -fix["saved_bytes"]))


def _by_formula(found: Known) -> Known:
    return Known(plan=found.plan, subject=None, table=None)


def _smaller_batch(found: Known, device: Device) -> list[tuple[dict[str, Any], str, int]]:
    """The largest divisor of the micro-batch that fits, else 1: the effective batch stays the same."""
    micro, steps = found.plan.settings.micro_batch_size, found.plan.settings.gradient_accumulation_steps
    smaller = [rows for rows in range(micro - 1, 0, -1) if micro % rows == 0]
    if not smaller:
        return []
    rows = next((rows for rows in smaller if found.fits(device, rows)), smaller[-1])
    if found.fits(device):
        rows = smaller[0]
    change = {"micro_batch_size": rows, "gradient_accumulation_steps": steps * micro // rows}
    more = f"micro-batch {micro} -> {rows}, accumulation {steps} -> {steps * micro // rows}"
    cost = f"{more}: same effective batch, slower"
    return [(change, cost, 5 * (micro // rows - 1) if micro // rows < 4 else 20)]


def _others(found: Known) -> list[tuple[dict[str, Any], str, int]]:
    settings = found.plan.settings
    options: list[tuple[dict[str, Any], str, int]] = []
    if not settings.gradient_checkpointing:
        options.append(({"gradient_checkpointing": True}, "gradient checkpointing: about a third more time", 33))
    if settings.attention == "eager" and supports_sdpa(found.plan.model.shape.model_type):
        options.append(({"attention": "sdpa"}, "attention sdpa instead of eager: the same answer, no slower", 0))
    if found.plan.value("trainable_share") > 0.5:
        options.append(({"method": {"name": "lora"}}, "LoRA instead of full: fewer trained weights, another curve", 0))
    longest = int(found.plan.value("widest_length"))
    if longest > 32:
        change = {"data": {"max_seq_length": longest // 2}}
        options.append((change, f"max_seq_length {longest} -> {longest // 2}: long rows are cut", -30))
    return options
