"""Layers with encoded weights: in integers, with an input quantized at run time, or with stored integers in float."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from haversack.base.encodings import Affine
from haversack.base.graph import Node
from haversack.targets.reference import grid
from haversack.tools.numerics import affine
from haversack.tools.numerics.granularity import along, output_axis

if TYPE_CHECKING:
    import torch

EXACT_FLOAT32 = 1 << 24
"""Whole numbers up to here, and sums of them that stay below, are exact in float32 in any order."""


def multiply(node: Node, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Return what the layer's op computes from these values, in their dtype."""
    import torch
    from torch.nn import functional

    if node.op == "linear":
        return functional.linear(x, weight, bias)
    convolve = {"conv1d": torch.conv1d, "conv2d": torch.conv2d}[node.op]
    stride, padding, dilation, groups = (node.attributes[name] for name in ("stride", "padding", "dilation", "groups"))
    # NNPACK convolves small kernels by Winograd's transform, whose fractions are not exact even on whole numbers.
    with torch.backends.nnpack.flags(enabled=False):
        found: torch.Tensor = convolve(x, weight, bias, stride, padding, dilation, groups)
    return found


@dataclass(frozen=True, eq=False)
class Product:
    """Integer weights that multiply integer inputs, without rounding.

    Attributes:
        node: the layer.
        weight: q - zero_point, whole numbers, float32 or float64, whichever makes every partial sum exact.
        bias: int32 codes as the same dtype, [channels], or None.
    """

    node: Node
    weight: torch.Tensor
    bias: torch.Tensor | None

    def __call__(self, steps: torch.Tensor) -> torch.Tensor:
        """Return the accumulator, exact, as a fresh float32 tensor rounded once (half to even) where it passes 2^24."""
        return multiply(self.node, steps.to(self.weight.dtype), self.weight, self.bias).float()


def product(node: Node, codes: np.ndarray, bias: np.ndarray | None, low: int, high: int) -> Product:
    """Return the exact product of centered weight codes with inputs whose q - zero_point lies in [low, high].

    Args:
        node: the layer.
        codes: integers, channels first.
        bias: int32 [channels] or None.
        low: at most 0.
        high: at least 0.

    Raises:
        ValueError: a sum may pass 2^53, where float64 ends to be exact.
    """
    import torch

    rows = codes.reshape(len(codes), -1).astype(np.int64)
    offset = np.abs(bias.astype(np.int64)) if bias is not None else np.zeros(len(codes), np.int64)
    # The largest and smallest sums of any subset of the products bound every partial sum in every order.
    up = np.maximum(rows * low, rows * high).clip(min=0).sum(1) + offset
    down = np.minimum(rows * low, rows * high).clip(max=0).sum(1) - offset
    largest = int(max(up.max(initial=0), -down.min(initial=0)))
    if largest >= 1 << 53:
        message = f"sums of up to {largest} are not exact in float64"
        raise ValueError(message)
    dtype = torch.float32 if largest <= EXACT_FLOAT32 else torch.float64
    return Product(node, torch.from_numpy(codes).to(dtype), None if bias is None else torch.from_numpy(bias).to(dtype))


class IntegerLayer:
    """A layer in integers: exact sum + bias codes, times one float32 multiplier, rounded, limited.

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
        self.limits = grid.limits(out, bounds)
        derived = None if bias is None else affine.bias_codes(bias, source.scale, weight.scale)
        self.product = product(node, centered_weight(codes, weight), derived, *grid.limits(source))
        self.factor = per_channel(node, affine.multiplier(source.scale, weight.scale, out.scale))

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return the output on its grid, float32, of an input on its grid."""
        acc = self.product(grid.centered(x, self.source))
        return grid.settle(acc.mul_(self.factor), self.out, *self.limits)


class DynamicLayer:
    """A layer whose input is quantized at run time as ONNX DynamicQuantizeLinear says, then MatMulInteger.

    The scaled sum and the bias are float32: float32(sum) * float32(scale_in * scale_weight) + bias.

    Args:
        node: the layer.
        codes: int32, the weight's shape.
        bias: float32 [channels] or None.
        weight: its encoding.
        bits: of the input.
    """

    def __init__(self, node: Node, codes: np.ndarray, bias: np.ndarray | None, *, weight: Affine, bits: int) -> None:
        import torch

        self.node, self.scale, self.top = node, weight.scale, (1 << bits) - 1
        # Whatever the zero-point, a sum is a mean of the sums at both ends: [0, top] bounds them all.
        self.product = product(node, centered_weight(codes, weight), None, 0, self.top)
        self.bias = None if bias is None else per_channel(node, torch.from_numpy(np.array(bias)))

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return the float32 output; one scale and zero-point for the whole tensor."""
        steps, scale = quantize_dynamic(x, self.top)
        acc = self.product(steps).mul_(per_channel(self.node, affine.bias_scale(scale, self.scale)))
        return acc if self.bias is None else acc.add_(self.bias)


class GroupedLayer:
    """A linear layer whose input is quantized at run time by the tensor, and whose weight has a scale for each group.

    Sums are float32: of the products of what the input's codes mean and what the weight's codes mean. Runtimes quantize
    the input by the tensor, by the row or by the group, and so part from this and from each other by its rounding.

    Args:
        node: the layer.
        weight: float32 values as they come out of storage.
        bias: float32 [channels] or None.
        bits: of the input.
    """

    def __init__(self, node: Node, weight: np.ndarray, bias: np.ndarray | None, bits: int) -> None:
        self.stored, self.top = StoredLayer(node, weight, bias), (1 << bits) - 1

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return the float32 output; one scale and zero-point for the whole tensor."""
        steps, scale = quantize_dynamic(x, self.top)
        return self.stored(steps.mul_(float(scale)))


def quantize_dynamic(x: torch.Tensor, top: int = 255) -> tuple[torch.Tensor, np.ndarray]:
    """Return q - zero_point (whole, float32) and the scale (float32, []), as ONNX DynamicQuantizeLinear on [0, top]."""
    low = np.float32(min(0.0, float(x.min()))) if x.numel() else np.float32(0)
    high = np.float32(max(0.0, float(x.max()))) if x.numel() else np.float32(0)
    scale = np.float32((high - low) / np.float32(top)) if high > low else np.float32(1)
    zero_point = int(np.rint(np.clip(np.float32(0) - low / scale, 0, top)))
    return x.div(float(scale)).round_().clamp_(-zero_point, top - zero_point), np.asarray(scale)


class StoredLayer:
    """A layer in float with a weight that was stored in fewer bits.

    Args:
        node: the layer.
        weight: float32 values as they come out of storage.
        bias: float32 [channels] or None.
    """

    def __init__(self, node: Node, weight: np.ndarray, bias: np.ndarray | None) -> None:
        import torch

        self.node, self.weight = node, torch.from_numpy(weight)
        self.bias = None if bias is None else torch.from_numpy(np.array(bias))

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return the float32 output."""
        return multiply(self.node, x, self.weight, self.bias)


class StoredTable:
    """An embedding whose table was stored in fewer bits.

    Args:
        table: float32 values as they come out of storage, [rows, width].
    """

    def __init__(self, table: np.ndarray) -> None:
        import torch

        self.table = torch.from_numpy(table)

    def __call__(self, indices: torch.Tensor) -> torch.Tensor:
        """Return the rows."""
        from torch.nn import functional

        return functional.embedding(indices, self.table)


def centered_weight(codes: np.ndarray, encoding: Affine) -> np.ndarray:
    """Return q - zero_point of a weight, int32."""
    return np.asarray(codes - along(encoding.zero_point, encoding.axis, codes.ndim), np.int32)


def per_channel(node: Node, values: np.ndarray | torch.Tensor) -> torch.Tensor:
    """Return values, [channels] or [], in a shape that broadcasts over the layer's output."""
    import torch

    array = torch.as_tensor(values, dtype=torch.float32)
    if array.ndim == 0 or output_axis(node.op) == -1:
        return array
    return array.reshape(-1, *[1] * (len(node.output.shape) - 2))
