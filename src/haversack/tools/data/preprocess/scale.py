"""Scale and shift."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from haversack.tools.data.preprocess.contract import Operation

_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Scale(Operation):
    """Scale and shift every value: x * factor + offset, any shape and number dtype to float32, same shape.

    Computed in float32 with ``factor`` and ``offset`` rounded to float32 first.

    Attributes:
        factor: multiplies; 1/255 unless said.
        offset: is added.
    """

    factor: float = 1 / 255
    offset: float = 0.0

    elementwise: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not (math.isfinite(self.factor) and math.isfinite(self.offset)):
            raise ValueError("factor and offset must be finite")

    def _apply(self, batch: np.ndarray) -> np.ndarray:
        found: np.ndarray = np.multiply(batch, np.float32(self.factor), dtype=np.float32, casting="same_kind")
        found += np.float32(self.offset)
        return found

    def _bounded(self, batch: np.ndarray) -> bool:
        most = 2.0 ** (8 * batch.itemsize)
        return batch.dtype.kind in "biu" and most * abs(self.factor) + abs(self.offset) < _LARGEST
