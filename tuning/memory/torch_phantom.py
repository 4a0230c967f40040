"""Tensors without content: operations give tensors of the right sizes on the CPU, but big ones are never written.

Comes in: code that builds or trains a model.  Goes out: the same calls with the same allocations, counted in a
`Ledger` by category, without the memory: a large block that nothing touches costs no page.  What is small and not yet
mixed with such a tensor is really computed (masks, positions, indices), so code that looks at values takes the
branches of a real run.  Torch-only; imported lazily, in a child process, because tracing changes library globals.
"""

from __future__ import annotations

import math
import weakref
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

REAL_LIMIT = 1 << 16
"""Elements up to which a new tensor of numbers is really filled."""
VIEWS = {torch.ops.aten._unsafe_view.default, torch.ops.aten._reshape_alias.default, torch.ops.aten.lift_fresh.default}
PLAIN = {type(None), int, bool, str, torch.dtype, torch.device}
ONES = {torch.ops.aten.isfinite.default}
NEVER = 1 << 62
"""The event at which a storage goes that lives on."""


class _Life(weakref.ref[Any]):
    """One storage while it lives: its bytes, the category they are counted in, whether its content is unknown, and
    its span if it was born in this recording."""

    __slots__ = ("place", "number", "bytes", "category", "phantom", "span")

    place: int
    number: int
    bytes: int
    category: int
    phantom: bool
    span: list[int] | None


class Ledger:
    """Who lives, in which category; of a recording the events (allocations, marks) and who lived through which."""

    def __init__(self, categories: int) -> None:
        self._categories = categories
        self.events: list[str] = []
        """Where in the step each event was."""
        self.segment = "build"
        self.category = 0
        self.recording = False
        self._known: dict[int, _Life] = {}  # by the identity of the storage, which lives as long as its entry
        self._births = 0
        self._base = [0] * categories
        self._spans: list[list[int]] = []
        self._gone: list[tuple[int, int, int, int]] = []

    def begin(self) -> None:
        """A recording begins: what lives now was there before its first event."""
        self.events, self._spans, self._gone, self._base = [], [], [], [0] * self._categories
        for life in self._known.values():
            life.span = None
            self._base[life.category] += life.bytes

    def columns(self) -> list[tuple[int, int, int, int]]:
        """Category, first event, event after the last, bytes of each storage of the recording, in order of birth.

        What was there before is one a category and, negative, one for each that went.
        """
        last = len(self.events)
        base = [(category, 0, last, size) for category, size in enumerate(self._base)]
        gone = [(category, event, last, -size) for _, category, event, size in sorted(self._gone)]
        return base + gone + [(one[0], one[1], min(one[2], last), one[3]) for one in self._spans]

    def allocated(self, storage: torch.UntypedStorage, *, phantom: bool = False) -> None:
        """Count a storage seen for the first time."""
        if id(storage) in self._known:
            return
        life = self._born(storage, storage.nbytes(), phantom)
        if self.recording:
            self.events.append(self.segment)
            self._opened(life, len(self.events) - 1)

    def any_phantom(self, tensors: list[torch.Tensor]) -> bool:
        """Whether the content of one of these is not known."""
        for tensor in tensors:
            life = self._known.get(id(tensor.untyped_storage()))
            if life is not None and life.phantom:
                return True
        return False

    def lose(self, tensor: torch.Tensor) -> None:
        """From now on the content of this tensor is not known."""
        storage = tensor.untyped_storage()
        life = self._known.get(id(storage)) or self._born(storage, 0, True)
        life.phantom = True

    def mark(self, segment: str) -> None:
        """An event that is no allocation."""
        self.events.append(segment)

    def recategorise(self, tensor: torch.Tensor, category: int) -> None:
        """Move a tensor's bytes to another category."""
        life = self._known.get(id(tensor.untyped_storage()))
        if life is None or life.category == category:
            return
        self._closed(life)
        life.category = category
        if self.recording:
            self._opened(life, len(self.events))

    def scratch(self, count: int) -> None:
        """A buffer that a kernel takes inside, and gives back before it returns."""
        if count and self.recording:
            self.events.append(self.segment)
            self._spans.append([self._categories - 1, len(self.events) - 1, len(self.events), count])

    def _born(self, storage: torch.UntypedStorage, size: int, phantom: bool) -> _Life:
        life = _Life(storage, self._freed)
        life.place, life.bytes, life.category, life.phantom = id(storage), size, self.category, phantom
        self._births += 1
        life.number, life.span = self._births, None
        self._known[life.place] = life
        return life

    def _opened(self, life: _Life, event: int) -> None:
        life.span = [life.category, event, NEVER, life.bytes]
        self._spans.append(life.span)

    def _closed(self, life: _Life) -> None:
        if life.span is not None:
            life.span[2] = len(self.events)
        elif life.bytes:
            self._gone.append((life.number, life.category, len(self.events), life.bytes))

    def _freed(self, life: _Life) -> None:
        del self._known[life.place]
        self._closed(life)


class _Operation:
    """What has to be known of an operation at each call; asking its schema each time is slow."""

    __slots__ = ("func", "view", "number", "written", "returns")

    def __init__(self, func: Any) -> None:
        self.func = func  # kept, so that no other takes its identity
        self.view = func.is_view or func in VIEWS
        self.number = func is torch.ops.aten._local_scalar_dense.default
        self.written: list[tuple[int, str]] | None = None
        """Number and name of the arguments it writes into, or None where it makes new ones."""
        if func._schema.is_mutable:
            every = enumerate(func._schema.arguments)
            self.written = [(n, one.name) for n, one in every if one.alias_info is not None and one.alias_info.is_write]
        self.returns = len(func._schema.returns)


class Phantom(TorchDispatchMode):
    """Within it, operations on phantom tensors compute sizes only."""

    def __init__(self, ledger: Ledger, sizes: dict[Any, _Made]) -> None:
        """`sizes` keeps what operations give by operation and arguments; finding out takes longer than all else."""
        super().__init__()
        self.ledger = ledger
        self._operations: dict[int, _Operation] = {}
        self._sizes = sizes

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing is compiled here, and keeping torch's compiler off at each call costs as much as the call."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        operation = self._operations.get(id(func))
        if operation is None:
            operation = self._operations[id(func)] = _Operation(func)
        if operation.view:
            return func(*args, **kwargs)
        # what is made of nothing, or of whole numbers, has the default type, which building a 16-bit model changes
        key: list[Any] = [id(func), torch.get_default_dtype()]
        flat: list[torch.Tensor] = []
        for value in args:
            if isinstance(value, torch.Tensor):
                flat.append(value)
                key.append((value.shape, value.stride(), value.dtype))
            elif type(value) in PLAIN:
                key.append(value)
            else:
                key.append(_key(value))
                flat += _tensors((value,), {})
        if kwargs:
            key.append(_key(kwargs))
            flat += _tensors((), kwargs)
        phantom = self.ledger.any_phantom(flat)
        if operation.number:
            return func(*args) if not phantom else _number(flat[0].dtype)
        if operation.written is not None:
            return self._in_place(operation, args, kwargs, phantom)
        if phantom or (not flat and _large_new(args, kwargs)):
            return self._sized(tuple(key), func, args, kwargs)
        made = func(*args, **kwargs)
        for tensor in _tensors((made,), {}):
            self.ledger.allocated(tensor.untyped_storage())
        return made

    def _in_place(self, operation: _Operation, args: Any, kwargs: Any, phantom: bool) -> Any:
        written = _written(operation, args, kwargs)
        if not phantom and all(tensor.numel() <= REAL_LIMIT or not _floating(tensor) for tensor in written):
            return operation.func(*args, **kwargs)
        for tensor in written:
            self.ledger.lose(tensor)
        if not operation.returns:
            return None
        return written[0] if operation.returns == 1 and len(written) == 1 else tuple(written)

    def _sized(self, key: tuple[Any, ...], func: Any, args: Any, kwargs: Any) -> Any:
        sizes = self._sizes.get(key)
        if sizes is None:
            sizes = self._sizes[key] = self._infer(func, args, kwargs)
        made = [one if type(one) is not _Spec else self._make(one, func) for one in sizes.leaves]
        if sizes.scratch:
            self.ledger.scratch(sizes.scratch)
        return made[0] if sizes.alone else pytree.tree_unflatten(made, sizes.tree)

    def _infer(self, func: Any, args: Any, kwargs: Any) -> _Made:
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
        alone = len(leaves) == 1 and spec.is_leaf()
        return _Made(leaves=sizes, tree=spec, alone=alone, scratch=_scratch(func, args))

    def _make(self, spec: _Spec, func: Any) -> torch.Tensor:
        if spec.filled:
            made = torch.zeros(spec.shape, dtype=spec.dtype)
            if func in ONES:
                made.fill_(1)
        else:
            made = torch.empty_strided(spec.shape, spec.stride, dtype=spec.dtype)
        self.ledger.allocated(made.untyped_storage(), phantom=not spec.filled)
        return made


class _Spec:
    """Sizes of one tensor."""

    __slots__ = ("shape", "stride", "dtype", "filled")

    def __init__(self, shape: tuple[int, ...], stride: tuple[int, ...], dtype: torch.dtype) -> None:
        self.shape, self.stride, self.dtype = shape, stride, dtype
        self.filled = not dtype.is_floating_point and math.prod(shape) <= 8 * REAL_LIMIT


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    """What an operation gives: sizes of its tensors among other values, how they are nested, and a kernel's buffer."""

    leaves: list[Any]
    tree: Any
    alone: bool
    scratch: int


def _large_new(args: Any, kwargs: Any) -> bool:
    """Whether a factory (its first argument is a size) makes a large tensor of numbers, not to be written."""
    if not args or not isinstance(args[0], list | tuple):
        return False
    dtype = kwargs.get("dtype") or torch.float32
    count = math.prod(int(size) for size in args[0])
    return count > REAL_LIMIT and (dtype.is_floating_point or dtype == torch.uint8)


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


def _written(operation: _Operation, args: Any, kwargs: Any) -> list[Any]:
    """The tensors an operation writes into."""
    found: list[Any] = []
    for number, name in operation.written or ():
        value = args[number] if number < len(args) else kwargs.get(name)
        found += [value] if isinstance(value, torch.Tensor) else list(value or ())
    return found


def _key(value: Any) -> Any:
    """What an argument says of the sizes that come out."""
    kind = type(value)
    if kind in PLAIN:
        return value
    if isinstance(value, torch.Tensor):
        return value.shape, value.stride(), value.dtype
    if kind is float:  # equal to a whole number, but another type of result
        return "float", value
    if kind is tuple or kind is list:
        return tuple([_key(one) for one in value])
    if isinstance(value, dict):
        return tuple([(name, _key(one)) for name, one in value.items()])
    return value if value.__hash__ else repr(value)
