"""The law as a runtime with symmetric int8 keeps it: codes in [-127, 127], rounded half away from zero.

ncnn computes so. Three things differ from the law: a half is rounded away from zero, the code -128 does not exist, and
the bias of a dense layer is added in float32 after the sum was multiplied. Everything else is the law's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from haversack.base.encodings import Affine
from haversack.base.graph import Node
from haversack.targets.reference import grid
from haversack.targets.reference.layer import centered_weight, per_channel, product
from haversack.tools.numerics import affine

if TYPE_CHECKING:
    import torch

TOP = 127


def limits(encoding: Affine, bounds: tuple[float, float] | None = None) -> tuple[int, int]:
    """Return the lowest and highest code around 0, inside the interval of a fused clamp if there is one."""
    low, high = grid.limits(encoding, bounds)
    return max(low, -TOP), min(high, TOP)


def settle(steps: torch.Tensor, encoding: Affine, low: int, high: int) -> torch.Tensor:
    """Return the values of float32 steps: limited, rounded half away from zero, times the scale; works in place."""
    signs = steps.clamp_(low, high).sign()
    whole = steps.abs_().add_(0.5).floor_().mul_(signs)
    return whole.clamp_(low, high).add_(0.0).mul_(float(encoding.scale))


def snap(x: torch.Tensor, encoding: Affine) -> torch.Tensor:
    """Return float32 values quantized and dequantized: multiplied by the scale's inverse, not divided."""
    return settle(x.mul(float(np.float32(1) / encoding.scale)), encoding, *limits(encoding))


class SymmetricLayer:
    """A layer in integers: the exact sum times one float32 multiplier for each channel, and the bias.

    Args:
        node: the layer.
        codes: int32, the weight's shape.
        bias: float32 [channels] or None.
        source, weight, out: encodings of input, weight and output (of the fused clamp, if there is one).
        bounds: of the fused clamp.
    """

    def __init__(
        self,
        node: Node,
        codes: np.ndarray,
        bias: np.ndarray | None,
        *,
        source: Affine,
        weight: Affine,
        out: Affine,
        bounds: tuple[float, float] | None,
    ) -> None:
        self.source, self.out = source, out
        self.limits = limits(out, bounds)
        derived = None if bias is None else affine.bias_codes(bias, source.scale, weight.scale)
        groups, axes = int(node.attributes.get("groups", 1)), len(node.output.shape)
        factor = affine.multiplier(source.scale, weight.scale, out.scale)
        self.dense = (node.op == "conv2d" and groups == 1) or (node.op == "linear" and axes == 2)
        whole = None if self.dense else derived
        self.product = product(node, centered_weight(codes, weight), whole, *limits(source))
        if self.dense:
            self.bias = None if derived is None else per_channel(node, derived.astype(np.float32) * factor)
            factor = np.float32(1) / (np.float32(1) / factor)  # the file holds the inverse
        self.factor = per_channel(node, factor)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return the output on its grid, float32, of an input on its grid."""
        acc = self.product(grid.centered(x, self.source))
        if not self.dense or self.bias is None:
            return settle(acc.mul_(self.factor), self.out, *self.limits)
        # Product and sum are rounded once, as by a fused multiply-add: float64 holds the product exactly.
        return settle(acc.double().mul_(self.factor).add_(self.bias).float(), self.out, *self.limits)
