"""LoRA: the model is frozen; beside chosen linear layers a product of two small matrices learns the change."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tuning.errors import Problem
from tuning.fields import Limit
from tuning.methods.base import classes_parameters
from tuning.models import ModelShape

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
TARGETS = ("all-linear", "attention", "q_proj+v_proj")
INITS = ("default", "gaussian")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraSettings:
    """Fields as PEFT names them; the string under a field is its help."""

    name: str = "lora"
    r: Annotated[int, Limit(low=1, high=8192)] = 8
    """Rank of the two small matrices. Higher learns more detail, and costs memory in proportion."""
    alpha: Annotated[float, Limit(above=0.0, high=100_000)] = 16.0
    """The learned change is multiplied by alpha / r. Usually r or 2 r."""
    dropout: Annotated[float, Limit(low=0.0, high=0.99)] = 0.0
    """Share of the adapter's inputs dropped in training. Above 0 different micro-batch cuts differ."""
    target_modules: Annotated[str, Limit(choices=TARGETS)] = "all-linear"
    """Which linear layers get an adapter: all-linear, attention, or only q_proj+v_proj."""
    rslora: bool = False
    """Scale by alpha / sqrt(r) instead, which keeps high ranks learning (arXiv 2312.03732)."""
    dora: bool = False
    """Learn size and direction apart (DoRA, arXiv 2402.09353). About 1.6 times slower here."""
    init: Annotated[str, Limit(choices=INITS)] = "default"
    """How the first matrix starts: default (Kaiming) or gaussian. The second starts at zero."""


class Lora:
    name = "lora"
    title = "LoRA"
    card = (
        "Freezes the model and learns two small matrices beside each chosen linear layer; their product is the change. "
        "Saves gradients and optimizer state, not activations. The result is a file of a few per cent of the model."
    )
    source = "Hu et al. 2021, arXiv 2106.09685"
    settings = LoraSettings
    default_learning_rate = 3e-3
    learning_rate_reason = "the small matrices start at no change, so they need about ten times full fine-tuning's rate"
    artifact = "adapter"

    def _targets(self, shape: ModelShape, s: LoraSettings) -> dict[str, tuple[int, int]]:
        if s.target_modules == "attention":
            return {name: size for name, size in shape.linears.items() if name in ATTENTION}
        if s.target_modules == "q_proj+v_proj":
            return {name: size for name, size in shape.linears.items() if name in ("q_proj", "v_proj")}
        return shape.linears

    def added_parameters(self, shape: ModelShape, s: LoraSettings) -> int:
        sizes = self._targets(shape, s).values()
        magnitudes = sum(out for _, out in sizes) if s.dora else 0
        return shape.num_layers * (sum(s.r * (into + out) for into, out in sizes) + magnitudes)

    def trainable_parameters(self, shape: ModelShape, s: LoraSettings, labels: int) -> int:
        return self.added_parameters(shape, s) + (classes_parameters(shape, labels) if labels else 0)

    def problems(self, shape: ModelShape, s: LoraSettings) -> list[Problem]:
        widest = min(shape.hidden_size, min(min(size) for size in shape.linears.values()))
        if s.r > widest:
            message = f"r {s.r} is above the width of this model's narrowest layer, {widest}; set {widest} or less"
            return [Problem("method.r", s.r, f"1 to {widest}", message)]
        return []

    def summary(self, s: LoraSettings) -> str:
        return f"LoRA r{s.r}"

    def apply(self, model: Any, s: LoraSettings, task: str) -> Any:
        from peft import LoraConfig, TaskType, get_peft_model

        init: Any = True if s.init == "default" else s.init
        names: Any = {"all-linear": "all-linear", "attention": list(ATTENTION), "q_proj+v_proj": ["q_proj", "v_proj"]}
        config = LoraConfig(
            r=s.r, lora_alpha=s.alpha,  # type: ignore[arg-type]  # PEFT takes any number
            lora_dropout=s.dropout, target_modules=names[s.target_modules],
            use_rslora=s.rslora, use_dora=s.dora, init_lora_weights=init,
            task_type=TaskType.SEQ_CLS if task == "sequence_classification" else TaskType.CAUSAL_LM,
        )  # fmt: skip
        return get_peft_model(model, config)

    def save(self, model: Any, folder: Path) -> None:
        model.save_pretrained(folder)

    def load(self, model: Any, folder: Path) -> Any:
        from peft import PeftModel

        return PeftModel.from_pretrained(model, folder, local_files_only=True)

    def base_view(self, model: Any) -> AbstractContextManager[Any] | None:
        return model.disable_adapter()


METHOD = Lora()
