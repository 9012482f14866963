"""Gaussian blur."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from haversack.tools.data.preprocess.contract import Operation

_FRACTION_BITS = 22
_REACH = 4.0
"""Weights beyond so many sigma are left out; they are below 0.04 % of the middle one."""
_SMALLEST, _LARGEST = 0.1, 100.0
"""Below the smallest sigma, weights beside the middle one have no bit of the 22."""
_COLOURS = 4
"""An axis of at most so many entries may hold channels."""


@dataclass(frozen=True)
class Blur(Operation):
    """Blur images with a Gaussian: [n, h, w, channels] or [n, h, w], uint8 or floats, shape and dtype kept.

    Borders are reflected, the outermost pixel repeated (scipy's ``reflect``). Width first, then height, summed in
    float64 tap by tap with weights of 22 fractional bits that add up to exactly 1: the same on every machine. uint8 is
    rounded once, half to even.

    Attributes:
        sigma: standard deviation in pixels, 0 to 100; 0 changes nothing.
        axis: the channel axis of four dimensions: -1 for channels last, 1 for channels first. Where the shape looks
            like channels first, -1 is refused, and 3 says that they do come last.
    """

    sigma: float = 1.0
    axis: int = -1

    ranks: ClassVar[tuple[int, ...]] = (3, 4)
    dtypes: ClassVar[tuple[str, ...]] = ("uint8", "float32", "float64")

    def __post_init__(self) -> None:
        if not 0 <= self.sigma <= _LARGEST:
            raise ValueError(f"sigma must lie between 0 and {_LARGEST:g} pixels")
        if self.axis not in {-1, 1, 3}:
            raise ValueError("axis must be -1 or 3 for channels last, or 1 for channels first")

    def _faults(self, batch: np.ndarray) -> list[str]:
        if batch.ndim == 3 or self.axis != -1 or batch.shape[3] <= _COLOURS or batch.shape[1] > _COLOURS:
            return []
        return [f"axis 1 has {batch.shape[1]} and the last {batch.shape[3]}: say axis = 1 if channels come first, or 3"]

    def _apply(self, batch: np.ndarray) -> np.ndarray:
        height, width = (2, 3) if batch.ndim == 4 and self.axis == 1 else (1, 2)
        weights = kernel(self.sigma)
        blurred = np.empty_like(batch)
        for place, row in enumerate(batch):  # row by row: float64 of one image is held, not of the batch
            found = _along(_along(row.astype(np.float64), width - 1, weights), height - 1, weights)
            blurred[place] = np.clip(np.rint(found), 0, 255) if batch.dtype == np.uint8 else found
        return blurred


def kernel(sigma: float) -> np.ndarray:
    """Return the weights of the pixels around one, float64 [2 radius + 1]: multiples of 2^-22 that add up to 1.

    Args:
        sigma: standard deviation in pixels.
    """
    if sigma < _SMALLEST:
        return np.ones(1)
    radius = math.ceil(_REACH * sigma)
    side = np.exp(-0.5 * np.square(np.arange(1, radius + 1) / sigma))
    side = np.floor(side / (1 + 2 * side.sum()) * (1 << _FRACTION_BITS) + 0.5) / (1 << _FRACTION_BITS)
    return np.concatenate([side[::-1], [1 - 2 * side.sum()], side])


def _along(image: np.ndarray, axis: int, weights: np.ndarray) -> np.ndarray:
    """Return a float64 image blurred along one axis."""
    radius = len(weights) // 2
    length = image.shape[axis]
    widths = [(0, 0)] * image.ndim
    widths[axis] = (radius, radius)
    wide = np.moveaxis(np.pad(image, widths, mode="symmetric"), axis, 0)
    total = np.zeros((length, *wide.shape[1:]))
    for tap, weight in enumerate(weights):
        total += wide[tap : tap + length] * weight
    return np.moveaxis(total, 0, axis)
