"""Scales whose reciprocal float32 holds all but exactly, so that dividing by them and multiplying by it are alike.

ONNX's QuantizeLinear divides what comes in as float by the scale; XNNPACK multiplies by the scale's reciprocal. The two
round to other codes where the quotient lies within the reciprocal's error of the edge between two float32 numbers
at a half. That error is up to 2^-24 of the reciprocal, and some scale near by has one that is a thousandth of it.
"""

from __future__ import annotations

import numpy as np

TRIED = 1 << 13
"""Float32 numbers above a scale among which one is chosen: a thousandth of it."""
EXACT = 2.0**-34
"""The error that is small enough: a thousandth of the largest. Near sqrt(2) a few thousand scales in a row miss it."""


def with_exact_reciprocal(scale: np.ndarray | float) -> np.ndarray:
    """Return the next float32 scale, shape [], at or above ``scale`` whose float32 reciprocal is all but exact.

    That is, wrong by at most ``EXACT``, or by the least of those tried. A power of two stays. Codes cover all that they
    covered.

    Raises:
        ValueError: the scale is not finite and positive as a float32 number.
    """
    first = np.array(scale, np.float32)
    if not (np.isfinite(first) and first > 0):
        message = f"a scale must be finite and positive: {scale}"
        raise ValueError(message)
    tried = (first.view(np.uint32) + np.arange(TRIED, dtype=np.uint32)).view(np.float32)
    tried = tried[np.isfinite(tried)]
    wrong = error(tried)
    return np.array(tried[np.argmax(wrong <= max(EXACT, wrong.min()))], np.float32)


def error(scale: np.ndarray) -> np.ndarray:
    """Return how far a scale times its float32 reciprocal is from 1: float64, of the shape of ``scale`` (float32)."""
    with np.errstate(over="ignore"):
        reciprocal = np.float32(1) / scale
    # 24 bits times 24 bits: float64 holds the product as it is
    return np.asarray(np.abs(scale.astype(np.float64) * reciprocal.astype(np.float64) - 1.0))
