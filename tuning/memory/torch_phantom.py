"""Tensors without content: operations give tensors of the right sizes on the CPU, but big ones are never written.

Comes in: code that builds or trains a model.  Goes out: the same calls with the same allocations, counted in a
`Ledger` by category, without the memory: a large block that nothing touches costs no page.  What is small and not yet
mixed with such a tensor is really computed (masks, positions, indices), so code that looks at values takes the
branches of a real run.  Torch-only; imported lazily, in a child process, because tracing changes library globals.
"""

from __future__ import annotations

import math
import weakref
from functools import cache
from typing import Any

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary

REAL_LIMIT = 1 << 16
"""Elements up to which a new tensor of numbers is really filled."""
VIEWS = {torch.ops.aten._unsafe_view.default, torch.ops.aten._reshape_alias.default, torch.ops.aten.lift_fresh.default}
PLAIN = {int, float, bool, str, torch.dtype, torch.device}
ONES = {torch.ops.aten.isfinite.default}


class Ledger:
    """Live bytes by category, and what they were after each allocation."""

    def __init__(self, categories: int) -> None:
        self.live = [0] * categories
        self.events: list[tuple[str, tuple[int, ...]]] = []
        self.segment = "build"
        self.category = 0
        self.recording = False
        self._known: WeakIdKeyDictionary = WeakIdKeyDictionary(ref_type=weakref.ref)

    def allocated(self, storage: torch.UntypedStorage) -> None:
        """Count a storage seen for the first time."""
        if storage in self._known:
            return
        entry = [storage.nbytes(), self.category]
        self._known[storage] = entry
        self.live[self.category] += entry[0]
        weakref.finalize(storage, self._freed, entry).atexit = False
        if self.recording:
            self.mark(self.segment)

    def mark(self, segment: str) -> None:
        """Note the live bytes now, outside any allocation."""
        self.events.append((segment, tuple(self.live)))

    def recategorise(self, tensor: torch.Tensor, category: int) -> None:
        """Move a tensor's bytes to another category."""
        entry = self._known.get(tensor.untyped_storage())
        if entry is not None:
            self.live[entry[1]] -= entry[0]
            self.live[category] += entry[0]
            entry[1] = category

    def scratch(self, count: int) -> None:
        """A buffer that a kernel takes inside, and gives back before it returns."""
        if count and self.recording:
            now = list(self.live)
            now[-1] += count
            self.events.append((self.segment, tuple(now)))

    def _freed(self, entry: list[int]) -> None:
        self.live[entry[1]] -= entry[0]


class Phantom(TorchDispatchMode):
    """Within it, operations on phantom tensors compute sizes only."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self.ledger = ledger
        self._phantoms: WeakIdKeyDictionary = WeakIdKeyDictionary(ref_type=weakref.ref)
        self._sizes: dict[Any, Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.is_view or func in VIEWS:
            return func(*args, **kwargs)
        flat = _tensors(args, kwargs)
        phantom = False
        for tensor in flat:
            if tensor.untyped_storage() in self._phantoms:
                phantom = True
                break
        if func is torch.ops.aten._local_scalar_dense.default:
            return func(*args) if not phantom else _number(flat[0].dtype)
        written = _written(func, args, kwargs)
        if written is not None:
            return self._in_place(func, args, kwargs, written, phantom)
        if not phantom and (flat or not self._large_new(args, kwargs)):
            made = func(*args, **kwargs)
            for tensor in _tensors((made,), {}):
                self.ledger.allocated(tensor.untyped_storage())
            return made
        return self._sized(func, args, kwargs, flat)

    def _in_place(self, func: Any, args: Any, kwargs: Any, written: list[Any], phantom: bool) -> Any:
        if not phantom and all(tensor.numel() <= REAL_LIMIT or not _floating(tensor) for tensor in written):
            return func(*args, **kwargs)
        for tensor in written:
            self._phantoms[tensor.untyped_storage()] = True
        returns = func._schema.returns
        if not returns:
            return None
        return written[0] if len(returns) == 1 and len(written) == 1 else tuple(written)

    def _large_new(self, args: Any, kwargs: Any) -> bool:
        """Whether a factory (its first argument is a size) makes a large tensor of numbers, not to be written."""
        if not args or not isinstance(args[0], list | tuple):
            return False
        dtype = kwargs.get("dtype") or torch.float32
        count = math.prod(int(size) for size in args[0])
        return count > REAL_LIMIT and (dtype.is_floating_point or dtype == torch.uint8)

    def _sized(self, func: Any, args: Any, kwargs: Any, flat: list[torch.Tensor]) -> Any:
        key = (func, _key(args), _key(kwargs))
        specs = self._sizes.get(key)
        if specs is None:
            specs = self._sizes[key] = self._infer(func, args, kwargs)
        made = [spec if not isinstance(spec, _Spec) else self._make(spec, func) for spec in specs[0]]
        self.ledger.scratch(specs[2])
        return pytree.tree_unflatten(made, specs[1])

    def _infer(self, func: Any, args: Any, kwargs: Any) -> tuple[list[Any], Any, int]:
        """Sizes of what an operation gives, from its kernel for tensors without content."""
        (args, kwargs) = pytree.tree_map_only(torch.Tensor, _twin, (args, kwargs))
        if kwargs.get("device") is not None or not _tensors(args, kwargs):
            kwargs = kwargs | {"device": torch.device("meta")}
        if kwargs.get("pin_memory") is not None:
            kwargs = kwargs | {"pin_memory": False}
        leaves, spec = pytree.tree_flatten(func(*args, **kwargs))
        sizes = [
            _Spec(tuple(leaf.shape), tuple(leaf.stride()), leaf.dtype) if isinstance(leaf, torch.Tensor) else leaf
            for leaf in leaves
        ]
        return sizes, spec, _scratch(func, args)

    def _make(self, spec: _Spec, func: Any) -> torch.Tensor:
        if not spec.dtype.is_floating_point and spec.elements <= 8 * REAL_LIMIT:
            made = torch.zeros(spec.shape, dtype=spec.dtype)
            if func in ONES:
                made.fill_(1)
        else:
            made = torch.empty_strided(spec.shape, spec.stride, dtype=spec.dtype)
            self._phantoms[made.untyped_storage()] = True
        self.ledger.allocated(made.untyped_storage())
        return made


class _Spec:
    """Sizes of one tensor."""

    __slots__ = ("shape", "stride", "dtype", "elements")

    def __init__(self, shape: tuple[int, ...], stride: tuple[int, ...], dtype: torch.dtype) -> None:
        self.shape, self.stride, self.dtype, self.elements = shape, stride, dtype, math.prod(shape)


def _scratch(func: Any, args: Any) -> int:
    """Bytes that a kernel takes for itself: bitsandbytes on a CPU unpacks a whole 4-bit matrix for a product."""
    if not str(func).startswith("bitsandbytes.gemm_4bit"):
        return 0
    shape = next(one for one in args if isinstance(one, list | tuple))
    return math.prod(shape) * args[0].element_size()


def _floating(tensor: torch.Tensor) -> bool:
    return tensor.dtype.is_floating_point or tensor.dtype == torch.uint8


def _number(dtype: torch.dtype) -> Any:
    return 1.0 if dtype.is_floating_point else 1


def _twin(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")


def _tensors(args: Any, kwargs: Any) -> list[torch.Tensor]:
    found = []
    for value in (*args, *kwargs.values()):
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += [one for one in value if isinstance(one, torch.Tensor)]
    return found


def _written(func: Any, args: Any, kwargs: Any) -> list[Any] | None:
    """The tensors an operation writes into, or None where it makes new ones."""
    places = _places_written(func)
    if places is None:
        return None
    found: list[Any] = []
    for number, name in places:
        value = args[number] if number < len(args) else kwargs.get(name)
        found += [value] if isinstance(value, torch.Tensor) else list(value or ())
    return found


@cache
def _places_written(func: Any) -> list[tuple[int, str]] | None:
    """Number and name of the arguments an operation writes into; asking its schema each time is slow."""
    if not func._schema.is_mutable:
        return None
    written = enumerate(func._schema.arguments)
    return [(number, one.name) for number, one in written if one.alias_info is not None and one.alias_info.is_write]


def _key(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return (value.shape, value.stride(), value.dtype)
    if value is None or type(value) in PLAIN:
        return value
    if isinstance(value, list | tuple):
        return tuple([_key(one) for one in value])
    if isinstance(value, dict):
        return tuple((name, _key(one)) for name, one in value.items())
    return value if value.__hash__ else repr(value)
