"""IA3: the model is frozen; keys, values and the feed-forward are each multiplied by a learned vector."""

from __future__ import annotations

from typing import Any

from tuning.methods.base import MethodSettings, PeftMethod, unnamed_heads
from tuning.methods.network import ADDED, FEED_FORWARD, Linear, Part, block_name, linears, model_parts, target_pattern
from tuning.models.base_model import ModelShape, shape_from_config


class Ia3Settings(MethodSettings):
    """IA3 has nothing to set."""

    name: str = "ia3"


class Ia3(PeftMethod[Ia3Settings]):
    name = "ia3"
    title = "IA3"
    card = (
        "Freezes the model and learns one factor for each output of keys and values and each input of the last "
        "feed-forward layer. The fewest trained weights of all that reach inside the blocks; learns simple shifts well "
        "and new facts hardly."
    )
    source = "Liu et al. 2022, arXiv 2205.05638"
    settings = Ia3Settings
    default_learning_rate = 3e-2
    learning_rate_reason = "the factors start at 1 and are few, so they need about ten times LoRA's rate"
    needs_known_layers = True

    def parameter_groups(self, shape: ModelShape, settings: Ia3Settings, class_count: int) -> list[Part]:
        attention, forward = _targets(shape)
        each = sum(linear.out for linear in attention) + sum(linear.into for linear in forward)
        blocks = range(1, shape.num_layers + 1)
        added = [Part(layer=block_name(n), name="factors", state=ADDED, parameters=each) for n in blocks]
        return model_parts(shape, class_count) + added

    def apply(self, model: Any, settings: Ia3Settings, task: str) -> Any:
        from peft import IA3Config, TaskType, get_peft_model

        shape = shape_from_config(model.config.to_dict())
        attention, forward = _targets(shape)
        config = IA3Config(
            target_modules=target_pattern(shape, attention + forward),
            feedforward_modules=target_pattern(shape, forward),
            task_type=TaskType.SEQ_CLS if task == "sequence_classification" else TaskType.CAUSAL_LM,
            modules_to_save=unnamed_heads(model, task),
        )
        return get_peft_model(model, config)

    def merge(self, model: Any) -> Any | None:
        return model.merge_and_unload()

    def merged_shape(self, shape: ModelShape, settings: Ia3Settings, class_count: int) -> ModelShape | None:
        return shape


def _targets(shape: ModelShape) -> tuple[list[Linear], list[Linear]]:
    """Keys and values (whole, where a family fuses them with queries), and the feed-forward's last layer."""
    by_name = {linear.name: linear for linear in linears(shape)}
    keys = [by_name[name] for name in shape.family.scaled_by_ia3]
    return keys, [[linear for linear in linears(shape) if linear.half == FEED_FORWARD][-1]]


METHOD = Ia3()
