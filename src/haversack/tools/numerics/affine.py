"""Affine integers: ``value = scale * (q - zero_point)``, and the integer arithmetic that every runtime must repeat.

The steps and their order are the ones of ONNX QuantizeLinear and QLinearConv, in float32 where these are: the same
bits come out only if no step is done in a wider type. Every rounding is half to even.
"""

from __future__ import annotations

import numpy as np

from haversack.base.encodings import Affine, largest_code
from haversack.tools.numerics.granularity import along

BIAS_LIMIT = 1 << 22
"""Largest code a bias may have before its channel's weight scale is raised: leaves the int32 sum 2^9 times as much."""

MIDDLE = 128
"""The code of 0 on a symmetric grid of 8 bits; runtimes with signed codes write it as 0."""

_INT32 = np.iinfo(np.int32)


def quantize(x: np.ndarray, encoding: Affine) -> np.ndarray:
    """Return the int32 codes of finite or infinite float32 values: clamp(rint(x / scale) + zero_point), in float32.

    Codes of one bit are signs, that of 0 is 1.

    Raises:
        ValueError: a value is NaN, or the encoding's channels do not fit the tensor.
    """
    x = np.asarray(x, np.float32)
    if np.isnan(x).any():
        message = "NaN has no code"
        raise ValueError(message)
    scale = along(encoding.scale, encoding.axis, x.ndim)
    if encoding.binary:
        return np.where(x < 0, np.int32(-1), np.int32(1))
    zero_point = along(encoding.zero_point, encoding.axis, x.ndim).astype(np.float32)
    with np.errstate(over="ignore"):
        codes = np.rint(x / scale) + zero_point
    return np.asarray(np.clip(codes, encoding.low, encoding.high)).astype(np.int32)


def dequantize(codes: np.ndarray, encoding: Affine) -> np.ndarray:
    """Return the float32 values of integer codes: scale * (q - zero_point), rounded once."""
    codes = np.asarray(codes, np.int32)
    scale = along(encoding.scale, encoding.axis, codes.ndim)
    centered = codes - along(encoding.zero_point, encoding.axis, codes.ndim)
    return np.asarray(centered.astype(np.float32) * scale, np.float32)


def from_range(low: float, high: float, bits: int = 8, signed: bool = False) -> Affine:
    """Return the per-tensor encoding that covers [low, high] widened to contain 0.

    Unsigned is asymmetric: scale = (high - low) / (2^bits - 1), zero_point = clamp(rint(-low / scale)).
    Signed is symmetric: scale = max(|low|, |high|) / largest code, zero_point 0. A range too narrow for a
    normal float32 scale gets scale 1: all its values are then the code of 0.

    Raises:
        ValueError: a bound is not finite, or low > high.
    """
    if not (np.isfinite(low) and np.isfinite(high)) or low > high:
        message = f"not a range: [{low}, {high}]"
        raise ValueError(message)
    low, high = min(float(low), 0.0), max(float(high), 0.0)
    span, codes = (max(-low, high), largest_code(bits)) if signed else (high - low, (1 << bits) - 1)
    scale = np.float32(span / codes)
    if scale < np.finfo(np.float32).tiny:
        scale = np.float32(1.0)
    zero_point = 0 if signed else int(np.clip(np.rint(-low / float(scale)), 0, codes))
    return Affine(bits, signed, None, np.array(scale, np.float32), np.array(zero_point, np.int32))


def symmetric(scales: np.ndarray, bits: int = 8, axis: int | None = None) -> Affine:
    """Return the encoding of a weight: signed, zero-points 0.

    Args:
        scales: float32, [channels] along ``axis``, or [] with ``axis`` None.
        bits: 1 to 16.
        axis: see ``Affine``.

    Raises:
        ValueError: a scale is not finite and positive, or its shape does not go with the axis.
    """
    scale = np.array(scales, np.float32)
    if (scale.ndim == 0) != (axis is None) or scale.ndim > 1:
        message = f"scales of shape {scale.shape} do not go with axis {axis}"
        raise ValueError(message)
    if not (np.isfinite(scale) & (scale > 0)).all():
        message = "a scale must be finite and positive"
        raise ValueError(message)
    return Affine(bits, signed=True, axis=axis, scale=scale, zero_point=np.zeros(scale.shape, np.int32))


def half_up(scale: np.ndarray) -> np.ndarray:
    """Return float32 scales that are float16 numbers, each the least that is not below the one given.

    So no weight leaves the codes that its own scale gave it; what float16 cannot hold stays at its largest number.

    Args:
        scale: float32, any shape, positive.
    """
    largest = np.float32(np.finfo(np.float16).max)
    near = np.minimum(np.asarray(scale, np.float32), largest).astype(np.float16)
    short = near.astype(np.float32) < np.minimum(scale, largest)
    above = np.nextafter(near, np.finfo(np.float16).max)
    return np.asarray(np.where(short, above, near), np.float32)


def power_up(scale: np.ndarray | np.float32) -> np.ndarray:
    """Return the least powers of two that are not below float32 scales, float32 of any shape; positive ones."""
    mantissa, exponent = np.frexp(np.asarray(scale, np.float32))
    return np.asarray(np.ldexp(np.float32(1), np.where(mantissa == 0.5, exponent - 1, exponent)), np.float32)


def is_power(scale: np.ndarray) -> np.ndarray:
    """Say of each scale whether it is a power of two, so that multiplying by it is a shift: bool, any shape."""
    return np.asarray(np.frexp(scale)[0] == 0.5)


def bias_scale(scale_in: np.ndarray, scale_weight: np.ndarray) -> np.ndarray:
    """Return float32(scale_in * scale_weight), the scale of the int32 accumulator and of the bias."""
    return np.asarray(np.float32(scale_in) * np.asarray(scale_weight, np.float32), np.float32)


def bias_codes(bias: np.ndarray, scale_in: np.ndarray, scale_weight: np.ndarray) -> np.ndarray:
    """Return the int32 codes of a bias at float32(scale_in * scale_weight).

    The quotient is formed in float64: float32 would round twice, and nobody else repeats this step.

    Args:
        bias: float32 [channels].
        scale_in: the input's scale, [].
        scale_weight: the weight's, [channels] or [].

    Raises:
        ValueError: a code would not fit int32 (see ``raise_for_bias``).
    """
    codes = np.rint(np.asarray(bias, np.float64) / bias_scale(scale_in, scale_weight).astype(np.float64))
    if not (np.abs(codes) <= _INT32.max).all():
        message = "a bias does not fit int32 at scale_in * scale_weight: raise the weight's scale first"
        raise ValueError(message)
    return np.asarray(codes).astype(np.int32)


def raise_for_bias(scale_weight: np.ndarray, bias: np.ndarray, scale_in: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return weight scales under which no bias code passes 2^22, and which of them were raised.

    A dead channel (all weights near 0) has a tiny scale, at which its bias would overflow int32 or drown the sum.

    Args:
        scale_weight: float32, [channels] or [].
        bias: float32 [channels].
        scale_in: the input's scale, [].

    Returns:
        (float32 scales, bool mask), both of the shape of ``scale_weight``.
    """
    scale = np.array(scale_weight, np.float32)
    size = np.abs(np.asarray(bias, np.float64))
    size = size if scale.ndim else np.max(size, initial=0.0)
    changed = np.asarray(size > BIAS_LIMIT * bias_scale(scale_in, scale).astype(np.float64))
    needed = (size / (BIAS_LIMIT * float(scale_in))).astype(np.float32)
    scale = np.where(changed, needed, scale)
    growth = 2.0**-23  # float32 may have rounded the product down; by much, where it is subnormal
    while (short := size > BIAS_LIMIT * bias_scale(scale_in, scale).astype(np.float64)).any():
        scale = np.where(short, scale * np.float32(1.0 + growth), scale)
        growth *= 2.0
    return np.asarray(scale, np.float32), changed


def multiplier(scale_in: np.ndarray, scale_weight: np.ndarray, scale_out: np.ndarray) -> np.ndarray:
    """Return float32(float32(scale_in * scale_weight) / scale_out), what an accumulator is multiplied by."""
    return np.asarray(bias_scale(scale_in, scale_weight) / np.float32(scale_out), np.float32)
