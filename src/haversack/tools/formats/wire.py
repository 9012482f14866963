"""The wire format of Protocol Buffers, read within bounds: https://protobuf.dev/programming-guides/encoding."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from haversack.base.errors import Refused

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True)
class Field:
    """A field of a message: its number, its wire type, where its bytes are, and the value of a varint."""

    number: int
    wire: int
    start: int
    end: int
    value: int = 0


def fields(view: memoryview, start: int, end: int) -> Iterator[Field]:
    """Yield the fields of the message in bytes ``start`` to ``end``.

    Raises:
        Refused: a tag or a length is wrong.
    """
    at = start
    while at < end:
        tag, at = varint(view, at, end)
        number, wire, value = tag >> 3, tag & 7, 0
        begin = at
        if wire == VARINT:
            value, at = varint(view, at, end)
        elif wire == BYTES:
            size, begin = varint(view, at, end)
            at = begin + size
        elif wire in (FIXED32, FIXED64):
            at += 4 if wire == FIXED32 else 8
        else:
            raise Refused(f"a field of wire type {wire}", where=f"byte {at}")
        if at > end or not number:
            raise Refused(f"field {number} leads out of its message", where=f"byte {begin}")
        yield Field(number, wire, begin, at, value)


def varint(view: memoryview, at: int, end: int) -> tuple[int, int]:
    """Return a number in groups of 7 bits from byte ``at``, and where it ends.

    Raises:
        Refused: it leads out of the message, or has more than 64 bits.
    """
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            raise Refused("a number leads out of its message", where=f"byte {at}")
        group = view[at]
        at += 1
        value |= (group & 0x7F) << shift
        if group < 0x80:
            return value, at
    raise Refused("a number has more than 64 bits", where=f"byte {at}")
