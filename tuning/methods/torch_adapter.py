"""Bottleneck adapters: a small two-layer network behind chosen linear layers; and how to load saved ones.

This file is saved as load.py beside such adapters, so that the result needs nothing but torch and transformers:

    import load                                  # in the folder of the result
    model = load.load("path/of/the/base/model")  # model(input_ids=...).logits

Torch-only, and so imported late.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU, "tanh": nn.Tanh}


class Adapted(nn.Module):
    """A linear layer, and behind it y + up(act(down(y))); `up` starts at zero, so nothing changes at first."""

    def __init__(self, inner: nn.Module, width: int, bottleneck: int, activation: str) -> None:
        super().__init__()
        self.inner, self.on = inner, True
        self.down, self.up = nn.Linear(width, bottleneck), nn.Linear(bottleneck, width)
        self.act = ACTIVATIONS[activation]()
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.inner(states)
        return out + self.up(self.act(self.down(out))) if self.on else out


def put_adapters(model: nn.Module, names: Sequence[str], width: int, bottleneck: int, activation: str) -> None:
    """Wrap the modules of these names, in place."""
    for name in names:
        parent = model.get_submodule(name.rpartition(".")[0])
        last = name.rpartition(".")[2]
        setattr(parent, last, Adapted(getattr(parent, last), width, bottleneck, activation))


@contextmanager
def adapters_off(model: nn.Module) -> Iterator[nn.Module]:
    """Within this the model is the base model."""
    adapted = [module for module in model.modules() if isinstance(module, Adapted)]
    for module in adapted:
        module.on = False
    try:
        yield model
    finally:
        for module in adapted:
            module.on = True


def save_adapters(model: Any, plan: dict[str, Any], folder: Path) -> None:
    """adapter.safetensors with all that was trained, adapter.json, load.py."""
    from safetensors.torch import save_file

    trained = {name: w.detach().contiguous() for name, w in model.named_parameters() if w.requires_grad}
    save_file(trained, folder / "adapter.safetensors")
    (folder / "adapter.json").write_text(json.dumps(plan, indent=1), encoding="utf-8")
    (folder / "load.py").write_text(Path(__file__).read_text(encoding="utf-8"), encoding="utf-8")


def put_saved(model: Any, folder: Path) -> Any:
    """The base model with the saved adapters (and classification head) in it."""
    plan = json.loads((folder / "adapter.json").read_text(encoding="utf-8"))
    put_adapters(model, plan["modules"], plan["width"], plan["bottleneck"], plan["activation"])
    put_weights(model, folder)
    model.adapter_plan = plan
    return model.eval()


def put_weights(model: Any, folder: Path) -> None:
    """The saved weights into a model that has its adapters (and classification head) already."""
    from safetensors.torch import load_file

    result = model.load_state_dict(load_file(folder / "adapter.safetensors"), strict=False)
    if result.unexpected_keys:
        raise ValueError(f"these adapters belong to another base model: {result.unexpected_keys[:3]}")


def load(base_folder: str, folder: str | Path = Path(__file__).parent) -> Any:
    """The trained model: the base model from its folder, and what lies beside this file."""
    import transformers

    plan = json.loads((Path(folder) / "adapter.json").read_text(encoding="utf-8"))
    kind = transformers.AutoModelForSequenceClassification if plan["labels"] else transformers.AutoModelForCausalLM
    labels: dict[str, Any] = {"num_labels": plan["labels"]} if plan["labels"] else {}
    if (Path(folder) / "labels.json").is_file():
        names = json.loads((Path(folder) / "labels.json").read_text(encoding="utf-8"))
        labels["id2label"] = dict(enumerate(names))
    return put_saved(kind.from_pretrained(base_folder, dtype=torch.float32, **labels), Path(folder))
