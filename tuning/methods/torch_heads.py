"""Heads on a frozen body: linear, multi-layer perceptron, KAN; and how to load a saved one.

This file is saved as load.py beside such a head, so that the result needs nothing but torch and transformers:

    import load                                  # in the folder of the result
    model = load.load("path/of/the/base/model")  # model(input_ids=...).logits

Torch-only, and so imported late.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "identity": nn.Identity,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
}


class KanLayer(nn.Module):
    """A layer whose every edge is a learned function: a sum of Gaussian bumps on a grid, and a scaled SiLU.

    Liu et al. 2024, arXiv 2404.19756, with the radial bases of Li 2024, arXiv 2405.06721. The input is normed first, so
    that it lies on the grid, which goes from -2 to 2.
    """

    centres: torch.Tensor

    def __init__(self, into: int, out: int, grid: int) -> None:
        super().__init__()
        self.base = nn.Linear(into, out)
        self.bumps = nn.Parameter(torch.randn(out, into * grid) * 0.1 / (into * grid) ** 0.5)
        self.register_buffer("centres", torch.linspace(-2.0, 2.0, grid), persistent=False)
        self.width = 4.0 / max(1, grid - 1)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        normed = nn.functional.layer_norm(states, states.shape[-1:])
        raised = torch.exp(-(((normed.unsqueeze(-1) - self.centres) / self.width) ** 2)).flatten(-2)
        out: torch.Tensor = self.base(nn.functional.silu(normed)) + nn.functional.linear(raised, self.bumps)
        return out


def make_head(plan: dict[str, Any]) -> nn.Module:
    """The head a plan describes: kind, into, out, depth, width, activation, grid."""
    if plan["kind"] == "linear":
        return nn.Linear(plan["into"], plan["out"])
    sizes = [plan["into"], *[plan["width"]] * plan["depth"], plan["out"]]
    layers: list[nn.Module] = []
    for into, out in zip(sizes, sizes[1:]):
        if plan["kind"] == "kan":
            layers.append(KanLayer(into, out, plan["grid"]))
            continue
        layers += [nn.Linear(into, out), ACTIVATIONS[plan["activation"]]()]
    return nn.Sequential(*(layers if plan["kind"] == "kan" else layers[:-1]))


class HeadOnBody(nn.Module):
    """A frozen body, a pooling, a head that is trained."""

    def __init__(self, body: nn.Module, plan: dict[str, Any]) -> None:
        super().__init__()
        self.body, self.head, self.plan = body, make_head(plan), plan
        self.config = body.config
        stay_in_eval(body)

    def features(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **more: Any
    ) -> torch.Tensor:
        """One vector a row: the states of the last token, of the first, or their mean, padding left out."""
        body = self.body(input_ids=input_ids, attention_mask=attention_mask, **more)
        states: torch.Tensor = body.last_hidden_state
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        if self.plan["pooling"] == "first":
            return states[:, 0]
        if self.plan["pooling"] == "mean":
            weights = (mask / mask.sum(1, keepdim=True)).to(states.dtype)
            return (states * weights.unsqueeze(-1)).sum(1)
        last = (mask * torch.arange(mask.shape[1], device=mask.device)).argmax(1)
        return states[torch.arange(len(states), device=states.device), last]

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **more: Any) -> Any:
        return SimpleNamespace(logits=self.head(self.features(input_ids, attention_mask, **more)))

    def get_output_embeddings(self) -> nn.Module:
        return self.head


def stay_in_eval(body: nn.Module) -> None:
    """A frozen body drops nothing: its features are the same each time, cached or not."""
    body.eval()
    body.train = lambda mode=True: body  # type: ignore[method-assign]


def redraw(body: nn.Module) -> None:
    """The control: the same body with weights that have learned nothing."""
    body.load_state_dict(type(body)(body.config).state_dict())


def save_head(model: Any, plan: dict[str, Any], folder: Path) -> None:
    """head.safetensors, head.json and load.py; the body too where it is not the base model's."""
    from safetensors.torch import save_file

    head = model.get_output_embeddings()
    save_file({name: weight.contiguous() for name, weight in head.state_dict().items()}, folder / "head.safetensors")
    if plan["random_body"]:
        state = {name: weight.contiguous() for name, weight in _body(model).state_dict().items()}
        save_file(state, folder / "body.safetensors")
    (folder / "head.json").write_text(json.dumps(plan, indent=1), encoding="utf-8")
    (folder / "load.py").write_text(Path(__file__).read_text(encoding="utf-8"), encoding="utf-8")


def put_head(model: Any, folder: Path) -> Any:
    """The base model of the right kind with the saved head (and body) on it."""
    plan = json.loads((folder / "head.json").read_text(encoding="utf-8"))
    if plan["kind"] == "lm_head":
        untie(model)
    else:
        model = HeadOnBody(getattr(model, model.base_model_prefix), plan)
    model.head_plan = plan
    put_weights(model, folder)
    return model.eval()


def put_weights(model: Any, folder: Path) -> None:
    """The saved weights into a model that has a head of this kind already."""
    from safetensors.torch import load_file

    if (folder / "body.safetensors").is_file():
        _body(model).load_state_dict(load_file(folder / "body.safetensors"))
    model.get_output_embeddings().load_state_dict(load_file(folder / "head.safetensors"))


def _body(model: Any) -> Any:
    return model.body if isinstance(model, HeadOnBody) else getattr(model, model.base_model_prefix)


def untie(model: Any) -> None:
    """Give the output layer weights of its own: training tied ones would move the embeddings too."""
    head = model.get_output_embeddings()
    if model.config.tie_word_embeddings:
        head.weight = nn.Parameter(head.weight.detach().clone(), requires_grad=False)
        model.config.tie_word_embeddings = False


def load(base_folder: str, folder: str | Path = Path(__file__).parent) -> Any:
    """The trained model: the base model from its folder, and what lies beside this file."""
    import transformers

    plan = json.loads((Path(folder) / "head.json").read_text(encoding="utf-8"))
    words = plan["kind"] == "lm_head"
    kind = transformers.AutoModelForCausalLM if words else transformers.AutoModelForSequenceClassification
    labels: dict[str, Any] = {}
    if (Path(folder) / "labels.json").is_file():
        names = json.loads((Path(folder) / "labels.json").read_text(encoding="utf-8"))
        labels = {"num_labels": len(names), "id2label": dict(enumerate(names))}
    return put_head(kind.from_pretrained(base_folder, dtype=torch.float32, **labels), Path(folder))
