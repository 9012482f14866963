"""Arithmetic element by element: one operator, or a few, on values of one order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from haversack.targets.litert import order as orders
from haversack.targets.litert.order import Order
from haversack.targets.litert.sheet import Value
from haversack.targets.litert.site import Site
from haversack.tools.graph.program import Constant

BINARY = {
    "add": "ADD",
    "sub": "SUB",
    "mul": "MUL",
    "div": "DIV",
    "maximum": "MAXIMUM",
    "minimum": "MINIMUM",
    "remainder": "FLOOR_MOD",
    "__and": "LOGICAL_AND",
    "bitwise_and": "LOGICAL_AND",
    "logical_and": "LOGICAL_AND",
    "__or": "LOGICAL_OR",
    "logical_or": "LOGICAL_OR",
    "eq": "EQUAL",
    "ne": "NOT_EQUAL",
    "gt": "GREATER",
    "ge": "GREATER_EQUAL",
    "lt": "LESS",
    "le": "LESS_EQUAL",
}
UNARY = {
    "sigmoid": "LOGISTIC",
    "tanh": "TANH",
    "relu": "RELU",
    "relu6": "RELU6",
    "neg": "NEG",
    "abs": "ABS",
    "exp": "EXP",
    "log": "LOG",
    "sign": "SIGN",
    "sqrt": "SQRT",
    "rsqrt": "RSQRT",
    "square": "SQUARE",
    "sin": "SIN",
    "cos": "COS",
    "floor": "FLOOR",
    "ceil": "CEIL",
    "round": "ROUND",
    "hardswish": "HARD_SWISH",
    "logical_not": "LOGICAL_NOT",
}
ACTIVATIONS = {
    (0.0, float("inf")): "RELU",
    (0.0, 6.0): "RELU6",
    (-1.0, 1.0): "RELU_N1_TO_1",
}
"""Real interval of a clamp -> the activation that limits to it."""
_FUSING = {"ADD": "AddOptions", "SUB": "SubOptions", "MUL": "MulOptions", "DIV": "DivOptions"}
_LOGICAL = frozenset({"LOGICAL_AND", "LOGICAL_OR"})
_OPTIONS = {
    "NEG": "NegOptions",
    "ABS": "AbsOptions",
    "EXP": "ExpOptions",
    "COS": "CosOptions",
    "SQUARE": "SquareOptions",
    "HARD_SWISH": "HardSwishOptions",
    "LOGICAL_NOT": "LogicalNotOptions",
    "LOGICAL_AND": "LogicalAndOptions",
    "LOGICAL_OR": "LogicalOrOptions",
    "EQUAL": "EqualOptions",
    "NOT_EQUAL": "NotEqualOptions",
    "GREATER": "GreaterOptions",
    "GREATER_EQUAL": "GreaterEqualOptions",
    "LESS": "LessOptions",
    "LESS_EQUAL": "LessEqualOptions",
    "FLOOR_MOD": "FloorModOptions",
    "MAXIMUM": "MaximumMinimumOptions",
    "MINIMUM": "MaximumMinimumOptions",
}


def write_binary(site: Site) -> Value:
    """Write an op of two tensors, or of a tensor and a number."""
    op = BINARY[site.node.op]
    if site.arguments.get("alpha", 1) != 1:
        raise site.refused("a factor alpha")
    if site.arguments.get("rounding_mode") is not None:
        raise site.refused("division that rounds")
    names = ("self", "other") if "self" in site.arguments else ("input", "other")
    found = [site.arguments[name] for name in names]
    dtype = site.node.output.dtype
    if op in _LOGICAL and dtype != "bool":
        raise site.refused(f"and/or of {dtype}")
    values = together(site, found, _dtype(site, found))
    kind = "bool" if dtype == "bool" else _kept(values[0])
    return combine(site, op, *values, shape=site.shape, dtype=kind)


def combine(site: Site, op: str, one: Value, other: Value, *, shape: Sequence[int], dtype: str = "float32") -> Value:
    """Add an operator of two values in one order, that together have this shape."""
    options = _FUSING.get(op, _OPTIONS.get(op, ""))
    settings = {"fusedActivationFunction": site.fuse()} if op in _FUSING else {}
    order = one.order if len(one.shape) == len(shape) else other.order
    return site.emit(op, [one.tensor, other.tensor], shape, order, options, dtype=dtype, **settings)


def write_reversed(site: Site) -> Value:
    """Write ``rsub``: the second less the first."""
    one, other = together(site, [site.arguments["self"], site.arguments["other"]], site.node.output.dtype)
    return combine(site, "SUB", other, one, shape=site.shape)


def write_reciprocal(site: Site) -> Value:
    """Write 1 / x."""
    one, x = together(site, [1.0, site.arguments["self"]], site.node.output.dtype)
    return combine(site, "DIV", one, x, shape=site.shape)


def write_unary(site: Site) -> Value:
    """Write an op of one tensor."""
    x = next(site.value(name) for name in ("self", "input") if name in site.arguments)
    return unary(site, UNARY[site.node.op], x)


def unary(site: Site, op: str, x: Value, options: str = "", **settings: float) -> Value:
    """Add an operator of one value."""
    return site.emit(op, [x.tensor], x.shape, x.order, options or _OPTIONS.get(op, ""), dtype=_kept(x), **settings)


def scaled(site: Site, op: str, x: Value, number: float) -> Value:
    """Add an operator of a value and a float32 number."""
    constant = site.constant("number", np.array([number], np.float32))
    made = site.sheet.value(f"{site.key}/{op}", x.shape, x.order, x.dtype)
    site.sheet.operator(op, [x.tensor, constant], [made.tensor], _FUSING.get(op, _OPTIONS.get(op, "")))
    return made


def write_clamp(site: Site) -> Value:
    """Write a clamp with constant limits (``clamp``, ``clamp_min``, ``clamp_max``, ``hardtanh``)."""
    arguments = site.arguments
    low = arguments.get("min_val", arguments.get("min"))
    high = arguments.get("max_val", arguments.get("max"))
    if not all(isinstance(end, int | float | None) for end in (low, high)):
        raise site.refused("limits that are tensors")
    ends = (float("-inf") if low is None else low, float("inf") if high is None else high)
    return limited(site, site.value("self"), *ends)


def limited(site: Site, x: Value, low: float, high: float) -> Value:
    """Return a float value limited to an interval."""
    activation = ACTIVATIONS.get((float(low), float(high)))
    if activation is not None and x.dtype == "float32":
        return unary(site, activation, x)
    for op, end in (("MAXIMUM", low), ("MINIMUM", high)):
        if np.isfinite(end):
            constant = site.constant(op.lower(), np.array([end], x.dtype))
            x = site.emit(op, [x.tensor, constant], x.shape, x.order, _OPTIONS[op], dtype=_kept(x))
    return x


def limited_codes(site: Site, x: Value, low: int, high: int, ends: tuple[int, int]) -> Value:
    """Return int8 codes limited to [low, high]; ``ends`` are those of the grid, which limit by themselves."""
    for op, end, own in (("MAXIMUM", low, ends[0]), ("MINIMUM", high, ends[1])):
        if end != own:
            meaning = site.sheet.graph.tensors[x.tensor].quantization
            constant = site.sheet.constant(f"{site.key}/{op.lower()}", np.array([end], np.int8), meaning)
            x = site.emit(op, [x.tensor, constant], x.shape, x.order, _OPTIONS[op])
    return x


def write_pow(site: Site) -> Value:
    """Write a power with a constant exponent."""
    exponent = site.arguments["exponent"]
    x = site.value("self")
    if exponent == 2:
        return unary(site, "SQUARE", x)
    if exponent in (0.5, -0.5):
        return unary(site, "SQRT" if exponent > 0 else "RSQRT", x)
    if not isinstance(exponent, int | float):
        raise site.refused("an exponent that is a tensor")
    constant = site.constant("exponent", np.array([exponent], np.float32))
    return site.emit("POW", [x.tensor, constant], x.shape, x.order, "PowOptions")


def write_where(site: Site) -> Value:
    """Write a choice element by element."""
    condition, *sides = (site.arguments[name] for name in ("condition", "self", "other"))
    return _select(site, condition, *sides)


def write_lerp(site: Site) -> Value:
    """Write what lies between two tensors, by a number: start + weight * (end - start)."""
    start, end, weight = (site.arguments[name] for name in ("self", "end", "weight"))
    if not isinstance(weight, int | float):
        raise site.refused("a weight that is a tensor")
    one, other = together(site, [start, end], "float32")
    way = scaled(site, "MUL", combine(site, "SUB", other, one, shape=site.shape), float(weight))
    return combine(site, "ADD", one, way, shape=site.shape)


def write_log1p(site: Site) -> Value:
    """Write log(1 + x)."""
    return unary(site, "LOG", scaled(site, "ADD", site.value("self"), 1.0))


def write_threshold(site: Site) -> Value:
    """Write a number where a tensor is not above a limit."""
    x = site.value("self")
    limit, number = (site.constant(name, np.array([site.arguments[name]], x.dtype)) for name in ("threshold", "value"))
    above = site.emit("GREATER", [x.tensor, limit], x.shape, x.order, _OPTIONS["GREATER"], dtype="bool")
    return site.emit("SELECT_V2", [above.tensor, x.tensor, number], x.shape, x.order, "SelectV2Options")


def write_masked_fill(site: Site) -> Value:
    """Write a number where a mask holds."""
    return _select(site, site.arguments["mask"], site.arguments["value"], site.arguments["self"])


def _select(site: Site, condition: Any, one: Any, other: Any) -> Value:  # noqa: ANN401 - arguments
    dtype = site.node.output.dtype
    values = together(site, [condition, one, other], dtype, kept=1)
    inputs = [value.tensor for value in values]
    order = next(value.order for value in values if len(value.order) == max(1, len(site.shape)))
    return site.emit("SELECT_V2", inputs, site.shape, order, "SelectV2Options", dtype=dtype)


def write_cast(site: Site) -> Value:
    """Write a change of dtype; nothing where it stays."""
    return cast(site, site.value("self"), site.node.output.dtype)


def cast(site: Site, x: Value, dtype: str) -> Value:
    """Return a value in another dtype."""
    if x.dtype == dtype or x.grid is not None:
        return x
    kinds = {"inDataType": site.sheet.type(x.dtype), "outDataType": site.sheet.type(dtype)}
    return site.emit("CAST", [x.tensor], x.shape, x.order, "CastOptions", dtype=dtype, **kinds)


def together(site: Site, arguments: list[Any], dtype: str, kept: int = 0) -> list[Value]:
    """Return arguments as values of one order that broadcast in the file as they do in the model.

    Args:
        site: of the op.
        arguments: tensors and numbers; a number takes the dtype.
        dtype: that the values are cast to, but for the first ``kept``.
        kept: how many keep their dtype.
    """
    rank = max(1, len(site.shape))
    flowing = [None if _known(found) else site.read(found) for found in arguments]
    order = next((v.order for v in flowing if v is not None and len(v.shape) == rank), orders.plain(rank))
    found = []
    for index, (argument, value) in enumerate(zip(arguments, flowing, strict=True)):
        wanted = "" if index < kept else dtype
        if value is None:
            array = argument.array if isinstance(argument, Constant) else np.array(argument)
            found.append(constant(site, array, order, wanted))
        else:
            ready = _ranked(site, value, order)
            found.append(cast(site, ready, wanted) if wanted else ready)
    if all(len(value.order) < rank for value in found):  # a constant alone has all axes: leading ones, which went
        place = next(index for index, value in enumerate(flowing) if value is not None)
        value = found[place]
        found[place] = site.reshape(value, (1,) * (rank - len(value.shape)) + value.shape)
    return found


def _known(argument: Any) -> bool:  # noqa: ANN401 - any argument
    return isinstance(argument, int | float | Constant)


def constant(site: Site, array: np.ndarray, order: Order, dtype: str) -> Value:
    """Return numbers, any shape that broadcasts to the order's rank, in an order; leading axes of length 1 go."""
    array = array.astype(dtype) if dtype else array
    full = array.reshape((1,) * (len(order) - array.ndim) + array.shape)
    filed = np.ascontiguousarray(full.transpose(order))
    while filed.ndim > 1 and filed.shape[0] == 1:
        filed = filed[0]
    number = site.constant("constant", filed)
    short = order if filed.ndim == len(order) else orders.plain(filed.ndim)
    shape = full.shape if filed.ndim == len(order) else filed.shape
    return Value(number, shape, short, site.sheet.dtype(number))


def _ranked(site: Site, value: Value, order: Order) -> Value:
    """Return a value with leading axes of length 1, in an order."""
    if value.order == order:
        return value
    missing = len(order) - len(value.shape)
    if missing:
        if value.order == orders.plain(len(value.shape)) and order == orders.plain(len(order)):
            return value
        moved = tuple(axis + missing for axis in value.order)
        value = site.reshape(value, (1,) * missing + value.shape, (*range(missing), *moved))
    return site.ordered(value, order)


def _dtype(site: Site, found: list[Any]) -> str:
    """Return the dtype in which an op computes: the output's, or for comparisons the widest of its inputs'."""
    if site.node.output.dtype != "bool":
        return site.node.output.dtype
    if any(isinstance(one, float) and not one.is_integer() for one in found):
        return "float32"
    kinds = [site.read(one).dtype for one in found if not isinstance(one, int | float)]
    return next((kind for kind in ("float32", "int64", "int32") if kind in kinds), kinds[0])


def _kept(x: Value) -> str:
    """Return the dtype that ``Site.emit`` is to be told for something like this value."""
    return "float32" if x.grid is not None else x.dtype
