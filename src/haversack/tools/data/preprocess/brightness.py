"""Change the brightness."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from haversack.tools.data.preprocess.contract import Operation


@dataclass(frozen=True)
class Brightness(Operation):
    """Brighten or darken: x * factor, clipped; any shape, uint8, int16 or floats, shape and dtype kept.

    Integers are rounded half to even and clipped to what their dtype holds. Floats are clipped to the range of their
    own row, 0 within it, as a camera saturates. Computed in float64.

    Attributes:
        factor: 1 changes nothing, below 1 is darker.
    """

    factor: float = 1.5

    dtypes: ClassVar[tuple[str, ...]] = ("uint8", "int16", "float32", "float64")

    def __post_init__(self) -> None:
        if not (math.isfinite(self.factor) and self.factor >= 0):
            raise ValueError("factor must be finite and at least 0")

    def _apply(self, batch: np.ndarray) -> np.ndarray:
        found = batch.astype(np.float64) * self.factor
        if batch.dtype.kind in "iu":
            whole = np.iinfo(batch.dtype.name)
            return np.clip(np.rint(found), whole.min, whole.max).astype(batch.dtype)
        beside = tuple(range(1, batch.ndim))
        low = np.minimum(batch.min(axis=beside, keepdims=True), 0)
        high = np.maximum(batch.max(axis=beside, keepdims=True), 0)
        return np.clip(found, low, high).astype(batch.dtype)
