"""Percentile: the range without its outermost values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from haversack.base.encodings import largest_code
from haversack.base.profile import TensorStatistics
from haversack.compress.quantize.contract import Quantizer, full_scales


@dataclass(frozen=True)
class Percentile(Quantizer):
    """The range without its outermost values: what lies beyond a percentile saturates.

    Attributes:
        percentile: of the values on each side of an activation; 100 is min-max.
        weights: of the absolute weights of a channel.

    Raises:
        ValueError: a percentile is not above 50 and at most 100.
    """

    clips: ClassVar[bool] = True
    percentile: float = 99.99
    weights: float = 100.0

    def __post_init__(self) -> None:
        for name in ("percentile", "weights"):
            if not 50.0 < getattr(self, name) <= 100.0:
                raise ValueError(f"{name} must be above 50 and at most 100, not {getattr(self, name)}")

    def _activation(self, statistics: TensorStatistics, bits: int) -> tuple[float, float]:  # noqa: ARG002 - any width
        total = int(statistics.counts.sum())
        spare = int(total * (100.0 - self.percentile) / 100.0)
        rising = np.cumsum(statistics.counts)
        falling = np.cumsum(statistics.counts[::-1])
        width = (statistics.high - statistics.low) / len(statistics.counts)
        # Whole bins are dropped from each end as long as they hold no more than may saturate.
        low = statistics.low + width * int(np.searchsorted(rising, spare, side="right"))
        high = statistics.high - width * int(np.searchsorted(falling, spare, side="right"))
        least, most = min(statistics.minimum, 0.0), max(statistics.maximum, 0.0)
        return min(max(low, least), 0.0), max(min(high, most), 0.0)

    def _weights(self, weights: np.ndarray, bits: int, taps: int) -> np.ndarray:  # noqa: ARG002 - each alone
        full = full_scales(weights, bits)
        if self.weights == 100.0:
            return full
        clipped = np.percentile(np.abs(weights), self.weights, axis=1) / largest_code(bits)
        return np.asarray(np.where(clipped > 0, clipped, full), np.float32)
