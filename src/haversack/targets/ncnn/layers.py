"""Convolutions and linear layers: their parameters in ncnn, in float and with stored integers or float16."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from haversack.base.encodings import Affine, Encoding
from haversack.targets.ncnn.blobs import Array, Form
from haversack.targets.ncnn.naming import FACTOR, SCALE, SCALES
from haversack.targets.ncnn.sheet import Value, plain
from haversack.targets.ncnn.site import Site
from haversack.targets.ncnn.text import Setting

_RELU, _CLIP = 1, 3
_WEIGHT, _BIAS = 6, 5
ACTIVATION, ENDS = 9, 10


def activation(bounds: tuple[float, float] | None) -> dict[int, Setting]:
    """Return the parameters of a clamp that a layer does as well."""
    if bounds is None or bounds == (-np.inf, np.inf):
        return {}
    if bounds == (0.0, np.inf):
        return {ACTIVATION: _RELU}
    largest = float(np.finfo(np.float32).max)
    return {ACTIVATION: _CLIP, ENDS: tuple(float(np.clip(end, -largest, largest)) for end in bounds)}


def form(site: Site) -> tuple[str, dict[int, Setting]]:
    """Return ncnn's name for a layer, and its parameters but for bias, scales and activation.

    Raises:
        ConversionError: the layer has no form.
    """
    weight = site.parameter(site.node.weight)
    if weight is None:
        raise site.refused("its weight is no parameter")
    if site.node.op == "linear":
        if len(site.input.shape) > 2:
            raise site.refused(f"a linear layer over {len(site.input.shape)} axes; ncnn takes 1 or 2")
        return "InnerProduct", {0: len(weight), 2: weight.size}
    groups = int(site.attribute("groups", 1))
    settings: dict[int, Setting] = {0: len(weight), _WEIGHT: weight.size}
    settings |= {7: groups} if groups > 1 else {}
    wide = site.node.op == "conv2d"
    (high, width), (down, across), (tall, broad) = (
        _sizes(site, weight.shape[2:], wide=wide),
        site.pair("stride", 1),
        site.pair("dilation", 1),
    )
    settings |= {1: width, 2: broad, 3: across}
    (top, bottom), (left, right) = _pads(site, ((high, tall), (width, broad)))
    left, right, top, bottom = (one + more for one, more in zip((left, right, top, bottom), site.pads, strict=True))
    settings |= {4: left, 15: right}
    if wide:
        settings |= {11: high, 12: tall, 13: down, 14: top, 16: bottom}
    name = "ConvolutionDepthWise" if groups > 1 else "Convolution"
    return name if wide else f"{name}1D", settings


def _sizes(site: Site, kernel: Sequence[int], *, wide: bool) -> tuple[int, int]:
    if len(kernel) != (2 if wide else 1):
        raise site.refused(f"a kernel of {len(kernel)} axes")
    return int(kernel[0]), int(kernel[-1])


def _pads(site: Site, extents: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return (before, after) of each axis, of a padding in numbers or in words."""
    word = site.attribute("padding", 0)
    if word == "same":
        spans = [dilation * (size - 1) for size, dilation in extents]
        return [(span // 2, span - span // 2) for span in spans]
    if word == "valid":
        return [(0, 0), (0, 0)]
    down, across = site.pair("padding")
    return [(down, down), (across, across)]


def biased(name: str) -> int:
    """Return the number of the parameter that tells whether a layer has a bias."""
    return 1 if name == "InnerProduct" else _BIAS


def write_layer(site: Site) -> Value:
    """Write a layer in float32, a clamp behind it done as well."""
    return in_float(site, None, None)


def in_float(site: Site, encoding: Encoding | None, codes: np.ndarray | None) -> Value:
    """Write a layer that computes in float32.

    Args:
        site: where.
        encoding: of the weight: float16, or Affine for integers that a Scale behind the layer gives their size.
        codes: the integers.

    Raises:
        ConversionError: the layer has no form.
    """
    weight, bias = site.parameter(site.node.weight), site.parameter(site.node.bias)
    name, settings = form(site)
    assert weight is not None, "form refuses layers without a weight"
    if isinstance(encoding, Affine) and codes is not None:
        return _scaled(site, encoding, codes, bias)
    site.fused = site.bounds is not None
    stored = Form.FLOAT16 if encoding is not None else Form.FLOAT32
    arrays = [Array("weight", stored, weight)]
    if bias is not None:
        settings[biased(name)] = 1
        arrays.append(plain("bias", bias))
    return site.emit(name, [site.input], {**settings, **activation(site.bounds)}, arrays)


def _scaled(site: Site, encoding: Affine, codes: np.ndarray, bias: np.ndarray | None) -> Value:
    """Write whole numbers as the weight, and their scales and the bias behind the layer."""
    keep_scale(site, encoding)
    name, settings = form(site)
    wide = site.emit(name, [site.input], settings, [Array("weight", Form.TABLE, codes)], part="sum")
    channels = len(codes)
    scales = np.broadcast_to(encoding.scale, (channels,)).astype(np.float32)
    return scale(site, wide, scales, bias)


def scale(site: Site, value: Value, scales: np.ndarray, bias: np.ndarray | None, part: str = "") -> Value:
    """Multiply each channel of a layer's output by a number of its own, and add a bias."""
    if site.node.op == "linear" and len(value.shape) > 1:
        row = (1, len(scales))
        factor = site.sheet.constant(f"{site.node.key}:out{FACTOR}", scales, row)
        if bias is None:
            return site.emit("BinaryOp", [value, factor], {0: 2}, part=part)
        value = site.emit("BinaryOp", [value, factor], {0: 2}, part="scaled")
        return site.emit("BinaryOp", [value, site.sheet.constant(f"{site.node.key}:out/bias", bias, row)], part=part)
    arrays = [plain("scale", scales), *([] if bias is None else [plain("bias", bias)])]
    settings: dict[int, Setting] = {0: len(scales), **({} if bias is None else {1: 1})}
    return site.emit("Scale", [value], settings, arrays, part=part or "")


def keep_scale(site: Site, weight: Affine) -> None:
    """Write the scales of a weight's integers, as they were decided."""
    name = SCALE if weight.axis is None else SCALES
    site.sheet.constant(f"{site.node.key}:weight{name}", weight.scale)
