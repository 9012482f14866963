"""HVD1: a file as a delta against another one, word by word where weights are, and its decoder of bounded memory.

docs/spec/delta.md is the format, precise enough for decoders in other languages. What a delta yields is checked against
the sha256 in its header, so that a damaged delta, or one for another file, never passes for the new file.
"""

from __future__ import annotations

import hashlib
import io
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from haversack.base.errors import Refused
from haversack.tools.codec import bsdiff, delta_plan, delta_tilt, delta_words, rans, tables, zstd
from haversack.tools.codec.delta_plan import COPIED, FIRST_KIND, KEPT, NEGATED, PRODUCT, WRITTEN, Block, Segment
from haversack.tools.codec.delta_words import BYTES

MAGIC = b"HVD1"
VERSION = 1
HEADER = struct.Struct("<4sHHQQ32s32sIIII")
"""Magic, version, form, bytes of the old and the new file, their sha256, bytes of the plan, its frame, classes, frame.
"""
WORDS, PATCH = 0, 1
"""Forms: words and residuals, or a BSDIFF40 patch behind the header."""
CODECS = {WORDS: "hvd1", PATCH: "bsdiff"}
_PIECE = 1 << 16
_MARGIN = bytes(8)

Bytes = bytes | memoryview


@dataclass(frozen=True)
class Header:
    """What a delta says of itself before anything is decoded.

    Attributes:
        old_bytes, new_bytes: of both files.
        old_sha256, new_sha256: of both files.
        plan: bytes of the plan, and of its frame.
        classes: bytes of the classes, and of their frame.
        form: of what follows.
    """

    old_bytes: int
    new_bytes: int
    old_sha256: bytes
    new_sha256: bytes
    plan: tuple[int, int]
    classes: tuple[int, int]
    form: int = WORDS

    @property
    def codec(self) -> str:
        """Name of the form."""
        return CODECS[self.form]

    def packed(self) -> bytes:
        """Return its bytes."""
        sizes = (self.old_bytes, self.new_bytes, self.old_sha256, self.new_sha256, *self.plan, *self.classes)
        return HEADER.pack(MAGIC, VERSION, self.form, *sizes)


def header(delta: Bytes) -> Header:
    """Return what a delta says of itself.

    Raises:
        Refused: it is no delta of this version, or states sizes that none has.
    """
    if len(delta) < HEADER.size:
        raise Refused(f"a header of {HEADER.size} bytes ends after {len(delta)}", where="byte 0 (header)")
    magic, version, form, old, new, old_sha, new_sha, *sizes = HEADER.unpack_from(delta)
    if magic != MAGIC:
        raise Refused("no delta begins like this", where="byte 0 (magic)")
    if version != VERSION:
        raise Refused(f"version {version} is unknown here, which reads {VERSION}", where="byte 4 (version)")
    if form not in CODECS or (form == PATCH and any(sizes)):
        raise Refused(f"form {form} is unknown in version {VERSION}, or has sizes", where="byte 6 (form)")
    plan, planned, classes, classed = sizes
    if max(plan, classes) > delta_plan.MOST_PLAN or planned + classed > len(delta) - HEADER.size:
        raise Refused("the plan is larger than one may be, or than the delta", where="byte 88 (sizes)")
    return Header(old, new, old_sha, new_sha, (plan, planned), (classes, classed), form)


def apply(old: Bytes, delta: Bytes, *, limit: int) -> bytes:
    """Return the new file.

    Args:
        old: the file that the delta was made for.
        delta: what ``make`` returned.
        limit: the most bytes that the new file may have; what says more is refused before anything is allocated.

    Raises:
        Refused: it was made for another file, is malformed, says more than ``limit``, or yields another file than it
            says.
        MissingExtra: the package zstandard is not installed.
    """
    stream = io.BytesIO()
    apply_to(old, delta, stream.write, limit=limit)
    return stream.getvalue()


def apply_to(old: Bytes, delta: Bytes, write: Callable[[bytes], object], *, limit: int) -> None:
    """Write the new file in pieces, in order; what was written before an error is worth nothing.

    Memory: one block, of at most 2^19 words, and the tables: below 16 MB, whatever the files are; below 24 where NumPy
    decodes, which looks tables up by their slots. A BSDIFF40 patch takes more than both files.

    Args:
        old: the file that the delta was made for; may be a view of a mapped file.
        delta: what ``make`` returned; likewise.
        write: takes each piece.
        limit: as for ``apply``.

    Raises:
        Refused, MissingExtra: as ``apply``.
    """
    told = header(delta)
    if told.new_bytes > limit:
        raise Refused(f"the new file has {told.new_bytes} bytes, and {limit} are allowed", where="byte 16 (length)")
    if len(old) != told.old_bytes or hashlib.sha256(old).digest() != told.old_sha256:
        made_for = f"the delta was made for a file of {told.old_bytes} bytes with sha256 {told.old_sha256.hex()}"
        found = f"this one has {len(old)} bytes with sha256 {hashlib.sha256(old).hexdigest()}"
        step = "give the file that it was made for, or fetch the new one whole"
        raise Refused(f"{made_for}, and {found}", where="the old file", next_step=step)
    digest = hashlib.sha256()
    for piece in _patched(old, delta, told) if told.form == PATCH else _pieces(old, memoryview(delta), told):
        digest.update(piece)
        write(piece)
    if digest.digest() != told.new_sha256:
        raise Refused("the new file has another sha256 than the delta says", where="byte 56 (sha256)")


def wrapped(old: bytes, new: bytes, patch: bytes) -> bytes:
    """Return a BSDIFF40 patch as a delta, which says what it is for and what it yields."""
    digests = hashlib.sha256(old).digest(), hashlib.sha256(new).digest()
    return Header(len(old), len(new), *digests, (0, 0), (0, 0), PATCH).packed() + patch


def _patched(old: Bytes, delta: Bytes, told: Header) -> Iterator[bytes]:
    yield bsdiff.apply(old, bytes(delta[HEADER.size :]), limit=told.new_bytes)


def _pieces(before: Bytes, delta: memoryview, told: Header) -> Iterator[bytes]:
    old, at = np.frombuffer(before, np.uint8), HEADER.size
    with _refused(at, "plan"):
        content = zstd.decompress(bytes(delta[at : at + told.plan[1]]), told.plan[0])
        plan = delta_plan.read(content, told.old_bytes, told.new_bytes)
        frequencies = tables.to_frequencies(plan.levels)
    at += told.plan[1]
    with _refused(at, "classes"):
        content = zstd.decompress(bytes(delta[at : at + told.classes[1]]), told.classes[0])
        classes = _Classes(np.frombuffer(content, np.uint8), len(frequencies))
        classes.counted(plan.blocks)
    at += told.classes[1]
    kept = Kept()
    for block in plan.blocks:
        with _refused(at, "block"):
            yield from _block(old, delta[at : at + block.size], block, kept, _Coding(classes, frequencies))
        at += block.size
    if at != len(delta):
        raise Refused(f"{len(delta) - at} bytes are left over", where=f"byte {at}")


@dataclass
class _Classes:
    """Classes of rows and columns, in the order of the segments, as they are used up."""

    data: np.ndarray
    tables: int
    at: int = 0

    def counted(self, blocks: tuple[Block, ...]) -> None:
        wanted = sum(one.told for block in blocks for one in block.segments)
        if wanted != len(self.data):
            message = f"{len(self.data)} classes are there of {wanted}"
            raise ValueError(message)

    def rows(self, one: Segment, old: np.ndarray) -> _Rows:
        """Return how the words of a segment are coded, which are made of old bytes, uint8.

        Raises:
            ValueError: there is no such table, or words of this kind are not negated.
        """
        if not one.columns:
            return _Rows(np.full(one.words, one.table, np.uint16))
        if one.columns > one.words:
            message = f"rows of {one.columns} words in a segment of {one.words}"
            raise ValueError(message)
        rows, columns = one.rows, one.columns
        told = self.data[self.at : self.at + one.told]
        self.at += one.told
        own = told[: rows + columns].astype(np.uint16)
        turned = own[:rows] >= NEGATED
        own[:rows] -= NEGATED * turned.astype(np.uint16)
        if turned.any() and one.how != FIRST_KIND + BYTES:
            raise ValueError("only bytes are negated")
        loud = own[:rows] > 0
        found = np.where(loud[:, None], own[:rows, None] + own[None, rows:], np.uint16(0)).reshape(-1)[: one.words]
        found += np.uint16(one.table)
        negated, predicted = np.repeat(turned, columns)[: one.words], None
        if one.reach:
            predicted, degrees, opposite = delta_tilt.lean(old, delta_tilt.read(told[rows + columns :]), columns)
            found += degrees * np.uint16(one.reach) * np.repeat(loud, columns)[: one.words]
            negated ^= opposite
        if int(found.max()) >= self.tables:
            message = f"a class leads behind the last of {self.tables} tables"
            raise ValueError(message)
        return _Rows(found, negated, predicted)


@dataclass(frozen=True)
class _Rows:
    """The table of each word of a segment, uint16, whether it is negated, and what it is predicted to be, uint8.

    The last two are there where rows have classes, and where they have tilts.
    """

    models: np.ndarray
    negated: np.ndarray | None = None
    predicted: np.ndarray | None = None


_NO_ROWS = _Rows(np.zeros(0, np.uint16))


@dataclass
class Kept:
    """Float32 segments of the new file that products may be made of, in order, as far as they have room."""

    data: list[np.ndarray] = field(default_factory=list)
    size: int = 0

    def add(self, content: np.ndarray) -> None:
        """Keep the bytes of a segment, uint8, if there is room for them."""
        if self.size + len(content) <= KEPT:
            self.data.append(content)
            self.size += len(content)

    def back(self, count: int, length: int) -> np.ndarray:
        """Return the bytes of the segment so many back.

        Raises:
            ValueError: there is none, or it has another length.
        """
        if not 0 < count <= len(self.data) or len(self.data[-count]) != length:
            message = f"a product of {length} bytes, {count} segments back of {len(self.data)}"
            raise ValueError(message)
        return self.data[-count]


@dataclass(frozen=True)
class _Coding:
    """What symbols are decoded with: classes as they are used up, and frequencies of the tables."""

    classes: _Classes
    frequencies: np.ndarray


def _block(old: np.ndarray, data: memoryview, block: Block, kept: Kept, coding: _Coding) -> Iterator[bytes]:
    if len(data) != block.size:
        message = f"a block of {block.size} bytes ends after {len(data)}"
        raise ValueError(message)
    written = memoryview(zstd.decompress(bytes(data[: block.packed]), block.written))
    rest = data[block.packed :]
    bits = _Bits(np.frombuffer(bytes(rest[: block.bits]) + _MARGIN, np.uint8), 8 * block.bits)
    rows = [
        coding.classes.rows(one, old[one.old : one.old + one.length]) if one.words else _NO_ROWS
        for one in block.segments
    ]
    symbols = _symbols(rest[block.bits :], block, rows, coding.frequencies)
    taken = coded = 0
    for one, row in zip(block.segments, rows, strict=True):
        if one.how == WRITTEN:
            yield bytes(written[taken : taken + one.length])
            taken += one.length
        elif one.how == COPIED:
            for low in range(one.old, one.old + one.length, 1 << 20):
                yield old[low : min(low + (1 << 20), one.old + one.length)].tobytes()
        else:
            source = old[one.old : one.old + one.length] if row.predicted is None else row.predicted
            if one.how == PRODUCT:
                source = kept.back(one.source, one.length)
            pieces = _restored(source, symbols[coded : coded + one.words], bits, one)
            coded += one.words
            if one.floats and one.length <= KEPT:
                whole = b"".join(pieces)
                kept.add(np.frombuffer(whole, np.uint8))
                yield whole
            else:
                yield from pieces
    bits.done()


def _symbols(data: memoryview, block: Block, rows: list[_Rows], frequencies: np.ndarray) -> np.ndarray:
    """Return the symbols of all segments of a block, uint8."""
    models = np.concatenate([np.zeros(0, np.uint16), *(each.models for each in rows)])
    if block.lanes:
        states = np.frombuffer(data, "<u4", block.lanes)
        decoder = rans.Decoder(
            states, np.frombuffer(data, "<u2", block.words, 4 * block.lanes), frequencies, uncertain=True
        )
        found, coded = decoder.take(models), decoder.coded
        decoder.finish()
    else:
        found, told = rans.certain(models, frequencies)
        coded = len(told) - int(np.count_nonzero(told))
    if bool(coded) != bool(block.lanes) or block.lanes > max(coded, 1) or block.words > coded:
        message = f"{block.lanes} lanes and {block.words} words for {coded} symbols"
        raise ValueError(message)
    at = 0
    for each in rows:
        if each.negated is not None:
            part = found[at : at + len(each.models)]
            turned = np.negative(each.negated.view(np.uint8))  # -x is ~x + 1: quicker than a mask
            part ^= turned
            part -= turned
        at += len(each.models)
    return found


def _restored(source: np.ndarray, symbols: np.ndarray, bits: _Bits, one: Segment) -> Iterator[bytes]:
    """Yield the bytes of a segment, so many words at a time that little memory is taken."""
    kind = one.kind
    for low in range(0, one.words, _PIECE):
        found = symbols[low : low + _PIECE]
        before = source[low * kind.width : (low + len(found)) * kind.width]
        if not kind.single:
            rest = delta_words.rests(found, kind)
            found = delta_words.join(found, rest, bits.taken(rest), kind)
        yield delta_words.restore(before, found, kind, one.factor, one.power).tobytes()


@dataclass
class _Bits:
    """The bits behind symbols, as they are used up."""

    data: np.ndarray
    count: int
    at: int = 0

    def taken(self, rest: np.ndarray) -> np.ndarray:
        end = self.at + int(rest.sum())
        if end > self.count:
            message = f"{self.count} bits end before bit {end}"
            raise ValueError(message)
        found = delta_words.unpack_bits(self.data, self.at, rest)
        self.at = end
        return found

    def done(self) -> None:
        if self.count - self.at >= 8:
            message = f"{self.count - self.at} bits are left over"
            raise ValueError(message)


@contextmanager
def _refused(at: int, what: str) -> Iterator[None]:
    """Tell what is malformed as a refusal with its place."""
    try:
        yield
    except ValueError as error:
        raise Refused(str(error), where=f"byte {at} ({what})") from error
