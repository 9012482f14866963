"""Mean squared error: the range at which rounding and saturation together cost least."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from haversack.base.encodings import largest_code
from haversack.base.profile import TensorStatistics
from haversack.compress.quantize.contract import Quantizer, centers, full_scales, short

_BLOCK = 1 << 16
"""Weights that are tried together: few enough to stay in a processor's cache."""
_FEW = 2
"""Bits of a code up to which the best scale is known in closed form."""
_SHORT, _KERNEL = 6, 7
"""Significant bits of the scales that are tried: for a matrix, and for kernels, where few weights share a scale."""


@dataclass(frozen=True)
class MeanSquaredError(Quantizer):
    """The range with the least expected squared error, found on a grid of clipping ratios.

    Activations, by their histogram: saturation beyond the range, and s^2/12 for the rounding of a step s inside it
    (Banner et al. 2019, arXiv:1810.05723, section 3, with the observed distribution for the fitted one).

    Weights, as they are: at 8 bits clipping does not pay, but scales a little above the full one round each channel
    differently, and where a channel has few weights some scale fits them all. A convolution's taps read neighbouring
    places, which are much alike: what their errors sum to matters more than each. With ``alike`` = r the error of a
    channel is (1 - r) * sum(d^2) + r * sum over input channels (sum over taps d)^2, which is what it makes of inputs
    whose neighbours correlate by r. All scales that are tried are ``short`` numbers, for they travel.

    Weights of one and two bits: the scale of the least sum(d^2), found exactly. Of signs it is the mean of |w|
    (XNOR-Net: Rastegari et al. 2016, arXiv:1603.05279, section 3.1). Of -1, 0 and 1 it is the mean of the k largest
    |w|, for the k with the largest (sum of these)^2 / k (ternary weight networks: Li et al. 2016, arXiv:1605.04711,
    section 2.2, solved by sorting). Ratios and ``alike`` say nothing there.

    Attributes:
        ratios: how many ratios are tried.
        least: the smallest ratio of an activation's range; they go evenly from it to 1.
        weight_least, weight_most: the smallest and largest ratio of a weight's full scale; 1 is tried as well.
        alike: the correlation r, in [0, 1); layers without a kernel do not need it.

    Raises:
        ValueError: a setting is outside its range.
    """

    clips: ClassVar[bool] = True
    ratios: int = 64
    least: float = 0.4
    weight_least: float = 1.0
    weight_most: float = 1.4
    alike: float = 0.9

    def __post_init__(self) -> None:
        if self.ratios < 1:
            raise ValueError(f"ratios must be at least 1, not {self.ratios}")
        if not 0.0 < self.least <= 1.0:
            raise ValueError(f"least must be in (0, 1], not {self.least}")
        if not 0.0 < self.weight_least <= self.weight_most:
            raise ValueError(f"weight_least must be in (0, weight_most], not {self.weight_least}")
        if not 0.0 <= self.alike < 1.0:
            raise ValueError(f"alike must be in [0, 1), not {self.alike}")

    def _activation(self, statistics: TensorStatistics, bits: int) -> tuple[float, float]:
        least, most = min(statistics.minimum, 0.0), max(statistics.maximum, 0.0)
        if least == most:
            return least, most
        values = np.clip(centers(statistics), least, most)
        probability = statistics.counts / statistics.counts.sum()
        ratios = np.linspace(1.0, self.least, self.ratios)
        lows, highs = ratios * least, ratios * most
        below = [_excess(low - values, probability) for low in lows]
        above = [_excess(values - high, probability) for high in highs]
        step = (highs[None, :] - lows[:, None]) / ((1 << bits) - 1)
        rounded = 1.0 - probability[np.abs(values).argmin()]  # what a clamp made 0 is exact at any step
        error = np.add.outer(np.array(below), np.array(above)) + rounded * np.square(step) / 12.0
        row, column = np.unravel_index(int(np.argmin(error)), error.shape)
        return float(lows[row]), float(highs[column])

    def _weights(self, weights: np.ndarray, bits: int, taps: int) -> np.ndarray:
        if bits <= _FEW:
            return _exact(weights, binary=bits == 1)
        rows = max(1, _BLOCK // weights.shape[1])
        blocks = [weights[start : start + rows] for start in range(0, len(weights), rows)]
        return np.concatenate([self._best(block, bits, taps) for block in blocks])

    def _best(self, weights: np.ndarray, bits: int, taps: int) -> np.ndarray:
        full = full_scales(weights, bits)
        limit = np.float32(largest_code(bits))
        least = np.full(len(weights), np.inf)
        significant = _KERNEL if taps > 1 else _SHORT
        best = short(full, significant)
        buffer = np.empty_like(weights)
        for ratio in (1.0, *np.linspace(self.weight_least, self.weight_most, self.ratios)):
            scale = short(np.maximum(full * np.float32(ratio), np.finfo(np.float32).tiny), significant)
            np.divide(weights, scale[:, None], out=buffer)
            np.rint(buffer, out=buffer)
            np.clip(buffer, -limit, limit, out=buffer)
            buffer *= scale[:, None]
            buffer -= weights
            error = np.einsum("ij,ij->i", buffer, buffer)
            if taps > 1:
                sums = buffer.reshape(len(buffer), -1, taps).sum(axis=2)
                error = (1.0 - self.alike) * error + self.alike * np.einsum("ij,ij->i", sums, sums)
            best = np.where(error < least, scale, best)
            least = np.minimum(error, least)
        return np.asarray(best, np.float32)


def _exact(weights: np.ndarray, *, binary: bool) -> np.ndarray:
    """Return the scales with the least squared error for codes -1 and 1, or -1, 0 and 1, float32 [channels]."""
    sizes = np.abs(weights).astype(np.float64)
    if binary:
        found = sizes.mean(axis=1)
    else:
        counts = np.arange(1, weights.shape[1] + 1)
        sums = np.cumsum(-np.sort(-sizes, axis=1), axis=1)
        best = (np.square(sums) / counts).argmax(axis=1)
        found = np.take_along_axis(sums, best[:, None], axis=1)[:, 0] / counts[best]
    return np.asarray(np.maximum(found, np.finfo(np.float32).tiny), np.float32)


def _excess(distance: np.ndarray, probability: np.ndarray) -> float:
    """Return the expected square of how far values lie outside, where ``distance`` is positive."""
    return float(probability @ np.square(np.maximum(distance, 0.0)))
