"""Add noise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from haversack.tools.data import draws
from haversack.tools.data.preprocess.contract import Operation


@dataclass(frozen=True)
class Noise(Operation):
    """Add Gaussian noise: any shape, uint8, int16 or floats, shape and dtype kept.

    The span is 255 for uint8, and each row's own maximum - minimum for the others. Integers are rounded half to even
    and clipped to what their dtype holds, floats are not clipped. A row's noise depends on the row and the seed alone,
    so it is the same in every batch and for every model; other versions of NumPy may draw other numbers.

    Attributes:
        level: standard deviation of the noise as a fraction of the span; 0 changes nothing.
        seed: another one gives other noise.
    """

    level: float = 0.1
    seed: int = 0

    dtypes: ClassVar[tuple[str, ...]] = ("uint8", "int16", "float32", "float64")

    def __post_init__(self) -> None:
        if not (math.isfinite(self.level) and self.level >= 0):
            raise ValueError("level must be finite and at least 0")

    def _apply(self, batch: np.ndarray) -> np.ndarray:
        noisy = np.empty_like(batch)
        whole = np.iinfo(batch.dtype.name) if batch.dtype.kind in "iu" else None
        for place, row in enumerate(batch):
            values = np.asarray(row, np.float64)
            span = 255.0 if batch.dtype == np.uint8 else float(values.max() - values.min())
            found = values + self.level * span * draws.of_row(row, self.seed).standard_normal(row.shape)
            noisy[place] = np.clip(np.rint(found), whole.min, whole.max) if whole else found
        return noisy
