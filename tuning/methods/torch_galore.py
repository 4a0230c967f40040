"""AdamW whose two values live in a low-rank view of each gradient (GaLore, Zhao et al. 2024, arXiv 2403.03507).

Torch-only, and so imported late.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

EXACT_UP_TO = 256
"""Above this width the directions are found by a randomized decomposition: a full one takes seconds there."""


class GaLoreAdamW(torch.optim.Optimizer):
    """Groups with a `rank` are projected, the others are plain AdamW.

    A gradient G of m x n with m >= n is kept as G P', P the first `rank` right singular vectors; otherwise as P' G with
    left ones. P is found anew every `update_gap` steps; the step that Adam makes there is mapped back and multiplied by
    `scale`. With `layerwise` each weight is updated in the backward pass as soon as its gradient is there, which is
    then dropped: no whole gradient ever exists, so none can be accumulated or clipped.
    """

    def __init__(
        self, groups: Sequence[dict[str, Any]], lr: float, betas: tuple[float, float], eps: float, layerwise: bool
    ) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0, "rank": None})
        self.layerwise = layerwise
        self._squares = 0.0
        if layerwise:
            for i, group in enumerate(self.param_groups):
                for weight in group["params"]:
                    weight.register_post_accumulate_grad_hook(
                        lambda parameter, i=i: self._update_in_backward(parameter, i)
                    )

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update every weight that has a gradient."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._update(weight, group)
        self._squares = 0.0

    @property
    def gradient_norm(self) -> float | None:
        """The norm of this update's gradient where it existed only piece by piece; None where the weights hold it."""
        return math.sqrt(self._squares) if self.layerwise else None

    @torch.no_grad()
    def _update_in_backward(self, weight: nn.Parameter, group_index: int) -> None:
        """Update one weight as soon as its gradient is made, and drop the gradient."""
        group = self.param_groups[group_index]  # looked up now: a state that is loaded brings groups of its own
        assert weight.grad is not None
        square = float(weight.grad.float().square().sum())
        self._squares += square
        if math.isfinite(square):
            self._update(weight, group)
        weight.grad = None

    def _update(self, weight: nn.Parameter, group: dict[str, Any]) -> None:
        """One step of AdamW, in the projection of the gradient where its group has a rank."""
        gradient, state = weight.grad, self.state[weight]
        assert gradient is not None
        if "step" not in state:
            state["step"] = torch.zeros(())
        if group["rank"] is not None:
            if int(state["step"]) % group["update_gap"] == 0:
                state["projector"] = directions(gradient, group["rank"])
            gradient = down(gradient, state["projector"])
        if "exp_avg" not in state:
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(gradient), torch.zeros_like(gradient)
        state["step"] += 1
        (beta1, beta2), count = group["betas"], int(state["step"])
        state["exp_avg"].mul_(beta1).add_(gradient, alpha=1 - beta1)
        state["exp_avg_sq"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        root = state["exp_avg_sq"].sqrt().div_(math.sqrt(1 - beta2**count)).add_(group["eps"])
        change = state["exp_avg"] / root / (1 - beta1**count)
        if group["rank"] is not None:
            change = up(change, state["projector"], weight.shape) * group["scale"]
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.add_(change, alpha=-group["lr"])


def directions(gradient: torch.Tensor, rank: int) -> torch.Tensor:
    """The first singular vectors on the gradient's narrower side, as columns: min(m, n) x rank."""
    matrix = gradient.float()
    if min(matrix.shape) <= EXACT_UP_TO:
        left, _, right = torch.linalg.svd(matrix, full_matrices=False)
        vectors = right.T if matrix.shape[0] >= matrix.shape[1] else left
    else:
        left, _, right = torch.svd_lowrank(matrix, q=min(rank + 8, *matrix.shape), niter=2)
        vectors = right if matrix.shape[0] >= matrix.shape[1] else left
    basis: torch.Tensor = vectors[:, :rank].to(gradient.dtype).contiguous()
    return basis


def down(gradient: torch.Tensor, projector: torch.Tensor) -> torch.Tensor:
    """The gradient projected on the directions in the columns of `projector`."""
    return gradient @ projector if gradient.shape[0] >= gradient.shape[1] else projector.T @ gradient


def up(change: torch.Tensor, projector: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """A projected change at the size of its weight, m x n."""
    return change @ projector.T if shape[0] >= shape[1] else projector @ change
