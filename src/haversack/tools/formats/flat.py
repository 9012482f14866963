"""Reading a FlatBuffer by its slots, with every offset checked: a file may have been spoiled by anybody.

The layout is the one of https://flatbuffers.dev/internals: a table begins with a signed offset back to its vtable,
whose 16-bit entries say where each slot lies; strings, vectors and tables are reached by unsigned forward offsets.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

_LARGEST = 1 << 31
_OVERLAP = 8
"""How many times its own size a file may be read: parts that overlap could be read without end."""


class Spoiled(ValueError):
    """An offset or a length leads out of the bytes, or the bytes are not the ones expected."""


@dataclass(frozen=True)
class Table:
    """A table inside a buffer.

    Attributes:
        data: the whole buffer.
        at: position of the table.
        budget: bytes of vectors that may yet be read, one number for all tables of a file.
    """

    data: memoryview
    at: int
    budget: list[int] = field(repr=False, compare=False)

    def _slot(self, slot: int) -> int:
        """Return the position of a slot's value, or 0 where it is absent."""
        vtable = self.at - int(_read(self.data, "<i", self.at))
        size = int(_read(self.data, "<H", vtable))
        where = 4 + 2 * slot
        inside = int(_read(self.data, "<H", vtable + where)) if where + 2 <= size else 0
        return self.at + inside if inside else 0

    def number(self, slot: int, kind: str, default: float = 0) -> float:
        """Return a scalar; ``kind`` is its ``struct`` letter."""
        at = self._slot(slot)
        return _read(self.data, f"<{kind}", at) if at else default

    def integer(self, slot: int, kind: str = "I", default: int = 0) -> int:
        """Return a whole number."""
        return int(self.number(slot, kind, default))

    def table(self, slot: int) -> Table | None:
        """Return a table, or None where it is absent."""
        at = self._slot(slot)
        return Table(self.data, _forward(self.data, at), self.budget) if at else None

    def tables(self, slot: int) -> tuple[Table, ...]:
        """Return a vector of tables."""
        at, count = self._vector(slot, 4)
        return tuple(Table(self.data, _forward(self.data, at + 4 * index), self.budget) for index in range(count))

    def span(self, slot: int, size: int) -> tuple[int, int]:
        """Return where the first element of a vector of scalars lies, and how many there are; (0, 0) without one.

        Args:
            slot: of the vector.
            size: bytes of an element.
        """
        return self._vector(slot, size, read=False)

    def numbers(self, slot: int, kind: str) -> tuple[int, ...]:
        """Return a vector of whole numbers."""
        size = struct.calcsize(kind)
        at, count = self._vector(slot, size)
        return struct.unpack_from(f"<{count}{kind}", self.data, at) if count else ()

    def octets(self, slot: int) -> bytes:
        """Return a vector of bytes."""
        at, count = self._vector(slot, 1)
        return bytes(self.data[at : at + count])

    def text(self, slot: int) -> str:
        """Return a string; empty where it is absent.

        Raises:
            Spoiled: it is not UTF-8.
        """
        try:
            return self.octets(slot).decode("utf-8")
        except UnicodeDecodeError as error:
            raise Spoiled(f"a string is not UTF-8: {error}") from error

    def _vector(self, slot: int, size: int, *, read: bool = True) -> tuple[int, int]:
        """Return (position of the first element, how many); (0, 0) where it is absent."""
        at = self._slot(slot)
        if not at:
            return 0, 0
        start = _forward(self.data, at)
        count = int(_read(self.data, "<I", start))
        if start + 4 + count * size > len(self.data):
            raise Spoiled(f"a vector of {count} elements leads out of the file")
        self.budget[0] -= count * size * read
        if self.budget[0] < 0:
            raise Spoiled("its parts overlap, so that it would be read without end")
        return start + 4, count


def root(data: bytes | memoryview, identifier: bytes, budget: list[int] | None = None) -> Table:
    """Return the root table of a buffer.

    Args:
        data: the buffer.
        identifier: that it must bear.
        budget: of the file that the buffer lies in: buffers may overlap as well.

    Raises:
        Spoiled: the buffer does not bear the identifier.
    """
    view = memoryview(data)
    if bytes(view[4:8]) != identifier:
        raise Spoiled(f"no {identifier.decode()} file: it begins with {bytes(view[4:8])!r}")
    return Table(view, _forward(view, 0), [_OVERLAP * len(view)] if budget is None else budget)


def _forward(data: memoryview, at: int) -> int:
    offset = int(_read(data, "<I", at))
    if not 0 < offset < _LARGEST:
        raise Spoiled(f"an offset of {offset} at {at}")
    return at + offset


def _read(data: memoryview, kind: str, at: int) -> float:
    if at < 0 or at + struct.calcsize(kind) > len(data):
        raise Spoiled(f"position {at} is outside the file of {len(data)} bytes")
    found: float = struct.unpack_from(kind, data, at)[0]
    return found
