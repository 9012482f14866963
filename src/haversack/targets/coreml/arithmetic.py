"""Arithmetic element by element, and ops that are written as a few of it."""

from __future__ import annotations

import numpy as np

from haversack.targets.coreml.sheet import Value
from haversack.targets.coreml.site import Site
from haversack.tools.graph.program import Constant

BINARY = {
    "add": "add",
    "sub": "sub",
    "mul": "mul",
    "div": "real_div",
    "maximum": "maximum",
    "minimum": "minimum",
}
COMPARE = {
    "eq": "equal",
    "ne": "not_equal",
    "gt": "greater",
    "ge": "greater_equal",
    "lt": "less",
    "le": "less_equal",
}
LOGICAL = {
    "__and": "logical_and",
    "bitwise_and": "logical_and",
    "logical_and": "logical_and",
    "__or": "logical_or",
    "bitwise_or": "logical_or",
    "logical_or": "logical_or",
}
UNARY = {
    "sigmoid": "sigmoid",
    "tanh": "tanh",
    "relu": "relu",
    "relu6": "relu6",
    "silu": "silu",
    "abs": "abs",
    "exp": "exp",
    "sqrt": "sqrt",
    "square": "square",
    "sin": "sin",
    "cos": "cos",
    "erf": "erf",
    "floor": "floor",
    "ceil": "ceil",
    "round": "round",
}


def write_binary(site: Site) -> Value:
    """Write an op of two tensors, or of a tensor and a number."""
    if site.arguments.get("alpha", 1) != 1:
        raise site.refused("a factor alpha")
    if site.arguments.get("rounding_mode") is not None:
        raise site.refused("division that rounds")
    kind = site.dtype
    if kind == "bool" or (site.node.op == "div" and kind == "int32"):
        raise site.refused(f"arithmetic of {site.node.output.dtype}")
    one, other = (site.read(site.arguments[name], kind) for name in ("self", "other"))
    return site.emit(BINARY[site.node.op], site.shape, kind, x=one, y=other)


def write_reversed(site: Site) -> Value:
    """Write ``rsub``: the second less the first."""
    if site.arguments.get("alpha", 1) != 1:
        raise site.refused("a factor alpha")
    one, other = (site.read(site.arguments[name], site.dtype) for name in ("self", "other"))
    return site.emit("sub", site.shape, site.dtype, x=other, y=one)


def write_compare(site: Site) -> Value:
    """Write a comparison; truths are compared as whole numbers."""
    found = [site.arguments[name] for name in ("self", "other")]
    kinds = [site.read(one).dtype for one in found if not isinstance(one, bool | int | float)]
    fraction = any(isinstance(one, float) for one in found)
    kind = site.floats if fraction or site.floats in kinds else "int32"
    one, other = (site.read(each, kind) for each in found)
    return site.emit(COMPARE[site.node.op], site.shape, "bool", x=one, y=other)


def write_logical(site: Site) -> Value:
    """Write and/or of truths."""
    if site.dtype != "bool":
        raise site.refused(f"and/or of {site.node.output.dtype}")
    one, other = (site.read(site.arguments[name], "bool") for name in ("self", "other"))
    return site.emit(LOGICAL[site.node.op], site.shape, "bool", x=one, y=other)


def write_not(site: Site) -> Value:
    """Write the contrary of truths."""
    return site.emit("logical_not", site.shape, "bool", x=site.read(site.arguments["self"], "bool"))


def write_unary(site: Site) -> Value:
    """Write an op of one tensor."""
    x = site.value("self", "input")
    return site.emit(UNARY[site.node.op], site.shape, x.dtype, x=x)


def write_negative(site: Site) -> Value:
    """Write -x, as a product."""
    x = site.value("self")
    return site.emit("mul", site.shape, x.dtype, x=x, y=site.number(-1, x.dtype))


def write_epsilon(site: Site) -> Value:
    """Write an op to which the language would add a little: nothing is added."""
    op = {"log": "log", "rsqrt": "rsqrt", "reciprocal": "inverse"}[site.node.op]
    return site.emit(op, site.shape, x=site.value("self"), epsilon=site.number(0.0))


def write_clamp(site: Site) -> Value:
    """Write a clamp with constant limits (``clamp``, ``clamp_min``, ``clamp_max``, ``hardtanh``)."""
    arguments = site.arguments
    low, high = (arguments.get(f"{end}_val", arguments.get(end)) for end in ("min", "max"))
    if not all(isinstance(end, int | float | None) for end in (low, high)):
        raise site.refused("limits that are tensors")
    x = site.value("self")
    if (low, high) == (0, 6) and x.dtype == site.floats:
        return site.emit("relu6", x.shape, x=x)
    for op, end in (("maximum", low), ("minimum", high)):
        if end is not None and np.isfinite(end):
            x = site.emit(op, x.shape, x.dtype, x=x, y=site.number(end, x.dtype))
    return x


def write_hardsigmoid(site: Site) -> Value:
    """Write min(max(x / 6 + 1/2, 0), 1)."""
    return site.emit("sigmoid_hard", site.shape, x=site.value("self"), alpha=site.number(1 / 6), beta=site.number(0.5))


def write_hardswish(site: Site) -> Value:
    """Write x * relu6(x + 3) / 6."""
    x = site.value("self")
    steep = site.emit("sigmoid_hard", site.shape, x=x, alpha=site.number(1 / 6), beta=site.number(0.5))
    return site.emit("mul", site.shape, x=x, y=steep)


def write_gelu(site: Site) -> Value:
    """Write the Gaussian error linear unit, exact or by tanh."""
    by_tanh = site.arguments.get("approximate", "none") == "tanh"
    return site.emit("gelu", site.shape, x=site.value("self"), mode="TANH_APPROXIMATION" if by_tanh else "EXACT")


def write_leaky_relu(site: Site) -> Value:
    """Write the leaky rectifier."""
    slope = site.number(float(site.arguments["negative_slope"]))
    return site.emit("leaky_relu", site.shape, x=site.value("self"), alpha=slope)


def write_elu(site: Site) -> Value:
    """Write the exponential linear unit; its constants are 1."""
    if any(site.arguments.get(name, 1) != 1 for name in ("scale", "input_scale")):
        raise site.refused("constants other than 1")
    return site.emit("elu", site.shape, x=site.value("self"), alpha=site.number(float(site.arguments.get("alpha", 1))))


def write_pow(site: Site) -> Value:
    """Write a power with a constant exponent."""
    exponent, x = site.arguments["exponent"], site.value("self")
    if exponent == 2:
        return site.emit("square", site.shape, x=x)
    if not isinstance(exponent, int | float):
        raise site.refused("an exponent that is a tensor")
    return site.emit("pow", site.shape, x=x, y=site.number(float(exponent)))


def write_where(site: Site) -> Value:
    """Write a choice element by element."""
    return _select(site, "condition", site.arguments["self"], site.arguments["other"])


def write_masked_fill(site: Site) -> Value:
    """Write a number where a mask holds."""
    return _select(site, "mask", site.arguments["value"], site.arguments["self"])


def _select(site: Site, mask: str, one: object, other: object) -> Value:
    """Write a choice; all three are given one shape, which the language wants."""
    shape = site.shape
    parts = (site.read(site.arguments[mask], "bool"), *(site.read(side, site.dtype) for side in (one, other)))
    names = ("cond", "a", "b")
    return site.emit(
        "select", shape, site.dtype, **{n: spread(site, v, shape) for n, v in zip(names, parts, strict=True)}
    )


def spread(site: Site, value: Value, shape: tuple[int, ...]) -> Value:
    """Return a value repeated along axes of length 1, and new leading ones, to a shape."""
    if value.shape == shape:
        return value
    whole = site.reshape(value, (1,) * (len(shape) - len(value.shape)) + value.shape)
    reps = [size // have for size, have in zip(shape, whole.shape, strict=True)]
    if all(rep == 1 for rep in reps):
        return whole
    if whole.dtype != "bool":
        return site.emit("tile", shape, whole.dtype, x=whole, reps=reps)
    numbers = site.emit("tile", shape, "int32", x=site.sheet.cast(whole, "int32"), reps=reps)
    return site.sheet.cast(numbers, "bool")


def write_cast(site: Site) -> Value:
    """Write a change of dtype; nothing where it stays."""
    return site.sheet.cast(site.value("self"), site.dtype)


def write_batch_norm(site: Site) -> Value:
    """Write a batch norm with fixed statistics (Ioffe and Szegedy 2015)."""
    found = [site.arguments.get(name) for name in ("running_mean", "running_var", "weight", "bias")]
    if site.arguments.get("training") or not all(isinstance(one, Constant) for one in found[:2]):
        raise site.refused("statistics of the batch")
    names = ("mean", "variance", "gamma", "beta")
    parts = {name: site.read(one) for name, one in zip(names, found, strict=True) if one is not None}
    x = site.value("input")
    return site.emit("batch_norm", site.shape, x=x, epsilon=site.number(float(site.arguments["eps"])), **parts)
