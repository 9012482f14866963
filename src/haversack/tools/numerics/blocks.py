"""Weights in groups: a few neighbours of a row share a scale, and their codes have 4 bits.

Scales are bfloat16 numbers of at least 2^-14, so that they are float16 numbers as well: XNNPACK computes with bfloat16
(its ``qb4w`` kernels), LiteRT stores float16, and the same numbers stand in every file.
"""

from __future__ import annotations

import numpy as np

from haversack.base.encodings import BlockAffine

LEAST, MOST = 2.0**-14, 65280.0
"""The smallest normal number of float16, and the largest of bfloat16 that float16 has."""


def rounded(scales: np.ndarray) -> np.ndarray:
    """Return the nearest scales that both bfloat16 and float16 have, float32 in the same shape.

    Args:
        scales: positive and finite; below 2^-14 and above 65280 they end there.
    """
    bits = np.clip(np.asarray(scales, np.float32), np.float32(LEAST), np.float32(MOST)).view(np.uint32)
    even = bits + 0x7FFF + ((bits >> 16) & 1)
    return np.minimum((even & 0xFFFF0000).astype(np.uint32).view(np.float32), np.float32(MOST))


def to_bfloat16(scales: np.ndarray) -> np.ndarray:
    """Return the bits of float32 numbers that bfloat16 has, uint16 in the same shape.

    Raises:
        ValueError: bfloat16 does not have one of them.
    """
    bits = np.ascontiguousarray(scales, np.float32).view(np.uint32)
    if (bits & 0xFFFF).any():
        raise ValueError("a scale is no bfloat16 number")
    return (bits >> 16).astype(np.uint16)


def from_bfloat16(bits: np.ndarray) -> np.ndarray:
    """Return the float32 numbers, in the same shape, whose bfloat16 bits (uint16) these are."""
    return (np.asarray(bits).astype(np.uint32) << 16).view(np.float32)


def to_float16(scales: np.ndarray) -> np.ndarray:
    """Return float32 numbers as float16, in the same shape.

    Raises:
        ValueError: float16 does not have one of them.
    """
    with np.errstate(over="ignore"):
        half = np.asarray(scales, np.float32).astype(np.float16)
    if not np.array_equal(half.astype(np.float32), scales):
        raise ValueError("a scale is no float16 number")
    return half


def quantize(weight: np.ndarray, encoding: BlockAffine) -> np.ndarray:
    """Return the codes of a weight, int32 [rows, length], rounded half to even and saturated.

    Args:
        weight: float32 [rows, length].
        encoding: symmetric, with as many scales.
    """
    parts = np.asarray(weight, np.float32).reshape(*encoding.scale.shape, encoding.block)
    codes = np.clip(np.rint(parts / encoding.scale[..., None]), encoding.low, encoding.high)
    return np.asarray(codes.reshape(weight.shape), np.int32)


def values(integers: np.ndarray, encoding: BlockAffine) -> np.ndarray:
    """Return what codes mean: float32 [rows, length], each code times the scale of its block.

    Args:
        integers: int32 [rows, length].
        encoding: symmetric, with as many scales.

    Raises:
        ValueError: the encoding has minima or scales of scales.
    """
    if not encoding.symmetric:
        raise ValueError("only blocks with one scale and no minimum are computed here")
    parts = integers.reshape(*encoding.scale.shape, encoding.block).astype(np.float32)
    return np.asarray((parts * encoding.scale[..., None]).reshape(integers.shape), np.float32)
