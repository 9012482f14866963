"""Transposed convolutions: what a convolution would read becomes what is written, stride by stride.

LiteRT's TRANSPOSE_CONV knows the two paddings of a convolution; whatever else PyTorch cuts off its borders is cut off
by a SLICE. It has no groups and no holes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from haversack.targets.litert import padding
from haversack.targets.litert.order import NHWC, NWC
from haversack.targets.litert.padding import spread
from haversack.targets.litert.sheet import Value
from haversack.targets.litert.site import Site
from haversack.tools.graph.program import Constant


def write_transposed2d(site: Site) -> Value:
    """Write a transposed convolution over height and width, in float."""
    x = site.ordered(site.value("input"), NHWC)
    return _spread_out(site, x, site.shape, line=False)


def write_transposed1d(site: Site) -> Value:
    """Write a transposed convolution over one axis, as one over an image of height 1."""
    x = site.ordered(site.value("input"), NWC)
    n, channels, length = x.shape
    image = site.reshape(x, (n, channels, 1, length), NHWC)
    n, channels, length = site.shape
    return site.reshape(_spread_out(site, image, (n, channels, 1, length), line=True), site.shape, NWC)


def _spread_out(site: Site, x: Value, shape: Sequence[int], *, line: bool) -> Value:
    """Write the operator on an image with its channels last; ``shape`` is that of the output, channels first."""
    arguments, rank = site.arguments, 1 if line else 2
    weight, bias = arguments["weight"], arguments.get("bias")
    if not isinstance(weight, Constant) or not isinstance(bias, Constant | None):
        raise site.refused("its weight or bias is computed")
    if int(arguments["groups"]) != 1 or any(n != 1 for n in spread(arguments["dilation"], rank)):
        raise site.refused("groups or holes")
    lead = [1] if line else []
    kernel = [*lead, *weight.array.shape[2:]]
    stride = [*lead, *spread(arguments["stride"], rank)]
    before = [*([0] if line else []), *spread(arguments["padding"], rank)]
    sizes = list(shape[2:])
    sides = tuple((n, n) for n in before)
    fits = all(-(-size // s) == n for size, s, n in zip(sizes, stride, x.shape[2:], strict=True))
    scheme = padding.scheme(sizes, kernel, stride, [1, 1], sides) if fits else ""
    whole = sizes
    if scheme != "SAME":  # all that is written, and what PyTorch adds behind it, before its borders are cut off
        scheme = "VALID"
        full = ((n - 1) * s + k for n, s, k in zip(x.shape[2:], stride, kernel, strict=True))
        whole = [max(n, size + p) for n, size, p in zip(full, sizes, before, strict=True)]
    turned = weight.array[:, :, None] if line else weight.array
    inputs = [
        site.constant("shape", np.array([shape[0], *whole, shape[1]], np.int32)),
        site.sheet.constant(f"{site.key}:weight", np.ascontiguousarray(turned.transpose(1, 2, 3, 0))),
        x.tensor,
        site.sheet.constant(f"{site.key}:bias", np.zeros(shape[1], np.float32) if bias is None else bias.array),
    ]
    settings: dict[str, Any] = {
        "padding": site.sheet.options("Padding")[scheme],
        "strideH": stride[0],
        "strideW": stride[1],
    }
    made = site.emit("TRANSPOSE_CONV", inputs, (*shape[:2], *whole), NHWC, "TransposeConvOptions", **settings)
    if whole == sizes and (scheme == "SAME" or not any(before)):
        return made
    begin = site.constant("begin", np.array([0, *before, 0], np.int32))
    size = site.constant("size", np.array([shape[0], *sizes, shape[1]], np.int32))
    return site.emit("SLICE", [made.tensor, begin, size], shape, NHWC, "SliceOptions")
