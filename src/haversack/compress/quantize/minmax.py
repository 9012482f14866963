"""Min-max: the whole range."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from haversack.base.profile import TensorStatistics
from haversack.compress.quantize.contract import Quantizer, full_scales


@dataclass(frozen=True)
class MinMax(Quantizer):
    """The whole range: every value that was seen is covered, no weight is clipped."""

    def _activation(self, statistics: TensorStatistics, bits: int) -> tuple[float, float]:  # noqa: ARG002 - at any width
        return min(statistics.minimum, 0.0), max(statistics.maximum, 0.0)

    def _weights(self, weights: np.ndarray, bits: int, taps: int) -> np.ndarray:  # noqa: ARG002 - each alone
        return full_scales(weights, bits)
