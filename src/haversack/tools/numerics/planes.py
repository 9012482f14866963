"""Planes: codes of weights in as few bits as they need, for a runtime that has no such type.

A code of 3 to 8 bits is written in two's complement, and its bits are kept apart: plane k holds bit k of every code,
eight of them in a byte. Codes of one bit (-1 and 1) are one plane of signs. Codes of two bits (-1, 0 and 1) are one
plane of ternary digits, five of them in a byte, since 3^5 = 243. So a table says what a byte means, and

    code[i] = sum over planes k of powers[k] * table[words[k, i // digits], i % digits]
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_BYTE = 8
_BINARY, _TERNARY = 1, 2
_TRITS = 5


@dataclass(frozen=True, eq=False)
class Planes:
    """Packed codes.

    Attributes:
        words: uint8 [planes, bytes of a plane], padded with 0.
        table: int8 [values of a byte, digits in a byte].
        powers: int8 [1, planes], what a digit of each plane counts.
    """

    words: np.ndarray
    table: np.ndarray
    powers: np.ndarray


def stored_bits(bits: int) -> float:
    """Return how many bits a code takes in planes: 8/5 where it is ternary, else its own bits."""
    return _BYTE / _TRITS if bits == _TERNARY else bits


def pack(codes: np.ndarray, bits: int) -> Planes:
    """Return codes in planes.

    Args:
        codes: integers of any shape; symmetric weights of these bits (see ``base.encodings.Affine``).
        bits: 1 to 8.

    Raises:
        ValueError: ``bits`` is not 1 to 8, or a code does not fit.
    """
    legend, powers = table(bits), _powers(bits)
    flat = np.asarray(codes).reshape(-1).astype(np.int64)
    digits = legend.shape[1]
    if bits <= _TERNARY:
        values = (flat + 1) // 2 if bits == _BINARY else flat + 1
        columns, base = values[None], 2 if bits == _BINARY else 3
    else:
        columns, base = (flat[None] >> np.arange(bits)[:, None]) & 1, 2
    columns = np.pad(columns, ((0, 0), (0, -flat.size % digits)))
    words = columns.reshape(len(columns), -1, digits) @ (base ** np.arange(digits))
    made = Planes((words & 0xFF).astype(np.uint8), legend, powers)
    if not np.array_equal(unpack(made, flat.shape), flat):
        raise ValueError(f"a code does not fit {bits} bits")
    return made


def unpack(planes: Planes, shape: tuple[int, ...]) -> np.ndarray:
    """Return the codes that planes mean, int32 in this shape.

    Raises:
        ValueError: a byte is not in the table, or there are fewer digits than the shape has places.
    """
    count = int(np.prod(shape, dtype=np.int64))
    if planes.words.size and int(planes.words.max()) >= len(planes.table):
        raise ValueError(f"a byte is none of the {len(planes.table)} that mean something")
    digits = planes.table[planes.words].reshape(len(planes.words), -1).astype(np.int32)
    if count > digits.shape[1]:
        raise ValueError(f"{digits.shape[1]} digits are not {count} codes")
    codes = (planes.powers.astype(np.int32) @ digits)[0, :count]
    return np.asarray(codes.reshape(shape), np.int32)


def width(table_read: np.ndarray, powers: np.ndarray) -> int:
    """Return the bits of the codes whose table and powers these are.

    Raises:
        ValueError: they are those of no width.
    """
    for bits in range(1, _BYTE + 1):
        if _same(table(bits), table_read) and _same(_powers(bits), powers):
            return bits
    raise ValueError("its table and powers are those of no width")


def table(bits: int) -> np.ndarray:
    """Return what each byte means, int8 [values of a byte, digits in a byte].

    Raises:
        ValueError: ``bits`` is not 1 to 8.
    """
    if not 1 <= bits <= _BYTE:
        raise ValueError(f"codes have 1 to {_BYTE} bits, not {bits}")
    base, digits = (3, _TRITS) if bits == _TERNARY else (2, _BYTE)
    found = np.arange(base**digits)[:, None] // base ** np.arange(digits) % base
    offset = {_BINARY: 2 * found - 1, _TERNARY: found - 1}.get(bits, found)
    return np.asarray(offset, np.int8)


def _powers(bits: int) -> np.ndarray:
    if bits <= _TERNARY:
        return np.ones((1, 1), np.int8)
    found = 1 << np.arange(bits)
    found[-1] *= -1
    return np.asarray(found[None], np.int8)


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and bool((one == other).all())
