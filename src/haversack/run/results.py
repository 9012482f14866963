"""A bounded cache of results: by the content of what went in, never by a name; thread-safe.

It belongs to one release: another release has another cache, so that no result outlives the model that gave it.
"""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from haversack.base import digest
from haversack.base.errors import UsageError

Arrays = Mapping[str, np.ndarray]
"""Name -> array, any shape and dtype."""


@dataclass(frozen=True)
class Bounds:
    """What a cache may hold.

    Attributes:
        policy: what goes first when it is full: the least recently used, or the least frequently used (of these the
            least recently used).
        entries: how many results; 0 for no cache.
        bytes: of all their arrays together.
        seconds: how long a result is good, from when it was put there.
    """

    policy: Literal["lru", "lfu"] = "lru"
    entries: int = 256
    bytes: int = 64 << 20
    seconds: float = math.inf

    def __post_init__(self) -> None:
        """Refuse bounds that are none.

        Raises:
            UsageError: with what they may be.
        """
        if self.policy not in ("lru", "lfu") or self.entries < 0 or self.bytes < 0 or not self.seconds > 0:
            step = "policy is lru or lfu, entries and bytes at least 0, seconds above 0"
            raise UsageError(f"a cache cannot have {self}", next_step=step)


NONE = Bounds(entries=0)
"""No cache."""


@dataclass(frozen=True)
class _Entry:
    arrays: dict[str, np.ndarray]
    bytes: int
    until: float


class Cache:
    """Results by key, within bounds.

    Args:
        bounds: what it may hold.
        clock: seconds that only grow.

    Attributes:
        hits, misses: how often it had what was asked for, and had it not.
    """

    def __init__(self, bounds: Bounds, clock: Callable[[], float] = time.monotonic) -> None:
        self.bounds, self.hits, self.misses = bounds, 0, 0
        self._clock = clock
        self._lock = threading.Lock()
        self._entries: OrderedDict[str, _Entry] = OrderedDict()  # the oldest, which expires first, in front
        self._uses: dict[str, int] = {}
        self._order: dict[int, OrderedDict[str, None]] = {}  # uses -> keys, the least recently used in front
        self._bytes = 0

    def get(self, key: str) -> dict[str, np.ndarray] | None:
        """Return a copy of the arrays under a key (shapes and dtypes as they were put), or None."""
        if not self.bounds.entries:
            return None
        with self._lock:
            self._expire()
            entry = self._entries.get(key)
            if entry is None:
                self.misses += 1
                return None
            self.hits += 1
            self._use(key)
        return {name: array.copy() for name, array in entry.arrays.items()}

    def put(self, key: str, arrays: Arrays) -> None:
        """Keep a copy of arrays (any shapes and dtypes) under a key, unless they alone are more than it may hold."""
        size = sum(array.nbytes for array in arrays.values())
        if not self.bounds.entries or size > self.bounds.bytes:
            return
        entry = _Entry(
            {name: np.array(array) for name, array in arrays.items()}, size, self._clock() + self.bounds.seconds
        )
        with self._lock:
            self._expire()
            uses = self._uses.get(key, 0)
            self._drop(key)
            while len(self._entries) >= self.bounds.entries or self._bytes + size > self.bounds.bytes:
                self._drop(next(iter(self._order[min(self._order)])))
            self._entries[key], self._uses[key] = entry, uses
            self._bytes += size
            self._order.setdefault(self._level(uses), OrderedDict())[key] = None
            self._use(key)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._entries.clear()
            self._uses.clear()
            self._order.clear()
            self._bytes = 0

    def __len__(self) -> int:
        with self._lock:
            self._expire()
            return len(self._entries)

    @property
    def bytes(self) -> int:
        """Bytes of all arrays that it holds."""
        with self._lock:
            self._expire()
            return self._bytes

    def _level(self, uses: int) -> int:
        """Return what a key is ordered by before its age: its uses, or nothing where only recency counts."""
        return uses if self.bounds.policy == "lfu" else 0

    def _use(self, key: str) -> None:
        self._unlist(key)
        self._uses[key] += 1
        self._order.setdefault(self._level(self._uses[key]), OrderedDict())[key] = None

    def _unlist(self, key: str) -> None:
        level = self._level(self._uses[key])
        del self._order[level][key]
        if not self._order[level]:
            del self._order[level]

    def _drop(self, key: str) -> None:
        if key in self._entries:
            self._unlist(key)
            self._bytes -= self._entries.pop(key).bytes
            del self._uses[key]

    def _expire(self) -> None:
        now = self._clock()
        while self._entries and next(iter(self._entries.values())).until <= now:
            self._drop(next(iter(self._entries)))


def key_of(inputs: Arrays) -> str:
    """Return the digest of the names, dtypes, shapes and bytes of inputs (any but Python objects).

    Raises:
        TypeError: an array holds Python objects.
    """
    return digest.of_arrays(inputs)
