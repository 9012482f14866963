"""What a quantizer is: it chooses the range of an activation from its histogram, and the scales of a weight.

The public methods check what comes in and goes out; an author writes ``_activation`` and ``_weights``.
"""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from haversack.base.encodings import largest_code
from haversack.base.errors import JobError
from haversack.base.profile import TensorStatistics
from haversack.base.shelf import Shelf
from haversack.tools.numerics.affine import is_power

SHELF = Shelf("haversack.compress.quantize", "quantizer")
_NEXT_TO_NONE = np.float32(2.0**-20)
_TINY = np.finfo(np.float32).tiny


@dataclass(frozen=True)
class Quantizer(abc.ABC):
    """Sets ranges and scales; its fields are its settings.

    Class attributes:
        clips: whether a range may leave out values that were seen.
        shifts: whether scales are to be powers of two: weight scales are, and those of activations are rounded up.
    """

    clips: ClassVar[bool] = False
    shifts: ClassVar[bool] = False

    def activation_range(self, statistics: TensorStatistics, bits: int = 8) -> tuple[float, float]:
        """Return (low, high) of the real values to cover with unsigned codes; it contains 0.

        Raises:
            JobError: the statistics hold NaN or an infinity.
        """
        if not (math.isfinite(statistics.minimum) and math.isfinite(statistics.maximum)):
            raise JobError("activations hold NaN or an infinity: no range covers them")
        low, high = self._activation(statistics, bits)
        low, high = min(float(low), 0.0), max(float(high), 0.0)
        seen = min(statistics.minimum, 0.0), max(statistics.maximum, 0.0)
        assert seen[0] <= low <= high <= seen[1], f"{type(self).__name__} leaves the values seen: {low}, {high}, {seen}"
        assert self.clips or (low, high) == seen, f"{type(self).__name__} says that it does not clip, and clips"
        return low, high

    def weight_scales(self, weights: np.ndarray, bits: int = 8, taps: int = 1) -> np.ndarray:
        """Return the symmetric scale of each channel, float32 [channels], positive.

        A channel of zeros gets the smallest scale of the others (1 if there are none), so that its bias is not
        rounded more coarsely than theirs. Of one bit, which has no code for 0, it gets 2^-20 of that.

        Args:
            weights: float32 [channels, values of the channel].
            bits: of a code (see ``base.encodings.Affine``).
            taps: how many neighbouring values read neighbouring places of the same input channel: the size of a
                convolution's kernel, 1 for other layers.

        Raises:
            JobError: a weight is NaN or infinite.
        """
        if not np.isfinite(weights).all():
            raise JobError("weights hold NaN or an infinity: no scale fits them")
        peak = np.abs(weights).max(axis=1, initial=0.0).astype(np.float64)
        alive = peak / largest_code(bits) >= _TINY
        scales = np.ones(len(weights), np.float32)
        if alive.any():
            scales[alive] = self._weights(np.ascontiguousarray(weights[alive], np.float32), bits, taps)
            scales[~alive] = scales[alive].min()
        if bits == 1:
            scales[~alive] = np.maximum(scales[~alive] * _NEXT_TO_NONE, _TINY)
        assert (np.isfinite(scales) & (scales > 0)).all(), f"{type(self).__name__} gives a scale that is none"
        assert not self.shifts or is_power(scales).all(), f"{type(self).__name__} gives a scale that is no power of two"
        return scales

    @abc.abstractmethod
    def _activation(self, statistics: TensorStatistics, bits: int) -> tuple[float, float]:
        """Return (low, high) within the values seen and 0."""

    @abc.abstractmethod
    def _weights(self, weights: np.ndarray, bits: int, taps: int) -> np.ndarray:
        """Return float32 [channels] for weights [channels, n], no channel all zero; ``taps`` divides n."""


def centers(statistics: TensorStatistics) -> np.ndarray:
    """Return the middle of each bin of a histogram, float64 [bins]."""
    bins = len(statistics.counts)
    return statistics.low + (np.arange(bins) + 0.5) * ((statistics.high - statistics.low) / bins)


def full_scales(weights: np.ndarray, bits: int) -> np.ndarray:
    """Return the scales that cover every weight: max |w| / largest code, float32 [channels]."""
    return np.asarray(np.abs(weights).max(axis=1) / np.float32(largest_code(bits)), np.float32)


def short(scales: np.ndarray, bits: int, rounding: np.ufunc = np.ceil) -> np.ndarray:
    """Return numbers of few significant bits, float32 like the scales; none below its scale.

    Every channel's scale travels beside its codes, and a mantissa is noise: no coder takes its bits away. What the bits
    that it lacks leave undone, rounding on the scale as it is makes good.

    Args:
        scales: float32, positive.
        bits: of a number, the first one counted: 2^(bits - 1) numbers to an octave.
        rounding: ``np.rint`` for the nearest of them, which may lie below.
    """
    mantissa, exponent = np.frexp(scales)
    steps = np.float32(1 << bits)
    return np.asarray(np.ldexp(rounding(mantissa * steps) / steps, exponent), np.float32)
