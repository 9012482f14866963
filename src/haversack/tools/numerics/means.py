"""Means of 8-bit codes: at which scales every runtime rounds every sum to the same code.

A mean is the sum of codes times one factor, rounded once, and runtimes form that product in float32 in ways of their
own. ONNX Runtime takes the zero-point off the integer sum first. XNNPACK multiplies the sum of signed codes as it is
and adds the zero-point's share as a float: two numbers of the size of 128 ratios cancel, so that the error grows with
the ratio of the scales, and what ``ties`` keeps away from a half may still be rounded across it. How near sums come to
a half is known beforehand: there are few.
"""

from __future__ import annotations

import math

import numpy as np

from haversack.tools.numerics.ties import tie_free

DENOMINATORS = (1, 3, 7, 15, 31, 63, 125, 251, 501, 1001, 2001, 4001, 8001, 16001)
"""Odd: fine ones change a scale little, coarse ones keep sums far from a half."""
MOST = 1.5
"""So many times as coarse, or as fine, a scale may become: beyond that it costs more than a code that differs."""
_PLACES = 4
_CODES = 255
_MIDDLE = 128
_ROUNDINGS = 8
"""Float32 roundings, of the largest number on the way, within which a sum is near a half."""
_TIE = 2.0**-20
"""What lies so near to a half is one."""
_MOST = 1 << 10
"""Sums that are looked at around each half: those of as many values as a picture of 1000 by 1000 has."""


def rounds_alike(scale_in: float, scale_out: float, zero_point: int, count: int) -> bool:
    """Say whether the mean of ``count`` uint8 codes is rounded to the same code by every runtime, whatever the codes.

    The codes are those of scale_in / scale_out * (mean - zero_point), without the zero-point of the output, which is
    whole. All sums that come near a half are tried, in each order of float32 operations.

    Args:
        scale_in, scale_out: positive float32 numbers.
        zero_point: of what goes in, 0 to 255.
        count: values that one mean is made of, positive.
    """
    ratio = scale_in / scale_out
    near = _ROUNDINGS * 2.0**-24 * max(_MIDDLE * ratio, _CODES)
    reach = min(math.ceil(near * count / ratio) + 1, _MOST)
    halves = np.arange(-_CODES, _CODES) + 0.5
    centers = np.floor(halves * count / ratio) + zero_point * count
    sums = (centers[:, None] + np.arange(-reach, reach + 2)).reshape(-1)
    sums = sums[(sums >= 0) & (sums <= float(_CODES * count))].astype(np.int64)
    means = (sums - zero_point * count) * (ratio / count)
    exact = np.rint(means)
    if (np.abs(means - exact) > 0.5 - _TIE).any():
        return False  # even or away from zero: runtimes differ in that as well
    return all(np.array_equal(exact, made) for made in _ways(sums, scale_in, scale_out, zero_point, count))


def candidates(scale_in: float, scale_out: float, multiple: int = 1, *, up: bool = True) -> list[np.ndarray]:
    """Return float32 scales, shape [], near ``scale_in`` at which no mean lies half-way, the nearest first.

    Args:
        scale_in: the scale that is adjusted.
        scale_out: the scale that stays.
        multiple: 2^p of a mean over 2^p * odd values, as ``ties.tie_free`` takes it.
        up: above ``scale_in``, or below it.

    Raises:
        ValueError: as ``ties.tie_free``.
    """
    most = scale_in * MOST if up else scale_in
    steps = [(each, multiple * scale_out / each) for each in DENOMINATORS]
    wishes = [(each, scale_in + (place if up else -place) * step) for each, step in steps for place in range(_PLACES)]
    found = {float(tie_free(wish, scale_out, each, multiple, up=up)) for each, wish in wishes if wish > 0}
    near = sorted((each for each in found if scale_in / MOST <= each <= most), key=lambda each: abs(each - scale_in))
    return [np.array(each, np.float32) for each in near]


def _ways(sums: np.ndarray, scale_in: float, scale_out: float, zero_point: int, count: int) -> list[np.ndarray]:
    """Return the rounded means of sums of codes, int64 of any shape, for each order of float32 operations."""
    single = np.float32
    ratio, values = single(scale_in) / single(scale_out), single(count)
    factors = {ratio / values, single(scale_in) / (single(scale_out) * values), ratio * (single(1) / values)}
    factors.add(single(scale_in / scale_out / count))
    centered, signed = (sums - zero_point * count).astype(single), (sums - _MIDDLE * count).astype(single)
    found = []
    for factor in factors:
        rest = single((_MIDDLE - zero_point) * count) * factor
        fused = (signed.astype(np.float64) * float(factor) + float(rest)).astype(single)
        found += [np.rint(centered * factor), np.rint(signed * factor + rest), np.rint(fused)]
    return found
