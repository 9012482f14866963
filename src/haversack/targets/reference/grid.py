"""Values on their integer grid, as torch tensors.

Values flow dequantized, ``scale * (q - zero_point)`` in float32. Their integers come back exactly: float32 rounds the
product by less than one part in 2^24, so that x / scale rounds to q - zero_point for codes of up to 16 bits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from haversack.base.encodings import Affine
from haversack.tools.numerics import affine

if TYPE_CHECKING:
    import torch


def limits(encoding: Affine, bounds: tuple[float, float] | None = None) -> tuple[int, int]:
    """Return the lowest and highest q - zero_point, inside the real interval of a fused clamp if there is one."""
    zero_point = int(encoding.zero_point)
    if bounds is None:
        return encoding.low - zero_point, encoding.high - zero_point
    low, high = affine.quantize(np.array(bounds, np.float32), encoding)
    return int(low) - zero_point, int(high) - zero_point


def centered(x: torch.Tensor, encoding: Affine) -> torch.Tensor:
    """Return q - zero_point of values on the grid, whole numbers in float32."""
    return x.div(float(encoding.scale)).round_()


def settle(steps: torch.Tensor, encoding: Affine, low: int, high: int) -> torch.Tensor:
    """Return the values of float32 steps (multiples of the scale, not whole yet): rounded, limited, times the scale.

    Works in place. Zero comes out as +0.0, as from integers; rounding alone would leave -0.0.
    """
    return steps.round_().clamp_(low, high).add_(0.0).mul_(float(encoding.scale))


def snap(x: torch.Tensor, encoding: Affine) -> torch.Tensor:
    """Return float32 values quantized and dequantized."""
    return settle(x.div(float(encoding.scale)), encoding, *limits(encoding))
