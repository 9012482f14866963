"""Writes into a part of a tensor (``y[:, 0] = 1``), which in a graph of values are a new tensor, joined of pieces."""

from __future__ import annotations

import numpy as np

from haversack.targets.litert.moves import concatenated, part, reshaped, widened
from haversack.targets.litert.sheet import Value
from haversack.targets.litert.site import Site
from haversack.tools.graph.program import Constant, Flow


def write_fill(site: Site) -> Value:
    """Write a tensor of one number."""
    number = site.arguments["value"]
    if isinstance(number, Flow):
        raise site.refused("its number is computed")
    array = number.array if isinstance(number, Constant) else np.array(number)
    return site.read(Constant(np.full(site.shape, array, site.node.output.dtype)))


def write_copy(site: Site) -> Value:
    """Write a tensor that takes another's numbers, repeated along axes of length 1."""
    value = site.value("src")
    if value.dtype != site.node.output.dtype:
        raise site.refused(f"{value.dtype} becomes {site.node.output.dtype}")
    return widened(site, value, site.shape)


def write_slice_scatter(site: Site) -> Value:
    """Write a tensor of which a part of one axis comes from another."""
    length, axis = _axis(site)
    start, end = (site.arguments.get(name) for name in ("start", "end"))
    begin, stop, stride = slice(start, end, site.arguments.get("step")).indices(length)
    if stride != 1:
        raise site.refused("a step other than 1")
    return _replaced(site, axis, begin, max(begin, stop))


def write_select_scatter(site: Site) -> Value:
    """Write a tensor of which one place of an axis comes from another."""
    length, axis = _axis(site)
    index = int(site.arguments["index"]) % length
    return _replaced(site, axis, index, index + 1)


def _axis(site: Site) -> tuple[int, int]:
    axis = int(site.arguments["dim"]) % len(site.shape)
    return site.shape[axis], axis


def _replaced(site: Site, axis: int, begin: int, stop: int) -> Value:
    """Return the tensor with new numbers from one place of an axis to another."""
    whole, new = site.value("self"), site.value("src")
    length = site.shape[axis]
    shape = tuple(stop - begin if at == axis else size for at, size in enumerate(site.shape))
    pieces = [(0, begin, whole), (begin, stop, None), (stop, length, whole)]
    made = [
        reshaped(site, new, shape) if source is None else part(site, source, axis, first, last, 1)
        for first, last, source in pieces
        if last > first
    ]
    return concatenated(site, made, site.shape, axis) if len(made) > 1 else made[0]
