"""Powers of two: scales that a fixed-point processor multiplies by with a shift."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from haversack.base.encodings import largest_code
from haversack.base.profile import TensorStatistics
from haversack.compress.quantize.contract import Quantizer, centers, full_scales
from haversack.tools.numerics.affine import power_up


@dataclass(frozen=True)
class PowerOfTwo(Quantizer):
    """Scales that are powers of two, chosen by squared error: multiplying by them is a shift.

    A value q * 2^-n is a fixed-point number with n fractional bits (Q format): where all scales of a layer are such,
    it takes integer products, sums and shifts alone (Jain et al. 2019, arXiv:1903.08066, section 3). The scale that
    covers everything and its halves are tried: each halving saturates more and rounds the rest finer. Weights that are
    signs alone take the power of two next to the mean of |w|, where their squared error is least.

    It leaves weight scales that are powers of two, and activation scales that are rounded up to one wherever the
    targets' constraints allow. A clamp may bound a tensor below that, and the scales of adds and means need a ratio
    without rounding ties: a scale then takes twice its value, or is no power of two and told as ``not-a-shift``. So
    it may be with a weight scale that is raised for its bias, told as ``dead-channel``. Scales that are found at run
    time (``int8_dynamic``) are what they are.

    Attributes:
        halvings: of the scale that covers everything, at most; 0 where nothing may saturate.

    Raises:
        ValueError: ``halvings`` is negative.
    """

    clips: ClassVar[bool] = True
    shifts: ClassVar[bool] = True
    halvings: int = 2

    def __post_init__(self) -> None:
        if self.halvings < 0:
            raise ValueError(f"halvings must not be negative, not {self.halvings}")

    def _activation(self, statistics: TensorStatistics, bits: int) -> tuple[float, float]:
        low, high = min(statistics.minimum, 0.0), max(statistics.maximum, 0.0)
        codes = (1 << bits) - 1
        full = np.float32((high - low) / codes)
        if full < np.finfo(np.float32).tiny:
            return low, high
        values = np.clip(centers(statistics), low, high)
        probability = statistics.counts / statistics.counts.sum()
        zero = round(-low / (high - low) * codes)
        tried = []
        for halving in range(self.halvings + 1):
            scale = float(power_up(full)) / 2**halving
            ends = (low, high) if not halving else (max(low, -zero * scale), min(high, (codes - zero) * scale))
            outside = np.maximum(ends[0] - values, 0.0) + np.maximum(values - ends[1], 0.0)
            tried.append((float(probability @ np.square(outside)) + scale * scale / 12.0, ends))
        return min(tried)[1]

    def _weights(self, weights: np.ndarray, bits: int, taps: int) -> np.ndarray:  # noqa: ARG002 - each alone
        if bits == 1:
            return _of_signs(weights)
        limit = np.float32(largest_code(bits))
        widest = power_up(full_scales(weights, bits))
        tiny = np.finfo(np.float32).tiny
        tried = [np.maximum(widest / np.float32(2**halving), tiny) for halving in range(self.halvings + 1)]
        errors = []
        for scale in tried:
            codes = np.clip(np.rint(weights / scale[:, None]), -limit, limit)
            errors.append(np.square(codes * scale[:, None] - weights, dtype=np.float64).sum(axis=1))
        return np.asarray(np.choose(np.argmin(errors, axis=0), tried), np.float32)


def _of_signs(weights: np.ndarray) -> np.ndarray:
    """Return the powers of two with the least sum of (|w| - scale)^2: float32 [channels]."""
    mean = np.abs(weights).mean(axis=1, dtype=np.float64)
    above = power_up(np.maximum(mean, np.finfo(np.float32).tiny).astype(np.float32)).astype(np.float64)
    found = np.where(mean < 0.75 * above, above / 2, above)
    return np.asarray(np.maximum(found, np.finfo(np.float32).tiny), np.float32)
