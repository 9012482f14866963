"""Numbers in groups of seven bits, the lowest first, the top bit set on all but the last: LEB128, unsigned."""

from __future__ import annotations

MOST_BITS = 63


def number(value: int) -> bytes:
    """Return a number's groups."""
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])


def read_number(data: bytes, at: int) -> tuple[int, int]:
    """Return a number that ``number`` wrote, and where the next one begins.

    Raises:
        ValueError: it ends too early, has more than 63 bits, or is longer than it must be.
    """
    value = 0
    for shift in range(0, MOST_BITS, 7):
        if at >= len(data):
            raise ValueError("the plan ends within a number")
        group = data[at]
        at += 1
        value |= (group & 0x7F) << shift
        if group < 0x80:
            if not group and shift:
                raise ValueError("a number is longer than it must be")
            return value, at
    raise ValueError("a number has more than 63 bits")
