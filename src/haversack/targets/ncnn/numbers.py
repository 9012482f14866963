"""The numbers that an integer layer has in the file, as functions of our encodings: what is written and checked.

ncnn multiplies an int8 layer's int32 sum by ``1 / (input scale * weight scale)`` in float32, adds the float bias,
applies the activation, multiplies by the output scale and rounds half away from zero to [-127, 127]. With the input and
output scale 1 and ``1 / multiplier`` as the weight scale, that is our law but for the last bit of the product.
"""

from __future__ import annotations

import numpy as np

from haversack.base.encodings import Affine
from haversack.tools.numerics import affine

TOP = 127
"""The largest code of ncnn, and less its sign the smallest."""
EXACT = 1 << 24
"""Whole numbers below are exact in float32."""


def multiplier(source: Affine, weight: Affine, out: Affine, channels: int) -> np.ndarray:
    """Return what the sums are multiplied by, float32 [channels]."""
    found = affine.multiplier(source.scale, weight.scale, out.scale)
    return np.ascontiguousarray(np.broadcast_to(found, (channels,)), np.float32)


def inverse(multipliers: np.ndarray) -> np.ndarray:
    """Return the weight scales that make ncnn multiply by ``multipliers``, float32; infinite where there is none."""
    with np.errstate(over="ignore", divide="ignore"):
        return np.asarray(np.float32(1) / multipliers, np.float32)


def applied(multipliers: np.ndarray) -> np.ndarray:
    """Return what ncnn multiplies by when the file holds ``inverse(multipliers)``, float32."""
    return np.asarray(np.float32(1) / inverse(multipliers), np.float32)


def bias_values(codes: np.ndarray, multipliers: np.ndarray) -> np.ndarray:
    """Return a bias in steps of the output, float32, for codes at the scale of the sum."""
    return np.asarray(codes.astype(np.float32) * multipliers, np.float32)


def bias_codes(values: np.ndarray, multipliers: np.ndarray) -> np.ndarray:
    """Return the int32 codes that ``bias_values`` was made from."""
    with np.errstate(all="ignore"):
        codes = np.rint(values.astype(np.float64) / multipliers.astype(np.float64))
    limit = np.iinfo(np.int32).max
    return np.asarray(np.nan_to_num(np.clip(codes, -limit, limit))).astype(np.int32)


def limits(out: Affine, bounds: tuple[float, float] | None) -> tuple[int, int]:
    """Return the smallest and largest code around 0, inside the interval of a clamp if there is one."""
    if bounds is None:
        return -TOP, TOP
    zero = int(out.zero_point)
    low, high = (int(code) - zero for code in affine.quantize(np.array(bounds, np.float32), out))
    return max(low, -TOP), min(high, TOP)


def steps(encoding: Affine) -> np.ndarray:
    """Return what a float value is multiplied by to become a code, float32 [1]."""
    return np.asarray(np.float32(1) / encoding.scale.reshape(1), np.float32)


def ratio(source: Affine, out: Affine) -> np.ndarray:
    """Return the ratio of two scales, float32 [1]."""
    return np.asarray(np.float64(source.scale) / np.float64(out.scale), np.float32).reshape(1)
