"""Activations that are no limits: one operator of LiteRT's, or a few."""

from __future__ import annotations

import numpy as np

from haversack.targets.litert.arithmetic import combine, constant, scaled, unary
from haversack.targets.litert.moves import part
from haversack.targets.litert.sheet import Value
from haversack.targets.litert.site import Site
from haversack.tools.graph.program import Constant

_NEARLY = 15.0
"""Where log(1 + exp(x)) is x in float32, within 3e-7."""


def write_silu(site: Site) -> Value:
    """Write x * sigmoid(x)."""
    x = site.value("self")
    return combine(site, "MUL", x, unary(site, "LOGISTIC", x), shape=x.shape)


def write_hardsigmoid(site: Site) -> Value:
    """Write relu6(x + 3) / 6."""
    x = unary(site, "RELU6", scaled(site, "ADD", site.value("self"), 3.0))
    return scaled(site, "MUL", x, 1.0 / 6.0)


def write_gelu(site: Site) -> Value:
    """Write the Gaussian error linear unit, exact or by tanh."""
    approximate = site.arguments.get("approximate", "none") == "tanh"
    return unary(site, "GELU", site.value("self"), "GeluOptions", approximate=approximate)


def write_leaky_relu(site: Site) -> Value:
    """Write the leaky rectifier."""
    slope = float(site.arguments["negative_slope"])
    return unary(site, "LEAKY_RELU", site.value("self"), "LeakyReluOptions", alpha=slope)


def write_prelu(site: Site) -> Value:
    """Write the rectifier whose slope below zero is a parameter, of all or of each channel (He et al. 2015)."""
    slope = site.arguments["weight"]
    if not isinstance(slope, Constant):
        raise site.refused("its slope is computed")
    x = site.value("self")
    rank = len(x.shape)
    if slope.array.size > 1 and rank > 1 and x.order[-1] != 1:  # the kernel wants the channels last
        x = site.ordered(x, (0, *range(2, rank), 1))
    wide = slope.array.reshape(-1, *[1] * (rank - 2))
    slopes = np.broadcast_to(wide, (x.shape[1] if rank > 1 else 1, *wide.shape[1:]))
    found = constant(site, slopes, x.order, "float32")
    return site.emit("PRELU", [x.tensor, found.tensor], x.shape, x.order)


def write_elu(site: Site) -> Value:
    """Write the exponential linear unit (Clevert et al. 2016)."""
    alpha, scale, steepness = (float(site.arguments.get(name, 1)) for name in ("alpha", "scale", "input_scale"))
    if alpha == scale == steepness == 1:
        return unary(site, "ELU", site.value("self"))
    return _exponential(site, alpha, scale, steepness)


def write_selu(site: Site) -> Value:
    """Write the self-normalising unit: one with constants of its own (Klambauer et al. 2017)."""
    return _exponential(site, 1.6732632423543772, 1.0507009873554805, 1.0)


def write_celu(site: Site) -> Value:
    """Write the unit whose slope is continuous for every alpha (Barron 2017)."""
    alpha = float(site.arguments.get("alpha", 1))
    return _exponential(site, alpha, 1.0, 1 / alpha)


def _exponential(site: Site, alpha: float, scale: float, steepness: float) -> Value:
    """Add scale * (max(x, 0) + alpha * (exp(steepness * min(x, 0)) - 1))."""
    x = site.value("self")
    below = scaled(site, "MUL", scaled(site, "MINIMUM", x, 0.0), steepness)
    below = scaled(site, "MUL", unary(site, "ELU", below), alpha * scale)
    above = scaled(site, "MUL", unary(site, "RELU", x), scale)
    return combine(site, "ADD", above, below, shape=x.shape)


def write_softplus(site: Site) -> Value:
    """Write log(1 + exp(beta * x)) / beta; what is nearly x above the threshold is computed there as well."""
    beta, threshold = (float(site.arguments.get(name, usual)) for name, usual in (("beta", 1), ("threshold", 20)))
    if threshold < _NEARLY:
        raise site.refused(f"a threshold of {threshold:g}, below which it is not nearly x")
    return _softplus(site, site.value("self"), beta)


def _softplus(site: Site, x: Value, beta: float = 1.0) -> Value:
    """Add max(x, 0) + log(1 + exp(-|beta * x|)) / beta, which overflows nowhere."""
    near = unary(site, "EXP", scaled(site, "MUL", unary(site, "ABS", x), -beta))
    rest = scaled(site, "MUL", unary(site, "LOG", scaled(site, "ADD", near, 1.0)), 1 / beta)
    return combine(site, "ADD", unary(site, "RELU", x), rest, shape=x.shape)


def write_log_sigmoid(site: Site) -> Value:
    """Write log(sigmoid(x)), which is -softplus(-x)."""
    return unary(site, "NEG", _softplus(site, unary(site, "NEG", site.value("self"))))


def write_mish(site: Site) -> Value:
    """Write x * tanh(softplus(x)) (Misra 2019, arXiv:1908.08681)."""
    x = site.value("self")
    return combine(site, "MUL", x, unary(site, "TANH", _softplus(site, x)), shape=x.shape)


def write_glu(site: Site) -> Value:
    """Write one half of an axis times the sigmoid of the other (Dauphin et al. 2017)."""
    x = site.value("self")
    axis = int(site.arguments.get("dim", -1)) % len(x.shape)
    half = x.shape[axis] // 2
    one, other = (part(site, x, axis, begin, begin + half, 1) for begin in (0, half))
    return combine(site, "MUL", one, unary(site, "LOGISTIC", other), shape=one.shape)
