"""Means, sums and pools."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from haversack.targets.litert import padding
from haversack.targets.litert.arithmetic import cast, combine, constant, scaled, unary
from haversack.targets.litert.layers import padded, walled
from haversack.targets.litert.moves import reshaped
from haversack.targets.litert.order import NHWC
from haversack.targets.litert.padding import spread
from haversack.targets.litert.sheet import Value
from haversack.targets.litert.site import Site

REDUCED = {
    "mean": "MEAN",
    "sum": "SUM",
    "amax": "REDUCE_MAX",
    "amin": "REDUCE_MIN",
    "prod": "REDUCE_PROD",
    "any": "REDUCE_ANY",
    "all": "REDUCE_ALL",
}
_OF_TRUTHS = frozenset({"any", "all"})


def write_reduction(site: Site) -> Value:
    """Write a mean, sum or largest value over axes."""
    x = site.value("self")
    if x.dtype != "bool" and site.node.op in _OF_TRUTHS:
        raise site.refused(f"of {x.dtype}, not of truths")
    if x.dtype == "bool" and site.node.op not in _OF_TRUTHS:  # LiteRT sums no truths
        x = cast(site, x, site.node.output.dtype)
    dims = site.arguments.get("dim")
    axes = range(len(x.shape)) if dims in (None, []) else spread(dims, 1)
    return reduced(site, REDUCED[site.node.op], x, axes, keep=bool(site.arguments.get("keepdim")))


def reduced(site: Site, op: str, x: Value, axes: Sequence[int], *, keep: bool) -> Value:
    """Add a reduction over axes of the model."""
    gone = {int(axis) % len(x.shape) for axis in axes}
    filed = np.array(sorted(x.order.index(axis) for axis in gone), np.int32)
    if keep:
        shape = tuple(1 if axis in gone else size for axis, size in enumerate(x.shape))
        order = x.order
    else:
        left = [axis for axis in range(len(x.shape)) if axis not in gone]
        shape = tuple(x.shape[axis] for axis in left)
        order = tuple(left.index(axis) for axis in x.order if axis in left)
    inputs = [x.tensor, site.constant("axes", filed)]
    dtype = "float32" if x.grid is not None else x.dtype
    return site.emit(op, inputs, shape, order, "ReducerOptions", dtype=dtype, keepDims=keep)


def write_variance(site: Site) -> Value:
    """Write a variance or a standard deviation over axes, by the squares of what is left of the mean."""
    x = site.value("self")
    dims = site.arguments.get("dim")
    axes = range(len(x.shape)) if dims in (None, []) else spread(dims, 1)
    less = site.arguments.get("correction", 1 if site.arguments.get("unbiased", True) else 0)
    count = math.prod(x.shape[axis] for axis in axes)
    if less is None or count <= less:
        raise site.refused(f"the spread of {count} with {less} taken off")
    centered = combine(site, "SUB", x, reduced(site, "MEAN", x, axes, keep=True), shape=x.shape)
    kept = bool(site.arguments.get("keepdim"))
    found = reduced(site, "MEAN", unary(site, "SQUARE", centered), axes, keep=kept)
    found = scaled(site, "MUL", found, count / (count - less)) if less else found
    return unary(site, "SQRT", found) if site.node.op == "std" else found


def write_largest_place(site: Site) -> Value:
    """Write the place of the largest value along an axis."""
    x, dim = site.value("self"), site.arguments.get("dim")
    if dim is None:
        raise site.refused("a place among all elements")
    axis = int(dim) % len(x.shape)
    left = [at for at in range(len(x.shape)) if at != axis]
    shape, order = tuple(x.shape[at] for at in left), tuple(left.index(at) for at in x.order if at != axis)
    inputs = [x.tensor, site.constant("axis", np.array(x.order.index(axis), np.int32))]
    found = site.emit(
        "ARG_MAX", inputs, shape, order, "ArgMaxOptions", dtype="int64", outputType=site.sheet.type("int64")
    )
    return reshaped(site, found, site.shape)


def write_cumulative(site: Site) -> Value:
    """Write running sums along an axis."""
    x = site.value("self")
    axis = np.array(x.order.index(int(site.arguments["dim"]) % len(x.shape)), np.int32)
    inputs = [x.tensor, site.constant("axis", axis)]
    return site.emit("CUMSUM", inputs, x.shape, x.order, "CumsumOptions", dtype=x.dtype)


def write_adaptive(site: Site) -> Value:
    """Write an adaptive average pool: a mean to one place, a pool where the lengths divide, else products by axis."""
    x = next(site.value(name) for name in ("self", "input") if name in site.arguments)
    shape = site.shape
    if all(size == 1 for size in shape[2:]):
        return reduced(site, "MEAN", x, range(2, len(shape)), keep=True)
    if len(shape) == len(NHWC) and not any(size % out for size, out in zip(x.shape[2:], shape[2:], strict=True)):
        window = [size // out for size, out in zip(x.shape[2:], shape[2:], strict=True)]
        return _pool(site, "AVERAGE_POOL_2D", x, window, window, "VALID")
    for axis in range(2, len(shape)):
        x = _by_windows(site, x, axis, shape[axis])
    return x


def _by_windows(site: Site, x: Value, axis: int, places: int) -> Value:
    """Add means over windows that differ in length, from place * length / places on, as a product with a constant."""
    length = x.shape[axis]
    weights = np.zeros((length, places), np.float32)
    for place in range(places):
        begin, end = place * length // places, -(-(place + 1) * length // places)
        weights[begin:end, place] = 1 / (end - begin)
    order = (*(at for at in range(len(x.shape)) if at != axis), axis)
    shape = tuple(places if at == axis else size for at, size in enumerate(x.shape))
    inputs = [site.ordered(x, order).tensor, site.constant("windows", weights)]
    return site.emit("BATCH_MATMUL", inputs, shape, order, "BatchMatMulOptions", adjX=False, adjY=False)


def write_pool(site: Site) -> Value:
    """Write a pool by maximum or average over height and width, or over one axis."""
    largest = site.node.op.startswith("max_pool")
    x = next(site.value(name) for name in ("self", "input") if name in site.arguments)
    rank = len(x.shape) - 2
    shape = site.shape
    if any(n != 1 for n in spread(site.arguments.get("dilation", 1), rank)):
        raise site.refused("windows with holes")
    window = spread(site.arguments["kernel_size"], rank)
    given = site.arguments.get("stride")
    stride = spread(given, rank) if given not in (None, []) else window
    sides = padding.own(site.arguments, window)
    if rank == 1:
        x = reshaped(site, x, (*x.shape[:2], 1, x.shape[2]))
        window, stride, sides = [1, *window], [1, *stride], ((0, 0), *sides)
    scheme = padding.scheme(x.shape[2:], window, stride, [1, 1], sides)
    counted = bool(site.arguments.get("count_include_pad", True)) and not largest
    over = _over(x.shape[2:], window, stride, sides, shape[-rank:])
    if over != sides:  # windows reach over the end
        scheme = ""
    elif counted and any(map(any, sides)):  # LiteRT's own pads do not count: zeros do
        x, scheme = padded(site, x, ((0, 0), (0, 0), *sides)), "VALID"
    if not scheme and largest:
        x, scheme = walled(site, x, ((0, 0), (0, 0), *over)), "VALID"
    if site.arguments.get("divisor_override"):
        raise site.refused("a divisor of its own")
    if not scheme:
        known = sides if counted else ((0, 0),) * len(sides)
        return reshaped(site, _uncounted(site, x, window, stride, over, known), shape)
    op = "MAX_POOL_2D" if largest else "AVERAGE_POOL_2D"
    return reshaped(site, _pool(site, op, x, window, stride, scheme), shape)


def _over(
    sizes: Sequence[int], window: Sequence[int], stride: Sequence[int], sides: padding.Sides, places: Sequence[int]
) -> padding.Sides:
    """Return the pads with what is missing behind for the last window of so many (``ceil_mode``)."""
    places = [1] * (len(sizes) - len(places)) + list(places)
    found = []
    for size, length, step, (before, after), count in zip(sizes, window, stride, sides, places, strict=True):
        found.append((before, max(after, (count - 1) * step + length - size - before)))
    return tuple(found)


def _uncounted(
    site: Site, x: Value, window: Sequence[int], stride: Sequence[int], sides: padding.Sides, known: padding.Sides
) -> Value:
    """Return averages over what a window covers of an image, with pads that LiteRT's own pools do not know.

    The zeros are counted first; then each place is scaled by how many numbers its window has, in all and of what
    counts: the image and the pads ``known``.
    """
    if site.grid is not None:
        raise site.refused("a pad that LiteRT's pools do not know, in integers")
    factors = []
    ends = zip(x.shape[2:], window, stride, sides, known, strict=True)
    for size, length, step, (before, after), (first, last) in ends:
        begins = np.arange(0, before + size + after - length + 1, step) - before
        covered = np.minimum(begins + length, size + last) - np.maximum(begins, -first)
        factors.append(length / covered)
    found = _pool(site, "AVERAGE_POOL_2D", padded(site, x, ((0, 0), (0, 0), *sides)), window, stride, "VALID")
    table = np.multiply.outer(*factors).astype(np.float32)[None, None]
    return combine(site, "MUL", found, constant(site, table, found.order, "float32"), shape=found.shape)


def _pool(site: Site, op: str, x: Value, window: Sequence[int], stride: Sequence[int], scheme: str) -> Value:
    x = site.ordered(x, NHWC)
    n, channels, *sizes = x.shape
    reach = [1, 1] if scheme == "SAME" else window
    places = [math.floor((size - r) / s) + 1 for size, r, s in zip(sizes, reach, stride, strict=True)]
    return site.emit(
        op,
        [x.tensor],
        (n, channels, *places),
        NHWC,
        "Pool2DOptions",
        padding=site.sheet.options("Padding")[scheme],
        strideH=stride[0],
        strideW=stride[1],
        filterHeight=window[0],
        filterWidth=window[1],
    )
