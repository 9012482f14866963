"""Resize images."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from haversack.tools.data.preprocess.contract import Operation

_FRACTION_BITS = 22


@dataclass(frozen=True)
class Resize(Operation):
    """Resize with an antialiased triangle filter: [n, h, w, channels] uint8 or float32, dtype kept.

    Half-pixel centres; shrinking widens the filter by the ratio (bilinear when growing). Width first, then height.
    uint8 is computed in integers with 22 fractional bits and rounded after each direction: the same bits on every
    machine, and those of Pillow's BILINEAR (one level apart where Pillow 13 goes height first). float32 is summed in
    float64, tap by tap.

    Attributes:
        short_side: pixels of the shorter side; the longer one keeps the ratio, rounded down.
        height, width: the exact size instead, when both are given.
    """

    short_side: int = 256
    height: int = 0
    width: int = 0

    ranks: ClassVar[tuple[int, ...]] = (4,)
    dtypes: ClassVar[tuple[str, ...]] = ("uint8", "float32")

    def __post_init__(self) -> None:
        if min(self.height, self.width) < 0 or (self.height > 0) != (self.width > 0):
            raise ValueError("height and width must both be given, at least 1 each, or neither")
        if self.short_side < 1:
            raise ValueError("short_side must be at least 1")

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Return (height, width) in pixels of what an image of this size becomes."""
        if self.height:
            return self.height, self.width
        long_side = self.short_side * max(height, width) // min(height, width)
        return (self.short_side, long_side) if height <= width else (long_side, self.short_side)

    def _apply(self, batch: np.ndarray) -> np.ndarray:
        height, width = self.size(*batch.shape[1:3])
        return _resample(_resample(batch, 2, width), 1, height)


def triangle(length: int, wanted: int) -> tuple[np.ndarray, np.ndarray]:
    """Return for each of ``wanted`` pixels which of ``length`` it reads, int64 [wanted, taps], and how, float64.

    Weights of a pixel add up to 1; taps beyond the edge have weight 0.
    """
    ratio = length / wanted
    support = max(ratio, 1.0)
    centre = (np.arange(wanted) + 0.5) * ratio
    first = np.maximum((centre - support + 0.5).astype(np.int64), 0)
    stop = np.minimum((centre + support + 0.5).astype(np.int64), length)
    taps = first[:, None] + np.arange(math.ceil(support) * 2 + 1)
    distance = np.abs(taps + 0.5 - centre[:, None]) / support
    weights = np.where(taps < stop[:, None], np.maximum(1 - distance, 0), 0)
    return np.minimum(taps, length - 1), weights / weights.sum(axis=1, keepdims=True)


def _resample(batch: np.ndarray, axis: int, wanted: int) -> np.ndarray:
    """Return the batch with ``axis`` resampled; unchanged when it has that length."""
    if batch.shape[axis] == wanted:
        return batch
    taps, weights = triangle(batch.shape[axis], wanted)
    shape = [1] * batch.ndim
    shape[axis] = wanted
    whole = batch.dtype == np.uint8
    if whole:
        weights = np.floor(weights * (1 << _FRACTION_BITS) + 0.5).astype(np.int32)
    total: np.ndarray = np.zeros(
        (*batch.shape[:axis], wanted, *batch.shape[axis + 1 :]), np.int32 if whole else np.float64
    )
    for tap in range(taps.shape[1]):
        total += batch.take(taps[:, tap], axis=axis) * weights[:, tap].reshape(shape)
    if whole:
        rounded = (total + (1 << (_FRACTION_BITS - 1))) >> _FRACTION_BITS
        return np.asarray(np.clip(rounded, 0, 255).astype(np.uint8))
    return total.astype(np.float32)
