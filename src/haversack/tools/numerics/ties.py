"""Tie-free scales: ratios at which no sum of integers lies half-way between two codes.

With every ratio of an add's input and output scale a fraction k/D of one odd D, a sum of integers times the ratios
is a whole number of D-ths and never a half: the nearest it comes is 1/(2D), far more than any float32 rounding. So
all runtimes round it alike, whatever their order of operations. D = 501 keeps a scale within 0.2 % of a wish of 1.
"""

from __future__ import annotations

import math

import numpy as np

_SAME = 2.0**-21
"""A ratio this near to a whole k (relative) is one that float32 has rounded."""


def tie_free(
    scale_in: np.ndarray | float,
    scale_out: np.ndarray | float,
    denominator: int = 501,
    multiple: int = 1,
    *,
    up: bool = True,
) -> np.ndarray:
    """Return the float32 input scale, shape [], next to ``scale_in`` with scale / ``scale_out`` = k / ``denominator``.

    Args:
        scale_in: the scale that is adjusted.
        scale_out: the scale that stays.
        denominator: odd.
        multiple: k is a positive multiple of it (2^p for a mean over 2^p * odd values).
        up: take the next k above, so that the covered range never shrinks by more than float32's rounding; or the
            next below, where a clamp bounds the range (but never below ``multiple``).

    Raises:
        ValueError: a scale is not finite and positive, the denominator is even, or the multiple is below 1.
    """
    wish, fixed = float(scale_in), float(scale_out)
    if not (0 < wish < math.inf and 0 < fixed < math.inf):
        message = f"scales must be finite and positive: {wish}, {fixed}"
        raise ValueError(message)
    if denominator % 2 == 0 or multiple < 1:
        message = f"the denominator must be odd and the multiple positive: {denominator}, {multiple}"
        raise ValueError(message)
    steps = wish / fixed * denominator / multiple
    whole = round(steps)
    if abs(steps - whole) > _SAME * steps:
        whole = math.ceil(steps) if up else math.floor(steps)
    return np.array(max(whole, 1) * multiple * fixed / denominator, np.float32)


def is_tie_free(
    scale_in: np.ndarray | float, scale_out: np.ndarray | float, denominator: int = 501, multiple: int = 1
) -> bool:
    """Say whether scale_in / scale_out is k / ``denominator`` up to the rounding of float32 scales."""
    steps = float(scale_in) / float(scale_out) * denominator / multiple
    return round(steps) >= 1 and abs(steps - round(steps)) <= _SAME * steps
