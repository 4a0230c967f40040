"""Optimizers by name, over what is trainable.

Comes in: the optimizer's settings, the trainable parameters, the learning rate.  Goes out: a torch optimizer.  Weight
decay acts on matrices only; norms and biases are left alone, as is usual.  An update takes one tensor at a time: all
together, as torch does on a card by itself, would take as much memory again as the gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from tuning.core.errors import RunError
from tuning.settings.schema import OptimizerSettings


def make_optimizer(
    settings: OptimizerSettings, trainable: Sequence[nn.Parameter], learning_rate: float
) -> torch.optim.Optimizer:
    """The optimizer of these settings; raises RunError for a name that is none."""
    groups = decay_groups(trainable, settings.weight_decay)
    if settings.name == "adamw":
        return torch.optim.AdamW(groups, lr=learning_rate, betas=settings.betas, eps=settings.eps, fused=True)
    if settings.name == "sgd":
        return torch.optim.SGD(groups, lr=learning_rate, momentum=settings.momentum, foreach=False)
    if settings.name == "adafactor":
        return torch.optim.Adafactor(groups, lr=learning_rate, foreach=False)
    if settings.name == "adamw_8bit":
        return _eight_bit(groups, settings, learning_rate)
    if settings.name == "muon":
        return MuonAndAdamW(groups, settings, learning_rate)
    raise RunError(f"The optimizer {settings.name} is not known; use adamw.")


def decay_groups(trainable: Sequence[nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """Matrices with weight decay, vectors without; no group is empty."""
    groups: list[dict[str, Any]] = [
        {"params": [parameter for parameter in trainable if parameter.dim() >= 2], "weight_decay": weight_decay},
        {"params": [parameter for parameter in trainable if parameter.dim() < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def _eight_bit(
    groups: list[dict[str, Any]], settings: OptimizerSettings, learning_rate: float
) -> torch.optim.Optimizer:
    """AdamW with its two values in 8 bits a block (arXiv 2110.02861); tensors under 4,096 elements stay in 32 bits."""
    import bitsandbytes

    optimizer: torch.optim.Optimizer = bitsandbytes.optim.AdamW8bit(
        groups, lr=learning_rate, betas=settings.betas, eps=settings.eps
    )
    return optimizer


class MuonAndAdamW(torch.optim.Optimizer):
    """Muon for matrices (momentum made orthogonal, Jordan et al. 2024), AdamW for vectors, which it has no rule for.

    Muon's update is scaled to the size of AdamW's (arXiv 2502.16982), so that both take the same learning rate. One
    optimizer to the loop and to a checkpoint: groups and state are those of the two inside.
    """

    def __init__(self, groups: list[dict[str, Any]], settings: OptimizerSettings, learning_rate: float) -> None:
        super().__init__(groups, {"lr": learning_rate})
        self._inner: list[tuple[int, torch.optim.Optimizer]] = []
        for number, group in enumerate(self.param_groups):
            matrices = [weight for weight in group["params"] if weight.dim() == 2]
            others = [weight for weight in group["params"] if weight.dim() != 2]
            decay = group["weight_decay"]
            if matrices:
                muon = torch.optim.Muon(matrices, learning_rate, decay, adjust_lr_fn="match_rms_adamw")
                self._inner.append((number, muon))
            if others:
                adamw = torch.optim.AdamW(
                    others, learning_rate, settings.betas, settings.eps, weight_decay=decay, fused=True
                )
                self._inner.append((number, adamw))
        self._share_state()

    def _share_state(self) -> None:
        for _, optimizer in self._inner:
            optimizer.state = self.state

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update of both."""
        for number, optimizer in self._inner:
            for inner in optimizer.param_groups:
                inner["lr"] = self.param_groups[number]["lr"]
            optimizer.step()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._share_state()
