"""Norms: statistics of the sample, or fixed ones, as the few operators that LiteRT has."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from haversack.targets.litert.arithmetic import combine, constant, scaled, unary
from haversack.targets.litert.moves import reshaped, widened
from haversack.targets.litert.pools import reduced
from haversack.targets.litert.sheet import Value
from haversack.targets.litert.site import Site
from haversack.tools.graph.program import Constant


def write_layer_norm(site: Site) -> Value:
    """Write a norm over the last axes: mean, squared difference, reciprocal root, scale, shift (Ba et al. 2016)."""
    x = site.ordered(site.value("input"))
    axes = _last(site, x)
    centered = combine(site, "SUB", x, reduced(site, "MEAN", x, axes, keep=True), shape=x.shape)
    variance = reduced(site, "MEAN", unary(site, "SQUARE", centered), axes, keep=True)
    return _affine(site, _over_root(site, centered, variance, float(site.arguments["eps"])))


def write_rms_norm(site: Site) -> Value:
    """Write a norm by the root of the mean square over the last axes (Zhang and Sennrich 2019)."""
    x = site.ordered(site.value("input"))
    square = reduced(site, "MEAN", unary(site, "SQUARE", x), _last(site, x), keep=True)
    eps = site.arguments.get("eps")
    return _affine(site, _over_root(site, x, square, float(np.finfo(np.float32).eps if eps is None else eps)))


def write_group_norm(site: Site) -> Value:
    """Write a norm over groups of channels and all places (Wu and He 2018), in whatever order the axes lie."""
    return _by_channels(site, int(site.arguments["num_groups"]))


def write_instance_norm(site: Site) -> Value:
    """Write a norm of each channel over all places (Ulyanov et al. 2016)."""
    if not site.arguments.get("use_input_stats", True):
        raise site.refused("fixed statistics")
    return _by_channels(site, site.value("input").shape[1])


def _by_channels(site: Site, groups: int) -> Value:
    """Add a norm with statistics of groups of channels: means of each channel first, and of these the groups' means."""
    x = site.value("input")
    places = range(2, len(x.shape))

    def mean(of: Value) -> Value:
        each = reduced(site, "MEAN", of, places, keep=True) if places else of
        n, channels = each.shape[:2]
        if groups == channels:
            return each
        rows = reshaped(site, each, (n, groups, channels // groups))
        wide = widened(site, reduced(site, "MEAN", rows, [2], keep=True), rows.shape)
        return site.reshape(wide, each.shape, each.order)  # beside rows and channels all axes have length 1

    centered = combine(site, "SUB", x, mean(x), shape=x.shape)
    variance = mean(unary(site, "SQUARE", centered))
    found = _over_root(site, centered, variance, float(site.arguments["eps"]))
    return _affine(site, found, (-1, *[1] * len(places)))


def _last(site: Site, x: Value) -> range:
    rank = len(x.shape)
    return range(rank - len(site.arguments["normalized_shape"]), rank)


def _over_root(site: Site, x: Value, square: Value, eps: float) -> Value:
    """Add x over the root of what its mean square is."""
    return combine(site, "MUL", x, unary(site, "RSQRT", scaled(site, "ADD", square, eps)), shape=x.shape)


def _affine(site: Site, x: Value, wide: Sequence[int] = ()) -> Value:
    """Add the norm's own factors and shifts, where it has them; in a shape, where it is not that of the last axes."""
    for op, name in (("MUL", "weight"), ("ADD", "bias")):
        if (given := site.arguments.get(name)) is not None:
            if not isinstance(given, Constant):
                raise site.refused(f"its {name} is computed")
            array = given.array.reshape(wide) if wide else given.array
            x = combine(site, op, x, constant(site, array, x.order, "float32"), shape=x.shape)
    return x


def write_batch_norm(site: Site) -> Value:
    """Write a batch norm with fixed statistics as one product and one sum (Ioffe and Szegedy 2015)."""
    arguments = site.arguments
    if arguments.get("training"):
        raise site.refused("statistics of the batch")
    x = site.value("input")
    mean, variance, weight, bias = (
        found.array.astype(np.float64) if isinstance(found := arguments.get(name), Constant) else None
        for name in ("running_mean", "running_var", "weight", "bias")
    )
    if mean is None or variance is None:
        raise site.refused("no fixed statistics")
    factor = (1.0 if weight is None else weight) / np.sqrt(variance + float(arguments["eps"]))
    shift = (0.0 if bias is None else bias) - mean * factor
    wide = (-1, *[1] * (len(x.shape) - 2))
    for op, values in (("MUL", factor), ("ADD", shift)):
        array = np.asarray(values, np.float32).reshape(wide)
        x = combine(site, op, x, constant(site, array, x.order, "float32"), shape=x.shape)
    return x
