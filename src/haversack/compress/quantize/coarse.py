"""Coarse: the scales of another part times a factor, so that weights use fewer codes and weigh less as a download."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from haversack.base.profile import TensorStatistics
from haversack.compress.quantize.contract import SHELF, Quantizer, short

_SIGNIFICANT = 6


@dataclass(frozen=True)
class Coarse(Quantizer):
    """The scales of another part, times a factor: codes stay far inside their range.

    The file is what it was, integers of 8 bits that run on the same kernels, but each code tells less: doubling a scale
    takes one bit off the entropy of the codes. Giving each layer the factor that its sensitivity can bear is reverse
    water-filling (Cover and Thomas, Elements of Information Theory, section 10.3.3). Scales travel too, one for each
    channel: they are the nearest of ``short`` numbers, as far as these cover what the other part's scales do.

    Attributes:
        factor: of the weight scales, at least 1.
        of: the part that sets the scales, and the ranges of activations.

    Raises:
        ValueError: the factor is below 1 or not finite, or ``of`` is this part or ``power_of_two``.
    """

    clips: ClassVar[bool] = True
    factor: float = 2.0
    of: str = "mse"

    def __post_init__(self) -> None:
        if not 1.0 <= self.factor < np.inf:
            raise ValueError(f"factor must be at least 1, not {self.factor}")
        if self.of in ("coarse", "power_of_two"):
            raise ValueError("coarse sets no scales of its own, and keeps no powers of two: name another part")

    def _activation(self, statistics: TensorStatistics, bits: int) -> tuple[float, float]:
        low, high = SHELF.build(self.of).activation_range(statistics, bits)
        return float(low), float(high)

    def _weights(self, weights: np.ndarray, bits: int, taps: int) -> np.ndarray:
        scales = SHELF.build(self.of).weight_scales(weights, bits, taps)
        coarse = short(scales * np.float32(self.factor), _SIGNIFICANT, np.rint)
        return np.asarray(np.maximum(coarse, short(scales, _SIGNIFICANT)), np.float32)
