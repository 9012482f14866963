"""The plan of a delta: its tables, its blocks, and where each segment of the new file comes from.

A segment is written out, copied from the old file, or made of old words and residuals; a block is segments with what
they need to be decoded, so that a decoder holds one block at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from haversack.tools.codec.delta_words import BYTES, FLOAT32, KINDS, LEAST_FACTOR, MOST_FACTOR, ONE, Kind
from haversack.tools.codec.leb128 import number, read_number

WRITTEN, COPIED, FIRST_KIND = 0, 1, 2
"""How a segment is made; from FIRST_KIND on it is of old words and residuals, of a kind of words."""
PRODUCT = FIRST_KIND + len(KINDS)
"""Made of float32 words of an earlier segment of the new file, all multiplied by one number, and residuals."""

KEPT = 1 << 20
"""Bytes of float32 segments that are kept for products: the first ones of the new file."""
MOST_POWER = 128
"""Of two, in a product's number."""

MOST_TABLES = 100
NEGATED = 128
"""Added to the class of a row whose residuals are coded negated."""
MOST_SYMBOLS = 1 << 19
"""Of a block, coded together."""
MOST_WRITTEN = 1 << 20
"""Bytes of a block that are written out."""
MOST_PLAN = 1 << 22
"""Bytes of a plan, and of the classes."""
_ONE_MORE = 1 << 62


@dataclass(frozen=True)
class Segment:
    """Bytes of the new file that follow each other.

    Attributes:
        how: WRITTEN, COPIED, or FIRST_KIND and the number of a kind of words.
        length: bytes.
        old: where the old ones begin; 0 of those written out.
        table: the first that codes its symbols.
        columns: words of a row, whose class and that of the column are added to ``table``; 0 for no classes.
        factor: of predictions.
        source: of a product: so many kept segments back are its words, 1 for the last one.
        power: of two, by which a product's words are multiplied as well.
        reach: tables from one degree of words to the next, where rows have tilts; 0 where they have none.
    """

    how: int
    length: int
    old: int = 0
    table: int = 0
    columns: int = 0
    factor: int = ONE
    source: int = 0
    power: int = 0
    reach: int = 0

    @property
    def kind(self) -> Kind:
        """Of its words; bytes where it has none."""
        if self.how < FIRST_KIND:
            return KINDS[BYTES]
        return KINDS[FLOAT32 if self.how == PRODUCT else self.how - FIRST_KIND]

    @property
    def words(self) -> int:
        """How many symbols it has."""
        return self.length // self.kind.width if self.how >= FIRST_KIND else 0

    @property
    def floats(self) -> bool:
        """Whether its words may be the source of a product."""
        return self.how in (PRODUCT, FIRST_KIND + FLOAT32)

    @property
    def rows(self) -> int:
        """How many rows have a class."""
        return -(-self.words // self.columns) if self.columns else 0

    @property
    def tiltable(self) -> bool:
        """Whether its rows may have tilts."""
        return bool(self.columns) and self.how == FIRST_KIND + BYTES

    @property
    def told(self) -> int:
        """Bytes that say the classes of its rows and columns, and the tilts of its rows."""
        return self.rows * (3 if self.reach else 1) + self.columns


@dataclass(frozen=True)
class Block:
    """Segments, and what their decoding reads: in this order, written bytes packed, bits, states, words.

    Attributes:
        segments: in the order of the new file.
        written: bytes that are written out.
        packed: bytes of their frame.
        bits: bytes that hold the bits behind symbols.
        lanes: of the entropy coder; 0 where nothing is coded.
        words: of 16 bits that it reads.
    """

    segments: tuple[Segment, ...]
    written: int = 0
    packed: int = 0
    bits: int = 0
    lanes: int = 0
    words: int = 0

    @property
    def size(self) -> int:
        """Its bytes in the delta."""
        return self.packed + self.bits + 4 * self.lanes + 2 * self.words


@dataclass(frozen=True)
class Plan:
    """Levels of the tables, uint8 [tables, 256], and the blocks."""

    levels: np.ndarray = field(repr=False)
    blocks: tuple[Block, ...]


def write(levels: np.ndarray, blocks: Sequence[Block]) -> bytes:
    """Return the bytes of a plan."""
    parts = [number(len(levels)), number(len(blocks)), levels.astype(np.uint8).tobytes()]
    last = 0
    for block in blocks:
        sizes = (len(block.segments), block.written, block.packed, block.bits, block.lanes, block.words)
        parts += map(number, sizes)
        for one in block.segments:
            parts.append(number(one.how))
            parts.append(number(one.length))
            if one.how == WRITTEN:
                continue
            if one.how == PRODUCT:
                parts += [number(one.table), number(one.source)]
                parts += [number(_folded(one.factor - ONE)), number(_folded(one.power))]
                continue
            parts.append(number(_folded(one.old - last)))
            last = one.old + one.length
            if one.how >= FIRST_KIND:
                parts += [number(one.table), number(one.columns)]
                if one.kind.scaled:
                    parts.append(number(_folded(one.factor - ONE)))
                if one.tiltable:
                    parts.append(number(one.reach))
    return b"".join(parts)


def read(data: bytes, old: int, new: int) -> Plan:
    """Return the plan that bytes are, every bound checked.

    Args:
        data: what ``write`` returned.
        old, new: bytes of both files.

    Raises:
        ValueError: it is malformed; says how.
    """
    tables, at = read_number(data, 0)
    count, at = read_number(data, at)
    if tables > MOST_TABLES or len(data) - at < 256 * tables or count > len(data):
        message = f"{tables} tables and {count} blocks are too many"
        raise ValueError(message)
    levels = np.frombuffer(data, np.uint8, 256 * tables, at).reshape(tables, 256)
    reader = _Reader(data, at + 256 * tables, old, tables)
    blocks = tuple(reader.blocks(count))
    made = sum(one.length for block in blocks for one in block.segments)
    if made != new or reader.at != len(data):
        message = f"the segments make {made} bytes of {new}, and the plan ends at {reader.at} of {len(data)}"
        raise ValueError(message)
    return Plan(levels, blocks)


@dataclass
class _Reader:
    """Where a plan is read; ``last`` is the end of the last old bytes that a segment took."""

    data: bytes
    at: int
    old: int
    tables: int
    last: int = 0

    def number(self) -> int:
        found, self.at = read_number(self.data, self.at)
        return found

    def blocks(self, count: int) -> Iterator[Block]:
        for _ in range(count):
            segments, written, packed, bits, lanes, words = (self.number() for _ in range(6))
            if segments > len(self.data) - self.at:
                message = f"a block of {segments} segments"
                raise ValueError(message)
            made = tuple(self.segment() for _ in range(segments))
            stated = sum(one.length for one in made if one.how == WRITTEN)
            symbols = sum(one.words for one in made)
            if stated != written or written > MOST_WRITTEN or symbols > MOST_SYMBOLS:
                message = f"a block of {stated} written bytes of {written}, and of {symbols} symbols"
                raise ValueError(message)
            if bits > 8 * symbols or words > symbols or lanes > symbols:
                message = f"{bits} bytes of bits, {words} words and {lanes} lanes are too many for {symbols} symbols"
                raise ValueError(message)
            yield Block(made, written, packed, bits, lanes, words)

    def segment(self) -> Segment:
        how, length = self.number(), self.number()
        if how > PRODUCT or not 0 < length < _ONE_MORE:
            message = f"a segment of {length} bytes, made in the way {how}"
            raise ValueError(message)
        if how == WRITTEN:
            return Segment(how, length)
        if how == PRODUCT:
            return self.product(length)
        start = self.last + _unfolded(self.number())
        if not 0 <= start <= self.old - length:
            message = f"{length} bytes at {start} of an old file of {self.old}"
            raise ValueError(message)
        self.last = start + length
        if how == COPIED:
            return Segment(how, length, start)
        kind = KINDS[how - FIRST_KIND]
        table, columns = self.number(), self.number()
        factor = ONE + _unfolded(self.number()) if kind.scaled else ONE
        if length % kind.width or table >= self.tables or not LEAST_FACTOR <= factor <= MOST_FACTOR:
            message = f"{length} bytes in words of {kind.width}, table {table}, factor {factor}"
            raise ValueError(message)
        found = Segment(how, length, start, table, columns, factor)
        found = replace(found, reach=self.number()) if found.tiltable else found
        if found.reach > self.tables:
            message = f"{found.reach} tables from one degree to the next, of {self.tables}"
            raise ValueError(message)
        return found

    def product(self, length: int) -> Segment:
        table, source, factor, power = self.number(), self.number(), self.number(), self.number()
        found = Segment(PRODUCT, length, 0, table, 0, ONE + _unfolded(factor), source, _unfolded(power))
        fits = LEAST_FACTOR <= found.factor <= MOST_FACTOR and abs(found.power) <= MOST_POWER
        if length % found.kind.width or table >= self.tables or not fits:
            message = f"a product of {length} bytes, table {table}, factor {found.factor}, power {found.power}"
            raise ValueError(message)
        return found


def _folded(value: int) -> int:
    """Return a signed number as one that is not: 0, -1, 1, -2 as 0, 1, 2, 3."""
    return 2 * value if value >= 0 else -2 * value - 1


def _unfolded(value: int) -> int:
    return value // 2 if value % 2 == 0 else -(value + 1) // 2
