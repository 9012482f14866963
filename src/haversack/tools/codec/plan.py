"""The plan of a segmented download: which model codes each byte of the file.

Segments follow each other without gaps. One has a stride of 1, 2 or 4, and its runs are the bytes at each position
modulo the stride: a run is stored, packed with Zstandard, or coded with one of the tables. From version 2 on it may be
a grid, whose rows and columns say together which table codes a byte, or a product: floats that are others of the file
times a factor.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

STORED, PACKED, FIRST_TABLE = 0, 1, 2
"""Models of a run; from FIRST_TABLE on they are tables."""

STRIDES = frozenset({1, 2, 4})
GRID, PRODUCT = 8, 9
"""What stands in place of a stride."""

MOST_SEGMENTS = 1 << 16
MOST_TABLES = 256
MOST_ENTRY = 9 + 1 + 4 * 2
"""The most bytes that a segment's entry takes in version 1."""
MOST_ENTRY_2 = 9 + 1 + 9 + 3 * 2
"""The most bytes that a segment's entry takes in version 2, without classes."""

_SIZE_BITS = 63


@dataclass(frozen=True)
class Run:
    """The bytes ``start``, ``start + stride`` … below ``stop`` of a file, and their model."""

    start: int
    stop: int
    stride: int
    model: int

    def __len__(self) -> int:
        return len(range(self.start, self.stop, self.stride))

    @property
    def place(self) -> slice:
        """Return where its bytes are."""
        return slice(self.start, self.stop, self.stride)

    @property
    def coded(self) -> bool:
        """Say whether tables code its bytes."""
        return self.model >= FIRST_TABLE

    def pieces(self, most: int) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield its bytes in order, at most so many at a time: where they are, and each one's table, uint8 [bytes]."""
        places = range(self.start, self.stop, self.stride)
        for low in range(0, len(self), most):
            part = places[low : low + most]
            yield slice(part.start, part.stop, part.step), np.full(len(part), self.model - FIRST_TABLE, np.uint8)


@dataclass(frozen=True)
class Grid:
    """Bytes in rows, as weights are: the table of one is ``base`` and the classes of its row and column, together.

    Attributes:
        start: of its first byte in the file.
        low: the lowest table; a sum below it means this one.
        high: the highest table, likewise.
        base: the table where both classes are 0.
        rows: a class for each row, signed bytes.
        columns: a class for each column, signed bytes.
    """

    start: int
    low: int
    high: int
    base: int
    rows: bytes
    columns: bytes
    coded = True

    def __len__(self) -> int:
        return len(self.rows) * len(self.columns)

    @property
    def stop(self) -> int:
        """Return where its last byte ends."""
        return self.start + len(self)

    def pieces(self, most: int) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield its bytes, whole rows, about so many at a time: where they are, and each one's table, uint8 [bytes]."""
        columns, width = np.frombuffer(self.columns, np.int8).astype(np.int16), len(self.columns)
        rows = np.frombuffer(self.rows, np.int8).astype(np.int16) + np.int16(self.base)
        step = max(most // width, 1)
        for first in range(0, len(rows), step):
            tables = np.clip(rows[first : first + step, None] + columns, self.low, self.high)
            start = self.start + first * width
            yield slice(start, start + tables.size), tables.astype(np.uint8).reshape(-1)


@dataclass(frozen=True)
class Product:
    """Float32 words from ``start`` to ``stop``: ``factor``, the bits of one, times those from ``source`` on."""

    start: int
    stop: int
    source: int
    factor: int
    coded = False

    def __len__(self) -> int:
        return self.stop - self.start


Segment = tuple[Run, ...] | Grid | Product


def write(segments: Iterable[Segment]) -> tuple[bytes, bytes]:
    """Return the directory of segments: their entries, and the classes of grids, which follow without a gap.

    Args:
        segments: in order; of those of version 1 each is given as its runs.
    """
    parts: list[bytes] = []
    classes: list[bytes] = []
    for each in segments:
        if isinstance(each, Grid):
            parts += map(_number, (len(each), GRID, len(each.columns), each.low, each.high, each.base))
            classes += [each.rows, each.columns]
        elif isinstance(each, Product):
            parts += map(_number, (len(each), PRODUCT, each.source, each.factor))
        else:
            parts += map(_number, (each[0].stop - each[0].start, len(each), *(run.model for run in each)))
    return b"".join(parts), b"".join(classes)


def most_bytes(segments: int, size: int, version: int) -> int:
    """Return how many bytes a directory of so many segments of a file of ``size`` bytes has at most."""
    return segments * MOST_ENTRY if version == 1 else segments * (MOST_ENTRY_2 + 1) + size


def read(directory: bytes, segments: int, size: int, tables: int, version: int) -> list[Run | Grid | Product]:
    """Return the runs, grids and products of a directory, in order.

    Args:
        directory: what ``write`` returned, together.
        segments: how many it has.
        size: the file's bytes, which the segments must add up to.
        tables: how many tables there are.
        version: 1, without grids and products, or 2.

    Raises:
        ValueError: it ends early or late, a number is not written in the shortest way, a stride or a model is unknown,
            the segments have another size together, or what a product multiplies is none that stands in the file.
    """
    found: list[Run | Grid | Product | _Shape] = []
    numbers = _Numbers(directory)
    start = 0
    for _ in range(segments):
        length = numbers.next()
        if not 0 < length <= size - start:
            message = f"a segment at byte {start} of {size} has {length} bytes"
            raise ValueError(message)
        stride = numbers.next()
        if stride in STRIDES:
            models = [_known(numbers.next(), FIRST_TABLE + tables, tables) for _ in range(stride)]
            found += [Run(start + phase, start + length, stride, model) for phase, model in enumerate(models)]
        elif version > 1 and stride == GRID:
            found.append(_shape(numbers, start, length, tables))
        elif version > 1 and stride == PRODUCT:
            found.append(Product(start, start + length, numbers.next(), numbers.next()))
        else:
            message = f"a segment has a stride of {stride}"
            raise ValueError(message)
        start += length
    at, entries = numbers.at, []
    for each in found:
        entry = each.grid(directory, at) if isinstance(each, _Shape) else each
        at += len(entry.rows) + len(entry.columns) if isinstance(entry, Grid) else 0
        entries.append(entry)
    if start != size or at != len(directory):
        message = f"{segments} segments have {start} bytes in {at} bytes of directory, not {size} in {len(directory)}"
        raise ValueError(message)
    _check_sources([each for each in entries if isinstance(each, Product)], size)
    return entries


@dataclass(frozen=True)
class _Shape:
    """A grid whose classes are not read yet: they stand behind all entries."""

    start: int
    rows: int
    columns: int
    low: int
    high: int
    base: int

    def grid(self, directory: bytes, at: int) -> Grid:
        between, end = at + self.rows, at + self.rows + self.columns
        if end > len(directory):
            raise ValueError("the directory ends within the classes of a grid")
        return Grid(self.start, self.low, self.high, self.base, directory[at:between], directory[between:end])


def _shape(numbers: _Numbers, start: int, length: int, tables: int) -> _Shape:
    width = numbers.next()
    low, high, base = (_known(numbers.next(), tables, tables) for _ in range(3))
    if not width or length % width or low > high:
        message = f"a grid of {length} bytes has rows of {width} and tables from {low} to {high}"
        raise ValueError(message)
    return _Shape(start, length // width, width, low, high, base)


def _known(model: int, count: int, tables: int) -> int:
    if model >= count:
        message = f"a segment has model {model}, and there are {tables} tables"
        raise ValueError(message)
    return model


def _check_sources(products: list[Product], size: int) -> None:
    """Check that what is multiplied stands in the file, and is no product itself: so all can be made in any order."""
    starts = [each.start for each in products]
    for each in products:
        end = each.source + len(each)
        before = bisect.bisect_left(starts, end) - 1
        if len(each) % 4 or end > size or each.factor >> 32 or (before >= 0 and products[before].stop > each.source):
            message = f"{len(each)} bytes at byte {each.start} are no product of those from byte {each.source} on"
            raise ValueError(message)


def _number(value: int) -> bytes:
    """Return a number in groups of seven bits, lowest first, the top bit set on all but the last (LEB128)."""
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])


class _Numbers:
    """The numbers of a directory, one after the other."""

    def __init__(self, data: bytes) -> None:
        self._data, self.at = data, 0

    def next(self) -> int:
        value = 0
        for shift in range(0, _SIZE_BITS, 7):
            if self.at >= len(self._data):
                raise ValueError("the directory ends within an entry")
            group = self._data[self.at]
            self.at += 1
            value |= (group & 0x7F) << shift
            if group < 0x80:
                if not group and shift:
                    raise ValueError("a number is longer than it must be")
                return value
        raise ValueError("a number has more than 63 bits")
