"""Planes: codes of weights in as few bits as they need, for a runtime that has no such type.

A code of 3 and of 5 to 7 bits is written in two's complement and cut into planes of 4, 2 and 1 bits, the lowest first.
Codes of one bit (-1 and 1) are one plane; codes of two bits (-1, 0 and 1) are one plane of ternary digits, five of them
in a byte, since 3^5 = 243. What the bytes of a plane mean, a table says; the parts of a code are joined by OR:

    code[i] = OR over planes of table[words[i // digits], i % digits]

A plane of 4 bits has no table: its digits are stored as they are, in a type that runtimes know (ONNX's UINT4).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_BYTE = 8
_BINARY, _TERNARY = 1, 2
_TRITS = 5
HALF = 4
"""Bits of the plane that has no table."""
_PLANES = {1: (1,), 2: (2,), 3: (2, 1), 5: (4, 1), 6: (4, 2), 7: (4, 2, 1)}
"""Bits of a code -> those of its planes, the lowest first."""
WIDTHS = frozenset(_PLANES)
"""Bits of codes that are cut into planes."""


def stored_bits(bits: int) -> float:
    """Return how many bits a code takes when it is stored: 8/5 where it is ternary, else its own bits."""
    return _BYTE / _TRITS if bits == _TERNARY else bits


def digits(bits: int) -> int:
    """Return how many codes stand together: the last of them are none where their number is no multiple of this."""
    return _TRITS if bits == _TERNARY else _BYTE


def tables(bits: int) -> list[np.ndarray | None]:
    """Return for each plane what each byte means, the lowest first; None for the plane of 4 bits.

    Shapes: int8 [values of a byte, digits]; of codes that have several planes [256, 4] or [256, 2, 4], so that eight
    codes are [2, 4] in each of them.

    Raises:
        ValueError: there are no planes of so many bits.
    """
    if bits == _BINARY:
        return [_digits(2, _BYTE) * 2 - 1]
    if bits == _TERNARY:
        return [_digits(3, _TRITS) - 1]
    found: list[np.ndarray | None] = []
    below = 0
    for width in _widths(bits):
        count = _BYTE // width
        values = _digits(1 << width, count).astype(np.int64) << below
        below += width
        if below == bits:
            values -= (values >> (bits - 1)) << bits
        shaped = values.reshape(len(values), 2, 4) if width == 1 else values
        found.append(None if width == HALF else shaped.astype(np.int8))
    return found


def pack(codes: np.ndarray, bits: int) -> list[np.ndarray]:
    """Return the planes of codes, uint8, the lowest first: bytes, and the digits themselves of the plane of 4 bits.

    Shapes: [bytes] of one plane; of several, with m = ceil(size / 8), [m, 2, 4], [m, 2] and [m] of 4, 2 and 1 bits.
    What is missing at the end is filled up with 0 of each digit.

    Args:
        codes: integers of any shape; symmetric weights of these bits (see ``base.encodings.Affine``).
        bits: one of ``WIDTHS``.

    Raises:
        ValueError: there are no planes of so many bits, or a code does not fit.
    """
    flat = np.asarray(codes).reshape(-1).astype(np.int64)
    widths = _widths(bits)
    if bits == _BINARY:
        made = [_bytes((flat + 1) // 2, 2, digits(bits))]
    elif bits == _TERNARY:
        made = [_bytes(flat + 1, 3, digits(bits))]
    else:
        made, below = [], 0
        padded = np.pad(flat, (0, -flat.size % _BYTE))
        for width in widths:
            part = (padded >> below) & ((1 << width) - 1)
            below += width
            shape = {HALF: (-1, 2, 4), 2: (-1, 2), 1: (-1,)}[width]
            made.append((part if width == HALF else _bytes(part, 1 << width, _BYTE // width)).reshape(shape))
    found = [plane.astype(np.uint8) for plane in made]
    if not np.array_equal(unpack(found, bits, flat.shape), flat):
        raise ValueError(f"a code does not fit {bits} bits")
    return found


def unpack(planes: Sequence[np.ndarray], bits: int, shape: tuple[int, ...]) -> np.ndarray:
    """Return the codes that planes mean, int32 in this shape.

    Raises:
        ValueError: there are no planes of so many bits, these are not as ``pack`` returns them for this shape, or a
            byte means nothing.
    """
    legends, count = tables(bits), int(np.prod(shape, dtype=np.int64))
    total: np.ndarray = np.zeros(0, np.int8)
    for plane, table in zip(planes, legends, strict=True):
        most = (1 << HALF) if table is None else len(table)
        if plane.dtype != np.uint8 or (plane.size and int(plane.max()) >= most):
            raise ValueError("a plane holds what means nothing")
        part = plane.astype(np.int8) if table is None else table[plane]
        if total.size and total.shape != part.shape:
            raise ValueError(f"planes of {total.size} and {part.size} digits")
        total = total | part if total.size else part
    if total.size != -(-count // digits(bits)) * digits(bits):
        raise ValueError(f"{total.size} digits for {count} codes of {bits} bits")
    return np.asarray(total.reshape(-1)[:count].reshape(shape), np.int32)


def _widths(bits: int) -> tuple[int, ...]:
    if bits not in _PLANES:
        raise ValueError(f"codes of {bits} bits have no planes, those of {', '.join(map(str, _PLANES))} have")
    return _PLANES[bits]


def _digits(base: int, count: int) -> np.ndarray:
    """Return the digits of every byte, the lowest first, int8 [base^count, count]."""
    return np.asarray(np.arange(base**count)[:, None] // base ** np.arange(count) % base, np.int8)


def _bytes(parts: np.ndarray, base: int, count: int) -> np.ndarray:
    """Return bytes of ``count`` digits each, the lowest first; what does not fit a byte shows when it is unpacked."""
    padded = np.pad(parts, (0, -parts.size % count)).reshape(-1, count)
    return np.asarray((padded @ (base ** np.arange(count))) & 0xFF)
