"""Whether a run would fit on several devices, by arithmetic on the estimate for one; training itself uses one.

There are two ways to share the work. Every device takes a micro-batch of its own, so the effective batch grows with
their number.

Data parallel keeps a whole copy on each device, and buckets in which gradients are exchanged, as large as all
gradients together (torch's DistributedDataParallel without `gradient_as_bucket_view`, whose documentation gives that
size; pytorch/pytorch#41954 measured it).  Fully sharded keeps an n-th of weights, gradients and optimizer state (ZeRO
stage 3: Rajbhandari et al. 2020, arXiv 1910.02054, section 5.3), and gathers what it computes with: a block, the next
one fetched ahead, and what lies outside the blocks, which stays gathered (Zhao et al. 2023, arXiv 2304.11277, sections
3.2 and 3.3; torch's `fully_shard` with each block and the model as units).  A gathered unit's gradients are whole
until they have been shared out.  `bench devices` holds both against torch's own code.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from tuning.core.errors import Problem, SettingsError
from tuning.memory.batch_memory import Parts
from tuning.memory.usage import MemoryUsage
from tuning.methods import method_named

MOST_DEVICES = 1024
SHARED = ("weights", "gradients", "optimizer")
"""Categories that a fully sharded run divides among its devices."""
DATA_PARALLEL, FULLY_SHARDED = "data parallel", "fully sharded"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceShare:
    """Bytes on each of `devices` devices: of its tensors, and of the whole process with its band."""

    way: str
    devices: int
    total_bytes: int
    process_bytes: int
    low_bytes: int
    high_bytes: int
    fits: bool
    effective_batch: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def device_shares(usage: MemoryUsage, count: int) -> list[DeviceShare]:
    """What each of `count` devices like the usage's own takes, for both ways to share the work. Raises
    SettingsError."""
    if isinstance(count, bool) or not 1 <= count <= MOST_DEVICES:
        limit = f"1 to {MOST_DEVICES}"
        raise SettingsError([Problem("devices", count, limit, f"must be {limit}.")])
    totals = {DATA_PARALLEL: _data_parallel_bytes(usage, count), FULLY_SHARDED: _fully_sharded_bytes(usage, count)}
    effective = int(usage.plan.value("effective_batch")) * count
    shares = []
    for way, total in totals.items():
        process, low, high = usage.process_band(total)
        shares.append(
            DeviceShare(
                way=way,
                devices=count,
                total_bytes=total,
                process_bytes=process,
                low_bytes=low,
                high_bytes=high,
                fits=high <= usage.plan.device.total_bytes,
                effective_batch=effective,
            )
        )
    return shares


def _data_parallel_bytes(usage: MemoryUsage, count: int) -> int:
    """One device's peak, and the buckets in which gradients are exchanged."""
    return usage.peak_of_run() + (4 * int(usage.plan.value("trainable_parameters")) if count > 1 else 0)


def _fully_sharded_bytes(usage: MemoryUsage, count: int) -> int:
    """The highest point of an update, or of an evaluation, with its lasting part shared out."""
    if count == 1:
        return usage.peak_of_run()
    units = _units_of(usage)
    candidates = usage.points_to_shard()
    update = max(_shared_total(parts, count) + units.whole(place, count) for place, parts in candidates)
    lasting = sum(candidates[0][1][name] for name in ("weights", "optimizer"))
    between = max(usage.evaluation(), usage.generation())
    passing = between - lasting + lasting // count if between else 0
    return max(update, passing + units.outside + 2 * units.block)


def _shared_total(parts: Parts, count: int) -> int:
    """Bytes of all categories where each device holds one share in `count` of those that are shared out."""
    lasting = sum(parts[name] for name in SHARED)
    return sum(parts.values()) - lasting + lasting // count


@dataclass(frozen=True, slots=True, kw_only=True)
class _Units:
    """Bytes of the units in which a model is gathered, a block and what lies outside the blocks, and of their
    gradients."""

    outside: int
    block: int
    outside_gradient: int
    block_gradient: int

    def whole(self, place: str, count: int) -> int:
        """Bytes that are whole at this place of a table: gathered weights, gradients that are not shared out yet.

        What lies outside the blocks stays gathered from the first forward pass to the end of the backward pass, and
        its gradient whole from the output layer's backward pass on. Of the blocks two are gathered, one of them ahead
        of its turn; one has its gradient whole and its share beside it. A first micro-batch's gradients are in the
        table as they come, of which an n-th was counted already; those of later ones come on top.
        """
        micro, _, words = place.partition(".")
        if words == "optimizer step":
            return 0
        if words in ("loss", "backward of the loss"):
            return self.outside
        blocks = 1 if words == "backward of layer 1" else 2
        gathered = self.outside + blocks * self.block
        if not words.startswith("backward"):
            return gathered
        gradients = self.outside_gradient + self.block_gradient
        counted = gradients // count if micro == "0" else 0
        return gathered + gradients - counted + self.block_gradient // count


def _units_of(usage: MemoryUsage) -> _Units:
    plan = usage.plan
    shape, settings = plan.model.shape, plan.settings.method
    weights = method_named(settings.name).weight_bytes(shape, settings, plan.class_count)
    head = (
        shape.classifier_parameters(plan.class_count) if plan.class_count else shape.parameters - shape.body_parameters
    )
    outside = 4 * (shape.body_parameters - shape.num_layers * shape.block_parameters + head)
    block, trained = max(0, weights - outside) // shape.num_layers, 4 * int(plan.value("trainable_parameters"))
    # all weights are trained, or few, which are taken to lie in the blocks; an embedding's gradient comes last
    early = outside if shape.tied or plan.class_count else 4 * head
    whole = float(plan.value("trainable_share")) > 0.5
    return _Units(
        outside=outside,
        block=block,
        outside_gradient=early if whole else 0,
        block_gradient=block if whole else trained // shape.num_layers,
    )
