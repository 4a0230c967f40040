"""What a run will take at its peak, before it starts.

Comes in: a `Plan` and the device to hold it against.  Goes out: a `MemoryEstimate` by category, with an honest band,
a verdict from the band's upper edge, and what to change when it does not fit.  This is the closed form: sizes that
follow from the shape are exact, what a block keeps for the backward pass is counted from the layers of a gated
decoder (`activations.py`).  It is labelled `approximate`; a traced table would take its place behind the same door.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from tuning.hardware import Device
from tuning.memory.activations import block_saved_bytes, head_bytes, widest_recompute_bytes
from tuning.methods import method_named
from tuning.plan import Plan

MIB = 2**20
BAND = (0.75, 1.30)
"""Low and high edge of the closed form, times the estimate; the README's command prints what was measured."""
PROCESS_CPU = 560 * MIB
"""What Python with torch, transformers and PEFT holds before any model (methods.md section 2 measured 517 MB)."""
CONTEXT_CUDA = 450 * MIB
"""A stated assumption for the CUDA context and library workspace, outside torch's allocator."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryEstimate:
    """Bytes at the peak of one update. `total_bytes` is the sum of `parts`; the band is around `process_bytes`."""

    total_bytes: int
    parts: dict[str, int]
    process_bytes: int
    low_bytes: int
    high_bytes: int
    fits: bool
    kind: str
    peak_at: str
    trainable_parameters: int
    total_parameters: int
    device: str
    device_bytes: int
    fixes: list[dict[str, Any]]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def estimate(plan: Plan, device: Device | None = None) -> MemoryEstimate:
    """The estimate for this plan on `device` (default: the plan's own)."""
    target = device or plan.device
    parts, peak_at = _parts(plan)
    total = sum(parts.values())
    fixed = CONTEXT_CUDA if target.kind == "cuda" else PROCESS_CPU
    process = total + fixed
    high = int(total * BAND[1]) + fixed
    return MemoryEstimate(
        total_bytes=total, parts=parts, process_bytes=process, low_bytes=int(total * BAND[0]) + fixed, high_bytes=high,
        fits=high <= target.total_bytes, kind="approximate", peak_at=peak_at,
        trainable_parameters=int(plan.value("trainable_parameters")),
        total_parameters=int(plan.value("total_parameters")), device=target.name, device_bytes=target.total_bytes,
        fixes=_fixes(plan, total) if high > target.total_bytes else [],
    )  # fmt: skip


def _parts(plan: Plan) -> tuple[dict[str, int], str]:
    """Bytes by category at whichever is larger: the loss, or the optimizer's update."""
    settings, shape = plan.settings, plan.model.shape
    trainable, total = int(plan.value("trainable_parameters")), int(plan.value("total_parameters"))
    rows, length = min(settings.micro_batch_size, plan.data.train_rows), int(plan.value("widest_length"))
    half = settings.precision == "bf16"
    states = {"adamw": 2, "sgd": 1 if settings.optimizer.momentum else 0}[settings.optimizer.name]
    added = method_named(settings.method.name).added_parameters(shape, settings.method)
    saved = shape.num_layers * block_saved_bytes(
        shape, rows, length, half=half, eager=settings.attention == "eager", all_train=trainable == total,
        adapters=added > 0,
    )  # fmt: skip
    workspace = 8 * MIB if half else MIB // 4
    if settings.gradient_checkpointing:
        one = saved // shape.num_layers
        saved = shape.num_layers * rows * length * shape.hidden_size * 4 + one
        workspace += widest_recompute_bytes(shape, rows, length)
    if half:  # autocast keeps a 16-bit copy of each matrix until the forward pass is over
        workspace += 2 * total
    head = head_bytes(shape, rows, length, plan.labels, plan.data, half)
    kept = {"weights": 4 * total, "gradients": 4 * trainable, "optimizer": 4 * states * trainable}
    # with accumulation the gradients live through the forward pass; without, they are born while activations go
    alive = kept | ({} if settings.gradient_accumulation_steps > 1 else {"gradients": 0})
    at_loss = alive | {"activations": saved, "logits": head, "workspace": workspace}
    at_step = kept | {"activations": 0, "logits": 0, "workspace": MIB // 4}
    if sum(at_loss.values()) >= sum(at_step.values()):
        return at_loss, "loss"
    return at_step, "optimizer step"


def _fixes(plan: Plan, total: int) -> list[dict[str, Any]]:
    """Changes that lower the peak, largest first: the settings to change, the bytes saved, what it costs."""
    settings = plan.settings
    found: list[tuple[dict[str, Any], str]] = []
    micro, steps = settings.micro_batch_size, settings.gradient_accumulation_steps
    if micro > 1 and micro % 2 == 0:
        change: dict[str, Any] = {"micro_batch_size": micro // 2, "gradient_accumulation_steps": steps * 2}
        cost = f"micro-batch {micro} -> {micro // 2}, accumulation {steps} -> {steps * 2}: same effective batch, slower"
        found.append((change, cost))
    if not settings.gradient_checkpointing:
        found.append(({"gradient_checkpointing": True}, "gradient checkpointing: about a third more time"))
    if settings.method.name == "full":
        found.append(({"method": {"name": "lora"}}, "LoRA instead of full: fewer trained weights, another curve"))
    longest = int(plan.value("widest_length"))
    if longest > 32:
        change = {"data": {"max_seq_length": longest // 2}}
        found.append((change, f"max_seq_length {longest} -> {longest // 2}: long rows are cut"))
    ranked: list[dict[str, Any]] = [
        {"settings": change, "cost": cost, "saved_bytes": total - sum(_parts(_changed(plan, change))[0].values())}
        for change, cost in found
    ]
    return sorted((fix for fix in ranked if fix["saved_bytes"] > 0), key=lambda fix: -fix["saved_bytes"])


def _changed(plan: Plan, change: dict[str, Any]) -> Plan:
    """The plan with one change made to its settings, on the same data."""
    from tuning.plan import make_plan
    from tuning.settings import Settings

    plain = plan.settings.to_dict()
    data = plan.data
    for key, value in change.items():
        merged = plain[key] | value if key == "data" else value
        plain[key] = merged
    limit = plain["data"]["max_seq_length"]
    plain_data = data.to_dict()
    plain_data["lengths"] = [min(length, limit) for length in data.lengths]
    return make_plan(Settings.from_dict(plain), plan.model, type(data).from_dict(plain_data), plan.device)
