"""Which op is written by which function: all that an ncnn file can hold. What is not here is refused."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from haversack.targets.ncnn.layers import write_layer
from haversack.targets.ncnn.sheet import Value, plain, sizes
from haversack.targets.ncnn.site import Site
from haversack.targets.ncnn.text import Setting
from haversack.tools.graph.roles import clamp_bounds

Writer = Callable[[Site], Value]
_BINARY = {"add": 0, "sub": 1, "mul": 2, "div": 3, "rsub": 7}
_UNARY = {"abs": 0, "neg": 1, "sqrt": 5, "rsqrt": 6, "exp": 7, "log": 8, "reciprocal": 15}
_PLAIN = {"sigmoid": "Sigmoid", "tanh": "TanH", "silu": "Swish", "relu": "ReLU"}
_ORDERS = ("whc", "hwc", "wch", "cwh", "hcw", "chw")
"""Orders of width, height and channels, by their number in Permute."""
_MEAN = 3


def write_same(site: Site) -> Value:
    """Pass a value on."""
    return site.input


def write_unary(site: Site) -> Value:
    """Write a function of one number."""
    return site.emit("UnaryOp", [site.input], {0: _UNARY[site.node.op]})


def write_plain(site: Site) -> Value:
    """Write an activation without numbers."""
    return site.emit(_PLAIN[site.node.op], [site.input])


def write_activation(site: Site) -> Value:
    """Write an activation with numbers."""
    op = site.node.op
    if op in ("hardswish", "hardsigmoid"):
        return site.emit("HardSwish" if op == "hardswish" else "HardSigmoid", [site.input], {0: 1 / 6, 1: 0.5})
    if op == "leaky_relu":
        return site.emit("ReLU", [site.input], {0: float(site.attribute("negative_slope", 0.01))})
    if op == "elu":
        if (site.attribute("scale", 1), site.attribute("input_scale", 1)) != (1, 1):
            raise site.refused("it has scales")
        return site.emit("ELU", [site.input], {0: float(site.attribute("alpha", 1.0))})
    return site.emit("GELU", [site.input], {0: int(site.attribute("approximate") == "tanh")})


def write_clamp(site: Site) -> Value:
    """Write a clamp with constant limits."""
    bounds = clamp_bounds(site.node)
    if bounds is None:
        raise site.refused("its limits are no numbers")
    return clip(site, site.input, bounds)


def clip(site: Site, value: Value, bounds: tuple[float, float], part: str = "") -> Value:
    """Limit a value."""
    if bounds == (0.0, math.inf):
        return site.emit("ReLU", [value], part=part, shape=value.shape)
    largest = float(np.finfo(np.float32).max)
    low, high = (min(max(end, -largest), largest) for end in bounds)
    return site.emit("Clip", [value], {0: low, 1: high}, part=part, shape=value.shape)


def write_binary(site: Site) -> Value:
    """Write an add, a difference, a product or a quotient, of tensors of equal rank or with a number or parameter."""
    if site.attribute("alpha", 1) != 1:
        raise site.refused("alpha is not 1")
    kind: dict[int, Setting] = {0: _BINARY[site.node.op]}
    if len(site.inputs) == 2:
        if len({len(value.shape) for value in site.inputs}) > 1:
            raise site.refused("tensors of different rank")
        return site.emit("BinaryOp", list(site.inputs), kind)
    other = site.attribute("other")
    if isinstance(other, int | float):
        return site.emit("BinaryOp", [site.input], {**kind, 1: 1, 2: float(other)})
    if len(site.node.parameters) != 1 or site.node.op not in ("add", "mul"):
        raise site.refused("a constant that ncnn cannot take from this side")
    values = site.weights[site.node.parameters[0]]
    shape = values.shape[1:] if values.ndim > len(site.shape) else values.shape
    if values.size != math.prod(shape):
        raise site.refused("a constant with a row for each sample")
    shape = (1,) * (len(site.shape) - len(shape)) + tuple(shape)
    return site.emit(
        "BinaryOp", [site.input, site.sheet.constant(f"{site.node.key}:out/constant", values, shape)], kind
    )


def write_reshape(site: Site) -> Value:
    """Write another shape of the same data."""
    return reshape(site, site.input)


def reshape(site: Site, value: Value) -> Value:
    """Give a value the shape of the op's output."""
    return site.emit("Reshape", [value], sizes(site.shape))


def write_permute(site: Site) -> Value:
    """Write an exchange of axes behind the batch."""
    rank = len(site.shape) + 1
    if site.node.op == "permute":
        axes = [int(axis) % rank for axis in site.attribute("dims")]
    else:
        axes = list(range(rank))
        first, second = (int(site.attribute(name, place)) % rank for place, name in enumerate(("dim0", "dim1")))
        axes[first], axes[second] = axes[second], axes[first]
    if axes[0] != 0:
        raise site.refused("it moves the batch")
    names = "chw"[-(rank - 1) :]
    wanted = "".join(names[axis - 1] for axis in reversed(axes[1:]))
    order = next(number for number, one in enumerate(_ORDERS) if one.startswith(wanted))
    return site.emit("Permute", [site.input], {0: order})


def write_concat(site: Site) -> Value:
    """Write tensors one behind the other."""
    axis = int(site.attribute("dim", 0)) % (len(site.shape) + 1)
    if axis == 0:
        raise site.refused("it joins batches")
    return site.emit("Concat", list(site.inputs), {0: axis - 1})


def write_slice(site: Site) -> Value:
    """Write a part of one axis; the whole axis passes on."""
    axis = int(site.attribute("dim", 0)) % (len(site.shape) + 1)
    if axis == 0 or site.shape == site.input.shape:
        if (site.attribute("start") or 0) == 0 and site.shape == site.input.shape:
            return site.input
        raise site.refused("it cuts the batch")
    length = site.input.shape[axis - 1]
    if site.attribute("step", 1) != 1:
        raise site.refused("it leaves places out")
    start = min(max(_from_end(site.attribute("start"), length, 0), 0), length)
    return site.emit("Crop", [site.input], {9: (start,), 10: (start + site.shape[axis - 1],), 11: (axis - 1,)})


def _from_end(place: int | None, length: int, default: int) -> int:
    place = default if place is None else place
    return place + length if place < 0 else place


def write_pad(site: Site) -> Value:
    """Write a padding with one number."""
    if site.attribute("mode", "constant") != "constant":
        raise site.refused(f"mode {site.attribute('mode')}")
    pads = [int(size) for size in site.attribute("pad")]
    rank = len(site.shape)
    if any(size < 0 for size in pads) or len(pads) > 2 * rank or rank < 2:
        raise site.refused(f"pads {pads} of {rank} axes")
    pads += [0] * (6 - len(pads))
    left, right, top, bottom, front, behind = pads
    value = float(site.attribute("value") or 0.0)
    settings: dict[int, Setting] = {0: top, 1: bottom, 2: left, 3: right, 4: 0, 5: value, 7: front, 8: behind}
    return site.emit("Padding", [site.input], settings)


def write_pool(site: Site) -> Value:
    """Write a pool with a kernel."""
    (high, width), (top, left) = site.pair("kernel_size"), site.pair("padding")
    down, across = site.pair("stride") if site.attribute("stride") else (high, width)
    if site.attribute("ceil_mode") or site.pair("dilation", 1) != (1, 1) or site.attribute("divisor_override"):
        raise site.refused("ceil_mode, dilation and divisor_override have no form")
    settings: dict[int, Setting] = {1: width, 11: high, 2: across, 12: down, 3: left, 14: left, 13: top, 15: top, 5: 1}
    settings[0] = int(site.node.op == "avg_pool2d")
    settings[6] = 0 if site.attribute("count_include_pad") is False else 1
    return site.emit("Pooling", [site.input], settings)


def write_mean(site: Site) -> Value:
    """Write a mean over axes behind the batch, or a pool to a fixed size."""
    if len(site.input.shape) == 3 and site.input.size == math.prod(site.shape) * math.prod(site.input.shape[1:]):
        return over_image(site, site.input)
    if site.node.op == "adaptive_avg_pool2d":
        high, width = site.pair("output_size")
        return site.emit("Pooling", [site.input], {0: 1, 7: 1, 8: width, 18: high})
    if site.node.op != "mean" or not isinstance(site.attribute("dim"), list):
        raise site.refused("a mean of all values")
    rank = len(site.input.shape) + 1
    axes = sorted(int(axis) % rank - 1 for axis in site.attribute("dim"))
    if axes[0] < 0:
        raise site.refused("it takes the mean over the batch")
    keep = int(bool(site.attribute("keepdim")))
    return site.emit("Reduction", [site.input], {0: _MEAN, 1: 0, 3: tuple(axes), 4: keep, 5: 1})


def over_image(site: Site, value: Value) -> Value:
    """Take the mean over height and width."""
    flat = (value.shape[0],)
    if site.shape == flat:
        return site.emit("Pooling", [value], {0: 1, 4: 1})
    return reshape(site, site.emit("Pooling", [value], {0: 1, 4: 1}, part="mean", shape=flat))


def write_softmax(site: Site) -> Value:
    """Write a softmax over one axis behind the batch."""
    axis = int(site.attribute("dim")) % (len(site.shape) + 1)
    if axis == 0:
        raise site.refused("over the batch")
    return site.emit("Softmax", [site.input], {0: axis - 1, 1: 1})


def write_batch_norm(site: Site) -> Value:
    """Write a normalisation with fixed statistics."""
    names = site.node.parameters
    if site.attribute("training") or len(names) != 4:
        raise site.refused("without fixed mean, variance, weight and bias")
    slope, bias, mean, variance = (site.weights[name] for name in names)
    arrays = [plain("slope", slope), plain("mean", mean), plain("variance", variance), plain("bias", bias)]
    return site.emit("BatchNorm", [site.input], {0: slope.size, 1: float(site.attribute("eps"))}, arrays)


def write_layer_norm(site: Site) -> Value:
    """Write a normalisation over the last axis."""
    size, names = site.attribute("normalized_shape"), site.node.parameters
    if size != [site.shape[-1]] or len(names) != 2:
        raise site.refused("over several axes, or without weight and bias")
    arrays = [plain(role, site.weights[name]) for role, name in zip(("gamma", "beta"), names, strict=True)]
    return site.emit("LayerNorm", [site.input], {0: size[0], 1: float(site.attribute("eps")), 2: 1}, arrays)


def _all(names: str, writer: Writer) -> dict[str, Writer]:
    return dict.fromkeys(names.split(), writer)


WRITERS: Mapping[str, Writer] = {
    **_all(" ".join(_BINARY), write_binary),
    **_all(" ".join(_UNARY), write_unary),
    **_all(" ".join(_PLAIN), write_plain),
    **_all("hardswish hardsigmoid leaky_relu elu gelu", write_activation),
    **_all("relu6 hardtanh clamp", write_clamp),
    **_all("dropout clone contiguous alias detach lift_fresh_copy", write_same),
    **_all("view reshape flatten unflatten _unsafe_view squeeze unsqueeze", write_reshape),
    **_all("permute transpose", write_permute),
    **_all("pad constant_pad_nd", write_pad),
    **_all("max_pool2d avg_pool2d", write_pool),
    **_all("mean adaptive_avg_pool2d", write_mean),
    **_all("conv1d conv2d linear", write_layer),
    "cat": write_concat,
    "slice": write_slice,
    "softmax": write_softmax,
    "batch_norm": write_batch_norm,
    "layer_norm": write_layer_norm,
}
