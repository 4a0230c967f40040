"""Training on the processor with the allocations of a CUDA device.

On a CUDA device dropout keeps a byte an element where a processor keeps a number, attention's own dropout keeps nothing
(its kernels draw it again in the backward pass), and under autocast some functions compute in 32 bits (PyTorch
documentation, automatic mixed precision, "CUDA Ops that can autocast to float32"). For a child process that imports
torch: torch's functions are replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch.nn import functional

OWNERS = (torch, torch.Tensor, functional)
CAST = (
    "__pow__",
    "pow",
    "rsqrt",
    "reciprocal",
    "exp",
    "expm1",
    "log",
    "log2",
    "log10",
    "log1p",
    "tan",
    "sinh",
    "cosh",
    "norm",
    "layer_norm",
    "group_norm",
    "softplus",
    "cross_entropy",
    "nll_loss",
    "normalize",
)
"""Functions that autocast computes in 32 bits on a CUDA device."""
TYPED = ("softmax", "log_softmax", "cumsum", "cumprod", "prod", "sum")
"""Functions that are given the type of their result, so that no 32-bit copy of their argument is kept."""


@contextmanager
def cuda_allocations() -> Iterator[None]:
    """Within this, torch's functions allocate what they would on a CUDA device."""
    with ExitStack() as changes:
        for names, replacement in ((CAST, _in_32_bits), (TYPED, _result_in_32_bits)):
            for owner in OWNERS:
                for name in names:
                    if hasattr(owner, name):
                        changes.enter_context(
                            patched_attribute(owner, name, partial(replacement, getattr(owner, name)))
                        )
        changes.enter_context(patched_attribute(functional, "dropout", _dropout))
        attention = partial(_without_dropout, functional.scaled_dot_product_attention)
        changes.enter_context(patched_attribute(functional, "scaled_dot_product_attention", attention))
        yield


@contextmanager
def patched_attribute(owner: Any, name: str, new: Callable[..., Any]) -> Iterator[None]:
    """Within this, the attribute `name` of `owner` is `new`."""
    is_own, before = name in vars(owner), vars(owner).get(name)
    # a method must be a function: only those are bound
    setattr(owner, name, (lambda *args, **kwargs: new(*args, **kwargs)) if isinstance(owner, type) else new)
    try:
        yield
    finally:
        if is_own:
            setattr(owner, name, before)
        else:
            delattr(owner, name)


def _in_32_bits(function: Any, *args: Any, **kwargs: Any) -> Any:
    if torch.is_autocast_enabled("cpu"):
        args = tuple([arg.float() if _is_16_bit(arg) else arg for arg in args])
    return function(*args, **kwargs)


def _result_in_32_bits(function: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
    if torch.is_autocast_enabled("cpu") and _is_16_bit(x) and kwargs.get("dtype") is None:
        kwargs["dtype"] = torch.float32
    return function(x, *args, **kwargs)


def _is_16_bit(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.dtype in (torch.bfloat16, torch.float16)


def _dropout(input: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> torch.Tensor:
    return torch.native_dropout(input, p, training)[0] if training and p else input


def _without_dropout(
    function: Any,
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    *args: Any,
    **kwargs: Any,
) -> Any:
    return function(query, key, value, attn_mask, 0.0, *args, **kwargs)
