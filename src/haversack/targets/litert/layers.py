"""Layers: convolutions, linear layers and tables, with weights as their encodings hold them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from haversack.base.encodings import Affine, BlockAffine, Float
from haversack.base.errors import ConversionError
from haversack.targets.litert import order as orders
from haversack.targets.litert import padding
from haversack.targets.litert.flat import Quantization
from haversack.targets.litert.naming import CODES, HALF, NONE, SCALE, WHOLE
from haversack.targets.litert.order import NHWC, NWC
from haversack.targets.litert.padding import Sides, spread
from haversack.targets.litert.sheet import Value, quantization
from haversack.targets.litert.site import Site
from haversack.tools.graph.program import Constant
from haversack.tools.numerics import affine, blocks
from haversack.tools.numerics.granularity import along

Arrange = Callable[[np.ndarray], np.ndarray]


def write_conv2d(site: Site) -> Value:
    """Write a convolution over height and width."""
    x = site.ordered(site.value("input"), NHWC)
    return _convolve(site, x, site.shape)


def write_conv1d(site: Site) -> Value:
    """Write a convolution over one axis, as one over an image of height 1."""
    x = site.ordered(site.value("input"), NWC)
    n, channels, length = x.shape
    image = site.reshape(x, (n, channels, 1, length), NHWC)
    n, channels, length = site.shape
    return site.reshape(_convolve(site, image, (n, channels, 1, length)), site.shape, NWC)


def _convolve(site: Site, x: Value, shape: Sequence[int]) -> Value:
    """Write a convolution of an image that lies with its channels last."""
    arguments = site.arguments
    weight = arguments["weight"]
    if not isinstance(weight, Constant):
        raise site.refused("its weight is computed")
    line = weight.array.ndim == 3
    kernel = [1, *weight.array.shape[2:]] if line else list(weight.array.shape[2:])
    stride, dilation = (_both(arguments[name], line, 1) for name in ("stride", "dilation"))
    own = padding.own(arguments, kernel[1:] if line else kernel)
    sides: Sides = ((0, 0), *own) if line else own
    if "pad" in arguments:
        sides = padding.joined(sides, arguments["pad"])
    groups, channels = int(arguments["groups"]), x.shape[1]
    bits = _bits(site)
    plain = kernel == [1, 1] and stride == [1, 1] and groups == 1 and not any(map(sum, sides))
    if bits == 4 and plain:
        return _fully_connected(site, x, lambda w: w.reshape(w.shape[:2]), shape, NHWC)
    if bits == 4:
        raise site.refused("only plain 1x1 convolutions have kernels for 4 bits")
    scheme = padding.scheme(x.shape[2:], kernel, stride, dilation, sides)
    if not scheme:
        x = padded(site, x, ((0, 0), (0, 0), *sides))
        scheme = "VALID"
    deep = groups == channels and groups > 1
    inputs = [x.tensor, _weight(site, _deep if deep else _channels_last, 3 if deep else 0)]
    inputs += _bias(site) or [_no_bias(site, shape[1])]
    settings: dict[str, Any] = {
        "padding": site.sheet.options("Padding")[scheme],
        "strideH": stride[0],
        "strideW": stride[1],
        "dilationHFactor": dilation[0],
        "dilationWFactor": dilation[1],
        "fusedActivationFunction": site.fuse(),
    }
    if not deep:
        return site.emit("CONV_2D", inputs, shape, NHWC, "Conv2DOptions", **settings)
    settings["depthMultiplier"] = shape[1] // channels
    return site.emit("DEPTHWISE_CONV_2D", inputs, shape, NHWC, "DepthwiseConv2DOptions", **settings)


def _both(value: object, line: bool, absent: int) -> list[int]:
    return [absent, *spread(value, 1)] if line else spread(value, 2)


def padded(site: Site, x: Value, sides: Sides) -> Value:
    """Return a value with zeros (code of zero) around it; sides by the model's axes."""
    shape = [size + before + after for size, (before, after) in zip(x.shape, sides, strict=True)]
    table = np.array([sides[axis] for axis in x.order], np.int32)
    made = site.sheet.value(f"{site.key}/PAD", shape, x.order, x.dtype, x.grid)
    site.sheet.operator("PAD", [x.tensor, site.constant("sides", table)], [made.tensor], "PadOptions")
    return made


def walled(site: Site, x: Value, sides: Sides) -> Value:
    """Return a value with its dtype's lowest number (int8 codes: the lowest code) around it, which no maximum takes."""
    shape = [size + before + after for size, (before, after) in zip(x.shape, sides, strict=True)]
    table = np.array([sides[axis] for axis in x.order], np.int32)
    made = site.sheet.value(f"{site.key}/PADV2", shape, x.order, x.dtype, x.grid)
    least = np.array(np.finfo(np.float32).min if x.grid is None else np.iinfo(np.int8).min, x.dtype)
    meaning = None if x.grid is None else quantization(x.grid)
    number = site.sheet.constant(f"{site.key}/lowest", least, meaning)
    inputs = [x.tensor, site.constant("sides", table), number]
    site.sheet.operator("PADV2", inputs, [made.tensor], "PadV2Options")
    return made


def write_linear(site: Site) -> Value:
    """Write a linear layer over the last axis."""
    if not isinstance(site.arguments["weight"], Constant):
        raise site.refused("its weight is computed")
    x = site.ordered(site.value("input"))
    return _fully_connected(site, x, lambda w: w, site.shape, x.order)


def _fully_connected(site: Site, x: Value, arrange: Arrange, shape: Sequence[int], order: orders.Order) -> Value:
    return site.emit(
        "FULLY_CONNECTED",
        [x.tensor, _weight(site, arrange, 0), *_bias(site)],
        shape,
        order,
        "FullyConnectedOptions",
        fusedActivationFunction=site.fuse(),
        keepNumDims=len(shape) != 2,
        asymmetricQuantizeInputs=site.dynamic,
    )


def write_embedding(site: Site) -> Value:
    """Write a table whose rows are looked up; of stored integers only the rows that are read become float."""
    key = f"{site.key}:weight"
    encoding = site.encodings.tensors.get(key)
    found = site.arguments["weight"]
    if not isinstance(found, Constant):
        raise site.refused("its table is computed")
    indices = site.ordered(site.value("indices"))
    shape = site.shape
    if isinstance(encoding, Affine):
        codes = site.sheet.constant(f"{key}{CODES}", site.encodings.integers[key].astype(np.int8))
        rows = _rows(site, codes, indices, shape, "int8")
        scale = site.sheet.constant(f"{key}{SCALE}", along(encoding.scale, encoding.axis, 2))
        if encoding.axis is not None:
            scale = _rows(site, scale, indices, (*shape[:-1], 1), "float32").tensor
        return site.emit("MUL", [_cast(site, rows).tensor, scale], shape, None, "MulOptions")
    if encoding == Float("float16"):
        half = site.sheet.constant(f"{key}{HALF}", found.array.astype(np.float16))
        return _cast(site, _rows(site, half, indices, shape, "float16"))
    return _rows(site, site.sheet.constant(key, found.array), indices, shape, "float32")


def _rows(site: Site, table: int, indices: Value, shape: Sequence[int], dtype: str) -> Value:
    return site.emit("GATHER", [table, indices.tensor], shape, None, "GatherOptions", dtype=dtype, axis=0)


def _cast(site: Site, x: Value) -> Value:
    kinds: dict[str, Any] = {"inDataType": site.sheet.type(x.dtype), "outDataType": site.sheet.type("float32")}
    return site.emit("CAST", [x.tensor], x.shape, x.order, "CastOptions", **kinds)


def _bits(site: Site) -> int:
    encoding = site.encodings.affine(f"{site.key}:weight")
    return 0 if encoding is None else encoding.bits


def _weight(site: Site, arrange: Arrange, axis: int) -> int:
    """Return the number of a layer's weight tensor.

    Args:
        site: of the layer.
        arrange: from the model's axes to the file's.
        axis: of the output channels in the file.
    """
    key = f"{site.key}:weight"
    encoding = site.encodings.tensors.get(key)
    array = site.arguments["weight"].array
    sheet = site.sheet
    if isinstance(encoding, Affine):
        codes = arrange(site.encodings.integers[key]).astype(np.int8)
        meaning = quantization(encoding, 0 if encoding.axis is None else axis)
        dtype = "int4" if encoding.bits == 4 else "int8"
        name = f"{key}{CODES}{WHOLE if encoding.axis is None else ''}"
        number = sheet.constant(name, codes, meaning, dtype=dtype)
        if site.grid is not None or site.dynamic:
            return number
        return _unpacked(site, number, codes.shape)
    if isinstance(encoding, BlockAffine):
        half = blocks.to_float16(encoding.scale)
        return sheet.blocks(f"{key}{CODES}", site.encodings.integers[key], half, encoding.block)
    if encoding == Float("float16"):
        half = arrange(array).astype(np.float16)
        return _unpacked(site, sheet.constant(f"{key}{HALF}", half), half.shape)
    return sheet.constant(key, arrange(array))


def _unpacked(site: Site, number: int, shape: Sequence[int]) -> int:
    """Return the float32 tensor of a stored weight; XNNPACK unpacks it once, when the file is opened."""
    made = site.sheet.tensor(f"{site.key}:weight/value", shape, "float32")
    site.sheet.operator("DEQUANTIZE", [number], [made], "DequantizeOptions")
    return made


def _bias(site: Site) -> list[int]:
    bias = site.arguments.get("bias")
    if bias is None:
        return []
    if not isinstance(bias, Constant):
        raise site.refused("its bias is computed")
    key = f"{site.key}:bias"
    if site.grid is None:
        return [site.sheet.constant(key, bias.array)]
    source = site.encodings.affine(f"{site.node.inputs[0]}:out")
    weight = site.encodings.affine(f"{site.key}:weight")
    assert source is not None, "the law demands an Affine input"
    assert weight is not None, "the law demands an Affine weight"
    try:
        codes = affine.bias_codes(bias.array, source.scale, weight.scale)
    except ValueError as error:
        raise ConversionError(str(error), where=site.key, next_step="encode the model again") from error
    return [site.sheet.constant(f"{key}{CODES}", codes, _bias_meaning(source, weight))]


def _no_bias(site: Site, channels: int) -> int:
    """Return the number of zeros: LiteRT's convolutions want a bias."""
    name = f"{site.key}:bias{NONE}"
    if site.grid is None:
        return site.sheet.constant(name, np.zeros(channels, np.float32))
    source, weight = (site.encodings.affine(key) for key in (f"{site.node.inputs[0]}:out", f"{site.key}:weight"))
    assert source is not None, "the law demands an Affine input"
    assert weight is not None, "the law demands an Affine weight"
    return site.sheet.constant(name, np.zeros(channels, np.int32), _bias_meaning(source, weight))


def _bias_meaning(source: Affine, weight: Affine) -> Quantization:
    scale = affine.bias_scale(source.scale, weight.scale).reshape(-1)
    return Quantization(scale, np.zeros(scale.shape, np.int64))


def _channels_last(weight: np.ndarray) -> np.ndarray:
    """Return [out, in, height, width] (or [out, in, length]) as [out, height, width, in]."""
    image = weight[:, :, None] if weight.ndim == 3 else weight
    return np.ascontiguousarray(image.transpose(0, 2, 3, 1))


def _deep(weight: np.ndarray) -> np.ndarray:
    """Return [channels, 1, height, width] (or without height) as [1, height, width, channels]."""
    image = weight[:, :, None] if weight.ndim == 3 else weight
    return np.ascontiguousarray(image.transpose(1, 2, 3, 0))
