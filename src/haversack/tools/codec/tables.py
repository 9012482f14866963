"""Frequency tables in a byte a symbol: levels on a logarithmic scale, from which all decoders make the same integers.

The level 0 says that a symbol does not occur; level 1 + 8e + m is the weight (8 + m) * 2^e. A weight is within 1/16 of
the share that it stands for, which costs less than 0.003 bits a symbol, and levels of a bell curve are few and alike.
"""

from __future__ import annotations

import numpy as np

from haversack.tools.codec.rans import TOTAL

LEVELS = 1 + 8 * 16
"""How many levels there are: absent, and eight to each of sixteen octaves."""

_OFTEN = 200
"""A symbol that is counted so often is worth a level of twice the precision, and one ten times as often of four times:
a bit or two more of the level, and more than that less in all that it codes."""
_STEPS = np.array([0, *((8 + step) << octave for octave in range(16) for step in range(8))], np.int64)


def to_levels(counts: np.ndarray) -> np.ndarray:
    """Return levels for histograms, uint8 [tables, 256]; the more seldom a symbol is, the coarser its level.

    Args:
        counts: integers [tables, 256], at least 0, below 2^40.
    """
    wide = counts.astype(np.int64)
    sums = wide.sum(axis=1, keepdims=True)
    # 2^19 in all: every level but the last few can occur, and a count of one in few symbols is far from the lowest.
    scaled = np.where(wide > 0, np.maximum((wide << 19) // np.maximum(sums, 1), 1), 0)
    levels = np.zeros(counts.shape, np.uint8)
    for grain, least in ((4, 0), (2, _OFTEN), (1, 10 * _OFTEN)):
        steps = _STEPS[1::grain]
        nearest = np.searchsorted((steps[1:] + steps[:-1]) // 2, scaled, side="right")
        levels = np.where(wide >= least, (1 + grain * nearest).astype(np.uint8), levels)
    return np.where(wide > 0, levels, 0).astype(np.uint8)


def to_frequencies(levels: np.ndarray) -> np.ndarray:
    """Return the frequencies that levels stand for, int64 [tables, 256]: at least 1 where a level is, 2^14 in all.

    Each gets its share of a sum, rounded, and at least 1; where they come to more than 2^14 together, the sum is
    lowered by that, and all are shared out again. What is left in the end goes to the first of the largest.

    Args:
        levels: integers [tables, 256], 0 to 128, at least one of each table above 0.

    Raises:
        ValueError: a level is not one, or a table has none above 0.
    """
    if levels.size and levels.max() >= LEVELS:
        message = f"a level is {levels.max()}, and the highest is {LEVELS - 1}"
        raise ValueError(message)
    weights = _STEPS[levels]
    sums = weights.sum(axis=1, keepdims=True)
    if not sums.all():
        message = f"table {int(np.argmin(sums))} has no symbol"
        raise ValueError(message)
    occurs = weights > 0
    shared = np.full(sums.shape, TOTAL)
    while True:  # with n symbols it ends at TOTAL - n at the latest, for each is at most 1 above its share
        frequencies = np.maximum((2 * weights * shared + sums) // (2 * sums), occurs)
        excess = np.maximum(frequencies.sum(axis=1, keepdims=True) - TOTAL, 0)
        if not excess.any():
            break
        shared -= excess
    largest = np.argmax(frequencies, axis=1)
    frequencies[np.arange(len(levels)), largest] += TOTAL - frequencies.sum(axis=1)
    return np.asarray(frequencies)
