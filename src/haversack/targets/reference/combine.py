"""Adds and means of integers: whole numbers times ratios of scales, rounded once.

The sums are formed in float64. With tie-free ratios (``tools.numerics.ties``) no sum is near a half, so that a runtime
that forms them in float32, in another order, rounds to the same integer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from haversack.base.encodings import Affine
from haversack.base.graph import Node
from haversack.targets.reference import grid

if TYPE_CHECKING:
    import torch


class IntegerAdd:
    """The sum of two tensors: rint(sum of scale_k / scale_out * (q_k - zero_point_k)), limited.

    Args:
        sources: encodings of both inputs.
        out: of the output (of the fused clamp, if there is one).
        bounds: of the fused clamp.
    """

    def __init__(self, sources: tuple[Affine, Affine], out: Affine, bounds: tuple[float, float] | None) -> None:
        self.sources, self.out = sources, out
        self.ratios = tuple(float(source.scale) / float(out.scale) for source in sources)
        self.limits = grid.limits(out, bounds)

    def __call__(self, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """Return the output on its grid, float32."""
        first = grid.centered(one, self.sources[0]).double().mul_(self.ratios[0])
        second = grid.centered(other, self.sources[1]).double().mul_(self.ratios[1])
        return grid.settle((first + second).round_().float(), self.out, *self.limits)


class IntegerMean:
    """The mean over height and width: rint(scale_in / scale_out / N * sum of (q - zero_point)), limited.

    Args:
        node: the mean or pool.
        source: encoding of the input.
        out: of the output (of the fused clamp, if there is one).
        bounds: of the fused clamp.
    """

    def __init__(self, node: Node, source: Affine, out: Affine, bounds: tuple[float, float] | None) -> None:
        self.source, self.out = source, out
        self.keep = node.op == "adaptive_avg_pool2d" or bool(node.attributes.get("keepdim"))
        self.ratio = float(source.scale) / float(out.scale)
        self.limits = grid.limits(out, bounds)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return the output on its grid, float32."""
        total = grid.centered(x, self.source).double().sum((2, 3), keepdim=self.keep)
        mean = total.mul_(self.ratio / (x.shape[2] * x.shape[3]))
        return grid.settle(mean.round_().float(), self.out, *self.limits)
