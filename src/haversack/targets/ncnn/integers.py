"""Units that run in integers: int8 kernels where ncnn has exact ones, whole numbers in float32 where it has none.

ncnn's int8 kernels of dense convolutions and linear layers sum exactly. That of depthwise convolutions takes its factor
from the processor's reciprocal estimate (12 bits, another on every make), and there is none for adds, means and pools:
these compute float32 whole numbers, whose sums below 2^24 are exact, and are rounded to codes behind.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from haversack.base.encodings import Affine
from haversack.targets.ncnn import layers, numbers
from haversack.targets.ncnn.blobs import Array, Form
from haversack.targets.ncnn.naming import CODES, FACTOR, ROUND, SETTLE
from haversack.targets.ncnn.ops import clip, over_image
from haversack.targets.ncnn.sheet import Value, plain
from haversack.targets.ncnn.site import Site
from haversack.tools.graph.roles import Role, role

INT8_OUT, FLOAT_OUT = 101, 2
"""ncnn's ``int8_scale_term``: a convolution that gives int8, a linear layer that gives float32."""


@dataclass(frozen=True, eq=False)
class Grids:
    """Encodings of a unit: of what it reads, of its weight, and of what leaves it; ``bounds`` are its clamp's.

    Attributes:
        codes: the weight's integers, int32, of the weight's shape.
        bias: codes at the scale of the sum, int32 [channels].
    """

    sources: tuple[Affine, ...]
    out: Affine
    bounds: tuple[float, float] | None
    weight: Affine | None = None
    codes: np.ndarray | None = None
    bias: np.ndarray | None = None

    @property
    def limits(self) -> tuple[int, int]:
        """Smallest and largest code around 0."""
        return numbers.limits(self.out, self.bounds)


def is_dense(site_op: str, groups: int, axes: int) -> bool:
    """Say whether ncnn has an exact int8 kernel for a layer.

    Args:
        site_op: the op.
        groups: of a convolution.
        axes: of its input, without the batch.
    """
    return (site_op == "conv2d" and groups == 1) or (site_op == "linear" and axes == 1)


def write_int8(site: Site, grids: Grids) -> Value:
    """Write a layer for an int8 kernel; its input is a blob of codes. Returns the blob of codes.

    Raises:
        ConversionError: the multiplier of a channel has no float32 inverse.
    """
    assert grids.weight is not None, "a layer in integers has an Affine weight"
    assert grids.codes is not None, "an Affine weight has integers"
    layers.keep_scale(site, grids.weight)
    name, settings = layers.form(site)
    factors = numbers.multiplier(grids.sources[0], grids.weight, grids.out, len(grids.codes))
    inverse = numbers.inverse(factors)
    if not (np.isfinite(inverse) & (inverse > 0)).all():
        raise site.refused("scale_in * scale_weight / scale_out is too small for float32")
    arrays = [Array("weight", Form.INT8, grids.codes)]
    if grids.bias is not None:
        settings[layers.biased(name)] = 1
        arrays.append(plain("bias", numbers.bias_values(grids.bias, factors)))
    arrays += [plain("weight scale", inverse), plain("input scale", np.ones(1))]
    settings |= layers.activation(_range(grids.limits))
    if name == "InnerProduct":
        sums = site.emit(name, [site.input], {**settings, 8: FLOAT_OUT}, arrays, part="sum")
        return _round(site, sums, np.ones(1, np.float32))
    arrays.append(plain("output scale", np.ones(1)))
    made = Value(site.name + CODES, site.shape)
    return site.sheet.layer(name, site.node.key, [site.input], made, {**settings, 8: INT8_OUT}, arrays)


def _range(limits: tuple[int, int]) -> tuple[float, float] | None:
    """Return the interval that an activation must keep, None where ncnn's own limits do."""
    if limits[1] < numbers.TOP:
        return float(limits[0]), float(limits[1])
    return (0.0, np.inf) if limits[0] == 0 else None if limits[0] == -numbers.TOP else (float(limits[0]), np.inf)


def write_whole(site: Site, grids: Grids) -> Value:
    """Write a unit whose inputs are whole numbers; returns the blob of codes.

    Raises:
        ConversionError: sums may pass 2^24, or shapes do not agree.
    """
    kind = role(site.node)
    if kind is Role.ADD:
        return _add(site, grids)
    if kind is Role.MEAN:
        return _settle(site, over_image(_part(site), site.input), grids, numbers.ratio(grids.sources[0], grids.out))
    return _layer(site, grids)


def _part(site: Site) -> Site:
    """Return the site of something on the way to the op's output."""
    return Site(site.sheet, site.node, site.inputs, site.weights, site.shape, f"{site.name}/sum")


def _add(site: Site, grids: Grids) -> Value:
    first, second = site.inputs
    if first.shape != second.shape:
        raise site.refused(f"an add of shapes {first.shape} and {second.shape} in integers")
    ratios = tuple(float(numbers.ratio(source, grids.out)[0]) for source in grids.sources)
    sums = site.emit("Eltwise", [first, second], {0: 1, 1: ratios}, part="sum")
    return _settle(site, sums, grids, np.ones(1, np.float32))


def _layer(site: Site, grids: Grids) -> Value:
    assert grids.weight is not None, "a layer in integers has an Affine weight"
    assert grids.codes is not None, "an Affine weight has integers"
    layers.keep_scale(site, grids.weight)
    name, settings = layers.form(site)
    channels = len(grids.codes)
    largest = np.abs(grids.codes.reshape(channels, -1).astype(np.int64)).sum(1) * numbers.TOP
    largest = largest if grids.bias is None else largest + np.abs(grids.bias.astype(np.int64))
    if int(largest.max()) >= numbers.EXACT:
        raise site.refused(f"sums of up to {int(largest.max())}, and float32 is exact up to {numbers.EXACT}")
    arrays = [Array("weight", Form.TABLE, grids.codes)]
    if grids.bias is not None:
        settings[layers.biased(name)] = 1
        arrays.append(plain("bias", grids.bias))
    sums = site.emit(name, [site.input], settings, arrays, part="sum")
    factors = numbers.multiplier(grids.sources[0], grids.weight, grids.out, channels)
    return _settle(site, sums, grids, factors)


def _settle(site: Site, sums: Value, grids: Grids, factors: np.ndarray) -> Value:
    """Multiply sums, limit and round them."""
    low, high = grids.limits
    by_rounding = len(factors) == 1 or len(sums.shape) == 3
    if by_rounding and (low, high) in ((-numbers.TOP, numbers.TOP), (0, numbers.TOP)):
        sums = clip(site, sums, (0.0, np.inf), "limit") if low == 0 else sums
        return _round(site, sums, factors)
    if len(factors) > 1:
        sums = layers.scale(site, sums, factors, None, "scaled")
    elif factors[0] != 1:
        factor = site.sheet.constant(f"{site.node.key}:out{FACTOR}", factors)
        sums = site.emit("BinaryOp", [sums, factor], {0: 2}, part="scaled", shape=sums.shape)
    sums = clip(site, sums, (float(low), float(high)), "limit")
    return _round(site, sums, np.ones(1, np.float32))


def _round(site: Site, value: Value, factors: np.ndarray) -> Value:
    """Multiply a value and round it to codes."""
    made = Value(site.name + CODES, site.shape)
    name = site.node.key + SETTLE
    return site.sheet.layer("Quantize", name, [value], made, {0: len(factors)}, [plain("scale", factors)])


def rounded(site_sheet: Site, value: Value, name: str, encoding: Affine) -> Value:
    """Round float values to codes."""
    made = Value(name + CODES, value.shape)
    arrays = [plain("scale", numbers.steps(encoding))]
    return site_sheet.sheet.layer("Quantize", f"{site_sheet.node.key}{ROUND}", [value], made, {0: 1}, arrays)
