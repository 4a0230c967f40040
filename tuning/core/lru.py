"""A cache in memory of the values that were used last, for values whose key is not all that it takes to make them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class LruCache(Generic[T]):
    """Up to `size` values by key; for a further one, the value that was not used for longest goes.

    `functools.lru_cache` holds the arguments of each call; this holds keys alone, so that what a value was made from
    can be freed. Two threads that ask for a missing value at the same moment both make it.
    """

    def __init__(self, size: int) -> None:
        self._size, self._lock = size, threading.Lock()
        self._values: OrderedDict[Hashable, T] = OrderedDict()

    def find(self, key: Hashable) -> T | None:
        """The value of this key, if it is still here."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The value of this key, made where it is missing. Raises what `make` raises, and then stores nothing."""
        value = self.find(key)
        if value is None:
            value = make()
            with self._lock:
                value = self._values.setdefault(key, value)
                self._values.move_to_end(key)
                while len(self._values) > self._size:
                    self._values.popitem(last=False)
        return value
