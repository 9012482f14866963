"""Packed bits: codes of 1 to 8 bits without gaps, first code in the lowest bits (as ONNX packs INT4)."""

from __future__ import annotations

import numpy as np


def pack(codes: np.ndarray, bits: int, *, signed: bool = False) -> np.ndarray:
    """Return the codes as uint8 [ceil(size * bits / 8)], in C order, signed ones in two's complement; padded with 0.

    Raises:
        ValueError: ``bits`` is not 1 to 8, or a code does not fit.
    """
    low, high = _limits(bits, signed)
    flat = np.asarray(codes).reshape(-1)
    if flat.size and not (low <= flat.min() and flat.max() <= high):
        message = f"a code leaves [{low}, {high}]"
        raise ValueError(message)
    single = (flat.astype(np.int64) & 0xFF).astype(np.uint8)[:, None]
    return np.packbits(np.unpackbits(single, axis=1, bitorder="little")[:, :bits].reshape(-1), bitorder="little")


def unpack(packed: np.ndarray, bits: int, count: int, *, signed: bool = False) -> np.ndarray:
    """Return the first ``count`` codes as int32 [count].

    Raises:
        ValueError: ``bits`` is not 1 to 8, or there are not as many bytes as ``count`` codes take.
    """
    _limits(bits, signed)
    if packed.dtype != np.uint8 or packed.size != packed_bytes(count, bits):
        message = f"{count} codes of {bits} bits take {packed_bytes(count, bits)} bytes, not {packed.size}"
        raise ValueError(message)
    single = np.unpackbits(packed.reshape(-1), count=count * bits, bitorder="little").reshape(count, bits)
    codes = single.astype(np.int32) @ (1 << np.arange(bits, dtype=np.int32))
    if signed:
        codes = codes - ((codes >> (bits - 1)) << bits)
    return np.asarray(codes, np.int32)


def packed_bytes(count: int, bits: int) -> int:
    """Return how many bytes ``count`` codes of ``bits`` bits take."""
    return -(-count * bits // 8)


def _limits(bits: int, signed: bool) -> tuple[int, int]:
    if not 1 <= bits <= 8:
        message = f"codes have 1 to 8 bits, not {bits}"
        raise ValueError(message)
    return (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
