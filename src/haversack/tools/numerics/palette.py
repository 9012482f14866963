"""Palettes: a few values that stand for all of a weight, each weight an index into them (Han et al. 2016)."""

from __future__ import annotations

import numpy as np

from haversack.base.encodings import Codebook

ROUNDS = 50
"""Of k-means, at most: in one dimension it settles long before."""


def kmeans(weight: np.ndarray, bits: int) -> tuple[Codebook, np.ndarray]:
    """Return a palette of 2^bits values for a weight, and its indices.

    Lloyd's algorithm in one dimension, begun at evenly spaced quantiles, so that it is the same every time. Entries
    are float16 numbers in float32, ascending; what too few different weights leave over repeats the last one.

    Args:
        weight: float32, any shape, finite, not empty.
        bits: 1 to 8.

    Returns:
        (palette, int32 indices of the weight's shape).
    """
    values = np.sort(np.asarray(weight, np.float64).ravel())
    sums = np.concatenate([[0.0], np.cumsum(values)])
    count = 1 << bits
    centres = np.unique(values[((np.arange(count) + 0.5) * len(values) / count).astype(np.int64)])
    for _ in range(ROUNDS):
        ends = np.searchsorted(values, _borders(centres), side="right")
        starts, stops = np.concatenate([[0], ends]), np.concatenate([ends, [len(values)]])
        full = stops > starts
        means = np.where(full, (sums[stops] - sums[starts]) / np.maximum(stops - starts, 1), centres)
        if np.array_equal(means, centres):
            break
        centres = means
    largest = float(np.finfo(np.float16).max)
    entries = np.unique(np.clip(centres, -largest, largest).astype(np.float16)).astype(np.float32)
    entries = np.concatenate([entries, np.full(count - len(entries), entries[-1], np.float32)])
    known = np.unique(entries)
    indices = np.searchsorted(_borders(known.astype(np.float64)), np.asarray(weight, np.float64), side="left")
    return Codebook(bits, entries), indices.astype(np.int32)


def values(indices: np.ndarray, palette: Codebook) -> np.ndarray:
    """Return the float32 values that indices of any shape stand for.

    Raises:
        ValueError: groups of rows have palettes of their own.
    """
    if palette.group:
        message = "one palette serves a whole weight here"
        raise ValueError(message)
    return np.asarray(palette.entries[indices], np.float32)


def _borders(centres: np.ndarray) -> np.ndarray:
    return np.asarray((centres[:-1] + centres[1:]) / 2)
