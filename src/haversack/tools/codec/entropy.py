"""Entropy in integers: how many bits a histogram's symbols take, the same number on every machine.

C. E. Shannon, "A Mathematical Theory of Communication", 1948. Logarithms stand in a table of fixed-point integers:
NumPy's own differ in their last bit between processors, and a cut that hangs on them would differ as well.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np

UNIT = 1 << 12
"""One bit, in the unit of all costs here: 1/4096 bit."""

_TABLE_BITS = 16


def of_counts(counts: np.ndarray) -> np.ndarray:
    """Return the bits that symbols take which occur so often, each histogram with an ideal code of its own.

    Args:
        counts: integers [..., symbols], at least 0, their sums below 2^40.

    Returns:
        int64 [...], in 1/4096 bit, too much by no more than a part in 2^15 of a bit a symbol.
    """
    return np.asarray(_times_logarithm(counts.sum(axis=-1)) - _times_logarithm(counts).sum(axis=-1))


def logarithms(numbers: np.ndarray) -> np.ndarray:
    """Return log2 of integers below 2^40 by their 16 highest bits, in 1/4096 bit: int64 of their shape; 0 for 0."""
    table = _tables()[1]
    if not numbers.size or numbers.max() < 1 << _TABLE_BITS:
        return np.asarray(table[numbers])
    wide = numbers.astype(np.int64)
    shift = np.maximum(np.frexp(wide.astype(np.float64))[1].astype(np.int64) - _TABLE_BITS, 0)
    return np.asarray(table[wide >> shift] + shift * UNIT)


def _times_logarithm(numbers: np.ndarray) -> np.ndarray:
    """Return n * log2(n) in 1/4096 bit, int64 of the shape of ``numbers``."""
    if not numbers.size or numbers.max() < 1 << _TABLE_BITS:
        return np.asarray(_tables()[0][numbers])
    return np.asarray(numbers.astype(np.int64) * logarithms(numbers))


@cache
def _tables() -> tuple[np.ndarray, np.ndarray]:
    """Return n * log2(n) and log2(n) for all n of 16 bits, rounded to 1/4096: int64 [65536] each."""
    exact = [0.0, *(math.log2(number) for number in range(1, 1 << _TABLE_BITS))]
    products = [round(number * logarithm * UNIT) for number, logarithm in enumerate(exact)]
    return np.array(products, np.int64), np.array([round(logarithm * UNIT) for logarithm in exact], np.int64)
