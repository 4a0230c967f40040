"""The estimate by formula, for where no table has been traced: labelled `approximate`, with a wider band.

The peak is taken to be the larger of the loss and the optimizer's update. Sizes that follow from the shape are exact;
what a block keeps for its backward pass is counted for blocks with RMS norms, rotary positions and a gated feed-forward
as `transformers` writes them; other families come close.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from tuning.memory.batch_memory import Parts
from tuning.memory.peak_batches import cached_features_bytes
from tuning.memory.workload import CATEGORIES, config_of
from tuning.methods import method_named
from tuning.models.base_model import ModelShape
from tuning.models.families import DROPOUT_GROUPS
from tuning.plan.micro_batches import BatchShape, PeakCandidate
from tuning.plan.plan import Plan
from tuning.settings.optimizers import optimizer_named
from tuning.settings.schema import OptimizerSettings

MIB = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class FormulaMemory:
    """Answers from the shape of a plan's model and its settings; it implements `BatchMemory`."""

    plan: Plan

    @property
    def kind(self) -> str:
        return "approximate"

    def with_plan(self, plan: Plan) -> FormulaMemory:
        return FormulaMemory(plan=plan)

    def peak(self, batch: PeakCandidate) -> tuple[Parts, str]:
        return _update_peak(self.plan, batch)

    def total(self, batch: PeakCandidate) -> int:
        return sum(_update_peak(self.plan, batch)[0].values())

    def points_to_shard(self, batches: Sequence[PeakCandidate]) -> list[tuple[PeakCandidate, str, Parts]]:
        """The peak of the highest micro-batch alone: the formula has no other points."""
        batch = max(batches, key=lambda batch: self.total(batch) + cached_features_bytes(self.plan, batch.shape))
        parts, place = self.peak(batch)
        return [(batch, f"0.{place}", parts)]

    def through_step(self, batch: PeakCandidate) -> list[tuple[str, int]]:
        """Empty: the formula has no order of time."""
        return []

    def forward_peak(self, shape: BatchShape) -> tuple[Parts, str]:
        total, plan = self.forward_total(shape), self.plan
        method = plan.settings.method
        weights = min(total, method_named(method.name).weight_bytes(plan.model.shape, method, plan.class_count))
        return dict.fromkeys(CATEGORIES, 0) | {"weights": weights, "activations": total - weights}, "forward"

    def forward_total(self, shape: BatchShape) -> int:
        """One block's own tensors, or the logits, beside what lasts: a pass without gradients keeps nothing else."""
        plan, model, tokens = self.plan, self.plan.model.shape, shape.rows * shape.length
        heads = (model.num_heads + model.num_kv_heads) * model.head_dim
        inner = (5 if model.gated else 4) * model.intermediate_size
        block = 4 * tokens * (2 * model.hidden_size + max(2 * heads, inner))
        if plan.settings.attention == "eager":
            block += 2 * 4 * shape.rows * model.num_heads * shape.length**2
        return sum(_lasting_bytes(plan)) + max(block, head_bytes(model, shape, plan.class_count))


def _update_peak(plan: Plan, batch: PeakCandidate) -> tuple[Parts, str]:
    """Bytes by category at the peak of this micro-batch or the update after it, and the name of that point."""
    settings, model, shape = plan.settings, plan.model.shape, batch.shape
    trainable, total = int(plan.value("trainable_parameters")), int(plan.value("total_parameters"))
    half = settings.precision == "autocast_bf16"
    saved = model.num_layers * block_saved_bytes(
        model,
        shape.rows,
        shape.length,
        half=half,
        matrices=attention_matrices(plan),
        inner=inner_tensors(plan),
        all_train=trainable == total,
        adapters=trainable != total,
    )
    workspace = 8 * MIB if half else MIB // 4
    if settings.gradient_checkpointing:
        block = saved // model.num_layers
        saved = model.num_layers * shape.rows * shape.length * model.hidden_size * 4 + block
        workspace += widest_recompute_bytes(model, shape.rows, shape.length)
    if half:  # autocast keeps a 16-bit copy of each matrix until the forward pass is over
        workspace += 2 * total
    head = head_bytes(model, shape, plan.class_count)
    weights, states = _lasting_bytes(plan)
    lasting = {"weights": weights, "gradients": 4 * trainable, "optimizer": states}
    # with accumulation the gradients live through the forward pass; without, they are born while activations go
    alive = lasting | ({} if batch.accumulate else {"gradients": 0}) | ({"optimizer": 0} if batch.first else {})
    at_loss = alive | {"activations": saved, "logits": head, "workspace": workspace}
    at_step = lasting | {"activations": 0, "logits": 0, "workspace": MIB // 4}
    if sum(at_loss.values()) >= sum(at_step.values()):
        return at_loss, "loss"
    return at_step, "optimizer step"


def _lasting_bytes(plan: Plan) -> tuple[int, int]:
    """Bytes of the weights, and of the optimizer's state."""
    settings = plan.settings
    weights, values = _weights_and_values(plan.model.shape, settings.method, plan.class_count)
    return weights, int(4 * values * optimizer_values(settings.optimizer))


def optimizer_values(chosen: OptimizerSettings) -> float:
    """Values that an optimizer keeps for each trained weight."""
    return optimizer_named(chosen.name).values_per_weight(chosen)


@lru_cache(maxsize=64)
def _weights_and_values(shape: ModelShape, method: Any, class_count: int) -> tuple[int, int]:
    """Bytes of the weights, and values of an optimizer that keeps one of each trained weight.

    Cached, for a search over sizes asks for them often.
    """
    chosen = method_named(method.name)
    return chosen.weight_bytes(shape, method, class_count), chosen.optimizer_values(shape, method, class_count, 1)


def attention_matrices(plan: Plan) -> int:
    """Matrices of length x length that a block keeps of its attention: the scores' softmax and what is made of it.

    With dropout there is no other way on a processor than to store them, a mask of numbers among them.
    """
    model, config = plan.model.shape, _config(plan)
    given = next((config[group[-1]] for group in DROPOUT_GROUPS if group[-1] in config), None)
    by_default = model.family.positions and model.family.default_dropout
    has_dropout = bool(by_default if given is None else given)
    if has_dropout and plan.device.kind == "cpu":
        return 3
    return 2 if plan.settings.attention == "eager" else 0


def inner_tensors(plan: Plan) -> int:
    """Tensors as wide as the feed-forward that a block keeps: of an activation written out in steps, those of each."""
    config = _config(plan)
    family, stepwise = plan.model.shape.family, ("gelu_new", "gelu_fast")
    named = any(config.get(name) in stepwise for name in ("activation_function", "hidden_act"))
    written_out = named or family.stepwise_activation
    return 4 if family.gated else 6 if written_out else 2


def _config(plan: Plan) -> dict[str, Any]:
    try:
        return config_of(plan.model.path)
    except (OSError, ValueError):  # the folder has gone since
        return {}


def block_saved_bytes(
    shape: ModelShape, rows: int, length: int, *, half: bool, matrices: int, inner: int, all_train: bool, adapters: bool
) -> int:
    """Saved tensors of one block for rows x length tokens, in bytes.

    hidden-wide: the norm's input, its normalised form and its output, twice; the attention's output projection input.
    Query, key and value are kept after the rotation. inner-wide: gate, its activation, up, and their product.
    A frozen weight's input is not kept, but an adapter beside it keeps it all the same. `matrices` are attention's of
    length x length, `inner` the tensors as wide as the feed-forward.
    """
    tokens = rows * length
    hidden = shape.hidden_size
    query, key = shape.num_heads * shape.head_dim, shape.num_kv_heads * shape.head_dim
    wide = 2 if half else 4
    norms = tokens * hidden * (4 * 4 + 2 * wide)
    attention = tokens * wide * (2 * query + 2 * key) + tokens * shape.num_heads * 4
    attention += matrices * rows * shape.num_heads * length * length * wide
    forward = tokens * shape.intermediate_size * wide * inner
    if not (all_train or adapters):
        norms -= 2 * tokens * hidden * wide
        forward -= tokens * shape.intermediate_size * wide
    return int(norms + attention + forward)


def head_bytes(model: ModelShape, shape: BatchShape, class_count: int) -> int:
    """Logits and what the loss keeps of them: only positions that are trained on go through the head."""
    tokens = shape.rows * shape.length
    if class_count:
        return shape.rows * class_count * 4 * 3 + tokens * model.hidden_size * 4
    return shape.label_tokens * model.vocab_size * 4 * 3 + tokens * model.hidden_size * 4


def widest_recompute_bytes(shape: ModelShape, rows: int, length: int) -> int:
    """Short-lived buffers of the backward pass of one recomputed block."""
    return rows * length * (shape.hidden_size + shape.intermediate_size) * 4
