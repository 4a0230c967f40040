"""Optimizers by name, over what is trainable; `settings/optimizers.py` says what is known of each without torch.

Weight decay acts on matrices only; norms and biases are left alone, as is usual. An update takes one tensor at a
time: all together, as torch does on a card by itself, would take as much memory again as the gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from tuning.settings.schema import OptimizerSettings

Groups = list[dict[str, Any]]
"""Parameter groups as torch takes them."""


def make_optimizer(
    settings: OptimizerSettings, trainable: Sequence[nn.Parameter], learning_rate: float
) -> torch.optim.Optimizer:
    """The optimizer of these settings over all trainable parameters, matrices with weight decay and vectors without."""
    return MAKERS[settings.name](decay_groups(trainable, settings.weight_decay), settings, learning_rate)


def decay_groups(trainable: Sequence[nn.Parameter], weight_decay: float) -> Groups:
    """Matrices with weight decay, vectors without; no group is empty."""
    groups: Groups = [
        {"params": [parameter for parameter in trainable if parameter.dim() >= 2], "weight_decay": weight_decay},
        {"params": [parameter for parameter in trainable if parameter.dim() < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def _adamw(groups: Groups, settings: OptimizerSettings, learning_rate: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, lr=learning_rate, betas=settings.betas, eps=settings.eps, fused=True)


def _sgd(groups: Groups, settings: OptimizerSettings, learning_rate: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, lr=learning_rate, momentum=settings.momentum, foreach=False)


def _adafactor(groups: Groups, settings: OptimizerSettings, learning_rate: float) -> torch.optim.Optimizer:
    return torch.optim.Adafactor(groups, lr=learning_rate, foreach=False)


def _adamw_8bit(groups: Groups, settings: OptimizerSettings, learning_rate: float) -> torch.optim.Optimizer:
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

    def __init__(self, groups: Groups, settings: OptimizerSettings, learning_rate: float) -> None:
        super().__init__(groups, {"lr": learning_rate})
        self._inner: list[tuple[int, torch.optim.Optimizer]] = []
        for index, group in enumerate(self.param_groups):
            matrices = [weight for weight in group["params"] if weight.dim() == 2]
            others = [weight for weight in group["params"] if weight.dim() != 2]
            decay = group["weight_decay"]
            if matrices:
                muon = torch.optim.Muon(matrices, learning_rate, decay, adjust_lr_fn="match_rms_adamw")
                self._inner.append((index, muon))
            if others:
                adamw = torch.optim.AdamW(
                    others, learning_rate, settings.betas, settings.eps, weight_decay=decay, fused=True
                )
                self._inner.append((index, adamw))
        self._share_state()

    def _share_state(self) -> None:
        for _, optimizer in self._inner:
            optimizer.state = self.state

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update of both."""
        for index, optimizer in self._inner:
            for inner in optimizer.param_groups:
                inner["lr"] = self.param_groups[index]["lr"]
            optimizer.step()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._share_state()


MAKERS: dict[str, Callable[[Groups, OptimizerSettings, float], torch.optim.Optimizer]] = {
    "adamw": _adamw,
    "sgd": _sgd,
    "adafactor": _adafactor,
    "adamw_8bit": _adamw_8bit,
    "muon": MuonAndAdamW,
}
"""How each optimizer of `settings.optimizers.OPTIMIZERS` is made of parameter groups and a learning rate."""
