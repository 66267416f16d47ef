"""What was used last is kept, up to a number of bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

T = TypeVar("T")


class ByteLRU:
    """Values by key, the least recently used dropped first when their bytes pass the limit. Threads may share it.

    Args:
        limit: bytes.
        bytes_of: how many bytes a value holds.
        least: so many are kept, however large they are.
    """

    def __init__(self, limit: int, bytes_of: Callable[[Any], int], least: int = 1):
        self.limit, self.least = limit, least
        self._bytes_of = bytes_of
        self._held: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._making: dict[Hashable, threading.RLock] = {}
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Any:
        """The value, or None."""
        with self._lock:
            if key not in self._held:
                return None
            self._held.move_to_end(key)
            return self._held[key][0]

    def put(self, key: Hashable, value: T) -> T:
        """Keep a value."""
        size = self._bytes_of(value)
        with self._lock:
            self._held[key] = value, size
            self._held.move_to_end(key)
            while len(self._held) > self.least and self._bytes() > self.limit:
                self._held.popitem(last=False)
        return value

    def memo(self, key: Hashable, make: Callable[[], T]) -> T:
        """The value, made where it is not there; made once where several threads ask for it at a time."""
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
                return self._held[key][0]
            making = self._making.setdefault(key, threading.RLock())
        with making:
            with self._lock:
                if key in self._held:
                    return self._held[key][0]
            try:
                return self.put(key, make())
            finally:
                with self._lock:
                    self._making.pop(key, None)

    def __contains__(self, key: object) -> bool:
        with self._lock:
            return key in self._held

    def __len__(self) -> int:
        return len(self._held)

    @property
    def nbytes(self) -> int:
        """Bytes held now."""
        with self._lock:
            return self._bytes()

    def _bytes(self) -> int:
        return sum(size for _, size in self._held.values())
