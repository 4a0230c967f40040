"""LoRA: the model is frozen; beside chosen linear layers a product of two small matrices learns the change."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import Field

from tuning.core.errors import Problem
from tuning.core.fields import WHOLE, Text
from tuning.methods.base import MethodInputs, MethodSettings, PeftMethod, target_problems, unnamed_heads, words_pattern
from tuning.methods.network import ADDED, Part, block_name, chosen_linears, model_parts
from tuning.models.base_model import ModelShape

TARGETS = ("all-linear", "attention", "feed-forward", "q_proj+v_proj")
Init = Literal["default", "gaussian", "pissa", "olora"]
INITS: tuple[Init, ...] = get_args(Init)
MOVES_THE_BASE = ("pissa", "olora")
"""Starts that take a part out of the base weights and put it into the adapter."""


class LoraSettings(MethodSettings):
    """Fields as PEFT names them; the string under a field is its help."""

    name: str = "lora"
    r: Annotated[int, Field(ge=1, le=8192), WHOLE] = 8
    """Rank of the two small matrices. Higher learns more detail, and costs memory in proportion."""
    alpha: Annotated[float, Field(gt=0.0, le=100_000)] = 16.0
    """The learned change is multiplied by alpha / r. Usually r or 2 r."""
    dropout: Annotated[float, Field(ge=0.0, le=0.99)] = 0.0
    """Share of the adapter's inputs dropped in training. Above 0 different micro-batch cuts differ."""
    target_modules: Annotated[Text, Field(examples=[*TARGETS])] = "all-linear"
    """Which linear layers get an adapter: all-linear, attention, feed-forward, or module names joined by +."""
    rslora: bool = False
    """Scale by alpha / sqrt(r) instead, which keeps high ranks learning (arXiv 2312.03732)."""
    dora: bool = False
    """Learn size and direction apart (DoRA, arXiv 2402.09353). About 1.6 times slower here."""
    init: Init = "default"
    """How the matrices start: default and gaussian at no change; pissa and olora from the weights' own main parts."""


L = TypeVar("L", bound=LoraSettings)


class LowRankMethod(PeftMethod[L]):
    """What LoRA shares with the methods whose settings extend its own."""

    default_learning_rate = 3e-3
    needs_known_layers = True

    def parameter_groups(self, shape: ModelShape, settings: L, class_count: int) -> list[Part]:
        return model_parts(shape, class_count) + lora_parts(shape, settings)

    def problems(self, inputs: MethodInputs, settings: L) -> list[Problem]:
        problems = target_problems(inputs.shape, "method.target_modules", settings.target_modules)
        chosen = chosen_linears(inputs.shape, settings.target_modules)
        widest = min((min(linear.into, linear.out) for linear in chosen), default=settings.r)
        if settings.r > widest:
            message = f"{settings.r} is above the width of this model's narrowest layer, {widest}; set {widest} or less"
            problems.append(Problem("method.r", settings.r, f"1 to {widest}", message))
        if settings.dora and settings.init in MOVES_THE_BASE:
            message = f"DoRA keeps the size of the base weights, which {settings.init} changes; set init to default"
            problems.append(Problem("method.init", settings.init, "default or gaussian with DoRA", message))
        if settings.init == "olora" and inputs.shape.family.transposed:
            message = (
                "olora takes the main parts of matrices that lie the other way than a "
                f"{inputs.shape.model_type} model's; set init to default, gaussian or pissa"
            )
            problems.append(Problem("method.init", settings.init, "default, gaussian or pissa", message))
        return problems

    def summary(self, settings: L) -> str:
        return f"{self.title} r{settings.r}"

    def apply(self, model: Any, settings: L, task: str) -> Any:
        return lora_model(model, settings, task, settings.init)

    def save(self, model: Any, folder: Path) -> None:
        save_lora(model, folder)

    def merge(self, model: Any) -> Any | None:
        return model.merge_and_unload()

    def merged_shape(self, shape: ModelShape, settings: L, class_count: int) -> ModelShape | None:
        return shape

    def base_view(self, model: Any) -> Any | None:
        return None if moves_the_base(model) else model.disable_adapter()


class Lora(LowRankMethod[LoraSettings]):
    name = "lora"
    title = "LoRA"
    card = (
        "Freezes the model and learns two small matrices beside each chosen linear layer; their product is the change. "
        "Saves gradients and optimizer state, not activations. The result is a file of a few per cent of the model."
    )
    source = "Hu et al. 2021, arXiv 2106.09685"
    settings = LoraSettings
    learning_rate_reason = "the small matrices start at no change, so they need about ten times full fine-tuning's rate"
    tradeoff = "fewer trained weights, another curve"


def lora_parts(shape: ModelShape, settings: LoraSettings) -> list[Part]:
    """What a low-rank adapter adds to each block: r rows and r columns a module, and a size for each output of DoRA."""
    chosen = chosen_linears(shape, settings.target_modules)
    each = sum(settings.r * (linear.into + linear.out) + (linear.out if settings.dora else 0) for linear in chosen)
    name = f"rank {settings.r} beside {len(chosen)} layers"
    return [
        Part(layer=block_name(number), name=name, state=ADDED, parameters=each)
        for number in range(1, shape.num_layers + 1)
    ]


def lora_model(model: Any, settings: LoraSettings, task: str, init: str) -> Any:
    """The model with PEFT's low-rank adapters of these settings."""
    from peft import LoraConfig, TaskType, get_peft_model

    config = LoraConfig(
        r=settings.r,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]  # PEFT multiplies by it
        lora_dropout=settings.dropout,
        target_modules=words_pattern(model, settings.target_modules),
        use_rslora=settings.rslora,
        use_dora=settings.dora,
        modules_to_save=unnamed_heads(model, task),
        init_lora_weights=True if init == "default" else init,  # type: ignore[arg-type]
        task_type=TaskType.SEQ_CLS if task == "sequence_classification" else TaskType.CAUSAL_LM,
    )
    wrapped = get_peft_model(model, config)
    if init in MOVES_THE_BASE:
        remember_start(wrapped)
    return wrapped


def moves_the_base(model: Any) -> bool:
    """Whether the adapter was started with a part of the base weights in it."""
    return hasattr(model, "start_of_adapter")


def remember_start(model: Any) -> None:
    """Keep the adapter as it started: it is what the base weights lack, and saving needs it to give a plain LoRA."""
    model.start_of_adapter = {name: w.detach().clone() for name, w in model.named_parameters() if "lora_" in name}


def save_lora(model: Any, folder: Path) -> None:
    """Write the adapter; one that took a part of the base with it is converted to a plain LoRA of twice the rank.

    The change is B A s - B0 A0 s = [B, -B0] [A; A0] s, where A0 and B0 are how they started (arXiv 2404.02948, 3.2).
    """
    if not moves_the_base(model):
        model.save_pretrained(folder)
        return
    import torch
    from safetensors.torch import load_file, save_file

    model.save_pretrained(folder)
    weights = load_file(folder / "adapter_model.safetensors")
    start = {name.replace(".default", ""): value for name, value in model.start_of_adapter.items()}
    for name, value in weights.items():
        if "lora_A" in name:
            weights[name] = torch.cat([value, start[name].to(value)], 0).contiguous()
        if "lora_B" in name:
            weights[name] = torch.cat([value, -start[name].to(value)], 1).contiguous()
    save_file(weights, folder / "adapter_model.safetensors")
    _write_plain_config(model, folder)


def _write_plain_config(model: Any, folder: Path) -> None:
    import json
    import math

    file = folder / "adapter_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    scale = config["lora_alpha"] / (math.sqrt(config["r"]) if config["use_rslora"] else config["r"])
    config |= {"r": 2 * config["r"], "lora_alpha": 2 * config["r"] * scale, "use_rslora": False}
    config["init_lora_weights"] = True
    file.write_text(json.dumps(config, indent=2), encoding="utf-8")


METHOD = Lora()
