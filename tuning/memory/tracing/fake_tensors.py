"""Tensors without content: operations give tensors of the right sizes on the CPU, but large ones are never written.

A large block that nothing writes costs no memory, so code that builds or trains a model makes the allocations of a real
run, counted by category in an `AllocationLog`, and takes next to none. What is small and was not computed from such a
tensor is really computed (masks, positions, indices), so that code which looks at values takes the branches of a real
run. Imported in a child process alone, for it imports torch and tracing changes library globals.
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
"""The event at which a storage is freed that lives to the end."""


class _Storage(weakref.ref[Any]):
    """One storage while it lives, with what the log has noted of it."""

    __slots__ = ("address", "serial", "bytes", "category", "size_only", "span")

    address: int
    """The identity of the storage object."""
    serial: int
    """How many storages the log had seen, this one included."""
    bytes: int
    category: int
    size_only: bool
    """Whether its content is not known."""
    span: list[int] | None
    """Its column in this recording (`AllocationLog.columns`); None where it is older."""


class AllocationLog:
    """The storages that live, by category; of a recording its events (allocations, marks) and the storages that lived
    through them."""

    def __init__(self, categories: int) -> None:
        self._categories = categories
        self.events: list[str] = []
        """The segment of the step that each event was in."""
        self.segment = "build"
        self.category = 0
        self.recording = False
        self._storages: dict[int, _Storage] = {}  # by identity of the storage object, which lives as long as its entry
        self._count = 0
        self._base = [0] * categories
        self._spans: list[list[int]] = []
        self._freed_columns: list[tuple[int, int, int, int]] = []

    def begin(self) -> None:
        """Begin a recording: what lives now was there before its first event."""
        self.events, self._spans, self._freed_columns, self._base = [], [], [], [0] * self._categories
        for entry in self._storages.values():
            entry.span = None
            self._base[entry.category] += entry.bytes

    def columns(self) -> list[tuple[int, int, int, int]]:
        """Category, first event, event after the last, bytes of each storage of the recording, in order of allocation.

        The storages from before are one column a category, and a negative column for each that was freed.
        """
        last = len(self.events)
        base = [(category, 0, last, size) for category, size in enumerate(self._base)]
        gone = [(category, event, last, -size) for _, category, event, size in sorted(self._freed_columns)]
        return base + gone + [(category, first, min(end, last), size) for category, first, end, size in self._spans]

    def allocated(self, storage: torch.UntypedStorage, *, size_only: bool = False) -> None:
        """Count a storage when it is seen for the first time."""
        if id(storage) in self._storages:
            return
        entry = self._add(storage, storage.nbytes(), size_only)
        if self.recording:
            self.events.append(self.segment)
            self._open_span(entry, len(self.events) - 1)

    def any_size_only(self, tensors: list[torch.Tensor]) -> bool:
        """Whether the content of one of these tensors is not known."""
        for tensor in tensors:
            entry = self._storages.get(id(tensor.untyped_storage()))
            if entry is not None and entry.size_only:
                return True
        return False

    def forget_content(self, tensor: torch.Tensor) -> None:
        """Take the content of this tensor as not known from now on."""
        storage = tensor.untyped_storage()
        entry = self._storages.get(id(storage)) or self._add(storage, 0, True)
        entry.size_only = True

    def mark(self, segment: str) -> None:
        """Add an event that is no allocation."""
        self.events.append(segment)

    def recategorise(self, tensor: torch.Tensor, category: int) -> None:
        """Move a tensor's bytes to another category."""
        entry = self._storages.get(id(tensor.untyped_storage()))
        if entry is None or entry.category == category:
            return
        self._close_span(entry)
        entry.category = category
        if self.recording:
            self._open_span(entry, len(self.events))

    def scratch(self, count: int) -> None:
        """Add a buffer of `count` bytes that a kernel takes inside and frees before it returns."""
        if count and self.recording:
            self.events.append(self.segment)
            self._spans.append([self._categories - 1, len(self.events) - 1, len(self.events), count])

    def _add(self, storage: torch.UntypedStorage, size: int, size_only: bool) -> _Storage:
        entry = _Storage(storage, self._on_freed)
        entry.address, entry.bytes, entry.category, entry.size_only = id(storage), size, self.category, size_only
        self._count += 1
        entry.serial, entry.span = self._count, None
        self._storages[entry.address] = entry
        return entry

    def _open_span(self, entry: _Storage, event: int) -> None:
        entry.span = [entry.category, event, NEVER, entry.bytes]
        self._spans.append(entry.span)

    def _close_span(self, entry: _Storage) -> None:
        if entry.span is not None:
            entry.span[2] = len(self.events)
        elif entry.bytes:
            self._freed_columns.append((entry.serial, entry.category, len(self.events), entry.bytes))

    def _on_freed(self, entry: _Storage) -> None:
        del self._storages[entry.address]
        self._close_span(entry)


class _Operation:
    """Facts of an operation that each call needs; reading its schema each time is slow."""

    __slots__ = ("func", "view", "gives_number", "written", "returns")

    def __init__(self, func: Any) -> None:
        self.func = func  # held, so that no other takes its identity
        self.view = func.is_view or func in VIEWS
        self.gives_number = func is torch.ops.aten._local_scalar_dense.default
        self.written: list[tuple[int, str]] | None = None
        """Index and name of the arguments that it writes into; None where it makes new tensors."""
        if func._schema.is_mutable:
            arguments = enumerate(func._schema.arguments)
            self.written = [(i, argument.name) for i, argument in arguments if _is_written(argument)]
        self.returns = len(func._schema.returns)


class SizeOnlyMode(TorchDispatchMode):
    """Within it, operations on tensors without content compute sizes only."""

    def __init__(self, log: AllocationLog, sizes: dict[Any, _Result]) -> None:
        """`sizes` caches results by operation and arguments: to infer them takes longer than all else."""
        super().__init__()
        self.log = log
        self._operations: dict[int, _Operation] = {}
        self._sizes = sizes

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Whether torch's compiler is to be kept off: nothing is compiled here, and that costs as much as the call."""
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
        size_only = self.log.any_size_only(flat)
        if operation.gives_number:
            return func(*args) if not size_only else _number(flat[0].dtype)
        if operation.written is not None:
            return self._in_place(operation, args, kwargs, size_only)
        if size_only or (not flat and _large_new(args, kwargs)):
            return self._sized(tuple(key), func, args, kwargs)
        made = func(*args, **kwargs)
        for tensor in _tensors((made,), {}):
            self.log.allocated(tensor.untyped_storage())
        return made

    def _in_place(self, operation: _Operation, args: Any, kwargs: Any, size_only: bool) -> Any:
        written = _written(operation, args, kwargs)
        if not size_only and all(tensor.numel() <= REAL_LIMIT or not _floating(tensor) for tensor in written):
            return operation.func(*args, **kwargs)
        for tensor in written:
            self.log.forget_content(tensor)
        if not operation.returns:
            return None
        return written[0] if operation.returns == 1 and len(written) == 1 else tuple(written)

    def _sized(self, key: tuple[Any, ...], func: Any, args: Any, kwargs: Any) -> Any:
        sizes = self._sizes.get(key)
        if sizes is None:
            sizes = self._sizes[key] = self._infer(func, args, kwargs)
        made = [self._make(leaf, func) if type(leaf) is _Spec else leaf for leaf in sizes.leaves]
        if sizes.scratch:
            self.log.scratch(sizes.scratch)
        return made[0] if sizes.alone else pytree.tree_unflatten(made, sizes.tree)

    def _infer(self, func: Any, args: Any, kwargs: Any) -> _Result:
        """The sizes of an operation's results, from its kernel for torch's meta tensors."""
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
        return _Result(leaves=sizes, tree=spec, alone=alone, scratch=_scratch(func, args))

    def _make(self, spec: _Spec, func: Any) -> torch.Tensor:
        if spec.filled:
            made = torch.zeros(spec.shape, dtype=spec.dtype)
            if func in ONES:
                made.fill_(1)
        else:
            made = torch.empty_strided(spec.shape, spec.stride, dtype=spec.dtype)
        self.log.allocated(made.untyped_storage(), size_only=not spec.filled)
        return made


class _Spec:
    """The sizes of one tensor; `filled` says that it is really written."""

    __slots__ = ("shape", "stride", "dtype", "filled")

    def __init__(self, shape: tuple[int, ...], stride: tuple[int, ...], dtype: torch.dtype) -> None:
        self.shape, self.stride, self.dtype = shape, stride, dtype
        self.filled = not dtype.is_floating_point and math.prod(shape) <= 8 * REAL_LIMIT


@dataclass(frozen=True, slots=True, kw_only=True)
class _Result:
    """The results of an operation: the sizes of its tensors among other values, their nesting, and the bytes of its
    kernel's own buffer."""

    leaves: list[Any]
    tree: Any
    alone: bool
    scratch: int


def _is_written(argument: Any) -> bool:
    """Whether an operation writes into this argument of its schema."""
    return argument.alias_info is not None and argument.alias_info.is_write


def _large_new(args: Any, kwargs: Any) -> bool:
    """Whether a factory, whose first argument is a size, makes a tensor of numbers too large to be written."""
    if not args or not isinstance(args[0], list | tuple):
        return False
    dtype = kwargs.get("dtype") or torch.float32
    count = math.prod(int(size) for size in args[0])
    return count > REAL_LIMIT and (dtype.is_floating_point or dtype == torch.uint8)


def _scratch(func: Any, args: Any) -> int:
    """Bytes of a kernel's own buffer: bitsandbytes on a CPU unpacks a whole 4-bit matrix for a product."""
    if not str(func).startswith("bitsandbytes.gemm_4bit"):
        return 0
    shape = next(arg for arg in args if isinstance(arg, list | tuple))
    return int(math.prod(shape) * args[0].element_size())


def _floating(tensor: torch.Tensor) -> bool:
    """Whether a tensor holds numbers that are computed with, packed ones (uint8) included."""
    return tensor.dtype.is_floating_point or tensor.dtype == torch.uint8


def _number(dtype: torch.dtype) -> Any:
    """A number of this type in place of a value that is not known."""
    return 1.0 if dtype.is_floating_point else 1


def _twin(tensor: torch.Tensor) -> torch.Tensor:
    """A meta tensor of the same sizes."""
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")


def _tensors(args: Any, kwargs: Any) -> list[torch.Tensor]:
    """The tensors among the arguments of an operation, and in lists among them."""
    tensors = []
    for value in (*args, *kwargs.values()):
        if isinstance(value, torch.Tensor):
            tensors.append(value)
        elif isinstance(value, list | tuple):
            tensors += [item for item in value if isinstance(item, torch.Tensor)]
    return tensors


def _written(operation: _Operation, args: Any, kwargs: Any) -> list[Any]:
    """The tensors that an operation writes into."""
    tensors: list[Any] = []
    for i, name in operation.written or ():
        value = args[i] if i < len(args) else kwargs.get(name)
        tensors += [value] if isinstance(value, torch.Tensor) else list(value or ())
    return tensors


def _key(value: Any) -> Any:
    """An argument as a cache key, of which a tensor's content is no part."""
    kind = type(value)
    if kind in PLAIN:
        return value
    if isinstance(value, torch.Tensor):
        return value.shape, value.stride(), value.dtype
    if kind is float:  # equal to a whole number, but another type of result
        return "float", value
    if kind is tuple or kind is list:
        return tuple([_key(item) for item in value])
    if isinstance(value, dict):
        return tuple([(name, _key(member)) for name, member in value.items()])
    return value if value.__hash__ else repr(value)
