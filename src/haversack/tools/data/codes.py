"""What an interface of int8 codes means: a file whose inputs and outputs are its own integers.

A grid is (scale, zero-point) of int8 codes: value = scale * (code - zero_point).
"""

from __future__ import annotations

import numpy as np

from haversack.base.encodings import Affine
from haversack.tools.numerics import affine

Grid = tuple[float, int]


def grid_of(encoding: Affine) -> Grid:
    """Return the grid of int8 codes that mean what an encoding's unsigned codes mean: each is lower by 128."""
    return float(encoding.scale), int(encoding.zero_point) - affine.MIDDLE


def to_codes(values: np.ndarray, grid: Grid) -> np.ndarray:
    """Return the int8 codes of float32 values, in their shape, rounded half to even and saturated.

    Raises:
        ValueError: a value is NaN.
    """
    return (affine.quantize(values, _unsigned(grid)) - affine.MIDDLE).astype(np.int8)


def to_values(codes: np.ndarray, grid: Grid) -> np.ndarray:
    """Return the float32 values of int8 codes, in their shape."""
    return affine.dequantize(codes.astype(np.int32) + affine.MIDDLE, _unsigned(grid))


def _unsigned(grid: Grid) -> Affine:
    scale, zero_point = grid
    zero = np.array(zero_point + affine.MIDDLE, np.int32)
    return Affine(8, signed=False, axis=None, scale=np.array(scale, np.float32), zero_point=zero)
