"""Feature extraction: the whole body is frozen; only what reads its last states is trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from tuning.core.errors import Problem
from tuning.core.fields import WHOLE
from tuning.methods.base import Method, MethodInputs, MethodSettings, freeze
from tuning.methods.network import ADDED, HEAD, TRAINED, Part, body_parts, model_parts
from tuning.models.base_model import ModelShape

Head = Literal["auto", "lm_head", "linear", "mlp", "kan"]
Activation = Literal["identity", "sigmoid", "tanh", "relu", "gelu", "silu"]
CACHE_LIMIT = 4 * 2**30
"""The most bytes of features that are cached."""


class FeatureSettings(MethodSettings):
    name: str = "feature_extraction"
    head: Head = "auto"
    """What is trained: the output layer for text; linear, mlp or kan for classes. auto takes lm_head or linear."""
    depth: Annotated[int, Field(ge=0, le=6), WHOLE] = 1
    """Hidden layers of an mlp or kan head. Deeper fits bends, and more easily noise."""
    width: Annotated[int, Field(ge=1, le=8192), WHOLE] = 64
    """Width of those hidden layers."""
    activation: Activation = "relu"
    """Between an mlp's layers. identity makes any depth a linear head; sigmoid learns slowly when deep."""
    grid: Annotated[int, Field(ge=2, le=64), WHOLE] = 8
    """Bumps on each edge of a kan head. More draw finer functions, and cost that many weights an edge."""
    pooling: Literal["auto", "last", "mean", "first"] = "auto"
    """Which states stand for a text, for classes: auto takes the mean; a decoder has read all only at the last."""
    cache: bool = True
    """Compute each row's features once and keep them: after the first pass an epoch costs next to nothing."""
    random_body: bool = False
    """The control: a body of random weights. What it reaches, the head has learned without any pretraining."""


class FeatureExtraction(Method[FeatureSettings]):
    name = "feature_extraction"
    title = "Feature extraction"
    card = (
        "Freezes the whole body and trains only a head on its last states: cheapest of all, keeps everything the model "
        "knew, and works exactly as far as the pretrained features hold what the task asks. Features are computed once."
    )
    source = "Donahue et al. 2013, arXiv 1310.1531; KAN heads: Liu et al. 2024, arXiv 2404.19756"
    settings = FeatureSettings
    cheaper_methods: tuple[str, ...] = ("qlora",)
    new_pooler = True
    default_learning_rate = 3e-3
    learning_rate_reason = "only the last layer moves, and nothing behind it can be upset"
    own_loader = True
    shapes_adapter = ("head", "depth", "width", "activation", "grid", "pooling", "random_body")

    def parameter_groups(self, shape: ModelShape, settings: FeatureSettings, class_count: int) -> list[Part]:
        if not class_count:
            parts = model_parts(shape, 0, lambda part: part.layer == HEAD and not shape.tied)
            if shape.tied:
                output = shape.vocab_size * shape.hidden_size
                parts.append(
                    Part(layer=HEAD, name="a copy, untied from the embeddings", state=ADDED, parameters=output)
                )
            return parts
        kind = head_kind(settings, class_count)
        sizes = [shape.hidden_size, *([settings.width] * settings.depth if kind != "linear" else []), class_count]
        edges = sum(into * out for into, out in zip(sizes, sizes[1:]))
        count = edges * (1 + settings.grid) + sum(sizes[1:]) if kind == "kan" else edges + sum(sizes[1:])
        new = Part(layer=HEAD, name=f"new, {kind}, for {class_count} classes", state=TRAINED, parameters=count)
        return [*body_parts(shape), new]

    def problems(self, inputs: MethodInputs, settings: FeatureSettings) -> list[Problem]:
        problems = []
        fitting = ("linear", "mlp", "kan") if inputs.class_count else ("lm_head",)
        if head_kind(settings, inputs.class_count) not in fitting:
            limit = " or ".join(fitting)
            task_words = "chooses among classes" if inputs.class_count else "writes text, which takes its output layer"
            problems.append(
                Problem("method.head", settings.head, limit, f"this task {task_words}; set head to {limit}, or auto")
            )
        if inputs.class_count == 1:
            message = "a head needs at least two classes to tell apart; use data with two labels or more"
            problems.append(Problem("method.head", settings.head, "two classes or more", message))
        if inputs.gradient_checkpointing:
            message = "a frozen body keeps no activations, so there is nothing to recompute; set it to false"
            problems.append(Problem("gradient_checkpointing", True, "false", message))
        size = inputs.label_tokens * inputs.shape.hidden_size * 4
        if settings.cache and size > CACHE_LIMIT:
            message = (
                f"the features of all labels would take {size / 2**30:.1f} GiB; set cache to false, or use fewer rows"
            )
            problems.append(Problem("method.cache", True, f"up to {CACHE_LIMIT >> 30} GiB", message))
        return problems

    def summary(self, settings: FeatureSettings) -> str:
        return (
            "Head"
            + ("" if settings.head == "auto" else f" {settings.head}")
            + (" on a random body" if settings.random_body else "")
        )

    def apply(self, model: Any, settings: FeatureSettings, task: str) -> Any:
        from tuning.methods.torch_heads import HeadOnBody, redraw, stay_in_eval, untie

        body = getattr(model, model.base_model_prefix)
        if task == "causal_lm":
            untie(model)
            stay_in_eval(body)
            freeze(model)
            model.get_output_embeddings().requires_grad_(True)
            model.head_plan = {"kind": "lm_head", "random_body": settings.random_body}
        else:
            class_count = model.config.num_labels
            plan = {
                "kind": head_kind(settings, class_count),
                "into": model.config.hidden_size,
                "out": class_count,
                "depth": settings.depth,
                "width": settings.width,
                "activation": settings.activation,
                "grid": settings.grid,
                "pooling": "mean" if settings.pooling == "auto" else settings.pooling,
                "random_body": settings.random_body,
            }
            freeze(model)
            model = HeadOnBody(body, plan)
            model.head_plan = plan
        if settings.random_body:
            redraw(body)
        return model

    def own_head(self, settings: FeatureSettings) -> bool:
        return True

    def caches_features(self, settings: FeatureSettings) -> bool:
        return settings.cache

    def save(self, model: Any, folder: Path) -> None:
        from tuning.methods.torch_heads import save_head

        save_head(model, model.head_plan, folder)

    def load(self, model: Any, folder: Path) -> Any:
        from tuning.methods.torch_heads import put_head

        return put_head(model, folder)

    def merge(self, model: Any) -> Any | None:
        """A trained output layer is a whole model; a head of our own has no class in `transformers`."""
        return model if model.head_plan["kind"] == "lm_head" else None

    def merged_shape(self, shape: ModelShape, settings: FeatureSettings, class_count: int) -> ModelShape | None:
        return None if class_count else replace(shape, tied=False)

    def train_on(self, model: Any, folder: Path) -> None:
        from tuning.methods.torch_heads import put_weights

        put_weights(model, folder)


def head_kind(settings: FeatureSettings, class_count: int) -> str:
    """The head that these settings mean, `auto` decided by the number of classes."""
    return ("linear" if class_count else "lm_head") if settings.head == "auto" else settings.head


METHOD = FeatureExtraction()
