"""Ops that move values and change none: they work on codes as on floats, and often cost nothing in the file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from haversack.targets.litert import order as orders
from haversack.targets.litert.sheet import OFFSET, Value, quantization
from haversack.targets.litert.site import Site
from haversack.tools.graph.program import Constant, Flow
from haversack.tools.numerics import affine


def write_same(site: Site) -> Value:
    """Write nothing: the value is the input's (dropout, clone, contiguous)."""
    return next(site.value(name) for name in ("self", "input") if name in site.arguments)


def write_reshape(site: Site) -> Value:
    """Write a reshape; axes of length 1 that come or go leave the order of the others as it is."""
    x = next(site.value(name) for name in ("self", "input") if name in site.arguments)
    return reshaped(site, x, site.shape)


def reshaped(site: Site, x: Value, shape: Sequence[int]) -> Value:
    """Return a value under another shape of as many elements, as the model means it."""
    if tuple(shape) == x.shape:
        return x
    longs = [axis for axis in range(len(x.shape)) if x.shape[axis] != 1]
    if [x.shape[axis] for axis in longs] == [size for size in shape if size != 1]:
        return site.reshape(x, shape, _order(x, shape, longs))
    if not orders.same_data(x.shape, x.order, orders.plain(len(x.shape))):
        x = site.ordered(x)
    return site.reshape(x, shape)


def _order(x: Value, shape: Sequence[int], longs: Sequence[int]) -> orders.Order:
    """Return the order in which the long axes of a new shape lie as they did; those of length 1 keep near their place.

    As few operators as possible: where the data already lies in the model's order, that is the order.
    """
    if orders.same_data(x.shape, x.order, orders.plain(len(x.shape))):
        return orders.plain(len(shape))
    new = [axis for axis, size in enumerate(shape) if size != 1]
    moved = [new[longs.index(axis)] for axis in x.order if axis in longs]
    singles = [axis for axis, size in enumerate(shape) if size == 1]
    found = list(moved)
    for axis in singles:
        found.insert(min(axis, len(found)), axis)
    return tuple(found)


def write_permute(site: Site) -> Value:
    """Write an exchange of axes: the tensor stays, and is moved where a reader needs another order."""
    arguments = site.arguments
    x = next(site.value(name) for name in ("self", "input") if name in arguments)
    rank = len(x.shape)
    if "dims" in arguments:
        dims = [int(axis) % rank for axis in arguments["dims"]]
    elif "source" in arguments:
        ends = [[int(n) % rank for n in _several(arguments[name])] for name in ("source", "destination")]
        left = iter(axis for axis in range(rank) if axis not in ends[0])
        dims = [ends[0][ends[1].index(place)] if place in ends[1] else next(left) for place in range(rank)]
    else:
        places = ((("dim0", "axis0"), 0), (("dim1", "axis1"), 1))
        one, other = (next((int(arguments[n]) for n in names if n in arguments), axis) % rank for names, axis in places)
        dims = list(range(rank))
        dims[one], dims[other] = other, one
    shape = tuple(x.shape[axis] for axis in dims)
    return Value(x.tensor, shape, orders.permuted(x.order, dims), x.dtype, x.grid, asked=True)


def write_expand(site: Site) -> Value:
    """Write a repetition along axes of length 1."""
    return widened(site, site.value("self"), site.shape)


def widened(site: Site, x: Value, shape: Sequence[int]) -> Value:
    """Return a value repeated along axes of length 1, or new ones in front, until it has this shape."""
    if math.prod(shape) == math.prod(x.shape):
        return reshaped(site, x, shape)
    x = site.ordered(x)
    x = site.reshape(x, (1,) * (len(shape) - len(x.shape)) + x.shape)
    wanted = site.constant("shape", np.array(shape, np.int32))
    return site.emit("BROADCAST_TO", [x.tensor, wanted], shape, None, "BroadcastToOptions", dtype=kept(x))


def write_repeat(site: Site) -> Value:
    """Write copies side by side along axes; axes that come first come with them."""
    x, shape = site.value("self"), site.shape
    rank = len(shape)
    if rank > len(x.shape):
        x = site.reshape(site.ordered(x), (1,) * (rank - len(x.shape)) + x.shape)
    table = np.array([shape[axis] // max(1, x.shape[axis]) for axis in x.order], np.int32)
    inputs = [x.tensor, site.constant("times", table)]
    return site.emit("TILE", inputs, shape, x.order, "TileOptions", dtype=kept(x))


def write_slice(site: Site) -> Value:
    """Write a part of one axis, with steps."""
    x = site.value("self")
    axis = int(site.arguments["dim"]) % len(x.shape)
    start, end, step = (site.arguments.get(name) for name in ("start", "end", "step"))
    begin, stop, stride = slice(start, end, step).indices(x.shape[axis])
    return part(site, x, axis, begin, stop, stride)


def write_narrow(site: Site) -> Value:
    """Write a slice that is told by its begin and length."""
    x = site.value("self")
    axis, begin, length = (int(site.arguments[name]) for name in ("dim", "start", "length"))
    axis %= len(x.shape)
    begin %= x.shape[axis]
    return part(site, x, axis, begin, begin + length, 1)


def write_select(site: Site) -> Value:
    """Write one place of an axis, which goes."""
    x = site.value("self")
    axis = int(site.arguments["dim"]) % len(x.shape)
    index = int(site.arguments["index"]) % x.shape[axis]
    return reshaped(site, part(site, x, axis, index, index + 1, 1), site.shape)


def part(site: Site, x: Value, axis: int, begin: int, stop: int, stride: int) -> Value:
    """Return the places of an axis from ``begin`` to before ``stop``; nothing is written where these are all."""
    length = len(range(begin, stop, stride))
    if length == x.shape[axis]:
        return x
    shape = tuple(length if at == axis else size for at, size in enumerate(x.shape))
    ends = [(begin, stop, stride) if at == axis else (0, x.shape[at], 1) for at in x.order]
    begins, stops, strides = (np.array(column, np.int32) for column in zip(*ends, strict=True))
    if stride == 1:
        sizes = np.array(orders.filed(shape, x.order), np.int32)
        inputs = [x.tensor, site.constant("begin", begins), site.constant("size", sizes)]
        return site.emit("SLICE", inputs, shape, x.order, "SliceOptions", dtype=kept(x))
    names = ("begin", "end", "strides")
    inputs = [x.tensor, *(site.constant(n, a) for n, a in zip(names, (begins, stops, strides), strict=True))]
    return site.emit("STRIDED_SLICE", inputs, shape, x.order, "StridedSliceOptions", dtype=kept(x))


def write_concat(site: Site) -> Value:
    """Write a concatenation, in the order of the first tensor."""
    values = _joined(site)
    shape = site.shape
    values = [value for value in values if math.prod(value.shape) or value.shape == shape]
    return concatenated(site, values, shape, int(site.arguments["dim"]) % len(shape))


def concatenated(site: Site, values: Sequence[Value], shape: Sequence[int], axis: int) -> Value:
    """Return values joined along an axis of the model, in the order of the first."""
    order = values[0].order
    inputs = [site.ordered(value, order).tensor for value in values]
    place = order.index(axis)
    return site.emit("CONCATENATION", inputs, shape, order, "ConcatenationOptions", dtype=kept(values[0]), axis=place)


def _joined(site: Site) -> list[Value]:
    """Return what a unit joins; constants are codes of its own encoding where it runs in integers."""
    found: list[Any] = site.arguments["tensors"]
    computed = [site.read(one) for one in found if not isinstance(one, Constant)]
    order = computed[0].order if computed else None
    left = iter(computed)
    return [_codes(site, one.array, order) if isinstance(one, Constant) else next(left) for one in found]


def _codes(site: Site, array: np.ndarray, order: orders.Order | None) -> Value:
    """Return a constant (any shape) as a value, codes in an order where the unit runs in integers."""
    if site.grid is None:
        return site.read(Constant(array))
    order = order if order is not None and len(order) == array.ndim else orders.plain(array.ndim)
    codes = (affine.quantize(array, site.grid).astype(np.int16) - OFFSET).astype(np.int8)
    number = site.sheet.constant(f"{site.key}/constant", codes.transpose(order).copy(), quantization(site.grid))
    return Value(number, array.shape, order, "int8", site.grid)


def write_stack(site: Site) -> Value:
    """Write a concatenation along a new axis."""
    shape = site.shape
    axis = int(site.arguments["dim"]) % len(shape)
    single = tuple(1 if at == axis else size for at, size in enumerate(shape))
    values = [site.ordered(reshaped(site, value, single)) for value in _joined(site)]
    inputs = [value.tensor for value in values]
    return site.emit("CONCATENATION", inputs, shape, None, "ConcatenationOptions", dtype=kept(values[0]), axis=axis)


def write_pieces(site: Site) -> Value:
    """Write the pieces of a ``split``, ``chunk`` or ``unbind``; ``getitem`` picks one."""
    x = next(site.value(name) for name in ("self", "input") if name in site.arguments)
    axis = int(site.arguments["dim"]) % len(x.shape)
    pieces, begin = [], 0
    for shape in site.program.shapes(site.node):
        length = shape[axis] if len(shape) == len(x.shape) else 1
        piece = part(site, x, axis, begin, begin + length, 1)
        pieces.append(reshaped(site, piece, shape))
        begin += length
    site.values.several[site.key] = pieces
    return pieces[0]


def write_item(site: Site) -> Value:
    """Write nothing: one of the pieces that another node made."""
    source, index = site.arguments["arg0"], site.arguments["arg1"]
    if not isinstance(source, Flow) or source.key not in site.values.several:
        raise site.refused("it picks from something that makes no pieces here")
    found: Value = site.values.several[source.key][index]
    return found


def write_flip(site: Site) -> Value:
    """Write a reversal of axes, one after the other: not every version reverses several at once."""
    x = site.value("self")
    for axis in site.arguments["dims"]:
        place = np.array([x.order.index(int(axis) % len(x.shape))], np.int32)
        inputs = [x.tensor, site.constant("axis", place)]
        x = site.emit("REVERSE_V2", inputs, x.shape, x.order, "ReverseV2Options", dtype=kept(x))
    return x


def kept(x: Value) -> str:
    """Return the dtype that ``Site.emit`` is to be told for something like this value."""
    return "float32" if x.grid is not None else x.dtype


def _several(found: Any) -> list[int]:  # noqa: ANN401 - a number or a list
    return list(found) if isinstance(found, list | tuple) else [found]
