"""Ops that move values and change none, and those that take many to one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from haversack.targets.coreml.arithmetic import spread
from haversack.targets.coreml.sheet import Value
from haversack.targets.coreml.site import Site
from haversack.tools.graph.program import Constant, Flow

REDUCED = {"mean": "reduce_mean", "sum": "reduce_sum", "amax": "reduce_max", "amin": "reduce_min"}


def write_same(site: Site) -> Value:
    """Write nothing: the value is the input's (dropout, clone, contiguous)."""
    return site.value("self", "input")


def write_reshape(site: Site) -> Value:
    """Write a reshape."""
    return site.reshape(site.value("self", "input"), site.shape)


def write_permute(site: Site) -> Value:
    """Write an exchange of axes."""
    x = site.value("self", "input")
    rank = len(x.shape)
    if "dims" in site.arguments:
        dims = [int(axis) % rank for axis in site.arguments["dims"]]
    else:
        dims = list(range(rank))
        one, other = (int(site.arguments.get(name, axis)) % rank for name, axis in (("dim0", 0), ("dim1", 1)))
        dims[one], dims[other] = other, one
    return site.emit("transpose", site.shape, x.dtype, x=x, perm=dims)


def write_expand(site: Site) -> Value:
    """Write a repetition along axes of length 1."""
    return spread(site, site.value("self"), site.shape)


def write_slice(site: Site) -> Value:
    """Write a part of one axis, with steps."""
    x = site.value("self")
    axis = int(site.arguments["dim"]) % len(x.shape)
    ends = slice(*(site.arguments.get(name) for name in ("start", "end", "step"))).indices(x.shape[axis])
    return _part(site, x, axis, *ends)


def write_select(site: Site) -> Value:
    """Write one place of an axis, which goes."""
    x = site.value("self")
    axis = int(site.arguments["dim"]) % len(x.shape)
    index = int(site.arguments["index"]) % x.shape[axis]
    return site.reshape(_part(site, x, axis, index, index + 1, 1), site.shape)


def _part(site: Site, x: Value, axis: int, begin: int, stop: int, stride: int) -> Value:
    length = len(range(begin, stop, stride))
    if length == x.shape[axis]:
        return x
    shape = [length if at == axis else size for at, size in enumerate(x.shape)]
    begins, ends, steps = ([full] * len(shape) for full in (0, 0, 1))
    ends = list(x.shape)
    begins[axis], ends[axis], steps[axis] = begin, stop, stride
    return site.emit("slice_by_index", shape, x.dtype, x=x, begin=begins, end=ends, stride=steps)


def write_concat(site: Site) -> Value:
    """Write a concatenation."""
    values = [site.read(one, site.dtype) for one in site.arguments["tensors"]]
    values = [one for one in values if np.prod(one.shape) and len(one.shape) == len(site.shape)]
    axis = int(site.arguments["dim"]) % len(site.shape)
    return site.emit("concat", site.shape, site.dtype, values=values, axis=axis, interleave=False)


def write_stack(site: Site) -> Value:
    """Write a concatenation along a new axis."""
    values = [site.read(one, site.dtype) for one in site.arguments["tensors"]]
    axis = int(site.arguments["dim"]) % len(site.shape)
    return site.emit("stack", site.shape, site.dtype, values=values, axis=axis)


def write_pad(site: Site) -> Value:
    """Write a constant around a tensor, on any axes."""
    if site.arguments.get("mode", "constant") != "constant":
        raise site.refused("only a constant is padded")
    x = site.value("self", "input")
    pads = [int(n) for n in site.arguments["pad"]]
    if any(n < 0 for n in pads):
        raise site.refused("a pad that cuts")
    rank = len(x.shape)
    sides = [(0, 0)] * (rank - len(pads) // 2) + [(pads[at], pads[at + 1]) for at in range(len(pads) - 2, -1, -2)]
    flat = [n for pair in sides for n in pair]
    fill = site.number(float(site.arguments.get("value") or 0.0), x.dtype)
    return site.emit("pad", site.shape, x.dtype, x=x, pad=flat, mode="constant", constant_val=fill)


def write_pieces(site: Site) -> Value:
    """Write the pieces of a ``split``, ``chunk`` or ``unbind``; ``getitem`` picks one."""
    x = site.value("self", "input")
    axis = int(site.arguments["dim"]) % len(x.shape)
    pieces, begin = [], 0
    for shape in site.program.shapes(site.node):
        length = shape[axis] if len(shape) == len(x.shape) else 1
        pieces.append(site.reshape(_part(site, x, axis, begin, begin + length, 1), shape))
        begin += length
    site.values.pieces[site.node.key] = pieces
    return pieces[0]


def write_item(site: Site) -> Value:
    """Write nothing: one of the pieces that another node made."""
    source, index = site.arguments["arg0"], site.arguments["arg1"]
    if not isinstance(source, Flow) or source.key not in site.values.pieces:
        raise site.refused("it picks from something that makes no pieces here")
    found: Value = site.values.pieces[source.key][index]
    return found


def write_index(site: Site) -> Value:
    """Write an indexing of one axis by constant rows; nothing where it picks all in order."""
    x, indices = site.value("self"), site.arguments["indices"]
    if not all(found is None or isinstance(found, Constant) for found in indices):
        raise site.refused("indices that are computed")
    every = np.arange(int(np.prod(x.shape))).reshape(x.shape)
    picked = every[tuple(slice(None) if found is None else found.array for found in indices)]
    if np.array_equal(picked.reshape(-1), every.reshape(-1)):
        return site.reshape(x, site.shape)
    used = [axis for axis, found in enumerate(indices) if found is not None]
    if len(used) != 1 or indices[used[0]].array.ndim != 1:
        raise site.refused("more than one axis is indexed")
    rows = site.sheet.constant(f"{site.node.key}_rows", indices[used[0]].array % x.shape[used[0]], "int32")
    return site.emit("gather", site.shape, x.dtype, x=x, indices=rows, axis=used[0], batch_dims=0)


def write_reduction(site: Site) -> Value:
    """Write a mean, sum or largest value over axes."""
    x = site.read(site.arguments.get("self", site.arguments.get("input")), site.dtype)
    dims = site.arguments.get("dim")
    several = dims if isinstance(dims, list) else [] if dims is None else [dims]
    axes = sorted(int(axis) % len(x.shape) for axis in several) or list(range(len(x.shape)))
    keep = bool(site.arguments.get("keepdim"))
    return site.emit(REDUCED[site.node.op], site.shape, x.dtype, x=x, axes=axes, keep_dims=keep)


def write_adaptive(site: Site) -> Value:
    """Write an adaptive average pool: a mean to one place, or an average pool where the lengths divide."""
    x, shape = site.value("self", "input"), site.shape
    inner, outer = x.shape[2:], shape[2:]
    if all(size == 1 for size in outer):
        return site.emit("reduce_mean", shape, x=x, axes=list(range(2, len(shape))), keep_dims=True)
    if any(size % out for size, out in zip(inner, outer, strict=True)):
        raise site.refused("its windows differ in length")
    window = [size // out for size, out in zip(inner, outer, strict=True)]
    return _pool(site, "avg_pool", x, window, window, [0] * 2 * len(window), exclude_padding_from_average=True)


def write_pool(site: Site) -> Value:
    """Write a pool by maximum or average."""
    arguments, x = site.arguments, site.value("self", "input")
    rank = len(x.shape) - 2
    if any(n != 1 for n in spreading(arguments.get("dilation", 1), rank)) or arguments.get("divisor_override"):
        raise site.refused("windows with holes, or a divisor of its own")
    if arguments.get("ceil_mode"):
        raise site.refused("windows that reach over the end")
    window = spreading(arguments["kernel_size"], rank)
    given = arguments.get("stride")
    stride = window if given in (None, []) else spreading(given, rank)
    sides = [side for n in spreading(arguments.get("padding", 0), rank) for side in (n, n)]
    if site.node.op.startswith("max"):
        return _pool(site, "max_pool", x, window, stride, sides)
    own = not arguments.get("count_include_pad", True)
    return _pool(site, "avg_pool", x, window, stride, sides, exclude_padding_from_average=own)


def _pool(
    site: Site, op: str, x: Value, window: Sequence[int], stride: Sequence[int], sides: Sequence[int], **more: bool
) -> Value:
    parts: dict[str, Any] = {"kernel_sizes": list(window), "strides": list(stride), "pad": list(sides)}
    return site.emit(op, site.shape, x=x, pad_type="custom", ceil_mode=False, **parts, **more)


def spreading(value: Any, rank: int) -> list[int]:  # noqa: ANN401 - a number or a list
    """Return one number for each spatial axis."""
    several = list(value) if isinstance(value, list | tuple) else [value]
    return [int(n) for n in (several * rank if len(several) == 1 else several)]
