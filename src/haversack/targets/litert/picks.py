"""Ops that pick places of an axis by constant numbers: indexing, turns, shuffles, pads that repeat what is there."""

from __future__ import annotations

import math

import numpy as np

from haversack.targets.litert import padding
from haversack.targets.litert.layers import padded
from haversack.targets.litert.moves import kept, reshaped
from haversack.targets.litert.order import NHWC
from haversack.targets.litert.sheet import Value
from haversack.targets.litert.site import Site
from haversack.tools.graph.program import Constant

_PADS = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}
"""What PyTorch calls a pad -> what NumPy calls it."""


def picked(site: Site, x: Value, axis: int, rows: np.ndarray) -> Value:
    """Return places of an axis of the model, int [count], in the order of their numbers; nothing is written for all."""
    if np.array_equal(rows, np.arange(x.shape[axis])):
        return x
    shape = tuple(len(rows) if at == axis else size for at, size in enumerate(x.shape))
    inputs = [x.tensor, site.constant("rows", np.asarray(rows, np.int32))]
    return site.emit("GATHER", inputs, shape, x.order, "GatherOptions", dtype=kept(x), axis=x.order.index(axis))


def write_index(site: Site) -> Value:
    """Write an indexing by constants: nothing where it picks all in order, or rows of one axis."""
    x = site.value("self")
    indices = site.arguments["indices"]
    if not all(found is None or isinstance(found, Constant) for found in indices):
        raise site.refused("indices that are computed")
    places = tuple(slice(None) if found is None else found.array for found in indices)
    chosen = np.arange(math.prod(x.shape)).reshape(x.shape)[places]
    if np.array_equal(chosen.reshape(-1), np.arange(math.prod(x.shape))):
        return reshaped(site, x, site.shape)
    used = [axis for axis, found in enumerate(indices) if found is not None]
    if len(used) != 1 or indices[used[0]].array.ndim != 1:
        raise site.refused("more than one axis is indexed")
    return picked(site, x, used[0], indices[used[0]].array % x.shape[used[0]])


def write_roll(site: Site) -> Value:
    """Write a turn of axes by constant lengths."""
    x = site.value("self")
    turns, dims = (site.arguments.get(name) or [] for name in ("shifts", "dims"))
    if not dims:
        raise site.refused("a turn of all elements as one row")
    for turn, dim in zip(turns, dims, strict=True):
        axis = int(dim) % len(x.shape)
        x = picked(site, x, axis, np.roll(np.arange(x.shape[axis]), int(turn)))
    return x


def write_repeat_each(site: Site) -> Value:
    """Write copies of each place of an axis, one beside the other."""
    x, times, dim = (site.arguments.get(name) for name in ("self", "repeats", "dim"))
    if not isinstance(times, int) or dim is None:
        raise site.refused("counts that are a tensor, or all elements as one row")
    read = site.read(x)
    axis = int(dim) % len(read.shape)
    return picked(site, read, axis, np.repeat(np.arange(read.shape[axis]), times))


def write_channel_shuffle(site: Site) -> Value:
    """Write an exchange of channels between groups (Zhang et al. 2018)."""
    x = site.value("self")
    groups = int(site.arguments["groups"])
    return picked(site, x, 1, np.arange(x.shape[1]).reshape(groups, -1).T.reshape(-1))


def write_pixel_shuffle(site: Site) -> Value:
    """Write channels laid out as pixels (Shi et al. 2016); LiteRT counts the pixels of a block before the channels."""
    x = site.value("self")
    block, shape = int(site.arguments["upscale_factor"]), site.shape
    if len(shape) != len(NHWC):
        raise site.refused("an image without the axis of the batch, or with more axes")
    channels = np.arange(x.shape[1]).reshape(shape[1], block * block).T.reshape(-1)
    x = site.ordered(picked(site, x, 1, channels), NHWC)
    return site.emit("DEPTH_TO_SPACE", [x.tensor], shape, NHWC, "DepthToSpaceOptions", dtype=kept(x), blockSize=block)


def write_pixel_unshuffle(site: Site) -> Value:
    """Write pixels laid out as channels: the way back of ``write_pixel_shuffle``."""
    x = site.value("self")
    block, shape = int(site.arguments["downscale_factor"]), site.shape
    if len(shape) != len(NHWC):
        raise site.refused("an image without the axis of the batch, or with more axes")
    x = site.ordered(x, NHWC)
    options = "SpaceToDepthOptions"
    made = site.emit("SPACE_TO_DEPTH", [x.tensor], shape, NHWC, options, dtype=kept(x), blockSize=block)
    return picked(site, made, 1, np.arange(shape[1]).reshape(block * block, -1).T.reshape(-1))


def write_pad(site: Site) -> Value:
    """Write zeros around a tensor, or what lies at its ends: mirrored, repeated, or from the other end."""
    x = next(site.value(name) for name in ("self", "input") if name in site.arguments)
    sides = padding.sides_of(site.node, len(x.shape))
    if sides is None:
        raise site.refused("a pad that cuts")
    mode = site.arguments.get("mode", "constant")
    if mode == "constant":
        if site.arguments.get("value") not in (None, 0, 0.0):
            raise site.refused("a pad with a number that is not 0")
        return padded(site, x, sides)
    for axis, ends in enumerate(sides):
        x = picked(site, x, axis, np.pad(np.arange(x.shape[axis]), ends, mode=_PADS[mode]))  # type: ignore[call-overload]
    return x
